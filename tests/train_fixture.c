/* tests/train_fixture.c: see train_fixture.h. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train_fixture.h"

/* ---- allocations of the program's own libraries (linked with --wrap) --------------------------------- */
long fixture_allocations;
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_mmap(void *addr, size_t length, int prot, int flags, int fd, long offset);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd, long offset);
void *__wrap_malloc(size_t n)
{
  ++fixture_allocations;
  return __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
  ++fixture_allocations;
  return __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n)
{
  ++fixture_allocations;
  return __real_realloc(p, n);
}
void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd, long offset)
{
  ++fixture_allocations;
  return __real_mmap(addr, length, prot, flags, fd, offset);
}

/* ---- a spy task -------------------------------------------------------------------------------------- */

static const sq_task_info *spy_info(const sq_task *t)
{
  return &((const spy *)(const void *)t)->info;
}

static int spy_length(const sq_task *t, sq_split split, size_t i)
{
  const spy *s = (const spy *)(const void *)t;
  return s->inner->ops->length(s->inner, split, i);
}

static void spy_example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  spy *s = (spy *)(uintptr_t)t;
  assert_true(i < s->info.size[split] && i < MAX_EXAMPLES);
  ++s->asked[split][i];
  if (split == SQ_TRAIN && s->ntrain_log < 4 * MAX_EXAMPLES) s->train_log[s->ntrain_log++] = i;
  s->inner->ops->example(s->inner, split, i, token, label);
}

spy *spy_open(const sq_config *c)
{
  spy *s = sq_calloc(1, sizeof *s, "spy");
  assert_int_equal(sq_task_open(c, &s->inner), SQ_OK);
  s->info = *sq_task_describe(s->inner);
  s->ops = *s->inner->ops;
  s->ops.info = spy_info;
  s->ops.length = spy_length;
  s->ops.example = spy_example;
  s->base.ops = &s->ops;
  return s;
}

void spy_close(spy *s)
{
  sq_task_close(&s->inner);
  free(s);
}

/* ---- configurations ---------------------------------------------------------------------------------- */
static const sq_key analysis_key[] = {{"analysis.snapshots", SQ_KEY_INT, "0", 0, 100, NULL, "snapshots"}};
static const sq_keyset analysis_keys = {"", analysis_key, 1, NULL};

const sq_schema *fixture_schema(void)
{
  static const sq_keyset *set[256];
  static sq_schema s;
  if (s.nset == 0) {
    int n = sq_train_keysets(set, 256);
    n += sq_task_keysets(set + n, 256 - n);
    n += sq_model_keysets(set + n, 256 - n);
    set[n++] = &analysis_keys;
    s = (sq_schema){set, n};
  }
  return &s;
}

/* train, dataset: contents of the objects; seed and analysis.snapshots beside them. */
sq_experiment *experiment(int seed, int snapshots, const char *train, const char *dataset, const char *model)
{
  sq_experiment *e = NULL;
  char json[2048];
  sq_format(
      json, sizeof json,
      "{\"seed\": %d, \"analysis\": {\"snapshots\": %d},"
      " \"train\": {%s},"
      " \"dataset\": {\"_name_\": \"mqar\", %s},"
      " \"model\": {\"layer\": \"transformer\", \"attention_fn\": \"sm-attention\", \"dim_conv\": 4, "
      "\"input_dim\": 1,"
      " \"num_layers\": 1, \"num_heads\": 1, \"att_dropout\": 0.0, \"norm\": \"layer\", \"embedding\": true,"
      " \"max_pos_embed\": 0, \"mixer\": \"none\", \"mixer_dim\": 16, \"classifier\": false, \"pooling\": "
      "\"none\","
      " \"dual\": false, %s, \"vocab_size\": 16, \"output_dim\": 16}}",
      seed, snapshots, train, dataset, model);
  if (sq_experiment_parse(fixture_schema(), json, "test", &e) != SQ_OK) fail_msg("%s", sq_error_text());
  return e;
}

/* ---- a run with its trace ---------------------------------------------------------------------------- */

