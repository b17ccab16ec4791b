/* tests/eigen_fixture.h: matrices whose eigenvalues are known, and the comparison of sets of eigenvalues. */
#pragma once

#include <float.h>
#include <math.h>
#include <mpi.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/eigen.h"
#include "sq/linalg.h"
#include "sq/rng.h"

static int rank, nrank;

static inline void *need(size_t count, size_t size)
{
  void *p = sq_calloc(count > 0 ? count : 1, size, "test");
  assert_non_null(p);
  return p;
}

/* Each known value has a computed one of its own within `allowed`.  Nearest first is enough where the known
   ones are further apart than twice that, which is checked. */
static inline void expect_set(const char *label, int n, const sq_complex *known, const sq_complex *got,
                              double allowed)
{
  int *used = need((size_t)n, sizeof *used);
  for (int i = 0; i < n; ++i) {
    int best = -1;
    for (int j = 0; j < i; ++j)
      if (!(cabs(known[i] - known[j]) > 2 * allowed)) fail_msg("%s: %d and %d are not apart", label, i, j);
    for (int j = 0; j < n; ++j)
      if (!used[j] && (best < 0 || cabs(known[i] - got[j]) < cabs(known[i] - got[best]))) best = j;
    if (!(cabs(known[i] - got[best]) <= allowed))
      fail_msg("%s: n = %d: eigenvalue %.17g%+.17gi: nearest is off by %.3g, allowed %.3g", label, n,
               creal(known[i]), cimag(known[i]), cabs(known[i] - got[best]), allowed);
    used[best] = 1;
  }
  free(used);
}

/* ---- a normal matrix with given eigenvalues: (1 - 2 w w^*) diag(known) (1 - 2 w w^*), |w| = 1 ------------ */
typedef struct {
  int n;
  sq_complex *known, *w, mean; /* mean: w^* diag(known) w */
} mirrored;

static inline mirrored mirrored_create(int n, int real)
{
  mirrored m = {.n = n, .known = need((size_t)n, sizeof *m.known), .w = need((size_t)n, sizeof *m.w)};
  sq_rng r;
  double norm = 0;
  sq_rng_init(&r, 7, SQ_STREAM_TEST, (uint64_t)n);
  for (int i = 0; i < n; ++i) {
    m.w[i] = sq_rng_normal(&r);
    if (!real) m.w[i] += I * sq_rng_normal(&r);
    norm += cabs(m.w[i]) * cabs(m.w[i]);
    /* a spiral: apart by more than 1/n; real ones are on the axis, alternating */
    m.known[i] = real ? (i % 2 ? -1 : 1) * (1.0 + i) / n : (0.2 + (double)i / n) * cexp(2.4 * I * i);
  }
  for (int i = 0; i < n; ++i) {
    m.w[i] /= sqrt(norm);
    m.mean += m.known[i] * cabs(m.w[i]) * cabs(m.w[i]);
  }
  return m;
}

static inline void mirrored_destroy(mirrored *m)
{
  free(m->known);
  free(m->w);
}

static inline sq_complex mirrored_entry(const void *user, int i, int j)
{
  const mirrored *m = user;
  const sq_complex pair = m->w[i] * conj(m->w[j]);
  return (i == j ? m->known[i] : 0) - 2 * pair * (m->known[i] + m->known[j]) + 4 * pair * m->mean;
}

static inline double mirrored_entry_real(const void *user, int i, int j)
{
  return creal(mirrored_entry(user, i, j));
}

/* ---- the cyclic shift: eigenvalues are the n-th roots of unity -------------------------------------------- */
static inline double shift_entry_real(const void *user, int i, int j)
{
  return i == (j + 1) % *(const int *)user;
}

static inline sq_complex shift_entry(const void *user, int i, int j)
{
  return shift_entry_real(user, i, j);
}

static inline void roots_of_unity(int n, sq_complex *known)
{
  for (int k = 0; k < n; ++k) known[k] = cexp(2 * I * 3.14159265358979323846 * k / n);
}

/* ---- lower triangular: eigenvalues 1 .. n on the diagonal; far from normal for the entries below ---------- */
static inline double noise_entry(int i, int j) /* in [-1, 1), the same everywhere */
{
  uint32_t x = (uint32_t)i * 2654435761u ^ (uint32_t)j * 2246822519u;
  x = (x ^ x >> 15) * 2654435769u;
  return (double)(x ^ x >> 13) * 0x1p-31 - 1;
}

static inline double triangle_entry_real(const void *user, int i, int j)
{
  (void)user;
  return i == j ? 1 + i : i > j ? noise_entry(i, j) : 0;
}

static inline sq_complex triangle_entry(const void *user, int i, int j)
{
  (void)user;
  const double phase = 0.001 * i;
  return i == j ? (1 + i) * cexp(I * phase) : i > j ? CMPLX(noise_entry(i, j), noise_entry(j, i)) : 0;
}

/* All ranks enter a test together, so that a failure of one ends all. */
static inline int eigen_main(int (*run)(void))
{
  MPI_Init(NULL, NULL);
  sq_blas_set_threads(1); /* as the program does: threads in every rank would fight for the cores */
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  const int failed = run();
  if (failed) MPI_Abort(MPI_COMM_WORLD, 1); /* others may wait for this rank */
  MPI_Finalize();
  return 0;
}
