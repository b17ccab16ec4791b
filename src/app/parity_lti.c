/* src/app/parity_lti.c: eigenvalues and kernels of time-invariant layers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"
#include "sq/linalg.h"

/* An eigenvalue whose left and right vectors have the cosine s moves by up to |perturbation|/s.  The computed
   one is allowed 100 roundings of that, and never less than what the others are: PARITY_NEAR. */
static double spread_of(double s)
{
  return fmax(1, 100 * (double)SQ_REAL_EPS / s / PARITY_NEAR);
}

typedef struct {
  sq_complex value;
  double spread;
} eigenvalue;

typedef struct { /* owned */
  sq_lti f;
  sq_complex *matrix, *lambda; /* (n,n) of a dense system, (n) */
  double *s;                   /* (n) reciprocal condition numbers */
  double *work;
  eigenvalue *all; /* (nsystem n) of one layer */
} bench;

static int by_imaginary_then_real(const void *a, const void *b)
{
  const eigenvalue *x = a, *y = b;
  if (cimag(x->value) != cimag(y->value)) return cimag(x->value) < cimag(y->value) ? -1 : 1;
  return creal(x->value) < creal(y->value) ? -1 : creal(x->value) > creal(y->value);
}

/* w->lambda and w->s of one system; in the order of the parameters, or of the solver if it is dense. */
static sq_status solve(const parity_case *p, bench *w, const sq_mixer *m, int system)
{
  const sq_lti *f = &w->f;
  const size_t n = (size_t)f->n;
  sq_status st;

  SQ_TRY(sq_mixer_get(m)->lti(m, p->theta, system, &w->f));
  if (!f->dense) {
    memcpy(w->lambda, f->a, n * sizeof *f->a);
    for (size_t i = 0; i < n; ++i) w->s[i] = 1; /* a diagonal matrix */
    return SQ_OK;
  }
  sq_lti_matrix(f, w->matrix);
  SQ_TRY(sq_eigenvalues_condition(f->n, w->matrix, w->lambda, w->s, w->work));
done:
  return st;
}

static sq_status keep_system(const parity_case *p, bench *w, const sq_mixer *m, int system, eigenvalue *to)
{
  const sq_status st = solve(p, w, m, system);

  if (st != SQ_OK) return st;
  for (int i = 0; i < w->f.n; ++i) to[i] = (eigenvalue){w->lambda[i], spread_of(w->s[i])};
  if (w->f.dense) qsort(to, (size_t)w->f.n, sizeof *to, by_imaginary_then_real);
  return SQ_OK;
}

/* ---- one layer ----------------------------------------------------------------------------------------------------------- */
static sq_status add_eigenvalues(parity_case *p, const bench *w, parity_quantity q, const char *group,
                                 int layer, int nsystem)
{
  const size_t dim[2] = {(size_t)nsystem, (size_t)w->f.n};
  const int both = w->f.dense && q == PARITY_DSF; /* (channel, state), else (state) */
  char path[160];

  sq_format(path, sizeof path, "/%s/layer%d", group, layer);
  parity_number *n = sq_parity_add(p, q, both ? 2 : 1, both ? dim : dim + 1, path);
  if (n == NULL) return SQ_ERR_MEMORY;
  n->set = w->f.dense;
  n->imaginary = sq_calloc(n->count, sizeof *n->imaginary, path);
  n->spread = sq_calloc(n->count, sizeof *n->spread, path);
  if (n->imaginary == NULL || n->spread == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < n->count; ++i) {
    n->data[i] = creal(w->all[i].value);
    n->imaginary[i] = cimag(w->all[i].value);
    n->spread[i] = w->all[i].spread;
  }
  return SQ_OK;
}

static int is_near(double x, double threshold, const eigenvalue *e, double unit)
{
  return fabs(x - threshold) <= PARITY_NEAR * e->spread * unit;
}

/* Whether the radius may be counted on either side of one of bin k's ends. */
static int radius_movable(const eigenvalue *e, int k)
{
  const double r = cabs(e->value);
  return (k > 0 && is_near(r, sq_radius_threshold[k - 1], e, r)) ||
         (k < SQ_NRADIUS - 1 && is_near(r, sq_radius_threshold[k], e, r));
}

/* The same for the phase, where 0 is an end too, and 180 degrees may be -180 degrees. */
static int phase_movable(const eigenvalue *e, int k)
{
  const double degrees = carg(e->value) * 180 / M_PI, unit = 180 / M_PI;
  const double low = k > 0 ? sq_phase_threshold_deg[k - 1] : 0;
  return is_near(degrees, low, e, unit) ||
         (k < SQ_NPHASE - 1 && is_near(degrees, sq_phase_threshold_deg[k], e, unit)) ||
         (k >= SQ_NPHASE - 2 && is_near(fabs(degrees), 180, e, unit));
}

