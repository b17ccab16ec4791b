/* include/sq/linalg.h: dense kernels.  The only place with BLAS/LAPACK names, leading dimensions narrowed to
 * the BLAS integer, and anything special to one BLAS (src/linalg/vendor.c).  Matrices are row-major. */
#pragma once

#include <stddef.h>

#include "sq/real.h"
#include "sq/status.h"

typedef enum { SQ_N = 0, SQ_T = 1 } sq_trans;

/* C (m,n) = alpha op(A) op(B) + beta C, op(A) (m,k), op(B) (k,n); ld* = row strides.  Empty products are
   fine. sq_gemm works in sq_real, sq_dgemm in double. */
void sq_gemm(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
             const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc);
void sq_dgemm(sq_trans ta, sq_trans tb, int m, int n, int k, double alpha, const double *A, int lda,
              const double *B, int ldb, double beta, double *C, int ldc);

/* Householder QR, R only: A (m,n) row-major with row stride n is overwritten; R (n,n) upper triangular, zero
   below (rows beyond min(m,n) are zero).  work: sq_qr_work(m,n) doubles. */
size_t sq_qr_work(int m, int n);
sq_status sq_qr_r(int m, int n, double *A, double *R, double *work);
/* Singular values, descending, s (min(m,n)); A (m,n) overwritten.  work: sq_svd_work(m,n) doubles.
   SQ_ERR_INTERNAL if DGESDD does not converge or A is not finite. */
size_t sq_svd_work(int m, int n);
sq_status sq_svd_values(int m, int n, double *A, double *s, double *work);

/* ---- the BLAS itself --------------------------------------------------------------------------------- */
typedef struct {
  char name[96];   /* "OpenBLAS 0.3.21", "reference BLAS", ... */
  char kernel[32]; /* "Haswell", "" if unknown */
  int threads;
} sq_blas_info;
sq_blas_info sq_blas_describe(void);
void sq_blas_set_threads(int n); /* no effect where the BLAS cannot */
/* NULL if the kernel suits the CPU, else the advice, one line, with the exact variable to set. */
const char *sq_blas_advice(void);
const char *sq_cpu_model(void); /* "AMD EPYC 9B45", from /proc/cpuinfo */
