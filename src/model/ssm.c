/* src/model/ssm.c: keys, parameters, workspace and cost of the state-space backbone. */
#include "ssm.h"

#include <stdlib.h>
#include <string.h>

/* ---- configuration ---------------------------------------------------------------------------------------
 */
static const sq_key keys[] = {
    {"model.input_dim", SQ_KEY_INT, NULL, 1, 1 << 24, NULL,
     "tokens, taken as unit vectors of this length; width of real inputs"},
    {"model.output_dim", SQ_KEY_INT, NULL, 1, 1 << 24, NULL, "classes"},
    {"model.num_layers", SQ_KEY_INT, NULL, 1, 1024, NULL, "layers"},
    {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 1 << 16, NULL, "width D"},
    {"model.activation", SQ_KEY_STRING, "\"full_glu\"", 0, 0, "full_glu|half_glu1|half_glu2|gelu",
     "what follows the state-space layer"},
    {"model.dropout", SQ_KEY_REAL, "0.2", 0, 0.999, NULL, "dropout rate; one mask for all steps"},
    {"model.norm", SQ_KEY_STRING, "\"batch\"", 0, 0, NULL, "batch; anything else: LayerNorm"},
    {"model.prenorm", SQ_KEY_BOOL, "false", 0, 0, NULL, "normalise a layer's input, else its output"},
    {"model.pooling", SQ_KEY_STRING, "\"mean\"", 0, 0, "mean|last|none",
     "over time, for one output a sequence; none: an output at each step"},
    {"model.dual", SQ_KEY_BOOL, "false", 0, 0, NULL, "one output for a pair of sequences (task aan)"},
    {"model.ssm_lr_vars", SQ_KEY_STRINGS, "[\"Lambda_re\", \"Lambda_im\", \"P\", \"B\", \"log_step\"]", 0, 0,
     NULL, "recipe published: last parts of the names of the mixer's tensors that have the rate ssm_lr"},
};

static const sq_keyset keyset = {"", keys, sizeof keys / sizeof keys[0], NULL}; /* owner: sq_model_keysets */

static sq_pooling pooling_of(const sq_config *c)
{
  const char *name = sq_config_string(c, "model.pooling");
  return strcmp(name, "mean") == 0 ? SQ_POOL_MEAN : strcmp(name, "last") == 0 ? SQ_POOL_LAST : SQ_POOL_NONE;
}

/* The published code takes any other word for LayerNorm: a slip of the pen, too. */
static void warn_of_norm(const char *name)
{
  static int warned;
  if (warned || strcmp(name, "batch") == 0 || strcmp(name, "layer") == 0) return;
  warned = 1;
  sq_warn("model.norm: \"%s\" is neither \"batch\" nor \"layer\", and means LayerNorm", name);
}

static gate_kind gate_of(const sq_config *c)
{
  const char *name = sq_config_string(c, "model.activation");
  return strcmp(name, "full_glu") == 0    ? GATE_FULL
         : strcmp(name, "half_glu1") == 0 ? GATE_HALF1
         : strcmp(name, "half_glu2") == 0 ? GATE_HALF2
                                          : GATE_NONE;
}

/* Recipe `published` pads every sequence to the task's length. */
static int has_padding(const sq_config *c)
{
  return sq_config_has(c, "train.recipe") && strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
}

/* Conditions that involve the task's shapes. */
static sq_status check_dims(const sq_config *c, const sq_model_dims *d)
{
  const sq_pooling pooling = pooling_of(c);

  if (d->label_per_row && pooling != SQ_POOL_NONE)
    return sq_fail(SQ_ERR_USAGE,
                   "model.pooling: \"%s\" gives one output a sequence, but the task labels each step; set "
                   "model.pooling to \"none\"",
                   sq_config_string(c, "model.pooling"));
  if (!d->label_per_row && pooling == SQ_POOL_NONE)
    return sq_fail(SQ_ERR_USAGE,
                   "model.pooling: \"none\" gives an output at each step, but the task has one label a "
                   "sequence; expected mean or last");
  if (pooling == SQ_POOL_LAST && has_padding(c))
    return sq_fail(SQ_ERR_USAGE, "model.pooling: \"last\" has no meaning with the padding of train.recipe "
                                 "\"published\"; expected mean, or train.recipe \"corrected\"");
  return SQ_OK;
}

