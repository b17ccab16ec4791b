/* Time-invariant systems against their dense matrices, and the analysis of the layers that are made of them. */
#include <complex.h>

#include "spectra_model.h"
#include "sq/linalg.h"

typedef struct {
  sq_arena arena;
  sq_lti f;
} system_fixture;

static system_fixture system_alloc(int n, int nin, int nout, int dense)
{
  system_fixture x = {.f = {.nsystem = 1, .n = n, .nin = nin, .nout = nout, .dense = dense}};
  sq_lti_take(&x.arena, &x.f);
  assert_int_equal(sq_arena_create(&x.arena, x.arena.used, "a system"), SQ_OK);
  sq_lti_take(&x.arena, &x.f);
  return x;
}

static sq_complex normal(sq_rng *r)
{
  const double re = sq_rng_normal(r), im = sq_rng_normal(r);
  return re + I * im;
}

/* Bilinear discretisation by its definition: A = (1 - h/2 A_c)^-1 (1 + h/2 A_c), so that with d = 1 - h/2 lam the
   diagonal is (1 + h/2 lam)/d; Sherman-Morrison gives the rank one. */
static void discretise(sq_lti *f)
{
  const double half = f->step / 2;
  sq_complex s = 1;
  for (int k = 0; k < f->n; ++k) s += half * f->p[k] * conj(f->p[k]) / (1 - half * f->lam[k]);
  for (int k = 0; k < f->n; ++k) {
    const sq_complex d = 1 - half * f->lam[k];
    f->a[k] = (1 + half * f->lam[k]) / d;
    f->u[k] = 2 * half * f->p[k] / (d * s);
    f->v[k] = f->p[k] / conj(d);
  }
}

static system_fixture system_random(uint64_t seed, int n, int nin, int nout, int dense, double largest)
{
  system_fixture x = system_alloc(n, nin, nout, dense);
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_TEST, (uint64_t)n);
  for (int k = 0; k < n; ++k) {
    const double size = largest * sqrt(sq_rng_uniform(&r)), angle = 6.28 * sq_rng_uniform(&r);
    x.f.a[k] = size * (cos(angle) + I * sin(angle));
    for (int i = 0; i < nin; ++i) x.f.B[k * nin + i] = normal(&r);
    for (int o = 0; o < nout; ++o) x.f.C[o * n + k] = normal(&r);
    if (!dense) continue;
    x.f.lam[k] = -fabs(sq_rng_normal(&r)) + I * 5 * sq_rng_normal(&r);
    x.f.p[k] = 0.7 * normal(&r);
  }
  for (int o = 0; o < nout; ++o) x.f.D[o] = sq_rng_normal(&r);
  x.f.step = 0.1;
  if (dense) discretise(&x.f);
  return x;
}

/* Impulse responses (T, nout, nin) by powers of the dense matrix. */
static double *responses(const sq_lti *f, int T)
{
  const int n = f->n;
  sq_complex *A = calloc((size_t)n * (size_t)n, sizeof *A), *h = calloc((size_t)n, sizeof *h),
             *next = calloc((size_t)n, sizeof *next);
  double *y = calloc((size_t)T * (size_t)f->nout * (size_t)f->nin, sizeof *y);
  sq_lti_matrix(f, A);
  for (int i = 0; i < f->nin; ++i) {
    for (int k = 0; k < n; ++k) h[k] = f->B[k * f->nin + i];
    for (int t = 0; t < T; ++t) {
      for (int o = 0; o < f->nout; ++o) {
        double sum = t == 0 && o == i ? f->D[o] : 0;
        for (int k = 0; k < n; ++k) sum += creal(f->C[o * n + k] * h[k]);
        y[((size_t)t * (size_t)f->nout + (size_t)o) * (size_t)f->nin + (size_t)i] = sum;
      }
      for (int r = 0; r < n; ++r) {
        next[r] = 0;
        for (int k = 0; k < n; ++k) next[r] += A[r * n + k] * h[k];
      }
      memcpy(h, next, (size_t)n * sizeof *h);
    }
  }
  free(A);
  free(h);
  free(next);
  return y;
}

static const struct {
  int n, nin, nout, dense;
  double largest;
} shape[] = {{1, 1, 1, 0, 0.9}, {5, 3, 3, 0, 0.99}, {4, 20, 20, 0, 1}, {6, 2, 2, 0, 1.2},
             {1, 1, 1, 1, 1},   {7, 1, 1, 1, 1},    {24, 1, 1, 1, 1}};
enum { NSHAPE = sizeof shape / sizeof *shape, T = 37 };

static system_fixture system_of(int k)
{
  return system_random((uint64_t)k, shape[k].n, shape[k].nin, shape[k].nout, shape[k].dense,
                       shape[k].largest);
}

