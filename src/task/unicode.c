/* src/task/unicode.c: classes of code points from unicode_table.h, which unicode_table.py writes. */
#include "unicode.h"

#include <string.h>

typedef struct {
  uint32_t first, count;
} unicode_run;

#include "unicode_table.h"

/* Property White_Space (PropList.txt), which has not changed since Unicode 6.3. */
static const unicode_run space_run[] = {{0x9, 5},     {0x20, 1},   {0x85, 1},   {0xa0, 1},   {0x1680, 1},
                                        {0x2000, 11}, {0x2028, 2}, {0x202f, 1}, {0x205f, 1}, {0x3000, 1}};

const char *sq_unicode_version(void)
{
  return UNICODE_VERSION;
}

static void mark(uint8_t *class_of, const unicode_run *run, size_t n, int class)
{
  for (size_t i = 0; i < n; ++i) memset(class_of + run[i].first, class, run[i].count);
}

void sq_unicode_classes(uint8_t class_of[UNICODE_LIMIT])
{
  memset(class_of, UNICODE_OTHER, UNICODE_LIMIT);
  mark(class_of, letter_run, sizeof letter_run / sizeof *letter_run, UNICODE_LETTER);
  mark(class_of, number_run, sizeof number_run / sizeof *number_run, UNICODE_NUMBER);
  mark(class_of, space_run, sizeof space_run / sizeof *space_run, UNICODE_SPACE);
}

size_t sq_utf8_check(const char *text, size_t n)
{
  const unsigned char *s = (const unsigned char *)text;
  size_t at = 0;
  while (at < n) {
    uint64_t w;
    int bytes;
    if (at + 8 <= n && (memcpy(&w, s + at, 8), (w & UINT64_C(0x8080808080808080)) == 0)) {
      at += 8;
      continue;
    }
    if (sq_utf8_at(s + at, n - at, &bytes) < 0) return at;
    at += (size_t)bytes;
  }
  return n;
}
