/* src/app/calibrate.h: short measurements for `plan`. */
#pragma once

#include "sq/config.h"
#include "sq/train.h"

/* FLOP/s of a matrix product of this precision on one rank; 0 if it could not be measured. */
double sq_calibrate_gemm(void);
/* Seconds of one training step, measured on this many threads for about half a second (a single sequence if that takes longer).
   guess_flops: the expected FLOP/s, to choose the part of the batch. */
sq_status sq_calibrate_step(const sq_config *c, const sq_train_plan *p, int threads, double guess_flops,
                            double *step_s);
