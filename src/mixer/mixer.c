/* src/mixer/mixer.c: the registry. */
#include <string.h>

#include "mixer_impl.h"

static const sq_mixer_ops *const table[] = {
#define SQ_MIXER(name) &sq_mixer_##name,
#include "mixer_list.h"
#undef SQ_MIXER
};
enum { NMIXER = sizeof table / sizeof *table };

const sq_mixer_ops *sq_mixer_at(int i)
{
  return 0 <= i && i < NMIXER ? table[i] : NULL;
}

const sq_mixer_ops *sq_mixer_find(const char *name)
{
  for (int i = 0; i < NMIXER; ++i)
    if (strcmp(table[i]->name, name) == 0) return table[i];
  return NULL;
}
