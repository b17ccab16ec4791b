/* tests/test_mixer_factors.c: the attention mixers as linear dynamical systems, protocol `published`, keys
 * and initial values. */
#include "mixer_fixture.h"

static const int ragged[] = {150, 65, 1, 2};

/* Relative to the largest output of a layer: 1e-12 in float64.  Below the normal numbers only absolute errors
 * make sense. */
#define RELATIVE (4500 * SQ_REAL_EPS)
#ifdef SQ_DOUBLE
#define SUBNORMAL (16 * DBL_MIN)
#else
#define SUBNORMAL (16 * (double)FLT_MIN)
#endif

typedef struct {
  sq_factors f;
  double *memory;
} factors;

static void factors_take(fixture *x, int b, int h, const int *perm, factors *out)
{
  sq_factors *f = &out->f;
  memset(f, 0, sizeof *f);
  x->ops->factor_dims(x->m, f);
  const size_t T = (size_t)(x->off[b + 1] - x->off[b]), n = (size_t)f->n, dv = (size_t)f->dv;
  double *p = out->memory = sq_calloc(T * (3 + 2 * n + 2 * dv), sizeof *p, "factors");
  f->log_lambda = p;
  f->log_b = p + T;
  f->log_c = p + 2 * T;
  f->b = p + 3 * T;
  f->c = f->b + T * n;
  f->v = f->c + T * n;
  f->y = f->v + T * dv;
  x->ops->factors(x->m, x->theta, &x->rows, x->tape, b, h, perm, f);
  assert_int_equal(f->T, (int)T);
}

/* Row i of M as the header defines it. */
static void matrix_row(const sq_factors *f, int i, double *M)
{
  double sum = 0;
  for (int j = i; j >= 0; --j) {
    double kappa = 0;
    for (int d = 0; d < f->n; ++d) kappa += f->c[i * f->n + d] * f->b[j * f->n + d];
    const double log_weight = f->log_c[i] + sum + f->log_b[j];
    M[j] = f->exponential ? exp(log_weight + kappa) : exp(log_weight) * kappa;
    sum += f->log_lambda[j];
  }
}

/* Outputs of the heads from the factors against the tape's, and through output() against y. */
static void expect_realisation(fixture *x, int b, int H)
{
  const int D = x->dims.D, T = x->off[b + 1] - x->off[b];
  double *heads = sq_calloc((size_t)(T * D), sizeof *heads, "heads"),
         *y = sq_calloc((size_t)(T * D), sizeof *y, "y");
  double *M = sq_calloc((size_t)T, sizeof *M, "M"), top = 0, top_y = 0;
  for (int h = 0; h < H; ++h) {
    factors a;
    factors_take(x, b, h, NULL, &a);
    const int dv = a.f.dv;
    for (int i = 0; i < T * dv; ++i) top = fmax(top, fabs(a.f.y[i]));
    for (int i = 0; i < T; ++i) {
      matrix_row(&a.f, i, M);
      for (int c = 0; c < dv; ++c) {
        double sum = 0;
        for (int j = 0; j <= i; ++j) sum += M[j] * a.f.v[j * dv + c];
        EXPECT_NEAR(x->text, sum, a.f.y[i * dv + c], RELATIVE * top + SUBNORMAL);
        heads[i * D + h * dv + c] = sum;
      }
    }
    assert_true(a.f.log_lambda[0] == 0 && a.f.first == 1);
    free(a.memory);
  }
  x->ops->output(x->m, x->theta, T, heads, y);
  for (int i = 0; i < T * D; ++i) top_y = fmax(top_y, fabs(y[i]));
  for (int i = 0; i < T * D; ++i) EXPECT_NEAR(x->text, y[i], x->y[x->off[b] * D + i], RELATIVE * top_y);
  free(M);
  free(y);
  free(heads);
}

static void factors_reproduce_the_outputs_for_all_options(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); ++i) {
    fixture f;
    fixture_make(&f, text, 12, 150, 4, ragged);
    assert_int_equal(f.ops->heads(f.m), 2);
    fixture_forward(&f);
    for (int b = 0; b < 4; ++b) expect_realisation(&f, b, 2);
    fixture_free(&f);
  }
}

