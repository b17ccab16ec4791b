/* tests/test_model_mamba.c: the Mamba-2 backbone: its gradient, what must hold for every model of the family, its
 * published names and initialisation. */
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

enum { NSEQ = 3, NROW = 90, SEQ_LEN = 70, NVOCAB = 7, NCLASS = 5, INPUT_DIM = 2, WIDTH = 8, KEYSETS = 64 };

typedef struct {
  const char *pooling; /* "none": language model */
  int lti, heads, conv, expansion, glu, prenorm, tokens, layers;
  double dropout;
  const char *more; /* more JSON members, each with a comma in front */
} variant;

typedef struct {
  sq_experiment *e;
  sq_model *m;
  size_t n; /* length of theta */
  sq_real *theta, *grad;
  void *work;
  int off[NSEQ + 1], id[NSEQ];
  int32_t token[NROW], label[NROW];
  sq_real value[NROW * INPUT_DIM];
  sq_batch b;
  char name[256];
} fixture;

/* All choices, with different periods so that most pairs occur. */
static variant variant_number(int k)
{
  static const char *const pooling[4] = {"mean", "none", "max", "last"};
  return (variant){.pooling = pooling[k % 4],
                   .lti = k / 2 % 2,
                   .heads = k % 3 == 0 ? 1 : 2,
                   .conv = k % 5 < 2 ? 0 : 4,
                   .expansion = k % 7 == 3 ? 2 : 1,
                   .glu = k / 4 % 2,
                   .prenorm = k / 8 % 2,
                   .tokens = k % 3 != 1,
                   .layers = 2,
                   .dropout = k % 5 == 4 ? 0.3 : 0,
                   .more = ""};
}
enum { NVARIANT = 16 };

static int is_language(const variant *v)
{
  return strcmp(v->pooling, "none") == 0;
}

static sq_status parse_variant(const variant *v, char *json, size_t cap, sq_experiment **e)
{
  static const sq_keyset *sets[KEYSETS];
  const int n = sq_model_keysets(sets, KEYSETS);
  const sq_schema schema = {sets, n};

  assert_true(n <= KEYSETS);
  sq_format(
      json, cap,
      "{\"model\": {\"layer\": \"mamba\", \"version\": \"mamba2\", \"input_dim\": %d, \"output_dim\": %d, "
      "\"num_layers\": %d, \"hidden_dim\": %d, \"state_dim\": 4, \"num_heads\": %d, \"token_embedding\": %s, "
      "\"vocab_size\": %d, \"conv_dim\": %d, \"expansion\": %d, \"glu\": %s, "
      "\"prenorm\": %s, \"pooling\": \"%s\", \"dropout\": %g, \"pseudoLTI\": %s%s}}",
      INPUT_DIM, NCLASS, v->layers, WIDTH, v->heads, v->tokens ? "true" : "false", NVOCAB, v->conv,
      v->expansion, v->glu ? "true" : "false", v->prenorm ? "true" : "false", v->pooling, v->dropout,
      v->lti ? "true" : "false", v->more);
  return sq_experiment_parse(&schema, json, "test", e);
}

/* label_per_row: a label at each step, some of them ignored; else one for each sequence. */
static sq_model_dims fixture_dims(int label_per_row)
{
  return (sq_model_dims){.seq_len = SEQ_LEN,
                         .max_rows = NROW,
                         .max_seqs = NSEQ,
                         .max_labels = NROW,
                         .label_per_row = label_per_row,
                         .all_logits = 1};
}

static void fixture_inputs(fixture *f, const variant *v)
{
  static const int length[NSEQ] = {SEQ_LEN, 1, 19};
  const int language = is_language(v);
  sq_rng r;

  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int b = 0; b < NSEQ; ++b) {
    f->off[b + 1] = f->off[b] + length[b];
    f->id[b] = b;
  }
  for (int i = 0; i < NROW; ++i) {
    f->token[i] = (int32_t)sq_rng_below(&r, NVOCAB);
    f->label[i] = i % 3 == 1 && language ? SQ_IGNORE : (int32_t)sq_rng_below(&r, NCLASS);
  }
  sq_nn_init_normal(&r, 1, NROW * INPUT_DIM, f->value);
  f->b = (sq_batch){.rows = {.nseq = NSEQ, .nrow = NROW, .off = f->off, .id = f->id},
                    .input_dim = INPUT_DIM,
                    .label_per_row = language,
                    .label = f->label};
  f->b.token = v->tokens ? f->token : NULL;
  f->b.value = v->tokens ? NULL : f->value;
}

