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

/* Lists of values of model.layer, "a|b|c", written by sq_model_keysets(): they stay in one place, the registries. */
static char layer_choices[256], ssm_owner[256];

static int is_ssm(const sq_mixer_ops *ops)
{
  return strcmp(ops->backbone, "ssm") == 0;
}

static void add_word(char *list, size_t cap, const char *before, const char *word)
{
  const size_t used = strlen(list);
  sq_format(list + used, cap - used, "%s%s", before, word);
}

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

/* The backbone of the state-space layers has no value of its own: its keys go with any of its mixers. */
static const sq_keyset *ssm_keys(const sq_backbone_ops *b)
{
  static sq_keyset set;

  sq_format(ssm_owner, sizeof ssm_owner, "model.layer=");
  for (int i = 0, n = 0; sq_mixer_at(i) != NULL; ++i)
    if (is_ssm(sq_mixer_at(i)))
      add_word(ssm_owner, sizeof ssm_owner, n++ > 0 ? "|" : "", sq_mixer_at(i)->name);
  set = *b->keys;
  set.owner = ssm_owner;
  return &set;
}

int sq_model_keysets(const sq_keyset **set, int cap)
{
  int n = put(set, cap, 0, &common);

  layer_choices[0] = '\0';
  for (int i = 0; i < NBACKBONE; ++i) {
    const int ssm = strcmp(backbone[i]->name, "ssm") == 0;
    if (!ssm) add_word(layer_choices, sizeof layer_choices, i > 0 ? "|" : "", backbone[i]->name);
    n = put(set, cap, n, ssm ? ssm_keys(backbone[i]) : backbone[i]->keys);
  }
  for (int i = 0; sq_mixer_at(i) != NULL; ++i) {
    if (is_ssm(sq_mixer_at(i))) add_word(layer_choices, sizeof layer_choices, "|", sq_mixer_at(i)->name);
    n = put(set, cap, n, sq_mixer_at(i)->keys);
  }
  return n;
}

static const sq_backbone_ops *find_backbone(const char *layer)
{
  const sq_mixer_ops *mixer = sq_mixer_find(layer);
  const char *name = mixer != NULL && is_ssm(mixer) ? "ssm" : layer;

  for (int i = 0; i < NBACKBONE; ++i)
    if (strcmp(name, backbone[i]->name) == 0) return backbone[i];
  return NULL;
}

