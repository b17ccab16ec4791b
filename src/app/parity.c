/* src/app/parity.c: seqspectra parity: this program against a reference implementation. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "parity.h"
#include "sq/base.h"

/* Tolerances.  float64: forward 1e-10, derivatives, steps and eigenvalues 1e-9.  float32: what 24 bits leave
   after some hundred operations; a step moves a parameter by about lr whatever its gradient, so gradients
   that are nearly zero are left out there. */
#ifdef SQ_DOUBLE
#define FORWARD  1e-10
#define BACKWARD 1e-9
#define STEP     1e-9
#else
#define FORWARD  1e-5
#define BACKWARD 1e-4
#define STEP     1e-4
#endif
#define EIGEN PARITY_NEAR

static const struct {
  const char *name;
  parity_measure measure;
  double tolerance;
} quantity[PARITY_NQUANTITY] = {
    [PARITY_LOGITS] = {"logits", PARITY_OWN_SCALE, FORWARD},
    [PARITY_LOGITS_EVAL] = {"logits_eval", PARITY_OWN_SCALE, FORWARD},
    [PARITY_LOSS] = {"loss", PARITY_OWN_SCALE, FORWARD},
    [PARITY_LOSS_LABELS] = {"loss over labels", PARITY_OWN_SCALE, FORWARD},
    [PARITY_ACTS] = {"acts", PARITY_OWN_SCALE, FORWARD},
    [PARITY_KERNEL] = {"s4_kernel", PARITY_OWN_SCALE, FORWARD},
    [PARITY_STATISTICS] = {"batch_stats_after", PARITY_OWN_SCALE, FORWARD},
    [PARITY_GRADS] = {"grads", PARITY_GROUP_SCALE, BACKWARD},
    [PARITY_GRAD_NORM] = {"grad_norm", PARITY_OWN_SCALE, BACKWARD},
    [PARITY_DSF_LOG] = {"eig_dsf_log", PARITY_LOG, EIGEN},
    [PARITY_DSF] = {"eig_dsf", PARITY_EIGENVALUE, EIGEN},
    [PARITY_PUBLISHED] = {"eig_published", PARITY_EIGENVALUE, EIGEN},
    [PARITY_PERCENT_DSF] = {"percent_dsf", PARITY_PERCENT, 1e-9},
    [PARITY_PERCENT_PUBLISHED] = {"percent_published", PARITY_PERCENT, 1e-9},
    [PARITY_ONE_STEP] = {"after 1 step", PARITY_STEP, STEP},
    [PARITY_THREE_STEPS] = {"after 3 steps", PARITY_STEP, STEP},
    [PARITY_LOSSES] = {"losses of 3 steps", PARITY_OWN_SCALE, FORWARD},
    [PARITY_OPTAX] = {"after 1 optax step", PARITY_STEP, STEP},
};

/* The quantities of a line of the summary. */
typedef enum { PART_PASSES, PART_EIGENVALUES, PART_STEPS, NPART } part;

typedef struct {            /* one case of the command line */
  const char *path, *model; /* model: name of its mixer; NULL: no case */
  double worst[NPART];      /* relative; NaN: nothing was compared */
  int bad;                  /* quantities above their tolerance or missing */
} verdict;

typedef struct {
  int ndataset;
  double absolute, relative; /* worst */
  char where[160];
  int skipped; /* data sets that this precision cannot have */
} outcome;

static double largest_of(size_t n, const double *x)
{
  double largest = 0;
  for (size_t i = 0; i < n; ++i)
    if (isfinite(x[i])) largest = fmax(largest, fabs(x[i]));
  return largest;
}

static int same_value(double a, double b)
{
  return a == b || (isnan(a) && isnan(b));
}

/* Below the range of normal numbers a relative error means nothing. */
static double eigenvalue_error(double got, double want, double scale)
{
  if (fabs(want) < 1e-290 && fabs(got) < 1e-290) return 0;
  return fabs(got - want) / fabs(want) / scale;
}

static double entry_error(const parity_number *n, size_t i, double want, double scale)
{
  const double got = n->data[i];

  if (same_value(got, want)) return 0;
  switch (quantity[n->quantity].measure) {
  case PARITY_EIGENVALUE: return eigenvalue_error(got, want, n->scale);
  case PARITY_LOG: return fabs(got - want) / n->scale;
  case PARITY_PERCENT: { /* not fmax: NaN must stay */
    const double beyond = fabs(got - want) - n->slack[i];
    return beyond <= 0 ? 0 : beyond / 100;
  }
  case PARITY_STEP:
#ifndef SQ_DOUBLE
    if (fabs(n->slack[i]) <= 1e-5) return 0;
#endif
    return fabs(got - want) / scale;
  default: return fabs(got - want) / scale;
  }
}

