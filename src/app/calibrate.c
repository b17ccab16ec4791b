/* src/app/calibrate.c: how long the work of a cell takes here, from a little of it on random tokens.
 *
 * The gradient of a batch is timed, of a part of it where the whole would take too long, and scaled by the number of
 * sequences; evaluations likewise; the optimiser on all parameters.  Spectra are timed at shorter and shorter distances
 * from the full length and continued along the last slope where the full length would take too long. */
#include "calibrate.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

double sq_calibrate_copy(void)
{
  enum { BYTES = 1 << 26, TIMES = 4 }; /* beyond the caches */
  double best = INFINITY;
  char *a = sq_calloc(2, BYTES, "measurement");
  if (!a) return 0;
  memset(a, 1, 2 * (size_t)BYTES);
  for (int i = 0; i < TIMES; ++i) {
    const double start = sq_wall_s();
    memcpy(a + (i % 2) * (size_t)BYTES, a + ((i + 1) % 2) * (size_t)BYTES, BYTES);
    best = fmin(best, sq_wall_s() - start);
  }
  free(a);
  return BYTES / best;
}

/* A file without a name: nothing of it stays, whatever happens. */
double sq_calibrate_disk(const char *folder, size_t bytes)
{
  enum { BLOCK = 1 << 20 };
  const int fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  char *block = fd >= 0 ? sq_calloc(1, BLOCK, "measurement") : NULL;
  int failed = !block;
  const double start = sq_wall_s();
  for (size_t at = 0; at < bytes && !failed; at += BLOCK) failed = write(fd, block, BLOCK) != BLOCK;
  failed = failed || fsync(fd) != 0;
  const double took = sq_wall_s() - start;
  if (fd >= 0) close(fd);
  free(block);
  sq_error_clear();
  return failed || took <= 0 ? 0 : (double)((bytes + BLOCK - 1) / BLOCK * BLOCK) / took;
}

/* Seconds of one thread's own work, which others on the same core do not lengthen; of several threads the clock's. */
static double work_s(int threads)
{
  struct timespec t;
  if (threads > 1 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0) return sq_wall_s();
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
  sq_model *m;
  sq_worker *w;
  sq_real *theta, *grad, *m1, *m2; /* pieces of one array */
  int *off, *id;
  int32_t *token, *label;
  sq_real *value;
  sq_batch b;
  int seq_len, threads;
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

/* The best of some calls: others may use the machine too. */
static double best_of(void (*call)(bench *k), bench *k)
{
  double best = INFINITY;
  for (double start = sq_wall_s(); sq_wall_s() - start < 0.3 || best == INFINITY;) {
    const double before = work_s(k->threads);
    call(k);
    best = fmin(best, work_s(k->threads) - before);
  }
  return best;
}

static void gradient(bench *k)
{
  const sq_pass pass = {.rows = &k->b.rows, .train = 1, .seed = 1, .seq_len = k->seq_len};
  sq_tally tally;
  sq_batch_gradient(k->w, k->theta, &k->b, &pass, k->grad, &tally);
}

static void evaluation(bench *k)
{
  sq_tally tally;
  sq_batch_evaluate(k->w, k->theta, &k->b, &tally);
}

/* Of a batch, from n <= batch examples.  Derived quantities are made once for a batch, however small: the time of an
 * example more is then that between half of them and all. */
static double time_batch(bench *k, void (*call)(bench *k), int n, int batch)
{
  const sq_batch all = k->b;
  const int half = n / 2, each = all.dual ? 2 : 1;
  const double s = best_of(call, k);
  if (n == batch || sq_model_nderived(k->m) == 0) return s * batch / n;
  k->b.rows.nseq = half * each;
  k->b.rows.nrow = all.rows.off[half * each];
  const double more = fmax((s - best_of(call, k)) / (n - half), 0.1 * s / n);
  k->b = all;
  return s + more * (batch - n);
}

static double time_optimiser(bench *k)
{
  const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .clip = 1};
  double best = INFINITY;
  for (int i = 0; i < 2; ++i) {
    const double start = work_s(k->threads);
    sq_worker_step(k->w, &o, 1e-6, 1e-6, i + 1, k->grad, k->m1, k->m2, k->theta);
    best = fmin(best, work_s(k->threads) - start);
  }
  return best;
}

