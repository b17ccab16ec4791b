/* src/spectra/spectra.c: one analysis: the sample through the model, one sequence at a time, and the
 * statistics.
 *
 * Protocol `dsf` takes everything from what the layer used; protocol `published` applies the layer's
 * projections to the block's output, on sequences padded with token 0 to the longest of the sample.
 * Time-invariant layers: lti_run.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_impl.h"

/* ---- create ------------------------------------------------------------------------------------------ */
static int least(int a, int b)
{
  return a < b ? a : b;
}

static int most(int a, int b)
{
  return a > b ? a : b;
}

static size_t all_lambda(const sq_spectra *s)
{
  return (size_t)s->nlayer * (size_t)s->nhead * (size_t)s->nsample * (size_t)s->seq_len;
}

/* Largest head of all layers. */
static void largest_factors(sq_spectra *s)
{
  s->f = (sq_factors){.T = s->seq_len};
  for (int l = 0; l < s->nlayer; ++l) {
    const sq_mixer *m = sq_model_mixer(s->model, l);
    sq_factors f = {.T = s->seq_len};
    sq_mixer_get(m)->factor_dims(m, &f);
    s->f.n = most(s->f.n, f.n);
    s->f.dv = most(s->f.dv, f.dv);
    s->f.exponential |= f.exponential;
    s->nhead = most(s->nhead, sq_mixer_get(m)->heads(m));
  }
}

static int first_of(const sq_spectra *s, int layer)
{
  const sq_mixer *m = sq_model_mixer(s->model, layer);
  sq_factors f = {.T = s->seq_len};
  sq_mixer_get(m)->factor_dims(m, &f);
  return f.first;
}

static void take_scratch(sq_spectra *s, sq_arena *a)
{
  if (s->lti) {
    sq_lti_scratch_take(s, a);
    return;
  }
  const size_t T = (size_t)s->seq_len, S = (size_t)s->nsample;
  s->lambda = s->store_all ? NULL : SQ_TAKE(a, all_lambda(s), double);
  s->row = SQ_TAKE(a, T, double);
  s->percent = SQ_TAKE(a, S * SQ_NRADIUS, double);
  s->token = SQ_TAKE(a, T, int32_t);
  s->label = SQ_TAKE(a, T, int32_t);
  s->value = SQ_TAKE(a, T * (size_t)s->input_dim, sq_real);
  if (s->published) {
    size_t bytes = 0;
    for (int l = 0; l < s->nlayer; ++l) {
      const sq_mixer *m = sq_model_mixer(s->model, l);
      const size_t need = sq_mixer_get(m)->published_scratch_bytes(m);
      if (need > bytes) bytes = need;
    }
    s->rows_all = SQ_TAKE(a, T * (size_t)s->nhead, double);
    s->mixer_scratch = sq_arena_take(a, bytes, 1);
    return;
  }
  sq_factors_take(a, &s->f);
  s->perm = SQ_TAKE(a, T, int);
  s->nshuffled = SQ_TAKE(a, (size_t)s->nlayer * (size_t)s->nhead, int);
  s->sorted = SQ_TAKE(a, S * T, double);
  if (s->nmemory > 0) {
    s->energy = SQ_TAKE(a, (size_t)s->nlayer * (size_t)s->nhead * T, double);
    s->distance = SQ_TAKE(a, T, double);
    sq_energy_take(a, &s->f, &s->es);
  }
  if (s->nhankel > 0) sq_hankel_take(a, &s->f, &s->hs);
}

