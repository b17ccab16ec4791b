/* tests/test_task_mqar.c: the distribution of MQAR, and that an example depends on nothing but its place. */
#include "task_test.h"

#include "../src/task/mqar_impl.h"

enum { MAX_T = 512 };

static sq_task *create(mqar_params p)
{
  sq_task *t = NULL;
  for (int s = 0; s < SQ_NSPLIT; ++s)
    if (p.size[s] == 0) p.size[s] = 100000;
  assert_int_equal(sq_mqar_create(&p, &t), SQ_OK);
  return t;
}

static void draw(const sq_task *t, sq_split s, size_t i, int32_t *token, int32_t *label)
{
  sq_task_find("mqar")->example(t, s, i, token, label);
}

/* Gap of pair k: where its key comes again with a label. */
static int gap_of(const int32_t *token, const int32_t *label, int T, int K, int k)
{
  for (int r = 2 * K; r < T; ++r)
    if (label[r] != SQ_IGNORE && token[r] == token[2 * k]) return (r - 2 * K) / 2;
  fail_msg("pair %d has no query", k);
  return -1;
}

static void check_layout(int V, int T, int K, size_t examples)
{
  sq_task *t = create((mqar_params){.seed = 3, .V = V, .T = T, .K = K, .a = 0.01});
  int32_t token[MAX_T], label[MAX_T];
  unsigned char *seen = calloc((size_t)V, 1);
  for (size_t i = 0; i < examples; ++i) {
    int labels = 0;
    draw(t, SQ_TRAIN, i, token, label);
    memset(seen, 0, (size_t)V);
    for (int k = 0; k < K; ++k) {
      assert_in_range(token[2 * k], 1, V / 2 - 1);
      assert_in_range(token[2 * k + 1], V / 2, V - 1);
      assert_false(seen[token[2 * k]]++);
      assert_false(seen[token[2 * k + 1]]++);
    }
    for (int r = 0; r < T; ++r) {
      assert_in_range(token[r], 0, V - 1);
      if (label[r] == SQ_IGNORE) continue;
      ++labels;
      assert_true(r >= 2 * K && r % 2 == 0);
      int k = 0;
      while (k < K && token[2 * k] != token[r]) ++k;
      assert_true(k < K);
      assert_int_equal(label[r], token[2 * k + 1]);
      seen[token[r]]++;
    }
    assert_int_equal(labels, K);
    for (int k = 0; k < K; ++k) assert_int_equal(seen[token[2 * k]], 2); /* one query each */
  }
  free(seen);
  sq_task_close(&t);
}

static void every_key_is_asked_once_and_its_label_is_its_value(void **state)
{
  (void)state;
  check_layout(8192, 512, 64, 300);
  check_layout(256, 64, 4, 2000);
  check_layout(33, 20, 5, 2000);   /* odd vocabulary, no slot to spare: T = 4K */
  check_layout(130, 256, 64, 300); /* every key and almost every value in each sequence */
  check_layout(4, 4, 1, 100);
}

/* P(gap of pair i = h) by walking through every possible sequence of draws. */
static void walk(const double *w, int space, int i, int K, double p, double left, char *taken,
                 double (*out)[28])
{
  for (int h = 0; h < space; ++h) {
    if (taken[h]) continue;
    const double q = p * w[h] / left;
    out[i][h] += q;
    if (i + 1 == K) continue;
    taken[h] = 1;
    walk(w, space, i + 1, K, q, left - w[h], taken, out);
    taken[h] = 0;
  }
}

static void check_gaps(double a)
{
  enum { T = 64, K = 4, SPACE = 28, N = 40000 };
  sq_task *t = create((mqar_params){.seed = 11, .V = 256, .T = T, .K = K, .a = a});
  double w[SPACE], sum = 0, exact[K][SPACE] = {{0}}, seen[K][SPACE] = {{0}}, last = -1;
  char taken[SPACE] = {0};
  int32_t token[T], label[T];
  for (int g = 0; g < SPACE; ++g) sum += w[g] = a * pow(g + 1, a - 1);
  walk(w, SPACE, 0, K, 1, sum, taken, exact);
  for (size_t i = 0; i < N; ++i) {
    draw(t, SQ_TRAIN, i, token, label);
    for (int k = 0; k < K; ++k) seen[k][gap_of(token, label, T, K, k)]++;
  }
  for (int k = 0; k < K; ++k) {
    double mean = 0, square = 0, got = 0;
    for (int g = 0; g < SPACE; ++g) {
      mean += g * exact[k][g];
      square += (double)g * g * exact[k][g];
      got += g * seen[k][g] / N;
      exact[k][g] *= N;
    }
    const double z = chi_normal(seen[k], exact[k], SPACE, SPACE - 1);
    if (!(z < CHI_LIMIT)) fail_msg("a = %g: gaps of pair %d: z = %.2f", a, k, z);
    const double error = sqrt((square - mean * mean) / N);
    if (!(fabs(got - mean) < 5 * error))
      fail_msg("a = %g: mean gap of pair %d: %.3f, expected %.3f +- %.3f", a, k, got, mean, error);
    if (a < 1) assert_true(got > last + 10 * error); /* by 1 or more at a = 0.01 */
    last = got;
  }
  sq_task_close(&t);
}

