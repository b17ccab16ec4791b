/* src/store/store.c: a results file while a run writes it.
 *
 * Only this layer is parallel: rank 0 makes or examines the file alone (schema.c), tells the others how that
 * went, and only then do all open it.  From then on nobody touches metadata: contiguous rows at fixed places,
 * independent transfers. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_impl.h"

struct sq_store {
  MPI_Comm comm;
  sq_lock *lock; /* rank 0, until it is closed; else NULL */
  sq_layout file;
  struct stat opened; /* the file, when it was opened */
  int failed;         /* the last write of this process has failed: see sq_store_close */
  int segment;
  unsigned char *status; /* (ncell) as of create or resume */
  int *group;            /* (plan's ngroup) place in file.group */
  int **field;           /* (plan's ngroup)(nfield) place in group.field; last: stage_step */
  int ngroup;
  const sq_param_list *const *weights; /* borrowed */
};

static const double missing = NAN;
static const int64_t none = -1;

/* ---- independent writes ------------------------------------------------------------------------------ */
static sq_status refused(sq_store *s, const char *what)
{
  const char *cause = sq_hdf5_cause();
  s->failed = 1;
  return sq_fail(SQ_ERR_IO, "%s: %s cannot be written: %s", s->file.path, what,
                 *cause ? cause : "MPI-IO gives no reason (disk full?)");
}

static sq_status put(sq_store *s, hid_t d, const char *what, hid_t mem, const hsize_t *start,
                     const hsize_t *count, const void *data)
{
  if (sq_layout_write(d, mem, start, count, data) < 0) return refused(s, what);
  s->failed = 0; /* there is room again */
  sq_hdf5_write_worked();
  return SQ_OK;
}

static sq_status put_column(sq_store *s, int column, int cell, const void *value)
{
  static const hsize_t one = 1;
  const hsize_t at = (hsize_t)cell;
  const sq_column *k = &sq_cell_columns[column];
  const hid_t mem = k->type == SQ_COL_REAL   ? H5T_NATIVE_DOUBLE
                    : k->type == SQ_COL_INT  ? H5T_NATIVE_INT64
                    : k->type == SQ_COL_UINT ? H5T_NATIVE_UINT64
                                             : -1;
  return put(s, s->file.cells[column], k->name, mem, &at, &one, value);
}

/* Cut at `len` bytes, not inside a UTF-8 sequence; NUL-padded. */
static void fix_text(char *out, size_t len, const char *text)
{
  size_t n = strnlen(text, len);
  if (n == len && text[n] != '\0')
    while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) --n;
  memset(out, 0, len);
  memcpy(out, text, n);
}

static sq_status put_text(sq_store *s, int column, int cell, const char *text)
{
  char fixed[256];
  SQ_ASSERT(sq_cell_columns[column].len > 0 && sq_cell_columns[column].len <= sizeof fixed);
  fix_text(fixed, sq_cell_columns[column].len, text);
  return put_column(s, column, cell, fixed);
}

static sq_status put_status(sq_store *s, int cell, sq_cell_status status)
{
  const signed char v = (signed char)status;
  return put_column(s, SQ_C_STATUS, cell, &v);
}

sq_status sq_store_history(sq_store *s, int cell, int k, const sq_eval_record *r)
{
  static const hsize_t one[2] = {1, 1};
  const hsize_t at[2] = {(hsize_t)cell, (hsize_t)k};
  const int64_t step = r->step;
  const double value[SQ_NHISTORY] = {[SQ_H_TRAIN_LOSS] = r->train_loss,
                                     [SQ_H_VALID_LOSS] = r->valid_loss,
                                     [SQ_H_VALID_METRIC] = r->valid_metric,
                                     [SQ_H_LR] = r->lr,
                                     [SQ_H_GRAD_NORM] = r->grad_norm};
  SQ_ASSERT(cell >= 0 && cell < s->file.ncell && k >= 0 && k < s->file.max_evals);
  sq_status st = SQ_OK;
  for (int i = SQ_H_STEP + 1; i < SQ_NHISTORY; ++i)
    SQ_TRY(put(s, s->file.history[i], sq_history_columns[i].name, H5T_NATIVE_DOUBLE, at, one, &value[i]));
  SQ_TRY(put(s, s->file.history[SQ_H_STEP], "step", H5T_NATIVE_INT64, at, one, &step));
done:
  return st;
}

