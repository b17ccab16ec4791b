/* src/nn/param.c: the list of a model's tensors. */
#include "sq/param.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sq/status.h"

enum { PAD = 16 }; /* elements: 64 bytes of float, so that tensors never share a cache line */

static void grow(sq_param_list *l)
{
  const int cap = l->cap ? 2 * l->cap : 32;
  sq_param *v = realloc(l->v, (size_t)cap * sizeof *v);

  SQ_ASSERT(v != NULL); /* some kilobytes: without them nothing else works either */
  l->v = v;
  l->cap = cap;
}

size_t sq_param_add(sq_param_list *l, unsigned flags, int ndim, const int dim[], const char *fmt, ...)
{
  sq_param p = {.ndim = ndim, .offset = l->total, .count = 1, .flags = flags};
  va_list ap;

  SQ_ASSERT(1 <= ndim && ndim <= 3);
  va_start(ap, fmt);
  const int len = vsnprintf(p.name, sizeof p.name, fmt, ap);
  va_end(ap);
  SQ_ASSERT(0 < len && len < SQ_PARAM_NAME);
  SQ_ASSERT(sq_param_find(l, p.name) == NULL);
  for (int i = 0; i < 3; ++i) {
    p.dim[i] = i < ndim ? dim[i] : 1;
    SQ_ASSERT(p.dim[i] > 0);
    p.count *= (size_t)p.dim[i];
  }
  if (ndim == 1) p.flags |= SQ_PARAM_NO_DECAY;
  if (l->n == l->cap) grow(l);
  l->v[l->n++] = p;
  l->total += (p.count + PAD - 1) / PAD * PAD;
  return p.offset;
}

const sq_param *sq_param_find(const sq_param_list *l, const char *name)
{
  for (int i = 0; i < l->n; ++i)
    if (strcmp(l->v[i].name, name) == 0) return &l->v[i];
  return NULL;
}

void sq_param_clear(sq_param_list *l)
{
  free(l->v);
  *l = (sq_param_list){0};
}
