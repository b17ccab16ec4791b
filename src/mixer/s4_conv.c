/* src/mixer/s4_conv.c: causal convolution of each channel with its kernel, forward and backward.
 *
 * Two ways: by definition, T^2/2 multiply-adds, vectorised over a slice of channels; or by Fourier transforms padded
 * to n >= 2T-1, so that nothing wraps around into the T steps that are kept.  Sequences as long as the kernel, or
 * nearly, use the spectra of the kernel in `derived`; for others there is a ladder of lengths, and the kernel's spectrum is
 * made for each slice. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "s4.h"

/* ---- which way ------------------------------------------------------------------------------------------ */

/* Time per channel of both ways, in units of one multiply-add of the direct way.  Measured with AVX-512, one core: in both
   precisions they meet near T = 300; the direct way is half as fast with AVX2. */
static double direct_cost(double T)
{
  return T * T / 2 + 8 * T;
}

static double transform_cost(double n)
{
  return 6 * n * log2(n) + 24 * n;
}

static int padded_length(int T)
{
  return 2 * T - 1;
}

static int direct_is_cheaper(int T, int n)
{
  return direct_cost(T) <= transform_cost(n);
}

int sq_s4_choose(const sq_mixer *m, int T)
{
  if (m->nplan == 0) return -1;
  int i = 0;
  while (i < m->nplan - 1 && sq_fft_length(m->plan[i]) < padded_length(T)) ++i;
  return direct_is_cheaper(T, sq_fft_length(m->plan[i])) ? -1 : i;
}

static sq_status add_plan(sq_mixer *m, int n)
{
  SQ_ASSERT(m->nplan < SQ_S4_PLANS);
  const sq_status st = sq_fft_create(n, &m->plan[m->nplan]);
  if (st == SQ_OK) ++m->nplan;
  return st;
}

/* A ladder of good lengths: padding costs a quarter at most.  Lengths near the full one are left out: there the spectra that
   are already known win. */
sq_status sq_s4_conv_create(sq_mixer *m)
{
  const int full = sq_fft_good_length(padded_length(m->L));
  sq_status st = SQ_OK;
  m->longest_direct = m->L;
  if (direct_is_cheaper(m->L, full)) return SQ_OK;
  for (int n = 2; n < 0.8 * full; n = sq_fft_good_length(n + 1))
    if (!direct_is_cheaper((n + 1) / 2, n)) SQ_TRY(add_plan(m, n));
  SQ_TRY(add_plan(m, full));
  while (m->longest_direct > 0 && sq_s4_choose(m, m->longest_direct) >= 0) --m->longest_direct;
done:
  return st;
}

double sq_s4_conv_flops(const sq_mixer *m, int T)
{
  const int i = sq_s4_choose(m, T);
  if (i < 0) return m->head.dims.D * (double)T * (T + 3);
  const double n = sq_fft_length(m->plan[i]);
  return m->head.dims.D * (2 * 2.5 * n * log2(n) + 3 * n + 2.0 * T);
}

/* ---- slices ------------------------------------------------------------------------------------------- */

/* Blocks of 16 steps: what is read and what is written both stay in the cache. */
void sq_s4_to_rows(int T, int nc, const sq_real *x, size_t ldx, sq_real *row, size_t ldr)
{
  for (int t0 = 0; t0 < T; t0 += 16) {
    const int nt = T - t0 < 16 ? T - t0 : 16;
    for (int c = 0; c < nc; ++c)
      for (int t = 0; t < nt; ++t)
        row[(size_t)c * ldr + (size_t)(t0 + t)] = x[(size_t)(t0 + t) * ldx + (size_t)c];
  }
}

void sq_s4_from_rows(int T, int nc, const sq_real *row, size_t ldr, sq_real *x, size_t ldx)
{
  for (int t0 = 0; t0 < T; t0 += 16) {
    const int nt = T - t0 < 16 ? T - t0 : 16;
    for (int t = 0; t < nt; ++t)
      for (int c = 0; c < nc; ++c)
        x[(size_t)(t0 + t) * ldx + (size_t)c] = row[(size_t)c * ldr + (size_t)(t0 + t)];
  }
}

/* Steps of a slice side by side: 3 rows of zeros, T rows, zeros up to a multiple of 4; unused channels are zero. */
enum { FRONT = 3, TILE = 4 };

static size_t packed_rows(int T)
{
  return (size_t)(T + TILE - 1) / TILE * TILE + FRONT;
}

