/* src/nn/dense.c: y = x K + b, as flax writes it, and the same where x is a one-hot vector. */
#include "sq/nn.h"

#include <string.h>

#include "vmath.h"

static void bias_rows(int R, int out, const sq_real *b, sq_real *y, int ldy)
{
  for (size_t r = 0; r < (size_t)R; ++r) memcpy(y + r * (size_t)ldy, b, (size_t)out * sizeof *y);
}

void sq_nn_dense(int R, int in, int out, const sq_real *x, int ldx, const sq_real *K, const sq_real *b,
                 sq_real *y, int ldy)
{
  if (b != NULL) bias_rows(R, out, b, y, ldy);
  sq_gemm(SQ_N, SQ_N, R, out, in, 1, x, ldx, K, out, b != NULL ? 1 : 0, y, ldy);
}

void sq_nn_dense_back(int R, int in, int out, const sq_real *x, int ldx, const sq_real *K, const sq_real *dy,
                      int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dK, sq_real *db)
{
  if (dx != NULL) sq_gemm(SQ_N, SQ_T, R, in, out, 1, dy, ldy, K, out, add_dx ? 1 : 0, dx, lddx);
  sq_gemm(SQ_T, SQ_N, in, out, R, 1, x, ldx, dy, ldy, 1, dK, out);
  if (db != NULL) sq_nn_column_sums_add(R, out, dy, ldy, db);
}

static int has_row(int in, int32_t token)
{
  return 0 <= token && token < in;
}

SQ_CLONES void sq_nn_onehot_dense(int R, int in, int out, const int32_t *token, const sq_real *K,
                                  const sq_real *b, sq_real *y)
{
  const size_t n = (size_t)out;

  for (size_t r = 0; r < (size_t)R; ++r) {
    sq_real *to = y + r * n;
    if (!has_row(in, token[r])) {
      memcpy(to, b, n * sizeof *to);
      continue;
    }
    const sq_real *row = K + (size_t)token[r] * n;
    SQ_IVDEP
    for (size_t i = 0; i < n; ++i) to[i] = row[i] + b[i];
  }
}

SQ_CLONES void sq_nn_onehot_dense_back(int R, int in, int out, const int32_t *token, const sq_real *dy,
                                       sq_real *dK, sq_real *db)
{
  const size_t n = (size_t)out;

  for (size_t r = 0; r < (size_t)R; ++r) {
    if (!has_row(in, token[r])) continue;
    const sq_real *g = dy + r * n;
    sq_real *to = dK + (size_t)token[r] * n;
    SQ_IVDEP
    for (size_t i = 0; i < n; ++i) to[i] += g[i];
  }
  sq_nn_column_sums_add(R, out, dy, out, db);
}
