/* src/mixer/softmax.c: causal softmax attention.
 *
 *   S_ij = s q_i.k_j, s = 1/sqrt(dh);  P_ij = exp(S_ij - lse_i), j <= i;  o_i = sum_j mask_ij P_ij v_j
 *
 * By strips of rows: a strip needs scores up to its diagonal only, and no more than (strip x T) numbers exist
 * at a time. Backward recomputes P from lse:  dP = mask (do_i.v_j),  dS = P (dP - delta_i),  delta_i =
 * do_i.o_i. */
#include <math.h>
#include <string.h>

#include "attention.h"

/* Wider strips compute more of what lies above the diagonal, narrower ones read K and V more often.  Measured
   with the Haswell kernels (forward + backward, 32/64/128/256 rows): T=512, dh=128 11.2/11.2/11.9/12.7 ms,
   T=2048 57/57/55/57 ms. */
static int strip_rows(const sq_mixer *m)
{
  const int T = m->head.dims.seq_len, best = T <= 1024 ? 64 : 128;
  return T < best ? T : best;
}

static void softmax_work(const sq_mixer *m, sq_arena *a, sq_attention_work *w)
{
  const size_t T = (size_t)m->head.dims.seq_len, L = (size_t)strip_rows(m);
  w->s = SQ_TAKE(a, L * T, sq_real);
  w->ds = SQ_TAKE(a, L * T, sq_real);
  w->row = SQ_TAKE(a, T, sq_real);
  w->sum = SQ_TAKE(a, L, sq_real);
}

static double softmax_flops(const sq_mixer *m, int T, double share)
{
  return share * (double)T * (T + 1) * (m->dh + m->dv);
}

typedef struct {
  int a, n, e;     /* queries a .. a+n-1, keys 0 .. e-1 */
  const int *step; /* (n) of the queries; NULL: e-n .. e-1 */
} strip;

static int past(const strip *s, int r) /* keys that query r sees */
{
  return (s->step ? s->step[r] : s->e - s->n + r) + 1;
}

/* The strip whose last query is hi-1.  Queries far apart leave much of a strip above the diagonal; each strip
   reads, and BLAS packs, all of its keys and values.  A strip is as long as the rows' worth of the first stays
   below that of the second. */
static strip strip_before(const sq_mixer *m, const sq_attention_view *x, int hi)
{
  enum { READING = 16 }; /* rows that cost as much as reading the keys once */
  const int L = strip_rows(m), e = sq_attention_step(x, hi - 1) + 1;
  int a = hi - 1;
  if (x->step == NULL)
    a = a / L * L;
  else
    for (long waste = 0; a > 0 && hi - a < L; --a) {
      waste += e - 1 - x->step[a - 1];
      if (waste > (long)READING * e) break;
    }
  return (strip){.a = a, .n = hi - a, .e = e, .step = x->step ? x->step + a : NULL};
}

/* Subtracts the maximum of each row of the strip S (n,e) over the past, sets the future to -inf. */
static SQ_CLONES void shift_by_maximum(const strip *s, sq_real *S, sq_real *maximum)
{
  const int e = s->e;
  for (int r = 0; r < s->n; ++r, S += e) {
    const int len = past(s, r);
    sq_real lane[16], top = S[0];
    for (int l = 0; l < 16; ++l) lane[l] = S[0];
    int j = 0;
    for (; j + 16 <= len; j += 16)
      for (int l = 0; l < 16; ++l) lane[l] = S[j + l] > lane[l] ? S[j + l] : lane[l];
    for (int l = 0; l < 16; ++l) top = lane[l] > top ? lane[l] : top;
    for (; j < len; ++j) top = S[j] > top ? S[j] : top;
    for (j = 0; j < len; ++j) S[j] -= top;
    for (; j < e; ++j) S[j] = -(sq_real)INFINITY;
    maximum[r] = top;
  }
}

static SQ_CLONES void row_sums(int n, int e, const sq_real *S, sq_real *sum)
{
  for (int r = 0; r < n; ++r) sum[r] = sq_lane_sum(e, S + (size_t)r * (size_t)e);
}

static SQ_CLONES void shift_by_lse(const strip *s, sq_real *S, const sq_real *lse, int stride)
{
  const int e = s->e;
  for (int r = 0; r < s->n; ++r, S += e) {
    const int len = past(s, r);
    const sq_real x = lse[(size_t)r * (size_t)stride];
    for (int j = 0; j < len; ++j) S[j] -= x;
    for (int j = len; j < e; ++j) S[j] = -(sq_real)INFINITY;
  }
}

static SQ_CLONES void divide_rows(int n, int dv, const sq_real *sum, sq_real *out, int ldo)
{
  for (int r = 0; r < n; ++r, out += ldo) {
    const sq_real f = 1 / sum[r];
    for (int j = 0; j < dv; ++j) out[j] *= f;
  }
}

static SQ_CLONES void multiply(int n, const sq_real *restrict mask, sq_real *restrict x)
{
  for (int j = 0; j < n; ++j) x[j] *= mask[j];
}

