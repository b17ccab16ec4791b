/* src/task/pathfinder.c: do two dots lie on one dashed curve?  Images pixel by pixel.  Linsley et al. 2018; Tay et al.
 * 2021, arXiv:2011.04006.
 *
 * pathfinder<side>/<difficulty>/metadata/<k>.npy is text: a line "imgs/<k> sample_<i>.png <i> <label> ..." an image.  No
 * files say which images are for the test: a tenth, the same ones with every seed. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "image.h"
#include "png_grey.h"
#include "sha256.h"
#include "sq/base.h"
#include "sq/rng.h"

extern const sq_task_ops sq_task_pathfinder;

enum { NCLASS = 2, NCOLUMN = 4, VALID_OF = 9 };

static const sq_key pathfinder_key[] = {
    {"dataset.resolution", SQ_KEY_INT, "32", 32, 256, NULL, "pixels of a side: 32, 64, 128 or 256"},
    {"dataset.difficulty", SQ_KEY_STRING, "\"curv_contour_length_14\"", 0, 0,
     "curv_baseline|curv_contour_length_9|curv_contour_length_14", "easy, intermediate or hard"},
    {"dataset.tokenize", SQ_KEY_BOOL, "false", 0, 0, NULL, "pixels as tokens 0..255, else as real numbers"},
    {"dataset.num_train", SQ_KEY_INT, "159999", 1, 1e9, NULL, "training examples at most"},
    {"dataset.num_valid", SQ_KEY_INT, "20000", 1, 1e9, NULL, "validation examples at most"},
    {"dataset.num_test", SQ_KEY_INT, "20000", 1, 1e9, NULL, "test examples at most"},
};

static sq_status pathfinder_conditions(const sq_config *c)
{
  const int r = sq_config_int(c, "dataset.resolution");
  if (r == 32 || r == 64 || r == 128 || r == 256) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "dataset.resolution: %d; expected 32, 64, 128 or 256", r);
}

static const sq_keyset pathfinder_keys = {"dataset._name_=pathfinder", pathfinder_key,
                                          sizeof pathfinder_key / sizeof *pathfinder_key,
                                          pathfinder_conditions};

static const char about[] =
    "Long Range Arena Pathfinder, pixel by pixel: are the two dots of an image connected; accuracy.\n"
    "files    pathfinder32/curv_contour_length_14/{metadata/*.npy,imgs/*/sample_*.png}; 64, 128 and 256 "
    "alike\n"
    "splits   a tenth of the images, always the same, is for the test; a ninth of the others, chosen by the "
    "seed,\n"
    "         for validation\n"
    "source   jobs/fetch-data.sh pathfinder (part of the Long Range Arena archive)\n";
static const char meta_layout[] = "text with lines \"imgs/K sample_I.png I LABEL ...\"";

static image_params params_of(int side, int tokenize)
{
  return (image_params){.steps = side * side,
                        .nfile = 200000,
                        .dim = 1,
                        .nclass = NCLASS,
                        .tokenize = tokenize,
                        .mean = {0.5},
                        .std = {0.5},
                        .valid_of = VALID_OF};
}

static image_params params_from(const sq_config *c)
{
  image_params p = params_of(sq_config_int(c, "dataset.resolution"), sq_config_bool(c, "dataset.tokenize"));
  p.most[SQ_TRAIN] = (size_t)sq_config_int(c, "dataset.num_train");
  p.most[SQ_VALID] = (size_t)sq_config_int(c, "dataset.num_valid");
  p.most[SQ_TEST] = (size_t)sq_config_int(c, "dataset.num_test");
  return p;
}

/* ---- metadata ---------------------------------------------------------------------------------------- */

typedef struct {
  char *name; /* below the folder; owned */
  uint8_t label, test;
} entry;

typedef struct {
  entry *v;
  size_t n, cap;
} entries;

static void entries_clear(entries *e)
{
  for (size_t i = 0; i < e->n; ++i) free(e->v[i].name);
  free(e->v);
  *e = (entries){0};
}

