/* Bins, recurrence, coordinates, energy and Hankel values against their definitions. */
#include <string.h>

#include "spectra_fixture.h"
#include "sq/linalg.h"

/* ---- bins -------------------------------------------------------------------------------------------- */
static void expect_counts(const char *label, int nbin, const double *percent, size_t n, const int *count)
{
  for (int k = 0; k < nbin; ++k)
    if (!(fabs(percent[k] - 100.0 * count[k] / (double)n) <= 1e-12))
      fail_msg("%s, bin %d: %.17g percent, expected %d of %zu", label, k, percent[k], count[k], n);
}

static void half_open_radius_bins_count_each_value_once(void **state)
{
  (void)state;
  const double lambda[] = {0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1, 1.5, 10, 50, 100, 101, INFINITY, NAN};
  const int expected[SQ_NRADIUS] = {3, 2, 2, 2, 2, 2, 2}; /* the NaN is not in n */
  double log_lambda[16], percent[SQ_NRADIUS];
  for (int i = 0; i < 16; ++i) log_lambda[i] = log(lambda[i]);
  sq_bin_radius(16, log_lambda, 0, percent);
  expect_counts("open radius", SQ_NRADIUS, percent, 15, expected);
}

static void values_beside_a_threshold_fall_on_their_side(void **state)
{
  (void)state;
  for (int t = 0; t < SQ_NRADIUS - 1; ++t) {
    const double at = log(sq_radius_threshold[t]), step = 1e-14;
    const double x[3] = {at - step, at, at + step};
    int expected[SQ_NRADIUS] = {0};
    double percent[SQ_NRADIUS];
    expected[t] = 2;
    expected[t + 1] = 1;
    sq_bin_radius(3, x, 0, percent);
    expect_counts("beside a threshold", SQ_NRADIUS, percent, 3, expected);
  }
}

static void ratios_on_a_threshold_do_not_depend_on_rounding(void **state)
{
  (void)state;
  /* 9/10 as a difference of logs of eta, for normalisers of many sizes: always in (0.5, 0.9] */
  for (double unit = 1; unit < 10; unit *= 1.37) {
    const double x = log(9 * unit) - log(10 * unit);
    const int expected[SQ_NRADIUS] = {0, 0, 1, 0, 0, 0, 0};
    double percent[SQ_NRADIUS];
    sq_bin_radius(1, &x, 0, percent);
    expect_counts("9/10", SQ_NRADIUS, percent, 1, expected);
  }
}

static void closed_radius_bins_count_thresholds_twice_and_nan_nowhere(void **state)
{
  (void)state;
  /* 1 is exact in logs; the other values lie inside their bins */
  const double log_lambda[] = {-INFINITY, -1000,   log(0.3), log(0.7), 0,  0,
                               log(5),    log(50), 1000,     INFINITY, NAN};
  const int expected[SQ_NRADIUS] = {2, 1, 1, 2, 3, 1, 2};
  double percent[SQ_NRADIUS];
  sq_bin_radius(11, log_lambda, 1, percent);
  expect_counts("closed radius", SQ_NRADIUS, percent, 11, expected);
}

static void phase_bins_follow_both_rules(void **state)
{
  (void)state;
  const double degree = M_PI / 180;
  const double angle[] = {0,           0.5 * degree, 5 * degree, -5 * degree, 30 * degree,
                          90 * degree, M_PI,         -M_PI,      NAN};
  const int open[SQ_NPHASE] = {2, 2, 1, 1, 2, 0},
            closed[SQ_NPHASE] = {2, 1, 1, 1, 2, 0}; /* 90 counts twice */
  double percent[SQ_NPHASE];
  sq_bin_phase(9, angle, 0, percent);
  expect_counts("open phase", SQ_NPHASE, percent, 8, open);
  sq_bin_phase(9, angle, 1, percent);
  expect_counts("closed phase", SQ_NPHASE, percent, 9, closed);
}