static void identity_permutation_is_no_permutation_and_missing_arrays_are_not_wanted(void **state)
{
  char text[400];
  int same[150];
  (void)state;
  for (int i = 0; i < 150; ++i) same[i] = i;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); i += i < 12 ? 1 : 13) {
    fixture x;
    factors a, b;
    fixture_make(&x, text, 12, 150, 4, ragged);
    fixture_forward(&x);
    factors_take(&x, 0, 1, NULL, &a);
    factors_take(&x, 0, 1, same, &b);
    assert_memory_equal(a.memory, b.memory, 150 * (size_t)(3 + 2 * a.f.n + 2 * a.f.dv) * sizeof(double));
    sq_factors only = {.log_lambda = b.f.c};
    x.ops->factors(x.m, x.theta, &x.rows, x.tape, 0, 1, NULL, &only);
    assert_memory_equal(a.f.log_lambda, only.log_lambda, 150 * sizeof(double));
    sq_factors none = {0};
    x.ops->factors(x.m, x.theta, &x.rows, x.tape, 0, 1, NULL, &none);
    free(a.memory);
    free(b.memory);
    fixture_free(&x);
  }
}

/* The null model is a mixer of the same kind: softmax and linear rows sum to 1, and eigenvalues of norm
   attention telescope between the nu of the places that were swapped in. */
static void a_permuted_sequence_is_normalised_again(void **state)
{
  char text[400];
  int perm[150], inverse_last = 0;
  (void)state;
  for (int i = 0; i < 150; ++i) perm[i] = (i * 37 + 11) % 150;
  for (int i = 0; i < 150; ++i)
    if (perm[i] == 149) inverse_last = i;
  for (int i = 0; i < 20; ++i) {
    fixture x;
    factors a, p;
    double M[150];
    assert_true(variant(i, 8, 2, text, sizeof text));
    fixture_make(&x, text, 12, 150, 4, ragged);
    fixture_forward(&x);
    factors_take(&x, 0, 1, NULL, &a);
    factors_take(&x, 0, 1, perm, &p);
    for (int t = 0; t < 150; ++t) {
      for (int d = 0; d < a.f.n; ++d) EXPECT_NEAR("c", p.f.c[t * a.f.n + d], a.f.c[perm[t] * a.f.n + d], 0);
      for (int d = 0; d < a.f.dv; ++d)
        EXPECT_NEAR("v", p.f.v[t * a.f.dv + d], a.f.v[perm[t] * a.f.dv + d], 0);
      double sum = 0;
      matrix_row(&p.f, t, M);
      for (int j = 0; j <= t; ++j) sum += M[j];
      if (strcmp(x.ops->name, "norm-attention") != 0)
        EXPECT_NEAR(x.text, sum, 1, 1e-12);
      else
        EXPECT_NEAR(x.text, p.f.log_b[t], a.f.log_b[perm[t]], 0);
    }
    assert_true(inverse_last != 149);
    free(a.memory);
    free(p.memory);
    fixture_free(&x);
  }
}

static void equal_scores_give_lambda_i_over_i_plus_1(void **state)
{
  fixture x;
  factors a;
  (void)state;
  fixture_make(&x, "\"attention_fn\":\"sm-attention\",\"state_dim\":8,\"num_heads\":2", 12, 150, 4, ragged);
  sq_real *W = tensor(&x, x.theta, "Wqkv.weight"), *b = tensor(&x, x.theta, "Wqkv.bias");
  for (int i = 0; i < 8 * 12; ++i) W[i] = 0; /* q = 0 */
  for (int i = 0; i < 8; ++i) b[i] = 0;
  fixture_forward(&x);
  factors_take(&x, 0, 1, NULL, &a);
  for (int i = 1; i < 150; ++i) EXPECT_NEAR("log lambda", a.f.log_lambda[i], log((double)i / (i + 1)), 1e-14);
  free(a.memory);
  fixture_free(&x);
}

/* lambda and exp(-nu) underflow long before their logarithms: exp(9) = 8103. */
static void factors_stay_finite_where_eigenvalues_underflow(void **state)
{
  static const double offset[] = {9, 1000};
  (void)state;
  for (int k = 0; k < 2; ++k) {
    fixture x;
    factors a;
    double smallest = 0;
    fixture_make(&x,
                 "\"attention_fn\":\"norm-attention\",\"norm_fn\":\"exp\",\"offset\":true,\"scale_B\":true,"
                 "\"state_dim\":8,\"num_heads\":2",
                 12, 150, 4, ragged);
    tensor(&x, x.theta, "inner_attn.offset")[1] = (sq_real)offset[k];
    fixture_forward(&x);
    factors_take(&x, 0, 1, NULL, &a);
    for (int i = 0; i < 150; ++i) {
      assert_true(isfinite(a.f.log_lambda[i]) && isfinite(a.f.log_b[i]));
      smallest = fmin(smallest, a.f.log_lambda[i]);
      if (k == 0) assert_true(a.f.log_b[i] < -800);
    }
    if (k == 0) assert_true(exp(smallest) == 0);
    free(a.memory);
    fixture_free(&x);
  }
}

