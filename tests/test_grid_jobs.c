/* tests/test_grid_jobs.c: the scheduler with jobs that sleep, fail or want to stop.  The same program on 1,
 * 2, 4 and 7 ranks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/grid.h"

enum { MAX_JOBS = 40 };

typedef struct {
  int steps;                                /* polls of a job */
  double step_s;                            /* sleep of a step */
  int error_job, stop_job, late_job;        /* -1: none */
  int stop_on_watch;                        /* polls of this rank after which watch() says stop; 0: never */
  int npoll, nprogress, bad_progress, seen; /* seen: results that progress() saw */
  int runs[MAX_JOBS], rank_of[MAX_JOBS], unfinished[MAX_JOBS];
  const int *skip;            /* jobs that had ended before */
  int njobs, place[MAX_JOBS]; /* jobs begun on this rank; which of them a job was */
} log_of_jobs;

static int rank, nrank;

static void sleep_s(double s)
{
  const struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
  nanosleep(&t, NULL);
}

static sq_status run_job(void *user, sq_grid *g, int job)
{
  log_of_jobs *l = user;
  assert_int_equal(sq_grid_rank(g), rank);
  ++l->runs[job];
  l->rank_of[job] = rank;
  l->place[job] = l->njobs++;
  for (int i = 0; i < l->steps; ++i) {
    ++l->npoll;
    /* 1 from the middle on, while the job still runs */
    if (sq_grid_poll(g, fmin(1, 2.0 * (i + 1) / l->steps))) {
      l->unfinished[job] = 1;
      return SQ_STOPPED;
    }
    if (job == l->stop_job && i == l->steps / 2) sq_grid_stop(g);
    if (job == l->error_job && i == l->steps / 2) return sq_fail(SQ_ERR_IO, "job %d: the disk is full", job);
    sleep_s(l->step_s);
  }
  sq_grid_set_result(g, 1000 + job);
  return SQ_OK;
}

static void check_progress(void *user, const sq_grid *g)
{
  log_of_jobs *l = user;
  const sq_grid_state s = sq_grid_get_state(g);
  ++l->nprogress;
  l->bad_progress |= rank != 0 || s.running + s.done + s.waiting + s.stopped != s.total;
  for (int i = 0; i < s.total; ++i) {
    const double f = sq_grid_fraction(g, i), r = sq_grid_result(g, i);
    l->bad_progress |= !(f >= 0 && f <= 1) || (r == r && (r != 1000 + i || f < 1));
    l->bad_progress |= f == 1 && r != r && !(l->skip && l->skip[i]); /* ended, but without its result */
    l->seen += r == r;
  }
  l->bad_progress |= s.cost_done < 0 || s.cost_done > s.cost_total || s.running > nrank;
}

static int watch(void *user)
{
  const log_of_jobs *l = user;
  return l->stop_on_watch > 0 && l->npoll >= l->stop_on_watch;
}

static const log_of_jobs fresh = {.steps = 4, .step_s = 0.001, .error_job = -1, .stop_job = -1};

/* Runs and gathers what all ranks saw. */
static sq_status run_jobs(log_of_jobs *l, int njob, const double *cost, const int *skip)
{
  const sq_grid_ops ops = {.user = l, .run = run_job, .progress = check_progress, .watch = watch};
  sq_error_clear();
  l->skip = skip;
  const sq_status st =
      sq_grid_run(MPI_COMM_WORLD, njob, rank == 0 ? cost : NULL, rank == 0 ? skip : NULL, &ops);
  int all[2] = {st, -(int)st};
  MPI_Allreduce(MPI_IN_PLACE, all, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  assert_int_equal(all[0], -all[1]); /* the same status everywhere */
  MPI_Allreduce(MPI_IN_PLACE, l->runs, MAX_JOBS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, l->rank_of, MAX_JOBS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, l->unfinished, MAX_JOBS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, l->place, MAX_JOBS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &l->bad_progress, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  assert_int_equal(l->bad_progress, 0);
  return st;
}

static int count(const int *v, int value)
{
  int n = 0;
  for (int i = 0; i < MAX_JOBS; ++i) n += v[i] == value;
  return n;
}

static void costs_fill(double cost[MAX_JOBS])
{
  for (int i = 0; i < MAX_JOBS; ++i) cost[i] = 1 + (i * 7) % 11;
}

static void every_job_runs_exactly_once(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  log_of_jobs l = fresh;
  costs_fill(cost);
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_OK);
  assert_int_equal(count(l.runs, 1), MAX_JOBS);
}

/* In the order of the list: longer, or as long and earlier. */
static int comes_first(const double *cost, int a, int b)
{
  return cost[a] > cost[b] || (cost[a] == cost[b] && a < b);
}

static void longest_jobs_are_handed_out_first(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  int longest = 0;
  log_of_jobs l = fresh;
  costs_fill(cost);
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_OK);
  /* Each rank gets its jobs in the order of the list, whatever the load of the machine does to the clocks of
   * the others. */
  for (int i = 0; i < MAX_JOBS; ++i) {
    if (comes_first(cost, i, longest)) longest = i;
    for (int j = 0; j < MAX_JOBS; ++j)
      if (l.rank_of[i] == l.rank_of[j] && l.place[i] < l.place[j]) assert_true(comes_first(cost, i, j));
  }
  assert_int_equal(l.place[longest], 0);
}

