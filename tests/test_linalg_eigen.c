/* tests/test_linalg_eigen.c: eigenvalues with proof: known spectra, HiPPO-LegS, and what LAPACK makes of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> /* needs those above */

#include "hermitian.h"
#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/rng.h"

enum { MOST = 1024 };

typedef struct { /* A = diag(d) - u v^* and its eigenvalues */
  int n, started;
  sq_complex d[MOST], u[MOST], v[MOST], mu[MOST];
  double radius[MOST];
  int certified[MOST];
  sq_secular r;
} example;

static example *example_new(int n)
{
  example *x = calloc(1, sizeof *x);
  assert_non_null(x);
  assert_true(n <= MOST);
  x->n = n;
  return x;
}

static sq_rank_one matrix(const example *x)
{
  return (sq_rank_one){x->n, x->d, x->u, x->v};
}

static void solve(example *x)
{
  const sq_rank_one A = matrix(x);
  void *work = aligned_alloc(64, sq_secular_bytes(x->n));
  assert_non_null(work);
  x->r = (sq_secular){.mu = x->mu, .radius = x->radius, .certified = x->certified};
  sq_secular_solve(&A, x->started, &x->r, work);
  free(work);
}

static sq_complex *dense(const example *x)
{
  sq_complex *A = calloc((size_t)x->n * (size_t)x->n, sizeof *A);
  assert_non_null(A);
  for (int i = 0; i < x->n; ++i)
    for (int j = 0; j < x->n; ++j)
      A[(size_t)i * (size_t)x->n + (size_t)j] = (i == j ? x->d[i] : 0) - x->u[i] * conj(x->v[j]);
  return A;
}

static void by_lapack(const example *x, sq_complex *w, double *s)
{
  sq_complex *A = dense(x);
  double *work =
      calloc(s != NULL ? sq_eigenvalues_condition_work(x->n) : sq_eigenvalues_work(x->n), sizeof *work);
  assert_non_null(work);
  assert_int_equal(
      s != NULL ? sq_eigenvalues_condition(x->n, A, w, s, work) : sq_eigenvalues(x->n, A, w, work), SQ_OK);
  free(work);
  free(A);
}

/* ---- bottleneck distance of two sets: the least t for which a perfect matching has no pair farther apart than
   t */
typedef struct {
  int n;
  const sq_complex *a, *b;
  double t;
  int *of_b, *seen;
} matching;

static int augment(matching *m, int i)
{
  for (int j = 0; j < m->n; ++j) {
    if (m->seen[j] || cabs(m->a[i] - m->b[j]) > m->t) continue;
    m->seen[j] = 1;
    if (m->of_b[j] < 0 || augment(m, m->of_b[j])) {
      m->of_b[j] = i;
      return 1;
    }
  }
  return 0;
}

static int can_match(matching *m)
{
  for (int j = 0; j < m->n; ++j) m->of_b[j] = -1;
  for (int i = 0; i < m->n; ++i) {
    memset(m->seen, 0, (size_t)m->n * sizeof *m->seen);
    if (!augment(m, i)) return 0;
  }
  return 1;
}

static double bottleneck(int n, const sq_complex *a, const sq_complex *b)
{
  matching m = {n, a, b, 0, calloc((size_t)n, sizeof(int)), calloc((size_t)n, sizeof(int))};
  double low = 0, high = 0;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) high = fmax(high, cabs(a[i] - b[j]));
  for (int k = 0; k < 60; ++k) {
    m.t = 0.5 * (low + high);
    if (can_match(&m))
      high = m.t;
    else
      low = m.t;
  }
  free(m.of_b);
  free(m.seen);
  return high;
}

/* Distance from known values, matched one to one, against the discs. */
static double outside(const example *x, const sq_complex *known)
{
  double worst = 0;
  for (int k = 0; k < x->n; ++k) {
    int nearest = 0;
    for (int i = 0; i < x->n; ++i)
      if (cabs(x->mu[i] - known[k]) < cabs(x->mu[nearest] - known[k])) nearest = i;
    worst = fmax(worst, cabs(x->mu[nearest] - known[k]) - x->radius[nearest]);
  }
  return worst;
}

