/* src/task/block.c: sections in one piece of memory.  In front: their number, and the bytes of each. */
#include "block.h"

#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

static size_t round_up(size_t bytes)
{
  return (bytes + 63) / 64 * 64;
}

sq_status sq_block_pack(const block_section *s, int n, sq_task_block *b)
{
  const size_t head = round_up(((size_t)n + 1) * sizeof(uint64_t));
  size_t at = head, bytes = head;
  for (int k = 0; k < n; ++k) bytes += round_up(s[k].bytes);
  /* malloc: what is shared is touched once, when it is copied; the numbers decide nothing here */
  unsigned char *data = aligned_alloc(64, bytes);
  *b = (sq_task_block){0};
  if (data == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for %zu bytes of data", bytes);
  memset(data, 0, head);
  ((uint64_t *)(void *)data)[0] = (uint64_t)n;
  for (int k = 0; k < n; ++k) {
    ((uint64_t *)(void *)data)[1 + k] = s[k].bytes;
    if (s[k].bytes > 0) memcpy(data + at, s[k].data, s[k].bytes);
    memset(data + at + s[k].bytes, 0, round_up(s[k].bytes) - s[k].bytes);
    at += round_up(s[k].bytes);
  }
  *b = (sq_task_block){.data = data, .bytes = bytes, .owned = 1};
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
