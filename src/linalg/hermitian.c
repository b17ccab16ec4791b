/* src/linalg/hermitian.c: the complex Hermitian eigenproblem. */
#include <complex.h>
#include <limits.h>
#include <math.h>

#include "sq/base.h"
#include "sq/linalg.h"

void zheevd_(const char *jobz, const char *uplo, const int *n, sq_complex *a, const int *lda, double *w,
             sq_complex *work, const int *lwork, double *rwork, const int *lrwork, int *iwork,
             const int *liwork, int *info, size_t jobz_length, size_t uplo_length);

/* ZHEEVD with JOBZ = 'V', LAPACK 3.10 documentation: 2n + n^2 complex, 1 + 5n + 2n^2 real, 3 + 5n integers; 64n
   complex more let its reduction block. */
static size_t complex_work(size_t n)
{
  return 66 * n + n * n;
}

static size_t real_work(size_t n)
{
  return 1 + 5 * n + 2 * n * n;
}

size_t sq_hermitian_work(int n)
{
  return 2 * complex_work((size_t)n) + real_work((size_t)n) + 3 + 5 * (size_t)n;
}

/* LAPACK's matrix is A^T = conj(A), with eigenvectors conj(v_j) in its columns: our rows.  Its upper triangle is
   our lower one. */
sq_status sq_hermitian_eig(int n, sq_complex *A, double *w, double *work)
{
  if (n == 0) return SQ_OK;
  const size_t size = (size_t)n;
  for (size_t i = 0; i < size * size; ++i)
    if (!isfinite(creal(A[i])) || !isfinite(cimag(A[i])))
      return sq_fail(SQ_ERR_INTERNAL, "eigenvalues of a matrix that is not finite");
  SQ_ASSERT(real_work(size) <= INT_MAX);
  const int lwork = (int)complex_work(size), lrwork = (int)real_work(size), liwork = 3 + 5 * n;
  double *rwork = work + 2 * complex_work(size);
  int *iwork = (int *)(void *)(rwork + real_work(size)), info = 0;
  zheevd_("V", "U", &n, A, &n, w, (sq_complex *)(void *)work, &lwork, rwork, &lrwork, iwork, &liwork, &info,
          1, 1);
  SQ_ASSERT(info >= 0);
  return info == 0 ? SQ_OK : sq_fail(SQ_ERR_INTERNAL, "ZHEEVD did not converge on a %d x %d matrix", n, n);
}
