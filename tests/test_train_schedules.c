/* tests/test_train_schedules.c: learning-rate sequences of the reference implementation, where its files are
 * at hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../src/train/train_impl.h"
#include "sq/store.h"

#define FILE_NAME SQ_SOURCE_DIR "/../shared/parity/schedules.h5"
/* Both evaluate a few products and one cosine in float64; the torch sequences are stored as torch computed
 * them. */
#define TOLERANCE 1e-12

static double *read_vector(const sq_h5 *f, const char *group, const char *name, size_t *n)
{
  char path[128];
  double *x = NULL;
  int ndim = 0;
  size_t dim[8];
  sq_format(path, sizeof path, "%s/%s", group, name);
  assert_int_equal(sq_h5_read(f, path, &x, &ndim, dim), SQ_OK);
  *n = 1;
  for (int i = 0; i < ndim; ++i) *n *= dim[i];
  return x;
}

/* Attributes of the groups; the file is fixed. */
static const struct {
  const char *group;
  sq_schedule s;
} cases[] = {
    {"torch_epoch", {SQ_SCHEDULE_TORCH, 2e-4, 5e-6, 5, 50, 0}},
    {"torch_epoch_w1", {SQ_SCHEDULE_TORCH, 4e-4, 5e-6, 1, 30, 0}},
    {"torch_step", {SQ_SCHEDULE_TORCH, 1e-2, 5e-6, 40, 400, 0}},
    {"torch_step_nowarm", {SQ_SCHEDULE_TORCH, 1e-3, 5e-6, -1, 400, 0}},
    {"jax_step400_warm40", {SQ_SCHEDULE_JAX, 4.6416e-4, 1e-7, 40, 400, 0}},
    {"jax_step100_nowarm", {SQ_SCHEDULE_JAX, 1e-3, 1e-6, 0, 100, 0}},
    {"jax_epochs10_spe7_warm2", {SQ_SCHEDULE_JAX, 1e-2, 1e-7, 14, 70, 0}},
};

static void rates_equal_the_reference_sequences(void **state)
{
  const sq_h5 *f = *state;
  double worst = 0;
  if (f == NULL) skip();
  for (size_t c = 0; c < sizeof cases / sizeof *cases; ++c) {
    size_t n;
    double *rate = read_vector(f, cases[c].group, "lr_in_force", &n);
    assert_int_equal(n, cases[c].s.total);
    for (size_t i = 0; i < n; ++i) {
      const double got = sq_schedule_rate(&cases[c].s, (long)i), error = fabs(got - rate[i]) / cases[c].s.lr;
      if (!(error <= TOLERANCE))
        fail_msg("%s: step %zu: got %.17g, expected %.17g", cases[c].group, i, got, rate[i]);
      worst = fmax(worst, error);
    }
    free(rate);
  }
  print_message("largest error relative to the base rate: %.2g (allowed %.2g)\n", worst, TOLERANCE);
}

static void plateau_rule_equals_the_reference_sequence(void **state)
{
  const sq_h5 *f = *state;
  if (f == NULL) skip();
  size_t n, n2;
  double *metric = read_vector(f, "reduce_on_plateau", "metric", &n);
  double *rate = read_vector(f, "reduce_on_plateau", "lr_and_ssm_lr_after", &n2);
  assert_int_equal(n2, 2 * n);
  sq_plateau p = {.factor = 0.5, .patience = 5};
  double lr[2] = {1e-2, 1e-3};
  const double lr_min = 1e-3 / 3;
  int lowered = 0;
  for (size_t i = 0; i < n; ++i) {
    const double factor = sq_plateau_update(&p, metric[i]);
    for (int k = 0; k < 2; ++k) {
      lr[k] = fmax(lr[k] * factor, lr_min);
      assert_true(fabs(lr[k] - rate[2 * i + (size_t)k]) <= 1e-15);
    }
    lowered += factor < 1;
  }
  assert_true(lowered >= 5);
  free(metric);
  free(rate);
}

static int open_file(void **state)
{
  sq_h5 *f = NULL;
  if (access(FILE_NAME, R_OK) != 0)
    print_message("skipped: %s is not there\n", FILE_NAME);
  else if (sq_h5_open(FILE_NAME, &f) != SQ_OK)
    return -1;
  *state = f;
  return 0;
}

static int close_file(void **state)
{
  sq_h5 *f = *state;
  return f == NULL || sq_h5_close(&f) == SQ_OK ? 0 : -1;
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rates_equal_the_reference_sequences),
      cmocka_unit_test(plateau_rule_equals_the_reference_sequence),
  };
  return cmocka_run_group_tests(tests, open_file, close_file);
}
