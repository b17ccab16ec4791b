/* tests/bench/bench_scaling.c: the same training step on 1 .. n ranks at once, each with a cell of its own, as the
 * program runs a grid; beside what the machine itself keeps when so many cores are busy.
 *
 *   mpiexec -n N bench-scaling CONFIG [--model NAME] [--set KEY=VALUE]... [--ranks 1,2,4,...] [--seconds S]
 *                [--price PER_HOUR] [--watts W]
 *
 * For each number of ranks in turn (by default 1, 2, 4, .. and N), all of them busy at the same time, for S seconds of steps (5) and
 * for half a second of each of the others:
 *
 *   clock      dependent additions, one a cycle: the core's frequency
 *   SGEMM      products of 1024^3, one thread a rank
 *   cache      a = b + s c over arrays of 1.5 MiB, 4.5 MiB a rank: the shared cache
 *   memory     the same over arrays of 32 MiB: the memory's bandwidth
 *   step       training steps, after a warm-up step
 *
 * A rank that is done keeps working, without counting, until the last one is; ranks that have no part sleep.
 * Efficiency is against n times one rank; "of SGEMM" divides it by what SGEMM keeps.  --price (of the machine, in
 * any currency) and --watts give the cost of a million steps and the energy of one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_mpi.h"
#include "sq/linalg.h"

enum { CACHE_N = 196608, MEMORY_N = 4194304, CHAIN_N = 20000000 };

typedef struct {
  bench_options shared;
  int count[BENCH_MAX_COUNTS], ncount, rank, nrank;
  double seconds, price, watts;
} options;

/* What a rank does all the time: one piece of work, and how much it was (FLOPs, bytes, steps, cycles). */
typedef struct {
  bench_options o;
  bench_cell cell;
  bench_gemm gemm;
  double *array[3];
  double input_s, step_s;
  uint64_t chain;
} rank_work;
typedef double (*piece)(rank_work *w);

static double do_chain(rank_work *w)
{
  w->chain = bench_chain(CHAIN_N, w->chain);
  return CHAIN_N;
}
static double do_gemm(rank_work *w)
{
  bench_gemm_run(&w->gemm);
  return BENCH_GEMM_FLOPS;
}
static double do_triad(rank_work *w, size_t n)
{
  bench_triad(n, w->array[0], w->array[1], 0.5, w->array[2]);
  return 24.0 * (double)n;
}
static double do_cache(rank_work *w)
{
  return do_triad(w, CACHE_N);
}
static double do_memory(rank_work *w)
{
  return do_triad(w, MEMORY_N);
}
static double do_step(rank_work *w)
{
  const bench_time t = bench_step(&w->cell, &w->o);
  w->input_s += t.input_s;
  w->step_s += t.step_s;
  return 1;
}

enum { CLOCK, SGEMM, CACHE, MEMORY, STEP, NKIND };
static const piece work_of[NKIND] = {do_chain, do_gemm, do_cache, do_memory, do_step};

/* ---- one number of ranks ------------------------------------------------------------------------------- */

/* Units a second of this rank while ranks 0 .. n-1 are busy; 0 for the others. */
static double rate_of(rank_work *w, piece work, int n, const options *o, double seconds)
{
  double units = 0, rate = 0;
  MPI_Request r;
  int done = 0;

  bench_quiet_barrier(MPI_COMM_WORLD);
  if (o->rank < n) {
    (void)work(w); /* warm-up: pages, caches, frequency */
    w->input_s = w->step_s = 0;
    const double start = bench_now_s(&w->o);
    double spent = 0;
    while (spent < seconds) {
      units += work(w);
      spent = bench_now_s(&w->o) - start;
    }
    rate = units / spent;
  }
  MPI_Ibarrier(MPI_COMM_WORLD, &r);
  while (MPI_Test(&r, &done, MPI_STATUS_IGNORE), !done) {
    if (o->rank < n)
      (void)work(w);
    else
      bench_nap();
  }
  return rate;
}

