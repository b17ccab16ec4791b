/* src/app/doctor.c: `doctor`: what is wrong on this machine, and the remedy.
 *
 * All ranks take part in what needs all; rank 0 prints a line for each finding: ok, warning or broken, and a
 * remedy below. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "app.h"
#include "bytes.h"
#include "cells.h"
#include "file_system.h"
#include "progress.h"
#include "sq/base.h"
#include "sq/eigen.h"
#include "sq/linalg.h"

typedef struct {
  int nwarning, nbroken;
  int nlocal, cores, threads; /* ranks and cores of rank 0's machine */
  int nhost;
} report;

static void say(const char *kind, const char *fmt, va_list ap)
{
  if (sq_app_rank() != 0) return;
  printf("%-8s ", kind);
  vprintf(fmt, ap);
  putchar('\n');
}
static void ok(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void ok(const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  say("ok", fmt, ap);
  va_end(ap);
}
static void warning(report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void warning(report *r, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  say("warning", fmt, ap);
  va_end(ap);
  ++r->nwarning;
}
static void broken(report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void broken(report *r, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  say("BROKEN", fmt, ap);
  va_end(ap);
  ++r->nbroken;
}
static void remedy(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void remedy(const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  say("", fmt, ap);
  va_end(ap);
}

/* ---- MPI, cores, memory ------------------------------------------------------------------------------ */

static int env_int(const char *name)
{
  const char *v = getenv(name);
  return v ? atoi(v) : 0;
}

static void check_launcher(report *r)
{
  const char *launcher = sq_app_launcher() ? sq_app_launcher() : "none";
  const char *const size_of[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING], hosts[512];
  int n, told = 0;
  MPI_Get_library_version(mpi, &n);
  mpi[strcspn(mpi, "\n,")] = 0;
  r->nhost = sq_hosts_gather(MPI_COMM_WORLD, hosts, sizeof hosts);
  for (size_t i = 0; i < sizeof size_of / sizeof *size_of; ++i)
    told = env_int(size_of[i]) > told ? env_int(size_of[i]) : told;
  if (told > 1 && sq_app_nrank() == 1) {
    broken(r, "MPI: %s; the launcher started %d tasks, but each of them is alone", mpi, told);
    remedy("start it with the mpirun of this MPI, or with srun --mpi=pmix");
  } else {
    ok("MPI: %s; launcher: %s; %d rank%s on %d host%s: %s", mpi, launcher, sq_app_nrank(),
       sq_app_nrank() == 1 ? "" : "s", r->nhost, r->nhost == 1 ? "" : "s", hosts);
  }
}

/* Cores that the ranks of this machine may use together: union of their affinities, limited by the control
 * group. */
static void count_cores(report *r)
{
  MPI_Comm node;
  cpu_set_t mask;
  int mine, bound, quota;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &r->nlocal);
  CPU_ZERO(&mask);
  sched_getaffinity(0, sizeof mask, &mask);
  bound = CPU_COUNT(&mask);
  mine = sq_cpu_count();
  MPI_Allreduce(MPI_IN_PLACE, &mask, (int)sizeof mask, MPI_BYTE, MPI_BOR, node);
  r->cores = CPU_COUNT(&mask);
  quota = mine < bound ? mine : r->cores;
  MPI_Allreduce(MPI_IN_PLACE, &quota, 1, MPI_INT, MPI_MIN, node);
  if (quota < r->cores) r->cores = quota;
  MPI_Comm_free(&node);
}

static void check_cores(report *r)
{
  count_cores(r);
  const int want = r->nlocal * r->threads;
  if (r->nlocal > r->cores) {
    warning(r, "cores: %d rank%s on %d core%s of this machine", r->nlocal, r->nlocal == 1 ? "" : "s",
            r->cores, r->cores == 1 ? "" : "s");
    remedy("start %d rank%s here, or give more cores (mpirun --bind-to none if all are bound to the same)",
           r->cores, r->cores == 1 ? "" : "s");
  } else if (want > r->cores) {
    warning(r, "cores: %d ranks with %d threads on %d cores", r->nlocal, r->threads, r->cores);
    remedy("run.threads is 1 by default; otherwise keep ranks x threads within the cores");
  } else {
    ok("cores: %d for %d rank%s of this machine (%s)", r->cores, r->nlocal, r->nlocal == 1 ? "" : "s",
       sq_cpu_model());
  }
}

static void check_memory(report *r)
{
  char a[32];
  const double each = (double)sq_memory_bytes() / r->nlocal;
  sq_format_bytes(a, each);
  if (each < 1e9) {
    warning(r, "memory: %s a rank", a);
    remedy("seqspectra plan CONFIG says what the cells need; start fewer ranks if that is more");
  } else {
    ok("memory: %s a rank", a);
  }
}

static void check_blas(report *r)
{
  const sq_blas_info b = sq_blas_describe();
  const char *advice = sq_blas_advice();
  r->threads = 1; /* what run.threads gives unless a configuration says otherwise */
  if (advice && sq_blas_is_asked_for()) {
    ok("BLAS: %s, kernel %s, which OPENBLAS_CORETYPE asks for; this CPU could run wider ones", b.name,
       b.kernel);
  } else if (advice) {
    warning(r, "BLAS: %s%s%s", b.name, *b.kernel ? ", kernel " : "", b.kernel);
    remedy("%s", advice);
  } else {
    ok("BLAS: %s%s%s", b.name, *b.kernel ? ", kernel " : "", b.kernel);
  }
}

static sq_complex cyclic_shift(const void *user, int i, int j)
{
  return i == (j + 1) % *(const int *)user;
}

/* A ScaLAPACK of another MPI links and fails when it is used. */
static void check_scalapack(report *r)
{
  enum { N = 24 };
  const int n = N;
  sq_complex lambda[N], part[N * N];
  sq_pgrid *g = NULL;
  sq_dist d;
  sq_eigen_report e;
  sq_status st;
  if (!sq_eigen_has_scalapack()) {
    warning(r, "ScaLAPACK: %s", sq_eigen_scalapack());
    remedy("only operator --method distributed needs it");
    return;
  }
  SQ_TRY(sq_pgrid_create(MPI_COMM_WORLD, n, SQ_EIGEN_MIN_BLOCK, &g));
  SQ_TRY(sq_dist_init(&d, g, n, n, SQ_EIGEN_MIN_BLOCK));
  sq_dist_fill(&d, cyclic_shift, &n, part);
  SQ_TRY(sq_eigen_values(&d, part, 0, lambda, &e));
done:
  if (st == SQ_OK) {
    ok("ScaLAPACK: %s, eigenvalues on a grid of %d x %d", sq_eigen_scalapack(), sq_pgrid_describe(g).nprow,
       sq_pgrid_describe(g).npcol);
  } else {
    broken(r, "ScaLAPACK: %s: %s", sq_eigen_scalapack(), sq_error_text());
    remedy("it must be built for this MPI: -DSQ_SCALAPACK=OFF does without");
    sq_error_clear();
  }
  sq_pgrid_destroy(&g);
}

/* ---- the folder -------------------------------------------------------------------------------------- */

static void check_file_system(report *r, const char *dir)
{
  const char *name = sq_fs_name(dir);
  sq_fs_trouble trouble[SQ_FS_TROUBLES];
  struct statvfs v;
  char a[32] = "?";
  double space = INFINITY;
  if (statvfs(dir, &v) == 0) {
    space = (double)v.f_bavail * (double)v.f_frsize;
    sq_format_bytes(a, space);
  }
  if (strcmp(name, "tmpfs") == 0) {
    warning(r, "file system of %s: tmpfs, which takes memory and is gone after a restart", dir);
    remedy("keep results elsewhere (--dir)");
  } else {
    ok("file system of %s: %s", dir, name);
  }
  const int n = sq_fs_troubles(dir, r->nhost, trouble);
  for (int i = 0; i < n; ++i) {
    warning(r, "%s", trouble[i].what);
    remedy("%s", trouble[i].remedy);
  }
  if (space < 1e9) {
    warning(r, "free space in %s: %s", dir, a);
    remedy("seqspectra plan CONFIG says how large the results file will be");
  } else {
    ok("free space in %s: %s", dir, a);
  }
}

static int lock_works(const char *path)
{
  struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  const int fd = open(path, O_RDWR | O_CREAT, 0600);
  if (fd < 0) return 0;
  const int works = fcntl(fd, F_SETLK, &l) == 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
  close(fd);
  return works;
}

static void check_locks(report *r, const char *path)
{
  if (lock_works(path)) {
    ok("file locks work");
  } else {
    warning(r, "file locks do not work here; this program needs none, other HDF5 readers may refuse to open "
               "its files");
    remedy("HDF5_USE_FILE_LOCKING=FALSE lets them in");
  }
  unlink(path);
}

static void check_mpi_io(report *r, const char *dir, const char *path)
{
  MPI_File f;
  int n;
  if (sq_store_check_name(path) != SQ_OK) {
    broken(r, "MPI-IO: %s", sq_error_text());
    sq_error_clear();
    return;
  }
  const int st = MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &f);
  if (st != MPI_SUCCESS) {
    char why[MPI_MAX_ERROR_STRING];
    MPI_Error_string(st, why, &n);
    broken(r, "MPI-IO: %s cannot be opened by all ranks: %s", path, why);
    remedy("with Open MPI try OMPI_MCA_io=romio321 or OMPI_MCA_io=ompio; all hosts must see the folder");
    return;
  }
  MPI_File_close(&f);
  ok("MPI-IO: %s", sq_mpi_io_name(dir));
  MPI_Barrier(MPI_COMM_WORLD);
  if (sq_app_rank() == 0) unlink(path);
}

/* ---- parallel HDF5, by really using it --------------------------------------------------------------- */

static const char small_cell[] = "{\"seed\":1,\"dataset\":{\"_name_\":\"mqar\",\"input_seq_length\":8,\"num_"
                                 "kv_pairs\":2,\"vocab_size\":16},"
                                 "\"train\":{\"total_steps\":1,\"batch_size\":1,\"lr\":0.001},"
                                 "\"model\":{\"layer\":\"transformer\",\"attention_fn\":\"sm-attention\","
                                 "\"num_layers\":1,\"hidden_dim\":8,\"state_dim\":8,"
                                 "\"num_heads\":1,\"vocab_size\":16,\"output_dim\":16,\"mixer\":\"none\"}}";

/* Each rank writes a row of the history; rank 0 reads all of them back. */
static sq_status write_together(const char *path)
{
  static const char *const metric[] = {"accuracy"};
  sq_experiment *e = NULL;
  sq_store *s = NULL;
  sq_status st;
  SQ_TRY(sq_app_agree(sq_experiment_parse(sq_app_schema(), small_cell, "doctor", &e)));
  const sq_store_plan p = {.experiment = e, .max_evals = sq_app_nrank(), .metric = metric};
  const sq_eval_record mine = {.step = sq_app_rank(), .valid_loss = 1 + sq_app_rank()};
  SQ_TRY(sq_app_agree(sq_store_create(MPI_COMM_WORLD, path, &p, &s)));
  st = sq_app_agree(sq_store_history(s, 0, sq_app_rank(), &mine));
  const sq_status closed = sq_app_agree(sq_store_close(&s));
  if (st == SQ_OK) st = closed;
done:
  sq_experiment_destroy(&e);
  return st;
}

static sq_status read_back(const char *path)
{
  sq_h5 *f = NULL;
  double *loss = NULL;
  size_t dim[8];
  int ndim;
  sq_status st;
  SQ_TRY(sq_h5_open(path, &f));
  SQ_TRY(sq_h5_read(f, "/history/valid_loss", &loss, &ndim, dim));
  for (int r = 0; r < sq_app_nrank(); ++r)
    if (ndim != 2 || dim[1] != (size_t)sq_app_nrank() || loss[r] != 1 + r) {
      st = sq_fail(SQ_ERR_IO, "what rank %d wrote is not in the file", r);
      break;
    }
done:
  free(loss);
  if (f) sq_h5_close(&f);
  return st;
}

static void check_hdf5(report *r, const char *path)
{
  sq_error_clear();
  sq_status st = write_together(path);
  if (st == SQ_OK) st = sq_app_agree(sq_app_rank() == 0 ? read_back(path) : SQ_OK);
  if (sq_app_rank() == 0) unlink(path);
  if (st == SQ_OK) {
    ok("parallel HDF5 %s: written by %d rank%s and read back", sq_hdf5_version(), sq_app_nrank(),
       sq_app_nrank() == 1 ? "" : "s");
  } else {
    broken(r, "parallel HDF5 %s: %s", sq_hdf5_version(), sq_error_text());
    remedy("with Open MPI try OMPI_MCA_io=romio321 or OMPI_MCA_io=ompio; else write to another file system "
           "(--dir)");
    sq_error_clear();
  }
}

/* ---- the command ------------------------------------------------------------------------------------- */

static int writable(report *r, const char *dir)
{
  int yes = sq_app_rank() != 0 || access(dir, W_OK | X_OK) == 0, why = errno;
  MPI_Bcast(&yes, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (!yes) {
    broken(r, "%s: cannot be written: %s", dir, strerror(why));
    remedy("--dir names a folder that exists and is yours");
  }
  return yes;
}

/* A name of our own, the same on all ranks. */
static void scratch_name(char path[4200], const char *dir, const char *what)
{
  long pid = (long)getpid();
  MPI_Bcast(&pid, 1, MPI_LONG, 0, MPI_COMM_WORLD);
  sq_format(path, 4200, "%s/.seqspectra-doctor-%ld-%s", dir, pid, what);
}

sq_status sq_app_doctor(int argc, char **argv)
{
  const char *dir = ".";
  const sq_option opt[] = {{"dir", SQ_OPT_TEXT, &dir, 0, 0}};
  char path[4200];
  report r = {0};
  const sq_status st = sq_args_parse("doctor", argc, argv, opt, 1, "", 0, 0, NULL);
  if (st != SQ_OK) return st;
  if (strlen(dir) > 4000) return sq_fail(SQ_ERR_USAGE, "doctor: the name of the folder is too long");
  check_launcher(&r);
  check_blas(&r);
  check_scalapack(&r);
  check_cores(&r);
  check_memory(&r);
  if (writable(&r, dir)) {
    check_file_system(&r, dir);
    scratch_name(path, dir, "lock");
    if (sq_app_rank() == 0) check_locks(&r, path);
    scratch_name(path, dir, "io");
    check_mpi_io(&r, dir, path);
    scratch_name(path, dir, "h5");
    check_hdf5(&r, path);
  }
  MPI_Bcast(&r.nbroken, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (sq_app_rank() == 0)
    printf("\n%d warning%s, %d broken\n", r.nwarning, r.nwarning == 1 ? "" : "s", r.nbroken);
  return r.nbroken ? SQ_ERR_CHECK : SQ_OK;
}
