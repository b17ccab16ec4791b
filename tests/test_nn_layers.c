/* tests/test_nn_layers.c: each forward/backward pair against central differences, and against slow obvious
 * references. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/nn.h"

/* Central differences with h = 1e-5: truncation of order h^2, rounding of order eps/h = 2e-11; all values are
 * of order 1. */
static const double step = 1e-5, tolerance = 1e-8;

static sq_rng rng;
static int setup(void **state)
{
  (void)state;
  sq_rng_init(&rng, 4, SQ_STREAM_TEST, 2);
  return 0;
}

static sq_real *normal(size_t n)
{
  sq_real *x = malloc(n * sizeof *x);
  assert_non_null(x);
  sq_nn_init_normal(&rng, 1, n, x);
  return x;
}
static sq_real *zeros(size_t n)
{
  sq_real *x = calloc(n, sizeof *x);
  assert_non_null(x);
  return x;
}
static double dot(size_t n, const sq_real *a, const sq_real *b)
{
  double s = 0;
  for (size_t i = 0; i < n; ++i) s += (double)a[i] * (double)b[i];
  return s;
}

/* <dy, f(x)> as a function of the array x is differentiated along a random direction and compared with
 * <gradient, direction>. */
typedef double (*scalar)(void *ctx);
static void expect_gradient(const char *what, scalar f, void *ctx, size_t n, sq_real *x, const sq_real *grad)
{
  sq_real *dir = normal(n), *saved = malloc(n * sizeof *saved);
  const double scale = sqrt(dot(n, dir, dir));
  memcpy(saved, x, n * sizeof *x);
  for (size_t i = 0; i < n; ++i) dir[i] = (sq_real)((double)dir[i] / scale);
  for (size_t i = 0; i < n; ++i) x[i] = saved[i] + (sq_real)step * dir[i];
  const double up = f(ctx);
  for (size_t i = 0; i < n; ++i) x[i] = saved[i] - (sq_real)step * dir[i];
  const double quotient = (up - f(ctx)) / (2 * step), slope = dot(n, grad, dir);
  memcpy(x, saved, n * sizeof *x);
  if (!(fabs(slope - quotient) < tolerance * fmax(1, fabs(quotient))))
    fail_msg("%s: gradient %.12g, quotient %.12g", what, slope, quotient);
  free(dir);
  free(saved);
}

/* ---- linear ----------------------------------------------------------------------------------------------
 */
enum { R = 7, IN = 5, OUT = 4, LDX = 6, LDY = 9 };
typedef struct {
  sq_real *x, *W, *b, *dy, *y;
} linear_case;

static double linear_scalar(void *ctx)
{
  linear_case *c = ctx;
  double s = 0;
  sq_nn_linear(R, IN, OUT, c->x, LDX, c->W, c->b, c->y, LDY);
  for (int r = 0; r < R; ++r) s += dot(OUT, c->y + r * LDY, c->dy + r * LDY);
  return s;
}

static void linear_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  linear_case c = {normal(R * LDX), normal(OUT * IN), normal(OUT), normal(R * LDY), zeros(R * LDY)};
  sq_real *dx = zeros(R * LDX), *dW = zeros(OUT * IN), *db = zeros(OUT);
  sq_nn_linear_back(R, IN, OUT, c.x, LDX, c.W, c.dy, LDY, dx, LDX, 0, dW, db);
  expect_gradient("x", linear_scalar, &c, R * LDX, c.x, dx);
  expect_gradient("W", linear_scalar, &c, OUT * IN, c.W, dW);
  expect_gradient("b", linear_scalar, &c, OUT, c.b, db);
  sq_real *twice = zeros(R * LDX);
  memcpy(twice, dx, R * LDX * sizeof *dx);
  sq_nn_linear_back(R, IN, OUT, c.x, LDX, c.W, c.dy, LDY, twice, LDX, 1, dW, db);
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < IN; ++i)
      assert_true(fabs((double)(twice[r * LDX + i] - 2 * dx[r * LDX + i])) < 1e-12);
  free(c.x), free(c.W), free(c.b), free(c.dy), free(c.y), free(dx), free(dW), free(db), free(twice);
}

