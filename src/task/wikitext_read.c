/* src/task/wikitext_read.c: text to tokens, by one reader or several.
 *
 * The readers share the text: each reads a part of the file, takes checksums of some pieces of it, and makes the tokens
 * from one place where words may be cut to another.  Neither places nor readers show in the tokens: parts one after the
 * other are the whole.  What one reader has to know of another stands in a table that all share. */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "sq/base.h"
#include "token_cache.h"
#include "wikitext_impl.h"

enum {
  MAP_LINES = 1000,
  NPIECE = 64
}; /* lines whose tokens are cut together; pieces of a text with a checksum each */
static const char expected[] = "UTF-8 text, one paragraph a line";

/* Seen by all readers. */
struct wikitext_table {
  size_t bytes;         /* of the file being read, as rank 0 has it */
  uint64_t sum[NPIECE]; /* of the text's pieces */
  uint64_t key[SQ_NSPLIT];
  int cached[SQ_NSPLIT]; /* the tokens were on disk: rank 0 has them all */
  size_t count[];        /* (SQ_NSPLIT, size) tokens of a reader */
};

static size_t count_lines(const char *text, size_t n)
{
  size_t lines = 0;
  for (const char *p = text; (p = memchr(p, '\n', (size_t)(text + n - p))) != NULL; ++p) ++lines;
  return lines;
}

/* text[at..end-1] of a text of n bytes. */
static sq_status check_line_ends(const char *path, const char *text, size_t n, size_t at, size_t end)
{
  const char *cr = at < end ? memchr(text + at, '\r', end - at) : NULL;
  while (cr != NULL && cr + 1 < text + n && cr[1] != '\n')
    cr = memchr(cr + 1, '\r', (size_t)(text + end - (cr + 1)));
  if (cr == NULL) return SQ_OK;
  return sq_fail(SQ_ERR_DATA,
                 "%s:%zu: line ends in CR LF; expected LF, as in the official files (line ends "
                 "converted?)",
                 path, 1 + count_lines(text, (size_t)(cr - text)));
}

sq_status sq_wikitext_read(const char *path, char **text, size_t *n)
{
  sq_status st;
  *text = sq_data_read(path, expected, n, &st);
  SQ_TRY(st);
  st = check_line_ends(path, *text, *n, 0, *n);
  if (st == SQ_OK) return st;
  free(*text);
  *text = NULL;
done:
  return st;
}

static int is_empty(const char *line, size_t n)
{
  for (size_t i = 0; i < n; ++i)
    if (strchr(" \t\n\v\f", line[i]) == NULL || line[i] == '\0') return 0;
  return 1;
}

/* Line by line, remainders dropped. */
static sq_status encode_lines(sq_bpe_coder *c, const char *path, const char *text, size_t at, size_t stop,
                              size_t block, sq_ids *ids)
{
  const char *p = text + at, *end = text + stop;
  size_t line = count_lines(text, at), first = 0;
  sq_status st = SQ_OK;
  while (p < end) {
    const char *nl = memchr(p, '\n', (size_t)(end - p)), *next = nl != NULL ? nl + 1 : end;
    char where[SQ_PATH_MAX + 32];
    sq_format(where, sizeof where, "%s:%zu", path, line + 1);
    if (!is_empty(p, (size_t)(next - p))) SQ_TRY(sq_bpe_encode(c, where, p, (size_t)(next - p), ids));
    p = next;
    if (++line % MAP_LINES != 0 && p < end) continue;
    ids->n = first + (ids->n - first) / block * block;
    first = ids->n;
  }
done:
  return st;
}

/* text[at..end-1], which begins and ends where a part may. */
static sq_status encode_part(const sq_bpe *b, const char *path, const char *text, size_t n, size_t at,
                             size_t end, int map_block, sq_ids *ids)
{
  sq_bpe_coder *c = NULL;
  sq_status st;
  SQ_TRY(sq_bpe_coder_create(b, &c));
  SQ_TRY(map_block > 0 ? encode_lines(c, path, text, at, end, (size_t)map_block, ids)
                       : sq_bpe_encode_part(c, path, text, n, at, end, ids));
done:
  sq_bpe_coder_destroy(&c);
  return st;
}

sq_status sq_wikitext_encode(const sq_bpe *b, const char *path, const char *text, size_t n, int map_block,
                             sq_ids *ids)
{
  return encode_part(b, path, text, n, 0, n, map_block, ids);
}

/* ---- parts ------------------------------------------------------------------------------------------- */

/* Part k of n is share(n, k) .. share(n, k + 1)-1 of something. */
static size_t share(size_t n, int k, int parts)
{
  return n / (size_t)parts * (size_t)k + n % (size_t)parts * (size_t)k / (size_t)parts;
}

/* The first place from `at` on where the text may be cut. */
static size_t cut(const char *text, size_t n, size_t at, int by_lines)
{
  if (!by_lines) {
    while (!sq_bpe_may_cut(text, n, at)) ++at;
    return at;
  }
  size_t lines = count_lines(text, at);
  while (at > 0 && at < n && (lines % MAP_LINES != 0 || text[at - 1] != '\n')) {
    const char *nl = memchr(text + at, '\n', n - at);
    at = nl != NULL ? (size_t)(nl - text) + 1 : n;
    ++lines;
  }
  return at;
}