/* ---- parameters ------------------------------------------------------------------------------------------
 */
/* kernel lecun_normal, bias 0. */
static sq_status add_dense(ssm *m, dense_place *l, const char *prefix, int in, int out)
{
  sq_status st;

  *l = (dense_place){.in = in, .out = out};
  l->kernel = sq_param_add(&m->base.params, 0, 2, (const int[2]){in, out}, "%s.kernel", prefix);
  SQ_TRY(sq_model_note_rules(&m->base, (sq_init_rule){.kind = SQ_INIT_LECUN, .value = in}));
  l->bias = sq_param_add(&m->base.params, 0, 1, &out, "%s.bias", prefix);
  SQ_TRY(sq_model_note_rules(&m->base, (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = 0}));
done:
  return st;
}

static sq_status add_vector(ssm *m, size_t *place, unsigned flags, int layer, const char *name, double value)
{
  *place =
      sq_param_add(&m->base.params, flags, 1, &m->base.width, "encoder.layers_%d.normalize.%s", layer, name);
  return sq_model_note_rules(&m->base, (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = value});
}

/* The scale is first: ssm_ranges() relies on it. */
static sq_status add_norm(ssm *m, int i)
{
  ssm_place *b = &m->layer[i];
  sq_status st;

  SQ_TRY(add_vector(m, &b->scale, 0, i, "scale", 1));
  SQ_TRY(add_vector(m, &b->bias, 0, i, "bias", 0));
  if (!m->batch_norm) return SQ_OK;
  SQ_TRY(add_vector(m, &b->mean, SQ_PARAM_BUFFER, i, "mean", 0));
  SQ_TRY(add_vector(m, &b->var, SQ_PARAM_BUFFER, i, "var", 1));
done:
  return st;
}

static sq_status add_body(ssm *m, int i)
{
  const int D = m->base.width;
  char name[SQ_PARAM_NAME];
  sq_status st;

  sq_format(name, sizeof name, "encoder.layers_%d.seq", i);
  SQ_TRY(sq_model_add_mixer(&m->base, i, name));
  sq_format(name, sizeof name, "encoder.layers_%d.out1", i);
  if (m->gate == GATE_FULL) SQ_TRY(add_dense(m, &m->layer[i].out1, name, D, D));
  sq_format(name, sizeof name, "encoder.layers_%d.out2", i);
  if (m->gate != GATE_NONE) SQ_TRY(add_dense(m, &m->layer[i].out2, name, D, D));
done:
  return st;
}

static sq_status add_params(ssm *m, int input_dim)
{
  sq_status st;

  SQ_TRY(add_dense(m, &m->encoder, "encoder.encoder", input_dim, m->base.width));
  for (int i = 0; i < m->base.nlayer; ++i) {
    sq_model_begin_layer(&m->base, i);
    if (m->prenorm) SQ_TRY(add_norm(m, i));
    SQ_TRY(add_body(m, i));
    if (!m->prenorm) SQ_TRY(add_norm(m, i));
  }
  sq_model_begin_layer(&m->base, m->base.nlayer);
  SQ_TRY(m->base.dims.dual ? sq_match_add(&m->base, &m->match, m->base.width)
                           : add_dense(m, &m->decoder, "decoder", m->base.width, m->base.output_dim));
done:
  return st;
}

/* ---- segments --------------------------------------------------------------------------------------------
 */
static size_t derived_at(const sq_model *model, int i)
{
  return i == model->nlayer ? model->nderived
                            : ((const struct sq_mixer_head *)(const void *)model->mixer[i])->derived_at;
}

/* Backward segment nsync + j has the norm of layer nlayer-1-j and all up to the norm of the layer behind it;
   of mixers, the one in between. */
static int ssm_ranges(const sq_model *model, int k, size_t range[2][2])
{
  const ssm *m = (const ssm *)(const void *)model;
  const int L = model->nlayer, norm = 2 * L - 1 - k, mixer = m->prenorm ? norm : norm + 1;

  range[0][0] = 0;
  range[0][1] = sq_model_ngradient(model);
  if (k < L) return 1; /* as the one segment of evaluation mode; no other has a gradient there */
  const size_t end = norm + 1 < L ? m->layer[norm + 1].scale : model->params.total;
  range[0][0] = norm >= 0 ? m->layer[norm].scale : 0;
  range[0][1] = end - range[0][0];
  if (mixer < 0 || mixer == L) return 1;
  range[1][0] = model->params.total + derived_at(model, mixer);
  range[1][1] = derived_at(model, mixer + 1) - derived_at(model, mixer);
  return range[1][1] > 0 ? 2 : 1;
}

