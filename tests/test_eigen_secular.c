/* tests/test_eigen_secular.c: the secular equation over the ranks: the same numbers on 1, 2, 4 and 6 of them. */
#include "eigen_fixture.h"
#include "sq/linalg.h"

typedef struct {
  int n;
  sq_complex *d, *u, *known;
  sq_rank_one A;
  sq_secular r;
  void *work;
} problem;

/* Entries of d on a circle of radius 1, wanted eigenvalues between them at 0.9 of it: weights that have the zeros
   there are c_n = prod_k (d_n - mu_k) / prod_(k/=n) (d_n - d_k), in closed form for these: prod_k (z - mu_k) = z^n
   + 0.9^n; u = c, v = 1. */
static problem create(int n)
{
  const double turn = 2 * 3.14159265358979323846 / n;
  problem p = {.n = n};
  p.d = need((size_t)n, sizeof *p.d);
  p.u = need(2 * (size_t)n, sizeof *p.u);
  p.known = need((size_t)n, sizeof *p.known);
  for (int k = 0; k < n; ++k) {
    p.d[k] = cexp(I * turn * k);
    p.known[k] = 0.9 * cexp(I * turn * (k + 0.5));
    /* d^n = 1, (0.9 e^(i turn/2))^n = -0.9^n; the other product is n d^(n-1) = n / d */
    p.u[k] = (1 + pow(0.9, n)) * p.d[k] / n;
    p.u[n + k] = 1;
  }
  p.A = (sq_rank_one){n, p.d, p.u, p.u + n};
  p.r.mu = need((size_t)n, sizeof *p.r.mu);
  p.r.radius = need((size_t)n, sizeof *p.r.radius);
  p.r.certified = need((size_t)n, sizeof *p.r.certified);
  p.work = aligned_alloc(64, (sq_eigen_secular_bytes(MPI_COMM_WORLD, n) + 63) / 64 * 64);
  assert_non_null(p.work);
  return p;
}

static void destroy(problem *p)
{
  free(p->d), free(p->u), free(p->known), free(p->r.mu), free(p->r.radius), free(p->r.certified),
      free(p->work);
}

static const int sizes[] = {1, 2, 31, 32, 33, 64, 100, 193, 256};

static void the_known_eigenvalues_are_found(void **state)
{
  (void)state;
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; ++k) {
    problem p = create(sizes[k]);
    double worst = 0;
    sq_eigen_secular(MPI_COMM_WORLD, &p.A, 0, &p.r, p.work);
    assert_int_equal(p.r.ncertified, p.n);
    /* d and u are rounded, each by an ulp or two: to first order that moves an eigenvalue by its sensitivity */
    for (int i = 0; i < p.n; ++i) {
      sq_eigenvalue_quality q;
      sq_rank_one_eigenvalue(&p.A, p.known[i], 4 * DBL_EPSILON, &q);
      worst = fmax(worst, q.sensitivity + p.r.radius[i]);
    }
    expect_set("between the entries", p.n, p.known, p.r.mu, worst);
    destroy(&p);
  }
}

/* What one process finds alone, to the last bit: values, radii, proofs, sweeps. */
static void the_number_of_ranks_does_not_matter(void **state)
{
  (void)state;
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; ++k)
    for (int started = 0; started < 2; ++started) {
      problem p = create(sizes[k]), q = create(sizes[k]);
      const size_t n = (size_t)p.n;
      for (int i = 0; started && i < p.n; ++i)
        p.r.mu[i] = q.r.mu[i] = p.known[i] * (1 + 1e-3 * noise_entry(i, 1));
      sq_eigen_secular(MPI_COMM_WORLD, &p.A, started, &p.r, p.work);
      sq_secular_solve(&q.A, started, &q.r, q.work);
      assert_memory_equal(p.r.mu, q.r.mu, n * sizeof *p.r.mu);
      assert_memory_equal(p.r.radius, q.r.radius, n * sizeof *p.r.radius);
      assert_memory_equal(p.r.certified, q.r.certified, n * sizeof *p.r.certified);
      assert_int_equal(p.r.sweeps, q.r.sweeps);
      destroy(&p);
      destroy(&q);
    }
}

static void every_value_has_one_owner(void **state)
{
  (void)state;
  for (int m = 0; m < 300; m += 7)
    for (int P = 1; P < 9; ++P) {
      assert_int_equal(sq_secular_first(m, 0, P), 0);
      assert_int_equal(sq_secular_first(m, P, P), m);
      for (int r = 0; r < P; ++r) {
        assert_true(sq_secular_first(m, r, P) <= sq_secular_first(m, r + 1, P));
        assert_true(sq_secular_first(m, r, P) % SQ_SECULAR_BLOCK == 0 || sq_secular_first(m, r, P) == m);
      }
    }
}

static sq_complex dense_entry(const void *user, int i, int j)
{
  const problem *p = user;
  return (i == j ? p->d[i] : 0) - p->u[i] * conj(p->u[p->n + j]);
}

/* Three ways to the same numbers: the secular equation, LAPACK, ScaLAPACK; the last two to each value's condition. */
static void dense_methods_agree_to_the_condition(void **state)
{
  static const int order[] = {2, 50, 100};
  (void)state;
  for (size_t k = 0; k < sizeof order / sizeof *order; ++k) {
    problem p = create(order[k]);
    const int n = p.n;
    const size_t nn = (size_t)n * (size_t)n;
    sq_complex *a = need(nn, sizeof *a), *w = need((size_t)n, sizeof *w);
    double *work = need(sq_eigenvalues_work(n), sizeof *work), worst = 0;
    sq_eigen_secular(MPI_COMM_WORLD, &p.A, 0, &p.r, p.work);
    for (int i = 0; i < n; ++i) {
      sq_eigenvalue_quality q;
      sq_rank_one_eigenvalue(&p.A, p.r.mu[i], 0, &q);
      worst = fmax(worst, sq_eigen_limit(n) * sq_rank_one_norm(&p.A) / q.condition);
      for (int j = 0; j < n; ++j) a[(size_t)i * (size_t)n + (size_t)j] = dense_entry(&p, i, j);
    }
    assert_int_equal(sq_eigenvalues(n, a, w, work), SQ_OK);
    expect_set("LAPACK", n, p.r.mu, w, worst);
    if (sq_eigen_has_scalapack()) {
      sq_pgrid *g;
      sq_dist d;
      sq_eigen_report r;
      assert_int_equal(sq_pgrid_create(MPI_COMM_WORLD, n, 16, &g), SQ_OK);
      assert_int_equal(sq_dist_init(&d, g, n, n, 16), SQ_OK);
      sq_complex *part = need(sq_dist_count(&d), sizeof *part);
      sq_dist_fill(&d, dense_entry, &p, part);
      const sq_status st = sq_eigen_values(&d, part, 3, w, &r);
      if (st != SQ_OK) fail_msg("%s", sq_error_text());
      expect_set("ScaLAPACK", n, p.r.mu, w, worst);
      free(part);
      sq_pgrid_destroy(&g);
    }
    free(a), free(w), free(work);
    destroy(&p);
  }
}

static int run(void)
{
  const struct CMUnitTest test[] = {cmocka_unit_test(the_known_eigenvalues_are_found),
                                    cmocka_unit_test(the_number_of_ranks_does_not_matter),
                                    cmocka_unit_test(every_value_has_one_owner),
                                    cmocka_unit_test(dense_methods_agree_to_the_condition)};
  return cmocka_run_group_tests(test, NULL, NULL);
}

int main(void)
{
  return eigen_main(run);
}
