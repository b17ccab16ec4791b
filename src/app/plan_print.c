/* src/app/plan_print.c: a plan as text and as JSON. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bytes.h"
#include "plan.h"
#include "progress.h"
#include "sq/base.h"
#include "sq/linalg.h"

const char *sq_limit_name(sq_limit l)
{
  return l == SQ_LIMIT_WORK ? "work" : l == SQ_LIMIT_CELL ? "longest cell" : "whole cells";
}

static double efficiency(const sq_forecast *f)
{
  return f->work_s / (f->nrank * f->wall_s);
}

/* ---- text ---------------------------------------------------------------------------------------------- */

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

static void format_own_unit(char out[32], double s)
{
  const time_unit u = unit_for(s);
  sq_format(out, 32, s / u.seconds >= 100 ? "%.0f %s" : "%.3g %s", s / u.seconds, u.name);
}

static double longest_cell(const sq_plan *p)
{
  double longest = 0;
  for (int k = 0; k < p->nrow; ++k) longest = fmax(longest, p->row[k].cell_s);
  return longest;
}

/* Three digits, and no powers of ten. */
static const char *format_number(char out[32], double x)
{
  if (x > 0 && x < 0.001)
    sq_format(out, 32, "under 0.001");
  else
    sq_format(out, 32, x >= 999.5 ? "%.0f" : "%.3g", x);
  return out;
}

static const char *plural(int n)
{
  return n == 1 ? "" : "s";
}

static void print_useful(const sq_plan *p)
{
  if (p->useful == 1)
    printf("a second rank is of no use\n");
  else
    printf("more than %d ranks are of no use\n", p->useful);
}

static void print_one_forecast(const sq_plan *p, const sq_plan_totals *t)
{
  const sq_forecast *f = &p->forecast[0];
  const time_unit cell = unit_for(longest_cell(p)),
                  unit = f->work_s < 1000 * cell.seconds ? cell : unit_for(f->work_s);
  char a[32], b[32], c[32];
  format_time(a, f->wall_s, unit);
  format_time(b, f->work_s, unit);
  format_time(c, f->work_s / f->nrank, unit);
  printf("about %s on %d rank%s", a, f->nrank, plural(f->nrank));
  if (p->cells->threads > 1) printf(" of %d threads", p->cells->threads);
  if (f->team > 1) printf(" in teams of %d", f->team);
  if (f->nrank > 1) printf(" (%s on one; %s if shared evenly)", b, c);
  printf(", %s core-hours of work, %s charged (ranks x threads x wall)", format_number(a, t->core_hours),
         format_number(b, sq_plan_charged(p, f)));
  format_own_unit(a, p->model.time_limit_s);
  if (f->nstart > 1) printf("; %d starts of %s", f->nstart, a);
  if (f->idle > 0) printf("; %d of them idle", f->idle);
  printf("; ");
  print_useful(p);
}

static void print_forecasts(const sq_plan *p, const sq_plan_totals *t)
{
  char number[32], start[32];
  printf("%8s %5s %8s %7s %10s %10s %11s %10s  %s\n", "ranks", "team", "idle", "starts", "wall", "bound",
         "efficiency", "charged", "limited by");
  for (int k = 0; k < p->nforecast; ++k) {
    const sq_forecast *f = &p->forecast[k];
    char a[32], b[32];
    format_own_unit(a, f->wall_s);
    format_own_unit(b, f->bound_s);
    printf("%8d %5d %8d %7d %10s %10s %9.1f %% %10s  %s\n", f->nrank, f->team, f->idle, f->nstart, a, b,
           100 * efficiency(f), format_number(number, sq_plan_charged(p, f)), sq_limit_name(f->limit));
  }
  format_own_unit(start, p->model.time_limit_s);
  printf("%s core-hours of work; charged: core-hours, ranks x threads x wall; starts of %s; ",
         format_number(number, t->core_hours), start);
  print_useful(p);
}