static void no_values_have_no_shares(void **state)
{
  (void)state;
  const double nothing = NAN;
  double percent[SQ_NRADIUS];
  sq_bin_radius(0, &nothing, 0, percent);
  assert_true(isnan(percent[0]));
  sq_bin_radius(1, &nothing, 0, percent);
  assert_true(isnan(percent[3]));
  sq_bin_radius(1, &nothing, 1, percent);
  assert_true(percent[3] == 0);
}

static void uniform_attention_fills_the_bin_below_one_by_length_alone(void **state)
{
  (void)state;
  /* lambda_i = i/(i+1), i = 1..T-1, exceeds 0.9 for i >= 10; 9/10 itself counts only where the bin is closed
   * below */
  const int lengths[] = {64, 512, 4096};
  const double with_the_threshold[] = {87.3, 98.4, 99.8};
  for (int k = 0; k < 3; ++k) {
    const int T = lengths[k];
    double *x = calloc((size_t)T, sizeof *x), percent[SQ_NRADIUS];
    assert_non_null(x);
    for (int i = 1; i < T; ++i) x[i] = log((double)i / (i + 1));
    sq_bin_radius((size_t)T - 1, x + 1, 0, percent);
    assert_true(fabs(percent[3] - 100.0 * (T - 10) / (T - 1)) < 1e-12);
    assert_true(fabs(percent[2] - 100.0 * 8 / (T - 1)) < 1e-12); /* 2/3 .. 9/10 */
    /* Closed below, the bin may also hold 9/10, if exp(log(9/10)) is not below it: one value more or less. */
    sq_bin_radius((size_t)T - 1, x + 1, 1, percent);
    assert_true(fabs(percent[3] - 100.0 * (T - 10 + (exp(x[9]) >= 0.9)) / (T - 1)) < 1e-12);
    assert_true(fabs(percent[3] - with_the_threshold[k]) <= 0.06 + 100.0 / (T - 1));
    free(x);
  }
}

/* ---- recurrence -------------------------------------------------------------------------------------- */
static double run_error(const sq_factors *f)
{
  const size_t T = (size_t)f->T, dv = (size_t)f->dv;
  double *M = dense_matrix(f), *y = calloc(T * dv, sizeof *y), *expected = calloc(T * dv, sizeof *y);
  for (size_t i = 0; i < T; ++i)
    for (size_t j = 0; j <= i; ++j)
      for (size_t x = 0; x < dv; ++x) expected[i * dv + x] += M[i * T + j] * f->v[j * dv + x];
  assert_int_equal(sq_factors_run(f, y), SQ_OK);
  const double error = relative_error(T * dv, y, expected);
  free(M);
  free(y);
  free(expected);
  return error;
}

static void the_recurrence_is_the_matrix(void **state)
{
  (void)state;
  const int shapes[][4] = {{1, 1, 1, 0}, {2, 3, 1, 0},  {33, 4, 5, 0}, {70, 16, 3, 0},
                           {1, 2, 1, 1}, {33, 4, 5, 1}, {70, 8, 3, 1}};
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; ++k) {
    factors_fixture x = factors_random(k, shapes[k][0], shapes[k][1], shapes[k][2], shapes[k][3], 0.3);
    /* T sums of n products; measured 4e-15 */
    expect_below(shapes[k][3] ? "run, infinite state" : "run, finite state", run_error(&x.f), 1e-13);
    factors_release(&x);
  }
}

/* Coordinates so wild that every factor by itself over- or underflows. */
static void random_gauge(uint64_t seed, int T, double spread, double *log_s)
{
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_TEST, 1000);
  for (int i = 0; i < T; ++i) log_s[i] = spread * sq_rng_normal(&r);
}

