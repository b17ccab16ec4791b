/* src/linalg/secular.c: eigenvalues of a diagonal plus a matrix of rank one, with proof.
 *
 *   A = diag(d) - u v^*,   det(z - A) = prod(z - d_n) f(z),   f(z) = 1 + sum_n c_n/(z - d_n),   c_n = u_n conj(v_n)
 *
 * The zeros of f are found all at once by the iteration of Ehrlich and Aberth, O(n^2) a sweep, in quadruple
 * precision: transition matrices of state-space layers are so far from normal that a rounding of float64 moves
 * eigenvalues by more than they are apart.  c_n is a product of two float64 numbers and exact, or rounded once.
 *
 * Proof.  With P monic of degree m and distinct z_i, all zeros lie in the union of the discs
 *   |z - z_i| <= m |P(z_i)| / prod_(j/=i) |z_i - z_j| ,
 * and a disc that meets no other holds exactly one (Smith 1970, Braess and Hadeler 1973).  |f(z_i)| is taken as
 * its computed value plus a bound of its rounding errors. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sq/base.h"
#include "sq/linalg.h"

/* Only + - * / are used: no library is needed.  Without a type of 113 bits the bounds stay true, and fewer
   eigenvalues can be certified. */
#if defined(__SIZEOF_FLOAT128__)
__extension__ typedef __float128 quad;
#define UNIT 0x1p-113
#else
typedef long double quad;
#define UNIT ((double)LDBL_EPSILON / 2)
#endif

typedef struct {
  quad re, im;
} cquad;

enum { MOST_SWEEPS = 200, MOST_ROUGH_SWEEPS = 200 };

typedef struct {
  int m;         /* eigenvalues that are not entries of d */
  int *at;       /* (m) which ones */
  cquad *c, *z;  /* (m) */
  cquad *before; /* (m) z before this sweep */
  const sq_secular_share *share;
  const sq_stop *stop;
  double *weight;                   /* (m) sum of the |c| that were put together */
  double *f, *noise;                /* (m) |f(z)| as computed, and how far it may be off */
  double *step;                     /* (m) last correction */
  double *radius;                   /* (m) */
  int *done;                        /* (m) */
  sq_complex *rough, *rough_before; /* (m) */
} problem;

static void take(sq_arena *a, int n, problem *s)
{
  const size_t m = (size_t)n;
  s->at = SQ_TAKE(a, m, int);
  s->c = SQ_TAKE(a, m, cquad);
  s->z = SQ_TAKE(a, m, cquad);
  s->before = SQ_TAKE(a, m, cquad);
  s->weight = SQ_TAKE(a, m, double);
  s->f = SQ_TAKE(a, m, double);
  s->noise = SQ_TAKE(a, m, double);
  s->step = SQ_TAKE(a, m, double);
  s->radius = SQ_TAKE(a, m, double);
  s->done = SQ_TAKE(a, m, int);
  s->rough = SQ_TAKE(a, m, sq_complex);
  s->rough_before = SQ_TAKE(a, m, sq_complex);
}

size_t sq_secular_bytes(int n)
{
  sq_arena a = {0};
  problem s;
  take(&a, n, &s);
  return a.used;
}

/* ---- arithmetic -------------------------------------------------------------------------------------- */
static cquad widen(sq_complex x)
{
  return (cquad){creal(x), cimag(x)};
}

static sq_complex narrow(cquad x)
{
  return (double)x.re + I * (double)x.im;
}

static cquad minus(cquad a, cquad b)
{
  return (cquad){a.re - b.re, a.im - b.im};
}

