/* src/app/verify_checks.c: identities that a model must satisfy; see verify.c. */
#include <math.h>
#include <string.h>

#include "verify.h"

/* A longer sequence gives the BLAS other shapes, hence other kernels at the edges and another order of the
   same sums; each layer passes that on.  Of the largest value. */
#define PADDING_TOLERANCE (1024 * (double)SQ_REAL_EPS)

int sq_verify_raise(double *worst, double x)
{
  if (x <= *worst || isnan(*worst)) return 0;
  *worst = x;
  return 1;
}

double sq_verify_largest(size_t n, const double *x)
{
  double top = 0;
  for (size_t i = 0; i < n; ++i) sq_verify_raise(&top, fabs(x[i]));
  return top;
}

double sq_verify_difference(size_t n, const double *a, const double *b)
{
  double top = 0;
  for (size_t i = 0; i < n; ++i) sq_verify_raise(&top, fabs(a[i] - b[i]));
  return top;
}

/* A dead normaliser has no relative error. */
double sq_verify_over(double error, double scale)
{
#ifdef SQ_DOUBLE
  const double tiny = DBL_MIN;
#else
  const double tiny = FLT_MIN;
#endif
  return isnan(scale) ? NAN : error / (scale > tiny ? scale : tiny);
}

void sq_verify_evaluate(verification *v, const sq_batch *b)
{
  sq_tally tally = {0};
  sq_model_evaluate(v->model, v->theta, b, v->work, &tally);
}

static void factors(verification *v, const sq_layer_view *view, const sq_rows *rows, int b, int h)
{
  v->f.T = rows->off[b + 1] - rows->off[b];
  sq_mixer_get(view->mixer)->factors(view->mixer, v->theta, rows, view->tape, b, h, NULL, &v->f);
}

/* ---- 1. recurrence ----------------------------------------------------------------------------------- */
/* One sequence of one layer: largest differences and values of the heads' outputs and of the layer's output.
 */
static sq_status recurrence_of(verification *v, const sq_layer_view *view, const sq_rows *rows, int b,
                               double error[2], double top[2])
{
  const sq_mixer_ops *ops = sq_mixer_get(view->mixer);
  const int H = ops->heads(view->mixer), D = sq_model_width(v->model);
  const size_t T = (size_t)(rows->off[b + 1] - rows->off[b]), first = (size_t)rows->off[b] * (size_t)D;
  for (int h = 0; h < H; ++h) {
    factors(v, view, rows, b, h);
    const size_t dv = (size_t)v->f.dv;
    const sq_status st = sq_factors_run(&v->f, v->y);
    if (st != SQ_OK) return st;
    sq_verify_raise(&error[0], sq_verify_difference(T * dv, v->y, v->f.y));
    sq_verify_raise(&top[0], sq_verify_largest(T * dv, v->f.y));
    for (size_t t = 0; t < T; ++t)
      memcpy(v->heads + (t * (size_t)H + (size_t)h) * dv, v->y + t * dv, dv * sizeof *v->y);
  }
  ops->output(view->mixer, v->theta, (int)T, v->heads, v->out);
  for (size_t k = 0; k < T * (size_t)D; ++k) {
    sq_verify_raise(&error[1], fabs(v->out[k] - (double)view->mixer_out[first + k]));
    sq_verify_raise(&top[1], fabs((double)view->mixer_out[first + k]));
  }
  return SQ_OK;
}

sq_status sq_verify_recurrence(verification *v)
{
  int off[NSEQ + 1], where[2] = {0, 0};
  const sq_batch b = sq_verify_examples(v, off);
  double worst[2] = {0, 0};
  sq_verify_evaluate(v, &b);
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    double error[2] = {0, 0}, top[2] = {0, 0};
    for (int k = 0; k < NSEQ; ++k) {
      const sq_status st = recurrence_of(v, &view, &b.rows, k, error, top);
      if (st != SQ_OK) return st;
    }
    for (int i = 0; i < 2; ++i)
      if (sq_verify_raise(&worst[i], sq_verify_over(error[i], top[i]))) where[i] = l;
  }
  AT_MOST(v, worst[0], RECURRENCE_TOLERANCE, "recurrence: heads", "layer %d, of the layer's largest |y|",
          where[0]);
  AT_MOST(v, worst[1], RECURRENCE_TOLERANCE, "recurrence: layer output", "layer %d", where[1]);
  return SQ_OK;
}

/* ---- 2. causality: exact; 3. padding ----------------------------------------------------------------- */
static sq_real *kept(verification *v, int layer, int which, int row)
{
  const size_t D = (size_t)sq_model_width(v->model);
  return v->keep + ((2 * (size_t)layer + (size_t)which) * sq_verify_rows(v) + (size_t)row) * D;
}

