/* src/store/compare.c: where two resolved grids differ. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "store_impl.h"

typedef struct {
  char key[256]; /* path of the first difference */
  char was[64], is[64];
} difference;

static void show(char out[64], const cJSON *v)
{
  char *text = v != NULL ? cJSON_PrintUnformatted(v) : NULL;
  if (text == NULL)
    snprintf(out, 64, "nothing");
  else if (strlen(text) < 60)
    snprintf(out, 64, "%s", text);
  else
    snprintf(out, 64, "%.56s...", text);
  cJSON_free(text);
}

static int differs(const char *key, const cJSON *was, const cJSON *is, difference *d)
{
  snprintf(d->key, sizeof d->key, "%s", key);
  show(d->was, was);
  show(d->is, is);
  return 1;
}

/* Threads, teams and the time between checkpoints do not change a number; they may change between segments.
 */
static int is_free(const char *key)
{
  static const char *const name[] = {"run.threads", "run.team", "run.checkpoint_minutes"};
  const size_t n = strlen(key);
  for (size_t i = 0; i < sizeof name / sizeof name[0]; ++i) {
    const size_t k = strlen(name[i]);
    if (n >= k && strcmp(key + n - k, name[i]) == 0 && (n == k || key[n - k - 1] == '.')) return 1;
  }
  return 0;
}

static int find(const char *key, const cJSON *was, const cJSON *is, difference *d);

static int find_in_object(const char *key, const cJSON *was, const cJSON *is, difference *d)
{
  char inner[256];
  for (const cJSON *a = was->child; a != NULL; a = a->next) {
    snprintf(inner, sizeof inner, "%s%s%s", key, key[0] != '\0' ? "." : "", a->string);
    if (find(inner, a, cJSON_GetObjectItemCaseSensitive(is, a->string), d)) return 1;
  }
  for (const cJSON *b = is->child; b != NULL; b = b->next) {
    snprintf(inner, sizeof inner, "%s%s%s", key, key[0] != '\0' ? "." : "", b->string);
    if (cJSON_GetObjectItemCaseSensitive(was, b->string) == NULL && find(inner, NULL, b, d)) return 1;
  }
  return 0;
}

static int find_in_array(const char *key, const cJSON *was, const cJSON *is, difference *d)
{
  char inner[256];
  const int n = cJSON_GetArraySize(was), m = cJSON_GetArraySize(is);
  const cJSON *a = was->child, *b = is->child;
  for (int i = 0; i < n && i < m; ++i, a = a->next, b = b->next) {
    snprintf(inner, sizeof inner, "%s[%d]", key, i);
    if (find(inner, a, b, d)) return 1;
  }
  if (n == m) return 0;
  snprintf(d->key, sizeof d->key, "number of %s", key);
  snprintf(d->was, sizeof d->was, "%d", n);
  snprintf(d->is, sizeof d->is, "%d", m);
  return 1;
}

static int find(const char *key, const cJSON *was, const cJSON *is, difference *d)
{
  if (is_free(key)) return 0;
  if (was == NULL || is == NULL) return differs(key, was, is, d);
  if (cJSON_IsObject(was) && cJSON_IsObject(is)) return find_in_object(key, was, is, d);
  if (cJSON_IsArray(was) && cJSON_IsArray(is)) return find_in_array(key, was, is, d);
  return cJSON_Compare(was, is, 1) ? 0 : differs(key, was, is, d);
}

sq_status sq_schema_compare(const char *path, const char *grid_in_file, const char *grid_now)
{
  if (strcmp(grid_in_file, grid_now) == 0) return SQ_OK;
  cJSON *was = cJSON_Parse(grid_in_file), *is = cJSON_Parse(grid_now);
  difference d;
  sq_status st = SQ_OK;
  if (was == NULL || is == NULL)
    st = sq_fail(SQ_ERR_IO, "%s is damaged: its grid is not JSON", path);
  else if (find("", was, is, &d))
    st = sq_fail(SQ_ERR_USAGE, "%s was made for another grid: %s is %s there and %s now; use another --out",
                 path, d.key, d.was, d.is);
  cJSON_Delete(was);
  cJSON_Delete(is);
  return st;
}
