/* tests/test_model_ssm.c: the backbone of the state-space layers: gradients, batches in shards, statistics,
 * dropout, names. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/model.h"
#include "sq/train.h"

/* More sequences than shards. */
enum { NSEQ = 11, NVOCAB = 7, NCLASS = 5, WIDTH = 6, SEQ_LEN = 9, MAX_ROWS = NSEQ * SEQ_LEN, KEYSETS = 64 };
static const int length[NSEQ] = {9, 4, 7, 1, 2, 9, 5, 3, 8, 6, 1};

typedef struct {
  const char *activation, *norm, *pooling;
  int prenorm, tokens, layers, padded;
  double dropout;
  const char *more; /* more JSON, behind the model's object */
} variant;

typedef struct {
  sq_experiment *e;
  sq_model *m;
  size_t n, ngradient;
  sq_real *theta, *grad;
  void *work;
  int off[NSEQ + 1], id[NSEQ], len[NSEQ];
  int32_t token[MAX_ROWS], label[MAX_ROWS];
  sq_real value[MAX_ROWS * NVOCAB];
  sq_batch b;
} fixture;

static const variant plain = {"full_glu", "batch", "mean", 0, 1, 2, 0, 0, ""};

static sq_status parse_variant(const variant *v, sq_experiment **e)
{
  static const sq_key recipe[] = {{"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, NULL, "recipe"}};
  static const sq_keyset own = {"", recipe, 1, NULL};
  static const sq_keyset *sets[KEYSETS];
  const int n = sq_model_keysets(sets, KEYSETS - 1);
  const sq_schema schema = {sets, n + 1};
  char json[1024];

  assert_true(n < KEYSETS);
  sets[n] = &own;
  sq_format(
      json, sizeof json,
      "{\"model\": {\"layer\": \"lru\", \"input_dim\": %d, \"output_dim\": %d, \"num_layers\": %d, "
      "\"hidden_dim\": %d, \"state_dim\": 4, \"activation\": \"%s\", \"norm\": \"%s\", \"prenorm\": %s, "
      "\"pooling\": \"%s\", \"dropout\": %g%s}",
      NVOCAB, NCLASS, v->layers, WIDTH, v->activation, v->norm, v->prenorm ? "true" : "false", v->pooling,
      v->dropout, v->more);
  const size_t used = strlen(json);
  sq_format(json + used, sizeof json - used, "}");
  return sq_experiment_parse(&schema, json, "test", e);
}

static int per_row(const variant *v)
{
  return strcmp(v->pooling, "none") == 0;
}

static sq_model_dims dims_for(int label_per_row)
{
  return (sq_model_dims){.seq_len = SEQ_LEN,
                         .max_rows = MAX_ROWS,
                         .max_seqs = NSEQ,
                         .max_labels = MAX_ROWS,
                         .label_per_row = label_per_row,
                         .all_logits = 1};
}

static void fixture_inputs(fixture *f, const variant *v)
{
  sq_rng r;

  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int b = 0; b < NSEQ; ++b) {
    f->len[b] = length[b];
    f->off[b + 1] = f->off[b] + (v->padded ? SEQ_LEN : length[b]);
    f->id[b] = b;
  }
  for (int i = 0; i < MAX_ROWS; ++i) {
    f->token[i] = (int32_t)sq_rng_below(&r, NVOCAB + 1); /* NVOCAB: no unit vector */
    f->label[i] = i % 3 == 1 && per_row(v) ? SQ_IGNORE : (int32_t)sq_rng_below(&r, NCLASS);
  }
  sq_nn_init_normal(&r, 1, MAX_ROWS * NVOCAB, f->value);
  for (int b = 0; b < NSEQ && v->padded; ++b)
    for (int i = f->off[b] + length[b]; i < f->off[b + 1]; ++i) {
      f->token[i] = 0;
      if (per_row(v)) f->label[i] = SQ_IGNORE;
    }
  f->b = (sq_batch){.rows = {NSEQ, f->off[NSEQ], f->off, f->id, v->padded ? f->len : NULL},
                    .input_dim = NVOCAB,
                    .token = v->tokens ? f->token : NULL,
                    .value = v->tokens ? NULL : f->value,
                    .label_per_row = per_row(v),
                    .label = f->label};
}

/* Away from the special values of the initialisation (zero biases, unit scales); running variances stay
   positive. */
static void shake(fixture *f)
{
  const sq_param_list *l = sq_model_params(f->m);
  sq_rng r;

  sq_rng_init(&r, 8, SQ_STREAM_TEST, 1);
  for (int k = 0; k < l->n; ++k)
    for (size_t i = 0; i < l->v[k].count; ++i) {
      const double z = 0.1 * sq_rng_normal(&r);
      f->theta[l->v[k].offset + i] += (sq_real)(l->v[k].flags & SQ_PARAM_BUFFER ? fabs(z) : z);
    }
}

static void fixture_open(fixture *f, const variant *v)
{
  memset(f, 0, sizeof *f);
  fixture_inputs(f, v);
  if (parse_variant(v, &f->e) != SQ_OK ||
      sq_model_create(sq_experiment_cell(f->e, 0), dims_for(per_row(v)), &f->m) != SQ_OK)
    fail_msg("%s", sq_error_text());
  f->n = sq_model_params(f->m)->total;
  f->ngradient = sq_model_ngradient(f->m);
  f->theta = calloc(f->n, sizeof *f->theta);
  f->grad = calloc(f->ngradient, sizeof *f->grad);
  f->work = aligned_alloc(64, sq_model_work_bytes(f->m) / 64 * 64 + 128);
  assert_true(f->theta != NULL && f->grad != NULL && f->work != NULL);
  sq_model_init(f->m, 11, f->theta);
  shake(f);
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->grad);
  free(f->work);
  sq_model_destroy(&f->m);
  sq_experiment_destroy(&f->e);
}

