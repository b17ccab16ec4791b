/* src/app/plan.c: `plan`: what `run` would do, what it needs, and how long it would take. */
#include "plan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "progress.h"
#include "sq/base.h"
#include "sq/linalg.h"

/* Share of the matrix product's speed that a training step is taken to reach where none is timed. */
static const double assumed_efficiency = 0.25;
/* For timing cells, where nothing is said. */
static const double default_measure_s = 60;
/* What is assumed of a machine that is not at hand. */
static const double assumed_copy = 4e9, assumed_start_s = 2;
/* Of a start, where nothing is said: what most queues allow. */
static const double default_limit_s = 86400;
/* How often jobs/slurm-run.sh puts a job back, where nothing is said. */
static const int default_restarts = 200;

/* ---- rows ---------------------------------------------------------------------------------------------- */

static int same_cost(const sq_plan *p, int a, int b)
{
  const sq_config *x = sq_experiment_cell(p->experiment, a), *y = sq_experiment_cell(p->experiment, b);
  const sq_train_plan *s = &p->cells->plan[a], *t = &p->cells->plan[b];
  return strcmp(sq_config_task_label(x), sq_config_task_label(y)) == 0 &&
         strcmp(sq_config_model_label(x), sq_config_model_label(y)) == 0 && s->nparam == t->nparam &&
         s->total_steps == t->total_steps && s->flops_step == t->flops_step && s->max_evals == t->max_evals &&
         p->cells->bytes[a] == p->cells->bytes[b];
}

static sq_status rows_make(sq_plan *p)
{
  for (int i = 0; i < p->cells->ncell; ++i) {
    char *varied = sq_swept_text(sq_config_swept(sq_experiment_cell(p->experiment, i)));
    int k = 0;
    if (!varied) return sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
    while (k < p->nrow && (strcmp(p->row[k].varied, varied) != 0 || !same_cost(p, p->row[k].first, i))) ++k;
    if (k == p->nrow)
      p->row[p->nrow++] = (sq_plan_row){.first = i, .varied = varied};
    else
      free(varied);
    ++p->row[k].ncell;
    p->row_of[i] = k;
  }
  return SQ_OK;
}

/* ---- time ---------------------------------------------------------------------------------------------- */

/* An evaluation is a forward pass, a third of a step. */
static sq_cell_speed speed_at(const sq_plan *p, int cell, double flops)
{
  const sq_train_plan *t = &p->cells->plan[cell];
  const double batch = sq_config_int(sq_experiment_cell(p->experiment, cell), "train.batch_size");
  return (sq_cell_speed){.gradient_s = t->flops_step / flops,
                         .evaluation_s = t->flops_step / flops / 3 / batch};
}

/* A row of the same cost that was timed, or k: a step is timed once for all learning rates. */
static int twin_of(const sq_plan *p, int k)
{
  for (int i = 0; i < p->nrow; ++i)
    if (p->row[i].timed && same_cost(p, p->row[i].first, p->row[k].first)) return i;
  return k;
}

static sq_status row_time(sq_plan *p, int k, double start_s)
{
  sq_plan_row *r = &p->row[k];
  const int twin = twin_of(p, k), cell = r->first;
  const double guess = assumed_efficiency * fmax(p->gemm, 1e6);
  sq_status st = SQ_OK;
  if (p->rate > 0) {
    r->speed = speed_at(p, cell, p->gemm * sq_forecast_speedup(p->cells, cell));
    r->timed = 1;
  } else if (twin != k) {
    r->speed = p->row[twin].speed;
    r->timed = 1;
  } else if (sq_wall_s() - start_s < p->measure_s && p->cells->bytes[cell] < sq_memory_bytes() / 2) {
    st = sq_calibrate_cell(sq_experiment_cell(p->experiment, cell), &p->cells->plan[cell], p->cells->threads,
                           guess, &r->speed);
    r->timed = 1;
  }
  return st;
}