static SQ_CLONES void score_gradient(int n, const sq_real *restrict P, sq_real delta, sq_real *restrict dP)
{
  for (int j = 0; j < n; ++j) dP[j] = P[j] * (dP[j] - delta);
}

static int drops_weights(const sq_mixer *m, const sq_pass *p)
{
  return p->train && m->att_dropout > 0;
}

/* Mask of row i of a head: (sequence, head) takes the place of the sequence, so that heads differ. */
static void mask_row(const sq_mixer *m, const sq_pass *p, int b, int h, int i, sq_real *mask)
{
  sq_nn_dropout_row(p, m->att_dropout, m->head.dims.site, p->rows->id[b] * m->H + h, i, i + 1, mask);
}

static void softmax_forward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                            const sq_attention_work *w)
{
  for (int hi = x->n; hi > 0;) {
    const strip c = strip_before(m, x, hi);
    const int a = c.a, n = c.n, e = c.e;
    sq_real *maximum = w->ds; /* free in this pass */
    sq_gemm(SQ_N, SQ_T, n, e, m->dh, m->scale, x->q + (size_t)a * (size_t)x->ldqk, x->ldqk, x->k, x->ldqk, 0,
            w->s, e);
    shift_by_maximum(&c, w->s, maximum);
    sq_nn_exp((size_t)n * (size_t)e, w->s, w->s);
    row_sums(n, e, w->s, w->sum);
    for (int r = 0; r < n; ++r)
      x->stat[(size_t)(a + r) * (size_t)x->H] = maximum[r] + (sq_real)log((double)w->sum[r]);
    for (int r = 0; drops_weights(m, p) && r < n; ++r) {
      mask_row(m, p, b, h, past(&c, r) - 1, w->row);
      multiply(past(&c, r), w->row, w->s + (size_t)r * (size_t)e);
    }
    sq_real *out = x->out + (size_t)a * (size_t)x->ldo;
    sq_gemm(SQ_N, SQ_N, n, m->dv, e, 1, w->s, e, x->v, x->ldv, 0, out, x->ldo);
    divide_rows(n, m->dv, w->sum, out, x->ldo);
    hi = a;
  }
}

/* s becomes mask P, ds becomes dS, for the queries of a strip */
static void gradient_of_scores(const sq_mixer *m, const sq_pass *p, int b, int h, const strip *c,
                               const sq_real *delta, int H, const sq_attention_work *w)
{
  const int e = c->e;
  for (int r = 0; r < c->n; ++r) {
    sq_real *P = w->s + (size_t)r * (size_t)e, *dP = w->ds + (size_t)r * (size_t)e;
    const sq_real d = delta[(size_t)(c->a + r) * (size_t)H];
    if (drops_weights(m, p)) {
      mask_row(m, p, b, h, past(c, r) - 1, w->row);
      multiply(past(c, r), w->row, dP);
    }
    score_gradient(e, P, d, dP);
    if (drops_weights(m, p)) multiply(past(c, r), w->row, P);
  }
}

static void zero_rows(int first, int T, int n, sq_real *x, int ld)
{
  for (int t = first; t < T; ++t) memset(x + (size_t)t * (size_t)ld, 0, (size_t)n * sizeof *x);
}

/* From the last strip, which covers all keys that are seen, so that it can overwrite dk and dv and the others
 * add. */
static void softmax_backward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                             const sq_attention_grad *g, const sq_attention_work *w)
{
  const int dh = m->dh, dv = m->dv, seen = x->n > 0 ? sq_attention_step(x, x->n - 1) + 1 : 0;
  zero_rows(seen, x->T, dh, g->dk, x->ldqk);
  zero_rows(seen, x->T, dv, g->dv, x->ldv);
  for (int hi = x->n; hi > 0;) {
    const strip c = strip_before(m, x, hi);
    const int a = c.a, n = c.n, e = c.e;
    const sq_real *q = x->q + (size_t)a * (size_t)x->ldqk, *dout = g->dout + (size_t)a * (size_t)x->ldo;
    const sq_real beta = hi < x->n;
    sq_gemm(SQ_N, SQ_T, n, e, dh, m->scale, q, x->ldqk, x->k, x->ldqk, 0, w->s, e);
    shift_by_lse(&c, w->s, x->stat + (size_t)a * (size_t)x->H, x->H);
    sq_nn_exp((size_t)n * (size_t)e, w->s, w->s);
    sq_gemm(SQ_N, SQ_T, n, e, dv, 1, dout, x->ldo, x->v, x->ldv, 0, w->ds, e);
    gradient_of_scores(m, p, b, h, &c, g->delta, x->H, w);
    sq_gemm(SQ_T, SQ_N, e, dv, n, 1, w->s, e, dout, x->ldo, beta, g->dv, x->ldv);
    sq_gemm(SQ_T, SQ_N, e, dh, n, m->scale, w->ds, e, q, x->ldqk, beta, g->dk, x->ldqk);
    sq_gemm(SQ_N, SQ_N, n, dh, e, m->scale, w->ds, e, x->k, x->ldqk, 0, g->dq + (size_t)a * (size_t)x->ldqk,
            x->ldqk);
    hi = a;
  }
}