static sq_pass pass_of(const fixture *f, int train)
{
  return (sq_pass){.rows = &f->b.rows, .train = train, .seed = 3, .step = 17, .seq_len = SEQ_LEN};
}

static void name_variant(const variant *v, char out[128])
{
  sq_format(out, 128, "%s %s prenorm=%d pooling=%s tokens=%d padded=%d dropout=%g", v->activation, v->norm,
            v->prenorm, v->pooling, v->tokens, v->padded, v->dropout);
}

/* All that the backbone can be: the small choices run through their values with different periods. */
static int variant_at(int i, variant *v)
{
  static const char *const activation[4] = {"full_glu", "half_glu1", "half_glu2", "gelu"};
  static const char *const pooling[3] = {"mean", "last", "none"};

  *v = plain;
  v->activation = activation[i % 4];
  v->norm = i / 4 % 2 ? "layer" : "batch";
  v->prenorm = i / 8 % 2;
  v->pooling = pooling[i / 16 % 3];
  v->tokens = (i + i / 16) % 2;
  v->padded = (i + i / 4) % 3 == 0 && strcmp(v->pooling, "last") != 0;
  v->dropout = (i + i / 8) % 3 == 1 ? 0.3 : 0;
  return i < 48;
}

/* ---- gradients --------------------------------------------------------------------------------------- */
/* Along a unit direction within one tensor, by the difference formula of fourth order.  A row that is the encoder's
   bias alone has a deviation sigma of about 0.1 before its LayerNorm: with h = 1e-4 truncation is of order
   (h/sigma)^4 = 1e-12, rounding of order eps/h = 2e-12; 1e-9 leaves some hundred for the constants of both. */
static const double step = 1e-4, tolerance = 1e-9;

static double loss_at(fixture *f, const sq_real *theta, int train)
{
  const sq_pass p = pass_of(f, train);
  sq_tally t = {0};

  sq_model_loss(f->m, theta, &f->b, &p, f->work, &t);
  return t.loss_sum / (double)sq_batch_labels(&f->b);
}

static double along(fixture *f, const sq_param *p, const double *dir, double h, int train)
{
  sq_real *theta = malloc(f->n * sizeof *theta);
  memcpy(theta, f->theta, f->n * sizeof *theta);
  for (size_t k = 0; k < p->count; ++k) theta[p->offset + k] += (sq_real)(h * dir[k]);
  const double loss = loss_at(f, theta, train);
  free(theta);
  return loss;
}

