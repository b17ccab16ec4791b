/* src/app/run.c: `run`.  Everything that can be wrong is checked before the file is made: configuration,
 * models, memory, data. */
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app.h"
#include "bytes.h"
#include "datasets.h"
#include "file_system.h"
#include "progress.h"
#include "sq/base.h"
#include "sq/grid.h"
#include "sq/linalg.h"
#include "sq/parallel.h"

typedef struct {
  const char *config, *out;
  int resume, quiet, other_cpu, private_data, team, threads; /* team, threads: 0: as the configuration says */
  double time_limit;
  sq_words set;
} options;

typedef struct {
  options o;
  char path[4096], checkpoints[4104];
  sq_experiment *experiment;
  sq_cells *cells;
  sq_store *store;
  sq_datasets *datasets;
  sq_worker_state worker;
  sq_progress progress;
  double *cost;    /* (ncell) */
  double deadline; /* clock time at which its cells have to have ended; INFINITY: none */
  int out_of_time; /* this rank has stopped for it; after the grid: any has */
  int *skip;       /* (ncell) finished before this start */
  int team;        /* ranks of a team */
  double data_s;   /* what check_data() took */
  double looked_s; /* rank 0: when it was last looked for */
  int file_gone;   /* rank 0: somebody removed or replaced it */
  int file_lost;   /* rank 0: another run has taken it over */
} run;

/* ---- stopping ---------------------------------------------------------------------------------------- */

static volatile sig_atomic_t signal_seen;
static struct timespec signal_time;

/* The launcher may pass on what the batch system has already sent to all: only a signal that comes a second
 * later is a second. */
static void on_signal(int sig)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!signal_seen) {
    signal_time = now;
    signal_seen = sig;
  } else if (now.tv_sec - signal_time.tv_sec > 1) {
    _exit(sq_exit_code(SQ_STOPPED));
  }
}

static void signals_catch(void)
{
  const int sig[] = {SIGTERM, SIGUSR1, SIGINT};
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&a.sa_mask);
  for (size_t i = 0; i < sizeof sig / sizeof *sig; ++i) sigaction(sig[i], &a, NULL);
}

/* Leaves time to close the file, on any file system, and for MPI and the launcher to end: Open MPI's mpirun takes one
 * or two seconds more when a rank's exit status is not 0 (measured, 4.1). */
double sq_before_limit_s(double left)
{
  const double least = sq_app_launcher() ? 2.5 : 0.5;
  return left - fmin(30, fmax(least, 0.1 * left));
}

static double deadline_of(double time_limit)
{
  double deadline = INFINITY;
  const char *end = getenv("SLURM_JOB_END_TIME");
  if (time_limit > 0) deadline = sq_wall_s() - sq_app_running_s() + sq_before_limit_s(time_limit);
  if (end && atof(end) > 0) {
    /* The only look at a clock that can be set: from here on the deadline is in monotonic time. */
    const double left = atof(end) - (double)time(NULL);
    if (left > 0)
      deadline = fmin(deadline, sq_wall_s() + sq_before_limit_s(left));
    else
      sq_warn("SLURM_JOB_END_TIME=%s is %.0f s ago: is this host's clock right? It is not used", end, -left);
  }
  return deadline;
}

static int stop_asked(run *r)
{
  r->out_of_time |= sq_wall_s() + sq_pace_s(&r->worker.pace) >= r->deadline;
  return signal_seen || r->out_of_time;
}

static const char *why_stopped(const run *r)
{
  if (signal_seen) return signal_seen == SIGTERM ? "SIGTERM" : signal_seen == SIGUSR1 ? "SIGUSR1" : "SIGINT";
  return r->out_of_time ? "time limit" : "request";
}

static sq_status stopped_early(run *r)
{
  return stop_asked(r) ? sq_fail(SQ_STOPPED, "stopped (%s) before any cell ran", why_stopped(r)) : SQ_OK;
}

/* A removed file can still be written and nobody would ever read it: better to stop than to compute for it. */
static void look_for_file(run *r)
{
  if (sq_app_rank() != 0 || r->file_gone) return;
  r->looked_s = sq_wall_s();
  r->file_lost |= sq_store_is_lost(r->store);
  r->file_gone = sq_store_is_gone(r->store);
}

static int watch(void *user)
{
  run *r = user;
  if (sq_wall_s() - r->looked_s >= 5) look_for_file(r);
  return stop_asked(r) || r->file_gone || r->file_lost;
}

/* ---- checks before the file -------------------------------------------------------------------------- */

