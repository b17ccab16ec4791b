/* tests/task_test.h: what the tests of the tasks share: configurations, folders, chi-square. */
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/config.h"
#include "sq/task.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Keys that other modules declare and the tasks read. */
static const sq_key foreign_key[] = {
    {"seed", SQ_KEY_INT, "1", 0, 2147483647, NULL, "seed"},
    {"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, "corrected|published", "recipe"},
};
static const sq_keyset foreign = {"", foreign_key, COUNT(foreign_key), NULL};

/* Loads one cell; the caller destroys *e. */
static inline sq_status load_cell(const char *json, sq_experiment **e)
{
  const sq_keyset *set[24] = {&foreign};
  const sq_schema schema = {set, 1 + sq_task_keysets(set + 1, 23)};
  sq_error_clear();
  return sq_experiment_parse(&schema, json, "test", e);
}

static inline sq_task *open_task(const char *json)
{
  sq_experiment *e = NULL;
  sq_task *t = NULL;
  sq_status st = load_cell(json, &e);
  if (st == SQ_OK) st = sq_task_open(sq_experiment_cell(e, 0), &t);
  if (st != SQ_OK) fail_msg("cannot open %s: %s", json, sq_error_text());
  sq_experiment_destroy(&e);
  return t;
}

/* Pearson's statistic against expected[] (same total), as a standard normal (Wilson and Hilferty 1931).  The
   draws are fixed by the seeds, so a test passes always or never; below 4.75 means a chance of 1e-6 for a
   right program. */
#define CHI_LIMIT 4.75
static inline double chi_normal(const double *observed, const double *expected, int n, int dof)
{
  double x = 0;
  for (int i = 0; i < n; ++i) x += (observed[i] - expected[i]) * (observed[i] - expected[i]) / expected[i];
  const double v = 2.0 / (9.0 * dof);
  return (cbrt(x / dof) - (1 - v)) / sqrt(v);
}

static inline void assert_uniform(const char *what, const double *observed, int n)
{
  double total = 0, expected[4096];
  assert_true(n <= 4096);
  for (int i = 0; i < n; ++i) total += observed[i];
  for (int i = 0; i < n; ++i) expected[i] = total / n;
  const double z = chi_normal(observed, expected, n, n - 1);
  if (!(z < CHI_LIMIT))
    fail_msg("%s: not uniform, z = %.2f over %d cells (limit %.2f)", what, z, n, CHI_LIMIT);
}

static inline void make_folder(char out[64])
{
  snprintf(out, 64, "/tmp/sq_task_XXXXXX");
  assert_non_null(mkdtemp(out));
}

static inline void write_text(const char *path, const char *text, size_t n)
{
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

/* Reference data beside the sources, where they are. */
#define SHARED SQ_SOURCE_DIR "/../shared/data"
static inline void need_shared(const char *file)
{
  char path[512];
  snprintf(path, sizeof path, SHARED "/%s", file);
  if (access(path, R_OK) == 0) return;
  printf("skipped: no %s\n", path);
  skip();
}

/* The text that ops->check prints; fails if it does not succeed.  *owned* */
static inline char *check_text(const char *task, const char *dir)
{
  char *text = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&text, &n);
  assert_non_null(f);
  sq_error_clear();
  const sq_status st = sq_task_find(task)->check(dir, f);
  fclose(f);
  if (st != SQ_OK) fail_msg("%s", sq_error_text());
  return text;
}

/* A line of text that begins with `name` has, after it, exactly these words in front; blanks do not count. */
static inline void assert_line(const char *text, const char *name, const char *words)
{
  const size_t len = strlen(name);
  for (const char *p = text; p != NULL; p = strchr(p, '\n'), p = p != NULL ? p + 1 : NULL) {
    if (strncmp(p, name, len) != 0) continue;
    const char *a = p + len, *b = words;
    for (;;) {
      while (*a == ' ') ++a;
      while (*b == ' ') ++b;
      if (*b == '\0' && (*a == ' ' || *a == '\n' || a[-1] == ' ')) return;
      while (*b != '\0' && *b != ' ' && *a == *b) ++a, ++b;
      if ((*b != ' ' && *b != '\0') || (*a != ' ' && *a != '\n')) break;
    }
  }
  fail_msg("no line \"%s %s\" in\n%s", name, words, text);
}

/* Opening the cell is refused, with these words in one line. */
static inline void assert_data_refused(const char *json, const char *message)
{
  sq_experiment *e = NULL;
  sq_task *t = NULL;
  if (load_cell(json, &e) != SQ_OK) fail_msg("%s", sq_error_text());
  sq_error_clear();
  assert_int_equal(sq_task_open(sq_experiment_cell(e, 0), &t), SQ_ERR_DATA);
  assert_null(t);
  if (strstr(sq_error_text(), message) == NULL || strchr(sq_error_text(), '\n') != NULL)
    fail_msg("got \"%s\", expected \"%s\"", sq_error_text(), message);
  sq_experiment_destroy(&e);
}

/* Removes the three files and the folder; fails if anything else is in it. */
static inline void remove_folder(const char *dir)
{
  char path[256];
  for (int k = 0; k < 3; ++k) {
    snprintf(path, sizeof path, "%s/basic_%s.tsv", dir, (const char *const[]){"train", "val", "test"}[k]);
    unlink(path);
  }
  assert_int_equal(rmdir(dir), 0);
}
