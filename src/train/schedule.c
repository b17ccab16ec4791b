/* src/train/schedule.c: learning rates as pure functions of the step (or epoch), and the plateau rule. */
#include <math.h>

#include "train_impl.h"

/* From `from` at i = 0 down to `to` at i = n; stays there. */
static double cosine(double from, double to, long i, long n)
{
  const double pi = 3.14159265358979323846;
  if (n <= 0 || i >= n) return to;
  return to + (from - to) * 0.5 * (1 + cos(pi * (double)i / (double)n));
}

static double rate_torch(const sq_schedule *s, long n)
{
  /* Without a warm-up the published loop never steps its scheduler. */
  if (s->warmup <= 0) return s->lr;
  return cosine(s->lr, s->lr_min, n, s->total) * fmin(1.0, (double)(n + 1) / (double)s->warmup);
}

/* The rate is set after training step k and used from step k+1; the cosine's counter also runs during the
 * warm-up. */
static double rate_jax(const sq_schedule *s, long n)
{
  if (n == 0) return s->lr;
  const long k = n - 1;
  if (k < s->warmup) return s->lr * (double)(k + 1) / (double)s->warmup;
  return cosine(s->lr, s->lr_min, k, s->total - s->warmup);
}

static double rate_corrected(const sq_schedule *s, long n)
{
  if (n < s->warmup) return s->lr * (double)(n + 1) / (double)s->warmup;
  if (!s->cosine) return s->lr;
  return cosine(s->lr, s->lr_min, n - s->warmup, s->total - s->warmup);
}

double sq_schedule_rate(const sq_schedule *s, long n)
{
  switch (s->kind) {
  case SQ_SCHEDULE_CONSTANT: return s->lr;
  case SQ_SCHEDULE_TORCH: return rate_torch(s, n);
  case SQ_SCHEDULE_JAX: return rate_jax(s, n);
  case SQ_SCHEDULE_CORRECTED: return rate_corrected(s, n);
  }
  SQ_ASSERT(!"a schedule kind");
  return s->lr;
}

double sq_plateau_update(sq_plateau *p, double metric)
{
  if (!p->started || metric > p->best) {
    p->started = 1;
    p->best = metric;
    p->bad = 0;
    return 1;
  }
  if (++p->bad <= p->patience) return 1;
  p->bad = 0;
  return p->factor;
}
