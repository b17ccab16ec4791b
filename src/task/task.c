/* src/task/task.c: the registry, batches, and the check that splits are disjoint. */
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/parallel.h"
#include "task_impl.h"

#define SQ_TASK(name) extern const sq_task_ops sq_task_##name;
#include "task_list.h"
#undef SQ_TASK

static const sq_task_ops *const registry[] = {
#define SQ_TASK(name) &sq_task_##name,
#include "task_list.h"
#undef SQ_TASK
    NULL};

/* "|a|b": the choices are what follows the first bar. */
#define SQ_TASK(name) "|" #name
static const char choices[] =
#include "task_list.h"
    ;
#undef SQ_TASK

static const sq_key common_key[] = {
    {"dataset._name_", SQ_KEY_STRING, NULL, 0, 0, &choices[1], "task"},
    {"dataset.data_dir", SQ_KEY_STRING, "null", 0, 0, NULL,
     "folder of the data files; else $SEQSPECTRA_DATA, else ./data"},
};
static const sq_keyset common = {"", common_key, sizeof common_key / sizeof *common_key, NULL};

int sq_task_keysets(const sq_keyset **set, int cap)
{
  int n = 0;
  SQ_ASSERT(cap >= (int)(sizeof registry / sizeof *registry));
  set[n++] = &common;
  for (int i = 0; registry[i] != NULL; ++i) set[n++] = registry[i]->keys;
  return n;
}

const sq_task_ops *sq_task_at(int i)
{
  const int n = (int)(sizeof registry / sizeof *registry) - 1;
  return i >= 0 && i < n ? registry[i] : NULL;
}

const sq_task_ops *sq_task_find(const char *name)
{
  for (int i = 0; registry[i] != NULL; ++i)
    if (strcmp(registry[i]->name, name) == 0) return registry[i];
  return NULL;
}

