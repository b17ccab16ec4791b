/* tests/test_task_bpe.c: the byte-level tokenizer: reference ids, other ways to the same ids, wrong files. */
#include <sys/stat.h>

#include "task_test.h"

#include "../src/task/bpe.h"
#include "sq/rng.h"

static char folder[64];

static const char *in_folder(const char *name)
{
  static char path[4][160];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof *path, "%s/%s", folder, name);
  return p;
}

static sq_bpe *shared_tokenizer(void)
{
  sq_bpe *b = NULL;
  need_shared("gpt2/vocab.bpe");
  sq_error_clear();
  if (sq_bpe_open(SHARED, &b) != SQ_OK) fail_msg("%s", sq_error_text());
  return b;
}

static void encode(sq_bpe_coder *c, const char *text, size_t n, sq_ids *ids)
{
  ids->n = 0;
  sq_error_clear();
  if (sq_bpe_encode(c, "text", text, n, ids) != SQ_OK) fail_msg("%s", sq_error_text());
}

/* ---- reference ids ----------------------------------------------------------------------------------- */

static void ids_of_the_reference_text_are_exact(void **state)
{
  sq_bpe *b = shared_tokenizer();
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  sq_status st;
  size_t n, bytes;
  (void)state;
  char *text = sq_read_file(SHARED "/gpt2/wikitext-test-head.txt", &n, &st),
       *golden = sq_read_file(SHARED "/gpt2/wikitext-test-head.ids.i32", &bytes, &st);
  assert_non_null(text);
  assert_non_null(golden);
  assert_int_equal(sq_bpe_vocab_size(b), 50257);
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  encode(c, text, n, &ids);
  assert_int_equal(ids.n, bytes / 4);
  assert_int_equal(ids.n, 45572);
  for (size_t i = 0; i < ids.n; ++i) {
    int32_t want;
    memcpy(&want, golden + 4 * i, 4);
    assert_int_equal(ids.v[i], want);
  }
  free(text);
  free(golden);
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

static void ids_of_every_reference_string_are_exact(void **state)
{
  sq_bpe *b = shared_tokenizer();
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  sq_status st;
  size_t bytes;
  int lines = 0;
  (void)state;
  char *file = sq_read_file(SHARED "/gpt2/tricky.hex.tsv", &bytes, &st), *rest = file, *line;
  assert_non_null(file);
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
    char *golden = line, *hex = strsep(&golden, "\t");
    const size_t n = strlen(hex) / 2;
    char *text = calloc(n + 1, 1);
    assert_non_null(golden);
    for (size_t i = 0; i < n; ++i) {
      unsigned byte;
      assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
      text[i] = (char)byte;
    }
    encode(c, text, n, &ids);
    size_t k = 0;
    for (char *p = golden, *end; *p != '\0'; p = end, ++k) {
      const long want = strtol(p, &end, 10);
      if (end == p) break;
      if (k >= ids.n || ids.v[k] != want) fail_msg("line %d: id %zu is not %ld", lines + 1, k, want);
    }
    assert_int_equal(k, ids.n);
    free(text);
    ++lines;
  }
  assert_int_equal(lines, 97);
  free(file);
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

static void white_space_is_that_of_unicode(void **state)
{
  static const struct {
    const char *text;
    uint16_t id[5];
  } golden[] = {{"x \xC2\x85y", {87, 220, 126, 227, 88}}, {"x \xEF\xBB\xBFy", {87, 27332, 119, 123, 88}}};
  sq_bpe *b = shared_tokenizer();
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  (void)state;
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  for (size_t i = 0; i < COUNT(golden); ++i) {
    encode(c, golden[i].text, strlen(golden[i].text), &ids);
    assert_int_equal(ids.n, 5);
    assert_memory_equal(ids.v, golden[i].id, sizeof golden[i].id);
  }
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

static void whole_files_have_the_known_number_of_tokens(void **state)
{
  static const struct {
    const char *name;
    size_t tokens;
  } known[] = {{"valid.raw", 249887}, {"test.raw", 286221}, {"train.raw", 219847}, {"train.tokens", 635342}};
  sq_bpe *b = shared_tokenizer();
  (void)state;
  for (size_t i = 0; i < COUNT(known); ++i) {
    char path[256];
    size_t n;
    sq_status st;
    sq_bpe_coder *c = NULL;
    sq_ids ids = {0};
    snprintf(path, sizeof path, SHARED "/wikitext/wiki.%s", known[i].name);
    char *text = sq_read_file(path, &n, &st);
    assert_non_null(text);
    assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
    encode(c, text, n, &ids);
    assert_int_equal(ids.n, known[i].tokens);
    free(text);
    sq_ids_clear(&ids);
    sq_bpe_coder_destroy(&c);
  }
  sq_bpe_destroy(&b);
}

/* ---- words: the pattern, one alternative after the other, by hand ------------------------------------ */

typedef struct {
  int32_t u[256];
  size_t at[257], n; /* code points and their offsets */
} points;

static int is_of(const uint8_t *class_of, const points *p, size_t i, int class)
{
  return i < p->n && class_of[p->u[i]] == class;
}

/* ` ?X+` from i on: the end, or i. */
static size_t blank_and_run(const uint8_t *class_of, const points *p, size_t i, int class)
{
  const size_t first = i + (i < p->n && p->u[i] == ' ');
  for (size_t from = first;; from = i) { /* with the blank, else without */
    size_t end = from;
    while (is_of(class_of, p, end, class)) ++end;
    if (end > from) return end;
    if (from == i) return i;
  }
}

static size_t slow_word_end(const uint8_t *class_of, const points *p, size_t i)
{
  static const char *const contraction[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  for (size_t k = 0; k < COUNT(contraction); ++k) {
    size_t m = 0;
    while (contraction[k][m] != '\0' && i + m < p->n && p->u[i + m] == contraction[k][m]) ++m;
    if (contraction[k][m] == '\0') return i + m;
  }
  static const int order[] = {UNICODE_LETTER, UNICODE_NUMBER, UNICODE_OTHER};
  for (size_t k = 0; k < COUNT(order); ++k) {
    const size_t end = blank_and_run(class_of, p, i, order[k]);
    if (end > i) return end;
  }
  size_t end = i;
  while (is_of(class_of, p, end, UNICODE_SPACE)) ++end;
  for (size_t e = end; e > i; --e) /* \s+(?!\S), longest first */
    if (e == p->n || is_of(class_of, p, e, UNICODE_SPACE)) return e;
  return end;
}

static void words_end_where_the_pattern_says(void **state)
{
  /* Of every class, of every number of bytes, and what contractions are made of. */
  static const char *const piece[] = {" ",
                                      " ",
                                      "'",
                                      "s",
                                      "t",
                                      "r",
                                      "e",
                                      "v",
                                      "l",
                                      "d",
                                      "m",
                                      "S",
                                      "1",
                                      "\n",
                                      "\t",
                                      "!",
                                      ".",
                                      "\x1c",
                                      "\xC3\xA9",
                                      "\xC2\x85",
                                      "\xC2\xA0",
                                      "\xE3\x80\x80",
                                      "\xCC\x81",
                                      "\xC2\xBD",
                                      "\xE4\xB8\xAD",
                                      "\xF0\x9F\x98\x80",
                                      "\xF0\x9D\x9F\x98",
                                      "\xEF\xBB\xBF",
                                      ""};
  uint8_t *class_of = malloc(UNICODE_LIMIT);
  sq_rng r;
  (void)state;
  sq_unicode_classes(class_of);
  sq_rng_init(&r, 1, SQ_STREAM_TEST, 0);
  for (int trial = 0; trial < 20000; ++trial) {
    char text[256] = "";
    points p = {.n = 0};
    size_t n = 0, at = 0, i = 0;
    const int len = 1 + (int)sq_rng_below(&r, 12);
    for (int k = 0; k < len; ++k) {
      const char *add = piece[sq_rng_below(&r, COUNT(piece) - 1)];
      int bytes;
      p.at[p.n] = n;
      p.u[p.n++] = sq_utf8_at((const unsigned char *)add, strlen(add), &bytes);
      memcpy(text + n, add, strlen(add));
      n += strlen(add);
    }
    p.at[p.n] = n;
    while (at < n) {
      const size_t end = sq_bpe_word_end(class_of, (const unsigned char *)text, n, at);
      i = slow_word_end(class_of, &p, i);
      if (end != p.at[i])
        fail_msg("trial %d: word at %zu ends at %zu, expected %zu", trial, at, end, p.at[i]);
      at = end;
    }
  }
  free(class_of);
}

static void code_points_are_classed_as_unicode_says(void **state)
{
  static const struct {
    int32_t u;
    int class;
  } known[] = {{'a', UNICODE_LETTER},    {'Z', UNICODE_LETTER},     {0xe9, UNICODE_LETTER},
               {0x4e2d, UNICODE_LETTER}, {0x1d400, UNICODE_LETTER}, {0x2a6d6, UNICODE_LETTER},
               {'7', UNICODE_NUMBER},    {0xbd, UNICODE_NUMBER},    {0x2167, UNICODE_NUMBER},
               {0x661, UNICODE_NUMBER},  {'_', UNICODE_OTHER},      {0x301, UNICODE_OTHER},
               {0x1c, UNICODE_OTHER},    {0x200b, UNICODE_OTHER},   {0xfeff, UNICODE_OTHER},
               {0x1f600, UNICODE_OTHER}, {0x10ffff, UNICODE_OTHER}, {0x180e, UNICODE_OTHER}};
  uint8_t *class_of = malloc(UNICODE_LIMIT);
  int space = 0;
  (void)state;
  sq_unicode_classes(class_of);
  for (size_t i = 0; i < COUNT(known); ++i) assert_int_equal(class_of[known[i].u], known[i].class);
  for (int32_t u = 0; u < UNICODE_LIMIT; ++u) space += class_of[u] == UNICODE_SPACE;
  assert_int_equal(space, 25); /* White_Space in PropList.txt */
  free(class_of);
}

/* ---- a tokenizer of the test's own ------------------------------------------------------------------- */

enum { NLETTER = 4, NMERGE = 60 };

typedef struct {
  char text[NLETTER + NMERGE][64];
  int left[NMERGE], right[NMERGE];
} toy;

/* Merges of random pairs of what is there, over the letters a..d; the vocabulary gives merge r the id 300-r,
   so that an id is never by chance its symbol. */
static void make_toy(toy *y, uint64_t seed)
{
  sq_rng r;
  FILE *f = fopen(in_folder("merges.txt"), "wb");
  sq_rng_init(&r, seed, SQ_STREAM_TEST, 1);
  for (int i = 0; i < NLETTER; ++i) snprintf(y->text[i], 64, "%c", 'a' + i);
  fputs("#version: 0.2\n", f);
  for (int k = 0; k < NMERGE;) {
    char both[128];
    int seen = 0;
    const int a = (int)sq_rng_below(&r, (uint32_t)(NLETTER + k)),
              b = (int)sq_rng_below(&r, (uint32_t)(NLETTER + k));
    snprintf(both, sizeof both, "%s%s", y->text[a], y->text[b]);
    for (int i = 0; i < NLETTER + k; ++i) seen |= strcmp(y->text[i], both) == 0;
    if (seen || strlen(both) > 12) continue;
    strcpy(y->text[NLETTER + k], both);
    fprintf(f, "%s %s\n", y->text[a], y->text[b]);
    y->left[k] = a;
    y->right[k++] = b;
  }
  fclose(f);
  f = fopen(in_folder("vocab.json"), "wb");
  fputs("{", f);
  for (int c = 0, next = 256; c < 256; ++c) {
    const int itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
    fprintf(f, "\"\\u%04x\": %d, ", (unsigned)(itself ? c : next++), c);
  }
  for (int k = 0; k < NMERGE; ++k) fprintf(f, "\"%s\": %d, ", y->text[NLETTER + k], 256 + NMERGE - 1 - k);
  fprintf(f, "\"<|endoftext|>\": %d}\n", 256 + NMERGE);
  fclose(f);
}

/* The rule, word for word: take the merge of the lowest rank that fits anywhere, apply it everywhere from the
 * left, repeat. */
static size_t slow_merge(const toy *y, const char *s, size_t n, uint16_t *id)
{
  int *sym = malloc(n * sizeof *sym);
  for (size_t i = 0; i < n; ++i) sym[i] = s[i] - 'a';
  for (;;) {
    int best = NMERGE;
    for (size_t i = 0; i + 1 < n; ++i)
      for (int k = 0; k < best; ++k)
        if (sym[i] == y->left[k] && sym[i + 1] == y->right[k]) best = k;
    if (best == NMERGE) break;
    size_t m = 0;
    for (size_t i = 0; i < n; ++m) {
      const int fits = i + 1 < n && sym[i] == y->left[best] && sym[i + 1] == y->right[best];
      sym[m] = fits ? NLETTER + best : sym[i];
      i += fits ? 2 : 1;
    }
    n = m;
  }
  for (size_t i = 0; i < n; ++i)
    id[i] = (uint16_t)(sym[i] < NLETTER ? 'a' + sym[i] : 256 + NMERGE - 1 - (sym[i] - NLETTER));
  free(sym);
  return n;
}

static sq_bpe *load_toy(void)
{
  sq_bpe *b = NULL;
  sq_error_clear();
  if (sq_bpe_open(folder, &b) != SQ_OK) fail_msg("%s", sq_error_text());
  return b;
}

static void short_and_long_words_are_merged_by_the_rule(void **state)
{
  (void)state;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    toy y;
    sq_rng r;
    sq_bpe_coder *c = NULL;
    sq_ids ids = {0};
    make_toy(&y, seed);
    sq_bpe *b = load_toy();
    assert_int_equal(sq_bpe_vocab_size(b), 256 + NMERGE + 1);
    assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
    sq_rng_init(&r, seed, SQ_STREAM_TEST, 2);
    for (int trial = 0; trial < 300; ++trial) {
      char word[400];
      uint16_t want[400];
      const size_t n = 1 + sq_rng_below(&r, trial % 3 == 0 ? 400 : 40);
      for (size_t i = 0; i < n; ++i) word[i] = (char)('a' + sq_rng_below(&r, trial % 2 ? 2 : NLETTER));
      const size_t m = slow_merge(&y, word, n, want);
      for (int again = 0; again < 2; ++again) { /* the second time from the table of words */
        encode(c, word, n, &ids);
        assert_int_equal(ids.n, m);
        assert_memory_equal(ids.v, want, m * sizeof *want);
      }
    }
    sq_ids_clear(&ids);
    sq_bpe_coder_destroy(&c);
    sq_bpe_destroy(&b);
  }
}

/* With a quadratic step this is 10^12 operations, which the time limit of the test does not allow. */
static void a_word_of_a_megabyte_takes_no_quadratic_time(void **state)
{
  enum { N = 1 << 20 };
  toy y;
  sq_rng r;
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  char *word = malloc(N);
  (void)state;
  make_toy(&y, 3);
  sq_bpe *b = load_toy();
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  sq_rng_init(&r, 3, SQ_STREAM_TEST, 3);
  for (int random = 0; random < 2; ++random) {
    size_t bytes = 0;
    for (size_t i = 0; i < N; ++i) word[i] = (char)('a' + (random ? (int)sq_rng_below(&r, NLETTER) : 0));
    encode(c, word, N, &ids);
    for (size_t i = 0; i < ids.n; ++i) {
      const char *t = ids.v[i] < 256 ? y.text[ids.v[i] - 'a'] : y.text[NLETTER + 256 + NMERGE - 1 - ids.v[i]];
      assert_memory_equal(word + bytes, t, strlen(t));
      bytes += strlen(t);
    }
    assert_int_equal(bytes, N);
  }
  memset(word, ' ', N); /* white space in front of a letter */
  word[N - 1] = 'a';
  encode(c, word, N, &ids);
  assert_int_equal(ids.n, N);
  free(word);
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

static void text_that_is_not_utf8_is_refused_with_its_place(void **state)
{
  static const struct {
    const char *text;
    size_t n;
    const char *message;
  } bad[] = {
      {"ab\x80", 3, "text: byte 2: 0x80 is not UTF-8 here"},
      {"ab \xC3", 4, "text: byte 3: 0xc3 is not UTF-8 here"},
      {" \xC0\xAF", 3, "text: byte 1: 0xc0 is not UTF-8"},
      {"\xC3\xA9\xED\xA0\x80", 5, "text: byte 2: 0xed is not UTF-8"},
      {"aaa\xF4\x90\x80\x80", 7, "text: byte 3: 0xf4 is not UTF-8"},
      {"\n\n\xE0\x80\x80", 5, "text: byte 2: 0xe0 is not UTF-8"},
      {"aaaaaaaaaaaaaaaa\xFF", 17, "text: byte 16: 0xff is not UTF-8"},
  };
  toy y;
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  (void)state;
  make_toy(&y, 0);
  sq_bpe *b = load_toy();
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  for (size_t i = 0; i < COUNT(bad); ++i) {
    sq_error_clear();
    assert_int_equal(sq_bpe_encode(c, "text", bad[i].text, bad[i].n, &ids), SQ_ERR_DATA);
    if (strncmp(sq_error_text(), bad[i].message, strlen(bad[i].message)) != 0)
      fail_msg("got \"%s\", expected \"%s\"", sq_error_text(), bad[i].message);
  }
  ids.n = 0;
  assert_int_equal(sq_bpe_encode(c, "text", "", 0, &ids), SQ_OK);
  assert_int_equal(ids.n, 0);
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

/* ---- wrong files ------------------------------------------------------------------------------------- */

static char *vocabulary_text(const char *entries)
{
  static char text[8192];
  size_t n = (size_t)snprintf(text, sizeof text, "{");
  for (int c = 0, next = 256; c < 256; ++c) {
    const int itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
    n += (size_t)snprintf(text + n, sizeof text - n, "\"\\u%04x\":%d,", (unsigned)(itself ? c : next++), c);
  }
  snprintf(text + n, sizeof text - n, "%s}", entries);
  return text;
}

static void assert_refused(const char *merges, const char *vocab, const char *message)
{
  sq_bpe *b = NULL;
  write_text(in_folder("merges.txt"), merges, strlen(merges));
  write_text(in_folder("vocab.json"), vocab, strlen(vocab));
  sq_error_clear();
  assert_int_equal(sq_bpe_open(folder, &b), SQ_ERR_DATA);
  assert_null(b);
  if (strstr(sq_error_text(), message) == NULL || strchr(sq_error_text(), '\n') != NULL)
    fail_msg("got \"%s\", expected \"%s\"", sq_error_text(), message);
}

static void wrong_merges_and_vocabularies_are_named(void **state)
{
  static const char merges[] = "#version: 0.2\na b\nab c\n", both[] = "\"ab\":256,\"abc\":257";
  (void)state;
  assert_refused(
      "#version: 0.2\nab c\na b\n", vocabulary_text(both),
      "merges.txt:2: part \"ab\" is made by no merge above; expected merges in order of rank (merges "
      "out of order");
  assert_refused("a b\nb c\na b\n", vocabulary_text(both),
                 "merges.txt:3: \"a b\" makes a token that a line above made already");
  assert_refused("a b\nb c\na bc\nab c\n", vocabulary_text(both), "merges.txt:4: \"ab c\" makes a token");
  assert_refused("a b\nabc\n", vocabulary_text(both), "merges.txt:2: \"abc\"; expected two tokens");
  assert_refused("a b\nab c d\n", vocabulary_text(both), "merges.txt:2: \"ab c d\"; expected two tokens");
  assert_refused("a b\n\nab c\n", vocabulary_text(both), "merges.txt:2: \"\"; expected two tokens");
  assert_refused("a b\r\nab c\n", vocabulary_text(both),
                 "merges.txt:2: line ends in LF, the line above in CR LF; expected one kind");
  assert_refused("a \xE4\xB8\xAD\n", vocabulary_text(both),
                 "merges.txt:1: \"???\" has a character that stands");
  assert_refused("#version: 0.2\n", vocabulary_text(both), "merges.txt: no merges after the version line");
  assert_refused("", vocabulary_text(both), "merges.txt: empty file; expected merges");
  assert_refused("a b\n", vocabulary_text(both), "token \"abc\" is no byte and no merge of");
  assert_refused(merges, vocabulary_text("\"abc\":256"),
                 "vocab.json: 257 tokens, and none for bytes 6162 (hex)");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"abc\":256"), "id 256 for \"abc\" is taken already");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"ab\":257"), "token \"ab\" for the second time");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"abc\":258"),
                 "vocab.json: 258 tokens, but none has id 257; expected 0..257 without gaps");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"abc\":65536"), "expected an id below 65536");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"abc\":-1"), "expected an id (a whole number)");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"abc\":257.5"), "expected a comma or }");
  assert_refused(merges, vocabulary_text("\"ab\":256,\"a\\x\":257"), "expected an escape");
  assert_refused(merges, "{\"a\": 0, \"b", "expected a closing quote (file cut short?), found \"\"");
  assert_refused(merges, "{\"a\": 0", "vocab.json: byte 7: expected a comma or } (file cut short?)");
  assert_refused(merges, "[1, 2]",
                 "vocab.json: byte 0: expected { and tokens with their ids, found \"[1, 2]\"");
  assert_refused(merges, strcat(vocabulary_text(both), " {}"), "expected nothing after }");
}