static void work_is_shared_on_demand(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  int of_rank[MAX_JOBS] = {0};
  log_of_jobs l = fresh;
  l.steps = 10;
  l.step_s = 0.002;
  for (int i = 0; i < MAX_JOBS; ++i) cost[i] = 1;
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_OK);
  for (int i = 0; i < MAX_JOBS; ++i) ++of_rank[l.rank_of[i]];
  for (int r = 0; r < nrank; ++r) assert_true(of_rank[r] >= 1); /* rank 0 too */
}

static void requests_are_served_while_rank_0_works(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  if (nrank == 1) return;
  /* The longest nrank jobs go to all ranks; rank 0's own has as many steps as the rest, but the others must
   * not wait for it. */
  log_of_jobs l = fresh;
  costs_fill(cost);
  l.steps = rank == 0 ? 400 : 2;
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_OK);
  int of_rank_0 = 0;
  for (int i = 0; i < MAX_JOBS; ++i) of_rank_0 += l.rank_of[i] == 0;
  assert_true(of_rank_0 >= 1 &&
              of_rank_0 <= MAX_JOBS / 4); /* 400 ms against 38 jobs of about 3 ms: 1 unless starved */
}

static void an_error_stops_every_rank(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  costs_fill(cost);
  for (int bad = 0; bad < 3; ++bad) {
    log_of_jobs l = fresh;
    l.error_job = 5 + 9 * bad;
    const sq_status st = run_jobs(&l, MAX_JOBS, cost, NULL);
    char expected[64];
    sq_format(expected, sizeof expected, "job %d: the disk is full", l.error_job);
    assert_int_equal(st, SQ_ERR_IO);
    assert_string_equal(sq_error_text(), expected); /* the text of the rank that failed, on all */
    for (int i = 0; i < MAX_JOBS; ++i) assert_true(l.runs[i] <= 1);
    assert_int_equal(l.runs[l.error_job], 1);
  }
}

static void a_stop_leaves_jobs_unfinished_and_says_so(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  int left = 0;
  log_of_jobs l = fresh;
  costs_fill(cost);
  l.stop_job = 3; /* cost 11: one of the first */
  l.steps = 200;
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_STOPPED);
  assert_int_equal(l.unfinished[l.stop_job], 1);
  for (int i = 0; i < MAX_JOBS; ++i) {
    assert_true(l.runs[i] <= 1);
    left += l.unfinished[i] || l.runs[i] == 0;
  }
  assert_true(left >= MAX_JOBS - 2 * nrank);
}

static void a_watch_that_fires_on_one_rank_stops_all(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  costs_fill(cost);
  for (int who = 0; who<nrank; who += nrank> 1 ? nrank - 1 : 1) {
    log_of_jobs l = fresh;
    l.steps = 300;
    if (rank == who) l.stop_on_watch = 10;
    assert_int_equal(run_jobs(&l, MAX_JOBS, cost, NULL), SQ_STOPPED);
    assert_true(count(l.runs, 1) <= nrank);
  }
}

static void a_watch_is_heard_while_a_rank_waits_for_work(void **state)
{
  (void)state;
  double cost[2] = {1, 1};
  if (nrank < 4) return;
  log_of_jobs l = fresh; /* two jobs: other ranks wait, and one of them says stop */
  l.steps = 2000;
  if (rank == nrank - 1) {
    l.stop_on_watch = 1;
    l.npoll = 1;
  }
  const sq_status st = run_jobs(&l, 2, cost, NULL);
  assert_int_equal(st, SQ_STOPPED);
}

