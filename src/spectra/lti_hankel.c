/* src/spectra/lti_hankel.c: Hankel singular values of a time-invariant system over a finite horizon.
 *
 * The output is real and the n states complex and unpaired, so the real system has order 2n: state [Re h; Im h],
 * rows [Re c, -Im c], columns [Re b; Im b].  At cut t the block is O K with rows O_i = C A^i, i = 1 .. T-t, and
 * columns K_j = A^j B, j = 0 .. t-1.  With O = Q R_o and K^T = Q' R_c its singular values are those of R_o R_c^T
 * (2n,2n).
 *
 * Dense systems have one input and output: their rows join a triangle by blocks.  Diagonal systems have many: the
 * triangle of the first a + b steps is that of [R_a; R_b A^a], so that a horizon of T takes about 2 log2 T
 * triangles, whatever the width. */
#include <math.h>
#include <string.h>

#include "spectra_impl.h"
#include "sq/linalg.h"

enum { BLOCK = 64 };

typedef struct {
  double *stack, *R[2], *doubled, *product, *sigma, *work;
  sq_complex *row;
} scratch;

static int largest_input(const sq_lti *f)
{
  return f->nin > f->nout ? f->nin : f->nout;
}

static int stack_rows(const sq_lti *f) /* triangle and triangle, block or all of B or C */
{
  const int m = 2 * f->n, wide = largest_input(f);
  return m + (m > wide ? m : wide) + BLOCK;
}

static void take(sq_arena *a, const sq_lti *f, scratch *s)
{
  const int m = 2 * f->n, rows = stack_rows(f);
  const size_t mm = (size_t)m * (size_t)m, qr = sq_qr_work(rows, m), svd = sq_svd_work(m, m);
  s->stack = SQ_TAKE(a, (size_t)rows * (size_t)m, double);
  s->R[0] = SQ_TAKE(a, mm, double);
  s->R[1] = SQ_TAKE(a, mm, double);
  s->doubled = SQ_TAKE(a, mm, double);
  s->product = SQ_TAKE(a, mm, double);
  s->sigma = SQ_TAKE(a, (size_t)m, double);
  s->work = SQ_TAKE(a, qr > svd ? qr : svd, double);
  s->row = SQ_TAKE(a, (size_t)f->n, sq_complex);
}

size_t sq_lti_hankel_bytes(const sq_lti *f)
{
  sq_arena a = {0};
  scratch s;
  take(&a, f, &s);
  return a.used;
}

/* What a step does: to rows c of C, c <- c A, written [Re c, -Im c]; to columns b of B, b <- A b, written
   [Re b, Im b]. */
typedef enum { OBSERVE = -1, CONTROL = 1 } side;

static void put(int n, side which, const sq_complex *x, double *row)
{
  for (int k = 0; k < n; ++k) {
    row[k] = creal(x[k]);
    row[n + k] = which * cimag(x[k]);
  }
}

static void get(int n, side which, const double *row, sq_complex *x)
{
  for (int k = 0; k < n; ++k) x[k] = row[k] + I * (which * row[n + k]);
}

static void column(const sq_lti *f, side which, int i, sq_complex *x)
{
  for (int k = 0; k < f->n; ++k) x[k] = which == OBSERVE ? f->C[i * f->n + k] : f->B[k * f->nin + i];
}

/* c <- c A, c a row */
static void apply_row(const sq_lti *f, sq_complex *c)
{
  sq_complex dot = 0;
  for (int k = 0; f->dense && k < f->n; ++k) dot += c[k] * f->u[k];
  for (int k = 0; k < f->n; ++k) c[k] *= f->a[k];
  for (int k = 0; f->dense && k < f->n; ++k) c[k] -= dot * conj(f->v[k]);
}

static void advance(const sq_lti *f, side which, sq_complex *x)
{
  if (which == OBSERVE)
    apply_row(f, x);
  else
    sq_lti_apply(f, x);
}

/* Triangle of `steps` steps from the first one, of each input or output. */
static void triangle_by_blocks(const sq_lti *f, side which, int steps, double *R, scratch *s)
{
  const int m = 2 * f->n, width = which == OBSERVE ? f->nout : f->nin;
  int waiting = 0; /* rows in the stack */
  for (int i = 0; i < width; ++i) {
    column(f, which, i, s->row);
    for (int k = 0; k < steps; ++k) {
      if (sq_stop_asked(f->stop)) return;
      if (k > 0 || which == OBSERVE) advance(f, which, s->row);
      put(f->n, which, s->row, s->stack + (size_t)waiting++ * (size_t)m);
      if (waiting < m + BLOCK && (i + 1 < width || k + 1 < steps)) continue;
      sq_qr_r(waiting, m, s->stack, R, s->work);
      memcpy(s->stack, R, (size_t)m * (size_t)m * sizeof *R);
      waiting = m;
    }
  }
}

