/* src/mixer/attention.h: the attention family.  attention.c is the shell that all three share (projection,
 * convolution, heads, output projection); softmax.c, linear.c and norm.c are cores that fill in what happens
 * inside a head.
 *
 *   R rows   D width   H heads   dh = d_qk/H   dv = D/H   T length of one sequence
 *   projected channels (C of them): q, k, v, or v, q, k, n for norm attention
 *
 * Arrays of channels are views into the projected matrix, or into the output of the convolution, never
 * copies.
 *
 * Queries are the rows whose output is wanted (sq_wanted), Q of them; without such a list, all rows.  What belongs to
 * a query (q, n, out, stat and their gradients) stands in the first Q rows of its array, one after the other; k and
 * v are of all rows.  Where q goes through the convolution, its projection and gradient are of all rows too. */
#pragma once

#include "mixer_impl.h"
#include "sq/base.h"
#include "sq/simd.h"

typedef struct sq_attention_core sq_attention_core;

struct sq_mixer {
  struct sq_mixer_head head;
  const sq_attention_core *core;
  int H, dh, dv, dqk, C;
  int q_at, v_at, n_at;  /* first channel of q (k follows it), of v, and of n (-1: none) */
  int K, conv_at, nconv; /* taps of the convolution (0: none), its channels */
  double att_dropout;
  sq_real scale;                                            /* s: scores are s q.k */
  int norm_fn, elu, offset_init;                            /* norm attention; offset_init -1: no offsets */
  size_t W, W_bias, conv, conv_bias, out, out_bias, offset; /* places in theta */
};

typedef struct { /* all for max_rows rows; post only with a convolution */
  sq_real *proj; /* (R,C) */
  sq_real *post; /* (R,nconv) convolved, after SiLU */
  sq_real *out;  /* (Q,D) outputs of the heads, after dropout on outputs */
  sq_real *stat; /* (Q,H) softmax: log-sum-exp of the row's scores; else the factor 1/eta of the row */
} sq_attention_tape;

typedef struct {
  sq_real *s, *ds;          /* tiles of scores and of their gradient */
  sq_real *row;             /* one row: dropout mask, or 2 d_qk channels */
  sq_real *sum;             /* (strip) */
  sq_real *S, *dS, *z, *dz; /* (dh,dv) x 2, (dh) x 2: states between chunks */
} sq_attention_work;

typedef struct { /* one sequence and head */
  int T, ldqk, ldv, ldo, H;
  int n;           /* queries */
  const int *step; /* (n) theirs, ascending; NULL: n == T, query i is step i */
  const sq_real *q, *k, *v;
  sq_real *out;  /* (n,dv), row stride ldo */
  sq_real *stat; /* (n), stride H */
} sq_attention_view;

static inline int sq_attention_step(const sq_attention_view *x, int query)
{
  return x->step ? x->step[query] : query;
}

typedef struct {
  sq_real *dq, *dk, *dv; /* row strides as in the view: ldqk, ldqk, ldv; overwritten */
  const sq_real *dout;   /* (n,dv), stride ldo; times stat unless the core is softmax */
  sq_real *delta;        /* (n), stride H: sum over dv of dout * out; the chunked cores turn it into deta */
} sq_attention_grad;

struct sq_attention_core {
  int weight_dropout; /* att_dropout acts on the weights, inside the core; else the shell applies it to the
                         outputs */
  int exponential;
  void (*work)(const sq_mixer *m, sq_arena *a, sq_attention_work *w);
  double (*flops)(const sq_mixer *m, int T,
                  double share); /* of one head, this share of the steps being queries */
  /* Elementwise work on the projected channels before, and its chain rule after the heads.  NULL: nothing to
   * do. */
  void (*prepare)(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                  sq_real *row);
  void (*finish)(const sq_mixer *m, const sq_real *theta, int R, int Q, const sq_attention_tape *t,
                 const sq_real *delta, sq_real *dproj, sq_real *dpost, sq_real *dtheta);
  void (*forward)(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                  const sq_attention_work *w);
  void (*backward)(const sq_mixer *m, const sq_pass *p, int b, int h, const sq_attention_view *x,
                   const sq_attention_grad *g, const sq_attention_work *w);
  /* log eta (T) in float64, rows taken in the order perm if it is given; r0: the sequence's first row. */
  void (*log_eta)(const sq_mixer *m, const sq_real *theta, const sq_attention_tape *t,
                  const sq_attention_view *x, int r0, int h, const int *perm, double *log_eta);
  /* Protocol `published`: log nu of all heads, stride H, from the projected channels proj (T,C), which may be
   * changed. */
  void (*published)(const sq_mixer *m, const sq_real *theta, int T, sq_real *proj, const sq_attention_work *w,
                    double *log_nu);
};
extern const sq_attention_core sq_core_softmax, sq_core_linear, sq_core_norm;

