/* tests/store_fixture.h: a small grid with made-up numbers, each a function of its place, for tests of the
 * results file. */
#pragma once

#include "sq/store.h"

#define FIXTURE_SEEDS  3
#define FIXTURE_CELLS  6 /* seeds x learning rates */
#define FIXTURE_EVALS  4
#define FIXTURE_STAGES 3
#define FIXTURE_FIELDS 5 /* the last has complex values */

typedef struct {
  sq_experiment *experiment;
  sq_store_plan plan;
  sq_store_group group[2];
  sq_param_list weights;
} fixture;

/* Two groups: cells 0, 2, 4 and cells 1, 3, 5.  `lr`: the second learning rate, to make grids that differ.
   dir: an existing folder for the grid's files. */
sq_status fixture_make(fixture *f, const char *dir, double lr, int with_weights);
void fixture_clear(fixture *f);

double fixture_value(int cell, int stage, int field, size_t i);
sq_eval_record fixture_eval(int cell, int k);
sq_train_result fixture_result(int cell);
size_t fixture_size(int field); /* numbers of a field for one cell and stage */
/* Writes everything of a cell, up to but without its end. */
sq_status fixture_write(const fixture *f, sq_store *s, int cell, int rank);
sq_status fixture_end(sq_store *s, int cell);
sq_segment fixture_segment(int ranks);
