/* src/eigen/dist.c: block-cyclic matrices: who holds what, filling, moving, gathering. */
#include <limits.h>
#include <stdlib.h>

#include "eigen_impl.h"
#include "sq/base.h"

/* Rows (columns) of n that process p of np holds in blocks of NB: whole rounds, and its share of the last. */
static int local_size(int n, int NB, int p, int np)
{
  const int blocks = n / NB, rest = blocks % np;
  return blocks / np * NB + (p < rest ? NB : p == rest ? n % NB : 0);
}

static int global_index(int local, int NB, int p, int np)
{
  return (local / NB * np + p) * NB + local % NB;
}

sq_status sq_dist_init(sq_dist *d, const sq_pgrid *g, int m, int n, int NB)
{
  if (m < 1 || n < 1 || NB < 1)
    return sq_fail(SQ_ERR_USAGE, "a distributed matrix of %d x %d in blocks of %d", m, n, NB);
  const sq_pgrid_shape s = sq_pgrid_describe(g);
  *d = (sq_dist){.grid = g, .m = m, .n = n, .NB = NB};
  if (s.myrow >= 0) {
    d->rows = local_size(m, NB, s.myrow, s.nprow);
    d->cols = local_size(n, NB, s.mycol, s.npcol);
  }
  const int context = s.myrow >= 0 ? g->context : -1, lld = d->rows > 0 ? d->rows : 1;
  const int desc[9] = {1 /* dense */, context, m, n, NB, NB, 0, 0, lld};
  for (int i = 0; i < 9; ++i) d->desc[i] = desc[i];
  return SQ_OK;
}

size_t sq_dist_count(const sq_dist *d)
{
  const size_t n = (size_t)d->rows * (size_t)d->cols;
  return n > 0 ? n : 1;
}

int sq_dist_row(const sq_dist *d, int local)
{
  const sq_pgrid_shape s = sq_pgrid_describe(d->grid);
  return global_index(local, d->NB, s.myrow, s.nprow);
}

int sq_dist_col(const sq_dist *d, int local)
{
  const sq_pgrid_shape s = sq_pgrid_describe(d->grid);
  return global_index(local, d->NB, s.mycol, s.npcol);
}

#define DEFINE_FILL(name, number, entry_of)                                                                  \
  void name(const sq_dist *d, entry_of entry, const void *user, number *a)                                   \
  {                                                                                                          \
    for (int l = 0; l < d->cols; ++l) {                                                                      \
      const int j = sq_dist_col(d, l);                                                                       \
      for (int k = 0; k < d->rows; ++k)                                                                      \
        a[(size_t)l * (size_t)d->rows + (size_t)k] = entry(user, sq_dist_row(d, k), j);                      \
    }                                                                                                        \
  }
DEFINE_FILL(sq_dist_fill, sq_complex, sq_entry)
DEFINE_FILL(sq_dist_fill_real, double, sq_entry_real)

#ifdef SQ_HAVE_SCALAPACK
static sq_status same_shape(const sq_dist *a, const sq_dist *b)
{
  if (a->m == b->m && a->n == b->n) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "a matrix of %d x %d cannot become one of %d x %d", a->m, a->n, b->m, b->n);
}

/* The whole matrix as one block on rank 0. */
static sq_status whole_init(const sq_dist *d, sq_pgrid **g, sq_dist *whole)
{
  sq_status st;
  SQ_TRY(sq_pgrid_create_shape(sq_pgrid_describe(d->grid).comm, 1, 1, g));
  SQ_TRY(sq_dist_init(whole, *g, d->m, d->n, d->m > d->n ? d->m : d->n));
done:
  return st;
}