/* ---- spectra ----------------------------------------------------------------------------------------- */

typedef struct {
  sq_spectra *s;
  double **out, *data;
  int nsample, heavy; /* sequences; the first of them, whose memory is analysed too */
  int *off;           /* (nsample + 1) */
  /* Systems of time-invariant layers: those whose Hankel values are found, the first of every layer among them, when the first
     of all was finished, from when on the second will do, and when to give up. */
  int nsystem, nhankel;
  double first_s, enough_s, end_s;
} spectra_bench;

static void spectra_clear(spectra_bench *x)
{
  sq_spectra_destroy(&x->s);
  free(x->out);
  free(x->data);
  free(x->off);
  *x = (spectra_bench){0};
}

static int of_both(const sq_config *c, int nsample)
{
  const int a = sq_config_int(c, "analysis.hankel_samples"), b = sq_config_int(c, "analysis.memory_samples");
  const int most = a > b ? a : b;
  return most < nsample ? most : nsample;
}

/* Systems with Hankel values: some of every layer. */
static int count_hankel(const sq_config *c, const spectra_bench *x)
{
  const int layers = sq_config_int(c, "model.num_layers"), each = sq_config_int(c, "analysis.hankel_samples");
  const int some = layers * (each > 1 ? each : 1);
  return some < x->nsystem ? some : x->nsystem;
}

static sq_status spectra_make(bench *k, const sq_config *c, const sq_train_plan *p, int protocol,
                              spectra_bench *x)
{
  int n;
  sq_status st;
  *x = (spectra_bench){.nsample = sq_cells_nsample(c, &p->task)};
  x->heavy = of_both(c, x->nsample);
  SQ_TRY(sq_spectra_create(c, k->m, sq_config_string_at(c, "analysis.protocols", protocol), x->nsample,
                           p->task.seq_len, &x->s));
  const sq_field *f = sq_spectra_fields(x->s, &n);
  x->out = sq_calloc((size_t)n + 1, sizeof *x->out, "measurement");
  x->data = sq_calloc(sq_fields_bytes(f, n) / sizeof(double) + 1, sizeof(double), "measurement");
  x->off = sq_calloc((size_t)x->nsample + 1, sizeof *x->off, "measurement");
  if (!x->out || !x->data || !x->off) {
    st = SQ_ERR_MEMORY;
    goto done;
  }
  double *next = x->data;
  for (int i = 0; i < n; ++i) {
    x->out[i] = next;
    next += sq_field_doubles(&f[i]);
  }
  x->nsystem = sq_spectra_nsystem(x->s);
  x->nhankel = count_hankel(c, x);
done:
  return st;
}

/* A sample whose sequence `which` has T steps and the others none. */
static sq_batch only_one(const bench *k, spectra_bench *x, int which, int T)
{
  sq_batch b = k->b;
  for (int i = 0; i <= x->nsample; ++i) x->off[i] = i > which ? T : 0;
  b.rows.nseq = x->nsample;
  b.rows.nrow = T;
  b.rows.off = x->off;
  return b;
}

/* Seconds for sequence `which` of the sample alone; 0 if it cannot be analysed. */
static double run_sequence(bench *k, spectra_bench *x, int which, int T)
{
  const sq_batch b = only_one(k, x, which, T);
  const double start = work_s(1);
  if (sq_spectra_run(x->s, k->theta, &b, sq_worker_work(k->w), x->out) != SQ_OK) {
    sq_error_clear();
    return 0;
  }
  return work_s(1) - start;
}

static double time_sequence(bench *k, spectra_bench *x, int which)
{
  const int T = k->seq_len;
  const double start = sq_wall_s();
  double before = 0, s = 0;
  int t = T > 256 ? T / 16 : T;
  for (;; t = 2 * t < T ? 2 * t : T) {
    before = s;
    s = run_sequence(k, x, which, t);
    if (t == T || sq_wall_s() - start > 0.4) break;
  }
  const double slope = before > 0 ? fmin(3, fmax(1, log2(s / before))) : 2;
  return s * pow((double)T / t, slope);
}

