/* src/app/datasets.c: the data of all cells, one copy a machine. */
#include "datasets.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/grid.h"

typedef struct {
  char *key; /* owned */
  int cell;  /* one that has these data */
  sq_task_block block;
  sq_shared *shared; /* NULL: the block is this rank's own, or there is none */
} dataset;

struct sq_datasets {
  dataset *v;
  int n;
  MPI_Comm node;
};

static dataset *find(const sq_datasets *d, const char *key)
{
  for (int i = 0; i < d->n; ++i)
    if (strcmp(d->v[i].key, key) == 0) return &d->v[i];
  return NULL;
}

/* Every distinct data set of the cells to run that has blocks. */
static sq_status list(sq_datasets *d, const sq_cells *c, const int *skip)
{
  d->v = sq_calloc((size_t)c->ncell, sizeof *d->v, "data sets");
  if (d->v == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < c->ncell; ++i) {
    const sq_config *cell = sq_experiment_cell(c->experiment, i);
    if (skip[i] || !sq_task_has_block(cell)) continue;
    char *key = sq_cells_block_key(cell);
    if (key == NULL) return SQ_ERR_MEMORY;
    if (find(d, key) != NULL)
      free(key);
    else
      d->v[d->n++] = (dataset){.key = key, .cell = i};
  }
  return SQ_OK;
}

static const sq_config *config_of(const sq_cells *c, const dataset *s)
{
  return sq_experiment_cell(c->experiment, s->cell);
}

/* ---- one that a rank reads for all ------------------------------------------------------------------- */

/* Data set i is read by rank i of the machine, and so on around; one that is read together, if there are others to help,
   later. */
static sq_status read_mine(sq_datasets *d, const sq_cells *c, int rank, int nlocal)
{
  sq_status st = SQ_OK;
  for (int i = rank; st == SQ_OK && i < d->n; i += nlocal) {
    const sq_config *cell = config_of(c, &d->v[i]);
    if (nlocal > 1 && sq_task_loads_together(cell)) continue;
    st = sq_task_load(cell, &d->v[i].block);
    if (st != SQ_OK) st = sq_fail_in(st, "cell %s", sq_cells_label(c, d->v[i].cell));
  }
  return st;
}

static sq_status share(sq_datasets *d, int i, int reader)
{
  dataset *s = &d->v[i];
  const sq_status st = sq_shared_create(d->node, reader, s->block.data, s->block.bytes, &s->shared);
  if (st != SQ_OK || s->shared == NULL)
    return st; /* the reader's block stays: it saves it a second reading */
  sq_task_block_free(&s->block);
  s->block.data = sq_shared_data(s->shared, &s->block.bytes);
  if (s->block.bytes == 0) s->block.data = NULL; /* a configuration that reads no files */
  return SQ_OK;
}

/* ---- one that the ranks of a machine read together --------------------------------------------------- */

enum { MAX_WINDOWS = 4 }; /* at a time */

typedef struct {
  MPI_Comm node;
  sq_shared *window[MAX_WINDOWS];
} windows;

static void *window_allocate(void *user, size_t bytes)
{
  windows *w = user;
  int k = 0;
  while (k < MAX_WINDOWS && w->window[k] != NULL) ++k;
  SQ_ASSERT(k < MAX_WINDOWS);
  if (sq_shared_allocate(w->node, 0, bytes, &w->window[k]) != SQ_OK) sq_error_clear();
  return w->window[k] != NULL ? sq_shared_memory(w->window[k]) : NULL;
}

/* The window whose memory it is, which is no longer in the list then. */
static sq_shared *window_take(windows *w, const void *memory)
{
  int k = 0;
  while (k < MAX_WINDOWS && (w->window[k] == NULL || sq_shared_memory(w->window[k]) != memory)) ++k;
  SQ_ASSERT(k < MAX_WINDOWS);
  sq_shared *s = w->window[k];
  w->window[k] = NULL;
  return s;
}

static void window_release(void *user, void *memory)
{
  sq_shared *s = window_take(user, memory);
  sq_shared_destroy(&s);
}

static sq_status window_agree(void *user, sq_status st)
{
  const windows *w = user;
  for (int k = 0; k < MAX_WINDOWS; ++k)
    if (w->window[k] != NULL) sq_shared_fence(w->window[k]);
  return sq_app_agree_on(w->node, st);
}

static sq_status read_together(sq_datasets *d, const sq_cells *c, dataset *s)
{
  windows w = {.node = d->node};
  sq_readers r = {.user = &w, .allocate = window_allocate, .release = window_release, .agree = window_agree};
  MPI_Comm_rank(d->node, &r.rank);
  MPI_Comm_size(d->node, &r.size);
  const sq_status st = sq_task_load_together(config_of(c, s), &r, &s->block);
  if (st != SQ_OK) return sq_fail_in(st, "cell %s", sq_cells_label(c, s->cell));
  if (s->block.data != NULL) s->shared = window_take(&w, s->block.data);
  return st;
}

/* ---- all --------------------------------------------------------------------------------------------- */

sq_status sq_datasets_create(const sq_cells *c, const int *skip, int alone, sq_datasets **out)
{
  int rank, nlocal;
  sq_datasets *d = *out = sq_calloc(1, sizeof *d, "data sets");
  sq_status st;
  if (d != NULL) d->node = MPI_COMM_NULL;
  SQ_TRY(sq_app_agree(d != NULL ? SQ_OK : SQ_ERR_MEMORY));
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &d->node);
  MPI_Comm_rank(d->node, &rank);
  MPI_Comm_size(d->node, &nlocal);
  if (alone) return SQ_OK;
  SQ_TRY(sq_app_agree(list(d, c, skip)));
  SQ_TRY(sq_app_agree(read_mine(d, c, rank, nlocal)));
  st = SQ_OK;
  for (int i = 0; nlocal > 1 && i < d->n; ++i) {
    const int together = sq_task_loads_together(config_of(c, &d->v[i]));
    const sq_status one = together ? read_together(d, c, &d->v[i]) : share(d, i, i % nlocal);
    st = st == SQ_OK ? one : st;
  }
  SQ_TRY(sq_app_agree(st));
done:
  return st;
}

sq_status sq_datasets_open(const sq_datasets *d, const sq_config *c, sq_task **t)
{
  const dataset *s = NULL;
  *t = NULL;
  if (d != NULL && d->n > 0) {
    char *key = sq_cells_block_key(c);
    if (key == NULL) return SQ_ERR_MEMORY;
    s = find(d, key);
    free(key);
  }
  return s != NULL && s->block.data != NULL ? sq_task_open_block(c, &s->block, t) : sq_task_open(c, t);
}

void sq_datasets_destroy(sq_datasets **out)
{
  sq_datasets *d = *out;
  if (d == NULL) return;
  for (int i = 0; i < d->n; ++i) {
    if (d->v[i].shared == NULL) sq_task_block_free(&d->v[i].block);
    sq_shared_destroy(&d->v[i].shared);
    free(d->v[i].key);
  }
  free(d->v);
  if (d->node != MPI_COMM_NULL) MPI_Comm_free(&d->node);
  free(d);
  *out = NULL;
}
