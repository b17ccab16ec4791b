/* src/app/segment.c: where and with what a run runs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cells.h"
#include "sq/base.h"
#include "sq/linalg.h"

static void copy(char *out, size_t cap, const char *text)
{
  sq_format(out, cap, "%.*s", (int)cap - 1, text);
}

int sq_hosts_gather(MPI_Comm comm, char *out, size_t cap)
{
  enum { NAME = MPI_MAX_PROCESSOR_NAME };
  char mine[NAME] = "", *all = NULL;
  int n, rank, nrank, have, nhost = 0, full = 0;
  MPI_Get_processor_name(mine, &n);
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &nrank);
  out[0] = 0;
  if (rank == 0) all = sq_calloc((size_t)nrank, NAME, "host names");
  have = rank != 0 || all;
  MPI_Bcast(&have, 1, MPI_INT, 0, comm);
  if (!have) return 0;
  MPI_Gather(mine, NAME, MPI_CHAR, all, NAME, MPI_CHAR, 0, comm);
  for (int r = 0; all && r < nrank; ++r) {
    const char *host = all + (size_t)r * NAME;
    int seen = 0;
    for (int k = 0; k < r && !seen; ++k) seen = strcmp(host, all + (size_t)k * NAME) == 0;
    if (seen) continue;
    const size_t used = strlen(out), room = cap - used;
    ++nhost;
    if (full) continue;
    full = strlen(host) + 8 > room;
    sq_format(out + used, room, "%s%s", used ? " " : "", full ? "..." : host);
  }
  free(all);
  return nhost;
}

int sq_ranks_here(void)
{
  MPI_Comm node;
  int n;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &n);
  MPI_Comm_free(&node);
  return n;
}

void sq_segment_fill(MPI_Comm comm, sq_segment *s, int threads)
{
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
  int n;
  const sq_blas_info blas = sq_blas_describe();
  *s = (sq_segment){.threads = threads, .data_s = NAN, .first_step_s = NAN};
  MPI_Comm_size(comm, &s->ranks);
  sq_start_iso(s->time);
#ifdef SQ_COMMIT
  copy(s->program, sizeof s->program, "seqspectra " SQ_VERSION " (" SQ_COMMIT ")");
#else
  copy(s->program, sizeof s->program, "seqspectra " SQ_VERSION);
#endif
  copy(s->cpu, sizeof s->cpu, sq_cpu_model());
  copy(s->blas, sizeof s->blas, blas.name);
  copy(s->blas_kernel, sizeof s->blas_kernel, blas.kernel);
  MPI_Get_library_version(mpi, &n);
  mpi[strcspn(mpi, "\n,")] = 0;
  copy(s->mpi, sizeof s->mpi, mpi);
  copy(s->hdf5, sizeof s->hdf5, sq_hdf5_version());
  sq_hosts_gather(comm, s->hosts, sizeof s->hosts);
}
