/* tests/bench/bench_step.c: time of training steps of one configuration, beside the SGEMM rate of the same
 * machine and run.
 *
 *   bench-step CONFIG [--set KEY=VALUE]... [--steps N] [--threads N] [--clock wall|cpu]
 *
 * --clock cpu counts the process's CPU time: for one thread on a machine that is busy with other work.
 * A step is forward, backward, clipping and AdamW; making the batch is timed apart.  Prints one "name value"
 * a line. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/spectra.h"
#include "sq/train.h"

enum { MAX_SETS = 256, MAX_OVERRIDES = 64, WARM_UP = 2, GEMM_N = 1024, GEMM_RUNS = 7 };

typedef struct {
  const char *config, *set[MAX_OVERRIDES];
  int nset, steps, threads;
  clockid_t clock;
} options;

static double now_s(const options *o)
{
  struct timespec t;
  clock_gettime(o->clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int usage(void)
{
  fprintf(stderr,
          "usage: bench-step CONFIG [--set KEY=VALUE]... [--steps N] [--threads N] [--clock wall|cpu]\n");
  return 2;
}

static int read_options(int argc, char **argv, options *o)
{
  *o = (options){.steps = 20, .threads = 1, .clock = CLOCK_MONOTONIC};
  for (int i = 1; i < argc; ++i) {
    const int more = i + 1 < argc;
    if (strcmp(argv[i], "--set") == 0 && more && o->nset < MAX_OVERRIDES)
      o->set[o->nset++] = argv[++i];
    else if (strcmp(argv[i], "--steps") == 0 && more)
      o->steps = atoi(argv[++i]);
    else if (strcmp(argv[i], "--threads") == 0 && more)
      o->threads = atoi(argv[++i]);
    else if (strcmp(argv[i], "--clock") == 0 && more) {
      const char *clock = argv[++i];
      if (strcmp(clock, "cpu") == 0)
        o->clock = CLOCK_PROCESS_CPUTIME_ID;
      else if (strcmp(clock, "wall") != 0)
        return 0;
    } else if (argv[i][0] != '-' && o->config == NULL)
      o->config = argv[i];
    else
      return 0;
  }
  return o->config != NULL && o->steps > 0 && o->threads > 0;
}

static sq_status load(const options *o, sq_experiment **e)
{
  static const sq_keyset *set[MAX_SETS];
  int n = sq_train_keysets(set, MAX_SETS);
  n += sq_task_keysets(set + n, MAX_SETS - n);
  n += sq_model_keysets(set + n, MAX_SETS - n);
  n += sq_spectra_keysets(set + n, MAX_SETS - n);
  const sq_schema schema = {set, n};
  return sq_experiment_load(&schema, o->config, o->nset, o->set, e);
}

static int ascending(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Best of several: the rate that the machine reaches, not its average load. */
static double gemm_gflops(const options *o)
{
  const size_t n = (size_t)GEMM_N * GEMM_N;
  sq_real *A = sq_calloc(3 * n, sizeof *A, "product"), *B = A + n, *C = B + n;
  double best = INFINITY;
  if (A == NULL) return NAN;
  for (size_t i = 0; i < 2 * n; ++i) A[i] = (sq_real)((double)(i % 1000) / 1000 - 0.5);
  for (int r = 0; r < GEMM_RUNS; ++r) {
    const double start = now_s(o);
    sq_gemm(SQ_N, SQ_N, GEMM_N, GEMM_N, GEMM_N, 1, A, GEMM_N, B, GEMM_N, 0, C, GEMM_N);
    best = fmin(best, now_s(o) - start);
  }
  free(A);
  return 2.0 * GEMM_N * GEMM_N * GEMM_N / best * 1e-9;
}

typedef struct {
  const sq_config *c;
  sq_task *task;
  sq_model *model;
  sq_worker *worker;
  sq_real *theta, *m, *v, *grad;
  void *batch;
  size_t *index;
  double *step_s, *batch_s;
} bench;

