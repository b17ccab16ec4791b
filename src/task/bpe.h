/* src/task/bpe.h: byte-level byte-pair encoding, as GPT-2 has it.  Radford et al. 2019; Sennrich et al. 2016.
 *
 * Text is cut into words by
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * and the bytes of a word are merged pair by pair, the pair of the lowest rank first, from the left.  Special
 * tokens are never made from text. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sq/status.h"
#include "unicode.h"

enum { BPE_MAX_VOCAB = 65536 }; /* an id is 16 bits wide */

typedef struct sq_bpe sq_bpe;             /* read-only once loaded */
typedef struct sq_bpe_coder sq_bpe_coder; /* one a thread: words seen, work space */

typedef struct {
  uint16_t *v;
  size_t n, cap;
} sq_ids;
sq_status sq_ids_reserve(sq_ids *ids, size_t more);
void sq_ids_clear(sq_ids *ids);

/* vocab.json/encoder.json: {"token": id, ...}; merges.txt/vocab.bpe: a version line, then one merge a line in
   order of rank.  SQ_ERR_DATA (file, line or byte, expected): merges out of order, twice, in another number
   than the vocabulary needs, ids twice or with gaps, and whatever is not such a file. */
sq_status sq_bpe_load(const char *vocab, const char *merges, sq_bpe **b);
/* The tokenizer of a data folder: vocab.json or encoder.json, and merges.txt or vocab.bpe, in <dir>/gpt2 or
   <dir>.  SQ_ERR_DATA with the layout and where to get it. */
sq_status sq_bpe_open(const char *dir, sq_bpe **b);
void sq_bpe_destroy(sq_bpe **b);
int sq_bpe_vocab_size(const sq_bpe *b);    /* special tokens included */
uint64_t sq_bpe_checksum(const sq_bpe *b); /* of both files */

sq_status sq_bpe_coder_create(const sq_bpe *b, sq_bpe_coder **c); /* borrows b */
void sq_bpe_coder_destroy(sq_bpe_coder **c);
/* Appends the ids of text.  SQ_ERR_DATA "<where>: byte N: ..." if it is not UTF-8; SQ_ERR_MEMORY. */
sq_status sq_bpe_encode(sq_bpe_coder *c, const char *where, const char *text, size_t n, sq_ids *out);
/* The ids of text[at..end-1]: of places where sq_bpe_may_cut, those of such parts one after the other are the ids of
   the whole.  Byte N counts from the beginning of the text. */
sq_status sq_bpe_encode_part(sq_bpe_coder *c, const char *where, const char *text, size_t n, size_t at,
                             size_t end, sq_ids *out);
/* No word goes across text[at], whatever stands before and behind: a blank or line feed after a visible ASCII
   character.  Also the beginning and the end. */
int sq_bpe_may_cut(const char *text, size_t n, size_t at);
/* End of the word that begins at s[at] (at < n); 0 if the text is not UTF-8 somewhere in it. */
size_t sq_bpe_word_end(const uint8_t *class_of, const unsigned char *s, size_t n, size_t at);

/* ---- shared by bpe.c and bpe_read.c ------------------------------------------------------------------ */
/* Symbols are numbers: 0..255 the bytes, 256 + r what merge r makes. */
typedef struct {
  uint64_t *key; /* (mask+1) left << 32 | right, or BPE_NO_PAIR */
  uint32_t *rank;
  uint64_t mask;
} bpe_pairs;
#define BPE_NO_PAIR UINT64_MAX
#define BPE_NO_RANK UINT32_MAX

struct sq_bpe {
  uint8_t class_of[UNICODE_LIMIT];
  bpe_pairs pairs;
  uint16_t *id; /* (256 + nmerge) of a symbol */
  int nmerge, nvocab;
  uint64_t checksum;
};

static inline uint64_t bpe_pair_slot(uint64_t key, uint64_t mask)
{
  return (key * UINT64_C(0x9e3779b97f4a7c15)) >> 40 & mask;
}

/* Of pair (left, right); BPE_NO_RANK if it is none. */
static inline uint32_t bpe_rank(const bpe_pairs *p, uint32_t left, uint32_t right)
{
  const uint64_t key = (uint64_t)left << 32 | right;
  uint64_t h = bpe_pair_slot(key, p->mask);
  while (p->key[h] != key) {
    if (p->key[h] == BPE_NO_PAIR) return BPE_NO_RANK;
    h = (h + 1) & p->mask;
  }
  return p->rank[h];
}
