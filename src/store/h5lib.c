/* src/store/h5lib.c: HDF5 made quiet, and small helpers for files written and read elsewhere in the store. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "store_impl.h"

static int write_failed, close_failed; /* in the library, which is the process's as well */

static herr_t look_for_write(unsigned n, const H5E_error2_t *e, void *unused)
{
  (void)n, (void)unused;
  if (e->min_num == H5E_WRITEERROR) write_failed = 1;
  if (e->min_num == H5E_CANTFLUSH || e->min_num == H5E_CLOSEERROR) close_failed = 1;
  return 0;
}

/* Called for each call that fails, instead of the printing. */
static herr_t note_failure(hid_t stack, void *unused)
{
  return H5Ewalk2(stack, H5E_WALK_UPWARD, look_for_write, unused);
}

int sq_hdf5_write_failed(void)
{
  return write_failed || close_failed;
}

void sq_hdf5_write_worked(void)
{
  write_failed = 0;
}

void sq_hdf5_init(void)
{
  static int ready;
  if (ready) return;
  ready = 1;
  /* The drivers read it once, when the library opens; the property below is for those that look again. */
  setenv("HDF5_USE_FILE_LOCKING", "FALSE", 1);
  H5open();
  H5Eset_auto2(H5E_DEFAULT, note_failure, NULL);
  H5PLset_loading_state(0); /* an untrusted file must not choose code to load */
}

#define CAUSE 400
static herr_t take_innermost(unsigned n, const H5E_error2_t *e, void *out)
{
  if (n == 0 && e->desc != NULL) snprintf(out, CAUSE, "%s", e->desc);
  return 0;
}

const char *sq_hdf5_cause(void)
{
  static char text[CAUSE];
  text[0] = '\0';
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, text);
  /* Where the driver quotes the system's message, that is the reason. */
  char *quote = strstr(text, "error message = '");
  if (quote != NULL) {
    quote += strlen("error message = '");
    char *end = strchr(quote, '\'');
    if (end != NULL) *end = '\0';
    memmove(text, quote, strlen(quote) + 1);
  }
  for (char *p = text; *p != '\0'; ++p)
    if (*p == '\n' || *p == '\r') *p = ' ';
  /* A driver adds its own buffers and offsets after the reason: of no use to a reader. */
  char *noise = strstr(text, ", buf = ");
  if (noise == NULL) noise = strstr(text, ", flags = ");
  if (noise != NULL) *noise = '\0';
  return text;
}

hid_t sq_hdf5_fapl(MPI_Comm comm)
{
  sq_hdf5_init();
  hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
  if (fapl < 0) return fapl;
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(fapl, 0, 1);
#endif
  if (comm == MPI_COMM_NULL)
    H5Pset_fapl_sec2(fapl);
  else
    H5Pset_fapl_mpio(fapl, comm, MPI_INFO_NULL);
  return fapl;
}

/* Runs before the other file is opened. */
static herr_t refuse_external(const char *pf, const char *pp, const char *cf, const char *co, unsigned *flags,
                              hid_t fapl, void *user)
{
  (void)pf, (void)pp, (void)cf, (void)co, (void)flags, (void)fapl, (void)user;
  return -1;
}

hid_t sq_hdf5_inside(hid_t cls)
{
  hid_t l = H5Pcreate(cls);
  if (l >= 0) H5Pset_elink_cb(l, refuse_external, NULL);
  return l;
}

hid_t sq_hdf5_text_type(size_t len)
{
  hid_t t = H5Tcopy(H5T_C_S1);
  if (t < 0) return t;
  H5Tset_size(t, len > 0 ? len : 1);
  H5Tset_strpad(t, H5T_STR_NULLPAD);
  H5Tset_cset(t, H5T_CSET_UTF8);
  return t;
}

static herr_t put_scalar(hid_t object, const char *name, hid_t file_type, hid_t mem_type, const void *value)
{
  herr_t e = -1;
  hid_t space = H5Screate(H5S_SCALAR);
  hid_t a = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (a >= 0) e = H5Awrite(a, mem_type, value);
  sq_hdf5_drop(a);
  sq_hdf5_drop(space);
  return e;
}

herr_t sq_hdf5_put_text(hid_t object, const char *name, const char *text)
{
  hid_t t = sq_hdf5_text_type(strlen(text));
  herr_t e = put_scalar(object, name, t, t, text); /* "" gives one NUL: the terminator that is there */
  sq_hdf5_drop(t);
  return e;
}

herr_t sq_hdf5_put_long_text(hid_t object, const char *name, const char *text)
{
  hid_t t = sq_hdf5_text_type(1);
  H5Tset_size(t, H5T_VARIABLE);
  H5Tset_strpad(t, H5T_STR_NULLTERM);
  herr_t e = put_scalar(object, name, t, t, &text);
  sq_hdf5_drop(t);
  return e;
}

herr_t sq_hdf5_put_int(hid_t object, const char *name, int value)
{
  return put_scalar(object, name, H5T_STD_I32LE, H5T_NATIVE_INT, &value);
}

