/* src/mixer/mixer_impl.h: what the files of this module share.
 *
 * Each family completes `struct sq_mixer` for itself, with a struct sq_mixer_head as its first member. */
#pragma once

#include <string.h>

#include "sq/mixer.h"

#define SQ_MIXER(name) extern const sq_mixer_ops sq_mixer_##name;
#include "mixer_list.h"
#undef SQ_MIXER

/* Sum of a[j] b[j].  Sixteen partial sums: compilers may not reorder a plain sum, so only this form is
 * vectorised. */
static inline sq_real sq_lane_dot(int n, const sq_real *restrict a, const sq_real *restrict b)
{
  sq_real lane[16] = {0}, sum = 0;
  int j = 0;
  for (; j + 16 <= n; j += 16)
    for (int l = 0; l < 16; ++l) lane[l] += a[j + l] * b[j + l];
  for (int l = 0; l < 16; ++l) sum += lane[l];
  for (; j < n; ++j) sum += a[j] * b[j];
  return sum;
}

/* In x (R,n), row stride ld: the wanted rows one after the other in front, over what was there. */
static inline void sq_keep_rows(const sq_wanted *wanted, int n, sq_real *x, int ld)
{
  for (int k = 0; k < wanted->n; ++k) /* row[k] >= k: nothing is overwritten before it is read */
    if (wanted->row[k] != k)
      memcpy(x + (size_t)k * (size_t)ld, x + (size_t)wanted->row[k] * (size_t)ld, (size_t)n * sizeof *x);
}

/* Back in their places, zeros between them. */
static inline void sq_spread_rows(int R, const sq_wanted *wanted, int n, sq_real *x, int ld)
{
  for (int r = R - 1, k = wanted->n - 1; r >= 0; --r) {
    sq_real *to = x + (size_t)r * (size_t)ld;
    if (k < 0 || wanted->row[k] != r)
      memset(to, 0, (size_t)n * sizeof *x);
    else if (k-- != r)
      memcpy(to, x + (size_t)(k + 1) * (size_t)ld, (size_t)n * sizeof *x);
  }
}

static inline sq_real sq_lane_sum(int n, const sq_real *a)
{
  sq_real lane[16] = {0}, sum = 0;
  int j = 0;
  for (; j + 16 <= n; j += 16)
    for (int l = 0; l < 16; ++l) lane[l] += a[j + l];
  for (int l = 0; l < 16; ++l) sum += lane[l];
  for (; j < n; ++j) sum += a[j];
  return sum;
}