/* reverse: the last step first. */
static void pack(int T, int nc, const sq_real *x, size_t ldx, int reverse, sq_real *packed)
{
  memset(packed, 0, packed_rows(T) * SQ_S4_SLICE * sizeof *packed);
  for (int t = 0; t < T; ++t) {
    const sq_real *from = x + (size_t)(reverse ? T - 1 - t : t) * ldx;
    sq_real *to = packed + (size_t)(t + FRONT) * SQ_S4_SLICE;
    for (int c = 0; c < nc; ++c) to[c] = from[c];
  }
}

static void unpack(int T, int nc, const sq_real *packed, int reverse, int add, sq_real *x, size_t ldx)
{
  for (int t = 0; t < T; ++t) {
    const sq_real *from = packed + (size_t)t * SQ_S4_SLICE;
    sq_real *to = x + (size_t)(reverse ? T - 1 - t : t) * ldx;
    for (int c = 0; c < nc; ++c) to[c] = add ? to[c] + from[c] : from[c];
  }
}

/* y_t = sum_(s<=t) a_(t-s) b_s for t < T; a and b packed, y (multiple of TILE, SLICE) without rows in front.  The zeros in
   front of a stand for the steps s > t of a tile. */
static SQ_CLONES void convolve_packed(int T, const sq_real *restrict a, const sq_real *restrict b,
                                      sq_real *restrict y)
{
  const sq_real *first = b + FRONT * SQ_S4_SLICE;
  for (int t0 = 0; t0 < T; t0 += TILE) {
    sq_real y0[SQ_S4_SLICE] = {0}, y1[SQ_S4_SLICE] = {0}, y2[SQ_S4_SLICE] = {0}, y3[SQ_S4_SLICE] = {0};
    for (int s = 0; s < t0 + TILE; ++s) {
      const sq_real *k = a + (size_t)(t0 - s + FRONT) * SQ_S4_SLICE, *x = first + (size_t)s * SQ_S4_SLICE;
      for (int c = 0; c < SQ_S4_SLICE; ++c) {
        y0[c] += k[c] * x[c];
        y1[c] += k[c + SQ_S4_SLICE] * x[c];
        y2[c] += k[c + 2 * SQ_S4_SLICE] * x[c];
        y3[c] += k[c + 3 * SQ_S4_SLICE] * x[c];
      }
    }
    sq_real *out = y + (size_t)t0 * SQ_S4_SLICE;
    for (int c = 0; c < SQ_S4_SLICE; ++c) {
      out[c] = y0[c];
      out[c + SQ_S4_SLICE] = y1[c];
      out[c + 2 * SQ_S4_SLICE] = y2[c];
      out[c + 3 * SQ_S4_SLICE] = y3[c];
    }
  }
}

/* y += skip * u, channel by channel. */
static SQ_CLONES void add_skip(int T, int nc, const sq_real *restrict skip, const sq_real *restrict u,
                               sq_real *restrict y, size_t D)
{
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < nc; ++c) y[(size_t)t * D + (size_t)c] += skip[c] * u[(size_t)t * D + (size_t)c];
}

static SQ_CLONES void skip_gradient(int T, int nc, const sq_real *restrict dy, const sq_real *restrict u,
                                    size_t D, sq_real *restrict dskip)
{
  sq_real sum[SQ_S4_SLICE] = {0};
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < nc; ++c) sum[c] += dy[(size_t)t * D + (size_t)c] * u[(size_t)t * D + (size_t)c];
  for (int c = 0; c < nc; ++c) dskip[c] += sum[c];
}

/* ---- spectra -------------------------------------------------------------------------------------------- */

/* x = scale k x */
static SQ_CLONES void multiply(size_t n, sq_real scale, const sq_real *restrict k, sq_real *restrict x)
{
  for (size_t i = 0; i < n; ++i) {
    const sq_real kr = scale * k[2 * i], ki = scale * k[2 * i + 1], xr = x[2 * i], xi = x[2 * i + 1];
    x[2 * i] = kr * xr - ki * xi;
    x[2 * i + 1] = kr * xi + ki * xr;
  }
}

