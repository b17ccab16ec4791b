/* tests/test_task_made.c: the generated tasks: every label is the truth, the draws are uniform. */
#include "task_test.h"

enum { MAX_T = 512 };

/* Copying, the obvious way: what is not blank, in order. */
static void selective_copying_asks_for_the_data_in_order(void **state)
{
  const sq_task_ops *ops = sq_task_find("selective_copying");
  sq_task *t = open_task("{\"seed\":3,\"dataset\":{\"_name_\":\"selective_copying\",\"input_seq_length\":40,"
                         "\"num_tokens\":5,\"vocab_size\":8,\"num_train\":4000}}");
  double place[35] = {0}, value[6] = {0};
  int32_t token[MAX_T], label[MAX_T];
  (void)state;
  assert_int_equal(sq_task_describe(t)->max_labels, 5);
  for (size_t i = 0; i < 4000; ++i) {
    int n = 0;
    ops->example(t, SQ_TRAIN, i, token, label);
    for (int k = 0; k < 35; ++k) {
      assert_int_equal(label[k], SQ_IGNORE);
      assert_in_range(token[k], 0, 6);
      if (token[k] == 0) continue;
      place[k]++;
      value[token[k] - 1]++;
      assert_int_equal(label[35 + n], token[k]);
      ++n;
    }
    assert_int_equal(n, 5);
    for (int k = 35; k < 40; ++k) assert_int_equal(token[k], 7);
  }
  assert_uniform("places", place, 35);
  assert_uniform("values", value, 6);
  sq_task_close(&t);
}

static void induction_heads_ask_for_what_followed_the_trigger(void **state)
{
  const sq_task_ops *ops = sq_task_find("induction_heads");
  sq_task *t = open_task("{\"seed\":4,\"dataset\":{\"_name_\":\"induction_heads\",\"input_seq_length\":20,"
                         "\"vocab_size\":9,\"num_train\":4000}}");
  double place[18] = {0}, answer[8] = {0};
  int32_t token[MAX_T], label[MAX_T];
  (void)state;
  for (size_t i = 0; i < 4000; ++i) {
    int at = -1;
    ops->example(t, SQ_TRAIN, i, token, label);
    for (int k = 0; k < 19; ++k) {
      assert_int_equal(label[k], SQ_IGNORE);
      if (token[k] != 8) continue;
      assert_int_equal(at, -1);
      at = k;
    }
    assert_in_range(at, 0, 17);
    assert_int_equal(token[19], 8);
    assert_int_equal(label[19], token[at + 1]);
    place[at]++;
    answer[label[19]]++;
  }
  assert_uniform("places", place, 18);
  assert_uniform("answers", answer, 8);
  sq_task_close(&t);
}

static void lag_copy_asks_for_the_token_some_steps_ago(void **state)
{
  (void)state;
  for (int lag = 0; lag < 30; lag += 7) {
    char json[256];
    const sq_task_ops *ops = sq_task_find("lag_copy");
    int32_t token[MAX_T], label[MAX_T];
    double value[5] = {0};
    snprintf(json, sizeof json,
             "{\"seed\":5,\"dataset\":{\"_name_\":\"lag_copy\",\"input_seq_length\":30,\"lag\":%d,"
             "\"vocab_size\":5}}",
             lag);
    sq_task *t = open_task(json);
    assert_int_equal(sq_task_describe(t)->max_labels, 30 - lag);
    for (size_t i = 0; i < 500; ++i) {
      ops->example(t, SQ_VALID, i, token, label);
      for (int k = 0; k < 30; ++k) {
        value[token[k]]++;
        assert_int_equal(label[k], k < lag ? SQ_IGNORE : token[k - lag]);
      }
    }
    assert_uniform("tokens", value, 5);
    sq_task_close(&t);
  }
}

static void parity_is_the_sum_and_the_test_is_longer(void **state)
{
  (void)state;
  for (int last = 0; last < 2; ++last)
    for (int modulus = 2; modulus <= 5; modulus += 3) {
      const sq_task_ops *ops = sq_task_find("parity");
      int32_t token[MAX_T], label[MAX_T];
      double length[6] = {0}, answer[5] = {0};
      char json[512];
      snprintf(
          json, sizeof json,
          "{\"seed\":6,\"dataset\":{\"_name_\":\"parity\",\"modulus\":%d,\"symbols\":%d,\"labels\":\"%s\","
          "\"min_length\":20,\"max_length\":25,\"test_min_length\":26,\"test_max_length\":60}}",
          modulus, modulus, last ? "last" : "all");
      sq_task *t = open_task(json);
      assert_int_equal(sq_task_describe(t)->seq_len, 60);
      assert_int_equal(sq_task_describe(t)->max_labels, last ? 1 : 60);
      for (size_t i = 0; i < 3000; ++i)
        for (int s = 0; s < SQ_NSPLIT; ++s) {
          const int n = ops->length(t, (sq_split)s, i);
          ops->example(t, (sq_split)s, i, token, label);
          if (s == SQ_TEST)
            assert_in_range(n, 26, 60);
          else
            assert_in_range(n, 20, 25);
          if (s == SQ_TRAIN) length[n - 20]++;
          int sum = 0;
          for (int k = 0; k < n; ++k) {
            assert_in_range(token[k], 0, modulus - 1);
            sum += token[k];
            assert_int_equal(label[k], last && k < n - 1 ? SQ_IGNORE : sum % modulus);
          }
          answer[label[n - 1]]++;
        }
      assert_uniform("lengths", length, 6);
      assert_uniform("answers", answer, modulus);
      sq_task_close(&t);
    }
}

