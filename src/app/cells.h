/* src/app/cells.h: the cells of an experiment as run, plan and analyze need them.  Nothing here needs MPI or
 * data files, except where a task is handed in. */
#pragma once

#include "app.h"
#include "sq/base.h"
#include "sq/spectra.h"
#include "sq/store.h"
#include "sq/task.h"
#include "sq/train.h"

#define SQ_MAX_PROTOCOLS 2

/* ---- cells.c: what all cells will do and need -------------------------------------------------------- */
typedef struct {
  const sq_experiment *experiment; /* borrowed */
  int ncell, threads;              /* threads of a rank */
  sq_train_plan *plan;             /* (ncell) */
  size_t *bytes;                   /* (ncell) of memory on the rank that runs it, the spectra included */
  size_t *extra;                   /* (ncell) of bytes: what is not in plan->bytes */
  size_t *checkpoint, *row_bytes;  /* (ncell) of a checkpoint; of the spectra of one stage in the file */
  const char **metric;             /* (ncell) */
  int *group; /* (ncell, SQ_MAX_PROTOCOLS) number in `spectra`, protocol by protocol of the cell; -1 past the
                 last */
  int ngroup, max_evals;
  sq_store_group *spectra; /* (ngroup) */
  /* Kept until sq_cells_release_shapes(): the fields of `spectra` point into them. */
  int nshape;
  struct sq_cell_shape *shape;   /* (nshape) */
  sq_model **model;              /* (ncell) of the cells with run.save_weights, else NULL */
  const sq_param_list **weights; /* (ncell), their parameter lists; NULL if no cell saves weights */
} sq_cells;

/* Plans each cell and checks that its model fits its task.  SQ_ERR_USAGE with the cell's label in front.  threads: of
   a rank; 0: as run.threads of the first cell says. */
sq_status sq_cells_create(const sq_experiment *e, int threads, sq_cells **out);
void sq_cells_destroy(sq_cells **c);
/* Gives back the memory of the spectra that the shapes came from; the store plan is not to be used any more.
 */
void sq_cells_release_shapes(sq_cells *c);
sq_store_plan sq_cells_store_plan(const sq_cells *c); /* borrows from c */
int sq_cells_nsample(const sq_config *c, const sq_task_info *info);
const char *sq_cells_label(const sq_cells *c, int i);
/* Bytes on each member of a team of `team` ranks. */
size_t sq_cells_bytes(const sq_cells *c, int i, int team);
/* What `run` gives the grid as a job's cost: FLOPs. */
double sq_cells_cost(const sq_cells *c, int i);
/* Bytes of the data that the ranks of a machine share: all different data sets of the cells. */
size_t sq_cells_shared_bytes(const sq_cells *c);
/* Whether the largest cells of `nlocal` ranks of this machine, in teams of `team`, fit into its memory together, a
   warning if they take nearly all: SQ_ERR_USAGE with the largest cell, the bytes needed and there, and what to
   reduce.  Nothing of that size has been allocated. */
sq_status sq_cells_check_memory(const sq_cells *c, int nlocal, int team);
/* Ranks, in whole teams, whose largest cells fit into this machine's memory together, at most `most`; 0: none. */
int sq_cells_ranks_that_fit(const sq_cells *c, int most, int team);

/* ---- share.c: how many ranks train a cell together --------------------------------------------------- */
/* The most ranks that cell i can use, a power of two. */
int sq_cells_useful_team(const sq_cells *c, int i);
/* What run.team says; 0: auto. */
int sq_cells_said_team(const sq_cells *c);
/* The option --team of a command; 0: not given.  SQ_ERR_USAGE. */
sq_status sq_cells_check_team(const char *command, int team);
/* Ranks of a team for nrank ranks and the cells that are not skipped (skip NULL: all): `forced` if it is not 0, else
   what run.team says.  auto: as many ranks a cell as there are, if all cells have a team then, at most what the
   largest can use.  SQ_ERR_USAGE: more than there are ranks. */
sq_status sq_cells_team(const sq_cells *c, const int *skip, int nrank, int forced, int *team);

/* What the data of a cell depend on, as text; *owned*.  Cells of equal text have the same data. */
char *sq_cells_data_key(const sq_config *c);
/* The same without the seed, which has no part in what is read from files. */
char *sq_cells_block_key(const sq_config *c);
/* Whose checkpoint a cell's is: precision and configuration, without what changes no number (threads, team, minutes
   between checkpoints); *owned*, NULL without memory (recorded). */
char *sq_cells_owner(const sq_config *c);
/* The opened task is the one that was planned: SQ_ERR_DATA with the difference. */
sq_status sq_cells_check_task(const sq_config *c, const sq_train_plan *p, const sq_task *t);

