/* src/base/process.c: time, and what this process may use of the machine. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

/* CPU quota of the control group in cores, 0 if there is none.  Only the group that is mounted as the root of
   this process's view is read: inside a container that is its own. */
static double cgroup_cores(void)
{
  char line[128];
  double quota = 0, period = 0;
  if (first_line("/sys/fs/cgroup/cpu.max", line, sizeof line)) {
    if (sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0) return quota / period;
    return 0;
  }
  if (first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line)) quota = strtod(line, NULL);
  if (first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof line)) period = strtod(line, NULL);
  return quota > 0 && period > 0 ? quota / period : 0;
}

int sq_cpu_count(void)
{
  cpu_set_t set;
  int n = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  const double quota = cgroup_cores();
  if (quota > 0 && quota < n) n = (int)quota;
  return n < 1 ? 1 : n;
}

size_t sq_memory_bytes(void)
{
  size_t bytes = proc_kb("/proc/meminfo", "MemTotal:") * 1024;
  const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; ++i) {
    char line[64];
    if (!first_line(limits[i], line, sizeof line)) continue;
    const unsigned long long limit = strtoull(line, NULL, 10); /* "max" gives 0 */
    if (limit > 0 && limit < bytes) bytes = (size_t)limit;
  }
  return bytes;
}
