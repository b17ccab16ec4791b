/* src/model/mamba.c: keys, parameters, workspace and cost of the Mamba-2 family. */
#include "mamba.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- configuration ----------------------------------------------------------------------------------- */

static const sq_key keys[] = {
    {"model.input_dim", SQ_KEY_INT, "1", 1, 1 << 20, NULL, "width of real inputs (token_embedding: false)"},
    {"model.output_dim", SQ_KEY_INT, NULL, 1, 1 << 24, NULL, "classes"},
    {"model.num_layers", SQ_KEY_INT, NULL, 1, 1024, NULL, "blocks"},
    {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 1 << 16, NULL, "width D"},
    {"model.token_embedding", SQ_KEY_BOOL, "true", 0, 0, NULL,
     "inputs are tokens; else real numbers through a linear layer"},
    {"model.vocab_size", SQ_KEY_INT, "null", 1, 1 << 24, NULL, "tokens (token_embedding: true)"},
    {"model.glu", SQ_KEY_BOOL, NULL, 0, 0, NULL, "gated linear unit behind the GELU of a block"},
    {"model.prenorm", SQ_KEY_BOOL, NULL, 0, 0, NULL, "normalise a block's input; else its output"},
    {"model.pooling", SQ_KEY_STRING, "\"mean\"", 0, 0, "mean|max|last|none",
     "one output a sequence from these steps; none: an output at each step"},
    {"model.dual", SQ_KEY_BOOL, "false", 0, 0, NULL, "one output for a pair of sequences (task aan)"},
    {"model.norm", SQ_KEY_STRING, "\"layer\"", 0, 0, "layer", "normalisation"},
    {"model.dropout", SQ_KEY_REAL, "0", 0, 0.999, NULL, "dropout rate behind the GELU and behind the GLU"},
};

static sq_pooling pooling_of(const sq_config *c)
{
  const char *name = sq_config_string(c, "model.pooling");
  return strcmp(name, "mean") == 0   ? SQ_POOL_MEAN
         : strcmp(name, "max") == 0  ? SQ_POOL_MAX
         : strcmp(name, "last") == 0 ? SQ_POOL_LAST
                                     : SQ_POOL_NONE;
}

static sq_status check(const sq_config *c)
{
  if (sq_config_bool(c, "model.token_embedding") && !sq_config_has(c, "model.vocab_size"))
    return sq_fail(SQ_ERR_USAGE,
                   "model.vocab_size: required with model.token_embedding true (number of tokens)");
  return SQ_OK;
}

static const sq_keyset keyset = {"model.layer=mamba", keys, sizeof keys / sizeof keys[0], check};

/* Conditions that involve the task's shapes. */
static sq_status check_dims(const sq_config *c, const sq_model_dims *d)
{
  const int pooled = pooling_of(c) != SQ_POOL_NONE;

  if (d->label_per_row && pooled)
    return sq_fail(SQ_ERR_USAGE,
                   "model.pooling: \"%s\" gives one output a sequence, but the task labels each step; set "
                   "model.pooling to none",
                   sq_config_string(c, "model.pooling"));
  if (!d->label_per_row && !pooled)
    return sq_fail(SQ_ERR_USAGE,
                   "model.pooling: \"none\" gives an output at each step, but the task has one label a "
                   "sequence; expected mean, max or last");
  return SQ_OK;
}

/* ---- parameters -------------------------------------------------------------------------------------- */

static sq_status add_encoder(mamba *m)
{
  const int D = m->base.width;

  if (m->vocab == 0) return sq_model_add_linear(&m->base, &m->input, "encoder", m->input_dim, D, 1);
  return sq_model_add_tensor(&m->base, &m->word, "encoder", "word_embeddings.weight", 2, m->vocab, D,
                             (sq_init_rule){.kind = SQ_INIT_NORMAL, .value = 1});
}

