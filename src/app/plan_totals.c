/* src/app/plan_totals.c: what a job of a plan needs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "sq/base.h"

/* What the program itself takes on a rank, with Open MPI 4.1, HDF5 and OpenBLAS: measured, 34.4 to 34.7 MB of 1 to 8 ranks
 * of one machine. */
static const size_t base_bytes = 35000000;
/* Share by which what is asked for is more than what is planned. */
static const double margin = 1.1;

static int descending(const void *a, const void *b)
{
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x > y ? -1 : x < y;
}

/* The largest of the cells that run at once: two files each, and a third while it is written. */
static size_t checkpoints_at_once(const sq_plan *p, int nteam)
{
  const int n = p->cells->ncell;
  size_t sum = 0, *bytes = sq_calloc((size_t)n, sizeof *bytes, "plan");
  if (bytes == NULL) return 0;
  memcpy(bytes, p->cells->checkpoint, (size_t)n * sizeof *bytes);
  qsort(bytes, (size_t)n, sizeof *bytes, descending);
  for (int i = 0; i < sq_min(n, nteam); ++i) sum += 3 * bytes[i];
  free(bytes);
  return sum;
}

static void sum_cells(const sq_plan *p, sq_plan_totals *t)
{
  const int team = p->forecast[0].team;
  for (int i = 0; i < p->cells->ncell; ++i) {
    const sq_config *c = sq_experiment_cell(p->experiment, i);
    const size_t bytes = sq_cells_bytes(p->cells, i, team);
    const double save_s = sq_forecast_checkpoint_s(&p->model, i),
                 minutes = sq_config_real(c, "run.checkpoint_minutes");
    t->flops += p->cells->plan[i].flops_total;
    if (bytes > t->cell_bytes) t->cell_bytes = bytes;
    if (p->cells->checkpoint[i] > t->checkpoint_bytes) t->checkpoint_bytes = p->cells->checkpoint[i];
    t->checkpoint_s = fmax(t->checkpoint_s, save_s);
    if (minutes > 0) t->checkpoint_share = fmax(t->checkpoint_share, save_s / (60 * minutes + save_s));
  }
}

/* The longest cell on one rank, and in the team that is asked for, else in that in which it is done first. */
static void find_path(const sq_plan *p, sq_plan_totals *t)
{
  for (int i = 0; i < p->cells->ncell; ++i) {
    const double one = sq_forecast_cell_s(&p->model, i, 1);
    if (one <= t->path_s) continue;
    t->path_s = one;
    t->longest = i;
  }
  t->path_team_s = INFINITY;
  const int said = p->model.team, first = sq_max(said, 1),
            last = said > 0 ? said : sq_cells_useful_team(p->cells, t->longest);
  for (int team = first; team <= last; team *= 2) {
    const double s = sq_forecast_cell_s(&p->model, t->longest, team);
    if (s >= t->path_team_s) continue;
    t->path_team_s = s;
    t->path_team = team;
  }
}

/* Ranks of a node that its cores and its memory are enough for, and the nodes that they need. */
static void find_nodes(const sq_plan *p, sq_plan_totals *t)
{
  const double room = p->node_bytes - (double)t->shared_bytes,
               rank = margin * (double)(t->cell_bytes + t->base_bytes);
  const int cores = p->node_cores / p->cells->threads;
  const double fit = floor(room / rank);
  t->ranks_node = fit < cores ? (int)fmax(0, fit) : cores;
  const int n = p->forecast[0].nrank;
  if (t->ranks_node > n) t->ranks_node = n;
  t->rank_bytes = rank + (double)t->shared_bytes / sq_max(t->ranks_node, 1);
  t->nodes = t->ranks_node > 0 ? (n + t->ranks_node - 1) / t->ranks_node : 0;
}

sq_status sq_plan_sum(const sq_plan *p, sq_plan_totals *t)
{
  const sq_store_plan store = sq_cells_store_plan(p->cells);
  const sq_forecast *f = &p->forecast[0];
  const int nteam = f->nrank / f->team, at_once = sq_min(nteam, p->cells->ncell);
  *t = (sq_plan_totals){.file_bytes = sq_store_bytes(&store),
                        .base_bytes = base_bytes,
                        .shared_bytes = sq_cells_shared_bytes(p->cells),
                        .all_timed = 1,
                        .core_hours = f->work_s * p->cells->threads / 3600};
  for (int k = 0; k < p->nrow; ++k) t->all_timed &= p->row[k].timed;
  sum_cells(p, t);
  find_path(p, t);
  find_nodes(p, t);
  t->checkpoints_bytes = checkpoints_at_once(p, nteam);
  t->inodes =
      3 + 3 * at_once; /* results, lock, folder; two files of a running cell and the one that is written */
  return sq_plan_write_job(p, t);
}
