/* include/sq/spectra.h: eigenvalues and memory of a trained layer (definitions: README "Spectra", arXiv
 * 2510.09379).
 *
 * All results are float64.  A field is a named array per (cell, stage); the store creates one data set for
 * each field and knows nothing else about it. */
#pragma once

#include "sq/base.h"
#include "sq/batch.h"
#include "sq/config.h"
#include "sq/model.h"

int sq_spectra_keysets(const sq_keyset **set, int cap); /* analysis.* */

#define SQ_FIELD_AXES 5
typedef struct {
  const char *name, *long_name, *unit; /* "log_lambda", "log of the eigenvalue's modulus", "1" */
  int naxis;
  const char *axis[SQ_FIELD_AXES]; /* "layer", "head", "sample", "position", "radius_bin", "cut", ... */
  int dim[SQ_FIELD_AXES];
  int invariant;      /* 1: does not depend on the coordinates of the state; 0: does; -1: not a statistic of
                    the layer (null models, counts) */
  int complex_values; /* 1: two doubles {re, im} an entry; at most SQ_FIELD_AXES - 1 axes */
} sq_field;
typedef struct { /* coordinates of an axis, for its dimension scale */
  const char *axis, *unit, *long_name;
  int n;
  const double *value;      /* (n), or NULL: 0..n-1 */
  const char *const *label; /* (n) text labels, or NULL */
} sq_axis;

typedef struct sq_spectra sq_spectra;

/* For one cell and one protocol ("dsf" | "published").  nsample sequences of at most seq_len steps.  From the
   model's shapes alone: no weights needed.  SQ_ERR_MEMORY. */
sq_status sq_spectra_create(const sq_config *c, const sq_model *m, const char *protocol, int nsample,
                            int seq_len, sq_spectra **s);
void sq_spectra_destroy(sq_spectra **s);
/* poll (or NULL) is called between sequences (protocol dsf: and heads), and within the systems of time-invariant layers between calls of BLAS and
   LAPACK and between the values of a sweep: where it returns
   nonzero, sq_spectra_run stops there and returns SQ_STOPPED without an error text. */
void sq_spectra_poll(sq_spectra *s, int (*poll)(void *user), void *user);
/* Systems of time-invariant layers that a run analyses, one a layer or a channel, and how many of them the run that goes on,
   or the last one, has finished.  Other layers: 0. */
int sq_spectra_nsystem(const sq_spectra *s);
int sq_spectra_done(const sq_spectra *s);
/* Scratch that the first sq_spectra_run will take and keep. */
size_t sq_spectra_bytes(const sq_spectra *s);
const sq_field *sq_spectra_fields(const sq_spectra *s, int *n);
const sq_axis *sq_spectra_axes(const sq_spectra *s, int *n);
/* Doubles of one field: the product of dim, twice that for complex values. */
size_t sq_field_doubles(const sq_field *f);
/* Fills out[f] (sq_field_doubles) for each field; sample: nsample sequences, evaluation mode, run through the
   model one by one in `work`.  Unused entries are NaN.  Time-invariant layers are analysed from theta alone: no
   sequence passes through the model, and results do not depend on the sample.  SQ_STOPPED: see sq_spectra_poll;
   the fields are half filled. */
sq_status sq_spectra_run(sq_spectra *s, const sq_real *theta, const sq_batch *sample, void *work,
                         double *const *out);

/* ---- pieces, used by parity, verify and tests -------------------------------------------------------- */
extern const double sq_radius_threshold[6];    /* 0.1 0.5 0.9 1 10 100 */
extern const double sq_phase_threshold_deg[5]; /* 1 10 45 90 180 */
#define SQ_NMEMORY 5                           /* levels of memory_distance_quantile: .1 .25 .5 .75 .9 */
#define SQ_NRADIUS 7
#define SQ_NPHASE  6
/* Percent of n values in each radius bin, decided on log|lambda|.  closed != 0: the published rule, both ends
   closed, NaN and negatives nowhere but in n, decided on exp(log|lambda|).  closed == 0: (a,b], the first
   [0,b], each value once; a log within two roundings of a threshold's is on it; NaN is left out of n. Phases:
   absolute angle if closed == 0.  NaN if n is 0. */
void sq_bin_radius(size_t n, const double *log_lambda, int closed, double percent[SQ_NRADIUS]);
void sq_bin_phase(size_t n, const double *angle_rad, int closed, double percent[SQ_NPHASE]);

/* y_i by running the recurrence (T,dv), skip included; the state is carried with a logarithmic scale.  For `exponential`
 * factors the unrolled sum. */
sq_status sq_factors_run(const sq_factors *f, double *y);
/* The same map in other coordinates: h'_i = s_i h_i with log s_i given (T). */
void sq_factors_regauge(sq_factors *f, const double *log_s);
/* Energy by distance (skip at 0): e[d] += sum_i |M_(i,i-d)|^2, divided by the largest of this call's T sums; O(T^2 n).
   SQ_ERR_DATA if a factor is NaN or infinite (logs may be -inf: lambda, B or C is zero). */
