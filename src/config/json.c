/* src/config/json.c: JSON text from strangers.
 *
 * cJSON reads the values; before that the text is scanned for what it would let pass (RFC 8259 forbids it, or
 * this program does): NUL, bytes that are not UTF-8, control characters in strings, deep nesting; after it
 * for duplicate keys and numbers beyond double. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config_impl.h"

/* ---- memory and text --------------------------------------------------------------------------------- */
struct sq_cfg_block {
  sq_cfg_block *next;
  size_t used, cap;
};
#define BLOCK_HEAD ((sizeof(sq_cfg_block) + 15) & ~(size_t)15)

void *sq_cfg_pool_take(sq_cfg_pool *p, size_t count, size_t size)
{
  sq_cfg_block *b = p->first;
  if (size != 0 && count > (SIZE_MAX / 4) / size) {
    (void)sq_fail(SQ_ERR_MEMORY, "configuration: %zu pieces of %zu bytes are more than memory can hold",
                  count, size);
    return NULL;
  }
  const size_t bytes = (count * size + 15) & ~(size_t)15;
  if (b == NULL || b->cap - b->used < bytes) {
    const size_t cap = bytes > 65536 ? bytes : 65536;
    b = sq_calloc(1, BLOCK_HEAD + cap, "configuration");
    if (b == NULL) return NULL;
    b->cap = cap;
    b->next = p->first;
    p->first = b;
  }
  void *piece = (char *)b + BLOCK_HEAD + b->used;
  b->used += bytes;
  return piece;
}

void sq_cfg_pool_clear(sq_cfg_pool *p)
{
  while (p->first != NULL) {
    sq_cfg_block *next = p->first->next;
    free(p->first);
    p->first = next;
  }
}

void sq_cfg_text_add(sq_cfg_text *t, const char *fmt, ...)
{
  va_list a;
  for (int pass = 0; pass < 2 && !t->failed; ++pass) {
    va_start(a, fmt);
    const int n = vsnprintf(t->s != NULL ? t->s + t->n : NULL, t->cap - t->n, fmt, a);
    va_end(a);
    if (n >= 0 && t->s != NULL && (size_t)n < t->cap - t->n) {
      t->n += (size_t)n;
      return;
    }
    const size_t cap = 2 * t->cap + (size_t)(n > 0 ? n : 0) + 256;
    char *s = realloc(t->s, cap);
    if (s == NULL) {
      t->failed = 1;
    } else {
      t->s = s;
      t->s[t->n] = '\0';
      t->cap = cap;
    }
  }
}

const char *sq_cfg_text_keep(sq_cfg_text *t, sq_cfg_pool *p)
{
  char *s = NULL;
  if (t->failed) {
    (void)sq_fail(SQ_ERR_MEMORY, "configuration: no memory for a text of %zu bytes", t->cap);
  } else {
    s = sq_cfg_pool_take(p, t->n + 1, 1);
    if (s != NULL && t->n > 0) memcpy(s, t->s, t->n);
  }
  free(t->s);
  *t = (sq_cfg_text){0};
  return s;
}

const char *sq_cfg_show(const char *s, char out[SQ_CFG_SHOWN])
{
  const size_t room = SQ_CFG_SHOWN - 4;
  size_t n = 0;
  for (; s[n] != '\0' && n < room; ++n) out[n] = (unsigned char)s[n] < 0x20 || s[n] == 0x7f ? '?' : s[n];
  if (s[n] != '\0') {
    while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80) --n; /* not in the middle of a character */
    memcpy(out + n, "...", 3);
    n += 3;
  }
  out[n] = '\0';
  return out;
}

void sq_cfg_add_real(sq_cfg_text *t, double x)
{
  char s[40];
  if (x == floor(x) && fabs(x) < 1e15) {
    sq_cfg_text_add(t, "%.0f", x);
    return;
  }
  for (int digits = 1; digits <= 17; ++digits) {
    (void)snprintf(s, sizeof s, "%.*g", digits, x);
    if (strtod(s, NULL) == x) break;
  }
  sq_cfg_text_add(t, "%s", s);
}

void sq_cfg_add_string(sq_cfg_text *t, const char *s)
{
  sq_cfg_text_add(t, "\"");
  while (*s != '\0') {
    size_t plain = 0;
    while ((unsigned char)s[plain] >= 0x20 && s[plain] != '"' && s[plain] != '\\') ++plain;
    sq_cfg_text_add(t, "%.*s", (int)plain, s);
    s += plain;
    if (*s == '\0') break;
    if (*s == '"' || *s == '\\') {
      sq_cfg_text_add(t, "\\%c", *s);
    } else {
      sq_cfg_text_add(t, "\\u%04x", (unsigned)(unsigned char)*s);
    }
    ++s;
  }
  sq_cfg_text_add(t, "\"");
}

