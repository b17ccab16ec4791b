/* src/train/parts.c: the gradient vector in stretches, and the members' parts of them.
 *
 * The parameters follow each other as the layers do, so what the backward pass has done with is the end of the vector. */
#include <string.h>

#include "train_impl.h"

/* Numbers of a stretch: below, its exchanges take about as long as their start, and layers are put together. */
#define STRETCH_MIN ((size_t)1 << 15)

/* Numbers of either kind in front of what is complete when the pass has left this layer. */
static size_t theta_before(const sq_model *m, int layer)
{
  return layer < 0 ? 0 : sq_model_layer_start(m, layer);
}
static size_t derived_before(const sq_model *m, int layer)
{
  const size_t total = sq_model_params(m)->total;
  return layer < 0                     ? total
         : layer == sq_model_nlayer(m) ? sq_model_ngradient(m)
         : sq_model_nderived(m) > 0    ? total + sq_model_derived_range(m, layer).first
                                       : total;
}

/* A half of a range ends at most one block, or one derived part, behind its middle. */
static size_t room_for(const sq_model *m, size_t n, int layer)
{
  const size_t part = layer < 0 ? 0 : sq_model_part_start(m, layer, 1) - sq_model_part_start(m, layer, 0);
  const size_t half = n / 2 + (part > SQ_OPTIM_BLOCK ? part : SQ_OPTIM_BLOCK) + 256;
  return half < n ? half : n;
}

int sq_parts_derived(const sq_model *m, int layer, int team, int part)
{
  return sq_model_nparts(m, layer) * part / team;
}

/* See sq_stretch. */
static int divided_layer(const sq_model *m, size_t first, size_t count)
{
  for (int i = 0; i < sq_model_nlayer(m); ++i) {
    const sq_range r = sq_model_derived_range(m, i);
    const size_t at = sq_model_params(m)->total + r.first;
    if (sq_model_nparts(m, i) > 0 && at == first && r.count <= count && count < r.count + 16) return i;
  }
  return -1;
}

/* Into s, unless that is NULL; returns how many there are. */
static int cut(const sq_model *m, sq_stretch *s, size_t *room)
{
  size_t theta = sq_model_params(m)->total, derived = sq_model_ngradient(m);
  int n = 0;
  for (int layer = sq_model_nlayer(m); layer >= -1; --layer) {
    const size_t t = theta_before(m, layer), d = derived_before(m, layer);
    if (layer >= 0 && theta - t + derived - d < STRETCH_MIN) continue;
    const size_t range[2][2] = {{t, theta - t}, {d, derived - d}};
    const int divided = divided_layer(m, d, derived - d);
    for (int k = 0; k < 2; ++k) {
      const size_t need = room_for(m, range[k][1], k == 0 ? -1 : divided);
      if (need > *room) *room = need;
    }
    if (s != NULL) {
      s[n].layer = layer;
      s[n].derived = divided;
      memcpy(s[n].range, range, sizeof range);
    }
    ++n;
    theta = t;
    derived = d;
  }
  return n;
}

void sq_parts_take(sq_arena *a, const sq_model *m, int team, int nblock, sq_parts *p)
{
  const size_t nbound = (size_t)team + 1;
  p->room = 0;
  p->nstretch = cut(m, NULL, &p->room);
  p->stretch = SQ_TAKE(a, p->nstretch, sq_stretch);
  for (int s = 0; s < p->nstretch; ++s)
    for (int k = 0; k < 2; ++k) {
      size_t *bound = SQ_TAKE(a, nbound, size_t);
      if (p->stretch != NULL) p->stretch[s].bound[k] = bound;
    }
  p->mine = SQ_TAKE(a, nblock, int);
  p->first = SQ_TAKE(a, nbound, size_t);
}

/* First block from number `at` of theta on. */
static int block_from(int nblock, const sq_optim_block *block, size_t at)
{
  int lo = 0, hi = nblock;
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    if (block[mid].first < at)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static size_t start_of(const sq_stretch *s, int team, int part, int nblock, const sq_optim_block *block)
{
  const size_t end = s->range[0][0] + s->range[0][1];
  if (part == 0) return s->range[0][0];
  if (part == team) return end;
  const int b = block_from(nblock, block, s->range[0][0] + s->range[0][1] / (size_t)team * (size_t)part);
  return b < nblock && block[b].first < end ? block[b].first : end;
}

/* Derived quantities belong to no block: whole parts, or even ones of whole cache lines. */
static size_t derived_start(const sq_model *m, const sq_stretch *s, int team, int part)
{
  if (part == team) return s->range[1][0] + s->range[1][1];
  if (s->derived >= 0)
    return sq_model_params(m)->total +
           sq_model_part_start(m, s->derived, sq_parts_derived(m, s->derived, team, part));
  return s->range[1][0] + s->range[1][1] / 16 * (size_t)part / (size_t)team * 16;
}

static void set_bounds(const sq_model *m, int team, int nblock, const sq_optim_block *block, sq_parts *p)
{
  cut(m, p->stretch, &p->room);
  for (int s = 0; s < p->nstretch; ++s) {
    sq_stretch *x = &p->stretch[s];
    for (int i = 0; i <= team; ++i) {
      x->bound[0][i] = start_of(x, team, i, nblock, block);
      x->bound[1][i] = derived_start(m, x, team, i);
    }
    for (int k = 0; k < 2 && team > 1; ++k) {
      const size_t *b = x->bound[k];
      SQ_ASSERT(b[team / 2] - b[0] <= p->room && b[team] - b[team / 2] <= p->room);
    }
  }
}

void sq_parts_set(const sq_model *m, int team, int nblock, const sq_optim_block *block, int whole,
                  sq_parts *p)
{
  int n = 0;
  set_bounds(m, team, nblock, block, p);
  if (whole) {
    for (int b = 0; b < nblock; ++b) p->mine[b] = b;
    p->first[0] = 0;
    p->first[1] = (size_t)nblock;
    return;
  }
  for (int part = 0; part < team; ++part) {
    p->first[part] = (size_t)n;
    for (int s = 0; s < p->nstretch; ++s) {
      const size_t *bound = p->stretch[s].bound[0] + part;
      const int end = block_from(nblock, block, bound[1]);
      for (int b = block_from(nblock, block, bound[0]); b < end; ++b) p->mine[n++] = b;
    }
  }
  p->first[team] = (size_t)n;
  SQ_ASSERT(n == nblock);
}
