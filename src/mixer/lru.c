/* src/mixer/lru.c: the linear recurrent unit (Orvieto et al., ICML 2023), models/lru.py of the published study.
 *
 *   lambda = exp(-exp(nu_log) + i exp(theta_log)),   scale = exp(gamma_log)
 *
 * gamma_log is a parameter of its own: it starts as log sqrt(1 - |lambda|^2) and is trained from there. */
#include <math.h>
#include <string.h>

#include "diagonal.h"

static const sq_key lru_keys[] = {
    {"model.state_dim", SQ_KEY_INT, NULL, 1, 65536, NULL, "complex states of a layer"},
    {"model.r_min", SQ_KEY_REAL, "0", 0, 1, NULL, "smallest modulus of an eigenvalue at the start"},
    {"model.r_max", SQ_KEY_REAL, "1", 1e-6, 1, NULL, "largest modulus of an eigenvalue at the start"},
    {"model.max_phase", SQ_KEY_REAL, "6.28", 1e-6, 6.283185307179587, NULL,
     "largest phase of an eigenvalue at the start, radians"},
    {"model.dt_min", SQ_KEY_REAL, "0.001", 1e-6, 100, NULL, "no effect on this layer: it has no step size"},
    {"model.dt_max", SQ_KEY_REAL, "0.1", 1e-6, 100, NULL, "no effect on this layer: it has no step size"},
};

static sq_status lru_check(const sq_config *c)
{
  const double lo = sq_config_real(c, "model.r_min"), hi = sq_config_real(c, "model.r_max");
  if (lo >= 1) /* |lambda| = 1: nu_log and gamma_log are not finite */
    return sq_fail(SQ_ERR_USAGE, "model.r_min: %g, must be below 1", lo);
  if (lo > hi) return sq_fail(SQ_ERR_USAGE, "model.r_max: %g is below model.r_min %g", hi, lo);
  const double dt_lo = sq_config_real(c, "model.dt_min"), dt_hi = sq_config_real(c, "model.dt_max");
  if (dt_lo > dt_hi) return sq_fail(SQ_ERR_USAGE, "model.dt_max: %g is below model.dt_min %g", dt_hi, dt_lo);
  return SQ_OK;
}

static const sq_keyset lru_keyset = {"model.layer=lru", lru_keys, sizeof lru_keys / sizeof *lru_keys,
                                     lru_check};

static void lru_state(const sq_mixer *m, const sq_real *theta, int p, sq_complex *lambda, sq_complex *scale)
{
  const double modulus = exp(-exp((double)theta[m->nu + (size_t)p])),
               phase = exp((double)theta[m->theta + (size_t)p]);
  *lambda = CMPLX(modulus * cos(phase), modulus * sin(phase));
  *scale = exp((double)theta[m->gamma + (size_t)p]);
}

/* d lambda = lambda (-exp(nu) dnu + i exp(theta) dtheta) */
static void lru_state_back(const sq_mixer *m, const sq_real *theta, int p, sq_complex dlambda,
                           sq_complex dscale, sq_real *dtheta)
{
  const size_t k = (size_t)p;
  sq_complex lambda, scale;
  lru_state(m, theta, p, &lambda, &scale);
  const sq_complex along = conj(lambda) * dlambda;
  dtheta[m->nu + k] += (sq_real)(-exp((double)theta[m->nu + k]) * creal(along));
  dtheta[m->theta + k] += (sq_real)(exp((double)theta[m->theta + k]) * cimag(along));
  dtheta[m->gamma + k] += (sq_real)(creal(scale) * creal(dscale));
}

static const sq_diagonal_core lru_core = {lru_state, lru_state_back};

/* ---- creation ---------------------------------------------------------------------------------------- */

enum { NU_LOG, THETA_LOG, GAMMA_LOG, B_RE, B_IM, C_RE, C_IM, GAIN, NPARAM };
static const char *const leaf[NPARAM] = {"nu_log", "theta_log", "gamma_log", "B_re",
                                         "B_im",   "C_re",      "C_im",      "D"};

/* The published rule goes by names of parameters; the published list has none of this layer's. */
static unsigned published_rate(const sq_config *c)
{
  unsigned bits = 0;
  if (!sq_config_has(c, "model.ssm_lr_vars")) return 0;
  for (int i = 0; i < sq_config_count(c, "model.ssm_lr_vars"); ++i)
    for (int k = 0; k < NPARAM; ++k)
      if (strcmp(sq_config_string_at(c, "model.ssm_lr_vars", i), leaf[k]) == 0) bits |= 1u << k;
  return bits;
}

