/* src/mixer/attention.c: the shell of the attention mixers, models/transformer.py and attention.py of the
 * published study.
 *
 *   p = W u + b;  (q,k,v) or (q,k) = SiLU(causal convolution of p) if dim_conv > 0;  o = core(q,k,v,n) by
 * heads; y = W_out o + b_out
 *
 * Projections act on the whole shard, one product each; the cores work on blocks of one sequence and head. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "sq/parallel.h"

static const sq_key shared_keys[] = {
    {"model.attention_fn", SQ_KEY_STRING, NULL, 0, 0, "sm-attention|lin-attention|norm-attention",
     "attention of every block"},
    {"model.state_dim", SQ_KEY_INT, NULL, 1, 65536, NULL, "channels of q and of k, over all heads"},
    {"model.num_heads", SQ_KEY_INT, NULL, 1, 4096, NULL, "heads; divides hidden_dim and state_dim"},
    {"model.att_dropout", SQ_KEY_REAL, "0", 0, 0.999, NULL,
     "dropout rate: on the weights of sm-attention, on the heads' outputs of the others"},
    {"model.dim_conv", SQ_KEY_INT, "0", 0, SQ_MAX_CONV, NULL,
     "taps of the causal convolution before the heads, 0: none"},
    {"model.conv_type", SQ_KEY_STRING, "\"full\"", 0, 0, "full|partial",
     "convolved channels: q, k and v, or q and k"},
};

static sq_status check_divides(const sq_config *c, const char *path, int heads)
{
  const int width = sq_config_int(c, path);
  if (width % heads == 0) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "model.num_heads: %d does not divide %s %d", heads, path, width);
}

static sq_status shared_check(const sq_config *c)
{
  const int heads = sq_config_int(c, "model.num_heads");
  const sq_status st = check_divides(c, "model.hidden_dim", heads);
  return st == SQ_OK ? check_divides(c, "model.state_dim", heads) : st;
}

const sq_keyset sq_attention_keys = {"model.layer=transformer", shared_keys,
                                     sizeof shared_keys / sizeof *shared_keys, shared_check};

/* ---- shape ------------------------------------------------------------------------------------------- */

static void place_channels(sq_mixer *m, int conv_full)
{
  const int D = m->head.dims.D, with_n = m->core == &sq_core_norm;
  m->q_at = with_n ? D : 0;
  m->v_at = with_n ? 0 : 2 * m->dqk;
  m->n_at = with_n ? D + 2 * m->dqk : -1;
  m->C = D + 2 * m->dqk + (with_n ? m->H : 0);
  m->conv_at = conv_full ? 0 : m->q_at;
  m->nconv = m->K == 0 ? 0 : 2 * m->dqk + (conv_full ? D : 0);
}

sq_status sq_attention_create(const sq_config *c, sq_mixer_dims d, const sq_mixer_ops *ops,
                              const sq_attention_core *core, sq_mixer **out)
{
  *out = NULL;
  const int H = sq_config_int(c, "model.num_heads"), dqk = sq_config_int(c, "model.state_dim");
  if (d.D % H != 0 || dqk % H != 0)
    return sq_fail(SQ_ERR_USAGE,
                   "model.num_heads: %d does not divide both the width %d and model.state_dim %d", H, d.D,
                   dqk);
  sq_mixer *m = sq_calloc(1, sizeof *m, "attention");
  if (m == NULL) return SQ_ERR_MEMORY;
  m->head = (struct sq_mixer_head){.ops = ops, .dims = d};
  m->core = core;
  m->H = H;
  m->dqk = dqk;
  m->dh = dqk / H;
  m->dv = d.D / H;
  m->K = sq_config_int(c, "model.dim_conv");
  m->att_dropout = sq_config_real(c, "model.att_dropout");
  m->scale = 1;
  m->offset_init = -1;
  place_channels(m, strcmp(sq_config_string(c, "model.conv_type"), "full") == 0);
  *out = m;
  return SQ_OK;
}

void sq_attention_destroy(sq_mixer *m)
{
  free(m);
}

