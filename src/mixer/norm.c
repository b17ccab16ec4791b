/* src/mixer/norm.c: norm attention, norm_attention.py of the published study.
 *
 *   nu_i = f(n_i + offset_h),   o_i = exp(-nu_i) sum_(j<=i) (q_i . s k_j) v_j,   s = 1/sqrt(dh) or 1
 *
 * f: exp, elu, softplus, sigmoid.  exp(-nu) may be 0, even for nu = inf: outputs and gradients are then 0,
 * since dnu = -do.o is multiplied by f' only where it is not 0.  f is evaluated in float64 and rounded to the
 * working precision at the places where the published code rounds: f itself, then exp(-f). */
#include <math.h>
#include <string.h>

#include "attention.h"

enum { F_EXP, F_ELU, F_SOFTPLUS, F_SIGMOID };
enum { INIT_EXP, INIT_UNIFORM };

#define PUBLISHED_FLOOR    2e-23 /* what the published analysis puts in place of a zero normaliser */
#define SOFTPLUS_THRESHOLD 20    /* PyTorch: x itself above it */
#define NU_MAX             1e300 /* keeps differences of logarithms finite; exp(-NU_MAX) is 0 anyway */

static const sq_key norm_keys[] = {
    {"model.norm_fn", SQ_KEY_STRING, NULL, 0, 0, "exp|elu|softplus|sigmoid",
     "f in the normaliser exp(-f(n))"},
    {"model.approx_fn", SQ_KEY_STRING, "\"none\"", 0, 0, "none|elu", "elu: q and k are replaced by ELU + 1"},
    {"model.scale_B", SQ_KEY_BOOL, NULL, 0, 0, NULL, "divide q.k by the square root of a head's key size"},
    {"model.offset", SQ_KEY_BOOL, NULL, 0, 0, NULL, "a trained offset for each head: f(n + offset)"},
    {"model.offset_init", SQ_KEY_STRING, "\"exp\"", 0, 0, "exp|uniform",
     "offsets at the start: evenly on 4 .. 9, or 8 .. 14"},
};

static const sq_keyset norm_keyset = {"model.attention_fn=norm-attention", norm_keys,
                                      sizeof norm_keys / sizeof *norm_keys, NULL};

/* ---- f ----------------------------------------------------------------------------------------------- */

static double norm_value(int f, double x)
{
  switch (f) {
  case F_EXP: return exp(x);
  case F_ELU: return x > 0 ? x : expm1(x);
  case F_SOFTPLUS: return x > SOFTPLUS_THRESHOLD ? x : log1p(exp(x));
  default: return 1 / (1 + exp(-x));
  }
}

static double norm_slope(int f, double x)
{
  switch (f) {
  case F_EXP: return exp(x);
  case F_ELU: return x > 0 ? 1 : exp(x);
  case F_SOFTPLUS: return x > SOFTPLUS_THRESHOLD ? 1 : 1 / (1 + exp(-x));
  default: {
    const double y = 1 / (1 + exp(-x));
    return y * (1 - y);
  }
  }
}

/* n + offset of (row, head), rounded as the layer rounds it */
static sq_real norm_input(const sq_mixer *m, const sq_real *theta, const sq_real *proj, size_t row, int h)
{
  const sq_real n = proj[row * (size_t)m->C + (size_t)(m->n_at + h)];
  return m->offset_init >= 0 ? n + theta[m->offset + (size_t)h] : n;
}

static sq_real norm_factor(const sq_mixer *m, sq_real x)
{
  const sq_real nu = (sq_real)norm_value(m->norm_fn, (double)x);
  return (sq_real)exp(-(double)nu);
}

/* ---- passes ------------------------------------------------------------------------------------------ */

static void norm_prepare(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                         sq_real *row)
{
  if (m->elu) sq_attention_phi(m, R, Q, t->proj, t->post, row);
  for (int r = 0; r < Q; ++r)
    for (int h = 0; h < m->H; ++h)
      t->stat[(size_t)r * (size_t)m->H + (size_t)h] =
          norm_factor(m, norm_input(m, theta, t->proj, (size_t)r, h));
}

static void norm_finish(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                        const sq_real *delta, sq_real *dproj, sq_real *dpost, sq_real *dtheta)
{
  if (m->elu) sq_attention_phi_back(m, R, Q, t, dproj, dpost);
  for (int h = 0; h < m->H; ++h) {
    double sum = 0;
    for (int r = 0; r < Q; ++r) {
      const double dnu = -(double)delta[(size_t)r * (size_t)m->H + (size_t)h];
      const double x = (double)norm_input(m, theta, t->proj, (size_t)r, h);
      const double dn = dnu == 0 ? 0 : dnu * norm_slope(m->norm_fn, x);
      dproj[(size_t)r * (size_t)m->C + (size_t)(m->n_at + h)] = (sq_real)dn;
      sum += dn;
    }
    if (m->offset_init >= 0) dtheta[m->offset + (size_t)h] += (sq_real)sum;
  }
}

