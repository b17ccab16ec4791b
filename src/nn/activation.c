/* src/nn/activation.c: elementwise functions and their derivatives, one pass over memory each. */
#include "sq/nn.h"

#include "sq/parallel.h"
#include "vmath.h"

/* Long arrays in strips, by the threads of the group.  A strip is a multiple of every vector's length, so that an
   element is computed by the same instructions as in one piece. */
enum { STRIP = 1 << 14 };

typedef struct {
  size_t n;
  const sq_real *x, *dy;
  sq_real *y;
  void (*map)(size_t n, const sq_real *x, const sq_real *dy, sq_real *y);
} mapping;

static void map_strip(void *ctx, int i)
{
  const mapping *m = ctx;
  const size_t at = (size_t)i * STRIP, n = m->n - at < STRIP ? m->n - at : STRIP;
  m->map(n, m->x + at, m->dy != NULL ? m->dy + at : NULL, m->y + at);
}

static void map_all(size_t n, const sq_real *x, const sq_real *dy, sq_real *y,
                    void (*map)(size_t n, const sq_real *x, const sq_real *dy, sq_real *y))
{
  mapping m = {n, x, dy, y, map};
  if (n < 2 * STRIP)
    map(n, x, dy, y);
  else
    sq_parallel_blocks((int)((n + STRIP - 1) / STRIP), map_strip, &m);
}

#define INV_SQRT_2PI ((sq_real)0.39894228040143267794)

SQ_CLONES void sq_nn_exp(size_t n, const sq_real *x, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) y[i] = vexp(x[i]);
}

SQ_CLONES static void gelu(size_t n, const sq_real *x, const sq_real *unused, sq_real *y)
{
  (void)unused;
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    sq_real gauss;
    y[i] = x[i] * vnormal(x[i], &gauss);
  }
}

void sq_nn_gelu(size_t n, const sq_real *x, sq_real *y)
{
  map_all(n, x, NULL, y, gelu);
}

/* GELU' = Phi(x) + x phi(x) */
SQ_CLONES static void gelu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    sq_real gauss;
    const sq_real phi = vnormal(x[i], &gauss);
    dx[i] = dy[i] * (phi + x[i] * (INV_SQRT_2PI * gauss));
  }
}

void sq_nn_gelu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  map_all(n, x, dy, dx, gelu_back);
}

/* (1 + tanh z)/2 = sigmoid(2z), 2z = x (A + B x^2).  Beyond 40 the sigmoid is 0 or 1 in both precisions; the
   bound keeps its argument and its slope finite. */
#define GELU_A ((sq_real)1.59576912160573071176)              /* 2 sqrt(2/pi) */
#define GELU_B ((sq_real)(0.044715 * 1.59576912160573071176)) /* 0.044715 A */
SQ_INLINE sq_real bounded(sq_real x)
{
  const sq_real big = 40;
  const sq_real b = x > big ? big : x;
  return b < -big ? -big : b;
}

SQ_CLONES static void gelu_tanh(size_t n, const sq_real *x, const sq_real *unused, sq_real *y)
{
  (void)unused;
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    const sq_real b = bounded(x[i]);
    y[i] = x[i] * vsigmoid(b * (GELU_A + GELU_B * b * b));
  }
}

void sq_nn_gelu_tanh(size_t n, const sq_real *x, sq_real *y)
{
  map_all(n, x, NULL, y, gelu_tanh);
}

/* sigmoid' = e/(1+e)^2 with e = exp(-|2z|): sigmoid (1 - sigmoid) would cancel, and the slope of 2z enlarge it. */
SQ_CLONES static void gelu_tanh_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    const sq_real b = bounded(x[i]), z2 = b * (GELU_A + GELU_B * b * b);
    const sq_real e = vexp(z2 < 0 ? z2 : -z2), q = 1 / (1 + e);
    dx[i] = dy[i] * ((z2 < 0 ? e * q : q) + b * (e * q * q) * (GELU_A + 3 * GELU_B * b * b));
  }
}

void sq_nn_gelu_tanh_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  map_all(n, x, dy, dx, gelu_tanh_back);
}

SQ_CLONES void sq_nn_relu(size_t n, const sq_real *x, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
}

SQ_CLONES void sq_nn_relu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) dx[i] = x[i] > 0 ? dy[i] : 0;
}

SQ_CLONES void sq_nn_silu_mul(size_t n, const sq_real *z, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) y[i] *= z[i] * vsigmoid(z[i]);
}

SQ_CLONES void sq_nn_silu_mul_back(size_t n, const sq_real *y0, const sq_real *z, const sq_real *dy,
                                   sq_real *dy0, sq_real *dz)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    const sq_real s = vsigmoid(z[i]), g = dy[i];
    dz[i] = g * y0[i] * (s * (1 + z[i] * (1 - s)));
    dy0[i] = g * (z[i] * s);
  }
}

SQ_CLONES void sq_nn_gate(size_t n, const sq_real *v, const sq_real *z, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) y[i] = v[i] * vsigmoid(z[i]);
}

SQ_CLONES void sq_nn_gate_back(size_t n, const sq_real *v, const sq_real *z, const sq_real *dy, sq_real *dv,
                               sq_real *dz)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    const sq_real s = vsigmoid(z[i]), g = dy[i];
    dz[i] = g * v[i] * (s * (1 - s));
    dv[i] = g * s;
  }
}

SQ_CLONES void sq_nn_glu(int R, int D, const sq_real *a, sq_real *y)
{
  const size_t width = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *value = a + 2 * r * width, *gate = value + width;
    sq_real *out = y + r * width;
    SQ_IVDEP
    for (size_t i = 0; i < width; ++i) out[i] = value[i] * vsigmoid(gate[i]);
  }
}

SQ_CLONES void sq_nn_glu_back(int R, int D, const sq_real *a, const sq_real *dy, sq_real *da)
{
  const size_t width = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *value = a + 2 * r * width, *gate = value + width, *g = dy + r * width;
    sq_real *dvalue = da + 2 * r * width, *dgate = dvalue + width;
    SQ_IVDEP
    for (size_t i = 0; i < width; ++i) {
      const sq_real s = vsigmoid(gate[i]), v = value[i];
      dvalue[i] = g[i] * s;
      dgate[i] = g[i] * v * (s * (1 - s));
    }
  }
}
