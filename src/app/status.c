/* src/app/status.c: `seqspectra status`: how far a run is.  Also while it runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "sq/base.h"
#include "sq/store.h"

static void print_running(const sq_results *r, int cell)
{
  const sq_results_cell *c = sq_results_cell_at(r, cell);
  sq_eval_record *e = NULL;
  int n = 0;
  printf("  running   cell %d %s (seed %llu) on rank %d, %s", cell, c->label, (unsigned long long)c->seed,
         c->rank, c->host);
  if (sq_results_history(r, cell, &e, &n) == SQ_OK && n > 0)
    printf(": step %ld, validation loss %.4g, %s %.4f\n", e[n - 1].step, e[n - 1].valid_loss, c->metric,
           e[n - 1].valid_metric);
  else
    printf(": no evaluation yet\n");
  free(e);
}

static void print_cells(const sq_results *r)
{
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    if (c->status == SQ_CELL_RUNNING) print_running(r, i);
    if (c->status == SQ_CELL_DIVERGED || c->status == SQ_CELL_FAILED)
      printf("  %-9s cell %d %s (seed %llu): %s\n", sq_cell_status_name(c->status), i, c->label,
             (unsigned long long)c->seed, c->reason);
  }
}

static void print_segments(const sq_results *r)
{
  for (int i = 0; i < sq_results_nsegment(r); ++i) {
    const sq_segment *g = sq_results_segment_at(r, i);
    printf("segment %d: %s, %d rank%s x %d thread%s on %s, %s, %s, %s (%s), %s, HDF5 %s\n", i, g->time,
           g->ranks, g->ranks == 1 ? "" : "s", g->threads, g->threads == 1 ? "" : "s", g->hosts, g->program,
           g->cpu, g->blas, g->blas_kernel, g->mpi, g->hdf5);
  }
}

sq_status sq_app_status(int argc, char **argv)
{
  sq_words file;
  sq_results *r = NULL;
  int count[SQ_CELL_FAILED + 1] = {0}, bad = 0;
  sq_status st;
  SQ_TRY(sq_args_parse("status", argc, argv, NULL, 0, "RESULTS.h5", 1, 1, &file));
  SQ_TRY(sq_results_open(file.v[0], &r));
  for (int i = 0; i < sq_results_ncell(r); ++i) count[sq_results_cell_at(r, i)->status]++;
  printf("%s: %d cell%s:", file.v[0], sq_results_ncell(r), sq_results_ncell(r) == 1 ? "" : "s");
  static const sq_cell_status order[] = {SQ_CELL_DONE, SQ_CELL_RUNNING, SQ_CELL_WAITING, SQ_CELL_DIVERGED,
                                         SQ_CELL_FAILED};
  for (size_t i = 0; i < sizeof order / sizeof order[0]; ++i)
    printf("%s %d %s", i > 0 ? "," : "", count[order[i]], sq_cell_status_name(order[i]));
  printf("\n");
  print_cells(r);
  print_segments(r);
  SQ_TRY(sq_results_check(r, &bad));
  if (bad > 0)
    st = sq_fail(SQ_ERR_CHECK, "%s: %d finished cell%s with a wrong checksum: the file is damaged", file.v[0],
                 bad, bad == 1 ? "" : "s");
done:
  sq_results_close(&r);
  return st;
}
