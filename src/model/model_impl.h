/* src/model/model_impl.h: what a backbone implements. */
#pragma once

#include "sq/base.h"
#include "sq/model.h"

typedef struct {
  const char *name;      /* value of model.layer */
  const sq_keyset *keys; /* owner "model.layer=<name>" */
  sq_status (*create)(const sq_config *c, sq_model_dims d, sq_model **m);
  void (*destroy)(sq_model *m);
  /* Initialises tensor p from its own stream; theta is zero before. */
  void (*init)(const sq_model *m, const sq_param *p, sq_rng *rng, sq_real *theta);
  double (*flops)(const sq_model *m, int nseq, const int *len, long nlabel);
  /* dtheta NULL: forward and tally only.  p->rows is the shard's. */
  void (*run)(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p, double scale,
              void *work, sq_real *dtheta, sq_tally *tally);
  void (*logits)(const sq_model *m, const sq_real *theta, const sq_batch *shard, const sq_pass *p, void *work,
                 sq_real *logits);
  sq_layer_view (*layer)(const sq_model *m, const void *work, int layer);
} sq_backbone_ops;

struct sq_model { /* first member of every backbone's struct */
  const sq_backbone_ops *ops;
  sq_model_dims dims;
  sq_param_list params;
  int width, nlayer, output_dim;
  size_t work_bytes;
  sq_mixer **mixer; /* (nlayer) */
};
