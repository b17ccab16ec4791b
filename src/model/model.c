/* src/model/model.c: the registry of backbones, and what all of them share. */
#include "model_impl.h"

#include <string.h>

#define SQ_BACKBONE(id) extern const sq_backbone_ops sq_backbone_##id;
#include "model_list.h"
#undef SQ_BACKBONE

#define SQ_BACKBONE(id) &sq_backbone_##id,
static const sq_backbone_ops *const backbone[] = {
#include "model_list.h"
};
#undef SQ_BACKBONE
enum { NBACKBONE = sizeof backbone / sizeof backbone[0] };

/* "a|b|c", written by sq_model_keysets(): the list stays in one place. */
static char layer_choices[256];

static const sq_key common_keys[] = {
    {"model.layer", SQ_KEY_STRING, NULL, 0, 0, layer_choices, "backbone"},
    {"model.seq_len", SQ_KEY_INT, "null", 1, 1 << 24, NULL, "longest sequence; only parity cases give it"},
};
static const sq_keyset common = {"", common_keys, sizeof common_keys / sizeof common_keys[0], NULL};

static int put(const sq_keyset **set, int cap, int n, const sq_keyset *s)
{
  if (s == NULL) return n;
  for (int i = 0; i < n && i < cap; ++i)
    if (set[i] == s) return n; /* mixers of one family may share their keys */
  if (n < cap) set[n] = s;
  return n + 1;
}

int sq_model_keysets(const sq_keyset **set, int cap)
{
  int n = put(set, cap, 0, &common);

  layer_choices[0] = '\0';
  for (int i = 0; i < NBACKBONE; ++i) {
    const size_t used = strlen(layer_choices);
    sq_format(layer_choices + used, sizeof layer_choices - used, "%s%s", i > 0 ? "|" : "", backbone[i]->name);
    n = put(set, cap, n, backbone[i]->keys);
  }
  for (int i = 0; sq_mixer_at(i) != NULL; ++i) n = put(set, cap, n, sq_mixer_at(i)->keys);
  return n;
}

sq_status sq_model_create(const sq_config *c, sq_model_dims d, sq_model **m)
{
  const char *layer = sq_config_string(c, "model.layer");

  *m = NULL;
  SQ_ASSERT(d.seq_len > 0 && d.max_rows > 0 && d.max_seqs > 0 && d.max_labels >= 0);
  for (int i = 0; i < NBACKBONE; ++i)
    if (strcmp(layer, backbone[i]->name) == 0) return backbone[i]->create(c, d, m);
  return sq_fail(SQ_ERR_USAGE, "model.layer: unknown value \"%s\"", layer);
}

void sq_model_destroy(sq_model **m)
{
  if (*m == NULL) return;
  (*m)->ops->destroy(*m);
  *m = NULL;
}

const sq_param_list *sq_model_params(const sq_model *m)
{
  return &m->params;
}

void sq_model_init(const sq_model *m, uint64_t seed, sq_real *theta)
{
  memset(theta, 0, m->params.total * sizeof *theta);
  for (int k = 0; k < m->params.n; ++k) {
    sq_rng rng;
    sq_rng_init(&rng, seed, SQ_STREAM_INIT, (uint64_t)k);
    m->ops->init(m, &m->params.v[k], &rng, theta);
  }
}

size_t sq_model_work_bytes(const sq_model *m)
{
  return m->work_bytes;
}

double sq_model_flops(const sq_model *m, int nseq, const int *len, long nlabel)
{
  return m->ops->flops(m, nseq, len, nlabel);
}

static void check_shard(const sq_model *m, const sq_batch *shard)
{
  SQ_ASSERT(0 < shard->rows.nseq && shard->rows.nseq <= m->dims.max_seqs);
  SQ_ASSERT(shard->rows.nrow <= m->dims.max_rows);
  SQ_ASSERT(shard->label == NULL || shard->label_per_row == m->dims.label_per_row);
}

void sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                       double scale, void *work, sq_real *dtheta, sq_tally *tally)
{
  sq_pass pass = *p;

  check_shard(m, shard);
  pass.rows = &shard->rows;
  m->ops->run(m, theta, shard, &pass, scale, work, dtheta, tally);
}

static sq_pass evaluation_pass(const sq_model *m, const sq_batch *shard)
{
  return (sq_pass){.rows = &shard->rows, .train = 0, .seq_len = m->dims.seq_len};
}

void sq_model_evaluate(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                       sq_tally *tally)
{
  const sq_pass pass = evaluation_pass(m, shard);

  check_shard(m, shard);
  m->ops->run(m, theta, shard, &pass, 1, work, NULL, tally);
}

void sq_model_logits(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                     sq_real *logits)
{
  const sq_pass pass = evaluation_pass(m, shard);

  check_shard(m, shard);
  SQ_ASSERT(m->dims.all_logits);
  m->ops->logits(m, theta, shard, &pass, work, logits);
}

int sq_model_output_dim(const sq_model *m)
{
  return m->output_dim;
}
int sq_model_nlayer(const sq_model *m)
{
  return m->nlayer;
}
int sq_model_width(const sq_model *m)
{
  return m->width;
}

sq_layer_view sq_model_layer(const sq_model *m, const void *work, int layer)
{
  SQ_ASSERT(0 <= layer && layer < m->nlayer);
  return m->ops->layer(m, work, layer);
}

const sq_mixer *sq_model_mixer(const sq_model *m, int layer)
{
  SQ_ASSERT(0 <= layer && layer < m->nlayer);
  return m->mixer[layer];
}
