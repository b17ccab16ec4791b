/* src/train/checkpoint.c: the state of a run in a file.
 *
 *   magic (8 bytes)  version  step  bytes of the owner's text  number of parts  bytes of each part    uint64 each
 *   owner's text, parts
 *   FNV-1a over all of it                                                                             uint64
 *
 * Numbers are in the machine's byte order: a file of another order has another magic.  A rename puts either the
 * whole new file or the old one under the name; without the two fsyncs a crash of the machine could leave an empty
 * file there instead. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train_impl.h"

#define MAGIC   UINT64_C(0x747063345f717321) /* bytes "!sq_4cpt" on a little-endian machine */
#define VERSION 1
enum { NHEAD = 5 + SQ_STATE_PARTS };

static void head_of(const char *owner, const sq_train_state *s, uint64_t head[NHEAD])
{
  head[0] = MAGIC;
  head[1] = VERSION;
  head[2] = (uint64_t)s->step;
  head[3] = strlen(owner);
  head[4] = SQ_STATE_PARTS;
  for (int i = 0; i < SQ_STATE_PARTS; ++i) head[5 + i] = s->part[i].bytes;
}

size_t sq_checkpoint_bytes(const char *owner, const sq_train_state *s)
{
  size_t n = NHEAD * sizeof(uint64_t) + strlen(owner) + sizeof(uint64_t);
  for (int i = 0; i < SQ_STATE_PARTS; ++i) n += s->part[i].bytes;
  return n;
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static int write_all(int fd, const void *data, size_t bytes)
{
  const char *p = data;
  while (bytes > 0) {
    const ssize_t n = write(fd, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    p += n;
    bytes -= (size_t)n;
  }
  return 0;
}

static int put(int fd, const void *data, size_t bytes, uint64_t *hash)
{
  *hash = sq_hash(*hash, data, bytes);
  return write_all(fd, data, bytes);
}

static int write_content(int fd, const char *owner, const sq_train_state *s)
{
  uint64_t head[NHEAD], hash = SQ_HASH_START;
  head_of(owner, s, head);
  if (put(fd, head, sizeof head, &hash) != 0 || put(fd, owner, strlen(owner), &hash) != 0) return -1;
  for (int i = 0; i < SQ_STATE_PARTS; ++i)
    if (put(fd, s->part[i].data, s->part[i].bytes, &hash) != 0) return -1;
  return write_all(fd, &hash, sizeof hash);
}

/* Opens a new file; the folder is made again if somebody removed it. */
static int open_new(const char *path)
{
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC;
  char copy[4096];
  const int fd = open(path, flags, 0666);
  if (fd >= 0 || errno != ENOENT) return fd;
  sq_format(copy, sizeof copy, "%s", path);
  if (mkdir(dirname(copy), 0777) != 0 && errno != EEXIST) return -1;
  return open(path, flags, 0666);
}

/* Makes the renames in path's directory last. */
static int sync_directory(const char *path)
{
  char copy[4096];
  sq_format(copy, sizeof copy, "%s", path);
  const int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  const int failed = fsync(fd) != 0 && errno != EINVAL; /* some file systems have nothing to sync there */
  close(fd);
  return failed ? -1 : 0;
}

typedef struct {
  char old[4096], temporary[4096];
} names;

static sq_status names_of(const char *path, names *n)
{
  if (strlen(path) + sizeof ".tmp" > sizeof n->old)
    return sq_fail(SQ_ERR_IO, "%s: the name of the checkpoint is too long", path);
  sq_format(n->old, sizeof n->old, "%s.old", path);
  sq_format(n->temporary, sizeof n->temporary, "%s.tmp", path);
  return SQ_OK;
}

sq_status sq_checkpoint_write(const char *path, const char *owner, const sq_train_state *s)
{
  names n;
  sq_status st = names_of(path, &n);
  if (st != SQ_OK) return st;
  const int fd = open_new(n.temporary);
  if (fd < 0) return sq_fail(SQ_ERR_IO, "%s: %s", n.temporary, strerror(errno));
  int failed = write_content(fd, owner, s) != 0 || fsync(fd) != 0;
  int error = errno;
  if (close(fd) != 0 && !failed) {
    failed = 1;
    error = errno;
  }
  if (failed) {
    unlink(n.temporary);
    return sq_fail(SQ_ERR_IO, "%s: the checkpoint cannot be written: %s", n.temporary, strerror(error));
  }
  /* The file that has the name gets the name of the one before; between the renames that one is the newest. */
  if ((rename(path, n.old) != 0 && errno != ENOENT) || rename(n.temporary, path) != 0 ||
      sync_directory(path) != 0)
    return sq_fail(SQ_ERR_IO, "%s: the checkpoint cannot be put in its place: %s", path, strerror(errno));
  return SQ_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static int read_all(FILE *f, void *data, size_t bytes, uint64_t *hash)
{
  if (bytes > 0 && fread(data, 1, bytes, f) != bytes) return -1;
  *hash = sq_hash(*hash, data, bytes);
  return 0;
}

/* NULL, or what is wrong.  data NULL: the bytes are only checked. */
static const char *read_parts(FILE *f, const sq_train_state *s, int keep, uint64_t *hash)
{
  unsigned char block[1 << 14];
  for (int i = 0; i < SQ_STATE_PARTS; ++i) {
    if (keep) {
      if (read_all(f, s->part[i].data, s->part[i].bytes, hash) != 0) return "it is truncated";
      continue;
    }
    for (size_t left = s->part[i].bytes; left > 0;) {
      const size_t n = left < sizeof block ? left : sizeof block;
      if (read_all(f, block, n, hash) != 0) return "it is truncated";
      left -= n;
    }
  }
  return NULL;
}

/* One pass over the open file; the parts are filled only where keep is set, after a pass without it. */
static const char *read_pass(FILE *f, const char *owner, const sq_train_state *s, int keep, long *step)
{
  uint64_t head[NHEAD], expected[NHEAD], hash = SQ_HASH_START, stored;
  const size_t nowner = strlen(owner);
  char *text;
  int same;

  rewind(f);
  if (read_all(f, head, sizeof head, &hash) != 0) return "it is truncated";
  head_of(owner, s, expected);
  if (head[0] != MAGIC) return "it is not a checkpoint of this kind of machine";
  if (head[1] != VERSION) return "another version of the program wrote it";
  expected[2] = head[2];
  if (memcmp(head, expected, sizeof head) != 0) return "it belongs to another configuration";
  text = malloc(nowner + 1);
  if (text == NULL) return "there is no memory to read it";
  const int whole = read_all(f, text, nowner, &hash) == 0;
  same = whole && memcmp(text, owner, nowner) == 0;
  free(text);
  if (!whole) return "it is truncated";
  if (!same) return "it belongs to another configuration";
  const char *wrong = read_parts(f, s, keep, &hash);
  if (wrong != NULL) return wrong;
  if (fread(&stored, sizeof stored, 1, f) != 1) return "it is truncated";
  if (stored != hash) return "its checksum is wrong";
  if (fgetc(f) != EOF) return "it is too long";
  *step = (long)head[2];
  return NULL;
}

/* 0: no such file; -1: there is one that cannot be used, *wrong says why. */
static int read_file(const char *path, const char *owner, sq_train_state *s, const char **wrong)
{
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe without a writer would block */
  struct stat is;
  *wrong = NULL;
  if (fd < 0) {
    if (errno == ENOENT) return 0;
    *wrong = strerror(errno);
    return -1;
  }
  const int regular = fstat(fd, &is) == 0 && S_ISREG(is.st_mode);
  FILE *f = regular ? fdopen(fd, "rb") : NULL;
  if (f == NULL) {
    *wrong = regular ? strerror(errno) : "it is not a regular file";
    close(fd);
    return -1;
  }
  *wrong = read_pass(f, owner, s, 0, &s->step);
  if (*wrong == NULL) *wrong = read_pass(f, owner, s, 1, &s->step);
  fclose(f);
  return *wrong == NULL ? 1 : -1;
}

/* The newest whole one of the two; 0: none. */
static int read_newest(const char *path, const names *n, const char *owner, sq_train_state *s, char *note,
                       size_t cap)
{
  const char *const candidate[2] = {path, n->old}, *wrong;
  size_t used = 0;
  note[0] = '\0';
  for (int i = 0; i < 2; ++i) {
    const int found = read_file(candidate[i], owner, s, &wrong);
    if (found > 0) {
      if (used > 0 && used < cap)
        snprintf(note + used, cap - used, "; the one before is taken (step %ld)", s->step);
      /* It takes the name of the damaged one, which the next write would otherwise put into its place. */
      if (used > 0) rename(n->old, path);
      return 1;
    }
    if (found < 0 && used < cap)
      used +=
          (size_t)snprintf(note + used, cap - used, "%s%s: %s", used > 0 ? "; " : "", candidate[i], wrong);
  }
  if (used > 0 && used < cap) snprintf(note + used, cap - used, "; the cell starts again");
  return 0;
}

int sq_checkpoint_read(const char *path, const char *owner, sq_train_state *s, char *note, size_t cap)
{
  names n;
  note[0] = '\0';
  if (names_of(path, &n) != SQ_OK) {
    sq_error_clear();
    return 0;
  }
  if (read_newest(path, &n, owner, s, note, cap)) return 1;
  /* Another rank that reads the same one may just have renamed it. */
  return note[0] != '\0' && read_newest(path, &n, owner, s, note, cap);
}

int sq_checkpoint_exists(const char *path)
{
  names n;
  if (names_of(path, &n) != SQ_OK) {
    sq_error_clear();
    return 0;
  }
  return access(path, F_OK) == 0 || access(n.old, F_OK) == 0;
}

static long step_of(const char *path)
{
  uint64_t head[3];
  FILE *f = fopen(path, "rb");
  if (f == NULL) return -1;
  const int known = fread(head, sizeof head, 1, f) == 1 && head[0] == MAGIC && head[1] == VERSION;
  fclose(f);
  return known ? (long)head[2] : -1;
}

long sq_checkpoint_step(const char *path)
{
  names n;
  if (names_of(path, &n) != SQ_OK) {
    sq_error_clear();
    return -1;
  }
  const long step = step_of(path);
  return step >= 0 ? step : step_of(n.old);
}

void sq_checkpoint_remove(const char *path)
{
  names n;
  if (names_of(path, &n) != SQ_OK) {
    sq_error_clear();
    return;
  }
  unlink(path);
  unlink(n.old);
  unlink(n.temporary);
}
