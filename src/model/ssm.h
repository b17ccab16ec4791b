/* src/model/ssm.h: the backbone of the state-space layers (S4, S5, LRU), as the published JAX code has it.
 *
 *   x = Dense(inputs)                                        R rows, D width; inputs one-hot tokens or numbers
 *   for each layer:  u = norm(x) if prenorm else x
 *                    s = mixer(u)
 *                    g = drop(gelu(s))
 *                    y = drop(out1 g * sigmoid(out2 g))      full_glu; half_glu1: g instead of out1 g,
 *                                                            half_glu2: s instead of out1 g; gelu: y = g
 *                    r = x + y
 *                    x = r if prenorm else norm(r)
 *   log_softmax(Dense(pooled x)) | log_softmax(Dense(x at labelled rows))
 *
 * The norm of each layer is a sync point of sq/model.h where it is a BatchNorm.  What lies before it in a layer is
 * the layer's first part, what lies behind it the second:
 *
 *                first part            norm             second part
 *   prenorm      nothing               x -> u           u, x -> next x
 *   postnorm     x -> r                r -> next x      nothing
 *
 * ssm.c builds the model, ssm_pass.c runs it. */
#pragma once

#include "model_impl.h"

typedef enum { GATE_FULL /* full_glu */, GATE_HALF1, GATE_HALF2, GATE_NONE /* gelu */ } gate_kind;

typedef struct {
  size_t kernel, bias; /* places in theta */
  int in, out;
} dense_place;

typedef struct {
  dense_place out1, out2;
  size_t scale, bias, mean, var; /* of the norm; mean, var: BatchNorm only */
} ssm_place;

typedef struct {
  sq_model base;
  gate_kind gate;
  int gate_width; /* of the kept array: 2D, D or 0 */
  int batch_norm, prenorm;
  sq_pooling pooling; /* SQ_POOL_NONE: the head works on rows */
  int max_head_rows;
  double dropout;
  dense_place encoder, decoder;
  /* (nlayer).  With prenorm the norm of a layer stands before its other tensors, else behind them: both ways the
     range of theta that a backward segment writes begins with a norm and ends where the next norm begins. */
  ssm_place *layer;
} ssm;

/* Activations of one layer that backward needs or an analysis may want; the rest is recomputed.  Where few rows are
   labelled, those of the last layer from s on (r: without prenorm) are of these rows, one after the other, and so
   is `last`; not with a BatchNorm behind the mixer, whose statistics are of all rows. */
typedef struct {
  sq_real *x;           /* (R,D) layer input */
  sq_real *u;           /* (R,D) mixer's input; x itself without prenorm */
  sq_real *s;           /* (R,D) mixer's output */
  sq_real *h;           /* (R,gate_width) out1 g and out2 g side by side, or out2 g */
  sq_real *r;           /* (R,D) what the norm normalises; x itself with prenorm */
  sq_real *mean, *rstd; /* of the norm: (R), BatchNorm (D) */
  sq_real *var;         /* (D) BatchNorm in training */
  void *tape;
} ssm_layer;

/* The workspace of a shard.  g, d and what layers hold stay from segment to segment. */
typedef struct {
  ssm_layer *layer;    /* (nlayer) */
  sq_real *last;       /* (R,D) output of the last layer */
  sq_real *g, *d;      /* (R,D) gradient on the main path; of the mixer's input */
  sq_real *e, *t, *dh; /* (R,D), (R,D), (R,gate_width) */
  double *sum;         /* (2D) */
  double *count;       /* (1) rows of the whole batch */
  void *scratch;       /* of the mixers */
  sq_labelled labelled;
  sq_real *xw;       /* (n,D) the last layer's input at the labelled rows */
  sq_real *hx, *dhx; /* (n,D); n: labelled rows or sequences */
  sq_real *xent;
} ssm_work;

/* The last layer makes all rows behind its mixer, labelled or not: a BatchNorm there has statistics of all. */
static inline int sq_ssm_all_rows(const ssm *m)
{
  return m->batch_norm && !m->prenorm;
}

/* Cuts the workspace; counts with a->base == NULL. */
void sq_ssm_take(const ssm *m, sq_arena *a, ssm_work *w);

void sq_ssm_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally);
void sq_ssm_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                   void *work, sq_real *logits);
