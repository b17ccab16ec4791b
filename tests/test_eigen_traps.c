/* tests/test_eigen_traps.c: ScaLAPACK's traps (src/eigen/values.c lists them), and that every error is everybody's.
 *
 * The linker puts the functions below between the module and the library: they see with what the library is
 * called, and can make it fail on one rank. */
#include <malloc.h>

#include "eigen_fixture.h"

void Cblacs_gridinfo(int context, int *nprow, int *npcol, int *myrow, int *mycol);
void pxerbla_(const int *context, const char *routine, const int *position, size_t length);

static struct {
  int calls, queries;
  int job_is_schur, lwork, asked, iwork_room, iwork_used, n, nb, below; /* of the last call */
  int fail_rank, fail_info, complain, spoil; /* what to do to the next call; rank -1: none */
} seen;

/* Entries of this rank's part that are below the subdiagonal and not zero. */
static int entries_below(const int *desc, const double *a, int width)
{
  int nprow, npcol, myrow, mycol, found = 0;
  Cblacs_gridinfo(desc[1], &nprow, &npcol, &myrow, &mycol);
  const int nb = desc[4], n = desc[2];
  for (int l = 0;; ++l) {
    const int j = (l / nb * npcol + mycol) * nb + l % nb;
    if (j >= n) break;
    for (int k = 0;; ++k) {
      const int i = (k / nb * nprow + myrow) * nb + k % nb;
      if (i >= n) break;
      for (int c = 0; c < width; ++c)
        found += i > j + 1 && a[((size_t)l * (size_t)desc[8] + (size_t)k) * (size_t)width + (size_t)c] != 0;
    }
  }
  return found;
}

static void misbehave(int *info, double *value)
{
  const int position = 15;
  if (seen.spoil) *value += 1e-6;
  if (rank != seen.fail_rank) return;
  if (seen.complain) pxerbla_(&position, "PDLAQR1         ", &position, 7);
  if (seen.fail_info) *info = seen.fail_info;
}

void __real_pdhseqr_(const char *job, const char *compz, const int *n, const int *ilo, const int *ihi,
                     double *h, const int *desch, double *wr, double *wi, double *z, const int *descz,
                     double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t a,
                     size_t b);
void __wrap_pdhseqr_(const char *job, const char *compz, const int *n, const int *ilo, const int *ihi,
                     double *h, const int *desch, double *wr, double *wi, double *z, const int *descz,
                     double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t a,
                     size_t b);
void __wrap_pdhseqr_(const char *job, const char *compz, const int *n, const int *ilo, const int *ihi,
                     double *h, const int *desch, double *wr, double *wi, double *z, const int *descz,
                     double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t a,
                     size_t b)
{
  ++seen.calls;
  seen.job_is_schur = *job == 'S';
  seen.n = *n;
  seen.nb = desch[4];
  seen.below = entries_below(desch, h, 1);
  if (*lwork == -1) { /* what it writes to IWORK, seen in a large array of zeros, must fit the module's */
    const size_t large = 64 * (size_t)*n + 100000;
    int *own = need(large, sizeof *own);
    ++seen.queries;
    seen.iwork_room = (int)(malloc_usable_size(iwork) / sizeof *iwork);
    __real_pdhseqr_(job, compz, n, ilo, ihi, h, desch, wr, wi, z, descz, work, lwork, own, liwork, info, a,
                    b);
    for (size_t i = 0; i < large; ++i)
      if (own[i]) seen.iwork_used = (int)i + 1;
    seen.asked = (int)work[0];
    iwork[0] = own[0];
    free(own);
    return;
  }
  seen.lwork = *lwork;
  __real_pdhseqr_(job, compz, n, ilo, ihi, h, desch, wr, wi, z, descz, work, lwork, iwork, liwork, info, a,
                  b);
  misbehave(info, wr);
}

void __real_pzlahqr_(const int *wantt, const int *wantz, const int *n, const int *ilo, const int *ihi,
                     sq_complex *a, const int *desca, sq_complex *w, const int *iloz, const int *ihiz,
                     sq_complex *z, const int *descz, sq_complex *work, const int *lwork, int *iwork,
                     const int *liwork, int *info);
void __wrap_pzlahqr_(const int *wantt, const int *wantz, const int *n, const int *ilo, const int *ihi,
                     sq_complex *a, const int *desca, sq_complex *w, const int *iloz, const int *ihiz,
                     sq_complex *z, const int *descz, sq_complex *work, const int *lwork, int *iwork,
                     const int *liwork, int *info);
void __wrap_pzlahqr_(const int *wantt, const int *wantz, const int *n, const int *ilo, const int *ihi,
                     sq_complex *a, const int *desca, sq_complex *w, const int *iloz, const int *ihiz,
                     sq_complex *z, const int *descz, sq_complex *work, const int *lwork, int *iwork,
                     const int *liwork, int *info)
{
  ++seen.calls;
  seen.below = entries_below(desca, (const double *)(const void *)a, 2);
  __real_pzlahqr_(wantt, wantz, n, ilo, ihi, a, desca, w, iloz, ihiz, z, descz, work, lwork, iwork, liwork,
                  info);
  misbehave(info, (double *)(void *)w);
}

