/* include/sq/linalg.h: dense kernels.  The only place with BLAS/LAPACK names, leading dimensions narrowed to
 * the BLAS integer, and anything special to one BLAS (src/linalg/vendor.c).  Matrices are row-major. */
#pragma once

#include <stddef.h>

#include "sq/base.h"
#include "sq/real.h"
#include "sq/status.h"

typedef enum { SQ_N = 0, SQ_T = 1 } sq_trans;

/* C (m,n) = alpha op(A) op(B) + beta C, op(A) (m,k), op(B) (k,n); ld* = row strides.  Empty products are
   fine. sq_gemm works in sq_real, large products in fixed tiles by the threads of the calling group
   (sq/parallel.h); sq_dgemm works in double, alone. */
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

/* ---- eigenvalues of complex matrices, float64 --------------------------------------------------------- */
/* Eigenvalues w (n), in LAPACK's order; A (n,n) is overwritten.  ZGEEV, which balances (scales and permutes) A.
   work: doubles.  SQ_ERR_INTERNAL if it does not converge or A is not finite. */
size_t sq_eigenvalues_work(int n);
sq_status sq_eigenvalues(int n, sq_complex *A, sq_complex *w, double *work);
/* With the reciprocal condition number s = |y^H x| of each (unit eigenvectors): a change E of A moves it by about
   |E|/s.  ZGEEVX, SENSE = 'E', BALANC = 'N': s of A as it stands, not of a balanced one. */
size_t sq_eigenvalues_condition_work(int n);
sq_status sq_eigenvalues_condition(int n, sq_complex *A, sq_complex *w, double *s, double *work);

/* A = diag(d) - u v^* (v^*: conjugate transpose); u and v may be the same array. */
typedef struct {
  int n;
  const sq_complex *d, *u, *v; /* (n) each */
} sq_rank_one;
typedef struct {
  sq_complex *mu; /* (n) in: where to start; out: eigenvalues */
  double *radius; /* (n) of the disc around mu that holds its eigenvalue, rounding of mu included; INFINITY */
  int *certified; /* (n) 1: proven, its disc (before mu was rounded) has one eigenvalue and meets no other */
  int sweeps, ncertified;
  const sq_stop
      *stop; /* or NULL: asked before each value of a sweep, for one process alone; then nothing in mu, radius
                          and certified is to be used */
} sq_secular;
/* Eigenvalues by the secular equation in quadruple precision, O(n^2) a sweep (src/linalg/secular.c).
   started: r->mu holds float64 values; else they are found in float64 first, O(n^2) a sweep.  Entries of d with
   u v^* = 0, and all but one of equal entries, are eigenvalues as they are (radius 0).  work:
   sq_secular_bytes(n), 64-byte aligned. */
size_t sq_secular_bytes(int n);
void sq_secular_solve(const sq_rank_one *A, int started, sq_secular *r, void *work);
/* The same numbers, bit for bit, with the work of each sweep shared out: all processes call it with the same
   problem, each does the values sq_secular_first(m, rank, nrank) .. sq_secular_first(m, rank + 1, nrank) - 1 of m, whole
   blocks, and exchange() brings together an array of m elements of which each process has its own. */
#define SQ_SECULAR_BLOCK 32
int sq_secular_first(int m, int rank, int nrank);
typedef struct {
  int rank, nrank;
  void (*exchange)(void *user, int m, void *data, size_t bytes /* of an element */);
  void *user;
} sq_secular_share;
void sq_secular_solve_shared(const sq_rank_one *A, int started, const sq_secular_share *share, sq_secular *r,
                             void *work); /* share NULL: alone */
/* In float64 only, without proof: as good as ZGEEV, O(n^2) a sweep. */
void sq_secular_estimate(const sq_rank_one *A, const sq_stop *stop, sq_complex *mu, void *work);

typedef struct {
  double backward_error; /* |A x - z x| / (|A|_F |x|), x the eigenvector that belongs to z */
  double condition;      /* s = |y^H x| of unit eigenvectors, as above */
  double sensitivity; /* |change of z| to first order when every d, u, v changes by `relative` of its size */
} sq_eigenvalue_quality;
/* O(n), in quadruple precision.  NaN where z is an entry of d but what is asked does not follow from that. */
void sq_rank_one_eigenvalue(const sq_rank_one *A, sq_complex z, double relative, sq_eigenvalue_quality *q);
double sq_rank_one_norm(const sq_rank_one *A); /* Frobenius */

/* ---- complex.c: float64 ---------------------------------------------------------------------------------
 */
/* C (m,n) = A (m,k) B (k,n); ld* = row strides. */
void sq_zgemm(int m, int n, int k, const sq_complex *A, int lda, const sq_complex *B, int ldb, sq_complex *C,
              int ldc);
/* Solves A x = x (SQ_N) or A^T x = x (SQ_T) in place by LU; A (n,n), row stride n, is overwritten; pivot (n).
   SQ_ERR_INTERNAL if A is singular. */
sq_status sq_zsolve(sq_trans t, int n, sq_complex *A, sq_complex *x, int *pivot);

/* ---- fft.c: real Fourier transforms of one length, FFTW -------------------------------------------------- */
/* Plans depend on the length alone (FFTW_ESTIMATE), so results do not depend on timing.  Creating and
   destroying them is not thread safe; transforming is.  Arrays are aligned to 64 bytes. */
typedef struct sq_fft sq_fft;
sq_status sq_fft_create(int n, sq_fft **f); /* n >= 1, any; SQ_ERR_MEMORY */
void sq_fft_destroy(sq_fft **f);
int sq_fft_length(const sq_fft *f);
/* X_k = sum_j x_j exp(-2 pi i jk/n), k = 0..n/2, as re, im pairs (n/2+1, 2); x (n) may be destroyed. */
void sq_fft_forward(const sq_fft *f, sq_real *x, sq_real *X);
/* x_j = sum_(k=0..n-1) X_k exp(2 pi i jk/n) with X_(n-k) = conj(X_k): not divided by n.  X is destroyed; the
   imaginary parts of X_0 and, for even n, X_(n/2) are ignored. */
void sq_fft_backward(const sq_fft *f, sq_real *X, sq_real *x);
/* The same in double, whatever sq_real is. */
typedef struct sq_dfft sq_dfft;
sq_status sq_dfft_create(int n, sq_dfft **f);
void sq_dfft_destroy(sq_dfft **f);
void sq_dfft_forward(const sq_dfft *f, double *x, double *X);
void sq_dfft_backward(const sq_dfft *f, double *X, double *x);
/* Smallest m 2^a >= n with m = 1, 3, 5, 9 or 15: a length that is transformed fast, at most n 5/4.  n >= 1. */
int sq_fft_good_length(int n);

/* ---- the BLAS itself --------------------------------------------------------------------------------- */
typedef struct {
  char name[96];   /* "OpenBLAS 0.3.21", "reference BLAS", ... */
  char kernel[32]; /* "Haswell", "" if unknown */
  int threads;
} sq_blas_info;
sq_blas_info sq_blas_describe(void);
/* Has the BLAS take its buffer now, by a small product.  SQ_ERR_USAGE if ulimit leaves no room: OpenBLAS would try for ever. */
sq_status sq_blas_reserve(void);
void sq_blas_set_threads(int n); /* no effect where the BLAS cannot */
/* NULL if the kernel suits the CPU, else the advice, one line, with the exact variable to set. */
const char *sq_blas_advice(void);
int sq_blas_is_asked_for(void); /* the environment names the kernel that runs */
const char *sq_cpu_model(void); /* "AMD EPYC 9B45", from /proc/cpuinfo */