/* dk += 2 scale conj(u) g (gradient of the kernel's spectrum), then g = scale conj(k) g. */
static SQ_CLONES void multiply_back(size_t n, sq_real scale, const sq_real *restrict k,
                                    const sq_real *restrict u, sq_real *restrict g, sq_real *restrict dk)
{
  for (size_t i = 0; i < n; ++i) {
    const sq_real gr = scale * g[2 * i], gi = scale * g[2 * i + 1];
    dk[2 * i] += 2 * (u[2 * i] * gr + u[2 * i + 1] * gi);
    dk[2 * i + 1] += 2 * (u[2 * i] * gi - u[2 * i + 1] * gr);
    g[2 * i] = k[2 * i] * gr + k[2 * i + 1] * gi;
    g[2 * i + 1] = k[2 * i] * gi - k[2 * i + 1] * gr;
  }
}

/* ---- one slice of channels -------------------------------------------------------------------------------- */

typedef struct {
  size_t ld;       /* rows of u, g, k, dk: room for the longest transform */
  sq_real *u, *g;  /* (SLICE, ld) */
  sq_real *k, *dk; /* (SLICE, ld) spectra of plan `made` and their gradient, unless it is the full one */
  sq_real *U, *G;  /* (ld) one channel's spectra */
  sq_real *pk, *pu, *pg, *out; /* packed: kernel, u, dy reversed; result */
} work;

typedef struct { /* what stays the same for one slice */
  const sq_mixer *m;
  const work *w;
  int d0, nc;
  const sq_real *skip;
  const sq_real *K, *spectra; /* of the slice in `derived`; rows of K are nc apart */
  sq_real *dK, *dspectra;     /* NULL in forward passes */
  int made;                   /* plan that w->k holds spectra of; -1: none */
} slice;

static work take_work(const sq_mixer *m, sq_arena *a)
{
  work w = {0};
  if (m->nplan > 0) {
    w.ld = sq_s4_stride(sq_fft_length(sq_s4_full(m)));
    w.u = SQ_TAKE(a, SQ_S4_SLICE * w.ld, sq_real);
    w.g = SQ_TAKE(a, SQ_S4_SLICE * w.ld, sq_real);
    w.U = SQ_TAKE(a, w.ld, sq_real);
    w.G = SQ_TAKE(a, w.ld, sq_real);
  }
  if (m->nplan > 1) {
    w.k = SQ_TAKE(a, SQ_S4_SLICE * w.ld, sq_real);
    w.dk = SQ_TAKE(a, SQ_S4_SLICE * w.ld, sq_real);
  }
  const size_t packed = packed_rows(m->longest_direct) * SQ_S4_SLICE;
  w.pk = SQ_TAKE(a, packed, sq_real);
  w.pu = SQ_TAKE(a, packed, sq_real);
  w.pg = SQ_TAKE(a, packed, sq_real);
  w.out = SQ_TAKE(a, packed, sq_real);
  return w;
}

static size_t lane_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)take_work(m, &count);
  return count.used;
}

size_t sq_s4_conv_scratch(const sq_mixer *m)
{
  return (size_t)sq_s4_nlane(m) * lane_bytes(m);
}

static int kernel_steps(const sq_mixer *m, const sq_fft *f)
{
  const int half = (sq_fft_length(f) + 1) / 2;
  return half < m->L ? half : m->L;
}

static void rows_to_spectrum(const sq_fft *f, int T, sq_real *row, sq_real *X)
{
  memset(row + T, 0, (size_t)(sq_fft_length(f) - T) * sizeof *row);
  sq_fft_forward(f, row, X);
}

/* Adds the gradient of the spectra w->dk to that of the kernel: dL/dK_j = sum_k Re(dL/dX_k e^(2 pi i jk/n)). */
static void flush(slice *s)
{
  if (s->made < 0 || s->dK == NULL) return;
  const sq_fft *f = s->m->plan[s->made];
  const int steps = kernel_steps(s->m, f), n = sq_fft_length(f);
  for (int c = 0; c < s->nc; ++c) {
    sq_real *X = s->w->dk + (size_t)c * s->w->ld, *row = s->w->U;
    for (int i = 2; i < n + (n & 1); ++i) X[i] /= 2;
    sq_fft_backward(f, X, row);
    for (int j = 0; j < steps; ++j) s->dK[(size_t)j * (size_t)s->nc + (size_t)c] += row[j];
  }
}

