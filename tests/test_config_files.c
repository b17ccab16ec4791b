/* tests/test_config_files.c: every file under configs/, with the key tables that the program uses. */
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "sq/base.h"
#include "sq/spectra.h"
#include "sq/train.h"

#define CONFIGS   SQ_SOURCE_DIR "/configs"
#define PUBLISHED SQ_SOURCE_DIR "/../shared/design/published-hyperparameters.json"
#define MAX_SETS  64

static const sq_schema *program_schema(void)
{
  static const sq_keyset *set[MAX_SETS];
  static sq_schema schema = {set, 0};
  int n = 0;
  if (schema.nset > 0) return &schema;
  n += sq_train_keysets(set + n, MAX_SETS - n);
  assert_true(n <= MAX_SETS);
  n += sq_task_keysets(set + n, MAX_SETS - n);
  assert_true(n <= MAX_SETS);
  n += sq_model_keysets(set + n, MAX_SETS - n);
  assert_true(n <= MAX_SETS);
  n += sq_spectra_keysets(set + n, MAX_SETS - n);
  assert_true(n <= MAX_SETS);
  schema.nset = n;
  return &schema;
}

static sq_experiment *load(const char *path)
{
  sq_experiment *e = NULL;
  sq_error_clear();
  if (sq_experiment_load(program_schema(), path, 0, NULL, &e) != SQ_OK) fail_msg("%s", sq_error_text());
  return e;
}

static int files, refused, changed;

static int load_and_read_back(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
  const size_t n = strlen(path);
  sq_experiment *e = NULL;
  (void)info;
  (void)walk;
  if (kind != FTW_F || n < 5 || strcmp(path + n - 5, ".json") != 0) return 0;
  ++files;
  sq_error_clear();
  if (sq_experiment_load(program_schema(), path, 0, NULL, &e) != SQ_OK) {
    print_error("%s\n", sq_error_text());
    ++refused;
    return 0;
  }
  for (int i = 0; i < sq_experiment_ncell(e); ++i) {
    const char *json = sq_config_json(sq_experiment_cell(e, i));
    sq_experiment *again = NULL;
    if (sq_experiment_parse(program_schema(), json, "resolved", &again) != SQ_OK) {
      print_error("%s: resolved cell %d: %s\n", path, i, sq_error_text());
      ++changed;
    } else if (strcmp(sq_config_json(sq_experiment_cell(again, 0)), json) != 0) {
      print_error("%s: resolved cell %d reads back as another\n", path, i);
      ++changed;
    }
    sq_experiment_destroy(&again);
  }
  sq_experiment_destroy(&e);
  return 0;
}

static void every_file_loads_and_its_resolved_cells_read_back_the_same(void **state)
{
  (void)state;
  sq_log_quiet(1);
  assert_int_equal(nftw(CONFIGS, load_and_read_back, 16, FTW_PHYS), 0);
  sq_log_quiet(0);
  print_message("%d files\n", files);
  assert_true(files >= 10);
  assert_int_equal(refused, 0);
  assert_int_equal(changed, 0);
}

static void the_quickstart_shows_attention_with_and_without_convolution_on_both_tasks(void **state)
{
  int with[2] = {0, 0}, without[2] = {0, 0};
  (void)state;
  sq_experiment *e = load(CONFIGS "/quickstart.json");
  for (int i = 0; i < sq_experiment_ncell(e); ++i) {
    const sq_config *c = sq_experiment_cell(e, i);
    const int task = strcmp(sq_config_task_label(c), "mqar") == 0;
    if (strcmp(sq_config_string(c, "model.layer"), "transformer") != 0) continue;
    ++*(sq_config_int(c, "model.dim_conv") > 0 ? &with[task] : &without[task]);
  }
  assert_true(with[1] >= 2 && without[1] >= 1 && with[0] >= 1 && without[0] >= 1);
  sq_experiment_destroy(&e);
}

static void the_quickstart_shows_mamba2_with_convolution_and_a_time_invariant_layer(void **state)
{
  int mamba = 0, invariant = 0;
  (void)state;
  sq_experiment *e = load(CONFIGS "/quickstart.json");
  for (int i = 0; i < sq_experiment_ncell(e); ++i) {
    const sq_config *c = sq_experiment_cell(e, i);
    const char *layer = sq_config_string(c, "model.layer");
    const sq_mixer_ops *mixer = sq_mixer_find(layer);
    mamba += strcmp(layer, "mamba") == 0 && sq_config_int(c, "model.conv_dim") > 0;
    invariant += mixer != NULL && mixer->lti != NULL;
  }
  assert_true(mamba >= 1 && invariant >= 1);
  sq_experiment_destroy(&e);
}

