/* tests/bench/phases.c: see phases.h. */
#include "phases.h"

#include <string.h>

#include "sq/linalg.h"
#include "sq/train.h"

enum { MAX_DEPTH = 32, MAX_MIXERS = 64 };

const char *const phase_name[NPHASE] = {"rest",        "input",   "embedding",   "projections",
                                        "mixer",       "kernels", "convolution", "norms",
                                        "elementwise", "output",  "optimiser"};

/* One thread, one program: the wrappers have no argument that could carry this. */
static struct {
  int on, depth;
  long calls;
  clockid_t clock;
  double last, total[NPHASE];
  phase stack[MAX_DEPTH];
  phase_products products;
} watch;

static double now_s(void)
{
  struct timespec t;
  clock_gettime(watch.clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void charge(void)
{
  const double t = now_s();
  watch.total[watch.stack[watch.depth]] += t - watch.last;
  watch.last = t;
}

/* Only a mixer, and what belongs to nothing, has parts: the products inside the output layer are the output layer's. */
static void enter(phase p)
{
  if (!watch.on) return;
  const phase outer = watch.stack[watch.depth];
  charge();
  ++watch.calls;
  SQ_ASSERT(watch.depth + 1 < MAX_DEPTH);
  watch.stack[++watch.depth] = outer == PHASE_REST || outer == PHASE_MIXER ? p : outer;
}

static void leave(void)
{
  if (!watch.on) return;
  charge();
  --watch.depth;
}

void phase_start(clockid_t clock)
{
  memset(&watch, 0, sizeof watch);
  watch.on = 1;
  watch.clock = clock;
  watch.last = now_s();
}

void phase_stop(void)
{
  if (watch.on) charge();
  watch.on = 0;
}

double phase_seconds(phase p)
{
  return watch.total[p];
}

long phase_calls(void)
{
  return watch.calls;
}

phase_products phase_of_products(void)
{
  return watch.products;
}

/* ---- mixers ------------------------------------------------------------------------------------------ */

static struct {
  int n;
  struct {
    const sq_mixer_ops *real;
    sq_mixer_ops timed;
  } kind[MAX_MIXERS];
} mixers;

static const sq_mixer_ops *real_ops(const sq_mixer *m)
{
  const sq_mixer_ops *timed = sq_mixer_get(m);
  for (int i = 0; i < mixers.n; ++i)
    if (&mixers.kind[i].timed == timed) return mixers.kind[i].real;
  SQ_ASSERT(0);
  return NULL;
}

static void timed_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          sq_real *y, void *tape, void *scratch)
{
  enter(PHASE_MIXER);
  real_ops(m)->forward(m, theta, p, u, y, tape, scratch);
  leave();
}

static void timed_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                           const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch)
{
  enter(PHASE_MIXER);
  real_ops(m)->backward(m, theta, p, u, tape, dy, du, dtheta, scratch);
  leave();
}

static void timed_derive(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                         void *scratch)
{
  enter(PHASE_KERNEL);
  real_ops(m)->derive(m, theta, first, end, derived, scratch);
  leave();
}

static void timed_derive_back(const sq_mixer *m, const sq_real *theta, int first, int end,
                              const sq_real *derived, const sq_real *dderived, sq_real *dtheta, void *scratch)
{
  enter(PHASE_KERNEL);
  real_ops(m)->derive_back(m, theta, first, end, derived, dderived, dtheta, scratch);
  leave();
}

static const sq_mixer_ops *timed_ops(const sq_mixer_ops *real)
{
  int i = 0;
  while (i < mixers.n && mixers.kind[i].real != real && &mixers.kind[i].timed != real) ++i;
  if (i < mixers.n) return &mixers.kind[i].timed;
  SQ_ASSERT(i < MAX_MIXERS);
  mixers.n = i + 1;
  mixers.kind[i].real = real;
  sq_mixer_ops *t = &mixers.kind[i].timed;
  *t = *real;
  t->forward = timed_forward;
  t->backward = timed_backward;
  if (real->derive != NULL) t->derive = timed_derive;
  if (real->derive_back != NULL) t->derive_back = timed_derive_back;
  return t;
}

/* The first member of every mixer is its head (sq/mixer.h); the model is ours, though its mixers are shown as const. */
void phase_watch(sq_model *m)
{
  for (int i = 0; i < sq_model_nlayer(m); ++i) {
    struct sq_mixer_head *head = (struct sq_mixer_head *)(void *)(uintptr_t)sq_model_mixer(m, i);
    head->ops = timed_ops(head->ops);
  }
}

/* ---- functions by name: tests/cmake/bench.cmake reads the list of --wrap from here ------------------- */

