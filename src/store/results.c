/* src/store/results.c: reading a results file, finished or in the making.  Serial. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_impl.h"

typedef struct {
  char *name, *text;
} attribute;

struct sq_results {
  sq_layout *file; /* apart, because reading a field may open a data set */
  sq_h5 *h5;       /* the same file, for names and attributes */
  sq_results_cell *cell;
  char *text[SQ_NCOLUMN]; /* text columns: (ncell, len + 1) */
  attribute root[5];
  sq_segment segment[SQ_MAX_SEGMENTS];
  int nsegment;
};

/* ---- columns ----------------------------------------------------------------------------------------- */
/* A text column with a NUL after each entry; *stride is the distance of entries. */
static char *load_text(const sq_layout *l, hid_t d, hsize_t n, size_t *stride)
{
  const hsize_t start = 0;
  hid_t stored = H5Dget_type(d);
  const size_t len = H5Tget_size(stored);
  sq_hdf5_drop(stored);
  *stride = len + 1;
  char *text = sq_calloc((size_t)n + 1, *stride, l->path);
  if (text == NULL) return NULL;
  hid_t mem = H5Tcopy(H5T_C_S1);
  H5Tset_size(mem, *stride);
  H5Tset_cset(mem, H5T_CSET_UTF8);
  hid_t t = H5Dget_type(d);
  if (H5Tget_cset(t) != H5T_CSET_UTF8) H5Tset_cset(mem, H5T_CSET_ASCII);
  sq_hdf5_drop(t);
  if (n > 0 && sq_layout_read(d, mem, &start, &n, text) < 0) {
    sq_fail(SQ_ERR_DATA, "%s: a column of text cannot be read (%s)", l->path, sq_hdf5_cause());
    free(text);
    text = NULL;
  }
  sq_hdf5_drop(mem);
  return text;
}

static void *load_numbers(const sq_layout *l, hid_t d, const sq_column *k)
{
  const hsize_t start = 0, n = (hsize_t)l->ncell;
  const hid_t mem = k->type == SQ_COL_REAL   ? H5T_NATIVE_DOUBLE
                    : k->type == SQ_COL_UINT ? H5T_NATIVE_UINT64
                    : k->type == SQ_COL_INT  ? H5T_NATIVE_INT64
                                             : -1;
  void *v = sq_calloc((size_t)n + 1, 8, l->path);
  if (v != NULL && n > 0 && sq_layout_read(d, mem, &start, &n, v) < 0) {
    sq_fail(SQ_ERR_DATA, "%s: /cells/%s cannot be read (%s)", l->path, k->name, sq_hdf5_cause());
    free(v);
    v = NULL;
  }
  return v;
}

static void set_text(sq_results_cell *c, int column, const char *text)
{
  switch (column) {
  case SQ_C_TASK: c->task = text; break;
  case SQ_C_MODEL: c->model = text; break;
  case SQ_C_LABEL: c->label = text; break;
  case SQ_C_SWEPT: c->swept = text; break;
  case SQ_C_RECIPE: c->recipe = text; break;
  case SQ_C_REASON: c->reason = text; break;
  case SQ_C_METRIC: c->metric = text; break;
  case SQ_C_RUN_HOST: c->host = text; break;
  default: break;
  }
}

static void set_real(sq_results_cell *c, int column, double v)
{
  switch (column) {
  case SQ_C_TEST_METRIC: c->test_metric = v; break;
  case SQ_C_TEST_LOSS: c->test_loss = v; break;
  case SQ_C_VALID_METRIC: c->valid_metric = v; break;
  case SQ_C_TRAIN_LOSS: c->train_loss = v; break;
  case SQ_C_FLOPS: c->flops = v; break;
  case SQ_C_RUN_WALL: c->wall_s = v; break;
  case SQ_C_RUN_PEAK: c->peak_bytes = v; break;
  default: break;
  }
}

static void set_int(sq_results_cell *c, int column, int64_t v)
{
  switch (column) {
  case SQ_C_STEPS: c->steps = v; break;
  case SQ_C_BEST_STEP: c->best_step = v; break;
  case SQ_C_PARAMETERS: c->parameters = v; break;
  case SQ_C_RUN_RANK: c->rank = (int)v; break;
  case SQ_C_RUN_SEGMENT: c->segment = (int)v; break;
  default: break;
  }
}

