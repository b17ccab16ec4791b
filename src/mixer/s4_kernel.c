/* src/mixer/s4_kernel.c: the kernel and its gradient; the formulas are in s4.h.
 *
 * One channel at a time and frequencies in blocks: scratch grows with N and with L, never with their product. */
#include <math.h>
#include <string.h>

#include "s4.h"

enum {
  BLOCK = 256, /* frequencies */
  LANES = 8,   /* partial sums over frequencies */
};

/* Block arrays of the four sums: real and imaginary parts. */
enum { CB_RE, CB_IM, CP_RE, CP_IM, PB_RE, PB_IM, PP_RE, PP_IM, NSUM };
/* Arrays over the states: the weights conj(x_n) y_n (that of PP is real), then -Re(lam) and Im(lam). */
enum { DAMPING = PP_IM, FREQUENCY, NSTATE };
/* Gradients of the states: of the weights, of lam, and of log_step, state by state. */
enum { G_RE = PP_IM, G_IM, G_STEP, NGRAD };

typedef struct {
  double *w[NSTATE], *g[NGRAD]; /* (N) each */
  double *S[NSUM], *G[NSUM];    /* (BLOCK) each: the sums and their gradients */
  double *a;                    /* (BLOCK) (2/step) s */
  double *F_re, *F_im;          /* (L) */
  double *spectrum, *kernel;    /* (L/2+1, 2), (L) */
  size_t ld;                    /* stride of L */
  sq_real *rows;                /* (SLICE, ld) kernels of a slice */
  sq_real *padded, *padspec;    /* (n), (n/2+1, 2) of the full plan */
} work;

static work take_work(const sq_mixer *m, sq_arena *a)
{
  const size_t N = (size_t)m->N, L = (size_t)m->L;
  const sq_fft *full = sq_s4_full(m);
  work w = {.ld = sq_s4_stride(m->L)};
  for (int i = 0; i < NSTATE; ++i) w.w[i] = SQ_TAKE(a, N, double);
  for (int i = 0; i < NGRAD; ++i) w.g[i] = SQ_TAKE(a, N, double);
  for (int i = 0; i < NSUM; ++i) w.S[i] = SQ_TAKE(a, BLOCK, double);
  for (int i = 0; i < NSUM; ++i) w.G[i] = SQ_TAKE(a, BLOCK, double);
  w.a = SQ_TAKE(a, BLOCK, double);
  w.F_re = SQ_TAKE(a, L, double);
  w.F_im = SQ_TAKE(a, L, double);
  w.spectrum = SQ_TAKE(a, L + 2, double);
  w.kernel = SQ_TAKE(a, L, double);
  w.rows = SQ_TAKE(a, SQ_S4_SLICE * w.ld, sq_real);
  if (full) {
    w.padded = SQ_TAKE(a, sq_fft_length(full), sq_real);
    w.padspec = SQ_TAKE(a, sq_s4_spectrum(full), sq_real);
  }
  return w;
}

static size_t lane_bytes(const sq_mixer *m)
{
  sq_arena count = {0};
  (void)take_work(m, &count);
  return count.used;
}

size_t sq_s4_kernel_scratch(const sq_mixer *m)
{
  return (size_t)sq_s4_nlane(m) * lane_bytes(m);
}

/* Of derive(): 22 for each state and frequency (loop `cauchy`). */
double sq_s4_kernel_flops(const sq_mixer *m)
{
  const double L = m->L, fft = sq_s4_full(m) ? sq_fft_length(sq_s4_full(m)) : 1;
  return m->head.dims.D * (22.0 * m->N * L + 40 * L + 2.5 * L * log2(L + 1) + 2.5 * fft * log2(fft));
}

/* ---- states ------------------------------------------------------------------------------------------- */

typedef struct { /* what a state has in one channel: places in theta */
  size_t lam, z;
} place;

static place place_of(const sq_mixer *m, int n, int d)
{
  const size_t i = (size_t)n * (size_t)m->head.dims.D + (size_t)d;
  return (place){i, 2 * i};
}

