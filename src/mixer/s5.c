/* src/mixer/s5.c: S5 (Smith, Warrington, Linderman, ICLR 2023), models/s5.py of the published study.
 *
 *   Lambda = Lambda_re + i Lambda_im,   z = Lambda exp(log_step)
 *   zoh:       lambda = exp(z),               scale = (exp(z) - 1)/Lambda
 *   bilinear:  lambda = (1 + z/2)/(1 - z/2),  scale = step/(1 - z/2)
 *
 * clip_eigs: min(Lambda_re, -1e-4) instead of Lambda_re, whose gradient is 0 beyond.  conj_sym: the P states stand
 * for P conjugate pairs, and the output is doubled. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diagonal.h"
#include "hippo.h"

#define CLAMP (-1e-4)

enum { BLOCK_DIM_MAX = 8192 }; /* the start takes O(n^2) roots and O(n^2 D) products */

enum { C_LECUN, C_TRUNCATED, C_NORMAL };

static const sq_key s5_keys[] = {
    {"model.state_dim", SQ_KEY_INT, NULL, 1, 65536, NULL, "states of a layer, conjugates included"},
    {"model.num_blocks", SQ_KEY_INT, "8", 1, 65536, NULL,
     "HiPPO matrices side by side at the start; divides state_dim"},
    {"model.conj_sym", SQ_KEY_BOOL, "true", 0, 0, NULL, "keep one state of each conjugate pair"},
    {"model.discretization", SQ_KEY_STRING, "\"zoh\"", 0, 0, "zoh|bilinear", "from rates to a step"},
    {"model.clip_eigs", SQ_KEY_BOOL, "false", 0, 0, NULL, "keep real parts of the rates below -1e-4"},
    {"model.bidirectional", SQ_KEY_BOOL, "false", 0, 0, NULL,
     "states that run from the end of the sequence too; the layer then sees the future"},
    {"model.C_init", SQ_KEY_STRING, "\"lecun_normal\"", 0, 0,
     "lecun_normal|trunc_standard_normal|complex_normal", "distribution of C at the start"},
    {"model.dt_min", SQ_KEY_REAL, "0.001", 1e-6, 100, NULL, "smallest step size at the start"},
    {"model.dt_max", SQ_KEY_REAL, "0.1", 1e-6, 100, NULL, "largest step size at the start"},
};

static sq_status s5_check(const sq_config *c)
{
  const int N = sq_config_int(c, "model.state_dim"), J = sq_config_int(c, "model.num_blocks");
  const double lo = sq_config_real(c, "model.dt_min"), hi = sq_config_real(c, "model.dt_max");
  if (N % J != 0)
    return sq_fail(SQ_ERR_USAGE, "model.num_blocks: %d does not divide model.state_dim %d", J, N);
  if (sq_config_bool(c, "model.conj_sym") && N / J % 2 != 0)
    return sq_fail(SQ_ERR_USAGE, "model.conj_sym: true needs blocks of even size, these have %d states",
                   N / J);
  if (N / J > BLOCK_DIM_MAX)
    return sq_fail(SQ_ERR_USAGE, "model.num_blocks: %d leaves blocks of %d states, more than %d", J, N / J,
                   BLOCK_DIM_MAX);
  if (lo > hi) return sq_fail(SQ_ERR_USAGE, "model.dt_max: %g is below model.dt_min %g", hi, lo);
  return SQ_OK;
}

static const sq_keyset s5_keyset = {"model.layer=s5", s5_keys, sizeof s5_keys / sizeof *s5_keys, s5_check};

/* ---- discretisation ---------------------------------------------------------------------------------- */

/* phi(z) = (exp(z) - 1)/z and its derivative (exp(z) - phi(z))/z.  Below |z| = 1 by their series
   sum z^k/(k+1)! and sum (k+1) z^k/(k+2)!, which 19 terms give to 1/20! = 4e-19. */
static void phi(sq_complex z, sq_complex *value, sq_complex *slope)
{
  if (cabs(z) >= 1) {
    *value = (cexp(z) - 1) / z;
    *slope = (cexp(z) - *value) / z;
    return;
  }
  sq_complex power = 1; /* z^k/(k+1)! */
  *value = *slope = 0;
  for (int k = 0; k < 19; ++k) {
    *value += power;
    *slope += power * ((k + 1.0) / (k + 2.0));
    power *= z / (k + 2.0);
  }
}

typedef struct {
  sq_complex lambda, scale;
  sq_complex lambda_rate, lambda_step; /* derivatives of lambda in Lambda and in the step */
  sq_complex scale_rate, scale_step;
} discrete;

static discrete zoh(sq_complex rate, double step)
{
  sq_complex value, slope;
  const sq_complex e = cexp(rate * step);
  phi(rate * step, &value, &slope);
  return (discrete){e, step * value, step * e, rate * e, step * step * slope, e};
}