static sq_status on_stage(void *user, int stage, const sq_real *theta, void *work)
{
  trace *t = user;
  const size_t bytes = sq_model_params(t->model)->total * sizeof *theta;
  assert_non_null(work);
  assert_true(t->nstage < MAX_TRACE);
  t->calls_after_stop += t->stop_at_poll > 0 && t->npoll >= t->stop_at_poll;
  t->stage[t->nstage] = stage;
  t->stage_step[t->nstage] = t->result.steps;
  t->stage_hash[t->nstage] = sq_hash(SQ_HASH_START, theta, bytes);
  sq_real **copy = &t->stage_theta[t->nstage++ == 0 ? 0 : 1];
  if (*copy == NULL) *copy = sq_calloc(1, bytes, "copy");
  memcpy(*copy, theta, bytes);
  return SQ_OK;
}

sq_status on_evaluated(void *user, int k, const sq_eval_record *r)
{
  trace *t = user;
  if (t->checkpoint == NULL) assert_int_equal(k, t->neval); /* a continued run starts where the state was */
  t->first_eval = t->neval == 0 ? k : t->first_eval;
  assert_true(t->neval < MAX_TRACE);
  t->calls_after_stop += t->stop_at_poll > 0 && t->npoll >= t->stop_at_poll;
  t->eval[t->neval++] = *r;
  return t->hook_error;
}

static int on_poll(void *user, long step, long total)
{
  trace *t = user;
  assert_true(0 <= step && step <= total);
  assert_int_equal(step, t->result.steps);
  t->calls_after_stop += t->stop_at_poll > 0 && t->npoll >= t->stop_at_poll;
  ++t->npoll;
  if (t->npoll == 3) t->allocations_first = fixture_allocations;
  t->allocations_last = fixture_allocations;
  return t->npoll == t->stop_at_poll;
}

static sq_status on_restore(void *user, const sq_train_state *s, int *restored)
{
  trace *t = user;
  sq_train_state copy = *s;
  *restored = sq_checkpoint_read(t->checkpoint, "test", &copy, t->note, sizeof t->note);
  t->restored_step = *restored ? copy.step : -1;
  return SQ_OK;
}

static int on_due(void *user, long step)
{
  const trace *t = user;
  return t->save_every > 0 && step > 0 && step % t->save_every == 0;
}

static sq_status on_save(void *user, const sq_train_state *s)
{
  trace *t = user;
  ++t->nsave;
  return t->lost ? SQ_OK : sq_checkpoint_write(t->checkpoint, "test", s);
}

sq_status run_with(const sq_experiment *e, trace *t, spy **out)
{
  const sq_config *c = sq_experiment_cell(e, 0);
  sq_train_hooks hooks = {.user = t, .stage = on_stage, .evaluated = on_evaluated, .poll = on_poll};
  if (t->checkpoint != NULL) {
    hooks.restore = on_restore;
    hooks.due = on_due;
    hooks.save = on_save;
  }
  sq_model_dims d;
  sq_model *m = NULL;
  spy *s = spy_open(c);

  sq_train_model_dims(c, &s->info, &d);
  assert_int_equal(sq_model_create(c, d, &m), SQ_OK);
  t->model = m;
  const sq_status st = sq_train_cell(c, m, &s->base, NULL, &hooks, &t->result);
  t->model = NULL;
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    for (int i = 0; i < MAX_EXAMPLES; ++i) t->asked[k] += s->asked[k][i];
  }
  sq_model_destroy(&m);
  if (out != NULL)
    *out = s;
  else
    spy_close(s);
  return st;
}

trace run_one(int seed, int snapshots, const char *train, const char *model)
{
  trace t = {0};
  sq_experiment *e = experiment(seed, snapshots, train, DATA_SMALL, model);
  if (run_with(e, &t, NULL) != SQ_OK) fail_msg("%s", sq_error_text());
  sq_experiment_destroy(&e);
  return t;
}

void trace_clear(trace *t)
{
  free(t->stage_theta[0]);
  free(t->stage_theta[1]);
  *t = (trace){0};
}
