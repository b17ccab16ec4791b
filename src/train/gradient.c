/* src/train/gradient.c: gradients and sums of a batch over the fixed partition of sq/batch.h, by the threads of the
 * members of a team.
 *
 * A member has a node of the tree over the shards, and groups of its threads the nodes below it, each with a vector
 * for its sum, vectors for the right halves below and an area for activations.  Groups' sums are joined in the order
 * of the tree, then those of the members.  Where there are more threads than groups they help inside a shard.
 *
 * Where statistics couple the shards, all of a member's are under way at once, and each segment is a walk of its own
 * over the ranges of the vector that it writes.
 *
 * The vector is complete stretch by stretch (parts.c), from its end to its start.  When the last shard of every group
 * has left the layers of a stretch, the groups join their sums of it, a strip at a time by whoever comes by, and
 * the members add theirs in the background while the pass goes on.  Only the thread that leads the first group talks
 * to the other members.
 *
 * A long vector ends up in parts, one a member; the members update their parts of theta and give each other the
 * results.  Moments then exist once in a team.  A short vector is summed whole and every member updates all of theta:
 * fewer messages, and less work than waiting for them. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "sq/parallel.h"
#include "train_impl.h"

/* Numbers from which the vector is summed in parts: below, an exchange takes about as long as its start. */
#define PARTS_FROM ((size_t)1 << 15)
/* Derived numbers of a layer from which they are made once in a team. */
#define DERIVE_FOR_ALL_FROM ((size_t)1 << 15)
/* Elements of one block of work on whole vectors. */
#define STRIP ((size_t)1 << 16)

typedef struct {
  sq_worker *w;
  sq_tree tree;
  sq_real *out; /* NULL in the first group: its sum goes where the caller wants it */
} group;

typedef struct { /* room for a shard that is under way */
  void *work;
  int *off;    /* (sequences of a shard + 1) */
  double *sum; /* (sq_model_nsum) */
} area;

typedef struct {                    /* how far a stretch is */
  atomic_int arrived, next, joined; /* groups that have done with it; its strips: begun, done */
} joining;

struct sq_worker {
  const sq_model *model; /* borrowed */
  sq_crew crew;
  sq_arena arena; /* owned */
  int team_bits, group_bits, narea, coupled;
  group group[SQ_MAX_SHARDS];
  area area[SQ_MAX_SHARDS]; /* one a group, or one a shard where sequences are coupled */
  sq_real *derived;         /* (sq_model_nderived) */
  void *work;               /* sq_model_work_bytes: of one shard alone; area[0] is in it */
  double *total;            /* (sq_model_nsum) */
  int nblock;
  sq_optim_block *block; /* (nblock) */
  double *squares;       /* (nblock) */
  double *of_mine;       /* (nblock) the same in the order of parts.mine */
  sq_parts parts;
  joining *joining;  /* (stretches) */
  void *piece;       /* of an exchange */
  sq_real *incoming; /* (parts.room) */
  /* The call in progress. */
  const sq_real *theta;
  const sq_batch *batch;
  sq_pass pass;
  sq_real *grad;
  double scale;
  int segment, nshard, first, nmine, level,
      depth;                     /* first, nmine: this member's shards; 2^depth of a group */
  int stretch, range, under_way; /* whose turn it is to be added up over the team; the scatter has begun */
  sq_team_scatter scatter;
  sq_optim_step step;
  const sq_real *g;
  sq_real *m, *v, *update;
  sq_tally tally[SQ_MAX_SHARDS];
};

static int team_size(const sq_crew *c)
{
  return c->team != NULL ? c->team->size : 1;
}

static int team_rank(const sq_crew *c)
{
  return c->team != NULL ? c->team->rank : 0;
}

/* floor(log2(n)) */
static int bits_of(int n)
{
  int b = 0;
  while (n >> (b + 1) > 0) ++b;
  return b;
}

/* ---- memory ------------------------------------------------------------------------------------------ */

/* A sequence has at least one row, so max_rows bounds the sequences of a shard too. */
static size_t off_count(const sq_model *m)
{
  return (size_t)sq_mixer_shape(sq_model_mixer(m, 0)).max_rows + 1;
}

