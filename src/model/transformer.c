/* src/model/transformer.c: keys, parameters, workspace and cost of the transformer family. */
#include "transformer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- configuration ---------------------------------------------------------------------------------------
 */
static const sq_key keys[] = {
    {"model.input_dim", SQ_KEY_INT, "1", 1, 1 << 20, NULL, "width of real inputs (embedding: false)"},
    {"model.output_dim", SQ_KEY_INT, NULL, 1, 1 << 24, NULL, "classes"},
    {"model.num_layers", SQ_KEY_INT, NULL, 1, 1024, NULL, "blocks"},
    {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 1 << 16, NULL, "width D"},
    {"model.embedding", SQ_KEY_BOOL, "true", 0, 0, NULL,
     "inputs are tokens; else real numbers through a linear layer"},
    {"model.vocab_size", SQ_KEY_INT, "null", 1, 1 << 24, NULL, "tokens (embedding: true)"},
    {"model.max_pos_embed", SQ_KEY_INT, "0", 0, 1 << 24, NULL,
     "learned positions (embedding: true); 0: none"},
    {"model.mixer", SQ_KEY_STRING, "\"mlp\"", 0, 0, "mlp|glu|hybrid|none", "channel mixer of a block"},
    {"model.mixer_dim", SQ_KEY_INT, "0", 0, 1 << 20, NULL,
     "hidden width of the mlp mixer and of the classifier head"},
    {"model.classifier", SQ_KEY_BOOL, "false", 0, 0, NULL,
     "classifier head; else a linear decoder at each step"},
    {"model.pooling", SQ_KEY_STRING, "\"mean\"", 0, 0, NULL,
     "classifier: mean, max, sum, cls; anything else: none"},
    {"model.dual", SQ_KEY_BOOL, "false", 0, 0, NULL, "one output for a pair of sequences (task aan)"},
    {"model.norm", SQ_KEY_STRING, "\"layer\"", 0, 0, "layer", "normalisation"},
    {"model.dropout", SQ_KEY_REAL, "0", 0, 0.999, NULL, "dropout rate outside the mixer"},
    {"model.use_gate", SQ_KEY_BOOL, "false", 0, 0, NULL, "gate the block's output with its input"},
};

static sq_pooling pooling_of(const sq_config *c)
{
  static const struct {
    const char *name;
    sq_pooling how;
  } known[] = {{"mean", SQ_POOL_MEAN}, {"max", SQ_POOL_MAX}, {"sum", SQ_POOL_SUM}, {"cls", SQ_POOL_CLS}};
  const char *name = sq_config_string(c, "model.pooling");

  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i)
    if (strcmp(name, known[i].name) == 0) return known[i].how;
  return SQ_POOL_NONE;
}

static channel_kind channel_of(const sq_config *c)
{
  const char *name = sq_config_string(c, "model.mixer");
  return strcmp(name, "mlp") == 0      ? CHANNEL_MLP
         : strcmp(name, "glu") == 0    ? CHANNEL_GLU
         : strcmp(name, "hybrid") == 0 ? CHANNEL_HYBRID
                                       : CHANNEL_NONE;
}

static sq_status check(const sq_config *c)
{
  const int classifier = sq_config_bool(c, "model.classifier"),
            mixer_dim = sq_config_int(c, "model.mixer_dim");

  if (sq_config_bool(c, "model.embedding") && !sq_config_has(c, "model.vocab_size"))
    return sq_fail(SQ_ERR_USAGE, "model.vocab_size: required with model.embedding true (number of tokens)");
  if (channel_of(c) == CHANNEL_MLP && mixer_dim == 0)
    return sq_fail(SQ_ERR_USAGE, "model.mixer_dim: 0, expected at least 1 with model.mixer \"mlp\"");
  if (classifier && mixer_dim == 0 && !sq_config_bool(c, "model.dual") &&
      sq_config_int(c, "model.output_dim") != sq_config_int(c, "model.hidden_dim"))
    return sq_fail(SQ_ERR_USAGE,
                   "model.mixer_dim: 0 makes the pooled vector the output, so model.output_dim must equal "
                   "model.hidden_dim (%d); set model.mixer_dim for a classifier head",
                   sq_config_int(c, "model.hidden_dim"));
  return SQ_OK;
}

