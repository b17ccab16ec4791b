/* src/grid/grid.c: jobs on demand.
 *
 * Workers ask (ASK, with the outcome of the job before), rank 0 answers with a job or with END, which the
 * worker answers with BYE.  Messages between two ranks keep their order whatever the tag, as long as the
 * receiver takes any tag; so END is the last that a worker gets, BYE the last that it sends, and nothing is
 * under way when the communicator is freed.
 *
 * All that is between the first ranks of the teams.  A team's other ranks get each job, or the end, from their first;
 * one that sees a signal rings at rank 0.
 *
 * Nobody blocks inside MPI while waiting: an oversubscribed core belongs to the ranks that compute. */
#include <float.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "grid_impl.h"
#include "sq/base.h"

enum {
  TAG_ASK = 1,
  TAG_REPORT,
  TAG_WANT_STOP,
  TAG_BYE,
  TAG_JOB,
  TAG_END,
  TAG_STOP,
  TAG_EXCHANGE,
  TAG_BACKGROUND
};
enum { MESSAGE = 3, TEXT = 1024 };
/* Of an exchange, which goes in pieces of at least MIN_PIECE bytes.  Through shared memory Open MPI copies what it sends
   into buffers and out of them again: of 28 MB at once that was 1.2 GB/s each way between two cores, because nothing stays in
   the caches, in pieces of 64 KiB to 1 MiB 4.6 to 4.9 GB/s. */
enum { MIN_PIECE = 1 << 18, MAX_PIECE = 1 << 30, MAX_PIECES = 256 };
static const double report_s = 1.0;

typedef enum { JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_STOPPED } job_state;

struct sq_grid {
  MPI_Comm all, members, comm; /* everybody; this team, or none; the teams' first ranks, or none */
  int place, team, member;     /* rank in all; size of a team; place in this one */
  int crowded;                 /* more ranks than cores on this machine */
  int rung, heard;             /* this rank has told rank 0 to stop; how often rank 0 was told */
  int rank, nrank;             /* among the first ranks */
  const sq_grid_ops *ops;
  void *user;
  int stop;        /* this rank knows that it must stop */
  int stop_asked;  /* worker: rank 0 has been told */
  int job;         /* running here, or SQ_NO_JOB */
  double result;   /* of the job here */
  double reported; /* time of the last report or progress call */
  double report[MESSAGE];
  MPI_Request sending;                    /* report under way */
  MPI_Request background[2 * MAX_PIECES]; /* of the exchange that sq_grid_start() began */
  int nbackground;

  /* Rank 0. */
  int njob, nworking,
      asked; /* nworking: workers that have not said BYE; asked: workers that have asked once */
  sq_queue queue;
  int *running_on;  /* (nrank) job of a rank, or SQ_NO_JOB */
  char *begun;      /* (nrank) has asked before */
  job_state *state; /* (njob) */
  const double *cost;
  double *fraction, *value; /* (njob) progress and result */
  sq_status status;         /* first error */
  int failed_rank;
};

int sq_grid_rank(const sq_grid *g)
{
  return g->place;
}

int sq_grid_team(const sq_grid *g, int *member)
{
  *member = g->member;
  return g->team;
}

/* ---- rank 0: the list -----------------------------------------------------------------------------------
 */

static sq_status list_create(sq_grid *g, int njob, const double *cost, const int *skip)
{
  const size_t n = (size_t)njob + 1, nrank = (size_t)g->nrank;
  g->state = sq_calloc(n, sizeof *g->state, "list of jobs");
  g->fraction = sq_calloc(n, sizeof *g->fraction, "list of jobs");
  g->value = sq_calloc(n, sizeof *g->value, "list of jobs");
  g->running_on = sq_calloc(nrank, sizeof *g->running_on, "list of ranks");
  g->begun = sq_calloc(nrank, 1, "list of ranks");
  if (!g->state || !g->fraction || !g->value || !g->running_on || !g->begun) return SQ_ERR_MEMORY;
  g->njob = njob;
  g->cost = cost;
  for (int i = 0; i < njob; ++i) {
    g->value[i] = NAN;
    if (skip && skip[i]) g->state[i] = JOB_DONE;
  }
  for (int i = 0; i < g->nrank; ++i) g->running_on[i] = SQ_NO_JOB;
  return sq_queue_create(&g->queue, njob, cost, skip);
}

