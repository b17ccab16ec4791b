/* include/sq/task.h: data as a pure function of (seed, split, index).
 *
 * A task is one file src/task/<name>.c and one line in src/task/task_list.h; `dataset._name_` selects it. */
#pragma once

#include <stdio.h>

#include "sq/batch.h"
#include "sq/config.h"

typedef struct sq_task sq_task;
typedef enum { SQ_TRAIN, SQ_VALID, SQ_TEST, SQ_NSPLIT } sq_split;

typedef struct {
  int seq_len;    /* longest sequence */
  int vocab_size; /* of tokens; 0: real inputs */
  int input_dim;  /* of real inputs */
  int nclass;     /* labels are 0..nclass-1 */
  int label_per_row;
  int dual;               /* an example is two sequences and a label; size counts pairs */
  int max_labels;         /* labelled rows of one sequence (1 if one label a sequence) */
  size_t size[SQ_NSPLIT]; /* examples */
  int open_size;      /* only the data know the sizes; without data these are those of the official files */
  const char *metric; /* "accuracy" | "perplexity" */
  /* Memory of the data: the block of a machine (below), what every process keeps.  Of the official files, at most where
     lengths differ. */
  size_t shared_bytes, own_bytes;
} sq_task_info;

/* What a task has read from files, in one piece without pointers: processes of a machine may look at one copy of it.
   The seed has no part in it. */
typedef struct {
  const void *data; /* 64-byte aligned; NULL: none */
  size_t bytes;
  int owned; /* by malloc; else borrowed */
} sq_task_block;

/* Processes of a machine that load one data set together.  All calls are collective among them. */
typedef struct {
  int rank, size;
  void *user;
  /* Memory of as many bytes as rank 0 says, which all may read and write, 64-byte aligned; NULL on all where it cannot be
     had, with no text recorded. */
  void *(*allocate)(void *user, size_t bytes);
  void (*release)(void *user, void *memory);
  /* The status of the lowest rank that has an error, with its text, on all.  What anybody wrote before is there for all
     afterwards. */
  sq_status (*agree)(void *user, sq_status st);
} sq_readers;

typedef struct {
  const char *name;
  const sq_keyset *keys;
  /* Opens or makes the data.  SQ_ERR_DATA with the expected file, layout and where to get it. */
  sq_status (*open)(const sq_config *c, sq_task **t);
  /* Tasks whose files are large, NULL: no such task.  load reads them into a block (left empty where this
     configuration reads no files), SQ_ERR_DATA as open; open_block makes the task of one, and takes it: the block is
     empty afterwards, close frees it if it was owned.  `open` may then be NULL. */
  sq_status (*load)(const sq_config *c, sq_task_block *b);
  /* In place of load, where reading is much work: every reader does a part of it, and the block is the same whatever
     their number.  It is memory of r->allocate, not owned; empty where there is none. */
  sq_status (*load_together)(const sq_config *c, const sq_readers *r, sq_task_block *b);
  sq_status (*open_block)(const sq_config *c, sq_task_block *b, sq_task **t);
  void (*close)(sq_task *t);
  const sq_task_info *(*info)(const sq_task *t);
  /* Shapes from the configuration alone, without data: for `plan` and for the results file. */
  sq_status (*shape)(const sq_config *c, sq_task_info *info);
  /* Steps of example i; of a pair, of both together. */
  int (*length)(const sq_task *t, sq_split split, size_t i);
  /* Pairs: steps of the first sequence; `example` gives it, and then the second.  NULL: the task is none of pairs. */
  int (*first_length)(const sq_task *t, sq_split split, size_t i);
  /* Example i: tokens (length), labels (length, or 1).  Thread safe. */
  void (*example)(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label);
  /* Real steps of example i (length, input_dim), where vocab_size is 0; NULL if the task is always of tokens.
     `example` then gives an integer for every step that stands for its values: equal ones are equal inputs.
     Thread safe. */
  void (*values)(const sq_task *t, sq_split split, size_t i, sq_real *value);
  /* Data as others made them may hold an input twice: noted, not refused. */
  int may_repeat;
  const char *about; /* what it is and, of files, their layout and source; for people */
  /* Reads every file of a data folder, prints counts, checksums, classes, vocabulary and lengths.
     SQ_ERR_DATA.  NULL: the task has no files. */
  sq_status (*check)(const char *dir, FILE *out);
} sq_task_ops;