sq_status sq_spectra_create(const sq_config *c, const sq_model *m, const char *protocol, int nsample,
                            int seq_len, sq_spectra **out)
{
  SQ_ASSERT(nsample >= 1 && seq_len >= 1);
  sq_arena plan = {0};
  sq_spectra *s = sq_calloc(1, sizeof *s, "an analysis");
  *out = NULL;
  if (s == NULL) return SQ_ERR_MEMORY;
  s->model = m;
  s->published = strcmp(protocol, "published") == 0;
  SQ_ASSERT(s->published || strcmp(protocol, "dsf") == 0);
  s->store_all = strcmp(sq_config_string(c, "analysis.store"), "all") == 0;
  s->seed = (uint64_t)sq_config_int(c, "seed");
  s->input_dim = sq_config_has(c, "model.input_dim") ? most(1, sq_config_int(c, "model.input_dim")) : 1;
  s->nlayer = sq_model_nlayer(m);
  s->nsample = nsample;
  s->seq_len = seq_len;
  s->lti = sq_mixer_get(sq_model_mixer(m, 0))->lti != NULL;
  if (s->lti) {
    if (sq_lti_plan(s, c) != SQ_OK) {
      sq_spectra_destroy(&s);
      return SQ_ERR_MEMORY;
    }
  } else {
    largest_factors(s);
    for (int l = 0; l < s->nlayer; ++l) s->exponent |= first_of(s, l) == 0;
  }
  if (!s->published && !s->lti) {
    s->nmemory = least(nsample, sq_config_int(c, "analysis.memory_samples"));
    /* a sequence of one step has no past */
    s->nhankel = seq_len > 1 ? least(nsample, sq_config_int(c, "analysis.hankel_samples")) : 0;
    s->ncut = s->nhankel > 0 ? sq_config_count(c, "analysis.hankel_cuts") : 0;
    /* a block of at most seq_len/2 rows or columns; the infinite state keeps its leading values */
    s->nindex = least(s->f.exponential ? 64 : s->f.n, most(1, seq_len / 2));
  }
  s->cut = sq_calloc((size_t)s->ncut, sizeof *s->cut, "an analysis");
  if (s->cut == NULL) {
    sq_spectra_destroy(&s);
    return SQ_ERR_MEMORY;
  }
  for (int i = 0; i < s->ncut; ++i) s->cut[i] = sq_config_real_at(c, "analysis.hankel_cuts", i);
  take_scratch(s, &plan);
  s->bytes = plan.used;
  sq_fields_make(s);
  *out = s;
  return SQ_OK;
}

void sq_spectra_poll(sq_spectra *s, int (*poll)(void *user), void *user)
{
  s->stop = (sq_stop){poll, user};
}

int sq_spectra_nsystem(const sq_spectra *s)
{
  if (!s->lti) return 0;
  return s->nlayer * (s->published ? 1 : s->ls->f.nsystem);
}

int sq_spectra_done(const sq_spectra *s)
{
  return s->lti ? s->ls->done : 0;
}

int sq_spectra_stop(const sq_spectra *s)
{
  return sq_stop_asked(&s->stop);
}

size_t sq_spectra_bytes(const sq_spectra *s)
{
  return s->bytes;
}

/* The scratch is had at the first run: a grid's shapes are planned for cells that another rank, or none, will
 * train. */
static sq_status have_scratch(sq_spectra *s)
{
  if (s->arena.base != NULL) return SQ_OK;
  const sq_status st = sq_arena_create(&s->arena, s->bytes, "an analysis");
  if (st != SQ_OK) return st;
  take_scratch(s, &s->arena);
  return SQ_OK;
}

void sq_spectra_destroy(sq_spectra **s)
{
  if (*s == NULL) return;
  sq_arena_destroy(&(*s)->arena);
  free((*s)->cut);
  if ((*s)->ls != NULL) free((*s)->ls->channel);
  free((*s)->ls);
  free(*s);
  *s = NULL;
}

/* ---- the sample -------------------------------------------------------------------------------------- */
static int length_of(const sq_batch *b, int k)
{
  return b->rows.off[k + 1] - b->rows.off[k];
}

static int longest_of(const sq_batch *b)
{
  int longest = 0;
  for (int k = 0; k < b->rows.nseq; ++k) longest = most(longest, length_of(b, k));
  return longest;
}

/* Sequence k as a batch of its own, with T >= its length steps, the last ones token 0 (or zeros).  Its labels
   are left out: only the layers are looked at, and the output layer is then free. */
static sq_batch one_sequence(sq_spectra *s, const sq_batch *b, int k, int T, int off[2], const int id[1])
{
  const size_t first = (size_t)b->rows.off[k], len = (size_t)length_of(b, k), steps = (size_t)T;
  sq_batch one = *b;
  off[0] = 0;
  off[1] = T;
  one.rows = (sq_rows){.nseq = 1, .nrow = T, .off = off, .id = id};
  for (size_t i = 0; i < steps; ++i) s->label[i] = SQ_IGNORE;
  one.label = s->label;
  if (b->token != NULL) {
    memcpy(s->token, b->token + first, len * sizeof *s->token);
    memset(s->token + len, 0, (steps - len) * sizeof *s->token);
    one.token = s->token;
  } else {
    const size_t dim = (size_t)b->input_dim;
    SQ_ASSERT(b->input_dim <= s->input_dim);
    memcpy(s->value, b->value + first * dim, len * dim * sizeof *s->value);
    memset(s->value + len * dim, 0, (steps - len) * dim * sizeof *s->value);
    one.value = s->value;
  }
  return one;
}

