/* src/eigen/values.c: all eigenvalues of a distributed general matrix, checked.
 *
 * Hessenberg reduction, then QR iteration: PZLAHQR for complex matrices (there is no PZHSEQR; it works, unblocked and
 * slow), PDHSEQR for real ones.  ScaLAPACK 2.2.1 has traps here, found by running it:
 *
 *   1. PDHSEQR's workspace query takes IWORK for the selection of a deflation window and writes to it, up to about n
 *      elements: a query with a few integers overruns them (seen: 97 at n = 1000 .. 2000, 11 at n = 100).
 *   2. The LWORK it returns is too small from n = 300 on ("PDLAQR1 parameter number 15", then wrong values with info = 0,
 *      a crash or a hang).  1.05 times was not enough; 3 times was in every run up to n = 2000.
 *   3. JOB = 'E' gives wrong values with info = 0 above the size where it changes its algorithm; JOB = 'S' is
 *      right.
 *   4. Blocks of less than 5 are refused with info = 0 or a negative one.
 *   5. P?GEHRD leaves its Householder vectors below the subdiagonal, where the iterations read them.
 *   6. PDHSEQR gives wrong values with info = 0 where NB divides n, for about half of these n above 120 (errors of 1e-3 |A| at
 *      n = 128, 192, 576, 640, 1024 with NB = 64, on 1, 2 and 4 ranks); no n that NB does not divide was wrong.
 *
 * Because of these the result is validated here, and a complaint of PXERBLA is an error. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eigen_impl.h"
#include "sq/base.h"

double sq_eigen_limit(int n)
{
  return 10 * (double)n * DBL_EPSILON;
}

#ifdef SQ_HAVE_SCALAPACK
static const int one = 1;

/* ---- what both precisions share ------------------------------------------------------------------------- */
static sq_status check_shape(const sq_dist *d)
{
  if (d->m != d->n) return sq_fail(SQ_ERR_USAGE, "eigenvalues of a matrix of %d x %d", d->m, d->n);
  if (d->NB < SQ_EIGEN_MIN_BLOCK)
    return sq_fail(SQ_ERR_USAGE, "eigenvalues with blocks of %d: ScaLAPACK's QR iteration needs at least %d",
                   d->NB, SQ_EIGEN_MIN_BLOCK);
  return SQ_OK;
}

typedef struct {
  sq_complex trace, square;
  double norm;
} moments;

/* Sums over all ranks: sum[0] |a|^2, then trace and trace of the square. */
static moments moments_reduce(MPI_Comm comm, const double mine[5])
{
  double sum[5];
  MPI_Allreduce(mine, sum, 5, MPI_DOUBLE, MPI_SUM, comm);
  return (moments){CMPLX(sum[1], sum[2]), CMPLX(sum[3], sum[4]), sqrt(sum[0])};
}

static void compare_moments(int n, const moments *m, const sq_complex *lambda, sq_eigen_report *r)
{
  sq_complex s = 0, q = 0;
  for (int i = 0; i < n; ++i) {
    s += lambda[i];
    q += lambda[i] * lambda[i];
  }
  const double norm = m->norm > 0 ? m->norm : 1;
  r->norm = m->norm;
  r->trace_error = cabs(s - m->trace) / (sqrt((double)n) * norm);
  r->square_error = cabs(q - m->square) / (2 * norm * norm);
}

/* Values that are those of another matrix than this are worse than none. */
static sq_status judge(int n, const sq_eigen_report *r)
{
  const double limit = sq_eigen_limit(n);
  if (r->trace_error <= limit && r->square_error <= limit && (r->nsample == 0 || r->residual <= limit))
    return SQ_OK;
  return sq_fail(
      SQ_ERR_INTERNAL,
      "ScaLAPACK's eigenvalues of a matrix of order %d are not its own: trace off by %.1e, trace of the "
      "square by %.1e, residual %.1e; expected at most %.1e",
      n, r->trace_error, r->square_error, r->residual, limit);
}

static sq_status fail_info(const char *routine, int info)
{
  return info > 0 ? sq_fail(SQ_ERR_INTERNAL, "%s did not converge: eigenvalue %d", routine, info)
                  : sq_fail(SQ_ERR_INTERNAL, "%s refused its argument, info %d", routine, info);
}

