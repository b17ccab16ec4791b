/* include/sq/train.h: one run, from configuration to history.  No MPI, no HDF5: the same seed gives the same
 * numbers on a laptop, on any rank, in any order. */
#pragma once

#include "sq/config.h"
#include "sq/model.h"
#include "sq/task.h"

int sq_train_keysets(const sq_keyset **set, int cap); /* train.*, seed, run.* */

/* ---- optim.c ----------------------------------------------------------------------------------------- */
typedef enum {
  SQ_RULE_CORRECTED, /* decay except SQ_PARAM_NO_DECAY and SQ_PARAM_SSM; these have the rate ssm_lr */
  SQ_RULE_TORCH,     /* published PyTorch families: one group, everything decays */
  SQ_RULE_JAX, /* published JAX families: SQ_PARAM_SSM_PUBLISHED has ssm_lr and no decay, the rest decays */
} sq_decay_rule;
typedef enum { /* SQ_PARAM_COMPLEX tensors; g = dL/dre + i dL/dim is the direction of ascent */
               SQ_COMPLEX_CONJ,    /* one complex number: first moment of g, second of |g|^2 */
               SQ_COMPLEX_LITERAL, /* as published: the same with JAX's dL/dre - i dL/dim, so im ascends */
               SQ_COMPLEX_SPLIT,   /* two reals */
} sq_complex_rule;
typedef struct {
  double beta1, beta2, eps, weight_decay, clip; /* clip <= 0: no clipping */
  sq_decay_rule rule;
  sq_complex_rule complex_rule;
} sq_adamw;
/* AdamW with global-norm clipping as in torch, and in the same form as in optax (design 2-models.md section 7): t
   counts from 1.  Buffers are moved toward the gradient's entries and are in no norm.  Returns the gradient norm
   before clipping; if it is not finite nothing is changed.  m, v, g, theta: (params->total). */
double sq_adamw_step(const sq_adamw *o, const sq_param_list *params, double lr, double ssm_lr, long t,
                     const sq_real *g, sq_real *m, sq_real *v, sq_real *theta);

/* ---- schedule.c -------------------------------------------------------------------------------------- */
typedef enum {
  SQ_SCHEDULE_CONSTANT, /* published MQAR attention: `warmup` given where `warmup_steps` is read */
  SQ_SCHEDULE_TORCH, /* cosine from 0 over total, times linear warm-up dampening (published); constant without
                        warm-up */
  SQ_SCHEDULE_JAX,   /* published JAX rule: rate set after each step, step 0 at full rate */
  SQ_SCHEDULE_CORRECTED, /* linear warm-up from step 0, cosine over the rest */
} sq_schedule_kind;
typedef struct {
  sq_schedule_kind kind;
  double lr, lr_min;
  long warmup, total; /* in the schedule's own unit: steps or epochs */
  int cosine;         /* corrected: 0 = constant after the warm-up */
} sq_schedule;
double sq_schedule_rate(const sq_schedule *s, long n); /* rate in force at step/epoch n = 0, 1, ... */
/* Plateau rule: counts evaluations without improvement; returns the factor to apply to the base rates now (1
 * if none). */
typedef struct {
  double best, factor;
  int patience, bad, started;
} sq_plateau;
/* metric: higher is better. */
double sq_plateau_update(sq_plateau *p, double metric);

/* ---- gradient.c: the fixed partition ----------------------------------------------------------------- */
/* Padding of a cell's batches: none, except in recipe `published`. */
sq_padding sq_train_padding(const sq_config *c);

/* Who computes a batch: `threads` threads of each member of a team (team.c); the numbers do not depend on it. */
typedef struct {
  int threads;
  const struct sq_team *team; /* borrowed; NULL: this process alone */
} sq_crew;

typedef struct sq_worker sq_worker; /* a member's workspace: gradient trees and activation arenas */
/* nshard: shards of the largest batch; crew NULL: one thread, alone.  Bytes that create() will take, for `plan`. */
size_t sq_worker_bytes(const sq_model *m, int nshard, const sq_crew *crew);
sq_status sq_worker_create(const sq_model *m, int nshard, const sq_crew *crew, sq_worker **w);
void sq_worker_destroy(sq_worker **w);
/* As sq_task_batch(), but of its examples only those of this member's shards are made, by all its threads: what the two
   functions below read. */