/* The longest cells decide how long everything takes: they are timed first. */
static sq_status rows_measure(sq_plan *p)
{
  const double start_s = sq_wall_s();
  char *seen = sq_calloc((size_t)p->nrow + 1, 1, "plan");
  sq_status st = seen ? SQ_OK : SQ_ERR_MEMORY;
  for (int n = 0; n < p->nrow && st == SQ_OK; ++n) {
    int longest = -1;
    for (int k = 0; k < p->nrow; ++k)
      if (!seen[k] && (longest < 0 || sq_cells_cost(p->cells, p->row[k].first) >
                                          sq_cells_cost(p->cells, p->row[longest].first)))
        longest = k;
    seen[longest] = 1;
    st = row_time(p, longest, start_s);
  }
  free(seen);
  return st;
}

/* FLOP/s of the rows that were timed, all together. */
static double speed_of_timed(const sq_plan *p)
{
  double flops = 0, seconds = 0;
  for (int k = 0; k < p->nrow; ++k) {
    if (!p->row[k].timed) continue;
    flops += p->cells->plan[p->row[k].first].flops_step;
    seconds += p->row[k].speed.gradient_s;
  }
  return seconds > 0 ? flops / seconds : assumed_efficiency * fmax(p->gemm, 1e6);
}

static sq_status rows_time(sq_plan *p)
{
  sq_status st = SQ_OK;
  p->gemm = p->rate > 0 ? 1e9 * p->rate : sq_calibrate_gemm();
  SQ_TRY(rows_measure(p));
  for (int k = 0; k < p->nrow; ++k)
    if (!p->row[k].timed) p->row[k].speed = speed_at(p, p->row[k].first, speed_of_timed(p));
  for (int i = 0; i < p->cells->ncell; ++i) p->speed[i] = p->row[p->row_of[i]].speed;
  for (int k = 0; k < p->nrow; ++k) p->row[k].cell_s = sq_forecast_cell_s(&p->model, p->row[k].first, 1);
done:
  return st;
}

static double either(double measured, double assumed)
{
  return measured > 0 ? measured : assumed;
}

/* The machine, but for the cells.  begun_s: when the program began; what it has done since, `run` does at each start. */
static void machine_measure(sq_plan *p, double begun_s)
{
  enum { MOST = 1 << 26 };
  sq_forecast_model *m = &p->model;
  size_t largest = 1;
  for (int i = 0; i < p->cells->ncell; ++i)
    if (p->cells->checkpoint[i] > largest) largest = p->cells->checkpoint[i];
  m->cells = p->cells;
  m->speed = p->speed;
  m->copy_rate = p->rate > 0 ? assumed_copy : either(sq_calibrate_copy(), assumed_copy);
  m->disk_rate = p->rate > 0
                     ? SQ_ASSUMED_DISK
                     : either(sq_calibrate_disk(".", largest < MOST ? largest : MOST), SQ_ASSUMED_DISK);
  m->start_s = p->rate > 0 ? assumed_start_s : sq_wall_s() - begun_s;
}

/* ---- ranks and the machine they are on --------------------------------------------------------------- */

static sq_status read_ranks(const char *text, sq_plan *p)
{
  for (const char *at = text; *at != '\0';) {
    char *end;
    const double n = strtod(at, &end);
    const int goes_on = *end == ',' && end[1] != '\0';
    if (end == at || (*end != '\0' && !goes_on) || n != floor(n) || n < 1 || n > 1e6)
      return sq_fail(SQ_ERR_USAGE,
                     "plan: --ranks=%s: expected an integer from 1 to 1e+06, or several with commas", text);
    if (p->nforecast == SQ_PLAN_FORECASTS)
      return sq_fail(SQ_ERR_USAGE, "plan: --ranks=%s: more than %d numbers", text, SQ_PLAN_FORECASTS);
    p->forecast[p->nforecast++].nrank = (int)n;
    at = goes_on ? end + 1 : end;
  }
  return SQ_OK;
}

static sq_status read_node(const char *text, sq_plan *p)
{
  char *end;
  p->node_cores = sq_cpu_count();
  p->node_bytes = (double)sq_memory_bytes();
  if (text == NULL) return SQ_OK;
  const double cores = strtod(text, &end), gb = *end == ':' ? strtod(end + 1, &end) : 0;
  if (*end != '\0' || cores != floor(cores) || cores < 1 || cores > 1e5 || !(gb > 0) || gb > 1e6)
    return sq_fail(SQ_ERR_USAGE, "plan: --node=%s: expected CORES:GB, as 48:192", text);
  p->node_cores = (int)cores;
  p->node_bytes = 1e9 * gb;
  return SQ_OK;
}

