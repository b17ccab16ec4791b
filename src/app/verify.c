/* src/app/verify.c: seqspectra verify CONFIG: identities that every model of a configuration must satisfy.
 *
 * Each distinct model runs once, with random weights from the seed, on short sequences: (1) the factors
 * (lambda, B, C) are a realisation of the layer, (2) the future is not seen, (3) padding changes nothing but
 * rounding, (4) the gradient is the derivative, (5) other coordinates of the state change the eigenvalues and
 * nothing else; of time-invariant layers they leave these too, and (6) the eigenvalues belong to the matrix that runs.  A comparison with NaN fails. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cells.h"
#include "verify.h"

/* ---- results ----------------------------------------------------------------------------------------- */
static const char *const check[NCHECK] = {"recurrence", "causality", "padding",
                                          "gradient",   "regauge",   "eigenvalues"};

static void keep_worst(verification *v, const char *what, double ratio)
{
  for (int i = 0; i < NCHECK; ++i) {
    if (strncmp(what, check[i], strlen(check[i])) != 0) continue;
    if (!(ratio <= v->worst[i]) && !isnan(v->worst[i])) v->worst[i] = ratio;
    return;
  }
  SQ_ASSERT(!"the name of a check");
}

void sq_verify_report(verification *v, sq_verify_relation relation, double value, double bound,
                      const char *what, const char *fmt, ...)
{
  const int most = relation == SQ_VERIFY_AT_MOST, ok = most ? value <= bound : value >= bound;
  v->failed += !ok;
  keep_worst(v, what, most ? (value == 0 ? 0 : value / bound) : bound / value);
  if (ok && !v->verbose) return;
  va_list rest;
  printf("%-*s  %-30s %9.2e  (%s %.1e)  %-6s ", v->width, sq_config_label(v->config), what, value,
         most ? "allowed" : "at least", bound, ok ? "ok" : "FAILED");
  va_start(rest, fmt);
  vprintf(fmt, rest);
  va_end(rest);
  printf("\n");
  fflush(stdout);
}

static void print_head(int width)
{
  printf("%-*s", width, "model");
  for (int i = 0; i < NCHECK; ++i) printf("  %11s", check[i]);
  printf("\n");
}

static void print_model(const verification *v)
{
  printf("%-*s", v->width, sq_config_label(v->config));
  for (int i = 0; i < NCHECK; ++i) {
    if (v->worst[i] < 0)
      printf("  %11s", "-");
    else
      printf("  %11.2g", v->worst[i]);
  }
  printf("  %s\n", v->failed ? "FAILED" : "ok");
  fflush(stdout);
}

/* ---- set up ------------------------------------------------------------------------------------------ */
static void take(verification *v, sq_arena *a)
{
  const size_t rows = sq_verify_rows(v), T = (size_t)v->T, D = (size_t)sq_model_width(v->model);
  const size_t total = sq_model_params(v->model)->total, nlayer = (size_t)sq_model_nlayer(v->model);
  const sq_mixer *mixer = sq_model_mixer(v->model, 0);
  v->theta = SQ_TAKE(a, total, sq_real);
  v->moved = SQ_TAKE(a, total, sq_real);
  v->gradient = SQ_TAKE(a, total, sq_real);
  v->token = SQ_TAKE(a, rows, int32_t);
  v->label = SQ_TAKE(a, rows, int32_t);
  v->value = SQ_TAKE(a, rows * (size_t)(v->info.input_dim > 0 ? v->info.input_dim : 1), sq_real);
  v->keep = SQ_TAKE(a, 2 * nlayer * rows * D, sq_real);
  v->example = SQ_TAKE(a, (size_t)v->info.seq_len * (v->info.dual ? 2 : 1), int32_t);
  v->example_label = SQ_TAKE(a, (size_t)v->info.seq_len, int32_t);
  v->work = sq_arena_take(a, sq_model_work_bytes(v->model), 1);
  v->out = SQ_TAKE(a, T * D, double);
  if (sq_mixer_get(mixer)->lti != NULL) {
    sq_verify_lti_take(v, a);
    return;
  }
  const int heads = sq_mixer_get(mixer)->heads(mixer);
  v->f = (sq_factors){.T = v->T};
  sq_mixer_get(mixer)->factor_dims(mixer, &v->f);
  v->f.T = v->T;
  sq_factors_take(a, &v->f);
  v->y = SQ_TAKE(a, T * (size_t)v->f.dv, double);
  v->heads = SQ_TAKE(a, T * (size_t)v->f.dv * (size_t)heads, double);
  v->log_s = SQ_TAKE(a, T, double);
  v->lambda = SQ_TAKE(a, nlayer * (size_t)heads * T, double);
  for (int i = 0; i < 2; ++i) {
    v->energy[i] = SQ_TAKE(a, T, double);
    v->sigma[i] = SQ_TAKE(a, T > (size_t)v->f.n ? T : (size_t)v->f.n, double);
  }
}