static sq_status add_entry(entries *e, const char *path, const char *name, int label)
{
  if (e->n == e->cap) {
    const size_t cap = e->cap == 0 ? 1024 : 2 * e->cap;
    entry *v = realloc(e->v, cap * sizeof *v);
    if (v == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %zu images", path, cap);
    e->v = v;
    e->cap = cap;
  }
  e->v[e->n] = (entry){.name = strdup(name), .label = (uint8_t)label};
  if (e->v[e->n].name == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for its names", path);
  e->n++;
  return SQ_OK;
}

/* A name that stays below the folder. */
static int is_below(const char *name)
{
  return *name != '/' && strstr(name, "..") == NULL;
}

/* The one image of the release that has no bytes (the published loaders leave it out by name). */
static int is_known_empty(const char *dir, const char *name)
{
  static const char end[] = "pathfinder32/curv_contour_length_14";
  const size_t n = strlen(dir), m = strlen(end);
  return n >= m && strcmp(dir + n - m, end) == 0 && strcmp(name, "imgs/0/sample_172.png") == 0;
}

/* One line, which is cut into words. */
static sq_status add_line(entries *e, const char *dir, const char *path, size_t line, char *s)
{
  char *word[NCOLUMN] = {NULL}, *rest = NULL, name[SQ_PATH_MAX];
  int n = 0;
  for (char *w = strtok_r(s, " \t\r", &rest); w != NULL && n < NCOLUMN; w = strtok_r(NULL, " \t\r", &rest))
    word[n++] = w;
  if (n < NCOLUMN)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: %d word%s; expected at least 4, %s", path, line, n,
                   n == 1 ? "" : "s", meta_layout);
  if (strcmp(word[3], "0") != 0 && strcmp(word[3], "1") != 0)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: label \"%.20s\" (fourth word); expected 0 or 1", path, line,
                   word[3]);
  if (snprintf(name, sizeof name, "%s/%s", word[0], word[1]) >= (int)sizeof name || !is_below(name))
    return sq_fail(SQ_ERR_DATA, "%s:%zu: image \"%.40s/%.40s\"; expected a name below %s", path, line,
                   word[0], word[1], dir);
  if (is_known_empty(dir, name)) return SQ_OK;
  return add_entry(e, path, name, word[3][0] - '0');
}

static int is_text(const char *s, size_t n, size_t *at)
{
  for (size_t i = 0; i < n; ++i)
    if (((unsigned char)s[i] < ' ' && strchr("\t\r\n", s[i]) == NULL) || (unsigned char)s[i] >= 127 ||
        s[i] == '\0') {
      *at = i;
      return 0;
    }
  return 1;
}

static sq_status read_metadata(const char *dir, const char *path, entries *e)
{
  size_t n = 0, line = 1, at = 0;
  sq_status st;
  char *text = sq_data_read(path, meta_layout, &n, &st);
  SQ_TRY(st);
  if (!is_text(text, n, &at))
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: byte %zu: 0x%02x; expected %s", path, at, (unsigned char)text[at],
                   meta_layout));
  for (char *s = text; *s != '\0'; ++line) {
    char *nl = strchr(s, '\n'), *next = nl != NULL ? nl + 1 : s + strlen(s);
    if (nl != NULL) *nl = '\0';
    SQ_TRY(add_line(e, dir, path, line, s));
    s = next;
  }
done:
  free(text);
  return st;
}

/* 2.npy before 10.npy */
static int by_number(const void *pa, const void *pb)
{
  const char *a = *(char *const *)pa, *b = *(char *const *)pb;
  const size_t na = strlen(a), nb = strlen(b);
  return na != nb ? (na < nb ? -1 : 1) : strcmp(a, b);
}

typedef struct {
  char **v;
  size_t n, cap;
} names;

static sq_status list_metadata(const char *path, names *f)
{
  DIR *d = opendir(path);
  if (d == NULL)
    return sq_fail(SQ_ERR_DATA, "%s: cannot be opened: %s; expected a folder of files K.npy", path,
                   strerror(errno));
  for (const struct dirent *e; (e = readdir(d)) != NULL;) {
    const size_t n = strlen(e->d_name), cap = f->cap == 0 ? 256 : 2 * f->cap;
    if (n <= 4 || strcmp(e->d_name + n - 4, ".npy") != 0) continue;
    char **v = f->n < f->cap ? f->v : realloc(f->v, cap * sizeof *v);
    char *name = v != NULL ? strdup(e->d_name) : NULL;
    if (v != NULL && v != f->v) f->cap = cap;
    if (v != NULL) f->v = v;
    if (name == NULL) {
      closedir(d);
      return sq_fail(SQ_ERR_MEMORY, "%s: no memory for its names", path);
    }
    f->v[f->n++] = name;
  }
  closedir(d);
  if (f->n == 0) return sq_fail(SQ_ERR_DATA, "%s: no file *.npy in it; expected %s", path, meta_layout);
  qsort(f->v, f->n, sizeof *f->v, by_number);
  return SQ_OK;
}

