/* tests/test_eigen_values.c: process grids, block-cyclic matrices and eigenvalues, on 1, 2, 4 and 6 ranks.
 *
 * A backward stable method gives the eigenvalues of A + E, |E| <= limit |A| (sq_eigen_limit); an eigenvalue
 * of condition s (|y^H x|) then moves by |E|/s to first order; s = 1 for normal matrices. */
#include "eigen_fixture.h"
#include "sq/linalg.h"

static const int sizes[] = {1, 2, 3, 10, 49, 50, 75, 128, 200, 330};
enum { NSIZE = sizeof sizes / sizeof *sizes };

static void a_grid_uses_the_ranks(void **state)
{
  /* ranks, order, block -> rows, columns */
  static const int expected[][5] = {{1, 1000, 64, 1, 1}, {2, 1000, 64, 1, 2},  {3, 1000, 64, 1, 3},
                                    {4, 1000, 64, 2, 2}, {5, 1000, 64, 2, 2},  {6, 1000, 64, 2, 3},
                                    {7, 1000, 64, 2, 3}, {12, 1000, 64, 3, 4}, {64, 4096, 64, 8, 8},
                                    {6, 64, 64, 1, 1},   {6, 65, 64, 2, 2},    {13, 4096, 64, 3, 4},
                                    {100, 10, 64, 1, 1}};
  (void)state;
  for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
    const int *e = expected[i];
    int nprow, npcol;
    sq_pgrid_choose(e[0], e[1], e[2], &nprow, &npcol);
    assert_int_equal(nprow, e[3]);
    assert_int_equal(npcol, e[4]);
  }
  sq_pgrid *g;
  assert_int_equal(sq_pgrid_create_shape(MPI_COMM_WORLD, nrank, 2, &g), SQ_ERR_USAGE);
  assert_int_equal(sq_pgrid_create_shape(MPI_COMM_WORLD, 0, 1, &g), SQ_ERR_USAGE);
  sq_error_clear();
}

static sq_complex numbered(const void *user, int i, int j)
{
  return CMPLX(i, j + *(const double *)user);
}

static double numbered_real(const void *user, int i, int j)
{
  return 1000.0 * i + j + *(const double *)user;
}