/* ---- one system -------------------------------------------------------------------------------------- */
static void running_is_the_sum_over_the_impulse_response(void **state)
{
  (void)state;
  for (int s = 0; s < NSHAPE; ++s) {
    system_fixture x = system_of(s);
    const int in = x.f.nin, out = x.f.nout;
    double *u = calloc((size_t)(T * in), sizeof *u), *y = calloc((size_t)(T * out), sizeof *y),
           *want = calloc((size_t)(T * out), sizeof *want), *k = responses(&x.f, T);
    sq_complex *h = calloc((size_t)x.f.n, sizeof *h);
    sq_rng r;
    sq_rng_init(&r, 9, SQ_STREAM_TEST, 1);
    for (int i = 0; i < T * in; ++i) u[i] = sq_rng_normal(&r);
    sq_lti_run(&x.f, T, u, in, y, out, h);
    for (int t = 0; t < T; ++t)
      for (int j = 0; j <= t; ++j)
        for (int o = 0; o < out; ++o)
          for (int i = 0; i < in; ++i) want[t * out + o] += k[((t - j) * out + o) * in + i] * u[j * in + i];
    expect_below("run", relative_error((size_t)(T * out), y, want), 1e-12);
    free(u), free(y), free(want), free(k), free(h);
    sq_arena_destroy(&x.arena);
  }
}

static void energy_is_that_of_the_impulse_response(void **state)
{
  (void)state;
  for (int s = 0; s < NSHAPE; ++s) {
    system_fixture x = system_of(s);
    double *k = responses(&x.f, T), *work = calloc(sq_lti_energy_work(&x.f), sizeof *work), e[T] = {0},
           want[T] = {0};
    sq_lti_energy(&x.f, T, e, work);
    for (int t = 0; t < T; ++t)
      for (int i = 0; i < x.f.nin * x.f.nout; ++i)
        want[t] += k[t * x.f.nin * x.f.nout + i] * k[t * x.f.nin * x.f.nout + i];
    expect_below("energy, of its largest", relative_error(T, e, want), 1e-12);
    free(k);
    free(work);
    sq_arena_destroy(&x.arena);
  }
}

/* The block itself: rows (i, o) for steps i >= t, columns (j, in) for j < t. */
static void hankel_values_are_those_of_the_block(void **state)
{
  (void)state;
  static const int cut[] = {1, 2, 11, 18, 33, 36};
  for (int s = 0; s < NSHAPE; ++s)
    for (int c = 0; c < 6; ++c) {
      system_fixture x = system_of(s);
      const int t = cut[c], in = x.f.nin, out = x.f.nout, rows = (T - t) * out, columns = t * in;
      const int least = rows < columns ? rows : columns;
      double *k = responses(&x.f, T), *M = calloc((size_t)rows * (size_t)columns, sizeof *M),
             *want = calloc((size_t)least, sizeof *want),
             *work = calloc(sq_svd_work(rows, columns), sizeof *work), sigma[64], log_sigma1;
      void *area = aligned_alloc(64, sq_lti_hankel_bytes(&x.f));
      int n;
      for (int i = t; i < T; ++i)
        for (int j = 0; j < t; ++j)
          for (int o = 0; o < out; ++o)
            for (int p = 0; p < in; ++p)
              M[((i - t) * out + o) * columns + j * in + p] = k[((i - j) * out + o) * in + p];
      assert_int_equal(sq_svd_values(rows, columns, M, want, work), SQ_OK);
      assert_int_equal(sq_lti_hankel(&x.f, T, t, sigma, &n, &log_sigma1, area), SQ_OK);
      assert_int_equal(n, least < 2 * x.f.n ? least : 2 * x.f.n);
      double worst = fabs(log_sigma1 - log(want[0])); /* relative error of sigma_1 */
      for (int i = 0; i < n; ++i) worst = fmax(worst, fabs(sigma[i] - want[i] / want[0]));
      for (int i = n; i < least; ++i) worst = fmax(worst, want[i] / want[0]); /* the order is 2n */
      if (c == 3) expect_below("Hankel values, of sigma_1", worst, 1e-12);
      assert_true(worst <= 1e-12);
      free(k), free(M), free(want), free(work), free(area);
      sq_arena_destroy(&x.arena);
    }
}

static void hankel_values_of_a_system_that_grows_do_not_overflow(void **state)
{
  (void)state;
  system_fixture x = system_alloc(1, 1, 1, 0);
  double sigma[2], log_sigma1;
  int n;
  void *area = aligned_alloc(64, sq_lti_hankel_bytes(&x.f));
  x.f.a[0] = 2;
  x.f.B[0] = x.f.C[0] = 1;
  /* rank one: |(2, 4, .., 2^2000)| |(1, .., 2^1999)| = 2 (4^2000 - 1)/3 */
  assert_int_equal(sq_lti_hankel(&x.f, 4000, 2000, sigma, &n, &log_sigma1, area), SQ_OK);
  expect_below("log sigma_1", fabs(log_sigma1 - (log(2.0 / 3) + 2000 * log(4))) / 2772, 1e-12);
  assert_true(sigma[0] == 1 && sigma[1] <= 1e-14);
  free(area);
  sq_arena_destroy(&x.arena);
}