static void list_destroy(sq_grid *g)
{
  sq_queue_destroy(&g->queue);
  free(g->state);
  free(g->fraction);
  free(g->value);
  free(g->running_on);
  free(g->begun);
}

sq_grid_state sq_grid_get_state(const sq_grid *g)
{
  sq_grid_state s = {.total = g->njob};
  SQ_ASSERT(g->place == 0);
  for (int i = 0; i < g->njob; ++i) {
    s.waiting += g->state[i] == JOB_WAITING;
    s.running += g->state[i] == JOB_RUNNING;
    s.done += g->state[i] == JOB_DONE;
    s.stopped += g->state[i] == JOB_STOPPED;
  }
  for (int k = 0; k < g->queue.n; ++k) {
    const int i = g->queue.job[k];
    s.cost_total += g->cost[i];
    s.cost_done += g->cost[i] * (g->state[i] == JOB_DONE      ? 1
                                 : g->state[i] == JOB_RUNNING ? g->fraction[i]
                                                              : 0);
  }
  return s;
}

double sq_grid_fraction(const sq_grid *g, int job)
{
  SQ_ASSERT(g->place == 0 && job >= 0 && job < g->njob);
  if (g->state[job] == JOB_DONE) return 1;
  /* A job that has done its steps may still evaluate them: it has not ended, and has no result. */
  return g->state[job] == JOB_WAITING ? 0 : fmin(g->fraction[job], 1 - DBL_EPSILON);
}

double sq_grid_result(const sq_grid *g, int job)
{
  SQ_ASSERT(g->place == 0 && job >= 0 && job < g->njob);
  return g->value[job];
}

static void stop_everywhere(sq_grid *g)
{
  if (g->stop) return;
  g->stop = 1;
  for (int r = 1; r < g->nrank; ++r)
    if (g->running_on[r] != SQ_NO_JOB) {
      const double m[MESSAGE] = {0};
      MPI_Send(m, MESSAGE, MPI_DOUBLE, r, TAG_STOP, g->comm);
    }
}

static int job_take(sq_grid *g, int rank)
{
  const int job = g->stop ? SQ_NO_JOB : sq_queue_take(&g->queue);
  if (job == SQ_NO_JOB) return job;
  g->state[job] = JOB_RUNNING;
  g->running_on[rank] = job;
  return job;
}

static void job_end(sq_grid *g, int rank, sq_status st, double result)
{
  const int job = g->running_on[rank];
  g->value[job] = result;
  g->running_on[rank] = SQ_NO_JOB;
  g->state[job] = st == SQ_OK ? JOB_DONE : JOB_STOPPED;
  if (st == SQ_OK) return;
  if (st != SQ_STOPPED && g->status == SQ_OK) {
    g->status = st;
    g->failed_rank = rank;
  }
  stop_everywhere(g);
}

static void answer(sq_grid *g, int rank)
{
  const int job = job_take(g, rank);
  const double m[MESSAGE] = {job};
  MPI_Send(m, MESSAGE, MPI_DOUBLE, rank, job == SQ_NO_JOB ? TAG_END : TAG_JOB, g->comm);
}

static void show_progress(sq_grid *g)
{
  const double now = sq_wall_s();
  if (!g->ops->progress || now - g->reported < report_s) return;
  g->reported = now;
  g->ops->progress(g->user, g);
}

