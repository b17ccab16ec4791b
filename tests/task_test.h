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
  const sq_keyset *set[8] = {&foreign};
  const sq_schema schema = {set, 1 + sq_task_keysets(set + 1, 7)};
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
