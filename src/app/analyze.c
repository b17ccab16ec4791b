/* src/app/analyze.c: `analyze`: metrics and spectra of weights from a file that anybody may have written. */
#include <cjson/cJSON.h>
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
} analysis;

/* ---- weights ----------------------------------------------------------------------------------------- */

static sq_status expected_list(sq_status st, const char *file, const sq_param_list *l, const char *problem,
                               const char *name)
{
  char list[1400] = "";
  for (int i = 0; i < l->n; ++i) {
    const size_t used = strlen(list);
    if (used + SQ_PARAM_NAME + 8 > sizeof list) {
      sq_format(list + used, sizeof list - used, ", ...");
      break;
    }
    sq_format(list + used, sizeof list - used, "%s%s", used ? ", " : "", l->v[i].name);
  }
  return sq_fail(st, "%s: %s \"%s\"; expected %d tensors: %s", file, problem, name, l->n, list);
}

/* "/params", "/weights/<cell>" or "" */
static sq_status place_of_weights(const sq_h5 *f, const char *file, int cell, char out[64])
{
  if (sq_h5_exists(f, "/params")) {
    sq_format(out, 64, "/params");
  } else if (sq_h5_exists(f, "/weights")) {
    sq_format(out, 64, "/weights/%d", cell);
    if (!sq_h5_exists(f, out))
      return sq_fail(SQ_ERR_DATA, "%s: has /weights, but no %s; --cell chooses the cell", file, out);
  } else if (sq_h5_exists(f, "/cells")) {
    return sq_fail(SQ_ERR_DATA,
                   "%s: this results file holds no weights: train with --set run.save_weights=true", file);
  } else {
    out[0] = 0;
  }
  return SQ_OK;
}

/* ---- the cell that a results file's weights come from ------------------------------------------------ */

/* The first member in which two objects differ; NULL if they are the same. */
static const char *first_difference(const cJSON *a, const cJSON *b)
{
  const cJSON *k;
  cJSON_ArrayForEach(k, a)
  {
    if (!cJSON_Compare(k, cJSON_GetObjectItemCaseSensitive(b, k->string), 1)) return k->string;
  }
  cJSON_ArrayForEach(k, b)
  {
    if (!cJSON_GetObjectItemCaseSensitive(a, k->string)) return k->string;
  }
  return NULL;
}

/* Weights of another model can have the same shapes; of another task they may be meant. */
static sq_status compare_cells(const char *file, int cell, const char *label, const cJSON *theirs,
                               const cJSON *ours, const char *our_label)
{
  static const char *const section[] = {"model", "dataset"};
  for (int i = 0; i < 2; ++i) {
    const char *key = first_difference(cJSON_GetObjectItemCaseSensitive(theirs, section[i]),
                                       cJSON_GetObjectItemCaseSensitive(ours, section[i]));
    if (key && i == 0)
      return sq_fail(SQ_ERR_USAGE,
                     "%s: /weights/%d is of cell \"%s\", and %s.%s is another than in the configuration's "
                     "cell \"%s\"; --cell chooses the cell",
                     file, cell, label, section[i], key, our_label);
    if (key) sq_note("%s: the cell \"%s\" was trained with another %s.%s", file, label, section[i], key);
  }
  if (strcmp(label, our_label) != 0)
    sq_note("%s: /weights/%d is of cell \"%s\"; the configuration's cell is \"%s\"", file, cell, label,
            our_label);
  return SQ_OK;
}

static sq_status check_cell(const char *file, int cell, const sq_config *config)
{
  sq_results *r = NULL;
  sq_status st;
  SQ_TRY(sq_results_open(file, &r));
  if (cell >= sq_results_ncell(r)) goto done; /* /weights has no such member either */
  const char *grid = sq_results_attribute(r, "grid");
  cJSON *all = grid ? cJSON_Parse(grid) : NULL, *ours = cJSON_Parse(sq_config_json(config));
  const cJSON *theirs = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(all, "cells"), cell);
  st = theirs && ours ? compare_cells(file, cell, sq_results_cell_at(r, cell)->label, theirs, ours,
                                      sq_config_label(config))
                      : sq_fail(SQ_ERR_DATA, "%s: attribute grid does not hold cell %d", file, cell);
  cJSON_Delete(all);
  cJSON_Delete(ours);
done:
  sq_results_close(&r);
  return st;
}

static sq_status check_extra(const sq_h5 *f, const char *file, const char *place, const sq_param_list *l)
{
  char **name = NULL;
  int n = 0;
  sq_status st = sq_h5_list(f, *place ? place : "/", &name, &n);
  for (int i = 0; i < n; ++i) {
    if (st == SQ_OK && !sq_param_find(l, name[i]))
      st = expected_list(SQ_ERR_DATA, file, l, "unexpected tensor", name[i]);
    free(name[i]);
  }
  free(name);
  return st;
}