static void nothing_overflows_in_wild_coordinates(void **state)
{
  (void)state;
  double log_s[50];
  for (int exponential = 0; exponential < 2; ++exponential) {
    factors_fixture x = factors_random(5, 50, 6, 4, exponential, 0.2);
    double *before = calloc(50 * 4, sizeof *before), *after = calloc(50 * 4, sizeof *after);
    assert_int_equal(sq_factors_run(&x.f, before), SQ_OK);
    random_gauge(6, 50, 10000, log_s);
    sq_factors_regauge(&x.f, log_s);
    assert_true(largest_abs(50, x.f.log_lambda) > 20000);
    assert_int_equal(sq_factors_run(&x.f, after), SQ_OK);
    /* logs of 3e4 are rounded to 4e-12; measured 2e-11 */
    expect_below("run, |log lambda| > 20000", relative_error(50 * 4, after, before), 2e-10);
    free(before);
    free(after);
    factors_release(&x);
  }
}

static void a_zero_eigenvalue_forgets_exactly(void **state)
{
  (void)state;
  for (int exponential = 0; exponential < 2; ++exponential) {
    factors_fixture x = factors_random(7, 40, 3, 2, exponential, 0.2);
    x.f.log_lambda[17] = -INFINITY;
    x.f.log_lambda[35] = -INFINITY;
    x.f.log_b[35] = -INFINITY;
    expect_below("run, lambda = 0", run_error(&x.f), 1e-13);
    double e[40] = {0};
    assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
    assert_true(e[18] == 0 && e[17] > 0); /* the longest stretch is 17 .. 34 */
    factors_release(&x);
  }
}

/* ---- energy ------------------------------------------------------------------------------------------ */
static void energy_is_the_sum_over_diagonals(void **state)
{
  (void)state;
  for (int exponential = 0; exponential < 2; ++exponential) {
    factors_fixture x = factors_random(8, 100, 5, 1, exponential, 0.3);
    double *M = dense_matrix(&x.f), e[100] = {0}, expected[100] = {0};
    for (int i = 0; i < 100; ++i)
      for (int j = 0; j <= i; ++j) expected[i - j] += M[i * 100 + j] * M[i * 100 + j];
    const double top = largest_abs(100, expected);
    for (int d = 0; d < 100; ++d) expected[d] /= top;
    assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
    expect_below("energy by distance", relative_error(100, e, expected), 1e-13); /* measured 2e-15 */
    assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
    for (int d = 0; d < 100; ++d) expected[d] *= 2;
    expect_below("energy is added to", relative_error(100, e, expected), 1e-13);
    free(M);
    factors_release(&x);
  }
}

static void a_pure_delay_has_its_own_distance(void **state)
{
  (void)state;
  /* delay line: c_i and b_j are unit vectors that meet only at i - j = 3 (modulo n, with lambda = 0 no help
   * needed) */
  enum { T = 12, N = T };
  factors_fixture x = factors_alloc(T, N, 1, 0);
  memset(x.arena.base, 0, x.arena.used);
  for (int i = 0; i < T; ++i) {
    x.f.b[i * N + i] = 1;
    if (i >= 3) x.f.c[i * N + i - 3] = 1;
    x.f.log_b[i] = 500; /* far beyond what squares to a double */
  }
  double e[T] = {0};
  assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
  for (int d = 0; d < T; ++d) assert_true(e[d] == (d == 3));
  for (int q = 1; q < 10; ++q) assert_true(sq_distance_quantile(T, e, 0.1 * q) == 3);
  factors_release(&x);

  const double two[4] = {1, 0, 1, 2}, none[3] = {0, 0, 0}; /* cumulative .25 .25 .5 1 */
  assert_true(sq_distance_quantile(4, two, .1) == 0);
  assert_true(sq_distance_quantile(4, two, .25) == 0);
  assert_true(sq_distance_quantile(4, two, .5) == 2);
  assert_true(sq_distance_quantile(4, two, .75) == 3);
  assert_true(isnan(sq_distance_quantile(3, none, .5)));
}

