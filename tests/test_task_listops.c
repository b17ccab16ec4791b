/* tests/test_task_listops.c: expressions, their values, and the distribution of the generator. */
#include "task_test.h"

#include "../src/task/listops_impl.h"

/* ---- an evaluator on the text, following the definition --------------------------------------------------
 */

static int by_value(const void *a, const void *b)
{
  return *(const int *)a - *(const int *)b;
}

static int slow_value(const char **p)
{
  int arg[1024], n = 0, sum = 0;
  char word[8];
  do { /* parentheses carry no information */
    int used = 0;
    if (sscanf(*p, "%7s%n", word, &used) != 1) fail_msg("text ends early");
    *p += used;
  } while (*word == '(' || *word == ')');
  if (*word != '[') return *word == ']' ? -1 : atoi(word);
  for (int v; (v = slow_value(p)) >= 0;) {
    sum += v;
    arg[n++] = v;
  }
  qsort(arg, (size_t)n, sizeof *arg, by_value);
  if (strcmp(word, "[MIN") == 0) return arg[0];
  if (strcmp(word, "[MAX") == 0) return arg[n - 1];
  if (strcmp(word, "[SM") == 0) return sum % 10;
  if (n % 2 == 1) return arg[n / 2];
  return (arg[n / 2 - 1] + arg[n / 2]) / 2;
}

static const listops_params published = {
    .seed = 4, .min_length = 500, .max_length = 2000, .max_depth = 10, .max_args = 10, .size = {1, 1, 1}};

static void values_agree_with_a_recursive_evaluator(void **state)
{
  enum { N = 30000 };
  static uint8_t code[2000];
  static int narg[2000];
  static char text[9 * 2000 + 1];
  size_t trees = 0;
  const char *why;
  (void)state;
  for (uint64_t k = 0; k < N; ++k) {
    const size_t n = sq_listops_draw(&published, k, code);
    if (n < 2) continue;
    const size_t bytes = sq_listops_print(code, n, narg, text);
    const char *p = text;
    assert_int_equal(bytes, strlen(text));
    assert_true(bytes < sq_listops_text_bytes(n));
    assert_int_equal(sq_listops_value(code, n, &why), slow_value(&p));
    ++trees;
  }
  assert_true(trees > N / 5);
}

enum { X = LISTOPS_CLOSE, MAX = LISTOPS_MAX, MED = LISTOPS_MED, MIN = LISTOPS_MIN, SM = LISTOPS_SM };

static void operators_have_their_stated_values(void **state)
{
  static const struct {
    int value;
    size_t n;
    uint8_t code[12];
  } c[] = {
      {7, 1, {7}},
      {2, 5, {MIN, 9, 2, 4, X}},
      {9, 5, {MAX, 9, 2, 4, X}},
      {7, 4, {MED, 6, 9, X}}, /* 7.5, rounded down */
      {4, 5, {MED, 9, 2, 4, X}},
      {3, 6, {MED, 1, 9, 2, 4, X}},
      {5, 5, {SM, 9, 2, 4, X}},
      {0, 4, {SM, 5, 5, X}},
      {8, 3, {MED, 8, X}},
      {6, 10, {SM, MAX, 1, 5, X, MIN, 1, 9, X, X}},
      {-1, 0, {0}},
      {-1, 2, {1, 2}},
      {-1, 2, {MAX, X}},
      {-1, 3, {MAX, 1, 2}},
      {-1, 1, {X}},
      {-1, 5, {MAX, 1, X, X, 1}},
  };
  const char *why = NULL;
  (void)state;
  for (size_t i = 0; i < COUNT(c); ++i)
    assert_int_equal(sq_listops_value(c[i].code, c[i].n, &why), c[i].value);
  static uint8_t deep[3 * LISTOPS_MAX_NEST];
  memset(deep, MAX, sizeof deep);
  assert_int_equal(sq_listops_value(deep, sizeof deep, &why), -1);
  assert_string_equal(why, "operators nest deeper than 256");
}

static void printing_is_left_leaning_and_binary(void **state)
{
  const uint8_t code[] = {MED, 1, SM, 2, 3, X, 4, X}, digit[] = {5};
  char text[128];
  int narg[8];
  (void)state;
  sq_listops_print(code, sizeof code, narg, text);
  assert_string_equal(text, "( ( ( ( [MED 1 ) ( ( ( [SM 2 ) 3 ) ] ) ) 4 ) ] )");
  sq_listops_print(digit, 1, narg, text);
  assert_string_equal(text, "5");
}

/* ---- distribution ---------------------------------------------------------------------------------------
 */

/* Arguments of the operator at code[0]. */
static int root_arguments(const uint8_t *code, size_t n)
{
  int depth = 0, count = 0;
  for (size_t i = 1; i + 1 < n; ++i) {
    if (code[i] == X) {
      --depth;
      continue;
    }
    count += depth == 0;
    depth += code[i] > X;
  }
  return count;
}

