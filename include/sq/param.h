/* include/sq/param.h: the names and places of a model's parameters in its one flat vector theta.
 *
 * Optimiser, checkpoint, parity and gradient test walk this list; nothing else lists tensors. */
#pragma once

#include <stddef.h>

enum {
  SQ_PARAM_NO_DECAY =
      1,                /* no weight decay in recipe `corrected` (1-d tensors, offsets, A, D, dt_bias, ...) */
  SQ_PARAM_RE_IM = 2,   /* the last axis of size 2 is (re, im) */
  SQ_PARAM_COMPLEX = 4, /* with RE_IM: one complex number to the optimiser (S4's P and B), not two reals */
  SQ_PARAM_SSM = 8,     /* recipe `corrected`: rate ssm_lr, no decay */
  SQ_PARAM_SSM_PUBLISHED = 16, /* recipe `published`, JAX family: rate ssm_lr, no decay */
  SQ_PARAM_BUFFER =
      32, /* not trained: running statistics.  Its part of the gradient holds the batch's value, and
                           the step moves it: r = 0.99 r + 0.01 value */
};
#define SQ_PARAM_NAME 96

typedef struct {
  char name[SQ_PARAM_NAME]; /* the published state_dict name */
  int ndim, dim[3];
  size_t offset, count; /* in theta */
  unsigned flags;
} sq_param;

typedef struct {
  sq_param *v; /* owned */
  int n, cap;
  size_t total; /* length of theta; each tensor starts at a multiple of 16 elements, gaps are zero */
} sq_param_list;

/* Appends a tensor and returns its offset in theta.  dims beyond ndim are ignored.  One-dimensional tensors
   get SQ_PARAM_NO_DECAY by themselves. */
size_t sq_param_add(sq_param_list *l, unsigned flags, int ndim, const int dim[], const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
const sq_param *sq_param_find(const sq_param_list *l, const char *name); /* NULL if absent */
void sq_param_clear(sq_param_list *l);
