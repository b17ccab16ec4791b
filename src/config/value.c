/* src/config/value.c: from JSON to a key's type, and whether it is in range. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

/* {0, 0} is a table that states no bounds: a key that can only be 0 would not be a key. */
static int bounded_below(const sq_key *k)
{
  return !(k->min == 0 && k->max == 0) && k->min > (k->type == SQ_KEY_INT ? INT_MIN : -1e300);
}
static int bounded_above(const sq_key *k)
{
  return !(k->min == 0 && k->max == 0) && k->max < (k->type == SQ_KEY_INT ? INT_MAX : 1e300);
}

static void add_bounds(const sq_key *k, sq_cfg_text *t)
{
  const int low = bounded_below(k), high = bounded_above(k);
  if (!low && !high) return;
  sq_cfg_text_add(t, low && high ? " in " : low ? " >= " : " <= ");
  if (low) sq_cfg_add_real(t, k->min);
  if (low && high) sq_cfg_text_add(t, "..");
  if (high) sq_cfg_add_real(t, k->max);
}

void sq_cfg_value_expected(const sq_key *k, const char *words, sq_cfg_text *t)
{
  switch (k->type) {
  case SQ_KEY_BOOL: sq_cfg_text_add(t, "true or false"); break;
  case SQ_KEY_INT: sq_cfg_text_add(t, "an integer"); break;
  case SQ_KEY_REAL: sq_cfg_text_add(t, "a number"); break;
  case SQ_KEY_REALS: sq_cfg_text_add(t, "a list of numbers"); break;
  case SQ_KEY_STRING: sq_cfg_text_add(t, words != NULL ? "%s" : "a string", words); break;
  case SQ_KEY_STRINGS: sq_cfg_text_add(t, words != NULL ? "a list of %s" : "a list of strings", words); break;
  }
  if (k->type == SQ_KEY_INT || k->type == SQ_KEY_REAL || k->type == SQ_KEY_REALS) add_bounds(k, t);
}

static sq_status fail_value(const sq_key *k, const char *words, const char *where, const char *path,
                            int element, const char *found)
{
  sq_cfg_text t = {0};
  char hint[SQ_CFG_SHOWN], bare[SQ_CFG_SHOWN] = "", at[24] = "";
  const char *close = NULL;
  if (words != NULL && found[0] == '"' && strlen(found) > 2) {
    memcpy(bare, found + 1, strlen(found) - 2);
    close = sq_cfg_closest(words, bare, hint);
  }
  if (element >= 0) sq_format(at, sizeof at, "[%d]", element);
  sq_cfg_value_expected(k, words, &t);
  const sq_status st = sq_fail(SQ_ERR_USAGE, "%s: %s%s: is %s, expected %s%s%s%s", where, path, at, found,
                               t.s != NULL ? t.s : "another value", close != NULL ? "; did you mean \"" : "",
                               close != NULL ? close : "", close != NULL ? "\"?" : "");
  free(t.s);
  return st;
}

static sq_status read_list(const sq_cfg_slot *slot, const cJSON *j, const char *where, const char *path,
                           sq_cfg_pool *p, sq_cfg_value *out)
{
  const int n = cJSON_GetArraySize(j), numbers = slot->type == SQ_KEY_REALS;
  sq_cfg_list *l = sq_cfg_pool_take(p, 1, sizeof *l);
  double *r = numbers ? sq_cfg_pool_take(p, (size_t)n + 1, sizeof *r) : NULL;
  const char **s = numbers ? NULL : sq_cfg_pool_take(p, (size_t)n + 1, sizeof *s);
  const cJSON *k;
  char shown[SQ_CFG_SHOWN];
  int i = 0;
  if (l == NULL || (r == NULL && s == NULL)) return SQ_ERR_MEMORY;
  cJSON_ArrayForEach(k, j)
  {
    if (numbers ? !cJSON_IsNumber(k) : !cJSON_IsString(k)) {
      return sq_fail(SQ_ERR_USAGE, "%s: %s[%d]: is %s, expected %s", where, path, i,
                     sq_cfg_show_json(k, shown), numbers ? "a number" : "a string");
    }
    if (numbers)
      r[i++] = k->valuedouble;
    else
      s[i++] = k->valuestring;
  }
  *l = (sq_cfg_list){.n = n, .r = r, .s = s};
  out->list = l;
  return SQ_OK;
}

/* A number that is one of a key's words ("auto|1|2") need not be quoted. */
static const char *number_as_word(const sq_key *k, const cJSON *j, sq_cfg_pool *p)
{
  char text[32];
  if (k->choices == NULL || !cJSON_IsNumber(j)) return NULL;
  sq_format(text, sizeof text, "%.15g", j->valuedouble);
  if (!sq_cfg_word_in(k->choices, text)) return NULL;
  char *word = sq_cfg_pool_take(p, strlen(text) + 1, 1);
  if (word != NULL) strcpy(word, text);
  return word;
}

