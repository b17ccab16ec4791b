/* src/app/verify.h: shared by verify.c (models, inputs, the command), verify_checks.c (the identities) and
 * verify_lti.c (those of time-invariant layers). */
#pragma once

#include "app.h"
#include "sq/spectra.h"
#include "sq/task.h"

enum { NSEQ = 2, MAX_T = 64, NLABEL = 8, NCHECK = 6 };

typedef struct {
  const sq_config *config;
  const sq_task *task; /* NULL: random inputs */
  sq_task_info info;
  sq_model *model;
  int T, failed, skipped, partial, width,
      verbose;          /* partial: a direction too many; width: of labels on the screen */
  double worst[NCHECK]; /* largest error over its tolerance of each check; -1: not made */
  uint64_t seed;

  sq_arena arena;
  sq_real *theta, *moved, *gradient, *value, *keep;
  int32_t *token, *label, *example, *example_label;
  void *work;
  sq_factors f;
  double *y, *heads, *out, *energy[2], *sigma[2], *log_s, *lambda;
  struct sq_verify_lti *lti; /* NULL: the layers change with time */
} verification;

/* In the numbers of the layer: float64 has the margin of the design; float32 a few hundred roundings for sums of up
   to MAX_T products behind an exponential. */
#ifdef SQ_DOUBLE
#define RECURRENCE_TOLERANCE 1e-10
#else
#define RECURRENCE_TOLERANCE (256 * (double)SQ_REAL_EPS)
#endif
/* Keeps the larger, 1 if it is new; NaN is the largest. */
int sq_verify_raise(double *worst, double x);
double sq_verify_difference(size_t n, const double *a, const double *b); /* largest |a - b| */
double sq_verify_largest(size_t n, const double *x);
/* error / scale; what is below the smallest normal number of the precision counts as zero */
double sq_verify_over(double error, double scale);
void sq_verify_evaluate(verification *v, const sq_batch *b);

static inline size_t sq_verify_rows(const verification *v)
{
  return (size_t)NSEQ * (size_t)v->T;
}

/* One number of the result: value, how it must relate to the bound, what it is ("<check>: ...") and details.
   Prints its line if it fails, or with --verbose. */
typedef enum { SQ_VERIFY_AT_MOST, SQ_VERIFY_AT_LEAST } sq_verify_relation;
void sq_verify_report(verification *v, sq_verify_relation relation, double value, double bound,
                      const char *what, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* NaN fails both. */
#define AT_MOST(v, value, bound, ...)  sq_verify_report(v, SQ_VERIFY_AT_MOST, value, bound, __VA_ARGS__)
#define AT_LEAST(v, value, bound, ...) sq_verify_report(v, SQ_VERIFY_AT_LEAST, value, bound, __VA_ARGS__)

/* Random inputs from stream index `draw` for steps t0 .. t1-1 of the sequence whose first row is r0. */
void sq_verify_fill(verification *v, int draw, int r0, int t0, int t1);
/* T steps of the task's test example b, or random ones, from row r0 on. */
void sq_verify_fill_example(verification *v, int b, int r0, int T);
/* The filled rows as sequences, with drawn labels; off (nseq+1) is borrowed. */
sq_batch sq_verify_batch(verification *v, int nseq, const int *off);
/* Sequences of T and of about 5T/8 steps. */
sq_batch sq_verify_examples(verification *v, int off[NSEQ + 1]);

/* The checks, each with its lines; an error is the world's, a failed check is counted in v->failed. */
sq_status sq_verify_recurrence(verification *v);
void sq_verify_causality(verification *v);
void sq_verify_padding(verification *v);
void sq_verify_gradient(verification *v);
sq_status sq_verify_regauge(verification *v);

/* Time-invariant layers: arrays, and the checks that are theirs. */
void sq_verify_lti_take(verification *v, sq_arena *a);
int sq_verify_both_directions(
    const verification *v); /* a layer that sees the future: neither causal nor one recurrence */
int sq_verify_is_dense(const verification *v); /* of time-invariant layers: A is not diagonal */
sq_status sq_verify_lti_recurrence(verification *v);
sq_status
sq_verify_lti_systems(verification *v); /* regauge and eigenvalues, from one solution of each system */
