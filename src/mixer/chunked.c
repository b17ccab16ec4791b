/* src/mixer/chunked.c: causal attention without softmax, in chunks of L steps.
 *
 *   acc_i = sum_(j<=i) P_ij v_j,  P_ij = s q_i.k_j,   out_i = stat_i acc_i
 *
 * In a chunk that starts at step a: acc_i = sum_(a<=j<=i) P_ij v_j + s q_i S,  S = sum_(j<a) k_j v_j^T
 * (dh,dv). With `normalise`, eta_i = sum_(j<=i) P_ij in the same way with z = sum_(j<a) k_j, and stat_i =
 * 1/eta_i.
 *
 * Backward, with dacc_i = stat_i dout_i (given so) and deta_i = -stat_i dout_i.out_i:
 *   dP_ij = dacc_i.v_j + deta_i,   dq_i = s sum_(j<=i) dP_ij k_j,   dk_j = s sum_(i>=j) dP_ij q_i,   dv_j =
 * sum_(i>=j) P_ij dacc_i. One sweep up carries S and z (for dq), one down carries dS = sum_(i>=e) q_i
 * dacc_i^T and dz = sum_(i>=e) deta_i q_i. */
#include "attention.h"

/* Multiply-adds a row: L (dh+dv) inside the chunk, 2 dh dv for the state.  Small chunks cost less arithmetic
   and more calls on smaller matrices.  Measured with the Haswell kernels (linear, forward + backward,
   32/64/128/256 rows): T=512, dh=dv=128 8.4/8.8/9.3/15.6 ms; T=1024, dh=16, dv=128 45/46/47/51 ms.  64 costs
   at most 5 % there and halves the calls. */
int sq_chunk_rows(const sq_mixer *m)
{
  const int T = m->head.dims.seq_len;
  return T <= 128 ? T : 64;
}

void sq_chunked_work(const sq_mixer *m, sq_arena *a, sq_attention_work *w)
{
  const size_t L = (size_t)sq_chunk_rows(m), dh = (size_t)m->dh, dv = (size_t)m->dv;
  w->s = SQ_TAKE(a, L * L, sq_real);
  w->ds = SQ_TAKE(a, L * L, sq_real);
  w->S = SQ_TAKE(a, dh * dv, sq_real);
  w->dS = SQ_TAKE(a, dh * dv, sq_real);
  w->z = SQ_TAKE(a, dh, sq_real);
  w->dz = SQ_TAKE(a, dh, sq_real);
  w->row = SQ_TAKE(a, 2 * (size_t)m->dqk, sq_real);
}

double sq_chunked_flops(const sq_mixer *m, int T, double share)
{
  const int L = sq_chunk_rows(m);
  double sum = 0;
  for (int a = 0; a < T; a += L) {
    const double n = T - a < L ? T - a : L;
    sum += share * n * (n + 1) * (m->dh + m->dv); /* lower triangles of P and of P v */
    if (a > 0) sum += share * 2 * n * m->dh * m->dv;
    if (a + L < T) sum += 2 * n * m->dh * m->dv;
  }
  return sum;
}

typedef struct {   /* steps a .. a+n-1 */
  int a, n, q, nq; /* its queries: q .. q+nq-1 */
  const int *step; /* (nq) theirs; NULL: a, a+1, ... */
} chunk;