/* Weights that give diag(d) - c 1^* the eigenvalues mu: c_n = prod_i (d_n - mu_i) / prod_(m/=n) (d_n - d_m). */
static void weights(example *x, const sq_complex *mu)
{
  for (int n = 0; n < x->n; ++n) {
    sq_complex c = x->d[n] - mu[n];
    for (int m = 0; m < x->n; ++m)
      if (m != n) c *= (x->d[n] - mu[m]) / (x->d[n] - x->d[m]);
    x->u[n] = c;
    x->v[n] = 1;
  }
}

/* ---- known spectra ----------------------------------------------------------------------------------- */
/* Differences of these Gaussian integers have norms 1, 2 and 4, so that the weights are exact in float64. */
static void eigenvalues_that_are_known_exactly_lie_in_their_discs(void **state)
{
  (void)state;
  static const double d[5][2] = {{0, 0}, {1, 0}, {2, 0}, {1, 1}, {1, -1}};
  static const double mu[5][2] = {{0.5, 3}, {-2, 0.25}, {1.5, -1}, {0.125, 0}, {4, 4}};
  example *x = example_new(5);
  sq_complex known[5];
  for (int i = 0; i < 5; ++i) {
    x->d[i] = d[i][0] + I * d[i][1];
    known[i] = mu[i][0] + I * mu[i][1];
  }
  for (int n = 0; n < 5; ++n) { /* in steps that are each exact */
    sq_complex c = 1;
    for (int i = 0; i < 5; ++i) c *= x->d[n] - known[i];
    for (int m = 0; m < 5; ++m)
      if (m != n) {
        const sq_complex e = x->d[n] - x->d[m];
        c = c * conj(e) / (creal(e) * creal(e) + cimag(e) * cimag(e));
      }
    x->u[n] = c;
    x->v[n] = 1;
  }
  solve(x);
  assert_int_equal(x->r.ncertified, 5);
  double widest = 0, off = bottleneck(5, x->mu, known);
  for (int i = 0; i < 5; ++i) widest = fmax(widest, x->radius[i]);
  print_message("    5 Gaussian rationals: off by %.1e, widest disc %.1e, %d sweeps\n", off, widest,
                x->r.sweeps);
  assert_true(outside(x, known) <= 0);
  assert_true(widest <=
              8 * DBL_EPSILON); /* the discs are of quadruple precision: what is left is rounding mu */
  free(x);
}

/* Real interlacing values: diag - p p^T is symmetric; what rounding the weights does is the sensitivity. */
static void interlacing_values_are_found_to_the_sensitivity_of_their_weights(void **state)
{
  (void)state;
  enum { n = 40 };
  example *x = example_new(n);
  sq_complex known[n];
  for (int i = 0; i < n; ++i) {
    x->d[i] = i + 0.25 * sin(i);
    known[i] = creal(x->d[i]) - 0.5 + 0.2 * cos(3 * i);
  }
  weights(x, known);
  for (int i = 0; i < n; ++i) {
    assert_true(creal(x->u[i]) > 0);
    x->u[i] = x->v[i] = sqrt(creal(x->u[i]));
  }
  solve(x);
  assert_int_equal(x->r.ncertified, n);
  const sq_rank_one A = matrix(x);
  double worst = 0;
  for (int i = 0; i < n; ++i) {
    sq_eigenvalue_quality q;
    double off = INFINITY;
    sq_rank_one_eigenvalue(&A, x->mu[i], DBL_EPSILON, &q);
    for (int k = 0; k < n; ++k) off = fmin(off, cabs(known[k] - x->mu[i]));
    /* a weight is a product of 2 n factors, each rounded: 4 n roundings of half a unit, and of its root */
    worst = fmax(worst, off / (2 * n * q.sensitivity + x->radius[i]));
    assert_true(fabs(q.condition - 1) < 1e-12); /* normal */
    assert_true(q.backward_error <= 2 * DBL_EPSILON);
  }
  print_message("    %d interlacing values: off by %.2g of what their weights' rounding allows\n", n, worst);
  assert_true(worst <= 1);
  free(x);
}

