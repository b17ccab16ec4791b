/* src/app/help_config.c: `help config`: the configuration keys, from the tables of the modules that read them. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "sq/base.h"

enum { MAX_LINES = 1024, BUFFER = 768 };

/* One key; sets that declare it in the same way share a line. */
typedef struct {
  const sq_key *key;
  char when[BUFFER]; /* owners; "": always */
} line;

static int same_text(const char *a, const char *b)
{
  return a == b || (a && b && strcmp(a, b) == 0);
}

static int same_key(const sq_key *a, const sq_key *b)
{
  return strcmp(a->path, b->path) == 0 && a->type == b->type && same_text(a->fallback, b->fallback) &&
         a->min == b->min && a->max == b->max && same_text(a->choices, b->choices) &&
         same_text(a->doc, b->doc);
}

static void append(char *out, size_t cap, const char *between, const char *word)
{
  const size_t used = strlen(out);
  sq_format(out + used, cap - used, "%s%s", used ? between : "", word);
}

/* "a|b" of the owners "path=a", "path=b": the values that a key without choices of its own may have. */
static void choices_of(const sq_key *k, char out[BUFFER])
{
  const sq_schema *s = sq_app_schema();
  const size_t n = strlen(k->path);
  out[0] = '\0';
  if (k->choices) sq_format(out, BUFFER, "%s", k->choices);
  for (int i = 0; i < s->nset && !k->choices; ++i) {
    const char *owner = s->set[i]->owner;
    if (strncmp(owner, k->path, n) != 0 || owner[n] != '=') continue;
    int seen = 0;
    for (int j = 0; j < i; ++j) seen |= strcmp(owner, s->set[j]->owner) == 0;
    if (!seen) append(out, BUFFER, "|", owner + n + 1);
  }
}

/* Bounds that no value meets in practice are left out. */
static void range_of(const sq_key *k, char out[BUFFER])
{
  const int number = k->type == SQ_KEY_INT || k->type == SQ_KEY_REAL || k->type == SQ_KEY_REALS;
  const int below = k->min > -1e299, above = k->max < (double)INT_MAX;
  choices_of(k, out);
  if (!number || (k->min == 0 && k->max == 0)) return;
  if (below && above)
    sq_format(out, BUFFER, "%.10g..%.10g", k->min, k->max);
  else if (below)
    sq_format(out, BUFFER, ">= %.10g", k->min);
  else if (above)
    sq_format(out, BUFFER, "<= %.10g", k->max);
}

static const char *section_of(const char *path, int *n)
{
  *n = (int)strcspn(path, ".");
  return path;
}

static int same_section(const char *a, const char *b)
{
  int n, m;
  section_of(a, &n);
  section_of(b, &m);
  return n == m && strncmp(a, b, (size_t)n) == 0;
}

static int collect(const char *prefix, line *v)
{
  const sq_schema *s = sq_app_schema();
  int n = 0;
  for (int i = 0; i < s->nset; ++i)
    for (int j = 0; j < s->set[i]->nkey; ++j) {
      const sq_key *k = &s->set[i]->key[j];
      if (strncmp(k->path, prefix, strlen(prefix)) != 0) continue;
      int at = 0;
      while (at < n && !same_key(v[at].key, k)) ++at;
      SQ_ASSERT(at < MAX_LINES);
      if (at == n) v[n++] = (line){.key = k};
      append(v[at].when, sizeof v[at].when, ", ", s->set[i]->owner);
    }
  return n;
}

static void print_line(const line *l, int otherwise, int width, FILE *out)
{
  static const char *const type[] = {"bool", "int", "real", "string", "reals", "strings"};
  const sq_key *k = l->key;
  const char *fallback = !k->fallback                       ? "required"
                         : strcmp(k->fallback, "null") == 0 ? "optional"
                                                            : k->fallback;
  char range[BUFFER];
  range_of(k, range);
  fprintf(out, "  %-*s  %-7s  %-12s  %s", width, k->path, type[k->type], fallback, k->doc);
  if (*range) fprintf(out, " [%s]", range);
  if (*l->when) fprintf(out, " (with %s)", l->when);
  if (!*l->when && otherwise) fprintf(out, " (otherwise)");
  fputc('\n', out);
}

/* Whether the key is declared by other sets, in another way. */
static int others_have(const line *v, int n, int k)
{
  for (int i = 0; i < n; ++i)
    if (i != k && strcmp(v[i].key->path, v[k].key->path) == 0) return 1;
  return 0;
}

/* What the reader of files takes itself. */
static void print_file_keys(FILE *out)
{
  fputs("\nof a file, not of a cell\n"
        "  name          of the grid and of its results file (default: the file's name)\n"
        "  base          list of files or patterns, relative to this one: a grid; base_config is the same\n"
        "  sweep         object: each key a list of values, all of them combined\n"
        "  label         what a cell of a base is called (default: the file's name)\n"
        "  save, wandb, GPU, dataset.name    of the published launcher: ignored\n",
        out);
}

sq_status sq_help_config(const char *prefix, FILE *out)
{
  line *v = sq_calloc(MAX_LINES, sizeof *v, "the list of keys");
  if (!v) return SQ_ERR_MEMORY;
  const int n = collect(prefix, v);
  int width = 3;
  for (int i = 0; i < n; ++i) {
    const int m = (int)strlen(v[i].key->path);
    width = m > width ? m : width;
  }
  if (n > 0)
    fprintf(out, "  %-*s  %-7s  %-12s  meaning [values] (when it applies)\n", width, "key", "type",
            "default");
  for (int i = 0; i < n; ++i) { /* a section where its first key stands, then all of the section */
    int first = 1, m;
    for (int k = 0; k < i; ++k) first = first && !same_section(v[k].key->path, v[i].key->path);
    if (!first) continue;
    const char *name = section_of(v[i].key->path, &m);
    fprintf(out, "\n%.*s\n", m, name);
    for (int k = i; k < n; ++k)
      if (same_section(v[i].key->path, v[k].key->path)) print_line(&v[k], others_have(v, n, k), width, out);
  }
  free(v);
  if (*prefix == '\0') print_file_keys(out);
  if (n > 0) return SQ_OK;
  return sq_fail(SQ_ERR_USAGE, "help config: no key begins with \"%s\"; see: seqspectra help config", prefix);
}
