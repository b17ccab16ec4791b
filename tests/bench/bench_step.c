/* tests/bench/bench_step.c: time of a training step of one configuration, what it is spent on, and how it compares
 * with the SGEMM rate of the same machine in the same run.
 *
 *   bench-step CONFIG [--model NAME] [--set KEY=VALUE]... [--steps N] [--split N] [--threads N] [--clock wall|cpu]
 *
 * --clock cpu counts the process's CPU time: for one thread on a machine that is busy with other work.  A step is
 * forward, backward, clipping and AdamW; making the batch is timed apart.  After N plain steps come the steps of
 * --split (by default half as many, 0: none), with the clock read at every change of phase (phases.h).  Prints one
 * "name value" a line. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "phases.h"
#include "sq/linalg.h"

enum { WARM_UP = 2 };

typedef struct {
  bench_options shared;
  int steps, split;
} options;

typedef struct {
  double *step_s, *input_s; /* (steps), ascending */
  double loss, gemm, split_s;
  size_t base_bytes; /* peak before the cell was opened */
} result;

static int read_options(int argc, char **argv, options *o)
{
  *o = (options){.shared = {.threads = 1, .clock = CLOCK_MONOTONIC}, .steps = 20, .split = -1};
  for (int i = 1; i < argc; ++i) {
    const int taken = bench_option(&o->shared, argc, argv, &i);
    if (taken < 0) return 0;
    if (taken) continue;
    if (i + 1 >= argc) return 0;
    if (strcmp(argv[i], "--steps") == 0)
      o->steps = atoi(argv[++i]);
    else if (strcmp(argv[i], "--split") == 0)
      o->split = atoi(argv[++i]);
    else
      return 0;
  }
  /* The clock before a function is not for several threads. */
  if (o->split < 0) o->split = o->shared.threads > 1 ? 0 : (o->steps + 1) / 2;
  if (o->shared.threads > 1 && o->split > 0) return 0;
  return o->shared.config != NULL && o->steps > 0;
}

static void plain_steps(bench_cell *b, const options *o, result *r)
{
  for (int k = -WARM_UP; k < o->steps; ++k) {
    const bench_time t = bench_step(b, &o->shared);
    r->loss = t.loss;
    if (k < 0) continue;
    r->step_s[k] = t.step_s;
    r->input_s[k] = t.input_s;
  }
  bench_sort((size_t)o->steps, r->step_s);
  bench_sort((size_t)o->steps, r->input_s);
}

static void split_steps(bench_cell *b, const options *o, result *r)
{
  if (o->split == 0) return;
  phase_watch(b->model);
  phase_start(o->shared.clock);
  for (int k = 0; k < o->split; ++k) r->split_s += bench_step(b, &o->shared).step_s;
  phase_stop();
  r->split_s /= o->split;
}

static void print_split(const options *o, const result *r, double flops)
{
  double whole = 0;
  if (o->split == 0) return;
  for (int p = 0; p < NPHASE; ++p) whole += phase_seconds((phase)p);
  printf("split_steps %d\nsplit_step_ms_mean %.3f\nsplit_calls_a_step %ld\n", o->split, 1e3 * r->split_s,
         phase_calls() / o->split);
  for (int p = 0; p < NPHASE; ++p)
    printf("phase_%s_ms %.3f\nphase_%s_share %.4f\n", phase_name[p], 1e3 * phase_seconds((phase)p) / o->split,
           phase_name[p], phase_seconds((phase)p) / whole);
  const phase_products x = phase_of_products();
  printf("products_ms %.3f\nproducts_share %.4f\nproducts_gflops %.2f\nproducts_over_useful "
         "%.4f\nproducts_bytes %.4e\n"
         "products_a_step %ld\n",
         1e3 * x.seconds / o->split, x.seconds / whole, 1e-9 * x.flops / x.seconds,
         x.flops / o->split / flops, x.bytes / o->split, x.calls / o->split);
}

static void print(const bench_cell *b, const options *o, const result *r)
{
  const sq_blas_info blas = sq_blas_describe();
  const char *advice = sq_blas_advice();
  const double median = r->step_s[o->steps / 2], input = r->input_s[o->steps / 2],
               rate = b->plan.flops_step / median * 1e-9;
  printf("config %s\nmodel %s\nprecision %s\ncpu %s\nblas %s, kernel %s\nthreads %d\n", o->shared.config,
         o->shared.model ? o->shared.model : "-", SQ_PRECISION, sq_cpu_model(), blas.name, blas.kernel,
         o->shared.threads);
  if (advice != NULL) printf("blas_advice %s\n", advice);
  printf("clock %s\nparameters %ld\nsteps %d\nlast_loss %.4f\n",
         o->shared.clock == CLOCK_MONOTONIC ? "wall" : "cpu", b->plan.nparam, o->steps, r->loss);
  printf("step_ms_median %.3f\nstep_ms_min %.3f\nstep_ms_max %.3f\n", 1e3 * median, 1e3 * r->step_s[0],
         1e3 * r->step_s[o->steps - 1]);
  printf("input_ms_median %.3f\ninput_share %.4f\n", 1e3 * input, input / (input + median));
  printf("flops_per_step %.4e\ngflops %.2f\nsgemm_1024_gflops %.2f\nshare_of_sgemm %.3f\n",
         b->plan.flops_step, rate, r->gemm, rate / r->gemm);
  printf("base_bytes %zu\nplan_bytes %zu\npeak_growth_bytes %zu\n", r->base_bytes, b->plan.bytes,
         sq_peak_bytes() - r->base_bytes);
}

int main(int argc, char **argv)
{
  options o;
  bench_cell b = {0};
  bench_gemm g = {0};
  result r = {.loss = NAN};
  sq_status st;

  if (!read_options(argc, argv, &o)) {
    fprintf(stderr, "usage: bench-step " BENCH_OPTIONS " [--steps N] [--split N]\n");
    return 2;
  }
  sq_blas_set_threads(1);
  r.step_s = sq_calloc(2 * (size_t)o.steps, sizeof *r.step_s, "times");
  if (r.step_s == NULL) SQ_TRY(SQ_ERR_MEMORY);
  r.input_s = r.step_s + o.steps;
  SQ_TRY(bench_gemm_open(&g));
  r.gemm = bench_gemm_best(&g, &o.shared); /* before and after, lest the load was different */
  r.base_bytes = sq_peak_bytes();
  SQ_TRY(bench_open(&o.shared, NULL, &b));
  plain_steps(&b, &o, &r);
  r.gemm = fmax(r.gemm, bench_gemm_best(&g, &o.shared));
  print(&b, &o, &r);
  split_steps(&b, &o, &r);
  print_split(&o, &r, b.plan.flops_step);
done:
  if (st != SQ_OK) fprintf(stderr, "bench-step: %s\n", sq_error_text());
  bench_close(&b);
  bench_gemm_close(&g);
  free(r.step_s);
  return sq_exit_code(st);
}
