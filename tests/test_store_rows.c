/* tests/test_store_rows.c: rows written by many ranks are read back by one; resume; errors on all ranks. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sq/base.h"
#include "store_fixture.h"

static int rank, nrank;
static char dir[256], file[300];

/* The same name on all ranks. */
static void new_file(const char *name)
{
  sq_format(file, sizeof file, "%s/%s", dir, name);
  sq_error_clear();
}

static void fine(sq_status st)
{
  if (st != SQ_OK) print_error("rank %d: %s\n", rank, sq_error_text());
  assert_int_equal(st, SQ_OK);
}

static void write_cells(const fixture *f, sq_store *s, int from, int to)
{
  for (int c = from; c < to; ++c)
    if (c % nrank == rank) {
      fine(fixture_write(f, s, c, rank));
      fine(fixture_end(s, c));
    }
}

static void create_and_write(const fixture *f, int cells)
{
  sq_store *s;
  fine(sq_store_create(MPI_COMM_WORLD, file, &f->plan, &s));
  const sq_segment g = fixture_segment(nrank);
  if (rank == 0) {
    fine(sq_store_segment(s, &g));
    fine(sq_store_first_step(s, 1.25));
  }
  write_cells(f, s, 0, cells);
  fine(sq_store_close(&s));
  assert_null(s);
}

static void same(double got, double expected)
{
  assert_true(got == expected || (isnan(got) && isnan(expected)));
}

static void check_spectra(const sq_results *r, int g, int row, int cell, int written)
{
  static const char *const name[] = {"log_lambda", "percent_radius_mean", "effective_state_size_entropy",
                                     "length", "lambda"};
  for (int stage = 0; stage < FIXTURE_STAGES; ++stage)
    for (int f = 0; f < FIXTURE_FIELDS; ++f) {
      double *data;
      int ndim, dim[SQ_FIELD_AXES];
      fine(sq_results_field(r, g, name[f], row, stage, &data, &ndim, dim));
      for (size_t i = 0; i < fixture_size(f); ++i)
        same(data[i], written && stage != 1 ? fixture_value(cell, stage, f, i) : (double)NAN);
      free(data);
    }
}

static void check_cell(const sq_results *r, int i)
{
  const sq_results_cell *c = sq_results_cell_at(r, i);
  const sq_train_result want = fixture_result(i);
  assert_int_equal(c->status, SQ_CELL_DONE);
  assert_int_equal((int)c->seed, 7 + i / 2);
  assert_string_equal(c->task, "mqar");
  assert_string_equal(c->model, "tiny");
  assert_string_equal(c->recipe, "corrected");
  assert_string_equal(c->metric, "accuracy");
  assert_string_equal(c->host, "node-\xc3\xa4");
  assert_string_equal(c->reason, "");
  assert_int_equal(c->steps, want.steps);
  assert_int_equal(c->best_step, want.best_step);
  assert_int_equal(c->parameters, want.nparam);
  same(c->test_metric, want.test_metric);
  same(c->flops, want.flops);
  same(c->wall_s, 1.5);
  assert_true(c->peak_bytes > 0);
}

static void check_history(const sq_results *r, int i)
{
  sq_eval_record *e;
  int n;
  fine(sq_results_history(r, i, &e, &n));
  assert_int_equal(n, FIXTURE_EVALS - 1);
  for (int k = 0; k < n; ++k) {
    const sq_eval_record want = fixture_eval(i, k);
    assert_int_equal(e[k].step, want.step);
    same(e[k].train_loss, want.train_loss);
    same(e[k].valid_loss, want.valid_loss);
    same(e[k].valid_metric, want.valid_metric);
    same(e[k].lr, want.lr);
    same(e[k].grad_norm, want.grad_norm);
  }
  free(e);
}

