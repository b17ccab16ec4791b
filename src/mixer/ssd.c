/* src/mixer/ssd.c: the chunked recurrence.
 *
 * In a chunk of n steps, with the state S (N,hd) before it, for each head:
 *
 *   decay_ij = lambda_(j+1) .. lambda_i (j <= i),   M = (C B^T) o decay,   xg = gain x
 *   y = M xg + since o (C S) + skip x ,             since_i = lambda_0 .. lambda_i
 *   S' = since_(n-1) S + B^T (until o xg) ,         until_j = lambda_(j+1) .. lambda_(n-1)
 *
 * The decays are running products of factors in 0 .. 1: nothing overflows, and no prefix sum of logarithms can
 * lose what a long or strongly decaying sequence would cost it.  C B^T, C S and B^T xg are one product for all
 * heads.
 *
 * All chunks' own parts of S' are made first, side by side, then the states from one chunk to the next, and then the
 * outputs of all chunks.
 *
 * Backward, dS' being the gradient of S'.  The states are made again and their gradients in the same way from the last
 * chunk to the first; the rest is one chunk's own:
 *
 *   dM = dy xg^T,  dG = sum over heads of dM o decay,  dC = dG B + sum (since o dy) S^T,
 *   dB = dG^T C + (until o xg) dS'^T,  dxg = M^T dy + until o (B dS'),  dS = since_(n-1) dS' + C^T (since o dy)
 *
 * log lambda_k takes part in whatever passes from a source before step k to a use at k or later.  With
 * Q_ij = dM_ij M_ij, the state before as one more source and the state after as one more use,
 *
 *   dlog lambda_k = sum over uses i >= k and sources j < k of Q_ij ,
 *
 * summed as it stands: the shorter form, suffix sums of dy.y - dxg.xg, cancels.
 *
 * Outputs that nobody wants have no rows in y, C, G, M and decay. */
#include "ssd.h"

#include <string.h>

#include "mixer_impl.h"
#include "sq/linalg.h"
#include "sq/simd.h"

/* Multiply-adds a step and head: L (N + hd) inside the chunk, 2 N hd for the state; backward keeps N E numbers a
   chunk.  Lengths of 32, 64 and 128 took the same time within the noise of the measurement (one head, D = N =
   128, T = 512; four heads, N = 64, T = 2000), so the middle one. */
int sq_ssd_chunk(int seq_len)
{
  enum { CHUNK = 64 };
  return seq_len < CHUNK ? seq_len : CHUNK;
}

static sq_ssd_lane take_lane(sq_arena *a, size_t L, size_t h, size_t E, size_t n)
{
  sq_ssd_lane w = {0};
  w.G = SQ_TAKE(a, L * L, sq_real);
  w.dG = SQ_TAKE(a, L * L, sq_real);
  w.decay = SQ_TAKE(a, L * L, sq_real);
  w.M = SQ_TAKE(a, L * L, sq_real);
  w.dM = SQ_TAKE(a, L * L, sq_real);
  w.xg = SQ_TAKE(a, L * E, sq_real);
  w.xs = SQ_TAKE(a, L * E, sq_real);
  w.dxg = SQ_TAKE(a, L * E, sq_real);
  w.yp = SQ_TAKE(a, L * E, sq_real);
  w.U = SQ_TAKE(a, L * n, sq_real);
  w.since = SQ_TAKE(a, L * h, sq_real);
  w.until = SQ_TAKE(a, L * h, sq_real);
  w.from_before = SQ_TAKE(a, L * h, sq_real);
  w.into_after = SQ_TAKE(a, L * h, sq_real);
  w.column = SQ_TAKE(a, L, sq_real);
  w.step = SQ_TAKE(a, L, int);
  w.dskip = SQ_TAKE(a, h, double);
  return w;
}

sq_ssd_work sq_ssd_take(sq_arena *a, int chunk, int T, int H, int hd, int N)
{
  const size_t h = (size_t)H, n = (size_t)N, E = h * (size_t)hd;
  const size_t states = T > chunk ? (size_t)((T - 1) / chunk) : 0;
  sq_ssd_work w = {0};
  for (int l = 0; l < sq_min(SQ_LANES, (T + chunk - 1) / chunk); ++l)
    w.lane[l] = take_lane(a, (size_t)chunk, h, E, n);
  w.S = SQ_TAKE(a, states * n * E, sq_real);
  w.dS = SQ_TAKE(a, states * n * E, sq_real);
  w.across = SQ_TAKE(a, (states + 1) * h, sq_real);
  return w;
}

