/* src/model/mamba.h: the Mamba-2 family, models/mamba.py of the published study.
 *
 *   x = embedding | Linear(inputs)                       R rows, D width
 *   for each block:  u = LN(x) | x                       prenorm | postnorm
 *                    g = GELU(mixer(u))
 *                    y = GLU(W g + b) | g                with glu | without
 *                    x = x + y | LN(x + y)               prenorm | postnorm
 *   logits = Linear(pooled x) | Linear(x at labelled rows)      no final norm
 *
 * mamba.c builds the model, mamba_pass.c runs it. */
#pragma once

#include "model_impl.h"

typedef struct {
  sq_linear_place glu;
  size_t norm_weight, norm_bias;
} mamba_block;

typedef struct {
  sq_model base;
  int vocab, input_dim; /* vocab 0: real inputs */
  int glu, prenorm;
  sq_pooling pooling; /* SQ_POOL_NONE: the head works on rows */
  int max_head_rows;
  double dropout;
  size_t word;
  sq_linear_place input, decoder;
  mamba_block *block; /* (nlayer) */
} mamba;

/* Activations of one layer that backward needs or an analysis may want; the rest is recomputed.  Where few rows are
   labelled, s and a of the last layer are of these rows, one after the other, and so is `last`. */
typedef struct {
  sq_real *x;           /* (R,D) block input */
  sq_real *u;           /* (R,D) the mixer's input; x itself without prenorm */
  sq_real *s;           /* (R,D) the mixer's output */
  sq_real *a;           /* (R,2D) before the gate; with glu only */
  sq_real *mean, *rstd; /* (R) of the block's norm */
  void *tape;
} mamba_layer_work;

/* The workspace of a shard.  Scratch is shared by all layers. */
typedef struct {
  mamba_layer_work *layer; /* (nlayer) */
  sq_real *last;           /* (R,D) output of the last block */
  sq_real *g, *r, *t;      /* (R,D) */
  sq_real *da;             /* (R,2D), with glu only */
  void *scratch;           /* of the mixers */
  sq_real *xw;             /* (n,D) the last block's input at the labelled rows */
  /* head, n rows: labelled rows, all rows, or sequences */
  sq_labelled labelled;
  int *argmax;       /* (nseq,D) max pooling */
  sq_real *hx, *dhx; /* (n,D) gathered or pooled, gradient */
  sq_real *xent;
} mamba_work;

/* Cuts the workspace; counts with a->base == NULL. */
void sq_mamba_take(const mamba *m, sq_arena *a, mamba_work *w);

void sq_mamba_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                  double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally);
void sq_mamba_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     void *work, sq_real *logits);
