/* src/mixer/mamba2.c: the shell of the Mamba-2 mixers, and "mamba2".
 *
 *   (x, B, C, dt_raw) = W_in u;   dt = softplus(dt_raw + dt_bias);   (x, B, C) = SiLU(causal convolution)
 *   o = recurrence(x, B, C, dt), see ssd.h;   y = W_out o
 *
 *   mamba2       lambda = exp(-dt exp(A_log)),     input dt_h x_h B^T
 *   mamba2-lti   lambda = exp(-softplus(A)),       input x_h B'^T,  B'[n] = dt[n / (N/H)] B[n]
 *
 * With r = exp(A_log) or softplus(A), log lambda is -dt r in the one and -r in the other. */
#include "mamba2.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define SOFTPLUS_THRESHOLD 20 /* PyTorch: x itself above it */

static const sq_key mamba_keys[] = {
    {"model.state_dim", SQ_KEY_INT, NULL, 1, 65536, NULL, "state size N, shared by the heads"},
    {"model.num_heads", SQ_KEY_INT, NULL, 1, 4096, NULL,
     "heads in hidden_dim channels, which it divides; expansion times as many in all"},
    {"model.expansion", SQ_KEY_INT, "1", 1, 64, NULL, "inner width: expansion times hidden_dim"},
    {"model.conv_dim", SQ_KEY_INT, NULL, 0, SQ_MAX_CONV, NULL,
     "taps of the causal convolution before the recurrence, 0: none"},
    {"model.pseudoLTI", SQ_KEY_BOOL, "false", 0, 0, NULL,
     "decay that does not depend on the input; heads divide state_dim then"},
    {"model.dt_min", SQ_KEY_REAL, "0.001", 1e-6, 1e3, NULL, "smallest step at the start"},
    {"model.dt_max", SQ_KEY_REAL, "0.1", 1e-6, 1e3, NULL, "largest step at the start"},
};

static sq_status mamba_check(const sq_config *c)
{
  const int D = sq_config_int(c, "model.hidden_dim"), heads = sq_config_int(c, "model.num_heads");
  const int N = sq_config_int(c, "model.state_dim"), H = heads * sq_config_int(c, "model.expansion");

  if (D % heads != 0)
    return sq_fail(SQ_ERR_USAGE, "model.num_heads: %d does not divide model.hidden_dim %d", heads, D);
  if (sq_config_bool(c, "model.pseudoLTI") && N % H != 0)
    return sq_fail(SQ_ERR_USAGE,
                   "model.state_dim: %d, expected a multiple of the %d heads (expansion x num_heads) with "
                   "model.pseudoLTI true",
                   N, H);
  if (sq_config_real(c, "model.dt_min") > sq_config_real(c, "model.dt_max"))
    return sq_fail(SQ_ERR_USAGE, "model.dt_min: %g, expected at most model.dt_max %g",
                   sq_config_real(c, "model.dt_min"), sq_config_real(c, "model.dt_max"));
  return SQ_OK;
}

const sq_keyset sq_mamba_keys = {"model.layer=mamba", mamba_keys, sizeof mamba_keys / sizeof *mamba_keys,
                                 mamba_check};

/* ---- shape ------------------------------------------------------------------------------------------- */

sq_status sq_mamba_create(const sq_config *c, sq_mixer_dims d, const sq_mixer_ops *ops,
                          const mamba_kind *kind, sq_mixer **out)
{
  sq_mixer *m = sq_calloc(1, sizeof *m, "a Mamba-2 layer");
  *out = m;
  if (m == NULL) return SQ_ERR_MEMORY;
  const int expansion = sq_config_int(c, "model.expansion"), heads = sq_config_int(c, "model.num_heads");
  m->head = (struct sq_mixer_head){.ops = ops, .dims = d};
  m->kind = kind;
  m->E = expansion * d.D;
  m->H = expansion * heads;
  m->hd = d.D / heads;
  SQ_ASSERT(m->H * m->hd == m->E);
  m->N = sq_config_int(c, "model.state_dim");
  m->K = sq_config_int(c, "model.conv_dim");
  m->ndt = kind->shared_dt ? 1 : m->H;
  m->nconv = m->E + 2 * m->N;
  m->C = m->nconv + m->ndt;
  m->chunk = sq_ssd_chunk(d.seq_len);
  m->dt_min = sq_config_real(c, "model.dt_min");
  m->dt_max = sq_config_real(c, "model.dt_max");
  return SQ_OK;
}

