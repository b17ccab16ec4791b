/* src/task/parity.c: sums modulo a number, made on the fly; modulus 2 of bits is parity.
 *
 * Tokens 0..symbols-1 are drawn uniformly, or all are 1; the label of a step is the sum of the tokens so far,
 * modulo `modulus`, at every step or at the last one.  Training and validation have one range of lengths, the test
 * another: linear recurrences of finite precision whose eigenvalues are all positive cannot do parity at
 * lengths that they have not seen (Grazzi et al. 2024, arXiv:2411.12537). */
#include <string.h>

#include "made.h"

extern const sq_task_ops sq_task_parity;

enum { MODULUS, SYMBOLS, ONES, LAST, SHORTEST, LONGEST, TEST_SHORTEST, TEST_LONGEST, NOWN }; /* in p */

static const sq_key key[] = {
    {"dataset.modulus", SQ_KEY_INT, "2", 2, 65536, NULL, "labels are 0..modulus-1"},
    {"dataset.symbols", SQ_KEY_INT, "2", 2, 65536, NULL, "tokens 0..symbols-1"},
    {"dataset.tokens", SQ_KEY_STRING, "\"random\"", 0, 0, "random|ones",
     "ones: every token is 1, so that the label is the number of steps"},
    {"dataset.labels", SQ_KEY_STRING, "\"all\"", 0, 0, "all|last", "steps with a label"},
    {"dataset.min_length", SQ_KEY_INT, "3", 1, MADE_MAX_T, NULL, "training and validation"},
    {"dataset.max_length", SQ_KEY_INT, "40", 1, MADE_MAX_T, NULL, "training and validation"},
    {"dataset.test_min_length", SQ_KEY_INT, "41", 1, MADE_MAX_T, NULL, "test"},
    {"dataset.test_max_length", SQ_KEY_INT, "256", 1, MADE_MAX_T, NULL, "test"},
    MADE_SIZE_KEYS,
};

static sq_status check_range(const sq_config *c, const char *lo, const char *hi)
{
  if (sq_config_int(c, lo) <= sq_config_int(c, hi)) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "%s: %d; expected at most %s %d", lo, sq_config_int(c, lo), hi + 8,
                 sq_config_int(c, hi)); /* hi without "dataset." */
}

static sq_status conditions(const sq_config *c)
{
  const sq_status st = check_range(c, "dataset.min_length", "dataset.max_length");
  return st != SQ_OK ? st : check_range(c, "dataset.test_min_length", "dataset.test_max_length");
}

static const sq_keyset keys = {"dataset._name_=parity", key, sizeof key / sizeof *key, conditions};

static int all_ones(const sq_config *c)
{
  return strcmp(sq_config_string(c, "dataset.tokens"), "ones") == 0;
}

static int last_only(const sq_config *c)
{
  return strcmp(sq_config_string(c, "dataset.labels"), "last") == 0;
}

static sq_status shape(const sq_config *c, sq_task_info *info)
{
  const int train = sq_config_int(c, "dataset.max_length"),
            test = sq_config_int(c, "dataset.test_max_length");
  const int T = train > test ? train : test;
  sq_made_shape(c, T, sq_config_int(c, "dataset.symbols"), sq_config_int(c, "dataset.modulus"),
                last_only(c) ? 1 : T, info);
  return SQ_OK;
}

static sq_status open_made(const sq_config *c, sq_task **t)
{
  const int p[NOWN] = {[MODULUS] = sq_config_int(c, "dataset.modulus"),
                       [SYMBOLS] = sq_config_int(c, "dataset.symbols"),
                       [ONES] = all_ones(c),
                       [LAST] = last_only(c),
                       [SHORTEST] = sq_config_int(c, "dataset.min_length"),
                       [LONGEST] = sq_config_int(c, "dataset.max_length"),
                       [TEST_SHORTEST] = sq_config_int(c, "dataset.test_min_length"),
                       [TEST_LONGEST] = sq_config_int(c, "dataset.test_max_length")};
  return sq_made_open(&sq_task_parity, c, NOWN, p, t);
}

/* The first number of an example's stream is its length. */
static int start(const sq_task *t, sq_split split, size_t i, sq_rng *r)
{
  const int *p = ((const made_task *)t)->p, test = split == SQ_TEST;
  const int lo = p[test ? TEST_SHORTEST : SHORTEST], hi = p[test ? TEST_LONGEST : LONGEST];
  sq_made_rng(t, MADE_PARITY, split, i, r);
  return lo + (int)sq_rng_below(r, (uint32_t)(hi - lo + 1));
}

static int length(const sq_task *t, sq_split split, size_t i)
{
  sq_rng r;
  return start(t, split, i, &r);
}

static void example(const sq_task *t, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const int *p = ((const made_task *)t)->p;
  sq_rng r;
  const int n = start(t, split, i, &r);
  int64_t sum = 0;
  for (int k = 0; k < n; ++k) {
    token[k] = p[ONES] ? 1 : (int32_t)sq_rng_below(&r, (uint32_t)p[SYMBOLS]);
    sum = (sum + token[k]) % p[MODULUS];
    label[k] = p[LAST] && k + 1 < n ? SQ_IGNORE : (int32_t)sum;
  }
}

const sq_task_ops sq_task_parity = {
    .name = "parity",
    .keys = &keys,
    .open = open_made,
    .close = sq_made_close,
    .info = sq_made_info,
    .shape = shape,
    .length = length,
    .example = example,
    .may_repeat = 1, /* there are few short sequences */
    .about =
        "Parity and other sums modulo a number, tested at unseen lengths; accuracy.\nMade while training, "
        "no files.\n"};
