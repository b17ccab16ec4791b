/* src/mixer/s4_analysis.c: the recurrence that computes what the convolution computes, in float64 from the stored
 * parameters (models/s4.py, discrete_DPLR).
 *
 *     A_c = diag(lam) - p p^* ,   M = ((2/step) I - A_c)^-1 ,   A = (4/step) M - I ,   B' = 2 M B ,
 *     C' = conj(C~) (I - A^L)^-1
 *
 * With d = 2/step - lam, E = diag(1/d) and s = p^* E p the inverse is M = E - E p p^* E / (1+s). */
#include <math.h>
#include <string.h>

#include "s4.h"

typedef struct {
  double step;
  sq_complex *lam, *p, *d, *a, *u, *v; /* (N) */
  sq_complex one_s;                    /* 1 + s */
} system_matrix;

void sq_s4_lti_dims(const sq_mixer *m, sq_lti *f)
{
  f->nsystem = m->head.dims.D;
  f->n = m->N;
  f->nin = f->nout = 1;
  f->dense = 1;
}

static sq_complex complex_at(const sq_real *x, size_t i)
{
  return CMPLX((double)x[2 * i], (double)x[2 * i + 1]);
}

static system_matrix discretise(const sq_mixer *m, const sq_real *theta, size_t c, sq_arena *arena)
{
  const size_t N = (size_t)m->N, D = (size_t)m->head.dims.D;
  system_matrix x = {.step = exp((double)theta[m->log_step + c]), .one_s = 1};
  x.lam = SQ_TAKE(arena, N, sq_complex);
  x.p = SQ_TAKE(arena, N, sq_complex);
  x.d = SQ_TAKE(arena, N, sq_complex);
  x.a = SQ_TAKE(arena, N, sq_complex);
  x.u = SQ_TAKE(arena, N, sq_complex);
  x.v = SQ_TAKE(arena, N, sq_complex);
  if (arena->base == NULL) return x;
  for (size_t n = 0; n < N; ++n) {
    const size_t i = n * D + c;
    x.lam[n] = CMPLX((double)sq_s4_clamped(theta[m->Lambda_re + i]), (double)theta[m->Lambda_im + i]);
    x.p[n] = complex_at(theta + m->P, i);
    x.d[n] = 2 / x.step - x.lam[n];
    x.one_s += conj(x.p[n]) * x.p[n] / x.d[n];
  }
  for (size_t n = 0; n < N; ++n) {
    x.a[n] = (2 / x.step + x.lam[n]) / x.d[n];
    x.u[n] = 4 / x.step * x.p[n] / (x.d[n] * x.one_s);
    x.v[n] = x.p[n] / conj(x.d[n]);
  }
  return x;
}

static void input_column(const sq_mixer *m, const sq_real *theta, size_t c, const system_matrix *x,
                         sq_complex *B)
{
  const size_t N = (size_t)m->N, D = (size_t)m->head.dims.D;
  sq_complex pb = 0;
  for (size_t n = 0; n < N; ++n) {
    B[n] = complex_at(theta + m->B, n * D + c) / x->d[n];
    pb += conj(x->p[n]) * B[n];
  }
  for (size_t n = 0; n < N; ++n) B[n] = 2 * (B[n] - x->p[n] / x->d[n] * pb / x->one_s);
}

/* R = R A, A = diag(a) - u v^*: O(N^2). */
static void times_A(size_t N, const system_matrix *x, sq_complex *R)
{
  for (size_t i = 0; i < N; ++i, R += N) {
    sq_complex Ru = 0;
    for (size_t j = 0; j < N; ++j) Ru += R[j] * x->u[j];
    for (size_t j = 0; j < N; ++j) R[j] = R[j] * x->a[j] - Ru * conj(x->v[j]);
  }
}

/* R = A^L by squaring; R and other (N,N); returns the one of them that holds it, NULL at a stop. */
static sq_complex *power(const sq_mixer *m, const system_matrix *x, const sq_stop *stop, sq_complex *R,
                         sq_complex *other)
{
  const int N = m->N;
  const size_t n = (size_t)N;
  int bit = 1;
  memset(R, 0, n * n * sizeof *R);
  for (size_t i = 0; i < n; ++i) R[i * n + i] = 1;
  while (bit <= m->L / 2) bit *= 2;
  for (times_A(n, x, R), bit /= 2; bit > 0; bit /= 2) {
    if (sq_stop_asked(stop)) return NULL;
    sq_zgemm(N, N, N, R, N, R, N, other, N);
    sq_complex *swap = R;
    R = other;
    other = swap;
    if (m->L & bit) times_A(n, x, R);
  }
  return R;
}

/* C' (I - A^L) = conj(C~) */
static sq_status output_row(const sq_mixer *m, const sq_real *theta, size_t c, const system_matrix *x,
                            const sq_stop *stop, sq_complex *C)
{
  sq_status st = SQ_STOPPED;
  const size_t N = (size_t)m->N, D = (size_t)m->head.dims.D;
  sq_arena a = {0};
  SQ_TRY(sq_arena_create(&a, (2 * N * N + N) * sizeof(sq_complex) + 1024, "S4's recurrence"));
  sq_complex *R = SQ_TAKE(&a, N * N, sq_complex), *other = SQ_TAKE(&a, N * N, sq_complex);
  int *pivot = SQ_TAKE(&a, N, int);
  R = power(m, x, stop, R, other);
  if (R == NULL) goto done;
  for (size_t i = 0; i < N * N; ++i) R[i] = -R[i];
  for (size_t i = 0; i < N; ++i) R[i * N + i] += 1;
  for (size_t n = 0; n < N; ++n) C[n] = conj(complex_at(theta + m->C, n * D + c));
  st = sq_zsolve(SQ_T, m->N, R, C, pivot);
done:
  sq_arena_destroy(&a);
  return st;
}

static void copy(const sq_mixer *m, const sq_complex *from, sq_complex *to)
{
  if (to != NULL) memcpy(to, from, (size_t)m->N * sizeof *to);
}

sq_status sq_s4_lti(const sq_mixer *m, const sq_real *theta, int s, sq_lti *f)
{
  sq_status st = SQ_OK;
  const size_t c = (size_t)s;
  sq_arena a = {0};
  (void)discretise(m, theta, c, &a);
  SQ_TRY(sq_arena_create(&a, a.used, "S4's recurrence"));
  const system_matrix x = discretise(m, theta, c, &a);
  copy(m, x.a, f->a);
  copy(m, x.u, f->u);
  copy(m, x.v, f->v);
  copy(m, x.lam, f->lam);
  copy(m, x.p, f->p);
  f->step = x.step;
  if (f->B) input_column(m, theta, c, &x, f->B);
  if (f->D) f->D[0] = (double)theta[m->skip + c];
  if (f->C) SQ_TRY(output_row(m, theta, c, &x, f->stop, f->C));
done:
  sq_arena_destroy(&a);
  return st;
}

/* The published analysis looks at the second channel. */
int sq_s4_lti_published(const sq_mixer *m, const sq_real *theta, sq_complex *lambda, int *system)
{
  (void)theta;
  (void)lambda;
  *system = m->head.dims.D > 1 ? 1 : 0;
  return 1;
}