static void rows_of_many_ranks_are_read_back_by_one(void **state)
{
  (void)state;
  fixture f;
  new_file("rows.h5");
  fine(fixture_make(&f, dir, 0.001, 1));
  create_and_write(&f, FIXTURE_CELLS - 1); /* the last cell is left waiting */
  if (rank == 0) {
    sq_results *r;
    int bad = -1;
    const int *cell;
    double *cut;
    int n;
    fine(sq_results_open(file, &r));
    assert_int_equal(sq_results_ncell(r), FIXTURE_CELLS);
    for (int i = 0; i < FIXTURE_CELLS - 1; ++i) {
      check_cell(r, i);
      check_history(r, i);
    }
    assert_int_equal(sq_results_cell_at(r, FIXTURE_CELLS - 1)->status, SQ_CELL_WAITING);
    assert_int_equal(sq_results_cell_at(r, FIXTURE_CELLS - 1)->steps, -1);
    assert_true(isnan(sq_results_cell_at(r, FIXTURE_CELLS - 1)->test_metric));
    assert_int_equal(sq_results_ngroup(r), 2);
    assert_string_equal(sq_results_group_path(r, 0),
                        "/spectra/mqar/tiny-1/dsf"); /* sorted: the plan's second */
    for (int g = 0; g < 2; ++g) {
      assert_int_equal(sq_results_group_cells(r, g, &cell), FIXTURE_SEEDS);
      for (int row = 0; row < FIXTURE_SEEDS; ++row) {
        assert_int_equal(cell[row], 2 * row + 1 - g);
        check_spectra(r, g, row, cell[row], cell[row] != FIXTURE_CELLS - 1);
      }
    }
    fine(sq_results_axis(r, 0, "cut", &cut, &n));
    assert_int_equal(n, 2);
    same(cut[1], 0.5);
    free(cut);
    assert_int_equal(sq_results_nsegment(r), 1);
    assert_int_equal(sq_results_segment_at(r, 0)->ranks, nrank);
    same(sq_results_segment_at(r, 0)->data_s, 0.25);
    same(sq_results_segment_at(r, 0)->first_step_s, 1.25);
    assert_string_equal(sq_results_attribute(r, "precision"), SQ_PRECISION);
    assert_string_equal(sq_results_attribute(r, "grid"), sq_experiment_json(f.experiment));
    assert_null(sq_results_attribute(r, "nothing"));
    fine(sq_results_check(r, &bad));
    assert_int_equal(bad, 0);
    sq_results_close(&r);
    struct stat s;
    assert_int_equal(stat(file, &s), 0);
    assert_int_equal(s.st_size, sq_store_bytes(&f.plan));
  }
  fixture_clear(&f);
}

static void resume_writes_what_was_left_and_counts_the_segment(void **state)
{
  (void)state;
  fixture f;
  sq_store *s;
  new_file("resume.h5");
  fine(fixture_make(&f, dir, 0.001, 0));
  fine(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &s));
  sq_segment g = fixture_segment(nrank);
  if (rank == 0) fine(sq_store_segment(s, &g));
  write_cells(&f, s, 0, 3);
  if (rank == 0) {
    fine(fixture_write(&f, s, 3, rank)); /* begins, never ends: `running` in the file */
    assert_true(sq_store_wall_s(s, 3) == 0);
    fine(sq_store_cell_ran(s, 3, 2.5)); /* beside a checkpoint */
  }
  if (rank == nrank - 1) { /* stopped on request */
    fine(fixture_write(&f, s, 4, rank));
    fine(sq_store_cell_end(s, 4, SQ_CELL_WAITING, "", NULL, 0.5));
  }
  fine(sq_store_close(&s));
  fine(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s));
  for (int i = 0; i < FIXTURE_CELLS; ++i)
    assert_int_equal(sq_store_status(s, i), i < 3 ? SQ_CELL_DONE : SQ_CELL_WAITING);
  assert_true(sq_store_wall_s(s, 3) == 2.5);
  if (rank ==
      0) { /* the rows of a killed cell stay for its checkpoint; without one they are cleared, as those of 4 were */
    assert_true(sq_store_has_rows(s, 3) && !sq_store_has_rows(s, 4));
    fine(sq_store_cell_clear(s, 3));
    assert_true(!sq_store_has_rows(s, 3));
    sq_results *r;
    sq_eval_record *e;
    int n;
    fine(sq_results_open(file, &r));
    check_spectra(r, 0, 1, 3, 0);
    check_spectra(r, 1, 2, 4, 0);
    for (int c = 3; c < 5; ++c) {
      fine(sq_results_history(r, c, &e, &n));
      assert_int_equal(n, 0);
      free(e);
    }
    sq_results_close(&r);
    fine(sq_store_segment(s, &g));
  }
  MPI_Barrier(MPI_COMM_WORLD); /* rank 0 has looked */
  write_cells(&f, s, 3, FIXTURE_CELLS);
  fine(sq_store_close(&s));
  if (rank == 0) {
    sq_results *r;
    int bad = -1;
    fine(sq_results_open(file, &r));
    for (int i = 0; i < FIXTURE_CELLS; ++i) {
      check_cell(r, i);
      assert_int_equal(sq_results_cell_at(r, i)->segment, i < 3 ? 0 : 1);
    }
    assert_int_equal(sq_results_nsegment(r), 2);
    same(sq_results_segment_at(r, 1)->first_step_s, NAN);
    fine(sq_results_check(r, &bad));
    assert_int_equal(bad, 0);
    sq_results_close(&r);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  fixture_clear(&f);
}

