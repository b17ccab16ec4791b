/* src/task/imdb.c: IMDb reviews, character by character.  Maas et al. 2011; as Gu et al. 2022 prepare it.
 *
 * A sequence is the first max_tokens - 1 characters of a review and <eos>; label 1 is positive.  A tenth of
 * each class of the training reviews, chosen by the seed, is for validation.  The examples of a split
 * alternate between the classes, so that the first ones of it are of both. */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "imdb_impl.h"
#include "sq/base.h"
#include "sq/rng.h"

/* Reviews of a part, in the block. */
typedef struct {
  const uint16_t *code; /* (off[n]) */
  const size_t *off;    /* (n+1) */
  size_t n, nneg;
} reviews;

typedef struct {
  struct sq_task base;
  sq_task_info info;
  sq_task_block block;
  reviews part[IMDB_NPART];
  const uint16_t *id;         /* (IMDB_MAX_CODES) of a code */
  uint32_t *index[SQ_NSPLIT]; /* (size) review of an example */
} imdb;

static const sq_key imdb_key[] = {
    {"dataset.max_tokens", SQ_KEY_INT, "4096", 2, 1 << 20, NULL, "longer sequences are cut, <eos> included"},
    {"dataset.min_count", SQ_KEY_INT, "15", 1, 1e9, NULL, "rarer characters of the training texts are <unk>"},
    {"dataset.vocab_size", SQ_KEY_INT, "134", 4, 65536, NULL, "tokens at most, specials included"},
    {"dataset.num_train", SQ_KEY_INT, "22500", 1, 1e9, NULL, "training examples at most"},
    {"dataset.num_valid", SQ_KEY_INT, "2500", 1, 1e9, NULL, "validation examples at most"},
    {"dataset.num_test", SQ_KEY_INT, "25000", 1, 1e9, NULL, "test examples at most"},
    {"analysis.batch_size", SQ_KEY_INT, "32", 1, 1 << 20, NULL,
     "sequences of the test set that are analysed"},
};
static const char *const size_key[SQ_NSPLIT] = {"dataset.num_train", "dataset.num_valid", "dataset.num_test"};
static const sq_keyset imdb_keys = {"dataset._name_=imdb", imdb_key, sizeof imdb_key / sizeof *imdb_key,
                                    NULL};

static const char about[] =
    "IMDb reviews by character: positive or negative; accuracy.\n"
    "files    aclImdb/{train,test}/{pos,neg}/ID_RATING.txt, UTF-8\n"
    "splits   a tenth of each class of the training reviews, chosen by the seed, is for validation\n"
    "vocab    <pad> 0, <unk> 1, <eos> 2, then characters by falling count in the training texts\n"
    "source   jobs/fetch-data.sh imdb (aclImdb_v1.tar.gz)\n";

extern const sq_task_ops sq_task_imdb;

static int part_of(sq_split split)
{
  return split == SQ_TEST ? IMDB_TEST : IMDB_TRAIN;
}

static size_t review_of(const imdb *t, sq_split split, size_t i, const uint16_t **code, size_t *n)
{
  const reviews *p = &t->part[part_of(split)];
  const size_t k = t->index[split][i];
  *code = p->code + p->off[k];
  *n = p->off[k + 1] - p->off[k];
  return k;
}

static int imdb_length(const sq_task *t, sq_split split, size_t i)
{
  const uint16_t *code;
  size_t n;
  review_of((const imdb *)t, split, i, &code, &n);
  return (int)n + 1;
}

static void imdb_example(const sq_task *task, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const imdb *t = (const imdb *)task;
  const uint16_t *code;
  size_t n;
  const size_t k = review_of(t, split, i, &code, &n);
  for (size_t j = 0; j < n; ++j) token[j] = t->id[code[j]];
  token[n] = IMDB_EOS;
  *label = k >= t->part[part_of(split)].nneg;
}

static const sq_task_info *imdb_info(const sq_task *t)
{
  return &((const imdb *)t)->info;
}

