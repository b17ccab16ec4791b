/* src/spectra/fields.c: the names, axes and meaning of what an analysis writes. */
#include <stdarg.h>
#include <string.h>

#include "run_impl.h"

const double sq_quantile_level[SQ_NQUANTILE] = {.01, .05, .25, .5, .75, .95, .99};
const double sq_memory_level[SQ_NMEMORY] = {.1, .25, .5, .75, .9};

static const char *const radius_open[] = {"[0, 0.1]", "(0.1, 0.5]", "(0.5, 0.9]", "(0.9, 1]",
                                          "(1, 10]",  "(10, 100]",  "(100, inf]"};
static const char *const radius_closed[] = {"[0, 0.1]", "[0.1, 0.5]", "[0.5, 0.9]", "[0.9, 1]",
                                            "[1, 10]",  "[10, 100]",  "(100, inf]"};
static const char *const phase_open[] = {"[0, 1]",   "(1, 10]",   "(10, 45]",
                                         "(45, 90]", "(90, 180]", "(180, inf)"};
static const char *const phase_closed[] = {"[0, 1]",   "[1, 10]",   "[10, 45]",
                                           "[45, 90]", "[90, 180]", "(180, inf)"};

static void add_axis(sq_spectra *s, const char *name, const char *unit, const char *long_name, int n,
                     const double *value, const char *const *label)
{
  SQ_ASSERT(s->naxis < SQ_MAX_AXES);
  s->axis[s->naxis++] = (sq_axis){name, unit, long_name, n, value, label};
}

static int axis_length(const sq_spectra *s, const char *name)
{
  for (int i = 0; i < s->naxis; ++i)
    if (strcmp(s->axis[i].axis, name) == 0) return s->axis[i].n;
  SQ_ASSERT(!"an axis of this name");
  return 0;
}

/* naxis names follow. */
static void add_field(sq_spectra *s, sq_field_id id, const char *name, const char *unit, int invariant,
                      const char *long_name, int naxis, ...)
{
  sq_field *f = &s->field[s->nfield];
  va_list names;
  *f = (sq_field){.name = name, .long_name = long_name, .unit = unit, .naxis = naxis, .invariant = invariant};
  va_start(names, naxis);
  for (int i = 0; i < naxis; ++i) {
    f->axis[i] = va_arg(names, const char *);
    f->dim[i] = axis_length(s, f->axis[i]);
  }
  va_end(names);
  s->place[id] = s->nfield++;
}

/* Axes of single values: of sequences, or of systems. */
static void make_value_axes(sq_spectra *s)
{
  add_axis(s, "layer", "1", "layer, from the input", s->nlayer, NULL, NULL);
  add_axis(s, "head", "1", s->lti ? "all eigenvalues of a layer together" : "head of the mixer", s->nhead,
           NULL, NULL);
  if (s->lti) {
    if (!s->published) add_axis(s, "channel", "1", "system of the layer", s->ls->f.nsystem, NULL, NULL);
    add_axis(s, "state", "1", "complex state of a system", s->ls->f.n, NULL, NULL);
    return;
  }
  add_axis(s, "sample", "1", "sequence of the analysis sample", s->nsample, NULL, NULL);
  add_axis(s, "position", "1", "step of the sequence, from 0", s->seq_len, NULL, NULL);
}

static void make_axes(sq_spectra *s)
{
  make_value_axes(s);
  add_axis(s, "radius_bin", "1", "range of the eigenvalue's modulus", SQ_NRADIUS, NULL,
           s->published ? radius_closed : radius_open);
  add_axis(s, "phase_bin", "degree", "range of the eigenvalue's phase", SQ_NPHASE, NULL,
           s->published ? phase_closed : phase_open);
  if (s->published) return;
  add_axis(s, "quantile", "1", "level of a quantile of log|lambda|", SQ_NQUANTILE, sq_quantile_level, NULL);
  if (s->nmemory > 0)
    add_axis(s, "memory_quantile", "1", "level of a quantile of the distance", SQ_NMEMORY, sq_memory_level,
             NULL);
  if (s->nhankel > 0) {
    add_axis(s, "cut", "1", "cut between past and future, as a fraction of the sequence", s->ncut, s->cut,
             NULL);
    add_axis(s, "hankel_sample", "1",
             !s->lti          ? "sequence of the analysis sample (the first ones)"
             : s->ls->f.dense ? "channel of the layer (evenly spread)"
                              : "the layer, one system",
             s->nhankel, s->lti ? s->ls->channel : NULL, NULL);
    add_axis(s, "index", "1", "number of the singular value, descending", s->nindex, NULL, NULL);
  }
}