/* One small MQAR configuration for each kind of layer, all in one grid of three seeds. */
static void the_grid_of_all_small_mqar_models_has_every_layer_and_three_seeds(void **state)
{
  enum { MAMBA, MAMBA_PLAIN, MAMBA_LTI, S4, S5, LRU, SOFTMAX, SOFTMAX_CONV, LINEAR, NORM, COUNT };
  static const char *const name[COUNT] = {
      "mqar-mamba2-conv", "mqar-mamba2",  "mqar-mamba2-lti-conv", "mqar-s4",     "mqar-s5",
      "mqar-lru",         "mqar-softmax", "mqar-softmax-conv",    "mqar-linear", "mqar-norm-conv"};
  int cells[COUNT] = {0};
  (void)state;
  sq_log_quiet(1);
  sq_experiment *e = load(CONFIGS "/grids/mini-mqar-all.json");
  sq_log_quiet(0);
  for (int i = 0; i < sq_experiment_ncell(e); ++i)
    for (int k = 0; k < COUNT; ++k)
      cells[k] += strcmp(sq_config_model_label(sq_experiment_cell(e, i)), name[k]) == 0;
  for (int k = 0; k < COUNT; ++k) assert_int_equal(cells[k], 3);
  assert_int_equal(sq_experiment_ncell(e), 3 * COUNT);
  sq_experiment_destroy(&e);
}

/* Full-size and small grids hold the same models. */
static void a_mini_grid_has_the_models_of_its_full_size_grid(void **state)
{
  static const char *const pair[][2] = {
      {CONFIGS "/grids/mqar-attention.json", CONFIGS "/grids/mini-mqar-attention.json"},
      {CONFIGS "/grids/mqar-ssm.json", CONFIGS "/grids/mini-mqar-ssm.json"},
      {CONFIGS "/grids/listops-attention.json", CONFIGS "/grids/mini-listops-attention.json"},
      {CONFIGS "/grids/main.json", CONFIGS "/grids/mini-main.json"},
      {CONFIGS "/grids/normalisation.json", CONFIGS "/grids/mini-normalisation.json"},
      {CONFIGS "/grids/convolution.json", CONFIGS "/grids/mini-convolution.json"},
      {CONFIGS "/grids/gating.json", CONFIGS "/grids/mini-gating.json"},
      {CONFIGS "/grids/depth.json", CONFIGS "/grids/mini-depth.json"},
      {CONFIGS "/grids/pseudo-lti.json", CONFIGS "/grids/mini-pseudo-lti.json"},
      {CONFIGS "/grids/learning-rate.json", CONFIGS "/grids/mini-learning-rate.json"}};
  (void)state;
  sq_log_quiet(1);
  for (size_t k = 0; k < sizeof pair / sizeof *pair; ++k) {
    sq_experiment *full = load(pair[k][0]), *mini = load(pair[k][1]);
    for (int i = 0; i < sq_experiment_ncell(full); ++i) {
      int found = 0;
      for (int j = 0; j < sq_experiment_ncell(mini) && !found; ++j)
        found = strcmp(sq_config_model_label(sq_experiment_cell(full, i)),
                       sq_config_model_label(sq_experiment_cell(mini, j))) == 0;
      assert_true(found);
    }
    sq_experiment_destroy(&full);
    sq_experiment_destroy(&mini);
  }
  sq_log_quiet(0);
}

