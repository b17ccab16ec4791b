/* tests/test_task_batch.c: the registry, configurations, shapes, batches, and the check for equal inputs. */
#include "task_fixture.h"

#include "../src/task/png_grey.h"
#include "../src/task/task_impl.h"

/* ---- every task of the registry ---------------------------------------------------------------------------
 */

/* A small cell of each task: a new task needs a line here. */
static const struct {
  const char *name, *json;
} small[] = {
    {"mqar", "{\"seed\":5,\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":64,\"input_seq_length\":32,\"num_"
             "kv_pairs\":4,"
             "\"num_train\":50,\"num_valid\":20,\"num_test\":10}}"},
    {"listops", "{\"seed\":5,\"dataset\":{\"_name_\":\"listops\",\"source\":\"generate\",\"min_length\":5,"
                "\"max_length\":40,"
                "\"num_train\":50,\"num_valid\":20,\"num_test\":10}}"},
    {"wikitext", "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\",\"num_train\":50,\"num_valid\":20,"
                 "\"num_test\":10}}"},
    {"cifar", "{\"dataset\":{\"_name_\":\"cifar\",\"data_dir\":\"%s\",\"num_train\":180,\"num_valid\":20,"
              "\"num_test\":40}}"},
    {"imdb", "{\"dataset\":{\"_name_\":\"imdb\",\"data_dir\":\"%s\",\"max_tokens\":40,\"num_train\":180,"
             "\"num_valid\":20,\"num_test\":200}}"},
    {"selective_copying",
     "{\"dataset\":{\"_name_\":\"selective_copying\",\"input_seq_length\":24,\"num_tokens\":3}}"},
    {"induction_heads", "{\"dataset\":{\"_name_\":\"induction_heads\",\"input_seq_length\":24}}"},
    {"lag_copy", "{\"dataset\":{\"_name_\":\"lag_copy\",\"input_seq_length\":24,\"lag\":3}}"},
    {"parity", "{\"dataset\":{\"_name_\":\"parity\",\"max_length\":20,\"test_max_length\":50}}"},
    {"mnist", "{\"dataset\":{\"_name_\":\"mnist\",\"data_dir\":\"%s\",\"num_train\":180,\"num_valid\":20,"
              "\"num_test\":200}}"},
    {"aan", "{\"dataset\":{\"_name_\":\"aan\",\"data_dir\":\"%s\",\"max_tokens\":30,\"num_train\":20,"
            "\"num_valid\":10,\"num_test\":20}}"},
    {"pathfinder", "{\"dataset\":{\"_name_\":\"pathfinder\",\"data_dir\":\"%s\",\"num_train\":159,"
                   "\"num_valid\":20,\"num_test\":20}}"},
};
static char data[64]; /* the folder of those that have files */

/* Image 172 of pathfinder has the name of the one that is left out. */
static int make_data(void **state)
{
  (void)state;
  setenv("SEQSPECTRA_CACHE", "", 1);
  make_folder(data);
  make_wikitext(data);
  make_cifar(data, 40);
  make_imdb(data, 100);
  make_mnist(data, 200);
  make_aan(data, 20);
  make_pathfinder(data, 200);
  return 0;
}

static int remove_data(void **state)
{
  (void)state;
  remove_tree(data);
  return 0;
}

static const char *small_cell(const char *name)
{
  static char json[512];
  for (size_t i = 0; i < COUNT(small); ++i) {
    const char *at = strstr(small[i].json, "%s");
    if (strcmp(small[i].name, name) != 0) continue;
    snprintf(json, sizeof json, "%.*s%s%s", at == NULL ? 0 : (int)(at - small[i].json), small[i].json,
             at == NULL ? "" : data, at == NULL ? small[i].json : at + 2);
    return json;
  }
  fail_msg("no small cell for task %s", name);
  return NULL;
}

/* The images of pathfinder need libpng. */
static int cannot_read(const char *name)
{
  return strcmp(name, "pathfinder") == 0 && !sq_png_available();
}

static void every_task_is_found_by_its_name(void **state)
{
  const sq_keyset *set[24];
  int n = 0;
  (void)state;
  for (; sq_task_at(n) != NULL; ++n) assert_ptr_equal(sq_task_find(sq_task_at(n)->name), sq_task_at(n));
  assert_int_equal(n, COUNT(small));
  assert_null(sq_task_at(-1));
  assert_null(sq_task_find("mqa"));
  assert_null(sq_task_find("mqar|listops"));
  assert_int_equal(sq_task_keysets(set, 24), n + 1);
}