/* Whether a rank that is not the first of its team wants to stop. */
static int rings(sq_grid *g)
{
  int any = 0, flag = 0;
  MPI_Status s;
  if (g->team == 1) return 0;
  for (MPI_Iprobe(MPI_ANY_SOURCE, TAG_WANT_STOP, g->all, &flag, &s); flag;
       MPI_Iprobe(MPI_ANY_SOURCE, TAG_WANT_STOP, g->all, &flag, &s)) {
    MPI_Recv(NULL, 0, MPI_BYTE, s.MPI_SOURCE, TAG_WANT_STOP, g->all, MPI_STATUS_IGNORE);
    ++g->heard;
    any = 1;
  }
  return any;
}

/* Takes all messages that have come; nonzero if there was one. */
static int serve(sq_grid *g)
{
  int any = 0, flag = 0;
  MPI_Status s;
  if ((g->ops->watch && g->ops->watch(g->user)) || rings(g)) stop_everywhere(g);
  while (g->nworking > 0) {
    double m[MESSAGE];
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, g->comm, &flag, &s);
    if (!flag) break;
    any = 1;
    MPI_Recv(m, MESSAGE, MPI_DOUBLE, s.MPI_SOURCE, s.MPI_TAG, g->comm, &s);
    if (s.MPI_TAG == TAG_REPORT) {
      g->fraction[(int)m[0]] = m[1];
    } else if (s.MPI_TAG == TAG_WANT_STOP) {
      stop_everywhere(g);
    } else if (s.MPI_TAG == TAG_BYE) {
      --g->nworking;
    } else {
      if (!g->begun[s.MPI_SOURCE]) ++g->asked;
      g->begun[s.MPI_SOURCE] = 1;
      if (g->running_on[s.MPI_SOURCE] != SQ_NO_JOB) job_end(g, s.MPI_SOURCE, (sq_status)(int)m[1], m[2]);
      answer(g, s.MPI_SOURCE);
    }
  }
  show_progress(g);
  return any;
}

/* ---- waiting --------------------------------------------------------------------------------------------
 */

/* Doubling from 20 us to 1 ms: prompt when jobs are short, no load when they are long. */
static void nap(long *ns)
{
  const struct timespec t = {0, *ns};
  nanosleep(&t, NULL);
  *ns = *ns * 2 > 1000000 ? 1000000 : *ns * 2;
}
enum { FIRST_NAP = 20000 };

static void rank0_wait_until(sq_grid *g, int (*ready)(const sq_grid *))
{
  long ns = FIRST_NAP;
  while (!ready(g)) {
    if (serve(g))
      ns = FIRST_NAP;
    else
      nap(&ns);
  }
}

static int everybody_asked(const sq_grid *g)
{
  return g->asked == g->nrank - 1;
}
static int everybody_ended(const sq_grid *g)
{
  return g->nworking == 0;
}

/* Tells rank 0 of a signal seen here, once. */
static void ring_if_asked(sq_grid *g)
{
  if (g->rung || g->comm != MPI_COMM_NULL || !g->ops->watch || !g->ops->watch(g->user)) return;
  g->rung = 1;
  MPI_Send(NULL, 0, MPI_BYTE, 0, TAG_WANT_STOP, g->all);
}

static void wait_politely(sq_grid *g, MPI_Request *r)
{
  int done = 0;
  long ns = FIRST_NAP;
  for (MPI_Test(r, &done, MPI_STATUS_IGNORE); !done; MPI_Test(r, &done, MPI_STATUS_IGNORE)) {
    ring_if_asked(g);
    nap(&ns);
  }
}

/* How many requests have ended since the last look; MPI_UNDEFINED: there is none left. */
static int look(int n, MPI_Request *r)
{
  int count, index[2 * MAX_PIECES];
  MPI_Status unused[2 * MAX_PIECES]; /* MPICH's MPI_STATUSES_IGNORE is an address that gcc objects to */
  if (n == 0) return MPI_UNDEFINED;
  MPI_Testsome(n, r, &count, index, unused);
  return count;
}

/* Messages within a step come in microseconds, and the next step waits for them; the first member's spectra take
 * minutes.  So: look without a pause, then let others have the core, then sleep for a small part of the wait; where
 * ranks share cores the one that is waited for may be waiting for this core.  Every piece begins the wait anew: a long
 * message moves only while both look. */