/* ---- Hankel values ----------------------------------------------------------------------------------- */
/* Dense SVD of the block itself. */
static int dense_hankel(const sq_factors *f, int t, double *sigma, double *log_sigma1)
{
  const int rows = f->T - t, n = t < rows ? t : rows;
  double *M = dense_matrix(f), *block = calloc((size_t)(rows * t), sizeof *block);
  double *work = calloc(sq_svd_work(rows, t), sizeof *work);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < t; ++j) block[i * t + j] = M[(i + t) * f->T + j];
  assert_int_equal(sq_svd_values(rows, t, block, sigma, work), SQ_OK);
  *log_sigma1 = log(sigma[0]);
  const double first = sigma[0];
  for (int k = 0; k < n; ++k) sigma[k] /= first;
  free(M);
  free(block);
  free(work);
  return n;
}

static void hankel_values_are_those_of_the_dense_block(void **state)
{
  (void)state;
  const int cases[][4] = {/* T, n, t, exponential */
                          {2, 1, 1, 0},     {20, 4, 10, 0},  {20, 4, 1, 0},  {20, 4, 19, 0},
                          {20, 16, 10, 0},  {20, 30, 10, 0}, {20, 30, 3, 0}, {150, 8, 70, 0},
                          {300, 16, 20, 0}, {20, 3, 10, 1},  {21, 3, 5, 1},  {90, 4, 50, 1}};
  double sigma[300], dense[300];
  for (size_t k = 0; k < sizeof cases / sizeof *cases; ++k) {
    const int T = cases[k][0], n = cases[k][1], t = cases[k][2], exponential = cases[k][3];
    factors_fixture x = factors_random(20 + k, T, n, 1, exponential, 0.2);
    int count = -1;
    double log_sigma1, dense_log;
    assert_int_equal(sq_factors_hankel(&x.f, t, sigma, &count, &log_sigma1), SQ_OK);
    const int full = dense_hankel(&x.f, t, dense, &dense_log);
    assert_int_equal(count, exponential || full < n ? full : n);
    for (int i = count; i < full; ++i) assert_true(dense[i] < 1e-14); /* rank n at most */
    char label[96];
    sq_format(label, sizeof label, "Hankel T=%d n=%d t=%d%s", T, n, t, exponential ? " exponential" : "");
    expect_below(label, relative_error((size_t)count, sigma, dense), 1e-13); /* measured 2e-15 */
    expect_below("  log sigma_1", fabs(log_sigma1 - dense_log), 1e-12);
    factors_release(&x);
  }
}

static void small_singular_values_survive(void **state)
{
  (void)state;
  /* n = 2, lambda = 1: the second direction is 1e-6 in both factors, so sigma_2 is 1e-12 of sigma_1; products
     of Gramians (squares, 1e-24) would lose it.  Columns are orthogonal by construction, so the ratio is
     exact. */
  enum { T = 8, N = 2 };
  factors_fixture x = factors_alloc(T, N, 1, 0);
  memset(x.arena.base, 0, x.arena.used);
  for (int i = 0; i < T; ++i) {
    const double sign = i % 2 ? -1 : 1;
    x.f.b[i * N] = x.f.c[i * N] = 1;
    x.f.b[i * N + 1] = x.f.c[i * N + 1] = 1e-6 * sign;
  }
  double sigma[N], log_sigma1, size[3];
  int count;
  assert_int_equal(sq_factors_hankel(&x.f, 4, sigma, &count, &log_sigma1), SQ_OK);
  assert_int_equal(count, 2);
  expect_below("sigma_2 = 1e-12 sigma_1", fabs(sigma[1] / 1e-12 - 1), 1e-3); /* eps/1e-12 = 2e-4 */
  expect_below("log sigma_1 = log 4", fabs(log_sigma1 - log(4)), 1e-14);
  sq_effective_state_size(count, sigma, size);
  assert_true(size[0] == 1);
  factors_release(&x);
}

