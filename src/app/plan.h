/* src/app/plan.h: what `plan` found out, and its two ways to say it. */
#pragma once

#include "forecast.h"

#define SQ_PLAN_FORECASTS 16
#define SQ_PLAN_WARNING_S 120 /* a job is told so many seconds before its limit, see jobs/ */

typedef struct { /* cells that differ by the seed only, and cost the same */
  int first, ncell, timed;
  sq_cell_speed speed;
  double cell_s; /* on one rank */
  char *varied;  /* swept values but the seed; owned */
} sq_plan_row;

typedef struct {
  const char *config; /* its path */
  char *options;      /* for the same run, as words of a shell: those of --set, --team, --threads; owned */
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
  double measure_s; /* no cell is timed any more when so much has passed */
} sq_plan;

typedef struct { /* of the first forecast; core_hours: of the work, as if no rank were ever idle */
  double flops, core_hours, checkpoint_share, checkpoint_s; /* share: of the time of the cell with most */
  size_t file_bytes, cell_bytes, base_bytes, shared_bytes, checkpoint_bytes, checkpoints_bytes;
  int all_timed, inodes, ranks_node, nodes, longest; /* longest: cell */
  double path_s,
      path_team_s; /* critical path: the longest cell on one rank, and in the team that is of most use */
  int path_team;
  double rank_bytes; /* that a job asks for: memory of a rank with its share of the data and a margin */
  char *sbatch;      /* the job's line; NULL: no rank fits on a node, or the time is too short; owned */
} sq_plan_totals;

/* Core-hours that a cluster charges for: of all ranks and threads from the first start to the end. */
static inline double sq_plan_charged(const sq_plan *p, const sq_forecast *f)
{
  return f->nrank * p->cells->threads * f->wall_s / 3600;
}

/* ---- plan_totals.c ----------------------------------------------------------------------------------- */
sq_status sq_plan_sum(const sq_plan *p,
                      sq_plan_totals *t); /* SQ_ERR_USAGE, SQ_ERR_MEMORY; t->sbatch is to be freed */

/* ---- plan_job.c -------------------------------------------------------------------------------------- */
void sq_plan_word(FILE *f, const char *word);                     /* quoted for a shell where it has to be */
sq_status sq_plan_write_job(const sq_plan *p, sq_plan_totals *t); /* from the other totals: t->sbatch */

/* ---- plan_print.c ------------------------------------------------------------------------------------ */
void sq_plan_print(const sq_plan *p, const sq_plan_totals *t);
sq_status sq_plan_print_json(const sq_plan *p, const sq_plan_totals *t); /* SQ_ERR_MEMORY */
const char *sq_limit_name(sq_limit l);
