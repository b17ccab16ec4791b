/* src/mixer/s4.h: S4 (Gu, Goel, Re, ICLR 2022), one system with N states, one input and one output for each channel.
 *
 *   D channels   N states   L = dims.seq_len, length of the kernel   T length of one sequence, T <= L
 *
 *     y[t,d] = sum_(j<=t) K[j,d] u[t-j,d] + D[d] u[t,d]
 *
 * The kernel K follows from theta alone: it is the derived quantity.  s4_kernel.c makes it and takes its gradient
 * back, s4_conv.c convolves, s4_analysis.c gives the recurrence that does the same.
 *
 * Kernel.  With lam = min(Lambda_re, -1e-4) + i Lambda_im, w_k = 2 pi k/L, c = cos(w/2), s = sin(w/2) and
 *
 *     S_xy = sum_n conj(x_n) y_n / (i (2/step) s - lam_n c)
 *     F(z_k) = e^(i w/2) [S_CB - c S_CP S_PB / (1 + c S_PP)] ,   z_k = e^(-i w) ,
 *
 * which is the generating function of the published code with its factor 2/(1+z) multiplied out: no frequency is a
 * pole.  K = Re(ifft(F)).  The parameters have no conjugate partners, so F(z_(L-k)) is not conj(F(z_k)); the real part
 * of the kernel has the Hermitian spectrum (F(z_k) + conj(F(z_(L-k))))/2, k = 0..L/2.
 *
 * Precision.  The kernel and its gradient are made in double in both programs, the convolution in sq_real.  Made in
 * float32 (with (2/step) s - Im(lam) c compensated), measured against float64 from the same parameters (N = 64, L = 1024,
 * steps .001 .. .1), the kernel was off by 3e-6 of its maximum at HiPPO initialisation and by 2e-5 with all Re(lam) at the clamp,
 * which would do.  But CB - c CP PB/(1 + c PP) cancels near a resonance: the gradient of log_step lost 2e-4 of its maximum at
 * initialisation, and those of Im(lam) and log_step up to a tenth at the clamp.  In double all of it is below 1e-7, the
 * rounding of what is stored, for 1.4 times the time (AVX-512). */
#pragma once

#include <complex.h>
#include <stdint.h>

#include "mixer_impl.h"
#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/parallel.h"
#include "sq/simd.h"

enum {
  SQ_S4_SLICE = 16, /* channels that are worked on together: a cache line of float32 */
  SQ_S4_PLANS = 80, /* lengths of transforms at most */
};

struct sq_mixer {
  struct sq_mixer_head head;
  int N, L;
  double log_dt_min, log_dt_max;
  int lecun;                                            /* C_init */
  unsigned published_rate;                              /* SQ_PARAM_SSM_PUBLISHED, by tensor */
  size_t Lambda_re, Lambda_im, P, B, C, skip, log_step; /* places in theta */
  double *cosine, *sine;                                /* (L) of w_k/2 */
  sq_dfft *kernel_fft;                                  /* length L */
  sq_fft *plan[SQ_S4_PLANS]; /* convolutions, ascending lengths; the last is `full` */
  int nplan;                 /* 0: every length is convolved directly */
  int longest_direct;        /* longest sequence that is convolved directly */
};

/* Lanes that have a slice. */
static inline int sq_s4_nlane(const sq_mixer *m)
{
  return sq_min(SQ_LANES, (m->head.dims.D + SQ_S4_SLICE - 1) / SQ_S4_SLICE);
}

/* Re lam of a stored Lambda_re, in the kernel and in the recurrence; NaN stays NaN. */
static inline sq_real sq_s4_clamped(sq_real re)
{
  const sq_real most = (sq_real)-1e-4;
  return re > most ? most : re;
}

/* ---- shape ------------------------------------------------------------------------------------------- */

/* Elements from one row of a slice to the next: room for a transform of length n and its spectrum; an odd number of
   cache lines, so that the rows do not fall on the same places of the cache. */
static inline size_t sq_s4_stride(int n)
{
  return (((size_t)n + 2 + 15) / 16 | 1) * 16;
}

/* The transform for a whole sequence of L steps, whose spectra of the kernel are part of `derived`; NULL if there is
   none. */
static inline const sq_fft *sq_s4_full(const sq_mixer *m)
{
  return m->nplan > 0 ? m->plan[m->nplan - 1] : NULL;
}
static inline size_t sq_s4_spectrum(const sq_fft *f) /* sq_reals of one spectrum */
{
  return f ? ((size_t)sq_fft_length(f) / 2 + 1) * 2 : 0;
}
/* derived, of each slice of nc channels in turn: K (L,nc), then the spectra (nc, sq_s4_spectrum) of the kernel padded to
   the full plan's length.  A slice is a part (sq_mixer_ops.derived_part). */
static inline size_t sq_s4_derived_of_channel(const sq_mixer *m)
{
  return (size_t)m->L + sq_s4_spectrum(sq_s4_full(m));
}

/* Arena over memory that is big enough. */
static inline sq_arena sq_s4_arena(void *memory)
{
  return (sq_arena){.base = memory, .used = 0, .cap = SIZE_MAX};
}

/* row[c][t] = x[t, c], c = 0..nc-1, and back; rows of row[] are ldr apart, rows of x are ldx apart. */
void sq_s4_to_rows(int T, int nc, const sq_real *x, size_t ldx, sq_real *row, size_t ldr);
void sq_s4_from_rows(int T, int nc, const sq_real *row, size_t ldr, sq_real *x, size_t ldx);

/* ---- s4_kernel.c -------------------------------------------------------------------------------------- */
size_t sq_s4_kernel_scratch(const sq_mixer *m);
double sq_s4_kernel_flops(const sq_mixer *m);
void sq_s4_derive(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                  void *scratch);
void sq_s4_derive_back(const sq_mixer *m, const sq_real *theta, int first, int end, const sq_real *derived,
                       const sq_real *dderived, sq_real *dtheta, void *scratch);

/* ---- s4_conv.c ---------------------------------------------------------------------------------------- */
sq_status sq_s4_conv_create(sq_mixer *m); /* plans */
size_t sq_s4_conv_scratch(const sq_mixer *m);
double sq_s4_conv_flops(const sq_mixer *m, int T);
/* Index of the plan for sequences of T steps; -1: direct. */
int sq_s4_choose(const sq_mixer *m, int T);
void sq_s4_forward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u, sq_real *y,
                   void *tape, void *scratch);
void sq_s4_backward(const sq_mixer *m, const sq_real *theta, const sq_pass *p, const sq_real *u,
                    const void *tape, const sq_real *dy, sq_real *du, sq_real *dtheta, void *scratch);

/* ---- s4_analysis.c ------------------------------------------------------------------------------------- */
void sq_s4_lti_dims(const sq_mixer *m, sq_lti *f);
sq_status sq_s4_lti(const sq_mixer *m, const sq_real *theta, int s, sq_lti *f);
int sq_s4_lti_published(const sq_mixer *m, const sq_real *theta, sq_complex *lambda, int *system);