void sq_mamba_destroy(sq_mixer *m)
{
  free(m);
}

static size_t add_of_heads(const sq_mixer *m, const char *prefix, const char *name, sq_param_list *l)
{
  return sq_param_add(l, SQ_PARAM_NO_DECAY, 1, &m->H, "%s.%s", prefix, name);
}

void sq_mamba_params(sq_mixer *m, const char *prefix, sq_param_list *l)
{
  const int D = m->head.dims.D;
  m->dt_bias = add_of_heads(m, prefix, "dt_bias", l);
  if (m->kind->decay_first) m->decay = add_of_heads(m, prefix, m->kind->decay_name, l);
  m->skip = add_of_heads(m, prefix, "D", l);
  if (!m->kind->decay_first) m->decay = add_of_heads(m, prefix, m->kind->decay_name, l);
  m->in_proj = sq_param_add(l, 0, 2, (const int[]){m->C, D}, "%s.in_proj.weight", prefix);
  if (m->K > 0) {
    m->conv = sq_param_add(l, 0, 3, (const int[]){m->nconv, 1, m->K}, "%s.conv1d.weight", prefix);
    m->conv_bias = sq_param_add(l, 0, 1, &m->nconv, "%s.conv1d.bias", prefix);
  }
  m->out_proj = sq_param_add(l, 0, 2, (const int[]){D, m->E}, "%s.out_proj.weight", prefix);
}

/* dt evenly in its logarithm on dt_min .. dt_max; dt_bias is the inverse of softplus there. */
static double draw_dt_bias(const sq_mixer *m, double u)
{
  const double lo = log(m->dt_min), hi = log(m->dt_max);
  const double dt = fmax(exp(lo + u * (hi - lo)), 1e-4);
  return dt + log(-expm1(-dt));
}

void sq_mamba_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  sq_real *x = theta + p->offset;
  if (p->offset == m->dt_bias) {
    for (int h = 0; h < m->H; ++h) x[h] = (sq_real)draw_dt_bias(m, sq_rng_uniform(rng));
  } else if (p->offset == m->decay) {
    for (int h = 0; h < m->H; ++h) x[h] = (sq_real)m->kind->draw(sq_rng_uniform(rng));
  } else if (p->offset == m->skip) {
    sq_nn_init_constant(1, p->count, x);
  } else { /* PyTorch's defaults: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) */
    const int conv = m->K > 0 && (p->offset == m->conv || p->offset == m->conv_bias);
    const int fan_in = conv ? m->K : p->offset == m->in_proj ? m->head.dims.D : m->E;
    sq_nn_init_uniform(rng, 1 / sqrt(fan_in), p->count, x);
  }
}

/* ---- memory ------------------------------------------------------------------------------------------ */

mamba_tape sq_mamba_take_tape(const sq_mixer *m, sq_arena *a)
{
  const size_t R = (size_t)m->head.dims.max_rows;
  mamba_tape t = {0};
  t.proj = SQ_TAKE(a, R * (size_t)m->C, sq_real);
  if (m->K > 0) {
    t.post = SQ_TAKE(a, R * (size_t)m->nconv, sq_real);
  }
  t.dt = SQ_TAKE(a, R * (size_t)m->H, sq_real);
  t.lambda = SQ_TAKE(a, R * (size_t)m->H, sq_real);
  t.out = SQ_TAKE(a, R * (size_t)m->E, sq_real);
  return t;
}

