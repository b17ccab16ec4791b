/* src/task/listops_read.c: basic_{train,val,test}.tsv as Long Range Arena releases them.
 *
 * A header "Source<TAB>Target", then an expression, a tab and its value on every line; lines end in LF or CR
 * LF.  Files come from elsewhere, so nothing about them is trusted: each row is evaluated and must have its
 * target. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "listops_impl.h"
#include "sq/base.h"

const char *const sq_listops_file[SQ_NSPLIT] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"};

typedef struct {
  FILE *f;
  const char *path;
  char *buf; /* bytes at..end-1 are read and not yet used */
  size_t at, end, cap, line;
  int eof;
} reader;

typedef struct {
  char *s; /* without line end, NUL-terminated */
  size_t n;
  int ended; /* by a line feed */
} text_line;

static sq_status fill(reader *r)
{
  if (r->at > 0) {
    memmove(r->buf, r->buf + r->at, r->end - r->at);
    r->end -= r->at;
    r->at = 0;
  }
  if (r->end + 1 >= r->cap) {
    const size_t cap = r->cap == 0 ? (size_t)1 << 18 : 2 * r->cap;
    char *buf = realloc(r->buf, cap);
    if (buf == NULL)
      return sq_fail(SQ_ERR_MEMORY, "%s:%zu: no memory for a line of %zu bytes", r->path, r->line, cap);
    r->buf = buf;
    r->cap = cap;
  }
  r->end += fread(r->buf + r->end, 1, r->cap - 1 - r->end, r->f);
  if (ferror(r->f)) return sq_fail(SQ_ERR_DATA, "%s: cannot be read: %s", r->path, strerror(errno));
  r->eof = feof(r->f);
  return SQ_OK;
}

/* The next line; l->s is NULL at the end of the file. */
static sq_status next_line(reader *r, text_line *l)
{
  char *nl = NULL;
  size_t seen = 0;
  sq_status st = SQ_OK;

  r->line++;
  for (;;) {
    if (r->end - r->at > seen) nl = memchr(r->buf + r->at + seen, '\n', r->end - r->at - seen);
    if (nl != NULL || r->eof) break;
    seen = r->end - r->at;
    if (seen > LISTOPS_MAX_LINE) break;
    SQ_TRY(fill(r));
  }
  *l = (text_line){.ended = nl != NULL};
  if (nl == NULL && r->at == r->end) return SQ_OK;
  l->s = r->buf + r->at;
  l->n = nl != NULL ? (size_t)(nl - l->s) : r->end - r->at;
  if (l->n > LISTOPS_MAX_LINE)
    return sq_fail(SQ_ERR_DATA,
                   "%s:%zu: line longer than 16 MiB; expected an expression, a tab and its value", r->path,
                   r->line);
  r->at += l->n + (nl != NULL);
  if (l->n > 0 && l->s[l->n - 1] == '\r') l->n--;
  l->s[l->n] = '\0';
  if (memchr(l->s, '\0', l->n) != NULL)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: NUL byte in column %zu; expected text", r->path, r->line,
                   strlen(l->s) + 1);
done:
  return st;
}

static int code_of(const char *w, size_t n)
{
  if (n == 1 && *w >= '0' && *w <= '9') return *w - '0';
  if (n == 1 && (*w == ']' || *w == 'X')) return LISTOPS_CLOSE;
  for (int c = LISTOPS_MAX; c < LISTOPS_NCODE; ++c)
    if (strlen(sq_listops_token[c]) == n && memcmp(sq_listops_token[c], w, n) == 0) return c;
  return -1;
}

/* Words of s to codes, parentheses dropped but counted.  code: at least (length of s + 1)/2.  Most words have
   one letter, and files half a gigabyte, hence no strcspn. */
static sq_status parse_source(const reader *r, const char *s, uint8_t *code, size_t *n)
{
  char word[SQ_SHOWN];
  long open = 0;
  size_t item = 0, used = 0;

  *n = 0;
  for (; *s != '\0'; ++item) {
    size_t w = 0;
    while (*s == ' ') ++s;
    while (s[w] != ' ' && s[w] != '\0') ++w;
    if (w == 1 && *s == '(') {
      ++open;
    } else if (w == 1 && *s == ')') {
      if (--open < 0)
        return sq_fail(SQ_ERR_DATA, "%s:%zu: unbalanced parentheses: ) without ( at item %zu", r->path,
                       r->line, item + 1);
    } else if (w > 0) {
      const int c = code_of(s, w);
      if (c < 0)
        return sq_fail(
            SQ_ERR_DATA,
            "%s:%zu: unknown token \"%s\" at item %zu; expected 0..9, [MAX, [MED, [MIN, [SM, ], ( or )",
            r->path, r->line, sq_text_shown(s, w, word), item + 1);
      code[used++] = (uint8_t)c;
    }
    s += w;
  }
  *n = used;
  if (open > 0)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: unbalanced parentheses: %ld not closed", r->path, r->line, open);
  return SQ_OK;
}

