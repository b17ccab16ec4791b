/* src/linalg/fft.c: real Fourier transforms by FFTW 3, the only file with its names.
 *
 * FFTW_ESTIMATE times nothing: a plan is a function of the length and of the alignment of the arrays, and making it
 * leaves these arrays alone. */
#include <fftw3.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>

#include "sq/base.h"
#include "sq/linalg.h"

/* What the plans were told of the arrays. */
static int aligned(const void *x)
{
  return (uintptr_t)x % 64 == 0;
}

#define DEFINE_FFT(name, real, FFTW)                                                                         \
  struct name {                                                                                              \
    int n;                                                                                                   \
    FFTW(plan) forward, backward;                                                                            \
  };                                                                                                         \
                                                                                                             \
  static sq_status name##_plan(struct name *f, real *x, real *X)                                             \
  {                                                                                                          \
    FFTW(complex) *z = (FFTW(complex) *)(void *)X;                                                           \
    f->forward = FFTW(plan_dft_r2c_1d)(f->n, x, z, FFTW_ESTIMATE | FFTW_DESTROY_INPUT);                      \
    f->backward = FFTW(plan_dft_c2r_1d)(f->n, z, x, FFTW_ESTIMATE | FFTW_DESTROY_INPUT);                     \
    if (f->forward != NULL && f->backward != NULL) return SQ_OK;                                             \
    return sq_fail(SQ_ERR_MEMORY, "no memory for the plans of a Fourier transform of length %d", f->n);      \
  }                                                                                                          \
                                                                                                             \
  sq_status name##_create(int n, struct name **out)                                                          \
  {                                                                                                          \
    sq_status st = SQ_OK;                                                                                    \
    sq_arena a = {0};                                                                                        \
    *out = NULL;                                                                                             \
    SQ_ASSERT(n >= 1 && n <= INT_MAX / 4);                                                                   \
    struct name *f = sq_calloc(1, sizeof *f, "Fourier transform");                                           \
    if (f == NULL) return SQ_ERR_MEMORY;                                                                     \
    f->n = n;                                                                                                \
    SQ_TRY(                                                                                                  \
        sq_arena_create(&a, ((size_t)2 * (size_t)n + 64) * sizeof(real), "planning a Fourier transform"));   \
    real *x = SQ_TAKE(&a, (size_t)n, real), *X = SQ_TAKE(&a, (size_t)n + 2, real);                           \
    SQ_TRY(name##_plan(f, x, X));                                                                            \
    *out = f;                                                                                                \
  done:                                                                                                      \
    sq_arena_destroy(&a);                                                                                    \
    if (st != SQ_OK) name##_destroy(&f);                                                                     \
    return st;                                                                                               \
  }                                                                                                          \
                                                                                                             \
  void name##_destroy(struct name **f)                                                                       \
  {                                                                                                          \
    if (*f == NULL) return;                                                                                  \
    if ((*f)->forward != NULL) FFTW(destroy_plan)((*f)->forward);                                            \
    if ((*f)->backward != NULL) FFTW(destroy_plan)((*f)->backward);                                          \
    free(*f);                                                                                                \
    *f = NULL;                                                                                               \
  }                                                                                                          \
                                                                                                             \
  void name##_forward(const struct name *f, real *x, real *X)                                                \
  {                                                                                                          \
    SQ_ASSERT(aligned(x) && aligned(X));                                                                     \
    FFTW(execute_dft_r2c)(f->forward, x, (FFTW(complex) *)(void *)X);                                        \
  }                                                                                                          \
                                                                                                             \
  void name##_backward(const struct name *f, real *X, real *x)                                               \
  {                                                                                                          \
    SQ_ASSERT(aligned(x) && aligned(X));                                                                     \
    FFTW(execute_dft_c2r)(f->backward, (FFTW(complex) *)(void *)X, x);                                       \
  }

#define FFTW_DOUBLE(name) fftw_##name
#define FFTW_SINGLE(name) fftwf_##name
DEFINE_FFT(sq_dfft, double, FFTW_DOUBLE)
#ifdef SQ_DOUBLE
DEFINE_FFT(sq_fft, double, FFTW_DOUBLE)
#else
DEFINE_FFT(sq_fft, float, FFTW_SINGLE)
#endif

int sq_fft_length(const sq_fft *f)
{
  return f->n;
}

int sq_fft_good_length(int n)
{
  static const int odd[] = {1, 3, 5, 9, 15};
  int best = INT_MAX;
  SQ_ASSERT(n >= 1 && n <= INT_MAX / 4);
  for (size_t i = 0; i < sizeof odd / sizeof *odd; ++i) {
    int m = odd[i];
    while (m < n) m *= 2;
    if (m < best) best = m;
  }
  return best;
}
