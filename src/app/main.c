/* src/app/main.c: the program: find the command, run it where it belongs, say once what went wrong. */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "app.h"
#include "sq/base.h"
#include "sq/store.h"

static int mpi_rank = 0, mpi_nrank = 1;
static const char *launcher;
static double start_s;

int sq_app_rank(void)
{
  return mpi_rank;
}
int sq_app_nrank(void)
{
  return mpi_nrank;
}

sq_status sq_app_agree_on(MPI_Comm comm, sq_status st)
{
  char text[2048] = "";
  int rank, size, first, all = st;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  int mine = st == SQ_OK ? INT_MAX : rank;
  if (size == 1) return st;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, comm);
  if (first == INT_MAX) return SQ_OK;
  if (rank == first) sq_format(text, sizeof text, "%.*s", (int)sizeof text - 1, sq_error_text());
  MPI_Bcast(&all, 1, MPI_INT, first, comm);
  MPI_Bcast(text, sizeof text, MPI_CHAR, first, comm);
  sq_error_clear();
  return sq_fail((sq_status)all, "%s", text);
}

sq_status sq_app_agree(sq_status st)
{
  return mpi_nrank == 1 ? st : sq_app_agree_on(MPI_COMM_WORLD, st);
}

/* Under a launcher rank 0 alone may print, which needs MPI to know.  Asked before MPI_Init, which sets such
 * variables itself. */
static const char *find_launcher(void)
{
  if (getenv("OMPI_COMM_WORLD_SIZE"))
    return getenv("SLURM_STEP_ID") && !getenv("OMPI_MCA_orte_hnp_uri") ? "srun" : "mpirun";
  if (getenv("PMI_RANK") || getenv("PMI_SIZE"))
    return getenv("SLURM_STEP_ID") ? "srun (PMI)" : "mpiexec (Hydra)";
  if (getenv("PMIX_RANK")) return getenv("SLURM_STEP_ID") ? "srun (PMIx)" : "prterun (PMIx)";
  return NULL;
}

const char *sq_app_launcher(void)
{
  return launcher;
}

double sq_app_running_s(void)
{
  return sq_wall_s() - start_s;
}

/* Rank 0's status, for the ranks that have nothing to do; they sleep, so that a core of their own is not
 * needed. */
static int wait_for_rank0(int code)
{
  MPI_Request request;
  int done = 0;
  MPI_Ibcast(&code, 1, MPI_INT, 0, MPI_COMM_WORLD, &request);
  for (MPI_Test(&request, &done, MPI_STATUS_IGNORE); !done; MPI_Test(&request, &done, MPI_STATUS_IGNORE)) {
    const struct timespec t = {0, 2000000};
    nanosleep(&t, NULL);
  }
  return code;
}

static int finish(sq_status st)
{
  fflush(stdout);
  if (st == SQ_OK && ferror(stdout))
    st = sq_fail(SQ_ERR_IO, "standard output: cannot be written (disk full?)");
  if (mpi_rank == 0 && st != SQ_OK && *sq_error_text()) fprintf(stderr, "seqspectra: %s\n", sq_error_text());
  return sq_exit_code(st);
}

static sq_status fail_unknown_command(const char *word)
{
  const char *best = NULL;
  int best_d = INT_MAX;
  for (int i = 0; sq_command_at(i); ++i) {
    const int d = sq_edit_distance(word, sq_command_at(i)->name);
    if (d < best_d) {
      best_d = d;
      best = sq_command_at(i)->name;
    }
  }
  if (best && best_d <= 2)
    return sq_fail(SQ_ERR_USAGE, "unknown command \"%s\" (did you mean %s?); see: seqspectra help", word,
                   best);
  return sq_fail(SQ_ERR_USAGE, "unknown command \"%s\"; see: seqspectra help", word);
}

static int wants_help(int argc, char **argv)
{
  for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; ++i)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return 1;
  return 0;
}

/* The command that the words ask for; --help and --version are commands too. */
static const sq_command *command_of(int *argc, char ***argv, sq_status *st)
{
  *st = SQ_OK;
  if (*argc < 2) { /* main prints the list of commands */
    *st = sq_fail(SQ_ERR_USAGE, "no command; usage: seqspectra COMMAND ...; see: seqspectra help");
    return NULL;
  }
  const char *word = (*argv)[1];
  *argc -= 2;
  *argv += 2;
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) word = "help";
  if (strcmp(word, "--version") == 0) word = "version";
  const sq_command *c = sq_command_find(word);
  if (!c) *st = fail_unknown_command(word);
  return c;
}

int main(int argc, char **argv)
{
  sq_status st;
  start_s = sq_wall_s();
  signal(SIGXFSZ,
         SIG_IGN); /* MPI, too, writes files: one beyond `ulimit -f` is an error, not a reason to die */
  const int no_words = argc < 2;
  const sq_command *c = command_of(&argc, &argv, &st);
  const int help = c && wants_help(argc, argv);
  launcher = find_launcher();
  const int mpi = launcher || (c && !help && c->place != SQ_SERIAL);
  int code = 0;
  if (mpi) {
    int provided;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED,
                    &provided); /* only the main thread calls MPI, also while others work */
    MPI_Comm_rank(MPI_COMM_WORLD, &mpi_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &mpi_nrank);
  }
  sq_log_enable(mpi_rank == 0);
  if (!c || help || c->place != SQ_PARALLEL) {
    if (mpi_rank == 0 && help) sq_help_print(c, stdout);
    if (mpi_rank == 0 && no_words) sq_help_print(NULL, stdout);
    if (mpi_rank == 0 && c && !help) st = c->run(argc, argv);
    if (mpi_rank == 0) code = finish(st);
    if (mpi_nrank > 1) code = wait_for_rank0(code);
  } else {
    code = finish(c->run(argc, argv));
  }
  int failed = sq_hdf5_write_failed() || code == sq_exit_code(SQ_ERR_IO);
  if (mpi) MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (failed) { /* rank 0 has printed by now; a launcher ends it for another rank's exit */
    fflush(NULL);
    _exit(code);
  }
  if (mpi) MPI_Finalize();
  return code;
}
