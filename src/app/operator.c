/* src/app/operator.c: `operator transition`: all eigenvalues of the transition matrices of time-invariant layers, over all
 * ranks.
 *
 * A matrix is A = diag(a) - u v^*, the discretisation of diag(lam) - p p^*.  Three ways to its eigenvalues:
 *   dense        LAPACK (ZGEEV) on A; the matrices are dealt out over the ranks
 *   distributed  ScaLAPACK on A, one matrix after the other over all ranks
 *   secular      the secular equation of diag(lam) - p p^* in quadruple precision, one matrix after the other over all
 *                ranks; with a proof for each eigenvalue, mapped to A by (1 + step mu/2)/(1 - step mu/2)
 * Whatever the way, each value's backward error as an eigenvalue of A is taken, which costs O(n). */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cells.h"
#include "operator.h"
#include "sq/base.h"
#include "sq/eigen.h"
#include "sq/linalg.h"

typedef struct {
  const char *weights, *out, *method, *path;
  int cell, layer, channel; /* -1: all */
  sq_words set;
} options;

/* ---- one matrix ----------------------------------------------------------------------------------------- */
typedef enum { DENSE, DISTRIBUTED, SECULAR, DIAGONAL } method;
static const char *const method_name[] = {"dense", "distributed", "secular", "diagonal"};

typedef struct {
  const char *label;
  const sq_mixer *mixer;
  int layer, n, first, count; /* channels first .. first + count - 1 */
  method method;
  sq_complex *lambda;       /* (count,n) */
  double *backward, *trace; /* (count,n), (count) relative error of the sum */
  int64_t *certified;       /* (count,n) */
  double build_s, solve_s, check_s;
} layer_job;

typedef struct {
  sq_arena arena;
  sq_lti f;
  sq_complex *dense; /* (n,n) if method is DENSE */
  double *work;
  double *radius;
  int *certified;
  void *secular;
} workspace;

static void workspace_take(sq_arena *a, const layer_job *j, workspace *w)
{
  const size_t n = (size_t)j->n;
  w->f = (sq_lti){0};
  sq_mixer_get(j->mixer)->lti_dims(j->mixer, &w->f);
  w->f.a = SQ_TAKE(a, n, sq_complex);
  w->f.u = SQ_TAKE(a, n, sq_complex);
  w->f.v = SQ_TAKE(a, n, sq_complex);
  w->f.lam = SQ_TAKE(a, n, sq_complex);
  w->f.p = SQ_TAKE(a, n, sq_complex);
  w->radius = SQ_TAKE(a, n, double);
  w->certified = SQ_TAKE(a, n, int);
  if (j->method == DENSE) {
    w->dense = SQ_TAKE(a, n * n, sq_complex);
    w->work = SQ_TAKE(a, sq_eigenvalues_work(j->n), double);
  }
  if (j->method == SECULAR) w->secular = sq_arena_take(a, sq_eigen_secular_bytes(MPI_COMM_WORLD, j->n), 1);
}

static sq_complex entry(const void *user, int i, int j)
{
  const sq_lti *f = user;
  return (i == j ? f->a[i] : 0) - f->u[i] * conj(f->v[j]);
}

static sq_status solve_dense(const layer_job *j, workspace *w, sq_complex *lambda)
{
  const size_t n = (size_t)j->n;
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < n; ++k) w->dense[i * n + k] = entry(&w->f, (int)i, (int)k);
  return sq_eigenvalues(j->n, w->dense, lambda, w->work);
}

static sq_status solve_distributed(const layer_job *j, workspace *w, sq_complex *lambda)
{
  sq_pgrid *g = NULL;
  sq_dist d;
  sq_eigen_report r;
  sq_complex *part = NULL;
  sq_status st;
  SQ_TRY(sq_pgrid_create(MPI_COMM_WORLD, j->n, SQ_EIGEN_BLOCK, &g));
  SQ_TRY(sq_dist_init(&d, g, j->n, j->n, SQ_EIGEN_BLOCK));
  part = sq_calloc(sq_dist_count(&d), sizeof *part, "a distributed matrix");
  SQ_TRY(sq_app_agree(part ? SQ_OK : SQ_ERR_MEMORY));
  sq_dist_fill(&d, entry, &w->f, part);
  SQ_TRY(sq_eigen_values(&d, part, 0, lambda, &r)); /* the residuals are taken of every value below */
done:
  free(part);
  sq_pgrid_destroy(&g);
  return st;
}

