/* src/nn/conv.c: depthwise causal convolution, then SiLU.
 *
 *   pre[t,c] = bias[c] + sum_j w[c,j] x[t-(K-1)+j, c],   y = pre sigmoid(pre)
 *   dpre = dy SiLU'(pre),  dx[t,c] = sum_j w[c,j] dpre[t+(K-1)-j, c],  dw[c,j] = sum_t dpre[t,c] x[t-(K-1)+j,
 * c]
 *
 * Channels go in panels: the panel's weights are transposed once, to (K, panel), and its rows stay in cache.  A group's
 * threads share the panels.
 */
#include "sq/nn.h"

#include <string.h>

#include "sq/parallel.h"
#include "sq/status.h"
#include "vmath.h"

enum { PANEL = 64 };

typedef struct { /* one panel of one sequence; pointers at its first step and channel */
  int T, K;
  size_t nc;
} panel;

SQ_INLINE void load_weights(size_t nc, int K, const sq_real *w, sq_real wt[][PANEL])
{
  for (size_t c = 0; c < nc; ++c)
    for (int j = 0; j < K; ++j) wt[j][c] = w[c * (size_t)K + (size_t)j];
}

SQ_CLONES static void panel_forward(panel p, sq_real wt[][PANEL], const sq_real *bias, const sq_real *x,
                                    size_t ldx, sq_real *pre, size_t ldp, sq_real *y, size_t ldy)
{
  sq_real acc[PANEL];

  for (int t = 0; t < p.T; ++t) {
    for (size_t c = 0; c < p.nc; ++c) acc[c] = bias[c];
    for (int j = t < p.K - 1 ? p.K - 1 - t : 0; j < p.K; ++j) {
      const sq_real *row = x + (size_t)(t - (p.K - 1) + j) * ldx, *w = wt[j];
      SQ_IVDEP
      for (size_t c = 0; c < p.nc; ++c) acc[c] += w[c] * row[c];
    }
    sq_real *pt = pre + (size_t)t * ldp, *yt = y + (size_t)t * ldy;
    SQ_IVDEP
    for (size_t c = 0; c < p.nc; ++c) {
      pt[c] = acc[c];
      yt[c] = acc[c] * vsigmoid(acc[c]);
    }
  }
}

typedef struct { /* the arguments of a call */
  const sq_rows *rows;
  int C, K;
  const sq_real *x, *weight, *bias;
  sq_real *pre, *y;
  const sq_real *kept; /* pre, backward */
  sq_real *dy, *dx, *dweight, *dbias;
  size_t ldx, ldp, ldy, lddx;
} conv;

static size_t panel_width(const conv *v, size_t c0)
{
  return (size_t)v->C - c0 < PANEL ? (size_t)v->C - c0 : PANEL;
}

static panel panel_of(const conv *v, int b, size_t nc)
{
  return (panel){.T = v->rows->off[b + 1] - v->rows->off[b], .K = v->K, .nc = nc};
}

static void forward_block(void *ctx, int i)
{
  const conv *v = ctx;
  const size_t c0 = (size_t)i * PANEL, nc = panel_width(v, c0);
  sq_real wt[SQ_MAX_CONV][PANEL];

  load_weights(nc, v->K, v->weight + c0 * (size_t)v->K, wt);
  for (int b = 0; b < v->rows->nseq; ++b) {
    const size_t r = (size_t)v->rows->off[b];
    panel_forward(panel_of(v, b, nc), wt, v->bias + c0, v->x + r * v->ldx + c0, v->ldx,
                  v->pre + r * v->ldp + c0, v->ldp, v->y + r * v->ldy + c0, v->ldy);
  }
}

void sq_nn_conv_silu(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                     const sq_real *bias, sq_real *pre, int ldp, sq_real *y, int ldy)
{
  conv v = {.rows = rows, .C = C, .K = K, .x = x, .weight = weight, .bias = bias, .pre = pre, .y = y};
  v.ldx = (size_t)ldx;
  v.ldp = (size_t)ldp;
  v.ldy = (size_t)ldy;
  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV);
  sq_parallel_blocks((C + PANEL - 1) / PANEL, forward_block, &v);
}

