/* src/model/transformer_pass.c: forward and backward pass of the transformer family.
 *
 * Kept for backward: block input x, LN(x), the mixer's output and tape, and the channel mixer's array before
 * its nonlinearity.  r = x + a, LN(r), GELU and dropout masks are made again: elementwise work is cheaper
 * than the memory. */
#include "transformer.h"

#include <math.h>
#include <string.h>

#include "sq/simd.h"

static const double EPS = 1e-5; /* of every LayerNorm */

/* Dropout sites.  The encoder has 0, layer i has 16 (i+1) + k: k = 0..3 belong to the mixer. */
enum { SITE_ENCODER = 0, SITE_MIXED = 4, SITE_HIDDEN = 5, SITE_CHANNEL = 6 };
static int site(int layer, int k)
{
  return 16 * (layer + 1) + k;
}

typedef struct { /* what every function below needs */
  const transformer *m;
  const sq_real *theta;
  sq_real *dtheta; /* NULL: no gradient */
  const sq_batch *shard;
  const sq_pass *p;
  sq_pass last; /* p for the last layer; last.wanted: its rows behind the mixer, NULL: all */
  transformer_work w;
  int R, D;
  int few, n; /* the layer at hand makes last.wanted only behind its mixer; rows there */
} pass;

/* y = a + b */
SQ_CLONES static void add(size_t n, const sq_real *restrict a, const sq_real *restrict b, sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}
SQ_CLONES static void add_to(size_t n, const sq_real *restrict a, sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] += a[i];
}
/* y = c a */
SQ_CLONES static void scale_into(size_t n, sq_real c, const sq_real *restrict a, sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] = c * a[i];
}
/* y = r + c a + (1-c) y */
SQ_CLONES static void blend(size_t n, sq_real c, const sq_real *restrict r, const sq_real *restrict a,
                            sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] = r[i] + c * a[i] + (1 - c) * y[i];
}
/* sum g (a - b) */
static double dot_difference(size_t n, const sq_real *g, const sq_real *a, const sq_real *b)
{
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += (double)g[i] * ((double)a[i] - (double)b[i]);
  return sum;
}

static void enter_layer(pass *s, int i)
{
  s->few = i + 1 == s->m->base.nlayer && s->last.wanted != NULL;
  s->n = s->few ? s->last.wanted->n : s->R;
}

/* The pass behind the mixer of the layer at hand. */
static const sq_pass *behind(const pass *s)
{
  return s->few ? &s->last : s->p;
}

static size_t elements(const pass *s)
{
  return (size_t)s->n * (size_t)s->D;
}

static void linear(const pass *s, const sq_linear_place *l, int rows, const sq_real *x, sq_real *y)
{
  const sq_real *bias = l->bias == SQ_NOWHERE ? NULL : s->theta + l->bias;
  sq_nn_linear(rows, l->in, l->out, x, l->in, s->theta + l->weight, bias, y, l->out);
}

static void linear_back(const pass *s, const sq_linear_place *l, int rows, const sq_real *x,
                        const sq_real *dy, sq_real *dx, int add_dx)
{
  sq_nn_linear_back(rows, l->in, l->out, x, l->in, s->theta + l->weight, dy, l->out, dx, l->in, add_dx,
                    s->dtheta + l->weight, l->bias == SQ_NOWHERE ? NULL : s->dtheta + l->bias);
}

static sq_real *block_out(pass *s, int i)
{
  return i + 1 < s->m->base.nlayer ? s->w.layer[i + 1].x : s->w.last;
}

/* ---- encoder ---------------------------------------------------------------------------------------------
 */
static void encoder_forward(pass *s)
{
  const transformer *m = s->m;
  sq_real *x = s->w.layer[0].x;

  if (m->vocab > 0)
    sq_nn_embed(s->p->rows, s->D, s->shard->token, s->theta + m->word,
                m->position == SQ_NOWHERE ? NULL : s->theta + m->position, x);
  else
    linear(s, &m->input, s->R, s->shard->value, x);
  sq_nn_dropout(s->p, m->dropout, SITE_ENCODER, s->D, x, s->D);
}