static void
norms_of_powers_and_the_numerical_radius_are_known_for_a_jordan_block_and_a_normal_matrix(void **state)
{
  (void)state;
  system_fixture x = system_alloc(2, 1, 1, 1);
  double *work = calloc(sq_lti_power_work(&x.f), sizeof *work);
  x.f.a[0] = x.f.a[1] = 0.5;
  x.f.u[0] = -1; /* A = [[.5, 1], [0, .5]] */
  x.f.v[1] = 1;
  /* numerical radius .5 + 1/2; |A|_2: A^T A = [[.25, .5], [.5, 1.25]] */
  expect_below("numerical radius", fabs(sq_lti_numerical_radius(&x.f, work) - 1), 1e-12);
  expect_below("norm", fabs(sq_lti_power_norm(&x.f, 64, work) - sqrt(0.75 + sqrt(0.5))), 1e-12);
  x.f.a[0] = x.f.a[1] =
      0.9; /* A^k = .9^(k-1) [[.9, k], [0, .9]]: |A| < 1.6, |A^8| > 8 .9^7 = 3.8: a later hump */
  const double hump = sq_lti_power_norm(&x.f, 64, work), most_k = 8 * pow(0.9, 7), own = pow(0.9, 8);
  expect_below("hump", fabs(hump - (sqrt(most_k * most_k / 4 + own * own) + most_k / 2)), 1e-12);
  free(work);
  sq_arena_destroy(&x.arena);
  x = system_random(4, 9, 1, 1, 1, 1);
  double most = 0;
  for (int k = 0; k < 9; ++k) {
    x.f.u[k] = 0;
    most = fmax(most, cabs(x.f.a[k]));
  }
  work = calloc(sq_lti_power_work(&x.f), sizeof *work);
  const double w = sq_lti_numerical_radius(&x.f, work);
  assert_true(w <= most * (1 + 1e-12) && w >= most * cos(M_PI / 64) * (1 - 1e-12));
  expect_below("norm of a normal matrix", fabs(sq_lti_power_norm(&x.f, 16, work) - most), 1e-12);
  free(work);
  sq_arena_destroy(&x.arena);
}

/* ---- eigenvalues ------------------------------------------------------------------------------------- */
static void dense_eigenvalues_belong_to_the_matrix_that_runs(void **state)
{
  (void)state;
  for (int s = 4; s < NSHAPE; ++s) {
    system_fixture x = system_of(s);
    const int n = x.f.n;
    sq_arena a = {0};
    sq_lti_spectrum e;
    sq_complex *A = calloc((size_t)n * (size_t)n, sizeof *A), w[32];
    double *work = calloc(sq_eigenvalues_work(n), sizeof *work);
    void *secular = aligned_alloc(64, sq_secular_bytes(n));
    sq_lti_spectrum_take(&a, n, &e);
    assert_int_equal(sq_arena_create(&a, a.used, "eigenvalues"), SQ_OK);
    sq_lti_spectrum_take(&a, n, &e);
    sq_lti_eigenvalues(&x.f, DBL_EPSILON, &e, secular);
    sq_lti_matrix(&x.f, A);
    assert_int_equal(sq_eigenvalues(n, A, w, work), SQ_OK);
    double worst = 0, backward = 0;
    for (int k = 0; k < n; ++k) {
      double off = INFINITY;
      for (int i = 0; i < n; ++i) off = fmin(off, cabs(w[i] - e.lambda[k]));
      worst = fmax(worst, (off - e.radius[k]) * e.condition[k]);
      backward = fmax(backward, e.backward[k]);
      assert_int_equal(e.certified[k], 1);
    }
    /* |A| <= 1: ZGEEV's backward error is a small multiple of n roundings, and a, u, v are rounded */
    expect_below("distance from ZGEEV, times s", worst, 50 * n * DBL_EPSILON);
    expect_below("backward error", backward, 64 * DBL_EPSILON);
    free(A), free(work), free(secular);
    sq_arena_destroy(&a);
    sq_arena_destroy(&x.arena);
  }
}

/* Each long part of an analysis by itself: it asks, and where the answer is yes it does no more. */
static int count_polls(void *user)
{
  int *left = user;
  return --*left <= 0;
}

