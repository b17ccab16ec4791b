/* src/app/parity_numbers.c: this program's numbers for a case, in the case's layout. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"

typedef struct { /* what the functions below share; owned */
  void *work;
  sq_real *grad, *theta, *m, *v, *logits, *first_grad;
} bench;

parity_number *sq_parity_add(parity_case *p, parity_quantity q, int ndim, const size_t *dim, const char *path)
{
  if (p->nnumber == p->cap) {
    const int cap = p->cap > 0 ? 2 * p->cap : 64;
    parity_number *v = realloc(p->number, (size_t)cap * sizeof *v);
    if (v == NULL) {
      sq_fail(SQ_ERR_MEMORY, "%s: no memory for %s", p->path, path);
      return NULL;
    }
    p->number = v;
    p->cap = cap;
  }
  parity_number n = {.quantity = q, .ndim = ndim, .count = 1, .scale = 1};
  sq_format(n.path, sizeof n.path, "%s", path);
  for (int i = 0; i < ndim; ++i) {
    n.dim[i] = dim[i];
    n.count *= dim[i];
  }
  n.data = sq_calloc(n.count, sizeof *n.data, path);
  if (n.data == NULL) return NULL;
  p->number[p->nnumber] = n;
  return &p->number[p->nnumber++];
}

sq_status sq_parity_add_with_slack(parity_case *p, parity_quantity q, int ndim, const size_t *dim,
                                   const char *path, int *place)
{
  parity_number *n = sq_parity_add(p, q, ndim, dim, path);

  if (n != NULL) n->slack = sq_calloc(n->count, sizeof *n->slack, path);
  if (n == NULL || n->slack == NULL) return SQ_ERR_MEMORY;
  *place = p->nnumber - 1;
  return SQ_OK;
}

static sq_status add_reals(parity_case *p, parity_quantity q, int ndim, const size_t *dim, const char *path,
                           const sq_real *x)
{
  parity_number *n = sq_parity_add(p, q, ndim, dim, path);
  if (n == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < n->count; ++i) n->data[i] = (double)x[i];
  return SQ_OK;
}

static sq_status add_doubles(parity_case *p, parity_quantity q, int ndim, const size_t *dim, const char *path,
                             const double *x)
{
  parity_number *n = sq_parity_add(p, q, ndim, dim, path);
  if (n == NULL) return SQ_ERR_MEMORY;
  memcpy(n->data, x, n->count * sizeof *x);
  return SQ_OK;
}

