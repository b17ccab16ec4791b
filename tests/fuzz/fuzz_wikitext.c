/* tests/fuzz/fuzz_wikitext.c: vocabulary, merges and text; the first byte of the input says which the rest is. */
#include "../../src/task/bpe.h"

#include "fuzz.h"

static char vocab[16384];
static const char merges[] = "#version: 0.2\na b\nab c\n";
static const char text[] = " = Title = \n \n some abc text ab here \n abcabc\n";

static void make_vocab(void)
{
  size_t at = 0;
  for (int c = 0, next = 256; c < 256; ++c) {
    const int itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
    at += (size_t)snprintf(vocab + at, sizeof vocab - at, "%s\"\\u%04x\": %d", c == 0 ? "{" : ", ",
                           (unsigned)(itself ? c : next++), c);
  }
  (void)snprintf(vocab + at, sizeof vocab - at, ", \"ab\": 256, \"abc\": 257, \"<|endoftext|>\": 258}\n");
}

/* Ids of a text, with the good tokenizer, whose tables take longer to fill than a short text to encode. */
static void encode(const uint8_t *data, size_t n)
{
  static sq_bpe *bpe;
  static sq_bpe_coder *coder;
  sq_ids ids = {0};
  size_t bytes = 0;
  if (bpe == NULL) {
    FUZZ_ASSERT(sq_bpe_load(fuzz_path("vocab.json"), fuzz_path("merges.txt"), &bpe) == SQ_OK);
    FUZZ_ASSERT(sq_bpe_coder_create(bpe, &coder) == SQ_OK);
  }
  sq_error_clear();
  const sq_status st = sq_bpe_encode(coder, "text", (const char *)data, n, &ids);
  if (st != SQ_OK) {
    fuzz_refused(st);
    FUZZ_ASSERT(sq_utf8_check((const char *)data, n) < n);
  } else { /* the tokens' bytes are the text's: "ab" has two, "abc" three, the others one */
    for (size_t i = 0; i < ids.n; ++i) bytes += ids.v[i] == 256 ? 2 : ids.v[i] == 257 ? 3 : 1;
    FUZZ_ASSERT(bytes == n && sq_utf8_check((const char *)data, n) == n);
  }
  sq_ids_clear(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const char *const name[3] = {"vocab.json", "merges.txt", "wiki.train.raw"};
  static sq_experiment *e[2];
  if (e[0] == NULL) {
    make_vocab();
    fuzz_write("wiki.valid.raw", text, strlen(text));
    fuzz_write("wiki.test.raw", text, strlen(text));
    e[0] = fuzz_cell("wikitext", ",\"block_size\":8,\"vocab_size\":259");
    e[1] = fuzz_cell("wikitext", ",\"block_size\":8,\"vocab_size\":257");
  }
  if (n == 0) return 0;
  fuzz_write(name[0], vocab, strlen(vocab));
  fuzz_write(name[1], merges, strlen(merges));
  fuzz_write(name[2], text, strlen(text));
  if (data[0] % 3 == 2 && data[0] < 128) {
    encode(data + 1, n - 1);
    return 0;
  }
  fuzz_write(name[data[0] % 3], data + 1, n - 1);
  fuzz_task(e[data[0] / 3 % 2], data[0] / 6 % 8 == 7);
  return 0;
}