const char *sq_cfg_json_kind(const cJSON *j)
{
  if (cJSON_IsObject(j)) return "an object";
  if (cJSON_IsArray(j)) return "a list";
  if (cJSON_IsString(j)) return "a string";
  if (cJSON_IsNumber(j)) return "a number";
  if (cJSON_IsBool(j)) return cJSON_IsTrue(j) ? "true" : "false";
  return "null";
}

const char *sq_cfg_show_json(const cJSON *j, char out[SQ_CFG_SHOWN])
{
  if (cJSON_IsNumber(j)) {
    sq_cfg_text t = {0};
    sq_cfg_add_real(&t, j->valuedouble);
    sq_format(out, SQ_CFG_SHOWN, "%s", t.s != NULL ? t.s : "a number");
    free(t.s);
  } else if (cJSON_IsString(j)) {
    char s[SQ_CFG_SHOWN];
    (void)sq_cfg_show(j->valuestring, s);
    sq_format(out, SQ_CFG_SHOWN, "\"%.*s\"", SQ_CFG_SHOWN - 3, s);
  } else {
    sq_format(out, SQ_CFG_SHOWN, "%s", sq_cfg_json_kind(j));
  }
  return out;
}

/* ---- the scan before parsing ------------------------------------------------------------------------- */
/* Bytes of the UTF-8 character at s (n bytes left), 0 if it is not one (overlong, surrogate, beyond 10FFFF).
 */
static size_t utf8_length(const unsigned char *s, size_t n)
{
  if (s[0] < 0x80) return 1;
  const size_t want = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
  if (s[0] < 0xC2 || s[0] > 0xF4 || want > n) return 0;
  for (size_t i = 1; i < want; ++i)
    if ((s[i] & 0xC0) != 0x80) return 0;
  if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
  if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
  return want;
}

static sq_status fail_at(const char *text, size_t at, const char *where, const char *what)
{
  int line = 1, column = 1;
  for (size_t i = 0; i < at; ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else if (((unsigned char)text[i] & 0xC0) != 0x80) {
      ++column;
    }
  }
  return sq_fail(SQ_ERR_USAGE, "%s: line %d, column %d: %s", where, line, column, what);
}

