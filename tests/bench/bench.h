/* tests/bench/bench.h: what the timing programs share: a cell ready to train, one training step of it as the program
 * makes it, and the rates of the machine that a step is compared with. */
#pragma once

#include <time.h>

#include "sq/base.h"
#include "sq/train.h"

/* ---- command line ------------------------------------------------------------------------------------ */
enum { BENCH_MAX_OVERRIDES = 64 };
typedef struct {
  const char *config, *model; /* model NULL: as the configuration says */
  const char *set[BENCH_MAX_OVERRIDES];
  int nset, threads;
  clockid_t clock;
  const sq_team *team; /* whose cell it is; NULL: this rank's alone */
} bench_options;
/* Takes argv[*i] if it is CONFIG or one of --model NAME, --set KEY=VALUE, --threads N, --clock wall|cpu, with its
   value: 1, and *i is then the last one taken.  0: not one of these; -1: it is, but its value is wrong or missing. */
int bench_option(bench_options *o, int argc, char **argv, int *i);
#define BENCH_OPTIONS "CONFIG [--model NAME] [--set KEY=VALUE]... [--threads N] [--clock wall|cpu]"
/* Names for --model, to be tried from 0 on; NULL past the end. */
const char *bench_model_name(int i);
double bench_now_s(const bench_options *o);
/* "1,2,4" to count[]: how many, at most BENCH_MAX_COUNTS; 0: not all of them are integers from 1 to most.  Changes the list. */
enum { BENCH_MAX_COUNTS = 32 };
int bench_counts(char *list, int most, int count[BENCH_MAX_COUNTS]);
/* What was measured, and on what: the first lines of a table for several ranks. */
void bench_print_head(const bench_options *o);

/* ---- a cell ------------------------------------------------------------------------------------------ */
typedef struct {
  sq_experiment *experiment;
  const sq_config *c;
  sq_train_plan plan;
  sq_task *task;
  sq_model *model;
  sq_worker *worker;
  sq_real *theta, *m, *v, *grad;
  void *batch;
  size_t *index;
  long step; /* done so far */
} bench_cell;
/* extra: one more KEY=VALUE, or NULL.  A cell that could not be opened is closed. */
sq_status bench_open(const bench_options *o, const char *extra, bench_cell *b);
void bench_close(bench_cell *b);

typedef struct {
  double input_s,
      step_s;  /* making the batch, or a member's part of it; forward, backward, clipping and AdamW */
  double loss; /* nats per label */
} bench_time;
/* The next training step, by the calls that sq_train_cell() makes.  Learning rate constant, dropout as
   configured, examples in their order. */
bench_time bench_step(bench_cell *b, const bench_options *o);

/* ---- the machine ------------------------------------------------------------------------------------- */
enum { BENCH_GEMM_N = 1024 };
#define BENCH_GEMM_FLOPS (2.0 * BENCH_GEMM_N * BENCH_GEMM_N * BENCH_GEMM_N)
typedef struct {
  sq_real *A, *B, *C;
} bench_gemm;
sq_status bench_gemm_open(bench_gemm *g);
void bench_gemm_close(bench_gemm *g);
void bench_gemm_run(const bench_gemm *g); /* one product of BENCH_GEMM_N^3 */
/* Best of several, GFLOP/s: the rate that the machine reaches, not its average load. */
double bench_gemm_best(const bench_gemm *g, const bench_options *o);

/* a = b + s c on three arrays of n doubles: moves 24 n bytes, not counting what a cache reads before it writes. */
void bench_triad(size_t n, const double *b, const double *c, double s, double *a);
/* n additions, each waiting for the one before: one clock cycle each, so the rate is the core's frequency. */
uint64_t bench_chain(long n, uint64_t x);

/* ---- statistics -------------------------------------------------------------------------------------- */
void bench_sort(size_t n, double *x);
double bench_slope(int n, const double *x, const double *y); /* least squares, of log y against log x */
