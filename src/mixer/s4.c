/* src/mixer/s4.c: keys, shape, parameters and their initialisation; models/s4.py of the published study. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "s4.h"

static const sq_key keys[] = {
    {"model.state_dim", SQ_KEY_INT, NULL, 1, 4096, NULL, "complex states of each channel"},
    {"model.dt_min", SQ_KEY_REAL, "0.001", 1e-6, 100, NULL,
     "smallest initial step, in units of one time step"},
    {"model.dt_max", SQ_KEY_REAL, "0.1", 1e-6, 100, NULL, "largest initial step"},
    {"model.C_init", SQ_KEY_STRING, "\"complex_normal\"", 0, 0, "complex_normal|lecun_normal",
     "initial C: N(0,1/2) for both parts, or truncated normal with variance 1/(state_dim hidden_dim)"},
};

static sq_status check(const sq_config *c)
{
  const double lo = sq_config_real(c, "model.dt_min"), hi = sq_config_real(c, "model.dt_max");
  if (lo <= hi) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "model.dt_min: %g is above model.dt_max %g", lo, hi);
}

static const sq_keyset keyset = {"model.layer=s4", keys, sizeof keys / sizeof *keys, check};

/* ---- shape ------------------------------------------------------------------------------------------- */

static void destroy(sq_mixer *m)
{
  if (m == NULL) return;
  for (int i = 0; i < m->nplan; ++i) sq_fft_destroy(&m->plan[i]);
  sq_dfft_destroy(&m->kernel_fft);
  free(m->cosine);
  free(m);
}

static sq_status make_tables(sq_mixer *m)
{
  const size_t L = (size_t)m->L;
  m->cosine = sq_calloc(2 * L, sizeof *m->cosine, "S4");
  if (m->cosine == NULL) return SQ_ERR_MEMORY;
  m->sine = m->cosine + L;
  for (int k = 0; k < m->L; ++k) {
    /* cos(pi k/L) = sin(pi (L-2k)/(2L)): exactly 0 in the middle, as accurate as sin beside it */
    m->cosine[k] = sin(M_PI * (m->L - 2.0 * k) / (2.0 * m->L));
    m->sine[k] = sin(M_PI * k / m->L);
  }
  return SQ_OK;
}

/* Tensors in the order of the list. */
enum { LAMBDA_RE, LAMBDA_IM, TENSOR_P, TENSOR_B, TENSOR_C, SKIP, LOG_STEP, NTENSOR };
static const char *const leaf[NTENSOR] = {"Lambda_re", "Lambda_im", "P", "B", "C", "D", "log_step"};

/* The published rule goes by names of parameters. */
static unsigned published_rate(const sq_config *c)
{
  unsigned bits = 0;
  if (!sq_config_has(c, "model.ssm_lr_vars")) return 0;
  for (int i = 0; i < sq_config_count(c, "model.ssm_lr_vars"); ++i)
    for (int k = 0; k < NTENSOR; ++k)
      if (strcmp(sq_config_string_at(c, "model.ssm_lr_vars", i), leaf[k]) == 0) bits |= 1u << k;
  return bits;
}

static size_t add(const sq_mixer *m, int k, unsigned flags, int ndim, const int *dim, const char *prefix,
                  sq_param_list *l)
{
  const unsigned published = m->published_rate >> k & 1 ? SQ_PARAM_SSM_PUBLISHED : 0;
  return sq_param_add(l, flags | published, ndim, dim, "%s.%s", prefix, leaf[k]);
}

static sq_status create(const sq_config *c, sq_mixer_dims d, sq_mixer **out)
{
  sq_status st = SQ_ERR_MEMORY;
  *out = NULL;
  sq_mixer *m = sq_calloc(1, sizeof *m, "S4");
  if (m == NULL) return st;
  m->head = (struct sq_mixer_head){.ops = &sq_mixer_s4, .dims = d};
  m->N = sq_config_int(c, "model.state_dim");
  m->L = d.seq_len;
  m->log_dt_min = log(sq_config_real(c, "model.dt_min"));
  m->log_dt_max = log(sq_config_real(c, "model.dt_max"));
  m->lecun = strcmp(sq_config_string(c, "model.C_init"), "lecun_normal") == 0;
  m->published_rate = published_rate(c);
  SQ_TRY(make_tables(m));
  SQ_TRY(sq_dfft_create(m->L, &m->kernel_fft));
  SQ_TRY(sq_s4_conv_create(m));
  *out = m;
done:
  if (st != SQ_OK) destroy(m);
  return st;
}

static void params(sq_mixer *m, const char *prefix, sq_param_list *l)
{
  const int state[3] = {m->N, m->head.dims.D, 2}, row[2] = {1, m->head.dims.D};
  const unsigned complex_ssm = SQ_PARAM_SSM | SQ_PARAM_RE_IM | SQ_PARAM_COMPLEX;
  m->Lambda_re = add(m, LAMBDA_RE, SQ_PARAM_SSM, 2, state, prefix, l);
  m->Lambda_im = add(m, LAMBDA_IM, SQ_PARAM_SSM, 2, state, prefix, l);
  m->P = add(m, TENSOR_P, complex_ssm, 3, state, prefix, l);
  m->B = add(m, TENSOR_B, complex_ssm, 3, state, prefix, l);
  m->C = add(m, TENSOR_C, SQ_PARAM_RE_IM, 3, state, prefix, l);
  m->skip = add(m, SKIP, SQ_PARAM_NO_DECAY, 2, row, prefix, l);
  m->log_step = add(m, LOG_STEP, SQ_PARAM_SSM, 2, row, prefix, l);
}