/* What makes a model what it is: everything but its size. */
static void small_cells_are_the_published_models_at_another_size(void **state)
{
  static const char *const kind[] = {
      "model.layer",    "model.attention_fn", "model.norm_fn",     "model.approx_fn",      "model.scale_B",
      "model.offset",   "model.mixer",        "model.offset_init", "model.embedding",      "model.pooling",
      "model.norm",     "model.prenorm",      "model.activation",  "model.dim_conv",       "model.classifier",
      "model.conv_dim", "model.expansion",    "model.glu",         "model.token_embedding"};
  int compared = 0;
  (void)state;
  sq_log_quiet(1);
  sq_experiment *full = load(CONFIGS "/grids/main.json"), *mini = load(CONFIGS "/grids/mini-main.json");
  for (int i = 0; i < sq_experiment_ncell(full); i += 4) /* one of four seeds */
    for (int j = 0; j < sq_experiment_ncell(mini); ++j) {
      const sq_config *a = sq_experiment_cell(full, i), *b = sq_experiment_cell(mini, j);
      if (strcmp(sq_config_model_label(a), sq_config_model_label(b)) != 0) continue;
      assert_string_equal(sq_config_task_label(a), sq_config_task_label(b));
      cJSON *x = cJSON_Parse(sq_config_json(a)), *y = cJSON_Parse(sq_config_json(b));
      for (size_t k = 0; k < sizeof kind / sizeof *kind; ++k) {
        const cJSON *u = cJSON_GetObjectItem(cJSON_GetObjectItem(x, "model"), kind[k] + 6);
        const cJSON *v = cJSON_GetObjectItem(cJSON_GetObjectItem(y, "model"), kind[k] + 6);
        if ((u == NULL) != (v == NULL) || (u != NULL && !cJSON_Compare(u, v, 1)))
          fail_msg("%s: %s is another in the small cell", sq_config_model_label(a), kind[k]);
      }
      cJSON_Delete(x);
      cJSON_Delete(y);
      ++compared;
    }
  sq_log_quiet(0);
  assert_int_equal(compared, 30);
  sq_experiment_destroy(&full);
  sq_experiment_destroy(&mini);
}

/* ---- against the published list ---------------------------------------------------------------------- */
static cJSON *read_json(const char *path)
{
  size_t bytes = 0;
  sq_status st = SQ_OK;
  char *text = sq_read_file(path, &bytes, &st);
  if (text == NULL) return NULL;
  cJSON *j = cJSON_Parse(text);
  free(text);
  return j;
}

/* Of a JSON value, whatever the order of its members and the blanks: every leaf's path and value, added up. */
static uint64_t sum_of(const cJSON *j, uint64_t path)
{
  const cJSON *k;
  uint64_t sum = 0;
  int i = 0;
  if (!cJSON_IsObject(j) && !cJSON_IsArray(j)) {
    char *text = cJSON_PrintUnformatted(j);
    assert_non_null(text);
    sum = sq_hash(path, text, strlen(text));
    cJSON_free(text);
    return sum;
  }
  cJSON_ArrayForEach(k, j)
  {
    const uint64_t step =
        k->string != NULL ? sq_hash(path, k->string, strlen(k->string) + 1) : sq_hash(path, &i, sizeof i);
    sum += sum_of(k, step);
    ++i;
  }
  return sum;
}

