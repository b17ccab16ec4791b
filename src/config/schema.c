/* src/config/schema.c: the modules' key tables as one sorted list of slots, and suggestions for words not in
 * it. */
#include <stdlib.h>
#include <string.h>

#include "config_impl.h"

/* Component by component, so that all keys of a section stand together: '.' sorts before every other
 * character. */
static int compare_paths(const char *a, const char *b)
{
  while (*a != '\0' && *a == *b) {
    ++a;
    ++b;
  }
  const int x = *a == '.' ? 1 : (unsigned char)*a, y = *b == '.' ? 1 : (unsigned char)*b;
  return x - y;
}

static int compare_slots(const void *a, const void *b)
{
  return compare_paths(((const sq_cfg_slot *)a)->path, ((const sq_cfg_slot *)b)->path);
}

int sq_cfg_slot_find(const sq_cfg_schema *s, const char *path)
{
  int low = 0, high = s->nslot - 1;
  while (low <= high) {
    const int mid = (low + high) / 2, d = compare_paths(path, s->slot[mid].path);
    if (d == 0) return mid;
    if (d < 0)
      high = mid - 1;
    else
      low = mid + 1;
  }
  return -1;
}

int sq_cfg_is_section(const sq_cfg_schema *s, const char *path)
{
  const size_t n = strlen(path);
  for (int i = 0; i < s->nslot; ++i)
    if (strncmp(s->slot[i].path, path, n) == 0 && s->slot[i].path[n] == '.') return 1;
  const sq_cfg_published *p;
  for (int i = 0; (p = sq_cfg_published_at(i)) != NULL; ++i)
    if (strncmp(p->path, path, n) == 0 && p->path[n] == '.') return 1;
  return 0;
}

/* The default as a value.  It is JSON; a bare word is taken as a string. */
static sq_status read_fallback(const sq_cfg_slot *slot, const sq_key *k, sq_cfg_pool *p, sq_cfg_value *v)
{
  sq_status st = SQ_OK;
  cJSON *j;
  if (k->fallback == NULL) return SQ_OK;
  j = cJSON_Parse(k->fallback);
  if (j == NULL && k->type == SQ_KEY_STRING) j = cJSON_CreateString(k->fallback);
  SQ_ASSERT(j != NULL); /* a table with a default that is not JSON */
  st = sq_cfg_value_read(slot, j, "default", k->path, p, v);
  SQ_ASSERT(st != SQ_ERR_USAGE); /* a table with a default of another type */
  if (st == SQ_OK && v->state == SQ_CFG_SET && k->type == SQ_KEY_STRING) { /* j goes, so the texts move */
    char *s = sq_cfg_pool_take(p, strlen(v->s) + 1, 1);
    if (s == NULL)
      st = SQ_ERR_MEMORY;
    else
      v->s = strcpy(s, v->s);
  } else if (st == SQ_OK && v->state == SQ_CFG_SET && k->type == SQ_KEY_STRINGS) {
    const char **s = sq_cfg_pool_take(p, (size_t)v->list->n + 1, sizeof *s);
    sq_cfg_list *l = sq_cfg_pool_take(p, 1, sizeof *l);
    for (int i = 0; s != NULL && l != NULL && i < v->list->n; ++i) {
      char *one = sq_cfg_pool_take(p, strlen(v->list->s[i]) + 1, 1);
      if (one == NULL)
        s = NULL;
      else
        s[i] = strcpy(one, v->list->s[i]);
    }
    if (s == NULL || l == NULL) {
      st = SQ_ERR_MEMORY;
    } else {
      *l = (sq_cfg_list){.n = v->list->n, .s = s};
      v->list = l;
    }
  }
  cJSON_Delete(j);
  return st;
}

static sq_status collect_slots(const sq_schema *in, sq_cfg_pool *p, sq_cfg_schema *out)
{
  size_t n = 0;
  for (int i = 0; i < in->nset; ++i) n += (size_t)in->set[i]->nkey;
  out->slot = sq_cfg_pool_take(p, n + 1, sizeof *out->slot);
  if (out->slot == NULL) return SQ_ERR_MEMORY;
  n = 0;
  for (int i = 0; i < in->nset; ++i) {
    for (int k = 0; k < in->set[i]->nkey; ++k) {
      const sq_key *key = &in->set[i]->key[k];
      out->slot[n++] = (sq_cfg_slot){.path = key->path, .type = key->type};
    }
  }
  qsort(out->slot, n, sizeof *out->slot, compare_slots);
  for (size_t i = 0; i < n; ++i) {
    sq_cfg_slot *last = out->nslot > 0 ? &out->slot[out->nslot - 1] : NULL;
    if (last != NULL && strcmp(last->path, out->slot[i].path) == 0) {
      SQ_ASSERT(last->type == out->slot[i].type); /* two tables give one key different types */
    } else {
      out->slot[out->nslot++] = out->slot[i];
    }
  }
  return SQ_OK;
}