/* ---- protocol `published`, written down a second time from its description --------------------------- */

static double published_f(const char *f, double x)
{
  if (strcmp(f, "exp") == 0) return exp(x);
  if (strcmp(f, "elu") == 0) return x > 0 ? x : exp(x) - 1;
  if (strcmp(f, "softplus") == 0) return x > 20 ? x : log(1 + exp(x));
  return 1 / (1 + exp(-x));
}

/* nu_i and m_i (0 but for softmax) of head h from projected channels p (T,C); lambda_i = nu_(i-1)/nu_i
 * exp(m_(i-1)-m_i) */
static void published_normaliser(const fixture *x, const double *p, int T, int C, int dqk, int H, int h,
                                 int i, double *nu, double *m)
{
  const int D = x->dims.D, dh = dqk / H;
  *nu = *m = 0;
  if (strcmp(x->ops->name, "norm-attention") == 0) {
    const sq_real *offset = tensor(x, x->theta, "inner_attn.offset");
    const char *f = sq_config_string(sq_experiment_cell(x->e, 0), "model.norm_fn");
    const double r = exp(-published_f(f, p[i * C + D + 2 * dqk + h] + (offset ? offset[h] : 0)));
    *nu = 1 / (r == 0 ? 2e-23 : r);
    return;
  }
  const int softmax = strcmp(x->ops->name, "sm-attention") == 0;
  double score[256] = {0};
  for (int j = 0; j <= i; ++j)
    for (int d = 0; d < dh; ++d) {
      const double q = p[i * C + h * dh + d], k = p[j * C + dqk + h * dh + d];
      score[j] += softmax ? q * k : (q > 0 ? q + 1 : exp(q)) * (k > 0 ? k + 1 : exp(k));
    }
  if (!softmax) {
    for (int j = 0; j <= i; ++j) *nu += score[j];
    return;
  }
  *m = score[0];
  for (int j = 0; j < T; ++j) *m = fmax(*m, score[j]); /* the zeros above the diagonal too */
  for (int j = 0; j < T; ++j) *nu += j <= i ? exp(score[j] - *m) : 1;
}

static void expect_published(fixture *x, int b, int dqk, int H)
{
  const int D = x->dims.D, T = x->off[b + 1] - x->off[b], norm = tensor(x, x->theta, "Wvqkn.weight") != NULL;
  const int C = D + 2 * dqk + (norm ? H : 0);
  const sq_real *W = tensor(x, x->theta, norm ? "Wvqkn.weight" : "Wqkv.weight"),
                *bias = tensor(x, x->theta, norm ? "Wvqkn.bias" : "Wqkv.bias");
  const size_t bytes = x->ops->published_scratch_bytes(x->m);
  unsigned char *scratch = guarded(bytes);
  double *p = sq_calloc((size_t)(T * C), sizeof *p, "p"),
         *log_lambda = sq_calloc((size_t)(T * H), sizeof *p, "lambda");
  double nu0, m0, nu, m;
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c) {
      p[t * C + c] = (double)bias[c];
      for (int j = 0; j < D; ++j)
        p[t * C + c] += (double)W[c * D + j] * (double)x->u[(x->off[b] + t) * D + j];
    }
  x->ops->published(x->m, x->theta, &x->rows, x->u, b, log_lambda, scratch);
  expect_guard("published scratch", scratch, bytes);
  for (int h = 0; h < H; ++h) {
    assert_true(isnan(log_lambda[h]));
    published_normaliser(x, p, T, C, dqk, H, h, 0, &nu0, &m0);
    for (int i = 1; i < T; ++i, nu0 = nu, m0 = m) {
      published_normaliser(x, p, T, C, dqk, H, h, i, &nu, &m);
      const double expected = log(nu0 / nu * exp(m0 - m));
      /* rounding of scores and of f: 1e3 eps for the size of either */
      const double size = 1 + fabs(m) + fabs(m0) + fabs(log(nu)) + fabs(log(nu0));
      EXPECT_NEAR(x->text, log_lambda[i * H + h], expected, 1e3 * SQ_REAL_EPS * size);
    }
  }
  free(log_lambda);
  free(p);
  free(scratch);
}

