/* tests/test_grid_simulate.c: the simulated scheduler against closed forms and against the real one.
 *
 * The real one is run with jobs that sleep until it is their turn to end on a clock that all ranks share: the job whose
 * end comes first ends first, whatever the machine does.  So both have to agree in every start and every end. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/grid.h"

enum { MAX_JOBS = 60, MANY = 100000 };

static int rank, nrank;

/* ---- closed forms ------------------------------------------------------------------------------------ */

static double simulate(int njob, const double *seconds, int nteam, sq_grid_forecast *f)
{
  const sq_grid_model m = {.nteam = nteam, .stop_s = INFINITY};
  double *left = sq_calloc((size_t)njob + 1, sizeof *left, "jobs");
  memcpy(left, seconds, (size_t)njob * sizeof *left);
  assert_int_equal(sq_grid_simulate(njob, seconds, NULL, &m, left, f), SQ_OK);
  for (int i = 0; i < njob; ++i) assert_true(left[i] == 0);
  free(left);
  return f->end_s;
}

static double *equal_jobs(int njob, double seconds)
{
  double *s = sq_calloc((size_t)njob + 1, sizeof *s, "jobs");
  for (int i = 0; i < njob; ++i) s[i] = seconds;
  return s;
}

/* ceil(jobs / ranks) rounds of one length. */
static void equal_jobs_take_as_many_rounds_as_needed(void **state)
{
  (void)state;
  const int ranks[] = {1, 2, 3, 7, 64, 120, 121, 1000};
  double *s = equal_jobs(120, 2);
  for (size_t i = 0; i < sizeof ranks / sizeof *ranks; ++i) {
    sq_grid_forecast f = {0};
    assert_true(simulate(120, s, ranks[i], &f) == 2.0 * ((120 + ranks[i] - 1) / ranks[i]));
    assert_true(f.busy_s == 240);
  }
  free(s);
}

static void one_job_takes_its_time_on_any_number_of_ranks(void **state)
{
  (void)state;
  const double seconds = 3.25;
  for (int n = 1; n <= 1000000; n *= 10) {
    sq_grid_forecast f = {0};
    assert_true(simulate(1, &seconds, n, &f) == seconds);
  }
}

static void more_ranks_than_jobs_take_the_longest_job(void **state)
{
  (void)state;
  const double s[5] = {1, 5, 2, 4, 3};
  double began[5] = {-1, -1, -1, -1, -1};
  sq_grid_forecast f = {.began_s = began};
  assert_true(simulate(5, s, 6, &f) == 5);
  for (int i = 0; i < 5; ++i) assert_true(began[i] == 0);
}

/* Graham 1969: longest first on 2 ranks, jobs 3 3 2 2 2: 7, where the best is 6. */
static void the_longest_goes_first_even_where_that_is_not_best(void **state)
{
  (void)state;
  const double s[5] = {2, 3, 2, 3, 2};
  sq_grid_forecast f = {0};
  assert_true(simulate(5, s, 2, &f) == 7);
  assert_true(simulate(5, s, 1, &f) == 12);
}

/* Jobs of 1 to 10 s on 10,000 ranks: no rank is idle before the last job is out, so the end is at most the mean
 * load and one job. */
static void many_jobs_fill_many_ranks(void **state)
{
  (void)state;
  double *s = equal_jobs(MANY, 0), sum = 0;
  for (int i = 0; i < MANY; ++i) sum += s[i] = 1 + i % 10;
  sq_grid_forecast f = {0};
  const double end = simulate(MANY, s, 10000, &f);
  assert_true(end >= sum / 10000 && end <= sum / 10000 + 10);
  assert_true(fabs(f.busy_s - sum) < 1e-6 * sum);
  free(s);
}

static void a_stop_leaves_what_was_not_done(void **state)
{
  (void)state;
  const double cost[4] = {4, 3, 2, 1};
  double left[4] = {4, 3, 2, 1};
  const int skip[4] = {0, 0, 0, 1};
  const sq_grid_model m = {.nteam = 2, .stop_s = 3.5};
  sq_grid_forecast f = {0};
  assert_int_equal(sq_grid_simulate(4, cost, skip, &m, left, &f), SQ_OK);
  assert_true(f.end_s == 3.5 && f.busy_s == 7);
  assert_true(left[0] == 0.5 && left[1] == 0 && left[2] == 1.5); /* 2 was begun at 3 */
  assert_true(left[3] == 1);
}

/* Rank 0 looks every 2 s while its job of 5 s lasts: the other rank, free after 1 s, is answered after 2. */
static void rank_0_answers_between_its_own_steps(void **state)
{
  (void)state;
  const double cost[4] = {5.5, 5, 1, 1}; /* the other rank begins first */
  double left[4] = {1, 5, 1, 1}, began[4];
  const double step[4] = {1, 2, 1, 1};
  const sq_grid_model m = {.nteam = 2, .step_s = step, .stop_s = INFINITY};
  sq_grid_forecast f = {.began_s = began};
  assert_int_equal(sq_grid_simulate(4, cost, NULL, &m, left, &f), SQ_OK);
  assert_true(began[0] == 0 && began[1] == 0 && began[2] == 2 && began[3] == 4);
  assert_true(f.end_s == 5);
}

