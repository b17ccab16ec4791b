/* tests/test_task_files.c: ListOps files: what is written is read, what is wrong is named. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "task_test.h"

#include "../src/task/listops_impl.h"

static const size_t every[SQ_NSPLIT] = {SIZE_MAX, SIZE_MAX, SIZE_MAX};

/* ---- round trips ----------------------------------------------------------------------------------------
 */

static void assert_same_task(const sq_task *a, const sq_task *b)
{
  const sq_task_info *ia = sq_task_describe(a), *ib = sq_task_describe(b);
  const sq_task_ops *ops = sq_task_find("listops");
  int32_t token[2][2048], label[2];
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    assert_int_equal(ia->size[s], ib->size[s]);
    for (size_t i = 0; i < ia->size[s]; ++i) {
      const int n = ops->length(a, (sq_split)s, i);
      assert_int_equal(n, ops->length(b, (sq_split)s, i));
      ops->example(a, (sq_split)s, i, token[0], &label[0]);
      ops->example(b, (sq_split)s, i, token[1], &label[1]);
      assert_memory_equal(token[0], token[1], (size_t)n * sizeof **token);
      assert_int_equal(token[0][n - 1], LISTOPS_EOS);
      assert_int_equal(label[0], label[1]);
    }
  }
}

static void round_trip(const char *window, int lo, int hi, int depth, int args, const char *sub)
{
  const size_t size[SQ_NSPLIT] = {200, 30, 20};
  char dir[64], out[128], json[512];
  make_folder(dir);
  snprintf(out, sizeof out, "%s%s", dir, sub);
  sq_error_clear();
  if (sq_listops_make(out, 77, lo, hi, depth, args, size) != SQ_OK) fail_msg("%s", sq_error_text());
  snprintf(json, sizeof json,
           "{\"seed\":77,\"dataset\":{\"_name_\":\"listops\",\"source\":\"generate\",%s,\"num_train\":200,"
           "\"num_valid\":30,"
           "\"num_test\":20}}",
           window);
  sq_task *made = open_task(json);
  snprintf(json, sizeof json,
           "{\"dataset\":{\"_name_\":\"listops\",\"data_dir\":\"%s\",\"num_train\":200,\"num_valid\":30,"
           "\"num_test\":20}}",
           dir);
  sq_task *read = open_task(json);
  assert_same_task(made, read);
  assert_int_equal(sq_task_check_disjoint(read), SQ_OK);
  sq_task_close(&made);
  sq_task_close(&read);
  remove_folder(out);
  if (*sub != '\0') assert_int_equal(rmdir(dir), 0);
}

static void files_hold_exactly_what_is_made_in_memory(void **state)
{
  (void)state;
  round_trip("\"min_length\":500", 500, 2000, 10, 10, "/listops");
  round_trip("\"min_length\":3,\"max_length\":40,\"max_depth\":4,\"max_args\":5", 3, 40, 4, 5, "");
  round_trip("\"min_length\":0,\"max_length\":200,\"max_depth\":6,\"max_args\":3", 0, 200, 6, 3, "/listops");
}

static void fewer_rows_are_used_when_fewer_are_asked_for(void **state)
{
  (void)state;
  sq_task *t = open_task("{\"dataset\":{\"_name_\":\"listops\",\"data_dir\":\"" SQ_SOURCE_DIR
                         "/tests/fixtures/listops\",\"num_train\":7,\"num_valid\":3,\"num_test\":2}}");
  const sq_task_info *info = sq_task_describe(t);
  assert_int_equal(info->size[SQ_TRAIN], 7);
  assert_int_equal(info->size[SQ_VALID], 3);
  assert_int_equal(info->size[SQ_TEST], 2);
  assert_int_equal(info->seq_len, 2048);
  sq_task_close(&t);
}