static sq_status not_finite(void)
{
  return sq_fail(SQ_ERR_DATA, "eigenvalues of a matrix that is not finite");
}

/* In the grid; the others wait in the next collective call. */
static int takes_part(const sq_dist *d)
{
  return d->desc[1] >= 0;
}

#define DEFINE_LOCAL(number, prefix)                                                                         \
  static sq_status prefix##_finite(const sq_dist *d, const number *a)                                        \
  {                                                                                                          \
    const double *x = (const double *)(const void *)a;                                                       \
    const size_t n = (size_t)d->rows * (size_t)d->cols * (sizeof(number) / sizeof(double));                  \
    for (size_t i = 0; i < n; ++i)                                                                           \
      if (!isfinite(x[i])) return not_finite();                                                              \
    return SQ_OK;                                                                                            \
  }                                                                                                          \
  /* transposed: A^T, in the same distribution */                                                            \
  static moments prefix##_moments(const sq_dist *d, const number *a, const number *transposed)               \
  {                                                                                                          \
    double mine[5] = {0};                                                                                    \
    for (int l = 0; l < d->cols; ++l)                                                                        \
      for (int k = 0; k < d->rows; ++k) {                                                                    \
        const size_t at = (size_t)l * (size_t)d->rows + (size_t)k;                                           \
        const sq_complex x = a[at], y = x * transposed[at];                                                  \
        mine[0] += creal(x) * creal(x) + cimag(x) * cimag(x);                                                \
        mine[3] += creal(y);                                                                                 \
        mine[4] += cimag(y);                                                                                 \
        if (sq_dist_row(d, k) == sq_dist_col(d, l)) {                                                        \
          mine[1] += creal(x);                                                                               \
          mine[2] += cimag(x);                                                                               \
        }                                                                                                    \
      }                                                                                                      \
    return moments_reduce(sq_pgrid_describe(d->grid).comm, mine);                                            \
  }                                                                                                          \
  static void prefix##_clear_below(const sq_dist *d, number *h)                                              \
  {                                                                                                          \
    for (int l = 0; l < d->cols; ++l) {                                                                      \
      const int j = sq_dist_col(d, l);                                                                       \
      for (int k = 0; k < d->rows; ++k)                                                                      \
        if (sq_dist_row(d, k) > j + 1) h[(size_t)l * (size_t)d->rows + (size_t)k] = 0;                       \
    }                                                                                                        \
  }
DEFINE_LOCAL(sq_complex, z)
DEFINE_LOCAL(double, d)

/* ---- complex -------------------------------------------------------------------------------------------- */
/* h becomes upper Hessenberg, zero below. */
static sq_status z_hessenberg(const sq_dist *d, sq_complex *h)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const int query = -1;
  int info = 0, lwork = 1;
  sq_complex size = 0, *work, *tau;
  if (takes_part(d)) pzgehrd_(&d->n, &one, &d->n, h, &one, &one, d->desc, &size, &size, &query, &info);
  lwork = (int)creal(size) + 1; /* what the query asks for was enough in every run */
  work = sq_calloc((size_t)lwork, sizeof *work, "Hessenberg reduction");
  tau = sq_calloc((size_t)d->cols + (size_t)d->NB, sizeof *tau, "Hessenberg reduction");
  sq_status st;
  SQ_TRY(sq_eigen_agree(comm, work && tau ? SQ_OK : SQ_ERR_MEMORY));
  sq_complaint_begin();
  if (takes_part(d)) pzgehrd_(&d->n, &one, &d->n, h, &one, &one, d->desc, tau, work, &lwork, &info);
  SQ_TRY(sq_complaint_end(comm, info ? fail_info("PZGEHRD", info) : SQ_OK));
  z_clear_below(d, h);
done:
  free(work);
  free(tau);
  return st;
}