double sq_ssd_flops(int chunk, int T, int H, int hd, int N, double share)
{
  const double E = (double)H * hd;
  double sum = 0;
  for (int a = 0; a < T; a += chunk) {
    const double n = T - a < chunk ? T - a : chunk;
    sum += share * n * (n + 1) * (N + E); /* lower triangles of C B^T and of M xg */
    if (a > 0) sum += share * 2 * n * N * E;
    if (a + chunk < T) sum += 2 * n * N * E;
  }
  return sum;
}

/* ---- elementwise ------------------------------------------------------------------------------------- */

/* Step of output i where `step` lists them. */
static inline int step_of(const int *step, int i)
{
  return step ? step[i] : i;
}

static void running_products(int n, int H, const sq_real *lambda, sq_real *since, sq_real *until)
{
  const size_t h = (size_t)H, last = (size_t)(n - 1) * h;
  for (size_t k = 0; k < h; ++k) {
    since[k] = lambda[k];
    until[last + k] = 1;
  }
  for (size_t k = h; k < last + h; ++k) since[k] = since[k - h] * lambda[k];
  for (size_t k = last; k-- > 0;) until[k] = until[k + h] * lambda[k + h];
}

/* y (n,E) = w o x: w (.,H), one factor for each step and head; row i of x is that of step[i] */
static SQ_CLONES void weigh(int n, int H, int hd, const int *step, const sq_real *restrict w,
                            const sq_real *restrict x, int ldx, sq_real *restrict y)
{
  for (int i = 0; i < n; ++i, x += ldx) {
    const sq_real *f = w + (size_t)step_of(step, i) * (size_t)H;
    for (int h = 0; h < H; ++h, y += hd) {
      const sq_real *from = x + h * hd;
      for (int j = 0; j < hd; ++j) y[j] = f[h] * from[j];
    }
  }
}

/* y = w o y + skip x (w NULL: skip x alone) at the steps of the outputs */
static SQ_CLONES void start_output(int n, int H, int hd, const int *step, const sq_real *restrict w,
                                   const sq_real *restrict skip, const sq_real *restrict x, int ldx,
                                   sq_real *restrict y, int ldy)
{
  for (int i = 0; i < n; ++i, y += ldy) {
    const size_t t = (size_t)step_of(step, i);
    for (int h = 0; h < H; ++h) {
      const sq_real *from = x + t * (size_t)ldx + h * hd, d = skip[h];
      sq_real *to = y + h * hd;
      if (w == NULL) {
        for (int j = 0; j < hd; ++j) to[j] = d * from[j];
      } else {
        const sq_real f = w[t * (size_t)H + (size_t)h];
        for (int j = 0; j < hd; ++j) to[j] = f * to[j] + d * from[j];
      }
    }
  }
}

/* Rows i0 .. i1-1 of y (N,E) += f x, f (H): one factor for each head */
static SQ_CLONES void carry_state(int i0, int i1, int H, int hd, const sq_real *f, const sq_real *restrict x,
                                  sq_real *restrict y)
{
  const size_t at = (size_t)i0 * (size_t)H * (size_t)hd;
  x += at;
  y += at;
  for (int i = i0; i < i1; ++i)
    for (int h = 0; h < H; ++h, x += hd, y += hd) {
      const sq_real factor = f[h];
      for (int j = 0; j < hd; ++j) y[j] += factor * x[j];
    }
}

/* decay (nq,n) below and on the diagonal, and M = G o decay, zero above it.  lambda has stride H. */
static SQ_CLONES void decay_matrices(int nq, int n, int H, const int *step, const sq_real *lambda,
                                     const sq_real *restrict G, sq_real *restrict decay, sq_real *restrict M)
{
  int known = 0; /* columns of the row above */
  for (int k = 0; k < nq; ++k) {
    const int i = step_of(step, k);
    sq_real *row = decay + (size_t)k * (size_t)n, *to = M + (size_t)k * (size_t)n;
    const sq_real *above = row - (k > 0 ? n : 0), *g = G + (size_t)k * (size_t)n;
    sq_real f = 1;
    for (int j = i; j >= known; --j) {
      row[j] = f;
      f *= lambda[(size_t)j * (size_t)H];
    }
    for (int j = 0; j < known; ++j) row[j] = f * above[j];
    for (int j = 0; j <= i; ++j) to[j] = g[j] * row[j];
    for (int j = i + 1; j < n; ++j) to[j] = 0;
    known = i + 1;
  }
}

