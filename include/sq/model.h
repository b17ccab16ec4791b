/* include/sq/model.h: a backbone (embedding, blocks with a mixer each, head) over one flat parameter vector.
 *
 * A backbone is one file src/model/<name>.c and one line in src/model/model_list.h; it is selected by
 * `model.layer`. A model holds no numbers: theta, gradients and the workspace are the caller's, so one model
 * serves many. */
#pragma once

#include "sq/batch.h"
#include "sq/mixer.h"

typedef struct sq_model sq_model;

typedef struct {
  int seq_len;            /* longest sequence the model will see */
  int max_rows, max_seqs; /* of a shard */
  int max_labels;         /* labelled rows of a shard (label_per_row) */
  int label_per_row;      /* language-model task: output at each labelled step */
  int dual;               /* sequences come in pairs (sq/batch.h); a sequence alone has no output */
  int all_logits;         /* 1: sq_model_logits() will be called (parity): room for all logits of a shard */
} sq_model_dims;

/* Keys of model.*: for the schema.  Fills at most cap pointers, returns how many there are. */
int sq_model_keysets(const sq_keyset **set, int cap);

/* SQ_ERR_USAGE for a configuration that cannot be built, SQ_ERR_MEMORY. */
sq_status sq_model_create(const sq_config *c, sq_model_dims d, sq_model **m);
void sq_model_destroy(sq_model **m);

const sq_param_list *sq_model_params(const sq_model *m);
/* Published initialisation: tensor number k draws from stream SQ_STREAM_INIT, index k.  theta
 * (params->total). */
void sq_model_init(const sq_model *m, uint64_t seed, sq_real *theta);
/* Forward FLOPs (multiply-add = 2) for sequences of these lengths with nlabel labelled rows (or sequences), as
   training needs them: what is behind the last layer's mixer counts for labelled rows only. */
double sq_model_flops(const sq_model *m, int nseq, const int *len, long nlabel);
int sq_model_output_dim(const sq_model *m);
/* 1: what sq_model_logits() gives are log-probabilities, as the published JAX models' output. */
int sq_model_log_probabilities(const sq_model *m);

/* ---- one shard alone ------------------------------------------------------------------------------------
 * For tests, analyses and evaluation.  Statistics over the batch (BatchNorm) are those of the shard. */
/* Workspace (derived quantities, activations, tapes, scratch); 64-byte aligned. */
size_t sq_model_work_bytes(const sq_model *m);
/* Loss gradient: dtheta (params->total) is added to with weight `scale` on the summed loss, the tally with the
   shard's sums. */
void sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                       double scale, void *work, sq_real *dtheta, sq_tally *tally);
/* Loss and accuracy without a gradient; p NULL: evaluation mode (no dropout, running statistics). */
void sq_model_loss(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                   void *work, sq_tally *tally);
void sq_model_evaluate(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                       sq_tally *tally); /* sq_model_loss with p NULL */
/* Logits: (nrow, output_dim) if label_per_row, else (nseq, output_dim), of pairs (nseq/2, output_dim).  p NULL: evaluation mode. */
void sq_model_logits(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                     void *work, sq_real *logits);

/* ---- a batch in shards ----------------------------------------------------------------------------------
 * What follows from theta alone (kernels, discretised matrices) is derived once for a theta:
 *
 *     derive;  the shards' segments, p->derived set, p->dderived in backward ones;  derive_back
 *
 * Gradient vectors then have sq_model_ngradient() elements: params->total, and behind them the gradient of the
 * derived quantities (p->dderived = dtheta + params->total).
 *
 * Where statistics couple the sequences of a batch (BatchNorm, nsync > 0 times), a training pass is 2 nsync + 1
 * segments: every shard runs segment k before any runs k + 1.  Segments 0 .. nsync-1 are forward and write
 * nsum doubles; the caller adds these over the shards and gives the sums to the next segment of every shard.
 * Segment nsync ends the forward pass, takes the loss and starts the backward pass; the rest is backward, with sums
 * in the same way (the last writes none).  Evaluation mode has one segment, and so has nsync == 0. */
size_t sq_model_nderived(const sq_model *m);
size_t sq_model_ngradient(const sq_model *m);
void sq_model_derive(const sq_model *m, const sq_real *theta, sq_real *derived, void *shard_work);
void sq_model_derive_back(const sq_model *m, const sq_real *theta, const sq_real *derived, sq_real *gradient,
                          void *shard_work);
/* The same layer by layer, and what the layers' calls read and write: their numbers in the derived vector, and the
   parameters of their mixers, to whose gradient derive_back adds. */
typedef struct {
  size_t first, count;
} sq_range;
sq_range sq_model_derived_range(const sq_model *m, int layer);
/* Where the parameters of a layer begin in theta, those of the layers before it and of the encoder being in front;
   layer == number of layers: those of the head. */
size_t sq_model_layer_start(const sq_model *m, int layer);
sq_range sq_model_mixer_range(const sq_model *m, int layer);
/* A layer's derived numbers come in parts, each made by itself (sq_mixer_ops.derived_part): how many, and where in the
   derived vector part `part` begins; the last ends where part == their number would. */
int sq_model_nparts(const sq_model *m, int layer);
size_t sq_model_part_start(const sq_model *m, int layer, int part);
/* Parts first .. end-1. */
void sq_model_derive_layer(const sq_model *m, int layer, int first, int end, const sq_real *theta,
                           sq_real *derived, void *shard_work);
void sq_model_derive_layer_back(const sq_model *m, int layer, int first, int end, const sq_real *theta,
                                const sq_real *derived, sq_real *gradient, void *shard_work);
int sq_model_nsync(const sq_model *m);
int sq_model_nsum(const sq_model *m);
/* Workspace of one shard; sq_model_shard_work: the part of a sq_model_work_bytes() area that serves as one. */
size_t sq_model_shard_bytes(const sq_model *m);
void *sq_model_shard_work(const sq_model *m, void *work);
/* dtheta NULL: no gradient; only segments 0 .. nsync then.  sum (nsum): in, the sums of the segment before;
   out, this shard's part. */
void sq_model_segment(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                      double scale, int k, double *sum, void *shard_work, sq_real *dtheta, sq_tally *tally);
/* Elements of the gradient vector that segment k writes, as at most two ranges {first, count}; returns how
   many. */
int sq_model_segment_ranges(const sq_model *m, int k, size_t range[2][2]);
/* The batch's statistics of sync point k (mean, variance) into the gradient's part of the buffers
   (SQ_PARAM_BUFFER); sum: of all shards. */
void sq_model_statistics(const sq_model *m, int k, const double *sum, sq_real *gradient);

/* What a layer saw and made, in `work`, after sq_model_loss, sq_model_evaluate or sq_model_logits (evaluation-mode
   quantities after sq_model_evaluate and sq_model_logits with p NULL).  Not after sq_model_gradient or
   sq_model_segment: they make the last layer's output for labelled rows only, and derive_back uses the workspace
   again.  Pointers are into work. */
typedef struct {
  const sq_mixer *mixer;
  const void *tape;
  const sq_real *block_in, *mixer_in, *mixer_out, *block_out; /* (nrow, D) */
} sq_layer_view;
int sq_model_nlayer(const sq_model *m);
int sq_model_width(const sq_model *m);
sq_layer_view sq_model_layer(const sq_model *m, const void *work, int layer);
/* Layer's mixer without any workspace (shapes). */
const sq_mixer *sq_model_mixer(const sq_model *m, int layer);
