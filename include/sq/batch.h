/* include/sq/batch.h: sequences packed back to back, without padding between them.
 *
 * Row r = off[b] + t holds step t of sequence b.  Padding is on the right and the models are causal, so a
 * packed batch computes exactly what a padded one would, minus the padding.  Recipe `published` pools over
 * padding: there the task appends the padding tokens, and a sequence is as long as the padded batch. */
#pragma once

#include <stdint.h>

#include "sq/real.h"

#define SQ_IGNORE (-100) /* label that does not count */

typedef struct {
  int nseq, nrow;
  const int *off; /* (nseq+1), off[0] == 0, off[nseq] == nrow */
  const int *id;  /* (nseq) place of the sequence in the whole batch: keys the dropout masks, so that these do
                     not depend on how the batch is cut into shards */
  const int *len; /* (nseq) steps before the padding; NULL: all.  Only mean pooling looks at it (recipe
                     `published` of the JAX family, where batch statistics include the padding) */
} sq_rows;

/* Rows of a shard in ascending order: those whose output is wanted, where the output layer reads few of them.  An
   array for them holds these rows one after the other. */
typedef struct {
  int n;
  const int *row;  /* (n) in the shard */
  const int *step; /* (n) in its sequence */
  const int *off;  /* (nseq+1): numbers off[b] .. off[b+1]-1 are those of sequence b; there may be none */
} sq_wanted;

typedef struct {
  sq_rows rows;
  int input_dim;        /* of value */
  const int32_t *token; /* (nrow), or NULL */
  const sq_real *value; /* (nrow, input_dim) if token is NULL */
  int label_per_row;    /* 1: label is (nrow); 0: (nseq) */
  const int32_t *label; /* class, or SQ_IGNORE */
  int dual;           /* 1: sequences 2k and 2k+1 are a pair, whose one label is label[k] (label_per_row 0) */
  int loss_over_rows; /* 1: the loss is divided by all rows, not by the labels that count (published JAX rule) */
} sq_batch;

/* Sequences, or pairs of them. */
static inline int sq_batch_examples(const sq_batch *b)
{
  return b->dual ? b->rows.nseq / 2 : b->rows.nseq;
}

/* Shards.  A batch of B sequences (or pairs) is S = min(16, B) shards, shard s = sequences floor(sB/S) ..
   floor((s+1)B/S)-1, and sums over the batch are the fixed binary tree over shards
   ((0+1)+(2+3))+((4+5)+(6+7)) ...; odd ones pass up.  This partition, not who computes it, defines the result. */
#define SQ_MAX_SHARDS 16
#define SQ_SHARD_BITS 4 /* levels of its tree */
static inline int sq_shard_count(int B)
{
  return B < SQ_MAX_SHARDS ? B : SQ_MAX_SHARDS;
}
static inline int sq_shard_first(int B, int s) /* s == sq_shard_count(B) gives B */
{
  return (int)((long long)s * B / sq_shard_count(B));
}

/* View of shard s.  off (nseq+1 ints) is caller's storage for the rebased offsets. */
sq_batch sq_batch_shard(const sq_batch *b, int s, int *off);
long sq_batch_labels(const sq_batch *b); /* labels that are not SQ_IGNORE */
/* Weight of one label in the loss: 1/labels, or 1/rows with loss_over_rows; 0 without labels.  _of: the labels have been
   counted. */
double sq_batch_scale(const sq_batch *b);
double sq_batch_scale_of(const sq_batch *b, long nlabel);