/* All eigenvalues of a layer pooled; radius and phase are (bins, nlayer). */
static sq_status bin_layer(const bench *w, size_t n, int layer, int nlayer, parity_number *radius,
                           parity_number *phase)
{
  const size_t at = (size_t)layer, stride = (size_t)nlayer;
  double *x = sq_calloc(n, sizeof *x, "eigenvalues"), percent[SQ_NRADIUS], degrees[SQ_NPHASE];
  const double unit = 100 / (double)n;

  if (x == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < n; ++i) x[i] = log(cabs(w->all[i].value));
  sq_bin_radius(n, x, 1, percent);
  for (size_t i = 0; i < n; ++i) x[i] = carg(w->all[i].value);
  sq_bin_phase(n, x, 1, degrees);
  for (int k = 0; k < SQ_NRADIUS; ++k) {
    radius->data[(size_t)k * stride + at] = percent[k];
    for (size_t i = 0; i < n; ++i)
      radius->slack[(size_t)k * stride + at] += radius_movable(&w->all[i], k) ? unit : 0;
  }
  for (int k = 0; k < SQ_NPHASE; ++k) {
    phase->data[(size_t)k * stride + at] = degrees[k];
    for (size_t i = 0; i < n; ++i)
      phase->slack[(size_t)k * stride + at] += phase_movable(&w->all[i], k) ? unit : 0;
  }
  free(x);
  return SQ_OK;
}

/* w->all of a layer: every system in protocol P1, what the published analysis looks at in P2. */
static sq_status layer_eigenvalues(const parity_case *p, bench *w, const sq_mixer *m, int published,
                                   int *nsystem)
{
  int system = 0;
  sq_status st = SQ_OK;

  if (!published) {
    *nsystem = w->f.nsystem;
    for (int s = 0; s < w->f.nsystem; ++s)
      SQ_TRY(keep_system(p, w, m, s, w->all + (size_t)s * (size_t)w->f.n));
  } else {
    *nsystem = 1;
    if (sq_mixer_get(m)->lti_published(m, p->theta, w->lambda, &system) != 0)
      SQ_TRY(keep_system(p, w, m, system, w->all));
    else
      for (int i = 0; i < w->f.n; ++i) w->all[i] = (eigenvalue){w->lambda[i], 1};
  }
done:
  return st;
}

static sq_status one_protocol(parity_case *p, bench *w, int published)
{
  static const char *const radius_path[2] = {"/percent_dsf_radius", "/percent_published_radius"};
  static const char *const phase_path[2] = {"/percent_dsf_phase", "/percent_published_phase"};
  const parity_quantity q = published ? PARITY_PERCENT_PUBLISHED : PARITY_PERCENT_DSF;
  const int nlayer = sq_model_nlayer(p->model);
  size_t dim[2] = {SQ_NRADIUS, (size_t)nlayer};
  int radius, phase, nsystem;
  sq_status st;

  SQ_TRY(sq_parity_add_with_slack(p, q, 2, dim, radius_path[published], &radius));
  dim[0] = SQ_NPHASE;
  SQ_TRY(sq_parity_add_with_slack(p, q, 2, dim, phase_path[published], &phase));
  for (int i = 0; i < nlayer; ++i) {
    SQ_TRY(layer_eigenvalues(p, w, sq_model_mixer(p->model, i), published, &nsystem));
    SQ_TRY(add_eigenvalues(p, w, published ? PARITY_PUBLISHED : PARITY_DSF,
                           published ? "eig_published" : "eig_dsf", i, nsystem));
    SQ_TRY(bin_layer(w, (size_t)nsystem * (size_t)w->f.n, i, nlayer, &p->number[radius], &p->number[phase]));
  }
done:
  return st;
}

/* ---- kernels --------------------------------------------------------------------------------------------- */
typedef struct { /* owned */
  sq_real *derived, *u, *y;
  void *tape, *scratch;
} impulse;

static void impulse_clear(impulse *k)
{
  free(k->derived);
  free(k->u);
  free(k->y);
  free(k->tape);
  free(k->scratch);
}

