/* src/app/operator.h: the one place for the choice of a method. */
#pragma once

/* Below this order --method auto takes LAPACK, the matrices dealt out over the ranks; from it on the secular
   equation, shared out.  Seconds for one matrix of S4 as initialised, on two cores that others used too:
     order                    512    1024   2048
     dense, 1 rank            0.7    2.1    15
     secular, 1 rank          1.6    3.5    -
     secular, 2 ranks         1.3    4.5    25
     distributed, 2 ranks     1.5    11     -
   LAPACK was the fastest at all of these.  The secular equation is chosen from here on because it comes
   with its proof, needs O(n) memory where the dense matrix needs O(n^2), and costs O(n^2) a sweep against O(n^3). */
#define SQ_OPERATOR_DENSE_BELOW 2048