static mamba_scratch take_scratch(const sq_mixer *m, sq_arena *a)
{
  const size_t R = (size_t)m->head.dims.max_rows, H = (size_t)m->H;
  mamba_scratch s = {.ssd = sq_ssd_take(a, m->chunk, m->head.dims.seq_len, m->H, m->hd, m->N)};
  if (m->kind->shared_dt) {
    s.b = SQ_TAKE(a, R * (size_t)m->N, sq_real);
    s.db = SQ_TAKE(a, R * (size_t)m->N, sq_real);
  }
  s.dout = SQ_TAKE(a, R * (size_t)m->E, sq_real);
  s.dproj = SQ_TAKE(a, R * (size_t)m->C, sq_real);
  if (m->K > 0) s.dpost = SQ_TAKE(a, R * (size_t)m->nconv, sq_real);
  s.ddt = SQ_TAKE(a, R * H, sq_real);
  s.dlambda = SQ_TAKE(a, R * H, sq_real);
  s.e = SQ_TAKE(a, R * H, sq_real);
  s.sum = SQ_TAKE(a, H, double);
  return s;
}

size_t sq_mamba_tape_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)sq_mamba_take_tape(m, &count);
  return count.used;
}

size_t sq_mamba_scratch_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)take_scratch(m, &count);
  return count.used;
}

static sq_arena arena_over(const void *memory)
{
  return (sq_arena){.base = (unsigned char *)(uintptr_t)memory, .used = 0, .cap = SIZE_MAX};
}

/* share: of the steps whose output is wanted */
static double flops_of(const sq_mixer *m, int nseq, const int *len, double share)
{
  const double D = m->head.dims.D;
  double sum = 0;
  for (int b = 0; b < nseq; ++b)
    sum += 2.0 * len[b] * (D * (m->C + share * m->E) + (double)m->nconv * m->K) +
           sq_ssd_flops(m->chunk, len[b], m->H, m->hd, m->N, share);
  return sum;
}

double sq_mamba_flops(const sq_mixer *m, int nseq, const int *len)
{
  return flops_of(m, nseq, len, 1);
}

double sq_mamba_flops_wanted(const sq_mixer *m, int nseq, const int *len, double wanted)
{
  double rows = 0;
  for (int b = 0; b < nseq; ++b) rows += len[b];
  return flops_of(m, nseq, len, wanted / rows);
}

/* ---- elementwise ------------------------------------------------------------------------------------- */

sq_real *sq_mamba_channels(const sq_mixer *m, sq_real *proj, sq_real *post, int *ld)
{
  *ld = m->K > 0 ? m->nconv : m->C;
  return m->K > 0 ? post : proj;
}

void sq_mamba_dt_sums(const sq_mixer *m, const sq_real *theta, int R, const sq_real *raw, int ld, sq_real *x)
{
  for (int r = 0; r < R; ++r, raw += ld)
    for (int h = 0; h < m->H; ++h) *x++ = raw[m->kind->shared_dt ? 0 : h] + theta[m->dt_bias + (size_t)h];
}

static SQ_CLONES void minus_size(size_t n, const sq_real *restrict x, sq_real *restrict e)
{
  for (size_t i = 0; i < n; ++i) e[i] = x[i] > 0 ? -x[i] : x[i]; /* NaN stays */
}

void sq_mamba_softplus(size_t n, sq_real *x, sq_real *e)
{
  minus_size(n, x, e);
  sq_nn_exp(n, e, e);
  for (size_t i = 0; i < n; ++i) {
#ifdef SQ_DOUBLE
    const sq_real tail = log1p(e[i]);
#else
    const sq_real tail = log1pf(e[i]);
#endif
    if (!(x[i] > SOFTPLUS_THRESHOLD)) x[i] = x[i] > 0 ? x[i] + tail : tail;
  }
}

