/* src/store/h5file.c: HDF5 files of others, read with suspicion, and small files written for others.  Serial.
 *
 * Sizes are compared with the file's own and with the memory before anything is allocated.  External links do
 * not open, data that live in other files are refused. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_impl.h"

#define MAX_RANK  8
#define MAX_TEXT  ((size_t)64 << 20) /* a resolved grid of thousands of cells takes a few MB */
#define MAX_NAMES 1000000

struct sq_h5 {
  hid_t file, inside; /* inside: link access that stays in the file */
  char *path;
  char *target, *temporary; /* while writing, else NULL; target: what path means */
  int failed;               /* a write failed: close must not put the file in place */
  sq_lock *lock;            /* while writing, else NULL */
  sq_scales *scales;        /* while writing, else NULL */
};

static void destroy(sq_h5 *f)
{
  sq_lock_release(&f->lock);
  sq_scales_destroy(f->scales);
  sq_hdf5_drop(f->inside);
  free(f->path);
  free(f->target);
  free(f->temporary);
  free(f);
}

static sq_status allocate(const char *path, sq_h5 **out)
{
  *out = NULL;
  sq_hdf5_init();
  sq_h5 *f = sq_calloc(1, sizeof *f, "an HDF5 file");
  if (f == NULL) return SQ_ERR_MEMORY;
  f->file = -1;
  f->inside = sq_hdf5_inside(H5P_LINK_ACCESS);
  f->path = strdup(path);
  if (f->path == NULL || f->inside < 0) {
    destroy(f);
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory to open it", path);
  }
  *out = f;
  return SQ_OK;
}

static sq_status prepare_to_write(sq_h5 *f, const char *target)
{
  const size_t cap = strlen(target) + 32;
  f->target = strdup(target);
  f->temporary = sq_calloc(cap, 1, "a file name");
  f->scales = sq_scales_create();
  if (f->target == NULL || f->temporary == NULL || f->scales == NULL)
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory to open it", f->path);
  sq_format(f->temporary, cap, "%s.tmp.%ld", f->target, (long)getpid());
  return SQ_OK;
}

/* Nobody else writes a file of this name from here on. */
static sq_status allocate_to_write(const char *path, sq_h5 **out)
{
  char target[4096];
  sq_status st;
  *out = NULL;
  SQ_TRY(sq_store_locate(path, target, sizeof target));
  SQ_TRY(allocate(path, out));
  SQ_TRY(prepare_to_write(*out, target));
  SQ_TRY(sq_lock_take(target, &(*out)->lock));
done:
  if (st != SQ_OK && *out != NULL) {
    destroy(*out);
    *out = NULL;
  }
  return st;
}

sq_status sq_h5_open(const char *path, sq_h5 **out)
{
  *out = NULL;
  struct stat s;
  if (stat(path, &s) != 0) return sq_fail(SQ_ERR_DATA, "%s: %s", path, strerror(errno));
  if (!S_ISREG(s.st_mode)) return sq_fail(SQ_ERR_DATA, "%s: not a regular file; expected an HDF5 file", path);
  if (access(path, R_OK) != 0) return sq_fail(SQ_ERR_DATA, "%s: %s", path, strerror(errno));
  sq_h5 *f;
  sq_status st = allocate(path, &f);
  if (st != SQ_OK) return st;
  hid_t fapl = sq_hdf5_fapl(MPI_COMM_NULL);
  if (H5Fis_hdf5(path) <= 0)
    st = sq_fail(SQ_ERR_DATA, "%s: not an HDF5 file", path);
  else if ((f->file = H5Fopen(path, H5F_ACC_RDONLY, fapl)) < 0)
    st = sq_fail(SQ_ERR_DATA, "%s: damaged HDF5 file (%s)", path, sq_hdf5_cause());
  sq_hdf5_drop(fapl);
  if (st != SQ_OK)
    destroy(f);
  else
    *out = f;
  return st;
}

