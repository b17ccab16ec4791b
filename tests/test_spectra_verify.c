/* The verify command passes on every kind of layer, and fails when an identity is broken by little. */
#include <stdio.h>
#include <unistd.h>

#include "../src/app/app.h"
#include "spectra_model.h"
#include "sq/linalg.h"

/* What is broken, through the linker's --wrap. */
static enum {
  NOTHING,
  RECURRENCE,
  RECURRENCE_NAN,
  GRADIENT,
  ENERGY,
  LTI_RUN,
  LTI_ENERGY,
  LTI_HANKEL,
  LTI_EIGENVALUES
} broken;

sq_status __real_sq_factors_run(const sq_factors *f, double *y);
sq_status __wrap_sq_factors_run(const sq_factors *f, double *y);
sq_status __wrap_sq_factors_run(const sq_factors *f, double *y)
{
  const sq_status st = __real_sq_factors_run(f, y);
  const size_t last = (size_t)f->T * (size_t)f->dv - 1;
  if (broken == RECURRENCE) y[last] += 1e-3 * largest_abs(last + 1, y);
  if (broken == RECURRENCE_NAN) y[last] = NAN;
  return st;
}

sq_status __real_sq_factors_energy(const sq_factors *f, double *e);
sq_status __wrap_sq_factors_energy(const sq_factors *f, double *e);
sq_status __wrap_sq_factors_energy(const sq_factors *f, double *e)
{
  const sq_status st = __real_sq_factors_energy(f, e);
  if (broken == ENERGY) e[0] *= 1 + 1e-9 * f->log_lambda[f->T - 1];
  return st;
}

void __real_sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard,
                              const sq_pass *p, double scale, void *work, sq_real *dtheta, sq_tally *tally);
void __wrap_sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard,
                              const sq_pass *p, double scale, void *work, sq_real *dtheta, sq_tally *tally);
void __wrap_sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard,
                              const sq_pass *p, double scale, void *work, sq_real *dtheta, sq_tally *tally)
{
  __real_sq_model_gradient(m, theta, shard, p, scale, work, dtheta, tally);
  if (broken == GRADIENT) {
    const sq_param *weight = sq_param_find(sq_model_params(m), "layers.0.attention.out_proj.weight");
    assert_non_null(weight);
    for (size_t k = 0; k < weight->count; ++k) dtheta[weight->offset + k] *= (sq_real)(1 + 1e-5);
  }
}

/* Time-invariant layers: the last value, or coordinates (one call in two is of the changed system). */
void __real_sq_lti_run(const sq_lti *f, int T, const double *u, int ldu, double *y, int ldy, sq_complex *h);
void __wrap_sq_lti_run(const sq_lti *f, int T, const double *u, int ldu, double *y, int ldy, sq_complex *h);
void __wrap_sq_lti_run(const sq_lti *f, int T, const double *u, int ldu, double *y, int ldy, sq_complex *h)
{
  __real_sq_lti_run(f, T, u, ldu, y, ldy, h);
  if (broken == LTI_RUN) y[(size_t)(T - 1) * (size_t)ldy] += 1e-3;
}

static int odd;
void __real_sq_lti_energy(const sq_lti *f, int T, double *e, double *work);
void __wrap_sq_lti_energy(const sq_lti *f, int T, double *e, double *work);
void __wrap_sq_lti_energy(const sq_lti *f, int T, double *e, double *work)
{
  __real_sq_lti_energy(f, T, e, work);
  if (broken == LTI_ENERGY && (odd ^= 1)) e[0] *= 1 + 1e-9;
}

sq_status __real_sq_lti_hankel(const sq_lti *f, int T, int t, double *sigma, int *n, double *log_sigma1,
                               void *work);
sq_status __wrap_sq_lti_hankel(const sq_lti *f, int T, int t, double *sigma, int *n, double *log_sigma1,
                               void *work);
sq_status __wrap_sq_lti_hankel(const sq_lti *f, int T, int t, double *sigma, int *n, double *log_sigma1,
                               void *work)
{
  const sq_status st = __real_sq_lti_hankel(f, T, t, sigma, n, log_sigma1, work);
  if (broken == LTI_HANKEL && (odd ^= 1)) sigma[1] += 1e-9;
  return st;
}

