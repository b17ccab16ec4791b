/* src/app/report.c: `seqspectra report`: tables from a results file. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"
#include "sq/base.h"
#include "sq/store.h"
#include "table.h"

/* ---- cells that differ by the seed only -------------------------------------------------------------------
 */
typedef struct {
  char *key;    /* task, model, recipe and swept values without the seed; owned */
  char *values; /* the swept values, readable; owned */
  int ncell;
  int *cell; /* owned */
} kin;

typedef struct {
  kin *v;
  int n;
} kinship;

static void kinship_clear(kinship *k)
{
  for (int i = 0; i < k->n; ++i) {
    free(k->v[i].key);
    free(k->v[i].values);
    free(k->v[i].cell);
  }
  free(k->v);
  *k = (kinship){NULL, 0};
}

/* In the order of the first cell of each. */
static sq_status kinship_find(const sq_results *r, kinship *k)
{
  const int n = sq_results_ncell(r);
  *k = (kinship){sq_calloc((size_t)n + 1, sizeof *k->v, "a table"), 0};
  for (int i = 0; i < n && k->v != NULL; ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    char *key = NULL, *values = sq_swept_text(c->swept);
    if (values == NULL || asprintf(&key, "%s\t%s\t%s\t%s", c->task, c->model, c->recipe, values) < 0) {
      free(values);
      kinship_clear(k);
      break;
    }
    int j = 0;
    while (j < k->n && strcmp(k->v[j].key, key) != 0) ++j;
    if (j == k->n) {
      k->v[k->n++] = (kin){key, values, 0, calloc((size_t)n, sizeof(int))};
    } else {
      free(key);
      free(values);
    }
    if (k->v[j].cell == NULL) {
      kinship_clear(k);
      break;
    }
    k->v[j].cell[k->v[j].ncell++] = i;
  }
  return k->v != NULL ? SQ_OK : sq_fail(SQ_ERR_MEMORY, "no memory for a table");
}

/* Each table names the cells that it leaves out. */
static void note_left_out(sq_table *t, const sq_results *r)
{
  int open = 0;
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    if (c->status == SQ_CELL_DIVERGED || c->status == SQ_CELL_FAILED)
      sq_table_warn(t, "Not in the means: cell %d, %s, seed %llu: %s (%s).", i, c->label,
                    (unsigned long long)c->seed, sq_cell_status_name(c->status), c->reason);
    open += c->status == SQ_CELL_WAITING || c->status == SQ_CELL_RUNNING;
  }
  if (open > 0) sq_table_warn(t, "Not finished: %d cell%s.", open, open == 1 ? "" : "s");
}

/* Mean, standard deviation with n - 1 (NaN for n < 2), smallest and largest of what is finite. */
typedef struct {
  int n;
  double mean, deviation, low, high;
} summary;

static summary summarise(const double *v, int n)
{
  summary s = {0, 0, 0, NAN, NAN};
  for (int i = 0; i < n; ++i) {
    if (isnan(v[i])) continue;
    const double delta = v[i] - s.mean;
    s.n++;
    s.mean += delta / s.n;
    s.deviation += delta * (v[i] - s.mean);
    s.low = s.n == 1 || v[i] < s.low ? v[i] : s.low;
    s.high = s.n == 1 || v[i] > s.high ? v[i] : s.high;
  }
  s.deviation = s.n > 1 ? sqrt(s.deviation / (s.n - 1)) : (double)NAN;
  if (s.n == 0) s.mean = NAN;
  return s;
}