static void keep_worst(const parity_number *n, double difference, double error, outcome *o)
{
  if (difference > o->absolute) o->absolute = difference;
  if (error <= o->relative) return;
  o->relative = isnan(error) ? INFINITY : error; /* NaN against a number */
  sq_format(o->where, sizeof o->where, "%s", n->path);
}

static void compare_entries(const parity_number *n, const double *want, double scale, outcome *o)
{
  for (size_t i = 0; i < n->count; ++i) {
    const double error = entry_error(n, i, want[i], scale), difference = fabs(n->data[i] - want[i]);
    if (error != 0) keep_worst(n, difference, error, o);
  }
}

/* ---- complex eigenvalues -----------------------------------------------------------------------------------------------
 */
static double complex_error(const parity_number *n, size_t i, const double *re, const double *im, size_t k,
                            double *difference)
{
  *difference = hypot(n->data[i] - re[k], n->imaginary[i] - im[k]);
  if (*difference == 0) return 0;
  return *difference / hypot(re[k], im[k]) / n->spread[i];
}

/* A row of the last axis, as a set: the pairing with the smallest worst error. */
static sq_status compare_set(const parity_number *n, size_t first, size_t count, const double *re,
                             const double *im, outcome *o)
{
  double *cost = sq_calloc(count * count, sizeof *cost, "pairing of eigenvalues"), difference, worst;
  double nearest = 0; /* worst distance to the nearest one: the absolute error that is printed */
  sq_status st;

  if (cost == NULL) return SQ_ERR_MEMORY;
  for (size_t i = 0; i < count; ++i) {
    double least = INFINITY;
    for (size_t k = 0; k < count; ++k) {
      cost[i * count + k] = complex_error(n, first + i, re, im, first + k, &difference);
      least = fmin(least, difference);
    }
    nearest = fmax(nearest, least);
  }
  SQ_TRY(sq_parity_bottleneck((int)count, cost, &worst));
  keep_worst(n, nearest, worst, o);
done:
  free(cost);
  return st;
}

static sq_status compare_complex(const parity_number *n, const double *re, const double *im, outcome *o)
{
  const size_t row = n->set ? n->dim[n->ndim - 1] : 1;
  double difference;
  sq_status st = SQ_OK;

  for (size_t i = 0; i < n->count && st == SQ_OK; i += row) {
    if (n->set) {
      st = compare_set(n, i, row, re, im, o);
    } else {
      const double error = complex_error(n, i, re, im, i, &difference);
      keep_worst(n, difference, error, o);
    }
  }
  return st;
}

/* ---- quantities ------------------------------------------------------------------------------------------
 */
static sq_status read_same_shape(const parity_case *p, const parity_number *n, const char *path,
                                 double **want)
{
  int ndim;
  size_t dim[8];
  sq_status st = sq_h5_read(p->file, path, want, &ndim, dim);

  if (st != SQ_OK) return st;
  int same = ndim == n->ndim;
  for (int i = 0; same && i < ndim; ++i) same = dim[i] == n->dim[i];
  if (same) return SQ_OK;
  free(*want);
  *want = NULL;
  return sq_fail(SQ_ERR_DATA, "%s: %s: not of the shape that the configuration gives", p->path, path);
}

/* The reference's numbers: re alone, or re and im; NULL if the case has none. */
typedef struct {
  double *re, *im; /* owned */
} reference;

static sq_status read_reference(const parity_case *p, const parity_number *n, reference *r)
{
  char path[2][sizeof n->path + 4];
  const int parts = n->imaginary != NULL ? 2 : 1;
  sq_status st = SQ_OK;

  for (int i = 0; i < 2; ++i) sq_format(path[i], sizeof path[i], "%s%s", n->path, i > 0 ? "_im" : "_re");
  if (parts == 1) sq_format(path[0], sizeof path[0], "%s", n->path);
  if (!sq_h5_exists(p->file, path[0])) return SQ_OK;
  SQ_TRY(read_same_shape(p, n, path[0], &r->re));
  if (parts == 2) SQ_TRY(read_same_shape(p, n, path[1], &r->im));
done:
  return st;
}