static void column_sums_are_added(void **state)
{
  (void)state;
  enum { ROWS = 150, COLUMNS = 131, LD = 140 };
  sq_real *x = normal(ROWS * LD), *sum = normal(COLUMNS), *start = malloc(COLUMNS * sizeof *start);
  memcpy(start, sum, COLUMNS * sizeof *start);
  sq_nn_column_sums_add(ROWS, COLUMNS, x, LD, sum);
  for (int c = 0; c < COLUMNS; ++c) {
    double want = (double)start[c];
    for (int r = 0; r < ROWS; ++r) want += (double)x[r * LD + c];
    assert_true(fabs((double)sum[c] - want) < 1e-12);
  }
  free(x), free(sum), free(start);
}

/* ---- dense -----------------------------------------------------------------------------------------------
 */
static sq_real *transposed(int rows, int columns, const sq_real *a)
{
  sq_real *t = zeros((size_t)(rows * columns));
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) t[c * rows + r] = a[r * columns + c];
  return t;
}

static void expect_equal(const char *what, size_t n, const sq_real *a, const sq_real *b, double allowed)
{
  for (size_t i = 0; i < n; ++i)
    if (!(fabs((double)(a[i] - b[i])) <= allowed))
      fail_msg("%s: element %zu is %.17g, not %.17g", what, i, (double)a[i], (double)b[i]);
}

/* A handful of products and sums of numbers of order 1. */
static const double rounding = 1e-14;

static void dense_is_linear_with_the_kernel_transposed(void **state)
{
  (void)state;
  sq_real *x = normal(R * LDX), *K = normal(IN * OUT), *W = transposed(IN, OUT, K), *b = normal(OUT),
          *dy = normal(R * LDY);
  sq_real *y[2] = {zeros(R * LDY), zeros(R * LDY)}, *dx[2] = {zeros(R * LDX), zeros(R * LDX)};
  sq_real *dK = zeros(IN * OUT), *dW = zeros(OUT * IN), *db[2] = {zeros(OUT), zeros(OUT)};
  for (int bias = 0; bias < 2; ++bias)
    for (int again = 0; again < 2; ++again) {
      sq_nn_dense(R, IN, OUT, x, LDX, K, bias ? b : NULL, y[0], LDY);
      sq_nn_linear(R, IN, OUT, x, LDX, W, bias ? b : NULL, y[1], LDY);
      sq_nn_dense_back(R, IN, OUT, x, LDX, K, dy, LDY, dx[0], LDX, again, dK, bias ? db[0] : NULL);
      sq_nn_linear_back(R, IN, OUT, x, LDX, W, dy, LDY, dx[1], LDX, again, dW, bias ? db[1] : NULL);
      sq_real *want = transposed(OUT, IN, dW);
      expect_equal("y", R * LDY, y[0], y[1], rounding);
      expect_equal("dx", R * LDX, dx[0], dx[1], rounding);
      expect_equal("dK", IN * OUT, dK, want, 4 * rounding);
      expect_equal("db", OUT, db[0], db[1], 0);
      free(want);
    }
  free(x), free(K), free(W), free(b), free(dy), free(y[0]), free(y[1]), free(dx[0]), free(dx[1]);
  free(dK), free(dW), free(db[0]), free(db[1]);
}

/* Also with tokens that have no unit vector. */
static void gathered_rows_equal_the_product_with_unit_vectors(void **state)
{
  (void)state;
  enum { ROWS = 40 };
  int32_t token[ROWS];
  sq_real *x = zeros(ROWS * IN), *K = normal(IN * OUT), *b = normal(OUT), *dy = normal(ROWS * OUT);
  sq_real *y[2] = {zeros(ROWS * OUT), zeros(ROWS * OUT)};
  sq_real *dK[2] = {zeros(IN * OUT), zeros(IN * OUT)}, *db[2] = {zeros(OUT), zeros(OUT)};
  for (int r = 0; r < ROWS; ++r) {
    token[r] = (int32_t)sq_rng_below(&rng, IN + 4) - 2; /* -2 .. IN+1 */
    if (0 <= token[r] && token[r] < IN) x[r * IN + token[r]] = 1;
  }
  sq_nn_onehot_dense(ROWS, IN, OUT, token, K, b, y[0]);
  sq_nn_dense(ROWS, IN, OUT, x, IN, K, b, y[1], OUT);
  sq_nn_onehot_dense_back(ROWS, IN, OUT, token, dy, dK[0], db[0]);
  sq_nn_dense_back(ROWS, IN, OUT, x, IN, K, dy, OUT, NULL, 0, 0, dK[1], db[1]);
  expect_equal("y", ROWS * OUT, y[0], y[1], rounding);
  expect_equal("dK", IN * OUT, dK[0], dK[1], 4 * rounding);
  expect_equal("db", OUT, db[0], db[1], 0);
  free(x), free(K), free(b), free(dy), free(y[0]), free(y[1]), free(dK[0]), free(dK[1]), free(db[0]),
      free(db[1]);
}