/* Values of the Hessenberg matrix h, which is destroyed; lambda on all ranks. */
static sq_status z_iterate(const sq_dist *d, sq_complex *h, sq_complex *lambda)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const int no = 0, blocks = (d->n - 1) / d->NB + 1, lld = d->desc[8], liwork = 8 * d->n + 100;
  /* The documentation asks for 3 n + max(2 lld + 2 cols, 7 blocks / lcm(nprow, npcol)).  All of these
     together, and the 10^6 (16 MB) with which every run was right: there is no query to ask. */
  const int lwork = 3 * d->n + 2 * lld + 2 * d->cols + 2 * d->NB * (blocks + 1) + 7 * blocks + 1000000;
  sq_complex none = 0, *work = sq_calloc((size_t)lwork, sizeof *work, "QR iteration");
  int info = 0, *iwork = sq_calloc((size_t)liwork, sizeof *iwork, "QR iteration");
  sq_status st;
  SQ_TRY(sq_eigen_agree(comm, work && iwork ? SQ_OK : SQ_ERR_MEMORY));
  sq_complaint_begin();
  if (takes_part(d))
    pzlahqr_(&no, &no, &d->n, &one, &d->n, h, d->desc, lambda, &one, &d->n, &none, d->desc, work, &lwork,
             iwork, &liwork, &info);
  SQ_TRY(sq_complaint_end(comm, info ? fail_info("PZLAHQR", info) : SQ_OK));
  MPI_Bcast(lambda, d->n, MPI_C_DOUBLE_COMPLEX, 0, comm);
done:
  free(work);
  free(iwork);
  return st;
}

/* ---- residuals ------------------------------------------------------------------------------------------ */
typedef struct {
  const sq_dist *d;
  sq_dist v; /* (n,1), its rows as those of the matrix */
  const sq_complex *a;
  sq_complex *lu, *x, *r;
  int *pivot;
  double norm;
} residuals;

static double vector_norm(const sq_dist *v, const sq_complex *x)
{
  double mine = 0, sum;
  for (int k = 0; k < v->rows * v->cols; ++k) mine += creal(x[k]) * creal(x[k]) + cimag(x[k]) * cimag(x[k]);
  MPI_Allreduce(&mine, &sum, 1, MPI_DOUBLE, MPI_SUM, sq_pgrid_describe(v->grid).comm);
  return sqrt(sum);
}

/* x: unit vector with small (A - shift) x, by two steps of inverse iteration on (A - shift)^H (A - shift).  0: shift is
 * an eigenvalue of the rounded matrix, so that a pivot is zero. */
static int inverse_iteration(residuals *q, sq_complex shift)
{
  const sq_dist *d = q->d;
  int info = 0;
  for (int l = 0; l < d->cols; ++l)
    for (int k = 0; k < d->rows; ++k) {
      const size_t at = (size_t)l * (size_t)d->rows + (size_t)k;
      q->lu[at] = q->a[at] - (sq_dist_row(d, k) == sq_dist_col(d, l) ? shift : 0);
    }
  if (takes_part(d)) pzgetrf_(&d->n, &d->n, q->lu, &one, &one, d->desc, q->pivot, &info);
  MPI_Bcast(&info, 1, MPI_INT, 0, sq_pgrid_describe(d->grid).comm);
  for (int k = 0; k < q->v.rows * q->v.cols; ++k) /* a fixed vector without structure */
    q->x[k] = CMPLX(cos(1.0 + 0.7 * sq_dist_row(&q->v, k)), sin(2.0 + 1.3 * sq_dist_row(&q->v, k)));
  for (int step = 0; step < 4 && info == 0; ++step) {
    if (takes_part(d))
      pzgetrs_(step % 2 ? "N" : "C", &d->n, &one, q->lu, &one, &one, d->desc, q->pivot, q->x, &one, &one,
               q->v.desc, &info, 1);
    const double norm = vector_norm(&q->v, q->x);
    if (!(norm > 0 && norm < INFINITY)) return 0; /* for n = 1 PZGETRF does not report the pivot */
    for (int k = 0; k < q->v.rows * q->v.cols; ++k) q->x[k] /= norm;
  }
  return info == 0;
}

/* |(A - lambda) x| / (|A| |x|): an upper bound on the backward error of lambda for every x, and close to it for
 * this one. */
