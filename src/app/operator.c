/* src/app/operator.c: `operator transition`: all eigenvalues of the transition matrices of time-invariant layers, over all
 * ranks.
 *
 * A matrix is A = diag(a) - u v^*, the discretisation of diag(lam) - p p^*.  Three ways to its eigenvalues:
 *   dense        LAPACK (ZGEEV) on A; the matrices are dealt out over the ranks
 *   distributed  ScaLAPACK on A, one matrix after the other over all ranks
 *   secular      the secular equation of diag(lam) - p p^* in quadruple precision, small matrices dealt out, large ones one
 *                after the other over all ranks; with a proof for each eigenvalue, mapped to A by (1 + step mu/2)/(1 - step mu/2)
 * Whatever the way, each value's backward error as an eigenvalue of A, its condition and what one rounding of the
 * stored parameters does to it are taken, which costs O(n). */
#include <cjson/cJSON.h>
#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "cells.h"
#include "operator.h"
#include "sq/base.h"
#include "sq/linalg.h"

#define MAX_NAME 4096 /* of the file */

typedef struct {
  const char *weights, *out, *method, *path;
  int cell, layer, channel; /* -1: all */
  sq_words set;
} options;

/* ---- one matrix ----------------------------------------------------------------------------------------- */
typedef struct {
  sq_arena arena;
  sq_lti f;
  sq_complex *dense; /* (n,n) if method is OPERATOR_DENSE */
  double *work;
  double *radius;
  int *certified, solved;   /* solved: mu is that of the matrix lam, p */
  sq_complex *mu, *lam, *p; /* (n) of the last secular equation */
  void *secular;
} workspace;

static MPI_Comm team_of(const operator_job *j)
{
  return j->dealt ? MPI_COMM_SELF : MPI_COMM_WORLD;
}

static void workspace_take(sq_arena *a, const operator_job *j, workspace *w)
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
  if (j->method == OPERATOR_DENSE || j->cross_check) {
    w->dense = SQ_TAKE(a, n * n, sq_complex);
    w->work = SQ_TAKE(a, sq_eigenvalues_work(j->n), double);
  }
  w->mu = SQ_TAKE(a, n, sq_complex);
  w->lam = SQ_TAKE(a, n, sq_complex);
  w->p = SQ_TAKE(a, n, sq_complex);
  if (j->method == OPERATOR_SECULAR)
    w->secular = sq_arena_take(a, sq_eigen_secular_bytes(team_of(j), j->n), 1);
}

static sq_complex entry(const void *user, int i, int j)
{
  const sq_lti *f = user;
  return (i == j ? f->a[i] : 0) - f->u[i] * conj(f->v[j]);
}

static sq_status solve_dense(const operator_job *j, workspace *w, sq_complex *lambda)
{
  const size_t n = (size_t)j->n;
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < n; ++k) w->dense[i * n + k] = entry(&w->f, (int)i, (int)k);
  return sq_eigenvalues(j->n, w->dense, lambda, w->work);
}

static sq_status solve_distributed(const operator_job *j, workspace *w, sq_complex *lambda)
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

/* Channels as initialised have the same lam and p, and other steps: the equation is solved once. */
static void solve_equation(const operator_job *j, workspace *w)
{
  const size_t bytes = (size_t)j->n * sizeof *w->lam;
  const sq_rank_one A = {j->n, w->f.lam, w->f.p, w->f.p};
  sq_secular r = {.mu = w->mu, .radius = w->radius, .certified = w->certified};
  if (w->solved && memcmp(w->lam, w->f.lam, bytes) == 0 && memcmp(w->p, w->f.p, bytes) == 0) return;
  sq_eigen_secular(team_of(j), &A, 0, &r, w->secular);
  memcpy(w->lam, w->f.lam, bytes);
  memcpy(w->p, w->f.p, bytes);
  w->solved = 1;
}

