/* src/linalg/dense.c: row-major matrices over column-major libraries. */
#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/parallel.h"

/* LAPACK, 32-bit integers (checked when the build is configured). */
void dgelqf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work,
             const int *lwork, int *info);
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
             const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork,
             int *info, size_t jobz_length);

static CBLAS_TRANSPOSE blas_trans(sq_trans t)
{
  return t == SQ_N ? CblasNoTrans : CblasTrans;
}

/* BLAS insists on leading dimensions of at least 1 and, for some builds, on non-null pointers: an empty
   product is done here. */
#define DEFINE_GEMM(storage, name, real, cblas)                                                              \
  storage void name(sq_trans ta, sq_trans tb, int m, int n, int k, real alpha, const real *A, int lda,       \
                    const real *B, int ldb, real beta, real *C, int ldc)                                     \
  {                                                                                                          \
    SQ_ASSERT(m >= 0 && n >= 0 && k >= 0);                                                                   \
    if (m == 0 || n == 0) return;                                                                            \
    if (k == 0) {                                                                                            \
      for (int i = 0; i < m; ++i)                                                                            \
        for (int j = 0; j < n; ++j) {                                                                        \
          real *c = C + (size_t)i * (size_t)ldc + j;                                                         \
          *c = beta == 0 ? 0 : beta * *c;                                                                    \
        }                                                                                                    \
      return;                                                                                                \
    }                                                                                                        \
    cblas(CblasRowMajor, blas_trans(ta), blas_trans(tb), m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);      \
  }

#ifdef SQ_DOUBLE
DEFINE_GEMM(static, whole_gemm, double, cblas_dgemm)
#else
DEFINE_GEMM(static, whole_gemm, float, cblas_sgemm)
#endif

/* Large products are tiles of rows of C, or of columns where there are few rows: whole ones at fixed places, so that
   what a library's kernels make of a tile does not depend on who computes it.  Smaller tiles share the work better and
   pack the other matrix more often. */
enum { TILE_ROWS = 256, TILE_COLUMNS = 512 };
#define TILES_FROM 4e6 /* multiply-adds: below, starting followers costs more than they give */

typedef struct {
  sq_trans ta, tb;
  int m, n, k, lda, ldb, ldc, by_rows, ntile;
  sq_real alpha, beta;
  const sq_real *A, *B;
  sq_real *C;
} product;

/* Rows or columns i of op(X) on. */
static const sq_real *from(const sq_real *X, int ld, int along, int i)
{
  return X + (along ? (size_t)i * (size_t)ld : (size_t)i);
}

/* The last tile takes what is left over. */
static void tile(void *ctx, int i)
{
  const product *p = ctx;
  const int size = p->by_rows ? TILE_ROWS : TILE_COLUMNS, all = p->by_rows ? p->m : p->n, at = i * size,
            count = i + 1 < p->ntile ? size : all - at;
  if (p->by_rows)
    whole_gemm(p->ta, p->tb, count, p->n, p->k, p->alpha, from(p->A, p->lda, p->ta == SQ_N, at), p->lda, p->B,
               p->ldb, p->beta, p->C + (size_t)at * (size_t)p->ldc, p->ldc);
  else
    whole_gemm(p->ta, p->tb, p->m, count, p->k, p->alpha, p->A, p->lda, from(p->B, p->ldb, p->tb == SQ_T, at),
               p->ldb, p->beta, p->C + at, p->ldc);
}

void sq_gemm(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
             const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc)
{
  product p = {ta, tb, m, n, k, lda, ldb, ldc, 1, m / TILE_ROWS, alpha, beta, A, B, C};
  if (p.ntile < 2) {
    p.by_rows = 0;
    p.ntile = n / TILE_COLUMNS;
  }
  if (p.ntile < 2 || (double)m * n * k < TILES_FROM)
    whole_gemm(ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
  else
    sq_parallel_blocks(p.ntile, tile, &p);
}
DEFINE_GEMM(, sq_dgemm, double, cblas_dgemm)

/* A row-major (m,n) matrix is LAPACK's A^T (n,m), so its QR is LAPACK's LQ of A^T: A^T = L Q^T, R = L^T.  The
   block size of DGELQF is at most 64 in every library met; n * 64 is its optimal workspace. */
#define LAPACK_BLOCK 64

size_t sq_qr_work(int m, int n)
{
  return (size_t)sq_min(m, n) + (size_t)n * LAPACK_BLOCK + 64;
}

sq_status sq_qr_r(int m, int n, double *A, double *R, double *work)
{
  memset(R, 0, (size_t)n * (size_t)n * sizeof *R);
  if (m == 0 || n == 0) return SQ_OK;
  const int k = sq_min(m, n), lwork = n * LAPACK_BLOCK + 64;
  int info = 0;
  dgelqf_(&n, &m, A, &n, work, work + k, &lwork, &info);
  SQ_ASSERT(info == 0); /* DGELQF fails for bad arguments only */
  for (int i = 0; i < k; ++i)
    for (int j = i; j < n; ++j) R[(size_t)i * (size_t)n + (size_t)j] = A[(size_t)i * (size_t)n + (size_t)j];
  return SQ_OK;
}

/* DGESDD with JOBZ = 'N', LAPACK 3.10 documentation: LWORK >= 3 min + max(max, 7 min); 64 (m + n) more lets
   it block. Its 8 min integers are kept in the same array. */
static size_t svd_lwork(int m, int n)
{
  const size_t a = (size_t)sq_min(m, n), b = (size_t)(m > n ? m : n);
  return 3 * a + (b > 7 * a ? b : 7 * a) + LAPACK_BLOCK * (a + b);
}

size_t sq_svd_work(int m, int n)
{
  return svd_lwork(m, n) + 8 * (size_t)sq_min(m, n) + 8;
}

sq_status sq_svd_values(int m, int n, double *A, double *s, double *work)
{
  const int one = 1;
  if (m == 0 || n == 0) return SQ_OK;
  for (size_t i = 0; i < (size_t)m * (size_t)n; ++i)
    if (!isfinite(A[i])) return sq_fail(SQ_ERR_INTERNAL, "singular values of a matrix that is not finite");
  const size_t size = svd_lwork(m, n);
  SQ_ASSERT(size <= INT_MAX);
  const int lwork = (int)size;
  int info = 0, *iwork = (int *)(void *)(work + size);
  dgesdd_("N", &n, &m, A, &n, s, NULL, &one, NULL, &one, work, &lwork, iwork, &info,
          1); /* the transpose has the same values */
  SQ_ASSERT(info >= 0);
  return info == 0 ? SQ_OK : sq_fail(SQ_ERR_INTERNAL, "DGESDD did not converge on a %d x %d matrix", m, n);
}