static void long_sequences_are_cut_and_keep_their_label(void **state)
{
  (void)state;
  sq_task *whole = open_task(
      "{\"dataset\":{\"_name_\":\"listops\",\"source\":\"generate\",\"min_length\":5,\"max_length\":60,"
      "\"num_train\":100,\"num_valid\":10,\"num_test\":10}}");
  sq_task *cut = open_task(
      "{\"dataset\":{\"_name_\":\"listops\",\"source\":\"generate\",\"min_length\":5,\"max_length\":60,"
      "\"num_train\":100,\"num_valid\":10,\"num_test\":10,\"max_tokens\":20}}");
  const sq_task_ops *ops = sq_task_find("listops");
  int32_t token[2][60], label[2];
  int ncut = 0;
  assert_int_equal(sq_task_describe(whole)->seq_len, 60);
  assert_int_equal(sq_task_describe(cut)->seq_len, 20);
  for (size_t i = 0; i < 100; ++i) {
    const int n = ops->length(whole, SQ_TRAIN, i), m = ops->length(cut, SQ_TRAIN, i);
    assert_in_range(n, 7, 60);
    assert_int_equal(m, n < 20 ? n : 20);
    ncut += n > 20;
    ops->example(whole, SQ_TRAIN, i, token[0], &label[0]);
    ops->example(cut, SQ_TRAIN, i, token[1], &label[1]);
    assert_int_equal(token[1][m - 1], LISTOPS_EOS);
    assert_int_equal(label[0], label[1]);
  }
  assert_in_range(ncut, 10, 99);
  sq_task_close(&whole);
  sq_task_close(&cut);
}

/* Reads, evaluates and prints every row of a file again: the same bytes. */
static void assert_reprinted(const char *path, const listops_set *s, sq_split split)
{
  size_t bytes, longest = 0;
  sq_status st;
  char *text = sq_read_file(path, &bytes, &st), *p = text;
  assert_non_null(text);
  for (size_t i = 0; i < s->n; ++i)
    longest = s->off[i + 1] - s->off[i] > longest ? s->off[i + 1] - s->off[i] : longest;
  char *row = malloc(sq_listops_text_bytes(longest) + 8);
  int *narg = malloc(longest * sizeof *narg);
  assert_memory_equal(p, "Source\tTarget\r\n", 15);
  p += 15;
  for (size_t i = s->first[split]; i < s->first[split + 1]; ++i) {
    size_t n = sq_listops_print(s->code + s->off[i], s->off[i + 1] - s->off[i], narg, row);
    n += (size_t)sprintf(row + n, "\t%d\r\n", s->value[i]);
    assert_true((size_t)(text + bytes - p) >= n);
    if (memcmp(p, row, n) != 0) fail_msg("%s: row %zu is not printed as it was", path, i - s->first[split]);
    p += n;
  }
  assert_ptr_equal(p, text + bytes);
  free(row);
  free(narg);
  free(text);
}

static void assert_folder_reprinted(const char *dir)
{
  listops_set s = {0};
  char path[512];
  sq_error_clear();
  if (sq_listops_read(dir, every, &s) != SQ_OK) fail_msg("%s", sq_error_text());
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    snprintf(path, sizeof path, "%s/%s", dir, sq_listops_file[k]);
    assert_reprinted(path, &s, (sq_split)k);
  }
  sq_listops_clear(&s);
}

static void rows_of_the_original_generator_are_reprinted_byte_for_byte(void **state)
{
  const char *dir = SQ_SOURCE_DIR "/../shared/data/listops";
  (void)state;
  assert_folder_reprinted(SQ_SOURCE_DIR "/tests/fixtures/listops");
  if (access(dir, R_OK) != 0) {
    print_message("skipped in part: %s is not there\n", dir);
    return;
  }
  assert_folder_reprinted(dir);
  /* Counts of the 15 tokens in its training part. */
  static const size_t known[LISTOPS_NCODE] = {73455, 73747, 73502,  74057, 73781, 74106, 74041, 74294,
                                              73654, 73240, 146888, 36693, 36647, 36520, 37028};
  listops_set s = {0};
  uint8_t id[LISTOPS_NCODE];
  size_t count[LISTOPS_NCODE];
  assert_int_equal(sq_listops_read(dir, every, &s), SQ_OK);
  sq_listops_vocabulary(&s, 2048, id, count);
  for (int c = 0; c < LISTOPS_NCODE; ++c) assert_int_equal(count[c], known[c]);
  assert_int_equal(id[LISTOPS_CLOSE], 3);
  assert_int_equal(id[7], 4);
  assert_int_equal(id[9], 13);
  assert_int_equal(id[LISTOPS_MIN], 17);
  sq_listops_clear(&s);
}

