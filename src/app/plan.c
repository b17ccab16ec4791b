/* src/app/plan.c: `plan`: what `run` would do, and how long it would take. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "calibrate.h"
#include "cells.h"
#include "progress.h"
#include "sq/base.h"
#include "sq/linalg.h"

/* Share of the matrix product's speed that a training step is taken to reach where it is not timed. */
static const double assumed_efficiency = 0.25;
/* Steps are timed as long as this lasts. */
static const double budget_s = 25;

typedef struct {
  int first, ncell, timed;
  double step_s, cell_s; /* one step; one cell with its evaluations */
  char *varied;          /* swept values but the seed; owned */
} row;

typedef struct {
  const sq_experiment *experiment;
  sq_cells *cells;
  row *row;
  int nrow, ranks, team; /* team: ranks that train a cell together */
  int *row_of;           /* (ncell) */
  double gemm;           /* FLOP/s */
  double rate;           /* GFLOP/s of a core, given instead of a measurement; 0: measure */
  double *seconds;       /* (ncell) */
} plan;

/* ---- rows: cells that differ by the seed only, and cost the same ------------------------------------------------------------------ */

static int same_cost(const plan *p, int a, int b)
{
  const sq_config *x = sq_experiment_cell(p->experiment, a), *y = sq_experiment_cell(p->experiment, b);
  const sq_train_plan *s = &p->cells->plan[a], *t = &p->cells->plan[b];
  return strcmp(sq_config_task_label(x), sq_config_task_label(y)) == 0 &&
         strcmp(sq_config_model_label(x), sq_config_model_label(y)) == 0 && s->nparam == t->nparam &&
         s->total_steps == t->total_steps && s->flops_step == t->flops_step && s->max_evals == t->max_evals &&
         p->cells->bytes[a] == p->cells->bytes[b];
}

static sq_status rows_make(plan *p)
{
  for (int i = 0; i < p->cells->ncell; ++i) {
    char *varied = sq_swept_text(sq_config_swept(sq_experiment_cell(p->experiment, i)));
    int k = 0;
    if (!varied) return sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
    while (k < p->nrow && (strcmp(p->row[k].varied, varied) != 0 || !same_cost(p, p->row[k].first, i))) ++k;
    if (k == p->nrow)
      p->row[p->nrow++] = (row){.first = i, .varied = varied};
    else
      free(varied);
    ++p->row[k].ncell;
    p->row_of[i] = k;
  }
  return SQ_OK;
}

/* ---- time -------------------------------------------------------------------------------------------- */

/* Steps and evaluations; an evaluation is a forward pass, a third of a step.  Spectra are not counted. */
static double cell_seconds(const plan *p, const row *r)
{
  const sq_train_plan *t = &p->cells->plan[r->first];
  const sq_config *c = sq_experiment_cell(p->experiment, r->first);
  const double batch = sq_config_int(c, "train.batch_size");
  const int published = strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
  const double valid = (double)t->task.size[published ? SQ_TEST : SQ_VALID],
               test = published ? 0 : (double)t->task.size[SQ_TEST];
  return r->step_s * ((double)t->total_steps + (valid * t->max_evals + test) / batch / 3);
}

/* An earlier row of the same cost, or k: a step is timed once for all learning rates. */
static int twin_of(const plan *p, int k)
{
  for (int i = 0; i < k; ++i)
    if (same_cost(p, p->row[i].first, p->row[k].first)) return i;
  return k;
}

static sq_status rows_time(plan *p)
{
  const double start = sq_wall_s();
  sq_status st = SQ_OK;
  p->gemm = p->rate > 0 ? 1e9 * p->rate : sq_calibrate_gemm();
  for (int k = 0; k < p->nrow; ++k) {
    row *r = &p->row[k];
    const sq_train_plan *t = &p->cells->plan[r->first];
    const double guess = assumed_efficiency * fmax(p->gemm, 1e6);
    const int twin = twin_of(p, k);
    r->step_s = t->flops_step / guess;
    if (p->rate > 0) {
      r->step_s = t->flops_step / p->gemm;
      r->timed = 1;
    } else if (twin < k) {
      r->step_s = p->row[twin].step_s;
      r->timed = p->row[twin].timed;
    } else if (sq_wall_s() - start < budget_s && p->cells->bytes[r->first] < sq_memory_bytes() / 2) {
      SQ_TRY(sq_calibrate_step(sq_experiment_cell(p->experiment, r->first), t, p->cells->threads, guess,
                               &r->step_s));
      r->timed = 1;
    }
    r->cell_s = cell_seconds(p, r);
  }
  for (int i = 0; i < p->cells->ncell; ++i) p->seconds[i] = p->row[p->row_of[i]].cell_s;
done:
  return st;
}

