/* src/app/schema.c: every key that a configuration may have, collected from the modules that read them. */
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

sq_status sq_app_load(const char *path, const sq_words *set, sq_experiment **e)
{
  return sq_experiment_load(sq_app_schema(), path, set ? set->n : 0, set ? set->v : NULL, e);
}