sq_status sq_h5_create_file(const char *path, sq_h5 **out)
{
  sq_h5 *f = NULL;
  *out = NULL;
  sq_status st = allocate_to_write(path, &f);
  if (st != SQ_OK) return st;
  hid_t fapl = sq_hdf5_fapl(MPI_COMM_NULL);
  /* open(2) first: its errno says more than HDF5 does. */
  const int fd = open(f->temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) {
    st = sq_fail(SQ_ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
  } else {
    close(fd);
    f->file = H5Fcreate(f->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    if (f->file < 0) {
      st = sq_fail(SQ_ERR_IO, "%s: cannot be created (%s)", path, sq_hdf5_cause());
      unlink(f->temporary);
    }
  }
  sq_hdf5_drop(fapl);
  if (st != SQ_OK)
    destroy(f);
  else
    *out = f;
  return st;
}

static sq_status copy_file(const char *from, const char *to)
{
  enum { PIECE = 1 << 20 };
  char *piece = sq_calloc(PIECE, 1, "a copy of a file");
  if (piece == NULL) return SQ_ERR_MEMORY;
  const int in = open(from, O_RDONLY), out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  ssize_t n = in < 0 || out < 0 ? -1 : 1;
  while (n > 0 && (n = read(in, piece, PIECE)) > 0)
    for (ssize_t done = 0, k; done < n; done += k)
      if ((k = write(out, piece + done, (size_t)(n - done))) < 0) {
        n = -1;
        break;
      }
  const int error = errno;
  if (in >= 0) close(in);
  if (out >= 0 && close(out) != 0) n = -1;
  free(piece);
  return n == 0 ? SQ_OK : sq_fail(SQ_ERR_IO, "%s: cannot be copied to %s: %s", from, to, strerror(error));
}

/* The copy is changed and takes the name: a reader sees the file of before or the one with all of it. */
sq_status sq_h5_extend_results(const char *path, sq_h5 **out)
{
  sq_results *r = NULL;
  sq_h5 *f = NULL;
  hid_t fapl = -1;
  sq_status st;
  *out = NULL;
  SQ_TRY(sq_results_open(path, &r));
  sq_results_close(&r);
  SQ_TRY(allocate_to_write(path, &f));
  SQ_TRY(copy_file(path, f->temporary));
  fapl = sq_hdf5_fapl(MPI_COMM_NULL);
  f->file = H5Fopen(f->temporary, H5F_ACC_RDWR, fapl);
  if (f->file < 0) st = sq_fail(SQ_ERR_DATA, "%s: damaged HDF5 file (%s)", path, sq_hdf5_cause());
done:
  sq_hdf5_drop(fapl);
  if (st != SQ_OK && f != NULL) {
    unlink(f->temporary);
    destroy(f);
  } else {
    *out = f;
  }
  return st;
}

/* Data must be on the disk before the name is. */
static sq_status put_in_place(const sq_h5 *f)
{
  const int fd = open(f->temporary, O_RDONLY);
  const int bad = fd < 0 || fsync(fd) != 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (bad) return sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", f->path, strerror(error));
  if (rename(f->temporary, f->target) != 0)
    return sq_fail(SQ_ERR_IO, "%s: cannot be put in place: %s", f->path, strerror(errno));
  return SQ_OK;
}

sq_status sq_h5_close(sq_h5 **pf)
{
  sq_h5 *f = *pf;
  sq_status st = SQ_OK;
  if (f == NULL) return st;
  *pf = NULL;
  if (f->temporary != NULL &&
      (sq_scales_write(f->scales, f->file) < 0 || H5Fflush(f->file, H5F_SCOPE_GLOBAL) < 0))
    st = sq_fail(SQ_ERR_IO, "%s: cannot be written (%s)", f->path, sq_hdf5_cause());
  if (H5Fclose(f->file) < 0 && f->temporary != NULL && st == SQ_OK)
    st = sq_fail(SQ_ERR_IO, "%s: cannot be written (%s)", f->path, sq_hdf5_cause());
  if (f->temporary != NULL) {
    if (st == SQ_OK && f->failed)
      st = sq_fail(SQ_ERR_IO, "%s: not written, an earlier write failed", f->path);
    if (st == SQ_OK) st = put_in_place(f);
    if (st != SQ_OK) unlink(f->temporary);
  }
  destroy(f);
  return st;
}

void sq_h5_abandon(sq_h5 **pf)
{
  sq_h5 *f = *pf;
  if (f == NULL) return;
  *pf = NULL;
  H5Fclose(f->file);
  if (f->temporary != NULL) unlink(f->temporary);
  destroy(f);
}

const char *sq_h5_temporary(const sq_h5 *f)
{
  return f->temporary;
}

hid_t sq_h5_file(const sq_h5 *f)
{
  return f->file;
}

int sq_h5_exists(const sq_h5 *f, const char *path)
{
  hid_t o = H5Oopen(f->file, path, f->inside);
  if (o < 0) return 0;
  const H5I_type_t t = H5Iget_type(o);
  H5Oclose(o);
  return t == H5I_DATASET || t == H5I_GROUP;
}

int sq_h5_is_operator_file(const char *path)
{
  sq_h5 *f = NULL;
  if (sq_h5_open(path, &f) != SQ_OK) {
    sq_error_clear();
    return 0;
  }
  const int is = sq_h5_exists(f, "/operators") && !sq_h5_exists(f, "/cells");
  sq_h5_close(&f);
  return is;
}

/* ---- names ------------------------------------------------------------------------------------------- */
typedef struct {
  char **name;
  int n, cap, no_memory;
} name_list;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
  name_list *l = user;
  (void)group;
  if (info->type == H5L_TYPE_EXTERNAL || l->n >= MAX_NAMES) return 0;
  if (l->n == l->cap) {
    const int cap = l->cap > 0 ? 2 * l->cap : 64;
    char **bigger = realloc(l->name, (size_t)cap * sizeof *bigger);
    if (bigger == NULL) return l->no_memory = 1, -1;
    l->name = bigger;
    l->cap = cap;
  }
  if ((l->name[l->n] = strdup(name)) == NULL) return l->no_memory = 1, -1;
  l->n++;
  return 0;
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

sq_status sq_h5_list(const sq_h5 *f, const char *group, char ***name, int *n)
{
  name_list l = {NULL, 0, 0, 0};
  *name = NULL;
  *n = 0;
  hid_t gapl = sq_hdf5_inside(H5P_GROUP_ACCESS);
  hid_t g = H5Gopen2(f->file, group, gapl);
  sq_hdf5_drop(gapl);
  if (g < 0) return sq_fail(SQ_ERR_DATA, "%s: no group %s", f->path, group);
  const herr_t e = H5Literate(g, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_name, &l);
  H5Gclose(g);
  if (e < 0) {
    for (int i = 0; i < l.n; ++i) free(l.name[i]);
    free(l.name);
    if (l.no_memory) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the names in %s", f->path, group);
    return sq_fail(SQ_ERR_DATA, "%s: group %s is damaged (%s)", f->path, group, sq_hdf5_cause());
  }
  if (l.n > 1) qsort(l.name, (size_t)l.n, sizeof *l.name, by_name);
  *name = l.name;
  *n = l.n;
  return SQ_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------- */
static const char *class_name(H5T_class_t c)
{
  switch (c) {
  case H5T_INTEGER: return "integers";
  case H5T_FLOAT: return "real numbers";
  case H5T_STRING: return "text";
  case H5T_COMPOUND: return "a compound";
  case H5T_ENUM: return "an enumeration";
  case H5T_REFERENCE: return "references";
  case H5T_VLEN: return "variable-length rows";
  case H5T_ARRAY: return "arrays";
  default: return "opaque values";
  }
}

static sq_status check_class(const sq_h5 *f, hid_t d, const char *path, int integers)
{
  hid_t t = H5Dget_type(d);
  const H5T_class_t c = t >= 0 ? H5Tget_class(t) : H5T_NO_CLASS;
  const size_t size = t >= 0 ? H5Tget_size(t) : 0;
  sq_hdf5_drop(t);
  const int fine = c == H5T_INTEGER || c == H5T_ENUM || (c == H5T_FLOAT && !integers);
  if (!fine)
    return sq_fail(SQ_ERR_DATA, "%s: %s holds %s; expected %s", f->path, path, class_name(c),
                   integers ? "integers" : "numbers");
  if (size == 0 || size > 16)
    return sq_fail(SQ_ERR_DATA, "%s: %s has numbers of %zu bytes; expected at most 16", f->path, path, size);
  return SQ_OK;
}

static sq_status check_shape(const sq_h5 *f, hid_t d, const char *path, int *ndim, size_t dim[8],
                             size_t *count)
{
  hsize_t extent[H5S_MAX_RANK] = {0};
  hid_t space = H5Dget_space(d);
  const int rank =
      H5Sget_simple_extent_type(space) == H5S_NULL ? -1 : H5Sget_simple_extent_dims(space, extent, NULL);
  sq_hdf5_drop(space);
  if (rank < 0) return sq_fail(SQ_ERR_DATA, "%s: %s is empty; expected numbers", f->path, path);
  if (rank > MAX_RANK)
    return sq_fail(SQ_ERR_DATA, "%s: %s has %d dimensions; expected at most %d", f->path, path, rank,
                   MAX_RANK);
  *ndim = rank;
  *count = 1;
  const size_t most = sq_memory_bytes() / sizeof(double);
  for (int i = 0; i < MAX_RANK; ++i) dim[i] = i < rank ? (size_t)extent[i] : 1;
  for (int i = 0; i < rank; ++i) {
    if (extent[i] != 0 && *count > most / extent[i])
      return sq_fail(SQ_ERR_DATA, "%s: %s is larger than the memory (dimension %d is %llu)", f->path, path, i,
                     (unsigned long long)extent[i]);
    *count *= (size_t)extent[i];
  }
  return SQ_OK;
}

/* A number that int64 cannot hold must not be clipped in silence. */
static H5T_conv_ret_t refuse_range(H5T_conv_except_t e, hid_t src, hid_t dst, void *s, void *d, void *user)
{
  (void)src, (void)dst, (void)s, (void)d, (void)user;
  return e == H5T_CONV_EXCEPT_RANGE_HI || e == H5T_CONV_EXCEPT_RANGE_LOW ? H5T_CONV_ABORT
                                                                         : H5T_CONV_UNHANDLED;
}

static sq_status read_numbers(const sq_h5 *f, const char *path, int integers, void **data, int *ndim,
                              size_t dim[8])
{
  *data = NULL;
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = H5Dopen2(f->file, path, dapl);
  hid_t transfer = -1;
  void *out = NULL;
  size_t count;
  sq_status st;
  sq_hdf5_drop(dapl);
  if (d < 0) {
    st = sq_h5_exists(f, path) ? sq_fail(SQ_ERR_DATA, "%s: %s cannot be opened as a data set (%s)", f->path,
                                         path, sq_hdf5_cause())
                               : sq_fail(SQ_ERR_DATA, "%s: no data set %s", f->path, path);
    goto done;
  }
  SQ_TRY(check_class(f, d, path, integers));
  SQ_TRY(check_shape(f, d, path, ndim, dim, &count));
  SQ_TRY(sq_hdf5_check_storage(d, f->path, path));
  out = sq_calloc(count > 0 ? count : 1, sizeof(double), path);
  SQ_TRY(out == NULL ? SQ_ERR_MEMORY : SQ_OK);
  transfer = H5Pcreate(H5P_DATASET_XFER);
  if (integers) H5Pset_type_conv_cb(transfer, refuse_range, NULL);
  if (count > 0 &&
      H5Dread(d, integers ? H5T_NATIVE_INT64 : H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, transfer, out) < 0)
    st = sq_fail(SQ_ERR_DATA, "%s: %s cannot be read (%s)", f->path, path, sq_hdf5_cause());
done:
  if (st == SQ_OK)
    *data = out;
  else
    free(out);
  sq_hdf5_drop(transfer);
  sq_hdf5_drop(d);
  return st;
}

sq_status sq_h5_read(const sq_h5 *f, const char *path, double **data, int *ndim, size_t dim[8])
{
  void *p;
  const sq_status st = read_numbers(f, path, 0, &p, ndim, dim);
  *data = p;
  return st;
}

sq_status sq_h5_read_int(const sq_h5 *f, const char *path, int64_t **data, int *ndim, size_t dim[8])
{
  void *p;
  const sq_status st = read_numbers(f, path, 1, &p, ndim, dim);
  *data = p;
  return st;
}

/* ---- attributes -------------------------------------------------------------------------------------- */
/* An attribute of one element, with its type. */
static sq_status open_attribute(const sq_h5 *f, const char *object, const char *name, hid_t *a, hid_t *t,
                                int *empty)
{
  *t = -1;
  *empty = 0;
  *a = H5Aopen_by_name(f->file, object, name, H5P_DEFAULT, f->inside);
  if (*a < 0) return sq_fail(SQ_ERR_DATA, "%s: %s has no attribute '%s'", f->path, object, name);
  hid_t space = H5Aget_space(*a);
  const hssize_t n = H5Sget_simple_extent_npoints(space);
  *empty = H5Sget_simple_extent_type(space) == H5S_NULL;
  sq_hdf5_drop(space);
  *t = H5Aget_type(*a);
  if (*t < 0)
    return sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s is damaged (%s)", f->path, name, object,
                   sq_hdf5_cause());
  if (n != 1 && !*empty)
    return sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s has %lld elements; expected one", f->path, name,
                   object, (long long)n);
  return SQ_OK;
}

/* Text in a results file is of fixed length throughout: HDF5 follows a damaged reference into the heap
 * to anywhere, and gives no chance to look at it before.  Files of others may have both. */
static int is_results_file(const sq_h5 *f)
{
  return H5Aexists(f->file, "schema_version") > 0;
}

/* *text is owned, NUL-terminated; NULL if there is no memory or the attribute cannot be read (*unreadable).
 */
static char *read_text(hid_t a, hid_t t, int *unreadable)
{
  char *text = NULL;
  *unreadable = 0;
  if (H5Tis_variable_str(t) > 0) {
    char *shared = NULL;
    hid_t mem = H5Tcopy(t);
    *unreadable = H5Aread(a, mem, &shared) < 0;
    if (!*unreadable && shared != NULL && strlen(shared) > MAX_TEXT)
      *unreadable = 1;
    else if (!*unreadable)
      text = strdup(shared != NULL ? shared : "");
    H5free_memory(shared);
    sq_hdf5_drop(mem);
    return text;
  }
  const size_t size = H5Tget_size(t);
  if (size > MAX_TEXT || (text = calloc(size + 1, 1)) == NULL) return NULL;
  if (H5Aread(a, t, text) < 0) {
    *unreadable = 1;
    free(text);
    return NULL;
  }
  if (H5Tget_strpad(t) == H5T_STR_SPACEPAD)
    for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; --n) text[n - 1] = '\0';
  return text;
}

