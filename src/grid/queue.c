/* src/grid/queue.c: jobs, longest first. */
#include <stdlib.h>

#include "grid_impl.h"
#include "sq/base.h"

typedef struct {
  double cost;
  int job;
} ranked;

static int longest_first(const void *a, const void *b)
{
  const ranked *x = a, *y = b;
  if (x->cost != y->cost) return x->cost > y->cost ? -1 : 1;
  return x->job < y->job ? -1 : x->job > y->job;
}

sq_status sq_queue_create(sq_queue *q, int njob, const double *cost, const int *skip)
{
  ranked *r = sq_calloc((size_t)njob + 1, sizeof *r, "list of jobs");
  *q = (sq_queue){.job = sq_calloc((size_t)njob + 1, sizeof *q->job, "list of jobs")};
  if (r == NULL || q->job == NULL) {
    free(r);
    return SQ_ERR_MEMORY;
  }
  int ordered = 1; /* as a grid of seeds is */
  for (int i = 0; i < njob; ++i) {
    SQ_ASSERT(cost[i] > 0);
    if (skip != NULL && skip[i]) continue;
    r[q->n] = (ranked){cost[i], i};
    ordered &= q->n == 0 || longest_first(&r[q->n - 1], &r[q->n]) < 0;
    ++q->n;
  }
  if (!ordered) qsort(r, (size_t)q->n, sizeof *r, longest_first);
  for (int i = 0; i < q->n; ++i) q->job[i] = r[i].job;
  free(r);
  return SQ_OK;
}

void sq_queue_destroy(sq_queue *q)
{
  free(q->job);
  *q = (sq_queue){.job = NULL};
}

int sq_queue_take(sq_queue *q)
{
  return q->next < q->n ? q->job[q->next++] : SQ_NO_JOB;
}