static void solve_secular(const layer_job *j, workspace *w, sq_complex *lambda, int64_t *certified)
{
  const sq_rank_one A = {j->n, w->f.lam, w->f.p, w->f.p};
  sq_secular r = {.mu = lambda, .radius = w->radius, .certified = w->certified};
  sq_eigen_secular(MPI_COMM_WORLD, &A, 0, &r, w->secular);
  for (int i = 0; i < j->n; ++i) {
    const sq_complex half = 0.5 * w->f.step * r.mu[i];
    lambda[i] = (1 + half) / (1 - half);
    certified[i] = sq_app_rank() == 0 ? r.certified[i] : 0; /* summed over the ranks below */
  }
}

/* Backward errors of values first, first + stride, ... */
static void check_values(const layer_job *j, const sq_lti *f, const sq_complex *lambda, int first, int stride,
                         double *backward)
{
  const sq_rank_one A = {j->n, f->a, f->u, f->v};
  for (int i = first; i < j->n; i += stride) {
    sq_eigenvalue_quality q;
    sq_rank_one_eigenvalue(&A, lambda[i], 0, &q);
    backward[i] = q.backward_error;
  }
}

/* |sum lambda - tr A| as a fraction of sqrt(n) |A|: a lower bound on the backward error of all together. */
static double trace_error(const layer_job *j, const sq_lti *f, const sq_complex *lambda)
{
  const sq_rank_one A = {j->n, f->a, f->u, f->v};
  sq_complex sum = 0;
  for (int i = 0; i < j->n; ++i) sum += lambda[i] - entry(f, i, i);
  return cabs(sum) / (sqrt((double)j->n) * sq_rank_one_norm(&A));
}

/* ---- one layer ------------------------------------------------------------------------------------------ */
static sq_status solve_channel(layer_job *j, const sq_real *theta, workspace *w, int c)
{
  const int rank = sq_app_rank(), nrank = sq_app_nrank(), shared = j->method != DENSE;
  const size_t at = (size_t)c * (size_t)j->n;
  double start = sq_wall_s();
  sq_status st;
  if (!shared && c % nrank != rank) return SQ_OK;
  st = sq_mixer_get(j->mixer)->lti(j->mixer, theta, j->first + c, &w->f);
  if (shared) st = sq_app_agree(st);
  if (st != SQ_OK) return st;
  j->build_s += sq_wall_s() - start, start = sq_wall_s();
  if (j->method == DENSE) st = solve_dense(j, w, j->lambda + at);
  if (j->method == DISTRIBUTED) st = solve_distributed(j, w, j->lambda + at);
  if (j->method == SECULAR) solve_secular(j, w, j->lambda + at, j->certified + at);
  if (st != SQ_OK) return st;
  j->solve_s += sq_wall_s() - start, start = sq_wall_s();
  check_values(j, &w->f, j->lambda + at, shared ? rank : 0, shared ? nrank : 1, j->backward + at);
  if (!shared || rank == 0) j->trace[c] = trace_error(j, &w->f, j->lambda + at);
  j->check_s += sq_wall_s() - start;
  return SQ_OK;
}

/* Each element is of one rank and zero elsewhere, so the sum is exact. */
static void sum_to_all(void *x, size_t count, MPI_Datatype type)
{
  const size_t most = (size_t)1 << 26, size = 8;
  for (size_t done = 0; done < count; done += most)
    MPI_Allreduce(MPI_IN_PLACE, (char *)x + done * size, (int)(count - done < most ? count - done : most),
                  type, MPI_SUM, MPI_COMM_WORLD);
}

