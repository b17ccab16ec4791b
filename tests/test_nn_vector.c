/* tests/test_nn_vector.c: vector functions against long double libm, in units in the last place of sq_real.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sq/nn.h"

enum { N = 200001 };
static sq_real x[N], y[N], one[N];

#ifdef SQ_DOUBLE
#define DIGITS    DBL_MANT_DIG
#define MIN_EXP   DBL_MIN_EXP
#define EXP_LOW   -740.0
#define EXP_HIGH  709.0
#define TAIL_FROM -37.0
#else
#define DIGITS    FLT_MANT_DIG
#define MIN_EXP   FLT_MIN_EXP
#define EXP_LOW   -102.0
#define EXP_HIGH  88.7
#define TAIL_FROM -13.0
#endif

static long double ulp(long double v)
{
  int e;
  frexpl(v, &e);
  return ldexpl(1, (e < MIN_EXP ? MIN_EXP : e) - DIGITS);
}

static void spread(double from, double to)
{
  for (int i = 0; i < N; ++i) x[i] = (sq_real)(from + (to - from) * i / (N - 1));
}

static long double worst_ulp(long double (*f)(long double))
{
  long double worst = 0;
  for (int i = 0; i < N; ++i) {
    const long double want = f((long double)x[i]), e = fabsl((long double)y[i] - want) / ulp(want);
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

static void expect_at_most(const char *what, long double worst, long double allowed)
{
  printf("%s, %s: worst error %.3Lg, allowed %.3Lg\n", what, SQ_PRECISION, worst, allowed);
  if (!(worst <= allowed)) fail_msg("%s: %Lg above %Lg", what, worst, allowed);
}

static long double gelu(long double v)
{
  return v * erfcl(-v * sqrtl(0.5L)) / 2;
}
static long double gelu_slope(long double v)
{
  return erfcl(-v * sqrtl(0.5L)) / 2 + v * expl(-v * v / 2) / sqrtl(2 * acosl(-1));
}
static long double gelu_tanh(long double v)
{
  return v / (1 + expl(-2 * sqrtl(2 / acosl(-1)) * (v + 0.044715L * v * v * v)));
}
static long double gelu_tanh_slope(long double v)
{
  const long double a = 2 * sqrtl(2 / acosl(-1)), s = 1 / (1 + expl(-a * (v + 0.044715L * v * v * v)));
  return s + v * s * (1 - s) * a * (1 + 3 * 0.044715L * v * v);
}
static long double silu(long double v)
{
  return v / (1 + expl(-v));
}

/* Measured: 1.02 ulp (float), 0.99 (double). */
static void exp_is_within_two_ulp(void **state)
{
  (void)state;
  spread(EXP_LOW, EXP_HIGH);
  sq_nn_exp(N, x, y);
  expect_at_most("exp, ulp", worst_ulp(expl), 2);
  spread(-1, 1);
  sq_nn_exp(N, x, y);
  expect_at_most("exp on [-1,1], ulp", worst_ulp(expl), 2);
}

static void exp_keeps_special_values(void **state)
{
  (void)state;
  const sq_real in[7] = {-INFINITY, INFINITY, NAN, 0, (sq_real)-1e30, (sq_real)1e30, -(sq_real)0};
  sq_real out[7];
  sq_nn_exp(7, in, out);
  assert_true(out[0] == 0 && isinf(out[1]) && out[1] > 0 && isnan(out[2]) && out[3] == 1 && out[4] == 0);
  assert_true(isinf(out[5]) && out[6] == 1);
}

static void exp_may_work_in_place(void **state)
{
  (void)state;
  spread(-5, 5);
  sq_nn_exp(N, x, y);
  sq_nn_exp(N, x, x);
  for (int i = 0; i < N; ++i) assert_true(x[i] == y[i]);
}

/* Also in the lower tail, where 1 + erf cancels.  Measured: 4.9 ulp (float), 5.0 (double). */
static void gelu_is_within_six_ulp(void **state)
{
  (void)state;
  spread(-6, 6);
  sq_nn_gelu(N, x, y);
  expect_at_most("GELU, ulp", worst_ulp(gelu), 6);
  spread(TAIL_FROM, 40);
  sq_nn_gelu(N, x, y);
  expect_at_most("GELU in the tails, ulp", worst_ulp(gelu), 6);
}

