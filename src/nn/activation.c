/* src/nn/activation.c: elementwise functions and their derivatives, one pass over memory each. */
#include "sq/nn.h"

#include "vmath.h"

#define INV_SQRT_2PI ((sq_real)0.39894228040143267794)

SQ_CLONES void sq_nn_exp(size_t n, const sq_real *x, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) y[i] = vexp(x[i]);
}

SQ_CLONES void sq_nn_gelu(size_t n, const sq_real *x, sq_real *y)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    sq_real gauss;
    y[i] = x[i] * vnormal(x[i], &gauss);
  }
}

/* GELU' = Phi(x) + x phi(x) */
SQ_CLONES void sq_nn_gelu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    sq_real gauss;
    const sq_real phi = vnormal(x[i], &gauss);
    dx[i] = dy[i] * (phi + x[i] * (INV_SQRT_2PI * gauss));
  }
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
