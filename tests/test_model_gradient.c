/* tests/test_model_gradient.c: the whole model's gradient against central differences, over the variants. */
#include "model_fixture.h"

/* Along a unit direction within one tensor, with h = 2e-5 eps-balanced for a loss of order 1: truncation h^2
   and rounding eps/h are both below 1e-9; 1e-7 leaves 100 for the curvature of exponentials and of
   normalisation. */
static const double step = 2e-5, tolerance = 1e-7;

static void name_variant(const variant *v, char out[256])
{
  sq_format(out, 256, "%s %s pooling=%s gate=%d conv=%d %s tokens=%d mixer_dim=%d dropout=%g/%g%s",
            v->attention, v->channel, v->pooling != NULL ? v->pooling : "lm", v->gate, v->conv, v->conv_type,
            v->tokens, v->mixer_dim, v->dropout, v->att_dropout, v->more);
}

static double along(fixture *f, const sq_param *p, const double *dir, double h, sq_real *theta)
{
  memcpy(theta, f->theta, f->n * sizeof *theta);
  for (size_t k = 0; k < p->count; ++k) theta[p->offset + k] += (sq_real)(h * dir[k]);
  return fixture_loss(f, theta);
}

static double check_tensor(fixture *f, const sq_param *p, const sq_real *grad, const char *name)
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
    fail_msg("%s: %s: gradient %.12g, quotient %.12g", name, p->name, slope, quotient);
  free(dir);
  free(theta);
  return error;
}

static double check_variant(const variant *v)
{
  fixture f;
  char name[256];
  double worst = 0;

  name_variant(v, name);
  fixture_open(&f, v);
  /* Away from the special values of the initialisation (zero biases, unit scales). */
  sq_rng r;
  sq_rng_init(&r, 8, SQ_STREAM_TEST, 1);
  const sq_param_list *l = sq_model_params(f.m);
  for (int k = 0; k < l->n; ++k)
    for (size_t i = 0; i < l->v[k].count; ++i)
      f.theta[l->v[k].offset + i] += (sq_real)(0.1 * sq_rng_normal(&r));
  fixture_loss(&f, f.theta);
  sq_real *grad = malloc(f.n * sizeof *grad);
  memcpy(grad, f.grad, f.n * sizeof *grad);
  for (int k = 0; k < l->n; ++k) worst = fmax(worst, check_tensor(&f, &l->v[k], grad, name));
  free(grad);
  fixture_close(&f);
  return worst;
}

/* Channel mixers x heads for one attention; the other choices run through their values with different
   periods, so that most pairs occur. */
static void check_attention(const char *attention, const char *const *more, int nmore)
{
  static const char *const channel[4] = {"mlp", "glu", "hybrid", "none"};
  static const char *const pooling[6] = {"mean", "max", "sum", "cls", "none", NULL};
  double worst = 0;
  int k = 0;

  for (int c = 0; c < 4; ++c)
    for (int p = 0; p < 6; ++p, ++k) {
      variant v = variant_default();
      v.attention = attention;
      v.channel = channel[c];
      v.pooling = pooling[p];
      v.gate = (k / 2) % 2;
      v.conv = k % 3 == 0 ? 0 : k % 3 + 1;
      v.conv_type = k % 4 < 2 ? "full" : "partial";
      v.tokens = (k + c) % 3 != 1;
      v.max_pos = k % 5 == 0 ? 0 : SEQ_LEN;
      v.heads = k % 4 == 3 ? 4 : 1 + k % 2;
      v.dropout = k % 3 == 2 ? 0.3 : 0;
      v.att_dropout = k % 5 == 4 ? 0.2 : 0;
      v.more = nmore > 0 ? more[k % nmore] : "";
      worst = fmax(worst, check_variant(&v));
    }
  printf("%s: %d variants, worst error %.2g\n", attention, k, worst);
}

static void gradient_of_softmax_attention_matches_differences(void **state)
{
  (void)state;
  check_attention("sm-attention", NULL, 0);
}

static void gradient_of_linear_attention_matches_differences(void **state)
{
  (void)state;
  check_attention("lin-attention", NULL, 0);
}

static void gradient_of_norm_attention_matches_differences(void **state)
{
  (void)state;
#define NORM(fn, approx, scale, offset, init)                                                                \
  ", \"mode\": \"attention\", \"norm_fn\": \"" fn "\", \"approx_fn\": \"" approx "\", \"scale_B\": " scale   \
  ", \"offset\": " offset ", \"offset_init\": \"" init "\", \"learn_A\": false"
  static const char *const more[] = {
      NORM("softplus", "none", "true", "true", "exp"), NORM("elu", "elu", "false", "true", "uniform"),
      NORM("sigmoid", "elu", "true", "false", "exp"), NORM("exp", "none", "false", "false", "exp"),
      NORM("softplus", "elu", "true", "true", "uniform")};
  check_attention("norm-attention", more, 5);
}

static void gradient_without_a_head_matches_differences(void **state)
{
  (void)state;
  variant v = variant_default();
  v.mixer_dim = 0;
  v.channel = "glu";
  check_variant(&v);
  v.pooling = "none";
  check_variant(&v);
}

static void gradient_with_heavy_dropout_matches_differences(void **state)
{
  (void)state;
  static const char *const channel[4] = {"mlp", "glu", "hybrid", "none"};
  for (int c = 0; c < 4; ++c) {
    variant v = variant_default();
    v.channel = channel[c];
    v.dropout = 0.5;
    v.att_dropout = 0.4;
    v.gate = c % 2;
    check_variant(&v);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradient_of_softmax_attention_matches_differences),
      cmocka_unit_test(gradient_of_linear_attention_matches_differences),
      cmocka_unit_test(gradient_of_norm_attention_matches_differences),
      cmocka_unit_test(gradient_without_a_head_matches_differences),
      cmocka_unit_test(gradient_with_heavy_dropout_matches_differences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