static discrete bilinear(sq_complex rate, double step)
{
  const sq_complex half = rate * (step / 2), g = 1 / (1 - half), g2 = g * g;
  return (discrete){g * (1 + half), step * g, step * g2, rate * g2, step * step / 2 * g2, g2};
}

static int is_clamped(const sq_mixer *m, const sq_real *theta, int p)
{
  return m->clip && (double)theta[m->Lambda_re + (size_t)p] > CLAMP;
}

static double step_of(const sq_mixer *m, const sq_real *theta, int p)
{
  return exp((double)theta[m->log_step + (size_t)p]);
}

static discrete discretise(const sq_mixer *m, const sq_real *theta, int p)
{
  const double re = is_clamped(m, theta, p) ? CLAMP : (double)theta[m->Lambda_re + (size_t)p];
  const sq_complex rate = CMPLX(re, (double)theta[m->Lambda_im + (size_t)p]);
  return (m->bilinear ? bilinear : zoh)(rate, step_of(m, theta, p));
}

static void s5_state(const sq_mixer *m, const sq_real *theta, int p, sq_complex *lambda, sq_complex *scale)
{
  const discrete x = discretise(m, theta, p);
  *lambda = x.lambda;
  *scale = x.scale;
}

static void s5_state_back(const sq_mixer *m, const sq_real *theta, int p, sq_complex dlambda,
                          sq_complex dscale, sq_real *dtheta)
{
  const discrete x = discretise(m, theta, p);
  const sq_complex drate = conj(x.lambda_rate) * dlambda + conj(x.scale_rate) * dscale;
  const double dstep = creal(conj(x.lambda_step) * dlambda + conj(x.scale_step) * dscale);
  if (!is_clamped(m, theta, p)) dtheta[m->Lambda_re + (size_t)p] += (sq_real)creal(drate);
  dtheta[m->Lambda_im + (size_t)p] += (sq_real)cimag(drate);
  dtheta[m->log_step + (size_t)p] += (sq_real)(step_of(m, theta, p) * dstep);
}

static const sq_diagonal_core s5_core = {s5_state, s5_state_back};

/* ---- creation ---------------------------------------------------------------------------------------- */

static int C_init_of(const sq_config *c)
{
  const char *name = sq_config_string(c, "model.C_init");
  return strcmp(name, "lecun_normal") == 0     ? C_LECUN
         : strcmp(name, "complex_normal") == 0 ? C_NORMAL
                                               : C_TRUNCATED;
}

static sq_status s5_create(const sq_config *c, sq_mixer_dims d, sq_mixer **out)
{
  sq_mixer *m = sq_calloc(1, sizeof *m, "S5");
  *out = NULL;
  if (m == NULL) return SQ_ERR_MEMORY;
  const int pairs = sq_config_bool(c, "model.conj_sym");
  m->head = (struct sq_mixer_head){.ops = &sq_mixer_s5, .dims = d};
  m->core = &s5_core;
  m->nblock = sq_config_int(c, "model.num_blocks");
  m->block_dim = sq_config_int(c, "model.state_dim") / m->nblock;
  m->P = m->nblock * (pairs ? m->block_dim / 2 : m->block_dim);
  m->ndir = sq_config_bool(c, "model.bidirectional") ? 2 : 1;
  m->stride = 2;
  m->factor = pairs ? 2 : 1;
  m->bilinear = strcmp(sq_config_string(c, "model.discretization"), "bilinear") == 0;
  m->clip = sq_config_bool(c, "model.clip_eigs");
  m->C_init = C_init_of(c);
  m->dt_min = sq_config_real(c, "model.dt_min");
  m->dt_max = sq_config_real(c, "model.dt_max");
  m->hippo = sq_calloc((size_t)m->block_dim, sizeof *m->hippo, "S5");
  if (m->hippo == NULL) {
    sq_diagonal_destroy(m);
    return SQ_ERR_MEMORY;
  }
  sq_diagonal_setup(m);
  *out = m;
  return SQ_OK;
}

static void s5_params(sq_mixer *m, const char *prefix, sq_param_list *l)
{
  const int P = m->P, D = m->head.dims.D, both = SQ_PARAM_SSM | SQ_PARAM_SSM_PUBLISHED;
  m->Lambda_re = sq_param_add(l, both, 1, &P, "%s.Lambda_re", prefix);
  m->Lambda_im = sq_param_add(l, both, 1, &P, "%s.Lambda_im", prefix);
  m->B_re = sq_param_add(l, SQ_PARAM_RE_IM | SQ_PARAM_SSM, 3, (const int[]){P, D, 2}, "%s.B", prefix);
  m->C_re = sq_param_add(l, SQ_PARAM_RE_IM, 3, (const int[]){D, m->ndir * P, 2}, "%s.C", prefix);
  m->D = sq_param_add(l, 0, 1, &D, "%s.D", prefix);
  m->log_step = sq_param_add(l, both, 2, (const int[]){P, 1}, "%s.log_step", prefix);
  m->B_im = m->B_re + 1;
  m->C_im = m->C_re + 1;
}