static char *slurp(const char *dir, const char *name, size_t *n)
{
  char path[512];
  sq_status st;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  char *text = sq_read_file(path, n, &st);
  assert_non_null(text);
  return text;
}

/* The fixture is `data make listops --seed 7 --num-train 40 --num-valid 10 --num-test 10 --min-length 5
   --max-length 60`: same seed, same files, in every later version too. */
static void the_same_seed_makes_the_same_files(void **state)
{
  const size_t size[SQ_NSPLIT] = {40, 10, 10};
  char dir[64];
  (void)state;
  make_folder(dir);
  assert_int_equal(sq_listops_make(dir, 7, 5, 60, 10, 10, size), SQ_OK);
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    size_t n, m;
    char *made = slurp(dir, sq_listops_file[k], &n),
         *kept = slurp(SQ_SOURCE_DIR "/tests/fixtures/listops", sq_listops_file[k], &m);
    assert_int_equal(n, m);
    assert_memory_equal(made, kept, n);
    free(made);
    free(kept);
  }
  remove_folder(dir);
}

/* ---- files that are wrong -------------------------------------------------------------------------------
 */

#define HEAD "Source\tTarget\n"
#define GOOD "( ( ( [MAX 3 ) 4 ) ] )\t4\n"
#define ROW(s)                                                                                               \
  {                                                                                                          \
    HEAD GOOD s, sizeof(HEAD GOOD s) - 1, NULL                                                               \
  }

typedef struct {
  const char *text;
  size_t n;
  const char *message; /* after the path; NULL: the file is fine */
} file_case;
#define BAD(text, message)                                                                                   \
  {                                                                                                          \
    text, sizeof(text) - 1, message                                                                          \
  }
#define TOKENS  "; expected 0..9, [MAX, [MED, [MIN, [SM, ], ( or )"
#define COLUMNS "; expected 2, an expression, a tab and its value"
#define CUT     " (last line without a line end: file cut short?)"