static double check_tensor(fixture *f, const sq_param *p, int train, const char *name)
{
  double *dir = malloc(p->count * sizeof *dir), norm = 0, slope = 0;
  sq_rng r;

  sq_rng_init(&r, 1, SQ_STREAM_TEST, p->offset);
  for (size_t k = 0; k < p->count; ++k) {
    dir[k] = sq_rng_normal(&r);
    norm += dir[k] * dir[k];
  }
  for (size_t k = 0; k < p->count; ++k) {
    dir[k] /= sqrt(norm);
    slope += dir[k] * (double)f->grad[p->offset + k];
  }
  const double inner = along(f, p, dir, step, train) - along(f, p, dir, -step, train);
  const double outer = along(f, p, dir, 2 * step, train) - along(f, p, dir, -2 * step, train);
  const double quotient = (8 * inner - outer) / (12 * step);
  const double error = fabs(slope - quotient) / fmax(1, fabs(quotient));
  if (!(error < tolerance))
    fail_msg("%s, train=%d: %s: gradient %.12g, quotient %.12g", name, train, p->name, slope, quotient);
  free(dir);
  return error;
}

static double check_gradient(const variant *v, int train)
{
  fixture f;
  char name[128];
  double worst = 0;
  sq_tally t = {0};

  name_variant(v, name);
  fixture_open(&f, v);
  const sq_param_list *l = sq_model_params(f.m);
  const sq_pass p = pass_of(&f, train);
  sq_model_gradient(f.m, f.theta, &f.b, &p, 1 / (double)sq_batch_labels(&f.b), f.work, f.grad, &t);
  assert_true(t.nlabel == sq_batch_labels(&f.b));
  assert_true(t.loss_sum / (double)t.nlabel == loss_at(&f, f.theta, train));
  for (int k = 0; k < l->n; ++k) {
    if (!(l->v[k].flags & SQ_PARAM_BUFFER)) {
      worst = fmax(worst, check_tensor(&f, &l->v[k], train, name));
      continue;
    }
    for (size_t i = 0; i < l->v[k].count && !train; ++i) assert_true(f.grad[l->v[k].offset + i] == 0);
  }
  fixture_close(&f);
  return worst;
}

static void gradient_matches_differences_in_training(void **state)
{
  (void)state;
  double worst = 0;
  variant v;
  for (int i = 0; variant_at(i, &v); ++i) worst = fmax(worst, check_gradient(&v, 1));
  printf("worst error %.2g\n", worst);
}

static void gradient_matches_differences_in_evaluation_mode(void **state)
{
  (void)state;
  double worst = 0;
  variant v;
  for (int i = 0; variant_at(i, &v); ++i) worst = fmax(worst, check_gradient(&v, 0));
  printf("worst error %.2g\n", worst);
}

/* ---- a batch in shards ------------------------------------------------------------------------------- */
/* Sums of some hundred numbers of order 1 in two orders, amplified by 1/sqrt(var) of a few layers. */
static const double shard_rounding = 1e-12;

static void check_shards(const variant *v, int train)
{
  fixture f;
  char name[128];
  sq_worker *w = NULL;
  sq_tally one = {0}, all = {0};

  name_variant(v, name);
  fixture_open(&f, v);
  assert_int_equal(sq_model_nsync(f.m), strcmp(v->norm, "batch") == 0 ? v->layers : 0);
  const sq_pass p = pass_of(&f, train);
  sq_real *g = calloc(f.n, sizeof *g);
  sq_model_gradient(f.m, f.theta, &f.b, &p, sq_batch_scale(&f.b), f.work, g, &one);
  assert_int_equal(sq_worker_create(f.m, sq_shard_count(f.b.rows.nseq), NULL, &w), SQ_OK);
  for (int repeat = 0; repeat < 2; ++repeat) { /* the second time with a used workspace */
    sq_batch_gradient(w, f.theta, &f.b, &p, f.grad, &all);
    assert_true(all.nlabel == one.nlabel && all.ncorrect == one.ncorrect);
    assert_true(fabs(all.loss_sum - one.loss_sum) < shard_rounding * fabs(one.loss_sum));
    for (size_t k = 0; k < f.n; ++k)
      if (!(fabs((double)(g[k] - f.grad[k])) < shard_rounding))
        fail_msg("%s, train=%d: element %zu: %.15g in shards, %.15g alone", name, train, k, (double)f.grad[k],
                 (double)g[k]);
  }
  sq_batch_evaluate(w, f.theta, &f.b, &all);
  one = (sq_tally){0};
  sq_model_evaluate(f.m, f.theta, &f.b, f.work, &one);
  assert_true(all.nlabel == one.nlabel &&
              fabs(all.loss_sum - one.loss_sum) < shard_rounding * fabs(one.loss_sum));
  sq_worker_destroy(&w);
  free(g);
  fixture_close(&f);
}

