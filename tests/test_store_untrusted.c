/* tests/test_store_untrusted.c: files of others.  tests/test_store_readers.py makes them; argv[1] is the
 * folder.  Without it the test makes what it can by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/store.h"

static char dir[256];
static const char *given; /* folder of hostile files, or NULL */

static void expect(sq_status got, sq_status want, const char *text)
{
  if (got != want || strstr(sq_error_text(), text) == NULL)
    print_error("got status %d, '%s'; expected %d with '%s'\n", got, sq_error_text(), want, text);
  assert_int_equal(got, want);
  assert_non_null(strstr(sq_error_text(), text));
  assert_null(strchr(sq_error_text(), '\n'));
  sq_error_clear();
}

static void what_is_written_is_read_back(void **state)
{
  (void)state;
  char path[300];
  sq_h5 *f;
  const size_t shape[2] = {2, 3};
  const double x[6] = {1, 2, 3, 4, 5, 1e300};
  const int64_t n[6] = {1, -2, INT64_MAX, INT64_MIN, 5, 6};
  sq_format(path, sizeof path, "%s/own.h5", dir);
  assert_int_equal(sq_h5_create_file(path, &f), SQ_OK);
  assert_int_equal(sq_h5_write(f, "a/b/x", 2, shape, x), SQ_OK);
  assert_int_equal(sq_h5_write(f, "scalar", 0, NULL, x), SQ_OK);
  assert_int_equal(sq_h5_write_int(f, "a/n", 2, shape, n), SQ_OK);
  char *long_text = malloc(200001);
  memset(long_text, 'x', 200000);
  long_text[200000] = '\0';
  assert_int_equal(sq_h5_write_text_attribute(f, "/", "config", long_text), SQ_OK);
  assert_int_equal(sq_h5_write_text_attribute(f, "a", "empty", ""), SQ_OK);
  assert_int_equal(sq_h5_write_text_attribute(f, "a", "short", "gr\xc3\xbc\xc3\x9f"), SQ_OK);
  assert_int_equal(sq_h5_write_int_attribute(f, "/", "version", -3), SQ_OK);
  assert_int_not_equal(access(path, F_OK), 0); /* not there before it is complete */
  assert_int_equal(sq_h5_close(&f), SQ_OK);
  assert_int_equal(sq_h5_open(path, &f), SQ_OK);
  double *d;
  int64_t *i;
  int ndim, v;
  size_t dim[8];
  char *text, **name;
  assert_int_equal(sq_h5_read(f, "/a/b/x", &d, &ndim, dim), SQ_OK);
  assert_int_equal(ndim, 2);
  assert_int_equal(dim[0], 2);
  assert_int_equal(dim[1], 3);
  assert_memory_equal(d, x, sizeof x);
  free(d);
  assert_int_equal(sq_h5_read(f, "scalar", &d, &ndim, dim), SQ_OK);
  assert_int_equal(ndim, 0);
  assert_true(d[0] == 1);
  free(d);
  assert_int_equal(sq_h5_read_int(f, "a/n", &i, &ndim, dim), SQ_OK);
  assert_memory_equal(i, n, sizeof n);
  free(i);
  assert_int_equal(sq_h5_read_text_attribute(f, "/", "config", &text), SQ_OK);
  assert_string_equal(text, long_text);
  free(text);
  assert_int_equal(sq_h5_read_text_attribute(f, "a", "empty", &text), SQ_OK);
  assert_string_equal(text, "");
  free(text);
  assert_int_equal(sq_h5_read_text_attribute(f, "a", "short", &text), SQ_OK);
  assert_string_equal(text, "gr\xc3\xbc\xc3\x9f");
  free(text);
  assert_int_equal(sq_h5_read_int_attribute(f, "/", "version", &v), SQ_OK);
  assert_int_equal(v, -3);
  assert_int_equal(sq_h5_list(f, "/", &name, &v), SQ_OK);
  assert_int_equal(v, 2);
  assert_string_equal(name[0], "a");
  assert_string_equal(name[1], "scalar");
  free(name[0]);
  free(name[1]);
  free(name);
  assert_true(sq_h5_exists(f, "a/b"));
  assert_false(sq_h5_exists(f, "a/c"));
  expect(sq_h5_read_int(f, "scalar", &i, &ndim, dim), SQ_ERR_DATA, "holds real numbers; expected integers");
  expect(sq_h5_read(f, "a/b", &d, &ndim, dim), SQ_ERR_DATA, "cannot be opened as a data set");
  expect(sq_h5_read(f, "zzz", &d, &ndim, dim), SQ_ERR_DATA, "no data set zzz");
  expect(sq_h5_read_int_attribute(f, "/", "config", &v), SQ_ERR_DATA, "expected an integer");
  expect(sq_h5_read_text_attribute(f, "/", "version", &text), SQ_ERR_DATA, "expected text");
  expect(sq_h5_read_text_attribute(f, "/", "zzz", &text), SQ_ERR_DATA, "has no attribute 'zzz'");
  assert_int_equal(sq_h5_close(&f), SQ_OK);
  free(long_text);
  unlink(path);
}

