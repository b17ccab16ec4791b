/* src/app/cells.c: plans of all cells, and the groups of /spectra.
 *
 * Cells of one task, model label and shape share a group.  A shape is what sq_spectra_fields and
 * sq_spectra_axes say for each protocol, and the number of stages.  The path has a suffix only where one
 * label has several shapes: the keys in which they differ, e.g. "-L4-H8". */
#include "cells.h"
#include "bytes.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "sq/base.h"

struct sq_cell_shape {
  int first, ncell; /* first: the cell whose spectra are kept */
  int *cell;        /* (ncell) */
  int nprotocol;
  sq_spectra *s[SQ_MAX_PROTOCOLS];
};
typedef struct sq_cell_shape shape;

const char *sq_cells_label(const sq_cells *c, int i)
{
  return sq_config_label(sq_experiment_cell(c->experiment, i));
}

int sq_cells_nsample(const sq_config *c, const sq_task_info *info)
{
  const int n = sq_config_int(c, "analysis.batch_size");
  return (size_t)n < info->size[SQ_TEST] ? n : (int)info->size[SQ_TEST];
}

size_t sq_fields_bytes(const sq_field *f, int n)
{
  size_t bytes = 0;
  for (int i = 0; i < n; ++i) bytes += sq_field_doubles(&f[i]) * sizeof(double);
  return bytes;
}

/* ---- the model fits the task ------------------------------------------------------------------------- */

/* Inputs: the key that says whether the model embeds tokens; the state-space backbone takes one-hot vectors, as wide
 * as model.input_dim. */
static sq_status check_inputs(const sq_config *c, const sq_task_info *info)
{
  static const char *const embeds[] = {"model.embedding", "model.token_embedding"};
  const char *task = sq_config_task_label(c), *size = "model.input_dim";
  for (size_t i = 0; i < sizeof embeds / sizeof *embeds; ++i) {
    if (!sq_config_has(c, embeds[i])) continue;
    const int tokens = sq_config_bool(c, embeds[i]);
    if (tokens != (info->vocab_size > 0))
      return sq_fail(SQ_ERR_USAGE, "%s: %s, but task %s gives %s", embeds[i], tokens ? "true" : "false", task,
                     info->vocab_size > 0 ? "tokens" : "real numbers");
    if (tokens) size = "model.vocab_size";
  }
  if (!sq_config_has(c, size)) return SQ_OK;
  const int n = sq_config_int(c, size);
  if (n < info->vocab_size)
    return sq_fail(SQ_ERR_USAGE, "%s: %d is less than the %d tokens of task %s", size, n, info->vocab_size,
                   task);
  if (info->vocab_size == 0 && n != info->input_dim)
    return sq_fail(SQ_ERR_USAGE, "%s: %d, but task %s gives %d number%s a step", size, n, task,
                   info->input_dim, info->input_dim == 1 ? "" : "s");
  return SQ_OK;
}

static sq_status check_fit(const sq_config *c, const sq_model *m, const sq_task_info *info)
{
  const sq_status st = check_inputs(c, info);
  if (st != SQ_OK) return st;
  const int out = sq_model_output_dim(m);
  if (out < info->nclass)
    return sq_fail(SQ_ERR_USAGE, "model: %d outputs are fewer than the %d classes of task %s; see model.%s",
                   out, info->nclass, sq_config_task_label(c),
                   info->label_per_row ? "vocab_size" : "output_dim");
  return SQ_OK;
}

/* ---- shapes ------------------------------------------------------------------------------------------ */

static int same_field(const sq_field *a, const sq_field *b)
{
  if (strcmp(a->name, b->name) != 0 || a->naxis != b->naxis || a->complex_values != b->complex_values)
    return 0;
  for (int i = 0; i < a->naxis; ++i)
    if (a->dim[i] != b->dim[i] || strcmp(a->axis[i], b->axis[i]) != 0) return 0;
  return 1;
}

static int same_axis(const sq_axis *a, const sq_axis *b)
{
  if (strcmp(a->axis, b->axis) != 0 || a->n != b->n || !a->value != !b->value || !a->label != !b->label)
    return 0;
  if (a->value && memcmp(a->value, b->value, (size_t)a->n * sizeof *a->value) != 0) return 0;
  for (int i = 0; a->label && i < a->n; ++i)
    if (strcmp(a->label[i], b->label[i]) != 0) return 0;
  return 1;
}