static sq_status prepare(bench *b, const options *o, sq_train_plan *p)
{
  const sq_crew crew = {.threads = o->threads};
  sq_status st;
  SQ_TRY(sq_train_plan_threads(b->c, o->threads, p));
  SQ_TRY(sq_task_open(b->c, &b->task));
  SQ_TRY(sq_model_create(b->c, p->dims, &b->model));
  SQ_TRY(sq_worker_create(b->model, sq_train_nshard(b->c), &crew, &b->worker));
  const size_t n = sq_model_params(b->model)->total, B = (size_t)sq_config_int(b->c, "train.batch_size");
  b->theta = sq_calloc(3 * n + sq_model_ngradient(b->model), sizeof *b->theta, "parameters");
  b->batch = sq_calloc(1, sq_task_batch_bytes(&p->task, (int)B), "batch");
  b->index = sq_calloc(B, sizeof *b->index, "index");
  b->step_s = sq_calloc(2 * (size_t)o->steps, sizeof *b->step_s, "times");
  if (!b->theta || !b->batch || !b->index || !b->step_s) return SQ_ERR_MEMORY;
  b->m = b->theta + n;
  b->v = b->m + n;
  b->grad = b->v + n;
  b->batch_s = b->step_s + o->steps;
  sq_model_init(b->model, 1, b->theta);
done:
  return st;
}

static void time_steps(bench *b, const options *o, double *loss)
{
  const sq_task_info *info = sq_task_describe(b->task);
  const int B = sq_config_int(b->c, "train.batch_size");
  const sq_adamw adam = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
  for (int k = -WARM_UP; k < o->steps; ++k) {
    const double start = now_s(o);
    sq_batch batch;
    sq_tally tally;
    for (int i = 0; i < B; ++i)
      b->index[i] = ((size_t)(k + WARM_UP) * (size_t)B + (size_t)i) % info->size[SQ_TRAIN];
    sq_task_batch(b->task, SQ_TRAIN, B, b->index, SQ_PAD_NONE, b->batch, &batch);
    const double made = now_s(o);
    const sq_pass pass = {.rows = &batch.rows,
                          .train = 1,
                          .seed = 1,
                          .step = (uint64_t)(k + WARM_UP),
                          .seq_len = info->seq_len};
    sq_batch_gradient(b->worker, b->theta, &batch, &pass, b->grad, &tally);
    (void)sq_worker_step(b->worker, &adam, 1e-3, 1e-3, k + WARM_UP + 1, b->grad, b->m, b->v, b->theta);
    const double end = now_s(o);
    *loss = tally.loss_sum / (double)tally.nlabel;
    if (k < 0) continue;
    b->step_s[k] = end - made;
    b->batch_s[k] = made - start;
  }
}

/* Layer 0's mixer alone, times layers and shards: what follows from theta once a batch (kernels, discretised
 * matrices; S4: kernel generation), and its passes (S4: the convolution). */
static sq_status time_mixer(const bench *b, const options *o, double part_s[4])
{
  enum { RUNS = 3 };
  const sq_mixer *m = sq_model_mixer(b->model, 0);
  const sq_mixer_ops *ops = sq_mixer_get(m);
  const sq_task_info *info = sq_task_describe(b->task);
  const int B = sq_config_int(b->c, "train.batch_size"), D = sq_model_width(b->model);
  const size_t nderived = sq_model_nderived(b->model), T = (size_t)info->seq_len;
  int off[2] = {0, info->seq_len}, id[1] = {0};
  const sq_rows rows = {.nseq = 1, .nrow = info->seq_len, .off = off, .id = id};
  sq_arena a = {0}, count = {0};
  sq_status st;
  for (int pass = 0; pass < 2; ++pass) {
    sq_arena *at = pass ? &a : &count;
    if (pass) SQ_TRY(sq_arena_create(&a, count.used, "mixer"));
    sq_real *u = SQ_TAKE(at, T * (size_t)D, sq_real), *y = SQ_TAKE(at, T * (size_t)D, sq_real),
            *du = SQ_TAKE(at, T * (size_t)D, sq_real), *derived = SQ_TAKE(at, nderived, sq_real),
            *dderived = SQ_TAKE(at, nderived, sq_real);
    void *tape = sq_arena_take(at, ops->tape_bytes(m), 1),
         *scratch = sq_arena_take(at, ops->scratch_bytes(m), 1);
    if (!pass) continue;
    const sq_pass p = {.rows = &rows, .seq_len = info->seq_len, .derived = derived, .dderived = dderived};
    for (size_t i = 0; i < T * (size_t)D; ++i) u[i] = (sq_real)sin((double)i);
    for (int k = 0; k < RUNS; ++k) {
      double t[5];
      t[0] = now_s(o);
      if (ops->derive != NULL) ops->derive(m, b->theta, derived, scratch);
      t[1] = now_s(o);
      ops->forward(m, b->theta, &p, u, y, tape, scratch);
      t[2] = now_s(o);
      ops->backward(m, b->theta, &p, u, tape, y, du, b->grad, scratch);
      t[3] = now_s(o);
      if (ops->derive_back != NULL) ops->derive_back(m, b->theta, derived, dderived, b->grad, scratch);
      t[4] = now_s(o);
      const double scale[4] = {1, B, B, 1}; /* sequences of a batch */
      for (int i = 0; i < 4; ++i) {
        const double x = scale[i] * sq_model_nlayer(b->model) * (t[i + 1] - t[i]);
        part_s[i] = k == 0 || x < part_s[i] ? x : part_s[i];
      }
    }
  }
done:
  sq_arena_destroy(&a);
  return st;
}

