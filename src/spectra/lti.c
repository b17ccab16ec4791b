/* src/spectra/lti.c: one time-invariant system: run it, its eigenvalues, what its powers do.
 *
 * A = diag(a) - u v^*, so that a product with a vector takes O(n).  Where A is not diagonal it is the bilinear
 * discretisation of A_c = diag(lam) - p p^*, a contraction whenever Re lam <= 0: nothing overflows. */
#include <math.h>
#include <string.h>

#include "spectra_impl.h"
#include "sq/linalg.h"

void sq_lti_take(sq_arena *a, sq_lti *f)
{
  const size_t n = (size_t)f->n;
  f->a = SQ_TAKE(a, n, sq_complex);
  f->B = SQ_TAKE(a, n * (size_t)f->nin, sq_complex);
  f->C = SQ_TAKE(a, n * (size_t)f->nout, sq_complex);
  f->D = SQ_TAKE(a, (size_t)f->nout, double);
  if (!f->dense) {
    f->u = f->v = f->lam = f->p = NULL;
    return;
  }
  f->u = SQ_TAKE(a, n, sq_complex);
  f->v = SQ_TAKE(a, n, sq_complex);
  f->lam = SQ_TAKE(a, n, sq_complex);
  f->p = SQ_TAKE(a, n, sq_complex);
}

static double square(sq_complex x)
{
  return creal(x) * creal(x) + cimag(x) * cimag(x);
}

/* h <- A h */
void sq_lti_apply(const sq_lti *f, sq_complex *h)
{
  sq_complex dot = 0;
  for (int k = 0; f->dense && k < f->n; ++k) dot += conj(f->v[k]) * h[k];
  for (int k = 0; k < f->n; ++k) h[k] *= f->a[k];
  for (int k = 0; f->dense && k < f->n; ++k) h[k] -= f->u[k] * dot;
}

/* h <- A^* h */
static void apply_adjoint(const sq_lti *f, sq_complex *h)
{
  sq_complex dot = 0;
  for (int k = 0; f->dense && k < f->n; ++k) dot += conj(f->u[k]) * h[k];
  for (int k = 0; k < f->n; ++k) h[k] *= conj(f->a[k]);
  for (int k = 0; f->dense && k < f->n; ++k) h[k] -= f->v[k] * dot;
}

void sq_lti_run(const sq_lti *f, int T, const double *u, int ldu, double *y, int ldy, sq_complex *h)
{
  memset(h, 0, (size_t)f->n * sizeof *h);
  for (int t = 0; t < T; ++t) {
    const double *ut = u + (size_t)t * (size_t)ldu;
    double *yt = y + (size_t)t * (size_t)ldy;
    sq_lti_apply(f, h);
    for (int k = 0; k < f->n; ++k)
      for (int i = 0; i < f->nin; ++i) h[k] += f->B[k * f->nin + i] * ut[i];
    for (int o = 0; o < f->nout; ++o) {
      double sum = f->D[o] * ut[o];
      for (int k = 0; k < f->n; ++k) sum += creal(f->C[o * f->n + k] * h[k]);
      yt[o] = sum;
    }
  }
}

void sq_lti_matrix(const sq_lti *f, sq_complex *A)
{
  const size_t n = (size_t)f->n;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      A[i * n + j] = (i == j ? f->a[i] : 0) - (f->dense ? f->u[i] * conj(f->v[j]) : 0);
}

void sq_lti_rescale(sq_lti *f, const sq_complex *scale)
{
  for (int k = 0; k < f->n; ++k) {
    for (int i = 0; i < f->nin; ++i) f->B[k * f->nin + i] *= scale[k];
    for (int o = 0; o < f->nout; ++o) f->C[o * f->n + k] /= scale[k];
    if (!f->dense) continue;
    f->u[k] *= scale[k];
    f->v[k] /= conj(scale[k]);
  }
}

/* ---- eigenvalues ------------------------------------------------------------------------------------- */
void sq_lti_spectrum_take(sq_arena *a, int n, sq_lti_spectrum *s)
{
  const size_t nn = (size_t)n;
  s->mu = SQ_TAKE(a, nn, sq_complex);
  s->lambda = SQ_TAKE(a, nn, sq_complex);
  s->radius = SQ_TAKE(a, nn, double);
  s->mu_radius = SQ_TAKE(a, nn, double);
  s->mu_sensitivity = SQ_TAKE(a, nn, double);
  s->condition = SQ_TAKE(a, nn, double);
  s->backward = SQ_TAKE(a, nn, double);
  s->sensitivity = SQ_TAKE(a, nn, double);
  s->certified = SQ_TAKE(a, nn, int);
}