/* ---- HiPPO-LegS, diagonal plus rank one ----------------------------------------------------------------
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
 * the derivative of the left side.  The phases of V are chosen so that P = V^* p is positive. */

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
static double hippo_root(int N, int n, double start, double *slope)
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

/* row(n, mu_n, P_n) for every state */
typedef void put_state(const sq_mixer *m, int n, double mu, double P, sq_real *x);

static void each_hippo_state(const sq_mixer *m, put_state *put, sq_real *x)
{
  const int N = m->N;
  double mu = 0, slope, rest;
  if (N % 2 == 1) put(m, N / 2, 0, 1 / sqrt(slope_and_rest(N, 0, &rest)), x);
  for (int n = (N + 1) / 2; n < N; ++n) {
    mu = hippo_root(N, n, mu, &slope);
    put(m, n, mu, 1 / sqrt(slope), x);
    put(m, N - 1 - n, -mu, 1 / sqrt(slope), x);
  }
}

static void put_frequency(const sq_mixer *m, int n, double mu, double P, sq_real *x)
{
  (void)P;
  for (int d = 0; d < m->head.dims.D; ++d) x[(size_t)n * (size_t)m->head.dims.D + (size_t)d] = (sq_real)mu;
}

static void put_complex(const sq_mixer *m, int n, double re, sq_real *x)
{
  for (int d = 0; d < m->head.dims.D; ++d) {
    sq_real *z = x + 2 * ((size_t)n * (size_t)m->head.dims.D + (size_t)d);
    z[0] = (sq_real)re;
    z[1] = 0;
  }
}

static void put_P(const sq_mixer *m, int n, double mu, double P, sq_real *x)
{
  (void)mu;
  put_complex(m, n, P, x);
}

static void put_B(const sq_mixer *m, int n, double mu, double P, sq_real *x)
{
  (void)mu;
  put_complex(m, n, sqrt(2) * P, x); /* V^* b with b = q = sqrt 2 p */
}

static void init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  sq_real *x = theta + p->offset;
  if (p->offset == m->Lambda_re)
    sq_nn_init_constant(-0.5, p->count, x);
  else if (p->offset == m->Lambda_im)
    each_hippo_state(m, put_frequency, x);
  else if (p->offset == m->P)
    each_hippo_state(m, put_P, x);
  else if (p->offset == m->B)
    each_hippo_state(m, put_B, x);
  else if (p->offset == m->C && m->lecun)
    sq_nn_init_lecun_normal(rng, (double)m->N * m->head.dims.D, p->count, x);
  else if (p->offset == m->C)
    sq_nn_init_normal(rng, sqrt(0.5), p->count, x);
  else if (p->offset == m->skip)
    sq_nn_init_constant(1, p->count, x);
  else
    for (size_t d = 0; d < p->count; ++d)
      x[d] = (sq_real)(m->log_dt_min + sq_rng_uniform(rng) * (m->log_dt_max - m->log_dt_min));
}

/* ---- sizes ------------------------------------------------------------------------------------------- */

static size_t tape_bytes(const sq_mixer *m)
{
  (void)m;
  return 0; /* backward needs nothing but u, which the block keeps */
}

static size_t scratch_bytes(const sq_mixer *m)
{
  const size_t kernel = sq_s4_kernel_scratch(m), conv = sq_s4_conv_scratch(m);
  return kernel > conv ? kernel : conv;
}

static size_t derived_count(const sq_mixer *m)
{
  return sq_s4_kernel_count(m) + (size_t)m->head.dims.D * sq_s4_spectrum(sq_s4_full(m));
}

/* The kernel is made once, however many sequences use it. */
static double flops(const sq_mixer *m, int nseq, const int *len)
{
  double sum = nseq > 0 ? sq_s4_kernel_flops(m) : 0;
  for (int b = 0; b < nseq; ++b) sum += sq_s4_conv_flops(m, len[b]);
  return sum;
}

const sq_mixer_ops sq_mixer_s4 = {
    .name = "s4",
    .backbone = "ssm",
    .keys = &keyset,
    .create = create,
    .destroy = destroy,
    .params = params,
    .init = init,
    .tape_bytes = tape_bytes,
    .scratch_bytes = scratch_bytes,
    .flops = flops,
    .forward = sq_s4_forward,
    .backward = sq_s4_backward,
    .derived_count = derived_count,
    .derive = sq_s4_derive,
    .derive_back = sq_s4_derive_back,
    .lti_dims = sq_s4_lti_dims,
    .lti = sq_s4_lti,
    .lti_published = sq_s4_lti_published,
};