static sq_status solve_diagonal(layer_job *j, const sq_real *theta)
{
  sq_lti f = {0};
  sq_status st = SQ_OK;
  sq_mixer_get(j->mixer)->lti_dims(j->mixer, &f);
  for (int c = 0; c < j->count && st == SQ_OK; ++c) {
    f.a = j->lambda + (size_t)c * (size_t)j->n;
    st = sq_mixer_get(j->mixer)->lti(j->mixer, theta, j->first + c, &f);
  }
  for (size_t i = 0; i < (size_t)j->count * (size_t)j->n; ++i) j->certified[i] = 1;
  return sq_app_agree(st);
}

static sq_status solve_layer(layer_job *j, const sq_real *theta)
{
  workspace w = {0};
  sq_arena plan = {0};
  sq_status st;
  const size_t all = (size_t)j->count * (size_t)j->n;
  if (j->method == DIAGONAL) return solve_diagonal(j, theta);
  workspace_take(&plan, j, &w);
  SQ_TRY(sq_app_agree(sq_arena_create(&w.arena, plan.used, "transition matrices")));
  workspace_take(&w.arena, j, &w);
  for (int c = 0; c < j->count && st == SQ_OK; ++c) st = solve_channel(j, theta, &w, c);
  SQ_TRY(sq_app_agree(st));
  if (sq_app_nrank() > 1) {
    if (j->method == DENSE) sum_to_all(j->lambda, 2 * all, MPI_DOUBLE);
    sum_to_all(j->backward, all, MPI_DOUBLE);
    sum_to_all(j->trace, (size_t)j->count, MPI_DOUBLE);
    sum_to_all(j->certified, all, MPI_INT64_T);
  }
done:
  sq_arena_destroy(&w.arena);
  return st;
}

static void job_clear(layer_job *j)
{
  free(j->lambda);
  free(j->backward);
  free(j->trace);
  free(j->certified);
}

static sq_status job_create(const sq_model *m, const char *label, int layer, const options *o, layer_job *j)
{
  sq_lti f = {0};
  *j = (layer_job){.label = label, .layer = layer, .mixer = sq_model_mixer(m, layer)};
  const sq_mixer_ops *ops = sq_mixer_get(j->mixer);
  if (!ops->lti_dims)
    return sq_fail(
        SQ_ERR_USAGE,
        "operator transition: %s: layer %d (%s) has another transition at every step: there is no one matrix",
        label, layer, ops->name);
  ops->lti_dims(j->mixer, &f);
  if (o->channel >= f.nsystem)
    return sq_fail(SQ_ERR_USAGE, "operator transition: --channel %d: layer %d of %s has %d, counted from 0",
                   o->channel, layer, label, f.nsystem);
  j->n = f.n;
  j->first = o->channel >= 0 ? o->channel : 0;
  j->count = o->channel >= 0 ? 1 : f.nsystem;
  j->method = SECULAR;
  if (strcmp(o->method, "auto") == 0) j->method = j->n < SQ_OPERATOR_DENSE_BELOW ? DENSE : SECULAR;
  if (strcmp(o->method, "dense") == 0) j->method = DENSE;
  if (strcmp(o->method, "distributed") == 0) j->method = DISTRIBUTED;
  if (!f.dense) j->method = DIAGONAL;
  if (j->method == DISTRIBUTED && !sq_eigen_has_scalapack())
    return sq_fail(SQ_ERR_USAGE, "operator transition: --method distributed: built without ScaLAPACK: %s",
                   sq_eigen_scalapack());
  const size_t all = (size_t)j->count * (size_t)j->n;
  j->lambda = sq_calloc(all, sizeof *j->lambda, "eigenvalues");
  j->backward = sq_calloc(all, sizeof *j->backward, "eigenvalues");
  j->trace = sq_calloc((size_t)j->count, sizeof *j->trace, "eigenvalues");
  j->certified = sq_calloc(all, sizeof *j->certified, "eigenvalues");
  return j->lambda && j->backward && j->trace && j->certified ? SQ_OK : SQ_ERR_MEMORY;
}

