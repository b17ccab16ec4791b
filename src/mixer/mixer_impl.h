/* src/mixer/mixer_impl.h: what the files of this module share.
 *
 * Each family completes `struct sq_mixer` for itself, with a struct sq_mixer_head as its first member. */
#pragma once

#include "sq/mixer.h"

#define SQ_MIXER(name) extern const sq_mixer_ops sq_mixer_##name;
#include "mixer_list.h"
#undef SQ_MIXER