/* Makes w->k hold the spectra for plan i and w->dk zero. */
static void prepare(slice *s, int i)
{
  if (s->made == i) return;
  const sq_fft *f = s->m->plan[i];
  const work *w = s->w;
  const int steps = kernel_steps(s->m, f);
  flush(s);
  sq_s4_to_rows(steps, s->nc, s->K, (size_t)s->nc, w->u, w->ld);
  for (int c = 0; c < s->nc; ++c)
    rows_to_spectrum(f, steps, w->u + (size_t)c * w->ld, w->k + (size_t)c * w->ld);
  if (s->dK) memset(w->dk, 0, SQ_S4_SLICE * w->ld * sizeof *w->dk);
  s->made = i;
}

/* Spectrum of the kernel of channel c of the slice, and its gradient, for plan i. */
static const sq_real *spectrum_of(const slice *s, int i, int c)
{
  if (i == s->m->nplan - 1) return s->spectra + (size_t)c * sq_s4_spectrum(s->m->plan[i]);
  return s->w->k + (size_t)c * s->w->ld;
}

static sq_real *spectrum_gradient_of(const slice *s, int i, int c)
{
  if (i == s->m->nplan - 1) return s->dspectra + (size_t)c * sq_s4_spectrum(s->m->plan[i]);
  return s->w->dk + (size_t)c * s->w->ld;
}

static void forward_transform(slice *s, int i, int T, const sq_real *u, sq_real *y)
{
  const sq_fft *f = s->m->plan[i];
  const size_t D = (size_t)s->m->head.dims.D, bins = sq_s4_spectrum(f) / 2;
  const sq_real scale = 1 / (sq_real)sq_fft_length(f);
  const work *w = s->w;
  if (i < s->m->nplan - 1) prepare(s, i);
  sq_s4_to_rows(T, s->nc, u, D, w->u, w->ld);
  for (int c = 0; c < s->nc; ++c) {
    sq_real *row = w->u + (size_t)c * w->ld;
    rows_to_spectrum(f, T, row, w->U);
    multiply(bins, scale, spectrum_of(s, i, c), w->U);
    sq_fft_backward(f, w->U, row);
  }
  sq_s4_from_rows(T, s->nc, w->u, w->ld, y, D);
}

/* The two bins that have no mirror image count once, not twice. */
static void backward_channel(const slice *s, const sq_fft *f, const sq_real *k, sq_real *dk)
{
  const int n = sq_fft_length(f);
  const size_t bins = (size_t)n / 2 + 1, last = n % 2 == 0 ? (size_t)n : 0;
  const sq_real scale = 1 / (sq_real)n;
  sq_real *U = s->w->U, *G = s->w->G;
  const sq_real zero = scale * U[0] * G[0], half = last > 0 ? scale * U[last] * G[last] : 0;
  multiply_back(bins, scale, k, U, G, dk);
  dk[0] -= zero;
  dk[last] -= half;
}

static void backward_transform(slice *s, int i, int T, const sq_real *u, const sq_real *dy, sq_real *du)
{
  const sq_fft *f = s->m->plan[i];
  const size_t D = (size_t)s->m->head.dims.D;
  const work *w = s->w;
  if (i < s->m->nplan - 1) prepare(s, i);
  sq_s4_to_rows(T, s->nc, u, D, w->u, w->ld);
  sq_s4_to_rows(T, s->nc, dy, D, w->g, w->ld);
  for (int c = 0; c < s->nc; ++c) {
    sq_real *row = w->g + (size_t)c * w->ld;
    rows_to_spectrum(f, T, w->u + (size_t)c * w->ld, w->U);
    rows_to_spectrum(f, T, row, w->G);
    backward_channel(s, f, spectrum_of(s, i, c), spectrum_gradient_of(s, i, c));
    sq_fft_backward(f, w->G, row);
  }
  sq_s4_from_rows(T, s->nc, w->g, w->ld, du, D);
}

static void forward_direct(const slice *s, int T, const sq_real *u, sq_real *y)
{
  const size_t D = (size_t)s->m->head.dims.D;
  const work *w = s->w;
  pack(T, s->nc, s->K, (size_t)s->nc, 0, w->pk);
  pack(T, s->nc, u, D, 0, w->pu);
  convolve_packed(T, w->pk, w->pu, w->out);
  unpack(T, s->nc, w->out, 0, 0, y, D);
}