/* ---- one sequence, protocol dsf ---------------------------------------------------------------------- */
double *sq_spectra_field(const sq_spectra *s, double *const *out, sq_field_id id)
{
  SQ_ASSERT(s->place[id] >= 0);
  return out[s->place[id]];
}

static double *lambda_of(const sq_spectra *s, double *const *out, int layer, int head, int k)
{
  double *base = s->store_all ? sq_spectra_field(s, out, F_LOG_LAMBDA) : s->lambda;
  return base + (((size_t)layer * (size_t)s->nhead + (size_t)head) * (size_t)s->nsample + (size_t)k) *
                    (size_t)s->seq_len;
}

static void add_memory(sq_spectra *s, const sq_factors *f, int layer, int head)
{
  double *mean = s->energy + ((size_t)layer * (size_t)s->nhead + (size_t)head) * (size_t)s->seq_len,
         total = 0;
  memset(s->distance, 0, (size_t)f->T * sizeof *s->distance);
  sq_energy_with(f, &s->es, s->distance);
  for (int d = 0; d < f->T; ++d) total += s->distance[d];
  if (total > 0)
    for (int d = 0; d < f->T; ++d) mean[d] += s->distance[d] / total;
}

void sq_spectra_add_sizes(const sq_spectra *s, double *const *out, size_t place, int n, const double *sigma)
{
  double size[SQ_NSIZE];
  sq_effective_state_size(n, sigma, size);
  size[F_SIZE_LIMIT - F_SIZE_TOLERANCE] = n;
  for (int z = 0; z < SQ_NSIZE; ++z) {
    double *sum = sq_spectra_field(s, out, F_SIZE_TOLERANCE + z) + place;
    *sum = (isnan(*sum) ? 0 : *sum) + size[z];
  }
}

/* Singular values at each cut; the sizes are added up here and divided in the end. */
static void add_hankel(sq_spectra *s, const sq_factors *f, double *const *out, int layer, int head, int k)
{
  for (int x = 0; x < s->ncut; ++x) {
    const int t = most(1, (int)floor(s->cut[x] * f->T));
    const size_t place = ((size_t)layer * (size_t)s->nhead + (size_t)head) * (size_t)s->ncut + (size_t)x;
    const size_t cell = place * (size_t)s->nhankel + (size_t)k;
    int n;
    double log_sigma1;
    if (t >= f->T) continue;
    if (sq_hankel_with(f, t, &s->hs, &n, &log_sigma1) != SQ_OK) {
      sq_error_clear(); /* an SVD that does not converge is a missing value */
      continue;
    }
    sq_spectra_field(s, out, F_LOG_SIGMA1)[cell] = log_sigma1;
    double *sigma = sq_spectra_field(s, out, F_SIGMA) + cell * (size_t)s->nindex;
    memcpy(sigma, s->hs.sigma, (size_t)least(n, s->nindex) * sizeof *sigma);
    sq_spectra_add_sizes(s, out, place, n, s->hs.sigma);
  }
}

static void shuffle(sq_spectra *s, int k, int T)
{
  sq_rng r;
  sq_rng_init(&r, s->seed, SQ_STREAM_SHUFFLE, (uint64_t)k);
  for (int i = 0; i < T; ++i) s->perm[i] = i;
  for (int i = T - 1; i > 0; --i) { /* Fisher-Yates */
    const int j = (int)sq_rng_below(&r, (uint32_t)i + 1), old = s->perm[i];
    s->perm[i] = s->perm[j];
    s->perm[j] = old;
  }
}

/* Adds the shares of one sequence to a sum that starts as NaN; *count says how many have any. */
static void add_share(const double percent[SQ_NRADIUS], double *sum, int *count)
{
  if (isnan(percent[0])) return; /* no eigenvalues */
  for (int i = 0; i < SQ_NRADIUS; ++i) sum[i] = (*count > 0 ? sum[i] : 0) + percent[i];
  ++*count;
}