static double residual_of(residuals *q, sq_complex lambda)
{
  const double norm = q->norm > 0 ? q->norm : 1;
  const sq_complex plus = 1, minus = -lambda;
  /* A shift by a rounding error has a pivot; not to be had twice but for underflow. */
  if (!inverse_iteration(q, lambda) && !inverse_iteration(q, lambda + DBL_EPSILON * norm)) return NAN;
  memcpy(q->r, q->x, sq_dist_count(&q->v) * sizeof *q->r);
  if (takes_part(q->d))
    pzgemv_("N", &q->d->n, &q->d->n, &plus, q->a, &one, &one, q->d->desc, q->x, &one, &one, q->v.desc, &one,
            &minus, q->r, &one, &one, q->v.desc, &one, 1);
  return vector_norm(&q->v, q->r) / norm;
}

typedef struct {
  double modulus;
  int index;
} ranked;

static int by_modulus(const void *a, const void *b)
{
  const ranked *x = a, *y = b;
  if (x->modulus != y->modulus) return x->modulus < y->modulus ? -1 : 1;
  return x->index - y->index;
}

static sq_status sample_residuals(const sq_dist *d, const sq_complex *a, sq_complex *lu,
                                  const sq_complex *lambda, int nsample, sq_eigen_report *r)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  residuals q = {.d = d, .a = a, .lu = lu, .norm = r->norm};
  ranked *order = sq_calloc((size_t)d->n, sizeof *order, "order of eigenvalues");
  sq_status st;
  SQ_TRY(sq_dist_init(&q.v, d->grid, d->n, 1, d->NB));
  q.x = sq_calloc(sq_dist_count(&q.v) + (size_t)d->rows, sizeof *q.x, "residuals");
  q.r = sq_calloc(sq_dist_count(&q.v) + (size_t)d->rows, sizeof *q.r, "residuals");
  q.pivot = sq_calloc((size_t)d->rows + (size_t)d->NB, sizeof *q.pivot, "residuals");
  SQ_TRY(sq_eigen_agree(comm, order && q.x && q.r && q.pivot ? SQ_OK : SQ_ERR_MEMORY));
  for (int i = 0; i < d->n; ++i) order[i] = (ranked){cabs(lambda[i]), i};
  qsort(order, (size_t)d->n, sizeof *order, by_modulus);
  sq_complaint_begin();
  r->nsample = nsample < d->n ? nsample : d->n;
  for (int s = 0; s < r->nsample; ++s) {
    const long place = r->nsample > 1 ? (long)s * (d->n - 1) / (r->nsample - 1) : d->n - 1;
    const double e = residual_of(&q, lambda[order[place].index]);
    if (!(e <= r->residual)) r->residual = e;
  }
  SQ_TRY(sq_complaint_end(comm, SQ_OK));
done:
  free(order);
  free(q.x);
  free(q.r);
  free(q.pivot);
  return st;
}

sq_status sq_eigen_values(const sq_dist *d, const sq_complex *a, int nsample, sq_complex *lambda,
                          sq_eigen_report *r)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const sq_complex plus = 1, zero = 0;
  sq_complex *h = NULL;
  moments m;
  double start = sq_wall_s();
  sq_status st = check_shape(d);
  *r = (sq_eigen_report){0};
  if (st != SQ_OK) return st; /* the same on all ranks */
  SQ_TRY(sq_eigen_agree(comm, z_finite(d, a)));
  h = sq_calloc(sq_dist_count(d), sizeof *h, "eigenvalues of a distributed matrix");
  SQ_TRY(sq_eigen_agree(comm, h ? SQ_OK : SQ_ERR_MEMORY));
  if (takes_part(d)) pztranu_(&d->n, &d->n, &plus, a, &one, &one, d->desc, &zero, h, &one, &one, d->desc);
  m = z_moments(d, a, h);
  memcpy(h, a, (size_t)d->rows * (size_t)d->cols * sizeof *h);
  r->check_s = sq_wall_s() - start, start = sq_wall_s();
  SQ_TRY(z_hessenberg(d, h));
  r->reduce_s = sq_wall_s() - start, start = sq_wall_s();
  SQ_TRY(z_iterate(d, h, lambda));
  r->iterate_s = sq_wall_s() - start, start = sq_wall_s();
  compare_moments(d->n, &m, lambda, r);
  if (nsample > 0) SQ_TRY(sample_residuals(d, a, h, lambda, nsample, r));
  r->check_s += sq_wall_s() - start;
  st = sq_eigen_agree(comm, judge(d->n, r));
