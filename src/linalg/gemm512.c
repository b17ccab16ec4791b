/* src/linalg/gemm512.c: matrix product with AVX-512, for products that are too small for what a BLAS does before it
 * starts.
 *
 * A block of op(A) is packed into panels of at most 14 rows, one of op(B) into panels of two vectors of columns; a
 * tile of C, rows by two vectors, stays in 28 registers while k runs (the design of Goto and van de Geijn, ACM TOMS 34,
 * 2008, and of BLIS, with panels as even as they can be instead of a last one that is almost empty).  Each element is
 * a chain of multiply-adds over k in pieces of DEPTH. */
#include "gemm512.h"

#include "sq/base.h"
#include "sq/simd.h"

#if defined(__x86_64__) && !defined(SQ_PORTABLE) && !defined(SQ_SANITIZED)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#ifdef SQ_DOUBLE
enum { LANES = 8 };
typedef __m512d vec;
typedef __mmask8 mask;
INLINE vec zero(void)
{
  return _mm512_setzero_pd();
}
INLINE vec all(sq_real x)
{
  return _mm512_set1_pd(x);
}
INLINE vec load(mask m, const sq_real *x)
{
  return _mm512_maskz_loadu_pd(m, x);
}
INLINE void store(sq_real *x, mask m, vec v)
{
  _mm512_mask_storeu_pd(x, m, v);
}
INLINE void put(sq_real *x, vec v)
{
  _mm512_storeu_pd(x, v);
}
INLINE vec times(vec a, vec b)
{
  return _mm512_mul_pd(a, b);
}
INLINE vec times_plus(vec a, vec b, vec c)
{
  return _mm512_fmadd_pd(a, b, c);
}
INLINE vec choose(vec a, __m512i from, vec b)
{
  return _mm512_permutex2var_pd(a, from, b);
}
INLINE __m512i lane_numbers(void)
{
  return _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
}
INLINE __m512i add_where(__m512i x, int bit, int set, int clear)
{
  const mask m = _mm512_test_epi64_mask(x, _mm512_set1_epi64(bit));
  return _mm512_add_epi64(x, _mm512_mask_blend_epi64(m, _mm512_set1_epi64(clear), _mm512_set1_epi64(set)));
}
#else
enum { LANES = 16 };
typedef __m512 vec;
typedef __mmask16 mask;
INLINE vec zero(void)
{
  return _mm512_setzero_ps();
}
INLINE vec all(sq_real x)
{
  return _mm512_set1_ps(x);
}
INLINE vec load(mask m, const sq_real *x)
{
  return _mm512_maskz_loadu_ps(m, x);
}
INLINE void store(sq_real *x, mask m, vec v)
{
  _mm512_mask_storeu_ps(x, m, v);
}
INLINE void put(sq_real *x, vec v)
{
  _mm512_storeu_ps(x, v);
}
INLINE vec times(vec a, vec b)
{
  return _mm512_mul_ps(a, b);
}
INLINE vec times_plus(vec a, vec b, vec c)
{
  return _mm512_fmadd_ps(a, b, c);
}
INLINE vec choose(vec a, __m512i from, vec b)
{
  return _mm512_permutex2var_ps(a, from, b);
}
INLINE __m512i lane_numbers(void)
{
  return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}
INLINE __m512i add_where(__m512i x, int bit, int set, int clear)
{
  const mask m = _mm512_test_epi32_mask(x, _mm512_set1_epi32(bit));
  return _mm512_add_epi32(x, _mm512_mask_blend_epi32(m, _mm512_set1_epi32(clear), _mm512_set1_epi32(set)));
}
#endif

enum {
  ROWS = 14, /* of a panel of op(A), at most */
  COLUMNS = 2 * LANES,
  DEPTH = 512,    /* steps of k at a time */
  IN_PLACE = 128, /* an operand that needs no turning is not packed to be read by so few rows or columns */
  ROOM_A =
      8 * ROWS * DEPTH, /* packed numbers of op(A); with those of op(B), less than a second cache holds */
  ROOM_B = 8 * COLUMNS * DEPTH, /* of op(B) */
};

/* Lanes 0 .. n-1. */
INLINE mask first(int n)
{
  return n >= LANES ? (mask)-1 : n <= 0 ? (mask)0 : (mask)((1u << n) - 1);
}

/* ---- tile --------------------------------------------------------------------------------------------- */

typedef struct { /* C (rows, at most two vectors) = alpha a b + beta C */
  int k, columns, ldc;
  sq_real alpha, beta;
  sq_real *C;
  const sq_real *a, *b; /* rows of step 0 of k, columns of step 0 */
  size_t lda, ldb;      /* from step to step */
} tile;