void sq_attention_params(sq_mixer *m, const char *prefix, sq_param_list *l)
{
  const int D = m->head.dims.D;
  const char *projection = m->n_at >= 0 ? "Wvqkn" : "Wqkv";
  m->W = sq_param_add(l, 0, 2, (const int[]){m->C, D}, "%s.%s.weight", prefix, projection);
  m->W_bias = sq_param_add(l, 0, 1, &m->C, "%s.%s.bias", prefix, projection);
  if (m->K > 0) {
    m->conv = sq_param_add(l, 0, 3, (const int[]){m->nconv, 1, m->K}, "%s.conv1d.weight", prefix);
    m->conv_bias = sq_param_add(l, 0, 1, &m->nconv, "%s.conv1d.bias", prefix);
  }
  if (m->offset_init >= 0)
    m->offset = sq_param_add(l, SQ_PARAM_NO_DECAY, 1, &m->H, "%s.inner_attn.offset", prefix);
  m->out = sq_param_add(l, 0, 2, (const int[]){D, D}, "%s.out_proj.weight", prefix);
  m->out_bias = sq_param_add(l, 0, 1, &D, "%s.out_proj.bias", prefix);
}

/* PyTorch's defaults: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases of linear layers and
 * convolutions. */
void sq_attention_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta)
{
  const int conv = m->K > 0 && (p->offset == m->conv || p->offset == m->conv_bias);
  sq_nn_init_uniform(rng, 1 / sqrt(conv ? m->K : m->head.dims.D), p->count, theta + p->offset);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

sq_attention_tape sq_attention_take_tape(const sq_mixer *m, sq_arena *a)
{
  const size_t R = (size_t)m->head.dims.max_rows, D = (size_t)m->head.dims.D;
  sq_attention_tape t = {0};
  t.proj = SQ_TAKE(a, R * (size_t)m->C, sq_real);
  if (m->K > 0) t.post = SQ_TAKE(a, R * (size_t)m->nconv, sq_real);
  t.out = SQ_TAKE(a, R * D, sq_real);
  t.stat = SQ_TAKE(a, R * (size_t)m->H, sq_real);
  return t;
}

typedef struct {
  sq_real *dout, *dproj, *dpost, *delta; /* (R,D), (R,C), (R,nconv), (R,H) */
  sq_attention_work work[SQ_LANES];
} scratch_space;

static scratch_space take_scratch(const sq_mixer *m, sq_arena *a)
{
  const size_t R = (size_t)m->head.dims.max_rows;
  scratch_space s = {0};
  for (int l = 0; l < SQ_LANES; ++l) m->core->work(m, a, &s.work[l]);
  s.dout = SQ_TAKE(a, R * (size_t)m->head.dims.D, sq_real);
  s.dproj = SQ_TAKE(a, R * (size_t)m->C, sq_real);
  if (m->K > 0) s.dpost = SQ_TAKE(a, R * (size_t)m->nconv, sq_real);
  s.delta = SQ_TAKE(a, R * (size_t)m->H, sq_real);
  return s;
}

size_t sq_attention_tape_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)sq_attention_take_tape(m, &count);
  return count.used;
}

size_t sq_attention_scratch_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)take_scratch(m, &count);
  return count.used;
}

static sq_arena arena_over(const void *memory)
{
  return (sq_arena){.base = (unsigned char *)memory, .used = 0, .cap = SIZE_MAX};
}

/* share: of the steps that are queries; some: projected channels of queries alone */
static double flops_of(const sq_mixer *m, int nseq, const int *len, double share, int some)
{
  const double D = m->head.dims.D, all = m->C - some;
  double sum = 0;
  for (int b = 0; b < nseq; ++b)
    sum += 2.0 * len[b] * (D * (all + share * (some + D)) + (double)m->nconv * m->K) +
           m->H * m->core->flops(m, len[b], share);
  return sum;
}

double sq_attention_flops(const sq_mixer *m, int nseq, const int *len)
{
  return flops_of(m, nseq, len, 1, 0);
}

double sq_attention_flops_wanted(const sq_mixer *m, int nseq, const int *len, double wanted)
{
  double rows = 0;
  for (int b = 0; b < nseq; ++b) rows += len[b];
  return flops_of(m, nseq, len, wanted / rows, (m->K == 0 ? m->dqk : 0) + (m->n_at >= 0 ? m->H : 0));
}

/* ---- views ------------------------------------------------------------------------------------------- */

sq_real *sq_attention_channel(const sq_mixer *m, sq_real *proj, sq_real *post, int c, int *ld)
{
  const int convolved = m->conv_at <= c && c < m->conv_at + m->nconv;
  *ld = convolved ? m->nconv : m->C;
  return convolved ? post + (c - m->conv_at) : proj + c;
}