static void hankel_values_bear_wild_scales_and_zero_rows(void **state)
{
  (void)state;
  double sigma[64], again[64], log_s[64], log_sigma1, log_again;
  for (int exponential = 0; exponential < 2; ++exponential) {
    factors_fixture x = factors_random(40, 64, 5, 1, exponential, 0.2);
    int n, m;
    for (int k = 0; k < 5; ++k) x.f.c[40 * 5 + k] = x.f.b[9 * 5 + k] = 0;
    x.f.log_b[3] = -INFINITY;
    assert_int_equal(sq_factors_hankel(&x.f, 30, sigma, &n, &log_sigma1), SQ_OK);
    random_gauge(41, 64, 1000, log_s);
    sq_factors_regauge(&x.f, log_s);
    for (int i = 0; i < 64; ++i) x.f.log_b[i] -= 5000; /* the whole map times exp(-5000) */
    assert_int_equal(sq_factors_hankel(&x.f, 30, again, &m, &log_again), SQ_OK);
    assert_int_equal(n, m);
    expect_below("Hankel in wild coordinates", relative_error((size_t)n, again, sigma),
                 1e-11); /* logs 5e3: 1e-12 each */
    expect_below("  log sigma_1", fabs(log_again + 5000 - log_sigma1), 1e-10);

    for (int i = 30; i < 64; ++i) x.f.log_c[i] = -INFINITY; /* no future */
    assert_int_equal(sq_factors_hankel(&x.f, 30, sigma, &n, &log_sigma1), SQ_OK);
    assert_true(sigma[0] == 0 && sigma[n - 1] == 0 && log_sigma1 == -INFINITY);
    factors_release(&x);
  }
}

static void numbers_that_are_not_finite_are_refused(void **state)
{
  (void)state;
  double e[10] = {0}, sigma[10], log_sigma1;
  int n;
  for (int what = 0; what < 5; ++what) {
    factors_fixture x = factors_random(50, 10, 3, 1, 0, 0.2);
    double *const spot[] = {&x.f.log_lambda[4], &x.f.log_b[2], &x.f.log_c[9], &x.f.b[7], &x.f.c[0]};
    for (int sign = 0; sign < 2; ++sign) {
      *spot[what] = sign ? NAN : INFINITY;
      assert_int_equal(sq_factors_energy(&x.f, e), SQ_ERR_DATA);
      sq_error_clear();
      assert_int_equal(sq_factors_hankel(&x.f, 5, sigma, &n, &log_sigma1), SQ_ERR_DATA);
      sq_error_clear();
    }
    factors_release(&x);
  }
}

/* ---- effective state size ---------------------------------------------------------------------------- */
static void effective_sizes_of_known_spectra(void **state)
{
  (void)state;
  const double flat[4] = {1, 1, 1, 1}, one[3] = {1, 0, 0}, edge[4] = {1, 0.5, 1.01e-3, 0.99e-3},
               zero[2] = {0, 0};
  double size[3];
  sq_effective_state_size(4, flat, size);
  assert_true(size[0] == 4 && fabs(size[1] - 4) < 1e-14 && fabs(size[2] - 4) < 1e-14);
  sq_effective_state_size(3, one, size);
  assert_true(size[0] == 1 && size[1] == 1 && size[2] == 1);
  sq_effective_state_size(4, edge, size);
  assert_true(size[0] == 3);
  const double two[2] = {1, 0.5}; /* p = 2/3, 1/3 and 4/5, 1/5 */
  sq_effective_state_size(2, two, size);
  assert_true(fabs(size[1] - exp(2. / 3 * log(1.5) + log(3) / 3)) < 1e-14);
  assert_true(fabs(size[2] - exp(.8 * log(1.25) + .2 * log(5))) < 1e-14);
  sq_effective_state_size(2, zero, size);
  assert_true(size[0] == 0 && size[1] == 0 && size[2] == 0);
}

