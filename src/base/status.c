/* src/base/status.c: the one recorded error, and what the program's exit status says of it. */
#include "sq/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define ERROR_TEXT 2048

static char text[ERROR_TEXT];

int sq_exit_code(sq_status st)
{
  switch (st) {
  case SQ_OK: return 0;
  case SQ_ERR_USAGE: return 2;
  case SQ_ERR_DATA: return 3;
  case SQ_ERR_IO: return 4;
  case SQ_STOPPED: return 75;
  case SQ_ERR_CHECK:
  case SQ_ERR_MEMORY:
  case SQ_ERR_INTERNAL: break;
  }
  return 1;
}

sq_status sq_fail(sq_status st, const char *fmt, ...)
{
  if (text[0] == '\0') {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; ++p) /* one line, whatever a library or a file's name put in */
      if (*p == '\n' || *p == '\r') *p = ' ';
  }
  return st;
}

sq_status sq_fail_in(sq_status st, const char *fmt, ...)
{
  char prefix[ERROR_TEXT], joined[2 * ERROR_TEXT + 2];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(prefix, sizeof prefix, fmt, ap);
  va_end(ap);
  snprintf(joined, sizeof joined, "%s: %s", prefix, text);
  text[0] = '\0';
  joined[ERROR_TEXT - 1] = '\0';
  return sq_fail(st, "%s", joined);
}

const char *sq_error_text(void)
{
  return text;
}

void sq_error_clear(void)
{
  text[0] = '\0';
}

void sq_bug(const char *what, const char *file, int line)
{
  fprintf(stderr, "seqspectra: bug: '%s' does not hold at %s:%d\n", what, file, line);
  abort();
}
