/* tests/test_model_transformer.c: what must hold for every model of the family, and its published names and
 * initialisation. */
#include "model_fixture.h"

static const char *const attention[3] = {"sm-attention", "lin-attention", "norm-attention"};
static const char *const norm_keys =
    ", \"mode\": \"attention\", \"norm_fn\": \"softplus\", \"approx_fn\": \"elu\", \"scale_B\": true, "
    "\"offset\": true, \"offset_init\": \"exp\"";

static variant variant_of(int i, const char *channel, const char *pooling)
{
  variant v = variant_default();
  v.attention = attention[i];
  v.more = i == 2 ? norm_keys : "";
  v.channel = channel;
  v.pooling = pooling;
  v.conv = i == 1 ? 0 : 3;
  v.gate = i == 1;
  return v;
}

static sq_real *logits_of(const fixture *f)
{
  sq_real *y = calloc((size_t)NROW * (size_t)sq_model_output_dim(f->m), sizeof *y);
  assert_non_null(y);
  sq_model_logits(f->m, f->theta, &f->b, NULL, f->work, y);
  return y;
}

static void logits_ignore_the_future_exactly(void **state)
{
  (void)state;
  static const char *const channel[4] = {"mlp", "glu", "hybrid", "none"};
  for (int i = 0; i < 3; ++i)
    for (int c = 0; c < 4; ++c) {
      fixture f;
      const variant v = variant_of(i, channel[c], NULL);
      fixture_open(&f, &v);
      sq_real *before = logits_of(&f);
      const int changed = f.off[0] + 5; /* step 5 of the first sequence */
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
  (void)state;
  for (int i = 0; i < 3; ++i) {
    fixture f;
    const variant v = variant_of(i, "mlp", i == 0 ? "mean" : i == 1 ? "max" : "sum");
    static const int one_off[2] = {0, 4}, one_id[1] = {1};
    fixture_open(&f, &v);
    sq_real *all = logits_of(&f);
    f.b.rows = (sq_rows){1, 4, one_off, one_id, NULL};
    f.b.token += f.off[1];
    f.b.label += 1;
    sq_real *one = logits_of(&f);
    for (int k = 0; k < NCLASS; ++k) assert_true(fabs((double)(one[k] - all[NCLASS + k])) < 1e-13);
    free(all), free(one);
    fixture_close(&f);
  }
}

static void shards_add_up_to_the_batch_with_dropout_on(void **state)
{
  (void)state;
  for (int i = 0; i < 3; ++i) {
    fixture f;
    variant v = variant_of(i, "mlp", i == 0 ? NULL : "mean");
    v.dropout = 0.3;
    v.att_dropout = 0.2;
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
    for (size_t k = 0; k < f.n; ++k) assert_true(fabs((double)(sum[k] - f.grad[k])) < 1e-13);
    free(sum);
    fixture_close(&f);
  }
}

static void evaluation_equals_the_loss_of_the_logits(void **state)
{
  (void)state;
  for (int i = 0; i < 6; ++i) {
    fixture f;
    variant v = variant_of(i % 3, "glu", i < 3 ? NULL : "cls");
    v.dropout = 0.5; /* must not act */
    fixture_open(&f, &v);
    sq_real *y = logits_of(&f);
    sq_tally t = {0}, want = {0};
    sq_nn_xent(i < 3 ? NROW : NSEQ, NCLASS, y, f.label, 1, 0, &want);
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
  static const char *const channel[4] = {"mlp", "glu", "hybrid", "none"};
  for (int k = 0; k < 12; ++k) {
    fixture f;
    variant v = variant_of(k % 3, channel[k / 3], k % 2 ? NULL : k % 4 ? "max" : "mean");
    v.dropout = k % 3 == 0 ? 0.2 : 0;
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

static void layers_are_linked_and_normalised(void **state)
{
  (void)state;
  fixture f;
  const variant v = variant_of(0, "mlp", "mean");
  fixture_open(&f, &v);
  sq_real *y = logits_of(&f);
  assert_int_equal(sq_model_nlayer(f.m), 2);
  const sq_layer_view a = sq_model_layer(f.m, f.work, 0), b = sq_model_layer(f.m, f.work, 1);
  assert_true(a.block_out == b.block_in && a.mixer == sq_model_mixer(f.m, 0));
  for (int r = 0; r < NROW; ++r) { /* scale 1, bias 0 at the start */
    double sum = 0;
    for (int i = 0; i < 8; ++i) sum += (double)b.mixer_in[r * 8 + i];
    assert_true(fabs(sum) < 1e-12);
  }
  free(y);
  fixture_close(&f);
}

/* ---- names and initialisation ------------------------------------------------------------------------ */
static void expect_names(const variant *v, const char *const *name, int n)
{
  fixture f;
  fixture_open(&f, v);
  const sq_param_list *l = sq_model_params(f.m);
  for (int i = 0; i < n; ++i)
    if (sq_param_find(l, name[i]) == NULL) fail_msg("no parameter %s", name[i]);
  assert_int_equal(l->n, n);
  fixture_close(&f);
}

static void parameters_have_the_published_names(void **state)
{
  (void)state;
  static const char *const classifier[] = {"encoder.word_embeddings.weight",
                                           "encoder.position_embeddings.weight",
                                           "layers.0.attention.Wqkv.weight",
                                           "layers.0.attention.Wqkv.bias",
                                           "layers.0.attention.conv1d.weight",
                                           "layers.0.attention.conv1d.bias",
                                           "layers.0.attention.out_proj.weight",
                                           "layers.0.attention.out_proj.bias",
                                           "layers.0.Wz.weight",
                                           "layers.0.Wz.bias",
                                           "layers.0.mixer.encoder.weight",
                                           "layers.0.mixer.encoder.bias",
                                           "layers.0.mixer.decoder.weight",
                                           "layers.0.mixer.decoder.bias",
                                           "layers.0.norm.weight",
                                           "layers.0.norm.bias",
                                           "norm.weight",
                                           "norm.bias",
                                           "classifier.encoder.weight",
                                           "classifier.encoder.bias",
                                           "classifier.decoder.weight",
                                           "classifier.decoder.bias"};
  static const char *const language[] = {"encoder.weight",
                                         "encoder.bias",
                                         "layers.0.attention.Wvqkn.weight",
                                         "layers.0.attention.Wvqkn.bias",
                                         "layers.0.attention.inner_attn.offset",
                                         "layers.0.attention.out_proj.weight",
                                         "layers.0.attention.out_proj.bias",
                                         "layers.0.mixer.linear.weight",
                                         "layers.0.mixer.linear.bias",
                                         "layers.0.norm.weight",
                                         "layers.0.norm.bias",
                                         "norm.weight",
                                         "norm.bias",
                                         "decoder.weight"};
  variant v = variant_of(0, "mlp", "mean");
  v.layers = 1;
  v.gate = 1;
  expect_names(&v, classifier, sizeof classifier / sizeof classifier[0]);
  v = variant_of(2, "glu", NULL);
  v.layers = 1;
  v.conv = 0;
  v.tokens = 0;
  expect_names(&v, language, sizeof language / sizeof language[0]);
}

typedef struct {
  double low, high, mean, deviation;
} spread;
static spread spread_of(const fixture *f, const char *name)
{
  const sq_param *p = sq_param_find(sq_model_params(f->m), name);
  spread s = {INFINITY, -INFINITY, 0, 0};
  assert_non_null(p);
  for (size_t i = 0; i < p->count; ++i) {
    const double x = (double)f->theta[p->offset + i];
    s.low = fmin(s.low, x);
    s.high = fmax(s.high, x);
    s.mean += x / (double)p->count;
    s.deviation += x * x / (double)p->count;
  }
  s.deviation = sqrt(s.deviation - s.mean * s.mean);
  return s;
}

/* Of n numbers the extremes are near the bounds and the deviation near bound/sqrt 3: within 12 % for 256 of
 * them. */
static void expect_uniform(const fixture *f, const char *name, double bound)
{
  const spread s = spread_of(f, name);
  if (!(-bound <= s.low && s.high <= bound && s.high > 0.8 * bound && s.low < -0.8 * bound))
    fail_msg("%s: %g .. %g", name, s.low, s.high);
  if (!(fabs(s.deviation * sqrt(3) / bound - 1) < 0.12)) fail_msg("%s: deviation %g", name, s.deviation);
}

static void initialisation_is_the_published_one(void **state)
{
  (void)state;
  fixture f;
  variant v = variant_of(0, "mlp", "mean");
  v.gate = 1;
  v.hidden = 32;
  v.mixer_dim = 24;
  fixture_open(&f, &v);
  expect_uniform(&f, "layers.1.Wz.weight", 0.1 * sqrt(6.0 / 64));
  expect_uniform(&f, "layers.0.mixer.encoder.weight", 1 / sqrt(32));
  expect_uniform(&f, "layers.0.mixer.decoder.weight", 1 / sqrt(24));
  expect_uniform(&f, "classifier.encoder.weight", 1 / sqrt(32));
  expect_uniform(&f, "layers.0.attention.Wqkv.weight", 1 / sqrt(32));
  expect_uniform(&f, "layers.0.attention.out_proj.weight", 1 / sqrt(32));
  spread s = spread_of(&f, "encoder.word_embeddings.weight");
  assert_true(fabs(s.deviation - 1) < 0.2 && fabs(s.mean) < 0.3 && s.high > 1.5);
  s = spread_of(&f, "layers.0.Wz.bias");
  assert_true(s.low == 1 && s.high == 1);
  s = spread_of(&f, "norm.weight");
  assert_true(s.low == 1 && s.high == 1);
  s = spread_of(&f, "layers.0.norm.bias");
  assert_true(s.low == 0 && s.high == 0);
  fixture_close(&f);
  v = variant_of(0, "hybrid", "mean");
  fixture_open(&f, &v);
  s = spread_of(&f, "layers.0.mixer.alpha");
  assert_true(fabs(1 / (1 + exp(-s.low)) - 0.2) < 1e-15);
  fixture_close(&f);
}

static void initialisation_depends_on_the_seed_alone(void **state)
{
  (void)state;
  fixture f;
  const variant v = variant_of(2, "mlp", "mean");
  fixture_open(&f, &v);
  sq_model_init(f.m, 11, f.grad);
  assert_memory_equal(f.theta, f.grad, f.n * sizeof *f.grad);
  sq_model_init(f.m, 12, f.grad);
  assert_true(memcmp(f.theta, f.grad, f.n * sizeof *f.grad) != 0);
  fixture_close(&f);
}

static void flops_count_the_matrix_products(void **state)
{
  (void)state;
  fixture f;
  variant v = variant_of(0, "mlp", NULL);
  static const int len[2] = {9, 4};
  v.gate = 1;
  fixture_open(&f, &v);
  const sq_mixer *m = sq_model_mixer(f.m, 0);
  const double mixers = sq_mixer_get(m)->flops(m, 2, len) + sq_mixer_get(m)->flops_wanted(m, 2, len, 5);
  /* Behind the last mixer only the 5 labelled rows count. */
  const double want = mixers + (13 + 5) * (2 * 8 * 8 + 4 * 8 * 6) + 5 * 2 * 8 * NCLASS;
  assert_true(fabs(sq_model_flops(f.m, 2, len, 5) - want) <
              1e-12 * want); /* shares of rows are no integers */
  fixture_close(&f);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */
static void expect_refused(const variant *v, int label_per_row, const char *text)
{
  sq_experiment *e = NULL;
  sq_model *m = NULL;
  sq_status st = parse_variant(v, &e);
  if (st == SQ_OK) st = sq_model_create(sq_experiment_cell(e, 0), fixture_dims(label_per_row), &m);
  assert_int_equal(st, SQ_ERR_USAGE);
  assert_null(m);
  if (strstr(sq_error_text(), text) == NULL) fail_msg("\"%s\" does not speak of %s", sq_error_text(), text);
  sq_error_clear();
  if (e != NULL) sq_experiment_destroy(&e);
}

static void impossible_configurations_are_refused(void **state)
{
  (void)state;
  variant v = variant_default();
  v.max_pos = SEQ_LEN - 1;
  expect_refused(&v, 0, "model.max_pos_embed");
  v = variant_default();
  expect_refused(&v, 1, "model.classifier");
  v.pooling = "none";
  expect_refused(&v, 0, "model.pooling");
  v.pooling = NULL;
  expect_refused(&v, 0, "model.classifier");
  v = variant_default();
  v.mixer_dim = 0;
  expect_refused(&v, 0, "model.mixer_dim");
  v = variant_default();
  v.more = ", \"dual\": true";
  expect_refused(&v, 0, "single sequences");
  v = variant_default();
  v.channel = "mpl";
  expect_refused(&v, 0, "model.mixer");
  v = variant_default();
  v.heads = 3;
  expect_refused(&v, 0, "model.num_heads");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(logits_ignore_the_future_exactly),
      cmocka_unit_test(a_sequence_alone_gives_the_same_logits),
      cmocka_unit_test(shards_add_up_to_the_batch_with_dropout_on),
      cmocka_unit_test(evaluation_equals_the_loss_of_the_logits),
      cmocka_unit_test(result_does_not_depend_on_what_the_workspace_held),
      cmocka_unit_test(layers_are_linked_and_normalised),
      cmocka_unit_test(parameters_have_the_published_names),
      cmocka_unit_test(initialisation_is_the_published_one),
      cmocka_unit_test(initialisation_depends_on_the_seed_alone),
      cmocka_unit_test(flops_count_the_matrix_products),
      cmocka_unit_test(impossible_configurations_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