void sq_worker_batch(sq_worker *w, const sq_task *t, sq_split split, int nseq, const size_t *index,
                     sq_padding pad, void *store, sq_batch *out);
/* Mean-loss gradient of a batch (overwrites grad, sq_model_ngradient elements) and its sums: shards in the fixed
   binary tree, see sq/batch.h.  The model's dims must hold the largest shard.  All members of a team call it with the
   same arguments; where the vector is long each then has the sum in its own part only, which is what
   sq_worker_step() needs. */
void sq_batch_gradient(sq_worker *w, const sq_real *theta, const sq_batch *b, const sq_pass *p, sq_real *grad,
                       sq_tally *tally);
void sq_batch_evaluate(sq_worker *w, const sq_real *theta, const sq_batch *b, sq_tally *tally);
/* sq_adamw_step() by the whole crew, after sq_batch_gradient(): theta is complete on every member afterwards, of m
   and v a member has its own part. */
double sq_worker_step(sq_worker *w, const sq_adamw *o, double lr, double ssm_lr, long t, const sq_real *g,
                      sq_real *m, sq_real *v, sq_real *theta);
/* A vector of which every member has its own part (m, v) becomes complete on all. */
void sq_worker_gather(sq_worker *w, sq_real *x);
void *sq_worker_work(sq_worker *w); /* sq_model_work_bytes(), for spectra between steps */

/* ---- team.c: processes that train one cell together --------------------------------------------------
 * Every member makes the same calls in the same order, and decides the same: what one alone knows (a signal, an
 * error of the file) is shared before it is acted on. */
typedef struct sq_team {
  int rank, size; /* size: a power of two */
  void *user;
  /* Sends nout bytes to member `partner` and receives nin from it; the partner calls it with the sizes swapped. */
  void (*exchange)(void *user, int partner, const void *out, size_t nout, void *in, size_t nin);
  /* The same in the background, one at a time; other exchanges may come in between.  finished: nonzero when it is,
     `wait` tells to return only then.  Called by the thread that calls exchange. */
  void (*start)(void *user, int partner, const void *out, size_t nout, void *in, size_t nin);
  int (*finished)(void *user, int wait);
  int overlap; /* gradients are added up while the backward pass goes on */
} sq_team;
/* t NULL: one member. */
int sq_team_any(const sq_team *t, int mask); /* the bits that any member has set */
void sq_team_share(const sq_team *t, int root, void *data, size_t bytes); /* root's, on all */
/* The same status everywhere: that of the first member that has an error, with its text. */
sq_status sq_team_agree(const sq_team *t, sq_status st);

/* ---- train.c ----------------------------------------------------------------------------------------- */
typedef struct {
  long step;
  double train_loss;               /* mean over the window since the last evaluation, nats per label */
  double valid_loss, valid_metric; /* recipe `published`: of the test set */
  double lr, grad_norm;            /* at the last step before the evaluation */
} sq_eval_record;

typedef enum { SQ_OUTCOME_DONE, SQ_OUTCOME_DIVERGED, SQ_OUTCOME_STOPPED } sq_outcome;

typedef struct {
  sq_outcome outcome;
  char reason[128]; /* "" or why it diverged: "loss is not finite at step 12" */
  long steps, best_step, nparam;
  double test_loss, test_metric, valid_metric, train_loss,
      flops; /* flops: total spent in training steps, model formula */
} sq_train_result;

/* All that determines the future of a run, between two steps: saving these bytes and putting them back continues
   it as if nothing had happened.  Pieces: the numbers of the loop, parameters, both moments, the best weights. */
#define SQ_STATE_PARTS 5
typedef struct {
  long step;
  struct {
    void *data;
    size_t bytes;
  } part[SQ_STATE_PARTS];
} sq_train_state;

/* Called by sq_train_cell on the first member of a team (poll: on all; one that says stop stops all); NULL members are
   not wanted.  An error returned by a hook ends the run with it.
   The result given to sq_train_cell is filled as the run goes: in a hook, `steps` is the number of steps
   done, and in the `trained` stage `best_step` is the step that the weights come from. */
