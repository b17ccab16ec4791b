/* src/nn/conv.c: depthwise causal convolution, then SiLU.
 *
 *   pre[t,c] = bias[c] + sum_j w[c,j] x[t-(K-1)+j, c],   y = pre sigmoid(pre)
 *   dpre = dy SiLU'(pre),  dx[t,c] = sum_j w[c,j] dpre[t+(K-1)-j, c],  dw[c,j] = sum_t dpre[t,c] x[t-(K-1)+j,
 * c]
 *
 * Channels go in panels, whose weights are transposed once, to (K, panel); a group's threads share
 * the panels.  A panel is wide, so that memory is read
 * in long pieces, and its few rows in use stay in cache.  Taps, and for dw steps, are taken four at a time: sums stay
 * in registers for so long.  pre is not kept: a few multiply-adds cost less than writing and reading it. */
#include "sq/nn.h"

#include <string.h>

#include "sq/base.h"
#include "sq/parallel.h"
#include "sq/status.h"
#include "vmath.h"

enum { PANEL = 256, GROUP = 4, BLOCK = 8 };

typedef struct { /* one panel of one sequence */
  int T, K;
  size_t nc, ldx;
  const sq_real (*w)[PANEL]; /* (K) */
  const sq_real *bias, *x;   /* x at the first step and channel, row stride ldx */
} panel;

SQ_INLINE size_t panel_width(size_t C, size_t c0)
{
  return C - c0 < PANEL ? C - c0 : PANEL;
}

SQ_INLINE void load_weights(size_t nc, int K, const sq_real *w, sq_real wt[][PANEL])
{
  for (size_t c = 0; c < nc; ++c)
    for (int j = 0; j < K; ++j) wt[j][c] = w[c * (size_t)K + (size_t)j];
}

/* y = from + sum of w[j] x_j over n taps, x_j = x + j step; y may be `from`. */
SQ_INLINE void add_taps(size_t nc, int n, const sq_real w[][PANEL], const sq_real *x, ptrdiff_t step,
                        const sq_real *from, sq_real *y)
{
  for (; n >= GROUP; n -= GROUP, w += GROUP, x += GROUP * step, from = y) {
    const sq_real *x1 = x + step, *x2 = x1 + step, *x3 = x2 + step;
    SQ_IVDEP
    for (size_t c = 0; c < nc; ++c)
      y[c] = from[c] + w[0][c] * x[c] + w[1][c] * x1[c] + w[2][c] * x2[c] + w[3][c] * x3[c];
  }
  for (; n > 0; --n, ++w, x += step, from = y) {
    SQ_IVDEP
    for (size_t c = 0; c < nc; ++c) y[c] = from[c] + w[0][c] * x[c];
  }
}

/* y = pre of step t */
SQ_INLINE void convolve(const panel *p, int t, sq_real *y)
{
  const int n = sq_min(p->K, t + 1);
  add_taps(p->nc, n, p->w + (p->K - n), p->x + (size_t)(t + 1 - n) * p->ldx, (ptrdiff_t)p->ldx, p->bias, y);
}

SQ_CLONES static void panel_forward(panel p, sq_real *y, size_t ldy)
{
  for (int t = 0; t < p.T; ++t, y += ldy) {
    convolve(&p, t, y);
    SQ_IVDEP
    for (size_t c = 0; c < p.nc; ++c) y[c] *= vsigmoid(y[c]);
  }
}

typedef struct { /* the arguments of a call */
  const sq_rows *rows;
  int C, K;
  const sq_real *x, *weight, *bias, *dy;
  sq_real *y, *dx, *dweight, *dbias; /* y forward, the others backward */
  size_t ldx, ldy, lddx;             /* ldy: of y or dy */
} call;

SQ_INLINE int panels(int C)
{
  return (C + PANEL - 1) / PANEL;
}

/* The panel of channels from c0 on, its weights in w. */
static panel panel_of(const call *v, size_t c0, sq_real w[][PANEL])
{
  const panel p = {
      .K = v->K, .nc = panel_width((size_t)v->C, c0), .ldx = v->ldx, .w = w, .bias = v->bias + c0};
  load_weights(p.nc, v->K, v->weight + c0 * (size_t)v->K, w);
  return p;
}

static void forward_block(void *ctx, int i)
{
  const call *v = ctx;
  const size_t c0 = (size_t)i * PANEL;
  sq_real w[SQ_MAX_CONV][PANEL];
  panel p = panel_of(v, c0, w);

  for (int b = 0; b < v->rows->nseq; ++b) {
    const size_t r = (size_t)v->rows->off[b];
    p.T = v->rows->off[b + 1] - v->rows->off[b];
    p.x = v->x + r * v->ldx + c0;
    panel_forward(p, v->y + r * v->ldy + c0, v->ldy);
  }
}

void sq_nn_conv_silu(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                     const sq_real *bias, sq_real *y, int ldy)
{
  call v = {.rows = rows, .C = C, .K = K, .x = x, .weight = weight, .bias = bias, .y = y};
  v.ldx = (size_t)ldx;
  v.ldy = (size_t)ldy;
  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV);
  sq_parallel_blocks(panels(C), forward_block, &v);
}

/* g = dpre of step t */
SQ_INLINE void silu_back(const panel *p, int t, const sq_real *dy, sq_real *g)
{
  convolve(p, t, g);
  SQ_IVDEP
  for (size_t c = 0; c < p->nc; ++c) {
    const sq_real z = g[c], s = vsigmoid(z);
    g[c] = dy[c] * (s * (1 + z * (1 - s)));
  }
}

