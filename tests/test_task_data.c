/* tests/test_task_data.c: the words after `seqspectra data`. */
#include "task_test.h"

#include "../src/app/app.h"

/* The help texts belong to the whole program, which this test does not link. */
const sq_command *sq_command_find(const char *name)
{
  (void)name;
  return NULL;
}

void sq_help_print(const sq_command *c, FILE *out)
{
  (void)c;
  fputs("help\n", out);
}

static sq_status run(const char *line)
{
  char copy[512], *argv[32], *rest = copy;
  int argc = 0;
  snprintf(copy, sizeof copy, "%s", line);
  for (char *w; (w = strsep(&rest, " ")) != NULL;)
    if (*w != '\0') argv[argc++] = w;
  sq_error_clear();
  return sq_app_data(argc, argv);
}

static void wrong_words_are_refused_with_what_there_is(void **state)
{
  static const struct {
    const char *line, *message;
  } bad[] = {
      {"mak listops", "data: unknown action \"mak\": expected make|check|info|tokenize (did you mean make?)"},
      {"make", "data make: no task; expected: data make listops"},
      {"make mqar", "data make mqar: only listops can be made as files"},
      {"check mqar", "data check mqar: mqar is made while training and has no files; listops|"},
      {"check listop", "data check: unknown task \"listop\": expected listops|"},
      {"info imbd", "data info: unknown task \"imbd\": expected listops|mqar|"},
      {"info", "data info: no task"},
      {"tokenize", "data tokenize: "},
      {"check listops a b", "data check: unexpected \"b\""},
      {"make listops --seeed 3", "data make listops: unknown option --seeed (did you mean --seed?)"},
      {"make listops --seed x", "data make listops: --seed=x: expected an integer from 0 to 2.14748e+09"},
      {"make listops --num-train 0", "data make listops: --num-train=0: expected an integer from 1 to 1e+09"},
      {"make listops extra", "data make listops: unexpected \"extra\""},
      {"make listops --min-length 600 --max-length 601 --out /nonexistent/sq",
       "data make listops: min_length: 600; expected 0..max_length - 2 = 599, since min_length < length < "
       "max_length"},
      {"make listops --out " SQ_SOURCE_DIR "/tests/fixtures/listops",
       "data make listops: " SQ_SOURCE_DIR
       "/tests/fixtures/listops/basic_train.tsv exists; choose another --out, or say --force "
       "to replace it"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(bad); ++i) {
    assert_int_equal(run(bad[i].line), SQ_ERR_USAGE);
    if (strncmp(sq_error_text(), bad[i].message, strlen(bad[i].message)) != 0)
      fail_msg("data %s: got \"%s\", expected \"%s\"", bad[i].line, sq_error_text(), bad[i].message);
  }
}

static void every_task_says_what_it_is(void **state)
{
  (void)state;
  for (int i = 0; sq_task_at(i) != NULL; ++i) {
    char line[64];
    snprintf(line, sizeof line, "info %s", sq_task_at(i)->name);
    assert_non_null(sq_task_at(i)->about);
    assert_int_equal(run(line), SQ_OK);
  }
}

static void what_is_made_passes_the_check(void **state)
{
  char dir[64], line[256];
  (void)state;
  make_folder(dir);
  snprintf(line, sizeof line,
           "make listops --out %s --num-train=30 --num-valid 5 --num-test 5 --min-length 5 --max-length 50 "
           "--seed 3",
           dir);
  assert_int_equal(run(line), SQ_OK);
  assert_int_equal(run(line), SQ_ERR_USAGE); /* the files are there */
  strcat(line, " --force");
  assert_int_equal(run(line), SQ_OK);
  snprintf(line, sizeof line, "check listops %s", dir);
  assert_int_equal(run(line), SQ_OK);
  remove_folder(dir);
  assert_int_equal(run(line), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "no basic_train.tsv in"));
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(wrong_words_are_refused_with_what_there_is),
      cmocka_unit_test(every_task_says_what_it_is),
      cmocka_unit_test(what_is_made_passes_the_check),
  };
  return cmocka_run_group_tests(test, NULL, NULL);
}
