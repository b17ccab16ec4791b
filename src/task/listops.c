/* src/task/listops.c: ListOps, from files or made in memory.  Nangia & Bowman 2018; Tay et al. 2021,
 * arXiv:2011.04006.
 *
 * A sequence is the expression's tokens without parentheses, at most max_tokens - 1 of them, and <eos>.  Both
 * sources give the same bits for the same expressions. */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "files.h"
#include "listops_impl.h"
#include "sq/base.h"

typedef struct {
  struct sq_task base;
  sq_task_info info;
  sq_task_block block; /* of files: the set lies in it */
  listops_set set;
  size_t most; /* tokens without <eos> */
  uint8_t id[LISTOPS_NCODE];
} listops;

static const sq_key listops_key[] = {
    {"dataset.source", SQ_KEY_STRING, "\"files\"", 0, 0, "files|generate",
     "read basic_*.tsv, or make them in memory"},
    {"dataset.min_length", SQ_KEY_INT, "500", 0, LISTOPS_MAX_LENGTH, NULL, "generate: min_length < length"},
    {"dataset.max_length", SQ_KEY_INT, "2000", 2, LISTOPS_MAX_LENGTH, NULL, "generate: length < max_length"},
    {"dataset.max_depth", SQ_KEY_INT, "10", 1, LISTOPS_MAX_NEST, NULL, "generate: depth of the tree, root 1"},
    {"dataset.max_args", SQ_KEY_INT, "10", 2, 1000, NULL, "generate: arguments of an operator"},
    {"dataset.num_train", SQ_KEY_INT, "96000", 1, 1e9, NULL, "training examples; files: at most"},
    {"dataset.num_valid", SQ_KEY_INT, "2000", 1, 1e9, NULL, "validation examples; files: at most"},
    {"dataset.num_test", SQ_KEY_INT, "2000", 1, 1e9, NULL, "test examples; files: at most"},
    {"dataset.max_tokens", SQ_KEY_INT, "2048", 2, LISTOPS_MAX_LENGTH, NULL,
     "longer sequences are cut, <eos> included"},
    {"analysis.batch_size", SQ_KEY_INT, "32", 1, 1 << 20, NULL,
     "sequences of the test set that are analysed"},
};

static int from_files(const sq_config *c)
{
  return strcmp(sq_config_string(c, "dataset.source"), "files") == 0;
}

static listops_params params_of(const sq_config *c)
{
  return (listops_params){.min_length = sq_config_int(c, "dataset.min_length"),
                          .max_length = sq_config_int(c, "dataset.max_length"),
                          .max_depth = sq_config_int(c, "dataset.max_depth"),
                          .max_args = sq_config_int(c, "dataset.max_args"),
                          .size = {(size_t)sq_config_int(c, "dataset.num_train"),
                                   (size_t)sq_config_int(c, "dataset.num_valid"),
                                   (size_t)sq_config_int(c, "dataset.num_test")}};
}

static sq_status listops_check(const sq_config *c)
{
  const listops_params p = params_of(c);
  return from_files(c) ? SQ_OK : sq_listops_params_check(&p, "dataset.");
}

static const sq_keyset listops_keys = {"dataset._name_=listops", listops_key,
                                       sizeof listops_key / sizeof *listops_key, listops_check};

static const char about[] =
    "Long Range Arena ListOps: the value of a nested expression; accuracy.\n"
    "files    listops/basic_{train,val,test}.tsv: a header Source<TAB>Target, rows expression<TAB>value\n"
    "source   seqspectra data make listops, or jobs/fetch-data.sh listops; or dataset.source=generate\n";

/* ---- the task ---------------------------------------------------------------------------------------- */

static size_t codes_of(const listops *t, sq_split split, size_t i, const uint8_t **code)
{
  const size_t k = t->set.first[split] + i, n = t->set.off[k + 1] - t->set.off[k];
  *code = t->set.code + t->set.off[k];
  return n < t->most ? n : t->most;
}

static int listops_length(const sq_task *t, sq_split split, size_t i)
{
  const uint8_t *code;
  return (int)codes_of((const listops *)t, split, i, &code) + 1;
}

static void listops_example(const sq_task *task, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const listops *t = (const listops *)task;
  const uint8_t *code;
  const size_t n = codes_of(t, split, i, &code);
  for (size_t j = 0; j < n; ++j) token[j] = t->id[code[j]];
  token[n] = LISTOPS_EOS;
  *label = t->set.value[t->set.first[split] + i];
}

static const sq_task_info *listops_info(const sq_task *t)
{
  return &((const listops *)t)->info;
}

static void listops_close(sq_task *task)
{
  listops *t = (listops *)task;
  if (t == NULL) return;
  if (t->block.data != NULL)
    sq_task_block_free(&t->block);
  else
    sq_listops_clear(&t->set);
  free(t);
}

