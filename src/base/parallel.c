/* src/base/parallel.c: groups of threads.
 *
 * A group's leader posts a job: a function, its argument and a number of blocks.  All of the group take blocks from
 * one word, the job's number in its upper half and the next block in the lower one.  A block is taken by
 * compare-and-swap, so that a follower that comes late, with a word from a job that has ended, gets nothing; and the
 * leader waits for blocks, not for followers: one that sleeps while others have done the work holds up nobody. */
#include "sq/parallel.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "sq/base.h"

enum { MAX_GROUPS = 64 };
#define CLOSED UINT32_MAX /* next block of a job that does not take followers (any more) */

typedef struct {
  _Alignas(64) _Atomic uint64_t next;
  _Alignas(64) _Atomic int done;
  _Alignas(64) _Atomic(sq_block_fn) run;
  _Atomic(void *) ctx;
  _Atomic int nblock, ended;
  uint32_t job; /* leader's */
} group;

/* The group whose leader this thread is. */
static _Thread_local group *leading;

int sq_parallel_available(void)
{
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

/* Prompt while work is dense, no load on a core that others need when it is not. */
static void pause_for(int *turn)
{
  enum { SPIN = 2000, YIELD = 4000 };
  ++*turn;
  if (*turn < SPIN) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  } else if (*turn < YIELD) {
    sched_yield();
  } else {
    const struct timespec t = {0, 50000};
    nanosleep(&t, NULL);
  }
}

/* Takes blocks of the job posted in g until there are none; nonzero if it had any. */
static int work_on(group *g)
{
  int any = 0;
  for (;;) {
    uint64_t v = atomic_load_explicit(&g->next, memory_order_acquire);
    const uint32_t block = (uint32_t)v;
    if (block == CLOSED) return any;
    const sq_block_fn run = atomic_load_explicit(&g->run, memory_order_acquire);
    void *ctx = atomic_load_explicit(&g->ctx, memory_order_acquire);
    const int nblock = atomic_load_explicit(&g->nblock, memory_order_acquire);
    if (block >= (uint32_t)nblock) return any;
    /* What was read belongs to the job of v if v still stands. */
    if (!atomic_compare_exchange_weak_explicit(&g->next, &v, v + 1, memory_order_acq_rel,
                                               memory_order_relaxed))
      continue;
    run(ctx, (int)block);
    atomic_fetch_add_explicit(&g->done, 1, memory_order_acq_rel);
    any = 1;
  }
}

int sq_parallel_has_help(void)
{
  return leading != NULL;
}

void sq_parallel_blocks(int nblock, sq_block_fn run, void *ctx)
{
  group *g = leading;
  if (g == NULL || nblock < 2) {
    for (int i = 0; i < nblock; ++i) run(ctx, i);
    return;
  }
  leading = NULL; /* a block that has blocks does them itself */
  atomic_store_explicit(&g->run, run, memory_order_release);
  atomic_store_explicit(&g->ctx, ctx, memory_order_release);
  atomic_store_explicit(&g->nblock, nblock, memory_order_release);
  atomic_store_explicit(&g->done, 0, memory_order_release);
  ++g->job;
  atomic_store_explicit(&g->next, (uint64_t)g->job << 32, memory_order_release);
  work_on(g);
  for (int turn = 0; atomic_load_explicit(&g->done, memory_order_acquire) < nblock;) pause_for(&turn);
  atomic_store_explicit(&g->next, (uint64_t)g->job << 32 | CLOSED, memory_order_release);
  leading = g;
}

#ifdef _OPENMP
static void help(group *g)
{
  for (int turn = 0; !atomic_load_explicit(&g->ended, memory_order_acquire);) {
    if (work_on(g))
      turn = 0;
    else
      pause_for(&turn);
  }
}

void sq_parallel_groups(int nthread, int ngroup, sq_block_fn run, void *ctx)
{
  group g[MAX_GROUPS];
  if (nthread < 2 || ngroup < 1) {
    for (int i = 0; i < ngroup; ++i) run(ctx, i);
    return;
  }
  for (int i = 0; i < MAX_GROUPS; ++i) {
    atomic_init(&g[i].next, CLOSED);
    atomic_init(&g[i].done, 0);
    atomic_init(&g[i].run, NULL);
    atomic_init(&g[i].ctx, NULL);
    atomic_init(&g[i].nblock, 0);
    atomic_init(&g[i].ended, 0);
    g[i].job = 0;
  }
#pragma omp parallel num_threads(nthread)
  {
    const int n = omp_get_num_threads(), me = omp_get_thread_num();
    const int lanes = sq_min(sq_min(ngroup, n), MAX_GROUPS), lane = me % lanes;
    if (me < lanes) {
      leading = lane + lanes < n ? &g[lane] : NULL; /* alone: no followers */
      for (int i = lane; i < ngroup; i += lanes) run(ctx, i);
      leading = NULL;
      atomic_store_explicit(&g[lane].ended, 1, memory_order_release);
    } else {
      help(&g[lane]);
    }
  }
}
#else
void sq_parallel_groups(int nthread, int ngroup, sq_block_fn run, void *ctx)
{
  (void)nthread;
  for (int i = 0; i < ngroup; ++i) run(ctx, i);
}
#endif
