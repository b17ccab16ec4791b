/* src/nn/xent.c: softmax cross-entropy, alone and fused with the output layer.
 *
 *   loss = log sum_v exp(l_v - max) - (l_label - max),   dloss/dl_v = softmax_v - [v == label] */
#include "sq/nn.h"

#include <math.h>

#include "sq/parallel.h"
#include "vmath.h"

enum { LANES = 16, MIN_ROWS = 32, SCRATCH_BYTES = 4 << 20 };

SQ_CLONES static sq_real row_max(size_t n, const sq_real *x)
{
  sq_real m[LANES];
  size_t i = 0;

  for (int l = 0; l < LANES; ++l) m[l] = -INFINITY;
  for (; i + LANES <= n; i += LANES)
    for (int l = 0; l < LANES; ++l) m[l] = x[i + (size_t)l] > m[l] ? x[i + (size_t)l] : m[l];
  for (int l = 0; i < n; ++i, ++l) m[l] = x[i] > m[l] ? x[i] : m[l];
  for (int l = 1; l < LANES; ++l) m[0] = m[l] > m[0] ? m[l] : m[0];
  return m[0];
}

/* sum exp(x - max), in double after pieces of 256; the exponentials go to e (may be x). */
SQ_CLONES static double row_exp(size_t n, const sq_real *x, sq_real max, sq_real *e)
{
  double total = 0;

  for (size_t i0 = 0; i0 < n; i0 += 256) {
    const size_t i1 = i0 + 256 < n ? i0 + 256 : n;
    double acc[LANES] = {0};
    SQ_IVDEP
    for (size_t i = i0; i < i1; ++i) e[i] = vexp(x[i] - max);
    size_t i = i0;
    for (; i + LANES <= i1; i += LANES)
      for (int l = 0; l < LANES; ++l) acc[l] += (double)e[i + (size_t)l];
    for (int l = 0; i < i1; ++i, ++l) acc[l] += (double)e[i];
    for (int l = 0; l < LANES; ++l) total += acc[l];
  }
  return total;
}

static double row_exp_only(size_t n, const sq_real *x, sq_real max)
{
  sq_real e[256];
  double total = 0;

  for (size_t i = 0; i < n; i += 256) total += row_exp(n - i < 256 ? n - i : 256, x + i, max, e);
  return total;
}

SQ_CLONES static void row_scale(size_t n, sq_real c, sq_real *x)
{
  for (size_t i = 0; i < n; ++i) x[i] *= c;
}

static int is_first_maximum(const sq_real *x, int32_t label, sq_real max)
{
  if (x[label] != max) return 0;
  for (int32_t v = 0; v < label; ++v)
    if (x[v] == max) return 0;
  return 1;
}

static void xent_rows(int R, int V, sq_real *logits, const int32_t *label, double scale, int grad,
                      sq_tally *tally)
{
  const size_t n = (size_t)V;

  for (size_t r = 0; r < (size_t)R; ++r) {
    sq_real *x = logits + r * n;
    if (label[r] == SQ_IGNORE) {
      if (grad)
        for (size_t v = 0; v < n; ++v) x[v] = 0;
      continue;
    }
    const sq_real max = row_max(n, x);
    const double own = (double)x[label[r]] - (double)max;
    tally->nlabel += 1;
    tally->ncorrect += is_first_maximum(x, label[r], max);
    const double sum = grad ? row_exp(n, x, max, x) : row_exp_only(n, x, max);
    tally->loss_sum += log(sum) - own;
    if (grad) {
      row_scale(n, (sq_real)(scale / sum), x);
      x[label[r]] -= (sq_real)scale;
    }
  }
}

enum { BLOCK_ROWS = 16, BLOCKS = 64 }; /* of one call of the threads */

typedef struct {
  int R, V, grad;
  sq_real *logits;
  const int32_t *label;
  double scale;
  sq_tally tally[BLOCKS];
} rows_of;