static sq_status lru_create(const sq_config *c, sq_mixer_dims d, sq_mixer **out)
{
  sq_mixer *m = *out = sq_calloc(1, sizeof *m, "LRU");
  if (m == NULL) return SQ_ERR_MEMORY;
  m->head = (struct sq_mixer_head){.ops = &sq_mixer_lru, .dims = d};
  m->core = &lru_core;
  m->P = sq_config_int(c, "model.state_dim");
  m->ndir = m->stride = 1;
  m->factor = 1;
  m->r_min = sq_config_real(c, "model.r_min");
  m->r_max = sq_config_real(c, "model.r_max");
  m->max_phase = sq_config_real(c, "model.max_phase");
  m->published_rate = published_rate(c);
  sq_diagonal_setup(m);
  return SQ_OK;
}

static size_t add(const sq_mixer *m, int k, int ndim, const int *dim, const char *prefix, sq_param_list *l)
{
  const unsigned ssm = k <= B_IM ? SQ_PARAM_SSM : 0;
  const unsigned published = m->published_rate >> k & 1 ? SQ_PARAM_SSM_PUBLISHED : 0;
  return sq_param_add(l, ssm | published, ndim, dim, "%s.%s", prefix, leaf[k]);
}

static void lru_params(sq_mixer *m, const char *prefix, sq_param_list *l)
{
  const int P = m->P, D = m->head.dims.D, in[] = {P, D}, out[] = {D, P};
  m->nu = add(m, NU_LOG, 1, &P, prefix, l);
  m->theta = add(m, THETA_LOG, 1, &P, prefix, l);
  m->gamma = add(m, GAMMA_LOG, 1, &P, prefix, l);
  m->B_re = add(m, B_RE, 2, in, prefix, l);
  m->B_im = add(m, B_IM, 2, in, prefix, l);
  m->C_re = add(m, C_RE, 2, out, prefix, l);
  m->C_im = add(m, C_IM, 2, out, prefix, l);
  m->D = add(m, GAIN, 1, &D, prefix, l);
}

static double uniform_above_zero(sq_rng *rng)
{
  double u;
  do u = sq_rng_uniform(rng);
  while (u == 0);
  return u;
}

/* Eigenvalues uniform in area on the ring r_min .. r_max. */
static double draw_nu(const sq_mixer *m, sq_rng *rng)
{
  const double lo = m->r_min * m->r_min, hi = m->r_max * m->r_max;
  return log(-0.5 * log(uniform_above_zero(rng) * (hi - lo) + lo));
}

static void lru_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  sq_real *x = theta + p->offset;
  if (p->offset == m->nu)
    for (int i = 0; i < m->P; ++i) x[i] = (sq_real)draw_nu(m, rng);
  else if (p->offset == m->theta)
    for (int i = 0; i < m->P; ++i) x[i] = (sq_real)log(m->max_phase * uniform_above_zero(rng));
  else if (p->offset == m->gamma) /* of the nu_log that stands before it */
    for (int i = 0; i < m->P; ++i)
      x[i] = (sq_real)(0.5 * log(-expm1(-2 * exp((double)theta[m->nu + (size_t)i]))));
  else if (p->offset == m->B_re || p->offset == m->B_im)
    sq_nn_init_normal(rng, 1 / sqrt(2.0 * m->head.dims.D), p->count, x);
  else if (p->offset == m->C_re || p->offset == m->C_im)
    sq_nn_init_normal(rng, 1 / sqrt(m->P), p->count, x);
  else
    sq_nn_init_normal(rng, 1, p->count, x);
}

static int lru_published(const sq_mixer *m, const sq_real *theta, sq_complex *lambda, int *system)
{
  sq_complex scale;
  (void)system;
  for (int p = 0; p < m->P; ++p) lru_state(m, theta, p, &lambda[p], &scale);
  return 0;
}

const sq_mixer_ops sq_mixer_lru = {.name = "lru",
                                   .backbone = "ssm",
                                   .keys = &lru_keyset,
                                   .create = lru_create,
                                   .params = lru_params,
                                   .init = lru_init,
                                   .lti_published = lru_published,
                                   SQ_DIAGONAL_OPS};