static void a_single_state_has_the_eigenvalue_of_its_formula(void **state)
{
  (void)state;
  example *x = example_new(1);
  x->d[0] = -0.5 + 3 * I;
  x->u[0] = x->v[0] = 0.75 + 0.5 * I;
  solve(x);
  assert_true(cabs(x->mu[0] - (-0.5 - 0.8125 + 3 * I)) <= x->radius[0]);
  assert_true(x->radius[0] <= 4 * DBL_EPSILON && x->r.ncertified == 1);
  free(x);
}

/* diag(1, 2, 2, 5) - p p^T with p = (1, 1, 1, 0): 5 stays; 2 stays once; the rest is diag(1,2) - weights 1, 2:
   mu^2 - 0 mu - 2 = 0. */
static void entries_without_weight_and_equal_entries_are_eigenvalues(void **state)
{
  (void)state;
  static const double d[4] = {1, 2, 2, 5}, p[4] = {1, 1, 1, 0};
  const sq_complex known[4] = {sqrt(2), -sqrt(2), 2, 5};
  for (int started = 0; started < 2; ++started) {
    example *x = example_new(4);
    for (int i = 0; i < 4; ++i) {
      x->d[i] = d[i];
      x->u[i] = x->v[i] = p[i];
    }
    x->started = started;
    if (started) by_lapack(x, x->mu, NULL);
    /* (1-m)(2-m) - (2-m) - 2(1-m) = m^2 - 2 */
    solve(x);
    assert_int_equal(x->r.ncertified, 4);
    assert_true(bottleneck(4, x->mu, known) <= 4 * DBL_EPSILON);
    free(x);
  }
}

static void a_matrix_without_weights_keeps_its_diagonal(void **state)
{
  (void)state;
  example *x = example_new(3);
  for (int i = 0; i < 3; ++i) x->d[i] = i * I;
  solve(x);
  assert_int_equal(x->r.ncertified, 3);
  for (int i = 0; i < 3; ++i) assert_true(x->mu[i] == x->d[i] && x->radius[i] == 0);
  free(x);
}

/* f(z) = (z - 1/2)^2/(z (z - 1)): at a distance t from the double value the disc is t wide, and the two meet. */
static void a_double_eigenvalue_is_not_certified(void **state)
{
  (void)state;
  example *x = example_new(3);
  x->d[1] = 1;
  x->u[0] = -0.25;
  x->u[1] = 0.25;
  x->d[2] = 7; /* with no weight: certain */
  x->v[0] = x->v[1] = 1;
  solve(x);
  assert_int_equal(x->r.ncertified, 1);
  assert_true(x->certified[2] == 1);
  for (int k = 0; k < 2; ++k) assert_true(cabs(x->mu[k] - 0.5) <= x->radius[k] && x->radius[k] < 1e-9);
  free(x);
}

/* ---- against LAPACK, where it is good ---------------------------------------------------------------- */
static void random_example(example *x, uint64_t seed)
{
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_TEST, (uint64_t)x->n);
  for (int i = 0; i < x->n; ++i) {
    x->d[i] = -fabs(sq_rng_normal(&r)) + I * 10 * sq_rng_normal(&r);
    x->u[i] = x->v[i] = 0.3 * (sq_rng_normal(&r) + I * sq_rng_normal(&r));
  }
}

/* |u| |y| with y^* = v^* (d - z)^-1, at least |v^* (d - z)^-1 u| = 1 where z is an eigenvalue.  The backward error is that of
   one vector, x = (d - z)^-1 u: |u| |f(z)|/(|x| |A|), and f(z) is f' times the distance `off` from the eigenvalue, so
   with s = |f'|/(|x| |y|) it is |u| |y| s off/|A|.  Where z is near an entry of d it is more than the least one. */
static double length_times_left(const example *x, sq_complex z)
{
  double u = 0, y = 0;
  for (int k = 0; k < x->n; ++k) {
    u += pow(cabs(x->u[k]), 2);
    y += pow(cabs(x->v[k] / (x->d[k] - z)), 2);
  }
  return sqrt(u * y);
}

