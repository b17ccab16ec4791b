/* tests/test_train_checkpoint.c: a run that is stopped anywhere and continued from its checkpoint is the run that was
 * not stopped, bit for bit; damaged files are found and the one before is taken. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "train_fixture.h"

static char dir[64], path[96], old[104];

static int make_directory(void **state)
{
  (void)state;
  sq_format(dir, sizeof dir, "/tmp/sq_checkpoint_XXXXXX");
  if (mkdtemp(dir) == NULL) return -1;
  sq_format(path, sizeof path, "%s/cell", dir);
  sq_format(old, sizeof old, "%s.old", path);
  return 0;
}

static int remove_directory(void **state)
{
  (void)state;
  sq_checkpoint_remove(path);
  return rmdir(dir);
}

/* Continues until the run is done; *t holds the last part.  Returns the number of starts. */
static int run_in_parts(const sq_experiment *e, const trace *whole, int save_every, int stop_at, int lost,
                        trace *t)
{
  int starts = 0, reached = 0;
  for (;; ++starts) {
    trace_clear(t);
    t->checkpoint = path;
    t->save_every = save_every;
    t->lost = lost;
    t->stop_at_poll = stop_at + starts; /* other places each time; beyond the last poll in the end */
    if (lost && starts > 0) t->lost = 0;
    if (run_with(e, t, NULL) != SQ_OK) fail_msg("%s", sq_error_text());
    assert_string_equal(t->note, "");
    for (int k = 0; k < t->neval; ++k) /* no evaluation differs, whoever made it */
      assert_memory_equal(&t->eval[k], &whole->eval[t->first_eval + k], sizeof t->eval[k]);
    if (t->neval > 0) reached = t->first_eval + t->neval;
    if (t->result.outcome == SQ_OUTCOME_DONE) break;
    assert_int_equal(t->result.outcome, SQ_OUTCOME_STOPPED);
    assert_true(starts < 2000);
  }
  assert_int_equal(reached, whole->neval);
  return starts + 1;
}

static void assert_same_result(const trace *a, const trace *b)
{
  assert_int_equal(a->result.outcome, b->result.outcome);
  assert_int_equal(a->result.steps, b->result.steps);
  assert_int_equal(a->result.best_step, b->result.best_step);
  assert_memory_equal(&a->result.test_loss, &b->result.test_loss, sizeof(double));
  assert_memory_equal(&a->result.test_metric, &b->result.test_metric, sizeof(double));
  assert_memory_equal(&a->result.valid_metric, &b->result.valid_metric, sizeof(double));
  assert_memory_equal(&a->result.train_loss, &b->result.train_loss, sizeof(double));
  assert_memory_equal(&a->result.flops, &b->result.flops, sizeof(double));
  assert_true(a->stage_hash[a->nstage - 1] == b->stage_hash[b->nstage - 1]); /* the trained weights */
}

/* Epochs of 63 steps, 6 evaluations, 3 snapshots, the plateau rule and dropout: everything that has a state. */
#define RUN STEPS_240 ", \"reduce_factor\": 0.5, \"lr_patience\": 0"

static void a_run_stopped_anywhere_continues_bit_for_bit(void **state)
{
  (void)state;
  sq_experiment *e = experiment(3, 3, RUN, DATA_SMALL, MODEL_SMALL);
  trace whole = {0}, t = {0};
  assert_int_equal(run_with(e, &whole, NULL), SQ_OK);
  assert_int_equal(whole.neval, 6);
  static const int first_stop[] = {1, 7, 40, 41, 42, 100, 250};
  for (size_t i = 0; i < sizeof first_stop / sizeof *first_stop; ++i) {
    sq_checkpoint_remove(path);
    const int starts = run_in_parts(e, &whole, 0, first_stop[i], 0, &t);
    assert_true(starts > 1);
    assert_true(t.restored_step >= 0);
    assert_same_result(&t, &whole);
  }
  trace_clear(&t);
  trace_clear(&whole);
  sq_experiment_destroy(&e);
}

static void a_stop_that_has_gained_nothing_writes_no_checkpoint(void **state)
{
  (void)state;
  sq_experiment *e = experiment(3, 3, RUN, DATA_SMALL, MODEL_SMALL);
  static const int stop_at[] = {1, 1, 2, 1}; /* before the first step there is the stage `init` to keep */
  static const int saves[] = {1, 0, 1, 0}, restored[] = {-1, 0, 0, 1};
  sq_checkpoint_remove(path);
  for (size_t i = 0; i < sizeof saves / sizeof *saves; ++i) {
    trace t = {.checkpoint = path, .stop_at_poll = stop_at[i]};
    assert_int_equal(run_with(e, &t, NULL), SQ_OK);
    assert_int_equal(t.result.outcome, SQ_OUTCOME_STOPPED);
    assert_int_equal(t.nsave, saves[i]);
    assert_int_equal(t.restored_step, restored[i]);
    assert_int_equal(sq_checkpoint_step(path), i < 2 ? 0 : 1);
    trace_clear(&t);
  }
  sq_checkpoint_remove(path);
  assert_int_equal(sq_checkpoint_step(path), -1);
  sq_experiment_destroy(&e);
}

