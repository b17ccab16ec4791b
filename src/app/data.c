/* src/app/data.c: `seqspectra data`: make and check data sets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "sq/base.h"
#include "sq/task.h"

static sq_status refuse_existing(const char *dir)
{
  static const char *const name[] = {"basic_train.tsv", "basic_val.tsv", "basic_test.tsv"};
  char path[4096];
  for (int k = 0; k < 3; ++k) {
    if (snprintf(path, sizeof path, "%s/%s", dir, name[k]) >= (int)sizeof path)
      return sq_fail(SQ_ERR_USAGE, "data make listops: --out: path too long");
    if (access(path, F_OK) == 0)
      return sq_fail(SQ_ERR_USAGE,
                     "data make listops: %s exists; choose another --out, or say --force to replace it",
                     path);
  }
  return SQ_OK;
}

static sq_status make_listops(int argc, char **argv)
{
  const char *dir = "./data/listops";
  int seed = 1919, train = 96000, valid = 2000, test = 2000, lo = 500, hi = 2000, depth = 10, args = 10,
      force = 0;
  const sq_option opt[] = {
      {"out", SQ_OPT_TEXT, &dir, 0, 0},          {"seed", SQ_OPT_INT, &seed, 0, 2147483647},
      {"num-train", SQ_OPT_INT, &train, 1, 1e9}, {"num-valid", SQ_OPT_INT, &valid, 1, 1e9},
      {"num-test", SQ_OPT_INT, &test, 1, 1e9},   {"min-length", SQ_OPT_INT, &lo, 0, 1e6},
      {"max-length", SQ_OPT_INT, &hi, 2, 1e6},   {"max-depth", SQ_OPT_INT, &depth, 1, 256},
      {"max-args", SQ_OPT_INT, &args, 2, 1000},  {"force", SQ_OPT_FLAG, &force, 0, 0},
  };
  const double start = sq_wall_s();
  sq_status st;

  SQ_TRY(sq_args_parse("data make listops", argc, argv, opt, sizeof opt / sizeof *opt, "", 0, 0, NULL));
  const size_t size[SQ_NSPLIT] = {(size_t)train, (size_t)valid, (size_t)test};
  st = sq_listops_make_check(lo, hi, depth, args, size);
  if (st != SQ_OK) SQ_TRY(sq_fail_in(st, "data make listops"));
  if (!force) SQ_TRY(refuse_existing(dir));
  sq_note("making %d + %d + %d expressions", train, valid, test);
  st = sq_listops_make(dir, (uint64_t)seed, lo, hi, depth, args, size);
  if (st != SQ_OK) SQ_TRY(sq_fail_in(st, "data make listops"));
  printf("%s: basic_{train,val,test}.tsv with %d, %d and %d rows in %.1f s\n", dir, train, valid, test,
         sq_wall_s() - start);
done:
  return st;
}

/* The task `name`, which must have files if `files`. */
static sq_status find_task(const char *command, const char *name, int files, const sq_task_ops **ops)
{
  char choices[512] = "";
  for (int i = 0; sq_task_at(i) != NULL; ++i)
    if (!files || sq_task_at(i)->check != NULL)
      sq_format(choices + strlen(choices), sizeof choices - strlen(choices), "%s%s",
                *choices != '\0' ? "|" : "", sq_task_at(i)->name);
  *ops = sq_task_find(name);
  if (*ops != NULL && files && (*ops)->check == NULL)
    return sq_fail(SQ_ERR_USAGE, "%s %s: %s is made while training and has no files; %s have", command, name,
                   name, choices);
  return sq_args_choice(command, "task", name, choices);
}

static sq_status check(int argc, char **argv)
{
  const sq_task_ops *ops;
  sq_words w = {.n = 0};
  sq_status st;

  SQ_TRY(sq_args_parse("data check", argc, argv, NULL, 0, "TASK [DIR]", 1, 2, &w));
  SQ_TRY(find_task("data check", w.v[0], 1, &ops));
  SQ_TRY(ops->check(w.n > 1 ? w.v[1] : sq_data_default_dir(), stdout));
done:
  return st;
}

static sq_status info(int argc, char **argv)
{
  const sq_task_ops *ops;
  sq_words w = {.n = 0};
  sq_status st;

  SQ_TRY(sq_args_parse("data info", argc, argv, NULL, 0, "TASK", 1, 1, &w));
  SQ_TRY(find_task("data info", w.v[0], 0, &ops));
  printf("%s: %s\n", ops->name, ops->about);
  for (int i = 0; i < ops->keys->nkey; ++i) {
    const sq_key *k = &ops->keys->key[i];
    const char *value = k->fallback == NULL                ? "required"
                        : strcmp(k->fallback, "null") == 0 ? "-"
                                                           : k->fallback;
    printf("  %-26s %-12s %s%s%s\n", k->path, value, k->doc, k->choices != NULL ? ": " : "",
           k->choices != NULL ? k->choices : "");
  }
done:
  return st;
}

static sq_status tokenize(int argc, char **argv)
{
  const char *dir = sq_data_default_dir();
  const sq_option opt[] = {{"data", SQ_OPT_TEXT, &dir, 0, 0}};
  sq_words w = {.n = 0};
  sq_status st;

  SQ_TRY(sq_args_parse("data tokenize", argc, argv, opt, sizeof opt / sizeof *opt, "FILE", 1, 1, &w));
  SQ_TRY(sq_tokenize_file(dir, w.v[0], stdout));
done:
  return st;
}

sq_status sq_app_data(int argc, char **argv)
{
  if (argc == 0 || strcmp(argv[0], "--help") == 0) {
    sq_help_print(sq_command_find("data"), stdout);
    return SQ_OK;
  }
  sq_status st;

  SQ_TRY(sq_args_choice("data", "action", argv[0], "make|check|info|tokenize"));
  if (strcmp(argv[0], "tokenize") == 0) return tokenize(argc - 1, argv + 1);
  if (argc == 1)
    return sq_fail(SQ_ERR_USAGE, "data %s: no task; expected: data %s listops", argv[0], argv[0]);
  if (strcmp(argv[0], "check") == 0) return check(argc - 1, argv + 1);
  if (strcmp(argv[0], "info") == 0) return info(argc - 1, argv + 1);
  if (sq_task_find(argv[1]) != NULL && strcmp(argv[1], "listops") != 0)
    return sq_fail(SQ_ERR_USAGE, "data make %s: only listops can be made as files", argv[1]);
  SQ_TRY(sq_args_choice("data make", "task", argv[1], "listops"));
  st = make_listops(argc - 2, argv + 2);
done:
  return st;
}
