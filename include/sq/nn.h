/* include/sq/nn.h: what acts on each step alone, and the loss.  Forward beside backward, one file each.
 *
 *   R rows (steps of packed sequences)   D, C channels   V classes
 * Arrays are row-major with row stride = width unless an ld is given.  Parameter gradients (dW, db, dw) are
 * added to; activation gradients are overwritten unless the name of the argument says `add`.  Nothing here
 * allocates. */
#pragma once

#include <stdint.h>

#include "sq/batch.h"
#include "sq/linalg.h"
#include "sq/param.h"
#include "sq/rng.h"

/* One pass over a shard. */
typedef struct {
  const sq_rows *rows;
  int train;              /* dropout is active */
  uint64_t seed;          /* of the cell */
  uint64_t step;          /* training step */
  int seq_len;            /* the task's longest sequence: numbering of rows in dropout masks */
  const sq_real *derived; /* of the model, see sq/model.h; NULL if there is none */
  sq_real *dderived;      /* its gradient, added to by backward passes */
  /* Where few rows are labelled, what stands behind the last layer's mixer is made for these rows only; 1: for all
     rows, as an analysis that looks at the layers needs it. */
  int all_rows;
  const sq_wanted *wanted; /* set by the model for the last layer (see sq/mixer.h), else NULL: all rows */
  /* Called by backward passes several times a layer, NULL: nobody wants to know.  layer: the shard's gradients of this
     layer and of all behind it are complete (number of layers: the head's); -1: no more than before. */
  void (*progress)(void *user, int layer);
  void *progress_user;
} sq_pass;
static inline void sq_pass_progress(const sq_pass *p, int layer)
{
  if (p->progress != NULL) p->progress(p->progress_user, layer);
}

/* ---- linear.c: y = x W^T + b, W (out,in) ----------------------------------------------------------------
 */
void sq_nn_linear(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W,
                  const sq_real *b /* NULL */, sq_real *y, int ldy);
/* dx (NULL: not wanted) = dy W, or += if add_dx; dW += dy^T x; db += column sums of dy (b absent: db NULL).
 */
void sq_nn_linear_back(int R, int in, int out, const sq_real *x, int ldx, const sq_real *W, const sq_real *dy,
                       int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dW, sq_real *db);
void sq_nn_column_sums_add(int R, int C, const sq_real *x, int ldx, sq_real *sum_add);

/* ---- dense.c: y = x K + b, K (in,out) --------------------------------------------------------------------
 */
void sq_nn_dense(int R, int in, int out, const sq_real *x, int ldx, const sq_real *K,
                 const sq_real *b /* NULL */, sq_real *y, int ldy);
/* As sq_nn_linear_back. */
void sq_nn_dense_back(int R, int in, int out, const sq_real *x, int ldx, const sq_real *K, const sq_real *dy,
                      int ldy, sq_real *dx, int lddx, int add_dx, sq_real *dK, sq_real *db);
/* x row r is the unit vector of token[r], or zero where that is not in 0..in-1: rows of K are gathered. */
void sq_nn_onehot_dense(int R, int in, int out, const int32_t *token, const sq_real *K, const sq_real *b,
                        sq_real *y);
void sq_nn_onehot_dense_back(int R, int in, int out, const int32_t *token, const sq_real *dy, sq_real *dK,
                             sq_real *db);

/* ---- layernorm.c: biased variance over the row; eps 1e-5 or 1e-6 -----------------------------------------
 */
void sq_nn_layernorm(int R, int D, const sq_real *x, const sq_real *w, const sq_real *b, double eps,
                     sq_real *y, sq_real *mean /* (R) */, sq_real *rstd /* (R) */);
void sq_nn_layernorm_back(int R, int D, const sq_real *x, const sq_real *w, const sq_real *mean,
                          const sq_real *rstd, const sq_real *dy, sq_real *dx, int add_dx, sq_real *dw,
                          sq_real *db);

/* ---- batchnorm.c: biased variance over all rows of a batch, cut where its shards add up their sums ----------
 */
/* sum (1+2D): R, sum x, sum x^2. */
void sq_nn_batchnorm_sums(int R, int D, const sq_real *x, double *sum);
/* Of the whole batch: var = max(0, <x^2> - <x>^2). */
void sq_nn_batchnorm_moments(int D, const double *sum, sq_real *mean, sq_real *var);
void sq_nn_batchnorm_rstd(int D, const sq_real *var, double eps, sq_real *rstd);
void sq_nn_batchnorm(int R, int D, const sq_real *x, const sq_real *mean, const sq_real *rstd,
                     const sq_real *w, const sq_real *b, sq_real *y);