static void shapes_are_known_without_data(void **state)
{
  (void)state;
  for (int k = 0; sq_task_at(k) != NULL; ++k) {
    sq_experiment *e = NULL;
    sq_task_info shape;
    if (cannot_read(sq_task_at(k)->name)) continue;
    sq_task *t = open_task(small_cell(sq_task_at(k)->name));
    const sq_task_info *info = sq_task_describe(t);
    assert_int_equal(load_cell(small_cell(sq_task_at(k)->name), &e), SQ_OK);
    assert_int_equal(sq_task_shape(sq_experiment_cell(e, 0), &shape), SQ_OK);
    assert_int_equal(shape.seq_len, info->seq_len);
    assert_int_equal(shape.vocab_size, info->vocab_size);
    assert_int_equal(shape.nclass, info->nclass);
    assert_int_equal(shape.label_per_row, info->label_per_row);
    assert_int_equal(shape.max_labels, info->max_labels);
    assert_string_equal(shape.metric, info->metric);
    for (int s = 0; s < SQ_NSPLIT; ++s) assert_int_equal(shape.size[s], info->size[s]);
    sq_experiment_destroy(&e);
    sq_task_close(&t);
    assert_null(t);
    sq_task_close(&t);
  }
}

static void published_sizes_are_the_defaults(void **state)
{
  sq_experiment *e = NULL;
  sq_task_info s;
  (void)state;
  assert_int_equal(
      load_cell("{\"seed\":1919,\"dataset\":{\"name\":\"MQAR\",\"_name_\":\"mqar\",\"input_seq_length\":512,"
                "\"num_kv_pairs\":64,\"fixed_size\":true}}",
                &e),
      SQ_OK);
  assert_int_equal(sq_task_shape(sq_experiment_cell(e, 0), &s), SQ_OK);
  assert_int_equal(s.seq_len, 512);
  assert_int_equal(s.vocab_size, 8192);
  assert_int_equal(s.nclass, 8192);
  assert_int_equal(s.max_labels, 64);
  assert_true(s.size[0] == 100000 && s.size[1] == 3000 && s.size[2] == 3000);
  sq_experiment_destroy(&e);
  assert_int_equal(
      load_cell("{\"dataset\":{\"name\":\"LISTOPS\",\"_name_\":\"listops\",\"fixed_size\":false}}", &e),
      SQ_OK);
  assert_int_equal(sq_task_shape(sq_experiment_cell(e, 0), &s), SQ_OK);
  assert_int_equal(s.seq_len, 2048);
  assert_int_equal(s.vocab_size, 18);
  assert_int_equal(s.nclass, 10);
  assert_int_equal(s.label_per_row, 0);
  assert_true(s.size[0] == 96000 && s.size[1] == 2000 && s.size[2] == 2000);
  sq_experiment_destroy(&e);
}

#define MQAR(more)    "{\"dataset\":{\"_name_\":\"mqar\"," more "}}"
#define LISTOPS(more) "{\"dataset\":{\"_name_\":\"listops\",\"source\":\"generate\"," more "}}"