/* Values at and after `at` of the job's arrays. */
static void solve_secular(operator_job *j, workspace *w, size_t at)
{
  const int mine = j->dealt || sq_app_rank() == 0; /* the arrays but lambda are summed over the ranks below */
  solve_equation(j, w);
  for (int i = 0; i < j->n; ++i) {
    const sq_complex lambda = sq_lti_bilinear(w->f.step, w->mu[i]);
    j->lambda[at + (size_t)i] = lambda;
    if (!mine) continue;
    j->radius[at + (size_t)i] = sq_lti_disc(w->f.step, w->mu[i], w->radius[i], lambda);
    j->certified[at + (size_t)i] = w->certified[i] && sq_operator_finite(lambda);
  }
}

/* ---- what a value is worth ------------------------------------------------------------------------------ */
/* Two bounds of the backward error that hold where the formula's vector is not the best one: of a vector on the two
   entries of d next to z that v does not see, and of the unit vector of the next one (or, from the left, its own). */
static double backward_of_entries(const sq_rank_one *A, sq_complex z)
{
  double next = INFINITY, second = INFINITY, u = 0, v = 0;
  int k = 0;
  for (int i = 0; i < A->n; ++i) {
    const double apart = cabs(A->d[i] - z);
    u += creal(A->u[i] * conj(A->u[i]));
    v += creal(A->v[i] * conj(A->v[i]));
    if (apart < next)
      second = next, next = apart, k = i;
    else
      second = fmin(second, apart);
  }
  return fmin(second, next + fmin(sqrt(u) * cabs(A->v[k]), sqrt(v) * cabs(A->u[k]))) / sq_rank_one_norm(A);
}

/* z may be an entry of d to the last digit and still be the eigenvalue beside it: then one unit further. */
static void quality_of(const sq_rank_one *A, sq_complex z, double relative, sq_eigenvalue_quality *q)
{
  sq_rank_one_eigenvalue(A, z, relative, q);
  if (isnan(q->backward_error) || isnan(q->condition)) {
    sq_rank_one_eigenvalue(A, z * (1 + DBL_EPSILON), relative, q);
    q->backward_error += DBL_EPSILON * cabs(z) / sq_rank_one_norm(A);
  }
}

/* Values first, first + stride, ... */
static void check_values(operator_job *j, const workspace *w, size_t at, int first, int stride)
{
  const sq_lti *f = &w->f;
  const sq_rank_one A = {j->n, f->a, f->u, f->v}, continuous = {j->n, f->lam, f->p, f->p};
  for (int i = first; i < j->n; i += stride) {
    const sq_complex z = j->lambda[at + (size_t)i];
    /* the change of the step by one rounding of its logarithm, and of mu, taken to lambda */
    const sq_complex mu = j->method == OPERATOR_SECULAR ? w->mu[i] : 2 / f->step * (z - 1) / (z + 1);
    const double below = cabs(1 - 0.5 * f->step * mu);
    sq_eigenvalue_quality q, c;
    quality_of(&A, z, 0, &q);
    quality_of(&continuous, mu, SQ_REAL_EPS, &c);
    if (!(q.backward_error <= SQ_OPERATOR_BACKWARD_MOST) && sq_operator_finite(z))
      q.backward_error = fmin(q.backward_error, backward_of_entries(&A, z));
    j->backward[at + (size_t)i] = q.backward_error;
    j->condition[at + (size_t)i] = j->method == OPERATOR_SECULAR ? c.condition : q.condition;
    j->sensitivity[at + (size_t)i] =
        f->step * (c.sensitivity + SQ_REAL_EPS * fabs(log(f->step)) * cabs(mu)) / (below * below);
  }
}

/* LAPACK on a matrix whose values are certified. */
static sq_status cross_check(operator_job *j, workspace *w)
{
  const sq_rank_one A = {j->n, w->f.a, w->f.u, w->f.v};
  const sq_status st = solve_dense(j, w, w->mu);
  if (st != SQ_OK) return st;
  for (int i = 0; i < j->n; ++i) {
    sq_eigenvalue_quality q;
    double nearest = INFINITY;
    quality_of(&A, w->mu[i], 0, &q);
    for (int k = 0; k < j->n; ++k) nearest = fmin(nearest, cabs(w->mu[i] - j->lambda[k]));
    j->lapack_backward = fmax(j->lapack_backward, q.backward_error);
    j->lapack_distance = fmax(j->lapack_distance, nearest);
  }
  return SQ_OK;
}