static void head_dsf(sq_spectra *s, const sq_real *theta, const sq_rows *rows, const sq_layer_view *view,
                     double *const *out, int layer, int head, int k)
{
  const sq_mixer_ops *ops = sq_mixer_get(view->mixer);
  const int memory = k < s->nmemory, hankel = k < s->nhankel;
  sq_factors f = s->f;
  double percent[SQ_NRADIUS];
  ops->factor_dims(view->mixer, &f);
  f.T = rows->nrow;
  f.v = f.y = NULL;
  if (!memory && !hankel) f.b = f.log_b = f.c = f.log_c = NULL;
  ops->factors(view->mixer, theta, rows, view->tape, 0, head, NULL, &f);
  double *to = lambda_of(s, out, layer, head, k);
  for (int i = f.first; i < f.T; ++i) to[i] = f.log_lambda[i];
  if ((memory || hankel) && sq_factors_finite(&f)) {
    if (memory) add_memory(s, &f, layer, head);
    if (hankel) add_hankel(s, &f, out, layer, head, k);
  }

  f.b = f.log_b = f.c = f.log_c = NULL;
  ops->factors(view->mixer, theta, rows, view->tape, 0, head, s->perm, &f);
  sq_bin_radius((size_t)(f.T - f.first), f.log_lambda + f.first, 0, percent);
  const size_t place = (size_t)layer * (size_t)s->nhead + (size_t)head;
  add_share(percent, sq_spectra_field(s, out, F_NULL_SHUFFLED) + place * SQ_NRADIUS, &s->nshuffled[place]);
}

static void uniform_null(sq_spectra *s, int T, double *const *out)
{
  double percent[SQ_NRADIUS];
  for (int i = 1; i < T; ++i) s->row[i] = log((double)i / (i + 1));
  sq_bin_radius((size_t)T - 1, s->row + 1, 0, percent);
  add_share(percent, sq_spectra_field(s, out, F_NULL_UNIFORM), &s->nuniform);
}

static sq_status sequence_dsf(sq_spectra *s, const sq_real *theta, const sq_batch *one, void *work,
                              double *const *out, int k)
{
  sq_tally tally = {0};
  sq_model_evaluate(s->model, theta, one, work, &tally);
  shuffle(s, k, one->rows.nrow);
  uniform_null(s, one->rows.nrow, out);
  for (int l = 0; l < s->nlayer; ++l) {
    const sq_layer_view view = sq_model_layer(s->model, work, l);
    for (int h = 0; h < sq_mixer_get(view.mixer)->heads(view.mixer); ++h) {
      if (sq_spectra_stop(s)) return SQ_STOPPED;
      head_dsf(s, theta, &one->rows, &view, out, l, h, k);
    }
  }
  return SQ_OK;
}

/* ---- one sequence, protocol published ---------------------------------------------------------------- */
static void sequence_published(sq_spectra *s, const sq_real *theta, const sq_batch *one, void *work,
                               double *const *out, int k)
{
  sq_tally tally = {0};
  sq_model_evaluate(s->model, theta, one, work, &tally);
  for (int l = 0; l < s->nlayer; ++l) {
    const sq_layer_view view = sq_model_layer(s->model, work, l);
    const sq_mixer_ops *ops = sq_mixer_get(view.mixer);
    const int H = ops->heads(view.mixer);
    ops->published(view.mixer, theta, &one->rows, view.block_out, 0, s->rows_all, s->mixer_scratch);
    for (int h = 0; h < H; ++h) {
      double *to = lambda_of(s, out, l, h, k);
      for (int i = 0; i < one->rows.nrow; ++i) to[i] = s->rows_all[(size_t)i * (size_t)H + (size_t)h];
    }
  }
}

/* ---- statistics over the sample ---------------------------------------------------------------------- */
/* Mean and population standard deviation of percent (sample, nbin), samples without eigenvalues (NaN) left
 * out. */
static void mean_std(const sq_spectra *s, int nbin, double *mean, double *std)
{
  for (int k = 0; k < nbin; ++k) {
    double sum = 0, square = 0;
    int n = 0;
    for (int b = 0; b < s->nsample; ++b) {
      const double x = s->percent[(size_t)b * (size_t)nbin + (size_t)k];
      if (isnan(x)) continue;
      sum += x;
      ++n;
    }
    mean[k] = n > 0 ? sum / n : NAN;
    for (int b = 0; b < s->nsample; ++b) {
      const double x = s->percent[(size_t)b * (size_t)nbin + (size_t)k] - mean[k];
      if (!isnan(x)) square += x * x;
    }
    std[k] = n > 0 ? sqrt(square / n) : NAN;
  }
}

