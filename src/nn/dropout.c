/* src/nn/dropout.c: inverted dropout with masks that anybody can recompute.
 *
 * Philox4x32-10 (sq/rng.h) with key = seed and counter = (block, row, step, stream), row = sequence id *
 * seq_len + t. Column c takes word (c%64)/16 of block 16 (c/64) + c%16, which lets 16 blocks be made side by
 * side. */
#include "sq/nn.h"

#include "sq/parallel.h"
#include "sq/status.h"
#include "vmath.h"

enum { BLOCKS = 16, CHUNK = 4 * BLOCKS };

typedef struct {
  uint32_t key[2], row, step, stream;
} counter;

static counter counter_for(const sq_pass *p, int site, int id, int t)
{
  const uint64_t row = (uint64_t)id * (uint64_t)p->seq_len + (uint64_t)t;

  SQ_ASSERT(row <= UINT32_MAX && p->step <= UINT32_MAX);
  return (counter){.key = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)},
                   .row = (uint32_t)row,
                   .step = (uint32_t)p->step,
                   .stream = SQ_STREAM_DROPOUT + (uint32_t)site};
}

/* word[c] for the 64 columns of a chunk; the rounds are those of sq_philox(). */
SQ_INLINE void chunk_words(const counter *k, uint32_t chunk, uint32_t word[CHUNK])
{
  for (uint32_t j = 0; j < BLOCKS; ++j) {
    uint32_t k0 = k->key[0], k1 = k->key[1];
    uint32_t c0 = chunk * BLOCKS + j, c1 = k->row, c2 = k->step, c3 = k->stream;
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
      c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
      c1 = (uint32_t)p1;
      c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c3 = (uint32_t)p0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    word[j] = c0;
    word[j + BLOCKS] = c1;
    word[j + 2 * BLOCKS] = c2;
    word[j + 3 * BLOCKS] = c3;
  }
}

SQ_INLINE uint32_t threshold(double rate)
{
  const double t = rate * 0x1p32;
  return t >= 0x1p32 ? UINT32_MAX : (uint32_t)t;
}

SQ_CLONES static void row_multiply(const counter *k, uint32_t drop_below, sq_real scale, size_t n, sq_real *x)
{
  uint32_t word[CHUNK];

  for (size_t c0 = 0; c0 < n; c0 += CHUNK) {
    const size_t nc = n - c0 < CHUNK ? n - c0 : CHUNK;
    chunk_words(k, (uint32_t)(c0 / CHUNK), word);
    for (size_t c = 0; c < nc; ++c) x[c0 + c] = word[c] >= drop_below ? x[c0 + c] * scale : 0;
  }
}

static int inactive(const sq_pass *p, double rate)
{
  SQ_ASSERT(0 <= rate && rate < 1);
  return !p->train || rate == 0;
}

enum { ROWS = 64 }; /* of a block */

typedef struct {
  const sq_pass *p;
  const int *off;
  double rate;
  int site, C, ldx;
  sq_real *x;
} rows_of;

static void drop_block(void *ctx, int i)
{
  const rows_of *d = ctx;
  const sq_pass *p = d->p;
  const sq_real scale = (sq_real)(1 / (1 - d->rate));
  const int all = d->off[p->rows->nseq], end = all - i * ROWS < ROWS ? all : (i + 1) * ROWS;
  for (int r = i * ROWS, b = 0; r < end; ++r) {
    while (d->off[b + 1] <= r) ++b;
    const int t = p->wanted != NULL ? p->wanted->step[r] : r - d->off[b];
    const counter k = counter_for(p, d->site, p->rows->id[b], t);
    row_multiply(&k, threshold(d->rate), scale, (size_t)d->C, d->x + (size_t)r * (size_t)d->ldx);
  }
}

void sq_nn_dropout(const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx)
{
  if (inactive(p, rate)) return;
  rows_of d = {p, p->wanted != NULL ? p->wanted->off : p->rows->off, rate, site, C, ldx, x};
  sq_parallel_blocks((d.off[p->rows->nseq] + ROWS - 1) / ROWS, drop_block, &d);
}

SQ_CLONES static void columns_multiply(const counter *k, uint32_t drop_below, sq_real scale, int T, size_t n,
                                       sq_real *x, size_t ldx)
{
  uint32_t word[CHUNK];
  sq_real m[CHUNK];

  for (size_t c0 = 0; c0 < n; c0 += CHUNK) {
    const size_t nc = n - c0 < CHUNK ? n - c0 : CHUNK;
    chunk_words(k, (uint32_t)(c0 / CHUNK), word);
    for (size_t c = 0; c < nc; ++c) m[c] = word[c] >= drop_below ? scale : 0;
    for (size_t t = 0; t < (size_t)T; ++t) {
      sq_real *row = x + t * ldx + c0;
      for (size_t c = 0; c < nc; ++c) row[c] *= m[c];
    }
  }
}

void sq_nn_dropout_columns(const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx)
{
  if (inactive(p, rate)) return;
  const int *off = p->wanted != NULL ? p->wanted->off : p->rows->off;
  for (int b = 0; b < p->rows->nseq; ++b) {
    const counter k = counter_for(p, site, p->rows->id[b], 0);
    const int first = off[b], T = off[b + 1] - first;
    columns_multiply(&k, threshold(rate), (sq_real)(1 / (1 - rate)), T, (size_t)C,
                     x + (size_t)first * (size_t)ldx, (size_t)ldx);
  }
}

void sq_nn_dropout_row(const sq_pass *p, double rate, int site, int id, int i, int n, sq_real *m)
{
  for (int j = 0; j < n; ++j) m[j] = 1;
  if (inactive(p, rate)) return;
  const counter k = counter_for(p, site, id, i);
  row_multiply(&k, threshold(rate), (sq_real)(1 / (1 - rate)), (size_t)n, m);
}
