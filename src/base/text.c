/* src/base/text.c: checksums and text. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sq/base.h"

uint64_t sq_hash(uint64_t h, const void *data, size_t bytes)
{
  const unsigned char *p = data;
  for (size_t i = 0; i < bytes; ++i) h = (h ^ p[i]) * UINT64_C(0x100000001b3); /* FNV-1a, 64 bit */
  return h;
}

int sq_edit_distance(const char *a, const char *b)
{
  enum { CAP = 128 };
  const int n = (int)strnlen(a, CAP - 1), m = (int)strnlen(b, CAP - 1);
  int row[CAP];
  for (int j = 0; j <= m; ++j) row[j] = j;
  for (int i = 1; i <= n; ++i) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= m; ++j) {
      const int above = row[j];
      int best = diagonal + (a[i - 1] != b[j - 1]);
      if (above + 1 < best) best = above + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = above;
      row[j] = best;
    }
  }
  return row[m];
}

char *sq_read_file(const char *path, size_t *bytes, sq_status *st)
{
  struct stat info;
  FILE *f = fopen(path, "rb");
  if (f == NULL) {
    *st = sq_fail(SQ_ERR_DATA, "%s: %s", path, strerror(errno));
    return NULL;
  }
  char *data = NULL;
  if (fstat(fileno(f), &info) != 0 || !S_ISREG(info.st_mode)) {
    *st = sq_fail(SQ_ERR_DATA, "%s: not a regular file", path);
  } else if ((data = sq_calloc((size_t)info.st_size + 1, 1, path)) == NULL) {
    *st = SQ_ERR_MEMORY;
  } else {
    *bytes = fread(data, 1, (size_t)info.st_size, f);
    *st = SQ_OK;
    if (ferror(f)) {
      *st = sq_fail(SQ_ERR_DATA, "%s: read error: %s", path, strerror(errno));
      free(data);
      data = NULL;
    }
  }
  fclose(f);
  return data;
}

void sq_format(char *out, size_t cap, const char *fmt, ...)
{
  va_list ap;
  va_start(ap, fmt);
  const int n = vsnprintf(out, cap, fmt, ap);
  va_end(ap);
  SQ_ASSERT(n >= 0 && (size_t)n < cap);
}
