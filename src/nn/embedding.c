/* src/nn/embedding.c: word and position embeddings. */
#include "sq/nn.h"

#include "vmath.h"

SQ_CLONES void sq_nn_embed(const sq_rows *rows, int D, const int32_t *token, const sq_real *word,
                           const sq_real *position, sq_real *x)
{
  const size_t n = (size_t)D;

  for (int b = 0; b < rows->nseq; ++b)
    for (int r = rows->off[b]; r < rows->off[b + 1]; ++r) {
      const sq_real *w = word + (size_t)token[r] * n;
      sq_real *out = x + (size_t)r * n;
      if (position == NULL) {
        for (size_t i = 0; i < n; ++i) out[i] = w[i];
      } else {
        const sq_real *pos = position + (size_t)(r - rows->off[b]) * n;
        SQ_IVDEP
        for (size_t i = 0; i < n; ++i) out[i] = w[i] + pos[i];
      }
    }
}

SQ_CLONES void sq_nn_embed_back(const sq_rows *rows, int D, const int32_t *token, const sq_real *dx,
                                sq_real *dword, sq_real *dposition)
{
  const size_t n = (size_t)D;

  for (int b = 0; b < rows->nseq; ++b)
    for (int r = rows->off[b]; r < rows->off[b + 1]; ++r) {
      const sq_real *g = dx + (size_t)r * n;
      sq_real *dw = dword + (size_t)token[r] * n;
      SQ_IVDEP
      for (size_t i = 0; i < n; ++i) dw[i] += g[i];
      if (dposition == NULL) continue;
      sq_real *dp = dposition + (size_t)(r - rows->off[b]) * n;
      SQ_IVDEP
      for (size_t i = 0; i < n; ++i) dp[i] += g[i];
    }
}