static const file_case cases[] = {
    ROW(""),
    ROW("( ( ( [MIN 3 ) 4 ) ] )\t3\r\n"),
    ROW("( ( ( [MIN 3 ) 4 ) ] )\t3"), /* no line end, but complete */
    ROW("  [MIN  3 4 ]  \t3\n"),      /* no parentheses */
    ROW("7\t7\n"),
    BAD("", ": empty file; expected the header \"Source<TAB>Target\" and rows"),
    BAD(HEAD, ": no rows after the header"),
    BAD("\n", ":1: no header; expected \"Source<TAB>Target\", found \"\""),
    BAD(GOOD, ":1: no header; expected \"Source<TAB>Target\", found \"( ( ( [MAX 3 ) 4 ) ] )?4\""),
    BAD("Source,Target\n" GOOD, ":1: no header; expected \"Source<TAB>Target\", found \"Source,Target\""),
    BAD(HEAD GOOD "( ( ( [MAX 3 ) 4 ) ] )\n", ":3: 1 column" COLUMNS),
    BAD(HEAD GOOD "\n" GOOD, ":3: 1 column" COLUMNS),
    BAD(HEAD GOOD "( ( ( [MAX 3 ) 4 ) ] )\t4\t5\n", ":3: 3 columns" COLUMNS),
    BAD(HEAD GOOD "( ( ( [MAX 3 ) 4", ":3: 1 column" COLUMNS CUT),
    BAD(HEAD GOOD "( ( ( [MAX 3 ) 4 ) ] )\t", ":3: target \"\"; expected one digit 0..9" CUT),
    BAD(HEAD GOOD "( ( ( [AVG 3 ) 4 ) ] )\t4\n", ":3: unknown token \"[AVG\" at item 4" TOKENS),
    BAD(HEAD GOOD "( ( ( [MAX 3 ) 14 ) ] )\t4\n", ":3: unknown token \"14\" at item 7" TOKENS),
    BAD(HEAD "( [MAX \x01\xff )\t4\n", ":2: unknown token \"??\" at item 3" TOKENS),
    BAD(HEAD "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\t4\n",
        ":2: unknown token \"aaaaaaaaaaaaaaaaaaaaaaaa...\" at item 1" TOKENS),
    BAD(HEAD "7\r\r\n", ":2: 1 column" COLUMNS),
    BAD(HEAD "7\t7\r\r\n", ":2: target \"7?\"; expected one digit 0..9"),
    BAD(HEAD "7\t12\n", ":2: target \"12\"; expected one digit 0..9"),
    BAD(HEAD "7\t-1\n", ":2: target \"-1\"; expected one digit 0..9"),
    BAD(HEAD "7\tx\n", ":2: target \"x\"; expected one digit 0..9"),
    BAD(HEAD "7\t8\n", ":2: target 8, but the expression's value is 7"),
    BAD(HEAD "\t8\n", ":2: no expression; expected one complete expression"),
    BAD(HEAD "7 8\t8\n", ":2: more than one expression; expected one complete expression"),
    BAD(HEAD "( ( [MAX 3 ) 4 ) ] )\t4\n", ":2: unbalanced parentheses: ) without ( at item 9"),
    BAD(HEAD "( ( ( ( [MAX 3 ) 4 ) ] )\t4\n", ":2: unbalanced parentheses: 1 not closed"),
    BAD(HEAD "( ( [MAX 3 ) 4 )\t4\n",
        ":2: unbalanced brackets: an operator is not closed; expected one complete expression"),
    BAD(HEAD "( 4 ] )\t4\n", ":2: more than one expression; expected one complete expression"),
    BAD(HEAD "( ] )\t4\n",
        ":2: unbalanced brackets: ] without an operator; expected one complete expression"),
    BAD(HEAD "( [SM ] )\t4\n", ":2: operator without arguments; expected one complete expression"),
    BAD(HEAD "7\t7\n7\0\t7\n", ":3: NUL byte in column 2; expected text"),
};

static void every_fault_of_a_file_is_named_with_its_line(void **state)
{
  char dir[64], path[128], want[512];
  (void)state;
  make_folder(dir);
  snprintf(path, sizeof path, "%s/basic_train.tsv", dir);
  for (size_t i = 0; i < COUNT(cases); ++i) {
    listops_set s = {0};
    write_text(path, cases[i].text, cases[i].n);
    sq_error_clear();
    const sq_status st = sq_listops_read_file(path, SIZE_MAX, &s, SQ_TRAIN);
    snprintf(want, sizeof want, "%s%s", cases[i].message != NULL ? path : "",
             cases[i].message != NULL ? cases[i].message : "");
    assert_string_equal(sq_error_text(), want);
    assert_int_equal(st, cases[i].message != NULL ? SQ_ERR_DATA : SQ_OK);
    sq_listops_clear(&s);
  }
  remove_folder(dir);
}

static void huge_lines_are_read_or_refused(void **state)
{
  const size_t n = (size_t)LISTOPS_MAX_LINE + (1 << 20);
  char dir[64], path[128], want[256], *text = malloc(n);
  listops_set s = {0};
  (void)state;
  make_folder(dir);
  snprintf(path, sizeof path, "%s/basic_train.tsv", dir);

  memcpy(text, HEAD, sizeof HEAD - 1);
  memset(text + sizeof HEAD - 1, ' ', n - sizeof HEAD + 1);
  write_text(path, text, n);
  sq_error_clear();
  assert_int_equal(sq_listops_read_file(path, SIZE_MAX, &s, SQ_TRAIN), SQ_ERR_DATA);
  snprintf(want, sizeof want, "%s:2: line longer than 16 MiB; expected an expression, a tab and its value",
           path);
  assert_string_equal(sq_error_text(), want);
  sq_listops_clear(&s);

  /* [SM 1 1 1 ...] of 900,000 tokens, in a line longer than the first buffer. */
  char *p = text + sizeof HEAD - 1;
  p += sprintf(p, "[SM");
  for (int i = 0; i < 900000; ++i) p += sprintf(p, " 1");
  p += sprintf(p, " ]\t0\r\n");
  write_text(path, text, (size_t)(p - text));
  sq_error_clear();
  assert_int_equal(sq_listops_read_file(path, SIZE_MAX, &s, SQ_TRAIN), SQ_OK);
  assert_int_equal(s.off[1], 900002);
  sq_listops_clear(&s);
  free(text);
  remove_folder(dir);
}