/* ---- the real scheduler ------------------------------------------------------------------------------ */

typedef struct { /* seen by all ranks */
  _Atomic int begun;
  _Atomic double end[64]; /* virtual end of the job of a team; NAN: none */
  double began[MAX_JOBS]; /* by job */
} shared_clock;

typedef struct {
  shared_clock *clock;
  const double *seconds;
  int njob, team;
  double now; /* when this team was free */
} sleeper;

/* Every other team has a job that ends later (of equal ends the first team's is first), or will not get one. */
static int my_turn(const sleeper *s, int me, double end)
{
  for (int t = 0; t < nrank / s->team; ++t) {
    const double theirs = atomic_load(&s->clock->end[t]);
    if (t == me) continue;
    if (isnan(theirs)) {
      if (atomic_load(&s->clock->begun) < s->njob) return 0;
    } else if (theirs < end || (theirs == end && t < me)) {
      return 0;
    }
  }
  return 1;
}

static sq_status sleep_job(void *user, sq_grid *g, int job)
{
  sleeper *s = user;
  const struct timespec nap = {0, 50000};
  const int me = rank / s->team;
  if (rank % s->team != 0) return SQ_OK;
  const double end = s->now + s->seconds[job];
  s->clock->began[job] = s->now;
  atomic_store(&s->clock->end[me], end);
  atomic_fetch_add(&s->clock->begun, 1);
  while (!my_turn(s, me, end)) {
    if (sq_grid_poll(g, 0.5)) return SQ_STOPPED;
    nanosleep(&nap, NULL);
  }
  s->now = end;
  atomic_store(&s->clock->end[me], (double)NAN);
  return SQ_OK;
}

static void compare(shared_clock *clock, MPI_Comm node, int njob, const double *seconds, int team)
{
  sleeper s = {.clock = clock, .seconds = seconds, .njob = njob, .team = team};
  const sq_grid_ops ops = {.user = &s, .run = sleep_job, .team = team};
  if (rank == 0) {
    atomic_store(&clock->begun, 0);
    for (int t = 0; t < 64; ++t) atomic_store(&clock->end[t], (double)NAN);
  }
  MPI_Barrier(node);
  assert_int_equal(sq_grid_run(MPI_COMM_WORLD, njob, seconds, NULL, &ops), SQ_OK);
  MPI_Barrier(node);
  double began[MAX_JOBS], end = 0;
  sq_grid_forecast f = {.began_s = began};
  const double simulated = simulate(njob, seconds, nrank / team, &f);
  for (int i = 0; i < njob; ++i) {
    assert_true(clock->began[i] == began[i]);
    end = fmax(end, began[i] + seconds[i]);
  }
  assert_true(end == simulated);
  MPI_Barrier(node);
}

static void the_real_scheduler_begins_and_ends_every_job_at_the_same_time(void **state)
{
  (void)state;
  MPI_Comm node;
  MPI_Win window;
  shared_clock *clock;
  MPI_Aint size;
  int unit, local;
  double seconds[MAX_JOBS];
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local);
  MPI_Win_allocate_shared(local == 0 ? (MPI_Aint)sizeof *clock : 0, 1, MPI_INFO_NULL, node, &clock, &window);
  MPI_Win_shared_query(window, 0, &size, &unit, &clock);
  for (int i = 0; i < MAX_JOBS; ++i)
    seconds[i] = 1 + (i * i * 7) % 31 + i / 64.0; /* no two sums are equal soon */
  compare(clock, node, MAX_JOBS, seconds, 1);
  compare(clock, node, nrank, seconds, 1);
  compare(clock, node, 3, seconds, 1);
  if (nrank >= 4) compare(clock, node, 20, seconds, 2);
  MPI_Win_free(&window);
  MPI_Comm_free(&node);
}

int main(int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_jobs_take_as_many_rounds_as_needed),
      cmocka_unit_test(one_job_takes_its_time_on_any_number_of_ranks),
      cmocka_unit_test(more_ranks_than_jobs_take_the_longest_job),
      cmocka_unit_test(the_longest_goes_first_even_where_that_is_not_best),
      cmocka_unit_test(many_jobs_fill_many_ranks),
      cmocka_unit_test(a_stop_leaves_what_was_not_done),
      cmocka_unit_test(rank_0_answers_between_its_own_steps),
      cmocka_unit_test(the_real_scheduler_begins_and_ends_every_job_at_the_same_time),
  };
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  if (failed) MPI_Abort(MPI_COMM_WORLD, 1); /* a rank that failed alone must not leave the others waiting */
  MPI_Finalize();
  return failed;
}