/* ---- start ------------------------------------------------------------------------------------------- */

static void add_complex(sq_complex z, sq_real *x)
{
  x[0] += (sq_real)creal(z);
  x[1] += (sq_real)cimag(z);
}

static void put_state(void *hippo, int j, double mu, double P)
{
  ((sq_hippo_state *)hippo)[j] = (sq_hippo_state){mu, P / sqrt(2), 0, 0};
}

/* Entry k of all eigenvectors that are kept; k = 0, 1, ..., each one once. */
static void next_entries(const sq_mixer *m, int k)
{
  const int kept = m->P / m->nblock;
  for (int q = 0; q < kept; ++q) {
    sq_hippo_state *h = &m->hippo[q];
    if (k == 0) h->edge = h->start;
    h->entry = sq_hippo_entry(k, h->mu, &h->edge);
  }
}

/* B = V^* B' with B' (N,D) real, of variance 1/N. */
static void init_B(const sq_mixer *m, sq_rng *rng, sq_real *B)
{
  const int n = m->block_dim, kept = m->P / m->nblock, D = m->head.dims.D;
  for (int k = 0; k < m->nblock * n; ++k) {
    next_entries(m, k % n);
    for (int d = 0; d < D; ++d) {
      sq_real b;
      sq_nn_init_lecun_normal(rng, m->nblock * n, 1, &b);
      for (int q = 0; q < kept; ++q)
        add_complex(conj(m->hippo[q].entry) * (double)b,
                    B + 2 * ((size_t)(k / n * kept + q) * (size_t)D + (size_t)d));
    }
  }
}

/* C = C' V with C' (D,N) complex; of variance 1/(N D) in each part, or 1/N. */
static void init_C(const sq_mixer *m, sq_rng *rng, sq_real *C)
{
  const int n = m->block_dim, N = m->nblock * n, kept = m->P / m->nblock, D = m->head.dims.D;
  const double fan_in = m->C_init == C_LECUN ? (double)N * D : N;
  for (int dir = 0; dir < m->ndir; ++dir)
    for (int k = 0; k < N; ++k) {
      next_entries(m, k % n);
      for (int d = 0; d < D; ++d) {
        sq_real c[2];
        sq_real *row = C + 2 * ((size_t)d * (size_t)m->ndir + (size_t)dir) * (size_t)m->P;
        sq_nn_init_lecun_normal(rng, fan_in, 2, c);
        for (int q = 0; q < kept; ++q)
          add_complex(CMPLX((double)c[0], (double)c[1]) * m->hippo[q].entry, row + 2 * (k / n * kept + q));
      }
    }
}

static void s5_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  const int kept = m->P / m->nblock; /* of each block, those with the most negative imaginary parts */
  const int rotated = p->offset == m->B_re || (p->offset == m->C_re && m->C_init != C_NORMAL);
  sq_real *x = theta + p->offset;
  sq_nn_init_constant(0, p->count, x);
  if (rotated || p->offset == m->Lambda_im) sq_hippo_states(m->block_dim, put_state, m->hippo);
  if (p->offset == m->Lambda_re)
    sq_nn_init_constant(-0.5, p->count, x);
  else if (p->offset == m->Lambda_im)
    for (int i = 0; i < m->P; ++i) x[i] = (sq_real)m->hippo[i % kept].mu;
  else if (p->offset == m->B_re)
    init_B(m, rng, x);
  else if (p->offset == m->C_re && rotated)
    init_C(m, rng, x);
  else if (p->offset == m->C_re)
    sq_nn_init_normal(rng, sqrt(0.5), p->count, x);
  else if (p->offset == m->log_step)
    for (int i = 0; i < m->P; ++i)
      x[i] = (sq_real)(log(m->dt_min) + sq_rng_uniform(rng) * (log(m->dt_max) - log(m->dt_min)));
  else
    sq_nn_init_normal(rng, 1, p->count, x);
}

/* The published analysis takes exp(Lambda step) whatever the discretisation, and Lambda as it is stored. */
static int s5_published(const sq_mixer *m, const sq_real *theta, sq_complex *lambda, int *system)
{
  (void)system;
  for (int p = 0; p < m->P; ++p) {
    const sq_complex rate =
        CMPLX((double)theta[m->Lambda_re + (size_t)p], (double)theta[m->Lambda_im + (size_t)p]);
    lambda[p] = cexp(rate * step_of(m, theta, p));
  }
  return 0;
}

const sq_mixer_ops sq_mixer_s5 = {.name = "s5",
                                  .backbone = "ssm",
                                  .keys = &s5_keyset,
                                  .create = s5_create,
                                  .params = s5_params,
                                  .init = s5_init,
                                  .lti_published = s5_published,
                                  SQ_DIAGONAL_OPS};
