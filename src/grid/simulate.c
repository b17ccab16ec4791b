/* src/grid/simulate.c: sq_grid_run() on a clock that is not real, for any number of ranks.
 *
 * The first ranks of the teams ask when they are free; those that ask first are answered first, rank 0 itself after the
 * others, as in rank0_loop() of grid.c.  While rank 0 has a job it looks for requests only between the steps of that
 * job.  Messages take no time.  Of the teams only as many can ever have work as there are jobs, so the heap of those
 * that are busy stays small whatever the number of ranks. */
#include <math.h>
#include <stdlib.h>

#include "grid_impl.h"
#include "sq/base.h"

typedef struct {
  double free_s; /* when it asks for its next job */
  int team;
} asker;

typedef struct {
  const sq_grid_model *m;
  sq_queue queue;
  asker *heap; /* the first to ask on top */
  int n;
  double own_begin_s, own_end_s, own_step_s; /* rank 0's job */
  double *left;
  sq_grid_forecast *f;
} simulation;

/* Workers before rank 0 where they ask at the same time. */
static int asks_before(const asker *a, const asker *b)
{
  if (a->free_s != b->free_s) return a->free_s < b->free_s;
  return (a->team == 0) != (b->team == 0) ? b->team == 0 : a->team < b->team;
}

static void swap(asker *a, asker *b)
{
  const asker t = *a;
  *a = *b;
  *b = t;
}

static void push(simulation *s, asker a)
{
  int i = s->n++;
  s->heap[i] = a;
  for (; i > 0 && asks_before(&s->heap[i], &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
    swap(&s->heap[i], &s->heap[(i - 1) / 2]);
}

static asker pop(simulation *s)
{
  const asker top = s->heap[0];
  s->heap[0] = s->heap[--s->n];
  for (int i = 0, k; (k = 2 * i + 1) < s->n; i = k) {
    if (k + 1 < s->n && asks_before(&s->heap[k + 1], &s->heap[k])) ++k;
    if (!asks_before(&s->heap[k], &s->heap[i])) break;
    swap(&s->heap[i], &s->heap[k]);
  }
  return top;
}

/* When rank 0 hears what is asked at `now`. */
static double answered(const simulation *s, double now)
{
  if (now >= s->own_end_s || s->own_step_s <= 0) return now;
  return fmin(s->own_end_s, s->own_begin_s + ceil((now - s->own_begin_s) / s->own_step_s) * s->own_step_s);
}

/* Gives the next job to whoever asks; 0: there is none, or it is time to stop. */
static int hand_out(simulation *s, asker a)
{
  const double begin = a.team == 0 ? a.free_s : answered(s, a.free_s);
  const int job = begin < s->m->stop_s ? sq_queue_take(&s->queue) : SQ_NO_JOB;
  if (job == SQ_NO_JOB) return 0;
  const double end = fmin(begin + s->left[job], s->m->stop_s);
  if (s->f->began_s != NULL) s->f->began_s[job] = begin;
  s->left[job] = begin + s->left[job] <= s->m->stop_s ? 0 : s->left[job] - (end - begin);
  s->f->busy_s += end - begin;
  s->f->end_s = fmax(s->f->end_s, end);
  if (a.team == 0) {
    s->own_begin_s = begin;
    s->own_end_s = end;
    s->own_step_s = s->m->step_s != NULL ? s->m->step_s[job] : 0;
  }
  push(s, (asker){end, a.team});
  return 1;
}

sq_status sq_grid_simulate(int njob, const double *cost, const int *skip, const sq_grid_model *m,
                           double *left, sq_grid_forecast *f)
{
  simulation s = {.m = m, .left = left, .f = f};
  sq_status st;
  f->end_s = f->busy_s = 0;
  SQ_ASSERT(m->nteam >= 1);
  SQ_TRY(sq_queue_create(&s.queue, njob, cost, skip));
  s.heap = sq_calloc((size_t)njob + 1, sizeof *s.heap, "simulation");
  if (s.heap == NULL) {
    st = SQ_ERR_MEMORY;
    goto done;
  }
  /* At the start every worker has asked before rank 0 takes a job. */
  for (int k = 1; k <= m->nteam && hand_out(&s, (asker){0, k % m->nteam}); ++k) continue;
  while (s.n > 0) hand_out(&s, pop(&s));
done:
  free(s.heap);
  sq_queue_destroy(&s.queue);
  return st;
}