/* sum (2D): sum dy, sum dy xh with xh = (x - mean) rstd; the shard's part of them is that of db and dw. */
void sq_nn_batchnorm_back_sums(int R, int D, const sq_real *x, const sq_real *mean, const sq_real *rstd,
                               const sq_real *dy, double *sum);
/* sum: of the whole batch of `count` rows; NULL: mean and variance are constants.  dx may be dy. */
void sq_nn_batchnorm_back(int R, int D, const sq_real *x, const sq_real *w, const sq_real *mean,
                          const sq_real *rstd, const sq_real *dy, const double *sum, double count,
                          sq_real *dx, int add_dx);

/* ---- activation.c: elementwise, exact derivatives --------------------------------------------------------
 */
/* Vector forms; worst errors: exp 2 ulp of sq_real, SiLU 4, GELU 6 (also in its lower tail).  exp(-inf) = 0,
 * NaN stays NaN. */
void sq_nn_exp(size_t n, const sq_real *x, sq_real *y);
void sq_nn_gelu(size_t n, const sq_real *x, sq_real *y);                          /* 0.5x(1+erf(x/sqrt2)) */
void sq_nn_gelu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx); /* dx may be dy */
/* Tanh form, 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x^3))); error 2 eps max(1, |y|). */
void sq_nn_gelu_tanh(size_t n, const sq_real *x, sq_real *y);
void sq_nn_gelu_tanh_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx); /* dx may be dy */
void sq_nn_relu(size_t n, const sq_real *x, sq_real *y);
void sq_nn_relu_back(size_t n, const sq_real *x, const sq_real *dy, sq_real *dx);
void sq_nn_silu_mul(size_t n, const sq_real *z, sq_real *y); /* y *= SiLU(z) */
/* given y0 (before gating), z, dy: dy0 = dy*SiLU(z), dz = dy*y0*SiLU'(z) */
void sq_nn_silu_mul_back(size_t n, const sq_real *y0, const sq_real *z, const sq_real *dy, sq_real *dy0,
                         sq_real *dz);
/* y = v sigmoid(z); y may be v or z.  Given dy: dv = dy sigmoid(z), dz = dy v sigmoid'(z); dv may be dy. */
void sq_nn_gate(size_t n, const sq_real *v, const sq_real *z, sq_real *y);
void sq_nn_gate_back(size_t n, const sq_real *v, const sq_real *z, const sq_real *dy, sq_real *dv,
                     sq_real *dz);
/* Gated linear unit: a (R,2D); y (R,D) = a[:D]*sigmoid(a[D:]) */
void sq_nn_glu(int R, int D, const sq_real *a, sq_real *y);
void sq_nn_glu_back(int R, int D, const sq_real *a, const sq_real *dy, sq_real *da);

/* ---- dropout.c: inverted dropout, mask a pure function of (seed, site, step, sequence id, t, column) ------
 */
/* In place on x (R,C) with row stride ldx: kept values are scaled by 1/(1-rate).  The same call on a gradient
   is the backward pass.  No effect if !p->train or rate == 0.  `site` numbers the place in the network.  With
   p->wanted x holds those rows only; their masks are the same. */
void sq_nn_dropout(const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx);
/* The same with one mask for all steps of a sequence: that of its step 0. */
void sq_nn_dropout_columns(const sq_pass *p, double rate, int site, int C, sq_real *x, int ldx);
/* Keep-mask for one row block of attention weights: m[j] (n columns) = 0 or 1/(1-rate), row = (sequence id,
 * i). */
void sq_nn_dropout_row(const sq_pass *p, double rate, int site, int id, int i, int n, sq_real *m);

/* ---- conv.c: depthwise causal convolution followed by SiLU -----------------------------------------------
 */
/* pre[t,c] = bias[c] + sum_j weight[c,j] x[t-(K-1)+j, c] within each sequence; y = SiLU(pre).
   x, y have row stride ldx, ldy.  C channels, weight (C,K).  K <= SQ_MAX_CONV. */
#define SQ_MAX_CONV 64
void sq_nn_conv_silu(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                     const sq_real *bias, sq_real *y, int ldy);
/* dx (row stride lddx) = gradient of x, pre being computed again; may not alias dy. */
void sq_nn_conv_silu_back(const sq_rows *rows, int C, int K, const sq_real *x, int ldx, const sq_real *weight,
                          const sq_real *bias, const sq_real *dy, int ldy, sq_real *dx, int lddx,
                          sq_real *dweight, sq_real *dbias);