static void sum_pieces(const wikitext_reading *w, const char *text, size_t n)
{
  for (int k = w->r->rank; k < NPIECE; k += w->r->size) {
    const size_t at = share(n, k, NPIECE);
    w->table->sum[k] = sq_hash(SQ_HASH_START, text + at, share(n, k + 1, NPIECE) - at);
  }
}

/* All that decides the tokens. */
static uint64_t cache_key(const wikitext_reading *w, size_t n)
{
  const uint64_t part[] = {sq_hash(SQ_HASH_START, w->table->sum, sizeof w->table->sum), n,
                           sq_bpe_checksum(w->bpe), w->map_block > 0, (uint64_t)w->map_block};
  const char *unicode = sq_unicode_version();
  return sq_hash(sq_hash(SQ_HASH_START, unicode, strlen(unicode)), part, sizeof part);
}

static size_t *counts(const wikitext_reading *w, int split)
{
  return w->table->count + split * w->r->size;
}

/* Rank 0 looks for the tokens on disk; where they are not, every reader makes its part of them. */
static sq_status make_tokens(wikitext_reading *w, int split, const char *path, const char *text, size_t n)
{
  const sq_readers *r = w->r;
  sq_ids *ids = &w->ids[split];
  sq_status st = SQ_OK;
  if (r->rank == 0) {
    w->table->key[split] = cache_key(w, n);
    w->table->cached[split] = sq_token_cache_load(w->table->key[split], ids);
  }
  SQ_TRY(r->agree(r->user, SQ_OK));
  if (!w->table->cached[split])
    st = encode_part(w->bpe, path, text, n, cut(text, n, share(n, r->rank, r->size), w->map_block > 0),
                     cut(text, n, share(n, r->rank + 1, r->size), w->map_block > 0), w->map_block, ids);
  counts(w, split)[r->rank] = ids->n;
  st = r->agree(r->user, st);
done:
  return st;
}

static sq_status tokenise_split(wikitext_reading *w, int split, const char *path)
{
  const sq_readers *r = w->r;
  FILE *f = NULL;
  size_t bytes = 0;
  char *text = NULL;
  sq_status st = sq_data_open(path, expected, &f, &bytes);
  if (r->rank == 0) w->table->bytes = bytes;
  SQ_TRY(r->agree(r->user, st));
  const size_t n = w->table->bytes, at = share(n, r->rank, r->size), end = share(n, r->rank + 1, r->size);
  text = r->allocate(r->user, n);
  w->no_room = text == NULL;
  if (w->no_room) goto done;
  SQ_TRY(r->agree(r->user, sq_data_read_part(f, path, at, end, n, text + at)));
  sum_pieces(w, text, n);
  SQ_TRY(r->agree(r->user, check_line_ends(path, text, n, at, end)));
  SQ_TRY(make_tokens(w, split, path, text, n));
done:
  if (text != NULL) r->release(r->user, text);
  if (f != NULL) fclose(f);
  return st;
}

sq_status sq_wikitext_tokenise(wikitext_reading *w, char path[SQ_NSPLIT][SQ_PATH_MAX])
{
  sq_status st = SQ_OK;
  w->table = w->r->allocate(w->r->user, sizeof *w->table + (size_t)(SQ_NSPLIT * w->r->size) * sizeof(size_t));
  w->no_room = w->table == NULL;
  for (int s = 0; s < SQ_NSPLIT && !w->no_room; ++s) SQ_TRY(tokenise_split(w, s, path[s]));
done:
  return st;
}

size_t sq_wikitext_tokens(const wikitext_reading *w, int split)
{
  size_t n = 0;
  for (int k = 0; k < w->r->size; ++k) n += counts(w, split)[k];
  return n;
}

sq_status sq_wikitext_gather(wikitext_reading *w, sq_task_block *b)
{
  const sq_readers *r = w->r;
  size_t bytes[SQ_NSPLIT];
  for (int s = 0; s < SQ_NSPLIT; ++s) bytes[s] = sq_wikitext_tokens(w, s) * sizeof(uint16_t);
  sq_task_block whole = {.bytes = sq_block_bytes(bytes, SQ_NSPLIT)};
  unsigned char *data = r->allocate(r->user, whole.bytes);
  whole.data = data;
  if (data == NULL) return SQ_OK;
  if (r->rank == 0) sq_block_begin(data, bytes, SQ_NSPLIT);
  (void)r->agree(r->user, SQ_OK); /* the sections have places */
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    const uint16_t *section = sq_block_section(&whole, s, NULL);
    size_t at = (size_t)((const unsigned char *)section - data);
    for (int k = 0; k < r->rank; ++k) at += counts(w, s)[k] * sizeof(uint16_t);
    if (w->ids[s].n > 0) memcpy(data + at, w->ids[s].v, w->ids[s].n * sizeof(uint16_t));
  }
  (void)r->agree(r->user, SQ_OK);
  for (int s = 0; r->rank == 0 && s < SQ_NSPLIT; ++s)
    if (!w->table->cached[s])
      sq_token_cache_store(w->table->key[s], sq_block_section(&whole, s, NULL), bytes[s] / sizeof(uint16_t));
  *b = whole;
  return SQ_OK;
}

void sq_wikitext_clear(wikitext_reading *w)
{
  for (int s = 0; s < SQ_NSPLIT; ++s) sq_ids_clear(&w->ids[s]);
  if (w->table != NULL) w->r->release(w->r->user, w->table);
  sq_bpe_destroy(&w->bpe);
}
