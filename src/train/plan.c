/* src/train/plan.c: what a run will do and need, from its configuration. */
#include <stdlib.h>
#include <string.h>

#include "train_impl.h"

/* Families of the published JAX code, all on one backbone; the others are its PyTorch code. */
static int jax_family(const sq_config *c)
{
  if (!sq_config_has(c, "model.layer")) return 0;
  const sq_mixer_ops *mixer = sq_mixer_find(sq_config_string(c, "model.layer"));
  return mixer != NULL && strcmp(mixer->backbone, "ssm") == 0;
}

sq_padding sq_train_padding(const sq_config *c)
{
  if (strcmp(sq_config_string(c, "train.recipe"), "published") != 0) return SQ_PAD_NONE;
  return jax_family(c) ? SQ_PAD_FULL : SQ_PAD_LONGEST;
}

static long optional_int(const sq_config *c, const char *path, long fallback)
{
  return sq_config_has(c, path) ? sq_config_int(c, path) : fallback;
}

#define MAX_EVALS 1000000 /* rows of /history, of every cell */

static sq_status read_lengths(const sq_config *c, sq_train_settings *s)
{
  const size_t batch = (size_t)s->batch;
  s->steps_per_epoch = (long)((s->ntrain + batch - 1) / batch); /* the last, smaller batch is used too */
  if (sq_config_has(c, "train.num_epochs")) {
    s->total = sq_config_int(c, "train.num_epochs") * s->steps_per_epoch;
    s->eval_every = s->steps_per_epoch;
  } else {
    s->total = sq_config_int(c, "train.total_steps");
    s->eval_every = s->total / 20 > 1 ? s->total / 20 : 1;
  }
  s->eval_every = optional_int(c, "train.eval_every", s->eval_every);
  const long nevals = (s->total + s->eval_every - 1) / s->eval_every;
  if (nevals > MAX_EVALS)
    return sq_fail(SQ_ERR_USAGE, "train.eval_every: %ld evaluations, at most %d", nevals, MAX_EVALS);
  s->max_evals = (int)nevals;
  s->snapshots = (int)optional_int(c, "analysis.snapshots", 0);
  return SQ_OK;
}

/* Corrected: every unit is the step.  Published: see quirks 32 and 36 in the README's list. */
static void read_schedule(const sq_config *c, sq_train_settings *s)
{
  const int epochs = sq_config_has(c, "train.num_epochs"), jax = jax_family(c);
  const long warmup = optional_int(c, "train.warmup", 0),
             warmup_steps = optional_int(c, "train.warmup_steps", -1);
  sq_schedule *q = &s->schedule;

  *q = (sq_schedule){.lr = sq_config_real(c, "train.lr"),
                     .lr_min = sq_config_real(c, "train.lr_min"),
                     .cosine = sq_config_bool(c, "train.cosine_anneal"),
                     .total = s->total};
  if (!s->published) {
    q->kind = SQ_SCHEDULE_CORRECTED;
    q->warmup = warmup_steps >= 0 ? warmup_steps : epochs ? warmup * s->steps_per_epoch : warmup;
  } else if (jax) {
    const long floor_steps = (long)(s->ntrain / (size_t)s->batch);
    q->kind = SQ_SCHEDULE_JAX;
    q->warmup = warmup_steps >= 0 ? warmup_steps : warmup * floor_steps;
  } else {
    q->kind = SQ_SCHEDULE_TORCH;
    q->lr_min = 5e-6; /* written into the published code */
    q->warmup = epochs ? warmup : warmup_steps;
    q->total = epochs ? sq_config_int(c, "train.num_epochs") : s->total;
    s->by_epoch = epochs;
    if (q->warmup <= 0) q->kind = SQ_SCHEDULE_CONSTANT;
  }
  s->has_plateau = sq_config_has(c, "train.reduce_factor") && (!s->published || jax);
  if (s->has_plateau) {
    s->plateau = (sq_plateau){.factor = sq_config_real(c, "train.reduce_factor"),
                              .patience = sq_config_int(c, "train.lr_patience")};
  }
}