static sq_status load_column(sq_results *r, int column)
{
  const sq_column *k = &sq_cell_columns[column];
  const int n = r->file->ncell;
  sq_status st = SQ_OK;
  if (k->type == SQ_COL_TEXT) {
    size_t stride;
    r->text[column] = load_text(r->file, r->file->cells[column], (hsize_t)n, &stride);
    if (r->text[column] == NULL) return SQ_ERR_DATA;
    for (int i = 0; i < n; ++i) set_text(&r->cell[i], column, r->text[column] + (size_t)i * stride);
    return SQ_OK;
  }
  void *v = load_numbers(r->file, r->file->cells[column], k);
  if (v == NULL) return SQ_ERR_DATA;
  for (int i = 0; i < n && st == SQ_OK; ++i) {
    if (k->type == SQ_COL_REAL) set_real(&r->cell[i], column, ((const double *)v)[i]);
    if (k->type == SQ_COL_INT) set_int(&r->cell[i], column, ((const int64_t *)v)[i]);
    if (column == SQ_C_SEED) r->cell[i].seed = ((const uint64_t *)v)[i];
    if (column != SQ_C_STATUS) continue;
    const signed char s = ((const signed char *)v)[i];
    if (s < SQ_CELL_WAITING || s > SQ_CELL_FAILED)
      st = sq_fail(SQ_ERR_DATA, "%s: cell %d has status %d; the file is damaged", r->file->path, i, s);
    else
      r->cell[i].status = (sq_cell_status)s;
  }
  free(v);
  return st;
}

/* ---- segments ---------------------------------------------------------------------------------------- */
static void set_segment_text(sq_segment *g, int column, const char *text)
{
  char *to[] = {g->time, g->program, g->cpu, g->blas, g->blas_kernel, g->mpi, g->hdf5, g->hosts};
  const size_t cap[] = {sizeof g->time,        sizeof g->program, sizeof g->cpu,  sizeof g->blas,
                        sizeof g->blas_kernel, sizeof g->mpi,     sizeof g->hdf5, sizeof g->hosts};
  snprintf(to[column], cap[column], "%s", text);
}

static sq_status load_segment_text(sq_results *r, int column)
{
  char path[64];
  size_t stride;
  sq_format(path, sizeof path, "/segments/%s", sq_segment_columns[column].name);
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = H5Dopen2(r->file->file, path, dapl), t = d >= 0 ? H5Dget_type(d) : -1;
  hid_t space = d >= 0 ? H5Dget_space(d) : -1;
  sq_hdf5_drop(dapl);
  const int fits = t >= 0 && H5Tget_class(t) == H5T_STRING && H5Tis_variable_str(t) == 0 &&
                   H5Tget_size(t) <= 4096 && H5Sget_simple_extent_ndims(space) == 1 &&
                   H5Sget_simple_extent_npoints(space) == SQ_MAX_SEGMENTS &&
                   sq_hdf5_check_storage(d, r->file->path, path) == SQ_OK;
  char *text = fits ? load_text(r->file, d, SQ_MAX_SEGMENTS, &stride) : NULL;
  for (int i = 0; text != NULL && i < SQ_MAX_SEGMENTS; ++i)
    set_segment_text(&r->segment[i], column, text + (size_t)i * stride);
  const int fine = text != NULL;
  free(text);
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  return fine ? SQ_OK : sq_fail(SQ_ERR_DATA, "%s: %s is missing or damaged", r->file->path, path);
}

static void set_segment_number(sq_segment *g, int column, double v)
{
  const int count = fabs(v) <= INT_MAX ? (int)v : 0;
  switch (column) {
  case SQ_S_RANKS: g->ranks = count; break;
  case SQ_S_THREADS: g->threads = count; break;
  case SQ_S_DATA: g->data_s = v; break;
  case SQ_S_FIRST_STEP: g->first_step_s = v; break;
  default: break;
  }
}