/* ---- analysis ---------------------------------------------------------------------------------------- */

enum { BLOCK = 64 };

/* score[j] = s q.k in float64 for keys j0 .. j0+n-1 */
static SQ_CLONES void scores64(int n, int dh, double scale, const sq_real *q, const sq_real *k, int ldk,
                               const int *row, double *score)
{
  for (int j = 0; j < n; ++j) {
    const sq_real *kj = k + (size_t)row[j] * (size_t)ldk;
    double lane[8] = {0}, sum = 0;
    int d = 0;
    for (; d + 8 <= dh; d += 8)
      for (int l = 0; l < 8; ++l) lane[l] += (double)q[d + l] * (double)kj[d + l];
    for (int l = 0; l < 8; ++l) sum += lane[l];
    for (; d < dh; ++d) sum += (double)q[d] * (double)kj[d];
    score[j] = scale * sum;
  }
}

/* Running log-sum-exp: sum_(seen) exp(score) = sum exp(top) */
static double log_sum(const sq_mixer *m, const sq_attention_view *x, const sq_real *q, int count,
                      const int *perm)
{
  double top = -INFINITY, sum = 0, score[BLOCK];
  int row[BLOCK];
  for (int j0 = 0; j0 < count; j0 += BLOCK) {
    const int n = count - j0 < BLOCK ? count - j0 : BLOCK;
    for (int j = 0; j < n; ++j) row[j] = perm ? perm[j0 + j] : j0 + j;
    scores64(n, m->dh, (double)m->scale, q, x->k, x->ldqk, row, score);
    double higher = top;
    for (int j = 0; j < n; ++j) higher = score[j] > higher ? score[j] : higher;
    sum *= exp(top - higher);
    for (int j = 0; j < n; ++j) sum += exp(score[j] - higher);
    top = higher;
  }
  return top + log(sum);
}

static void softmax_log_eta(const sq_mixer *m, const sq_real *theta, const sq_attention_tape *t,
                            const sq_attention_view *x, int r0, int h, const int *perm, double *log_eta)
{
  (void)theta, (void)t, (void)r0, (void)h;
  for (int i = 0; i < x->T; ++i)
    log_eta[i] = log_sum(m, x, x->q + (size_t)(perm ? perm[i] : i) * (size_t)x->ldqk, i + 1, perm);
}

/* log nu_i + m_i: masked scores are 0, so the maximum sees a 0 wherever a later step exists, and each later
   step adds exp(0) to nu even though the maximum was subtracted. */
static double published_log_nu(int i, int T, const sq_real *s)
{
  sq_real top = s[0];
  double nu = T - 1 - i;
  for (int j = 1; j <= i; ++j) top = s[j] > top ? s[j] : top;
  if (i < T - 1 && top < 0) top = 0;
  for (int j = 0; j <= i; ++j) {
    const double e = exp((double)(s[j] - top));
    nu += isnan(e) ? 0 : e; /* nan_to_num */
  }
  return log(nu) + (double)top;
}

static void softmax_published(const sq_mixer *m, const sq_real *theta, int T, sq_real *proj,
                              const sq_attention_work *w, double *log_nu)
{
  const int L = strip_rows(m);
  (void)theta;
  for (int h = 0; h < m->H; ++h)
    for (int a = 0; a < T; a += L) {
      const int n = T - a < L ? T - a : L, e = a + n;
      const sq_real *q = proj + m->q_at + h * m->dh;
      sq_gemm(SQ_N, SQ_T, n, e, m->dh, 1, q + (size_t)a * (size_t)m->C, m->C, q + m->dqk, m->C, 0, w->s, e);
      for (int r = 0; r < n; ++r)
        log_nu[(size_t)(a + r) * (size_t)m->H + (size_t)h] =
            published_log_nu(a + r, T, w->s + (size_t)r * (size_t)e);
    }
}

const sq_attention_core sq_core_softmax = {.weight_dropout = 1,
                                           .exponential = 1,
                                           .work = softmax_work,
                                           .flops = softmax_flops,
                                           .forward = softmax_forward,
                                           .backward = softmax_backward,
                                           .log_eta = softmax_log_eta,
                                           .published = softmax_published};

static sq_status softmax_create(const sq_config *c, sq_mixer_dims d, sq_mixer **m)
{
  const sq_status st = sq_attention_create(c, d, &sq_mixer_softmax, &sq_core_softmax, m);
  if (st == SQ_OK) (*m)->scale = (sq_real)(1 / sqrt((*m)->dh));
  return st;
}

const sq_mixer_ops sq_mixer_softmax = {.name = "sm-attention",
                                       .backbone = "transformer",
                                       .keys = &sq_attention_keys,
                                       .create = softmax_create,
                                       .init = sq_attention_init,
                                       SQ_ATTENTION_OPS};
