/* tests/spectra_fixture.h: random factors and the dense matrix they stand for. */
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> /* needs those above */

#include "sq/rng.h"
#include "sq/spectra.h"

typedef struct {
  sq_arena arena;
  sq_factors f;
} factors_fixture;

static inline factors_fixture factors_alloc(int T, int n, int dv, int exponential)
{
  factors_fixture x = {.f = {.T = T, .n = n, .dv = dv, .first = 1, .exponential = exponential}};
  sq_factors_take(&x.arena, &x.f);
  assert_int_equal(sq_arena_create(&x.arena, x.arena.used, "factors"), SQ_OK);
  sq_factors_take(&x.arena, &x.f);
  return x;
}

/* log lambda, log b, log c ~ spread N(0,1), all vectors N(0,1). */
static inline factors_fixture factors_random(uint64_t seed, int T, int n, int dv, int exponential,
                                             double spread)
{
  factors_fixture x = factors_alloc(T, n, dv, exponential);
  sq_rng r;
  sq_rng_init(&r, seed, SQ_STREAM_TEST, (uint64_t)T);
  for (int i = 0; i < T; ++i) {
    x.f.log_lambda[i] = i > 0 ? -0.1 + spread * sq_rng_normal(&r) : 0;
    x.f.log_b[i] = spread * sq_rng_normal(&r);
    x.f.log_c[i] = spread * sq_rng_normal(&r);
  }
  for (int k = 0; k < T * n; ++k) {
    x.f.b[k] = sq_rng_normal(&r);
    x.f.c[k] = sq_rng_normal(&r);
  }
  for (int k = 0; k < T * dv; ++k) x.f.v[k] = sq_rng_normal(&r);
  return x;
}

static inline void factors_release(factors_fixture *x)
{
  sq_arena_destroy(&x->arena);
}

/* M (T,T) straight from its definition, the sum of logs in long double. */
static inline double *dense_matrix(const sq_factors *f)
{
  double *M = calloc((size_t)f->T * (size_t)f->T, sizeof *M);
  assert_non_null(M);
  for (int i = 0; i < f->T; ++i)
    for (int j = 0; j <= i; ++j) {
      long double log_w = (long double)f->log_c[i] + f->log_b[j], dot = 0;
      for (int l = j + 1; l <= i; ++l) log_w += f->log_lambda[l];
      for (int k = 0; k < f->n; ++k) dot += (long double)f->c[i * f->n + k] * f->b[j * f->n + k];
      M[i * f->T + j] = (double)(f->exponential ? expl(log_w + dot) : expl(log_w) * dot);
    }
  return M;
}

static inline double largest_abs(size_t n, const double *x)
{
  double top = 0;
  for (size_t i = 0; i < n; ++i)
    if (!(fabs(x[i]) <= top)) top = fabs(x[i]);
  return top;
}

/* Largest |a-b| over the largest |b|; NaN if there is one. */
static inline double relative_error(size_t n, const double *a, const double *b)
{
  double top = 0;
  for (size_t i = 0; i < n; ++i)
    if (!(fabs(a[i] - b[i]) <= top)) top = fabs(a[i] - b[i]);
  return top / largest_abs(n, b);
}

/* Fails on NaN; prints label, got and allowed. */
static inline void expect_below(const char *label, double got, double allowed)
{
  print_message("    %-58s %.2e (allowed %.1e)\n", label, got, allowed);
  if (!(got <= allowed)) fail_msg("%s: %g is above %g", label, got, allowed);
}