static sq_status read_row(const reader *r, const text_line *l, uint8_t *code, listops_set *s)
{
  char *tab = strchr(l->s, '\t'), word[32];
  const char *why = "", *target;
  size_t n, columns = 1;
  int value;
  sq_status st;

  for (const char *p = l->s; (p = strchr(p, '\t')) != NULL; ++p) columns++;
  if (columns != 2)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: %zu column%s; expected 2, an expression, a tab and its value%s",
                   r->path, r->line, columns, columns == 1 ? "" : "s",
                   l->ended ? "" : " (last line without a line end: file cut short?)");
  *tab = '\0';
  target = tab + 1;
  SQ_TRY(parse_source(r, l->s, code, &n));
  value = sq_listops_value(code, n, &why);
  if (value < 0)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: %s; expected one complete expression", r->path, r->line, why);
  if (strlen(target) != 1 || *target < '0' || *target > '9')
    return sq_fail(SQ_ERR_DATA, "%s:%zu: target \"%s\"; expected one digit 0..9%s", r->path, r->line,
                   sq_text_shown(target, strlen(target), word),
                   l->ended ? "" : " (last line without a line end: file cut short?)");
  if (*target - '0' != value)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: target %c, but the expression's value is %d", r->path, r->line,
                   *target, value);
  SQ_TRY(sq_listops_append(s, code, n, value));
done:
  return st;
}

static sq_status check_header(reader *r)
{
  text_line l = {0};
  char word[SQ_SHOWN];
  sq_status st;

  SQ_TRY(next_line(r, &l));
  if (l.s == NULL)
    return sq_fail(SQ_ERR_DATA, "%s: empty file; expected the header \"Source<TAB>Target\" and rows",
                   r->path);
  if (strcmp(l.s, "Source\tTarget") != 0)
    return sq_fail(SQ_ERR_DATA, "%s:1: no header; expected \"Source<TAB>Target\", found \"%s\"", r->path,
                   sq_text_shown(l.s, l.n, word));
done:
  return st;
}

sq_status sq_listops_read_file(const char *path, size_t most, listops_set *s, sq_split split)
{
  reader r = {.f = fopen(path, "rb"), .path = path};
  uint8_t *code = NULL;
  size_t code_cap = 0;
  text_line l = {0};
  sq_status st;

  s->first[split] = s->n;
  if (r.f == NULL)
    SQ_TRY(sq_fail(
        SQ_ERR_DATA,
        "%s: cannot be opened: %s; expected rows expression<TAB>value under a header Source<TAB>Target", path,
        strerror(errno)));
  SQ_TRY(check_header(&r));
  while (s->n - s->first[split] < most) {
    SQ_TRY(next_line(&r, &l));
    if (l.s == NULL) break;
    if (l.n / 2 + 1 > code_cap) {
      free(code);
      code_cap = l.n + 1;
      code = malloc(code_cap);
      if (code == NULL)
        SQ_TRY(sq_fail(SQ_ERR_MEMORY, "%s:%zu: no memory for %zu bytes", path, r.line, code_cap));
    }
    SQ_TRY(read_row(&r, &l, code, s));
  }
  if (s->n == s->first[split]) st = sq_fail(SQ_ERR_DATA, "%s: no rows after the header", path);
done:
  s->first[split + 1] = s->n;
  free(code);
  free(r.buf);
  if (r.f != NULL) fclose(r.f);
  return st;
}

static sq_status join(char *out, size_t cap, const char *dir, const char *name)
{
  const int n = snprintf(out, cap, "%s/%s", dir, name);
  if (n < 0 || (size_t)n >= cap) return sq_fail(SQ_ERR_DATA, "task listops: path too long: %.64s...", dir);
  return SQ_OK;
}

sq_status sq_listops_find_dir(const char *dir, char *out, size_t cap)
{
  char path[4096];
  sq_status st;

  SQ_TRY(join(out, cap, dir, "listops"));
  SQ_TRY(join(path, sizeof path, out, sq_listops_file[SQ_TRAIN]));
  if (access(path, F_OK) == 0) return SQ_OK;
  SQ_TRY(join(path, sizeof path, dir, sq_listops_file[SQ_TRAIN]));
  if (access(path, F_OK) != 0)
    return sq_fail(
        SQ_ERR_DATA,
        "task listops: no basic_train.tsv in %s/listops or %s; expected basic_{train,val,test}.tsv with a "
        "header "
        "Source<TAB>Target and rows expression<TAB>value, as in Long Range Arena; make them with: seqspectra "
        "data make listops --out %s/listops, or set dataset.source=generate",
        dir, dir, dir);
  if (snprintf(out, cap, "%s", dir) >= (int)cap)
    return sq_fail(SQ_ERR_DATA, "task listops: path too long: %.64s...", dir);
done:
  return st;
}

sq_status sq_listops_read(const char *dir, const size_t most[SQ_NSPLIT], listops_set *s)
{
  char path[4096];
  sq_status st = SQ_OK;

  for (int k = 0; k < SQ_NSPLIT; ++k) {
    SQ_TRY(join(path, sizeof path, dir, sq_listops_file[k]));
    SQ_TRY(sq_listops_read_file(path, most[k], s, (sq_split)k));
  }
done:
  return st;
}