/* ---- what is printed ------------------------------------------------------------------------------------ */
static int ascending(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double largest(const double *x, size_t n)
{
  double worst = 0;
  for (size_t i = 0; i < n; ++i)
    if (!(x[i] <= worst)) worst = x[i];
  return worst;
}

static void print_radii(const layer_job *j, double *radius)
{
  static const int quantile[] = {0, 10, 25, 50, 75, 90, 100};
  const size_t all = (size_t)j->count * (size_t)j->n;
  double share[SQ_NRADIUS];
  for (size_t i = 0; i < all; ++i) radius[i] = log(cabs(j->lambda[i]));
  sq_bin_radius(all, radius, 0, share);
  qsort(radius, all, sizeof *radius, ascending);
  printf("  radius    ");
  for (size_t q = 0; q < sizeof quantile / sizeof *quantile; ++q)
    printf("  %d%% %.6g", quantile[q], exp(radius[(size_t)quantile[q] * (all - 1) / 100]));
  printf("\n  share     ");
  for (int b = 0; b < SQ_NRADIUS; ++b) {
    char lower[24] = "0", upper[24] = "inf";
    if (b > 0) sq_format(lower, sizeof lower, "%g", sq_radius_threshold[b - 1]);
    if (b < SQ_NRADIUS - 1) sq_format(upper, sizeof upper, "%g", sq_radius_threshold[b]);
    printf("  %s%s,%s] %.1f%%", b ? "(" : "[", lower, upper, share[b]);
  }
  printf("\n");
}

static sq_status print_layer(const layer_job *j)
{
  const size_t all = (size_t)j->count * (size_t)j->n;
  size_t certified = 0;
  double *radius = sq_calloc(all, sizeof *radius, "radii");
  if (!radius) return SQ_ERR_MEMORY;
  printf("%s, layer %d: %d matri%s of order %d, method %s on %d rank%s\n", j->label, j->layer, j->count,
         j->count == 1 ? "x" : "ces", j->n, method_name[j->method], sq_app_nrank(),
         sq_app_nrank() == 1 ? "" : "s");
  print_radii(j, radius);
  free(radius);
  for (size_t i = 0; i < all; ++i) certified += j->certified[i] != 0;
  if (j->method == DIAGONAL) {
    printf("  checks       the matrix is diagonal: its entries are the eigenvalues\n");
    return SQ_OK;
  }
  printf("  checks       largest backward error %.2e, largest error of the trace %.2e",
         largest(j->backward, all), largest(j->trace, (size_t)j->count));
  if (j->method == SECULAR)
    printf(", certified %zu of %zu\n", certified, all);
  else
    printf(", none certified (--method secular does)\n");
  printf("  seconds      matrices %.3f, eigenvalues %.3f, checks %.3f\n", j->build_s, j->solve_s, j->check_s);
  fflush(stdout);
  return SQ_OK;
}

/* ---- the file ------------------------------------------------------------------------------------------- */
/* A label may hold what a path may not. */
static void group_name(char out[256], const char *label)
{
  sq_format(out, 256, "/operators/transition/%.200s", label);
  for (char *c = out + strlen("/operators/transition/"); *c; ++c)
    if (*c == '/') *c = '_';
}

static sq_status write_layer(sq_h5 *f, const layer_job *j)
{
  char group[256], path[320];
  const size_t dim[2] = {(size_t)j->count, (size_t)j->n};
  sq_status st;
  group_name(group, j->label);
  sq_format(path, sizeof path, "%s/layer%d/lambda", group, j->layer);
  if (sq_h5_exists(f, path))
    return sq_fail(SQ_ERR_USAGE, "operator transition: the file already has %s; choose another --out", path);
  SQ_TRY(sq_h5_write_complex(f, path, 2, dim, j->lambda));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "long_name", "eigenvalues of the transition matrix"));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "1"));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "axes", "channel, state"));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "method", method_name[j->method]));
  SQ_TRY(sq_h5_write_int_attribute(f, path, "first_channel", j->first));
  sq_format(path, sizeof path, "%s/layer%d/backward_error", group, j->layer);
  SQ_TRY(sq_h5_write(f, path, 2, dim, j->backward));
  SQ_TRY(
      sq_h5_write_text_attribute(f, path, "long_name", "relative backward error |A x - lambda x|/(|A| |x|)"));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "1"));
  sq_format(path, sizeof path, "%s/layer%d/certified", group, j->layer);
  SQ_TRY(sq_h5_write_int(f, path, 2, dim, j->certified));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "long_name", "1: proven by an inclusion disc of its own"));
  SQ_TRY(sq_h5_write_text_attribute(f, path, "units", "1"));