static int longest_first(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return x > y ? -1 : x < y;
}

/* As the grid hands cells out: the longest that is left to the rank that is free first.  seconds: sorted. */
static double makespan(const double *seconds, int n, int ranks, double *busy)
{
  double end = 0;
  for (int r = 0; r < ranks; ++r) busy[r] = 0;
  for (int i = 0; i < n; ++i) {
    int first = 0;
    for (int r = 1; r < ranks; ++r)
      if (busy[r] < busy[first]) first = r;
    busy[first] += seconds[i];
    end = fmax(end, busy[first]);
  }
  return end;
}

/* Time of cell i in a team over its time on one rank: as many shards as the busiest group of threads has.  What the
 * members say to each other is not counted. */
static double team_share(const plan *p, int i)
{
  const int nshard = p->cells->plan[i].nshard;
  int most[2];
  for (int k = 0; k < 2; ++k) {
    most[k] = sq_cells_useful_team(p->cells, i);
    for (int w = k == 0 ? 1 : p->team; w > 1 && most[k] > 1; w /= 2) most[k] /= 2;
    for (int w = p->cells->threads; w > 1 && most[k] > 1; w /= 2) most[k] /= 2;
    if (most[k] > nshard) most[k] = nshard;
  }
  return (double)most[1] / most[0];
}

static int largest_team(const plan *p)
{
  int team = 1;
  for (int i = 0; i < p->cells->ncell; ++i) {
    const int useful = sq_cells_useful_team(p->cells, i);
    if (useful > team) team = useful;
  }
  return team;
}

/* The smallest number of ranks that is not slower than one rank for each cell. */
static int last_useful(const double *sorted, int n, double *busy)
{
  int lo = 1,
      hi = n; /* the makespan of this rule need not fall with every rank; at hi it is the longest cell */
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    if (makespan(sorted, n, mid, busy) <= sorted[0] * (1 + 1e-12))
      hi = mid;
    else
      lo = mid + 1;
  }
  return hi;
}

/* ---- output ------------------------------------------------------------------------------------------ */

typedef struct {
  double flops, sum_s, wall_s;
  size_t file_bytes, cell_bytes;
  int useful, all_timed;
} totals;

static sq_status totals_make(const plan *p, totals *t)
{
  const sq_store_plan store = sq_cells_store_plan(p->cells);
  const int n = p->cells->ncell;
  double *sorted = sq_calloc((size_t)n, sizeof *sorted, "plan");
  double *busy = sq_calloc((size_t)(n > p->ranks ? n : p->ranks), sizeof *busy, "plan");
  const int have = sorted && busy;
  *t = (totals){.file_bytes = sq_store_bytes(&store), .all_timed = 1};
  for (int k = 0; k < p->nrow; ++k) t->all_timed &= p->row[k].timed;
  for (int i = 0; i < n && have; ++i) {
    t->flops += p->cells->plan[i].flops_total;
    const size_t bytes = sq_cells_bytes(p->cells, i, p->team);
    t->cell_bytes = bytes > t->cell_bytes ? bytes : t->cell_bytes;
    t->sum_s += p->seconds[i];
    sorted[i] = p->seconds[i] * team_share(p, i);
  }
  if (have) {
    qsort(sorted, (size_t)n, sizeof *sorted, longest_first);
    t->wall_s = makespan(sorted, n, p->ranks / p->team, busy);
    t->useful = largest_team(p) > 1 ? n * largest_team(p) : last_useful(sorted, n, busy);
  }
  free(sorted);
  free(busy);
  return have ? SQ_OK : SQ_ERR_MEMORY;
}

/* One unit for all times of a cell, that of the longest; the totals have it too unless they reach thousands. */
typedef struct {
  const char *name;
  double seconds;
} time_unit;

static time_unit unit_for(double longest)
{
  if (longest < 120) return (time_unit){"s", 1};
  if (longest < 7200) return (time_unit){"min", 60};
  return longest < 48 * 3600 ? (time_unit){"h", 3600} : (time_unit){"days", 86400};
}

static void format_time(char out[32], double s, time_unit u)
{
  sq_format(out, 32, s / u.seconds >= 100 ? "%.0f %s" : "%.2g %s", s / u.seconds, u.name);
}

static double longest_cell(const plan *p)
{
  double longest = 0;
  for (int k = 0; k < p->nrow; ++k) longest = fmax(longest, p->row[k].cell_s);
  return longest;
}

/* Ranks that never get a cell. */
static int idle_ranks(const plan *p)
{
  const int teams = p->ranks / p->team;
  return p->ranks - (teams < p->cells->ncell ? teams : p->cells->ncell) * p->team;
}