static void take_groups(sq_arena *a, const sq_model *m, int level, int ngroup, sq_worker *w)
{
  const size_t n = sq_model_ngradient(m);
  for (int g = 0; g < ngroup; ++g) {
    w->group[g].w = w;
    if (g > 0) w->group[g].out = SQ_TAKE(a, n, sq_real);
    for (int l = 0; l < level - w->group_bits; ++l) w->group[g].tree.buffer[l] = SQ_TAKE(a, n, sq_real);
  }
}

static void take_areas(sq_arena *a, const sq_model *m, sq_worker *w)
{
  w->work = sq_arena_take(a, sq_model_work_bytes(m), 1);
  for (int i = 0; i < w->narea; ++i) {
    area *r = &w->area[i];
    if (i > 0)
      r->work = sq_arena_take(a, sq_model_shard_bytes(m), 1);
    else if (w->work != NULL)
      r->work = sq_model_shard_work(m, w->work);
    r->off = SQ_TAKE(a, off_count(m), int);
    r->sum = SQ_TAKE(a, (size_t)sq_model_nsum(m), double);
  }
}

static void worker_take(sq_arena *a, const sq_model *m, int nshard, const sq_crew *crew, sq_worker *w)
{
  const int team = team_size(crew), levels = sq_tree_levels(nshard);
  w->crew = *crew;
  w->team_bits = bits_of(team);
  const int level = levels > w->team_bits ? levels - w->team_bits : 0;
  w->group_bits = sq_min(bits_of(crew->threads), level);
  w->coupled = sq_model_nsync(m) > 0;
  const int ngroup = sq_min(1 << w->group_bits, nshard);
  w->narea = w->coupled ? sq_min(1 << level, nshard) : ngroup;
  take_groups(a, m, level, ngroup, w);
  take_areas(a, m, w);
  w->derived = SQ_TAKE(a, sq_model_nderived(m), sq_real);
  w->total = SQ_TAKE(a, (size_t)sq_model_nsum(m), double);
  w->nblock = sq_optim_nblock(sq_model_params(m));
  w->block = SQ_TAKE(a, (size_t)w->nblock, sq_optim_block);
  w->squares = SQ_TAKE(a, (size_t)w->nblock, double);
  w->of_mine = SQ_TAKE(a, (size_t)w->nblock, double);
  sq_parts_take(a, m, team, w->nblock, &w->parts);
  w->joining = SQ_TAKE(a, (size_t)w->parts.nstretch, joining);
  if (team == 1) return;
  w->piece = SQ_TAKE(a, SQ_PIECE, double);
  w->incoming = SQ_TAKE(a, w->parts.room, sq_real);
}

static const sq_crew alone = {.threads = 1};

size_t sq_worker_bytes(const sq_model *m, int nshard, const sq_crew *crew)
{
  sq_arena count = {0};
  sq_worker w = {0};
  worker_take(&count, m, nshard, crew != NULL ? crew : &alone, &w);
  return count.used;
}

static int in_parts(const sq_worker *w)
{
  return team_size(&w->crew) > 1 && sq_model_ngradient(w->model) >= PARTS_FROM;
}

static void gradient_leaf(void *user, int s, sq_real *out);

