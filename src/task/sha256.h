/* src/task/sha256.h: SHA-256 (FIPS 180-4), to compare files with published checksums. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint32_t h[8];
  uint64_t bytes;
  unsigned char block[64];
} sq_sha256;

void sq_sha256_init(sq_sha256 *s);
void sq_sha256_add(sq_sha256 *s, const void *data, size_t n);
void sq_sha256_hex(sq_sha256 *s, char hex[65]); /* s is used up */
void sq_sha256_of(const void *data, size_t n, char hex[65]);
