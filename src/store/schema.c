/* src/store/schema.c: the columns, and laying a new file out.
 *
 * One process makes the file with the serial driver, under a temporary name, and gives it its name when it is
 * complete: the other ranks only open it.  So a file that has its name can always be opened, an error while
 * making it is one rank's to report, and every block is on the disk before the first cell is trained: a full
 * disk shows at the start, not after a night. The order of everything here fixes the bytes: equal plans give
 * equal files. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_impl.h"

const sq_column sq_cell_columns[SQ_NCOLUMN] = {
    [SQ_C_TASK] = {"task", SQ_COL_TEXT, 0, "", "task"},
    [SQ_C_MODEL] = {"model", SQ_COL_TEXT, 0, "", "model"},
    [SQ_C_LABEL] = {"label", SQ_COL_TEXT, 0, "", "model and swept values"},
    [SQ_C_SWEPT] = {"swept", SQ_COL_TEXT, 0, "", "swept keys and their values, JSON"},
    [SQ_C_CONFIG] = {"config", SQ_COL_TEXT, 0, "", "resolved configuration, JSON"},
    [SQ_C_RECIPE] = {"recipe", SQ_COL_TEXT, 16, "", "training recipe: corrected or published"},
    [SQ_C_SEED] = {"seed", SQ_COL_UINT, 0, "1", "seed of all random numbers"},
    [SQ_C_METRIC] = {"metric", SQ_COL_TEXT, 0, "", "name of the metric"},
    [SQ_C_REASON] = {"reason", SQ_COL_TEXT, 256, "", "why the cell diverged or failed"},
    [SQ_C_STEPS] = {"steps", SQ_COL_INT, 0, "step", "training steps done"},
    [SQ_C_BEST_STEP] = {"best_step", SQ_COL_INT, 0, "step", "training step of the best validation metric"},
    [SQ_C_PARAMETERS] = {"parameters", SQ_COL_INT, 0, "1", "number of trained parameters"},
    [SQ_C_TEST_METRIC] = {"test_metric", SQ_COL_REAL, 0, "1", "metric on the test set"},
    [SQ_C_TEST_LOSS] = {"test_loss", SQ_COL_REAL, 0, "nat", "loss on the test set, a label"},
    [SQ_C_VALID_METRIC] = {"valid_metric", SQ_COL_REAL, 0, "1", "metric on the validation set"},
    [SQ_C_TRAIN_LOSS] = {"train_loss", SQ_COL_REAL, 0, "nat", "loss on the training set, a label"},
    [SQ_C_FLOPS] = {"flops", SQ_COL_REAL, 0, "1", "floating-point operations of all training steps"},
    [SQ_C_STATUS] = {"status", SQ_COL_STATUS, 0, "",
                     "state of the cell: 0 waiting, 1 running, 2 done, 3 diverged, 4 failed"},
    [SQ_C_CHECKSUM] = {"checksum", SQ_COL_UINT, 0, "", "FNV-1a of the cell's rows"},
    [SQ_C_RUN_WALL] = {"run_wall_s", SQ_COL_REAL, 0, "s", "wall time, all starts together"},
    [SQ_C_RUN_PEAK] = {"run_peak_bytes", SQ_COL_REAL, 0, "byte",
                       "peak memory of the rank at the end of the cell"},
    [SQ_C_RUN_RANK] = {"run_rank", SQ_COL_INT, 0, "", "rank that trains or trained the cell"},
    [SQ_C_RUN_HOST] = {"run_host", SQ_COL_TEXT, 64, "", "its host"},
    [SQ_C_RUN_SEGMENT] = {"run_segment", SQ_COL_INT, 0, "",
                          "row of /segments in which the cell ended or last started"},
};
const sq_column sq_history_columns[SQ_NHISTORY] = {
    [SQ_H_STEP] = {"step", SQ_COL_INT, 0, "step", "training step of the evaluation"},
    [SQ_H_TRAIN_LOSS] = {"train_loss", SQ_COL_REAL, 0, "nat",
                         "training loss since the evaluation before, a label"},
    [SQ_H_VALID_LOSS] = {"valid_loss", SQ_COL_REAL, 0, "nat", "validation loss, a label"},
    [SQ_H_VALID_METRIC] = {"valid_metric", SQ_COL_REAL, 0, "1", "validation metric"},
    [SQ_H_LR] = {"lr", SQ_COL_REAL, 0, "1", "learning rate of the step before the evaluation"},
    [SQ_H_GRAD_NORM] = {"grad_norm", SQ_COL_REAL, 0, "1", "gradient norm of that step, before clipping"},
};
const sq_column sq_segment_columns[SQ_NSEGMENT] = {
    [SQ_S_TIME] = {"time", SQ_COL_TEXT, 32, "", "when this start or resume began, UTC"},
    [SQ_S_PROGRAM] = {"program_version", SQ_COL_TEXT, 64, "", "version of the program"},
    [SQ_S_CPU] = {"cpu", SQ_COL_TEXT, 96, "", "processor"},
    [SQ_S_BLAS] = {"blas", SQ_COL_TEXT, 96, "", "BLAS library"},
    [SQ_S_KERNEL] = {"blas_kernel", SQ_COL_TEXT, 32, "", "processor type whose BLAS kernels ran"},
    [SQ_S_MPI] = {"mpi", SQ_COL_TEXT, 96, "", "MPI library"},
    [SQ_S_HDF5] = {"hdf5", SQ_COL_TEXT, 32, "", "HDF5 library"},
    [SQ_S_HOSTS] = {"hosts", SQ_COL_TEXT, 512, "", "host names"},
    [SQ_S_RANKS] = {"ranks", SQ_COL_INT, 0, "1", "ranks"},
    [SQ_S_THREADS] = {"threads", SQ_COL_INT, 0, "1", "threads a rank"},
    [SQ_S_DATA] = {"data_s", SQ_COL_REAL, 0, "s", "wall time of reading, checking and sharing the data"},
    [SQ_S_FIRST_STEP] = {"first_step_s", SQ_COL_REAL, 0, "s",
                         "wall time from the program's start to the end of rank 0's first training step"},
};

const char *sq_cell_status_name(sq_cell_status s)
{
  static const char *const name[] = {"waiting", "running", "done", "diverged", "failed"};
  SQ_ASSERT(s >= SQ_CELL_WAITING && s <= SQ_CELL_FAILED);
  return name[s];
}

typedef struct {
  hid_t file; /* -1: only count */
  size_t bytes, ndset;
  int hollow; /* the rows are not filled */
  sq_scales *scales;
  const char *path;
  sq_status st; /* the first error; nothing happens after it */
} maker;