static void xent_block(void *ctx, int i)
{
  rows_of *x = ctx;
  const int left = x->R - i * BLOCK_ROWS;
  xent_rows(left < BLOCK_ROWS ? left : BLOCK_ROWS, x->V, x->logits + (size_t)i * BLOCK_ROWS * (size_t)x->V,
            x->label + i * BLOCK_ROWS, x->scale, x->grad, &x->tally[i]);
}

/* The losses of a block are summed apart, blocks in their order. */
void sq_nn_xent(int R, int V, sq_real *logits, const int32_t *label, double scale, int grad, sq_tally *tally)
{
  for (int r = 0; r < R; r += BLOCKS * BLOCK_ROWS) {
    rows_of x = {.R = R - r < BLOCKS * BLOCK_ROWS ? R - r : BLOCKS * BLOCK_ROWS,
                 .V = V,
                 .grad = grad,
                 .logits = logits + (size_t)r * (size_t)V,
                 .label = label + r,
                 .scale = scale};
    const int n = (x.R + BLOCK_ROWS - 1) / BLOCK_ROWS;
    sq_parallel_blocks(n, xent_block, &x);
    for (int i = 0; i < n; ++i) {
      tally->loss_sum += x.tally[i].loss_sum;
      tally->nlabel += x.tally[i].nlabel;
      tally->ncorrect += x.tally[i].ncorrect;
    }
  }
}

static int block_rows(int R, int V)
{
  const size_t fit = SCRATCH_BYTES / ((size_t)V * sizeof(sq_real));
  const int rows = fit < MIN_ROWS ? MIN_ROWS : fit > (size_t)R ? R : (int)fit;
  return rows < R ? rows : R;
}

size_t sq_nn_xent_head_scratch(int R, int V)
{
  return (size_t)block_rows(R, V) * (size_t)V;
}

void sq_nn_log_softmax(int R, int V, sq_real *logits)
{
  const size_t n = (size_t)V;

  for (size_t r = 0; r < (size_t)R; ++r) {
    sq_real *x = logits + r * n;
    const sq_real max = row_max(n, x);
    const double shift = (double)max + log(row_exp_only(n, x, max));
    for (size_t v = 0; v < n; ++v) x[v] = (sq_real)((double)x[v] - shift);
  }
}

typedef struct { /* sq_nn_linear or sq_nn_dense, and its gradient */
  void (*forward)(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W, const sq_real *b,
                  sq_real *y, int ldy);
  void (*backward)(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W, const sq_real *dy,
                   int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dW, sq_real *db);
} output_layer;

static void head(const output_layer *layer, int R, int D, int V, const sq_real *x, const sq_real *W,
                 const sq_real *b, const int32_t *label, double scale, sq_real *dx, sq_real *dW, sq_real *db,
                 sq_real *scratch, sq_tally *tally)
{
  const int block = block_rows(R, V);

  for (int r = 0; r < R; r += block) {
    const int n = R - r < block ? R - r : block;
    const sq_real *xr = x + (size_t)r * (size_t)D;
    layer->forward(n, D, V, xr, D, W, b, scratch, V);
    sq_nn_xent(n, V, scratch, label + r, scale, dx != NULL, tally);
    if (dx != NULL)
      layer->backward(n, D, V, xr, D, W, scratch, V, dx + (size_t)r * (size_t)D, D, 0, dW,
                      b != NULL ? db : NULL);
  }
}

void sq_nn_xent_head(int R, int D, int V, const sq_real *x, const sq_real *W, const sq_real *b,
                     const int32_t *label, double scale, sq_real *dx, sq_real *dW, sq_real *db,
                     sq_real *scratch, sq_tally *tally)
{
  static const output_layer linear = {sq_nn_linear, sq_nn_linear_back};
  head(&linear, R, D, V, x, W, b, label, scale, dx, dW, db, scratch, tally);
}

void sq_nn_xent_dense_head(int R, int D, int V, const sq_real *x, const sq_real *K, const sq_real *b,
                           const int32_t *label, double scale, sq_real *dx, sq_real *dK, sq_real *db,
                           sq_real *scratch, sq_tally *tally)
{
  static const output_layer dense = {sq_nn_dense, sq_nn_dense_back};
  head(&dense, R, D, V, x, K, b, label, scale, dx, dK, db, scratch, tally);
}
