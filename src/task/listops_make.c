/* src/task/listops_make.c: draws ListOps as Long Range Arena's generator distributes it, and writes and
 * checks its files.
 *
 * A node at depth d (the root has 1) is an operator with probability 1/4 if d < max_depth, else a digit,
 * uniform.  An operator has 2..max_args arguments, uniform, and is MAX, MED, MIN or SM, uniform.  A tree is
 * kept if min_length < length < max_length and no equal tree was kept before.  Attempt k is a function of
 * (seed, k); trees are kept in the order of attempts, and training, validation and test take them one after
 * the other: equally distributed and disjoint. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listops_impl.h"
#include "sq/base.h"

/* ---- drawing ----------------------------------------------------------------------------------------- */

typedef struct {
  const listops_params *p;
  sq_rng rng;
  uint8_t *code;
  size_t n, limit;
} tree;

/* 0 as soon as the tree is too long. */
static int grow(tree *t, int depth)
{
  const size_t at = t->n;
  if (t->n == t->limit) return 0;
  /* One number for kind and digit: 30..39 of 40 is an operator, else the last digit is the digit. */
  const uint32_t x = sq_rng_below(&t->rng, depth < t->p->max_depth ? 40 : 10);
  if (x < 30) {
    t->code[t->n++] = (uint8_t)(x % 10);
    return 1;
  }
  const int narg = 2 + (int)sq_rng_below(&t->rng, (uint32_t)t->p->max_args - 1);
  t->n++;
  for (int i = 0; i < narg; ++i)
    if (!grow(t, depth + 1)) return 0;
  if (t->n == t->limit) return 0;
  t->code[at] = (uint8_t)(LISTOPS_MAX + (int)sq_rng_below(&t->rng, 4));
  t->code[t->n++] = LISTOPS_CLOSE;
  return 1;
}

size_t sq_listops_draw(const listops_params *p, uint64_t attempt, uint8_t *code)
{
  tree t = {.p = p, .code = code, .limit = (size_t)p->max_length - 1};
  sq_rng_init(&t.rng, p->seed, SQ_STREAM_LISTOPS, attempt);
  return grow(&t, 1) ? t.n : 0;
}

/* Length of the longest tree, or INT_MAX. */
static int longest_tree(const listops_params *p)
{
  long long n = 1;
  for (int d = p->max_depth - 1; d >= 1 && n < INT_MAX; --d) n = 2 + p->max_args * n;
  return n < INT_MAX ? (int)n : INT_MAX;
}

sq_status sq_listops_params_check(const listops_params *p, const char *prefix)
{
  if (p->max_depth < 1 || p->max_depth > LISTOPS_MAX_NEST)
    return sq_fail(SQ_ERR_USAGE, "%smax_depth: %d; expected 1..%d", prefix, p->max_depth, LISTOPS_MAX_NEST);
  if (p->max_args < 2 || p->max_args > 1000)
    return sq_fail(SQ_ERR_USAGE, "%smax_args: %d; expected 2..1000", prefix, p->max_args);
  if (p->max_length < 2 || p->max_length > LISTOPS_MAX_LENGTH)
    return sq_fail(SQ_ERR_USAGE, "%smax_length: %d; expected 2..%d", prefix, p->max_length,
                   LISTOPS_MAX_LENGTH);
  if (p->min_length < 0 || p->min_length > p->max_length - 2)
    return sq_fail(
        SQ_ERR_USAGE,
        "%smin_length: %d; expected 0..max_length - 2 = %d, since min_length < length < max_length", prefix,
        p->min_length, p->max_length - 2);
  if (longest_tree(p) <= p->min_length)
    return sq_fail(
        SQ_ERR_USAGE,
        "%smin_length: %d, but the longest expression with max_depth %d and max_args %d has %d tokens",
        prefix, p->min_length, p->max_depth, p->max_args, longest_tree(p));
  for (int s = 0; s < SQ_NSPLIT; ++s)
    if (p->size[s] < 1 || p->size[s] > 1000000000)
      return sq_fail(SQ_ERR_USAGE, "%s%s: %zu; expected 1..1000000000", prefix,
                     (const char *const[]){"num_train", "num_valid", "num_test"}[s], p->size[s]);
  return SQ_OK;
}