sq_status sq_h5_read_grid(const sq_h5 *f, char **text)
{
  *text = NULL;
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  hid_t d = H5Dopen2(f->file, "/grid", dapl), t = d >= 0 ? H5Dget_type(d) : -1,
        space = d >= 0 ? H5Dget_space(d) : -1;
  const size_t size = t >= 0 ? H5Tget_size(t) : 0;
  sq_status st = SQ_OK;
  sq_hdf5_drop(dapl);
  if (t < 0 || space < 0 || H5Tget_class(t) != H5T_STRING || H5Tis_variable_str(t) != 0 ||
      H5Sget_simple_extent_type(space) != H5S_SCALAR || size == 0 || size > MAX_TEXT)
    st = sq_fail(SQ_ERR_DATA, "%s is not a results file of this version: /grid is missing or not one text",
                 f->path);
  SQ_TRY(st);
  SQ_TRY(sq_hdf5_check_storage(d, f->path, "/grid"));
  *text = sq_calloc(size + 1, 1, "/grid");
  SQ_TRY(*text != NULL ? SQ_OK : SQ_ERR_MEMORY);
  if (H5Dread(d, t, H5S_ALL, H5S_ALL, H5P_DEFAULT, *text) < 0) {
    st = sq_fail(SQ_ERR_DATA, "%s: /grid cannot be read (%s)", f->path, sq_hdf5_cause());
    free(*text);
    *text = NULL;
  }
done:
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  return st;
}

