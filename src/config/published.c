/* src/config/published.c: keys that the study's own files carry and that change nothing here.
 *
 * They are accepted so that a published YAML file, converted to JSON, is a valid file.  Of a key that some
 * module declares, only the note counts.  One list: add a line, or declare the key where it is read. */
#include <string.h>

#include "config_impl.h"

static const sq_cfg_published table[] = {
    /* bookkeeping of the published launcher */
    {"save", NULL, NULL, NULL},
    {"wandb", NULL, NULL, NULL},
    {"wandb.*", NULL, NULL, NULL},
    {"GPU", NULL, NULL, NULL},
    {"optimization.*", NULL, NULL, NULL},
    {"jax_seed", NULL, NULL, NULL},
    {"dataset.name", NULL, NULL, NULL}, /* free text; dataset._name_ selects the task */
    {"dataset.fixed_size", NULL, NULL, NULL},
    {"dataset.version", NULL, NULL, NULL},
    {"train.param_group", "null", NULL, NULL},
    {"train.cosine_anneal", NULL, NULL, NULL},
    /* read by no published model, or by one that has a single possible value */
    {"model.use_flash", NULL, "true", "computed exactly, not with fp16 flash attention"},
    {"model.learn_A", NULL, NULL, NULL},
    {"model.mode", "\"attention\"", NULL, NULL},
    {"model.version", NULL, NULL, NULL},
    {"model.decode", "false", NULL, NULL},
    {"model.discretization", NULL, NULL, NULL}, /* s4 knows the bilinear rule only */
    {"model.mlp_dim", NULL, NULL, NULL},        /* the classifier's width is mixer_dim */
};

const sq_cfg_published *sq_cfg_published_at(int i)
{
  return i >= 0 && (size_t)i < sizeof table / sizeof *table ? &table[i] : NULL;
}

const sq_cfg_published *sq_cfg_published_find(const char *path)
{
  for (size_t i = 0; i < sizeof table / sizeof *table; ++i) {
    const size_t n = strlen(table[i].path);
    if (strcmp(table[i].path, path) == 0) return &table[i];
    if (table[i].path[n - 1] == '*' && strncmp(table[i].path, path, n - 1) == 0) return &table[i];
  }
  return NULL;
}
