/* tests/test_task_cifar.c: pixels, splits, real values, wrong files. */
#include "task_fixture.h"

enum { N = 40, TRAIN = 5 * N, STEPS = 1024 };

static const char *cell(const char *more)
{
  static char json[512];
  snprintf(json, sizeof json, "{%s,\"data_dir\":\"%s\"}}", more, dir);
  return json;
}

#define CIFAR(more) cell("\"seed\":7,\"dataset\":{\"_name_\":\"cifar\"" more)

static unsigned char *read_all(const char *name)
{
  size_t n;
  sq_status st;
  unsigned char *data = (unsigned char *)sq_read_file(path_in(dir, name), &n, &st);
  assert_non_null(data);
  assert_int_equal(n, N * CIFAR_RECORD);
  return data;
}

static void test_images_are_the_records_in_order(void **state)
{
  unsigned char *data = read_all("test_batch.bin");
  const sq_task_ops *ops = sq_task_find("cifar");
  static int32_t token[STEPS];
  static sq_real value[3 * STEPS];
  int32_t label;
  (void)state;
  sq_task *ids = open_task(CIFAR(",\"tokenize\":true")), *grey = open_task(CIFAR("")),
          *colour = open_task(CIFAR(",\"grayscale\":false"));
  assert_int_equal(sq_task_describe(ids)->vocab_size, 256);
  assert_int_equal(sq_task_describe(grey)->vocab_size, 0);
  assert_int_equal(sq_task_describe(grey)->input_dim, 1);
  assert_int_equal(sq_task_describe(colour)->input_dim, 3);
  for (size_t i = 0; i < N; ++i) {
    const unsigned char *r = data + i * CIFAR_RECORD;
    ops->example(ids, SQ_TEST, i, token, &label);
    assert_int_equal(label, r[0]);
    for (int k = 0; k < STEPS; ++k) {
      /* ITU-R 601: 0.299 R + 0.587 G + 0.114 B, rounded; the 16-bit weights are within 1e-5 of these, so the
         integers may only differ where the sum is within 255 * 3e-5 of a half. */
      const double y = 0.299 * r[1 + k] + 0.587 * r[1025 + k] + 0.114 * r[2049 + k];
      if (fabs(y - floor(y) - 0.5) > 0.01) assert_int_equal(token[k], (int)floor(y + 0.5));
      assert_in_range(token[k], 0, 255);
    }
    ops->values(grey, SQ_TEST, i, value);
    for (int k = 0; k < STEPS; ++k) assert_true(fabs(value[k] - (token[k] - 122.6) / 61.0) < 1e-6);
    ops->values(colour, SQ_TEST, i, value);
    for (int k = 0; k < STEPS; ++k)
      for (int j = 0; j < 3; ++j) {
        const double mean[3] = {0.4914, 0.4822, 0.4465}, std[3] = {0.247, 0.243, 0.261};
        assert_true(fabs(value[3 * k + j] - (r[1 + 1024 * j + k] / 255.0 - mean[j]) / std[j]) < 1e-6);
      }
  }
  sq_task_close(&ids);
  sq_task_close(&grey);
  sq_task_close(&colour);
  free(data);
}

/* Place of a training image in the files, by its pixels. */
static int place_of(unsigned char *const batch[5], const int32_t *token)
{
  for (int i = 0; i < TRAIN; ++i) {
    const unsigned char *r = batch[i / N] + (size_t)(i % N) * CIFAR_RECORD;
    int k = 0;
    while (k < STEPS && token[k] == (r[1 + k] << 16 | r[1025 + k] << 8 | r[2049 + k])) ++k;
    if (k == STEPS) return i;
  }
  return -1;
}