static sq_status scan(const char *text, size_t bytes, const char *where)
{
  int depth = 0, in_string = 0;
  for (size_t i = 0, step; i < bytes; i += step) {
    const char c = text[i];
    step = utf8_length((const unsigned char *)text + i, bytes - i);
    if (c == '\0') return fail_at(text, i, where, "NUL byte, expected text");
    if (step == 0) return fail_at(text, i, where, "not UTF-8, expected text in UTF-8");
    if (in_string) {
      if ((unsigned char)c < 0x20) {
        return fail_at(text, i, where,
                       "line break or control character in a string, expected a closing \" or an escape");
      }
      if (c == '\\' && strncmp(text + i + 1, "u0000", 5) == 0)
        return fail_at(text, i, where, "NUL in a string (\\u0000)");
      if (c == '\\' && i + 1 < bytes && (unsigned char)text[i + 1] >= 0x20)
        step = 1 + utf8_length((const unsigned char *)text + i + 1, bytes - i - 1);
      if (c == '"') in_string = 0;
    } else if (c == '"') {
      in_string = 1;
    } else if (c == '{' || c == '[') {
      if (++depth > SQ_CFG_MAX_DEPTH)
        return fail_at(text, i, where, "nested too deep, expected at most 32 levels");
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return SQ_OK;
}

/* ---- parsing ----------------------------------------------------------------------------------------- */
static char previous_mark(const char *text, size_t at)
{
  while (at > 0 && strchr(" \t\r\n", text[at - 1]) != NULL) --at;
  return at > 0 ? text[at - 1] : '\0';
}

static sq_status fail_syntax(const char *text, size_t at, const char *where)
{
  char what[160], near[SQ_CFG_SHOWN];
  /* Where a key has to begin and does not, cJSON points one too far. */
  if (at > 0 && strchr(" \t\r\n\"0123456789", text[at - 1]) == NULL &&
      strchr("{,", previous_mark(text, at - 1)) != NULL && previous_mark(text, at - 1) != '\0') {
    --at;
  }
  while (text[at] != '\0' && strchr(" \t\r\n", text[at]) != NULL) ++at;
  while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80) --at; /* cJSON and the step back count bytes */
  if (text[at] == '\0') return fail_at(text, at, where, "not JSON: the text ends too early");
  (void)sq_cfg_show(text + at, near);
  size_t n = 0; /* whole characters */
  for (size_t k; near[n] != '\0' && n < 16 && (k = utf8_length((const unsigned char *)near + n, 4)) > 0;)
    n += k;
  near[n] = '\0';
  const char *hint = "";
  if ((text[at] == '}' || text[at] == ']') && previous_mark(text, at) == ',')
    hint = "; no comma after the last element";
  if (strncmp(text + at, "//", 2) == 0 || strncmp(text + at, "/*", 2) == 0 || text[at] == '#')
    hint = "; JSON has no comments";
  if (strncmp(text + at, "NaN", 3) == 0 || strncmp(text + at, "Inf", 3) == 0 ||
      strncmp(text + at, "-Inf", 4) == 0) {
    hint = "; JSON has no NaN or Infinity";
  }
  if (text[at] == '\'') hint = "; JSON strings have double quotes";
  sq_format(what, sizeof what, "not JSON at `%s`%s", near, hint);
  return fail_at(text, at, where, what);
}

static int compare_names(const void *a, const void *b)
{
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* path: of j, "" at the root. */
static sq_status check_names(const cJSON *j, const char *where, const char *path)
{
  sq_status st = SQ_OK;
  const char **name = NULL;
  const int n = cJSON_GetArraySize(j);
  const cJSON *k;
  int i = 0;
  char shown[SQ_CFG_SHOWN];
  if (n < 2) return SQ_OK;
  name = sq_calloc((size_t)n, sizeof *name, "configuration");
  if (name == NULL) return SQ_ERR_MEMORY;
  cJSON_ArrayForEach(k, j) name[i++] = k->string;
  qsort(name, (size_t)n, sizeof *name, compare_names);
  for (i = 1; i < n && st == SQ_OK; ++i) {
    if (strcmp(name[i - 1], name[i]) != 0) continue;
    st = sq_fail(SQ_ERR_USAGE, "%s: %s%s%s: given twice, expected once", where, path,
                 path[0] != '\0' ? "." : "", sq_cfg_show(name[i], shown));
  }
  free(name);
  return st;
}

static sq_status check_tree(const cJSON *j, const char *where, const char *path)
{
  sq_status st = cJSON_IsObject(j) ? check_names(j, where, path) : SQ_OK;
  const cJSON *k;
  int i = 0;
  if (cJSON_IsNumber(j) && !isfinite(j->valuedouble)) {
    return sq_fail(SQ_ERR_USAGE, "%s: %s: number too large, expected one below 1.8e308", where, path);
  }
  if (st != SQ_OK || !(cJSON_IsObject(j) || cJSON_IsArray(j))) return st;
  cJSON_ArrayForEach(k, j)
  {
    char below[2 * SQ_CFG_SHOWN], shown[SQ_CFG_SHOWN];
    if (cJSON_IsObject(j)) {
      (void)snprintf(below, sizeof below, "%s%s%s", path, path[0] != '\0' ? "." : "",
                     sq_cfg_show(k->string, shown));
    } else {
      (void)snprintf(below, sizeof below, "%s[%d]", path, i++);
    }
    below[SQ_CFG_SHOWN] = '\0';
    st = check_tree(k, where, below);
    if (st != SQ_OK) return st;
  }
  return SQ_OK;
}

sq_status sq_cfg_json_parse(const char *text, size_t bytes, const char *where, cJSON **doc)
{
  const char *end = text;
  *doc = NULL;
  sq_status st = scan(text, bytes, where);
  if (st != SQ_OK) return st;
  if (strspn(text, " \t\r\n") == bytes)
    return sq_fail(SQ_ERR_USAGE, "%s: empty, expected a JSON object", where);
  *doc = cJSON_ParseWithOpts(text, &end, 1);
  if (*doc == NULL) return fail_syntax(text, end != NULL ? (size_t)(end - text) : 0, where);
  st = check_tree(*doc, where, "");
  if (st != SQ_OK) {
    cJSON_Delete(*doc);
    *doc = NULL;
  }
  return st;
}

sq_status sq_cfg_json_read(const char *path, cJSON **doc)
{
  struct stat info;
  size_t bytes = 0;
  sq_status st = SQ_OK;
  *doc = NULL;
  if (stat(path, &info) != 0) {
    return sq_fail(SQ_ERR_USAGE, "%s: cannot be read (%s), expected a configuration file", path,
                   strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return sq_fail(SQ_ERR_USAGE, "%s: is %s, expected a configuration file", path,
                   S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
  }
  if ((unsigned long long)info.st_size > SQ_CFG_MAX_BYTES) {
    return sq_fail(SQ_ERR_USAGE, "%s: has %lld bytes, expected a configuration of at most 16 MiB", path,
                   (long long)info.st_size);
  }
  char *text = sq_read_file(path, &bytes, &st);
  if (text == NULL) {
    if (st == SQ_ERR_MEMORY) return st;
    sq_error_clear();
    return sq_fail(SQ_ERR_USAGE, "%s: cannot be read (%s), expected a configuration file", path,
                   strerror(errno));
  }
  st = sq_cfg_json_parse(text, bytes, path, doc);
  free(text);
  return st;
}
