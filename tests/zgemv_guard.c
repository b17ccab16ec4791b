/* tests/zgemv_guard.c: stands before the BLAS's ZGEMV for programs whose heap has guarded ends.
 *
 * OpenBLAS 0.3.21's ZGEMV (TRANS = 'N', Haswell and SkylakeX kernels) reads one number past the end of x, whatever it
 * then does with it: with x at the end of a mapped page it is a segmentation fault for every order from 2 on.  In
 * ScaLAPACK x is a buffer that PBLAS allocates to the last byte; in an ordinary heap something always follows,
 * AddressSanitizer's may end there.  Here x gets room behind it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "sq/real.h"

typedef void zgemv(const char *trans, const int *m, const int *n, const sq_complex *alpha,
                   const sq_complex *a, const int *lda, const sq_complex *x, const int *incx,
                   const sq_complex *beta, sq_complex *y, const int *incy);
zgemv zgemv_;

void zgemv_(const char *trans, const int *m, const int *n, const sq_complex *alpha, const sq_complex *a,
            const int *lda, const sq_complex *x, const int *incx, const sq_complex *beta, sq_complex *y,
            const int *incy)
{
  zgemv *next = NULL;
  void *symbol = dlsym(RTLD_NEXT, "zgemv_");
  memcpy(&next, &symbol, sizeof next);
  const int copies = (*trans == 'N' || *trans == 'n') && *incx == 1 && *n > 0;
  sq_complex *room = copies ? malloc(((size_t)*n + 4) * sizeof *room) : NULL;
  if (room != NULL) memcpy(room, x, (size_t)*n * sizeof *room);
  next(trans, m, n, alpha, a, lda, room != NULL ? room : x, incx, beta, y, incy);
  free(room);
}