/* The ranks of a machine share its memory. */
static sq_status check_memory(const run *r)
{
  const int nlocal = sq_ranks_here();
  return sq_cells_check_memory(r->cells, nlocal, r->team < nlocal ? r->team : nlocal);
}

/* Ranks bound to one core each, as mpirun does by itself, have their threads take turns; so do ranks that share cores, and
 * OpenMP's threads wait for each other in loops (two ranks on two cores: 37 s with two threads each, 3 s with one). */
static void check_cores(const run *r)
{
  const int cores = sq_cpu_count(), machine = (int)sysconf(_SC_NPROCESSORS_ONLN), nlocal = sq_ranks_here();
  if (r->cells->threads <= 1) return;
  if (!sq_parallel_available())
    sq_warn("this program was built without OpenMP: one thread a rank instead of %d", r->cells->threads);
  else if (cores < r->cells->threads)
    sq_warn("%d threads a rank, but a rank may use %d core%s: mpirun --map-by slot:PE=%d gives it more",
            r->cells->threads, cores, cores == 1 ? "" : "s", r->cells->threads);
  else if (nlocal * r->cells->threads > machine)
    sq_warn("%d ranks of %d threads share the %d core%s of this machine: fewer threads are faster, or say "
            "OMP_WAIT_POLICY=passive",
            nlocal, r->cells->threads, machine, machine == 1 ? "" : "s");
}

static sq_status check_data_of(const run *r, int i)
{
  sq_task *t = NULL;
  sq_status st;
  SQ_TRY(sq_datasets_open(r->datasets, sq_experiment_cell(r->experiment, i), &t));
  SQ_TRY(sq_cells_check_task(sq_experiment_cell(r->experiment, i), &r->cells->plan[i], t));
  SQ_TRY(sq_task_check_disjoint(t));
done:
  sq_task_close(&t);
  return st == SQ_OK ? st : sq_fail_in(st, "cell %s", sq_cells_label(r->cells, i));
}

/* Every distinct data set of the cells to run, one rank each in turn. */
static sq_status check_data(run *r)
{
  const double start = sq_wall_s();
  const int n = r->cells->ncell;
  const sq_status shared = sq_datasets_create(r->cells, r->skip, r->o.private_data, &r->datasets);
  if (shared != SQ_OK) return shared;
  char **key = sq_calloc((size_t)n, sizeof *key, "data sets");
  int nkey = 0;
  sq_status st = key ? SQ_OK : SQ_ERR_MEMORY;
  for (int i = 0; i < n && st == SQ_OK; ++i) {
    if (r->skip[i]) continue;
    char *k = sq_cells_data_key(sq_experiment_cell(r->experiment, i));
    int seen = 0;
    if (!k) {
      st = SQ_ERR_MEMORY;
      break;
    }
    for (int j = 0; j < nkey && !seen; ++j) seen = strcmp(key[j], k) == 0;
    if (seen) {
      free(k);
      continue;
    }
    if (nkey % sq_app_nrank() == sq_app_rank()) st = check_data_of(r, i);
    if (st == SQ_OK) st = stopped_early(r);
    key[nkey++] = k;
  }
  for (int j = 0; j < nkey; ++j) free(key[j]);
  free(key);
  st = sq_app_agree(st);
  r->data_s = sq_wall_s() - start;
  return st;
}

/* ---- the file ---------------------------------------------------------------------------------------- */

static int file_exists(const char *path)
{
  int yes = sq_app_rank() == 0 && access(path, F_OK) == 0;
  MPI_Bcast(&yes, 1, MPI_INT, 0, MPI_COMM_WORLD);
  return yes;
}

/* Rank 0: what `doctor` would say of the folder, for those who did not ask. */
static void warn_of_file_system(const run *r)
{
  sq_fs_trouble t[SQ_FS_TROUBLES];
  char hosts[512], dir[sizeof r->path];
  sq_format(dir, sizeof dir, "%s", r->path);
  const int nhost = sq_hosts_gather(MPI_COMM_WORLD, hosts, sizeof hosts);
  if (sq_app_rank() != 0) return;
  const int n = sq_fs_troubles(dirname(dir), nhost, t);
  for (int i = 0; i < n; ++i) sq_warn("%s; remedy: %s", t[i].what, t[i].remedy);
}

/* Failed cells are run again: their memory or data may be there now. */
static int is_finished(sq_cell_status s)
{
  return s == SQ_CELL_DONE || s == SQ_CELL_DIVERGED;
}