sq_status sq_train_settings_read(const sq_config *c, const sq_task_info *info, sq_train_settings *s)
{
  *s = (sq_train_settings){0};
  s->published = strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
  const int jax = jax_family(c);
  s->pad = sq_train_padding(c);
  s->loss_over_rows = s->published && jax;
  s->seed = (uint64_t)sq_config_int(c, "seed");
  s->batch = sq_config_int(c, "train.batch_size");
  s->eval_batch = (int)optional_int(c, "train.eval_batch_size", s->batch);
  s->ntrain = info->size[SQ_TRAIN];
  const sq_split split = s->published ? SQ_TEST : SQ_VALID;
  if (s->ntrain == 0 || info->size[split] == 0 || info->size[SQ_TEST] == 0) {
    return sq_fail(
        SQ_ERR_USAGE,
        "dataset: %zu training, %zu validation and %zu test examples; expected at least one of each",
        info->size[SQ_TRAIN], info->size[SQ_VALID], info->size[SQ_TEST]);
  }
  if (s->ntrain > UINT32_MAX) {
    return sq_fail(SQ_ERR_USAGE, "dataset: %zu training examples; at most %u are supported", s->ntrain,
                   UINT32_MAX);
  }
  if ((size_t)s->batch > s->ntrain) s->batch = (int)s->ntrain;
  s->adam = (sq_adamw){.beta1 = sq_config_real_at(c, "train.betas", 0),
                       .beta2 = sq_config_real_at(c, "train.betas", 1),
                       .eps = sq_config_real(c, "train.eps"),
                       .weight_decay = sq_config_real(c, "train.wd"),
                       .clip = s->published && jax ? 0 : sq_config_real(c, "train.grad_clip"),
                       .rule = !s->published ? SQ_RULE_CORRECTED
                               : jax         ? SQ_RULE_JAX
                                             : SQ_RULE_TORCH,
                       .complex_rule = s->published ? SQ_COMPLEX_LITERAL : SQ_COMPLEX_CONJ};
  if (s->published && sq_config_has(c, "model.layer") &&
      strcmp(sq_config_string(c, "model.layer"), "s5") ==
          0) { /* its published optimiser is made without them */
    s->adam.beta1 = 0.9;
    s->adam.beta2 = 0.999;
  }
  s->ssm_lr =
      sq_config_has(c, "train.ssm_lr") ? sq_config_real(c, "train.ssm_lr") : sq_config_real(c, "train.lr");
  s->lower_is_better = strcmp(info->metric, "perplexity") == 0;
  s->has_stop = sq_config_has(c, "train.stop_criterion");
  if (s->has_stop) s->stop = sq_config_real(c, "train.stop_criterion");
  const sq_status st = read_lengths(c, s);
  if (st != SQ_OK) return st;
  read_schedule(c, s);
  return SQ_OK;
}

long sq_train_snapshot_step(long total, int S, int k)
{
  return (2 * k * total + S + 1) / (2 * ((long)S + 1));
}

static int larger_batch(const sq_config *c)
{
  const int batch = sq_config_int(c, "train.batch_size");
  const int eval = (int)optional_int(c, "train.eval_batch_size", batch);
  return batch > eval ? batch : eval;
}

int sq_train_nshard(const sq_config *c)
{
  return sq_shard_count(larger_batch(c));
}

/* For shards of at most n examples. */
static void dims_of_shard(int nseq, const sq_task_info *info, sq_model_dims *d)
{
  const int each = info->dual ? 2 : 1;
  *d = (sq_model_dims){.seq_len = info->seq_len,
                       .max_rows = each * nseq * info->seq_len,
                       .max_seqs = each * nseq,
                       .dual = info->dual,
                       .max_labels = info->label_per_row ? nseq * info->max_labels : nseq,
                       .label_per_row = info->label_per_row};
}

void sq_train_model_dims(const sq_config *c, const sq_task_info *info, sq_model_dims *d)
{
  const int larger = larger_batch(c), shards = sq_shard_count(larger);
  /* floor((s+1)B/S) - floor(sB/S) <= ceil(B/S); grows with B */
  dims_of_shard((larger + shards - 1) / shards, info, d);
}

