/* src/base/process_impl.h: limits of control groups, apart from the machine so that tests can make their own tree. */
#pragma once

/* Smallest limit of this process's control group and the groups above it; 0: none.
 *
 *   root   where the groups are mounted, /sys/fs/cgroup
 *   text   of /proc/self/cgroup: lines ID:CONTROLLERS:PATH; version 2 has no controllers there
 *
 * A batch system puts its limits on groups of a job, step or task, below what is mounted; a container shows its own group as
 * the mounted one, while PATH may be that of the host, which then is not there. */
double sq_cgroup_bytes(const char *root, const char *text);
double sq_cgroup_cores(const char *root, const char *text); /* quota over period */
