/* src/base/log.c: notes and warnings, from one rank only. */
#include <stdarg.h>

#include "sq/base.h"

static int enabled = 1, quieted = 0;

void sq_log_enable(int on)
{
  enabled = on;
}

void sq_log_quiet(int quiet)
{
  quieted = quiet;
}

static void print(const char *kind, const char *fmt, va_list ap)
{
  char line[1024];
  vsnprintf(line, sizeof line, fmt, ap);
  fprintf(stderr, "%s: %s\n", kind, line); /* one write, so that lines of other processes do not cut in */
}

void sq_note(const char *fmt, ...)
{
  if (!enabled || quieted) return;
  va_list ap;
  va_start(ap, fmt);
  print("note", fmt, ap);
  va_end(ap);
}

void sq_warn(const char *fmt, ...)
{
  if (!enabled) return;
  va_list ap;
  va_start(ap, fmt);
  print("warning", fmt, ap);
  va_end(ap);
}
