/* src/mixer/ssd.h: the recurrence of Mamba-2 in chunks, as matrix products (state-space duality, Dao and Gu
 * 2024).
 *
 *   S_t = lambda_th S_(t-1) + gain_th B_t x_th^T ,   y_th = S_t^T C_t + skip_h x_th ,   S_-1 = 0
 *
 *   T steps   H heads   hd channels of a head   E = H hd   N state size (B and C are shared by the heads)
 *
 * Time and memory are O(T).  Nothing here allocates.  The threads of the calling group share the chunks. */
#pragma once

#include "sq/base.h"
#include "sq/parallel.h"

typedef struct { /* one sequence */
  int T, H, hd, N;
  int n;                      /* outputs that are wanted: C, y, dC and dy have so many rows */
  const int *step;            /* (n) their steps, ascending; NULL: n == T, all of them */
  int chunk;                  /* steps of a chunk: the result depends on it by rounding only */
  int ldx, ldb, ldc;          /* row strides of x, B, C */
  const sq_real *x, *B, *C;   /* (T,E), (T,N), (n,N) */
  const sq_real *lambda;      /* (T,H), in 0 .. 1 */
  const sq_real *gain, *skip; /* (T,H), NULL: ones; (H) */
} sq_ssd;

typedef struct {
  const sq_real *dy; /* (n,E), row stride ldy */
  int ldy;
  sq_real *dx, *dB, *dC; /* row strides as x, B, C; overwritten */
  sq_real *dlog_lambda;  /* (T,H) overwritten */
  sq_real *dgain;        /* (T,H) overwritten; not touched if gain is NULL */
  double *dskip;         /* (H) added to */
} sq_ssd_grad;

typedef struct {                     /* of the chunks of a lane; L = chunk */
  sq_real *G, *dG, *decay, *M, *dM;  /* (L,L) */
  sq_real *xg, *xs, *dxg, *yp;       /* (L,E) */
  sq_real *U;                        /* (L,N) */
  sq_real *since, *until;            /* (L,H) products of lambda since the chunk's start, until its end */
  sq_real *from_before, *into_after; /* (L,H) what the chunk takes from its start, and leaves at its end */
  sq_real *column;                   /* (L) */
  int *step;                         /* (L) of the outputs, counted from the chunk's start */
  double *dskip;                     /* (H) */
} sq_ssd_lane;
typedef struct {
  sq_ssd_lane lane[SQ_LANES];
  sq_real *S, *dS; /* (chunks - 1, N, E) states between chunks, and their gradients */
  sq_real *across; /* (chunks, H) products of lambda over a chunk */
} sq_ssd_work;

/* Chunk length for sequences of at most seq_len steps. */
int sq_ssd_chunk(int seq_len);
/* For sequences of at most T steps; counts with a->base == NULL. */
sq_ssd_work sq_ssd_take(sq_arena *a, int chunk, int T, int H, int hd, int N);
/* Forward, matrix products only; share of the steps whose output is wanted. */
double sq_ssd_flops(int chunk, int T, int H, int hd, int N, double share);

void sq_ssd_forward(const sq_ssd *s, sq_real *y, int ldy, const sq_ssd_work *w);
void sq_ssd_backward(const sq_ssd *s, const sq_ssd_grad *g, const sq_ssd_work *w);
