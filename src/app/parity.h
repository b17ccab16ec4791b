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
  PARITY_EIGENVALUE, /* |want| and the scale of PARITY_LOG; complex ones: |want| and how badly they are
                        conditioned, see parity_number.spread */
  PARITY_PERCENT,    /* 100, after taking off what values near a threshold may move */
} parity_measure;

typedef enum {
  PARITY_LOGITS,
  PARITY_LOGITS_EVAL,
  PARITY_LOSS,
  PARITY_LOSS_LABELS,
  PARITY_ACTS,
  PARITY_KERNEL,
  PARITY_STATISTICS,
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
  PARITY_OPTAX,
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
  /* Complex eigenvalues: two data sets, <path>_re and <path>_im.  spread (count): how many times the tolerance
     the eigenvalue may be off (at least 1).  set: each row of the last axis is a set, without an order. */
  double *imaginary, *spread; /* owned; NULL: real */
  int set;
} parity_number;

typedef struct {
  const char *path;
  char *name, *config; /* attributes */
  sq_h5 *file;
  sq_experiment *experiment;
  sq_model *model;
  sq_adamw optimiser;
  double lr, ssm_lr;
  int jax;                         /* a family of the published JAX code */
  int B, T, L, per_row, input_dim; /* L: the model's longest sequence; input_dim 0: tokens */
  struct parity_task {             /* what the configuration says of the data; -1: nothing */
    int T, batch, pad, lm, scalar;
  } task;
  int *off, *id, *len; /* len NULL: the model does not look at lengths */
  int32_t *token, *label;
  sq_real *value, *theta;
  sq_batch batch;
  parity_number *number; /* owned list */
  int nnumber, cap;
} parity_case;

sq_status sq_parity_open(const char *path,
                         parity_case *p); /* parameters and inputs checked against the model */
/* Whether an HDF5 file is something else: it has neither a configuration nor the inputs of a case. */
int sq_parity_is_other(const char *path);
void sq_parity_close(parity_case *p);
/* Fills p->number: everything that the layout has for this family. */
sq_status sq_parity_compute(parity_case *p);

/* ---- parts of sq_parity_compute, each adds to p->number ---------------------------------------------- */
/* A zeroed data set; NULL if memory cannot be had (recorded). */
parity_number *sq_parity_add(parity_case *p, parity_quantity q, int ndim, const size_t *dim,
                             const char *path);
/* As sq_parity_add with slack of the same shape; a status, and the number's place (the list moves). */
sq_status sq_parity_add_with_slack(parity_case *p, parity_quantity q, int ndim, const size_t *dim,
                                   const char *path, int *place);
/* parity_eigen.c: layers whose eigenvalues depend on the input.  work: sq_model_work_bytes(). */
sq_status sq_parity_eigenvalues(parity_case *p, void *work);
/* parity_lti.c: time-invariant layers, and their kernels. */
sq_status sq_parity_lti(parity_case *p, void *work);

/* parity_match.c: the largest entry of the best pairing of n rows with n columns: the smallest that any pairing
   can have.  cost (n,n) is 0 or more, or NaN (never paired); INFINITY if no pairing avoids NaN.  SQ_ERR_MEMORY. */
sq_status sq_parity_bottleneck(int n, const double *cost, double *worst);

/* Relative distance at which a value may fall on either side of a bin's threshold: the eigenvalue's tolerance. */
#ifdef SQ_DOUBLE
#define PARITY_NEAR 1e-9
#else
#define PARITY_NEAR 1e-4
#endif
