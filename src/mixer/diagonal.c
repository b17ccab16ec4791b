/* src/mixer/diagonal.c: passes and analysis of the diagonal recurrences.
 *
 * Real and imaginary parts are separate columns, so that both maps around the recurrence are real products,
 *
 *   (Re, Im)(scale B u) = u Bbar^T  with Bbar (K,D),    factor Re(C h) = (Re h, Im h) Cmat^T  with Cmat (D,K),
 *
 * and the recurrence is a loop over states inside a loop over rows.  Rows are taken in blocks: product,
 * recurrence, product, while the block is in the cache.  Time and memory are linear in the rows.
 *
 * A group of threads takes some blocks at once: their products side by side, and the recurrence over all of them in
 * slices of the states.  Every number comes from the same operations in the same order as alone. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "diagonal.h"
#include "sq/parallel.h"
#include "sq/simd.h"

#define SQ_INLINE static inline __attribute__((always_inline))

enum {
  BLOCK_BYTES = 512 * 1024, /* of a block's states, inputs and outputs */
  /* A product packs its whole constant factor each time: fewer rows would not pay for that. */
  BLOCK_MIN = 256,
  BLOCK_MAX = 1024,
  SLICE = 32,   /* states of a slice */
  TOGETHER = 4, /* blocks that a group of threads takes at once */
  ALIGN = 16
};

void sq_diagonal_setup(sq_mixer *m)
{
  const size_t row = (2 * (size_t)m->P + 2 * (size_t)m->head.dims.D) * sizeof(sq_real);
  const size_t rows = BLOCK_BYTES / row / ALIGN * ALIGN;
  m->block = rows < BLOCK_MIN ? BLOCK_MIN : rows > BLOCK_MAX ? BLOCK_MAX : (int)rows;
}

void sq_diagonal_destroy(sq_mixer *m)
{
  free(m->hippo);
  free(m);
}

/* ---- places ------------------------------------------------------------------------------------------ */

typedef struct { /* in a vector of derived numbers, or of their gradient */
  size_t lambda_re, lambda_im, Bbar, Cmat /* (ndir) matrices (D,K) */, count;
} places;

static size_t next(size_t *at, size_t n)
{
  const size_t here = *at;
  *at += (n + ALIGN - 1) / ALIGN * ALIGN;
  return here;
}

static places derived_places(const sq_mixer *m)
{
  const size_t P = (size_t)m->P, D = (size_t)m->head.dims.D;
  places at = {0};
  at.lambda_re = next(&at.count, P);
  at.lambda_im = next(&at.count, P);
  at.Bbar = next(&at.count, 2 * P * D);
  at.Cmat = next(&at.count, 2 * P * D * (size_t)m->ndir);
  return at;
}

size_t sq_diagonal_derived_count(const sq_mixer *m)
{
  return derived_places(m).count;
}

/* States, (ndir) arrays (max_rows,K). */
static sq_real *take_tape(const sq_mixer *m, sq_arena *a)
{
  return SQ_TAKE(a, (size_t)m->ndir * (size_t)m->head.dims.max_rows * 2 * (size_t)m->P, sq_real);
}

typedef struct {
  sq_real *dh; /* (rows_together() + 2, K): a row on either side for the neighbouring blocks' */
  sq_real *dlambda_re, *dlambda_im; /* (P): sums over a block */
  sq_real *dD;                      /* (D) */
} workspace;

/* Most rows of the blocks that are taken at once. */
static int rows_together(const sq_mixer *m)
{
  return sq_min(TOGETHER * m->block, m->head.dims.max_rows);
}

static workspace take_scratch(const sq_mixer *m, sq_arena *a)
{
  const size_t P = (size_t)m->P;
  workspace w;
  w.dh = SQ_TAKE(a, ((size_t)rows_together(m) + 2) * 2 * P, sq_real);
  w.dlambda_re = SQ_TAKE(a, P, sq_real);
  w.dlambda_im = SQ_TAKE(a, P, sq_real);
  w.dD = SQ_TAKE(a, (size_t)m->head.dims.D, sq_real);
  return w;
}