static void a_tenth_of_the_training_images_is_for_validation(void **state)
{
  const sq_task_ops *ops = sq_task_find("cifar");
  static int32_t token[STEPS];
  unsigned char *batch[5];
  int seen[3][TRAIN];
  int32_t label;
  (void)state;
  for (int k = 0; k < 5; ++k) {
    char name[32];
    snprintf(name, sizeof name, "data_batch_%d.bin", k + 1);
    batch[k] = read_all(name);
  }
  memset(seen, -1, sizeof seen);
  for (int seed = 0; seed < 3; ++seed) {
    char more[128];
    snprintf(more, sizeof more, "\"seed\":%d,\"dataset\":{\"_name_\":\"cifar\",\"grayscale\":false", seed);
    sq_task *t = open_task(cell(more));
    assert_int_equal(sq_task_describe(t)->size[SQ_TRAIN], TRAIN - TRAIN / 10);
    assert_int_equal(sq_task_describe(t)->size[SQ_VALID], TRAIN / 10);
    assert_int_equal(sq_task_describe(t)->size[SQ_TEST], N);
    assert_int_equal(sq_task_check_disjoint(t), SQ_OK);
    for (int s = SQ_TRAIN; s <= SQ_VALID; ++s)
      for (size_t i = 0; i < sq_task_describe(t)->size[s]; ++i) {
        ops->example(t, (sq_split)s, i, token, &label);
        const int at = place_of(batch, token);
        assert_true(at >= 0 && seen[seed][at] < 0);
        assert_int_equal(label, at % N % 10);
        seen[seed][at] = s;
      }
    sq_task_close(&t);
  }
  /* Twenty of 200 chosen anew: all in the same places has a chance below 1e-26. */
  assert_true(memcmp(seen[0], seen[1], sizeof *seen) != 0 && memcmp(seen[1], seen[2], sizeof *seen) != 0);
  for (int k = 0; k < 5; ++k) free(batch[k]);
}

static void wrong_files_are_named(void **state)
{
  char third[512];
  unsigned char *good = read_all("data_batch_3.bin");
  (void)state;
  snprintf(third, sizeof third, "%s", path_in(dir, "data_batch_3.bin"));
  write_text(third, (const char *)good, N * CIFAR_RECORD - 1);
  assert_data_refused(CIFAR(""),
                      "data_batch_3.bin: 122919 bytes, the last record has 3072 (file cut short?); "
                      "expected records of 3073 bytes");
  good[17 * CIFAR_RECORD] = 10;
  write_text(third, (const char *)good, N * CIFAR_RECORD);
  assert_data_refused(CIFAR(""), "data_batch_3.bin: record 17 (byte 52241): label 10; expected 0..9");
  write_text(third, "", 0);
  assert_data_refused(CIFAR(""), "data_batch_3.bin: empty file; expected records of 3073 bytes");
  unlink(third);
  assert_data_refused(CIFAR(""), "data_batch_3.bin: cannot be opened: No such file");
  assert_int_equal(mkdir(third, 0700), 0);
  assert_data_refused(CIFAR(""), "data_batch_3.bin: a folder; expected records of 3073 bytes");
  assert_int_equal(rmdir(third), 0);
  write_cifar_batch(third, N, 3);
  assert_data_refused("{\"dataset\":{\"_name_\":\"cifar\",\"data_dir\":\"/nowhere\"}}",
                      "task cifar: no data_batch_1.bin in /nowhere/cifar-10-batches-bin, /nowhere; expected");
  free(good);
  sq_experiment *e = NULL;
  assert_int_equal(
      load_cell("{\"dataset\":{\"_name_\":\"cifar\",\"grayscale\":false,\"tokenize\":true}}", &e),
      SQ_ERR_USAGE);
  assert_non_null(strstr(sq_error_text(), "dataset.tokenize: colours have no tokens"));
}

static void published_sizes_are_the_defaults(void **state)
{
  sq_experiment *e = NULL;
  sq_task_info s;
  (void)state;
  assert_int_equal(load_cell("{\"dataset\":{\"name\":\"CIFAR-10\",\"_name_\":\"cifar\",\"grayscale\":true,"
                             "\"tokenize\":true}}",
                             &e),
                   SQ_OK);
  assert_int_equal(sq_task_shape(sq_experiment_cell(e, 0), &s), SQ_OK);
  assert_true(s.seq_len == 1024 && s.vocab_size == 256 && s.nclass == 10);
  assert_true(s.size[0] == 45000 && s.size[1] == 5000 && s.size[2] == 10000);
  sq_experiment_destroy(&e);
}

static void known_figures_of_the_subset_come_out(void **state)
{
  (void)state;
  need_shared("cifar-10-batches-bin/test_batch.bin");
  char *text = check_text("cifar", SHARED);
  assert_line(text, "test_batch.bin",
              "1536500 500 ec71b26cc47795c68891254380bc1406d11a11984ce2bd56f76e32a6ab2bf0da");
  assert_line(text, "train", "250 250 250 250 250 250 250 250 250 250");
  assert_line(text, "mean of red, green, blue in training:", "124.9 122.6 113.1");
  assert_non_null(strstr(text, "no input occurs twice"));
  free(text);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  make_cifar(dir, N);
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(test_images_are_the_records_in_order),
      cmocka_unit_test(a_tenth_of_the_training_images_is_for_validation),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(published_sizes_are_the_defaults),
      cmocka_unit_test(known_figures_of_the_subset_come_out),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
