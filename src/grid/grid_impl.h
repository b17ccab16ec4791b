/* src/grid/grid_impl.h: what only the files of this module share. */
#pragma once

#include "sq/grid.h"

/* ---- queue.c: the jobs that are not skipped, in the order in which they are handed out ------------------ */
#define SQ_NO_JOB (-1)
typedef struct {
  int n, next;
  int *job; /* (n) longest first; of equal cost the one with the lower number */
} sq_queue;
/* skip NULL: none.  SQ_ERR_MEMORY. */
sq_status sq_queue_create(sq_queue *q, int njob, const double *cost, const int *skip);
void sq_queue_destroy(sq_queue *q);
int sq_queue_take(sq_queue *q); /* SQ_NO_JOB past the last */