static void load_states(const sq_mixer *m, const sq_real *theta, int d, work *w)
{
  for (int n = 0; n < m->N; ++n) {
    const place i = place_of(m, n, d);
    const sq_real *C = theta + m->C + i.z, *P = theta + m->P + i.z, *B = theta + m->B + i.z;
    const double cr = (double)C[0], ci = (double)C[1], pr = (double)P[0], pi = (double)P[1],
                 br = (double)B[0], bi = (double)B[1];
    const sq_real re = theta[m->Lambda_re + i.lam];
    w->w[CB_RE][n] = cr * br + ci * bi;
    w->w[CB_IM][n] = cr * bi - ci * br;
    w->w[CP_RE][n] = cr * pr + ci * pi;
    w->w[CP_IM][n] = cr * pi - ci * pr;
    w->w[PB_RE][n] = pr * br + pi * bi;
    w->w[PB_IM][n] = pr * bi - pi * br;
    w->w[PP_RE][n] = pr * pr + pi * pi;
    w->w[DAMPING][n] = -(double)sq_s4_clamped(re);
    w->w[FREQUENCY][n] = (double)theta[m->Lambda_im + i.lam];
  }
}

/* Chain rule of load_states(). */
static void store_gradients(const sq_mixer *m, const sq_real *theta, int d, const work *w, sq_real *dtheta)
{
  double dstep = 0;
  for (int n = 0; n < m->N; ++n) {
    const place i = place_of(m, n, d);
    const sq_real *C = theta + m->C + i.z, *P = theta + m->P + i.z, *B = theta + m->B + i.z;
    sq_real *dC = dtheta + m->C + i.z, *dP = dtheta + m->P + i.z, *dB = dtheta + m->B + i.z;
    const double cr = (double)C[0], ci = (double)C[1], pr = (double)P[0], pi = (double)P[1],
                 br = (double)B[0], bi = (double)B[1];
    const double cbr = w->g[CB_RE][n], cbi = w->g[CB_IM][n], cpr = w->g[CP_RE][n], cpi = w->g[CP_IM][n];
    const double pbr = w->g[PB_RE][n], pbi = w->g[PB_IM][n], pp = w->g[PP_RE][n];
    dC[0] += (sq_real)(cbr * br + cbi * bi + cpr * pr + cpi * pi);
    dC[1] += (sq_real)(cbr * bi - cbi * br + cpr * pi - cpi * pr);
    dB[0] += (sq_real)(cbr * cr - cbi * ci + pbr * pr - pbi * pi);
    dB[1] += (sq_real)(cbr * ci + cbi * cr + pbr * pi + pbi * pr);
    dP[0] += (sq_real)(cpr * cr - cpi * ci + pbr * br + pbi * bi + 2 * pp * pr);
    dP[1] += (sq_real)(cpr * ci + cpi * cr + pbr * bi - pbi * br + 2 * pp * pi);
    if (sq_s4_clamped(theta[m->Lambda_re + i.lam]) == theta[m->Lambda_re + i.lam])
      dtheta[m->Lambda_re + i.lam] += (sq_real)w->g[G_RE][n];
    dtheta[m->Lambda_im + i.lam] += (sq_real)w->g[G_IM][n];
    dstep += w->g[G_STEP][n];
  }
  dtheta[m->log_step + (size_t)d] += (sq_real)dstep;
}

/* ---- a block of frequencies ---------------------------------------------------------------------------- */

static void load_block(const sq_mixer *m, double step, int k0, int n, work *w)
{
  for (int k = 0; k < n; ++k) w->a[k] = 2 / step * m->sine[k0 + k];
}

/* 1/(i a - lam c) = (re - i im) of  re = -Re(lam) c |.|^-2,  im = (a - Im(lam) c) |.|^-2. */
#define RESOLVENT(damping, frequency)                                                                        \
  const double x = (damping)*c[k];                                                                           \
  const double y = a[k] - (frequency)*c[k];                                                                  \
  const double q = 1 / (x * x + y * y), re = x * q, im = y * q;