size_t sq_diagonal_tape_bytes(const sq_mixer *m)
{
  sq_arena a = {0};
  take_tape(m, &a);
  return a.used;
}

size_t sq_diagonal_scratch_bytes(const sq_mixer *m)
{
  sq_arena a = {0};
  take_scratch(m, &a);
  return a.used;
}

/* Two real products and a complex multiply-add for each direction, D u once. */
double sq_diagonal_flops(const sq_mixer *m, int nseq, const int *len)
{
  const double P = m->P, D = m->head.dims.D;
  double rows = 0;
  for (int b = 0; b < nseq; ++b) rows += len[b];
  return rows * (m->ndir * (2 * 2 * (2 * P) * D + 8 * P) + 2 * D);
}

/* ---- what theta alone decides ------------------------------------------------------------------------ */

void sq_diagonal_derive(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                        void *scratch)
{
  const places at = derived_places(m);
  const size_t P = (size_t)m->P, D = (size_t)m->head.dims.D, s = (size_t)m->stride, n = (size_t)m->ndir;
  (void)scratch;
  SQ_ASSERT(first == 0 && end == 1);
  memset(derived, 0, at.count * sizeof *derived);
  for (size_t p = 0; p < P; ++p) {
    sq_complex lambda, scale;
    m->core->state(m, theta, (int)p, &lambda, &scale);
    derived[at.lambda_re + p] = (sq_real)creal(lambda);
    derived[at.lambda_im + p] = (sq_real)cimag(lambda);
    const double re = creal(scale), im = cimag(scale);
    for (size_t d = 0; d < D; ++d) {
      const double b_re = (double)theta[m->B_re + s * (p * D + d)],
                   b_im = (double)theta[m->B_im + s * (p * D + d)];
      derived[at.Bbar + p * D + d] = (sq_real)(re * b_re - im * b_im);
      derived[at.Bbar + (P + p) * D + d] = (sq_real)(re * b_im + im * b_re);
    }
  }
  for (size_t k = 0; k < n; ++k)
    for (size_t d = 0; d < D; ++d)
      for (size_t p = 0; p < P; ++p) {
        sq_real *row = derived + at.Cmat + (k * D + d) * 2 * P;
        const size_t c = s * ((d * n + k) * P + p);
        row[p] = (sq_real)m->factor * theta[m->C_re + c];
        row[P + p] = -(sq_real)m->factor * theta[m->C_im + c];
      }
}

static void input_back(const sq_mixer *m, const sq_real *theta, const sq_real *dBbar, int p, sq_complex scale,
                       sq_complex *dscale, sq_real *dtheta)
{
  const size_t P = (size_t)m->P, D = (size_t)m->head.dims.D, s = (size_t)m->stride, row = (size_t)p * D;
  const double re = creal(scale), im = cimag(scale);
  double sum_re = 0, sum_im = 0;
  for (size_t d = 0; d < D; ++d) {
    const double g_re = (double)dBbar[row + d], g_im = (double)dBbar[P * D + row + d];
    const size_t k = s * (row + d);
    const double b_re = (double)theta[m->B_re + k], b_im = (double)theta[m->B_im + k];
    sum_re += b_re * g_re + b_im * g_im;
    sum_im += b_re * g_im - b_im * g_re;
    dtheta[m->B_re + k] += (sq_real)(re * g_re + im * g_im);
    dtheta[m->B_im + k] += (sq_real)(re * g_im - im * g_re);
  }
  *dscale = CMPLX(sum_re, sum_im);
}

