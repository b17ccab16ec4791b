/* src/model/mamba_pass.c: forward and backward pass of the Mamba-2 family.
 *
 * Kept for backward: block input x, the mixer's input, output and tape, and the array before the gate.  GELU,
 * the gated product, sums with x and dropout masks are made again: elementwise work is cheaper than the memory. */
#include "mamba.h"

#include <string.h>

#include "sq/simd.h"

static const double EPS = 1e-5; /* of every LayerNorm */

/* Dropout sites.  Layer i has 16 (i+1) + k: k = 0..3 belong to the mixer. */
enum { SITE_GELU = 4, SITE_GLU = 5 };
static int site(int layer, int k)
{
  return 16 * (layer + 1) + k;
}

typedef struct { /* what every function below needs */
  const mamba *m;
  const sq_real *theta;
  sq_real *dtheta; /* NULL: no gradient */
  const sq_batch *shard;
  const sq_pass *p;
  mamba_work w;
  int R, D;
} pass;

SQ_CLONES static void add_to(size_t n, const sq_real *restrict a, sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] += a[i];
}

static size_t elements(const pass *s)
{
  return (size_t)s->R * (size_t)s->D;
}

static void linear(const pass *s, const sq_linear_place *l, int rows, const sq_real *x, sq_real *y)
{
  sq_nn_linear(rows, l->in, l->out, x, l->in, s->theta + l->weight, s->theta + l->bias, y, l->out);
}

static void linear_back(const pass *s, const sq_linear_place *l, int rows, const sq_real *x,
                        const sq_real *dy, sq_real *dx)
{
  sq_nn_linear_back(rows, l->in, l->out, x, l->in, s->theta + l->weight, dy, l->out, dx, l->in, 0,
                    s->dtheta + l->weight, s->dtheta + l->bias);
}

static sq_real *block_out(pass *s, int i)
{
  return i + 1 < s->m->base.nlayer ? s->w.layer[i + 1].x : s->w.last;
}

static void dropout(const pass *s, int layer, int k, sq_real *x)
{
  sq_nn_dropout(s->p, s->m->dropout, site(layer, k), s->D, x, s->D);
}

/* ---- encoder ----------------------------------------------------------------------------------------- */

static void encoder_forward(pass *s)
{
  const mamba *m = s->m;
  sq_real *x = s->w.layer[0].x;

  if (m->vocab > 0)
    sq_nn_embed(s->p->rows, s->D, s->shard->token, s->theta + m->word, NULL, x);
  else
    linear(s, &m->input, s->R, s->shard->value, x);
}

static void encoder_backward(pass *s)
{
  const mamba *m = s->m;

  if (m->vocab > 0)
    sq_nn_embed_back(s->p->rows, s->D, s->shard->token, s->w.g, s->dtheta + m->word, NULL);
  else
    linear_back(s, &m->input, s->R, s->shard->value, s->w.g, NULL);
}

/* ---- blocks ------------------------------------------------------------------------------------------ */

static void block_norm(const pass *s, int i, const sq_real *x, sq_real *y)
{
  const mamba_block *b = &s->m->block[i];
  const mamba_layer_work *l = &s->w.layer[i];
  sq_nn_layernorm(s->R, s->D, x, s->theta + b->norm_weight, s->theta + b->norm_bias, EPS, y, l->mean,
                  l->rstd);
}

static void block_norm_back(const pass *s, int i, const sq_real *x, const sq_real *dy, sq_real *dx,
                            int add_dx)
{
  const mamba_block *b = &s->m->block[i];
  const mamba_layer_work *l = &s->w.layer[i];
  sq_nn_layernorm_back(s->R, s->D, x, s->theta + b->norm_weight, l->mean, l->rstd, dy, dx, add_dx,
                       s->dtheta + b->norm_weight, s->dtheta + b->norm_bias);
}

/* e = GELU of the mixer's output, after dropout */
static void activate(const pass *s, int i, sq_real *e)
{
  sq_nn_gelu(elements(s), s->w.layer[i].s, e);
  dropout(s, i, SITE_GELU, e);
}

/* y = the block's sum: x and what the branch adds to it (a has been made) */
static void add_branch(const pass *s, int i, sq_real *y)
{
  const mamba_layer_work *l = &s->w.layer[i];

  if (s->m->glu) {
    sq_nn_glu(s->R, s->D, l->a, y);
    dropout(s, i, SITE_GLU, y);
  } else {
    activate(s, i, y);
  }
  add_to(elements(s), l->x, y);
}

static void block_forward(pass *s, int i)
{
  const mamba *m = s->m;
  const mamba_layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  sq_real *out = block_out(s, i);

  if (m->prenorm) block_norm(s, i, l->x, l->u);
  sq_mixer_get(mixer)->forward(mixer, s->theta, s->p, l->u, l->s, l->tape, s->w.scratch);
  if (m->glu) {
    activate(s, i, s->w.r);
    linear(s, &m->block[i].glu, s->R, s->w.r, l->a);
  }
  add_branch(s, i, m->prenorm ? out : s->w.r);
  if (!m->prenorm) block_norm(s, i, s->w.r, out);
}

