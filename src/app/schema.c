/* src/app/schema.c: every key that a configuration may have, collected from the modules that read them. */
#include <stdio.h>
#include <string.h>

#include "app.h"
#include "sq/model.h"
#include "sq/spectra.h"
#include "sq/task.h"
#include "sq/train.h"

enum { MAX_SETS = 256 };

const sq_schema *sq_app_schema(void)
{
  static const sq_keyset *set[MAX_SETS];
  static sq_schema schema;
  if (schema.nset == 0) {
    int (*const collect[])(const sq_keyset **, int) = {sq_train_keysets, sq_task_keysets, sq_model_keysets,
                                                       sq_spectra_keysets};
    int n = 0;
    for (size_t i = 0; i < sizeof collect / sizeof *collect; ++i) {
      n += collect[i](set + n, MAX_SETS - n);
      SQ_ASSERT(n <= MAX_SETS);
    }
    schema.set = set;
    schema.nset = n;
  }
  return &schema;
}

const char *sq_app_file_kind(const char *path)
{
  static const char signature[] = "\x89HDF\r\n\x1a\n";
  char head[9] = "";
  FILE *f = fopen(path, "rb");
  if (f == NULL) return NULL;
  head[fread(head, 1, sizeof head - 1, f)] = '\0';
  fclose(f);
  if (memcmp(head, signature, sizeof head - 1) == 0) return "an HDF5 file";
  return head[strspn(head, " \t\r\n")] == '{' ? "a JSON file" : NULL;
}

sq_status sq_app_load(const char *path, const sq_words *set, sq_experiment **e)
{
  const char *kind = sq_app_file_kind(path);
  if (kind != NULL && strcmp(kind, "an HDF5 file") == 0)
    return sq_fail(SQ_ERR_USAGE, "%s: an HDF5 file; a configuration (JSON) was expected", path);
  return sq_experiment_load(sq_app_schema(), path, set ? set->n : 0, set ? set->v : NULL, e);
}
