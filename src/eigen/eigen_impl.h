/* src/eigen/eigen_impl.h: the prototypes of BLACS and ScaLAPACK (32-bit integers), which only this module has. */
#pragma once

#include "sq/eigen.h"

struct sq_pgrid {
  sq_pgrid_shape shape;
  int handle, context; /* of the BLACS; context -1: not in the grid */
  int everyone; /* context of all ranks of the communicator, 1 x P: what moves between grids needs one */
};

/* ScaLAPACK's PXERBLA prints and goes on.  Ours keeps the complaint: begin forgets, and end says what there was
   since, on any rank, together with st. */
void sq_complaint_begin(void);
sq_status sq_complaint_end(MPI_Comm comm, sq_status st);

#ifdef SQ_HAVE_SCALAPACK
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int *context, char *order, int nprow, int npcol);
void Cblacs_gridexit(int context);

int numroc_(const int *n, const int *nb, const int *iproc, const int *isrc, const int *nprocs);
void descinit_(int *desc, const int *m, const int *n, const int *mb, const int *nb, const int *irsrc,
               const int *icsrc, const int *context, const int *lld, int *info);

/* Submatrices begin at (ia, ja), from 1.  `context` spans both grids. */
void pzgemr2d_(const int *m, const int *n, const sq_complex *a, const int *ia, const int *ja,
               const int *desca, sq_complex *b, const int *ib, const int *jb, const int *descb,
               const int *context);
void pdgemr2d_(const int *m, const int *n, const double *a, const int *ia, const int *ja, const int *desca,
               double *b, const int *ib, const int *jb, const int *descb, const int *context);

/* C = beta C + alpha A^T */
void pztranu_(const int *m, const int *n, const sq_complex *alpha, const sq_complex *a, const int *ia,
              const int *ja, const int *desca, const sq_complex *beta, sq_complex *c, const int *ic,
              const int *jc, const int *descc);
void pdtran_(const int *m, const int *n, const double *alpha, const double *a, const int *ia, const int *ja,
             const int *desca, const double *beta, double *c, const int *ic, const int *jc, const int *descc);

void pzgehrd_(const int *n, const int *ilo, const int *ihi, sq_complex *a, const int *ia, const int *ja,
              const int *desca, sq_complex *tau, sq_complex *work, const int *lwork, int *info);
void pdgehrd_(const int *n, const int *ilo, const int *ihi, double *a, const int *ia, const int *ja,
              const int *desca, double *tau, double *work, const int *lwork, int *info);
void pzlahqr_(const int *wantt, const int *wantz, const int *n, const int *ilo, const int *ihi, sq_complex *a,
              const int *desca, sq_complex *w, const int *iloz, const int *ihiz, sq_complex *z,
              const int *descz, sq_complex *work, const int *lwork, int *iwork, const int *liwork, int *info);
void pdhseqr_(const char *job, const char *compz, const int *n, const int *ilo, const int *ihi, double *h,
              const int *desch, double *wr, double *wi, double *z, const int *descz, double *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t job_length,
              size_t compz_length);

void pzgetrf_(const int *m, const int *n, sq_complex *a, const int *ia, const int *ja, const int *desca,
              int *ipiv, int *info);
void pzgetrs_(const char *trans, const int *n, const int *nrhs, const sq_complex *a, const int *ia,
              const int *ja, const int *desca, const int *ipiv, sq_complex *b, const int *ib, const int *jb,
              const int *descb, int *info, size_t trans_length);
void pzgemv_(const char *trans, const int *m, const int *n, const sq_complex *alpha, const sq_complex *a,
             const int *ia, const int *ja, const int *desca, const sq_complex *x, const int *ix,
             const int *jx, const int *descx, const int *incx, const sq_complex *beta, sq_complex *y,
             const int *iy, const int *jy, const int *descy, const int *incy, size_t trans_length);
#endif