void sq_diagonal_derive_back(const sq_mixer *m, const sq_real *theta, int first, int end,
                             const sq_real *derived, const sq_real *dderived, sq_real *dtheta, void *scratch)
{
  const places at = derived_places(m);
  const size_t P = (size_t)m->P, D = (size_t)m->head.dims.D, s = (size_t)m->stride, n = (size_t)m->ndir;
  (void)derived, (void)scratch;
  SQ_ASSERT(first == 0 && end == 1);
  for (size_t p = 0; p < P; ++p) {
    sq_complex lambda, scale, dscale;
    m->core->state(m, theta, (int)p, &lambda, &scale);
    input_back(m, theta, dderived + at.Bbar, (int)p, scale, &dscale, dtheta);
    const sq_complex dlambda = CMPLX((double)dderived[at.lambda_re + p], (double)dderived[at.lambda_im + p]);
    m->core->state_back(m, theta, (int)p, dlambda, dscale, dtheta);
  }
  for (size_t k = 0; k < n; ++k)
    for (size_t d = 0; d < D; ++d)
      for (size_t p = 0; p < P; ++p) {
        const sq_real *row = dderived + at.Cmat + (k * D + d) * 2 * P;
        const size_t c = s * ((d * n + k) * P + p);
        dtheta[m->C_re + c] += (sq_real)m->factor * row[p];
        dtheta[m->C_im + c] -= (sq_real)m->factor * row[P + p];
      }
}

/* ---- the recurrence ---------------------------------------------------------------------------------- */

typedef struct { /* a slice of n of the P states */
  int P, n;
  const sq_real *re, *im; /* lambda (n) */
} eigenvalues;

/* x += lambda z */
SQ_INLINE void advance(int P, const sq_real *restrict re, const sq_real *restrict im,
                       const sq_real *restrict z_re, const sq_real *restrict z_im, sq_real *restrict x_re,
                       sq_real *restrict x_im)
{
  for (int p = 0; p < P; ++p) {
    const sq_real a = z_re[p], b = z_im[p];
    x_re[p] += re[p] * a - im[p] * b;
    x_im[p] += re[p] * b + im[p] * a;
  }
}

/* x += conj(lambda) z */
SQ_INLINE void retreat(int P, const sq_real *restrict re, const sq_real *restrict im,
                       const sq_real *restrict z_re, const sq_real *restrict z_im, sq_real *restrict x_re,
                       sq_real *restrict x_im)
{
  for (int p = 0; p < P; ++p) {
    const sq_real a = z_re[p], b = z_im[p];
    x_re[p] += re[p] * a + im[p] * b;
    x_im[p] += re[p] * b - im[p] * a;
  }
}

/* sum += conj(h) x */
SQ_INLINE void correlate(int P, const sq_real *restrict h_re, const sq_real *restrict h_im,
                         const sq_real *restrict x_re, const sq_real *restrict x_im, sq_real *restrict sum_re,
                         sq_real *restrict sum_im)
{
  for (int p = 0; p < P; ++p) {
    sum_re[p] += h_re[p] * x_re[p] + h_im[p] * x_im[p];
    sum_im[p] += h_re[p] * x_im[p] - h_im[p] * x_re[p];
  }
}

/* n rows of x become states, in the order x, x + step, x + 2 step; the state before x is the row before it,
 * unless the sequence begins here. */
static SQ_CLONES void scan(eigenvalues l, int n, sq_real *x, ptrdiff_t step, int begins)
{
  for (int t = begins; t < n; ++t) {
    sq_real *row = x + t * step;
    const sq_real *z = row - step;
    advance(l.n, l.re, l.im, z, z + l.P, row, row + l.P);
  }
}

/* n rows of dh, gradients in the states as outputs, become gradients in scale B u, from the last state to the
 * first: dh, dh - step, ...  h is the row of states that belongs to dh.  ends: dh is the sequence's last state;
 * begins: the last of these rows is its first state. */
