/* src/app/datasets.h: the data of all cells, one copy a machine.
 *
 * Data sets with blocks (sq/task.h) are read once a machine, each by one of its ranks, and looked at by all; others, and
 * those for which the machine has no room, are opened by every rank for itself. */
#pragma once

#include "cells.h"

typedef struct sq_datasets sq_datasets;

/* Collective on MPI_COMM_WORLD.  skip[i]: cell i is not run.  An error of a reader comes to all ranks.  alone: nothing
   is shared. */
sq_status sq_datasets_create(const sq_cells *c, const int *skip, int alone, sq_datasets **d);
/* Of a cell; not collective.  The task has to be closed before the data sets are destroyed. */
sq_status sq_datasets_open(const sq_datasets *d, const sq_config *c, sq_task **t);
void sq_datasets_destroy(sq_datasets **d); /* collective */
