/* include/sq/mixer.h: what lets step t see steps s <= t, behind one table of operations.
 *
 * A mixer maps u (nrow, D), the block's normalised input, to y (nrow, D), its output after the output
 * projection. It owns its parameters (a slice of theta), its tape (what backward needs) and its scratch. Work
 * is cut into fixed blocks of (sequence, head); nothing of size T x T for a whole batch exists.
 *
 *   D width   H heads   n = key size of a head (0: infinite)   dv = value size of a head   T length of a
 * sequence
 *
 * A mixer is one file src/mixer/<name>.c and one line in src/mixer/mixer_list.h. */
#pragma once

#include "sq/config.h"
#include "sq/nn.h"
#include "sq/param.h"

typedef struct sq_mixer sq_mixer; /* defined in src/mixer/mixer_impl.h */

typedef struct {
  int D;        /* width */
  int seq_len;  /* longest sequence */
  int max_rows; /* rows of the largest shard */
  int site;     /* first dropout site of this layer; a mixer may use site .. site+3 */
} sq_mixer_dims;

/* The layer as a linear dynamical system, for one sequence and head, in float64 with the large and small
 * numbers kept as logarithms:
 *
 *     h_i = lambda_i h_(i-1) + B_i v_i^T ,   y_i = h_i^T C_i + skip v_i ,   h_-1 = 0 ,
 *     lambda_i = exp(log_lambda[i]),  B_i = exp(log_b[i]) b[i],  C_i = exp(log_c[i]) c[i].
 *
 * The map is y_i = sum_(j<=i) M_ij v_j with  M_ij = exp(log_c[i] + sum_(l=j+1..i) log_lambda[l] + log_b[j])
 * kappa(c_i, b_j) (plus skip where i = j), kappa the dot product, or exp of it where the state is infinite (softmax: `exponential`).
 * log_lambda[0] multiplies h_-1 = 0: attention has no eigenvalue there (`first` = 1), Mamba-2 has one
 * (`first` = 0). If first == 1, log_lambda[0] is 0 and never counted. */
typedef struct {
  int T, n, dv, first, exponential;
  double *log_lambda; /* (T) */
  double *b, *log_b;  /* (T,n), (T) */
  double *c, *log_c;  /* (T,n), (T) */
  double *v;          /* (T,dv) input of the state, as the layer uses it */
  double *y;          /* (T,dv) the mixer's own output for this head, before the output projection */
  double skip;        /* set by factors(): Mamba-2's D; 0 in attention */
} sq_factors;

/* A layer that is linear and time-invariant, in float64.  It is `nsystem` independent systems (S4: one a
 * channel, with one input and one output; S5, LRU: one, with D inputs and D outputs) of n complex states:
 *
 *     h_i = A h_(i-1) + B u_i ,   y_i = Re(C h_i) + D u_i ,   h_-1 = 0 ,   A = diag(a) - u v^*
 *
 * u and v are NULL where A is diagonal; then a are the eigenvalues.  No conjugates are stored: the factor 2 of
 * a conjugate pair is in C, and the real system has order 2n.  Where A is not diagonal it is the bilinear
 * discretisation (1 + step/2 A_c)(1 - step/2 A_c)^-1 of A_c = diag(lam) - p p^*, so that an eigenvalue mu of
 * A_c gives (1 + step mu/2)/(1 - step mu/2). */
typedef struct {
  int nsystem, n, nin, nout;
  int dense;             /* 1: u, v, lam, p and step are given */
  sq_complex *a, *u, *v; /* (n) each */
  sq_complex *B, *C;     /* (n,nin), (nout,n) */
  double *D;             /* (nout): feeds input k to output k */
  sq_complex *lam, *p;   /* (n) */
  double step;
  const sq_stop *stop; /* or NULL: asked by lti() and by the analyses of the system, which then end early */
} sq_lti;

