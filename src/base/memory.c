/* src/base/memory.c: zeroed blocks and arenas. */
#include <stdlib.h>
#include <sys/mman.h>

#include "sq/base.h"

#define ALIGNMENT ((size_t)64) /* a cache line, and the widest vector */

void *sq_calloc(size_t count, size_t size, const char *what)
{
  void *p = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
  if (p == NULL) (void)sq_fail(SQ_ERR_MEMORY, "%s: no memory for %zu x %zu bytes", what, count, size);
  return p;
}

sq_status sq_arena_create(sq_arena *a, size_t cap, const char *what)
{
  /* mmap, not malloc: pages are zero, touched first by the rank that uses them, given back at once, and the
     alignment (a page) is the same in every run, which keeps BLAS kernels on the same path. */
  void *p = mmap(NULL, cap > 0 ? cap : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *a = (sq_arena){.base = p == MAP_FAILED ? NULL : p, .used = 0, .cap = cap};
  if (p == MAP_FAILED) {
    a->cap = 0;
    return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %zu bytes", what, cap);
  }
  return SQ_OK;
}

void sq_arena_destroy(sq_arena *a)
{
  if (a->base != NULL) munmap(a->base, a->cap > 0 ? a->cap : 1);
  *a = (sq_arena){.base = NULL, .used = 0, .cap = 0};
}

void *sq_arena_take(sq_arena *a, size_t count, size_t size)
{
  SQ_ASSERT(size == 0 || count <= (SIZE_MAX - ALIGNMENT) / size);
  const size_t start = a->used, bytes = (count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  SQ_ASSERT(start <= SIZE_MAX - bytes);
  a->used = start + bytes;
  if (a->base == NULL) return NULL;
  SQ_ASSERT(a->used <= a->cap);
  return a->base + start;
}
