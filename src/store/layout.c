/* src/store/layout.c: an open results file as its writer and its readers see it: columns, groups, checksum.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "store_impl.h"

/* Rows start .. start+count-1 of d, read into `in` if it is given, else written from `out`. */
static herr_t transfer(hid_t d, hid_t mem, const hsize_t *start, const hsize_t *count, void *in,
                       const void *out)
{
  herr_t e = -1;
  hid_t space = H5Dget_space(d), type = mem >= 0 ? H5Tcopy(mem) : H5Dget_type(d), part = -1;
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank >= 1 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0) {
    part = H5Screate_simple(rank, count, NULL);
    e = in != NULL ? H5Dread(d, type, part, space, H5P_DEFAULT, in)
                   : H5Dwrite(d, type, part, space, H5P_DEFAULT, out);
  }
  sq_hdf5_drop(part);
  sq_hdf5_drop(type);
  sq_hdf5_drop(space);
  return e;
}

herr_t sq_layout_read(hid_t d, hid_t mem, const hsize_t *start, const hsize_t *count, void *data)
{
  return transfer(d, mem, start, count, data, NULL);
}

herr_t sq_layout_write(hid_t d, hid_t mem, const hsize_t *start, const hsize_t *count, const void *data)
{
  return transfer(d, mem, start, count, NULL, data);
}

/* ---- opening ----------------------------------------------------------------------------------------- */
static int class_fits(hid_t d, const sq_column *k)
{
  static const H5T_class_t want[] = {
      [SQ_COL_TEXT] = H5T_STRING, [SQ_COL_INT] = H5T_INTEGER, [SQ_COL_UINT] = H5T_INTEGER,
      [SQ_COL_REAL] = H5T_FLOAT,  [SQ_COL_STATUS] = H5T_ENUM, [SQ_COL_COMPLEX] = H5T_COMPOUND};
  hid_t t = H5Dget_type(d);
  const size_t size = H5Tget_size(t);
  const int fits = H5Tget_class(t) == want[k->type] && H5Tis_variable_str(t) <= 0 &&
                   size <= (k->type == SQ_COL_TEXT     ? (size_t)1 << 24
                            : k->type == SQ_COL_STATUS ? 1
                                                       : 8);
  sq_hdf5_drop(t);
  return fits;
}

/* Opens a column of `rank` dimensions, whose lengths are put into dim, or compared if dim[0] is known already
 * (> 0). */
static sq_status open_column(sq_layout *l, const char *group, const sq_column *k, int rank, hsize_t dim[2],
                             hid_t *out)
{
  char path[64];
  hsize_t extent[H5S_MAX_RANK];
  sq_format(path, sizeof path, "/%s/%s", group, k->name);
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = *out = H5Dopen2(l->file, path, dapl);
  sq_hdf5_drop(dapl);
  if (d < 0)
    return sq_fail(SQ_ERR_DATA, "%s: no data set %s; not a results file of this program", l->path, path);
  if (!class_fits(d, k))
    return sq_fail(SQ_ERR_DATA, "%s: %s has another type than schema %d", l->path, path, SQ_SCHEMA_VERSION);
  hid_t space = H5Dget_space(d);
  int fits =
      H5Sget_simple_extent_ndims(space) == rank && H5Sget_simple_extent_dims(space, extent, NULL) == rank;
  sq_hdf5_drop(space);
  for (int i = 0; fits && i < rank; ++i) {
    if (dim[i] == 0) dim[i] = extent[i];
    fits = extent[i] == dim[i] && extent[i] < (hsize_t)1 << 31;
  }
  if (!fits) return sq_fail(SQ_ERR_DATA, "%s: %s has another shape than the rest of the file", l->path, path);
  return sq_hdf5_check_storage(d, l->path, path);
}