sq_status sq_worker_create(const sq_model *m, int nshard, const sq_crew *crew, sq_worker **out)
{
  sq_status st = SQ_OK;
  sq_worker *w = *out = sq_calloc(1, sizeof *w, "worker");
  if (w == NULL) return SQ_ERR_MEMORY;
  if (crew == NULL) crew = &alone;
  SQ_ASSERT(crew->threads >= 1 && 1 <= nshard && nshard <= SQ_MAX_SHARDS);
  w->model = m;
  SQ_TRY(
      sq_arena_create(&w->arena, sq_worker_bytes(m, nshard, crew), "gradients and activations of a shard"));
  worker_take(&w->arena, m, nshard, crew, w); /* zero, as the tree's buffers must be */
  for (int g = 0; g < SQ_MAX_SHARDS; ++g) {
    w->group[g].tree.leaf = gradient_leaf;
    w->group[g].tree.user = &w->group[g];
  }
  sq_optim_blocks(sq_model_params(m), w->block);
  sq_parts_set(m, team_size(crew), w->nblock, w->block, !in_parts(w), &w->parts);
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

/* ---- shards ------------------------------------------------------------------------------------------ */

static int group_first(const sq_worker *w, int g)
{
  return w->first + (g << w->depth);
}

/* The shard behind the group's last. */
static int group_end(const sq_worker *w, int g)
{
  return sq_min(group_first(w, g + 1), w->first + w->nmine);
}

/* Groups that have a shard. */
static int ngroup(const sq_worker *w)
{
  return (w->nmine + (1 << w->depth) - 1) >> w->depth;
}

static int overlaps(const sq_worker *w)
{
  return in_parts(w) && w->crew.team->overlap;
}

static void progress(void *user, int layer);

/* Segment w->segment of shard s of group g, in room r; gradient: NULL in forward segments. */
static void run_segment(sq_worker *w, int g, int s, area *r, sq_real *gradient)
{
  const sq_batch shard = sq_batch_shard(w->batch, s, r->off);
  sq_pass pass = w->pass;
  if (gradient != NULL && overlaps(w) && (w->coupled ? g == 0 : s + 1 == group_end(w, g))) {
    pass.progress = progress;
    pass.progress_user = &w->group[g];
  }
  pass.rows = &shard.rows;
  pass.dderived = gradient != NULL ? gradient + sq_model_params(w->model)->total : NULL;
  sq_model_segment(w->model, w->theta, &shard, &pass, w->scale, w->segment, r->sum, r->work, gradient,
                   &w->tally[s]);
}

static area *area_of(sq_worker *w, int g, int s)
{
  return &w->area[w->coupled ? s - w->first : g];
}

static void gradient_leaf(void *user, int s, sq_real *out)
{
  sq_worker *w = ((group *)user)->w;
  const int g = (int)((group *)user - w->group);
  run_segment(w, g, s, area_of(w, g, s), out);
}

static void forward_group(void *ctx, int g)
{
  sq_worker *w = ctx;
  for (int s = group_first(w, g); s < group_end(w, g); ++s) run_segment(w, g, s, area_of(w, g, s), NULL);
}

/* A group's sum. */
static sq_real *group_out(const sq_worker *w, int g)
{
  return g == 0 ? w->grad : w->group[g].out;
}

/* The range of stretch s in the vector: k = 0 of theta, 1 of derived quantities. */
static const size_t *range_of(const sq_worker *w, int s, int k)
{
  return w->parts.stretch[s].range[k];
}

/* Stretches that end before the pass does, in a group whose last shard has left their layers. */
static void complete_early(group *p, int s)
{
  sq_worker *w = p->w;
  const int g = (int)(p - w->group);
  for (int k = 0; k < 2; ++k) {
    const size_t *r = range_of(w, s, k);
    if (r[1] > 0) sq_tree_add_early(&p->tree, group_first(w, g), w->depth, r[0], r[1], group_out(w, g));
    p->tree.range[k][1] -= r[1]; /* it is the end of what is left */
  }
  atomic_fetch_add(&w->joining[s].arrived, 1);
}

/* The whole vector as two ranges, from which stretches are taken. */
static void whole_ranges(const sq_worker *w, size_t range[2][2])
{
  const size_t total = sq_model_params(w->model)->total;
  range[0][0] = 0;
  range[0][1] = range[1][0] = total;
  range[1][1] = sq_model_nderived(w->model);
}

static void backward_group(void *ctx, int g)
{
  sq_worker *w = ctx;
  group *p = &w->group[g];
  p->tree.nshard = w->nshard;
  p->tree.nrange = 2;
  if (w->coupled)
    p->tree.nrange = sq_model_segment_ranges(w->model, w->segment, p->tree.range);
  else
    whole_ranges(w, p->tree.range);
  sq_tree_add_node(&p->tree, group_first(w, g), w->depth, group_out(w, g));
}

/* ---- work on whole vectors --------------------------------------------------------------------------- */

typedef struct {
  sq_worker *w;
  int nblock;
  sq_block_fn run;
} strips;

static void run_alone(void *ctx, int g)
{
  const strips *s = ctx;
  (void)g;
  sq_parallel_blocks(s->nblock, s->run, s->w);
}

/* run(w, i) for i < nblock by all threads. */
static void by_all_threads(sq_worker *w, int nblock, sq_block_fn run)
{
  strips s = {w, nblock, run};
  if (nblock < 2)
    run_alone(&s, 0);
  else
    sq_parallel_groups(w->crew.threads, 1, run_alone, &s);
}

static size_t strip_count(size_t n, int i)
{
  const size_t first = (size_t)i * STRIP;
  return n - first < STRIP ? n - first : STRIP;
}

static int nstrip(size_t n)
{
  return (int)((n + STRIP - 1) / STRIP);
}

static void zero_strip(void *ctx, int i)
{
  sq_worker *w = ctx;
  memset(w->grad + (size_t)i * STRIP, 0, strip_count(sq_model_ngradient(w->model), i) * sizeof *w->grad);
}

/* ---- stretches: the groups' sums joined, then the members' ------------------------------------------- */

static int nstrip_of(const sq_worker *w, int s)
{
  return nstrip(range_of(w, s, 0)[1]) + nstrip(range_of(w, s, 1)[1]);
}

/* The groups' sums of strip i of stretch s, in the order of the tree. */
static void join_strip(sq_worker *w, int s, int i)
{
  const int n = nstrip(range_of(w, s, 0)[1]), k = i < n ? 0 : 1, at = k == 0 ? i : i - n, count = ngroup(w);
  const size_t first = range_of(w, s, k)[0] + (size_t)at * STRIP,
               size = strip_count(range_of(w, s, k)[1], at);
  for (int stride = 1; stride < count; stride *= 2)
    for (int g = 0; g + stride < count; g += 2 * stride)
      sq_tree_join(size, group_out(w, g) + first, group_out(w, g + stride) + first);
}

/* Strips of stretches that all groups have done with, until none is left to begin. */
static void join_strips(sq_worker *w)
{
  for (int s = 0; s < w->parts.nstretch; ++s) {
    joining *j = &w->joining[s];
    if (atomic_load(&j->arrived) < ngroup(w)) return;
    while (atomic_load(&j->next) < nstrip_of(w, s)) {
      const int i = atomic_fetch_add(&j->next, 1);
      if (i >= nstrip_of(w, s)) break;
      join_strip(w, s, i);
      atomic_fetch_add(&j->joined, 1);
    }
  }
}

static void join_by_thread(void *ctx, int i)
{
  (void)i;
  join_strips(ctx);
}

static int is_joined(const sq_worker *w, int s)
{
  const joining *j = &w->joining[s];
  return ngroup(w) == 0 ||
         (atomic_load(&j->arrived) == ngroup(w) && atomic_load(&j->joined) == nstrip_of(w, s));
}

static sq_team_tree tree_of(const sq_worker *w)
{
  return (sq_team_tree){.team = w->crew.team, .nshard = w->nshard, .level = w->level, .piece = w->piece};
}

/* Adds up stretches over the team as far as that goes without waiting, or all of them. */
static void add_stretches(sq_worker *w, int wait)
{
  const sq_team_tree tree = tree_of(w);
  while (w->stretch < w->parts.nstretch) {
    if (!w->under_way) {
      if (!is_joined(w, w->stretch)) return;
      sq_team_scatter_begin(&w->scatter, &tree, w->parts.stretch[w->stretch].bound[w->range], w->grad,
                            w->incoming);
      w->under_way = 1;
    }
    if (!sq_team_scatter_go_on(&w->scatter, wait)) return;
    w->under_way = 0;
    w->stretch += w->range;
    w->range = !w->range;
  }
}

/* From within the pass of a group's shard. */
static void progress(void *user, int layer)
{
  group *p = user;
  sq_worker *w = p->w;
  for (int s = 0; !w->coupled && layer >= 0 && s < w->parts.nstretch; ++s)
    if (w->parts.stretch[s].layer == layer) complete_early(p, s);
  if (!w->coupled) join_strips(w);
  if (p == w->group) add_stretches(w, 0);
}

/* No segment after this one writes stretch s. */
static int is_final(const sq_worker *w, int s, int nsync)
{
  for (int k = w->segment + 1; k <= 2 * nsync; ++k) {
    size_t range[2][2];
    const int n = sq_model_segment_ranges(w->model, k, range);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < 2; ++j) {
        const size_t *r = range_of(w, s, j);
        if (range[i][0] < r[0] + r[1] && r[0] < range[i][0] + range[i][1]) return 0;
      }
  }
  return 1;
}

