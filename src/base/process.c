/* src/base/process.c: time, and what this process may use of the machine. */
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "process_impl.h"
#include "sq/base.h"

double sq_wall_s(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sq_start_iso(char out[32])
{
  static time_t first;
  struct tm utc;
  if (first == 0) first = time(NULL);
  gmtime_r(&first, &utc);
  strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

/* Value in kB of a line "name:   123 kB" in a /proc file; 0 if absent. */
static size_t proc_kb(const char *path, const char *name)
{
  FILE *f = fopen(path, "r");
  if (f == NULL) return 0;
  char line[256];
  size_t kb = 0;
  while (fgets(line, sizeof line, f) != NULL)
    if (strncmp(line, name, strlen(name)) == 0) kb = (size_t)strtoull(line + strlen(name), NULL, 10);
  fclose(f);
  return kb;
}

size_t sq_peak_bytes(void)
{
  return proc_kb("/proc/self/status", "VmHWM:") * 1024;
}

/* First line of a small file; 0 if it cannot be read. */
static int first_line(const char *path, char *line, int cap)
{
  FILE *f = fopen(path, "r");
  if (f == NULL) return 0;
  const int ok = fgets(line, cap, f) != NULL;
  fclose(f);
  return ok;
}

/* ---- control groups ---------------------------------------------------------------------------------- */

/* Of two limits, 0 being none. */
static double least(double a, double b)
{
  return a > 0 && (b <= 0 || a < b) ? a : b;
}

/* First number of a file in a group's folder; 0: no file, or "max" (version 2) or -1 (version 1). */
static double number_in(const char *dir, const char *name)
{
  char path[4352], line[128];
  sq_format(path, sizeof path, "%.4096s/%s", dir, name);
  return first_line(path, line, sizeof line) ? fmax(strtod(line, NULL), 0) : 0;
}

static double bytes_of_group(const char *dir)
{
  return least(number_in(dir, "memory.max"), number_in(dir, "memory.limit_in_bytes"));
}

static double cores_of_group(const char *dir)
{
  char path[4352], line[128];
  double quota = number_in(dir, "cpu.cfs_quota_us"), period = number_in(dir, "cpu.cfs_period_us");
  sq_format(path, sizeof path, "%.4096s/cpu.max", dir);
  if (first_line(path, line, sizeof line) && sscanf(line, "%lf %lf", &quota, &period) != 2) return 0;
  return quota > 0 && period > 0 ? quota / period : 0;
}

typedef double limit_of_group(const char *dir);

/* Over the folder mount/path and those above it, down to mount itself; path begins with a slash. */
static double least_upwards(const char *mount, const char *path, limit_of_group *limit)
{
  char dir[4096];
  const int n = snprintf(dir, sizeof dir, "%s%s", mount, path);
  double m = limit(mount);
  if (n < 0 || n >= (int)sizeof dir) return m;
  for (char *end = dir + n; end > dir + strlen(mount); end = strrchr(dir, '/')) {
    *end = '\0';
    m = least(m, limit(dir));
  }
  return m;
}

/* Is name one of the words of a list a,b,c? */
static int listed(const char *name, const char *list)
{
  const size_t n = strlen(name);
  for (const char *p = list; p != NULL; p = strchr(p, ',')) {
    p += *p == ',';
    if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0')) return 1;
  }
  return 0;
}

static double group_limit(const char *root, const char *text, const char *controller, limit_of_group *limit)
{
  double m = limit(root); /* the only one if /proc is not there */
  for (const char *next = text; *next != '\0';) {
    char line[4096], mount[4096], *list, *path;
    const size_t n = strcspn(next, "\n");
    sq_format(line, sizeof line, "%.*s", sq_min((int)n, (int)sizeof line - 1), next);
    next += n + (next[n] == '\n');
    if ((list = strchr(line, ':')) == NULL || (path = strchr(++list, ':')) == NULL || path[1] != '/')
      continue;
    *path++ = '\0';
    if (*list == '\0') m = least(m, least_upwards(root, path, limit));
    if (!listed(controller, list)) continue;
    /* Version 1 mounts a controller under its name or with those that it shares a hierarchy with. */
    const char *const name[] = {controller, list};
    for (int i = 0; i < 2; ++i)
      if (snprintf(mount, sizeof mount, "%s/%s", root, name[i]) < (int)sizeof mount)
        m = least(m, least_upwards(mount, path, limit));
  }
  return m;
}

double sq_cgroup_bytes(const char *root, const char *text)
{
  return group_limit(root, text, "memory", bytes_of_group);
}

double sq_cgroup_cores(const char *root, const char *text)
{
  return group_limit(root, text, "cpu", cores_of_group);
}

static double own_group(double (*limit)(const char *root, const char *text))
{
  char text[1 << 14] = "";
  FILE *f = fopen("/proc/self/cgroup", "r");
  if (f != NULL) {
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
  }
  return limit("/sys/fs/cgroup", text);
}

/* ---- what this process may use ----------------------------------------------------------------------- */

int sq_cpu_count(void)
{
  cpu_set_t set;
  int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  const double quota = own_group(sq_cgroup_cores);
  if (quota > 0 && quota < n) n = (int)quota;
  return n < 1 ? 1 : n;
}

size_t sq_memory_bytes(void)
{
  const double machine = (double)proc_kb("/proc/meminfo", "MemTotal:") * 1024;
  return (size_t)least(own_group(sq_cgroup_bytes), machine);
}
