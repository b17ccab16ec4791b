/* tests/test_task_bad_input.c: what people's data folders get wrong, for every task that reads files: one line with the
 * file, the place and what was expected, the status of bad data, and nothing left behind. */
#include "task_fixture.h"

#include "../src/task/png_grey.h"

typedef enum {
  CUT,     /* all but the last byte */
  MISSING, /* no such file */
  FOLDER,  /* a folder in its place */
  EMPTY,   /* no bytes */
  LOCKED,  /* no permission */
  BYTES    /* other contents */
} damage;

#define CIFAR   "\"_name_\":\"cifar\""
#define IMDB    "\"_name_\":\"imdb\",\"min_count\":1"
#define MNIST   "\"_name_\":\"mnist\""
#define AAN     "\"_name_\":\"aan\""
#define PATH    "\"_name_\":\"pathfinder\""
#define OPS     "\"_name_\":\"listops\""
#define BATCH   "data_batch_2.bin"
#define IMAGES  "t10k-images-idx3-ubyte"
#define LABELS  "t10k-labels-idx1-ubyte"
#define META    "pathfinder32/curv_contour_length_14/metadata/0.npy"
#define PICTURE "pathfinder32/curv_contour_length_14/imgs/0/sample_0.png"

static const struct {
  const char *task, *file;
  damage how;
  const char *bytes; /* BYTES */
  const char *message;
} bad[] = {
    {CIFAR, BATCH, CUT, NULL,
     BATCH ": 12291 bytes, the last record has 3072 (file cut short?); expected records of 3073"},
    {CIFAR, BATCH, BYTES, "\x0a", BATCH ": 1 bytes, the last record has 1"},
    {CIFAR, BATCH, MISSING, NULL,
     BATCH ": cannot be opened: No such file or directory; expected records of 3073"},
    {CIFAR, "test_batch.bin", FOLDER, NULL, "test_batch.bin: a folder; expected records of 3073"},
    {CIFAR, BATCH, EMPTY, NULL, BATCH ": empty file; expected records of 3073"},
    {CIFAR, BATCH, LOCKED, NULL, BATCH ": cannot be opened: Permission denied; expected records of 3073"},
    {IMDB, "test/neg/0_2.txt", BYTES, "ok \xc3\x28",
     "test/neg/0_2.txt: byte 3: 0xc3 is not UTF-8 here; expected a review in UTF-8"},
    {IMDB, "test/neg/0_2.txt", BYTES, "\xed\xa0\x80", "test/neg/0_2.txt: byte 0: 0xed is not UTF-8 here"},
    {IMDB, "train/pos/1_8.txt", EMPTY, NULL, "train/pos/1_8.txt: empty file; expected a review in UTF-8"},
    {IMDB, "train/pos/1_8.txt", FOLDER, NULL, "train/pos/1_8.txt: a folder; expected a review in UTF-8"},
    {IMDB, "train/pos/1_8.txt", LOCKED, NULL, "train/pos/1_8.txt: cannot be opened: Permission denied"},
    {IMDB ",\"vocab_size\":4", "train/pos/1_8.txt", BYTES, "abc",
     "give a vocabulary of 8; expected at most 4 (dataset.vocab_size)"},
    {MNIST, IMAGES, CUT, NULL, IMAGES ": 3151 bytes; expected 3152 for 4 items (file cut short?)"},
    {MNIST, LABELS, BYTES, "\0\0\x8\x1\0\0\0\x4\1\2\3\x0a", LABELS ": byte 11: label 10; expected 0..9"},
    {MNIST, LABELS, BYTES, "\0\0\x8\x2\0\0\0\x4\1\2\3\4",
     LABELS ": another magic number; expected an IDX file of labels"},
    {MNIST, LABELS, MISSING, NULL, LABELS ": cannot be opened"},
    {MNIST, LABELS, FOLDER, NULL, LABELS ": a folder"},
    {WIKITEXT_KEYS, "merges.txt", BYTES, "#version: 0.2\nab c\na b\n",
     "merges.txt:2: part \"ab\" is made by no merge above; expected merges in order of rank"},
    {WIKITEXT_KEYS, "merges.txt", BYTES, "#version: 0.2\r\na b\n",
     "merges.txt:2: line ends in LF, the line above in CR LF; expected one kind"},
    {WIKITEXT_KEYS, "vocab.json", BYTES, "{\"a\": 0, \"b\"", "vocab.json: byte 12: expected a colon"},
    {WIKITEXT_KEYS, "vocab.json", FOLDER, NULL, "vocab.json: a folder; expected {\"token\": id"},
    {"\"_name_\":\"wikitext\",\"block_size\":16", NULL, BYTES, NULL,
     "the tokenizer there has 258 tokens; expected 50257 (dataset.vocab_size)"},
    {WIKITEXT_KEYS, "wiki.valid.raw", MISSING, NULL,
     "wiki.valid.raw: cannot be opened: No such file or directory; expected UTF-8 text"},
    {WIKITEXT_KEYS, "wiki.test.raw", BYTES, " a b \r\n c \n",
     "wiki.test.raw:1: line ends in CR LF; expected LF"},
    {WIKITEXT_KEYS, "wiki.test.raw", BYTES, " ab \xff\n", "wiki.test.raw: byte 4"},
    {WIKITEXT_KEYS, "wiki.test.raw", BYTES, " ab \n",
     "wiki.test.raw: 4 tokens; expected at least one block of 16"},
    {OPS, "basic_val.tsv", MISSING, NULL, "basic_val.tsv: cannot be opened"},
    {OPS, "basic_val.tsv", BYTES, "Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t2\n",
     "basic_val.tsv:2: target 2, but the expression's value is 9"},
    {OPS, "basic_val.tsv", BYTES, "Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t",
     "basic_val.tsv:2: target \"\"; expected one digit 0..9 (last line without a line end: file cut short?)"},
    {OPS, "basic_val.tsv", FOLDER, NULL, "basic_val.tsv: cannot be read: Is a directory"},
    {AAN, "new_aan_pairs.test.tsv", BYTES, "0\ta\tb\tc\td\r\n0\ta\tb\tc\td\n",
     "new_aan_pairs.test.tsv:2: line ends in LF, the line above in CR LF"},
    {AAN, "new_aan_pairs.eval.tsv", MISSING, NULL, "new_aan_pairs.eval.tsv: cannot be opened"},
    {AAN, "new_aan_pairs.eval.tsv", LOCKED, NULL,
     "new_aan_pairs.eval.tsv: cannot be opened: Permission denied"},
    {PATH, META, BYTES, "imgs/0 sample_0.png 0\n", "metadata/0.npy:1: 3 words; expected at least 4"},
    {PATH, PICTURE, CUT, NULL, "sample_0.png: file cut short; expected a PNG image of 32 x 32"},
    {PATH, PICTURE, EMPTY, NULL, "sample_0.png: empty file; expected a PNG image"},
    {PATH, PICTURE, MISSING, NULL, "sample_0.png: cannot be opened"},
};

