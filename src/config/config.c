/* src/config/config.c: reading a cell, and cells as canonical JSON. */
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

const sq_cfg_value *sq_cfg_cell_value(const sq_config *c, int slot)
{
  const int d = c->e->dim_of[slot];
  if (d < 0 || c->v->value[slot].state == SQ_CFG_ABSENT) return &c->v->value[slot];
  const sq_cfg_dim *dim = &c->e->dim[d];
  return &dim->value[c->index / dim->stride % dim->n];
}

static const sq_cfg_value *value_of(const sq_config *c, const char *path, sq_key_type type)
{
  const int slot = sq_cfg_slot_find(&c->e->schema, path);
  SQ_ASSERT(slot >= 0 && "this key is declared by no table of the schema");
  const sq_cfg_value *v = sq_cfg_cell_value(c, slot);
  SQ_ASSERT(v->state != SQ_CFG_ABSENT && "this key does not apply to this cell");
  SQ_ASSERT(c->e->schema.slot[slot].type == type && "this key has another type");
  return v;
}

static const sq_cfg_value *set_value(const sq_config *c, const char *path, sq_key_type type)
{
  const sq_cfg_value *v = value_of(c, path, type);
  SQ_ASSERT(v->state == SQ_CFG_SET && "this key has no value: ask sq_config_has first");
  return v;
}

int sq_config_bool(const sq_config *c, const char *path)
{
  return set_value(c, path, SQ_KEY_BOOL)->i;
}

int sq_config_int(const sq_config *c, const char *path)
{
  return set_value(c, path, SQ_KEY_INT)->i;
}

double sq_config_real(const sq_config *c, const char *path)
{
  return set_value(c, path, SQ_KEY_REAL)->r;
}

const char *sq_config_string(const sq_config *c, const char *path)
{
  return set_value(c, path, SQ_KEY_STRING)->s;
}

/* A list of either type. */
static const sq_cfg_list *list_of(const sq_config *c, const char *path)
{
  const int slot = sq_cfg_slot_find(&c->e->schema, path);
  const int strings = slot >= 0 && c->e->schema.slot[slot].type == SQ_KEY_STRINGS;
  const sq_cfg_value *v = value_of(c, path, strings ? SQ_KEY_STRINGS : SQ_KEY_REALS);
  return v->state == SQ_CFG_SET ? v->list : NULL;
}

int sq_config_count(const sq_config *c, const char *path)
{
  const sq_cfg_list *l = list_of(c, path);
  return l != NULL ? l->n : 0;
}

double sq_config_real_at(const sq_config *c, const char *path, int i)
{
  const sq_cfg_list *l = list_of(c, path);
  SQ_ASSERT(l != NULL && l->r != NULL && i >= 0 && i < l->n);
  return l->r[i];
}

const char *sq_config_string_at(const sq_config *c, const char *path, int i)
{
  const sq_cfg_list *l = list_of(c, path);
  SQ_ASSERT(l != NULL && l->s != NULL && i >= 0 && i < l->n);
  return l->s[i];
}

int sq_config_has(const sq_config *c, const char *path)
{
  const int slot = sq_cfg_slot_find(&c->e->schema, path);
  return slot >= 0 && sq_cfg_cell_value(c, slot)->state == SQ_CFG_SET;
}

const char *sq_config_model_label(const sq_config *c)
{
  return c->e->model_label[c->index / c->e->cells_a_base];
}

const char *sq_config_task_label(const sq_config *c)
{
  return sq_config_has(c, "dataset._name_") ? sq_config_string(c, "dataset._name_") : "";
}

const char *sq_config_label(const sq_config *c)
{
  return c->label;
}