/* Filled by function, moved to another grid and block, gathered, scattered: the same numbers at every stop. */
static void matrices_survive_every_move(void **state)
{
  static const int shape[][4] = {
      {1, 1, 6, 64}, {10, 3, 6, 7}, {3, 50, 8, 16}, {129, 70, 64, 6}, {75, 75, 8, 64}};
  const double base = 0.5;
  (void)state;
  for (size_t s = 0; s < sizeof shape / sizeof *shape; ++s) {
    const int m = shape[s][0], n = shape[s][1];
    sq_pgrid *g = NULL, *h = NULL;
    sq_dist a, b;
    assert_int_equal(sq_pgrid_create(MPI_COMM_WORLD, m, shape[s][2], &g), SQ_OK);
    assert_int_equal(sq_pgrid_create_shape(MPI_COMM_WORLD, 1, nrank, &h), SQ_OK);
    assert_int_equal(sq_dist_init(&a, g, m, n, shape[s][2]), SQ_OK);
    assert_int_equal(sq_dist_init(&b, h, m, n, shape[s][3]), SQ_OK);
    sq_complex *x = need(sq_dist_count(&a), sizeof *x), *y = need(sq_dist_count(&b), sizeof *y);
    sq_complex *full = rank == 0 ? need((size_t)m * (size_t)n, sizeof *full) : NULL;
    double *xr = need(sq_dist_count(&a), sizeof *xr), *yr = need(sq_dist_count(&b), sizeof *yr);
    double *fullr = rank == 0 ? need((size_t)m * (size_t)n, sizeof *fullr) : NULL;
    sq_dist_fill(&a, numbered, &base, x);
    sq_dist_fill_real(&a, numbered_real, &base, xr);
    assert_int_equal(sq_dist_move(&a, x, &b, y), SQ_OK);
    assert_int_equal(sq_dist_move_real(&a, xr, &b, yr), SQ_OK);
    assert_int_equal(sq_dist_gather(&b, y, full), SQ_OK);
    assert_int_equal(sq_dist_gather_real(&b, yr, fullr), SQ_OK);
    for (int i = 0; rank == 0 && i < m; ++i)
      for (int j = 0; j < n; ++j) {
        assert_true(full[(size_t)i * (size_t)n + (size_t)j] == numbered(&base, i, j));
        assert_true(fullr[(size_t)i * (size_t)n + (size_t)j] == numbered_real(&base, i, j));
      }
    memset(x, 0, sq_dist_count(&a) * sizeof *x);
    memset(xr, 0, sq_dist_count(&a) * sizeof *xr);
    assert_int_equal(sq_dist_scatter(&a, full, x), SQ_OK);
    assert_int_equal(sq_dist_scatter_real(&a, fullr, xr), SQ_OK);
    long held = (long)a.rows * a.cols, all;
    for (int l = 0; l < a.cols; ++l)
      for (int k = 0; k < a.rows; ++k) {
        const size_t at = (size_t)l * (size_t)a.rows + (size_t)k;
        assert_true(x[at] == numbered(&base, sq_dist_row(&a, k), sq_dist_col(&a, l)));
        assert_true(xr[at] == numbered_real(&base, sq_dist_row(&a, k), sq_dist_col(&a, l)));
      }
    MPI_Allreduce(&held, &all, 1, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    assert_int_equal(all, (long)m * n);
    assert_int_equal(sq_dist_init(&b, h, m + 1, n, 8), SQ_OK);
    assert_int_equal(sq_dist_move(&a, x, &b, y), SQ_ERR_USAGE);
    sq_error_clear();
    free(x), free(y), free(full), free(xr), free(yr), free(fullr);
    sq_pgrid_destroy(&g);
    sq_pgrid_destroy(&h);
  }
  sq_dist bad;
  sq_pgrid *g;
  assert_int_equal(sq_pgrid_create_shape(MPI_COMM_WORLD, 1, 1, &g), SQ_OK);
  assert_int_equal(sq_dist_init(&bad, g, 0, 3, 8), SQ_ERR_USAGE);
  assert_int_equal(sq_dist_init(&bad, g, 3, 3, 0), SQ_ERR_USAGE);
  sq_error_clear();
  sq_pgrid_destroy(&g);
}

/* ---- eigenvalues ---------------------------------------------------------------------------------------- */
/* shape: 0: the grid that fits n; 1: one row of all ranks, though some hold no block; 2: one process */
static sq_pgrid *grid_of(MPI_Comm comm, int shape, int n, int NB)
{
  sq_pgrid *g = NULL;
  int size;
  MPI_Comm_size(comm, &size);
  if (shape == 0) assert_int_equal(sq_pgrid_create(comm, n, NB, &g), SQ_OK);
  if (shape == 1) assert_int_equal(sq_pgrid_create_shape(comm, 1, size, &g), SQ_OK);
  if (shape == 2) assert_int_equal(sq_pgrid_create_shape(comm, 1, 1, &g), SQ_OK);
  return g;
}

static double solve(int shape, int n, int NB, sq_entry entry, const void *user, sq_complex *lambda)
{
  sq_pgrid *g = grid_of(MPI_COMM_WORLD, shape, n, NB);
  sq_dist d;
  sq_eigen_report r;
  assert_int_equal(sq_dist_init(&d, g, n, n, NB), SQ_OK);
  sq_complex *a = need(sq_dist_count(&d), sizeof *a);
  sq_dist_fill(&d, entry, user, a);
  const sq_status st = sq_eigen_values(&d, a, 2, lambda, &r);
  if (st != SQ_OK) fail_msg("n = %d, blocks of %d, shape %d: %s", n, NB, shape, sq_error_text());
  for (int l = 0; l < d.cols; ++l) /* the matrix is kept */
    for (int k = 0; k < d.rows; ++k)
      assert_true(a[(size_t)l * (size_t)d.rows + (size_t)k] ==
                  entry(user, sq_dist_row(&d, k), sq_dist_col(&d, l)));
  assert_int_equal(r.nsample, n < 2 ? n : 2);
  free(a);
  sq_pgrid_destroy(&g);
  return r.norm;
}

static double solve_real(int shape, int n, int NB, sq_entry_real entry, const void *user, sq_complex *lambda)
{
  sq_pgrid *g = grid_of(MPI_COMM_WORLD, shape, n, NB);
  sq_dist d;
  sq_eigen_report r;
  assert_int_equal(sq_dist_init(&d, g, n, n, NB), SQ_OK);
  double *a = need(sq_dist_count(&d), sizeof *a);
  sq_dist_fill_real(&d, entry, user, a);
  const sq_status st = sq_eigen_values_real(&d, a, 2, lambda, &r);
  if (st != SQ_OK) fail_msg("real, n = %d, blocks of %d, shape %d: %s", n, NB, shape, sq_error_text());
  free(a);
  sq_pgrid_destroy(&g);
  return r.norm;
}

/* Grids and blocks for a size: the large ones only as they will be used, to keep the test short. */
static int variants(int n, int v, int *shape, int *NB)
{
  static const int list[][2] = {{0, 64}, {0, 8}, {1, 8}, {1, 64}, {2, 6}};
  if (v >= (n <= 50 ? 5 : n <= 200 ? 2 : 1)) return 0;
  *shape = list[v][0];
  *NB = n > 200 ? 32 : list[v][1];
  return 1;
}

static void known_eigenvalues_of_normal_matrices(void **state)
{
  (void)state;
  for (int s = 0; s < NSIZE; ++s) {
    const int n = sizes[s];
    int shape, NB;
    mirrored z = mirrored_create(n, 0), x = mirrored_create(n, 1);
    sq_complex *lambda = need((size_t)n, sizeof *lambda);
    for (int v = 0; variants(n, v, &shape, &NB); ++v) {
      if (n == 128 && v > 0) continue; /* a multiple of 64, for the real iteration */
      double norm = solve(shape, n, NB, mirrored_entry, &z, lambda);
      expect_set("complex, normal", n, z.known, lambda, sq_eigen_limit(n) * norm);
      norm = solve_real(shape, n, NB, mirrored_entry_real, &x, lambda);
      expect_set("real, symmetric", n, x.known, lambda, sq_eigen_limit(n) * norm);
    }
    free(lambda);
    mirrored_destroy(&z);
    mirrored_destroy(&x);
  }
}

/* All eigenvalues have one modulus.  PZLAHQR's shifts converge on it up to about 50 and not at 75, and then it has to
   be said: not converged, on every rank. */
static void roots_of_unity_from_the_cyclic_shift(void **state)
{
  static const int order[] = {3, 10, 49, 200};
  (void)state;
  for (size_t s = 0; s < sizeof order / sizeof *order; ++s) {
    const int n = order[s];
    sq_complex *lambda = need((size_t)n, sizeof *lambda), *known = need((size_t)n, sizeof *known);
    roots_of_unity(n, known);
    if (n < 50) {
      const double norm = solve(0, n, 8, shift_entry, &n, lambda);
      expect_set("complex shift", n, known, lambda, sq_eigen_limit(n) * norm);
    }
    const double norm = solve_real(0, n, 32, shift_entry_real, &n, lambda);
    expect_set("real shift", n, known, lambda, sq_eigen_limit(n) * norm);
    free(lambda);
    free(known);
  }
}

/* Non-normal: each eigenvalue within its own condition, which LAPACK gives, and LAPACK's are there too. */
static void triangular_matrices_to_their_condition(void **state)
{
  static const int order[] = {1, 2, 10, 60};
  (void)state;
  for (size_t k = 0; k < sizeof order / sizeof *order; ++k) {
    const int n = order[k];
    const size_t nn = (size_t)n * (size_t)n;
    int shape, NB;
    sq_complex *lambda = need((size_t)n, sizeof *lambda), *a = need(nn, sizeof *a),
               *w = need((size_t)n, sizeof *w);
    double *s = need((size_t)n, sizeof *s), *work = need(sq_eigenvalues_condition_work(n), sizeof *work);
    for (int real = 0; real < 2; ++real) {
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j)
          a[(size_t)i * (size_t)n + (size_t)j] =
              real ? triangle_entry_real(NULL, i, j) : triangle_entry(NULL, i, j);
      assert_int_equal(sq_eigenvalues_condition(n, a, w, s, work), SQ_OK);
      for (int v = 0; variants(n, v, &shape, &NB); ++v) {
        const double norm = real ? solve_real(shape, n, NB, triangle_entry_real, NULL, lambda)
                                 : solve(shape, n, NB, triangle_entry, NULL, lambda);
        for (int i = 0; i < n; ++i) {
          const sq_complex known = real ? triangle_entry_real(NULL, i, i) : triangle_entry(NULL, i, i);
          double best = INFINITY, condition = 0, nearest = INFINITY;
          for (int j = 0; j < n; ++j) {
            best = fmin(best, cabs(lambda[j] - known));
            if (cabs(w[j] - known) < nearest) nearest = cabs(w[j] - known), condition = s[j];
          }
          if (!(best <= sq_eigen_limit(n) * norm / condition))
            fail_msg("n = %d, eigenvalue %d: off by %.3g, allowed %.3g", n, i, best,
                     sq_eigen_limit(n) * norm / condition);
        }
      }
    }
    free(lambda), free(a), free(w), free(s), free(work);
  }
}

