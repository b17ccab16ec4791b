/* tests/test_task_imdb.c: characters, vocabulary, splits, wrong files. */
#include "task_fixture.h"

enum { N = 30, T = 64 };
#define IMDB(more) imdb_cell("" more)

static const char *imdb_cell(const char *more)
{
  static char json[512];
  snprintf(json, sizeof json,
           "{\"seed\":7,\"dataset\":{\"_name_\":\"imdb\",\"data_dir\":\"%s\",\"max_tokens\":%d%s}}", dir, T,
           more);
  return json;
}

static void put(const char *name, const char *text, size_t n)
{
  write_text(path_in(dir, name), text, n);
}

/* The sequence whose review has these tokens in front of <eos>; its label, or -1. */
static int label_of(const sq_task *t, sq_split s, const int32_t *want, int n)
{
  const sq_task_ops *ops = sq_task_find("imdb");
  int32_t token[T], label;
  for (size_t i = 0; i < sq_task_describe(t)->size[s]; ++i) {
    if (ops->length(t, s, i) != n + 1) continue;
    ops->example(t, s, i, token, &label);
    assert_int_equal(token[n], 2);
    if (memcmp(token, want, (size_t)n * sizeof *want) == 0) return label;
  }
  return -1;
}

static void characters_become_ids_by_falling_count(void **state)
{
  (void)state;
  /* Both kinds of "e" 20 times each, q 15 times, z 14 times; the test text has characters of all sorts. */
  put("train/neg/900_1.txt",
      "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9"
      "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9",
      40);
  put("train/neg/901_1.txt",
      "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC"
      "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC"
      "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC",
      60);
  put("train/pos/902_9.txt", "qqqqqqqqqqqqqqqzzzzzzzzzzzzzz", 29);
  put("test/pos/903_9.txt", "a\xC3\xA9\xE2\x82\xACqzx\xF0\x9F\x98\x80", 13);
  sq_task *t = open_task(IMDB(""));
  /* a..e come first, a being the commonest; then U+00E9 before U+20AC (equal counts), then q. */
  const int32_t want[] = {3, 8, 9, 10, 1, 1, 1};
  assert_int_equal(label_of(t, SQ_TEST, want, 7), 1);
  sq_task_close(&t);
  t = open_task(IMDB(",\"min_count\":14"));
  const int32_t want14[] = {3, 8, 9, 10, 11, 1, 1};
  assert_int_equal(label_of(t, SQ_TEST, want14, 7), 1);
  sq_task_close(&t);
  for (int i = 0; i < 4; ++i)
    unlink(path_in(dir, (const char *const[]){"train/neg/900_1.txt", "train/neg/901_1.txt",
                                              "train/pos/902_9.txt", "test/pos/903_9.txt"}[i]));
}

static void long_reviews_are_cut_and_do_not_count_beyond(void **state)
{
  char text[200];
  (void)state;
  memset(text, 'a', 63);
  memset(text + 63, 'k', 137); /* behind the cut */
  put("train/neg/900_1.txt", text, 200);
  put("test/neg/900_1.txt", text, 200);
  put("test/pos/900_8.txt", "kk", 2);
  sq_task *t = open_task(IMDB(""));
  int32_t want[T];
  for (int i = 0; i < T; ++i) want[i] = 3;
  assert_int_equal(label_of(t, SQ_TEST, want, T - 1), 0);
  want[0] = want[1] = 1;
  assert_int_equal(label_of(t, SQ_TEST, want, 2), 1);
  assert_int_equal(sq_task_describe(t)->seq_len, T);
  sq_task_close(&t);
  unlink(path_in(dir, "train/neg/900_1.txt"));
  unlink(path_in(dir, "test/neg/900_1.txt"));
  unlink(path_in(dir, "test/pos/900_8.txt"));
}

/* Sum over the examples of a hash, and the positive ones among them: what a set of examples is, in any order. */
static uint64_t set_hash(const sq_task *t, sq_split s, size_t *positive)
{
  const sq_task_ops *ops = sq_task_find("imdb");
  uint64_t sum = 0;
  int32_t token[T], label;
  *positive = 0;
  for (size_t i = 0; i < sq_task_describe(t)->size[s]; ++i) {
    ops->example(t, s, i, token, &label);
    sum += sq_hash(SQ_HASH_START, token, (size_t)ops->length(t, s, i) * sizeof *token);
    *positive += (size_t)label;
  }
  return sum;
}