/* d *= softplus'(x), e = exp(-|x|) */
static SQ_CLONES void softplus_back(size_t n, const sq_real *restrict x, const sq_real *restrict e,
                                    sq_real *restrict d)
{
  for (size_t i = 0; i < n; ++i) {
    const sq_real sigmoid = (x[i] > 0 ? 1 : e[i]) / (1 + e[i]);
    d[i] *= x[i] > SOFTPLUS_THRESHOLD ? 1 : sigmoid;
  }
}

/* lambda (R,H) from dt */
static void make_lambda(const sq_mixer *m, const sq_real *theta, int R, const mamba_tape *t)
{
  const size_t H = (size_t)m->H, n = (size_t)R * H;
  for (size_t h = 0; h < H; ++h) {
    const sq_real rate = (sq_real)m->kind->rate((double)theta[m->decay + h]);
    for (size_t i = h; i < n; i += H) t->lambda[i] = -(m->kind->shared_dt ? 1 : t->dt[i]) * rate;
  }
  sq_nn_exp(n, t->lambda, t->lambda);
}

/* b[n] = dt[n / (N/H)] B[n] */
static SQ_CLONES void weigh_groups(int R, int H, int group, const sq_real *restrict dt,
                                   const sq_real *restrict B, int ldb, sq_real *restrict b)
{
  for (int r = 0; r < R; ++r, B += ldb)
    for (int h = 0; h < H; ++h, b += group) {
      const sq_real f = *dt++;
      for (int j = 0; j < group; ++j) b[j] = f * B[h * group + j];
    }
}

/* dB = dt o db, ddt = sum over a group of db o B */
static SQ_CLONES void weigh_groups_back(int R, int H, int group, const sq_real *restrict dt,
                                        const sq_real *restrict B, int ldb, const sq_real *restrict db,
                                        sq_real *restrict dB, sq_real *restrict ddt)
{
  for (int r = 0; r < R; ++r, B += ldb, dB += ldb)
    for (int h = 0; h < H; ++h, db += group) {
      const sq_real f = *dt++;
      sq_real sum = 0;
      for (int j = 0; j < group; ++j) {
        sum += db[j] * B[h * group + j];
        dB[h * group + j] = f * db[j];
      }
      *ddt++ = sum;
    }
}

/* ---- passes ------------------------------------------------------------------------------------------ */

/* Number of the first wanted row of sequence b. */
static int first_wanted(const sq_pass *p, int b)
{
  return p->wanted != NULL ? p->wanted->off[b] : p->rows->off[b];
}

static sq_ssd view_of(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const mamba_tape *t,
                      const mamba_scratch *s, int b)
{
  const size_t r = (size_t)p->rows->off[b], H = (size_t)m->H, q = (size_t)first_wanted(p, b);
  const int T = p->rows->off[b + 1] - p->rows->off[b];
  int ld;
  const sq_real *channel = sq_mamba_channels(m, t->proj, t->post, &ld), *x = channel + r * (size_t)ld;
  sq_ssd v = {.T = T, .H = m->H, .hd = m->hd, .N = m->N, .chunk = m->chunk, .ldx = ld, .ldb = ld, .ldc = ld};
  SQ_ASSERT(T <= m->head.dims.seq_len);
  v.n = first_wanted(p, b + 1) - first_wanted(p, b);
  v.step = p->wanted != NULL ? p->wanted->step + q : NULL;
  v.x = x;
  v.B = x + m->E;
  v.C = channel + q * (size_t)ld + m->E + m->N;
  v.lambda = t->lambda + r * H;
  v.skip = theta + m->skip;
  if (m->kind->shared_dt) {
    v.B = s->b + r * (size_t)m->N;
    v.ldb = m->N;
  } else {
    v.gain = t->dt + r * H;
  }
  return v;
}

static void make_b(const sq_mixer *m, int R, const mamba_tape *t, const mamba_scratch *s)
{
  int ld;
  const sq_real *x = sq_mamba_channels(m, t->proj, t->post, &ld);
  if (m->kind->shared_dt) weigh_groups(R, m->H, m->N / m->H, t->dt, x + m->E, ld, s->b);
}

