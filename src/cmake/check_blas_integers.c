/* Exits 0 if the BLAS takes 32-bit integers.  A 64-bit library would read n = 3 + (2^31 - 1) 2^32 from the
   pair and fail or crash. */
extern double ddot_(const int *n, const double *x, const int *incx, const double *y, const int *incy);

int main(void)
{
  const int n[2] = {3, 0x7fffffff}, one[2] = {1, 0};
  const double x[3] = {1, 2, 3}, y[3] = {4, 5, 6};
  return ddot_(n, x, one, y, one) == 32.0 ? 0 : 1;
}