static double time_sequences(bench *k, spectra_bench *x)
{
  double s = 0;
  if (x->heavy > 0) s += x->heavy * time_sequence(k, x, 0);
  if (x->heavy < x->nsample) s += (x->nsample - x->heavy) * time_sequence(k, x, x->nsample - 1);
  return s;
}

static spectra_bench *timed; /* by the only thread that plans */

static int time_is_up(void *unused)
{
  const int done = sq_spectra_done(timed->s);
  (void)unused;
  if (done == 1 && timed->first_s == 0) timed->first_s = work_s(1);
  return sq_wall_s() >= (done >= 2 ? timed->enough_s : timed->end_s);
}

/* The first system has Hankel values, as some of the others; what the ones after it take is taken for all without. */
static double time_systems(bench *k, spectra_bench *x)
{
  const sq_batch b = only_one(k, x, 0, 1); /* not looked at */
  timed = x;
  x->first_s = 0;
  const double start = work_s(1);
  x->enough_s = sq_wall_s() + 0.8;
  x->end_s = sq_wall_s() + 5;
  sq_spectra_poll(x->s, time_is_up, NULL);
  const sq_status st = sq_spectra_run(x->s, k->theta, &b, NULL, x->out);
  const double end = work_s(1), first = x->first_s - start;
  const int done = sq_spectra_done(x->s);
  if (st != SQ_STOPPED) return end - start;
  if (done < 2) return (end - start) * x->nsystem / (done + 1);
  const double other = (end - x->first_s) / done; /* after the first: done - 1, and one begun */
  return first * x->nhankel + other * (x->nsystem - x->nhankel);
}

/* At the start all systems of a time-invariant layer may be equal, and those are solved once; training makes them
 * differ. */
static void disturb(bench *k)
{
  sq_rng rng;
  sq_rng_init(&rng, 2, SQ_STREAM_TEST, 0);
  for (size_t i = 0; i < sq_model_params(k->m)->total; ++i)
    k->theta[i] *= (sq_real)(1 + 1e-3 * (sq_rng_below(&rng, 1000) / 1000.0 - 0.5));
}

static sq_status time_spectra(bench *k, const sq_config *c, const sq_train_plan *p, sq_cell_speed *speed)
{
  sq_status st = SQ_OK;
  speed->init_s = speed->spectra_s = 0;
  for (int i = 0; i < sq_config_count(c, "analysis.protocols"); ++i) {
    spectra_bench x;
    st = spectra_make(k, c, p, i, &x);
    if (st == SQ_OK && x.nsystem > 0) {
      sq_model_init(k->m, 1, k->theta);
      speed->init_s += time_systems(k, &x);
      disturb(k);
      speed->spectra_s += time_systems(k, &x);
    } else if (st == SQ_OK) {
      const double s = time_sequences(k, &x);
      speed->init_s += s;
      speed->spectra_s += s;
    }
    spectra_clear(&x);
    if (st != SQ_OK) break;
  }
  return st;
}

sq_status sq_calibrate_cell(const sq_config *c, const sq_train_plan *p, int threads, double guess_flops,
                            sq_cell_speed *speed)
{
  bench k = {.seq_len = p->task.seq_len, .threads = threads};
  sq_status st;
  const int batch = sq_config_int(c, "train.batch_size");
  /* At most about a second of work for one gradient, but two sequences where a batch has them. */
  const double one = p->flops_step / batch / guess_flops;
  const int part = one >= 1 ? 1 : (int)fmin(1 / one, batch), nseq = part < 2 && batch > 1 ? 2 : part;
  sq_blas_set_threads(1);
  SQ_TRY(bench_create(&k, c, p, threads, nseq));
  speed->gradient_s = time_batch(&k, gradient, nseq, batch);
  speed->optimiser_s = time_optimiser(&k);
  speed->evaluation_s = time_batch(&k, evaluation, nseq, batch) / batch;
  SQ_TRY(time_spectra(&k, c, p, speed));
done:
  bench_clear(&k);
  return st;
}
