/* src/nn/init.c: published initialisers. */
#include "sq/nn.h"

#include <math.h>

void sq_nn_init_uniform(sq_rng *r, double bound, size_t n, sq_real *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)((2 * sq_rng_uniform(r) - 1) * bound);
}

void sq_nn_init_normal(sq_rng *r, double std, size_t n, sq_real *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)(std * sq_rng_normal(r));
}

void sq_nn_init_constant(double v, size_t n, sq_real *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)v;
}

/* By rejection, which keeps 95 % of the draws. */
double sq_nn_truncated_normal(sq_rng *r)
{
  double x;

  do x = sq_rng_normal(r);
  while (!(-2 <= x && x <= 2));
  return x;
}

void sq_nn_init_lecun_normal(sq_rng *r, double fan_in, size_t n, sq_real *x)
{
  const double deviation = 0.87962566103423978; /* of the truncated normal distribution */
  const double scale = sqrt(1 / fan_in) / deviation;

  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)(scale * sq_nn_truncated_normal(r));
}
