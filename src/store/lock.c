/* src/store/lock.c: FILE.lock beside a results file says who writes it.
 *
 * The name is the lock, made with O_EXCL; flock(2) on it, where the file system has that, tells a holder that
 * lives from one that was killed.  Of a holder on another host, and where flock is off (Lustre, NFS), only signs of
 * life tell: the holder changes the text every few seconds, and who wants the file watches that for longer.  No clock
 * is compared with another.  A holder that finds somebody else's text in its lock stops writing.
 *
 * The results file itself stays untouched: HDF5's own locks fail on many parallel file systems, and would keep
 * readers out. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
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
  LONGEST = 4000,    /* name of a results file: others are made of it */
  YOUNG_S = 10,      /* an empty file of this age is not of a run that is just starting */
  BEAT_S = 5,        /* between two signs of life */
  ENDING_TRIES = 50, /* of 60 ms, for a holder that is ending, or for one that looks and was stopped */
  PATIENCE_S =
      30, /* without one a holder is taken to be dead: six beats, for slow file systems and loaded hosts */
  SILENT_S = 120, /* for `status`, which does not wait: age of the last sign */
  TEXT = 512
};

typedef struct {
  long pid; /* 0: not there */
  char host[256], started[64], job[64];
} holder;

struct sq_lock {
  int fd;
  char *path; /* of the lock file; owned */
  holder me;
  unsigned beat;
  atomic_int lost; /* somebody else has it */
  int beating;     /* the thread below runs */
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t end;
  int ending; /* guarded by mutex */
};

typedef enum { HELD, STALE, GONE, UNSURE } verdict;

static void host_name(char out[256])
{
  memset(out, 0, 256);
  if (gethostname(out, 255) != 0 || out[0] == '\0') sq_format(out, 256, "unknown");
}

/* As the batch system's commands take it: a task of an array has a number of its own too, which they do not show. */
static void job_name(char out[64])
{
  const char *id = getenv("SLURM_JOB_ID"), *array = getenv("SLURM_ARRAY_JOB_ID"),
             *task = getenv("SLURM_ARRAY_TASK_ID");
  if (array != NULL && task != NULL)
    sq_format(out, 64, "%.30s_%.30s", array, task);
  else
    sq_format(out, 64, "%.60s", id != NULL && id[0] != '\0' ? id : "-");
}

static holder myself(void)
{
  holder h = {.pid = (long)getpid()};
  host_name(h.host);
  sq_start_iso(h.started);
  job_name(h.job);
  return h;
}

static int read_text(int fd, char text[TEXT])
{
  const ssize_t n = pread(fd, text, TEXT - 1, 0);
  text[n > 0 ? n : 0] = '\0';
  return n > 0;
}

