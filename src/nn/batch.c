/* src/nn/batch.c: shards of a batch. */
#include "sq/batch.h"

#include <stddef.h>

#include "sq/status.h"

sq_batch sq_batch_shard(const sq_batch *b, int s, int *off)
{
  const int B = sq_batch_examples(b), S = sq_shard_count(B), each = b->dual ? 2 : 1;
  sq_batch shard = *b;

  SQ_ASSERT(0 <= s && s < S);
  const int example = sq_shard_first(B, s), first = each * example, last = each * sq_shard_first(B, s + 1);
  const int row = b->rows.off[first];
  for (int i = first; i <= last; ++i) off[i - first] = b->rows.off[i] - row;
  shard.rows =
      (sq_rows){.nseq = last - first, .nrow = off[last - first], .off = off, .id = b->rows.id + first};
  if (b->rows.len != NULL) shard.rows.len = b->rows.len + first;
  if (b->token != NULL) shard.token = b->token + row;
  if (b->value != NULL) shard.value = b->value + (size_t)row * (size_t)b->input_dim;
  if (b->label != NULL) shard.label = b->label + (b->label_per_row ? row : example);
  return shard;
}

long sq_batch_labels(const sq_batch *b)
{
  const int n = b->label_per_row ? b->rows.nrow : sq_batch_examples(b);
  long count = 0;

  for (int i = 0; i < n; ++i) count += b->label[i] != SQ_IGNORE;
  return count;
}

double sq_batch_scale(const sq_batch *b)
{
  return sq_batch_scale_of(b, sq_batch_labels(b));
}

double sq_batch_scale_of(const sq_batch *b, long nlabel)
{
  if (nlabel == 0) return 0;
  return 1 / (double)(b->loss_over_rows && b->label_per_row ? b->rows.nrow : nlabel);
}
