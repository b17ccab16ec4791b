/* src/task/made.h: what the generated tasks share: an example is a function of (seed, split, index) alone. */
#pragma once

#include "sq/rng.h"
#include "task_impl.h"

enum { MADE_SELECTIVE_COPYING, MADE_INDUCTION_HEADS, MADE_LAG_COPY, MADE_PARITY }; /* streams: append only */
enum { MADE_MAX_T = 1 << 20 };

typedef struct {
  struct sq_task base;
  sq_task_info info;
  uint64_t seed;
  int p[8]; /* the task's own numbers */
} made_task;

#define MADE_SIZE_KEYS                                                                                       \
  {"dataset.num_train", SQ_KEY_INT, "100000", 1, 1e9, NULL, "training examples"},                            \
      {"dataset.num_valid", SQ_KEY_INT, "3000", 1, 1e9, NULL, "validation examples"},                        \
  {                                                                                                          \
    "dataset.num_test", SQ_KEY_INT, "3000", 1, 1e9, NULL, "test examples"                                    \
  }

/* p: (n) numbers for made_task.p. */
sq_status sq_made_open(const sq_task_ops *ops, const sq_config *c, int n, const int *p, sq_task **t);
/* Tokens and labels at every step; sizes from the keys above. */
void sq_made_shape(const sq_config *c, int T, int vocab, int nclass, int max_labels, sq_task_info *info);
/* The random numbers of an example. */
void sq_made_rng(const sq_task *t, int stream, sq_split split, size_t i, sq_rng *r);

/* Operations of sq_task_ops. */
void sq_made_close(sq_task *t);
const sq_task_info *sq_made_info(const sq_task *t);
int sq_made_length(const sq_task *t, sq_split split, size_t i); /* info.seq_len */