/* Queries before step t. */
static int queries_before(const sq_attention_view *x, int t)
{
  int lo = 0, hi = x->n;
  if (x->step == NULL) return t < hi ? t : hi;
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    if (x->step[mid] < t)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static chunk chunk_at(const sq_mixer *m, const sq_attention_view *x, int a)
{
  const int L = sq_chunk_rows(m);
  chunk c = {.a = a, .n = x->T - a < L ? x->T - a : L, .q = queries_before(x, a)};
  c.nq = queries_before(x, a + c.n) - c.q;
  c.step = x->step ? x->step + c.q : NULL;
  return c;
}

/* Keys of the chunk that its query i sees. */
static int past(const chunk *c, int i)
{
  return (c->step ? c->step[i] - c->a : i) + 1;
}

/* Zeroes what lies above the diagonal of P (nq,n); adds `add[i * stride]` to what does not (add NULL:
 * nothing). */
static SQ_CLONES void keep_lower(const chunk *c, sq_real *P, const sq_real *add, int stride)
{
  for (int i = 0; i < c->nq; ++i) {
    sq_real *row = P + (size_t)i * (size_t)c->n;
    const sq_real x = add ? add[(size_t)i * (size_t)stride] : 0;
    const int len = past(c, i);
    if (add)
      for (int j = 0; j < len; ++j) row[j] += x;
    for (int j = len; j < c->n; ++j) row[j] = 0;
  }
}

/* stat_i = 1/(row sum of P + s q_i.z) */
static SQ_CLONES void inverse_normaliser(const chunk *c, const sq_real *P, int dh, sq_real scale,
                                         const sq_real *q, int ldq, const sq_real *z /* NULL: 0 */,
                                         sq_real *stat, int stride)
{
  for (int i = 0; i < c->nq; ++i) {
    sq_real eta = sq_lane_sum(past(c, i), P + (size_t)i * (size_t)c->n);
    if (z) eta += scale * sq_lane_dot(dh, q + (size_t)i * (size_t)ldq, z);
    stat[(size_t)i * (size_t)stride] = 1 / eta;
  }
}

static SQ_CLONES void scale_rows(int n, int dv, const sq_real *stat, int stride, sq_real *out, int ldo)
{
  for (int i = 0; i < n; ++i) {
    const sq_real f = stat[(size_t)i * (size_t)stride];
    sq_real *row = out + (size_t)i * (size_t)ldo;
    for (int j = 0; j < dv; ++j) row[j] *= f;
  }
}

/* z = (start ? 0 : z) + sum of w_i x_i over n rows (w NULL: ones) */
static SQ_CLONES void add_rows(int n, int dh, const sq_real *restrict x, int ldx, const sq_real *w,
                               int stride, int start, sq_real *restrict z)
{
  if (start)
    for (int j = 0; j < dh; ++j) z[j] = 0;
  for (int i = 0; i < n; ++i) {
    const sq_real f = w ? w[(size_t)i * (size_t)stride] : 1;
    const sq_real *row = x + (size_t)i * (size_t)ldx;
    for (int j = 0; j < dh; ++j) z[j] += f * row[j];
  }
}

/* x_i += s w_i z over n rows (w NULL: ones) */
static SQ_CLONES void add_outer(int n, int dh, sq_real scale, const sq_real *w, int stride,
                                const sq_real *restrict z, sq_real *restrict x, int ldx)
{
  for (int i = 0; i < n; ++i) {
    const sq_real f = scale * (w ? w[(size_t)i * (size_t)stride] : 1);
    sq_real *row = x + (size_t)i * (size_t)ldx;
    for (int j = 0; j < dh; ++j) row[j] += f * z[j];
  }
}

void sq_chunked_forward(const sq_mixer *m, int normalise, const sq_attention_view *x,
                        const sq_attention_work *w)
{
  const int dh = m->dh, dv = m->dv, H = x->H;
  for (int a = 0, n; a < x->T; a += n) {
    const chunk c = chunk_at(m, x, a);
    const sq_real *q = x->q + (size_t)c.q * (size_t)x->ldqk, *k = x->k + (size_t)a * (size_t)x->ldqk;
    const sq_real *v = x->v + (size_t)a * (size_t)x->ldv;
    sq_real *out = x->out + (size_t)c.q * (size_t)x->ldo, *stat = x->stat + (size_t)c.q * (size_t)H;
    n = c.n;
    sq_gemm(SQ_N, SQ_T, c.nq, n, dh, m->scale, q, x->ldqk, k, x->ldqk, 0, w->s, n);
    keep_lower(&c, w->s, NULL, 0);
    sq_gemm(SQ_N, SQ_N, c.nq, dv, n, 1, w->s, n, v, x->ldv, 0, out, x->ldo);
    if (a > 0) sq_gemm(SQ_N, SQ_N, c.nq, dv, dh, m->scale, q, x->ldqk, w->S, dv, 1, out, x->ldo);
    if (normalise) inverse_normaliser(&c, w->s, dh, m->scale, q, x->ldqk, a > 0 ? w->z : NULL, stat, H);
    scale_rows(c.nq, dv, stat, H, out, x->ldo);
    if (a + n == x->T) break;
    sq_gemm(SQ_T, SQ_N, dh, dv, n, 1, k, x->ldqk, v, x->ldv, a > 0, w->S, dv);
    if (normalise) add_rows(n, dh, k, x->ldqk, NULL, 0, a == 0, w->z);
  }
}

/* All of dq; dk and dv from within the chunk. */
static void sweep_up(const sq_mixer *m, int normalise, const sq_attention_view *x, const sq_attention_grad *g,
                     const sq_attention_work *w, const sq_real *deta)
{
  const int dh = m->dh, dv = m->dv, H = x->H;
  for (int a = 0, n; a < x->T; a += n) {
    const chunk c = chunk_at(m, x, a);
    const size_t at = (size_t)a * (size_t)x->ldqk, vt = (size_t)a * (size_t)x->ldv;
    const sq_real *q = x->q + (size_t)c.q * (size_t)x->ldqk, *k = x->k + at, *v = x->v + vt,
                  *dacc = g->dout + (size_t)c.q * (size_t)x->ldo;
    const sq_real *de = normalise ? deta + (size_t)c.q * (size_t)H : NULL;
    sq_real *dq = g->dq + (size_t)c.q * (size_t)x->ldqk;
    n = c.n;
    sq_gemm(SQ_N, SQ_T, c.nq, n, dh, m->scale, q, x->ldqk, k, x->ldqk, 0, w->s, n);
    keep_lower(&c, w->s, NULL, 0);
    sq_gemm(SQ_N, SQ_T, c.nq, n, dv, 1, dacc, x->ldo, v, x->ldv, 0, w->ds, n);
    keep_lower(&c, w->ds, de, H);
    sq_gemm(SQ_T, SQ_N, n, dv, c.nq, 1, w->s, n, dacc, x->ldo, 0, g->dv + vt, x->ldv);
    sq_gemm(SQ_N, SQ_N, c.nq, dh, n, m->scale, w->ds, n, k, x->ldqk, 0, dq, x->ldqk);
    sq_gemm(SQ_T, SQ_N, n, dh, c.nq, m->scale, w->ds, n, q, x->ldqk, 0, g->dk + at, x->ldqk);
    if (a > 0) {
      sq_gemm(SQ_N, SQ_T, c.nq, dh, dv, m->scale, dacc, x->ldo, w->S, dv, 1, dq, x->ldqk);
      if (normalise) add_outer(c.nq, dh, m->scale, de, H, w->z, dq, x->ldqk);
    }
    if (a + n == x->T) break;
    sq_gemm(SQ_T, SQ_N, dh, dv, n, 1, k, x->ldqk, v, x->ldv, a > 0, w->S, dv);
    if (normalise) add_rows(n, dh, k, x->ldqk, NULL, 0, a == 0, w->z);
  }
}

/* What later chunks add to dk and dv. */
static void sweep_down(const sq_mixer *m, int normalise, const sq_attention_view *x,
                       const sq_attention_grad *g, const sq_attention_work *w, const sq_real *deta)
{
  const int dh = m->dh, dv = m->dv, L = sq_chunk_rows(m), last = (x->T - 1) / L * L;
  for (int a = last; a >= 0; a -= L) {
    const chunk c = chunk_at(m, x, a);
    const int n = c.n;
    const size_t at = (size_t)a * (size_t)x->ldqk, vt = (size_t)a * (size_t)x->ldv;
    const sq_real *q = x->q + (size_t)c.q * (size_t)x->ldqk, *k = x->k + at, *v = x->v + vt,
                  *dacc = g->dout + (size_t)c.q * (size_t)x->ldo;
    if (a < last) {
      sq_gemm(SQ_N, SQ_T, n, dh, dv, m->scale, v, x->ldv, w->dS, dv, 1, g->dk + at, x->ldqk);
      sq_gemm(SQ_N, SQ_N, n, dv, dh, m->scale, k, x->ldqk, w->dS, dv, 1, g->dv + vt, x->ldv);
      if (normalise) add_outer(n, dh, m->scale, NULL, 0, w->dz, g->dk + at, x->ldqk);
    }
    if (a == 0) break;
    sq_gemm(SQ_T, SQ_N, dh, dv, c.nq, 1, q, x->ldqk, dacc, x->ldo, a < last, w->dS, dv);
    if (normalise) add_rows(c.nq, dh, q, x->ldqk, deta + (size_t)c.q * (size_t)x->H, x->H, a == last, w->dz);
  }
}

static void delta_to_deta(int n, int H, const sq_real *stat, sq_real *delta)
{
  for (int i = 0; i < n; ++i) delta[(size_t)i * (size_t)H] *= -stat[(size_t)i * (size_t)H];
}

void sq_chunked_backward(const sq_mixer *m, int normalise, const sq_attention_view *x,
                         const sq_attention_grad *g, const sq_attention_work *w)
{
  if (x->T == 0) return;
  if (normalise) delta_to_deta(x->n, x->H, x->stat, g->delta);
  sweep_up(m, normalise, x, g, w, g->delta);
  sweep_down(m, normalise, x, g, w, g->delta);
}