static const sq_keyset keyset = {"model.layer=transformer", keys, sizeof keys / sizeof keys[0], check};

/* Conditions that involve the task's shapes. */
static sq_status check_dims(const sq_config *c, const sq_model_dims *d)
{
  const int max_pos = sq_config_int(c, "model.max_pos_embed");
  const int pooled = sq_config_bool(c, "model.classifier") && pooling_of(c) != SQ_POOL_NONE;

  if (sq_config_bool(c, "model.embedding") && max_pos > 0 && max_pos < d->seq_len)
    return sq_fail(
        SQ_ERR_USAGE,
        "model.max_pos_embed: %d, expected 0 (no positions) or at least the task's sequence length %d",
        max_pos, d->seq_len);
  if (d->label_per_row && pooled)
    return sq_fail(
        SQ_ERR_USAGE,
        "model.classifier: true with model.pooling \"%s\" gives one output a sequence, but the task "
        "labels each step; set model.classifier to false",
        sq_config_string(c, "model.pooling"));
  if (!d->label_per_row && !sq_config_bool(c, "model.classifier"))
    return sq_fail(SQ_ERR_USAGE,
                   "model.classifier: false gives an output at each step, but the task has one label a "
                   "sequence; set model.classifier to true");
  if (!d->label_per_row && !pooled)
    return sq_fail(
        SQ_ERR_USAGE,
        "model.pooling: \"%s\" pools nothing, but the task has one label a sequence; expected mean, "
        "max, sum or cls",
        sq_config_string(c, "model.pooling"));
  return SQ_OK;
}

/* ---- parameters ------------------------------------------------------------------------------------------
 */
static sq_status add_encoder(transformer *m)
{
  const sq_init_rule normal = {.kind = SQ_INIT_NORMAL, .value = 1};
  const int D = m->base.width;
  sq_status st;

  if (m->vocab == 0) return sq_model_add_linear(&m->base, &m->input, "encoder", m->input_dim, D, 1);
  SQ_TRY(
      sq_model_add_tensor(&m->base, &m->word, "encoder", "word_embeddings.weight", 2, m->vocab, D, normal));
  if (m->max_pos > 0)
    SQ_TRY(sq_model_add_tensor(&m->base, &m->position, "encoder", "position_embeddings.weight", 2, m->max_pos,
                               D, normal));
done:
  return st;
}

/* weight xavier_uniform with gain 0.1, bias 1: the gate starts near SiLU(1) everywhere. */
static sq_status add_gate(transformer *m, sq_linear_place *l, const char *prefix)
{
  const int D = m->base.width;
  sq_status st;

  *l = (sq_linear_place){.in = D, .out = D};
  SQ_TRY(sq_model_add_tensor(&m->base, &l->weight, prefix, "weight", 2, D, D,
                             (sq_init_rule){.kind = SQ_INIT_UNIFORM, .value = 0.1 * sqrt(6.0 / (2.0 * D))}));
  SQ_TRY(sq_model_add_tensor(&m->base, &l->bias, prefix, "bias", 1, D, 1,
                             (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = 1}));
done:
  return st;
}

