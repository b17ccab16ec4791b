/* src/store/store_impl.h: what the files of the store share.  All ids are HDF5's; < 0 means "not there". */
#pragma once

#include <hdf5.h>
#include <stddef.h>

#include "sq/store.h"

#ifndef H5_HAVE_PARALLEL
#error "a parallel HDF5 is needed"
#endif

/* Once before anything else: no file locks (a reader may look while a run writes, and locks fail on many
   parallel file systems), no error stack on stderr, no filter plug-ins. */
void sq_hdf5_init(void);
/* HDF5's innermost description of the last failure on this thread; "" if none.  Valid until the next call. */
const char *sq_hdf5_cause(void);
/* A write has worked after one that failed, for want of room: see sq_hdf5_write_failed(). */
void sq_hdf5_write_worked(void);

/* File access list without locks; comm == MPI_COMM_NULL: serial.  Close with H5Pclose. */
hid_t sq_hdf5_fapl(MPI_Comm comm);
/* Access lists (H5P_DATASET_ACCESS, H5P_GROUP_ACCESS, H5P_LINK_ACCESS, ...) under which external links do not
 * open. */
hid_t sq_hdf5_inside(hid_t cls);

/* Fixed-length UTF-8, NUL-padded, of `len` bytes (at least 1). */
hid_t sq_hdf5_text_type(size_t len);
/* {double r, i}: in memory, or as it is in the file (IEEE, little endian). */
hid_t sq_hdf5_complex_type(hid_t part);
int sq_hdf5_is_complex(
    hid_t type); /* a compound of two 64-bit floats r and i, in this order, and nothing else */
/* Attributes on an open object, created; < 0 on failure. */
herr_t sq_hdf5_put_text(hid_t object, const char *name, const char *text);
/* Of any length, stored in the heap (a fixed-length attribute ends at 64 KiB). */
herr_t sq_hdf5_put_long_text(hid_t object, const char *name, const char *text);
herr_t sq_hdf5_put_int(hid_t object, const char *name, int value);

/* Whether `d` is safe to read: layout, storage against the file's size, filters.  Fails with SQ_ERR_DATA,
 * naming file and path. */
sq_status sq_hdf5_check_storage(hid_t d, const char *file_name, const char *path);

/* ---- who writes a results file (lock.c) --------------------------------------------------------------- */
typedef struct sq_lock sq_lock;
/* Makes FILE.lock and gives signs of life there until it is released.  SQ_ERR_USAGE if a run that lives holds it; the
 * lock of one that has ended is taken over, after half a minute without a sign of life where nothing else can tell
 * (another host, or no flock).  Removes FILE.tmp.<number>, in which processes that were killed were making the file: nobody
 * else may make it now.  SQ_ERR_IO. */
sq_status sq_lock_take(const char *path, sq_lock **l);
int sq_lock_is_lost(const sq_lock *l); /* another run has taken it; NULL: 0 */
void sq_lock_release(sq_lock **l);     /* removes FILE.lock, if it is still ours */

/* ---- the tables of the schema (schema.c) ------------------------------------------------------------- */
typedef enum { SQ_COL_TEXT, SQ_COL_INT, SQ_COL_UINT, SQ_COL_REAL, SQ_COL_STATUS, SQ_COL_COMPLEX } sq_col_type;
typedef struct {
  const char *name;
  sq_col_type type;
  size_t len; /* text: bytes; 0: as the longest of the plan */
  const char *unit, *long_name;
} sq_column;

