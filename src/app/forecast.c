/* src/app/forecast.c: sq_grid_run() on a virtual clock, start after start.
 *
 * Who gets which cell when is src/grid/simulate.c's matter, how many ranks train one together share.c's: both are what
 * `run` uses.  Here is what a cell takes in a team of K:
 *
 *   step        gradient x (most shards that a member has) / shards + optimiser / K + exchange
 *   exchange    reduce and gather, 2 (1 - 1/K) of the vector from each member, copied into shared memory and out of it,
 *               in 2 log2 K messages; the vector is that of the gradient, derived quantities included
 *   evaluation  split among the members as the gradient is; derived quantities are gathered for each batch
 *   spectra     at each stage by the first member alone, written to the file
 *   checkpoint  every run.checkpoint_minutes
 *
 * A start that ends at its time limit saves the cells that run; the next one reads them again. */
#include "forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/grid.h"

/* Of a message between two ranks, until the other has it: half of what MPI ping-pongs take on a machine. */
static const double message_s = 2e-5;
/* Of fsync and two renames, whatever the size. */
static const double sync_s = 0.01;

/* ---- a cell ------------------------------------------------------------------------------------------ */

static int halvings(int n)
{
  int k = 0;
  while (2 << k <= n) ++k;
  return k;
}

/* Shards of the member that has most: groups of a rank's threads are members, too. */
static int most_shards(const sq_cells *c, int i, int team, int threads)
{
  int most = sq_cells_useful_team(c, i);
  for (int w = team; w > 1 && most > 1; w /= 2) most /= 2;
  for (int w = threads; w > 1 && most > 1; w /= 2) most /= 2;
  return sq_min(most, c->plan[i].nshard);
}

/* Of a rank of a team, beside a rank alone. */
static double largest_share(const sq_forecast_model *m, int i, int team)
{
  const int threads = m->cells->threads;
  return (double)most_shards(m->cells, i, team, threads) / most_shards(m->cells, i, 1, threads);
}

double sq_forecast_speedup(const sq_cells *c, int i)
{
  return (double)most_shards(c, i, 1, 1) / most_shards(c, i, 1, c->threads);
}

/* n numbers, a part from each member to all, or from all to one. */
static double gather_s(const sq_forecast_model *m, int team, double n)
{
  if (team == 1) return 0;
  return halvings(team) * message_s + (1 - 1.0 / team) * n * sizeof(sq_real) * 2 / m->copy_rate;
}

static double exchange_s(const sq_forecast_model *m, int i, int team)
{
  const sq_train_plan *t = &m->cells->plan[i];
  return 2 * gather_s(m, team, (double)t->nparam + (double)t->nderived);
}

static double step_s(const sq_forecast_model *m, int i, int team)
{
  const sq_cell_speed *s = &m->speed[i];
  return s->gradient_s * largest_share(m, i, team) + s->optimiser_s / team + exchange_s(m, i, team);
}

/* Examples of all evaluations of the validation set, and of the test. */
static double evaluated(const sq_train_plan *t, const sq_config *c)
{
  const int published = strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
  const double valid = (double)t->task.size[published ? SQ_TEST : SQ_VALID];
  return valid * t->max_evals + (published ? 0 : (double)t->task.size[SQ_TEST]);
}

double sq_forecast_checkpoint_s(const sq_forecast_model *m, int i)
{
  return sync_s + (double)m->cells->checkpoint[i] / m->disk_rate;
}

double sq_forecast_cell_s(const sq_forecast_model *m, int i, int team)
{
  const sq_config *c = sq_experiment_cell(m->cells->experiment, i);
  const sq_train_plan *t = &m->cells->plan[i];
  const sq_cell_speed *s = &m->speed[i];
  const double rows = (double)m->cells->row_bytes[i], minutes = sq_config_real(c, "run.checkpoint_minutes");
  const double training = (double)t->total_steps * step_s(m, i, team) +
                          evaluated(t, c) * (s->evaluation_s * largest_share(m, i, team) +
                                             gather_s(m, team, (double)t->nderived) / t->eval_batch);
  const double saves = minutes > 0 ? floor(training / (60 * minutes)) : 0;
  return training + s->init_s + (t->nstage - 1) * s->spectra_s + t->nstage * rows / m->disk_rate +
         saves * sq_forecast_checkpoint_s(m, i);
}

