/* tests/bench/bench.c: see bench.h. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sq/linalg.h"
#include "sq/simd.h"
#include "sq/spectra.h"

enum { MAX_SETS = 256, MAX_MODEL_KEYS = 12, GEMM_RUNS = 5 };

/* ---- command line ------------------------------------------------------------------------------------ */

/* Models over one base configuration, which is softmax attention; torch_step.py has the same ones. */
#define STATE_SPACE(layer)                                                                                   \
  "model.layer=" layer, "model.activation=full_glu", "model.norm=batch", "model.prenorm=false"
static const struct {
  const char *name, *set[MAX_MODEL_KEYS];
} models[] = {
    {"softmax", {NULL}},
    {"linear", {"model.attention_fn=lin-attention"}},
    {"norm",
     {"model.attention_fn=norm-attention", "model.norm_fn=softplus", "model.approx_fn=elu",
      "model.scale_B=true", "model.offset=true", "model.offset_init=exp", "model.dim_conv=4",
      "model.max_pos_embed=0"}},
    {"mamba2",
     {"model.layer=mamba", "model.conv_dim=4", "model.expansion=1", "model.glu=true", "model.prenorm=true",
      "model.token_embedding=true"}},
    {"s4", {STATE_SPACE("s4")}},
    {"s5", {STATE_SPACE("s5"), "model.num_blocks=1"}},
    {"lru", {STATE_SPACE("lru")}},
};
enum { NMODEL = sizeof models / sizeof *models };

const char *bench_model_name(int i)
{
  return 0 <= i && i < NMODEL ? models[i].name : NULL;
}

static int model_index(const char *name)
{
  for (int i = 0; i < NMODEL; ++i)
    if (strcmp(models[i].name, name) == 0) return i;
  return -1;
}

static int take_clock(bench_options *o, const char *name)
{
  if (strcmp(name, "wall") == 0) o->clock = CLOCK_MONOTONIC;
  if (strcmp(name, "cpu") == 0) o->clock = CLOCK_PROCESS_CPUTIME_ID;
  return strcmp(name, "wall") == 0 || strcmp(name, "cpu") == 0 ? 1 : -1;
}

int bench_option(bench_options *o, int argc, char **argv, int *i)
{
  static const char *const known[] = {"--model", "--set", "--threads", "--clock"};
  const char *name = argv[*i], *value;
  int is_known = 0;

  if (name[0] != '-') {
    if (o->config != NULL) return -1;
    o->config = name;
    return 1;
  }
  for (size_t k = 0; k < sizeof known / sizeof *known; ++k) is_known |= strcmp(name, known[k]) == 0;
  if (!is_known) return 0;
  if (*i + 1 >= argc) return -1;
  value = argv[++*i];
  switch (name[2]) {
  case 'm': o->model = value; return model_index(value) >= 0 ? 1 : -1;
  case 't': o->threads = atoi(value); return o->threads > 0 ? 1 : -1;
  case 'c': return take_clock(o, value);
  default:
    if (o->nset == BENCH_MAX_OVERRIDES) return -1;
    o->set[o->nset++] = value;
    return 1;
  }
}