SQ_CLONES static void panel_silu_back(panel p, const sq_real *pre, size_t ldp, sq_real *dy, size_t ldy)
{
  for (int t = 0; t < p.T; ++t) {
    const sq_real *z = pre + (size_t)t * ldp;
    sq_real *g = dy + (size_t)t * ldy;
    SQ_IVDEP
    for (size_t c = 0; c < p.nc; ++c) {
      const sq_real s = vsigmoid(z[c]);
      g[c] *= s * (1 + z[c] * (1 - s));
    }
  }
}

SQ_CLONES static void panel_backward(panel p, sq_real wt[][PANEL], const sq_real *x, size_t ldx,
                                     const sq_real *dpre, size_t ldy, sq_real *dx, size_t lddx,
                                     sq_real dwt[][PANEL], sq_real *db)
{
  sq_real acc[PANEL];

  for (int t = 0; t < p.T; ++t) {
    const sq_real *g = dpre + (size_t)t * ldy;
    for (size_t c = 0; c < p.nc; ++c) acc[c] = 0;
    for (int j = p.K - p.T + t > 0 ? p.K - p.T + t : 0; j < p.K; ++j) { /* t+(K-1)-j < T */
      const sq_real *gj = dpre + (size_t)(t + (p.K - 1) - j) * ldy, *w = wt[j];
      SQ_IVDEP
      for (size_t c = 0; c < p.nc; ++c) acc[c] += w[c] * gj[c];
    }
    sq_real *out = dx + (size_t)t * lddx;
    for (size_t c = 0; c < p.nc; ++c) out[c] = acc[c];
    for (int j = t < p.K - 1 ? p.K - 1 - t : 0; j < p.K; ++j) {
      const sq_real *row = x + (size_t)(t - (p.K - 1) + j) * ldx;
      sq_real *dw = dwt[j];
      SQ_IVDEP
      for (size_t c = 0; c < p.nc; ++c) dw[c] += g[c] * row[c];
    }
    SQ_IVDEP
    for (size_t c = 0; c < p.nc; ++c) db[c] += g[c];
  }
}

static void backward_block(void *ctx, int i)
{
  const conv *v = ctx;
  const size_t c0 = (size_t)i * PANEL, nc = panel_width(v, c0), K = (size_t)v->K;
  sq_real wt[SQ_MAX_CONV][PANEL], dwt[SQ_MAX_CONV][PANEL], db[PANEL];

  load_weights(nc, v->K, v->weight + c0 * K, wt);
  for (int b = 0; b < v->rows->nseq; ++b) {
    const size_t r = (size_t)v->rows->off[b];
    const panel p = panel_of(v, b, nc);
    sq_real *g = v->dy + r * v->ldy + c0;
    /* Sums of one sequence first, then over sequences: smaller rounding errors than one long sum. */
    memset(dwt, 0, K * sizeof dwt[0]);
    memset(db, 0, sizeof db);
    panel_silu_back(p, v->kept + r * v->ldp + c0, v->ldp, g, v->ldy);
    panel_backward(p, wt, v->x + r * v->ldx + c0, v->ldx, g, v->ldy, v->dx + r * v->lddx + c0, v->lddx, dwt,
                   db);
    for (size_t c = 0; c < nc; ++c) {
      for (size_t j = 0; j < K; ++j) v->dweight[(c0 + c) * K + j] += dwt[j][c];
      v->dbias[c0 + c] += db[c];
    }
  }
}

void sq_nn_conv_silu_back(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                          const sq_real *pre, int ldp, sq_real *dy, int ldy, sq_real *dx, int lddx,
                          sq_real *dweight, sq_real *dbias)
{
  conv v = {.rows = rows, .C = C, .K = K, .x = x, .weight = weight, .kept = pre, .dy = dy, .dx = dx};
  v.dweight = dweight;
  v.dbias = dbias;
  v.ldx = (size_t)ldx;
  v.ldp = (size_t)ldp;
  v.ldy = (size_t)ldy;
  v.lddx = (size_t)lddx;
  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV && dx != dy);
  sq_parallel_blocks((C + PANEL - 1) / PANEL, backward_block, &v);
}
