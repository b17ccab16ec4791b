/* src/spectra/lti_run.c: the analysis of time-invariant layers, from the parameters alone.
 *
 * All eigenvalues of a layer are pooled (S4: of all channels).  What one rounding of the stored parameters does to
 * the shares by modulus is found twice: to first order, as the values that could cross a threshold, and by moving
 * every parameter one unit in the last place in a random direction.  The larger is kept; a share is marked where
 * it exceeds both one value and one percentage point, because the standard error, zero here, says nothing. */
#include <math.h>
#include <string.h>

#include "run_impl.h"
#include "sq/linalg.h"

/* One unit in the last place is at most this part of a number. */
#define ROUNDING ((double)SQ_REAL_EPS)

/* Powers of A cost O(n^3 log T) a channel: where n is above this, only the channels of the Hankel values have
   them. */
enum { MOST_STATES_FOR_ALL_POWERS = 128 };

static int least(int a, int b)
{
  return a < b ? a : b;
}

static sq_lti dims_of(const sq_spectra *s, int layer)
{
  const sq_mixer *m = sq_model_mixer(s->model, layer);
  sq_lti f = {0};
  sq_mixer_get(m)->lti_dims(m, &f);
  return f;
}

/* ---- plan -------------------------------------------------------------------------------------------- */
sq_status sq_lti_plan(sq_spectra *s, const sq_config *c)
{
  s->ls = sq_calloc(1, sizeof *s->ls, "an analysis");
  if (s->ls == NULL) return SQ_ERR_MEMORY;
  s->ls->f = dims_of(s, 0);
  s->ls->f.stop = &s->stop;
  const sq_lti f = s->ls->moved = s->ls->f;
  s->ls->m = s->published ? f.n : f.nsystem * f.n;
  s->nhead = 1;
  if (s->published) return SQ_OK;
  s->exponent = 1;
  s->nmemory = least(1, sq_config_int(c, "analysis.memory_samples"));
  s->nhankel = s->seq_len > 1 ? least(f.nsystem, sq_config_int(c, "analysis.hankel_samples")) : 0;
  s->ncut = s->nhankel > 0 ? sq_config_count(c, "analysis.hankel_cuts") : 0;
  s->ls->channel = sq_calloc((size_t)s->nhankel + 1, sizeof(double), "an analysis");
  if (s->ls->channel == NULL) return SQ_ERR_MEMORY;
  for (int k = 0; k < s->nhankel; ++k) s->ls->channel[k] = (int)((long long)k * f.nsystem / s->nhankel);
  const long long block =
      (long long)(s->seq_len > 1 ? s->seq_len / 2 : 1) * (f.nin > f.nout ? f.nin : f.nout);
  s->nindex = block < 2 * f.n ? (int)block : 2 * f.n;
  return SQ_OK;
}

static size_t largest_of(size_t a, size_t b)
{
  return a > b ? a : b;
}

void sq_lti_scratch_take(sq_spectra *s, sq_arena *a)
{
  sq_lti_scratch *x = s->ls;
  const size_t n = (size_t)x->f.n, m = (size_t)x->m, T = (size_t)s->seq_len;
  sq_lti_take(a, &x->f);
  sq_lti_spectrum_take(a, x->f.n, &x->spectrum);
  x->secular = sq_arena_take(a, sq_secular_bytes(x->f.n), 1);
  x->modulus = SQ_TAKE(a, m, double);
  x->log_lambda = SQ_TAKE(a, m, double);
  x->angle = SQ_TAKE(a, m, double);
  x->lam = SQ_TAKE(a, n, sq_complex);
  x->p = SQ_TAKE(a, n, sq_complex);
  sq_lti_take(a, &x->moved);
  x->mu_moved = SQ_TAKE(a, n, sq_complex);
  x->log_moved = SQ_TAKE(a, m, double);
  x->low = SQ_TAKE(a, m, double);
  x->high = SQ_TAKE(a, m, double);
  x->theta = x->f.dense ? NULL : SQ_TAKE(a, sq_model_params(s->model)->total, sq_real);
  if (s->published) return;
  x->weight = SQ_TAKE(a, m, double);
  x->distance = SQ_TAKE(a, T, double);
  x->energy = SQ_TAKE(a, T, double);
  x->sigma = SQ_TAKE(a, 2 * n, double);
  x->work =
      SQ_TAKE(a, largest_of(sq_lti_energy_work(&x->f), x->f.dense ? sq_lti_power_work(&x->f) : 0), double);
  x->hankel = s->nhankel > 0 ? sq_arena_take(a, sq_lti_hankel_bytes(&x->f), 1) : NULL;
}