static void shards_give_the_gradient_of_the_batch(void **state)
{
  (void)state;
  variant v;
  for (int i = 0; variant_at(i, &v); ++i) {
    check_shards(&v, 1);
    if (i % 4 == 0) check_shards(&v, 0);
  }
  v = plain;
  v.layers = 1;
  check_shards(&v, 1);
  v.prenorm = 1;
  v.layers = 3;
  check_shards(&v, 1);
}

/* Each place of the gradient vector belongs to one backward segment, which writes nothing else. */
static void check_ranges(const variant *v)
{
  fixture f;
  fixture_open(&f, v);
  const int L = sq_model_nsync(f.m), nsum = sq_model_nsum(f.m);
  int *owner = calloc(f.ngradient, sizeof *owner);
  double *sum = calloc((size_t)nsum, sizeof *sum);
  sq_real *derived = calloc(sq_model_nderived(f.m) + 1, sizeof *derived);
  void *shard = sq_model_shard_work(f.m, f.work);
  sq_pass p = pass_of(&f, 1);
  sq_tally t = {0};
  p.derived = derived;
  p.dderived = f.grad + f.n;
  sq_model_derive(f.m, f.theta, derived, shard);
  for (int k = 0; k <= 2 * L; ++k) {
    size_t range[2][2];
    memset(f.grad, 0, f.ngradient * sizeof *f.grad);
    sq_model_segment(f.m, f.theta, &f.b, &p, 1, k, sum, shard, f.grad, &t);
    const int n = sq_model_segment_ranges(f.m, k, range);
    for (int r = 0; r < n && k >= L; ++r)
      for (size_t i = range[r][0]; i < range[r][0] + range[r][1]; ++i) {
        assert_int_equal(owner[i], 0);
        owner[i] = k + 1;
      }
    for (size_t i = 0; i < f.ngradient; ++i)
      if (f.grad[i] != 0 && owner[i] != k + 1) fail_msg("segment %d of %d writes element %zu", k, 2 * L, i);
  }
  for (size_t i = 0; i < f.ngradient; ++i) assert_true(owner[i] != 0);
  assert_true(t.nlabel == NSEQ);
  free(owner), free(sum), free(derived);
  fixture_close(&f);
}

static void segments_share_out_the_gradient(void **state)
{
  (void)state;
  variant v = plain;
  for (v.layers = 1; v.layers <= 3; ++v.layers)
    for (v.prenorm = 0; v.prenorm < 2; ++v.prenorm) check_ranges(&v);
}

/* ---- statistics -------------------------------------------------------------------------------------- */
static const sq_param *param(const fixture *f, const char *name)
{
  const sq_param *p = sq_param_find(sq_model_params(f->m), name);
  if (p == NULL) fail_msg("no tensor %s", name);
  return p;
}

