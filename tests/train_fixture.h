/* tests/train_fixture.h: tiny runs with a trace.
 *
 * A spy stands between the loop and the task and counts which examples are asked for; hooks keep what the
 * loop reports. */
#pragma once

#include "../src/task/task_impl.h"
#include "../src/train/train_impl.h"

#define MAX_EXAMPLES 2048
typedef struct {
  struct sq_task base;
  sq_task_ops ops;
  sq_task *inner; /* owned */
  sq_task_info info;
  long asked[SQ_NSPLIT][MAX_EXAMPLES];
  size_t train_log[4 * MAX_EXAMPLES]; /* training examples in the order of the first requests */
  size_t ntrain_log;
} spy;
spy *spy_open(const sq_config *c);
void spy_close(spy *s);

#define STEPS_240                                                                                            \
  "\"total_steps\": 240, \"batch_size\": 16, \"lr\": 1e-2, \"wd\": 0.01, \"warmup\": 24, \"eval_every\": 40"
#define DATA_SMALL                                                                                           \
  "\"vocab_size\": 16, \"input_seq_length\": 12, \"num_kv_pairs\": 2, \"num_train\": 1000, \"num_valid\": "  \
  "101, "                                                                                                    \
  "\"num_test\": 99"
#define MODEL_SMALL "\"hidden_dim\": 16, \"state_dim\": 16, \"dropout\": 0.1"

extern long fixture_allocations; /* of the program's own code: linked with --wrap=malloc,... */
const sq_schema *fixture_schema(void);
/* train, dataset, model: contents of the objects. */
sq_experiment *experiment(int seed, int snapshots, const char *train, const char *dataset, const char *model);

#define MAX_TRACE 512
typedef struct {
  sq_train_result result;
  sq_eval_record eval[MAX_TRACE];
  int neval, stage[MAX_TRACE], nstage, npoll, stop_at_poll, calls_after_stop;
  long stage_step[MAX_TRACE], stage_allocations;
  uint64_t stage_hash[MAX_TRACE];
  sq_real *stage_theta[2]; /* copies for the first and the last stage */
  const sq_model *model;
  long allocations_first, allocations_last; /* at the third and at the last poll */
  sq_status hook_error;
  long asked[SQ_NSPLIT];                   /* examples */
  const char *checkpoint;                  /* path; NULL: none */
  int save_every, lost, nsave, first_eval; /* lost: saving does nothing, as if the process had been killed */
  long restored_step;
  char note[512];
} trace;
sq_status on_evaluated(void *user, int k, const sq_eval_record *r); /* user: trace */
/* Runs cell 0; *out, if wanted, is the spy as the run left it (owned). */
sq_status run_with(const sq_experiment *e, trace *t, spy **out);
trace run_one(int seed, int snapshots, const char *train, const char *model);
void trace_clear(trace *t);