/* |sum lambda - tr A| as a fraction of sqrt(n) |A|: a lower bound on the backward error of all together. */
static double trace_error(const operator_job *j, const sq_lti *f, const sq_complex *lambda)
{
  const sq_rank_one A = {j->n, f->a, f->u, f->v};
  sq_complex sum = 0;
  for (int i = 0; i < j->n; ++i) sum += lambda[i] - entry(f, i, i);
  return cabs(sum) / (sqrt((double)j->n) * sq_rank_one_norm(&A));
}

/* ---- one layer ------------------------------------------------------------------------------------------ */
static sq_status solve_channel(operator_job *j, const sq_real *theta, workspace *w, int c)
{
  const int rank = sq_app_rank(), nrank = sq_app_nrank(), shared = !j->dealt;
  const size_t at = (size_t)c * (size_t)j->n;
  double start = sq_wall_s();
  sq_status st;
  if (!shared && c % nrank != rank) return SQ_OK;
  st = sq_mixer_get(j->mixer)->lti(j->mixer, theta, j->first + c, &w->f);
  if (shared) st = sq_app_agree(st);
  if (st != SQ_OK) return st;
  j->build_s += sq_wall_s() - start, start = sq_wall_s();
  if (j->method == OPERATOR_DENSE) st = solve_dense(j, w, j->lambda + at);
  if (j->method == OPERATOR_DISTRIBUTED) st = solve_distributed(j, w, j->lambda + at);
  if (j->method == OPERATOR_SECULAR) solve_secular(j, w, at);
  if (st != SQ_OK) return st;
  j->solve_s += sq_wall_s() - start, start = sq_wall_s();
  check_values(j, w, at, shared ? rank : 0, shared ? nrank : 1);
  if (!shared || rank == 0) j->trace[c] = trace_error(j, &w->f, j->lambda + at);
  if (c == 0 && j->cross_check) {
    if (rank == 0) st = cross_check(j, w);
    w->solved = 0; /* on every rank, as on the one that has used the space */
    if (shared) st = sq_app_agree(st);
  }
  j->check_s += sq_wall_s() - start;
  return st;
}

/* Each element is of one rank and zero elsewhere, so the sum is exact. */
static void sum_to_all(void *x, size_t count, MPI_Datatype type)
{
  const size_t most = (size_t)1 << 26, size = 8;
  for (size_t done = 0; done < count; done += most)
    MPI_Allreduce(MPI_IN_PLACE, (char *)x + done * size, (int)(count - done < most ? count - done : most),
                  type, MPI_SUM, MPI_COMM_WORLD);
}

static sq_status solve_diagonal(operator_job *j, const sq_real *theta)
{
  sq_lti f = {0};
  sq_status st = SQ_OK;
  sq_mixer_get(j->mixer)->lti_dims(j->mixer, &f);
  for (int c = 0; c < j->count && st == SQ_OK; ++c) {
    f.a = j->lambda + (size_t)c * (size_t)j->n;
    st = sq_mixer_get(j->mixer)->lti(j->mixer, theta, j->first + c, &f);
  }
  for (size_t i = 0; i < (size_t)j->count * (size_t)j->n; ++i)
    j->certified[i] = sq_operator_finite(j->lambda[i]);
  return sq_app_agree(st);
}

static sq_status solve_layer(operator_job *j, const sq_real *theta)
{
  workspace w = {0};
  sq_arena plan = {0};
  sq_status st;
  const size_t all = (size_t)j->count * (size_t)j->n;
  if (j->method == OPERATOR_DIAGONAL) return solve_diagonal(j, theta);
  workspace_take(&plan, j, &w);
  SQ_TRY(sq_app_agree(sq_arena_create(&w.arena, plan.used, "transition matrices")));
  workspace_take(&w.arena, j, &w);
  for (int c = 0; c < j->count && st == SQ_OK; ++c) st = solve_channel(j, theta, &w, c);
  SQ_TRY(sq_app_agree(st));
  if (sq_app_nrank() > 1) {
    if (j->dealt) sum_to_all(j->lambda, 2 * all, MPI_DOUBLE);
    sum_to_all(j->radius, all, MPI_DOUBLE);
    sum_to_all(j->backward, all, MPI_DOUBLE);
    sum_to_all(j->condition, all, MPI_DOUBLE);
    sum_to_all(j->sensitivity, all, MPI_DOUBLE);
    sum_to_all(j->trace, (size_t)j->count, MPI_DOUBLE);
    sum_to_all(j->certified, all, MPI_INT64_T);
  }
done:
  sq_arena_destroy(&w.arena);
  return st;
}

