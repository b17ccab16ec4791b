/* src/task/imdb_read.c: aclImdb/{train,test}/{pos,neg}/ID_RATING.txt, and the vocabulary. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imdb_impl.h"
#include "sq/base.h"

static const char layout[] =
    "aclImdb/{train,test}/{pos,neg}/ID_RATING.txt, the Large Movie Review Dataset v1.0; get it with: "
    "jobs/fetch-data.sh imdb";

sq_status sq_imdb_find(const char *dir, char out[SQ_PATH_MAX])
{
  static const char *const folder[] = {"aclImdb", "", NULL};
  return sq_data_find("imdb", dir, folder, "train/pos", layout, out);
}

/* ---- folders ----------------------------------------------------------------------------------------- */

typedef struct {
  char **v;
  size_t n, cap;
} names;

static void names_clear(names *f)
{
  for (size_t i = 0; i < f->n; ++i) free(f->v[i]);
  free(f->v);
  *f = (names){0};
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(names *f, const char *name)
{
  if (f->n == f->cap) {
    const size_t cap = f->cap == 0 ? 1024 : 2 * f->cap;
    char **v = realloc(f->v, cap * sizeof *v);
    if (v == NULL) return 0;
    f->v = v;
    f->cap = cap;
  }
  f->v[f->n] = strdup(name);
  return f->v[f->n] != NULL && ++f->n > 0;
}

static sq_status list_folder(const char *path, names *f)
{
  DIR *d = opendir(path);
  sq_status st = SQ_OK;
  if (d == NULL)
    return sq_fail(SQ_ERR_DATA, "%s: cannot be opened: %s; expected a folder of reviews ID_RATING.txt", path,
                   strerror(errno));
  for (const struct dirent *e; st == SQ_OK && (e = readdir(d)) != NULL;) {
    const size_t n = strlen(e->d_name);
    if (n > 4 && strcmp(e->d_name + n - 4, ".txt") == 0 && !add_name(f, e->d_name))
      st = sq_fail(SQ_ERR_MEMORY, "%s: no memory for its %zu names", path, f->n);
  }
  closedir(d);
  if (st == SQ_OK && f->n == 0)
    st = sq_fail(SQ_ERR_DATA, "%s: no file *.txt in it; expected reviews ID_RATING.txt", path);
  if (st == SQ_OK) qsort(f->v, f->n, sizeof *f->v, by_name);
  return st;
}

/* ---- reviews ----------------------------------------------------------------------------------------- */

static sq_status part_reserve(imdb_part *p, size_t chars)
{
  if (p->n + 2 > p->cap) {
    const size_t cap = p->cap == 0 ? 4096 : 2 * p->cap;
    size_t *off = realloc(p->off, cap * sizeof *off);
    if (off == NULL) return sq_fail(SQ_ERR_MEMORY, "task imdb: no memory for %zu reviews", cap);
    if (p->off == NULL) off[0] = 0;
    p->off = off;
    p->cap = cap;
  }
  if (p->off[p->n] + chars > p->code_cap) {
    const size_t cap = p->code_cap + p->code_cap / 2 + chars;
    uint16_t *code = realloc(p->code, cap * sizeof *code);
    if (code == NULL) return sq_fail(SQ_ERR_MEMORY, "task imdb: no memory for %zu characters", cap);
    p->code = code;
    p->code_cap = cap;
  }
  return SQ_OK;
}

static uint16_t code_of(imdb_data *d, int32_t u)
{
  if (d->code_of[u] == 0 && d->ncode < IMDB_MAX_CODES) {
    d->point[d->ncode] = u;
    d->code_of[u] = (uint16_t)d->ncode++;
  }
  return d->code_of[u];
}

static void take_statistics(imdb_part *p, size_t chars, size_t bytes, size_t most)
{
  p->shortest = p->n == 0 || chars < p->shortest ? chars : p->shortest;
  p->longest = chars > p->longest ? chars : p->longest;
  p->least_bytes = p->n == 0 || bytes < p->least_bytes ? bytes : p->least_bytes;
  p->most_bytes = bytes > p->most_bytes ? bytes : p->most_bytes;
  p->total += chars;
  p->bytes += bytes;
  p->ncut += chars > most;
  p->nwide += chars < bytes;
}

static sq_status add_review(imdb_data *d, int part, const char *path, const char *text, size_t n)
{
  imdb_part *p = &d->part[part];
  const unsigned char *s = (const unsigned char *)text;
  size_t chars = 0;
  const sq_status st = part_reserve(p, n < d->most ? n : d->most);
  if (st != SQ_OK) return st;
  uint16_t *out = p->code + p->off[p->n];
  for (size_t at = 0; at < n; ++chars) {
    int bytes;
    const int32_t u = sq_utf8_at(s + at, n - at, &bytes);
    if (u < 0)
      return sq_fail(SQ_ERR_DATA, "%s: byte %zu: 0x%02x is not UTF-8 here; expected a review in UTF-8", path,
                     at, s[at]);
    at += (size_t)bytes;
    if (chars >= d->most) continue;
    out[chars] = code_of(d, u);
    if (part == IMDB_TRAIN) d->count[out[chars]]++;
  }
  take_statistics(p, chars, n, d->most);
  p->off[p->n + 1] = p->off[p->n] + (chars < d->most ? chars : d->most);
  p->n++;
  return SQ_OK;
}

static void add_checksum(sq_sha256 *sum, const char *folder, const char *name, const char *text, size_t n)
{
  char line[SQ_PATH_MAX + 80], hex[65];
  sq_sha256_of(text, n, hex);
  sq_format(line, sizeof line, "%s  aclImdb/%s/%s\n", hex, folder, name);
  sq_sha256_add(sum, line, strlen(line));
}

static sq_status read_folder(imdb_data *d, int part, const char *dir, const char *folder)
{
  char path[SQ_PATH_MAX], file[SQ_PATH_MAX];
  names f = {0};
  char *text = NULL;
  sq_status st;
  SQ_TRY(sq_path_join(path, dir, folder));
  SQ_TRY(list_folder(path, &f));
  for (size_t i = 0; i < f.n; ++i) {
    size_t n = 0;
    SQ_TRY(sq_path_join(file, path, f.v[i]));
    text = sq_data_read(file, "a review in UTF-8", &n, &st);
    SQ_TRY(st);
    if (d->checksum != NULL) add_checksum(d->checksum, folder, f.v[i], text, n);
    SQ_TRY(add_review(d, part, file, text, n));
    free(text);
    text = NULL;
  }
done:
  free(text);
  names_clear(&f);
  return st;
}

sq_status sq_imdb_read(const char *dir, size_t most, sq_sha256 *checksum, imdb_data *d)
{
  sq_status st = SQ_OK;
  *d = (imdb_data){.most = most, .checksum = checksum, .ncode = 1};
  d->code_of = sq_calloc(UNICODE_LIMIT, sizeof *d->code_of, "task imdb: characters");
  d->point = sq_calloc(IMDB_MAX_CODES, sizeof *d->point, "task imdb: characters");
  d->count = sq_calloc(IMDB_MAX_CODES, sizeof *d->count, "task imdb: characters");
  if (d->code_of == NULL || d->point == NULL || d->count == NULL) SQ_TRY(SQ_ERR_MEMORY);
  SQ_TRY(read_folder(d, IMDB_TEST, dir, "test/neg"));
  d->part[IMDB_TEST].nneg = d->part[IMDB_TEST].n;
  SQ_TRY(read_folder(d, IMDB_TEST, dir, "test/pos"));
  SQ_TRY(read_folder(d, IMDB_TRAIN, dir, "train/neg"));
  d->part[IMDB_TRAIN].nneg = d->part[IMDB_TRAIN].n;
  SQ_TRY(read_folder(d, IMDB_TRAIN, dir, "train/pos"));
done:
  return st;
}

void sq_imdb_clear(imdb_data *d)
{
  for (int k = 0; k < IMDB_NPART; ++k) {
    free(d->part[k].code);
    free(d->part[k].off);
  }
  free(d->code_of);
  free(d->point);
  free(d->count);
  *d = (imdb_data){0};
}

/* ---- vocabulary -------------------------------------------------------------------------------------- */

typedef struct {
  size_t count;
  int32_t point;
  int code;
} character;

static int by_count(const void *pa, const void *pb)
{
  const character *a = pa, *b = pb;
  if (a->count != b->count) return a->count > b->count ? -1 : 1;
  return a->point < b->point ? -1 : a->point > b->point;
}

int sq_imdb_vocabulary(const imdb_data *d, size_t min_count, uint16_t *id)
{
  character *c = sq_calloc((size_t)d->ncode, sizeof *c, "task imdb: vocabulary");
  int n = 0;
  for (int k = 0; k < IMDB_MAX_CODES; ++k) id[k] = IMDB_UNK;
  if (c == NULL) return -1;
  for (int k = 1; k < d->ncode; ++k)
    if (d->count[k] >= min_count && n < IMDB_MAX_CODES - IMDB_NSPECIAL)
      c[n++] = (character){d->count[k], d->point[k], k};
  qsort(c, (size_t)n, sizeof *c, by_count);
  for (int k = 0; k < n; ++k) id[c[k].code] = (uint16_t)(IMDB_NSPECIAL + k);
  free(c);
  return IMDB_NSPECIAL + n;
}