static void print_totals(const plan *p, const totals *t)
{
  const time_unit cell = unit_for(longest_cell(p)),
                  unit = t->sum_s < 1000 * cell.seconds ? cell : unit_for(t->sum_s);
  char a[32], b[32], c[32];
  sq_format_bytes(a, (double)t->cell_bytes);
  sq_format_bytes(b, (double)t->file_bytes);
  printf("\n%d cell%s, %.3g FLOP; up to %s of memory a rank; results file %s\n", p->cells->ncell,
         p->cells->ncell == 1 ? "" : "s", t->flops, a, b);
  format_time(a, t->wall_s, unit);
  format_time(b, t->sum_s, unit);
  format_time(c, t->sum_s / p->ranks, unit);
  printf("about %s on %d rank%s", a, p->ranks, p->ranks == 1 ? "" : "s");
  if (p->cells->threads > 1) printf(" of %d threads", p->cells->threads);
  if (p->team > 1) printf(" in teams of %d", p->team);
  if (p->ranks > 1) printf(" (%s on one; %s if shared evenly)", b, c);
  printf(", %.3g core-hours", t->sum_s / 3600);
  if (idle_ranks(p) > 0) printf("; %d of them idle", idle_ranks(p));
  if (t->useful == 1)
    printf("; a second rank is of no use\n");
  else
    printf("; more than %d ranks are of no use\n", t->useful);
  if (p->rate > 0) {
    printf("Times: training steps at %.3g GFLOP/s a rank (--rate), evaluations as a third of a step; spectra "
           "not counted.\n",
           p->rate);
    return;
  }
  printf("Times: steps on random tokens of full length, timed here%s; evaluations as a third of a step; "
         "spectra not counted.\n"
         "Matrix products run at %.3g GFLOP/s a rank (%s).\n",
         t->all_timed ? "" : " (*: not timed, taken at 25 % of the matrix product's speed)", p->gemm / 1e9,
         SQ_PRECISION);
}

static int longer(int width, const char *text)
{
  const int n = (int)strlen(text);
  return n > width ? n : width;
}

static void print_table(const plan *p, const totals *t)
{
  const time_unit unit = unit_for(longest_cell(p));
  char a[32], b[32];
  int width = 5, varied = 6;
  for (int k = 0; k < p->nrow; ++k) {
    width = longer(width, sq_config_model_label(sq_experiment_cell(p->experiment, p->row[k].first)));
    varied = longer(varied, p->row[k].varied);
  }
  printf("%-8s %-*s %-*s %5s %10s %8s %11s %11s %9s %9s\n", "task", width, "model", varied, "varied", "cells",
         "parameters", "steps", "GFLOP/step", "FLOP/cell", "memory", "time/cell");
  for (int k = 0; k < p->nrow; ++k) {
    const row *r = &p->row[k];
    const sq_config *cell = sq_experiment_cell(p->experiment, r->first);
    const sq_train_plan *q = &p->cells->plan[r->first];
    sq_format_bytes(a, (double)p->cells->bytes[r->first]);
    format_time(b, r->cell_s, unit);
    printf("%-8s %-*s %-*s %5d %10ld %8ld %11.3g %11.3g %9s %9s%s\n", sq_config_task_label(cell), width,
           sq_config_model_label(cell), varied, *r->varied ? r->varied : "-", r->ncell, q->nparam,
           q->total_steps, q->flops_step / 1e9, q->flops_total, a, b, r->timed ? "" : "*");
  }
  print_totals(p, t);
}