static size_t length_of(const char *bytes) /* those of MNIST begin with NUL */
{
  return bytes[0] == '\0' ? 12 : strlen(bytes);
}

static void apply(const char *path, damage how, const char *bytes, const char *data, size_t n)
{
  if (how == CUT) write_text(path, data, n - 1);
  if (how == EMPTY) write_text(path, "", 0);
  if (how == BYTES) write_text(path, bytes, length_of(bytes));
  if (how == MISSING || how == FOLDER) assert_int_equal(unlink(path), 0);
  if (how == FOLDER) assert_int_equal(mkdir(path, 0700), 0);
  if (how == LOCKED) assert_int_equal(chmod(path, 0), 0);
}

/* 1: refused with this message; else it is printed what came instead. */
static int refused(const char *json, const char *message)
{
  sq_experiment *e = NULL;
  sq_task *t = NULL;
  if (load_cell(json, &e) != SQ_OK) fail_msg("%s", sq_error_text());
  sq_error_clear();
  const sq_status st = sq_task_open(sq_experiment_cell(e, 0), &t);
  const char *got = sq_error_text();
  const int ok = st == SQ_ERR_DATA && t == NULL && strstr(got, message) != NULL && strchr(got, '\n') == NULL;
  if (!ok) printf("status %d, \"%s\"; expected \"%s\"\n", (int)st, got, message);
  sq_task_close(&t);
  sq_experiment_destroy(&e);
  return ok;
}