static void impossible_configurations_are_refused(void **state)
{
  static const struct {
    const char *json, *message;
  } bad[] = {
      {MQAR("\"input_seq_length\":63,\"num_kv_pairs\":4"),
       "dataset.input_seq_length: 63 is odd; expected an even number"},
      {MQAR("\"input_seq_length\":30,\"num_kv_pairs\":8"),
       "dataset.input_seq_length: 30 is too short for num_kv_pairs 8; expected at least 32"},
      {MQAR("\"input_seq_length\":64,\"num_kv_pairs\":8,\"vocab_size\":17"),
       "dataset.vocab_size: 17 has 7 keys, num_kv_pairs is 8; expected at least 18"},
      {LISTOPS("\"min_length\":1999"),
       "dataset.min_length: 1999; expected 0..max_length - 2 = 1998, since min_length < length < max_length"},
      {LISTOPS("\"max_depth\":2"),
       "dataset.min_length: 500, but the longest expression with max_depth 2 and max_args 10 has 12 tokens"},
      {LISTOPS("\"max_depth\":1,\"min_length\":1"),
       "dataset.min_length: 1, but the longest expression with max_depth 1 and max_args 10 has 1 tokens"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT(bad); ++i) {
    sq_experiment *e = NULL;
    assert_int_equal(load_cell(bad[i].json, &e), SQ_ERR_USAGE);
    if (strstr(sq_error_text(), bad[i].message) == NULL)
      fail_msg("%s: got \"%s\", expected \"%s\"", bad[i].json, sq_error_text(), bad[i].message);
    sq_experiment_destroy(&e);
  }
  /* Files decide their own lengths. */
  sq_experiment *e = NULL;
  assert_int_equal(load_cell("{\"dataset\":{\"_name_\":\"listops\",\"max_depth\":2}}", &e), SQ_OK);
  sq_experiment_destroy(&e);
}

/* ---- batches ----------------------------------------------------------------------------------------------
 */

/* Two calls fill what one does, and a call leaves the other's examples alone. */
static void batch_is_the_same_in_parts(const sq_task *t, int nseq, const size_t *index, sq_padding pad,
                                       const unsigned char *whole)
{
  const size_t bytes = sq_task_batch_bytes(sq_task_describe(t), nseq);
  unsigned char *store = malloc(bytes);
  const int half = nseq / 2;
  int32_t untouched;
  sq_batch b;

  memset(store, 0xa5, bytes);
  memset(&untouched, 0xa5, sizeof untouched);
  sq_task_batch_part(t, SQ_VALID, nseq, index, pad, half, nseq, store, &b);
  const int last = half == 0 ? 0 : b.label_per_row ? b.rows.off[half] - 1 : half - 1; /* of the first part */
  assert_true((b.label[last] == untouched) == (half > 0));
  sq_task_batch_part(t, SQ_VALID, nseq, index, pad, 0, half, store, &b);
  assert_true(b.label[last] != untouched);
  assert_memory_equal(store, whole, bytes);
  free(store);
}

static void check_batch(const char *name, sq_padding pad, int nseq, const size_t *index)
{
  sq_task *t = open_task(small_cell(name));
  const sq_task_ops *ops = sq_task_find(name);
  const sq_task_info *info = sq_task_describe(t);
  const size_t bytes = sq_task_batch_bytes(info, nseq);
  unsigned char *store = malloc(bytes); /* exact, so that a sanitizer sees the end */
  int32_t *token = calloc((size_t)info->seq_len, sizeof *token),
          *label = calloc((size_t)info->seq_len, sizeof *label);
  sq_real *value = calloc((size_t)info->seq_len * (size_t)(info->input_dim + 1), sizeof *value);
  int longest = 0;
  sq_batch b;

  memset(store, 0xa5, bytes);
  sq_task_batch(t, SQ_VALID, nseq, index, pad, store, &b);
  for (int i = 0; i < nseq; ++i) {
    const int n = ops->length(t, SQ_VALID, index[i]);
    longest = n > longest ? n : longest;
  }
  if (pad == SQ_PAD_FULL) longest = info->seq_len;
  assert_true((b.rows.len != NULL) == (pad == SQ_PAD_FULL));
  assert_int_equal(b.rows.nseq, nseq);
  assert_int_equal(b.rows.off[0], 0);
  assert_int_equal(b.rows.off[nseq], b.rows.nrow);
  assert_true((b.value != NULL) == (info->vocab_size == 0) && (b.token != NULL) == (info->vocab_size > 0));
  assert_int_equal(b.label_per_row, info->label_per_row);
  for (int i = 0; i < nseq; ++i) {
    const int n = ops->length(t, SQ_VALID, index[i]), r = b.rows.off[i], rows = b.rows.off[i + 1] - r;
    ops->example(t, SQ_VALID, index[i], token, label);
    assert_int_equal(b.rows.id[i], i);
    assert_int_equal(rows, pad != SQ_PAD_NONE ? longest : n);
    if (b.rows.len != NULL) assert_int_equal(b.rows.len[i], n);
    if (b.token != NULL) {
      assert_memory_equal(b.token + r, token, (size_t)n * sizeof *token);
    } else {
      const size_t dim = (size_t)b.input_dim;
      ops->values(t, SQ_VALID, index[i], value);
      assert_memory_equal(b.value + (size_t)r * dim, value, (size_t)n * dim * sizeof *value);
      for (size_t k = (size_t)n * dim; k < (size_t)rows * dim; ++k)
        assert_true(b.value[(size_t)r * dim + k] == 0);
    }
    if (info->label_per_row)
      assert_memory_equal(b.label + r, label, (size_t)n * sizeof *label);
    else
      assert_int_equal(b.label[i], label[0]);
    for (int k = n; k < rows; ++k) {
      if (b.token != NULL) assert_int_equal(b.token[r + k], 0);
      if (info->label_per_row) assert_int_equal(b.label[r + k], SQ_IGNORE);
    }
  }
  batch_is_the_same_in_parts(t, nseq, index, pad, store);
  free(token);
  free(label);
  free(value);
  free(store);
  sq_task_close(&t);
}

static void batches_are_packed_or_padded(void **state)
{
  static const size_t index[] = {3, 0, 19, 19, 7, 1, 12, 5, 6, 18, 2};
  (void)state;
  for (int k = 0; sq_task_at(k) != NULL; ++k) {
    const sq_task_ops *ops = sq_task_at(k);
    if (cannot_read(ops->name) || ops->first_length != NULL) continue; /* pairs: test_task_aan.c */
    for (sq_padding pad = SQ_PAD_NONE; pad <= SQ_PAD_FULL; ++pad)
      for (int nseq = 1; nseq <= (int)COUNT(index); nseq += 5) check_batch(ops->name, pad, nseq, index);
  }
}

/* ---- equal inputs: a task made of chosen rows -------------------------------------------------------- */

enum { ROWS = 500, STEPS = 6 };
typedef struct {
  struct sq_task base;
  sq_task_info info;
  int32_t row[SQ_NSPLIT][ROWS][STEPS];
  int n[SQ_NSPLIT][ROWS];
} planted;

static const sq_task_info *planted_info(const sq_task *t)
{
  return &((const planted *)t)->info;
}

static int planted_length(const sq_task *t, sq_split s, size_t i)
{
  return ((const planted *)t)->n[s][i];
}

static void planted_example(const sq_task *t, sq_split s, size_t i, int32_t *token, int32_t *label)
{
  const planted *p = (const planted *)t;
  memcpy(token, p->row[s][i], (size_t)p->n[s][i] * sizeof *token);
  for (int k = 0; k < (p->info.label_per_row ? p->n[s][i] : 1); ++k) label[k] = token[k];
}

static const sq_task_ops planted_ops = {
    .name = "planted", .info = planted_info, .length = planted_length, .example = planted_example};

static planted distinct_rows(void)
{
  planted p = {.base = {&planted_ops},
               .info = {.seq_len = STEPS, .vocab_size = 100, .size = {ROWS, ROWS, ROWS}}};
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (int i = 0; i < ROWS; ++i) {
      p.n[s][i] = STEPS;
      p.row[s][i][0] = s;
      p.row[s][i][STEPS - 1] = i;
    }
  return p;
}

static void padding_has_no_label(void **state)
{
  static planted p;
  static const size_t index[3] = {2, 0, 1};
  sq_batch b;
  (void)state;
  p = distinct_rows();
  p.info.label_per_row = 1;
  for (int i = 0; i < 3; ++i) p.n[SQ_TRAIN][i] = 2 + i;
  void *store = malloc(sq_task_batch_bytes(&p.info, 3));
  memset(store, 0x5a, sq_task_batch_bytes(&p.info, 3));
  sq_task_batch(&p.base, SQ_TRAIN, 3, index, SQ_PAD_LONGEST, store, &b);
  assert_int_equal(b.rows.nrow, 12); /* three times 4, the longest */
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 4; ++k)
      if (k < p.n[SQ_TRAIN][index[i]])
        assert_int_equal(b.label[4 * i + k], b.token[4 * i + k]);
      else
        assert_true(b.label[4 * i + k] == SQ_IGNORE && b.token[4 * i + k] == 0);
  free(store);
}

