/* src/app/job.c: one cell: data, model, training, spectra, and its rows of the results file.
 *
 * All ranks of a team train; the first of them also has the file, the checkpoints and the spectra. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets.h"
#include "sq/base.h"
#include "sq/grid.h"
#include "sq/linalg.h"

typedef struct {
  sq_worker_state *w;
  sq_grid *g;
  int cell;
  const sq_config *config;
  const sq_train_plan *plan;
  sq_model *model;
  sq_sample *sample;
  sq_train_result result;
  double fraction;
  long from;       /* step that this start begins at; -1: not known yet */
  int file_failed; /* the error came from the results file, not from the cell */
  sq_team team;
  char checkpoint[SQ_CHECKPOINT_PATH];
  char *owner;     /* whose checkpoint it is; owned */
  double saved_s;  /* when it was written, or the cell began */
  double start_s;  /* when this start of the cell began */
  double before_s; /* what the starts took whose state it goes on from */
  double polled_s; /* when it last could hear a stop */
  int kept;        /* there is a checkpoint: this start wrote it or goes on from it */
} job;

/* Of all starts. */
static double wall_so_far(const job *j)
{
  return j->before_s + sq_wall_s() - j->start_s;
}

/* ---- how long a stop takes --------------------------------------------------------------------------- */

double sq_pace_s(const sq_pace *p)
{
  return (p->in_cell ? 0 : p->begin_s) + p->stretch_s + p->save_s;
}

/* Here it hears a stop.  A team's others wait for the first during spectra: they measure nothing. */
static void pace_poll(job *j)
{
  sq_pace *p = &j->w->pace;
  const double now = sq_wall_s();
  double *longest = p->in_cell ? &p->stretch_s : &p->begin_s;
  if (j->team.rank > 0) return;
  *longest = fmax(*longest, now - j->polled_s);
  p->in_cell = 1;
  j->polled_s = now;
}

static void pace_expect(job *j)
{
  sq_pace *p = &j->w->pace;
  const double bytes = (double)sq_checkpoint_bytes(j->owner, &j->plan->state);
  p->save_s =
      p->saved_bytes > 0 ? p->saved_s * fmax(1, bytes / p->saved_bytes) : bytes * p->savers / SQ_ASSUMED_DISK;
}

static void pace_saved(job *j, double bytes, double s)
{
  sq_pace *p = &j->w->pace;
  if (s > p->saved_s) {
    p->saved_s = s;
    p->saved_bytes = bytes;
  }
  pace_expect(j);
}

/* ---- hooks of the training --------------------------------------------------------------------------- */

/* For status, while the run goes on.  A file that cannot be written is found by the cell's next row. */
static void note_first_step(job *j)
{
  j->w->first_step_s = sq_app_running_s();
  if (sq_grid_rank(j->g) != 0) return;
  if (sq_store_first_step(j->w->store, j->w->first_step_s) != SQ_OK) sq_error_clear();
}

static int poll(void *user, long step, long total)
{
  job *j = user;
  if (j->from < 0) j->from = step;
  if (step > j->from && j->w->first_step_s == 0) note_first_step(j);
  j->fraction = total > 0 ? (double)step / (double)total : 0;
  pace_poll(j);
  return sq_grid_poll(j->g, j->fraction);
}

/* Within the spectra of a stage: others may wait for an answer, and a stop is not to wait for hundreds of channels. */
static int poll_spectra(void *user)
{
  job *j = user;
  pace_poll(j);
  return sq_grid_poll(j->g, j->fraction);
}

static sq_status evaluated(void *user, int k, const sq_eval_record *r)
{
  job *j = user;
  const sq_status st = sq_store_history(j->w->store, j->cell, k, r);
  j->file_failed |= st != SQ_OK;
  return st;
}