done:
  return st;
}

/* Rank 0, before anything is computed: a file of its own, or one of a finished run that gets more groups. */
static sq_status open_output(const char *out, sq_h5 **f)
{
  sq_status st = access(out, F_OK) == 0 ? sq_h5_extend_results(out, f) : sq_h5_create_file(out, f);
  if (st == SQ_ERR_DATA) {
    sq_error_clear();
    st = sq_fail(
        SQ_ERR_USAGE,
        "operator transition: %s exists and is no results file of this version; choose another --out", out);
  }
  return st;
}

/* ---- the cells ------------------------------------------------------------------------------------------ */
/* Two cells of the same model with the same initial weights have the same matrices. */
static int same_matrices(const sq_config *a, const sq_config *b)
{
  cJSON *x = cJSON_Parse(sq_config_json(a)), *y = cJSON_Parse(sq_config_json(b));
  int same = x && y && strcmp(sq_config_label(a), sq_config_label(b)) == 0;
  static const char *const part[] = {"model", "seed", "dataset"};
  for (size_t i = 0; i < sizeof part / sizeof *part; ++i)
    same = same && cJSON_Compare(cJSON_GetObjectItemCaseSensitive(x, part[i]),
                                 cJSON_GetObjectItemCaseSensitive(y, part[i]), 1);
  cJSON_Delete(x);
  cJSON_Delete(y);
  return same;
}

typedef struct {
  const options *o;
  const sq_experiment *grid;
  sq_h5 *file; /* rank 0 */
} run;

static sq_status one_layer(const run *r, const sq_model *m, const char *label, int layer,
                           const sq_real *theta)
{
  layer_job j = {0};
  sq_status st;
  SQ_TRY(sq_app_agree(job_create(m, label, layer, r->o, &j)));
  SQ_TRY(solve_layer(&j, theta));
  if (sq_app_rank() == 0) {
    st = print_layer(&j);
    if (st == SQ_OK) st = write_layer(r->file, &j);
  }
  SQ_TRY(sq_app_agree(st));
done:
  job_clear(&j);
  return st;
}

static sq_status one_cell(const run *r, int cell)
{
  const sq_config *c = sq_experiment_cell(r->grid, cell);
  sq_task_info info;
  sq_model *m = NULL;
  sq_real *theta = NULL;
  char label[256];
  sq_status st = sq_task_shape(c, &info);
  SQ_TRY(sq_app_agree(st));
  const sq_model_dims d = {.seq_len = info.seq_len,
                           .max_rows = info.seq_len,
                           .max_seqs = 1,
                           .max_labels = info.label_per_row ? info.seq_len : 1,
                           .label_per_row = info.label_per_row};
  SQ_TRY(sq_app_agree(sq_model_create(c, d, &m)));
  theta = sq_calloc(sq_model_params(m)->total, sizeof *theta, "parameters");
  SQ_TRY(sq_app_agree(theta ? SQ_OK : SQ_ERR_MEMORY));
  if (r->o->weights)
    st = sq_weights_read(m, r->grid, r->o->weights, cell, theta);
  else
    sq_model_init(m, (uint64_t)sq_config_int(c, "seed"), theta);
  SQ_TRY(sq_app_agree(st));
  if (r->o->layer >= sq_model_nlayer(m)) {
    st = sq_fail(SQ_ERR_USAGE, "operator transition: --layer %d: %s has %d, counted from 0", r->o->layer,
                 sq_config_label(c), sq_model_nlayer(m));
    goto done;
  }
  sq_format(label, sizeof label, "%.250s", sq_config_label(c));
  for (int k = 0; k < cell;
       ++k) /* cells of one label (other seeds, other sizes) get their number behind it */
    if (strcmp(sq_config_label(sq_experiment_cell(r->grid, k)), sq_config_label(c)) == 0) {
      sq_format(label, sizeof label, "%.200s-cell%d", sq_config_label(c), cell);
      break;
    }
  for (int l = 0; l < sq_model_nlayer(m); ++l)
    if (r->o->layer < 0 || r->o->layer == l) SQ_TRY(one_layer(r, m, label, l, theta));
done:
  free(theta);
  sq_model_destroy(&m);
  return st;
}

