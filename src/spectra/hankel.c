/* src/spectra/hankel.c: the state that is really used: singular values of the past-to-future block.
 *
 * At cut t the block is O K, O (T-t, n) and K (n, t):
 *     O_i = exp(log_c_i + sum_(l=t..i) log lambda_l) c_i          i = t .. T-1
 *     K_j = exp(log_b_j + sum_(l=j+1..t-1) log lambda_l) b_j      j = 0 .. t-1
 * With O = Q R_o and K^T = Q' R_c its singular values are those of R_o R_c^T (n,n).  They carry an error of
 * about n eps |R_o| |R_c|; the product of the Gramians R_o^T R_o would lose everything below sqrt(eps)
 * sigma_1. Rank and entropy of this block: effective state size, Parnichkun et al., ICML 2025,
 * arXiv:2504.19561. */
#include <math.h>
#include <string.h>

#include "spectra_impl.h"
#include "sq/linalg.h"

#define BLOCK 64 /* rows that join the triangle at a time */

void sq_hankel_take(sq_arena *a, const sq_factors *f, sq_hankel_scratch *s)
{
  const size_t T = (size_t)f->T, n = (size_t)f->n;
  memset(s, 0, sizeof *s);
  if (f->exponential) {
    const int half = f->T / 2, rest = f->T - half;
    s->prefix.hi = SQ_TAKE(a, T, double);
    s->prefix.lo = SQ_TAKE(a, T, double);
    s->prefix.start = SQ_TAKE(a, T, int);
    s->stack = SQ_TAKE(a, (size_t)half * (size_t)rest, double); /* t (T-t) is largest in the middle */
    s->sigma = SQ_TAKE(a, (size_t)half, double);
    /* the work of a block that is less square is not guaranteed to be less: take the most of all cuts */
    size_t most = 0;
    for (int t = 1; t < f->T; ++t) {
      const size_t need = sq_svd_work(f->T - t, t);
      if (need > most) most = need;
    }
    s->work = SQ_TAKE(a, most, double);
    return;
  }
  const size_t qr = sq_qr_work(f->n + BLOCK, f->n), svd = sq_svd_work(f->n, f->n);
  s->weight = SQ_TAKE(a, T, double);
  s->stack = SQ_TAKE(a, (n + BLOCK) * n, double);
  s->Ro = SQ_TAKE(a, n * n, double);
  s->Rc = SQ_TAKE(a, n * n, double);
  s->prod = SQ_TAKE(a, n * n, double);
  s->sigma = SQ_TAKE(a, n, double);
  s->work = SQ_TAKE(a, qr > svd ? qr : svd, double);
}

static double log_norm(const double *x, int n)
{
  double top = 0, sum = 0;
  for (int k = 0; k < n; ++k) top = fmax(top, fabs(x[k]));
  if (top == 0) return -INFINITY;
  for (int k = 0; k < n; ++k) sum += (x[k] / top) * (x[k] / top);
  return log(top) + 0.5 * log(sum);
}

/* Triangle R (n,n) of the m rows x_first, x_(first+step), ..., row r times exp(log_w[r]) and over all
   exp(-top), where top, returned, is the log of the longest row.  -inf: all rows are zero, and so is R. */
static sq_status triangle(const double *x, int n, int first, int step, int m, const double *log_w, double *R,
                          sq_hankel_scratch *s, double *top)
{
  const size_t nn = (size_t)n;
  int in_stack = 0; /* rows of R that wait in the stack */
  *top = -INFINITY;
  memset(R, 0, nn * nn * sizeof *R);
  for (int r = 0; r < m; ++r) {
    const double norm = log_norm(x + (size_t)(first + r * step) * nn, n);
    *top = fmax(*top, isinf(norm) ? norm : log_w[r] + norm);
  }
  if (isinf(*top)) return SQ_OK;
  for (int r0 = 0; r0 < m; r0 += BLOCK) {
    const int r1 = r0 + BLOCK < m ? r0 + BLOCK : m;
    memcpy(s->stack, R, (size_t)in_stack * nn * sizeof *R);
    for (int r = r0; r < r1; ++r) {
      const double *row = x + (size_t)(first + r * step) * nn, norm = log_norm(row, n);
      double *to = s->stack + (size_t)(in_stack + r - r0) * nn;
      /* unit row times its relative length, which is at most 1: no overflow, and underflow only of what is
       * negligible */
      const double half = isinf(norm) ? 0 : exp(0.5 * (log_w[r] + norm - *top));
      for (int k = 0; k < n; ++k) to[k] = isinf(norm) ? 0 : row[k] * exp(-norm) * half * half;
    }
    const sq_status st = sq_qr_r(in_stack + r1 - r0, n, s->stack, R, s->work);
    if (st != SQ_OK) return st;
    in_stack = n;
  }
  return SQ_OK;
}