static int same_spectra(const sq_spectra *a, const sq_spectra *b)
{
  int na, nb;
  const sq_field *fa = sq_spectra_fields(a, &na), *fb = sq_spectra_fields(b, &nb);
  int same = na == nb;
  for (int i = 0; same && i < na; ++i) same = same_field(&fa[i], &fb[i]);
  const sq_axis *xa = sq_spectra_axes(a, &na), *xb = sq_spectra_axes(b, &nb);
  same = same && na == nb;
  for (int i = 0; same && i < na; ++i) same = same_axis(&xa[i], &xb[i]);
  return same;
}

static int same_labels(const sq_config *a, const sq_config *b)
{
  return strcmp(sq_config_task_label(a), sq_config_task_label(b)) == 0 &&
         strcmp(sq_config_model_label(a), sq_config_model_label(b)) == 0;
}

static int same_shape(const sq_cells *c, const shape *s, int cell, const shape *candidate)
{
  const sq_config *a = sq_experiment_cell(c->experiment, s->first),
                  *b = sq_experiment_cell(c->experiment, cell);
  if (!same_labels(a, b) || c->plan[s->first].nstage != c->plan[cell].nstage ||
      s->nprotocol != candidate->nprotocol)
    return 0;
  for (int p = 0; p < s->nprotocol; ++p) {
    if (strcmp(sq_config_string_at(a, "analysis.protocols", p),
               sq_config_string_at(b, "analysis.protocols", p)) != 0)
      return 0;
    if (!same_spectra(s->s[p], candidate->s[p])) return 0;
  }
  return 1;
}

static void shape_clear(shape *s)
{
  for (int p = 0; p < SQ_MAX_PROTOCOLS; ++p) sq_spectra_destroy(&s->s[p]);
  free(s->cell);
  *s = (shape){0};
}

static sq_status shape_fill(const sq_cells *c, int i, const sq_model *m, shape *s)
{
  const sq_config *cell = sq_experiment_cell(c->experiment, i);
  const sq_task_info *info = &c->plan[i].task;
  sq_status st = SQ_OK;
  size_t largest = 0;
  *s = (shape){.first = i, .nprotocol = sq_config_count(cell, "analysis.protocols")};
  SQ_ASSERT(s->nprotocol <= SQ_MAX_PROTOCOLS);
  for (int p = 0; p < s->nprotocol; ++p) {
    int n;
    SQ_TRY(sq_spectra_create(cell, m, sq_config_string_at(cell, "analysis.protocols", p),
                             sq_cells_nsample(cell, info), info->seq_len, &s->s[p]));
    const sq_field *f = sq_spectra_fields(s->s[p], &n);
    const size_t bytes = sq_fields_bytes(f, n); /* of one protocol after the other */
    if (bytes > largest) largest = bytes;
    c->row_bytes[i] += bytes;
    c->bytes[i] += sq_spectra_bytes(s->s[p]);
  }
  c->bytes[i] += largest;
done:
  return st;
}

static sq_status shape_join(sq_cells *c, int i, const sq_model *m)
{
  shape mine = {0};
  sq_status st;
  int k = 0;
  SQ_TRY(shape_fill(c, i, m, &mine));
  while (k < c->nshape && !same_shape(c, &c->shape[k], i, &mine)) ++k;
  if (k == c->nshape) {
    mine.cell = sq_calloc((size_t)c->ncell, sizeof *mine.cell, "cells of a group");
    if (!mine.cell) {
      st = SQ_ERR_MEMORY;
      goto done;
    }
    c->shape[c->nshape++] = mine;
    mine = (shape){0};
  }
  c->shape[k].cell[c->shape[k].ncell++] = i;
done:
  shape_clear(&mine);
  return st;
}

/* ---- paths ------------------------------------------------------------------------------------------- */

static long shape_number(const sq_cells *c, const shape *s, int k)
{
  static const char *const path[] = {"model.num_layers",       "model.num_heads",      "model.hidden_dim",
                                     "model.state_dim",        "dataset.num_kv_pairs", "analysis.batch_size",
                                     "analysis.hankel_samples"};
  if (k == 0) return c->plan[s->first].task.seq_len;
  if (k == 1) return c->plan[s->first].nstage - 2;
  const sq_config *cell = sq_experiment_cell(c->experiment, s->first);
  return sq_config_has(cell, path[k - 2]) ? sq_config_int(cell, path[k - 2]) : -1;
}
static const char *const shape_letter[] = {"T", "S", "L", "H", "D", "N", "K", "B", "J"};
enum { NSHAPE_NUMBERS = sizeof shape_letter / sizeof *shape_letter };