static void job_clear(operator_job *j)
{
  free(j->lambda);
  free(j->radius);
  free(j->backward);
  free(j->condition);
  free(j->sensitivity);
  free(j->trace);
  free(j->certified);
}

/* What is computed, and how; no memory is taken. */
static sq_status job_plan(const sq_model *m, const char *label, int layer, const options *o, operator_job *j)
{
  sq_lti f = {0};
  *j = (operator_job){.label = label, .layer = layer, .mixer = sq_model_mixer(m, layer)};
  const sq_mixer_ops *ops = sq_mixer_get(j->mixer);
  ops->lti_dims(j->mixer, &f);
  j->n = f.n;
  j->first = o->channel >= 0 ? o->channel : 0;
  j->count = o->channel >= 0 ? 1 : f.nsystem;
  j->method = OPERATOR_SECULAR;
  if (strcmp(o->method, "auto") == 0)
    j->method = j->n < SQ_OPERATOR_DENSE_BELOW ? OPERATOR_DENSE : OPERATOR_SECULAR;
  j->cross_check = f.dense && strcmp(o->method, "auto") == 0 && j->method == OPERATOR_SECULAR &&
                   j->n < SQ_OPERATOR_ALONE_FROM;
  if (strcmp(o->method, "dense") == 0) j->method = OPERATOR_DENSE;
  if (strcmp(o->method, "distributed") == 0) j->method = OPERATOR_DISTRIBUTED;
  if (!f.dense) j->method = OPERATOR_DIAGONAL;
  j->dealt = j->method == OPERATOR_DENSE ||
             (j->method == OPERATOR_SECULAR && j->n < SQ_OPERATOR_DEAL_BELOW && j->count >= sq_app_nrank());
  if (j->method == OPERATOR_DISTRIBUTED && !sq_eigen_has_scalapack())
    return sq_fail(SQ_ERR_USAGE, "operator transition: --method distributed: built without ScaLAPACK: %s",
                   sq_eigen_scalapack());
  return SQ_OK;
}

/* Bytes of this rank for the layer. */
static double job_bytes(const operator_job *j)
{
  const double value = sizeof *j->lambda + sizeof *j->radius + sizeof *j->backward + sizeof *j->condition +
                       sizeof *j->sensitivity + sizeof *j->certified;
  const double n = j->n, matrix = n * n * sizeof *j->lambda;
  workspace w = {0};
  sq_arena plan = {0};
  if (j->method != OPERATOR_DIAGONAL) workspace_take(&plan, j, &w);
  return (double)j->count * (n * value + sizeof *j->trace) + (double)plan.used +
         (j->method == OPERATOR_DISTRIBUTED ? matrix / sq_app_nrank() : 0);
}

static sq_status job_create(operator_job *j)
{
  const size_t all = (size_t)j->count * (size_t)j->n;
  j->lambda = sq_calloc(all, sizeof *j->lambda, "eigenvalues");
  j->radius = sq_calloc(all, sizeof *j->radius, "eigenvalues");
  j->backward = sq_calloc(all, sizeof *j->backward, "eigenvalues");
  j->condition = sq_calloc(all, sizeof *j->condition, "eigenvalues");
  j->sensitivity = sq_calloc(all, sizeof *j->sensitivity, "eigenvalues");
  j->trace = sq_calloc((size_t)j->count, sizeof *j->trace, "eigenvalues");
  j->certified = sq_calloc(all, sizeof *j->certified, "eigenvalues");
  return j->lambda && j->radius && j->backward && j->condition && j->sensitivity && j->trace && j->certified
             ? SQ_OK
             : SQ_ERR_MEMORY;
}