static void encoder_backward(pass *s)
{
  const transformer *m = s->m;

  sq_nn_dropout(s->p, m->dropout, SITE_ENCODER, s->D, s->w.g, s->D);
  if (m->vocab > 0)
    sq_nn_embed_back(s->p->rows, s->D, s->shard->token, s->w.g, s->dtheta + m->word,
                     m->position == SQ_NOWHERE ? NULL : s->dtheta + m->position);
  else
    linear_back(s, &m->input, s->R, s->shard->value, s->w.g, NULL, 0);
}

/* ---- channel mixers: y from r and m = LN(r) ---------------------------------------------------------------
 */
static sq_real sigmoid_of(sq_real x)
{
  return (sq_real)(1 / (1 + exp(-(double)x)));
}

static void channel_forward(pass *s, int i, sq_real *y)
{
  const transformer *m = s->m;
  const block_place *b = &m->block[i];
  sq_real *h = s->w.layer[i].h;
  const size_t n = elements(s), nh = (size_t)s->n * (size_t)m->hidden;

  linear(s, &b->encoder, s->n, s->w.m, h);
  if (m->channel == CHANNEL_GLU) {
    sq_nn_glu(s->n, s->D, h, y);
    add_to(n, s->w.r, y);
    return;
  }
  sq_nn_gelu(nh, h, s->w.h1);
  if (m->channel == CHANNEL_MLP) {
    sq_nn_dropout(behind(s), m->dropout, site(i, SITE_HIDDEN), m->hidden, s->w.h1, m->hidden);
    linear(s, &b->decoder, s->n, s->w.h1, y);
    sq_nn_dropout(behind(s), m->dropout, site(i, SITE_CHANNEL), s->D, y, s->D);
    add_to(n, s->w.r, y);
    return;
  }
  linear(s, &b->decoder, s->n, s->w.h1, y);
  sq_nn_glu(s->n, s->D, h, s->w.t);
  blend(n, sigmoid_of(s->theta[b->alpha]), s->w.r, s->w.t, y);
}

/* From g = dL/dy: gradients of the channel mixer, and dL/dm in w.t.  w.m is LN(r); w.m and the hidden scratch
   are free afterwards. */
static void mlp_backward(pass *s, int i)
{
  const transformer *m = s->m;
  const block_place *b = &m->block[i];
  const sq_real *h = s->w.layer[i].h;
  const size_t nh = (size_t)s->n * (size_t)m->hidden;
  const sq_real *dy = s->w.g;

  if (s->p->train && m->dropout > 0) {
    memcpy(s->w.t, s->w.g, elements(s) * sizeof *s->w.t);
    sq_nn_dropout(behind(s), m->dropout, site(i, SITE_CHANNEL), s->D, s->w.t, s->D);
    dy = s->w.t;
  }
  sq_nn_gelu(nh, h, s->w.h1);
  sq_nn_dropout(behind(s), m->dropout, site(i, SITE_HIDDEN), m->hidden, s->w.h1, m->hidden);
  linear_back(s, &b->decoder, s->n, s->w.h1, dy, s->w.h2, 0);
  sq_nn_dropout(behind(s), m->dropout, site(i, SITE_HIDDEN), m->hidden, s->w.h2, m->hidden);
  sq_nn_gelu_back(nh, h, s->w.h2, s->w.h2);
  linear_back(s, &b->encoder, s->n, s->w.m, s->w.h2, s->w.t, 0);
}

static void hybrid_backward(pass *s, int i)
{
  const transformer *m = s->m;
  const block_place *b = &m->block[i];
  const sq_real *h = s->w.layer[i].h;
  const size_t n = elements(s), nh = (size_t)s->n * (size_t)m->hidden;
  const sq_real a = sigmoid_of(s->theta[b->alpha]);
  sq_real *gated = s->w.t, *plain = s->w.dhybrid;

  sq_nn_gelu(nh, h, s->w.h1);
  sq_nn_glu(s->n, s->D, h, gated);
  linear(s, &b->decoder, s->n, s->w.h1, plain);
  s->dtheta[b->alpha] += (sq_real)((double)a * (1 - (double)a) * dot_difference(n, s->w.g, gated, plain));
  scale_into(n, 1 - a, s->w.g, s->w.t);
  linear_back(s, &b->decoder, s->n, s->w.h1, s->w.t, s->w.h2, 0);
  sq_nn_gelu_back(nh, h, s->w.h2, s->w.h2);
  scale_into(n, a, s->w.g, s->w.t);
  sq_nn_glu_back(s->n, s->D, h, s->w.t, s->w.h1);
  add_to(nh, s->w.h1, s->w.h2);
  linear_back(s, &b->encoder, s->n, s->w.m, s->w.h2, s->w.t, 0);
}

