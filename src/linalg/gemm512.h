/* src/linalg/gemm512.h: products for CPUs with AVX-512, in the working precision (gemm512.c). */
#pragma once

#include "sq/linalg.h"

/* 1 where the CPU has the instructions and the build lets them be used. */
int sq_gemm512_available(void);
/* As sq_gemm(), m, n, k >= 1.  An element of C is the same whatever m and n are and wherever it lies in C. */
void sq_gemm512(sq_trans ta, sq_trans tb, int m, int n, int k, sq_real alpha, const sq_real *A, int lda,
                const sq_real *B, int ldb, sq_real beta, sq_real *C, int ldc);
