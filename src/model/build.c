/* src/model/build.c: making a backbone: its list of tensors with how they start, and its mixers. */
#include <math.h>
#include <stdlib.h>

#include "model_impl.h"

sq_status sq_model_note_rules(sq_model *m, sq_init_rule rule)
{
  const int n = m->params.n;
  sq_init_rule *r = realloc(m->rule, (size_t)n * sizeof *r);

  if (r == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for the list of %d tensors", n);
  m->rule = r;
  for (; m->nrule < n; ++m->nrule) r[m->nrule] = rule;
  return SQ_OK;
}

sq_status sq_model_add_tensor(sq_model *m, size_t *place, const char *prefix, const char *name, int ndim,
                              int rows, int columns, sq_init_rule rule)
{
  *place = sq_param_add(&m->params, 0, ndim, (const int[2]){rows, columns}, "%s.%s", prefix, name);
  return sq_model_note_rules(m, rule);
}

sq_status sq_model_add_linear(sq_model *m, sq_linear_place *l, const char *prefix, int in, int out, int bias)
{
  const sq_init_rule rule = {.kind = SQ_INIT_UNIFORM, .value = 1 / sqrt((double)in)};
  sq_status st;

  *l = (sq_linear_place){.weight = SQ_NOWHERE, .bias = SQ_NOWHERE, .in = in, .out = out};
  SQ_TRY(sq_model_add_tensor(m, &l->weight, prefix, "weight", 2, out, in, rule));
  if (bias) SQ_TRY(sq_model_add_tensor(m, &l->bias, prefix, "bias", 1, out, 1, rule));
done:
  return st;
}

sq_status sq_model_add_norm(sq_model *m, size_t *weight, size_t *bias, const char *prefix)
{
  sq_status st;

  SQ_TRY(sq_model_add_tensor(m, weight, prefix, "weight", 1, m->width, 1,
                             (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = 1}));
  SQ_TRY(sq_model_add_tensor(m, bias, prefix, "bias", 1, m->width, 1,
                             (sq_init_rule){.kind = SQ_INIT_CONSTANT, .value = 0}));
done:
  return st;
}

sq_status sq_model_create_mixers(const sq_config *c, const sq_mixer_ops *ops, sq_model *m)
{
  sq_status st = SQ_OK;

  m->mixer = sq_calloc((size_t)m->nlayer, sizeof *m->mixer, "the model's layers");
  SQ_TRY(m->mixer == NULL ? SQ_ERR_MEMORY : SQ_OK);
  m->start = sq_calloc((size_t)m->nlayer + 1, sizeof *m->start, "the model's layers");
  SQ_TRY(m->start == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (int i = 0; i < m->nlayer; ++i) {
    const sq_mixer_dims dims = {
        .D = m->width, .seq_len = m->dims.seq_len, .max_rows = m->dims.max_rows, .site = 16 * (i + 1)};
    SQ_TRY(ops->create(c, dims, &m->mixer[i]));
  }
done:
  return st;
}

void sq_model_begin_layer(sq_model *m, int layer)
{
  m->start[layer] = m->params.total;
}

sq_status sq_model_add_mixer(sq_model *m, int layer, const char *prefix)
{
  sq_mixer_get(m->mixer[layer])->params(m->mixer[layer], prefix, &m->params);
  return sq_model_note_rules(m, (sq_init_rule){.kind = SQ_INIT_MIXER, .layer = layer});
}

int sq_model_head_rows(const sq_model_dims *d, sq_pooling pooling)
{
  int n = pooling != SQ_POOL_NONE ? d->max_seqs : d->all_logits ? d->max_rows : d->max_labels;

  if (pooling == SQ_POOL_NONE && n > d->max_rows) n = d->max_rows;
  return n < 1 ? 1 : n;
}

void sq_model_release(sq_model *m)
{
  for (int i = 0; m->mixer != NULL && i < m->nlayer; ++i)
    if (m->mixer[i] != NULL) sq_mixer_get(m->mixer[i])->destroy(m->mixer[i]);
  free(m->mixer);
  free(m->start);
  free(m->rule);
  sq_param_clear(&m->params);
}