static int max_batch(const sq_train_settings *s)
{
  return s->batch > s->eval_batch ? s->batch : s->eval_batch;
}

void sq_train_memory_take(sq_arena *a, const sq_train_settings *s, const sq_model *m,
                          const sq_task_info *info, sq_train_memory *mem)
{
  const int B = max_batch(s);
  const size_t total = sq_model_params(m)->total;
  mem->theta = SQ_TAKE(a, total, sq_real);
  mem->m = SQ_TAKE(a, total, sq_real);
  mem->v = SQ_TAKE(a, total, sq_real);
  mem->grad = SQ_TAKE(a, sq_model_ngradient(m), sq_real);
  mem->best = SQ_TAKE(a, total, sq_real);
  mem->order = SQ_TAKE(a, s->ntrain, uint32_t);
  mem->index = SQ_TAKE(a, (size_t)B, size_t);
  mem->length = SQ_TAKE(a, (size_t)B * (info->dual ? 2 : 1), int);
  mem->batch = sq_arena_take(a, sq_task_batch_bytes(info, B), 1);
}

static sq_status plan_flops(const sq_model *m, const sq_train_settings *s, sq_train_plan *p)
{
  const int nseq = s->batch * (p->task.dual ? 2 : 1);
  int *length = sq_calloc((size_t)nseq, sizeof *length, "plan");
  if (length == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < nseq; ++i) length[i] = p->task.seq_len;
  const long nlabel = (long)s->batch * (p->task.label_per_row ? p->task.max_labels : 1);
  p->flops_step = 3 * sq_model_flops(m, nseq, length, nlabel);
  p->flops_total = p->flops_step * (double)p->total_steps;
  free(length);
  return SQ_OK;
}

long sq_train_count_parameters(const sq_param_list *l)
{
  size_t n = 0;
  for (int i = 0; i < l->n; ++i)
    if (!(l->v[i].flags & SQ_PARAM_BUFFER)) n += l->v[i].count;
  return (long)n;
}

/* Cells of one file often share it: the same warning is given once. */
static void warn_long_warmup(const sq_config *c, const sq_train_settings *s)
{
  static char last[160];
  const int by_steps = sq_config_has(c, "train.warmup_steps") &&
                       (!s->published || s->schedule.kind != SQ_SCHEDULE_TORCH || !s->by_epoch),
            epochs = !by_steps && sq_config_has(c, "train.num_epochs");
  const char *path = by_steps ? "train.warmup_steps" : "train.warmup";
  char text[160];
  if (s->schedule.kind == SQ_SCHEDULE_CONSTANT || s->schedule.warmup <= s->schedule.total) return;
  const int run = epochs ? sq_config_int(c, "train.num_epochs") : (int)s->total;
  sq_format(text, sizeof text, "%s %d%s is longer than the run (%d %s): the rate never reaches train.lr",
            path, sq_config_int(c, path), s->schedule.warmup > sq_config_int(c, path) ? " epochs" : "", run,
            epochs ? "epochs" : "steps");
  if (strcmp(text, last) == 0) return;
  sq_warn("%s", text);
  sq_format(last, sizeof last, "%s", text);
}

static int examples_of_shard(int batch, int s)
{
  return s < sq_shard_count(batch) ? sq_shard_first(batch, s + 1) - sq_shard_first(batch, s) : 0;
}

/* Vectors of the gradient tree that a member of a team of 2^j has for this many shards, beside the sum (gradient.c). */
static int tree_vectors(int nshard, int j, int threads)
{
  const int levels = sq_tree_levels(nshard), level = levels > j ? levels - j : 0;
  int bits = 0;
  while (2 << bits <= threads && bits < level) ++bits;
  const int ngroup = sq_min(1 << bits, nshard);
  return ngroup - 1 + ngroup * (level - bits);
}

