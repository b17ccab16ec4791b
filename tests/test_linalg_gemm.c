/* tests/test_linalg_gemm.c: the product in working precision against its definition, with float64 sums. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> /* needs those above */

#include "../src/linalg/gemm512.h"
#include "sq/linalg.h"
#include "sq/rng.h"

#ifdef SQ_DOUBLE
#define EPS DBL_EPSILON
#else
#define EPS FLT_EPSILON
#endif

static sq_rng rng;

static sq_real *normal(size_t n)
{
  sq_real *x = malloc(n * sizeof *x);
  assert_non_null(x);
  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)sq_rng_normal(&rng);
  return x;
}

typedef struct {
  sq_trans ta, tb;
  int m, n, k, lda, ldb, ldc;
  sq_real alpha, beta;
  sq_real *A, *B, *C, *C0; /* C0: C before the product */
} example;

static size_t cells(const example *x)
{
  return (size_t)x->m * (size_t)x->ldc;
}

/* Rows are `gap` numbers longer than they need be. */
static example example_new(sq_trans ta, sq_trans tb, int m, int n, int k, int gap)
{
  example x = {.ta = ta, .tb = tb, .m = m, .n = n, .k = k, .alpha = (sq_real)0.75, .beta = (sq_real)-1.5};
  x.lda = (ta == SQ_N ? k : m) + gap;
  x.ldb = (tb == SQ_N ? n : k) + gap;
  x.ldc = n + gap;
  x.A = normal((size_t)x.lda * (size_t)(ta == SQ_N ? m : k));
  x.B = normal((size_t)x.ldb * (size_t)(tb == SQ_N ? k : n));
  x.C = normal(cells(&x));
  x.C0 = malloc(cells(&x) * sizeof *x.C0);
  assert_non_null(x.C0);
  memcpy(x.C0, x.C, cells(&x) * sizeof *x.C);
  return x;
}

static void example_free(example *x)
{
  free(x->A), free(x->B), free(x->C), free(x->C0);
}

static void multiply(example *x)
{
  sq_gemm(x->ta, x->tb, x->m, x->n, x->k, x->alpha, x->A, x->lda, x->B, x->ldb, x->beta, x->C, x->ldc);
}

static sq_real *left(const example *x, int i, int p)
{
  return x->A + (x->ta == SQ_N ? i * x->lda + p : p * x->lda + i);
}

static sq_real *right(const example *x, int p, int j)
{
  return x->B + (x->tb == SQ_N ? p * x->ldb + j : j * x->ldb + p);
}

/* |C - exact| <= (k + 3) eps sum |terms| (Higham 2002, section 3.5); nothing behind a row is written. */
static void expect_product(const example *x)
{
  for (int i = 0; i < x->m; ++i) {
    for (int j = 0; j < x->n; ++j) {
      const double c0 = x->beta == 0 ? 0 : (double)(x->beta * x->C0[i * x->ldc + j]);
      double sum = c0, size = fabs(c0);
      for (int p = 0; p < x->k; ++p) {
        const double term = (double)x->alpha * (double)*left(x, i, p) * (double)*right(x, p, j);
        sum += term;
        size += fabs(term);
      }
      const double error = fabs((double)x->C[i * x->ldc + j] - sum);
      if (!(error <= (x->k + 3) * (double)EPS * size))
        fail_msg("%d%d %d x %d x %d: C(%d,%d) is off by %g of %g", x->ta, x->tb, x->m, x->n, x->k, i, j,
                 error, size);
    }
    for (int j = x->n; j < x->ldc; ++j) assert_true(x->C[i * x->ldc + j] == x->C0[i * x->ldc + j]);
  }
}

/* Around the sizes of tiles, panels, blocks and pieces of k, and what is read without packing. */
static const int sizes[][3] = {{1, 1, 1},     {1, 33, 7},    {13, 15, 16},    {14, 16, 17},
                               {15, 17, 1},   {29, 48, 33},  {64, 64, 64},    {65, 31, 129},
                               {28, 600, 40}, {300, 40, 77}, {130, 131, 513}, {7, 65, 1030},
                               {129, 9, 64},  {9, 129, 64},  {1, 200, 200},   {900, 129, 130}};

static void product_equals_its_definition(void **state)
{
  (void)state;
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s)
    for (int t = 0; t < 4; ++t)
      for (int gap = 0; gap < 2; ++gap) {
        example x = example_new(t & 1 ? SQ_T : SQ_N, t & 2 ? SQ_T : SQ_N, sizes[s][0], sizes[s][1],
                                sizes[s][2], 5 * gap);
        multiply(&x);
        expect_product(&x);
        example_free(&x);
      }
}

static void without_beta_what_was_there_does_not_matter(void **state)
{
  (void)state;
  for (int t = 0; t < 4; ++t)
    for (int k = 0; k <= 600; k += 300) {
      example x = example_new(t & 1 ? SQ_T : SQ_N, t & 2 ? SQ_T : SQ_N, 30, 45, k, 1);
      x.beta = 0;
      for (int i = 0; i < x.m; ++i)
        for (int j = 0; j < x.n; ++j) x.C[i * x.ldc + j] = NAN;
      multiply(&x);
      expect_product(&x);
      example_free(&x);
    }
}

static void not_a_number_and_infinity_stay_in_their_row_and_column(void **state)
{
  (void)state;
  for (int t = 0; t < 4; ++t) {
    example x = example_new(t & 1 ? SQ_T : SQ_N, t & 2 ? SQ_T : SQ_N, 30, 45, 70, 1);
    *left(&x, 17, 3) = NAN;
    *right(&x, 69, 44) = INFINITY;
    multiply(&x);
    for (int i = 0; i < x.m; ++i)
      for (int j = 0; j < x.n; ++j) {
        const double c = (double)x.C[i * x.ldc + j];
        if (i == 17)
          assert_true(isnan(c));
        else
          assert_true(j == 44 ? isinf(c) : isfinite(c));
      }
    example_free(&x);
  }
}

/* What a thread makes of its tile does not depend on how the matrix was cut. */
static void an_element_has_the_same_bits_in_any_part_of_the_matrix(void **state)
{
  (void)state;
  if (!sq_gemm512_available()) skip();
  for (int t = 0; t < 4; ++t)
    for (int k = 40; k <= 1240; k += 600) {
      example x = example_new(t & 1 ? SQ_T : SQ_N, t & 2 ? SQ_T : SQ_N, 150, 170, k, 2);
      const int i0 = 21, j0 = 37, m = 40, n = 50;
      sq_gemm512(x.ta, x.tb, x.m, x.n, k, x.alpha, x.A, x.lda, x.B, x.ldb, x.beta, x.C, x.ldc);
      sq_gemm512(x.ta, x.tb, m, n, k, x.alpha, left(&x, i0, 0), x.lda, right(&x, 0, j0), x.ldb, x.beta,
                 x.C0 + i0 * x.ldc + j0, x.ldc);
      for (int i = i0; i < i0 + m; ++i)
        assert_memory_equal(x.C + i * x.ldc + j0, x.C0 + i * x.ldc + j0, (size_t)n * sizeof *x.C);
      example_free(&x);
    }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(product_equals_its_definition),
      cmocka_unit_test(without_beta_what_was_there_does_not_matter),
      cmocka_unit_test(not_a_number_and_infinity_stay_in_their_row_and_column),
      cmocka_unit_test(an_element_has_the_same_bits_in_any_part_of_the_matrix),
  };
  sq_rng_init(&rng, 11, SQ_STREAM_TEST, 0);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
