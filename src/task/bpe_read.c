/* src/task/bpe_read.c: vocabulary and merges of a byte-level tokenizer, from files that are not trusted.
 *
 * Both files spell bytes as printable characters: 33..126, 161..172, 174..255 stand for themselves, the others
 * in order for U+0100, U+0101, ... */
#include <stdlib.h>
#include <string.h>

#include "bpe.h"
#include "files.h"
#include "sq/base.h"

enum { MAX_TOKEN = 4096 }; /* bytes of a token's text */

/* Symbols by the bytes they stand for. */
typedef struct {
  const char *path;
  int16_t byte_of[0x200];
  unsigned char *text; /* (off[n]) bytes of the symbols */
  size_t cap;
  size_t *off;                   /* (256 + nmerge + 1) */
  int32_t *slot;                 /* (mask + 1) symbol + 1, 0: free */
  uint32_t n, max, mask;         /* symbols */
  unsigned char word[MAX_TOKEN]; /* the bytes of a token's text */
} symbols;

static void fill_byte_of(int16_t byte_of[0x200])
{
  int next = 256;
  memset(byte_of, 0xff, 0x200 * sizeof *byte_of);
  for (int c = 0; c < 256; ++c) {
    const int itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
    byte_of[itself ? c : next++] = (int16_t)c;
  }
}

/* Spelled text to bytes; their number, or -1 if it is not such a spelling. */
static int spelled(const symbols *y, const char *s, size_t n, unsigned char *out)
{
  int used = 0;
  for (size_t at = 0; at < n;) {
    int bytes;
    const int32_t u = sq_utf8_at((const unsigned char *)s + at, n - at, &bytes);
    if (u < 0 || u >= 0x200 || y->byte_of[u] < 0 || used == MAX_TOKEN) return -1;
    out[used++] = (unsigned char)y->byte_of[u];
    at += (size_t)bytes;
  }
  return used;
}

static int32_t *symbol_slot(const symbols *y, const unsigned char *s, size_t n)
{
  uint32_t h = (uint32_t)sq_hash(SQ_HASH_START, s, n);
  for (h = (h ^ h >> 15) & y->mask; y->slot[h] != 0; h = (h + 1) & y->mask) {
    const int32_t k = y->slot[h] - 1;
    if (y->off[k + 1] - y->off[k] == n && memcmp(y->text + y->off[k], s, n) == 0) break;
  }
  return &y->slot[h];
}

/* *fresh is 0 if there is such a symbol already. */
static sq_status add_symbol(symbols *y, const unsigned char *s, size_t n, int *fresh)
{
  int32_t *slot = symbol_slot(y, s, n);
  const size_t at = y->off[y->n];
  *fresh = *slot == 0;
  if (!*fresh) return SQ_OK;
  SQ_ASSERT(y->n < y->max);
  if (at + n > y->cap) {
    const size_t cap = 2 * y->cap + MAX_TOKEN;
    unsigned char *text = realloc(y->text, cap);
    if (text == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the vocabulary", y->path);
    y->text = text;
    y->cap = cap;
  }
  memcpy(y->text + at, s, n);
  y->off[y->n + 1] = at + n;
  *slot = (int32_t)++y->n;
  return SQ_OK;
}

static sq_status symbols_create(symbols *y, const char *path, size_t nmerge)
{
  sq_status st = SQ_OK;
  int fresh;
  *y = (symbols){.path = path, .max = (uint32_t)(256 + nmerge)};
  fill_byte_of(y->byte_of);
  for (y->mask = 1; y->mask < 2 * y->max; y->mask *= 2) continue;
  y->slot = sq_calloc(y->mask--, sizeof *y->slot, "vocabulary");
  y->off = sq_calloc((size_t)y->max + 1, sizeof *y->off, "vocabulary");
  if (y->slot == NULL || y->off == NULL) return SQ_ERR_MEMORY;
  for (int c = 0; c < 256; ++c) {
    const unsigned char byte = (unsigned char)c;
    SQ_TRY(add_symbol(y, &byte, 1, &fresh));
  }
done:
  return st;
}

static void symbols_destroy(symbols *y)
{
  free(y->text);
  free(y->off);
  free(y->slot);
}

/* ---- merges ------------------------------------------------------------------------------------------ */

static size_t count_lines(const char *text, size_t n)
{
  size_t lines = 0;
  for (const char *p = text, *end = text + n; p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL;
       ++p)
    lines++;
  return lines + (n > 0 && text[n - 1] != '\n');
}

static void add_pair(bpe_pairs *p, uint32_t left, uint32_t right, uint32_t rank)
{
  const uint64_t key = (uint64_t)left << 32 | right;
  uint64_t h = bpe_pair_slot(key, p->mask);
  while (p->key[h] != BPE_NO_PAIR) h = (h + 1) & p->mask;
  p->key[h] = key;
  p->rank[h] = rank;
}

static sq_status pairs_create(bpe_pairs *p, size_t nmerge)
{
  size_t size = 2;
  while (size < 3 * nmerge) size *= 2;
  p->mask = size - 1;
  p->key = sq_calloc(size, sizeof *p->key, "merges");
  p->rank = sq_calloc(size, sizeof *p->rank, "merges");
  if (p->key == NULL || p->rank == NULL) return SQ_ERR_MEMORY;
  memset(p->key, 0xff, size * sizeof *p->key);
  return SQ_OK;
}

static sq_status find_part(symbols *y, size_t line, const char *s, size_t n, int nbytes, int32_t *symbol)
{
  char word[SQ_SHOWN];
  if (nbytes < 0)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: \"%s\" has a character that stands for no byte", y->path, line,
                   sq_text_shown(s, n, word));
  *symbol = *symbol_slot(y, y->word, (size_t)nbytes) - 1;
  if (*symbol >= 0) return SQ_OK;
  return sq_fail(
      SQ_ERR_DATA,
      "%s:%zu: part \"%s\" is made by no merge above; expected merges in order of rank (merges out "
      "of order, or lines missing)",
      y->path, line, sq_text_shown(s, n, word));
}

