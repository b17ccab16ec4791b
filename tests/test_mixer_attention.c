/* tests/test_mixer_attention.c: forward and backward of the attention mixers against definitions. */
#include "mixer_fixture.h"

static const int ragged[] = {200, 65, 1, 64};

/* Offsets of 4 .. 14 make norm attention's outputs as small as exp(-14); near zero they test more. */
static void tame_offsets(fixture *f, int H)
{
  sq_real *offset = tensor(f, f->theta, "inner_attn.offset");
  if (offset) draw(9, (size_t)H, 0.3, offset);
}

/* ---- the slow way: dense, one element at a time, float64 --------------------------------------------- */

typedef struct {
  int D, H, dh, dv, T, C;
  double *p; /* (T,C) projected, convolved */
  int q, k, v, n;
} dense;

static double silu(double x)
{
  return x / (1 + exp(-x));
}

static void dense_project(const fixture *f, const sq_real *u, dense *d, double *raw)
{
  const int norm = tensor(f, f->theta, "Wvqkn.weight") != NULL;
  const sq_real *W = tensor(f, f->theta, norm ? "Wvqkn.weight" : "Wqkv.weight");
  const sq_real *bias = tensor(f, f->theta, norm ? "Wvqkn.bias" : "Wqkv.bias");
  const sq_real *cw = tensor(f, f->theta, "conv1d.weight"), *cb = tensor(f, f->theta, "conv1d.bias");
  const int dqk = d->dh * d->H, K = cw ? sq_config_int(sq_experiment_cell(f->e, 0), "model.dim_conv") : 0;
  const int partial =
      strcmp(sq_config_string(sq_experiment_cell(f->e, 0), "model.conv_type"), "partial") == 0;
  d->q = norm ? d->D : 0;
  d->k = d->q + dqk;
  d->v = norm ? 0 : 2 * dqk;
  d->n = d->D + 2 * dqk;
  for (int t = 0; t < d->T; ++t)
    for (int c = 0; c < d->C; ++c) {
      double sum = (double)bias[c];
      for (int j = 0; j < d->D; ++j) sum += (double)W[c * d->D + j] * (double)u[t * d->D + j];
      raw[t * d->C + c] = sum;
    }
  const int first = partial ? d->q : 0, count = partial ? 2 * dqk : 2 * dqk + d->D;
  for (int t = 0; t < d->T; ++t)
    for (int c = 0; c < d->C; ++c) {
      d->p[t * d->C + c] = raw[t * d->C + c];
      if (K == 0 || c < first || c >= first + count) continue;
      double sum = (double)cb[c - first];
      for (int j = 0; j < K; ++j)
        if (t - (K - 1) + j >= 0) sum += (double)cw[(c - first) * K + j] * raw[(t - (K - 1) + j) * d->C + c];
      d->p[t * d->C + c] = silu(sum);
    }
}

static double phi(double x)
{
  return x > 0 ? x + 1 : exp(x);
}

static double dense_nu(const char *f, double x)
{
  if (strcmp(f, "exp") == 0) return exp(x);
  if (strcmp(f, "elu") == 0) return x > 0 ? x : exp(x) - 1;
  if (strcmp(f, "softplus") == 0) return x > 20 ? x : log(1 + exp(x));
  return 1 / (1 + exp(-x));
}

static double dense_score(const dense *d, int h, int i, int j, int with_phi)
{
  double sum = 0;
  for (int c = 0; c < d->dh; ++c) {
    const double q = d->p[i * d->C + d->q + h * d->dh + c], k = d->p[j * d->C + d->k + h * d->dh + c];
    sum += with_phi ? phi(q) * phi(k) : q * k;
  }
  return sum;
}

/* Row i of a head's matrix. */
static void dense_row(const fixture *f, const dense *d, int h, int i, double *w)
{
  const sq_config *c = sq_experiment_cell(f->e, 0);
  const char *name = f->ops->name;
  double sum = 0;
  if (strcmp(name, "norm-attention") == 0) {
    const int elu = strcmp(sq_config_string(c, "model.approx_fn"), "elu") == 0;
    const double s = sq_config_bool(c, "model.scale_B") ? 1 / sqrt(d->dh) : 1;
    const sq_real *offset = tensor(f, f->theta, "inner_attn.offset");
    const double nu = dense_nu(sq_config_string(c, "model.norm_fn"),
                               d->p[i * d->C + d->n + h] + (offset ? (double)offset[h] : 0));
    for (int j = 0; j <= i; ++j) w[j] = exp(-nu) * s * dense_score(d, h, i, j, elu);
    return;
  }
  const int softmax = strcmp(name, "sm-attention") == 0;
  for (int j = 0; j <= i; ++j) {
    w[j] = softmax ? exp(dense_score(d, h, i, j, 0) / sqrt(d->dh)) : dense_score(d, h, i, j, 1);
    sum += w[j];
  }
  for (int j = 0; j <= i; ++j) w[j] /= sum;
}

