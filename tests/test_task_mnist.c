/* tests/test_task_mnist.c: IDX files: pixels in order and permuted, wrong files. */
#include "task_fixture.h"

enum { N = 40, T = 784 };

static const char *cell(const char *more)
{
  static char json[512];
  snprintf(json, sizeof json, "{\"seed\":7,\"dataset\":{\"_name_\":\"mnist\"%s,\"data_dir\":\"%s\"}}", more,
           dir);
  return json;
}

static void pixels_come_in_order_or_permuted(void **state)
{
  const sq_task_ops *ops = sq_task_find("mnist");
  static int32_t token[T], permuted[8][T];
  static sq_real value[T];
  size_t bytes;
  sq_status st;
  int32_t label;
  char *file = sq_read_file(path_in(dir, "t10k-images-idx3-ubyte"), &bytes, &st);
  sq_task *ids = open_task(cell(",\"tokenize\":true")), *real = open_task(cell("")),
          *p0 = open_task(cell(",\"tokenize\":true,\"permute\":true")),
          *p1 = open_task(cell(",\"tokenize\":true,\"permute\":true,\"permute_seed\":1"));
  int from[T];
  (void)state;
  memset(from, -1, sizeof from);
  assert_int_equal(sq_task_describe(ids)->size[SQ_TRAIN], 36);
  assert_int_equal(sq_task_describe(ids)->size[SQ_VALID], 4);
  for (size_t i = 0; i < N; ++i) {
    const unsigned char *pixel = (const unsigned char *)file + 16 + T * i;
    ops->example(ids, SQ_TEST, i, token, &label);
    assert_int_equal(label, i % 10);
    for (int k = 0; k < T; ++k) assert_int_equal(token[k], pixel[k]);
    ops->values(real, SQ_TEST, i, value);
    for (int k = 0; k < T; ++k) assert_true(fabs(value[k] - (pixel[k] / 255.0 - 0.1307) / 0.3081) < 1e-6);
  }
  /* The order is found from all images at once: pixel k of every image is equal to one place of the original. */
  int used[T] = {0}, moved = 0;
  for (size_t i = 0; i < 8; ++i) ops->example(p0, SQ_TEST, i, permuted[i], &label);
  for (int k = 0; k < T; ++k) {
    for (int j = 0; j < T && from[k] < 0; ++j) {
      int same = 1;
      for (size_t i = 0; same && i < 8; ++i) /* two of 784 agree in 8 bytes with a chance of 2e-14 */
        same = permuted[i][k] == ((const unsigned char *)file)[16 + T * i + (size_t)j];
      if (same) from[k] = j;
    }
    assert_in_range(from[k], 0, T - 1);
    assert_int_equal(used[from[k]]++, 0);
    moved += from[k] != k;
  }
  assert_true(moved > 700);
  ops->example(p0, SQ_TEST, 0, permuted[0], &label);
  ops->example(p1, SQ_TEST, 0, permuted[1], &label);
  assert_memory_not_equal(permuted[0], permuted[1], sizeof *permuted);
  sq_task_close(&ids);
  sq_task_close(&real);
  sq_task_close(&p0);
  sq_task_close(&p1);
  free(file);
}

static void wrong_files_are_named(void **state)
{
  char images[512], labels[512];
  (void)state;
  snprintf(images, sizeof images, "%s", path_in(dir, "t10k-images-idx3-ubyte"));
  snprintf(labels, sizeof labels, "%s", path_in(dir, "t10k-labels-idx1-ubyte"));
  write_idx(labels, 0, N - 1, 0);
  assert_data_refused(cell(""), "t10k-labels-idx1-ubyte: 39 labels; expected one for each of the 40 images");
  write_text(labels, "\0\0\x8\x1\0\0\0\x2\x3\xA", 10);
  write_idx(images, 1, 2, 5);
  assert_data_refused(cell(""), "t10k-labels-idx1-ubyte: byte 9: label 10; expected 0..9");
  write_text(labels, "\0\0\x8\x1\0\0\0\x9\x3\x1", 10);
  assert_data_refused(cell(""),
                      "t10k-labels-idx1-ubyte: 10 bytes; expected 17 for 9 items (file cut short?)");
  write_text(labels, "\x1f\x8b\x8\0", 4);
  assert_data_refused(cell(""),
                      "t10k-labels-idx1-ubyte: still packed (gzip); expected an IDX file of labels");
  write_text(images, "\0\0\x8\x3\0\0\0\x1\0\0\0\x20\0\0\0\x20", 16);
  assert_data_refused(cell(""), "t10k-images-idx3-ubyte: images of 32 x 32; expected 28 x 28");
  write_text(images, "\0\0\x8\x1\0\0\0\x1", 8);
  assert_data_refused(cell(""),
                      "t10k-images-idx3-ubyte: another magic number; expected an IDX file of 28 x 28");
  unlink(images);
  assert_data_refused(cell(""), "t10k-images-idx3-ubyte: cannot be opened");
  make_mnist(dir, N);
  char *text = check_text("mnist", dir);
  assert_line(text, "train ", "4 4 4 4 4 4 4 4 4 4");
  free(text);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  make_mnist(dir, N);
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(pixels_come_in_order_or_permuted),
      cmocka_unit_test(wrong_files_are_named),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
