/* src/mixer/hippo.c: HiPPO-LegS in diagonal-plus-rank-one form.
 *
 * With q_i^2 = 2i+1 the matrix is A = -I/2 + i H - p p^T, p = q/sqrt 2, where H is Hermitian: (i H)_ij = -q_i q_j/2 below
 * the diagonal and +q_i q_j/2 above.  Its eigenvectors have a closed form.  For i H x = i mu x put w = q x,
 * z_i = 1/2 + i mu/q_i^2 and e_i = z_i w_i: the difference of two rows gives e_(i+1) = -(conj(z_i)/z_i) e_i, so that all
 * |e_i| are equal and e_i - e_(i+1) = w_i; then any one row says e_0 + e_N = 0, that is
 *
 *     sum_i arctan(2 mu/q_i^2) = (pi/2)(N-1-2j) ,   j = 0..N-1 .
 *
 * The left side is increasing: N simple eigenvalues.  The sum of the w_i is e_0 - e_N = 2 e_0, and with |x| = 1
 *
 *     |V^* p|^2 = 1/phi'(mu) ,   phi'(mu) = sum_i 2 q_i^2/(q_i^4 + 4 mu^2) ,
 *
 * the derivative of the left side.  P = V^* p = sqrt 2 conj(e_0): it is positive where e_0 is. */
#include "hippo.h"

#include <math.h>

/* phi'(mu), and pi N/2 - phi(mu) without cancellation for large mu. */
static double slope_and_rest(int N, double mu, double *rest)
{
  double slope = 0, sum = 0;
  for (int i = N - 1; i >= 0; --i) {
    const double q2 = 2.0 * i + 1;
    slope += 2 * q2 / (q2 * q2 + 4 * mu * mu);
    sum += atan2(q2, 2 * mu);
  }
  *rest = sum;
  return slope;
}

/* mu_n >= 0, the n-th of the upper half (n >= N/2), by Newton's method from `start`, a smaller root or 0: the rest is
   convex and decreasing, so the iterates rise to the root until rounding stops them. */
static double root(int N, int n, double start, double *slope)
{
  const double target = M_PI / 2 * (2.0 * (N - n) - 1);
  double mu = start, rest;
  for (;;) {
    *slope = slope_and_rest(N, mu, &rest);
    const double next = mu + (rest - target) / *slope;
    if (!(next > mu)) return mu;
    mu = next;
  }
}

void sq_hippo_states(int n, void (*put)(void *ctx, int j, double mu, double P), void *ctx)
{
  double mu = 0, slope, rest;
  if (n % 2 == 1) put(ctx, n / 2, 0, 1 / sqrt(slope_and_rest(n, 0, &rest)));
  for (int j = (n + 1) / 2; j < n; ++j) {
    mu = root(n, j, mu, &slope);
    put(ctx, j, mu, 1 / sqrt(slope));
    put(ctx, n - 1 - j, -mu, 1 / sqrt(slope));
  }
}

sq_complex sq_hippo_entry(int i, double mu, sq_complex *edge)
{
  const double q2 = 2.0 * i + 1;
  const sq_complex w = *edge / CMPLX(0.5, mu / q2);
  *edge -= w;
  return w / sqrt(q2);
}