sq_status sq_h5_read_text_attribute(const sq_h5 *f, const char *object, const char *name, char **text)
{
  hid_t a, t;
  int empty, unreadable = 0;
  *text = NULL;
  sq_status st = open_attribute(f, object, name, &a, &t, &empty);
  if (st == SQ_OK && H5Tget_class(t) != H5T_STRING)
    st = sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s holds %s; expected text", f->path, name, object,
                 class_name(H5Tget_class(t)));
  if (st == SQ_OK && H5Tis_variable_str(t) != 0 && is_results_file(f))
    st = sq_fail(SQ_ERR_DATA,
                 "%s is not a results file of this version: attribute '%s' of %s has no fixed length",
                 f->path, name, object);
  if (st == SQ_OK) {
    *text = empty ? strdup("") : read_text(a, t, &unreadable);
    if (*text == NULL)
      st = unreadable
               ? sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s cannot be read (%s)", f->path, name, object,
                         sq_hdf5_cause())
               : sq_fail(SQ_ERR_MEMORY, "%s: no memory for attribute '%s' of %s", f->path, name, object);
  }
  sq_hdf5_drop(t);
  sq_hdf5_drop(a);
  return st;
}

sq_status sq_h5_read_int_attribute(const sq_h5 *f, const char *object, const char *name, int *value)
{
  hid_t a, t;
  int empty;
  int64_t v = 0;
  sq_status st = open_attribute(f, object, name, &a, &t, &empty);
  const H5T_class_t c = st == SQ_OK ? H5Tget_class(t) : H5T_NO_CLASS;
  if (st == SQ_OK && (empty || (c != H5T_INTEGER && c != H5T_ENUM) || H5Tget_size(t) > 8))
    st = sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s holds %s; expected an integer", f->path, name, object,
                 empty ? "nothing" : class_name(c));
  if (st == SQ_OK && H5Aread(a, H5T_NATIVE_INT64, &v) < 0)
    st = sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s cannot be read (%s)", f->path, name, object,
                 sq_hdf5_cause());
  if (st == SQ_OK && (v < INT_MIN || v > INT_MAX))
    st = sq_fail(SQ_ERR_DATA, "%s: attribute '%s' of %s is %lld, out of range", f->path, name, object,
                 (long long)v);
  if (st == SQ_OK) *value = (int)v;
  sq_hdf5_drop(t);
  sq_hdf5_drop(a);
  return st;
}

