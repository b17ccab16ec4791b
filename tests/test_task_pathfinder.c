/* tests/test_task_pathfinder.c: metadata and PNG images: pixels, splits, wrong files. */
#include "task_fixture.h"

#include "../src/task/png_grey.h"

enum { N = 40, T = PATH_SIDE * PATH_SIDE };
#define FOLDER "pathfinder32/curv_contour_length_14/"

static const char *cell(int seed, const char *more)
{
  static char json[512];
  snprintf(json, sizeof json, "{\"seed\":%d,\"dataset\":{\"_name_\":\"pathfinder\",\"data_dir\":\"%s\"%s}}",
           seed, dir, more);
  return json;
}

/* The number of the image with these pixels. */
static int number_of(const int32_t *token)
{
  unsigned char pixel[T];
  for (int i = 0; i < N; ++i) {
    int same = 1;
    path_pixels(i, pixel);
    for (int k = 0; k < T && same; ++k) same = pixel[k] == token[k];
    if (same) return i;
  }
  fail_msg("no such image");
  return -1;
}

static void pixels_and_labels_are_those_of_the_files(void **state)
{
  const sq_task_ops *ops = sq_task_find("pathfinder");
  int seen[N] = {0};
  (void)state;
  sq_task *t = open_task(cell(1, ",\"tokenize\":true")), *real = open_task(cell(1, ""));
  assert_int_equal(sq_task_describe(t)->size[SQ_TEST], 4);
  assert_int_equal(sq_task_describe(t)->size[SQ_VALID], 4);
  assert_int_equal(sq_task_describe(t)->size[SQ_TRAIN], 32);
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (size_t i = 0; i < sq_task_describe(t)->size[s]; ++i) {
      int32_t token[T], label;
      sq_real value[T];
      ops->example(t, (sq_split)s, i, token, &label);
      const int k = number_of(token);
      assert_int_equal(label, k / 2 % 2);
      assert_int_equal(seen[k]++, 0);
      ops->values(real, (sq_split)s, i, value);
      for (int j = 0; j < T; ++j) assert_true(fabs((double)value[j] - (token[j] / 255.0 - 0.5) / 0.5) < 1e-6);
    }
  sq_task_close(&t);
  sq_task_close(&real);
}

static void the_test_images_are_the_same_with_every_seed(void **state)
{
  const sq_task_ops *ops = sq_task_find("pathfinder");
  int valid[2] = {0, 0};
  (void)state;
  for (int i = 0; i < 4; ++i) {
    int number[2];
    for (int seed = 0; seed < 2; ++seed) {
      int32_t token[T], label;
      sq_task *t = open_task(cell(seed, ",\"tokenize\":true"));
      ops->example(t, SQ_TEST, (size_t)i, token, &label);
      number[seed] = number_of(token);
      ops->example(t, SQ_VALID, (size_t)i, token, &label);
      valid[seed] = valid[seed] * N + number_of(token);
      sq_task_close(&t);
    }
    assert_int_equal(number[0], number[1]);
  }
  assert_int_not_equal(valid[0], valid[1]);
}

static void colours_become_grey(void **state)
{
  static unsigned char colour[3 * T];
  uint8_t grey[T];
  size_t n;
  sq_status st;
  (void)state;
  for (int i = 0; i < 3 * T; ++i) colour[i] = (unsigned char)(i * 7);
  write_png(path_in(dir, "colour.png"), PATH_SIDE, 3, colour);
  char *data = sq_read_file(path_in(dir, "colour.png"), &n, &st);
  assert_int_equal(sq_png_grey("colour.png", data, n, PATH_SIDE, grey), SQ_OK);
  for (int i = 0; i < T; ++i)
    assert_int_equal(grey[i],
                     (19595 * colour[3 * i] + 38470 * colour[3 * i + 1] + 7471 * colour[3 * i + 2] + 32768) >>
                         16);
  for (size_t cut = 0; cut < n - 12; cut += 97) { /* the end chunk has 12 bytes */
    sq_error_clear();
    assert_int_equal(sq_png_grey("colour.png", data, cut, PATH_SIDE, grey), SQ_ERR_DATA);
  }
  sq_error_clear();
  assert_int_equal(sq_png_grey("colour.png", data, n, 64, grey), SQ_ERR_DATA);
  assert_string_equal(sq_error_text(), "colour.png: image of 32 x 32; expected a PNG image of 64 x 64");
  free(data);
}

static void put(const char *name, const char *text)
{
  write_text(path_in(dir, name), text, strlen(text));
}

static void wrong_files_are_named(void **state)
{
  static const struct {
    const char *text, *message;
  } bad[] = {
      {"imgs/0 sample_0.png 0\n", "metadata/7.npy:1: 3 words; expected at least 4, text with lines"},
      {"imgs/0 sample_0.png 0 1\nimgs/0 sample_2.png 2 2 1\n",
       "metadata/7.npy:2: label \"2\" (fourth word); expected 0 or 1"},
      {"../../etc passwd 0 1\n", "metadata/7.npy:1: image \"../../etc/passwd\"; expected a name below"},
      {"/etc passwd 0 1\n", "metadata/7.npy:1: image \"/etc/passwd\"; expected a name below"},
      {"\x93NUMPY", "metadata/7.npy: byte 0: 0x93; expected text with lines"},
      {"imgs/0 none.png 0 1\n",
       "imgs/0/none.png: cannot be opened: No such file or directory; expected a PNG image"},
      {"imgs 0 0 1\n", "imgs/0: a folder; expected a PNG image"},
      {"metadata 0.npy 0 1\n", "metadata/0.npy: Not a PNG file; expected a PNG image of 32 x 32"},
      {"", "metadata/7.npy: empty file"},
  };
  (void)state;
  for (size_t k = 0; k < COUNT(bad); ++k) {
    put(FOLDER "metadata/7.npy", bad[k].text);
    assert_data_refused(cell(1, ""), bad[k].message);
  }
  put(FOLDER "metadata/7.npy", "imgs/0 sample_172.png 172 0\n"); /* has no bytes in the release: left out */
  sq_task *t = open_task(cell(1, ""));
  sq_task_close(&t);
  unlink(path_in(dir, FOLDER "metadata/7.npy"));
  sq_error_clear();
  assert_int_equal(sq_task_find("pathfinder")->check("/nowhere", stdout), SQ_ERR_DATA);
  assert_non_null(strstr(sq_error_text(), "no metadata in /nowhere/pathfinder32/curv_contour_length_14"));
}

static void check_prints_classes(void **state)
{
  (void)state;
  char *text = check_text("pathfinder", dir);
  assert_non_null(strstr(text, "40 images of 32 x 32"));
  assert_non_null(strstr(text, "no input occurs twice"));
  free(text);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  make_pathfinder(dir, N);
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(pixels_and_labels_are_those_of_the_files),
      cmocka_unit_test(the_test_images_are_the_same_with_every_seed),
      cmocka_unit_test(colours_become_grey),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(check_prints_classes),
  };
  if (!sq_png_available()) {
    printf("skipped: built without libpng\n");
    return 0;
  }
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