/* The tensors of a vector like theta: the trained ones, or the running statistics.  first_grad: kept as slack. */
static sq_status add_tensors(parity_case *p, parity_quantity q, const char *group, int buffers,
                             const sq_real *x, const sq_real *first_grad)
{
  const sq_param_list *l = sq_model_params(p->model);
  char path[160];
  sq_status st = SQ_OK;

  for (int k = 0; k < l->n; ++k) {
    const sq_param *t = &l->v[k];
    const size_t dim[3] = {(size_t)t->dim[0], (size_t)t->dim[1], (size_t)t->dim[2]};
    if (((t->flags & SQ_PARAM_BUFFER) != 0) != buffers) continue;
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

/* Flags that some tensor has. */
static unsigned any_flags(const parity_case *p)
{
  const sq_param_list *l = sq_model_params(p->model);
  unsigned flags = 0;
  for (int k = 0; k < l->n; ++k) flags |= l->v[k].flags;
  return flags;
}

/* ---- forward pass ----------------------------------------------------------------------------------------
 */
/* The whole batch is one shard; the configuration's dropout was set to 0. */
static sq_pass training_pass(const parity_case *p)
{
  return (sq_pass){.rows = &p->batch.rows, .train = 1, .seq_len = p->L};
}

/* Training mode, or evaluation mode with theta's running statistics. */
static sq_status add_logits(parity_case *p, bench *w, parity_quantity q, const char *path,
                            const sq_real *theta, int train)
{
  const size_t B = (size_t)p->B, C = (size_t)sq_model_output_dim(p->model);
  const size_t per_row[3] = {B, (size_t)p->T, C}, per_seq[2] = {B, C};
  const sq_pass pass = training_pass(p);

  sq_model_logits(p->model, theta, &p->batch, train ? &pass : NULL, w->work, w->logits);
  return add_reals(p, q, p->per_row ? 3 : 2, p->per_row ? per_row : per_seq, path, w->logits);
}

static sq_status logits_and_acts(parity_case *p, bench *w)
{
  static const char *const what[4] = {"block_in", "mixer_in", "mixer_out", "block_out"};
  const size_t act[3] = {(size_t)p->B, (size_t)p->T, (size_t)sq_model_width(p->model)};
  char path[160];
  sq_status st;

  SQ_TRY(add_logits(p, w, PARITY_LOGITS, "/logits", p->theta, 1));
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
/* The factors of layers that depend on the input come from the tape of an evaluation-mode pass. */
static sq_status spectra(parity_case *p, bench *w)
{
  if (sq_mixer_get(sq_model_mixer(p->model, 0))->lti != NULL) return sq_parity_lti(p, w->work);
  sq_model_logits(p->model, p->theta, &p->batch, NULL, w->work, w->logits);
  return sq_parity_eigenvalues(p, w->work);
}

/* ---- gradient and steps ----------------------------------------------------------------------------------
 */
static sq_tally gradient(const parity_case *p, bench *w, const sq_real *theta)
{
  const sq_pass pass = training_pass(p);
  sq_tally tally = {0};

  memset(w->grad, 0, sq_model_params(p->model)->total * sizeof *w->grad);
  sq_model_gradient(p->model, theta, &p->batch, &pass, sq_batch_scale(&p->batch), w->work, w->grad, &tally);
  return tally;
}

static sq_status first_step(parity_case *p, bench *w, const sq_tally *tally)
{
  sq_status st;
  const double loss = tally->loss_sum * sq_batch_scale(&p->batch),
               over_labels = tally->loss_sum / (double)sq_batch_labels(&p->batch);

  SQ_TRY(add_doubles(p, PARITY_LOSS, 0, NULL, "/loss", &loss));
  if (p->batch.loss_over_rows && p->per_row)
    SQ_TRY(add_doubles(p, PARITY_LOSS_LABELS, 0, NULL, "/loss_mean_over_valid", &over_labels));
  SQ_TRY(add_tensors(p, PARITY_GRADS, "grads", 0, w->grad, NULL));
  memcpy(w->first_grad, w->grad, sq_model_params(p->model)->total * sizeof *w->grad);
done:
  return st;
}

/* Three steps on the same batch.  One group of parameters, split complex numbers, whatever the family. */
static sq_status steps(parity_case *p, bench *w)
{
  const sq_param_list *l = sq_model_params(p->model);
  const size_t three = 3;
  double loss[3];
  sq_status st;

  memcpy(w->theta, p->theta, l->total * sizeof *w->theta);
  for (int step = 0; step < 3; ++step) {
    const sq_tally tally = gradient(p, w, w->theta);
    loss[step] = tally.loss_sum * sq_batch_scale(&p->batch);
    if (step == 0) SQ_TRY(first_step(p, w, &tally));
    const double norm =
        sq_adamw_step(&p->optimiser, l, p->lr, p->lr, step + 1, w->grad, w->m, w->v, w->theta);
    if (step > 0) continue;
    SQ_TRY(add_doubles(p, PARITY_GRAD_NORM, 0, NULL, "/grad_norm_before_clip", &norm));
    SQ_TRY(add_tensors(p, PARITY_ONE_STEP, "params_after_adamw_step", 0, w->theta, w->first_grad));
    SQ_TRY(add_tensors(p, PARITY_STATISTICS, "batch_stats_after", 1, w->theta, NULL));
  }
  SQ_TRY(add_tensors(p, PARITY_THREE_STEPS, "params_after_adamw_3steps", 0, w->theta, w->first_grad));
  SQ_TRY(add_doubles(p, PARITY_LOSSES, 1, &three, "/losses_3steps", loss));
done:
  return st;
}

/* One step of the published JAX code's optimiser.  The three rules differ where a tensor is complex to it. */
static sq_status optax_steps(parity_case *p, bench *w)
{
  static const struct {
    sq_complex_rule rule;
    const char *group;
  } kind[] = {{SQ_COMPLEX_SPLIT, "params_after_optax_step_split"},
              {SQ_COMPLEX_LITERAL, "params_after_optax_step_literal"},
              {SQ_COMPLEX_CONJ, "params_after_optax_step_conj"}};
  const sq_param_list *l = sq_model_params(p->model);
  const size_t bytes = l->total * sizeof *w->theta;
  const int nkind = any_flags(p) & SQ_PARAM_COMPLEX ? 3 : 1;
  sq_adamw o = p->optimiser;
  sq_status st = SQ_OK;

  o.rule = SQ_RULE_JAX;
  o.clip = 0;
  for (int k = 0; k < nkind; ++k) {
    o.complex_rule = kind[k].rule;
    memcpy(w->theta, p->theta, bytes);
    memset(w->m, 0, bytes);
    memset(w->v, 0, bytes);
    sq_adamw_step(&o, l, p->lr, p->ssm_lr, 1, w->first_grad, w->m, w->v, w->theta);
    SQ_TRY(add_tensors(p, PARITY_OPTAX, kind[k].group, 0, w->theta, w->first_grad));
  }
done:
  return st;
}

/* Evaluation mode with the parameters of the case and the statistics as the first step left them. */
static sq_status logits_after_statistics(parity_case *p, bench *w)
{
  const sq_param_list *l = sq_model_params(p->model);
  int next = 0;

  memcpy(w->theta, p->theta, l->total * sizeof *w->theta);
  for (int k = 0; k < l->n; ++k) {
    const sq_param *t = &l->v[k];
    if (!(t->flags & SQ_PARAM_BUFFER)) continue;
    while (p->number[next].quantity != PARITY_STATISTICS) ++next; /* added in the order of the tensors */
    for (size_t i = 0; i < t->count; ++i) w->theta[t->offset + i] = (sq_real)p->number[next].data[i];
    ++next;
  }
  return add_logits(p, w, PARITY_LOGITS_EVAL, "/logits_eval", w->theta, 0);
}

/* ---- all -------------------------------------------------------------------------------------------------
 */
static void bench_clear(bench *w)
{
  void *const all[] = {w->work, w->grad, w->theta, w->m, w->v, w->logits, w->first_grad};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

static sq_status bench_init(const parity_case *p, bench *w)
{
  const size_t n = sq_model_params(p->model)->total, rows = (size_t)p->B * (size_t)p->T;

  *w = (bench){0};
  w->work = aligned_alloc(64, sq_model_work_bytes(p->model) / 64 * 64 + 64);
  w->grad = sq_calloc(n, sizeof *w->grad, "gradient");
  w->theta = sq_calloc(n, sizeof *w->theta, "parameters");
  w->m = sq_calloc(n, sizeof *w->m, "moments");
  w->v = sq_calloc(n, sizeof *w->v, "moments");
  w->first_grad = sq_calloc(n, sizeof *w->first_grad, "gradient");
  w->logits = sq_calloc(rows * (size_t)sq_model_output_dim(p->model), sizeof *w->logits, "logits");
  const int missing = w->work == NULL || w->grad == NULL || w->theta == NULL || w->m == NULL ||
                      w->v == NULL || w->first_grad == NULL || w->logits == NULL;
  return missing ? sq_fail(SQ_ERR_MEMORY, "%s: no memory for the case", p->path) : SQ_OK;
}

sq_status sq_parity_compute(parity_case *p)
{
  bench w;
  sq_status st;

  SQ_TRY(bench_init(p, &w));
  SQ_TRY(logits_and_acts(p, &w));
  SQ_TRY(spectra(p, &w));
  SQ_TRY(steps(p, &w));
  if (p->jax) SQ_TRY(optax_steps(p, &w));
  if (any_flags(p) & SQ_PARAM_BUFFER) SQ_TRY(logits_after_statistics(p, &w));
done:
  bench_clear(&w);
  return st;
}
