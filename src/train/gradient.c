/* src/train/gradient.c: gradients and sums of a batch over the fixed partition of sq/batch.h.
 *
 * The tree is walked depth first, so that the right half at each level needs one vector and the left half
 * writes where the sum goes: 1 + log2(8) vectors for eight shards.  Where statistics couple the shards, each
 * backward segment is a walk of its own over the ranges of the vector that it writes.  Adding a right half also zeroes it for
 * its next use, which saves the pass over memory of a separate memset. */
#include <stdlib.h>
#include <string.h>

#include "sq/simd.h"
#include "train_impl.h"

struct sq_worker {
  const sq_model *model; /* borrowed */
  sq_arena arena;        /* owned */
  sq_tree tree;
  int nshard_work; /* 1, or SQ_MAX_SHARDS where sequences are coupled: all shards are then under way at once */
  int *off;        /* (nshard_work, sequences of a shard + 1) */
  sq_real *derived; /* (sq_model_nderived) */
  void *work;       /* sq_model_work_bytes: of one shard alone; also shard_work[0] */
  void *shard_work[SQ_MAX_SHARDS];
  double *sum[SQ_MAX_SHARDS], *total; /* (sq_model_nsum) each */
  /* The call in progress, for the leaves. */
  const sq_real *theta;
  const sq_batch *batch;
  sq_pass pass;
  double scale;
  int segment;
  sq_tally tally[SQ_MAX_SHARDS];
};

SQ_CLONES
static void add_and_zero(size_t n, sq_real *restrict sum, sq_real *restrict x)
{
  for (size_t i = 0; i < n; ++i) {
    sum[i] += x[i];
    x[i] = 0;
  }
}

/* Shards first .. first + 2^level - 1 into out, which is zero in the ranges. */
static void tree_walk(const sq_tree *t, int first, int level, sq_real *out)
{
  if (level == 0) {
    t->leaf(t->user, first, out);
    return;
  }
  const int right = first + (1 << (level - 1));
  tree_walk(t, first, level - 1, out);
  if (right >= t->nshard) return;
  tree_walk(t, right, level - 1, t->buffer[level - 1]);
  for (int r = 0; r < t->nrange; ++r)
    add_and_zero(t->range[r][1], out + t->range[r][0], t->buffer[level - 1] + t->range[r][0]);
}

void sq_tree_add(const sq_tree *t, sq_real *out)
{
  tree_walk(t, 0, SQ_TREE_BUFFERS, out);
}

double sq_tree_sum_double(int nshard, double *value)
{
  for (int stride = 1; stride < nshard; stride *= 2) {
    for (int s = 0; s + stride < nshard; s += 2 * stride) value[s] += value[s + stride];
  }
  return value[0];
}

/* A sequence has at least one row, so max_rows bounds the sequences of a shard too. */
static size_t off_count(const sq_model *m)
{
  return (size_t)sq_mixer_shape(sq_model_mixer(m, 0)).max_rows + 1;
}

static void worker_take(sq_arena *a, const sq_model *m, sq_worker *w)
{
  const size_t nsum = (size_t)sq_model_nsum(m);
  w->nshard_work = sq_model_nsync(m) > 0 ? SQ_MAX_SHARDS : 1;
  for (int l = 0; l < SQ_TREE_BUFFERS; ++l) w->tree.buffer[l] = SQ_TAKE(a, sq_model_ngradient(m), sq_real);
  w->off = SQ_TAKE(a, (size_t)w->nshard_work * off_count(m), int);
  w->derived = SQ_TAKE(a, sq_model_nderived(m), sq_real);
  w->work = sq_arena_take(a, sq_model_work_bytes(m), 1);
  for (int s = 1; s < w->nshard_work; ++s) w->shard_work[s] = sq_arena_take(a, sq_model_shard_bytes(m), 1);
  for (int s = 0; s < w->nshard_work; ++s) w->sum[s] = SQ_TAKE(a, nsum, double);
  w->total = SQ_TAKE(a, nsum, double);
  if (w->work != NULL) w->shard_work[0] = sq_model_shard_work(m, w->work);
}

size_t sq_worker_bytes(const sq_model *m)
{
  sq_arena count = {0};
  sq_worker w = {0};
  worker_take(&count, m, &w);
  return count.used;
}

