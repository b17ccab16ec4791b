/* src/nn/init.c: published initialisers. */
#include "sq/nn.h"

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