static sq_status add_block(mamba *m, int i)
{
  mamba_block *b = &m->block[i];
  char name[SQ_PARAM_NAME];
  sq_status st;

  sq_format(name, sizeof name, "blocks.%d.mamba", i);
  SQ_TRY(sq_model_add_mixer(&m->base, i, name));
  sq_format(name, sizeof name, "blocks.%d.glu.linear", i);
  if (m->glu) SQ_TRY(sq_model_add_linear(&m->base, &b->glu, name, m->base.width, 2 * m->base.width, 1));
  sq_format(name, sizeof name, "blocks.%d.norm", i);
  SQ_TRY(sq_model_add_norm(&m->base, &b->norm_weight, &b->norm_bias, name));
done:
  return st;
}

/* ---- creation ---------------------------------------------------------------------------------------- */

static void mamba_destroy(sq_model *model)
{
  mamba *m = (mamba *)(void *)model;

  free(m->block);
  sq_model_release(model);
  free(m);
}

static void read_config(const sq_config *c, mamba *m)
{
  m->base.width = sq_config_int(c, "model.hidden_dim");
  m->base.nlayer = sq_config_int(c, "model.num_layers");
  m->base.output_dim = sq_config_int(c, "model.output_dim");
  m->input_dim = sq_config_int(c, "model.input_dim");
  m->vocab = sq_config_bool(c, "model.token_embedding") ? sq_config_int(c, "model.vocab_size") : 0;
  m->glu = sq_config_bool(c, "model.glu");
  m->prenorm = sq_config_bool(c, "model.prenorm");
  m->dropout = sq_config_real(c, "model.dropout");
  m->pooling = pooling_of(c);
  m->max_head_rows = sq_model_head_rows(&m->base.dims, m->pooling);
}

extern const sq_backbone_ops sq_backbone_mamba;

static sq_status mamba_create(const sq_config *c, sq_model_dims d, sq_model **out)
{
  const sq_mixer_ops *ops = sq_mixer_find(sq_config_bool(c, "model.pseudoLTI") ? "mamba2-lti" : "mamba2");
  mamba *m = NULL;
  sq_arena count = {0};
  mamba_work w;
  sq_status st;

  SQ_ASSERT(ops != NULL);
  SQ_TRY(check_dims(c, &d));
  m = sq_calloc(1, sizeof *m, "the model");
  SQ_TRY(m == NULL ? SQ_ERR_MEMORY : SQ_OK);
  m->base.ops = &sq_backbone_mamba;
  m->base.dims = d;
  read_config(c, m);
  m->block = sq_calloc((size_t)m->base.nlayer, sizeof *m->block, "the model's layers");
  SQ_TRY(m->block == NULL ? SQ_ERR_MEMORY : SQ_OK);
  SQ_TRY(sq_model_create_mixers(c, ops, &m->base));
  SQ_TRY(add_encoder(m));
  for (int i = 0; i < m->base.nlayer; ++i) {
    sq_model_begin_layer(&m->base, i);
    SQ_TRY(add_block(m, i));
  }
  sq_model_begin_layer(&m->base, m->base.nlayer);
  SQ_TRY(d.dual
             ? sq_match_add(&m->base, &m->match, m->base.width)
             : sq_model_add_linear(&m->base, &m->decoder, "decoder", m->base.width, m->base.output_dim, 1));
  sq_mamba_take(m, &count, &w);
  m->base.work_bytes = count.used;
done:
  *out = st == SQ_OK ? &m->base : NULL;
  if (st != SQ_OK && m != NULL) mamba_destroy(&m->base);
  return st;
}

/* ---- workspace --------------------------------------------------------------------------------------- */