/* Whatever has the lock's name: waits for nobody at the other end of a pipe, and follows no link to a file of the user. */
static int open_lock(const char *path, int how)
{
  return open(path, how | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

static holder parse_holder(const char *text)
{
  holder h = {.job = "-"};
  if (sscanf(text, "host %255s\npid %ld\nstarted %63s\njob %63s", h.host, &h.pid, h.started, h.job) < 3)
    h = (holder){0};
  return h;
}

static holder read_holder(int fd)
{
  char text[TEXT];
  return read_text(fd, text) ? parse_holder(text) : (holder){0};
}

static int same_holder(const holder *a, const holder *b)
{
  return a->pid == b->pid && strcmp(a->host, b->host) == 0 && strcmp(a->started, b->started) == 0 &&
         strcmp(a->job, b->job) == 0;
}

/* In place and of one length, so that it needs no space on a full disk. */
static int write_holder(int fd, const holder *h, unsigned beat)
{
  char text[TEXT];
  const int n = snprintf(text, sizeof text, "host %s\npid %ld\nstarted %s\njob %s\nbeat %010u\n", h->host,
                         h->pid, h->started, h->job, beat);
  const ssize_t written = pwrite(fd, text, (size_t)n, 0);
  if (written >= 0 && written < n) errno = ENOSPC;
  return written == n && ftruncate(fd, n) == 0;
}

static void describe(const holder *h, char *out, size_t cap)
{
  const int job = strcmp(h->job, "-") != 0;
  snprintf(out, cap, "process %ld on host %s (%s%s%sstarted %s)", h->pid, h->host, job ? "job " : "",
           job ? h->job : "", job ? ", " : "", h->started);
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

/* The name leads to this open file; *here: its state.  0 also if one of them cannot be asked. */
static int is_named(int fd, const char *path, struct stat *here)
{
  struct stat named;
  return fstat(fd, here) == 0 && stat(path, &named) == 0 && here->st_ino == named.st_ino;
}

/* It has let go of its memory, and of its files in a moment: a start right behind a killed one is not refused. */
static int is_ending(long pid)
{
  char name[64], to[8];
  sq_format(name, sizeof name, "/proc/%ld/exe", pid);
  return readlink(name, to, sizeof to) < 0 && errno == ENOENT && access("/proc/self/exe", F_OK) == 0;
}

/* Of an open lock file; how: LOCK_EX to take it over, LOCK_SH to look.  UNSURE: only signs of life can tell.  flocked: the
 * caller has the file system's lock on it now. */
static verdict judge(int fd, const char *path, int how, holder *h, int *flocked)
{
  struct stat here;
  char host[256];
  int error = try_flock(fd, how);
  host_name(host);
  *h = read_holder(fd);
  for (int i = 0; error == EWOULDBLOCK && i < ENDING_TRIES && h->pid > 0 && strcmp(host, h->host) == 0 &&
                  is_ending(h->pid);
       ++i)
    error = try_flock(fd, how);
  *flocked = error == 0;
  if (!is_named(fd, path, &here)) return GONE;
  if (error != 0 && has_flock(error)) return HELD;
  if (h->pid == 0) return time(NULL) - here.st_mtime > YOUNG_S ? STALE : HELD;
  if (strcmp(host, h->host) != 0) return UNSURE;
  if (error == 0) return STALE; /* ends with the process, whose number may be another's by now */
  return kill((pid_t)h->pid, 0) != 0 && errno == ESRCH ? STALE : UNSURE;
}

/* By name each time: a network file system looks at the server again when a file is opened. */
static int look(const char *path, char text[TEXT], struct stat *s)
{
  const int fd = open_lock(path, O_RDONLY);
  if (fd < 0) return 0;
  read_text(fd, text);
  const int there = fstat(fd, s) == 0;
  close(fd);
  return there;
}

/* Waits for a sign of life: a changed text or time of change. */
static verdict observe(const char *file, const char *path, const holder *h)
{
  char first[TEXT], now[TEXT], who[TEXT];
  struct stat was, is;
  const struct timespec second = {1, 0};
  if (!look(path, first, &was)) return GONE;
  describe(h, who, sizeof who);
  sq_note("%s: waiting up to %d s for a sign of life of %s", file, PATIENCE_S, who);
  for (int s = 0; s < PATIENCE_S; ++s) {
    nanosleep(&second, NULL);
    if (!look(path, now, &is) || is.st_ino != was.st_ino) return GONE;
    if (strcmp(now, first) != 0 || is.st_mtim.tv_sec != was.st_mtim.tv_sec ||
        is.st_mtim.tv_nsec != was.st_mtim.tv_nsec)
      return HELD;
  }
  sq_note("%s: there was none: taking it over", file);
  return STALE;
}

static sq_status refuse(const char *file, const holder *h)
{
  char who[TEXT];
  if (h->pid == 0)
    return sq_fail(SQ_ERR_USAGE,
                   "%s is being written by a process that has just started; if there is none, remove %s.lock",
                   file, file);
  describe(h, who, sizeof who);
  return sq_fail(SQ_ERR_USAGE, "%s is being written by %s; if that run is dead, remove %s.lock", file, who,
                 file);
}

/* Where flock does not decide, two that wait for the same holder may both find it dead: the last that writes has it. */
static int still_mine(const sq_lock *l, int fd)
{
  const struct timespec moment = {1, 0};
  char text[TEXT];
  struct stat is;
  fdatasync(fd); /* to where other hosts see it */
  nanosleep(&moment, NULL);
  if (!look(l->path, text, &is)) return 0;
  const holder now = parse_holder(text);
  return same_holder(&now, &l->me);
}

/* Only signs of life tell whether the holder lives.  Others may look meanwhile: who holds the file system's lock is taken
 * for the run that writes. */
static verdict outwait(const char *file, const sq_lock *l, int fd, const holder *h)
{
  struct stat here;
  flock(fd, LOCK_UN);
  const verdict v = observe(file, l->path, h);
  if (v != STALE) return v;
  if (try_flock(fd, LOCK_EX) == EWOULDBLOCK) return HELD;
  const holder now = read_holder(fd);
  if (!is_named(fd, l->path, &here)) return GONE;
  return same_holder(&now, h) ? STALE : HELD;
}

static sq_status cannot_write(const sq_lock *l, int error)
{
  return sq_fail(SQ_ERR_IO, "%s: cannot be written: %s", l->path, strerror(error));
}

/* l->fd: of a name that was just made.  A process that was stopped here for long finds that another has taken the empty file
 * over, or that it has gone: l->fd is -1 then, look again. */
static sq_status make(sq_lock *l)
{
  struct stat here;
  int error = try_flock(l->fd, LOCK_EX); /* without flock the name alone does */
  for (int i = 0; error == EWOULDBLOCK && i < ENDING_TRIES && read_holder(l->fd).pid == 0; ++i)
    error = try_flock(l->fd, LOCK_EX);
  if (error == EWOULDBLOCK || !is_named(l->fd, l->path, &here) || read_holder(l->fd).pid != 0) {
    close(l->fd);
    l->fd = -1;
    return SQ_OK;
  }
  if (write_holder(l->fd, &l->me, 0)) return SQ_OK;
  const int failed = errno;
  unlink(l->path);
  close(l->fd);
  l->fd = -1;
  return cannot_write(l, failed);
}

/* The folder is named where it is what is missing. */
static sq_status cannot_create(const char *file, const sq_lock *l, int error)
{
  const char *slash = strrchr(file, '/');
  const int n = slash == NULL ? 0 : (int)(slash - file);
  char folder[4096];
  if (error == ENOENT && n > 0 && n < (int)sizeof folder) {
    sq_format(folder, sizeof folder, "%.*s", n, file);
    if (access(folder, F_OK) != 0)
      return sq_fail(SQ_ERR_IO, "%s: cannot be created: there is no folder %s", file, folder);
  }
  return sq_fail(SQ_ERR_IO, "%s: cannot be created: %s", l->path, strerror(error));
}

/* Somebody's file of this name is not written over.  After a crash of the machine a lock may be empty, or all zeros. */
static int is_no_lock(int fd)
{
  struct stat is;
  char text[TEXT];
  if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode)) return 1;
  return read_text(fd, text) && text[0] != '\0' && strncmp(text, "host ", 5) != 0;
}

/* l->fd: of a lock that is held now; -1 with SQ_OK: somebody else was faster, look again. */
static sq_status take(const char *file, sq_lock *l)
{
  holder h = {0};
  int flocked;
  l->fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (l->fd >= 0) return make(l);
  if (errno != EEXIST) return cannot_create(file, l, errno);
  const int old = open_lock(l->path, O_RDWR);
  if (old < 0 && errno == ENOENT) return SQ_OK;
  if (old < 0 && errno != ELOOP && errno != EISDIR)
    return sq_fail(SQ_ERR_IO, "%s: cannot be opened: %s", l->path, strerror(errno));
  if (old < 0 || is_no_lock(old)) {
    if (old >= 0) close(old);
    return sq_fail(SQ_ERR_IO, "%s is in the way: it is not the lock of a results file", l->path);
  }
  verdict v = judge(old, l->path, LOCK_EX, &h, &flocked);
  const int sure = v != UNSURE && flocked; /* two may find the same process dead */
  if (v == UNSURE) v = outwait(file, l, old, &h);
  if (v == STALE && !write_holder(old, &l->me, 0)) {
    const int error = errno; /* a full disk, where even what is there cannot be written again */
    close(old);
    return cannot_write(l, error);
  }
  if (v == STALE && (sure || still_mine(l, old))) {
    l->fd = old;
    return SQ_OK;
  }
  h = read_holder(old); /* another start may have it by now */
  close(old);
  return v == GONE ? SQ_OK : refuse(file, &h);
}

/* ---- signs of life ----------------------------------------------------------------------------------- */

/* Somebody removed the name while this run lives: it gets it back, unless another run has it. */
static int make_again(sq_lock *l)
{
  const int fd = open(l->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return errno != EEXIST;
  flock(fd, LOCK_EX | LOCK_NB);
  write_holder(fd, &l->me, l->beat);
  close(l->fd);
  l->fd = fd;
  return 1;
}

static void beat(sq_lock *l)
{
  struct stat here, named;
  if (fstat(l->fd, &here) != 0) return;
  if (stat(l->path, &named) != 0) {
    if (errno == ENOENT && !make_again(l)) l->lost = 1;
    return;
  }
  const holder now = read_holder(l->fd);
  if (here.st_ino != named.st_ino || (now.pid != 0 && !same_holder(&now, &l->me))) {
    l->lost = 1;
    return;
  }
  if (!write_holder(l->fd, &l->me, ++l->beat)) futimens(l->fd, NULL);
  fdatasync(l->fd); /* a network file system's other hosts see it then */
}

static void *beat_on(void *user)
{
  sq_lock *l = user;
  pthread_mutex_lock(&l->mutex);
  while (!l->ending && !l->lost) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += BEAT_S;
    if (pthread_cond_timedwait(&l->end, &l->mutex, &until) == ETIMEDOUT && !l->ending) {
      pthread_mutex_unlock(&l->mutex); /* the file system may take its time */
      beat(l);
      pthread_mutex_lock(&l->mutex);
    }
  }
  pthread_mutex_unlock(&l->mutex);
  return NULL;
}

/* A thread, because a step, a data set or an eigenvalue problem may take minutes.  Signals are the main thread's.
   Without a thread the lock is still a lock on this host. */
static void start_beating(sq_lock *l)
{
  pthread_condattr_t attr;
  sigset_t all, was;
  pthread_mutex_init(&l->mutex, NULL);
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&l->end, &attr);
  pthread_condattr_destroy(&attr);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &was);
  l->beating = pthread_create(&l->thread, NULL, beat_on, l) == 0;
  pthread_sigmask(SIG_SETMASK, &was, NULL);
}

