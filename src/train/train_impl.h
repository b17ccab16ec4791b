/* src/train/train_impl.h: what only the files of this module share. */
#pragma once

#include "sq/base.h"
#include "sq/train.h"

/* ---- tree.c: the tree, apart from any model, so that its order can be tested ------------------------- */
#define SQ_TREE_BUFFERS SQ_SHARD_BITS /* one for the right half at each level */
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
/* Of shards first .. first + 2^level - 1 only, the node of the tree above them (level buffers). */
void sq_tree_add_node(const sq_tree *t, int first, int level, sq_real *out);
/* From within that node's last leaf, which has done with n numbers from `at` on: their sum is complete in out.  The
   caller takes them out of t->range. */
void sq_tree_add_early(const sq_tree *t, int first, int level, size_t at, size_t n, sq_real *out);
/* sum += x, x = 0 */
void sq_tree_join(size_t n, sq_real *sum, sq_real *x);
/* The same order over one number a shard; value (nshard) is overwritten, the sum is returned. */
double sq_tree_sum_double(int nshard, double *value);
int sq_tree_levels(int nshard); /* smallest L with 2^L >= nshard */

/* ---- team.c: sums over the members in the order of the tree ------------------------------------------
 * Member k has the node of shards k 2^level .. (k+1) 2^level - 1 of nshard; members past the last shard have nothing,
 * and nothing is added for them. */
typedef struct {
  const sq_team *team;
  int nshard, level;
  void *piece; /* SQ_PIECE sq_reals or doubles */
} sq_team_tree;
#define SQ_PIECE ((size_t)1 << 16)
/* Into x on every member: the whole vector between pairs of members.  n doubles: at most SQ_PIECE. */
void sq_team_sum(const sq_team_tree *t, size_t n, sq_real *x);
void sq_team_sum_double(const sq_team_tree *t, size_t n, double *x);
/* Parts bound[i] .. bound[i+1]-1, i = sq_team_part(): each member's own part of x becomes the sum. */
int sq_team_part(const sq_team *t);
typedef struct { /* under way */
  sq_team_tree tree;
  const size_t *bound;
  sq_real *x, *in;
  int stage, first, nmember, adds; /* parts first .. first + nmember - 1 are this member's so far */
  size_t nin;
} sq_team_scatter;
/* in: room for the larger half of the parts.  x, in and bound are left alone until go_on() has said 1; `wait`: it
   returns only then.  All members take their scatters in the same order, one at a time. */
void sq_team_scatter_begin(sq_team_scatter *s, const sq_team_tree *t, const size_t *bound, sq_real *x,
                           sq_real *in);
int sq_team_scatter_go_on(sq_team_scatter *s, int wait);
/* Each member's own part of x, elements of `size` bytes, on all. */
void sq_team_gather(const sq_team *t, const size_t *bound, size_t size, void *x);

/* ---- parts.c: stretches of the gradient vector, and the members' parts of them --------------------------
 * A stretch is complete when the backward pass has left a layer; they follow each other from the end of the vector to
 * its start.  Each has a range of theta and one of derived quantities, and of each range every member has a part: of
 * theta whole blocks of the optimiser. */
typedef struct {
  int layer;          /* number of layers: the head's; -1: the last, complete when the pass ends */
  size_t range[2][2]; /* {first, count} in the gradient vector */
  size_t *bound[2];   /* (team + 1) the parts of these ranges */
  int derived; /* layer whose derived numbers alone are the second range: its bounds are between their parts, so
                  that a member gets the gradient of what it makes; -1: none */
} sq_stretch;
typedef struct {
  int nstretch;
  sq_stretch *stretch;
  int *mine;     /* (nblock) the blocks of part 0, of part 1, ... */
  size_t *first; /* (team + 1) where a part's begin in it */
  size_t room;   /* for the larger half of a range's parts, see sq_team_scatter_begin() */
} sq_parts;
/* First of the layer's derived parts in a member's part `part`, where a stretch is divided. */
int sq_parts_derived(const sq_model *m, int layer, int team, int part);
struct sq_optim_block;
void sq_parts_take(sq_arena *a, const sq_model *m, int team, int nblock, sq_parts *p);
/* Into the memory taken; whole: nobody has parts, mine lists all blocks in their order for every member. */
void sq_parts_set(const sq_model *m, int team, int nblock, const struct sq_optim_block *block, int whole,
                  sq_parts *p);

/* ---- optim.c: a step in blocks ------------------------------------------------------------------------
 * A block is SQ_OPTIM_BLOCK elements of one tensor, from its start: the norm is a sum of blocks in their order, and a
 * block is updated by whoever has it. */
#define SQ_OPTIM_BLOCK 8192
typedef struct sq_optim_block {
  int tensor;
  size_t first, count; /* in theta */
} sq_optim_block;
int sq_optim_nblock(const sq_param_list *l);
void sq_optim_blocks(const sq_param_list *l, sq_optim_block *b);
typedef struct {
  const sq_adamw *o;
  const sq_param_list *params;
  double lr, ssm_lr, clip, bias1, bias2; /* 1 - beta^t */
} sq_optim_step;
double sq_optim_squares(const sq_param_list *l, const sq_optim_block *b, const sq_real *g);
/* Step t, from the gradient's norm. */
sq_optim_step sq_optim_begin(const sq_adamw *o, const sq_param_list *l, double lr, double ssm_lr, long t,
                             double norm);
void sq_optim_update(const sq_optim_step *s, const sq_optim_block *b, const sq_real *g, sq_real *m,
                     sq_real *v, sq_real *theta);

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
/* A checkpoint of this model without its data. */
sq_train_state sq_train_state_shape(const sq_model *m);
