/* tests/preload.c: for LD_PRELOAD: a machine that misbehaves, as far as a program can tell.
 *
 *   SQ_PRELOAD_FULL=FLAG, SQ_PRELOAD_DIR=DIR   while the file FLAG exists, regular files below DIR take no more bytes (ENOSPC)
 *   SQ_PRELOAD_CLOCK=SECONDS                   the clock that can be set jumps ahead by so much in every second second
 *   SQ_PRELOAD_FLOCK=off | FLAG                there is no flock(2), as on some file systems, or the first one returns when the file FLAG exists
 *   SQ_PRELOAD_SILENT=FLAG                     while the file FLAG exists, the state of files *.h5 cannot be asked by name (EIO)
 *   SQ_PRELOAD_READ=FLAG                       files *.raw are not read before the file FLAG exists
 *   SQ_PRELOAD_STATFS=MAGIC                    statfs says that every folder is on a file system of this kind
 *   SQ_PRELOAD_STRIPES=COUNT                   and Lustre gives new files so many stripes
 *   SQ_PRELOAD_SLOW=MICROSECONDS               every matrix product takes at least so much longer
 *
 * The monotonic clock is left alone, as the kernel leaves it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* As every CBLAS has them in memory; their headers differ in the names of the types. */
#define PRODUCT(real)                                                                                        \
  int order, int ta, int tb, int m, int n, int k, real alpha, const real *A, int lda, const real *B,         \
      int ldb, real beta, real *C, int ldc
void cblas_sgemm(PRODUCT(float));
void cblas_dgemm(PRODUCT(double));

/* Looked up once: dlsym takes a lock, and a program may ask for the time in a signal handler. */
#define REPLACED(X)                                                                                          \
  X(write)                                                                                                   \
  X(pwrite)                                                                                                  \
  X(pwrite64)                                                                                                \
  X(writev)                                                                                                  \
  X(pwritev)                                                                                                 \
  X(pwritev64)                                                                                               \
  X(posix_fallocate)                                                                                         \
  X(posix_fallocate64)                                                                                       \
  X(fallocate)                                                                                               \
  X(fallocate64)                                                                                             \
  X(time)                                                                                                    \
  X(clock_gettime)                                                                                           \
  X(gettimeofday)                                                                                            \
  X(fopen)                                                                                                   \
  X(stat)                                                                                                    \
  X(flock)                                                                                                   \
  X(statfs)                                                                                                  \
  X(statfs64)                                                                                                \
  X(getxattr)                                                                                                \
  X(cblas_sgemm)                                                                                             \
  X(cblas_dgemm)