/* Segments that a damaged column lacks have no number. */
static sq_status load_segment_numbers(sq_results *r, int column)
{
  char path[64];
  double *v;
  int ndim;
  size_t dim[8];
  sq_format(path, sizeof path, "/segments/%s", sq_segment_columns[column].name);
  const sq_status st = sq_h5_read(r->h5, path, &v, &ndim, dim);
  if (st != SQ_OK) return st;
  for (size_t k = 0; k < SQ_MAX_SEGMENTS; ++k)
    set_segment_number(&r->segment[k], column, ndim == 1 && k < dim[0] ? v[k] : NAN);
  free(v);
  return SQ_OK;
}

static sq_status load_segments(sq_results *r)
{
  sq_status st = SQ_OK;
  for (int i = 0; i < SQ_S_RANKS; ++i) SQ_TRY(load_segment_text(r, i));
  for (int i = SQ_S_RANKS; i < SQ_NSEGMENT; ++i) SQ_TRY(load_segment_numbers(r, i));
  while (r->nsegment < SQ_MAX_SEGMENTS && r->segment[r->nsegment].time[0] != '\0') r->nsegment++;
done:
  return st;
}

/* ---- groups ------------------------------------------------------------------------------------------ */
static void free_names(char **name, int n)
{
  for (int i = 0; i < n; ++i) free(name[i]);
  free(name);
}

/* Whether `path` is a data set of at least two dimensions: a field. */
static int is_field(const sq_results *r, const char *path)
{
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = H5Dopen2(r->file->file, path, dapl), space = d >= 0 ? H5Dget_space(d) : -1;
  const int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : 0;
  sq_hdf5_drop(space);
  sq_hdf5_drop(d);
  sq_hdf5_drop(dapl);
  return rank >= 2;
}

static sq_status add_group(sq_results *r, const char *path)
{
  char inner[512];
  char **name = NULL;
  int n = 0, nfield = 0, cell_ndim, ndim;
  int64_t *cell = NULL, *step = NULL;
  size_t cells[8], steps[8];
  sq_status st;
  sq_format(inner, sizeof inner, "%s/cell", path);
  SQ_TRY(sq_h5_read_int(r->h5, inner, &cell, &cell_ndim, cells));
  sq_format(inner, sizeof inner, "%s/stage_step", path);
  SQ_TRY(sq_h5_read_int(r->h5, inner, &step, &ndim, steps));
  if (cell_ndim != 1 || ndim != 2 || steps[0] != cells[0] || steps[1] > 1 << 20 ||
      cells[0] > (size_t)r->file->ncell) {
    st = sq_fail(SQ_ERR_DATA, "%s: cell or stage_step of %s has an unexpected shape", r->file->path, path);
    goto done;
  }
  SQ_TRY(sq_h5_list(r->h5, path, &name, &n));
  for (int i = 0; i < n; ++i) {
    const int fits = snprintf(inner, sizeof inner, "%s/%s", path, name[i]) < (int)sizeof inner;
    if (fits && strlen(name[i]) < 100 && is_field(r, inner)) {
      char *keep = name[nfield];
      name[nfield++] = name[i];
      name[i] = keep;
    }
  }
  sq_layout_group *g = sq_layout_add_group(r->file, path, (int)cells[0], (int)steps[1], nfield);
  SQ_TRY(g != NULL ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "%s: no memory to open it", r->file->path));
  for (int f = 0; f < nfield; ++f) {
    g->field[f] = name[f];
    name[f] = NULL;
  }
  for (size_t i = 0; i < cells[0] && st == SQ_OK; ++i) {
    g->cell[i] = (int)cell[i];
    if (cell[i] < 0 || cell[i] >= r->file->ncell)
      st = sq_fail(SQ_ERR_DATA, "%s: %s/cell names cell %lld, there is none", r->file->path, path,
                   (long long)cell[i]);
  }
done:
  free_names(name, n);
  free(cell);
  free(step);
  return st;
}

