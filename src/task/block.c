/* src/task/block.c: sections in one piece of memory.  In front: their number, and the bytes of each. */
#include "block.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

static size_t round_up(size_t bytes)
{
  return (bytes + 63) / 64 * 64;
}

static size_t head_bytes(int n)
{
  return round_up(((size_t)n + 1) * sizeof(uint64_t));
}

size_t sq_block_bytes(const size_t *bytes, int n)
{
  size_t all = head_bytes(n);
  for (int k = 0; k < n; ++k) all += round_up(bytes[k]);
  return all;
}

void sq_block_begin(void *data, const size_t *bytes, int n)
{
  uint64_t *head = data;
  memset(head, 0, head_bytes(n));
  head[0] = (uint64_t)n;
  for (int k = 0; k < n; ++k) head[1 + k] = bytes[k];
}

sq_status sq_block_pack(const block_section *s, int n, sq_task_block *b)
{
  size_t bytes[BLOCK_MAX_SECTIONS], at = head_bytes(n);
  SQ_ASSERT(n <= BLOCK_MAX_SECTIONS);
  for (int k = 0; k < n; ++k) bytes[k] = s[k].bytes;
  const size_t all = sq_block_bytes(bytes, n);
  /* not zeroed: what is shared is touched once, when it is copied */
  unsigned char *data = aligned_alloc(64, all);
  *b = (sq_task_block){0};
  if (data == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for %zu bytes of data", all);
  sq_block_begin(data, bytes, n);
  for (int k = 0; k < n; ++k) {
    if (s[k].bytes > 0) memcpy(data + at, s[k].data, s[k].bytes);
    memset(data + at + s[k].bytes, 0, round_up(s[k].bytes) - s[k].bytes);
    at += round_up(s[k].bytes);
  }
  *b = (sq_task_block){.data = data, .bytes = all, .owned = 1};
  return SQ_OK;
}

const void *sq_block_section(const sq_task_block *b, int k, size_t *bytes)
{
  const uint64_t *size = b->data;
  size_t at = round_up((size[0] + 1) * sizeof(uint64_t));
  SQ_ASSERT(0 <= k && (uint64_t)k < size[0]);
  for (int i = 0; i < k; ++i) at += round_up(size[1 + i]);
  if (bytes != NULL) *bytes = size[1 + k];
  return (const unsigned char *)b->data + at;
}

void sq_task_block_free(sq_task_block *b)
{
  if (b->owned) free((void *)(uintptr_t)b->data);
  *b = (sq_task_block){0};
}