static void dense_forward(const fixture *f, int b, int H, int state_dim, double *y)
{
  const int D = f->dims.D, T = f->off[b + 1] - f->off[b];
  dense d = {.D = D, .H = H, .dh = state_dim / H, .dv = D / H, .T = T, .C = D + 2 * state_dim};
  d.C += tensor(f, f->theta, "Wvqkn.weight") ? H : 0;
  d.p = sq_calloc((size_t)(T * d.C), sizeof(double), "p");
  double *raw = sq_calloc((size_t)(T * d.C), sizeof(double), "raw"),
         *w = sq_calloc((size_t)T, sizeof(double), "w");
  double *o = sq_calloc((size_t)(T * D), sizeof(double), "o");
  const sq_real *W = tensor(f, f->theta, "out_proj.weight"), *bias = tensor(f, f->theta, "out_proj.bias");
  dense_project(f, f->u + f->off[b] * D, &d, raw);
  for (int h = 0; h < H; ++h)
    for (int i = 0; i < T; ++i) {
      dense_row(f, &d, h, i, w);
      for (int j = 0; j <= i; ++j)
        for (int c = 0; c < d.dv; ++c) o[i * D + h * d.dv + c] += w[j] * d.p[j * d.C + d.v + h * d.dv + c];
    }
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < D; ++c) {
      y[t * D + c] = (double)bias[c];
      for (int j = 0; j < D; ++j) y[t * D + c] += (double)W[c * D + j] * o[t * D + j];
    }
  free(o);
  free(w);
  free(raw);
  free(d.p);
}

/* Sums of at most T terms of both signs, 200 here; 1e2 eps of the largest |y| was never exceeded by more than
 * a tenth. */
static void expect_dense(fixture *f, int H, int state_dim)
{
  const int D = f->dims.D;
  fixture_forward(f);
  for (int b = 0; b < f->rows.nseq; ++b) {
    const int n = (f->off[b + 1] - f->off[b]) * D;
    double *y = sq_calloc((size_t)n, sizeof *y, "y"), top = 0;
    dense_forward(f, b, H, state_dim, y);
    for (int i = 0; i < n; ++i) top = fmax(top, fabs(y[i]));
    for (int i = 0; i < n; ++i) EXPECT_NEAR(f->text, f->y[f->off[b] * D + i], y[i], 1e2 * SQ_REAL_EPS * top);
    free(y);
  }
}

static void forward_equals_the_dense_definition_for_all_options(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); ++i) {
    fixture f;
    fixture_make(&f, text, 12, 200, 4, ragged);
    tame_offsets(&f, 2);
    expect_dense(&f, 2, 8);
    fixture_free(&f);
  }
}

static void forward_equals_the_dense_definition_at_all_lengths(void **state)
{
  static const int length[] = {1, 2, 63, 64, 65, 127, 128, 129, 192, 200}, heads[] = {1, 4};
  static const int sample[] = {0, 1, 2, 13, 18, 70};
  char text[400];
  (void)state;
  for (size_t s = 0; s < sizeof sample / sizeof *sample; ++s)
    for (size_t t = 0; t < sizeof length / sizeof *length; ++t)
      for (int k = 0; k < 4; ++k) {
        const int H = heads[k % 2], D = 16, state_dim = k / 2 ? 16 : 20,
                  len[] = {length[t], length[t] / 2 + 1};
        fixture f;
        assert_true(variant(sample[s], state_dim, H, text, sizeof text));
        fixture_make(&f, text, D, k < 2 ? length[t] : 300, 2, len); /* seq_len decides the size of chunks */
        tame_offsets(&f, H);
        expect_dense(&f, H, state_dim);
        fixture_free(&f);
      }
}

/* ---- gradients --------------------------------------------------------------------------------------- */

