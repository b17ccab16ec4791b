/* tests/bench/bench_team.c: a training step of one cell by teams of ranks and threads, as the program forms them.
 *
 *   mpiexec -n N bench-team CONFIG [--model NAME] [--set KEY=VALUE]... [--workers 1,2,4,...] [--steps S] [--seconds S]
 *
 * For each number of workers (by default 1, 2, 4, .. up to N) and each way to have them, ranks x threads, ranks falling by
 * four to one: S steps (5), or as many as fit into --seconds (10), after a step to warm up, in turn with gradients
 * added up during the backward pass (run.overlap) and after it: medians.  Ranks without a part sleep.
 *
 * Efficiency is against one worker.  `products`: what SGEMM of 1024^3 keeps in the same place, when as many ranks make an equal
 * part of a step's FLOPs each and then wait for the slowest, again and again.  No team can be expected to keep more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_mpi.h"
#include "sq/grid.h"
#include "sq/linalg.h"

enum { MAX_STEPS = 1000 };

typedef struct {
  bench_options shared;
  int count[BENCH_MAX_COUNTS], ncount, steps, rank, nrank;
  double seconds;
} options;

typedef struct { /* one team at work */
  const options *o;
  MPI_Comm comm;
  int ranks, threads;
  double step_s[2], low_s[2], high_s[2]; /* by overlap */
  double flops;                          /* of a step */
  sq_status st;
} trial;

/* The first member's word. */
static int agree(MPI_Comm comm, int go_on)
{
  MPI_Bcast(&go_on, 1, MPI_INT, 0, comm);
  return go_on;
}

/* With each kind of sum in turn, so that both see the same load of the machine. */
static void time_steps(trial *t, sq_team *team, bench_cell *cell, const bench_options *o)
{
  static double all[2][MAX_STEPS];
  const int kinds = t->ranks > 1 ? 2 : 1, most = t->o->steps < MAX_STEPS ? t->o->steps : MAX_STEPS;
  double start = 0;
  int n = -1; /* the first of each warms up */
  do {
    if (n == 0) start = bench_now_s(o);
    for (int k = 0; k < kinds; ++k) {
      team->overlap = !k;
      MPI_Barrier(t->comm);
      const bench_time s = bench_step(cell, o);
      if (n >= 0) all[k][n] = s.input_s + s.step_s;
    }
    ++n;
  } while (agree(t->comm, n < 1 || (n < most && bench_now_s(o) - start < t->o->seconds)));
  for (int k = 0; k < kinds; ++k) {
    bench_sort((size_t)n, all[k]);
    t->step_s[k] = all[k][n / 2];
    t->low_s[k] = all[k][0];
    t->high_s[k] = all[k][n - 1];
  }
}

/* The job of a grid that has no other. */
static sq_status run_team(void *user, sq_grid *g, int job)
{
  trial *t = user;
  sq_team team = {
      .user = g, .exchange = sq_grid_exchange, .start = sq_grid_start, .finished = sq_grid_finished};
  bench_options o = t->o->shared;
  bench_cell cell;
  (void)job;
  team.size = sq_grid_team(g, &team.rank);
  o.threads = t->threads;
  if (team.size > 1) o.team = &team;
  const sq_status st = sq_team_agree(&team, bench_open(&o, NULL, &cell));
  if (st != SQ_OK) return st;
  t->flops = cell.plan.flops_step;
  time_steps(t, &team, &cell, &o);
  bench_close(&cell);
  return SQ_OK;
}

static sq_status measure(trial *t)
{
  const double cost = 1;
  const sq_grid_ops ops = {.user = t, .run = run_team, .team = t->ranks};
  sq_status st = SQ_OK;
  MPI_Comm_split(MPI_COMM_WORLD, t->o->rank < t->ranks, t->o->rank, &t->comm);
  if (t->o->rank < t->ranks) st = sq_grid_run(t->comm, 1, &cost, NULL, &ops);
  bench_quiet_barrier(MPI_COMM_WORLD);
  MPI_Comm_free(&t->comm);
  return st;
}

/* FLOP/s of all products of ranks 0 .. n-1 that share `flops` and wait for the slowest, for some seconds. */
static double products(const options *o, const bench_gemm *gemm, int n, double flops)
{
  const double each = flops / BENCH_GEMM_FLOPS / n;
  const int count = each > 1.5 ? (int)(each + 0.5) : 1;
  int rounds = -1; /* the first warms up */
  double start = 0, spent = 0;
  MPI_Comm busy;
  MPI_Comm_split(MPI_COMM_WORLD, o->rank < n, o->rank, &busy);
  if (o->rank < n) do {
      if (rounds == 0) start = bench_now_s(&o->shared);
      for (int i = 0; i < count; ++i) bench_gemm_run(gemm);
      MPI_Barrier(busy);
      spent = bench_now_s(&o->shared) - start;
    } while (agree(busy, ++rounds < 1 || spent < fmin(o->seconds, 2)));
  bench_quiet_barrier(MPI_COMM_WORLD);
  MPI_Comm_free(&busy);
  return rounds * count * n * BENCH_GEMM_FLOPS / spent;
}