sq_status sq_model_create(const sq_config *c, sq_model_dims d, sq_model **m)
{
  const char *layer = sq_config_string(c, "model.layer");
  const sq_backbone_ops *ops = find_backbone(layer);
  sq_status st;

  *m = NULL;
  SQ_ASSERT(d.seq_len > 0 && d.max_rows > 0 && d.max_seqs > 0 && d.max_labels >= 0);
  if (ops == NULL) return sq_fail(SQ_ERR_USAGE, "model.layer: unknown value \"%s\"", layer);
  if (sq_config_bool(c, "model.dual") != d.dual)
    return sq_fail(SQ_ERR_USAGE, "model.dual: %s, but the task gives %s; expected %s",
                   d.dual ? "false" : "true", d.dual ? "pairs of sequences (aan)" : "single sequences",
                   d.dual ? "true" : "false");
  st = ops->create(c, d, m);
  for (int i = 0; st == SQ_OK && i < (*m)->nlayer; ++i) {
    sq_mixer *mixer = (*m)->mixer[i];
    ((struct sq_mixer_head *)(void *)mixer)->derived_at = (*m)->nderived;
    if (sq_mixer_get(mixer)->derived_count != NULL) /* whole cache lines, as the tensors of theta */
      (*m)->nderived += (sq_mixer_get(mixer)->derived_count(mixer) + 15) / 16 * 16;
  }
  return st;
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

static void init_tensor(const sq_model *m, int k, sq_rng *rng, sq_real *theta)
{
  const sq_param *p = &m->params.v[k];
  const sq_init_rule rule = m->rule[k];
  sq_real *x = theta + p->offset;

  switch (rule.kind) {
  case SQ_INIT_UNIFORM: sq_nn_init_uniform(rng, rule.value, p->count, x); break;
  case SQ_INIT_NORMAL: sq_nn_init_normal(rng, rule.value, p->count, x); break;
  case SQ_INIT_CONSTANT: sq_nn_init_constant(rule.value, p->count, x); break;
  case SQ_INIT_LECUN: sq_nn_init_lecun_normal(rng, rule.value, p->count, x); break;
  case SQ_INIT_MIXER: sq_mixer_get(m->mixer[rule.layer])->init(m->mixer[rule.layer], p, rng, theta); break;
  }
}

void sq_model_init(const sq_model *m, uint64_t seed, sq_real *theta)
{
  memset(theta, 0, m->params.total * sizeof *theta);
  for (int k = 0; k < m->params.n; ++k) {
    sq_rng rng;
    sq_rng_init(&rng, seed, SQ_STREAM_INIT, (uint64_t)k);
    init_tensor(m, k, &rng, theta);
  }
}

double sq_model_flops(const sq_model *m, int nseq, const int *len, long nlabel)
{
  return m->ops->flops(m, nseq, len, nlabel);
}

/* ---- derived quantities ------------------------------------------------------------------------------ */
size_t sq_model_nderived(const sq_model *m)
{
  return m->nderived;
}

size_t sq_model_ngradient(const sq_model *m)
{
  return m->params.total + m->nderived;
}

static size_t place_of(const sq_mixer *mixer)
{
  return ((const struct sq_mixer_head *)(const void *)mixer)->derived_at;
}

sq_range sq_model_derived_range(const sq_model *m, int layer)
{
  const sq_mixer *mixer = m->mixer[layer];
  if (sq_mixer_get(mixer)->derived_count == NULL) return (sq_range){0, 0};
  return (sq_range){place_of(mixer), sq_mixer_get(mixer)->derived_count(mixer)};
}

size_t sq_model_layer_start(const sq_model *m, int layer)
{
  return m->start[layer];
}

/* A mixer's tensors follow each other. */
sq_range sq_model_mixer_range(const sq_model *m, int layer)
{
  size_t first = m->params.total, end = 0;
  for (int k = 0; k < m->params.n; ++k) {
    const sq_param *p = &m->params.v[k];
    if (m->rule[k].kind != SQ_INIT_MIXER || m->rule[k].layer != layer) continue;
    if (p->offset < first) first = p->offset;
    if (p->offset + p->count > end) end = p->offset + p->count;
  }
  return end > 0 ? (sq_range){first, end - first} : (sq_range){0, 0};
}

/* 0: none is derived. */
static size_t part_size(const sq_model *m, int layer)
{
  const sq_mixer_ops *ops = sq_mixer_get(m->mixer[layer]);
  return ops->derived_part != NULL ? ops->derived_part(m->mixer[layer])
                                   : sq_model_derived_range(m, layer).count;
}

int sq_model_nparts(const sq_model *m, int layer)
{
  const size_t size = part_size(m, layer);
  return size > 0 ? (int)((sq_model_derived_range(m, layer).count + size - 1) / size) : 0;
}

size_t sq_model_part_start(const sq_model *m, int layer, int part)
{
  const sq_range r = sq_model_derived_range(m, layer);
  const size_t at = (size_t)part * part_size(m, layer);
  return r.first + (at < r.count ? at : r.count);
}

/* A shard's workspace is as large as any mixer's scratch, and free while no pass runs. */
void sq_model_derive_layer(const sq_model *m, int layer, int first, int end, const sq_real *theta,
                           sq_real *derived, void *shard_work)
{
  const sq_mixer *mixer = m->mixer[layer];
  if (sq_mixer_get(mixer)->derive != NULL)
    sq_mixer_get(mixer)->derive(mixer, theta, first, end, derived + place_of(mixer), shard_work);
}

void sq_model_derive(const sq_model *m, const sq_real *theta, sq_real *derived, void *shard_work)
{
  for (int i = 0; i < m->nlayer; ++i)
    sq_model_derive_layer(m, i, 0, sq_model_nparts(m, i), theta, derived, shard_work);
}

void sq_model_derive_layer_back(const sq_model *m, int layer, int first, int end, const sq_real *theta,
                                const sq_real *derived, sq_real *gradient, void *shard_work)
{
  const sq_mixer *mixer = m->mixer[layer];
  const size_t at = place_of(mixer);
  if (sq_mixer_get(mixer)->derive_back != NULL)
    sq_mixer_get(mixer)->derive_back(mixer, theta, first, end, derived + at, gradient + m->params.total + at,
                                     gradient, shard_work);
}

void sq_model_derive_back(const sq_model *m, const sq_real *theta, const sq_real *derived, sq_real *gradient,
                          void *shard_work)
{
  for (int i = 0; i < m->nlayer; ++i)
    sq_model_derive_layer_back(m, i, 0, sq_model_nparts(m, i), theta, derived, gradient, shard_work);
}

/* ---- a batch in shards ------------------------------------------------------------------------------- */
int sq_model_nsync(const sq_model *m)
{
  return m->nsync;
}

int sq_model_nsum(const sq_model *m)
{
  return m->nsum;
}

size_t sq_model_shard_bytes(const sq_model *m)
{
  return m->work_bytes;
}

static void check_shard(const sq_model *m, const sq_batch *shard)
{
  SQ_ASSERT(0 < shard->rows.nseq && shard->rows.nseq <= m->dims.max_seqs);
  SQ_ASSERT(shard->rows.nrow <= m->dims.max_rows);
  SQ_ASSERT(shard->label == NULL || shard->label_per_row == m->dims.label_per_row);
  SQ_ASSERT(shard->label == NULL || !m->dims.dual || shard->dual);
}

void sq_model_segment(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                      double scale, int k, double *sum, void *shard_work, sq_real *dtheta, sq_tally *tally)
{
  sq_pass pass = *p;

  check_shard(m, shard);
  SQ_ASSERT(0 <= k && k <= (p->train && dtheta != NULL ? 2 : 1) * m->nsync);
  SQ_ASSERT(m->nderived == 0 || pass.derived != NULL);
  pass.rows = &shard->rows;
  SQ_ASSERT(pass.wanted == NULL);
  m->ops->run(m, theta, shard, &pass, scale, k, sum, shard_work, dtheta, tally);
}

int sq_model_segment_ranges(const sq_model *m, int k, size_t range[2][2])
{
  if (m->nsync > 0) return m->ops->ranges(m, k, range);
  range[0][0] = 0;
  range[0][1] = sq_model_ngradient(m);
  return 1;
}

void sq_model_statistics(const sq_model *m, int k, const double *sum, sq_real *gradient)
{
  m->ops->statistics(m, k, sum, gradient);
}

/* ---- one shard alone --------------------------------------------------------------------------------- */
typedef struct {
  sq_real *derived, *gradient; /* (nderived), (ngradient): only where something is derived */
  double *sum;                 /* (nsum) */
  void *shard;
} alone;

static alone take_alone(const sq_model *m, sq_arena *a)
{
  alone w = {0};
  if (m->nderived > 0) {
    w.derived = SQ_TAKE(a, m->nderived, sq_real);
    w.gradient = SQ_TAKE(a, sq_model_ngradient(m), sq_real);
  }
  w.sum = SQ_TAKE(a, (size_t)m->nsum, double);
  w.shard = sq_arena_take(a, m->work_bytes, 1);
  return w;
}

size_t sq_model_work_bytes(const sq_model *m)
{
  sq_arena count = {0};
  take_alone(m, &count);
  return count.used;
}

static alone alone_in(const sq_model *m, void *work)
{
  sq_arena a = {.base = work, .cap = sq_model_work_bytes(m)};
  return take_alone(m, &a);
}

void *sq_model_shard_work(const sq_model *m, void *work)
{
  return alone_in(m, work).shard;
}

/* p, or evaluation mode; derived quantities made. */
static sq_pass begin(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     const alone *w)
{
  sq_pass pass = p != NULL ? *p : (sq_pass){.train = 0, .seq_len = m->dims.seq_len};
  check_shard(m, shard);
  pass.rows = &shard->rows;
  pass.derived = w->derived;
  sq_model_derive(m, theta, w->derived, w->shard);
  return pass;
}

void sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                       double scale, void *work, sq_real *dtheta, sq_tally *tally)
{
  const alone w = alone_in(m, work);
  sq_pass pass = begin(m, theta, shard, p, &w);
  const int last = pass.train ? 2 * m->nsync : 0;
  sq_real *g = m->nderived > 0 ? w.gradient : dtheta;

  if (m->nderived > 0) {
    memset(g, 0, sq_model_ngradient(m) * sizeof *g);
    pass.dderived = g + m->params.total;
  }
  for (int k = 0; k <= last; ++k) {
    sq_model_segment(m, theta, shard, &pass, scale, k, w.sum, w.shard, g, tally);
    if (k < m->nsync && pass.train) sq_model_statistics(m, k, w.sum, g);
  }
  if (m->nderived == 0) return;
  sq_model_derive_back(m, theta, w.derived, g, w.shard);
  for (size_t i = 0; i < m->params.total; ++i) dtheta[i] += g[i];
}