static SQ_CLONES void scan_back(eigenvalues l, int n, sq_real *dh, const sq_real *h, ptrdiff_t step, int ends,
                                int begins, sq_real *dlambda_re, sq_real *dlambda_im)
{
  for (int t = 0; t < n; ++t) {
    sq_real *row = dh - t * step;
    if (t > 0 || !ends) {
      const sq_real *later = row + step;
      retreat(l.n, l.re, l.im, later, later + l.P, row, row + l.P);
    }
    if (t + 1 < n || !begins) {
      const sq_real *before = h - (t + 1) * step;
      correlate(l.n, before, before + l.P, row, row + l.P, dlambda_re, dlambda_im);
    }
  }
}

/* ---- passes ------------------------------------------------------------------------------------------ */

typedef struct { /* one direction: rows go from the start of a sequence to its end, or back */
  const sq_mixer *m;
  const sq_rows *rows;
  eigenvalues l;
  const sq_real *Bbar, *Cmat;
  sq_real *h; /* (nrow,K) */
  int reverse;
} direction;

static direction make_direction(const sq_mixer *m, const sq_pass *p, const sq_real *tape, int k)
{
  const places at = derived_places(m);
  const sq_real *derived = p->derived + m->head.derived_at;
  const size_t K = 2 * (size_t)m->P;
  sq_arena a = {.base = (unsigned char *)(uintptr_t)tape, .cap = sq_diagonal_tape_bytes(m)};
  return (direction){.m = m,
                     .rows = p->rows,
                     .l = {m->P, m->P, derived + at.lambda_re, derived + at.lambda_im},
                     .Bbar = derived + at.Bbar,
                     .Cmat = derived + at.Cmat + (size_t)k * K * (size_t)m->head.dims.D,
                     .h = take_tape(m, &a) + (size_t)k * (size_t)m->head.dims.max_rows * K,
                     .reverse = k};
}

/* The part of sequence b that lies in rows r0 .. r1-1; 0 if there is none. */
static int overlap(const sq_rows *rows, int b, int r0, int r1, int *first, int *last)
{
  *first = rows->off[b] > r0 ? rows->off[b] : r0;
  *last = (rows->off[b + 1] < r1 ? rows->off[b + 1] : r1) - 1;
  return *first <= *last;
}

/* States first .. first + n - 1 of a direction. */
static direction slice_of(const direction *s, int first, int n)
{
  direction part = *s;
  part.l = (eigenvalues){s->l.P, n, s->l.re + first, s->l.im + first};
  part.h = s->h + first;
  return part;
}

static void scan_rows(const direction *s, int r0, int r1)
{
  const ptrdiff_t K = 2 * (ptrdiff_t)s->m->P;
  int first, last;
  for (int b = 0; b < s->rows->nseq; ++b)
    if (overlap(s->rows, b, r0, r1, &first, &last)) {
      if (s->reverse)
        scan(s->l, last - first + 1, s->h + last * K, -K, last + 1 == s->rows->off[b + 1]);
      else
        scan(s->l, last - first + 1, s->h + first * K, K, first == s->rows->off[b]);
    }
}

/* dh: of row r0; dlambda: of the direction's first state. */
static void scan_rows_back(const direction *s, int r0, int r1, sq_real *dh, sq_real *dlambda_re,
                           sq_real *dlambda_im)
{
  const ptrdiff_t K = 2 * (ptrdiff_t)s->m->P;
  int first, last;
  for (int b = 0; b < s->rows->nseq; ++b)
    if (overlap(s->rows, b, r0, r1, &first, &last)) {
      const int from = s->reverse ? first : last, starts = first == s->rows->off[b],
                stops = last + 1 == s->rows->off[b + 1];
      scan_back(s->l, last - first + 1, dh + (from - r0) * K, s->h + from * K, s->reverse ? -K : K,
                s->reverse ? starts : stops, s->reverse ? stops : starts, dlambda_re, dlambda_im);
    }
}