static sq_status open_in(const char *dir)
{
  char json[512];
  sq_experiment *e = NULL;
  sq_task *t = NULL;
  snprintf(json, sizeof json, "{\"dataset\":{\"_name_\":\"listops\",\"data_dir\":\"%s\"}}", dir);
  assert_int_equal(load_cell(json, &e), SQ_OK);
  const sq_status st = sq_task_open(sq_experiment_cell(e, 0), &t);
  if (st != SQ_OK) assert_null(t);
  sq_task_close(&t);
  sq_experiment_destroy(&e);
  return st;
}

static void missing_files_are_named_with_their_layout_and_where_to_get_them(void **state)
{
  char dir[64], path[128], want[1024];
  (void)state;
  make_folder(dir);
  snprintf(want, sizeof want,
           "task listops: no basic_train.tsv in %s/listops or %s; expected basic_{train,val,test}.tsv with a "
           "header "
           "Source<TAB>Target and rows expression<TAB>value, as in Long Range Arena; make them with: "
           "seqspectra data make "
           "listops --out %s/listops, or set dataset.source=generate",
           dir, dir, dir);
  assert_int_equal(open_in(dir), SQ_ERR_DATA);
  assert_string_equal(sq_error_text(), want);

  snprintf(path, sizeof path, "%s/basic_train.tsv", dir);
  write_text(path, HEAD GOOD, sizeof(HEAD GOOD) - 1);
  assert_int_equal(open_in(dir), SQ_ERR_DATA);
  snprintf(want, sizeof want,
           "%s/basic_val.tsv: cannot be opened: No such file or directory; expected rows "
           "expression<TAB>value under a header "
           "Source<TAB>Target",
           dir);
  assert_string_equal(sq_error_text(), want);

  unlink(path);
  assert_int_equal(mkdir(path, 0700), 0); /* a folder in place of the file */
  assert_int_equal(open_in(dir), SQ_ERR_DATA);
  snprintf(want, sizeof want, "%s: cannot be read: Is a directory", path);
  assert_string_equal(sq_error_text(), want);
  assert_int_equal(rmdir(path), 0);
  remove_folder(dir);
}

static void the_environment_names_the_folder_when_the_configuration_does_not(void **state)
{
  (void)state;
  setenv("SEQSPECTRA_DATA", SQ_SOURCE_DIR "/tests/fixtures", 1);
  sq_task *t = open_task("{\"dataset\":{\"_name_\":\"listops\"}}");
  assert_int_equal(sq_task_describe(t)->size[SQ_TRAIN], 40);
  sq_task_close(&t);
  unsetenv("SEQSPECTRA_DATA");
}

static void a_row_in_two_files_is_found(void **state)
{
  static const char train[] = HEAD GOOD "( ( ( [MAX 5 ) 4 ) ] )\t5\n",
                    valid[] = HEAD "( ( ( [MIN 3 ) 4 ) ] )\t3\n",
                    test[] = HEAD "( ( ( [MED 3 ) 4 ) ] )\t3\n( ( ( [MAX 5 ) 4 ) ] )\t5\n";
  char dir[64], path[3][128];
  FILE *null = fopen("/dev/null", "w");
  (void)state;
  make_folder(dir);
  for (int k = 0; k < SQ_NSPLIT; ++k) snprintf(path[k], sizeof path[k], "%s/%s", dir, sq_listops_file[k]);
  write_text(path[0], train, sizeof train - 1);
  write_text(path[1], valid, sizeof valid - 1);
  write_text(path[2], test, sizeof test - 1);
  sq_error_clear();
  assert_int_equal(sq_listops_check(dir, null), SQ_ERR_DATA);
  assert_string_equal(
      sq_error_text(),
      "task listops: test example 1 has the same input as training example 1; expected no input "
      "sequence twice (duplicate rows in the data files, or too few possible sequences for these "
      "sizes)");
  fclose(null);
  remove_folder(dir);
}

