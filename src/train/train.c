/* src/train/train.c: one run.
 *
 * An epoch visits the training set once, in an order that depends on (seed, epoch) only; its last batch may
 * be smaller.  A run counted in steps goes through epochs in the same way and ends within one.  Evaluations
 * come after every `eval_every` steps and after the last one; the weights of the best are kept and are what
 * is tested and analysed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train_impl.h"

/* What a checkpoint keeps besides the vectors. */
typedef struct {
  int evals, snapshot; /* done so far */
  int init_done;       /* the stage `init` was reported */
  int ended;           /* no more steps: the stop criterion was met, or all are done */
  double base_rate, ssm_base, rate, grad_norm, best_metric;
  sq_tally window; /* training sums since the last evaluation */
  sq_plateau plateau;
  sq_train_result result;
} progress;

typedef struct {
  const sq_model *model;
  const sq_task *task;
  const sq_team *team; /* NULL: alone */
  const sq_task_info *info;
  const sq_train_hooks *hooks;
  sq_train_result *result;
  sq_train_settings s;
  sq_train_memory mem;
  sq_worker *worker;
  long epoch; /* of `order`; -1: none yet */
  progress at;
  progress restored; /* at the start */
  int finished;      /* leave the loop: stopped, diverged or ended */
} run;

/* ---- data -------------------------------------------------------------------------------------------- */

