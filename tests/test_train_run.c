/* tests/test_train_run.c: whole runs of tiny models on tiny MQAR that end as they should. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train_fixture.h"

static void the_same_seed_gives_the_same_bits_whatever_ran_before(void **state)
{
  (void)state;
  trace a = run_one(1, 2, STEPS_240, MODEL_SMALL), b = run_one(2, 2, STEPS_240, MODEL_SMALL),
        c = run_one(1, 2, STEPS_240, MODEL_SMALL);
  assert_int_equal(a.nstage, 4);
  assert_memory_equal(a.stage_hash, c.stage_hash, 4 * sizeof *a.stage_hash);
  assert_memory_equal(&a.result.test_loss, &c.result.test_loss, sizeof a.result.test_loss);
  assert_int_equal(a.neval, c.neval);
  for (int k = 0; k < a.neval; ++k) {
    assert_true(a.eval[k].train_loss == c.eval[k].train_loss && a.eval[k].valid_loss == c.eval[k].valid_loss);
    assert_true(a.eval[k].grad_norm == c.eval[k].grad_norm && a.eval[k].lr == c.eval[k].lr);
  }
  for (int k = 0; k < 4; ++k) assert_true(a.stage_hash[k] != b.stage_hash[k]);
  trace_clear(&a);
  trace_clear(&b);
  trace_clear(&c);
}

static void the_loss_falls_and_the_task_is_learnt(void **state)
{
  (void)state;
  trace t = run_one(1, 0,
                    "\"total_steps\": 600, \"batch_size\": 32, \"lr\": 1e-2, \"wd\": 0.01, \"warmup\": 60, "
                    "\"eval_every\": 100",
                    "\"hidden_dim\": 32, \"state_dim\": 32, \"dropout\": 0.0");
  assert_int_equal(t.result.outcome, SQ_OUTCOME_DONE);
  assert_int_equal(t.neval, 6);
  print_message("loss %.3f -> %.3f, validation accuracy %.3f, test %.3f\n", t.eval[0].train_loss,
                t.eval[5].train_loss, t.result.valid_metric, t.result.test_metric);
  /* Guessing among the 8 values gives log 8 = 2.08 and 1/8. */
  assert_true(t.eval[5].train_loss < 0.5 * t.eval[0].train_loss);
  assert_true(t.result.test_metric > 0.8);
  trace_clear(&t);
}

static void a_run_counted_in_steps_evaluates_as_often_as_planned(void **state)
{
  (void)state;
  static const struct {
    const char *train;
    long total;
    int evals;
  } cases[] = {
      {"\"total_steps\": 50, \"batch_size\": 16, \"lr\": 1e-3, \"eval_every\": 20", 50, 3},
      {"\"total_steps\": 40, \"batch_size\": 16, \"lr\": 1e-3, \"eval_every\": 20", 40, 2},
      {"\"total_steps\": 45, \"batch_size\": 16, \"lr\": 1e-3", 45, 23}, /* every 45/20 = 2 */
      {"\"total_steps\": 7, \"batch_size\": 16, \"lr\": 1e-3", 7, 7},
      {"\"num_epochs\": 2, \"batch_size\": 300, \"lr\": 1e-3", 8,
       2}, /* 1000 examples: 3 full batches and 100 */
      {"\"num_epochs\": 2, \"batch_size\": 300, \"lr\": 1e-3, \"eval_every\": 3", 8, 3},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    sq_experiment *e = experiment(3, 3, cases[i].train, DATA_SMALL, MODEL_SMALL);
    sq_train_plan p;
    trace t = {0};
    if (sq_train_plan_cell(sq_experiment_cell(e, 0), &p) != SQ_OK) fail_msg("%s", sq_error_text());
    assert_int_equal(run_with(e, &t, NULL), SQ_OK);
    assert_int_equal(p.total_steps, cases[i].total);
    assert_int_equal(p.max_evals, cases[i].evals);
    assert_int_equal(p.nstage, 5);
    assert_int_equal(t.result.steps, cases[i].total);
    assert_int_equal(t.neval, cases[i].evals);
    assert_int_equal(t.eval[t.neval - 1].step, cases[i].total);
    assert_int_equal(t.nstage, 5);
    assert_int_equal(t.result.nparam, p.nparam);
    /* MQAR sequences all have full length, so only the last batch of an epoch costs less than planned. */
    const double ratio = t.result.flops / p.flops_total, epoch = 1000.0 / 1200.0;
    assert_true(p.total_steps == 8 ? fabs(ratio - epoch) < 1e-9 : fabs(ratio - 1) < 1e-9);
    trace_clear(&t);
    sq_experiment_destroy(&e);
  }
}