static void stop_beating(sq_lock *l)
{
  pthread_mutex_lock(&l->mutex);
  l->ending = 1;
  pthread_cond_signal(&l->end);
  pthread_mutex_unlock(&l->mutex);
  if (l->beating) pthread_join(l->thread, NULL);
  pthread_cond_destroy(&l->end);
  pthread_mutex_destroy(&l->mutex);
}

int sq_lock_is_lost(const sq_lock *l)
{
  return l != NULL && l->lost;
}

/* Their numbers say nothing: a killed process may not have been waited for, its number may be another's, or another
 * host's. */
static void remove_leftovers(const char *file)
{
  char name[LONGEST + 300];
  const char *slash = strrchr(file, '/'), *base = slash != NULL ? slash + 1 : file;
  const size_t folder = (size_t)(base - file), n = strlen(base);
  sq_format(name, sizeof name, "%.*s", (int)folder, file);
  DIR *d = opendir(folder > 0 ? name : ".");
  for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
    if (strncmp(e->d_name, base, n) != 0 || strncmp(e->d_name + n, ".tmp.", 5) != 0) continue;
    const char *number = e->d_name + n + 5;
    if (*number == '\0' || number[strspn(number, "0123456789")] != '\0') continue;
    sq_format(name + folder, sizeof name - folder, "%s", e->d_name);
    unlink(name);
  }
  if (d != NULL) closedir(d);
}