/* "-L4-H8": numbers in which shapes of this label differ; "" if it has one shape. */
static void suffix_of(const sq_cells *c, const shape *s, char out[128])
{
  const sq_config *mine = sq_experiment_cell(c->experiment, s->first);
  out[0] = 0;
  for (int k = 0; k < NSHAPE_NUMBERS; ++k) {
    int differs = 0;
    for (int j = 0; j < c->nshape; ++j)
      differs |= same_labels(mine, sq_experiment_cell(c->experiment, c->shape[j].first)) &&
                 shape_number(c, &c->shape[j], k) != shape_number(c, s, k);
    if (differs)
      sq_format(out + strlen(out), 128 - strlen(out), "-%s%ld", shape_letter[k], shape_number(c, s, k));
  }
}

static sq_status path_of(const sq_cells *c, const shape *s, int version, char path[160])
{
  const sq_config *cell = sq_experiment_cell(c->experiment, s->first);
  char suffix[128], v[32] = "";
  suffix_of(c, s, suffix);
  if (version > 1) sq_format(v, sizeof v, "-v%d", version);
  const int n = snprintf(path, 160, "/spectra/%s/%s%s%s", sq_config_task_label(cell),
                         sq_config_model_label(cell), suffix, v);
  if (n >= 160)
    return sq_fail(SQ_ERR_USAGE, "%s: the name is too long for a group of the results file", path);
  return SQ_OK;
}

static sq_status groups_make(sq_cells *c)
{
  sq_status st = SQ_OK;
  for (int k = 0; k < c->nshape; ++k) {
    shape *s = &c->shape[k];
    char path[160];
    int version = 1, taken;
    do { /* shapes that differ in something without a letter are numbered */
      SQ_TRY(path_of(c, s, version++, path));
      const size_t n = strlen(path);
      taken = 0;
      for (int g = 0; g < c->ngroup; ++g)
        taken |= strncmp(c->spectra[g].path, path, n) == 0 && c->spectra[g].path[n] == '/';
    } while (taken);
    for (int p = 0; p < s->nprotocol; ++p) {
      sq_store_group *g = &c->spectra[c->ngroup];
      sq_format(g->path, sizeof g->path, "%s/%s", path,
                sq_config_string_at(sq_experiment_cell(c->experiment, s->first), "analysis.protocols", p));
      g->ncell = s->ncell;
      g->cell = s->cell;
      g->nstage = c->plan[s->first].nstage;
      g->field = sq_spectra_fields(s->s[p], &g->nfield);
      g->axis = sq_spectra_axes(s->s[p], &g->naxis);
      for (int i = 0; i < s->ncell; ++i) c->group[s->cell[i] * SQ_MAX_PROTOCOLS + p] = c->ngroup;
      ++c->ngroup;
    }
  }
done:
  return st;
}

/* ---- all cells --------------------------------------------------------------------------------------- */

static sq_status checkpoint_plan(sq_cells *c, int i)
{
  char *owner = sq_cells_owner(sq_experiment_cell(c->experiment, i));
  if (owner == NULL) return SQ_ERR_MEMORY;
  c->checkpoint[i] = sq_checkpoint_bytes(owner, &c->plan[i].state);
  free(owner);
  return SQ_OK;
}

/* Pages of libraries, most of them OpenBLAS's, that a rank's first cell is the first to touch.  Measured with Open MPI 4.1,
 * OpenBLAS 0.3.21 and HDF5 1.10: RssFile grows by 1.5 to 1.9 MB for transformers, Mamba-2, LRU and S5, 2.2 for S4. */
static const size_t library_bytes = 1600000;

static sq_status cell_plan(sq_cells *c, int i)
{
  const sq_config *cell = sq_experiment_cell(c->experiment, i);
  sq_train_plan *p = &c->plan[i];
  sq_model *m = NULL;
  sq_status st;
  SQ_TRY(sq_train_plan_threads(cell, c->threads, p));
  SQ_TRY(sq_model_create(cell, p->dims, &m));
  SQ_TRY(check_fit(cell, m, &p->task));
  c->metric[i] = p->task.metric;
  c->bytes[i] =
      library_bytes + p->task.own_bytes + sq_task_batch_bytes(&p->task, sq_cells_nsample(cell, &p->task));
  if (p->max_evals > c->max_evals) c->max_evals = p->max_evals;
  SQ_TRY(shape_join(c, i, m));
  SQ_TRY(checkpoint_plan(c, i));
  c->extra[i] = c->bytes[i];
  c->bytes[i] += p->bytes;
  if (sq_config_bool(cell, "run.save_weights")) {
    c->weights[i] = sq_model_params(m);
    c->model[i] = m;
    m = NULL;
  }
done:
  sq_model_destroy(&m);
  return st == SQ_OK ? st : sq_fail_in(st, "cell %s", sq_config_label(cell));
}