INLINE void multiply(const int rows, const int nvec, tile t)
{
  vec sum[ROWS][2];
  UNROLL for (int i = 0; i < rows; ++i) sum[i][0] = sum[i][1] = zero();
  const mask m0 = first(t.columns), m1 = first(t.columns - LANES);
  const sq_real *a = t.a, *b = t.b;
  for (int p = 0; p < t.k; ++p, a += t.lda, b += t.ldb) {
    const vec b0 = load(m0, b), b1 = nvec > 1 ? load(m1, b + LANES) : b0;
    UNROLL for (int i = 0; i < rows; ++i)
    {
      sum[i][0] = times_plus(all(a[i]), b0, sum[i][0]);
      if (nvec > 1) sum[i][1] = times_plus(all(a[i]), b1, sum[i][1]);
    }
  }
  const vec alpha = all(t.alpha), beta = all(t.beta);
  const int whole = t.columns == nvec * LANES; /* stores with masks are slow on some CPUs */
  UNROLL for (int i = 0; i < rows; ++i) UNROLL for (int v = 0; v < nvec; ++v)
  {
    sq_real *c = t.C + (size_t)i * (size_t)t.ldc + v * LANES;
    const mask m = whole ? (mask)-1 : first(t.columns - v * LANES);
    vec x = times(alpha, sum[i][v]);
    if (t.beta != 0) x = times_plus(beta, load(m, c), x);
    if (whole)
      put(c, x);
    else
      store(c, m, x);
  }
}

TARGET static void multiply_rows(const int rows, tile t)
{
#define CASE(n)                                                                                              \
  case n: t.columns > LANES ? multiply(n, 2, t) : multiply(n, 1, t); return;
  switch (rows) {
    CASE(1)
    CASE(2)
    CASE(3)
    CASE(4)
    CASE(5)
    CASE(6)
    CASE(7)
    CASE(8)
    CASE(9)
    CASE(10)
    CASE(11)
    CASE(12)
    CASE(13)
  default: break;
  }
  t.columns > LANES ? multiply(ROWS, 2, t) : multiply(ROWS, 1, t);
#undef CASE
}

/* ---- packing ------------------------------------------------------------------------------------------ */

/* Both write whole vectors: what lies behind a row of a panel is overwritten by the next row, and what lies behind
   the last panel is spare room. */

/* y[p stride + i] = x[i ldx + p] for i < rows, 0 for rows <= i < LANES; p < n <= LANES.  By butterflies: rows i and
   i + h exchange halves of blocks of 2h lanes. */
INLINE void turn(int rows, int n, const sq_real *x, size_t ldx, sq_real *y, size_t stride)
{
  vec r[LANES];
  const __m512i lane = lane_numbers();
  const mask m = first(n);
  UNROLL for (int i = 0; i < LANES; ++i) r[i] = i < rows ? load(m, x + (size_t)i * ldx) : zero();
  UNROLL for (int h = LANES / 2; h >= 1; h /= 2)
  {
    const __m512i low = add_where(lane, h, LANES - h, 0), high = add_where(lane, h, LANES, h);
    UNROLL for (int i = 0; i < LANES; ++i) if ((i & h) == 0)
    {
      const vec a = r[i], b = r[i + h];
      r[i] = choose(a, low, b);
      r[i + h] = choose(a, high, b);
    }
  }
  UNROLL for (int p = 0; p < LANES; ++p) if (p < n) put(y + (size_t)p * stride, r[p]);
}

/* Panel y (k, width) of rows 0 .. n-1 of x (n,k). */
TARGET static void pack_rows(int n, int width, int k, const sq_real *x, size_t ldx, sq_real *y)
{
  for (int p = 0; p < k; p += LANES)
    for (int i = (width - 1) / LANES * LANES; i >= 0;
         i -= LANES) { /* what spills over is mended by those left of it */
      const sq_real *from = x + (size_t)i * ldx + p;
      sq_real *to = y + (size_t)p * (size_t)width + i;
      if (n - i >= LANES && k - p >= LANES)
        turn(LANES, LANES, from, ldx, to, (size_t)width);
      else
        turn(n - i, sq_min(k - p, LANES), from, ldx, to, (size_t)width);
    }
}

/* Panel y (k, width) of columns 0 .. n-1 of x (k,n). */
TARGET static void pack_columns(int n, int width, int k, const sq_real *x, size_t ldx, sq_real *y)
{
  const mask m0 = first(n), m1 = first(n - LANES);
  for (int p = 0; p < k; ++p, x += ldx, y += width) {
    put(y, load(m0, x));
    if (width > LANES) put(y + LANES, load(m1, x + LANES));
  }
}

/* ---- product ------------------------------------------------------------------------------------------ */

static _Thread_local struct {
  sq_real a[ROOM_A + LANES], b[ROOM_B + LANES];
} room __attribute__((aligned(64)));