static void make_sizes(sq_spectra *s)
{
  static const struct {
    const char *name, *of[3]; /* sequences | channels of a layer | one system */
    int invariant;
  } size[SQ_NSIZE] = {
#define OVER(text) {text ", mean over the sequences analysed", text ", mean over the channels analysed", text}
      {"effective_state_size_tolerance", OVER("number of singular values above 1e-3 of the largest"), 1},
      {"effective_state_size_entropy", OVER("exp of the entropy of sigma/sum(sigma)"), 1},
      {"effective_state_size_entropy_squared", OVER("exp of the entropy of sigma^2/sum(sigma^2)"), 1},
      {"effective_state_size_limit",
       OVER("what the state size cannot exceed: order of the state, real numbers before or after the cut"),
       -1},
#undef OVER
  };
  const int of = !s->lti ? 0 : s->ls->f.dense ? 1 : 2;
  for (int z = 0; z < SQ_NSIZE; ++z)
    add_field(s, F_SIZE_TOLERANCE + z, size[z].name, "1", size[z].invariant, size[z].of[of], 3, "layer",
              "head", "cut");
}

static void make_invariant(sq_spectra *s)
{
  if (s->nmemory > 0)
    add_field(s, F_MEMORY, "memory_distance_quantile", "step", 1,
              s->lti
                  ? "quantile of the distance under the energy of the layer's impulse response, all "
                    "channels together"
                  : "quantile of the distance d under the weights |M(i,i-d)|^2 of the mixer's matrix; each "
                    "sequence has weight 1",
              3, "layer", "head", "memory_quantile");
  if (s->nhankel == 0) return;
  add_field(s, F_SIGMA, "hankel_sigma", "1", 1,
            "singular values of the past-to-future block at the cut, relative to the largest", 5, "layer",
            "head", "cut", "hankel_sample", "index");
  add_field(s, F_LOG_SIGMA1, "hankel_log_sigma1", "1", 1,
            "natural log of the largest singular value of the past-to-future block", 4, "layer", "head",
            "cut", "hankel_sample");
  make_sizes(s);
}

static void make_exponent(sq_spectra *s)
{
  add_field(s, F_EXPONENT, "lyapunov_exponent", "1/step", s->lti,
            s->lti
                ? "mean of log|lambda| over the layer's eigenvalues"
                : "finite-time exponent, mean of log|lambda| over the steps of all sequences; in coordinates "
                  "c_i h_i it is larger by log(c_T/c_0)/T",
            2, "layer", "head");
  add_field(s, F_HORIZON, "lyapunov_horizon", "step", s->lti,
            s->lti ? "-1/exponent: steps until 1/e is left; infinite where nothing decays"
                   : "-1/exponent in finite time: steps until 1/e is left; infinite where nothing decays",
            2, "layer", "head");
}

/* A finite-time exponent depends on the coordinates at both ends, less the longer the sequence is; that of a
   time-invariant layer in coordinates that do not change with time does not.

   Eigenvalues of a time-invariant system do not depend on the coordinates; condition, norms of powers and the
   numerical radius do. */
static void make_lti_values(sq_spectra *s)
{
  add_field(s, F_LAMBDA, "lambda", "1", 1,
            "eigenvalue of the transition matrix of the stored (rounded) parameters", 3, "layer", "channel",
            "state");
  s->field[s->place[F_LAMBDA]].complex_values = 1;
  add_field(s, F_LAMBDA_RADIUS, "lambda_radius", "1", 1,
            "radius of the disc around lambda that holds the eigenvalue of the stored (rounded) parameters",
            3, "layer", "channel", "state");
  add_field(
      s, F_LAMBDA_CERTIFIED, "lambda_certified", "1", 1,
      "1: proven that its disc holds one eigenvalue of the stored (rounded) parameters and meets no other", 3,
      "layer", "channel", "state");
  add_field(s, F_LAMBDA_CONDITION, "lambda_condition", "1", 0,
            "reciprocal condition number |y* x| of the eigenvalue, without balancing", 3, "layer", "channel",
            "state");
  add_field(s, F_LAMBDA_BACKWARD, "lambda_backward_error", "1", 0,
            "|A x - lambda x| / (|A|_F |x|) of the float64 transition matrix", 3, "layer", "channel",
            "state");
  if (s->ls->f.dense)
    add_field(s, F_LAMBDA_SENSITIVITY, "lambda_sensitivity", "1", 1,
              "largest change of lambda by one rounding of each parameter, to first order", 3, "layer",
              "channel", "state");
  else /* one draw, no bound: another quantity, another name */
    add_field(s, F_LAMBDA_SENSITIVITY, "lambda_rounding_shift", "1", 1,
              "change of lambda when each parameter moves one unit in the last place at random (one draw)", 3,
              "layer", "channel", "state");
}

static void make_marks(sq_spectra *s)
{
  add_field(
      s, F_RADIUS_SHIFT, "percent_radius_shift", "percent", 1,
      "how far one rounding of the parameters can move the share: values that can cross a threshold to first "
      "order, or the change when each parameter moves one unit in the last place at random, the larger",
      3, "layer", "head", "radius_bin");
  add_field(s, F_RADIUS_MARKED, "percent_radius_marked", "1", 1,
            "1: the shift is more than one eigenvalue and more than one percentage point", 3, "layer", "head",
            "radius_bin");
}

