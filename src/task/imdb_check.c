/* src/task/imdb_check.c: what is in a folder of reviews, for people. */
#include <stdlib.h>
#include <string.h>

#include "imdb_impl.h"
#include "sq/base.h"

enum { CHECK_MOST = 4095, CHECK_MIN_COUNT = 15, NBIN = 8, BIN = 512 };
static const char *const part_name[IMDB_NPART] = {"train", "test"};

static void print_parts(const imdb_data *d, FILE *out)
{
  fprintf(out, "%-12s %7s %7s %7s | %8s %8s %8s | %8s %8s %8s | %9s %9s\n", "part", "files", "neg", "pos",
          "chars >=", "mean", "<=", "bytes >=", "mean", "<=", "cut", "not ASCII");
  for (int k = 0; k < IMDB_NPART; ++k) {
    const imdb_part *p = &d->part[k];
    const double n = (double)p->n;
    fprintf(out, "%-12s %7zu %7zu %7zu | %8zu %8.1f %8zu | %8zu %8.1f %8zu | %9zu %9zu\n", part_name[k], p->n,
            p->nneg, p->n - p->nneg, p->shortest, (double)p->total / n, p->longest, p->least_bytes,
            (double)p->bytes / n, p->most_bytes, p->ncut, p->nwide);
  }
  fprintf(out, "cut: longer than %d characters\n\n", CHECK_MOST);
}

static void print_lengths(const imdb_data *d, FILE *out)
{
  fprintf(out, "%-12s", "characters");
  for (int b = 0; b < NBIN; ++b) fprintf(out, " %4d-%-4d", b * BIN, (b + 1) * BIN - 1);
  fprintf(out, "\n");
  for (int k = 0; k < IMDB_NPART; ++k) {
    const imdb_part *p = &d->part[k];
    size_t bin[NBIN] = {0};
    for (size_t i = 0; i < p->n; ++i) bin[(p->off[i + 1] - p->off[i]) / BIN]++;
    fprintf(out, "%-12s", part_name[k]);
    for (int b = 0; b < NBIN; ++b) fprintf(out, " %9zu", bin[b]);
    fprintf(out, "\n");
  }
  fprintf(out, "\n");
}

static void print_vocabulary(const imdb_data *d, const uint16_t *id, int vocab, FILE *out)
{
  int distinct = 0;
  for (int k = 1; k < d->ncode; ++k) distinct += d->count[k] > 0;
  fprintf(out,
          "vocabulary   %d: %d distinct characters in training, %d seen at least %d times, %d specials\n",
          vocab, distinct, vocab - IMDB_NSPECIAL, CHECK_MIN_COUNT, IMDB_NSPECIAL);
  for (int k = 0; k < IMDB_NPART; ++k) {
    const imdb_part *p = &d->part[k];
    size_t unknown = 0;
    for (size_t i = 0; i < p->off[p->n]; ++i) unknown += id[p->code[i]] == IMDB_UNK;
    fprintf(out, "unknown in %s: %zu of %zu characters\n", part_name[k], unknown, p->off[p->n]);
  }
}

typedef struct {
  uint64_t hash;
  const uint16_t *code;
  size_t n;
  int part;
} text;

static int by_hash(const void *pa, const void *pb)
{
  const text *a = pa, *b = pb;
  if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
  return a->part - b->part;
}

static sq_status print_repeats(const imdb_data *d, FILE *out)
{
  const size_t n = d->part[0].n + d->part[1].n;
  text *t = sq_calloc(n, sizeof *t, "reviews to compare");
  size_t m = 0, within[IMDB_NPART] = {0}, across = 0;
  if (t == NULL) return SQ_ERR_MEMORY;
  for (int k = 0; k < IMDB_NPART; ++k)
    for (size_t i = 0; i < d->part[k].n; ++i) {
      const uint16_t *code = d->part[k].code + d->part[k].off[i];
      const size_t len = d->part[k].off[i + 1] - d->part[k].off[i];
      t[m++] = (text){sq_hash(SQ_HASH_START, code, len * sizeof *code), code, len, k};
    }
  qsort(t, n, sizeof *t, by_hash);
  for (size_t i = 1; i < n; ++i) {
    const text *a = &t[i - 1], *b = &t[i];
    if (a->hash != b->hash || a->n != b->n || memcmp(a->code, b->code, a->n * sizeof *a->code) != 0) continue;
    if (a->part == b->part)
      within[a->part]++;
    else
      across++;
  }
  fprintf(out, "repeated     %zu within train, %zu within test, %zu of train in test\n", within[0], within[1],
          across);
  free(t);
  return SQ_OK;
}

sq_status sq_imdb_check(const char *where, FILE *out)
{
  char dir[SQ_PATH_MAX], hex[65];
  uint16_t *id = NULL;
  imdb_data d = {0};
  sq_sha256 sum;
  sq_status st;
  sq_sha256_init(&sum);
  SQ_TRY(sq_imdb_find(where, dir));
  SQ_TRY(sq_imdb_read(dir, CHECK_MOST, &sum, &d));
  id = sq_calloc(IMDB_MAX_CODES, sizeof *id, "vocabulary");
  const int vocab = id != NULL ? sq_imdb_vocabulary(&d, CHECK_MIN_COUNT, id) : -1;
  if (vocab < 0) SQ_TRY(SQ_ERR_MEMORY);
  sq_sha256_hex(&sum, hex);
  fprintf(out, "%s\n\n", dir);
  print_parts(&d, out);
  print_lengths(&d, out);
  print_vocabulary(&d, id, vocab, out);
  SQ_TRY(print_repeats(&d, out));
  fprintf(out, "checksum     %s\n(SHA-256 of the lines \"<SHA-256>  aclImdb/<path>\", sorted by path)\n",
          hex);
done:
  free(id);
  sq_imdb_clear(&d);
  return st;
}