static void trees_are_drawn_as_described(void **state)
{
  enum { N = 60000, ROOM = 400000 };
  listops_params p = published;
  uint8_t *code = malloc(ROOM);
  double digit[10] = {0}, op[4] = {0}, arity[9] = {0}, root[2] = {0}, window[4] = {0}, inner[4] = {0};
  int deepest = 0;
  (void)state;
  p.max_length = ROOM; /* so long that no tree is thrown away, which would favour few arguments */
  for (uint64_t k = 0; k < N; ++k) {
    const size_t n = sq_listops_draw(&p, k, code);
    assert_true(n > 0);
    const int nest = sq_listops_nesting(code, n);
    deepest = nest > deepest ? nest : deepest;
    root[n > 1]++;
    window[n == 1 ? 0 : n <= 500 ? 1 : n < 2000 ? 2 : 3]++;
    if (n == 1) {
      digit[code[0]]++;
      continue;
    }
    op[code[0] - MAX]++;
    arity[root_arguments(code, n) - 2]++;
    /* One token of each tree is independent of those of other trees: its first digit, its last operator. */
    size_t i = n;
    while (code[--i] <= X) {
    }
    if (i > 0) inner[code[i] - MAX]++;
    for (i = 1; code[i] > X; ++i) {
    }
    digit[code[i]]++;
  }
  assert_uniform("digits", digit, 10);
  assert_uniform("operator of the root", op, 4);
  assert_uniform("last operator", inner, 4);
  assert_uniform("arguments of the root", arity, 9);
  assert_int_equal(deepest, 9);
  const double share[2] = {0.75 * N, 0.25 * N};
  assert_true(fabs(chi_normal(root, share, 2, 1)) < CHI_LIMIT);
  /* The original generator's shares, themselves estimated from 120,000 draws and given to 0.1 %. */
  const double original[4] = {0.751, 0.155, 0.083, 0.012};
  for (int i = 0; i < 4; ++i) {
    const double q = original[i], sigma = sqrt(q * (1 - q) * (1.0 / N + 1.0 / 120000));
    if (!(fabs(window[i] / N - q) < 5 * sigma + 0.0005))
      fail_msg("share %d: %.4f, the original has %.3f (allowed: %.4f)", i, window[i] / N, q,
               5 * sigma + 0.0005);
  }
  free(code);
}

static void an_operator_is_a_quarter_of_the_nodes_above_the_last_depth(void **state)
{
  enum { N = 40000 };
  listops_params p = published;
  uint8_t code[200];
  double seen[2] = {0};
  (void)state;
  p.max_depth = 3; /* at most 2 + 10 (2 + 10) tokens */
  p.max_length = 200;
  for (uint64_t k = 0; k < N; ++k) {
    const size_t n = sq_listops_draw(&p, k, code);
    assert_true(n == 1 || n >= 4);
    assert_true(sq_listops_nesting(code, n) <= 2);
    if (n == 1) continue;
    seen[code[1] > X]++; /* the first argument, at depth 2 */
  }
  const double total = seen[0] + seen[1], share[2] = {0.75 * total, 0.25 * total};
  assert_true(total > N / 5);
  assert_true(fabs(chi_normal(seen, share, 2, 1)) < CHI_LIMIT);
}

/* Two samples of one distribution?  Chi-square of homogeneity. */
static void assert_same_distribution(const char *what, const double *a, const double *b, int n)
{
  double na = 0, nb = 0, x = 0;
  for (int i = 0; i < n; ++i) {
    na += a[i];
    nb += b[i];
  }
  for (int i = 0; i < n; ++i) {
    const double d = a[i] * sqrt(nb / na) - b[i] * sqrt(na / nb);
    x += d * d / (a[i] + b[i]);
  }
  const double v = 2.0 / (9.0 * (n - 1)), z = (cbrt(x / (n - 1)) - (1 - v)) / sqrt(v);
  if (!(z < CHI_LIMIT)) fail_msg("%s: z = %.2f (limit %.2f)", what, z, CHI_LIMIT);
}

static void kept_lengths_and_targets_match_the_original_generator(void **state)
{
  /* The Long Range Arena generator with its default parameters: lengths of 2,400 rows, targets of 1,400 of
   * them. */
  const double length[6] = {752, 564, 435, 280, 211, 158};
  const double target[10] = {238, 138, 113, 113, 129, 102, 95, 105, 125, 242};
  double ours_length[6] = {0}, ours_target[10] = {0};
  listops_params p = published;
  listops_set s = {0};
  (void)state;
  p.size[SQ_TRAIN] = 6000;
  assert_int_equal(sq_listops_generate(&p, &s), SQ_OK);
  assert_int_equal(s.n, 6002);
  for (size_t i = 0; i < s.n; ++i) {
    const size_t n = s.off[i + 1] - s.off[i];
    assert_in_range(n, 501, 1999);
    ours_length[(n - 500) / 250]++;
    ours_target[s.value[i]]++;
  }
  assert_same_distribution("lengths", ours_length, length, 6);
  assert_same_distribution("targets", ours_target, target, 10);
  sq_listops_clear(&s);
}