/* Over all rows, padding included; with prenorm the norm's input can be seen. */
static void running_statistics_move_toward_those_of_the_batch(void **state)
{
  (void)state;
  for (int padded = 0; padded < 2; ++padded) {
    fixture f;
    variant v = plain;
    sq_worker *w = NULL;
    sq_tally t = {0};
    v.prenorm = 1;
    v.padded = padded;
    fixture_open(&f, &v);
    const sq_pass p = pass_of(&f, 1);
    assert_int_equal(sq_worker_create(f.m, sq_shard_count(f.b.rows.nseq), NULL, &w), SQ_OK);
    sq_batch_gradient(w, f.theta, &f.b, &p, f.grad, &t);
    sq_model_loss(f.m, f.theta, &f.b, &p, f.work, &t);
    sq_real *theta = malloc(f.n * sizeof *theta), *moments = calloc(2 * f.n, sizeof *moments);
    memcpy(theta, f.theta, f.n * sizeof *theta);
    const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    sq_adamw_step(&o, sq_model_params(f.m), 0, 0, 1, f.grad, moments, moments + f.n, theta);
    for (int layer = 0; layer < 2; ++layer) {
      char name[64];
      sq_format(name, sizeof name, "encoder.layers_%d.normalize.mean", layer);
      const size_t at = param(&f, name)->offset;
      sq_format(name, sizeof name, "encoder.layers_%d.normalize.var", layer);
      const size_t vat = param(&f, name)->offset;
      const sq_real *x = sq_model_layer(f.m, f.work, layer).block_in;
      const int R = f.b.rows.nrow;
      for (int c = 0; c < WIDTH; ++c) {
        double mean = 0, var = 0;
        for (int r = 0; r < R; ++r) mean += (double)x[r * WIDTH + c] / R;
        for (int r = 0; r < R; ++r) var += pow((double)x[r * WIDTH + c] - mean, 2) / R;
        const double want_mean = 0.99 * (double)f.theta[at + (size_t)c] + 0.01 * mean;
        const double want_var = 0.99 * (double)f.theta[vat + (size_t)c] + 0.01 * var;
        assert_true(fabs((double)theta[at + (size_t)c] - want_mean) < 1e-14);
        assert_true(fabs((double)theta[vat + (size_t)c] - want_var) < 1e-14);
      }
    }
    sq_worker_destroy(&w);
    free(theta), free(moments);
    fixture_close(&f);
  }
}

static sq_real *logits_of(fixture *f, const sq_pass *p)
{
  sq_real *y = calloc((size_t)MAX_ROWS * NCLASS, sizeof *y);
  assert_non_null(y);
  sq_model_logits(f->m, f->theta, &f->b, p, f->work, y);
  return y;
}

/* With a unit scale and no bias what a BatchNorm gives has mean 0 and variance var/(var + eps). */
static void training_normalises_the_batch_and_evaluation_does_not(void **state)
{
  (void)state;
  fixture f;
  variant v = plain;
  v.prenorm = 1;
  fixture_open(&f, &v);
  sq_model_init(f.m, 11, f.theta);
  const sq_pass p = pass_of(&f, 1);
  double sum[2] = {0, 0}, square[2] = {0, 0};
  for (int evaluation = 0; evaluation < 2; ++evaluation) {
    free(logits_of(&f, evaluation ? NULL : &p));
    const sq_layer_view l = sq_model_layer(f.m, f.work, 1);
    for (int r = 0; r < f.b.rows.nrow; ++r) {
      sum[evaluation] += (double)l.mixer_in[r * WIDTH + 2] / f.b.rows.nrow;
      square[evaluation] += pow((double)l.mixer_in[r * WIDTH + 2], 2) / f.b.rows.nrow;
    }
    for (int i = 0; i < WIDTH && evaluation; ++i) /* running mean 0, variance 1 */
      assert_true(fabs((double)l.mixer_in[i] - (double)l.block_in[i] / sqrt(1 + 1e-5)) < 1e-15);
  }
  assert_true(fabs(sum[0]) < 1e-13 && fabs(square[0] - 1) < 1e-3);
  assert_true(fabs(sum[1]) > 1e-3);
  fixture_close(&f);
}

/* ---- evaluation mode --------------------------------------------------------------------------------- */
static void evaluation_does_not_see_other_sequences_nor_the_future(void **state)
{
  (void)state;
  for (int prenorm = 0; prenorm < 2; ++prenorm) {
    fixture f;
    variant v = plain;
    v.prenorm = prenorm;
    v.pooling = "none";
    fixture_open(&f, &v);
    const int changed = f.off[2] + 4;
    sq_real *before = logits_of(&f, NULL);
    f.token[changed] = (f.token[changed] + 1) % NVOCAB;
    sq_real *after = logits_of(&f, NULL);
    assert_memory_equal(before, after, (size_t)changed * NCLASS * sizeof *before);
    assert_memory_equal(before + f.off[3] * NCLASS, after + f.off[3] * NCLASS,
                        (size_t)(f.b.rows.nrow - f.off[3]) * NCLASS * sizeof *before);
    assert_true(memcmp(before + changed * NCLASS, after + changed * NCLASS, NCLASS * sizeof *before) != 0);
    free(before), free(after);
    fixture_close(&f);
  }
}