sq_complex sq_lti_bilinear(double step, sq_complex mu)
{
  return (1 + 0.5 * step * mu) / (1 - 0.5 * step * mu);
}

static void diagonal_eigenvalues(const sq_lti *f, sq_lti_spectrum *s)
{
  for (int k = 0; k < f->n; ++k) {
    s->mu[k] = s->lambda[k] = f->a[k];
    s->radius[k] = s->mu_radius[k] = s->backward[k] = 0;
    s->condition[k] = s->certified[k] = 1;
    s->sensitivity[k] = s->mu_sensitivity[k] = NAN;
  }
  s->sweeps = 0;
}

/* By lambda(mu + d) - lambda(mu) = step d / ((1 - step mu/2)(1 - step (mu+d)/2)), with the rounding of lambda itself:
   four operations on numbers of size 1 and |step mu/2|. */
double sq_lti_disc(double step, sq_complex mu, double r, sq_complex lambda)
{
  const double half = 0.5 * step * cabs(mu), below = cabs(1 - 0.5 * step * mu), far = below - 0.5 * step * r;
  const double rounding = 8 * DBL_EPSILON * (1 + half) * (1 + cabs(lambda)) / below;
  return far > 0 ? step * r / (below * far) * (1 + 1e-10) + rounding : INFINITY;
}

void sq_lti_solve(const sq_lti *f, double relative, sq_lti_spectrum *s, void *work)
{
  if (!f->dense) {
    diagonal_eigenvalues(f, s);
    return;
  }
  const sq_rank_one A = {f->n, f->lam, f->p, f->p};
  sq_secular r = {.mu = s->mu, .radius = s->mu_radius, .certified = s->certified, .stop = f->stop};
  sq_secular_solve(&A, 0, &r, work);
  s->sweeps = r.sweeps;
  for (int k = 0; k < f->n; ++k) {
    sq_eigenvalue_quality q;
    sq_rank_one_eigenvalue(&A, s->mu[k], relative, &q);
    s->condition[k] = q.condition; /* A and A_c have the same eigenvectors */
    s->mu_sensitivity[k] = q.sensitivity;
  }
}

void sq_lti_map(const sq_lti *f, double relative, int backward, sq_lti_spectrum *s)
{
  const sq_rank_one A = {f->n, f->a, f->u, f->v};
  for (int k = 0; f->dense && k < f->n; ++k) {
    const sq_complex mu = s->mu[k], below = 1 - 0.5 * f->step * mu;
    s->lambda[k] = sq_lti_bilinear(f->step, mu);
    s->radius[k] = sq_lti_disc(f->step, mu, s->mu_radius[k], s->lambda[k]);
    s->sensitivity[k] =
        f->step * (s->mu_sensitivity[k] + relative * fabs(log(f->step)) * cabs(mu)) / square(below);
    if (!backward) continue;
    sq_eigenvalue_quality q;
    sq_rank_one_eigenvalue(&A, s->lambda[k], relative, &q);
    s->backward[k] = q.backward_error;
  }
}

void sq_lti_eigenvalues(const sq_lti *f, double relative, sq_lti_spectrum *s, void *work)
{
  sq_lti_solve(f, relative, s, work);
  sq_lti_map(f, relative, 1, s);
}

/* ---- energy of the impulse response ------------------------------------------------------------------ */
static int by_gram(const sq_lti *f)
{
  return !f->dense && f->nin * f->nout > 1;
}

size_t sq_lti_energy_work(const sq_lti *f)
{
  const size_t n = (size_t)f->n;
  return by_gram(f) ? 2 * n * n * 2 + 2 * n : 2 * n;
}