static sq_status put_field(sq_store *s, sq_layout_group *g, int f, int row, int stage, const double *data)
{
  hsize_t start[2 + SQ_FIELD_AXES] = {(hsize_t)row, (hsize_t)stage}, count[2 + SQ_FIELD_AXES];
  if (!sq_layout_field(&s->file, g, f)) return SQ_ERR_IO;
  hid_t space = H5Dget_space(g->dset[f]);
  H5Sget_simple_extent_dims(space, count, NULL);
  sq_hdf5_drop(space);
  count[0] = count[1] = 1;
  hid_t mem =
      sq_layout_is_complex(g->dset[f]) ? sq_hdf5_complex_type(H5T_NATIVE_DOUBLE) : H5Tcopy(H5T_NATIVE_DOUBLE);
  const sq_status st = put(s, g->dset[f], g->field[f], mem, start, count, data);
  sq_hdf5_drop(mem);
  return st;
}

static sq_status put_stage_step(sq_store *s, sq_layout_group *g, int f, int row, int stage, int64_t step)
{
  static const hsize_t one[2] = {1, 1};
  const hsize_t at[2] = {(hsize_t)row, (hsize_t)stage};
  if (!sq_layout_field(&s->file, g, f)) return SQ_ERR_IO;
  return put(s, g->dset[f], "stage_step", H5T_NATIVE_INT64, at, one, &step);
}

sq_status sq_store_spectra(sq_store *s, int group, int cell, int stage, long step, double *const *data)
{
  SQ_ASSERT(group >= 0 && group < s->ngroup);
  sq_layout_group *g = &s->file.group[s->group[group]];
  const int row = sq_layout_row(g, cell);
  SQ_ASSERT(row >= 0 && stage >= 0 && stage < g->nstage);
  sq_status st = SQ_OK;
  for (int f = 0; f < g->nfield - 1; ++f) SQ_TRY(put_field(s, g, s->field[group][f], row, stage, data[f]));
  SQ_TRY(put_stage_step(s, g, s->field[group][g->nfield - 1], row, stage, step));
done:
  return st;
}