#define DECLARE(name) static __typeof__(&name) next_##name;
#define FIND(name)    next_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name);
REPLACED(DECLARE)
__attribute__((constructor)) static void find(void)
{
  REPLACED(FIND)
}
#define NEXT(name)                                                                                           \
  (next_##name == NULL ? find() : (void)0, next_##name) /* other libraries may start before this one */

/* ---- a full disk ------------------------------------------------------------------------------------- */

static int full(int fd)
{
  const char *flag = getenv("SQ_PRELOAD_FULL"), *dir = getenv("SQ_PRELOAD_DIR");
  char name[64], target[PATH_MAX];
  struct stat is;
  const int error = errno;
  int yes = 0;
  if (flag != NULL && dir != NULL && access(flag, F_OK) == 0 && fstat(fd, &is) == 0 && S_ISREG(is.st_mode)) {
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(name, target, sizeof target - 1);
    yes = n > 0 && (size_t)n > strlen(dir) && strncmp(target, dir, strlen(dir)) == 0;
  }
  errno = yes ? ENOSPC : error;
  return yes;
}

ssize_t write(int fd, const void *data, size_t n)
{
  return full(fd) ? -1 : NEXT(write)(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
  return full(fd) ? -1 : NEXT(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
  return full(fd) ? -1 : NEXT(pwrite64)(fd, data, n, at);
}
ssize_t writev(int fd, const struct iovec *v, int n)
{
  return full(fd) ? -1 : NEXT(writev)(fd, v, n);
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
  return full(fd) ? -1 : NEXT(pwritev)(fd, v, n, at);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at)
{
  return full(fd) ? -1 : NEXT(pwritev64)(fd, v, n, at);
}
int posix_fallocate(int fd, off_t at, off_t n)
{
  return full(fd) ? ENOSPC : NEXT(posix_fallocate)(fd, at, n);
}
int posix_fallocate64(int fd, off64_t at, off64_t n)
{
  return full(fd) ? ENOSPC : NEXT(posix_fallocate64)(fd, at, n);
}
int fallocate(int fd, int mode, off_t at, off_t n)
{
  return full(fd) ? -1 : NEXT(fallocate)(fd, mode, at, n);
}
int fallocate64(int fd, int mode, off64_t at, off64_t n)
{
  return full(fd) ? -1 : NEXT(fallocate64)(fd, mode, at, n);
}

/* ---- a clock that jumps ------------------------------------------------------------------------------- */

static time_t jump(time_t now)
{
  const char *by = getenv("SQ_PRELOAD_CLOCK");
  return by != NULL && now % 2 == 0 ? now + (time_t)atol(by) : now;
}
time_t time(time_t *t)
{
  const time_t now = jump(NEXT(time)(NULL));
  if (t != NULL) *t = now;
  return now;
}
int clock_gettime(clockid_t clock, struct timespec *t)
{
  const int st = NEXT(clock_gettime)(clock, t);
  if (st == 0 && clock == CLOCK_REALTIME) t->tv_sec = jump(t->tv_sec);
  return st;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
  const int st = NEXT(gettimeofday)(t, zone);
  if (st == 0) t->tv_sec = jump(t->tv_sec);
  return st;
}

/* ---- locks that are not there, or late ---------------------------------------------------------------- */

int flock(int fd, int how)
{
  static int waited;
  const char *is = getenv("SQ_PRELOAD_FLOCK");
  if (is != NULL && strcmp(is, "off") == 0) {
    errno = ENOLCK;
    return -1;
  }
  if (is != NULL && !waited) {
    waited = 1;
    while (access(is, F_OK) != 0) usleep(10000);
  }
  return NEXT(flock)(fd, how);
}

/* ---- a server that does not answer ---------------------------------------------------------------------- */

static int ends_with(const char *path, const char *end)
{
  const size_t n = strlen(path), k = strlen(end);
  return n >= k && strcmp(path + n - k, end) == 0;
}

int stat(const char *restrict path, struct stat *restrict is)
{
  const char *flag = getenv("SQ_PRELOAD_SILENT");
  if (flag == NULL || !ends_with(path, ".h5") || access(flag, F_OK) != 0) return NEXT(stat)(path, is);
  errno = EIO;
  return -1;
}

FILE *fopen(const char *restrict path, const char *restrict mode)
{
  const char *flag = getenv("SQ_PRELOAD_READ");
  FILE *f = NEXT(fopen)(path, mode);
  while (f != NULL && flag != NULL && ends_with(path, ".raw") && access(flag, F_OK) != 0) usleep(10000);
  return f;
}

/* ---- another file system ------------------------------------------------------------------------------ */

int statfs(const char *path, struct statfs *s)
{
  const char *magic = getenv("SQ_PRELOAD_STATFS");
  const int st = NEXT(statfs)(path, s);
  if (st == 0 && magic != NULL) s->f_type = (__typeof__(s->f_type))strtoul(magic, NULL, 0);
  return st;
}
int statfs64(const char *path, struct statfs64 *s)
{
  const char *magic = getenv("SQ_PRELOAD_STATFS");
  const int st = NEXT(statfs64)(path, s);
  if (st == 0 && magic != NULL) s->f_type = (__typeof__(s->f_type))strtoul(magic, NULL, 0);
  return st;
}

ssize_t getxattr(const char *path, const char *name, void *value, size_t size)
{
  const char *stripes = getenv("SQ_PRELOAD_STRIPES");
  if (stripes == NULL || strcmp(name, "lustre.lov") != 0 || size < 32)
    return NEXT(getxattr)(path, name, value, size);
  const uint32_t magic = 0x0BD10BD0, stripe_size = 1 << 20;
  const uint16_t count = (uint16_t)atoi(stripes);
  memset(value, 0, 32);
  memcpy(value, &magic, 4);
  memcpy((char *)value + 24, &stripe_size, 4);
  memcpy((char *)value + 28, &count, 2);
  return 32;
}

/* ---- a slow machine: what takes so long here takes no less on a fast one ------------------------------- */

static void slow(void)
{
  const char *by = getenv("SQ_PRELOAD_SLOW");
  if (by != NULL) usleep((useconds_t)atol(by));
}
#define SLOW(name, real)                                                                                     \
  void name(PRODUCT(real))                                                                                   \
  {                                                                                                          \
    slow();                                                                                                  \
    NEXT(name)(order, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);                                 \
  }
SLOW(cblas_sgemm, float)
SLOW(cblas_dgemm, double)