static void every_part_of_a_dense_analysis_asks_whether_to_stop(void **state)
{
  (void)state;
  system_fixture x = system_of(6);
  double sigma[48], top, *work = calloc(sq_lti_power_work(&x.f), sizeof *work), *e = calloc(500, sizeof *e);
  void *secular = aligned_alloc(64, sq_secular_bytes(x.f.n)),
       *hankel = aligned_alloc(64, sq_lti_hankel_bytes(&x.f));
  sq_complex mu[24];
  double radius[24];
  int n, certified[24], left = 1 << 20;
  const sq_stop stop = {count_polls, &left};
  const sq_rank_one A = {x.f.n, x.f.lam, x.f.p, x.f.p};
  sq_secular r = {.mu = mu, .radius = radius, .certified = certified, .stop = &stop};
  x.f.stop = &stop;
#define POLLS(what, at_least)                                                                                \
  left = 1 << 20, (void)(what), assert_true((1 << 20) - left >= (at_least));                                 \
  left = 1, (void)(what), assert_in_range(-left, 0, 1 + x.f.n)
  POLLS((sq_secular_solve(&A, 0, &r, secular), 0), 2 * x.f.n); /* of the rough sweeps, too */
  POLLS((sq_secular_estimate(&A, &stop, mu, secular), 0), 2 * x.f.n);
  POLLS(sq_lti_power_norm(&x.f, 64, work), 7);
  POLLS(sq_lti_numerical_radius(&x.f, work), 64);
  POLLS((sq_lti_energy(&x.f, 500, e, work), 0), 500);
  POLLS(sq_lti_hankel(&x.f, 500, 250, sigma, &n, &top, hankel), 500);
  assert_int_equal(sq_lti_hankel(&x.f, 500, 250, sigma, &n, &top, hankel), SQ_STOPPED);
#undef POLLS
  free(work), free(e), free(secular), free(hankel);
  sq_arena_destroy(&x.arena);
}

/* ---- layers ------------------------------------------------------------------------------------------ */
static const char *const layer_json[] = {
    "\"layer\":\"s4\",\"state_dim\":8", "\"layer\":\"lru\",\"state_dim\":6",
    "\"layer\":\"s5\",\"state_dim\":8,\"num_blocks\":2,\"conj_sym\":true"};

static model_fixture layer_make(const char *layer, const char *more, int hidden, int seq_len)
{
  char json[2048];
  sq_format(
      json, sizeof json,
      "{\"seed\":7,\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":32,\"input_seq_length\":48,"
      "\"num_kv_pairs\":4,\"num_train\":64,\"num_valid\":16,\"num_test\":16},"
      "\"train\":{\"total_steps\":10,\"batch_size\":8,\"lr\":0.001},"
      "\"model\":{%s,\"num_layers\":2,\"hidden_dim\":%d,\"input_dim\":32,\"output_dim\":32,"
      "\"activation\":\"full_glu\",\"norm\":\"layer\",\"prenorm\":true,\"pooling\":\"none\",\"dropout\":0.0},"
      "\"analysis\":{%s}}",
      layer, hidden, more);
  return model_of_json(json, seq_len);
}

static void every_entry_is_written_whatever_is_asked_for(void **state)
{
  (void)state;
  static const char *const more[] = {"", "\"store\":\"bins\",\"hankel_samples\":0,\"memory_samples\":0",
                                     "\"hankel_cuts\":[0.1,0.5,0.9],\"memory_samples\":2"};
  static const int lengths[2] = {1, 1};
  sample_fixture s;
  sample_make(&s, 2, lengths);
  for (int v = 0; v < 3; ++v)
    for (int k = 0; k < 3; ++k)
      for (int p = 0; p < 2; ++p)
        for (int seq_len = 1; seq_len <= 33; seq_len += 16) {
          model_fixture x = layer_make(layer_json[v], more[k], 5, seq_len);
          analysis_fixture a = analysis_make(&x, p ? "published" : "dsf", 3, seq_len);
          analysis_run(&a, &x, &s.batch);
          for (int i = 0; i < a.n; ++i) {
            const size_t n = field_elements(&a.field[i]);
            assert_true(n > 0);
            for (size_t e = 0; e < n; ++e) assert_true(a.out[i][e] != POISON);
            assert_true(a.out[i][n] == POISON);
          }
          const double *share = analysis_field(&a, "percent_radius_mean", NULL);
          for (int l = 0; l < 2; ++l) {
            double sum = 0;
            for (int b = 0; b < SQ_NRADIUS; ++b) sum += share[l * SQ_NRADIUS + b];
            assert_true(fabs(sum - 100) <= 1e-10);
          }
          analysis_release(&a);
          model_release(&x);
        }
}

