/* tests/fuzz/fuzz_results.c: HDF5 files from outside: a results file with weights, changed as the input says, then read as
 * status, report, run --resume and analyze --weights do.
 *
 * HDF5 itself does not survive every damaged file.  So the changes are made through the library: content, types, shapes,
 * storage and links, all of which it writes in good order.
 *
 * With $SQ_FUZZ_RAW bytes of the file change too.  What is found then is the library's so far (HDF5 1.10.8): it reads past the
 * end of an object header's message (under H5Aopen_by_name and H5Dopen2), copies to or from a null pointer (H5C_protect to
 * H5F__accum_read), believes a header's length of gigabytes (H5O_protect), and loses blocks of its own.  So, in the build
 * folder,
 *
 *   SQ_FUZZ_RAW=1 tests/fuzz_results -fork=1 -ignore_crashes=1 -ignore_ooms=1 -max_len=8192 -max_total_time=180 corpus
 *
 * and of the files that it leaves only those matter whose stack, shown by the target run with one of them, ends in our code. */
#include "app/cells.h"
#include "fuzz.h"
#include "store/store_impl.h"

#define MAX_OBJECTS 250
#define NEVAL       2

static const char base[] =
    "{\"dataset\":{\"_name_\":\"mqar\",\"input_seq_length\":32,\"num_kv_pairs\":4,\"vocab_size\":64},"
    "\"train\":{\"total_steps\":8,\"batch_size\":4,\"lr\":0.01},"
    "\"model\":{\"layer\":\"mamba\",\"num_layers\":1,\"hidden_dim\":4,\"state_dim\":4,\"num_heads\":2,\"conv_"
    "dim\":4,"
    "\"expansion\":1,\"glu\":false,\"prenorm\":true,\"vocab_size\":64,\"output_dim\":64,\"pooling\":\"none\"}"
    "}";
static const char grid[] = "{\"base\":[\"base.json\"],\"sweep\":{\"seed\":[1,2],\"train.lr\":[0.01]}}";

static const double cut[2] = {0.25, 0.5};
static const sq_axis axis[] = {{"layer", "1", "layer", 1, NULL, NULL},
                               {"head", "1", "head", 2, NULL, NULL},
                               {"radius_bin", "1", "bin", 7, NULL, NULL},
                               {"cut", "1", "cut", 2, cut, NULL},
                               {"quantile", "1", "quantile", 5, NULL, NULL}};
#define FIELD(name, last, n, is_complex)                                                                     \
  {                                                                                                          \
    name, name, "1", 3, {"layer", "head", last}, {1, 2, n}, 0, is_complex                                    \
  }
static const sq_field field[] = {
    FIELD("percent_radius_mean", "radius_bin", 7, 0),     FIELD("percent_radius_marked", "radius_bin", 7, 0),
    FIELD("effective_state_size_tolerance", "cut", 2, 0), FIELD("effective_state_size_entropy", "cut", 2, 0),
    FIELD("memory_distance_quantile", "quantile", 5, 0),  FIELD("lambda", "cut", 2, 1)};
enum { NAXIS = sizeof axis / sizeof *axis, NFIELD = sizeof field / sizeof *field };

static struct {
  sq_experiment *grid;
  sq_model *model;
  sq_real *theta;
  char *file; /* the good results file */
  size_t bytes;
  char *object[MAX_OBJECTS]; /* its members, and some that it lacks */
  int nobject;
} own;

/* ---- the good file ------------------------------------------------------------------------------------ */

static herr_t add_object(hid_t file, const char *name, const H5O_info_t *info, void *unused)
{
  (void)file, (void)info, (void)unused;
  FUZZ_ASSERT(own.nobject < MAX_OBJECTS);
  if (strcmp(name, ".") != 0) FUZZ_ASSERT((own.object[own.nobject++] = strdup(name)) != NULL);
  return 0;
}