static void imdb_close(sq_task *task)
{
  imdb *t = (imdb *)task;
  if (t == NULL) return;
  sq_task_block_free(&t->block);
  for (int s = 0; s < SQ_NSPLIT; ++s) free(t->index[s]);
  free(t);
}

/* ---- splits ------------------------------------------------------------------------------------------ */

/* Marks a tenth of the reviews first..first+n-1 (at least one of two): the first of a shuffle. */
static size_t choose(uint64_t seed, int class, size_t first, size_t n, uint32_t *shuffled, uint8_t *chosen)
{
  const size_t nvalid = n >= 20 ? n / 10 : n > 1;
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_SPLIT, (uint64_t) class);
  for (size_t i = 0; i < n; ++i) shuffled[i] = (uint32_t)i;
  for (size_t i = 0; i < nvalid; ++i) {
    const size_t j = i + sq_rng_below(&r, (uint32_t)(n - i));
    const uint32_t x = shuffled[i];
    shuffled[i] = shuffled[j];
    shuffled[j] = x;
    chosen[first + shuffled[i]] = 1;
  }
  return nvalid;
}

/* Reviews with chosen == which, negative and positive in turn; returns how many. */
static size_t interleave(const reviews *p, const uint8_t *chosen, int which, uint32_t *out)
{
  size_t at[2] = {0, p->nneg}, n = 0;
  const size_t end[2] = {p->nneg, p->n};
  while (at[0] < end[0] || at[1] < end[1])
    for (int class = 0; class < 2; ++class) {
      while (at[class] < end[class] && chosen[at[class]] != which) ++at[class];
      if (at[class] < end[class]) out[n++] = (uint32_t)at[class]++;
    }
  return n;
}

static sq_status make_splits(imdb *t, uint64_t seed)
{
  const reviews *train = &t->part[IMDB_TRAIN], *test = &t->part[IMDB_TEST];
  const size_t n = train->n > test->n ? train->n : test->n;
  uint8_t *chosen = sq_calloc(n, 1, "splits"), *none = sq_calloc(n, 1, "splits");
  uint32_t *shuffled = sq_calloc(n, sizeof *shuffled, "splits");
  int have = chosen != NULL && none != NULL && shuffled != NULL;
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    t->index[s] = sq_calloc(n, sizeof **t->index, "splits");
    have = have && t->index[s] != NULL;
  }
  if (have) {
    choose(seed, 0, 0, train->nneg, shuffled, chosen);
    choose(seed, 1, train->nneg, train->n - train->nneg, shuffled, chosen);
    t->info.size[SQ_TRAIN] = interleave(train, chosen, 0, t->index[SQ_TRAIN]);
    t->info.size[SQ_VALID] = interleave(train, chosen, 1, t->index[SQ_VALID]);
    t->info.size[SQ_TEST] = interleave(test, none, 0, t->index[SQ_TEST]);
  }
  free(chosen);
  free(none);
  free(shuffled);
  return have ? SQ_OK : SQ_ERR_MEMORY;
}

static sq_status imdb_shape(const sq_config *c, sq_task_info *info)
{
  const size_t nreview = 50000; /* in the official files */
  *info = (sq_task_info){.seq_len = sq_config_int(c, "dataset.max_tokens"),
                         .vocab_size = sq_config_int(c, "dataset.vocab_size"),
                         .nclass = 2,
                         .max_labels = 1,
                         .metric = "accuracy"};
  info->shared_bytes = nreview * (size_t)info->seq_len * sizeof(uint16_t);
  for (int s = 0; s < SQ_NSPLIT; ++s) info->size[s] = (size_t)sq_config_int(c, size_key[s]);
  return SQ_OK;
}

static void limit_sizes(imdb *t, const size_t most[SQ_NSPLIT])
{
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    if (t->info.size[s] < most[s])
      sq_note("task imdb: the data have %zu examples (%s is %zu)", t->info.size[s], size_key[s], most[s]);
    if (t->info.size[s] > most[s]) t->info.size[s] = most[s];
  }
}