/* ---- layer norm ------------------------------------------------------------------------------------------
 */
enum { D = 37 }; /* not a multiple of the lanes */
typedef struct {
  sq_real *x, *w, *b, *dy, *y, *mean, *rstd;
} norm_case;

static double norm_scalar(void *ctx)
{
  norm_case *c = ctx;
  sq_nn_layernorm(R, D, c->x, c->w, c->b, 1e-5, c->y, c->mean, c->rstd);
  return dot(R * D, c->y, c->dy);
}

static void layernorm_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  norm_case c = {normal(R * D), normal(D), normal(D), normal(R * D), zeros(R * D), zeros(R), zeros(R)};
  sq_real *dx = zeros(R * D), *dw = zeros(D), *db = zeros(D), *add = normal(R * D), *start = zeros(R * D);
  norm_scalar(&c);
  sq_nn_layernorm_back(R, D, c.x, c.w, c.mean, c.rstd, c.dy, dx, 0, dw, db);
  memcpy(start, add, R * D * sizeof *add);
  sq_real *w2 = zeros(D), *b2 = zeros(D);
  sq_nn_layernorm_back(R, D, c.x, c.w, c.mean, c.rstd, c.dy, add, 1, w2, b2);
  for (int i = 0; i < R * D; ++i) assert_true(fabs((double)(add[i] - start[i] - dx[i])) < 1e-14);
  expect_gradient("x", norm_scalar, &c, R * D, c.x, dx);
  expect_gradient("w", norm_scalar, &c, D, c.w, dw);
  expect_gradient("b", norm_scalar, &c, D, c.b, db);
  free(c.x), free(c.w), free(c.b), free(c.dy), free(c.y), free(c.mean), free(c.rstd);
  free(dx), free(dw), free(db), free(add), free(start), free(w2), free(b2);
}

static void layernorm_has_mean_zero_and_variance_one(void **state)
{
  (void)state;
  norm_case c = {normal(R * D), zeros(D), zeros(D), NULL, zeros(R * D), zeros(R), zeros(R)};
  sq_nn_init_constant(1, D, c.w);
  for (int i = 0; i < R * D; ++i) c.x[i] += 1000; /* a large mean must not eat the variance */
  sq_nn_layernorm(R, D, c.x, c.w, c.b, 0, c.y, c.mean, c.rstd);
  for (int r = 0; r < R; ++r) {
    double sum = 0;
    for (int i = 0; i < D; ++i) sum += (double)c.y[r * D + i];
    assert_true(fabs(sum) < 1e-10);
    assert_true(fabs(dot(D, c.y + r * D, c.y + r * D) - D) < 1e-10);
  }
  free(c.x), free(c.w), free(c.b), free(c.y), free(c.mean), free(c.rstd);
}

/* ---- batch norm ------------------------------------------------------------------------------------------
 */
enum {
  BR = 23,
  BD = 131,
  CUT = 9
}; /* rows in two shards; more channels than a panel, not a multiple of it */
typedef struct {
  sq_real *x, *w, *b, *dy, *y, *mean, *var, *rstd;
  int constant; /* statistics */
} batch_case;

static void batch_statistics(batch_case *c)
{
  double sum[2 * BD + 1], more[2 * BD + 1];
  sq_nn_batchnorm_sums(CUT, BD, c->x, sum);
  sq_nn_batchnorm_sums(BR - CUT, BD, c->x + CUT * BD, more);
  for (int i = 0; i < 2 * BD + 1; ++i) sum[i] += more[i];
  sq_nn_batchnorm_moments(BD, sum, c->mean, c->var);
  sq_nn_batchnorm_rstd(BD, c->var, 1e-5, c->rstd);
}