/* S[.] += the states' terms */
static SQ_CLONES void cauchy(int N, int n, const double *const w[NSTATE], const double *restrict c,
                             const double *restrict a, double *restrict cbr, double *restrict cbi,
                             double *restrict cpr, double *restrict cpi, double *restrict pbr,
                             double *restrict pbi, double *restrict ppr, double *restrict ppi)
{
  for (int s = 0; s < N; ++s) {
    const double damping = w[DAMPING][s], frequency = w[FREQUENCY][s], pp = w[PP_RE][s];
    const double br = w[CB_RE][s], bi = w[CB_IM][s], pr = w[CP_RE][s], pi = w[CP_IM][s];
    const double qr = w[PB_RE][s], qi = w[PB_IM][s];
    for (int k = 0; k < n; ++k) {
      RESOLVENT(damping, frequency)
      cbr[k] += br * re + bi * im;
      cbi[k] += bi * re - br * im;
      cpr[k] += pr * re + pi * im;
      cpi[k] += pi * re - pr * im;
      pbr[k] += qr * re + qi * im;
      pbi[k] += qi * re - qr * im;
      ppr[k] += pp * re;
      ppi[k] -= pp * im;
    }
  }
}

static void sum_states(const sq_mixer *m, int k0, int n, const work *w)
{
  for (int i = 0; i < NSUM; ++i) memset(w->S[i], 0, (size_t)n * sizeof(double));
  cauchy(m->N, n, (const double *const *)w->w, m->cosine + k0, w->a, w->S[CB_RE], w->S[CB_IM], w->S[CP_RE],
         w->S[CP_IM], w->S[PB_RE], w->S[PB_IM], w->S[PP_RE], w->S[PP_IM]);
}

/* F = (c + i s) [CB - c CP PB/(1 + c PP)] */
static SQ_CLONES void combine(int n, const double *restrict c, const double *restrict s,
                              double *const S[NSUM], double *restrict F_re, double *restrict F_im)
{
  for (int k = 0; k < n; ++k) {
    const double zr = 1 + c[k] * S[PP_RE][k], zi = c[k] * S[PP_IM][k], q = c[k] / (zr * zr + zi * zi);
    const double tr = S[CP_RE][k] * S[PB_RE][k] - S[CP_IM][k] * S[PB_IM][k];
    const double ti = S[CP_RE][k] * S[PB_IM][k] + S[CP_IM][k] * S[PB_RE][k];
    const double fr = S[CB_RE][k] - (tr * zr + ti * zi) * q, fi = S[CB_IM][k] - (ti * zr - tr * zi) * q;
    F_re[k] = c[k] * fr - s[k] * fi;
    F_im[k] = c[k] * fi + s[k] * fr;
  }
}

/* Gradients of the four sums from that of F, (h_re, h_im). */
static SQ_CLONES void combine_back(int n, const double *restrict c, const double *restrict s,
                                   double *const S[NSUM], const double *restrict h_re,
                                   const double *restrict h_im, double *const G[NSUM])
{
  for (int k = 0; k < n; ++k) {
    const double hr = c[k] * h_re[k] + s[k] * h_im[k], hi = c[k] * h_im[k] - s[k] * h_re[k];
    const double zr = 1 + c[k] * S[PP_RE][k], zi = c[k] * S[PP_IM][k], q = -c[k] / (zr * zr + zi * zi);
    /* e = -c/(1 + c PP);  dF/dCP = e PB, dF/dPB = e CP, dF/dPP = e^2 CP PB */
    const double er = zr * q, ei = -zi * q;
    const double ar = er * S[PB_RE][k] - ei * S[PB_IM][k], ai = er * S[PB_IM][k] + ei * S[PB_RE][k];
    const double br = er * S[CP_RE][k] - ei * S[CP_IM][k], bi = er * S[CP_IM][k] + ei * S[CP_RE][k];
    const double pr = ar * br - ai * bi, pi = ar * bi + ai * br;
    G[CB_RE][k] = hr;
    G[CB_IM][k] = hi;
    G[CP_RE][k] = ar * hr + ai * hi;
    G[CP_IM][k] = ar * hi - ai * hr;
    G[PB_RE][k] = br * hr + bi * hi;
    G[PB_IM][k] = br * hi - bi * hr;
    G[PP_RE][k] = pr * hr + pi * hi;
    G[PP_IM][k] = pr * hi - pi * hr;
  }
}

