/* src/app/status.c: `seqspectra status`: how far a run is.  Also while it runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "cells.h"
#include "sq/base.h"
#include "sq/store.h"
#include "sq/train.h"

/* The seed, unless the label has it. */
static void print_name(const sq_results *r, int cell)
{
  const sq_results_cell *c = sq_results_cell_at(r, cell);
  printf("cell %d %s", cell, c->label);
  if (strstr(c->label, " seed=") == NULL) printf(" (seed %llu)", (unsigned long long)c->seed);
}

/* Of a cell of this results file, no link to it. */
static void checkpoint_path(char path[SQ_CHECKPOINT_PATH], const char *results, int cell)
{
  char folder[SQ_CHECKPOINT_PATH];
  sq_format(folder, sizeof folder, "%s.ckpt", results);
  sq_cell_checkpoint(path, folder, cell);
}

static int has_checkpoint(const char *results, int cell)
{
  char path[SQ_CHECKPOINT_PATH];
  checkpoint_path(path, results, cell);
  return sq_checkpoint_exists(path);
}

/* Where the cell would go on. */
static long checkpoint_step(const char *results, int cell)
{
  char path[SQ_CHECKPOINT_PATH];
  checkpoint_path(path, results, cell);
  return sq_checkpoint_step(path);
}

static void print_waiting(const sq_results *r, int cell, long step)
{
  printf("  %-11s ", sq_cell_status_name(SQ_CELL_WAITING));
  print_name(r, cell);
  printf(": checkpoint of step %ld\n", step);
}

static void print_running(const sq_results *r, int cell, const char *state, long step)
{
  const sq_results_cell *c = sq_results_cell_at(r, cell);
  sq_eval_record *e = NULL;
  int n = 0;
  printf("  %-11s ", state);
  print_name(r, cell);
  printf(" on rank %d, %s", c->rank, c->host);
  if (sq_results_history(r, cell, &e, &n) == SQ_OK && n > 0)
    printf(": step %ld, validation loss %.4g, %s %.4f", e[n - 1].step, e[n - 1].valid_loss, c->metric,
           e[n - 1].valid_metric);
  else
    printf(": no evaluation yet");
  if (step >= 0) printf("; checkpoint of step %ld", step);
  printf("\n");
  free(e);
}

static void print_cells(const sq_results *r, const char *path, const char *running)
{
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    const int unfinished = c->status == SQ_CELL_RUNNING || c->status == SQ_CELL_WAITING;
    const long step = unfinished ? checkpoint_step(path, i) : -1;
    if (c->status == SQ_CELL_RUNNING) print_running(r, i, running, step);
    if (c->status == SQ_CELL_WAITING && step >= 0) print_waiting(r, i, step);
    if (c->status != SQ_CELL_DIVERGED && c->status != SQ_CELL_FAILED) continue;
    printf("  %-11s ", sq_cell_status_name(c->status));
    print_name(r, i);
    printf(": %s\n", c->reason);
  }
}

static void print_segments(const sq_results *r)
{
  for (int i = 0; i < sq_results_nsegment(r); ++i) {
    const sq_segment *g = sq_results_segment_at(r, i);
    printf("segment %d: %s, %d rank%s x %d thread%s on %s, %s, %s, %s (%s), %s, HDF5 %s\n", i, g->time,
           g->ranks, g->ranks == 1 ? "" : "s", g->threads, g->threads == 1 ? "" : "s", g->hosts, g->program,
           g->cpu, g->blas, g->blas_kernel, g->mpi, g->hdf5);
    if (isfinite(g->first_step_s))
      printf("  first step after %.1f s (data %.1f s)\n", g->first_step_s, g->data_s);
  }
}

