/* include/sq/store.h: the results file, and every other use of HDF5.  This header is the schema.
 *
 * All shapes are known when the grid is known: sq_store_create() makes every data set (contiguous, allocated,
 * filled with the missing value) before any rank computes, and metadata never change again; ranks then write
 * their own cells' rows independently.  A killed job leaves a file that opens, with each finished cell whole:
 * `status` is written last, after the data and its checksum.
 *
 *   /                      attributes: schema_version (int), program ("seqspectra"), precision ("float32", "float64"),
 *                          missing_values and complex_numbers (notes); text of fixed length, as everywhere
 *   /grid                  the resolved grid, JSON: one text
 *   /cell                  dimension scale: 0..ncell-1
 *
 *   /cells/                one row a cell
 *     task                 text (all text is fixed-length UTF-8)
 *     model                text, the model's label
 *     label                text, model label and swept values
 *     swept                text, JSON of the swept keys and values
 *     config               text, resolved configuration of the cell, JSON
 *     recipe               text, "corrected" or "published"
 *     seed                 uint64
 *     status               enum of 8 bits: 0 waiting, 1 running, 2 done, 3 diverged, 4 failed
 *     reason               text, why it diverged or failed; "" otherwise
 *     steps, best_step     int64, steps trained; step of the best evaluation, whose weights are `trained`; -1 = none
 *     parameters           int64
 *     metric               text, name of the metric
 *     test_metric, test_loss, valid_metric, train_loss, flops     float64, NaN = not there
 *     checksum             uint64: FNV-1a over status, the columns of /cells without checksum and run_*, /history, then the
 *                          groups of /spectra and their fields by name: the bytes of the cell's rows as they are in the
 *                          file; 0 = not ended
 *     run_wall_s, run_peak_bytes, run_rank, run_host, run_segment   depend on the run, not on the numbers; in no checksum;
 *                          run_wall_s: all starts that the result was made in
 *
 *   /history/              (cell, evaluation)
 *     step                 int64, -1 = none
 *     train_loss, valid_loss, valid_metric, lr, grad_norm     float64, NaN
 *
 *   /spectra/<task>/<model>[-suffix]/<protocol>/     suffix (-L4, -H8, ...) where a sweep changes the shape
 *     cell                 (row) rows of /cells
 *     stage                text scale: init, snapshot 1.., trained
 *     stage_step           (row, stage) training step, -1 = none
 *     <field>              (row, stage, axes of the field) float64, NaN = not there; complex fields: compound {r, i} of
 *                          two float64; attributes units, long_name, invariant ("yes", "no", "n/a").  Fields and axes:
 *                          src/spectra/fields.c.  Both protocols: length, log_lambda, percent_radius_{mean,std},
 *                          percent_phase_{mean,std}; time-invariant layers have lambda (layer, channel, state), complex
 *                          (published: (layer, state)), instead of length and log_lambda.  dsf also:
 *                          null_uniform_percent_radius_mean, null_shuffled_percent_radius_mean, log_lambda_quantile,
 *                          share_above_one, spectral_entropy, memory_distance_quantile, hankel_sigma,
 *                          hankel_log_sigma1, effective_state_size_{tolerance,entropy,entropy_squared}; all but attention,
 *                          lyapunov_{exponent,horizon}; time-invariant layers, no shuffled null
 *                          model, and lambda_{radius,certified,condition,backward_error,sensitivity},
 *                          percent_radius_{shift,marked}, and modal_energy_percent_radius (diagonal) or
 *                          power_norm_max, numerical_radius, kernel_energy_quantile (dense)
 *
 *   /segments/             256 rows, one for each start or resume, the others empty (ranks, threads: -1): time,
 *                          program_version, cpu, blas, blas_kernel, mpi, hdf5, hosts, ranks, threads; data_s, first_step_s
 *                          (float64, NaN = none): seconds that reading, checking and sharing the data took, and those from
 *                          the program's start to the end of the first training step of any rank (while it runs: of rank
 *                          0), the spectra before it included
 *   /operators/transition/<label>/layer<k>/     added by `operator transition`, here or in a file of its own, whose root has
 *                          schema_version, program and precision; attributes method (secular, dense, distributed,
 *                          diagonal), config (of the cell, JSON) and weights (file that they are from, "" if initial)
 *     channel, state       dimension scales
 *     lambda               (channel, state) complex
 *     lambda_radius        (channel, state) of the disc around lambda that holds the eigenvalue of the stored parameters:
 *                          method secular; diagonal: 0
 *     backward_error       (channel, state) |A x - lambda x| / (|A| |x|); diagonal: 0
 *     certified            (channel, state) int64: 1 proven by a disc of its own (method secular; diagonal), else 0
 *     condition, sensitivity     (channel, state); not for diagonal matrices
 *     run/                 attributes time, program_version, cpu, blas, blas_kernel, mpi, hdf5, hosts, ranks, threads;
 *                          matrices_s, eigenvalues_s, checks_s of rank 0
 *   /weights/<cell>/<name> if run.save_weights: the `trained` parameters, in the published names and shapes
 */
