/* src/task/lag_copy.c: copy at a fixed lag, made on the fly: the label of step t is the token of step t - lag.
 *
 * Its truth is known: a linear layer needs a state that holds the last `lag` tokens. */
#include "made.h"

extern const sq_task_ops sq_task_lag_copy;

static const sq_key key[] = {
    {"dataset.vocab_size", SQ_KEY_INT, "16", 2, 65536, NULL, "tokens, drawn uniformly"},
    {"dataset.input_seq_length", SQ_KEY_INT, "256", 2, MADE_MAX_T, NULL, "steps, more than lag"},
    {"dataset.lag", SQ_KEY_INT, "16", 0, MADE_MAX_T - 1, NULL, "steps back"},
    MADE_SIZE_KEYS,
};

static sq_status conditions(const sq_config *c)
{
  const int T = sq_config_int(c, "dataset.input_seq_length"), lag = sq_config_int(c, "dataset.lag");
  if (lag < T) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "dataset.lag: %d; expected less than input_seq_length %d", lag, T);
}

static const sq_keyset keys = {"dataset._name_=lag_copy", key, sizeof key / sizeof *key, conditions};

static sq_status shape(const sq_config *c, sq_task_info *info)
{
  const int V = sq_config_int(c, "dataset.vocab_size"), T = sq_config_int(c, "dataset.input_seq_length");
  sq_made_shape(c, T, V, V, T - sq_config_int(c, "dataset.lag"), info);
  return SQ_OK;
}

static sq_status open_made(const sq_config *c, sq_task **t)
{
  const int lag = sq_config_int(c, "dataset.lag");
  return sq_made_open(&sq_task_lag_copy, c, 1, &lag, t);
}

static void example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const made_task *m = (const made_task *)t;
  const int lag = m->p[0];
  sq_rng r;
  sq_made_rng(t, MADE_LAG_COPY, split, i, &r);
  for (int k = 0; k < m->info.seq_len; ++k) {
    token[k] = (int32_t)sq_rng_below(&r, (uint32_t)m->info.vocab_size);
    label[k] = k < lag ? SQ_IGNORE : token[k - lag];
  }
}

const sq_task_ops sq_task_lag_copy = {
    .name = "lag_copy",
    .keys = &keys,
    .open = open_made,
    .close = sq_made_close,
    .info = sq_made_info,
    .shape = shape,
    .length = sq_made_length,
    .example = example,
    .about = "Copy at a fixed lag: the token of some steps ago; accuracy.\nMade while training, no files.\n"};