static void make_lti(sq_spectra *s)
{
  make_marks(s);
  if (!s->ls->f.dense) {
    add_field(
        s, F_MODAL_ENERGY, "modal_energy_percent_radius", "percent", 1,
        "share of the energy |C_n|^2 |B_n|^2/(1-|lambda_n|^2) by modulus; over the sequence's steps where "
        "|lambda_n| >= 1",
        3, "layer", "head", "radius_bin");
    return;
  }
  add_field(s, F_POWER_NORM, "power_norm_max", "1", 0,
            "largest |A^k|_2 over k = 1, 2, 4, .. up to the sequence", 2, "layer", "channel");
  add_field(s, F_NUMERICAL_RADIUS, "numerical_radius", "1", 0,
            "largest |x* A x| over unit x, at most 0.13 % below", 2, "layer", "channel");
  if (s->nmemory > 0)
    add_field(s, F_KERNEL_ENERGY, "kernel_energy_quantile", "step", 1,
              "quantile of the distance under the energy of the channel's impulse response", 3, "layer",
              "channel", "memory_quantile");
}

static void make_published_lti(sq_spectra *s)
{
  add_field(s, F_LAMBDA, "lambda", "1", 1,
            s->ls->f.dense
                ? "eigenvalue that the published analysis looks at: of channel 1 only, the second one"
                : "eigenvalue that the published analysis looks at",
            2, "layer", "state");
  s->field[s->place[F_LAMBDA]].complex_values = 1;
}

void sq_fields_make(sq_spectra *s)
{
  for (int i = 0; i < F_COUNT; ++i) s->place[i] = -1;
  make_axes(s);
  if (s->lti && s->store_all && s->published) make_published_lti(s);
  if (s->lti && s->store_all && !s->published) make_lti_values(s);
  if (!s->lti)
    add_field(s, F_LENGTH, "length", "step", -1,
              s->published ? "steps that count, padding to the longest sequence included"
                           : "steps of the sequence",
              1, "sample");
  if (s->store_all && !s->lti)
    add_field(s, F_LOG_LAMBDA, "log_lambda", "1", 0, "natural log of the eigenvalue's modulus", 4, "layer",
              "head", "sample", "position");
  add_field(s, F_RADIUS_MEAN, "percent_radius_mean", "percent", s->lti,
            s->lti ? "share of the layer's eigenvalues by modulus"
                   : "share of eigenvalues by modulus, mean over sequences",
            3, "layer", "head", "radius_bin");
  add_field(s, F_RADIUS_STD, "percent_radius_std", "percent", s->lti,
            s->lti ? "0: the eigenvalues do not depend on a sequence; see percent_radius_shift"
                   : "share of eigenvalues by modulus, population standard deviation over sequences",
            3, "layer", "head", "radius_bin");
  add_field(s, F_PHASE_MEAN, "percent_phase_mean", "percent", s->lti,
            s->lti ? "share of the layer's eigenvalues by phase"
                   : "share of eigenvalues by phase, mean over sequences",
            3, "layer", "head", "phase_bin");
  add_field(s, F_PHASE_STD, "percent_phase_std", "percent", s->lti,
            s->lti ? "0: the eigenvalues do not depend on a sequence"
                   : "share of eigenvalues by phase, population standard deviation over sequences",
            3, "layer", "head", "phase_bin");
  if (s->published) {
    if (s->lti) make_marks(s);
    return;
  }
  add_field(s, F_NULL_UNIFORM, "null_uniform_percent_radius_mean", "percent", -1,
            "the same share for uniform attention at the same lengths, lambda_i = i/(i+1)", 1, "radius_bin");
  if (!s->lti)
    add_field(s, F_NULL_SHUFFLED, "null_shuffled_percent_radius_mean", "percent", -1,
              "the same share with the steps of each sequence shuffled", 3, "layer", "head", "radius_bin");
  add_field(s, F_QUANTILE, "log_lambda_quantile", "1", s->lti,
            s->lti ? "quantile of log|lambda| over the layer's eigenvalues"
                   : "quantile of log|lambda| over all sequences and steps",
            3, "layer", "head", "quantile");
  add_field(s, F_ABOVE_ONE, "share_above_one", "1", s->lti,
            s->lti ? "share of the layer's eigenvalues above 1"
                   : "share of eigenvalues above 1 over all sequences and steps",
            2, "layer", "head");
  add_field(s, F_ENTROPY, "spectral_entropy", "nat", s->lti, "entropy of the mean shares by modulus", 2,
            "layer", "head");
  if (s->exponent) make_exponent(s);
  if (s->lti) make_lti(s);
  make_invariant(s);
}

const sq_field *sq_spectra_fields(const sq_spectra *s, int *n)
{
  *n = s->nfield;
  return s->field;
}

const sq_axis *sq_spectra_axes(const sq_spectra *s, int *n)
{
  *n = s->naxis;
  return s->axis;
}