typedef struct {
  const char *name; /* value of the configuration key that selects it */
  /* Backbone that it belongs to.  Where this is "ssm", `name` is also a value of model.layer. */
  const char *backbone;
  const sq_keyset *keys;

  /* Required.  create: SQ_ERR_USAGE or SQ_ERR_MEMORY. */
  sq_status (*create)(const sq_config *c, sq_mixer_dims d, sq_mixer **m);
  void (*destroy)(sq_mixer *m);
  void (*params)(sq_mixer *m, const char *prefix /* "layers.0.attention" */, sq_param_list *l);
  /* Initialises tensor p (one of those that params() added). */
  void (*init)(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta);
  /* Bytes for a shard of at most dims.max_rows rows. */
  size_t (*tape_bytes)(const sq_mixer *m);
  size_t (*scratch_bytes)(const sq_mixer *m);
  /* Multiply-adds count 2.  Forward only, for sequences of the given lengths; backward is taken as twice
   * that. */
  double (*flops)(const sq_mixer *m, int nseq, const int *len);
  /* theta and dtheta are the whole vectors.  dtheta is added to, y and du are overwritten.
   * p->wanted, where flops_wanted is given: y and dy are (p->wanted->n, D), the wanted rows; only they are made, from
   * all of u, and du is that of all rows.  The tape is then for backward() alone, which gets the same list. */
  void (*forward)(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                  void *tape, void *scratch);
  void (*backward)(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                   const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch);
  /* As flops(), with `wanted` rows wanted in all, taken as spread evenly over the sequences.  NULL: the mixer knows no
     wanted rows, p->wanted is NULL and y and dy have all rows. */
  double (*flops_wanted)(const sq_mixer *m, int nseq, const int *len, double wanted);

  /* What follows from theta alone and is used by every sequence: kernels, discretised matrices.  Made once for
     a batch, in p->derived + head.derived_at during passes; backward passes add its gradient to p->dderived +
     head.derived_at, and derive_back takes that to dtheta (added to) once for a batch.  NULL: there is none.
     scratch: scratch_bytes().
     derived_part: they come in parts of so many, one behind the other, the last perhaps shorter, each made and taken
     back by itself: calls are for parts first .. end-1, and derive_back adds to an element of dtheta in one of the
     parts only, and once unless backward leaves it alone (0 before).  NULL: one part. */
  size_t (*derived_count)(const sq_mixer *m); /* sq_reals */
  size_t (*derived_part)(const sq_mixer *m);
  void (*derive)(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                 void *scratch);
  void (*derive_back)(const sq_mixer *m, const sq_real *theta, int first, int end, const sq_real *derived,
                      const sq_real *dderived, sq_real *dtheta, void *scratch);

  /* Analysis of time-invariant layers; NULL for the others.  lti_dims: nsystem, n, nin, nout, dense.  lti: system
     s from the parameters; arrays of f are the caller's, those that are NULL are not wanted.  lti_published:
     the eigenvalues (n) that the published analysis looks at (protocol `published`).  Returns
     0, or 1 and *system if they are those of one dense system, to be computed from lti(). */
  void (*lti_dims)(const sq_mixer *m, sq_lti *f);
  sq_status (*lti)(const sq_mixer *m, const sq_real *theta, int s, sq_lti *f);
  int (*lti_published)(const sq_mixer *m, const sq_real *theta, sq_complex *lambda, int *system);

  /* Analysis of the others.  heads: groups of eigenvalues in a layer.  factor_dims: n, dv, first, exponential (T
     ignored). */
  int (*heads)(const sq_mixer *m);
  void (*factor_dims)(const sq_mixer *m, sq_factors *f);
  /* Factors of sequence b (0..nseq-1) and head h from the tape of an evaluation-mode forward().  perm (T), or
     NULL: the null model in which step i uses the projected quantities (q, k, n, ...) of step perm[i]. Arrays
     of f are the caller's; those that are NULL are not wanted. */
  void (*factors)(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const void *tape, int b,
                  int h, const int *perm, sq_factors *f);
  /* Mixer output y (T,D) in float64 from the heads' outputs (T, H*dv) (the output projection). */
  void (*output)(const sq_mixer *m, const sq_real *theta, int T, const double *heads, double *y);
  /* Protocol `published`: log|lambda| (T, H) of sequence b from the block's OUTPUT x (nrow,D); row 0 is NaN
     if first == 1. scratch: published_scratch_bytes(). */
  size_t (*published_scratch_bytes)(const sq_mixer *m);
  void (*published)(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const sq_real *x, int b,
                    double *log_lambda, void *scratch);
} sq_mixer_ops;

struct sq_mixer_head { /* first member of every mixer's struct */
  const sq_mixer_ops *ops;
  sq_mixer_dims dims;
  size_t derived_at; /* place of its numbers in the model's derived vector; set by the model */
};
/* ops of a mixer (its struct starts with sq_mixer_head). */
static inline const sq_mixer_ops *sq_mixer_get(const sq_mixer *m)
{
  return ((const struct sq_mixer_head *)(const void *)m)->ops;
}
static inline sq_mixer_dims sq_mixer_shape(const sq_mixer *m)
{
  return ((const struct sq_mixer_head *)(const void *)m)->dims;
}

const sq_mixer_ops *sq_mixer_find(const char *name); /* NULL if unknown */
const sq_mixer_ops *sq_mixer_at(int i);              /* NULL past the end: iterate over the registry */