/* Segment w->segment of shard s; gradient: NULL in forward segments. */
static void run_segment(sq_worker *w, int s, sq_real *gradient)
{
  const int slot = w->nshard_work > 1 ? s : 0;
  const sq_batch shard = sq_batch_shard(w->batch, s, w->off + (size_t)slot * off_count(w->model));
  w->pass.rows = &shard.rows;
  w->pass.dderived = gradient != NULL ? gradient + sq_model_params(w->model)->total : NULL;
  sq_model_segment(w->model, w->theta, &shard, &w->pass, w->scale, w->segment, w->sum[slot],
                   w->shard_work[slot], gradient, &w->tally[s]);
}

static void gradient_leaf(void *user, int s, sq_real *out)
{
  run_segment(user, s, out);
}

sq_status sq_worker_create(const sq_model *m, sq_worker **out)
{
  sq_status st = SQ_OK;
  sq_worker *w = *out = sq_calloc(1, sizeof *w, "worker");
  if (w == NULL) return SQ_ERR_MEMORY;
  w->model = m;
  SQ_TRY(sq_arena_create(&w->arena, sq_worker_bytes(m), "gradients and activations of a shard"));
  worker_take(&w->arena, m, w); /* zero, as the tree's buffers must be */
  w->tree.leaf = gradient_leaf;
  w->tree.user = w;
done:
  if (st != SQ_OK) sq_worker_destroy(out);
  return st;
}

void sq_worker_destroy(sq_worker **w)
{
  if (*w == NULL) return;
  sq_arena_destroy(&(*w)->arena);
  free(*w);
  *w = NULL;
}

void *sq_worker_work(sq_worker *w)
{
  return w->work;
}

static sq_tally tally_sum(int nshard, const sq_tally *t)
{
  double loss[SQ_MAX_SHARDS];
  sq_tally sum = {0};
  for (int s = 0; s < nshard; ++s) {
    loss[s] = t[s].loss_sum;
    sum.nlabel += t[s].nlabel;
    sum.ncorrect += t[s].ncorrect;
  }
  sum.loss_sum = sq_tree_sum_double(nshard, loss);
  return sum;
}

static void begin(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p)
{
  w->theta = theta;
  w->batch = b;
  w->pass = *p;
  w->pass.derived = w->derived;
  w->scale = sq_batch_scale(b);
  w->tree.nshard = sq_shard_count(sq_batch_examples(b));
  for (int s = 0; s < w->tree.nshard; ++s) w->tally[s] = (sq_tally){0};
  sq_model_derive(w->model, theta, w->derived, w->shard_work[0]);
}

/* The shards' sums in the order of the tree, handed to all of them. */
static void share_sums(sq_worker *w)
{
  double part[SQ_MAX_SHARDS];
  const int nsum = sq_model_nsum(w->model), nshard = w->tree.nshard;

  for (int i = 0; i < nsum; ++i) {
    for (int s = 0; s < nshard; ++s) part[s] = w->sum[s][i];
    w->total[i] = sq_tree_sum_double(nshard, part);
  }
  for (int s = 0; s < nshard; ++s) memcpy(w->sum[s], w->total, (size_t)nsum * sizeof *w->total);
}

void sq_batch_gradient(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p, sq_real *grad,
                       sq_tally *tally)
{
  const int nsync = p->train ? sq_model_nsync(w->model) : 0;

  begin(w, theta, b, p);
  memset(grad, 0, sq_model_ngradient(w->model) * sizeof *grad);
  for (w->segment = 0; w->segment < nsync; ++w->segment) {
    for (int s = 0; s < w->tree.nshard; ++s) run_segment(w, s, NULL);
    share_sums(w);
    sq_model_statistics(w->model, w->segment, w->total, grad);
  }
  for (; w->segment <= 2 * nsync; ++w->segment) {
    w->tree.nrange = sq_model_segment_ranges(w->model, w->segment, w->tree.range);
    sq_tree_add(&w->tree, grad);
    if (w->segment < 2 * nsync) share_sums(w);
  }
  sq_model_derive_back(w->model, theta, w->derived, grad, w->shard_work[0]);
  *tally = tally_sum(w->tree.nshard, w->tally);
}

void sq_batch_evaluate(sq_worker *w, const sq_real *theta, const sq_batch *b, sq_tally *tally)
{
  const sq_pass evaluation = {.train = 0};

  begin(w, theta, b, &evaluation);
  w->segment = 0;
  for (int s = 0; s < w->tree.nshard; ++s) run_segment(w, s, NULL);
  *tally = tally_sum(w->tree.nshard, w->tally);
}