/* ---- signals -------------------------------------------------------------------------------------------- */
/* The file under the name that the store writes to; a handler has nothing but globals. */
static char unfinished[4200], unfinished_lock[4200];

static const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

static void on_signal(int sig)
{
  unlink(unfinished);
  unlink(unfinished_lock);
  signal(sig, SIG_DFL);
  raise(sig);
}

static void catch_signals(const char *out, const sq_h5 *f)
{
  sq_format(unfinished, sizeof unfinished, "%s", sq_h5_temporary(f));
  sq_format(unfinished_lock, sizeof unfinished_lock, "%s.lock", out);
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) signal(caught[i], on_signal);
}

static void release_signals(void)
{
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) signal(caught[i], SIG_DFL);
}

/* ---- the file ------------------------------------------------------------------------------------------- */
/* Rank 0, before anything is computed: a file of its own, or one of a finished run that gets more groups. */
static sq_status open_output(const char *out, sq_h5 **f)
{
  const int extended = access(out, F_OK) == 0;
  sigset_t held, before; /* a signal between the file and its handler would leave the file */
  sigemptyset(&held);
  for (size_t i = 0; i < sizeof caught / sizeof *caught; ++i) sigaddset(&held, caught[i]);
  pthread_sigmask(SIG_BLOCK, &held, &before);
  sq_status st = extended ? sq_h5_extend_results(out, f) : sq_h5_create_file(out, f);
  if (st == SQ_OK) catch_signals(out, *f);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (st == SQ_ERR_DATA) {
    sq_error_clear();
    st = sq_fail(SQ_ERR_USAGE, "operator transition: %s exists already and is %s; choose another --out", out,
                 sq_h5_is_operator_file(out) ? "a file of this command" : "no results file of this version");
  }
  if (st == SQ_OK && !extended) st = sq_operator_write_root(*f);
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
  char *skip;  /* (cells) 1: not asked for, a repetition, or it changes with time */
  sq_segment segment;
  size_t nvalue, nbad;
  int nlocal; /* ranks that share this machine's memory */
  int marked; /* a share that was printed; on rank 0 */
} run;

static sq_status one_layer(run *r, const sq_model *m, int cell, const char *label, int layer,
                           const sq_real *theta)
{
  operator_job j = {0};
  sq_status st;
  SQ_TRY(sq_app_agree(job_plan(m, label, layer, r->o, &j)));
  SQ_TRY(sq_app_agree(job_create(&j)));
  j.config = sq_config_json(sq_experiment_cell(r->grid, cell));
  j.weights = r->o->weights ? r->o->weights : "";
  j.segment = &r->segment;
  SQ_TRY(solve_layer(&j, theta));
  r->nvalue += (size_t)j.count * (size_t)j.n;
  r->nbad += sq_operator_bad(&j);
  if (sq_app_rank() == 0) {
    st = sq_operator_print(&j, &r->marked);
    if (st == SQ_OK) st = sq_operator_write(r->file, &j);
  }
  SQ_TRY(sq_app_agree(st));
done:
  job_clear(&j);
  return st;
}

static int same_model(const sq_config *a, const sq_config *b)
{
  cJSON *x = cJSON_Parse(sq_config_json(a)), *y = cJSON_Parse(sq_config_json(b));
  const int same = x && y &&
                   cJSON_Compare(cJSON_GetObjectItemCaseSensitive(x, "model"),
                                 cJSON_GetObjectItemCaseSensitive(y, "model"), 1);
  cJSON_Delete(x);
  cJSON_Delete(y);
  return same;
}

static sq_status model_of(const sq_config *c, sq_model **m)
{
  sq_task_info info;
  sq_status st;
  SQ_TRY(sq_task_shape(c, &info));
  const sq_model_dims d = {.seq_len = info.seq_len,
                           .max_rows = info.seq_len,
                           .max_seqs = 1,
                           .dual = info.dual,
                           .max_labels = info.label_per_row ? info.seq_len : 1,
                           .label_per_row = info.label_per_row};
  SQ_TRY(sq_model_create(c, d, m));
done:
  return st;
}