/* y += D u */
static SQ_CLONES void feed_through(int R, int D, const sq_real *restrict gain, const sq_real *restrict u,
                                   sq_real *restrict y)
{
  for (int r = 0; r < R; ++r)
    for (int d = 0; d < D; ++d)
      y[(size_t)r * (size_t)D + (size_t)d] += gain[d] * u[(size_t)r * (size_t)D + (size_t)d];
}

static SQ_CLONES void column_dots(int R, int D, const sq_real *restrict x, const sq_real *restrict y,
                                  sq_real *restrict sum)
{
  for (int r = 0; r < R; ++r)
    for (int d = 0; d < D; ++d)
      sum[d] += x[(size_t)r * (size_t)D + (size_t)d] * y[(size_t)r * (size_t)D + (size_t)d];
}

static SQ_CLONES void add_and_clear(int n, sq_real *restrict x, sq_real *restrict sum)
{
  for (int i = 0; i < n; ++i) {
    sum[i] += x[i];
    x[i] = 0;
  }
}

static int block_count(const direction *s)
{
  return (s->rows->nrow + s->m->block - 1) / s->m->block;
}

/* Blocks k .. k+n-1 in the order of time, or against it, at once. */
typedef struct {
  const direction *s;
  const sq_real *gain, *u, *dy;
  sq_real *y, *du, *dderived;
  const workspace *w;
  int k, n, against;
} blocks;

static int blocks_at_once(const direction *s, int k)
{
  return sq_parallel_has_help() ? sq_min(TOGETHER, block_count(s) - k) : 1;
}

/* First row of block k; returns how many there are. */
static int block_rows(const blocks *b, int k, int *r0)
{
  const direction *s = b->s;
  const int n = block_count(s), at = (s->reverse ^ b->against) ? n - 1 - k : k,
            left = s->rows->nrow - at * s->m->block;
  *r0 = at * s->m->block;
  return left < s->m->block ? left : s->m->block;
}

/* First row of all of them. */
static int lowest_row(const blocks *b)
{
  int first, last;
  block_rows(b, b->k, &first);
  block_rows(b, b->k + b->n - 1, &last);
  return sq_min(first, last);
}

/* run(b, i) for slices of the states: one of all of them where nobody helps. */
static void each_slice(blocks *b, sq_block_fn run)
{
  if (sq_parallel_has_help())
    sq_parallel_blocks((b->s->m->P + SLICE - 1) / SLICE, run, b);
  else
    run(b, -1);
}

static direction slice_at(const blocks *b, int i, int *first)
{
  const int P = b->s->m->P;
  *first = i < 0 ? 0 : i * SLICE;
  return slice_of(b->s, *first, i < 0 ? P : sq_min(SLICE, P - *first));
}

static void states_in(void *ctx, int i)
{
  const blocks *b = ctx;
  const int D = b->s->m->head.dims.D, K = 2 * b->s->m->P;
  int r0;
  const int R = block_rows(b, b->k + i, &r0);
  sq_gemm(SQ_N, SQ_T, R, K, D, 1, b->u + (size_t)r0 * (size_t)D, D, b->s->Bbar, D, 0,
          b->s->h + (size_t)r0 * (size_t)K, K);
}

static void scan_slice(void *ctx, int i)
{
  const blocks *b = ctx;
  int first, r0;
  const direction part = slice_at(b, i, &first);
  for (int k = b->k; k < b->k + b->n; ++k) {
    const int R = block_rows(b, k, &r0);
    scan_rows(&part, r0, r0 + R);
  }
}

static void states_out(void *ctx, int i)
{
  const blocks *b = ctx;
  const int D = b->s->m->head.dims.D, K = 2 * b->s->m->P;
  int r0;
  const int R = block_rows(b, b->k + i, &r0);
  const size_t at = (size_t)r0 * (size_t)D;
  sq_gemm(SQ_N, SQ_T, R, D, K, 1, b->s->h + (size_t)r0 * (size_t)K, K, b->s->Cmat, K, b->s->reverse ? 1 : 0,
          b->y + at, D);
  if (!b->s->reverse) feed_through(R, D, b->gain, b->u + at, b->y + at);
}

