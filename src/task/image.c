/* src/task/image.c: sequences of pixels. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "sq/rng.h"

typedef struct {
  struct sq_task base;
  sq_task_info info;
  image_params p;
  sq_task_block block;
  struct {
    const uint8_t *pixel, *label;
    size_t n;
  } train, test;   /* in the block */
  uint32_t *index; /* (train.n) training examples, then validation examples, each in order of the files */
  size_t nvalid;
  int *order;            /* (steps), or NULL */
  sq_real value[3][256]; /* of a pixel */
} image_task;

sq_status sq_image_reserve(image_set *s, const image_params *p, size_t more)
{
  if (s->n + more <= s->cap) return SQ_OK;
  const size_t cap = s->n + more, bytes = (size_t)p->steps * (size_t)p->dim;
  uint8_t *pixel = realloc(s->pixel, cap * bytes), *label = NULL;
  if (pixel != NULL) {
    s->pixel = pixel;
    label = realloc(s->label, cap);
  }
  if (label == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for %zu images", cap);
  s->label = label;
  s->cap = cap;
  return SQ_OK;
}

void sq_image_clear(image_set *s)
{
  free(s->pixel);
  free(s->label);
  *s = (image_set){0};
}

void sq_image_shape(const image_params *p, sq_task_info *info)
{
  *info = (sq_task_info){.seq_len = p->steps,
                         .vocab_size = p->tokenize ? 256 : 0,
                         .input_dim = p->tokenize ? 0 : p->dim,
                         .nclass = p->nclass,
                         .max_labels = 1,
                         .size = {p->most[0], p->most[1], p->most[2]},
                         .metric = "accuracy",
                         .shared_bytes = p->nfile * ((size_t)p->steps * (size_t)p->dim + 1)};
}

/* ---- splits ------------------------------------------------------------------------------------------ */

/* Marks n / of of n (a tenth is rounded down, at least one): the first of a shuffle. */
static void choose_validation(uint64_t seed, size_t n, size_t of, uint32_t *shuffled, uint8_t *chosen,
                              size_t *nvalid)
{
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_SPLIT, 0);
  *nvalid = of > 0 ? (n + of / 2) / of : n >= 20 ? n / 10 : n > 1;
  for (size_t i = 0; i < n; ++i) shuffled[i] = (uint32_t)i;
  for (size_t i = 0; i < *nvalid; ++i) {
    const size_t j = i + sq_rng_below(&r, (uint32_t)(n - i));
    const uint32_t x = shuffled[i];
    shuffled[i] = shuffled[j];
    shuffled[j] = x;
    chosen[shuffled[i]] = 1;
  }
}

static sq_status make_splits(image_task *t, uint64_t seed)
{
  const size_t n = t->train.n;
  uint8_t *chosen = sq_calloc(n + 1, 1, "splits");
  uint32_t *shuffled = sq_calloc(n + 1, sizeof *shuffled, "splits");
  t->index = sq_calloc(n + 1, sizeof *t->index, "splits");
  const int have = chosen != NULL && shuffled != NULL && t->index != NULL;
  if (have) {
    choose_validation(seed, n, (size_t)t->p.valid_of, shuffled, chosen, &t->nvalid);
    size_t at[2] = {0, n - t->nvalid};
    for (size_t i = 0; i < n; ++i) t->index[at[chosen[i]]++] = (uint32_t)i;
  }
  free(chosen);
  free(shuffled);
  return have ? SQ_OK : SQ_ERR_MEMORY;
}

static void set_sizes(image_task *t)
{
  static const char *const key[SQ_NSPLIT] = {"num_train", "num_valid", "num_test"};
  const size_t have[SQ_NSPLIT] = {t->train.n - t->nvalid, t->nvalid, t->test.n};
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    const size_t most = t->p.most[s];
    if (have[s] < most)
      sq_note("task %s: the data have %zu examples (dataset.%s is %zu)", t->base.ops->name, have[s], key[s],
              most);
    t->info.size[s] = have[s] < most ? have[s] : most;
  }
}

/* Sections of a block: pixels and labels of the training set, those of the test set. */
sq_status sq_image_pack(const image_params *p, const image_set *train, const image_set *test,
                        sq_task_block *b)
{
  const size_t bytes = (size_t)p->steps * (size_t)p->dim;
  const block_section s[] = {{train->pixel, train->n * bytes},
                             {train->label, train->n},
                             {test->pixel, test->n * bytes},
                             {test->label, test->n}};
  return sq_block_pack(s, 4, b);
}