static void random_matrices_have_the_eigenvalues_of_lapack_from_either_start(void **state)
{
  (void)state;
  static const int size[] = {2, 3, 7, 20, 50};
  for (size_t k = 0; k < sizeof size / sizeof *size; ++k) {
    const int n = size[k];
    example *x = example_new(n), *y = example_new(n);
    sq_complex w[64];
    double s[64], worst = 0, condition = 0, backward = 0;
    random_example(x, k);
    by_lapack(x, w, s);
    solve(x);
    random_example(y, k);
    y->started = 1;
    memcpy(y->mu, w, (size_t)n * sizeof *w);
    solve(y);
    assert_int_equal(x->r.ncertified, n);
    assert_int_equal(y->r.ncertified, n);
    assert_true(bottleneck(n, x->mu, y->mu) <= 1e-14);
    const sq_rank_one A = matrix(x);
    const double norm = sq_rank_one_norm(&A);
    for (int i = 0; i < n; ++i) {
      sq_eigenvalue_quality q;
      double off = INFINITY;
      sq_rank_one_eigenvalue(&A, w[i], DBL_EPSILON, &q);
      for (int j = 0; j < n; ++j) off = fmin(off, cabs(w[i] - x->mu[j]));
      /* to first order |error| <= |E| / s with |E| the backward error of a small multiple of n roundings */
      worst = fmax(worst, off * s[i] / (norm * DBL_EPSILON));
      condition = fmax(condition, fabs(q.condition - s[i]) / s[i]);
      backward = fmax(backward, q.backward_error / (length_times_left(x, w[i]) * DBL_EPSILON));
    }
    print_message(
        "    n = %2d: LAPACK off by %.2g eps |A|/s, backward error %.2g eps |u||y|, s differs by %.1e, "
        "%d + %d sweeps\n",
        n, worst, backward, condition, x->r.sweeps, y->r.sweeps);
    assert_true(worst <= 10 * n);
    assert_true(backward <= 10 * n);
    assert_true(condition <=
                1e-9); /* eigenvectors are as good as eps |A| over the distance to the next value */
    free(x);
    free(y);
  }
}

/* The backward error of a value that is not an eigenvalue: least singular value of A - z is at most
   |A x - z x|/|x|, and within a factor here; z moved by t is at most t away. */
static void the_backward_error_grows_with_the_distance_from_an_eigenvalue(void **state)
{
  (void)state;
  example *x = example_new(12);
  random_example(x, 5);
  solve(x);
  const sq_rank_one A = matrix(x);
  const double norm = sq_rank_one_norm(&A);
  sq_complex *M = dense(x);
  double square = 0;
  for (int k = 0; k < 144; ++k) square += creal(M[k] * conj(M[k]));
  assert_true(fabs(norm - sqrt(square)) <= 1e-13 * norm);
  free(M);
  for (int i = 0; i < 12; ++i) {
    sq_eigenvalue_quality at, near;
    sq_rank_one_eigenvalue(&A, x->mu[i], DBL_EPSILON, &at);
    sq_rank_one_eigenvalue(&A, x->mu[i] + 1e-6, DBL_EPSILON, &near);
    assert_true(at.backward_error <= DBL_EPSILON);
    /* f' is linear there: |A x - z x| = |u| |f'| 1e-6 = s 1e-6 |x| |u| |y| / (|u| ...) */
    assert_true(near.backward_error <= 1.1e-6 / norm * 20 &&
                near.backward_error >= 1e-6 * at.condition / norm * 0.5);
  }
  free(x);
}

