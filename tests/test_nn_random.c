/* tests/test_nn_random.c: dropout masks, initialisers, shards and parameter lists. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/nn.h"

enum { NSEQ = 21, LEN = 30, C = 100, ROWS = NSEQ * LEN };
static int off[NSEQ + 1], id[NSEQ];
static sq_real whole[ROWS * C], part[ROWS * C];

static int setup(void **state)
{
  (void)state;
  for (int b = 0; b < NSEQ; ++b) {
    off[b + 1] = off[b] + LEN;
    id[b] = b;
  }
  return 0;
}

static sq_pass pass_of(const sq_rows *rows)
{
  return (sq_pass){
      .rows = rows, .train = 1, .seed = UINT64_C(0x123456789abcdef0), .step = 12, .seq_len = LEN};
}

static void fill(size_t n, sq_real *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = 1;
}

static void dropout_keeps_the_stated_share_and_mean(void **state)
{
  (void)state;
  const sq_rows rows = {NSEQ, ROWS, off, id, NULL};
  const sq_pass p = pass_of(&rows);
  static const double rate[4] = {0.1, 0.3, 0.5, 0.9};
  for (int k = 0; k < 4; ++k) {
    double kept = 0;
    fill(ROWS * C, whole);
    sq_nn_dropout(&p, rate[k], 7, C, whole, C);
    for (int i = 0; i < ROWS * C; ++i) {
      assert_true(whole[i] == 0 || whole[i] == (sq_real)(1 / (1 - rate[k])));
      kept += whole[i] != 0;
    }
    /* Binomial: five standard deviations. */
    assert_true(fabs(kept / (ROWS * C) - (1 - rate[k])) < 5 * sqrt(rate[k] * (1 - rate[k]) / (ROWS * C)));
  }
}

static void dropout_masks_do_not_depend_on_the_shards(void **state)
{
  (void)state;
  int shard_off[NSEQ + 1];
  sq_batch b = {.rows = {NSEQ, ROWS, off, id, NULL}, .input_dim = 1};
  const sq_pass p = pass_of(&b.rows);
  fill(ROWS * C, whole);
  sq_nn_dropout(&p, 0.4, 3, C, whole, C);
  fill(ROWS * C, part);
  for (int s = 0; s < sq_shard_count(NSEQ); ++s) {
    const sq_batch shard = sq_batch_shard(&b, s, shard_off);
    const sq_pass q = pass_of(&shard.rows);
    sq_nn_dropout(&q, 0.4, 3, C, part + (size_t)off[sq_shard_first(NSEQ, s)] * C, C);
  }
  assert_memory_equal(whole, part, sizeof whole);
}

static void dropout_is_the_generator_of_the_header(void **state)
{
  (void)state;
  const sq_rows rows = {NSEQ, ROWS, off, id, NULL};
  const sq_pass p = pass_of(&rows);
  fill(ROWS * C, whole);
  sq_nn_dropout(&p, 0.25, 9, C, whole, C);
  for (int r = 0; r < 40; ++r)
    for (uint32_t c = 0; c < C; ++c) {
      const uint32_t key[2] = {(uint32_t)p.seed, (uint32_t)(p.seed >> 32)};
      const uint32_t ctr[4] = {16 * (c / 64) + c % 16, (uint32_t)r, 12, SQ_STREAM_DROPOUT + 9};
      uint32_t word[4];
      sq_philox(key, ctr, word);
      assert_int_equal(whole[(size_t)r * C + c] != 0, word[c % 64 / 16] >= UINT32_C(1) << 30);
    }
}

static int differs(sq_pass p, double rate, int site)
{
  fill(ROWS * C, part);
  sq_nn_dropout(&p, rate, site, C, part, C);
  return memcmp(whole, part, sizeof whole) != 0;
}

static void dropout_depends_on_seed_step_and_site_only_in_training(void **state)
{
  (void)state;
  const sq_rows rows = {NSEQ, ROWS, off, id, NULL};
  sq_pass p = pass_of(&rows);
  fill(ROWS * C, whole);
  assert_false(differs(p, 0, 1));
  p.train = 0;
  assert_false(differs(p, 0.5, 1));
  p.train = 1;
  sq_nn_dropout(&p, 0.5, 1, C, whole, C);
  assert_false(differs(p, 0.5, 1));
  assert_true(differs(p, 0.5, 2));
  p.step = 13;
  assert_true(differs(p, 0.5, 1));
  p.step = 12;
  p.seed += UINT64_C(1) << 32;
  assert_true(differs(p, 0.5, 1));
}

