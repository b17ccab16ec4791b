/* tests/store_fixture.c */
#include "store_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

static const sq_key keys[] = {
    {"seed", SQ_KEY_INT, "0", 0, 1 << 30, NULL, "seed"},
    {"dataset._name_", SQ_KEY_STRING, NULL, 0, 0, NULL, "task"},
    {"model.layer", SQ_KEY_STRING, NULL, 0, 0, NULL, "model"},
    {"train.lr", SQ_KEY_REAL, "0.01", 0, 1, NULL, "learning rate"},
    {"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, "corrected|published", "recipe"},
    {"run.threads", SQ_KEY_INT, "1", 1, 64, NULL, "threads a rank"},
};
static const sq_keyset set = {"", keys, (int)(sizeof keys / sizeof keys[0]), NULL};
static const sq_keyset *const sets[] = {&set};
static const sq_schema schema = {sets, 1};

static const double cuts[] = {0.25, 0.5};
static const char *const bins[] = {"[0, 0.5]", "(0.5, 1]", "(1, \xe2\x88\x9e)"};
static const sq_axis axes[] = {
    {"layer", "1", "layer, from the input", 2, NULL, NULL},
    {"head", "1", "head of the mixer", 2, NULL, NULL},
    {"sample", "1", "sequence", 3, NULL, NULL},
    {"position", "1", "step", 17, NULL, NULL},
    {"radius_bin", "1", "range of the modulus", 3, NULL, bins},
    {"cut", "1", "cut, as a fraction", 2, cuts, NULL},
};
static const sq_field fields[FIXTURE_FIELDS] = {
    {"log_lambda",
     "natural log of the modulus",
     "1",
     4,
     {"layer", "head", "sample", "position"},
     {2, 2, 3, 17},
     0,
     0},
    {"percent_radius_mean",
     "share by modulus",
     "percent",
     3,
     {"layer", "head", "radius_bin"},
     {2, 2, 3},
     0,
     0},
    {"effective_state_size_entropy", "exp of the entropy", "1", 3, {"layer", "head", "cut"}, {2, 2, 2}, 1, 0},
    {"length", "steps of the sequence", "step", 1, {"sample"}, {3}, -1, 0},
    {"lambda", "eigenvalue", "1", 3, {"layer", "head", "cut"}, {2, 2, 2}, 1, 1},
};
static const int members[2][FIXTURE_SEEDS] = {{0, 2, 4}, {1, 3, 5}};
static const char *const metrics[FIXTURE_CELLS] = {"accuracy", "accuracy", "accuracy",
                                                   "accuracy", "accuracy", "accuracy"};

static sq_status write_text(const char *dir, const char *name, const char *text)
{
  char path[512];
  sq_format(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0)
    return sq_fail(SQ_ERR_IO, "%s cannot be written", path);
  return SQ_OK;
}

sq_status fixture_make(fixture *f, const char *dir, double lr, int with_weights)
{
  static const sq_param_list *weights[FIXTURE_CELLS];
  char text[256], path[512];
  sq_status st;
  int rank = 0;
  memset(f, 0, sizeof *f);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0) {
    SQ_TRY(write_text(dir, "tiny.json",
                      "{\"dataset\": {\"_name_\": \"mqar\"}, \"model\": {\"layer\": \"attention\"}}"));
    sq_format(text, sizeof text,
              "{\"name\": \"grid\", \"base\": [\"tiny.json\"], \"sweep\": {\"seed\": [7, 8, 9], "
              "\"train.lr\": [0.01, %.17g]}}",
              lr);
    SQ_TRY(write_text(dir, "grid.json", text));
  }
  MPI_Barrier(MPI_COMM_WORLD);
  sq_format(path, sizeof path, "%s/grid.json", dir);
  SQ_TRY(sq_experiment_load(&schema, path, 0, NULL, &f->experiment));
  SQ_ASSERT(sq_experiment_ncell(f->experiment) == FIXTURE_CELLS);
  for (int g = 0; g < 2; ++g) {
    f->group[g] =
        (sq_store_group){"", FIXTURE_SEEDS, members[g], FIXTURE_STAGES, fields, FIXTURE_FIELDS, axes, 6};
    sq_format(f->group[g].path, sizeof f->group[g].path, "/spectra/mqar/tiny-%d/dsf",
              2 - g); /* not in the order of names */
  }
  sq_param_add(&f->weights, 0, 2, (int[]){3, 5}, "layers.0.weight");
  sq_param_add(&f->weights, 0, 1, (int[]){7}, "layers.0.bias");
  for (int i = 0; i < FIXTURE_CELLS; ++i) weights[i] = i % 2 == 0 ? &f->weights : NULL;
  f->plan =
      (sq_store_plan){f->experiment, FIXTURE_EVALS, metrics, 2, f->group, with_weights ? weights : NULL};
done:
  return st;
}