static sq_status add_channel_mixer(transformer *m, block_place *b, const char *prefix)
{
  const int D = m->base.width;
  char name[SQ_PARAM_NAME];
  sq_status st = SQ_OK;

  sq_format(name, sizeof name, "%s.%s", prefix, m->channel == CHANNEL_GLU ? "linear" : "encoder");
  if (m->channel == CHANNEL_NONE) return SQ_OK;
  /* sigmoid(alpha) = 0.2 */
  if (m->channel == CHANNEL_HYBRID)
    SQ_TRY(sq_model_add_tensor(&m->base, &b->alpha, prefix, "alpha", 1, 1, 1,
                               (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = log(0.25)}));
  SQ_TRY(sq_model_add_linear(&m->base, &b->encoder, name, D, m->hidden, 1));
  if (m->channel == CHANNEL_GLU) return SQ_OK;
  sq_format(name, sizeof name, "%s.decoder", prefix);
  SQ_TRY(sq_model_add_linear(&m->base, &b->decoder, name, m->hidden, D, 1));
done:
  return st;
}

static sq_status add_block(transformer *m, int i)
{
  block_place *b = &m->block[i];
  char name[SQ_PARAM_NAME];
  sq_status st;

  sq_format(name, sizeof name, "layers.%d.attention", i);
  SQ_TRY(sq_model_add_mixer(&m->base, i, name));
  if (m->gated) {
    sq_format(name, sizeof name, "layers.%d.Wz", i);
    SQ_TRY(add_gate(m, &b->gate, name));
  }
  sq_format(name, sizeof name, "layers.%d.mixer", i);
  SQ_TRY(add_channel_mixer(m, b, name));
  sq_format(name, sizeof name, "layers.%d.norm", i);
  SQ_TRY(sq_model_add_norm(&m->base, &b->norm_weight, &b->norm_bias, name));
done:
  return st;
}

static sq_status add_head(transformer *m)
{
  const int D = m->base.width, V = m->base.output_dim;
  sq_status st = SQ_OK;

  if (m->head == HEAD_DECODER) return sq_model_add_linear(&m->base, &m->head2, "decoder", D, V, 0);
  if (m->head == HEAD_IDENTITY) return SQ_OK;
  if (m->head == HEAD_MATCH) return sq_match_add(&m->base, &m->match, m->head_dim);
  SQ_TRY(sq_model_add_linear(&m->base, &m->head1, "classifier.encoder", D, m->head_dim, 1));
  SQ_TRY(sq_model_add_linear(&m->base, &m->head2, "classifier.decoder", m->head_dim, V, 1));
done:
  return st;
}

/* ---- creation --------------------------------------------------------------------------------------------
 */
static void transformer_destroy(sq_model *model)
{
  transformer *m = (transformer *)(void *)model;

  free(m->block);
  sq_model_release(model);
  free(m);
}

static void read_config(const sq_config *c, transformer *m)
{
  const int classifier = sq_config_bool(c, "model.classifier"),
            mixer_dim = sq_config_int(c, "model.mixer_dim");
  m->base.width = sq_config_int(c, "model.hidden_dim");
  m->base.nlayer = sq_config_int(c, "model.num_layers");
  m->base.output_dim = sq_config_int(c, "model.output_dim");
  m->input_dim = sq_config_int(c, "model.input_dim");
  m->vocab = sq_config_bool(c, "model.embedding") ? sq_config_int(c, "model.vocab_size") : 0;
  m->max_pos = m->vocab > 0 ? sq_config_int(c, "model.max_pos_embed") : 0;
  m->channel = channel_of(c);
  m->hidden = m->channel == CHANNEL_MLP ? mixer_dim : m->channel == CHANNEL_NONE ? 0 : 2 * m->base.width;
  m->gated = sq_config_bool(c, "model.use_gate");
  m->dropout = sq_config_real(c, "model.dropout");
  m->head = !classifier ? HEAD_DECODER : mixer_dim > 0 ? HEAD_MLP : HEAD_IDENTITY;
  m->head_dim = m->head == HEAD_MLP ? mixer_dim : 0;
  if (m->base.dims.dual) {
    m->head = HEAD_MATCH;
    m->head_dim = mixer_dim > 0 ? mixer_dim : m->base.width;
  }
  m->pooling = classifier ? pooling_of(c) : SQ_POOL_NONE;
  m->max_head_rows = sq_model_head_rows(&m->base.dims, m->pooling);
}

