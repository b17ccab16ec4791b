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
  sq_pass last; /* p for the last layer; last.wanted: its rows behind the mixer, NULL: all */
  mamba_work w;
  int R, D;
  int few, n; /* the layer at hand makes last.wanted only behind its mixer; rows there */
} pass;

SQ_CLONES static void add_to(size_t n, const sq_real *restrict a, sq_real *restrict y)
{
  for (size_t i = 0; i < n; ++i) y[i] += a[i];
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
  sq_nn_dropout(behind(s), s->m->dropout, site(layer, k), s->D, x, s->D);
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

static void block_norm(const pass *s, int i, int rows, const sq_real *x, sq_real *y)
{
  const mamba_block *b = &s->m->block[i];
  const mamba_layer_work *l = &s->w.layer[i];
  sq_nn_layernorm(rows, s->D, x, s->theta + b->norm_weight, s->theta + b->norm_bias, EPS, y, l->mean,
                  l->rstd);
}

static void block_norm_back(const pass *s, int i, int rows, const sq_real *x, const sq_real *dy, sq_real *dx,
                            int add_dx)
{
  const mamba_block *b = &s->m->block[i];
  const mamba_layer_work *l = &s->w.layer[i];
  sq_nn_layernorm_back(rows, s->D, x, s->theta + b->norm_weight, l->mean, l->rstd, dy, dx, add_dx,
                       s->dtheta + b->norm_weight, s->dtheta + b->norm_bias);
}

/* The block's input at the rows behind its mixer. */
static const sq_real *input_behind(const pass *s, int i)
{
  return s->few ? s->w.xw : s->w.layer[i].x;
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
    sq_nn_glu(s->n, s->D, l->a, y);
    dropout(s, i, SITE_GLU, y);
  } else {
    activate(s, i, y);
  }
  add_to(elements(s), input_behind(s, i), y);
}

static void block_forward(pass *s, int i)
{
  const mamba *m = s->m;
  const mamba_layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  sq_real *out = block_out(s, i);

  enter_layer(s, i);
  if (s->few) sq_nn_gather_rows(s->D, s->n, s->last.wanted->row, l->x, s->w.xw);
  if (m->prenorm) block_norm(s, i, s->R, l->x, l->u);
  sq_labelled_mix(mixer, s->theta, behind(s), l->u, l->s, l->tape, s->w.last, s->w.scratch);
  if (m->glu) {
    activate(s, i, s->w.r);
    linear(s, &m->block[i].glu, s->n, s->w.r, l->a);
  }
  add_branch(s, i, m->prenorm ? out : s->w.r);
  if (!m->prenorm) block_norm(s, i, s->n, s->w.r, out);
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
    sq_nn_glu_back(s->n, s->D, l->a, w->t, w->da);
    activate(s, i, w->r);
    linear_back(s, &m->block[i].glu, s->n, w->r, w->da, w->t);
  }
  dropout(s, i, SITE_GELU, w->t);
  sq_nn_gelu_back(elements(s), l->s, w->t, w->t);
}

static void swap_gradients(mamba_work *w)
{
  sq_real *swap = w->g;
  w->g = w->t;
  w->t = swap;
}

/* w.g: dL/d(block output) on entry, dL/d(block input) on exit; on entry of the rows behind the mixer. */
static void block_backward(pass *s, int i)
{
  const mamba *m = s->m;
  const mamba_layer_work *l = &s->w.layer[i];
  const sq_mixer *mixer = m->base.mixer[i];
  mamba_work *w = &s->w;

  enter_layer(s, i);
  if (!m->prenorm) {
    add_branch(s, i, w->r);
    block_norm_back(s, i, s->n, w->r, w->g, w->t, 0);
    swap_gradients(w);
  }
  branch_backward(s, i);
  sq_pass_progress(s->p, -1);
  sq_labelled_mix_back(mixer, s->theta, behind(s), l->u, l->tape, w->t, w->r, s->dtheta, w->last, w->scratch);
  sq_pass_progress(s->p, -1);
  if (s->few) {
    if (m->prenorm)
      block_norm_back(s, i, s->R, l->x, w->r, w->t, 0);
    else
      memcpy(w->t, w->r, (size_t)s->R * (size_t)s->D * sizeof *w->t);
    sq_nn_add_rows(s->D, s->n, s->last.wanted->row, w->g, w->t);
    swap_gradients(w);
  } else if (m->prenorm) {
    block_norm_back(s, i, s->R, l->x, w->r, w->g, 1);
  } else {
    add_to(elements(s), w->r, w->g);
  }
}

/* ---- head -------------------------------------------------------------------------------------------- */

/* The labelled rows of the last block's output. */
static const sq_real *head_rows(pass *s)
{
  const sq_wanted *l = s->w.labelled.list;

  if (s->last.wanted != NULL) return s->w.last;
  sq_nn_gather_rows(s->D, l->n, l->row, s->w.last, s->w.hx);
  return s->w.hx;
}

/* Loss of the outputs of n rows x; with a gradient also dL/dx. */
static void head_loss(pass *s, int n, const sq_real *x, const int32_t *label, double scale, sq_real *dx,
                      sq_tally *tally)
{
  const sq_linear_place *l = &s->m->decoder;
  const int grad = s->dtheta != NULL;

  sq_nn_xent_head(n, l->in, l->out, x, s->theta + l->weight, s->theta + l->bias, label, scale,
                  grad ? dx : NULL, grad ? s->dtheta + l->weight : NULL, grad ? s->dtheta + l->bias : NULL,
                  s->w.xent, tally);
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
      head_loss(s, s->p->rows->nseq, w->hx, s->shard->label, scale, w->dhx, tally);
    if (s->dtheta != NULL) sq_nn_pool_back(m->pooling, s->p->rows, s->D, w->dhx, w->argmax, w->g);
    return;
  }
  const int n = w->labelled.list->n, few = s->last.wanted != NULL;
  head_loss(s, n, head_rows(s), w->labelled.label, scale, few ? w->g : w->dhx, tally);
  if (s->dtheta != NULL && !few) sq_nn_scatter_rows(s->R, s->D, n, w->labelled.row, w->dhx, w->g);
}

/* ---- entry points ------------------------------------------------------------------------------------ */

/* Encoder and blocks.  loss: only the rows that it looks at have to be made. */
static pass begin(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  void *work, int loss, sq_real *dtheta)
{
  pass s = {.m = (const mamba *)(const void *)model,
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
  sq_mamba_take(s.m, &a, &s.w);
  if (loss && s.m->pooling == SQ_POOL_NONE) {
    sq_labelled_list(shard, &s.w.labelled);
    s.last = sq_labelled_pass(&s.w.labelled, p);
  }
  encoder_forward(&s);
  for (int i = 0; i < model->nlayer; ++i) block_forward(&s, i);
  return s;
}

void sq_mamba_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
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

void sq_mamba_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     void *work, sq_real *logits)
{
  pass s = begin(model, theta, shard, p, work, 0, NULL);
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
