/* src/app/operator_output.c: what `operator transition` prints and stores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "operator.h"
#include "sq/base.h"

static const char *const method_name[] = {"dense", "distributed", "secular", "diagonal"};

int sq_operator_finite(sq_complex z)
{
  return isfinite(creal(z)) && isfinite(cimag(z));
}

size_t sq_operator_bad(const operator_job *j)
{
  size_t bad = 0;
  for (size_t i = 0; i < (size_t)j->count * (size_t)j->n; ++i)
    bad += !sq_operator_finite(j->lambda[i]) || !(j->backward[i] <= SQ_OPERATOR_BACKWARD_MOST);
  return bad;
}

/* ---- what is printed ------------------------------------------------------------------------------------ */
static int ascending(const void *a, const void *b) /* NaN last */
{
  const double x = *(const double *)a, y = *(const double *)b;
  if (isnan(x) || isnan(y)) return isnan(x) - isnan(y);
  return x < y ? -1 : x > y;
}

/* NaN is the largest. */
static double largest(const double *x, size_t n)
{
  double worst = 0;
  for (size_t i = 0; i < n && !isnan(worst); ++i)
    if (!(x[i] <= worst)) worst = x[i];
  return worst;
}

static double quantile(const double *sorted, size_t n, int percent)
{
  return sorted[(size_t)percent * (n - 1) / 100];
}

static int bin_of(double modulus)
{
  int b = 0;
  while (b < SQ_NRADIUS - 1 && modulus > sq_radius_threshold[b]) ++b;
  return b;
}

/* Bins whose share could change by more than one value and one percentage point: by the values that could leave
   or come within what one rounding of the parameters does, to first order. */
static void mark(const operator_job *j, int marked[SQ_NRADIUS])
{
  const size_t all = (size_t)j->count * (size_t)j->n;
  size_t in[SQ_NRADIUS] = {0}, away[SQ_NRADIUS] = {0};
  for (size_t i = 0; i < all; ++i) {
    const double size = cabs(j->lambda[i]), reach = j->sensitivity[i];
    if (isnan(size)) continue;
    const int own = bin_of(size), low = isnan(reach) ? 0 : bin_of(fmax(0, size - reach)),
              high = isnan(reach) ? SQ_NRADIUS - 1 : bin_of(size + reach);
    away[own] += low != own || high != own;
    for (int b = low; b <= high; ++b) in[b] += b != own;
  }
  for (int b = 0; b < SQ_NRADIUS; ++b) {
    const size_t count = in[b] > away[b] ? in[b] : away[b];
    marked[b] = j->method != OPERATOR_DIAGONAL && count > 1 && 100 * count > all;
  }
}

static int print_shares(const operator_job *j, const double *log_radius)
{
  double share[SQ_NRADIUS];
  int marked[SQ_NRADIUS], any = 0;
  sq_bin_radius((size_t)j->count * (size_t)j->n, log_radius, 0, share);
  mark(j, marked);
  printf("\n  share      ");
  for (int b = 0; b < SQ_NRADIUS; ++b) {
    char lower[24] = "0", upper[24] = "inf";
    if (b > 0) sq_format(lower, sizeof lower, "%g", sq_radius_threshold[b - 1]);
    if (b < SQ_NRADIUS - 1) sq_format(upper, sizeof upper, "%g", sq_radius_threshold[b]);
    printf("  %s%s,%s] %.1f%%%s", b ? "(" : "[", lower, upper, share[b], marked[b] ? "*" : "");
    any |= marked[b];
  }
  printf("\n");
  return any;
}

void sq_operator_print_footnote(void)
{
  printf("* one rounding (%s) of the stored parameters moves this share by more than one value and one "
         "percentage\n  point, to first order: it says nothing about the parameters meant\n",
         SQ_PRECISION);
}

/* Whether a share is marked; x (count n) is borrowed. */
static int print_radii(const operator_job *j, double *x)
{
  static const int percent[] = {0, 10, 25, 50, 75, 90, 100};
  const size_t all = (size_t)j->count * (size_t)j->n;
  for (size_t i = 0; i < all; ++i) x[i] = cabs(j->lambda[i]);
  qsort(x, all, sizeof *x, ascending);
  printf("  radius       quantiles:");
  for (size_t q = 0; q < sizeof percent / sizeof *percent; ++q)
    printf("  %d%% %.6g", percent[q], quantile(x, all, percent[q]));
  for (size_t i = 0; i < all; ++i) x[i] = log(cabs(j->lambda[i]));
  return print_shares(j, x);
}