static void a_killed_run_continues_from_its_last_checkpoint(void **state)
{
  (void)state;
  sq_experiment *e = experiment(3, 3, RUN, DATA_SMALL, MODEL_SMALL);
  trace whole = {0}, t = {.checkpoint = path, .save_every = 50, .stop_at_poll = 170};
  assert_int_equal(run_with(e, &whole, NULL), SQ_OK);
  sq_checkpoint_remove(path);
  assert_int_equal(run_with(e, &t, NULL), SQ_OK);
  assert_int_equal(t.result.outcome, SQ_OUTCOME_STOPPED);
  assert_true(t.nsave > 2);
  assert_int_equal(unlink(path), 0); /* the save of the stop; a killed process would not have made it */

  trace_clear(&t);
  t.checkpoint = path;
  assert_int_equal(run_with(e, &t, NULL), SQ_OK);
  assert_int_equal(t.restored_step % 50, 0);
  assert_true(t.restored_step > 0);
  assert_same_result(&t, &whole);
  trace_clear(&t);
  trace_clear(&whole);
  sq_experiment_destroy(&e);
}

static void a_run_that_met_its_stop_criterion_takes_no_more_steps(void **state)
{
  (void)state;
  sq_experiment *e = experiment(3, 0, RUN ", \"stop_criterion\": 0", DATA_SMALL, MODEL_SMALL);
  trace whole = {0}, t = {0};
  assert_int_equal(run_with(e, &whole, NULL), SQ_OK);
  assert_int_equal(whole.result.steps, 40);
  sq_checkpoint_remove(path);
  (void)run_in_parts(e, &whole, 0, whole.npoll, 0,
                     &t); /* at the last poll: in the evaluation of the test set */
  assert_int_equal(t.restored_step, 40);
  assert_same_result(&t, &whole);
  trace_clear(&t);
  trace_clear(&whole);
  sq_experiment_destroy(&e);
}

/* ---- files ------------------------------------------------------------------------------------------- */

typedef struct {
  double number[3];
  float vector[4][5];
} content;

static sq_train_state state_over(content *c, long step)
{
  sq_train_state s = {.step = step, .part = {{c->number, sizeof c->number}}};
  for (int i = 1; i < SQ_STATE_PARTS; ++i) {
    s.part[i].data = c->vector[i - 1];
    s.part[i].bytes = sizeof c->vector[0];
  }
  return s;
}

static content filled(int k)
{
  content c;
  for (int i = 0; i < 3; ++i) c.number[i] = k + i * 0.25;
  for (int i = 0; i < 20; ++i) c.vector[i / 5][i % 5] = (float)(k - i);
  return c;
}

static void write_state(int k, const char *owner)
{
  content c = filled(k);
  const sq_train_state s = state_over(&c, k);
  if (sq_checkpoint_write(path, owner, &s) != SQ_OK) fail_msg("%s", sq_error_text());
}

/* The step of the state that was read; -1: none, and then nothing was touched. */
static long read_state(const char *owner, char note[512])
{
  content c = filled(-1), expected;
  sq_train_state s = state_over(&c, -1);
  const int found = sq_checkpoint_read(path, owner, &s, note, 512);
  expected = filled(found ? (int)s.step : -1);
  assert_memory_equal(&c, &expected, sizeof c);
  return found ? s.step : -1;
}

static long file_size(const char *name)
{
  struct stat is;
  assert_int_equal(stat(name, &is), 0);
  return (long)is.st_size;
}

static void flip(const char *name, long at)
{
  FILE *f = fopen(name, "r+b");
  assert_non_null(f);
  assert_int_equal(fseek(f, at, SEEK_SET), 0);
  const int c = fgetc(f);
  assert_int_equal(fseek(f, at, SEEK_SET), 0);
  assert_true(fputc(c ^ 0x10, f) != EOF);
  assert_int_equal(fclose(f), 0);
}

static void two_checkpoints_are_kept(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  assert_int_equal(read_state("me", note), -1);
  assert_string_equal(note, "");
  for (int k = 1; k <= 3; ++k) write_state(k, "me");
  assert_int_equal(read_state("me", note), 3);
  assert_int_equal(unlink(path), 0); /* as between the two renames */
  assert_int_equal(read_state("me", note), 2);
  content c = filled(0);
  const sq_train_state s = state_over(&c, 0);
  assert_int_equal(file_size(old), (long)sq_checkpoint_bytes("me", &s));
}