/* Without --ranks: those that it was started with, else as many as this machine has cores and memory for. */
static void default_ranks(sq_plan *p)
{
  const int team = p->model.team > 0 ? p->model.team : 1;
  if (p->nforecast > 0) return;
  const int fit = sq_cells_ranks_that_fit(p->cells, sq_cpu_count(), team);
  p->forecast[p->nforecast++].nrank = sq_app_nrank() > 1 ? sq_app_nrank() : fit > 0 ? fit : team;
}

/* Only of a machine like this one, and where nothing else is known of those that the ranks will be on. */
static void warn_of_memory(const sq_plan *p, int node_given)
{
  const sq_forecast *f = &p->forecast[0];
  const int at_once = f->nrank - f->idle, fit = sq_cells_ranks_that_fit(p->cells, at_once, f->team);
  if (node_given || fit >= at_once) return;
  if (fit == 0)
    sq_warn("the memory of a machine like this one is not enough for %s%d rank%s",
            f->team > 1 ? "a team of " : "", f->team, f->team == 1 ? "" : "s");
  else
    sq_warn("the memory of a machine like this one is enough for %d rank%s at once, not for %d", fit,
            fit == 1 ? "" : "s", at_once);
}

/* What a job of this plan would waste, or where it would end too early. */
static void warn_of_job(const sq_plan *p)
{
  const char *said = getenv("SEQSPECTRA_RESTARTS");
  const int restarts = said != NULL ? atoi(said) : default_restarts;
  const sq_forecast *most = &p->forecast[0];
  int nstart = 0;
  for (int k = 0; k < p->nforecast; ++k) {
    nstart = sq_max(nstart, p->forecast[k].nstart);
    if (p->forecast[k].nrank > most->nrank) most = &p->forecast[k];
  }
  if (most->nrank > p->useful)
    sq_warn("%d ranks: more than %d are of no use, and are charged; %d would be idle", most->nrank, p->useful,
            most->idle);
  if (p->model.warning_s <= 0)
    sq_note("--time-limit=%g: of no use for a job, which is told to stop %d s before its end",
            p->model.time_limit_s, SQ_PLAN_WARNING_S);
  if (nstart - 1 > restarts)
    sq_note("%d starts: a job is put back %d times, then it has to be submitted again (SEQSPECTRA_RESTARTS)",
            nstart, restarts);
}

/* Why no rank fits on a node. */
static sq_status fail_no_rank(const sq_plan *p, const char *node, const sq_plan_totals *t)
{
  char cell[32], program[32], data[32];
  if (p->cells->threads > p->node_cores)
    return sq_fail(SQ_ERR_USAGE, "plan: %s: a rank has %d threads, this node %d core%s", node,
                   p->cells->threads, p->node_cores, p->node_cores == 1 ? "" : "s");
  sq_format_bytes(cell, (double)t->cell_bytes);
  sq_format_bytes(program, (double)t->base_bytes);
  sq_format_bytes(data, (double)t->shared_bytes);
  return sq_fail(SQ_ERR_USAGE,
                 "plan: %s: no rank fits: the largest cell needs %s of memory, the program %s, the data "
                 "%s, and a tenth as margin",
                 node, cell, program, data);
}

/* As on this machine: what cannot run is refused; where nothing is said of the nodes, there is no job to submit. */
static sq_status check_node(const sq_plan *p, const char *node, const sq_plan_totals *t)
{
  char name[64];
  if (t->ranks_node > 0) return SQ_OK;
  if (node == NULL) {
    (void)fail_no_rank(p, "a node like this machine", t);
    sq_warn("%s; no line for sbatch: --node CORES:GB says what the nodes have", sq_error_text());
    sq_error_clear();
    return SQ_OK;
  }
  sq_format(name, sizeof name, "--node=%s", node);
  return fail_no_rank(p, name, t);
}

static sq_status forecasts_make(sq_plan *p)
{
  sq_status st = SQ_OK;
  for (int k = 0; k < p->nforecast; ++k)
    SQ_TRY(sq_forecast_run(&p->model, p->forecast[k].nrank, &p->forecast[k]));
  SQ_TRY(sq_forecast_useful(&p->model, &p->useful));
  for (int k = 0; k < p->nforecast; ++k)
    p->forecast[k].limit = sq_forecast_limit(&p->model, &p->forecast[k], p->useful);
done:
  return st;
}