/* ---- one rounding ------------------------------------------------------------------------------------ */
static double either(sq_rng *r)
{
  return sq_rng_below(r, 2) ? ROUNDING : -ROUNDING;
}

static sq_complex moved(sq_rng *r, sq_complex x)
{
  const double re = creal(x) * (1 + either(r)), im = cimag(x) * (1 + either(r));
  return re + I * im;
}

/* Dense systems: the same draws for every channel of a layer, as channels start with the same numbers. */
static void move_dense(const sq_spectra *s, int layer)
{
  sq_lti_scratch *x = s->ls;
  sq_rng r;
  sq_rng_init(&r, s->seed, SQ_STREAM_ROUNDING, (uint64_t)layer);
  for (int k = 0; k < x->f.n; ++k) {
    x->moved.lam[k] = moved(&r, x->f.lam[k]);
    x->moved.p[k] = moved(&r, x->f.p[k]);
  }
  const sq_rank_one A = {x->f.n, x->moved.lam, x->moved.p, x->moved.p};
  sq_secular_estimate(&A, &s->stop, x->mu_moved,
                      x->secular); /* its own rounding error is one of float64 parameters */
}

static sq_real next(sq_real x, int up)
{
#ifdef SQ_DOUBLE
  return nextafter(x, up ? INFINITY : -INFINITY);
#else
  return nextafterf(x, up ? INFINITY : -INFINITY);
#endif
}

/* Diagonal layers: eigenvalues are functions of the parameters that only the mixer knows. */
static void move_theta(const sq_spectra *s, const sq_real *theta)
{
  const sq_param_list *l = sq_model_params(s->model);
  sq_rng r;
  sq_rng_init(&r, s->seed, SQ_STREAM_ROUNDING, 1u << 30);
  memcpy(s->ls->theta, theta, l->total * sizeof *theta);
  for (int i = 0; i < l->n; ++i)
    for (size_t k = 0; k < l->v[i].count; ++k) {
      sq_real *value = s->ls->theta + l->v[i].offset + k;
      if (*value != 0) *value = next(*value, (int)sq_rng_below(&r, 2));
    }
}

/* ---- one system -------------------------------------------------------------------------------------- */
static int same_matrix(const sq_lti_scratch *x)
{
  const size_t bytes = (size_t)x->f.n * sizeof *x->lam;
  return memcmp(x->lam, x->f.lam, bytes) == 0 && memcmp(x->p, x->f.p, bytes) == 0;
}

/* Eigenvalues of system k of x->f into x->spectrum; solved: that of the system before is there. */
static void solve(const sq_spectra *s, int layer, int solved)
{
  sq_lti_scratch *x = s->ls;
  if (!(solved && x->f.dense && same_matrix(x))) {
    sq_lti_solve(&x->f, ROUNDING, &x->spectrum, x->secular);
    if (x->f.dense) move_dense(s, layer);
  }
  sq_lti_map(&x->f, ROUNDING, s->store_all && !s->published, &x->spectrum);
  if (!x->f.dense) return;
  memcpy(x->lam, x->f.lam, (size_t)x->f.n * sizeof *x->lam);
  memcpy(x->p, x->f.p, (size_t)x->f.n * sizeof *x->p);
}

static void put_complex(double *to, size_t at, sq_complex z)
{
  to[2 * at] = creal(z);
  to[2 * at + 1] = cimag(z);
}