static double batch_scalar(void *ctx)
{
  batch_case *c = ctx;
  if (!c->constant) batch_statistics(c);
  sq_nn_batchnorm(BR, BD, c->x, c->mean, c->rstd, c->w, c->b, c->y);
  return dot(BR * BD, c->y, c->dy);
}

static batch_case batch_open(void)
{
  return (batch_case){normal(BR * BD), normal(BD), normal(BD), normal(BR * BD), zeros(BR * BD), zeros(BD),
                      zeros(BD),       zeros(BD),  0};
}
static void batch_close(batch_case *c)
{
  free(c->x), free(c->w), free(c->b), free(c->dy), free(c->y), free(c->mean), free(c->var), free(c->rstd);
}

static void batchnorm_equals_its_definition(void **state)
{
  (void)state;
  batch_case c = batch_open();
  for (int r = 0; r < BR; ++r) {
    c.x[r * BD + 5] = 3; /* a constant channel: variance 0 */
    c.x[r * BD + 6] += 10;
  }
  batch_scalar(&c);
  for (int ch = 0; ch < BD; ++ch) {
    double mean = 0, var = 0;
    for (int r = 0; r < BR; ++r) mean += (double)c.x[r * BD + ch] / BR;
    for (int r = 0; r < BR; ++r) var += pow((double)c.x[r * BD + ch] - mean, 2) / BR;
    /* <x^2> - <x>^2 cancels: eps (10^2 + 1) for channel 6, and eps/1e-5 of it in the constant channel's output */
    assert_true(fabs((double)c.mean[ch] - mean) < 1e-14 * 10 && fabs((double)c.var[ch] - var) < 1e-13 * 10);
    assert_true((double)c.var[ch] >= 0);
    for (int r = 0; r < BR; ++r) {
      const double want =
          ((double)c.x[r * BD + ch] - mean) / sqrt(var + 1e-5) * (double)c.w[ch] + (double)c.b[ch];
      assert_true(fabs((double)c.y[r * BD + ch] - want) < 1e-11);
    }
  }
  batch_close(&c);
}

/* The gradient of the input through mean and variance, from the sums of two shards. */
static void batchnorm_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  for (int constant = 0; constant < 2; ++constant) {
    batch_case c = batch_open();
    double sum[2 * BD], more[2 * BD];
    sq_real *dx = zeros(BR * BD), *add = normal(BR * BD), *start = zeros(BR * BD), *dw = zeros(BD),
            *db = zeros(BD);
    batch_scalar(&c);
    c.constant = constant;
    sq_nn_batchnorm_back_sums(CUT, BD, c.x, c.mean, c.rstd, c.dy, sum);
    sq_nn_batchnorm_back_sums(BR - CUT, BD, c.x + CUT * BD, c.mean, c.rstd, c.dy + CUT * BD, more);
    for (int i = 0; i < 2 * BD; ++i) sum[i] += more[i];
    for (int i = 0; i < BD; ++i) {
      db[i] = (sq_real)sum[i];
      dw[i] = (sq_real)sum[BD + i];
    }
    memcpy(start, add, BR * BD * sizeof *add);
    sq_nn_batchnorm_back(BR, BD, c.x, c.w, c.mean, c.rstd, c.dy, constant ? NULL : sum, BR, add, 1);
    memcpy(dx, c.dy, BR * BD * sizeof *dx); /* in place */
    sq_nn_batchnorm_back(BR, BD, c.x, c.w, c.mean, c.rstd, dx, constant ? NULL : sum, BR, dx, 0);
    for (int i = 0; i < BR * BD; ++i) assert_true(fabs((double)(add[i] - start[i] - dx[i])) < 1e-14);
    expect_gradient("w", batch_scalar, &c, BD, c.w, dw);
    expect_gradient("b", batch_scalar, &c, BD, c.b, db);
    expect_gradient("x", batch_scalar, &c, BR * BD, c.x, dx);
    free(dx), free(add), free(start), free(dw), free(db);
    batch_close(&c);
  }
}

/* ---- activations -----------------------------------------------------------------------------------------
 */