/* The mean is over the real steps, so padding does not change the result of a causal model. */
static void padding_changes_nothing_in_evaluation_mode(void **state)
{
  (void)state;
  variant v = plain;
  fixture f, padded;
  fixture_open(&f, &v);
  v.padded = 1;
  fixture_open(&padded, &v);
  for (int b = 0; b < NSEQ; ++b)
    memcpy(padded.token + padded.off[b], f.token + f.off[b], (size_t)length[b] * sizeof *f.token);
  memcpy(padded.label, f.label, sizeof f.label);
  sq_real *y = logits_of(&f, NULL), *z = logits_of(&padded, NULL);
  for (int i = 0; i < NSEQ * NCLASS; ++i) assert_true(fabs((double)(y[i] - z[i])) < 1e-13);
  const sq_pass p = pass_of(&f, 1), q = pass_of(&padded, 1);
  free(y), free(z);
  y = logits_of(&f, &p);
  z = logits_of(&padded, &q);
  assert_true(fabs((double)(y[0] - z[0])) > 1e-6); /* the statistics of training include it */
  free(y), free(z);
  fixture_close(&f);
  fixture_close(&padded);
}

static void logits_are_log_probabilities_of_the_loss(void **state)
{
  (void)state;
  variant v;
  for (int i = 0; variant_at(i, &v); i += 5)
    for (int train = 0; train < 2; ++train) {
      fixture f;
      fixture_open(&f, &v);
      assert_true(sq_model_log_probabilities(f.m));
      const sq_pass p = pass_of(&f, train);
      sq_real *y = logits_of(&f, &p);
      const int n = per_row(&v) ? f.b.rows.nrow : NSEQ;
      double loss = 0;
      for (int r = 0; r < n; ++r) {
        double total = 0;
        for (int c = 0; c < NCLASS; ++c) total += exp((double)y[r * NCLASS + c]);
        assert_true(fabs(total - 1) < 1e-14);
        if (f.label[r] != SQ_IGNORE) loss -= (double)y[r * NCLASS + f.label[r]];
      }
      assert_true(fabs(loss / (double)sq_batch_labels(&f.b) - loss_at(&f, f.theta, train)) < 1e-13);
      free(y);
      fixture_close(&f);
    }
}

/* A gather of the encoder's rows and the product with unit vectors are the same model. */
static void tokens_are_unit_vectors(void **state)
{
  (void)state;
  variant v = plain;
  fixture f;
  fixture_open(&f, &v);
  sq_real *y = logits_of(&f, NULL);
  memset(f.value, 0, sizeof f.value);
  for (int r = 0; r < f.b.rows.nrow; ++r)
    if (f.token[r] < NVOCAB) f.value[r * NVOCAB + f.token[r]] = 1;
  f.b.token = NULL;
  f.b.value = f.value;
  sq_real *z = logits_of(&f, NULL);
  for (int i = 0; i < NSEQ * NCLASS; ++i) assert_true(fabs((double)(y[i] - z[i])) < 1e-14);
  free(y), free(z);
  fixture_close(&f);
}

/* ---- dropout ----------------------------------------------------------------------------------------- */
/* With activation gelu a layer adds the dropped gelu(s): where the mask is 0, output is input, at every step. */
static void dropout_has_one_mask_for_all_steps(void **state)
{
  (void)state;
  variant v = plain;
  fixture f;
  int dropped = 0;
  v.activation = "gelu";
  v.prenorm = 1;
  v.dropout = 0.5;
  fixture_open(&f, &v);
  const sq_pass p = pass_of(&f, 1);
  free(logits_of(&f, &p));
  const sq_layer_view l = sq_model_layer(f.m, f.work, 0);
  for (int b = 0; b < NSEQ; ++b)
    for (int c = 0; c < WIDTH; ++c) {
      int same = 0;
      for (int r = f.off[b]; r < f.off[b + 1]; ++r)
        same += l.block_out[r * WIDTH + c] == l.block_in[r * WIDTH + c];
      assert_true(same == 0 || same == length[b]);
      dropped += same > 0;
    }
  assert_true(NSEQ * WIDTH / 4 < dropped && dropped < 3 * NSEQ * WIDTH / 4); /* binomial: 4 deviations */
  fixture_close(&f);
}