/* With time reversed, du is dy convolved with K, and dK is dy convolved with u. */
static void backward_direct(const slice *s, int T, const sq_real *u, const sq_real *dy, sq_real *du)
{
  const size_t D = (size_t)s->m->head.dims.D;
  const work *w = s->w;
  pack(T, s->nc, s->K, (size_t)s->nc, 0, w->pk);
  pack(T, s->nc, u, D, 0, w->pu);
  pack(T, s->nc, dy, D, 1, w->pg);
  convolve_packed(T, w->pk, w->pg, w->out);
  unpack(T, s->nc, w->out, 1, 0, du, D);
  convolve_packed(T, w->pg, w->pu, w->out);
  unpack(T, s->nc, w->out, 1, 1, s->dK, (size_t)s->nc);
}

/* ---- passes ----------------------------------------------------------------------------------------------- */

static slice slice_at(const sq_mixer *m, const work *w, const sq_real *theta, const sq_pass *p, int d0,
                      int with_gradient)
{
  const int D = m->head.dims.D;
  const size_t first = m->head.derived_at + (size_t)d0 * sq_s4_derived_of_channel(m);
  slice s = {.m = m, .w = w, .d0 = d0, .made = -1};
  s.nc = D - d0 < SQ_S4_SLICE ? D - d0 : SQ_S4_SLICE;
  const size_t nK = (size_t)m->L * (size_t)s.nc;
  s.skip = theta + m->skip + d0;
  s.K = p->derived + first;
  s.spectra = s.K + nK;
  if (with_gradient) {
    s.dK = p->dderived + first;
    s.dspectra = s.dK + nK;
  }
  return s;
}

static void forward_slice(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          sq_real *y, int d0, const work *w)
{
  const size_t D = (size_t)m->head.dims.D;
  const int *off = p->rows->off;
  slice s = slice_at(m, w, theta, p, d0, 0);
  for (int b = 0; b < p->rows->nseq; ++b) {
    const size_t at = (size_t)off[b] * D + (size_t)d0;
    const int T = off[b + 1] - off[b], i = sq_s4_choose(m, T);
    SQ_ASSERT(T <= m->L);
    if (i < 0)
      forward_direct(&s, T, u + at, y + at);
    else
      forward_transform(&s, i, T, u + at, y + at);
    add_skip(T, s.nc, s.skip, u + at, y + at, D);
  }
}

static void backward_slice(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                           const sq_real *dy, sq_real *du, sq_real *dtheta, int d0, const work *w)
{
  const size_t D = (size_t)m->head.dims.D;
  const int *off = p->rows->off;
  slice s = slice_at(m, w, theta, p, d0, 1);
  for (int b = 0; b < p->rows->nseq; ++b) {
    const size_t at = (size_t)off[b] * D + (size_t)d0;
    const int T = off[b + 1] - off[b], i = sq_s4_choose(m, T);
    if (i < 0)
      backward_direct(&s, T, u + at, dy + at, du + at);
    else
      backward_transform(&s, i, T, u + at, dy + at, du + at);
    add_skip(T, s.nc, s.skip, dy + at, du + at, D);
    skip_gradient(T, s.nc, dy + at, u + at, D, dtheta + m->skip + (size_t)d0);
  }
  flush(&s);
}

/* Slices of channels, dealt out to lanes of work space. */
typedef struct {
  const sq_mixer *m;
  const sq_real *theta;
  const sq_pass *p;
  const sq_real *u, *dy;
  sq_real *out, *dtheta; /* dtheta NULL: forward */
  void *scratch;
} lanes;

static void run_lane(void *ctx, int lane)
{
  const lanes *l = ctx;
  sq_arena a = sq_s4_arena((char *)l->scratch + (size_t)lane * lane_bytes(l->m));
  const work w = take_work(l->m, &a);
  for (int d0 = lane * SQ_S4_SLICE; d0 < l->m->head.dims.D; d0 += SQ_LANES * SQ_S4_SLICE)
    if (l->dtheta == NULL)
      forward_slice(l->m, l->theta, l->p, l->u, l->out, d0, &w);
    else
      backward_slice(l->m, l->theta, l->p, l->u, l->dy, l->out, l->dtheta, d0, &w);
}

void sq_s4_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                   void *tape, void *scratch)
{
  lanes l = {.m = m, .theta = theta, .p = p, .u = u, .out = y, .scratch = scratch};
  (void)tape;
  sq_parallel_blocks(sq_s4_nlane(m), run_lane, &l);
}

void sq_s4_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                    const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch)
{
  lanes l = {m, theta, p, u, dy, du, dtheta, scratch};
  (void)tape;
  sq_parallel_blocks(sq_s4_nlane(m), run_lane, &l);
}
