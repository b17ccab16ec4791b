/* tests/test_train_limits.c: runs that end early, what a run takes, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/linalg.h"
#include "sq/simd.h"
#include "train_fixture.h"

static void memory_grows_by_no_more_than_planned(void **state)
{
  (void)state;
#ifdef SQ_SANITIZED
  skip();
#endif
  sq_experiment *warm =
      experiment(1, 0, "\"total_steps\": 1, \"batch_size\": 16, \"lr\": 1e-3", DATA_SMALL, MODEL_SMALL);
  sq_experiment *e = experiment(1, 0, "\"total_steps\": 2, \"batch_size\": 64, \"lr\": 1e-3",
                                "\"vocab_size\": 16, \"input_seq_length\": 512, \"num_kv_pairs\": 4, "
                                "\"num_train\": 128, \"num_valid\": 64, "
                                "\"num_test\": 64",
                                "\"hidden_dim\": 256, \"state_dim\": 256, \"dropout\": 0.1");
  trace t = {0};
  sq_train_plan p;
  sq_blas_set_threads(1);                            /* each thread has a buffer of its own */
  assert_int_equal(run_with(warm, &t, NULL), SQ_OK); /* buffers of the BLAS */
  trace_clear(&t);
  assert_int_equal(sq_train_plan_cell(sq_experiment_cell(e, 0), &p), SQ_OK);
  const size_t before = sq_peak_bytes();
  sq_model *m = NULL;
  sq_task *task = NULL;
  sq_train_result r;
  assert_int_equal(sq_task_open(sq_experiment_cell(e, 0), &task), SQ_OK);
  assert_int_equal(sq_model_create(sq_experiment_cell(e, 0), p.dims, &m), SQ_OK);
  assert_int_equal(sq_train_cell(sq_experiment_cell(e, 0), m, task, NULL, NULL, &r), SQ_OK);
  const double grown = (double)(sq_peak_bytes() - before), planned = (double)p.bytes;
  print_message("grew by %.2f MB, planned %.2f MB\n", grown / 1e6, planned / 1e6);
  assert_true(planned > 4e6);
  assert_true(grown <= 1.1 * planned + 1e6);
  sq_model_destroy(&m);
  sq_task_close(&task);
  sq_experiment_destroy(&e);
  sq_experiment_destroy(&warm);
}

static void a_step_allocates_nothing(void **state)
{
  (void)state;
  trace t = run_one(1, 2, STEPS_240, MODEL_SMALL);
  assert_true(t.npoll > 200);
  /* Hooks copy the weights of two stages: one allocation after the third poll. */
  assert_true(fixture_allocations > 0);
  assert_int_equal(t.allocations_last - t.allocations_first, 1);
  trace_clear(&t);
}