#ifdef SQ_DOUBLE
static double weighted_output(fixture *f, const sq_real *w,
                              double *size /* sum of |terms|: what rounding scales with */)
{
  double sum = 0;
  *size = 0;
  fixture_forward(f);
  for (int i = 0; i < f->rows.nrow * f->dims.D; ++i) {
    sum += w[i] * f->y[i];
    *size += fabs(w[i] * f->y[i]);
  }
  return sum;
}

/* The gradient g of L = w.y in x, n elements, along a random direction v: central differences have the errors
   h^2 L''' and eps sum|w y|/h.  A direction moves 12 weights of each channel at once, so L''' is hundreds; h
   is a quarter of eps^(1/3), which leaves rounding below it, and 1e3 eps^(2/3) is allowed.  Scale: |g v|, the
   size of g.v for random signs. */
static void expect_gradient(fixture *f, const char *label, const sq_real *w, sq_real *x, const sq_real *g,
                            size_t n)
{
  const double h = cbrt(DBL_EPSILON) / 4, allowed = 1e3 * pow(DBL_EPSILON, 2.0 / 3);
  sq_real *v = sq_calloc(n, sizeof *v, "v"), *x0 = sq_calloc(n, sizeof *x0, "x0");
  double along = 0, size = 0, terms = 0;
  draw(33, n, 1, v);
  memcpy(x0, x, n * sizeof *x);
  for (size_t i = 0; i < n; ++i) {
    along += g[i] * v[i];
    size += g[i] * v[i] * g[i] * v[i];
  }
  for (size_t i = 0; i < n; ++i) x[i] = x0[i] + h * v[i];
  const double up = weighted_output(f, w, &terms);
  for (size_t i = 0; i < n; ++i) x[i] = x0[i] - h * v[i];
  const double down = weighted_output(f, w, &terms);
  memcpy(x, x0, n * sizeof *x);
  EXPECT_NEAR(label, along, (up - down) / (2 * h), allowed * sqrt(size) + DBL_EPSILON * terms / h);
  if (!(size > 0)) fail_msg("%s: the gradient is zero", label);
  free(x0);
  free(v);
}

static void expect_all_gradients(fixture *f)
{
  const size_t n = (size_t)(f->rows.nrow * f->dims.D);
  sq_real *w = sq_calloc(n, sizeof *w, "w"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *g = sq_calloc(f->params.total, sizeof *g, "dtheta");
  char label[800];
  draw(2, n, 1, w);
  for (size_t i = 0; i < f->params.total; ++i) g[i] = 0.25; /* added to, not overwritten */
  fixture_forward(f);
  fixture_backward(f, w, du, g);
  for (size_t i = 0; i < f->params.total; ++i) g[i] -= 0.25;
  for (int i = 0; i < f->params.n; ++i) {
    const sq_param *p = &f->params.v[i];
    sq_format(label, sizeof label, "%s in %s", p->name, f->text);
    expect_gradient(f, label, w, f->theta + p->offset, g + p->offset, p->count);
  }
  sq_format(label, sizeof label, "u in %s", f->text);
  expect_gradient(f, label, w, f->u, du, n);
  free(g);
  free(du);
  free(w);
}

static void gradients_match_central_differences_for_all_options(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); ++i) {
    fixture f;
    fixture_make(&f, text, 12, 200, 4, ragged);
    f.pass.train = 1; /* dropout where the variant has it */
    tame_offsets(&f, 2);
    expect_all_gradients(&f);
    fixture_free(&f);
  }
}

static void gradients_match_central_differences_in_a_single_chunk(void **state)
{
  static const int len[] = {3, 70, 1};
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 4, 4, text, sizeof text); i += i < 12 ? 1 : 7) {
    fixture f;
    fixture_make(&f, text, 8, 70, 3, len);
    f.pass.train = 1;
    tame_offsets(&f, 4);
    expect_all_gradients(&f);
    fixture_free(&f);
  }
}
#endif

/* ---- causality --------------------------------------------------------------------------------------- */

