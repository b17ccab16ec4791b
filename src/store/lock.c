/* src/store/lock.c: FILE.lock beside a results file says who writes it.
 *
 * The name is the lock, made with O_EXCL; flock(2) on it, where the file system has that, tells a holder that
 * lives from one that was killed.  The results file itself stays untouched: HDF5's own locks fail on many parallel
 * file systems, and would keep readers out. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sq/base.h"
#include "store_impl.h"

enum {
  YOUNG_S = 10 /* an empty file of this age is not of a run that is just starting */
};

struct sq_lock {
  int fd;
  char *path; /* of the lock file; owned */
};

typedef struct {
  long pid; /* 0: not there */
  char host[256], started[64];
} holder;

typedef enum { HELD, STALE, GONE } verdict;

static void host_name(char out[256])
{
  memset(out, 0, 256);
  if (gethostname(out, 255) != 0 || out[0] == '\0') sq_format(out, 256, "unknown");
}

static holder read_holder(int fd)
{
  holder h = {0};
  char text[512] = "";
  const ssize_t n = pread(fd, text, sizeof text - 1, 0);
  if (n <= 0 || sscanf(text, "host %255s\npid %ld\nstarted %63s", h.host, &h.pid, h.started) != 3)
    h = (holder){0};
  return h;
}

static int write_holder(int fd)
{
  char host[256], time[32], text[512];
  host_name(host);
  sq_time_iso(time);
  const int n = snprintf(text, sizeof text, "host %s\npid %ld\nstarted %s\n", host, (long)getpid(), time);
  return ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) == n;
}

static int has_flock(int error)
{
  return error != ENOSYS && error != EOPNOTSUPP && error != ENOLCK && error != EINVAL;
}

/* A reader that looks holds it for a moment. */
static int try_flock(int fd, int how)
{
  const struct timespec moment = {0, 20000000};
  for (int i = 0; i < 3; ++i) {
    if (flock(fd, how | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK && errno != EINTR) return errno;
    nanosleep(&moment, NULL);
  }
  return EWOULDBLOCK;
}

/* Of an open lock file; how: LOCK_EX to take it over, LOCK_SH to look.  Of another host only the text tells. */
static verdict judge(int fd, const char *path, int how, holder *h)
{
  struct stat here, named;
  char host[256];
  const int error = try_flock(fd, how);
  if (fstat(fd, &here) != 0 || stat(path, &named) != 0 || here.st_ino != named.st_ino) return GONE;
  *h = read_holder(fd);
  if (error != 0 && has_flock(error)) return HELD;
  if (h->pid == 0) return time(NULL) - here.st_mtime > YOUNG_S ? STALE : HELD;
  host_name(host);
  if (strcmp(host, h->host) != 0) return HELD;
  if (error == 0) return STALE; /* ends with the process, whose number may be another's by now */
  return kill((pid_t)h->pid, 0) != 0 && errno == ESRCH ? STALE : HELD;
}

static sq_status refuse(const char *file, const holder *h)
{
  if (h->pid == 0)
    return sq_fail(SQ_ERR_USAGE,
                   "%s is being written by a process that has just started; if there is none, remove %s.lock",
                   file, file);
  return sq_fail(
      SQ_ERR_USAGE,
      "%s is being written by process %ld on host %s (started %s); if that run is dead, remove %s.lock", file,
      h->pid, h->host, h->started, file);
}

/* *fd: of a lock that is held now; -1 with SQ_OK: somebody else was faster, look again. */
static sq_status take(const char *file, const char *path, int *fd)
{
  holder h = {0};
  *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (*fd >= 0) {
    while (flock(*fd, LOCK_EX) != 0 && errno == EINTR) continue; /* without flock the name alone does */
    if (write_holder(*fd)) return SQ_OK;
    const int error = errno;
    unlink(path);
    close(*fd);
    *fd = -1;
    return sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", path, strerror(error));
  }
  if (errno != EEXIST) return sq_fail(SQ_ERR_IO, "%s: cannot be created: %s", path, strerror(errno));
  const int old = open(path, O_RDWR | O_CLOEXEC);
  if (old < 0) {
    if (errno == ENOENT) return SQ_OK;
    return sq_fail(SQ_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
  }
  const verdict v = judge(old, path, LOCK_EX, &h);
  if (v == STALE && write_holder(old)) {
    *fd = old;
    return SQ_OK;
  }
  close(old);
  return v == GONE ? SQ_OK : refuse(file, &h);
}

sq_status sq_lock_take(const char *file, sq_lock **out)
{
  sq_status st = SQ_OK;
  *out = NULL;
  sq_lock *l = sq_calloc(1, sizeof *l, "a lock");
  if (l == NULL) return SQ_ERR_MEMORY;
  l->fd = -1;
  if (asprintf(&l->path, "%s.lock", file) < 0) {
    free(l);
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory for its lock", file);
  }
  for (int i = 0; i < 100 && l->fd < 0 && st == SQ_OK; ++i) st = take(file, l->path, &l->fd);
  if (st == SQ_OK && l->fd < 0) st = sq_fail(SQ_ERR_IO, "%s: cannot be had", l->path);
  if (st == SQ_OK) {
    *out = l;
    return SQ_OK;
  }
  free(l->path);
  free(l);
  return st;
}

void sq_lock_release(sq_lock **pl)
{
  sq_lock *l = *pl;
  if (l == NULL) return;
  *pl = NULL;
  unlink(l->path); /* while it is held: who waits sees that the name has gone */
  close(l->fd);
  free(l->path);
  free(l);
}

int sq_store_is_written(const char *file, char *who, size_t cap)
{
  char path[4200];
  holder h = {0};
  if (cap > 0) who[0] = '\0';
  if (snprintf(path, sizeof path, "%s.lock", file) >= (int)sizeof path) return 0;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == EACCES; /* somebody's, whom we may not see */
  const verdict v = judge(fd, path, LOCK_SH, &h);
  close(fd);
  if (v == HELD && h.pid != 0)
    snprintf(who, cap, "process %ld on host %s (started %s)", h.pid, h.host, h.started);
  return v == HELD;
}
