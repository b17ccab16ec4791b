/* src/mixer/mamba2.h: the two mixers of the Mamba-2 family, models/mamba.py of the published study.  mamba2.c is
 * the shell that both share (projection, convolution, steps dt, output projection) and the mixer "mamba2";
 * mamba2_lti.c is "mamba2-lti"; ssd.c is the recurrence.
 *
 *   R rows   D width   E = expansion D inner width   H heads of hd = E/H channels   N state size
 *   projected channels (C of them): x (E), B (N), C (N), dt (H, or 1 shared by the heads); the convolution takes
 *   the first E + 2N */
#pragma once

#include "mixer_impl.h"
#include "sq/simd.h"
#include "ssd.h"

typedef struct mamba_kind mamba_kind;

struct sq_mixer {
  struct sq_mixer_head head;
  const mamba_kind *kind;
  int E, H, hd, N, C, K; /* K taps of the convolution, 0: none */
  int ndt, nconv;        /* channels of dt; E + 2N */
  int chunk;
  double dt_min, dt_max;                                           /* of the initialisation */
  size_t dt_bias, decay, skip, in_proj, conv, conv_bias, out_proj; /* places in theta; decay: A_log or A */
};

/* With a list of wanted rows (sq_wanted) out, its gradient and the channels C behind the convolution, with their
   gradient, are of these rows, one after the other. */
typedef struct {   /* all for max_rows rows; post only with a convolution */
  sq_real *proj;   /* (R,C) */
  sq_real *post;   /* (R,nconv) after SiLU */
  sq_real *dt;     /* (R,H) */
  sq_real *lambda; /* (R,H) */
  sq_real *out;    /* (R,E) outputs of the heads */
} mamba_tape;

typedef struct {
  sq_ssd_work ssd;
  sq_real *b;       /* (R,N) B as the recurrence takes it, where that is not the channels themselves */
  sq_real *db;      /* (R,N) its gradient */
  sq_real *dout;    /* (R,E) */
  sq_real *dproj;   /* (R,C) */
  sq_real *dpost;   /* (R,nconv) */
  sq_real *ddt;     /* (R,H) */
  sq_real *dlambda; /* (R,H) gradient of log lambda */
  sq_real *e;       /* (R,H) */
  double *sum;      /* (H) */
} mamba_scratch;

/* What sets the mixers apart. */
struct mamba_kind {
  int shared_dt;            /* one channel of dt for all heads, and B'_t = dt_t B_t in place of dt_t x_t */
  const char *decay_name;   /* parameter that makes the decay */
  int decay_first;          /* it stands before D in the list of parameters */
  double (*draw)(double u); /* its initial value from u ~ U(0,1) */
  /* log lambda in the step dt is -dt rate, or -rate where decay does not depend on dt */
  double (*rate)(double decay);
  double (*rate_slope)(double decay); /* d rate / d decay */
};

/* Channels of a view or its gradient: x and B and C behind it, and the row stride. */
sq_real *sq_mamba_channels(const sq_mixer *m, sq_real *proj, sq_real *post, int *ld);
mamba_tape sq_mamba_take_tape(const sq_mixer *m, sq_arena *a);
/* n = R H steps dt = softplus(x) from x, the sums of dt_raw and dt_bias, in place. e (n): exp(-|x|) after it. */
void sq_mamba_softplus(size_t n, sq_real *x, sq_real *e);
/* x (R,H) = dt_raw + dt_bias, dt_raw in channels `at` .. of rows with stride ld. */
void sq_mamba_dt_sums(const sq_mixer *m, const sq_real *theta, int R, const sq_real *raw, int ld, sq_real *x);

sq_status sq_mamba_create(const sq_config *c, sq_mixer_dims d, const sq_mixer_ops *ops,
                          const mamba_kind *kind, sq_mixer **m);
void sq_mamba_destroy(sq_mixer *m);
void sq_mamba_params(sq_mixer *m, const char *prefix, sq_param_list *l);
void sq_mamba_init(const sq_mixer *m, const sq_param *p, sq_rng *rng, sq_real *theta);
size_t sq_mamba_tape_bytes(const sq_mixer *m);
size_t sq_mamba_scratch_bytes(const sq_mixer *m);
double sq_mamba_flops(const sq_mixer *m, int nseq, const int *len);
double sq_mamba_flops_wanted(const sq_mixer *m, int nseq, const int *len, double wanted);
void sq_mamba_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                      void *tape, void *scratch);
void sq_mamba_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                       const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch);
/* mamba2_analysis.c */
int sq_mamba_heads(const sq_mixer *m);
void sq_mamba_factor_dims(const sq_mixer *m, sq_factors *f);
void sq_mamba_factors(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const void *tape, int b,
                      int h, const int *perm, sq_factors *f);
void sq_mamba_output(const sq_mixer *m, const sq_real *theta, int T, const double *heads, double *y);
size_t sq_mamba_published_bytes(const sq_mixer *m);
void sq_mamba_published(const sq_mixer *m, const sq_real *theta, const sq_rows *rows, const sq_real *x, int b,
                        double *log_lambda, void *scratch);

/* Keys of both (owner model.layer=mamba). */
extern const sq_keyset sq_mamba_keys;

#define SQ_MAMBA_OPS                                                                                         \
  .backbone = "mamba", .keys = &sq_mamba_keys, .destroy = sq_mamba_destroy, .params = sq_mamba_params,       \
  .init = sq_mamba_init, .tape_bytes = sq_mamba_tape_bytes, .scratch_bytes = sq_mamba_scratch_bytes,         \
  .flops = sq_mamba_flops, .flops_wanted = sq_mamba_flops_wanted, .forward = sq_mamba_forward,               \
  .backward = sq_mamba_backward, .heads = sq_mamba_heads, .factor_dims = sq_mamba_factor_dims,               \
  .factors = sq_mamba_factors, .output = sq_mamba_output,                                                    \
  .published_scratch_bytes = sq_mamba_published_bytes, .published = sq_mamba_published
