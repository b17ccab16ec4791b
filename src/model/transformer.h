/* src/model/transformer.h: the transformer family.
 *
 *   x = embedding | Linear(inputs)                       R rows, D width
 *   for each block:  z = Wz x + bz                       only with use_gate
 *                    r = x + mixer(LN(x))                the block's one LayerNorm,
 *                    m = LN(r)                           used twice
 *                    y = r + MLP(m) | r + GLU(m) | r + hybrid(m) | m
 *                    x = y SiLU(z) | y
 *   x = LN(x);  logits = head(pooled x) | head(x at labelled rows)
 *
 * transformer.c builds the model, transformer_pass.c runs it. */
#pragma once

#include "model_impl.h"

typedef enum { CHANNEL_NONE, CHANNEL_MLP, CHANNEL_GLU, CHANNEL_HYBRID } channel_kind;
typedef enum { HEAD_DECODER /* Linear without bias */, HEAD_MLP, HEAD_IDENTITY } head_kind;

typedef struct {
  sq_linear_place gate, encoder, decoder; /* encoder: mixer.encoder or mixer.linear */
  size_t alpha, norm_weight, norm_bias;
} block_place;

typedef struct {
  sq_model base;
  int vocab, max_pos, input_dim; /* vocab 0: real inputs */
  channel_kind channel;
  int hidden; /* width of the channel mixer's kept array: mixer_dim, 2D or 0 */
  int gated;
  head_kind head;
  int head_dim;       /* hidden width of HEAD_MLP */
  sq_pooling pooling; /* SQ_POOL_NONE: the head works on rows */
  int max_head_rows;
  double dropout;
  size_t word, position, norm_weight, norm_bias;
  sq_linear_place input, head1, head2; /* head2: the output layer (HEAD_DECODER, HEAD_MLP) */
  block_place *block;                  /* (nlayer) */
} transformer;

/* Activations of one layer that backward needs or an analysis may want; the rest is recomputed.  Where few rows are
   labelled, those of the last layer from a on are of these rows, one after the other, and so is `last`. */
typedef struct {
  sq_real *x;           /* (R,D) block input */
  sq_real *u;           /* (R,D) LN(x), the mixer's input */
  sq_real *a;           /* (R,D) mixer's output, after dropout */
  sq_real *h;           /* (R,hidden) before the nonlinearity of the channel mixer */
  sq_real *z, *y0;      /* (R,D) gate, and the output before gating; with use_gate only */
  sq_real *mean, *rstd; /* (R) of x */
  void *tape;
} layer_work;

/* The workspace of a shard.  Scratch is shared by all layers. */
typedef struct {
  layer_work *layer;           /* (nlayer) */
  sq_real *last;               /* (R,D) output of the last block */
  sq_real *g, *r, *m, *t, *dz; /* (R,D) */
  sq_real *h1, *h2;            /* (R,hidden) */
  sq_real *dhybrid;            /* (R,D), mixer hybrid only */
  sq_real *mean, *rstd;        /* (R) */
  void *scratch;               /* of the mixers */
  sq_real *xw;                 /* (n,D) the last block's input at the labelled rows */
  /* head, n rows: labelled rows, all rows, or sequences */
  sq_labelled labelled;
  int *argmax;            /* (nseq,D) max pooling */
  sq_real *hx, *hn, *dhx; /* (n,D) gathered, normalised (or pooled), gradient */
  sq_real *e, *re, *de;   /* (n,head_dim) */
  sq_real *xent;
} transformer_work;

/* Cuts the workspace; counts with a->base == NULL. */
void sq_transformer_take(const transformer *m, sq_arena *a, transformer_work *w);

void sq_transformer_run(const sq_model *model, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                        double scale, int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally);
void sq_transformer_logits(const sq_model *model, const sq_real *theta, const sq_batch *shard,
                           const sq_pass *p, void *work, sq_real *logits);
