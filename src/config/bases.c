/* src/config/bases.c: which files a grid is made of. */
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_impl.h"

typedef struct {
  sq_cfg_pool *p;
  const char **path;
  int n, cap;
} path_list;

static sq_status add_path(path_list *l, const char *path)
{
  if (l->n == l->cap) {
    const int cap = 2 * l->cap + 16;
    const char **more = sq_cfg_pool_take(l->p, (size_t)cap, sizeof *more);
    if (more == NULL) return SQ_ERR_MEMORY;
    for (int i = 0; i < l->n; ++i) more[i] = l->path[i];
    l->path = more;
    l->cap = cap;
  }
  char *copy = sq_cfg_pool_take(l->p, strlen(path) + 1, 1);
  if (copy == NULL) return SQ_ERR_MEMORY;
  l->path[l->n++] = strcpy(copy, path);
  return SQ_OK;
}

static int compare_texts(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The folder is taken literally: its own special characters are escaped. */
static void add_folder(sq_cfg_text *t, const char *grid_path, int escape)
{
  const char *slash = strrchr(grid_path, '/');
  for (const char *c = grid_path; slash != NULL && c <= slash; ++c)
    sq_cfg_text_add(t, escape && strchr("*?[]\\", *c) != NULL ? "\\%c" : "%c", *c);
}

static sq_status expand(path_list *l, const char *grid_path, const char *shown_key, const char *pattern)
{
  sq_cfg_text t = {0};
  glob_t found = {0};
  char shown[SQ_CFG_SHOWN];
  sq_status st = SQ_OK;
  if (pattern[0] != '/') add_folder(&t, grid_path, 1);
  sq_cfg_text_add(&t, "%s", pattern);
  const char *full = sq_cfg_text_keep(&t, l->p);
  if (full == NULL) return SQ_ERR_MEMORY;
  const int rc = glob(full, GLOB_NOSORT, NULL, &found);
  if (rc == GLOB_NOSPACE) {
    st = sq_fail(SQ_ERR_MEMORY, "%s: %s: no memory for the list of files", grid_path, shown_key);
  } else if (rc != 0 || found.gl_pathc == 0) {
    st = sq_fail(SQ_ERR_USAGE,
                 "%s: %s: \"%s\" matches no file, expected a path or pattern relative to this file",
                 grid_path, shown_key, sq_cfg_show(pattern, shown));
  } else {
    qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, compare_texts);
    for (size_t i = 0; i < found.gl_pathc && st == SQ_OK; ++i) {
      if (l->n >= SQ_CFG_MAX_CELLS) {
        st = sq_fail(SQ_ERR_USAGE, "%s: %s: more than %d files, expected fewer cells", grid_path, shown_key,
                     SQ_CFG_MAX_CELLS);
      } else {
        st = add_path(l, found.gl_pathv[i]);
      }
    }
  }
  globfree(&found);
  return st;
}

static sq_status read_base(path_list *l, const char *path, const cJSON *base)
{
  const cJSON *k;
  char shown[SQ_CFG_SHOWN], key[32];
  int i = 0;
  if (cJSON_IsString(base)) return expand(l, path, "base", base->valuestring);
  if (!cJSON_IsArray(base)) {
    return sq_fail(SQ_ERR_USAGE, "%s: base: is %s, expected a path or a list of paths", path,
                   sq_cfg_show_json(base, shown));
  }
  if (base->child == NULL)
    return sq_fail(SQ_ERR_USAGE, "%s: base: is empty, expected a path or a list of paths", path);
  cJSON_ArrayForEach(k, base)
  {
    sq_format(key, sizeof key, "base[%d]", i++);
    if (!cJSON_IsString(k)) {
      return sq_fail(SQ_ERR_USAGE, "%s: %s: is %s, expected a path", path, key, sq_cfg_show_json(k, shown));
    }
    const sq_status st = expand(l, path, key, k->valuestring);
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}

/* "mqar/mqar-sm-attention": the nearest folder configs/ above this file, then that path with .json. */
static sq_status read_base_config(path_list *l, const char *path, const cJSON *base)
{
  char folder[PATH_MAX], shown[SQ_CFG_SHOWN];
  sq_cfg_text t = {0};
  if (!cJSON_IsString(base)) {
    return sq_fail(SQ_ERR_USAGE, "%s: base_config: is %s, expected a name like \"mqar/mqar-sm-attention\"",
                   path, sq_cfg_show_json(base, shown));
  }
  if (realpath(path, folder) == NULL) folder[0] = '\0';
  for (char *slash = strrchr(folder, '/'); slash != NULL; slash = strrchr(folder, '/')) {
    *slash = '\0';
    const char *last = strrchr(folder, '/');
    if (last != NULL && strcmp(last, "/configs") == 0) break;
  }
  if (folder[0] == '\0') {
    return sq_fail(SQ_ERR_USAGE,
                   "%s: base_config: no folder configs/ above this file, expected one; or use \"base\"",
                   path);
  }
  const char *name = base->valuestring;
  const size_t n = strlen(name);
  sq_cfg_text_add(&t, "%s/%s%s", folder, name, n > 5 && strcmp(name + n - 5, ".json") == 0 ? "" : ".json");
  const char *full = sq_cfg_text_keep(&t, l->p);
  if (full == NULL) return SQ_ERR_MEMORY;
  if (access(full, F_OK) != 0) {
    return sq_fail(SQ_ERR_USAGE, "%s: base_config: \"%s\" is no file, expected configs/NAME.json", path,
                   sq_cfg_show(name, shown));
  }
  return add_path(l, full);
}

sq_status sq_cfg_bases(sq_cfg_pool *p, const char *path, const cJSON *root, const char ***out, int *nout)
{
  const cJSON *base = cJSON_GetObjectItemCaseSensitive(root, "base");
  const cJSON *config = cJSON_GetObjectItemCaseSensitive(root, "base_config");
  path_list l = {.p = p};
  sq_status st;
  if (base == NULL && config == NULL) {
    return sq_fail(SQ_ERR_USAGE, "%s: base: is missing, expected the cell files that the sweep varies", path);
  }
  if (base != NULL && config != NULL) {
    return sq_fail(SQ_ERR_USAGE, "%s: base_config: given beside base, expected one of the two", path);
  }
  st = base != NULL ? read_base(&l, path, base) : read_base_config(&l, path, config);
  *out = l.path;
  *nout = l.n;
  return st;
}
