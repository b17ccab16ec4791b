/* src/app/args.c: the command line. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "sq/base.h"

/* Far words are no help: half of the letters may differ, at most 3. */
static int close_enough(const char *word, int distance)
{
  const int half = (int)(strlen(word) + 1) / 2;
  return distance <= (half < 3 ? half : 3);
}

static sq_status fail_unknown(const char *command, const char *word, const sq_option *opt, int nopt)
{
  const char *best = NULL;
  int best_d = INT_MAX;
  for (int i = 0; i < nopt; ++i) {
    const int d = sq_edit_distance(word, opt[i].name);
    if (d < best_d) {
      best_d = d;
      best = opt[i].name;
    }
  }
  if (best && close_enough(word, best_d))
    return sq_fail(SQ_ERR_USAGE, "%s: unknown option --%s (did you mean --%s?)", command, word, best);
  return sq_fail(SQ_ERR_USAGE, "%s: unknown option --%s; see: seqspectra help %s", command, word, command);
}

/* Digits, and nothing else, up to one of `ends`; NULL if there are none. */
static const char *parse_field(const char *at, const char *ends, double *x)
{
  const size_t n = strspn(at, "0123456789");
  *x = strtod(at, NULL);
  return n > 0 && n < 10 && (at[n] == '\0' || strchr(ends, at[n]) != NULL) ? at + n : NULL;
}

/* As Slurm's time limits are written, but for those of one number: minutes:seconds, hours:minutes:seconds, or days- before
 * hours, hours:minutes, or all three. */
static int parse_clock(const char *text, double *seconds)
{
  static const double unit[2][3] = {{3600, 60, 1}, {60, 1, 0}};
  double x, days = 0, part[3];
  int n = 0;
  const char *at = parse_field(text, "-:", &x);
  const int has_days = at != NULL && *at == '-';
  if (at == NULL || *at == '\0') return 0;
  if (has_days) days = x;
  at = has_days ? at + 1 : text;
  for (; n < 3; ++at) {
    at = parse_field(at, n < 2 ? ":" : "", &part[n]);
    if (at == NULL || (n > 0 && part[n] > 59)) return 0;
    ++n;
    if (*at == '\0') break;
  }
  if (*at != '\0') return 0;
  *seconds = 86400 * days;
  for (int i = 0; i < n; ++i) *seconds += unit[!has_days && n == 2][i] * part[i];
  return 1;
}

static int parse_real(const sq_option *o, const char *text, double *x)
{
  char *end;
  errno = 0;
  if (o->type == SQ_OPT_TIME && parse_clock(text, x)) return 1;
  *x = strtod(text, &end);
  return end != text && *end == '\0' && errno == 0 && isfinite(*x);
}

static sq_status parse_number(const char *command, const sq_option *o, const char *text, double *x)
{
  const int bounded = o->min != 0 || o->max != 0;
  const int bad = !parse_real(o, text, x) ||
                  (o->type == SQ_OPT_INT && (*x != floor(*x) || fabs(*x) > INT_MAX)) ||
                  (bounded && (*x < o->min || *x > o->max));
  if (!bad) return SQ_OK;
  const char *kind = o->type == SQ_OPT_INT    ? "an integer"
                     : o->type == SQ_OPT_TIME ? "seconds, or [days-]hours:minutes:seconds as in Slurm,"
                                              : "a number";
  if (bounded)
    return sq_fail(SQ_ERR_USAGE, "%s: --%s=%s: expected %s from %g to %g", command, o->name, text, kind,
                   o->min, o->max);
  return sq_fail(SQ_ERR_USAGE, "%s: --%s=%s: expected %s", command, o->name, text, kind);
}

