/* src/linalg/vendor.c: all that is special to one BLAS: names, thread control, kernels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sq/base.h"
#include "sq/linalg.h"

#if defined(SQ_BLAS_openblas)
#include <cblas.h>
#elif defined(SQ_BLAS_mkl)
#include <mkl.h>
#endif

const char *sq_cpu_model(void)
{
  static char model[128];
  if (model[0] != '\0') return model;
  FILE *f = fopen("/proc/cpuinfo", "r");
  char line[256];
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    char *value = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || value == NULL) continue;
    value += 1 + strspn(value + 1, " ");
    value[strcspn(value, "\n")] = '\0';
    snprintf(model, sizeof model, "%.120s", value);
    break;
  }
  if (f != NULL) fclose(f);
  if (model[0] == '\0') snprintf(model, sizeof model, "unknown CPU");
  return model;
}

sq_status sq_blas_reserve(void)
{
  enum { N = 64, BUFFER = 140 << 20 }; /* OpenBLAS maps 128 MiB */
  static double a[N * N], c[N * N];
  void *volatile room = malloc(BUFFER); /* volatile: the compiler must not leave the call out */
  if (room == NULL) return sq_fail(SQ_ERR_USAGE, "ulimit -v leaves no room for the BLAS's buffer (140 MiB)");
  free(room);
  sq_dgemm(SQ_N, SQ_N, N, N, N, 1, a, N, a, N, 0, c, N);
  return SQ_OK;
}

#if defined(SQ_BLAS_openblas)

sq_blas_info sq_blas_describe(void)
{
  sq_blas_info info = {.threads = openblas_get_num_threads()};
  const char *config =
      openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ... Haswell MAX_THREADS=64" */
  char release[32] = "";
  if (sscanf(config, "OpenBLAS %31s", release) != 1) release[0] = '\0';
  snprintf(info.name, sizeof info.name, "OpenBLAS %s", release);
  snprintf(info.kernel, sizeof info.kernel, "%s", openblas_get_corename());
  return info;
}

void sq_blas_set_threads(int n)
{
  openblas_set_num_threads(n);
}

/* The kernel families of OpenBLAS by the vectors they use; anything unlisted has SSE at best (Prescott is
   what releases choose for processors that they do not know). */
static int kernel_bits(const char *kernel)
{
  static const struct {
    const char *name;
    int bits;
  } family[] = {{"SkylakeX", 512}, {"Cooperlake", 512}, {"SapphireRapids", 512}, {"Haswell", 256},
                {"Zen", 256},      {"Excavator", 256},  {"Steamroller", 128},    {"Piledriver", 128}};
  for (size_t i = 0; i < sizeof family / sizeof *family; ++i)
    if (strcasecmp(kernel, family[i].name) == 0) return family[i].bits;
  return 128;
}

const char *sq_blas_advice(void)
{
  static char advice[256];
  const char *kernel = openblas_get_corename();
#if defined(__x86_64__)
  const int have512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  const int have256 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const int could = have512 ? 512 : have256 ? 256 : 128;
  if (kernel_bits(kernel) >= could) return NULL;
  snprintf(advice, sizeof advice,
           "OpenBLAS runs its %s kernels but this CPU has %s: set OPENBLAS_CORETYPE=%s (changes the last "
           "bits of results)",
           kernel, could == 512 ? "AVX-512" : "AVX2", could == 512 ? "SkylakeX" : "Haswell");
  return advice;
#else
  (void)kernel;
  (void)kernel_bits;
  (void)advice;
  return NULL;
#endif
}

#elif defined(SQ_BLAS_mkl)

sq_blas_info sq_blas_describe(void)
{
  sq_blas_info info = {.threads = mkl_get_max_threads()};
  MKLVersion v;
  mkl_get_version(&v);
  snprintf(info.name, sizeof info.name, "MKL %d.%d", v.MajorVersion, v.MinorVersion);
  snprintf(info.kernel, sizeof info.kernel, "%.31s", v.Processor);
  return info;
}

void sq_blas_set_threads(int n)
{
  mkl_set_num_threads(n);
}

const char *sq_blas_advice(void)
{
  return NULL; /* MKL chooses by CPUID features */
}

#else /* reference BLAS, LibSci, AOCL: threads are set by their environment (OMP_NUM_THREADS) */

sq_blas_info sq_blas_describe(void)
{
  sq_blas_info info = {.threads = 1};
#if defined(SQ_BLAS_reference)
  snprintf(info.name, sizeof info.name, "reference BLAS");
#elif defined(SQ_BLAS_libsci)
  snprintf(info.name, sizeof info.name, "Cray LibSci");
#else
  snprintf(info.name, sizeof info.name, "AOCL BLIS");
#endif
  return info;
}

void sq_blas_set_threads(int n)
{
  (void)n;
}

const char *sq_blas_advice(void)
{
#if defined(SQ_BLAS_reference)
  return "the reference BLAS is correct and slow: build with -DSQ_BLAS=openblas (or mkl, libsci, aocl)";
#else
  return NULL;
#endif
}

#endif

int sq_blas_is_asked_for(void)
{
  const char *named = getenv("OPENBLAS_CORETYPE");
  return named != NULL && strcasecmp(named, sq_blas_describe().kernel) == 0;
}
