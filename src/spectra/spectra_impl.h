/* src/spectra/spectra_impl.h: what the files of this module share.
 *
 * Scratch comes from an arena given by the caller, so that a stage of a run allocates nothing; the *_take
 * functions cut it up and, on an arena that only counts, plan it. */
#pragma once

#include "sq/spectra.h"

/* Prefix sums of log lambda as unevaluated sums hi + lo, without the entries that are -inf; `start[i]` is the
   last step <= i whose lambda is 0: steps before it are forgotten at i. */
typedef struct {
  double *hi, *lo; /* (T) */
  int *start;      /* (T) */
} sq_prefix;

typedef struct {
  sq_prefix prefix;
  double *strip;  /* (SQ_STRIP, T) */
  double *energy; /* (T) */
} sq_energy_scratch;

#define SQ_STRIP 32 /* rows of M at a time */

typedef struct {
  sq_prefix prefix;
  double *weight;          /* (T) log weights of rows */
  double *stack, *Ro, *Rc; /* (n+block, n), (n,n), (n,n); infinite state: stack (T/2, T - T/2), no Ro, Rc */
  double *prod, *sigma, *work; /* (n,n), (min(n, T/2)), LAPACK's */
} sq_hankel_scratch;

void sq_energy_take(sq_arena *a, const sq_factors *f, sq_energy_scratch *s);
void sq_hankel_take(sq_arena *a, const sq_factors *f, sq_hankel_scratch *s);

/* 0 if a number in lambda, B or C is NaN or infinite; log of 0 (-inf) is allowed. */
int sq_factors_finite(const sq_factors *f);
void sq_prefix_fill(const sq_factors *f, sq_prefix *p);
/* Logs |M_ij| (finite state: of the absolute value) for rows i0 <= i < i1 and columns j0 <= j < j1 into W
   (i1-i0, ldw); -inf where M_ij = 0, also above the diagonal.  W holds the products c.b on the way. */
void sq_log_matrix(const sq_factors *f, const sq_prefix *p, int i0, int i1, int j0, int j1, double *W,
                   int ldw);

/* Bin of one log|lambda| by the rule (a,b]; 0 <= result < SQ_NRADIUS; NaN is not allowed. */
int sq_radius_bin(double log_lambda);
/* sq_bin_radius with closed ends, decided on |lambda| itself. */
void sq_bin_modulus_closed(size_t n, const double *modulus, double percent[SQ_NRADIUS]);
void sq_sort(size_t n, double *x); /* ascending; allocates nothing */
/* Linear between order statistics (n-1) level, as numpy does; NaN if n is 0. */
double sq_quantile(size_t n, const double *sorted, double level);

/* ---- time-invariant systems --------------------------------------------------------------------------- */
void sq_lti_apply(const sq_lti *f, sq_complex *h); /* h <- A h */
/* The two halves of sq_lti_eigenvalues: mu with what is known of it, and from there lambda; backward: also the
   backward errors (a third of the cost of `map`). */
void sq_lti_solve(const sq_lti *f, double relative, sq_lti_spectrum *s, void *work);
void sq_lti_map(const sq_lti *f, double relative, int backward, sq_lti_spectrum *s);

/* As the public functions of the same name, factors known to be finite. */
void sq_energy_with(const sq_factors *f, sq_energy_scratch *s, double *e);
sq_status sq_hankel_with(const sq_factors *f, int t, sq_hankel_scratch *s, int *nsigma, double *log_sigma1);