void sq_mamba_take(const mamba *m, sq_arena *a, mamba_work *w)
{
  const size_t R = (size_t)m->base.dims.max_rows, D = (size_t)m->base.width;
  const size_t n = (size_t)m->max_head_rows;
  size_t scratch = 0;

  w->layer = SQ_TAKE(a, m->base.nlayer, mamba_layer_work);
  for (int i = 0; i < m->base.nlayer; ++i) {
    const sq_mixer *mixer = m->base.mixer[i];
    const size_t bytes = sq_mixer_get(mixer)->scratch_bytes(mixer);
    mamba_layer_work l = {0};
    l.x = SQ_TAKE(a, R * D, sq_real);
    l.u = m->prenorm ? SQ_TAKE(a, R * D, sq_real) : l.x;
    l.s = SQ_TAKE(a, R * D, sq_real);
    if (m->glu) l.a = SQ_TAKE(a, R * 2 * D, sq_real);
    l.mean = SQ_TAKE(a, R, sq_real);
    l.rstd = SQ_TAKE(a, R, sq_real);
    l.tape = sq_arena_take(a, sq_mixer_get(mixer)->tape_bytes(mixer), 1);
    if (w->layer != NULL) w->layer[i] = l;
    scratch = bytes > scratch ? bytes : scratch;
  }
  w->last = SQ_TAKE(a, R * D, sq_real);
  w->g = SQ_TAKE(a, R * D, sq_real);
  w->r = SQ_TAKE(a, R * D, sq_real);
  w->t = SQ_TAKE(a, R * D, sq_real);
  w->da = m->glu ? SQ_TAKE(a, R * 2 * D, sq_real) : NULL;
  w->scratch = sq_arena_take(a, scratch, 1);
  w->xw = SQ_TAKE(a, n * D, sq_real);
  sq_labelled_take(a, &m->base.dims, m->max_head_rows, &w->labelled);
  w->argmax = m->pooling == SQ_POOL_MAX ? SQ_TAKE(a, n * D, int) : NULL;
  w->hx = SQ_TAKE(a, n * D, sq_real);
  w->dhx = SQ_TAKE(a, n * D, sq_real);
  w->xent = SQ_TAKE(a, sq_nn_xent_head_scratch((int)n, m->base.output_dim), sq_real);
  if (m->base.dims.dual) sq_match_take(&m->match, m->max_head_rows / 2, a, &w->match);
}

static sq_layer_view mamba_layer(const sq_model *model, const void *work, int i)
{
  const mamba *m = (const mamba *)(const void *)model;
  sq_arena a = {.base = (unsigned char *)(uintptr_t)work,
                .cap = model->work_bytes}; /* only read through the view */
  mamba_work w;

  sq_mamba_take(m, &a, &w);
  const mamba_layer_work *l = &w.layer[i];
  return (sq_layer_view){.mixer = model->mixer[i],
                         .tape = l->tape,
                         .block_in = l->x,
                         .mixer_in = l->u,
                         .mixer_out = l->s,
                         .block_out = i + 1 < model->nlayer ? w.layer[i + 1].x : w.last};
}

/* ---- cost -------------------------------------------------------------------------------------------- */

/* Matrix products only: what is elementwise is a few percent. */
static double mamba_flops(const sq_model *model, int nseq, const int *len, long nlabel)
{
  const mamba *m = (const mamba *)(const void *)model;
  const double D = model->width;
  double rows = 0, few, total;

  for (int b = 0; b < nseq; ++b) rows += len[b];
  few = sq_labelled_rows(model, rows, nlabel);
  total = m->glu ? (rows * (model->nlayer - 1) + few) * 4 * D * D : 0;
  for (int i = 0; i < model->nlayer; ++i)
    total += sq_labelled_mix_flops(model->mixer[i], nseq, len, rows, i + 1 < model->nlayer ? rows : few);
  if (m->vocab == 0) total += rows * 2 * m->input_dim * D;
  if (model->dims.dual) return total + (double)nlabel * sq_match_flops(&m->match);
  return total + (double)nlabel * 2 * D * model->output_dim;
}

const sq_backbone_ops sq_backbone_mamba = {
    .name = "mamba",
    .keys = &keyset,
    .create = mamba_create,
    .destroy = mamba_destroy,
    .flops = mamba_flops,
    .run = sq_mamba_run,
    .logits = sq_mamba_logits,
    .layer = mamba_layer,
};