static void backward(sq_worker *w, int nsync)
{
  sq_parallel_groups(w->crew.threads, ngroup(w), backward_group, w);
  for (int s = 0; s < w->parts.nstretch && is_final(w, s, nsync); ++s)
    atomic_store(&w->joining[s].arrived, ngroup(w));
  if (ngroup(w) > 1) by_all_threads(w, w->crew.threads, join_by_thread);
  if (overlaps(w)) add_stretches(w, 0);
}

static void begin_stretches(sq_worker *w)
{
  w->stretch = w->range = w->under_way = 0;
  for (int s = 0; s < w->parts.nstretch; ++s) {
    atomic_store(&w->joining[s].arrived, 0);
    atomic_store(&w->joining[s].next, ngroup(w) > 1 ? 0 : nstrip_of(w, s)); /* one group: nothing to join */
    atomic_store(&w->joining[s].joined, ngroup(w) > 1 ? 0 : nstrip_of(w, s));
  }
}

/* ---- the team ---------------------------------------------------------------------------------------- */

/* Sums of this member's shards in the order of the tree, then of the members', handed to all shards. */
static void share_sums(sq_worker *w)
{
  double part[SQ_MAX_SHARDS];
  const int nsum = sq_model_nsum(w->model);
  const sq_team_tree tree = tree_of(w);

  for (int i = 0; i < nsum; ++i) {
    for (int s = 0; s < w->nmine; ++s) part[s] = w->area[s].sum[i];
    w->total[i] = w->nmine > 0 ? sq_tree_sum_double(w->nmine, part) : 0;
  }
  sq_team_sum_double(&tree, (size_t)nsum, w->total);
  for (int s = 0; s < w->nmine; ++s) memcpy(w->area[s].sum, w->total, (size_t)nsum * sizeof *w->total);
}