/* dw_j += sum over four steps of g_t x_(t+j), j = 0 .. 3 */
SQ_INLINE void four_steps(size_t nc, const sq_real g[][PANEL], const sq_real *x, size_t ldx,
                          sq_real dw[][PANEL])
{
  const sq_real *x1 = x + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx, *x4 = x3 + ldx, *x5 = x4 + ldx, *x6 = x5 + ldx;
  SQ_IVDEP
  for (size_t c = 0; c < nc; ++c) {
    const sq_real a = g[0][c], b = g[1][c], d = g[2][c], e = g[3][c];
    dw[0][c] += (a * x[c] + b * x1[c]) + (d * x2[c] + e * x3[c]);
    dw[1][c] += (a * x1[c] + b * x2[c]) + (d * x3[c] + e * x4[c]);
    dw[2][c] += (a * x2[c] + b * x3[c]) + (d * x4[c] + e * x5[c]);
    dw[3][c] += (a * x3[c] + b * x4[c]) + (d * x5[c] + e * x6[c]);
  }
}

/* dw_j += g x_j over n taps */
SQ_INLINE void one_step(size_t nc, int n, const sq_real *g, const sq_real *x, size_t ldx, sq_real dw[][PANEL])
{
  for (int j = 0; j < n; ++j, x += ldx) {
    SQ_IVDEP
    for (size_t c = 0; c < nc; ++c) dw[j][c] += g[c] * x[c];
  }
}

/* Gradients of weights and bias from steps t .. t+n-1, whose dpre is g. */
SQ_INLINE void weight_gradient(const panel *p, int t, int n, const sq_real g[][PANEL], sq_real dw[][PANEL],
                               sq_real *db)
{
  const int whole =
      n == GROUP && t >= p->K - 1 ? p->K / GROUP * GROUP : 0; /* taps done four steps at a time */
  for (int j = 0; j < whole; j += GROUP)
    four_steps(p->nc, g, p->x + (size_t)(t - (p->K - 1) + j) * p->ldx, p->ldx, dw + j);
  for (int i = 0; i < n; ++i) {
    const int first = whole > 0 ? whole : p->K - sq_min(p->K, t + i + 1);
    one_step(p->nc, p->K - first, g[i], p->x + (size_t)(t + i - (p->K - 1) + first) * p->ldx, p->ldx,
             dw + first);
    SQ_IVDEP
    for (size_t c = 0; c < p->nc; ++c) db[c] += g[i][c];
  }
}

/* dx of a step needs dpre of the K-1 steps that follow, so that it lags behind: g[i] is dpre of step t-(K-1)+i, for
   the block of steps t .. t+n-1 and those before it. */
SQ_CLONES static void panel_backward(panel p, const sq_real *dy, size_t ldy, sq_real *dx, size_t lddx,
                                     sq_real dw[][PANEL], sq_real *db)
{
  static const sq_real zero[PANEL];
  sq_real g[SQ_MAX_CONV - 1 + BLOCK][PANEL];
  const int past = p.K - 1;

  for (int t = 0, n, done = 0; t < p.T; t += n) {
    n = sq_min(BLOCK, p.T - t);
    for (int i = 0; i < n; ++i) silu_back(&p, t + i, dy + (size_t)(t + i) * ldy, g[past + i]);
    for (int i = 0; i < n; i += GROUP) weight_gradient(&p, t + i, sq_min(GROUP, n - i), g + past + i, dw, db);
    for (const int ready = t + n == p.T ? p.T : t + n - past; done < ready; ++done) {
      const int taps = sq_min(p.K, p.T - done);
      add_taps(p.nc, taps, p.w + (p.K - taps), g[past + done + taps - 1 - t], -(ptrdiff_t)PANEL, zero,
               dx + (size_t)done * lddx);
    }
    memmove(g, g + n, (size_t)past * sizeof g[0]);
  }
}

static void backward_block(void *ctx, int i)
{
  const call *v = ctx;
  const size_t c0 = (size_t)i * PANEL, K = (size_t)v->K;
  sq_real w[SQ_MAX_CONV][PANEL], dw[SQ_MAX_CONV][PANEL], db[PANEL];
  panel p = panel_of(v, c0, w);

  for (int b = 0; b < v->rows->nseq; ++b) {
    const size_t r = (size_t)v->rows->off[b];
    p.T = v->rows->off[b + 1] - v->rows->off[b];
    p.x = v->x + r * v->ldx + c0;
    /* Sums of one sequence first, then over sequences: smaller rounding errors than one long sum. */
    memset(dw, 0, K * sizeof dw[0]);
    memset(db, 0, sizeof db);
    panel_backward(p, v->dy + r * v->ldy + c0, v->ldy, v->dx + r * v->lddx + c0, v->lddx, dw, db);
    for (size_t c = 0; c < p.nc; ++c) {
      for (size_t j = 0; j < K; ++j) v->dweight[(c0 + c) * K + j] += dw[j][c];
      v->dbias[c0 + c] += db[c];
    }
  }
}

void sq_nn_conv_silu_back(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                          const sq_real *bias, const sq_real *dy, int ldy, sq_real *dx, int lddx,
                          sq_real *dweight, sq_real *dbias)
{
  call v = {.rows = rows, .C = C, .K = K, .x = x, .weight = weight, .bias = bias, .dy = dy, .dx = dx};
  v.dweight = dweight;
  v.dbias = dbias;
  v.ldx = (size_t)ldx;
  v.ldy = (size_t)ldy;
  v.lddx = (size_t)lddx;
  SQ_ASSERT(1 <= K && K <= SQ_MAX_CONV && dx != dy);
  sq_parallel_blocks(panels(C), backward_block, &v);
}
