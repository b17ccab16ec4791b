/* tests/bench/bench_length.c: time and memory of a training step against the length of the sequence.
 *
 *   bench-length CONFIG [--model NAME]... [--from T] [--to T] [--seconds S] [--set KEY=VALUE]...
 *
 * Lengths double from T = 256 to 16384.  CONFIG is an MQAR configuration; its length and number of positions are
 * replaced.  Without --model all of them.  Each point is a process of its own, so that its peak of memory is its
 * own: a warm-up step, then at least two steps and S seconds.  The exponents are least-squares slopes of log time
 * and log memory against log T, over all lengths and over those from 2048 on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "sq/linalg.h"

enum { MAX_POINTS = 24, MAX_MODELS = 16, MAX_STEPS = 1000, MIN_STEPS = 2, LONG = 2048 };

typedef struct {
  bench_options shared;
  const char *model[MAX_MODELS];
  int nmodel, from, to;
  double seconds;
} options;

typedef struct {
  int ok;
  double step_s, flops, plan_bytes, peak_bytes;
} point;

static int read_options(int argc, char **argv, options *o)
{
  *o =
      (options){.shared = {.threads = 1, .clock = CLOCK_MONOTONIC}, .from = 256, .to = 16384, .seconds = 0.5};
  for (int i = 1; i < argc; ++i) {
    const int taken = bench_option(&o->shared, argc, argv, &i);
    if (taken < 0) return 0;
    if (taken) {
      if (o->shared.model != NULL && o->nmodel < MAX_MODELS) o->model[o->nmodel++] = o->shared.model;
      o->shared.model = NULL;
      continue;
    }
    if (i + 1 >= argc) return 0;
    if (strcmp(argv[i], "--from") == 0)
      o->from = atoi(argv[++i]);
    else if (strcmp(argv[i], "--to") == 0)
      o->to = atoi(argv[++i]);
    else if (strcmp(argv[i], "--seconds") == 0)
      o->seconds = atof(argv[++i]);
    else
      return 0;
  }
  if (o->nmodel == 0)
    for (; bench_model_name(o->nmodel) != NULL; ++o->nmodel)
      o->model[o->nmodel] = bench_model_name(o->nmodel);
  return o->shared.config != NULL && o->from >= 16 && o->to >= o->from &&
         o->shared.nset + 2 < BENCH_MAX_OVERRIDES;
}

/* In the child: times one length. */
static sq_status measure(bench_options o, const char *model, int T, double seconds, point *p)
{
  char length[64], positions[64];
  double t[MAX_STEPS], spent = 0;
  bench_cell b;
  sq_status st;

  sq_format(length, sizeof length, "dataset.input_seq_length=%d", T);
  sq_format(positions, sizeof positions, "model.max_pos_embed=%d", T);
  o.model = model;
  o.set[o.nset++] = length;
  if (strcmp(model, "softmax") == 0 || strcmp(model, "linear") == 0) o.set[o.nset++] = positions;
  const size_t base = sq_peak_bytes();
  SQ_TRY(bench_open(&o, NULL, &b));
  (void)bench_step(&b, &o);
  int n = 0;
  for (; n < MAX_STEPS && (n < MIN_STEPS || spent < seconds); ++n) {
    t[n] = bench_step(&b, &o).step_s;
    spent += t[n];
  }
  bench_sort((size_t)n, t);
  *p = (point){.ok = 1,
               .step_s = n % 2 ? t[n / 2] : 0.5 * (t[n / 2 - 1] + t[n / 2]),
               .flops = b.plan.flops_step,
               .plan_bytes = (double)b.plan.bytes,
               .peak_bytes = (double)(sq_peak_bytes() - base)};
  bench_close(&b);
done:
  if (st != SQ_OK) fprintf(stderr, "bench-length: %s, T = %d: %s\n", model, T, sq_error_text());
  return st;
}

static point measure_apart(const options *o, const char *model, int T)
{
  int fd[2];
  point p = {0};
  fflush(stdout);
  if (pipe(fd) != 0) return p;
  const pid_t child = fork();
  if (child == 0) {
    close(fd[0]);
    const sq_status st = measure(o->shared, model, T, o->seconds, &p);
    const int wrote = write(fd[1], &p, sizeof p) == (ssize_t)sizeof p;
    _exit(st == SQ_OK && wrote ? 0 : 1);
  }
  close(fd[1]);
  if (child < 0 || read(fd[0], &p, sizeof p) != (ssize_t)sizeof p) p.ok = 0;
  close(fd[0]);
  if (child > 0) waitpid(child, NULL, 0);
  return p;
}

static void print_exponents(const char *model, const char *what, int n, const double *T, const double *time,
                            const double *peak)
{
  if (n < 2) return;
  printf("%-9s %6s exponent: time %.2f, memory %.2f\n", model, what, bench_slope(n, T, time),
         bench_slope(n, T, peak));
}

static int walk(const options *o, const char *model)
{
  double T[MAX_POINTS], time[MAX_POINTS], peak[MAX_POINTS];
  int n = 0, first_long = -1;
  for (int length = o->from; length <= o->to && n < MAX_POINTS; length *= 2) {
    const point p = measure_apart(o, model, length);
    if (!p.ok) {
      fprintf(stderr, "bench-length: no time for %s at T = %d\n", model, length);
      return 0;
    }
    printf("%-9s %6d %12.3f %10.3f %10.1f %10.1f %9.1f\n", model, length, 1e3 * p.step_s,
           1e6 * p.step_s / length, 1e-6 * p.peak_bytes, 1e-6 * p.plan_bytes, 1e-9 * p.flops / p.step_s);
    if (length >= LONG && first_long < 0) first_long = n;
    T[n] = length;
    time[n] = p.step_s;
    peak[n] = p.peak_bytes;
    ++n;
  }
  print_exponents(model, "all", n, T, time, peak);
  if (first_long > 0)
    print_exponents(model, ">=2048", n - first_long, T + first_long, time + first_long, peak + first_long);
  return 1;
}

int main(int argc, char **argv)
{
  options o;
  int ok = 1;

  if (!read_options(argc, argv, &o)) {
    fprintf(stderr, "usage: bench-length " BENCH_OPTIONS " [--from T] [--to T] [--seconds S]\n");
    return 2;
  }
  printf("%-9s %6s %12s %10s %10s %10s %9s\n", "model", "T", "step [ms]", "us a step", "peak [MB]",
         "plan [MB]", "GFLOP/s");
  for (int i = 0; i < o.nmodel; ++i) ok &= walk(&o, o.model[i]);
  return ok ? 0 : 1;
}
