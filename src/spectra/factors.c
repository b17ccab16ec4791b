/* src/spectra/factors.c: a layer as a linear dynamical system: run it, change its coordinates, weigh its
 * memory.
 *
 *   h_i = lambda_i h_(i-1) + B_i v_i^T,  y_i = h_i^T C_i + skip v_i,  M_ij = C_i . (prod_(l=j+1..i) lambda_l) B_j,
 *   and skip more for i = j
 *
 * Scales are logarithms: in norm attention with exp(), |log lambda| reaches 2e4, and in other coordinates
 * anything. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "spectra_impl.h"
#include "sq/linalg.h"

void sq_factors_take(sq_arena *a, sq_factors *f)
{
  const size_t T = (size_t)f->T, n = (size_t)f->n, dv = (size_t)f->dv;
  f->log_lambda = SQ_TAKE(a, T, double);
  f->b = SQ_TAKE(a, T * n, double);
  f->log_b = SQ_TAKE(a, T, double);
  f->c = SQ_TAKE(a, T * n, double);
  f->log_c = SQ_TAKE(a, T, double);
  f->v = SQ_TAKE(a, T * dv, double);
  f->y = SQ_TAKE(a, T * dv, double);
}

/* ---- coordinates ------------------------------------------------------------------------------------- */
void sq_factors_regauge(sq_factors *f, const double *log_s)
{
  /* h_(-1) = 0 keeps its coordinates (s = 1). */
  if (f->T > 0 && f->first == 0) f->log_lambda[0] += log_s[0];
  for (int i = 1; i < f->T; ++i) f->log_lambda[i] += log_s[i] - log_s[i - 1];
  for (int i = 0; i < f->T; ++i) {
    f->log_b[i] += log_s[i];
    f->log_c[i] -= log_s[i];
  }
}

static int is_log(double x) /* of a finite number >= 0 */
{
  return x < INFINITY;
}

int sq_factors_finite(const sq_factors *f)
{
  const size_t all = (size_t)f->T * (size_t)f->n;
  for (int i = 0; i < f->T; ++i)
    if (!is_log(f->log_b[i]) || !is_log(f->log_c[i]) || (i > 0 && !is_log(f->log_lambda[i]))) return 0;
  for (size_t k = 0; k < all; ++k)
    if (!isfinite(f->b[k]) || !isfinite(f->c[k])) return 0;
  return 1;
}

/* ---- the matrix, in strips --------------------------------------------------------------------------- */
static void take_prefix(sq_arena *a, int T, sq_prefix *p)
{
  p->hi = SQ_TAKE(a, (size_t)T, double);
  p->lo = SQ_TAKE(a, (size_t)T, double);
  p->start = SQ_TAKE(a, (size_t)T, int);
}

void sq_prefix_fill(const sq_factors *f, sq_prefix *p)
{
  double hi = 0, lo = 0; /* two-sum (Knuth): hi + lo is the sum to twice the precision */
  int start = 0;
  for (int i = 0; i < f->T; ++i) {
    const double x = i > 0 ? f->log_lambda[i] : 0;
    if (isinf(x)) {
      start = i;
    } else {
      const double sum = hi + x, part = sum - hi;
      lo += (hi - (sum - part)) + (x - part);
      hi = sum;
    }
    p->hi[i] = hi;
    p->lo[i] = lo;
    p->start[i] = start;
  }
}

void sq_log_matrix(const sq_factors *f, const sq_prefix *p, int i0, int i1, int j0, int j1, double *W,
                   int ldw)
{
  const size_t n = (size_t)f->n;
  sq_dgemm(SQ_N, SQ_T, i1 - i0, j1 - j0, f->n, 1, f->c + (size_t)i0 * n, f->n, f->b + (size_t)j0 * n, f->n, 0,
           W, ldw);
  for (int i = i0; i < i1; ++i) {
    double *w = W + (size_t)(i - i0) * (size_t)ldw - j0;
    for (int j = j0; j < j1; ++j) {
      if (j > i || j < p->start[i]) {
        w[j] = -INFINITY;
        continue;
      }
      const double decay = (p->hi[i] - p->hi[j]) + (p->lo[i] - p->lo[j]);
      w[j] = (decay + f->log_b[j] + f->log_c[i]) + (f->exponential ? w[j] : log(fabs(w[j])));
    }
  }
}

