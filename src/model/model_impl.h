/* src/model/model_impl.h: what a backbone implements. */
#pragma once

#include "sq/base.h"
#include "sq/model.h"

/* How a tensor starts: the backbones' lists of tensors say it, sq_model_init() does it. */
typedef struct {
  enum { SQ_INIT_UNIFORM, SQ_INIT_NORMAL, SQ_INIT_CONSTANT, SQ_INIT_LECUN, SQ_INIT_MIXER } kind;
  double value; /* bound, standard deviation, constant, fan-in */
  int layer;    /* of SQ_INIT_MIXER: whose mixer starts it */
} sq_init_rule;

typedef struct {
  const char *name; /* value of model.layer; "ssm": the names of the mixers of this backbone are the values */
  const sq_keyset *keys; /* owner "model.layer=<name>"; of "ssm": "model.layer=<mixer>|<mixer>..." */
  sq_status (*create)(const sq_config *c, sq_model_dims d, sq_model **m);
  void (*destroy)(sq_model *m);
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
  size_t *start;         /* (nlayer + 1), see sq_model_layer_start() */
  sq_init_rule *rule;    /* (nrule) of params, in their order */
  int nrule;
  int nsync, nsum; /* set by create; 0: sequences do not see each other */
  size_t nderived; /* set by sq_model_create() with the mixers' derived_at */
};

/* ---- build.c: what the backbones' create and destroy share -------------------------------------------- */
#define SQ_NOWHERE ((size_t)-1)
typedef struct {
  size_t weight, bias; /* places in theta; SQ_NOWHERE: absent */
  int in, out;
} sq_linear_place;

/* The rule of every tensor that has none yet.  SQ_ERR_MEMORY. */
sq_status sq_model_note_rules(sq_model *m, sq_init_rule rule);
/* Tensor "<prefix>.<name>" (rows, columns), or (rows) if ndim is 1. */
sq_status sq_model_add_tensor(sq_model *m, size_t *place, const char *prefix, const char *name, int ndim,
                              int rows, int columns, sq_init_rule rule);
/* weight and bias uniform in +-1/sqrt(in). */
sq_status sq_model_add_linear(sq_model *m, sq_linear_place *l, const char *prefix, int in, int out, int bias);
/* LayerNorm of the model's width: weight 1, bias 0. */
sq_status sq_model_add_norm(sq_model *m, size_t *weight, size_t *bias, const char *prefix);
/* One mixer a layer, and m->start; m->width, nlayer and dims are set. */
sq_status sq_model_create_mixers(const sq_config *c, const sq_mixer_ops *ops, sq_model *m);
/* Before the tensors of a layer are added, and before those of the head (nlayer). */
void sq_model_begin_layer(sq_model *m, int layer);
/* Tensors of layer's mixer, "<prefix>.<...>". */
sq_status sq_model_add_mixer(sq_model *m, int layer, const char *prefix);
/* Most rows that the head works on at a time. */
int sq_model_head_rows(const sq_model_dims *d, sq_pooling pooling);
/* Mixers, parameters and rules; not m itself. */
void sq_model_release(sq_model *m);

/* ---- labelled.c: the labelled rows of a shard, the only ones that an output layer at each step reads --------- */
typedef struct {
  int *row, *step, *off;
  int32_t *label; /* (n) */
  sq_wanted *list;
  int cap;
} sq_labelled;

/* Room for cap rows; counts with a->base == NULL. */
void sq_labelled_take(sq_arena *a, const sq_model_dims *d, int cap, sq_labelled *l);
void sq_labelled_list(const sq_batch *shard, sq_labelled *l);
/* The pass for the last layer: p, with the labelled rows wanted if they are not all and p does not ask for all. */
sq_pass sq_labelled_pass(const sq_labelled *l, const sq_pass *p);
/* Rows that the last layer makes behind its mixer, for flops(). */
double sq_labelled_rows(const sq_model *m, double rows, long nlabel);
/* Passes of a mixer with y and dy at p->wanted, if that is given, whether the mixer knows it or not.  all (nrow,D):
   overwritten. */
void sq_labelled_mix(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                     void *tape, sq_real *all, void *scratch);
void sq_labelled_mix_back(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, sq_real *all,
                          void *scratch);
double sq_labelled_mix_flops(const sq_mixer *m, int nseq, const int *len, double rows, double wanted);