static sq_status add_merge(sq_bpe *b, symbols *y, size_t line, const char *s, size_t n)
{
  const char *blank = memchr(s, ' ', n);
  char word[SQ_SHOWN];
  int32_t left = 0, right = 0;
  int fresh = 0, used, more;
  sq_status st;

  if (blank == NULL || blank == s || blank == s + n - 1 ||
      memchr(blank + 1, ' ', n - (size_t)(blank + 1 - s)))
    return sq_fail(SQ_ERR_DATA, "%s:%zu: \"%s\"; expected two tokens and a blank between them", y->path, line,
                   sq_text_shown(s, n, word));
  const size_t nleft = (size_t)(blank - s), nright = n - nleft - 1;
  more = spelled(y, blank + 1, nright, y->word);
  SQ_TRY(find_part(y, line, blank + 1, nright, more, &right));
  used = spelled(y, s, nleft, y->word);
  SQ_TRY(find_part(y, line, s, nleft, used, &left));
  if (used + more > MAX_TOKEN)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: token of %d bytes; at most %d are supported", y->path, line,
                   used + more, MAX_TOKEN);
  memcpy(y->word + used, y->text + y->off[right], (size_t)more);
  SQ_TRY(add_symbol(y, y->word, (size_t)(used + more), &fresh));
  if (!fresh)
    return sq_fail(SQ_ERR_DATA,
                   "%s:%zu: \"%s\" makes a token that a line above made already; expected every "
                   "token once",
                   y->path, line, sq_text_shown(s, n, word));
  add_pair(&b->pairs, (uint32_t)left, (uint32_t)right, (uint32_t)b->nmerge++);
done:
  return st;
}

static sq_status read_merges(sq_bpe *b, symbols *y, const char *text, size_t n)
{
  const char *p = text, *end = text + n;
  int crlf = -1;
  sq_status st = SQ_OK;
  for (size_t line = 1; p < end; ++line) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    const char *next = nl != NULL ? nl + 1 : end;
    size_t len = (size_t)((nl != NULL ? nl : end) - p);
    const int cr = len > 0 && p[len - 1] == '\r';
    if (nl != NULL) SQ_TRY(sq_line_end_check(y->path, line, cr, &crlf));
    len -= (size_t)cr;
    if (!(line == 1 && len >= 8 && memcmp(p, "#version", 8) == 0)) SQ_TRY(add_merge(b, y, line, p, len));
    p = next;
  }
  if (b->nmerge == 0) return sq_fail(SQ_ERR_DATA, "%s: no merges after the version line", y->path);
done:
  return st;
}

/* ---- vocabulary: one JSON object of string to integer ------------------------------------------------ */

typedef struct {
  const char *path, *text;
  size_t at, n;
  char key[MAX_TOKEN + 4]; /* UTF-8 */
  size_t nkey;
} json;

static sq_status json_fail(const json *j, const char *expected)
{
  char word[SQ_SHOWN];
  const size_t at = j->at < j->n ? j->at : j->n;
  return sq_fail(SQ_ERR_DATA, "%s: byte %zu: expected %s, found \"%s\"", j->path, at, expected,
                 sq_text_shown(j->text + at, j->n - at, word));
}

static void json_skip(json *j)
{
  while (j->at < j->n && j->text[j->at] != '\0' && strchr(" \t\r\n", j->text[j->at]) != NULL) j->at++;
}

static int json_take(json *j, char c)
{
  json_skip(j);
  if (j->at >= j->n || j->text[j->at] != c) return 0;
  j->at++;
  return 1;
}