static void a_stop_in_the_last_step_of_the_last_job_is_no_stop(void **state)
{
  (void)state;
  const double cost[1] = {1};
  log_of_jobs l = fresh;
  l.steps = 1; /* asks after its only poll */
  l.stop_job = 0;
  assert_int_equal(run_jobs(&l, 1, cost, NULL), SQ_OK);
}

static void skipped_jobs_are_not_run(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  int skip[MAX_JOBS];
  log_of_jobs l = fresh;
  costs_fill(cost);
  for (int i = 0; i < MAX_JOBS; ++i) skip[i] = i % 3 == 0;
  assert_int_equal(run_jobs(&l, MAX_JOBS, cost, skip), SQ_OK);
  for (int i = 0; i < MAX_JOBS; ++i) assert_int_equal(l.runs[i], !skip[i]);

  log_of_jobs none = fresh;
  for (int i = 0; i < MAX_JOBS; ++i) skip[i] = 1;
  assert_int_equal(run_jobs(&none, MAX_JOBS, cost, skip), SQ_OK);
  assert_int_equal(count(none.runs, 0), MAX_JOBS);
}

static void no_jobs_and_fewer_jobs_than_ranks_end_well(void **state)
{
  (void)state;
  const double cost[1] = {2.5};
  log_of_jobs l = fresh, one = fresh;
  assert_int_equal(run_jobs(&l, 0, cost, NULL), SQ_OK);
  assert_int_equal(count(l.runs, 0), MAX_JOBS);
  assert_int_equal(run_jobs(&one, 1, cost, NULL), SQ_OK);
  assert_int_equal(one.runs[0], 1);
}

static void progress_is_called_about_once_a_second(void **state)
{
  (void)state;
  double cost[MAX_JOBS];
  log_of_jobs l = fresh;
  const int njob = 2 * nrank;
  costs_fill(cost);
  l.steps = 25;
  l.step_s = 0.05;
  const double t = sq_wall_s();
  assert_int_equal(run_jobs(&l, njob, cost, NULL), SQ_OK);
  const double wall = sq_wall_s() - t; /* at least 2.5 s */
  if (rank == 0) {
    assert_true(l.nprogress >= 1);
    assert_true(l.nprogress <= (int)wall + 1);
    assert_true(l.seen >= 1); /* the first jobs end after 1.25 s */
  } else {
    assert_int_equal(l.nprogress, 0);
  }
}

/* 2.4 s a job, steps "done" after 1.2 s, progress about every second: one look at least falls between. */
static void a_job_without_its_result_is_not_done(void **state)
{
  (void)state;
  log_of_jobs l = fresh;
  double cost[MAX_JOBS];
  for (int i = 0; i < nrank; ++i) cost[i] = 1;
  l.steps = 40;
  l.step_s = 0.06;
  assert_int_equal(run_jobs(&l, nrank, cost, NULL), SQ_OK);
  assert_false(l.bad_progress);
  if (rank == 0) assert_true(l.nprogress >= 2);
}

int main(int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_job_without_its_result_is_not_done),
      cmocka_unit_test(every_job_runs_exactly_once),
      cmocka_unit_test(longest_jobs_are_handed_out_first),
      cmocka_unit_test(work_is_shared_on_demand),
      cmocka_unit_test(requests_are_served_while_rank_0_works),
      cmocka_unit_test(an_error_stops_every_rank),
      cmocka_unit_test(a_stop_leaves_jobs_unfinished_and_says_so),
      cmocka_unit_test(a_watch_that_fires_on_one_rank_stops_all),
      cmocka_unit_test(a_watch_is_heard_while_a_rank_waits_for_work),
      cmocka_unit_test(a_stop_in_the_last_step_of_the_last_job_is_no_stop),
      cmocka_unit_test(skipped_jobs_are_not_run),
      cmocka_unit_test(no_jobs_and_fewer_jobs_than_ranks_end_well),
      cmocka_unit_test(progress_is_called_about_once_a_second),
  };
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  if (failed) MPI_Abort(MPI_COMM_WORLD, 1); /* a rank that failed alone must not leave the others waiting */
  MPI_Finalize();
  return failed;
}