sq_status sq_factors_energy(const sq_factors *f, double *e);
/* Smallest distance d such that the energies up to d are at least `level` of their sum; NaN if all are 0. */
double sq_distance_quantile(int T, const double *e, double level);
/* Singular values of the past-to-future block at cut t, 0 < t < T (rows i >= t, columns j < t), relative to
   the largest (sigma_1 = 1), and log sigma_1.  Finite state: product of triangular Gramian factors (min(n, t,
   T-t) values); `exponential`: local SVD. sigma: (min(t, T-t)) or (n).  Returns the number written in
   *nsigma.  SQ_ERR_DATA as above; a zero block has sigma 0 and log sigma_1 = -inf.  Error: about n eps |R_o|
   |R_c| (src/spectra/hankel.c). */
sq_status sq_factors_hankel(const sq_factors *f, int t, double *sigma, int *nsigma, double *log_sigma1);
/* Effective state size: rank at SQ_RANK_TOLERANCE sigma_1, exp H(sigma/sum sigma), exp H(sigma^2/sum
 * sigma^2); 0 if all are 0. */
#define SQ_RANK_TOLERANCE 1e-3
void sq_effective_state_size(int n, const double *sigma, double size[3]);
/* Bytes and allocation of factors for T steps in an arena; n, dv, first, exponential from
 * sq_mixer_ops.factor_dims. */
void sq_factors_take(sq_arena *a, sq_factors *f);

/* ---- time-invariant layers (sq_lti, include/sq/mixer.h) ----------------------------------------------- */
/* Arrays of one system of the given dims in an arena. */
void sq_lti_take(sq_arena *a, sq_lti *f);
/* Runs h_i = A h_(i-1) + B u_i, y_i = Re(C h_i) + D u_i: u (T, stride ldu), y (T, stride ldy), both of this
   system's columns; h (n): scratch. */
void sq_lti_run(const sq_lti *f, int T, const double *u, int ldu, double *y, int ldy, sq_complex *h);
/* Dense matrix A (n,n) of the recurrence. */
void sq_lti_matrix(const sq_lti *f, sq_complex *A);
/* The same map in the coordinates h' = S h, S = diag(scale): A -> S A S^-1, B -> S B, C -> C S^-1. */
void sq_lti_rescale(sq_lti *f, const sq_complex *scale);

typedef struct {  /* (n) each */
  sq_complex *mu; /* eigenvalues of A_c; diagonal systems: those of A */
  double *mu_radius, *mu_sensitivity;
  sq_complex *lambda; /* of A */
  double
      *radius; /* of the disc around lambda that holds the eigenvalue of the stored A_c; 0 if A is diagonal */
  double *condition; /* s = |y^* x| of unit eigenvectors, the same for A and A_c */
  double *backward;  /* |A x - lambda x|/(|A|_F |x|) with the A of the recurrence */
  double
      *sensitivity; /* |change of lambda| to first order when lam, p change by `relative` of their size, step
                          by relative |log step|; diagonal systems: NaN (from sq_spectra_run only) */
  int *certified;
  int sweeps;
} sq_lti_spectrum;
void sq_lti_spectrum_take(sq_arena *a, int n, sq_lti_spectrum *s);
/* Dense systems: in quadruple precision (sq_secular_solve); work: sq_secular_bytes(n). */
void sq_lti_eigenvalues(const sq_lti *f, double relative, sq_lti_spectrum *s, void *work);
/* lambda = (1 + step mu/2)/(1 - step mu/2) */
sq_complex sq_lti_bilinear(double step, sq_complex mu);
/* Radius of a disc around lambda, the rounded sq_lti_bilinear(step, mu), that holds the image of the disc of radius r
   around mu; INFINITY where that reaches the pole. */
double sq_lti_disc(double step, sq_complex mu, double r, sq_complex lambda);

/* Energy of the impulse response, e[k] += |Re(C A^k B) + (D if k = 0)|_F^2, k < T.  work: sq_lti_energy_work
   doubles. */
size_t sq_lti_energy_work(const sq_lti *f);
void sq_lti_energy(const sq_lti *f, int T, double *e, double *work);
/* Largest |A^k|_2 over k = 1, 2, 4, .. <= T, by squaring: at most the largest over all k. */
size_t sq_lti_power_work(const sq_lti *f);
double sq_lti_power_norm(const sq_lti *f, int T, double *work);
/* Numerical radius max |x^* A x| over unit x: the largest eigenvalue of the Hermitian part of exp(i phi) A
   over 64 angles phi, so at most 0.13 % below. */
double sq_lti_numerical_radius(const sq_lti *f, double *work);
/* As sq_factors_hankel, cut 0 < t < T; the real system has order 2n: sigma (2n).  Observability runs over C A ..
   C A^(T-t), controllability over B .. A^(t-1) B.  work: sq_lti_hankel_bytes, 64-byte aligned.  SQ_ERR_DATA if
   the system is not finite or overflows, SQ_STOPPED (without a text) at f->stop. */
size_t sq_lti_hankel_bytes(const sq_lti *f);
sq_status sq_lti_hankel(const sq_lti *f, int T, int t, double *sigma, int *nsigma, double *log_sigma1,
                        void *work);