sq_status sq_image_open(const sq_task_ops *ops, const image_params *p, sq_task_block *b, uint64_t seed,
                        const int *order, sq_task **out)
{
  image_task *t = sq_calloc(1, sizeof *t, "images");
  sq_status st = SQ_OK;
  *out = NULL;
  if (t == NULL) return SQ_ERR_MEMORY;
  t->base.ops = ops;
  t->p = *p;
  t->block = *b;
  *b = (sq_task_block){0};
  t->train.pixel = sq_block_section(&t->block, 0, NULL);
  t->train.label = sq_block_section(&t->block, 1, &t->train.n);
  t->test.pixel = sq_block_section(&t->block, 2, NULL);
  t->test.label = sq_block_section(&t->block, 3, &t->test.n);
  sq_image_shape(p, &t->info);
  for (int k = 0; k < p->dim; ++k)
    for (int x = 0; x < 256; ++x) t->value[k][x] = (sq_real)((x / 255.0 - p->mean[k]) / p->std[k]);
  if (order != NULL) {
    t->order = sq_calloc((size_t)p->steps, sizeof *t->order, "order of pixels");
    if (t->order == NULL) SQ_TRY(SQ_ERR_MEMORY);
    memcpy(t->order, order, (size_t)p->steps * sizeof *order);
  }
  SQ_TRY(make_splits(t, seed));
  set_sizes(t);
  *out = &t->base;
  t = NULL;
done:
  if (t != NULL) sq_image_close(&t->base);
  return st;
}

/* ---- operations -------------------------------------------------------------------------------------- */

void sq_image_close(sq_task *task)
{
  image_task *t = (image_task *)task;
  if (t == NULL) return;
  sq_task_block_free(&t->block);
  free(t->index);
  free(t->order);
  free(t);
}

const sq_task_info *sq_image_info(const sq_task *t)
{
  return &((const image_task *)t)->info;
}

int sq_image_length(const sq_task *t, sq_split split, size_t i)
{
  (void)split;
  (void)i;
  return ((const image_task *)t)->p.steps;
}

static const uint8_t *image_at(const image_task *t, sq_split split, size_t i, int *label)
{
  const uint8_t *pixels = split == SQ_TEST ? t->test.pixel : t->train.pixel;
  const size_t k = split == SQ_TRAIN   ? t->index[i]
                   : split == SQ_VALID ? t->index[t->train.n - t->nvalid + i]
                                       : i;
  *label = (split == SQ_TEST ? t->test.label : t->train.label)[k];
  return pixels + k * (size_t)t->p.steps * (size_t)t->p.dim;
}

void sq_image_example(const sq_task *task, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const image_task *t = (const image_task *)task;
  int class;
  const uint8_t *pixel = image_at(t, split, i, &class);
  const int dim = t->p.dim;
  for (int s = 0; s < t->p.steps; ++s) {
    const uint8_t *x = pixel + dim * (t->order != NULL ? t->order[s] : s);
    token[s] = dim == 1 ? x[0] : x[0] << 16 | x[1] << 8 | x[2];
  }
  *label = class;
}

void sq_image_values(const sq_task *task, sq_split split, size_t i, sq_real *value)
{
  const image_task *t = (const image_task *)task;
  int class;
  const uint8_t *pixel = image_at(t, split, i, &class);
  const int dim = t->p.dim;
  for (int s = 0; s < t->p.steps; ++s) {
    const uint8_t *x = pixel + dim * (t->order != NULL ? t->order[s] : s);
    for (int k = 0; k < dim; ++k) *value++ = t->value[k][x[k]];
  }
}

void sq_image_print_classes(FILE *out, const char *name, const uint8_t *label, size_t n, int nclass)
{
  size_t count[256] = {0};
  for (size_t i = 0; i < n; ++i) count[label[i]]++;
  fprintf(out, "%-18s", name);
  for (int k = 0; k < nclass; ++k) fprintf(out, " %7zu", count[k]);
  fprintf(out, "\n");
}

void sq_image_print_class_head(FILE *out, int nclass)
{
  fprintf(out, "\n%-18s", "class");
  for (int k = 0; k < nclass; ++k) fprintf(out, " %7d", k);
  fprintf(out, "\n");
}

void sq_image_use_all(image_params *p, const image_set set[2])
{
  const size_t n = set[0].n, of = (size_t)p->valid_of, nvalid = of > 0 ? (n + of / 2) / of : n / 10;
  p->most[SQ_TRAIN] = n - nvalid;
  p->most[SQ_VALID] = nvalid;
  p->most[SQ_TEST] = set[1].n;
}

sq_status sq_image_check_repeats(const sq_task_ops *ops, const image_params *p, image_set set[2], FILE *out)
{
  sq_task *t = NULL;
  sq_status st;
  sq_task_block b = {0};
  SQ_TRY(sq_image_pack(p, &set[0], &set[1], &b));
  sq_image_clear(&set[0]);
  sq_image_clear(&set[1]);
  SQ_TRY(sq_image_open(ops, p, &b, 0, NULL, &t));
  SQ_TRY(sq_task_check_repeats(t, out));
done:
  sq_task_block_free(&b);
  sq_task_close(&t);
  return st;
}
