/* tests/test_parity_match.c: pairing of eigenvalues as sets. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../src/app/parity.h"
#include "sq/rng.h"

enum { MAX = 6 };

/* The definition: all n! pairings. */
static double by_trying_all(int n, const double *cost, int row, unsigned used)
{
  double best = INFINITY;

  if (row == n) return 0;
  for (int c = 0; c < n; ++c) {
    const double here = cost[row * n + c];
    if ((used >> c & 1) || isnan(here)) continue;
    best = fmin(best, fmax(here, by_trying_all(n, cost, row + 1, used | 1u << c)));
  }
  return best;
}

static double bottleneck(int n, const double *cost)
{
  double worst = -1;
  assert_int_equal(sq_parity_bottleneck(n, cost, &worst), SQ_OK);
  return worst;
}

static void the_worst_pair_is_that_of_the_best_of_all_pairings(void **state)
{
  double cost[MAX * MAX];
  sq_rng rng;
  (void)state;
  sq_rng_init(&rng, 3, SQ_STREAM_TEST, 0);
  for (int n = 1; n <= MAX; ++n)
    for (int trial = 0; trial < 200; ++trial) {
      for (int i = 0; i < n * n; ++i) { /* few values, so that many are equal, and holes */
        const uint32_t x = sq_rng_below(&rng, 12);
        cost[i] = x == 0 ? (double)NAN : x;
      }
      const double want = by_trying_all(n, cost, 0, 0), got = bottleneck(n, cost);
      assert_true(got == want);
    }
}

/* Both 0 and 1 are nearest to 0.6, but one of them has to take 5: better the 1. */
static void a_pairing_is_one_to_one(void **state)
{
  const double a[2] = {0, 1}, b[2] = {0.6, 5};
  double cost[4];
  (void)state;
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 2; ++k) cost[i * 2 + k] = fabs(a[i] - b[k]);
  assert_true(bottleneck(2, cost) == 4.0);
}

static void nothing_pairs_with_nothing_and_not_with_nan(void **state)
{
  const double all_nan[4] = {NAN, NAN, NAN, NAN}, column[4] = {NAN, 1, NAN, 2};
  (void)state;
  assert_true(bottleneck(0, NULL) == 0);
  assert_true(isinf(bottleneck(2, all_nan)));
  assert_true(isinf(bottleneck(2, column)));
}

/* Rotations of a circle of points: pairing by rank of the real part would be wrong. */
static void many_points_find_their_shifted_partners(void **state)
{
  enum { N = 120 };
  static double cost[N * N];
  const double small = 1e-6, turn = 2 * M_PI / N;
  (void)state;
  for (int i = 0; i < N; ++i)
    for (int k = 0; k < N; ++k) {
      const int other = (7 * k + 3) % N; /* another order: 7 and 120 have no common factor */
      cost[i * N + k] =
          hypot(cos(turn * i) - cos(turn * other + small), sin(turn * i) - sin(turn * other + small));
    }
  const double worst = bottleneck(N, cost);
  assert_true(fabs(worst - small) < 1e-12);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_worst_pair_is_that_of_the_best_of_all_pairings),
      cmocka_unit_test(a_pairing_is_one_to_one),
      cmocka_unit_test(nothing_pairs_with_nothing_and_not_with_nan),
      cmocka_unit_test(many_points_find_their_shifted_partners),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