static void output_ignores_the_future_exactly(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); i += i < 12 ? 1 : 5)
    for (int t = 30; t < 200; t += 50) {
      fixture f;
      fixture_make(&f, text, 12, 200, 4, ragged);
      tame_offsets(&f, 2);
      const size_t n = (size_t)(f.rows.nrow * 12) * sizeof(sq_real);
      sq_real *before = malloc(n);
      f.pass.train = 1;
      fixture_forward(&f);
      memcpy(before, f.y, n);
      draw(4, (size_t)((200 - t) * 12), 1, f.u + t * 12);
      fixture_forward(&f);
      assert_memory_equal(before, f.y, (size_t)(t * 12) * sizeof(sq_real));
      assert_memory_equal(before + 200 * 12, f.y + 200 * 12,
                          n - 200 * 12 * sizeof(sq_real)); /* other sequences */
      assert_memory_not_equal(before + t * 12, f.y + t * 12, (size_t)((200 - t) * 12) * sizeof(sq_real));
      free(before);
      fixture_free(&f);
    }
}

static void gradient_reaches_the_past_of_its_own_sequence_only(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); i += i < 12 ? 1 : 5) {
    fixture f;
    fixture_make(&f, text, 12, 200, 4, ragged);
    tame_offsets(&f, 2);
    const size_t n = (size_t)(f.rows.nrow * 12);
    sq_real *dy = sq_calloc(n, sizeof *dy, "dy"), *du = sq_calloc(n, sizeof *du, "du");
    sq_real *g = sq_calloc(f.params.total, sizeof *g, "g");
    const int r = 90;
    draw(5, 12, 1, dy + r * 12);
    fixture_forward(&f);
    fixture_backward(&f, dy, du, g);
    double past = 0;
    for (int k = 0; k < (r + 1) * 12; ++k) past += fabs((double)du[k]);
    assert_true(past > 0);
    for (size_t k = (size_t)(r + 1) * 12; k < n; ++k) EXPECT_NEAR(f.text, du[k], 0, 0);
    free(g);
    free(du);
    free(dy);
    fixture_free(&f);
  }
}

/* Not bitwise: products of other shapes round differently. */
static void appended_steps_change_nothing_before_them(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); i += i < 12 ? 1 : 5)
    for (int T = 63; T < 200; T += 33) {
      const int longer[] = {200, 5}, shorter[] = {T, 5};
      fixture f, g;
      double top = 0;
      fixture_make(&f, text, 12, 200, 2, longer);
      fixture_make(&g, text, 12, 200, 2, shorter);
      tame_offsets(&f, 2);
      tame_offsets(&g, 2);
      f.pass.train = g.pass.train = 1;
      fixture_forward(&f);
      fixture_forward(&g);
      for (int k = 0; k < T * 12; ++k) top = fmax(top, fabs((double)f.y[k]));
      for (int k = 0; k < T * 12; ++k) EXPECT_NEAR(f.text, g.y[k], f.y[k], 1e2 * SQ_REAL_EPS * top);
      fixture_free(&f);
      fixture_free(&g);
    }
}

static void the_same_call_gives_the_same_bits(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); i += i < 12 ? 1 : 11) {
    fixture f, g;
    fixture_make(&f, text, 12, 200, 4, ragged);
    fixture_make(&g, text, 12, 200, 4, ragged);
    f.pass.train = g.pass.train = 1;
    fixture_forward(&f);
    memset(g.scratch, 0x3c, g.ops->scratch_bytes(g.m)); /* whatever was there before */
    memset(g.tape, 0x3c, g.ops->tape_bytes(g.m));
    fixture_forward(&g);
    assert_memory_equal(f.y, g.y, (size_t)(f.rows.nrow * 12) * sizeof(sq_real));
    fixture_free(&f);
    fixture_free(&g);
  }
}

/* ---- dropout ----------------------------------------------------------------------------------------- */

/* Weights that are kept with probability 1-rate and scaled by 1/(1-rate) keep their mean: with values that
   are all 1, an identity out_proj and no bias, y of softmax attention averages to 1.  Weights here are nearly
   uniform over i+1 steps, so row i has variance rate/((1-rate)(i+1)) within a factor of 2; five standard
   deviations of the mean are allowed. */
