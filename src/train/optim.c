/* src/train/optim.c: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with global-norm clipping, as torch
 * writes it.
 *
 *   g     <- g min(1, clip / (|g| + 1e-6))                      |g| over all parameters
 *   m     <- beta1 m + (1 - beta1) g
 *   v     <- beta2 v + (1 - beta2) g^2
 *   theta <- theta (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * optax writes the same step without clipping: p -= lr (mhat/(sqrt(vhat) + eps) + wd p).
 *
 * One pass reads the gradient for its norm, one does everything else: at 2 million parameters the step is
 * memory traffic. */
#include <limits.h>
#include <math.h>

#include "sq/simd.h"
#include "train_impl.h"

#define LANES     16 /* accumulators side by side: fixed, so that the sum does not depend on the vector width */
#define NORM_TINY 1e-6 /* torch.nn.utils.clip_grad_norm_ */

SQ_CLONES
static double sum_of_squares(size_t n, const sq_real *restrict x)
{
  double acc[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (int l = 0; l < LANES; ++l) acc[l] += (double)x[i + (size_t)l] * (double)x[i + (size_t)l];
  }
  for (int l = 0; i < n; ++i, ++l) acc[l] += (double)x[i] * (double)x[i];
  for (int half = LANES / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) acc[l] += acc[l + half];
  }
  return acc[0];
}

typedef struct {
  sq_real clip, beta1, beta2, one_minus_beta1, one_minus_beta2, keep, rate, rsqrt_bias2, eps;
} coefficients;

#ifdef SQ_DOUBLE
#define ROOT(x) sqrt(x)
#else
#define ROOT(x) sqrtf(x)
#endif

SQ_CLONES
static void update(size_t n, coefficients k, const sq_real *restrict g, sq_real *restrict m,
                   sq_real *restrict v, sq_real *restrict theta)
{
  for (size_t i = 0; i < n; ++i) {
    const sq_real gi = k.clip * g[i];
    const sq_real mi = k.beta1 * m[i] + k.one_minus_beta1 * gi;
    const sq_real vi = k.beta2 * v[i] + k.one_minus_beta2 * (gi * gi);
    m[i] = mi;
    v[i] = vi;
    theta[i] = k.keep * theta[i] - k.rate * mi / (ROOT(vi) * k.rsqrt_bias2 + k.eps);
  }
}

/* Complex numbers (re, im side by side): the second moment is that of |g|^2, in both places of v.  sign -1: g is
   used as JAX gives it, dL/dre - i dL/dim. */
static void update_complex(size_t n, coefficients k, sq_real sign, const sq_real *restrict g,
                           sq_real *restrict m, sq_real *restrict v, sq_real *restrict theta)
{
  for (size_t i = 0; i + 1 < n; i += 2) {
    const sq_real re = k.clip * g[i], im = sign * k.clip * g[i + 1];
    const sq_real vi = k.beta2 * v[i] + k.one_minus_beta2 * (re * re + im * im);
    const sq_real step = k.rate / (ROOT(vi) * k.rsqrt_bias2 + k.eps);
    m[i] = k.beta1 * m[i] + k.one_minus_beta1 * re;
    m[i + 1] = k.beta1 * m[i + 1] + k.one_minus_beta1 * im;
    v[i] = v[i + 1] = vi;
    theta[i] = k.keep * theta[i] - step * m[i];
    theta[i + 1] = k.keep * theta[i + 1] - step * m[i + 1];
  }
}

/* Running statistics: flax's momentum. */
static void update_buffer(size_t n, const sq_real *restrict value, sq_real *restrict r)
{
  for (size_t i = 0; i < n; ++i) r[i] = (sq_real)0.99 * r[i] + (sq_real)0.01 * value[i];
}

static int in_ssm_group(const sq_adamw *o, const sq_param *q)
{
  return (o->rule == SQ_RULE_CORRECTED && (q->flags & SQ_PARAM_SSM)) ||
         (o->rule == SQ_RULE_JAX && (q->flags & SQ_PARAM_SSM_PUBLISHED));
}

static int has_decay(const sq_adamw *o, const sq_param *q)
{
  if (in_ssm_group(o, q)) return 0;
  return o->rule != SQ_RULE_CORRECTED || !(q->flags & SQ_PARAM_NO_DECAY);
}

