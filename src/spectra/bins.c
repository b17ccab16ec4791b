/* src/spectra/bins.c: shares of eigenvalues by modulus and by phase. */
#include <math.h>

#include "spectra_impl.h"

const double sq_radius_threshold[6] = {0.1, 0.5, 0.9, 1, 10, 100};
const double sq_phase_threshold_deg[5] = {1, 10, 45, 90, 180};

/* A log|lambda| is often a difference of two logarithms of order one, each rounded: what is that near to a
   threshold is on it, and belongs to the bin below.  Otherwise lambda = 9/10 of uniform attention would fall
   on either side. */
#define ON_THRESHOLD (2 * DBL_EPSILON)

/* Bins (a,b]; the first has no lower end. */
static int bin_below(double x, int nthreshold, const double *upper)
{
  int k = 0;
  while (k < nthreshold && x > upper[k]) ++k;
  return k;
}

static void to_percent(int nbin, const size_t *count, size_t n, double *percent)
{
  for (int k = 0; k < nbin; ++k) percent[k] = n > 0 ? 100.0 * (double)count[k] / (double)n : NAN;
}

/* The published rule: both ends closed, so that a value on a threshold counts in two bins; NaN and negatives
   in none, but they stay in n. */
static void count_closed(double x, int nthreshold, const double *threshold, size_t *count)
{
  if (x >= 0 && x <= threshold[0]) ++count[0];
  for (int k = 1; k < nthreshold; ++k)
    if (x >= threshold[k - 1] && x <= threshold[k]) ++count[k];
  if (x > threshold[nthreshold - 1]) ++count[nthreshold];
}

int sq_radius_bin(double log_lambda)
{
  double upper[SQ_NRADIUS - 1];
  for (int k = 0; k < SQ_NRADIUS - 1; ++k) upper[k] = log(sq_radius_threshold[k]) + ON_THRESHOLD;
  return bin_below(log_lambda, SQ_NRADIUS - 1, upper);
}

void sq_bin_modulus_closed(size_t n, const double *modulus, double percent[SQ_NRADIUS])
{
  size_t count[SQ_NRADIUS] = {0};
  for (size_t i = 0; i < n; ++i) count_closed(modulus[i], SQ_NRADIUS - 1, sq_radius_threshold, count);
  to_percent(SQ_NRADIUS, count, n, percent);
}

void sq_bin_radius(size_t n, const double *log_lambda, int closed, double percent[SQ_NRADIUS])
{
  size_t count[SQ_NRADIUS] = {0}, counted = 0;
  double upper[SQ_NRADIUS - 1];
  for (int k = 0; k < SQ_NRADIUS - 1; ++k) upper[k] = log(sq_radius_threshold[k]) + ON_THRESHOLD;
  for (size_t i = 0; i < n; ++i) {
    if (closed) {
      count_closed(exp(log_lambda[i]), SQ_NRADIUS - 1, sq_radius_threshold, count);
      ++counted;
    } else if (!isnan(log_lambda[i])) {
      ++count[bin_below(log_lambda[i], SQ_NRADIUS - 1, upper)];
      ++counted;
    }
  }
  to_percent(SQ_NRADIUS, count, counted, percent);
}

void sq_bin_phase(size_t n, const double *angle_rad, int closed, double percent[SQ_NPHASE])
{
  size_t count[SQ_NPHASE] = {0}, counted = 0;
  double upper[SQ_NPHASE - 1];
  for (int k = 0; k < SQ_NPHASE - 1; ++k) upper[k] = sq_phase_threshold_deg[k] * (1 + ON_THRESHOLD);
  for (size_t i = 0; i < n; ++i) {
    const double degrees = angle_rad[i] * 180 / M_PI;
    if (closed) {
      count_closed(degrees, SQ_NPHASE - 1, sq_phase_threshold_deg, count);
      ++counted;
    } else if (!isnan(degrees)) {
      ++count[bin_below(fabs(degrees), SQ_NPHASE - 1, upper)];
      ++counted;
    }
  }
  to_percent(SQ_NPHASE, count, counted, percent);
}