/* /spectra/<task>/<model>/<protocol>: groups at depth 3. */
static sq_status scan_spectra(sq_results *r, const char *path, int depth)
{
  char **name = NULL;
  int n = 0;
  sq_status st;
  if (depth == 3) return add_group(r, path);
  if (depth == 0 && !sq_h5_exists(r->h5, path)) return SQ_OK;
  SQ_TRY(sq_h5_list(r->h5, path, &name, &n));
  for (int i = 0; i < n; ++i) {
    char inner[200];
    if (snprintf(inner, sizeof inner, "%s/%s", path, name[i]) >= (int)sizeof inner) continue;
    SQ_TRY(scan_spectra(r, inner, depth + 1));
  }
done:
  free_names(name, n);
  return st;
}

/* ---- open -------------------------------------------------------------------------------------------- */
/* Regular, readable, and not HDF5. */
static int is_other_file(const char *path)
{
  struct stat s;
  return stat(path, &s) == 0 && S_ISREG(s.st_mode) && access(path, R_OK) == 0 && H5Fis_hdf5(path) == 0;
}

static sq_status load(sq_results *r, const char *path)
{
  static const char *const wanted[] = {"program", "precision", "grid", "missing_values", "complex_numbers"};
  int version = 0;
  sq_status st;
  st = sq_h5_open(path, &r->h5);
  if (st == SQ_ERR_DATA && is_other_file(path)) {
    sq_error_clear();
    st = sq_fail(SQ_ERR_DATA, "%s: not an HDF5 file; expected a results file, as `seqspectra run` writes it",
                 path);
  }
  if (st != SQ_OK) goto done;
  if (sq_h5_is_operator_file(path)) {
    st = sq_fail(SQ_ERR_DATA,
                 "%s: a file of `seqspectra operator`, without cells; expected a results file, as "
                 "`seqspectra run` writes it",
                 path);
    goto done;
  }
  st = sq_h5_read_int_attribute(r->h5, "/", "schema_version", &version);
  if (st != SQ_OK) {
    sq_error_clear();
    st =
        sq_fail(SQ_ERR_DATA,
                "%s: not a results file of this program: HDF5 without the attribute schema_version; expected "
                "a file as `seqspectra run` writes it",
                path);
    goto done;
  }
  if (version != SQ_SCHEMA_VERSION) {
    st = sq_fail(SQ_ERR_DATA, "%s has schema version %d; this program reads %d", path, version,
                 SQ_SCHEMA_VERSION);
    goto done;
  }
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i) {
    char **text = &r->root[i].text;
    SQ_TRY(strcmp(wanted[i], "grid") == 0 ? sq_h5_read_grid(r->h5, text)
                                          : sq_h5_read_text_attribute(r->h5, "/", wanted[i], text));
    r->root[i].name = strdup(wanted[i]);
  }
  SQ_TRY(sq_layout_open(r->file, path, MPI_COMM_NULL, 0));
  r->cell = sq_calloc((size_t)r->file->ncell + 1, sizeof *r->cell, path);
  SQ_TRY(r->cell != NULL ? SQ_OK : SQ_ERR_MEMORY);
  for (int i = 0; i < SQ_NCOLUMN; ++i) SQ_TRY(load_column(r, i));
  SQ_TRY(load_segments(r));
  SQ_TRY(scan_spectra(r, "/spectra", 0));
  sq_layout_sort(r->file);
done:
  return st;
}

sq_status sq_results_open(const char *path, sq_results **out)
{
  *out = NULL;
  sq_results *r = sq_calloc(1, sizeof *r, "a results file");
  if (r == NULL) return SQ_ERR_MEMORY;
  r->file = sq_calloc(1, sizeof *r->file, "a results file");
  if (r->file == NULL) {
    free(r);
    return SQ_ERR_MEMORY;
  }
  *r->file = (sq_layout){.file = -1};
  for (int i = 0; i < SQ_NCOLUMN; ++i) r->file->cells[i] = -1;
  for (int i = 0; i < SQ_NHISTORY; ++i) r->file->history[i] = -1;
  const sq_status st = load(r, path);
  if (st != SQ_OK)
    sq_results_close(&r);
  else
    *out = r;
  return st;
}

void sq_results_close(sq_results **pr)
{
  sq_results *r = *pr;
  if (r == NULL) return;
  *pr = NULL;
  sq_layout_close(r->file);
  sq_h5_close(&r->h5);
  for (int i = 0; i < SQ_NCOLUMN; ++i) free(r->text[i]);
  for (size_t i = 0; i < sizeof r->root / sizeof r->root[0]; ++i) {
    free(r->root[i].name);
    free(r->root[i].text);
  }
  free(r->cell);
  free(r->file);
  free(r);
}

