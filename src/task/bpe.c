/* src/task/bpe.c: text to ids.
 *
 * A text repeats its words: the ids of short ones are kept in a table.  Words of up to SHORT_WORD bytes are
 * merged by looking at all pairs for every merge; longer ones with a heap of pairs, O(n log n). */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

enum { SHORT_WORD = 32, KEPT_WORD = 32 }; /* bytes */
enum { SLOT_BITS = 17, POOL_BYTES = 8 << 20 };

typedef struct {
  uint32_t at;       /* in the pool: bytes of the word, then its ids; 0: free */
  uint32_t tag;      /* high bits of the hash */
  uint16_t len, nid; /* bytes, ids */
} slot;

struct sq_bpe_coder {
  const sq_bpe *b;
  slot *slot; /* (1 << SLOT_BITS) */
  unsigned char *pool;
  size_t used, nslot; /* of the pool, of the slots */
  /* a long word */
  size_t cap; /* bytes of the longest so far */
  uint32_t *sym, *next, *prev, *rank;
  uint64_t *heap; /* (3 cap) rank << 32 | position */
  size_t nheap;
};

sq_status sq_ids_reserve(sq_ids *ids, size_t more)
{
  if (more <= ids->cap - ids->n) return SQ_OK;
  size_t cap = ids->cap < 1024 ? 1024 : ids->cap + ids->cap / 2;
  if (cap < ids->n + more) cap = ids->n + more;
  uint16_t *v = realloc(ids->v, cap * sizeof *v);
  if (v == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for %zu tokens", cap);
  ids->v = v;
  ids->cap = cap;
  return SQ_OK;
}

void sq_ids_clear(sq_ids *ids)
{
  free(ids->v);
  *ids = (sq_ids){0};
}

/* ---- words ------------------------------------------------------------------------------------------- */

static inline int class_at(const uint8_t *class_of, const unsigned char *s, size_t n, size_t at, int *bytes)
{
  if (s[at] < 0x80) {
    *bytes = 1;
    return class_of[s[at]];
  }
  const int32_t u = sq_utf8_at(s + at, n - at, bytes);
  return u < 0 ? -1 : class_of[u];
}

/* 0 where it is not UTF-8. */
static size_t run_end(const uint8_t *class_of, const unsigned char *s, size_t n, size_t at, int class)
{
  while (at < n) {
    int bytes;
    const int k = class_at(class_of, s, n, at, &bytes);
    if (k < 0) return 0;
    if (k != class) break;
    at += (size_t)bytes;
  }
  return at;
}

static size_t contraction_end(const unsigned char *s, size_t n, size_t at)
{
  const size_t left = n - at;
  const int a = left > 1 ? s[at + 1] : 0, b = left > 2 ? s[at + 2] : 0;
  if (a == 's' || a == 't') return at + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e')) return at + 3;
  if (a == 'm') return at + 2;
  if (a == 'l' && b == 'l') return at + 3;
  return a == 'd' ? at + 2 : at;
}

/* White space from at on: all of it at the end of the text, else all but the last character, unless it is the
 * only one. */
static size_t space_end(const uint8_t *class_of, const unsigned char *s, size_t n, size_t at)
{
  size_t end = at, last = at;
  while (end < n) {
    int bytes;
    const int k = class_at(class_of, s, n, end, &bytes);
    if (k < 0) return 0;
    if (k != UNICODE_SPACE) break;
    last = end;
    end += (size_t)bytes;
  }
  return end == n || last == at ? end : last;
}

size_t sq_bpe_word_end(const uint8_t *class_of, const unsigned char *s, size_t n, size_t at)
{
  int bytes, k;
  if (s[at] == '\'') {
    const size_t end = contraction_end(s, n, at);
    if (end > at) return end;
  }
  if (s[at] == ' ' && at + 1 < n) {
    k = class_at(class_of, s, n, at + 1, &bytes);
    if (k < 0) return 0;
    if (k != UNICODE_SPACE) return run_end(class_of, s, n, at + 1 + (size_t)bytes, k);
  }
  k = class_at(class_of, s, n, at, &bytes);
  if (k < 0) return 0;
  return k == UNICODE_SPACE ? space_end(class_of, s, n, at) : run_end(class_of, s, n, at + (size_t)bytes, k);
}

/* ---- merging ----------------------------------------------------------------------------------------- */

/* Bytes s[0..n-1], n <= SHORT_WORD, to ids; returns how many. */
static size_t merge_short(const sq_bpe *b, const unsigned char *s, size_t n, uint16_t *id)
{
  uint32_t sym[SHORT_WORD], rank[SHORT_WORD];
  for (size_t i = 0; i < n; ++i) sym[i] = s[i];
  for (size_t i = 0; i + 1 < n; ++i) rank[i] = bpe_rank(&b->pairs, sym[i], sym[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (rank[i] < rank[best]) best = i;
    if (rank[best] == BPE_NO_RANK) break;
    sym[best] = 256 + rank[best];
    --n;
    for (size_t i = best + 1; i < n; ++i) sym[i] = sym[i + 1];
    for (size_t i = best; i + 1 < n; ++i) rank[i] = rank[i + 1];
    if (best + 1 < n) rank[best] = bpe_rank(&b->pairs, sym[best], sym[best + 1]);
    if (best > 0) rank[best - 1] = bpe_rank(&b->pairs, sym[best - 1], sym[best]);
  }
  for (size_t i = 0; i < n; ++i) id[i] = b->id[sym[i]];
  return n;
}

static void heap_push(sq_bpe_coder *c, uint64_t x)
{
  size_t i = c->nheap++;
  while (i > 0 && c->heap[(i - 1) / 2] > x) {
    c->heap[i] = c->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  c->heap[i] = x;
}

static uint64_t heap_pop(sq_bpe_coder *c)
{
  const uint64_t top = c->heap[0], x = c->heap[--c->nheap];
  size_t i = 0;
  for (size_t k = 1; k < c->nheap; k = 2 * i + 1) {
    if (k + 1 < c->nheap && c->heap[k + 1] < c->heap[k]) ++k;
    if (c->heap[k] >= x) break;
    c->heap[i] = c->heap[k];
    i = k;
  }
  c->heap[i] = x;
  return top;
}

static sq_status grow_work(sq_bpe_coder *c, size_t n)
{
  if (n <= c->cap) return SQ_OK;
  free(c->sym);
  free(c->heap);
  c->cap = 0;
  c->sym = sq_calloc(n, 4 * sizeof *c->sym, "tokenizer: a long word");
  c->heap = sq_calloc(n, 3 * sizeof *c->heap, "tokenizer: a long word");
  if (c->sym == NULL || c->heap == NULL) return SQ_ERR_MEMORY;
  c->next = c->sym + n;
  c->prev = c->next + n;
  c->rank = c->prev + n;
  c->cap = n;
  return SQ_OK;
}

/* Pair of position i and its successor, which may be none (n). */
static void set_pair(sq_bpe_coder *c, uint32_t i, uint32_t n)
{
  c->rank[i] = c->next[i] < n ? bpe_rank(&c->b->pairs, c->sym[i], c->sym[c->next[i]]) : (uint32_t)BPE_NO_RANK;
  if (c->rank[i] != BPE_NO_RANK) heap_push(c, (uint64_t)c->rank[i] << 32 | i);
}

/* A merge takes one pair from the heap and pushes at most two, and there are less than n: 3n are enough. */
static sq_status merge_long(sq_bpe_coder *c, const unsigned char *s, size_t n, sq_ids *out)
{
  const uint32_t end = (uint32_t)n;
  sq_status st;

  if (n >= UINT32_MAX) return sq_fail(SQ_ERR_DATA, "a word of %zu bytes; at most 4 GiB are supported", n);
  SQ_TRY(grow_work(c, n));
  SQ_TRY(sq_ids_reserve(out, n));
  c->nheap = 0;
  for (uint32_t i = 0; i < end; ++i) {
    c->sym[i] = s[i];
    c->next[i] = i + 1;
    c->prev[i] = i - 1; /* of the first: UINT32_MAX */
  }
  for (uint32_t i = 0; i < end; ++i) set_pair(c, i, end);
  while (c->nheap > 0) {
    const uint64_t top = heap_pop(c);
    const uint32_t i = (uint32_t)top, rank = (uint32_t)(top >> 32);
    if (c->rank[i] != rank) continue; /* merged away, or another pair by now */
    const uint32_t gone = c->next[i];
    c->sym[i] = 256 + rank;
    c->rank[gone] = BPE_NO_RANK;
    c->next[i] = c->next[gone];
    if (c->next[i] < end) c->prev[c->next[i]] = i;
    set_pair(c, i, end);
    if (i > 0) set_pair(c, c->prev[i], end);
  }
  for (uint32_t i = 0; i < end; i = c->next[i]) out->v[out->n++] = c->b->id[c->sym[i]];
done:
  return st;
}

/* ---- words seen before ------------------------------------------------------------------------------- */

static uint64_t word_hash(const unsigned char *s, size_t n)
{
  uint64_t h = n, w = 0;
  for (; n >= 8; n -= 8, s += 8) {
    memcpy(&w, s, 8);
    h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
  }
  w = 0;
  for (size_t i = 0; i < n; ++i) w = w << 8 | s[i];
  h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

/* The word's slot, or the free one for it. */
static slot *find_slot(const sq_bpe_coder *c, const unsigned char *s, size_t n, uint64_t hash)
{
  const uint32_t mask = (1u << SLOT_BITS) - 1, tag = (uint32_t)(hash >> 32);
  uint32_t h = (uint32_t)hash & mask;
  for (;; h = (h + 1) & mask) {
    slot *k = &c->slot[h];
    if (k->at == 0 || (k->tag == tag && k->len == n && memcmp(c->pool + k->at, s, n) == 0)) return k;
  }
}

/* Keeps a word if there is room.  Words that come early are the common ones: none is thrown out. */
static void keep_word(sq_bpe_coder *c, slot *k, const unsigned char *s, size_t n, uint64_t hash,
                      const uint16_t *id, size_t nid)
{
  const size_t bytes = n + nid * sizeof *id;
  if (c->nslot >= (size_t)1 << (SLOT_BITS - 1) || c->used + bytes > POOL_BYTES) return;
  *k = (slot){(uint32_t)c->used, (uint32_t)(hash >> 32), (uint16_t)n, (uint16_t)nid};
  memcpy(c->pool + c->used, s, n);
  memcpy(c->pool + c->used + n, id, nid * sizeof *id);
  c->used += bytes;
  c->nslot++;
}

static sq_status encode_word(sq_bpe_coder *c, const unsigned char *s, size_t n, sq_ids *out)
{
  if (n > SHORT_WORD) return merge_long(c, s, n, out);
  const sq_status st = sq_ids_reserve(out, n);
  if (st != SQ_OK) return st;
  uint16_t *id = out->v + out->n;
  const uint64_t hash = word_hash(s, n);
  slot *k = find_slot(c, s, n, hash);
  if (k->at != 0) {
    memcpy(id, c->pool + k->at + n, k->nid * sizeof *id);
    out->n += k->nid;
    return SQ_OK;
  }
  const size_t nid = merge_short(c->b, s, n, id);
  keep_word(c, k, s, n, hash, id, nid);
  out->n += nid;
  return SQ_OK;
}

/* ---- text -------------------------------------------------------------------------------------------- */

sq_status sq_bpe_encode_part(sq_bpe_coder *c, const char *where, const char *text, size_t n, size_t at,
                             size_t end, sq_ids *out)
{
  const unsigned char *s = (const unsigned char *)text;
  sq_status st = SQ_OK;
  while (at < end) {
    const size_t next = sq_bpe_word_end(c->b->class_of, s, n, at);
    if (next == 0) {
      const size_t bad = at + sq_utf8_check(text + at, n - at);
      return sq_fail(SQ_ERR_DATA, "%s: byte %zu: 0x%02x is not UTF-8 here; expected UTF-8 text", where, bad,
                     s[bad]);
    }
    SQ_TRY(encode_word(c, s + at, next - at, out));
    at = next;
  }
  SQ_ASSERT(at == end);
done:
  return st;
}

/* A word has a blank at its beginning only, unless it is white space, which a visible character is not. */
int sq_bpe_may_cut(const char *text, size_t n, size_t at)
{
  return at == 0 || at >= n ||
         ((text[at] == ' ' || text[at] == '\n') && text[at - 1] > ' ' && text[at - 1] < 127);
}

sq_status sq_bpe_encode(sq_bpe_coder *c, const char *where, const char *text, size_t n, sq_ids *out)
{
  return sq_bpe_encode_part(c, where, text, n, 0, n, out);
}

sq_status sq_bpe_coder_create(const sq_bpe *b, sq_bpe_coder **out)
{
  sq_bpe_coder *c = sq_calloc(1, sizeof *c, "tokenizer");
  *out = c;
  if (c == NULL) return SQ_ERR_MEMORY;
  c->b = b;
  c->used = 1; /* place 0 means free */
  c->slot = sq_calloc((size_t)1 << SLOT_BITS, sizeof *c->slot, "tokenizer: words");
  c->pool = sq_calloc(POOL_BYTES, 1, "tokenizer: words");
  if (c->slot != NULL && c->pool != NULL) return SQ_OK;
  sq_bpe_coder_destroy(out);
  return SQ_ERR_MEMORY;
}

void sq_bpe_coder_destroy(sq_bpe_coder **pc)
{
  sq_bpe_coder *c = *pc;
  if (c == NULL) return;
  free(c->slot);
  free(c->pool);
  free(c->sym);
  free(c->heap);
  free(c);
  *pc = NULL;
}

void sq_bpe_destroy(sq_bpe **pb)
{
  sq_bpe *b = *pb;
  if (b == NULL) return;
  free(b->pairs.key);
  free(b->pairs.rank);
  free(b->id);
  free(b);
  *pb = NULL;
}

int sq_bpe_vocab_size(const sq_bpe *b)
{
  return b->nvocab;
}

uint64_t sq_bpe_checksum(const sq_bpe *b)
{
  return b->checksum;
}