/* ---- accuracy ---------------------------------------------------------------------------------------- */
static void accuracy_row(sq_table *t, const sq_results *r, const kin *k, double *buffer)
{
  const sq_results_cell *first = sq_results_cell_at(r, k->cell[0]);
  int n = 0;
  int64_t steps = -1, parameters = -1;
  for (int i = 0; i < k->ncell; ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, k->cell[i]);
    if (c->status != SQ_CELL_DONE) continue;
    buffer[n++] = c->test_metric;
    steps = c->steps > steps ? c->steps : steps;
    parameters = c->parameters;
  }
  const summary s = summarise(buffer, n);
  const int lower = strcmp(first->metric, "perplexity") == 0;
  sq_table_add(t, "%s", first->task);
  sq_table_add(t, "%s", first->model);
  sq_table_add(t, "%s", k->values[0] != '\0' ? k->values : "-");
  sq_table_add(t, "%s", first->recipe);
  sq_table_add(t, "%s", first->metric);
  sq_table_add_real(t, "%.4f", s.mean);
  sq_table_add_real(t, "%.4f", s.deviation);
  sq_table_add_real(t, "%.4f", lower ? s.low : s.high);
  sq_table_add_real(t, "%.4f", s.n > 1 ? s.high - s.low : (double)NAN);
  if (t->csv) {
    sq_table_add(t, "%d", s.n);
    sq_table_add(t, "%d", k->ncell);
  } else {
    sq_table_add(t, "%d/%d", s.n, k->ncell);
  }
  sq_table_add_real(t, "%.0f", parameters >= 0 ? (double)parameters : (double)NAN);
  sq_table_add_real(t, "%.0f", steps >= 0 ? (double)steps : (double)NAN);
}

static sq_status accuracy_table(const sq_results *r, sq_table *t)
{
  kinship k;
  sq_status st = kinship_find(r, &k);
  if (st != SQ_OK) return st;
  double *buffer = sq_calloc((size_t)sq_results_ncell(r) + 1, sizeof *buffer, "a table");
  sq_table_init(
      t, t->csv ? "task|model|varied|recipe|metric|mean|std|best|spread|seeds|seeds planned|parameters|steps"
                : "task|model|varied|recipe|metric|>mean|>std|>best|>spread|>seeds|>parameters|>steps");
  for (int i = 0; i < k.n && buffer != NULL; ++i) accuracy_row(t, r, &k.v[i], buffer);
  sq_table_note(t, "Test set. mean, std (n - 1), best and spread (highest - lowest) over seeds; seeds: in "
                   "the mean / in the grid.");
  note_left_out(t, r);
  st = buffer != NULL ? SQ_OK : SQ_ERR_MEMORY;
  free(buffer);
  kinship_clear(&k);
  return st;
}

/* ---- spectra and memory ------------------------------------------------------------------------------ */
/* Place k of "/spectra/<task>/<model>/<protocol>", k = 0, 1, 2. */
static void path_part(const char *path, int k, char out[200])
{
  const char *p = path + strlen("/spectra/");
  for (; k > 0 && p != NULL; --k) p = strchr(p, '/') != NULL ? strchr(p, '/') + 1 : NULL;
  snprintf(out, 200, "%.*s", p != NULL ? (int)strcspn(p, "/") : 0, p != NULL ? p : "");
}

/* Mean over heads and over the finished rows listed in row[]; out (nlayer, nlast) is owned.  A field without
 * layers gives one. */