static void gelu_of_large_arguments_is_the_limit(void **state)
{
  (void)state;
  const sq_real in[4] = {(sq_real)1e20, (sq_real)-1e20, NAN, INFINITY};
  sq_real out[4];
  sq_nn_gelu(4, in, out);
  assert_true(out[0] == in[0] && out[1] == 0 && isnan(out[2]) && isinf(out[3]));
}

/* The slope crosses zero, so its error is absolute; the slope is at most 1.13. */
static void slope_of_gelu_is_right(void **state)
{
  (void)state;
  long double worst = 0;
  spread(-12, 12);
  for (int i = 0; i < N; ++i) one[i] = 1;
  sq_nn_gelu_back(N, x, one, y);
  for (int i = 0; i < N; ++i) worst = fmaxl(worst, fabsl(y[i] - gelu_slope(x[i])));
  expect_at_most("GELU', eps", worst / SQ_REAL_EPS, 3);
  sq_nn_gelu_back(N, x, one, one);
  for (int i = 0; i < N; ++i) assert_true(one[i] == y[i]);
}

/* The argument 2z of the sigmoid has an error of about eps |2z|, and |v| sigmoid' |2z| is below 1 for v < 0; for v > 0
   the sigmoid is 1 - small.  Two roundings of order 1 remain. */
static void tanh_form_of_gelu_and_its_slope_are_right(void **state)
{
  (void)state;
  long double worst = 0, slope = 0;
  spread(-45, 45);
  for (int i = 0; i < N; ++i) one[i] = 1;
  sq_nn_gelu_tanh(N, x, y);
  for (int i = 0; i < N; ++i) {
    const long double want = gelu_tanh(x[i]);
    worst = fmaxl(worst, fabsl(y[i] - want) / fmaxl(1, fabsl(want)));
  }
  expect_at_most("GELU (tanh), eps", worst / SQ_REAL_EPS, 2);
  sq_nn_gelu_tanh_back(N, x, one, y);
  for (int i = 0; i < N; ++i) slope = fmaxl(slope, fabsl(y[i] - gelu_tanh_slope(x[i])));
  expect_at_most("GELU (tanh)', eps", slope / SQ_REAL_EPS, 4);
  sq_nn_gelu_tanh_back(N, x, one, one);
  for (int i = 0; i < N; ++i) assert_true(one[i] == y[i]);
}

static void tanh_form_of_large_arguments_is_the_limit(void **state)
{
  (void)state;
  const sq_real in[4] = {(sq_real)1e30, (sq_real)-1e30, NAN, INFINITY}, ones[4] = {1, 1, 1, 1};
  sq_real out[4];
  sq_nn_gelu_tanh(4, in, out);
  assert_true(out[0] == in[0] && out[1] == 0 && isnan(out[2]) && isinf(out[3]));
  sq_nn_gelu_tanh_back(4, in, ones, out);
  assert_true(out[0] == 1 && out[1] == 0 && isnan(out[2]) && out[3] == 1);
}

static void silu_is_within_four_ulp(void **state)
{
  (void)state;
  spread(-80, 80);
  for (int i = 0; i < N; ++i) y[i] = 1;
  sq_nn_silu_mul(N, x, y);
  expect_at_most("SiLU, ulp", worst_ulp(silu), 4);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(exp_is_within_two_ulp),
      cmocka_unit_test(exp_keeps_special_values),
      cmocka_unit_test(exp_may_work_in_place),
      cmocka_unit_test(gelu_is_within_six_ulp),
      cmocka_unit_test(gelu_of_large_arguments_is_the_limit),
      cmocka_unit_test(slope_of_gelu_is_right),
      cmocka_unit_test(tanh_form_of_gelu_and_its_slope_are_right),
      cmocka_unit_test(tanh_form_of_large_arguments_is_the_limit),
      cmocka_unit_test(silu_is_within_four_ulp),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