#pragma once

#include <mpi.h>

#include "sq/config.h"
#include "sq/param.h"
#include "sq/spectra.h"
#include "sq/train.h"

#define SQ_SCHEMA_VERSION 1
#define SQ_MAX_SEGMENTS   256

typedef enum {
  SQ_CELL_WAITING,
  SQ_CELL_RUNNING,
  SQ_CELL_DONE,
  SQ_CELL_DIVERGED,
  SQ_CELL_FAILED
} sq_cell_status;
const char *sq_cell_status_name(sq_cell_status s);

typedef struct {  /* one spectra group: cells of equal task, model label and shape */
  char path[200]; /* "/spectra/mqar/mqar-sm-attention/dsf" */
  int ncell;
  const int *cell;       /* (ncell) */
  int nstage;            /* init, snapshots, trained */
  const sq_field *field; /* (nfield) borrowed until create returns */
  int nfield;
  const sq_axis *axis; /* (naxis) */
  int naxis;
} sq_store_group;

typedef struct {
  const sq_experiment *experiment;
  int max_evals;             /* columns of /history */
  const char *const *metric; /* (ncell) */
  int ngroup;
  const sq_store_group *group;
  const sq_param_list *const
      *weights; /* (ncell) parameter lists, or NULL: save_weights off (also per cell) */
} sq_store_plan;

typedef struct { /* of this start or resume; the same on all ranks */
  char time[32], program[64], cpu[96], blas[96], blas_kernel[32], mpi[96], hdf5[32], hosts[512];
  int ranks, threads;
  double data_s, first_step_s; /* NAN: none, or not yet */
} sq_segment;

typedef struct sq_store sq_store;

/* Bytes of the file that create() would make, for `plan`; more than enough where it cannot be tried out. */
size_t sq_store_bytes(const sq_store_plan *p);
/* Collective on comm: rank 0 lays the file out under a temporary name with all space taken, gives it its
   name, then all open it. SQ_ERR_USAGE if the file exists or another run writes it; SQ_ERR_IO (with free space, where that is the
   cause) if it cannot be written. */
sq_status sq_store_create(MPI_Comm comm, const char *path, const sq_store_plan *p, sq_store **s);
/* Collective.  Opens an existing file for the same plan.  SQ_ERR_USAGE with the first difference if grid,
   schema version or precision differ, or if another run writes it; SQ_ERR_IO if it is damaged.  Cells left
   `running` become `waiting`, their rows kept for a checkpoint; so do finished cells with a wrong checksum (with a
   note that names them).

   From create or resume to close rank 0 holds PATH.lock: a small text that names host, process, batch job and start, and
   changes every few seconds as a sign of life. */
sq_status sq_store_resume(MPI_Comm comm, const char *path, const sq_store_plan *p, sq_store **s);
/* Collective; after a rank died do not call it.  SQ_ERR_IO if the last write of a rank has failed; the file is then left open
   on all ranks: see sq_hdf5_write_failed(). */
sq_status sq_store_close(sq_store **s);
/* Rank 0: another run has taken the file over, since this one's lock was removed or gave no sign of life for long; stop
   writing.  0 on the other ranks. */
int sq_store_is_lost(const sq_store *s);
/* Under the file's name there is no longer the file that was opened: somebody has removed or replaced it. */
int sq_store_is_gone(const sq_store *s);
/* The file that a path means: the end of a symbolic link, else the path as it is.  Lock and checkpoints lie beside it.
   SQ_ERR_IO if a link ends nowhere, SQ_ERR_USAGE if cap, its terminator included, is too small. */
