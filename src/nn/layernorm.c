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

enum { PIECE = 256 };

/* sum g w and sum g w xh of a row.  The products are made in pieces first: gcc vectorises sums in lanes of one thing only. */
SQ_INLINE void row_gradient_sums(size_t n, const sq_real *x, const sq_real *g, const sq_real *w, sq_real m,
                                 sq_real s, double *sum, double *sum_xh)
{
  sq_real gw[PIECE], gwx[PIECE];
  *sum = *sum_xh = 0;
  for (size_t at = 0; at < n; at += PIECE) {
    const size_t count = n - at < PIECE ? n - at : PIECE;
    for (size_t i = 0; i < count; ++i) {
      gw[i] = g[at + i] * w[at + i];
      gwx[i] = gw[i] * ((x[at + i] - m) * s);
    }
    *sum += row_sum(count, gw);
    *sum_xh += row_sum(count, gwx);
  }
}

/* mg = <g w>, mgx = <g w xh>; add: constant where it is called. */
SQ_INLINE void row_gradient(size_t n, const sq_real *row, const sq_real *g, const sq_real *w, sq_real m,
                            sq_real s, sq_real mg, sq_real mgx, int add, sq_real *out, sq_real *dw,
                            sq_real *db)
{
  SQ_IVDEP
  for (size_t i = 0; i < n; ++i) {
    const sq_real xh = (row[i] - m) * s, d = s * (g[i] * w[i] - mg - xh * mgx);
    dw[i] += g[i] * xh;
    db[i] += g[i];
    out[i] = add ? out[i] + d : d;
  }
}

SQ_CLONES void sq_nn_layernorm_back(int R, int D, const sq_real *x, const sq_real *w, const sq_real *mean,
                                    const sq_real *rstd, const sq_real *dy, sq_real *dx, int add_dx,
                                    sq_real *dw, sq_real *db)
{
  const size_t n = (size_t)D;

  for (size_t r = 0; r < (size_t)R; ++r) {
    const sq_real *row = x + r * n, *g = dy + r * n, m = mean[r], s = rstd[r];
    sq_real *out = dx + r * n;
    double sum, sum_xh;
    row_gradient_sums(n, row, g, w, m, s, &sum, &sum_xh);
    const sq_real mg = (sq_real)(sum / D), mgx = (sq_real)(sum_xh / D);
    if (add_dx)
      row_gradient(n, row, g, w, m, s, mg, mgx, 1, out, dw, db);
    else
      row_gradient(n, row, g, w, m, s, mg, mgx, 0, out, dw, db);
  }
}