/* ---- workspace --------------------------------------------------------------------------------------- */
static void result_does_not_depend_on_what_the_workspace_held(void **state)
{
  (void)state;
  variant v;
  for (int i = 0; variant_at(i, &v); ++i) {
    fixture f;
    sq_tally t = {0};
    fixture_open(&f, &v);
    const sq_pass p = pass_of(&f, i % 3 != 0);
    const size_t bytes = sq_model_work_bytes(f.m);
    sq_real *g = calloc(f.n, sizeof *g);
    memset(f.work, 0, bytes);
    sq_model_gradient(f.m, f.theta, &f.b, &p, 1, f.work, g, &t);
    memset(f.work, 0xff, bytes); /* NaN */
    memset((char *)f.work + bytes, 0x5a, 64);
    sq_model_gradient(f.m, f.theta, &f.b, &p, 1, f.work, f.grad, &t);
    assert_memory_equal(g, f.grad, f.n * sizeof *g);
    for (int k = 0; k < 64; ++k) assert_int_equal(((unsigned char *)f.work)[bytes + (size_t)k], 0x5a);
    free(g);
    fixture_close(&f);
  }
}

/* ---- names, initial values, refusals ----------------------------------------------------------------- */
static void tensors_have_the_published_names_and_initial_values(void **state)
{
  (void)state;
  static const struct {
    const char *name;
    int ndim, dim[2];
    unsigned flags;
    double constant; /* NAN: random */
  } want[] = {
      {"encoder.encoder.kernel", 2, {NVOCAB, WIDTH}, 0, NAN},
      {"encoder.encoder.bias", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY, 0},
      {"encoder.layers_1.out1.kernel", 2, {WIDTH, WIDTH}, 0, NAN},
      {"encoder.layers_1.out1.bias", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY, 0},
      {"encoder.layers_1.out2.kernel", 2, {WIDTH, WIDTH}, 0, NAN},
      {"encoder.layers_1.out2.bias", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY, 0},
      {"encoder.layers_1.normalize.scale", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY, 1},
      {"encoder.layers_1.normalize.bias", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY, 0},
      {"encoder.layers_1.normalize.mean", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY | SQ_PARAM_BUFFER, 0},
      {"encoder.layers_1.normalize.var", 1, {WIDTH, 1}, SQ_PARAM_NO_DECAY | SQ_PARAM_BUFFER, 1},
      {"decoder.kernel", 2, {WIDTH, NCLASS}, 0, NAN},
      {"decoder.bias", 1, {NCLASS, 1}, SQ_PARAM_NO_DECAY, 0},
  };
  fixture f;
  fixture_open(&f, &plain);
  sq_model_init(f.m, 4, f.theta);
  for (size_t i = 0; i < sizeof want / sizeof want[0]; ++i) {
    const sq_param *p = param(&f, want[i].name);
    assert_true(p->ndim == want[i].ndim && p->dim[0] == want[i].dim[0] && p->dim[1] == want[i].dim[1]);
    assert_int_equal(p->flags, want[i].flags);
    const double bound = 2 / sqrt(p->dim[0]) / 0.87962566103423978; /* of lecun_normal */
    for (size_t k = 0; k < p->count; ++k) {
      const double x = (double)f.theta[p->offset + k];
      assert_true(isnan(want[i].constant) ? x != 0 && fabs(x) <= bound : x == want[i].constant);
    }
  }
  param(&f, "encoder.layers_0.seq.nu_log");
  fixture_close(&f);
  variant v = plain;
  v.norm = "layer";
  v.activation = "half_glu1";
  fixture_open(&f, &v);
  assert_null(sq_param_find(sq_model_params(f.m), "encoder.layers_0.normalize.mean"));
  assert_null(sq_param_find(sq_model_params(f.m), "encoder.layers_0.out1.kernel"));
  param(&f, "encoder.layers_0.out2.kernel");
  fixture_close(&f);
}