/* Away from the special values of the initialisation: zero biases, unit scales, steps so small that nothing
   happens in 70 of them. */
static void move_parameters(fixture *f)
{
  const sq_param_list *l = sq_model_params(f->m);
  sq_rng r;

  sq_rng_init(&r, 8, SQ_STREAM_TEST, 1);
  for (int k = 0; k < l->n; ++k) {
    const int steps = strstr(l->v[k].name, "dt_bias") != NULL;
    for (size_t i = 0; i < l->v[k].count; ++i)
      f->theta[l->v[k].offset + i] += (sq_real)(0.1 * sq_rng_normal(&r) + 3 * steps);
  }
}

static void fixture_open(fixture *f, const variant *v)
{
  char json[1024];

  memset(f, 0, sizeof *f);
  sq_format(f->name, sizeof f->name,
            "pooling=%s lti=%d heads=%d conv=%d expansion=%d glu=%d prenorm=%d tokens=%d dropout=%g",
            v->pooling, v->lti, v->heads, v->conv, v->expansion, v->glu, v->prenorm, v->tokens, v->dropout);
  fixture_inputs(f, v);
  if (parse_variant(v, json, sizeof json, &f->e) != SQ_OK ||
      sq_model_create(sq_experiment_cell(f->e, 0), fixture_dims(is_language(v)), &f->m) != SQ_OK)
    fail_msg("%s", sq_error_text());
  f->n = sq_model_params(f->m)->total;
  f->theta = calloc(f->n, sizeof *f->theta);
  f->grad = calloc(f->n, sizeof *f->grad);
  f->work = aligned_alloc(64, sq_model_work_bytes(f->m) / 64 * 64 + 128);
  assert_true(f->theta != NULL && f->grad != NULL && f->work != NULL);
  sq_model_init(f->m, 11, f->theta);
  move_parameters(f);
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->grad);
  free(f->work);
  sq_model_destroy(&f->m);
  sq_experiment_destroy(&f->e);
}

static sq_pass fixture_pass(const fixture *f)
{
  return (sq_pass){.rows = &f->b.rows, .train = 1, .seed = 3, .step = 17, .seq_len = SEQ_LEN};
}

/* Mean loss in training mode (dropout as in the gradient); the gradient is added to f->grad. */
static double fixture_loss(fixture *f, const sq_real *theta)
{
  const sq_pass p = fixture_pass(f);
  const double count = (double)sq_batch_labels(&f->b);
  sq_tally t = {0};

  sq_model_gradient(f->m, theta, &f->b, &p, 1 / count, f->work, f->grad, &t);
  assert_int_equal(t.nlabel, (long)count);
  return t.loss_sum / count;
}

/* ---- gradient ---------------------------------------------------------------------------------------- */

/* Along a unit direction within one tensor, h = 2e-5: for a loss of order 1 truncation h^2 and rounding eps/h are
   both below 1e-9; 1e-7 leaves 100 for the curvature of exponentials and of normalisation. */
static const double step = 2e-5, tolerance = 1e-7;

static double along(fixture *f, const sq_param *p, const double *dir, double h, sq_real *theta)
{
  memcpy(theta, f->theta, f->n * sizeof *theta);
  for (size_t k = 0; k < p->count; ++k) theta[p->offset + k] += (sq_real)(h * dir[k]);
  return fixture_loss(f, theta);
}

static double check_tensor(fixture *f, const sq_param *p, const sq_real *grad)
{
  double *dir = malloc(p->count * sizeof *dir), norm = 0, slope = 0;
  sq_real *theta = malloc(f->n * sizeof *theta);
  sq_rng r;

  sq_rng_init(&r, 1, SQ_STREAM_TEST, p->offset);
  for (size_t k = 0; k < p->count; ++k) {
    dir[k] = sq_rng_normal(&r);
    norm += dir[k] * dir[k];
  }
  for (size_t k = 0; k < p->count; ++k) {
    dir[k] /= sqrt(norm);
    slope += dir[k] * (double)grad[p->offset + k];
  }
  const double quotient = (along(f, p, dir, step, theta) - along(f, p, dir, -step, theta)) / (2 * step);
  const double error = fabs(slope - quotient) / fmax(1, fabs(quotient));
  if (!(error < tolerance))
    fail_msg("%s: %s: gradient %.12g, quotient %.12g", f->name, p->name, slope, quotient);
  free(dir);
  free(theta);
  return error;
}