static int type_fits(sq_key_type type, const cJSON *j)
{
  switch (type) {
  case SQ_KEY_BOOL: return cJSON_IsBool(j);
  case SQ_KEY_INT:
    return cJSON_IsNumber(j) && j->valuedouble == floor(j->valuedouble) && fabs(j->valuedouble) <= INT_MAX;
  case SQ_KEY_REAL: return cJSON_IsNumber(j);
  case SQ_KEY_STRING: return cJSON_IsString(j);
  default: return cJSON_IsArray(j);
  }
}

sq_status sq_cfg_value_read(const sq_cfg_slot *slot, const cJSON *j, const char *where,
                            const char *shown_path, sq_cfg_pool *p, sq_cfg_value *out)
{
  char found[SQ_CFG_SHOWN];
  *out = (sq_cfg_value){.state = SQ_CFG_NONE};
  if (cJSON_IsNull(j)) return SQ_OK;
  if (slot->type == SQ_KEY_STRING && cJSON_IsNumber(j) &&
      (out->s = number_as_word(slot->decl[0].key, j, p)) != NULL) {
    out->state = SQ_CFG_SET;
    return SQ_OK;
  }
  if (!type_fits(slot->type, j)) {
    const sq_key *k = slot->decl[0].key;
    return fail_value(k, k->choices, where, shown_path, -1, sq_cfg_show_json(j, found));
  }
  out->state = SQ_CFG_SET;
  switch (slot->type) {
  case SQ_KEY_BOOL: out->i = cJSON_IsTrue(j); break;
  case SQ_KEY_INT: out->i = (int)j->valuedouble; break;
  case SQ_KEY_REAL: out->r = j->valuedouble; break;
  case SQ_KEY_STRING: out->s = j->valuestring; break;
  default: return read_list(slot, j, where, shown_path, p, out);
  }
  return SQ_OK;
}

static sq_status check_number(const sq_key *k, double x, const char *where, const char *path, int element)
{
  if (!(bounded_below(k) && x < k->min) && !(bounded_above(k) && x > k->max)) return SQ_OK;
  sq_cfg_text t = {0};
  sq_cfg_add_real(&t, x);
  const sq_status st = fail_value(k, NULL, where, path, element, t.s != NULL ? t.s : "another number");
  free(t.s);
  return st;
}

static sq_status check_word(const sq_key *k, const char *words, const char *s, const char *where,
                            const char *path, int element)
{
  char shown[SQ_CFG_SHOWN], quoted[SQ_CFG_SHOWN + 2];
  if (words == NULL || sq_cfg_word_in(words, s)) return SQ_OK;
  sq_format(quoted, sizeof quoted, "\"%s\"", sq_cfg_show(s, shown));
  return fail_value(k, words, where, path, element, quoted);
}

sq_status sq_cfg_value_check(const sq_key *k, const char *words, const sq_cfg_value *v, const char *where,
                             const char *shown_path)
{
  sq_status st = SQ_OK;
  if (v->state != SQ_CFG_SET) return SQ_OK;
  switch (k->type) {
  case SQ_KEY_BOOL: break;
  case SQ_KEY_INT: return check_number(k, v->i, where, shown_path, -1);
  case SQ_KEY_REAL: return check_number(k, v->r, where, shown_path, -1);
  case SQ_KEY_STRING: return check_word(k, words, v->s, where, shown_path, -1);
  case SQ_KEY_REALS:
    for (int i = 0; i < v->list->n && st == SQ_OK; ++i)
      st = check_number(k, v->list->r[i], where, shown_path, i);
    break;
  case SQ_KEY_STRINGS:
    for (int i = 0; i < v->list->n && st == SQ_OK; ++i)
      st = check_word(k, words, v->list->s[i], where, shown_path, i);
    break;
  }
  return st;
}

void sq_cfg_add_value(sq_cfg_text *t, sq_key_type type, const sq_cfg_value *v)
{
  if (v->state != SQ_CFG_SET) {
    sq_cfg_text_add(t, "null");
    return;
  }
  switch (type) {
  case SQ_KEY_BOOL: sq_cfg_text_add(t, v->i ? "true" : "false"); break;
  case SQ_KEY_INT: sq_cfg_text_add(t, "%d", v->i); break;
  case SQ_KEY_REAL: sq_cfg_add_real(t, v->r); break;
  case SQ_KEY_STRING: sq_cfg_add_string(t, v->s); break;
  default:
    sq_cfg_text_add(t, "[");
    for (int i = 0; i < v->list->n; ++i) {
      if (i > 0) sq_cfg_text_add(t, ",");
      if (type == SQ_KEY_REALS)
        sq_cfg_add_real(t, v->list->r[i]);
      else
        sq_cfg_add_string(t, v->list->s[i]);
    }
    sq_cfg_text_add(t, "]");
  }
}

int sq_cfg_value_is(sq_key_type type, const sq_cfg_value *v, const char *word)
{
  if (v->state != SQ_CFG_SET) return 0;
  if (type == SQ_KEY_STRING) return sq_cfg_word_in(word, v->s);
  sq_cfg_text t = {0};
  sq_cfg_add_value(&t, type, v);
  const int same = t.s != NULL && sq_cfg_word_in(word, t.s);
  free(t.s);
  return same;
}