static cquad times(cquad a, cquad b)
{
  return (cquad){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

static cquad inverse(cquad a)
{
  const quad r = 1 / (a.re * a.re + a.im * a.im);
  return (cquad){a.re * r, -a.im * r};
}

static cquad product(const sq_rank_one *A, int n) /* u conj(v) */
{
  const quad ur = creal(A->u[n]), ui = cimag(A->u[n]), vr = creal(A->v[n]), vi = cimag(A->v[n]);
  return (cquad){ur * vr + ui * vi, ui * vr - ur * vi};
}

static int is_zero(cquad a)
{
  return a.re == 0 && a.im == 0;
}

/* ---- f ------------------------------------------------------------------------------------------------ */
typedef struct {
  cquad f, slope;   /* f and f' */
  sq_complex poles; /* sum 1/(z - d) */
  double terms;     /* sum |c/(z-d)| */
} secular;

/* Relative errors of one term c/(z-d), in units of the last place, to first order: c 2, z - d 1, its inverse 7,
   the product 4; summing m of them and 1 adds m.  Twice that covers what is not first order. */
static double noise_of(int m, double terms)
{
  return 2 * (m + 14) * UNIT * (1 + terms);
}

/* 0: z is a pole. */
static int evaluate(const sq_rank_one *A, int m, const int *at, const cquad *c, const double *weight, cquad z,
                    secular *s)
{
  cquad f = {1, 0}, slope = {0, 0};
  sq_complex poles = 0;
  double terms = 0;
  for (int k = 0; k < m; ++k) {
    const cquad d = minus(z, widen(A->d[at[k]]));
    if (is_zero(d)) return 0;
    const cquad r = inverse(d);
    const cquad term = c[k].im == 0 ? (cquad){c[k].re * r.re, c[k].re * r.im} : times(c[k], r);
    const cquad part = times(term, r);
    const sq_complex rough = narrow(r);
    f.re += term.re;
    f.im += term.im;
    slope.re -= part.re;
    slope.im -= part.im;
    poles += rough;
    terms += weight[k] * hypot(creal(rough), cimag(rough));
  }
  *s = (secular){f, slope, poles, terms * (1 + 1e-10)};
  return 1;
}

static double size_of(sq_complex x)
{
  return hypot(creal(x), cimag(x));
}

/* ---- the problem ------------------------------------------------------------------------------------- */
/* An entry of d without weight is an eigenvalue, and so are all but one of equal entries, whose weights are put
   together.  r: these are final. */
static void deflate(const sq_rank_one *A, problem *s, sq_secular *r)
{
  s->m = 0;
  for (int n = 0; n < A->n; ++n) {
    const cquad c = product(A, n);
    int twin = 0;
    while (twin < s->m && A->d[s->at[twin]] != A->d[n]) ++twin;
    r->radius[n] = 0;
    r->certified[n] = 1;
    if (is_zero(c)) continue;
    if (twin < s->m) {
      s->c[twin].re += c.re;
      s->c[twin].im += c.im;
      s->weight[twin] += size_of(narrow(c)) * (1 + 1e-10);
      continue;
    }
    s->c[s->m] = c;
    s->weight[s->m] = size_of(narrow(c)) * (1 + 1e-10);
    s->at[s->m++] = n;
  }
  int kept = 0; /* weights may have cancelled */
  for (int k = 0; k < s->m; ++k) {
    if (is_zero(s->c[k])) continue;
    s->c[kept] = s->c[k];
    s->weight[kept] = s->weight[k];
    s->at[kept++] = s->at[k];
  }
  s->m = kept;
}

static int is_kept(const problem *s, int n)
{
  for (int k = 0; k < s->m; ++k)
    if (s->at[k] == n) return 1;
  return 0;
}

/* Given values: those nearest to the entries of d that are eigenvalues belong to these. */
static void start_from(const sq_rank_one *A, problem *s, const sq_complex *mu, int *taken)
{
  memset(taken, 0, (size_t)A->n * sizeof *taken);
  for (int n = 0; n < A->n && s->m < A->n; ++n) {
    if (is_kept(s, n)) continue;
    int nearest = -1;
    for (int k = 0; k < A->n; ++k)
      if (!taken[k] && (nearest < 0 || size_of(mu[k] - A->d[n]) < size_of(mu[nearest] - A->d[n])))
        nearest = k;
    taken[nearest] = 1;
  }
  for (int k = 0, i = 0; k < A->n; ++k)
    if (!taken[k]) s->rough[i++] = mu[k];
}

/* ---- sharing the work ---------------------------------------------------------------------------------- */
/* Values go in fixed blocks.  A sweep uses the newest values of its own block and those before the sweep of the others, so
 * that a result depends on neither the number of processes nor which of them does a block. */
int sq_secular_first(int m, int rank, int nrank)
{
  const long blocks = (m + SQ_SECULAR_BLOCK - 1) / SQ_SECULAR_BLOCK,
             first = blocks * rank / nrank * SQ_SECULAR_BLOCK;
  return first < m ? (int)first : m;
}

static int mine_from(const problem *s)
{
  return s->share ? sq_secular_first(s->m, s->share->rank, s->share->nrank) : 0;
}

static int mine_to(const problem *s)
{
  return s->share ? sq_secular_first(s->m, s->share->rank + 1, s->share->nrank) : s->m;
}

static int same_block(int i, int j)
{
  return i / SQ_SECULAR_BLOCK == j / SQ_SECULAR_BLOCK;
}

static void exchange(const problem *s, void *data, size_t bytes)
{
  if (s->share) s->share->exchange(s->share->user, s->m, data, bytes);
}

/* ---- the iteration ----------------------------------------------------------------------------------- */
/* sum_(j/=i) 1/(z_i - z_j) in float64: an error of it changes the speed, not the limit.  Equal values push
   nothing; they part because of the others. */
static sq_complex repulsion(const problem *s, int i)
{
  sq_complex sum = 0;
  for (int j = 0; j < s->m; ++j) {
    if (j == i) continue;
    const sq_complex d = narrow(minus(s->z[i], same_block(i, j) ? s->z[j] : s->before[j]));
    if (d != 0) sum += 1 / d;
  }
  return sum;
}

/* From about d_n - c_n, the eigenvalues to first order, off the real axis and apart, in float64, until nothing
   moves by more than 1e-10 of its size or the noise of float64 is reached. */
static void start_alone(const sq_rank_one *A, problem *s)
{
  for (int i = 0; i < s->m; ++i)
    s->rough[i] = A->d[s->at[i]] - narrow(s->c[i]) * (1 + 0.1 * cos(i) + 0.1 * I * sin(i));
  for (int sweep = 0; sweep < MOST_ROUGH_SWEEPS; ++sweep) {
    double moved = 0;
    memcpy(s->rough_before, s->rough, (size_t)s->m * sizeof *s->rough);
    for (int i = mine_from(s); i < mine_to(s); ++i) {
      if (sq_stop_asked(s->stop)) return;
      const sq_complex z = s->rough[i];
      sq_complex f = 1, slope = 0, poles = 0;
      double terms = 1;
      int on_pole = 0;
      for (int k = 0; k < s->m; ++k) {
        const sq_complex d = z - A->d[s->at[k]];
        const double square = creal(d) * creal(d) + cimag(d) * cimag(d);
        if (square == 0) on_pole = 1;
        const sq_complex inv = conj(d) / square, term = narrow(s->c[k]) * inv;
        f += term;
        slope -= term * inv;
        poles += inv;
        terms += fabs(creal(term)) + fabs(cimag(term));
      }
      for (int j = 0; j < s->m; ++j) {
        const sq_complex d = z - (same_block(i, j) ? s->rough[j] : s->rough_before[j]);
        const double square = creal(d) * creal(d) + cimag(d) * cimag(d);
        if (j != i && square > 0) poles -= conj(d) / square;
      }
      s->step[i] = 0;
      if (on_pole) {
        s->rough[i] += 1e-8 * (size_of(z) + size_of(narrow(s->c[i]))) + DBL_MIN;
        s->step[i] = 1;
        continue;
      }
      if (size_of(f) <= 4 * DBL_EPSILON * terms) continue;
      const sq_complex w = f / (f * poles + slope);
      if (!isfinite(creal(w)) || !isfinite(cimag(w))) continue;
      s->rough[i] = z - w;
      s->step[i] = size_of(w) / (size_of(z) + DBL_MIN);
    }
    exchange(s, s->rough, sizeof *s->rough);
    exchange(s, s->step, sizeof *s->step);
    for (int i = 0; i < s->m; ++i) moved = fmax(moved, s->step[i]);
    if (moved <= 1e-10) return;
  }
}

/* One value.  It is done when the correction no longer shrinks, and f is within its rounding error or the
   correction at the end of the digits of z. */
static void improve(const sq_rank_one *A, problem *s, int i)
{
  secular e;
  if (!evaluate(A, s->m, s->at, s->c, s->weight, s->z[i], &e)) {
    const double size = size_of(narrow(s->z[i])) + size_of(narrow(s->c[i]));
    s->z[i].re += size * 0x1p-80;
    return;
  }
  const sq_complex f = narrow(e.f);
  const sq_complex w = f / (f * (e.poles - repulsion(s, i)) + narrow(e.slope));
  const double step = size_of(w);
  s->f[i] = size_of(f);
  s->noise[i] = noise_of(s->m, e.terms);
  const int at_end = s->f[i] <= s->noise[i] || step <= 128 * UNIT * size_of(narrow(s->z[i]));
  if (!(step < INFINITY) || (at_end && step >= 0.5 * s->step[i]) || step == 0) {
    s->done[i] = 1;
    return;
  }
  s->step[i] = step;
  s->z[i].re -= creal(w);
  s->z[i].im -= cimag(w);
}

static int iterate(const sq_rank_one *A, problem *s)
{
  int sweeps = 0, left = s->m;
  for (int i = 0; i < s->m; ++i) {
    s->z[i] = widen(s->rough[i]);
    s->step[i] = INFINITY;
    s->f[i] = s->noise[i] = INFINITY;
    s->done[i] = 0;
  }
  for (; sweeps < MOST_SWEEPS && left > 0; ++sweeps) {
    left = 0;
    memcpy(s->before, s->z, (size_t)s->m * sizeof *s->z);
    for (int i = mine_from(s); i < mine_to(s); ++i) {
      if (sq_stop_asked(s->stop)) return sweeps;
      if (!s->done[i]) improve(A, s, i);
    }
    exchange(s, s->z, sizeof *s->z);
    exchange(s, s->done, sizeof *s->done);
    for (int i = 0; i < s->m; ++i) left += !s->done[i];
  }
  for (int i = mine_from(s); i < mine_to(s); ++i) { /* f belongs to the value before its last correction */
    secular e;
    if (s->done[i]) continue;
    s->f[i] = INFINITY;
    if (!evaluate(A, s->m, s->at, s->c, s->weight, s->z[i], &e)) continue;
    s->f[i] = size_of(narrow(e.f));
    s->noise[i] = noise_of(s->m, e.terms);
  }
  return sweeps;
}

/* ---- the proof --------------------------------------------------------------------------------------- */
/* x 2^e, kept from over- and underflow */
typedef struct {
  double x;
  long e;
} wide;

static void scale_by(wide *w, double factor, int invert)
{
  int e;
  const double part = frexp(factor, &e);
  w->x = invert ? w->x / part : w->x * part;
  w->e += invert ? -e : e;
  w->x = frexp(w->x, &e);
  w->e += e;
}

/* Every factor is rounded a few times, in all less than 20 m units of float64: covered by 1e-6. */
static double disc(const sq_rank_one *A, const problem *s, int i)
{
  wide w = {1, 0};
  if (!(s->f[i] < INFINITY)) return INFINITY;
  for (int k = 0; k < s->m; ++k) {
    scale_by(&w, size_of(narrow(minus(s->z[i], widen(A->d[s->at[k]])))), 0);
    if (k == i) continue;
    const double apart = size_of(narrow(minus(s->z[i], s->z[k])));
    if (apart == 0) return INFINITY;
    scale_by(&w, apart, 1);
  }
  scale_by(&w, s->m * (s->f[i] + s->noise[i]) * (1 + 1e-6), 0);
  return w.e > 1000 ? INFINITY : ldexp(w.x, w.e < -1070 ? -1070 : (int)w.e);
}

static void certify(const sq_rank_one *A, problem *s, sq_secular *r)
{
  for (int i = mine_from(s); i < mine_to(s); ++i)
    s->radius[i] = sq_stop_asked(s->stop) ? INFINITY : disc(A, s, i);
  exchange(s, s->radius, sizeof *s->radius);
  for (int i = mine_from(s); i < mine_to(s); ++i) {
    int alone = s->radius[i] < INFINITY;
    for (int j = 0; alone && j < s->m; ++j)
      if (j != i)
        alone = size_of(narrow(minus(s->z[i], s->z[j]))) > (s->radius[i] + s->radius[j]) * (1 + 1e-10);
    s->done[i] = alone;
  }
  exchange(s, s->done, sizeof *s->done);
  for (int i = 0; i < s->m; ++i) {
    const int n = s->at[i];
    r->mu[n] = isnan(s->f[i]) ? CMPLX(NAN, NAN) : narrow(s->z[i]); /* where f is no number nothing is found */
    r->certified[n] = s->done[i];
    r->radius[n] = (s->radius[i] + size_of(narrow(minus(s->z[i], widen(r->mu[n]))))) * (1 + 1e-10);
  }
}

void sq_secular_solve(const sq_rank_one *A, int started, sq_secular *r, void *work)
{
  sq_secular_solve_shared(A, started, NULL, r, work);
}

void sq_secular_solve_shared(const sq_rank_one *A, int started, const sq_secular_share *share, sq_secular *r,
                             void *work)
{
  sq_arena a = {.base = work, .cap = sq_secular_bytes(A->n)};
  problem s = {.share = share, .stop = r->stop};
  take(&a, A->n, &s);
  deflate(A, &s, r);
  if (started)
    start_from(A, &s, r->mu, s.done);
  else
    start_alone(A, &s);
  for (int n = 0; n < A->n; ++n)
    if (!is_kept(&s, n)) r->mu[n] = A->d[n];
  SQ_ASSERT(share == NULL || r->stop == NULL); /* processes would have to agree */
  r->sweeps = iterate(A, &s);
  certify(A, &s, r);
  r->ncertified = 0;
  for (int n = 0; n < A->n; ++n) r->ncertified += r->certified[n];
}

void sq_secular_estimate(const sq_rank_one *A, const sq_stop *stop, sq_complex *mu, void *work)
{
  sq_arena a = {.base = work, .cap = sq_secular_bytes(A->n)};
  sq_secular r = {.mu = mu};
  problem s = {.stop = stop};
  take(&a, A->n, &s);
  r.radius = s.radius; /* not used below */
  r.certified = s.done;
  deflate(A, &s, &r);
  start_alone(A, &s);
  for (int n = 0; n < A->n; ++n) mu[n] = A->d[n];
  for (int k = 0; k < s.m; ++k) mu[s.at[k]] = s.rough[k];
}

/* ---- what an eigenvalue is worth --------------------------------------------------------------------- */
double sq_rank_one_norm(const sq_rank_one *A)
{
  double sum = 0, u = 0, v = 0;
  for (int n = 0; n < A->n; ++n) {
    const double un = size_of(A->u[n]), vn = size_of(A->v[n]),
                 whole = size_of(A->d[n] - narrow(product(A, n)));
    u += un * un;
    v += vn * vn;
    sum += whole * whole - un * un * vn * vn;
  }
  return sqrt(fmax(0, sum + u * v)); /* |u v^*|_F = |u| |v|; its diagonal is counted with d */
}

/* With x = (d - z)^-1 u and y^* = v^* (d - z)^-1:  A x - z x = u f(z),  y^* x = -f'(z). */
void sq_rank_one_eigenvalue(const sq_rank_one *A, sq_complex z, double relative, sq_eigenvalue_quality *q)
{
  cquad f = {1, 0}, slope = {0, 0};
  double x = 0, y = 0, u = 0, first = 0;
  *q = (sq_eigenvalue_quality){0, 1, relative * size_of(z)};
  for (int n = 0; n < A->n; ++n) {
    const cquad c = product(A, n), d = minus(widen(z), widen(A->d[n]));
    if (is_zero(d)) {
      /* An entry of d.  It is an eigenvalue with a unit vector on both sides where its weight is nothing. */
      if (A->u[n] != 0 || A->v[n] != 0) q->condition = q->sensitivity = NAN;
      if (!is_zero(c)) q->backward_error = NAN;
      return;
    }
    const cquad r = inverse(d), term = times(c, r), part = times(term, r);
    const double size = size_of(narrow(r)), un = size_of(A->u[n]), vn = size_of(A->v[n]);
    f.re += term.re;
    f.im += term.im;
    slope.re -= part.re;
    slope.im -= part.im;
    x += (un * size) * (un * size);
    y += (vn * size) * (vn * size);
    u += un * un;
    first += un * vn * size * (2 + size_of(A->d[n]) * size);
  }
  q->backward_error = sqrt(u) * size_of(narrow(f)) / (sqrt(x) * sq_rank_one_norm(A));
  q->condition = size_of(narrow(slope)) / (sqrt(x) * sqrt(y));
  q->sensitivity = relative * first / size_of(narrow(slope));
}
