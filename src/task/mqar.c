/* src/task/mqar.c: multi-query associative recall.  Arora et al. 2023, arXiv:2312.04927, made on the fly.
 *
 *   k1 v1 k2 v2 ... kK vK | space = (T - 2K)/2 slots of two tokens
 *
 * Keys are 1..V/2-1, values V/2..V-1, all distinct.  Pair i owns gap g_i, 0 <= g_i < space: position 2K + 2
 * g_i holds k_i again, and its label is v_i.  Gaps are drawn one after the other without replacement from the
 * weights a (g+1)^(a-1), renormalised each time, so early pairs tend to the small gaps.  Everything else is
 * filler.
 *
 * An example is a function of (seed, split, index) alone and costs O(K log space + T), whatever V. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mqar_impl.h"
#include "sq/base.h"
#include "sq/rng.h"

typedef struct {
  struct sq_task base;
  mqar_params p;
  sq_task_info info;
  int space;
  uint64_t *tree; /* (space+1) Fenwick tree of the gap weights, 1-based */
  uint64_t total;
} mqar;

static const sq_key mqar_key[] = {
    {"dataset.vocab_size", SQ_KEY_INT, "8192", 4, 1 << 24, NULL, "tokens: half keys, half values"},
    {"dataset.input_seq_length", SQ_KEY_INT, NULL, 4, MQAR_MAX_T, NULL, "steps, even, >= 4 num_kv_pairs"},
    {"dataset.num_kv_pairs", SQ_KEY_INT, NULL, 1, MQAR_MAX_T / 4, NULL, "pairs to remember"},
    {"dataset.num_train", SQ_KEY_INT, "100000", 1, 1e9, NULL, "training examples"},
    {"dataset.num_valid", SQ_KEY_INT, "3000", 1, 1e9, NULL, "validation examples"},
    {"dataset.num_test", SQ_KEY_INT, "3000", 1, 1e9, NULL, "test examples"},
    {"dataset.power_a", SQ_KEY_REAL, "0.01", 1e-4, 2, NULL, "gap weights a (g+1)^(a-1); 1 is uniform"},
    {"dataset.filler", SQ_KEY_STRING, "\"published\"", 0, 0, "published|unused",
     "other tokens: any, or none that is a key or value of the sequence"},
};

static sq_status mqar_check(const sq_config *c)
{
  const int V = sq_config_int(c, "dataset.vocab_size"), T = sq_config_int(c, "dataset.input_seq_length"),
            K = sq_config_int(c, "dataset.num_kv_pairs");
  if (T % 2 != 0)
    return sq_fail(SQ_ERR_USAGE, "dataset.input_seq_length: %d is odd; expected an even number", T);
  if (T < 4 * K)
    return sq_fail(SQ_ERR_USAGE,
                   "dataset.input_seq_length: %d is too short for num_kv_pairs %d; expected at least %d", T,
                   K, 4 * K);
  if (V / 2 - 1 < K)
    return sq_fail(SQ_ERR_USAGE,
                   "dataset.vocab_size: %d has %d keys, num_kv_pairs is %d; expected at least %d", V,
                   V / 2 - 1, K, 2 * K + 2);
  return SQ_OK;
}

static const sq_keyset mqar_keys = {"dataset._name_=mqar", mqar_key, sizeof mqar_key / sizeof *mqar_key,
                                    mqar_check};

/* ---- random pieces ----------------------------------------------------------------------------------- */

/* The swapped entries of an array 0, 1, 2, ... that is never written out.  Open addressing, at most half
 * full. */
typedef struct {
  uint32_t mask;
  struct {
    int32_t at, value; /* at < 0: free */
  } slot[MQAR_MAX_T / 2];
} sparse;

static void sparse_clear(sparse *s, int K)
{
  uint32_t n = 2;
  while (n < 2 * (uint32_t)K) n *= 2;
  s->mask = n - 1;
  memset(s->slot, 0xff, n * sizeof *s->slot);
}

static uint32_t sparse_find(const sparse *s, int at)
{
  uint32_t h = ((uint32_t)at * UINT32_C(2654435769)) >> 16 & s->mask;
  while (s->slot[h].at >= 0 && s->slot[h].at != at) h = (h + 1) & s->mask;
  return h;
}

