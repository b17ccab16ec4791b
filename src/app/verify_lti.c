/* src/app/verify_lti.c: identities of time-invariant layers: the recurrence is the layer, other coordinates are the
 * same system, and the eigenvalues are those of the matrix that the recurrence runs. */
#include <math.h>
#include <string.h>

#include "sq/linalg.h"
#include "verify.h"

/* Systems of a layer whose eigenvalues and coordinates are looked at: each costs O(n^3). */
enum { MOST_SYSTEMS = 8, MANY_STATES = 128 };

struct sq_verify_lti {
  sq_lti f, other; /* one system; the same in other coordinates */
  sq_lti_spectrum spectrum;
  sq_complex *h, *scale, *A, *w;
  double *u, *energy_work, *eigen_work;
  void *secular, *hankel;
};
typedef struct sq_verify_lti lti_arrays;

static lti_arrays *arrays(const verification *v)
{
  return v->lti;
}

int sq_verify_is_dense(const verification *v)
{
  return arrays(v)->f.dense;
}

static int systems(const lti_arrays *x)
{
  const int most = x->f.dense && x->f.n > MANY_STATES ? 1 : MOST_SYSTEMS;
  return x->f.nsystem < most ? x->f.nsystem : most;
}

void sq_verify_lti_take(verification *v, sq_arena *a)
{
  const sq_mixer *m = sq_model_mixer(v->model, 0);
  const size_t T = (size_t)v->T, D = (size_t)sq_model_width(v->model);
  lti_arrays x, *to = SQ_TAKE(a, 1, lti_arrays);
  memset(&x, 0, sizeof x);
  sq_mixer_get(m)->lti_dims(m, &x.f);
  const size_t n = (size_t)x.f.n;
  x.other = x.f;
  sq_lti_take(a, &x.f);
  sq_lti_take(a, &x.other);
  sq_lti_spectrum_take(a, x.f.n, &x.spectrum);
  x.h = SQ_TAKE(a, n, sq_complex);
  x.scale = SQ_TAKE(a, n, sq_complex);
  x.A = SQ_TAKE(a, n * n, sq_complex);
  x.w = SQ_TAKE(a, n, sq_complex);
  x.u = SQ_TAKE(a, T * D, double);
  x.energy_work = SQ_TAKE(a, sq_lti_energy_work(&x.f), double);
  x.eigen_work = SQ_TAKE(a, sq_eigenvalues_work(x.f.n), double);
  x.secular = sq_arena_take(a, sq_secular_bytes(x.f.n), 1);
  x.hankel = sq_arena_take(a, sq_lti_hankel_bytes(&x.f), 1);
  v->y = SQ_TAKE(a, T * D, double);
  for (int i = 0; i < 2; ++i) {
    v->energy[i] = SQ_TAKE(a, T, double);
    v->sigma[i] = SQ_TAKE(a, 2 * n, double);
  }
  if (to == NULL) return; /* counting */
  *to = x;
  v->lti = to;
}

int sq_verify_both_directions(const verification *v)
{
  return sq_config_has(v->config, "model.bidirectional") && sq_config_bool(v->config, "model.bidirectional");
}

static sq_status system_of(const verification *v, int layer, int s)
{
  const sq_mixer *m = sq_model_mixer(v->model, layer);
  return sq_mixer_get(m)->lti(m, v->theta, s, &arrays(v)->f);
}

/* ---- the recurrence ---------------------------------------------------------------------------------- */
static sq_status run_layer(verification *v, int layer, const sq_layer_view *view, const sq_rows *rows, int b)
{
  lti_arrays *x = arrays(v);
  const int D = sq_model_width(v->model), T = rows->off[b + 1] - rows->off[b];
  const sq_real *in = view->mixer_in + (size_t)rows->off[b] * (size_t)D;
  for (size_t k = 0; k < (size_t)T * (size_t)D; ++k) x->u[k] = (double)in[k];
  for (int s = 0; s < x->f.nsystem; ++s) {
    const sq_status st = system_of(v, layer, s);
    if (st != SQ_OK) return st;
    sq_lti_run(&x->f, T, x->u + s * x->f.nin, D, v->out + s * x->f.nout, D, x->h);
  }
  return SQ_OK;
}