/* ---- a start after the other ------------------------------------------------------------------------- */

typedef struct {
  const sq_forecast_model *m;
  int n;
  int team;                      /* of the last start; 0: none yet */
  double *whole, *step_s;        /* (n) seconds of the cell and of a step, in that team */
  double *cost, *left, *seconds; /* (n) left: part of the cell; seconds: of that part */
  double *began_s;               /* (n) in this start; INFINITY: not begun */
  int *skip, *begun;             /* (n) begun: by an earlier start */
} series;

static void series_clear(series *s)
{
  free(s->whole);
  free(s->cost);
  free(s->left);
  free(s->seconds);
  free(s->step_s);
  free(s->began_s);
  free(s->skip);
  free(s->begun);
}

static sq_status series_make(const sq_forecast_model *m, series *s)
{
  const size_t n = (size_t)m->cells->ncell;
  *s = (series){.m = m,
                .n = m->cells->ncell,
                .whole = sq_calloc(n, sizeof(double), "forecast"),
                .cost = sq_calloc(n, sizeof(double), "forecast"),
                .left = sq_calloc(n, sizeof(double), "forecast"),
                .seconds = sq_calloc(n, sizeof(double), "forecast"),
                .step_s = sq_calloc(n, sizeof(double), "forecast"),
                .began_s = sq_calloc(n, sizeof(double), "forecast"),
                .skip = sq_calloc(n, sizeof(int), "forecast"),
                .begun = sq_calloc(n, sizeof(int), "forecast")};
  if (!s->whole || !s->cost || !s->left || !s->seconds || !s->step_s || !s->began_s || !s->skip || !s->begun)
    return SQ_ERR_MEMORY;
  for (int i = 0; i < s->n; ++i) {
    s->cost[i] = sq_cells_cost(m->cells, i);
    s->left[i] = 1;
  }
  return SQ_OK;
}

/* Of a start with a time limit: when its cells are saved. */
static double stop_s(const sq_forecast_model *m)
{
  return fmin(sq_before_limit_s(m->time_limit_s), m->time_limit_s - m->warning_s);
}

/* Time in which cells may run, of a start. */
static double time_for_cells(const sq_forecast_model *m)
{
  return isinf(m->time_limit_s) ? INFINITY : stop_s(m) - m->start_s;
}

/* A team that stays the same has the same times: a large grid has thousands of starts. */
static void set_team(series *s, int team)
{
  if (team == s->team) return;
  s->team = team;
  for (int i = 0; i < s->n; ++i) {
    s->whole[i] = sq_forecast_cell_s(s->m, i, team);
    s->step_s[i] = step_s(s->m, i, team);
  }
}

/* One start; *end_s: when its last cell ended or was saved; *left: cells that are not done. */
static sq_status one_start(series *s, int nrank, int *team, double *end_s, int *left)
{
  const sq_forecast_model *m = s->m;
  double save_s = 0;
  sq_grid_forecast f = {.began_s = s->began_s};
  sq_status st;
  SQ_TRY(sq_cells_team(m->cells, s->skip, nrank, m->team, team));
  set_team(s, *team);
  for (int i = 0; i < s->n; ++i) {
    if (s->skip[i]) continue;
    const double again = s->begun[i] ? sq_forecast_checkpoint_s(m, i) : 0;
    s->seconds[i] = s->left[i] * s->whole[i] + again;
    s->began_s[i] = INFINITY;
  }
  const sq_grid_model g = {.nteam = nrank / *team, .step_s = s->step_s, .stop_s = time_for_cells(m)};
  SQ_TRY(sq_grid_simulate(s->n, s->cost, s->skip, &g, s->seconds, &f));
  *left = 0;
  for (int i = 0; i < s->n; ++i) {
    if (s->skip[i]) continue;
    s->skip[i] = s->seconds[i] == 0;
    s->left[i] = fmin(s->left[i], s->seconds[i] / s->whole[i]);
    *left += !s->skip[i];
    if (isinf(s->began_s[i])) continue;
    s->begun[i] = 1;
    if (!s->skip[i]) save_s = fmax(save_s, sq_forecast_checkpoint_s(m, i));
  }
  *end_s = f.end_s + save_s;
done:
  return st;
}

