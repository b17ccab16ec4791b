/* src/train/optim.c: AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with global-norm clipping, as torch
 * writes it.
 *
 *   g     <- g min(1, clip / (|g| + 1e-6))                      |g| over all parameters
 *   m     <- beta1 m + (1 - beta1) g
 *   v     <- beta2 v + (1 - beta2) g^2
 *   theta <- theta (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * One pass reads the gradient for its norm, one does everything else: at 2 million parameters the step is
 * memory traffic. */
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

double sq_adamw_step(const sq_adamw *o, const sq_param_list *params, int decay_all, double lr, long t,
                     const sq_real *g, sq_real *m, sq_real *v, sq_real *theta)
{
  SQ_ASSERT(t >= 1);
  double squares = 0;
  for (int p = 0; p < params->n; ++p) squares += sum_of_squares(params->v[p].count, g + params->v[p].offset);
  const double norm = sqrt(squares);
  if (!isfinite(norm)) return norm;

  const double bias1 = 1 - pow(o->beta1, (double)t), bias2 = 1 - pow(o->beta2, (double)t);
  const double clip = o->clip > 0 ? fmin(1.0, o->clip / (norm + NORM_TINY)) : 1.0;
  coefficients k = {
      .clip = (sq_real)clip,
      .beta1 = (sq_real)o->beta1,
      .beta2 = (sq_real)o->beta2,
      .one_minus_beta1 = (sq_real)(1 - o->beta1),
      .one_minus_beta2 = (sq_real)(1 - o->beta2),
      .rate = (sq_real)(lr / bias1),
      .rsqrt_bias2 = (sq_real)(1 / sqrt(bias2)),
      .eps = (sq_real)o->eps,
  };
  for (int p = 0; p < params->n; ++p) {
    const sq_param *q = &params->v[p];
    const int decays = decay_all || !(q->flags & SQ_PARAM_NO_DECAY);
    k.keep = (sq_real)(decays ? 1 - lr * o->weight_decay : 1.0);
    update(q->count, k, g + q->offset, m + q->offset, v + q->offset, theta + q->offset);
  }
  return norm;
}