static void channel_backward(pass *s, int i)
{
  switch (s->m->channel) {
  case CHANNEL_MLP: mlp_backward(s, i); break;
  case CHANNEL_HYBRID: hybrid_backward(s, i); break;
  case CHANNEL_GLU:
    sq_nn_glu_back(s->n, s->D, s->w.layer[i].h, s->w.g, s->w.h2);
    linear_back(s, &s->m->block[i].encoder, s->n, s->w.m, s->w.h2, s->w.t, 0);
    break;
  case CHANNEL_NONE: break;
  }
}

/* ---- blocks ----------------------------------------------------------------------------------------------
 */
static void block_norm(const pass *s, int i, int rows, const sq_real *x, sq_real *y, sq_real *mean,
                       sq_real *rstd)
{
  const block_place *b = &s->m->block[i];
  sq_nn_layernorm(rows, s->D, x, s->theta + b->norm_weight, s->theta + b->norm_bias, EPS, y, mean, rstd);
}

static void block_norm_back(const pass *s, int i, int rows, const sq_real *x, const sq_real *mean,
                            const sq_real *rstd, const sq_real *dy, sq_real *dx, int add_dx)
{
  const block_place *b = &s->m->block[i];
  sq_nn_layernorm_back(rows, s->D, x, s->theta + b->norm_weight, mean, rstd, dy, dx, add_dx,
                       s->dtheta + b->norm_weight, s->dtheta + b->norm_bias);
}

/* The block's input at the rows behind its mixer. */
static const sq_real *input_behind(const pass *s, int i)
{
  return s->few ? s->w.xw : s->w.layer[i].x;
}

static void block_forward(pass *s, int i)
{
  const transformer *m = s->m;
  const layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  sq_real *out = block_out(s, i), *y = m->gated ? l->y0 : out;

  enter_layer(s, i);
  if (s->few) sq_nn_gather_rows(s->D, s->n, s->last.wanted->row, l->x, s->w.xw);
  if (m->gated) linear(s, &m->block[i].gate, s->n, input_behind(s, i), l->z);
  block_norm(s, i, s->R, l->x, l->u, l->mean, l->rstd);
  sq_labelled_mix(mixer, s->theta, behind(s), l->u, l->a, l->tape, s->w.last, s->w.scratch);
  sq_nn_dropout(behind(s), m->dropout, site(i, SITE_MIXED), s->D, l->a, s->D);
  add(elements(s), input_behind(s, i), l->a, s->w.r);
  if (m->channel == CHANNEL_NONE) {
    block_norm(s, i, s->n, s->w.r, y, s->w.mean, s->w.rstd);
  } else {
    block_norm(s, i, s->n, s->w.r, s->w.m, s->w.mean, s->w.rstd);
    channel_forward(s, i, y);
  }
  if (m->gated) {
    memcpy(out, y, elements(s) * sizeof *out);
    sq_nn_silu_mul(elements(s), l->z, out);
  }
}

static void swap_gradients(transformer_work *w)
{
  sq_real *swap = w->g;
  w->g = w->t;
  w->t = swap;
}