sq_status __real_sq_eigenvalues(int n, sq_complex *A, sq_complex *w, double *work);
sq_status __wrap_sq_eigenvalues(int n, sq_complex *A, sq_complex *w, double *work);
sq_status __wrap_sq_eigenvalues(int n, sq_complex *A, sq_complex *w, double *work)
{
  const sq_status st = __real_sq_eigenvalues(n, A, w, work);
  for (int k = 0; broken == LTI_EIGENVALUES && k < n; ++k) w[k] *= 1 + 1e-3; /* some are well determined */
  return st;
}

static void write_config(char path[64], const char *variant)
{
  char json[2048];
  strcpy(path, "/tmp/sq_verify_XXXXXX.json");
  const int fd = mkstemps(path, 5);
  assert_true(fd >= 0);
  cell_json(json, sizeof json, variant, "");
  assert_int_equal(write(fd, json, strlen(json)), (ssize_t)strlen(json));
  close(fd);
}

static sq_status verify(const char *variant)
{
  char path[64];
  write_config(path, variant);
  char *argv[] = {path, NULL};
  const sq_status st = sq_app_verify(1, argv);
  unlink(path);
  return st;
}

static void verify_passes_on_every_attention_variant(void **state)
{
  (void)state;
  broken = NOTHING;
  for (int v = 0; v < NVARIANT; ++v) {
    const sq_status st = verify(model_variant[v]);
    if (st != SQ_OK) fail_msg("%s: %s", model_variant[v], sq_error_text());
  }
}

static void verify_fails_on_an_error_of_one_value(void **state)
{
  (void)state;
  for (int k = RECURRENCE; k <= ENERGY; ++k) {
    if (k == GRADIENT && sizeof(sq_real) < sizeof(double)) continue; /* skipped there */
    broken = k;
    assert_int_equal(verify(model_variant[3]), SQ_ERR_CHECK);
    sq_error_clear();
  }
  broken = NOTHING;
}

/* The quickstart's models, smaller. */
static sq_status verify_quickstart(const char *name)
{
  char file[512], path[64], json[1024];
  sq_format(file, sizeof file, "%s/configs/quickstart/%s.json", SQ_SOURCE_DIR, name);
  strcpy(path, "/tmp/sq_verify_XXXXXX.json");
  const int fd = mkstemps(path, 5);
  assert_true(fd >= 0);
  sq_format(json, sizeof json,
            "{\"name\":\"small\",\"base\":[\"%s\"],\"sweep\":{\"model.hidden_dim\":[16],"
            "\"model.state_dim\":[16]}}",
            file);
  assert_int_equal(write(fd, json, strlen(json)), (ssize_t)strlen(json));
  close(fd);
  char *argv[] = {path, NULL};
  const sq_status st = sq_app_verify(1, argv);
  unlink(path);
  return st;
}

static void verify_passes_on_state_space_layers(void **state)
{
  (void)state;
  static const char *const name[] = {"mqar-s4", "mqar-s5", "mqar-lru", "mqar-mamba2-conv",
                                     "mqar-mamba2-lti-conv"};
  broken = NOTHING;
  for (size_t i = 0; i < sizeof name / sizeof *name; ++i) {
    const sq_status st = verify_quickstart(name[i]);
    if (st != SQ_OK) fail_msg("%s: %s", name[i], sq_error_text());
  }
}

static void verify_fails_on_an_error_of_a_time_invariant_layer(void **state)
{
  (void)state;
  for (int k = LTI_RUN; k <= LTI_EIGENVALUES; ++k) {
    broken = k;
    assert_int_equal(verify_quickstart(k == LTI_EIGENVALUES ? "mqar-s4" : "mqar-lru"), SQ_ERR_CHECK);
    sq_error_clear();
  }
  broken = NOTHING;
}

static void verify_refuses_a_missing_file(void **state)
{
  (void)state;
  char path[] = "/nonexistent/cell.json", *argv[] = {path, NULL};
  assert_int_not_equal(sq_app_verify(1, argv), SQ_OK);
  assert_int_not_equal(sq_app_verify(0, argv), SQ_OK);
  sq_error_clear();
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(verify_passes_on_every_attention_variant),
      cmocka_unit_test(verify_fails_on_an_error_of_one_value),
      cmocka_unit_test(verify_passes_on_state_space_layers),
      cmocka_unit_test(verify_fails_on_an_error_of_a_time_invariant_layer),
      cmocka_unit_test(verify_refuses_a_missing_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