static sq_status stage(void *user, int k, const sq_real *theta, void *work)
{
  job *j = user;
  const int last = k == j->plan->nstage - 1;
  const long step = k == 0 ? 0 : last ? j->result.best_step : j->result.steps;
  sq_status st = SQ_OK;
  if (last) j->fraction = 1; /* also of a cell that ended early */
  for (int p = 0; p < sq_sample_nprotocol(j->sample); ++p) {
    const int group = j->w->cells->group[j->cell * SQ_MAX_PROTOCOLS + p];
    st = sq_sample_run(j->sample, p, theta, work, j->w->store, group, j->cell, k, step);
    j->file_failed |= st == SQ_ERR_IO;
    if (st != SQ_OK) return st;
  }
  if (last && sq_config_bool(j->config, "run.save_weights")) {
    st = sq_store_weights(j->w->store, j->cell, sq_model_params(j->model), theta);
    j->file_failed |= st != SQ_OK;
  }
  return st;
}

/* ---- checkpoints ------------------------------------------------------------------------------------- */

/* Any rank may have to say this. */
static void tell(const job *j, const char *text)
{
  fprintf(stderr, "seqspectra: rank %d: cell %d %s: %s\n", sq_grid_rank(j->g), j->cell,
          sq_cells_label(j->w->cells, j->cell), text);
}

static sq_status restore(void *user, const sq_train_state *s, int *restored)
{
  job *j = user;
  sq_train_state state = *s;
  char note[2048];
  sq_status st = SQ_OK;
  *restored = 0;
  if (sq_store_has_rows(j->w->store, j->cell)) { /* else: a checkpoint of another file's cell */
    j->kept = *restored = sq_checkpoint_read(j->checkpoint, j->owner, &state, note, sizeof note);
    if (note[0] != '\0') tell(j, note);
  }
  if (*restored)
    j->before_s = sq_store_wall_s(j->w->store, j->cell);
  else
    st = sq_store_cell_clear(j->w->store, j->cell);
  j->file_failed |= st != SQ_OK;
  j->saved_s = sq_wall_s();
  return st;
}

static int due(void *user, long step)
{
  const job *j = user;
  const double minutes = sq_config_real(j->config, "run.checkpoint_minutes");
  (void)step;
  return minutes > 0 && sq_wall_s() - j->saved_s >= 60 * minutes;
}

/* The rows that the state counts on have to be on the disk before it.  A checkpoint that cannot be written is no
 * reason to lose the run. */
static sq_status save(void *user, const sq_train_state *s)
{
  job *j = user;
  sq_save_tally *tally = &j->w->saves;
  const double start = sq_wall_s();
  sq_status st = sq_store_cell_ran(j->w->store, j->cell, wall_so_far(j));
  if (st == SQ_OK) st = sq_store_sync(j->w->store);
  if (st == SQ_OK) st = sq_checkpoint_write(j->checkpoint, j->owner, s);
  j->saved_s = sq_wall_s();
  tally->save_s += j->saved_s - start;
  j->polled_s += j->saved_s - start; /* no part of the stretch */
  if (st == SQ_OK) {
    const double bytes = (double)sq_checkpoint_bytes(j->owner, s);
    j->kept = 1;
    ++tally->count;
    tally->bytes += bytes;
    pace_saved(j, bytes, j->saved_s - start);
    return st;
  }
  tell(j, sq_error_text());
  sq_error_clear();
  return SQ_OK;
}

/* ---- the cell ---------------------------------------------------------------------------------------- */

static sq_status task_get(job *j)
{
  sq_worker_state *w = j->w;
  char *key = sq_cells_data_key(j->config);
  sq_status st = key ? SQ_OK : SQ_ERR_MEMORY;
  if (key && (!w->task_key || strcmp(key, w->task_key) != 0)) {
    sq_task_close(&w->task);
    free(w->task_key);
    w->task_key = NULL;
    SQ_TRY(sq_datasets_open(w->datasets, j->config, &w->task));
    w->task_key = key;
    key = NULL;
  }
  if (st == SQ_OK) SQ_TRY(sq_cells_check_task(j->config, j->plan, w->task));
done:
  free(key);
  return st;
}

static sq_status prepare(job *j)
{
  sq_status st;
  SQ_TRY(task_get(j));
  SQ_TRY(sq_model_create(j->config, j->plan->dims, &j->model));
  if (j->team.rank > 0) goto done;
  SQ_TRY(sq_sample_create(j->config, j->model, j->w->task, &j->sample));
  sq_sample_poll(j->sample, poll_spectra, j);
done:
  return sq_team_agree(&j->team, st);
}

