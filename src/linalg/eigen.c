/* src/linalg/eigen.c: eigenvalues of dense complex matrices, by LAPACK in float64. */
#include <limits.h>
#include <math.h>

#include "sq/base.h"
#include "sq/linalg.h"

void zgeev_(const char *jobvl, const char *jobvr, const int *n, sq_complex *a, const int *lda, sq_complex *w,
            sq_complex *vl, const int *ldvl, sq_complex *vr, const int *ldvr, sq_complex *work,
            const int *lwork, double *rwork, int *info, size_t, size_t);
void zgeevx_(const char *balanc, const char *jobvl, const char *jobvr, const char *sense, const int *n,
             sq_complex *a, const int *lda, sq_complex *w, sq_complex *vl, const int *ldvl, sq_complex *vr,
             const int *ldvr, int *ilo, int *ihi, double *scale, double *abnrm, double *rconde,
             double *rcondv, sq_complex *work, const int *lwork, double *rwork, int *info, size_t, size_t,
             size_t, size_t);

/* LWORK >= 2n in ZGEEV and ZGEEVX (LAPACK 3.10); 64 n more lets the reduction work in blocks. */
static size_t lwork_of(int n)
{
  return 66 * (size_t)n + 64;
}

static int is_finite(int n, const sq_complex *A)
{
  for (size_t k = 0; k < (size_t)n * (size_t)n; ++k)
    if (!isfinite(creal(A[k])) || !isfinite(cimag(A[k]))) return 0;
  return 1;
}

size_t sq_eigenvalues_work(int n)
{
  return 2 * lwork_of(n) + 2 * (size_t)n;
}

/* LAPACK sees the transpose, which has the same eigenvalues. */
sq_status sq_eigenvalues(int n, sq_complex *A, sq_complex *w, double *work)
{
  const int one = 1, lwork = (int)lwork_of(n);
  int info = 0;
  if (n == 0) return SQ_OK;
  if (!is_finite(n, A)) return sq_fail(SQ_ERR_INTERNAL, "eigenvalues of a matrix that is not finite");
  SQ_ASSERT(lwork_of(n) <= INT_MAX);
  zgeev_("N", "N", &n, A, &n, w, NULL, &one, NULL, &one, (sq_complex *)(void *)work, &lwork,
         work + 2 * lwork_of(n), &info, 1, 1);
  SQ_ASSERT(info >= 0);
  return info == 0 ? SQ_OK : sq_fail(SQ_ERR_INTERNAL, "ZGEEV did not converge on a %d x %d matrix", n, n);
}

size_t sq_eigenvalues_condition_work(int n)
{
  return 2 * lwork_of(n) + 4 * (size_t)n + 4 * (size_t)n * (size_t)n;
}

/* BALANC = 'N': s belongs to the matrix as it stands, not to a scaled one.  The transpose exchanges left and
   right eigenvectors (conjugated), and |y^H x| stays. */
sq_status sq_eigenvalues_condition(int n, sq_complex *A, sq_complex *w, double *s, double *work)
{
  const size_t nn = (size_t)n * (size_t)n, lw = lwork_of(n);
  const int lwork = (int)lw;
  int info = 0, ilo, ihi;
  double norm;
  if (n == 0) return SQ_OK;
  if (!is_finite(n, A)) return sq_fail(SQ_ERR_INTERNAL, "eigenvalues of a matrix that is not finite");
  SQ_ASSERT(lw <= INT_MAX);
  sq_complex *left = (sq_complex *)(void *)(work + 2 * lw), *right = left + nn;
  double *rwork = (double *)(void *)(right + nn), *scale = rwork + 2 * (size_t)n, *separation = scale + n;
  zgeevx_("N", "V", "V", "E", &n, A, &n, w, left, &n, right, &n, &ilo, &ihi, scale, &norm, s, separation,
          (sq_complex *)(void *)work, &lwork, rwork, &info, 1, 1, 1, 1);
  SQ_ASSERT(info >= 0);
  return info == 0 ? SQ_OK : sq_fail(SQ_ERR_INTERNAL, "ZGEEVX did not converge on a %d x %d matrix", n, n);
}