/* __wrap_NAME takes the place of NAME, which is __real_NAME then: names that the linker prescribes. */
#define TIMED(p, name, params, args)                                                                         \
  extern __typeof__(name) __real_##name, __wrap_##name;                                                      \
  void __wrap_##name params                                                                                  \
  {                                                                                                          \
    enter(p);                                                                                                \
    __real_##name args;                                                                                      \
    leave();                                                                                                 \
  }

#define X  const sq_real *x
#define DY const sq_real *dy
#define W  const sq_real *w
#define BI const sq_real *b

TIMED(PHASE_PROJECTION, sq_nn_linear, (int R, int in, int out, X, int ldx, W, BI, sq_real *y, int ldy),
      (R, in, out, x, ldx, w, b, y, ldy))
TIMED(PHASE_PROJECTION, sq_nn_linear_back,
      (int R, int in, int out, X, int ldx, W, DY, int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dw,
       sq_real *db),
      (R, in, out, x, ldx, w, dy, ldy, dx, lddx, add_dx, dw, db))
TIMED(PHASE_PROJECTION, sq_nn_dense, (int R, int in, int out, X, int ldx, W, BI, sq_real *y, int ldy),
      (R, in, out, x, ldx, w, b, y, ldy))
TIMED(PHASE_PROJECTION, sq_nn_dense_back,
      (int R, int in, int out, X, int ldx, W, DY, int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dw,
       sq_real *db),
      (R, in, out, x, ldx, w, dy, ldy, dx, lddx, add_dx, dw, db))

TIMED(PHASE_EMBEDDING, sq_nn_onehot_dense, (int R, int in, int out, const int32_t *token, W, BI, sq_real *y),
      (R, in, out, token, w, b, y))
TIMED(PHASE_EMBEDDING, sq_nn_onehot_dense_back,
      (int R, int in, int out, const int32_t *token, DY, sq_real *dw, sq_real *db),
      (R, in, out, token, dy, dw, db))
TIMED(PHASE_EMBEDDING, sq_nn_embed,
      (const sq_rows *rows, int D, const int32_t *token, W, const sq_real *position, sq_real *y),
      (rows, D, token, w, position, y))
TIMED(PHASE_EMBEDDING, sq_nn_embed_back,
      (const sq_rows *rows, int D, const int32_t *token, DY, sq_real *dw, sq_real *dposition),
      (rows, D, token, dy, dw, dposition))

TIMED(PHASE_NORM, sq_nn_layernorm,
      (int R, int D, X, W, BI, double eps, sq_real *y, sq_real *mean, sq_real *rstd),
      (R, D, x, w, b, eps, y, mean, rstd))
TIMED(PHASE_NORM, sq_nn_layernorm_back,
      (int R, int D, X, W, const sq_real *mean, const sq_real *rstd, DY, sq_real *dx, int add_dx, sq_real *dw,
       sq_real *db),
      (R, D, x, w, mean, rstd, dy, dx, add_dx, dw, db))
TIMED(PHASE_NORM, sq_nn_batchnorm_sums, (int R, int D, X, double *sum), (R, D, x, sum))
TIMED(PHASE_NORM, sq_nn_batchnorm_moments, (int D, const double *sum, sq_real *mean, sq_real *var),
      (D, sum, mean, var))
TIMED(PHASE_NORM, sq_nn_batchnorm_rstd, (int D, const sq_real *var, double eps, sq_real *rstd),
      (D, var, eps, rstd))
TIMED(PHASE_NORM, sq_nn_batchnorm,
      (int R, int D, X, const sq_real *mean, const sq_real *rstd, W, BI, sq_real *y),
      (R, D, x, mean, rstd, w, b, y))
TIMED(PHASE_NORM, sq_nn_batchnorm_back_sums,
      (int R, int D, X, const sq_real *mean, const sq_real *rstd, DY, double *sum),
      (R, D, x, mean, rstd, dy, sum))
TIMED(PHASE_NORM, sq_nn_batchnorm_back,
      (int R, int D, X, W, const sq_real *mean, const sq_real *rstd, DY, const double *sum, double count,
       sq_real *dx, int add_dx),
      (R, D, x, w, mean, rstd, dy, sum, count, dx, add_dx))

TIMED(PHASE_CONVOLUTION, sq_nn_conv_silu,
      (const sq_rows *rows, int C, int K, X, int ldx, W, BI, sq_real *y, int ldy),
      (rows, C, K, x, ldx, w, b, y, ldy))