static void gaps_follow_the_renormalised_weights_and_grow_with_the_pair(void **state)
{
  (void)state;
  check_gaps(0.01);
  check_gaps(1);
  check_gaps(2);
}

static void keys_and_values_are_uniform_and_pairs_of_them_too(void **state)
{
  enum { V = 64, T = 32, K = 4, N = 60000, NK = V / 2 - 1, NV = V / 2 };
  sq_task *t = create((mqar_params){.seed = 5, .V = V, .T = T, .K = K, .a = 0.01});
  static double key[K][NK], value[K][NV], pair[NK * NK], cross[NK * NV], used[NK * (NK - 1)];
  int32_t token[T], label[T];
  (void)state;
  for (size_t i = 0; i < N; ++i) {
    draw(t, SQ_VALID, i, token, label);
    for (int k = 0; k < K; ++k) {
      key[k][token[2 * k] - 1]++;
      value[k][token[2 * k + 1] - V / 2]++;
    }
    pair[(token[0] - 1) * NK + token[2 * (K - 1)] - 1]++;
    cross[(token[2] - 1) * NV + token[3] - V / 2]++;
  }
  for (int k = 0; k < K; ++k) {
    assert_uniform("key", key[k], NK);
    assert_uniform("value", value[k], NV);
  }
  int n = 0;
  for (int j = 0; j < NK * NK; ++j) {
    if (j / NK == j % NK)
      assert_true(pair[j] == 0);
    else
      used[n++] = pair[j];
  }
  assert_uniform("first and last key", used, n);
  assert_uniform("a key and its value", cross, NK * NV);
  sq_task_close(&t);
}

static void filler_is_any_token_or_an_unused_one(void **state)
{
  enum { V = 40, T = 32, K = 6, N = 20000 };
  (void)state;
  for (int unused = 0; unused < 2; ++unused) {
    sq_task *t = create((mqar_params){.seed = 8, .V = V, .T = T, .K = K, .a = 0.01, .unused_filler = unused});
    double any[V] = {0}, rank[V] = {0};
    int32_t token[T], label[T];
    int repeats = 0;
    for (size_t i = 0; i < N; ++i) {
      char is_used[V] = {0};
      draw(t, SQ_TEST, i, token, label);
      for (int r = 0; r < 2 * K; ++r) is_used[token[r]] = 1;
      for (int r = 2 * K; r < T; ++r) {
        if (label[r] != SQ_IGNORE) continue;
        any[token[r]]++;
        repeats += is_used[token[r]];
        int below = 0;
        for (int v = 0; v < token[r]; ++v) below += !is_used[v];
        rank[below]++;
      }
    }
    if (unused) {
      assert_int_equal(repeats, 0);
      assert_uniform("rank among the unused tokens", rank, V - 2 * K);
    } else {
      assert_true(repeats > 0);
      assert_uniform("filler", any, V);
    }
    sq_task_close(&t);
  }
}