/* What the layer answers to 1, 0, 0, ... in every channel at once: channels do not see each other. */
static sq_status impulse_response(const parity_case *p, void *work, const sq_mixer *m, impulse *k)
{
  const sq_mixer_ops *ops = sq_mixer_get(m);
  const size_t D = (size_t)sq_model_width(p->model), count = (size_t)p->T * D;
  const int off[2] = {0, p->T}, id = 0;
  const sq_rows rows = {.nseq = 1, .nrow = p->T, .off = off, .id = &id};

  k->derived = sq_calloc(sq_model_nderived(p->model), sizeof *k->derived, "kernels");
  k->u = sq_calloc(count, sizeof *k->u, "impulse");
  k->y = sq_calloc(count, sizeof *k->y, "impulse");
  k->tape = aligned_alloc(64, ops->tape_bytes(m) / 64 * 64 + 64);
  k->scratch = aligned_alloc(64, ops->scratch_bytes(m) / 64 * 64 + 64);
  if (!k->derived || !k->u || !k->y || !k->tape || !k->scratch)
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the kernels", p->path);
  sq_model_derive(p->model, p->theta, k->derived, sq_model_shard_work(p->model, work));
  for (size_t d = 0; d < D; ++d) k->u[d] = 1;
  const sq_pass pass = {.rows = &rows, .train = 0, .seq_len = p->L, .derived = k->derived};
  ops->forward(m, p->theta, &pass, k->u, k->y, k->tape, k->scratch);
  return SQ_OK;
}

/* Layers of one input and one output a channel: the impulse response without the direct term. */
static sq_status add_kernel(parity_case *p, void *work, bench *w, int layer)
{
  const sq_mixer *m = sq_model_mixer(p->model, layer);
  const size_t dim[2] = {(size_t)p->T, (size_t)sq_model_width(p->model)};
  impulse k = {0};
  char path[160];
  sq_status st;

  sq_format(path, sizeof path, "/s4_kernel/layer%d", layer);
  SQ_TRY(impulse_response(p, work, m, &k));
  parity_number *n = sq_parity_add(p, PARITY_KERNEL, 2, dim, path);
  SQ_TRY(n == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (size_t i = 0; i < n->count; ++i) n->data[i] = (double)k.y[i];
  for (int d = 0; d < w->f.nsystem; ++d) {
    SQ_TRY(sq_mixer_get(m)->lti(m, p->theta, d, &w->f));
    n->data[d] -= w->f.D[0];
  }
done:
  impulse_clear(&k);
  return st;
}

/* ---- all ------------------------------------------------------------------------------------------------- */
static void bench_clear(bench *w)
{
  void *const all[] = {w->f.a,    w->f.u,    w->f.v, w->f.D,  w->f.lam, w->f.p,
                       w->matrix, w->lambda, w->s,   w->work, w->all};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

/* Layers are alike. */
static sq_status bench_init(const parity_case *p, bench *w)
{
  const sq_mixer *m = sq_model_mixer(p->model, 0);

  *w = (bench){0};
  sq_mixer_get(m)->lti_dims(m, &w->f);
  const size_t n = (size_t)w->f.n, square = w->f.dense ? n * n : 0;
  w->f.a = sq_calloc(n, sizeof *w->f.a, "eigenvalues");
  w->f.D = sq_calloc((size_t)w->f.nout, sizeof *w->f.D, "eigenvalues");
  w->lambda = sq_calloc(n, sizeof *w->lambda, "eigenvalues");
  w->s = sq_calloc(n, sizeof *w->s, "eigenvalues");
  w->all = sq_calloc((size_t)w->f.nsystem * n, sizeof *w->all, "eigenvalues");
  int have = w->f.a && w->f.D && w->lambda && w->s && w->all;
  if (w->f.dense) {
    w->f.u = sq_calloc(n, sizeof *w->f.u, "eigenvalues");
    w->f.v = sq_calloc(n, sizeof *w->f.v, "eigenvalues");
    w->matrix = sq_calloc(square, sizeof *w->matrix, "eigenvalues");
    w->work = sq_calloc(sq_eigenvalues_condition_work(w->f.n), sizeof *w->work, "eigenvalues");
    have = have && w->f.u && w->f.v && w->matrix && w->work;
  }
  return have ? SQ_OK : SQ_ERR_MEMORY;
}

sq_status sq_parity_lti(parity_case *p, void *work)
{
  bench w;
  sq_status st;

  SQ_TRY(bench_init(p, &w));
  if (w.f.nin == 1 && w.f.nout == 1)
    for (int i = 0; i < sq_model_nlayer(p->model); ++i) SQ_TRY(add_kernel(p, work, &w, i));
  SQ_TRY(one_protocol(p, &w, 0));
  SQ_TRY(one_protocol(p, &w, 1));
done:
  bench_clear(&w);
  return st;
}