static void failed(maker *m, const char *what)
{
  if (m->st == SQ_OK)
    m->st = sq_fail(SQ_ERR_IO, "%s: %s cannot be written: %s", m->path, what, sq_hdf5_cause());
}

typedef struct {
  sq_col_type type;
  size_t len;                               /* text */
  int single;                               /* SQ_COL_REAL in float32 */
  const char *unit, *long_name, *invariant; /* invariant: NULL = none */
  const void *data;                         /* NULL: the missing value everywhere */
} content;

static hid_t status_type(void)
{
  hid_t t = H5Tenum_create(H5T_STD_I8LE);
  for (signed char s = SQ_CELL_WAITING; s <= SQ_CELL_FAILED; ++s)
    H5Tenum_insert(t, sq_cell_status_name((sq_cell_status)s), &s);
  return t;
}

static hid_t file_type(const content *c)
{
  switch (c->type) {
  case SQ_COL_TEXT: return sq_hdf5_text_type(c->len);
  case SQ_COL_INT: return H5Tcopy(H5T_STD_I64LE);
  case SQ_COL_UINT: return H5Tcopy(H5T_STD_U64LE);
  case SQ_COL_REAL: return H5Tcopy(c->single ? H5T_IEEE_F32LE : H5T_IEEE_F64LE);
  case SQ_COL_STATUS: return status_type();
  case SQ_COL_COMPLEX: return sq_hdf5_complex_type(H5T_IEEE_F64LE);
  }
  return -1;
}

/* Contiguous, early, filled: the file has its final size and layout from here on.  Not filled: the same layout, with
 * holes. */
