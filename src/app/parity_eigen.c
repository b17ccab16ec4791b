/* src/app/parity_eigen.c: eigenvalues of layers in which they depend on the input, in both protocols. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"

typedef struct {
  int first, n, H, layer, nlayer; /* n = T - first eigenvalues a sequence and head */
} eigen_shape;

typedef struct { /* owned, but for work */
  void *work, *scratch;
  double *eigen; /* log|lambda| (B, T-first, H) of one layer */
  double *log_b, *row;
} bench;

/* w->eigen and the largest |logarithm| behind it; protocol P1 on the layer's own input. */
static double layer_dsf(const parity_case *p, bench *w, eigen_shape s)
{
  const sq_layer_view l = sq_model_layer(p->model, w->work, s.layer);
  const sq_mixer_ops *ops = sq_mixer_get(l.mixer);
  double largest = 1;

  for (int b = 0; b < p->B; ++b)
    for (int h = 0; h < s.H; ++h) {
      sq_factors f = {0};
      ops->factor_dims(l.mixer, &f);
      f.T = p->T;
      f.log_lambda = w->row;
      f.log_b = w->log_b;
      ops->factors(l.mixer, p->theta, &p->batch.rows, l.tape, b, h, NULL, &f);
      for (int t = 0; t < p->T; ++t)
        if (isfinite(w->log_b[t])) largest = fmax(largest, fabs(w->log_b[t]));
      for (int t = 0; t < s.n; ++t)
        w->eigen[((size_t)b * (size_t)s.n + (size_t)t) * (size_t)s.H + (size_t)h] = w->row[t + s.first];
    }
  return largest;
}

/* Protocol P2, on the block's output. */
static void layer_published(const parity_case *p, bench *w, eigen_shape s)
{
  const sq_layer_view l = sq_model_layer(p->model, w->work, s.layer);
  const size_t H = (size_t)s.H, n = (size_t)s.n;

  for (int b = 0; b < p->B; ++b) {
    sq_mixer_get(l.mixer)->published(l.mixer, p->theta, &p->batch.rows, l.block_out, b, w->row, w->scratch);
    memcpy(w->eigen + (size_t)b * n * H, w->row + (size_t)s.first * H, n * H * sizeof *w->eigen);
  }
}

static int near_threshold(double log_lambda, double log_threshold, double scale)
{
  return fabs(log_lambda - log_threshold) <= PARITY_NEAR * scale;
}

/* Percentages of one sequence and head; radius and phase are (bins,B,H,nlayer). */
static void bin_head(const parity_case *p, const bench *w, eigen_shape s, int published, int b, int h,
                     double scale, parity_number *radius, parity_number *phase, double *x)
{
  const size_t H = (size_t)s.H, n = (size_t)s.n, stride = (size_t)p->B * H * (size_t)s.nlayer;
  const size_t at = ((size_t)b * H + (size_t)h) * (size_t)s.nlayer + (size_t)s.layer;
  double percent[SQ_NRADIUS], degrees[SQ_NPHASE];

  for (size_t t = 0; t < n; ++t) x[t] = w->eigen[((size_t)b * n + t) * H + (size_t)h];
  sq_bin_radius(n, x, 1, percent);
  for (size_t k = 0; k < SQ_NRADIUS; ++k) {
    size_t movable = 0;
    for (size_t t = 0; t < n; ++t)
      movable += (k > 0 && near_threshold(x[t], log(sq_radius_threshold[k - 1]), scale)) ||
                 (k < SQ_NRADIUS - 1 && near_threshold(x[t], log(sq_radius_threshold[k]), scale));
    radius->data[k * stride + at] = percent[k];
    radius->slack[k * stride + at] = n > 0 ? 100.0 * (double)movable / (double)n : 0;
  }
  /* Real and positive: the phase is 0; the published code has it as 0*lambda. */
  for (size_t t = 0; t < n; ++t) x[t] = isnan(x[t]) || (published && isinf(exp(x[t]))) ? NAN : 0;
  sq_bin_phase(n, x, 1, degrees);
  for (size_t k = 0; k < SQ_NPHASE; ++k) phase->data[k * stride + at] = degrees[k];
}

static sq_status add_eigenvalues(parity_case *p, const bench *w, eigen_shape s, parity_quantity q,
                                 const char *group, double scale, int logarithm)
{
  const size_t dim[3] = {(size_t)p->B, (size_t)s.n, (size_t)s.H};
  char path[160];

  sq_format(path, sizeof path, "/%s/layer%d", group, s.layer);
  parity_number *n = sq_parity_add(p, q, 3, dim, path);
  if (n == NULL) return SQ_ERR_MEMORY;
  n->scale = scale;
  for (size_t i = 0; i < n->count; ++i) n->data[i] = logarithm ? w->eigen[i] : exp(w->eigen[i]);
  return SQ_OK;
}

