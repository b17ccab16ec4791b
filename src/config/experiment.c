/* src/config/experiment.c: from a file's name to a checked list of cells. */
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

/* ---- --set ------------------------------------------------------------------------------------------- */
/* The part after '=': JSON, or a bare word. */
static cJSON *parse_setting(const char *text)
{
  cJSON *j = NULL;
  if (sq_cfg_json_parse(text, strlen(text), "--set", &j) == SQ_OK) return j;
  sq_error_clear();
  return cJSON_CreateString(text);
}

static sq_status read_settings(sq_experiment *e, int nset, const char *const *set)
{
  char shown[SQ_CFG_SHOWN];
  sq_status st = sq_cfg_source_init(&e->schema, &e->pool, "--set", &e->set);
  if (st != SQ_OK) return st;
  e->set.doc = cJSON_CreateArray(); /* holds what the values borrow from */
  for (int i = 0; i < nset && st == SQ_OK; ++i) {
    const char *equals = strchr(set[i], '=');
    if (equals == NULL || equals == set[i]) {
      return sq_fail(SQ_ERR_USAGE, "--set: is \"%s\", expected KEY=VALUE like train.lr=1e-3",
                     sq_cfg_show(set[i], shown));
    }
    char *path = sq_cfg_pool_take(&e->pool, (size_t)(equals - set[i]) + 1, 1);
    cJSON *j = parse_setting(equals + 1);
    if (path == NULL || j == NULL || !cJSON_AddItemToArray(e->set.doc, j)) {
      cJSON_Delete(j);
      return path == NULL ? SQ_ERR_MEMORY
                          : sq_fail(SQ_ERR_MEMORY, "--set: no memory for %zu bytes", strlen(set[i]));
    }
    memcpy(path, set[i], (size_t)(equals - set[i]));
    st = sq_cfg_source_give(&e->schema, &e->pool, &e->set, path, j, 1);
  }
  return st;
}

/* ---- sweep ------------------------------------------------------------------------------------------- */
static int compare_texts(const void *a, const void *b)
{
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static sq_status check_distinct(sq_experiment *e, const sq_cfg_dim *d)
{
  const sq_cfg_slot *s = &e->schema.slot[d->slot];
  sq_cfg_pool texts = {0};
  sq_status st = SQ_OK;
  char shown[SQ_CFG_SHOWN];
  const char **text = sq_cfg_pool_take(&texts, (size_t)d->n, sizeof *text);
  for (int i = 0; i < d->n && text != NULL; ++i) {
    sq_cfg_text t = {0};
    sq_cfg_add_value(&t, s->type, &d->value[i]);
    text[i] = sq_cfg_text_keep(&t, &texts);
    if (text[i] == NULL) text = NULL;
  }
  if (text == NULL) {
    st = SQ_ERR_MEMORY;
  } else {
    qsort(text, (size_t)d->n, sizeof *text, compare_texts);
    for (int i = 1; i < d->n && st == SQ_OK; ++i) {
      if (strcmp(text[i - 1], text[i]) != 0) continue;
      st = sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: %s is listed twice, expected each value once", e->grid.where,
                   s->path, sq_cfg_show(text[i], shown));
    }
  }
  sq_cfg_pool_clear(&texts);
  return st;
}