static sq_status mean_field(const sq_results *r, int g, const char *field, int stage, const int *row,
                            int nrow, double **out, int *nlayer, int *nlast)
{
  double *sum = NULL, *count = NULL;
  sq_status st = SQ_OK;
  *out = NULL;
  for (int i = 0; i < nrow && st == SQ_OK; ++i) {
    double *v;
    int ndim, dim[SQ_FIELD_AXES];
    SQ_TRY(sq_results_field(r, g, field, row[i], stage, &v, &ndim, dim));
    const int layers = ndim == 3 ? dim[0] : 1, heads = ndim == 3 ? dim[1] : 1,
              last = ndim >= 1 ? dim[ndim - 1] : 1;
    const size_t n = (size_t)layers * (size_t)last;
    if (ndim != 3 && ndim != 1)
      st = sq_fail(SQ_ERR_DATA, "%s/%s has %d axes; expected layer, head and one more",
                   sq_results_group_path(r, g), field, ndim);
    else if (heads == 0) /* nothing was read, whatever the other axes say */
      st = sq_fail(SQ_ERR_DATA, "%s/%s is empty", sq_results_group_path(r, g), field);
    if (st == SQ_OK && sum == NULL) {
      sum = sq_calloc(n + 1, sizeof *sum, "a table");
      count = sq_calloc(n + 1, sizeof *count, "a table");
      *nlayer = layers;
      *nlast = last;
    }
    if (st == SQ_OK && (sum == NULL || count == NULL)) st = SQ_ERR_MEMORY;
    for (int l = 0; st == SQ_OK && l < layers; ++l)
      for (int h = 0; h < heads; ++h)
        for (int b = 0; b < last; ++b) {
          const double x = v[((size_t)l * (size_t)heads + (size_t)h) * (size_t)last + (size_t)b];
          if (isnan(x)) continue;
          sum[(size_t)l * (size_t)last + (size_t)b] += x;
          count[(size_t)l * (size_t)last + (size_t)b] += 1;
        }
    free(v);
  }
done:
  for (size_t i = 0; st == SQ_OK && sum != NULL && i < (size_t)*nlayer * (size_t)*nlast; ++i)
    sum[i] = count[i] > 0 ? sum[i] / count[i] : (double)NAN;
  free(count);
  if (st == SQ_OK && sum != NULL)
    *out = sum;
  else
    free(sum);
  if (st == SQ_OK && *out == NULL)
    st = sq_fail(SQ_ERR_DATA, "%s/%s is empty", sq_results_group_path(r, g), field);
  return st;
}

/* Rows of group g that are finished and belong to this kin. */
static int rows_of(const sq_results *r, int g, const kin *k, int *row)
{
  const int *cell;
  const int n = sq_results_group_cells(r, g, &cell);
  int m = 0;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < k->ncell; ++j)
      if (cell[i] == k->cell[j] && sq_results_cell_at(r, cell[i])->status == SQ_CELL_DONE) row[m++] = i;
  return m;
}

static void begin_row(sq_table *t, const sq_results *r, int g, const kin *k, const char *protocol, int layer,
                      const char *stage)
{
  char model[200];
  path_part(sq_results_group_path(r, g), 1, model); /* with the suffix of its shape, if any */
  sq_table_add(t, "%s", sq_results_cell_at(r, k->cell[0])->task);
  sq_table_add(t, "%s", model);
  sq_table_add(t, "%s", k->values[0] != '\0' ? k->values : "-");
  sq_table_add(t, "%s", sq_results_cell_at(r, k->cell[0])->recipe);
  if (protocol != NULL) sq_table_add(t, "%s", protocol);
  if (layer >= 0)
    sq_table_add(t, "%d", layer);
  else
    sq_table_add(t, "-");
  sq_table_add(t, "%s", stage);
}

/* A stage that was not taken, as `init` by analyze. */
static int nothing(const double *v, int n)
{
  for (int i = 0; i < n; ++i)
    if (!isnan(v[i])) return 0;
  return 1;
}

typedef struct {
  const char *field, *label;
  int stage;         /* 0: init; -1: the last */
  const char *marks; /* field that says which shares rounding moves, or NULL */
} share;

static const share shares[] = {
    {"percent_radius_mean", "init", 0, "percent_radius_marked"},
    {"percent_radius_mean", "trained", -1, "percent_radius_marked"},
    {"modal_energy_percent_radius", "trained, by energy", -1, NULL},
    {"null_shuffled_percent_radius_mean", "null: shuffled", -1, NULL},
    {"null_uniform_percent_radius_mean", "null: uniform", -1, NULL},
};