static sq_status hankel_finite(const sq_factors *f, int t, sq_hankel_scratch *s, int *nsigma,
                               double *log_sigma1)
{
  const int n = f->n, T = f->T;
  const size_t nn = (size_t)n;
  double top_o, top_c, sum = 0;
  sq_status st;

  for (int i = t; i < T; ++i) {
    sum += f->log_lambda[i];
    s->weight[i - t] = sum + f->log_c[i];
  }
  SQ_TRY(triangle(f->c, n, t, 1, T - t, s->weight, s->Ro, s, &top_o));
  sum = 0;
  for (int j = t - 1; j >= 0; --j) {
    s->weight[t - 1 - j] = sum + f->log_b[j];
    if (j > 0) sum += f->log_lambda[j];
  }
  SQ_TRY(triangle(f->b, n, t - 1, -1, t, s->weight, s->Rc, s, &top_c));

  sq_dgemm(SQ_N, SQ_T, n, n, n, 1, s->Ro, n, s->Rc, n, 0, s->prod, n);
  double top = 0;
  for (size_t k = 0; k < nn * nn; ++k) top = fmax(top, fabs(s->prod[k]));
  if (top > 0)
    for (size_t k = 0; k < nn * nn; ++k) s->prod[k] /= top;
  SQ_TRY(sq_svd_values(n, n, s->prod, s->sigma, s->work));
  *log_sigma1 = log(s->sigma[0]) + log(top) + top_o + top_c;
  *nsigma = n < t ? n : t;
  if (*nsigma > T - t) *nsigma = T - t;
done:
  return st;
}

static sq_status hankel_unrolled(const sq_factors *f, int t, sq_hankel_scratch *s, int *nsigma,
                                 double *log_sigma1)
{
  const int rows = f->T - t;
  const size_t all = (size_t)rows * (size_t)t;
  double top = -INFINITY;
  sq_status st;
  sq_prefix_fill(f, &s->prefix);
  sq_log_matrix(f, &s->prefix, t, f->T, 0, t, s->stack, t);
  for (size_t k = 0; k < all; ++k) top = fmax(top, s->stack[k]);
  for (size_t k = 0; k < all; ++k) s->stack[k] = isinf(top) ? 0 : exp(s->stack[k] - top);
  SQ_TRY(sq_svd_values(rows, t, s->stack, s->sigma, s->work));
  *log_sigma1 = log(s->sigma[0]) + top;
  *nsigma = t < rows ? t : rows;
done:
  return st;
}

sq_status sq_hankel_with(const sq_factors *f, int t, sq_hankel_scratch *s, int *nsigma, double *log_sigma1)
{
  SQ_ASSERT(t >= 1 && t < f->T);
  const sq_status st = f->exponential ? hankel_unrolled(f, t, s, nsigma, log_sigma1)
                                      : hankel_finite(f, t, s, nsigma, log_sigma1);
  if (st != SQ_OK) return st;
  const double first = s->sigma[0];
  if (first > 0)
    for (int k = 0; k < *nsigma; ++k) s->sigma[k] /= first;
  return SQ_OK;
}

sq_status sq_factors_hankel(const sq_factors *f, int t, double *sigma, int *nsigma, double *log_sigma1)
{
  sq_arena a = {0};
  sq_hankel_scratch s;
  sq_status st;
  if (!sq_factors_finite(f)) return sq_fail(SQ_ERR_DATA, "Hankel singular values: a factor is not finite");
  sq_hankel_take(&a, f, &s);
  SQ_TRY(sq_arena_create(&a, a.used, "Hankel singular values"));
  sq_hankel_take(&a, f, &s);
  SQ_TRY(sq_hankel_with(f, t, &s, nsigma, log_sigma1));
  memcpy(sigma, s.sigma, (size_t)*nsigma * sizeof *sigma);
done:
  sq_arena_destroy(&a);
  return st;
}

/* exp of the entropy of p / sum p, p = sigma^power */
static double entropy_size(int n, const double *sigma, int power)
{
  double total = 0, entropy = 0;
  for (int k = 0; k < n; ++k) total += power == 1 ? sigma[k] : sigma[k] * sigma[k];
  if (total == 0) return 0;
  for (int k = 0; k < n; ++k) {
    const double p = (power == 1 ? sigma[k] : sigma[k] * sigma[k]) / total;
    if (p > 0) entropy -= p * log(p);
  }
  return exp(entropy);
}

void sq_effective_state_size(int n, const double *sigma, double size[3])
{
  int rank = 0;
  for (int k = 0; k < n; ++k)
    if (sigma[k] > 0 && sigma[k] >= SQ_RANK_TOLERANCE * sigma[0]) ++rank;
  size[0] = rank;
  size[1] = entropy_size(n, sigma, 1);
  size[2] = entropy_size(n, sigma, 2);
}