static sq_status read_dim(sq_experiment *e, int slot, const cJSON *list)
{
  const sq_cfg_slot *s = &e->schema.slot[slot];
  sq_cfg_dim d = {.slot = slot};
  char shown[SQ_CFG_SHOWN], path[SQ_CFG_SHOWN + 32];
  const cJSON *k;
  if (!cJSON_IsArray(list)) {
    return sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: is %s, expected a list of values", e->grid.where, s->path,
                   sq_cfg_show_json(list, shown));
  }
  if (list->child == NULL) {
    return sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: is empty, expected at least one value", e->grid.where,
                   s->path);
  }
  if (e->dim_of[slot] >= 0)
    return sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: given twice, expected once", e->grid.where, s->path);
  if (e->grid.raw[slot].state != SQ_CFG_ABSENT) {
    return sq_fail(SQ_ERR_USAGE, "%s: %s: given for all cells and swept, expected one of the two",
                   e->grid.where, s->path);
  }
  d.value = sq_cfg_pool_take(&e->pool, (size_t)cJSON_GetArraySize(list), sizeof *d.value);
  if (d.value == NULL) return SQ_ERR_MEMORY;
  cJSON_ArrayForEach(k, list)
  {
    sq_format(path, sizeof path, "sweep.%.150s[%d]", s->path, d.n);
    const sq_status st = sq_cfg_value_read(s, k, e->grid.where, path, &e->pool, &d.value[d.n++]);
    if (st != SQ_OK) return st;
  }
  const sq_status st = check_distinct(e, &d);
  if (st != SQ_OK) return st;
  e->dim_of[slot] = e->ndim;
  e->dim[e->ndim++] = d;
  return SQ_OK;
}