static void missing_and_unreadable_files_are_named(void **state)
{
  sq_bpe *b = NULL;
  (void)state;
  unlink(in_folder("vocab.json"));
  write_text(in_folder("merges.txt"), "a b\n", 4);
  sq_error_clear();
  assert_int_equal(sq_bpe_open(folder, &b), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "neither vocab.json nor encoder.json in"));
  assert_int_equal(mkdir(in_folder("vocab.json"), 0700), 0);
  sq_error_clear();
  assert_int_equal(sq_bpe_open(folder, &b), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "vocab.json: a folder; expected {\"token\": id, ...}"));
  assert_int_equal(rmdir(in_folder("vocab.json")), 0);
  if (geteuid() == 0) return; /* root reads everything */
  write_text(in_folder("vocab.json"), "{}", 2);
  assert_int_equal(chmod(in_folder("vocab.json"), 0), 0);
  sq_error_clear();
  assert_int_equal(sq_bpe_open(folder, &b), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "vocab.json: cannot be opened: Permission denied; expected"));
}

static int set_up(void **state)
{
  (void)state;
  make_folder(folder);
  return 0;
}

static int tear_down(void **state)
{
  (void)state;
  unlink(in_folder("merges.txt"));
  unlink(in_folder("vocab.json"));
  return rmdir(folder);
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(ids_of_the_reference_text_are_exact),
      cmocka_unit_test(ids_of_every_reference_string_are_exact),
      cmocka_unit_test(white_space_is_that_of_unicode),
      cmocka_unit_test(whole_files_have_the_known_number_of_tokens),
      cmocka_unit_test(words_end_where_the_pattern_says),
      cmocka_unit_test(code_points_are_classed_as_unicode_says),
      cmocka_unit_test(short_and_long_words_are_merged_by_the_rule),
      cmocka_unit_test(a_word_of_a_megabyte_takes_no_quadratic_time),
      cmocka_unit_test(text_that_is_not_utf8_is_refused_with_its_place),
      cmocka_unit_test(wrong_merges_and_vocabularies_are_named),
      cmocka_unit_test(missing_and_unreadable_files_are_named),
  };
  return cmocka_run_group_tests(test, set_up, tear_down);
}
