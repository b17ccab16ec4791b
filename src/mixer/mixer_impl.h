/* src/mixer/mixer_impl.h: what the files of this module share.
 *
 * Each family completes `struct sq_mixer` for itself, with a struct sq_mixer_head as its first member. */
#pragma once

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
