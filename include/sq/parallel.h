/* include/sq/parallel.h: threads of one process that do fixed blocks of work together.
 *
 * A region has threads in groups.  The first thread of a group runs the group's function; the others of the group
 * help it whenever it calls sq_parallel_blocks().  Outside a region, in a group of one thread and from within a
 * block the caller does all blocks itself.  What a block does must depend on its number alone, so that the result
 * is the same for any number of threads. */
#pragma once

typedef void (*sq_block_fn)(void *ctx, int block);

/* run(ctx, g) once for each g = 0 .. ngroup-1, on nthread OpenMP threads (fewer where the system gives fewer; 1: on
   the caller's alone).  Returns when all have ended.  Not from within a region. */
void sq_parallel_groups(int nthread, int ngroup, sq_block_fn run, void *ctx);
/* run(ctx, i) once for each i = 0 .. nblock-1, in no order, on the threads of the calling group.  Returns when
   all have ended. */
void sq_parallel_blocks(int nblock, sq_block_fn run, void *ctx);
/* 1 where others would help the caller with blocks now: for choosing between ways of the same result. */
int sq_parallel_has_help(void);
/* Where a block needs room of its own, the work is dealt out to so many areas, whatever the number of threads: item
   i belongs to lane i % SQ_LANES, and sq_parallel_blocks() runs lanes. */
#define SQ_LANES 4
/* 1 where the program was built with OpenMP. */
int sq_parallel_available(void);
