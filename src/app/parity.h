/* src/app/parity.h: a reference implementation's case, and this program's own numbers for it. */
#pragma once

#include "app.h"
#include "sq/store.h"

/* How a quantity is compared.  The error of an entry is |got - want| divided by ... */
typedef enum {
  PARITY_OWN_SCALE,   /* the largest |want| of its data set */
  PARITY_GROUP_SCALE, /* the largest |want| of its group: a gradient of 1e-12 is rounding where others are 1
                       */
  PARITY_STEP, /* as before; in float32 only where |gradient| > 1e-5: the first Adam step is nearly lr sign(g)
                */
  PARITY_LOG,  /* max(1, largest |logarithm| that the value is a difference of) */
  PARITY_EIGENVALUE, /* |want| and the scale of PARITY_LOG */
  PARITY_PERCENT,    /* 100, after taking off what values near a threshold may move */
} parity_measure;

typedef enum {
  PARITY_LOGITS,
  PARITY_LOSS,
  PARITY_ACTS,
  PARITY_GRADS,
  PARITY_GRAD_NORM,
  PARITY_DSF_LOG,
  PARITY_DSF,
  PARITY_PUBLISHED,
  PARITY_PERCENT_DSF,
  PARITY_PERCENT_PUBLISHED,
  PARITY_ONE_STEP,
  PARITY_THREE_STEPS,
  PARITY_LOSSES,
  PARITY_NQUANTITY
} parity_quantity;

typedef struct { /* one data set of the layout, as this program has it */
  char path[160];
  parity_quantity quantity;
  int ndim;
  size_t dim[8], count;
  double *data;     /* owned */
  double scale;     /* eigenvalues: largest |logarithm| */
  int incomparable; /* this precision cannot have the reference's value */
  double *slack;    /* owned; percent: what may move; after a step: the first gradient; else NULL */
} parity_number;

typedef struct {
  const char *path;
  char *name, *config; /* attributes */
  sq_h5 *file;
  sq_experiment *experiment;
  sq_model *model;
  sq_adamw optimiser;
  double lr;
  int B, T, per_row, input_dim; /* input_dim 0: tokens */
  int *off, *id;
  int32_t *token, *label;
  sq_real *value, *theta;
  sq_batch batch;
  parity_number *number; /* owned list */
  int nnumber, cap;
} parity_case;

sq_status sq_parity_open(const char *path,
                         parity_case *p); /* parameters and inputs checked against the model */
void sq_parity_close(parity_case *p);
/* Fills p->number: everything that the layout has for this family. */
sq_status sq_parity_compute(parity_case *p);
