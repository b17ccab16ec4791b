/* src/grid/share.c: bytes in an MPI-3 shared-memory window. */
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/grid.h"

enum { ALIGNMENT = 64 };

struct sq_shared {
  MPI_Win window;
  unsigned char *data;
  size_t bytes;
};

/* Errors of the call come back, instead of ending the program. */
static int allocate(MPI_Comm node, size_t bytes, MPI_Win *window)
{
  void *mine;
  MPI_Comm quiet;
  MPI_Comm_dup(node, &quiet);
  MPI_Comm_set_errhandler(quiet, MPI_ERRORS_RETURN);
  int have = MPI_Win_allocate_shared((MPI_Aint)bytes, 1, MPI_INFO_NULL, quiet, &mine, window) == MPI_SUCCESS,
      all;
  MPI_Allreduce(&have, &all, 1, MPI_INT, MPI_MIN, node);
  MPI_Comm_free(&quiet);
  return all;
}

sq_status sq_shared_allocate(MPI_Comm node, int owner, size_t bytes, sq_shared **out)
{
  int rank, unit;
  MPI_Aint size;
  unsigned char *base;
  sq_shared *s = sq_calloc(1, sizeof *s, "shared data");
  uint64_t n = bytes;
  int have = s != NULL, all;

  *out = NULL;
  MPI_Comm_rank(node, &rank);
  MPI_Allreduce(&have, &all, 1, MPI_INT, MPI_MIN, node);
  MPI_Bcast(&n, 1, MPI_UINT64_T, owner, node);
  if (!all || !allocate(node, rank == owner ? n + ALIGNMENT : 0, &s->window)) {
    free(s);
    return all ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "no memory for shared data");
  }
  /* The same place in the window on all ranks, aligned as the owner sees it: pages have one alignment everywhere. */
  MPI_Win_shared_query(s->window, owner, &size, &unit, &base);
  base += (ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT;
  s->data = base;
  s->bytes = n;
  MPI_Win_fence(0, s->window);
  *out = s;
  return SQ_OK;
}

void sq_shared_fence(const sq_shared *s)
{
  MPI_Win_fence(0, s->window);
}

sq_status sq_shared_create(MPI_Comm node, int reader, const void *data, size_t bytes, sq_shared **out)
{
  int rank;
  const sq_status st = sq_shared_allocate(node, reader, bytes, out);
  if (*out == NULL) return st;
  MPI_Comm_rank(node, &rank);
  if (rank == reader) memcpy((*out)->data, data, bytes);
  sq_shared_fence(*out); /* what the reader wrote is there for all */
  return SQ_OK;
}

void *sq_shared_memory(sq_shared *s)
{
  return s->data;
}

const void *sq_shared_data(const sq_shared *s, size_t *bytes)
{
  *bytes = s->bytes;
  return s->data;
}

void sq_shared_destroy(sq_shared **s)
{
  if (*s == NULL) return;
  MPI_Win_free(&(*s)->window);
  free(*s);
  *s = NULL;
}