static void store_eigenvalues(const sq_spectra *s, double *const *out, size_t first)
{
  const sq_lti_spectrum *e = &s->ls->spectrum;
  for (size_t k = 0; k < (size_t)s->ls->f.n; ++k) {
    const size_t at = first + k;
    put_complex(sq_spectra_field(s, out, F_LAMBDA), at, e->lambda[k]);
    sq_spectra_field(s, out, F_LAMBDA_RADIUS)[at] = e->radius[k];
    sq_spectra_field(s, out, F_LAMBDA_CONDITION)[at] = e->condition[k];
    sq_spectra_field(s, out, F_LAMBDA_BACKWARD)[at] = e->backward[k];
    sq_spectra_field(s, out, F_LAMBDA_SENSITIVITY)[at] = e->sensitivity[k];
    sq_spectra_field(s, out, F_LAMBDA_CERTIFIED)[at] = e->certified[k];
  }
}

static double log_size(sq_complex z)
{
  return log(hypot(creal(z), cimag(z)));
}

/* Row norm |B_n| times column norm |C_n|, squared. */
static double gain(const sq_lti *f, int k)
{
  double in = 0, out = 0;
  for (int i = 0; i < f->nin; ++i) in += pow(cabs(f->B[k * f->nin + i]), 2);
  for (int o = 0; o < f->nout; ++o) out += pow(cabs(f->C[o * f->n + k]), 2);
  return in * out;
}

/* sum_(k<T) |lambda|^2k for what does not decay, else to infinity: 1/(1 - |lambda|^2). */
static double duration(double size, int T)
{
  if (size < 1) return 1 / ((1 - size) * (1 + size));
  return size == 1 ? T : (pow(size, 2.0 * T) - 1) / ((size - 1) * (size + 1));
}

/* Eigenvalue k after the random move of the parameters; of dense systems in another order. */
static sq_complex moved_value(const sq_lti_scratch *x, int k)
{
  return x->f.dense ? sq_lti_bilinear(x->f.step * (1 + ROUNDING * log(x->f.step)), x->mu_moved[k])
                    : x->moved.a[k];
}

/* Pools the eigenvalues in x->spectrum as values first .. of the layer. */
static void pool(const sq_spectra *s, size_t first)
{
  sq_lti_scratch *x = s->ls;
  for (int k = 0; k < x->f.n; ++k) {
    const size_t at = first + (size_t)k;
    const sq_complex z = x->spectrum.lambda[k];
    x->modulus[at] = hypot(creal(z), cimag(z));
    x->log_lambda[at] = log(x->modulus[at]);
    x->angle[at] = atan2(cimag(z), creal(z));
    const sq_complex other = moved_value(x, k);
    x->log_moved[at] = log_size(other);
    if (!x->f.dense) x->spectrum.sensitivity[k] = cabs(other - z);
    const double reach = x->spectrum.sensitivity[k];
    x->low[at] = log(fmax(0, x->modulus[at] - reach));
    x->high[at] = log(x->modulus[at] + reach);
    if (s->published) continue;
    x->weight[at] = x->f.dense ? 0 : gain(&x->f, k) * duration(x->modulus[at], s->seq_len);
  }
}

static void quantiles_of_distance(const sq_spectra *s, const double *energy, double *to)
{
  for (int q = 0; q < SQ_NMEMORY; ++q) to[q] = sq_distance_quantile(s->seq_len, energy, sq_memory_level[q]);
}

static void add_energy(const sq_spectra *s, double *const *out, size_t system)
{
  sq_lti_scratch *x = s->ls;
  const int T = s->seq_len;
  memset(x->distance, 0, (size_t)T * sizeof *x->distance);
  sq_lti_energy(&x->f, T, x->distance, x->work);
  for (int d = 0; d < T; ++d) x->energy[d] += x->distance[d];
  if (x->f.dense)
    quantiles_of_distance(s, x->distance, sq_spectra_field(s, out, F_KERNEL_ENERGY) + system * SQ_NMEMORY);
}