/* Sums over the block's frequencies for one state.  r = re - i im:
 *   dL/dw = sum conj(r) G,  dL/dr = conj(w) G summed over the four,  dL/dlam = c conj(r^2) dL/dr,
 *   dL/dlog_step = a Im(conj(r^2) dL/dr)   (a is proportional to 1/step). */
#define STATE_TERMS(acc)                                                                                     \
  RESOLVENT(damping, frequency)                                                                              \
  const double gbr = G[CB_RE][k], gbi = G[CB_IM][k], gpr = G[CP_RE][k], gpi = G[CP_IM][k];                   \
  const double gqr = G[PB_RE][k], gqi = G[PB_IM][k], gsr = G[PP_RE][k], gsi = G[PP_IM][k];                   \
  const double rr = re * re - im * im, ri = 2 * re * im; /* conj(r^2) */                                     \
  const double dr = br * gbr + bi * gbi + pr * gpr + pi * gpi + qr * gqr + qi * gqi + pp * gsr;              \
  const double di = br * gbi - bi * gbr + pr * gpi - pi * gpr + qr * gqi - qi * gqr + pp * gsi;              \
  const double tr = rr * dr - ri * di, ti = rr * di + ri * dr;                                               \
  acc(CB_RE, re *gbr - im * gbi);                                                                            \
  acc(CB_IM, re *gbi + im * gbr);                                                                            \
  acc(CP_RE, re *gpr - im * gpi);                                                                            \
  acc(CP_IM, re *gpi + im * gpr);                                                                            \
  acc(PB_RE, re *gqr - im * gqi);                                                                            \
  acc(PB_IM, re *gqi + im * gqr);                                                                            \
  acc(PP_RE, re *gsr - im * gsi);                                                                            \
  acc(G_RE, c[k] * tr);                                                                                      \
  acc(G_IM, c[k] * ti);                                                                                      \
  acc(G_STEP, a[k] * ti)

static SQ_CLONES void cauchy_back(int N, int n, const double *const w[NSTATE], const double *restrict c,
                                  const double *restrict a, const double *const G[NSUM],
                                  double *const g[NGRAD])
{
  for (int s = 0; s < N; ++s) {
    const double damping = w[DAMPING][s], frequency = w[FREQUENCY][s], pp = w[PP_RE][s];
    const double br = w[CB_RE][s], bi = w[CB_IM][s], pr = w[CP_RE][s], pi = w[CP_IM][s];
    const double qr = w[PB_RE][s], qi = w[PB_IM][s];
    double lane[NGRAD][LANES] = {{0}}, rest[NGRAD] = {0};
    int k0 = 0;
    for (; k0 + LANES <= n; k0 += LANES)
      for (int l = 0; l < LANES; ++l) {
        const int k = k0 + l;
#define TO_LANE(i, value) lane[i][l] += (value)
        STATE_TERMS(TO_LANE);
      }
    for (int k = k0; k < n; ++k) {
#define TO_REST(i, value) rest[i] += (value)
      STATE_TERMS(TO_REST);
    }
    for (int i = 0; i < NGRAD; ++i) {
      for (int l = 0; l < LANES; ++l) rest[i] += lane[i][l];
      g[i][s] += rest[i];
    }
  }
}

/* ---- one channel ---------------------------------------------------------------------------------------- */

static double step_of(const sq_mixer *m, const sq_real *theta, int d)
{
  return exp((double)theta[m->log_step + (size_t)d]);
}

