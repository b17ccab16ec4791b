/* src/train/gradient.c: gradients and sums of a batch over the fixed partition of sq/batch.h.
 *
 * The tree is walked depth first, so that the right half at each level needs one vector and the left half
 * writes where the sum goes: 1 + log2(8) vectors for eight shards.  Adding a right half also zeroes it for
 * its next use, which saves the pass over memory of a separate memset. */
#include <stdlib.h>
#include <string.h>

#include "sq/simd.h"
#include "train_impl.h"

struct sq_worker {
  const sq_model *model; /* borrowed */
  size_t total;
  sq_arena arena; /* owned */
  sq_tree tree;
  int *off; /* (sequences of a shard + 1) */
  void *work;
  /* The call in progress, for the leaves. */
  const sq_real *theta;
  const sq_batch *batch;
  sq_pass pass;
  double scale;
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

/* Shards first .. first + 2^level - 1 into out, which is zero. */
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
  add_and_zero(t->n, out, t->buffer[level - 1]);
}

void sq_tree_sum(const sq_tree *t, sq_real *out)
{
  memset(out, 0, t->n * sizeof *out);
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
static void worker_take(sq_arena *a, const sq_model *m, sq_worker *w)
{
  const size_t max_rows = (size_t)sq_mixer_shape(sq_model_mixer(m, 0)).max_rows;
  for (int l = 0; l < SQ_TREE_BUFFERS; ++l)
    w->tree.buffer[l] = SQ_TAKE(a, sq_model_params(m)->total, sq_real);
  w->off = SQ_TAKE(a, max_rows + 1, int);
  w->work = sq_arena_take(a, sq_model_work_bytes(m), 1);
}

size_t sq_worker_bytes(const sq_model *m)
{
  sq_arena count = {0};
  sq_worker w;
  worker_take(&count, m, &w);
  return count.used;
}

static void gradient_leaf(void *user, int s, sq_real *out)
{
  sq_worker *w = user;
  const sq_batch shard = sq_batch_shard(w->batch, s, w->off);
  w->pass.rows = &shard.rows;
  w->tally[s] = (sq_tally){0};
  sq_model_gradient(w->model, w->theta, &shard, &w->pass, w->scale, w->work, out, &w->tally[s]);
}

sq_status sq_worker_create(const sq_model *m, sq_worker **out)
{
  sq_status st = SQ_OK;
  sq_worker *w = *out = sq_calloc(1, sizeof *w, "worker");
  if (w == NULL) return SQ_ERR_MEMORY;
  w->model = m;
  SQ_TRY(sq_arena_create(&w->arena, sq_worker_bytes(m), "gradients and activations of a shard"));
  worker_take(&w->arena, m, w);
  w->tree.n = sq_model_params(m)->total;
  w->tree.leaf = gradient_leaf;
  w->tree.user = w;
  for (int l = 0; l < SQ_TREE_BUFFERS; ++l) memset(w->tree.buffer[l], 0, w->tree.n * sizeof(sq_real));
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

void sq_batch_gradient(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p, sq_real *grad,
                       sq_tally *tally)
{
  const long nlabel = sq_batch_labels(b);
  w->theta = theta;
  w->batch = b;
  w->pass = *p;
  w->scale = nlabel > 0 ? 1 / (double)nlabel : 0;
  w->tree.nshard = sq_shard_count(b->rows.nseq);
  sq_tree_sum(&w->tree, grad);
  *tally = tally_sum(w->tree.nshard, w->tally);
}

void sq_batch_evaluate(sq_worker *w, const sq_real *theta, const sq_batch *b, sq_tally *tally)
{
  const int nshard = sq_shard_count(b->rows.nseq);
  for (int s = 0; s < nshard; ++s) {
    const sq_batch shard = sq_batch_shard(b, s, w->off);
    w->tally[s] = (sq_tally){0};
    sq_model_evaluate(w->model, theta, &shard, w->work, &w->tally[s]);
  }
  *tally = tally_sum(nshard, w->tally);
}
