/* src/mixer/linear.c: causal linear attention, phi(x) = ELU(x) + 1, no scale and no epsilon.
 *
 *   eta_i = sum_(j<=i) phi(q_i).phi(k_j),   o_i = sum_(j<=i) (phi(q_i).phi(k_j)) v_j / eta_i
 *
 * The projected q and k are replaced by phi of them: phi' = min(phi, 1) needs nothing else. */
#include <math.h>

#include "attention.h"

#define PUBLISHED_FLOOR 2e-23 /* what the published analysis puts in place of a zero normaliser */

static void linear_prepare(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                           sq_real *row)
{
  (void)theta;
  sq_attention_phi(m, R, Q, t->proj, t->post, row);
}

static void linear_finish(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                          const sq_real *delta, sq_real *dproj, sq_real *dpost, sq_real *dtheta)
{
  (void)theta, (void)delta, (void)dtheta;
  sq_attention_phi_back(m, R, Q, t, dproj, dpost);
}

static void linear_forward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                           const sq_attention_work *w)
{
  (void)p, (void)b, (void)h;
  sq_chunked_forward(m, 1, x, w);
}

static void linear_backward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                            const sq_attention_grad *g, const sq_attention_work *w)
{
  (void)p, (void)b, (void)h;
  sq_chunked_backward(m, 1, x, g, w);
}

/* eta_i = sum_d phi(q_id) sum_(j<=i) phi(k_jd), one d at a time: no array of dh sums is needed.  All terms
 * are positive. */
static void linear_log_eta(const sq_mixer *m, const sq_real *theta, const sq_attention_tape *t,
                           const sq_attention_view *x, int r0, int h, const int *perm, double *log_eta)
{
  (void)theta, (void)t, (void)r0, (void)h;
  for (int i = 0; i < x->T; ++i) log_eta[i] = 0;
  for (int d = 0; d < m->dh; ++d) {
    double z = 0;
    for (int i = 0; i < x->T; ++i) {
      const size_t at = (size_t)(perm ? perm[i] : i) * (size_t)x->ldqk + (size_t)d;
      z += (double)x->k[at];
      log_eta[i] += (double)x->q[at] * z;
    }
  }
  for (int i = 0; i < x->T; ++i) log_eta[i] = log(log_eta[i]);
}

/* The published code adds 1 to ELU in its working precision: phi below eps/2 becomes 0, which is what makes
 * normalisers zero. */
static void round_as_published(const sq_mixer *m, int T, sq_real *proj)
{
  for (int i = 0; i < T; ++i)
    for (int c = m->q_at; c < m->q_at + 2 * m->dqk; ++c) {
      sq_real *x = proj + (size_t)i * (size_t)m->C + c;
      const sq_real elu = *x - 1;
      if (*x < 1) *x = elu + 1;
    }
}

/* Scores in the working precision, their sum in float64. */
static void linear_published(const sq_mixer *m, const sq_real *theta, int T, sq_real *proj,
                             const sq_attention_work *w, double *log_nu)
{
  const int L = sq_chunk_rows(m);
  const size_t H = (size_t)m->H, C = (size_t)m->C;
  (void)theta;
  sq_attention_phi(m, T, T, proj, proj, w->row);
  round_as_published(m, T, proj);
  for (size_t i = 0; i < (size_t)T * H; ++i) log_nu[i] = 0;
  for (int h = 0; h < m->H; ++h) {
    const sq_real *q = proj + m->q_at + h * m->dh, *k = q + m->dqk;
    for (int a = 0; a < T; a += L)
      for (int c = 0; c <= a; c += L) {
        const int n = T - a < L ? T - a : L, e = T - c < L ? T - c : L;
        sq_gemm(SQ_N, SQ_T, n, e, m->dh, 1, q + (size_t)a * C, m->C, k + (size_t)c * C, m->C, 0, w->s, e);
        for (int r = 0; r < n; ++r)
          for (int j = 0; j < e && c + j <= a + r; ++j)
            log_nu[(size_t)(a + r) * H + (size_t)h] += (double)w->s[(size_t)r * (size_t)e + (size_t)j];
      }
  }
  for (size_t i = 0; i < (size_t)T * H; ++i) log_nu[i] = log(log_nu[i] == 0 ? PUBLISHED_FLOOR : log_nu[i]);
}

const sq_attention_core sq_core_linear = {.work = sq_chunked_work,
                                          .flops = sq_chunked_flops,
                                          .prepare = linear_prepare,
                                          .finish = linear_finish,
                                          .forward = linear_forward,
                                          .backward = linear_backward,
                                          .log_eta = linear_log_eta,
                                          .published = linear_published};

static sq_status linear_create(const sq_config *c, sq_mixer_dims d, sq_mixer **m)
{
  return sq_attention_create(c, d, &sq_mixer_linear, &sq_core_linear, m);
}

/* No keys beyond those of the family. */
static const sq_keyset linear_keys = {"model.attention_fn=lin-attention", NULL, 0, NULL};

const sq_mixer_ops sq_mixer_linear = {.name = "lin-attention",
                                      .backbone = "transformer",
                                      .keys = &linear_keys,
                                      .create = linear_create,
                                      .init = sq_attention_init,
                                      SQ_ATTENTION_OPS};