static void plan_clear(sq_plan *p)
{
  for (int k = 0; k < p->nrow; ++k) free(p->row[k].varied);
  free(p->row);
  free(p->row_of);
  free(p->speed);
  free(p->options);
  sq_cells_destroy(&p->cells);
}

/* What a run takes from this command line, as words of a shell. */
static sq_status write_options(sq_plan *p, const sq_words *set, int team, int threads)
{
  size_t size = 0;
  FILE *f = open_memstream(&p->options, &size);
  if (f == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
  for (int i = 0; i < set->n; ++i) {
    fputs(" --set ", f);
    sq_plan_word(f, set->v[i]);
  }
  if (team > 0) fprintf(f, " --team %d", team);
  if (threads > 0) fprintf(f, " --threads %d", threads);
  return fclose(f) == 0 ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
}

sq_status sq_app_plan(int argc, char **argv)
{
  static sq_words set;
  static sq_plan p;
  const double begun_s = sq_wall_s();
  int json = 0, team = 0, threads = 0;
  const char *ranks = "", *node = NULL;
  sq_plan_totals t = {0};
  p.model.time_limit_s = default_limit_s;
  p.measure_s = default_measure_s;
  const sq_option opt[] = {{"ranks", SQ_OPT_TEXT, &ranks, 0, 0},
                           {"team", SQ_OPT_INT, &team, 1, 1 << SQ_SHARD_BITS},
                           {"threads", SQ_OPT_INT, &threads, 1, 1024},
                           {"time-limit", SQ_OPT_TIME, &p.model.time_limit_s, 1, 1e9},
                           {"node", SQ_OPT_TEXT, &node, 0, 0},
                           {"json", SQ_OPT_FLAG, &json, 0, 0},
                           {"rate", SQ_OPT_REAL, &p.rate, 1e-3, 1e6},
                           {"set", SQ_OPT_LIST, &set, 0, 0},
                           {"measure", SQ_OPT_TIME, &p.measure_s, 0, 1e6}};
  sq_words w;
  sq_experiment *e = NULL;
  sq_status st;
  SQ_TRY(sq_args_parse("plan", argc, argv, opt, sizeof opt / sizeof *opt, "CONFIG", 1, 1, &w));
  SQ_TRY(sq_cells_check_team("plan", team));
  SQ_TRY(read_ranks(ranks, &p));
  SQ_TRY(read_node(node, &p));
  SQ_TRY(write_options(&p, &set, team, threads));
  SQ_TRY(sq_app_load(w.v[0], &set, &e));
  SQ_TRY(sq_cells_create(e, threads, &p.cells));
  SQ_TRY(sq_cells_check_memory(p.cells, 1, 1));
  p.model.warning_s = p.model.time_limit_s > 2 * SQ_PLAN_WARNING_S ? SQ_PLAN_WARNING_S : 0;
  p.config = w.v[0];
  p.experiment = e;
  p.model.team = team > 0 ? team : sq_cells_said_team(p.cells);
  default_ranks(&p);
  const size_t n = (size_t)p.cells->ncell;
  p.row = sq_calloc(n, sizeof *p.row, "plan");
  p.row_of = sq_calloc(n, sizeof *p.row_of, "plan");
  p.speed = sq_calloc(n, sizeof *p.speed, "plan");
  if (!p.row || !p.row_of || !p.speed) {
    st = SQ_ERR_MEMORY;
    goto done;
  }
  machine_measure(&p, begun_s);
  SQ_TRY(rows_make(&p));
  SQ_TRY(rows_time(&p));
  SQ_TRY(forecasts_make(&p));
  warn_of_memory(&p, node != NULL);
  warn_of_job(&p);
  SQ_TRY(sq_plan_sum(&p, &t));
  SQ_TRY(check_node(&p, node, &t));
  if (json)
    st = sq_plan_print_json(&p, &t);
  else
    sq_plan_print(&p, &t);
done:
  free(t.sbatch);
  plan_clear(&p);
  sq_experiment_destroy(&e);
  return st;
}