/* One input column at a time: h = A^k b. */
static void energy_by_running(const sq_lti *f, int T, double *e, sq_complex *h)
{
  for (int i = 0; i < f->nin; ++i) {
    for (int k = 0; k < f->n; ++k) h[k] = f->B[k * f->nin + i];
    for (int t = 0; t < T && !sq_stop_asked(f->stop); ++t) {
      if (t > 0) sq_lti_apply(f, h);
      for (int o = 0; o < f->nout; ++o) {
        double y = t == 0 && o == i ? f->D[o] : 0;
        for (int k = 0; k < f->n; ++k) y += creal(f->C[o * f->n + k] * h[k]);
        e[t] += y * y;
      }
    }
  }
}

static double energy_at_zero(const sq_lti *f)
{
  double sum = 0;
  for (int o = 0; o < f->nout; ++o)
    for (int i = 0; i < f->nin; ++i) {
      double y = o == i ? f->D[o] : 0;
      for (int k = 0; k < f->n; ++k) y += creal(f->C[o * f->n + k] * f->B[k * f->nin + i]);
      sum += y * y;
    }
  return sum;
}

/* 2 |Re M|_F^2 = |M|_F^2 + Re sum M_oi^2, M = C diag(z) B, z = a^k:  z^* G z + Re z^T F z with
   G_nm = (C^* C)_nm (B B^*)_mn and F_nm = (C^T C)_nm (B B^T)_nm: O(n^2) a step, whatever the width. */
static void energy_by_gram(const sq_lti *f, int T, double *e, double *work)
{
  const int n = f->n;
  sq_complex *G = (sq_complex *)(void *)work, *F = G + (size_t)n * (size_t)n, *z = F + (size_t)n * (size_t)n;
  for (int p = 0; p < n; ++p)
    for (int q = 0; q < n; ++q) {
      sq_complex cg = 0, cf = 0, bg = 0, bf = 0;
      for (int o = 0; o < f->nout; ++o) {
        const sq_complex cp = f->C[o * n + p], cq = f->C[o * n + q];
        cg += conj(cp) * cq;
        cf += cp * cq;
      }
      for (int i = 0; i < f->nin; ++i) {
        const sq_complex bp = f->B[p * f->nin + i], bq = f->B[q * f->nin + i];
        bg += conj(bp) * bq;
        bf += bp * bq;
      }
      G[p * n + q] = cg * bg;
      F[p * n + q] = cf * bf;
    }
  for (int p = 0; p < n; ++p) z[p] = 1;
  if (T > 0) e[0] += energy_at_zero(f);
  for (int t = 1; t < T && !sq_stop_asked(f->stop); ++t) {
    double sum = 0;
    for (int p = 0; p < n; ++p) z[p] *= f->a[p];
    for (int p = 0; p < n; ++p) {
      sq_complex g = 0, s = 0;
      for (int q = 0; q < n; ++q) {
        g += G[p * n + q] * z[q];
        s += F[p * n + q] * z[q];
      }
      sum += creal(conj(z[p]) * g + z[p] * s);
    }
    e[t] += sum > 0 ? 0.5 * sum : isnan(sum) ? NAN : 0;
  }
}

void sq_lti_energy(const sq_lti *f, int T, double *e, double *work)
{
  if (by_gram(f))
    energy_by_gram(f, T, e, work);
  else
    energy_by_running(f, T, e, (sq_complex *)(void *)work);
}

/* ---- norms ------------------------------------------------------------------------------------------- */
enum { LANCZOS = 48, ANGLES = 64 };

typedef struct {
  const sq_lti *f;
  sq_complex turn;     /* Hermitian part of turn A ... */
  const sq_complex *M; /* ... or M^* M, if given */
  int n;
  sq_complex *other;
} operation;

static void operate(const operation *p, const sq_complex *x, sq_complex *y)
{
  const size_t n = (size_t)p->n;
  if (p->M != NULL) {
    memset(y, 0, n * sizeof *y);
    for (size_t i = 0; i < n; ++i) {
      sq_complex sum = 0;
      for (size_t j = 0; j < n; ++j) sum += p->M[i * n + j] * x[j];
      for (size_t j = 0; j < n; ++j) y[j] += conj(p->M[i * n + j]) * sum;
    }
    return;
  }
  memcpy(y, x, n * sizeof *y);
  memcpy(p->other, x, n * sizeof *y);
  sq_lti_apply(p->f, y);
  apply_adjoint(p->f, p->other);
  for (size_t k = 0; k < n; ++k) y[k] = 0.5 * (p->turn * y[k] + conj(p->turn) * p->other[k]);
}