static void keep_outputs(verification *v, int nrow)
{
  const size_t bytes = (size_t)nrow * (size_t)sq_model_width(v->model) * sizeof(sq_real);
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    memcpy(kept(v, l, 0, 0), view.mixer_out, bytes);
    memcpy(kept(v, l, 1, 0), view.block_out, bytes);
  }
}

typedef struct {
  long changed; /* values whose bits differ */
  double error; /* largest difference over the layer's largest value */
} difference_count;

/* Rows r0 .. r1-1 of all layers against what was kept. */
static difference_count changed(verification *v, int r0, int r1)
{
  const size_t D = (size_t)sq_model_width(v->model);
  difference_count c = {0, 0};
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    for (int which = 0; which < 2; ++which) {
      const sq_real *now = (which ? view.block_out : view.mixer_out) + (size_t)r0 * D,
                    *old = kept(v, l, which, r0);
      double error = 0, top = 0;
      for (size_t k = 0; k < (size_t)(r1 - r0) * D; ++k) {
        c.changed += !(now[k] == old[k]);
        sq_verify_raise(&error, fabs((double)now[k] - (double)old[k]));
        sq_verify_raise(&top, fabs((double)old[k]));
      }
      sq_verify_raise(&c.error, sq_verify_over(error, top));
    }
  }
  return c;
}

void sq_verify_causality(verification *v)
{
  int off[NSEQ + 1];
  const sq_batch b = sq_verify_examples(v, off);
  long before = 0, after = 0;
  double error = 0;
  sq_verify_evaluate(v, &b);
  keep_outputs(v, b.rows.nrow);
  for (int k = 0; k < NSEQ; ++k)
    sq_verify_fill(v, 100 + k, off[k], (off[k + 1] - off[k]) / 2, off[k + 1] - off[k]);
  sq_verify_evaluate(v, &b);
  for (int k = 0; k < NSEQ; ++k) {
    const int middle = off[k] + (off[k + 1] - off[k]) / 2;
    const difference_count c = changed(v, off[k], middle);
    before += c.changed;
    sq_verify_raise(&error, c.error);
    after += changed(v, middle, off[k + 1]).changed;
  }
  /* A transform of the whole sequence (dense systems) mixes all steps: what comes back is causal to rounding. */
  if (v->lti && sq_verify_is_dense(v))
    AT_MOST(v, error, PADDING_TOLERANCE, "causality: outputs equal",
            "before the changed steps: %ld values differ by rounding (after them: %ld)", before, after);
  else
    AT_MOST(v, (double)before, 0, "causality: values that changed",
            "before the changed steps (after them: %ld)", after);
  if (after == 0) AT_LEAST(v, 0.0, 1.0, "causality: values that changed", "after the changed steps");
}

static double *lambda_of(verification *v, int l, int h)
{
  const sq_mixer *mixer = sq_model_mixer(v->model, l);
  return v->lambda + ((size_t)l * (size_t)sq_mixer_get(mixer)->heads(mixer) + (size_t)h) * (size_t)v->T;
}

/* Keeps log lambda of the first `length` steps of sequence 0, or compares with what was kept. */
static void eigenvalues(verification *v, const sq_rows *rows, int length, difference_count *c)
{
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    for (int h = 0; h < sq_mixer_get(view.mixer)->heads(view.mixer); ++h) {
      double *old = lambda_of(v, l, h);
      factors(v, &view, rows, 0, h);
      if (c == NULL) {
        memcpy(old, v->f.log_lambda, (size_t)length * sizeof *old);
        continue;
      }
      for (int i = 0; i < length; ++i) c->changed += !(old[i] == v->f.log_lambda[i]);
      sq_verify_raise(&c->error, sq_verify_difference((size_t)length, old, v->f.log_lambda) /
                                     fmax(1, sq_verify_largest((size_t)length, old)));
    }
  }
}