extern const sq_backbone_ops sq_backbone_transformer;

static sq_status transformer_create(const sq_config *c, sq_model_dims d, sq_model **out)
{
  const sq_mixer_ops *ops = sq_mixer_find(sq_config_string(c, "model.attention_fn"));
  transformer *m = NULL;
  sq_arena count = {0};
  transformer_work w;
  sq_status st;

  if (ops == NULL)
    return sq_fail(SQ_ERR_USAGE, "model.attention_fn: unknown mixer \"%s\"",
                   sq_config_string(c, "model.attention_fn"));
  SQ_TRY(check_dims(c, &d));
  m = sq_calloc(1, sizeof *m, "the model");
  SQ_TRY(m == NULL ? SQ_ERR_MEMORY : SQ_OK);
  m->base.ops = &sq_backbone_transformer;
  m->base.dims = d;
  read_config(c, m);
  m->word = m->position = SQ_NOWHERE;
  m->block = sq_calloc((size_t)m->base.nlayer, sizeof *m->block, "the model's layers");
  SQ_TRY(m->block == NULL ? SQ_ERR_MEMORY : SQ_OK);
  SQ_TRY(sq_model_create_mixers(c, ops, &m->base));
  SQ_TRY(add_encoder(m));
  for (int i = 0; i < m->base.nlayer; ++i) {
    sq_model_begin_layer(&m->base, i);
    SQ_TRY(add_block(m, i));
  }
  sq_model_begin_layer(&m->base, m->base.nlayer);
  SQ_TRY(sq_model_add_norm(&m->base, &m->norm_weight, &m->norm_bias, "norm"));
  SQ_TRY(add_head(m));
  sq_transformer_take(m, &count, &w);
  m->base.work_bytes = count.used;
done:
  *out = st == SQ_OK ? &m->base : NULL;
  if (st != SQ_OK && m != NULL) transformer_destroy(&m->base);
  return st;
}

/* ---- workspace -------------------------------------------------------------------------------------------
 */
void sq_transformer_take(const transformer *m, sq_arena *a, transformer_work *w)
{
  const size_t R = (size_t)m->base.dims.max_rows, D = (size_t)m->base.width, H = (size_t)m->hidden;
  const size_t n = (size_t)m->max_head_rows, E = m->head == HEAD_MLP ? (size_t)m->head_dim : 0,
               V = (size_t)m->base.output_dim;
  size_t scratch = 0;

  w->layer = SQ_TAKE(a, m->base.nlayer, layer_work);
  for (int i = 0; i < m->base.nlayer; ++i) {
    const sq_mixer *mixer = m->base.mixer[i];
    const size_t bytes = sq_mixer_get(mixer)->scratch_bytes(mixer);
    layer_work l = {0};
    l.x = SQ_TAKE(a, R * D, sq_real);
    l.u = SQ_TAKE(a, R * D, sq_real);
    l.a = SQ_TAKE(a, R * D, sq_real);
    if (H > 0) l.h = SQ_TAKE(a, R * H, sq_real);
    if (m->gated) l.z = SQ_TAKE(a, R * D, sq_real);
    if (m->gated) l.y0 = SQ_TAKE(a, R * D, sq_real);
    l.mean = SQ_TAKE(a, R, sq_real);
    l.rstd = SQ_TAKE(a, R, sq_real);
    l.tape = sq_arena_take(a, sq_mixer_get(mixer)->tape_bytes(mixer), 1);
    if (w->layer != NULL) w->layer[i] = l;
    scratch = bytes > scratch ? bytes : scratch;
  }
  w->last = SQ_TAKE(a, R * D, sq_real);
  w->g = SQ_TAKE(a, R * D, sq_real);
  w->r = SQ_TAKE(a, R * D, sq_real);
  w->m = SQ_TAKE(a, R * D, sq_real);
  w->t = SQ_TAKE(a, R * D, sq_real);
  w->dz = m->gated ? SQ_TAKE(a, R * D, sq_real) : NULL;
  w->h1 = H > 0 ? SQ_TAKE(a, R * H, sq_real) : NULL;
  w->h2 = H > 0 ? SQ_TAKE(a, R * H, sq_real) : NULL;
  w->dhybrid = m->channel == CHANNEL_HYBRID ? SQ_TAKE(a, R * D, sq_real) : NULL;
  w->mean = SQ_TAKE(a, R, sq_real);
  w->rstd = SQ_TAKE(a, R, sq_real);
  w->scratch = sq_arena_take(a, scratch, 1);
  w->xw = SQ_TAKE(a, n * D, sq_real);
  sq_labelled_take(a, &m->base.dims, m->max_head_rows, &w->labelled);
  w->argmax = m->pooling == SQ_POOL_MAX ? SQ_TAKE(a, n * D, int) : NULL;
  w->hx = SQ_TAKE(a, n * D, sq_real);
  w->hn = SQ_TAKE(a, n * D, sq_real);
  w->dhx = SQ_TAKE(a, n * D, sq_real);
  w->e = E > 0 ? SQ_TAKE(a, n * E, sq_real) : NULL;
  w->re = E > 0 ? SQ_TAKE(a, n * E, sq_real) : NULL;
  w->de = E > 0 ? SQ_TAKE(a, n * E, sq_real) : NULL;
  w->xent = SQ_TAKE(a, sq_nn_xent_head_scratch((int)n, (int)V), sq_real);
  if (m->head == HEAD_MATCH) sq_match_take(&m->match, m->max_head_rows / 2, a, &w->match);
}

