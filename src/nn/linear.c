/* src/nn/linear.c: y = x W^T + b. */
#include "sq/nn.h"

#include <string.h>

#include "vmath.h"

/* Rows in blocks, summed apart before they are added: the error grows with the number of blocks, not of rows.
 */
SQ_CLONES void sq_nn_column_sums_add(int R, int C, const sq_real *x, int ldx, sq_real *sum_add)
{
  enum { COLUMNS = 128, ROWS = 64 };
  sq_real part[COLUMNS];

  for (size_t c0 = 0; c0 < (size_t)C; c0 += COLUMNS) {
    const size_t nc = (size_t)C - c0 < COLUMNS ? (size_t)C - c0 : COLUMNS;
    for (size_t r0 = 0; r0 < (size_t)R; r0 += ROWS) {
      const size_t r1 = r0 + ROWS < (size_t)R ? r0 + ROWS : (size_t)R;
      memset(part, 0, sizeof part);
      for (size_t r = r0; r < r1; ++r) {
        const sq_real *row = x + r * (size_t)ldx + c0;
        SQ_IVDEP
        for (size_t c = 0; c < nc; ++c) part[c] += row[c];
      }
      for (size_t c = 0; c < nc; ++c) sum_add[c0 + c] += part[c];
    }
  }
}

void sq_nn_linear(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W, const sq_real *b,
                  sq_real *y, int ldy)
{
  /* The product adds to the bias: one pass less than adding the bias to the product. */
  if (b != NULL)
    for (size_t r = 0; r < (size_t)R; ++r) memcpy(y + r * (size_t)ldy, b, (size_t)out * sizeof *y);
  sq_gemm(SQ_N, SQ_T, R, out, in, 1, x, ldx, W, in, b != NULL ? 1 : 0, y, ldy);
}

void sq_nn_linear_back(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W, const sq_real *dy,
                       int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dW, sq_real *db)
{
  if (dx != NULL) sq_gemm(SQ_N, SQ_N, R, in, out, 1, dy, ldy, W, in, add_dx ? 1 : 0, dx, lddx);
  sq_gemm(SQ_T, SQ_N, out, in, R, 1, dy, ldy, x, ldx, 1, dW, in);
  if (db != NULL) sq_nn_column_sums_add(R, out, dy, ldy, db);
}