static double cells_left(const series *s)
{
  double left = 0;
  for (int i = 0; i < s->n; ++i) left += s->left[i];
  return left;
}

/* In the team of one start; several may have others. */
static double shortest(const series *s, const sq_forecast *f, int i)
{
  const int most = sq_min(f->nrank, sq_cells_useful_team(s->m->cells, i));
  double least = sq_forecast_cell_s(s->m, i, f->team);
  for (int team = 1; f->nstart > 1 && s->m->team == 0 && team <= most; team *= 2)
    least = fmin(least, sq_forecast_cell_s(s->m, i, team));
  return least;
}

static void find_bound(const series *s, sq_forecast *f)
{
  double longest = 0;
  for (int i = 0; i < s->n; ++i) {
    longest = fmax(longest, shortest(s, f, i));
    f->work_s += sq_forecast_cell_s(s->m, i, 1);
  }
  const double shared = f->work_s / f->nrank;
  f->idle = f->nrank - sq_min(f->nrank / f->team, s->n) * f->team;
  f->bound_s = fmax(longest, shared);
}

sq_limit sq_forecast_limit(const sq_forecast_model *m, const sq_forecast *f, int useful)
{
  if (f->wall_s > 1.1 * f->bound_s + f->nstart * m->start_s) return SQ_LIMIT_SHARES;
  return f->nrank >= useful ? SQ_LIMIT_CELL : SQ_LIMIT_WORK;
}

sq_status sq_forecast_run(const sq_forecast_model *m, int nrank, sq_forecast *f)
{
  series s;
  sq_status st;
  *f = (sq_forecast){.nrank = nrank};
  SQ_TRY(series_make(m, &s));
  for (int left = 1; left > 0;) {
    const double before = cells_left(&s);
    double end_s;
    int team;
    SQ_TRY(one_start(&s, nrank, &team, &end_s, &left));
    if (f->nstart++ == 0) f->team = team;
    f->wall_s += m->start_s + end_s;
    if (left > 0 && !(cells_left(&s) < before))
      SQ_TRY(sq_fail(
          SQ_ERR_USAGE,
          "plan: --time-limit=%g: %.0f s of it are for the start and %.0f s for the end, no cell gets on",
          m->time_limit_s, m->start_s, m->time_limit_s - stop_s(m)));
  }
  find_bound(&s, f);
done:
  series_clear(&s);
  return st;
}

/* ---- the last useful number of ranks ----------------------------------------------------------------- */

static sq_status wall_of(const sq_forecast_model *m, int nrank, double *wall_s)
{
  sq_forecast f;
  const sq_status st = sq_forecast_run(m, nrank, &f);
  *wall_s = f.wall_s;
  return st;
}

/* The smallest number of teams of this size that is not slower than one for each cell. */
static sq_status smallest(const sq_forecast_model *m, int team, double goal_s, int *nrank)
{
  sq_status st = SQ_OK;
  int lo = 1,
      hi = m->cells->ncell; /* the time need not fall with every team; with hi it is the longest cell's */
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    double wall_s;
    SQ_TRY(wall_of(m, mid * team, &wall_s));
    if (wall_s <= goal_s)
      hi = mid;
    else
      lo = mid + 1;
  }
  *nrank = hi * team;
done:
  return st;
}

sq_status sq_forecast_useful(const sq_forecast_model *given, int *nrank)
{
  sq_forecast_model m = *given;
  const double equal = 1 + 1e-9;
  double least_s = INFINITY;
  int first = m.team > 0 ? m.team : 1, last = m.team, best = first;
  sq_status st = SQ_OK;
  m.time_limit_s = INFINITY;
  for (int i = 0; i < m.cells->ncell && m.team == 0; ++i)
    last = sq_max(last, sq_cells_useful_team(m.cells, i));
  for (int team = first; team <= last; team *= 2) {
    double wall_s;
    SQ_TRY(wall_of(&m, m.cells->ncell * team, &wall_s));
    if (wall_s * equal >= least_s) continue;
    least_s = wall_s;
    best = team;
  }
  *nrank = m.cells->ncell * best;
  if (best == first) SQ_TRY(smallest(&m, first, least_s * equal, nrank));
done:
  return st;
}