/* dots_i = x_i . z_i for each head; x (n,E) contiguous, z with a row stride */
static SQ_CLONES void head_dots(int n, int H, int hd, const sq_real *x, const sq_real *z, int ldz,
                                sq_real *dots)
{
  for (int i = 0; i < n; ++i, z += ldz)
    for (int h = 0; h < H; ++h, x += hd) *dots++ = sq_lane_dot(hd, x, z + h * hd);
}

/* <A,B> over one head's columns of two (N,E) arrays */
static SQ_CLONES double state_dot(int N, int E, int hd, const sq_real *A, const sq_real *B)
{
  double sum = 0;
  for (int i = 0; i < N; ++i, A += E, B += E) sum += (double)sq_lane_dot(hd, A, B);
  return sum;
}

/* dC += U, and the dots of their rows with C's */
static SQ_CLONES void add_rows(int n, int N, const sq_real *restrict U, const sq_real *restrict C,
                               sq_real *restrict dC, int ldc, int add, sq_real *dots, int H)
{
  for (int i = 0; i < n; ++i, U += N, C += ldc, dC += ldc) {
    dots[(size_t)i * (size_t)H] = sq_lane_dot(N, U, C);
    if (add)
      for (int j = 0; j < N; ++j) dC[j] += U[j];
    else
      for (int j = 0; j < N; ++j) dC[j] = U[j];
  }
}

/* One head: dG += dM o decay (nq,n), and dlog lambda (n) (stride H).  column: in, what each source leaves in the state
   after; before: the state before, carried to the state after; from_before (stride H, NULL: 0): carried to the
   outputs. */
static SQ_CLONES void log_decay_gradient(int nq, int n, int H, const int *step, const sq_real *restrict G,
                                         const sq_real *restrict decay, const sq_real *restrict dM,
                                         sq_real *restrict dG, sq_real *restrict column, sq_real before,
                                         const sq_real *from_before, sq_real *dlog)
{
  for (int i = n - 1, k = nq - 1; i >= 0; --i) {
    if (k >= 0 && step_of(step, k) == i) {
      const size_t at = (size_t)k * (size_t)n;
      const sq_real *g = G + at, *d = decay + at, *m = dM + at;
      sq_real *to = dG + at;
      for (int j = 0; j <= i; ++j) {
        const sq_real e = m[j] * d[j];
        to[j] += e;
        column[j] += e * g[j];
      }
      if (from_before) before += from_before[(size_t)k * (size_t)H];
      --k;
    }
    dlog[(size_t)i * (size_t)H] = before + sq_lane_sum(i, column);
  }
}

/* ---- chunks ------------------------------------------------------------------------------------------ */

typedef struct { /* a chunk of n steps from step a on */
  int a, n, first, last, ldxg;
  int q, nq;                /* its outputs: q .. q+nq-1 */
  const int *step;          /* (nq) their steps, counted from a; NULL: all */
  const sq_real *x, *B, *C; /* C (nq,N) */
  const sq_real *lambda, *xg;
} chunk;