static void layers_are_linked(void **state)
{
  (void)state;
  for (int prenorm = 0; prenorm < 2; ++prenorm) {
    fixture f;
    variant v = plain;
    v.prenorm = prenorm;
    fixture_open(&f, &v);
    free(logits_of(&f, NULL));
    const sq_layer_view a = sq_model_layer(f.m, f.work, 0), b = sq_model_layer(f.m, f.work, 1);
    assert_true(a.block_out == b.block_in && a.mixer == sq_model_mixer(f.m, 0));
    assert_true((a.mixer_in == a.block_in) == !prenorm);
    assert_int_equal(sq_model_width(f.m), WIDTH);
    fixture_close(&f);
  }
}

static void flops_count_the_matrix_products(void **state)
{
  (void)state;
  static const int len[2] = {9, 4};
  static const struct {
    const char *activation;
    int products;
  } of[4] = {{"full_glu", 2}, {"half_glu1", 1}, {"half_glu2", 1}, {"gelu", 0}};
  for (int i = 0; i < 4; ++i) {
    fixture f;
    variant v = plain;
    v.activation = of[i].activation;
    fixture_open(&f, &v);
    const sq_mixer *m = sq_model_mixer(f.m, 0);
    const double want = 2 * (sq_mixer_get(m)->flops(m, 2, len) + 13 * of[i].products * 2 * WIDTH * WIDTH) +
                        5 * 2 * WIDTH * NCLASS;
    assert_true(sq_model_flops(f.m, 2, len, 5) == want);
    fixture_close(&f);
  }
}

static void expect_refused(const variant *v, int label_per_row, const char *text)
{
  sq_experiment *e = NULL;
  sq_model *m = NULL;
  sq_status st = parse_variant(v, &e);
  if (st == SQ_OK) st = sq_model_create(sq_experiment_cell(e, 0), dims_for(label_per_row), &m);
  assert_int_equal(st, SQ_ERR_USAGE);
  assert_null(m);
  if (strstr(sq_error_text(), text) == NULL) fail_msg("\"%s\" does not speak of %s", sq_error_text(), text);
  sq_error_clear();
  if (e != NULL) sq_experiment_destroy(&e);
}

static void impossible_configurations_are_refused(void **state)
{
  (void)state;
  variant v = plain;
  expect_refused(&v, 1, "model.pooling");
  v.pooling = "none";
  expect_refused(&v, 0, "model.pooling");
  v.pooling = "max";
  expect_refused(&v, 0, "model.pooling");
  v.pooling = "last";
  v.more = "}, \"train\": {\"recipe\": \"published\"";
  expect_refused(&v, 0, "padding");
  v = plain;
  v.more = ", \"dual\": true";
  expect_refused(&v, 0, "single sequences");
  v = plain;
  v.activation = "relu";
  expect_refused(&v, 0, "model.activation");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradient_matches_differences_in_training),
      cmocka_unit_test(gradient_matches_differences_in_evaluation_mode),
      cmocka_unit_test(shards_give_the_gradient_of_the_batch),
      cmocka_unit_test(segments_share_out_the_gradient),
      cmocka_unit_test(running_statistics_move_toward_those_of_the_batch),
      cmocka_unit_test(training_normalises_the_batch_and_evaluation_does_not),
      cmocka_unit_test(evaluation_does_not_see_other_sequences_nor_the_future),
      cmocka_unit_test(padding_changes_nothing_in_evaluation_mode),
      cmocka_unit_test(logits_are_log_probabilities_of_the_loss),
      cmocka_unit_test(tokens_are_unit_vectors),
      cmocka_unit_test(dropout_has_one_mask_for_all_steps),
      cmocka_unit_test(result_does_not_depend_on_what_the_workspace_held),
      cmocka_unit_test(tensors_have_the_published_names_and_initial_values),
      cmocka_unit_test(layers_are_linked),
      cmocka_unit_test(flops_count_the_matrix_products),
      cmocka_unit_test(impossible_configurations_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