/* K of first..first+n-1 in random order, without replacement: the first K steps of a Fisher-Yates shuffle. */
static void draw_distinct(sq_rng *rng, int first, int n, int K, int32_t *out, sparse *s)
{
  sparse_clear(s, K);
  for (int i = 0; i < K; ++i) {
    const int j = i + (int)sq_rng_below(rng, (uint32_t)(n - i));
    const uint32_t hi = sparse_find(s, i), hj = sparse_find(s, j);
    const int32_t vi = s->slot[hi].at == i ? s->slot[hi].value : i;
    out[i] = first + (s->slot[hj].at == j ? s->slot[hj].value : j);
    s->slot[hj].at = j;
    s->slot[hj].value = vi;
  }
}

static uint64_t below64(sq_rng *rng, uint64_t n)
{
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  uint64_t x;
  do {
    x = (uint64_t)sq_rng_u32(rng) << 32;
    x |= sq_rng_u32(rng);
  } while (x >= limit);
  return x % n;
}

/* Gap whose part of the cumulated weights holds r; takes its weight out of the tree. */
static int take_gap(uint64_t *tree, int space, uint64_t r, uint64_t *weight)
{
  uint64_t left = r;
  int at = 0, step = 1;
  while (2 * step <= space) step *= 2;
  for (; step > 0; step /= 2)
    if (at + step <= space && tree[at + step] <= left) {
      at += step;
      left -= tree[at];
    }
  /* Element at+1 (1-based): its node minus the nodes below it. */
  const int e = at + 1;
  uint64_t w = tree[e];
  for (int k = e - 1; k > e - (e & -e); k -= k & -k) w -= tree[k];
  for (int k = e; k <= space; k += k & -k) tree[k] -= w;
  *weight = w;
  return at;
}

static void draw_gaps(const mqar *m, sq_rng *rng, int32_t *gap)
{
  uint64_t tree[MQAR_MAX_T / 2 + 1], total = m->total, w;
  memcpy(tree, m->tree, ((size_t)m->space + 1) * sizeof *tree);
  for (int i = 0; i < m->p.K; ++i) {
    gap[i] = take_gap(tree, m->space, below64(rng, total), &w);
    total -= w;
  }
}

/* Shell's sort, gaps 3h+1: no allocation, and K is small. */
static void sort_tokens(int32_t *x, int n)
{
  int h = 1;
  while (h < n / 3) h = 3 * h + 1;
  for (; h > 0; h /= 3)
    for (int i = h; i < n; ++i) {
      const int32_t v = x[i];
      int j = i;
      for (; j >= h && x[j - h] > v; j -= h) x[j] = x[j - h];
      x[j] = v;
    }
}

/* The r-th (from 0) token that is not in used[0..n-1], ascending: below used[j] lie used[j] - j unused ones.
   Halving without a branch that could be mispredicted; it is done for every filler token. */
static int32_t unused_token(const int32_t *used, int n, int32_t r)
{
  int lo = 0;
  for (int half; n > 1; n -= half) {
    half = n / 2;
    lo += used[lo + half - 1] - (lo + half - 1) <= r ? half : 0;
  }
  return r + lo + (used[lo] - lo <= r);
}

/* Fills every position from 2K on that is still 0. */
static void fill_rest(const mqar *m, sq_rng *rng, int32_t *token)
{
  const int V = m->p.V, T = m->p.T, K = m->p.K;
  int32_t used[MQAR_MAX_T / 2];
  if (!m->p.unused_filler) {
    for (int i = 2 * K; i < T; ++i)
      if (token[i] == 0) token[i] = (int32_t)sq_rng_below(rng, (uint32_t)V);
    return;
  }
  memcpy(used, token, 2 * (size_t)K * sizeof *used);
  sort_tokens(used, 2 * K);
  for (int i = 2 * K; i < T; ++i)
    if (token[i] == 0)
      token[i] = unused_token(used, 2 * K, (int32_t)sq_rng_below(rng, (uint32_t)(V - 2 * K)));
}

/* ---- the task ---------------------------------------------------------------------------------------- */

static void mqar_example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const mqar *m = (const mqar *)t;
  const int V = m->p.V, T = m->p.T, K = m->p.K;
  const uint64_t own = (uint64_t)i + ((uint64_t)split << 32);
  const int borrow = m->p.published_keys && split == SQ_TEST && i < m->p.size[SQ_TRAIN];
  int32_t key[MQAR_MAX_T / 4], value[MQAR_MAX_T / 4], gap[MQAR_MAX_T / 4];
  sparse s;
  sq_rng rng;

  sq_rng_init(&rng, m->p.seed, SQ_STREAM_MQAR_KEYS, borrow ? (uint64_t)i + ((uint64_t)SQ_TRAIN << 32) : own);
  draw_distinct(&rng, 1, V / 2 - 1, K, key, &s);
  sq_rng_init(&rng, m->p.seed, SQ_STREAM_MQAR_REST, own);
  draw_distinct(&rng, V / 2, V - V / 2, K, value, &s);
  draw_gaps(m, &rng, gap);

  memset(token, 0, (size_t)T * sizeof *token);
  for (int r = 0; r < T; ++r) label[r] = SQ_IGNORE;
  for (int k = 0; k < K; ++k) {
    const int at = 2 * K + 2 * gap[k];
    token[2 * k] = key[k];
    token[2 * k + 1] = value[k];
    token[at] = key[k];
    label[at] = value[k];
  }
  fill_rest(m, &rng, token);
}