/* Four hexadecimal digits at `at`; -1 if there are not. */
static int32_t hex4(const json *j, size_t at)
{
  int32_t u = 0;
  if (at + 4 > j->n) return -1;
  for (size_t i = at; i < at + 4; ++i) {
    const char c = j->text[i];
    const int d = c >= '0' && c <= '9'   ? c - '0'
                  : c >= 'a' && c <= 'f' ? c - 'a' + 10
                  : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                         : -1;
    if (d < 0) return -1;
    u = u << 4 | d;
  }
  return u;
}

static size_t put_utf8(char *out, int32_t u)
{
  if (u < 0x80) {
    out[0] = (char)u;
    return 1;
  }
  if (u < 0x800) {
    out[0] = (char)(0xc0 | u >> 6);
    out[1] = (char)(0x80 | (u & 63));
    return 2;
  }
  out[0] = (char)(0xe0 | u >> 12);
  out[1] = (char)(0x80 | (u >> 6 & 63));
  out[2] = (char)(0x80 | (u & 63));
  return 3;
}

/* What follows a backslash.  Spellings have no character above U+01FF, so surrogates are of no use here. */
static sq_status json_escape(json *j)
{
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const char c = j->at < j->n ? j->text[j->at] : '\0';
  const char *k = c != '\0' ? strchr(from, c) : NULL;
  if (k != NULL) {
    j->key[j->nkey++] = to[k - from];
    j->at++;
    return SQ_OK;
  }
  const int32_t u = c == 'u' ? hex4(j, j->at + 1) : -1;
  if (u < 0 || (u >= 0xd800 && u < 0xe000)) return json_fail(j, "an escape such as \\n or \\u0120");
  j->nkey += put_utf8(j->key + j->nkey, u);
  j->at += 5;
  return SQ_OK;
}

static sq_status json_key(json *j)
{
  sq_status st = SQ_OK;
  j->nkey = 0;
  if (!json_take(j, '"')) return json_fail(j, "a token in quotes");
  while (j->at < j->n && j->text[j->at] != '"') {
    if (j->nkey >= MAX_TOKEN) return json_fail(j, "a token of at most 4096 bytes");
    if (j->text[j->at] == '\\') {
      j->at++;
      SQ_TRY(json_escape(j));
    } else if ((unsigned char)j->text[j->at] < ' ') {
      return json_fail(j, "no control character inside quotes");
    } else {
      j->key[j->nkey++] = j->text[j->at++];
    }
  }
  if (!json_take(j, '"')) return json_fail(j, "a closing quote (file cut short?)");
done:
  return st;
}

static sq_status json_id(json *j, long *id)
{
  json_skip(j);
  const size_t first = j->at;
  *id = 0;
  while (j->at < j->n && j->text[j->at] >= '0' && j->text[j->at] <= '9' && j->at - first < 9)
    *id = *id * 10 + (j->text[j->at++] - '0');
  if (j->at == first) return json_fail(j, "an id (a whole number)");
  if (*id >= BPE_MAX_VOCAB) return json_fail(j, "an id below 65536 in front of this");
  return SQ_OK;
}

/* Special tokens are spelled <|...|>; anything else has to be a byte or made by a merge. */
static int is_special(const json *j)
{
  return j->nkey > 4 && memcmp(j->key, "<|", 2) == 0 && memcmp(j->key + j->nkey - 2, "|>", 2) == 0;
}

typedef struct {
  unsigned char *taken; /* (BPE_MAX_VOCAB) this id */
  unsigned char *named; /* (symbols) */
  int nspecial;
} vocabulary;

static sq_status add_entry(sq_bpe *b, symbols *y, json *j, vocabulary *v)
{
  char word[SQ_SHOWN];
  long id;
  sq_status st;

  SQ_TRY(json_key(j));
  if (!json_take(j, ':')) SQ_TRY(json_fail(j, "a colon"));
  SQ_TRY(json_id(j, &id));
  if (v->taken[id])
    return sq_fail(SQ_ERR_DATA, "%s: byte %zu: id %ld for \"%s\" is taken already; expected every id once",
                   j->path, j->at, id, sq_text_shown(j->key, j->nkey, word));
  v->taken[id] = 1;
  b->nvocab++;
  const int n = spelled(y, j->key, j->nkey, y->word);
  const int32_t symbol = n > 0 ? *symbol_slot(y, y->word, (size_t)n) - 1 : -1;
  if (symbol < 0 && is_special(j)) {
    v->nspecial++;
    return SQ_OK;
  }
  if (symbol < 0)
    return sq_fail(
        SQ_ERR_DATA,
        "%s: byte %zu: token \"%s\" is no byte and no merge of %s makes it; expected vocabulary and "
        "merges of one tokenizer (lines missing?)",
        j->path, j->at, sq_text_shown(j->key, j->nkey, word), y->path);
  if (v->named[symbol])
    return sq_fail(SQ_ERR_DATA, "%s: byte %zu: token \"%s\" for the second time; expected every token once",
                   j->path, j->at, sq_text_shown(j->key, j->nkey, word));
  v->named[symbol] = 1;
  b->id[symbol] = (uint16_t)id;
done:
  return st;
}