static void add_hankel(const sq_spectra *s, double *const *out, int layer, int k)
{
  sq_lti_scratch *x = s->ls;
  for (int c = 0; c < s->ncut; ++c) {
    const int t = s->cut[c] * s->seq_len < 1 ? 1 : (int)floor(s->cut[c] * s->seq_len);
    const size_t place = (size_t)layer * (size_t)s->ncut + (size_t)c,
                 cell = place * (size_t)s->nhankel + (size_t)k;
    int n;
    double log_sigma1;
    if (t >= s->seq_len) continue;
    const sq_status st = sq_lti_hankel(&x->f, s->seq_len, t, x->sigma, &n, &log_sigma1, x->hankel);
    if (st == SQ_STOPPED) return;
    if (st != SQ_OK) {
      sq_error_clear(); /* a missing value */
      continue;
    }
    sq_spectra_field(s, out, F_LOG_SIGMA1)[cell] = log_sigma1;
    memcpy(sq_spectra_field(s, out, F_SIGMA) + cell * (size_t)s->nindex, x->sigma,
           (size_t)least(n, s->nindex) * sizeof *x->sigma);
    sq_spectra_add_sizes(s, out, place, n, x->sigma);
  }
}

static void add_norms(const sq_spectra *s, double *const *out, size_t system)
{
  sq_lti_scratch *x = s->ls;
  sq_spectra_field(s, out, F_NUMERICAL_RADIUS)[system] = sq_lti_numerical_radius(&x->f, x->work);
  sq_spectra_field(s, out, F_POWER_NORM)[system] = sq_lti_power_norm(&x->f, s->seq_len, x->work);
}

/* Which of the Hankel samples system k is, or -1. */
static int hankel_sample(const sq_spectra *s, int k)
{
  for (int i = 0; i < s->nhankel; ++i)
    if ((int)s->ls->channel[i] == k) return i;
  return -1;
}

static sq_status system_dsf(const sq_spectra *s, const sq_real *theta, double *const *out, int layer, int k)
{
  sq_lti_scratch *x = s->ls;
  const sq_mixer *m = sq_model_mixer(s->model, layer);
  const size_t n = (size_t)x->f.n, system = (size_t)layer * (size_t)x->f.nsystem + (size_t)k;
  sq_status st = sq_mixer_get(m)->lti(m, theta, k, &x->f);
  if (st == SQ_OK && !x->f.dense) st = sq_mixer_get(m)->lti(m, x->theta, k, &x->moved);
  if (st != SQ_OK) return st;
  const int sample = hankel_sample(s, k);
  solve(s, layer, k > 0);
  if (sq_spectra_stop(s)) return SQ_STOPPED; /* the values are not eigenvalues */
  pool(s, (size_t)k * n);
  if (s->store_all) store_eigenvalues(s, out, system * n);
  if (s->nmemory > 0) add_energy(s, out, system);
  if (sample >= 0) add_hankel(s, out, layer, sample);
  if (x->f.dense && (x->f.n <= MOST_STATES_FOR_ALL_POWERS || sample >= 0)) add_norms(s, out, system);
  if (sq_spectra_stop(s)) return SQ_STOPPED;
  ++x->done;
  return SQ_OK;
}

/* ---- one layer --------------------------------------------------------------------------------------- */
/* A pooled sample is one sample: its standard deviation is 0. */
static void shares(const sq_spectra *s, double *const *out, int layer)
{
  sq_lti_scratch *x = s->ls;
  double *radius = sq_spectra_field(s, out, F_RADIUS_MEAN) + (size_t)layer * SQ_NRADIUS;
  if (s->published)
    sq_bin_modulus_closed((size_t)x->m, x->modulus, radius);
  else
    sq_bin_radius((size_t)x->m, x->log_lambda, 0, radius);
  sq_bin_phase((size_t)x->m, x->angle, s->published,
               sq_spectra_field(s, out, F_PHASE_MEAN) + (size_t)layer * SQ_NPHASE);
  for (int b = 0; b < SQ_NRADIUS; ++b)
    sq_spectra_field(s, out, F_RADIUS_STD)[(size_t)layer * SQ_NRADIUS + (size_t)b] = 0;
  for (int b = 0; b < SQ_NPHASE; ++b)
    sq_spectra_field(s, out, F_PHASE_STD)[(size_t)layer * SQ_NPHASE + (size_t)b] = 0;
}