static void fill_info(int seq_len, const size_t size[SQ_NSPLIT], sq_task_info *info)
{
  *info = (sq_task_info){.seq_len = seq_len,
                         .vocab_size = LISTOPS_NSPECIAL + LISTOPS_NCODE,
                         .nclass = 10,
                         .max_labels = 1,
                         .size = {size[0], size[1], size[2]},
                         .metric = "accuracy"};
}

sq_status sq_listops_create(listops_set *s, int max_tokens, int seq_len, sq_task **out)
{
  listops *t = sq_calloc(1, sizeof *t, "task listops");
  size_t count[LISTOPS_NCODE], size[SQ_NSPLIT];
  *out = NULL;
  if (t == NULL) return SQ_ERR_MEMORY;
  for (int k = 0; k < SQ_NSPLIT; ++k) size[k] = s->first[k + 1] - s->first[k];
  t->base.ops = sq_task_find("listops");
  t->set = *s;
  *s = (listops_set){0};
  t->most = (size_t)max_tokens - 1;
  fill_info(seq_len, size, &t->info);
  sq_listops_vocabulary(&t->set, max_tokens, t->id, count);
  *out = &t->base;
  return SQ_OK;
}

/* An upper bound for files, whose rows may be of any length. */
static int seq_len_of(const sq_config *c)
{
  const int most = sq_config_int(c, "dataset.max_tokens"), made = sq_config_int(c, "dataset.max_length");
  return from_files(c) || most < made ? most : made;
}

static sq_status read_files(const sq_config *c, const size_t most[SQ_NSPLIT], listops_set *s)
{
  char found[4096];
  sq_status st;

  SQ_TRY(sq_listops_find_dir(sq_data_dir(c), found, sizeof found));
  SQ_TRY(sq_listops_read(found, most, s));
  for (int k = 0; k < SQ_NSPLIT; ++k)
    if (s->first[k + 1] - s->first[k] < most[k])
      sq_note("%s/%s has %zu rows (dataset.%s is %zu)", found, sq_listops_file[k],
              s->first[k + 1] - s->first[k], (const char *const[]){"num_train", "num_valid", "num_test"}[k],
              most[k]);
done:
  return st;
}

/* Sections of a block: codes, offsets, values, first of each split.  Expressions made in memory depend on the seed and are no
   block. */
static sq_status listops_load(const sq_config *c, sq_task_block *b)
{
  const listops_params p = params_of(c);
  listops_set s = {0};
  sq_status st = SQ_OK;
  if (!from_files(c)) return st;
  SQ_TRY(read_files(c, p.size, &s));
  const block_section section[] = {
      {s.code, s.off[s.n]}, {s.off, (s.n + 1) * sizeof *s.off}, {s.value, s.n}, {s.first, sizeof s.first}};
  SQ_TRY(sq_block_pack(section, 4, b));
done:
  sq_listops_clear(&s);
  return st;
}

/* The set's pointers are not const, but nothing is written to a set that a task has. */
static void *section_of(const sq_task_block *b, int k)
{
  return (void *)(uintptr_t)sq_block_section(b, k, NULL);
}

static sq_status listops_open_block(const sq_config *c, sq_task_block *b, sq_task **t)
{
  listops_set s = {.code = section_of(b, 0), .off = section_of(b, 1), .value = section_of(b, 2)};
  sq_status st;
  memcpy(s.first, section_of(b, 3), sizeof s.first);
  s.n = s.first[SQ_NSPLIT];
  SQ_TRY(sq_listops_create(&s, sq_config_int(c, "dataset.max_tokens"), seq_len_of(c), t));
  ((listops *)*t)->block = *b;
  *b = (sq_task_block){0};
done:
  return st;
}

/* Of expressions made in memory. */
static sq_status listops_open(const sq_config *c, sq_task **t)
{
  listops_params p = params_of(c);
  listops_set s = {0};
  sq_status st;

  *t = NULL;
  p.seed = (uint64_t)sq_config_int(c, "seed");
  SQ_TRY(sq_listops_generate(&p, &s));
  SQ_TRY(sq_listops_create(&s, sq_config_int(c, "dataset.max_tokens"), seq_len_of(c), t));
done:
  sq_listops_clear(&s);
  return st;
}

static sq_status listops_shape(const sq_config *c, sq_task_info *info)
{
  const listops_params p = params_of(c);
  fill_info(seq_len_of(c), p.size, info);
  info->own_bytes = (p.size[SQ_TRAIN] + p.size[SQ_VALID] + p.size[SQ_TEST]) * (size_t)info->seq_len;
  return SQ_OK;
}

const sq_task_ops sq_task_listops = {.name = "listops",
                                     .keys = &listops_keys,
                                     .open = listops_open,
                                     .load = listops_load,
                                     .open_block = listops_open_block,
                                     .close = listops_close,
                                     .info = listops_info,
                                     .shape = listops_shape,
                                     .length = listops_length,
                                     .example = listops_example,
                                     .about = about,
                                     .check = sq_listops_check};