sq_status sq_cells_create(const sq_experiment *e, int threads, sq_cells **out)
{
  const size_t n = (size_t)sq_experiment_ncell(e);
  sq_cells *c = sq_calloc(1, sizeof *c, "plan of the cells");
  sq_status st = SQ_OK;
  *out = c;
  if (!c) return SQ_ERR_MEMORY;
  c->experiment = e;
  c->ncell = (int)n;
  c->threads = threads > 0 ? threads : sq_config_int(sq_experiment_cell(e, 0), "run.threads");
  c->plan = sq_calloc(n, sizeof *c->plan, "plan of the cells");
  c->bytes = sq_calloc(n, sizeof *c->bytes, "plan of the cells");
  c->extra = sq_calloc(n, sizeof *c->extra, "plan of the cells");
  c->checkpoint = sq_calloc(n, sizeof *c->checkpoint, "plan of the cells");
  c->row_bytes = sq_calloc(n, sizeof *c->row_bytes, "plan of the cells");
  c->metric = sq_calloc(n, sizeof *c->metric, "plan of the cells");
  c->group = sq_calloc(n * SQ_MAX_PROTOCOLS, sizeof *c->group, "plan of the cells");
  c->spectra = sq_calloc(n * SQ_MAX_PROTOCOLS, sizeof *c->spectra, "plan of the cells");
  c->shape = sq_calloc(n, sizeof *c->shape, "plan of the cells");
  c->model = sq_calloc(n, sizeof *c->model, "plan of the cells");
  c->weights = sq_calloc(n, sizeof *c->weights, "plan of the cells");
  if (!c->plan || !c->bytes || !c->extra || !c->checkpoint || !c->row_bytes || !c->metric || !c->group ||
      !c->spectra || !c->shape || !c->model || !c->weights) {
    st = SQ_ERR_MEMORY;
    goto done;
  }
  for (size_t i = 0; i < n * SQ_MAX_PROTOCOLS; ++i) c->group[i] = -1;
  for (int i = 0; i < c->ncell; ++i) SQ_TRY(cell_plan(c, i));
  SQ_TRY(groups_make(c));
done:
  if (st != SQ_OK) sq_cells_destroy(out);
  return st;
}

void sq_cells_release_shapes(sq_cells *c)
{
  for (int k = 0; k < c->nshape; ++k) shape_clear(&c->shape[k]);
  c->nshape = 0;
}

void sq_cells_destroy(sq_cells **pc)
{
  sq_cells *c = *pc;
  if (!c) return;
  sq_cells_release_shapes(c);
  for (int i = 0; c->model && i < c->ncell; ++i) sq_model_destroy(&c->model[i]);
  free(c->plan);
  free(c->bytes);
  free(c->extra);
  free(c->checkpoint);
  free(c->row_bytes);
  free(c->metric);
  free(c->group);
  free(c->spectra);
  free(c->shape);
  free(c->model);
  free(c->weights);
  free(c);
  *pc = NULL;
}

sq_store_plan sq_cells_store_plan(const sq_cells *c)
{
  int any = 0;
  for (int i = 0; i < c->ncell; ++i) any |= c->weights[i] != NULL;
  return (sq_store_plan){.experiment = c->experiment,
                         .max_evals = c->max_evals,
                         .metric = c->metric,
                         .ngroup = c->ngroup,
                         .group = c->spectra,
                         .weights = any ? c->weights : NULL};
}

/* ---- memory ------------------------------------------------------------------------------------------- */

static int descending(const void *a, const void *b)
{
  const size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x > y ? -1 : x < y;
}

size_t sq_cells_bytes(const sq_cells *c, int i, int team)
{
  int j = 0;
  while (2 << j <= team && j < SQ_SHARD_BITS) ++j;
  return c->plan[i].team_bytes[j] + c->extra[i];
}