static void dropout_row_is_a_row_of_dropout(void **state)
{
  (void)state;
  const sq_rows rows = {NSEQ, ROWS, off, id, NULL};
  const sq_pass p = pass_of(&rows);
  sq_real m[C];
  fill(ROWS * C, whole);
  sq_nn_dropout(&p, 0.4, 3, C, whole, C);
  sq_nn_dropout_row(&p, 0.4, 3, 5, 8, C, m);
  assert_memory_equal(m, whole + (size_t)(5 * LEN + 8) * C, sizeof m);
}

static void dropout_of_columns_is_one_mask_for_all_steps(void **state)
{
  (void)state;
  const sq_rows rows = {NSEQ, ROWS, off, id, NULL};
  const sq_pass p = pass_of(&rows);
  sq_real m[C];
  int different = 0;
  fill(ROWS * C, whole);
  sq_nn_dropout_columns(&p, 0.4, 3, C, whole, C);
  for (int b = 0; b < NSEQ; ++b) {
    const sq_real *first = whole + (size_t)off[b] * C;
    sq_nn_dropout_row(&p, 0.4, 3, id[b], 0, C, m);
    for (int t = 0; t < LEN; ++t) assert_memory_equal(first + (size_t)t * C, m, sizeof m);
    different += memcmp(first, whole, sizeof m) != 0;
  }
  assert_int_equal(different, NSEQ - 1); /* each sequence has its own */
}

static void dropout_of_columns_does_not_depend_on_the_shards(void **state)
{
  (void)state;
  int shard_off[NSEQ + 1];
  sq_batch b = {.rows = {NSEQ, ROWS, off, id, NULL}, .input_dim = 1};
  const sq_pass p = pass_of(&b.rows);
  fill(ROWS * C, whole);
  sq_nn_dropout_columns(&p, 0.4, 3, C, whole, C);
  fill(ROWS * C, part);
  for (int s = 0; s < sq_shard_count(NSEQ); ++s) {
    const sq_batch shard = sq_batch_shard(&b, s, shard_off);
    const sq_pass q = pass_of(&shard.rows);
    sq_nn_dropout_columns(&q, 0.4, 3, C, part + (size_t)off[sq_shard_first(NSEQ, s)] * C, C);
  }
  assert_memory_equal(whole, part, sizeof whole);
  const sq_pass evaluation = {.rows = &b.rows, .train = 0, .seq_len = LEN};
  sq_nn_dropout_columns(&evaluation, 0.4, 3, C, part, C);
  assert_memory_equal(whole, part, sizeof whole);
}

static void shards_cover_the_batch_once(void **state)
{
  (void)state;
  static int32_t token[ROWS], label[ROWS];
  int shard_off[NSEQ + 1];
  for (int i = 0; i < ROWS; ++i) token[i] = label[i] = i;
  for (int per_row = 0; per_row < 2; ++per_row) {
    const sq_batch b = {.rows = {NSEQ, ROWS, off, id, NULL},
                        .input_dim = 1,
                        .token = token,
                        .label_per_row = per_row,
                        .label = label};
    int seq = 0, row = 0;
    long labels = 0;
    for (int s = 0; s < sq_shard_count(NSEQ); ++s) {
      const sq_batch shard = sq_batch_shard(&b, s, shard_off);
      assert_int_equal(seq, sq_shard_first(NSEQ, s));
      assert_true(shard.token == token + row && shard.label == label + (per_row ? row : seq) &&
                  shard.rows.off[0] == 0);
      assert_int_equal(shard.rows.id[0], seq);
      seq += shard.rows.nseq;
      row += shard.rows.nrow;
      labels += sq_batch_labels(&shard);
    }
    assert_true(seq == NSEQ && row == ROWS && labels == sq_batch_labels(&b));
  }
}