/* Values that could leave bin b, or come into it, within what one rounding does to first order. */
static void could_cross(const sq_lti_scratch *x, double count[SQ_NRADIUS])
{
  double in[SQ_NRADIUS] = {0}, away[SQ_NRADIUS] = {0};
  for (int i = 0; i < x->m; ++i) {
    if (isnan(x->log_lambda[i]) || isnan(x->low[i]) || isnan(x->high[i])) continue;
    const int own = sq_radius_bin(x->log_lambda[i]), low = sq_radius_bin(x->low[i]),
              high = sq_radius_bin(x->high[i]);
    if (low != own || high != own) ++away[own];
    for (int b = low; b <= high; ++b)
      if (b != own) ++in[b];
  }
  for (int b = 0; b < SQ_NRADIUS; ++b) count[b] = fmax(in[b], away[b]);
}

static void shifts(const sq_spectra *s, double *const *out, int layer)
{
  const sq_lti_scratch *x = s->ls;
  const double value = 100.0 / x->m, threshold = fmax(value, 1);
  double percent[SQ_NRADIUS], count[SQ_NRADIUS];
  could_cross(x, count); /* then x->high is free */
  if (s->published) {
    for (int i = 0; i < x->m; ++i) x->high[i] = exp(x->log_moved[i]);
    sq_bin_modulus_closed((size_t)x->m, x->high, percent);
  } else {
    sq_bin_radius((size_t)x->m, x->log_moved, 0, percent);
  }
  for (int b = 0; b < SQ_NRADIUS; ++b) {
    const size_t at = (size_t)layer * SQ_NRADIUS + (size_t)b;
    const double by_moving = fabs(percent[b] - sq_spectra_field(s, out, F_RADIUS_MEAN)[at]);
    const double shift = fmax(by_moving, count[b] * value);
    sq_spectra_field(s, out, F_RADIUS_SHIFT)[at] = shift;
    sq_spectra_field(s, out, F_RADIUS_MARKED)[at] = shift > threshold * (1 + 1e-9);
  }
}

static void modal_energy(const sq_spectra *s, double *const *out, int layer)
{
  const sq_lti_scratch *x = s->ls;
  double sum[SQ_NRADIUS] = {0}, total = 0,
         *to = sq_spectra_field(s, out, F_MODAL_ENERGY) + (size_t)layer * SQ_NRADIUS;
  for (int i = 0; i < x->m; ++i) {
    if (isnan(x->log_lambda[i])) continue;
    sum[sq_radius_bin(x->log_lambda[i])] += x->weight[i];
    total += x->weight[i];
  }
  for (int b = 0; b < SQ_NRADIUS; ++b) to[b] = 100 * sum[b] / total; /* NaN: there is no energy */
}

static void pooled(const sq_spectra *s, double *const *out, int layer)
{
  sq_lti_scratch *x = s->ls;
  const double *percent = sq_spectra_field(s, out, F_RADIUS_MEAN) + (size_t)layer * SQ_NRADIUS;
  double entropy = 0, sum = 0;
  for (int i = 0; i < x->m; ++i) sum += x->log_lambda[i];
  sq_spectra_field(s, out, F_EXPONENT)[layer] = sum / x->m;
  sq_spectra_field(s, out, F_HORIZON)[layer] = sum >= 0 ? INFINITY : -x->m / sum;
  sq_spectra_field(s, out, F_ABOVE_ONE)[layer] = (percent[4] + percent[5] + percent[6]) / 100;
  for (int b = 0; b < SQ_NRADIUS; ++b)
    if (percent[b] > 0) entropy -= percent[b] / 100 * log(percent[b] / 100);
  sq_spectra_field(s, out, F_ENTROPY)[layer] = isnan(percent[0]) ? NAN : entropy;
  sq_sort((size_t)x->m, x->log_lambda);
  for (int q = 0; q < SQ_NQUANTILE; ++q)
    sq_spectra_field(s, out, F_QUANTILE)[(size_t)layer * SQ_NQUANTILE + (size_t)q] =
        sq_quantile((size_t)x->m, x->log_lambda, sq_quantile_level[q]);
}