sq_status sq_store_locate(const char *path, char *real, size_t cap)
{
  char end[PATH_MAX];
  struct stat is;
  const int link = lstat(path, &is) == 0 && S_ISLNK(is.st_mode);
  if (link && realpath(path, end) == NULL)
    return sq_fail(SQ_ERR_IO, "%s is a symbolic link to a file that is not there", path);
  const char *file = link ? end : path;
  if (strlen(file) > LONGEST || strlen(file) >= cap)
    return sq_fail(SQ_ERR_USAGE, "the name of the results file is too long");
  sq_format(real, cap, "%s", file);
  return SQ_OK;
}

sq_status sq_lock_take(const char *path, sq_lock **out)
{
  char file[LONGEST + 1];
  *out = NULL;
  sq_status st = sq_store_locate(path, file, sizeof file);
  if (st != SQ_OK) return st;
  sq_lock *l = sq_calloc(1, sizeof *l, "a lock");
  if (l == NULL) return SQ_ERR_MEMORY;
  l->fd = -1;
  if (asprintf(&l->path, "%s.lock", file) < 0) {
    free(l);
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory for its lock", file);
  }
  l->me = myself();
  for (int i = 0; i < 100 && l->fd < 0 && st == SQ_OK; ++i) st = take(file, l);
  if (st == SQ_OK && l->fd < 0) st = sq_fail(SQ_ERR_IO, "%s: cannot be had", l->path);
  if (st == SQ_OK) {
    start_beating(l);
    remove_leftovers(file);
    *out = l;
    return SQ_OK;
  }
  free(l->path);
  free(l);
  return st;
}

/* Not another run's, which has found this one silent for long. */
static int is_still_ours(const sq_lock *l)
{
  struct stat here;
  const holder now = read_holder(l->fd);
  return !l->lost && is_named(l->fd, l->path, &here) && same_holder(&now, &l->me);
}

void sq_lock_release(sq_lock **pl)
{
  sq_lock *l = *pl;
  if (l == NULL) return;
  *pl = NULL;
  stop_beating(l);
  if (is_still_ours(l)) unlink(l->path); /* while it is held: who waits sees that the name has gone */
  close(l->fd);
  free(l->path);
  free(l);
}

int sq_store_is_written(const char *path, char *who, size_t cap)
{
  char file[LONGEST + 1], name[LONGEST + 8];
  holder h = {0};
  int flocked;
  if (cap > 0) who[0] = '\0';
  if (sq_store_locate(path, file, sizeof file) != SQ_OK) {
    sq_error_clear();
    return 0;
  }
  sq_format(name, sizeof name, "%s.lock", file);
  const int fd = open_lock(name, O_RDONLY);
  if (fd < 0) return errno == EACCES; /* somebody's, whom we may not see */
  verdict v = judge(fd, name, LOCK_SH, &h, &flocked);
  struct stat s;
  if (v == UNSURE) v = fstat(fd, &s) == 0 && time(NULL) - s.st_mtime < SILENT_S ? HELD : STALE;
  close(fd);
  if (v == HELD && h.pid != 0) describe(&h, who, cap);
  return v == HELD;
}