/* All data sets of one quantity that the case has. */
static sq_status compare_quantity(const parity_case *p, parity_quantity q, outcome *o)
{
  reference *want = sq_calloc((size_t)p->nnumber + 1, sizeof *want, "the case's numbers");
  double group = 0;
  sq_status st = want == NULL ? SQ_ERR_MEMORY : SQ_OK;

  *o = (outcome){0};
  for (int k = 0; st == SQ_OK && k < p->nnumber; ++k) {
    const parity_number *n = &p->number[k];
    if (n->quantity != q || n->count == 0) continue;
    st = read_reference(p, n, &want[k]);
    if (st == SQ_OK && want[k].re != NULL) group = fmax(group, largest_of(n->count, want[k].re));
  }
  for (int k = 0; st == SQ_OK && k < p->nnumber; ++k) {
    const parity_number *n = &p->number[k];
    if (want[k].re == NULL) continue;
    if (n->incomparable) {
      ++o->skipped;
      continue;
    }
    ++o->ndataset;
    if (n->imaginary != NULL) {
      st = compare_complex(n, want[k].re, want[k].im, o);
      continue;
    }
    const double scale = quantity[q].measure == PARITY_OWN_SCALE ? largest_of(n->count, want[k].re) : group;
    compare_entries(n, want[k].re, scale > 0 ? scale : 1, o);
  }
  for (int k = 0; want != NULL && k < p->nnumber; ++k) {
    free(want[k].re);
    free(want[k].im);
  }
  free(want);
  return st;
}

/* A case without one of these says nothing about a model. */
static int is_required(int q)
{
  return q == PARITY_LOGITS || q == PARITY_LOSS || q == PARITY_GRADS;
}

static void print_missing(const int *missing)
{
  printf("  MISSING:");
  for (int q = 0; q < PARITY_NQUANTITY; ++q)
    if (missing[q]) printf(" %s", quantity[q].name);
  printf(": every case must have logits, loss and grads\n");
}

/* Percentages belong to no part: they count eigenvalues that were compared. */
static int part_of(parity_quantity q)
{
  if (q <= PARITY_GRAD_NORM) return PART_PASSES;
  if (q <= PARITY_PUBLISHED) return PART_EIGENVALUES;
  return q >= PARITY_ONE_STEP ? PART_STEPS : NPART;
}

static void note_verdict(parity_quantity q, const outcome *o, verdict *v)
{
  const int k = part_of(q);
  if (k < NPART && o->ndataset > 0) v->worst[k] = fmax(v->worst[k], o->relative); /* fmax(NaN, x) is x */
  v->bad += o->relative > quantity[q].tolerance;
}

/* needed: 0 if the case may hold nothing to compare, because its numbers are to be made. */
static sq_status compare(const parity_case *p, int needed, verdict *v)
{
  int compared = 0, missing[PARITY_NQUANTITY] = {0}, nmissing = 0;
  sq_status st;

  printf("%s (%s, %s)\n", p->path, p->name != NULL ? p->name : "no name", SQ_PRECISION);
  printf("  %-18s %5s %10s %10s %9s  %-4s %s\n", "quantity", "sets", "absolute", "relative", "allowed", "",
         "worst in");
  for (int q = 0; q < PARITY_NQUANTITY; ++q) {
    outcome o;
    st = compare_quantity(p, (parity_quantity)q, &o);
    if (st != SQ_OK) return st;
    const int ok = o.relative <= quantity[q].tolerance;
    note_verdict((parity_quantity)q, &o, v);
    compared += o.ndataset > 0;
    missing[q] = needed && is_required(q) && o.ndataset == 0;
    nmissing += missing[q];
    if (o.ndataset > 0)
      printf("  %-18s %5d %10.2e %10.2e %9.0e  %-4s %s\n", quantity[q].name, o.ndataset, o.absolute,
             o.relative, quantity[q].tolerance, ok ? "ok" : "BAD", o.where[0] != '\0' ? o.where : "-");
    else
      printf("  %-18s %5d %s\n", quantity[q].name, 0,
             o.skipped > 0 ? "not compared: beyond float32" : "not in the case");
  }
  if (compared == 0 && needed)
    return sq_fail(SQ_ERR_DATA, "%s: no data set to compare; expected logits, loss, grads/<name>, ...",
                   p->path);
  printf("  compared %d of %d quantities; allowed is the largest relative error\n", compared,
         PARITY_NQUANTITY);
  if (nmissing > 0) print_missing(missing);
  v->bad += nmissing;
  return SQ_OK;
}