static void expect(sq_status got, sq_status want, const char *text)
{
  assert_int_equal(got, want);
  if (strstr(sq_error_text(), text) == NULL)
    print_error("rank %d: got '%s', expected '%s' in it\n", rank, sq_error_text(), text);
  assert_non_null(strstr(sq_error_text(), text));
  assert_null(strchr(sq_error_text(), '\n'));
  sq_error_clear();
}

static void another_grid_is_refused_with_the_first_difference(void **state)
{
  (void)state;
  fixture f, other;
  sq_store *s;
  new_file("grid.h5");
  fine(fixture_make(&f, dir, 0.001, 0));
  create_and_write(&f, 1);
  fine(fixture_make(&other, dir, 0.002, 0));
  expect(sq_store_resume(MPI_COMM_WORLD, file, &other.plan, &s), SQ_ERR_USAGE,
         "train.lr is 0.001 there and 0.002 now");
  assert_null(s);
  other.plan.max_evals++;
  fixture_clear(&other);
  f.plan.max_evals++;
  expect(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_USAGE,
         "room for 4 evaluations, 5 are planned");
  fixture_clear(&f);
}

static void files_that_cannot_be_made_are_refused_on_every_rank(void **state)
{
  (void)state;
  fixture f;
  sq_store *s;
  new_file("twice.h5");
  fine(fixture_make(&f, dir, 0.001, 0));
  create_and_write(&f, 0);
  expect(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_USAGE,
         "exists; use --resume to continue it, or another --out");
  assert_null(s);
  new_file("no/such/folder.h5");
  expect(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_IO, "there is no folder");
  new_file("absent.h5");
  expect(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_IO, "No such file or directory");
  new_file("text.h5");
  if (rank == 0) {
    FILE *t = fopen(file, "w");
    assert_non_null(t);
    fputs("not HDF5", t);
    fclose(t);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  expect(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_IO, "not an HDF5 file");
  sq_format(file, sizeof file, "/proc/results.h5"); /* a folder where nobody may write, root included */
  expect(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_IO, "/proc/results.h5");
  fixture_clear(&f);
}

static void *give_signs_of_life(void *lock)
{
  const struct timespec moment = {0, 200000000};
  for (int i = 0; i < 15; ++i) {
    nanosleep(&moment, NULL);
    utimensat(AT_FDCWD, lock, NULL, 0);
  }
  return NULL;
}

static void write_lock(const char *host, long pid)
{
  char lock[400];
  sq_format(lock, sizeof lock, "%s.lock", file);
  FILE *t = fopen(lock, "w");
  assert_non_null(t);
  fprintf(t, "host %s\npid %ld\nstarted 2020-01-01T00:00:00Z\n", host, pid);
  fclose(t);
}

static void a_file_that_is_being_written_is_refused_to_others(void **state)
{
  (void)state;
  fixture f;
  sq_store *s, *second;
  char lock[400], who[300], host[256];
  new_file("locked.h5");
  sq_format(lock, sizeof lock, "%s.lock", file);
  fine(fixture_make(&f, dir, 0.001, 0));
  fine(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &s));
  assert_true(sq_store_is_written(file, who, sizeof who));
  assert_non_null(strstr(who, "process "));
  expect(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &second), SQ_ERR_USAGE,
         "is being written by process ");
  assert_null(second);
  expect(sq_store_create(MPI_COMM_WORLD, file, &f.plan, &second), SQ_ERR_USAGE, "locked.h5.lock");
  assert_int_equal(access(lock, F_OK), 0); /* a refused run leaves the lock of the other */
  MPI_Barrier(MPI_COMM_WORLD);
  fine(sq_store_close(&s));
  assert_int_not_equal(access(lock, F_OK), 0);
  assert_false(sq_store_is_written(file, who, sizeof who));
  MPI_Barrier(MPI_COMM_WORLD);
  /* Of another host only signs of life tell. */
  pthread_t thread;
  if (rank == 0) write_lock("another-host", 1);
  if (rank == 0) assert_int_equal(pthread_create(&thread, NULL, give_signs_of_life, lock), 0);
  MPI_Barrier(MPI_COMM_WORLD);
  assert_true(sq_store_is_written(file, who, sizeof who));
  expect(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s), SQ_ERR_USAGE,
         "process 1 on host another-host (started 2020-01-01T00:00:00Z)");
  if (rank == 0) assert_int_equal(pthread_join(thread, NULL), 0);
  /* On this host nobody holds it, though process 1 lives: its number has been given away again. */
  assert_int_equal(gethostname(host, sizeof host), 0);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 0) write_lock(host, 1);
  MPI_Barrier(MPI_COMM_WORLD);
  assert_false(sq_store_is_written(file, who, sizeof who));
  MPI_Barrier(MPI_COMM_WORLD);
  fine(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s));
  assert_true(sq_store_is_written(file, who, sizeof who));
  MPI_Barrier(MPI_COMM_WORLD);
  fine(sq_store_close(&s));
  assert_int_not_equal(access(lock, F_OK), 0);
  fixture_clear(&f);
}

