/* src/task/made.c: what the generated tasks share. */
#include "made.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

void sq_made_shape(const sq_config *c, int T, int vocab, int nclass, int max_labels, sq_task_info *info)
{
  *info = (sq_task_info){.seq_len = T,
                         .vocab_size = vocab,
                         .nclass = nclass,
                         .label_per_row = 1,
                         .max_labels = max_labels,
                         .size = {(size_t)sq_config_int(c, "dataset.num_train"),
                                  (size_t)sq_config_int(c, "dataset.num_valid"),
                                  (size_t)sq_config_int(c, "dataset.num_test")},
                         .metric = "accuracy"};
}

sq_status sq_made_open(const sq_task_ops *ops, const sq_config *c, int n, const int *p, sq_task **out)
{
  made_task *t = sq_calloc(1, sizeof *t, "generated task");
  sq_status st;
  *out = NULL;
  if (t == NULL) return SQ_ERR_MEMORY;
  SQ_ASSERT(n <= (int)(sizeof t->p / sizeof *t->p));
  t->base.ops = ops;
  t->seed = (uint64_t)sq_config_int(c, "seed");
  memcpy(t->p, p, (size_t)n * sizeof *p);
  SQ_TRY(ops->shape(c, &t->info));
  *out = &t->base;
  t = NULL;
done:
  free(t);
  return st;
}

void sq_made_rng(const sq_task *t, int stream, sq_split split, size_t i, sq_rng *r)
{
  sq_rng_init(r, ((const made_task *)t)->seed, (uint32_t)(SQ_STREAM_MADE + stream),
              (uint64_t)i + ((uint64_t)split << 32));
}

void sq_made_close(sq_task *t)
{
  free(t);
}

const sq_task_info *sq_made_info(const sq_task *t)
{
  return &((const made_task *)t)->info;
}

int sq_made_length(const sq_task *t, sq_split split, size_t i)
{
  (void)split;
  (void)i;
  return ((const made_task *)t)->info.seq_len;
}