static sq_status train(job *j)
{
  const sq_train_hooks hooks = {.user = j,
                                .stage = stage,
                                .evaluated = evaluated,
                                .poll = poll,
                                .restore = restore,
                                .due = due,
                                .save = save};
  const sq_crew crew = {.threads = j->w->cells->threads, .team = &j->team};
  sq_status st;
  sq_blas_set_threads(1); /* the threads have shards and blocks of their own */
  SQ_TRY(prepare(j));
  SQ_TRY(sq_train_cell(j->config, j->model, j->w->task, &crew, &hooks, &j->result));
done:
  sq_sample_destroy(&j->sample);
  sq_model_destroy(&j->model);
  return st;
}

static sq_status finish(job *j, sq_status st)
{
  const double wall_s = wall_so_far(j);
  sq_store *s = j->w->store;
  if (j->file_failed) return st;
  if (st == SQ_OK && j->result.outcome == SQ_OUTCOME_STOPPED) {
    /* Rows behind the last checkpoint that could be written will be made again, with the same numbers. */
    const sq_status written = j->kept ? sq_store_cell_suspend(s, j->cell, wall_s)
                                      : sq_store_cell_end(s, j->cell, SQ_CELL_WAITING, "", NULL, wall_s);
    return written == SQ_OK ? SQ_STOPPED : written;
  }
  if (st == SQ_OK) {
    const int diverged = j->result.outcome == SQ_OUTCOME_DIVERGED;
    sq_grid_set_result(j->g, diverged ? -INFINITY : j->result.test_metric);
    st = sq_store_cell_end(s, j->cell, diverged ? SQ_CELL_DIVERGED : SQ_CELL_DONE, j->result.reason,
                           &j->result, wall_s);
    if (st == SQ_OK) sq_checkpoint_remove(j->checkpoint);
    return st;
  }
  /* The cell's own memory, data or numbers: recorded, and the grid goes on. */
  char reason[512];
  sq_format(reason, sizeof reason, "%.*s", (int)sizeof reason - 1, sq_error_text());
  sq_error_clear();
  sq_grid_set_result(j->g, INFINITY);
  return sq_store_cell_end(s, j->cell, SQ_CELL_FAILED, reason, NULL, wall_s);
}

/* What the first rank does before the others may begin. */
static sq_status begin(job *j)
{
  const sq_status st = sq_store_cell_running(j->w->store, j->cell, sq_grid_rank(j->g), j->w->host);
  j->file_failed = st != SQ_OK;
  sq_cell_checkpoint(j->checkpoint, j->w->checkpoints, j->cell);
  if (st != SQ_OK) return st;
  j->owner = sq_cells_owner(j->config);
  if (j->owner == NULL) return SQ_ERR_MEMORY;
  pace_expect(j);
  return SQ_OK;
}

sq_status sq_job_run(sq_worker_state *w, sq_grid *g, int i)
{
  job j = {.w = w,
           .g = g,
           .cell = i,
           .from = -1,
           .config = sq_experiment_cell(w->cells->experiment, i),
           .plan = &w->cells->plan[i],
           .start_s = sq_wall_s()};
  j.polled_s = j.start_s;
  j.team = (sq_team){.user = g,
                     .exchange = sq_grid_exchange,
                     .start = sq_grid_start,
                     .finished = sq_grid_finished,
                     .overlap = sq_config_bool(j.config, "run.overlap")};
  j.team.size = sq_grid_team(g, &j.team.rank);
  sq_status st = sq_team_agree(&j.team, j.team.rank == 0 ? begin(&j) : SQ_OK);
  if (st == SQ_OK) st = train(&j);
  if (j.team.rank == 0) {
    w->saves.cell_s += sq_wall_s() - j.start_s;
    st = finish(&j, st);
    pace_poll(&j);
    w->pace.in_cell = 0;
  }
  free(j.owner);
  return st;
}

void sq_job_clear(sq_worker_state *w)
{
  sq_task_close(&w->task);
  free(w->task_key);
  w->task_key = NULL;
}
