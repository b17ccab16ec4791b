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
/* Workspace (activations, tapes, scratch) for one shard; 64-byte aligned. */
size_t sq_model_work_bytes(const sq_model *m);
/* Forward FLOPs (multiply-add = 2) for sequences of these lengths with nlabel labelled rows (or sequences).
 */
double sq_model_flops(const sq_model *m, int nseq, const int *len, long nlabel);

/* Loss gradient of one shard: dtheta (params->total) is added to with weight `scale` on the summed loss
   (1/number of labels of the whole batch), the tally with the shard's sums. */
void sq_model_gradient(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p,
                       double scale, void *work, sq_real *dtheta, sq_tally *tally);
/* Loss and accuracy in evaluation mode. */
void sq_model_evaluate(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                       sq_tally *tally);
/* Logits in evaluation mode: (nrow, output_dim) if label_per_row, else (nseq, output_dim). */
void sq_model_logits(const sq_model *m, const sq_real *theta, const sq_batch *shard, void *work,
                     sq_real *logits);
int sq_model_output_dim(const sq_model *m);

/* What a layer saw and made, in `work`, after any of the calls above (evaluation-mode quantities after
   sq_model_evaluate and sq_model_logits).  Pointers are into work. */
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