static int block_size(const sq_mixer *m, int k0)
{
  return m->L - k0 < BLOCK ? m->L - k0 : BLOCK;
}

/* w->kernel (L) of channel d. */
static void channel_kernel(const sq_mixer *m, const sq_real *theta, int d, work *w)
{
  const int L = m->L;
  load_states(m, theta, d, w);
  for (int k0 = 0; k0 < L; k0 += BLOCK) {
    const int n = block_size(m, k0);
    load_block(m, step_of(m, theta, d), k0, n, w);
    sum_states(m, k0, n, w);
    combine(n, m->cosine + k0, m->sine + k0, w->S, w->F_re + k0, w->F_im + k0);
  }
  const double half = 0.5 / L;
  for (int k = 0; k <= L / 2; ++k) {
    const int mirror = k == 0 ? 0 : L - k;
    w->spectrum[2 * k] = half * (w->F_re[k] + w->F_re[mirror]);
    w->spectrum[2 * k + 1] = half * (w->F_im[k] - w->F_im[mirror]);
  }
  sq_dfft_backward(m->kernel_fft, w->spectrum, w->kernel);
}

/* Gradient of all F from that of the kernel, w->kernel (destroyed): dL/dF_k = (1/L) sum_j dK_j exp(-2 pi i jk/L). */
static void spectrum_gradient(const sq_mixer *m, work *w)
{
  const int L = m->L;
  const double scale = 1.0 / L;
  sq_dfft_forward(m->kernel_fft, w->kernel, w->spectrum);
  for (int k = 0; k <= L / 2; ++k) {
    const int mirror = k == 0 ? 0 : L - k;
    w->F_re[k] = w->F_re[mirror] = scale * w->spectrum[2 * k];
    w->F_im[mirror] = -scale * w->spectrum[2 * k + 1];
    w->F_im[k] = scale * w->spectrum[2 * k + 1];
  }
}

static void channel_gradient(const sq_mixer *m, const sq_real *theta, int d, work *w, sq_real *dtheta)
{
  load_states(m, theta, d, w);
  spectrum_gradient(m, w);
  for (int i = 0; i < NGRAD; ++i) memset(w->g[i], 0, (size_t)m->N * sizeof(double));
  for (int k0 = 0; k0 < m->L; k0 += BLOCK) {
    const int n = block_size(m, k0);
    load_block(m, step_of(m, theta, d), k0, n, w);
    sum_states(m, k0, n, w);
    combine_back(n, m->cosine + k0, m->sine + k0, w->S, w->F_re + k0, w->F_im + k0, w->G);
    cauchy_back(m->N, n, (const double *const *)w->w, m->cosine + k0, w->a, (const double *const *)w->G,
                w->g);
  }
  store_gradients(m, theta, d, w, dtheta);
}

/* ---- all channels ---------------------------------------------------------------------------------------- */

/* Spectrum of the kernel, padded to the full plan's length. */
static void kernel_spectrum(const sq_mixer *m, const sq_real *kernel, const work *w, sq_real *spectrum)
{
  const sq_fft *full = sq_s4_full(m);
  const size_t L = (size_t)m->L, n = (size_t)sq_fft_length(full);
  memcpy(w->padded, kernel, L * sizeof *kernel);
  memset(w->padded + L, 0, (n - L) * sizeof *kernel);
  sq_fft_forward(full, w->padded, w->padspec);
  memcpy(spectrum, w->padspec, sq_s4_spectrum(full) * sizeof *spectrum);
}

/* Its chain rule: dL/dK_j = sum_k Re(dL/dX_k exp(2 pi i jk/n)) over the half spectrum, added to w->kernel. */
static void kernel_spectrum_back(const sq_mixer *m, const sq_real *dspectrum, const work *w)
{
  const sq_fft *full = sq_s4_full(m);
  const size_t count = sq_s4_spectrum(full), n = (size_t)sq_fft_length(full);
  for (size_t i = 0; i < count; ++i) w->padspec[i] = dspectrum[i] / 2;
  w->padspec[0] *= 2;
  if (n % 2 == 0) w->padspec[n] *= 2;
  sq_fft_backward(full, w->padspec, w->padded);
  for (int j = 0; j < m->L; ++j) w->kernel[j] += (double)w->padded[j];
}