/* Outputs before step t. */
static int outputs_before(const sq_ssd *s, int t)
{
  int lo = 0, hi = s->n;
  if (s->step == NULL) return t;
  while (lo < hi) {
    const int mid = lo + (hi - lo) / 2;
    if (s->step[mid] < t)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* dx = gain o dxg + skip dy, dgain = dxg . x, dskip (H) += dy . x */
static SQ_CLONES void finish_inputs(const sq_ssd *s, const sq_ssd_grad *g, const chunk *c,
                                    const sq_real *restrict dxg, double *dskip)
{
  const int H = s->H, hd = s->hd, *step = c->step;
  for (int i = 0, q = 0; i < c->n; ++i) {
    const int wanted = q < c->nq && step_of(step, q) == i;
    const sq_real *dy = wanted ? g->dy + (size_t)(c->q + q++) * (size_t)g->ldy : NULL;
    for (int h = 0; h < H; ++h, dxg += hd) {
      const size_t t = (size_t)(c->a + i), at = t * (size_t)s->ldx + (size_t)(h * hd),
                   k = t * (size_t)H + (size_t)h;
      const sq_real *x = s->x + at, gain = s->gain ? s->gain[k] : 1, d = s->skip[h];
      sq_real *restrict dx = g->dx + at;
      if (s->gain) g->dgain[k] = sq_lane_dot(hd, dxg, x);
      if (dy == NULL) {
        for (int j = 0; j < hd; ++j) dx[j] = gain * dxg[j];
        continue;
      }
      dskip[h] += (double)sq_lane_dot(hd, dy + h * hd, x);
      for (int j = 0; j < hd; ++j) dx[j] = gain * dxg[j] + d * dy[h * hd + j];
    }
  }
}

static chunk chunk_at(const sq_ssd *s, int number, const sq_ssd_lane *w)
{
  const int a = number * s->chunk;
  const size_t at = (size_t)a, H = (size_t)s->H;
  chunk c = {.a = a, .n = s->T - a < s->chunk ? s->T - a : s->chunk, .first = a == 0};
  c.last = a + c.n == s->T;
  c.q = outputs_before(s, a);
  c.nq = outputs_before(s, a + c.n) - c.q;
  for (int k = 0; s->step && k < c.nq; ++k) w->step[k] = s->step[c.q + k] - a;
  c.step = s->step ? w->step : NULL;
  c.x = s->x + at * (size_t)s->ldx;
  c.B = s->B + at * (size_t)s->ldb;
  c.C = s->C + (size_t)c.q * (size_t)s->ldc;
  c.lambda = s->lambda + at * H;
  c.xg = s->gain ? w->xg : c.x;
  c.ldxg = s->gain ? s->H * s->hd : s->ldx;
  if (s->gain) weigh(c.n, s->H, s->hd, NULL, s->gain + at * H, c.x, s->ldx, w->xg);
  running_products(c.n, s->H, c.lambda, w->since, w->until);
  return c;
}

static int chunk_count(const sq_ssd *s)
{
  return (s->T + s->chunk - 1) / s->chunk;
}

/* The state in front of chunk k > 0, or its gradient. */
static sq_real *state_of(const sq_ssd *s, sq_real *S, int k)
{
  return S + (size_t)(k - 1) * (size_t)s->N * (size_t)(s->H * s->hd);
}

typedef struct {
  const sq_ssd *s;
  const sq_ssd_work *w;
  const sq_ssd_grad *g; /* NULL: forward */
  sq_real *y;
  int ldy;
} pass;

/* What chunk k leaves in the state behind it by itself. */
static void own_state(const pass *p, int k, const chunk *c, const sq_ssd_lane *w)
{
  const sq_ssd *s = p->s;
  const int E = s->H * s->hd;
  memcpy(p->w->across + (size_t)k * (size_t)s->H, w->since + (size_t)(c->n - 1) * (size_t)s->H,
         (size_t)s->H * sizeof *w->since);
  if (c->last) return;
  weigh(c->n, s->H, s->hd, NULL, w->until, c->xg, c->ldxg, w->xs);
  sq_gemm(SQ_T, SQ_N, s->N, E, c->n, 1, c->B, s->ldb, w->xs, E, 0, state_of(s, p->w->S, k + 1), E);
}

/* What its outputs ask of the state in front of it. */
static void own_gradient(const pass *p, int k, const chunk *c, const sq_ssd_lane *w)
{
  const sq_ssd *s = p->s;
  const int E = s->H * s->hd;
  if (c->first) return;
  weigh(c->nq, s->H, s->hd, c->step, w->since, p->g->dy + (size_t)c->q * (size_t)p->g->ldy, p->g->ldy, w->yp);
  sq_gemm(SQ_T, SQ_N, s->N, E, c->nq, 1, c->C, s->ldc, w->yp, E, 0, state_of(s, p->w->dS, k), E);
}

static void own_lane(void *ctx, int lane)
{
  const pass *p = ctx;
  const sq_ssd_lane *w = &p->w->lane[lane];
  for (int k = lane; k < chunk_count(p->s); k += SQ_LANES) {
    const chunk c = chunk_at(p->s, k, w);
    own_state(p, k, &c, w);
    if (p->g != NULL) own_gradient(p, k, &c, w);
  }
}

/* From chunk to chunk, a lane's rows of the states. */
static void carry_lane(void *ctx, int lane)
{
  const pass *p = ctx;
  const sq_ssd *s = p->s;
  const int i0 = s->N * lane / SQ_LANES, i1 = s->N * (lane + 1) / SQ_LANES, n = chunk_count(s);
  for (int k = 1; k + 1 < n; ++k)
    carry_state(i0, i1, s->H, s->hd, p->w->across + (size_t)k * (size_t)s->H, state_of(s, p->w->S, k),
                state_of(s, p->w->S, k + 1));
  for (int k = n - 2; p->g != NULL && k >= 1; --k)
    carry_state(i0, i1, s->H, s->hd, p->w->across + (size_t)k * (size_t)s->H, state_of(s, p->w->dS, k + 1),
                state_of(s, p->w->dS, k));
}

static void make_states(pass *p)
{
  if (chunk_count(p->s) < 2) return;
  sq_parallel_blocks(sq_min(SQ_LANES, chunk_count(p->s)), own_lane, p);
  if (chunk_count(p->s) > 2) sq_parallel_blocks(SQ_LANES, carry_lane, p);
}

static void output_chunk(const pass *p, int k, const sq_ssd_lane *w)
{
  const sq_ssd *s = p->s;
  const chunk c = chunk_at(s, k, w);
  const int E = s->H * s->hd, N = s->N, n = c.n, nq = c.nq, *step = c.step;
  sq_real *y = p->y + (size_t)c.q * (size_t)p->ldy;
  sq_gemm(SQ_N, SQ_T, nq, n, N, 1, c.C, s->ldc, c.B, s->ldb, 0, w->G, n);
  if (!c.first) sq_gemm(SQ_N, SQ_N, nq, E, N, 1, c.C, s->ldc, state_of(s, p->w->S, k), E, 0, y, p->ldy);
  start_output(nq, s->H, s->hd, step, c.first ? NULL : w->since, s->skip, c.x, s->ldx, y, p->ldy);
  for (int h = 0; h < s->H; ++h) {
    decay_matrices(nq, n, s->H, step, c.lambda + h, w->G, w->decay, w->M);
    sq_gemm(SQ_N, SQ_N, nq, s->hd, n, 1, w->M, n, c.xg + h * s->hd, c.ldxg, 1, y + h * s->hd, p->ldy);
  }
}

static void output_lane(void *ctx, int lane)
{
  const pass *p = ctx;
  for (int k = lane; k < chunk_count(p->s); k += SQ_LANES) output_chunk(p, k, &p->w->lane[lane]);
}

void sq_ssd_forward(const sq_ssd *s, sq_real *y, int ldy, const sq_ssd_work *w)
{
  pass p = {.s = s, .w = w, .y = y, .ldy = ldy};
  make_states(&p);
  sq_parallel_blocks(sq_min(SQ_LANES, chunk_count(s)), output_lane, &p);
}

/* What head h takes from the state S before the chunk: dC, and from_before. */
static void back_from_state(const sq_ssd *s, const chunk *c, int h, const sq_real *S, sq_real *dC,
                            const sq_ssd_lane *w)
{
  const int E = s->H * s->hd;
  sq_gemm(SQ_N, SQ_T, c->nq, s->N, s->hd, 1, w->yp + h * s->hd, E, S + h * s->hd, E, 0, w->U, s->N);
  add_rows(c->nq, s->N, w->U, c->C, dC, s->ldc, h > 0, w->from_before + h, s->H);
}

static void back_head(const pass *p, const chunk *c, int k, int h, const sq_ssd_lane *w)
{
  const sq_ssd *s = p->s;
  const sq_ssd_grad *g = p->g;
  const int E = s->H * s->hd, n = c->n, nq = c->nq, at = h * s->hd, *step = c->step;
  const sq_real *dy = g->dy + (size_t)c->q * (size_t)g->ldy + at;
  const sq_real *S = c->first ? NULL : state_of(s, p->w->S, k);
  double before = 0;

  decay_matrices(nq, n, s->H, step, c->lambda + h, w->G, w->decay, w->M);
  sq_gemm(SQ_N, SQ_T, nq, n, s->hd, 1, dy, g->ldy, c->xg + at, c->ldxg, 0, w->dM, n);
  sq_gemm(SQ_T, SQ_N, n, s->hd, nq, 1, w->M, n, dy, g->ldy, c->last ? 0 : 1, w->dxg + at, E);
  if (!c->first) back_from_state(s, c, h, S, g->dC + (size_t)c->q * (size_t)s->ldc, w);
  if (!c->first && !c->last)
    before = (double)w->since[(size_t)(n - 1) * (size_t)s->H + (size_t)h] *
             state_dot(s->N, E, s->hd, state_of(s, p->w->dS, k + 1) + at, S + at);
  for (int j = 0; j < n; ++j)
    w->column[j] = c->last ? 0 : w->into_after[(size_t)j * (size_t)s->H + (size_t)h];
  log_decay_gradient(nq, n, s->H, step, w->G, w->decay, w->dM, w->dG, w->column, (sq_real)before,
                     c->first ? NULL : w->from_before + h, g->dlog_lambda + (size_t)c->a * (size_t)s->H + h);
}

static void back_chunk(const pass *p, int k, const sq_ssd_lane *w)
{
  const sq_ssd *s = p->s;
  const sq_ssd_grad *g = p->g;
  const int E = s->H * s->hd, N = s->N;
  const chunk c = chunk_at(s, k, w);
  const int n = c.n, nq = c.nq;
  const sq_real *dS = c.last ? NULL : state_of(s, p->w->dS, k + 1);
  sq_real *dB = g->dB + (size_t)c.a * (size_t)s->ldb, *dC = g->dC + (size_t)c.q * (size_t)s->ldc;

  sq_gemm(SQ_N, SQ_T, nq, n, N, 1, c.C, s->ldc, c.B, s->ldb, 0, w->G, n);
  memset(w->dG, 0, (size_t)nq * (size_t)n * sizeof *w->dG);
  if (!c.last) {
    sq_gemm(SQ_N, SQ_N, n, E, N, 1, c.B, s->ldb, dS, E, 0, w->xs, E);
    weigh(n, s->H, s->hd, NULL, w->until, w->xs, E, w->dxg);
    head_dots(n, s->H, s->hd, w->dxg, c.xg, c.ldxg, w->into_after);
  }
  if (!c.first) weigh(nq, s->H, s->hd, c.step, w->since, g->dy + (size_t)c.q * (size_t)g->ldy, g->ldy, w->yp);
  for (int h = 0; h < s->H; ++h) back_head(p, &c, k, h, w);
  sq_gemm(SQ_N, SQ_N, nq, N, n, 1, w->dG, n, c.B, s->ldb, c.first ? 0 : 1, dC, s->ldc);
  sq_gemm(SQ_T, SQ_N, n, N, nq, 1, w->dG, n, c.C, s->ldc, 0, dB, s->ldb);
  if (!c.last) {
    weigh(n, s->H, s->hd, NULL, w->until, c.xg, c.ldxg, w->xs);
    sq_gemm(SQ_N, SQ_T, n, N, E, 1, w->xs, E, dS, E, 1, dB, s->ldb);
  }
  finish_inputs(s, g, &c, w->dxg, w->dskip);
}

static void back_lane(void *ctx, int lane)
{
  const pass *p = ctx;
  const sq_ssd_lane *w = &p->w->lane[lane];
  for (int h = 0; h < p->s->H; ++h) w->dskip[h] = 0;
  for (int k = lane; k < chunk_count(p->s); k += SQ_LANES) back_chunk(p, k, w);
}

void sq_ssd_backward(const sq_ssd *s, const sq_ssd_grad *g, const sq_ssd_work *w)
{
  const int nlane = sq_min(SQ_LANES, chunk_count(s));
  pass p = {.s = s, .w = w, .g = g};
  make_states(&p);
  sq_parallel_blocks(nlane, back_lane, &p);
  for (int l = 0; l < nlane; ++l)
    for (int h = 0; h < s->H; ++h) g->dskip[h] += w->lane[l].dskip[h];
}
