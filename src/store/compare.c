/* src/store/compare.c: whether a results file can be continued: where two resolved grids differ, and whether
 * its /segments take another row. */
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

int sq_store_key_is_free(const char *key)
{
  static const char *const name[] = {"run.threads", "run.team", "run.overlap", "run.checkpoint_minutes"};
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
  if (sq_store_key_is_free(key)) return 0;
  if (was == NULL || is == NULL) return differs(key, was, is, d);
  if (cJSON_IsObject(was) && cJSON_IsObject(is)) return find_in_object(key, was, is, d);
  if (cJSON_IsArray(was) && cJSON_IsArray(is)) return find_in_array(key, was, is, d);
  return cJSON_Compare(was, is, 1) ? 0 : differs(key, was, is, d);
}

/* ---- /segments ---------------------------------------------------------------------------------------- */
static int segment_fits(hid_t d, const sq_column *k)
{
  hid_t t = H5Dget_type(d), space = H5Dget_space(d);
  const size_t size = H5Tget_size(t);
  const int text = k->type == SQ_COL_TEXT;
  const H5T_class_t class = text ? H5T_STRING : k->type == SQ_COL_REAL ? H5T_FLOAT : H5T_INTEGER;
  const int fits = H5Tget_class(t) == class && H5Tis_variable_str(t) <= 0 && size == (text ? k->len : 8) &&
                   H5Sget_simple_extent_ndims(space) == 1 &&
                   H5Sget_simple_extent_npoints(space) == SQ_MAX_SEGMENTS;
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  return fits;
}

/* The run's next row is the first free one, else the last: what that row said is lost. */
static sq_status check_room(const char *path, hid_t d)
{
  const hsize_t last = SQ_MAX_SEGMENTS - 1, one = 1;
  char time[32] = "";
  SQ_ASSERT(sq_segment_columns[SQ_S_TIME].len == sizeof time);
  if (sq_layout_read(d, -1, &last, &one, time) < 0)
    return sq_fail(SQ_ERR_IO, "%s is damaged: /segments/time cannot be read (%s)", path, sq_hdf5_cause());
  if (time[0] != '\0')
    sq_note("%s: all %d rows of /segments are used; this start replaces the last", path, SQ_MAX_SEGMENTS);
  return SQ_OK;
}

/* Before the first cell is trained, not when its row is written. */
static sq_status check_segments(const char *path)
{
  sq_h5 *f;
  sq_status st = sq_h5_open(path, &f);
  hid_t dapl = sq_hdf5_inside(H5P_DATASET_ACCESS);
  for (int i = 0; st == SQ_OK && i < SQ_NSEGMENT; ++i) {
    const sq_column *k = &sq_segment_columns[i];
    char name[64];
    sq_format(name, sizeof name, "/segments/%s", k->name);
    hid_t d = H5Dopen2(sq_h5_file(f), name, dapl);
    if (d < 0 || !segment_fits(d, k))
      st = sq_fail(SQ_ERR_IO, "%s is damaged: %s is missing or of another type or length", path, name);
    else
      st = sq_hdf5_check_storage(d, path, name);
    if (st == SQ_OK && i == SQ_S_TIME) st = check_room(path, d);
    sq_hdf5_drop(d);
  }
  sq_hdf5_drop(dapl);
  sq_h5_close(&f);
  return st;
}

/* ---- what the file was made for ------------------------------------------------------------------------ */
static sq_status compare_grid(const char *path, const char *grid_in_file, const char *grid_now)
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

sq_status sq_schema_compare(const char *path, const char *grid_in_file, const char *grid_now)
{
  const sq_status st = compare_grid(path, grid_in_file, grid_now);
  return st == SQ_OK ? check_segments(path) : st;
}