/* A communicator that is not the world: odd ranks and even ranks solve problems of their own. */
static void two_groups_of_ranks_work_beside_each_other(void **state)
{
  MPI_Comm half;
  (void)state;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &half);
  const int n = rank % 2 ? 75 : 49;
  mirrored z = mirrored_create(n, 0);
  sq_complex *lambda = need((size_t)n, sizeof *lambda);
  sq_pgrid *g = grid_of(half, 0, n, 8);
  sq_dist d;
  sq_eigen_report r;
  assert_int_equal(sq_dist_init(&d, g, n, n, 8), SQ_OK);
  sq_complex *a = need(sq_dist_count(&d), sizeof *a);
  sq_dist_fill(&d, mirrored_entry, &z, a);
  assert_int_equal(sq_eigen_values(&d, a, 0, lambda, &r), SQ_OK);
  expect_set("half of the ranks", n, z.known, lambda, sq_eigen_limit(n) * r.norm);
  sq_pgrid_destroy(&g);
  MPI_Comm_free(&half);
  free(a);
  free(lambda);
  mirrored_destroy(&z);
}

/* The values of the last rank's copy are those of rank 0's, bit for bit. */
static void all_ranks_have_the_same_values(void **state)
{
  const int n = 75;
  sq_complex *lambda = need((size_t)n, sizeof *lambda), *first = need((size_t)n, sizeof *first);
  (void)state;
  solve(1, n, 64, triangle_entry, NULL, lambda);
  memcpy(first, lambda, (size_t)n * sizeof *first);
  MPI_Bcast(first, n, MPI_C_DOUBLE_COMPLEX, 0, MPI_COMM_WORLD);
  assert_memory_equal(first, lambda, (size_t)n * sizeof *first);
  free(lambda);
  free(first);
}

static void a_zero_matrix_has_zero_eigenvalues(void **state)
{
  const int n = 20;
  mirrored z = {.n = n, .known = need((size_t)n, sizeof *z.known), .w = need((size_t)n, sizeof *z.w)};
  sq_complex lambda[20];
  (void)state;
  solve(0, n, 8, mirrored_entry, &z, lambda);
  for (int i = 0; i < n; ++i) assert_true(lambda[i] == 0);
  mirrored_destroy(&z);
}

static int run(void)
{
  const struct CMUnitTest test[] = {cmocka_unit_test(a_grid_uses_the_ranks),
                                    cmocka_unit_test(matrices_survive_every_move),
                                    cmocka_unit_test(known_eigenvalues_of_normal_matrices),
                                    cmocka_unit_test(roots_of_unity_from_the_cyclic_shift),
                                    cmocka_unit_test(triangular_matrices_to_their_condition),
                                    cmocka_unit_test(two_groups_of_ranks_work_beside_each_other),
                                    cmocka_unit_test(all_ranks_have_the_same_values),
                                    cmocka_unit_test(a_zero_matrix_has_zero_eigenvalues)};
  return cmocka_run_group_tests(test, NULL, NULL);
}

int main(void)
{
  return eigen_main(run);
}
