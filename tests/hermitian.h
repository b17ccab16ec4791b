/* tests/hermitian.h: the complex Hermitian eigenproblem by LAPACK, against which closed forms are checked. */
#pragma once

#include <complex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h> /* needs those above */

#include "sq/real.h"

void zheevd_(const char *jobz, const char *uplo, const int *n, sq_complex *a, const int *lda, double *w,
             sq_complex *work, const int *lwork, double *rwork, const int *lrwork, int *iwork,
             const int *liwork, int *info, size_t jobz_length, size_t uplo_length);

/* A (n,n) = V diag(w) V^*, w (n) ascending; A (its lower triangle is read) is overwritten by V^*: row j is the conjugate
   of eigenvector j, whose phase is free.  LAPACK's matrix is A^T = conj(A), with eigenvectors conj(v_j) in its columns:
   our rows.  Its upper triangle is our lower one.  Work space: ZHEEVD with JOBZ = 'V', LAPACK 3.10 documentation. */
static void hermitian_eig(int n, sq_complex *A, double *w)
{
  const int lwork = n * n + 2 * n, lrwork = 1 + 5 * n + 2 * n * n, liwork = 3 + 5 * n;
  sq_complex *work = calloc((size_t)lwork, sizeof *work);
  double *rwork = calloc((size_t)lrwork, sizeof *rwork);
  int *iwork = calloc((size_t)liwork, sizeof *iwork), info = 0;
  assert_true(work && rwork && iwork);
  zheevd_("V", "U", &n, A, &n, w, work, &lwork, rwork, &lrwork, iwork, &liwork, &info, 1, 1);
  assert_int_equal(info, 0);
  free(work);
  free(rwork);
  free(iwork);
}
