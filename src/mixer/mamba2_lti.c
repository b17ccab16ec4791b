/* src/mixer/mamba2_lti.c: the pseudo-LTI form of the Mamba-2 mixer: eigenvalues exp(-softplus(A)) that do not
 * depend on the input; the steps dt act on B alone. */
#include "mamba2.h"

#include <math.h>

#define SOFTPLUS_THRESHOLD 20 /* PyTorch: x itself above it */

/* A ~ U(-8,-2): eigenvalues .881 .. .9997 */
static double draw(double u)
{
  return -8 + 6 * u;
}

static double softplus(double x)
{
  return x > SOFTPLUS_THRESHOLD ? x : log1p(exp(x));
}

static double sigmoid(double x)
{
  return x > SOFTPLUS_THRESHOLD ? 1 : 1 / (1 + exp(-x));
}

static const mamba_kind lti = {.shared_dt = 1,
                               .decay_name = "A",
                               .decay_first = 0,
                               .draw = draw,
                               .rate = softplus,
                               .rate_slope = sigmoid};

static sq_status lti_create(const sq_config *c, sq_mixer_dims d, sq_mixer **m)
{
  return sq_mamba_create(c, d, &sq_mixer_mamba2_lti, &lti, m);
}

const sq_mixer_ops sq_mixer_mamba2_lti = {.name = "mamba2-lti", .create = lti_create, SQ_MAMBA_OPS};