/* Protocol `published` works in the program's own precision.  In float32 its normalisers exp(-nu) are zero
   where float64 still has a number, and ELU + 1 keeps no digit of what is below 1e-7: nothing to compare
   with. */
static int incomparable(const sq_mixer *mixer, double scale)
{
#ifdef SQ_DOUBLE
  (void)mixer, (void)scale;
  return 0;
#else
  return scale > 60 || strcmp(sq_mixer_get(mixer)->name, "lin-attention") == 0;
#endif
}

static eigen_shape shape_of(const parity_case *p, int layer)
{
  const sq_mixer *mixer = sq_model_mixer(p->model, layer);
  sq_factors f = {0};

  sq_mixer_get(mixer)->factor_dims(mixer, &f);
  return (eigen_shape){.first = f.first,
                       .n = p->T - f.first,
                       .H = sq_mixer_get(mixer)->heads(mixer),
                       .layer = layer,
                       .nlayer = sq_model_nlayer(p->model)};
}

static sq_status one_protocol(parity_case *p, bench *w, int published)
{
  static const char *const radius_path[2] = {"/percent_dsf_radius", "/percent_published_radius"};
  static const char *const phase_path[2] = {"/percent_dsf_phase", "/percent_published_phase"};
  const parity_quantity q = published ? PARITY_PERCENT_PUBLISHED : PARITY_PERCENT_DSF;
  const eigen_shape any = shape_of(p, 0);
  size_t dim[4] = {SQ_NRADIUS, (size_t)p->B, (size_t)any.H, (size_t)any.nlayer};
  int radius, phase;
  sq_status st;

  SQ_TRY(sq_parity_add_with_slack(p, q, 4, dim, radius_path[published], &radius));
  dim[0] = SQ_NPHASE;
  SQ_TRY(sq_parity_add_with_slack(p, q, 4, dim, phase_path[published], &phase));
  for (int i = 0; i < any.nlayer; ++i) {
    const eigen_shape s = shape_of(p, i);
    const double scale = layer_dsf(p, w, s);
    if (published) layer_published(p, w, s);
    if (!published) SQ_TRY(add_eigenvalues(p, w, s, PARITY_DSF_LOG, "eig_dsf_log", scale, 1));
    SQ_TRY(add_eigenvalues(p, w, s, published ? PARITY_PUBLISHED : PARITY_DSF,
                           published ? "eig_published" : "eig_dsf", scale, 0));
    if (published && incomparable(sq_model_mixer(p->model, i), scale))
      p->number[p->nnumber - 1].incomparable = p->number[radius].incomparable =
          p->number[phase].incomparable = 1;
    for (int b = 0; b < p->B; ++b)
      for (int h = 0; h < s.H; ++h)
        bin_head(p, w, s, published, b, h, scale, &p->number[radius], &p->number[phase], w->row);
  }
done:
  return st;
}

static void bench_clear(bench *w)
{
  free(w->scratch);
  free(w->eigen);
  free(w->log_b);
  free(w->row);
}

static sq_status bench_init(const parity_case *p, void *work, bench *w)
{
  const size_t T = (size_t)p->T, rows = (size_t)p->B * T;
  size_t heads = 1, scratch = 0;

  *w = (bench){.work = work};
  for (int i = 0; i < sq_model_nlayer(p->model); ++i) {
    const sq_mixer *mixer = sq_model_mixer(p->model, i);
    const sq_mixer_ops *ops = sq_mixer_get(mixer);
    const size_t bytes = ops->published_scratch_bytes(mixer), h = (size_t)ops->heads(mixer);
    scratch = bytes > scratch ? bytes : scratch;
    heads = h > heads ? h : heads;
  }
  w->scratch = aligned_alloc(64, scratch / 64 * 64 + 64);
  w->eigen = sq_calloc(rows * heads, sizeof *w->eigen, "eigenvalues");
  w->log_b = sq_calloc(T, sizeof *w->log_b, "eigenvalues");
  w->row = sq_calloc(T * heads, sizeof *w->row, "eigenvalues");
  if (w->scratch && w->eigen && w->log_b && w->row) return SQ_OK;
  return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the eigenvalues", p->path);
}

sq_status sq_parity_eigenvalues(parity_case *p, void *work)
{
  bench w;
  sq_status st;

  SQ_TRY(bench_init(p, work, &w));
  SQ_TRY(one_protocol(p, &w, 0));
  SQ_TRY(one_protocol(p, &w, 1));
done:
  bench_clear(&w);
  return st;
}