static void run_forward(const direction *s, const sq_real *gain, const sq_real *u, sq_real *y)
{
  blocks b = {.s = s, .gain = gain, .u = u, .y = y};
  for (; b.k < block_count(s); b.k += b.n) {
    b.n = blocks_at_once(s, b.k);
    sq_parallel_blocks(b.n, states_in, &b);
    each_slice(&b, scan_slice);
    sq_parallel_blocks(b.n, states_out, &b);
  }
}

void sq_diagonal_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                         sq_real *y, void *tape, void *scratch)
{
  (void)scratch;
  for (int k = 0; k < m->ndir; ++k) {
    const direction s = make_direction(m, p, tape, k);
    run_forward(&s, theta + m->D, u, y);
  }
}

/* Row r0 of the gradients in the states. */
static sq_real *dh_at(const blocks *b, int r0)
{
  const size_t K = 2 * (size_t)b->s->m->P;
  return b->w->dh + K + (size_t)(r0 - lowest_row(b)) * K;
}

static void gradients_in(void *ctx, int i)
{
  const blocks *b = ctx;
  const int D = b->s->m->head.dims.D, K = 2 * b->s->m->P;
  int r0;
  const int R = block_rows(b, b->k + i, &r0);
  sq_gemm(SQ_N, SQ_N, R, K, D, 1, b->dy + (size_t)r0 * (size_t)D, D, b->s->Cmat, K, 0, dh_at(b, r0), K);
}

static void scan_slice_back(void *ctx, int i)
{
  const blocks *b = ctx;
  const places at = derived_places(b->s->m);
  int first, r0;
  const direction part = slice_at(b, i, &first);
  sq_real *re = b->w->dlambda_re + first, *im = b->w->dlambda_im + first;
  for (int k = b->k; k < b->k + b->n; ++k) {
    const int R = block_rows(b, k, &r0);
    scan_rows_back(&part, r0, r0 + R, dh_at(b, r0) + first, re, im);
    add_and_clear(part.l.n, re, b->dderived + at.lambda_re + first);
    add_and_clear(part.l.n, im, b->dderived + at.lambda_im + first);
  }
}

/* 0: gradient in Bbar, 1: in Cmat, sums over all blocks in their order; then the blocks' du. */
static void gradients_out(void *ctx, int i)
{
  const blocks *b = ctx;
  const direction *s = b->s;
  const places at = derived_places(s->m);
  const int D = s->m->head.dims.D, K = 2 * s->m->P;
  sq_real *dCmat = b->dderived + at.Cmat + (size_t)s->reverse * (size_t)K * (size_t)D;
  for (int k = i < 2 ? b->k : b->k + i - 2; k < (i < 2 ? b->k + b->n : b->k + i - 1); ++k) {
    int r0;
    const int R = block_rows(b, k, &r0);
    const size_t at_u = (size_t)r0 * (size_t)D;
    const sq_real *h = s->h + (size_t)r0 * (size_t)K, *dh = dh_at(b, r0);
    if (i == 0)
      sq_gemm(SQ_T, SQ_N, K, D, R, 1, dh, K, b->u + at_u, D, 1, b->dderived + at.Bbar, D);
    else if (i == 1)
      sq_gemm(SQ_T, SQ_N, D, K, R, 1, b->dy + at_u, D, h, K, 1, dCmat, K);
    else
      sq_gemm(SQ_N, SQ_N, R, D, K, 1, dh, K, s->Bbar, D, s->reverse ? 1 : 0, b->du + at_u, D);
  }
}

/* Gradients in Bbar and Cmat are sums over blocks, those in lambda and D sums over a block first: fewer
 * roundings in float32. */