static void shares_quantiles_and_exponent_are_those_of_the_stored_eigenvalues(void **state)
{
  (void)state;
  static const int lengths[1] = {7};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  for (int v = 0; v < 3; ++v) {
    model_fixture x = layer_make(layer_json[v], "", 5, 24);
    analysis_fixture a = analysis_make(&x, "dsf", 1, 24);
    const sq_field *f = NULL;
    analysis_run(&a, &x, &s.batch);
    const double *z = analysis_field(&a, "lambda", &f),
                 *share = analysis_field(&a, "percent_radius_mean", NULL),
                 *phase = analysis_field(&a, "percent_phase_mean", NULL),
                 *mean = analysis_field(&a, "lyapunov_exponent", NULL),
                 *horizon = analysis_field(&a, "lyapunov_horizon", NULL);
    assert_int_equal(f->complex_values, 1);
    const sq_field *exponent = NULL;
    analysis_field(&a, "lyapunov_exponent", &exponent);
    assert_int_equal(exponent->invariant, 1);
    const int m = f->dim[1] * f->dim[2];
    for (int l = 0; l < 2; ++l) {
      double count[SQ_NRADIUS] = {0}, angles[SQ_NPHASE] = {0}, sum = 0;
      for (int i = 0; i < m; ++i) {
        const double re = z[2 * (l * m + i)], im = z[2 * (l * m + i) + 1], r = hypot(re, im);
        int b = 0, p = 0;
        while (b < 6 && r > sq_radius_threshold[b]) ++b;
        while (p < 5 && fabs(atan2(im, re)) * 180 / M_PI > sq_phase_threshold_deg[p]) ++p;
        count[b] += 100.0 / m;
        angles[p] += 100.0 / m;
        sum += log(r);
      }
      for (int b = 0; b < SQ_NRADIUS; ++b) assert_true(fabs(count[b] - share[l * SQ_NRADIUS + b]) < 1e-10);
      for (int p = 0; p < SQ_NPHASE; ++p) assert_true(fabs(angles[p] - phase[l * SQ_NPHASE + p]) < 1e-10);
      assert_true(fabs(sum / m - mean[l]) <= 1e-13 * fabs(mean[l]));
      assert_true(fabs(horizon[l] * mean[l] + 1) <= 1e-13);
    }
    analysis_release(&a);
    model_release(&x);
  }
}

static void results_do_not_depend_on_the_sample(void **state)
{
  (void)state;
  static const int one[1] = {24}, two[2] = {3, 9};
  sample_fixture s[2];
  sample_make(&s[0], 1, one);
  sample_make(&s[1], 2, two);
  for (int v = 0; v < 3; ++v) {
    model_fixture x = layer_make(layer_json[v], "", 5, 24);
    analysis_fixture a = analysis_make(&x, "dsf", 2, 24), b = analysis_make(&x, "dsf", 2, 24);
    analysis_run(&a, &x, &s[0].batch);
    analysis_run(&b, &x, &s[1].batch);
    for (int i = 0; i < a.n; ++i)
      assert_memory_equal(a.out[i], b.out[i], field_elements(&a.field[i]) * sizeof(double));
    analysis_release(&a);
    analysis_release(&b);
    model_release(&x);
  }
}

/* Channels 0, D/k, 2D/k ..: the second of two samples of five channels is channel 2. */
static void hankel_values_are_those_of_channels_spread_over_the_layer(void **state)
{
  (void)state;
  static const int lengths[1] = {24};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  model_fixture x = layer_make(layer_json[0], "\"hankel_samples\":2", 5, 24),
                all = layer_make(layer_json[0], "\"hankel_samples\":64", 5, 24);
  analysis_fixture a = analysis_make(&x, "dsf", 1, 24), b = analysis_make(&all, "dsf", 1, 24);
  const sq_field *f = NULL, *g = NULL;
  int naxis;
  const sq_axis *axis = sq_spectra_axes(a.s, &naxis);
  analysis_run(&a, &x, &s.batch);
  analysis_run(&b, &all, &s.batch);
  const double *some = analysis_field(&a, "hankel_log_sigma1", &f),
               *every = analysis_field(&b, "hankel_log_sigma1", &g);
  assert_int_equal(f->dim[3], 2);
  assert_int_equal(g->dim[3], 5);
  for (int l = 0; l < 2; ++l) {
    assert_true(some[2 * l] == every[5 * l] && some[2 * l + 1] == every[5 * l + 2]);
    assert_true(every[5 * l + 1] != every[5 * l + 2]); /* they differ, so the channel matters */
  }
  int seen = 0;
  for (int i = 0; i < naxis; ++i)
    if (strcmp(axis[i].axis, "hankel_sample") == 0) {
      assert_true(axis[i].value[0] == 0 && axis[i].value[1] == 2);
      seen = 1;
    }
  assert_true(seen);
  analysis_release(&a);
  analysis_release(&b);
  model_release(&x);
  model_release(&all);
}