static sq_status all_cells(const run *r)
{
  sq_status st = SQ_OK;
  for (int i = 0; i < sq_experiment_ncell(r->grid) && st == SQ_OK; ++i) {
    const sq_config *c = sq_experiment_cell(r->grid, i);
    int seen = 0;
    if (r->o->cell >= 0 && r->o->cell != i) continue;
    for (int k = 0; k < i && r->o->cell < 0 && !seen; ++k)
      seen = same_matrices(c, sq_experiment_cell(r->grid, k));
    if (!seen) st = one_cell(r, i);
  }
  return st;
}

/* ---- the command ---------------------------------------------------------------------------------------- */
static sq_status parse(int argc, char **argv, options *o, sq_words *w)
{
  const sq_option opt[] = {
      {"weights", SQ_OPT_TEXT, &o->weights, 0, 0}, {"cell", SQ_OPT_INT, &o->cell, 0, 1e6},
      {"layer", SQ_OPT_INT, &o->layer, 0, 1e6},    {"channel", SQ_OPT_INT, &o->channel, 0, 1e9},
      {"method", SQ_OPT_TEXT, &o->method, 0, 0},   {"out", SQ_OPT_TEXT, &o->out, 0, 0},
      {"set", SQ_OPT_LIST, &o->set, 0, 0}};
  sq_status st;
  SQ_TRY(sq_args_parse("operator", argc, argv, opt, sizeof opt / sizeof *opt, "KIND CONFIG", 1, 2, w));
  SQ_TRY(sq_args_choice("operator", "kind", w->v[0], "transition|hankel|koopman|covariance"));
  if (strcmp(w->v[0], "transition") != 0)
    return sq_fail(SQ_ERR_USAGE, "operator %s is reserved: not part of this version; operator transition is",
                   w->v[0]);
  if (w->n < 2)
    return sq_fail(SQ_ERR_USAGE, "operator transition: CONFIG is missing; usage: seqspectra help operator");
  SQ_TRY(sq_args_choice("operator", "method", o->method, "auto|dense|distributed|secular"));
  if (o->weights && o->cell < 0) o->cell = 0;
done:
  return st;
}

sq_status sq_app_operator(int argc, char **argv)
{
  static options o; /* the list of words is too large for a stack */
  static sq_words w;
  sq_experiment *grid = NULL;
  run r = {.o = &o};
  char out[4096];
  sq_status st;
  o = (options){.method = "auto", .cell = -1, .layer = -1, .channel = -1};
  SQ_TRY(sq_app_agree(parse(argc, argv, &o, &w)));
  SQ_TRY(sq_app_agree(sq_app_load(w.v[1], &o.set, &grid)));
  r.grid = grid;
  if (o.cell >= sq_experiment_ncell(grid)) {
    st = sq_fail(SQ_ERR_USAGE, "operator transition: --cell %d: %s has %d cell%s, counted from 0", o.cell,
                 w.v[1], sq_experiment_ncell(grid), sq_experiment_ncell(grid) == 1 ? "" : "s");
    goto done;
  }
  if (o.out ? snprintf(out, sizeof out, "%s", o.out) >= (int)sizeof out
            : snprintf(out, sizeof out, "%s-transition.h5", sq_experiment_name(grid)) >= (int)sizeof out) {
    st = sq_fail(SQ_ERR_USAGE, "operator transition: the name of the file is too long");
    goto done;
  }
  sq_blas_set_threads(sq_config_int(sq_experiment_cell(grid, 0), "run.threads"));
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? open_output(out, &r.file) : SQ_OK));
  SQ_TRY(all_cells(&r));
  SQ_TRY(sq_app_agree(r.file ? sq_h5_close(&r.file) : SQ_OK));
  if (sq_app_rank() == 0) printf("results: %s\n", out);
done:
  sq_h5_abandon(&r.file);
  sq_experiment_destroy(&grid);
  return st;
}