static sq_status list_images(const char *dir, entries *e)
{
  char path[SQ_PATH_MAX], file[SQ_PATH_MAX];
  names f = {0};
  sq_status st;
  SQ_TRY(sq_path_join(path, dir, "metadata"));
  SQ_TRY(list_metadata(path, &f));
  for (size_t i = 0; i < f.n; ++i) {
    SQ_TRY(sq_path_join(file, path, f.v[i]));
    SQ_TRY(read_metadata(dir, file, e));
  }
  if (e->n < 4) SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %zu images; expected at least 4", path, e->n));
done:
  for (size_t i = 0; i < f.n; ++i) free(f.v[i]);
  free(f.v);
  return st;
}

/* Marks a tenth (rounded up) for the test, the same ones with every seed. */
static sq_status choose_test(entries *e)
{
  uint32_t *order = sq_calloc(e->n, sizeof *order, "splits");
  sq_rng r;
  if (order == NULL) return SQ_ERR_MEMORY;
  sq_rng_init(&r, 0, SQ_STREAM_SPLIT, 2000); /* far from those of the validation sets */
  for (size_t i = 0; i < e->n; ++i) order[i] = (uint32_t)i;
  for (size_t i = 0; i < (e->n + 9) / 10; ++i) {
    const size_t j = i + sq_rng_below(&r, (uint32_t)(e->n - i));
    const uint32_t x = order[i];
    order[i] = order[j];
    order[j] = x;
    e->v[order[i]].test = 1;
  }
  free(order);
  return SQ_OK;
}

/* ---- images ------------------------------------------------------------------------------------------ */

static sq_status add_image(const char *dir, const entry *e, const image_params *p, int side, image_set *s,
                           sq_sha256 *sum)
{
  char path[SQ_PATH_MAX], line[SQ_PATH_MAX + 80], hex[65];
  const size_t bytes = (size_t)p->steps;
  size_t n = 0;
  sq_status st;
  char *data = NULL;
  SQ_TRY(sq_path_join(path, dir, e->name));
  data = sq_data_read(path, "a PNG image", &n, &st);
  SQ_TRY(st);
  SQ_TRY(sq_png_grey(path, data, n, side, s->pixel + s->n * bytes));
  s->label[s->n++] = e->label;
  if (sum != NULL) {
    sq_sha256_of(data, n, hex);
    sq_format(line, sizeof line, "%s  %s\n", hex, e->name);
    sq_sha256_add(sum, line, strlen(line));
  }
done:
  free(data);
  return st;
}

/* All images, those for the test in set[1]. */
static sq_status read_images(const char *dir, const image_params *p, int side, image_set set[2],
                             sq_sha256 *sum)
{
  entries e = {0};
  size_t ntest = 0;
  sq_status st;
  SQ_TRY(list_images(dir, &e));
  SQ_TRY(choose_test(&e));
  for (size_t i = 0; i < e.n; ++i) ntest += e.v[i].test;
  SQ_TRY(sq_image_reserve(&set[0], p, e.n - ntest));
  SQ_TRY(sq_image_reserve(&set[1], p, ntest));
  for (size_t i = 0; i < e.n; ++i) SQ_TRY(add_image(dir, &e.v[i], p, side, &set[e.v[i].test], sum));
done:
  entries_clear(&e);
  return st;
}

static sq_status find(const char *dir, int side, const char *difficulty, char out[SQ_PATH_MAX])
{
  static const char *const before[] = {"", "lra_release/", "lra_release/lra_release/"};
  char name[4][128], layout[256];
  const char *sub[5] = {name[0], name[1], name[2], name[3], NULL};
  for (int k = 0; k < 3; ++k)
    sq_format(name[k], sizeof *name, "%spathfinder%d/%s", before[k], side, difficulty);
  sq_format(name[3], sizeof *name, "%s", difficulty);
  sq_format(layout, sizeof layout,
            "pathfinder%d/%s/{metadata/*.npy,imgs/*/sample_*.png} of Long Range Arena; get them with: "
            "jobs/fetch-data.sh pathfinder",
            side, difficulty);
  return sq_data_find("pathfinder", dir, sub, "metadata", layout, out);
}

