/* src/app/calibrate.h: short measurements for `plan`. */
#pragma once

#include "cells.h"

/* FLOP/s of a matrix product of this precision on one rank; 0 if it could not be measured. */
double sq_calibrate_gemm(void);
/* Bytes/s of a copy from memory to memory, and of a file that is written into the folder and synced (bytes: its size);
   0 if it could not be measured. */
double sq_calibrate_copy(void);
double sq_calibrate_disk(const char *folder, size_t bytes);

typedef struct {                  /* seconds on one rank */
  double gradient_s, optimiser_s; /* of a training step */
  double evaluation_s;            /* of an example of an evaluation */
  double init_s, spectra_s;       /* of all protocols at stage init, at a later one */
} sq_cell_speed;
/* Measured on this many threads with random tokens of full length, for about two seconds.  guess_flops: the expected FLOP/s,
   to choose the part of the batch. */
sq_status sq_calibrate_cell(const sq_config *c, const sq_train_plan *p, int threads, double guess_flops,
                            sq_cell_speed *speed);