static void initialisers_have_the_stated_distributions(void **state)
{
  (void)state;
  enum { N = 100000 };
  sq_real *x = malloc(N * sizeof *x);
  sq_rng r;
  double mean = 0, square = 0;
  sq_rng_init(&r, 1, SQ_STREAM_TEST, 0);
  sq_nn_init_uniform(&r, 0.25, N, x);
  for (int i = 0; i < N; ++i) {
    assert_true(fabs((double)x[i]) <= 0.25);
    mean += (double)x[i] / N;
    square += (double)x[i] * (double)x[i] / N;
  }
  assert_true(fabs(mean) < 5 * 0.25 / sqrt(3.0 * N)); /* five standard deviations */
  assert_true(fabs(square / (0.0625 / 3) - 1) < 5 * sqrt(0.8 / N));
  mean = square = 0;
  sq_nn_init_normal(&r, 2, N, x);
  for (int i = 0; i < N; ++i) {
    mean += (double)x[i] / N;
    square += (double)x[i] * (double)x[i] / N;
  }
  assert_true(fabs(mean) < 5 * 2 / sqrt(N));
  assert_true(fabs(square / 4 - 1) < 5 * sqrt(2.0 / N));
  free(x);
}

/* Density of the normal distribution at 2 and its mass within +-2 give the variance of the cut one, 1 - 4 phi(2)/mass;
   its fourth moment is below 1.2. */
static void lecun_normal_is_cut_off_and_has_the_stated_variance(void **state)
{
  (void)state;
  enum { N = 100000 };
  const double fan_in = 12, phi = exp(-2) / sqrt(2 * acos(-1)), mass = erf(sqrt(2)), cut = 1 - 4 * phi / mass;
  sq_real *x = malloc(N * sizeof *x);
  sq_rng r;
  double mean = 0, square = 0, largest = 0;
  sq_rng_init(&r, 1, SQ_STREAM_TEST, 1);
  sq_nn_init_lecun_normal(&r, fan_in, N, x);
  for (int i = 0; i < N; ++i) {
    largest = fmax(largest, fabs((double)x[i]));
    mean += (double)x[i] / N;
    square += (double)x[i] * (double)x[i] / N;
  }
  assert_true(fabs(mean) < 5 / sqrt(fan_in * N)); /* five standard deviations */
  assert_true(fabs(square * fan_in - 1) < 5 * sqrt(1.2 / cut / cut / N));
  const double bound = 2 / sqrt(fan_in * cut);
  assert_true(largest <= bound * (1 + 1e-6) && largest > 0.99 * bound);
  free(x);
}

static void parameters_are_found_and_aligned(void **state)
{
  (void)state;
  sq_param_list l = {0};
  for (int i = 0; i < 100; ++i) {
    const size_t at = sq_param_add(&l, 0, i % 3 + 1, (const int[3]){i + 1, 2, 3}, "layers.%d.weight", i);
    assert_int_equal(at % 16, 0);
  }
  const sq_param *p = sq_param_find(&l, "layers.98.weight");
  assert_non_null(p);
  assert_true(p->ndim == 3 && p->count == 99 * 6 && p->flags == 0);
  assert_int_equal(sq_param_find(&l, "layers.0.weight")->flags, SQ_PARAM_NO_DECAY);
  assert_null(sq_param_find(&l, "layers.100.weight"));
  assert_int_equal(l.total % 16, 0);
  for (int i = 1; i < l.n; ++i) assert_true(l.v[i].offset >= l.v[i - 1].offset + l.v[i - 1].count);
  sq_param_clear(&l);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(dropout_keeps_the_stated_share_and_mean),
      cmocka_unit_test(dropout_masks_do_not_depend_on_the_shards),
      cmocka_unit_test(dropout_is_the_generator_of_the_header),
      cmocka_unit_test(dropout_depends_on_seed_step_and_site_only_in_training),
      cmocka_unit_test(dropout_row_is_a_row_of_dropout),
      cmocka_unit_test(dropout_of_columns_is_one_mask_for_all_steps),
      cmocka_unit_test(dropout_of_columns_does_not_depend_on_the_shards),
      cmocka_unit_test(shards_cover_the_batch_once),
      cmocka_unit_test(initialisers_have_the_stated_distributions),
      cmocka_unit_test(lecun_normal_is_cut_off_and_has_the_stated_variance),
      cmocka_unit_test(parameters_are_found_and_aligned),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