enum { N = 53 };
typedef struct {
  sq_real *x, *z, *dy, *y;
  int which;
} activation_case;

static double activation_scalar(void *ctx)
{
  activation_case *c = ctx;
  switch (c->which) {
  case 0: sq_nn_gelu(N, c->x, c->y); break;
  case 1: sq_nn_relu(N, c->x, c->y); break;
  case 2:
    memcpy(c->y, c->x, N * sizeof *c->y);
    sq_nn_silu_mul(N, c->z, c->y);
    break;
  case 3: sq_nn_glu(1, N, c->x, c->y); break; /* x holds 2N */
  case 4: sq_nn_gelu_tanh(N, c->x, c->y); break;
  default: sq_nn_gate(N, c->x, c->z, c->y); break;
  }
  return dot(N, c->y, c->dy);
}

static void activation_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  activation_case c = {normal(2 * N), normal(N), normal(N), zeros(N), 0};
  sq_real *dx = zeros(2 * N), *dz = zeros(N);
  sq_nn_gelu_back(N, c.x, c.dy, dx);
  expect_gradient("gelu", activation_scalar, &c, N, c.x, dx);
  c.which = 1;
  sq_nn_relu_back(N, c.x, c.dy, dx);
  expect_gradient("relu", activation_scalar, &c, N, c.x, dx);
  c.which = 2;
  sq_nn_silu_mul_back(N, c.x, c.z, c.dy, dx, dz);
  expect_gradient("silu_mul, y", activation_scalar, &c, N, c.x, dx);
  expect_gradient("silu_mul, z", activation_scalar, &c, N, c.z, dz);
  c.which = 3;
  sq_nn_glu_back(1, N, c.x, c.dy, dx);
  expect_gradient("glu", activation_scalar, &c, 2 * N, c.x, dx);
  c.which = 4;
  sq_nn_gelu_tanh_back(N, c.x, c.dy, dx);
  expect_gradient("gelu, tanh form", activation_scalar, &c, N, c.x, dx);
  c.which = 5;
  sq_nn_gate_back(N, c.x, c.z, c.dy, dx, dz);
  expect_gradient("gate, v", activation_scalar, &c, N, c.x, dx);
  expect_gradient("gate, z", activation_scalar, &c, N, c.z, dz);
  free(c.x), free(c.z), free(c.dy), free(c.y), free(dx), free(dz);
}

/* ---- convolution -----------------------------------------------------------------------------------------
 */
enum {
  NSEQ = 3,
  NROW = 17,
  C = 262,
  LD = 265
}; /* more channels than a panel, more steps than a block; K may exceed a sequence */
static const int off[NSEQ + 1] = {0, 9, 11, 17}, id[NSEQ] = {4, 5, 6};
static const sq_rows rows = {NSEQ, NROW, off, id, NULL};
typedef struct {
  sq_real *x, *w, *b, *dy, *y;
  int K;
} conv_case;

static double conv_scalar(void *ctx)
{
  conv_case *c = ctx;
  double s = 0;
  sq_nn_conv_silu(&rows, C, c->K, c->x, LD, c->w, c->b, c->y, LD);
  for (int r = 0; r < NROW; ++r) s += dot(C, c->y + r * LD, c->dy + r * LD);
  return s;
}

static conv_case conv_open(int K)
{
  return (conv_case){normal(NROW * LD), normal((size_t)(C * K)), normal(C),
                     normal(NROW * LD), zeros(NROW * LD),        K};
}
static void conv_close(conv_case *c)
{
  free(c->x), free(c->w), free(c->b), free(c->dy), free(c->y);
}

static void convolution_equals_its_definition(void **state)
{
  (void)state;
  for (int K = 1; K <= 12; K += K < 4 ? 1 : 8) {
    conv_case c = conv_open(K);
    conv_scalar(&c);
    for (int b = 0; b < NSEQ; ++b)
      for (int r = off[b]; r < off[b + 1]; ++r)
        for (int ch = 0; ch < C; ++ch) {
          double want = (double)c.b[ch];
          for (int j = 0; j < K; ++j) {
            const int from = r - (K - 1) + j;
            if (from >= off[b]) want += (double)c.w[ch * K + j] * (double)c.x[from * LD + ch];
          }
          assert_true(fabs((double)c.y[r * LD + ch] - want / (1 + exp(-want))) < 1e-13);
        }
    conv_close(&c);
  }
}