static sq_tally tally_sum(const sq_worker *w)
{
  double loss[SQ_MAX_SHARDS], sum[3] = {0};
  const sq_team_tree tree = tree_of(w);

  for (int s = 0; s < w->nmine; ++s) {
    const sq_tally *t = &w->tally[w->first + s];
    loss[s] = t->loss_sum;
    sum[1] += (double)t->nlabel; /* counts: exact */
    sum[2] += (double)t->ncorrect;
  }
  if (w->nmine > 0) sum[0] = sq_tree_sum_double(w->nmine, loss);
  sq_team_sum_double(&tree, 3, sum);
  return (sq_tally){.loss_sum = sum[0], .nlabel = (long)sum[1], .ncorrect = (long)sum[2]};
}

static void sum_gradient(sq_worker *w)
{
  const sq_team_tree tree = tree_of(w);
  if (team_size(&w->crew) == 1) return;
  if (!in_parts(w)) {
    sq_team_sum(&tree, sq_model_ngradient(w->model), w->grad);
    return;
  }
  add_stretches(w, 1);
}

/* ---- derived quantities: layers are independent ------------------------------------------------------ */

/* The stretch whose second range is the layer's numbers, where each member makes the parts whose gradient it gets; NULL:
   they are few, and every member makes all of them. */
static const sq_stretch *divided(const sq_worker *w, int layer)
{
  if (sq_model_derived_range(w->model, layer).count < DERIVE_FOR_ALL_FROM || !in_parts(w)) return NULL;
  for (int s = 0; s < w->parts.nstretch; ++s)
    if (w->parts.stretch[s].derived == layer) return &w->parts.stretch[s];
  return NULL;
}