/* ---- sensitivity ------------------------------------------------------------------------------------- */
static void the_sensitivity_bounds_what_random_roundings_do(void **state)
{
  (void)state;
  const double relative = 1e-9;
  example *x = example_new(24);
  random_example(x, 11);
  solve(x);
  const sq_rank_one A = matrix(x);
  double most = 0;
  for (int trial = 0; trial < 10; ++trial) {
    example *y = example_new(24);
    sq_rng r;
    sq_rng_init(&r, 77, SQ_STREAM_TEST, (uint64_t)trial);
    for (int i = 0; i < 24; ++i) {
      const double a = relative * (sq_rng_below(&r, 2) ? 1 : -1),
                   b = relative * (sq_rng_below(&r, 2) ? 1 : -1),
                   c = relative * (sq_rng_below(&r, 2) ? 1 : -1),
                   e = relative * (sq_rng_below(&r, 2) ? 1 : -1);
      y->d[i] = creal(x->d[i]) * (1 + a) + I * cimag(x->d[i]) * (1 + b);
      y->u[i] = y->v[i] = creal(x->u[i]) * (1 + c) + I * cimag(x->u[i]) * (1 + e);
      y->mu[i] = x->mu[i];
    }
    y->started = 1;
    solve(y);
    for (int i = 0; i < 24; ++i) {
      sq_eigenvalue_quality q;
      double moved = INFINITY;
      sq_rank_one_eigenvalue(&A, x->mu[i], relative, &q);
      for (int j = 0; j < 24; ++j) moved = fmin(moved, cabs(x->mu[i] - y->mu[j]));
      most = fmax(most, moved / q.sensitivity);
    }
    free(y);
  }
  print_message("    10 random roundings: at most %.2f of the first-order bound\n", most);
  assert_true(most <= 1 + 1e-5); /* second order: relative / separation */
  assert_true(most >= 0.1);      /* 144 signs: the bound is not far from what happens */
  free(x);
}

/* ---- HiPPO-LegS -------------------------------------------------------------------------------------- */
/* A_ij = -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it; A + p p^T with p_i = sqrt(i + 1/2) is normal:
   -1/2 + i times Hermitian.  single: rounded to float32. */
static void hippo(example *x, int single)
{
  const size_t n = (size_t)x->n;
  sq_complex *H = calloc(n * n, sizeof *H);
  double *y = calloc(n, sizeof *y);
  assert_true(H != NULL && y != NULL);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      const double half = 0.5 * sqrt((2.0 * (double)i + 1) * (2.0 * (double)j + 1));
      H[i * n + j] = i > j ? I * half : i < j ? -I * half : 0; /* -i S; S = -half below, +half above */
    }
  hermitian_eig(x->n, H, y);
  for (size_t k = 0; k < n; ++k) {
    sq_complex p = 0;
    for (size_t i = 0; i < n; ++i)
      p += H[k * n + i] * sqrt((double)i + 0.5); /* row k is the conjugate of vector k */
    x->d[k] = -0.5 + I * (single ? (double)(float)y[k] : y[k]);
    x->u[k] = x->v[k] = single ? (double)(float)creal(p) + I * (double)(float)cimag(p) : p;
  }
  free(H);
  free(y);
}

/* Worst over n of the distance from -n to the nearest of w. */
static double from_ideal(int n, const sq_complex *w)
{
  double worst = 0;
  for (int k = 1; k <= n; ++k) {
    double nearest = INFINITY;
    for (int i = 0; i < n; ++i) nearest = fmin(nearest, cabs(w[i] + k));
    worst = fmax(worst, nearest);
  }
  return worst;
}

/* Share of |(1 + step mu/2)/(1 - step mu/2)| in (low, high], the ends to a few roundings. */
static double share(int n, const sq_complex *mu, double step, double low, double high)
{
  int count = 0;
  for (int i = 0; i < n; ++i) {
    const double r = cabs((1 + 0.5 * step * mu[i]) / (1 - 0.5 * step * mu[i]));
    count += r > low * (1 + 8 * DBL_EPSILON) && r <= high * (1 + 8 * DBL_EPSILON);
  }
  return 100.0 * count / n;
}

