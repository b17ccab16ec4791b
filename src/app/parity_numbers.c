/* src/app/parity_numbers.c: this program's numbers for a case, in the case's layout. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"

/* A value this near (relative, times the scale of its logarithms) to a bin's threshold may fall on either
 * side. */
#ifdef SQ_DOUBLE
#define NEAR 1e-9
#else
#define NEAR 1e-4
#endif

typedef struct { /* what the functions below share; owned */
  void *work, *scratch;
  sq_real *grad, *theta, *m, *v, *logits, *first_grad;
  double *eigen; /* log|lambda| (B, T-first, H) of one layer */
  double *log_b, *row;
} bench;

/* A zeroed data set; NULL if memory cannot be had. */
static parity_number *add_number(parity_case *p, parity_quantity q, int ndim, const size_t *dim,
                                 const char *path)
{
  if (p->nnumber == p->cap) {
    const int cap = p->cap > 0 ? 2 * p->cap : 64;
    parity_number *v = realloc(p->number, (size_t)cap * sizeof *v);
    if (v == NULL) return NULL;
    p->number = v;
    p->cap = cap;
  }
  parity_number n = {.quantity = q, .ndim = ndim, .count = 1, .scale = 1};
  sq_format(n.path, sizeof n.path, "%s", path);
  for (int i = 0; i < ndim; ++i) {
    n.dim[i] = dim[i];
    n.count *= dim[i];
  }
  n.data = sq_calloc(n.count > 0 ? n.count : 1, sizeof *n.data, path);
  if (n.data == NULL) return NULL;
  p->number[p->nnumber] = n;
  return &p->number[p->nnumber++];
}