/* Order 2 n, and width times the steps on either side of the cut. */
static void the_state_size_has_a_limit_that_it_does_not_exceed(void **state)
{
  (void)state;
  static const int lengths[1] = {4}, order[3] = {16, 12, 0}, width[3] = {1, 5, 5}, before[3] = {3, 16, 29};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  for (int v = 0; v < 3; ++v) {
    model_fixture x = layer_make(layer_json[v], "\"hankel_cuts\":[0.1,0.5,0.9]", 5, 33);
    analysis_fixture a = analysis_make(&x, "dsf", 1, 33);
    const sq_mixer *m = sq_model_mixer(x.m, 0);
    sq_lti dims = {0};
    sq_mixer_get(m)->lti_dims(m, &dims);
    assert_true(order[v] == 0 || order[v] == 2 * dims.n);
    analysis_run(&a, &x, &s.batch);
    const double *limit = analysis_field(&a, "effective_state_size_limit", NULL);
    static const char *const size[3] = {"effective_state_size_tolerance", "effective_state_size_entropy",
                                        "effective_state_size_entropy_squared"};
    for (int l = 0; l < 2; ++l)
      for (int c = 0; c < 3; ++c) {
        const int past = before[c] * width[v], future = (33 - before[c]) * width[v];
        const int window = past < future ? past : future;
        assert_true(limit[3 * l + c] == (window < 2 * dims.n ? window : 2 * dims.n));
        for (int z = 0; z < 3; ++z) {
          const double got = analysis_field(&a, size[z], NULL)[3 * l + c];
          assert_true(got > 0 && got <= limit[3 * l + c] * (1 + 1e-12));
        }
      }
    analysis_release(&a);
    model_release(&x);
  }
}

static int countdown(void *user)
{
  int *left = user;
  return --*left < 0;
}

static void an_analysis_stops_within_systems_and_can_be_done_again(void **state)
{
  (void)state;
  static const int lengths[1] = {24};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  for (int v = 0; v < 3; ++v)
    for (int p = 0; p < 2; ++p) {
      model_fixture x = layer_make(layer_json[v], "", 5, 24);
      analysis_fixture a = analysis_make(&x, p ? "published" : "dsf", 1, 24),
                       b = analysis_make(&x, p ? "published" : "dsf", 1, 24);
      int polls = 0, left = 1 << 20;
      sq_spectra_poll(a.s, countdown, &left);
      analysis_run(&a, &x, &s.batch); /* never asked to stop */
      polls = (1 << 20) - left;
      int done = 0;
      assert_int_equal(sq_spectra_nsystem(a.s),
                       2 * (v == 0 && !p ? 5 : 1)); /* S4: a channel's, others: a layer's */
      assert_int_equal(sq_spectra_done(a.s), sq_spectra_nsystem(a.s));
      /* S4: each value of each sweep in each channel of each layer */
      assert_true(polls >= (v == 0 ? 2 * (p ? 1 : 5) * 8 : 2));
      for (int stop = 0; stop < polls; stop += 1 + polls / 101) {
        left = stop;
        assert_int_equal(sq_spectra_run(a.s, x.theta, &s.batch, x.work, a.out), SQ_STOPPED);
        assert_in_range(-left, 1, 64); /* at once: every loop that it is in asks once more, and every value */
        assert_in_range(sq_spectra_done(a.s), done, sq_spectra_nsystem(a.s) - 1);
        done = sq_spectra_done(a.s);
      }
      sq_spectra_poll(a.s, NULL, NULL);
      analysis_run(&a, &x, &s.batch);
      analysis_run(&b, &x, &s.batch);
      for (int i = 0; i < a.n; ++i)
        assert_memory_equal(a.out[i], b.out[i], field_elements(&a.field[i]) * sizeof(double));
      analysis_release(&a);
      analysis_release(&b);
      model_release(&x);
    }
}

static void a_rate_that_is_no_number_is_seen_in_the_eigenvalues(void **state)
{
  (void)state;
  static const int lengths[1] = {24};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  model_fixture x = layer_make(layer_json[0], "", 5, 24);
  const sq_param_list *l = sq_model_params(x.m);
  int found = 0;
  for (int i = 0; i < l->n; ++i)
    if (strstr(l->v[i].name, "layers_0.seq") != NULL && strstr(l->v[i].name, "Lambda_re") != NULL) {
      x.theta[l->v[i].offset + 1] = (sq_real)NAN; /* state 0 of channel 1 */
      ++found;
    }
  assert_int_equal(found, 1);
  analysis_fixture a = analysis_make(&x, "dsf", 1, 24);
  analysis_run(&a, &x, &s.batch);
  const double *lambda = analysis_field(&a, "lambda", NULL),
               *certified = analysis_field(&a, "lambda_certified", NULL),
               *norm = analysis_field(&a, "power_norm_max", NULL);
  for (int k = 0; k < 8; ++k) {
    assert_false(isnan(lambda[2 * k]));
    assert_true(isnan(lambda[2 * (8 + k)]) && certified[8 + k] == 0);
  }
  assert_true(isnan(norm[1]) && !isnan(norm[0]));
  analysis_release(&a);
  model_release(&x);
}

