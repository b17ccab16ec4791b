/* src/task/cifar.c: CIFAR-10 as sequences of 1024 pixels.  Krizhevsky 2009; binary version.
 *
 * A record is a label and 1024 red, 1024 green, 1024 blue bytes, row by row.  Grey is ITU-R 601 in integers,
 * (19595 R + 38470 G + 7471 B + 32768) >> 16. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "image.h"
#include "sha256.h"
#include "sq/base.h"

extern const sq_task_ops sq_task_cifar;

enum { PIXELS = 1024, RECORD = 1 + 3 * PIXELS, NBATCH = 5, NCLASS = 10 };

static const sq_key cifar_key[] = {
    {"dataset.grayscale", SQ_KEY_BOOL, "true", 0, 0, NULL, "one grey number a step, else three colours"},
    {"dataset.tokenize", SQ_KEY_BOOL, "false", 0, 0, NULL, "grey as token 0..255, else as a real number"},
    {"dataset.num_train", SQ_KEY_INT, "45000", 1, 1e9, NULL, "training examples at most"},
    {"dataset.num_valid", SQ_KEY_INT, "5000", 1, 1e9, NULL, "validation examples at most"},
    {"dataset.num_test", SQ_KEY_INT, "10000", 1, 1e9, NULL, "test examples at most"},
};

static sq_status cifar_conditions(const sq_config *c)
{
  if (sq_config_bool(c, "dataset.tokenize") && !sq_config_bool(c, "dataset.grayscale"))
    return sq_fail(SQ_ERR_USAGE,
                   "dataset.tokenize: colours have no tokens; expected grayscale: true with it");
  return SQ_OK;
}

static const sq_keyset cifar_keys = {"dataset._name_=cifar", cifar_key, sizeof cifar_key / sizeof *cifar_key,
                                     cifar_conditions};

static const char about[] =
    "CIFAR-10, pixel by pixel: the class of an image of 32 x 32; accuracy.\n"
    "files    cifar-10-batches-bin/data_batch_{1..5}.bin and test_batch.bin: records of 3073 bytes, a label\n"
    "         0..9, then 1024 red, 1024 green, 1024 blue\n"
    "splits   a tenth of the training records, chosen by the seed, is for validation\n"
    "source   jobs/fetch-data.sh cifar (cifar-10-binary.tar.gz)\n";
static const char layout[] =
    "cifar-10-batches-bin/data_batch_{1..5}.bin and test_batch.bin, the binary version of CIFAR-10; get them "
    "with: jobs/fetch-data.sh cifar";
static const char record_layout[] =
    "records of 3073 bytes: a label 0..9, then 1024 red, green and blue bytes";
static const char *const folder[] = {"cifar-10-batches-bin", "", NULL};

/* Grey: as Pillow's conversion to "L".  Real values: mean and deviation of the published code. */
static image_params params_of(int grey, int tokenize)
{
  image_params p = {
      .steps = PIXELS, .dim = grey ? 1 : 3, .nclass = NCLASS, .tokenize = tokenize, .nfile = 60000};
  const double colour_mean[3] = {0.4914, 0.4822, 0.4465}, colour_std[3] = {0.247, 0.243, 0.261};
  memcpy(p.mean, colour_mean, sizeof p.mean);
  memcpy(p.std, colour_std, sizeof p.std);
  if (grey) {
    p.mean[0] = 122.6 / 255;
    p.std[0] = 61.0 / 255;
  }
  return p;
}

static image_params params_from(const sq_config *c)
{
  image_params p = params_of(sq_config_bool(c, "dataset.grayscale"), sq_config_bool(c, "dataset.tokenize"));
  p.most[SQ_TRAIN] = (size_t)sq_config_int(c, "dataset.num_train");
  p.most[SQ_VALID] = (size_t)sq_config_int(c, "dataset.num_valid");
  p.most[SQ_TEST] = (size_t)sq_config_int(c, "dataset.num_test");
  return p;
}

/* ---- files ------------------------------------------------------------------------------------------- */

static void file_name(int k, char out[32]) /* k = NBATCH: the test set */
{
  if (k < NBATCH)
    sq_format(out, 32, "data_batch_%d.bin", k + 1);
  else
    sq_format(out, 32, "test_batch.bin");
}

static void copy_pixels(const uint8_t *record, int dim, uint8_t *pixel)
{
  const uint8_t *r = record + 1, *g = r + PIXELS, *b = g + PIXELS;
  for (int i = 0; i < PIXELS; ++i) {
    if (dim == 1) {
      pixel[i] = (uint8_t)((19595 * r[i] + 38470 * g[i] + 7471 * b[i] + 0x8000) >> 16);
    } else {
      pixel[3 * i] = r[i];
      pixel[3 * i + 1] = g[i];
      pixel[3 * i + 2] = b[i];
    }
  }
}

static sq_status check_records(const char *path, const uint8_t *data, size_t bytes)
{
  if (bytes % RECORD != 0)
    return sq_fail(SQ_ERR_DATA, "%s: %zu bytes, the last record has %zu (file cut short?); expected %s", path,
                   bytes, bytes % RECORD, record_layout);
  for (size_t i = 0; i < bytes / RECORD; ++i)
    if (data[i * RECORD] >= NCLASS)
      return sq_fail(SQ_ERR_DATA, "%s: record %zu (byte %zu): label %d; expected 0..9", path, i, i * RECORD,
                     data[i * RECORD]);
  return SQ_OK;
}