static void gradient_matches_differences_for_all_variants(void **state)
{
  double worst = 0;
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    const variant v = variant_number(k);
    fixture_open(&f, &v);
    fixture_loss(&f, f.theta);
    sq_real *grad = malloc(f.n * sizeof *grad);
    memcpy(grad, f.grad, f.n * sizeof *grad);
    const sq_param_list *l = sq_model_params(f.m);
    for (int i = 0; i < l->n; ++i) worst = fmax(worst, check_tensor(&f, &l->v[i], grad));
    free(grad);
    fixture_close(&f);
  }
  printf("%d variants, worst error %.2g\n", (int)NVARIANT, worst);
}

/* ---- what holds for every model ---------------------------------------------------------------------- */

static sq_real *logits_of(const fixture *f)
{
  sq_real *y = calloc((size_t)NROW * NCLASS, sizeof *y);
  assert_non_null(y);
  sq_model_logits(f->m, f->theta, &f->b, NULL, f->work, y);
  return y;
}

static void logits_ignore_the_future_exactly(void **state)
{
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    variant v = variant_number(k);
    v.pooling = "none";
    v.tokens = 1;
    fixture_open(&f, &v);
    sq_real *before = logits_of(&f);
    const int changed = 66;
    f.token[changed] = (f.token[changed] + 1) % NVOCAB;
    sq_real *after = logits_of(&f);
    assert_memory_equal(before, after, (size_t)changed * NCLASS * sizeof *before);
    assert_memory_equal(before + f.off[1] * NCLASS, after + f.off[1] * NCLASS,
                        (size_t)(NROW - f.off[1]) * NCLASS * sizeof *before);
    assert_true(memcmp(before + changed * NCLASS, after + changed * NCLASS, NCLASS * sizeof *before) != 0);
    free(before), free(after);
    fixture_close(&f);
  }
}

/* Not bit for bit: a product of another shape may be summed in another order. */
static void a_sequence_alone_gives_the_same_logits(void **state)
{
  static const int one_off[2] = {0, 19}, one_id[1] = {2};
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    const variant v = variant_number(k);
    const int language = is_language(&v), n = language ? 19 : 1;
    fixture_open(&f, &v);
    const int first = language ? f.off[2] : 2;
    sq_real *all = logits_of(&f);
    f.b.rows = (sq_rows){.nseq = 1, .nrow = 19, .off = one_off, .id = one_id};
    if (v.tokens) f.b.token += f.off[2];
    if (!v.tokens) f.b.value += f.off[2] * INPUT_DIM;
    f.b.label += first;
    sq_real *one = logits_of(&f);
    for (int i = 0; i < n * NCLASS; ++i)
      assert_true(fabs((double)(one[i] - all[first * NCLASS + i])) < 1e-13);
    free(all), free(one);
    fixture_close(&f);
  }
}

static void shards_add_up_to_the_batch_with_dropout_on(void **state)
{
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    variant v = variant_number(k);
    v.dropout = 0.3;
    fixture_open(&f, &v);
    const double loss = fixture_loss(&f, f.theta), count = (double)sq_batch_labels(&f.b);
    sq_real *sum = calloc(f.n, sizeof *sum);
    sq_tally t = {0};
    for (int s = 0; s < sq_shard_count(NSEQ); ++s) {
      int off[NSEQ + 1];
      const sq_batch shard = sq_batch_shard(&f.b, s, off);
      const sq_pass p = fixture_pass(&f);
      sq_model_gradient(f.m, f.theta, &shard, &p, 1 / count, f.work, sum, &t);
    }
    assert_true(fabs(t.loss_sum / count - loss) < 1e-13);
    for (size_t i = 0; i < f.n; ++i)
      assert_true(fabs((double)(sum[i] - f.grad[i])) < 1e-13 * (1 + fabs((double)sum[i])));
    free(sum);
    fixture_close(&f);
  }
}

static void evaluation_equals_the_loss_of_the_logits(void **state)
{
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    variant v = variant_number(k);
    v.dropout = 0.5; /* must not act */
    fixture_open(&f, &v);
    sq_real *y = logits_of(&f);
    sq_tally t = {0}, want = {0};
    sq_nn_xent(is_language(&v) ? NROW : NSEQ, NCLASS, y, f.label, 1, 0, &want);
    sq_model_evaluate(f.m, f.theta, &f.b, f.work, &t);
    assert_true(t.nlabel == want.nlabel && t.ncorrect == want.ncorrect &&
                fabs(t.loss_sum - want.loss_sum) < 1e-12);
    free(y);
    fixture_close(&f);
  }
}

