/* tests/store_writer.c: writes the fixture's grid under mpiexec, for the shell and Python tests of the
 * results file.
 *
 *   store_writer write FILE DIR    all cells but the last, which stays `waiting`
 *   store_writer kill FILE DIR     the last rank kills itself in the middle of its second cell
 *   store_writer resume FILE DIR   what is left
 *   store_writer full FILE DIR     the file may not grow beyond 50 KiB: making it fails
 *   store_writer late FILE DIR     the last rank may not write beyond the first KiB once the file is made
 *
 * DIR: folder for the grid's files.  Exit status as the program's. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_fixture.h"

static int rank, nrank;

/* Stands for a full disk; not before MPI_Init, which makes files too. */
static void limit_files(rlim_t bytes)
{
  const struct rlimit limit = {bytes, bytes};
  signal(SIGXFSZ, SIG_IGN); /* as the program does */
  setrlimit(RLIMIT_FSIZE, &limit);
}

static sq_status write_cells(const fixture *f, sq_store *s, int kill_me, int last)
{
  sq_status st = SQ_OK;
  int begun = 0;
  for (int c = 0; c < last; ++c) {
    if (c % nrank != rank || sq_store_status(s, c) == SQ_CELL_DONE) continue;
    SQ_TRY(fixture_write(f, s, c, rank));
    if (kill_me && ++begun == 2) kill(getpid(), SIGKILL);
    SQ_TRY(fixture_end(s, c));
  }
done:
  return st;
}

int main(int argc, char **argv)
{
  fixture f;
  sq_store *s = NULL;
  sq_status st = SQ_OK, closed;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  SQ_ASSERT(argc == 4);
  const int resume = strcmp(argv[1], "resume") == 0, kill_last = strcmp(argv[1], "kill") == 0;
  const int full = strcmp(argv[1], "full") == 0, late = strcmp(argv[1], "late") == 0;
  SQ_TRY(fixture_make(&f, argv[3], 0.001, 1));
  if (full) limit_files(50 * 1024);
  SQ_TRY(resume ? sq_store_resume(MPI_COMM_WORLD, argv[2], &f.plan, &s)
                : sq_store_create(MPI_COMM_WORLD, argv[2], &f.plan, &s));
  if (late && rank == nrank - 1) limit_files(1024);
  const sq_segment g = fixture_segment(nrank);
  if (rank == 0) st = sq_store_segment(s, &g);
  if (st == SQ_OK)
    st = write_cells(&f, s, kill_last && rank == nrank - 1,
                     resume || kill_last ? FIXTURE_CELLS : FIXTURE_CELLS - 1);
  closed = sq_store_close(&s);
  if (st == SQ_OK) st = closed;
done:
  if (st != SQ_OK && rank == (late ? nrank - 1 : 0)) fprintf(stderr, "error: %s\n", sq_error_text());
  fixture_clear(&f);
  /* As the program: see sq_store_close. */
  int code = sq_exit_code(st), failed = sq_hdf5_write_failed() || st == SQ_ERR_IO;
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &code, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (failed) _exit(code);
  MPI_Finalize();
  return sq_exit_code(st);
}