static void skip_finished(run *r)
{
  for (int i = 0; i < r->cells->ncell; ++i) r->skip[i] = is_finished(sq_store_status(r->store, i));
}

/* Rank 0: the folder of checkpoints beside the results file, emptied if the file is new. */
static sq_status checkpoints_open(const run *r, int fresh)
{
  if (mkdir(r->checkpoints, 0777) == 0) return SQ_OK;
  if (errno != EEXIST) return sq_fail(SQ_ERR_IO, "%s: cannot be made: %s", r->checkpoints, strerror(errno));
  for (int i = 0; fresh && i < r->cells->ncell; ++i) {
    char path[SQ_CHECKPOINT_PATH];
    sq_cell_checkpoint(path, r->checkpoints, i);
    sq_checkpoint_remove(path);
  }
  return SQ_OK;
}

/* Rank 0: before the results file is made. */
static sq_status checkpoints_check(const run *r)
{
  struct stat is;
  if (lstat(r->checkpoints, &is) != 0 || (stat(r->checkpoints, &is) == 0 && S_ISDIR(is.st_mode)))
    return SQ_OK;
  return sq_fail(SQ_ERR_IO, "%s is in the way of the folder of checkpoints: it is not a folder",
                 r->checkpoints);
}

/* A damaged cell will be computed again. */
static int nothing_is_left(const sq_results *f)
{
  int bad = 0;
  for (int i = 0; i < sq_results_ncell(f); ++i)
    if (!is_finished(sq_results_cell_at(f, i)->status)) return 0;
  const int known = sq_results_damaged(f, NULL, &bad) == SQ_OK;
  if (!known) sq_error_clear();
  return known && bad == 0;
}

/* Rank 0: bits may differ between kinds of CPU and BLAS kernels, and a grid's cells are to be comparable. */
static sq_status same_machine(const run *r)
{
  sq_results *f = NULL;
  const sq_blas_info blas = sq_blas_describe();
  sq_status st = sq_results_open(r->path, &f);
  if (st != SQ_OK) return SQ_OK; /* resuming says what is wrong with the file */
  const int n = sq_results_nsegment(f);
  const sq_segment *was = n > 0 ? sq_results_segment_at(f, n - 1) : NULL;
  const char *cpu = sq_cpu_model();
  if (was != NULL && (strcmp(was->cpu, cpu) != 0 || strcmp(was->blas_kernel, blas.kernel) != 0) &&
      !nothing_is_left(f))
    st = sq_fail(SQ_ERR_USAGE,
                 "%s was computed on %s with %s kernels, here are %s and %s: its bits would differ; "
                 "--allow-different-cpu goes on all the same",
                 r->path, was->cpu, was->blas_kernel, cpu, blas.kernel);
  sq_results_close(&f);
  return st;
}

static sq_status file_continue(run *r, const sq_store_plan *plan)
{
  sq_status st;
  if (!r->o.other_cpu) SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? same_machine(r) : SQ_OK));
  SQ_TRY(sq_app_agree(sq_store_resume(MPI_COMM_WORLD, r->path, plan, &r->store)));
  skip_finished(r);
  if (r->datasets == NULL) SQ_TRY(check_data(r));
done:
  return st;
}

static sq_status file_open(run *r)
{
  const sq_store_plan plan = sq_cells_store_plan(r->cells);
  int exists = file_exists(r->path);
  sq_segment segment;
  sq_status st = SQ_OK;
  if (exists && !r->o.resume)
    return sq_fail(SQ_ERR_USAGE, "%s: exists already: --resume goes on with it, --out names another file",
                   r->path);
  warn_of_file_system(r);
  if (r->o.resume && !exists) sq_note("%s does not exist yet: nothing to resume, starting it", r->path);
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? checkpoints_check(r) : SQ_OK));
  if (!exists) {
    SQ_TRY(check_data(r));
    st = sq_app_agree(sq_store_create(MPI_COMM_WORLD, r->path, &plan, &r->store));
    exists =
        st != SQ_OK && r->o.resume && file_exists(r->path); /* another start had the lock, and has ended */
    if (st != SQ_OK && !exists) goto done;
    if (exists) sq_error_clear();
  }
  if (exists) SQ_TRY(file_continue(r, &plan));
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? checkpoints_open(r, !exists) : SQ_OK));
  sq_cells_release_shapes(r->cells);
  sq_segment_fill(MPI_COMM_WORLD, &segment, r->cells->threads);
  segment.data_s = r->data_s;
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? sq_store_segment(r->store, &segment) : SQ_OK));
done:
  return st;
}