sq_status sq_verify_lti_recurrence(verification *v)
{
  int off[NSEQ + 1], where = 0;
  const sq_batch b = sq_verify_examples(v, off);
  const size_t D = (size_t)sq_model_width(v->model);
  double worst = 0;
  if (sq_verify_both_directions(v)) return SQ_OK;
  sq_verify_evaluate(v, &b);
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    double error = 0, top = 0;
    for (int k = 0; k < NSEQ; ++k) {
      const sq_status st = run_layer(v, l, &view, &b.rows, k);
      if (st != SQ_OK) return st;
      const sq_real *out = view.mixer_out + (size_t)off[k] * D;
      for (size_t i = 0; i < (size_t)(off[k + 1] - off[k]) * D; ++i) {
        sq_verify_raise(&error, fabs(v->out[i] - (double)out[i]));
        sq_verify_raise(&top, fabs((double)out[i]));
      }
    }
    if (sq_verify_raise(&worst, sq_verify_over(error, top))) where = l;
  }
  AT_MOST(v, worst, RECURRENCE_TOLERANCE, "recurrence: layer output", "layer %d, of the layer's largest |y|",
          where);
  return SQ_OK;
}

/* ---- eigenvalues ------------------------------------------------------------------------------------- */
static double norm_of(size_t n, const sq_complex *x)
{
  double sum = 0;
  for (size_t k = 0; k < n; ++k) sum += creal(x[k] * conj(x[k]));
  return sqrt(sum);
}

typedef struct {
  double backward, lapack, distance; /* over what is allowed */
  int ncertified, ncompared, n;
} eigen_check;

/* Eigenvalues from the continuous matrix against the discrete one.  a, u and v are each rounded a few times, which
   changes A by as many units of |diag a| + |u| |v|. */
static void check_backward(const lti_arrays *x, const sq_rank_one *A, eigen_check *c)
{
  const size_t n = (size_t)x->f.n;
  const double parts = norm_of(n, x->f.a) + norm_of(n, x->f.u) * norm_of(n, x->f.v);
  const double allowed = 64 * DBL_EPSILON * parts / sq_rank_one_norm(A);
  for (size_t k = 0; k < n; ++k) sq_verify_raise(&c->backward, x->spectrum.backward[k] / allowed);
}

/* LAPACK's values each have a small backward error e, and where e |A|/s is well below the distance of the next
   eigenvalue, first order holds: so far, at most twice, from the disc of one. */
static void check_lapack(const lti_arrays *x, const sq_rank_one *A, eigen_check *c)
{
  const int n = x->f.n;
  const double norm = sq_rank_one_norm(A);
  for (int k = 0; k < n; ++k) {
    sq_eigenvalue_quality q;
    int near = 0;
    double next = INFINITY;
    sq_rank_one_eigenvalue(A, x->w[k], DBL_EPSILON, &q);
    sq_verify_raise(&c->lapack, q.backward_error / (16 * n * DBL_EPSILON));
    for (int i = 1; i < n; ++i)
      if (cabs(x->w[k] - x->spectrum.lambda[i]) < cabs(x->w[k] - x->spectrum.lambda[near])) near = i;
    for (int i = 0; i < n; ++i)
      if (i != near) next = fmin(next, cabs(x->spectrum.lambda[i] - x->spectrum.lambda[near]));
    const double reach = (q.backward_error + 64 * DBL_EPSILON) * norm / x->spectrum.condition[near];
    if (!(reach < 0.05 * next)) continue;
    ++c->ncompared;
    sq_verify_raise(&c->distance,
                    cabs(x->w[k] - x->spectrum.lambda[near]) / (2 * reach + x->spectrum.radius[near]));
  }
}

