/* src/app/plan.h: what `plan` found out, and its two ways to say it. */
#pragma once

#include "forecast.h"

#define SQ_PLAN_FORECASTS 16

typedef struct { /* cells that differ by the seed only, and cost the same */
  int first, ncell, timed;
  sq_cell_speed speed;
  double cell_s; /* on one rank */
  char *varied;  /* swept values but the seed; owned */
} sq_plan_row;

typedef struct {
  const char *config; /* its path */
  char options[512];  /* for the same run: those of --set, --team, --threads */
  const sq_experiment *experiment;
  sq_cells *cells;
  sq_plan_row *row;
  int nrow, *row_of;    /* (ncell) */
  sq_cell_speed *speed; /* (ncell) */
  double gemm;          /* FLOP/s */
  double rate;          /* GFLOP/s of a core, given instead of a measurement; 0: measure */
  sq_forecast_model model;
  int nforecast, useful; /* useful: the last useful number of ranks */
  sq_forecast forecast[SQ_PLAN_FORECASTS];
  int node_cores; /* of a machine that the ranks are on */
  double node_bytes;
} sq_plan;

typedef struct {                                            /* of the first forecast */
  double flops, core_hours, checkpoint_share, checkpoint_s; /* share: of the time of the cell with most */
  size_t file_bytes, cell_bytes, base_bytes, shared_bytes, checkpoint_bytes, checkpoints_bytes;
  int all_timed, inodes, ranks_node, nodes, longest; /* longest: cell */
  double path_s,
      path_team_s; /* critical path: the longest cell on one rank, and in the team that is of most use */
  int path_team;
  char sbatch[1024];
} sq_plan_totals;

/* ---- plan_totals.c ----------------------------------------------------------------------------------- */
void sq_plan_sum(const sq_plan *p, sq_plan_totals *t);

/* ---- plan_print.c ------------------------------------------------------------------------------------ */
void sq_plan_print(const sq_plan *p, const sq_plan_totals *t);
sq_status sq_plan_print_json(const sq_plan *p, const sq_plan_totals *t); /* SQ_ERR_MEMORY */
const char *sq_limit_name(sq_limit l);
