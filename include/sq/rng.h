/* include/sq/rng.h: counter-based random numbers.  Philox4x32-10, Salmon et al., SC 2011.
 *
 * A number is a pure function of (seed; stream, index, position), so it does not depend on who draws it, or
 * when.  Each use has its own stream; the index is whatever the use counts (example, step, epoch). */
#pragma once

#include <stdint.h>

enum { /* streams; a use never shares one.  Values are part of "same seed, same numbers": append only. */
       SQ_STREAM_INIT = 1,       /* index = number of the tensor, in the order of the parameter list */
       SQ_STREAM_ORDER = 2,      /* index = epoch */
       SQ_STREAM_MQAR_KEYS = 3,  /* index = example, + split << 32 */
       SQ_STREAM_MQAR_REST = 4,  /* the same */
       SQ_STREAM_LISTOPS = 5,    /* index = attempt */
       SQ_STREAM_SHUFFLE = 6,    /* null model; index = sample */
       SQ_STREAM_REGAUGE = 7,    /* index = head */
       SQ_STREAM_TEST = 8,       /* tests only */
       SQ_STREAM_ROUNDING = 9,   /* parameters moved by one rounding; index = layer */
       SQ_STREAM_SPLIT = 10,     /* which training examples are for validation; index = class, or 0 */
       SQ_STREAM_MADE = 16,      /* + number of a generated task; index = example, + split << 32 */
       SQ_STREAM_DROPOUT = 1024, /* + site; see sq_nn_dropout */
};

/* One block of 4 random words. */
void sq_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4]);

/* A sequence: counter words are (block, index low, index high, stream). */
typedef struct {
  uint32_t key[2], ctr[4], buf[4];
  int left;
} sq_rng;

void sq_rng_init(sq_rng *r, uint64_t seed, uint32_t stream, uint64_t index);
uint32_t sq_rng_u32(sq_rng *r);
uint32_t sq_rng_below(sq_rng *r, uint32_t n); /* uniform on 0..n-1, n >= 1, without bias */
double sq_rng_uniform(sq_rng *r);             /* [0,1), 53 bits */
double sq_rng_normal(sq_rng *r);              /* N(0,1), Box-Muller, one value a call */