/* ---- keeping what is new ----------------------------------------------------------------------------- */

typedef struct {
  uint64_t hash;
  size_t next; /* index + 1 of the expression; 0: free */
} seen_slot;

/* The slot for an expression: an equal one's, or a free one. */
static seen_slot *seen_find(seen_slot *table, size_t mask, const listops_set *s, const uint8_t *code,
                            size_t n)
{
  const uint64_t hash = sq_hash(SQ_HASH_START, code, n);
  size_t k = (size_t)(hash ^ hash >> 32) & mask;
  for (; table[k].next != 0; k = (k + 1) & mask) {
    const size_t i = table[k].next - 1;
    if (table[k].hash == hash && s->off[i + 1] - s->off[i] == n && memcmp(s->code + s->off[i], code, n) == 0)
      break;
  }
  table[k].hash = hash;
  return &table[k];
}

static sq_status keep_new(const listops_params *p, size_t want, seen_slot *table, size_t mask, uint8_t *code,
                          listops_set *s)
{
  uint64_t dry = 0;
  sq_status st = SQ_OK;
  for (uint64_t attempt = 0; s->n < want; ++attempt) {
    const size_t n = sq_listops_draw(p, attempt, code);
    const char *why;
    if (++dry > LISTOPS_DRY)
      return sq_fail(SQ_ERR_DATA,
                     "task listops: %d attempts in a row gave no new expression with %d < length < %d, "
                     "max_depth %d, max_args "
                     "%d: have %zu of %zu; widen the window, or ask for fewer",
                     (int)LISTOPS_DRY, p->min_length, p->max_length, p->max_depth, p->max_args, s->n, want);
    if (n == 0 || n <= (size_t)p->min_length) continue;
    seen_slot *slot = seen_find(table, mask, s, code, n);
    if (slot->next != 0) continue;
    SQ_TRY(sq_listops_append(s, code, n, sq_listops_value(code, n, &why)));
    slot->next = s->n;
    dry = 0;
  }
done:
  return st;
}

sq_status sq_listops_generate(const listops_params *p, listops_set *s)
{
  const size_t want = p->size[SQ_TRAIN] + p->size[SQ_VALID] + p->size[SQ_TEST];
  size_t slots = 16;
  while (slots < 2 * want) slots *= 2;
  seen_slot *table = sq_calloc(slots, sizeof *table, "task listops: expressions seen");
  uint8_t *code = sq_calloc((size_t)p->max_length, 1, "task listops: one expression");
  sq_status st = table != NULL && code != NULL ? SQ_OK : SQ_ERR_MEMORY;

  if (st == SQ_OK) st = keep_new(p, want, table, slots - 1, code, s);
  for (int k = 0; k < SQ_NSPLIT; ++k) s->first[k + 1] = s->first[k] + p->size[k];
  free(code);
  free(table);
  return st;
}

/* ---- files ------------------------------------------------------------------------------------------- */