/* w.g: dL/d(block output) on entry, dL/d(block input) on exit; on entry of the rows behind the mixer. */
static void block_backward(pass *s, int i)
{
  const transformer *m = s->m;
  const layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  transformer_work *w = &s->w;
  const sq_real *da;

  enter_layer(s, i);
  if (m->gated) sq_nn_silu_mul_back(elements(s), l->y0, l->z, w->g, w->g, w->dz);
  add(elements(s), input_behind(s, i), l->a, w->r);
  block_norm(s, i, s->n, w->r, w->m, w->mean, w->rstd);
  if (m->channel == CHANNEL_NONE) {
    block_norm_back(s, i, s->n, w->r, w->mean, w->rstd, w->g, w->t, 0);
    swap_gradients(w);
  } else {
    channel_backward(s, i);
    block_norm_back(s, i, s->n, w->r, w->mean, w->rstd, w->t, w->g, 1);
  }
  sq_pass_progress(s->p, -1);
  da = w->g;
  if (s->p->train && m->dropout > 0) {
    memcpy(w->t, w->g, elements(s) * sizeof *w->t);
    sq_nn_dropout(behind(s), m->dropout, site(i, SITE_MIXED), s->D, w->t, s->D);
    da = w->t;
  }
  sq_labelled_mix_back(mixer, s->theta, behind(s), l->u, l->tape, da, w->m, s->dtheta, w->last, w->scratch);
  sq_pass_progress(s->p, -1);
  if (s->few) {
    if (m->gated) linear_back(s, &m->block[i].gate, s->n, w->xw, w->dz, w->g, 1);
    block_norm_back(s, i, s->R, l->x, l->mean, l->rstd, w->m, w->t, 0);
    sq_nn_add_rows(s->D, s->n, s->last.wanted->row, w->g, w->t);
    swap_gradients(w);
    return;
  }
  block_norm_back(s, i, s->R, l->x, l->mean, l->rstd, w->m, w->g, 1);
  if (m->gated) linear_back(s, &m->block[i].gate, s->n, l->x, w->dz, w->g, 1);
}

/* ---- head ------------------------------------------------------------------------------------------------
 */
/* The labelled rows of the last block's output. */
static const sq_real *head_rows(pass *s)
{
  const sq_wanted *l = s->w.labelled.list;

  if (s->last.wanted != NULL) return s->w.last;
  sq_nn_gather_rows(s->D, l->n, l->row, s->w.last, s->w.hx);
  return s->w.hx;
}

static void final_norm(pass *s, int n, const sq_real *x, sq_real *y)
{
  sq_nn_layernorm(n, s->D, x, s->theta + s->m->norm_weight, s->theta + s->m->norm_bias, EPS, y, s->w.mean,
                  s->w.rstd);
}

static void head_hidden(pass *s, int n)
{
  if (s->m->head != HEAD_MLP) return;
  linear(s, &s->m->head1, n, s->w.hn, s->w.e);
  sq_nn_relu((size_t)n * (size_t)s->m->head_dim, s->w.e, s->w.re);
}

/* Loss of n outputs; with a gradient also dL/d(hn) in dhx. */
static void head_loss(pass *s, int n, const int32_t *label, double scale, sq_tally *tally)
{
  const transformer *m = s->m;
  transformer_work *w = &s->w;
  const int grad = s->dtheta != NULL;

  if (m->head == HEAD_IDENTITY) {
    memcpy(w->dhx, w->hn, (size_t)n * (size_t)s->D * sizeof *w->dhx);
    sq_nn_xent(n, s->D, w->dhx, label, scale, grad, tally);
    return;
  }
  const int mlp = m->head == HEAD_MLP, bias = m->head2.bias != SQ_NOWHERE;
  sq_real *dx = mlp ? w->de : w->dhx;
  sq_nn_xent_head(n, m->head2.in, m->head2.out, mlp ? w->re : w->hn, s->theta + m->head2.weight,
                  bias ? s->theta + m->head2.bias : NULL, label, scale, grad ? dx : NULL,
                  grad ? s->dtheta + m->head2.weight : NULL, grad && bias ? s->dtheta + m->head2.bias : NULL,
                  w->xent, tally);
  if (!grad || !mlp) return;
  sq_nn_relu_back((size_t)n * (size_t)m->head_dim, w->e, w->de, w->de);
  linear_back(s, &m->head1, n, w->hn, w->de, w->dhx, 0);
}

static void final_norm_back(pass *s, int n, const sq_real *x, const sq_real *dy, sq_real *dx)
{
  const transformer *m = s->m;
  sq_nn_layernorm_back(n, s->D, x, s->theta + m->norm_weight, s->w.mean, s->w.rstd, dy, dx, 0,
                       s->dtheta + m->norm_weight, s->dtheta + m->norm_bias);
}

/* Final norm, head and loss; with a gradient also dL/d(last) in w.g.  hx is the rows that the head works on before
   the final norm, hn after it (pooled: only hn). */