static void hippo_legs_is_beyond_float64_and_its_stored_parameters_are_not_beyond_proof(void **state)
{
  (void)state;
  static const int size[] = {8, 16, 32, 64};
  /* 4 columns: LAPACK on float64 parameters, exact eigenvalues of float32 parameters: distance to -1 .. -N, as
     measured before on another machine; they are products of rounding, so their magnitude is compared */
  static const double lapack64[] = {7e-11, 3e-5, 8.5, 50}, exact32[] = {7e-3, 4.0, 23, 19};
  print_message("    %4s %14s %14s %14s %12s %12s\n", "N", "LAPACK, f64", "exact of f32", "LAPACK - exact",
                "f32: disc", "least s");
  for (int k = 0; k < 4; ++k) {
    const int n = size[k];
    example *x = example_new(n), *y = example_new(n);
    sq_complex w[64], w32[64];
    double s[64], widest[2] = {0, 0}, least = 1;
    hippo(x, 0);
    hippo(y, 1);
    by_lapack(x, w, s);
    by_lapack(y, w32, NULL);
    solve(x);
    solve(y);
    assert_int_equal(x->r.ncertified, n);
    assert_int_equal(y->r.ncertified, n);
    for (int i = 0; i < n; ++i) {
      widest[0] = fmax(widest[0], x->radius[i] / cabs(x->mu[i]));
      widest[1] = fmax(widest[1], y->radius[i] / cabs(y->mu[i]));
      least = fmin(least, s[i]);
    }
    const double a = from_ideal(n, w), b = from_ideal(n, y->mu), c = bottleneck(n, w32, y->mu);
    print_message("    %4d %14.1e %14.1e %14.1e %12.1e %12.1e\n", n, a, b, c, widest[1], least);
    assert_true(a <= 30 * lapack64[k] && a >= lapack64[k] / 30);
    assert_true(b <= 5 * exact32[k] && b >= exact32[k] / 5);
    /* Stored in float32: what is left is rounding mu to float64, half a unit in each part.  Stored in float64 the
       values are another factor 1e9 less determined, and quadruple precision ends nearer. */
    assert_true(widest[1] <= DBL_EPSILON);
    assert_true(widest[0] <= 1e-9);
    assert_true(c <= 1e-4);
    if (n == 64) {
      sq_complex ideal[64];
      for (int i = 0; i < 64; ++i) ideal[i] = -(i + 1);
      print_message("    N = 64, step .01, (.9, 1]: %.1f %% stored in float32, %.1f %% ideal\n",
                    share(n, y->mu, .01, .9, 1), share(n, ideal, .01, .9, 1));
      print_message("    N = 64, step .1, (.1, .5]: %.1f %% stored in float32, %.1f %% ideal\n",
                    share(n, y->mu, .1, .1, .5), share(n, ideal, .1, .1, .5));
      assert_true(fabs(share(n, ideal, .01, .9, 1) - 15.625) < 1e-9);
      /* -60 gives exactly .5: 46 of 64; without it, as rounding may have it, 45 (70.3 %) */
      assert_true(fabs(share(n, ideal, .1, .1, .5) - 71.875) < 1e-9);
      assert_true(share(n, y->mu, .01, .9, 1) > 40);
      assert_true(share(n, y->mu, .1, .1, .5) < 10);
    }
    free(x);
    free(y);
  }
}

static void large_matrices_are_certified_in_few_sweeps(void **state)
{
  (void)state;
  static const int size[] = {64, 128, 256};
  for (int k = 0; k < 3; ++k) {
    example *x = example_new(size[k]);
    hippo(x, 1);
    const double start = sq_wall_s();
    solve(x);
    print_message("    N = %3d: %d of %d certified, %d sweeps, %.1f ms\n", x->n, x->r.ncertified, x->n,
                  x->r.sweeps, 1e3 * (sq_wall_s() - start));
    assert_int_equal(x->r.ncertified, x->n);
    free(x);
  }
}

int main(void)
{
  sq_blas_set_threads(1); /* as the program does */
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(eigenvalues_that_are_known_exactly_lie_in_their_discs),
      cmocka_unit_test(interlacing_values_are_found_to_the_sensitivity_of_their_weights),
      cmocka_unit_test(a_single_state_has_the_eigenvalue_of_its_formula),
      cmocka_unit_test(entries_without_weight_and_equal_entries_are_eigenvalues),
      cmocka_unit_test(a_matrix_without_weights_keeps_its_diagonal),
      cmocka_unit_test(random_matrices_have_the_eigenvalues_of_lapack_from_either_start),
      cmocka_unit_test(the_backward_error_grows_with_the_distance_from_an_eigenvalue),
      cmocka_unit_test(the_sensitivity_bounds_what_random_roundings_do),
      cmocka_unit_test(a_double_eigenvalue_is_not_certified),
      cmocka_unit_test(hippo_legs_is_beyond_float64_and_its_stored_parameters_are_not_beyond_proof),
      cmocka_unit_test(large_matrices_are_certified_in_few_sweeps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