static void wait_closely(const sq_grid *g, MPI_Request *r, int n)
{
  const int looks = g->crowded ? 20 : 2000;
  const double yields_s = g->crowded ? 0 : 1e-3;
  double start = 0;
  for (int i = 0, count; (count = look(n, r)) != MPI_UNDEFINED; i = count > 0 ? 0 : i + 1) {
    if (i < looks) continue;
    const double now = sq_wall_s();
    if (i == looks) start = now;
    if (now - start < yields_s) {
      sched_yield();
    } else {
      const struct timespec t = {0, (long)(1e9 * fmin(1e-3, fmax(2e-5, (now - start) / 16)))};
      nanosleep(&t, NULL);
    }
  }
}

/* Of a message of n bytes, the same on both sides. */
static size_t piece_of(size_t n)
{
  const size_t piece = (n + MAX_PIECES - 1) / MAX_PIECES;
  SQ_ASSERT(piece <= MAX_PIECE); /* MPI counts are ints */
  return piece > MIN_PIECE ? piece : MIN_PIECE;
}

/* The requests of an exchange; returns how many. */
static int post(const sq_grid *g, int partner, int tag, const void *out, size_t nout, void *in, size_t nin,
                MPI_Request *r)
{
  const size_t in_piece = piece_of(nin), out_piece = piece_of(nout);
  int n = 0;
  for (size_t at = 0; at < nin; at += in_piece)
    MPI_Irecv((char *)in + at, (int)(nin - at < in_piece ? nin - at : in_piece), MPI_BYTE, partner, tag,
              g->members, &r[n++]);
  for (size_t at = 0; at < nout; at += out_piece)
    MPI_Isend((const char *)out + at, (int)(nout - at < out_piece ? nout - at : out_piece), MPI_BYTE, partner,
              tag, g->members, &r[n++]);
  return n;
}

void sq_grid_exchange(void *grid, int partner, const void *out, size_t nout, void *in, size_t nin)
{
  const sq_grid *g = grid;
  MPI_Request r[2 * MAX_PIECES];
  wait_closely(g, r, post(g, partner, TAG_EXCHANGE, out, nout, in, nin, r));
}

void sq_grid_start(void *grid, int partner, const void *out, size_t nout, void *in, size_t nin)
{
  sq_grid *g = grid;
  SQ_ASSERT(g->nbackground == 0);
  g->nbackground = post(g, partner, TAG_BACKGROUND, out, nout, in, nin, g->background);
}

int sq_grid_finished(void *grid, int wait)
{
  sq_grid *g = grid;
  if (wait)
    wait_closely(g, g->background, g->nbackground);
  else
    for (int count = 1; count != MPI_UNDEFINED; count = look(g->nbackground, g->background))
      if (count == 0) return 0;
  g->nbackground = 0;
  return 1;
}

/* ---- a job, on any rank -----------------------------------------------------------------------------------
 */

void sq_grid_stop(sq_grid *g)
{
  if (g->comm == MPI_COMM_NULL) {
    g->stop = 1; /* this member's next poll says so */
    return;
  }
  if (g->rank == 0) {
    stop_everywhere(g);
    return;
  }
  if (!g->stop_asked && !g->stop) {
    const double m[MESSAGE] = {0};
    MPI_Send(m, MESSAGE, MPI_DOUBLE, 0, TAG_WANT_STOP, g->comm);
  }
  g->stop_asked = g->stop = 1;
}

static void worker_report(sq_grid *g, double fraction)
{
  const double now = sq_wall_s();
  int sent = 1;
  if (now - g->reported < report_s) return;
  MPI_Test(&g->sending, &sent, MPI_STATUS_IGNORE);
  if (!sent) return; /* rank 0 is busy: one message under way is enough */
  g->reported = now;
  g->report[0] = g->job;
  g->report[1] = fraction;
  MPI_Isend(g->report, MESSAGE, MPI_DOUBLE, 0, TAG_REPORT, g->comm, &g->sending);
}