static int has_field(const analysis_fixture *a, const char *name)
{
  for (int i = 0; i < a->n; ++i)
    if (strcmp(a->field[i].name, name) == 0) return 1;
  return 0;
}

static void a_bound_on_rounding_and_one_draw_of_it_have_different_names(void **state)
{
  (void)state;
  for (int v = 0; v < 3; ++v) {
    model_fixture x = layer_make(layer_json[v], "", 5, 24);
    analysis_fixture a = analysis_make(&x, "dsf", 1, 24);
    assert_int_equal(has_field(&a, "lambda_sensitivity"), v == 0);
    assert_int_equal(has_field(&a, "lambda_rounding_shift"), v != 0);
    analysis_release(&a);
    model_release(&x);
  }
}

/* Two states of the LRU: one without input carries no energy. */
static void a_state_without_input_has_no_modal_energy(void **state)
{
  (void)state;
  static const int lengths[1] = {4};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  model_fixture x = layer_make("\"layer\":\"lru\",\"state_dim\":2", "", 3, 16);
  const sq_param_list *l = sq_model_params(x.m);
  sq_real *nu = x.theta + sq_param_find(l, "encoder.layers_0.seq.nu_log")->offset,
          *re = x.theta + sq_param_find(l, "encoder.layers_0.seq.B_re")->offset,
          *im = x.theta + sq_param_find(l, "encoder.layers_0.seq.B_im")->offset;
  nu[0] = (sq_real)log(-log(0.95)); /* |lambda| = .95 and .3 */
  nu[1] = (sq_real)log(-log(0.3));
  for (int i = 0; i < 3; ++i) re[i] = im[i] = 0;
  analysis_fixture a = analysis_make(&x, "dsf", 1, 16);
  analysis_run(&a, &x, &s.batch);
  const double *share = analysis_field(&a, "percent_radius_mean", NULL),
               *energy = analysis_field(&a, "modal_energy_percent_radius", NULL),
               *marked = analysis_field(&a, "percent_radius_marked", NULL);
  assert_true(share[1] == 50 && share[3] == 50);
  assert_true(energy[1] == 100 && energy[3] == 0);
  for (int b = 0; b < SQ_NRADIUS; ++b) assert_true(marked[b] == 0); /* well determined */
  /* and one whose output is not read: |B| = 1 for both, |C| = 1 for the other one */
  sq_real *out_re = x.theta + sq_param_find(l, "encoder.layers_0.seq.C_re")->offset,
          *out_im = x.theta + sq_param_find(l, "encoder.layers_0.seq.C_im")->offset;
  for (int i = 0; i < 6; ++i) re[i] = out_re[i] = 1, im[i] = out_im[i] = 0;
  for (int d = 0; d < 3; ++d) out_re[2 * d] = 0; /* C (D,P): state 0 */
  analysis_run(&a, &x, &s.batch);
  assert_true(fabs(energy[1] - 100) < 1e-12 && energy[3] == 0);
  analysis_release(&a);
  model_release(&x);
}

#ifndef SQ_DOUBLE /* in float64 a rounding is below the tolerance of the bins */
/* LRU with 100 states: of those at .9, to half a unit of nu_log, each can cross by one unit. */
static void a_share_is_marked_where_more_than_one_percent_can_cross(void **state)
{
  (void)state;
  static const int lengths[1] = {4};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  for (int on = 0; on < 4; ++on) {
    model_fixture x = layer_make("\"layer\":\"lru\",\"state_dim\":100", "", 3, 16);
    sq_real *nu = x.theta + sq_param_find(sq_model_params(x.m), "encoder.layers_0.seq.nu_log")->offset;
    for (int k = 0; k < 100; ++k) nu[k] = (sq_real)log(-log(k < on ? 0.9 : 0.3));
    analysis_fixture a = analysis_make(&x, "dsf", 1, 16);
    analysis_run(&a, &x, &s.batch);
    const double *shift = analysis_field(&a, "percent_radius_shift", NULL),
                 *marked = analysis_field(&a, "percent_radius_marked", NULL);
    for (int b = 2; b < 4; ++b) { /* (.5, .9] and (.9, 1] */
      assert_true(fabs(shift[b] - on) < 1e-9);
      assert_true(marked[b] == (on > 1));
    }
    analysis_release(&a);
    model_release(&x);
  }
}
#endif

