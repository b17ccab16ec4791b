/* src/mixer/s4.c: keys, shape, parameters and their initialisation; models/s4.py of the published study. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hippo.h"
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

/* ---- start ------------------------------------------------------------------------------------------- */

typedef struct {
  const sq_mixer *m;
  sq_real *x;
} tensor;

static void put_frequency(void *ctx, int n, double mu, double P)
{
  const tensor *t = ctx;
  const size_t D = (size_t)t->m->head.dims.D;
  (void)P;
  for (size_t d = 0; d < D; ++d) t->x[(size_t)n * D + d] = (sq_real)mu;
}

static void put_real(const tensor *t, int n, double re)
{
  const size_t D = (size_t)t->m->head.dims.D;
  for (size_t d = 0; d < D; ++d) {
    sq_real *z = t->x + 2 * ((size_t)n * D + d);
    z[0] = (sq_real)re;
    z[1] = 0;
  }
}

static void put_P(void *ctx, int n, double mu, double P)
{
  (void)mu;
  put_real(ctx, n, P);
}

static void put_B(void *ctx, int n, double mu, double P)
{
  (void)mu;
  put_real(ctx, n, sqrt(2) * P); /* V^* b with b = q = sqrt 2 p */
}

static void init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  sq_real *x = theta + p->offset;
  tensor t = {m, x};
  if (p->offset == m->Lambda_re)
    sq_nn_init_constant(-0.5, p->count, x);
  else if (p->offset == m->Lambda_im)
    sq_hippo_states(m->N, put_frequency, &t);
  else if (p->offset == m->P)
    sq_hippo_states(m->N, put_P, &t);
  else if (p->offset == m->B)
    sq_hippo_states(m->N, put_B, &t);
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
  return (size_t)m->head.dims.D * sq_s4_derived_of_channel(m);
}

static size_t derived_part(const sq_mixer *m)
{
  return SQ_S4_SLICE * sq_s4_derived_of_channel(m);
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
    .derived_part = derived_part,
    .derive = sq_s4_derive,
    .derive_back = sq_s4_derive_back,
    .lti_dims = sq_s4_lti_dims,
    .lti = sq_s4_lti,
    .lti_published = sq_s4_lti_published,
};
