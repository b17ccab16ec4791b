/* src/mixer/hippo.c: HiPPO-LegS in diagonal-plus-rank-one form. */
#include "hippo.h"

#include <math.h>
#include <stdlib.h>

#include "sq/base.h"

/* -iS without its diagonal: +i/2 sqrt((2i+1)(2j+1)) below it. */
static void fill(int n, sq_complex *A)
{
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const double x = 0.5 * sqrt((2.0 * i + 1) * (2.0 * j + 1));
      A[(size_t)i * (size_t)n + (size_t)j] = CMPLX(0, i > j ? x : i < j ? -x : 0);
    }
}

sq_status sq_hippo_normal(int n, double *omega, sq_complex *Vstar)
{
  double *work = sq_calloc(sq_hermitian_work(n), sizeof *work, "HiPPO eigenproblem");
  if (work == NULL) return SQ_ERR_MEMORY;
  fill(n, Vstar);
  const sq_status st = sq_hermitian_eig(n, Vstar, omega, work);
  free(work);
  return st;
}

void sq_hippo_rank_one(int n, const sq_complex *Vstar, sq_complex *P)
{
  for (int j = 0; j < n; ++j) {
    P[j] = 0;
    for (int i = 0; i < n; ++i) P[j] += Vstar[(size_t)j * (size_t)n + (size_t)i] * sqrt(i + 0.5);
  }
}