/* ---- the task ---------------------------------------------------------------------------------------- */

static sq_status need_png(void)
{
  if (sq_png_available()) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE,
                 "task pathfinder: this program was built without libpng, which reads its images; install "
                 "it (Debian: libpng-dev) and build again");
}

static sq_status pathfinder_load(const sq_config *c, sq_task_block *b)
{
  const image_params p = params_from(c);
  const int side = sq_config_int(c, "dataset.resolution");
  char dir[SQ_PATH_MAX];
  image_set set[2] = {{0}, {0}};
  sq_status st;
  SQ_TRY(need_png());
  SQ_TRY(find(sq_data_dir(c), side, sq_config_string(c, "dataset.difficulty"), dir));
  SQ_TRY(read_images(dir, &p, side, set, NULL));
  SQ_TRY(sq_image_pack(&p, &set[0], &set[1], b));
done:
  sq_image_clear(&set[0]);
  sq_image_clear(&set[1]);
  return st;
}

static sq_status pathfinder_open_block(const sq_config *c, sq_task_block *b, sq_task **t)
{
  const image_params p = params_from(c);
  return sq_image_open(&sq_task_pathfinder, &p, b, (uint64_t)sq_config_int(c, "seed"), NULL, t);
}

static sq_status pathfinder_shape(const sq_config *c, sq_task_info *info)
{
  const image_params p = params_from(c);
  sq_image_shape(&p, info);
  return SQ_OK;
}

/* One folder of images. */
static sq_status check_folder(const char *dir, int side, FILE *out)
{
  image_params p = params_of(side, 1);
  image_set set[2] = {{0}, {0}};
  char hex[65];
  sq_sha256 sum;
  sq_status st;
  sq_sha256_init(&sum);
  SQ_TRY(read_images(dir, &p, side, set, &sum));
  sq_sha256_hex(&sum, hex);
  fprintf(out, "%s: %zu images of %d x %d\n", dir, set[0].n + set[1].n, side, side);
  sq_image_print_class_head(out, NCLASS);
  sq_image_print_classes(out, "train and valid", set[0].label, set[0].n, NCLASS);
  sq_image_print_classes(out, "test", set[1].label, set[1].n, NCLASS);
  SQ_TRY(sq_image_check_repeats(&sq_task_pathfinder, &p, set, out));
  fprintf(out,
          "checksum     %s\n(SHA-256 of the lines \"<SHA-256>  <image>\", in the order of the metadata)\n\n",
          hex);
done:
  sq_image_clear(&set[0]);
  sq_image_clear(&set[1]);
  return st;
}

/* Every resolution and difficulty that is there. */
static sq_status pathfinder_check(const char *where, FILE *out)
{
  static const char *const difficulty[] = {"curv_contour_length_14", "curv_contour_length_9",
                                           "curv_baseline"};
  char dir[SQ_PATH_MAX];
  int found = 0;
  sq_status st;
  SQ_TRY(need_png());
  for (int side = 32; side <= 256; side *= 2)
    for (int k = 0; k < 3; ++k) {
      if (find(where, side, difficulty[k], dir) != SQ_OK) {
        sq_error_clear();
        continue;
      }
      found = 1;
      SQ_TRY(check_folder(dir, side, out));
    }
  if (!found) st = find(where, 32, difficulty[0], dir);
done:
  return st;
}

const sq_task_ops sq_task_pathfinder = {.name = "pathfinder",
                                        .keys = &pathfinder_keys,
                                        .load = pathfinder_load,
                                        .open_block = pathfinder_open_block,
                                        .close = sq_image_close,
                                        .info = sq_image_info,
                                        .shape = pathfinder_shape,
                                        .length = sq_image_length,
                                        .example = sq_image_example,
                                        .values = sq_image_values,
                                        .may_repeat = 1,
                                        .about = about,
                                        .check = pathfinder_check};