static void label_of(const run *r, int cell, char label[256])
{
  const sq_config *c = sq_experiment_cell(r->grid, cell);
  sq_format(label, 256, "%.250s", sq_config_label(c));
  for (int k = 0; k < cell;
       ++k) /* cells of one label (other seeds, other sizes) get their number behind it */
    if (strcmp(sq_config_label(sq_experiment_cell(r->grid, k)), sq_config_label(c)) == 0) {
      sq_format(label, 256, "%.200s-cell%d", sq_config_label(c), cell);
      return;
    }
}

static sq_status one_cell(run *r, int cell)
{
  const sq_config *c = sq_experiment_cell(r->grid, cell);
  sq_model *m = NULL;
  sq_real *theta = NULL;
  char label[256];
  sq_status st;
  SQ_TRY(sq_app_agree(model_of(c, &m)));
  theta = sq_calloc(sq_model_params(m)->total, sizeof *theta, "parameters");
  SQ_TRY(sq_app_agree(theta ? SQ_OK : SQ_ERR_MEMORY));
  if (r->o->weights)
    st = sq_weights_read(m, r->grid, r->o->weights, cell, theta, NULL);
  else
    sq_model_init(m, (uint64_t)sq_config_int(c, "seed"), theta);
  SQ_TRY(sq_app_agree(st));
  label_of(r, cell, label);
  for (int l = 0; l < sq_model_nlayer(m); ++l)
    if (r->o->layer < 0 || r->o->layer == l) SQ_TRY(one_layer(r, m, cell, label, l, theta));
done:
  free(theta);
  sq_model_destroy(&m);
  return st;
}

/* Whether layer and channel are there, and there is one matrix at all: *varies is the layer without one, or -1. */
static sq_status survey_model(const run *r, const sq_config *c, const sq_model *m, int *varies)
{
  const options *o = r->o;
  *varies = -1;
  if (o->layer >= sq_model_nlayer(m))
    return sq_fail(SQ_ERR_USAGE, "operator transition: --layer %d: %s has %d, counted from 0", o->layer,
                   sq_config_label(c), sq_model_nlayer(m));
  for (int l = 0; l < sq_model_nlayer(m); ++l) {
    const sq_mixer *mixer = sq_model_mixer(m, l);
    sq_lti f = {0};
    if (o->layer >= 0 && o->layer != l) continue;
    if (!sq_mixer_get(mixer)->lti_dims) {
      *varies = l;
      return SQ_OK;
    }
    sq_mixer_get(mixer)->lti_dims(mixer, &f);
    if (o->channel >= f.nsystem)
      return sq_fail(SQ_ERR_USAGE, "operator transition: --channel %d: layer %d of %s has %d, counted from 0",
                     o->channel, l, sq_config_label(c), f.nsystem);
  }
  return SQ_OK;
}

/* The parameters, and the largest of the layers. */
static sq_status check_memory(const run *r, const sq_config *c, const sq_model *m)
{
  double largest = 0;
  sq_status st;
  for (int l = 0; l < sq_model_nlayer(m); ++l) {
    operator_job j;
    if (r->o->layer >= 0 && r->o->layer != l) continue;
    SQ_TRY(job_plan(m, "", l, r->o, &j));
    largest = fmax(largest, job_bytes(&j));
  }
  st = sq_cells_check_bytes(c, (double)sq_model_params(m)->total * sizeof(sq_real) + largest, r->nlocal);
done:
  return st;
}

typedef struct {
  char text[512]; /* why a model has no matrix */
} reason;

static sq_status survey_cell(run *r, int cell, reason *why)
{
  const sq_config *c = sq_experiment_cell(r->grid, cell);
  sq_model *m = NULL;
  int varies;
  sq_status st;
  SQ_TRY(model_of(c, &m));
  SQ_TRY(survey_model(r, c, m, &varies));
  if (varies < 0) {
    st = check_memory(r, c, m);
    goto done;
  }
  r->skip[cell] = 2;
  sq_format(why->text, sizeof why->text,
            "%.200s: layer %d (%s) has another transition at every step: there is no one matrix",
            sq_config_label(c), varies, sq_mixer_get(sq_model_mixer(m, varies))->name);
done:
  sq_model_destroy(&m);
  return st;
}