static void print_needs(const sq_plan *p, const sq_plan_totals *t)
{
  char a[32], b[32], c[32];
  format_own_unit(a, t->path_s);
  format_own_unit(b, t->path_team_s);
  printf("critical path: %s, %s on one rank", sq_cells_label(p->cells, t->longest), a);
  if (t->path_team > 1) printf(", %s in a team of %d", b, t->path_team);
  sq_format_bytes(a, (double)t->base_bytes);
  sq_format_bytes(b, (double)t->shared_bytes);
  sq_format_bytes(c, p->node_bytes);
  printf("\nnodes: a rank takes %s more for the program itself, a node %s for the data; %d rank%s on %d "
         "cores and %s\n",
         a, b, t->ranks_node, plural(t->ranks_node), p->node_cores, c);
  sq_format_bytes(a, (double)t->checkpoints_bytes);
  sq_format_bytes(b, (double)t->checkpoint_bytes);
  format_own_unit(c, t->checkpoint_s);
  printf("disk: checkpoints up to %s (one: %s, %s, %.2g %% of the time), %d files\n", a, b, c,
         100 * t->checkpoint_share, t->inodes);
  if (t->sbatch != NULL) printf("%s\n", t->sbatch);
}

/* The jobs run other kernels than were timed here: they pin them (jobs/README.md). */
static int others_in_jobs(const sq_blas_info *b)
{
  return strncmp(b->name, "OpenBLAS", 8) == 0 && getenv("OPENBLAS_CORETYPE") == NULL &&
         strcasecmp(b->kernel, "Haswell") != 0;
}

static void print_totals(const sq_plan *p, const sq_plan_totals *t)
{
  char a[32], b[32];
  sq_format_bytes(a, (double)t->cell_bytes);
  sq_format_bytes(b, (double)t->file_bytes);
  printf(
      "\n%d cell%s, %.3g FLOP; a cell takes up to %s of its rank's memory in teams of %d; results file %s\n",
      p->cells->ncell, plural(p->cells->ncell), t->flops, a, p->forecast[0].team, b);
  if (p->nforecast == 1)
    print_one_forecast(p, t);
  else
    print_forecasts(p, t);
  print_needs(p, t);
  if (p->rate > 0) {
    printf("Times: training steps at %.3g GFLOP/s a core (--rate), evaluations as a third of a step; spectra "
           "not counted; checkpoints at %.3g MB/s, assumed.\n",
           p->rate, p->model.disk_rate / 1e6);
    return;
  }
  const sq_blas_info blas = sq_blas_describe();
  printf("Times: steps, evaluations and spectra on random tokens of full length, timed here%s;\n"
         "checkpoints at %.3g MB/s, as into a file in this folder, which the system may keep in memory.\n"
         "Matrix products run at %.3g GFLOP/s a rank (%s%s%s).%s\n",
         t->all_timed ? ""
                      : " (*: not timed, taken at the speed of the others, without spectra; --measure TIME)",
         p->model.disk_rate / 1e6, p->gemm / 1e9, SQ_PRECISION, *blas.kernel ? ", kernel " : "", blas.kernel,
         others_in_jobs(&blas) ? " The job scripts take Haswell's unless OPENBLAS_CORETYPE is set." : "");
}

static int longer(int width, const char *text)
{
  const int n = (int)strlen(text);
  return n > width ? n : width;
}