enum { /* rows of /cells, in the order of the checksum; the last six are not in it */
       SQ_C_TASK,
       SQ_C_MODEL,
       SQ_C_LABEL,
       SQ_C_SWEPT,
       SQ_C_CONFIG,
       SQ_C_RECIPE,
       SQ_C_SEED,
       SQ_C_METRIC,
       SQ_C_REASON,
       SQ_C_STEPS,
       SQ_C_BEST_STEP,
       SQ_C_PARAMETERS,
       SQ_C_TEST_METRIC,
       SQ_C_TEST_LOSS,
       SQ_C_VALID_METRIC,
       SQ_C_TRAIN_LOSS,
       SQ_C_FLOPS,
       SQ_C_STATUS,
       SQ_C_CHECKSUM,
       SQ_C_RUN_WALL,
       SQ_C_RUN_PEAK,
       SQ_C_RUN_RANK,
       SQ_C_RUN_HOST,
       SQ_C_RUN_SEGMENT,
       SQ_NCOLUMN
};
enum { SQ_H_STEP, SQ_H_TRAIN_LOSS, SQ_H_VALID_LOSS, SQ_H_VALID_METRIC, SQ_H_LR, SQ_H_GRAD_NORM, SQ_NHISTORY };
enum {
  SQ_S_TIME,
  SQ_S_PROGRAM,
  SQ_S_CPU,
  SQ_S_BLAS,
  SQ_S_KERNEL,
  SQ_S_MPI,
  SQ_S_HDF5,
  SQ_S_HOSTS,
  SQ_S_RANKS,
  SQ_S_THREADS,
  SQ_S_DATA,
  SQ_S_FIRST_STEP,
  SQ_NSEGMENT
};
extern const sq_column sq_cell_columns[SQ_NCOLUMN];
extern const sq_column sq_history_columns[SQ_NHISTORY];
extern const sq_column sq_segment_columns[SQ_NSEGMENT];

/* Lays the whole file out and fills what is known from the plan; serial.  The file has its name only when it
 * is complete. */
sq_status sq_schema_make(const char *path, const sq_store_plan *p);
/* /grid of a results file, one text of fixed length, *owned*.  SQ_ERR_DATA if it is missing or something else. */
sq_status sq_h5_read_grid(const sq_h5 *f, char **text);
/* SQ_ERR_USAGE with the first key path that differs, both as JSON; SQ_ERR_IO if a column of /segments is missing. */
sq_status sq_schema_compare(const char *path, const char *grid_in_file, const char *grid_now);

/* ---- dimension scales (scales.c) --------------------------------------------------------------------- */
typedef struct sq_scales sq_scales;
sq_scales *sq_scales_create(void); /* NULL: no memory */
void sq_scales_destroy(sq_scales *l);
int sq_scales_add(sq_scales *l, const char *path); /* a data set that is a scale; 0: no memory */
int sq_scales_use(sq_scales *l, const char *dset, int dim,
                  const char *scale);                   /* in order of data set and dim */
herr_t sq_scales_write(const sq_scales *l, hid_t file); /* all attributes, at the end */

/* ---- an open results file, of the writer or of a reader (layout.c) ----------------------------------- */
typedef struct {
  char path[200];
  int ncell, nstage, nfield;
  int *cell;    /* (ncell) owned */
  char **field; /* (nfield) owned: data sets (row, stage, ...), sorted: stage_step among them */
  hid_t *dset;  /* (nfield) -1: not opened yet */
} sq_layout_group;

typedef struct {
  hid_t file;
  char *path; /* owned */
  int ncell, max_evals, ngroup;
  hid_t cells[SQ_NCOLUMN], history[SQ_NHISTORY];
  sq_layout_group *group; /* (ngroup) owned, sorted by path */
} sq_layout;

sq_status sq_layout_open(sq_layout *l, const char *path, MPI_Comm comm,
                         int writable); /* everything but the groups */
herr_t sq_layout_close(sq_layout *l);   /* closes the file */
/* Adds an empty group of these sizes; field names are copied by the caller. NULL: no memory. */
sq_layout_group *sq_layout_add_group(sq_layout *l, const char *path, int ncell, int nstage, int nfield);
void sq_layout_sort(sq_layout *l);
int sq_layout_is_complex(hid_t d);                            /* an open field */
int sq_layout_field(sq_layout *l, sq_layout_group *g, int f); /* opens dset[f]; 0: SQ_ERR_DATA recorded */
int sq_layout_row(const sq_layout_group *g, int cell);        /* -1: not of this group */
/* Checksum of a cell's rows, with `status` taken as its status. */
sq_status sq_layout_hash(sq_layout *l, int cell, int status, uint64_t *h);
/* A block [start, start + count) of a data set; mem: memory type, or -1 for the file's own. */
herr_t sq_layout_read(hid_t d, hid_t mem, const hsize_t *start, const hsize_t *count, void *data);
herr_t sq_layout_write(hid_t d, hid_t mem, const hsize_t *start, const hsize_t *count, const void *data);

hid_t sq_h5_file(const sq_h5 *f);

static inline void sq_hdf5_drop(hid_t id) /* releases any kind of id but a file's */
{
  if (id >= 0) H5Idec_ref(id);
}