static void a_tenth_of_each_class_is_for_validation(void **state)
{
  uint64_t valid[3], all[3];
  (void)state;
  for (int seed = 0; seed < 3; ++seed) {
    char json[512];
    size_t positive[2];
    snprintf(json, sizeof json,
             "{\"seed\":%d,\"dataset\":{\"_name_\":\"imdb\",\"data_dir\":\"%s\",\"max_tokens\":64}}", seed,
             dir);
    sq_task *t = open_task(json);
    assert_int_equal(sq_task_describe(t)->size[SQ_TRAIN], 54);
    assert_int_equal(sq_task_describe(t)->size[SQ_VALID], 6);
    assert_int_equal(sq_task_describe(t)->size[SQ_TEST], 60);
    const uint64_t train = set_hash(t, SQ_TRAIN, &positive[0]);
    valid[seed] = set_hash(t, SQ_VALID, &positive[1]);
    assert_int_equal(positive[0], 27);
    assert_int_equal(positive[1], 3);
    all[seed] = train + valid[seed];
    assert_int_equal(sq_task_check_disjoint(t), SQ_OK);
    sq_task_close(&t);
  }
  assert_true(all[0] == all[1] && all[1] == all[2]);
  assert_true(valid[0] != valid[1] && valid[1] != valid[2]);
}

static void few_examples_are_of_both_classes(void **state)
{
  size_t positive;
  (void)state;
  sq_task *t = open_task(IMDB(",\"num_train\":10,\"num_valid\":2,\"num_test\":4"));
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    set_hash(t, (sq_split)s, &positive);
    assert_int_equal(2 * positive, sq_task_describe(t)->size[s]);
  }
  sq_task_close(&t);
}

static void wrong_files_are_named(void **state)
{
  const char *name = "train/pos/17_8.txt";
  (void)state;
  put(name, "abc\xE9 def", 8);
  assert_data_refused(IMDB(""),
                      "train/pos/17_8.txt: byte 3: 0xe9 is not UTF-8 here; expected a review in UTF-8");
  put(name, "", 0);
  assert_data_refused(IMDB(""), "train/pos/17_8.txt: empty file; expected a review in UTF-8");
  unlink(path_in(dir, name));
  assert_int_equal(mkdir(path_in(dir, name), 0700), 0);
  assert_data_refused(IMDB(""), "train/pos/17_8.txt: a folder; expected a review in UTF-8");
  assert_int_equal(rmdir(path_in(dir, name)), 0);
  put(name, "aba", 3);
  assert_data_refused(IMDB(",\"vocab_size\":6"),
                      "the training texts give a vocabulary of 8; expected at most 6 (dataset.vocab_size)");
  assert_int_equal(rename(path_in(dir, "test/neg"), path_in(dir, "elsewhere")), 0);
  assert_data_refused(IMDB(""), "test/neg: cannot be opened: No such file or directory; expected a folder of "
                                "reviews");
  assert_int_equal(mkdir(path_in(dir, "test/neg"), 0700), 0);
  assert_data_refused(IMDB(""), "test/neg: no file *.txt in it; expected reviews ID_RATING.txt");
  assert_int_equal(rmdir(path_in(dir, "test/neg")), 0);
  assert_int_equal(rename(path_in(dir, "elsewhere"), path_in(dir, "test/neg")), 0);
  assert_data_refused("{\"dataset\":{\"_name_\":\"imdb\",\"data_dir\":\"/nowhere\"}}",
                      "task imdb: no train/pos in /nowhere/aclImdb, /nowhere; expected");
}

static void known_figures_of_the_subset_come_out(void **state)
{
  (void)state;
  need_shared("aclImdb/train/pos");
  char *text = check_text("imdb", SHARED);
  assert_line(text, "train", "2000 1000 1000 | 116 1314.8 7382 | 116 1315.1 7382 | 57 197");
  assert_line(text, "test", "1000 500 500 | 180 1310.5 6265 | 180 1310.8 6275 | 29 95");
  assert_line(text, "vocabulary", "95: 138 distinct characters in training, 92 seen at least 15");
  assert_line(text, "unknown in train:", "226 of 2576015");
  assert_line(text, "unknown in test:", "91 of 1285363");
  assert_line(text, "repeated", "1 within");
  assert_line(text, "checksum", "0e823dd4e71af44975417f13ed60affba079349eaf885c68542f6be5eab622cc");
  free(text);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  make_imdb(dir, N);
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(characters_become_ids_by_falling_count),
      cmocka_unit_test(long_reviews_are_cut_and_do_not_count_beyond),
      cmocka_unit_test(a_tenth_of_each_class_is_for_validation),
      cmocka_unit_test(few_examples_are_of_both_classes),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(known_figures_of_the_subset_come_out),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