static sq_status check_counts(const sq_bpe *b, const symbols *y, const json *j, const vocabulary *v)
{
  char text[4 * 24 + 1] = "";
  for (uint32_t k = 0; k < y->n; ++k) {
    if (v->named[k]) continue;
    for (size_t i = y->off[k], n = 0; i < y->off[k + 1] && n < 24; ++i, ++n)
      sq_format(text + 2 * n, 3, "%02x", y->text[i]);
    return sq_fail(
        SQ_ERR_DATA,
        "%s: %d tokens, and none for bytes %s (hex), which %s makes; expected 256 bytes + %d merges "
        "+ special tokens",
        j->path, b->nvocab, text, y->path, b->nmerge);
  }
  for (int id = 0; id < b->nvocab; ++id)
    if (!v->taken[id])
      return sq_fail(SQ_ERR_DATA, "%s: %d tokens, but none has id %d; expected 0..%d without gaps", j->path,
                     b->nvocab, id, b->nvocab - 1);
  return SQ_OK;
}

static sq_status read_entries(sq_bpe *b, symbols *y, json *j, vocabulary *v)
{
  sq_status st = SQ_OK;
  if (!json_take(j, '{')) return json_fail(j, "{ and tokens with their ids");
  do {
    SQ_TRY(add_entry(b, y, j, v));
  } while (json_take(j, ','));
  if (!json_take(j, '}')) return json_fail(j, "a comma or } (file cut short?)");
  json_skip(j);
  if (j->at < j->n) return json_fail(j, "nothing after }");
  SQ_TRY(check_counts(b, y, j, v));
done:
  return st;
}

static sq_status read_vocabulary(sq_bpe *b, symbols *y, const char *path, const char *text, size_t n)
{
  json *j = sq_calloc(1, sizeof *j, "vocabulary");
  vocabulary v = {.taken = sq_calloc(BPE_MAX_VOCAB, 1, "vocabulary"),
                  .named = sq_calloc(y->n, 1, "vocabulary")};
  sq_status st = j != NULL && v.taken != NULL && v.named != NULL ? SQ_OK : SQ_ERR_MEMORY;
  if (st == SQ_OK) {
    j->path = path;
    j->text = text;
    j->n = n;
    st = read_entries(b, y, j, &v);
  }
  free(v.taken);
  free(v.named);
  free(j);
  return st;
}

sq_status sq_bpe_load(const char *vocab, const char *merges, sq_bpe **out)
{
  sq_bpe *b = sq_calloc(1, sizeof *b, "tokenizer");
  symbols *y = sq_calloc(1, sizeof *y, "tokenizer");
  char *text[2] = {NULL, NULL};
  size_t n[2] = {0, 0};
  sq_status st = SQ_OK;

  *out = NULL;
  if (b == NULL || y == NULL) SQ_TRY(SQ_ERR_MEMORY);
  text[0] = sq_data_read(merges, "merges, two tokens a line (GPT-2's merges.txt or vocab.bpe)", &n[0], &st);
  if (text[0] != NULL)
    text[1] = sq_data_read(vocab, "{\"token\": id, ...} (GPT-2's vocab.json or encoder.json)", &n[1], &st);
  SQ_TRY(st);
  const size_t lines = count_lines(text[0], n[0]);
  if (lines > BPE_MAX_VOCAB - 256)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %zu lines; at most %d merges are supported", merges, lines,
                   BPE_MAX_VOCAB - 256));
  SQ_TRY(symbols_create(y, merges, lines));
  SQ_TRY(pairs_create(&b->pairs, lines));
  b->id = sq_calloc(256 + lines, sizeof *b->id, "tokenizer");
  if (b->id == NULL) SQ_TRY(SQ_ERR_MEMORY);
  SQ_TRY(read_merges(b, y, text[0], n[0]));
  SQ_TRY(read_vocabulary(b, y, vocab, text[1], n[1]));
  sq_unicode_classes(b->class_of);
  b->checksum = sq_hash(sq_hash(sq_hash(SQ_HASH_START, text[0], n[0]), "|", 1), text[1], n[1]);
  *out = b;
  b = NULL;
done:
  if (y != NULL) symbols_destroy(y);
  free(y);
  free(text[0]);
  free(text[1]);
  sq_bpe_destroy(&b);
  return st;
}