/* ---- the grid ---------------------------------------------------------------------------------------- */

static sq_status run_cell(void *user, sq_grid *g, int i)
{
  run *r = user;
  return sq_job_run(&r->worker, g, i);
}

static void progress(void *user, const sq_grid *g)
{
  run *r = user;
  sq_progress_show(&r->progress, g);
}

/* What the checkpoints of all ranks took. */
static void tell_checkpoints(const run *r)
{
  sq_save_tally mine = r->worker.saves, all = {0};
  char bytes[32];
  MPI_Reduce(&mine, &all, sizeof mine / sizeof(double), MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  if (sq_app_rank() != 0 || r->o.quiet || all.count == 0) return;
  sq_format_bytes(bytes, all.bytes / all.count);
  printf("checkpoints: %.0f written, of %s and in %.2g s on average, %.2g %% of the time\n", all.count, bytes,
         all.save_s / all.count, 100 * all.save_s / all.cell_s);
}

/* The first of any rank; rank 0 has already stored its own, if it had a cell. */
static void tell_first_step(const run *r)
{
  const double mine = r->worker.first_step_s;
  double s = mine > 0 ? mine : INFINITY, first = 0;
  MPI_Reduce(&s, &first, 1, MPI_DOUBLE, MPI_MIN, 0, MPI_COMM_WORLD);
  if (sq_app_rank() != 0 || !isfinite(first)) return;
  if (sq_store_first_step(r->store, first) != SQ_OK) sq_error_clear();
  if (!r->o.quiet) printf("first step after %.1f s (data %.1f s)\n", first, r->data_s);
}

static sq_status grid_run(run *r)
{
  const sq_grid_ops ops = {r, run_cell, r->o.quiet ? NULL : progress, watch, r->team};
  int n;
  r->worker.cells = r->cells;
  r->worker.store = r->store;
  r->worker.checkpoints = r->checkpoints;
  r->worker.datasets = r->datasets;
  const int here = sq_ranks_here();
  r->worker.pace.savers = here > r->team ? here / r->team : 1;
  MPI_Get_processor_name(r->worker.host, &n);
  sq_status st = sq_app_agree(sq_progress_init(&r->progress, r->cells, r->skip));
  if (st == SQ_OK) st = sq_grid_run(MPI_COMM_WORLD, r->cells->ncell, r->cost, r->skip, &ops);
  sq_progress_clear(&r->progress);
  MPI_Allreduce(MPI_IN_PLACE, &r->out_of_time, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (st == SQ_OK || st == SQ_STOPPED) {
    tell_first_step(r);
    tell_checkpoints(r);
  }
  sq_job_clear(&r->worker);
  return st;
}

static int has_checkpoint(const run *r, int cell)
{
  char path[SQ_CHECKPOINT_PATH];
  sq_cell_checkpoint(path, r->checkpoints, cell);
  return sq_checkpoint_exists(path);
}

static void announce(const run *r)
{
  const sq_blas_info blas = sq_blas_describe();
  const char *advice = sq_blas_advice();
  int left = 0, begun = 0;
  for (int i = 0; i < r->cells->ncell; ++i) left += !r->skip[i];
  if (sq_app_rank() != 0) return;
  if (advice && !sq_blas_is_asked_for()) sq_warn("%s", advice);
  if (r->o.quiet) return;
  printf("%s: ", sq_experiment_name(r->experiment));
  if (left == 0) {
    if (r->cells->ncell == 1)
      printf("the cell is done, in %s\n", r->path);
    else
      printf("all %d cells are done, in %s\n", r->cells->ncell, r->path);
    fflush(stdout);
    return;
  }
  if (left < r->cells->ncell) printf("%d of ", left);
  printf("%d cell%s on %d rank%s, %s, %s%s%s, to %s\n", r->cells->ncell, r->cells->ncell == 1 ? "" : "s",
         sq_app_nrank(), sq_app_nrank() == 1 ? "" : "s", SQ_PRECISION, blas.name, *blas.kernel ? " " : "",
         blas.kernel, r->path);
  for (int i = 0; r->o.resume && i < r->cells->ncell; ++i)
    begun += !r->skip[i] && sq_store_has_rows(r->store, i) && has_checkpoint(r, i);
  if (r->o.resume) /* left > 0 */
    printf("resumed: %d done before, %d go%s on from a checkpoint, %d begin%s at step 0\n",
           r->cells->ncell - left, begun, begun == 1 ? "es" : "", left - begun, left - begun == 1 ? "s" : "");
  if (r->team > 1) {
    const int idle = sq_app_nrank() % r->team;
    printf("%d team%s of %d ranks", sq_app_nrank() / r->team, sq_app_nrank() / r->team == 1 ? "" : "s",
           r->team);
    if (idle > 0) printf("; %d rank%s left over", idle, idle == 1 ? "" : "s");
    if (left < sq_app_nrank() / r->team)
      printf("; only %d of them ha%s a cell", left, left == 1 ? "s" : "ve");
    putchar('\n');
  }
  fflush(stdout);
}

/* ---- the end ----------------------------------------------------------------------------------------- */

static void names_add(char *out, size_t cap, const sq_results_cell *c, int with_reason)
{
  const size_t used = strlen(out);
  snprintf(out + used, cap - used, "%s%s%s%s%s", used ? ", " : "", c->label, with_reason ? " (" : "",
           with_reason ? c->reason : "", with_reason ? ")" : "");
}

/* Rank 0: the table and what the file holds. */
static sq_status summarise(const run *r, sq_status st)
{
  sq_results *f = NULL;
  char diverged[512] = "", failed[1024] = "";
  int count[5] = {0}, kept = 0;
  const sq_status opened = sq_results_open(r->path, &f);
  if (opened != SQ_OK) { /* written by this run: whatever is wrong with it is no fault of an input */
    char text[2048];
    sq_format(text, sizeof text, "%.*s", (int)sizeof text - 1, sq_error_text());
    sq_error_clear();
    return sq_fail(SQ_ERR_IO, "%s", text);
  }
  for (int i = 0; i < sq_results_ncell(f); ++i) {
    const sq_results_cell *c = sq_results_cell_at(f, i);
    ++count[c->status];
    kept += (c->status == SQ_CELL_WAITING || c->status == SQ_CELL_RUNNING) && has_checkpoint(r, i);
    if (c->status == SQ_CELL_DIVERGED) names_add(diverged, sizeof diverged, c, 0);
    if (c->status == SQ_CELL_FAILED) names_add(failed, sizeof failed, c, 1);
  }
  sq_results_close(&f);
  const int left = count[SQ_CELL_WAITING] + count[SQ_CELL_RUNNING];
  if (st == SQ_STOPPED)
    return sq_fail(SQ_STOPPED,
                   "stopped (%s): %d of %d cells done, %d left, %d of them with a checkpoint; go on with the "
                   "same command "
                   "and --resume",
                   why_stopped(r), r->cells->ncell - left, r->cells->ncell, left, kept);
  if (left > 0)
    return sq_fail(
        SQ_ERR_IO,
        "%d of %d cells are not done, though nothing has stopped them: has another run written %s?", left,
        r->cells->ncell, r->path);
  if (!r->o.quiet) {
    st = sq_report_print(r->path, "accuracy", "md", stdout);
    if (st != SQ_OK) return st;
    printf("\nresults: %s\n", r->path);
  }
  if (*diverged) sq_warn("%d diverged: %s", count[SQ_CELL_DIVERGED], diverged);
  if (*failed)
    return sq_fail(SQ_ERR_CHECK, "%d cell%s failed: %s; --resume tries again", count[SQ_CELL_FAILED],
                   count[SQ_CELL_FAILED] == 1 ? "" : "s", failed);
  return SQ_OK;
}

static sq_status parse(int argc, char **argv, options *o)
{
  const sq_option opt[] = {{"out", SQ_OPT_TEXT, &o->out, 0, 0},
                           {"resume", SQ_OPT_FLAG, &o->resume, 0, 0},
                           {"set", SQ_OPT_LIST, &o->set, 0, 0},
                           {"time-limit", SQ_OPT_TIME, &o->time_limit, 1, 1e9},
                           {"allow-different-cpu", SQ_OPT_FLAG, &o->other_cpu, 0, 0},
                           {"private-data", SQ_OPT_FLAG, &o->private_data, 0, 0},
                           {"team", SQ_OPT_INT, &o->team, 1, 1 << SQ_SHARD_BITS},
                           {"threads", SQ_OPT_INT, &o->threads, 1, 1024},
                           {"quiet", SQ_OPT_FLAG, &o->quiet, 0, 0}};
  sq_words w;
  const sq_status st = sq_args_parse("run", argc, argv, opt, sizeof opt / sizeof *opt, "CONFIG", 1, 1, &w);
  if (st == SQ_OK) o->config = w.v[0];
  return st == SQ_OK ? sq_cells_check_team("run", o->team) : st;
}

/* The bits of a cell are not to depend on the rank that gets it, and members of a team have to agree in all of theirs. */
static sq_status same_ranks(const run *r)
{
  char mine[256], first[256];
  sq_format(mine, sizeof mine, "%.120s with %.40s kernels", sq_cpu_model(), sq_blas_describe().kernel);
  memcpy(first, mine, sizeof first);
  MPI_Bcast(first, sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
  if (r->o.other_cpu || strcmp(first, mine) == 0) return SQ_OK;
  return sq_fail(
      SQ_ERR_USAGE,
      "rank 0 runs on %s, rank %d on %s: their bits would differ; --allow-different-cpu goes on all the same",
      first, sq_app_rank(), mine);
}

/* Rank 0 decides: what a link means may differ between hosts. */
static sq_status locate(run *r)
{
  char name[512];
  sq_format(name, sizeof name, "%.500s.h5", sq_experiment_name(r->experiment));
  return sq_store_locate(r->o.out ? r->o.out : name, r->path, sizeof r->path);
}

static sq_status prepare(run *r)
{
  sq_status st;
  SQ_TRY(sq_app_agree(sq_blas_reserve()));
  SQ_TRY(sq_app_agree(same_ranks(r)));
  SQ_TRY(sq_app_agree(sq_app_load(r->o.config, &r->o.set, &r->experiment)));
  SQ_TRY(sq_app_agree(sq_cells_create(r->experiment, r->o.threads, &r->cells)));
  SQ_TRY(sq_app_agree(sq_cells_team(r->cells, NULL, sq_app_nrank(), r->o.team, &r->team)));
  SQ_TRY(sq_app_agree(check_memory(r)));
  const size_t n = (size_t)r->cells->ncell;
  r->skip = sq_calloc(n, sizeof *r->skip, "list of cells");
  r->cost = sq_calloc(n, sizeof *r->cost, "list of cells");
  SQ_TRY(sq_app_agree(r->skip && r->cost ? SQ_OK : SQ_ERR_MEMORY));
  for (size_t i = 0; i < n; ++i) r->cost[i] = sq_cells_cost(r->cells, (int)i);
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? locate(r) : SQ_OK));
  MPI_Bcast(r->path, sizeof r->path, MPI_CHAR, 0, MPI_COMM_WORLD);
  sq_format(r->checkpoints, sizeof r->checkpoints, "%.*s.ckpt", (int)sizeof r->path - 1, r->path);
done:
  return st;
}

sq_status sq_app_run(int argc, char **argv)
{
  static run r; /* the list of words is too large for a stack */
  sq_status st;
  SQ_TRY(parse(argc, argv, &r.o));
  r.deadline = deadline_of(r.o.time_limit);
  sq_log_quiet(r.o.quiet);
  signals_catch();
  SQ_TRY(prepare(&r));
  SQ_TRY(sq_app_agree(stopped_early(&r)));
  SQ_TRY(file_open(&r));
  const int team = r.team; /* with fewer cells left it may be larger */
  SQ_TRY(sq_cells_team(r.cells, r.skip, sq_app_nrank(), r.o.team, &r.team));
  if (r.team != team) SQ_TRY(sq_app_agree(check_memory(&r)));
  check_cores(&r);
  announce(&r);
  st = grid_run(&r);
  if (st == SQ_OK || st == SQ_STOPPED ||
      st == SQ_ERR_IO) { /* a cell that ends may be the first to miss the file */
    look_for_file(&r);
    st = sq_app_agree(
        r.file_gone
            ? sq_fail(SQ_ERR_IO, "%s was removed or replaced during the run: its results are lost", r.path)
        : r.file_lost ? sq_fail(SQ_ERR_IO, "%s was taken over by another run: this one has stopped", r.path)
                      : st);
  }
  const sq_status closed = sq_app_agree(sq_store_close(&r.store));
  if (st == SQ_OK || st == SQ_STOPPED) {
    if (closed != SQ_OK)
      st = closed;
    else
      st = sq_app_agree(sq_app_rank() == 0 ? summarise(&r, st) : SQ_OK);
    if (sq_app_rank() == 0) rmdir(r.checkpoints); /* stays while something is in it */
  }
done:
  if (r.store) sq_store_close(&r.store);
  sq_datasets_destroy(&r.datasets);
  sq_cells_destroy(&r.cells);
  sq_experiment_destroy(&r.experiment);
  free(r.skip);
  free(r.cost);
  return st;
}