/* Fisher-Yates from the identity, so that an epoch's order does not depend on the epochs before it. */
static void shuffle(run *r, long epoch)
{
  const uint32_t n = (uint32_t)r->s.ntrain;
  uint32_t *order = r->mem.order;
  sq_rng rng;
  sq_rng_init(&rng, r->s.seed, SQ_STREAM_ORDER, (uint64_t)epoch);
  for (uint32_t i = 0; i < n; ++i) order[i] = i;
  for (uint32_t i = n - 1; i > 0; --i) {
    const uint32_t j = sq_rng_below(&rng, i + 1), t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
  r->epoch = epoch;
}

static sq_batch training_batch(run *r, long step)
{
  const long epoch = step / r->s.steps_per_epoch;
  const size_t first = (size_t)(step % r->s.steps_per_epoch) * (size_t)r->s.batch, left = r->s.ntrain - first;
  const int n = left < (size_t)r->s.batch ? (int)left : r->s.batch;
  sq_batch b;
  if (epoch != r->epoch) shuffle(r, epoch);
  for (int i = 0; i < n; ++i) r->mem.index[i] = r->mem.order[first + (size_t)i];
  sq_worker_batch(r->worker, r->task, SQ_TRAIN, n, r->mem.index, r->s.pad, r->mem.batch, &b);
  b.loss_over_rows = r->s.loss_over_rows;
  return b;
}

static double training_flops(run *r, const sq_batch *b, long nlabel)
{
  for (int i = 0; i < b->rows.nseq; ++i) r->mem.length[i] = b->rows.off[i + 1] - b->rows.off[i];
  return 3 * sq_model_flops(r->model, b->rows.nseq, r->mem.length,
                            nlabel); /* backward is twice the forward pass */
}

/* ---- hooks ------------------------------------------------------------------------------------------- */

/* The hooks are the first member's; all take part in what comes of them. */
static int first(const run *r)
{
  return r->team == NULL || r->team->rank == 0;
}

enum { ASK_STOP = 1, ASK_SAVE = 2 };

/* Stop before the next step or batch, if any member wants it; save: whether a checkpoint is due too. */
static int asked(run *r, int save)
{
  const sq_train_hooks *h = r->hooks;
  int mask = 0;
  if (h->poll != NULL && h->poll(h->user, r->result->steps, r->s.total) != 0) mask |= ASK_STOP;
  if (save && mask == 0 && first(r) && h->due != NULL && h->due(h->user, r->result->steps)) mask |= ASK_SAVE;
  mask = sq_team_any(r->team, mask);
  if (mask & ASK_STOP) {
    r->result->outcome = SQ_OUTCOME_STOPPED;
    r->finished = 1;
  }
  return mask;
}

static int stopped(run *r)
{
  return asked(r, 0) & ASK_STOP;
}

/* A stage that was stopped half way is made again by the run that goes on. */
static sq_status stage(run *r, int k, const sq_real *theta)
{
  sq_status st = SQ_OK;
  if (r->hooks->stage == NULL && r->team == NULL) return SQ_OK;
  if (first(r) && r->hooks->stage != NULL)
    st = r->hooks->stage(r->hooks->user, k, theta, sq_worker_work(r->worker));
  st = sq_team_agree(r->team, st);
  if (st != SQ_STOPPED) return st;
  r->result->outcome = SQ_OUTCOME_STOPPED;
  r->finished = 1;
  return SQ_OK;
}

static sq_status snapshots(run *r)
{
  sq_status st = SQ_OK;
  while (r->at.snapshot < r->s.snapshots &&
         r->result->steps >= sq_train_snapshot_step(r->s.total, r->s.snapshots, r->at.snapshot + 1)) {
    SQ_TRY(stage(r, r->at.snapshot + 1, r->mem.theta));
    if (r->finished) break;
    ++r->at.snapshot;
  }
done:
  return st;
}

static void diverged(run *r, const char *what, long step)
{
  sq_format(r->result->reason, sizeof r->result->reason, "%s is not finite at step %ld", what, step);
  r->result->outcome = SQ_OUTCOME_DIVERGED;
  r->finished = 1;
}

/* ---- one step ---------------------------------------------------------------------------------------- */

static void train_step(run *r)
{
  const long step = r->result->steps;
  const sq_batch b = training_batch(r, step);
  const sq_pass pass = {
      .rows = &b.rows, .train = 1, .seed = r->s.seed, .step = (uint64_t)step, .seq_len = r->info->seq_len};
  const long at = r->s.by_epoch ? step / r->s.steps_per_epoch : step;
  sq_schedule schedule = r->s.schedule, ssm_schedule = schedule;
  sq_tally tally;

  sq_batch_gradient(r->worker, r->mem.theta, &b, &pass, r->mem.grad, &tally);
  if (!isfinite(tally.loss_sum)) {
    diverged(r, "loss", step + 1);
    return;
  }
  schedule.lr = r->at.base_rate; /* the plateau rule lowers it */
  ssm_schedule.lr = r->at.ssm_base;
  r->at.rate = sq_schedule_rate(&schedule, at);
  r->at.grad_norm = sq_worker_step(r->worker, &r->s.adam, r->at.rate, sq_schedule_rate(&ssm_schedule, at),
                                   step + 1, r->mem.grad, r->mem.m, r->mem.v, r->mem.theta);
  if (!isfinite(r->at.grad_norm)) {
    diverged(r, "gradient", step + 1);
    return;
  }
  r->at.window.loss_sum += tally.loss_sum;
  r->at.window.nlabel += tally.nlabel;
  r->at.window.ncorrect += tally.ncorrect;
  r->result->flops += training_flops(r, &b, tally.nlabel);
  r->result->steps = step + 1;
}

/* ---- evaluation -------------------------------------------------------------------------------------- */

/* Loss and metric of a whole split as sums over its labels; stops between batches if asked to. */
static void evaluate(run *r, sq_split split, const sq_real *theta, double *loss, double *metric)
{
  const size_t size = r->info->size[split];
  sq_tally sum = {0};
  for (size_t first = 0; first < size; first += (size_t)r->s.eval_batch) {
    const size_t left = size - first;
    const int n = left < (size_t)r->s.eval_batch ? (int)left : r->s.eval_batch;
    sq_batch b;
    sq_tally tally;
    if (stopped(r)) return;
    for (int i = 0; i < n; ++i) r->mem.index[i] = first + (size_t)i;
    sq_worker_batch(r->worker, r->task, split, n, r->mem.index, r->s.pad, r->mem.batch, &b);
    sq_batch_evaluate(r->worker, theta, &b, &tally);
    sum.loss_sum += tally.loss_sum;
    sum.nlabel += tally.nlabel;
    sum.ncorrect += tally.ncorrect;
  }
  *loss = sum.loss_sum / (double)sum.nlabel;
  *metric = r->s.lower_is_better ? exp(*loss) : (double)sum.ncorrect / (double)sum.nlabel;
}

static void keep_best(run *r, const sq_eval_record *e)
{
  const int better =
      r->s.lower_is_better ? e->valid_metric < r->at.best_metric : e->valid_metric > r->at.best_metric;
  if (r->at.evals > 1 && !better) return; /* the first on ties */
  r->at.best_metric = e->valid_metric;
  r->result->best_step = e->step;
  r->result->valid_metric = e->valid_metric;
  if (r->s.published) { /* it was the test set */
    r->result->test_loss = e->valid_loss;
    r->result->test_metric = e->valid_metric;
  }
  memcpy(r->mem.best, r->mem.theta, sq_model_params(r->model)->total * sizeof(sq_real));
}

static void apply_plateau(run *r, double metric)
{
  const double factor = sq_plateau_update(&r->at.plateau, r->s.lower_is_better ? -metric : metric);
  if (factor >= 1) return;
  r->at.base_rate = fmax(r->at.base_rate * factor, fmin(r->s.schedule.lr_min, r->at.base_rate));
  r->at.ssm_base = fmax(r->at.ssm_base * factor, fmin(r->s.schedule.lr_min, r->at.ssm_base));
}

static sq_status validate(run *r)
{
  sq_status st = SQ_OK;
  sq_eval_record e = {.step = r->result->steps, .lr = r->at.rate, .grad_norm = r->at.grad_norm};

  evaluate(r, r->s.published ? SQ_TEST : SQ_VALID, r->mem.theta, &e.valid_loss, &e.valid_metric);
  if (r->finished) return SQ_OK;
  e.train_loss = r->at.window.loss_sum / (double)r->at.window.nlabel;
  r->result->train_loss = e.train_loss;
  r->at.window = (sq_tally){0};
  ++r->at.evals;
  if (first(r) && r->hooks->evaluated != NULL) st = r->hooks->evaluated(r->hooks->user, r->at.evals - 1, &e);
  SQ_TRY(sq_team_agree(r->team, st));
  if (!isfinite(e.valid_loss)) {
    diverged(r, "evaluation loss", e.step);
    return SQ_OK;
  }
  keep_best(r, &e);
  if (r->s.has_plateau) apply_plateau(r, e.valid_metric);
  if (r->s.has_stop)
    r->at.ended = r->s.lower_is_better ? e.valid_metric <= r->s.stop : e.valid_metric >= r->s.stop;
done:
  return st;
}

/* An evaluation belongs to this step and was not made, or was stopped half way before a checkpoint. */
static int evaluation_due(const run *r)
{
  const long steps = r->result->steps, every = r->s.eval_every;
  return r->at.evals < steps / every + (steps == r->s.total && steps % every != 0);
}

/* ---- checkpoints ------------------------------------------------------------------------------------- */

sq_train_state sq_train_state_shape(const sq_model *m)
{
  const size_t bytes = sq_model_params(m)->total * sizeof(sq_real);
  return (sq_train_state){
      .part = {{NULL, sizeof(progress)}, {NULL, bytes}, {NULL, bytes}, {NULL, bytes}, {NULL, bytes}}};
}

static sq_train_state state_of(run *r)
{
  sq_train_state s = sq_train_state_shape(r->model);
  void *const data[SQ_STATE_PARTS] = {&r->at, r->mem.theta, r->mem.m, r->mem.v, r->mem.best};
  r->at.result = *r->result;
  s.step = r->result->steps;
  for (int i = 0; i < SQ_STATE_PARTS; ++i) s.part[i].data = data[i];
  return s;
}

/* Something is done that the checkpoint before does not have: a step, an evaluation, a stage.  A stage that was
 * stopped half way is nothing. */
static int advanced(const run *r)
{
  const progress *a = &r->at, *b = &r->restored;
  return r->result->steps != b->result.steps || a->evals != b->evals || a->snapshot != b->snapshot ||
         a->init_done != b->init_done;
}

static sq_status save(run *r)
{
  sq_status st = SQ_OK;
  if (r->hooks->save == NULL && r->team == NULL) return SQ_OK;
  sq_worker_gather(r->worker, r->mem.m);
  sq_worker_gather(r->worker, r->mem.v);
  if (first(r) && r->hooks->save != NULL) {
    const sq_train_state s = state_of(r);
    r->at.result.outcome = SQ_OUTCOME_DONE; /* of the run that will go on */
    st = r->hooks->save(r->hooks->user, &s);
  }
  return sq_team_agree(r->team, st);
}

/* The state of the first member on all. */
static void share_state(run *r, const sq_train_state *s)
{
  for (int i = 0; i < SQ_STATE_PARTS; ++i) sq_team_share(r->team, 0, s->part[i].data, s->part[i].bytes);
}

static sq_status restore(run *r)
{
  int restored = 0;
  sq_status st = SQ_OK;
  if (r->hooks->restore == NULL && r->team == NULL) return SQ_OK;
  const progress fresh = r->at;
  const sq_train_state s = state_of(r);
  if (first(r) && r->hooks->restore != NULL) st = r->hooks->restore(r->hooks->user, &s, &restored);
  st = sq_team_agree(r->team, st);
  restored = st == SQ_OK && sq_team_any(r->team, restored);
  if (restored) {
    share_state(r, &s);
    *r->result = r->at.result;
  } else {
    r->at = fresh;
  }
  r->restored = r->at;
  return st;
}

/* ---- the run ----------------------------------------------------------------------------------------- */

static sq_status train(run *r)
{
  sq_status st = SQ_OK;

  if (!r->at.init_done) SQ_TRY(stage(r, 0, r->mem.theta));
  if (r->finished) return SQ_OK;
  r->at.init_done = 1;
  SQ_TRY(snapshots(r)); /* more snapshots than steps: some fall on step 0 */
  while (!r->finished) {
    if (evaluation_due(r)) SQ_TRY(validate(r));
    if (r->finished || r->at.ended || r->result->steps >= r->s.total) break;
    const int mask = asked(r, 1);
    if (mask & ASK_STOP) break;
    if (mask & ASK_SAVE) SQ_TRY(save(r));
    train_step(r);
    if (!r->finished) SQ_TRY(snapshots(r));
  }
done:
  return st;
}

static sq_status test(run *r)
{
  sq_status st = SQ_OK;

  if (!r->s.published) {
    evaluate(r, SQ_TEST, r->mem.best, &r->result->test_loss, &r->result->test_metric);
    if (r->finished) goto done;
  }
  SQ_TRY(stage(r, r->s.snapshots + 1, r->mem.best));
done:
  return st;
}

static void begin(run *r)
{
  const size_t bytes = sq_model_params(r->model)->total * sizeof(sq_real);

  memset(r->mem.theta, 0, bytes);
  memset(r->mem.m, 0, bytes);
  memset(r->mem.v, 0, bytes);
  memset(r->mem.best, 0, bytes); /* a checkpoint holds it from the start */
  sq_model_init(r->model, r->s.seed, r->mem.theta);
  r->at.base_rate = r->s.schedule.lr;
  r->at.ssm_base = r->s.ssm_lr;
  r->at.plateau = r->s.plateau;
  *r->result = (sq_train_result){.outcome = SQ_OUTCOME_DONE,
                                 .nparam = sq_train_count_parameters(sq_model_params(r->model)),
                                 .test_loss = NAN,
                                 .test_metric = NAN,
                                 .valid_metric = NAN,
                                 .train_loss = NAN};
}

/* Memory of a run, on every member or on none. */
static sq_status memory_take(run *r, const sq_crew *crew, int nshard, sq_arena *arena)
{
  sq_arena count = {0};
  sq_status st;
  sq_train_memory_take(&count, &r->s, r->model, r->info, &r->mem);
  SQ_TRY(sq_arena_create(arena, count.used, "parameters, optimiser and batch of a cell"));
  sq_train_memory_take(arena, &r->s, r->model, r->info, &r->mem);
  SQ_TRY(sq_worker_create(r->model, nshard, crew, &r->worker));
done:
  return sq_team_agree(r->team, st);
}

sq_status sq_train_cell(const sq_config *c, const sq_model *m, const sq_task *t, const sq_crew *crew,
                        const sq_train_hooks *h, sq_train_result *result)
{
  static const sq_train_hooks none = {0};
  sq_status st = SQ_OK;
  sq_arena arena = {0};
  run r = {.model = m,
           .task = t,
           .team = crew != NULL && crew->team != NULL && crew->team->size > 1 ? crew->team : NULL,
           .info = sq_task_describe(t),
           .hooks = h != NULL ? h : &none,
           .result = result,
           .epoch = -1};

  SQ_TRY(sq_train_settings_read(c, r.info, &r.s)); /* the same on all members, errors included */
  SQ_TRY(memory_take(&r, crew, sq_train_nshard(c), &arena));
  begin(&r);
  SQ_TRY(restore(&r));
  SQ_TRY(train(&r));
  if (result->outcome == SQ_OUTCOME_DONE) SQ_TRY(test(&r));
  if (result->outcome == SQ_OUTCOME_STOPPED && advanced(&r)) SQ_TRY(save(&r));
  if (result->outcome == SQ_OUTCOME_DIVERGED) result->test_loss = result->test_metric = NAN;
done:
  sq_worker_destroy(&r.worker);
  sq_arena_destroy(&arena);
  return st;
}