sq_status sq_store_locate(const char *path, char *real, size_t cap);
/* SQ_ERR_USAGE if all ranks together cannot open a file of this name; sq_store_create and _resume ask for themselves. */
sq_status sq_store_check_name(const char *path);
/* Whether a run holds the file's lock: 0 also if the holder was a process of this host that has ended.  who:
   "process 12 on host a (job 34, started ...)", or "" if the lock does not say. */
int sq_store_is_written(const char *path, char *who, size_t cap);
sq_cell_status sq_store_status(const sq_store *s, int cell); /* as of create or resume */
/* 1 for keys that change no number (run.threads, run.team, run.overlap, run.checkpoint_minutes): a run may go on with other values of
   these. */
int sq_store_key_is_free(const char *key);
/* Everything that this process has written is on the disk afterwards.  Independent; by a descriptor of its own,
   because HDF5's is MPI-IO's.  SQ_ERR_IO. */
sq_status sq_store_sync(const sq_store *s);

/* Independent (any rank, no communication). */
sq_status sq_store_segment(sq_store *s, const sq_segment *g); /* rank 0, once after create or resume */
sq_status sq_store_first_step(sq_store *s,
                              double first_step_s); /* rank 0, in the row of sq_store_segment() */
sq_status sq_store_cell_running(sq_store *s, int cell, int rank, const char *host);
sq_status sq_store_history(sq_store *s, int cell, int k, const sq_eval_record *r);
/* 1 if the cell has begun in this file: the spectra of its first stage are there (or none are kept). */
int sq_store_has_rows(sq_store *s, int cell);
/* Rows of a cell that starts from its beginning: back to the missing value. */
sq_status sq_store_cell_clear(sq_store *s, int cell);
/* A cell that was stopped and has a checkpoint: waiting again, its rows kept. */
sq_status sq_store_cell_suspend(sq_store *s, int cell, double wall_s);
/* run_wall_s of a cell that goes on, beside its checkpoint. */
sq_status sq_store_cell_ran(sq_store *s, int cell, double wall_s);
/* What was last written there; 0 if nothing was or it cannot be read. */
double sq_store_wall_s(const sq_store *s, int cell);
/* data[f] for each field of the group, as sq_spectra_run left it; step: training step of the stage. */
sq_status sq_store_spectra(sq_store *s, int group, int cell, int stage, long step, double *const *data);
sq_status sq_store_weights(sq_store *s, int cell, const sq_param_list *l, const sq_real *theta);
/* Ends a cell: result, checksum, run data, and status last.  status: DONE, DIVERGED or FAILED (r may be NULL,
   reason given), or WAITING: stopped, will run again. */
sq_status sq_store_cell_end(sq_store *s, int cell, sq_cell_status status, const char *reason,
                            const sq_train_result *r, double wall_s);

/* ---- reading a results file (serial, also while a run writes it) ------------------------------------- */
typedef struct sq_results sq_results;
typedef struct {
  const char *task, *model, *label, *swept, *recipe, *reason, *metric, *host;
  uint64_t seed;
  sq_cell_status status;
  int64_t steps, best_step, parameters;
  double test_metric, test_loss, valid_metric, train_loss, flops, wall_s, peak_bytes;
  int rank, segment;
} sq_results_cell;
/* SQ_ERR_DATA if it is missing, not HDF5 or not a results file of this schema. */
sq_status sq_results_open(const char *path, sq_results **r);
void sq_results_close(sq_results **r);
int sq_results_ncell(const sq_results *r);
const sq_results_cell *sq_results_cell_at(const sq_results *r, int i);
const char *sq_results_attribute(const sq_results *r,
                                 const char *name); /* text attribute of /, NULL if absent */
/* Groups of /spectra: paths, sorted. */
int sq_results_ngroup(const sq_results *r);
const char *sq_results_group_path(const sq_results *r, int g);
int sq_results_group_cells(const sq_results *r, int g, const int **cell);
int sq_results_group_nstage(const sq_results *r, int g);
int sq_results_has_field(const sq_results *r, int g, const char *field);
/* One field of one (row, stage): *owned* array and its dims (at most SQ_FIELD_AXES); complex values have one
   more dimension, of 2.  SQ_ERR_DATA if absent. */
sq_status sq_results_field(const sq_results *r, int g, const char *field, int row, int stage, double **data,
                           int *ndim, int dim[SQ_FIELD_AXES]);
