/* src/config/resolve.c: which keys apply, their values, labels, and all checks that need a whole cell.
 *
 * Key sets switch each other on ("model.layer=transformer" brings model.attention_fn, which brings the
 * mixer's keys), so the active sets are a fixpoint.  Selecting keys are checked before everything else: a
 * file for a model that is not known shall say so, not complain about that model's keys. */
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

typedef struct {
  const sq_cfg_value *value; /* NULL: not given anywhere */
  const char *where;
  int element; /* of a sweep; -1: no sweep */
} input;

/* Precedence: --set, the sweep, the grid's own objects, the base file. */
static input find_input(const sq_experiment *e, const sq_cfg_source *base, int variant, int slot)
{
  if (e->set.raw != NULL && e->set.raw[slot].state != SQ_CFG_ABSENT)
    return (input){&e->set.raw[slot], e->set.where, -1};
  if (e->dim_of[slot] >= 0) {
    const sq_cfg_dim *d = &e->dim[e->dim_of[slot]];
    const int k = d->vstride > 0 ? variant / d->vstride % d->n : 0;
    return (input){&d->value[k], e->grid.where, k};
  }
  if (e->grid.raw != NULL && e->grid.raw[slot].state != SQ_CFG_ABSENT)
    return (input){&e->grid.raw[slot], e->grid.where, -1};
  if (base->raw[slot].state != SQ_CFG_ABSENT) return (input){&base->raw[slot], base->where, -1};
  return (input){NULL, base->where, -1};
}

static const sq_cfg_decl *first_active(const sq_cfg_schema *s, const sq_cfg_variant *v, int slot)
{
  for (int d = 0; d < s->slot[slot].ndecl; ++d)
    if (v->active[s->slot[slot].decl[d].set]) return &s->slot[slot].decl[d];
  return NULL;
}

static void activate(const sq_experiment *e, int variant, sq_cfg_variant *v)
{
  const sq_cfg_schema *s = &e->schema;
  for (int changed = 1; changed;) {
    changed = 0;
    for (int i = 0; i < s->nset; ++i) {
      const int slot = s->owner[i].slot;
      if (v->active[i] || slot == -2) continue;
      if (slot >= 0) {
        const sq_cfg_decl *d = first_active(s, v, slot);
        if (d == NULL) continue;
        const input in = find_input(e, v->base, variant, slot);
        const sq_cfg_value *value = in.value != NULL ? in.value : &d->fallback;
        if (!sq_cfg_value_is(s->slot[slot].type, value, s->owner[i].value)) continue;
      }
      v->active[i] = 1;
      changed = 1;
    }
  }
}

static sq_status shown_path(sq_cfg_pool *p, const char *path, int element, const char **out)
{
  sq_cfg_text t = {0};
  *out = path;
  if (element < 0) return SQ_OK;
  sq_cfg_text_add(&t, "sweep.%s[%d]", path, element);
  *out = sq_cfg_text_keep(&t, p);
  return *out != NULL ? SQ_OK : SQ_ERR_MEMORY;
}

static sq_status fail_expected(const sq_key *k, const char *words, const char *where, const char *path,
                               const char *what)
{
  sq_cfg_text t = {0};
  sq_cfg_value_expected(k, words, &t);
  const sq_status st =
      sq_fail(SQ_ERR_USAGE, "%s: %s: %s, expected %s", where, path, what, t.s != NULL ? t.s : "a value");
  free(t.s);
  return st;
}

/* Every active declaration has its say; the first gives type and default. */
static sq_status check_value(sq_experiment *e, const sq_cfg_variant *v, int slot, const sq_cfg_value *value,
                             const char *where, int element)
{
  const sq_cfg_slot *s = &e->schema.slot[slot];
  const char *path = s->path, *words = NULL;
  sq_status st = SQ_OK;
  for (int d = 0; d < s->ndecl && st == SQ_OK; ++d) {
    const sq_cfg_decl *decl = &s->decl[d];
    if (!v->active[decl->set]) continue;
    SQ_TRY(sq_cfg_choices(&e->schema, slot, decl->key, &e->pool, &words));
    if (value->state == SQ_CFG_NONE && decl->fallback.state != SQ_CFG_NONE) {
      SQ_TRY(shown_path(&e->pool, s->path, element, &path));
      st = fail_expected(decl->key, words, where, path, "is null");
    } else if (sq_cfg_value_check(decl->key, words, value, where, path) != SQ_OK) {
      if (element < 0) return SQ_ERR_USAGE;
      sq_error_clear();
      SQ_TRY(shown_path(&e->pool, s->path, element, &path));
      st = sq_cfg_value_check(decl->key, words, value, where, path);
    }
  }
done:
  return st;
}