static sq_status read_sweep(sq_experiment *e, const cJSON *object, const char *prefix)
{
  char shown[SQ_CFG_SHOWN];
  sq_status st = SQ_OK;
  const cJSON *k;
  cJSON_ArrayForEach(k, object)
  {
    sq_cfg_text t = {0};
    sq_cfg_text_add(&t, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", k->string);
    const char *path = sq_cfg_text_keep(&t, &e->pool);
    if (path == NULL) return SQ_ERR_MEMORY;
    const int slot = sq_cfg_slot_find(&e->schema, path);
    if (slot >= 0) {
      st = read_dim(e, slot, k);
    } else if (sq_cfg_published_find(path) != NULL) {
      st = sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: has no meaning here, expected a key that changes the run",
                   e->grid.where, sq_cfg_show(path, shown));
    } else if (!sq_cfg_is_section(&e->schema, path)) {
      st = sq_cfg_fail_unknown(&e->schema, e->grid.where, path);
    } else if (cJSON_IsObject(k)) {
      st = read_sweep(e, k, path);
    } else {
      st = sq_fail(SQ_ERR_USAGE, "%s: sweep.%s: is %s, expected an object", e->grid.where, path,
                   sq_cfg_show_json(k, shown));
    }
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}

/* A key given by --set is no longer swept. */
static void drop_set_dims(sq_experiment *e)
{
  int n = 0;
  for (int i = 0; i < e->ndim; ++i) {
    const int slot = e->dim[i].slot, given = e->set.raw[slot].state != SQ_CFG_ABSENT;
    if (given)
      sq_note("--set: %s: replaces the %d values of the sweep", e->schema.slot[slot].path, e->dim[i].n);
    e->dim_of[slot] = given ? -1 : n;
    if (!given) e->dim[n++] = e->dim[i];
  }
  e->ndim = n;
}

/* ---- files ------------------------------------------------------------------------------------------- */
static sq_status fail_root(const char *where, const cJSON *root)
{
  return sq_fail(SQ_ERR_USAGE,
                 "%s: is %s, expected an object with dataset, train and model, or with base and sweep", where,
                 sq_cfg_json_kind(root));
}

static sq_status read_cell(sq_experiment *e, int i, const char *where, cJSON *doc)
{
  sq_cfg_source *src = &e->base[i];
  sq_status st = sq_cfg_source_init(&e->schema, &e->pool, where, src);
  src->doc = doc;
  if (st != SQ_OK) return st;
  if (!cJSON_IsObject(doc)) return fail_root(where, doc);
  SQ_TRY(sq_cfg_source_flatten(&e->schema, &e->pool, src, doc, 0));
  e->model_label[i] = src->label != NULL ? src->label : sq_cfg_stem(&e->pool, where);
  if (e->model_label[i] == NULL) return SQ_ERR_MEMORY;
  st = sq_cfg_name_check(where, "label", e->model_label[i]);
done:
  return st;
}

static sq_status take_bases(sq_experiment *e, int n)
{
  e->base = sq_cfg_pool_take(&e->pool, (size_t)n, sizeof *e->base);
  e->model_label = sq_cfg_pool_take(&e->pool, (size_t)n, sizeof *e->model_label);
  if (e->base == NULL || e->model_label == NULL) return SQ_ERR_MEMORY;
  e->nbase = n;
  return SQ_OK;
}

static sq_status read_grid(sq_experiment *e, const char *path, cJSON *root)
{
  const cJSON *sweep = cJSON_GetObjectItemCaseSensitive(root, "sweep");
  const char **file = NULL;
  char shown[SQ_CFG_SHOWN];
  int n = 0;
  sq_status st = sq_cfg_source_init(&e->schema, &e->pool, path, &e->grid);
  e->grid.doc = root;
  e->is_grid = 1;
  if (st != SQ_OK) return st;
  SQ_TRY(sq_cfg_source_flatten(&e->schema, &e->pool, &e->grid, root, 1));
  SQ_TRY(sq_cfg_bases(&e->pool, path, root, &file, &n));
  SQ_TRY(take_bases(e, n));
  for (int i = 0; i < n; ++i) {
    cJSON *doc = NULL;
    SQ_TRY(sq_cfg_json_read(file[i], &doc));
    if (cJSON_IsObject(doc) && sq_cfg_is_grid(doc)) {
      cJSON_Delete(doc);
      return sq_fail(SQ_ERR_USAGE, "%s: base: %s is a grid itself, expected a cell file", path, file[i]);
    }
    SQ_TRY(read_cell(e, i, file[i], doc));
  }
  if (sweep != NULL && !cJSON_IsObject(sweep)) {
    return sq_fail(SQ_ERR_USAGE, "%s: sweep: is %s, expected an object of lists", path,
                   sq_cfg_show_json(sweep, shown));
  }
  e->dim = sq_cfg_pool_take(&e->pool, (size_t)e->schema.nslot + 1, sizeof *e->dim);
  if (e->dim == NULL) return SQ_ERR_MEMORY;
  if (sweep != NULL) SQ_TRY(read_sweep(e, sweep, ""));
done:
  return st;
}

/* ---- cells ------------------------------------------------------------------------------------------- */
static sq_status count_cells(sq_experiment *e)
{
  double total = e->nbase;
  int stride = 1, vstride = 1;
  for (int i = 0; i < e->ndim; ++i) total *= e->dim[i].n;
  if (total > SQ_CFG_MAX_CELLS) {
    return sq_fail(SQ_ERR_USAGE, "%s: sweep: makes %.7g cells of %d base%s, expected at most %d",
                   e->grid.where, total, e->nbase, e->nbase == 1 ? "" : "s", SQ_CFG_MAX_CELLS);
  }
  for (int i = e->ndim - 1; i >= 0; --i) {
    sq_cfg_dim *d = &e->dim[i];
    d->stride = stride;
    stride *= d->n;
    d->vstride = e->schema.slot[d->slot].selects ? vstride : 0;
    if (d->vstride > 0) vstride *= d->n;
  }
  e->cells_a_base = stride;
  e->variants_a_base = vstride;
  e->ncell = e->nbase * stride;
  e->nvariant = e->nbase * vstride;
  return SQ_OK;
}

static sq_status make_cells(sq_experiment *e)
{
  e->cell = sq_cfg_pool_take(&e->pool, (size_t)e->ncell, sizeof *e->cell);
  if (e->cell == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < e->ncell; ++i) {
    const int base = i / e->cells_a_base;
    int variant = base * e->variants_a_base;
    for (int d = 0; d < e->ndim; ++d) variant += i / e->dim[d].stride % e->dim[d].n * e->dim[d].vstride;
    e->cell[i] = (sq_config){.e = e, .v = &e->variant[variant], .index = i};
  }
  return SQ_OK;
}

static sq_status name_experiment(sq_experiment *e, const char *where)
{
  const char *given = e->is_grid ? e->grid.name : e->base[0].name;
  e->name = given != NULL ? given : sq_cfg_stem(&e->pool, where);
  if (e->name == NULL) return SQ_ERR_MEMORY;
  return sq_cfg_name_check(where, "name", e->name);
}

static sq_status build(sq_experiment *e, const char *where, cJSON *root, int grid_allowed, int nset,
                       const char *const *set)
{
  sq_status st;
  const int grid = cJSON_IsObject(root) && sq_cfg_is_grid(root);
  e->dim_of = sq_cfg_pool_take(&e->pool, (size_t)e->schema.nslot + 1, sizeof *e->dim_of);
  if (e->dim_of == NULL || (grid && !grid_allowed)) {
    cJSON_Delete(root);
    return e->dim_of == NULL ? SQ_ERR_MEMORY
                             : sq_fail(SQ_ERR_USAGE, "%s: base: is a grid, expected one cell", where);
  }
  for (int i = 0; i < e->schema.nslot; ++i) e->dim_of[i] = -1;
  if (grid) {
    SQ_TRY(read_grid(e, where, root));
  } else {
    st = take_bases(e, 1);
    if (st != SQ_OK) {
      cJSON_Delete(root);
      return st;
    }
    SQ_TRY(read_cell(e, 0, where, root));
  }
  SQ_TRY(name_experiment(e, where));
  SQ_TRY(read_settings(e, nset, set));
  drop_set_dims(e);
  SQ_TRY(count_cells(e));
  SQ_TRY(sq_cfg_variants_resolve(e));
  SQ_TRY(make_cells(e));
  SQ_TRY(sq_cfg_labels_make(e));
  SQ_TRY(sq_cfg_cells_check(e));
  sq_cfg_notes(e);
done:
  return st;
}

static sq_status finish(sq_status st, sq_experiment *e, sq_experiment **out)
{
  if (st != SQ_OK) sq_experiment_destroy(&e);
  *out = e;
  return st;
}

sq_status sq_experiment_load(const sq_schema *schema, const char *path, int nset, const char *const *set,
                             sq_experiment **e)
{
  cJSON *root = NULL;
  sq_status st;
  *e = NULL;
  sq_experiment *new = sq_calloc(1, sizeof *new, "configuration");
  if (new == NULL) return SQ_ERR_MEMORY;
  st = sq_cfg_schema_build(schema, &new->pool, &new->schema);
  if (st == SQ_OK) st = sq_cfg_json_read(path, &root);
  if (st == SQ_OK) st = build(new, path, root, 1, nset, set);
  return finish(st, new, e);
}

sq_status sq_experiment_parse(const sq_schema *schema, const char *json, const char *where, sq_experiment **e)
{
  cJSON *root = NULL;
  sq_status st;
  *e = NULL;
  sq_experiment *new = sq_calloc(1, sizeof *new, "configuration");
  if (new == NULL) return SQ_ERR_MEMORY;
  st = sq_cfg_schema_build(schema, &new->pool, &new->schema);
  if (st == SQ_OK) st = sq_cfg_json_parse(json, strlen(json), where, &root);
  if (st == SQ_OK) st = build(new, where, root, 0, 0, NULL);
  return finish(st, new, e);
}

void sq_experiment_destroy(sq_experiment **e)
{
  if (*e == NULL) return;
  for (int i = 0; i < (*e)->nbase; ++i) sq_cfg_source_clear(&(*e)->base[i]);
  sq_cfg_source_clear(&(*e)->grid);
  sq_cfg_source_clear(&(*e)->set);
  sq_cfg_pool_clear(&(*e)->pool);
  free(*e);
  *e = NULL;
}
