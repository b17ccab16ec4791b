/* src/task/mnist.c: MNIST as sequences of 784 pixels, in order or permuted.  LeCun et al. 1998; the permuted
 * form: Le, Jaitly & Hinton 2015, arXiv:1504.00941.
 *
 * IDX files: big-endian magic 0x803 and sizes n, 28, 28, then pixels; 0x801 and n, then labels. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "image.h"
#include "sha256.h"
#include "sq/base.h"
#include "sq/rng.h"

extern const sq_task_ops sq_task_mnist;

enum { SIDE = 28, PIXELS = SIDE * SIDE, NCLASS = 10, IMAGE_HEADER = 16, LABEL_HEADER = 8 };

static const sq_key mnist_key[] = {
    {"dataset.tokenize", SQ_KEY_BOOL, "false", 0, 0, NULL, "pixels as tokens 0..255, else as real numbers"},
    {"dataset.permute", SQ_KEY_BOOL, "false", 0, 0, NULL, "one fixed random order of the pixels"},
    {"dataset.permute_seed", SQ_KEY_INT, "0", 0, 2147483647, NULL, "of that order"},
    {"dataset.num_train", SQ_KEY_INT, "54000", 1, 1e9, NULL, "training examples at most"},
    {"dataset.num_valid", SQ_KEY_INT, "6000", 1, 1e9, NULL, "validation examples at most"},
    {"dataset.num_test", SQ_KEY_INT, "10000", 1, 1e9, NULL, "test examples at most"},
};
static const sq_keyset mnist_keys = {"dataset._name_=mnist", mnist_key, sizeof mnist_key / sizeof *mnist_key,
                                     NULL};

static const char about[] =
    "MNIST, pixel by pixel, in order or permuted: the digit; accuracy.\n"
    "files    mnist/{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte, unpacked\n"
    "splits   a tenth of the training images, chosen by the seed, is for validation\n"
    "source   jobs/fetch-data.sh mnist\n";
static const char layout[] =
    "{train,t10k}-images-idx3-ubyte and {train,t10k}-labels-idx1-ubyte (unpacked); get them "
    "with: jobs/fetch-data.sh mnist";
static const char *const folder[] = {"mnist", "MNIST/raw", "", NULL};
static const char *const part_name[2] = {"train", "t10k"};

static image_params params_of(int tokenize)
{
  return (image_params){.steps = PIXELS,
                        .nfile = 70000,
                        .dim = 1,
                        .nclass = NCLASS,
                        .tokenize = tokenize,
                        .mean = {0.1307}, /* of the training pixels over 255 */
                        .std = {0.3081}};
}

static image_params params_from(const sq_config *c)
{
  image_params p = params_of(sq_config_bool(c, "dataset.tokenize"));
  p.most[SQ_TRAIN] = (size_t)sq_config_int(c, "dataset.num_train");
  p.most[SQ_VALID] = (size_t)sq_config_int(c, "dataset.num_valid");
  p.most[SQ_TEST] = (size_t)sq_config_int(c, "dataset.num_test");
  return p;
}

static uint32_t big_endian(const char *data, int word)
{
  const unsigned char *p = (const unsigned char *)data + 4 * word;
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Reads an IDX file of bytes, `size` of them an item; *n items behind a header of 8 or 16 bytes. */
static sq_status read_idx(const char *path, int images, char **data, size_t *bytes, size_t *n)
{
  const char *expected = images ? "an IDX file of 28 x 28 images (magic 0x00000803)"
                                : "an IDX file of labels (magic 0x00000801)";
  const size_t head = images ? IMAGE_HEADER : LABEL_HEADER, size = images ? PIXELS : 1;
  sq_status st;
  *data = sq_data_read(path, expected, bytes, &st);
  SQ_TRY(st);
  if (*bytes < head || big_endian(*data, 0) != (images ? 0x803u : 0x801u))
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %s; expected %s", path,
                   *bytes >= 2 && memcmp(*data, "\x1f\x8b", 2) == 0 ? "still packed (gzip)"
                                                                    : "another magic number",
                   expected));
  if (images && (big_endian(*data, 2) != SIDE || big_endian(*data, 3) != SIDE))
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: images of %u x %u; expected 28 x 28", path, big_endian(*data, 2),
                   big_endian(*data, 3)));
  *n = big_endian(*data, 1);
  if (*n == 0 || *bytes != head + *n * size)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %zu bytes; expected %zu for %zu items (file cut short?)", path, *bytes,
                   head + *n * size, *n));
done:
  if (st != SQ_OK) {
    free(*data);
    *data = NULL;
  }
  return st;
}