static void hankel_means(const sq_spectra *s, double *const *out, int layer)
{
  for (int c = 0; c < s->ncut; ++c) {
    const size_t place = (size_t)layer * (size_t)s->ncut + (size_t)c;
    int count = 0;
    for (int k = 0; k < s->nhankel; ++k)
      count += !isnan(sq_spectra_field(s, out, F_LOG_SIGMA1)[place * (size_t)s->nhankel + (size_t)k]);
    for (int z = 0; z < SQ_NSIZE; ++z) sq_spectra_field(s, out, F_SIZE_TOLERANCE + z)[place] /= count;
  }
}

static sq_status layer_dsf(const sq_spectra *s, const sq_real *theta, double *const *out, int layer)
{
  sq_lti_scratch *x = s->ls;
  memset(x->energy, 0, (size_t)s->seq_len * sizeof *x->energy);
  for (int k = 0; k < x->f.nsystem; ++k) {
    const sq_status st = system_dsf(s, theta, out, layer, k);
    if (st != SQ_OK) return st;
  }
  shares(s, out, layer);
  shifts(s, out, layer);
  if (!x->f.dense) modal_energy(s, out, layer);
  pooled(s, out, layer); /* sorts the values */
  hankel_means(s, out, layer);
  if (s->nmemory > 0)
    quantiles_of_distance(s, x->energy, sq_spectra_field(s, out, F_MEMORY) + (size_t)layer * SQ_NMEMORY);
  return SQ_OK;
}

static sq_status layer_published(const sq_spectra *s, const sq_real *theta, double *const *out, int layer)
{
  sq_lti_scratch *x = s->ls;
  const sq_mixer *m = sq_model_mixer(s->model, layer);
  const size_t n = (size_t)x->f.n;
  int system = 0;
  if (sq_mixer_get(m)->lti_published(m, theta, x->spectrum.lambda, &system)) {
    const sq_status st = sq_mixer_get(m)->lti(m, theta, system, &x->f);
    if (st != SQ_OK) return st;
    solve(s, layer, 0);
    if (sq_spectra_stop(s)) return SQ_STOPPED;
  } else {
    sq_mixer_get(m)->lti_published(m, x->theta, x->moved.a, &system);
  }
  pool(s, 0);
  if (s->store_all)
    for (size_t k = 0; k < n; ++k)
      put_complex(sq_spectra_field(s, out, F_LAMBDA), (size_t)layer * n + k, x->spectrum.lambda[k]);
  shares(s, out, layer);
  shifts(s, out, layer);
  ++x->done;
  return SQ_OK;
}

static void uniform_null(const sq_spectra *s, double *const *out)
{
  double *log_lambda = s->ls->distance;
  for (int i = 1; i < s->seq_len; ++i) log_lambda[i] = log((double)i / (i + 1));
  sq_bin_radius((size_t)s->seq_len - 1, log_lambda + 1, 0, sq_spectra_field(s, out, F_NULL_UNIFORM));
}

sq_status sq_lti_analyse(sq_spectra *s, const sq_real *theta, double *const *out)
{
  s->ls->done = 0;
  if (!s->published) uniform_null(s, out);
  if (!s->ls->f.dense) move_theta(s, theta);
  for (int l = 0; l < s->nlayer; ++l) {
    if (sq_spectra_stop(s)) return SQ_STOPPED;
    const sq_status st = s->published ? layer_published(s, theta, out, l) : layer_dsf(s, theta, out, l);
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}