static double total(double x)
{
  double sum;
  MPI_Allreduce(&x, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return sum;
}

typedef struct {
  double rate[NKIND]; /* of all ranks together */
  double slowest, input_share;
} row;

static row measure(rank_work *w, const options *o, int n)
{
  row r;
  double mine = 0;
  for (int k = 0; k < NKIND; ++k) {
    mine = rate_of(w, work_of[k], n, o, k == STEP ? o->seconds : fmin(o->seconds, 0.5));
    r.rate[k] = total(mine);
  }
  const double lone = o->rank < n ? mine : INFINITY;
  MPI_Allreduce(&lone, &r.slowest, 1, MPI_DOUBLE, MPI_MIN, MPI_COMM_WORLD);
  const double input = total(w->input_s), step = total(w->step_s);
  r.input_share = input / (input + step);
  return r;
}

/* ---- output ------------------------------------------------------------------------------------------ */

static void print_head(const options *o)
{
  bench_print_head(&o->shared);
  printf("%5s %9s %8s %9s %9s %9s %10s %6s %6s %6s %6s %6s %8s\n", "ranks", "clock", "SGEMM", "cache",
         "memory", "steps/s", "slowest", "clock", "SGEMM", "cache", "memory", "steps", "of SGEMM");
  printf("%5s %9s %8s %9s %9s %9s %10s %34s\n", "", "GHz", "GFLOP/s", "GB/s", "GB/s", "", "steps/s",
         "kept, of n times one rank");
}

static void print_row(int n, const row *r, int one, const row *first)
{
  double kept[NKIND];
  for (int k = 0; k < NKIND; ++k) kept[k] = r->rate[k] / first->rate[k] * one / n;
  printf("%5d %9.2f %8.1f %9.1f %9.1f %9.3f %10.3f %5.0f%% %5.0f%% %5.0f%% %5.0f%% %5.0f%% %7.0f%%\n", n,
         1e-9 * r->rate[CLOCK] / n, 1e-9 * r->rate[SGEMM] / n, 1e-9 * r->rate[CACHE], 1e-9 * r->rate[MEMORY],
         r->rate[STEP], r->slowest, 100 * kept[CLOCK], 100 * kept[SGEMM], 100 * kept[CACHE],
         100 * kept[MEMORY], 100 * kept[STEP], 100 * kept[STEP] / kept[SGEMM]);
}

/* What explains the loss: a step that keeps what SGEMM keeps is held by what holds SGEMM, the frequency. */
static void print_limit(int n, const row *r, int one, const row *first)
{
  double kept[NKIND];
  for (int k = 0; k < NKIND; ++k) kept[k] = r->rate[k] / first->rate[k] * one / n;
  const char *limit = kept[STEP] >= 0.97                 ? "nothing"
                      : kept[STEP] >= 0.97 * kept[SGEMM] ? "what limits SGEMM as well: compare the clock"
                      : kept[CACHE] < 0.95 * kept[SGEMM]
                          ? "the shared cache and memory, which keep less than SGEMM"
                      : kept[MEMORY] < kept[STEP] ? "the memory, the only thing that keeps less"
                                                  : "none of these: uneven cores, or other load";
  printf("limit %d ranks: %s\n", n, limit);
}

static void print_cost(const options *o, const row *r)
{
  if (o->price > 0) printf("cost_per_million_steps %.4g\n", o->price / 3600 / r->rate[STEP] * 1e6);
  if (o->watts > 0) printf("joules_per_step %.4g\n", o->watts / r->rate[STEP]);
}

static void run(rank_work *w, const options *o)
{
  row first = {{0}, 0, 0}, r = {{0}, 0, 0};
  if (o->rank == 0) print_head(o);
  for (int i = 0; i < o->ncount; ++i) {
    r = measure(w, o, o->count[i]);
    if (i == 0) first = r;
    if (o->rank != 0) continue;
    print_row(o->count[i], &r, o->count[0], &first);
    fflush(stdout);
  }
  if (o->rank != 0) return;
  const int n = o->count[o->ncount - 1];
  print_limit(n, &r, o->count[0], &first);
  printf("steps_per_second %.4f\ninput_share %.4f\ngflops_a_rank %.2f\nshare_of_sgemm %.3f\n", r.rate[STEP],
         r.input_share, 1e-9 * w->cell.plan.flops_step * r.rate[STEP] / n,
         w->cell.plan.flops_step * r.rate[STEP] / r.rate[SGEMM]);
  print_cost(o, &r);
}

/* ---- command line ------------------------------------------------------------------------------------ */

static void default_counts(options *o)
{
  for (int n = 1; n < o->nrank; n *= 2) o->count[o->ncount++] = n;
  o->count[o->ncount++] = o->nrank;
}

static int read_options(int argc, char **argv, options *o)
{
  for (int i = 1; i < argc; ++i) {
    const int taken = bench_option(&o->shared, argc, argv, &i);
    if (taken < 0) return 0;
    if (taken) continue;
    if (i + 1 >= argc) return 0;
    if (strcmp(argv[i], "--ranks") == 0) {
      o->ncount = bench_counts(argv[++i], o->nrank, o->count);
      if (o->ncount == 0) return 0;
    } else if (strcmp(argv[i], "--seconds") == 0) {
      o->seconds = atof(argv[++i]);
    } else if (strcmp(argv[i], "--price") == 0) {
      o->price = atof(argv[++i]);
    } else if (strcmp(argv[i], "--watts") == 0) {
      o->watts = atof(argv[++i]);
    } else {
      return 0;
    }
  }
  if (o->ncount == 0) default_counts(o);
  return o->shared.config != NULL && o->seconds > 0;
}

static sq_status prepare(rank_work *w, const options *o)
{
  char seed[64];
  sq_status st;

  w->o = o->shared;
  w->chain = 1;
  sq_format(seed, sizeof seed, "seed=%d", 1919 + o->rank);
  SQ_TRY(bench_open(&o->shared, seed, &w->cell));
  SQ_TRY(bench_gemm_open(&w->gemm));
  for (int i = 0; i < 3; ++i) {
    w->array[i] = sq_calloc(MEMORY_N, sizeof *w->array[i], "triad");
    if (w->array[i] == NULL) SQ_TRY(SQ_ERR_MEMORY);
    for (size_t k = 0; k < MEMORY_N; ++k) w->array[i][k] = (double)(k % 100);
  }
done:
  return st;
}

int main(int argc, char **argv)
{
  options o = {.shared = {.threads = 1, .clock = CLOCK_MONOTONIC}, .seconds = 5};
  rank_work w = {0};

  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &o.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &o.nrank);
  if (!read_options(argc, argv, &o)) {
    if (o.rank == 0)
      fprintf(stderr, "usage: mpiexec -n N bench-scaling " BENCH_OPTIONS
                      " [--ranks N,N,...] [--seconds S] [--price PER_HOUR] [--watts W]\n");
    MPI_Finalize();
    return 2;
  }
  const sq_status st = prepare(&w, &o);
  if (st != SQ_OK) {
    fprintf(stderr, "bench-scaling: rank %d: %s\n", o.rank, sq_error_text());
    MPI_Abort(MPI_COMM_WORLD, sq_exit_code(st));
  }
  run(&w, &o);
  for (int i = 0; i < 3; ++i) free(w.array[i]);
  bench_gemm_close(&w.gemm);
  bench_close(&w.cell);
  MPI_Finalize();
  return 0;
}