static sq_status add_reals(parity_case *p, parity_quantity q, int ndim, const size_t *dim, const char *path,
                           const sq_real *x)
{
  parity_number *n = add_number(p, q, ndim, dim, path);
  if (n == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", p->path, path);
  for (size_t i = 0; i < n->count; ++i) n->data[i] = (double)x[i];
  return SQ_OK;
}

static sq_status add_scalar(parity_case *p, parity_quantity q, const char *path, double x)
{
  parity_number *n = add_number(p, q, 0, NULL, path);
  if (n == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", p->path, path);
  n->data[0] = x;
  return SQ_OK;
}

/* Every tensor of a vector like theta.  first_grad: kept as slack. */
static sq_status add_tensors(parity_case *p, parity_quantity q, const char *group, const sq_real *x,
                             const sq_real *first_grad)
{
  const sq_param_list *l = sq_model_params(p->model);
  char path[160];
  sq_status st = SQ_OK;

  for (int k = 0; k < l->n; ++k) {
    const sq_param *t = &l->v[k];
    const size_t dim[3] = {(size_t)t->dim[0], (size_t)t->dim[1], (size_t)t->dim[2]};
    sq_format(path, sizeof path, "/%s/%s", group, t->name);
    SQ_TRY(add_reals(p, q, t->ndim, dim, path, x + t->offset));
    if (first_grad == NULL) continue;
    parity_number *n = &p->number[p->nnumber - 1];
    n->slack = sq_calloc(t->count, sizeof *n->slack, path);
    SQ_TRY(n->slack == NULL ? SQ_ERR_MEMORY : SQ_OK);
    for (size_t i = 0; i < t->count; ++i) n->slack[i] = (double)first_grad[t->offset + i];
  }
done:
  return st;
}

/* ---- forward pass ----------------------------------------------------------------------------------------
 */
static sq_status logits_and_acts(parity_case *p, bench *w)
{
  static const char *const what[4] = {"block_in", "mixer_in", "mixer_out", "block_out"};
  const size_t B = (size_t)p->B, T = (size_t)p->T, C = (size_t)sq_model_output_dim(p->model);
  const size_t per_row[3] = {B, T, C}, per_seq[2] = {B, C}, act[3] = {B, T, (size_t)sq_model_width(p->model)};
  char path[160];
  sq_status st;

  sq_model_logits(p->model, p->theta, &p->batch, NULL, w->work, w->logits);
  SQ_TRY(
      add_reals(p, PARITY_LOGITS, p->per_row ? 3 : 2, p->per_row ? per_row : per_seq, "/logits", w->logits));
  for (int i = 0; i < sq_model_nlayer(p->model); ++i) {
    const sq_layer_view l = sq_model_layer(p->model, w->work, i);
    const sq_real *x[4] = {l.block_in, l.mixer_in, l.mixer_out, l.block_out};
    for (int k = 0; k < 4; ++k) {
      sq_format(path, sizeof path, "/acts/layer%d/%s", i, what[k]);
      SQ_TRY(add_reals(p, PARITY_ACTS, 3, act, path, x[k]));
    }
  }
done:
  return st;
}

/* ---- spectra ---------------------------------------------------------------------------------------------
 */
typedef struct {
  int first, n, H, layer, nlayer; /* n = T - first eigenvalues a sequence and head */
} eigen_shape;

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
  return fabs(log_lambda - log_threshold) <= NEAR * scale;
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

static sq_status add_percent(parity_case *p, parity_quantity q, const char *path, size_t nbin, eigen_shape s,
                             int *index)
{
  const size_t dim[4] = {nbin, (size_t)p->B, (size_t)s.H, (size_t)s.nlayer};
  parity_number *n = add_number(p, q, 4, dim, path);
  if (n != NULL) n->slack = sq_calloc(n->count, sizeof *n->slack, path);
  if (n == NULL || n->slack == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", p->path, path);
  *index = p->nnumber - 1;
  return SQ_OK;
}

static sq_status add_eigenvalues(parity_case *p, const bench *w, eigen_shape s, parity_quantity q,
                                 const char *group, double scale, int logarithm)
{
  const size_t dim[3] = {(size_t)p->B, (size_t)s.n, (size_t)s.H};
  char path[160];

  sq_format(path, sizeof path, "/%s/layer%d", group, s.layer);
  parity_number *n = add_number(p, q, 3, dim, path);
  if (n == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", p->path, path);
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

static sq_status one_protocol(parity_case *p, bench *w, int published)
{
  static const char *const radius_path[2] = {"/percent_dsf_radius", "/percent_published_radius"};
  static const char *const phase_path[2] = {"/percent_dsf_phase", "/percent_published_phase"};
  const parity_quantity q = published ? PARITY_PERCENT_PUBLISHED : PARITY_PERCENT_DSF;
  const int nlayer = sq_model_nlayer(p->model);
  int radius = 0, phase = 0;
  sq_status st = SQ_OK;

  for (int i = 0; i < nlayer; ++i) {
    const sq_mixer *mixer = sq_model_mixer(p->model, i);
    sq_factors f = {0};
    sq_mixer_get(mixer)->factor_dims(mixer, &f);
    const eigen_shape s = {.first = f.first,
                           .n = p->T - f.first,
                           .H = sq_mixer_get(mixer)->heads(mixer),
                           .layer = i,
                           .nlayer = nlayer};
    if (i == 0) {
      SQ_TRY(add_percent(p, q, radius_path[published], SQ_NRADIUS, s, &radius));
      SQ_TRY(add_percent(p, q, phase_path[published], SQ_NPHASE, s, &phase));
    }
    const double scale = layer_dsf(p, w, s);
    if (published) layer_published(p, w, s);
    if (!published) SQ_TRY(add_eigenvalues(p, w, s, PARITY_DSF_LOG, "eig_dsf_log", scale, 1));
    SQ_TRY(add_eigenvalues(p, w, s, published ? PARITY_PUBLISHED : PARITY_DSF,
                           published ? "eig_published" : "eig_dsf", scale, 0));
    if (published && incomparable(mixer, scale))
      p->number[p->nnumber - 1].incomparable = p->number[radius].incomparable =
          p->number[phase].incomparable = 1;
    for (int b = 0; b < p->B; ++b)
      for (int h = 0; h < s.H; ++h)
        bin_head(p, w, s, published, b, h, scale, &p->number[radius], &p->number[phase], w->row);
  }
done:
  return st;
}

/* ---- gradient and steps ----------------------------------------------------------------------------------
 */
static double mean_loss_gradient(const parity_case *p, bench *w, const sq_real *theta)
{
  const sq_pass pass = {.rows = &p->batch.rows, .train = 0, .seq_len = p->T};
  const double count = (double)sq_batch_labels(&p->batch);
  sq_tally tally = {0};

  memset(w->grad, 0, sq_model_params(p->model)->total * sizeof *w->grad);
  sq_model_gradient(p->model, theta, &p->batch, &pass, 1 / count, w->work, w->grad, &tally);
  return tally.loss_sum / count;
}

static sq_status gradient_and_steps(parity_case *p, bench *w)
{
  const sq_param_list *l = sq_model_params(p->model);
  const size_t three = 3, bytes = l->total * sizeof *w->theta;
  double loss[3];
  sq_status st;

  memcpy(w->theta, p->theta, bytes);
  for (int step = 0; step < 3; ++step) {
    loss[step] = mean_loss_gradient(p, w, w->theta);
    if (step == 0) memcpy(w->first_grad, w->grad, bytes);
    const double norm =
        sq_adamw_step(&p->optimiser, l, p->lr, p->lr, step + 1, w->grad, w->m, w->v, w->theta);
    if (step > 0) continue;
    SQ_TRY(add_scalar(p, PARITY_LOSS, "/loss", loss[0]));
    SQ_TRY(add_tensors(p, PARITY_GRADS, "grads", w->grad, NULL));
    SQ_TRY(add_scalar(p, PARITY_GRAD_NORM, "/grad_norm_before_clip", norm));
    SQ_TRY(add_tensors(p, PARITY_ONE_STEP, "params_after_adamw_step", w->theta, w->first_grad));
  }
  SQ_TRY(add_tensors(p, PARITY_THREE_STEPS, "params_after_adamw_3steps", w->theta, w->first_grad));
  parity_number *n = add_number(p, PARITY_LOSSES, 1, &three, "/losses_3steps");
  SQ_TRY(n == NULL ? sq_fail(SQ_ERR_MEMORY, "%s: no memory for the losses", p->path) : SQ_OK);
  memcpy(n->data, loss, sizeof loss);
done:
  return st;
}

/* ---- all -------------------------------------------------------------------------------------------------
 */
static void bench_clear(bench *w)
{
  void *const all[] = {w->work,   w->scratch,    w->grad,  w->theta, w->m,  w->v,
                       w->logits, w->first_grad, w->eigen, w->log_b, w->row};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

static sq_status bench_init(const parity_case *p, bench *w)
{
  const size_t n = sq_model_params(p->model)->total, T = (size_t)p->T, rows = (size_t)p->B * T;
  size_t heads = 1, scratch = 0;

  *w = (bench){0};
  for (int i = 0; i < sq_model_nlayer(p->model); ++i) {
    const sq_mixer *mixer = sq_model_mixer(p->model, i);
    const sq_mixer_ops *ops = sq_mixer_get(mixer);
    const size_t bytes = ops->published_scratch_bytes(mixer), h = (size_t)ops->heads(mixer);
    scratch = bytes > scratch ? bytes : scratch;
    heads = h > heads ? h : heads;
  }
  w->work = aligned_alloc(64, sq_model_work_bytes(p->model) / 64 * 64 + 64);
  w->scratch = aligned_alloc(64, scratch / 64 * 64 + 64);
  w->grad = sq_calloc(n, sizeof *w->grad, "gradient");
  w->theta = sq_calloc(n, sizeof *w->theta, "parameters");
  w->m = sq_calloc(n, sizeof *w->m, "moments");
  w->v = sq_calloc(n, sizeof *w->v, "moments");
  w->first_grad = sq_calloc(n, sizeof *w->first_grad, "gradient");
  w->logits = sq_calloc(rows * (size_t)sq_model_output_dim(p->model), sizeof *w->logits, "logits");
  w->eigen = sq_calloc(rows * heads, sizeof *w->eigen, "eigenvalues");
  w->log_b = sq_calloc(T, sizeof *w->log_b, "eigenvalues");
  w->row = sq_calloc(T * heads, sizeof *w->row, "eigenvalues");
  const int missing = w->work == NULL || w->scratch == NULL || w->grad == NULL || w->theta == NULL ||
                      w->m == NULL || w->v == NULL || w->first_grad == NULL || w->logits == NULL ||
                      w->eigen == NULL || w->log_b == NULL || w->row == NULL;
  return missing ? sq_fail(SQ_ERR_MEMORY, "%s: no memory for the case", p->path) : SQ_OK;
}

sq_status sq_parity_compute(parity_case *p)
{
  bench w;
  sq_status st;

  SQ_TRY(bench_init(p, &w));
  SQ_TRY(logits_and_acts(p, &w));
  SQ_TRY(one_protocol(p, &w, 0));
  SQ_TRY(one_protocol(p, &w, 1));
  SQ_TRY(gradient_and_steps(p, &w));
done:
  bench_clear(&w);
  return st;
}