typedef struct {
  void *user;
  /* 0 = init, 1..S = snapshots, S+1 = trained (weights of the best evaluation); work: activation arena of the
   * model. */
  sq_status (*stage)(void *user, int stage, const sq_real *theta,
                     void *work); /* SQ_STOPPED: not made, stop */
  sq_status (*evaluated)(void *user, int k, const sq_eval_record *r);
  /* Before each step and each evaluation batch; nonzero stops the run (SQ_OUTCOME_STOPPED). */
  int (*poll)(void *user, long step, long total);
  /* Checkpoints.  restore: once, before anything else; fills the state and sets *restored, or leaves both.  due:
     before each step, nonzero: save now.  save: then, and when the run stops and has come
     further than the state that was restored, or than its beginning. */
  sq_status (*restore)(void *user, const sq_train_state *s, int *restored);
  int (*due)(void *user, long step);
  sq_status (*save)(void *user, const sq_train_state *s);
} sq_train_hooks;

typedef struct { /* what a cell will need and do, from its configuration alone */
  long nparam, total_steps;
  int eval_batch;
  size_t nderived;                /* numbers that follow from the parameters, see sq/model.h */
  int max_evals, nstage;          /* nstage = 2 + snapshots */
  double flops_step, flops_total; /* training step = 3 x forward */
  int nshard;                     /* of a batch: more workers cannot share one */
  size_t bytes;                   /* parameters, optimiser, gradient tree, activations, batch; one rank */
  size_t team_bytes[SQ_SHARD_BITS + 1]; /* the same of a member of a team of 2^j */
  sq_train_state state;                 /* of a checkpoint: no data, bytes of the parts */
  sq_model_dims dims;
  sq_task_info task;
} sq_train_plan;
sq_status sq_train_plan_cell(const sq_config *c, sq_train_plan *p);
sq_status sq_train_plan_threads(const sq_config *c, int threads,
                                sq_train_plan *p); /* instead of run.threads */
/* Step after which snapshot k = 1..S is taken: round(k total / (S+1)). */
long sq_train_snapshot_step(long total, int S, int k);
/* The model dims for a cell: shards of its larger batch (training, evaluation), every sequence of full
 * length. */
void sq_train_model_dims(const sq_config *c, const sq_task_info *info, sq_model_dims *d);
int sq_train_nshard(const sq_config *c); /* of that batch */

/* Trains and evaluates.  m was created with sq_train_model_dims().  A run that diverges is a result, not an
   error: outcome DIVERGED, the reason with the step (counted from 1) whose update was not done, no test
   values, no `trained` stage. SQ_ERR_MEMORY before the first step, or an error of a hook. */
sq_status sq_train_cell(const sq_config *c, const sq_model *m, const sq_task *t, const sq_crew *crew,
                        const sq_train_hooks *h, sq_train_result *r); /* crew NULL: one thread, alone */

/* ---- checkpoint.c: a state in a file -------------------------------------------------------------------
 * Two are kept: PATH and, before it, PATH.old.  A file is written under a temporary name, synced and renamed, and so
 * is its directory's entry; at every moment one whole checkpoint has its name.  A checksum covers all bytes. */
/* `owner` tells whose state it is (configuration, precision): a file of another owner is not read.  SQ_ERR_IO: the
   checkpoint before stays. */
sq_status sq_checkpoint_write(const char *path, const char *owner, const sq_train_state *s);
/* Reads the newest whole checkpoint of this owner into the state's parts: 1 if there is one.  What is wrong with a
   damaged one goes to `note` ("" if nothing); the one before is then taken, and takes its name. */
int sq_checkpoint_read(const char *path, const char *owner, sq_train_state *s, char *note, size_t cap);
/* Removes PATH, PATH.old and leftovers of an interrupted write. */
void sq_checkpoint_remove(const char *path);
/* Whether there is one, whole or not, of whomever. */
int sq_checkpoint_exists(const char *path);
/* Steps done in the newest one, from its head alone; -1: there is none, or it is not of this version. */
long sq_checkpoint_step(const char *path);
/* Bytes of one file, for `plan`. */
size_t sq_checkpoint_bytes(const char *owner, const sq_train_state *s);
