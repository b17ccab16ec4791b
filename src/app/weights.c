/* src/app/weights.c: parameters of one cell from a file that anybody may have written. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "sq/base.h"

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

static int member_differs(const cJSON *a, const cJSON *b, const char *key)
{
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(a, key), *y = cJSON_GetObjectItemCaseSensitive(b, key);
  return (x || y) && !cJSON_Compare(x, y, 1);
}

/* The first member in which two objects differ, "layer" before others that may follow from it; NULL if they are the
 * same, "*" if one is no object. */
static const char *first_difference(const cJSON *a, const cJSON *b)
{
  const cJSON *k;
  if (!cJSON_IsObject(a) || !cJSON_IsObject(b)) return "*";
  if (member_differs(a, b, "layer")) return "layer";
  cJSON_ArrayForEach(k, a)
  {
    if (member_differs(a, b, k->string)) return k->string;
  }
  cJSON_ArrayForEach(k, b)
  {
    if (member_differs(a, b, k->string)) return k->string;
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

static sq_status check_cell(const char *file, int cell, const sq_config *config, sq_weights_origin *origin)
{
  sq_results *r = NULL;
  sq_status st;
  SQ_TRY(sq_results_open(file, &r));
  if (cell >= sq_results_ncell(r)) goto done; /* /weights has no such member either */
  *origin = (sq_weights_origin){sq_results_cell_at(r, cell)->steps, sq_results_cell_at(r, cell)->best_step};
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

sq_status sq_weights_read(const sq_model *m, const sq_experiment *grid, const char *file, int cell,
                          sq_real *theta, sq_weights_origin *origin)
{
  sq_weights_origin from = {-1, -1};
  const sq_param_list *l = sq_model_params(m);
  sq_h5 *f = NULL;
  char place[64], path[64 + SQ_PARAM_NAME + 2];
  sq_status st;
  SQ_TRY(sq_h5_open(file, &f));
  SQ_TRY(place_of_weights(f, file, cell, place));
  if (strncmp(place, "/weights", 8) == 0 && sq_h5_exists(f, "/cells"))
    SQ_TRY(check_cell(file, cell, sq_experiment_cell(grid, cell), &from));
  for (int i = 0; i < l->n; ++i) {
    sq_format(path, sizeof path, "%s/%s", place, l->v[i].name);
    if (!sq_h5_exists(f, path)) {
      st = expected_list(SQ_ERR_DATA, file, l, "no tensor", path);
      goto done;
    }
  }
  SQ_TRY(check_extra(f, file, place, l));
  for (int i = 0; i < l->n; ++i) SQ_TRY(read_tensor(f, file, place, &l->v[i], theta));
  if (origin != NULL) *origin = from;
done:
  if (f) {
    const sq_status closed = sq_h5_close(&f);
    if (st == SQ_OK) st = closed;
  }
  return st;
}