/* Before anything is computed: which cells have matrices. */
static sq_status survey(run *r)
{
  const int ncell = sq_experiment_ncell(r->grid);
  reason *why = sq_calloc((size_t)ncell, sizeof *why, "a survey");
  int left = 0, first = -1;
  sq_status st = why && r->skip ? SQ_OK : SQ_ERR_MEMORY;
  for (int i = 0; i < ncell && st == SQ_OK; ++i) {
    r->skip[i] = r->o->cell >= 0 && r->o->cell != i;
    for (int k = 0; k < i && r->o->cell < 0 && !r->skip[i]; ++k)
      r->skip[i] = same_matrices(sq_experiment_cell(r->grid, i), sq_experiment_cell(r->grid, k));
    if (!r->skip[i]) st = survey_cell(r, i, &why[i]);
    left += !r->skip[i];
    if (r->skip[i] == 2 && first < 0) first = i;
  }
  if (st == SQ_OK && left == 0) st = sq_fail(SQ_ERR_USAGE, "operator transition: %s", why[first].text);
  st = sq_app_agree(st);
  for (int i = 0; i < ncell && st == SQ_OK; ++i) {
    int told = 0; /* one note for a model, whatever its seeds */
    for (int k = 0; k < i && !told; ++k)
      told = r->skip[k] == 2 && same_model(sq_experiment_cell(r->grid, i), sq_experiment_cell(r->grid, k));
    if (r->skip[i] == 2 && !told) sq_note("skipped: %s", why[i].text);
  }
  free(why);
  return st;
}

static sq_status all_cells(run *r)
{
  sq_status st = SQ_OK;
  for (int i = 0; i < sq_experiment_ncell(r->grid) && st == SQ_OK; ++i)
    if (!r->skip[i]) st = one_cell(r, i);
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

/* --out, or a name that says what is in the file. */
static sq_status name_output(const options *o, const sq_experiment *grid, char out[MAX_NAME])
{
  static const char suffix[] = "-transition";
  const char *name = sq_experiment_name(grid);
  const size_t n = strlen(name), k = strlen(suffix);
  const int said = n >= k && strcmp(name + n - k, suffix) == 0;
  const int len = o->out ? snprintf(out, MAX_NAME, "%s", o->out)
                         : snprintf(out, MAX_NAME, "%s%s.h5", name, said ? "" : suffix);
  return len < MAX_NAME ? SQ_OK
                        : sq_fail(SQ_ERR_USAGE, "operator transition: the name of the file is too long");
}

sq_status sq_app_operator(int argc, char **argv)
{
  static options o; /* the list of words is too large for a stack */
  static sq_words w;
  sq_experiment *grid = NULL;
  run r = {.o = &o};
  char out[MAX_NAME];
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
  SQ_TRY(sq_app_agree(name_output(&o, grid, out)));
  sq_blas_set_threads(sq_config_int(sq_experiment_cell(grid, 0), "run.threads"));
  r.skip = sq_calloc((size_t)sq_experiment_ncell(grid), 1, "cells");
  r.nlocal = sq_ranks_here();
  SQ_TRY(survey(&r));
  sq_segment_fill(MPI_COMM_WORLD, &r.segment, sq_config_int(sq_experiment_cell(grid, 0), "run.threads"));
  SQ_TRY(sq_app_agree(sq_app_rank() == 0 ? open_output(out, &r.file) : SQ_OK));
  SQ_TRY(all_cells(&r));
  SQ_TRY(sq_app_agree(r.file ? sq_h5_close(&r.file) : SQ_OK));
  if (sq_app_rank() == 0 && r.marked) sq_operator_print_footnote();
  if (sq_app_rank() == 0) printf("results: %s\n", out);
  if (r.nbad > 0)
    st = sq_fail(
        SQ_ERR_CHECK,
        "operator transition: %zu of %zu eigenvalues are not finite, or have a backward error above %g",
        r.nbad, r.nvalue, SQ_OPERATOR_BACKWARD_MOST);
done:
  sq_h5_abandon(&r.file);
  if (sq_app_rank() == 0) release_signals();
  free(r.skip);
  sq_experiment_destroy(&grid);
  return st;
}