static sq_status store_value(const char *command, const sq_option *o, const char *text)
{
  double x;
  sq_status st;
  switch (o->type) {
  case SQ_OPT_TEXT:
    if (!*text) return sq_fail(SQ_ERR_USAGE, "%s: --%s needs a value", command, o->name);
    *(const char **)o->to = text;
    return SQ_OK;
  case SQ_OPT_LIST: {
    sq_words *w = o->to;
    if (w->n == SQ_MAX_WORDS)
      return sq_fail(SQ_ERR_USAGE, "%s: more than %d times --%s", command, SQ_MAX_WORDS, o->name);
    w->v[w->n++] = text;
    return SQ_OK;
  }
  default:
    st = parse_number(command, o, text, &x);
    if (st != SQ_OK) return st;
    if (o->type == SQ_OPT_INT)
      *(int *)o->to = (int)x;
    else
      *(double *)o->to = x;
    return SQ_OK;
  }
}

/* argv[*i] is "--name" or "--name=value"; moves *i over a value that is a word of its own. */
static sq_status parse_option(const char *command, int argc, char **argv, int *i, const sq_option *opt,
                              int nopt)
{
  const char *word = argv[*i] + 2, *eq = strchr(word, '=');
  char name[64];
  const size_t n = eq ? (size_t)(eq - word) : strlen(word);
  if (n >= sizeof name) return sq_fail(SQ_ERR_USAGE, "%s: unknown option %s", command, argv[*i]);
  memcpy(name, word, n);
  name[n] = 0;
  for (int k = 0; k < nopt; ++k) {
    if (strcmp(name, opt[k].name) != 0) continue;
    if (opt[k].type == SQ_OPT_FLAG) {
      if (eq) return sq_fail(SQ_ERR_USAGE, "%s: --%s takes no value", command, name);
      *(int *)opt[k].to = 1;
      return SQ_OK;
    }
    if (eq) return store_value(command, &opt[k], eq + 1);
    if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
      return sq_fail(SQ_ERR_USAGE, "%s: --%s needs a value", command, name);
    return store_value(command, &opt[k], argv[++*i]);
  }
  return fail_unknown(command, name, opt, nopt);
}

sq_status sq_args_parse(const char *command, int argc, char **argv, const sq_option *opt, int nopt,
                        const char *what, int min, int max, sq_words *words)
{
  int n = 0, only_words = 0;
  if (words) words->n = 0;
  for (int i = 0; i < argc; ++i) {
    if (!only_words && strcmp(argv[i], "--") == 0) {
      only_words = 1;
    } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
      const sq_status st = parse_option(command, argc, argv, &i, opt, nopt);
      if (st != SQ_OK) return st;
    } else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
      return sq_fail(SQ_ERR_USAGE, "%s: unknown option %s; options are words: --name", command, argv[i]);
    } else if (n == max || n == SQ_MAX_WORDS) {
      return sq_fail(SQ_ERR_USAGE, "%s: unexpected \"%s\"; usage: seqspectra help %s", command, argv[i],
                     command);
    } else {
      words->v[words->n++] = argv[i];
      ++n;
    }
  }
  if (n < min)
    return sq_fail(SQ_ERR_USAGE, "%s: %s is missing; usage: seqspectra help %s", command, what, command);
  return SQ_OK;
}

sq_status sq_args_choice(const char *command, const char *what, const char *value, const char *choices)
{
  char copy[512], *rest = copy, best[64] = "";
  int best_d = INT_MAX;
  sq_format(copy, sizeof copy, "%s", choices);
  for (char *c; (c = strsep(&rest, "|"));) {
    const int d = sq_edit_distance(value, c);
    if (d == 0) return SQ_OK;
    if (d < best_d) {
      best_d = d;
      sq_format(best, sizeof best, "%s", c);
    }
  }
  if (close_enough(value, best_d))
    return sq_fail(SQ_ERR_USAGE, "%s: unknown %s \"%s\": expected %s (did you mean %s?)", command, what,
                   value, choices, best);
  return sq_fail(SQ_ERR_USAGE, "%s: unknown %s \"%s\": expected %s", command, what, value, choices);
}