done:
  free(h);
  return st;
}

/* ---- real ----------------------------------------------------------------------------------------------- */
static sq_status d_hessenberg(const sq_dist *d, double *h)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const int query = -1;
  int info = 0, lwork = 1;
  double size = 0, *work, *tau;
  if (takes_part(d)) pdgehrd_(&d->n, &one, &d->n, h, &one, &one, d->desc, &size, &size, &query, &info);
  lwork = (int)size + 1; /* what the query asks for was enough in every run */
  work = sq_calloc((size_t)lwork, sizeof *work, "Hessenberg reduction");
  tau = sq_calloc((size_t)d->cols + (size_t)d->NB, sizeof *tau, "Hessenberg reduction");
  sq_status st;
  SQ_TRY(sq_eigen_agree(comm, work && tau ? SQ_OK : SQ_ERR_MEMORY));
  sq_complaint_begin();
  if (takes_part(d)) pdgehrd_(&d->n, &one, &d->n, h, &one, &one, d->desc, tau, work, &lwork, &info);
  SQ_TRY(sq_complaint_end(comm, info ? fail_info("PDGEHRD", info) : SQ_OK));
  d_clear_below(d, h);
done:
  free(work);
  free(tau);
  return st;
}

typedef struct {
  double *wr, *wi, *work;
  int *iwork, lwork, liwork;
} qr_space;

/* The sizes that PDHSEQR needs, which are not those that it says (traps 1 and 2 above). */
static sq_status qr_space_take(const sq_dist *d, double *h, qr_space *s)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const int query = -1, room = 8 * d->n + 4096; /* trap 1 writes about n */
  double size = 0, none = 0;
  int info = 0;
  sq_status st;
  s->wr = sq_calloc((size_t)d->n, sizeof *s->wr, "QR iteration");
  s->wi = sq_calloc((size_t)d->n, sizeof *s->wi, "QR iteration");
  s->iwork = sq_calloc((size_t)room, sizeof *s->iwork, "QR iteration");
  SQ_TRY(sq_eigen_agree(comm, s->wr && s->wi && s->iwork ? SQ_OK : SQ_ERR_MEMORY));
  if (takes_part(d))
    pdhseqr_("S", "N", &d->n, &one, &d->n, h, d->desc, s->wr, s->wi, &none, d->desc, &size, &query, s->iwork,
             &query, &info, 1, 1);
  s->liwork = room > s->iwork[0] ? room : s->iwork[0]; /* it asks for 400 .. 2600; 4 n + 1000 was enough */
  s->lwork = 3 * (int)size + 4 * d->n + 1000;          /* trap 2 */
  free(s->iwork);
  s->iwork = sq_calloc((size_t)s->liwork, sizeof *s->iwork, "QR iteration");
  s->work = sq_calloc((size_t)s->lwork, sizeof *s->work, "QR iteration");
  SQ_TRY(sq_eigen_agree(comm, s->iwork && s->work ? SQ_OK : SQ_ERR_MEMORY));
done:
  return st;
}

static sq_status d_iterate(const sq_dist *d, double *h, sq_complex *lambda)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  qr_space s = {0};
  double none = 0;
  int info = 0;
  sq_status st;
  SQ_TRY(qr_space_take(d, h, &s));
  sq_complaint_begin();
  if (takes_part(d)) /* 'S': trap 3 */
    pdhseqr_("S", "N", &d->n, &one, &d->n, h, d->desc, s.wr, s.wi, &none, d->desc, s.work, &s.lwork, s.iwork,
             &s.liwork, &info, 1, 1);
  SQ_TRY(sq_complaint_end(comm, info ? fail_info("PDHSEQR", info) : SQ_OK));
  for (int i = 0; i < d->n; ++i) lambda[i] = CMPLX(s.wr[i], s.wi[i]);
  MPI_Bcast(lambda, d->n, MPI_C_DOUBLE_COMPLEX, 0, comm);