sq_attention_view sq_attention_head_view(const sq_mixer *m, const sq_attention_tape *t, int r0, int T, int h)
{
  sq_attention_view x = {.T = T, .n = T, .ldo = m->head.dims.D, .H = m->H};
  const size_t r = (size_t)r0;
  const sq_real *q = sq_attention_channel(m, t->proj, t->post, m->q_at, &x.ldqk);
  const sq_real *v = sq_attention_channel(m, t->proj, t->post, m->v_at, &x.ldv);
  x.q = q + r * (size_t)x.ldqk + h * m->dh;
  x.k = x.q + m->dqk;
  x.v = v + r * (size_t)x.ldv + h * m->dv;
  x.out = t->out + r * (size_t)x.ldo + h * m->dv;
  x.stat = t->stat + r * (size_t)m->H + h;
  return x;
}

/* Number of the first query of sequence b. */
static int first_query(const sq_pass *p, int b)
{
  return p->wanted != NULL ? p->wanted->off[b] : p->rows->off[b];
}

static sq_attention_view pass_view(const sq_mixer *m, const sq_pass *p, const sq_attention_tape *t, int b,
                                   int h)
{
  const int r0 = p->rows->off[b];
  sq_attention_view x = sq_attention_head_view(m, t, r0, p->rows->off[b + 1] - r0, h);
  if (p->wanted == NULL) return x;
  const sq_attention_view at = sq_attention_head_view(m, t, first_query(p, b), 0, h);
  x.n = first_query(p, b + 1) - first_query(p, b);
  x.step = p->wanted->step + first_query(p, b);
  x.q = at.q;
  x.out = at.out;
  x.stat = at.stat;
  return x;
}

static sq_attention_grad head_grad(const sq_mixer *m, const sq_pass *p, const scratch_space *s, int b, int h)
{
  int ldqk, ldv;
  const size_t r = (size_t)p->rows->off[b], first = (size_t)first_query(p, b);
  sq_real *dq = sq_attention_channel(m, s->dproj, s->dpost, m->q_at, &ldqk);
  sq_real *dv = sq_attention_channel(m, s->dproj, s->dpost, m->v_at, &ldv);
  dq += h * m->dh;
  return (sq_attention_grad){.dq = dq + first * (size_t)ldqk,
                             .dk = dq + m->dqk + r * (size_t)ldqk,
                             .dv = dv + r * (size_t)ldv + h * m->dv,
                             .dout = s->dout + first * (size_t)m->head.dims.D + h * m->dv,
                             .delta = s->delta + first * (size_t)m->H + h};
}

/* ---- elementwise ------------------------------------------------------------------------------------- */

static SQ_CLONES void split_sign(int n, const sq_real *restrict x, sq_real *restrict negative)
{
  for (int j = 0; j < n; ++j) negative[j] = x[j] > 0 ? 0 : x[j]; /* NaN stays */
}

static SQ_CLONES void add_positive(int n, sq_real *restrict x, const sq_real *restrict e)
{
  for (int j = 0; j < n; ++j) x[j] = e[j] + (x[j] > 0 ? x[j] : 0);
}

static void phi_rows(int R, int n, sq_real *x, int ld, sq_real *row)
{
  for (int r = 0; r < R; ++r, x += ld) { /* exp(min(x,0)) + max(x,0) */
    split_sign(n, x, row);
    sq_nn_exp((size_t)n, row, row);
    add_positive(n, x, row);
  }
}

void sq_attention_phi(const sq_mixer *m, int R, int Q, sq_real *proj, sq_real *post, sq_real *row)
{
  int ld;
  sq_real *q = sq_attention_channel(m, proj, post, m->q_at, &ld);
  phi_rows(Q, 2 * m->dqk, q, ld, row);
  phi_rows(R - Q, m->dqk, q + (size_t)Q * (size_t)ld + m->dqk, ld, row);
}

static SQ_CLONES void phi_back_rows(int R, int n, const sq_real *restrict phi, sq_real *restrict d, int ld)
{
  for (int r = 0; r < R; ++r, phi += ld, d += ld)
    for (int j = 0; j < n; ++j) d[j] *= phi[j] < 1 ? phi[j] : 1;
}

void sq_attention_phi_back(const sq_mixer *m, int R, int Q, const sq_attention_tape *t, sq_real *dproj,
                           sq_real *dpost)
{
  int ld;
  const sq_real *phi = sq_attention_channel(m, t->proj, t->post, m->q_at, &ld);
  sq_real *d = sq_attention_channel(m, dproj, dpost, m->q_at, &ld);
  const size_t rest = (size_t)Q * (size_t)ld + (size_t)m->dqk; /* k of the rows behind */
  phi_back_rows(Q, 2 * m->dqk, phi, d, ld);
  phi_back_rows(R - Q, m->dqk, phi + rest, d + rest, ld);
}