int bench_counts(char *list, int most, int count[BENCH_MAX_COUNTS])
{
  char *rest = NULL;
  int n = 0;
  for (char *word = strtok_r(list, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
    if (n == BENCH_MAX_COUNTS) return 0;
    count[n++] = atoi(word);
    if (count[n - 1] < 1 || count[n - 1] > most) return 0;
  }
  return n;
}

void bench_print_head(const bench_options *o)
{
  const sq_blas_info blas = sq_blas_describe();
  printf("config %s\nmodel %s\nprecision %s\ncpu %s\nblas %s, kernel %s\ncores %d\n", o->config,
         o->model ? o->model : "-", SQ_PRECISION, sq_cpu_model(), blas.name, blas.kernel, sq_cpu_count());
}

double bench_now_s(const bench_options *o)
{
  struct timespec t;
  clock_gettime(o->clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a cell ------------------------------------------------------------------------------------------ */

/* The model's keys come first, so that --set has the last word. */
static int overrides(const bench_options *o, const char *extra, const char *set[])
{
  int n = 0;
  if (o->model != NULL) {
    const char *const *key = models[model_index(o->model)].set;
    while (n < MAX_MODEL_KEYS && key[n] != NULL) {
      set[n] = key[n];
      ++n;
    }
  }
  for (int i = 0; i < o->nset; ++i) set[n++] = o->set[i];
  if (extra != NULL) set[n++] = extra;
  return n;
}

static sq_status load(const bench_options *o, const char *extra, sq_experiment **e)
{
  const sq_keyset *keys[MAX_SETS];
  const char *set[BENCH_MAX_OVERRIDES + MAX_MODEL_KEYS + 1];
  int n = sq_train_keysets(keys, MAX_SETS);
  n += sq_task_keysets(keys + n, MAX_SETS - n);
  n += sq_model_keysets(keys + n, MAX_SETS - n);
  n += sq_spectra_keysets(keys + n, MAX_SETS - n);
  const sq_schema schema = {keys, n};
  return sq_experiment_load(&schema, o->config, overrides(o, extra, set), set, e);
}

sq_status bench_open(const bench_options *o, const char *extra, bench_cell *b)
{
  const sq_crew crew = {.team = o->team, .threads = o->threads};
  sq_status st;

  *b = (bench_cell){0};
  sq_log_quiet(1);        /* the base configuration has keys that some models do not know */
  sq_blas_set_threads(1); /* the threads of a step have shards and blocks of their own */
  SQ_TRY(load(o, extra, &b->experiment));
  b->c = sq_experiment_cell(b->experiment, 0);
  SQ_TRY(sq_train_plan_threads(b->c, o->threads, &b->plan));
  SQ_TRY(sq_task_open(b->c, &b->task));
  SQ_TRY(sq_model_create(b->c, b->plan.dims, &b->model));
  SQ_TRY(sq_worker_create(b->model, sq_train_nshard(b->c), &crew, &b->worker));
  const size_t n = sq_model_params(b->model)->total, B = (size_t)sq_config_int(b->c, "train.batch_size");
  b->theta = sq_calloc(3 * n + sq_model_ngradient(b->model), sizeof *b->theta, "parameters");
  b->batch = sq_calloc(1, sq_task_batch_bytes(&b->plan.task, (int)B), "batch");
  b->index = sq_calloc(B, sizeof *b->index, "index");
  if (!b->theta || !b->batch || !b->index) SQ_TRY(SQ_ERR_MEMORY);
  b->m = b->theta + n;
  b->v = b->m + n;
  b->grad = b->v + n;
  sq_model_init(b->model, (uint64_t)sq_config_int(b->c, "seed"), b->theta);
done:
  if (st != SQ_OK) bench_close(b);
  return st;
}

void bench_close(bench_cell *b)
{
  free(b->theta);
  free(b->batch);
  free(b->index);
  sq_worker_destroy(&b->worker);
  sq_model_destroy(&b->model);
  sq_task_close(&b->task);
  sq_experiment_destroy(&b->experiment);
  *b = (bench_cell){0};
}

bench_time bench_step(bench_cell *b, const bench_options *o)
{
  const sq_adamw adam = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
  const sq_task_info *info = sq_task_describe(b->task);
  const int B = sq_config_int(b->c, "train.batch_size");
  sq_batch batch;
  sq_tally tally;

  const double start = bench_now_s(o);
  for (int i = 0; i < B; ++i) b->index[i] = ((size_t)b->step * (size_t)B + (size_t)i) % info->size[SQ_TRAIN];
  sq_worker_batch(b->worker, b->task, SQ_TRAIN, B, b->index, SQ_PAD_NONE, b->batch, &batch);
  const double made = bench_now_s(o);
  const sq_pass pass = {
      .rows = &batch.rows, .train = 1, .seed = 1, .step = (uint64_t)b->step, .seq_len = info->seq_len};
  sq_batch_gradient(b->worker, b->theta, &batch, &pass, b->grad, &tally);
  (void)sq_worker_step(b->worker, &adam, 1e-3, 1e-3, ++b->step, b->grad, b->m, b->v, b->theta);
  const double end = bench_now_s(o);
  return (bench_time){made - start, end - made, tally.loss_sum / (double)tally.nlabel};
}

/* ---- the machine ------------------------------------------------------------------------------------- */

sq_status bench_gemm_open(bench_gemm *g)
{
  const size_t n = (size_t)BENCH_GEMM_N * BENCH_GEMM_N;

  g->A = sq_calloc(3 * n, sizeof *g->A, "product");
  if (g->A == NULL) return SQ_ERR_MEMORY;
  g->B = g->A + n;
  g->C = g->B + n;
  for (size_t i = 0; i < 2 * n; ++i) g->A[i] = (sq_real)((double)(i % 1000) / 1000 - 0.5);
  return SQ_OK;
}

void bench_gemm_close(bench_gemm *g)
{
  free(g->A);
  *g = (bench_gemm){0};
}

void bench_gemm_run(const bench_gemm *g)
{
  const int n = BENCH_GEMM_N;
  sq_gemm(SQ_N, SQ_N, n, n, n, 1, g->A, n, g->B, n, 0, g->C, n);
}

double bench_gemm_best(const bench_gemm *g, const bench_options *o)
{
  double best = INFINITY;
  for (int r = 0; r < GEMM_RUNS; ++r) {
    const double start = bench_now_s(o);
    bench_gemm_run(g);
    best = fmin(best, bench_now_s(o) - start);
  }
  return BENCH_GEMM_FLOPS / best * 1e-9;
}

SQ_CLONES void bench_triad(size_t n, const double *restrict b, const double *restrict c, double s,
                           double *restrict a)
{
  for (size_t i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
}

/* The empty statement keeps the compiler from adding up the additions. */
#define CHAIN_LINK                                                                                           \
  x += 3;                                                                                                    \
  __asm__ volatile("" : "+r"(x))

uint64_t bench_chain(long n, uint64_t x)
{
  for (long i = 0; i < n; i += 8) {
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
    CHAIN_LINK;
  }
  return x;
}

/* ---- statistics -------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void bench_sort(size_t n, double *x)
{
  qsort(x, n, sizeof *x, ascending);
}

double bench_slope(int n, const double *x, const double *y)
{
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (int i = 0; i < n; ++i) {
    const double u = log(x[i]), w = log(y[i]);
    sx += u;
    sy += w;
    sxx += u * u;
    sxy += u * w;
  }
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}