/* ---- embedding.c -----------------------------------------------------------------------------------------
 */
/* x[r] = word[token[r]] + position[t] (position NULL: none). */
void sq_nn_embed(const sq_rows *rows, int D, const int32_t *token, const sq_real *word,
                 const sq_real *position, sq_real *x);
void sq_nn_embed_back(const sq_rows *rows, int D, const int32_t *token, const sq_real *dx, sq_real *dword,
                      sq_real *dposition);

/* ---- pool.c: (nrow,D) -> (nseq,D) ------------------------------------------------------------------------
 */
typedef enum { SQ_POOL_MEAN, SQ_POOL_MAX, SQ_POOL_SUM, SQ_POOL_CLS, SQ_POOL_LAST, SQ_POOL_NONE } sq_pooling;
/* SQ_POOL_MEAN is over the real steps of a sequence (rows->len) where they are told apart from padding.
   argmax (nseq,D) is written for SQ_POOL_MAX only (first maximum). */
void sq_nn_pool(sq_pooling how, const sq_rows *rows, int D, const sq_real *x, sq_real *y, int *argmax);
void sq_nn_pool_back(sq_pooling how, const sq_rows *rows, int D, const sq_real *dy, const int *argmax,
                     sq_real *dx);

/* The rows whose label counts (at most cap): their numbers and steps, the first of each sequence in off (nseq+1), as
   in sq_wanted, and their labels in kept; returns how many there are. */
int sq_nn_list_labelled(const sq_rows *rows, const int32_t *label, int cap, int *row, int *step, int *off,
                        int32_t *kept);
/* y (n,D) = rows row[0..n-1] of x. */
void sq_nn_gather_rows(int D, int n, const int *row, const sq_real *x, sq_real *y);
/* Its transpose: x (R,D) is zero but for rows row[0..n-1], which are those of y. */
void sq_nn_scatter_rows(int R, int D, int n, const int *row, const sq_real *y, sq_real *x);
/* The same, added to x. */
void sq_nn_add_rows(int D, int n, const int *row, const sq_real *y, sq_real *x);

/* ---- xent.c: softmax cross-entropy ------------------------------------------------------------------------
 */
typedef struct {
  double loss_sum;       /* nats, summed over counted labels */
  long nlabel, ncorrect; /* counted labels; labels that are the first maximum of the logits */
} sq_tally;
/* logits (R,V) are overwritten by scale * dloss/dlogits (grad != 0) or left (grad == 0).  Rows whose label is
   SQ_IGNORE give zero gradient.  The tally is added to. */
void sq_nn_xent(int R, int V, sq_real *logits, const int32_t *label, double scale, int grad, sq_tally *tally);
/* Output layer and loss fused: logits = x W^T + b (b may be NULL) in blocks of rows that fit `scratch`
   (sq_nn_xent_head_scratch(R,V) elements), never all at once.  dx NULL: evaluation only. */
size_t sq_nn_xent_head_scratch(int R, int V);
void sq_nn_xent_head(int R, int D, int V, const sq_real *x, const sq_real *W, const sq_real *b,
                     const int32_t *label, double scale, sq_real *dx, sq_real *dW, sq_real *db,
                     sq_real *scratch, sq_tally *tally);
/* The same with logits = x K + b, K (D,V). */
void sq_nn_xent_dense_head(int R, int D, int V, const sq_real *x, const sq_real *K, const sq_real *b,
                           const int32_t *label, double scale, sq_real *dx, sq_real *dK, sq_real *db,
                           sq_real *scratch, sq_tally *tally);
/* logits (R,V) become log-probabilities. */
void sq_nn_log_softmax(int R, int V, sq_real *logits);

/* ---- init.c: published initialisers ------------------------------------------------------------------ */
void sq_nn_init_uniform(sq_rng *r, double bound, size_t n, sq_real *x); /* U(-bound, bound) */
void sq_nn_init_normal(sq_rng *r, double std, size_t n, sq_real *x);
void sq_nn_init_constant(double v, size_t n, sq_real *x);
/* Normal, cut off at two standard deviations and scaled to variance 1/fan_in. */
void sq_nn_init_lecun_normal(sq_rng *r, double fan_in, size_t n, sq_real *x);
double sq_nn_truncated_normal(sq_rng *r); /* N(0,1) on [-2,2] */