static void head_run(pass *s, double scale, sq_tally *tally)
{
  const transformer *m = s->m;
  transformer_work *w = &s->w;

  if (m->pooling != SQ_POOL_NONE) {
    final_norm(s, s->R, w->last, w->r);
    sq_nn_pool(m->pooling, s->p->rows, s->D, w->r, w->hn, w->argmax);
    if (m->head == HEAD_MATCH) {
      sq_match_loss(&m->match, s->theta, s->dtheta, s->p->rows->nseq / 2, w->hn, s->shard->label, scale,
                    &w->match, w->dhx, tally);
    } else {
      head_hidden(s, s->p->rows->nseq);
      head_loss(s, s->p->rows->nseq, s->shard->label, scale, tally);
    }
    if (s->dtheta == NULL) return;
    sq_nn_pool_back(m->pooling, s->p->rows, s->D, w->dhx, w->argmax, w->m);
    final_norm_back(s, s->R, w->last, w->m, w->g);
    return;
  }
  const int n = w->labelled.list->n;
  const sq_real *x = head_rows(s);
  final_norm(s, n, x, w->hn);
  head_hidden(s, n);
  head_loss(s, n, w->labelled.label, scale, tally);
  if (s->dtheta == NULL) return;
  final_norm_back(s, n, x, w->dhx, s->last.wanted != NULL ? w->g : w->hn);
  if (s->last.wanted == NULL) sq_nn_scatter_rows(s->R, s->D, n, w->labelled.row, w->hn, w->g);
}

/* ---- entry points ----------------------------------------------------------------------------------------
 */
/* Encoder and blocks.  loss: only the rows that it looks at have to be made. */
static pass begin(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  void *work, int loss, sq_real *dtheta)
{
  pass s = {.m = (const transformer *)(const void *)model,
            .theta = theta,
            .dtheta = dtheta,
            .shard = shard,
            .p = p,
            .last = *p};
  sq_arena a = {.base = work, .cap = model->work_bytes};

  SQ_ASSERT(s.m->vocab > 0 ? shard->token != NULL
                           : shard->value != NULL && shard->input_dim == s.m->input_dim);
  s.R = shard->rows.nrow;
  s.D = model->width;
  sq_transformer_take(s.m, &a, &s.w);
  if (loss && s.m->pooling == SQ_POOL_NONE) {
    sq_labelled_list(shard, &s.w.labelled);
    s.last = sq_labelled_pass(&s.w.labelled, p);
  }
  encoder_forward(&s);
  for (int i = 0; i < model->nlayer; ++i) block_forward(&s, i);
  return s;
}

void sq_transformer_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                        double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally)
{
  (void)k; /* one segment: sequences do not see each other */
  (void)sum;
  pass s = begin(model, theta, shard, p, work, 1, dtheta);

  head_run(&s, scale, tally);
  if (dtheta == NULL) return;
  sq_pass_progress(p, model->nlayer);
  for (int i = model->nlayer - 1; i >= 0; --i) {
    block_backward(&s, i);
    sq_pass_progress(p, i);
  }
  encoder_backward(&s);
}

void sq_transformer_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard,
                           const sq_pass *p, void *work, sq_real *logits)
{
  pass s = begin(model, theta, shard, p, work, 0, NULL);
  const transformer *m = s.m;
  int n = s.R;

  if (m->pooling != SQ_POOL_NONE) {
    n = shard->rows.nseq;
    final_norm(&s, s.R, s.w.last, s.w.r);
    sq_nn_pool(m->pooling, p->rows, s.D, s.w.r, s.w.hn, s.w.argmax);
  } else {
    final_norm(&s, n, s.w.last, s.w.hn);
  }
  if (m->head == HEAD_MATCH) {
    sq_match_logits(&m->match, theta, n / 2, s.w.hn, &s.w.match, logits);
    return;
  }
  head_hidden(&s, n);
  if (m->head == HEAD_IDENTITY)
    memcpy(logits, s.w.hn, (size_t)n * (size_t)s.D * sizeof *logits);
  else
    linear(&s, &m->head2, n, m->head == HEAD_MLP ? s.w.re : s.w.hn, logits);
}