/* The parts that this member makes: first .. end-1. */
static void parts_made(const sq_worker *w, int layer, int *first, int *end)
{
  const int whole = divided(w, layer) == NULL, team = whole ? 1 : team_size(&w->crew);
  const int here = whole ? 0 : sq_team_part(w->crew.team);
  *first = sq_parts_derived(w->model, layer, team, here);
  *end = sq_parts_derived(w->model, layer, team, here + 1);
}

/* Layers of which this member makes something. */
static int layers_made(const sq_worker *w)
{
  int count = 0, first, end;
  for (int i = 0; i < sq_model_nlayer(w->model); ++i) {
    parts_made(w, i, &first, &end);
    count += first < end;
  }
  return count;
}

/* The areas serve as room, one a group of threads. */
static int derive_groups(const sq_worker *w)
{
  return sq_min(sq_min(w->narea, w->crew.threads), layers_made(w));
}

/* Every derive_groups()th layer of those that this member makes something of. */
static void derive_by_group(sq_worker *w, int g, int back)
{
  const int ngroups = derive_groups(w);
  for (int i = 0, k = 0, first, end; i < sq_model_nlayer(w->model); ++i) {
    parts_made(w, i, &first, &end);
    if (first >= end || k++ % ngroups != g) continue;
    if (back)
      sq_model_derive_layer_back(w->model, i, first, end, w->theta, w->derived, w->grad, w->area[g].work);
    else
      sq_model_derive_layer(w->model, i, first, end, w->theta, w->derived, w->area[g].work);
  }
}

static void derive_group(void *ctx, int g)
{
  derive_by_group(ctx, g, 0);
}

static void derive_group_back(void *ctx, int g)
{
  derive_by_group(ctx, g, 1);
}

static void derive(sq_worker *w)
{
  const size_t total = sq_model_params(w->model)->total;
  if (sq_model_nderived(w->model) == 0) return;
  sq_parallel_groups(w->crew.threads, derive_groups(w), derive_group, w);
  for (int i = 0; i < sq_model_nlayer(w->model); ++i) {
    const sq_stretch *s = divided(w, i);
    size_t bound[SQ_MAX_SHARDS + 1]; /* in the derived vector */
    if (s == NULL) continue;
    for (int k = 0; k <= w->crew.team->size; ++k) bound[k] = s->bound[1][k] - total;
    sq_team_gather(w->crew.team, bound, sizeof *w->derived, w->derived);
  }
}

/* Nothing but its own part of a range of theta's gradient is left in a member's vector. */
static void keep_own(sq_worker *w, const size_t *bound)
{
  const int team = w->crew.team->size, part = sq_team_part(w->crew.team);
  memset(w->grad + bound[0], 0, (bound[part] - bound[0]) * sizeof *w->grad);
  memset(w->grad + bound[part + 1], 0, (bound[team] - bound[part + 1]) * sizeof *w->grad);
}

/* What derive_back adds to a layer's parameters, each element in one member: to the sums in the members' parts.
   Everything else is zero, so that no sum is rounded twice. */
static void add_over_team(sq_worker *w, const size_t *bound)
{
  const sq_team_tree all = {.team = w->crew.team, .nshard = w->crew.team->size, .piece = w->piece};
  sq_team_scatter_begin(&w->scatter, &all, bound, w->grad, w->incoming);
  sq_team_scatter_go_on(&w->scatter, 1);
}

/* The members' parts of a range alone. */
static void clip(int nmember, const size_t *bound, sq_range range, size_t *clipped)
{
  const size_t end = range.first + range.count;
  for (int i = 0; i <= nmember; ++i)
    clipped[i] = bound[i] < range.first ? range.first : bound[i] > end ? end : bound[i];
}