static void head_bins(sq_spectra *s, const double *length, double *const *out, int l, int h)
{
  const size_t place = (size_t)l * (size_t)s->nhead + (size_t)h;
  const int first = first_of(s, l);
  for (int k = 0; k < s->nsample; ++k) {
    const int T = (int)length[k];
    sq_bin_radius(T > first ? (size_t)(T - first) : 0, lambda_of(s, out, l, h, k) + first, s->published,
                  s->percent + (size_t)k * SQ_NRADIUS);
  }
  mean_std(s, SQ_NRADIUS, sq_spectra_field(s, out, F_RADIUS_MEAN) + place * SQ_NRADIUS,
           sq_spectra_field(s, out, F_RADIUS_STD) + place * SQ_NRADIUS);
  for (int k = 0; k < s->nsample; ++k) {
    const int T = (int)length[k];
    const double *lambda = lambda_of(s, out, l, h, k);
    for (int i = first; i < T;
         ++i) /* positive: phase 0.  The published analysis takes 0 lambda, NaN if it is infinite. */
      s->row[i] = s->published ? 0 * exp(lambda[i]) : isnan(lambda[i]) ? NAN : 0;
    sq_bin_phase(T > first ? (size_t)(T - first) : 0, s->row + first, s->published,
                 s->percent + (size_t)k * SQ_NPHASE);
  }
  mean_std(s, SQ_NPHASE, sq_spectra_field(s, out, F_PHASE_MEAN) + place * SQ_NPHASE,
           sq_spectra_field(s, out, F_PHASE_STD) + place * SQ_NPHASE);
}

/* Heapsort: qsort() may allocate. */
static void sift_down(double *x, size_t root, size_t n)
{
  for (size_t child = 2 * root + 1; child < n; child = 2 * root + 1) {
    if (child + 1 < n && x[child + 1] > x[child]) ++child;
    if (x[root] >= x[child]) return;
    const double old = x[root];
    x[root] = x[child];
    x[child] = old;
    root = child;
  }
}

void sq_sort(size_t n, double *x)
{
  for (size_t root = n / 2; root > 0; --root) sift_down(x, root - 1, n);
  for (size_t end = n; end > 1; --end) {
    const double old = x[0];
    x[0] = x[end - 1];
    x[end - 1] = old;
    sift_down(x, 0, end - 1);
  }
}

double sq_quantile(size_t n, const double *sorted, double level)
{
  if (n == 0) return NAN;
  const double at = level * (double)(n - 1), below = floor(at), part = at - below;
  const double x = sorted[(size_t)below];
  return part > 0 ? (1 - part) * x + part * sorted[(size_t)below + 1] : x;
}

static void head_pooled(sq_spectra *s, const double *length, double *const *out, int l, int h)
{
  const size_t place = (size_t)l * (size_t)s->nhead + (size_t)h;
  const int first = first_of(s, l);
  size_t n = 0;
  double percent[SQ_NRADIUS], entropy = 0;
  for (int k = 0; k < s->nsample; ++k) {
    const double *lambda = lambda_of(s, out, l, h, k);
    for (int i = first; i < (int)length[k]; ++i)
      if (!isnan(lambda[i])) s->sorted[n++] = lambda[i];
  }
  sq_bin_radius(n, s->sorted, 0, percent);
  sq_spectra_field(s, out, F_ABOVE_ONE)[place] = (percent[4] + percent[5] + percent[6]) / 100;
  if (s->exponent && first == 0) {
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += s->sorted[i];
    const double mean = n > 0 ? sum / (double)n : NAN;
    sq_spectra_field(s, out, F_EXPONENT)[place] = mean;
    sq_spectra_field(s, out, F_HORIZON)[place] = mean >= 0 ? INFINITY : -1 / mean;
  }
  sq_sort(n, s->sorted);
  for (int q = 0; q < SQ_NQUANTILE; ++q)
    sq_spectra_field(s, out, F_QUANTILE)[place * SQ_NQUANTILE + (size_t)q] =
        sq_quantile(n, s->sorted, sq_quantile_level[q]);
  for (int k = 0; k < SQ_NRADIUS; ++k) {
    const double p = sq_spectra_field(s, out, F_RADIUS_MEAN)[place * SQ_NRADIUS + (size_t)k] / 100;
    if (isnan(p) || p > 0) entropy -= p * log(p);
  }
  sq_spectra_field(s, out, F_ENTROPY)[place] = entropy;
  for (int q = 0; q < SQ_NMEMORY && s->nmemory > 0; ++q)
    sq_spectra_field(s, out, F_MEMORY)[place * SQ_NMEMORY + (size_t)q] =
        sq_distance_quantile(s->seq_len, s->energy + place * (size_t)s->seq_len, sq_memory_level[q]);
}

