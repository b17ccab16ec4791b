/* src/nn/batchnorm.c: y = (x - mean)/sqrt(var + eps) * w + b with one mean and one biased variance a channel,
 * over all rows of a batch (Ioffe and Szegedy 2015, arXiv:1502.03167), in the pieces between which a batch in
 * shards adds up its sums.
 *
 *   var = max(0, <x^2> - <x>^2)                                      <> over the n rows of the batch
 *   dx  = w rstd (dy - <dy> - xh <dy xh>),  xh = (x - mean) rstd     dw = sum dy xh,  db = sum dy
 *
 * Sums are double and run over the rows in order.  Channels are taken in panels, whose sums stay in registers
 * or the first cache. */
#include "sq/nn.h"

#include <math.h>

#include "vmath.h"

enum { PANEL = 64 };

SQ_INLINE size_t panel_width(size_t D, size_t c0)
{
  return D - c0 < PANEL ? D - c0 : PANEL;
}

SQ_CLONES void sq_nn_batchnorm_sums(int R, int D, const sq_real *x, double *sum)
{
  const size_t n = (size_t)D;
  double s1[PANEL], s2[PANEL];

  sum[0] = R;
  for (size_t c0 = 0; c0 < n; c0 += PANEL) {
    const size_t nc = panel_width(n, c0);
    for (size_t c = 0; c < nc; ++c) s1[c] = s2[c] = 0;
    for (size_t r = 0; r < (size_t)R; ++r) {
      const sq_real *row = x + r * n + c0;
      SQ_IVDEP
      for (size_t c = 0; c < nc; ++c) {
        const double v = (double)row[c];
        s1[c] += v;
        s2[c] += v * v;
      }
    }
    for (size_t c = 0; c < nc; ++c) {
      sum[1 + c0 + c] = s1[c];
      sum[1 + n + c0 + c] = s2[c];
    }
  }
}

void sq_nn_batchnorm_moments(int D, const double *sum, sq_real *mean, sq_real *var)
{
  for (int c = 0; c < D; ++c) {
    const double m = sum[1 + c] / sum[0], v = sum[1 + D + c] / sum[0] - m * m;
    mean[c] = (sq_real)m;
    var[c] = (sq_real)(v < 0 ? 0 : v); /* NaN stays NaN */
  }
}

void sq_nn_batchnorm_rstd(int D, const sq_real *var, double eps, sq_real *rstd)
{
  for (int c = 0; c < D; ++c) rstd[c] = (sq_real)(1 / sqrt((double)var[c] + eps));
}

SQ_CLONES void sq_nn_batchnorm(int R, int D, const sq_real *x, const sq_real *mean, const sq_real *rstd,
                               const sq_real *w, const sq_real *b, sq_real *y)
{
  const size_t n = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *row = x + r * n;
    sq_real *out = y + r * n;
    SQ_IVDEP
    for (size_t c = 0; c < n; ++c) out[c] = (row[c] - mean[c]) * rstd[c] * w[c] + b[c];
  }
}

SQ_CLONES void sq_nn_batchnorm_back_sums(int R, int D, const sq_real *x, const sq_real *mean,
                                         const sq_real *rstd, const sq_real *dy, double *sum)
{
  const size_t n = (size_t)D;
  double s1[PANEL], s2[PANEL];

  for (size_t c0 = 0; c0 < n; c0 += PANEL) {
    const size_t nc = panel_width(n, c0);
    const sq_real *m = mean + c0, *s = rstd + c0;
    for (size_t c = 0; c < nc; ++c) s1[c] = s2[c] = 0;
    for (size_t r = 0; r < (size_t)R; ++r) {
      const sq_real *row = x + r * n + c0, *g = dy + r * n + c0;
      SQ_IVDEP
      for (size_t c = 0; c < nc; ++c) {
        s1[c] += (double)g[c];
        s2[c] += (double)(g[c] * ((row[c] - m[c]) * s[c]));
      }
    }
    for (size_t c = 0; c < nc; ++c) {
      sum[c0 + c] = s1[c];
      sum[n + c0 + c] = s2[c];
    }
  }
}

SQ_CLONES void sq_nn_batchnorm_back(int R, int D, const sq_real *x, const sq_real *w, const sq_real *mean,
                                    const sq_real *rstd, const sq_real *dy, const double *sum, double count,
                                    sq_real *dx, int add_dx)
{
  const size_t n = (size_t)D;
  sq_real g1[PANEL], g2[PANEL], a[PANEL];

  for (size_t c0 = 0; c0 < n; c0 += PANEL) {
    const size_t nc = panel_width(n, c0);
    const sq_real *m = mean + c0, *s = rstd + c0;
    for (size_t c = 0; c < nc; ++c) {
      g1[c] = sum != NULL ? (sq_real)(sum[c0 + c] / count) : 0;
      g2[c] = sum != NULL ? (sq_real)(sum[n + c0 + c] / count) : 0;
      a[c] = w[c0 + c] * s[c];
    }
    for (size_t r = 0; r < (size_t)R; ++r) {
      const sq_real *row = x + r * n + c0, *g = dy + r * n + c0;
      sq_real *out = dx + r * n + c0;
      if (add_dx) {
        SQ_IVDEP
        for (size_t c = 0; c < nc; ++c) out[c] += a[c] * (g[c] - g1[c] - (row[c] - m[c]) * s[c] * g2[c]);
      } else {
        SQ_IVDEP
        for (size_t c = 0; c < nc; ++c) out[c] = a[c] * (g[c] - g1[c] - (row[c] - m[c]) * s[c] * g2[c]);
      }
    }
  }
}
