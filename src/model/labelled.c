/* src/model/labelled.c: the labelled rows of a shard, and a last layer that makes no others.
 *
 * Behind the last mixer every row goes its own way to the loss, and rows without a label have none: forward and
 * backward they are left out.  Numbers stay what they were but for the order in which gradients of weights are
 * summed. */
#include "model_impl.h"

void sq_labelled_take(sq_arena *a, const sq_model_dims *d, int cap, sq_labelled *l)
{
  const size_t n = (size_t)cap;

  l->cap = cap;
  l->row = SQ_TAKE(a, n, int);
  l->step = SQ_TAKE(a, n, int);
  l->off = SQ_TAKE(a, (size_t)d->max_seqs + 1, int);
  l->label = SQ_TAKE(a, n, int32_t);
  l->list = SQ_TAKE(a, 1, sq_wanted);
}

void sq_labelled_list(const sq_batch *shard, sq_labelled *l)
{
  SQ_ASSERT(shard->label_per_row);
  const int n = sq_nn_list_labelled(&shard->rows, shard->label, l->cap, l->row, l->step, l->off, l->label);
  *l->list = (sq_wanted){.n = n, .row = l->row, .step = l->step, .off = l->off};
}

sq_pass sq_labelled_pass(const sq_labelled *l, const sq_pass *p)
{
  sq_pass last = *p;

  if (!p->all_rows && l->list->n < p->rows->nrow) last.wanted = l->list;
  return last;
}

double sq_labelled_rows(const sq_model *m, double rows, long nlabel)
{
  return m->dims.label_per_row && (double)nlabel < rows ? (double)nlabel : rows;
}

static int knows(const sq_mixer *m, const sq_pass *p)
{
  return p->wanted == NULL || sq_mixer_get(m)->flops_wanted != NULL;
}

void sq_labelled_mix(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                     void *tape, sq_real *all, void *scratch)
{
  sq_pass plain = *p;

  if (knows(m, p)) {
    sq_mixer_get(m)->forward(m, theta, p, u, y, tape, scratch);
    return;
  }
  plain.wanted = NULL;
  sq_mixer_get(m)->forward(m, theta, &plain, u, all, tape, scratch);
  sq_nn_gather_rows(sq_mixer_shape(m).D, p->wanted->n, p->wanted->row, all, y);
}

void sq_labelled_mix_back(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, sq_real *all,
                          void *scratch)
{
  sq_pass plain = *p;

  if (knows(m, p)) {
    sq_mixer_get(m)->backward(m, theta, p, u, tape, dy, du, dtheta, scratch);
    return;
  }
  plain.wanted = NULL;
  sq_nn_scatter_rows(p->rows->nrow, sq_mixer_shape(m).D, p->wanted->n, p->wanted->row, dy, all);
  sq_mixer_get(m)->backward(m, theta, &plain, u, tape, all, du, dtheta, scratch);
}

double sq_labelled_mix_flops(const sq_mixer *m, int nseq, const int *len, double rows, double wanted)
{
  const sq_mixer_ops *ops = sq_mixer_get(m);

  return wanted < rows && ops->flops_wanted != NULL ? ops->flops_wanted(m, nseq, len, wanted)
                                                    : ops->flops(m, nseq, len);
}