/* One row of shares.  marked: (nbin) above 0 where rounding of the parameters moves the share, or NULL. */
static void add_shares(sq_table *t, const double *v, const double *marked, int nbin)
{
  char bins[4 * SQ_NRADIUS] = "";
  for (int b = 0; b < nbin; ++b) {
    const int mark = marked != NULL && marked[b] > 0;
    if (mark) sq_format(bins + strlen(bins), sizeof bins - strlen(bins), "%s%d", *bins != '\0' ? " " : "", b);
    if (mark && !t->csv && !isnan(v[b]))
      sq_table_add(t, "%.1f*", v[b]);
    else
      sq_table_add_real(t, "%.1f", v[b]);
  }
  if (t->csv) sq_table_add(t, "%s", *bins != '\0' ? bins : "-");
}

/* Groups of time-invariant layers say what rounding does to their shares. */
static int time_invariant(const sq_results *r, int g)
{
  return sq_results_has_field(r, g, "percent_radius_marked");
}

static sq_status spectra_rows(sq_table *t, const sq_results *r, int g, const kin *k, const int *row, int nrow)
{
  char protocol[200];
  double *v = NULL, *marked = NULL;
  sq_status st = SQ_OK;
  path_part(sq_results_group_path(r, g), 2, protocol);
  for (size_t i = 0; i < sizeof shares / sizeof shares[0]; ++i) {
    int nlayer, nbin, marked_layers = 0, marked_bins = 0;
    if (!sq_results_has_field(r, g, shares[i].field)) continue;
    /* the eigenvalues of these layers are no ratios of normalisers: nothing to compare */
    if (strstr(shares[i].field, "uniform") != NULL && time_invariant(r, g)) continue;
    const int stage = shares[i].stage < 0 ? sq_results_group_nstage(r, g) - 1 : 0;
    SQ_TRY(mean_field(r, g, shares[i].field, stage, row, nrow, &v, &nlayer, &nbin));
    if (shares[i].marks != NULL && sq_results_has_field(r, g, shares[i].marks))
      SQ_TRY(mean_field(r, g, shares[i].marks, stage, row, nrow, &marked, &marked_layers, &marked_bins));
    for (int l = 0; l < nlayer && nbin == SQ_NRADIUS; ++l) {
      if (nothing(v + l * nbin, nbin)) continue;
      begin_row(t, r, g, k, protocol, strstr(shares[i].field, "uniform") != NULL ? -1 : l, shares[i].label);
      add_shares(t, v + l * nbin, marked_layers == nlayer && marked_bins == nbin ? marked + l * nbin : NULL,
                 nbin);
    }
    free(v);
    free(marked);
    v = marked = NULL;
  }
done:
  free(v);
  free(marked);
  return st;
}

/* Columns of the table: sizes, the second one their limit, and the last the distances. */
enum { DISTANCE = 4, NCOLUMN };

