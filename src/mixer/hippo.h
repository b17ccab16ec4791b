/* src/mixer/hippo.h: the HiPPO-LegS matrix that S4 and S5 start from.
 *
 *   A = S - p p^T,   A_ij = -q_i q_j below the diagonal, -(i+1) on it, 0 above,   q_i^2 = 2i+1,
 *   p = q/sqrt 2,    input b = q = sqrt(2) p
 *
 * S is -1/2 on the diagonal and skew beside it, so S = V diag(-1/2 + i mu) V^* with V unitary (Gu, Goel, Re,
 * ICLR 2022, appendix C).  In these coordinates A is diag(-1/2 + i mu) - P P^*, P = V^* p.  V has a closed form, in
 * hippo.c; its phases are chosen so that P is positive. */
#pragma once

#include "sq/real.h"

/* put(ctx, j, mu_j, P_j) for each state of n, mu ascending in j; not in the order of j.  O(n^2). */
void sq_hippo_states(int n, void (*put)(void *ctx, int j, double mu, double P), void *ctx);
/* Eigenvector j is x_0, x_1, ... (column j of V): edge starts as P_j/sqrt 2, and each call, i = 0, 1, ... n-1,
   returns x_i and moves edge on. */
sq_complex sq_hippo_entry(int i, double mu, sq_complex *edge);