#define DEFINE_MOVES(number, move, scatter, gather, gemr2d)                                                  \
  sq_status move(const sq_dist *from, const number *a, const sq_dist *to, number *b)                         \
  {                                                                                                          \
    const int one = 1;                                                                                       \
    const sq_status st = same_shape(from, to);                                                               \
    if (st != SQ_OK) return st;                                                                              \
    sq_complaint_begin();                                                                                    \
    gemr2d(&from->m, &from->n, a, &one, &one, from->desc, b, &one, &one, to->desc, &from->grid->everyone);   \
    return sq_complaint_end(sq_pgrid_describe(from->grid).comm, SQ_OK);                                      \
  }                                                                                                          \
  static void move##_transpose(int m, int n, const number *row_major, number *column_major)                  \
  {                                                                                                          \
    for (int i = 0; i < m; ++i)                                                                              \
      for (int j = 0; j < n; ++j)                                                                            \
        column_major[(size_t)j * (size_t)m + (size_t)i] = row_major[(size_t)i * (size_t)n + (size_t)j];      \
  }                                                                                                          \
  sq_status scatter(const sq_dist *d, const number *full, number *a)                                         \
  {                                                                                                          \
    const sq_pgrid_shape s = sq_pgrid_describe(d->grid);                                                     \
    sq_pgrid *g = NULL;                                                                                      \
    sq_dist whole;                                                                                           \
    number *copy = NULL;                                                                                     \
    sq_status st;                                                                                            \
    SQ_TRY(whole_init(d, &g, &whole));                                                                       \
    copy = sq_calloc(sq_dist_count(&whole), sizeof *copy, "a whole matrix");                                 \
    SQ_TRY(sq_eigen_agree(s.comm, copy ? SQ_OK : SQ_ERR_MEMORY));                                            \
    if (s.rank == 0) move##_transpose(d->m, d->n, full, copy);                                               \
    SQ_TRY(move(&whole, copy, d, a));                                                                        \
  done:                                                                                                      \
    free(copy);                                                                                              \
    sq_pgrid_destroy(&g);                                                                                    \
    return st;                                                                                               \
  }                                                                                                          \
  sq_status gather(const sq_dist *d, const number *a, number *full)                                          \
  {                                                                                                          \
    const sq_pgrid_shape s = sq_pgrid_describe(d->grid);                                                     \
    sq_pgrid *g = NULL;                                                                                      \
    sq_dist whole;                                                                                           \
    number *copy = NULL;                                                                                     \
    sq_status st;                                                                                            \
    SQ_TRY(whole_init(d, &g, &whole));                                                                       \
    copy = sq_calloc(sq_dist_count(&whole), sizeof *copy, "a whole matrix");                                 \
    SQ_TRY(sq_eigen_agree(s.comm, copy ? SQ_OK : SQ_ERR_MEMORY));                                            \
    SQ_TRY(move(d, a, &whole, copy));                                                                        \
    if (s.rank == 0) move##_transpose(d->n, d->m, copy, full);                                               \
  done:                                                                                                      \
    free(copy);                                                                                              \
    sq_pgrid_destroy(&g);                                                                                    \
    return st;                                                                                               \
  }
#else
static sq_status no_scalapack(void)
{
  return sq_fail(SQ_ERR_USAGE, "this program was built without ScaLAPACK: %s", sq_eigen_scalapack());
}
#define DEFINE_MOVES(number, move, scatter, gather, gemr2d)                                                  \
  sq_status move(const sq_dist *from, const number *a, const sq_dist *to, number *b)                         \
  {                                                                                                          \
    return (void)from, (void)a, (void)to, (void)b, no_scalapack();                                           \
  }                                                                                                          \
  sq_status scatter(const sq_dist *d, const number *full, number *a)                                         \
  {                                                                                                          \
    return (void)d, (void)full, (void)a, no_scalapack();                                                     \
  }                                                                                                          \
  sq_status gather(const sq_dist *d, const number *a, number *full)                                          \
  {                                                                                                          \
    return (void)d, (void)a, (void)full, no_scalapack();                                                     \
  }
#endif
DEFINE_MOVES(sq_complex, sq_dist_move, sq_dist_scatter, sq_dist_gather, pzgemr2d_)
DEFINE_MOVES(double, sq_dist_move_real, sq_dist_scatter_real, sq_dist_gather_real, pdgemr2d_)