static sq_status collect_declarations(const sq_schema *in, sq_cfg_pool *p, sq_cfg_schema *out)
{
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < in->nset; ++i) {
      for (int k = 0; k < in->set[i]->nkey; ++k) {
        const sq_key *key = &in->set[i]->key[k];
        sq_cfg_slot *slot = &out->slot[sq_cfg_slot_find(out, key->path)];
        if (pass == 1) {
          sq_cfg_decl *d = (sq_cfg_decl *)(uintptr_t)&slot->decl[slot->ndecl];
          *d = (sq_cfg_decl){.key = key, .set = i};
        }
        ++slot->ndecl;
      }
    }
    for (int s = 0; s < out->nslot && pass == 0; ++s) {
      out->slot[s].decl = sq_cfg_pool_take(p, (size_t)out->slot[s].ndecl, sizeof(sq_cfg_decl));
      if (out->slot[s].decl == NULL) return SQ_ERR_MEMORY;
      out->slot[s].ndecl = 0;
    }
  }
  for (int s = 0; s < out->nslot; ++s) {
    for (int d = 0; d < out->slot[s].ndecl; ++d) {
      sq_cfg_decl *decl = (sq_cfg_decl *)(uintptr_t)&out->slot[s].decl[d];
      const sq_status st = read_fallback(&out->slot[s], decl->key, p, &decl->fallback);
      if (st != SQ_OK) return st;
    }
  }
  return SQ_OK;
}

static sq_status collect_owners(const sq_schema *in, sq_cfg_pool *p, sq_cfg_schema *out)
{
  out->owner = sq_cfg_pool_take(p, (size_t)in->nset + 1, sizeof *out->owner);
  if (out->owner == NULL) return SQ_ERR_MEMORY;
  for (int i = 0; i < in->nset; ++i) {
    const char *text = in->set[i]->owner, *equals = strchr(text, '=');
    out->owner[i].slot = -1;
    if (text[0] == '\0') continue;
    SQ_ASSERT(equals != NULL); /* an owner is "" or "key=value" */
    char *path = sq_cfg_pool_take(p, (size_t)(equals - text) + 1, 1);
    if (path == NULL) return SQ_ERR_MEMORY;
    memcpy(path, text, (size_t)(equals - text));
    const int slot = sq_cfg_slot_find(out, path);
    out->owner[i] = (sq_cfg_owner){.slot = slot < 0 ? -2 : slot, .value = equals + 1};
    if (slot >= 0) out->slot[slot].selects = 1;
  }
  return SQ_OK;
}

sq_status sq_cfg_schema_build(const sq_schema *in, sq_cfg_pool *p, sq_cfg_schema *out)
{
  sq_status st;
  *out = (sq_cfg_schema){.nset = in->nset, .set = in->set};
  SQ_TRY(collect_slots(in, p, out));
  SQ_TRY(collect_declarations(in, p, out));
  SQ_TRY(collect_owners(in, p, out));
done:
  return st;
}

/* ---- words ------------------------------------------------------------------------------------------- */
static size_t word_length(const char *words)
{
  return strcspn(words, "|");
}

int sq_cfg_word_in(const char *words, const char *s)
{
  const size_t n = strlen(s);
  while (*words != '\0') {
    const size_t w = word_length(words);
    if (w == n && strncmp(words, s, n) == 0) return 1;
    words += w + (words[w] == '|');
  }
  return 0;
}

/* Close: at most a third of the letters, and two for short words, have to change. */
static int close_enough(int distance, const char *s)
{
  const int n = (int)strlen(s);
  return distance <= (n / 3 > 2 ? n / 3 : 2) && distance < n;
}

/* One begins with the other ("mamba-lti", "mamba"), and three letters or more are the same. */
static int begins_alike(const char *a, const char *b)
{
  const size_t n = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
  return n >= 3 && strncmp(a, b, n) == 0;
}