static sq_status memory_rows(sq_table *t, const sq_results *r, int g, const kin *k, const int *row, int nrow)
{
  static const char *const column[NCOLUMN] = {
      "effective_state_size_tolerance", "effective_state_size_limit", "effective_state_size_entropy",
      "effective_state_size_entropy_squared", "memory_distance_quantile"};
  sq_status st = SQ_OK;
  for (int s = 0; s < 2; ++s) {
    const int stage = s == 0 ? 0 : sq_results_group_nstage(r, g) - 1;
    double *v[NCOLUMN] = {NULL}, *cut = NULL;
    int nlayer[NCOLUMN] = {0}, n[NCOLUMN] = {0}, ncut = 0;
    for (int i = 0; i < NCOLUMN && st == SQ_OK; ++i) {
      if (sq_results_has_field(r, g, column[i]))
        st = mean_field(r, g, column[i], stage, row, nrow, &v[i], &nlayer[i], &n[i]);
    }
    if (st == SQ_OK && v[0] != NULL) st = sq_results_axis(r, g, "cut", &cut, &ncut);
    const int layers = nlayer[0] > nlayer[DISTANCE] ? nlayer[0] : nlayer[DISTANCE],
              lines = n[0] > 0 ? n[0] : 1;
    for (int l = 0; st == SQ_OK && l < layers; ++l)
      for (int c = 0; c < lines; ++c) {
        int there = 0;
        for (int i = 0; i < NCOLUMN; ++i)
          there |= v[i] != NULL && l < nlayer[i] && !nothing(v[i] + l * n[i], n[i]);
        if (!there) continue;
        begin_row(t, r, g, k, NULL, l, s == 0 ? "init" : "trained");
        sq_table_add_real(t, "%g", c < ncut ? cut[c] : (double)NAN);
        for (int i = 0; i < DISTANCE; ++i)
          sq_table_add_real(t, i == 1 ? "%.4g" : "%.2f",
                            v[i] != NULL && l < nlayer[i] && c < n[i] ? v[i][l * n[i] + c] : (double)NAN);
        for (int q = 0; q < SQ_NMEMORY; ++q) /* the distance does not depend on the cut */
          sq_table_add_real(t, "%.1f",
                            n[DISTANCE] == SQ_NMEMORY && l < nlayer[DISTANCE]
                                ? v[DISTANCE][l * n[DISTANCE] + q]
                                : (double)NAN);
      }
    for (int i = 0; i < NCOLUMN; ++i) free(v[i]);
    free(cut);
  }
  return st;
}

typedef sq_status rows_fn(sq_table *t, const sq_results *r, int g, const kin *k, const int *row, int nrow);

/* rows() for each set of finished cells that differ by the seed only (recipes and swept values never mix), in
 * the order of the accuracy table, and each group that has them. */
static sq_status each_group(sq_table *t, const sq_results *r, const char *protocol, rows_fn *rows)
{
  kinship k;
  sq_status st = kinship_find(r, &k);
  if (st != SQ_OK) return st;
  int *row = sq_calloc((size_t)sq_results_ncell(r) + 1, sizeof *row, "a table");
  SQ_TRY(row != NULL ? SQ_OK : SQ_ERR_MEMORY);
  for (int i = 0; i < k.n; ++i)
    for (int g = 0; g < sq_results_ngroup(r); ++g) {
      char name[200];
      path_part(sq_results_group_path(r, g), 2, name);
      if (protocol != NULL && strcmp(protocol, name) != 0) continue;
      const int n = rows_of(r, g, &k.v[i], row);
      if (n > 0) SQ_TRY(rows(t, r, g, &k.v[i], row, n));
    }
done:
  free(row);
  kinship_clear(&k);
  return st;
}

static int has_any(const sq_results *r, const char *field)
{
  for (int g = 0; g < sq_results_ngroup(r); ++g)
    if (sq_results_has_field(r, g, field)) return 1;
  return 0;
}

static int has_lti(const sq_results *r)
{
  return has_any(r, "percent_radius_marked");
}

