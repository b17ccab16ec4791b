/* src/task/induction_heads.c: induction heads, made on the fly.  Olsson et al. 2022, arXiv:2209.11895; the form
 * of Gu & Dao 2023, arXiv:2312.00752.
 *
 * Random tokens 0..V-2; the trigger V-1 stands at one random place and again at the last step, whose label is
 * the token that followed it the first time. */
#include "made.h"

extern const sq_task_ops sq_task_induction_heads;

static const sq_key key[] = {
    {"dataset.vocab_size", SQ_KEY_INT, "16", 3, 65536, NULL, "tokens 0..V-2 and the trigger V-1"},
    {"dataset.input_seq_length", SQ_KEY_INT, "256", 3, MADE_MAX_T, NULL, "steps"},
    MADE_SIZE_KEYS,
};
static const sq_keyset keys = {"dataset._name_=induction_heads", key, sizeof key / sizeof *key, NULL};

static sq_status shape(const sq_config *c, sq_task_info *info)
{
  const int V = sq_config_int(c, "dataset.vocab_size");
  sq_made_shape(c, sq_config_int(c, "dataset.input_seq_length"), V, V, 1, info);
  return SQ_OK;
}

static sq_status open_made(const sq_config *c, sq_task **t)
{
  return sq_made_open(&sq_task_induction_heads, c, 0, &(int){0}, t);
}

static void example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const sq_task_info *info = sq_made_info(t);
  const int T = info->seq_len, V = info->vocab_size;
  sq_rng r;
  sq_made_rng(t, MADE_INDUCTION_HEADS, split, i, &r);
  const int at = (int)sq_rng_below(&r, (uint32_t)(T - 2)); /* 0..T-3: its successor is not the last step */
  for (int k = 0; k < T; ++k) {
    token[k] = (int32_t)sq_rng_below(&r, (uint32_t)(V - 1));
    label[k] = SQ_IGNORE;
  }
  token[at] = token[T - 1] = V - 1;
  label[T - 1] = token[at + 1];
}

const sq_task_ops sq_task_induction_heads = {
    .name = "induction_heads",
    .keys = &keys,
    .open = open_made,
    .close = sq_made_close,
    .info = sq_made_info,
    .shape = shape,
    .length = sq_made_length,
    .example = example,
    .about = "Induction heads: what followed the trigger the first time; accuracy.\nMade while training, no "
             "files.\n"};