static void print_qualities(const operator_job *j, double *x)
{
  const size_t all = (size_t)j->count * (size_t)j->n;
  memcpy(x, j->condition, all * sizeof *x);
  qsort(x, all, sizeof *x, ascending);
  printf("  condition    reciprocal, |y*x|: smallest %.2e, median %.2e\n", x[0], quantile(x, all, 50));
  memcpy(x, j->sensitivity, all * sizeof *x);
  qsort(x, all, sizeof *x, ascending);
  printf("  sensitivity  to one rounding (%s) of the stored parameters, first order: largest %.2e, median "
         "%.2e\n",
         SQ_PRECISION, x[all - 1], quantile(x, all, 50));
}

static void print_checks(const operator_job *j)
{
  const size_t all = (size_t)j->count * (size_t)j->n;
  size_t certified = 0;
  for (size_t i = 0; i < all; ++i) certified += j->certified[i] != 0;
  printf("  checks       largest backward error %.2e, largest error of the trace %.2e\n",
         largest(j->backward, all), largest(j->trace, (size_t)j->count));
  if (j->method == OPERATOR_SECULAR)
    printf("  certified    %zu of %zu, as eigenvalues of the stored (rounded) parameters\n", certified, all);
  else
    printf("  certified    none (--method secular does)\n");
  if (j->cross_check)
    printf("  LAPACK       on the first matrix: largest backward error %.2e, farthest from a certified value "
           "%.2e\n",
           j->lapack_backward, j->lapack_distance);
}

sq_status sq_operator_print(const operator_job *j, int *marked)
{
  const size_t bad = sq_operator_bad(j);
  double *x = sq_calloc((size_t)j->count * (size_t)j->n, sizeof *x, "radii");
  if (!x) return SQ_ERR_MEMORY;
  printf("%s, layer %d: %d matri%s of order %d, method %s on %d rank%s\n", j->label, j->layer, j->count,
         j->count == 1 ? "x" : "ces", j->n, method_name[j->method], sq_app_nrank(),
         sq_app_nrank() == 1 ? "" : "s");
  if (print_radii(j, x)) *marked = 1;
  if (j->method == OPERATOR_DIAGONAL) {
    printf("  checks       the matrix is diagonal: its entries are the eigenvalues\n");
  } else {
    print_qualities(j, x);
    print_checks(j);
    printf("  seconds      matrices %.3f, eigenvalues %.3f, checks %.3f\n", j->build_s, j->solve_s,
           j->check_s);
  }
  if (bad > 0)
    printf("  BAD          %zu values are not finite, or have a backward error above %g\n", bad,
           SQ_OPERATOR_BACKWARD_MOST);
  free(x);
  fflush(stdout);
  return SQ_OK;
}

/* ---- the file ------------------------------------------------------------------------------------------- */
/* A label may hold what a path may not. */
static void group_name(char out[256], const operator_job *j)
{
  char label[201];
  sq_format(label, sizeof label, "%.200s", j->label);
  for (char *c = label; *c; ++c)
    if (*c == '/') *c = '_';
  sq_format(out, 256, "/operators/transition/%s/layer%d", label, j->layer);
}

sq_status sq_operator_write_root(sq_h5 *f)
{
  sq_status st;
  SQ_TRY(sq_h5_write_int_attribute(f, "/", "schema_version", SQ_SCHEMA_VERSION));
  SQ_TRY(sq_h5_write_text_attribute(f, "/", "program", "seqspectra"));
  SQ_TRY(sq_h5_write_text_attribute(f, "/", "precision", SQ_PRECISION));
done:
  return st;
}

/* A data set (channel, state): x, or i where x is NULL, or lambda where both are. */
static sq_status write_values(sq_h5 *f, const operator_job *j, const char *group, const char *name,
                              const char *long_name, const double *x, const int64_t *i)
{
  char path[320], channel[320], state[320];
  const char *const axis[2] = {channel, state};
  const size_t dim[2] = {(size_t)j->count, (size_t)j->n};
  sq_status st;
  sq_format(path, sizeof path, "%s/%s", group, name);
  sq_format(channel, sizeof channel, "%s/channel", group);
  sq_format(state, sizeof state, "%s/state", group);
  SQ_TRY(x   ? sq_h5_write(f, path, 2, dim, x)
         : i ? sq_h5_write_int(f, path, 2, dim, i)
             : sq_h5_write_complex(f, path, 2, dim, j->lambda));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "long_name", long_name));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "1"));
  SQ_TRY(sq_h5_use_axes(f, path, 2, axis));
