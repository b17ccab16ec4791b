/* tests/test_grid_teams.c: teams of ranks that do jobs together.  The same program on 1, 2, 5 and 8 ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/grid.h"

enum { NJOB = 12, STEPS = 6, LONG = 5000 };

typedef struct {
  int team, steps, error_job, stop_rank; /* -1: nobody */
  int runs[NJOB], members[NJOB], bad;    /* members: bit mask */
  int npoll;
} log_of_jobs;

static int rank, nrank;

static sq_status run_job(void *user, sq_grid *g, int job)
{
  log_of_jobs *l = user;
  int member;
  const int team = sq_grid_team(g, &member);
  l->bad |= team != l->team || sq_grid_rank(g) != rank || rank % team != member;
  ++l->runs[job];
  l->members[job] |= 1 << member;
  for (int i = 0; i < l->steps; ++i) {
    /* All members add up their votes, so that all stop or none. */
    int stop = sq_grid_poll(g, (double)i / l->steps) != 0, theirs;
    ++l->npoll;
    for (int d = 1; d < team; d *= 2) {
      sq_grid_exchange(g, member ^ d, &stop, sizeof stop, &theirs, sizeof theirs);
      stop |= theirs;
    }
    if (stop) return SQ_STOPPED;
    if (job == l->error_job && i == 2) {
      if (member == 0) return sq_fail(SQ_ERR_IO, "job %d: the disk is full", job);
      return SQ_ERR_IO;
    }
    const struct timespec t = {0, 500000};
    nanosleep(&t, NULL);
  }
  return SQ_OK;
}

static int watch(void *user)
{
  const log_of_jobs *l = user;
  return rank == l->stop_rank && (l->npoll >= 3 || rank >= nrank / l->team * l->team);
}

static sq_status run_jobs(log_of_jobs *l)
{
  static const double cost[NJOB] = {3, 1, 2, 5, 1, 1, 4, 2, 2, 1, 1, 1};
  const sq_grid_ops ops = {.user = l, .run = run_job, .watch = watch, .team = l->team};
  sq_error_clear();
  const sq_status st = sq_grid_run(MPI_COMM_WORLD, NJOB, cost, NULL, &ops);
  int all[2] = {st, -(int)st};
  MPI_Allreduce(MPI_IN_PLACE, all, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  assert_int_equal(all[0], -all[1]); /* the same status everywhere */
  MPI_Allreduce(MPI_IN_PLACE, l->runs, NJOB, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, l->members, NJOB, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &l->bad, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  assert_int_equal(l->bad, 0);
  return st;
}

static log_of_jobs fresh(int team)
{
  return (log_of_jobs){.team = team, .steps = STEPS, .error_job = -1, .stop_rank = -1};
}

static void every_member_of_one_team_runs_a_job(void **state)
{
  (void)state;
  for (int team = 1; team <= nrank; team *= 2) {
    log_of_jobs l = fresh(team);
    assert_int_equal(run_jobs(&l), SQ_OK);
    for (int i = 0; i < NJOB; ++i) {
      assert_int_equal(l.runs[i], team);
      assert_int_equal(l.members[i], (1 << team) - 1); /* each once: a mask is a sum of distinct bits */
    }
  }
}

static void an_error_of_a_team_stops_all(void **state)
{
  (void)state;
  for (int team = 1; team <= nrank; team *= 2) {
    log_of_jobs l = fresh(team);
    l.error_job = 4;
    assert_int_equal(run_jobs(&l), SQ_ERR_IO);
    assert_string_equal(sq_error_text(), "job 4: the disk is full");
  }
}

/* A signal reaches any rank: the first of a team, another of it, one that is left over or has no job. */
static void a_rank_that_wants_to_stop_stops_all(void **state)
{
  (void)state;
  for (int team = 1; team <= nrank; team *= 2) {
    for (int who = 0; who<nrank; who += nrank> 4 ? 3 : 1) {
      log_of_jobs l = fresh(team);
      l.steps = LONG; /* 2.5 s each */
      l.stop_rank = who;
      assert_int_equal(run_jobs(&l), SQ_STOPPED);
      for (int i = 0; i < NJOB; ++i) assert_true(l.runs[i] == 0 || l.runs[i] == team);
    }
  }
}

/* Sizes differ, and one way may be empty. */
static sq_status exchange_job(void *user, sq_grid *g, int job)
{
  enum { N = 100000 };
  int *bad = user, member;
  const int team = sq_grid_team(g, &member), partner = member ^ 1;
  int *out = calloc(N, sizeof *out), *in = calloc(N, sizeof *in), *later = calloc(N, sizeof *later);
  if (team < 2) goto done;
  for (int i = 0; i < N; ++i) out[i] = i + member + job;
  const size_t mine = member & 1 ? N : N / 3, theirs = member & 1 ? N / 3 : N;
  sq_grid_start(g, partner, out, theirs * sizeof *out, later,
                mine * sizeof *later); /* others come in between */
  sq_grid_exchange(g, partner, out, mine * sizeof *out, in, theirs * sizeof *in);
  for (size_t i = 0; i < N; ++i) *bad |= in[i] != (i < theirs ? (int)i + partner + job : 0);
  sq_grid_exchange(g, partner, out, member & 1 ? 4 : 0, in + 1, member & 1 ? 0 : 4);
  *bad |= in[1] != (member & 1 ? 1 + partner + job : partner + job);
  *bad |= !sq_grid_finished(g, 0) && !sq_grid_finished(g, 1);
  for (size_t i = 0; i < N; ++i) *bad |= later[i] != (i < mine ? (int)i + partner + job : 0);
done:
  free(later);
  free(out);
  free(in);
  return SQ_OK;
}

static void partners_exchange_what_they_say(void **state)
{
  (void)state;
  int bad = 0;
  const double cost[2] = {1, 1};
  const sq_grid_ops ops = {.user = &bad, .run = exchange_job, .team = nrank > 1 ? 2 : 1};
  assert_int_equal(sq_grid_run(MPI_COMM_WORLD, 2, cost, NULL, &ops), SQ_OK);
  assert_int_equal(bad, 0);
}

int main(int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_member_of_one_team_runs_a_job),
      cmocka_unit_test(an_error_of_a_team_stops_all),
      cmocka_unit_test(a_rank_that_wants_to_stop_stops_all),
      cmocka_unit_test(partners_exchange_what_they_say),
  };
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  if (failed) MPI_Abort(MPI_COMM_WORLD, 1);
  MPI_Finalize();
  return failed;
}