/* Changes one bit of a number of cell 2's spectra; rank 0. */
static void damage(void)
{
  const double value = fixture_value(2, 2, 0, 5);
  size_t bytes;
  sq_status st;
  char *all = sq_read_file(file, &bytes, &st);
  assert_non_null(all);
  char *place = memmem(all, bytes, &value, sizeof value);
  assert_non_null(place);
  FILE *t = fopen(file, "r+");
  assert_non_null(t);
  fseek(t, place - all, SEEK_SET);
  fputc(place[0] ^ 1, t);
  fclose(t);
  free(all);
}

static void a_damaged_cell_runs_again(void **state)
{
  (void)state;
  fixture f;
  sq_store *s;
  new_file("again.h5");
  fine(fixture_make(&f, dir, 0.001, 0));
  create_and_write(&f, FIXTURE_CELLS);
  if (rank == 0) damage();
  MPI_Barrier(MPI_COMM_WORLD);
  fine(sq_store_resume(MPI_COMM_WORLD, file, &f.plan, &s));
  for (int i = 0; i < FIXTURE_CELLS; ++i)
    assert_int_equal(sq_store_status(s, i), i == 2 ? SQ_CELL_WAITING : SQ_CELL_DONE);
  if (rank == nrank - 1) {
    fine(fixture_write(&f, s, 2, rank));
    fine(fixture_end(s, 2));
  }
  fine(sq_store_close(&s));
  if (rank == 0) {
    sq_results *r;
    int bad = -1;
    fine(sq_results_open(file, &r));
    fine(sq_results_check(r, &bad));
    assert_int_equal(bad, 0);
    check_cell(r, 2);
    sq_results_close(&r);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  fixture_clear(&f);
}

static void a_changed_byte_is_found_by_the_checksum(void **state)
{
  (void)state;
  fixture f;
  new_file("damaged.h5");
  fine(fixture_make(&f, dir, 0.001, 0));
  create_and_write(&f, FIXTURE_CELLS);
  fixture_clear(&f);
  if (rank != 0) return;
  damage();
  sq_results *r;
  int bad = -1, damaged[FIXTURE_CELLS];
  fine(sq_results_open(file, &r));
  fine(sq_results_check(r, &bad));
  assert_int_equal(bad, 1);
  fine(sq_results_damaged(r, damaged, &bad));
  for (int i = 0; i < FIXTURE_CELLS; ++i) assert_int_equal(damaged[i], i == 2);
  sq_results_close(&r);
}

static int remove_folder(void **state)
{
  (void)state;
  static const char *const name[] = {"rows.h5",    "resume.h5", "grid.h5",  "twice.h5",  "text.h5",
                                     "damaged.h5", "locked.h5", "again.h5", "tiny.json", "grid.json"};
  MPI_Barrier(MPI_COMM_WORLD);
  for (size_t i = 0; rank == 0 && i < sizeof name / sizeof name[0]; ++i) {
    new_file(name[i]);
    unlink(file);
  }
  return rank == 0 ? rmdir(dir) : 0; /* fails if a temporary file was left behind */
}

int main(int argc, char **argv)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows_of_many_ranks_are_read_back_by_one),
      cmocka_unit_test(resume_writes_what_was_left_and_counts_the_segment),
      cmocka_unit_test(another_grid_is_refused_with_the_first_difference),
      cmocka_unit_test(files_that_cannot_be_made_are_refused_on_every_rank),
      cmocka_unit_test(a_file_that_is_being_written_is_refused_to_others),
      cmocka_unit_test(a_damaged_cell_runs_again),
      cmocka_unit_test(a_changed_byte_is_found_by_the_checksum),
  };
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &nrank);
  sq_log_quiet(1);
  if (rank == 0) {
    const char *tmp = getenv("TMPDIR");
    sq_format(dir, sizeof dir, "%s/sq-store-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Bcast(dir, (int)sizeof dir, MPI_CHAR, 0, MPI_COMM_WORLD);
  int failed = cmocka_run_group_tests(tests, NULL, remove_folder);
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed;
}