static void convolution_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  for (int K = 1; K <= 12; K += K < 4 ? 1 : 8) {
    conv_case c = conv_open(K);
    sq_real *dx = zeros(NROW * LD), *dw = zeros((size_t)(C * K)), *db = zeros(C);
    sq_nn_conv_silu_back(&rows, C, K, c.x, LD, c.w, c.b, c.dy, LD, dx, LD, dw, db);
    expect_gradient("x", conv_scalar, &c, NROW * LD, c.x, dx);
    expect_gradient("w", conv_scalar, &c, (size_t)(C * K), c.w, dw);
    expect_gradient("b", conv_scalar, &c, C, c.b, db);
    free(dx), free(dw), free(db);
    conv_close(&c);
  }
}

/* ---- embedding and pooling -------------------------------------------------------------------------------
 */
static void embedding_backward_is_its_transpose(void **state)
{
  (void)state;
  enum { V = 5, P = 9 };
  int32_t token[NROW];
  for (int r = 0; r < NROW; ++r) token[r] = (int32_t)sq_rng_below(&rng, V);
  sq_real *word = normal(V * D), *pos = normal(P * D), *x = zeros(NROW * D), *dx = normal(NROW * D);
  sq_real *dword = zeros(V * D), *dpos = zeros(P * D);
  sq_nn_embed(&rows, D, token, word, pos, x);
  sq_nn_embed_back(&rows, D, token, dx, dword, dpos);
  /* <dx, E(word, pos)> = <E^T dx, (word, pos)>, E linear */
  assert_true(fabs(dot(NROW * D, dx, x) - dot(V * D, dword, word) - dot(P * D, dpos, pos)) < 1e-11);
  for (int b = 0; b < NSEQ; ++b)
    for (int r = off[b]; r < off[b + 1]; ++r)
      for (int i = 0; i < D; ++i)
        assert_true(x[r * D + i] == word[token[r] * D + i] + pos[(r - off[b]) * D + i]);
  sq_nn_embed(&rows, D, token, word, NULL, x);
  for (int i = 0; i < D; ++i) assert_true(x[3 * D + i] == word[token[3] * D + i]);
  free(word), free(pos), free(x), free(dx), free(dword), free(dpos);
}

typedef struct {
  sq_pooling how;
  sq_real *x, *dy, *y;
  int *argmax;
} pool_case;
static double pool_scalar(void *ctx)
{
  pool_case *c = ctx;
  sq_nn_pool(c->how, &rows, D, c->x, c->y, c->argmax);
  return dot(NSEQ * D, c->y, c->dy);
}

static void pooling_backward_is_the_derivative_of_forward(void **state)
{
  (void)state;
  static int argmax[NSEQ * D];
  pool_case c = {SQ_POOL_MEAN, normal(NROW * D), normal(NSEQ * D), zeros(NSEQ * D), argmax};
  sq_real *dx = normal(NROW * D);
  for (int how = SQ_POOL_MEAN; how <= SQ_POOL_LAST; ++how) {
    c.how = (sq_pooling)how;
    pool_scalar(&c);
    sq_nn_pool_back(c.how, &rows, D, c.dy, argmax, dx);
    expect_gradient("pool", pool_scalar, &c, NROW * D, c.x, dx);
  }
  free(c.x), free(c.dy), free(c.y), free(dx);
}

static void max_pooling_takes_the_first_maximum(void **state)
{
  (void)state;
  static const int one_off[2] = {0, 4}, one_id[1] = {0};
  const sq_rows one = {1, 4, one_off, one_id, NULL};
  const sq_real x[4] = {1, 3, 3, 2};
  sq_real y;
  int argmax;
  sq_nn_pool(SQ_POOL_MAX, &one, 1, x, &y, &argmax);
  assert_true(y == 3 && argmax == 1);
}

/* ---- cross-entropy ---------------------------------------------------------------------------------------
 */
enum { V = 19 };
typedef struct {
  sq_real *x, *W, *b, *scratch;
  int32_t label[R];
} head_case;