static sq_status spectra_table(const sq_results *r, sq_table *t)
{
#define SHARE_HEAD                                                                                           \
  "task|model|varied|recipe|protocol|>layer|stage|>[0, .1]|>(.1, .5]|>(.5, .9]|>(.9, 1]|>(1, 10]|>(10, "     \
  "100]|>(100, inf]"
  sq_table_init(t, t->csv ? SHARE_HEAD "|marked bins" : SHARE_HEAD);
#undef SHARE_HEAD
  const sq_status st = each_group(t, r, NULL, spectra_rows);
  sq_table_note(t,
                "Percent of the eigenvalues by modulus, mean over heads, sequences and seeds. In protocol "
                "`published` both ends of a bin are closed (of the last one only the upper), and a value on "
                "a threshold counts twice.");
  if (has_lti(r))
    sq_table_note(t,
                  "Time-invariant layers (S4, S5, LRU) have one spectrum, of all channels together, whatever "
                  "the sequence; protocol `published` looks at channel 1 of S4 only (the second one).");
  if (has_any(r, "null_shuffled_percent_radius_mean"))
    sq_table_note(t, "null: shuffled = the trained layer with the steps of each sequence shuffled; null: "
                     "uniform = uniform attention at the same lengths.");
  sq_table_note(t, "For attention and other time-varying layers these shares belong to the realisation (the "
                   "choice of the state's coordinates), "
                   "not to the layer's map; table `memory` holds what does not depend on it. The eigenvalues "
                   "of time-invariant layers (S4, S5, LRU) are the layer's own.");
  if (has_any(r, "modal_energy_percent_radius"))
    sq_table_note(t, "by energy = each eigenvalue weighted by the energy |C|^2 |B|^2/(1-|lambda|^2) of its "
                     "mode.");
  if (has_lti(r))
    sq_table_note(t,
                  "* = in at least one seed, this share moves by more than one eigenvalue and more than one "
                  "percentage point under one rounding of the stored parameters: a change from init to "
                  "trained where either row is starred says nothing about learning.");
  note_left_out(t, r);
  return st;
}

static sq_status memory_table(const sq_results *r, sq_table *t)
{
  sq_table_init(
      t, "task|model|varied|recipe|>layer|stage|>cut|>state size|>of|>by entropy|>by squares|>distance "
         "10 %|>25 %|>50 %|>75 %|>90 %");
  const sq_status st = each_group(t, r, "dsf", memory_rows);
  sq_table_note(
      t, "Mean over heads, sequences and seeds. None of these depends on the coordinates of the state.");
  if (has_lti(r))
    sq_table_note(
        t, "Time-invariant layers: no sequence is involved. The state size of S4 is that of one channel "
           "(mean over the channels analysed), that of LRU and S5 is the whole layer's: not comparable. "
           "A bidirectional S5: of its forward half, the part that reaches from the past into the future.");
  sq_table_note(
      t,
      "State size at the cut (fraction of the sequence): number of Hankel singular values above 1e-3 of the "
      "largest; of: what it cannot exceed there, the order of the state (real numbers: twice the complex "
      "states that are kept, in S5 "
      "with conj_sym half of state_dim) or what fits "
      "into the past or the future of the cut; by entropy: exp H(sigma/sum); by squares: exp "
      "H(sigma^2/sum).");
  sq_table_note(t, "Distance: quantiles, in steps, of how far back the layer looks (weights |M_(i,i-d)|^2).");
  note_left_out(t, r);
  return st;
}

/* ---- one row a cell ---------------------------------------------------------------------------------- */
static sq_status cells_table(const sq_results *r, sq_table *t)
{
  sq_table_init(
      t,
      ">cell|task|label|>seed|recipe|status|metric|>test|>test loss|>valid|>best step|>steps|>wall s|reason");
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    sq_table_add(t, "%d", i);
    sq_table_add(t, "%s", c->task);
    sq_table_add(t, "%s", c->label);
    sq_table_add(t, "%llu", (unsigned long long)c->seed);
    sq_table_add(t, "%s", c->recipe);
    sq_table_add(t, "%s", sq_cell_status_name(c->status));
    sq_table_add(t, "%s", c->metric);
    sq_table_add_real(t, "%.4f", c->test_metric);
    sq_table_add_real(t, "%.4f", c->test_loss);
    sq_table_add_real(t, "%.4f", c->valid_metric);
    sq_table_add_real(t, "%.0f", c->best_step >= 0 ? (double)c->best_step : (double)NAN);
    sq_table_add_real(t, "%.0f", c->steps >= 0 ? (double)c->steps : (double)NAN);
    sq_table_add_real(t, "%.1f", c->wall_s);
    sq_table_add(t, "%s", c->reason[0] != '\0' ? c->reason : "-");
  }
  return SQ_OK;
}

