/* include/sq/eigen.h: dense eigenproblems over the ranks of a communicator.
 *
 * Process grids, block-cyclic matrices and what ScaLAPACK needs to be right.  Every function that takes a
 * communicator, grid or matrix is collective on it unless it says otherwise, and all ranks return the same
 * status with the same text: an error of one is an error of all, at once.
 *
 *   n order of a matrix   NB block size   (i,j) global indices from 0
 *
 * A matrix (m,n) lives in square blocks of NB, dealt out over nprow x npcol processes as cards are: process
 * (p,q) holds the blocks (p + k nprow, q + l npcol), kept together column-major with leading dimension `rows`.
 * Ranks outside of the grid, and ranks of it that get no block, hold nothing and take part all the same. */
#pragma once

#include <mpi.h>
#include <stddef.h>

#include "sq/linalg.h"
#include "sq/real.h"
#include "sq/status.h"

/* 1 if the program was built with ScaLAPACK; without it only the secular solver works, the others say
   SQ_ERR_USAGE. */
int sq_eigen_has_scalapack(void);
const char *sq_eigen_scalapack(void); /* "libscalapack-openmpi.so", or why there is none */

/* Status of the lowest rank that has an error, and its text, on all ranks. */
sq_status sq_eigen_agree(MPI_Comm comm, sq_status st);

/* ---- process grids ----------------------------------------------------------------------------------- */
typedef struct sq_pgrid sq_pgrid;
typedef struct {
  MPI_Comm comm;
  int rank, nrank;
  int nprow, npcol;
  int myrow, mycol; /* -1: this rank is not in the grid */
} sq_pgrid_shape;

/* nprow x npcol <= ranks of comm, nprow <= npcol, as nearly square as uses most ranks: among all shapes the one
   with the most processes, then the least nprow + npcol (what a rank sends in a reduction grows with both), except
   that a shape more than four times as wide as high yields to a smaller one (7 ranks: 2 x 3, not 1 x 7). No more
   processes in a direction than there are blocks ceil(n/NB).  comm is borrowed: it must live as long. */
sq_status sq_pgrid_create(MPI_Comm comm, int n, int NB, sq_pgrid **g);
sq_status sq_pgrid_create_shape(MPI_Comm comm, int nprow, int npcol, sq_pgrid **g);
void sq_pgrid_destroy(sq_pgrid **g);
sq_pgrid_shape sq_pgrid_describe(const sq_pgrid *g); /* not collective */
/* What create chooses, for P ranks. Not collective. */
void sq_pgrid_choose(int P, int n, int NB, int *nprow, int *npcol);

/* ---- block-cyclic matrices --------------------------------------------------------------------------- */
#define SQ_EIGEN_BLOCK 64 /* best of 32, 64, 128 for the eigenvalue routines, two ranks, n = 1000 .. 2000 */
/* Smallest block that the QR iterations take: with 4 they refuse (info -705 or -706), by documentation 6. */
#define SQ_EIGEN_MIN_BLOCK 6

typedef struct {
  const sq_pgrid *grid; /* borrowed */
  int m, n, NB;
  int rows, cols; /* of this rank's part; 0, 0 outside of the grid */
  int desc[9];    /* as ScaLAPACK wants it; context -1 outside of the grid */
} sq_dist;

/* SQ_ERR_USAGE if m, n or NB is not positive. */
sq_status sq_dist_init(sq_dist *d, const sq_pgrid *g, int m, int n, int NB);
/* Elements of this rank's part, at least 1, so that there is something to point to. Not collective. */
size_t sq_dist_count(const sq_dist *d);
/* Global index of local row / column. Not collective. */
int sq_dist_row(const sq_dist *d, int local);
int sq_dist_col(const sq_dist *d, int local);

/* Entries by a function, called for the local ones only; the same function of (i,j) on all ranks.  Not
   collective. */