/* ---- writing ----------------------------------------------------------------------------------------- */
static sq_status write_failed(sq_h5 *f, const char *path)
{
  f->failed = 1;
  return sq_fail(SQ_ERR_IO, "%s: %s cannot be written (%s)", f->path, path, sq_hdf5_cause());
}

static sq_status write_numbers(sq_h5 *f, const char *path, hid_t stored, hid_t given, int ndim,
                               const size_t *dim, const void *data)
{
  hsize_t extent[MAX_RANK];
  size_t count = 1;
  SQ_ASSERT(ndim >= 0 && ndim <= MAX_RANK);
  for (int i = 0; i < ndim; ++i) {
    extent[i] = dim[i];
    count *= dim[i];
  }
  hid_t links = H5Pcreate(H5P_LINK_CREATE), plist = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  H5Pset_obj_track_times(plist, 0); /* same numbers, same bytes */
  hid_t space = ndim == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(ndim, extent, NULL);
  hid_t d = H5Dcreate2(f->file, path, stored, space, links, plist, H5P_DEFAULT);
  sq_status st = SQ_OK;
  if (d < 0 || (count > 0 && H5Dwrite(d, given, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0))
    st = write_failed(f, path);
  if (d >= 0 && H5Dclose(d) < 0 && st == SQ_OK) /* small ones reach the disk only here */
    st = write_failed(f, path);
  sq_hdf5_drop(space);
  sq_hdf5_drop(plist);
  sq_hdf5_drop(links);
  return st;
}

sq_status sq_h5_write(sq_h5 *f, const char *path, int ndim, const size_t *dim, const double *data)
{
  return write_numbers(f, path, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, ndim, dim, data);
}

sq_status sq_h5_write_complex(sq_h5 *f, const char *path, int ndim, const size_t *dim, const sq_complex *data)
{
  hid_t stored = sq_hdf5_complex_type(H5T_IEEE_F64LE), given = sq_hdf5_complex_type(H5T_NATIVE_DOUBLE);
  const sq_status st = write_numbers(f, path, stored, given, ndim, dim, data);
  sq_hdf5_drop(stored);
  sq_hdf5_drop(given);
  return st;
}

sq_status sq_h5_write_int(sq_h5 *f, const char *path, int ndim, const size_t *dim, const int64_t *data)
{
  return write_numbers(f, path, H5T_STD_I64LE, H5T_NATIVE_INT64, ndim, dim, data);
}

sq_status sq_h5_write_axis(sq_h5 *f, const char *path, size_t n, int first, const char *long_name)
{
  sq_status st = SQ_OK;
  int64_t *v = sq_calloc(n > 0 ? n : 1, sizeof *v, path);
  if (v == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < n; ++i) v[i] = first + (int64_t)i;
  SQ_TRY(sq_h5_write_int(f, path, 1, &n, v));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "long_name", long_name));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "1"));
  SQ_TRY(sq_scales_add(f->scales, path) ? SQ_OK
                                        : sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", f->path, path));
done:
  free(v);
  return st;
}