static void shape_text(char out[128], int ndim, const size_t *dim)
{
  sq_format(out, 128, "(");
  for (int i = 0; i < ndim; ++i) {
    const size_t used = strlen(out);
    sq_format(out + used, 128 - used, "%s%zu", i ? ", " : "", dim[i]);
  }
  const size_t used = strlen(out);
  sq_format(out + used, 128 - used, ")");
}

static sq_status read_tensor(const sq_h5 *f, const char *file, const char *place, const sq_param *p,
                             sq_real *theta)
{
  char path[64 + SQ_PARAM_NAME + 2], is[128], expected[128];
  double *data = NULL;
  size_t dim[8], want[3];
  int ndim;
  sq_format(path, sizeof path, "%s/%s", place, p->name);
  sq_status st = sq_h5_read(f, path, &data, &ndim, dim);
  if (st != SQ_OK) return st;
  int same = ndim == p->ndim;
  for (int i = 0; i < p->ndim; ++i) {
    want[i] = (size_t)p->dim[i];
    same = same && dim[i] == want[i];
  }
  if (same) {
    for (size_t i = 0; i < p->count && st == SQ_OK; ++i) {
      theta[p->offset + i] = (sq_real)data[i];
      if (!isfinite(theta[p->offset + i]))
        st = sq_fail(SQ_ERR_DATA, "%s: %s: element %zu is not a finite number in %s", file, path, i,
                     SQ_PRECISION);
    }
  } else {
    shape_text(is, ndim, dim);
    shape_text(expected, p->ndim, want);
    st = sq_fail(SQ_ERR_DATA, "%s: %s has shape %s; the model expects %s", file, path, is, expected);
  }
  free(data);
  return st;
}

static sq_status weights_read(analysis *a, const char *file, int cell)
{
  const sq_param_list *l = sq_model_params(a->model);
  sq_h5 *f = NULL;
  char place[64], path[64 + SQ_PARAM_NAME + 2];
  sq_status st;
  a->theta = sq_calloc(l->total, sizeof *a->theta, "parameters");
  if (!a->theta) return SQ_ERR_MEMORY;
  SQ_TRY(sq_h5_open(file, &f));
  SQ_TRY(place_of_weights(f, file, cell, place));
  if (strncmp(place, "/weights", 8) == 0 && sq_h5_exists(f, "/cells"))
    SQ_TRY(check_cell(file, cell, sq_experiment_cell(a->grid, cell)));
  for (int i = 0; i < l->n; ++i) {
    sq_format(path, sizeof path, "%s/%s", place, l->v[i].name);
    if (!sq_h5_exists(f, path)) {
      st = expected_list(SQ_ERR_DATA, file, l, "no tensor", path);
      goto done;
    }
  }
  SQ_TRY(check_extra(f, file, place, l));
  for (int i = 0; i < l->n; ++i) SQ_TRY(read_tensor(f, file, place, &l->v[i], a->theta));
done:
  if (f) {
    const sq_status closed = sq_h5_close(&f);
    if (st == SQ_OK) st = closed;
  }
  return st;
}

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
  *r = (sq_train_result){
      .outcome = SQ_OUTCOME_DONE, .nparam = a->cells->plan[0].nparam, .valid_metric = NAN, .train_loss = NAN};
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
  sq_segment_fill(MPI_COMM_SELF, &segment, sq_config_int(a->config, "run.threads"));
  SQ_TRY(sq_store_segment(a->store, &segment));
  SQ_TRY(sq_store_cell_running(a->store, 0, 0, host));
  SQ_TRY(evaluate(a, &r));
  for (int p = 0; p < sq_sample_nprotocol(a->sample); ++p)
    SQ_TRY(sq_sample_run(a->sample, p, a->theta, sq_worker_work(a->worker), a->store, a->cells->group[p], 0,
                         a->cells->plan[0].nstage - 1, 0));
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
  SQ_TRY(sq_cells_create(a->experiment, &a->cells));
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
  sq_blas_set_threads(sq_config_int(a.config, "run.threads"));
  SQ_TRY(sq_model_create(a.config, a.cells->plan[0].dims, &a.model));
  SQ_TRY(weights_read(&a, o.weights, o.cell));
  SQ_TRY(sq_task_open(a.config, &a.task));
  SQ_TRY(sq_cells_check_task(a.config, &a.cells->plan[0], a.task));
  SQ_TRY(sq_worker_create(a.model, &a.worker));
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