/* sums: SHA-256 of images and labels, or NULL. */
static sq_status read_part(const char *dir, int part, const image_params *p, image_set *s, char (*sums)[65])
{
  char path[2][SQ_PATH_MAX], name[40];
  char *data[2] = {NULL, NULL};
  size_t bytes[2], n[2];
  sq_status st = SQ_OK;
  for (int k = 0; k < 2; ++k) {
    sq_format(name, sizeof name, "%s-%s-ubyte", part_name[part], k == 0 ? "images-idx3" : "labels-idx1");
    SQ_TRY(sq_path_join(path[k], dir, name));
    SQ_TRY(read_idx(path[k], k == 0, &data[k], &bytes[k], &n[k]));
    if (sums != NULL) sq_sha256_of(data[k], bytes[k], sums[k]);
  }
  if (n[0] != n[1])
    SQ_TRY(
        sq_fail(SQ_ERR_DATA, "%s: %zu labels; expected one for each of the %zu images", path[1], n[1], n[0]));
  for (size_t i = 0; i < n[1]; ++i)
    if ((unsigned char)data[1][LABEL_HEADER + i] >= NCLASS)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: byte %zu: label %d; expected 0..9", path[1], LABEL_HEADER + i,
                     (unsigned char)data[1][LABEL_HEADER + i]));
  SQ_TRY(sq_image_reserve(s, p, n[0]));
  memcpy(s->pixel, data[0] + IMAGE_HEADER, n[0] * PIXELS);
  memcpy(s->label, data[1] + LABEL_HEADER, n[0]);
  s->n = n[0];
done:
  free(data[0]);
  free(data[1]);
  return st;
}

static void draw_order(uint64_t seed, int order[PIXELS])
{
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_SPLIT, 1000); /* far from the classes, which have the low numbers */
  for (int i = 0; i < PIXELS; ++i) {
    const int j = (int)sq_rng_below(&r, (uint32_t)i + 1);
    order[i] = order[j];
    order[j] = i;
  }
}

static sq_status mnist_load(const sq_config *c, sq_task_block *b)
{
  const image_params p = params_from(c);
  char dir[SQ_PATH_MAX];
  image_set train = {0}, test = {0};
  sq_status st;
  SQ_TRY(sq_data_find("mnist", sq_data_dir(c), folder, "train-images-idx3-ubyte", layout, dir));
  SQ_TRY(read_part(dir, 0, &p, &train, NULL));
  SQ_TRY(read_part(dir, 1, &p, &test, NULL));
  SQ_TRY(sq_image_pack(&p, &train, &test, b));
done:
  sq_image_clear(&train);
  sq_image_clear(&test);
  return st;
}

static sq_status mnist_open_block(const sq_config *c, sq_task_block *b, sq_task **t)
{
  const image_params p = params_from(c);
  const int permute = sq_config_bool(c, "dataset.permute");
  int order[PIXELS] = {0};
  if (permute) draw_order((uint64_t)sq_config_int(c, "dataset.permute_seed"), order);
  return sq_image_open(&sq_task_mnist, &p, b, (uint64_t)sq_config_int(c, "seed"), permute ? order : NULL, t);
}

static sq_status mnist_shape(const sq_config *c, sq_task_info *info)
{
  const image_params p = params_from(c);
  sq_image_shape(&p, info);
  return SQ_OK;
}

static sq_status mnist_check(const char *where, FILE *out)
{
  char dir[SQ_PATH_MAX], sum[2][65];
  image_params p = params_of(1);
  image_set set[2] = {{0}, {0}};
  sq_status st;
  SQ_TRY(sq_data_find("mnist", where, folder, "train-images-idx3-ubyte", layout, dir));
  fprintf(out, "%s\n\n", dir);
  for (int k = 0; k < 2; ++k) {
    SQ_TRY(read_part(dir, k, &p, &set[k], sum));
    fprintf(out, "%s-images-idx3-ubyte %zu images  %s\n%s-labels-idx1-ubyte %zu labels  %s\n", part_name[k],
            set[k].n, sum[0], part_name[k], set[k].n, sum[1]);
  }
  sq_image_print_class_head(out, NCLASS);
  for (int k = 0; k < 2; ++k) sq_image_print_classes(out, part_name[k], set[k].label, set[k].n, NCLASS);
  sq_image_use_all(&p, set);
  SQ_TRY(sq_image_check_repeats(&sq_task_mnist, &p, set, out));
done:
  sq_image_clear(&set[0]);
  sq_image_clear(&set[1]);
  return st;
}

const sq_task_ops sq_task_mnist = {.name = "mnist",
                                   .keys = &mnist_keys,
                                   .load = mnist_load,
                                   .open_block = mnist_open_block,
                                   .close = sq_image_close,
                                   .info = sq_image_info,
                                   .shape = mnist_shape,
                                   .length = sq_image_length,
                                   .example = sq_image_example,
                                   .values = sq_image_values,
                                   .may_repeat = 1,
                                   .about = about,
                                   .check = mnist_check};
