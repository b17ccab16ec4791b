/* src/eigen/secular.c: eigenvalues of a diagonal plus a matrix of rank one, over the ranks of a communicator.
 *
 * O(n^2 / ranks) a sweep and O(n) memory, where the dense way takes O(n^3 / ranks) and O(n^2 / ranks): for transition
 * matrices this is what to use.  The result does not depend on the number of ranks. */
#include "sq/base.h"
#include "sq/eigen.h"

typedef struct {
  MPI_Comm comm;
  int rank, nrank, *count, *place; /* (nrank) */
} team;

static void exchange(void *user, int m, void *data, size_t bytes)
{
  const team *t = user;
  for (int r = 0; r < t->nrank; ++r) {
    const int first = sq_secular_first(m, r, t->nrank), end = sq_secular_first(m, r + 1, t->nrank);
    t->count[r] = (end - first) * (int)bytes;
    t->place[r] = first * (int)bytes;
  }
  MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, t->count, t->place, MPI_BYTE, t->comm);
}

size_t sq_eigen_secular_bytes(MPI_Comm comm, int n)
{
  int nrank;
  sq_arena a = {0};
  MPI_Comm_size(comm, &nrank);
  SQ_TAKE(&a, (size_t)nrank, int);
  SQ_TAKE(&a, (size_t)nrank, int);
  sq_arena_take(&a, sq_secular_bytes(n), 1);
  return a.used;
}

void sq_eigen_secular(MPI_Comm comm, const sq_rank_one *A, int started, sq_secular *r, void *work)
{
  team t = {.comm = comm};
  MPI_Comm_rank(comm, &t.rank);
  MPI_Comm_size(comm, &t.nrank);
  sq_arena a = {.base = work, .cap = sq_eigen_secular_bytes(comm, A->n)};
  t.count = SQ_TAKE(&a, (size_t)t.nrank, int);
  t.place = SQ_TAKE(&a, (size_t)t.nrank, int);
  void *rest = sq_arena_take(&a, sq_secular_bytes(A->n), 1);
  const sq_secular_share share = {t.rank, t.nrank, exchange, &t};
  sq_secular_solve_shared(A, started, t.nrank > 1 ? &share : NULL, r, rest);
}