static sq_layer_view transformer_layer(const sq_model *model, const void *work, int i)
{
  const transformer *m = (const transformer *)(const void *)model;
  sq_arena a = {.base = (unsigned char *)(uintptr_t)work,
                .cap = model->work_bytes}; /* only read through the view */
  transformer_work w;

  sq_transformer_take(m, &a, &w);
  const layer_work *l = &w.layer[i];
  return (sq_layer_view){.mixer = model->mixer[i],
                         .tape = l->tape,
                         .block_in = l->x,
                         .mixer_in = l->u,
                         .mixer_out = l->a,
                         .block_out = i + 1 < model->nlayer ? w.layer[i + 1].x : w.last};
}

/* ---- cost ------------------------------------------------------------------------------------------------
 */
/* Matrix products only: what is elementwise is a few percent. */
static double transformer_flops(const sq_model *model, int nseq, const int *len, long nlabel)
{
  const transformer *m = (const transformer *)(const void *)model;
  const double D = model->width, V = model->output_dim;
  double rows = 0, each, total, few;

  for (int b = 0; b < nseq; ++b) rows += len[b];
  few = sq_labelled_rows(model, rows, nlabel);
  each = m->channel == CHANNEL_GLU ? 2 * D * m->hidden : 4 * D * m->hidden;
  if (m->gated) each += 2 * D * D;
  total = (rows * (model->nlayer - 1) + few) * each;
  for (int i = 0; i < model->nlayer; ++i)
    total += sq_labelled_mix_flops(model->mixer[i], nseq, len, rows, i + 1 < model->nlayer ? rows : few);
  if (m->vocab == 0) total += rows * 2 * m->input_dim * D;
  if (m->head == HEAD_DECODER) total += (double)nlabel * 2 * D * V;
  if (m->head == HEAD_MATCH) total += (double)nlabel * sq_match_flops(&m->match);
  if (m->head == HEAD_MLP) total += (double)nlabel * 2 * m->head_dim * (D + V);
  return total;
}

const sq_backbone_ops sq_backbone_transformer = {
    .name = "transformer",
    .keys = &keyset,
    .create = transformer_create,
    .destroy = transformer_destroy,
    .flops = transformer_flops,
    .run = sq_transformer_run,
    .logits = sq_transformer_logits,
    .layer = transformer_layer,
};