TIMED(PHASE_CONVOLUTION, sq_nn_conv_silu_back,
      (const sq_rows *rows, int C, int K, X, int ldx, W, BI, DY, int ldy, sq_real *dx, int lddx, sq_real *dw,
       sq_real *db),
      (rows, C, K, x, ldx, w, b, dy, ldy, dx, lddx, dw, db))

TIMED(PHASE_ELEMENTWISE, sq_nn_gelu, (size_t n, X, sq_real *y), (n, x, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_gelu_back, (size_t n, X, DY, sq_real *dx), (n, x, dy, dx))
TIMED(PHASE_ELEMENTWISE, sq_nn_gelu_tanh, (size_t n, X, sq_real *y), (n, x, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_gelu_tanh_back, (size_t n, X, DY, sq_real *dx), (n, x, dy, dx))
TIMED(PHASE_ELEMENTWISE, sq_nn_relu, (size_t n, X, sq_real *y), (n, x, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_relu_back, (size_t n, X, DY, sq_real *dx), (n, x, dy, dx))
TIMED(PHASE_ELEMENTWISE, sq_nn_silu_mul, (size_t n, const sq_real *z, sq_real *y), (n, z, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_silu_mul_back,
      (size_t n, const sq_real *y0, const sq_real *z, DY, sq_real *dy0, sq_real *dz), (n, y0, z, dy, dy0, dz))
TIMED(PHASE_ELEMENTWISE, sq_nn_gate, (size_t n, const sq_real *v, const sq_real *z, sq_real *y), (n, v, z, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_gate_back,
      (size_t n, const sq_real *v, const sq_real *z, DY, sq_real *dv, sq_real *dz), (n, v, z, dy, dv, dz))
TIMED(PHASE_ELEMENTWISE, sq_nn_glu, (int R, int D, const sq_real *a, sq_real *y), (R, D, a, y))
TIMED(PHASE_ELEMENTWISE, sq_nn_glu_back, (int R, int D, const sq_real *a, DY, sq_real *da), (R, D, a, dy, da))
TIMED(PHASE_ELEMENTWISE, sq_nn_dropout, (const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx),
      (p, rate, site, C, x, ldx))
TIMED(PHASE_ELEMENTWISE, sq_nn_dropout_columns,
      (const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx), (p, rate, site, C, x, ldx))

TIMED(PHASE_OUTPUT, sq_nn_xent,
      (int R, int V, sq_real *logits, const int32_t *label, double scale, int grad, sq_tally *tally),
      (R, V, logits, label, scale, grad, tally))
TIMED(PHASE_OUTPUT, sq_nn_xent_head,
      (int R, int D, int V, X, W, BI, const int32_t *label, double scale, sq_real *dx, sq_real *dw,
       sq_real *db, sq_real *scratch, sq_tally *tally),
      (R, D, V, x, w, b, label, scale, dx, dw, db, scratch, tally))
TIMED(PHASE_OUTPUT, sq_nn_xent_dense_head,
      (int R, int D, int V, X, W, BI, const int32_t *label, double scale, sq_real *dx, sq_real *dw,
       sq_real *db, sq_real *scratch, sq_tally *tally),
      (R, D, V, x, w, b, label, scale, dx, dw, db, scratch, tally))

TIMED(PHASE_INPUT, sq_worker_batch,
      (sq_worker * w, const sq_task *t, sq_split split, int nseq, const size_t *index, sq_padding pad,
       void *store, sq_batch *out),
      (w, t, split, nseq, index, pad, store, out))

/* Part of its phase, and counted beside. */
extern __typeof__(sq_gemm) __real_sq_gemm, __wrap_sq_gemm; /* TIMED, by hand */
void __wrap_sq_gemm(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
                    const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc)
{
  const double start = watch.on ? now_s() : 0;
  __real_sq_gemm(ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
  if (!watch.on) return;
  const double a = (double)m * k, b = (double)n * k, c = (double)m * n;
  watch.products.seconds += now_s() - start;
  watch.products.flops += 2 * c * k;
  watch.products.bytes += (a + b + (beta != 0 ? 2 : 1) * c) * (double)sizeof *C;
  ++watch.products.calls;
}

/* The only one with a value. */
extern __typeof__(sq_worker_step) __real_sq_worker_step, __wrap_sq_worker_step; /* TIMED, by hand */
double __wrap_sq_worker_step(sq_worker *w, const sq_adamw *o, double lr, double ssm_lr, long t,
                             const sq_real *g, sq_real *m, sq_real *v, sq_real *theta)
{
  enter(PHASE_OPTIMISER);
  const double norm = __real_sq_worker_step(w, o, lr, ssm_lr, t, g, m, v, theta);
  leave();
  return norm;
}