enum { FILE_CAP = 4096 };
typedef struct {
  unsigned char byte[FILE_CAP];
  size_t n;
} bytes;

static bytes bytes_of(const char *name)
{
  bytes b;
  FILE *f = fopen(name, "rb");
  assert_non_null(f);
  b.n = fread(b.byte, 1, sizeof b.byte, f);
  assert_true(b.n < sizeof b.byte);
  fclose(f);
  return b;
}

static void put_bytes(const char *name, const bytes *b)
{
  FILE *f = fopen(name, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(b->byte, 1, b->n, f), b->n);
  assert_int_equal(fclose(f), 0);
}

static void every_damaged_byte_is_found_and_the_one_before_is_taken(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  write_state(1, "me");
  write_state(2, "me");
  const long size = file_size(path);
  const bytes first = bytes_of(old), second = bytes_of(path);
  for (long at = 0; at < size; ++at) {
    flip(path, at);
    assert_int_equal(read_state("me", note), 1);
    assert_non_null(strstr(note, "the one before is taken (step 1)"));
    put_bytes(path, &second);
    put_bytes(old, &first);
  }
  assert_int_equal(read_state("me", note), 2);
  for (long length = size - 1; length >= 0; length -= 7) {
    assert_int_equal(truncate(path, length), 0);
    assert_int_equal(read_state("me", note), 1);
    assert_non_null(strstr(note, "truncated"));
    put_bytes(path, &second);
    put_bytes(old, &first);
  }
  assert_int_equal(truncate(path, size / 3), 0);
  assert_int_equal(truncate(old, size / 2), 0);
  assert_int_equal(read_state("me", note), -1);
  assert_non_null(strstr(note, old));
}

/* The damaged file must not push the whole one out when the next is written. */
static void a_damaged_checkpoint_does_not_outlive_the_one_before(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  write_state(1, "me");
  write_state(2, "me");
  flip(path, file_size(path) / 2);
  assert_int_equal(read_state("me", note), 1);
  write_state(3, "me");
  flip(path, file_size(path) / 2);
  assert_int_equal(read_state("me", note), 1);
  assert_int_equal(read_state("me", note), 1);
  assert_string_equal(note, "");
}

static void a_file_of_another_owner_is_not_read(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  write_state(1, "me");
  assert_int_equal(read_state("ma", note), -1);
  assert_non_null(strstr(note, "another configuration"));
  assert_int_equal(read_state("me too", note), -1);
}

static void a_pipe_in_its_place_is_a_damaged_checkpoint(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  write_state(1, "me");
  assert_int_equal(rename(path, old), 0);
  assert_int_equal(mkfifo(path, 0666), 0);
  assert_int_equal(read_state("me", note), 1);
  assert_non_null(strstr(note, "not a regular file; the one before is taken"));
}

static void a_folder_that_was_removed_is_made_again(void **state)
{
  (void)state;
  char note[512];
  sq_checkpoint_remove(path);
  assert_int_equal(rmdir(dir), 0);
  write_state(1, "me");
  assert_int_equal(read_state("me", note), 1);
}

/* A file system that takes no more bytes. */
static void a_write_that_fails_leaves_the_checkpoint_before(void **state)
{
  (void)state;
  char note[512], temporary[112];
  struct rlimit before, small;
  content c = filled(2);
  const sq_train_state s = state_over(&c, 2);
  sq_checkpoint_remove(path);
  write_state(1, "me");
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  small = before;
  small.rlim_cur = 100;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  const sq_status st = sq_checkpoint_write(path, "me", &s);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  assert_int_equal(st, SQ_ERR_IO);
  assert_non_null(strstr(sq_error_text(), "cannot be written"));
  sq_error_clear();
  sq_format(temporary, sizeof temporary, "%s.tmp", path);
  assert_int_equal(access(temporary, F_OK), -1);
  assert_int_equal(read_state("me", note), 1);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_run_stopped_anywhere_continues_bit_for_bit),
      cmocka_unit_test(a_stop_that_has_gained_nothing_writes_no_checkpoint),
      cmocka_unit_test(a_killed_run_continues_from_its_last_checkpoint),
      cmocka_unit_test(a_run_that_met_its_stop_criterion_takes_no_more_steps),
      cmocka_unit_test(two_checkpoints_are_kept),
      cmocka_unit_test(every_damaged_byte_is_found_and_the_one_before_is_taken),
      cmocka_unit_test(a_damaged_checkpoint_does_not_outlive_the_one_before),
      cmocka_unit_test(a_file_of_another_owner_is_not_read),
      cmocka_unit_test(a_pipe_in_its_place_is_a_damaged_checkpoint),
      cmocka_unit_test(a_folder_that_was_removed_is_made_again),
      cmocka_unit_test(a_write_that_fails_leaves_the_checkpoint_before),
  };
  return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