/* run(w, bounds of the members' parts of its mixer's parameters) for the layers that are divided. */
static void each_divided(sq_worker *w, void (*run)(sq_worker *w, const size_t *bound))
{
  for (int i = 0; i < sq_model_nlayer(w->model); ++i) {
    if (divided(w, i) == NULL) continue;
    for (int s = 0; s < w->parts.nstretch; ++s) {
      size_t bound[SQ_MAX_SHARDS + 1];
      clip(w->crew.team->size, w->parts.stretch[s].bound[0], sq_model_mixer_range(w->model, i), bound);
      if (bound[0] < bound[w->crew.team->size]) run(w, bound);
    }
  }
}

/* What a member needs that makes a layer alone; such a layer is small, and so are the others. */
static void gather_for_all(sq_worker *w)
{
  int any = 0;
  for (int i = 0; i < sq_model_nlayer(w->model); ++i)
    any |= sq_model_nparts(w->model, i) > 0 && divided(w, i) == NULL;
  for (int s = 0; any && s < w->parts.nstretch; ++s)
    for (int k = 0; k < 2; ++k)
      sq_team_gather(w->crew.team, w->parts.stretch[s].bound[k], sizeof *w->grad, w->grad);
}

static void derive_back(sq_worker *w)
{
  if (sq_model_nderived(w->model) == 0) return;
  if (in_parts(w)) gather_for_all(w);
  each_divided(w, keep_own);
  sq_parallel_groups(w->crew.threads, derive_groups(w), derive_group_back, w);
  each_divided(w, add_over_team);
}

/* ---- a batch ----------------------------------------------------------------------------------------- */

/* This member's shards of a batch of B examples. */
static void take_shards(sq_worker *w, int B)
{
  w->nshard = sq_shard_count(B);
  const int levels = sq_tree_levels(w->nshard);
  w->level = levels > w->team_bits ? levels - w->team_bits : 0;
  w->depth = w->level - sq_min(w->group_bits, w->level);
  w->first = team_rank(&w->crew) << w->level;
  const int left = w->nshard - w->first;
  w->nmine = left < 0 ? 0 : sq_min(left, 1 << w->level);
  SQ_ASSERT((w->coupled ? w->nmine : ngroup(w)) <= w->narea);
}

typedef struct {
  const sq_task *task;
  sq_split split;
  int n, first, end; /* examples of the batch; those to make */
  const size_t *index;
  sq_padding pad;
  void *store;
  sq_batch *out;
} making;

static void make_part(void *ctx, int g)
{
  const making *b = ctx;
  (void)g;
  sq_task_batch_part(b->task, b->split, b->n, b->index, b->pad, b->first, b->end, b->store, b->out);
}

void sq_worker_batch(sq_worker *w, const sq_task *t, sq_split split, int nseq, const size_t *index,
                     sq_padding pad, void *store, sq_batch *out)
{
  making b = {.task = t, .split = split, .n = nseq, .index = index, .pad = pad, .store = store, .out = out};
  take_shards(w, nseq);
  if (w->nmine > 0) {
    b.first = sq_shard_first(nseq, w->first);
    b.end = sq_shard_first(nseq, w->first + w->nmine);
  }
  sq_parallel_groups(b.end - b.first > 1 ? w->crew.threads : 1, 1, make_part, &b);
}

/* Labels of the whole batch, of which a member has its shards. */
static long count_labels(sq_worker *w)
{
  const sq_team_tree tree = tree_of(w);
  double n = 0;
  for (int s = w->first; s < w->first + w->nmine; ++s) {
    const sq_batch shard = sq_batch_shard(w->batch, s, w->area[0].off);
    n += (double)sq_batch_labels(&shard); /* exact */
  }
  sq_team_sum_double(&tree, 1, &n);
  return (long)n;
}

static void begin(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p)
{
  w->theta = theta;
  w->batch = b;
  w->pass = *p;
  w->pass.derived = w->derived;
  take_shards(w, sq_batch_examples(b));
  w->scale = 0;
  for (int s = 0; s < w->nshard; ++s) w->tally[s] = (sq_tally){0};
  derive(w);
}