/* Eigenvalues of the lower triangular matrix; its entry (bad, 0) becomes `spoiled`. */
static sq_status solve(int real, int n, int NB, int bad, double spoiled, sq_complex *lambda,
                       sq_eigen_report *r)
{
  sq_pgrid *g;
  sq_dist d;
  assert_int_equal(sq_pgrid_create(MPI_COMM_WORLD, n, NB, &g), SQ_OK);
  assert_int_equal(sq_dist_init(&d, g, n, n, NB), SQ_OK);
  double *a = need(2 * sq_dist_count(&d), sizeof *a);
  if (real)
    sq_dist_fill_real(&d, triangle_entry_real, NULL, a);
  else
    sq_dist_fill(&d, triangle_entry, NULL, (sq_complex *)(void *)a);
  for (int k = 0; k < d.rows; ++k)
    if (d.cols > 0 && sq_dist_row(&d, k) == bad && sq_dist_col(&d, 0) == 0) a[(real ? 1 : 2) * k] = spoiled;
  const sq_status st = real ? sq_eigen_values_real(&d, a, 0, lambda, r)
                            : sq_eigen_values(&d, (sq_complex *)(void *)a, 0, lambda, r);
  sq_pgrid_destroy(&g);
  free(a);
  return st;
}

/* One status and one text, whoever saw the error. */
static void expect_error(sq_status st, sq_status expected, const char *words)
{
  char text[256] = "", first[256];
  assert_int_equal(st, expected);
  sq_format(text, sizeof text, "%.250s", sq_error_text());
  memcpy(first, text, sizeof first);
  MPI_Bcast(first, sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
  assert_string_equal(first, text);
  if (!strstr(text, words)) fail_msg("the error is \"%s\" and lacks \"%s\"", text, words);
  sq_error_clear();
}

static void reset(void)
{
  memset(&seen, 0, sizeof seen);
  seen.fail_rank = -1;
}

/* ---- how the library is called -------------------------------------------------------------------------- */
static void the_library_gets_what_it_really_needs(void **state)
{
  static const int order[] = {1, 10, 100, 300, 400};
  (void)state;
  for (size_t i = 0; i < sizeof order / sizeof *order; ++i) {
    const int n = order[i];
    sq_complex *lambda = need((size_t)n, sizeof *lambda);
    sq_eigen_report r;
    reset();
    assert_int_equal(solve(1, n, 50, -1, 0, lambda, &r), SQ_OK);
    if (seen.calls > 0) { /* the rank is in the grid */
      assert_int_equal(seen.queries, 1);
      assert_int_equal(seen.calls, 2);
      assert_true(seen.job_is_schur);
      assert_true(seen.lwork >= 3 * seen.asked);
      assert_true(seen.iwork_room >= seen.iwork_used);
      assert_true(seen.iwork_room >= 8 * n + 4096);
      assert_true(seen.n % seen.nb != 0);
      assert_int_equal(seen.below, 0);
    }
    free(lambda);
  }
}

/* Orders and blocks where the library, called as its documentation says, was seen to be wrong with info = 0: blocks
   that divide n (128, 192 with 64) and too little workspace (300 and more).  JOB = 'E' was wrong for some matrices of
   these orders, not for all: that it is not used is seen from the call itself (job_is_schur), not from values. */
static void real_values_are_right_where_the_traps_are(void **state)
{
  static const int order[][2] = {{128, 64}, {192, 64}, {300, 50}, {450, 32}};
  (void)state;
  for (size_t k = 0; k < sizeof order / sizeof *order; ++k) {
    const int n = order[k][0];
    mirrored m = mirrored_create(n, 1);
    sq_complex *lambda = need((size_t)n, sizeof *lambda);
    sq_pgrid *g;
    sq_dist d;
    sq_eigen_report r;
    reset();
    assert_int_equal(sq_pgrid_create(MPI_COMM_WORLD, n, order[k][1], &g), SQ_OK);
    assert_int_equal(sq_dist_init(&d, g, n, n, order[k][1]), SQ_OK);
    double *a = need(sq_dist_count(&d), sizeof *a);
    sq_dist_fill_real(&d, mirrored_entry_real, &m, a);
    const sq_status st = sq_eigen_values_real(&d, a, 0, lambda, &r);
    if (st != SQ_OK) fail_msg("n = %d: %s", n, sq_error_text());
    expect_set("real", n, m.known, lambda, sq_eigen_limit(n) * r.norm);
    sq_pgrid_destroy(&g);
    free(a);
    free(lambda);
    mirrored_destroy(&m);
  }
}

static void householder_vectors_are_cleared_for_the_complex_iteration_too(void **state)
{
  sq_complex lambda[40];
  sq_eigen_report r;
  (void)state;
  reset();
  assert_int_equal(solve(0, 40, 8, -1, 0, lambda, &r), SQ_OK);
  assert_int_equal(seen.below, 0);
}

static void small_blocks_are_refused(void **state)
{
  sq_complex lambda[40];
  sq_eigen_report r;
  (void)state;
  reset();
  for (int NB = 1; NB < SQ_EIGEN_MIN_BLOCK; ++NB)
    for (int real = 0; real < 2; ++real)
      expect_error(solve(real, 40, NB, -1, 0, lambda, &r), SQ_ERR_USAGE, "at least 6");
  assert_int_equal(seen.calls, 0);
  assert_int_equal(solve(1, 40, SQ_EIGEN_MIN_BLOCK, -1, 0, lambda, &r), SQ_OK);
  assert_int_equal(solve(0, 40, SQ_EIGEN_MIN_BLOCK, -1, 0, lambda, &r), SQ_OK);
}

/* ---- errors --------------------------------------------------------------------------------------------- */
static void a_number_that_is_not_finite_is_an_error_of_all(void **state)
{
  sq_complex lambda[40];
  sq_eigen_report r;
  (void)state;
  reset();
  for (int real = 0; real < 2; ++real)
    for (int bad = 0; bad < 40; bad += 13) {
      expect_error(solve(real, 40, 8, bad, NAN, lambda, &r), SQ_ERR_DATA, "not finite");
      expect_error(solve(real, 40, 8, bad, -INFINITY, lambda, &r), SQ_ERR_DATA, "not finite");
    }
  assert_int_equal(seen.calls, 0);
}

static void a_failure_of_one_rank_is_one_of_all(void **state)
{
  sq_complex lambda[100];
  sq_eigen_report r;
  (void)state;
  for (int real = 0; real < 2; ++real)
    for (int who = 0; who < (nrank < 4 ? nrank : 4);
         ++who) { /* all are in the grid: 1 x 1, 1 x 2, 2 x 2, 2 x 3 */
      reset();
      seen.fail_rank = who;
      seen.fail_info = 5;
      expect_error(solve(real, 100, 16, -1, 0, lambda, &r), SQ_ERR_INTERNAL, "did not converge");
      seen.fail_info = -705;
      expect_error(solve(real, 100, 16, -1, 0, lambda, &r), SQ_ERR_INTERNAL, "info -705");
      seen.fail_info = 0;
      seen.complain = 1;
      expect_error(solve(real, 100, 16, -1, 0, lambda, &r), SQ_ERR_INTERNAL,
                   "PDLAQR1 refused its argument number 15");
      seen.complain = 0; /* a complaint is forgotten before the next problem */
      assert_int_equal(solve(real, 100, 16, -1, 0, lambda, &r), SQ_OK);
    }
}

/* 1e-6 in one of 100 values with info = 0: what JOB = 'E' does, only smaller. */
static void wrong_values_are_not_given_as_right(void **state)
{
  sq_complex lambda[100];
  sq_eigen_report r;
  (void)state;
  for (int real = 0; real < 2; ++real) {
    reset();
    seen.spoil = 1;
    expect_error(solve(real, 100, 16, -1, 0, lambda, &r), SQ_ERR_INTERNAL, "not its own");
  }
}

/* PZLAHQR's shifts do not converge for the cyclic shift of order 75 (they do up to 50). */
static void no_convergence_is_an_error_of_all(void **state)
{
  const int n = 75;
  sq_complex lambda[75];
  sq_pgrid *g;
  sq_dist d;
  sq_eigen_report r;
  (void)state;
  reset();
  assert_int_equal(sq_pgrid_create(MPI_COMM_WORLD, n, 64, &g), SQ_OK);
  assert_int_equal(sq_dist_init(&d, g, n, n, 64), SQ_OK);
  sq_complex *a = need(sq_dist_count(&d), sizeof *a);
  sq_dist_fill(&d, shift_entry, &n, a);
  expect_error(sq_eigen_values(&d, a, 0, lambda, &r), SQ_ERR_INTERNAL, "did not converge");
  sq_pgrid_destroy(&g);
  free(a);
}

static int run(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(the_library_gets_what_it_really_needs),
      cmocka_unit_test(real_values_are_right_where_the_traps_are),
      cmocka_unit_test(householder_vectors_are_cleared_for_the_complex_iteration_too),
      cmocka_unit_test(small_blocks_are_refused),
      cmocka_unit_test(a_number_that_is_not_finite_is_an_error_of_all),
      cmocka_unit_test(a_failure_of_one_rank_is_one_of_all),
      cmocka_unit_test(wrong_values_are_not_given_as_right),
      cmocka_unit_test(no_convergence_is_an_error_of_all)};
  return cmocka_run_group_tests(test, NULL, NULL);
}

int main(void)
{
  return eigen_main(run);
}