int sq_grid_poll(sq_grid *g, double fraction)
{
  if (g->comm == MPI_COMM_NULL) return g->stop || (g->ops->watch && g->ops->watch(g->user));
  if (g->rank == 0) {
    if (g->job != SQ_NO_JOB) g->fraction[g->job] = fraction;
    serve(g);
    return g->stop;
  }
  if (g->ops->watch && g->ops->watch(g->user)) sq_grid_stop(g);
  int flag;
  MPI_Iprobe(0, TAG_STOP, g->comm, &flag, MPI_STATUS_IGNORE);
  if (flag) g->stop = 1; /* taken from the queue later, in order */
  worker_report(g, fraction);
  return g->stop;
}

void sq_grid_set_result(sq_grid *g, double value)
{
  g->result = value;
}

/* The team's others get the job, or SQ_NO_JOB for the end. */
static void members_tell(sq_grid *g, int job)
{
  for (int k = 1; k < g->team; ++k) MPI_Send(&job, 1, MPI_INT, k, TAG_JOB, g->members);
}

static sq_status job_run(sq_grid *g, int job)
{
  if (g->member == 0) members_tell(g, job);
  g->job = job;
  g->result = NAN;
  const sq_status st = g->ops->run(g->user, g, job);
  g->job = SQ_NO_JOB;
  return st;
}

static void rank0_loop(sq_grid *g)
{
  /* One job to each worker first: they would otherwise wait for the first step of rank 0's own. */
  rank0_wait_until(g, everybody_asked);
  for (int job; serve(g), (job = job_take(g, 0)) != SQ_NO_JOB;) {
    const sq_status st = job_run(g, job);
    job_end(g, 0, st, g->result);
  }
  members_tell(g, SQ_NO_JOB);
  rank0_wait_until(g, everybody_ended);
}

/* Next message of rank 0; its tag. */
static int worker_receive(sq_grid *g, double m[MESSAGE])
{
  MPI_Status s;
  int flag = 0;
  for (long ns = FIRST_NAP; MPI_Iprobe(0, MPI_ANY_TAG, g->comm, &flag, &s), !flag; nap(&ns))
    if (g->ops->watch && g->ops->watch(g->user)) sq_grid_stop(g);
  MPI_Recv(m, MESSAGE, MPI_DOUBLE, 0, s.MPI_TAG, g->comm, &s);
  return s.MPI_TAG;
}

static void worker_loop(sq_grid *g)
{
  double m[MESSAGE] = {SQ_NO_JOB, SQ_OK};
  for (int tag;;) {
    MPI_Send(m, MESSAGE, MPI_DOUBLE, 0, TAG_ASK, g->comm);
    while ((tag = worker_receive(g, m)) == TAG_STOP) g->stop = 1;
    if (tag == TAG_END) break;
    const int job = (int)m[0];
    const sq_status st = job_run(g, job);
    m[0] = job;
    m[1] = st;
    m[2] = g->result;
  }
  members_tell(g, SQ_NO_JOB);
  MPI_Send(m, MESSAGE, MPI_DOUBLE, 0, TAG_BYE, g->comm);
  MPI_Wait(&g->sending, MPI_STATUS_IGNORE);
}

/* A member that is not the first. */
static void member_loop(sq_grid *g)
{
  for (int job = SQ_NO_JOB;;) {
    MPI_Request r;
    MPI_Irecv(&job, 1, MPI_INT, 0, TAG_JOB, g->members, &r);
    wait_politely(g, &r);
    if (job == SQ_NO_JOB) return;
    g->stop = 0;
    if (job_run(g, job) != SQ_OK) sq_error_clear(); /* the first member reports it */
  }
}

static void share(sq_grid *g, void *data, int n, MPI_Datatype type, int root)
{
  MPI_Request r;
  MPI_Ibcast(data, n, type, root, g->all, &r);
  wait_politely(g, &r);
}

