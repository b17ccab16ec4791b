/* src/mixer/diagonal.h: mixers whose state is a diagonal complex recurrence, the same at every step.  lru.c and
 * s5.c give the numbers of a state; diagonal.c does everything else.
 *
 *   h_t = lambda h_(t-1) + scale (B u_t),   y_t = factor Re(C h_t) + D u_t,   h_-1 = 0
 *
 *   P states   D width   R rows   K = 2P: real parts of all states, then imaginary parts
 *
 * A second direction (S5's bidirectional) runs the same recurrence from the end of a sequence and has its own P
 * columns of C; such a layer is not causal. */
#pragma once

#include "mixer_impl.h"
#include "sq/base.h"

/* Gradients in a complex number z are dL/dRe z + i dL/dIm z. */
typedef struct {
  /* lambda and scale of state p, from the stored parameters. */
  void (*state)(const sq_mixer *m, const sq_real *theta, int p, sq_complex *lambda, sq_complex *scale);
  /* Adds to dtheta what their gradients mean for the parameters behind them. */
  void (*state_back)(const sq_mixer *m, const sq_real *theta, int p, sq_complex dlambda, sq_complex dscale,
                     sq_real *dtheta);
} sq_diagonal_core;

/* Of a HiPPO matrix: frequency, and what its eigenvector is made from, entry by entry (hippo.h). */
typedef struct {
  double mu;
  sq_complex start, edge, entry;
} sq_hippo_state;

struct sq_mixer {
  struct sq_mixer_head head;
  const sq_diagonal_core *core;
  int P, ndir;   /* ndir 2: both directions */
  int block;     /* rows that are worked on at a time; any number gives the same map */
  double factor; /* 2 if the states stand for conjugate pairs */
  /* Places in theta.  B (P,D) and C (D,ndir P): element k is at re + k stride and im + k stride. */
  size_t B_re, B_im, C_re, C_im, D;
  int stride;
  /* LRU */
  size_t nu, theta, gamma;
  double r_min, r_max, max_phase;
  unsigned published_rate; /* bit k: parameter k of the LRU has rate ssm_lr in recipe `published` */
  /* S5 */
  size_t Lambda_re, Lambda_im, log_step;
  int nblock, block_dim; /* HiPPO matrices at the start, and their size */
  int bilinear, clip, C_init;
  sq_hippo_state *hippo; /* (block_dim) owned; init's work space */
  double dt_min, dt_max;
};

/* Takes D, P and the directions from m and sets what follows from them; m's other fields are the caller's. */
void sq_diagonal_setup(sq_mixer *m);

void sq_diagonal_destroy(sq_mixer *m);
size_t sq_diagonal_tape_bytes(const sq_mixer *m);
size_t sq_diagonal_scratch_bytes(const sq_mixer *m);
double sq_diagonal_flops(const sq_mixer *m, int nseq, const int *len);
size_t sq_diagonal_derived_count(const sq_mixer *m);
void sq_diagonal_derive(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                        void *scratch);
void sq_diagonal_derive_back(const sq_mixer *m, const sq_real *theta, int first, int end,
                             const sq_real *derived, const sq_real *dderived, sq_real *dtheta, void *scratch);
void sq_diagonal_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                         sq_real *y, void *tape, void *scratch);
void sq_diagonal_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch);
/* With two directions: the causal one (and D), which is all of the map that reaches from the past into the
 * future. */
void sq_diagonal_lti_dims(const sq_mixer *m, sq_lti *f);
sq_status sq_diagonal_lti(const sq_mixer *m, const sq_real *theta, int s, sq_lti *f);

#define SQ_DIAGONAL_OPS                                                                                      \
  .destroy = sq_diagonal_destroy, .tape_bytes = sq_diagonal_tape_bytes,                                      \
  .scratch_bytes = sq_diagonal_scratch_bytes, .flops = sq_diagonal_flops, .forward = sq_diagonal_forward,    \
  .backward = sq_diagonal_backward, .derived_count = sq_diagonal_derived_count,                              \
  .derive = sq_diagonal_derive, .derive_back = sq_diagonal_derive_back, .lti_dims = sq_diagonal_lti_dims,    \
  .lti = sq_diagonal_lti