/* Every published cell and sweep: its name, our file, and the sum of its content. */
typedef struct {
  const char *group, *name, *file;
  uint64_t sum;
} entry;
static const entry published_entry[] = {
    {"cifar", "cifar-lin-attention", "cifar/cifar-lin-attention.json", UINT64_C(0xbf84b2ecdbd73208)},
    {"cifar", "cifar-lin-attention-conv", "cifar/cifar-lin-attention-conv.json",
     UINT64_C(0x070be01da594ba1b)},
    {"cifar", "cifar-lin-attention-gating", "cifar/cifar-lin-attention-gating.json",
     UINT64_C(0x91f434a2ceb47543)},
    {"cifar", "cifar-lru", "cifar/cifar-lru.json", UINT64_C(0x31690eb282790264)},
    {"cifar", "cifar-mamba2", "cifar/cifar-mamba2.json", UINT64_C(0x08406afeee792397)},
    {"cifar", "cifar-mamba2-pseudoLTI", "cifar/cifar-mamba2-pseudoLTI.json", UINT64_C(0xb3aaff4b599ffa94)},
    {"cifar", "cifar-norm-attention-conv", "cifar/cifar-norm-attention-conv.json",
     UINT64_C(0x4295e232c83054f2)},
    {"cifar", "cifar-norm-attention-elu", "cifar/cifar-norm-attention-elu.json",
     UINT64_C(0x87f716bd46939ca4)},
    {"cifar", "cifar-norm-attention-exp", "cifar/cifar-norm-attention-exp.json",
     UINT64_C(0x353ee0bda8bc24af)},
    {"cifar", "cifar-norm-attention-gating", "cifar/cifar-norm-attention-gating.json",
     UINT64_C(0x150567e8bb0d9ef9)},
    {"cifar", "cifar-norm-attention-noconv", "cifar/cifar-norm-attention-noconv.json",
     UINT64_C(0x4295e632c8305bbe)},
    {"cifar", "cifar-norm-attention-sigmoid", "cifar/cifar-norm-attention-sigmoid.json",
     UINT64_C(0x0dfbbf826a51e518)},
    {"cifar", "cifar-s4", "cifar/cifar-s4.json", UINT64_C(0xbada107bed5a07ad)},
    {"cifar", "cifar-sm-attention", "cifar/cifar-sm-attention.json", UINT64_C(0x3e92732153981108)},
    {"cifar", "cifar-sm-attention-conv", "cifar/cifar-sm-attention-conv.json", UINT64_C(0x8619a0521d55991b)},
    {"imdb", "imdb-lin-attention", "imdb/imdb-lin-attention.json", UINT64_C(0x6d8ae073bbf17cd1)},
    {"imdb", "imdb-lru", "imdb/imdb-lru.json", UINT64_C(0x990a2ec1592e83bb)},
    {"imdb", "imdb-mamba2", "imdb/imdb-mamba2.json", UINT64_C(0x4ffc7633acb08d45)},
    {"imdb", "imdb-norm-attention-conv", "imdb/imdb-norm-attention-conv.json", UINT64_C(0xb4a3d7de03ec3a31)},
    {"imdb", "imdb-s4", "imdb/imdb-s4.json", UINT64_C(0xb5eed6684a8244be)},
    {"imdb", "imdb-sm-attention", "imdb/imdb-sm-attention.json", UINT64_C(0x50f1b0871f0ac87e)},
    {"listops", "listops-lin-attention", "listops/listops-lin-attention.json", UINT64_C(0x0624e9fc87c86441)},
    {"listops", "listops-lru", "listops/listops-lru.json", UINT64_C(0x83c5fa0e19e57b0b)},
    {"listops", "listops-mamba2", "listops/listops-mamba2.json", UINT64_C(0x34f1499b0d823f5b)},
    {"listops", "listops-norm-attention-conv", "listops/listops-norm-attention-conv.json",
     UINT64_C(0x56528e8a864895e0)},
    {"listops", "listops-s4", "listops/listops-s4.json", UINT64_C(0xfc63a341368e3cdb)},
    {"listops", "listops-sm-attention", "listops/listops-sm-attention.json", UINT64_C(0x72968f63cf5c1d86)},
    {"mqar", "mqar-lin-attention", "mqar/mqar-lin-attention.json", UINT64_C(0x3d54438cf634982b)},
    {"mqar", "mqar-lru", "mqar/mqar-lru.json", UINT64_C(0x77027489fdbe5ac8)},
    {"mqar", "mqar-mamba2", "mqar/mqar-mamba2.json", UINT64_C(0x0a73dac89bda7208)},
    {"mqar", "mqar-norm-attention-conv", "mqar/mqar-norm-attention-conv.json", UINT64_C(0xb4cd602c1b253024)},
    {"mqar", "mqar-s4", "mqar/mqar-s4.json", UINT64_C(0x41fc142bb62dd47f)},
    {"mqar", "mqar-sm-attention", "mqar/mqar-sm-attention.json", UINT64_C(0x62d6b7501b73ba25)},
    {"wikitext", "wikitext-103-lin-attention", "wikitext/wikitext-103-lin-attention.json",
     UINT64_C(0x6999f0e91c978922)},
    {"wikitext", "wikitext-103-lru", "wikitext/wikitext-103-lru.json", UINT64_C(0x919264ffa2e43568)},
    {"wikitext", "wikitext-103-mamba2", "wikitext/wikitext-103-mamba2.json", UINT64_C(0x174c7fe09ed2c6ee)},
    {"wikitext", "wikitext-103-norm-attention-conv", "wikitext/wikitext-103-norm-attention-conv.json",
     UINT64_C(0x40dd209534e5e2e6)},
    {"wikitext", "wikitext-103-s4", "wikitext/wikitext-103-s4.json", UINT64_C(0x1cc15cd8068283d5)},
    {"wikitext", "wikitext-103-sm-attention", "wikitext/wikitext-103-sm-attention.json",
     UINT64_C(0x7e1aa6e9ec5ac1da)},
    {"sweep", "cifar/num_layers/cifar-sm-attention", "grids/cifar-num-layers-sm-attention.json",
     UINT64_C(0xc7a6115901506772)},
    {"sweep", "mqar/num_layers/mqar-mamba2", "grids/mqar-num-layers-mamba2.json",
     UINT64_C(0xfe19970460f0afdf)},
    {"sweep", "mqar/num_layers/mqar-sm-attention", "grids/mqar-num-layers-sm-attention.json",
     UINT64_C(0x5fe6c43374ea0348)},
    {"sweep", "mqar/seeds/mqar-sm-attention", "grids/mqar-seeds-sm-attention.json",
     UINT64_C(0xfbb6d09ad39e795c)},
};
enum { ENTRIES = sizeof published_entry / sizeof *published_entry };