static double head_scalar(void *ctx)
{
  head_case *c = ctx;
  sq_tally t = {0};
  sq_nn_xent_head(R, IN, V, c->x, c->W, c->b, c->label, 0.25, NULL, NULL, NULL, c->scratch, &t);
  return 0.25 * t.loss_sum;
}

static void cross_entropy_gradient_is_the_derivative_of_the_loss(void **state)
{
  (void)state;
  head_case c = {normal(R * IN), normal(V * IN), normal(V), zeros(sq_nn_xent_head_scratch(R, V)), {0}};
  for (int r = 0; r < R; ++r) c.label[r] = r == 2 ? SQ_IGNORE : (int32_t)sq_rng_below(&rng, V);
  sq_real *dx = normal(R * IN), *dW = zeros(V * IN), *db = zeros(V);
  sq_tally t = {0};
  sq_nn_xent_head(R, IN, V, c.x, c.W, c.b, c.label, 0.25, dx, dW, db, c.scratch, &t);
  assert_int_equal(t.nlabel, R - 1);
  assert_true(fabs(head_scalar(&c) - 0.25 * t.loss_sum) < 1e-12);
  expect_gradient("x", head_scalar, &c, R * IN, c.x, dx);
  expect_gradient("W", head_scalar, &c, V * IN, c.W, dW);
  expect_gradient("b", head_scalar, &c, V, c.b, db);
  for (int i = 0; i < IN; ++i) assert_true(dx[2 * IN + i] == 0);
  free(c.x), free(c.W), free(c.b), free(c.scratch), free(dx), free(dW), free(db);
}

/* Enough rows and classes that the fused head needs several blocks of rows. */
static void head_in_blocks_equals_dense_head(void **state)
{
  (void)state;
  enum { ROWS = 75, WIDE = 20000 };
  assert_true(sq_nn_xent_head_scratch(ROWS, WIDE) < (size_t)ROWS * WIDE);
  sq_real *x = normal(ROWS * IN), *W = normal((size_t)WIDE * IN),
          *scratch = zeros(sq_nn_xent_head_scratch(ROWS, WIDE));
  sq_real *logits = zeros((size_t)ROWS * WIDE), *dx = zeros(ROWS * IN), *dx0 = zeros(ROWS * IN);
  sq_real *dW = zeros((size_t)WIDE * IN), *dW0 = zeros((size_t)WIDE * IN);
  int32_t label[ROWS];
  sq_tally t = {0}, t0 = {0}, t1 = {0};
  for (int r = 0; r < ROWS; ++r) label[r] = r % 7 == 3 ? SQ_IGNORE : (int32_t)sq_rng_below(&rng, WIDE);
  sq_nn_linear(ROWS, IN, WIDE, x, IN, W, NULL, logits, WIDE);
  sq_nn_xent(ROWS, WIDE, logits, label, 1, 0, &t1);
  sq_nn_xent(ROWS, WIDE, logits, label, 1, 1, &t0);
  sq_nn_linear_back(ROWS, IN, WIDE, x, IN, W, logits, WIDE, dx0, IN, 0, dW0, NULL);
  sq_nn_xent_head(ROWS, IN, WIDE, x, W, NULL, label, 1, dx, dW, NULL, scratch, &t);
  assert_true(t.nlabel == t0.nlabel && t.ncorrect == t0.ncorrect && t1.ncorrect == t0.ncorrect);
  assert_true(fabs(t.loss_sum - t0.loss_sum) < 1e-10 && fabs(t1.loss_sum - t0.loss_sum) < 1e-10);
  for (int i = 0; i < ROWS * IN; ++i) assert_true(fabs((double)(dx[i] - dx0[i])) < 1e-12);
  for (size_t i = 0; i < (size_t)WIDE * IN; ++i) assert_true(fabs((double)(dW[i] - dW0[i])) < 1e-12);
  free(x), free(W), free(scratch), free(logits), free(dx), free(dx0), free(dW), free(dW0);
}