void sq_batch_gradient(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p, sq_real *grad,
                       sq_tally *tally)
{
  const int nsync = p->train ? sq_model_nsync(w->model) : 0;

  begin(w, theta, b, p);
  w->scale = sq_batch_scale_of(b, count_labels(w));
  w->grad = grad;
  begin_stretches(w);
  by_all_threads(w, nstrip(sq_model_ngradient(w->model)), zero_strip);
  for (w->segment = 0; w->segment < nsync; ++w->segment) {
    sq_parallel_groups(w->crew.threads, ngroup(w), forward_group, w);
    share_sums(w);
    /* The members' vectors will be added, and these numbers are the batch's already. */
    if (team_rank(&w->crew) == 0) sq_model_statistics(w->model, w->segment, w->total, grad);
  }
  for (; w->segment <= 2 * nsync; ++w->segment) {
    backward(w, nsync);
    if (w->segment < 2 * nsync) share_sums(w);
  }
  sum_gradient(w);
  derive_back(w);
  *tally = tally_sum(w);
}

void sq_batch_evaluate(sq_worker *w, const sq_real *theta, const sq_batch *b, sq_tally *tally)
{
  const sq_pass evaluation = {.train = 0};

  begin(w, theta, b, &evaluation);
  w->segment = 0;
  sq_parallel_groups(w->crew.threads, ngroup(w), forward_group, w);
  *tally = tally_sum(w);
}

/* ---- the optimiser ----------------------------------------------------------------------------------- */

static void squares_block(void *ctx, int i)
{
  sq_worker *w = ctx;
  const sq_optim_block *b = &w->block[w->parts.mine[i]];
  w->of_mine[i] = sq_optim_squares(sq_model_params(w->model), b, w->g);
}

static void update_block(void *ctx, int i)
{
  sq_worker *w = ctx;
  sq_optim_update(&w->step, &w->block[w->parts.mine[i]], w->g, w->m, w->v, w->update);
}

typedef struct {
  sq_worker *w;
  int first, end, per; /* in parts.mine; of one call */
  sq_block_fn run;
} block_strips;

static void run_blocks(void *ctx, int i)
{
  const block_strips *s = ctx;
  const int end = sq_min(s->first + (i + 1) * s->per, s->end);
  for (int b = s->first + i * s->per; b < end; ++b) s->run(s->w, b);
}

static void run_block_strips(void *ctx, int g)
{
  const block_strips *s = ctx;
  (void)g;
  sq_parallel_blocks((s->end - s->first + s->per - 1) / s->per, run_blocks, ctx);
}

/* run(w, i) for this member's blocks parts.mine[i], several at a time: most tensors are small. */
static void each_block(sq_worker *w, sq_block_fn run)
{
  const int part = in_parts(w) ? sq_team_part(w->crew.team) : 0;
  block_strips s = {.w = w, .per = 8, .run = run};
  s.first = (int)w->parts.first[part];
  s.end = (int)w->parts.first[part + 1];
  sq_parallel_groups(s.end - s.first > s.per ? w->crew.threads : 1, 1, run_block_strips, &s);
}

double sq_worker_step(sq_worker *w, const sq_adamw *o, double lr, double ssm_lr, long t, const sq_real *g,
                      sq_real *m, sq_real *v, sq_real *theta)
{
  double squares = 0;

  SQ_ASSERT(t >= 1);
  w->g = g;
  w->m = m;
  w->v = v;
  w->update = theta;
  each_block(w, squares_block);
  if (in_parts(w)) sq_team_gather(w->crew.team, w->parts.first, sizeof *w->of_mine, w->of_mine);
  for (int i = 0; i < w->nblock; ++i) w->squares[w->parts.mine[i]] = w->of_mine[i];
  for (int i = 0; i < w->nblock; ++i) squares += w->squares[i];
  const double norm = sqrt(squares);
  if (!isfinite(norm)) return norm;
  w->step = sq_optim_begin(o, sq_model_params(w->model), lr, ssm_lr, t, norm);
  each_block(w, update_block);
  sq_worker_gather(w, theta);
  return norm;
}

void sq_worker_gather(sq_worker *w, sq_real *x)
{
  for (int s = 0; in_parts(w) && s < w->parts.nstretch; ++s)
    sq_team_gather(w->crew.team, w->parts.stretch[s].bound[0], sizeof *x, x);
}