/* Where statistics couple the shards, each has room of its own, for the largest.  *bytes: what no batch fills of it. */
static sq_status unfilled_room(const sq_config *c, const sq_model *m, const sq_train_settings *s, int j,
                               const sq_task_info *info, size_t *bytes)
{
  const int nshard = sq_train_nshard(c), levels = sq_tree_levels(nshard);
  const int mine = sq_min(nshard, levels > j ? 1 << (levels - j) : 1);
  const size_t most = info->size[SQ_VALID] > info->size[SQ_TEST] ? info->size[SQ_VALID] : info->size[SQ_TEST];
  const int eval = most < (size_t)s->eval_batch ? (int)most : s->eval_batch;
  size_t filled = 0; /* by a shard of n examples */
  int n = 0;
  sq_status st = SQ_OK;
  *bytes = 0;
  if (sq_model_nsync(m) == 0) return SQ_OK;
  for (int k = 0; k < mine; ++k) {
    const int have = sq_max(examples_of_shard(s->batch, k), examples_of_shard(eval, k));
    if (n != have) {
      sq_model_dims d;
      sq_model *smaller = NULL;
      dims_of_shard(have, info, &d);
      if (have > 0) SQ_TRY(sq_model_create(c, d, &smaller));
      filled = have > 0 ? sq_model_shard_bytes(smaller) : 0;
      n = have;
      sq_model_destroy(&smaller);
    }
    *bytes += sq_model_shard_bytes(m) - filled;
  }
done:
  return st;
}

/* What the first member of a team of 2^j, which has the most shards, reserves and never touches: the machine does not
 * give it. */
static sq_status untouched_bytes(const sq_config *c, const sq_model *m, const sq_train_settings *s, int j,
                                 int threads, const sq_task_info *info, size_t *bytes)
{
  const int vectors =
      tree_vectors(sq_train_nshard(c), j, threads) - tree_vectors(sq_shard_count(s->batch), j, threads);
  const sq_status st = unfilled_room(c, m, s, j, info, bytes);
  *bytes += (size_t)vectors * sq_model_ngradient(m) * sizeof(sq_real);
  /* Room for a shard alone: the worker has derived quantities of its own. */
  if (sq_model_nderived(m) > 0) *bytes += sq_model_work_bytes(m) - sq_model_shard_bytes(m);
  return st;
}

static sq_status plan_bytes(const sq_config *c, const sq_model *m, const sq_train_settings *s, int threads,
                            size_t run_bytes, sq_train_plan *p)
{
  sq_status st = SQ_OK;
  p->nshard = sq_shard_count(sq_config_int(c, "train.batch_size"));
  for (int j = 0; j <= SQ_SHARD_BITS; ++j) {
    const sq_team team = {.size = 1 << j};
    const sq_crew crew = {.threads = threads, .team = &team};
    size_t untouched;
    SQ_TRY(untouched_bytes(c, m, s, j, threads, &p->task, &untouched));
    p->team_bytes[j] = run_bytes + sq_worker_bytes(m, sq_train_nshard(c), &crew) - untouched;
  }
  p->bytes = p->team_bytes[0];
done:
  return st;
}

sq_status sq_train_plan_threads(const sq_config *c, int threads, sq_train_plan *p)
{
  sq_status st = SQ_OK;
  sq_model *m = NULL;
  sq_train_settings s;
  sq_train_memory mem;
  sq_arena count = {0};

  *p = (sq_train_plan){0};
  SQ_TRY(sq_task_shape(c, &p->task));
  SQ_TRY(sq_train_settings_read(c, &p->task, &s));
  warn_long_warmup(c, &s);
  sq_train_model_dims(c, &p->task, &p->dims);
  SQ_TRY(sq_model_create(c, p->dims, &m));
  p->nparam = sq_train_count_parameters(sq_model_params(m));
  p->nderived = sq_model_nderived(m);
  p->eval_batch = s.eval_batch;
  p->total_steps = s.total;
  p->max_evals = s.max_evals;
  p->nstage = 2 + s.snapshots;
  p->state = sq_train_state_shape(m);
  SQ_TRY(plan_flops(m, &s, p));
  sq_train_memory_take(&count, &s, m, &p->task, &mem);
  SQ_TRY(plan_bytes(c, m, &s, threads, count.used, p));
done:
  sq_model_destroy(&m);
  return st;
}

sq_status sq_train_plan_cell(const sq_config *c, sq_train_plan *p)
{
  return sq_train_plan_threads(c, sq_config_int(c, "run.threads"), p);
}