/* Number of eigenvalues of the tridiagonal matrix above x, by Sturm's sequence. */
static int count_above(int m, const double *alpha, const double *beta, double x)
{
  int count = 0;
  double d = 1;
  for (int i = 0; i < m; ++i) {
    d = x - alpha[i] - (i > 0 ? beta[i - 1] * beta[i - 1] / d : 0);
    if (d == 0) d = -DBL_MIN;
    count += d < 0;
  }
  return count;
}

static double tridiagonal_largest(int m, const double *alpha, const double *beta)
{
  double low = INFINITY, high = -INFINITY;
  for (int i = 0; i < m; ++i) { /* Gershgorin */
    const double r = (i > 0 ? beta[i - 1] : 0) + (i + 1 < m ? beta[i] : 0);
    low = fmin(low, alpha[i] - r);
    high = fmax(high, alpha[i] + r);
  }
  for (int k = 0; k < 60; ++k) {
    const double middle = 0.5 * (low + high);
    if (count_above(m, alpha, beta, middle) > 0)
      low = middle;
    else
      high = middle;
  }
  return high;
}

/* Largest eigenvalue of a Hermitian operator by Lanczos without reorthogonalisation (lost orthogonality repeats
   extreme values, which does no harm to the largest); x, y, old (n). */
static double lanczos(const operation *p, sq_complex *x, sq_complex *y, sq_complex *old)
{
  double alpha[LANCZOS], beta[LANCZOS], first = 0;
  const int steps = p->n < LANCZOS ? p->n : LANCZOS;
  int m = 0;
  for (int k = 0; k < p->n; ++k) { /* no symmetry that an eigenvector could have */
    x[k] = 1 + 0.5 * cos(1.7 * k) + I * 0.5 * sin(2.3 * k);
    old[k] = 0;
    first += square(x[k]);
  }
  for (int k = 0; k < p->n; ++k) x[k] /= sqrt(first);
  while (m < steps) {
    double dot = 0, rest = 0;
    operate(p, x, y);
    for (int k = 0; k < p->n; ++k) dot += creal(conj(x[k]) * y[k]);
    for (int k = 0; k < p->n; ++k) {
      y[k] -= dot * x[k] + (m > 0 ? beta[m - 1] : 0) * old[k];
      rest += square(y[k]);
    }
    alpha[m] = dot;
    beta[m++] = sqrt(rest);
    if (!(rest > DBL_EPSILON * DBL_EPSILON * dot * dot)) break;
    for (int k = 0; k < p->n; ++k) {
      old[k] = x[k];
      x[k] = y[k] / beta[m - 1];
    }
  }
  return tridiagonal_largest(m, alpha, beta);
}

size_t sq_lti_power_work(const sq_lti *f)
{
  const size_t n = (size_t)f->n;
  return 2 * (2 * n * n + 4 * n);
}

double sq_lti_power_norm(const sq_lti *f, int T, double *work)
{
  const size_t n = (size_t)f->n;
  sq_complex *M = (sq_complex *)(void *)work, *next = M + n * n, *vectors = next + n * n;
  double most = 0;
  sq_lti_matrix(f, M);
  for (int k = 1; k <= T && !sq_stop_asked(f->stop); k *= 2) {
    const operation p = {.n = f->n, .M = M};
    const double square_of = lanczos(&p, vectors, vectors + n, vectors + 2 * n);
    const double norm = sqrt(square_of < 0 ? 0 : square_of); /* NaN stays */
    if (!(norm <= most)) most = norm;
    if (k > T / 2) break;
    sq_zgemm(f->n, f->n, f->n, M, f->n, M, f->n, next, f->n);
    sq_complex *old = M;
    M = next;
    next = old;
  }
  return most;
}

double sq_lti_numerical_radius(const sq_lti *f, double *work)
{
  const size_t n = (size_t)f->n;
  sq_complex *vectors = (sq_complex *)(void *)work;
  double most = 0;
  for (int k = 0; k < ANGLES && !sq_stop_asked(f->stop); ++k) {
    const double angle = 2 * M_PI * k / ANGLES;
    const operation p = {.f = f, .turn = cos(angle) + I * sin(angle), .n = f->n, .other = vectors + 3 * n};
    const double w = lanczos(&p, vectors, vectors + n, vectors + 2 * n);
    if (!(w <= most)) most = w;
  }
  return most;
}