/* ---- looking ----------------------------------------------------------------------------------------- */
int sq_results_ncell(const sq_results *r)
{
  return r->file->ncell;
}

const sq_results_cell *sq_results_cell_at(const sq_results *r, int i)
{
  SQ_ASSERT(i >= 0 && i < r->file->ncell);
  return &r->cell[i];
}

const char *sq_results_attribute(const sq_results *r, const char *name)
{
  for (size_t i = 0; i < sizeof r->root / sizeof r->root[0]; ++i)
    if (r->root[i].name != NULL && strcmp(r->root[i].name, name) == 0) return r->root[i].text;
  return NULL;
}

int sq_results_nsegment(const sq_results *r)
{
  return r->nsegment;
}

const sq_segment *sq_results_segment_at(const sq_results *r, int i)
{
  SQ_ASSERT(i >= 0 && i < r->nsegment);
  return &r->segment[i];
}

int sq_results_ngroup(const sq_results *r)
{
  return r->file->ngroup;
}

static sq_layout_group *group_at(const sq_results *r, int g)
{
  SQ_ASSERT(g >= 0 && g < r->file->ngroup);
  return &r->file->group[g];
}

const char *sq_results_group_path(const sq_results *r, int g)
{
  return group_at(r, g)->path;
}

int sq_results_group_cells(const sq_results *r, int g, const int **cell)
{
  *cell = group_at(r, g)->cell;
  return group_at(r, g)->ncell;
}

int sq_results_group_nstage(const sq_results *r, int g)
{
  return group_at(r, g)->nstage;
}

static int find_field(const sq_layout_group *g, const char *field)
{
  for (int f = 0; f < g->nfield; ++f)
    if (strcmp(g->field[f], field) == 0) return f;
  return -1;
}

int sq_results_has_field(const sq_results *r, int g, const char *field)
{
  return find_field(group_at(r, g), field) >= 0;
}

sq_status sq_results_field(const sq_results *r, int g, const char *field, int row, int stage, double **data,
                           int *ndim, int dim[SQ_FIELD_AXES])
{
  sq_layout_group *group = group_at(r, g);
  const int f = find_field(group, field);
  hsize_t start[2 + SQ_FIELD_AXES] = {(hsize_t)row, (hsize_t)stage}, count[2 + SQ_FIELD_AXES];
  size_t n = 1;
  *data = NULL;
  *ndim = 0;
  if (f < 0) return sq_fail(SQ_ERR_DATA, "%s: no field '%s' in %s", r->file->path, field, group->path);
  if (row < 0 || row >= group->ncell || stage < 0 || stage >= group->nstage)
    return sq_fail(SQ_ERR_DATA, "%s: %s has no row %d, stage %d", r->file->path, group->path, row, stage);
  if (!sq_layout_field(r->file, group, f)) return SQ_ERR_DATA;
  hid_t space = H5Dget_space(group->dset[f]);
  const int rank = H5Sget_simple_extent_dims(space, count, NULL);
  sq_hdf5_drop(space);
  count[0] = count[1] = 1;
  for (int i = 2; i < rank; ++i) {
    if (count[i] > (hsize_t)1 << 30)
      return sq_fail(SQ_ERR_DATA, "%s: %s/%s is too large", r->file->path, group->path, field);
    dim[i - 2] = (int)count[i];
    n *= (size_t)count[i]; /* at most the file's size, which sq_layout_field has checked */
  }
  const int pairs = sq_layout_is_complex(group->dset[f]); /* {re, im}: one more dimension, of 2 */
  if (pairs) {
    dim[rank - 2] = 2;
    n *= 2;
  }
  double *out = sq_calloc(n > 0 ? n : 1, sizeof *out, field);
  if (out == NULL) return SQ_ERR_MEMORY;
  hid_t mem = pairs ? sq_hdf5_complex_type(H5T_NATIVE_DOUBLE) : H5Tcopy(H5T_NATIVE_DOUBLE);
  const herr_t e = n > 0 ? sq_layout_read(group->dset[f], mem, start, count, out) : 0;
  sq_hdf5_drop(mem);
  if (e < 0) {
    free(out);
    return sq_fail(SQ_ERR_DATA, "%s: %s/%s cannot be read (%s)", r->file->path, group->path, field,
                   sq_hdf5_cause());
  }
  *data = out;
  *ndim = rank - 2 + pairs;
  return SQ_OK;
}

