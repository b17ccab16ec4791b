/* src/app/operator.h: shared by operator.c (the matrices and their eigenvalues) and operator_output.c (what is printed
 * and stored); the one place for the choice of a method. */
#pragma once

#include "cells.h"
#include "sq/eigen.h"
#include "sq/spectra.h"

/* Below this order --method auto takes LAPACK, the matrices dealt out over the ranks; from it on the secular
   equation, shared out, because of what the numbers are worth: stored in float64, HiPPO-LegS of 32 states has
   values that LAPACK misses by 8, and of 64 by 50, where those of the equation come with a proof.  Below, all are
   good to some digits.  Seconds for one matrix of S4 as initialised, on two cores that others used too:
     order                    512    1024   2048
     dense, 1 rank            0.7    2.1    15
     secular, 1 rank          1.6    3.5    -
     secular, 2 ranks         1.3    4.5    25
     distributed, 2 ranks     1.5    11     -
   O(n) memory where the dense matrix needs O(n^2), and O(n^2) a sweep against O(n^3). */
#define SQ_OPERATOR_DENSE_BELOW 32
/* Below this order the secular equation deals out whole matrices where there is one for each rank: exchanges within one
   cost more than they save.  Seconds for four different matrices on two ranks of two cores that others used too:
     order                     64     256    512
     each over both ranks      0.52   1.7    5.0
     dealt out                 0.05   0.5    5.3
   Equal ones, as initialised, are solved once a rank. */
#define SQ_OPERATOR_DEAL_BELOW 512
/* Below this order --method auto has LAPACK do the first matrix of a layer too, for comparison. */
#define SQ_OPERATOR_ALONE_FROM 512
/* A backward stable method leaves a few n eps: 16 n eps is 1.5e-11 at the largest order that a configuration may
   have, 4096; rounding a proven value to float64 leaves eps.  What is above is no eigenvalue of the matrix. */
#define SQ_OPERATOR_BACKWARD_MOST 1e-10

typedef enum { OPERATOR_DENSE, OPERATOR_DISTRIBUTED, OPERATOR_SECULAR, OPERATOR_DIAGONAL } operator_method;

typedef struct {
  const char *label, *config, *weights; /* config: resolved, JSON; weights: the file, or "" */
  const sq_segment *segment;
  const sq_mixer *mixer;
  int layer, n, first, count; /* channels first .. first + count - 1 */
  operator_method method;
  int dealt; /* whole matrices to ranks, instead of each over all of them */
  int cross_check;
  sq_complex *lambda;       /* (count,n) */
  double *radius;           /* (count,n) of the disc that holds the eigenvalue; method secular, diagonal: 0 */
  double *backward, *trace; /* (count,n), (count) relative error of the sum */
  double *condition;        /* (count,n) |y^* x| of unit eigenvectors */
  double *sensitivity;      /* (count,n) to first order, of one rounding of every stored parameter */
  int64_t *certified;       /* (count,n) */
  double build_s, solve_s, check_s;
  double lapack_backward, lapack_distance; /* cross_check: the worst of the first matrix; on rank 0 */
} operator_job;

int sq_operator_finite(sq_complex z);
/* Values that are not finite or whose backward error is above SQ_OPERATOR_BACKWARD_MOST or not a number. */
size_t sq_operator_bad(const operator_job *j);
/* *marked: set to 1 if a share is marked, which sq_operator_print_footnote() then explains. */
sq_status sq_operator_print(const operator_job *j, int *marked);
void sq_operator_print_footnote(void);
sq_status sq_operator_write_root(sq_h5 *f); /* of a file of its own */
sq_status sq_operator_write(sq_h5 *f, const operator_job *j);