done:
  free(s.wr);
  free(s.wi);
  free(s.work);
  free(s.iwork);
  return st;
}

/* The residuals are complex: lambda is. */
static sq_status sample_residuals_real(const sq_dist *d, const double *a, const sq_complex *lambda,
                                       int nsample, sq_eigen_report *r)
{
  const size_t n = sq_dist_count(d);
  sq_complex *z = sq_calloc(2 * n, sizeof *z, "residuals");
  sq_status st;
  SQ_TRY(sq_eigen_agree(sq_pgrid_describe(d->grid).comm, z ? SQ_OK : SQ_ERR_MEMORY));
  for (size_t i = 0; i < (size_t)d->rows * (size_t)d->cols; ++i) z[i] = a[i];
  st = sample_residuals(d, z, z + n, lambda, nsample, r);
done:
  free(z);
  return st;
}

/* The largest block up to NB that does not divide n (trap 6); above NB where all of these do (n = 60, NB = 6). */
static int real_block(int n, int NB)
{
  for (int b = NB; b >= SQ_EIGEN_MIN_BLOCK; --b)
    if (n % b != 0) return b;
  int b = NB + 1;
  while (n % b == 0) ++b;
  return b;
}

sq_status sq_eigen_values_real(const sq_dist *d, const double *a, int nsample, sq_complex *lambda,
                               sq_eigen_report *r)
{
  MPI_Comm comm = sq_pgrid_describe(d->grid).comm;
  const double plus = 1, zero = 0;
  double *h = NULL, *turned = NULL, start = sq_wall_s();
  moments m;
  sq_dist w;
  sq_status st = check_shape(d);
  *r = (sq_eigen_report){0};
  if (st != SQ_OK) return st; /* the same on all ranks */
  SQ_TRY(sq_eigen_agree(comm, d_finite(d, a)));
  SQ_TRY(sq_dist_init(&w, d->grid, d->n, d->n, real_block(d->n, d->NB)));
  turned = sq_calloc(sq_dist_count(d), sizeof *turned, "eigenvalues of a distributed matrix");
  SQ_TRY(sq_eigen_agree(comm, turned ? SQ_OK : SQ_ERR_MEMORY));
  if (takes_part(d)) pdtran_(&d->n, &d->n, &plus, a, &one, &one, d->desc, &zero, turned, &one, &one, d->desc);
  m = d_moments(d, a, turned);
  free(turned);
  turned = NULL;
  h = sq_calloc(sq_dist_count(&w), sizeof *h, "eigenvalues of a distributed matrix");
  SQ_TRY(sq_eigen_agree(comm, h ? SQ_OK : SQ_ERR_MEMORY));
  SQ_TRY(sq_dist_move_real(d, a, &w, h));
  r->check_s = sq_wall_s() - start, start = sq_wall_s();
  SQ_TRY(d_hessenberg(&w, h));
  r->reduce_s = sq_wall_s() - start, start = sq_wall_s();
  SQ_TRY(d_iterate(&w, h, lambda));
  r->iterate_s = sq_wall_s() - start, start = sq_wall_s();
  compare_moments(d->n, &m, lambda, r);
  if (nsample > 0) SQ_TRY(sample_residuals_real(d, a, lambda, nsample, r));
  r->check_s += sq_wall_s() - start;
  st = sq_eigen_agree(comm, judge(d->n, r));
done:
  free(turned);
  free(h);
  return st;
}
#else
static sq_status no_scalapack(void)
{
  return sq_fail(SQ_ERR_USAGE, "this program was built without ScaLAPACK: %s", sq_eigen_scalapack());
}

sq_status sq_eigen_values(const sq_dist *d, const sq_complex *a, int nsample, sq_complex *lambda,
                          sq_eigen_report *r)
{
  return (void)d, (void)a, (void)nsample, (void)lambda, (void)r, no_scalapack();
}

sq_status sq_eigen_values_real(const sq_dist *d, const double *a, int nsample, sq_complex *lambda,
                               sq_eigen_report *r)
{
  return (void)d, (void)a, (void)nsample, (void)lambda, (void)r, no_scalapack();
}
#endif