static void every_published_cell_and_sweep_is_here_unchanged(void **state)
{
  char path[512];
  (void)state;
  assert_int_equal(ENTRIES, 39 + 4);
  for (int i = 0; i < ENTRIES; ++i) {
    sq_format(path, sizeof path, "%s/%s", CONFIGS, published_entry[i].file);
    cJSON *ours = read_json(path);
    if (ours == NULL) fail_msg("%s: missing or not JSON", path);
    if (sum_of(ours, SQ_HASH_START) != published_entry[i].sum)
      fail_msg("%s: is no longer the published configuration (sum 0x%016" PRIx64 ")", path,
               sum_of(ours, SQ_HASH_START));
    cJSON_Delete(ours);
  }
}

static void the_files_equal_the_published_list_entry_by_entry(void **state)
{
  static const char *const group[] = {"cifar", "imdb", "listops", "mqar", "wikitext", "sweep"};
  char path[512];
  int listed = 0;
  (void)state;
  if (access(PUBLISHED, R_OK) != 0) {
    print_message("skipped: no %s\n", PUBLISHED);
    skip();
  }
  cJSON *all = read_json(PUBLISHED);
  assert_non_null(all);
  for (size_t g = 0; g < sizeof group / sizeof *group; ++g)
    listed += cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(all, group[g]));
  assert_int_equal(listed, ENTRIES);
  for (int i = 0; i < ENTRIES; ++i) {
    const entry *e = &published_entry[i];
    const cJSON *theirs =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(all, e->group), e->name);
    if (theirs == NULL) fail_msg("%s/%s: not in the published list", e->group, e->name);
    sq_format(path, sizeof path, "%s/%s", CONFIGS, e->file);
    cJSON *ours = read_json(path);
    if (ours == NULL || !cJSON_Compare(ours, theirs, 1))
      fail_msg("%s: differs from the published configuration", path);
    cJSON_Delete(ours);
  }
  cJSON_Delete(all);
}

/* A published entry is a valid file as it is. */
static void every_published_entry_is_accepted_as_it_is(void **state)
{
  static const char *const group[] = {"cifar", "imdb", "listops", "mqar", "wikitext"};
  int accepted = 0;
  (void)state;
  if (access(PUBLISHED, R_OK) != 0) {
    print_message("skipped: no %s\n", PUBLISHED);
    skip();
  }
  cJSON *all = read_json(PUBLISHED);
  assert_non_null(all);
  sq_log_quiet(1);
  for (size_t g = 0; g < sizeof group / sizeof *group; ++g) {
    const cJSON *k;
    cJSON_ArrayForEach(k, cJSON_GetObjectItemCaseSensitive(all, group[g]))
    {
      const char *task = cJSON_GetStringValue(
          cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(k, "dataset"), "_name_"));
      sq_experiment *e = NULL;
      if (task == NULL || sq_task_find(task) == NULL) fail_msg("%s: no such task", k->string);
      char *text = cJSON_PrintUnformatted(k);
      if (sq_experiment_parse(program_schema(), text, k->string, &e) != SQ_OK)
        fail_msg("%s", sq_error_text());
      cJSON_free(text);
      sq_experiment_destroy(&e);
      ++accepted;
    }
  }
  sq_log_quiet(0);
  assert_int_equal(accepted, 39);
  cJSON_Delete(all);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_file_loads_and_its_resolved_cells_read_back_the_same),
      cmocka_unit_test(the_quickstart_shows_attention_with_and_without_convolution_on_both_tasks),
      cmocka_unit_test(the_quickstart_shows_mamba2_with_convolution_and_a_time_invariant_layer),
      cmocka_unit_test(the_grid_of_all_small_mqar_models_has_every_layer_and_three_seeds),
      cmocka_unit_test(a_mini_grid_has_the_models_of_its_full_size_grid),
      cmocka_unit_test(small_cells_are_the_published_models_at_another_size),
      cmocka_unit_test(every_published_cell_and_sweep_is_here_unchanged),
      cmocka_unit_test(the_files_equal_the_published_list_entry_by_entry),
      cmocka_unit_test(every_published_entry_is_accepted_as_it_is),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
