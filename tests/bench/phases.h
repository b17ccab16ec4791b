/* tests/bench/phases.h: where the time of a training step goes, measured on the library as it is.
 *
 * A function between two modules is called by its name, and the linker can put another in its place for one program
 * alone (--wrap=NAME): phases.c has one for each sq_nn_* function of a phase, which reads the clock and calls the
 * real one.  A mixer is called through its table of functions, which a model that the benchmark made itself gets
 * replaced.  The code that is timed is thus, byte for byte, that of every other program, without a branch in it for
 * the benchmark.
 *
 * Accuracy: time is exclusive (a projection inside a mixer is a projection) and nothing is sampled.  A call costs two
 * readings of the clock: measured 2 x 29 ns with the wall clock, but 2 x 1.5 us with a CPU clock, a system call, on a
 * virtual machine.  bench-step prints the number of calls, and the step's time with the split beside that without.
 * What the compiler may inline, or a file calls inside itself, is part of its caller. */
#pragma once

#include <time.h>

#include "sq/model.h"

typedef enum {
  PHASE_REST, /* residual sums, pooling, gathering of rows, adding up the shards' gradients */
  PHASE_INPUT,
  PHASE_EMBEDDING,
  PHASE_PROJECTION,  /* dense layers of blocks and mixers */
  PHASE_MIXER,       /* what is left of a mixer's passes */
  PHASE_KERNEL,      /* what a mixer derives from its parameters once a batch, and its gradient */
  PHASE_CONVOLUTION, /* the short ones before heads */
  PHASE_NORM,
  PHASE_ELEMENTWISE, /* activations, gates, dropout */
  PHASE_OUTPUT,      /* logits, cross-entropy, their gradients */
  PHASE_OPTIMISER,
  NPHASE
} phase;
extern const char *const phase_name[NPHASE];

/* The mixers of m call through the clock from now on. */
void phase_watch(sq_model *m);
void phase_start(clockid_t clock); /* forgets what was measured */
void phase_stop(void);
double phase_seconds(phase p);
long phase_calls(void);

/* Matrix products (sq_gemm), whatever phase they belong to: what remains if everything else took no time. */
typedef struct {
  double seconds, flops; /* 2 m n k: recomputed ones and the halves that nobody uses too */
  double
      bytes; /* of A, B and C once each, C twice where it is added to: what a cache without limits would move */
  long calls;
} phase_products;
phase_products phase_of_products(void);
