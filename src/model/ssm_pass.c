/* src/model/ssm_pass.c: forward and backward pass of the state-space backbone, whole or in segments. */
#include "ssm.h"

#include <string.h>

#include "sq/simd.h"

/* flax's defaults. */
static const double LAYER_EPS = 1e-6, BATCH_EPS = 1e-5;

/* Dropout sites of layer i are 16 (i+1) + k: k = 0..3 belong to the mixer. */
enum { SITE_GELU = 4, SITE_GATE = 5 };
static int site(int layer, int k)
{
  return 16 * (layer + 1) + k;
}

typedef struct { /* what every function below needs */
  const ssm *m;
  const sq_real *theta;
  sq_real *dtheta; /* NULL: no gradient */
  const sq_batch *shard;
  const sq_pass *p;
  sq_pass last; /* p for the last layer; last.wanted: its rows behind the mixer, NULL: all */
  ssm_work w;
  int R, D;
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

/* Layer i makes only some rows behind its mixer: last.wanted. */
static int few(const pass *s, int i)
{
  return i + 1 == s->m->base.nlayer && s->last.wanted != NULL;
}

/* Rows behind the mixer of layer i. */
static int rows_behind(const pass *s, int i)
{
  return few(s, i) ? s->last.wanted->n : s->R;
}

static size_t elements(const pass *s, int rows)
{
  return (size_t)rows * (size_t)s->D;
}

static void copy(const pass *s, int rows, const sq_real *from, sq_real *to)
{
  memcpy(to, from, elements(s, rows) * sizeof *to);
}

static void dense(const pass *s, const dense_place *l, int rows, const sq_real *x, sq_real *y, int ldy)
{
  sq_nn_dense(rows, l->in, l->out, x, l->in, s->theta + l->kernel, s->theta + l->bias, y, ldy);
}

static void dense_back(const pass *s, const dense_place *l, int rows, const sq_real *x, const sq_real *dy,
                       int ldy, sq_real *dx, int add_dx)
{
  sq_nn_dense_back(rows, l->in, l->out, x, l->in, s->theta + l->kernel, dy, ldy, dx, l->in, add_dx,
                   s->dtheta + l->kernel, s->dtheta + l->bias);
}

static void drop(const pass *s, int i, int where, sq_real *x)
{
  sq_nn_dropout_columns(few(s, i) ? &s->last : s->p, s->m->dropout, site(i, where), s->D, x, s->D);
}

/* ---- encoder ---------------------------------------------------------------------------------------------
 */
static void encoder_forward(pass *s)
{
  const dense_place *l = &s->m->encoder;
  sq_real *x = s->w.layer[0].x;

  if (s->shard->token != NULL)
    sq_nn_onehot_dense(s->R, l->in, l->out, s->shard->token, s->theta + l->kernel, s->theta + l->bias, x);
  else
    dense(s, l, s->R, s->shard->value, x, s->D);
}

static void encoder_backward(pass *s)
{
  const dense_place *l = &s->m->encoder;

  if (s->shard->token != NULL)
    sq_nn_onehot_dense_back(s->R, l->in, l->out, s->shard->token, s->w.g, s->dtheta + l->kernel,
                            s->dtheta + l->bias);
  else
    dense_back(s, l, s->R, s->shard->value, s->w.g, s->D, NULL, 0);
}

/* ---- a layer without its norm: u and x to r --------------------------------------------------------------
 */
static sq_real *layer_out(pass *s, int i)
{
  return i + 1 < s->m->base.nlayer ? s->w.layer[i + 1].x : s->w.last;
}

/* g = drop(gelu(s)) */
static void gelu_of(const pass *s, int i, sq_real *g)
{
  sq_nn_gelu_tanh(elements(s, rows_behind(s, i)), s->w.layer[i].s, g);
  drop(s, i, SITE_GELU, g);
}

static void body_forward(pass *s, int i, sq_real *r)
{
  const ssm *m = s->m;
  const ssm_layer *l = &s->w.layer[i];
  const int rows = rows_behind(s, i);
  const size_t n = elements(s, rows);
  sq_real *g = s->w.e, *y = s->w.t;

  sq_labelled_mix(m->base.mixer[i], s->theta, few(s, i) ? &s->last : s->p, l->u, l->s, l->tape, s->w.last,
                  s->w.scratch);
  gelu_of(s, i, g);
  switch (m->gate) {
  case GATE_FULL:
    dense(s, &m->layer[i].out1, rows, g, l->h, 2 * s->D);
    dense(s, &m->layer[i].out2, rows, g, l->h + s->D, 2 * s->D);
    sq_nn_glu(rows, s->D, l->h, y);
    break;
  case GATE_HALF1:
  case GATE_HALF2:
    dense(s, &m->layer[i].out2, rows, g, l->h, s->D);
    sq_nn_gate(n, m->gate == GATE_HALF1 ? g : l->s, l->h, y);
    break;
  case GATE_NONE: y = g; break;
  }
  if (m->gate != GATE_NONE) drop(s, i, SITE_GATE, y);
  if (few(s, i)) sq_nn_gather_rows(s->D, rows, s->last.wanted->row, l->x, s->w.xw);
  add(n, few(s, i) ? s->w.xw : l->x, y, r);
}

/* From dy in w.t: dL/ds in w.t. */
static void gate_backward(pass *s, int i)
{
  const ssm *m = s->m;
  const ssm_layer *l = &s->w.layer[i];
  const ssm_place *b = &m->layer[i];
  ssm_work *w = &s->w;
  const int rows = rows_behind(s, i);
  const size_t n = elements(s, rows);

  if (m->gate == GATE_NONE) {
    drop(s, i, SITE_GELU, w->t);
    sq_nn_gelu_tanh_back(n, l->s, w->t, w->t);
    return;
  }
  drop(s, i, SITE_GATE, w->t);
  gelu_of(s, i, w->e);
  switch (m->gate) {
  case GATE_FULL:
    sq_nn_glu_back(rows, s->D, l->h, w->t, w->dh);
    dense_back(s, &b->out1, rows, w->e, w->dh, 2 * s->D, w->d, 0);
    dense_back(s, &b->out2, rows, w->e, w->dh + s->D, 2 * s->D, w->d, 1);
    break;
  case GATE_HALF1:
    sq_nn_gate_back(n, w->e, l->h, w->t, w->d, w->dh);
    dense_back(s, &b->out2, rows, w->e, w->dh, s->D, w->d, 1);
    break;
  default:
    sq_nn_gate_back(n, l->s, l->h, w->t, w->t, w->dh);
    dense_back(s, &b->out2, rows, w->e, w->dh, s->D, w->d, 0);
    break;
  }
  drop(s, i, SITE_GELU, w->d);
  sq_nn_gelu_tanh_back(n, l->s, w->d, w->d);
  if (m->gate == GATE_HALF2)
    add_to(n, w->d, w->t);
  else
    copy(s, rows, w->d, w->t);
}

/* From dL/dr in w.g (of the rows behind the mixer): what goes through the mixer, dL/du, in w.d; w.g stays. */
static void body_backward(pass *s, int i)
{
  const ssm_layer *l = &s->w.layer[i];

  copy(s, rows_behind(s, i), s->w.g, s->w.t);
  gate_backward(s, i);
  sq_pass_progress(s->p, -1);
  sq_labelled_mix_back(s->m->base.mixer[i], s->theta, few(s, i) ? &s->last : s->p, l->u, l->tape, s->w.t,
                       s->w.d, s->dtheta, s->w.last, s->w.scratch);
  sq_pass_progress(s->p, -1);
}

/* ---- norms -----------------------------------------------------------------------------------------------
 */
/* Rows that the norm of layer i normalises. */
static int norm_rows(const pass *s, int i)
{
  return s->m->prenorm ? s->R : rows_behind(s, i);
}

static void norm_forward(pass *s, int i)
{
  const ssm *m = s->m;
  const ssm_layer *l = &s->w.layer[i];
  const sq_real *scale = s->theta + m->layer[i].scale, *bias = s->theta + m->layer[i].bias;
  sq_real *y = m->prenorm ? l->u : layer_out(s, i);

  if (m->batch_norm)
    sq_nn_batchnorm(s->R, s->D, l->r, l->mean, l->rstd, scale, bias, y);
  else
    sq_nn_layernorm(norm_rows(s, i), s->D, l->r, scale, bias, LAYER_EPS, y, l->mean, l->rstd);
}

/* The statistics that norm_forward() uses: of a batch from its sums, or the running ones. */
static void statistics_of_batch(pass *s, int i, const double *sum)
{
  const ssm_layer *l = &s->w.layer[i];

  sq_nn_batchnorm_moments(s->D, sum, l->mean, l->var);
  sq_nn_batchnorm_rstd(s->D, l->var, BATCH_EPS, l->rstd);
  *s->w.count = sum[0];
}

static void running_statistics(pass *s, int i)
{
  const ssm_layer *l = &s->w.layer[i];

  memcpy(l->mean, s->theta + s->m->layer[i].mean, (size_t)s->D * sizeof *l->mean);
  sq_nn_batchnorm_rstd(s->D, s->theta + s->m->layer[i].var, BATCH_EPS, l->rstd);
}

/* The gradient at the norm's output, which its input's replaces. */
static sq_real *norm_gradient(pass *s)
{
  return s->m->prenorm ? s->w.d : s->w.g;
}

/* BatchNorm: gradient of scale and bias, and the sums (2D) that its input's needs. */
static void norm_back_sums(pass *s, int i, double *sum)
{
  const ssm_layer *l = &s->w.layer[i];
  sq_real *dscale = s->dtheta + s->m->layer[i].scale, *dbias = s->dtheta + s->m->layer[i].bias;

  sq_nn_batchnorm_back_sums(s->R, s->D, l->r, l->mean, l->rstd, norm_gradient(s), sum);
  for (int c = 0; c < s->D; ++c) {
    dbias[c] += (sq_real)sum[c];
    dscale[c] += (sq_real)sum[s->D + c];
  }
}

/* sum: of the batch; NULL: the statistics are constants. */
static void batch_norm_back(pass *s, int i, const double *sum)
{
  const ssm_layer *l = &s->w.layer[i];
  sq_real *g = norm_gradient(s);

  sq_nn_batchnorm_back(s->R, s->D, l->r, s->theta + s->m->layer[i].scale, l->mean, l->rstd, g, sum,
                       sum != NULL ? *s->w.count : 1, g, 0);
}

static void layer_norm_back(pass *s, int i)
{
  const ssm_layer *l = &s->w.layer[i];
  sq_real *g = norm_gradient(s);
  const int rows = norm_rows(s, i);

  copy(s, rows, g, s->w.t);
  sq_nn_layernorm_back(rows, s->D, l->r, s->theta + s->m->layer[i].scale, l->mean, l->rstd, s->w.t, g, 0,
                       s->dtheta + s->m->layer[i].scale, s->dtheta + s->m->layer[i].bias);
}

/* ---- the two parts of a layer ----------------------------------------------------------------------------
 */
static void first_part(pass *s, int i)
{
  if (!s->m->prenorm) body_forward(s, i, s->w.layer[i].r);
}

static void second_part(pass *s, int i)
{
  norm_forward(s, i);
  if (s->m->prenorm) body_forward(s, i, layer_out(s, i));
}

static void second_part_back(pass *s, int i)
{
  if (s->m->prenorm) body_backward(s, i);
}

/* Behind the norm's gradient: dL/dx in w.g. */
static void first_part_back(pass *s, int i)
{
  if (!s->m->prenorm) body_backward(s, i);
  if (few(s, i)) {
    sq_nn_add_rows(s->D, rows_behind(s, i), s->last.wanted->row, s->w.g, s->w.d);
    copy(s, s->R, s->w.d, s->w.g);
  } else {
    add_to(elements(s, s->R), s->w.d, s->w.g);
  }
}

/* ---- head ------------------------------------------------------------------------------------------------
 */
static void pool(pass *s)
{
  const sq_rows *rows = s->p->rows;

  /* The last step of padding is none of the sequence's; creation refuses what could lead here. */
  if (s->m->pooling == SQ_POOL_LAST && rows->len != NULL)
    for (int b = 0; b < rows->nseq; ++b) SQ_ASSERT(rows->len[b] == rows->off[b + 1] - rows->off[b]);
  sq_nn_pool(s->m->pooling, rows, s->D, s->w.last, s->w.hx, NULL);
}

/* Loss; with a gradient also dL/d(last) in w.g. */
static void head_run(pass *s, double scale, sq_tally *tally)
{
  const ssm *m = s->m;
  const dense_place *l = &m->decoder;
  ssm_work *w = &s->w;
  const int grad = s->dtheta != NULL, pooled = m->pooling != SQ_POOL_NONE;

  const int n = pooled ? s->p->rows->nseq : w->labelled.list->n, some = s->last.wanted != NULL;
  if (pooled)
    pool(s);
  else if (!some)
    sq_nn_gather_rows(s->D, n, w->labelled.row, w->last, w->hx);
  if (m->base.dims.dual) {
    sq_match_loss(&m->match, s->theta, s->dtheta, s->p->rows->nseq / 2, w->hx, s->shard->label, scale,
                  &w->match, w->dhx, tally);
    if (grad) sq_nn_pool_back(m->pooling, s->p->rows, s->D, w->dhx, NULL, w->g);
    return;
  }
  sq_nn_xent_dense_head(n, l->in, l->out, some ? w->last : w->hx, s->theta + l->kernel, s->theta + l->bias,
                        pooled ? s->shard->label : w->labelled.label, scale,
                        !grad  ? NULL
                        : some ? w->g
                               : w->dhx,
                        grad ? s->dtheta + l->kernel : NULL, grad ? s->dtheta + l->bias : NULL, w->xent,
                        tally);
  if (!grad || some) return;
  if (pooled)
    sq_nn_pool_back(m->pooling, s->p->rows, s->D, w->dhx, NULL, w->g);
  else
    sq_nn_scatter_rows(s->R, s->D, n, w->labelled.row, w->dhx, w->g);
}

/* ---- entry points ----------------------------------------------------------------------------------------
 */
/* loss: only the rows that it looks at have to be made. */
static pass begin(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  void *work, int loss, sq_real *dtheta)
{
  pass s = {.m = (const ssm *)(const void *)model,
            .theta = theta,
            .dtheta = dtheta,
            .shard = shard,
            .p = p,
            .last = *p};
  sq_arena a = {.base = work, .cap = model->work_bytes};

  SQ_ASSERT(shard->token != NULL || (shard->value != NULL && shard->input_dim == s.m->encoder.in));
  s.R = shard->rows.nrow;
  s.D = model->width;
  sq_ssm_take(s.m, &a, &s.w);
  if (loss && s.m->pooling == SQ_POOL_NONE) {
    sq_labelled_list(shard, &s.w.labelled);
    if (!sq_ssm_all_rows(s.m)) s.last = sq_labelled_pass(&s.w.labelled, p);
  }
  return s;
}

/* The forward pass in one go.  own: with the shard's statistics, else with the running ones. */
static void forward(pass *s, int own)
{
  encoder_forward(s);
  for (int i = 0; i < s->m->base.nlayer; ++i) {
    first_part(s, i);
    if (s->m->batch_norm && own) {
      sq_nn_batchnorm_sums(s->R, s->D, s->w.layer[i].r, s->w.sum);
      statistics_of_batch(s, i, s->w.sum);
    } else if (s->m->batch_norm) {
      running_statistics(s, i);
    }
    second_part(s, i);
  }
}

/* Nothing is shared with other shards. */
static void run_alone(pass *s, double scale, sq_tally *tally)
{
  forward(s, 0);
  head_run(s, scale, tally);
  if (s->dtheta == NULL) return;
  sq_pass_progress(s->p, s->m->base.nlayer);
  for (int i = s->m->base.nlayer - 1; i >= 0; --i) {
    second_part_back(s, i);
    if (s->m->batch_norm) {
      norm_back_sums(s, i, s->w.sum);
      batch_norm_back(s, i, NULL);
    } else {
      layer_norm_back(s, i);
    }
    first_part_back(s, i);
    sq_pass_progress(s->p, i);
  }
  encoder_backward(s);
}

static void forward_segment(pass *s, int k, double *sum)
{
  if (k == 0) {
    encoder_forward(s);
  } else {
    statistics_of_batch(s, k - 1, sum);
    second_part(s, k - 1);
  }
  if (k == s->m->base.nlayer) return;
  first_part(s, k);
  sq_nn_batchnorm_sums(s->R, s->D, s->w.layer[k].r, sum);
}

/* i: the layer whose norm the sums are of; nlayer: none, the loss has just been taken. */
static void backward_segment(pass *s, int i, double *sum)
{
  if (i < s->m->base.nlayer) {
    batch_norm_back(s, i, sum);
    first_part_back(s, i);
  }
  if (i == 0) {
    encoder_backward(s);
    return;
  }
  second_part_back(s, i - 1);
  norm_back_sums(s, i - 1, sum);
}

void sq_ssm_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally)
{
  const int L = model->nlayer;
  pass s = begin(model, theta, shard, p, work, 1, dtheta);

  if (model->nsync == 0 || !p->train) {
    run_alone(&s, scale, tally);
    return;
  }
  if (k <= L) forward_segment(&s, k, sum);
  if (k == L) head_run(&s, scale, tally);
  if (k >= L && dtheta != NULL) backward_segment(&s, 2 * L - k, sum);
}

void sq_ssm_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                   void *work, sq_real *logits)
{
  pass s = begin(model, theta, shard, p, work, 0, NULL);
  const int pooled = s.m->pooling != SQ_POOL_NONE, dual = model->dims.dual,
            n = dual     ? shard->rows.nseq / 2
                : pooled ? shard->rows.nseq
                         : s.R;

  forward(&s, p->train);
  if (pooled) pool(&s);
  if (dual)
    sq_match_logits(&s.m->match, theta, n, s.w.hx, &s.w.match, logits);
  else
    dense(&s, &s.m->decoder, n, pooled ? s.w.hx : s.w.last, logits, model->output_dim);
  sq_nn_log_softmax(n, model->output_dim, logits);
}