static void an_example_depends_on_its_place_alone(void **state)
{
  enum { T = 64, N = 50 };
  const mqar_params p = {.seed = 1919, .V = 8192, .T = T, .K = 8, .a = 0.01};
  sq_task *a = create(p), *b = create(p),
          *c = create((mqar_params){.seed = 1920, .V = 8192, .T = T, .K = 8, .a = 0.01});
  int32_t token[SQ_NSPLIT][N][T], label[T], again[T], label2[T];
  (void)state;
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (size_t i = 0; i < N; ++i) draw(a, (sq_split)s, i, token[s][i], label);
  for (int s = SQ_NSPLIT - 1; s >= 0; --s)
    for (size_t i = N; i-- > 0;) {
      draw(b, (sq_split)s, i, again, label2);
      assert_memory_equal(again, token[s][i], sizeof again);
      draw(c, (sq_split)s, i, again, label2);
      assert_memory_not_equal(again, token[s][i], 16 * sizeof *again);
    }
  for (size_t i = 0; i < N; ++i) {
    assert_memory_not_equal(token[SQ_TRAIN][i], token[SQ_VALID][i], 16 * sizeof *again);
    assert_memory_not_equal(token[SQ_TRAIN][i], token[SQ_TEST][i], 16 * sizeof *again);
  }
  sq_task_close(&a);
  sq_task_close(&b);
  sq_task_close(&c);
}

static int same_keys(const int32_t *a, const int32_t *b, int K)
{
  for (int k = 0; k < K; ++k)
    if (a[2 * k] != b[2 * k]) return 0;
  return 1;
}

/* 7-published-quirks, item 44: same keys, other values and gaps. */
static void the_published_test_set_has_the_training_keys(void **state)
{
  enum { T = 64, K = 8, TRAIN = 60, N = 100 };
  int32_t train[T], test[T], fixed[T], label[2][T];
  (void)state;
  mqar_params p = {.seed = 2, .V = 8192, .T = T, .K = K, .a = 0.01, .size = {TRAIN, 10, N}};
  sq_task *plain = create(p);
  p.published_keys = 1;
  sq_task *published = create(p);
  for (size_t i = 0; i < N; ++i) {
    draw(published, SQ_TRAIN, i, train, label[0]);
    draw(published, SQ_TEST, i, test, label[1]);
    draw(plain, SQ_TEST, i, fixed, label[0]);
    assert_int_equal(same_keys(train, test, K), i < TRAIN);
    assert_false(same_keys(train, fixed, K));
    assert_int_equal(same_keys(test, fixed, K), i >= TRAIN);
    for (int k = 0; k < K; ++k) assert_int_equal(test[2 * k + 1], fixed[2 * k + 1]);
    assert_memory_not_equal(train, test, sizeof test);
  }
  assert_int_equal(sq_task_check_disjoint(published), SQ_OK);
  sq_task_close(&plain);
  sq_task_close(&published);
}

static void splits_are_disjoint_unless_there_are_too_few_sequences(void **state)
{
  (void)state;
  sq_task *t = open_task(
      "{\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":256,\"input_seq_length\":64,\"num_kv_pairs\":4,"
      "\"num_train\":20000,\"num_valid\":3000,\"num_test\":3000}}");
  const double start = sq_wall_s();
  assert_int_equal(sq_task_check_disjoint(t), SQ_OK);
  print_message("26000 sequences of 64 compared in %.3f s\n", sq_wall_s() - start);
  sq_task_close(&t);

  t = open_task(
      "{\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":4,\"input_seq_length\":4,\"num_kv_pairs\":1,"
      "\"num_train\":40,\"num_valid\":1,\"num_test\":1}}");
  sq_error_clear();
  assert_int_equal(sq_task_check_disjoint(t), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "has the same input as training example"));
  sq_task_close(&t);
}

static void full_size_examples_are_cheap(void **state)
{
  enum { N = 2000 };
  sq_task *t = create((mqar_params){.seed = 1, .V = 8192, .T = 512, .K = 64, .a = 0.01});
  int32_t token[512], label[512];
  (void)state;
  const double start = sq_wall_s();
  for (size_t i = 0; i < N; ++i) draw(t, SQ_TRAIN, i, token, label);
  print_message("T = 512, K = 64, V = 8192: %.1f us an example\n", (sq_wall_s() - start) / N * 1e6);
  sq_task_close(&t);
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(every_key_is_asked_once_and_its_label_is_its_value),
      cmocka_unit_test(gaps_follow_the_renormalised_weights_and_grow_with_the_pair),
      cmocka_unit_test(keys_and_values_are_uniform_and_pairs_of_them_too),
      cmocka_unit_test(filler_is_any_token_or_an_unused_one),
      cmocka_unit_test(an_example_depends_on_its_place_alone),
      cmocka_unit_test(the_published_test_set_has_the_training_keys),
      cmocka_unit_test(splits_are_disjoint_unless_there_are_too_few_sequences),
      cmocka_unit_test(full_size_examples_are_cheap),
  };
  return cmocka_run_group_tests(test, NULL, NULL);
}