static sq_status cannot(const char *what, const char *path)
{
  return sq_fail(SQ_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* Makes dir and its parents; *made: dir itself is new. */
static sq_status make_dirs(const char *dir, int *made)
{
  char path[4096];
  struct stat sb;
  const int n = snprintf(path, sizeof path, "%s", dir);

  if (n <= 0 || (size_t)n >= sizeof path) return sq_fail(SQ_ERR_IO, "%.64s: bad path of a folder", dir);
  for (char *p = path + 1;; ++p) {
    const char was = *p;
    if (was != '/' && was != '\0') continue;
    *p = '\0';
    *made = mkdir(path, 0777) == 0;
    if (!*made && errno != EEXIST) return cannot("cannot make the folder", path);
    *p = was;
    if (was == '\0') break;
  }
  if (stat(dir, &sb) != 0 || !S_ISDIR(sb.st_mode)) return sq_fail(SQ_ERR_IO, "%s: not a folder", dir);
  return SQ_OK;
}

static sq_status write_rows(FILE *f, const char *path, const listops_set *s, sq_split split, int max_length)
{
  int *narg = sq_calloc((size_t)max_length, sizeof *narg, "task listops: printing");
  char *text = sq_calloc(sq_listops_text_bytes((size_t)max_length), 1, "task listops: printing");
  sq_status st = narg != NULL && text != NULL ? SQ_OK : SQ_ERR_MEMORY;

  if (st == SQ_OK && fputs("Source\tTarget\r\n", f) < 0) st = cannot("cannot be written", path);
  for (size_t i = s->first[split]; st == SQ_OK && i < s->first[split + 1]; ++i) {
    const size_t n = sq_listops_print(s->code + s->off[i], s->off[i + 1] - s->off[i], narg, text);
    if (fwrite(text, 1, n, f) != n || fprintf(f, "\t%d\r\n", s->value[i]) < 0)
      st = cannot("cannot be written", path);
  }
  free(text);
  free(narg);
  return st;
}

static sq_status write_file(const char *path, const listops_set *s, sq_split split, int max_length)
{
  FILE *f = fopen(path, "wb");
  sq_status st;
  if (f == NULL) return cannot("cannot be made", path);
  st = write_rows(f, path, s, split, max_length);
  if (st == SQ_OK && (fflush(f) != 0 || fsync(fileno(f)) != 0)) st = cannot("cannot be written", path);
  if (fclose(f) != 0 && st == SQ_OK) st = cannot("cannot be written", path);
  return st;
}

static void sync_dir(const char *dir)
{
  const int fd = open(dir, O_RDONLY | O_DIRECTORY);
  if (fd < 0) return;
  (void)fsync(fd); /* not every file system can; the files themselves are safe */
  close(fd);
}

static sq_status write_all(const char *dir, const listops_set *s, int max_length)
{
  char temp[SQ_NSPLIT][4096], path[4096];
  int ntemp = 0;
  sq_status st = SQ_OK;

  for (int k = 0; k < SQ_NSPLIT; ++k) {
    const int n =
        snprintf(temp[k], sizeof temp[k], "%s/.%s.%ld.tmp", dir, sq_listops_file[k], (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temp[k]) SQ_TRY(sq_fail(SQ_ERR_IO, "%.64s...: path too long", dir));
    ntemp = k + 1;
    SQ_TRY(write_file(temp[k], s, (sq_split)k, max_length));
  }
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    sq_format(path, sizeof path, "%s/%s", dir, sq_listops_file[k]);
    if (rename(temp[k], path) != 0) SQ_TRY(cannot("cannot be renamed into place", path));
  }
  sync_dir(dir);
done:
  for (int k = 0; st != SQ_OK && k < ntemp; ++k) unlink(temp[k]);
  return st;
}

sq_status sq_listops_make_check(int min_length, int max_length, int max_depth, int max_args,
                                const size_t size[SQ_NSPLIT])
{
  const listops_params p = {.min_length = min_length,
                            .max_length = max_length,
                            .max_depth = max_depth,
                            .max_args = max_args,
                            .size = {size[0], size[1], size[2]}};
  return sq_listops_params_check(&p, "");
}

sq_status sq_listops_make(const char *dir, uint64_t seed, int min_length, int max_length, int max_depth,
                          int max_args, const size_t size[SQ_NSPLIT])
{
  const listops_params p = {.seed = seed,
                            .min_length = min_length,
                            .max_length = max_length,
                            .max_depth = max_depth,
                            .max_args = max_args,
                            .size = {size[0], size[1], size[2]}};
  listops_set s = {0};
  int made = 0;
  sq_status st;

  SQ_TRY(sq_listops_params_check(&p, ""));
  SQ_TRY(make_dirs(dir, &made)); /* before the long part */
  SQ_TRY(sq_listops_generate(&p, &s));
  SQ_TRY(write_all(dir, &s, max_length));
done:
  if (st != SQ_OK && made) (void)rmdir(dir);
  sq_listops_clear(&s);
  return st;
}