/* ---- dump ------------------------------------------------------------------------------------------------
 */
static sq_status copy_dataset(const parity_case *p, sq_h5 *out, const char *path, int integer)
{
  double *x = NULL;
  int64_t *k = NULL;
  int ndim;
  size_t dim[8];
  sq_status st;

  if (integer) {
    SQ_TRY(sq_h5_read_int(p->file, path, &k, &ndim, dim));
    SQ_TRY(sq_h5_write_int(out, path, ndim, dim, k));
  } else {
    SQ_TRY(sq_h5_read(p->file, path, &x, &ndim, dim));
    SQ_TRY(sq_h5_write(out, path, ndim, dim, x));
  }
done:
  free(x);
  free(k);
  return st;
}

static sq_status dump_number(sq_h5 *out, const parity_number *n)
{
  char path[sizeof n->path + 4];
  sq_status st;

  if (n->imaginary == NULL) return sq_h5_write(out, n->path, n->ndim, n->dim, n->data);
  sq_format(path, sizeof path, "%s_re", n->path);
  SQ_TRY(sq_h5_write(out, path, n->ndim, n->dim, n->data));
  sq_format(path, sizeof path, "%s_im", n->path);
  SQ_TRY(sq_h5_write(out, path, n->ndim, n->dim, n->imaginary));
done:
  return st;
}

static sq_status dump_parameters(const parity_case *p, sq_h5 *out)
{
  const sq_param_list *l = sq_model_params(p->model);
  char path[SQ_PARAM_NAME + 32];
  sq_status st = SQ_OK;

  for (int k = 0; k < l->n; ++k) {
    const int buffer = (l->v[k].flags & SQ_PARAM_BUFFER) != 0;
    sq_format(path, sizeof path, "/%s/%s", buffer ? "batch_stats_before" : "params", l->v[k].name);
    SQ_TRY(copy_dataset(p, out, path, 0));
    if (!buffer)
      SQ_TRY(sq_h5_write_int_attribute(out, path, "trailing_re_im", (l->v[k].flags & SQ_PARAM_RE_IM) != 0));
  }
done:
  return st;
}

static sq_status dump_inputs(const parity_case *p, sq_h5 *out)
{
  sq_status st;

  SQ_TRY(copy_dataset(p, out, "/inputs", p->token != NULL));
  SQ_TRY(copy_dataset(p, out, "/labels", 1));
  if (sq_h5_exists(p->file, "/lengths")) {
    SQ_TRY(copy_dataset(p, out, "/lengths", 1));
    SQ_TRY(sq_h5_write_int_attribute(out, "/lengths", "used_by_model", p->len != NULL));
  }
done:
  return st;
}

static sq_status dump(const parity_case *p, const char *path)
{
  const size_t nradius = SQ_NRADIUS - 1, nphase = SQ_NPHASE - 1;
  sq_h5 *out = NULL;
  sq_status st;

  SQ_TRY(sq_h5_create_file(path, &out));
  SQ_TRY(sq_h5_write_text_attribute(out, "/", "config", p->config));
  SQ_TRY(sq_h5_write_text_attribute(out, "/", "case", p->name != NULL ? p->name : ""));
  SQ_TRY(sq_h5_write_text_attribute(out, "/", "precision", SQ_PRECISION));
  SQ_TRY(dump_inputs(p, out));
  SQ_TRY(dump_parameters(p, out));
  SQ_TRY(sq_h5_write(out, "/thresholds_radius", 1, &nradius, sq_radius_threshold));
  SQ_TRY(sq_h5_write(out, "/thresholds_phase_deg", 1, &nphase, sq_phase_threshold_deg));
  for (int k = 0; k < p->nnumber; ++k) SQ_TRY(dump_number(out, &p->number[k]));
  SQ_TRY(sq_h5_write_int_attribute(out, "/logits", "is_log_softmax", sq_model_log_probabilities(p->model)));
done:
  if (out != NULL) {
    const sq_status closed = sq_h5_close(&out);
    if (st == SQ_OK) st = closed;
  }
  return st;
}

/* ---- command ---------------------------------------------------------------------------------------------
 */
