/* src/task/image.h: what the tasks of images share: pixels one after the other, one class an image.
 *
 * A reader fills two sets, training and test, and packs them; opening the block makes the splits: a part of the
 * training set, chosen by the seed, is for validation. */
#pragma once

#include "block.h"
#include "task_impl.h"

typedef struct {
  uint8_t *pixel; /* (n, steps, dim) */
  uint8_t *label; /* (n) */
  size_t n, cap;
} image_set;

typedef struct {
  int steps, dim, nclass; /* dim: channels, 1 or 3 */
  int tokenize;           /* steps are ids 0..255 (dim 1), else real numbers (x/255 - mean)/std */
  double mean[3], std[3];
  int valid_of;           /* one in so many training images is for validation; 0: one in ten */
  size_t nfile;           /* images in the official files */
  size_t most[SQ_NSPLIT]; /* examples at most */
} image_params;

/* Room for `more` images; SQ_ERR_MEMORY. */
sq_status sq_image_reserve(image_set *s, const image_params *p, size_t more);
void sq_image_clear(image_set *s);

/* Shapes; sizes are p->most. */
void sq_image_shape(const image_params *p, sq_task_info *info);
sq_status sq_image_pack(const image_params *p, const image_set *train, const image_set *test,
                        sq_task_block *b);
/* A task of such a block, which it takes.  order: (steps) step t shows pixel order[t], or NULL.  Notes where a
   split has fewer examples than p->most. */
sq_status sq_image_open(const sq_task_ops *ops, const image_params *p, sq_task_block *b, uint64_t seed,
                        const int *order, sq_task **t);

/* Operations of sq_task_ops. */
void sq_image_close(sq_task *t);
const sq_task_info *sq_image_info(const sq_task *t);
int sq_image_length(const sq_task *t, sq_split split, size_t i);
void sq_image_example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label);
void sq_image_values(const sq_task *t, sq_split split, size_t i, sq_real *value);

/* How many images of each class, one line with `name` in front. */
void sq_image_print_classes(FILE *out, const char *name, const uint8_t *label, size_t n, int nclass);
/* The head of a table of those lines. */
void sq_image_print_class_head(FILE *out, int nclass);
/* The images that stand twice in set[0] (training) and set[1] (test), which are empty afterwards. */
sq_status sq_image_check_repeats(const sq_task_ops *ops, const image_params *p, image_set set[2], FILE *out);
/* All images of both sets: the sizes of the splits. */
void sq_image_use_all(image_params *p, const image_set set[2]);
