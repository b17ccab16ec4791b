/* tests/test_model_modular.c: counting modulo a number, by hand-made parameters of LRU models.
 *
 * An LRU's eigenvalue does not depend on the input.  What one of modulus 1 and phase 2 pi / m can do at every length is
 * to count steps modulo m: the language (1^m)* for which Grazzi et al. 2024 (arXiv:2411.12537, theorem 1 and 2) need
 * an eigenvalue that is not a positive number.  The parity of random bits is done here by counting the ones
 * (modulus 1, phase 0) and folding the count, |c - 2^k| for k = K-1 ... 0, one layer a fold: right up to 2^K
 * steps, and no longer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/model.h"
#include "sq/spectra.h"
#include "sq/train.h"

enum { MAX_SETS = 64, BATCH = 16 };
static const double pi = 3.14159265358979323846;
/* exp(-exp(FOREVER)) is 1 and exp(-exp(AT_ONCE)) is 0 in both precisions, to 1e-13 and 1e-64. */
enum { FOREVER = -30, AT_ONCE = 5 };

typedef struct {
  sq_experiment *e;
  const sq_config *c;
  sq_task *task;
  sq_model *m;
  sq_worker *w;
  sq_real *theta; /* all zero but running variances, whose norms leave everything as it is */
  void *store;
} fixture;

static void set_at(const fixture *f, const char *name, size_t i, double value)
{
  const sq_param *p = sq_param_find(sq_model_params(f->m), name);
  if (p == NULL || i >= p->count) fail_msg("no element %zu of %s", i, name);
  f->theta[p->offset + i] = (sq_real)value;
}

/* tensor `leaf` of a layer */
static void put(const fixture *f, int layer, const char *leaf, size_t i, double value)
{
  char name[SQ_PARAM_NAME];
  sq_format(name, sizeof name, "encoder.layers_%d.%s", layer, leaf);
  set_at(f, name, i, value);
}

