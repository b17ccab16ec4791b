/* src/mixer/mixer_list.h: SQ_MIXER(<name>) for each sq_mixer_<name>; the only list of mixers.  No include
 * guard: it is included once to declare and once to fill the table. */
SQ_MIXER(softmax)
SQ_MIXER(linear)
SQ_MIXER(norm)
SQ_MIXER(mamba2)
SQ_MIXER(mamba2_lti)
SQ_MIXER(lru)
SQ_MIXER(s5)
SQ_MIXER(s4)
