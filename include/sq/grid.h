/* include/sq/grid.h: who does which job.  Knows jobs as numbers with a cost and a callback, so it is tested
 * with jobs that sleep, fail or diverge.
 *
 * Rank 0 keeps the list, hands jobs out longest first, and works too: it answers requests between its own
 * steps, from sq_grid_poll(), which the job calls often.
 *
 * Ranks may form teams of equal size, neighbours in the communicator, that do jobs together: every member runs a
 * job that its team gets; the first of them answers for the team.  Ranks that are left over wait for the end. */
#pragma once

#include <mpi.h>
#include <stddef.h>

#include "sq/status.h"

typedef struct sq_grid sq_grid;

typedef struct {
  void *user;
  /* Does job i on this rank, and on the others of its team.  A job that fails by itself records that and returns
     SQ_OK; SQ_STOPPED: left unfinished, because sq_grid_poll said so; any other error stops the whole grid (every
     rank finishes its running job's current step, then returns).  The first member's status counts. */
  sq_status (*run)(void *user, sq_grid *g, int job);
  /* Rank 0 only, may be NULL: called about once a second from sq_grid_poll with the state of the grid. */
  void (*progress)(void *user, const sq_grid *g);
  /* Any rank, may be NULL: called from sq_grid_poll and while this rank waits for work; nonzero asks all
     ranks to stop (signals, time limits). */
  int (*watch)(void *user);
  int team; /* ranks of a team, at most those of the communicator; 0 or 1: every rank alone */
} sq_grid_ops;

typedef struct {
  int total, running, done, waiting, stopped; /* done: skipped ones too; stopped: begun and left unfinished */
  double cost_total,
      cost_done; /* in the unit of cost, skipped jobs left out; running jobs count by their fraction */
} sq_grid_state;

/* Collective on comm.  Runs jobs 0..njob-1 with cost[i] > 0 (only rank 0's list is read); skip[i] != 0:
   already finished. Returns SQ_OK when all are done, SQ_STOPPED if a stop left some undone, or the first
   error: the same status, with the same text, on all ranks. */
sq_status sq_grid_run(MPI_Comm comm, int njob, const double *cost, const int *skip, const sq_grid_ops *ops);

/* From inside a job.  fraction: how far it is, 0..1.  Nonzero: stop now, leave the job unfinished.  Cheap:
 * call it before each step.  What it says to one member of a team the others need not hear: they have to agree. */
int sq_grid_poll(sq_grid *g, double fraction);
/* Asks all ranks to stop at their next poll (signal, time limit).  From any rank. */
void sq_grid_stop(sq_grid *g);
sq_grid_state sq_grid_get_state(const sq_grid *g); /* rank 0 */
int sq_grid_rank(const sq_grid *g);                /* in the communicator */
int sq_grid_team(const sq_grid *g, int *member);   /* size of the team; place in it */
/* Between two members of a team, both of which call it: sends nout bytes and receives nin.  grid: the sq_grid. */
void sq_grid_exchange(void *grid, int partner, const void *out, size_t nout, void *in, size_t nin);
/* The same in the background: both members start it, one at a time, and leave the arrays alone until it is finished;
   exchanges in between do not get in its way.  wait: return when it is; else look, and return 0 if it is not. */
void sq_grid_start(void *grid, int partner, const void *out, size_t nout, void *in, size_t nin);
int sq_grid_finished(void *grid, int wait);
/* From inside a job: one number that travels to rank 0 with the job's end (a metric, for instance); NaN
 * unless set. */
void sq_grid_set_result(sq_grid *g, double value);
/* Rank 0: how far a job is (0: waiting; below 1 until it has ended), and its result (NaN: none yet). */
double sq_grid_fraction(const sq_grid *g, int job);
double sq_grid_result(const sq_grid *g, int job);

/* ---- simulate.c: the same on a virtual clock, for any number of ranks ----------------------------------- */
typedef struct {
  int nteam;            /* teams, or ranks where every rank is alone */
  const double *step_s; /* (njob) seconds between two polls of a job; NULL: rank 0 always hears at once */
  double stop_s;        /* all are asked to stop then; INFINITY: never */
} sq_grid_model;
typedef struct {
  double end_s, busy_s; /* when the last job ended or stopped; sum over the teams of the time in jobs */
  double *began_s;      /* (njob), given, or NULL: when a job was begun; untouched if it was not */
} sq_grid_forecast;
/* Hands the jobs out as sq_grid_run() would.  left (njob): in, seconds that a job takes; out, seconds that are left of
   it: 0 if it has ended.  Not collective; no MPI.  SQ_ERR_MEMORY. */
sq_status sq_grid_simulate(int njob, const double *cost, const int *skip, const sq_grid_model *m,
                           double *left, sq_grid_forecast *f);

/* ---- share.c: one copy of some bytes for the ranks of a machine ---------------------------------------- */
typedef struct sq_shared sq_shared;
/* Collective on node, a communicator of ranks that share memory (MPI_Comm_split_type).  Rank `reader` gives the bytes,
   which are copied; the others' data and bytes are not read.  *s NULL on all ranks where the machine has no room for a
   shared window: not an error, everybody keeps a copy then. */
sq_status sq_shared_create(MPI_Comm node, int reader, const void *data, size_t bytes, sq_shared **s);
/* As create, with bytes of any content, which all ranks may then write: a fence comes between a rank's writing and
   another's reading. */
sq_status sq_shared_allocate(MPI_Comm node, int owner, size_t bytes, sq_shared **s);
void *sq_shared_memory(sq_shared *s);
void sq_shared_fence(const sq_shared *s);                      /* collective */
const void *sq_shared_data(const sq_shared *s, size_t *bytes); /* read only; 64-byte aligned */
void sq_shared_destroy(sq_shared **s);                         /* collective */