/* ---- output ------------------------------------------------------------------------------------------ */

static void print_head(const options *o)
{
  bench_print_head(&o->shared);
  printf("%7s %5s %7s %9s %19s %10s %13s %9s %9s\n", "workers", "ranks", "threads", "s/step",
         "lowest .. highest", "efficiency", "no overlap, s", "saved", "products");
}

static void print_row(const trial *t, double one_s, double kept)
{
  const int workers = t->ranks * t->threads;
  printf("%7d %5d %7d %9.4f %8.4f .. %7.4f %9.0f%%", workers, t->ranks, t->threads, t->step_s[0], t->low_s[0],
         t->high_s[0], 100 * one_s / (workers * t->step_s[0]));
  if (t->ranks > 1)
    printf(" %13.4f %8.0f%%", t->step_s[1], 100 * (1 - t->step_s[0] / t->step_s[1]));
  else
    printf(" %13s %9s", "-", "-");
  printf(" %8.0f%%\n", 100 * kept);
  fflush(stdout);
}

static sq_status run(const options *o, const bench_gemm *gemm)
{
  double one_s = 0, one_rate = 0;
  if (o->rank == 0) print_head(o);
  for (int i = 0; i < o->ncount; ++i) {
    double rate = 0;
    for (int ranks = o->count[i]; ranks >= 1; ranks = ranks == 2 ? 1 : ranks / 4) {
      trial t = {.o = o, .ranks = ranks, .threads = o->count[i] / ranks};
      const sq_status st = measure(&t);
      if (st != SQ_OK) return st;
      MPI_Bcast(&t.flops, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
      if (rate == 0) rate = products(o, gemm, o->count[i], t.flops) / o->count[i];
      if (one_s == 0) {
        one_s = t.step_s[0] * o->count[i]; /* of one worker, if the list begins with it */
        one_rate = rate;
      }
      if (o->rank == 0) print_row(&t, one_s, rate / one_rate);
    }
  }
  return SQ_OK;
}

/* ---- command line ------------------------------------------------------------------------------------ */

static int power_of_two(int n)
{
  return n > 0 && (n & (n - 1)) == 0;
}

static int read_counts(options *o, char *list)
{
  o->ncount = bench_counts(list, sq_min(o->nrank, SQ_MAX_SHARDS), o->count);
  for (int i = 0; i < o->ncount; ++i)
    if (!power_of_two(o->count[i])) return 0;
  return o->ncount > 0;
}

static int read_options(int argc, char **argv, options *o)
{
  for (int i = 1; i < argc; ++i) {
    const int taken = bench_option(&o->shared, argc, argv, &i);
    if (taken < 0) return 0;
    if (taken) continue;
    if (i + 1 >= argc) return 0;
    if (strcmp(argv[i], "--workers") == 0) {
      if (!read_counts(o, argv[++i])) return 0;
    } else if (strcmp(argv[i], "--steps") == 0) {
      o->steps = atoi(argv[++i]);
    } else if (strcmp(argv[i], "--seconds") == 0) {
      o->seconds = atof(argv[++i]);
    } else {
      return 0;
    }
  }
  if (o->ncount == 0)
    for (int n = 1; n <= o->nrank && n <= SQ_MAX_SHARDS; n *= 2) o->count[o->ncount++] = n;
  return o->shared.config != NULL && o->steps > 0 && o->seconds > 0;
}

int main(int argc, char **argv)
{
  options o = {.shared = {.threads = 1, .clock = CLOCK_MONOTONIC}, .steps = 5, .seconds = 10};
  bench_gemm gemm = {0};

  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &o.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &o.nrank);
  if (!read_options(argc, argv, &o)) {
    if (o.rank == 0)
      fprintf(stderr, "usage: mpiexec -n N bench-team " BENCH_OPTIONS
                      " [--workers N,N,...] [--steps S] [--seconds S]\n");
    MPI_Finalize();
    return 2;
  }
  sq_status st = bench_gemm_open(&gemm);
  if (st == SQ_OK) st = run(&o, &gemm);
  if (st != SQ_OK) {
    fprintf(stderr, "bench-team: rank %d: %s\n", o.rank, sq_error_text());
    MPI_Abort(MPI_COMM_WORLD, sq_exit_code(st));
  }
  bench_gemm_close(&gemm);
  MPI_Finalize();
  return 0;
}