static sq_status training_table(const sq_results *r, sq_table *t)
{
  sq_table_init(
      t, ">cell|task|label|>seed|>step|>train loss|>valid loss|>valid metric|>learning rate|>gradient norm");
  for (int i = 0; i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    sq_eval_record *e;
    int n;
    const sq_status st = sq_results_history(r, i, &e, &n);
    if (st != SQ_OK) return st;
    for (int k = 0; k < n; ++k) {
      sq_table_add(t, "%d", i);
      sq_table_add(t, "%s", c->task);
      sq_table_add(t, "%s", c->label);
      sq_table_add(t, "%llu", (unsigned long long)c->seed);
      sq_table_add(t, "%ld", e[k].step);
      sq_table_add_real(t, "%.5g", e[k].train_loss);
      sq_table_add_real(t, "%.5g", e[k].valid_loss);
      sq_table_add_real(t, "%.4f", e[k].valid_metric);
      sq_table_add_real(t, "%.3g", e[k].lr);
      sq_table_add_real(t, "%.3g", e[k].grad_norm);
    }
    free(e);
  }
  return SQ_OK;
}

/* ---- the command ------------------------------------------------------------------------------------- */
static const struct {
  const char *name, *title;
  sq_status (*make)(const sq_results *r, sq_table *t);
  int usual;        /* printed when no table is asked for */
  const char *none; /* in place of rows */
} tables[] = {
    {"accuracy", "Accuracy", accuracy_table, 1, "no finished cell yet"},
    {"spectra", "Eigenvalues by modulus", spectra_table, 1,
     "no such spectra in this file (analysis.protocols)"},
    {"memory", "Memory", memory_table, 1, "no such spectra in this file (analysis.protocols)"},
    {"cells", "Cells", cells_table, 0, "no cells in this file"},
    {"training", "Training", training_table, 0, "no evaluation during training in this file"},
};
#define TABLES      "accuracy|spectra|memory|cells|training"
#define FORMATS     "md|latex|csv"
#define TABLE_COUNT ((int)(sizeof tables / sizeof tables[0]))

static int any_done(const sq_results *r)
{
  for (int i = 0; i < sq_results_ncell(r); ++i)
    if (sq_results_cell_at(r, i)->status == SQ_CELL_DONE) return 1;
  return 0;
}

/* Names the damaged cells; damaged: (ncell) or NULL. */
static void warn_damaged(sq_table *t, const sq_results *r, const int *damaged)
{
  for (int i = 0; damaged != NULL && i < sq_results_ncell(r); ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    if (damaged[i])
      sq_table_warn(
          t, "Warning: damaged, its numbers cannot be trusted: cell %d, %s, seed %llu (wrong checksum).", i,
          c->label, (unsigned long long)c->seed);
  }
}

static sq_status print_table(const sq_results *r, int i, const int *damaged, const char *format, FILE *out)
{
  sq_table t = {.csv = strcmp(format, "csv") == 0};
  sq_status st = tables[i].make(r, &t);
  if (st == SQ_OK && tables[i].usual && !any_done(r)) sq_table_empty(&t, "no finished cell yet");
  if (st == SQ_OK && sq_table_nrow(&t) == 0) sq_table_empty(&t, tables[i].none);
  if (st == SQ_OK) warn_damaged(&t, r, damaged);
  if (st == SQ_OK) st = sq_table_print(&t, tables[i].title, format, out);
  sq_table_clear(&t);
  return st;
}

sq_status sq_report_print(const char *results, const char *table, const char *format, FILE *out)
{
  sq_results *r = NULL;
  sq_status st = sq_args_choice("report", "--table", table, TABLES);
  if (st == SQ_OK) st = sq_args_choice("report", "--format", format, FORMATS);
  if (st == SQ_OK) st = sq_results_open(results, &r);
  for (int i = 0; i < TABLE_COUNT && st == SQ_OK; ++i)
    if (strcmp(tables[i].name, table) == 0) st = print_table(r, i, NULL, format, out);
  sq_results_close(&r);
  return st;
}