/* Rows of the triangle from R to `to`, `power` steps later and times exp(-power top). */
static void later(const sq_lti *f, side which, const double *R, long power, double top, double *to,
                  scratch *s)
{
  const int m = 2 * f->n;
  for (int r = 0; r < m; ++r) {
    get(f->n, which, R + (size_t)r * (size_t)m, s->row);
    for (int k = 0; k < f->n; ++k) {
      const double size = cabs(f->a[k]);
      const double angle = atan2(cimag(f->a[k]), creal(f->a[k])) * (double)power;
      const double factor = size > 0 ? exp((double)power * (log(size) - top)) : power == 0;
      s->row[k] *= factor * (cos(angle) + I * sin(angle));
    }
    put(f->n, which, s->row, to + (size_t)r * (size_t)m);
  }
}

/* stack = [A exp(-a), B exp(-b)] scaled to the larger; returns its log scale. */
static double join(int m, double *stack, double a, double b)
{
  const double top = fmax(a, b), first = exp(a - top), second = exp(b - top);
  const size_t mm = (size_t)m * (size_t)m;
  for (size_t k = 0; k < mm; ++k) {
    stack[k] *= first;
    stack[mm + k] *= second;
  }
  return top;
}

/* Diagonal: R exp(*scale) is the triangle of `steps` steps. */
static void triangle_by_doubling(const sq_lti *f, side which, int steps, double *R, double *scale, scratch *s)
{
  const int m = 2 * f->n, width = which == OBSERVE ? f->nout : f->nin;
  const size_t mm = (size_t)m * (size_t)m;
  double top = 0, doubled = 0;
  long done = 0;
  for (int k = 0; k < f->n; ++k) top = fmax(top, log(cabs(f->a[k]))); /* 0 if none grows */
  for (int i = 0; i < width; ++i) {
    column(f, which, i, s->row);
    if (which == OBSERVE) apply_row(f, s->row);
    put(f->n, which, s->row, s->stack + (size_t)i * (size_t)m);
  }
  sq_qr_r(width, m, s->stack, s->doubled, s->work);
  *scale = 0;
  memset(R, 0, mm * sizeof *R);
  for (long length = 1; length <= steps && !sq_stop_asked(f->stop); length *= 2) {
    if (steps & length) { /* the steps so far come after these */
      memcpy(s->stack, s->doubled, mm * sizeof *R);
      later(f, which, R, length, top, s->stack + mm, s);
      *scale = done > 0 ? join(m, s->stack, doubled, *scale + (double)length * top) : doubled;
      sq_qr_r(2 * m, m, s->stack, R, s->work);
      done += length;
    }
    if (2 * length > steps) break;
    memcpy(s->stack, s->doubled, mm * sizeof *R);
    later(f, which, s->doubled, length, top, s->stack + mm, s);
    doubled = join(m, s->stack, doubled, doubled + (double)length * top);
    sq_qr_r(2 * m, m, s->stack, s->doubled, s->work);
  }
}

static double triangle(const sq_lti *f, side which, int steps, double *R, scratch *s)
{
  double scale = 0;
  if (f->dense)
    triangle_by_blocks(f, which, steps, R, s);
  else
    triangle_by_doubling(f, which, steps, R, &scale, s);
  return scale;
}

static int least(int a, int b)
{
  return a < b ? a : b;
}

sq_status sq_lti_hankel(const sq_lti *f, int T, int t, double *sigma, int *nsigma, double *log_sigma1,
                        void *work)
{
  sq_arena a = {.base = work, .cap = sq_lti_hankel_bytes(f)};
  const int m = 2 * f->n;
  const size_t mm = (size_t)m * (size_t)m;
  double top = 0;
  scratch s;
  sq_status st;
  SQ_ASSERT(t >= 1 && t < T);
  take(&a, f, &s);
  const double scale = triangle(f, OBSERVE, T - t, s.R[0], &s) + triangle(f, CONTROL, t, s.R[1], &s);
  if (sq_stop_asked(f->stop)) return SQ_STOPPED;
  sq_dgemm(SQ_N, SQ_T, m, m, m, 1, s.R[0], m, s.R[1], m, 0, s.product, m);
  for (size_t k = 0; k < mm; ++k)
    if (!(fabs(s.product[k]) <= top)) top = fabs(s.product[k]);
  if (!(top < INFINITY)) return sq_fail(SQ_ERR_DATA, "Hankel singular values: the system is not finite");
  for (size_t k = 0; top > 0 && k < mm; ++k) s.product[k] /= top;
  SQ_TRY(sq_svd_values(m, m, s.product, s.sigma, s.work));
  *log_sigma1 = log(s.sigma[0]) + log(top) + scale;
  const double first = s.sigma[0];
  const long long past = (long long)t * f->nin, future = (long long)(T - t) * f->nout;
  *nsigma = least(m, past < m ? (int)past : m);
  *nsigma = least(*nsigma, future < m ? (int)future : m);
  for (int k = 0; k < *nsigma; ++k) sigma[k] = first > 0 ? s.sigma[k] / first : 0;
done:
  return st;
}
