/* tests/test_parallel.c: every block is done once, by whatever threads there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sq/parallel.h"

enum { MOST = 300, ROUNDS = 200 };

typedef struct {
  atomic_int done[MOST];
  atomic_int inner;
} marks;

static void mark(void *ctx, int i)
{
  marks *m = ctx;
  atomic_fetch_add(&m->done[i], 1);
}

static void expect_once(marks *m, int n)
{
  for (int i = 0; i < MOST; ++i) {
    assert_int_equal(atomic_load(&m->done[i]), i < n);
    atomic_store(&m->done[i], 0);
  }
}

static void blocks_outside_a_region_are_done_in_order_by_the_caller(void **state)
{
  static marks m;
  (void)state;
  sq_parallel_blocks(MOST, mark, &m);
  expect_once(&m, MOST);
  sq_parallel_blocks(0, mark, &m);
  expect_once(&m, 0);
}

static void every_group_runs_once(void **state)
{
  static marks m;
  (void)state;
  for (int threads = 1; threads <= 9; threads += 2) {
    for (int groups = 0; groups <= 20; ++groups) {
      sq_parallel_groups(threads, groups, mark, &m);
      expect_once(&m, groups);
    }
  }
}

/* Many short jobs one after the other, of changing length: a follower that is late must not take a block of the next job
   for one of the last. */
typedef struct {
  marks m;
  int64_t sum[MOST];
  int factor;
} rounds;

static void add_block(void *ctx, int i)
{
  rounds *r = ctx;
  r->sum[i] += (int64_t)r->factor * (i + 1);
  atomic_fetch_add(&r->m.done[i], 1);
}

static void many_jobs(void *ctx, int g)
{
  rounds *r = (rounds *)ctx + g;
  for (int k = 1; k <= ROUNDS; ++k) {
    r->factor = k;
    sq_parallel_blocks(2 + (k * 37) % (MOST - 2), add_block, r);
  }
}

static void jobs_that_follow_each_other_do_not_mix(void **state)
{
  static rounds r[3];
  (void)state;
  for (int threads = 1; threads <= 8; ++threads) {
    for (int groups = 1; groups <= 3; ++groups) {
      for (int g = 0; g < 3; ++g) r[g] = (rounds){0};
      sq_parallel_groups(threads, groups, many_jobs, r);
      for (int g = 0; g < groups; ++g) {
        for (int i = 0; i < MOST; ++i) {
          int64_t sum = 0;
          int times = 0;
          for (int k = 1; k <= ROUNDS; ++k) {
            if (i >= 2 + (k * 37) % (MOST - 2)) continue;
            sum += (int64_t)k * (i + 1);
            ++times;
          }
          assert_int_equal(r[g].sum[i], sum);
          assert_int_equal(atomic_load(&r[g].m.done[i]), times);
        }
      }
    }
  }
}

static void inner_block(void *ctx, int i)
{
  marks *m = ctx;
  (void)i;
  atomic_fetch_add(&m->inner, 1);
}

static void outer_block(void *ctx, int i)
{
  mark(ctx, i);
  sq_parallel_blocks(3, inner_block, ctx);
}

static void outer_group(void *ctx, int g)
{
  (void)g;
  sq_parallel_blocks(50, outer_block, ctx);
}

static void a_block_may_have_blocks(void **state)
{
  static marks m;
  (void)state;
  for (int threads = 1; threads <= 4; ++threads) {
    atomic_store(&m.inner, 0);
    sq_parallel_groups(threads, 1, outer_group, &m);
    expect_once(&m, 50);
    assert_int_equal(atomic_load(&m.inner), 150);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(blocks_outside_a_region_are_done_in_order_by_the_caller),
      cmocka_unit_test(every_group_runs_once),
      cmocka_unit_test(jobs_that_follow_each_other_do_not_mix),
      cmocka_unit_test(a_block_may_have_blocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
