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

/* ---- aan: n pairs a file, labels 0 and 1 in turn; texts of up to 40 bytes ------------------------------- */

static inline void make_aan(const char *dir, int n)
{
  static const char *const name[] = {"new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv",
                                     "new_aan_pairs.test.tsv"};
  uint32_t seed = 31;
  for (int k = 0; k < 3; ++k) {
    FILE *f = fopen(path_in(dir, name[k]), "wb");
    assert_non_null(f);
    for (int i = 0; i < n; ++i) {
      fprintf(f, "%d.0\tP%d\tQ%d", i % 2, i, i);
      for (int part = 0; part < 2; ++part) {
        fputc('\t', f);
        for (unsigned j = 0, len = 10 + fixture_random(&seed) % 30; j < len; ++j)
          fputc('a' + (int)(fixture_random(&seed) % 26), f);
      }
      fputc('\n', f);
    }
    assert_int_equal(fclose(f), 0);
  }
}

/* ---- pathfinder: PNG images whose data are stored, not compressed (RFC 1950, 1951, PNG specification) ----- */

static inline uint32_t png_crc(uint32_t crc, const unsigned char *s, size_t n)
{
  for (size_t i = 0; i < n; ++i) {
    crc ^= s[i];
    for (int k = 0; k < 8; ++k) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return crc;
}

static inline void put_be32(unsigned char *to, uint32_t x)
{
  for (int k = 0; k < 4; ++k) to[k] = (unsigned char)(x >> (24 - 8 * k));
}

static inline void png_chunk(FILE *f, const char *type, const unsigned char *data, size_t n)
{
  unsigned char head[8], end[4];
  put_be32(head, (uint32_t)n);
  memcpy(head + 4, type, 4);
  put_be32(end, ~png_crc(png_crc(~0u, head + 4, 4), data, n));
  assert_int_equal(fwrite(head, 1, 8, f), 8);
  assert_int_equal(fwrite(data, 1, n, f), n);
  assert_int_equal(fwrite(end, 1, 4, f), 4);
}

/* pixel: (side, side, channels), channels 1 (grey) or 3 (colours); side <= 64. */
static inline void write_png(const char *path, unsigned side, unsigned channels, const unsigned char *pixel)
{
  unsigned char head[13] = {0, 0, 0, 0, 0, 0, 0, 0, 8, (unsigned char)(channels == 3 ? 2 : 0), 0, 0, 0};
  unsigned char data[64 * (64 * 3 + 1) + 11] = {0x78, 0x01, 1};
  const size_t row = (size_t)side * channels, n = side * (row + 1);
  uint32_t a = 1, b = 0;
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  put_be32(head, side);
  put_be32(head + 4, side);
  data[3] = (unsigned char)n;
  data[4] = (unsigned char)(n >> 8);
  data[5] = (unsigned char)~data[3];
  data[6] = (unsigned char)~data[4];
  for (unsigned y = 0; y < side; ++y) {
    data[7 + y * (row + 1)] = 0; /* no filter */
    memcpy(data + 8 + y * (row + 1), pixel + y * row, row);
  }
  for (size_t i = 0; i < n; ++i) {
    a = (a + data[7 + i]) % 65521;
    b = (b + a) % 65521;
  }
  put_be32(data + 7 + n, b << 16 | a);
  assert_int_equal(fwrite("\x89PNG\r\n\x1a\n", 1, 8, f), 8);
  png_chunk(f, "IHDR", head, 13);
  png_chunk(f, "IDAT", data, n + 11);
  png_chunk(f, "IEND", head, 0);
  assert_int_equal(fclose(f), 0);
}

enum { PATH_SIDE = 32 };

/* n images in two folders, labels 0 and 1 in turn; pixels from the image's number. */
static inline void path_pixels(int i, unsigned char pixel[PATH_SIDE * PATH_SIDE])
{
  uint32_t seed = 100 + (uint32_t)i;
  for (int k = 0; k < PATH_SIDE * PATH_SIDE; ++k) pixel[k] = (unsigned char)(fixture_random(&seed) >> 7);
}

static inline void make_pathfinder(const char *dir, int n)
{
  static const char *const folder[] = {"pathfinder32",
                                       "pathfinder32/curv_contour_length_14",
                                       "pathfinder32/curv_contour_length_14/imgs",
                                       "pathfinder32/curv_contour_length_14/imgs/0",
                                       "pathfinder32/curv_contour_length_14/imgs/1",
                                       "pathfinder32/curv_contour_length_14/metadata"};
  for (int k = 0; k < 6; ++k) assert_int_equal(mkdir(path_in(dir, folder[k]), 0700), 0);
  for (int part = 0; part < 2; ++part) {
    char name[128];
    snprintf(name, sizeof name, "%s/metadata/%d.npy", folder[1], part);
    FILE *f = fopen(path_in(dir, name), "wb");
    assert_non_null(f);
    for (int i = part; i < n; i += 2) {
      unsigned char pixel[PATH_SIDE * PATH_SIDE];
      path_pixels(i, pixel);
      snprintf(name, sizeof name, "%s/imgs/%d/sample_%d.png", folder[1], part, i);
      write_png(path_in(dir, name), PATH_SIDE, 1, pixel);
      fprintf(f, "imgs/%d sample_%d.png %d %d 1.0 0 0\n", part, i, i, i / 2 % 2);
    }
    assert_int_equal(fclose(f), 0);
  }
}

/* ---- set-up and tear-down ------------------------------------------------------------------------------ */

/* The folder of a test's data, from its set-up (make_folder) to this tear-down. */
static char dir[64];

static inline int remove_dir(void **state)
{
  (void)state;
  remove_tree(dir);
  return 0;
}
