/* src/app/progress.h: what rank 0 shows while a grid runs: on a terminal one line that is redrawn and a line
 * for each finished cell; in a log a line at most every 30 s. */
#pragma once

#include "cells.h"
#include "sq/grid.h"

typedef struct {
  const sq_cells *cells; /* borrowed */
  const int *skip;
  int live, drawn; /* drawn: characters of the line on the terminal */
  double start, last;
  char *told; /* (ncell), owned */
} sq_progress;

sq_status sq_progress_init(sq_progress *p, const sq_cells *cells, const int *skip);
void sq_progress_show(sq_progress *p, const sq_grid *g); /* from sq_grid_ops.progress */
void sq_progress_clear(sq_progress *p);                  /* takes the line off the terminal */
int sq_on_terminal(void);
/* "45 s", "12 min", "3.4 h" */
void sq_format_duration(char out[32], double s);
