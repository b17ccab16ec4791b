/* tests/config_schema.h: a small schema and files in a temporary folder, for the tests of the config module.
 */
#pragma once

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/config.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static inline sq_status mqar_condition(const sq_config *c)
{
  const int T = sq_config_int(c, "dataset.input_seq_length"), K = sq_config_int(c, "dataset.num_kv_pairs");
  if (T >= 4 * K) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "dataset.input_seq_length: is %d, expected at least %d", T, 4 * K);
}

static inline sq_status transformer_condition(const sq_config *c)
{
  const int H = sq_config_int(c, "model.num_heads"), D = sq_config_int(c, "model.hidden_dim");
  if (D % H == 0) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "model.num_heads: is %d, expected a divisor of hidden_dim %d", H, D);
}

static inline const sq_schema *test_schema(void)
{
  static const sq_key common[] = {
      {"train.lr", SQ_KEY_REAL, NULL, 0, 1e300, NULL, "rate"},
      {"seed", SQ_KEY_INT, "1919", 0, INT_MAX, NULL, "seed"},
      {"dataset._name_", SQ_KEY_STRING, NULL, 0, 0, "mqar|listops", "task"},
      {"dataset.data_dir", SQ_KEY_STRING, "null", 0, 0, NULL, "folder"},
      {"train.batch_size", SQ_KEY_INT, NULL, 1, 65536, NULL, "sequences"},
      {"train.betas", SQ_KEY_REALS, "[0.9, 0.999]", 0, 0.9999999, NULL, "decay rates"},
      {"train.total_steps", SQ_KEY_INT, "null", 1, INT_MAX, NULL, "steps"},
      {"train.wd", SQ_KEY_REAL, "0.1", 0, 1, NULL, "decay"},
      {"model.layer", SQ_KEY_STRING, NULL, 0, 0, NULL, "backbone"},
      {"analysis.protocols", SQ_KEY_STRINGS, "[\"dsf\"]", 0, 0, "dsf|published", "protocols"},
      {"analysis.batch_size", SQ_KEY_INT, "64", 1, 1000, NULL, "sequences"},
      {"run.team", SQ_KEY_STRING, "auto", 0, 0, "auto|off", "team"},
  };
  static const sq_key mqar[] = {
      {"dataset.input_seq_length", SQ_KEY_INT, NULL, 4, 4096, NULL, "steps"},
      {"dataset.num_kv_pairs", SQ_KEY_INT, NULL, 1, 1024, NULL, "pairs"},
  };
  static const sq_key listops[] = {{"dataset.max_depth", SQ_KEY_INT, "10", 1, 100, NULL, "depth"}};
  static const sq_key transformer[] = {
      {"model.num_layers", SQ_KEY_INT, NULL, 1, 1024, NULL, "blocks"},
      {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 65536, NULL, "width"},
      {"model.num_heads", SQ_KEY_INT, "1", 1, 64, NULL, "heads"},
      {"model.use_gate", SQ_KEY_BOOL, "false", 0, 0, NULL, "gate"},
      {"model.dropout", SQ_KEY_REAL, "0", 0, 0.999, NULL, "rate"},
      {"model.attention_fn", SQ_KEY_STRING, NULL, 0, 0, "sm-attention|lin-attention|norm-attention",
       "attention"},
  };
  static const sq_key norm[] = {
      {"model.norm_fn", SQ_KEY_STRING, NULL, 0, 0, "exp|elu|softplus|sigmoid", "f"},
      {"model.approx_fn", SQ_KEY_STRING, "\"none\"", 0, 0, "none|elu", "phi"},
  };
  static const sq_key ssm[] = {
      {"model.num_layers", SQ_KEY_INT, NULL, 1, 8, NULL, "blocks"},
      {"model.dt_min", SQ_KEY_REAL, "0.001", 0, 1, NULL, "step"},
  };
  static const sq_keyset sets[] = {
      {"model.attention_fn=norm-attention", norm, COUNT(norm), NULL},
      {"", common, COUNT(common), NULL},
      {"dataset._name_=mqar", mqar, COUNT(mqar), mqar_condition},
      {"dataset._name_=listops", listops, COUNT(listops), NULL},
      {"model.layer=transformer", transformer, COUNT(transformer), transformer_condition},
      {"model.layer=ssm", ssm, COUNT(ssm), NULL},
      {"model.elsewhere=x", NULL, 0, NULL}, /* a key that this schema lacks: never applies */
  };
  static const sq_keyset *const list[] = {&sets[0], &sets[1], &sets[2], &sets[3],
                                          &sets[4], &sets[5], &sets[6]};
  static const sq_schema schema = {list, COUNT(list)};
  return &schema;
}

/* In the tests' JSON a single quote stands for a double one. */
#define MQAR  "'dataset':{'_name_':'mqar','input_seq_length':64,'num_kv_pairs':4}"
#define TRAIN "'train':{'lr':0.001,'batch_size':64}"
#define SM    "'model':{'layer':'transformer','num_layers':2,'hidden_dim':64,'attention_fn':'sm-attention'}"
#define NORM                                                                                                 \
  "'model':{'layer':'transformer','num_layers':2,'hidden_dim':64,'attention_fn':'norm-attention','norm_fn':" \
  "'exp'}"
#define SSM  "'model':{'layer':'ssm','num_layers':2}"
#define CELL "{" MQAR "," TRAIN "," SM "}"

static inline void write_bytes(const char *path, const char *text, size_t n)
{
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

static inline void write_json(const char *path, const char *text)
{
  char *copy = strdup(text);
  assert_non_null(copy);
  for (char *c = copy; *c != '\0'; ++c)
    if (*c == '\'') *c = '"';
  write_bytes(path, copy, strlen(copy));
  free(copy);
}

/* Group fixtures: an empty folder, in which the test then works. */
static char test_folder[64];
static inline int enter_folder(void **state)
{
  (void)state;
  strcpy(test_folder, "/tmp/sq-config-XXXXXX");
  return mkdtemp(test_folder) == NULL || chdir(test_folder) != 0;
}
static inline int leave_folder(void **state)
{
  char command[128];
  (void)state;
  sq_format(command, sizeof command, "rm -r '%s'", test_folder);
  return chdir("/") != 0 || system(command) != 0;
}

static inline sq_experiment *load(const char *path)
{
  sq_experiment *e = NULL;
  sq_error_clear();
  if (sq_experiment_load(test_schema(), path, 0, NULL, &e) != SQ_OK) fail_msg("%s", sq_error_text());
  return e;
}
