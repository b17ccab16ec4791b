/* src/linalg/complex.c: products and linear systems of complex matrices, float64. */
#include <cblas.h>

#include "sq/base.h"
#include "sq/linalg.h"

void zgetrf_(const int *m, const int *n, sq_complex *a, const int *lda, int *ipiv, int *info);
void zgetrs_(const char *trans, const int *n, const int *nrhs, const sq_complex *a, const int *lda,
             const int *ipiv, sq_complex *b, const int *ldb, int *info, size_t trans_length);

void sq_zgemm(int m, int n, int k, const sq_complex *A, int lda, const sq_complex *B, int ldb, sq_complex *C,
              int ldc)
{
  const sq_complex one = 1, zero = 0;
  SQ_ASSERT(m >= 1 && n >= 1 && k >= 1);
  cblas_zgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, &one, A, lda, B, ldb, &zero, C, ldc);
}

/* LAPACK's matrix is A^T. */
sq_status sq_zsolve(sq_trans t, int n, sq_complex *A, sq_complex *x, int *pivot)
{
  const int one = 1;
  int info = 0;
  SQ_ASSERT(n >= 1);
  zgetrf_(&n, &n, A, &n, pivot, &info);
  SQ_ASSERT(info >= 0);
  if (info > 0) return sq_fail(SQ_ERR_INTERNAL, "a linear system of %d unknowns is singular", n);
  zgetrs_(t == SQ_T ? "N" : "T", &n, &one, A, &n, pivot, x, &n, &info, 1);
  SQ_ASSERT(info == 0);
  return SQ_OK;
}
