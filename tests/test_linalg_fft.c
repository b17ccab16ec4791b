/* tests/test_linalg_fft.c: Fourier transforms, and the complex matrices of linalg.h, against their definitions. */
#include <complex.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/rng.h"

static void draw(int index, size_t n, double *x)
{
  sq_rng r;
  sq_rng_init(&r, 20250131, SQ_STREAM_TEST, (uint64_t)index);
  for (size_t i = 0; i < n; ++i) x[i] = sq_rng_normal(&r);
}

static void *aligned_block(size_t bytes)
{
  void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  assert_non_null(p);
  return p;
}

/* Both transforms of length n against the sums that define them.  A transform rounds by at most about log2(n) eps times
   the norm of its input; prime lengths go through a convolution and lose a few times that. */
#define DEFINE_CHECK(name, real, fft, eps)                                                                   \
  static void name(int n)                                                                                    \
  {                                                                                                          \
    struct fft *f = NULL;                                                                                    \
    real *x = aligned_block((size_t)n * sizeof *x), *X = aligned_block((size_t)(n + 2) * sizeof *X);         \
    double *in = calloc((size_t)n, sizeof *in), *out = calloc((size_t)(n + 2), sizeof *out), norm = 0;       \
    assert_true(in != NULL && out != NULL);                                                                  \
    assert_int_equal(fft##_create(n, &f), SQ_OK);                                                            \
    draw(n, (size_t)n, in);                                                                                  \
    for (int j = 0; j < n; ++j) {                                                                            \
      x[j] = (real)in[j];                                                                                    \
      in[j] = (double)x[j];                                                                                  \
      norm += in[j] * in[j];                                                                                 \
    }                                                                                                        \
    for (int k = 0; k <= n / 2; ++k)                                                                         \
      for (int j = 0; j < n; ++j) {                                                                          \
        const double angle = 2 * M_PI * (double)((long)j * k % n) / n;                                       \
        out[2 * k] += in[j] * cos(angle);                                                                    \
        out[2 * k + 1] -= in[j] * sin(angle);                                                                \
      }                                                                                                      \
    fft##_forward(f, x, X);                                                                                  \
    const double allowed = 4 * (eps) * (log2(n) + 1) * sqrt(norm);                                           \
    for (int k = 0; k < 2 * (n / 2 + 1); ++k) assert_true(fabs((double)X[k] - out[k]) <= allowed);           \
    X[1] = 7; /* ignored */                                                                                  \
    if (n % 2 == 0) X[n + 1] = 7;                                                                            \
    fft##_backward(f, X, x);                                                                                 \
    for (int j = 0; j < n; ++j) assert_true(fabs((double)x[j] - n * in[j]) <= 2 * allowed * sqrt(n));        \
    fft##_destroy(&f);                                                                                       \
    assert_null(f);                                                                                          \
    free(out);                                                                                               \
    free(in);                                                                                                \
    free(X);                                                                                                 \
    free(x);                                                                                                 \
  }
DEFINE_CHECK(check_real, sq_real, sq_fft, (double)SQ_REAL_EPS)
DEFINE_CHECK(check_double, double, sq_dfft, DBL_EPSILON)

static void transforms_of_every_kind_of_length_are_the_sums(void **state)
{
  static const int n[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 60, 97, 128, 202, 243, 1001, 1024, 1021, 2003};
  (void)state;
  for (size_t i = 0; i < sizeof n / sizeof *n; ++i) {
    check_real(n[i]);
    check_double(n[i]);
  }
}

static int is_good(int n)
{
  while (n % 2 == 0) n /= 2;
  return n == 1 || n == 3 || n == 5 || n == 9 || n == 15;
}

static void good_length_is_the_next_power_of_two_times_a_small_factor(void **state)
{
  (void)state;
  for (int n = 1; n < 3000; ++n) {
    int expected = n;
    while (!is_good(expected)) ++expected;
    assert_int_equal(sq_fft_good_length(n), expected);
  }
  assert_int_equal(sq_fft_good_length(32767), 32768);
}

static sq_complex *matrix(int index, int m, int n)
{
  sq_complex *A = calloc((size_t)m * (size_t)n, sizeof *A);
  assert_non_null(A);
  draw(index, 2 * (size_t)m * (size_t)n, (double *)(void *)A);
  return A;
}

static void complex_product_is_the_sum(void **state)
{
  enum { M = 5, N = 7, K = 3 };
  sq_complex *A = matrix(1, M, K), *B = matrix(2, K, N), *C = matrix(3, M, N);
  (void)state;
  sq_zgemm(M, N, K, A, K, B, N, C, N);
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) {
      sq_complex sum = 0;
      for (int k = 0; k < K; ++k) sum += A[i * K + k] * B[k * N + j];
      assert_true(cabs(C[i * N + j] - sum) < 1e-14);
    }
  free(C);
  free(B);
  free(A);
}

static void solution_satisfies_the_system_and_its_transpose(void **state)
{
  enum { N = 12 };
  (void)state;
  for (int t = 0; t < 2; ++t) {
    sq_complex *A = matrix(4, N, N), *LU = matrix(4, N, N), *b = matrix(5, N, 1), *x = matrix(5, N, 1);
    int pivot[N];
    assert_int_equal(sq_zsolve(t ? SQ_T : SQ_N, N, LU, x, pivot), SQ_OK);
    for (int i = 0; i < N; ++i) {
      sq_complex sum = 0;
      for (int j = 0; j < N; ++j) sum += (t ? A[j * N + i] : A[i * N + j]) * x[j];
      assert_true(cabs(sum - b[i]) < 1e-12);
    }
    free(x);
    free(b);
    free(LU);
    free(A);
  }
}

static void singular_system_is_an_error(void **state)
{
  sq_complex A[4] = {1, 2, 2, 4}, x[2] = {1, 1};
  int pivot[2];
  (void)state;
  sq_error_clear();
  assert_int_equal(sq_zsolve(SQ_N, 2, A, x, pivot), SQ_ERR_INTERNAL);
  sq_error_clear();
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(transforms_of_every_kind_of_length_are_the_sums),
      cmocka_unit_test(good_length_is_the_next_power_of_two_times_a_small_factor),
      cmocka_unit_test(complex_product_is_the_sum),
      cmocka_unit_test(solution_satisfies_the_system_and_its_transpose),
      cmocka_unit_test(singular_system_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
