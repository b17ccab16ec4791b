/* tests/test_config_files.c: every file under configs/, with the key tables that the program uses. */
#include <ftw.h>
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
      {CONFIGS "/grids/listops-attention.json", CONFIGS "/grids/mini-listops-attention.json"}};
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

static void expect_file(const char *path, const cJSON *published)
{
  cJSON *ours = read_json(path);
  if (ours == NULL) fail_msg("%s: missing or not JSON", path);
  if (!cJSON_Compare(ours, published, 1)) fail_msg("%s: differs from the published configuration", path);
  cJSON_Delete(ours);
}

static void published_cells_and_sweeps_are_here_unchanged(void **state)
{
  static const char *const task[] = {"mqar", "listops"};
  static const char *const sweep[][2] = {
      {"mqar/num_layers/mqar-sm-attention", "mqar-num-layers-sm-attention"},
      {"mqar/num_layers/mqar-mamba2", "mqar-num-layers-mamba2"},
      {"mqar/seeds/mqar-sm-attention", "mqar-seeds-sm-attention"}};
  char path[512];
  int cells = 0;
  (void)state;
  if (access(PUBLISHED, R_OK) != 0) {
    print_message("skipped: no %s\n", PUBLISHED);
    skip();
  }
  cJSON *all = read_json(PUBLISHED);
  assert_non_null(all);
  for (int t = 0; t < 2; ++t) {
    const cJSON *k;
    cJSON_ArrayForEach(k, cJSON_GetObjectItemCaseSensitive(all, task[t]))
    {
      sq_format(path, sizeof path, "%s/%s/%s.json", CONFIGS, task[t], k->string);
      expect_file(path, k);
      ++cells;
    }
  }
  for (size_t i = 0; i < sizeof sweep / sizeof *sweep; ++i) {
    sq_format(path, sizeof path, "%s/grids/%s.json", CONFIGS, sweep[i][1]);
    expect_file(
        path, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(all, "sweep"), sweep[i][0]));
  }
  assert_int_equal(cells, 12);
  cJSON_Delete(all);
}

/* The published entries of all tasks are valid as they are, as far as this version has the task. */
static void every_published_entry_of_a_known_task_is_accepted_as_it_is(void **state)
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
      if (task == NULL || sq_task_find(task) == NULL) continue;
      char *text = cJSON_PrintUnformatted(k);
      if (sq_experiment_parse(program_schema(), text, k->string, &e) != SQ_OK)
        fail_msg("%s", sq_error_text());
      cJSON_free(text);
      sq_experiment_destroy(&e);
      ++accepted;
    }
  }
  sq_log_quiet(0);
  assert_true(accepted >= 12);
  cJSON_Delete(all);
}

/* The models of the tasks that are not here yet: their part alone. */
static void every_published_model_of_these_families_is_accepted_as_it_is(void **state)
{
  static const char *const group[] = {"cifar", "imdb", "listops", "mqar", "wikitext"};
  static const sq_keyset *set[MAX_SETS];
  const sq_schema models = {set, sq_model_keysets(set, MAX_SETS)};
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
      cJSON *model = cJSON_CreateObject();
      sq_experiment *e = NULL;
      cJSON_AddItemToObject(model, "model", cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(k, "model"), 1));
      char *text = cJSON_PrintUnformatted(model);
      if (sq_experiment_parse(&models, text, k->string, &e) != SQ_OK) fail_msg("%s", sq_error_text());
      cJSON_free(text);
      cJSON_Delete(model);
      sq_experiment_destroy(&e);
      ++accepted;
    }
  }
  sq_log_quiet(0);
  assert_true(accepted >= 39);
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
      cmocka_unit_test(published_cells_and_sweeps_are_here_unchanged),
      cmocka_unit_test(every_published_entry_of_a_known_task_is_accepted_as_it_is),
      cmocka_unit_test(every_published_model_of_these_families_is_accepted_as_it_is),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