static void norm_forward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                         const sq_attention_work *w)
{
  (void)p, (void)b, (void)h;
  sq_chunked_forward(m, 0, x, w);
}

static void norm_backward(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                          const sq_attention_grad *g, const sq_attention_work *w)
{
  (void)p, (void)b, (void)h;
  sq_chunked_backward(m, 0, x, g, w);
}

/* ---- analysis ---------------------------------------------------------------------------------------- */

static void norm_log_eta(const sq_mixer *m, const sq_real *theta, const sq_attention_tape *t,
                         const sq_attention_view *x, int r0, int h, const int *perm, double *log_eta)
{
  for (int i = 0; i < x->T; ++i) {
    const double nu =
        norm_value(m->norm_fn, (double)norm_input(m, theta, t->proj, (size_t)(r0 + (perm ? perm[i] : i)), h));
    log_eta[i] = nu > NU_MAX ? NU_MAX : nu;
  }
}

static void norm_published(const sq_mixer *m, const sq_real *theta, int T, sq_real *proj,
                           const sq_attention_work *w, double *log_nu)
{
  (void)w;
  for (int i = 0; i < T; ++i)
    for (int h = 0; h < m->H; ++h) {
      const double r = (double)norm_factor(m, norm_input(m, theta, proj, (size_t)i, h));
      log_nu[(size_t)i * (size_t)m->H + (size_t)h] = -log(r == 0 ? PUBLISHED_FLOOR : r);
    }
}

/* ---- creation ---------------------------------------------------------------------------------------- */

const sq_attention_core sq_core_norm = {.work = sq_chunked_work,
                                        .flops = sq_chunked_flops,
                                        .prepare = norm_prepare,
                                        .finish = norm_finish,
                                        .forward = norm_forward,
                                        .backward = norm_backward,
                                        .log_eta = norm_log_eta,
                                        .published = norm_published};

static int norm_function(const char *name)
{
  static const char *const names[] = {
      [F_EXP] = "exp", [F_ELU] = "elu", [F_SOFTPLUS] = "softplus", [F_SIGMOID] = "sigmoid"};
  for (int f = F_EXP; f < F_SIGMOID; ++f)
    if (strcmp(name, names[f]) == 0) return f;
  return F_SIGMOID;
}

/* exp(-exp(4)) is 2e-24 and exp(-exp(5)) is 0 in float32: published as cifar-norm-attention-exp, dead from
 * the start. */
static void warn_of_underflow(const sq_mixer *m)
{
  static int warned;
  if (warned || m->norm_fn != F_EXP || m->offset_init != INIT_EXP) return;
  warned = 1;
  sq_warn("model.norm_fn exp with model.offset_init exp: the normaliser underflows and the layers start dead "
          "(exp(-exp(4)) = 2e-24)");
}

static sq_status norm_create(const sq_config *c, sq_mixer_dims d, sq_mixer **out)
{
  const sq_status st = sq_attention_create(c, d, &sq_mixer_norm, &sq_core_norm, out);
  if (st != SQ_OK) return st;
  sq_mixer *m = *out;
  m->norm_fn = norm_function(sq_config_string(c, "model.norm_fn"));
  m->elu = strcmp(sq_config_string(c, "model.approx_fn"), "elu") == 0;
  if (sq_config_bool(c, "model.scale_B")) m->scale = (sq_real)(1 / sqrt(m->dh));
  if (sq_config_bool(c, "model.offset"))
    m->offset_init = strcmp(sq_config_string(c, "model.offset_init"), "exp") == 0 ? INIT_EXP : INIT_UNIFORM;
  warn_of_underflow(m);
  return SQ_OK;
}

static double linspace(double lo, double hi, int n, int i)
{
  return n == 1 ? lo : lo + (hi - lo) * i / (n - 1);
}

/* Inverse softplus of steps spaced evenly on .02 .. .1, stretched to 8 .. 14.  One head gets (14 - 8)/2, as
 * published. */
static double uniform_offset(int H, int h)
{
  if (H == 1) return 3;
  const double lo = log(expm1(0.02)), hi = log(expm1(0.1));
  return 8 + 6 * (log(expm1(linspace(0.02, 0.1, H, h))) - lo) / (hi - lo);
}

static void norm_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  if (m->offset_init < 0 || p->offset != m->offset) {
    sq_attention_init(m, p, rng, theta);
    return;
  }
  for (int h = 0; h < m->H; ++h)
    theta[p->offset + (size_t)h] =
        (sq_real)(m->offset_init == INIT_EXP ? linspace(4, 9, m->H, h) : uniform_offset(m->H, h));
}

const sq_mixer_ops sq_mixer_norm = {.name = "norm-attention",
                                    .backbone = "transformer",
                                    .keys = &norm_keyset,
                                    .create = norm_create,
                                    SQ_ATTENTION_OPS,
                                    .init = norm_init};