typedef sq_complex (*sq_entry)(const void *user, int i, int j);
typedef double (*sq_entry_real)(const void *user, int i, int j);
void sq_dist_fill(const sq_dist *d, sq_entry entry, const void *user, sq_complex *a);
void sq_dist_fill_real(const sq_dist *d, sq_entry_real entry, const void *user, double *a);

/* Between grids and block sizes; both grids over the same communicator. SQ_ERR_USAGE if the shapes differ. */
sq_status sq_dist_move(const sq_dist *from, const sq_complex *a, const sq_dist *to, sq_complex *b);
sq_status sq_dist_move_real(const sq_dist *from, const double *a, const sq_dist *to, double *b);
/* From and to a whole row-major matrix (m,n) on rank 0 (ignored, may be NULL, elsewhere). */
sq_status sq_dist_scatter(const sq_dist *d, const sq_complex *full, sq_complex *a);
sq_status sq_dist_gather(const sq_dist *d, const sq_complex *a, sq_complex *full);
sq_status sq_dist_scatter_real(const sq_dist *d, const double *full, double *a);
sq_status sq_dist_gather_real(const sq_dist *d, const double *a, double *full);

/* ---- all eigenvalues of a general matrix ---------------------------------------------------------------- */
/* How good they are.  If the values are those of A + E, then |sum lambda - tr A| <= sqrt(n) |E| and
   |sum lambda^2 - tr A^2| <= 2 |A| |E| to first order (Frobenius norms); the two errors are given as fractions
   of sqrt(n) |A| and 2 |A|^2, so each is a lower bound on the relative backward error |E|/|A|.  residual is
   an upper bound for a sample of the values (smallest, largest and evenly between by modulus):
   |(A - lambda) x| / (|A| |x|) after two steps of inverse iteration on (A - lambda)^H (A - lambda). */
typedef struct {
  double trace_error, square_error, residual;
  int nsample;
  double norm;                         /* |A| */
  double reduce_s, iterate_s, check_s; /* Hessenberg reduction, QR iteration, the rest; rank 0's clock */
} sq_eigen_report;
/* What the errors of a backward stable method stay below: 10 n eps. */
double sq_eigen_limit(int n);

/* Eigenvalues of a (n,n), which is kept; on all ranks, in the order of the diagonal of the Schur form.
   Complex: PZGEHRD, PZLAHQR.  Real: PDGEHRD, PDHSEQR with JOB = 'S'.

   @param[in]  a       this rank's part
   @param[in]  nsample values to take residuals of (each costs an LU factorisation); 0: none
   @param[out] lambda  (n) on every rank
   SQ_ERR_USAGE      not square, NB < SQ_EIGEN_MIN_BLOCK, or built without ScaLAPACK
   SQ_ERR_DATA       an entry is not finite
   SQ_ERR_INTERNAL   no convergence, a complaint of the library's own argument checks, or one of the three
                     errors is above sq_eigen_limit(n): a result that is wrong is not given as right
   SQ_ERR_MEMORY */
sq_status sq_eigen_values(const sq_dist *d, const sq_complex *a, int nsample, sq_complex *lambda,
                          sq_eigen_report *r);
sq_status sq_eigen_values_real(const sq_dist *d, const double *a, int nsample, sq_complex *lambda,
                               sq_eigen_report *r);

/* ---- a diagonal plus a matrix of rank one ------------------------------------------------------------------- */
/* sq_secular_solve() with each sweep shared out over the ranks: the same numbers, bit for bit, on any number of
   them; A, r->mu (if started) the same on all ranks, r complete on all.  work: sq_eigen_secular_bytes(), 64-byte
   aligned.  Needs no ScaLAPACK. */
size_t sq_eigen_secular_bytes(MPI_Comm comm, int n); /* not collective */
void sq_eigen_secular(MPI_Comm comm, const sq_rank_one *A, int started, sq_secular *r, void *work);