static void check_prints_counts_and_the_vocabulary(void **state)
{
  char *text = NULL;
  size_t n;
  FILE *out = open_memstream(&text, &n);
  (void)state;
  sq_error_clear();
  assert_int_equal(sq_listops_check(SQ_SOURCE_DIR "/tests/fixtures", out), SQ_OK);
  fclose(out);
  assert_non_null(strstr(text, "basic_train.tsv        40"));
  assert_non_null(strstr(text, "basic_test.tsv         10"));
  assert_non_null(strstr(text, "every target equals its expression's value"));
  assert_non_null(strstr(text, "   2  <eos>"));
  assert_non_null(strstr(text, "   3  X"));
  assert_non_null(strstr(text, "no expression occurs twice"));
  free(text);
}

/* ---- writing that fails ---------------------------------------------------------------------------------
 */

static int files_in(const char *dir)
{
  int n = 0;
  DIR *d = opendir(dir);
  assert_non_null(d);
  for (const struct dirent *e; (e = readdir(d)) != NULL;)
    n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
  closedir(d);
  return n;
}

static void a_failed_write_leaves_nothing(void **state)
{
  const size_t size[SQ_NSPLIT] = {300, 10, 10}, small[SQ_NSPLIT] = {2, 2, 2};
  char dir[64], out[128], old[256];
  struct rlimit was, tight;
  (void)state;
  make_folder(dir);
  snprintf(out, sizeof out, "%s/listops", dir);
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
  tight = was;
  tight.rlim_cur = 20000; /* a full disk, as far as write() is concerned */

  assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
  sq_error_clear();
  assert_int_equal(sq_listops_make(out, 1, 50, 500, 10, 10, size), SQ_ERR_IO);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
  assert_non_null(strstr(sq_error_text(), "basic_train.tsv"));
  assert_non_null(strstr(sq_error_text(), "cannot be written: File too large"));
  assert_int_equal(files_in(dir), 0); /* the new folder is gone too */

  /* Files that were there stay as they were. */
  assert_int_equal(sq_listops_make(out, 1, 5, 50, 10, 10, small), SQ_OK);
  size_t n, m;
  char *before = slurp(out, "basic_train.tsv", &n);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
  assert_int_equal(sq_listops_make(out, 1, 50, 500, 10, 10, size), SQ_ERR_IO);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
  assert_int_equal(files_in(out), 3);
  char *after = slurp(out, "basic_train.tsv", &m);
  assert_int_equal(n, m);
  assert_memory_equal(before, after, n);
  free(before);
  free(after);

  snprintf(old, sizeof old, "%s/basic_val.tsv/deeper", out);
  sq_error_clear();
  assert_int_equal(sq_listops_make(old, 1, 5, 50, 10, 10, small), SQ_ERR_IO);
  assert_non_null(strstr(sq_error_text(), "cannot make the folder: Not a directory"));
  remove_folder(out);
  assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(files_hold_exactly_what_is_made_in_memory),
      cmocka_unit_test(fewer_rows_are_used_when_fewer_are_asked_for),
      cmocka_unit_test(long_sequences_are_cut_and_keep_their_label),
      cmocka_unit_test(rows_of_the_original_generator_are_reprinted_byte_for_byte),
      cmocka_unit_test(the_same_seed_makes_the_same_files),
      cmocka_unit_test(every_fault_of_a_file_is_named_with_its_line),
      cmocka_unit_test(huge_lines_are_read_or_refused),
      cmocka_unit_test(missing_files_are_named_with_their_layout_and_where_to_get_them),
      cmocka_unit_test(the_environment_names_the_folder_when_the_configuration_does_not),
      cmocka_unit_test(a_row_in_two_files_is_found),
      cmocka_unit_test(check_prints_counts_and_the_vocabulary),
      cmocka_unit_test(a_failed_write_leaves_nothing),
  };
  return cmocka_run_group_tests(test, NULL, NULL);
}
