/* src/mixer/mamba2_analysis.c: the Mamba-2 mixers as linear dynamical systems, in float64 from the tape.
 *
 *   mamba2       log lambda = dt A,             b = B, log_b = log dt
 *   mamba2-lti   log lambda = -softplus(A),     b = B', log_b = 0
 *
 * v = x and c = C, after the convolution; skip = D of the head. */
#include "mamba2.h"

#include <math.h>
#include <stdint.h>

int sq_mamba_heads(const sq_mixer *m)
{
  return m->H;
}

void sq_mamba_factor_dims(const sq_mixer *m, sq_factors *f)
{
  f->n = m->N;
  f->dv = m->hd;
  f->first = 0;
  f->exponential = 0;
}

/* log softplus(x), finite for every x: softplus itself underflows below -745. */
static double log_softplus(double x)
{
  if (x > 20) return log(x);
  return x < -37 ? x : log(log1p(exp(x))); /* log(1+e) = e to rounding for e < eps/2 */
}

/* out (T,n) = rows of x in the order perm */
static void copy_rows(int T, int n, const sq_real *x, int ldx, const int *perm, double *out)
{
  if (out == NULL) return;
  for (int i = 0; i < T; ++i) {
    const sq_real *row = x + (size_t)(perm ? perm[i] : i) * (size_t)ldx;
    for (int j = 0; j < n; ++j) *out++ = (double)row[j];
  }
}

typedef struct { /* one sequence */
  const sq_mixer *m;
  const sq_real *theta;
  mamba_tape t;
  int r0, T, ld;
  const sq_real *x;
  const int *perm;
} sequence;

static size_t row_of(const sequence *s, int i)
{
  return (size_t)(s->r0 + (s->perm ? s->perm[i] : i));
}

/* log dt of step i (in the order perm) and head h */
static double log_dt(const sequence *s, int i, int h)
{
  const sq_mixer *m = s->m;
  const sq_real *raw = s->t.proj + row_of(s, i) * (size_t)m->C + m->nconv;
  const sq_real x = raw[m->kind->shared_dt ? 0 : h] + s->theta[m->dt_bias + (size_t)h];
  return log_softplus((double)x);
}

static void fill_decays(const sequence *s, int h, sq_factors *f)
{
  const sq_mixer *m = s->m;
  const int lti = m->kind->shared_dt;
  const double rate = m->kind->rate((double)s->theta[m->decay + (size_t)h]);

  for (int i = 0; i < s->T; ++i) {
    const double l = lti ? 0 : log_dt(s, i, h);
    if (f->log_lambda) f->log_lambda[i] = lti ? -rate : -exp(l) * rate;
    if (f->log_b) f->log_b[i] = l;
    if (f->log_c) f->log_c[i] = 0;
  }
}

/* B' in place of B: dt of the group's head */
static void weigh_b(const sequence *s, double *b)
{
  const sq_mixer *m = s->m;
  const int group = m->N / m->H;
  for (int i = 0; i < s->T; ++i)
    for (int h = 0; h < m->H; ++h) {
      const double dt = exp(log_dt(s, i, h));
      for (int j = 0; j < group; ++j) *b++ *= dt;
    }
}

void sq_mamba_factors(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const void *tape, int b,
                      int h, const int *perm, sq_factors *f)
{
  sq_arena a = {.base = (unsigned char *)(uintptr_t)tape, .used = 0, .cap = SIZE_MAX};
  sequence s = {.m = m, .theta = theta, .t = sq_mamba_take_tape(m, &a), .r0 = rows->off[b], .perm = perm};
  s.T = rows->off[b + 1] - s.r0;
  s.x = sq_mamba_channels(m, s.t.proj, s.t.post, &s.ld);
  s.x += (size_t)s.r0 * (size_t)s.ld;

  sq_mamba_factor_dims(m, f);
  f->T = s.T;
  f->skip = (double)theta[m->skip + (size_t)h];
  copy_rows(s.T, m->hd, s.x + h * m->hd, s.ld, perm, f->v);
  copy_rows(s.T, m->N, s.x + m->E, s.ld, perm, f->b);
  copy_rows(s.T, m->N, s.x + m->E + m->N, s.ld, perm, f->c);
  copy_rows(s.T, m->hd, s.t.out + (size_t)s.r0 * (size_t)m->E + h * m->hd, m->E, perm, f->y);
  if (f->b && m->kind->shared_dt) weigh_b(&s, f->b);
  fill_decays(&s, h, f);
}

static SQ_CLONES double mixed_dot(int n, const double *x, const sq_real *w)
{
  double lane[8] = {0}, sum = 0;
  int j = 0;
  for (; j + 8 <= n; j += 8)
    for (int l = 0; l < 8; ++l) lane[l] += x[j + l] * (double)w[j + l];
  for (int l = 0; l < 8; ++l) sum += lane[l];
  for (; j < n; ++j) sum += x[j] * (double)w[j];
  return sum;
}

void sq_mamba_output(const sq_mixer *m, const sq_real *theta, int T, const double *heads, double *y)
{
  const int D = m->head.dims.D;
  for (int t = 0; t < T; ++t, heads += m->E)
    for (int o = 0; o < D; ++o) *y++ = mixed_dot(m->E, heads, theta + m->out_proj + (size_t)o * (size_t)m->E);
}

/* ---- protocol `published` ---------------------------------------------------------------------------- */

typedef struct {
  sq_real *raw, *dt, *e; /* (T,ndt), (T,H), (T,H) */
} published_space;

static published_space take_published(const sq_mixer *m, sq_arena *a)
{
  const size_t T = (size_t)m->head.dims.seq_len;
  return (published_space){.raw = SQ_TAKE(a, T * (size_t)m->ndt, sq_real),
                           .dt = SQ_TAKE(a, T * (size_t)m->H, sq_real),
                           .e = SQ_TAKE(a, T * (size_t)m->H, sq_real)};
}

size_t sq_mamba_published_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)take_published(m, &count);
  return count.used;
}

void sq_mamba_published(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const sq_real *x, int b,
                        double *log_lambda, void *scratch)
{
  sq_arena a = {.base = scratch, .used = 0, .cap = SIZE_MAX};
  const published_space s = take_published(m, &a);
  const int D = m->head.dims.D, H = m->H, lti = m->kind->shared_dt;
  const int r0 = rows->off[b], T = rows->off[b + 1] - r0;

  if (!lti) { /* the rows of in_proj that make dt */
    sq_nn_linear(T, D, m->ndt, x + (size_t)r0 * (size_t)D, D,
                 theta + m->in_proj + (size_t)m->nconv * (size_t)D, NULL, s.raw, m->ndt);
    sq_mamba_dt_sums(m, theta, T, s.raw, m->ndt, s.dt);
    sq_mamba_softplus((size_t)T * (size_t)H, s.dt, s.e);
  }
  for (int h = 0; h < H; ++h) {
    const double rate = m->kind->rate((double)theta[m->decay + (size_t)h]);
    for (size_t i = (size_t)h; i < (size_t)T * (size_t)H; i += (size_t)H)
      log_lambda[i] = lti ? -rate : -(double)s.dt[i] * rate;
  }
}