done:
  return st;
}

static sq_status write_axes(sq_h5 *f, const operator_job *j, const char *group)
{
  char path[320];
  sq_status st;
  sq_format(path, sizeof path, "%s/channel", group);
  SQ_TRY(sq_h5_write_axis(f, path, (size_t)j->count, j->first, "channel of the layer"));
  sq_format(path, sizeof path, "%s/state", group);
  SQ_TRY(sq_h5_write_axis(f, path, (size_t)j->n, 0, "number of the eigenvalue"));
done:
  return st;
}

static sq_status write_time(sq_h5 *f, const char *run, const char *name, const char *long_name, double s)
{
  char path[320];
  sq_status st;
  sq_format(path, sizeof path, "%s/%s", run, name);
  SQ_TRY(sq_h5_write(f, path, 0, NULL, &s));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "long_name", long_name));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "s"));
done:
  return st;
}

/* Where and with what: apart, because the numbers do not depend on it. */
static sq_status write_run(sq_h5 *f, const operator_job *j, const char *group)
{
  const sq_segment *g = j->segment;
  const struct {
    const char *name, *text;
  } fact[] = {{"time", g->time},
              {"program_version", g->program},
              {"cpu", g->cpu},
              {"blas", g->blas},
              {"blas_kernel", g->blas_kernel},
              {"mpi", g->mpi},
              {"hdf5", g->hdf5},
              {"hosts", g->hosts}};
  char run[300];
  sq_status st;
  sq_format(run, sizeof run, "%s/run", group);
  SQ_TRY(write_time(f, run, "matrices_s", "seconds of rank 0 for the matrices", j->build_s));
  SQ_TRY(write_time(f, run, "eigenvalues_s", "seconds of rank 0 for the eigenvalues", j->solve_s));
  SQ_TRY(write_time(f, run, "checks_s", "seconds of rank 0 for errors and conditions", j->check_s));
  for (size_t i = 0; i < sizeof fact / sizeof *fact; ++i)
    SQ_TRY(sq_h5_write_text_attribute(f, run, fact[i].name, fact[i].text));
  SQ_TRY(sq_h5_write_int_attribute(f, run, "ranks", g->ranks));
  SQ_TRY(sq_h5_write_int_attribute(f, run, "threads", g->threads));
done:
  return st;
}

static sq_status write_qualities(sq_h5 *f, const operator_job *j, const char *group)
{
  sq_status st;
  SQ_TRY(write_values(f, j, group, "condition",
                      "reciprocal condition |y^* x| of unit eigenvectors: 1 is best, 0 is defective",
                      j->condition, NULL));
  SQ_TRY(write_values(f, j, group, "sensitivity",
                      "change to first order by one rounding (" SQ_PRECISION ") of every parameter",
                      j->sensitivity, NULL));
done:
  return st;
}

sq_status sq_operator_write(sq_h5 *f, const operator_job *j)
{
  char group[256];
  sq_status st;
  group_name(group, j);
  if (sq_h5_exists(f, group))
    return sq_fail(SQ_ERR_USAGE, "operator transition: the file already has %s; choose another --out", group);
  SQ_TRY(write_axes(f, j, group));
  SQ_TRY(sq_h5_write_text_attribute(f, group, "method", method_name[j->method]));
  SQ_TRY(sq_h5_write_text_attribute(f, group, "config", j->config));
  SQ_TRY(sq_h5_write_text_attribute(f, group, "weights", j->weights));
  SQ_TRY(write_values(f, j, group, "lambda", "eigenvalues of the transition matrix", NULL, NULL));
  if (j->method == OPERATOR_SECULAR || j->method == OPERATOR_DIAGONAL)
    SQ_TRY(write_values(
        f, j, group, "lambda_radius",
        "radius of the disc around lambda that holds the eigenvalue of the stored (rounded) parameters",
        j->radius, NULL));
  SQ_TRY(write_values(f, j, group, "backward_error", "relative backward error |A x - lambda x|/(|A| |x|)",
                      j->backward, NULL));
  SQ_TRY(write_values(f, j, group, "certified",
                      "1: proven by an inclusion disc of its own, for the parameters as stored (rounded)",
                      NULL, j->certified));
  if (j->method != OPERATOR_DIAGONAL) SQ_TRY(write_qualities(f, j, group));
  SQ_TRY(write_run(f, j, group));
done:
  return st;
}