void fixture_clear(fixture *f)
{
  sq_experiment_destroy(&f->experiment);
  sq_param_clear(&f->weights);
}

double fixture_value(int cell, int stage, int field, size_t i)
{
  return field == 0 && i % 17 == 0 ? (double)NAN
                                   : sin(1.0 + cell + 10.0 * stage + 100.0 * field + 1000.0 * (double)i);
}

sq_eval_record fixture_eval(int cell, int k)
{
  return (sq_eval_record){100L * (k + 1) + cell, 1.0 / (k + 1),  2.0 / (k + 1),
                          0.1 * k + 0.01 * cell, 1e-3 * (k + 1), (double)cell};
}

sq_train_result fixture_result(int cell)
{
  return (sq_train_result){SQ_OUTCOME_DONE,   "",  400,  300 + cell,      22, 0.5 + cell,
                           0.9 - 0.01 * cell, 0.8, 0.25, 1e9 * (cell + 1)};
}

size_t fixture_size(int field)
{
  return sq_field_doubles(&fields[field]);
}

sq_status fixture_write(const fixture *f, sq_store *s, int cell, int rank)
{
  double *data[FIXTURE_FIELDS] = {NULL};
  sq_real theta[64] = {0};
  sq_status st;
  SQ_TRY(sq_store_cell_running(s, cell, rank, "node-\xc3\xa4"));
  for (int k = 0; k < FIXTURE_EVALS - 1; ++k) { /* the last column stays missing */
    const sq_eval_record e = fixture_eval(cell, k);
    SQ_TRY(sq_store_history(s, cell, k, &e));
  }
  for (int i = 0; i < FIXTURE_FIELDS; ++i) data[i] = sq_calloc(fixture_size(i), sizeof(double), "a field");
  for (int stage = 0; stage < FIXTURE_STAGES; stage += 2) { /* the snapshot stays missing */
    for (int i = 0; i < FIXTURE_FIELDS; ++i)
      for (size_t k = 0; k < fixture_size(i); ++k) data[i][k] = fixture_value(cell, stage, i, k);
    SQ_TRY(sq_store_spectra(s, cell % 2, cell, stage, 200 * stage, data));
  }
  for (int i = 0; i < 64; ++i) theta[i] = (sq_real)(cell + i);
  if (f->plan.weights != NULL && f->plan.weights[cell] != NULL)
    SQ_TRY(sq_store_weights(s, cell, &f->weights, theta));
done:
  for (int i = 0; i < FIXTURE_FIELDS; ++i) free(data[i]);
  return st;
}

sq_status fixture_end(sq_store *s, int cell)
{
  const sq_train_result r = fixture_result(cell);
  return sq_store_cell_end(s, cell, SQ_CELL_DONE, "", &r, 1.5);
}

sq_segment fixture_segment(int ranks)
{
  sq_segment g = {"",   "1.0", "some processor", "some BLAS", "kernel", "some MPI", "", "one,two", ranks, 1,
                  0.25, NAN};
  sq_start_iso(g.time);
  sq_format(g.hdf5, sizeof g.hdf5, "%s", sq_hdf5_version());
  return g;
}