static void derive_slice(const sq_mixer *m, const sq_real *theta, sq_real *derived, int d0, work *w)
{
  const int D = m->head.dims.D, nc = D - d0 < SQ_S4_SLICE ? D - d0 : SQ_S4_SLICE;
  const size_t count = sq_s4_spectrum(sq_s4_full(m));
  sq_real *K = derived + (size_t)d0 * sq_s4_derived_of_channel(m), *spectra = K + (size_t)m->L * (size_t)nc;
  for (int c = 0; c < nc; ++c) {
    sq_real *kernel = w->rows + (size_t)c * w->ld;
    channel_kernel(m, theta, d0 + c, w);
    for (int j = 0; j < m->L; ++j) kernel[j] = (sq_real)w->kernel[j];
    if (count > 0) kernel_spectrum(m, kernel, w, spectra + (size_t)c * count);
  }
  sq_s4_from_rows(m->L, nc, w->rows, w->ld, K, (size_t)nc);
}

static void derive_slice_back(const sq_mixer *m, const sq_real *theta, const sq_real *dderived,
                              sq_real *dtheta, int d0, work *w)
{
  const int D = m->head.dims.D, nc = D - d0 < SQ_S4_SLICE ? D - d0 : SQ_S4_SLICE;
  const size_t count = sq_s4_spectrum(sq_s4_full(m));
  const sq_real *dK = dderived + (size_t)d0 * sq_s4_derived_of_channel(m);
  const sq_real *spectra = dK + (size_t)m->L * (size_t)nc;
  sq_s4_to_rows(m->L, nc, dK, (size_t)nc, w->rows, w->ld);
  for (int c = 0; c < nc; ++c) {
    const sq_real *dkernel = w->rows + (size_t)c * w->ld;
    for (int j = 0; j < m->L; ++j) w->kernel[j] = (double)dkernel[j];
    if (count > 0) kernel_spectrum_back(m, spectra + (size_t)c * count, w);
    channel_gradient(m, theta, d0 + c, w, dtheta);
  }
}

/* Slices of channels, dealt out to lanes of work space. */
typedef struct {
  const sq_mixer *m;
  int first, end;                  /* slices */
  const sq_real *theta, *dderived; /* dderived NULL: derive */
  sq_real *out;                    /* derived, or dtheta */
  void *scratch;
} lanes;

static void run_lane(void *ctx, int lane)
{
  const lanes *l = ctx;
  sq_arena a = sq_s4_arena((char *)l->scratch + (size_t)lane * lane_bytes(l->m));
  work w = take_work(l->m, &a);
  for (int i = l->first + lane; i < l->end; i += SQ_LANES)
    if (l->dderived == NULL)
      derive_slice(l->m, l->theta, l->out, i * SQ_S4_SLICE, &w);
    else
      derive_slice_back(l->m, l->theta, l->dderived, l->out, i * SQ_S4_SLICE, &w);
}

void sq_s4_derive(const sq_mixer *m, const sq_real *theta, int first, int end, sq_real *derived,
                  void *scratch)
{
  lanes l = {.m = m, .first = first, .end = end, .theta = theta, .out = derived, .scratch = scratch};
  sq_parallel_blocks(sq_min(sq_s4_nlane(m), end - first), run_lane, &l);
}

void sq_s4_derive_back(const sq_mixer *m, const sq_real *theta, int first, int end, const sq_real *derived,
                       const sq_real *dderived, sq_real *dtheta, void *scratch)
{
  lanes l = {m, first, end, theta, dderived, dtheta, scratch};
  (void)derived;
  sq_parallel_blocks(sq_min(sq_s4_nlane(m), end - first), run_lane, &l);
}