void sq_verify_padding(verification *v)
{
  const int length = (5 * v->T + 7) / 8, alone[2] = {0, length}, padded[2] = {0, v->T};
  sq_verify_fill_example(v, 0, 0, length);
  sq_batch b = sq_verify_batch(v, 1, alone);
  sq_verify_evaluate(v, &b);
  keep_outputs(v, length);
  if (!v->lti) eigenvalues(v, &b.rows, length, NULL);
  for (int t = length; t < v->T; ++t) {
    v->token[t] = 0;
    for (int k = 0; k < v->info.input_dim; ++k)
      v->value[(size_t)t * (size_t)v->info.input_dim + (size_t)k] = 0;
  }
  b = sq_verify_batch(v, 1, padded);
  sq_verify_evaluate(v, &b);
  difference_count outputs = changed(v, 0, length), lambda = {0, 0};
  if (!v->lti) eigenvalues(v, &b.rows, length, &lambda);
  AT_MOST(v, outputs.error, PADDING_TOLERANCE, "padding: outputs equal",
          "%d real steps, %d appended; %ld values differ by rounding", length, v->T - length,
          outputs.changed);
  if (v->lti) return; /* eigenvalues do not depend on a sequence */
  AT_MOST(v, lambda.error, PADDING_TOLERANCE, "padding: log lambda equal", "%ld values differ by rounding",
          lambda.changed);
}

/* ---- 4. gradient ------------------------------------------------------------------------------------- */
static double mean_loss(verification *v, const sq_real *theta, const sq_batch *b, const sq_pass *pass)
{
  sq_tally tally = {0};
  sq_model_loss(v->model, theta, b, pass, v->work, &tally);
  return tally.loss_sum / (double)tally.nlabel;
}

/* A direction within tensor p, of random sizes; it follows the sign of the gradient g, so that nothing
   cancels, and is random in sign where g is 0.  moved = theta + h direction; returns g . direction /
   |direction|. */
static double move(verification *v, const sq_param *p, int index, double h)
{
  const sq_real *g = v->gradient + p->offset;
  double square = 0, dot = 0;
  memcpy(v->moved, v->theta, sq_model_params(v->model)->total * sizeof *v->moved);
  for (int pass = 0; pass < 2; ++pass) { /* the length first */
    sq_rng r;
    sq_rng_init(&r, v->seed, SQ_STREAM_TEST, 2000 + (uint64_t)index);
    for (size_t k = 0; k < p->count; ++k) {
      double u = sq_rng_normal(&r);
      if (g[k] != 0) u = copysign(u, (double)g[k]);
      if (pass == 0) square += u * u;
      if (pass == 1) dot += (double)g[k] * u / sqrt(square);
      if (pass == 1) v->moved[p->offset + k] += (sq_real)(h * u / sqrt(square));
    }
  }
  return dot;
}

/* Truncation h^2 and rounding eps/h balance at h = eps^(1/3); a factor 1e3 is left for conditioning.  Errors
   are relative to the tensor's own derivative, or to a tenth of the whole gradient where that is larger:
   some gradients are zero. */
void sq_verify_gradient(verification *v)
{
  if (sizeof(sq_real) < sizeof(double)) {
    v->skipped = 1; /* differences of a float32 loss are mostly rounding */
    return;
  }
  const double h = cbrt(DBL_EPSILON);
  const sq_param_list *params = sq_model_params(v->model);
  int off[NSEQ + 1], where = 0;
  const sq_batch b = sq_verify_examples(v, off);
  /* Statistics over the batch (BatchNorm) have a gradient only where they are those of the batch. */
  const sq_pass pass = {
      .rows = &b.rows, .train = sq_model_nsync(v->model) > 0, .seed = v->seed, .seq_len = v->T};
  double worst = 0, norm = 0;
  sq_tally tally = {0};
  memset(v->gradient, 0, params->total * sizeof *v->gradient);
  sq_model_gradient(v->model, v->theta, &b, &pass, 1.0 / (double)sq_batch_labels(&b), v->work, v->gradient,
                    &tally);
  for (int i = 0; i < params->n; ++i)
    for (size_t k = 0; k < params->v[i].count && !(params->v[i].flags & SQ_PARAM_BUFFER); ++k) {
      const double g = (double)v->gradient[params->v[i].offset + k];
      norm += g * g;
    }
  norm = sqrt(norm);
  for (int i = 0; i < params->n; ++i) {
    if (params->v[i].flags & SQ_PARAM_BUFFER) continue;
    double quotient[2],
        slope = 0; /* of h and 2 h: their combination has no error of the order h^2, which is large
                                      where a step size stands beside many fast states */
    for (int k = 0; k < 2; ++k) {
      slope = move(v, &params->v[i], i, (k + 1) * h);
      const double up = mean_loss(v, v->moved, &b, &pass);
      move(v, &params->v[i], i, -(k + 1) * h);
      quotient[k] = (up - mean_loss(v, v->moved, &b, &pass)) / (2 * (k + 1) * h);
    }
    const double by_differences = (4 * quotient[0] - quotient[1]) / 3;
    if (sq_verify_raise(&worst, fabs(by_differences - slope) / fmax(fabs(slope), 0.1 * norm))) where = i;
  }
  AT_MOST(v, worst, 1e3 * h * h, "gradient: central differences", "%d tensors, worst %s", params->n,
          params->v[where].name);
}