static sq_status find_of(const sq_config *c, const sq_task_ops **ops)
{
  const char *name = sq_config_string(c, "dataset._name_");
  *ops = sq_task_find(name);
  if (*ops == NULL)
    return sq_fail(SQ_ERR_USAGE, "dataset._name_: no task \"%s\"; expected one of %s", name, &choices[1]);
  return SQ_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------- */

static void *alone_allocate(void *user, size_t bytes)
{
  (void)user;
  return aligned_alloc(64, (bytes + 64) / 64 * 64); /* of no bytes too */
}

static void alone_release(void *user, void *memory)
{
  (void)user;
  free(memory);
}

static sq_status alone_agree(void *user, sq_status st)
{
  (void)user;
  return st;
}

static sq_status load(const sq_task_ops *ops, const sq_config *c, sq_task_block *b)
{
  const sq_readers alone = {
      .size = 1, .allocate = alone_allocate, .release = alone_release, .agree = alone_agree};
  sq_status st = SQ_OK;
  if (ops->load != NULL) return ops->load(c, b);
  if (ops->load_together == NULL) return st;
  SQ_TRY(ops->load_together(c, &alone, b));
  if (b->data == NULL) st = sq_fail(SQ_ERR_MEMORY, "task %s: no memory for its data", ops->name);
  b->owned = 1;
done:
  return st;
}

sq_status sq_task_open(const sq_config *c, sq_task **t)
{
  const sq_task_ops *ops;
  sq_status st;

  sq_task_block b = {0};

  *t = NULL;
  SQ_TRY(find_of(c, &ops));
  SQ_TRY(load(ops, c, &b));
  SQ_TRY(b.data != NULL ? ops->open_block(c, &b, t) : ops->open(c, t));
done:
  sq_task_block_free(&b);
  return st;
}

static const sq_task_ops *ops_of(const sq_config *c)
{
  return sq_task_find(sq_config_string(c, "dataset._name_"));
}

int sq_task_has_block(const sq_config *c)
{
  return ops_of(c)->open_block != NULL;
}

int sq_task_loads_together(const sq_config *c)
{
  return ops_of(c)->load_together != NULL;
}

sq_status sq_task_load(const sq_config *c, sq_task_block *b)
{
  const sq_task_ops *ops;
  sq_status st;

  *b = (sq_task_block){0};
  SQ_TRY(find_of(c, &ops));
  SQ_TRY(load(ops, c, b));
done:
  return st;
}

sq_status sq_task_load_together(const sq_config *c, const sq_readers *r, sq_task_block *b)
{
  *b = (sq_task_block){0};
  return ops_of(c)->load_together(c, r, b);
}

sq_status sq_task_open_block(const sq_config *c, const sq_task_block *b, sq_task **t)
{
  sq_task_block borrowed = {.data = b->data, .bytes = b->bytes};
  const sq_task_ops *ops;
  sq_status st;

  *t = NULL;
  SQ_TRY(find_of(c, &ops));
  SQ_ASSERT(ops->open_block != NULL && b->data != NULL);
  SQ_TRY(ops->open_block(c, &borrowed, t));
done:
  return st;
}

void sq_task_close(sq_task **t)
{
  if (t == NULL || *t == NULL) return;
  (*t)->ops->close(*t);
  *t = NULL;
}

const sq_task_info *sq_task_describe(const sq_task *t)
{
  return t->ops->info(t);
}

sq_status sq_task_shape(const sq_config *c, sq_task_info *info)
{
  const sq_task_ops *ops;
  sq_status st;

  SQ_TRY(find_of(c, &ops));
  SQ_TRY(ops->shape(c, info));
done:
  return st;
}

/* ---- disjoint splits --------------------------------------------------------------------------------- */

static const char *const split_name[SQ_NSPLIT] = {"training", "validation", "test"};

typedef struct {
  uint64_t hash;
  size_t index;
  sq_split split;
} place;

static int place_order(const void *pa, const void *pb)
{
  const place *a = pa, *b = pb;
  if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
  if (a->split != b->split) return a->split < b->split ? -1 : 1;
  return a->index < b->index ? -1 : a->index > b->index;
}

/* A multiply and a shift for each token: enough to spread; equal hashes are compared token by token. */
static uint64_t hash_tokens(const int32_t *token, int n)
{
  uint64_t h = SQ_HASH_START ^ (uint64_t)n;
  for (int i = 0; i < n; ++i) {
    h = (h ^ (uint32_t)token[i]) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 29;
  }
  return h;
}

static int same_input(const sq_task *t, const place *a, const place *b, int32_t *token[2], int32_t *label)
{
  const int n = t->ops->length(t, a->split, a->index);
  if (t->ops->length(t, b->split, b->index) != n) return 0;
  t->ops->example(t, a->split, a->index, token[0], label);
  t->ops->example(t, b->split, b->index, token[1], label);
  return memcmp(token[0], token[1], (size_t)n * sizeof *token[0]) == 0;
}

static void hash_all(const sq_task *t, place *p, int32_t *token, int32_t *label)
{
  const sq_task_info *info = t->ops->info(t);
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (size_t i = 0; i < info->size[s]; ++i) {
      t->ops->example(t, (sq_split)s, i, token, label);
      *p++ = (place){hash_tokens(token, t->ops->length(t, (sq_split)s, i)), i, (sq_split)s};
    }
}

typedef struct {
  size_t within, across; /* examples whose input an earlier one has, in the same split or in another */
  place first[2];
} repeats;

static repeats count_repeats(const sq_task *t, const place *p, size_t n, int32_t *token[2], int32_t *label)
{
  repeats r = {0};
  for (size_t j = 1; j < n; ++j)
    for (size_t i = j; i-- > 0 && p[i].hash == p[j].hash;)
      if (same_input(t, &p[i], &p[j], token, label)) {
        if (r.within + r.across == 0) {
          r.first[0] = p[i];
          r.first[1] = p[j];
        }
        if (p[i].split == p[j].split)
          r.within++;
        else
          r.across++;
        break;
      }
  return r;
}

static void describe(const repeats *r, char out[256])
{
  sq_format(out, 256,
            "%zu example%s the input of another one of their split, %zu of another split; the first: %s "
            "example %zu and %s example %zu",
            r->within, r->within == 1 ? " has" : "s have", r->across, split_name[r->first[0].split],
            r->first[0].index, split_name[r->first[1].split], r->first[1].index);
}

static sq_status refuse_repeats(const sq_task *t, const repeats *r)
{
  if (r->within + r->across == 0) return SQ_OK;
  return sq_fail(SQ_ERR_DATA,
                 "task %s: %s example %zu has the same input as %s example %zu; expected no input sequence "
                 "twice (duplicate rows in the data files, or too few possible sequences for these sizes)",
                 t->ops->name, split_name[r->first[1].split], r->first[1].index,
                 split_name[r->first[0].split], r->first[0].index);
}

static sq_status find_repeats(const sq_task *t, repeats *r)
{
  const sq_task_info *info = t->ops->info(t);
  const size_t longest = (size_t)info->seq_len * (info->dual ? 2 : 1);
  const size_t n = info->size[SQ_TRAIN] + info->size[SQ_VALID] + info->size[SQ_TEST];
  place *p = sq_calloc(n, sizeof *p, "hashes of the examples");
  int32_t *work = sq_calloc(longest * 3 + 1, sizeof *work, "examples to compare");
  int32_t *token[2] = {work, work + longest}, *label = work + 2 * longest;
  sq_status st = p != NULL && work != NULL ? SQ_OK : SQ_ERR_MEMORY;

  if (st == SQ_OK) {
    hash_all(t, p, token[0], label);
    qsort(p, n, sizeof *p, place_order);
  }
  if (st == SQ_OK) *r = count_repeats(t, p, n, token, label);
  free(work);
  free(p);
  return st;
}

sq_status sq_task_check_disjoint(const sq_task *t)
{
  char text[256];
  repeats r = {0};
  sq_status st;
  SQ_TRY(find_repeats(t, &r));
  if (!t->ops->may_repeat) SQ_TRY(refuse_repeats(t, &r));
  describe(&r, text);
  if (r.within + r.across > 0) sq_note("task %s: %s; such are these data", t->ops->name, text);
done:
  return st;
}

sq_status sq_task_check_repeats(const sq_task *t, FILE *out)
{
  char text[256];
  repeats r = {0};
  sq_status st;
  SQ_TRY(find_repeats(t, &r));
  describe(&r, text);
  fprintf(out, "%s\n", r.within + r.across > 0 ? text : "no input occurs twice");
done:
  return st;
}

/* ---- batches ----------------------------------------------------------------------------------------- */

typedef struct {
  /* in 4-byte words, pieces on 64-byte boundaries of the storage */
  size_t off, id, len, token, label, value, total;
} layout;

static size_t round_up(size_t words)
{
  return (words + 15) / 16 * 16;
}

static layout layout_of(const sq_task_info *info, int B)
{
  const size_t b = (size_t)B, nseq = b * (info->dual ? 2 : 1), rows = nseq * (size_t)info->seq_len;
  layout l = {0};
  l.id = l.off + round_up(nseq + 1);
  l.len = l.id + round_up(nseq);
  l.token = l.len + round_up(nseq);
  l.label = l.token + round_up(rows);
  l.value = l.label + round_up(info->label_per_row ? rows : b);
  l.total = l.value;
  if (info->vocab_size == 0)
    l.total += round_up(rows * (size_t)info->input_dim * sizeof(sq_real) / sizeof(int32_t));
  return l;
}

_Static_assert(sizeof(int) == sizeof(int32_t), "batch storage is counted in words of 4 bytes");

size_t sq_task_batch_bytes(const sq_task_info *info, int B)
{
  return layout_of(info, B).total * sizeof(int32_t);
}

/* Steps of part k of example i: 0 is the whole, or the first sequence of a pair, 1 the second. */
static int part_length(const sq_task *t, sq_split split, size_t i, int k)
{
  const int n = t->ops->length(t, split, i),
            first = t->ops->first_length ? t->ops->first_length(t, split, i) : n;
  return k == 0 ? first : n - first;
}

typedef struct {
  const sq_task *t;
  sq_split split;
  int *off, *len;
  int32_t *token, *label;
  sq_real *value;
  size_t dim; /* numbers a step; 0: tokens */
  const size_t *index;
  int each, first; /* sequences of an example; first example to make */
} filling;

static void fill_padding(const filling *f, int first, int last, int label_per_row)
{
  for (int r = first; r < last; ++r) {
    f->token[r] = 0;
    for (size_t k = 0; k < f->dim; ++k) f->value[(size_t)r * f->dim + k] = 0;
    if (label_per_row) f->label[r] = SQ_IGNORE;
  }
}

/* Example number `block` of those to make, at its place in the batch. */
static void fill_example(void *ctx, int block)
{
  const filling *f = ctx;
  const sq_task_info *info = f->t->ops->info(f->t);
  const int b = f->first + block, each = f->each, q = b * each, r = f->off[q];
  const size_t i = f->index[b];
  f->t->ops->example(f->t, f->split, i, f->token + r, info->label_per_row ? f->label + r : f->label + b);
  if (f->value != NULL) f->t->ops->values(f->t, f->split, i, f->value + (size_t)r * f->dim);
  if (each == 2)
    memmove(f->token + f->off[q + 1], f->token + r + f->len[q], (size_t)f->len[q + 1] * sizeof *f->token);
  for (int k = 0; k < each; ++k)
    fill_padding(f, f->off[q + k] + f->len[q + k], f->off[q + k + 1], info->label_per_row);
}

void sq_task_batch(const sq_task *t, sq_split split, int n, const size_t *index, sq_padding pad, void *store,
                   sq_batch *out)
{
  sq_task_batch_part(t, split, n, index, pad, 0, n, store, out);
}

void sq_task_batch_part(const sq_task *t, sq_split split, int n, const size_t *index, sq_padding pad,
                        int first, int end, void *store, sq_batch *out)
{
  const sq_task_info *info = t->ops->info(t);
  const layout l = layout_of(info, n);
  const int each = info->dual ? 2 : 1, nseq = n * each;
  int *id = (int *)store + l.id, longest = pad == SQ_PAD_FULL ? info->seq_len : 0;
  filling f = {.t = t,
               .split = split,
               .off = (int *)store + l.off,
               .len = (int *)store + l.len,
               .token = (int32_t *)store + l.token,
               .label = (int32_t *)store + l.label,
               .index = index,
               .each = each,
               .first = first,
               .dim = info->vocab_size == 0 ? (size_t)info->input_dim : 0};

  if (f.dim > 0) f.value = (sq_real *)((int32_t *)store + l.value);
  SQ_ASSERT(n >= 1 && (f.value == NULL || (t->ops->values != NULL && each == 1)));
  for (int q = 0; q < nseq; ++q) {
    f.len[q] = part_length(t, split, index[q / each], q % each);
    longest = pad == SQ_PAD_LONGEST && f.len[q] > longest ? f.len[q] : longest;
    id[q] = q;
  }
  f.off[0] = 0;
  for (int q = 0; q < nseq; ++q) f.off[q + 1] = f.off[q] + (longest > 0 ? longest : f.len[q]);
  sq_parallel_blocks(end - first, fill_example, &f);
  *out = (sq_batch){.rows = {.nseq = nseq,
                             .nrow = f.off[nseq],
                             .off = f.off,
                             .id = id,
                             .len = pad == SQ_PAD_FULL ? f.len : NULL},
                    .input_dim = info->input_dim,
                    .token = f.value == NULL ? f.token : NULL,
                    .value = f.value,
                    .label_per_row = info->label_per_row,
                    .dual = info->dual,
                    .label = f.label};
}