static void run_backward(const direction *s, const sq_real *u, const sq_real *dy, sq_real *du,
                         sq_real *dderived, const workspace *w)
{
  const size_t K = 2 * (size_t)s->m->P;
  blocks b = {.s = s, .u = u, .dy = dy, .du = du, .dderived = dderived, .w = w, .against = 1};
  int rows = 0; /* of the blocks before these */
  for (; b.k < block_count(s); b.k += b.n) {
    const int before = rows;
    b.n = blocks_at_once(s, b.k);
    rows = 0;
    for (int k = b.k, r0; k < b.k + b.n; ++k) rows += block_rows(&b, k, &r0);
    if (s->reverse) /* the last row of the block before this one, or the first of the one after */
      memmove(w->dh, w->dh + (size_t)before * K, K * sizeof *w->dh);
    else
      memmove(w->dh + (size_t)(rows + 1) * K, w->dh + K, K * sizeof *w->dh);
    sq_parallel_blocks(b.n, gradients_in, &b);
    each_slice(&b, scan_slice_back);
    sq_parallel_blocks(b.n + 2, gradients_out, &b);
  }
}

static void feed_through_back(const sq_mixer *m, int nrow, const sq_real *gain, const sq_real *u,
                              const sq_real *dy, sq_real *du, sq_real *dgain, sq_real *sum)
{
  const int D = m->head.dims.D;
  for (int r = 0; r < nrow; r += m->block) {
    const int R = nrow - r < m->block ? nrow - r : m->block;
    const size_t at = (size_t)r * (size_t)D;
    feed_through(R, D, gain, dy + at, du + at);
    column_dots(R, D, dy + at, u + at, sum);
    add_and_clear(D, sum, dgain);
  }
}

void sq_diagonal_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch)
{
  sq_arena a = {.base = scratch, .cap = sq_diagonal_scratch_bytes(m)};
  const workspace w = take_scratch(m, &a);
  memset(w.dlambda_re, 0, (size_t)m->P * sizeof(sq_real));
  memset(w.dlambda_im, 0, (size_t)m->P * sizeof(sq_real));
  memset(w.dD, 0, (size_t)m->head.dims.D * sizeof(sq_real));
  for (int k = 0; k < m->ndir; ++k) {
    const direction s = make_direction(m, p, tape, k);
    run_backward(&s, u, dy, du, p->dderived + m->head.derived_at, &w);
  }
  feed_through_back(m, p->rows->nrow, theta + m->D, u, dy, du, dtheta + m->D, w.dD);
}

/* ---- analysis ---------------------------------------------------------------------------------------- */

void sq_diagonal_lti_dims(const sq_mixer *m, sq_lti *f)
{
  f->nsystem = 1;
  f->n = m->P;
  f->nin = f->nout = m->head.dims.D;
  f->dense = 0;
}

sq_status sq_diagonal_lti(const sq_mixer *m, const sq_real *theta, int s, sq_lti *f)
{
  const size_t P = (size_t)m->P, D = (size_t)m->head.dims.D, st = (size_t)m->stride;
  SQ_ASSERT(s == 0);
  for (size_t p = 0; p < P; ++p) {
    sq_complex lambda, scale;
    m->core->state(m, theta, (int)p, &lambda, &scale);
    if (f->a != NULL) f->a[p] = lambda;
    for (size_t d = 0; d < D; ++d) {
      const size_t b = st * (p * D + d), c = st * (d * (size_t)m->ndir * P + p);
      if (f->B != NULL)
        f->B[p * D + d] = scale * CMPLX((double)theta[m->B_re + b], (double)theta[m->B_im + b]);
      if (f->C != NULL)
        f->C[d * P + p] = m->factor * CMPLX((double)theta[m->C_re + c], (double)theta[m->C_im + c]);
    }
  }
  for (size_t d = 0; d < D && f->D != NULL; ++d) f->D[d] = (double)theta[m->D + d];
  return SQ_OK;
}