static void an_epoch_asks_for_every_example_once_in_its_own_order(void **state)
{
  (void)state;
  enum { N = 50 };
  sq_experiment *e =
      experiment(3, 0, "\"num_epochs\": 2, \"batch_size\": 8, \"lr\": 1e-3",
                 "\"vocab_size\": 16, \"input_seq_length\": 12, \"num_kv_pairs\": 2, \"num_train\": 50, "
                 "\"num_valid\": 20, \"num_test\": 10",
                 MODEL_SMALL);
  trace t = {0};
  spy *s;
  assert_int_equal(run_with(e, &t, &s), SQ_OK);
  assert_int_equal(t.result.steps, 14);
  assert_int_equal(s->ntrain_log, 2 * N);
  int moved = 0, changed = 0;
  for (int epoch = 0; epoch < 2; ++epoch) {
    int seen[N] = {0};
    for (int i = 0; i < N; ++i) ++seen[s->train_log[epoch * N + i]];
    for (int i = 0; i < N; ++i) assert_int_equal(seen[i], 1);
  }
  for (int i = 0; i < N; ++i) {
    moved += s->train_log[i] != (size_t)i;
    changed += s->train_log[i] != s->train_log[N + i];
  }
  assert_true(moved > N / 2 && changed > N / 2);
  spy_close(s);
  trace_clear(&t);
  sq_experiment_destroy(&e);
}

static void the_test_set_is_read_once_at_the_end_unless_published(void **state)
{
  (void)state;
  trace t = run_one(1, 0, STEPS_240, MODEL_SMALL),
        p = run_one(1, 0, "\"recipe\": \"published\", " STEPS_240, MODEL_SMALL);
  assert_int_equal(t.asked[SQ_VALID], 6 * 101);
  assert_int_equal(t.asked[SQ_TEST], 99);
  assert_int_equal(p.asked[SQ_VALID], 0);
  assert_int_equal(p.asked[SQ_TEST], 6 * 99);
  assert_true(p.result.test_metric == p.result.valid_metric);
  trace_clear(&t);
  trace_clear(&p);
}

static void recipes_differ_in_rate_and_in_what_decays(void **state)
{
  (void)state;
  /* Decay 0.05 a step on everything that decays; the rate itself is too small to move anything else by 1e-3.
   */
  const char *train = "\"total_steps\": 20, \"batch_size\": 16, \"lr\": 1e-5, \"wd\": 5000, \"warmup\": 10, "
                      "\"lr_min\": 1e-6, "
                      "\"eval_every\": 1";
  char published[512];
  sq_format(published, sizeof published, "\"recipe\": \"published\", %s", train);
  trace c = run_one(1, 0, train, MODEL_SMALL), p = run_one(1, 0, published, MODEL_SMALL);

  for (int k = 0; k < 20; ++k) assert_true(p.eval[k].lr == 1e-5); /* `warmup` is not read with total_steps */
  assert_true(fabs(c.eval[0].lr - 1e-6) < 1e-18 && fabs(c.eval[9].lr - 1e-5) < 1e-18);
  assert_true(c.eval[19].lr < 2e-6);

  sq_experiment *e = experiment(1, 0, train, DATA_SMALL, MODEL_SMALL);
  sq_model *m = NULL;
  sq_task_info info;
  sq_model_dims d;
  assert_int_equal(sq_task_shape(sq_experiment_cell(e, 0), &info), SQ_OK);
  sq_train_model_dims(sq_experiment_cell(e, 0), &info, &d);
  assert_int_equal(sq_model_create(sq_experiment_cell(e, 0), d, &m), SQ_OK);
  const sq_param_list *l = sq_model_params(m);
  int scales = 0, matrices = 0;
  for (int k = 0; k < l->n; ++k) {
    const sq_param *q = &l->v[k];
    const double before = (double)c.stage_theta[0][q->offset];
    const double corrected = (double)c.stage_theta[1][q->offset], pub = (double)p.stage_theta[1][q->offset];
    if (before == 1) { /* a norm's scale; `trained` is the best of 20 evaluations, at least one step */
      assert_true(fabs(corrected - 1) < 1e-3);
      assert_true(pub < 0.96);
      ++scales;
    } else if (!(q->flags & SQ_PARAM_NO_DECAY) && fabs(before) > 0.1) {
      assert_true(fabs(pub) < 0.96 * fabs(before));
      assert_true(fabs(corrected) < 0.996 * fabs(before));
      ++matrices;
    }
  }
  assert_true(scales >= 1 && matrices >= 1);
  sq_model_destroy(&m);
  sq_experiment_destroy(&e);
  trace_clear(&c);
  trace_clear(&p);
}

