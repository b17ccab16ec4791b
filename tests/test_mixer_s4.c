/* tests/test_mixer_s4.c: S4's kernel, convolution, gradients and recurrence against their definitions. */
#include <complex.h>

#include "hermitian.h"
#include "mixer_fixture.h"
#include "sq/linalg.h"
#include "sq/parallel.h"

/* ---- a mixer, its parameters and a ragged batch ------------------------------------------------------- */

static const sq_schema *s4_schema(void)
{
  static const sq_key own[] = {
      {"model.layer", SQ_KEY_STRING, NULL, 0, 0, NULL, "backbone"},
      {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 4096, NULL, "width"},
      {"model.ssm_lr_vars", SQ_KEY_STRINGS, "[\"Lambda_re\",\"log_step\"]", 0, 0, NULL, "leaf names"},
  };
  static const sq_keyset base = {"", own, 3, NULL};
  static const sq_keyset *set[2];
  static sq_schema schema = {set, 2};
  set[0] = &base;
  set[1] = sq_mixer_find("s4")->keys;
  return &schema;
}

static void s4_create(fixture *f, int N, int D, int L, const char *more)
{
  memset(f, 0, sizeof *f);
  sq_format(f->text, sizeof f->text, "{\"model\":{\"layer\":\"s4\",\"hidden_dim\":%d,\"state_dim\":%d%s}}", D,
            N, more);
  if (sq_experiment_parse(s4_schema(), f->text, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
  f->ops = sq_mixer_find("s4");
  f->dims = (sq_mixer_dims){.D = D, .seq_len = L, .max_rows = 8 * L, .site = 5};
  if (f->ops->create(sq_experiment_cell(f->e, 0), f->dims, &f->m) != SQ_OK) fail_msg("%s", sq_error_text());
}

static sq_real *s4_tensor(const fixture *f, sq_real *theta, const char *leaf)
{
  char name[64];
  sq_format(name, sizeof name, "encoder.layers_0.seq.%s", leaf);
  const sq_param *p = sq_param_find(&f->params, name);
  assert_non_null(p);
  return theta + p->offset;
}

typedef struct {
  fixture f;
  sq_real *derived, *dderived;
  size_t nderived;
} s4;

static void s4_make(s4 *x, int N, int D, int L, int nseq, const int *len)
{
  fixture *f = &x->f;
  s4_create(f, N, D, L, "");
  for (int b = 0; b < nseq; ++b) {
    f->off[b + 1] = f->off[b] + len[b];
    f->id[b] = b;
  }
  f->rows = (sq_rows){.nseq = nseq, .nrow = f->off[nseq], .off = f->off, .id = f->id};
  f->ops->params(f->m, "encoder.layers_0.seq", &f->params);
  f->theta = sq_calloc(f->params.total, sizeof *f->theta, "theta");
  for (int i = 0; i < f->params.n; ++i) {
    sq_rng r;
    sq_rng_init(&r, 7, SQ_STREAM_INIT, (uint64_t)i);
    f->ops->init(f->m, &f->params.v[i], &r, f->theta);
  }
  const size_t n = (size_t)(f->rows.nrow + 1) * (size_t)D;
  f->u = sq_calloc(n, sizeof *f->u, "u");
  f->y = sq_calloc(n, sizeof *f->y, "y");
  draw(1, n, 1, f->u);
  f->tape = guarded(f->ops->tape_bytes(f->m));
  f->scratch = guarded(f->ops->scratch_bytes(f->m));
  x->nderived = f->ops->derived_count(f->m);
  x->derived = guarded(x->nderived * sizeof(sq_real));
  x->dderived = sq_calloc(x->nderived, sizeof(sq_real), "gradient");
  f->pass = (sq_pass){.rows = &f->rows, .seq_len = L, .derived = x->derived, .dderived = x->dderived};
}

static void s4_free(s4 *x)
{
  free(x->dderived);
  free(x->derived);
  fixture_free(&x->f);
}

static int parts_of(const s4 *x)
{
  const size_t part = x->f.ops->derived_part(x->f.m);
  return (int)((x->nderived + part - 1) / part);
}

/* K[j, d] in `derived`: slices of 16 channels, each with its kernels (L, channels) in front of its spectra. */
static const sq_real *kernel_at(const s4 *x, int j, int d)
{
  const int D = sq_mixer_shape(x->f.m).D, d0 = d / 16 * 16, nc = D - d0 < 16 ? D - d0 : 16;
  return x->derived + (size_t)d0 * (x->nderived / (size_t)D) + (size_t)j * (size_t)nc + (size_t)(d - d0);
}

static void s4_derive(s4 *x)
{
  x->f.ops->derive(x->f.m, x->f.theta, 0, parts_of(x), x->derived, x->f.scratch);
  expect_guard("derived", (const unsigned char *)x->derived, x->nderived * sizeof(sq_real));
  expect_guard("scratch", x->f.scratch, x->f.ops->scratch_bytes(x->f.m));
}

/* Parameters as far from symmetric as training can make them; channel 0 keeps HiPPO.  Some Re(lam) lie beyond the
   clamp. */
static void stir(s4 *x)
{
  fixture *f = &x->f;
  const int D = f->dims.D, N = sq_config_int(sq_experiment_cell(f->e, 0), "model.state_dim");
  const char *const leaf[] = {"Lambda_re", "Lambda_im", "P", "B"};
  const double scale[] = {0.3, 2, 0.3, 0.5};
  sq_real *noise = sq_calloc(2 * (size_t)(N * D), sizeof *noise, "noise");
  for (int i = 0; i < 4; ++i) {
    const int width = i < 2 ? 1 : 2;
    sq_real *p = s4_tensor(f, f->theta, leaf[i]);
    draw(20 + i, (size_t)(N * D * width), scale[i], noise);
    for (int k = 0; k < N * D * width; ++k)
      if (k / width % D > 0) p[k] += noise[k];
  }
  draw(30, (size_t)D, 1, s4_tensor(f, f->theta, "D"));
  for (int d = 1; d < D; d += 2)
    if (N > 1) s4_tensor(f, f->theta, "Lambda_re")[D + d] = (sq_real)0.05;
  free(noise);
}

/* ---- the definition, dense, float64 ------------------------------------------------------------------- */

typedef struct { /* parameters of one channel */
  int N, L;
  double *lr, *li, *P, *B, *C, D, log_step; /* (N) x 2, (N,2) x 3 */
} channel;

static channel channel_of(const s4 *x, int d)
{
  const fixture *f = &x->f;
  const int N = sq_config_int(sq_experiment_cell(f->e, 0), "model.state_dim"), D = f->dims.D;
  channel c = {.N = N, .L = f->dims.seq_len, .lr = calloc((size_t)(8 * N), sizeof(double))};
  assert_non_null(c.lr);
  c.li = c.lr + N;
  c.P = c.lr + 2 * N;
  c.B = c.lr + 4 * N;
  c.C = c.lr + 6 * N;
  for (int n = 0; n < N; ++n) {
    c.lr[n] = (double)s4_tensor(f, f->theta, "Lambda_re")[n * D + d];
    c.li[n] = (double)s4_tensor(f, f->theta, "Lambda_im")[n * D + d];
    for (int i = 0; i < 2; ++i) {
      c.P[2 * n + i] = (double)s4_tensor(f, f->theta, "P")[2 * (n * D + d) + i];
      c.B[2 * n + i] = (double)s4_tensor(f, f->theta, "B")[2 * (n * D + d) + i];
      c.C[2 * n + i] = (double)s4_tensor(f, f->theta, "C")[2 * (n * D + d) + i];
    }
  }
  c.D = (double)s4_tensor(f, f->theta, "D")[d];
  c.log_step = (double)s4_tensor(f, f->theta, "log_step")[d];
  return c;
}

static sq_complex z_at(const double *v, int n)
{
  return CMPLX(v[2 * n], v[2 * n + 1]);
}

/* X = (m I - s A_c)^-1 (p I + q A_c) with A_c = diag(lam) - P P^*, by Gaussian elimination of dense matrices. */
static void bilinear(const channel *c, double m, double s, double p, double q, sq_complex *left,
                     sq_complex *X)
{
  const int N = c->N;
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) {
      sq_complex A = -z_at(c->P, i) * conj(z_at(c->P, j));
      if (i == j) A += CMPLX(fmin(c->lr[i], (double)(sq_real)-1e-4), c->li[i]);
      left[i * N + j] = (i == j ? m : 0) - s * A;
      X[i * N + j] = (i == j ? p : 0) + q * A;
    }
  for (int k = 0; k < N;
       ++k) { /* diagonally dominant enough: the real part of m - s A_c is positive definite */
    for (int i = 0; i < N; ++i) {
      if (i == k) continue;
      const sq_complex factor = left[i * N + k] / left[k * N + k];
      for (int j = k; j < N; ++j) left[i * N + j] -= factor * left[k * N + j];
      for (int j = 0; j < N; ++j) X[i * N + j] -= factor * X[k * N + j];
    }
  }
  for (int k = 0; k < N; ++k)
    for (int j = 0; j < N; ++j) X[k * N + j] /= left[k * N + k];
}

static void matrix_times(int N, const sq_complex *A, const sq_complex *x, sq_complex *y)
{
  for (int i = 0; i < N; ++i) {
    y[i] = 0;
    for (int j = 0; j < N; ++j) y[i] += A[i * N + j] * x[j];
  }
}

/* Kernel (L) by its definition: K_j = Re(C' A^j B'), C' = conj(C~) (I - A^L)^-1.  Since K_j = Re sum over r of
   conj(C~) A^(j + r L) B', it is summed instead of solving with I - A^L: the states decay, and what is left after the
   last term is geometric.  `work` (2 N^2 + 2 N). */
static void dense_kernel(const channel *c, double *K)
{
  const int N = c->N;
  const double step = exp(c->log_step);
  sq_complex *A = calloc((size_t)(2 * N * N + 2 * N), sizeof *A), *left = A + N * N, *x = left + N * N,
             *y = x + N;
  assert_non_null(A);
  sq_complex *M = left; /* B' = 2 M B, M = (2/step - A_c)^-1 */
  sq_complex *scratch = calloc((size_t)(N * N), sizeof *scratch);
  assert_non_null(scratch);
  bilinear(c, 2 / step, 1, 1, 0, scratch, M);
  for (int n = 0; n < N; ++n) y[n] = 2 * z_at(c->B, n);
  matrix_times(N, M, y, x);
  bilinear(c, 2 / step, 1, 2 / step, 1, scratch, A);
  memset(K, 0, (size_t)c->L * sizeof *K);
  double largest = 0, last = 1;
  for (long r = 0; last > 1e-18 * largest; ++r) {
    last = 0;
    for (int j = 0; j < c->L; ++j) {
      sq_complex sum = 0;
      for (int n = 0; n < N; ++n) sum += conj(z_at(c->C, n)) * x[n];
      K[j] += creal(sum);
      last = fmax(last, cabs(sum));
      matrix_times(N, A, x, y);
      memcpy(x, y, (size_t)N * sizeof *x);
    }
    largest = fmax(largest, last);
    if (r > 4000000 / c->L) fail_msg("the states do not decay");
  }
  free(scratch);
  free(A);
}

static double largest(int n, const double *x)
{
  double m = 0;
  for (int i = 0; i < n; ++i) m = fmax(m, fabs(x[i]));
  return m;
}

/* ---- tests -------------------------------------------------------------------------------------------- */

/* Made in double in both programs, then rounded.  In double the sums of N terms cancel; (sum of moduli)/(result) is up to
   1e3 at HiPPO initialisation, more near resonances. */
static double kernel_allowance(void)
{
  return 1e-11 + (sizeof(sq_real) == 8 ? 0 : (double)SQ_REAL_EPS);
}

static void check_kernel(int N, int D, int L, int stirred, double *worst)
{
  s4 x;
  s4_make(&x, N, D, L, 1, &L);
  if (stirred) stir(&x);
  s4_derive(&x);
  double *K = calloc((size_t)L, sizeof *K);
  assert_non_null(K);
  for (int d = 0; d < D; ++d) {
    channel c = channel_of(&x, d);
    dense_kernel(&c, K);
    const double scale = largest(L, K);
    char label[80];
    sq_format(label, sizeof label, "N %d L %d channel %d stirred %d", N, L, d, stirred);
    for (int j = 0; j < L; ++j) {
      const double got = (double)*kernel_at(&x, j, d);
      EXPECT_NEAR(label, got, K[j], kernel_allowance() * scale);
      *worst = fmax(*worst, fabs(got - K[j]) / scale);
    }
    free(c.lr);
  }
  free(K);
  s4_free(&x);
}

static void kernel_is_the_response_of_the_recurrence(void **state)
{
  static const int shape[][3] = {{1, 1, 1},   {1, 3, 2},   {2, 2, 3},    {4, 2, 17},
                                 {5, 17, 64}, {16, 3, 97}, {16, 2, 300}, {64, 2, 129}};
  double worst = 0;
  (void)state;
  for (size_t i = 0; i < sizeof shape / sizeof *shape; ++i)
    for (int stirred = 0; stirred < 2; ++stirred)
      check_kernel(shape[i][0], shape[i][1], shape[i][2], stirred, &worst);
  print_message("largest error of the kernel: %.2g of its maximum\n", worst);
}

static void kernel_keeps_its_digits_at_length_1024(void **state)
{
  double worst = 0;
  (void)state;
  check_kernel(64, 3, 1024, 0, &worst);
  print_message("N 64 L 1024: largest error of the kernel: %.2g of its maximum\n", worst);
}

/* Lengths for both ways of convolving, and for the ladder and the full plan of the transforms. */
static const int ragged[] = {700, 1, 2, 33, 699, 300, 301, 450};
static const int short_ones[] = {40, 1, 3, 39};

/* y and du by the definition, from the kernel in `derived`. */
static void check_convolution(int D, int L, int nseq, const int *len)
{
  s4 x;
  s4_make(&x, 4, D, L, nseq, len);
  stir(&x);
  s4_derive(&x);
  fixture *f = &x.f;
  const size_t n = (size_t)f->rows.nrow * (size_t)D;
  sq_real *dy = sq_calloc(n, sizeof *dy, "dy"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *dtheta = sq_calloc(f->params.total, sizeof *dtheta, "dtheta");
  draw(2, n, 1, dy);
  fixture_forward(f);
  fixture_backward(f, dy, du, dtheta);
  const sq_real *skip = s4_tensor(f, f->theta, "D");
  for (int d = 0; d < D; ++d) {
    double dskip = 0, size = 0;
    for (int j = 0; j < L; ++j) size += fabs((double)*kernel_at(&x, j, d));
    /* Values of order 1; transforms of length n round like log2(n) times the norm of the kernel. */
    const double allowed = 60 * (double)SQ_REAL_EPS * (size + fabs((double)skip[d]));
    for (int b = 0; b < nseq; ++b)
      for (int t = 0; t < len[b]; ++t) {
        const int r = f->off[b] + t;
        double y = (double)skip[d] * (double)f->u[r * D + d], g = (double)skip[d] * (double)dy[r * D + d];
        for (int j = 0; j <= t; ++j) y += (double)*kernel_at(&x, j, d) * (double)f->u[(r - j) * D + d];
        for (int j = 0; j < len[b] - t; ++j) g += (double)*kernel_at(&x, j, d) * (double)dy[(r + j) * D + d];
        EXPECT_NEAR("y", f->y[r * D + d], y, allowed);
        EXPECT_NEAR("du", du[r * D + d], g, allowed);
        dskip += (double)dy[r * D + d] * (double)f->u[r * D + d];
      }
    EXPECT_NEAR("dD", s4_tensor(f, dtheta, "D")[d], dskip, 8 * (double)SQ_REAL_EPS * sqrt(f->rows.nrow) * 8);
  }
  free(dtheta);
  free(du);
  free(dy);
  s4_free(&x);
}

static void convolution_and_its_gradient_follow_the_definition(void **state)
{
  (void)state;
  check_convolution(3, 700, 8, ragged);
  check_convolution(17, 700, 8, ragged);
  check_convolution(5, 40, 4, short_ones);
  check_convolution(33, 41, 4, short_ones);
  check_convolution(2, 1, 3, (const int[]){1, 1, 1});
}

/* y is linear in `derived`, kernel and spectra alike: <dderived, v> = <dy, y(v) - y(0)> for any v, which ties the
   backward pass to the forward pass in every element. */
static void check_adjoint(int D, int L, int nseq, const int *len)
{
  s4 x;
  s4_make(&x, 4, D, L, nseq, len);
  s4_derive(&x);
  fixture *f = &x.f;
  const size_t n = (size_t)f->rows.nrow * (size_t)D;
  sq_real *dy = sq_calloc(n, sizeof *dy, "dy"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *dtheta = sq_calloc(f->params.total, sizeof *dtheta, "dtheta");
  sq_real *skip = s4_tensor(f, f->theta, "D");
  draw(2, n, 1, dy);
  fixture_backward(f, dy, du, dtheta);
  memset(skip, 0, (size_t)D * sizeof *skip);
  for (int k = 0; k < 3; ++k) {
    double left = 0, right = 0, norm_g = 0, norm_v = 0;
    draw(40 + k, x.nderived, 1, x.derived);
    for (size_t i = 0; i < x.nderived; ++i) {
      left += (double)x.dderived[i] * (double)x.derived[i];
      norm_g += (double)x.dderived[i] * (double)x.dderived[i];
      norm_v += (double)x.derived[i] * (double)x.derived[i];
    }
    fixture_forward(f);
    for (size_t i = 0; i < n; ++i) right += (double)dy[i] * (double)f->y[i];
    /* One wrong element among thousands changes this by 1e-4 of the norms. */
    EXPECT_NEAR("<dderived, v>", left, right, 4 * (double)SQ_REAL_EPS * sqrt(norm_g * norm_v));
  }
  free(dtheta);
  free(du);
  free(dy);
  s4_free(&x);
}

static void gradient_of_derived_is_the_adjoint_of_the_forward_pass(void **state)
{
  (void)state;
  check_adjoint(3, 700, 8, ragged);
  check_adjoint(18, 700, 1, ragged);
  check_adjoint(18, 700, 3, ragged + 4);
  check_adjoint(17, 40, 4, short_ones);
  check_adjoint(2, 402, 2, (const int[]){402, 399});
}

/* ---- gradients of the parameters ------------------------------------------------------------------------ */

typedef struct {
  const char *leaf;
  double expected, size, got;
} one_gradient;

/* Loss sum dy.y of one channel by the definition: sum_j K_j r_j with the correlations r_j = sum_t dy_t u_(t-j).  Its
   derivative by *p, and |dK| |r|: transforms spread their rounding over all steps, so it is relative to the norms.  K: room for 2 L. */
static void central(channel *c, double *p, const double *r, double *K, one_gradient *g)
{
  /* Fourth order, h^4/30 times the fifth derivative (up to 1e6: the kernel oscillates, the steps count); rounding
     1e-15/h. */
  const double at = *p, h = 2e-4 * fmax(fabs(at), 0.1);
  double *dK = K + c->L;
  memset(dK, 0, (size_t)c->L * sizeof *dK);
  for (int i = -2; i <= 2; ++i) {
    static const double weight[] = {1, -8, 0, 8, -1};
    if (i == 0) continue;
    *p = at + i * h;
    dense_kernel(c, K);
    for (int j = 0; j < c->L; ++j) dK[j] += weight[i + 2] * K[j] / (12 * h);
  }
  *p = at;
  double norm_K = 0, norm_r = 0;
  g->expected = 0;
  for (int j = 0; j < c->L; ++j) {
    g->expected += dK[j] * r[j];
    norm_K += dK[j] * dK[j];
    norm_r += r[j] * r[j];
  }
  g->size = sqrt(norm_K * norm_r);
}

static int collect(const s4 *x, channel *c, int d, const double *r, double *K, sq_real *dtheta,
                   one_gradient *g)
{
  static const char *const leaf[] = {"Lambda_re", "Lambda_im", "P", "B", "C"};
  const int D = x->f.dims.D;
  double *const from[] = {c->lr, c->li, c->P, c->B, c->C};
  int k = 0;
  for (int i = 0; i < 5; ++i) {
    const int width = i < 2 ? 1 : 2;
    for (int n = 0; n < c->N; ++n)
      for (int j = 0; j < width; ++j) {
        g[k] = (one_gradient){.leaf = leaf[i],
                              .got = (double)s4_tensor(&x->f, dtheta, leaf[i])[(n * D + d) * width + j]};
        central(c, &from[i][n * width + j], r, K, &g[k++]);
      }
  }
  g[k] = (one_gradient){.leaf = "log_step", .got = (double)s4_tensor(&x->f, dtheta, "log_step")[d]};
  central(c, &c->log_step, r, K, &g[k++]);
  return k;
}

static void check_gradients(int N, int D, int L, int nseq, const int *len, double *worst)
{
  s4 x;
  s4_make(&x, N, D, L, nseq, len);
  stir(&x);
  fixture *f = &x.f;
  for (int d = 0; d < D; ++d)
    s4_tensor(f, f->theta, "log_step")[d] = (sq_real)log(0.1); /* of any size: decays soon */
  s4_derive(&x);
  const size_t n = (size_t)f->rows.nrow * (size_t)D;
  sq_real *dy = sq_calloc(n, sizeof *dy, "dy"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *dtheta = sq_calloc(f->params.total, sizeof *dtheta, "dtheta");
  double *r = calloc((size_t)(3 * L), sizeof *r), *K = r + L;
  one_gradient *g = calloc((size_t)(8 * N + 1), sizeof *g);
  assert_non_null(r);
  assert_non_null(g);
  draw(2, n, 1, dy);
  fixture_backward(f, dy, du, dtheta);
  f->ops->derive_back(f->m, f->theta, 0, parts_of(&x), x.derived, x.dderived, dtheta, f->scratch);
  expect_guard("scratch", f->scratch, f->ops->scratch_bytes(f->m));
  for (int d = 0; d < D; ++d) {
    memset(r, 0, (size_t)L * sizeof *r);
    for (int b = 0; b < nseq; ++b)
      for (int t = 0; t < len[b]; ++t)
        for (int j = 0; j <= t; ++j)
          r[j] += (double)dy[(f->off[b] + t) * D + d] * (double)f->u[(f->off[b] + t - j) * D + d];
    channel c = channel_of(&x, d);
    const int count = collect(&x, &c, d, r, K, dtheta, g);
    double scale = 0;
    for (int i = 0; i < count; ++i) scale = fmax(scale, g[i].size);
    for (int i = 0; i < count; ++i) {
      char label[64];
      sq_format(label, sizeof label, "N %d L %d channel %d %s (%d)", N, L, d, g[i].leaf, i);
      /* The error of the differences; in float32 that of dK: log2(n) eps. */
      EXPECT_NEAR(label, g[i].got, g[i].expected,
                  (sizeof(sq_real) == 8 ? 1e-9 : 10 * (double)SQ_REAL_EPS) * scale);
      *worst = fmax(*worst, fabs(g[i].got - g[i].expected) / scale);
    }
    free(c.lr);
  }
  free(g);
  free(r);
  free(dtheta);
  free(du);
  free(dy);
  s4_free(&x);
}

static void gradients_of_all_parameters_are_those_of_the_definition(void **state)
{
  double worst = 0;
  (void)state;
  check_gradients(1, 2, 1, 1, (const int[]){1}, &worst);
  check_gradients(3, 3, 12, 2, (const int[]){12, 7}, &worst);
  check_gradients(4, 2, 13, 2, (const int[]){13, 7}, &worst);
  check_gradients(2, 2, 640, 3, (const int[]){640, 330, 7}, &worst); /* transforms: ladder and full */
  check_gradients(2, 2, 401, 1, (const int[]){401}, &worst);
  print_message("largest error of a gradient: %.2g of |dK| |dL/dK|\n", worst);
}

static void damping_beyond_the_clamp_has_no_gradient(void **state)
{
  s4 x;
  const int len = 9, D = 4, N = 3;
  (void)state;
  s4_make(&x, N, D, 9, 1, &len);
  stir(&x);
  s4_derive(&x);
  sq_real *dtheta = sq_calloc(x.f.params.total, sizeof *dtheta, "dtheta");
  draw(3, x.nderived, 1, x.dderived);
  x.f.ops->derive_back(x.f.m, x.f.theta, 0, parts_of(&x), x.derived, x.dderived, dtheta, x.f.scratch);
  int beyond = 0;
  for (int i = 0; i < N * D; ++i) {
    const int free_of_it = s4_tensor(&x.f, x.f.theta, "Lambda_re")[i] > (sq_real)-1e-4;
    assert_int_equal(s4_tensor(&x.f, dtheta, "Lambda_re")[i] == 0, free_of_it);
    beyond += free_of_it;
  }
  assert_true(beyond > 0 && beyond < N * D);
  free(dtheta);
  s4_free(&x);
}

/* What sq_mixer_ops.derived_part promises: made one by one the parts are what they are together, each within its own
   numbers, and each element of dtheta is added to in one of them. */
static void parts_made_one_by_one_are_those_made_together(void **state)
{
  s4 x;
  const int len = 700, D = 40; /* three slices, the last of 8 channels; long enough for spectra */
  (void)state;
  s4_make(&x, 4, D, len, 1, &len);
  stir(&x);
  s4_derive(&x);
  const int n = parts_of(&x);
  const size_t part = x.f.ops->derived_part(x.f.m), total = x.f.params.total;
  sq_real *together = sq_calloc(x.nderived, sizeof *together, "derived");
  sq_real *dtheta = sq_calloc(2 * total, sizeof *dtheta, "dtheta"), *alone = dtheta + total;
  int *times = sq_calloc(total, sizeof *times, "counts");
  assert_int_equal(n, 3);
  memcpy(together, x.derived, x.nderived * sizeof *together);
  draw(3, x.nderived, 1, x.dderived);
  x.f.ops->derive_back(x.f.m, x.f.theta, 0, n, x.derived, x.dderived, dtheta, x.f.scratch);
  for (int i = 0; i < n; ++i) {
    const size_t first = (size_t)i * part, end = i + 1 < n ? first + part : x.nderived;
    for (size_t k = 0; k < x.nderived; ++k) x.derived[k] = -7;
    x.f.ops->derive(x.f.m, x.f.theta, i, i + 1, x.derived, x.f.scratch);
    assert_memory_equal(x.derived + first, together + first, (end - first) * sizeof *together);
    for (size_t k = 0; k < x.nderived; ++k)
      if (k < first || k >= end) assert_true(x.derived[k] == -7);
    memset(alone, 0, total * sizeof *alone);
    x.f.ops->derive_back(x.f.m, x.f.theta, i, i + 1, together, x.dderived, alone, x.f.scratch);
    for (size_t k = 0; k < total; ++k)
      if (alone[k] != 0) {
        ++times[k];
        assert_true(alone[k] == dtheta[k]);
      }
  }
  for (size_t k = 0; k < total; ++k) assert_int_equal(times[k], dtheta[k] != 0);
  free(times);
  free(dtheta);
  free(together);
  s4_free(&x);
}

/* ---- the recurrence ------------------------------------------------------------------------------------- */

typedef struct {
  sq_lti f;
  sq_complex *memory;
  double D;
} s4_system;

static s4_system system_of(const s4 *x)
{
  s4_system r = {.f = {0}};
  x->f.ops->lti_dims(x->f.m, &r.f);
  const size_t n = (size_t)r.f.n;
  r.memory = calloc(7 * n, sizeof *r.memory);
  assert_non_null(r.memory);
  sq_complex **const part[] = {&r.f.a, &r.f.u, &r.f.v, &r.f.B, &r.f.C, &r.f.lam, &r.f.p};
  for (size_t i = 0; i < 7; ++i) *part[i] = r.memory + i * n;
  return r;
}

/* Largest difference to the convolution's output, in units of its largest value. */
static double recurrence_error(int N, int D, int L, int stirred)
{
  s4 x;
  double worst = 0, scale = 0;
  s4_make(&x, N, D, L, 1, &L);
  if (stirred) stir(&x);
  s4_derive(&x);
  fixture_forward(&x.f);
  for (int i = 0; i < L * D; ++i) scale = fmax(scale, fabs((double)x.f.y[i]));
  sq_complex *h = calloc((size_t)N, sizeof *h);
  assert_non_null(h);
  for (int d = 0; d < D; ++d) {
    s4_system s = system_of(&x);
    s.f.D = &s.D;
    assert_int_equal(x.f.ops->lti(x.f.m, x.f.theta, d, &s.f), SQ_OK);
    memset(h, 0, (size_t)N * sizeof *h);
    for (int t = 0; t < L; ++t) {
      const double u = (double)x.f.u[t * D + d];
      sq_complex vh = 0, y = 0;
      for (int n = 0; n < N; ++n) vh += conj(s.f.v[n]) * h[n];
      for (int n = 0; n < N; ++n) {
        h[n] = s.f.a[n] * h[n] - s.f.u[n] * vh + s.f.B[n] * u;
        y += s.f.C[n] * h[n];
      }
      worst = fmax(worst, fabs(creal(y) + s.D * u - (double)x.f.y[t * D + d]));
    }
    free(s.memory);
  }
  free(h);
  s4_free(&x);
  return worst / scale;
}

static void recurrence_reproduces_the_convolution(void **state)
{
  static const int N[] = {1, 4, 16, 64}, L[] = {1, 64, 65, 512, 511};
  (void)state;
  for (size_t i = 0; i < sizeof N / sizeof *N; ++i)
    for (size_t k = 0; k < sizeof L / sizeof *L; ++k)
      for (int stirred = 0; stirred < 2; ++stirred) {
        const double e = recurrence_error(N[i], 3, L[k], stirred);
        print_message("N %d L %d stirred %d: %.2g\n", N[i], L[k], stirred, e);
        EXPECT_NEAR("recurrence", e, 0, sizeof(sq_real) == 8 ? 1e-10 : 1e-5);
      }
}

static void system_holds_the_parameters_that_its_eigenvalues_follow_from(void **state)
{
  s4 x;
  const int L = 8, N = 6, D = 3;
  (void)state;
  s4_make(&x, N, D, L, 1, &L);
  stir(&x);
  for (int d = 0; d < D; ++d) {
    s4_system s = system_of(&x);
    s.f.C = NULL; /* not wanted */
    assert_int_equal(x.f.ops->lti(x.f.m, x.f.theta, d, &s.f), SQ_OK);
    channel c = channel_of(&x, d);
    sq_complex *A = calloc((size_t)(2 * N * N), sizeof *A);
    assert_non_null(A);
    EXPECT_NEAR("step", s.f.step, exp(c.log_step), 1e-15);
    bilinear(&c, 2 / s.f.step, 1, 2 / s.f.step, 1, A + N * N, A);
    for (int i = 0; i < N; ++i) {
      EXPECT_NEAR("Re lam", creal(s.f.lam[i]), fmin(c.lr[i], (double)(sq_real)-1e-4),
                  0); /* as in the kernel */
      EXPECT_NEAR("|p|", cabs(s.f.p[i] - z_at(c.P, i)), 0, 0);
      for (int j = 0; j < N; ++j)
        EXPECT_NEAR("A", cabs((i == j ? s.f.a[i] : 0) - s.f.u[i] * conj(s.f.v[j]) - A[i * N + j]), 0, 1e-13);
    }
    free(A);
    free(c.lr);
    free(s.memory);
  }
  int which = -1;
  assert_int_equal(x.f.ops->lti_published(x.f.m, x.f.theta, NULL, &which), 1);
  assert_int_equal(which, 1);
  s4_free(&x);
}

/* ---- initialisation --------------------------------------------------------------------------------------- */

/* The closed form in hippo.c against the eigenproblem that defines it: A = HiPPO, p_i = sqrt(i + 1/2),
   A + p p^T = -1/2 + i H. */
static void check_hippo(int N)
{
  s4 x;
  const int len = 1, D = 2;
  s4_make(&x, N, D, 1, 1, &len);
  sq_complex *H = calloc((size_t)(N * N), sizeof *H);
  double *mu = calloc((size_t)N, sizeof *mu), trace = 0;
  assert_true(H && mu);
  for (int i = 0; i < N; ++i)
    for (int j = 0; j < N; ++j) {
      const double hippo = i > j ? -sqrt((2.0 * i + 1) * (2.0 * j + 1)) : i == j ? -(i + 1.0) : 0;
      const double S = hippo + sqrt((i + 0.5) * (j + 0.5));
      if (i != j) H[i * N + j] = CMPLX(0, -S);
      if (i == j) EXPECT_NEAR("diagonal", S, -0.5, 1e-12 * N);
    }
  hermitian_eig(N, H, mu);
  /* LAPACK: eps |H|, and the eigenvectors' eps |H|/gap with gaps above 1/2; float32 stores rounded values */
  const double norm = fmax(fabs(mu[0]), 1), eps = (double)SQ_REAL_EPS;
  for (int n = 0; n < N; ++n) {
    sq_complex P = 0;
    for (int i = 0; i < N; ++i) P += H[n * N + i] * sqrt(i + 0.5);
    for (int d = 0; d < D; ++d) {
      const sq_real *p = s4_tensor(&x.f, x.f.theta, "P") + 2 * (n * D + d);
      const sq_real *b = s4_tensor(&x.f, x.f.theta, "B") + 2 * (n * D + d);
      EXPECT_NEAR("Re lam", s4_tensor(&x.f, x.f.theta, "Lambda_re")[n * D + d], -0.5, 0);
      EXPECT_NEAR("Im lam", s4_tensor(&x.f, x.f.theta, "Lambda_im")[n * D + d], mu[n],
                  10 * N * DBL_EPSILON * norm + eps * fabs(mu[n]));
      EXPECT_NEAR("|P|", p[0], cabs(P), 100 * N * DBL_EPSILON * norm + eps * cabs(P));
      EXPECT_NEAR("Im P", p[1], 0, 0);
      EXPECT_NEAR("B", b[0], sqrt(2) * (double)p[0], 2 * eps * (double)b[0]);
      if (d == 0) trace += (double)p[0] * (double)p[0];
    }
  }
  EXPECT_NEAR("sum |P|^2 = |p|^2", trace, N * (double)N / 2, 4 * eps * N * N);
  free(mu);
  free(H);
  s4_free(&x);
}

static void initial_states_are_those_of_hippo(void **state)
{
  static const int N[] = {1, 2, 3, 8, 31, 64, 128};
  (void)state;
  for (size_t i = 0; i < sizeof N / sizeof *N; ++i) check_hippo(N[i]);
}

static void drawn_parameters_have_their_distributions(void **state)
{
  fixture f;
  (void)state;
  for (int lecun = 0; lecun < 2; ++lecun) {
    const int N = 32, D = 64, n = 2 * N * D;
    s4_create(&f, N, D, 4, lecun ? ",\"C_init\":\"lecun_normal\",\"dt_min\":0.01,\"dt_max\":0.02" : "");
    f.ops->params(f.m, "encoder.layers_0.seq", &f.params);
    f.theta = sq_calloc(f.params.total, sizeof *f.theta, "theta");
    for (int i = 0; i < f.params.n; ++i) {
      sq_rng r;
      sq_rng_init(&r, 3, SQ_STREAM_INIT, (uint64_t)i);
      f.ops->init(f.m, &f.params.v[i], &r, f.theta);
    }
    double square = 0, lo = INFINITY, hi = -INFINITY, mean = 0;
    for (int i = 0; i < n; ++i) square += pow((double)s4_tensor(&f, f.theta, "C")[i], 2);
    const double variance = lecun ? 1.0 / (N * D) : 0.5;
    EXPECT_NEAR("variance of C", square / n, variance,
                5 * variance * sqrt(2.0 / n)); /* five standard errors */
    for (int d = 0; d < D; ++d) {
      lo = fmin(lo, (double)s4_tensor(&f, f.theta, "log_step")[d]);
      hi = fmax(hi, (double)s4_tensor(&f, f.theta, "log_step")[d]);
      mean += (double)s4_tensor(&f, f.theta, "log_step")[d] / D;
      EXPECT_NEAR("D", s4_tensor(&f, f.theta, "D")[d], 1, 0);
    }
    const double a = log(lecun ? 0.01 : 0.001), b = log(lecun ? 0.02 : 0.1);
    assert_true(lo >= a - 1e-6 && hi <= b + 1e-6 &&
                hi - lo > 0.8 * (b - a)); /* missed with probability 1e-5 */
    /* even in the logarithm: five deviations of a mean of D uniforms */
    EXPECT_NEAR("mean log_step", mean, 0.5 * (a + b), 5 * (b - a) / sqrt(12.0 * D));
    fixture_free(&f);
  }
}

static void tensors_have_the_published_names_and_flags(void **state)
{
  fixture f;
  (void)state;
  s4_create(&f, 4, 3, 4, "");
  f.ops->params(f.m, "encoder.layers_0.seq", &f.params);
  static const struct {
    const char *leaf;
    int ndim, dim[3];
    unsigned flags;
  } want[] = {{"Lambda_re", 2, {4, 3}, SQ_PARAM_SSM | SQ_PARAM_SSM_PUBLISHED},
              {"Lambda_im", 2, {4, 3}, SQ_PARAM_SSM},
              {"P", 3, {4, 3, 2}, SQ_PARAM_SSM | SQ_PARAM_RE_IM | SQ_PARAM_COMPLEX},
              {"B", 3, {4, 3, 2}, SQ_PARAM_SSM | SQ_PARAM_RE_IM | SQ_PARAM_COMPLEX},
              {"C", 3, {4, 3, 2}, SQ_PARAM_RE_IM},
              {"D", 2, {1, 3}, SQ_PARAM_NO_DECAY},
              {"log_step", 2, {1, 3}, SQ_PARAM_SSM | SQ_PARAM_SSM_PUBLISHED}};
  assert_int_equal(f.params.n, 7);
  for (int i = 0; i < 7; ++i) {
    const sq_param *p = &f.params.v[i];
    char name[64];
    sq_format(name, sizeof name, "encoder.layers_0.seq.%s", want[i].leaf);
    assert_string_equal(p->name, name);
    assert_int_equal(p->ndim, want[i].ndim);
    for (int k = 0; k < p->ndim; ++k) assert_int_equal(p->dim[k], want[i].dim[k]);
    assert_int_equal(p->flags, want[i].flags);
  }
  fixture_free(&f);
}

static void steps_in_the_wrong_order_are_refused(void **state)
{
  sq_experiment *e = NULL;
  (void)state;
  sq_error_clear();
  assert_int_equal(
      sq_experiment_parse(s4_schema(),
                          "{\"model\":{\"layer\":\"s4\",\"hidden_dim\":4,\"state_dim\":4,\"dt_min\":0.2}}",
                          "test", &e),
      SQ_ERR_USAGE);
  assert_non_null(strstr(sq_error_text(), "model.dt_min"));
  sq_error_clear();
}

/* ---- cost ------------------------------------------------------------------------------------------------ */

typedef struct {
  double bytes, flops;
} cost;

static cost cost_of(int N, int D, int T)
{
  fixture f;
  s4_create(&f, N, D, T, "");
  const cost c = {(double)(f.ops->tape_bytes(f.m) + f.ops->scratch_bytes(f.m)) +
                      (double)f.ops->derived_count(f.m) * sizeof(sq_real),
                  f.ops->flops(f.m, 1, &T)};
  fixture_free(&f);
  return c;
}

static void bytes_grow_linearly_and_operations_like_T_log_T(void **state)
{
  (void)state;
  for (int T = 512; T < 16384; T *= 2) {
    const cost one = cost_of(16, 32, T), two = cost_of(16, 32, 2 * T);
    assert_true(two.bytes <= 2.05 * one.bytes);
    assert_true(two.flops <= 2.05 * one.flops * log2(2 * T) / log2(T));
    /* N + T, not N T: 19 arrays over the states in each lane */
    const double more = cost_of(4096, 32, T).bytes - cost_of(16, 32, T).bytes;
    EXPECT_NEAR("bytes for 4080 states more", more, 0, SQ_LANES * 4080 * 20 * sizeof(double));
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(kernel_is_the_response_of_the_recurrence),
      cmocka_unit_test(kernel_keeps_its_digits_at_length_1024),
      cmocka_unit_test(convolution_and_its_gradient_follow_the_definition),
      cmocka_unit_test(gradient_of_derived_is_the_adjoint_of_the_forward_pass),
      cmocka_unit_test(parts_made_one_by_one_are_those_made_together),
      cmocka_unit_test(gradients_of_all_parameters_are_those_of_the_definition),
      cmocka_unit_test(damping_beyond_the_clamp_has_no_gradient),
      cmocka_unit_test(recurrence_reproduces_the_convolution),
      cmocka_unit_test(system_holds_the_parameters_that_its_eigenvalues_follow_from),
      cmocka_unit_test(initial_states_are_those_of_hippo),
      cmocka_unit_test(drawn_parameters_have_their_distributions),
      cmocka_unit_test(tensors_have_the_published_names_and_flags),
      cmocka_unit_test(steps_in_the_wrong_order_are_refused),
      cmocka_unit_test(bytes_grow_linearly_and_operations_like_T_log_T),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
