/* include/sq/config.h: configurations.  Reads JSON, knows every key, refuses the rest.
 *
 * A cell is one training run, a flat map from key path ("model.num_heads") to value.  Keys are declared by
 * the module that reads them, as tables (sq_keyset); config only knows how to check them.  A cell is fully
 * resolved: every applicable key has a value.
 *
 * A cell file holds the keys by section: {"seed": 1, "train": {"lr": 1e-3}, "model": {...}}; optional `label`
 * (its model label, else the file's stem) and `name`.  A grid file has `base` (path or pattern, or a list of
 * them, relative to the file) or `base_config` ("a/b": a/b.json in the nearest folder configs/ above),
 * `sweep` ("train.lr": [...] or nested), and whatever shall hold in every cell: dataset, train, model,
 * analysis, run, seed.  --set wins over the sweep (and ends it for that key), the sweep over the grid's own
 * keys, these over the base file. Cells are ordered by base as listed (patterns sorted by name), then by the
 * sweep's keys in the order of the file, last fastest.  Keys of another model or task are accepted and noted;
 * published keys without meaning are in src/config/published.c. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sq/status.h"

typedef struct sq_config sq_config;         /* one cell; read-only once loaded */
typedef struct sq_experiment sq_experiment; /* the cells of a file */

typedef enum {
  SQ_KEY_BOOL,
  SQ_KEY_INT,
  SQ_KEY_REAL,
  SQ_KEY_STRING,
  SQ_KEY_REALS /* list */,
  SQ_KEY_STRINGS
} sq_key_type;

typedef struct {
  const char *path; /* "train.lr" */
  sq_key_type type;
  const char
      *fallback;   /* default as JSON text; NULL: the key is required; "null": optional, see sq_config_has */
  double min, max; /* numbers and elements of lists: inclusive bounds; 0, 0: none */
  const char
      *choices;    /* strings: "a|b|c", or NULL: any, or what owners name for a key that selects key sets */
  const char *doc; /* one line: meaning, unit */
} sq_key;

typedef struct {
  /* When the keys apply: "" always, else "key=value", e.g. "dataset._name_=mqar", or "key=value|value".  A key may stand in several
     sets (one type in all); the first that applies gives the default, all that apply check the value. */
  const char *owner;
  const sq_key *key;
  int nkey;
  /* Optional conditions across keys; called with a cell to which the set applies.  Fails with SQ_ERR_USAGE
     and a text "key.path: what is wrong" (config adds the file's name in front). */
  sq_status (*check)(const sq_config *c);
} sq_keyset;

typedef struct {
  const sq_keyset *const *set; /* (nset) borrowed */
  int nset;
} sq_schema;

/* Reads a cell or a grid file, applies `set` ("train.lr=1e-3"; the value is JSON, or a bare word = string),
   expands bases and sweeps, fills defaults and checks everything.  SQ_ERR_USAGE with one line (file, key,
   expected, closest known key); SQ_ERR_DATA never.  Not collective: every rank reads the same file. */
sq_status sq_experiment_load(const sq_schema *schema, const char *path, int nset, const char *const *set,
                             sq_experiment **e);
/* The same from JSON text that holds one cell; `where` names it in messages.  Used for parity cases. */
sq_status sq_experiment_parse(const sq_schema *schema, const char *json, const char *where,
                              sq_experiment **e);
void sq_experiment_destroy(sq_experiment **e);

const char *sq_experiment_name(const sq_experiment *e); /* "name", else the file's stem */
int sq_experiment_ncell(const sq_experiment *e);
const sq_config *sq_experiment_cell(const sq_experiment *e, int i);
/* Resolved grid as canonical JSON: {"name":..., "cells":[{...}]}, keys sorted; *owned* by e. */
const char *sq_experiment_json(const sq_experiment *e);

/* ---- one cell ---------------------------------------------------------------------------------------- */
const char *sq_config_model_label(const sq_config *c); /* stem of the cell's file, e.g. "mqar-sm-attention" */
const char *sq_config_task_label(const sq_config *c);  /* value of dataset._name_ */
/* Unique in the grid: "mqar-sm-attention lr=0.01 seed=1919"; " task=mqar" after the model label where two
 * tasks share it. */
const char *sq_config_label(const sq_config *c);
const char *sq_config_swept(const sq_config *c); /* JSON object of the swept keys, "{}" if none */
/* Resolved cell, canonical JSON: keys sorted, shortest numbers, keys without a value left out, `label` =
   model label.  Parses to the same cell.  NULL (memory) as the other two JSON texts; made at the first call,
   so not thread safe. */
const char *sq_config_json(const sq_config *c);

/* Values.  The key must be declared and applicable: anything else is a bug. */
int sq_config_bool(const sq_config *c, const char *path);
int sq_config_int(const sq_config *c, const char *path);
double sq_config_real(const sq_config *c, const char *path);
const char *sq_config_string(const sq_config *c, const char *path);
int sq_config_count(const sq_config *c, const char *path); /* elements of a list; 0 without a value */
double sq_config_real_at(const sq_config *c, const char *path, int i);
const char *sq_config_string_at(const sq_config *c, const char *path, int i);
/* 0 if the key has no value (optional key left out) or does not apply to this cell. */
int sq_config_has(const sq_config *c, const char *path);
