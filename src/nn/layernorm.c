/* src/nn/layernorm.c: y = (x - mean)/sqrt(var + eps) * w + b over each row, var biased.
 *
 * Backward, with xh = (x - mean) rstd and g = dy w:
 *   dx = rstd (g - <g> - xh <g xh>),  dw = sum dy xh,  db = sum dy;  <> is the mean over the row.
 * Row sums are kept in double, in fixed lanes, so that they vectorise and do not depend on the instruction
 * set; the variance is that of the centred row. */
#include "sq/nn.h"

#include <math.h>

#include "sq/parallel.h"
#include "vmath.h"

enum { LANES = 16 };

SQ_INLINE double lane_total(const double v[LANES])
{
  double h[LANES / 2];
  for (int l = 0; l < LANES / 2; ++l) h[l] = v[l] + v[l + LANES / 2];
  return ((h[0] + h[4]) + (h[1] + h[5])) + ((h[2] + h[6]) + (h[3] + h[7]));
}

SQ_INLINE double row_sum(size_t D, const sq_real *x)
{
  double acc[LANES] = {0};
  size_t i = 0;

  for (; i + LANES <= D; i += LANES)
    for (int l = 0; l < LANES; ++l) acc[l] += (double)x[i + (size_t)l];
  for (int l = 0; i < D; ++i, ++l) acc[l] += (double)x[i];
  return lane_total(acc);
}

SQ_INLINE double row_square(size_t D, const sq_real *x, double mean)
{
  double acc[LANES] = {0};
  size_t i = 0;

  for (; i + LANES <= D; i += LANES)
    for (int l = 0; l < LANES; ++l) {
      const double c = (double)x[i + (size_t)l] - mean;
      acc[l] += c * c;
    }
  for (int l = 0; i < D; ++i, ++l) acc[l] += ((double)x[i] - mean) * ((double)x[i] - mean);
  return lane_total(acc);
}

SQ_CLONES static void norm_rows(int R, int D, const sq_real *x, const sq_real *w, const sq_real *b,
                                double eps, sq_real *y, sq_real *mean, sq_real *rstd)
{
  const size_t n = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *row = x + r * n;
    sq_real *out = y + r * n;
    const double m = row_sum(n, row) / D, s = 1 / sqrt(row_square(n, row, m) / D + eps);
    const sq_real mr = (sq_real)m, sr = (sq_real)s;
    mean[r] = mr;
    rstd[r] = sr;
    SQ_IVDEP
    for (size_t i = 0; i < n; ++i) out[i] = (row[i] - mr) * sr * w[i] + b[i];
  }
}

enum { ROWS = 64 }; /* of a block */

typedef struct {
  int R, D;
  double eps;
  const sq_real *x, *w, *b;
  sq_real *y, *mean, *rstd;
} rows_of;

static void norm_block(void *ctx, int i)
{
  const rows_of *n = ctx;
  const size_t at = (size_t)i * ROWS * (size_t)n->D;
  const int left = n->R - i * ROWS;
  norm_rows(left < ROWS ? left : ROWS, n->D, n->x + at, n->w, n->b, n->eps, n->y + at, n->mean + i * ROWS,
            n->rstd + i * ROWS);
}

void sq_nn_layernorm(int R, int D, const sq_real *x, const sq_real *w, const sq_real *b, double eps,
                     sq_real *y, sq_real *mean, sq_real *rstd)
{
  rows_of n = {R, D, eps, x, w, b, y, mean, rstd};
  sq_parallel_blocks((R + ROWS - 1) / ROWS, norm_block, &n);
}

SQ_CLONES void sq_nn_layernorm_back(int R, int D, const sq_real *x, const sq_real *w, const sq_real *mean,
                                    const sq_real *rstd, const sq_real *dy, sq_real *dx, int add_dx,
                                    sq_real *dw, sq_real *db)
{
  const size_t n = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *row = x + r * n, *g = dy + r * n, m = mean[r], s = rstd[r];
    sq_real *out = dx + r * n;
    double acc1[LANES] = {0}, acc2[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; ++l) {
        const size_t k = i + (size_t)l;
        const sq_real gw = g[k] * w[k];
        acc1[l] += (double)gw;
        acc2[l] += (double)(gw * ((row[k] - m) * s));
      }
    for (int l = 0; i < n; ++i, ++l) {
      const sq_real gw = g[i] * w[i];
      acc1[l] += (double)gw;
      acc2[l] += (double)(gw * ((row[i] - m) * s));
    }
    const sq_real mg = (sq_real)(lane_total(acc1) / D), mgx = (sq_real)(lane_total(acc2) / D);
    const sq_real keep = add_dx ? 1 : 0;
    if (!add_dx)
      for (i = 0; i < n; ++i) out[i] = 0;
    SQ_IVDEP
    for (i = 0; i < n; ++i) {
      const sq_real xh = (row[i] - m) * s;
      dw[i] += g[i] * xh;
      db[i] += g[i];
      out[i] = keep * out[i] + s * (g[i] * w[i] - mg - xh * mgx);
    }
  }
}
