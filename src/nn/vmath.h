/* src/nn/vmath.h: elementary functions written so that a loop over them becomes vector code: no branch, no
 * table, no call.
 *
 *   exp x      = 2^n e^r,  n = round(x / ln 2),  |r| <= (ln 2)/2,  e^r by its Taylor sum
 *   Phi(x)     = normal distribution function, by Phi(-x) = exp(-x^2/2) g(x) for x >= 0
 *   g(x)       = erfcx(x/sqrt 2)/2: smooth and slowly varying, so Phi keeps its relative accuracy in the
 * lower tail, where 1 + erf would cancel */
#pragma once

#include <stdint.h>

#include "sq/real.h"
#include "sq/simd.h"

#define SQ_INLINE static inline __attribute__((always_inline))

/* Iterations do not depend on each other (arguments are equal or do not overlap). */
#if defined(__clang__)
#define SQ_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define SQ_IVDEP _Pragma("GCC ivdep")
#else
#define SQ_IVDEP
#endif

#ifdef SQ_DOUBLE
typedef uint64_t sq_bits;
#else
typedef uint32_t sq_bits;
#endif
typedef union {
  sq_real f;
  sq_bits u;
} sq_pun;

/* e^(hi+lo), |lo| << 1 (an argument known better than its rounded value).  1 ulp or so; gradual underflow is
   kept: the scale 2^n is applied in two halves.  NaN passes through. */
SQ_INLINE sq_real vexp2(sq_real hi, sq_real lo)
{
#ifdef SQ_DOUBLE
  /* ln 2 in two pieces, the first with 20 trailing zero bits, so that n*c1 is exact for |n| < 2^20. */
  const double magic = 0x1.8p52, c1 = 0x1.62e42feep-1, c2 = 0x1.a39ef35793c76p-33,
               log2e = 0x1.71547652b82fep0;
  const double top = 710, bottom = -746;
  const int mantissa = 52;
  const sq_bits bias = 1023;
#else
  const float magic = 0x1.8p23f, c1 = 0x1.63p-1f, c2 = -0x1.bd0106p-13f, log2e = 0x1.715476p0f;
  const float top = 89, bottom = -104;
  const int mantissa = 23;
  const sq_bits bias = 127;
#endif
  hi = hi > top ? top : hi;
  hi = hi < bottom ? bottom : hi;
  /* Adding 1.5 2^mantissa rounds to an integer and leaves it in the low bits. */
  const sq_pun t = {.f = hi * log2e + magic}, zero = {.f = magic};
  const sq_real n = t.f - magic;
  const sq_real r = ((hi - n * c1) - n * c2) + lo;
#ifdef SQ_DOUBLE
  /* Truncation after r^13: (0.35)^14/14! = 4e-18. */
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
#else
  /* Truncation after r^7: (0.35)^8/8! = 5e-9. */
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
#endif
  p = p * r + (sq_real)0.5;
  p = (p * r) * r + r + 1;
  /* n = n1 + n2; the offset 2048 keeps the logical shift of a negative number right. */
  const sq_bits m = t.u - zero.u;
  const sq_bits n1 = ((m + 2048) >> 1) - 1024, n2 = m - n1;
  const sq_pun s1 = {.u = (n1 + bias) << mantissa}, s2 = {.u = (n2 + bias) << mantissa};
  return p * s1.f * s2.f;
}

SQ_INLINE sq_real vexp(sq_real x)
{
  return vexp2(x, 0);
}

SQ_INLINE sq_real vsigmoid(sq_real x)
{
  return 1 / (1 + vexp(-x));
}

/* exp(-x^2/2) for x >= 0: x = h + l with h of half the digits makes h^2 exact. */
SQ_INLINE sq_real vgauss(sq_real x)
{
  sq_pun h = {.f = x};
#ifdef SQ_DOUBLE
  h.u &= ~(sq_bits)0x7ffffff;
#else
  h.u &= ~(sq_bits)0xfff;
#endif
  return vexp2((sq_real)-0.5 * h.f * h.f, (sq_real)-0.5 * (x - h.f) * (x + h.f));
}

/* (1 + 2z) erfcx(z)/2 as a polynomial in t = (z-a)/(z+a), a = 3.75 (the variable of Shepherd and Laframboise,
   Math. Comp. 36, 1981), z = x/sqrt 2.  Chebyshev fit at 64 nodes with 40 digits, truncated; error below 1e-8
   (float) and 7e-17 (double) of values in 0.5 .. 0.62. */
SQ_INLINE sq_real vmills(sq_real x)
{
  const sq_real z = x * (sq_real)0.70710678118654752440, a = (sq_real)3.75;
  const sq_real t = (z - a) / (z + a);
#ifdef SQ_DOUBLE
  double p = -1.31155367356673788e-9;
  p = p * t - 9.77567943449280827e-10;
  p = p * t + 1.59896333583340215e-8;
  p = p * t + 9.39541161185024063e-9;
  p = p * t - 1.24285631240083714e-7;
  p = p * t - 2.5422326893436511e-8;
  p = p * t + 8.70991079311240796e-7;
  p = p * t - 4.89631285365176102e-7;
  p = p * t - 5.71902401667344678e-6;
  p = p * t + 0.0000111937828574559083;
  p = p * t + 0.0000258232648708870806;
  p = p * t - 0.000145077676230388277;
  p = p * t + 0.000146857189022479015;
  p = p * t + 0.000877813082598532536;
  p = p * t - 0.00487328984163263112;
  p = p * t + 0.0141811386860555694;
  p = p * t - 0.0293466992883246692;
  p = p * t + 0.0461521605821406249;
  p = p * t - 0.0544019650712223064;
  p = p * t + 0.0411383692449975313;
  p = p * t + 0.00179270774273951282;
  p = p * t - 0.0701202992927726281;
  p = p * t + 0.618756315418913764;
#else
  float p = -0.0001120583734f;
  p = p * t + 0.0001981538065f;
  p = p * t + 0.000837956109f;
  p = p * t - 0.00492224743f;
  p = p * t + 0.01420462618f;
  p = p * t - 0.02932342937f;
  p = p * t + 0.0461453848f;
  p = p * t - 0.05440713507f;
  p = p * t + 0.04113920999f;
  p = p * t + 0.001793135197f;
  p = p * t - 0.07012032916f;
  p = p * t + 0.6187563096f;
#endif
  return p / (1 + 2 * z);
}

/* Phi(x); *gauss = exp(-x^2/2). */
SQ_INLINE sq_real vnormal(sq_real x, sq_real *gauss)
{
  const sq_real a = x < 0 ? -x : x;
  const sq_real big = 40; /* beyond, exp(-x^2/2) is 0 in both precisions; keeps t finite for infinite x */
  const sq_real b = a > big ? big : a;
  const sq_real e = vgauss(b), tail = e * vmills(b);
  *gauss = e;
  return x < 0 ? tail : 1 - tail;
}