static sq_status resolve_slot(sq_experiment *e, int variant, sq_cfg_variant *v, int slot)
{
  const sq_cfg_slot *s = &e->schema.slot[slot];
  const sq_cfg_decl *d = first_active(&e->schema, v, slot);
  const int dim = e->dim_of[slot];
  const char *words = NULL;
  sq_status st = SQ_OK;
  if (d == NULL) {
    if (dim < 0) return SQ_OK;
    return sq_fail(SQ_ERR_USAGE,
                   "%s: sweep.%s: does not apply to %s, expected a key of every base's model and task",
                   e->grid.where, s->path, v->base->where);
  }
  for (int i = 0; i < 3; ++i) {
    sq_cfg_source *src = i == 0 ? (sq_cfg_source *)(uintptr_t)v->base : i == 1 ? &e->grid : &e->set;
    if (src->used != NULL) src->used[slot] = 1;
  }
  const input in = find_input(e, v->base, variant, slot);
  if (in.value == NULL) {
    v->value[slot] = d->fallback;
    if (d->fallback.state != SQ_CFG_ABSENT) return SQ_OK;
    SQ_TRY(sq_cfg_choices(&e->schema, slot, d->key, &e->pool, &words));
    return fail_expected(d->key, words, in.where, s->path, "required key is missing");
  }
  v->value[slot] = *in.value;
  const int all = dim >= 0 && e->dim[dim].vstride == 0; /* one variant for all values of the sweep */
  for (int k = all ? 0 : in.element; k < (all ? e->dim[dim].n : in.element + 1) && st == SQ_OK; ++k)
    st = check_value(e, v, slot, all ? &e->dim[dim].value[k] : in.value, in.where, k);
done:
  return st;
}

static sq_status resolve_variant(sq_experiment *e, int variant, sq_cfg_variant *v)
{
  const sq_cfg_schema *s = &e->schema;
  const sq_cfg_source *const from[] = {v->base, &e->grid, &e->set};
  sq_status st = SQ_OK;
  v->value = sq_cfg_pool_take(&e->pool, (size_t)s->nslot + 1, sizeof *v->value);
  v->active = sq_cfg_pool_take(&e->pool, (size_t)s->nset + 1, 1);
  if (v->value == NULL || v->active == NULL) return SQ_ERR_MEMORY;
  activate(e, variant, v);
  for (int i = 0; i < s->nslot; ++i)
    if (s->slot[i].selects) SQ_TRY(resolve_slot(e, variant, v, i));
  for (size_t i = 0; i < sizeof from / sizeof *from; ++i)
    if (from[i]->unknown != NULL) return sq_cfg_fail_unknown(s, from[i]->where, from[i]->unknown);
  for (int i = 0; i < s->nslot; ++i)
    if (!s->slot[i].selects) SQ_TRY(resolve_slot(e, variant, v, i));
done:
  return st;
}

sq_status sq_cfg_variants_resolve(sq_experiment *e)
{
  e->variant = sq_cfg_pool_take(&e->pool, (size_t)e->nvariant, sizeof *e->variant);
  if (e->variant == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < e->nvariant; ++i) {
    e->variant[i].base = &e->base[i / e->variants_a_base];
    const sq_status st = resolve_variant(e, i % e->variants_a_base, &e->variant[i]);
    if (st != SQ_OK) return st;
  }
  for (int i = 0; i < e->schema.nslot && e->set.raw != NULL; ++i) {
    if (e->set.raw[i].state == SQ_CFG_ABSENT || e->set.used[i]) continue;
    return sq_fail(SQ_ERR_USAGE, "%s: %s: applies to no cell here, expected a key of their models and tasks",
                   e->set.where, e->schema.slot[i].path);
  }
  return SQ_OK;
}

/* ---- labels ------------------------------------------------------------------------------------------ */
typedef struct {
  const char *label, *task;
  int base;
} base_name;

static int compare_base_names(const void *a, const void *b)
{
  const base_name *x = a, *y = b;
  const int d = strcmp(x->label, y->label), t = strcmp(x->task, y->task);
  return d != 0 ? d : t != 0 ? t : x->base - y->base;
}

static sq_status fail_same_name(const sq_experiment *e, const base_name *a, const base_name *b)
{
  const char *x = sq_config_json(&e->cell[a->base * e->cells_a_base]);
  const char *y = sq_config_json(&e->cell[b->base * e->cells_a_base]);
  if (x == NULL || y == NULL) return SQ_ERR_MEMORY;
  const char *u = e->base[a->base].where, *v = e->base[b->base].where;
  if (strcmp(x, y) == 0) {
    return sq_fail(SQ_ERR_USAGE, "%s: base: two cells are identical: %s and %s, expected each once",
                   e->grid.where, u, v);
  }
  return sq_fail(
      SQ_ERR_USAGE,
      "%s: base: %s and %s have the same name \"%s\", expected different ones; a cell file may set \"label\"",
      e->grid.where, u, v, a->label);
}