/* ---- 5. coordinates ---------------------------------------------------------------------------------- */
typedef struct {
  double output, memory, hankel, log_sigma1,
      eigenvalue; /* changes; eigenvalue: the smallest of the largest */
  double largest_log;
} gauge_change;

static double largest_log(const sq_factors *f)
{
  double top = 0;
  for (int i = 0; i < f->T; ++i)
    sq_verify_raise(&top, fmax(fabs(f->log_lambda[i]), fmax(fabs(f->log_b[i]), fabs(f->log_c[i]))));
  return top;
}

static sq_status invariants(verification *v, int side, double *y, double *log_sigma1, int *n)
{
  sq_status st;
  memset(v->energy[side], 0, (size_t)v->T * sizeof(double));
  SQ_TRY(sq_factors_run(&v->f, y));
  SQ_TRY(sq_factors_energy(&v->f, v->energy[side]));
  SQ_TRY(sq_factors_hankel(&v->f, v->f.T / 2, v->sigma[side], n, log_sigma1));
done:
  return st;
}

static sq_status regauge_head(verification *v, int head, gauge_change *c)
{
  const size_t T = (size_t)v->f.T, all = T * (size_t)v->f.dv;
  double top[2] = {0, 0}, change = 0;
  int n[2] = {0, 0};
  sq_rng r;
  sq_status st;
  sq_rng_init(&r, v->seed, SQ_STREAM_REGAUGE, (uint64_t)head);
  for (size_t i = 0; i < T; ++i) v->log_s[i] = 3 * sq_rng_normal(&r); /* factors of e^3 from step to step */
  SQ_TRY(invariants(v, 0, v->y, &top[0], &n[0]));
  memcpy(lambda_of(v, 0, 0), v->f.log_lambda, T * sizeof(double));
  sq_factors_regauge(&v->f, v->log_s);
  SQ_TRY(invariants(v, 1, v->heads, &top[1], &n[1]));
  SQ_ASSERT(n[0] == n[1]);
  sq_verify_raise(&c->output,
                  sq_verify_over(sq_verify_difference(all, v->heads, v->y), sq_verify_largest(all, v->y)));
  sq_verify_raise(&c->memory, sq_verify_difference(T, v->energy[0], v->energy[1]));
  sq_verify_raise(&c->hankel, sq_verify_difference((size_t)n[0], v->sigma[0], v->sigma[1]));
  sq_verify_raise(&c->log_sigma1, fabs(top[1] - top[0]));
  sq_verify_raise(&c->largest_log, largest_log(&v->f));
  for (size_t i = 1; i < T; ++i) sq_verify_raise(&change, fabs(v->f.log_lambda[i] - lambda_of(v, 0, 0)[i]));
  if (!(change >= c->eigenvalue)) c->eigenvalue = change;
done:
  return st;
}

sq_status sq_verify_regauge(verification *v)
{
  int off[NSEQ + 1];
  const sq_batch b = sq_verify_examples(v, off);
  gauge_change c = {.eigenvalue = INFINITY};
  sq_verify_evaluate(v, &b);
  for (int l = 0; l < sq_model_nlayer(v->model); ++l) {
    const sq_layer_view view = sq_model_layer(v->model, v->work, l);
    const int H = sq_mixer_get(view.mixer)->heads(view.mixer);
    for (int h = 0; h < H; ++h) {
      factors(v, &view, &b.rows, 0, h);
      const sq_status st = regauge_head(v, l * H + h, &c);
      if (st == SQ_ERR_DATA) { /* factors that are not finite */
        sq_error_clear();
        c.output = NAN;
      } else if (st != SQ_OK) {
        return st;
      }
    }
  }
  /* A log of size L is rounded by eps L / 2, and each of its few roundings moves what it scales by as much.
   */
  const double rounding = 64 * DBL_EPSILON * c.largest_log, allowed = rounding > 1e-12 ? rounding : 1e-12;
  AT_MOST(v, c.output, allowed, "regauge: outputs equal", "largest |log| %.3g", c.largest_log);
  AT_MOST(v, c.memory, allowed, "regauge: memory equal", "energy by distance, of its largest");
  AT_MOST(v, c.hankel, allowed, "regauge: Hankel values equal", "of sigma_1");
  AT_MOST(v, c.log_sigma1, allowed, "regauge: log sigma_1 equal", "absolute");
  AT_LEAST(v, c.eigenvalue, 1.0, "regauge: eigenvalues differ",
           "largest change of log lambda, in the head with the least");
  return SQ_OK;
}