/* Whatever the workspace held before: all NaN here.  Nothing is written behind it. */
static void result_does_not_depend_on_what_the_workspace_held(void **state)
{
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    const variant v = variant_number(k);
    fixture_open(&f, &v);
    const size_t bytes = sq_model_work_bytes(f.m);
    const double loss = fixture_loss(&f, f.theta);
    sq_real *grad = malloc(f.n * sizeof *grad);
    memcpy(grad, f.grad, f.n * sizeof *grad);
    memset(f.grad, 0, f.n * sizeof *grad);
    memset(f.work, 0xff, bytes);
    memset((char *)f.work + bytes, 0x5a, 64);
    assert_true(fixture_loss(&f, f.theta) == loss);
    assert_memory_equal(grad, f.grad, f.n * sizeof *grad);
    for (int i = 0; i < 64; ++i) assert_int_equal(((unsigned char *)f.work)[bytes + (size_t)i], 0x5a);
    free(grad);
    fixture_close(&f);
  }
}

/* ---- a block from its description -------------------------------------------------------------------- */

static const sq_real *tensor(const fixture *f, const char *name)
{
  const sq_param *p = sq_param_find(sq_model_params(f->m), name);
  if (p == NULL) fail_msg("no parameter %s", name);
  return f->theta + p->offset;
}

static void layer_norm(const sq_real *w, const sq_real *b, const double *x, double *y)
{
  double mean = 0, square = 0;
  for (int i = 0; i < WIDTH; ++i) mean += x[i] / WIDTH;
  for (int i = 0; i < WIDTH; ++i) square += (x[i] - mean) * (x[i] - mean) / WIDTH;
  for (int i = 0; i < WIDTH; ++i) y[i] = (x[i] - mean) / sqrt(square + 1e-5) * (double)w[i] + (double)b[i];
}

/* The block's output of one row from its input and the mixer's output. */
static void described_row(const fixture *f, const variant *v, const sq_real *in, const sq_real *mixed,
                          double *y)
{
  double g[WIDTH];
  for (int i = 0; i < WIDTH; ++i) {
    const double s = (double)mixed[i];
    y[i] = g[i] = 0.5 * s * (1 + erf(s / sqrt(2)));
  }
  if (v->glu) {
    const sq_real *W = tensor(f, "blocks.1.glu.linear.weight"), *b = tensor(f, "blocks.1.glu.linear.bias");
    double a[2 * WIDTH];
    for (int o = 0; o < 2 * WIDTH; ++o) {
      a[o] = (double)b[o];
      for (int i = 0; i < WIDTH; ++i) a[o] += (double)W[o * WIDTH + i] * g[i];
    }
    for (int i = 0; i < WIDTH; ++i) y[i] = a[i] / (1 + exp(-a[WIDTH + i]));
  }
  for (int i = 0; i < WIDTH; ++i) y[i] += (double)in[i];
  if (!v->prenorm) layer_norm(tensor(f, "blocks.1.norm.weight"), tensor(f, "blocks.1.norm.bias"), y, y);
}

static void blocks_are_those_of_the_description(void **state)
{
  (void)state;
  for (int k = 0; k < NVARIANT; ++k) {
    fixture f;
    const variant v = variant_number(k);
    fixture_open(&f, &v);
    sq_real *logits = logits_of(&f);
    const sq_layer_view a = sq_model_layer(f.m, f.work, 0), b = sq_model_layer(f.m, f.work, 1);
    assert_true(a.block_out == b.block_in && b.mixer == sq_model_mixer(f.m, 1));
    assert_string_equal(sq_mixer_get(b.mixer)->name, v.lti ? "mamba2-lti" : "mamba2");
    for (int r = 0; r < NROW; ++r) {
      double x[WIDTH], y[WIDTH];
      for (int i = 0; i < WIDTH; ++i) x[i] = (double)b.block_in[r * WIDTH + i];
      if (v.prenorm) layer_norm(tensor(&f, "blocks.1.norm.weight"), tensor(&f, "blocks.1.norm.bias"), x, x);
      described_row(&f, &v, b.block_in + r * WIDTH, b.mixer_out + r * WIDTH, y);
      for (int i = 0; i < WIDTH; ++i) {
        assert_true(fabs(x[i] - (double)b.mixer_in[r * WIDTH + i]) < 1e-13);
        assert_true(fabs(y[i] - (double)b.block_out[r * WIDTH + i]) < 1e-13);
      }
    }
    free(logits);
    fixture_close(&f);
  }
}