/* *data is the file, *owned*, if the caller wants it (not NULL). */
static sq_status read_batch(const char *dir, int k, const image_params *p, image_set *s, char **keep,
                            size_t *nkeep)
{
  char name[32], path[SQ_PATH_MAX];
  char *data = NULL;
  size_t bytes = 0;
  sq_status st;
  file_name(k, name);
  SQ_TRY(sq_path_join(path, dir, name));
  data = sq_data_read(path, record_layout, &bytes, &st);
  SQ_TRY(st);
  SQ_TRY(check_records(path, (const uint8_t *)data, bytes));
  SQ_TRY(sq_image_reserve(s, p, bytes / RECORD));
  for (size_t i = 0; i < bytes / RECORD; ++i, ++s->n) {
    const uint8_t *record = (const uint8_t *)data + i * RECORD;
    s->label[s->n] = record[0];
    copy_pixels(record, p->dim, s->pixel + s->n * PIXELS * (size_t)p->dim);
  }
  if (keep != NULL) {
    *keep = data;
    *nkeep = bytes;
    data = NULL;
  }
done:
  free(data);
  return st;
}

static sq_status cifar_load(const sq_config *c, sq_task_block *b)
{
  const image_params p = params_from(c);
  char dir[SQ_PATH_MAX];
  image_set train = {0}, test = {0};
  sq_status st;
  SQ_TRY(sq_data_find("cifar", sq_data_dir(c), folder, "data_batch_1.bin", layout, dir));
  for (int k = 0; k <= NBATCH; ++k) SQ_TRY(read_batch(dir, k, &p, k < NBATCH ? &train : &test, NULL, NULL));
  SQ_TRY(sq_image_pack(&p, &train, &test, b));
done:
  sq_image_clear(&train);
  sq_image_clear(&test);
  return st;
}

static sq_status cifar_open_block(const sq_config *c, sq_task_block *b, sq_task **t)
{
  const image_params p = params_from(c);
  return sq_image_open(&sq_task_cifar, &p, b, (uint64_t)sq_config_int(c, "seed"), NULL, t);
}

static sq_status cifar_shape(const sq_config *c, sq_task_info *info)
{
  const image_params p = params_from(c);
  sq_image_shape(&p, info);
  return SQ_OK;
}

/* ---- check ------------------------------------------------------------------------------------------- */

static sq_status check_batch(const char *dir, int k, double sum[3], size_t *n, image_set *grey, FILE *out)
{
  const image_params colour = params_of(0, 0);
  image_set s = {0};
  char name[32], hex[65];
  char *data = NULL;
  size_t bytes = 0;
  sq_status st;
  SQ_TRY(read_batch(dir, k, &colour, &s, &data, &bytes));
  file_name(k, name);
  sq_sha256_of(data, bytes, hex);
  fprintf(out, "%-18s %8zu %8zu  %s\n", name, bytes, s.n, hex);
  for (size_t i = 0; k < NBATCH && i < s.n * PIXELS; ++i)
    for (int j = 0; j < 3; ++j) sum[j] += s.pixel[3 * i + (size_t)j];
  n[k < NBATCH ? 0 : 1] += s.n;
  const image_params one = params_of(1, 1);
  SQ_TRY(sq_image_reserve(grey, &one, s.n));
  for (size_t i = 0; i < s.n; ++i, ++grey->n) {
    grey->label[grey->n] = s.label[i];
    copy_pixels((const uint8_t *)data + i * RECORD, 1, grey->pixel + grey->n * PIXELS);
  }
done:
  free(data);
  sq_image_clear(&s);
  return st;
}

static sq_status cifar_check(const char *where, FILE *out)
{
  char dir[SQ_PATH_MAX], name[32];
  image_params p = params_of(1, 1);
  image_set set[2] = {{0}, {0}};
  size_t n[2] = {0, 0}, first = 0;
  double sum[3] = {0, 0, 0};
  size_t at[NBATCH + 2] = {0};
  sq_status st;
  SQ_TRY(sq_data_find("cifar", where, folder, "data_batch_1.bin", layout, dir));
  fprintf(out, "%s\n\n%-18s %8s %8s  %s\n", dir, "file", "bytes", "records", "SHA-256");
  for (int k = 0; k <= NBATCH; ++k) {
    SQ_TRY(check_batch(dir, k, sum, n, &set[k == NBATCH], out));
    at[k + 1] = n[0] + n[1];
  }
  sq_image_print_class_head(out, NCLASS);
  for (int k = 0; k <= NBATCH; ++k, first = at[k]) {
    file_name(k, name);
    const uint8_t *label = k < NBATCH ? set[0].label + first : set[1].label;
    sq_image_print_classes(out, name, label, at[k + 1] - at[k], NCLASS);
  }
  sq_image_print_classes(out, "train", set[0].label, n[0], NCLASS);
  fprintf(out, "\nmean of red, green, blue in training: %.1f %.1f %.1f\n", sum[0] / (double)(n[0] * PIXELS),
          sum[1] / (double)(n[0] * PIXELS), sum[2] / (double)(n[0] * PIXELS));
  sq_image_use_all(&p, set);
  fprintf(out, "split: %zu for training, %zu for validation, %zu for the test\n", p.most[0], p.most[1],
          p.most[2]);
  SQ_TRY(sq_image_check_repeats(&sq_task_cifar, &p, set, out));
done:
  sq_image_clear(&set[0]);
  sq_image_clear(&set[1]);
  return st;
}

const sq_task_ops sq_task_cifar = {.name = "cifar",
                                   .keys = &cifar_keys,
                                   .load = cifar_load,
                                   .open_block = cifar_open_block,
                                   .close = sq_image_close,
                                   .info = sq_image_info,
                                   .shape = cifar_shape,
                                   .length = sq_image_length,
                                   .example = sq_image_example,
                                   .values = sq_image_values,
                                   .may_repeat = 1,
                                   .about = about,
                                   .check = cifar_check};
