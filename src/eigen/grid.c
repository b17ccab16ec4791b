/* src/eigen/grid.c: process grids, and errors that all ranks agree on. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "eigen_impl.h"
#include "sq/base.h"

sq_status sq_eigen_agree(MPI_Comm comm, sq_status st)
{
  char text[1024] = "";
  int rank, first, all = (int)st;
  MPI_Comm_rank(comm, &rank);
  int mine = st == SQ_OK ? INT_MAX : rank;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm);
  if (first == INT_MAX) return SQ_OK;
  if (rank == first) sq_format(text, sizeof text, "%.*s", (int)sizeof text - 1, sq_error_text());
  MPI_Bcast(&all, 1, MPI_INT, first, comm);
  MPI_Bcast(text, sizeof text, MPI_CHAR, first, comm);
  sq_error_clear();
  return sq_fail((sq_status)all, "%s", text);
}

const char *sq_eigen_scalapack(void)
{
  return SQ_SCALAPACK_TEXT;
}

void sq_pgrid_choose(int P, int n, int NB, int *nprow, int *npcol)
{
  const int most = n > 0 && NB > 0 ? (n - 1) / NB + 1 : 1; /* blocks in a direction */
  *nprow = *npcol = 1;
  for (int r = 1; r <= sq_min(P / r, most); ++r) {
    const int c = sq_min(P / r, most), have = *nprow * *npcol;
    if (r > c || (c > 4 * r && P > 4)) continue;
    if (r * c > have || (r * c == have && r + c < *nprow + *npcol)) {
      *nprow = r;
      *npcol = c;
    }
  }
}

#ifdef SQ_HAVE_SCALAPACK
int sq_eigen_has_scalapack(void)
{
  return 1;
}

/* What PXERBLA said last; one record per process, like sq_fail's. */
static struct {
  int count, position;
  char routine[16];
} complaint;

/* Takes the place of the library's, which prints a line on every rank and lets the caller go on with wrong
 * numbers (PDLAQR1, when PDHSEQR's own workspace query was too small, with info = 0). */
void pxerbla_(const int *context, const char *routine, const int *position, size_t length);
void pxerbla_(const int *context, const char *routine, const int *position, size_t length)
{
  (void)context;
  if (complaint.count++ > 0) return;
  const size_t n = length < sizeof complaint.routine ? length : sizeof complaint.routine - 1;
  memcpy(complaint.routine, routine, n);
  complaint.routine[n] = 0;
  complaint.routine[strcspn(complaint.routine, " ")] = 0;
  complaint.position = *position;
}

void sq_complaint_begin(void)
{
  complaint.count = 0;
}

sq_status sq_complaint_end(MPI_Comm comm, sq_status st)
{
  if (complaint.count > 0 && st == SQ_OK)
    st = sq_fail(SQ_ERR_INTERNAL, "ScaLAPACK: %s refused its argument number %d", complaint.routine,
                 complaint.position);
  return sq_eigen_agree(comm, st);
}

sq_status sq_pgrid_create_shape(MPI_Comm comm, int nprow, int npcol, sq_pgrid **out)
{
  *out = NULL;
  sq_pgrid_shape s = {.comm = comm, .nprow = nprow, .npcol = npcol, .myrow = -1, .mycol = -1};
  MPI_Comm_rank(comm, &s.rank);
  MPI_Comm_size(comm, &s.nrank);
  if (nprow < 1 || npcol < 1 || nprow > s.nrank / npcol)
    return sq_fail(SQ_ERR_USAGE, "a grid of %d x %d processes does not fit %d rank%s", nprow, npcol, s.nrank,
                   s.nrank == 1 ? "" : "s");
  sq_pgrid *g = sq_calloc(1, sizeof *g, "process grid");
  const sq_status st = sq_eigen_agree(comm, g ? SQ_OK : SQ_ERR_MEMORY);
  if (st != SQ_OK) {
    free(g);
    return st;
  }
  char row_major[] = "Row";
  g->handle = Csys2blacs_handle(comm);
  g->context = g->handle; /* gridinit takes the system context in and gives the grid's out */
  Cblacs_gridinit(&g->context, row_major, nprow, npcol);
  g->everyone = g->handle;
  Cblacs_gridinit(&g->everyone, row_major, 1, s.nrank);
  if (s.rank < nprow * npcol) {
    s.myrow = s.rank / npcol;
    s.mycol = s.rank % npcol;
  } else {
    g->context = -1;
  }
  g->shape = s;
  *out = g;
  return SQ_OK;
}

void sq_pgrid_destroy(sq_pgrid **pg)
{
  sq_pgrid *g = *pg;
  if (!g) return;
  if (g->context >= 0) Cblacs_gridexit(g->context);
  Cblacs_gridexit(g->everyone);
  Cfree_blacs_system_handle(g->handle);
  free(g);
  *pg = NULL;
}
#else
int sq_eigen_has_scalapack(void)
{
  return 0;
}

sq_status sq_pgrid_create_shape(MPI_Comm comm, int nprow, int npcol, sq_pgrid **g)
{
  (void)comm, (void)nprow, (void)npcol;
  *g = NULL;
  return sq_fail(SQ_ERR_USAGE, "this program was built without ScaLAPACK: %s", sq_eigen_scalapack());
}

void sq_pgrid_destroy(sq_pgrid **g)
{
  *g = NULL;
}
#endif

sq_status sq_pgrid_create(MPI_Comm comm, int n, int NB, sq_pgrid **g)
{
  int nrank, nprow, npcol;
  MPI_Comm_size(comm, &nrank);
  sq_pgrid_choose(nrank, n, NB, &nprow, &npcol);
  return sq_pgrid_create_shape(comm, nprow, npcol, g);
}

sq_pgrid_shape sq_pgrid_describe(const sq_pgrid *g)
{
  return g->shape;
}