sq_status sq_store_weights(sq_store *s, int cell, const sq_param_list *l, const sq_real *theta)
{
  char path[64 + SQ_PARAM_NAME];
  SQ_ASSERT(s->weights != NULL && s->weights[cell] != NULL);
  for (int i = 0; i < l->n; ++i) {
    sq_format(path, sizeof path, "/weights/%d/%s", cell, l->v[i].name);
    hid_t d = H5Dopen2(s->file.file, path, H5P_DEFAULT);
    hid_t mem = sizeof(sq_real) == sizeof(float) ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
    const int bad = d < 0 || H5Dwrite(d, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, theta + l->v[i].offset) < 0;
    const sq_status st = bad ? refused(s, path) : SQ_OK;
    sq_hdf5_drop(d);
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}

sq_status sq_store_cell_running(sq_store *s, int cell, int rank, const char *host)
{
  const int64_t r = rank, segment = s->segment;
  sq_status st;
  SQ_ASSERT(cell >= 0 && cell < s->file.ncell);
  SQ_TRY(put_column(s, SQ_C_RUN_RANK, cell, &r));
  SQ_TRY(put_column(s, SQ_C_RUN_SEGMENT, cell, &segment));
  SQ_TRY(put_text(s, SQ_C_RUN_HOST, cell, host));
  SQ_TRY(put_status(s, cell, SQ_CELL_RUNNING));
done:
  return st;
}

/* ---- the end of a cell ------------------------------------------------------------------------------- */
static sq_status put_result(sq_store *s, int cell, const char *reason, const sq_train_result *r)
{
  sq_status st;
  const int64_t count[3] = {r != NULL ? r->steps : none, r != NULL ? r->best_step : none,
                            r != NULL ? r->nparam : none};
  const double value[5] = {r != NULL ? r->test_metric : missing, r != NULL ? r->test_loss : missing,
                           r != NULL ? r->valid_metric : missing, r != NULL ? r->train_loss : missing,
                           r != NULL ? r->flops : missing};
  for (int i = 0; i < 3; ++i) SQ_TRY(put_column(s, SQ_C_STEPS + i, cell, &count[i]));
  for (int i = 0; i < 5; ++i) SQ_TRY(put_column(s, SQ_C_TEST_METRIC + i, cell, &value[i]));
  SQ_TRY(put_text(s, SQ_C_REASON, cell, reason));
done:
  return st;
}

static sq_status clear_history(sq_store *s, int cell)
{
  const hsize_t at[2] = {(hsize_t)cell, 0}, count[2] = {1, 1};
  sq_status st = SQ_OK;
  for (int k = 0; k < s->file.max_evals; ++k) {
    const hsize_t here[2] = {at[0], (hsize_t)k};
    for (int i = 0; i < SQ_NHISTORY; ++i) {
      const int step = i == SQ_H_STEP;
      SQ_TRY(put(s, s->file.history[i], sq_history_columns[i].name,
                 step ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE, here, count,
                 step ? (const void *)&none : (const void *)&missing));
    }
  }
done:
  return st;
}

static sq_status clear_field(sq_store *s, sq_layout_group *g, int f, int row)
{
  hsize_t extent[2 + SQ_FIELD_AXES];
  size_t n = 1;
  sq_status st = SQ_OK;
  if (strcmp(g->field[f], "stage_step") == 0) {
    for (int k = 0; k < g->nstage && st == SQ_OK; ++k) st = put_stage_step(s, g, f, row, k, none);
    return st;
  }
  if (!sq_layout_field(&s->file, g, f)) return SQ_ERR_IO;
  hid_t space = H5Dget_space(g->dset[f]);
  const int rank = H5Sget_simple_extent_dims(space, extent, NULL);
  sq_hdf5_drop(space);
  for (int i = 2; i < rank; ++i) n *= (size_t)extent[i];
  if (sq_layout_is_complex(g->dset[f])) n *= 2;
  double *blank = sq_calloc(n, sizeof *blank, "an empty row");
  if (blank == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < n; ++i) blank[i] = missing;
  for (int k = 0; k < g->nstage && st == SQ_OK; ++k) st = put_field(s, g, f, row, k, blank);
  free(blank);
  return st;
}

/* Back to what it was before the cell began: a cell that runs again, perhaps to another end, leaves no trace
 * of the first time. */
sq_status sq_store_cell_clear(sq_store *s, int cell)
{
  static const uint64_t no_checksum = 0;
  sq_status st;
  SQ_TRY(put_result(s, cell, "", NULL));
  SQ_TRY(put_column(s, SQ_C_CHECKSUM, cell, &no_checksum));
  SQ_TRY(clear_history(s, cell));
  for (int g = 0; g < s->file.ngroup; ++g) {
    const int row = sq_layout_row(&s->file.group[g], cell);
    for (int f = 0; row >= 0 && f < s->file.group[g].nfield; ++f)
      SQ_TRY(clear_field(s, &s->file.group[g], f, row));
  }
done:
  return st;
}

static sq_status clear_cell(sq_store *s, int cell)
{
  const sq_status st = sq_store_cell_clear(s, cell);
  return st == SQ_OK ? put_status(s, cell, SQ_CELL_WAITING) : st;
}

sq_status sq_store_cell_ran(sq_store *s, int cell, double wall_s)
{
  return put_column(s, SQ_C_RUN_WALL, cell, &wall_s);
}

double sq_store_wall_s(const sq_store *s, int cell)
{
  static const hsize_t one = 1;
  const hsize_t at = (hsize_t)cell;
  double wall_s = 0;
  const herr_t e = sq_layout_read(s->file.cells[SQ_C_RUN_WALL], H5T_NATIVE_DOUBLE, &at, &one, &wall_s);
  return e >= 0 && wall_s > 0 && isfinite(wall_s) ? wall_s : 0;
}

static sq_status put_run(sq_store *s, int cell, double wall_s)
{
  const double peak = (double)sq_peak_bytes();
  const int64_t segment = s->segment;
  sq_status st;
  SQ_TRY(sq_store_cell_ran(s, cell, wall_s));
  SQ_TRY(put_column(s, SQ_C_RUN_PEAK, cell, &peak));
  SQ_TRY(put_column(s, SQ_C_RUN_SEGMENT, cell, &segment));
done:
  return st;
}

sq_status sq_store_cell_suspend(sq_store *s, int cell, double wall_s)
{
  const sq_status st = put_run(s, cell, wall_s);
  return st == SQ_OK ? put_status(s, cell, SQ_CELL_WAITING) : st;
}

int sq_store_has_rows(sq_store *s, int cell)
{
  static const hsize_t one[2] = {1, 1};
  for (int i = 0; i < s->file.ngroup; ++i) {
    sq_layout_group *g = &s->file.group[i];
    const hsize_t at[2] = {(hsize_t)sq_layout_row(g, cell), 0};
    int64_t step = none;
    if (sq_layout_row(g, cell) < 0) continue;
    for (int f = 0; f < g->nfield; ++f) {
      if (strcmp(g->field[f], "stage_step") != 0) continue;
      if (!sq_layout_field(&s->file, g, f) ||
          sq_layout_read(g->dset[f], H5T_NATIVE_INT64, at, one, &step) < 0)
        step = none;
    }
    if (step < 0) return 0;
  }
  return 1;
}

int sq_store_is_gone(const sq_store *s)
{
  struct stat is;
  if (stat(s->file.path, &is) != 0)
    return errno == ENOENT || errno == ENOTDIR; /* a server that does not answer has not lost it */
  return is.st_dev != s->opened.st_dev || is.st_ino != s->opened.st_ino;
}

sq_status sq_store_sync(const sq_store *s)
{
  const int fd = open(s->file.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* it may be a pipe by now */
  const int failed = fd < 0 || fsync(fd) != 0, error = errno;
  if (fd >= 0) close(fd);
  if (sq_store_is_gone(s))
    return sq_fail(SQ_ERR_IO, "%s was removed or replaced during the run", s->file.path);
  return failed ? sq_fail(SQ_ERR_IO, "%s: cannot be synced: %s", s->file.path, strerror(error)) : SQ_OK;
}

sq_status sq_store_cell_end(sq_store *s, int cell, sq_cell_status status, const char *reason,
                            const sq_train_result *r, double wall_s)
{
  uint64_t h;
  sq_status st;
  SQ_ASSERT(cell >= 0 && cell < s->file.ncell && status != SQ_CELL_RUNNING);
  SQ_TRY(put_run(s, cell, wall_s));
  if (status == SQ_CELL_WAITING) return clear_cell(s, cell);
  SQ_TRY(put_result(s, cell, reason != NULL ? reason : "", r));
  SQ_TRY(sq_layout_hash(&s->file, cell, (int)status, &h));
  SQ_TRY(put_column(s, SQ_C_CHECKSUM, cell, &h));
  SQ_TRY(sq_store_sync(s)); /* a crash of the machine leaves no `done` without its data */
  SQ_TRY(put_status(s, cell, status));
done:
  return st;
}

/* One column of this start's row. */
static sq_status put_segment(sq_store *s, int column, const void *value)
{
  static const hsize_t one = 1;
  const hsize_t at = (hsize_t)s->segment;
  const sq_column *k = &sq_segment_columns[column];
  const hid_t mem = k->type == SQ_COL_TEXT  ? -1
                    : k->type == SQ_COL_INT ? H5T_NATIVE_INT64
                                            : H5T_NATIVE_DOUBLE;
  char path[64];
  sq_format(path, sizeof path, "/segments/%s", k->name);
  hid_t d = H5Dopen2(s->file.file, path, H5P_DEFAULT);
  const sq_status st = d < 0 ? refused(s, path) : put(s, d, path, mem, &at, &one, value);
  sq_hdf5_drop(d);
  return st;
}

sq_status sq_store_segment(sq_store *s, const sq_segment *g)
{
  const char *text[] = {g->time, g->program, g->cpu, g->blas, g->blas_kernel, g->mpi, g->hdf5, g->hosts};
  const int64_t count[] = {g->ranks, g->threads};
  const double time[] = {g->data_s, g->first_step_s};
  char fixed[512];
  sq_status st = SQ_OK;
  for (int i = SQ_NSEGMENT - 1; i >= 0 && st == SQ_OK; --i) { /* time last: it marks the row as used */
    const void *value = fixed;
    if (i >= SQ_S_DATA)
      value = &time[i - SQ_S_DATA];
    else if (i >= SQ_S_RANKS)
      value = &count[i - SQ_S_RANKS];
    else
      fix_text(fixed, sq_segment_columns[i].len, text[i]);
    st = put_segment(s, i, value);
  }
  return st;
}

sq_status sq_store_first_step(sq_store *s, double first_step_s)
{
  return put_segment(s, SQ_S_FIRST_STEP, &first_step_s);
}

int sq_store_is_lost(const sq_store *s)
{
  return sq_lock_is_lost(s->lock);
}

sq_cell_status sq_store_status(const sq_store *s, int cell)
{
  SQ_ASSERT(cell >= 0 && cell < s->file.ncell);
  return (sq_cell_status)s->status[cell];
}

/* ---- opening ----------------------------------------------------------------------------------------- */
static void destroy(sq_store *s)
{
  for (int g = 0; g < s->ngroup && s->field != NULL; ++g) free(s->field[g]);
  free(s->field);
  free(s->group);
  free(s->status);
  sq_lock_release(&s->lock);
  free(s);
}

static int fill_group(sq_layout_group *to, const sq_store_group *from)
{
  memcpy(to->cell, from->cell, (size_t)from->ncell * sizeof *to->cell);
  for (int f = 0; f <= from->nfield; ++f)
    if ((to->field[f] = strdup(f < from->nfield ? from->field[f].name : "stage_step")) == NULL) return 0;
  return 1;
}

static int place_of(const sq_layout_group *g, const char *field)
{
  for (int f = 0; f < g->nfield; ++f)
    if (strcmp(g->field[f], field) == 0) return f;
  return -1;
}

/* The plan's groups in the layout's order, and where the plan's fields are in it. */
static int map_groups(sq_store *s, const sq_store_plan *p)
{
  s->group = calloc((size_t)p->ngroup + 1, sizeof *s->group);
  s->field = calloc((size_t)p->ngroup + 1, sizeof *s->field);
  if (s->group == NULL || s->field == NULL) return 0;
  s->ngroup = p->ngroup;
  for (int g = 0; g < p->ngroup; ++g) {
    const sq_store_group *from = &p->group[g];
    sq_layout_group *to =
        sq_layout_add_group(&s->file, from->path, from->ncell, from->nstage, from->nfield + 1);
    s->field[g] = calloc((size_t)from->nfield + 1, sizeof **s->field);
    if (to == NULL || s->field[g] == NULL || !fill_group(to, from)) return 0;
  }
  sq_layout_sort(&s->file);
  for (int g = 0; g < p->ngroup; ++g)
    for (int i = 0; i < s->file.ngroup; ++i) {
      const sq_store_group *from = &p->group[g];
      if (strcmp(from->path, s->file.group[i].path) != 0) continue;
      s->group[g] = i;
      for (int f = 0; f <= from->nfield; ++f)
        s->field[g][f] = place_of(&s->file.group[i], f < from->nfield ? from->field[f].name : "stage_step");
    }
  return 1;
}

/* comm == MPI_COMM_NULL: serial, to mend a file before it is opened by all. */
static sq_status attach(MPI_Comm comm, const char *path, const sq_store_plan *p, sq_store **out)
{
  *out = NULL;
  sq_store *s = sq_calloc(1, sizeof *s, "a results file");
  if (s == NULL) return SQ_ERR_MEMORY;
  s->comm = comm;
  s->weights = p->weights;
  sq_status st = sq_layout_open(&s->file, path, comm, 1);
  if (st == SQ_OK && s->file.ncell != sq_experiment_ncell(p->experiment))
    st = sq_fail(SQ_ERR_IO, "%s is damaged: %d cells, expected %d", path, s->file.ncell,
                 sq_experiment_ncell(p->experiment));
  if (st == SQ_OK) {
    const hsize_t start = 0, count = (hsize_t)s->file.ncell;
    s->status = calloc((size_t)s->file.ncell + 1, 1);
    if (s->status == NULL || !map_groups(s, p))
      st = sq_fail(SQ_ERR_MEMORY, "%s: no memory to open it", path);
    else if (sq_layout_read(s->file.cells[SQ_C_STATUS], -1, &start, &count, s->status) < 0)
      st = sq_fail(SQ_ERR_IO, "%s: cannot be read (%s)", path, sq_hdf5_cause());
  }
  for (int i = 0; st == SQ_OK && i < s->file.ncell; ++i)
    if (s->status[i] > SQ_CELL_FAILED)
      st = sq_fail(SQ_ERR_IO, "%s is damaged: cell %d has status %d", path, i, s->status[i]);
  *out = s;
  return st;
}

/* All take the worst status of any rank, and its text. */
static sq_status agree(MPI_Comm comm, sq_status mine)
{
  struct {
    int value, rank;
  } in = {(int)mine, 0}, worst;
  char text[1024];
  MPI_Comm_rank(comm, &in.rank);
  MPI_Allreduce(&in, &worst, 1, MPI_2INT, MPI_MAXLOC, comm);
  if (worst.value == SQ_OK) return SQ_OK;
  snprintf(text, sizeof text, "%s", sq_error_text());
  MPI_Bcast(text, (int)sizeof text, MPI_CHAR, worst.rank, comm);
  return mine != SQ_OK ? mine : sq_fail((sq_status)worst.value, "%s", text);
}

/* After rank 0 has made or mended the file.  The look at the file first: H5Fopen waits for all ranks. */
static sq_status open_together(MPI_Comm comm, const char *path, const sq_store_plan *p, int segment,
                               sq_store **out)
{
  struct stat opened;
  const int visible = access(path, R_OK | W_OK) == 0 && stat(path, &opened) == 0;
  sq_store *s = NULL;
  sq_status st =
      agree(comm, visible ? SQ_OK
                          : sq_fail(SQ_ERR_IO, "%s: not writable on every host: %s", path, strerror(errno)));
  if (st != SQ_OK) return st;
  st = attach(comm, path, p, &s);
  const int here = s != NULL && s->file.file >= 0;
  st = agree(comm, st);
  if (st == SQ_OK) {
    s->segment = segment;
    s->opened = opened;
    *out = s;
    return SQ_OK;
  }
  int everywhere;
  MPI_Allreduce(&here, &everywhere, 1, MPI_INT, MPI_MIN, comm);
  if (s != NULL) {
    if (everywhere)
      sq_layout_close(&s->file); /* closing is collective: else the file is left to the end of the process */
    destroy(s);
  }
  return st;
}

/* The lock lives as long as the open file. */
static sq_status keep_lock(sq_store *s, sq_lock *lock, sq_status st)
{
  if (s != NULL)
    s->lock = lock;
  else
    sq_lock_release(&lock);
  return st;
}

sq_status sq_store_create(MPI_Comm comm, const char *path, const sq_store_plan *p, sq_store **s)
{
  int rank;
  *s = NULL;
  sq_hdf5_init();
  MPI_Comm_rank(comm, &rank);
  sq_lock *lock = NULL;
  sq_status st = rank == 0 ? sq_store_check_name(path) : SQ_OK;
  if (rank == 0 && st == SQ_OK) st = sq_lock_take(path, &lock);
  if (rank == 0 && st == SQ_OK) st = sq_schema_make(path, p);
  st = agree(comm, st);
  if (st == SQ_OK) st = open_together(comm, path, p, 0, s);
  return keep_lock(*s, lock, st);
}

/* Open MPI 4.1 writes the name of a file, and up to 15 characters behind it, into 256 bytes without looking (sharedfp/lockedfile);
 * sharedfp/sm appends 29 to its last part, which then has to be a name of its own. */
sq_status sq_store_check_name(const char *path)
{
#ifdef OPEN_MPI
  enum { WHOLE = 240, LAST = 225 };
  const char *slash = strrchr(path, '/');
  if (strlen(path) > WHOLE || strlen(slash != NULL ? slash + 1 : path) > LAST)
    return sq_fail(
        SQ_ERR_USAGE,
        "%s: too long for Open MPI, which takes paths of %d characters and names of %d: a "
        "relative path from a folder nearer to it, or one through a link to its folder, is shorter",
        path, WHOLE, LAST);
#else
  (void)path;
#endif
  return SQ_OK;
}

/* ---- resume ------------------------------------------------------------------------------------------ */
static sq_status compare_plan(const char *path, const sq_store_plan *p)
{
  sq_h5 *f = NULL;
  char *text = NULL;
  int version = 0;
  sq_status st;
  SQ_TRY(sq_h5_open(path, &f));
  SQ_TRY(sq_h5_read_int_attribute(f, "/", "schema_version", &version));
  if (version != SQ_SCHEMA_VERSION) {
    st = sq_fail(SQ_ERR_USAGE, "%s has schema version %d; this program writes %d; use another --out", path,
                 version, SQ_SCHEMA_VERSION);
    goto done;
  }
  SQ_TRY(sq_h5_read_text_attribute(f, "/", "precision", &text));
  if (strcmp(text, SQ_PRECISION) != 0) {
    st = sq_fail(SQ_ERR_USAGE, "%s was made in %s; this program computes in %s", path, text, SQ_PRECISION);
    goto done;
  }
  free(text);
  SQ_TRY(sq_h5_read_grid(f, &text));
  SQ_TRY(sq_schema_compare(path, text, sq_experiment_json(p->experiment)));
done:
  free(text);
  sq_h5_close(&f);
  return st == SQ_ERR_DATA ? SQ_ERR_IO : st;
}

/* Rows of /segments that are used; a full table keeps its last row for the newest. */
static int used_segments(const sq_layout *l)
{
  char time[SQ_MAX_SEGMENTS][32];
  const hsize_t start = 0, count = SQ_MAX_SEGMENTS;
  int n = 0;
  hid_t d = H5Dopen2(l->file, "/segments/time", H5P_DEFAULT);
  hid_t t = sq_hdf5_text_type(sizeof time[0]);
  if (d >= 0 && sq_layout_read(d, t, &start, &count, time) >= 0)
    while (n < SQ_MAX_SEGMENTS && time[n][0] != '\0') ++n;
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  return n < SQ_MAX_SEGMENTS ? n : SQ_MAX_SEGMENTS - 1;
}

/* Damaged numbers are computed again. */
static sq_status mend_finished(sq_store *s, int cell)
{
  static const hsize_t one = 1;
  const hsize_t at = (hsize_t)cell;
  uint64_t was, is;
  if (sq_layout_read(s->file.cells[SQ_C_CHECKSUM], H5T_NATIVE_UINT64, &at, &one, &was) < 0)
    return sq_fail(SQ_ERR_IO, "%s: /cells/checksum cannot be read (%s)", s->file.path, sq_hdf5_cause());
  const sq_status st = sq_layout_hash(&s->file, cell, s->status[cell], &is);
  if (st != SQ_OK || was == is) return st;
  sq_note("%s: cell %d is damaged (wrong checksum): it runs again", s->file.path, cell);
  return clear_cell(s, cell);
}

static sq_status mend(const char *path, const sq_store_plan *p, int *segment)
{
  sq_store *s = NULL;
  sq_status st;
  SQ_TRY(compare_plan(path, p));
  SQ_TRY(attach(MPI_COMM_NULL, path, p, &s));
  if (s->file.max_evals != p->max_evals) {
    st = sq_fail(SQ_ERR_USAGE, "%s has room for %d evaluations, %d are planned now; use another --out", path,
                 s->file.max_evals, p->max_evals);
    goto done;
  }
  for (int g = 0; g < s->file.ngroup; ++g)
    for (int f = 0; f < s->file.group[g].nfield; ++f)
      SQ_TRY(sq_layout_field(&s->file, &s->file.group[g], f) ? SQ_OK : SQ_ERR_IO);
  for (int i = 0; i < s->file.ncell; ++i) {
    if (s->status[i] == SQ_CELL_RUNNING) SQ_TRY(put_status(s, i, SQ_CELL_WAITING));
    if (s->status[i] > SQ_CELL_RUNNING) SQ_TRY(mend_finished(s, i));
  }
  *segment = used_segments(&s->file);
done:
  if (s != NULL) {
    if (sq_layout_close(&s->file) < 0 && st == SQ_OK)
      st = sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", path, sq_hdf5_cause());
    destroy(s);
  }
  return st == SQ_ERR_DATA ? SQ_ERR_IO : st;
}

/* Each name would have a lock and checkpoints of its own.  Those that killed starts have left are gone when the lock is held. */
static sq_status check_only_name(const char *path)
{
  struct stat is;
  if (stat(path, &is) != 0 || is.st_nlink < 2) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE,
                 "%s has %llu names (hard links), by which several runs could write it: use a copy", path,
                 (unsigned long long)is.st_nlink);
}

sq_status sq_store_resume(MPI_Comm comm, const char *path, const sq_store_plan *p, sq_store **s)
{
  int rank, segment = 0;
  *s = NULL;
  sq_hdf5_init();
  MPI_Comm_rank(comm, &rank);
  sq_lock *lock = NULL;
  sq_status st = rank == 0 ? sq_store_check_name(path) : SQ_OK;
  if (rank == 0 && st == SQ_OK) st = sq_lock_take(path, &lock);
  if (rank == 0 && st == SQ_OK) st = check_only_name(path);
  if (rank == 0 && st == SQ_OK) st = mend(path, p, &segment);
  st = agree(comm, st);
  if (st == SQ_OK) {
    MPI_Bcast(&segment, 1, MPI_INT, 0, comm);
    st = open_together(comm, path, p, segment, s);
  }
  return keep_lock(*s, lock, st);
}

sq_status sq_store_close(sq_store **ps)
{
  sq_store *s = *ps;
  if (s == NULL) return SQ_OK;
  *ps = NULL;
  char path[256];
  int failed = s->failed || sq_hdf5_write_failed();
  snprintf(path, sizeof path, "%s", s->file.path);
  sq_status st = SQ_OK;
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, s->comm);
  /* Where writes fail HDF5 leaves its collective calls early, and the other ranks wait for it for ever.  Metadata did not
     change: there is nothing that closing would add.  A flush comes back on every rank, also where only one of them has
     failed; closing after that does not. */
  if (failed)
    st = sq_fail(SQ_ERR_IO, "%s: cannot be written (disk full?)", path);
  else if (H5Fflush(s->file.file, H5F_SCOPE_GLOBAL) < 0)
    st = sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", path, sq_hdf5_cause());
  st = agree(s->comm, st);
  if (st == SQ_OK && sq_layout_close(&s->file) < 0)
    st = sq_fail(SQ_ERR_IO, "%s: cannot be closed: %s", path, sq_hdf5_cause());
  st = agree(s->comm, st); /* all have closed it, or none */
  sq_lock_release(&s->lock);
  MPI_Barrier(s->comm); /* when this returns anywhere, the next may open it */
  destroy(s);
  return st;
}
