/* src/config/source.c: one file, flattened: "train": {"lr": 1} and "train.lr": 1 are the same. */
#include <string.h>

#include "config_impl.h"

sq_status sq_cfg_source_init(const sq_cfg_schema *s, sq_cfg_pool *p, const char *where, sq_cfg_source *src)
{
  *src = (sq_cfg_source){0};
  char *copy = sq_cfg_pool_take(p, strlen(where) + 1, 1);
  src->raw = sq_cfg_pool_take(p, (size_t)s->nslot + 1, sizeof *src->raw);
  src->used = sq_cfg_pool_take(p, (size_t)s->nslot + 1, 1);
  if (copy == NULL || src->raw == NULL || src->used == NULL) return SQ_ERR_MEMORY;
  src->where = strcpy(copy, where);
  return SQ_OK;
}

void sq_cfg_source_clear(sq_cfg_source *src)
{
  cJSON_Delete(src->doc);
  src->doc = NULL;
}

int sq_cfg_is_grid(const cJSON *root)
{
  static const char *const mark[] = {"base", "base_config", "sweep"};
  for (size_t i = 0; i < sizeof mark / sizeof *mark; ++i)
    if (cJSON_GetObjectItemCaseSensitive(root, mark[i]) != NULL) return 1;
  return 0;
}

char *sq_cfg_stem(sq_cfg_pool *p, const char *path)
{
  const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
  size_t n = strlen(name);
  if (n > 5 && strcmp(name + n - 5, ".json") == 0) n -= 5;
  char *stem = sq_cfg_pool_take(p, n + 1, 1);
  if (stem != NULL) memcpy(stem, name, n);
  return stem;
}

sq_status sq_cfg_name_check(const char *where, const char *path, const char *name)
{
  char shown[SQ_CFG_SHOWN];
  int plain = name[0] != '\0' && strlen(name) <= 100 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
  for (const char *c = name; *c != '\0'; ++c)
    plain = plain && *c != '/' && (unsigned char)*c >= 0x20 && *c != 0x7f;
  if (plain) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "%s: %s: is \"%s\", expected a name of 1 to 100 bytes without /", where, path,
                 sq_cfg_show(name, shown));
}

static sq_status read_name(const sq_cfg_source *src, const cJSON *j, const char **out)
{
  char shown[SQ_CFG_SHOWN];
  if (!cJSON_IsString(j)) {
    return sq_fail(SQ_ERR_USAGE, "%s: %s: is %s, expected a string", src->where, j->string,
                   sq_cfg_show_json(j, shown));
  }
  *out = j->valuestring;
  return sq_cfg_name_check(src->where, j->string, j->valuestring);
}

static int is_literal(const cJSON *j, const char *text)
{
  const size_t n = strlen(text);
  if (cJSON_IsString(j))
    return n == strlen(j->valuestring) + 2 && strncmp(text + 1, j->valuestring, n - 2) == 0;
  return cJSON_IsNull(j) || cJSON_IsBool(j) ? strcmp(sq_cfg_json_kind(j), text) == 0 : 0;
}

static sq_status take_note(sq_cfg_pool *p, sq_cfg_source *src, const char *path, const cJSON *j,
                           const sq_cfg_published *k)
{
  sq_cfg_text t = {0};
  if (k->noted == NULL || !is_literal(j, k->noted)) return SQ_OK;
  const char **note = sq_cfg_pool_take(p, (size_t)src->nnote + 1, sizeof *note);
  if (note == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < src->nnote; ++i) note[i] = src->note[i];
  sq_cfg_text_add(&t, "%s: %s: %s", src->where, path, k->note);
  note[src->nnote] = sq_cfg_text_keep(&t, p);
  if (note[src->nnote] == NULL) return SQ_ERR_MEMORY;
  src->note = note;
  ++src->nnote;
  return SQ_OK;
}

static sq_status take_published(sq_cfg_pool *p, sq_cfg_source *src, const char *path, const cJSON *j,
                                const sq_cfg_published *k)
{
  char shown[SQ_CFG_SHOWN];
  if (k->only != NULL && !is_literal(j, k->only)) {
    return sq_fail(SQ_ERR_USAGE, "%s: %s: is %s, expected %s", src->where, path, sq_cfg_show_json(j, shown),
                   k->only);
  }
  return take_note(p, src, path, j, k);
}

static sq_status flatten(const sq_cfg_schema *s, sq_cfg_pool *p, sq_cfg_source *src, const cJSON *object,
                         const char *prefix, int again)
{
  const cJSON *k;
  cJSON_ArrayForEach(k, object)
  {
    sq_cfg_text t = {0};
    sq_cfg_text_add(&t, "%s.%s", prefix, k->string);
    const char *path = sq_cfg_text_keep(&t, p);
    if (path == NULL) return SQ_ERR_MEMORY;
    const sq_status st = sq_cfg_source_give(s, p, src, path, k, again);
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}

sq_status sq_cfg_source_give(const sq_cfg_schema *s, sq_cfg_pool *p, sq_cfg_source *src, const char *path,
                             const cJSON *j, int again)
{
  const int slot = sq_cfg_slot_find(s, path);
  const sq_cfg_published *k = sq_cfg_published_find(path);
  char shown[SQ_CFG_SHOWN];
  if (slot >= 0) {
    if (src->raw[slot].state != SQ_CFG_ABSENT && !again) {
      return sq_fail(SQ_ERR_USAGE, "%s: %s: given twice, expected once", src->where, path);
    }
    const sq_status st = sq_cfg_value_read(&s->slot[slot], j, src->where, path, p, &src->raw[slot]);
    return st == SQ_OK && k != NULL ? take_note(p, src, path, j, k) : st;
  }
  if (k != NULL) return take_published(p, src, path, j, k);
  if (sq_cfg_is_section(s, path)) {
    if (cJSON_IsObject(j)) return flatten(s, p, src, j, path, again);
    return sq_fail(SQ_ERR_USAGE, "%s: %s: is %s, expected an object", src->where, path,
                   sq_cfg_show_json(j, shown));
  }
  if (src->unknown == NULL) src->unknown = path;
  return SQ_OK;
}

static int is_structure(const char *name)
{
  return strcmp(name, "name") == 0 || strcmp(name, "base") == 0 || strcmp(name, "base_config") == 0 ||
         strcmp(name, "sweep") == 0;
}

sq_status sq_cfg_source_flatten(const sq_cfg_schema *s, sq_cfg_pool *p, sq_cfg_source *src,
                                const cJSON *object, int grid)
{
  const cJSON *k;
  cJSON_ArrayForEach(k, object)
  {
    sq_status st = SQ_OK;
    if (strcmp(k->string, "name") == 0) {
      st = read_name(src, k, &src->name);
    } else if (strcmp(k->string, "label") == 0) {
      if (grid)
        return sq_fail(SQ_ERR_USAGE, "%s: label: given in a grid, expected in a cell file", src->where);
      st = read_name(src, k, &src->label);
    } else if (!grid || !is_structure(k->string)) {
      st = sq_cfg_source_give(s, p, src, k->string, k, 0);
    }
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}
