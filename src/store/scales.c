/* src/store/scales.c: the attributes of HDF5's dimension scales, written directly.
 *
 * The high-level library would do it too, but writes padding bytes of unset memory, so that equal files would
 * not be equal. */
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"
#include "store_impl.h"

typedef struct {
  char *dset;
  int dim, scale;
} use;

struct sq_scales {
  char **scale;
  use *u;
  int nscale, cap_scale, nuse, cap_use;
};

typedef struct { /* element of REFERENCE_LIST, as the specification has it */
  hobj_ref_t dataset;
  int dimension;
  int padding;
} back_reference;

sq_scales *sq_scales_create(void)
{
  return sq_calloc(1, sizeof(sq_scales), "dimension scales");
}

void sq_scales_destroy(sq_scales *l)
{
  if (l == NULL) return;
  for (int i = 0; i < l->nscale; ++i) free(l->scale[i]);
  for (int i = 0; i < l->nuse; ++i) free(l->u[i].dset);
  free(l->scale);
  free(l->u);
  free(l);
}

static int grow(void **v, int n, int *cap, size_t size)
{
  if (n < *cap) return 1;
  const int bigger = *cap > 0 ? 2 * *cap : 64;
  void *p = realloc(*v, (size_t)bigger * size);
  if (p == NULL) return 0;
  *v = p;
  *cap = bigger;
  return 1;
}

int sq_scales_add(sq_scales *l, const char *path)
{
  void *v = l->scale;
  if (!grow(&v, l->nscale, &l->cap_scale, sizeof *l->scale)) return 0;
  l->scale = v;
  l->scale[l->nscale] = strdup(path);
  if (l->scale[l->nscale] == NULL) return 0;
  l->nscale++;
  return 1;
}

int sq_scales_use(sq_scales *l, const char *dset, int dim, const char *scale)
{
  int s = l->nscale - 1; /* the newest are the likeliest */
  while (s >= 0 && strcmp(l->scale[s], scale) != 0) --s;
  SQ_ASSERT(s >= 0);
  void *v = l->u;
  if (!grow(&v, l->nuse, &l->cap_use, sizeof *l->u)) return 0;
  l->u = v;
  use *u = &l->u[l->nuse];
  *u = (use){strdup(dset), dim, s};
  if (u->dset == NULL) return 0;
  l->nuse++;
  return 1;
}

static herr_t put_array(hid_t object, const char *name, hid_t type, hsize_t n, const void *data)
{
  herr_t e = -1;
  hid_t space = H5Screate_simple(1, &n, NULL);
  hid_t a = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  if (a >= 0) e = H5Awrite(a, type, data);
  sq_hdf5_drop(a);
  sq_hdf5_drop(space);
  return e;
}

/* CLASS and NAME are NUL-terminated in the specification. */
static herr_t put_terminated(hid_t object, const char *name, const char *text)
{
  herr_t e = -1;
  hid_t t = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(t, strlen(text) + 1);
  hid_t a = H5Acreate2(object, name, t, space, H5P_DEFAULT, H5P_DEFAULT);
  if (a >= 0) e = H5Awrite(a, t, text);
  sq_hdf5_drop(a);
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  return e;
}

static herr_t write_scale(const sq_scales *l, hid_t file, int s)
{
  herr_t e = -1;
  back_reference *list = calloc(l->nuse > 0 ? (size_t)l->nuse : 1, sizeof *list);
  hid_t d = H5Dopen2(file, l->scale[s], H5P_DEFAULT);
  hid_t t = H5Tcreate(H5T_COMPOUND, sizeof *list);
  if (list == NULL || d < 0 || t < 0) goto done;
  H5Tinsert(t, "dataset", HOFFSET(back_reference, dataset), H5T_STD_REF_OBJ);
  H5Tinsert(t, "dimension", HOFFSET(back_reference, dimension), H5T_NATIVE_INT);
  hsize_t n = 0;
  for (int i = 0; i < l->nuse; ++i) {
    if (l->u[i].scale != s) continue;
    if (H5Rcreate(&list[n].dataset, file, l->u[i].dset, H5R_OBJECT, -1) < 0) goto done;
    list[n++].dimension = l->u[i].dim;
  }
  e = put_terminated(d, "CLASS", "DIMENSION_SCALE");
  if (e >= 0) e = put_terminated(d, "NAME", strrchr(l->scale[s], '/') + 1);
  if (e >= 0 && n > 0) e = put_array(d, "REFERENCE_LIST", t, n, list);
done:
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  free(list);
  return e;
}

/* The uses u[0..n-1] of one data set, a scale for each of its dimensions. */
static herr_t write_list(const sq_scales *l, hid_t file, const use *u, int n)
{
  hobj_ref_t ref[H5S_MAX_RANK];
  hvl_t list[H5S_MAX_RANK];
  herr_t e = 0;
  for (int i = 0; i < n; ++i) {
    SQ_ASSERT(u[i].dim == i);
    list[i] = (hvl_t){1, &ref[i]};
    if (H5Rcreate(&ref[i], file, l->scale[u[i].scale], H5R_OBJECT, -1) < 0) return -1;
  }
  hid_t d = H5Dopen2(file, u[0].dset, H5P_DEFAULT), t = H5Tvlen_create(H5T_STD_REF_OBJ);
  e = d < 0 || t < 0 ? -1 : put_array(d, "DIMENSION_LIST", t, (hsize_t)n, list);
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  return e;
}

herr_t sq_scales_write(const sq_scales *l, hid_t file)
{
  for (int s = 0; s < l->nscale; ++s)
    if (write_scale(l, file, s) < 0) return -1;
  for (int i = 0, n; i < l->nuse; i += n) {
    for (n = 1; i + n < l->nuse && strcmp(l->u[i + n].dset, l->u[i].dset) == 0; ++n) {
    }
    if (write_list(l, file, &l->u[i], n) < 0) return -1;
  }
  return 0;
}