const char *sq_cfg_closest(const char *words, const char *s, char out[SQ_CFG_SHOWN])
{
  int best = 1000, alike = 0;
  if (strlen(s) >= SQ_CFG_SHOWN) return NULL;
  while (*words != '\0') {
    char word[SQ_CFG_SHOWN];
    const size_t w = word_length(words);
    if (w < sizeof word) {
      memcpy(word, words, w);
      word[w] = '\0';
      const int d = sq_edit_distance(word, s), begins = begins_alike(word, s);
      if (begins > alike || (begins == alike && d < best)) {
        best = d;
        alike = begins;
        memcpy(out, word, w + 1);
      }
    }
    words += w + (words[w] == '|');
  }
  return best < 1000 && (alike || close_enough(best, s)) ? out : NULL;
}

static const char *last_part(const char *path)
{
  const char *dot = strrchr(path, '.');
  return dot != NULL ? dot + 1 : path;
}

/* Distance between paths; the right key in the wrong section counts as near. */
static int path_distance(const char *known, const char *path)
{
  const int d = sq_edit_distance(known, path);
  return d > 1 && strchr(known, '.') != NULL && strcmp(last_part(known), last_part(path)) == 0 ? 1 : d;
}

static void offer(const char *known, const char *path, int *best, char out[SQ_CFG_SHOWN])
{
  const int d = path_distance(known, path);
  if (d >= *best || !close_enough(d, path)) return;
  *best = d;
  sq_format(out, SQ_CFG_SHOWN, "%s", known);
}

static void offer_section(const char *known, const char *path, int *best, char out[SQ_CFG_SHOWN])
{
  char section[SQ_CFG_SHOWN];
  const size_t n = strcspn(known, ".");
  if (known[n] == '\0' || n >= sizeof section) return;
  memcpy(section, known, n);
  section[n] = '\0';
  offer(section, path, best, out);
}

sq_status sq_cfg_fail_unknown(const sq_cfg_schema *s, const char *where, const char *path)
{
  static const char *const structure[] = {"name", "label", "base", "base_config", "sweep"};
  char shown[SQ_CFG_SHOWN], out[SQ_CFG_SHOWN];
  int best = 1000;
  (void)sq_cfg_show(path, shown);
  if (strlen(path) < SQ_CFG_SHOWN) {
    for (int i = 0; i < s->nslot; ++i) {
      offer(s->slot[i].path, path, &best, out);
      if (strchr(path, '.') == NULL) offer_section(s->slot[i].path, path, &best, out);
    }
    for (size_t i = 0; i < sizeof structure / sizeof *structure; ++i) offer(structure[i], path, &best, out);
  }
  for (size_t i = 0; i < sizeof structure / sizeof *structure; ++i)
    if (strcmp(structure[i], path) == 0) /* known, but only at the top of a file */
      return sq_fail(SQ_ERR_USAGE, "%s: \"%s\" belongs into the file, it cannot be set here", where, shown);
  if (best == 1000)
    return sq_fail(SQ_ERR_USAGE,
                   "%s: unknown key \"%s\"; no known key is close to it (seqspectra help config lists them)",
                   where, shown);
  return sq_fail(SQ_ERR_USAGE, "%s: unknown key \"%s\"; did you mean \"%s\"?", where, shown, out);
}

sq_status sq_cfg_choices(const sq_cfg_schema *s, int slot, const sq_key *k, sq_cfg_pool *p,
                         const char **words)
{
  sq_cfg_text t = {0};
  *words = k->choices;
  if (k->choices != NULL || !s->slot[slot].selects || k->type != SQ_KEY_STRING) return SQ_OK;
  for (int i = 0; i < s->nset; ++i) {
    if (s->owner[i].slot != slot) continue;
    for (const char *w = s->owner[i].value; *w != '\0';) {
      const size_t n = word_length(w);
      char word[SQ_CFG_SHOWN];
      sq_format(word, sizeof word, "%.*s", (int)n, w);
      if (t.s == NULL || !sq_cfg_word_in(t.s, word)) sq_cfg_text_add(&t, "%s%s", t.n > 0 ? "|" : "", word);
      w += n + (w[n] == '|');
    }
  }
  *words = sq_cfg_text_keep(&t, p);
  return *words != NULL ? SQ_OK : SQ_ERR_MEMORY;
}
