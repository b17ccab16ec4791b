/* src/app/analyze.c: `analyze`: metrics and spectra of weights from a file that anybody may have written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "cells.h"
#include "sq/base.h"
#include "sq/linalg.h"

typedef struct {
  const char *weights, *out, *factors;
  int cell;
  sq_words set;
} options;

typedef struct {
  sq_experiment *grid, *experiment; /* as loaded; the one cell */
  sq_cells *cells;
  const sq_config *config;
  sq_task *task;
  sq_model *model;
  sq_worker *worker;
  sq_real *theta;
  sq_sample *sample;
  sq_store *store;
  void *batch;
  size_t *index;
  sq_weights_origin trained;
} analysis;

/* ---- metric and spectra ------------------------------------------------------------------------------ */

static sq_status evaluate(analysis *a, sq_train_result *r)
{
  const sq_task_info *info = sq_task_describe(a->task);
  const int batch = sq_config_int(a->config, "train.batch_size");
  const sq_padding pad = sq_train_padding(a->config);
  sq_tally sum = {0};
  a->batch = sq_calloc(1, sq_task_batch_bytes(info, batch), "evaluation batch");
  a->index = sq_calloc((size_t)batch, sizeof *a->index, "evaluation batch");
  if (!a->batch || !a->index) return SQ_ERR_MEMORY;
  for (size_t first = 0; first < info->size[SQ_TEST]; first += (size_t)batch) {
    const size_t left = info->size[SQ_TEST] - first;
    const int n = left < (size_t)batch ? (int)left : batch;
    sq_batch b;
    sq_tally t;
    for (int i = 0; i < n; ++i) a->index[i] = first + (size_t)i;
    sq_task_batch(a->task, SQ_TEST, n, a->index, pad, a->batch, &b);
    sq_batch_evaluate(a->worker, a->theta, &b, &t);
    sum.loss_sum += t.loss_sum;
    sum.nlabel += t.nlabel;
    sum.ncorrect += t.ncorrect;
  }
  *r = (sq_train_result){.outcome = SQ_OUTCOME_DONE,
                         .nparam = a->cells->plan[0].nparam,
                         .steps = a->trained.steps,
                         .best_step = a->trained.best_step,
                         .flops = NAN,
                         .valid_metric = NAN,
                         .train_loss = NAN};
  r->test_loss = sum.loss_sum / (double)sum.nlabel;
  r->test_metric =
      strcmp(info->metric, "perplexity") == 0 ? exp(r->test_loss) : (double)sum.ncorrect / (double)sum.nlabel;
  return SQ_OK;
}

static sq_status file_write(analysis *a, const char *out)
{
  const sq_store_plan plan = sq_cells_store_plan(a->cells);
  const double start = sq_wall_s();
  sq_segment segment;
  sq_train_result r;
  sq_status st;
  int n;
  char host[MPI_MAX_PROCESSOR_NAME];
  MPI_Get_processor_name(host, &n);
  SQ_TRY(sq_store_create(MPI_COMM_SELF, out, &plan, &a->store));
  sq_segment_fill(MPI_COMM_SELF, &segment, a->cells->threads);
  SQ_TRY(sq_store_segment(a->store, &segment));
  SQ_TRY(sq_store_cell_running(a->store, 0, 0, host));
  SQ_TRY(evaluate(a, &r));
  for (int p = 0; p < sq_sample_nprotocol(a->sample); ++p)
    SQ_TRY(sq_sample_run(a->sample, p, a->theta, sq_worker_work(a->worker), a->store, a->cells->group[p], 0,
                         a->cells->plan[0].nstage - 1, a->trained.best_step));
  if (a->cells->weights[0]) SQ_TRY(sq_store_weights(a->store, 0, a->cells->weights[0], a->theta));
  SQ_TRY(sq_store_cell_end(a->store, 0, SQ_CELL_DONE, "", &r, sq_wall_s() - start));
  SQ_TRY(sq_store_close(&a->store));
done:
  return st;
}

/* ---- the command ------------------------------------------------------------------------------------- */