/* Names the finished cells whose numbers have changed. */
static sq_status check(const sq_results *r, const char *path)
{
  int bad = 0, *damaged = sq_calloc((size_t)sq_results_ncell(r) + 1, sizeof *damaged, "list of cells");
  if (damaged == NULL) return SQ_ERR_MEMORY;
  sq_status st = sq_results_damaged(r, damaged, &bad);
  for (int i = 0; st == SQ_OK && i < sq_results_ncell(r); ++i) {
    if (!damaged[i]) continue;
    printf("  %-11s ", "damaged");
    print_name(r, i);
    printf(": wrong checksum\n");
  }
  if (bad > 0)
    st = sq_fail(
        SQ_ERR_CHECK,
        "%s: %d finished cell%s with a wrong checksum: the file is damaged; run --resume computes %s again",
        path, bad, bad == 1 ? "" : "s", bad == 1 ? "it" : "them");
  free(damaged);
  return st;
}

static void free_names(char **name, int n)
{
  for (int i = 0; name && i < n; ++i) free(name[i]);
  free(name);
}

/* One line on what `operator` has written into a file; nothing where it has not. */
static sq_status print_operators(const char *path, const char *kind)
{
  static const char root[] = "/operators/transition";
  sq_h5 *f = NULL;
  char **model = NULL, **layer = NULL, group[512];
  int nmodel = 0, nlayer = 0, all = 0;
  sq_status st;
  SQ_TRY(sq_h5_open(path, &f));
  if (!sq_h5_exists(f, root)) goto done;
  SQ_TRY(sq_h5_list(f, root, &model, &nmodel));
  for (int i = 0; i < nmodel; ++i) {
    sq_format(group, sizeof group, "%s/%.400s", root, model[i]);
    SQ_TRY(sq_h5_list(f, group, &layer, &nlayer));
    all += nlayer;
    free_names(layer, nlayer);
    layer = NULL;
  }
  printf("%s: %s`operator transition`: eigenvalues of %d layer%s of %d model%s:", path, kind, all,
         all == 1 ? "" : "s", nmodel, nmodel == 1 ? "" : "s");
  for (int i = 0; i < nmodel; ++i) printf("%s %s", i > 0 ? "," : "", model[i]);
  printf("\n");
done:
  free_names(model, nmodel);
  sq_h5_close(&f);
  return st;
}

sq_status sq_app_status(int argc, char **argv)
{
  sq_words file;
  sq_results *r = NULL;
  int count[SQ_CELL_FAILED + 1] = {0}, kept[SQ_CELL_FAILED + 1] = {0};
  char who[512], located[4096];
  sq_status st;
  SQ_TRY(sq_args_parse("status", argc, argv, NULL, 0, "RESULTS.h5", 1, 1, &file));
  if (sq_h5_is_operator_file(file.v[0])) return print_operators(file.v[0], "a file of ");
  SQ_TRY(sq_results_open(file.v[0], &r));
  SQ_TRY(sq_store_locate(file.v[0], located, sizeof located));
  const int written = sq_store_is_written(file.v[0], who, sizeof who);
  const char *running = written ? "running" : "interrupted";
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_cell_status s = sq_results_cell_at(r, i)->status;
    count[s]++;
    kept[s] += (s == SQ_CELL_WAITING || (s == SQ_CELL_RUNNING && !written)) && has_checkpoint(located, i);
  }
  printf("%s: %d cell%s:", file.v[0], sq_results_ncell(r), sq_results_ncell(r) == 1 ? "" : "s");
  static const sq_cell_status order[] = {SQ_CELL_DONE, SQ_CELL_RUNNING, SQ_CELL_WAITING, SQ_CELL_DIVERGED,
                                         SQ_CELL_FAILED};
  for (size_t i = 0; i < sizeof order / sizeof order[0]; ++i) {
    printf("%s %d %s", i > 0 ? "," : "", count[order[i]],
           order[i] == SQ_CELL_RUNNING && count[SQ_CELL_RUNNING] > 0 ? running
                                                                     : sq_cell_status_name(order[i]));
    if (kept[order[i]] > 0) printf(" (%d with a checkpoint)", kept[order[i]]);
  }
  printf("\n");
  if (who[0] != '\0') printf("being written by %s\n", who);
  print_cells(r, located, running);
  print_segments(r);
  if (!written) SQ_TRY(print_operators(file.v[0], ""));
  SQ_TRY(check(r, file.v[0]));
done:
  sq_results_close(&r);
  return st;
}