/* x->f with its eigenvalues in x->spectrum. */
static sq_status check_eigenvalues(lti_arrays *x, eigen_check *c)
{
  const sq_rank_one A = {x->f.n, x->f.a, x->f.u, x->f.v};
  sq_lti_matrix(&x->f, x->A);
  const sq_status st = sq_eigenvalues(x->f.n, x->A, x->w, x->eigen_work);
  if (st != SQ_OK) return st;
  for (int k = 0; k < x->f.n; ++k) c->ncertified += x->spectrum.certified[k];
  c->n += x->f.n;
  check_backward(x, &A, c);
  check_lapack(x, &A, c);
  return SQ_OK;
}

static void report_eigenvalues(verification *v, const eigen_check *c)
{
  AT_MOST(v, c->backward, 1.0, "eigenvalues: of the matrix",
          "backward error over its rounding; %d of %d certified", c->ncertified, c->n);
  AT_MOST(v, c->lapack, 1.0, "eigenvalues: LAPACK's", "backward error over 16 n eps");
  AT_MOST(v, c->distance, 1.0, "eigenvalues: in the discs", "%d of %d values are well enough determined",
          c->ncompared, c->n);
}

/* ---- coordinates ------------------------------------------------------------------------------------- */
typedef struct {
  double output, energy, hankel, log_sigma1, eigenvalue, condition;
} lti_change;

static void copy_system(const sq_lti *f, sq_lti *to)
{
  const size_t n = (size_t)f->n;
  memcpy(to->a, f->a, n * sizeof *to->a);
  memcpy(to->B, f->B, n * (size_t)f->nin * sizeof *to->B);
  memcpy(to->C, f->C, n * (size_t)f->nout * sizeof *to->C);
  memcpy(to->D, f->D, (size_t)f->nout * sizeof *to->D);
  if (!f->dense) return;
  memcpy(to->u, f->u, n * sizeof *to->u);
  memcpy(to->v, f->v, n * sizeof *to->v);
}

static sq_status invariants(verification *v, const sq_lti *f, int side, double *y, double *log_sigma1, int *n)
{
  lti_arrays *x = arrays(v);
  *n = 0;
  *log_sigma1 = 0;
  sq_lti_run(f, v->T, x->u, f->nin, y, f->nout, x->h);
  memset(v->energy[side], 0, (size_t)v->T * sizeof(double));
  sq_lti_energy(f, v->T, v->energy[side], x->energy_work);
  return v->T > 1 ? sq_lti_hankel(f, v->T, v->T / 2, v->sigma[side], n, log_sigma1, x->hankel) : SQ_OK;
}

static void compare_eigenvalues(const lti_arrays *x, lti_change *c)
{
  const sq_rank_one before = {x->f.n, x->f.a, x->f.u, x->f.v},
                    after = {x->f.n, x->other.a, x->other.u, x->other.v};
  const double parts = norm_of((size_t)x->f.n, x->f.a) +
                       norm_of((size_t)x->f.n, x->other.u) * norm_of((size_t)x->f.n, x->other.v);
  for (int k = 0; k < x->f.n; ++k) {
    sq_eigenvalue_quality p, q;
    const sq_complex z = x->spectrum.lambda[k];
    sq_rank_one_eigenvalue(&before, z, DBL_EPSILON, &p);
    sq_rank_one_eigenvalue(&after, z, DBL_EPSILON, &q);
    sq_verify_raise(&c->eigenvalue, q.backward_error / (64 * DBL_EPSILON * parts / sq_rank_one_norm(&after)));
    sq_verify_raise(&c->condition, fabs(q.condition - p.condition) / p.condition);
  }
}