/* Sections of a block: characters and offsets of the two parts, how many reviews are negative, ids of the codes. */
static sq_status pack(const imdb_data *d, const uint16_t *id, sq_task_block *b)
{
  const imdb_part *test = &d->part[IMDB_TEST], *train = &d->part[IMDB_TRAIN];
  const size_t nneg[IMDB_NPART] = {train->nneg, test->nneg};
  const block_section s[] = {{train->code, train->off[train->n] * sizeof *train->code},
                             {test->code, test->off[test->n] * sizeof *test->code},
                             {train->off, (train->n + 1) * sizeof *train->off},
                             {test->off, (test->n + 1) * sizeof *test->off},
                             {nneg, sizeof nneg},
                             {id, IMDB_MAX_CODES * sizeof *id}};
  _Static_assert(IMDB_TRAIN == 0 && IMDB_TEST == 1, "order of the sections");
  return sq_block_pack(s, 6, b);
}

static sq_status imdb_load(const sq_config *c, sq_task_block *b)
{
  const int most = sq_config_int(c, "dataset.vocab_size");
  char dir[SQ_PATH_MAX];
  imdb_data d = {0};
  uint16_t *id = sq_calloc(IMDB_MAX_CODES, sizeof *id, "task imdb: vocabulary");
  sq_status st = id != NULL ? SQ_OK : SQ_ERR_MEMORY;
  SQ_TRY(st);
  SQ_TRY(sq_imdb_find(sq_data_dir(c), dir));
  SQ_TRY(sq_imdb_read(dir, (size_t)sq_config_int(c, "dataset.max_tokens") - 1, NULL, &d));
  const int vocab = sq_imdb_vocabulary(&d, (size_t)sq_config_int(c, "dataset.min_count"), id);
  if (vocab < 0) SQ_TRY(SQ_ERR_MEMORY);
  if (vocab > most)
    SQ_TRY(sq_fail(SQ_ERR_DATA,
                   "%s: the training texts give a vocabulary of %d; expected at most %d (dataset.vocab_size)",
                   dir, vocab, most));
  SQ_TRY(pack(&d, id, b));
done:
  sq_imdb_clear(&d);
  free(id);
  return st;
}

static sq_status imdb_open_block(const sq_config *c, sq_task_block *b, sq_task **out)
{
  imdb *t = sq_calloc(1, sizeof *t, "task imdb");
  sq_status st;
  if (t == NULL) return SQ_ERR_MEMORY;
  t->base.ops = &sq_task_imdb;
  t->block = *b;
  *b = (sq_task_block){0};
  for (int k = 0; k < IMDB_NPART; ++k) {
    reviews *p = &t->part[k];
    size_t bytes;
    p->code = sq_block_section(&t->block, k, NULL);
    p->off = sq_block_section(&t->block, IMDB_NPART + k, &bytes);
    p->n = bytes / sizeof *p->off - 1;
    p->nneg = ((const size_t *)sq_block_section(&t->block, 2 * IMDB_NPART, NULL))[k];
  }
  t->id = sq_block_section(&t->block, 2 * IMDB_NPART + 1, NULL);
  SQ_TRY(imdb_shape(c, &t->info));
  const size_t most[SQ_NSPLIT] = {t->info.size[0], t->info.size[1], t->info.size[2]};
  SQ_TRY(make_splits(t, (uint64_t)sq_config_int(c, "seed")));
  limit_sizes(t, most);
  *out = &t->base;
  t = NULL;
done:
  if (t != NULL) imdb_close(&t->base);
  return st;
}

const sq_task_ops sq_task_imdb = {.name = "imdb",
                                  .keys = &imdb_keys,
                                  .load = imdb_load,
                                  .open_block = imdb_open_block,
                                  .close = imdb_close,
                                  .info = imdb_info,
                                  .shape = imdb_shape,
                                  .length = imdb_length,
                                  .example = imdb_example,
                                  .may_repeat = 1,
                                  .about = about,
                                  .check = sq_imdb_check};
