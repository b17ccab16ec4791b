/* tests/fuzz/fuzz.h: what the fuzz targets share: a folder with files, a task opened from it, and what must hold then.
 *
 * A target is one file fuzz_<name>.c with LLVMFuzzerTestOneInput.  libFuzzer calls it with inputs of its own
 * (SQ_FUZZ), driver.c with files.  A reader may refuse whatever it likes, with one line and the right status; what it
 * accepts must be as include/sq/task.h says. */
#pragma once

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sq/base.h"
#include "sq/config.h"
#include "sq/task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_ASSERT(cond)                                                                                    \
  do {                                                                                                       \
    if (!(cond)) {                                                                                           \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                             \
      abort();                                                                                               \
    }                                                                                                        \
  } while (0)

static inline void fuzz_make_folder(const char *path)
{
  FUZZ_ASSERT(mkdir(path, 0700) == 0 || errno == EEXIST);
}

/* The process's folder, in $TMPDIR (tests/fuzz/run.sh removes it), made once. */
static inline const char *fuzz_folder(void)
{
  static char path[512];
  if (path[0] == '\0') {
    const char *where = getenv("TMPDIR");
    sq_format(path, sizeof path, "%s/sq_fuzz_XXXXXX", where != NULL ? where : "/tmp");
    FUZZ_ASSERT(mkdtemp(path) != NULL);
    sq_log_enable(0);
    setenv("SEQSPECTRA_CACHE", "", 1); /* no tokens kept */
  }
  return path;
}

static inline const char *fuzz_path(const char *name)
{
  static char path[8][1024];
  static int turn;
  char *p = path[turn++ % 8];
  sq_format(p, sizeof *path, "%s/%s", fuzz_folder(), name);
  return p;
}

static inline void fuzz_write(const char *name, const void *data, size_t n)
{
  FILE *f = fopen(fuzz_path(name), "wb");
  FUZZ_ASSERT(f != NULL && fwrite(data, 1, n, f) == n);
  FUZZ_ASSERT(fclose(f) == 0);
}

/* One line, and the status of bad data (or of memory that a length in a file asks for). */
static inline void fuzz_refused(sq_status st)
{
  FUZZ_ASSERT(st == SQ_ERR_DATA || st == SQ_ERR_MEMORY);
  FUZZ_ASSERT(*sq_error_text() != '\0' && strchr(sq_error_text(), '\n') == NULL);
  sq_error_clear();
}

static const sq_key fuzz_key[] = {
    {"seed", SQ_KEY_INT, "1", 0, 2147483647, NULL, "seed"},
    {"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, "corrected|published", "recipe"},
};
static const sq_keyset fuzz_keys = {"", fuzz_key, sizeof fuzz_key / sizeof *fuzz_key, NULL};

/* {"dataset":{"_name_":NAME, "data_dir":<the folder> MORE}} */
static inline sq_experiment *fuzz_cell(const char *name, const char *more)
{
  const sq_keyset *set[32] = {&fuzz_keys};
  const sq_schema schema = {set, 1 + sq_task_keysets(set + 1, 31)};
  sq_experiment *e = NULL;
  char json[1024];
  sq_format(json, sizeof json, "{\"seed\":3,\"dataset\":{\"_name_\":\"%s\",\"data_dir\":\"%s\"%s}}", name,
            fuzz_folder(), more);
  FUZZ_ASSERT(sq_experiment_parse(&schema, json, "fuzz", &e) == SQ_OK);
  return e;
}

/* Every example is within what the task says of itself. */
static inline void fuzz_examples(const sq_task *t, const sq_task_ops *ops)
{
  const sq_task_info *info = sq_task_describe(t);
  const size_t room = (size_t)info->seq_len * 2;
  int32_t *token = malloc(room * sizeof *token), *label = malloc(room * sizeof *label);
  FUZZ_ASSERT(token != NULL && label != NULL);
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (size_t i = 0; i < info->size[s] && i < 64; ++i) {
      const int n = ops->length(t, (sq_split)s, i);
      FUZZ_ASSERT(0 < n && (size_t)n <= room);
      ops->example(t, (sq_split)s, i, token, label);
      for (int k = 0; info->vocab_size > 0 && k < n; ++k)
        FUZZ_ASSERT(0 <= token[k] && token[k] < info->vocab_size);
      for (int k = 0; k < (info->label_per_row ? n : 1); ++k)
        FUZZ_ASSERT(label[k] == SQ_IGNORE || (0 <= label[k] && label[k] < info->nclass));
    }
  free(token);
  free(label);
}

/* The task's check, and a task opened from the folder; the examples are looked at. */
static inline void fuzz_task(const sq_experiment *e, int check)
{
  static FILE *nowhere;
  const sq_config *c = sq_experiment_cell(e, 0);
  const sq_task_ops *ops = sq_task_find(sq_config_task_label(c));
  sq_task *t = NULL;
  sq_status st;

  if (nowhere == NULL) nowhere = fopen("/dev/null", "w");
  sq_error_clear();
  if (check) {
    st = ops->check(fuzz_folder(), nowhere);
    if (st != SQ_OK) fuzz_refused(st);
  }
  st = sq_task_open(c, &t);
  if (st != SQ_OK) {
    FUZZ_ASSERT(t == NULL);
    fuzz_refused(st);
    return;
  }
  fuzz_examples(t, ops);
  sq_task_close(&t);
}