void sq_model_loss(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                   void *work, sq_tally *tally)
{
  const alone w = alone_in(m, work);
  sq_pass pass = begin(m, theta, shard, p, &w);
  const int last = pass.train ? m->nsync : 0;

  pass.all_rows = 1; /* sq_model_layer() may follow */
  for (int k = 0; k <= last; ++k) sq_model_segment(m, theta, shard, &pass, 1, k, w.sum, w.shard, NULL, tally);
}

void sq_model_evaluate(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                       sq_tally *tally)
{
  sq_model_loss(m, theta, shard, NULL, work, tally);
}

void sq_model_logits(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     void *work, sq_real *logits)
{
  const alone w = alone_in(m, work);
  const sq_pass pass = begin(m, theta, shard, p, &w);

  SQ_ASSERT(m->dims.all_logits);
  m->ops->logits(m, theta, shard, &pass, w.shard, logits);
}

int sq_model_output_dim(const sq_model *m)
{
  return m->output_dim;
}
int sq_model_log_probabilities(const sq_model *m)
{
  return m->log_probabilities;
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
  const char *shard = (const char *)work + (sq_model_work_bytes(m) - m->work_bytes); /* its last piece */
  return m->ops->layer(m, shard, layer);
}

const sq_mixer *sq_model_mixer(const sq_model *m, int layer)
{
  SQ_ASSERT(0 <= layer && layer < m->nlayer);
  return m->mixer[layer];
}
