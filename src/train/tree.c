/* src/train/tree.c: sums over the shards of a batch in the order that sq/batch.h says.
 *
 * The tree is walked depth first, so that the right half at each level needs one vector and the left half
 * writes where the sum goes.  Adding a right half also zeroes it for its next use, which saves the pass over memory
 * of a separate memset. */
#include "sq/simd.h"
#include "train_impl.h"

SQ_CLONES void sq_tree_join(size_t n, sq_real *restrict sum, sq_real *restrict x)
{
  for (size_t i = 0; i < n; ++i) {
    sum[i] += x[i];
    x[i] = 0;
  }
}

void sq_tree_add_node(const sq_tree *t, int first, int level, sq_real *out)
{
  if (level == 0) {
    t->leaf(t->user, first, out);
    return;
  }
  const int right = first + (1 << (level - 1));
  sq_tree_add_node(t, first, level - 1, out);
  if (right >= t->nshard) return;
  sq_tree_add_node(t, right, level - 1, t->buffer[level - 1]);
  for (int r = 0; r < t->nrange; ++r)
    sq_tree_join(t->range[r][1], out + t->range[r][0], t->buffer[level - 1] + t->range[r][0]);
}

void sq_tree_add_early(const sq_tree *t, int first, int level, size_t at, size_t n, sq_real *out)
{
  if (level == 0) return;
  const int right = first + (1 << (level - 1));
  if (right >= t->nshard) {
    sq_tree_add_early(t, first, level - 1, at, n, out);
    return;
  }
  sq_tree_add_early(t, right, level - 1, at, n, t->buffer[level - 1]);
  sq_tree_join(n, out + at, t->buffer[level - 1] + at);
}

void sq_tree_add(const sq_tree *t, sq_real *out)
{
  sq_tree_add_node(t, 0, sq_tree_levels(t->nshard), out);
}

double sq_tree_sum_double(int nshard, double *value)
{
  for (int stride = 1; stride < nshard; stride *= 2) {
    for (int s = 0; s + stride < nshard; s += 2 * stride) value[s] += value[s + stride];
  }
  return value[0];
}

int sq_tree_levels(int nshard)
{
  int l = 0;
  while (1 << l < nshard) ++l;
  return l;
}