static void published_protocol_follows_its_description(void **state)
{
  char text[400];
  (void)state;
  for (int i = 0; variant(i, 8, 2, text, sizeof text); ++i) {
    fixture x;
    fixture_make(&x, text, 12, 150, 4, ragged);
    sq_real *offset = tensor(&x, x.theta, "inner_attn.offset");
    for (int h = 0; offset && h < 2; ++h)
      offset[h] = (sq_real)(h - 1); /* r far from underflow, where precisions part */
    const int scores = strcmp(x.ops->name, "norm-attention") != 0;
    for (size_t k = 0; scores && k < (size_t)(x.rows.nrow * 12); ++k) x.u[k] *= 3; /* of several units */
    for (int b = 0; b < 4; ++b) expect_published(&x, b, 8, 2);
    fixture_free(&x);
  }
}

/* All r are 0 and replaced by the same 2e-23: eigenvalues of exactly 1. */
static void published_eigenvalues_of_a_dead_layer_are_one(void **state)
{
  fixture x;
  double log_lambda[150 * 2];
  (void)state;
  fixture_make(&x,
               "\"attention_fn\":\"norm-attention\",\"norm_fn\":\"exp\",\"offset\":true,\"scale_B\":true,"
               "\"state_dim\":8,"
               "\"num_heads\":2",
               12, 150, 4, ragged);
  for (int h = 0; h < 2; ++h) tensor(&x, x.theta, "inner_attn.offset")[h] = 9;
  unsigned char *scratch = guarded(x.ops->published_scratch_bytes(x.m));
  x.ops->published(x.m, x.theta, &x.rows, x.u, 0, log_lambda, scratch);
  for (int i = 2; i < 300; ++i) EXPECT_NEAR("log lambda", log_lambda[i], 0, 0);
  free(scratch);
  fixture_free(&x);
}

/* ELU(-40) + 1 is 0 in either precision: all normalisers become 2e-23, and the eigenvalues 1 instead of
 * i/(i+1). */
static void published_normalisers_of_zero_are_replaced(void **state)
{
  fixture x;
  double log_lambda[150 * 2];
  (void)state;
  fixture_make(&x, "\"attention_fn\":\"lin-attention\",\"state_dim\":8,\"num_heads\":2", 12, 150, 4, ragged);
  sq_real *W = tensor(&x, x.theta, "Wqkv.weight"), *bias = tensor(&x, x.theta, "Wqkv.bias");
  for (int i = 0; i < 16 * 12; ++i) W[i] = 0;
  for (int i = 0; i < 16; ++i) bias[i] = -40;
  unsigned char *scratch = guarded(x.ops->published_scratch_bytes(x.m));
  x.ops->published(x.m, x.theta, &x.rows, x.u, 0, log_lambda, scratch);
  for (int i = 2; i < 300; ++i) EXPECT_NEAR("log lambda", log_lambda[i], 0, 0);
  free(scratch);
  fixture_free(&x);
}

/* ---- keys, names, initial values --------------------------------------------------------------------- */

static void expect_refusal(const char *model, const char *needle)
{
  char text[400];
  sq_experiment *e = NULL;
  sq_format(text, sizeof text, "{\"model\":{\"layer\":\"transformer\",\"hidden_dim\":128,%s}}", model);
  sq_error_clear();
  assert_int_equal(sq_experiment_parse(fixture_schema(), text, "test", &e), SQ_ERR_USAGE);
  if (strstr(sq_error_text(), needle) == NULL)
    fail_msg("'%s' does not contain '%s'", sq_error_text(), needle);
  sq_error_clear();
}