static void fixture_open(fixture *f, const char *dataset, int width, int states, int layers, int tokens,
                         int classes)
{
  static const sq_keyset *set[MAX_SETS];
  sq_schema schema = {set, 0};
  char json[1024];
  int n = sq_train_keysets(set, MAX_SETS);
  n += sq_task_keysets(set + n, MAX_SETS - n);
  n += sq_model_keysets(set + n, MAX_SETS - n);
  n += sq_spectra_keysets(set + n, MAX_SETS - n);
  assert_true(n <= MAX_SETS);
  schema.nset = n;
  memset(f, 0, sizeof *f);
  sq_format(json, sizeof json,
            "{\"dataset\": {\"_name_\": \"parity\", \"num_test\": 200, %s}, \"train\": {\"total_steps\": 1, "
            "\"batch_size\": %d, \"lr\": 1}, \"model\": {\"layer\": \"lru\", \"num_layers\": %d, "
            "\"hidden_dim\": %d, "
            "\"state_dim\": %d, \"input_dim\": %d, \"output_dim\": %d, \"activation\": \"full_glu\", "
            "\"norm\": \"batch\", "
            "\"pooling\": \"none\", \"dropout\": 0}}",
            dataset, BATCH, layers, width, states, tokens, classes);
  if (sq_experiment_parse(&schema, json, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
  f->c = sq_experiment_cell(f->e, 0);
  assert_int_equal(sq_task_open(f->c, &f->task), SQ_OK);
  sq_model_dims dims;
  sq_train_model_dims(f->c, sq_task_describe(f->task), &dims);
  if (sq_model_create(f->c, dims, &f->m) != SQ_OK) fail_msg("%s", sq_error_text());
  assert_int_equal(sq_worker_create(f->m, sq_train_nshard(f->c), NULL, &f->w), SQ_OK);
  f->theta = calloc(sq_model_params(f->m)->total, sizeof *f->theta);
  f->store = aligned_alloc(64, (sq_task_batch_bytes(sq_task_describe(f->task), BATCH) + 63) / 64 * 64);
  assert_true(f->theta != NULL && f->store != NULL);
  for (int k = 0; k < layers; ++k)
    for (int d = 0; d < width; ++d) {
      put(f, k, "normalize.scale", (size_t)d, 1);
      put(f, k, "normalize.var", (size_t)d, 1 - 1e-5); /* the norm adds 1e-5 */
      put(f, k, "out2.bias", (size_t)d, 40);           /* an open gate: sigmoid(40) = 1 - 4e-18 */
    }
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->store);
  sq_worker_destroy(&f->w);
  sq_model_destroy(&f->m);
  sq_task_close(&f->task);
  sq_experiment_destroy(&f->e);
}

/* Share of right answers over the whole test split, at every step of it. */
static double test_accuracy(const fixture *f)
{
  const sq_task_info *info = sq_task_describe(f->task);
  size_t index[BATCH];
  sq_tally t = {0};
  for (size_t i = 0; i < info->size[SQ_TEST];) {
    int n = 0;
    sq_batch b;
    for (; n < BATCH && i < info->size[SQ_TEST]; ++n) index[n] = i++;
    sq_task_batch(f->task, SQ_TEST, n, index, SQ_PAD_NONE, f->store, &b);
    sq_batch_evaluate(f->w, f->theta, &b, &t);
  }
  assert_true(t.nlabel > 0);
  return (double)t.ncorrect / (double)t.nlabel;
}

/* One layer, one state: h_t = lambda h_(t-1) + 1, lambda = exp(i phase).  For phase = 2 pi / m, h_t goes round the m points
   (1 - lambda^j) / (1 - lambda) of a circle about 1 / (1 - lambda); the channels Re h and Im h, shifted by 8 to where
   GELU is the identity, tell which point it is.  tokens, m: symbols and modulus. */
static void step_counter(const fixture *f, double phase, int tokens, int m)
{
  const double shift = 8, a = 2 * pi / m;
  for (int k = 0; k < 2; ++k) { /* both channels of every token are 1 */
    for (int v = 0; v < tokens; ++v) set_at(f, "encoder.encoder.kernel", (size_t)(2 * v + k), 1);
    put(f, 0, "seq.D", (size_t)k, shift);
    put(f, 0, "out1.kernel", (size_t)(2 * k + k), 1);
  }
  put(f, 0, "seq.nu_log", 0, FOREVER);
  put(f, 0, "seq.theta_log", 0, log(phase));
  put(f, 0, "seq.B_re", 0, 1);
  put(f, 0, "seq.C_re", 0, 1);
  put(f, 0, "seq.C_im", 1, -1);                                                /* Re(-i h) = Im h */
  const double d = 2 - 2 * cos(a), centre[2] = {(1 - cos(a)) / d, sin(a) / d}; /* 1 / (1 - e^(ia)) */
  for (int j = 0; j < m; ++j) {
    const double x = -(cos(j * a) * centre[0] - sin(j * a) * centre[1]),
                 y = -(cos(j * a) * centre[1] + sin(j * a) * centre[0]); /* point j from the centre */
    set_at(f, "decoder.kernel", (size_t)j, x);
    set_at(f, "decoder.kernel", (size_t)(m + j), y);
    set_at(f, "decoder.bias", (size_t)j, -x * (centre[0] + shift + 1) - y * (centre[1] + shift + 1));
  }
}

static double steps_modulo(int m, double phase, const char *lengths)
{
  fixture f;
  char data[256];
  sq_format(data, sizeof data, "\"tokens\": \"ones\", \"modulus\": %d, \"max_length\": 40, %s", m, lengths);
  fixture_open(&f, data, 2, 1, 1, 2, m);
  step_counter(&f, phase, 2, m);
  const double right = test_accuracy(&f);
  fixture_close(&f);
  return right;
}

static void a_phase_of_pi_counts_steps_modulo_two_at_unseen_lengths(void **state)
{
  (void)state;
  assert_true(steps_modulo(2, pi, "\"test_min_length\": 41, \"test_max_length\": 256") == 1);
  assert_true(steps_modulo(2, pi, "\"test_min_length\": 4000, \"test_max_length\": 4096") == 1);
}

static void a_phase_of_one_turn_in_m_steps_counts_modulo_m(void **state)
{
  (void)state;
  for (int m = 3; m <= 9; ++m)
    assert_true(steps_modulo(m, 2 * pi / m, "\"test_min_length\": 41, \"test_max_length\": 512") == 1);
}

/* The control of the control: the same readout on a positive eigenvalue is at chance. */
static void a_positive_eigenvalue_in_its_place_does_not(void **state)
{
  (void)state;
  assert_true(steps_modulo(2, 1e-12, "\"test_min_length\": 41, \"test_max_length\": 256") < 0.6);
}

/* ---- random bits -------------------------------------------------------------------------------------- */

enum { ONE, BIT, COUNT, ABOVE, BELOW, WIDTH }; /* channels */

/* GELU of a whole number times this is exactly 0 or the number times this: it is then ReLU. */
static const double sharp = 64;

/* channel `to` of a layer's s: + value * channel `from` of its input.  State 0 and 1 forget at once and copy the
   channels ONE and COUNT; BIT has state 2 in the first layer, which remembers for ever. */
static void wire(const fixture *f, int layer, int states, int to, int state, double value)
{
  put(f, layer, "seq.C_re", (size_t)(to * states + state), value);
}

static void parity_of_bits(const fixture *f, int folds)
{
  enum { COPY_ONE, COPY_COUNT, SUM, STATES };
  set_at(f, "encoder.encoder.kernel", 0 * WIDTH + ONE, 1);
  set_at(f, "encoder.encoder.kernel", 1 * WIDTH + ONE, 1);
  set_at(f, "encoder.encoder.kernel", 1 * WIDTH + BIT, 1);
  for (int k = 0; k <= folds; ++k) {
    static const int from[STATES] = {ONE, COUNT, BIT};
    for (int s = 0; s < STATES; ++s) {
      put(f, k, "seq.nu_log", (size_t)s, s == SUM ? FOREVER : AT_ONCE);
      put(f, k, "seq.theta_log", (size_t)s, -40);
      put(f, k, "seq.B_re", (size_t)(s * WIDTH + from[s]), 1);
    }
    if (k == 0) { /* COUNT = sum of the bits */
      wire(f, k, STATES, COUNT, SUM, sharp);
      put(f, k, "out1.kernel", COUNT * WIDTH + COUNT, 1 / sharp);
      continue;
    }
    /* COUNT + [ReLU(COUNT - K) + ReLU(K - COUNT) - ReLU(COUNT)] = |COUNT - K| */
    const double K = ldexp(1, folds - k);
    wire(f, k, STATES, ABOVE, COPY_COUNT, sharp);
    wire(f, k, STATES, ABOVE, COPY_ONE, -sharp * K);
    wire(f, k, STATES, BELOW, COPY_COUNT, -sharp);
    wire(f, k, STATES, BELOW, COPY_ONE, sharp * K);
    wire(f, k, STATES, COUNT, COPY_COUNT, sharp);
    put(f, k, "out1.kernel", ABOVE * WIDTH + COUNT, 1 / sharp);
    put(f, k, "out1.kernel", BELOW * WIDTH + COUNT, 1 / sharp);
    put(f, k, "out1.kernel", COUNT * WIDTH + COUNT, -1 / sharp);
  }
  /* The last fold, K = 1, has turned even into 1 and odd into 0. */
  set_at(f, "decoder.kernel", COUNT * 2 + 0, 1);
  set_at(f, "decoder.kernel", COUNT * 2 + 1, -1);
  set_at(f, "decoder.bias", 0, -0.5);
  set_at(f, "decoder.bias", 1, 0.5);
}

static double bits_parity(int folds, const char *lengths)
{
  fixture f;
  fixture_open(&f, lengths, WIDTH, 3, folds + 1, 2, 2);
  parity_of_bits(&f, folds);
  const double right = test_accuracy(&f);
  fixture_close(&f);
  return right;
}

static void folding_the_count_of_ones_gives_the_parity_of_random_bits_at_unseen_lengths(void **state)
{
  (void)state;
  assert_true(bits_parity(8, "\"test_min_length\": 41, \"test_max_length\": 256") == 1);
  assert_true(bits_parity(10, "\"test_min_length\": 900, \"test_max_length\": 1024") == 1);
}

/* Seven folds are enough for 128 ones and too few for the 256 and more of the longest sequences here. */
static void with_too_few_folds_it_does_not(void **state)
{
  (void)state;
  assert_true(bits_parity(7, "\"test_min_length\": 900, \"test_max_length\": 1024") < 0.9);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_phase_of_pi_counts_steps_modulo_two_at_unseen_lengths),
      cmocka_unit_test(a_phase_of_one_turn_in_m_steps_counts_modulo_m),
      cmocka_unit_test(a_positive_eigenvalue_in_its_place_does_not),
      cmocka_unit_test(folding_the_count_of_ones_gives_the_parity_of_random_bits_at_unseen_lengths),
      cmocka_unit_test(with_too_few_folds_it_does_not),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