size_t sq_cells_shared_bytes(const sq_cells *c)
{
  size_t bytes = 0;
  char **key = sq_calloc((size_t)c->ncell, sizeof *key, "data sets");
  int n = 0;
  for (int i = 0; key != NULL && i < c->ncell; ++i) {
    int seen = 0;
    if (c->plan[i].task.shared_bytes == 0) continue;
    char *k = sq_cells_block_key(sq_experiment_cell(c->experiment, i));
    for (int j = 0; k != NULL && j < n && !seen; ++j) seen = strcmp(key[j], k) == 0;
    if (k == NULL || seen) {
      free(k);
      continue;
    }
    key[n++] = k;
    bytes += c->plan[i].task.shared_bytes;
  }
  for (int j = 0; j < n; ++j) free(key[j]);
  free(key);
  return bytes;
}

double sq_cells_cost(const sq_cells *c, int i)
{
  return fmax(1, c->plan[i].flops_total);
}

/* Bytes of the cells on each member of a team, the largest first; *owned*, NULL without memory. */
static size_t *largest_first(const sq_cells *c, int team)
{
  size_t *bytes = sq_calloc((size_t)c->ncell, sizeof *bytes, "memory plan");
  if (bytes == NULL) return NULL;
  for (int i = 0; i < c->ncell; ++i) bytes[i] = sq_cells_bytes(c, i, team);
  qsort(bytes, (size_t)c->ncell, sizeof *bytes, descending);
  return bytes;
}

/* double: the sum of what cannot be had need not fit a size_t. */
static double bytes_of_ranks(const sq_cells *c, const size_t *bytes, int nrank, int team)
{
  double need = 0;
  for (int r = 0; r < nrank && r / team < c->ncell; ++r) need += (double)bytes[r / team];
  return need;
}

int sq_cells_ranks_that_fit(const sq_cells *c, int most, int team)
{
  const double room = (double)sq_memory_bytes() - (double)sq_cells_shared_bytes(c);
  size_t *bytes = largest_first(c, team);
  int n = 0;
  if (bytes == NULL) return most;
  while (n + team <= most && bytes_of_ranks(c, bytes, n + team, team) <= room) n += team;
  free(bytes);
  return n;
}

/* What takes most of a cell's memory: the vectors as long as theta, or what grows with a batch. */
static const char *what_to_reduce(const sq_cells *c, int i)
{
  const sq_config *cell = sq_experiment_cell(c->experiment, i);
  const sq_train_plan *p = &c->plan[i];
  /* Parameters, two moments, gradient, best weights, and four of the gradient tree. */
  const double vectors = 9.0 * (double)p->nparam * sizeof(sq_real);
  if (vectors > 0.5 * (double)c->bytes[i])
    return "a smaller model.hidden_dim, model.state_dim or vocabulary needs less";
  /* From so many sequences on, a smaller batch has smaller shards. */
  if (sq_config_int(cell, "train.batch_size") > SQ_MAX_SHARDS || p->dims.max_seqs > 1)
    return "a smaller train.batch_size (and eval_batch_size), shorter sequences or a smaller "
           "model.hidden_dim "
           "need less";
  return "shorter sequences or a smaller model.hidden_dim need less";
}

static int largest_cell(const sq_cells *c)
{
  int k = 0;
  for (int i = 1; i < c->ncell; ++i)
    if (c->bytes[i] > c->bytes[k]) k = i;
  return k;
}

sq_status sq_cells_check_memory(const sq_cells *c, int nlocal, int team)
{
  const double have = (double)sq_memory_bytes();
  const int largest = largest_cell(c), busy = nlocal / team < c->ncell ? nlocal : c->ncell * team;
  size_t *bytes = largest_first(c, team);
  char cell[32], all[32], there[32];

  if (bytes == NULL) return SQ_ERR_MEMORY;
  const double data = (double)sq_cells_shared_bytes(c), need = data + bytes_of_ranks(c, bytes, busy, team),
               one = data + (double)bytes[0];
  free(bytes);
  sq_format_bytes(cell, one);
  sq_format_bytes(all, need);
  sq_format_bytes(there, have);
  if (one > have)
    return sq_fail(SQ_ERR_USAGE,
                   "cell %s needs %s of memory (%.0f bytes), this machine has %s (%.0f bytes): %s",
                   sq_cells_label(c, largest), cell, one, there, have, what_to_reduce(c, largest));
  if (need > have)
    return sq_fail(
        SQ_ERR_USAGE,
        "%d ranks at once need %s of memory (%.0f bytes; the largest cell, %s, %s), this machine has "
        "%s (%.0f bytes): use at most %d of its ranks, or %s",
        busy, all, need, sq_cells_label(c, largest), cell, there, have,
        sq_cells_ranks_that_fit(c, busy, team), what_to_reduce(c, largest));
  if (need > 0.8 * have)
    sq_warn("the largest cells of %d rank%s need %s of the %s that this machine has", busy,
            busy == 1 ? "" : "s", all, there);
  return SQ_OK;
}