static void configurations_that_cannot_be_built_are_refused_with_the_reason(void **state)
{
  (void)state;
  expect_refusal("\"attention_fn\":\"sm-attention\",\"state_dim\":128,\"num_heads\":3",
                 "model.num_heads: 3 does not divide model.hidden_dim 128");
  expect_refusal("\"attention_fn\":\"lin-attention\",\"state_dim\":6,\"num_heads\":4",
                 "model.num_heads: 4 does not divide model.state_dim 6");
  expect_refusal("\"attention_fn\":\"sm-attention\",\"state_dim\":128,\"num_heads\":1,\"dim_conv\":65",
                 "model.dim_conv");
  expect_refusal("\"attention_fn\":\"sm-attention\",\"state_dim\":128,\"num_heads\":1,\"att_dropout\":1",
                 "model.att_dropout");
  expect_refusal("\"attention_fn\":\"norm-attention\",\"state_dim\":128,\"num_heads\":1,\"offset\":true,"
                 "\"scale_B\":true",
                 "model.norm_fn");
}

static void every_attention_of_the_registry_can_be_chosen(void **state)
{
  static const char *const name[] = {"sm-attention", "lin-attention", "norm-attention"};
  (void)state;
  for (int i = 0; i < 3; ++i) {
    const sq_mixer_ops *o = sq_mixer_find(name[i]);
    assert_non_null(o);
    assert_string_equal(o->name, name[i]);
  }
  assert_null(sq_mixer_find("attention"));
  assert_null(sq_mixer_at(-1));
  int n = 0;
  while (sq_mixer_at(n) != NULL) {
    for (int i = 0; i < n; ++i) assert_string_not_equal(sq_mixer_at(i)->name, sq_mixer_at(n)->name);
    ++n;
  }
  assert_null(sq_mixer_at(n + 1));
}

static void tensors_have_the_published_names_and_shapes(void **state)
{
  static const struct {
    const char *name;
    int ndim, dim[3];
    unsigned no_decay;
  } expected[] = {
      {"Wvqkn.weight", 2, {30, 12, 1}, 0},    {"Wvqkn.bias", 1, {30, 1, 1}, 1},
      {"conv1d.weight", 3, {28, 1, 4}, 0},    {"conv1d.bias", 1, {28, 1, 1}, 1},
      {"inner_attn.offset", 1, {2, 1, 1}, 1}, {"out_proj.weight", 2, {12, 12, 1}, 0},
      {"out_proj.bias", 1, {12, 1, 1}, 1},
  };
  fixture x;
  (void)state;
  fixture_make(&x,
               "\"attention_fn\":\"norm-attention\",\"norm_fn\":\"elu\",\"offset\":true,\"scale_B\":true,"
               "\"state_dim\":8,"
               "\"num_heads\":2,\"dim_conv\":4",
               12, 150, 4, ragged);
  assert_int_equal(x.params.n, 7);
  for (int i = 0; i < 7; ++i) {
    char full[128];
    sq_format(full, sizeof full, "layers.0.attention.%s", expected[i].name);
    const sq_param *p = sq_param_find(&x.params, full);
    if (p == NULL) fail_msg("%s is missing", full);
    assert_int_equal(p->ndim, expected[i].ndim);
    assert_memory_equal(p->dim, expected[i].dim, sizeof p->dim);
    assert_int_equal(p->flags & SQ_PARAM_NO_DECAY, expected[i].no_decay);
  }
  fixture_free(&x);
}

/* Uniform on (-bound, bound): within it, and the second moment is bound^2/3; with n samples its standard
   deviation is bound^2 sqrt(4/45/n). */
static void expect_uniform(fixture *x, const char *name, size_t n, double bound)
{
  const sq_real *p = tensor(x, x->theta, name);
  double sum = 0, square = 0;
  for (size_t i = 0; i < n; ++i) {
    assert_true(fabs((double)p[i]) <= bound);
    sum += (double)p[i];
    square += (double)p[i] * (double)p[i];
  }
  EXPECT_NEAR(name, sum / (double)n, 0, 5 * bound / sqrt(3.0 * (double)n));
  EXPECT_NEAR(name, square / (double)n, bound * bound / 3, 5 * bound * bound * sqrt(4.0 / 45 / (double)n));
}

static void weights_start_uniform_within_one_over_root_fan_in(void **state)
{
  static const int len[] = {2};
  fixture x;
  (void)state;
  fixture_make(&x, "\"attention_fn\":\"sm-attention\",\"state_dim\":64,\"num_heads\":2,\"dim_conv\":4", 64, 2,
               1, len);
  expect_uniform(&x, "Wqkv.weight", 192 * 64, 1 / 8.0);
  expect_uniform(&x, "Wqkv.bias", 192, 1 / 8.0);
  expect_uniform(&x, "out_proj.weight", 64 * 64, 1 / 8.0);
  expect_uniform(&x, "out_proj.bias", 64, 1 / 8.0);
  expect_uniform(&x, "conv1d.weight", 192 * 4, 1 / 2.0);
  expect_uniform(&x, "conv1d.bias", 192, 1 / 2.0);
  fixture_free(&x);
}

