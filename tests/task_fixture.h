/* tests/task_fixture.h: small data sets in the official layouts, made by the tests. */
#pragma once

#include <ftw.h>
#include <sys/stat.h>

#include "task_test.h"

static inline const char *path_in(const char *dir, const char *name)
{
  static char path[8][512];
  static int turn;
  char *p = path[turn++ % 8];
  snprintf(p, sizeof *path, "%s/%s", dir, name);
  return p;
}

static inline int remove_one(const char *path, const struct stat *s, int type, struct FTW *f)
{
  (void)s;
  (void)type;
  (void)f;
  return remove(path);
}

static inline void remove_tree(const char *dir)
{
  assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline unsigned fixture_random(uint32_t *x) /* xorshift, Marsaglia 2003 */
{
  *x ^= *x << 13;
  *x ^= *x >> 17;
  *x ^= *x << 5;
  return *x;
}

/* ---- wikitext: a tokenizer of 258 tokens (bytes, "ab" 256, <|endoftext|> 257) and three texts -------- */

static inline void write_tokenizer(const char *dir)
{
  static const char merges[] = "#version: 0.2\na b\n";
  FILE *f = fopen(path_in(dir, "vocab.json"), "wb");
  assert_non_null(f);
  fputs("{", f);
  for (int c = 0, next = 256; c < 256; ++c) {
    const int itself = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
    fprintf(f, "\"\\u%04x\": %d, ", (unsigned)(itself ? c : next++), c);
  }
  fputs("\"ab\": 256, \"<|endoftext|>\": 257}\n", f);
  assert_int_equal(fclose(f), 0);
  write_text(path_in(dir, "merges.txt"), merges, strlen(merges));
}

/* `lines` lines of random words; every third is empty (one blank), as in the official files. */
static inline void write_wiki(const char *path, int lines, uint32_t seed)
{
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  for (int i = 0; i < lines; ++i) {
    fputc(' ', f);
    for (int w = 0; i % 3 != 2 && w < 5; ++w) {
      for (unsigned k = 0, n = 1 + fixture_random(&seed) % 6; k < n; ++k)
        fputc('a' + (int)(fixture_random(&seed) % 4), f);
      fputc(' ', f);
    }
    fputc('\n', f);
  }
  assert_int_equal(fclose(f), 0);
}

static inline void make_wikitext(const char *dir)
{
  write_tokenizer(dir);
  write_wiki(path_in(dir, "wiki.train.raw"), 2500, 1);
  write_wiki(path_in(dir, "wiki.valid.raw"), 60, 2);
  write_wiki(path_in(dir, "wiki.test.raw"), 50, 3);
}

#define WIKITEXT_KEYS "\"_name_\":\"wikitext\",\"block_size\":16,\"vocab_size\":258"

/* ---- cifar: `n` records a file, labels 0..9 in turn, random pixels ----------------------------------- */

enum { CIFAR_RECORD = 3073 };

static inline void write_cifar_batch(const char *path, int n, uint32_t seed)
{
  unsigned char *data = malloc((size_t)n * CIFAR_RECORD);
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < CIFAR_RECORD; ++k)
      data[i * CIFAR_RECORD + k] = (unsigned char)(k == 0 ? (unsigned)i % 10 : fixture_random(&seed) >> 11);
  write_text(path, (const char *)data, (size_t)n * CIFAR_RECORD);
  free(data);
}

static inline void make_cifar(const char *dir, int n)
{
  char name[32];
  for (int k = 1; k <= 5; ++k) {
    snprintf(name, sizeof name, "data_batch_%d.bin", k);
    write_cifar_batch(path_in(dir, name), n, (uint32_t)k);
  }
  write_cifar_batch(path_in(dir, "test_batch.bin"), n, 6);
}

/* ---- imdb: `n` reviews a class and part; characters a..e, fewer of the later ones --------------------- */

static inline void write_review(const char *dir, const char *folder, int i, const char *text)
{
  char path[512];
  snprintf(path, sizeof path, "%s/%s/%d_%d.txt", dir, folder, i, strstr(folder, "pos") != NULL ? 8 : 2);
  write_text(path, text, strlen(text));
}

static inline void make_imdb(const char *dir, int n)
{
  static const char *const folder[] = {"train", "test", "train/neg", "train/pos", "test/neg", "test/pos"};
  uint32_t seed = 11;
  for (int k = 0; k < 6; ++k) {
    assert_int_equal(mkdir(path_in(dir, folder[k]), 0700), 0);
    for (int i = 0; k >= 2 && i < n; ++i) {
      char text[64];
      const unsigned len = 5 + fixture_random(&seed) % 50;
      for (unsigned j = 0; j < len; ++j)
        text[j] = (char)('a' + fixture_random(&seed) % (1 + fixture_random(&seed) % 5));
      text[len] = '\0';
      write_review(dir, folder[k], i, text);
    }
  }
}

/* ---- mnist: n training and n test images, labels 0..9 in turn ---------------------------------------- */

static inline void write_idx(const char *path, int images, unsigned n, uint32_t seed)
{
  const size_t head = images ? 16 : 8, size = images ? 784 : 1;
  unsigned char *data = calloc(head + n * size, 1);
  data[2] = 8;
  data[3] = images ? 3 : 1;
  for (int k = 0; k < 4; ++k) data[4 + k] = (unsigned char)(n >> (24 - 8 * k));
  if (images) data[11] = data[15] = 28;
  for (size_t i = 0; i < n * size; ++i)
    data[head + i] = (unsigned char)(images ? fixture_random(&seed) >> 9 : i % 10);
  write_text(path, (const char *)data, head + n * size);
  free(data);
}

static inline void make_mnist(const char *dir, unsigned n)
{
  write_idx(path_in(dir, "train-images-idx3-ubyte"), 1, n, 21);
  write_idx(path_in(dir, "train-labels-idx1-ubyte"), 0, n, 0);
  write_idx(path_in(dir, "t10k-images-idx3-ubyte"), 1, n, 22);
  write_idx(path_in(dir, "t10k-labels-idx1-ubyte"), 0, n, 0);
}