/* Linear decoder with bias on the last block's output, with no norm between them. */
static void decoder_has_a_bias_and_no_norm_before_it(void **state)
{
  fixture f;
  variant v = variant_number(8);
  (void)state;
  v.pooling = "none";
  fixture_open(&f, &v);
  sq_real *logits = logits_of(&f);
  const sq_layer_view last = sq_model_layer(f.m, f.work, 1);
  const sq_real *W = tensor(&f, "decoder.weight"), *b = tensor(&f, "decoder.bias");
  for (int r = 0; r < NROW; ++r)
    for (int c = 0; c < NCLASS; ++c) {
      double want = (double)b[c];
      for (int i = 0; i < WIDTH; ++i)
        want += (double)W[c * WIDTH + i] * (double)last.block_out[r * WIDTH + i];
      assert_true(fabs(want - (double)logits[r * NCLASS + c]) < 1e-13);
    }
  free(logits);
  fixture_close(&f);
}

/* ---- names, initialisation, cost --------------------------------------------------------------------- */

static void expect_names(const variant *v, const char *const *name, int n)
{
  fixture f;
  fixture_open(&f, v);
  const sq_param_list *l = sq_model_params(f.m);
  assert_int_equal(l->n, n);
  for (int i = 0; i < n; ++i) assert_string_equal(l->v[i].name, name[i]);
  fixture_close(&f);
}

static void parameters_have_the_published_names_and_order(void **state)
{
  static const char *const plain[] = {"encoder.word_embeddings.weight",
                                      "blocks.0.mamba.dt_bias",
                                      "blocks.0.mamba.A_log",
                                      "blocks.0.mamba.D",
                                      "blocks.0.mamba.in_proj.weight",
                                      "blocks.0.mamba.conv1d.weight",
                                      "blocks.0.mamba.conv1d.bias",
                                      "blocks.0.mamba.out_proj.weight",
                                      "blocks.0.glu.linear.weight",
                                      "blocks.0.glu.linear.bias",
                                      "blocks.0.norm.weight",
                                      "blocks.0.norm.bias",
                                      "decoder.weight",
                                      "decoder.bias"};
  static const char *const lti[] = {"encoder.weight",
                                    "encoder.bias",
                                    "blocks.0.mamba.dt_bias",
                                    "blocks.0.mamba.D",
                                    "blocks.0.mamba.A",
                                    "blocks.0.mamba.in_proj.weight",
                                    "blocks.0.mamba.out_proj.weight",
                                    "blocks.0.norm.weight",
                                    "blocks.0.norm.bias",
                                    "decoder.weight",
                                    "decoder.bias"};
  (void)state;
  expect_names(&(variant){.pooling = "mean",
                          .heads = 2,
                          .conv = 4,
                          .expansion = 1,
                          .glu = 1,
                          .tokens = 1,
                          .layers = 1,
                          .more = ""},
               plain, sizeof plain / sizeof *plain);
  expect_names(&(variant){.pooling = "none", .lti = 1, .heads = 2, .expansion = 1, .layers = 1, .more = ""},
               lti, sizeof lti / sizeof *lti);
}

/* The word embeddings and the layers' own tensors come from the seed alone, norms start at 1 and 0; the mixer's
   distributions are tested with the mixer. */
static void initialisation_depends_on_the_seed_alone(void **state)
{
  fixture f;
  const variant v = variant_number(4);
  (void)state;
  fixture_open(&f, &v);
  sq_model_init(f.m, 11, f.theta);
  sq_model_init(f.m, 11, f.grad);
  assert_memory_equal(f.theta, f.grad, f.n * sizeof *f.grad);
  sq_model_init(f.m, 12, f.grad);
  assert_true(memcmp(f.theta, f.grad, f.n * sizeof *f.grad) != 0);
  for (int i = 0; i < WIDTH; ++i) {
    assert_true(tensor(&f, "blocks.1.norm.weight")[i] == 1 && tensor(&f, "blocks.1.norm.bias")[i] == 0);
    assert_true(fabs((double)tensor(&f, "decoder.weight")[i]) <= 1 / sqrt(WIDTH));
    assert_true(fabs((double)tensor(&f, "blocks.0.glu.linear.weight")[i]) <= 1 / sqrt(WIDTH));
  }
  fixture_close(&f);
}

