/* src/task/unicode.h: code points of UTF-8 text, and their classes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define UNICODE_LIMIT 0x110000

/* The code point at s[0..n-1], n >= 1, and its bytes (1..4); -1 if these bytes are not UTF-8 (also: longer
   than needed, surrogates, above 10FFFF, cut short). */
static inline int32_t sq_utf8_at(const unsigned char *s, size_t n, int *bytes)
{
  static const int32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char c = s[0];
  int32_t u;
  *bytes = 1;
  if (c < 0x80) return c;
  const int len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
  if (c < 0xc2 || c > 0xf4 || n < (size_t)len) return -1;
  u = c & (0x7f >> len);
  for (int i = 1; i < len; ++i) {
    if ((s[i] & 0xc0) != 0x80) return -1;
    u = u << 6 | (s[i] & 0x3f);
  }
  if (u < least[len] || u >= UNICODE_LIMIT || (u >= 0xd800 && u < 0xe000)) return -1;
  *bytes = len;
  return u;
}

/* Offset of the first byte that is not UTF-8, or n. */
size_t sq_utf8_check(const char *s, size_t n);

enum { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE };
/* Class of every code point: general category L*, N*, property White_Space, or none of them. */
void sq_unicode_classes(uint8_t class_of[UNICODE_LIMIT]);
const char *sq_unicode_version(void);