static void a_map_of_rank_r_has_effective_size_r(void **state)
{
  (void)state;
  /* n = 8 coordinates of which r carry anything: b is zero in the others */
  for (int r = 1; r <= 8; ++r) {
    factors_fixture x = factors_random(60, 60, 8, 1, 0, 0);
    double sigma[8], log_sigma1, size[3];
    int n;
    for (int i = 0; i < 60; ++i) {
      x.f.log_lambda[i] = 0;
      for (int k = r; k < 8; ++k) x.f.b[i * 8 + k] = 0;
    }
    assert_int_equal(sq_factors_hankel(&x.f, 30, sigma, &n, &log_sigma1), SQ_OK);
    assert_int_equal(n, 8);
    sq_effective_state_size(n, sigma, size);
    assert_true(size[0] == r);
    assert_true(size[1] <= r + 1e-9 && size[2] <= size[1] + 1e-12 && size[2] >= 1);
    factors_release(&x);
  }
}

/* ---- coordinates ------------------------------------------------------------------------------------- */
static void other_coordinates_change_eigenvalues_and_nothing_that_is_invariant(void **state)
{
  (void)state;
  enum { T = 60 };
  for (int exponential = 0; exponential < 2; ++exponential) {
    factors_fixture x = factors_random(70, T, 6, 3, exponential, 0.3);
    double log_s[T], before[T], y[T * 3], again_y[T * 3], e[T] = {0}, again_e[T] = {0}, sigma[T], again[T],
                                                          top, again_top;
    int n, m;
    memcpy(before, x.f.log_lambda, sizeof before);
    assert_int_equal(sq_factors_run(&x.f, y), SQ_OK);
    assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
    assert_int_equal(sq_factors_hankel(&x.f, T / 2, sigma, &n, &top), SQ_OK);
    random_gauge(71, T, 3, log_s);
    sq_factors_regauge(&x.f, log_s);
    assert_int_equal(sq_factors_run(&x.f, again_y), SQ_OK);
    assert_int_equal(sq_factors_energy(&x.f, again_e), SQ_OK);
    assert_int_equal(sq_factors_hankel(&x.f, T / 2, again, &m, &again_top), SQ_OK);
    assert_int_equal(n, m);
    expect_below("regauge: outputs", relative_error(T * 3, again_y, y), 1e-12);
    expect_below("regauge: energy", relative_error(T, again_e, e), 1e-12);
    expect_below("regauge: Hankel values", relative_error((size_t)n, again, sigma), 1e-12);
    expect_below("regauge: log sigma_1", fabs(again_top - top), 1e-12);
    for (int q = 1; q < 10; ++q)
      assert_true(sq_distance_quantile(T, e, .1 * q) == sq_distance_quantile(T, again_e, .1 * q));
    int changed = 0;
    for (int i = 1; i < T; ++i) changed += fabs(x.f.log_lambda[i] - before[i]) > 1e-3;
    assert_true(changed > T - 5);
    assert_true(x.f.log_lambda[0] == before[0]);
    factors_release(&x);
  }
}

static void attention_can_be_given_eigenvalues_of_one(void **state)
{
  (void)state;
  /* s_i = eta_i turns lambda_i = eta_(i-1)/eta_i into 1 */
  factors_fixture x = factors_random(80, 30, 4, 2, 1, 0);
  double log_eta[30], y[60], again[60];
  sq_rng r;
  sq_rng_init(&r, 81, SQ_STREAM_TEST, 0);
  for (int i = 0; i < 30; ++i) {
    log_eta[i] = 2 * sq_rng_normal(&r);
    x.f.log_b[i] = -log_eta[i];
    x.f.log_lambda[i] = i > 0 ? log_eta[i - 1] - log_eta[i] : 0;
  }
  assert_int_equal(sq_factors_run(&x.f, y), SQ_OK);
  sq_factors_regauge(&x.f, log_eta);
  for (int i = 0; i < 30; ++i) assert_true(fabs(x.f.log_lambda[i]) < 1e-14);
  assert_int_equal(sq_factors_run(&x.f, again), SQ_OK);
  expect_below("eta as coordinates", relative_error(60, again, y), 1e-13);
  factors_release(&x);
}

