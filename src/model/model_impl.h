/* src/model/model_impl.h: what a backbone implements. */
#pragma once

#include "sq/base.h"
#include "sq/model.h"

typedef struct {
  const char *name; /* value of model.layer; "ssm": the names of the mixers of this backbone are the values */
  const sq_keyset *keys; /* owner "model.layer=<name>"; of "ssm": "model.layer=<mixer>|<mixer>..." */
  sq_status (*create)(const sq_config *c, sq_model_dims d, sq_model **m);
  void (*destroy)(sq_model *m);
  /* Initialises tensor p from its own stream; theta is zero before. */
  void (*init)(const sq_model *m, const sq_param *p, sq_rng *rng, sq_real *theta);
  double (*flops)(const sq_model *m, int nseq, const int *len, long nlabel);
  /* As sq_model_segment(); work: the shard's.  p->rows is the shard's. */
  void (*run)(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p, double scale,
              int k, double *sum, void *work, sq_real *dtheta, sq_tally *tally);
  /* p->train: with the shard's own statistics. */
  void (*logits)(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p, void *work,
                 sq_real *logits);
  sq_layer_view (*layer)(const sq_model *m, const void *work, int layer);
  /* Only with nsync > 0: as sq_model_segment_ranges() and sq_model_statistics(). */
  int (*ranges)(const sq_model *m, int k, size_t range[2][2]);
  void (*statistics)(const sq_model *m, int k, const double *sum, sq_real *gradient);
} sq_backbone_ops;

struct sq_model { /* first member of every backbone's struct */
  const sq_backbone_ops *ops;
  sq_model_dims dims;
  sq_param_list params;
  int width, nlayer, output_dim;
  int log_probabilities; /* what logits() gives; set by create */
  size_t work_bytes;     /* of a shard, set by create */
  sq_mixer **mixer;      /* (nlayer) */
  int nsync, nsum;       /* set by create; 0: sequences do not see each other */
  size_t nderived;       /* set by sq_model_create() with the mixers' derived_at */
};