static void print(const bench *b, const options *o, const sq_train_plan *p, double loss)
{
  const sq_blas_info blas = sq_blas_describe();
  const double median = b->step_s[o->steps / 2], rate = p->flops_step / median * 1e-9, gemm = gemm_gflops(o);
  printf("config %s\nprecision %s\ncpu %s\nblas %s, kernel %s\nthreads %d\n", o->config, SQ_PRECISION,
         sq_cpu_model(), blas.name, blas.kernel, o->threads);
  printf("clock %s\nparameters %ld\nsteps %d\nlast_loss %.4f\n", o->clock == CLOCK_MONOTONIC ? "wall" : "cpu",
         p->nparam, o->steps, loss);
  printf("step_ms_median %.3f\nstep_ms_min %.3f\nstep_ms_max %.3f\nbatch_ms_median %.3f\n", 1e3 * median,
         1e3 * b->step_s[0], 1e3 * b->step_s[o->steps - 1], 1e3 * b->batch_s[o->steps / 2]);
  printf("flops_per_step %.4e\ngflops %.2f\nsgemm_1024_gflops %.2f\nshare_of_sgemm %.3f\n", p->flops_step,
         rate, gemm, rate / gemm);
  printf("plan_mb %.1f\npeak_mb %.1f\n", (double)p->bytes / 1e6, (double)sq_peak_bytes() / 1e6);
}

int main(int argc, char **argv)
{
  options o;
  bench b = {0};
  sq_train_plan p;
  sq_experiment *e = NULL;
  sq_status st;
  double loss = NAN;

  if (!read_options(argc, argv, &o)) return usage();
  sq_blas_set_threads(1);
  SQ_TRY(load(&o, &e));
  b.c = sq_experiment_cell(e, 0);
  SQ_TRY(prepare(&b, &o, &p));
  time_steps(&b, &o, &loss);
  qsort(b.step_s, (size_t)o.steps, sizeof *b.step_s, ascending);
  qsort(b.batch_s, (size_t)o.steps, sizeof *b.batch_s, ascending);
  print(&b, &o, &p, loss);
  double part_s[4];
  SQ_TRY(time_mixer(&b, &o, part_s));
  printf("derive_ms %.3f\nmixer_forward_ms %.3f\nmixer_backward_ms %.3f\nderive_back_ms %.3f\n",
         1e3 * part_s[0], 1e3 * part_s[1], 1e3 * part_s[2], 1e3 * part_s[3]);
done:
  if (st != SQ_OK) fprintf(stderr, "bench-step: %s\n", sq_error_text());
  free(b.theta);
  free(b.batch);
  free(b.index);
  free(b.step_s);
  sq_worker_destroy(&b.worker);
  sq_model_destroy(&b.model);
  sq_task_close(&b.task);
  sq_experiment_destroy(&e);
  return sq_exit_code(st);
}