sq_status sq_results_axis(const sq_results *r, int g, const char *axis, double **value, int *n)
{
  char path[512];
  int ndim;
  size_t dim[8];
  snprintf(path, sizeof path, "%s/%s", group_at(r, g)->path, axis);
  sq_status st = sq_h5_read(r->h5, path, value, &ndim, dim);
  if (st == SQ_OK && (ndim != 1 || dim[0] > 1 << 30)) {
    free(*value);
    *value = NULL;
    st = sq_fail(SQ_ERR_DATA, "%s: %s is not a list of coordinates", r->file->path, path);
  }
  *n = st == SQ_OK ? (int)dim[0] : 0;
  return st;
}

sq_status sq_results_history(const sq_results *r, int cell, sq_eval_record **eval, int *n)
{
  SQ_ASSERT(cell >= 0 && cell < r->file->ncell);
  const size_t m = (size_t)r->file->max_evals;
  const hsize_t start[2] = {(hsize_t)cell, 0}, count[2] = {1, m};
  int64_t *step = sq_calloc(m + 1, sizeof *step, "a history");
  double *v = sq_calloc(m + 1, (SQ_NHISTORY - 1) * sizeof *v, "a history");
  sq_eval_record *e = sq_calloc(m + 1, sizeof *e, "a history");
  sq_status st = step != NULL && v != NULL && e != NULL ? SQ_OK : SQ_ERR_MEMORY;
  *eval = NULL;
  *n = 0;
  if (st == SQ_OK && m > 0) {
    int bad = sq_layout_read(r->file->history[SQ_H_STEP], H5T_NATIVE_INT64, start, count, step) < 0;
    for (int i = SQ_H_STEP + 1; i < SQ_NHISTORY; ++i)
      bad |=
          sq_layout_read(r->file->history[i], H5T_NATIVE_DOUBLE, start, count, v + (size_t)(i - 1) * m) < 0;
    if (bad) st = sq_fail(SQ_ERR_DATA, "%s: /history cannot be read (%s)", r->file->path, sq_hdf5_cause());
  }
  for (size_t k = 0; st == SQ_OK && k < m && step[k] >= 0; ++k) {
    e[k] = (sq_eval_record){(long)step[k], v[k], v[m + k], v[2 * m + k], v[3 * m + k], v[4 * m + k]};
    *n = (int)k + 1;
  }
  free(step);
  free(v);
  if (st == SQ_OK)
    *eval = e;
  else
    free(e);
  return st;
}

sq_status sq_results_damaged(const sq_results *r, int *damaged, int *bad)
{
  const hsize_t one = 1;
  *bad = 0;
  for (int i = 0; i < r->file->ncell; ++i) {
    const sq_cell_status s = r->cell[i].status;
    if (damaged != NULL) damaged[i] = 0;
    if (s == SQ_CELL_WAITING || s == SQ_CELL_RUNNING) continue;
    const hsize_t at = (hsize_t)i;
    uint64_t was = 0, is;
    if (sq_layout_read(r->file->cells[SQ_C_CHECKSUM], H5T_NATIVE_UINT64, &at, &one, &was) < 0)
      return sq_fail(SQ_ERR_DATA, "%s: /cells/checksum cannot be read (%s)", r->file->path, sq_hdf5_cause());
    const sq_status st = sq_layout_hash(r->file, i, (int)s, &is);
    if (st != SQ_OK) return st == SQ_ERR_IO ? SQ_ERR_DATA : st;
    if (damaged != NULL) damaged[i] = was != is;
    *bad += was != is;
  }
  return SQ_OK;
}

sq_status sq_results_check(const sq_results *r, int *bad)
{
  return sq_results_damaged(r, NULL, bad);
}