/* ---- energy by distance ------------------------------------------------------------------------------ */
void sq_energy_take(sq_arena *a, const sq_factors *f, sq_energy_scratch *s)
{
  take_prefix(a, f->T, &s->prefix);
  s->strip = SQ_TAKE(a, (size_t)SQ_STRIP * (size_t)f->T, double);
  s->energy = SQ_TAKE(a, (size_t)f->T, double);
}

/* log |M_ii| with the skip */
static double log_diagonal(const sq_factors *f, int i)
{
  double dot = 0;
  for (int k = 0; k < f->n; ++k)
    dot += f->c[(size_t)i * (size_t)f->n + (size_t)k] * f->b[(size_t)i * (size_t)f->n + (size_t)k];
  const double scale = f->log_b[i] + f->log_c[i];
  return log(fabs((f->exponential ? exp(scale + dot) : dot == 0 ? 0 : exp(scale) * dot) + f->skip));
}

void sq_energy_with(const sq_factors *f, sq_energy_scratch *s, double *e)
{
  const int T = f->T;
  double scale = -INFINITY, largest = 0; /* s->energy is relative to exp(2 scale) */
  sq_prefix_fill(f, &s->prefix);
  memset(s->energy, 0, (size_t)T * sizeof *s->energy);
  for (int i0 = 0; i0 < T; i0 += SQ_STRIP) {
    const int i1 = i0 + SQ_STRIP < T ? i0 + SQ_STRIP : T;
    double top = -INFINITY;
    sq_log_matrix(f, &s->prefix, i0, i1, 0, i1, s->strip, T);
    for (int i = i0; i < i1; ++i) {
      double *w = s->strip + (size_t)(i - i0) * (size_t)T;
      if (f->skip != 0) w[i] = log_diagonal(f, i);
      for (int j = 0; j <= i; ++j) top = fmax(top, w[j]);
    }
    if (isinf(top)) continue;
    if (top > scale) {
      const double shrink = exp(2 * (scale - top));
      for (int d = 0; d < T; ++d) s->energy[d] *= shrink;
      scale = top;
    }
    for (int i = i0; i < i1; ++i) {
      const double *w = s->strip + (size_t)(i - i0) * (size_t)T;
      for (int j = 0; j <= i; ++j) s->energy[i - j] += exp(2 * (w[j] - scale));
    }
  }
  for (int d = 0; d < T; ++d) largest = fmax(largest, s->energy[d]);
  if (largest > 0)
    for (int d = 0; d < T; ++d) e[d] += s->energy[d] / largest;
}

sq_status sq_factors_energy(const sq_factors *f, double *e)
{
  sq_arena a = {0};
  sq_energy_scratch s;
  sq_status st;
  if (!sq_factors_finite(f)) return sq_fail(SQ_ERR_DATA, "energy by distance: a factor is not finite");
  sq_energy_take(&a, f, &s);
  SQ_TRY(sq_arena_create(&a, a.used, "energy by distance"));
  sq_energy_take(&a, f, &s);
  sq_energy_with(f, &s, e);
done:
  sq_arena_destroy(&a);
  return st;
}

double sq_distance_quantile(int T, const double *e, double level)
{
  double total = 0, sum = 0;
  for (int d = 0; d < T; ++d) total += e[d];
  if (!(total > 0 && total < INFINITY)) return NAN;
  for (int d = 0; d < T; ++d) {
    sum += e[d];
    /* 1e-12: the same answer for every rounding of a share that is exactly `level` */
    if (sum >= (level - 1e-12) * total) return d;
  }
  return T - 1;
}

