/* tests/bench/bench_mpi.h: waiting for other ranks without keeping a core busy. */
#pragma once

#include <mpi.h>
#include <time.h>

static inline void bench_nap(void)
{
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* MPI_Barrier would spin. */
static inline void bench_quiet_barrier(MPI_Comm comm)
{
  MPI_Request r;
  int done = 0;
  MPI_Ibarrier(comm, &r);
  while (MPI_Test(&r, &done, MPI_STATUS_IGNORE), !done) bench_nap();
}