static void ssm_statistics(const sq_model *model, int k, const double *sum, sq_real *gradient)
{
  const ssm_place *b = &((const ssm *)(const void *)model)->layer[k];
  sq_nn_batchnorm_moments(model->width, sum, gradient + b->mean, gradient + b->var);
}

/* ---- creation --------------------------------------------------------------------------------------------
 */
static void ssm_destroy(sq_model *model)
{
  ssm *m = (ssm *)(void *)model;

  free(m->layer);
  sq_model_release(model);
  free(m);
}

static void read_config(const sq_config *c, ssm *m)
{
  const sq_model_dims d = m->base.dims;
  const int D = sq_config_int(c, "model.hidden_dim");

  m->base.width = D;
  m->base.nlayer = sq_config_int(c, "model.num_layers");
  m->base.output_dim = sq_config_int(c, "model.output_dim");
  m->base.log_probabilities = 1;
  m->gate = gate_of(c);
  m->gate_width = m->gate == GATE_FULL ? 2 * D : m->gate == GATE_NONE ? 0 : D;
  m->batch_norm = strcmp(sq_config_string(c, "model.norm"), "batch") == 0;
  warn_of_norm(sq_config_string(c, "model.norm"));
  m->prenorm = sq_config_bool(c, "model.prenorm");
  m->pooling = pooling_of(c);
  m->dropout = sq_config_real(c, "model.dropout");
  m->base.nsync = m->batch_norm ? m->base.nlayer : 0;
  m->base.nsum = m->batch_norm ? 2 * D + 1 : 0;
  m->max_head_rows = m->pooling != SQ_POOL_NONE ? d.max_seqs : d.max_labels;
  if (m->max_head_rows > d.max_rows) m->max_head_rows = d.max_rows;
  if (m->max_head_rows < 1) m->max_head_rows = 1;
}

extern const sq_backbone_ops sq_backbone_ssm;

static sq_status ssm_create(const sq_config *c, sq_model_dims d, sq_model **out)
{
  const sq_mixer_ops *ops = sq_mixer_find(sq_config_string(c, "model.layer"));
  ssm *m = NULL;
  sq_arena count = {0};
  ssm_work w;
  sq_status st;

  SQ_ASSERT(ops != NULL);
  SQ_TRY(check_dims(c, &d));
  m = sq_calloc(1, sizeof *m, "the model");
  SQ_TRY(m == NULL ? SQ_ERR_MEMORY : SQ_OK);
  m->base.ops = &sq_backbone_ssm;
  m->base.dims = d;
  read_config(c, m);
  m->layer = sq_calloc((size_t)m->base.nlayer, sizeof *m->layer, "the model's layers");
  SQ_TRY(m->layer == NULL ? SQ_ERR_MEMORY : SQ_OK);
  SQ_TRY(sq_model_create_mixers(c, ops, &m->base));
  SQ_TRY(add_params(m, sq_config_int(c, "model.input_dim")));
  sq_ssm_take(m, &count, &w);
  m->base.work_bytes = count.used;
done:
  *out = st == SQ_OK ? &m->base : NULL;
  if (st != SQ_OK && m != NULL) ssm_destroy(&m->base);
  return st;
}

/* ---- workspace -------------------------------------------------------------------------------------------
 */
static ssm_layer take_layer(const ssm *m, sq_arena *a, const sq_mixer *mixer)
{
  const size_t R = (size_t)m->base.dims.max_rows, D = (size_t)m->base.width, G = (size_t)m->gate_width;
  ssm_layer l = {0};

  l.x = SQ_TAKE(a, R * D, sq_real);
  l.u = m->prenorm ? SQ_TAKE(a, R * D, sq_real) : l.x;
  l.s = SQ_TAKE(a, R * D, sq_real);
  l.h = G > 0 ? SQ_TAKE(a, R * G, sq_real) : NULL;
  l.r = m->prenorm ? l.x : SQ_TAKE(a, R * D, sq_real);
  l.mean = SQ_TAKE(a, m->batch_norm ? D : R, sq_real);
  l.rstd = SQ_TAKE(a, m->batch_norm ? D : R, sq_real);
  l.var = m->batch_norm ? SQ_TAKE(a, D, sq_real) : NULL;
  l.tape = sq_arena_take(a, sq_mixer_get(mixer)->tape_bytes(mixer), 1);
  return l;
}