static void files_that_are_not_hdf5_are_refused(void **state)
{
  (void)state;
  char path[300];
  sq_h5 *f;
  sq_results *r;
  sq_format(path, sizeof path, "%s/text", dir);
  FILE *t = fopen(path, "w");
  assert_non_null(t);
  fputs("hello", t);
  fclose(t);
  expect(sq_h5_open(path, &f), SQ_ERR_DATA, "not an HDF5 file");
  expect(sq_results_open(path, &r), SQ_ERR_DATA, "not an HDF5 file; expected a results file");
  unlink(path);
  expect(sq_h5_open(path, &f), SQ_ERR_DATA, "No such file");
  expect(sq_h5_open(dir, &f), SQ_ERR_DATA, "not a regular file");
  expect(sq_h5_create_file("/no/such/folder/x.h5", &f), SQ_ERR_IO, "there is no folder");
}

static void read_refused(const char *file, const char *path, int integers, const char *text)
{
  char full[512];
  sq_h5 *f;
  double *d = NULL;
  int64_t *i = NULL;
  int ndim;
  size_t dim[8];
  sq_format(full, sizeof full, "%s/%s", given, file);
  assert_int_equal(sq_h5_open(full, &f), SQ_OK);
  expect(integers ? sq_h5_read_int(f, path, &i, &ndim, dim) : sq_h5_read(f, path, &d, &ndim, dim),
         SQ_ERR_DATA, text);
  assert_null(d);
  assert_null(i);
  sq_h5_close(&f);
}

static void hostile_files_are_refused(void **state)
{
  (void)state;
  if (given == NULL) skip();
  char full[512];
  sq_h5 *f;
  sq_results *r;
  read_refused("hostile.h5", "external_link", 0, "no data set");
  read_refused("hostile.h5", "through_soft_link", 0, "no data set");
  read_refused("hostile.h5", "external_storage", 0, "external storage is refused");
  read_refused("hostile.h5", "virtual", 0, "virtual data set");
  read_refused("hostile.h5", "huge", 0, "than the memory");
  read_refused("hostile.h5", "hollow", 0, "the file holds only");
  read_refused("hostile.h5", "text", 0, "holds text; expected numbers");
  read_refused("hostile.h5", "vlen_text", 0, "holds text; expected numbers");
  read_refused("hostile.h5", "compound", 0, "holds a compound; expected numbers");
  read_refused("hostile.h5", "references", 0, "holds references; expected numbers");
  read_refused("hostile.h5", "rows", 0, "holds variable-length rows; expected numbers");
  read_refused("hostile.h5", "rank9", 0, "has 9 dimensions; expected at most 8");
  read_refused("hostile.h5", "null", 0, "is empty");
  read_refused("hostile.h5", "large_unsigned", 1, "cannot be read");
  read_refused("hostile.h5", "lzf", 0, "is compressed with filter 32000");
  sq_format(full, sizeof full, "%s/truncated.h5", given);
  expect(sq_h5_open(full, &f), SQ_ERR_DATA, "damaged HDF5 file (truncated file");
  sq_format(full, sizeof full, "%s/hostile.h5", given);
  expect(sq_results_open(full, &r), SQ_ERR_DATA, "not a results file of this program");
  sq_format(full, sizeof full, "%s/variable.h5", given);
  expect(sq_results_open(full, &r), SQ_ERR_DATA, "is not a results file of this version");
  sq_format(full, sizeof full, "%s/hostile.h5", given);
  assert_int_equal(sq_h5_open(full, &f), SQ_OK);
  assert_false(sq_h5_exists(f, "external_link"));
  char *text;
  assert_int_equal(sq_h5_read_text_attribute(f, "/", "vlen", &text), SQ_OK);
  assert_string_equal(text, "variable \xc3\xa4");
  free(text);
  assert_int_equal(sq_h5_read_text_attribute(f, "/", "fixed", &text), SQ_OK);
  assert_string_equal(text, "fixed");
  free(text);
  expect(sq_h5_read_text_attribute(f, "/", "two", &text), SQ_ERR_DATA, "has 2 elements; expected one");
  double *d;
  int ndim;
  size_t dim[8];
  static const char *const good[] = {"f2", "f4", "f8", "i1", "u8", "bool", "big_endian", "gzip"};
  for (size_t k = 0; k < sizeof good / sizeof good[0]; ++k) {
    const sq_status st = sq_h5_read(f, good[k], &d, &ndim, dim);
    if (st != SQ_OK) print_error("%s: %s\n", good[k], sq_error_text());
    assert_int_equal(st, SQ_OK);
    assert_int_equal(ndim, 1);
    assert_int_equal(dim[0], 2);
    assert_true(d[0] == 0 && d[1] == 1);
    free(d);
  }
  sq_h5_close(&f);
}

int main(int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_written_is_read_back),
      cmocka_unit_test(files_that_are_not_hdf5_are_refused),
      cmocka_unit_test(hostile_files_are_refused),
  };
  const char *tmp = getenv("TMPDIR");
  given = argc > 1 ? argv[1] : NULL;
  sq_format(dir, sizeof dir, "%s/sq-h5-XXXXXX", tmp != NULL ? tmp : "/tmp");
  if (mkdtemp(dir) == NULL) return 1;
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(dir);
  return failed;
}
