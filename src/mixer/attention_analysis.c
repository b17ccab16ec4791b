/* src/mixer/attention_analysis.c: the attention mixers as linear dynamical systems, in float64 from the tape.
 *
 *   lambda_i = eta_(i-1)/eta_i,  B_i = b_i/eta_i,  C_i = c_i,  with eta the normaliser, b = s k, c = q
 *   M_ij = (eta_j/eta_i) kappa(c_i, b_j)/eta_j = kappa(c_i, b_j)/eta_i,   kappa = exp(c.b) for softmax, else
 * c.b */
#include <math.h>
#include <stdint.h>

#include "attention.h"

int sq_attention_heads(const sq_mixer *m)
{
  return m->H;
}

void sq_attention_factor_dims(const sq_mixer *m, sq_factors *f)
{
  f->n = m->dh;
  f->dv = m->dv;
  f->first = 1;
  f->exponential = m->core->exponential;
}

/* out (T,n) = scale x, rows of x in the order perm */
static void copy_rows(int T, int n, double scale, const sq_real *x, int ldx, const int *perm, double *out)
{
  if (out == NULL) return;
  for (int i = 0; i < T; ++i) {
    const sq_real *row = x + (size_t)(perm ? perm[i] : i) * (size_t)ldx;
    for (int j = 0; j < n; ++j) out[(size_t)i * (size_t)n + (size_t)j] = scale * (double)row[j];
  }
}

/* x_0 .. x_(T-1) at the given stride becomes 0 (or `first`), x_0 - x_1, x_1 - x_2, ... */
static void backward_differences(int T, size_t stride, double first, double *x)
{
  for (int i = T - 1; i > 0; --i) x[(size_t)i * stride] = x[(size_t)(i - 1) * stride] - x[(size_t)i * stride];
  if (T > 0) x[0] = first;
}

void sq_attention_factors(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const void *tape,
                          int b, int h, const int *perm, sq_factors *f)
{
  sq_arena a = {.base = (unsigned char *)tape, .used = 0, .cap = SIZE_MAX};
  const sq_attention_tape t = sq_attention_take_tape(m, &a); /* read only */
  const int r0 = rows->off[b], T = rows->off[b + 1] - r0;
  const sq_attention_view x = sq_attention_head_view(m, &t, r0, T, h);
  double *log_eta = f->log_b ? f->log_b : f->log_lambda;

  sq_attention_factor_dims(m, f);
  f->T = T;
  copy_rows(T, m->dh, 1, x.q, x.ldqk, perm, f->c);
  copy_rows(T, m->dh, (double)m->scale, x.k, x.ldqk, perm, f->b);
  copy_rows(T, m->dv, 1, x.v, x.ldv, perm, f->v);
  copy_rows(T, m->dv, 1, x.out, x.ldo, perm, f->y);
  for (int i = 0; f->log_c && i < T; ++i) f->log_c[i] = 0;
  if (log_eta == NULL) return;
  m->core->log_eta(m, theta, &t, &x, r0, h, perm, log_eta);
  if (f->log_lambda) {
    for (int i = 0; i < T; ++i) f->log_lambda[i] = log_eta[i];
    backward_differences(T, 1, 0, f->log_lambda);
  }
  for (int i = 0; f->log_b && i < T; ++i) f->log_b[i] = -f->log_b[i];
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

void sq_attention_output(const sq_mixer *m, const sq_real *theta, int T, const double *heads, double *y)
{
  const int D = m->head.dims.D;
  for (int t = 0; t < T; ++t)
    for (int o = 0; o < D; ++o)
      y[(size_t)t * (size_t)D + (size_t)o] =
          (double)theta[m->out_bias + (size_t)o] +
          mixed_dot(D, heads + (size_t)t * (size_t)D, theta + m->out + (size_t)o * (size_t)D);
}

/* ---- protocol `published` ---------------------------------------------------------------------------- */

static sq_real *take_published(const sq_mixer *m, sq_arena *a, sq_attention_work *w)
{
  m->core->work(m, a, w);
  return SQ_TAKE(a, (size_t)m->head.dims.seq_len * (size_t)m->C, sq_real);
}

size_t sq_attention_published_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  sq_attention_work w = {0};
  (void)take_published(m, &count, &w);
  return count.used;
}

void sq_attention_published(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const sq_real *x,
                            int b, double *log_lambda, void *scratch)
{
  sq_arena a = {.base = scratch, .used = 0, .cap = SIZE_MAX};
  sq_attention_work w = {0};
  sq_real *proj = take_published(m, &a, &w);
  const int D = m->head.dims.D, r0 = rows->off[b], T = rows->off[b + 1] - r0;
  sq_nn_linear(T, D, m->C, x + (size_t)r0 * (size_t)D, D, theta + m->W, theta + m->W_bias, proj, m->C);
  sq_mixer plain = *m; /* without a convolution every channel is the projection's own */
  plain.K = plain.nconv = 0;
  plain.core->published(&plain, theta, T, proj, &w, log_lambda);
  for (int h = 0; h < m->H; ++h) backward_differences(T, (size_t)m->H, NAN, log_lambda + h);
}