/* delta[r,h] = dout . out over a head's channels */
static SQ_CLONES void head_dots(size_t RH, int dv, const sq_real *restrict dout, const sq_real *restrict out,
                                sq_real *restrict delta)
{
  for (size_t i = 0; i < RH; ++i) delta[i] = sq_lane_dot(dv, dout + i * (size_t)dv, out + i * (size_t)dv);
}

static SQ_CLONES void scale_heads(size_t RH, int dv, const sq_real *restrict factor, sq_real *restrict x)
{
  for (size_t i = 0; i < RH; ++i, x += dv) {
    const sq_real f = factor[i];
    for (int j = 0; j < dv; ++j) x[j] *= f;
  }
}

/* ---- projection -------------------------------------------------------------------------------------- */

typedef struct {   /* projected channels at .. at+n-1 */
  int at, n, some; /* of queries alone, else of all rows */
} channels;

enum { MAX_PARTS = 4 };

/* The projection in as few products as the list of wanted rows allows. */
static int projection_parts(const sq_mixer *m, const sq_pass *p, channels part[MAX_PARTS])
{
  const int some = p->wanted != NULL, D = m->head.dims.D, q = some && m->K == 0;
  const channels of_norm[] = {
      {m->v_at, D, 0}, {m->q_at, m->dqk, q}, {m->q_at + m->dqk, m->dqk, 0}, {m->n_at, m->H, some}};
  const channels of_others[] = {{m->q_at, m->dqk, q}, {m->q_at + m->dqk, m->dqk + D, 0}};
  const channels *from = m->n_at >= 0 ? of_norm : of_others;
  int n = 0;
  for (int i = 0; i < (m->n_at >= 0 ? 4 : 2); ++i)
    if (n > 0 && part[n - 1].some == from[i].some)
      part[n - 1].n += from[i].n;
    else
      part[n++] = from[i];
  return n;
}

/* room (Q,D): overwritten */
static void project(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                    sq_real *proj, sq_real *room)
{
  const int D = m->head.dims.D;
  channels part[MAX_PARTS];
  const int n = projection_parts(m, p, part);
  if (p->wanted != NULL) sq_nn_gather_rows(D, p->wanted->n, p->wanted->row, u, room);
  for (int i = 0; i < n; ++i) {
    const channels c = part[i];
    sq_nn_linear(c.some ? p->wanted->n : p->rows->nrow, D, c.n, c.some ? room : u, D,
                 theta + m->W + (size_t)c.at * (size_t)D, theta + m->W_bias + c.at, proj + c.at, m->C);
  }
}

static void project_back_some(const sq_mixer *m, const sq_real *theta, const sq_wanted *wanted, channels c,
                              const sq_real *u, const sq_real *dproj, sq_real *du, sq_real *dtheta,
                              sq_real *room)
{
  const int D = m->head.dims.D;
  const size_t W = m->W + (size_t)c.at * (size_t)D;
  sq_nn_gather_rows(D, wanted->n, wanted->row, u, room);
  sq_nn_linear_back(wanted->n, D, c.n, room, D, theta + W, dproj + c.at, m->C, NULL, D, 0, dtheta + W,
                    dtheta + m->W_bias + c.at);
  sq_gemm(SQ_N, SQ_N, wanted->n, D, c.n, 1, dproj + c.at, m->C, theta + W, D, 0, room, D);
  sq_nn_add_rows(D, wanted->n, wanted->row, room, du);
}

static void project_back(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                         const sq_real *dproj, sq_real *du, sq_real *dtheta, sq_real *room)
{
  const int D = m->head.dims.D;
  channels part[MAX_PARTS];
  const int n = projection_parts(m, p, part);
  int add = 0;
  for (int i = 0; i < n; ++i) {
    const channels c = part[i];
    const size_t W = m->W + (size_t)c.at * (size_t)D;
    if (c.some) continue;
    sq_nn_linear_back(p->rows->nrow, D, c.n, u, D, theta + W, dproj + c.at, m->C, du, D, add, dtheta + W,
                      dtheta + m->W_bias + c.at);
    add = 1;
  }
  for (int i = 0; i < n; ++i)
    if (part[i].some) project_back_some(m, theta, p->wanted, part[i], u, dproj, du, dtheta, room);
}

/* ---- passes ------------------------------------------------------------------------------------------ */

/* The pairs of sequence and head, dealt out to lanes of work space. */
typedef struct {
  const sq_mixer *m;
  const sq_pass *p;
  const sq_attention_tape *t;
  const scratch_space *s;
} heads;

/* A single pair is left to the products inside it. */
static int nlane(const sq_mixer *m, const sq_pass *p)
{
  const int n = p->rows->nseq * m->H;
  return n < SQ_LANES ? n : SQ_LANES;
}