sq_status sq_h5_use_axes(sq_h5 *f, const char *path, int ndim, const char *const *axis)
{
  for (int i = 0; i < ndim; ++i)
    if (!sq_scales_use(f->scales, path, i, axis[i]))
      return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the axes of %s", f->path, path);
  return SQ_OK;
}

sq_status sq_h5_write_text_attribute(sq_h5 *f, const char *object, const char *name, const char *text)
{
  hid_t o = H5Oopen(f->file, object, f->inside);
  sq_status st = SQ_OK;
  if (o < 0)
    st = write_failed(f, object);
  else if (strlen(text) >= 64000) /* an object header has room for 64 KiB; longer text goes to the heap */
    st = sq_hdf5_put_long_text(o, name, text) < 0 ? write_failed(f, name) : SQ_OK;
  else if (sq_hdf5_put_text(o, name, text) < 0)
    st = write_failed(f, name);
  if (o >= 0 && H5Oclose(o) < 0 && st == SQ_OK) st = write_failed(f, object);
  return st;
}

sq_status sq_h5_write_int_attribute(sq_h5 *f, const char *object, const char *name, int value)
{
  hid_t o = H5Oopen(f->file, object, f->inside);
  sq_status st = o < 0 || sq_hdf5_put_int(o, name, value) < 0 ? write_failed(f, object) : SQ_OK;
  if (o >= 0 && H5Oclose(o) < 0 && st == SQ_OK) st = write_failed(f, object);
  return st;
}