/* ---- blocks ------------------------------------------------------------------------------------------ */

/* Block i of tensor p; 0 if it has none. */
static int block_of(const sq_param_list *l, int p, size_t i, sq_optim_block *b)
{
  const size_t at = i * SQ_OPTIM_BLOCK, count = l->v[p].count;
  if (at >= count) return 0;
  *b = (sq_optim_block){p, l->v[p].offset + at, count - at < SQ_OPTIM_BLOCK ? count - at : SQ_OPTIM_BLOCK};
  return 1;
}

int sq_optim_nblock(const sq_param_list *l)
{
  size_t n = 0;
  for (int p = 0; p < l->n; ++p) n += (l->v[p].count + SQ_OPTIM_BLOCK - 1) / SQ_OPTIM_BLOCK;
  SQ_ASSERT(n <= INT_MAX);
  return (int)n;
}

void sq_optim_blocks(const sq_param_list *l, sq_optim_block *b)
{
  for (int p = 0; p < l->n; ++p)
    for (size_t i = 0; block_of(l, p, i, b); ++i) ++b;
}

double sq_optim_squares(const sq_param_list *l, const sq_optim_block *b, const sq_real *g)
{
  return l->v[b->tensor].flags & SQ_PARAM_BUFFER ? 0 : sum_of_squares(b->count, g + b->first);
}

sq_optim_step sq_optim_begin(const sq_adamw *o, const sq_param_list *l, double lr, double ssm_lr, long t,
                             double norm)
{
  return (sq_optim_step){.o = o,
                         .params = l,
                         .lr = lr,
                         .ssm_lr = ssm_lr,
                         .clip = o->clip > 0 ? fmin(1.0, o->clip / (norm + NORM_TINY)) : 1.0,
                         .bias1 = 1 - pow(o->beta1, (double)t),
                         .bias2 = 1 - pow(o->beta2, (double)t)};
}

void sq_optim_update(const sq_optim_step *s, const sq_optim_block *b, const sq_real *g, sq_real *m,
                     sq_real *v, sq_real *theta)
{
  const sq_adamw *o = s->o;
  const sq_param *q = &s->params->v[b->tensor];
  const size_t at = b->first;
  const double rate = in_ssm_group(o, q) ? s->ssm_lr : s->lr;

  if (q->flags & SQ_PARAM_BUFFER) {
    update_buffer(b->count, g + at, theta + at);
    return;
  }
  const coefficients k = {
      .clip = (sq_real)s->clip,
      .beta1 = (sq_real)o->beta1,
      .beta2 = (sq_real)o->beta2,
      .one_minus_beta1 = (sq_real)(1 - o->beta1),
      .one_minus_beta2 = (sq_real)(1 - o->beta2),
      .rsqrt_bias2 = (sq_real)(1 / sqrt(s->bias2)),
      .eps = (sq_real)o->eps,
      .rate = (sq_real)(rate / s->bias1),
      .keep = (sq_real)(has_decay(o, q) ? 1 - rate * o->weight_decay : 1.0),
  };
  if ((q->flags & SQ_PARAM_COMPLEX) && o->complex_rule != SQ_COMPLEX_SPLIT)
    update_complex(b->count, k, o->complex_rule == SQ_COMPLEX_LITERAL ? -1 : 1, g + at, m + at, v + at,
                   theta + at);
  else
    update(b->count, k, g + at, m + at, v + at, theta + at);
}

double sq_adamw_step(const sq_adamw *o, const sq_param_list *params, double lr, double ssm_lr, long t,
                     const sq_real *g, sq_real *m, sq_real *v, sq_real *theta)
{
  SQ_ASSERT(t >= 1);
  sq_optim_block b;
  double squares = 0;
  for (int p = 0; p < params->n; ++p)
    for (size_t i = 0; block_of(params, p, i, &b); ++i) squares += sq_optim_squares(params, &b, g);
  const double norm = sqrt(squares);
  if (!isfinite(norm)) return norm;
  const sq_optim_step s = sq_optim_begin(o, params, lr, ssm_lr, t, norm);
  for (int p = 0; p < params->n; ++p)
    for (size_t i = 0; block_of(params, p, i, &b); ++i) sq_optim_update(&s, &b, g, m, v, theta);
  return norm;
}