static void forward_lane(void *ctx, int lane)
{
  const heads *a = ctx;
  for (int i = lane; i < a->p->rows->nseq * a->m->H; i += SQ_LANES) {
    const int b = i / a->m->H, h = i % a->m->H;
    const sq_attention_view x = pass_view(a->m, a->p, a->t, b, h);
    a->m->core->forward(a->m, a->p, b, h, &x, &a->s->work[lane]);
  }
}

static void backward_lane(void *ctx, int lane)
{
  const heads *a = ctx;
  for (int i = lane; i < a->p->rows->nseq * a->m->H; i += SQ_LANES) {
    const int b = i / a->m->H, h = i % a->m->H;
    const sq_attention_view x = pass_view(a->m, a->p, a->t, b, h);
    const sq_attention_grad g = head_grad(a->m, a->p, a->s, b, h);
    a->m->core->backward(a->m, a->p, b, h, &x, &g, &a->s->work[lane]);
  }
}

static int queries(const sq_pass *p)
{
  return p->wanted != NULL ? p->wanted->n : p->rows->nrow;
}

void sq_attention_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          sq_real *y, void *tape, void *scratch)
{
  const int D = m->head.dims.D, R = p->rows->nrow, Q = queries(p);
  sq_arena ta = arena_over(tape), sa = arena_over(scratch);
  const sq_attention_tape t = sq_attention_take_tape(m, &ta);
  const scratch_space s = take_scratch(m, &sa);

  project(m, theta, p, u, t.proj, s.dout);
  if (m->K > 0)
    sq_nn_conv_silu(p->rows, m->nconv, m->K, t.proj + m->conv_at, m->C, theta + m->conv, theta + m->conv_bias,
                    t.post, m->nconv);
  if (m->K > 0 && p->wanted) /* backward convolves all rows again, but needs q itself of queries alone */
    sq_keep_rows(p->wanted, m->dqk, t.post + (m->q_at - m->conv_at), m->nconv);
  if (m->core->prepare) m->core->prepare(m, theta, R, Q, &t, s.work[0].row);
  heads a = {m, p, &t, &s};
  sq_parallel_blocks(nlane(m, p), forward_lane, &a);
  if (!m->core->weight_dropout) sq_nn_dropout(p, m->att_dropout, m->head.dims.site, D, t.out, D);
  sq_nn_linear(Q, D, D, t.out, D, theta + m->out, theta + m->out_bias, y, D);
}

/* With dropout on outputs, out' = mask out and dout = mask dout': dout.out = dout'.out', so delta needs no
   copy of the outputs before dropout. */
static void gradient_of_heads(const sq_mixer *m, const sq_pass *p, const sq_attention_tape *t,
                              const scratch_space *s)
{
  const int D = m->head.dims.D;
  const size_t RH = (size_t)queries(p) * (size_t)m->H;
  head_dots(RH, m->dv, s->dout, t->out, s->delta);
  if (m->core->weight_dropout) return;
  sq_nn_dropout(p, m->att_dropout, m->head.dims.site, D, s->dout, D);
  scale_heads(RH, m->dv, t->stat, s->dout);
}

void sq_attention_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                           const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch)
{
  const int D = m->head.dims.D, R = p->rows->nrow, Q = queries(p);
  sq_arena ta = arena_over(tape), sa = arena_over(scratch);
  const sq_attention_tape t = sq_attention_take_tape(m, &ta); /* read only */
  const scratch_space s = take_scratch(m, &sa);

  sq_nn_linear_back(Q, D, D, t.out, D, theta + m->out, dy, D, s.dout, D, 0, dtheta + m->out,
                    dtheta + m->out_bias);
  gradient_of_heads(m, p, &t, &s);
  heads a = {m, p, &t, &s};
  sq_parallel_blocks(nlane(m, p), backward_lane, &a);
  if (m->core->finish) m->core->finish(m, theta, R, Q, &t, s.delta, s.dproj, s.dpost, dtheta);
  if (m->K > 0 && p->wanted) sq_spread_rows(R, p->wanted, m->dqk, s.dpost + (m->q_at - m->conv_at), m->nconv);
  if (m->K > 0)
    sq_nn_conv_silu_back(p->rows, m->nconv, m->K, t.proj + m->conv_at, m->C, theta + m->conv,
                         theta + m->conv_bias, s.dpost, m->nconv, s.dproj + m->conv_at, m->C,
                         dtheta + m->conv, dtheta + m->conv_bias);
  project_back(m, theta, p, u, s.dproj, du, dtheta, s.dout);
}