void sq_mamba_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                      void *tape, void *scratch)
{
  const int D = m->head.dims.D, R = p->rows->nrow;
  sq_arena ta = arena_over(tape), sa = arena_over(scratch);
  const mamba_tape t = sq_mamba_take_tape(m, &ta);
  const mamba_scratch s = take_scratch(m, &sa);

  sq_nn_linear(R, D, m->C, u, D, theta + m->in_proj, NULL, t.proj, m->C);
  sq_mamba_dt_sums(m, theta, R, t.proj + m->nconv, m->C, t.dt);
  sq_mamba_softplus((size_t)R * (size_t)m->H, t.dt, s.e);
  make_lambda(m, theta, R, &t);
  if (m->K > 0)
    sq_nn_conv_silu(p->rows, m->nconv, m->K, t.proj, m->C, theta + m->conv, theta + m->conv_bias, t.post,
                    m->nconv);
  make_b(m, R, &t, &s);
  if (p->wanted != NULL) {
    int ld;
    sq_real *channel = sq_mamba_channels(m, t.proj, t.post, &ld);
    sq_keep_rows(p->wanted, m->N, channel + m->E + m->N, ld);
  }
  for (int b = 0; b < p->rows->nseq; ++b) {
    const sq_ssd v = view_of(m, theta, p, &t, &s, b);
    sq_ssd_forward(&v, t.out + (size_t)first_wanted(p, b) * (size_t)m->E, m->E, &s.ssd);
  }
  sq_nn_linear(first_wanted(p, p->rows->nseq), m->E, D, t.out, m->E, theta + m->out_proj, NULL, y, D);
}

static void back_sequence(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const mamba_tape *t,
                          const mamba_scratch *s, int b)
{
  const size_t r = (size_t)p->rows->off[b], H = (size_t)m->H, q = (size_t)first_wanted(p, b);
  const sq_ssd v = view_of(m, theta, p, t, s, b);
  int ld;
  sq_real *channel = sq_mamba_channels(m, s->dproj, s->dpost, &ld), *dx = channel + r * (size_t)ld;
  const sq_ssd_grad g = {.dy = s->dout + q * (size_t)m->E,
                         .ldy = m->E,
                         .dx = dx,
                         .dB = m->kind->shared_dt ? s->db + r * (size_t)m->N : dx + m->E,
                         .dC = channel + q * (size_t)ld + m->E + m->N,
                         .dlog_lambda = s->dlambda + r * H,
                         .dgain = s->ddt + r * H,
                         .dskip = s->sum};
  sq_ssd_backward(&v, &g, &s->ssd);
}

/* Gradients of the decay's parameter, and of dt (completed in s.ddt). */
static void back_decay(const sq_mixer *m, const sq_real *theta, int R, const mamba_tape *t,
                       const mamba_scratch *s, sq_real *dtheta)
{
  const size_t H = (size_t)m->H, n = (size_t)R * H;
  int ld;
  const sq_real *B = sq_mamba_channels(m, t->proj, t->post, &ld) + m->E;
  sq_real *dB = sq_mamba_channels(m, s->dproj, s->dpost, &ld) + m->E;

  if (m->kind->shared_dt) weigh_groups_back(R, m->H, m->N / m->H, t->dt, B, ld, s->db, dB, s->ddt);
  for (size_t h = 0; h < H; ++h) {
    const double decay = (double)theta[m->decay + h];
    const sq_real rate = (sq_real)m->kind->rate(decay);
    double sum = 0; /* dL/d rate, with the sign turned */
    for (size_t i = h; i < n; i += H) {
      sum += (double)s->dlambda[i] * (m->kind->shared_dt ? 1 : (double)t->dt[i]);
      if (!m->kind->shared_dt) s->ddt[i] -= rate * s->dlambda[i];
    }
    dtheta[m->decay + h] -= (sq_real)(sum * m->kind->rate_slope(decay));
  }
}