static void impossible_training_keys_are_refused(void **state)
{
  (void)state;
  static const struct {
    const char *train, *text;
  } bad[] = {
      {"\"batch_size\": 8, \"lr\": 1e-3", "train.total_steps"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"num_epochs\": 1, \"total_steps\": 5", "train.total_steps"},
      {"\"batch_size\": 8, \"lr\": 0, \"total_steps\": 5", "train.lr"},
      {"\"batch_size\": 0, \"lr\": 1e-3, \"total_steps\": 5", "train.batch_size"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"betas\": [0.9]", "train.betas"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"reduce_factor\": 0.5", "train.reduce_factor"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"lr_patience\": 5", "train.lr_patience"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"recipe\": \"fast\"", "train.recipe"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"param_group\": \"A_log\"",
       "train.param_group"},
      {"\"batch_size\": 8, \"lr\": 1e-3, \"total_steps\": 5, \"warmup\": -1", "train.warmup"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
    sq_experiment *e = NULL;
    char json[1024];
    sq_format(json, sizeof json,
              "{\"train\": {%s}, \"dataset\": {\"_name_\": \"mqar\", " DATA_SMALL "},"
              " \"model\": {\"layer\": \"transformer\", \"attention_fn\": \"sm-attention\", \"hidden_dim\": "
              "16, \"state_dim\": 16,"
              " \"num_layers\": 1, \"num_heads\": 1, \"embedding\": true, \"vocab_size\": 16, "
              "\"output_dim\": 16, \"input_dim\": 1,"
              " \"classifier\": false, \"pooling\": \"none\", \"mixer\": \"none\", \"mixer_dim\": 16, "
              "\"max_pos_embed\": 0}}",
              bad[i].train);
    sq_error_clear();
    assert_int_equal(sq_experiment_parse(fixture_schema(), json, "test", &e), SQ_ERR_USAGE);
    if (strstr(sq_error_text(), bad[i].text) == NULL)
      fail_msg("%s: says \"%s\"", bad[i].text, sq_error_text());
    assert_null(strchr(sq_error_text(), '\n'));
    sq_experiment_destroy(&e);
  }
  sq_error_clear();
}

static void a_diverging_run_is_a_result_with_its_reason(void **state)
{
  (void)state;
  /* Far beyond the range in which products of two weights are numbers. */
  const char *lr = sizeof(sq_real) == 8 ? "1e300" : "1e30";
  char train[256];
  sq_format(train, sizeof train,
            "\"total_steps\": 50, \"batch_size\": 16, \"lr\": %s, \"wd\": 0, \"eval_every\": 50", lr);
  trace t = run_one(1, 0, train, MODEL_SMALL);
  char expected[2][128];
  print_message("reason: %s\n", t.result.reason);
  assert_int_equal(t.result.outcome, SQ_OUTCOME_DIVERGED);
  assert_true(t.result.steps >= 1 && t.result.steps < 50);
  sq_format(expected[0], 128, "loss is not finite at step %ld", t.result.steps + 1);
  sq_format(expected[1], 128, "gradient is not finite at step %ld", t.result.steps + 1);
  assert_true(strcmp(t.result.reason, expected[0]) == 0 || strcmp(t.result.reason, expected[1]) == 0);
  assert_true(isnan(t.result.test_metric) && isnan(t.result.test_loss));
  assert_int_equal(t.nstage, 1); /* init only */
  assert_int_equal(t.asked[SQ_TEST], 0);
  trace_clear(&t);
}

static void a_run_that_is_told_to_stop_does_nothing_more(void **state)
{
  (void)state;
  /* 240 steps, 6 evaluations of 7 batches, a test of 7 batches: stop in a step, in an evaluation, in the
   * test. */
  const int at[] = {1, 2, 30, 41, 44, 95, 240 + 42 + 3};
  sq_experiment *e = experiment(1, 2, STEPS_240, DATA_SMALL, MODEL_SMALL);
  for (size_t i = 0; i < sizeof at / sizeof *at; ++i) {
    trace t = {.stop_at_poll = at[i]};
    assert_int_equal(run_with(e, &t, NULL), SQ_OK);
    assert_int_equal(t.result.outcome, SQ_OUTCOME_STOPPED);
    assert_int_equal(t.npoll, at[i]);
    assert_int_equal(t.calls_after_stop, 0);
    trace_clear(&t);
  }
  trace whole = {0};
  assert_int_equal(run_with(e, &whole, NULL), SQ_OK);
  assert_int_equal(whole.npoll, 240 + 42 + 7);
  trace_clear(&whole);
  sq_experiment_destroy(&e);
}

static void an_error_of_a_hook_ends_the_run_with_it(void **state)
{
  (void)state;
  sq_experiment *e = experiment(1, 0, STEPS_240, DATA_SMALL, MODEL_SMALL);
  trace t = {.hook_error = SQ_ERR_IO};
  assert_int_equal(run_with(e, &t, NULL), SQ_ERR_IO);
  assert_int_equal(t.neval, 1);
  assert_int_equal(t.result.steps, 40);
  trace_clear(&t);
  sq_experiment_destroy(&e);
}

static void the_gradient_of_a_batch_is_that_of_its_sequences(void **state)
{
  (void)state;
  enum { B = 27 };
  sq_experiment *e =
      experiment(1, 0, "\"total_steps\": 1, \"batch_size\": 27, \"lr\": 1e-3", DATA_SMALL, MODEL_SMALL);
  const sq_config *c = sq_experiment_cell(e, 0);
  sq_task *t = NULL;
  sq_model *m = NULL;
  sq_model_dims d;
  sq_worker *w = NULL;
  sq_batch b, one;
  size_t index[B];
  assert_int_equal(sq_task_open(c, &t), SQ_OK);
  const sq_task_info *info = sq_task_describe(t);
  sq_train_model_dims(c, info, &d);
  assert_int_equal(d.max_seqs, 2);
  assert_int_equal(sq_model_create(c, d, &m), SQ_OK);
  assert_int_equal(sq_worker_create(m, SQ_MAX_SHARDS, NULL, &w), SQ_OK);
  const size_t n = sq_model_params(m)->total;
  sq_real *theta = sq_calloc(n, sizeof *theta, "theta"),
          *grad = sq_calloc(sq_model_ngradient(m), sizeof *grad, "grad"),
          *again = sq_calloc(sq_model_ngradient(m), sizeof *again, "again"),
          *sum = sq_calloc(n, sizeof *sum, "sum");
  void *store = sq_calloc(1, sq_task_batch_bytes(info, B), "batch"),
       *single = sq_calloc(1, sq_task_batch_bytes(info, 1), "one");
  sq_model_init(m, 5, theta);
  for (size_t i = 0; i < B; ++i) index[i] = i;
  sq_task_batch(t, SQ_TRAIN, B, index, SQ_PAD_NONE, store, &b);

  const sq_pass pass = {.rows = &b.rows, .train = 1, .seed = 5, .step = 3, .seq_len = info->seq_len};
  sq_tally tally, total = {0};
  sq_batch_gradient(w, theta, &b, &pass, grad, &tally);
  sq_batch_gradient(w, theta, &b, &pass, again, &total);
  assert_memory_equal(grad, again, n * sizeof *grad);

  total = (sq_tally){0};
  for (int i = 0; i < B; ++i) { /* the same sequence keeps its place in the batch, hence its dropout mask */
    const int id = i;
    sq_task_batch(t, SQ_TRAIN, 1, &index[i], SQ_PAD_NONE, single, &one);
    one.rows.id = &id;
    const sq_pass p = {.rows = &one.rows, .train = 1, .seed = 5, .step = 3, .seq_len = info->seq_len};
    sq_model_gradient(m, theta, &one, &p, 1 / (double)tally.nlabel, sq_worker_work(w), sum, &total);
  }
  assert_int_equal(tally.nlabel, 2 * B);
  assert_int_equal(total.nlabel, tally.nlabel);
  assert_int_equal(total.ncorrect, tally.ncorrect);
  double largest = 0, worst = 0;
  for (size_t i = 0; i < n; ++i) {
    largest = fmax(largest, fabs((double)grad[i]));
    worst = fmax(worst, fabs((double)grad[i] - (double)sum[i]));
  }
  /* Other order of sums of about 13 x 12 terms, through a few layers. */
  print_message("largest difference %.2g of the largest gradient (allowed %.2g)\n", worst / largest,
                200 * (double)SQ_REAL_EPS);
  assert_true(largest > 0 && worst <= 200 * (double)SQ_REAL_EPS * largest);
  assert_true(fabs(total.loss_sum - tally.loss_sum) <= 100 * (double)SQ_REAL_EPS * tally.loss_sum);

  sq_tally ev, ev1 = {0};
  sq_batch_evaluate(w, theta, &b, &ev);
  for (int i = 0; i < B; ++i) {
    sq_task_batch(t, SQ_TRAIN, 1, &index[i], SQ_PAD_NONE, single, &one);
    sq_model_evaluate(m, theta, &one, sq_worker_work(w), &ev1);
  }
  assert_true(ev.nlabel == ev1.nlabel && ev.ncorrect == ev1.ncorrect);
  assert_true(fabs(ev.loss_sum - ev1.loss_sum) <= 100 * (double)SQ_REAL_EPS * ev.loss_sum);
  assert_true(fabs(ev.loss_sum - tally.loss_sum) > 1e-4); /* dropout was on above */
  free(theta);
  free(grad);
  free(again);
  free(sum);
  free(store);
  free(single);
  sq_worker_destroy(&w);
  sq_model_destroy(&m);
  sq_task_close(&t);
  sq_experiment_destroy(&e);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(memory_grows_by_no_more_than_planned),
      cmocka_unit_test(a_step_allocates_nothing),
      cmocka_unit_test(impossible_training_keys_are_refused),
      cmocka_unit_test(a_diverging_run_is_a_result_with_its_reason),
      cmocka_unit_test(a_run_that_is_told_to_stop_does_nothing_more),
      cmocka_unit_test(an_error_of_a_hook_ends_the_run_with_it),
      cmocka_unit_test(the_gradient_of_a_batch_is_that_of_its_sequences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