/* Rank 0 takes what was rung and not heard. */
static void hear_the_rest(sq_grid *g)
{
  int rung = g->rung;
  if (g->team == 1) return;
  MPI_Reduce(g->place == 0 ? MPI_IN_PLACE : &rung, &rung, 1, MPI_INT, MPI_SUM, 0, g->all);
  for (; g->place == 0 && g->heard < rung; ++g->heard)
    MPI_Recv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, TAG_WANT_STOP, g->all, MPI_STATUS_IGNORE);
}

/* Rank 0's verdict and the text of the rank that failed, for all. */
static sq_status share_status(sq_grid *g)
{
  int v[2] = {0, 0};
  if (g->place == 0) {
    const sq_grid_state s = sq_grid_get_state(g);
    v[0] = g->status != SQ_OK ? g->status : s.done < s.total ? SQ_STOPPED : SQ_OK;
    v[1] = g->failed_rank * g->team;
  }
  share(g, v, 2, MPI_INT, 0);
  hear_the_rest(g);
  const sq_status st = (sq_status)v[0];
  if (st == SQ_OK || st == SQ_STOPPED) return st;
  char text[TEXT] = "";
  if (g->place == v[1]) sq_format(text, sizeof text, "%.*s", TEXT - 1, sq_error_text());
  share(g, text, TEXT, MPI_CHAR, v[1]);
  sq_error_clear();
  return sq_fail(st, "%s", text);
}

/* Cores of the machine, not those that this rank is bound to. */
static int ranks_share_cores(MPI_Comm comm)
{
  MPI_Comm node;
  int n;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &n);
  MPI_Comm_free(&node);
  return n > sysconf(_SC_NPROCESSORS_ONLN);
}

static void teams_make(sq_grid *g, MPI_Comm comm)
{
  int n;
  MPI_Comm_dup(comm, &g->all);
  MPI_Comm_rank(g->all, &g->place);
  MPI_Comm_size(g->all, &n);
  SQ_ASSERT(1 <= g->team && g->team <= n);
  g->crowded = ranks_share_cores(g->all);
  const int inside = g->place < n / g->team * g->team;
  g->member = inside ? g->place % g->team : 0;
  MPI_Comm_split(g->all, inside ? g->place / g->team : MPI_UNDEFINED, g->place, &g->members);
  MPI_Comm_split(g->all, inside && g->member == 0 ? 0 : MPI_UNDEFINED, g->place, &g->comm);
  if (g->comm == MPI_COMM_NULL) return;
  MPI_Comm_rank(g->comm, &g->rank);
  MPI_Comm_size(g->comm, &g->nrank);
  g->nworking = g->nrank - 1;
}

static void teams_free(sq_grid *g)
{
  if (g->comm != MPI_COMM_NULL) MPI_Comm_free(&g->comm);
  if (g->members != MPI_COMM_NULL) MPI_Comm_free(&g->members);
  MPI_Comm_free(&g->all);
}

static void work(sq_grid *g)
{
  if (g->comm == MPI_COMM_NULL) {
    if (g->members != MPI_COMM_NULL) member_loop(g);
    return;
  }
  if (g->rank == 0)
    rank0_loop(g);
  else
    worker_loop(g);
}

sq_status sq_grid_run(MPI_Comm comm, int njob, const double *cost, const int *skip, const sq_grid_ops *ops)
{
  sq_grid g = {.ops = ops,
               .user = ops->user,
               .team = ops->team > 1 ? ops->team : 1,
               .job = SQ_NO_JOB,
               .reported = sq_wall_s(),
               .sending = MPI_REQUEST_NULL};
  int have;
  sq_status st;
  teams_make(&g, comm);
  have = g.place == 0 ? list_create(&g, njob, cost, skip) == SQ_OK : 1;
  MPI_Bcast(&have, 1, MPI_INT, 0, g.all);
  if (!have) {
    st = g.place == 0 ? SQ_ERR_MEMORY : sq_fail(SQ_ERR_MEMORY, "rank 0 has no memory for its list of jobs");
  } else {
    work(&g);
    st = share_status(&g);
  }
  list_destroy(&g);
  teams_free(&g);
  return st;
}