static void of_ones_the_label_is_the_number_of_steps(void **state)
{
  const sq_task_ops *ops = sq_task_find("parity");
  int32_t token[MAX_T], label[MAX_T];
  sq_task *t = open_task("{\"dataset\":{\"_name_\":\"parity\",\"modulus\":3,\"tokens\":\"ones\"}}");
  (void)state;
  for (size_t i = 0; i < 100; ++i) {
    const int n = ops->length(t, SQ_TEST, i);
    ops->example(t, SQ_TEST, i, token, label);
    for (int k = 0; k < n; ++k) {
      assert_int_equal(token[k], 1);
      assert_int_equal(label[k], (k + 1) % 3);
    }
  }
  sq_task_close(&t);
}

static void examples_depend_on_seed_split_and_index_only(void **state)
{
  static const char *const name[] = {"selective_copying", "induction_heads", "lag_copy", "parity"};
  (void)state;
  for (size_t k = 0; k < COUNT(name); ++k) {
    const sq_task_ops *ops = sq_task_find(name[k]);
    static int32_t token[8][4096], label[4096];
    char json[2][128];
    for (int s = 0; s < 2; ++s)
      snprintf(json[s], sizeof *json, "{\"seed\":%d,\"dataset\":{\"_name_\":\"%s\"}}", s + 1, name[k]);
    sq_task *a = open_task(json[0]), *b = open_task(json[1]), *c = open_task(json[0]);
    const int n = ops->length(a, SQ_TRAIN, 9), T = sq_task_describe(a)->seq_len;
    memset(token, 0xff, sizeof token);
    assert_in_range(T, n, 4096);
    ops->example(a, SQ_TRAIN, 9, token[0], label);
    ops->example(b, SQ_TRAIN, 9, token[1], label);
    ops->example(a, SQ_VALID, 9, token[2], label);
    ops->example(a, SQ_TRAIN, 10, token[3], label);
    ops->example(c, SQ_TRAIN, 9, token[4], label);
    for (int i = 1; i < 4; ++i) assert_memory_not_equal(token[0], token[i], sizeof *token);
    assert_memory_equal(token[0], token[4], sizeof *token);
    sq_task_close(&a);
    sq_task_close(&b);
    sq_task_close(&c);
  }
}

static void impossible_numbers_are_refused(void **state)
{
  static const struct {
    const char *json, *message;
  } bad[] = {
      {"{\"dataset\":{\"_name_\":\"selective_copying\",\"input_seq_length\":20,\"num_tokens\":11}}",
       "dataset.input_seq_length: 20 is too short for num_tokens 11; expected at least 22"},
      {"{\"dataset\":{\"_name_\":\"lag_copy\",\"input_seq_length\":20,\"lag\":20}}",
       "dataset.lag: 20; expected less than input_seq_length 20"},
      {"{\"dataset\":{\"_name_\":\"parity\",\"min_length\":41}}",
       "dataset.min_length: 41; expected at most max_length 40"},
      {"{\"dataset\":{\"_name_\":\"parity\",\"test_min_length\":300}}",
       "dataset.test_min_length: 300; expected at most test_max_length 256"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(bad); ++i) {
    sq_experiment *e = NULL;
    assert_int_equal(load_cell(bad[i].json, &e), SQ_ERR_USAGE);
    if (strstr(sq_error_text(), bad[i].message) == NULL)
      fail_msg("got \"%s\", expected \"%s\"", sq_error_text(), bad[i].message);
    sq_experiment_destroy(&e);
  }
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(selective_copying_asks_for_the_data_in_order),
      cmocka_unit_test(induction_heads_ask_for_what_followed_the_trigger),
      cmocka_unit_test(lag_copy_asks_for_the_token_some_steps_ago),
      cmocka_unit_test(parity_is_the_sum_and_the_test_is_longer),
      cmocka_unit_test(of_ones_the_label_is_the_number_of_steps),
      cmocka_unit_test(examples_depend_on_seed_split_and_index_only),
      cmocka_unit_test(impossible_numbers_are_refused),
  };
  return cmocka_run_group_tests(test, NULL, NULL);
}