/* Values of the published init_offset, printed by its code to 8 digits after the point. */
static void offsets_start_at_the_published_values(void **state)
{
  static const struct {
    const char *init;
    int H;
    double value[8];
  } expected[] = {
      {"exp", 1, {4}},
      {"exp", 2, {4, 9}},
      {"exp", 4, {4, 5.66666667, 7.33333333, 9}},
      {"exp", 8, {4, 4.71428571, 5.42857143, 6.14285714, 6.85714286, 7.57142857, 8.28571429, 9}},
      {"uniform", 1, {3}},
      {"uniform", 2, {8, 14}},
      {"uniform", 4, {8, 11.13014489, 12.82286314, 14}},
      {"uniform", 8, {8, 9.6646141, 10.81347094, 11.69410045, 12.40990409, 13.01405421, 13.53753665, 14}},
  };
  (void)state;
  for (size_t k = 0; k < sizeof expected / sizeof *expected; ++k) {
    char text[300];
    fixture x;
    sq_format(
        text, sizeof text,
        "\"attention_fn\":\"norm-attention\",\"norm_fn\":\"softplus\",\"offset\":true,\"offset_init\":\"%s\","
        "\"scale_B\":true,\"state_dim\":8,\"num_heads\":%d",
        expected[k].init, expected[k].H);
    fixture_make(&x, text, 8, 150, 4, ragged);
    const sq_real *offset = tensor(&x, x.theta, "inner_attn.offset");
    for (int h = 0; h < expected[k].H; ++h)
      EXPECT_NEAR(text, offset[h], expected[k].value[h], 6e-9 + 14 * SQ_REAL_EPS);
    fixture_free(&x);
  }
}

static void floating_point_operations_are_counted(void **state)
{
  static const int len[] = {150, 1};
  fixture x;
  (void)state;
  fixture_make(&x, "\"attention_fn\":\"sm-attention\",\"state_dim\":8,\"num_heads\":2,\"dim_conv\":3", 12,
               150, 2, len);
  const double projections = 151.0 * 2 * 12 * (28 + 12), conv = 151.0 * 2 * 28 * 3;
  const double scores = 2 * (150.0 * 151 / 2 + 1) * 2 * (4 + 6); /* heads, pairs, multiply-add, dh + dv */
  EXPECT_NEAR("flops", x.ops->flops(x.m, 2, len), projections + conv + scores, 1e-6);
  fixture_free(&x);
  /* The chunked form is linear in length. */
  static const int pair[] = {1000, 2000};
  fixture_make(&x, "\"attention_fn\":\"lin-attention\",\"state_dim\":8,\"num_heads\":2", 12, 2000, 1, pair);
  EXPECT_NEAR("ratio", x.ops->flops(x.m, 1, pair + 1) / x.ops->flops(x.m, 1, pair), 2, 0.05);
  fixture_free(&x);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(factors_reproduce_the_outputs_for_all_options),
      cmocka_unit_test(identity_permutation_is_no_permutation_and_missing_arrays_are_not_wanted),
      cmocka_unit_test(a_permuted_sequence_is_normalised_again),
      cmocka_unit_test(equal_scores_give_lambda_i_over_i_plus_1),
      cmocka_unit_test(factors_stay_finite_where_eigenvalues_underflow),
      cmocka_unit_test(published_protocol_follows_its_description),
      cmocka_unit_test(published_eigenvalues_of_a_dead_layer_are_one),
      cmocka_unit_test(published_normalisers_of_zero_are_replaced),
      cmocka_unit_test(configurations_that_cannot_be_built_are_refused_with_the_reason),
      cmocka_unit_test(every_attention_of_the_registry_can_be_chosen),
      cmocka_unit_test(tensors_have_the_published_names_and_shapes),
      cmocka_unit_test(weights_start_uniform_within_one_over_root_fan_in),
      cmocka_unit_test(offsets_start_at_the_published_values),
      cmocka_unit_test(floating_point_operations_are_counted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