static int mqar_length(const sq_task *t, sq_split split, size_t i)
{
  (void)split;
  (void)i;
  return ((const mqar *)t)->p.T;
}

static const sq_task_info *mqar_info(const sq_task *t)
{
  return &((const mqar *)t)->info;
}

static void mqar_close(sq_task *t)
{
  if (t != NULL) free(((mqar *)t)->tree);
  free(t);
}

/* Weights as integers, the largest 2^40: sums and differences are exact, so an emptied gap is never drawn
   again, and a last bit of the C library's pow() does not change a draw.  space 2^40 < 2^55. */
static void plant_weights(mqar *m)
{
  const double first = m->p.a <= 1 ? 1 : pow(m->space, m->p.a - 1);
  for (int g = 0; g < m->space; ++g) {
    const uint64_t w = (uint64_t)llround(ldexp(pow(g + 1, m->p.a - 1) / first, 40));
    m->total += w;
    for (int k = g + 1; k <= m->space; k += k & -k) m->tree[k] += w;
  }
}

static void fill_info(const mqar_params *p, sq_task_info *info)
{
  *info = (sq_task_info){.seq_len = p->T,
                         .vocab_size = p->V,
                         .nclass = p->V,
                         .label_per_row = 1,
                         .max_labels = p->K,
                         .size = {p->size[0], p->size[1], p->size[2]},
                         .metric = "accuracy"};
}

sq_status sq_mqar_create(const mqar_params *p, sq_task **t)
{
  mqar *m = sq_calloc(1, sizeof *m, "task mqar");
  *t = NULL;
  if (m == NULL) return SQ_ERR_MEMORY;
  SQ_ASSERT(p->T <= MQAR_MAX_T && p->T % 2 == 0 && p->K >= 1 && 4 * p->K <= p->T && p->V / 2 - 1 >= p->K);
  m->base.ops = sq_task_find("mqar");
  m->p = *p;
  m->space = (p->T - 2 * p->K) / 2;
  m->tree = sq_calloc((size_t)m->space + 1, sizeof *m->tree, "task mqar: gap weights");
  if (m->tree == NULL) {
    free(m);
    return SQ_ERR_MEMORY;
  }
  fill_info(p, &m->info);
  plant_weights(m);
  *t = &m->base;
  return SQ_OK;
}

static mqar_params params_of(const sq_config *c)
{
  mqar_params p = {.seed = (uint64_t)sq_config_int(c, "seed"),
                   .V = sq_config_int(c, "dataset.vocab_size"),
                   .T = sq_config_int(c, "dataset.input_seq_length"),
                   .K = sq_config_int(c, "dataset.num_kv_pairs"),
                   .a = sq_config_real(c, "dataset.power_a"),
                   .size = {(size_t)sq_config_int(c, "dataset.num_train"),
                            (size_t)sq_config_int(c, "dataset.num_valid"),
                            (size_t)sq_config_int(c, "dataset.num_test")}};
  p.unused_filler = strcmp(sq_config_string(c, "dataset.filler"), "unused") == 0;
  p.published_keys =
      sq_config_has(c, "train.recipe") && strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
  return p;
}

static sq_status mqar_open(const sq_config *c, sq_task **t)
{
  const mqar_params p = params_of(c);
  return sq_mqar_create(&p, t);
}

static sq_status mqar_shape(const sq_config *c, sq_task_info *info)
{
  const mqar_params p = params_of(c);
  fill_info(&p, info);
  return SQ_OK;
}

const sq_task_ops sq_task_mqar = {.name = "mqar",
                                  .keys = &mqar_keys,
                                  .open = mqar_open,
                                  .close = mqar_close,
                                  .info = mqar_info,
                                  .shape = mqar_shape,
                                  .length = mqar_length,
                                  .example = mqar_example,
                                  .about =
                                      "Multi-query associative recall: pairs of key and value, then keys "
                                      "again; accuracy.\nMade while training, no files.\n"};