void sq_ssm_take(const ssm *m, sq_arena *a, ssm_work *w)
{
  const size_t R = (size_t)m->base.dims.max_rows, D = (size_t)m->base.width, G = (size_t)m->gate_width;
  const size_t n = (size_t)m->max_head_rows;
  size_t scratch = 0;

  w->layer = SQ_TAKE(a, m->base.nlayer, ssm_layer);
  for (int i = 0; i < m->base.nlayer; ++i) {
    const size_t bytes = sq_mixer_get(m->base.mixer[i])->scratch_bytes(m->base.mixer[i]);
    const ssm_layer l = take_layer(m, a, m->base.mixer[i]);
    if (w->layer != NULL) w->layer[i] = l;
    scratch = bytes > scratch ? bytes : scratch;
  }
  w->last = SQ_TAKE(a, R * D, sq_real);
  w->g = SQ_TAKE(a, R * D, sq_real);
  w->d = SQ_TAKE(a, R * D, sq_real);
  w->e = SQ_TAKE(a, R * D, sq_real);
  w->t = SQ_TAKE(a, R * D, sq_real);
  w->dh = G > 0 ? SQ_TAKE(a, R * G, sq_real) : NULL;
  w->sum = SQ_TAKE(a, 2 * D + 1, double);
  w->count = SQ_TAKE(a, 1, double);
  w->scratch = sq_arena_take(a, scratch, 1);
  sq_labelled_take(a, &m->base.dims, m->max_head_rows, &w->labelled);
  w->xw = SQ_TAKE(a, n * D, sq_real);
  w->hx = SQ_TAKE(a, n * D, sq_real);
  w->dhx = SQ_TAKE(a, n * D, sq_real);
  w->xent = SQ_TAKE(a, sq_nn_xent_head_scratch((int)n, m->base.output_dim), sq_real);
  if (m->base.dims.dual) sq_match_take(&m->match, m->max_head_rows / 2, a, &w->match);
}

static sq_layer_view ssm_layer_view(const sq_model *model, const void *work, int i)
{
  sq_arena a = {.base = (unsigned char *)(uintptr_t)work,
                .cap = model->work_bytes}; /* only read through the view */
  ssm_work w;

  sq_ssm_take((const ssm *)(const void *)model, &a, &w);
  return (sq_layer_view){.mixer = model->mixer[i],
                         .tape = w.layer[i].tape,
                         .block_in = w.layer[i].x,
                         .mixer_in = w.layer[i].u,
                         .mixer_out = w.layer[i].s,
                         .block_out = i + 1 < model->nlayer ? w.layer[i + 1].x : w.last};
}

/* ---- cost ------------------------------------------------------------------------------------------------
 */
/* Matrix products only.  The encoder has none for tokens, and for numbers, of which there are few a step, its own
   is as cheap as what is elementwise. */
static double ssm_flops(const sq_model *model, int nseq, const int *len, long nlabel)
{
  const ssm *m = (const ssm *)(const void *)model;
  const double D = model->width;
  double rows = 0, few, total;

  for (int b = 0; b < nseq; ++b) rows += len[b];
  few = sq_ssm_all_rows(m) ? rows : sq_labelled_rows(model, rows, nlabel);
  total = (rows * (model->nlayer - 1) + few) * 2 * D * m->gate_width;
  total += (double)nlabel * (model->dims.dual ? sq_match_flops(&m->match) : 2 * D * model->output_dim);
  for (int i = 0; i < model->nlayer; ++i)
    total += sq_labelled_mix_flops(model->mixer[i], nseq, len, rows, i + 1 < model->nlayer ? rows : few);
  return total;
}

const sq_backbone_ops sq_backbone_ssm = {
    .name = "ssm",
    .keys = &keyset,
    .create = ssm_create,
    .destroy = ssm_destroy,
    .flops = ssm_flops,
    .run = sq_ssm_run,
    .logits = sq_ssm_logits,
    .layer = ssm_layer_view,
    .ranges = ssm_ranges,
    .statistics = ssm_statistics,
};