static void an_equal_input_is_found_wherever_it_is(void **state)
{
  static planted p;
  char want[128];
  (void)state;
  p = distinct_rows();
  sq_error_clear();
  assert_int_equal(sq_task_check_disjoint(&p.base), SQ_OK);

  static const struct {
    sq_split a, b;
    int i, j;
    const char *places;
  } c[] = {
      {SQ_TRAIN, SQ_TEST, 499, 0, "test example 0 has the same input as training example 499"},
      {SQ_TRAIN, SQ_TRAIN, 17, 400, "training example 400 has the same input as training example 17"},
      {SQ_VALID, SQ_TEST, 3, 499, "test example 499 has the same input as validation example 3"},
  };
  for (size_t k = 0; k < COUNT(c); ++k) {
    p = distinct_rows();
    memcpy(p.row[c[k].b][c[k].j], p.row[c[k].a][c[k].i], sizeof p.row[0][0]);
    sq_error_clear();
    assert_int_equal(sq_task_check_disjoint(&p.base), SQ_ERR_DATA);
    snprintf(want, sizeof want, "task planted: %s; ", c[k].places);
    assert_ptr_equal(strstr(sq_error_text(), want), sq_error_text());
  }

  /* Data of others may repeat an input: that is only noted. */
  static sq_task_ops lenient;
  lenient = planted_ops;
  lenient.may_repeat = 1;
  p.base.ops = &lenient;
  sq_error_clear();
  assert_int_equal(sq_task_check_disjoint(&p.base), SQ_OK);

  /* The beginning of another sequence is not that sequence. */
  p = distinct_rows();
  memcpy(p.row[SQ_TEST][0], p.row[SQ_TRAIN][0], sizeof p.row[0][0]);
  p.n[SQ_TEST][0] = STEPS - 1;
  sq_error_clear();
  assert_int_equal(sq_task_check_disjoint(&p.base), SQ_OK);
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(every_task_is_found_by_its_name),
      cmocka_unit_test(shapes_are_known_without_data),
      cmocka_unit_test(published_sizes_are_the_defaults),
      cmocka_unit_test(impossible_configurations_are_refused),
      cmocka_unit_test(batches_are_packed_or_padded),
      cmocka_unit_test(padding_has_no_label),
      cmocka_unit_test(an_equal_input_is_found_wherever_it_is),
  };
  return cmocka_run_group_tests(test, make_data, remove_data);
}
