/* src/task/token_cache.c: tokens of a text on disk. */
#include "token_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "sq/base.h"

typedef struct {
  char magic[8];
  uint64_t key, count, checksum; /* of the ids */
} header;
static const char magic[8] =
    "SQTOKEN1"; /* integers in this machine's byte order; in another one the key differs */

/* 0: no cache. */
static int cache_dir(char out[SQ_PATH_MAX])
{
  const char *dir = getenv("SEQSPECTRA_CACHE"), *sub = "";
  if (dir == NULL) {
    dir = getenv("XDG_CACHE_HOME");
    sub = "/seqspectra";
  }
  if (dir == NULL || (*dir == '\0' && *sub != '\0')) {
    dir = getenv("HOME");
    sub = "/.cache/seqspectra";
  }
  if (dir == NULL || *dir == '\0') return 0;
  const int n = snprintf(out, SQ_PATH_MAX, "%s%s", dir, sub);
  return n > 0 && n < SQ_PATH_MAX - 64;
}

static int cache_path(uint64_t key, char out[SQ_PATH_MAX])
{
  if (!cache_dir(out)) return 0;
  const size_t n = strlen(out);
  sq_format(out + n, SQ_PATH_MAX - n, "/%016" PRIx64 ".tokens", key);
  return 1;
}

static const char *read_tokens(FILE *f, uint64_t key, sq_ids *ids)
{
  header h;
  struct stat info;
  if (fread(&h, sizeof h, 1, f) != 1 || memcmp(h.magic, magic, sizeof magic) != 0) return "no header";
  if (h.key != key) return "of another text";
  if (fstat(fileno(f), &info) != 0 || (uint64_t)info.st_size < sizeof h ||
      ((uint64_t)info.st_size - sizeof h) / sizeof *ids->v != h.count ||
      ((uint64_t)info.st_size - sizeof h) % sizeof *ids->v != 0)
    return "cut short or too long";
  ids->n = 0;
  if (sq_ids_reserve(ids, h.count) != SQ_OK) return "no memory for it";
  if (fread(ids->v, sizeof *ids->v, h.count, f) != h.count) return "cannot be read";
  ids->n = h.count;
  return sq_hash(SQ_HASH_START, ids->v, ids->n * sizeof *ids->v) == h.checksum ? NULL : "wrong checksum";
}

int sq_token_cache_load(uint64_t key, sq_ids *ids)
{
  char path[SQ_PATH_MAX];
  if (!cache_path(key, path)) return 0;
  FILE *f = fopen(path, "rb");
  if (f == NULL) return 0;
  const char *why = read_tokens(f, key, ids);
  fclose(f);
  if (why == NULL) return 1;
  sq_ids_clear(ids);
  sq_note("%s: damaged token cache (%s), made again", path, why);
  return 0;
}

static int make_dirs(char *path)
{
  for (char *p = path + 1;; ++p) {
    if (*p != '/' && *p != '\0') continue;
    const char kept = *p;
    *p = '\0';
    const int failed = mkdir(path, 0777) != 0 && errno != EEXIST;
    *p = kept;
    if (failed) return 0;
    if (kept == '\0') return 1;
  }
}

static int write_all(int fd, const void *data, size_t n)
{
  const char *p = data;
  while (n > 0) {
    const ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) return 0;
    p += w;
    n -= (size_t)w;
  }
  return 1;
}

void sq_token_cache_store(uint64_t key, const uint16_t *id, size_t n)
{
  header h = {.key = key, .count = n, .checksum = sq_hash(SQ_HASH_START, id, n * sizeof *id)};
  char dir[SQ_PATH_MAX], path[SQ_PATH_MAX], temp[SQ_PATH_MAX];
  memcpy(h.magic, magic, sizeof magic);
  if (!cache_path(key, path)) return;
  (void)cache_dir(dir);
  sq_format(temp, sizeof temp, "%s/.tokens.XXXXXX", dir);
  const int fd = make_dirs(dir) ? mkstemp(temp) : -1;
  int ok = fd >= 0;
  ok = ok && write_all(fd, &h, sizeof h) && write_all(fd, id, n * sizeof *id) && fsync(fd) == 0;
  int error = errno;
  if (fd >= 0) {
    if (fchmod(fd, 0644) != 0 || close(fd) != 0) ok = 0;
    if (ok && rename(temp, path) != 0) {
      error = errno;
      ok = 0;
    }
    if (!ok) unlink(temp);
  }
  if (!ok)
    sq_note("%s: tokens are not kept: %s; goes on without (SEQSPECTRA_CACHE names another folder)", dir,
            strerror(error));
}
