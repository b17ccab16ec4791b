/* src/train/train_impl.h: what only the files of this module share. */
#pragma once

#include "sq/base.h"
#include "sq/train.h"

/* ---- gradient.c: the tree, apart from any model, so that its order can be tested --------------------- */
#define SQ_TREE_BUFFERS 3 /* log2(SQ_MAX_SHARDS): one for the right half at each level */
typedef struct {
  int nshard, nrange;
  size_t range[2][2]; /* {first, count}: the elements of the vector that are summed */
  /* Adds shard s to out. */
  void (*leaf)(void *user, int s, sq_real *out);
  void *user;
  sq_real *buffer[SQ_TREE_BUFFERS]; /* as long as the vector, each; zero before and after sq_tree_add */
} sq_tree;
/* The shards' sum into the ranges of out, which are zero before. */
void sq_tree_add(const sq_tree *t, sq_real *out);
/* The same order over one number a shard; value (nshard) is overwritten, the sum is returned. */
double sq_tree_sum_double(int nshard, double *value);

/* ---- plan.c: the numbers of a run, read once from its configuration ---------------------------------- */
typedef struct {
  int published;
  sq_padding pad;     /* of every batch */
  int loss_over_rows; /* published JAX rule */
  uint64_t seed;
  int batch, eval_batch;
  size_t ntrain;
  long steps_per_epoch, total, eval_every;
  int max_evals, snapshots;
  sq_adamw adam;
  sq_schedule schedule;
  double ssm_lr; /* base rate of the state-space parameters; follows the same schedule */
  int by_epoch;  /* the schedule counts epochs, not steps */
  int has_stop, lower_is_better;
  double stop;
  int has_plateau;
  sq_plateau plateau;
} sq_train_settings;
/* Numbers in theta that are parameters: total without the gaps. */
long sq_train_count_parameters(const sq_param_list *l);
sq_status sq_train_settings_read(const sq_config *c, const sq_task_info *info, sq_train_settings *s);

/* ---- train.c: the memory of a run -------------------------------------------------------------------- */
typedef struct {
  sq_real *theta, *m, *v, *best; /* (total) each */
  sq_real *grad;                 /* (sq_model_ngradient) */
  uint32_t *order;               /* (ntrain) this epoch's permutation of the training set */
  size_t *index;                 /* (max batch) examples of one batch */
  int *length;                   /* (sequences of it) */
  void *batch;                   /* sq_task_batch_bytes */
} sq_train_memory;
/* Takes all of it from a; with a counting arena this is the plan. */
void sq_train_memory_take(sq_arena *a, const sq_train_settings *s, const sq_model *m,
                          const sq_task_info *info, sq_train_memory *mem);