/* ---- sample.c: the sequences that are analysed, and their spectra ------------------------------------ */
typedef struct sq_sample sq_sample;
/* The first analysis.batch_size test sequences.  SQ_ERR_MEMORY. */
sq_status sq_sample_create(const sq_config *c, const sq_model *m, const sq_task *t, sq_sample **s);
void sq_sample_destroy(sq_sample **s);
/* Called now and then while spectra are computed; nonzero: sq_sample_run returns SQ_STOPPED. */
void sq_sample_poll(sq_sample *s, int (*poll)(void *user), void *user);
int sq_sample_nprotocol(const sq_sample *s);
/* Spectra of protocol p for these weights into the file's row; work: activation arena of the model. */
sq_status sq_sample_run(sq_sample *s, int p, const sq_real *theta, void *work, sq_store *store, int group,
                        int cell, int stage, long step);
/* Bytes of the fields of one protocol. */
size_t sq_fields_bytes(const sq_field *f, int n);

/* ---- job.c: one cell, trained, on one rank or a team ------------------------------------------------- */
typedef struct {
  double count, bytes, save_s, cell_s; /* checkpoints written, bytes of all, seconds; of all cells */
} sq_save_tally;
/* Bytes a second, of all ranks of a machine together, where no checkpoint has been written yet and none can be tried: a local
   disk took 240 to 340 MB/s (jobs/README.md). */
#define SQ_ASSUMED_DISK 2e8
/* How long a rank, alone or the first of its team, does not hear a stop, and what it then still has to do. */
typedef struct {
  double
      stretch_s; /* longest so far between two polls within a cell: a step, a batch, a piece of the spectra */
  double begin_s; /* longest so far from a cell's start to its first poll: data, model, checkpoint */
  double save_s;  /* what a checkpoint of the cell that runs, or of the last one, will take */
  double saved_s, saved_bytes; /* of the checkpoint that took longest; 0: none was written yet */
  int in_cell;                 /* past its first poll */
  int savers;                  /* ranks of this machine that may write checkpoints at the same time */
} sq_pace;
typedef struct {
  const sq_cells *cells;
  sq_store *store;
  char host[256];
  const char *checkpoints;            /* folder, borrowed */
  const struct sq_datasets *datasets; /* borrowed */
  sq_task *task;                      /* the last one opened: cells that follow often share it */
  char *task_key;                     /* its data key */
  sq_save_tally saves;                /* of this rank as the first of its team */
  sq_pace pace;
  double first_step_s; /* from the program's start to the end of this rank's first step; 0: none */
} sq_worker_state;

/* ---- run.c ------------------------------------------------------------------------------------------- */
/* Seconds after which a run that has `left` ends its cells at the latest: it stops them earlier, by sq_pace_s(). */
double sq_before_limit_s(double left);

struct sq_grid;
/* Trains cell i; the first rank of a team writes its rows, spectra and checkpoints.  A cell that diverges or fails is recorded: SQ_OK.  SQ_STOPPED: back to
   waiting.  Other errors are the file's. */
sq_status sq_job_run(sq_worker_state *w, struct sq_grid *g, int i);
void sq_job_clear(sq_worker_state *w);
/* The checkpoint of a cell, in the folder beside the results file (FILE.ckpt). */
enum { SQ_CHECKPOINT_PATH = 4224 };
static inline void sq_cell_checkpoint(char path[SQ_CHECKPOINT_PATH], const char *folder, int cell)
{
  sq_format(path, SQ_CHECKPOINT_PATH, "%s/cell-%d", folder, cell);
}
/* Seconds from a stop to the end of the cell that runs; between cells, what the next one takes at least. */
double sq_pace_s(const sq_pace *p);

/* ---- segment.c --------------------------------------------------------------------------------------- */
/* Collective on comm; hosts and ranks are those of comm, complete on its rank 0. */
void sq_segment_fill(MPI_Comm comm, sq_segment *s, int threads);
/* Distinct host names of comm's ranks, on its rank 0; returns how many there are. */
int sq_hosts_gather(MPI_Comm comm, char *out, size_t cap);
/* Ranks of MPI_COMM_WORLD on this machine, which share its memory.  Collective. */
int sq_ranks_here(void);

/* ---- weights.c ----------------------------------------------------------------------------------------- */
/* theta (params total) from /params, else /weights/<cell>, else the root of the file; grid: the configuration as
   loaded, whose cell is compared with the file's.  origin: NULL, or filled.  SQ_ERR_DATA, or SQ_ERR_USAGE for the
   weights of another model. */
typedef struct {
  long steps, best_step; /* as in /cells of the file that the weights come from; -1: it does not say */
} sq_weights_origin;
sq_status sq_weights_read(const sq_model *m, const sq_experiment *grid, const char *file, int cell,
                          sq_real *theta, sq_weights_origin *origin);