/* Coordinates of an axis of a group ("cut", "memory_quantile"): *owned*.  SQ_ERR_DATA if absent or text. */
sq_status sq_results_axis(const sq_results *r, int g, const char *axis, double **value, int *n);
/* Evaluations of a cell so far: *owned*, may be NULL if there are none. */
sq_status sq_results_history(const sq_results *r, int cell, sq_eval_record **eval, int *n);
/* Starts and resumes so far, oldest first. */
int sq_results_nsegment(const sq_results *r);
const sq_segment *sq_results_segment_at(const sq_results *r, int i);
/* Verifies every finished cell's checksum: number of damaged cells in *bad. */
sq_status sq_results_check(const sq_results *r, int *bad);
/* The same, cell by cell: damaged[i] = 1 where the checksum is wrong, else 0; (ncell). */
sq_status sq_results_damaged(const sq_results *r, int *damaged, int *bad);

/* ---- untrusted HDF5 files: parity cases and weights -------------------------------------------------- */
typedef struct sq_h5 sq_h5;
sq_status sq_h5_open(const char *path, sq_h5 **f); /* SQ_ERR_DATA */
/* Written to a temporary name, renamed by close, with the file's lock held until then.  SQ_ERR_USAGE if another process
   writes it, SQ_ERR_IO. */
sq_status sq_h5_create_file(const char *path, sq_h5 **f);
/* Adds to a results file in the same way: a changed copy takes the file's name.  SQ_ERR_DATA if it is none, SQ_ERR_USAGE
   if a run writes it, SQ_ERR_IO. */
sq_status sq_h5_extend_results(const char *path, sq_h5 **f);
sq_status sq_h5_close(sq_h5 **f);            /* SQ_ERR_IO if the data could not be written */
void sq_h5_abandon(sq_h5 **f);               /* closes; nothing that was written appears.  NULL is fine */
const char *sq_h5_temporary(const sq_h5 *f); /* borrowed; NULL if it is read */
int sq_h5_exists(const sq_h5 *f, const char *path); /* a dataset or group; external links count as absent */
/* Names of the members of a group, sorted, *owned* (free each, then the array). */
sq_status sq_h5_list(const sq_h5 *f, const char *group, char ***name, int *n);
/* Numeric data set of any stored type as double (or int64); class, rank (<= 8) and size are checked, filters
   outside the library refused.  *data is owned. */
sq_status sq_h5_read(const sq_h5 *f, const char *path, double **data, int *ndim, size_t dim[8]);
sq_status sq_h5_read_int(const sq_h5 *f, const char *path, int64_t **data, int *ndim, size_t dim[8]);
sq_status sq_h5_read_text_attribute(const sq_h5 *f, const char *object, const char *name,
                                    char **text); /* owned */
sq_status sq_h5_read_int_attribute(const sq_h5 *f, const char *object, const char *name, int *value);
sq_status sq_h5_write(sq_h5 *f, const char *path, int ndim, const size_t *dim,
                      const double *data); /* makes groups */
sq_status sq_h5_write_int(sq_h5 *f, const char *path, int ndim, const size_t *dim, const int64_t *data);
sq_status sq_h5_write_complex(sq_h5 *f, const char *path, int ndim, const size_t *dim,
                              const sq_complex *data); /* compound {r, i} */
sq_status sq_h5_write_text_attribute(sq_h5 *f, const char *object, const char *name, const char *text);
sq_status sq_h5_write_int_attribute(sq_h5 *f, const char *object, const char *name, int value);
/* A dimension scale: the integers first .. first + n - 1. */
sq_status sq_h5_write_axis(sq_h5 *f, const char *path, size_t n, int first, const char *long_name);
/* The scale of each dimension of a data set; once for each, and each scale is of this file.  Written by close. */
sq_status sq_h5_use_axes(sq_h5 *f, const char *path, int ndim, const char *const *axis);
/* A readable file with /operators and no cells: as `operator` writes it by itself. */
int sq_h5_is_operator_file(const char *path);
const char *sq_hdf5_version(void);
/* HDF5 could not write, the last time that it tried, or close something in this process.  Its own end, which MPI_Finalize
   starts, then crashes or waits for ranks that do not come: end by _exit, with a status that is not 0, which launchers take
   for a crash. */
int sq_hdf5_write_failed(void);
