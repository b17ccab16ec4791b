/* src/config/config_impl.h: what the files of the config module share.
 *
 *   text -> source (one file, flattened to slots) -> variant (one base under one choice of the selecting
 * keys) -> cell
 *
 * A *slot* is a distinct key path of the schema.  A cell is an index: its values are those of its variant,
 * except the swept ones, which follow from the index.  So a grid costs a few dozen bytes a cell, whatever the
 * number of keys. */
#pragma once

#include <cjson/cJSON.h>

#include "sq/base.h"
#include "sq/config.h"

#define SQ_CFG_MAX_CELLS 1000000
#define SQ_CFG_MAX_BYTES ((size_t)16 << 20) /* of a file */
#define SQ_CFG_MAX_DEPTH 32
#define SQ_CFG_SHOWN     160 /* of a text from a file, in a message */

/* ---- memory: everything that lives as long as the experiment --------------------------------------------
 */
typedef struct sq_cfg_block sq_cfg_block;
typedef struct {
  sq_cfg_block *first;
} sq_cfg_pool;
void *sq_cfg_pool_take(sq_cfg_pool *p, size_t count, size_t size); /* zeroed; NULL with a recorded text */
void sq_cfg_pool_clear(sq_cfg_pool *p);

/* Growing text; after a failed allocation it stays short and says so. */
typedef struct {
  char *s; /* owned by the caller: free() */
  size_t n, cap;
  int failed;
} sq_cfg_text;
void sq_cfg_text_add(sq_cfg_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Moves the text into the pool; NULL with a recorded text. */
const char *sq_cfg_text_keep(sq_cfg_text *t, sq_cfg_pool *p);

/* ---- json.c ------------------------------------------------------------------------------------------ */
/* Parses after refusing what cJSON would let pass: NUL, bad UTF-8, control characters, deep nesting,
   duplicate keys, numbers beyond double.  *doc is freed with cJSON_Delete. */
sq_status sq_cfg_json_parse(const char *text, size_t bytes, const char *where, cJSON **doc);
sq_status sq_cfg_json_read(const char *path, cJSON **doc);
const char *sq_cfg_json_kind(const cJSON *j); /* "a number", "an object" ... */
/* A text from a file as it may appear in a message: one line, clipped. */
const char *sq_cfg_show(const char *s, char out[SQ_CFG_SHOWN]);
/* A JSON value for a message: 3.5, "abc", a list. */
const char *sq_cfg_show_json(const cJSON *j, char out[SQ_CFG_SHOWN]);
void sq_cfg_add_real(sq_cfg_text *t, double x);        /* shortest that reads back the same */
void sq_cfg_add_string(sq_cfg_text *t, const char *s); /* with quotes and escapes */

/* ---- schema.c ---------------------------------------------------------------------------------------- */
typedef struct {
  int n;
  const double *r;
  const char *const *s;
} sq_cfg_list;
typedef enum { SQ_CFG_ABSENT, SQ_CFG_NONE /* null */, SQ_CFG_SET } sq_cfg_state;
typedef struct {
  sq_cfg_state state;
  union {
    int i; /* bool too */
    double r;
    const char *s;
    const sq_cfg_list *list;
  };
} sq_cfg_value;

typedef struct {
  const sq_key *key;
  int set;               /* index in the schema */
  sq_cfg_value fallback; /* ABSENT: required */
} sq_cfg_decl;
typedef struct {
  const char *path;
  sq_key_type type;
  int selects; /* an owner names this key */
  int ndecl;
  const sq_cfg_decl *decl; /* (ndecl) in the order of the schema */
} sq_cfg_slot;
typedef struct {
  int slot;          /* -1: always; -2: its key is not in this schema, so never */
  const char *value; /* borrowed from the owner's text */
} sq_cfg_owner;
typedef struct {
  int nslot, nset;
  sq_cfg_slot *slot; /* sorted by path, component by component */
  sq_cfg_owner *owner;
  const sq_keyset *const *set;
} sq_cfg_schema;

sq_status sq_cfg_schema_build(const sq_schema *in, sq_cfg_pool *p, sq_cfg_schema *out);
int sq_cfg_slot_find(const sq_cfg_schema *s, const char *path);  /* -1: none */
int sq_cfg_is_section(const sq_cfg_schema *s, const char *path); /* some key starts with path + "." */
/* Fails with: unknown key, and the closest known one. */
sq_status sq_cfg_fail_unknown(const sq_cfg_schema *s, const char *where, const char *path);
/* The word of "a|b|c" that is closest to s, or begins as s does, copied to out, or NULL if none is close. */
const char *sq_cfg_closest(const char *words, const char *s, char out[SQ_CFG_SHOWN]);
int sq_cfg_word_in(const char *words, const char *s);
/* Values that select something: choices of the key, else those that owners name; NULL if anything goes. */
sq_status sq_cfg_choices(const sq_cfg_schema *s, int slot, const sq_key *k, sq_cfg_pool *p,
                         const char **words);

/* ---- published.c ------------------------------------------------------------------------------------- */
typedef struct {
  const char *path;  /* "model.use_flash"; "optimization.*": everything below */
  const char *only;  /* the one value (JSON) that can be accepted, or NULL */
  const char *noted; /* the value (JSON) that is worth a note, or NULL */
  const char *note;
} sq_cfg_published;
const sq_cfg_published *sq_cfg_published_find(const char *path);
const sq_cfg_published *sq_cfg_published_at(int i); /* NULL past the end */

/* ---- value.c ----------------------------------------------------------------------------------------- */
/* JSON to a slot's type; the range is left to sq_cfg_value_check. */
sq_status sq_cfg_value_read(const sq_cfg_slot *slot, const cJSON *j, const char *where,
                            const char *shown_path, sq_cfg_pool *p, sq_cfg_value *out);
/* Bounds and choices of one declaration.  words: choices (may be NULL). */
sq_status sq_cfg_value_check(const sq_key *k, const char *words, const sq_cfg_value *v, const char *where,
                             const char *shown_path);
void sq_cfg_value_expected(const sq_key *k, const char *words, sq_cfg_text *t);
void sq_cfg_add_value(sq_cfg_text *t, sq_key_type type, const sq_cfg_value *v); /* JSON; null for no value */
int sq_cfg_value_is(sq_key_type type, const sq_cfg_value *v, const char *word); /* against an owner's text */

/* ---- source.c ---------------------------------------------------------------------------------------- */
typedef struct {
  const char *where;   /* file name in messages, or "--set" */
  cJSON *doc;          /* *owned*: strings of the values are borrowed from it */
  sq_cfg_value *raw;   /* (nslot) ABSENT: not given */
  unsigned char *used; /* (nslot) applies to some cell */
  const char *unknown; /* first unknown key; reported once the selecting keys are known to be right */
  const char *name, *label;
  const char **note; /* (nnote) texts about published keys */
  int nnote;
} sq_cfg_source;
sq_status sq_cfg_source_init(const sq_cfg_schema *s, sq_cfg_pool *p, const char *where, sq_cfg_source *src);
void sq_cfg_source_clear(sq_cfg_source *src);
/* Flattens an object.  grid: the keys that only a grid has are left to the caller; else `label` is read. */
sq_status sq_cfg_source_flatten(const sq_cfg_schema *s, sq_cfg_pool *p, sq_cfg_source *src,
                                const cJSON *object, int grid);
/* One value at a path. `again`: replace a value given before instead of refusing it. */
sq_status sq_cfg_source_give(const sq_cfg_schema *s, sq_cfg_pool *p, sq_cfg_source *src, const char *path,
                             const cJSON *j, int again);
int sq_cfg_is_grid(const cJSON *root);
/* A name that can be a file's or a group's: not empty, no slash, one line, short. */
sq_status sq_cfg_name_check(const char *where, const char *path, const char *name);
char *sq_cfg_stem(sq_cfg_pool *p, const char *path);

/* ---- bases.c ----------------------------------------------------------------------------------------- */
/* Paths of the base cells of a grid in order; *owned* by the pool. */
sq_status sq_cfg_bases(sq_cfg_pool *p, const char *path, const cJSON *root, const char ***out, int *nout);

/* ---- experiment.c ------------------------------------------------------------------------------------ */
typedef struct {
  int slot, n;
  int stride;          /* cells between two values */
  int vstride;         /* variants between two values; 0 if the key selects nothing */
  sq_cfg_value *value; /* (n) */
} sq_cfg_dim;
typedef struct {
  const sq_cfg_source *base;
  sq_cfg_value *value;   /* (nslot) ABSENT: does not apply */
  unsigned char *active; /* (nset) */
} sq_cfg_variant;

struct sq_config {
  const sq_experiment *e;
  const sq_cfg_variant *v;
  const char *label;
  const char *json, *swept; /* made when asked for */
  int index;
};
struct sq_experiment {
  sq_cfg_pool pool;
  sq_cfg_schema schema;
  sq_cfg_source grid, set; /* empty unless given */
  int is_grid, nbase, ndim, ncell, nvariant, cells_a_base, variants_a_base;
  sq_cfg_source *base;
  const char **model_label; /* (nbase) */
  sq_cfg_dim *dim;
  int *dim_of; /* (nslot) -1: not swept */
  sq_cfg_variant *variant;
  sq_config *cell;
  const char *name, *json;
};
/* ---- resolve.c --------------------------------------------------------------------------------------- */
sq_status sq_cfg_variants_resolve(sq_experiment *e);
sq_status sq_cfg_labels_make(sq_experiment *e);
sq_status sq_cfg_cells_check(sq_experiment *e);
void sq_cfg_notes(const sq_experiment *e);
/* ---- config.c ---------------------------------------------------------------------------------------- */
const sq_cfg_value *sq_cfg_cell_value(const sq_config *c, int slot);