static sq_status check_kind(const char *path)
{
  const char *kind = sq_app_file_kind(path);
  sq_results *r = NULL;
  if (kind == NULL) return SQ_OK; /* opening it says what is wrong */
  if (strcmp(kind, "an HDF5 file") != 0)
    return sq_fail(SQ_ERR_DATA, "%s: %s; a parity case (HDF5) was expected", path, kind);
  const sq_status st = sq_results_open(path, &r);
  sq_results_close(&r);
  sq_error_clear();
  return st == SQ_OK ? sq_fail(SQ_ERR_DATA, "%s: a results file; a parity case was expected", path) : SQ_OK;
}

static sq_status one_case(const char *path, const char *dump_path, verdict *v)
{
  parity_case p;
  sq_status st = check_kind(path);

  *v = (verdict){.path = path, .worst = {NAN, NAN, NAN}};
  if (st != SQ_OK) return st;
  if (sq_parity_is_other(path)) {
    printf("%s: no parity case, skipped\n", path);
    return SQ_OK;
  }
  st = sq_parity_open(path, &p);
  if (st != SQ_OK) return st;
  v->model = sq_mixer_get(sq_model_mixer(p.model, 0))->name;
  SQ_TRY(sq_parity_compute(&p));
  SQ_TRY(compare(&p, dump_path == NULL, v));
  if (dump_path != NULL) SQ_TRY(dump(&p, dump_path));
done:
  sq_parity_close(&p);
  return st;
}

static const char *file_name(const char *path)
{
  const char *slash = strrchr(path, '/');
  return slash != NULL ? slash + 1 : path;
}

static void print_worst(double x)
{
  if (isnan(x))
    printf(" %15s", "-");
  else
    printf(" %15.2e", x);
}

/* Worst relative errors of all cases. */
static void print_summary(int n, const verdict *v)
{
  int width = 4;
  for (int i = 0; i < n; ++i) width = sq_max(width, (int)strlen(file_name(v[i].path)));
  printf("\nworst relative errors (%s)\n%-*s  %-14s %15s %15s %15s\n", SQ_PRECISION, width, "case", "model",
         "forward, grads", "eigenvalues", "optimiser");
  for (int i = 0; i < n; ++i) {
    if (v[i].model == NULL) continue;
    printf("%-*s  %-14s", width, file_name(v[i].path), v[i].model);
    for (int k = 0; k < NPART; ++k) print_worst(v[i].worst[k]);
    printf("  %s\n", v[i].bad > 0 ? "BAD" : "ok");
  }
}

sq_status sq_app_parity(int argc, char **argv)
{
  const char *dump_path = NULL;
  const sq_option options[] = {{"dump", SQ_OPT_TEXT, &dump_path, 0, 0}};
  static sq_words words;
  verdict *v = NULL;
  struct stat there;
  int ncase = 0, done = 0, bad = 0, damaged = 0;
  sq_status st;

  SQ_TRY(sq_args_parse("parity", argc, argv, options, 1, "CASE.h5", 1, SQ_MAX_WORDS, &words));
  if (dump_path != NULL && words.n > 1)
    return sq_fail(SQ_ERR_USAGE, "parity: --dump takes the numbers of one case, not of %d", words.n);
  if (dump_path != NULL && lstat(dump_path, &there) == 0)
    return sq_fail(SQ_ERR_USAGE, "parity: %s exists; choose another --dump", dump_path);
  v = sq_calloc((size_t)words.n, sizeof *v, "parity");
  if (v == NULL) return SQ_ERR_MEMORY;
  for (; done < words.n && st == SQ_OK; ++done) {
    st = one_case(words.v[done], dump_path, &v[done]);
    if (st == SQ_ERR_DATA && words.n > 1) { /* the others are worth having */
      sq_warn("%s", sq_error_text());
      sq_error_clear();
      v[done] = (verdict){.path = words.v[done]};
      ++damaged;
      st = SQ_OK;
    }
  }
  if (st != SQ_OK) --done; /* the last one has no verdict */
  for (int i = 0; i < done; ++i) {
    ncase += v[i].model != NULL;
    bad += v[i].bad;
  }
  if (ncase > 1) print_summary(done, v);
  if (bad > 0) printf("%d quantities above their tolerance or missing\n", bad);
  if (st == SQ_OK && damaged > 0)
    st = sq_fail(SQ_ERR_DATA, "parity: %d of %d files missing or damaged, see above", damaged, words.n);
  if (st == SQ_OK && ncase == 0)
    st = sq_fail(SQ_ERR_DATA, "%s: no parity case: / has no attribute 'config'", words.v[0]);
  if (st == SQ_OK && bad > 0) st = SQ_ERR_CHECK;
done:
  free(v);
  return st;
}