/* ---- canonical JSON ---------------------------------------------------------------------------------- */
/* Opens and closes objects between two paths that follow each other in sorted order, then writes the key. */
static void add_key(sq_cfg_text *t, const char *before, const char *path)
{
  size_t common = 0;
  for (size_t i = 0; before[i] != '\0' && before[i] == path[i]; ++i)
    if (path[i] == '.') common = i + 1;
  for (const char *c = before + common; *c != '\0'; ++c)
    if (*c == '.') sq_cfg_text_add(t, "}");
  if (before[0] != '\0') sq_cfg_text_add(t, ",");
  for (const char *c = path + common, *dot; *c != '\0'; c = dot + (*dot == '.')) {
    dot = c + strcspn(c, ".");
    sq_cfg_text_add(t, "\"%.*s\":%s", (int)(dot - c), c, *dot == '.' ? "{" : "");
  }
}

static void close_objects(sq_cfg_text *t, const char *last)
{
  for (const char *c = last; *c != '\0'; ++c)
    if (*c == '.') sq_cfg_text_add(t, "}");
}

static void add_cell(sq_cfg_text *t, const sq_config *c)
{
  const sq_cfg_schema *s = &c->e->schema;
  const char *before = "";
  int labelled = 0;
  sq_cfg_text_add(t, "{");
  for (int i = 0; i <= s->nslot; ++i) {
    if (!labelled && (i == s->nslot || strcmp(s->slot[i].path, "label") > 0)) {
      add_key(t, before, "label");
      sq_cfg_add_string(t, sq_config_model_label(c));
      before = "label";
      labelled = 1;
    }
    if (i == s->nslot) break;
    const sq_cfg_value *v = sq_cfg_cell_value(c, i);
    if (v->state != SQ_CFG_SET) continue;
    add_key(t, before, s->slot[i].path);
    sq_cfg_add_value(t, s->slot[i].type, v);
    before = s->slot[i].path;
  }
  close_objects(t, before);
  sq_cfg_text_add(t, "}");
}

/* Made on demand and kept: a grid of 100,000 cells would otherwise carry all of them from the start. */
const char *sq_config_json(const sq_config *c)
{
  sq_config *cell = &((sq_experiment *)(uintptr_t)c->e)->cell[c->index];
  if (cell->json == NULL) {
    sq_cfg_text t = {0};
    add_cell(&t, c);
    cell->json = sq_cfg_text_keep(&t, &((sq_experiment *)(uintptr_t)c->e)->pool);
  }
  return cell->json;
}

const char *sq_config_swept(const sq_config *c)
{
  sq_experiment *e = (sq_experiment *)(uintptr_t)c->e;
  sq_config *cell = &e->cell[c->index];
  if (cell->swept != NULL) return cell->swept;
  sq_cfg_text t = {0};
  int n = 0;
  sq_cfg_text_add(&t, "{");
  for (int i = 0; i < e->schema.nslot; ++i) {
    if (e->dim_of[i] < 0) continue;
    sq_cfg_text_add(&t, "%s\"%s\":", n++ > 0 ? "," : "", e->schema.slot[i].path);
    sq_cfg_add_value(&t, e->schema.slot[i].type, sq_cfg_cell_value(c, i));
  }
  sq_cfg_text_add(&t, "}");
  return cell->swept = sq_cfg_text_keep(&t, &e->pool);
}

const char *sq_experiment_json(const sq_experiment *e)
{
  sq_experiment *own = (sq_experiment *)(uintptr_t)e;
  if (e->json != NULL) return e->json;
  sq_cfg_text t = {0};
  sq_cfg_text_add(&t, "{\"cells\":[");
  for (int i = 0; i < e->ncell; ++i) {
    if (i > 0) sq_cfg_text_add(&t, ",");
    add_cell(&t, &e->cell[i]);
  }
  sq_cfg_text_add(&t, "],\"name\":");
  sq_cfg_add_string(&t, e->name);
  sq_cfg_text_add(&t, "}");
  return own->json = sq_cfg_text_keep(&t, &own->pool);
}

const char *sq_experiment_name(const sq_experiment *e)
{
  return e->name;
}

int sq_experiment_ncell(const sq_experiment *e)
{
  return e->ncell;
}

const sq_config *sq_experiment_cell(const sq_experiment *e, int i)
{
  SQ_ASSERT(i >= 0 && i < e->ncell);
  return &e->cell[i];
}
