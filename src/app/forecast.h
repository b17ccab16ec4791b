/* src/app/forecast.h: how long a grid takes on any number of ranks, from the time that its cells take on one. */
#pragma once

#include "calibrate.h"

typedef struct {
  const sq_cells *cells;
  const sq_cell_speed *speed;  /* (ncell) */
  double copy_rate, disk_rate; /* bytes/s: from memory to memory, to a file */
  double start_s;              /* of a start of the program, before the first cell */
  double time_limit_s;         /* of a start, as --time-limit; it is followed by another; INFINITY: none */
  double warning_s;            /* so long before the time limit a job is told to stop; 0: it is not */
  int team;                    /* of all cells; 0: as run.team says */
} sq_forecast_model;

typedef enum {
  SQ_LIMIT_WORK,
  SQ_LIMIT_CELL,
  SQ_LIMIT_SHARES
} sq_limit; /* more ranks help; they do not; cells cannot be cut */

typedef struct {
  int nrank, team, idle, nstart; /* idle: ranks that never get a cell; team, idle: of the first start */
  double wall_s;                 /* of all starts; the waiting between them is not in it */
  double work_s;                 /* of all cells on one rank */
  double bound_s;                /* no order of the cells is faster: the longest cell, or the work / ranks */
  sq_limit limit;                /* from sq_forecast_limit() */
} sq_forecast;

/* Seconds of cell i in a team, checkpoints included. */
double sq_forecast_cell_s(const sq_forecast_model *m, int i, int team);
/* To write a checkpoint of cell i. */
double sq_forecast_checkpoint_s(const sq_forecast_model *m, int i);
/* How much faster the threads of a rank are than one core: shards of cell i over those of the thread that has most. */
double sq_forecast_speedup(const sq_cells *c, int i);
/* All but f->limit.  SQ_ERR_USAGE: a start is over before a cell can run; SQ_ERR_MEMORY. */
sq_status sq_forecast_run(const sq_forecast_model *m, int nrank, sq_forecast *f);
/* The smallest number of ranks on which the grid takes no longer than on any other number, without a time limit. */
sq_status sq_forecast_useful(const sq_forecast_model *m, int *nrank);
/* useful: the number that sq_forecast_useful() found. */
sq_limit sq_forecast_limit(const sq_forecast_model *m, const sq_forecast *f, int useful);