static sq_status check_system(verification *v, int layer, int s, lti_change *c, eigen_check *e)
{
  lti_arrays *x = arrays(v);
  double top[2];
  int n[2];
  sq_rng r;
  sq_status st;
  sq_rng_init(&r, v->seed, SQ_STREAM_REGAUGE, (uint64_t)(layer * x->f.nsystem + s));
  SQ_TRY(system_of(v, layer, s));
  copy_system(&x->f, &x->other);
  x->other.step = x->f.step;
  for (int k = 0; k < x->f.n; ++k) {
    const double size = exp(sq_rng_normal(&r)), angle = 2 * M_PI * sq_rng_uniform(&r);
    x->scale[k] = size * (cos(angle) + I * sin(angle));
  }
  for (size_t k = 0; k < (size_t)v->T * (size_t)x->f.nin; ++k) x->u[k] = sq_rng_normal(&r);
  sq_lti_rescale(&x->other, x->scale);
  SQ_TRY(invariants(v, &x->f, 0, v->y, &top[0], &n[0]));
  SQ_TRY(invariants(v, &x->other, 1, v->out, &top[1], &n[1]));
  SQ_ASSERT(n[0] == n[1]);
  const size_t all = (size_t)v->T * (size_t)x->f.nout, T = (size_t)v->T;
  sq_verify_raise(&c->output,
                  sq_verify_over(sq_verify_difference(all, v->y, v->out), sq_verify_largest(all, v->y)));
  sq_verify_raise(&c->energy, sq_verify_over(sq_verify_difference(T, v->energy[0], v->energy[1]),
                                             sq_verify_largest(T, v->energy[0])));
  sq_verify_raise(&c->hankel, sq_verify_difference((size_t)n[0], v->sigma[0], v->sigma[1]));
  sq_verify_raise(&c->log_sigma1, fabs(top[0] - top[1]));
  if (!x->f.dense) goto done;
  sq_lti_eigenvalues(&x->f, (double)SQ_REAL_EPS, &x->spectrum, x->secular);
  compare_eigenvalues(x, c);
  SQ_TRY(check_eigenvalues(x, e));
done:
  return st;
}

static void report_regauge(verification *v, const lti_change *c)
{
  /* Everything here is float64 in both programs; the design's margin, as for layers that change with time. */
  const double allowed = 1e-12;
  AT_MOST(v, c->output, allowed, "regauge: outputs equal",
          "h' = S h, S diagonal and complex, modulus exp N(0,1)");
  AT_MOST(v, c->energy, allowed, "regauge: memory equal", "energy by distance, of its largest");
  AT_MOST(v, c->hankel, allowed, "regauge: Hankel values equal", "of sigma_1");
  AT_MOST(v, c->log_sigma1, allowed, "regauge: log sigma_1 equal", "absolute");
  if (!arrays(v)->f.dense) return; /* the same diagonal */
  AT_MOST(v, c->eigenvalue, 1.0, "regauge: eigenvalues equal",
          "backward error over the rounding of the matrix");
  if (arrays(v)->f.n > 1) /* |y* x| of a number is 1 in all coordinates */
    AT_LEAST(v, c->condition, 0.01, "regauge: conditions differ", "largest relative change of |y* x|");
}

sq_status sq_verify_lti_systems(verification *v)
{
  const lti_arrays *x = arrays(v);
  lti_change c = {0};
  eigen_check e = {0};
  for (int l = 0; l < sq_model_nlayer(v->model); ++l)
    for (int s = 0; s < systems(x); ++s) {
      const sq_status st = check_system(v, l, s, &c, &e);
      if (st == SQ_ERR_DATA) { /* a system that is not finite */
        sq_error_clear();
        c.output = NAN;
      } else if (st != SQ_OK) {
        return st;
      }
    }
  report_regauge(v, &c);
  if (x->f.dense) report_eigenvalues(v, &e); /* else the diagonal itself: the recurrence has checked it */
  return SQ_OK;
}