/* 4-spectra's figures with the layer itself: N = 64, parameters rounded to float32, steps .01 and .1. */
static void the_shares_of_hippo_stored_in_float32_are_products_of_rounding_and_are_marked_there(void **state)
{
  (void)state;
  static const int lengths[1] = {4};
  static const double step[2] = {.01, .1};
  sample_fixture s;
  sample_make(&s, 1, lengths);
  for (int k = 0; k < 2; ++k) {
    model_fixture x = layer_make("\"layer\":\"s4\",\"state_dim\":64", "\"hankel_samples\":1", 2, 16);
    const sq_param_list *l = sq_model_params(x.m);
    for (int i = 0; i < l->n; ++i)
      for (size_t e = 0; e < l->v[i].count; ++e) {
        sq_real *value = x.theta + l->v[i].offset + e;
        *value = strstr(l->v[i].name, "log_step") != NULL ? (sq_real)log(step[k]) : (sq_real)(float)*value;
      }
    analysis_fixture a = analysis_make(&x, "dsf", 1, 16);
    const sq_field *f = NULL;
    const double start = sq_wall_s();
    analysis_run(&a, &x, &s.batch);
    const double seconds = sq_wall_s() - start;
    const double *share = analysis_field(&a, "percent_radius_mean", NULL),
                 *certified = analysis_field(&a, "lambda_certified", &f);
    const double *marked = analysis_field(&a, "percent_radius_marked", NULL);
    int proven = 0, marks = 0;
    for (int b = 0; b < SQ_NRADIUS; ++b) marks += marked[b] == 1;
    for (size_t i = 0; i < field_elements(f); ++i) proven += certified[i] == 1;
    print_message(
        "    step %.2f: (.1, .5] %.1f %%, (.9, 1] %.1f %%; %d of %zu certified; %.0f ms for 2 layers x 2 "
        "channels\n",
        step[k], share[1], share[3], proven, field_elements(f), 1e3 * seconds);
    assert_int_equal(proven, (int)field_elements(f));
    /* ideal HiPPO: 15.6 % in (.9, 1] at step .01, 71.9 % in (.1, .5] at .1 */
    /* one rounding is 6e-8 in the program that stores float32, and 1e-16 in the other, where the same numbers are
       exact and LAPACK's 4e-6 apart from the truth */
    if (sizeof(sq_real) == sizeof(float))
      assert_true(marks > 0);
    else
      assert_int_equal(marks, 0);
    analysis_fixture published = analysis_make(&x, "published", 1, 16);
    analysis_run(&published, &x, &s.batch);
    const double *published_marked = analysis_field(&published, "percent_radius_marked", NULL),
                 *shift = analysis_field(&published, "percent_radius_shift", NULL);
    int published_marks = 0;
    for (int b = 0; b < SQ_NRADIUS; ++b) {
      published_marks += published_marked[b] == 1;
      assert_int_equal(published_marked[b] == 1, shift[b] > 100.0 / 64 * (1 + 1e-9)); /* of 64 values */
    }
    assert_int_equal(published_marks > 0, marks > 0);
    analysis_release(&published);
    if (k == 0) assert_true(share[3] > 40);
    if (k == 1) assert_true(share[1] < 10);
    analysis_release(&a);
    model_release(&x);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(running_is_the_sum_over_the_impulse_response),
      cmocka_unit_test(energy_is_that_of_the_impulse_response),
      cmocka_unit_test(hankel_values_are_those_of_the_block),
      cmocka_unit_test(hankel_values_of_a_system_that_grows_do_not_overflow),
      cmocka_unit_test(
          norms_of_powers_and_the_numerical_radius_are_known_for_a_jordan_block_and_a_normal_matrix),
      cmocka_unit_test(dense_eigenvalues_belong_to_the_matrix_that_runs),
      cmocka_unit_test(every_entry_is_written_whatever_is_asked_for),
      cmocka_unit_test(shares_quantiles_and_exponent_are_those_of_the_stored_eigenvalues),
      cmocka_unit_test(results_do_not_depend_on_the_sample),
      cmocka_unit_test(hankel_values_are_those_of_channels_spread_over_the_layer),
      cmocka_unit_test(the_state_size_has_a_limit_that_it_does_not_exceed),
      cmocka_unit_test(every_part_of_a_dense_analysis_asks_whether_to_stop),
      cmocka_unit_test(a_rate_that_is_no_number_is_seen_in_the_eigenvalues),
#ifndef SQ_DOUBLE
      cmocka_unit_test(a_share_is_marked_where_more_than_one_percent_can_cross),
#endif
      cmocka_unit_test(an_analysis_stops_within_systems_and_can_be_done_again),
      cmocka_unit_test(a_bound_on_rounding_and_one_draw_of_it_have_different_names),
      cmocka_unit_test(a_state_without_input_has_no_modal_energy),
      cmocka_unit_test(the_shares_of_hippo_stored_in_float32_are_products_of_rounding_and_are_marked_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