static sq_status print_json(const plan *p, const totals *t)
{
  cJSON *o = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(o, "rows");
  cJSON_AddStringToObject(o, "name", sq_experiment_name(p->experiment));
  cJSON_AddStringToObject(o, "precision", SQ_PRECISION);
  cJSON_AddNumberToObject(o, "cells", p->cells->ncell);
  cJSON_AddNumberToObject(o, "flops", t->flops);
  cJSON_AddNumberToObject(o, "memory_bytes_rank", (double)t->cell_bytes);
  cJSON_AddNumberToObject(o, "file_bytes", (double)t->file_bytes);
  cJSON_AddNumberToObject(o, "ranks", p->ranks);
  cJSON_AddNumberToObject(o, "wall_s", t->wall_s);
  cJSON_AddNumberToObject(o, "one_rank_s", t->sum_s);
  cJSON_AddNumberToObject(o, "core_hours", t->sum_s / 3600);
  cJSON_AddNumberToObject(o, "useful_ranks", t->useful);
  cJSON_AddNumberToObject(o, "team", p->team);
  cJSON_AddNumberToObject(o, "threads", p->cells->threads);
  cJSON_AddNumberToObject(o, "idle_ranks", idle_ranks(p));
  cJSON_AddNumberToObject(o, "gemm_flops", p->gemm);
  for (int k = 0; k < p->nrow && rows; ++k) {
    const row *r = &p->row[k];
    const sq_config *cell = sq_experiment_cell(p->experiment, r->first);
    const sq_train_plan *q = &p->cells->plan[r->first];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "task", sq_config_task_label(cell));
    cJSON_AddStringToObject(j, "model", sq_config_model_label(cell));
    cJSON_AddStringToObject(j, "varied", r->varied);
    cJSON_AddNumberToObject(j, "cells", r->ncell);
    cJSON_AddNumberToObject(j, "parameters", (double)q->nparam);
    cJSON_AddNumberToObject(j, "steps", (double)q->total_steps);
    cJSON_AddNumberToObject(j, "flops_step", q->flops_step);
    cJSON_AddNumberToObject(j, "flops_cell", q->flops_total);
    cJSON_AddNumberToObject(j, "memory_bytes", (double)p->cells->bytes[r->first]);
    cJSON_AddNumberToObject(j, "step_s", r->step_s);
    cJSON_AddNumberToObject(j, "cell_s", r->cell_s);
    cJSON_AddBoolToObject(j, "timed", r->timed);
    cJSON_AddItemToArray(rows, j);
  }
  char *text = cJSON_Print(o);
  if (text) printf("%s\n", text);
  const int have = text != NULL;
  cJSON_free(text);
  cJSON_Delete(o);
  return have ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
}

/* Without --ranks: those that it was started with, else as many as this machine has cores and memory for. */
static sq_status choose_ranks(plan *p, int team)
{
  if (p->ranks == 0)
    p->ranks = sq_app_nrank() > 1 ? sq_app_nrank()
                                  : sq_cells_ranks_that_fit(p->cells, sq_cpu_count(), team > 0 ? team : 1);
  const sq_status st = sq_cells_team(p->cells, NULL, p->ranks, team, &p->team);
  if (st != SQ_OK) return st;
  const int teams = p->ranks / p->team,
            at_once = p->team * (teams < p->cells->ncell ? teams : p->cells->ncell),
            fit = sq_cells_ranks_that_fit(p->cells, at_once, p->team);
  if (fit < at_once)
    sq_warn("the memory of a machine like this one is enough for %d rank%s at once, not for %d", fit,
            fit == 1 ? "" : "s", at_once);
  return SQ_OK;
}

sq_status sq_app_plan(int argc, char **argv)
{
  static sq_words set;
  int json = 0, team = 0, threads = 0;
  plan p = {.ranks = 0, .team = 1};
  totals t;
  const sq_option opt[] = {
      {"ranks", SQ_OPT_INT, &p.ranks, 1, 1e6},    {"team", SQ_OPT_INT, &team, 1, 1 << SQ_SHARD_BITS},
      {"threads", SQ_OPT_INT, &threads, 1, 1024}, {"json", SQ_OPT_FLAG, &json, 0, 0},
      {"rate", SQ_OPT_REAL, &p.rate, 1e-3, 1e6},  {"set", SQ_OPT_LIST, &set, 0, 0}};
  sq_words w;
  sq_experiment *e = NULL;
  sq_status st;
  SQ_TRY(sq_args_parse("plan", argc, argv, opt, sizeof opt / sizeof *opt, "CONFIG", 1, 1, &w));
  SQ_TRY(sq_cells_check_team("plan", team));
  SQ_TRY(sq_app_load(w.v[0], &set, &e));
  SQ_TRY(sq_cells_create(e, threads, &p.cells));
  SQ_TRY(sq_cells_check_memory(p.cells, 1, 1));
  SQ_TRY(choose_ranks(&p, team));
  p.experiment = e;
  const size_t n = (size_t)p.cells->ncell;
  p.row = sq_calloc(n, sizeof *p.row, "plan");
  p.row_of = sq_calloc(n, sizeof *p.row_of, "plan");
  p.seconds = sq_calloc(n, sizeof *p.seconds, "plan");
  if (!p.row || !p.row_of || !p.seconds) {
    st = SQ_ERR_MEMORY;
    goto done;
  }
  SQ_TRY(rows_make(&p));
  SQ_TRY(rows_time(&p));
  SQ_TRY(totals_make(&p, &t));
  if (json) {
    SQ_TRY(print_json(&p, &t));
  } else {
    print_table(&p, &t);
  }
done:
  for (int k = 0; k < p.nrow; ++k) free(p.row[k].varied);
  free(p.row);
  free(p.row_of);
  free(p.seconds);
  sq_cells_destroy(&p.cells);
  sq_experiment_destroy(&e);
  return st;
}