static void dense_head_is_the_head_with_the_kernel_transposed(void **state)
{
  (void)state;
  sq_real *x = normal(R * IN), *K = normal(IN * V), *W = transposed(IN, V, K), *b = normal(V),
          *scratch = zeros(sq_nn_xent_head_scratch(R, V));
  sq_real *dx[2] = {zeros(R * IN), zeros(R * IN)}, *db[2] = {zeros(V), zeros(V)};
  sq_real *dK = zeros(IN * V), *dW = zeros(V * IN);
  int32_t label[R];
  sq_tally t[2] = {{0, 0, 0}, {0, 0, 0}};
  for (int r = 0; r < R; ++r) label[r] = r == 4 ? SQ_IGNORE : (int32_t)sq_rng_below(&rng, V);
  sq_nn_xent_dense_head(R, IN, V, x, K, b, label, 0.25, dx[0], dK, db[0], scratch, &t[0]);
  sq_nn_xent_head(R, IN, V, x, W, b, label, 0.25, dx[1], dW, db[1], scratch, &t[1]);
  sq_real *want = transposed(V, IN, dW);
  assert_true(t[0].nlabel == R - 1 && t[1].nlabel == R - 1 && t[0].ncorrect == t[1].ncorrect);
  assert_true(fabs(t[0].loss_sum - t[1].loss_sum) < 1e-13);
  expect_equal("dx", R * IN, dx[0], dx[1], rounding);
  expect_equal("dK", IN * V, dK, want, rounding);
  expect_equal("db", V, db[0], db[1], rounding);
  free(x), free(K), free(W), free(b), free(scratch), free(dx[0]), free(dx[1]), free(db[0]), free(db[1]);
  free(dK), free(dW), free(want);
}

static void log_probabilities_are_normalised_and_keep_differences(void **state)
{
  (void)state;
  sq_real *x = normal(R * V), *y = malloc(R * V * sizeof *y);
  x[0] = 800; /* exp overflows */
  memcpy(y, x, R * V * sizeof *y);
  sq_nn_log_softmax(R, V, y);
  for (int r = 0; r < R; ++r) {
    double sum = 0;
    for (int v = 0; v < V; ++v) {
      sum += exp((double)y[r * V + v]);
      assert_true(fabs((double)(y[r * V + v] - y[r * V] - x[r * V + v] + x[r * V])) < 1e-12);
    }
    assert_true(fabs(sum - 1) < 1e-13);
  }
  free(x), free(y);
}

static void large_logits_do_not_overflow(void **state)
{
  (void)state;
  sq_real logits[6] = {1000, 0, -1000, 5, 5, 5};
  const int32_t label[2] = {1, 2};
  sq_tally t = {0};
  sq_nn_xent(2, 3, logits, label, 1, 1, &t);
  assert_true(fabs(t.loss_sum - 1000 - log(3)) < 1e-9);
  assert_int_equal(t.ncorrect, 0); /* of equal logits the first counts */
  assert_true(fabs((double)logits[0] - 1) < 1e-15 && fabs((double)logits[1] + 1) < 1e-15 && logits[2] == 0);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(linear_backward_is_the_derivative_of_forward),
      cmocka_unit_test(column_sums_are_added),
      cmocka_unit_test(dense_is_linear_with_the_kernel_transposed),
      cmocka_unit_test(gathered_rows_equal_the_product_with_unit_vectors),
      cmocka_unit_test(layernorm_backward_is_the_derivative_of_forward),
      cmocka_unit_test(layernorm_has_mean_zero_and_variance_one),
      cmocka_unit_test(batchnorm_equals_its_definition),
      cmocka_unit_test(batchnorm_backward_is_the_derivative_of_forward),
      cmocka_unit_test(activation_backward_is_the_derivative_of_forward),
      cmocka_unit_test(convolution_equals_its_definition),
      cmocka_unit_test(convolution_backward_is_the_derivative_of_forward),
      cmocka_unit_test(embedding_backward_is_its_transpose),
      cmocka_unit_test(pooling_backward_is_the_derivative_of_forward),
      cmocka_unit_test(max_pooling_takes_the_first_maximum),
      cmocka_unit_test(cross_entropy_gradient_is_the_derivative_of_the_loss),
      cmocka_unit_test(head_in_blocks_equals_dense_head),
      cmocka_unit_test(dense_head_is_the_head_with_the_kernel_transposed),
      cmocka_unit_test(log_probabilities_are_normalised_and_keep_differences),
      cmocka_unit_test(large_logits_do_not_overflow),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
