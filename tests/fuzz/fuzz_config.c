/* tests/fuzz/fuzz_config.c: configurations: a cell, or a grid whose base is a good cell.  What is accepted is resolved,
 * and its canonical text has to give the same cells again. */
#include "fuzz.h"
#include "sq/model.h"
#include "sq/train.h"

static const char base[] =
    "{\"dataset\":{\"_name_\":\"mqar\",\"input_seq_length\":32,\"num_kv_pairs\":4,\"vocab_size\":64},"
    "\"train\":{\"total_steps\":8,\"batch_size\":4,\"lr\":0.01},"
    "\"model\":{\"layer\":\"mamba\",\"num_layers\":1,\"hidden_dim\":8,\"state_dim\":4,\"num_heads\":2,\"conv_"
    "dim\":4,"
    "\"expansion\":1,\"glu\":true,\"prenorm\":true,\"vocab_size\":64,\"output_dim\":64,\"pooling\":\"none\"}"
    "}";

static const sq_schema *schema(void)
{
  static const sq_keyset *set[64];
  static sq_schema s;
  if (s.nset == 0) {
    int n = sq_train_keysets(set, 64);
    n += sq_task_keysets(set + n, 64 - n);
    n += sq_model_keysets(set + n, 64 - n);
    s = (sq_schema){set, n};
  }
  return &s;
}

static void check_refused(sq_status st)
{
  FUZZ_ASSERT(st == SQ_ERR_USAGE || st == SQ_ERR_DATA || st == SQ_ERR_MEMORY);
  FUZZ_ASSERT(*sq_error_text() != '\0' && strchr(sq_error_text(), '\n') == NULL);
  sq_error_clear();
}

static void check_accepted(const sq_experiment *e)
{
  FUZZ_ASSERT(sq_experiment_json(e) != NULL && sq_experiment_ncell(e) > 0);
  for (int i = 0; i < sq_experiment_ncell(e) && i < 4; ++i) {
    sq_experiment *again = NULL;
    char *text = strdup(sq_config_json(sq_experiment_cell(e, i)));
    FUZZ_ASSERT(text != NULL);
    const sq_status st = sq_experiment_parse(schema(), text, "again", &again);
    if (st != SQ_OK) fprintf(stderr, "%s\n%s\n", sq_error_text(), text);
    FUZZ_ASSERT(st == SQ_OK && sq_experiment_ncell(again) == 1);
    FUZZ_ASSERT(strcmp(sq_config_json(sq_experiment_cell(again, 0)), text) == 0);
    sq_experiment_destroy(&again);
    free(text);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static int ready;
  sq_experiment *e = NULL;
  sq_status st;
  if (n == 0) return 0;
  if (!ready) fuzz_write("base.json", base, strlen(base));
  ready = 1;
  sq_error_clear();
  if (data[0] % 2) {
    char *text = malloc(n);
    FUZZ_ASSERT(text != NULL);
    memcpy(text, data + 1, n - 1);
    text[n - 1] = '\0';
    st = sq_experiment_parse(schema(), text, "fuzz", &e);
    free(text);
  } else {
    const char *const set[] = {"train.lr=0.5"};
    fuzz_write("grid.json", data + 1, n - 1);
    st = sq_experiment_load(schema(), fuzz_path("grid.json"), data[0] / 2 % 2, set, &e);
  }
  if (st == SQ_OK)
    check_accepted(e);
  else
    check_refused(st);
  sq_experiment_destroy(&e);
  return 0;
}