/* From w.g = dL/d(sum): dL/d(mixer's output) in w.t, and the gradient of the gate.  w.r is used. */
static void branch_backward(pass *s, int i)
{
  const mamba *m = s->m;
  const mamba_layer_work *l = &s->w.layer[i];
  mamba_work *w = &s->w;

  memcpy(w->t, w->g, elements(s) * sizeof *w->t);
  if (m->glu) {
    dropout(s, i, SITE_GLU, w->t);
    sq_nn_glu_back(s->R, s->D, l->a, w->t, w->da);
    activate(s, i, w->r);
    linear_back(s, &m->block[i].glu, s->R, w->r, w->da, w->t);
  }
  dropout(s, i, SITE_GELU, w->t);
  sq_nn_gelu_back(elements(s), l->s, w->t, w->t);
}

/* w.g: dL/d(block output) on entry, dL/d(block input) on exit. */
static void block_backward(pass *s, int i)
{
  const mamba *m = s->m;
  const mamba_layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  mamba_work *w = &s->w;

  if (!m->prenorm) {
    add_branch(s, i, w->r);
    block_norm_back(s, i, w->r, w->g, w->t, 0);
    sq_real *swap = w->g;
    w->g = w->t;
    w->t = swap;
  }
  branch_backward(s, i);
  sq_mixer_get(mixer)->backward(mixer, s->theta, s->p, l->u, l->tape, w->t, w->r, s->dtheta, w->scratch);
  if (m->prenorm)
    block_norm_back(s, i, l->x, w->r, w->g, 1);
  else
    add_to(elements(s), w->r, w->g);
}

/* ---- head -------------------------------------------------------------------------------------------- */

/* The labelled rows, in hx. */
static int head_gather(pass *s)
{
  return sq_nn_gather_labelled(s->R, s->D, s->w.last, s->shard->label, s->m->max_head_rows, s->w.hx, s->w.row,
                               s->w.label);
}

/* Loss of n outputs; with a gradient also dL/d(hx) in dhx. */
static void head_loss(pass *s, int n, const int32_t *label, double scale, sq_tally *tally)
{
  const sq_linear_place *l = &s->m->decoder;
  const int grad = s->dtheta != NULL;

  sq_nn_xent_head(n, l->in, l->out, s->w.hx, s->theta + l->weight, s->theta + l->bias, label, scale,
                  grad ? s->w.dhx : NULL, grad ? s->dtheta + l->weight : NULL,
                  grad ? s->dtheta + l->bias : NULL, s->w.xent, tally);
}

/* Head and loss; with a gradient also dL/d(last) in w.g. */
static void head_run(pass *s, double scale, sq_tally *tally)
{
  const mamba *m = s->m;
  mamba_work *w = &s->w;

  if (m->pooling != SQ_POOL_NONE) {
    sq_nn_pool(m->pooling, s->p->rows, s->D, w->last, w->hx, w->argmax);
    if (m->base.dims.dual)
      sq_match_loss(&m->match, s->theta, s->dtheta, s->p->rows->nseq / 2, w->hx, s->shard->label, scale,
                    &w->match, w->dhx, tally);
    else
      head_loss(s, s->p->rows->nseq, s->shard->label, scale, tally);
    if (s->dtheta != NULL) sq_nn_pool_back(m->pooling, s->p->rows, s->D, w->dhx, w->argmax, w->g);
    return;
  }
  const int n = head_gather(s);
  head_loss(s, n, w->label, scale, tally);
  if (s->dtheta == NULL) return;
  sq_nn_scatter_rows(s->R, s->D, n, w->row, w->dhx, w->g);
}

/* ---- entry points ------------------------------------------------------------------------------------ */

static pass begin(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  void *work, sq_real *dtheta)
{
  pass s = {
      .m = (const mamba *)(const void *)model, .theta = theta, .dtheta = dtheta, .shard = shard, .p = p};
  sq_arena a = {.base = work, .cap = model->work_bytes};

  SQ_ASSERT(s.m->vocab > 0 ? shard->token != NULL
                           : shard->value != NULL && shard->input_dim == s.m->input_dim);
  s.R = shard->rows.nrow;
  s.D = model->width;
  sq_mamba_take(s.m, &a, &s.w);
  encoder_forward(&s);
  for (int i = 0; i < model->nlayer; ++i) block_forward(&s, i);
  return s;
}

void sq_mamba_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally)
{
  (void)k; /* one segment: sequences do not see each other */
  (void)sum;
  pass s = begin(model, theta, shard, p, work, dtheta);

  head_run(&s, scale, tally);
  if (dtheta == NULL) return;
  for (int i = model->nlayer - 1; i >= 0; --i) block_backward(&s, i);
  encoder_backward(&s);
}

void sq_mamba_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     void *work, sq_real *logits)
{
  pass s = begin(model, theta, shard, p, work, NULL);
  const mamba *m = s.m;

  if (m->pooling == SQ_POOL_NONE) {
    linear(&s, &m->decoder, s.R, s.w.last, logits);
    return;
  }
  sq_nn_pool(m->pooling, p->rows, s.D, s.w.last, s.w.hx, s.w.argmax);
  if (model->dims.dual) {
    sq_match_logits(&m->match, theta, shard->rows.nseq / 2, s.w.hx, &s.w.match, logits);
    return;
  }
  linear(&s, &m->decoder, shard->rows.nseq, s.w.hx, logits);
}
