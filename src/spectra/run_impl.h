/* src/spectra/run_impl.h: the analysis of a cell, shared by fields.c (what comes out) and spectra.c
 * (computing it). */
#pragma once

#include "spectra_impl.h"

typedef enum {
  F_LENGTH,
  F_LOG_LAMBDA,
  F_RADIUS_MEAN,
  F_RADIUS_STD,
  F_PHASE_MEAN,
  F_PHASE_STD,
  F_NULL_UNIFORM,
  F_NULL_SHUFFLED,
  F_QUANTILE,
  F_ABOVE_ONE,
  F_ENTROPY,
  F_MEMORY,
  F_SIGMA,
  F_LOG_SIGMA1,
  F_SIZE_TOLERANCE,
  F_SIZE_ENTROPY,
  F_SIZE_ENTROPY_SQUARED,
  F_SIZE_LIMIT,
  F_EXPONENT,
  F_HORIZON,
  F_LAMBDA, /* from here on: time-invariant layers only */
  F_LAMBDA_RADIUS,
  F_LAMBDA_CONDITION,
  F_LAMBDA_BACKWARD,
  F_LAMBDA_SENSITIVITY,
  F_LAMBDA_CERTIFIED,
  F_RADIUS_SHIFT,
  F_RADIUS_MARKED,
  F_MODAL_ENERGY,
  F_KERNEL_ENERGY,
  F_POWER_NORM,
  F_NUMERICAL_RADIUS,
  F_COUNT
} sq_field_id;

enum { SQ_NQUANTILE = 7, SQ_MAX_AXES = 12, SQ_NSIZE = F_SIZE_LIMIT - F_SIZE_TOLERANCE + 1 };
extern const double sq_quantile_level[SQ_NQUANTILE]; /* of log|lambda| */
extern const double sq_memory_level[SQ_NMEMORY];     /* of the distance */

typedef struct { /* of one layer; m = nsystem * n */
  int m;
  sq_lti f, moved; /* one system; moved: only its lam, p, or a */
  sq_lti_spectrum spectrum;
  sq_complex *lam, *p;  /* (n) of the system before: often the same in all channels */
  sq_complex *mu_moved; /* (n) */
  double *modulus, *log_lambda, *angle, *log_moved, *low, *high, *weight; /* (m) */
  double *distance, *energy; /* (seq_len) of one system; of the layer */
  double *sigma, *work;      /* (2n), (largest of several) */
  double *channel;           /* (nhankel) systems whose Hankel values are computed; owned */
  void *secular, *hankel;
  sq_real *theta; /* moved by one rounding; diagonal layers */
  int done;       /* systems of this run that are finished */
} sq_lti_scratch;

struct sq_spectra {
  const sq_model *model;                   /* borrowed */
  int published, store_all, lti, exponent; /* exponent: lambda belongs to every step, also to the first */
  int nlayer, nhead, nsample, seq_len, ncut, nindex, nhankel, nmemory, input_dim;
  uint64_t seed; /* of the permutations */
  double *cut;   /* (ncut) */
  sq_stop stop;

  sq_axis axis[SQ_MAX_AXES];
  int naxis;
  sq_field field[F_COUNT];
  int nfield, place[F_COUNT]; /* place of a field in field[], -1: not made */

  /* Scratch, planned and allocated by sq_spectra_create. */
  sq_arena arena;   /* of the first run */
  size_t bytes;     /* that it will hold */
  sq_factors f;     /* for the longest sequence and the largest head */
  double *lambda;   /* (layer, head, sample, position) log lambda; NULL if it is a field */
  double *row;      /* (position) */
  double *sorted;   /* (sample, position) */
  double *rows_all; /* (position, head): published */
  double *percent;  /* (sample, bin) */
  double *energy;   /* (layer, head, position), mean over samples */
  double *distance; /* (position) */
  int *perm;        /* (position) */
  int *nshuffled;   /* (layer, head) sequences in the shuffled null model */
  int nuniform;     /* and in the uniform one */
  int32_t *token, *label;
  sq_real *value;
  sq_energy_scratch es;
  sq_hankel_scratch hs;
  void *mixer_scratch; /* published */
  sq_lti_scratch *ls;  /* time-invariant layers: owned, its arrays in the arena */
};

/* Axes and fields of s, whose dimensions are set. */
void sq_fields_make(sq_spectra *s);

/* Field id of this stage; only for fields that are made. */
double *sq_spectra_field(const sq_spectra *s, double *const *out, sq_field_id id);

/* 1: the caller wants to stop. */
int sq_spectra_stop(const sq_spectra *s);
/* The three effective state sizes and the number of values n, added to their sums at `place` (NaN at first). */
void sq_spectra_add_sizes(const sq_spectra *s, double *const *out, size_t place, int n, const double *sigma);

/* Time-invariant layers (lti_run.c). */
sq_status sq_lti_plan(sq_spectra *s, const sq_config *c); /* dimensions of s */
void sq_lti_scratch_take(sq_spectra *s, sq_arena *a);
sq_status sq_lti_analyse(sq_spectra *s, const sq_real *theta, double *const *out);