sq_status sq_layout_open(sq_layout *l, const char *path, MPI_Comm comm, int writable)
{
  hsize_t dim[2] = {0, 0};
  sq_status st = SQ_OK;
  *l = (sq_layout){.file = -1};
  for (int i = 0; i < SQ_NCOLUMN; ++i) l->cells[i] = -1;
  for (int i = 0; i < SQ_NHISTORY; ++i) l->history[i] = -1;
  hid_t fapl = sq_hdf5_fapl(comm);
  l->path = strdup(path);
  l->file = H5Fopen(path, writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl);
  sq_hdf5_drop(fapl);
  if (l->path == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory to open it", path);
  if (l->file < 0)
    return sq_fail(writable ? SQ_ERR_IO : SQ_ERR_DATA, "%s: cannot be opened (%s)", path, sq_hdf5_cause());
  for (int i = 0; i < SQ_NCOLUMN; ++i)
    SQ_TRY(open_column(l, "cells", &sq_cell_columns[i], 1, dim, &l->cells[i]));
  for (int i = 0; i < SQ_NHISTORY; ++i)
    SQ_TRY(open_column(l, "history", &sq_history_columns[i], 2, dim, &l->history[i]));
  l->ncell = (int)dim[0];
  l->max_evals = (int)dim[1];
done:
  return st;
}

static void clear_group(sq_layout_group *g)
{
  for (int f = 0; f < g->nfield; ++f) {
    if (g->dset != NULL) sq_hdf5_drop(g->dset[f]);
    if (g->field != NULL) free(g->field[f]);
  }
  free(g->dset);
  free(g->field);
  free(g->cell);
}

herr_t sq_layout_close(sq_layout *l)
{
  for (int g = 0; g < l->ngroup; ++g) clear_group(&l->group[g]);
  for (int i = 0; i < SQ_NCOLUMN; ++i) sq_hdf5_drop(l->cells[i]);
  for (int i = 0; i < SQ_NHISTORY; ++i) sq_hdf5_drop(l->history[i]);
  const herr_t e = l->file >= 0 ? H5Fclose(l->file) : 0;
  free(l->group);
  free(l->path);
  *l = (sq_layout){.file = -1};
  return e;
}

/* ---- groups ------------------------------------------------------------------------------------------ */
sq_layout_group *sq_layout_add_group(sq_layout *l, const char *path, int ncell, int nstage, int nfield)
{
  sq_layout_group *more = realloc(l->group, ((size_t)l->ngroup + 1) * sizeof *more);
  if (more == NULL) return NULL;
  l->group = more;
  sq_layout_group *g = &l->group[l->ngroup];
  memset(g, 0, sizeof *g);
  sq_format(g->path, sizeof g->path, "%s", path);
  g->ncell = ncell;
  g->nstage = nstage;
  g->cell = calloc(ncell > 0 ? (size_t)ncell : 1, sizeof *g->cell);
  g->field = calloc(nfield > 0 ? (size_t)nfield : 1, sizeof *g->field);
  g->dset = calloc(nfield > 0 ? (size_t)nfield : 1, sizeof *g->dset);
  if (g->cell == NULL || g->field == NULL || g->dset == NULL) {
    clear_group(g);
    return NULL;
  }
  g->nfield = nfield;
  for (int f = 0; f < nfield; ++f) g->dset[f] = -1;
  l->ngroup++;
  return g;
}

static int by_path(const void *a, const void *b)
{
  return strcmp(((const sq_layout_group *)a)->path, ((const sq_layout_group *)b)->path);
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void sq_layout_sort(sq_layout *l)
{
  if (l->ngroup > 1) qsort(l->group, (size_t)l->ngroup, sizeof *l->group, by_path);
  for (int g = 0; g < l->ngroup; ++g)
    if (l->group[g].nfield > 1) qsort(l->group[g].field, (size_t)l->group[g].nfield, sizeof(char *), by_name);
}

int sq_layout_row(const sq_layout_group *g, int cell)
{
  for (int i = 0; i < g->ncell; ++i)
    if (g->cell[i] == cell) return i;
  return -1;
}

int sq_layout_is_complex(hid_t d)
{
  hid_t type = H5Dget_type(d);
  const int is = sq_hdf5_is_complex(type);
  sq_hdf5_drop(type);
  return is;
}

int sq_layout_field(sq_layout *l, sq_layout_group *g, int f)
{
  char path[sizeof g->path + 128];
  hsize_t extent[H5S_MAX_RANK] = {0};
  if (g->dset[f] >= 0) return 1;
  sq_format(path, sizeof path, "%s/%.100s", g->path, g->field[f]);
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = H5Dopen2(l->file, path, dapl), space = d >= 0 ? H5Dget_space(d) : -1,
        type = d >= 0 ? H5Dget_type(d) : -1;
  sq_hdf5_drop(dapl);
  const int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
  const H5T_class_t c = type >= 0 ? H5Tget_class(type) : H5T_NO_CLASS;
  const int is_real = (c == H5T_FLOAT || c == H5T_INTEGER) && H5Tget_size(type) <= 8;
  const int is_pair = c == H5T_COMPOUND && sq_hdf5_is_complex(type);
  int fits = rank >= 2 && rank <= 2 + SQ_FIELD_AXES - is_pair && (is_real || is_pair) &&
             H5Sget_simple_extent_dims(space, extent, NULL) == rank && extent[0] == (hsize_t)g->ncell &&
             extent[1] == (hsize_t)g->nstage;
  sq_hdf5_drop(type);
  sq_hdf5_drop(space);
  if (!fits)
    sq_fail(SQ_ERR_DATA, "%s: %s is missing or has another type or shape than its group", l->path, path);
  else
    fits = sq_hdf5_check_storage(d, l->path, path) == SQ_OK;
  if (fits)
    g->dset[f] = d;
  else
    sq_hdf5_drop(d);
  return fits;
}

/* ---- checksum ---------------------------------------------------------------------------------------- */
/* One block of a data set, in the bytes of the file. */
static sq_status hash_block(const sq_layout *l, hid_t d, const hsize_t *start, const hsize_t *count, int rank,
                            uint64_t *h)
{
  hid_t t = H5Dget_type(d);
  size_t bytes = H5Tget_size(t);
  sq_hdf5_drop(t);
  for (int i = 0; i < rank; ++i) bytes *= (size_t)count[i];
  if (bytes == 0) return SQ_OK;
  void *data = malloc(bytes);
  if (data == NULL)
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory for a checksum over %zu bytes", l->path, bytes);
  const herr_t e = sq_layout_read(d, -1, start, count, data);
  if (e >= 0) *h = sq_hash(*h, data, bytes);
  free(data);
  return e >= 0 ? SQ_OK : sq_fail(SQ_ERR_IO, "%s: a row cannot be read back (%s)", l->path, sq_hdf5_cause());
}

/* A row stage by stage: rows may be large. */
static sq_status hash_field(sq_layout *l, sq_layout_group *g, int f, int row, uint64_t *h)
{
  hsize_t start[2 + SQ_FIELD_AXES] = {(hsize_t)row}, count[2 + SQ_FIELD_AXES];
  if (!sq_layout_field(l, g, f)) return SQ_ERR_DATA;
  hid_t space = H5Dget_space(g->dset[f]);
  const int rank = H5Sget_simple_extent_dims(space, count, NULL);
  sq_hdf5_drop(space);
  count[0] = count[1] = 1;
  sq_status st = SQ_OK;
  for (int s = 0; s < g->nstage && st == SQ_OK; ++s) {
    start[1] = (hsize_t)s;
    st = hash_block(l, g->dset[f], start, count, rank, h);
  }
  return st;
}

sq_status sq_layout_hash(sq_layout *l, int cell, int status, uint64_t *h)
{
  const hsize_t start[2] = {(hsize_t)cell, 0}, count[2] = {1, (hsize_t)l->max_evals};
  const unsigned char state = (unsigned char)status;
  sq_status st = SQ_OK;
  *h = sq_hash(SQ_HASH_START, &state, 1);
  for (int i = 0; i < SQ_C_STATUS; ++i) SQ_TRY(hash_block(l, l->cells[i], start, count, 1, h));
  for (int i = 0; i < SQ_NHISTORY; ++i) SQ_TRY(hash_block(l, l->history[i], start, count, 2, h));
  for (int g = 0; g < l->ngroup; ++g) {
    const int row = sq_layout_row(&l->group[g], cell);
    for (int f = 0; row >= 0 && f < l->group[g].nfield; ++f) SQ_TRY(hash_field(l, &l->group[g], f, row, h));
  }
done:
  return st;
}