static void flops_count_the_matrix_products(void **state)
{
  static const int len[2] = {70, 4};
  fixture f;
  variant v = variant_number(4);
  (void)state;
  v.pooling = "none";
  fixture_open(&f, &v);
  const sq_mixer *mixer = sq_model_mixer(f.m, 0);
  const double mixers =
      sq_mixer_get(mixer)->flops(mixer, 2, len) + sq_mixer_get(mixer)->flops_wanted(mixer, 2, len, 5);
  const double input = v.tokens ? 0 : 74 * 2 * INPUT_DIM * WIDTH;
  /* Behind the last mixer only the 5 labelled rows count. */
  const double want = mixers + (74.0 + 5) * 2 * WIDTH * 2 * WIDTH + 5 * 2 * WIDTH * NCLASS + input;
  assert_true(fabs(sq_model_flops(f.m, 2, len, 5) - want) <
              1e-12 * want); /* shares of rows are no integers */
  fixture_close(&f);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */

static void expect_refused(const variant *v, int label_per_row, const char *text)
{
  char json[1024];
  sq_experiment *e = NULL;
  sq_model *m = NULL;
  sq_status st = parse_variant(v, json, sizeof json, &e);
  if (st == SQ_OK) st = sq_model_create(sq_experiment_cell(e, 0), fixture_dims(label_per_row), &m);
  assert_int_equal(st, SQ_ERR_USAGE);
  assert_null(m);
  if (strstr(sq_error_text(), text) == NULL) fail_msg("\"%s\" does not speak of %s", sq_error_text(), text);
  sq_error_clear();
  if (e != NULL) sq_experiment_destroy(&e);
}

static void impossible_configurations_are_refused(void **state)
{
  variant v = variant_number(0);
  (void)state;
  expect_refused(&v, 1, "model.pooling: \"mean\" gives one output a sequence");
  v.pooling = "none";
  expect_refused(&v, 0, "model.pooling: \"none\" gives an output at each step");
  v.pooling = "sum";
  expect_refused(&v, 0, "model.pooling");
  v = variant_number(0);
  v.more = ", \"dual\": true";
  expect_refused(&v, 0, "single sequences");
  v.more = ", \"norm\": \"batch\"";
  expect_refused(&v, 0, "model.norm");
  v.more = "";
  v.heads = 3;
  expect_refused(&v, 0, "model.num_heads");
  v.heads = 8;
  v.lti = 1;
  expect_refused(&v, 0, "model.state_dim");
  v = variant_number(0);
  v.conv = SQ_MAX_CONV + 1;
  expect_refused(&v, 0, "model.conv_dim");
}

/* Files of the study carry keys that other models read; they are noted and ignored. */
static void published_keys_that_are_not_read_are_accepted(void **state)
{
  fixture f;
  variant v = variant_number(0);
  (void)state;
  v.more = ", \"embedding\": true, \"max_pos_embed\": 64, \"mixer\": \"none\", \"mixer_dim\": 128, "
           "\"classifier\": false, \"dual\": false, \"norm\": \"layer\"";
  sq_log_quiet(1);
  fixture_open(&f, &v);
  sq_log_quiet(0);
  assert_int_equal(sq_model_nlayer(f.m), 2);
  fixture_close(&f);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradient_matches_differences_for_all_variants),
      cmocka_unit_test(logits_ignore_the_future_exactly),
      cmocka_unit_test(a_sequence_alone_gives_the_same_logits),
      cmocka_unit_test(shards_add_up_to_the_batch_with_dropout_on),
      cmocka_unit_test(evaluation_equals_the_loss_of_the_logits),
      cmocka_unit_test(result_does_not_depend_on_what_the_workspace_held),
      cmocka_unit_test(blocks_are_those_of_the_description),
      cmocka_unit_test(decoder_has_a_bias_and_no_norm_before_it),
      cmocka_unit_test(parameters_have_the_published_names_and_order),
      cmocka_unit_test(initialisation_depends_on_the_seed_alone),
      cmocka_unit_test(flops_count_the_matrix_products),
      cmocka_unit_test(impossible_configurations_are_refused),
      cmocka_unit_test(published_keys_that_are_not_read_are_accepted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