static void every_damage_is_one_clear_line(void **state)
{
  int wrong = 0;
  (void)state;
  for (size_t k = 0; k < COUNT(bad); ++k) {
    char json[512], path[512] = "";
    char *data = NULL;
    size_t n = 0;
    sq_status st = SQ_OK;
    if (bad[k].how == LOCKED && geteuid() == 0) continue; /* root may read all */
    if (strcmp(bad[k].task, PATH) == 0 && !sq_png_available()) continue;
    snprintf(json, sizeof json, "{\"seed\":1,\"dataset\":{%s,\"data_dir\":\"%s\"}}", bad[k].task, dir);
    if (bad[k].file != NULL) {
      snprintf(path, sizeof path, "%s/%s", dir, bad[k].file);
      data = sq_read_file(path, &n, &st);
      if (data == NULL) fail_msg("%s", sq_error_text());
      apply(path, bad[k].how, bad[k].bytes, data, n);
    }
    wrong += !refused(json, bad[k].message);
    assert_int_equal(sq_exit_code(SQ_ERR_DATA), 3);
    if (data == NULL) continue;
    if (bad[k].how == FOLDER) assert_int_equal(rmdir(path), 0); /* nothing was put in it */
    if (bad[k].how == LOCKED) assert_int_equal(chmod(path, 0600), 0);
    write_text(path, data, n);
    free(data);
  }
  assert_int_equal(wrong, 0);
}

/* A pixel is a byte: the values that models get are finite whatever the file holds. */
static void values_of_pixels_are_finite(void **state)
{
  static sq_real value[3072];
  const sq_task_ops *ops = sq_task_find("cifar");
  char json[512];
  (void)state;
  snprintf(json, sizeof json, "{\"dataset\":{\"_name_\":\"cifar\",\"grayscale\":false,\"data_dir\":\"%s\"}}",
           dir);
  sq_task *t = open_task(json);
  for (size_t i = 0; i < sq_task_describe(t)->size[SQ_TRAIN]; ++i) {
    ops->values(t, SQ_TRAIN, i, value);
    for (int k = 0; k < 3072; ++k) assert_true(fabs((double)value[k]) < 10);
  }
  sq_task_close(&t);
}

/* The cache's folder cannot be made: a note, the same tokens, nothing left.  (A disk that is full ends the same writing
   one step later, with the temporary file removed.) */
static void a_cache_that_cannot_be_written_is_no_loss(void **state)
{
  char json[512], place[128];
  int32_t token[2][16], label[16];
  (void)state;
  snprintf(json, sizeof json, "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\"}}", dir);
  snprintf(place, sizeof place, "%s/merges.txt/cache", dir); /* below a file */
  for (int k = 0; k < 2; ++k) {
    setenv("SEQSPECTRA_CACHE", k == 0 ? "" : place, 1);
    sq_task *t = open_task(json);
    sq_task_find("wikitext")->example(t, SQ_VALID, 0, token[k], label);
    sq_task_close(&t);
  }
  assert_memory_equal(token[0], token[1], sizeof *token);
  assert_int_equal(access(place, F_OK), -1);
  setenv("SEQSPECTRA_CACHE", "", 1);
}

static int set_up(void **state)
{
  static const char rows[] = "Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n";
  (void)state;
  setenv("SEQSPECTRA_CACHE", "", 1);
  make_folder(dir);
  make_wikitext(dir);
  make_cifar(dir, 4);
  make_imdb(dir, 3);
  make_mnist(dir, 4);
  make_aan(dir, 3);
  make_pathfinder(dir, 10);
  for (int k = 0; k < 3; ++k) {
    char name[32];
    snprintf(name, sizeof name, "basic_%s.tsv", (const char *const[]){"train", "val", "test"}[k]);
    write_text(path_in(dir, name), rows, strlen(rows));
  }
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(every_damage_is_one_clear_line),
      cmocka_unit_test(values_of_pixels_are_finite),
      cmocka_unit_test(a_cache_that_cannot_be_written_is_no_loss),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
