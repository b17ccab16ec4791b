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
  int invariant; /* 1: does not depend on the coordinates of the state; 0: does; -1: not a statistic of
                    the layer (null models, counts) */
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
/* Scratch that the first sq_spectra_run will take and keep. */
size_t sq_spectra_bytes(const sq_spectra *s);
const sq_field *sq_spectra_fields(const sq_spectra *s, int *n);
const sq_axis *sq_spectra_axes(const sq_spectra *s, int *n);
/* Fills out[f] (product of dim) for each field; sample: nsample sequences, evaluation mode, run through the
   model one by one in `work`.  Unused entries are NaN. */
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

/* y_i by running the recurrence (T,dv); the state is carried with a logarithmic scale.  For `exponential`
 * factors the unrolled sum. */
sq_status sq_factors_run(const sq_factors *f, double *y);
/* The same map in other coordinates: h'_i = s_i h_i with log s_i given (T). */
void sq_factors_regauge(sq_factors *f, const double *log_s);
/* Energy by distance: e[d] += sum_i |M_(i,i-d)|^2, divided by the largest of this call's T sums; O(T^2 n).
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
