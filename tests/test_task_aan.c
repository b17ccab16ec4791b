/* tests/test_task_aan.c: pairs of texts: bytes, batches with and without padding, wrong files. */
#include "task_fixture.h"

enum { T = 12 };

static const char *cell(const char *more)
{
  static char json[512];
  snprintf(json, sizeof json,
           "{\"seed\":7,\"dataset\":{\"_name_\":\"aan\",\"data_dir\":\"%s\",\"max_tokens\":%d%s}}", dir, T,
           more);
  return json;
}

static void put(const char *part, const char *text)
{
  char name[64];
  snprintf(name, sizeof name, "new_aan_pairs.%s.tsv", part);
  write_text(path_in(dir, name), text, strlen(text));
}

static void put_good(void)
{
  put("train", "0\tP01\tP02\tab\tcde\n1.0\tP03\tP04\t0123456789abcdef\t\xC3\xA9\n1\tP05\tP06\t\tx\n");
  put("eval", "0.0\tP07\tP08\tq\tr\n");
  put("test", "1\tP09\tP10\tsame\tsame\n0\tP11\tP12\tz\tyy\n");
}

static void texts_become_bytes_and_are_cut(void **state)
{
  const sq_task_ops *ops = sq_task_find("aan");
  int32_t token[2 * T], label;
  (void)state;
  sq_task *t = open_task(cell(""));
  const sq_task_info *info = sq_task_describe(t);
  assert_int_equal(info->size[SQ_TRAIN], 3);
  assert_int_equal(info->size[SQ_VALID], 1);
  assert_int_equal(info->size[SQ_TEST], 2);
  assert_int_equal(info->dual, 1);
  ops->example(t, SQ_TRAIN, 0, token, &label);
  const int32_t want[] = {'a' + 1, 'b' + 1, 'c' + 1, 'd' + 1, 'e' + 1};
  assert_int_equal(ops->length(t, SQ_TRAIN, 0), 5);
  assert_int_equal(ops->first_length(t, SQ_TRAIN, 0), 2);
  assert_memory_equal(token, want, sizeof want);
  assert_int_equal(label, 0);
  ops->example(t, SQ_TRAIN, 1, token, &label);
  assert_int_equal(ops->first_length(t, SQ_TRAIN, 1), T);
  assert_int_equal(ops->length(t, SQ_TRAIN, 1), T + 2);
  assert_int_equal(token[T - 1], 'b' + 1);
  assert_int_equal(token[T], 0xC3 + 1);
  assert_int_equal(label, 1);
  ops->example(t, SQ_TRAIN, 2, token, &label);
  assert_int_equal(ops->length(t, SQ_TRAIN, 2), 2); /* no bytes: one <pad> */
  assert_int_equal(token[0], 0);
  assert_int_equal(token[1], 'x' + 1);
  assert_int_equal(sq_task_check_disjoint(t), SQ_OK);
  sq_task_close(&t);
  t = open_task(cell(",\"num_train\":2"));
  assert_int_equal(sq_task_describe(t)->size[SQ_TRAIN], 2);
  sq_task_close(&t);
}

/* Sequence q of the batch is sequence q % 2 of example index[q / 2], whatever the padding. */
static void batches_hold_both_sequences_of_a_pair(void **state)
{
  const sq_task_ops *ops = sq_task_find("aan");
  const sq_padding pad[] = {SQ_PAD_NONE, SQ_PAD_LONGEST, SQ_PAD_FULL};
  const size_t index[] = {2, 0, 1};
  (void)state;
  sq_task *t = open_task(cell(""));
  void *store = malloc(sq_task_batch_bytes(sq_task_describe(t), 3));
  for (int k = 0; k < 3; ++k) {
    sq_batch b;
    sq_task_batch(t, SQ_TRAIN, 3, index, pad[k], store, &b);
    assert_int_equal(b.rows.nseq, 6);
    assert_int_equal(b.dual, 1);
    for (int q = 0; q < 6; ++q) {
      int32_t token[2 * T], label;
      const int first = ops->first_length(t, SQ_TRAIN, index[q / 2]),
                all = ops->length(t, SQ_TRAIN, index[q / 2]);
      const int n = q % 2 == 0 ? first : all - first, steps = b.rows.off[q + 1] - b.rows.off[q];
      ops->example(t, SQ_TRAIN, index[q / 2], token, &label);
      assert_int_equal(b.label[q / 2], label);
      assert_int_equal(steps, pad[k] == SQ_PAD_NONE ? n : T); /* the longest has T */
      assert_memory_equal(b.token + b.rows.off[q], token + (q % 2 == 0 ? 0 : first),
                          (size_t)n * sizeof *token);
      for (int i = n; i < steps; ++i) assert_int_equal(b.token[b.rows.off[q] + i], 0);
      if (pad[k] == SQ_PAD_FULL) assert_int_equal(b.rows.len[q], n);
    }
  }
  free(store);
  sq_task_close(&t);
}

static void wrong_files_are_named(void **state)
{
  static const struct {
    const char *text, *message;
  } bad[] = {
      {"0\ta\tb\tc\n", "new_aan_pairs.eval.tsv:1: 4 columns; expected 5, rows label<TAB>id1"},
      {"0\ta\tb\tc\td\n1\ta\tb\tc\td\te\n", "new_aan_pairs.eval.tsv:2: 6 columns; expected 5"},
      {"0\ta\tb\tc\td\n1\ta\tb",
       "2: 3 columns; expected 5, rows label<TAB>id1<TAB>id2<TAB>text1<TAB>text2 (last line "
       "without a line end: file cut short?)"},
      {"2\ta\tb\tc\td\n", "new_aan_pairs.eval.tsv:1: label \"2\"; expected 0 or 1"},
      {"0.5\ta\tb\tc\td\n", "1: label \"0.5\"; expected 0 or 1"},
      {"\ta\tb\tc\td\n", "1: label \"\"; expected 0 or 1"},
      {"nan\ta\tb\tc\td\n", "1: label \"nan\"; expected 0 or 1"},
      {"0\ta\tb\tc\td\r\n1\ta\tb\tc\td\n", ":2: line ends in LF, the line above in CR LF; expected one kind"},
      {"0\ta\tb\tc\td\n\n", ":2: 1 column; expected 5"},
      {"", "new_aan_pairs.eval.tsv: empty file; expected rows label"},
  };
  (void)state;
  for (size_t k = 0; k < COUNT(bad); ++k) {
    put("eval", bad[k].text);
    assert_data_refused(cell(""), bad[k].message);
  }
  unlink(path_in(dir, "new_aan_pairs.eval.tsv"));
  assert_data_refused(cell(""), "new_aan_pairs.eval.tsv: cannot be opened: No such file or directory");
  put_good();
}

static void check_prints_counts(void **state)
{
  (void)state;
  char *text = check_text("aan", dir);
  assert_line(text, "new_aan_pairs.train.tsv", "3 1 2 4.0 16 0 1");
  assert_line(text, "new_aan_pairs.test.tsv", "2 1 1");
  free(text);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  put_good();
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(texts_become_bytes_and_are_cut),
      cmocka_unit_test(batches_hold_both_sequences_of_a_pair),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(check_prints_counts),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
