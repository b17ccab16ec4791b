/* src/task/listops_impl.h: expressions, shared by the task, the reader, the generator and the files.
 *
 * An expression is a string of codes in prefix order: operator, arguments, close; a digit stands for itself.
 * Its length is the number of tokens without parentheses.  Codes are in the byte order of the token texts. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sq/rng.h"
#include "sq/status.h"
#include "task_impl.h"

enum {                     /* 0..9 are the digits */
       LISTOPS_CLOSE = 10, /* "]" in files, "X" in the vocabulary */
       LISTOPS_MAX = 11,
       LISTOPS_MED = 12,
       LISTOPS_MIN = 13,
       LISTOPS_SM = 14,
       LISTOPS_NCODE = 15
};
enum { LISTOPS_PAD = 0, LISTOPS_UNK = 1, LISTOPS_EOS = 2, LISTOPS_NSPECIAL = 3 }; /* token ids */
enum { LISTOPS_MAX_NEST = 256 };       /* operators inside operators */
enum { LISTOPS_MAX_LENGTH = 1000000 }; /* tokens of an expression */
enum { LISTOPS_MAX_LINE = 16 << 20 };  /* bytes of a line of a file */
enum { LISTOPS_DRY = 2000000 };        /* attempts in a row without a new expression: give up */
extern const char *const sq_listops_token[LISTOPS_NCODE]; /* texts in the vocabulary */

/* ---- expressions: listops_tree.c ------------------------------------------------------------------------
 */
/* Value 0..9; -1 with *why (a phrase) if the codes are not one complete expression. */
int sq_listops_value(const uint8_t *code, size_t n, const char **why);
/* Text as in the files, NUL-terminated, at most sq_listops_text_bytes(n); returns its length.  The expression
   is valid. narg: work (n). */
size_t sq_listops_text_bytes(size_t n);
size_t sq_listops_print(const uint8_t *code, size_t n, int *narg, char *text);
/* Operator nesting of a valid expression. */
int sq_listops_nesting(const uint8_t *code, size_t n);

/* ---- a growing list of expressions, the splits one after the other ----------------------------------- */
typedef struct {
  uint8_t *code; /* (off[n]) */
  size_t *off;   /* (n+1) */
  uint8_t *value;
  size_t n, cap, code_cap;
  size_t first[SQ_NSPLIT + 1];
} listops_set;
sq_status sq_listops_append(listops_set *s, const uint8_t *code, size_t n, int value);
void sq_listops_clear(listops_set *s);

/* id[code] for the first max_tokens-1 codes of each training expression: specials, then by falling frequency,
   ties in byte order.  count[code]: how often. */
void sq_listops_vocabulary(const listops_set *s, int max_tokens, uint8_t id[LISTOPS_NCODE],
                           size_t count[LISTOPS_NCODE]);

/* ---- generator: listops_make.c ----------------------------------------------------------------------- */
typedef struct {
  uint64_t seed;
  int min_length, max_length, max_depth, max_args; /* min_length < length < max_length */
  size_t size[SQ_NSPLIT];
} listops_params;
/* SQ_ERR_USAGE, names with `prefix` in front. */
sq_status sq_listops_params_check(const listops_params *p, const char *prefix);
/* The tree of one attempt, no window but length < max_length: its length, or 0 if it is too long.  code:
 * (max_length). */
size_t sq_listops_draw(const listops_params *p, uint64_t attempt, uint8_t *code);
sq_status sq_listops_generate(const listops_params *p, listops_set *s);

/* ---- files: listops_read.c --------------------------------------------------------------------------- */
extern const char *const sq_listops_file[SQ_NSPLIT]; /* "basic_train.tsv", ... */
/* Appends the first `most` rows of a file as the next split.  SQ_ERR_DATA with file and line. */
sq_status sq_listops_read_file(const char *path, size_t most, listops_set *s, sq_split split);
/* <dir>/listops or <dir>, whichever has basic_train.tsv.  SQ_ERR_DATA with the layout and how to get it. */
sq_status sq_listops_find_dir(const char *dir, char *out, size_t cap);
sq_status sq_listops_read(const char *dir, const size_t most[SQ_NSPLIT], listops_set *s);

/* ---- the task: listops.c ----------------------------------------------------------------------------- */
/* Moves *s into a task (it is empty afterwards). */
sq_status sq_listops_create(listops_set *s, int max_tokens, int seq_len, sq_task **t);