/* From s.ddt to dt_bias and the channels of dt in s.dproj. */
static void back_dt(const sq_mixer *m, const sq_real *theta, int R, const mamba_tape *t,
                    const mamba_scratch *s, sq_real *dtheta)
{
  const size_t H = (size_t)m->H, n = (size_t)R * H;
  sq_real *x = s->dlambda, *to = s->dproj + m->nconv; /* dlambda has done its work */

  sq_mamba_dt_sums(m, theta, R, t->proj + m->nconv, m->C, x);
  minus_size(n, x, s->e);
  sq_nn_exp(n, s->e, s->e);
  softplus_back(n, x, s->e, s->ddt);
  for (size_t h = 0; h < H; ++h) {
    double sum = 0;
    for (size_t i = h; i < n; i += H) sum += (double)s->ddt[i];
    dtheta[m->dt_bias + h] += (sq_real)sum;
  }
  for (int r = 0; r < R; ++r, to += m->C) {
    const sq_real *d = s->ddt + (size_t)r * H;
    for (int k = 0; k < m->ndt; ++k) to[k] = d[k];
    for (int h = m->ndt; h < m->H; ++h) to[0] += d[h]; /* the shared channel feeds all heads */
  }
}

void sq_mamba_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                       const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch)
{
  const int D = m->head.dims.D, R = p->rows->nrow;
  sq_arena ta = arena_over(tape), sa = arena_over(scratch);
  const mamba_tape t = sq_mamba_take_tape(m, &ta); /* read only */
  const mamba_scratch s = take_scratch(m, &sa);

  sq_nn_linear_back(first_wanted(p, p->rows->nseq), m->E, D, t.out, m->E, theta + m->out_proj, dy, D, s.dout,
                    m->E, 0, dtheta + m->out_proj, NULL);
  make_b(m, R, &t, &s);
  for (int h = 0; h < m->H; ++h) s.sum[h] = 0;
  for (int b = 0; b < p->rows->nseq; ++b) back_sequence(m, theta, p, &t, &s, b);
  if (p->wanted != NULL) {
    int ld;
    sq_real *channel = sq_mamba_channels(m, s.dproj, s.dpost, &ld);
    sq_spread_rows(R, p->wanted, m->N, channel + m->E + m->N, ld);
  }
  for (int h = 0; h < m->H; ++h) dtheta[m->skip + (size_t)h] += (sq_real)s.sum[h];
  back_decay(m, theta, R, &t, &s, dtheta);
  back_dt(m, theta, R, &t, &s, dtheta);
  if (m->K > 0)
    sq_nn_conv_silu_back(p->rows, m->nconv, m->K, t.proj, m->C, theta + m->conv, theta + m->conv_bias,
                         s.dpost, m->nconv, s.dproj, m->C, dtheta + m->conv, dtheta + m->conv_bias);
  sq_nn_linear_back(R, D, m->C, u, D, theta + m->in_proj, s.dproj, m->C, du, D, 0, dtheta + m->in_proj, NULL);
}

/* ---- mamba2 ------------------------------------------------------------------------------------------ */

/* A_log = log U(1,16) */
static double draw_log(double u)
{
  return log(1 + 15 * u);
}

static const mamba_kind mamba2 = {.shared_dt = 0,
                                  .decay_name = "A_log",
                                  .decay_first = 1,
                                  .draw = draw_log,
                                  .rate = exp,
                                  .rate_slope = exp};

static sq_status mamba2_create(const sq_config *c, sq_mixer_dims d, sq_mixer **m)
{
  return sq_mamba_create(c, d, &sq_mixer_mamba2, &mamba2, m);
}

const sq_mixer_ops sq_mixer_mamba2 = {.name = "mamba2", .create = mamba2_create, SQ_MAMBA_OPS};