static hid_t creation_list(const content *c, int filled)
{
  static const int64_t none = -1;
  static const double nan_value = NAN, nan_pair[2] = {NAN, NAN};
  hid_t p = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_layout(p, H5D_CONTIGUOUS);
  H5Pset_alloc_time(p, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(p, filled ? H5D_FILL_TIME_ALLOC : H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(p, 0);
  if (c->type == SQ_COL_REAL) H5Pset_fill_value(p, H5T_NATIVE_DOUBLE, &nan_value);
  if (c->type == SQ_COL_INT) H5Pset_fill_value(p, H5T_NATIVE_INT64, &none);
  if (c->type == SQ_COL_COMPLEX) {
    hid_t t = sq_hdf5_complex_type(H5T_NATIVE_DOUBLE);
    H5Pset_fill_value(p, t, nan_pair);
    sq_hdf5_drop(t);
  }
  return p;
}

static void make(maker *m, const char *path, int ndim, const size_t *dim, const content *c)
{
  hsize_t extent[H5S_MAX_RANK];
  if (m->st != SQ_OK) return;
  hid_t t = file_type(c);
  size_t bytes = H5Tget_size(t);
  for (int i = 0; i < ndim; ++i) {
    extent[i] = dim[i];
    bytes *= dim[i];
  }
  m->bytes += bytes;
  m->ndset++;
  if (m->file < 0) {
    sq_hdf5_drop(t);
    return;
  }
  hid_t plist = creation_list(c, !m->hollow), links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  hid_t space = ndim > 0 ? H5Screate_simple(ndim, extent, NULL) : H5Screate(H5S_SCALAR);
  hid_t d = H5Dcreate2(m->file, path, t, space, links, plist, H5P_DEFAULT);
  hid_t mem = c->type == SQ_COL_REAL ? H5Tcopy(H5T_NATIVE_DOUBLE) : H5Tcopy(t);
  if (d < 0 ||
      (c->data != NULL && bytes > 0 && H5Dwrite(d, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, c->data) < 0) ||
      (c->unit != NULL && sq_hdf5_put_text(d, "units", c->unit) < 0) ||
      (c->long_name != NULL && sq_hdf5_put_text(d, "long_name", c->long_name) < 0) ||
      (c->invariant != NULL && sq_hdf5_put_text(d, "invariant", c->invariant) < 0))
    failed(m, path);
  sq_hdf5_drop(mem);
  sq_hdf5_drop(d);
  sq_hdf5_drop(space);
  sq_hdf5_drop(links);
  sq_hdf5_drop(plist);
  sq_hdf5_drop(t);
}

static void no_memory(maker *m)
{
  if (m->st == SQ_OK) m->st = sq_fail(SQ_ERR_MEMORY, "%s: no memory to lay it out", m->path);
}

static void use_scale(maker *m, const char *dset, int dim, const char *scale)
{
  if (m->st == SQ_OK && m->file >= 0 && !sq_scales_use(m->scales, dset, dim, scale)) no_memory(m);
}

static void make_scale(maker *m, const char *path, size_t n, const content *c)
{
  make(m, path, 1, &n, c);
  if (m->st == SQ_OK && m->file >= 0 && !sq_scales_add(m->scales, path)) no_memory(m);
}

/* Scale with the values 0..n-1; only counting, n may be larger than the memory. */
static void make_count_scale(maker *m, const char *path, size_t n, const char *long_name)
{
  int64_t *v = NULL;
  if (m->file >= 0) {
    v = calloc(n > 0 ? n : 1, sizeof *v);
    if (v == NULL) return no_memory(m);
    for (size_t i = 0; i < n; ++i) v[i] = (int64_t)i;
  }
  make_scale(m, path, n, &(content){.type = SQ_COL_INT, .unit = "1", .long_name = long_name, .data = v});
  free(v);
}

/* n texts as a block of fixed length; *len: the longest.  NULL: no memory. */
static char *pack_text(size_t n, const char *const *text, size_t at_least, size_t *len)
{
  *len = at_least > 0 ? at_least : 1;
  for (size_t i = 0; at_least == 0 && i < n; ++i)
    if (strlen(text[i]) > *len) *len = strlen(text[i]);
  char *block = calloc(n > 0 ? n : 1, *len);
  for (size_t i = 0; block != NULL && i < n; ++i) memcpy(block + i * *len, text[i], strnlen(text[i], *len));
  return block;
}

static void make_text_scale(maker *m, const char *path, size_t n, const char *const *text, const char *unit,
                            const char *long_name)
{
  size_t len;
  char *block = pack_text(n, text, 0, &len);
  if (block == NULL) return no_memory(m);
  make_scale(
      m, path, n,
      &(content){.type = SQ_COL_TEXT, .len = len, .unit = unit, .long_name = long_name, .data = block});
  free(block);
}

/* ---- /cells, /history, /segments --------------------------------------------------------------------- */
static const char *recipe_of(const sq_config *c)
{
  return sq_config_has(c, "train.recipe") ? sq_config_string(c, "train.recipe") : "corrected";
}

static const char *planned_text(const sq_store_plan *p, int column, int cell)
{
  const sq_config *c = sq_experiment_cell(p->experiment, cell);
  switch (column) {
  case SQ_C_TASK: return sq_config_task_label(c);
  case SQ_C_MODEL: return sq_config_model_label(c);
  case SQ_C_LABEL: return sq_config_label(c);
  case SQ_C_SWEPT: return sq_config_swept(c);
  case SQ_C_CONFIG: return sq_config_json(c);
  case SQ_C_RECIPE: return recipe_of(c);
  case SQ_C_METRIC: return p->metric[cell];
  default: return NULL;
  }
}

static void make_cell_column(maker *m, const sq_store_plan *p, int column)
{
  const sq_column *k = &sq_cell_columns[column];
  const size_t n = (size_t)sq_experiment_ncell(p->experiment);
  char path[64];
  content c = {.type = k->type, .len = k->len, .unit = k->unit, .long_name = k->long_name};
  void *block = NULL;
  if (column == SQ_C_SEED) {
    uint64_t *seed = block = calloc(n > 0 ? n : 1, sizeof *seed);
    for (size_t i = 0; seed != NULL && i < n; ++i) {
      const sq_config *cell = sq_experiment_cell(p->experiment, (int)i);
      seed[i] = sq_config_has(cell, "seed") ? (uint64_t)sq_config_int(cell, "seed") : 0;
    }
    if (block == NULL) return no_memory(m);
  } else if (n > 0 && planned_text(p, column, 0) != NULL) {
    const char **text = calloc(n, sizeof *text);
    for (size_t i = 0; text != NULL && i < n; ++i) text[i] = planned_text(p, column, (int)i);
    block = text != NULL ? pack_text(n, text, k->len, &c.len) : NULL;
    free(text);
    if (block == NULL) return no_memory(m);
  }
  c.data = block;
  sq_format(path, sizeof path, "/cells/%s", k->name);
  make(m, path, 1, &n, &c);
  use_scale(m, path, 0, "/cell");
  free(block);
}

static void make_tables(maker *m, const sq_store_plan *p)
{
  const size_t n = (size_t)sq_experiment_ncell(p->experiment), evals = (size_t)p->max_evals,
               segments = SQ_MAX_SEGMENTS;
  char path[64];
  make_count_scale(m, "/cell", n, "cell");
  for (int i = 0; i < SQ_NCOLUMN; ++i) make_cell_column(m, p, i);
  make_count_scale(m, "/history/evaluation", evals, "evaluation");
  for (int i = 0; i < SQ_NHISTORY; ++i) {
    const sq_column *k = &sq_history_columns[i];
    sq_format(path, sizeof path, "/history/%s", k->name);
    make(m, path, 2, (size_t[]){n, evals},
         &(content){.type = k->type, .unit = k->unit, .long_name = k->long_name});
    use_scale(m, path, 0, "/cell");
    use_scale(m, path, 1, "/history/evaluation");
  }
  make_count_scale(m, "/segments/segment", segments, "start or resume");
  for (int i = 0; i < SQ_NSEGMENT; ++i) {
    const sq_column *k = &sq_segment_columns[i];
    sq_format(path, sizeof path, "/segments/%s", k->name);
    make(m, path, 1, &segments,
         &(content){.type = k->type, .len = k->len, .unit = k->unit, .long_name = k->long_name});
    use_scale(m, path, 0, "/segments/segment");
  }
}

/* ---- /spectra ---------------------------------------------------------------------------------------- */
static void make_stage_scale(maker *m, const char *path, int nstage)
{
  char(*text)[24] = calloc((size_t)nstage, sizeof *text);
  const char **p = calloc((size_t)nstage, sizeof *p);
  if (text != NULL && p != NULL) {
    for (int s = 0; s < nstage; ++s) {
      if (s == 0)
        sq_format(text[s], sizeof text[s], "init");
      else if (s == nstage - 1)
        sq_format(text[s], sizeof text[s], "trained");
      else
        sq_format(text[s], sizeof text[s], "snapshot %d", s);
      p[s] = text[s];
    }
    make_text_scale(m, path, (size_t)nstage, p, "", "stage of training");
  } else {
    no_memory(m);
  }
  free(p);
  free(text);
}

/* A scale for each axis that a field uses: with the coordinates of the plan, else 0..n-1. */
static void make_axis(maker *m, const sq_store_group *g, const char *name, int n)
{
  char path[320];
  sq_format(path, sizeof path, "%s/%s", g->path, name);
  const sq_axis *a = NULL;
  for (int i = 0; i < g->naxis && a == NULL; ++i)
    if (strcmp(g->axis[i].axis, name) == 0) a = &g->axis[i];
  SQ_ASSERT(a == NULL || a->n == n);
  if (a == NULL)
    make_count_scale(m, path, (size_t)n, name);
  else if (a->label != NULL)
    make_text_scale(m, path, (size_t)n, a->label, a->unit, a->long_name);
  else if (a->value == NULL)
    make_count_scale(m, path, (size_t)n, a->long_name);
  else
    make_scale(m, path, (size_t)n,
               &(content){.type = SQ_COL_REAL, .unit = a->unit, .long_name = a->long_name, .data = a->value});
}

/* Whether an earlier field has this axis already. */
static int axis_is_known(const sq_store_group *g, int field, int axis)
{
  for (int f = 0; f <= field; ++f)
    for (int i = 0; i < (f == field ? axis : g->field[f].naxis); ++i)
      if (strcmp(g->field[f].axis[i], g->field[field].axis[axis]) == 0) {
        SQ_ASSERT(g->field[f].dim[i] == g->field[field].dim[axis]); /* one axis, one length in a group */
        return 1;
      }
  return 0;
}

static void make_field(maker *m, const sq_store_group *g, const sq_field *f)
{
  char path[320], scale[320];
  size_t dim[2 + SQ_FIELD_AXES] = {(size_t)g->ncell, (size_t)g->nstage};
  SQ_ASSERT(f->naxis <= SQ_FIELD_AXES - (f->complex_values ? 1 : 0));
  for (int i = 0; i < f->naxis; ++i) dim[2 + i] = (size_t)f->dim[i];
  sq_format(path, sizeof path, "%s/%s", g->path, f->name);
  make(m, path, 2 + f->naxis, dim,
       &(content){.type = f->complex_values ? SQ_COL_COMPLEX : SQ_COL_REAL,
                  .unit = f->unit,
                  .long_name = f->long_name,
                  .invariant = f->invariant > 0    ? "yes"
                               : f->invariant == 0 ? "no"
                                                   : "n/a"});
  for (int i = 0; i < 2 + f->naxis; ++i) {
    sq_format(scale, sizeof scale, "%s/%s", g->path, i == 0 ? "cell" : i == 1 ? "stage" : f->axis[i - 2]);
    use_scale(m, path, i, scale);
  }
}

static void make_group(maker *m, const sq_store_group *g)
{
  char path[320], stage[320], cells[320];
  int64_t *row = calloc((size_t)g->ncell, sizeof *row);
  if (row == NULL) return no_memory(m);
  for (int i = 0; i < g->ncell; ++i) row[i] = g->cell[i];
  sq_format(cells, sizeof cells, "%s/cell", g->path);
  make_scale(m, cells, (size_t)g->ncell,
             &(content){.type = SQ_COL_INT, .unit = "1", .long_name = "row of /cells", .data = row});
  free(row);
  sq_format(stage, sizeof stage, "%s/stage", g->path);
  make_stage_scale(m, stage, g->nstage);
  sq_format(path, sizeof path, "%s/stage_step", g->path);
  make(m, path, 2, (size_t[]){(size_t)g->ncell, (size_t)g->nstage},
       &(content){.type = SQ_COL_INT, .unit = "step", .long_name = "training step of the stage"});
  use_scale(m, path, 0, cells);
  use_scale(m, path, 1, stage);
  for (int f = 0; f < g->nfield; ++f)
    for (int i = 0; i < g->field[f].naxis; ++i)
      if (!axis_is_known(g, f, i)) make_axis(m, g, g->field[f].axis[i], g->field[f].dim[i]);
  for (int f = 0; f < g->nfield; ++f) make_field(m, g, &g->field[f]);
}

static void make_weights(maker *m, int cell, const sq_param_list *l)
{
  char path[64 + SQ_PARAM_NAME];
  for (int i = 0; i < l->n; ++i) {
    size_t dim[3] = {0, 0, 0};
    for (int k = 0; k < l->v[i].ndim; ++k) dim[k] = (size_t)l->v[i].dim[k];
    sq_format(path, sizeof path, "/weights/%d/%s", cell, l->v[i].name);
    make(m, path, l->v[i].ndim, dim,
         &(content){.type = SQ_COL_REAL, .single = sizeof(sq_real) == sizeof(float)});
  }
}

/* A data set: an attribute of fixed length ends at 64 KiB, and HDF5 does not survive a damaged heap reference,
 * which is what one of variable length is. */
static void make_grid(maker *m, const sq_store_plan *p)
{
  const char *text = sq_experiment_json(p->experiment);
  const size_t len = strlen(text);
  make(m, "/grid", 0, NULL,
       &(content){.type = SQ_COL_TEXT,
                  .len = len > 0 ? len : 1, /* "" gives its NUL */
                  .unit = "",
                  .long_name = "resolved grid, JSON",
                  .data = text});
}

static void make_all(maker *m, const sq_store_plan *p)
{
  make_grid(m, p);
  make_tables(m, p);
  for (int g = 0; g < p->ngroup; ++g) make_group(m, &p->group[g]);
  for (int i = 0; p->weights != NULL && i < sq_experiment_ncell(p->experiment); ++i)
    if (p->weights[i] != NULL) make_weights(m, i, p->weights[i]);
}

/* With what describes the data: 4 KiB a data set are more than its header, attributes and references take. */
static size_t enough_bytes(const sq_store_plan *p)
{
  maker m = {.file = -1, .path = "results", .st = SQ_OK};
  sq_hdf5_init();
  make_all(&m, p);
  return m.bytes + m.ndset * 4096 + 65536;
}

static void put_root(maker *m)
{
  if (m->st != SQ_OK) return;
  if (sq_hdf5_put_int(m->file, "schema_version", SQ_SCHEMA_VERSION) < 0 ||
      sq_hdf5_put_text(m->file, "program", "seqspectra") < 0 ||
      sq_hdf5_put_text(m->file, "precision", SQ_PRECISION) < 0 ||
      sq_hdf5_put_text(m->file, "missing_values",
                       "NaN in real numbers, -1 in steps and counts, \"\" in text") < 0 ||
      sq_hdf5_put_text(m->file, "complex_numbers", "compound {r, i} of float64") < 0)
    failed(m, "/");
}

/* ---- the file ---------------------------------------------------------------------------------------- */
static sq_status check_space(const char *path, size_t bytes)
{
  char dir[4096];
  struct statvfs s;
  sq_format(dir, sizeof dir, "%s", path);
  char *slash = strrchr(dir, '/');
  if (slash == NULL)
    sq_format(dir, sizeof dir, ".");
  else
    slash[slash == dir] = '\0';
  if (statvfs(dir, &s) != 0) return sq_fail(SQ_ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
  const double room = (double)s.f_bavail * (double)s.f_frsize;
  if ((double)bytes > room)
    return sq_fail(SQ_ERR_IO, "%s: needs %.1f MB, but %s has only %.1f MB free", path, (double)bytes / 1e6,
                   dir, room / 1e6);
  return SQ_OK;
}

/* Without replacing what another run may have put there in the meantime, where the file system has hard
 * links. */
static sq_status put_in_place(const char *temporary, const char *path)
{
  struct stat s;
  const int fd = open(temporary, O_RDWR);
  /* To its own size: gives back what was reserved beyond the end. */
  const int bad = fd < 0 || fstat(fd, &s) != 0 || ftruncate(fd, s.st_size) != 0 || fsync(fd) != 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (bad) return sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", path, strerror(error));
  if (link(temporary, path) == 0) return unlink(temporary), SQ_OK;
  if (errno == EEXIST)
    return sq_fail(SQ_ERR_USAGE, "%s exists; use --resume to continue it, or another --out", path);
  if (rename(temporary, path) != 0)
    return sq_fail(SQ_ERR_IO, "%s: cannot be put in place: %s", path, strerror(errno));
  return SQ_OK;
}

/* HDF5 does not survive a file that it cannot write when closing: it tries again, and crashes, when the
   library ends.  So the space is taken before: blocks beyond the end of the file stay reserved while the file
   grows into them.  0 or an errno. */
static int reserve(int fd, size_t bytes)
{
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes)
    return EFBIG;
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) == 0) return 0;
  return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? errno
                                                              : 0; /* else: not known to this file system */
}