static sq_status set_up(verification *v)
{
  const sq_task_info *info = &v->info;
  sq_model_dims d = {.label_per_row = info->label_per_row, .max_seqs = NSEQ, .dual = info->dual};
  sq_arena plan = {0};
  sq_status st;
  v->T = info->seq_len < MAX_T ? info->seq_len : MAX_T;
  v->seed = (uint64_t)sq_config_int(v->config, "seed");
  d.seq_len = v->T;
  d.max_rows = (int)sq_verify_rows(v);
  d.max_labels = info->label_per_row ? NSEQ * NLABEL : NSEQ;
  SQ_TRY(sq_model_create(v->config, d, &v->model));
  take(v, &plan);
  SQ_TRY(sq_cells_check_bytes(v->config, (double)plan.used, 1));
  SQ_TRY(sq_arena_create(&v->arena, plan.used, "verify"));
  take(v, &v->arena);
  sq_model_init(v->model, v->seed, v->theta);
done:
  return st;
}

void sq_verify_fill(verification *v, int draw, int r0, int t0, int t1)
{
  const int dim = v->info.input_dim;
  sq_rng r;
  sq_rng_init(&r, v->seed, SQ_STREAM_TEST, (uint64_t)draw);
  for (int t = t0; t < t1; ++t) {
    if (v->info.vocab_size > 0)
      v->token[r0 + t] = (int32_t)sq_rng_below(&r, (uint32_t)v->info.vocab_size);
    else
      for (int k = 0; k < dim; ++k)
        v->value[(size_t)(r0 + t) * (size_t)dim + (size_t)k] = (sq_real)sq_rng_normal(&r);
  }
}

void sq_verify_fill_example(verification *v, int b, int r0, int T)
{
  sq_verify_fill(v, b, r0, 0, T);
  if (v->task == NULL || v->info.vocab_size == 0) return;
  const sq_task_ops *ops = sq_task_find(sq_config_task_label(v->config));
  const size_t i = (size_t)b % v->info.size[SQ_TEST]; /* of at least one */
  const int length = ops->length(v->task, SQ_TEST, i);
  ops->example(v->task, SQ_TEST, i, v->example, v->example_label);
  for (int t = 0; t < T && t < length; ++t) v->token[r0 + t] = v->example[t];
}

/* Labels are drawn, so that short sequences have some: NLABEL steps a sequence, or its one class. */
static void fill_labels(verification *v, const sq_rows *rows)
{
  const int classes =
      sq_model_output_dim(v->model) < v->info.nclass ? sq_model_output_dim(v->model) : v->info.nclass;
  sq_rng r;
  sq_rng_init(&r, v->seed, SQ_STREAM_TEST, 1000);
  for (size_t i = 0; i < sq_verify_rows(v); ++i) v->label[i] = SQ_IGNORE;
  for (int b = 0; b < rows->nseq; ++b) {
    const uint32_t length = (uint32_t)(rows->off[b + 1] - rows->off[b]);
    if (!v->info.label_per_row) v->label[b] = (int32_t)sq_rng_below(&r, (uint32_t)classes);
    for (int k = 0; v->info.label_per_row && k < NLABEL; ++k)
      v->label[rows->off[b] + (int)sq_rng_below(&r, length)] = (int32_t)sq_rng_below(&r, (uint32_t)classes);
  }
}

sq_batch sq_verify_batch(verification *v, int nseq, const int *off)
{
  static const int id[NSEQ] = {0, 1};
  sq_batch b = {.rows = {.nseq = nseq, .nrow = off[nseq], .off = off, .id = id},
                .input_dim = v->info.input_dim,
                .token = v->info.vocab_size > 0 ? v->token : NULL,
                .value = v->value,
                .label_per_row = v->info.label_per_row,
                .dual = v->info.dual,
                .label = v->label};
  fill_labels(v, &b.rows);
  return b;
}

/* Sequences of T and of about 5T/8 steps. */
sq_batch sq_verify_examples(verification *v, int off[NSEQ + 1])
{
  off[0] = 0;
  off[1] = v->T;
  off[2] = v->T + (5 * v->T + 7) / 8;
  for (int b = 0; b < NSEQ; ++b) sq_verify_fill_example(v, b, off[b], off[b + 1] - off[b]);
  return sq_verify_batch(v, NSEQ, off);
}

/* ---- the command ------------------------------------------------------------------------------------- */
static sq_status verify_model(verification *v)
{
  sq_status st;
  SQ_TRY(set_up(v));
  SQ_TRY(v->lti ? sq_verify_lti_recurrence(v) : sq_verify_recurrence(v));
  v->partial = sq_verify_both_directions(v);
  if (!v->partial) { /* the second direction begins with what comes last, padding too */
    sq_verify_causality(v);
    sq_verify_padding(v);
  }
  sq_verify_gradient(v);
  SQ_TRY(v->lti ? sq_verify_lti_systems(v) : sq_verify_regauge(v));
done:
  sq_arena_destroy(&v->arena);
  sq_model_destroy(&v->model);
  return st;
}

