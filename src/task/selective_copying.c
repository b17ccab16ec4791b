/* src/task/selective_copying.c: selective copying, made on the fly.  Gu & Dao 2023, arXiv:2312.00752.
 *
 * T steps: num_tokens data tokens 1..V-2 at random places among the first T - num_tokens, 0 elsewhere, then
 * num_tokens markers V-1, whose labels are the data tokens in order. */
#include "made.h"

extern const sq_task_ops sq_task_selective_copying;

static const sq_key key[] = {
    {"dataset.vocab_size", SQ_KEY_INT, "16", 4, 65536, NULL, "blank 0, data 1..V-2, marker V-1"},
    {"dataset.input_seq_length", SQ_KEY_INT, "4096", 2, MADE_MAX_T, NULL, "steps, >= 2 num_tokens"},
    {"dataset.num_tokens", SQ_KEY_INT, "16", 1, MADE_MAX_T / 2, NULL, "data tokens to copy"},
    MADE_SIZE_KEYS,
};

static sq_status conditions(const sq_config *c)
{
  const int T = sq_config_int(c, "dataset.input_seq_length"), M = sq_config_int(c, "dataset.num_tokens");
  if (T >= 2 * M) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE,
                 "dataset.input_seq_length: %d is too short for num_tokens %d; expected at least %d", T, M,
                 2 * M);
}

static const sq_keyset keys = {"dataset._name_=selective_copying", key, sizeof key / sizeof *key, conditions};

static sq_status shape(const sq_config *c, sq_task_info *info)
{
  const int V = sq_config_int(c, "dataset.vocab_size");
  sq_made_shape(c, sq_config_int(c, "dataset.input_seq_length"), V, V, sq_config_int(c, "dataset.num_tokens"),
                info);
  return SQ_OK;
}

static sq_status open_made(const sq_config *c, sq_task **t)
{
  const int M = sq_config_int(c, "dataset.num_tokens");
  return sq_made_open(&sq_task_selective_copying, c, 1, &M, t);
}

static void example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const made_task *m = (const made_task *)t;
  const int T = m->info.seq_len, V = m->info.vocab_size, M = m->p[0], n = T - M;
  int done = 0;
  sq_rng r;
  sq_made_rng(t, MADE_SELECTIVE_COPYING, split, i, &r);
  for (int k = 0; k < n; ++k) { /* each choice of M places out of n equally likely */
    const int take = sq_rng_below(&r, (uint32_t)(n - k)) < (uint32_t)(M - done);
    token[k] = take ? 1 + (int32_t)sq_rng_below(&r, (uint32_t)(V - 2)) : 0;
    label[k] = SQ_IGNORE;
    if (take) label[n + done++] = token[k];
  }
  for (int k = n; k < T; ++k) token[k] = V - 1;
}

const sq_task_ops sq_task_selective_copying = {
    .name = "selective_copying",
    .keys = &keys,
    .open = open_made,
    .close = sq_made_close,
    .info = sq_made_info,
    .shape = shape,
    .length = sq_made_length,
    .example = example,
    .about = "Selective copying: tokens at random places among blanks, to be said in order at the end; "
             "accuracy.\nMade while training, no files.\n"};