/* Only what the library itself brings; asking H5Zfilter_avail about others would search for plug-ins. */
static int filter_is_ours(H5Z_filter_t id)
{
  switch (id) {
  case H5Z_FILTER_DEFLATE:
  case H5Z_FILTER_SHUFFLE:
  case H5Z_FILTER_FLETCHER32:
  case H5Z_FILTER_SZIP:
  case H5Z_FILTER_NBIT:
  case H5Z_FILTER_SCALEOFFSET: return H5Zfilter_avail(id) > 0;
  default: return 0;
  }
}

static sq_status check_plist(hid_t plist, const char *file_name, const char *path)
{
  if (H5Pget_layout(plist) == H5D_VIRTUAL)
    return sq_fail(SQ_ERR_DATA,
                   "%s: %s is a virtual data set, which reads other files; copy it with h5repack", file_name,
                   path);
  if (H5Pget_external_count(plist) != 0)
    return sq_fail(SQ_ERR_DATA, "%s: %s keeps its data in another file; external storage is refused",
                   file_name, path);
  const int n = H5Pget_nfilters(plist);
  for (int i = 0; i < n; ++i) {
    unsigned flags, config;
    size_t nelem = 0;
    char name[64] = "";
    const H5Z_filter_t id =
        H5Pget_filter2(plist, (unsigned)i, &flags, &nelem, NULL, sizeof name, name, &config);
    if (!filter_is_ours(id))
      return sq_fail(
          SQ_ERR_DATA,
          "%s: %s is compressed with filter %d, which is not available here; h5repack -f GZIP=4 helps",
          file_name, path, (int)id);
  }
  return SQ_OK;
}

hid_t sq_hdf5_complex_type(hid_t part)
{
  const size_t half = H5Tget_size(part);
  hid_t t = H5Tcreate(H5T_COMPOUND, 2 * half);
  H5Tinsert(t, "r", 0, part);
  H5Tinsert(t, "i", half, part);
  return t;
}

static int is_member(hid_t type, unsigned i, const char *name)
{
  char *is = H5Tget_member_name(type, i);
  hid_t part = H5Tget_member_type(type, i);
  const int fits = is != NULL && strcmp(is, name) == 0 && H5Tget_class(part) == H5T_FLOAT &&
                   H5Tget_size(part) == sizeof(double) && H5Tget_member_offset(type, i) == i * sizeof(double);
  sq_hdf5_drop(part);
  H5free_memory(is);
  return fits;
}

int sq_hdf5_is_complex(hid_t type)
{
  return H5Tget_class(type) == H5T_COMPOUND && H5Tget_size(type) == 2 * sizeof(double) &&
         H5Tget_nmembers(type) == 2 && is_member(type, 0, "r") && is_member(type, 1, "i");
}

/* Bytes of all elements: not from HDF5's own count of them, which wraps around at 2^64. */
static double declared_bytes(hid_t space, hid_t type)
{
  hsize_t extent[H5S_MAX_RANK];
  const int rank =
      H5Sget_simple_extent_type(space) == H5S_NULL ? -1 : H5Sget_simple_extent_dims(space, extent, NULL);
  double bytes = rank >= 0 ? (double)H5Tget_size(type) : 0;
  for (int i = 0; i < rank; ++i) bytes *= (double)extent[i];
  return bytes;
}

sq_status sq_hdf5_check_storage(hid_t d, const char *file_name, const char *path)
{
  hid_t plist = H5Dget_create_plist(d), space = H5Dget_space(d), type = H5Dget_type(d);
  sq_status st = SQ_OK;
  if (plist < 0 || space < 0 || type < 0)
    st = sq_fail(SQ_ERR_DATA, "%s: %s is damaged (%s)", file_name, path, sq_hdf5_cause());
  if (st == SQ_OK) st = check_plist(plist, file_name, path);
  if (st == SQ_OK) {
    const double bytes = declared_bytes(space, type);
    const double stored = (double)H5Dget_storage_size(d);
    struct stat on_disk; /* not H5Fget_filesize: that is collective */
    const int error = stat(file_name, &on_disk) == 0 ? 0 : errno;
    const double file_size = error == 0 ? (double)on_disk.st_size : 0;
    /* Deflate, the best of the filters, cannot do better than 1032 : 1. */
    const double most = H5Pget_layout(plist) == H5D_CHUNKED ? 1100.0 * stored + 4096 : stored;
    if (error != 0)
      st = sq_fail(SQ_ERR_IO, "%s%s: %s", file_name,
                   error == ENOENT ? " was removed or replaced while it was in use" : "", strerror(error));
    else if (stored > file_size || bytes > most)
      st = sq_fail(SQ_ERR_DATA, "%s: %s declares %.0f bytes, but the file holds only %.0f of them", file_name,
                   path, bytes, stored > file_size ? file_size : stored);
  }
  sq_hdf5_drop(type);
  sq_hdf5_drop(space);
  sq_hdf5_drop(plist);
  return st;
}

const char *sq_hdf5_version(void)
{
  static char text[32];
  unsigned a = 0, b = 0, c = 0;
  sq_hdf5_init();
  H5get_libversion(&a, &b, &c);
  snprintf(text, sizeof text, "%u.%u.%u", a, b, c);
  return text;
}