/* ---- the recurrence ---------------------------------------------------------------------------------- */
/* h <- lambda h + B v^T, where the state is exp(*scale) h.  Returns the largest |h|. */
static double advance(const sq_factors *f, int i, double *scale, double *h)
{
  const int n = f->n, dv = f->dv;
  const double *b = f->b + (size_t)i * (size_t)n, *v = f->v + (size_t)i * (size_t)dv;
  const double old = i > 0 ? *scale + f->log_lambda[i] : -INFINITY, fresh = f->log_b[i];
  const double common = isnan(old) ? old : fmax(old, fresh);
  double largest = 0;
  if (common == -INFINITY) { /* nothing kept, nothing added */
    *scale = common;
    memset(h, 0, (size_t)n * (size_t)dv * sizeof *h);
    return 0;
  }
  const double keep = exp(old - common), add = exp(fresh - common);
  for (int k = 0; k < n; ++k) {
    const double bk = add * b[k];
    double *hk = h + (size_t)k * (size_t)dv;
    for (int x = 0; x < dv; ++x) {
      hk[x] = (keep > 0 ? keep * hk[x] : 0) + bk * v[x];
      if (!(fabs(hk[x]) <= largest)) largest = fabs(hk[x]);
    }
  }
  *scale = common;
  return largest;
}

static double scaled(double x, double log_scale) /* x exp(log_scale) without overflow on the way */
{
  if (x == 0) return 0;
  if (fabs(log_scale) < 700) return x * exp(log_scale);
  return copysign(exp(log_scale + log(fabs(x))), x);
}

static void run_finite(const sq_factors *f, double *h, double *y)
{
  const size_t n = (size_t)f->n, dv = (size_t)f->dv;
  double scale = -INFINITY;
  memset(h, 0, n * dv * sizeof *h);
  for (int i = 0; i < f->T; ++i) {
    const double *c = f->c + (size_t)i * n, largest = advance(f, i, &scale, h);
    double *yi = y + (size_t)i * dv;
    if (largest == 0) {
      scale = -INFINITY;
    } else if (largest < 0x1p-300 || largest > 0x1p300) { /* cancellation or growth */
      for (size_t k = 0; k < n * dv; ++k) h[k] /= largest;
      scale += log(largest);
    }
    memset(yi, 0, dv * sizeof *yi);
    for (size_t k = 0; k < n; ++k)
      for (size_t x = 0; x < dv; ++x) yi[x] += c[k] * h[k * dv + x];
    for (size_t x = 0; x < dv; ++x) yi[x] = scaled(yi[x], scale + f->log_c[i]);
  }
}

/* The state of softmax attention has infinite size: the sum is unrolled, y_i = sum_j M_ij v_j. */
static void run_unrolled(const sq_factors *f, sq_energy_scratch *s, double *y)
{
  const int T = f->T;
  sq_prefix_fill(f, &s->prefix);
  for (int i0 = 0; i0 < T; i0 += SQ_STRIP) {
    const int i1 = i0 + SQ_STRIP < T ? i0 + SQ_STRIP : T;
    sq_log_matrix(f, &s->prefix, i0, i1, 0, i1, s->strip, T);
    for (int i = i0; i < i1; ++i) {
      double *w = s->strip + (size_t)(i - i0) * (size_t)T;
      for (int j = 0; j < i1; ++j) w[j] = exp(w[j]);
    }
    sq_dgemm(SQ_N, SQ_N, i1 - i0, f->dv, i1, 1, s->strip, T, f->v, f->dv, 0, y + (size_t)i0 * (size_t)f->dv,
             f->dv);
  }
}

sq_status sq_factors_run(const sq_factors *f, double *y)
{
  sq_arena a = {0};
  sq_energy_scratch s;
  double *h = NULL;
  sq_status st;
  if (f->exponential) {
    sq_energy_take(&a, f, &s);
    SQ_TRY(sq_arena_create(&a, a.used, "recurrence"));
    sq_energy_take(&a, f, &s);
    run_unrolled(f, &s, y);
  } else {
    h = sq_calloc((size_t)f->n * (size_t)f->dv, sizeof *h, "state of the recurrence");
    if (h == NULL) return SQ_ERR_MEMORY;
    run_finite(f, h, y);
    st = SQ_OK;
  }
  for (size_t k = 0; f->skip != 0 && k < (size_t)f->T * (size_t)f->dv; ++k) y[k] += f->skip * f->v[k];
done:
  sq_arena_destroy(&a);
  free(h);
  return st;
}