/* Part of the resolved configuration as text: two cells with the same text have the same model, or data.
 * *owned* */
static char *part_of(const sq_config *c, const char *name)
{
  cJSON *all = cJSON_Parse(sq_config_json(c));
  char *text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(all, name));
  cJSON_Delete(all);
  return text;
}

static int same_model(const sq_config *a, const sq_config *b)
{
  char *x = part_of(a, "model"), *y = part_of(b, "model");
  const int same = x != NULL && y != NULL && strcmp(x, y) == 0 &&
                   strcmp(sq_config_task_label(a), sq_config_task_label(b)) == 0;
  cJSON_free(x);
  cJSON_free(y);
  return same;
}

/* Data of the cell's task; random inputs if there are none.  Kept while the configuration of the data stays
 * the same. */
static sq_status open_task(const sq_config *c, sq_task **task, char **opened)
{
  char *dataset = part_of(c, "dataset");
  if (*opened != NULL && dataset != NULL && strcmp(dataset, *opened) == 0) {
    cJSON_free(dataset);
    return SQ_OK;
  }
  sq_task_close(task);
  cJSON_free(*opened);
  *opened = dataset;
  const sq_status st = sq_task_open(c, task);
  if (st != SQ_ERR_DATA) return st;
  sq_error_clear();
  sq_note("no data of task \"%s\": random inputs instead", sq_config_task_label(c));
  *task = NULL;
  return SQ_OK;
}

typedef struct {
  int nmodel, failed, skipped, partial;
} verdict;

static sq_status verify_all(const sq_experiment *e, int verbose, verdict *all)
{
  sq_task *task = NULL;
  char *opened = NULL;
  int width = 5;
  sq_status st = SQ_OK;
  for (int i = 0; i < sq_experiment_ncell(e); ++i) {
    const int length = (int)strlen(sq_config_label(sq_experiment_cell(e, i)));
    if (length > width) width = length;
  }
  if (!verbose) print_head(width);
  for (int i = 0; i < sq_experiment_ncell(e); ++i) {
    const sq_config *c = sq_experiment_cell(e, i);
    verification v = {.config = c, .width = width, .verbose = verbose, .worst = {-1, -1, -1, -1, -1, -1}};
    int seen = 0;
    for (int k = 0; k < i && !seen; ++k) seen = same_model(c, sq_experiment_cell(e, k));
    if (seen) continue;
    SQ_TRY(open_task(c, &task, &opened));
    SQ_TRY(sq_task_shape(c, &v.info));
    v.task = task;
    if (task != NULL) v.info = *sq_task_describe(task);
    SQ_TRY(verify_model(&v));
    if (!verbose) print_model(&v);
    ++all->nmodel;
    all->failed += v.failed;
    all->skipped += v.skipped;
    all->partial += v.partial;
  }
done:
  sq_task_close(&task);
  cJSON_free(opened);
  return st;
}

sq_status sq_app_verify(int argc, char **argv)
{
  sq_words words = {0}, set = {0};
  int verbose = 0;
  const sq_option options[] = {{"set", SQ_OPT_LIST, &set, 0, 0}, {"verbose", SQ_OPT_FLAG, &verbose, 0, 0}};
  sq_experiment *e = NULL;
  verdict all = {0};
  sq_status st;
  SQ_TRY(sq_args_parse("verify", argc, argv, options, 2, "CONFIG", 1, 1, &words));
  SQ_TRY(sq_app_load(words.v[0], &set, &e));
  SQ_TRY(verify_all(e, verbose, &all));
  if (!verbose) printf("Largest error of each check over its tolerance: at most 1 passes; -: not made.\n");
  printf("%d model%s in %s: %s", all.nmodel, all.nmodel == 1 ? "" : "s", SQ_PRECISION,
         all.failed    ? "FAILED"
         : all.partial ? "all checks that were made passed"
                       : "all checks passed");
  if (all.partial)
    printf("; recurrence, causality and padding were not made for %d bidirectional model%s", all.partial,
           all.partial == 1 ? "" : "s");
  if (all.skipped)
    printf(" (%d gradient check%s skipped: float32; use seqspectra-f64)", all.skipped,
           all.skipped == 1 ? "" : "s");
  printf("\n");
  if (all.failed)
    st = sq_fail(SQ_ERR_CHECK, "verify: %d check%s failed in %s", all.failed, all.failed == 1 ? "" : "s",
                 words.v[0]);
done:
  sq_experiment_destroy(&e);
  return st;
}