typedef struct { /* an operand: element (i,p), i along rows or columns of C, p along k */
  const sq_real *x;
  size_t ld;
  int along;    /* p is the fast index */
  int in_place; /* read where it lies */
} operand;

static void pack(const operand *o, int i, int n, int width, int p, int k, sq_real *y)
{
  if (o->along)
    pack_rows(n, width, k, o->x + (size_t)i * o->ld + p, o->ld, y);
  else
    pack_columns(n, width, k, o->x + (size_t)p * o->ld + i, o->ld, y);
}

/* First row of panel q of n that share m rows evenly. */
static int panel_start(int m, int n, int q)
{
  return (int)((long)q * m / n);
}

static int panel_columns(int left)
{
  return left > LANES ? COLUMNS : LANES;
}

typedef struct {
  int m, n, npanel; /* panels of rows */
  operand a, b;
  tile t; /* C at its first element */
} product;

/* Panels q0 .. q1-1 of rows, packed in room.a, by columns j0 .. j0+n-1, packed in room.b. */
static void multiply_block(const product *p, int p0, int q0, int q1, int j0, int n)
{
  const int i0 = panel_start(p->m, p->npanel, q0);
  tile t = p->t;
  for (int j = 0; j < n; j += COLUMNS) {
    t.columns = sq_min(n - j, COLUMNS);
    t.b = p->b.in_place ? p->b.x + (size_t)p0 * p->b.ld + j0 + j : room.b + (size_t)j * (size_t)t.k;
    t.ldb = p->b.in_place ? p->b.ld : (size_t)panel_columns(n - j);
    for (int q = q0; q < q1; ++q) {
      const int i = panel_start(p->m, p->npanel, q), rows = panel_start(p->m, p->npanel, q + 1) - i;
      t.C = p->t.C + (size_t)i * (size_t)t.ldc + j0 + j;
      t.a = p->a.in_place ? p->a.x + (size_t)p0 * p->a.ld + i : room.a + (size_t)(i - i0) * (size_t)t.k;
      t.lda = p->a.in_place ? p->a.ld : (size_t)rows;
      multiply_rows(rows, t);
    }
  }
}

/* Steps p0 .. p0 + p->t.k - 1 of k. */
static void multiply_piece(const product *p, int p0)
{
  const int k = p->t.k, wide = ROOM_B / (k * COLUMNS) * COLUMNS, high = ROOM_A / (k * ROWS);
  for (int j0 = 0, packed = -1; j0 < p->n; j0 += wide) {
    const int n = sq_min(p->n - j0, wide);
    for (int j = 0; j < n && !p->b.in_place; j += COLUMNS)
      pack(&p->b, j0 + j, sq_min(n - j, COLUMNS), panel_columns(n - j), p0, k,
           room.b + (size_t)j * (size_t)k);
    for (int q0 = 0; q0 < p->npanel; q0 += high) {
      const int q1 = sq_min(p->npanel, q0 + high), i0 = panel_start(p->m, p->npanel, q0);
      for (int q = q0; q < q1 && packed != q0 && !p->a.in_place; ++q) {
        const int i = panel_start(p->m, p->npanel, q), rows = panel_start(p->m, p->npanel, q + 1) - i;
        pack(&p->a, i, rows, rows, p0, k, room.a + (size_t)(i - i0) * (size_t)k);
      }
      packed = q0;
      multiply_block(p, p0, q0, q1, j0, n);
    }
  }
}

void sq_gemm512(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
                const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc)
{
  const int npiece = (k + DEPTH - 1) / DEPTH;
  product p = {.m = m,
               .n = n,
               .npanel = (m + ROWS - 1) / ROWS,
               .a = {A, (size_t)lda, ta == SQ_N, ta == SQ_T && n <= IN_PLACE},
               .b = {B, (size_t)ldb, tb == SQ_T, tb == SQ_N && m <= IN_PLACE},
               .t = {.ldc = ldc, .alpha = alpha, .C = C}};
  for (int i = 0; i < npiece; ++i) {
    const int p0 = panel_start(k, npiece, i);
    p.t.k = panel_start(k, npiece, i + 1) - p0;
    p.t.beta = i == 0 ? beta : 1;
    multiply_piece(&p, p0);
  }
}

int sq_gemm512_available(void)
{
  static _Atomic int known; /* 0: not asked, 1: no, 2: yes */
  if (known == 0)
    known = 1 + (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  return known == 2;
}

#else

int sq_gemm512_available(void)
{
  return 0;
}

void sq_gemm512(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
                const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc)
{
  (void)ta, (void)tb, (void)m, (void)n, (void)k, (void)alpha, (void)A, (void)lda, (void)B, (void)ldb,
      (void)beta, (void)C, (void)ldc;
  SQ_ASSERT(0); /* not available */
}

#endif
