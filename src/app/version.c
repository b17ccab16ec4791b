/* src/app/version.c: what this program is made of. */
#include <string.h>

#include "app.h"
#include "sq/eigen.h"
#include "sq/linalg.h"
#include "sq/store.h"

sq_status sq_app_version(int argc, char **argv)
{
  const sq_status st = sq_args_parse("version", argc, argv, NULL, 0, "", 0, 0, NULL);
  if (st != SQ_OK) return st;
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
  int n;
  MPI_Get_library_version(mpi, &n); /* allowed before MPI_Init */
  mpi[strcspn(mpi, "\n,")] = 0;
  const sq_blas_info blas = sq_blas_describe();
  const char *advice = sq_blas_advice();
#ifdef SQ_COMMIT
  printf("seqspectra %s (%s)\n", SQ_VERSION, SQ_COMMIT);
#else
  printf("seqspectra %s\n", SQ_VERSION);
#endif
  printf("precision  %s (spectra float64)\n", SQ_PRECISION);
#if defined(__clang__)
  printf("compiler   %s\n", __VERSION__); /* begins with its name */
#elif defined(__GNUC__)
  printf("compiler   gcc %s\n", __VERSION__);
#else
  printf("compiler   unknown\n");
#endif
  printf("MPI        %s\n", mpi);
  printf("HDF5       %s\n", sq_hdf5_version());
  printf("BLAS       %s%s%s, %d thread%s\n", blas.name, *blas.kernel ? ", kernel " : "", blas.kernel,
         blas.threads, blas.threads == 1 ? "" : "s");
  printf("ScaLAPACK  %s\n", sq_eigen_scalapack());
  printf("CPU        %s\n", sq_cpu_model());
  if (advice) printf("advice     %s\n", advice);
  return SQ_OK;
}