/* Keys of all attention mixers (owner model.layer=transformer); hung on softmax. */
extern const sq_keyset sq_attention_keys;

/* The members that every sq_mixer_ops of the family shares. */
sq_status sq_attention_create(const sq_config *c, sq_mixer_dims d, const sq_mixer_ops *ops,
                              const sq_attention_core *core, sq_mixer **m);
void sq_attention_destroy(sq_mixer *m);
void sq_attention_params(sq_mixer *m, const char *prefix, sq_param_list *l);
void sq_attention_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta);
size_t sq_attention_tape_bytes(const sq_mixer *m);
size_t sq_attention_scratch_bytes(const sq_mixer *m);
double sq_attention_flops(const sq_mixer *m, int nseq, const int *len);
double sq_attention_flops_wanted(const sq_mixer *m, int nseq, const int *len, double wanted);
void sq_attention_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                          sq_real *y, void *tape, void *scratch);
void sq_attention_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                           const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch);
/* attention_analysis.c */
int sq_attention_heads(const sq_mixer *m);
void sq_attention_factor_dims(const sq_mixer *m, sq_factors *f);
void sq_attention_factors(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const void *tape,
                          int b, int h, const int *perm, sq_factors *f);
void sq_attention_output(const sq_mixer *m, const sq_real *theta, int T, const double *heads, double *y);
size_t sq_attention_published_bytes(const sq_mixer *m);
void sq_attention_published(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const sq_real *x,
                            int b, double *log_lambda, void *scratch);
#define SQ_ATTENTION_OPS                                                                                     \
  .destroy = sq_attention_destroy, .params = sq_attention_params, .tape_bytes = sq_attention_tape_bytes,     \
  .scratch_bytes = sq_attention_scratch_bytes, .flops = sq_attention_flops,                                  \
  .flops_wanted = sq_attention_flops_wanted, .forward = sq_attention_forward,                                \
  .backward = sq_attention_backward, .heads = sq_attention_heads, .factor_dims = sq_attention_factor_dims,   \
  .factors = sq_attention_factors, .output = sq_attention_output,                                            \
  .published_scratch_bytes = sq_attention_published_bytes, .published = sq_attention_published

/* With a NULL base the arena counts: one function plans the tape and takes it. */
sq_attention_tape sq_attention_take_tape(const sq_mixer *m, sq_arena *a);
/* Head h of the sequence that starts at row r0; all its steps are queries. */
sq_attention_view sq_attention_head_view(const sq_mixer *m, const sq_attention_tape *t, int r0, int T, int h);
/* Start of channel c in the array that holds it: post if the convolution makes it, else proj; *ld its row
 * stride. */
sq_real *sq_attention_channel(const sq_mixer *m, sq_real *proj, sq_real *post, int c, int *ld);

/* phi(x) = ELU(x) + 1 in place on q (Q rows) and k (R rows), and its chain rule from the value: phi' = min(phi, 1). */
void sq_attention_phi(const sq_mixer *m, int R, int Q, sq_real *proj, sq_real *post, sq_real *row);
void sq_attention_phi_back(const sq_mixer *m, int R, int Q, const sq_attention_tape *t, sq_real *dproj,
                           sq_real *dpost);

/* ---- chunked.c: out_i = stat_i sum_(j<=i) (s q_i.k_j) v_j in time and memory O(T) -------------------- */
int sq_chunk_rows(const sq_mixer *m);
void sq_chunked_work(const sq_mixer *m, sq_arena *a, sq_attention_work *w);
double sq_chunked_flops(const sq_mixer *m, int T, double share);
/* normalise: stat is an output, 1/sum_(j<=i) (s q_i.k_j); else it is given. */
void sq_chunked_forward(const sq_mixer *m, int normalise, const sq_attention_view *x,
                        const sq_attention_work *w);
void sq_chunked_backward(const sq_mixer *m, int normalise, const sq_attention_view *x,
                         const sq_attention_grad *g, const sq_attention_work *w);