static int descriptor(hid_t file)
{
  void *handle = NULL;
  return H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle != NULL ? *(int *)handle : -1;
}

/* What the library still wants to write of a lost file goes to memory. */
static void close_lost(hid_t file)
{
  const int sink = memfd_create("lost", 0), fd = descriptor(file);
  if (sink >= 0 && fd >= 0) dup2(sink, fd);
  if (sink >= 0) close(sink);
  H5Fclose(file);
}

static hid_t create_file(const char *temporary)
{
  hid_t fapl = sq_hdf5_fapl(MPI_COMM_NULL);
  hid_t file = H5Fcreate(temporary, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
  sq_hdf5_drop(fapl);
  return file;
}

static int open_file(maker *m, const char *path)
{
  m->scales = sq_scales_create();
  if (m->scales == NULL)
    m->st = SQ_ERR_MEMORY;
  else if ((m->file = create_file(path)) < 0)
    failed(m, "the file");
  return m->st == SQ_OK;
}

static void lay_out(maker *m, const sq_store_plan *p)
{
  put_root(m);
  make_all(m, p);
  if (m->st == SQ_OK && sq_scales_write(m->scales, m->file) < 0) failed(m, "dimension scales");
}

/* A new file in memory, else for a short time on a disk; -1: none. */
static int open_somewhere(char path[64])
{
  const char *const folder[] = {"/dev/shm", "/tmp", "."};
  int fd = -1;
  for (size_t i = 0; i < sizeof folder / sizeof *folder && fd < 0; ++i) {
    sq_format(path, 64, "%s/seqspectra-plan.XXXXXX", folder[i]);
    fd = mkostemp(path, O_CLOEXEC);
  }
  return fd;
}

/* The file itself, with holes where the rows will be. */
size_t sq_store_bytes(const sq_store_plan *p)
{
  char path[64];
  struct stat s;
  maker m = {.file = -1, .path = "results", .hollow = 1, .st = SQ_OK};
  const int fd = open_somewhere(path);
  const int opened = fd >= 0 && open_file(&m, path);
  if (fd >= 0) unlink(path); /* nothing is left of it whatever happens */
  if (opened) lay_out(&m, p);
  const int made = (m.file < 0 || H5Fclose(m.file) >= 0) && fd >= 0 && m.st == SQ_OK && fstat(fd, &s) == 0;
  sq_scales_destroy(m.scales);
  if (fd >= 0) close(fd);
  if (m.st != SQ_OK) sq_error_clear();
  return made ? (size_t)s.st_size : enough_bytes(p);
}

sq_status sq_schema_make(const char *path, const sq_store_plan *p)
{
  char temporary[4096 + 32];
  maker m = {.file = -1, .path = path, .st = SQ_OK};
  if (access(path, F_OK) == 0)
    return sq_fail(SQ_ERR_USAGE, "%s exists; use --resume to continue it, or another --out", path);
  const size_t needed = enough_bytes(p);
  sq_status st = check_space(path, needed);
  if (st != SQ_OK) return st;
  sq_format(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
  /* open(2) first: its errno says more than HDF5 does. */
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) return sq_fail(SQ_ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
  int error = reserve(fd, needed); /* before HDF5 has a part in it */
  close(fd);
  if (error != 0) {
    unlink(temporary);
    return sq_fail(SQ_ERR_IO, "%s: no room for its %.1f MB: %s", path, (double)needed / 1e6, strerror(error));
  }
  if (open_file(&m, temporary)) {
    error = reserve(descriptor(m.file), needed); /* creating has given the first reservation back */
    if (error != 0)
      m.st =
          sq_fail(SQ_ERR_IO, "%s: no room for its %.1f MB: %s", path, (double)needed / 1e6, strerror(error));
    lay_out(&m, p);
  }
  if (m.st == SQ_OK && H5Fflush(m.file, H5F_SCOPE_LOCAL) < 0) failed(&m, "metadata");
  if (m.file >= 0 && m.st != SQ_OK)
    close_lost(m.file);
  else if (m.file >= 0 && H5Fclose(m.file) < 0)
    failed(&m, "metadata");
  if (m.st == SQ_OK) m.st = put_in_place(temporary, path);
  if (m.st != SQ_OK) unlink(temporary);
  sq_scales_destroy(m.scales);
  return m.st;
}