/* ---- data -------------------------------------------------------------------------------------------- */

/* Members of the resolved configuration that a task may read: dataset.*, the seed and the recipe. */
static void add_data_members(const cJSON *object, const char *prefix, cJSON *out)
{
  for (const cJSON *m = object->child; m; m = m->next) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", prefix, m->string);
    if (cJSON_IsObject(m)) {
      char below[258];
      snprintf(below, sizeof below, "%s.", path);
      add_data_members(m, below, out);
    } else if (strncmp(path, "dataset.", 8) == 0 || strcmp(path, "seed") == 0 ||
               strcmp(path, "train.recipe") == 0) {
      cJSON_AddItemToObject(out, path, cJSON_Duplicate(m, 1));
    }
  }
}

static char *key_of(const sq_config *c, int with_seed)
{
  cJSON *in = cJSON_Parse(sq_config_json(c)), *out = cJSON_CreateObject();
  char *text = NULL;
  if (in && out) {
    add_data_members(in, "", out);
    if (!with_seed) cJSON_DeleteItemFromObjectCaseSensitive(out, "seed");
    text = cJSON_PrintUnformatted(out);
  }
  cJSON_Delete(in);
  cJSON_Delete(out);
  if (!text) sq_fail(SQ_ERR_MEMORY, "no memory for the data key of a cell");
  return text;
}

char *sq_cells_data_key(const sq_config *c)
{
  return key_of(c, 1);
}

char *sq_cells_block_key(const sq_config *c)
{
  return key_of(c, 0);
}

char *sq_cells_owner(const sq_config *c)
{
  cJSON *o = cJSON_Parse(sq_config_json(c));
  cJSON *run = cJSON_GetObjectItemCaseSensitive(o, "run");
  for (cJSON *k = run != NULL ? run->child : NULL, *next; k != NULL; k = next) {
    char key[64];
    next = k->next;
    sq_format(key, sizeof key, "run.%.48s", k->string);
    if (sq_store_key_is_free(key)) cJSON_Delete(cJSON_DetachItemViaPointer(run, k));
  }
  char *json = o != NULL ? cJSON_PrintUnformatted(o) : NULL, *text = NULL;
  if (json == NULL || asprintf(&text, "%s %s", SQ_PRECISION, json) < 0) {
    text = NULL;
    (void)sq_fail(SQ_ERR_MEMORY, "no memory for the cell's name");
  }
  cJSON_free(json);
  cJSON_Delete(o);
  return text;
}

/* Sizes that the data decide may differ from the plan's where nothing that was planned depends on them. */
static int sizes_are_free(const sq_config *c, const sq_task_info *is, const sq_task_info *planned)
{
  return is->open_size && sq_config_has(c, "train.total_steps") &&
         sq_cells_nsample(c, is) == sq_cells_nsample(c, planned);
}

sq_status sq_cells_check_task(const sq_config *c, const sq_train_plan *p, const sq_task *t)
{
  static const char *const name[SQ_NSPLIT] = {"training", "validation", "test"};
  const sq_task_info *is = sq_task_describe(t), *planned = &p->task;
  const int free_sizes = sizes_are_free(c, is, planned);
  for (int s = 0; s < SQ_NSPLIT; ++s)
    if (is->size[s] != planned->size[s] && !free_sizes)
      return sq_fail(SQ_ERR_DATA, "the data have %zu %s examples; the configuration says %zu", is->size[s],
                     name[s], planned->size[s]);
  if (is->seq_len != planned->seq_len || is->vocab_size != planned->vocab_size ||
      is->nclass != planned->nclass || is->max_labels != planned->max_labels)
    return sq_fail(
        SQ_ERR_DATA,
        "the data have sequences of %d steps, %d tokens and %d classes; the configuration says %d, %d and %d",
        is->seq_len, is->vocab_size, is->nclass, planned->seq_len, planned->vocab_size, planned->nclass);
  return SQ_OK;
}