/* One name for one base; in two tasks it may be the same, and the task then goes into the label. */
static sq_status compare_bases(const sq_experiment *e, unsigned char *with_task)
{
  base_name *name = sq_calloc((size_t)e->nbase, sizeof *name, "configuration");
  sq_status st = SQ_OK;
  if (name == NULL) return SQ_ERR_MEMORY;
  const int task = sq_cfg_slot_find(&e->schema, "dataset._name_");
  for (int i = 0; i < e->nbase; ++i) {
    const int swept = task >= 0 && e->dim_of[task] >= 0;
    name[i] =
        (base_name){e->model_label[i], swept ? "" : sq_config_task_label(&e->cell[i * e->cells_a_base]), i};
  }
  qsort(name, (size_t)e->nbase, sizeof *name, compare_base_names);
  for (int i = 1; i < e->nbase && st == SQ_OK; ++i) {
    if (strcmp(name[i - 1].label, name[i].label) != 0) continue;
    if (strcmp(name[i - 1].task, name[i].task) == 0) st = fail_same_name(e, &name[i - 1], &name[i]);
    with_task[name[i - 1].base] = with_task[name[i].base] = 1;
  }
  free(name);
  return st;
}

/* "lr" if no other swept key ends so, else the whole path. */
static const char *short_key(const sq_experiment *e, int dim)
{
  const char *path = e->schema.slot[e->dim[dim].slot].path, *dot = strrchr(path, '.'),
             *last = dot != NULL ? dot + 1 : path;
  for (int d = 0; d < e->ndim; ++d) {
    const char *other = e->schema.slot[e->dim[d].slot].path, *odot = strrchr(other, '.');
    if (d != dim && strcmp(last, odot != NULL ? odot + 1 : other) == 0) return path;
  }
  return last;
}

sq_status sq_cfg_labels_make(sq_experiment *e)
{
  unsigned char *with_task = sq_cfg_pool_take(&e->pool, (size_t)e->nbase, 1);
  if (with_task == NULL) return SQ_ERR_MEMORY;
  const sq_status st = compare_bases(e, with_task);
  if (st != SQ_OK) return st;
  for (int i = 0; i < e->ncell; ++i) {
    const int base = i / e->cells_a_base;
    sq_cfg_text t = {0};
    sq_cfg_text_add(&t, "%s", e->model_label[base]);
    if (with_task[base]) sq_cfg_text_add(&t, " task=%s", sq_config_task_label(&e->cell[i]));
    for (int d = 0; d < e->ndim; ++d) {
      const sq_cfg_slot *s = &e->schema.slot[e->dim[d].slot];
      const sq_cfg_value *v = sq_cfg_cell_value(&e->cell[i], e->dim[d].slot);
      sq_cfg_text_add(&t, " %s=", short_key(e, d));
      if (s->type == SQ_KEY_STRING && v->state == SQ_CFG_SET)
        sq_cfg_text_add(&t, "%s", v->s);
      else
        sq_cfg_add_value(&t, s->type, v);
    }
    e->cell[i].label = sq_cfg_text_keep(&t, &e->pool);
    if (e->cell[i].label == NULL) return SQ_ERR_MEMORY;
  }
  return SQ_OK;
}

/* ---- the modules' own conditions, and notes ---------------------------------------------------------- */
sq_status sq_cfg_cells_check(sq_experiment *e)
{
  char shown[SQ_CFG_SHOWN];
  for (int i = 0; i < e->ncell; ++i) {
    const sq_config *c = &e->cell[i];
    for (int k = 0; k < e->schema.nset; ++k) {
      if (!c->v->active[k] || e->schema.set[k]->check == NULL) continue;
      const sq_status st = e->schema.set[k]->check(c);
      if (st == SQ_OK) continue;
      if (!e->is_grid) return sq_fail_in(st, "%s", c->v->base->where);
      return sq_fail_in(st, "%s: cell \"%s\"", e->grid.where, sq_cfg_show(c->label, shown));
    }
  }
  return SQ_OK;
}

/* Keys that nothing has read. */
static int idle_key(const sq_cfg_source *src, int i)
{
  return src->raw != NULL && src->raw[i].state != SQ_CFG_ABSENT && !src->used[i];
}

static void source_notes(const sq_cfg_schema *s, const sq_cfg_source *src, int with_idle)
{
  for (int i = 0; i < src->nnote; ++i) sq_note("%s", src->note[i]);
  for (int i = 0; i < s->nslot && with_idle; ++i) {
    if (!idle_key(src, i)) continue;
    sq_note("%s: %s: has no meaning for this model and task, ignored", src->where, s->slot[i].path);
  }
}

void sq_cfg_notes(const sq_experiment *e)
{
  enum { FEW = 4 }; /* more of a grid's bases are summed up */
  int idle = 0, files = 0;
  source_notes(&e->schema, &e->set, 1);
  source_notes(&e->schema, &e->grid, 1);
  for (int i = 0; i < e->nbase; ++i) {
    const int before = idle;
    for (int k = 0; k < e->schema.nslot; ++k) idle += idle_key(&e->base[i], k);
    files += idle > before;
  }
  for (int i = 0; i < e->nbase; ++i) source_notes(&e->schema, &e->base[i], idle <= FEW);
  if (idle > FEW)
    sq_note("%s: %d keys of %d base%s have no meaning for their model and task, ignored (each is named where "
            "a base is "
            "read alone)",
            e->grid.where, idle, files, files == 1 ? "" : "s");
}