static sq_status one_cell(analysis *a, const char *path, options *o)
{
  sq_status st;
  if (o->set.n == SQ_MAX_WORDS) return sq_fail(SQ_ERR_USAGE, "analyze: too many --set");
  o->set.v[o->set.n++] = "analysis.snapshots=0"; /* the only stage is `trained` */
  SQ_TRY(sq_app_load(path, &o->set, &a->grid));
  const int n = sq_experiment_ncell(a->grid);
  if (o->cell >= n)
    return sq_fail(SQ_ERR_USAGE, "analyze: --cell %d: %s has %d cell%s, counted from 0", o->cell, path, n,
                   n == 1 ? "" : "s");
  SQ_TRY(sq_experiment_parse(sq_app_schema(), sq_config_json(sq_experiment_cell(a->grid, o->cell)), path,
                             &a->experiment));
  a->config = sq_experiment_cell(a->experiment, 0);
  SQ_TRY(sq_cells_create(a->experiment, 0, &a->cells));
  SQ_TRY(sq_cells_check_memory(a->cells, 1, 1));
done:
  return st;
}

static void analysis_clear(analysis *a)
{
  if (a->store) sq_store_close(&a->store);
  sq_sample_destroy(&a->sample);
  sq_worker_destroy(&a->worker);
  sq_model_destroy(&a->model);
  sq_task_close(&a->task);
  sq_cells_destroy(&a->cells);
  sq_experiment_destroy(&a->experiment);
  sq_experiment_destroy(&a->grid);
  free(a->theta);
  free(a->batch);
  free(a->index);
}

static sq_status parse(int argc, char **argv, options *o, sq_words *w)
{
  const sq_option opt[] = {{"weights", SQ_OPT_TEXT, &o->weights, 0, 0},
                           {"cell", SQ_OPT_INT, &o->cell, 0, 1e6},
                           {"out", SQ_OPT_TEXT, &o->out, 0, 0},
                           {"set", SQ_OPT_LIST, &o->set, 0, 0},
                           {"factors", SQ_OPT_TEXT, &o->factors, 0, 0}};
  const sq_status st = sq_args_parse("analyze", argc, argv, opt, sizeof opt / sizeof *opt, "CONFIG", 0, 1, w);
  if (st != SQ_OK) return st;
  if (o->factors)
    return sq_fail(SQ_ERR_USAGE,
                   "analyze --factors is reserved: reading dumped factors is not part of this version");
  if (w->n == 0) return sq_fail(SQ_ERR_USAGE, "analyze: CONFIG is missing; usage: seqspectra help analyze");
  if (!o->weights)
    return sq_fail(SQ_ERR_USAGE, "analyze: --weights FILE.h5 is missing; usage: seqspectra help analyze");
  return SQ_OK;
}

sq_status sq_app_analyze(int argc, char **argv)
{
  static options o; /* the list of words is too large for a stack */
  static sq_words w;
  analysis a = {0};
  char out[4096];
  sq_status st;
  SQ_TRY(parse(argc, argv, &o, &w));
  SQ_TRY(one_cell(&a, w.v[0], &o));
  const int len = o.out ? snprintf(out, sizeof out, "%s", o.out)
                        : snprintf(out, sizeof out, "%s-analysis.h5", sq_experiment_name(a.grid));
  if (len >= (int)sizeof out) {
    st = sq_fail(SQ_ERR_USAGE, "analyze: the name of the results file is too long");
    goto done;
  }
  if (access(out, F_OK) == 0) {
    st = sq_fail(SQ_ERR_USAGE, "analyze: %s exists; choose another --out", out);
    goto done;
  }
  const sq_crew crew = {.threads = a.cells->threads};
  sq_blas_set_threads(1);
  SQ_TRY(sq_model_create(a.config, a.cells->plan[0].dims, &a.model));
  a.theta = sq_calloc(sq_model_params(a.model)->total, sizeof *a.theta, "parameters");
  SQ_TRY(a.theta ? SQ_OK : SQ_ERR_MEMORY);
  SQ_TRY(sq_weights_read(a.model, a.grid, o.weights, o.cell, a.theta, &a.trained));
  SQ_TRY(sq_task_open(a.config, &a.task));
  SQ_TRY(sq_cells_check_task(a.config, &a.cells->plan[0], a.task));
  SQ_TRY(sq_worker_create(a.model, sq_train_nshard(a.config), &crew, &a.worker));
  SQ_TRY(sq_sample_create(a.config, a.model, a.task, &a.sample));
  SQ_TRY(file_write(&a, out));
  SQ_TRY(sq_report_print(out, "accuracy", "md", stdout));
  printf("\n");
  SQ_TRY(sq_report_print(out, "spectra", "md", stdout));
  printf("\nresults: %s\n", out);
done:
  analysis_clear(&a);
  return st;
}
