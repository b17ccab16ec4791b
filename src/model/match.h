/* src/model/match.h: the head of `dual: true`: one output for a pair of sequences, as Long Range Arena's document matching
 * has it (Tay et al. 2021, arXiv:2011.04006; interaction "NLI" of its code).
 *
 *   f = [a, b, a*b, a-b]                 a, b (D) pooled sequences 2k and 2k+1; * elementwise
 *   logits = Wd relu(Wm relu(We f + be) + bm) + bd        widths M, M/2, classes
 *
 * The two sequences go through the same layers, so nothing before the pooling knows of pairs. */
#pragma once

#include "model_impl.h"

typedef struct {
  sq_linear_place encoder, middle, decoder;
  int D;
} sq_match;

/* Of at most n pairs. */
typedef struct {
  sq_real *f, *df;       /* (n,4D) */
  sq_real *h1, *r1, *d1; /* (n,M) */
  sq_real *h2, *r2, *d2; /* (n,M/2) */
  sq_real *xent;
} sq_match_work;

/* Tensors match.{encoder,middle,decoder}.{weight,bias}; M = hidden. */
sq_status sq_match_add(sq_model *m, sq_match *h, int hidden);
void sq_match_take(const sq_match *h, int n, sq_arena *a, sq_match_work *w);
double sq_match_flops(const sq_match *h); /* of a pair */
/* x (2n,D), logits (n,classes). */
void sq_match_logits(const sq_match *h, const sq_real *theta, int n, const sq_real *x, const sq_match_work *w,
                     sq_real *logits);
/* Loss of n pairs, label (n); with dtheta not NULL also its gradient, that of x in dx. */
void sq_match_loss(const sq_match *h, const sq_real *theta, sq_real *dtheta, int n, const sq_real *x,
                   const int32_t *label, double scale, const sq_match_work *w, sq_real *dx, sq_tally *tally);