int sq_task_keysets(const sq_keyset **set, int cap);
const sq_task_ops *sq_task_find(const char *name);
const sq_task_ops *sq_task_at(int i); /* NULL past the end */

sq_status sq_task_open(const sq_config *c, sq_task **t);
/* The two steps of opening, for data that several look at: a block that is empty, if the task has none to share, and a
   task on a borrowed block of the same dataset.* and recipe, which has to outlive it. */
int sq_task_has_block(const sq_config *c); /* its task is one that loads blocks */
sq_status sq_task_load(const sq_config *c, sq_task_block *b);
int sq_task_loads_together(const sq_config *c); /* the block can be read by several, each a part */
/* Collective among the readers. */
sq_status sq_task_load_together(const sq_config *c, const sq_readers *r, sq_task_block *b);
sq_status sq_task_open_block(const sq_config *c, const sq_task_block *b, sq_task **t);
void sq_task_block_free(sq_task_block *b); /* leaves it empty; a borrowed one is not freed */
void sq_task_close(sq_task **t);
const sq_task_info *sq_task_describe(const sq_task *t);
sq_status sq_task_shape(const sq_config *c, sq_task_info *info);
/* No input sequence occurs in two splits (or twice in one): SQ_ERR_DATA with the two places, or a note with
   how many where the task says that its data may repeat. */
sq_status sq_task_check_disjoint(const sq_task *t);

/* Storage for one batch of at most B examples. */
size_t sq_task_batch_bytes(const sq_task_info *info, int B);
typedef enum { /* steps of token 0 behind a sequence, for recipe `published` */
               SQ_PAD_NONE,
               SQ_PAD_LONGEST, /* to the longest of the batch; they count as real steps (PyTorch families) */
               SQ_PAD_FULL, /* to the task's longest sequence; rows.len tells the real ones (JAX families) */
} sq_padding;
/* Gathers examples index[0..nseq-1] of a split into `store` (sq_task_batch_bytes). */
void sq_task_batch(const sq_task *t, sq_split split, int nseq, const size_t *index, sq_padding pad,
                   void *store, sq_batch *out);
/* The same with tokens, values and labels of the examples index[first..end-1] only, by the threads of the calling
   group (sq/parallel.h); those of the others are not written. */
void sq_task_batch_part(const sq_task *t, sq_split split, int nseq, const size_t *index, sq_padding pad,
                        int first, int end, void *store, sq_batch *out);

/* ---- data sets on disk ------------------------------------------------------------------------------- */
const char *sq_data_default_dir(void); /* $SEQSPECTRA_DATA, else ./data */
/* Writes basic_{train,val,test}.tsv; keys as in dataset.* of listops.  SQ_ERR_IO leaves nothing half-written.
 */
sq_status sq_listops_make(const char *dir, uint64_t seed, int min_length, int max_length, int max_depth,
                          int max_args, const size_t size[SQ_NSPLIT]);
/* Counts, lengths, vocabulary, class balance, every target recomputed, splits disjoint; prints to out.
   SQ_ERR_DATA (missing, invalid) with file and line. */
sq_status sq_listops_check(const char *dir, FILE *out);
/* The conditions that sq_listops_make checks first.  SQ_ERR_USAGE. */
sq_status sq_listops_make_check(int min_length, int max_length, int max_depth, int max_args,
                                const size_t size[SQ_NSPLIT]);
/* Prints the GPT-2 token ids of a text file, one a line; the tokenizer's files are in <dir>/gpt2 or <dir>.
   SQ_ERR_DATA: no such files, or the text is not UTF-8.  SQ_ERR_IO. */
sq_status sq_tokenize_file(const char *dir, const char *path, FILE *out);