/* Numbers in place of missing values, so that the tables have rows. */
static void fill(hid_t file, const char *path)
{
  hid_t d = H5Dopen2(file, path, H5P_DEFAULT), t = d >= 0 ? H5Dget_type(d) : -1,
        space = d >= 0 ? H5Dget_space(d) : -1;
  if (t >= 0 && H5Tget_class(t) == H5T_FLOAT) {
    const size_t n = (size_t)H5Sget_simple_extent_npoints(space);
    double *v = malloc((n + 1) * sizeof *v);
    FUZZ_ASSERT(v != NULL);
    for (size_t i = 0; i < n; ++i) v[i] = 0.5 + (double)(i % 7);
    FUZZ_ASSERT(H5Dwrite(d, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
    free(v);
  }
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
}

static void finish(hid_t file)
{
  const signed char done[2] = {SQ_CELL_DONE, SQ_CELL_RUNNING};
  const int64_t step[2 * NEVAL] = {1, 2, 1, -1};
  hid_t d = H5Dopen2(file, "/cells/status", H5P_DEFAULT), t = H5Dget_type(d);
  FUZZ_ASSERT(H5Dwrite(d, t, H5S_ALL, H5S_ALL, H5P_DEFAULT, done) >= 0);
  sq_hdf5_drop(t);
  sq_hdf5_drop(d);
  d = H5Dopen2(file, "/history/step", H5P_DEFAULT);
  FUZZ_ASSERT(H5Dwrite(d, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, step) >= 0);
  sq_hdf5_drop(d);
  for (int i = 0; i < own.nobject; ++i) fill(file, own.object[i]);
}

static void make_file(void)
{
  static const char *const absent[] = {"params",    "params/a", "weights/1", "spectra/mqar/m/other/cell",
                                       "spectra/a", "extra"};
  static const int both[2] = {0, 1};
  const char *const metric[2] = {"accuracy", "accuracy"};
  const sq_param_list *const weights[2] = {sq_model_params(own.model), NULL};
  const sq_store_group group = {"/spectra/mqar/m/dsf", 2, both, 2, field, NFIELD, axis, NAXIS};
  const sq_store_plan plan = {own.grid, NEVAL, metric, 1, &group, weights};
  const char *path = fuzz_path("good.h5");
  sq_status st = sq_schema_make(path, &plan);
  if (st != SQ_OK) fprintf(stderr, "%s\n", sq_error_text());
  FUZZ_ASSERT(st == SQ_OK);
  hid_t fapl = sq_hdf5_fapl(MPI_COMM_NULL), file = H5Fopen(path, H5F_ACC_RDWR, fapl);
  FUZZ_ASSERT(file >= 0 && H5Ovisit(file, H5_INDEX_NAME, H5_ITER_INC, add_object, NULL) >= 0);
  finish(file);
  FUZZ_ASSERT(H5Fclose(file) >= 0);
  sq_hdf5_drop(fapl);
  for (size_t i = 0; i < sizeof absent / sizeof *absent; ++i)
    FUZZ_ASSERT((own.object[own.nobject++] = strdup(absent[i])) != NULL);
  own.file = sq_read_file(path, &own.bytes, &st);
  FUZZ_ASSERT(own.file != NULL);
}

static void make_own(void)
{
  const sq_model_dims dims = {
      .seq_len = 32, .max_rows = 64, .max_seqs = 2, .max_labels = 64, .label_per_row = 1};
  fuzz_write("base.json", base, strlen(base));
  fuzz_write("grid.json", grid, strlen(grid));
  sq_status st = sq_experiment_load(sq_app_schema(), fuzz_path("grid.json"), 0, NULL, &own.grid);
  if (st == SQ_OK) st = sq_model_create(sq_experiment_cell(own.grid, 0), dims, &own.model);
  if (st != SQ_OK) fprintf(stderr, "%s\n", sq_error_text());
  FUZZ_ASSERT(st == SQ_OK);
  own.theta = calloc(sq_model_params(own.model)->total, sizeof *own.theta);
  FUZZ_ASSERT(own.theta != NULL);
  make_file();
}

/* ---- the changes that an input describes ---------------------------------------------------------------- */

typedef struct {
  const uint8_t *p;
  size_t n;
} input;

static unsigned take(input *in)
{
  if (in->n == 0) return 0;
  in->n--;
  return *in->p++;
}

static const char *take_object(input *in)
{
  return own.object[take(in) % (unsigned)own.nobject];
}

static hid_t take_type(input *in)
{
  hid_t parts[] = {H5T_IEEE_F64LE, H5T_STD_I64LE, H5T_STD_U64LE, H5T_IEEE_F32BE, H5T_STD_I8LE,
                   H5T_STD_U8LE,   H5T_STD_I32BE, H5T_STD_B8LE,  H5T_STD_REF_OBJ};
  const unsigned kind = take(in) % 16, size = take(in);
  const hsize_t three = 3;
  hid_t t;
  switch (kind) {
  case 9: return sq_hdf5_text_type(size * size);
  case 10:
    t = sq_hdf5_text_type(1);
    H5Tset_size(t, H5T_VARIABLE);
    return t;
  case 11: return sq_hdf5_complex_type(parts[size % 4]);
  case 12: return H5Tarray_create2(parts[size % 4], 1, &three);
  case 13: return H5Tvlen_create(parts[size % 4]);
  case 14: return H5Tcreate(H5T_OPAQUE, size + 1);
  case 15:
    t = H5Tenum_create(parts[4 + size % 3]);
    H5Tenum_insert(t, "done", "\2\0\0\0");
    return t;
  default: t = H5Tcopy(parts[kind]);
  }
  if (kind < 7 && size > 0 && kind != 0 && kind != 3) H5Tset_precision(t, size % (8 * H5Tget_size(t)) + 1);
  return t;
}

static hid_t take_space(input *in)
{
  /* The product of the last three is 2^64 + 4. */
  static const hsize_t large[] = {64,    1000,      65536,  1u << 30, (hsize_t)1 << 32, (hsize_t)1 << 63,
                                  27905, 429509837, 1539092};
  const unsigned rank = take(in) % 10;
  hsize_t dim[8];
  if (rank == 9) return H5Screate(H5S_NULL);
  if (rank == 0) return H5Screate(H5S_SCALAR);
  for (unsigned i = 0; i < rank; ++i) {
    const unsigned b = take(in);
    dim[i] = b < 128 ? b % 8 : large[b % (sizeof large / sizeof *large)];
  }
  return H5Screate_simple((int)rank, dim, NULL);
}

/* Elements, as far as they are written: 0 for what is large. */
static size_t few_points(hid_t space, size_t size)
{
  hsize_t dim[H5S_MAX_RANK];
  const int rank =
      H5Sget_simple_extent_type(space) == H5S_NULL ? -1 : H5Sget_simple_extent_dims(space, dim, NULL);
  double n = rank >= 0 && size <= 65536 ? 1 : 0;
  for (int i = 0; i < rank; ++i) n *= (double)dim[i];
  return n * (double)size <= 1 << 18 ? (size_t)n : 0;
}

/* The same few bytes over and over. */
static void write_values(hid_t d, input *in)
{
  static const char *text[256];
  uint8_t piece[64];
  const size_t length = take(in) % sizeof piece + 1;
  hid_t t = H5Dget_type(d), space = H5Dget_space(d);
  const H5T_class_t c = H5Tget_class(t);
  const size_t size = H5Tget_size(t), n = few_points(space, size);
  for (size_t i = 0; i < length; ++i) piece[i] = (uint8_t)take(in);
  if (H5Tis_variable_str(t) > 0) {
    for (size_t i = 0; i < 256; ++i) text[i] = "{\"a\":[1]}";
    if (n > 0 && n <= 256) H5Dwrite(d, t, H5S_ALL, H5S_ALL, H5P_DEFAULT, text);
  } else if (n > 0 && c != H5T_VLEN && c != H5T_REFERENCE) {
    uint8_t *v = malloc(n * size);
    FUZZ_ASSERT(v != NULL);
    for (size_t i = 0; i < n * size; ++i) v[i] = piece[i % length];
    H5Dwrite(d, t, H5S_ALL, H5S_ALL, H5P_DEFAULT, v);
    free(v);
  }
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
}

static hid_t take_storage(input *in, hid_t space)
{
  hid_t p = H5Pcreate(H5P_DATASET_CREATE);
  hsize_t dim[H5S_MAX_RANK];
  const unsigned kind = take(in) % 8;
  const int rank = H5Sget_simple_extent_dims(space, dim, NULL);
  for (int i = 0; i < rank; ++i) dim[i] = dim[i] > 4 ? 4 : dim[i] > 0 ? dim[i] : 1;
  if (kind == 1) H5Pset_layout(p, H5D_COMPACT);
  if (kind >= 2 && kind <= 5 && rank > 0) H5Pset_chunk(p, rank, dim);
  if (kind == 3) H5Pset_deflate(p, 4);
  if (kind == 4) H5Pset_shuffle(p);
  if (kind == 5) H5Pset_fletcher32(p);
  if (kind == 6) H5Pset_external(p, "good.h5", 0, H5F_UNLIMITED);
  return p;
}

static void replace(hid_t file, const char *path, input *in, int new_type, int new_space)
{
  hid_t d = H5Dopen2(file, path, H5P_DEFAULT), links = H5Pcreate(H5P_LINK_CREATE);
  hid_t t = d < 0 || new_type ? take_type(in) : H5Dget_type(d);
  hid_t space = d < 0 || new_space ? take_space(in) : H5Dget_space(d);
  hid_t storage = take_storage(in, space);
  sq_hdf5_drop(d);
  H5Ldelete(file, path, H5P_DEFAULT);
  H5Pset_create_intermediate_group(links, 1);
  d = H5Dcreate2(file, path, t, space, links, storage, H5P_DEFAULT);
  if (d >= 0) write_values(d, in);
  sq_hdf5_drop(d);
  sq_hdf5_drop(storage);
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
  sq_hdf5_drop(links);
}

static void overwrite(hid_t file, const char *path, input *in)
{
  hid_t d = H5Dopen2(file, path, H5P_DEFAULT);
  if (d >= 0) write_values(d, in);
  sq_hdf5_drop(d);
}

static void link_elsewhere(hid_t file, const char *path, input *in)
{
  const char *other = take_object(in);
  const unsigned kind = take(in) % 4;
  H5Ldelete(file, path, H5P_DEFAULT);
  if (kind == 0) H5Lcreate_hard(file, other, file, path, H5P_DEFAULT, H5P_DEFAULT);
  if (kind == 1) H5Lcreate_soft(other, file, path, H5P_DEFAULT, H5P_DEFAULT);
  if (kind == 2) H5Lcreate_external(fuzz_path("good.h5"), other, file, path, H5P_DEFAULT, H5P_DEFAULT);
  if (kind == 3) H5Lcreate_hard(file, "/", file, path, H5P_DEFAULT, H5P_DEFAULT);
}

static void change_attribute(hid_t file, input *in)
{
  static const char *const name[] = {"schema_version", "program", "precision", "missing_values",
                                     "complex_numbers"};
  const char *which = name[take(in) % 5];
  hid_t t = take_type(in), space = take_space(in);
  const size_t n = few_points(space, H5Tget_size(t)), size = H5Tget_size(t);
  H5Adelete(file, which);
  hid_t a = n * size < 60000 ? H5Acreate2(file, which, t, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
  const H5T_class_t c = H5Tget_class(t);
  if (a >= 0 && n > 0 && c != H5T_VLEN && c != H5T_REFERENCE && H5Tis_variable_str(t) == 0) {
    uint8_t *v = malloc(n * size);
    FUZZ_ASSERT(v != NULL);
    for (size_t i = 0; i < n * size; ++i) v[i] = (uint8_t)take(in);
    H5Awrite(a, t, v);
    free(v);
  }
  sq_hdf5_drop(a);
  sq_hdf5_drop(space);
  sq_hdf5_drop(t);
}

static void change(hid_t file, input *in)
{
  const unsigned kind = take(in) % 9;
  const char *path = take_object(in);
  hid_t g = -1;
  switch (kind) {
  case 0: overwrite(file, path, in); break;
  case 1: replace(file, path, in, 1, 1); break;
  case 2: replace(file, path, in, 1, 0); break;
  case 3: replace(file, path, in, 0, 1); break;
  case 4: H5Ldelete(file, path, H5P_DEFAULT); break;
  case 5: link_elsewhere(file, path, in); break;
  case 6:
    H5Ldelete(file, path, H5P_DEFAULT);
    g = H5Gcreate2(file, path, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    sq_hdf5_drop(g);
    break;
  case 7: change_attribute(file, in); break;
  default: H5Lmove(file, path, file, take_object(in), H5P_DEFAULT, H5P_DEFAULT); break;
  }
}

/* Whether there is a file to read: HDF5 may refuse to write what an input asks for. */
static int make_changed(input *in)
{
  const int raw = getenv("SQ_FUZZ_RAW") != NULL;
  fuzz_write("r.h5", own.file, own.bytes);
  hid_t fapl = sq_hdf5_fapl(MPI_COMM_NULL), file = H5Fopen(fuzz_path("r.h5"), H5F_ACC_RDWR, fapl);
  FUZZ_ASSERT(file >= 0);
  for (int k = raw ? (int)take(in) % 4 : 6; k > 0 && in->n > 0; --k) change(file, in);
  const int fine = H5Fclose(file) >= 0;
  sq_hdf5_drop(fapl);
  FILE *f = raw && fine ? fopen(fuzz_path("r.h5"), "r+b") : NULL;
  while (f != NULL && in->n > 0) {
    long at = (long)take(in) << 16;
    at |= (long)take(in) << 8;
    at |= (long)take(in);
    fseek(f, at % (long)own.bytes, SEEK_SET);
    fputc((int)take(in), f);
  }
  if (f != NULL) fclose(f);
  return fine;
}

/* A block that HDF5 loses in a damaged file; what we fail to close is found below. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
  return getenv("SQ_FUZZ_RAW") != NULL ? "leak:libhdf5" : "";
}

/* ---- the readers ---------------------------------------------------------------------------------------- */

static void expect_known(sq_status st)
{
  FUZZ_ASSERT(st == SQ_OK || st == SQ_ERR_DATA || st == SQ_ERR_MEMORY || st == SQ_ERR_CHECK ||
              st == SQ_ERR_USAGE || st == SQ_ERR_IO);
  FUZZ_ASSERT((st == SQ_OK || *sq_error_text() != '\0') && strchr(sq_error_text(), '\n') == NULL);
  sq_error_clear();
}

static void read_group(const sq_results *r, int g)
{
  const int *cell;
  const int n = sq_results_group_cells(r, g, &cell);
  double *v;
  int ndim, dim[SQ_FIELD_AXES];
  for (int f = 0; f < NFIELD; ++f)
    for (int row = 0; row < n && row < 4; ++row) {
      const sq_status st =
          sq_results_field(r, g, field[f].name, row, sq_results_group_nstage(r, g) - 1, &v, &ndim, dim);
      double sum = 0;
      size_t size = 1;
      for (int i = 0; i < ndim; ++i) size *= (size_t)dim[i];
      for (size_t i = 0; st == SQ_OK && i < size; ++i) sum += v[i] != v[i]; /* each is touched */
      FUZZ_ASSERT(sum >= 0);
      free(v);
      expect_known(st);
    }
  for (int i = 0; i < n; ++i) FUZZ_ASSERT(0 <= cell[i] && cell[i] < sq_results_ncell(r));
  expect_known(sq_results_axis(r, g, "cut", &v, &ndim));
  free(v);
}

static void read_results(const char *path)
{
  sq_results *r;
  const sq_status st = sq_results_open(path, &r);
  expect_known(st);
  if (st != SQ_OK) return;
  for (int i = 0; i < sq_results_ncell(r) && i < 8; ++i) {
    const sq_results_cell *c = sq_results_cell_at(r, i);
    sq_eval_record *e;
    int n;
    FUZZ_ASSERT(c->label != NULL && c->reason != NULL && c->host != NULL && c->metric != NULL);
    expect_known(sq_results_history(r, i, &e, &n));
    free(e);
  }
  for (int g = 0; g < sq_results_ngroup(r); ++g) read_group(r, g);
  sq_results_close(&r);
}

static void read_as_resume(const char *path)
{
  sq_h5 *f;
  char *text = NULL;
  sq_status st = sq_h5_open(path, &f);
  if (st == SQ_OK) st = sq_h5_read_grid(f, &text);
  if (st == SQ_OK) st = sq_schema_compare(path, text, sq_experiment_json(own.grid));
  expect_known(st);
  sq_h5_close(&f);
  free(text);
}

static void read_as_report(const char *path, unsigned which)
{
  static const char *const table[] = {"accuracy", "spectra", "memory", "cells", "training"};
  static FILE *nowhere;
  if (nowhere == NULL) nowhere = fopen("/dev/null", "w");
  expect_known(sq_report_print(path, table[which % 5], which / 5 % 2 ? "csv" : "latex", nowhere));
}

static void read_as_command(char *path, sq_status (*command)(int argc, char **argv))
{
  static FILE *nowhere;
  FILE *const out = stdout;
  if (nowhere == NULL) nowhere = fopen("/dev/null", "w");
  stdout = nowhere;
  expect_known(command(1, &path));
  stdout = out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  input in = {data, n};
  if (own.file == NULL) make_own();
  const unsigned reader = take(&in), more = take(&in);
  sq_error_clear();
  if (!make_changed(&in)) return 0;
  char *path = strdup(fuzz_path("r.h5"));
  FUZZ_ASSERT(path != NULL);
  switch (reader % 6) {
  case 0: read_results(path); break;
  case 1: read_as_resume(path); break;
  case 2: read_as_report(path, more); break;
  case 3: read_as_command(path, sq_app_status); break;
  case 4: read_as_command(path, sq_app_report); break;
  default: expect_known(sq_weights_read(own.model, own.grid, path, (int)more % 2, own.theta, NULL)); break;
  }
  FUZZ_ASSERT(H5Fget_obj_count(H5F_OBJ_ALL, H5F_OBJ_ALL) == 0); /* nothing is left open */
  free(path);
  return 0;
}