void sq_plan_print(const sq_plan *p, const sq_plan_totals *t)
{
  const time_unit unit = unit_for(longest_cell(p));
  char a[32], b[32], c[32];
  int width = 5, varied = 6;
  for (int k = 0; k < p->nrow; ++k) {
    width = longer(width, sq_config_model_label(sq_experiment_cell(p->experiment, p->row[k].first)));
    varied = longer(varied, p->row[k].varied);
  }
  printf("%-8s %-*s %-*s %5s %10s %8s %11s %11s %9s %9s\n", "task", width, "model", varied, "varied", "cells",
         "parameters", "steps", "GFLOP/step", "FLOP/cell", "memory", "time/cell");
  for (int k = 0; k < p->nrow; ++k) {
    const sq_plan_row *r = &p->row[k];
    const sq_config *cell = sq_experiment_cell(p->experiment, r->first);
    const sq_train_plan *q = &p->cells->plan[r->first];
    sq_format_bytes(a, (double)p->cells->bytes[r->first]);
    format_time(b, r->cell_s, unit);
    printf("%-8s %-*s %-*s %5d %10ld %8ld %11s %11.3g %9s %9s%s\n", sq_config_task_label(cell), width,
           sq_config_model_label(cell), varied, *r->varied ? r->varied : "-", r->ncell, q->nparam,
           q->total_steps, format_number(c, q->flops_step / 1e9), q->flops_total, a, b, r->timed ? "" : "*");
  }
  print_totals(p, t);
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

static void add_totals(const sq_plan *p, const sq_plan_totals *t, cJSON *o)
{
  const sq_forecast *f = &p->forecast[0];
  const struct {
    const char *name;
    double value;
  } number[] = {{"cells", p->cells->ncell},
                {"flops", t->flops},
                {"memory_bytes_rank", (double)t->cell_bytes},
                {"base_bytes_rank", (double)t->base_bytes},
                {"shared_bytes_node", (double)t->shared_bytes},
                {"file_bytes", (double)t->file_bytes},
                {"checkpoint_bytes", (double)t->checkpoint_bytes},
                {"checkpoint_s", t->checkpoint_s},
                {"checkpoint_share", t->checkpoint_share},
                {"checkpoints_bytes", (double)t->checkpoints_bytes},
                {"inodes", t->inodes},
                {"ranks", f->nrank},
                {"wall_s", f->wall_s},
                {"one_rank_s", f->work_s},
                {"core_hours", t->core_hours},
                {"core_hours_charged", sq_plan_charged(p, f)},
                {"useful_ranks", p->useful},
                {"team", f->team},
                {"threads", p->cells->threads},
                {"idle_ranks", f->idle},
                {"starts", f->nstart},
                {"time_limit_s", p->model.time_limit_s},
                {"start_s", p->model.start_s},
                {"critical_path_s", t->path_s},
                {"critical_path_team_s", t->path_team_s},
                {"critical_path_team", t->path_team},
                {"ranks_node", t->ranks_node},
                {"nodes", t->nodes},
                {"copy_bytes_s", p->model.copy_rate},
                {"disk_bytes_s", p->model.disk_rate},
                {"gemm_flops", p->gemm}};
  cJSON_AddStringToObject(o, "name", sq_experiment_name(p->experiment));
  cJSON_AddStringToObject(o, "precision", SQ_PRECISION);
  for (size_t i = 0; i < sizeof number / sizeof *number; ++i)
    cJSON_AddNumberToObject(o, number[i].name, number[i].value);
  cJSON_AddStringToObject(o, "critical_path", sq_cells_label(p->cells, t->longest));
  cJSON_AddStringToObject(o, "sbatch", t->sbatch != NULL ? t->sbatch : "");
}

static void add_forecasts(const sq_plan *p, cJSON *array)
{
  for (int k = 0; k < p->nforecast && array; ++k) {
    const sq_forecast *f = &p->forecast[k];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddNumberToObject(j, "ranks", f->nrank);
    cJSON_AddNumberToObject(j, "team", f->team);
    cJSON_AddNumberToObject(j, "idle_ranks", f->idle);
    cJSON_AddNumberToObject(j, "starts", f->nstart);
    cJSON_AddNumberToObject(j, "wall_s", f->wall_s);
    cJSON_AddNumberToObject(j, "bound_s", f->bound_s);
    cJSON_AddNumberToObject(j, "efficiency", efficiency(f));
    cJSON_AddNumberToObject(j, "core_hours_charged", sq_plan_charged(p, f));
    cJSON_AddStringToObject(j, "limited_by", sq_limit_name(f->limit));
    cJSON_AddItemToArray(array, j);
  }
}

static void add_rows(const sq_plan *p, cJSON *array)
{
  for (int k = 0; k < p->nrow && array; ++k) {
    const sq_plan_row *r = &p->row[k];
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
    cJSON_AddNumberToObject(j, "checkpoint_bytes", (double)p->cells->checkpoint[r->first]);
    cJSON_AddNumberToObject(j, "step_s", r->speed.gradient_s + r->speed.optimiser_s);
    cJSON_AddNumberToObject(j, "evaluation_s", r->speed.evaluation_s);
    cJSON_AddNumberToObject(j, "init_s", r->speed.init_s);
    cJSON_AddNumberToObject(j, "spectra_s", r->speed.spectra_s);
    cJSON_AddNumberToObject(j, "cell_s", r->cell_s);
    cJSON_AddBoolToObject(j, "timed", r->timed && p->rate <= 0);
    cJSON_AddItemToArray(array, j);
  }
}

sq_status sq_plan_print_json(const sq_plan *p, const sq_plan_totals *t)
{
  cJSON *o = cJSON_CreateObject();
  cJSON *rows = cJSON_AddArrayToObject(o, "rows"), *forecasts = cJSON_AddArrayToObject(o, "forecasts");
  add_totals(p, t, o);
  add_forecasts(p, forecasts);
  add_rows(p, rows);
  char *text = cJSON_Print(o);
  if (text) printf("%s\n", text);
  const int have = text != NULL;
  cJSON_free(text);
  cJSON_Delete(o);
  return have ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
}
