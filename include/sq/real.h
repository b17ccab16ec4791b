/* include/sq/real.h: the working precision.  One source, compiled twice: float32 for `seqspectra`,
 * float64 (SQ_DOUBLE) for `seqspectra-f64`, parity and gradient tests.  Spectra are float64 in both. */
#pragma once

#include <complex.h>
#include <float.h>

#ifdef SQ_DOUBLE
typedef double sq_real;
#define SQ_REAL_EPS  DBL_EPSILON
#define SQ_REAL_MAX  DBL_MAX
#define SQ_PRECISION "float64"
#else
typedef float sq_real;
#define SQ_REAL_EPS  FLT_EPSILON
#define SQ_REAL_MAX  FLT_MAX
#define SQ_PRECISION "float32"
#endif

/* Complex numbers of the analyses: float64 in both programs, stored {r, i}. */
typedef double _Complex sq_complex;
#ifndef CMPLX /* glibc gives it to GCC only */
#define CMPLX(re, im) __builtin_complex((double)(re), (double)(im))
#endif