static void epochs_of_recipe_published_hold_their_rate(void **state)
{
  (void)state;
  trace t = run_one(
      1, 0,
      "\"recipe\": \"published\", \"num_epochs\": 4, \"warmup\": 2, \"batch_size\": 250, \"lr\": 1e-3, "
      "\"eval_every\": 1",
      MODEL_SMALL);
  assert_int_equal(t.neval, 16);
  for (int k = 0; k < 16; ++k) {
    const int epoch = k / 4;
    const double expected =
        (5e-6 + (1e-3 - 5e-6) * (1 + cos(acos(-1.0) * epoch / 4)) / 2) * fmin(1, (epoch + 1) / 2.0);
    assert_true(fabs(t.eval[k].lr - expected) < 1e-15);
  }
  trace_clear(&t);
}

static void stages_come_in_order_at_their_steps(void **state)
{
  (void)state;
  trace t = run_one(1, 3, STEPS_240, MODEL_SMALL);
  const int stage[] = {0, 1, 2, 3, 4};
  const long step[] = {0, 60, 120, 180, 240};
  assert_int_equal(t.nstage, 5);
  for (int k = 0; k < 5; ++k) {
    assert_int_equal(t.stage[k], stage[k]);
    assert_int_equal(t.stage_step[k], step[k]);
  }
  trace_clear(&t);
}

static void a_stop_criterion_ends_the_run_and_its_later_snapshots(void **state)
{
  (void)state;
  trace t = run_one(1, 11, "\"stop_criterion\": 0.0, " STEPS_240, MODEL_SMALL);
  assert_int_equal(t.result.outcome, SQ_OUTCOME_DONE);
  assert_int_equal(t.result.steps, 40);
  assert_int_equal(t.result.best_step, 40);
  assert_int_equal(t.neval, 1);
  assert_int_equal(t.nstage, 4); /* init, steps 20 and 40, trained */
  assert_int_equal(t.stage[2], 2);
  assert_int_equal(t.stage[3], 12);
  assert_true(isfinite(t.result.test_metric));
  trace_clear(&t);
}

static void the_best_evaluation_is_kept_and_the_first_on_ties(void **state)
{
  (void)state;
  trace t = run_one(1, 0, STEPS_240, MODEL_SMALL), low = {0};
  int best = 0;
  for (int k = 1; k < t.neval; ++k) best = t.eval[k].valid_metric > t.eval[best].valid_metric ? k : best;
  assert_int_equal(t.result.best_step, t.eval[best].step);
  assert_true(t.result.valid_metric == t.eval[best].valid_metric);

  /* A rate of nearly nothing: every evaluation is the same, so the first is the best and the weights are its.
   */
  trace same = run_one(
      1, 0, "\"total_steps\": 20, \"batch_size\": 16, \"lr\": 1e-30, \"lr_min\": 0, \"eval_every\": 5",
      MODEL_SMALL);
  assert_int_equal(same.neval, 4);
  assert_int_equal(same.result.best_step, 5);

  /* Perplexity: lower is better, and the metric is exp of the loss. */
  sq_experiment *e = experiment(1, 0, STEPS_240, DATA_SMALL, MODEL_SMALL);
  const sq_config *c = sq_experiment_cell(e, 0);
  sq_model_dims d;
  sq_model *m = NULL;
  spy *s = spy_open(c);
  s->info.metric = "perplexity";
  sq_train_model_dims(c, &s->info, &d);
  assert_int_equal(sq_model_create(c, d, &m), SQ_OK);
  const sq_train_hooks hooks = {.user = &low, .evaluated = on_evaluated};
  assert_int_equal(sq_train_cell(c, m, &s->base, NULL, &hooks, &low.result), SQ_OK);
  best = 0;
  for (int k = 1; k < low.neval; ++k) best = low.eval[k].valid_loss < low.eval[best].valid_loss ? k : best;
  assert_int_equal(low.result.best_step, low.eval[best].step);
  assert_true(low.result.valid_metric == exp(low.eval[best].valid_loss));
  sq_model_destroy(&m);
  spy_close(s);
  sq_experiment_destroy(&e);
  trace_clear(&t);
  trace_clear(&same);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_same_seed_gives_the_same_bits_whatever_ran_before),
      cmocka_unit_test(the_loss_falls_and_the_task_is_learnt),
      cmocka_unit_test(a_run_counted_in_steps_evaluates_as_often_as_planned),
      cmocka_unit_test(an_epoch_asks_for_every_example_once_in_its_own_order),
      cmocka_unit_test(the_test_set_is_read_once_at_the_end_unless_published),
      cmocka_unit_test(recipes_differ_in_rate_and_in_what_decays),
      cmocka_unit_test(epochs_of_recipe_published_hold_their_rate),
      cmocka_unit_test(stages_come_in_order_at_their_steps),
      cmocka_unit_test(a_stop_criterion_ends_the_run_and_its_later_snapshots),
      cmocka_unit_test(the_best_evaluation_is_kept_and_the_first_on_ties),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
