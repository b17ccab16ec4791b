/* src/nn/pool.c: the rows that an output layer works on: one vector for each sequence, or the labelled rows. */
#include "sq/nn.h"

#include <string.h>

#include "sq/status.h"
#include "vmath.h"

/* y = scale * sum over rows, in double: sequences have up to thousands of steps. */
SQ_CLONES static void sum_rows(int T, size_t D, const sq_real *x, double scale, sq_real *y)
{
  enum { COLUMNS = 64 };
  double acc[COLUMNS];

  for (size_t c0 = 0; c0 < D; c0 += COLUMNS) {
    const size_t nc = D - c0 < COLUMNS ? D - c0 : COLUMNS;
    for (size_t c = 0; c < nc; ++c) acc[c] = 0;
    for (size_t t = 0; t < (size_t)T; ++t) {
      const sq_real *row = x + t * D + c0;
      for (size_t c = 0; c < nc; ++c) acc[c] += (double)row[c];
    }
    for (size_t c = 0; c < nc; ++c) y[c0 + c] = (sq_real)(scale * acc[c]);
  }
}

static void max_rows(int T, size_t D, const sq_real *x, sq_real *y, int *argmax)
{
  memcpy(y, x, D * sizeof *y);
  for (size_t c = 0; c < D; ++c) argmax[c] = 0;
  for (int t = 1; t < T; ++t) {
    const sq_real *row = x + (size_t)t * D;
    for (size_t c = 0; c < D; ++c)
      if (row[c] > y[c] || (row[c] != row[c] && y[c] == y[c])) { /* NaN wins: a diverged row must be seen */
        y[c] = row[c];
        argmax[c] = t;
      }
  }
}

void sq_nn_pool(sq_pooling how, const sq_rows *rows, int D, const sq_real *x, sq_real *y, int *argmax)
{
  const size_t n = (size_t)D;

  SQ_ASSERT(how != SQ_POOL_NONE);
  for (int b = 0; b < rows->nseq; ++b) {
    const int steps = rows->off[b + 1] - rows->off[b];
    const int T = how == SQ_POOL_MEAN && rows->len != NULL ? rows->len[b] : steps;
    const sq_real *first = x + (size_t)rows->off[b] * n;
    sq_real *out = y + (size_t)b * n;
    SQ_ASSERT(0 < T && T <= steps);
    switch (how) {
    case SQ_POOL_MEAN: sum_rows(T, n, first, 1.0 / T, out); break;
    case SQ_POOL_SUM: sum_rows(T, n, first, 1, out); break;
    case SQ_POOL_MAX: max_rows(T, n, first, out, argmax + (size_t)b * n); break;
    case SQ_POOL_CLS: memcpy(out, first, n * sizeof *out); break;
    case SQ_POOL_LAST: memcpy(out, first + (size_t)(T - 1) * n, n * sizeof *out); break;
    case SQ_POOL_NONE: break;
    }
  }
}

void sq_nn_pool_back(sq_pooling how, const sq_rows *rows, int D, const sq_real *dy, const int *argmax,
                     sq_real *dx)
{
  const size_t n = (size_t)D;

  SQ_ASSERT(how != SQ_POOL_NONE);
  for (int b = 0; b < rows->nseq; ++b) {
    const int steps = rows->off[b + 1] - rows->off[b];
    const int T = how == SQ_POOL_MEAN && rows->len != NULL ? rows->len[b] : steps;
    const sq_real *g = dy + (size_t)b * n;
    sq_real *out = dx + (size_t)rows->off[b] * n;
    if (how == SQ_POOL_MEAN || how == SQ_POOL_SUM) {
      const sq_real scale = how == SQ_POOL_MEAN ? (sq_real)(1.0 / T) : 1;
      for (size_t t = 0; t < (size_t)T; ++t)
        for (size_t c = 0; c < n; ++c) out[t * n + c] = scale * g[c];
      memset(out + (size_t)T * n, 0, (size_t)(steps - T) * n * sizeof *out);
      continue;
    }
    memset(out, 0, (size_t)T * n * sizeof *out);
    if (how == SQ_POOL_MAX)
      for (size_t c = 0; c < n; ++c) out[(size_t)argmax[(size_t)b * n + c] * n + c] = g[c];
    else
      memcpy(out + (how == SQ_POOL_LAST ? (size_t)(T - 1) * n : 0), g, n * sizeof *out);
  }
}

int sq_nn_list_labelled(const sq_rows *rows, const int32_t *label, int cap, int *row, int *step, int *off,
                        int32_t *kept)
{
  int n = 0;

  for (int b = 0; b < rows->nseq; ++b) {
    off[b] = n;
    for (int r = rows->off[b]; r < rows->off[b + 1]; ++r) {
      if (label[r] == SQ_IGNORE) continue;
      SQ_ASSERT(n < cap);
      row[n] = r;
      step[n] = r - rows->off[b];
      kept[n++] = label[r];
    }
  }
  off[rows->nseq] = n;
  return n;
}

void sq_nn_gather_rows(int D, int n, const int *row, const sq_real *x, sq_real *y)
{
  const size_t width = (size_t)D;

  for (int k = 0; k < n; ++k) memcpy(y + (size_t)k * width, x + (size_t)row[k] * width, width * sizeof *y);
}

void sq_nn_scatter_rows(int R, int D, int n, const int *row, const sq_real *y, sq_real *x)
{
  const size_t width = (size_t)D;

  memset(x, 0, (size_t)R * width * sizeof *x);
  for (int k = 0; k < n; ++k) memcpy(x + (size_t)row[k] * width, y + (size_t)k * width, width * sizeof *x);
}

SQ_CLONES void sq_nn_add_rows(int D, int n, const int *row, const sq_real *restrict y, sq_real *restrict x)
{
  const size_t width = (size_t)D;

  for (int k = 0; k < n; ++k) {
    const sq_real *from = y + (size_t)k * width;
    sq_real *to = x + (size_t)row[k] * width;
    for (size_t i = 0; i < width; ++i) to[i] += from[i];
  }
}
