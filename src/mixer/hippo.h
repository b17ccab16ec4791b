/* src/mixer/hippo.h: the HiPPO-LegS matrix that S4 and S5 start from.
 *
 *   A = S - p p^T,   A_ij = -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it, 0 above,
 *   p_i = sqrt(i + 1/2),   input b_i = sqrt(2i + 1) = sqrt(2) p_i
 *
 * S is -1/2 on the diagonal and skew beside it, so S = V diag(-1/2 + i omega) V^* with V unitary (Gu, Goel, Re,
 * ICLR 2022, appendix C).  In these coordinates A is diag(-1/2 + i omega) - P P^*, P = V^* p. */
#pragma once

#include "sq/linalg.h"

/* omega (n), ascending; Vstar (n,n): V^*, row j belongs to omega[j]; its phase is free.  SQ_ERR_MEMORY,
   SQ_ERR_INTERNAL. */
sq_status sq_hippo_normal(int n, double *omega, sq_complex *Vstar);
/* P (n) = V^* p; the input in these coordinates is sqrt(2) P. */
void sq_hippo_rank_one(int n, const sq_complex *Vstar, sq_complex *P);