/* Sums over the sample become means; NaN without a summand stays NaN. */
static void divide(int n, double *sum, int count)
{
  for (int i = 0; i < n; ++i) sum[i] /= count;
}

static void head_hankel_means(sq_spectra *s, double *const *out, int l, int h)
{
  for (int x = 0; x < s->ncut; ++x) {
    const size_t place = ((size_t)l * (size_t)s->nhead + (size_t)h) * (size_t)s->ncut + (size_t)x;
    const double *log_sigma1 = sq_spectra_field(s, out, F_LOG_SIGMA1) + place * (size_t)s->nhankel;
    int count = 0;
    for (int k = 0; k < s->nhankel; ++k) count += !isnan(log_sigma1[k]);
    for (int z = 0; z < SQ_NSIZE; ++z)
      divide(1, sq_spectra_field(s, out, F_SIZE_TOLERANCE + z) + place, count);
  }
}

/* ---- run --------------------------------------------------------------------------------------------- */
size_t sq_field_doubles(const sq_field *f)
{
  size_t n = f->complex_values ? 2 : 1;
  for (int i = 0; i < f->naxis; ++i) n *= (size_t)f->dim[i];
  return n;
}

static void fill_nan(size_t n, double *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = NAN;
}

static void summarise(sq_spectra *s, double *const *out)
{
  const double *length = sq_spectra_field(s, out, F_LENGTH);
  for (int l = 0; l < s->nlayer; ++l)
    for (int h = 0; h < s->nhead; ++h) {
      head_bins(s, length, out, l, h);
      if (s->published) continue;
      head_pooled(s, length, out, l, h);
      head_hankel_means(s, out, l, h);
      const size_t place = (size_t)l * (size_t)s->nhead + (size_t)h;
      divide(SQ_NRADIUS, sq_spectra_field(s, out, F_NULL_SHUFFLED) + place * SQ_NRADIUS, s->nshuffled[place]);
    }
  if (!s->published) divide(SQ_NRADIUS, sq_spectra_field(s, out, F_NULL_UNIFORM), s->nuniform);
}

sq_status sq_spectra_run(sq_spectra *s, const sq_real *theta, const sq_batch *sample, void *work,
                         double *const *out)
{
  const int longest = longest_of(sample), id[1] = {0};
  SQ_ASSERT(sample->rows.nseq <= s->nsample && longest <= s->seq_len);
  sq_status st = have_scratch(s);
  if (st != SQ_OK) return st;
  for (int i = 0; i < s->nfield; ++i) fill_nan(sq_field_doubles(&s->field[i]), out[i]);
  if (s->lti) return sq_lti_analyse(s, theta, out);
  if (s->lambda != NULL) fill_nan(all_lambda(s), s->lambda);
  if (s->energy != NULL)
    memset(s->energy, 0, (size_t)s->nlayer * (size_t)s->nhead * (size_t)s->seq_len * sizeof *s->energy);
  for (int k = 0; k < s->nsample; ++k) sq_spectra_field(s, out, F_LENGTH)[k] = 0;
  s->nuniform = 0;
  if (!s->published) memset(s->nshuffled, 0, (size_t)s->nlayer * (size_t)s->nhead * sizeof *s->nshuffled);

  for (int k = 0; k < sample->rows.nseq; ++k) {
    int off[2];
    const int T = s->published ? longest : length_of(sample, k);
    if (length_of(sample, k) == 0) continue;
    if (sq_spectra_stop(s)) return SQ_STOPPED;
    const sq_batch one = one_sequence(s, sample, k, T, off, id);
    sq_spectra_field(s, out, F_LENGTH)[k] = T;
    if (s->published)
      sequence_published(s, theta, &one, work, out, k);
    else
      SQ_TRY(sequence_dsf(s, theta, &one, work, out, k));
  }
  summarise(s, out);
done:
  return st;
}