static void small_windows_give_distinct_expressions_or_an_error(void **state)
{
  listops_params p = {
      .seed = 1, .min_length = 3, .max_length = 5, .max_depth = 2, .max_args = 10, .size = {300, 60, 40}};
  listops_set s = {0};
  (void)state;
  assert_int_equal(sq_listops_generate(&p, &s), SQ_OK); /* all 4 x 10 x 10 of [OP a b ] */
  for (size_t i = 0; i < s.n; ++i)
    for (size_t j = 0; j < i; ++j) assert_memory_not_equal(s.code + s.off[i], s.code + s.off[j], 4);
  sq_listops_clear(&s);
  p.size[SQ_TEST] = 41;
  sq_error_clear();
  assert_int_equal(sq_listops_generate(&p, &s), SQ_ERR_DATA);
  assert_string_equal(sq_error_text(),
                      "task listops: 2000000 attempts in a row gave no new expression with 3 < length < 5, "
                      "max_depth 2, max_args 10: have 400 of 401; widen the window, or ask for fewer");
  sq_listops_clear(&s);
}

static void splits_of_a_longer_set_begin_with_those_of_a_shorter(void **state)
{
  listops_params p = {
      .seed = 9, .min_length = 5, .max_length = 80, .max_depth = 4, .max_args = 5, .size = {50, 5, 5}};
  listops_set a = {0}, b = {0};
  (void)state;
  assert_int_equal(sq_listops_generate(&p, &a), SQ_OK);
  p.size[SQ_TRAIN] = 500;
  assert_int_equal(sq_listops_generate(&p, &b), SQ_OK);
  assert_memory_equal(a.code, b.code, a.off[60]);
  assert_int_equal(a.first[SQ_TEST], 55);
  assert_int_equal(b.first[SQ_NSPLIT], 510);
  sq_listops_clear(&a);
  sq_listops_clear(&b);
}

static void ids_fall_with_frequency_in_training_then_in_byte_order(void **state)
{
  const uint8_t row[] = {MIN, 5, 5, 5, SM, 2, 2, X, X}, other[] = {MED, 9, 9, 9, 9, 9, 9, X};
  listops_set s = {0};
  uint8_t id[LISTOPS_NCODE];
  size_t count[LISTOPS_NCODE];
  (void)state;
  assert_int_equal(sq_listops_append(&s, row, sizeof row, 4), SQ_OK);
  assert_int_equal(sq_listops_append(&s, other, sizeof other, 9), SQ_OK);
  s.first[SQ_VALID] = 1;
  s.first[SQ_TEST] = s.first[SQ_NSPLIT] = 2;
  sq_listops_vocabulary(&s, 100, id, count);
  /* 5 three times; 2 and X twice; MIN and SM once; the others, 9 and MED of the other split among them,
   * never. */
  assert_int_equal(id[5], 3);
  assert_int_equal(id[2], 4);
  assert_int_equal(id[X], 5);
  assert_int_equal(id[MIN], 6);
  assert_int_equal(id[SM], 7);
  assert_int_equal(id[0], 8);
  assert_int_equal(id[9], 15);
  assert_int_equal(id[MAX], 16);
  assert_int_equal(id[MED], 17);
  sq_listops_vocabulary(&s, 3, id, count); /* only "[MIN 5" is left */
  assert_int_equal(id[5], 3);
  assert_int_equal(id[MIN], 4);
  assert_int_equal(id[0], 5);
  assert_int_equal(count[5], 1);
  sq_listops_clear(&s);
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(values_agree_with_a_recursive_evaluator),
      cmocka_unit_test(operators_have_their_stated_values),
      cmocka_unit_test(printing_is_left_leaning_and_binary),
      cmocka_unit_test(trees_are_drawn_as_described),
      cmocka_unit_test(an_operator_is_a_quarter_of_the_nodes_above_the_last_depth),
      cmocka_unit_test(kept_lengths_and_targets_match_the_original_generator),
      cmocka_unit_test(small_windows_give_distinct_expressions_or_an_error),
      cmocka_unit_test(splits_of_a_longer_set_begin_with_those_of_a_shorter),
      cmocka_unit_test(ids_fall_with_frequency_in_training_then_in_byte_order),
  };
  return cmocka_run_group_tests(test, NULL, NULL);
}