static void the_skip_belongs_to_the_map_and_to_distance_zero(void **state)
{
  (void)state;
  factors_fixture x = factors_random(31, 40, 3, 2, 0, 0.3);
  double y[80], e[40] = {0}, want[40] = {0}, run[80], sigma[2][40], top[2];
  int n[2];
  double *M = dense_matrix(&x.f);
  assert_int_equal(sq_factors_hankel(&x.f, 17, sigma[0], &n[0], &top[0]), SQ_OK);
  x.f.skip = -1.5;
  for (int i = 0; i < 40; ++i) M[i * 40 + i] += x.f.skip;
  for (int i = 0; i < 40; ++i)
    for (int k = 0; k < 2; ++k) {
      y[2 * i + k] = 0;
      for (int j = 0; j <= i; ++j) y[2 * i + k] += M[i * 40 + j] * x.f.v[2 * j + k];
    }
  assert_int_equal(sq_factors_run(&x.f, run), SQ_OK);
  expect_below("run with skip", relative_error(80, run, y), 1e-13);
  for (int i = 0; i < 40; ++i)
    for (int j = 0; j <= i; ++j) want[i - j] += M[i * 40 + j] * M[i * 40 + j];
  const double largest = largest_abs(40, want);
  for (int d = 0; d < 40; ++d) want[d] /= largest;
  assert_int_equal(sq_factors_energy(&x.f, e), SQ_OK);
  expect_below("energy with skip", relative_error(40, e, want), 1e-13);
  assert_int_equal(sq_factors_hankel(&x.f, 17, sigma[1], &n[1], &top[1]), SQ_OK);
  assert_true(top[0] == top[1] && memcmp(sigma[0], sigma[1], (size_t)n[0] * sizeof(double)) == 0);
  free(M);
  factors_release(&x);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(half_open_radius_bins_count_each_value_once),
      cmocka_unit_test(values_beside_a_threshold_fall_on_their_side),
      cmocka_unit_test(ratios_on_a_threshold_do_not_depend_on_rounding),
      cmocka_unit_test(closed_radius_bins_count_thresholds_twice_and_nan_nowhere),
      cmocka_unit_test(phase_bins_follow_both_rules),
      cmocka_unit_test(no_values_have_no_shares),
      cmocka_unit_test(uniform_attention_fills_the_bin_below_one_by_length_alone),
      cmocka_unit_test(the_recurrence_is_the_matrix),
      cmocka_unit_test(nothing_overflows_in_wild_coordinates),
      cmocka_unit_test(a_zero_eigenvalue_forgets_exactly),
      cmocka_unit_test(energy_is_the_sum_over_diagonals),
      cmocka_unit_test(a_pure_delay_has_its_own_distance),
      cmocka_unit_test(hankel_values_are_those_of_the_dense_block),
      cmocka_unit_test(small_singular_values_survive),
      cmocka_unit_test(hankel_values_bear_wild_scales_and_zero_rows),
      cmocka_unit_test(numbers_that_are_not_finite_are_refused),
      cmocka_unit_test(effective_sizes_of_known_spectra),
      cmocka_unit_test(a_map_of_rank_r_has_effective_size_r),
      cmocka_unit_test(other_coordinates_change_eigenvalues_and_nothing_that_is_invariant),
      cmocka_unit_test(attention_can_be_given_eigenvalues_of_one),
      cmocka_unit_test(the_skip_belongs_to_the_map_and_to_distance_zero),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
