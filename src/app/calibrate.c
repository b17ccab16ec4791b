/* src/app/calibrate.c: how long a training step takes here, from a few real ones on random tokens.
 *
 * The gradient of a batch is timed, of a part of it where the whole would take too long, and scaled by the
 * FLOP count; the optimiser is timed on all parameters. */
#include "calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/rng.h"

double sq_calibrate_gemm(void)
{
  /* On a busy machine a fifth of a second holds few products, and not one undisturbed: at least LEAST of them. */
  enum { N = 512, LEAST = 8 };
  double best = 0;
  int n = 0;
  sq_real *a = sq_calloc((size_t)3 * N * N, sizeof *a, "measurement");
  if (!a) return 0;
  for (int i = 0; i < 2 * N * N; ++i) a[i] = (sq_real)0.5;
  for (double start = sq_wall_s(), now = start; now - start < 0.2 || n < LEAST; ++n) {
    sq_gemm(SQ_N, SQ_N, N, N, N, 1, a, N, a + (size_t)N * N, N, 0, a + (size_t)2 * N * N, N);
    const double end = sq_wall_s();
    best = fmax(best, 2.0 * N * N * N / (end - now));
    now = end;
  }
  free(a);
  return best;
}

typedef struct {
  sq_model *m;
  sq_worker *w;
  sq_real *theta, *grad, *m1, *m2; /* pieces of one array */
  int *off, *id;
  int32_t *token, *label;
  sq_real *value;
  sq_batch b;
} bench;

static void bench_clear(bench *k)
{
  sq_worker_destroy(&k->w);
  sq_model_destroy(&k->m);
  free(k->theta);
  free(k->off);
  free(k->token);
  free(k->value);
  *k = (bench){0};
}

/* Examples of full length with random tokens, labels at the last steps. */
static sq_status bench_batch(bench *k, const sq_train_plan *p, int nexample)
{
  const sq_task_info *t = &p->task;
  const int T = t->seq_len, nseq = nexample * (t->dual ? 2 : 1), nrow = nseq * T;
  sq_rng rng;
  sq_rng_init(&rng, 1, SQ_STREAM_TEST, 0);
  k->off = sq_calloc((size_t)2 * (size_t)nseq + 1, sizeof *k->off, "measurement");
  k->token = sq_calloc((size_t)2 * (size_t)nrow, sizeof *k->token, "measurement");
  if (t->vocab_size == 0)
    k->value = sq_calloc((size_t)nrow * (size_t)t->input_dim, sizeof *k->value, "measurement");
  if (!k->off || !k->token || (t->vocab_size == 0 && !k->value)) return SQ_ERR_MEMORY;
  k->id = k->off + nseq + 1;
  k->label = k->token + nrow;
  for (int b = 0; b < nseq; ++b) {
    k->off[b + 1] = (b + 1) * T;
    k->id[b] = b;
  }
  for (int r = 0; r < nrow; ++r) {
    if (t->vocab_size > 0) k->token[r] = (int32_t)sq_rng_below(&rng, (uint32_t)t->vocab_size);
    k->label[r] = SQ_IGNORE;
    if (!t->label_per_row ? r < nseq : r % T >= T - t->max_labels)
      k->label[r] = (int32_t)sq_rng_below(&rng, (uint32_t)t->nclass);
  }
  k->b = (sq_batch){.rows = {.nseq = nseq, .nrow = nrow, .off = k->off, .id = k->id},
                    .input_dim = t->input_dim,
                    .token = t->vocab_size > 0 ? k->token : NULL,
                    .value = k->value,
                    .label_per_row = t->label_per_row,
                    .dual = t->dual,
                    .label = k->label};
  return SQ_OK;
}

static sq_status bench_create(bench *k, const sq_config *c, const sq_train_plan *p, int threads, int nseq)
{
  const sq_crew crew = {.threads = threads};
  sq_status st;
  SQ_TRY(sq_model_create(c, p->dims, &k->m));
  const size_t n = sq_model_params(k->m)->total;
  SQ_TRY(sq_worker_create(k->m, sq_train_nshard(c), &crew, &k->w));
  k->theta = sq_calloc(3 * n + sq_model_ngradient(k->m), sizeof *k->theta, "measurement");
  if (!k->theta) return SQ_ERR_MEMORY;
  k->m1 = k->theta + n;
  k->m2 = k->m1 + n;
  k->grad = k->m2 + n;
  sq_model_init(k->m, 1, k->theta);
  SQ_TRY(bench_batch(k, p, nseq));
done:
  return st;
}

static double time_gradient(bench *k, const sq_train_plan *p)
{
  const sq_pass pass = {.rows = &k->b.rows, .train = 1, .seed = 1, .seq_len = p->task.seq_len};
  double best = INFINITY;
  sq_tally tally;
  for (double start = sq_wall_s(), now = start; now - start < 0.3 || best == INFINITY;) {
    sq_batch_gradient(k->w, k->theta, &k->b, &pass, k->grad, &tally);
    const double end = sq_wall_s();
    best = fmin(best, end - now);
    now = end;
  }
  return best;
}

static double time_optimiser(bench *k)
{
  const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .clip = 1};
  double best = INFINITY;
  for (int i = 0; i < 2; ++i) {
    const double start = sq_wall_s();
    sq_worker_step(k->w, &o, 1e-6, 1e-6, i + 1, k->grad, k->m1, k->m2, k->theta);
    best = fmin(best, sq_wall_s() - start);
  }
  return best;
}

sq_status sq_calibrate_step(const sq_config *c, const sq_train_plan *p, int threads, double guess_flops,
                            double *step_s)
{
  bench k = {0};
  sq_status st;
  const int batch = sq_config_int(c, "train.batch_size");
  /* At most about a second of work for one gradient, but always a sequence. */
  const double one = p->flops_step / batch / guess_flops;
  const int nseq = one * batch <= 1 ? batch : one >= 1 ? 1 : (int)(1 / one);
  sq_blas_set_threads(1);
  SQ_TRY(bench_create(&k, c, p, threads, nseq));
  *step_s = time_gradient(&k, p) * batch / nseq + time_optimiser(&k);
done:
  bench_clear(&k);
  return st;
}
