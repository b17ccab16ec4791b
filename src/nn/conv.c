/* src/nn/conv.c: depthwise causal convolution, then SiLU.
 *
 *   pre[t,c] = bias[c] + sum_j w[c,j] x[t-(K-1)+j, c],   y = pre sigmoid(pre)
 *   dpre = dy SiLU'(pre),  dx[t,c] = sum_j w[c,j] dpre[t+(K-1)-j, c],  dw[c,j] = sum_t dpre[t,c] x[t-(K-1)+j,
 * c]
 *
 * Channels go in panels: the panel's weights are transposed once, to (K, panel), and its rows stay in cache.
 */
#include "sq/nn.h"

#include <string.h>

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

void sq_nn_conv_silu(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                     const sq_real *bias, sq_real *pre, int ldp, sq_real *y, int ldy)
{
  sq_real wt[SQ_MAX_CONV][PANEL];

  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV);
  for (size_t c0 = 0; c0 < (size_t)C; c0 += PANEL) {
    const size_t nc = (size_t)C - c0 < PANEL ? (size_t)C - c0 : PANEL;
    load_weights(nc, K, weight + c0 * (size_t)K, wt);
    for (int b = 0; b < rows->nseq; ++b) {
      const size_t r = (size_t)rows->off[b];
      const panel p = {.T = rows->off[b + 1] - rows->off[b], .K = K, .nc = nc};
      panel_forward(p, wt, bias + c0, x + r * (size_t)ldx + c0, (size_t)ldx, pre + r * (size_t)ldp + c0,
                    (size_t)ldp, y + r * (size_t)ldy + c0, (size_t)ldy);
    }
  }
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

void sq_nn_conv_silu_back(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                          const sq_real *pre, int ldp, sq_real *dy, int ldy, sq_real *dx, int lddx,
                          sq_real *dweight, sq_real *dbias)
{
  sq_real wt[SQ_MAX_CONV][PANEL], dwt[SQ_MAX_CONV][PANEL], db[PANEL];

  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV && dx != dy);
  for (size_t c0 = 0; c0 < (size_t)C; c0 += PANEL) {
    const size_t nc = (size_t)C - c0 < PANEL ? (size_t)C - c0 : PANEL;
    load_weights(nc, K, weight + c0 * (size_t)K, wt);
    for (int b = 0; b < rows->nseq; ++b) {
      const size_t r = (size_t)rows->off[b];
      const panel p = {.T = rows->off[b + 1] - rows->off[b], .K = K, .nc = nc};
      sq_real *g = dy + r * (size_t)ldy + c0;
      /* Sums of one sequence first, then over sequences: smaller rounding errors than one long sum. */
      memset(dwt, 0, (size_t)K * sizeof dwt[0]);
      memset(db, 0, sizeof db);
      panel_silu_back(p, pre + r * (size_t)ldp + c0, (size_t)ldp, g, (size_t)ldy);
      panel_backward(p, wt, x + r * (size_t)ldx + c0, (size_t)ldx, g, (size_t)ldy, dx + r * (size_t)lddx + c0,
                     (size_t)lddx, dwt, db);
      for (size_t c = 0; c < nc; ++c) {
        for (int j = 0; j < K; ++j) dweight[(c0 + c) * (size_t)K + (size_t)j] += dwt[j][c];
        dbias[c0 + c] += db[c];
      }
    }
  }
}