/* Under a temporary name first: no half-written table. */
static sq_status write_table(const sq_results *r, int i, const int *damaged, const char *format,
                             const char *dir)
{
  char path[4096], temporary[4200];
  const char *ending = strcmp(format, "latex") == 0 ? "tex" : format;
  if (snprintf(path, sizeof path, "%s/%s.%s", dir, tables[i].name, ending) >= (int)sizeof path)
    return sq_fail(SQ_ERR_USAGE, "report: the name of the folder is too long");
  sq_format(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
  FILE *out = fopen(temporary, "w");
  if (out == NULL) return sq_fail(SQ_ERR_IO, "%s: %s", path, strerror(errno));
  sq_status st = print_table(r, i, damaged, format, out);
  const int bad = fflush(out) != 0 || fsync(fileno(out)) != 0;
  if ((fclose(out) != 0 || bad) && st == SQ_OK) st = sq_fail(SQ_ERR_IO, "%s: %s", path, strerror(errno));
  if (st == SQ_OK && rename(temporary, path) != 0) st = sq_fail(SQ_ERR_IO, "%s: %s", path, strerror(errno));
  if (st == SQ_OK)
    printf("%s\n", path);
  else
    unlink(temporary);
  return st;
}

/* dirname() changes its argument. */
static sq_status cannot_make(const char *dir, int error)
{
  char above[4096];
  if (error != ENOENT || strlen(dir) >= sizeof above)
    return sq_fail(SQ_ERR_IO, "%s: cannot be made: %s", dir, strerror(error));
  strcpy(above, dir);
  return sq_fail(SQ_ERR_IO, "%s: cannot be made: there is no folder %s", dir, dirname(above));
}

sq_status sq_app_report(int argc, char **argv)
{
  const char *table = NULL, *format = "md", *dir = NULL;
  const sq_option option[] = {{"table", SQ_OPT_TEXT, &table, 0, 0},
                              {"format", SQ_OPT_TEXT, &format, 0, 0},
                              {"out", SQ_OPT_TEXT, &dir, 0, 0}};
  sq_words file;
  sq_results *r = NULL;
  int *damaged = NULL, bad = 0;
  sq_status st;
  SQ_TRY(sq_args_parse("report", argc, argv, option, 3, "RESULTS.h5", 1, 1, &file));
  SQ_TRY(sq_args_choice("report", "--format", format, FORMATS));
  if (table != NULL) SQ_TRY(sq_args_choice("report", "--table", table, TABLES));
  SQ_TRY(sq_results_open(file.v[0], &r));
  if (dir != NULL && mkdir(dir, 0777) != 0 && errno != EEXIST) {
    st = cannot_make(dir, errno);
    goto done;
  }
  damaged = sq_calloc((size_t)sq_results_ncell(r) + 1, sizeof *damaged, "a table");
  SQ_TRY(damaged != NULL ? SQ_OK : SQ_ERR_MEMORY);
  SQ_TRY(sq_results_damaged(r, damaged, &bad));
  int printed = 0;
  for (int i = 0; i < TABLE_COUNT; ++i) {
    const int wanted = table != NULL ? strcmp(table, tables[i].name) == 0 : dir != NULL || tables[i].usual;
    if (!wanted) continue;
    if (dir == NULL && printed++ > 0) printf("\n");
    SQ_TRY(dir != NULL ? write_table(r, i, damaged, format, dir)
                       : print_table(r, i, damaged, format, stdout));
  }
  if (bad > 0)
    st = sq_fail(SQ_ERR_CHECK, "%s: %d damaged cell%s in these tables; run --resume computes %s again",
                 file.v[0], bad, bad == 1 ? "" : "s", bad == 1 ? "it" : "them");
done:
  free(damaged);
  sq_results_close(&r);
  return st;
}
