/* src/task/listops_tree.c: expressions of ListOps, and lists of them.  Nangia & Bowman 2018,
 * arXiv:1804.06028. */
#include <stdlib.h>
#include <string.h>

#include "listops_impl.h"
#include "sq/base.h"

const char *const sq_listops_token[LISTOPS_NCODE] = {"0", "1", "2", "3",    "4",    "5",    "6",  "7",
                                                     "8", "9", "X", "[MAX", "[MED", "[MIN", "[SM"};

/* Arguments are digits, so a count of each is all an operator needs. */
typedef struct {
  int op, n, sum;
  int count[10];
} frame;

/* k-th smallest argument, from 0. */
static int rank_of(const frame *f, int k)
{
  int v = 0;
  while (k >= f->count[v]) k -= f->count[v++];
  return v;
}

static int apply(const frame *f)
{
  switch (f->op) {
  case LISTOPS_MIN: return rank_of(f, 0);
  case LISTOPS_MAX: return rank_of(f, f->n - 1);
  case LISTOPS_MED: return (rank_of(f, (f->n - 1) / 2) + rank_of(f, f->n / 2)) / 2;
  default: return f->sum % 10;
  }
}

static int refuse(const char **why, const char *what)
{
  *why = what;
  return -1;
}

int sq_listops_value(const uint8_t *code, size_t n, const char **why)
{
  frame stack[LISTOPS_MAX_NEST];
  int depth = 0, value = -1;

  if (n > LISTOPS_MAX_LENGTH) return refuse(why, "more than 1000000 tokens");
  for (size_t i = 0; i < n; ++i) {
    const int c = code[i];
    if (value >= 0) return refuse(why, "more than one expression");
    if (c > LISTOPS_CLOSE) {
      if (depth == LISTOPS_MAX_NEST) return refuse(why, "operators nest deeper than 256");
      stack[depth++] = (frame){.op = c};
      continue;
    }
    int v = c;
    if (c == LISTOPS_CLOSE) {
      if (depth == 0) return refuse(why, "unbalanced brackets: ] without an operator");
      if (stack[depth - 1].n == 0) return refuse(why, "operator without arguments");
      v = apply(&stack[--depth]);
    }
    if (depth == 0) {
      value = v;
    } else {
      stack[depth - 1].n++;
      stack[depth - 1].sum += v;
      stack[depth - 1].count[v]++;
    }
  }
  if (depth > 0) return refuse(why, "unbalanced brackets: an operator is not closed");
  if (value < 0) return refuse(why, "no expression");
  return value;
}

int sq_listops_nesting(const uint8_t *code, size_t n)
{
  int depth = 0, most = 0;
  for (size_t i = 0; i < n; ++i) {
    if (code[i] > LISTOPS_CLOSE) most = ++depth > most ? depth : most;
    if (code[i] == LISTOPS_CLOSE) --depth;
  }
  return most;
}

/* ---- text -------------------------------------------------------------------------------------------- */

size_t sq_listops_text_bytes(size_t n)
{
  /* Each token: at most 4 bytes and a blank; each but the outermost expression's first may bring "( " and "
   * )". */
  return 9 * n + 1;
}

static char *put(char *p, const char *word)
{
  const size_t n = strlen(word);
  memcpy(p, word, n);
  p[n] = ' ';
  return p + n + 1;
}

static void count_arguments(const uint8_t *code, size_t n, int *narg)
{
  size_t open[LISTOPS_MAX_NEST];
  int depth = 0;
  for (size_t i = 0; i < n; ++i) {
    narg[i] = 0;
    if (code[i] == LISTOPS_CLOSE) {
      --depth;
    }
    if (code[i] > LISTOPS_CLOSE) {
      if (depth > 0) narg[open[depth - 1]]++;
      open[depth++] = i;
    } else if (code[i] < LISTOPS_CLOSE && depth > 0) {
      narg[open[depth - 1]]++;
    }
  }
}

/* [OP a b ] is ( ( ( [OP a ) b ) ] ): a pair of parentheses for every argument, one for the bracket. */
size_t sq_listops_print(const uint8_t *code, size_t n, int *narg, char *text)
{
  char *p = text;
  int depth = 0;
  count_arguments(code, n, narg);
  for (size_t i = 0; i < n; ++i) {
    if (code[i] > LISTOPS_CLOSE) {
      for (int k = 0; k < narg[i] + 1; ++k) p = put(p, "(");
      p = put(p, sq_listops_token[code[i]]);
      ++depth;
      continue;
    }
    if (code[i] == LISTOPS_CLOSE) {
      p = put(p, "]");
      p = put(p, ")");
      --depth;
    } else {
      p = put(p, sq_listops_token[code[i]]);
    }
    if (depth > 0) p = put(p, ")");
  }
  *--p = '\0';
  return (size_t)(p - text);
}

/* ---- lists ------------------------------------------------------------------------------------------- */

static sq_status reserve(void **p, size_t *cap, size_t need, size_t size)
{
  size_t want = *cap < 1024 ? 1024 : *cap;
  void *q;
  if (need <= *cap) return SQ_OK;
  while (want < need) want += want / 2;
  q = realloc(*p, want * size);
  if (q == NULL)
    return sq_fail(SQ_ERR_MEMORY, "task listops: no memory for %zu bytes of expressions", want * size);
  *p = q;
  *cap = want;
  return SQ_OK;
}

sq_status sq_listops_append(listops_set *s, const uint8_t *code, size_t n, int value)
{
  void *code_p = s->code, *off_p = s->off, *value_p = s->value;
  const size_t used = s->n > 0 ? s->off[s->n] : 0;
  size_t cap = s->cap;
  sq_status st;

  SQ_TRY(reserve(&code_p, &s->code_cap, used + n, 1));
  s->code = code_p;
  SQ_TRY(reserve(&value_p, &cap, s->n + 2, 1));
  s->value = value_p;
  cap = s->cap;
  SQ_TRY(reserve(&off_p, &cap, s->n + 2, sizeof *s->off));
  s->off = off_p;
  s->cap = cap;
  memcpy(s->code + used, code, n);
  s->off[s->n] = used;
  s->value[s->n] = (uint8_t)value;
  s->off[++s->n] = used + n;
done:
  return st;
}

void sq_listops_clear(listops_set *s)
{
  free(s->code);
  free(s->off);
  free(s->value);
  *s = (listops_set){0};
}

void sq_listops_vocabulary(const listops_set *s, int max_tokens, uint8_t id[LISTOPS_NCODE],
                           size_t count[LISTOPS_NCODE])
{
  const size_t most = (size_t)max_tokens - 1;
  memset(count, 0, LISTOPS_NCODE * sizeof *count);
  for (size_t i = s->first[SQ_TRAIN]; i < s->first[SQ_TRAIN + 1]; ++i) {
    const size_t n = s->off[i + 1] - s->off[i];
    for (size_t j = 0; j < (n < most ? n : most); ++j) count[s->code[s->off[i] + j]]++;
  }
  for (int c = 0; c < LISTOPS_NCODE; ++c) {
    int before = 0;
    for (int d = 0; d < LISTOPS_NCODE; ++d) before += count[d] > count[c] || (count[d] == count[c] && d < c);
    id[c] = (uint8_t)(LISTOPS_NSPECIAL + before);
  }
}