static void dropout_of_softmax_weights_keeps_the_mean_and_differs_between_heads(void **state)
{
  static const int len[] = {200};
  fixture f;
  const int D = 4;
  double sum = 0, variance = 0;
  int differ = 0;
  (void)state;
  fixture_make(&f, "\"attention_fn\":\"sm-attention\",\"state_dim\":4,\"num_heads\":2,\"att_dropout\":0.5", D,
               200, 1, len);
  for (int i = 0; i < f.params.n; ++i)
    for (size_t k = 0; k < f.params.v[i].count; ++k) f.theta[f.params.v[i].offset + k] *= (sq_real)0.1;
  sq_real *W = tensor(&f, f.theta, "Wqkv.weight"), *b = tensor(&f, f.theta, "Wqkv.bias");
  sq_real *out = tensor(&f, f.theta, "out_proj.weight"), *ob = tensor(&f, f.theta, "out_proj.bias");
  for (int c = 0; c < D; ++c) {
    for (int j = 0; j < D; ++j) {
      W[(8 + c) * D + j] = 0;
      out[c * D + j] = c == j;
    }
    b[8 + c] = 1;
    ob[c] = 0;
  }
  f.pass.train = 1;
  fixture_forward(&f);
  for (int t = 0; t < 200; ++t) {
    EXPECT_NEAR("columns of a head share the mask", f.y[t * D], f.y[t * D + 1], 20 * SQ_REAL_EPS);
    differ += fabs((double)(f.y[t * D] - f.y[t * D + 2])) > 1e-3;
    sum += 0.5 * (double)(f.y[t * D] + f.y[t * D + 2]);
    variance += 0.5 * 2.0 / (t + 1);
  }
  EXPECT_NEAR("mean of dropped weights", sum / 200, 1, 5 * sqrt(variance) / 200);
  assert_true(differ > 150);
  f.pass.train = 0;
  fixture_forward(&f);
  for (int t = 0; t < 200 * D; ++t) EXPECT_NEAR("no dropout in evaluation", f.y[t], 1, 50 * SQ_REAL_EPS);
  fixture_free(&f);
}

/* ---- underflow --------------------------------------------------------------------------------------- */

static void expect_dead(const char *norm_fn, double offset)
{
  char text[300];
  fixture f;
  sq_format(text, sizeof text,
            "\"attention_fn\":\"norm-attention\",\"state_dim\":8,\"num_heads\":2,\"norm_fn\":\"%s\","
            "\"offset\":true,"
            "\"scale_B\":true,\"dim_conv\":4",
            norm_fn);
  fixture_make(&f, text, 12, 200, 4, ragged);
  const size_t n = (size_t)(f.rows.nrow * 12);
  sq_real *dy = sq_calloc(n, sizeof *dy, "dy"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *g = sq_calloc(f.params.total, sizeof *g, "g");
  for (int h = 0; h < 2; ++h) tensor(&f, f.theta, "inner_attn.offset")[h] = (sq_real)offset;
  draw(6, n, 1, dy);
  fixture_forward(&f);
  fixture_backward(&f, dy, du, g);
  for (size_t i = 0; i < n; ++i) {
    EXPECT_NEAR("y is the bias", f.y[i], tensor(&f, f.theta, "out_proj.bias")[i % 12], 0);
    EXPECT_NEAR("du", du[i], 0, 0);
  }
  for (int i = 0; i < f.params.n; ++i)
    for (size_t k = 0; k < f.params.v[i].count; ++k)
      if (strstr(f.params.v[i].name, "out_proj.bias") == NULL)
        EXPECT_NEAR(f.params.v[i].name, g[f.params.v[i].offset + k], 0, 0);
  free(g);
  free(du);
  free(dy);
  fixture_free(&f);
}

static void a_normaliser_that_underflows_gives_zeros_and_no_nan(void **state)
{
  (void)state;
  expect_dead("exp", 9);    /* exp(-exp(9)) = 0 */
  expect_dead("exp", 100);  /* nu is infinite in float32 */
  expect_dead("exp", 1000); /* and in float64 */
  expect_dead("softplus", 1e4);
  expect_dead("elu", 1e4);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forward_equals_the_dense_definition_for_all_options),
      cmocka_unit_test(forward_equals_the_dense_definition_at_all_lengths),
#ifdef SQ_DOUBLE
      cmocka_unit_test(gradients_match_central_differences_for_all_options),
      cmocka_unit_test(gradients_match_central_differences_in_a_single_chunk),
#endif
      cmocka_unit_test(output_ignores_the_future_exactly),
      cmocka_unit_test(gradient_reaches_the_past_of_its_own_sequence_only),
      cmocka_unit_test(appended_steps_change_nothing_before_them),
      cmocka_unit_test(the_same_call_gives_the_same_bits),
      cmocka_unit_test(dropout_of_softmax_weights_keeps_the_mean_and_differs_between_heads),
      cmocka_unit_test(a_normaliser_that_underflows_gives_zeros_and_no_nan),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
