/* tests/test_grid_share.c: one copy of bytes for the ranks of a machine: the same bytes for all, in the memory of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/grid.h"

enum { BYTES = 48 << 20 };

#if defined(__has_feature)
#define SHADOW __has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define SHADOW 1
#else
#define SHADOW 0
#endif

static MPI_Comm node;
static int rank, nrank;

static unsigned char byte_of(size_t i)
{
  return (unsigned char)(i * 2654435761u >> 13);
}

static unsigned char *make(size_t n)
{
  unsigned char *x = malloc(n > 0 ? n : 1);
  assert_non_null(x);
  for (size_t i = 0; i < n; ++i) x[i] = byte_of(i);
  return x;
}

/* Kilobytes of this process: a page that k processes have mapped counts for 1/k of itself. */
static long pss_kb(void)
{
  FILE *f = fopen("/proc/self/smaps_rollup", "r");
  char line[256];
  long kb = -1;
  while (f != NULL && kb < 0 && fgets(line, sizeof line, f) != NULL)
    if (strncmp(line, "Pss:", 4) == 0) kb = atol(line + 4);
  if (f != NULL) fclose(f);
  return kb;
}

static void all_ranks_see_what_any_reader_gives(void **state)
{
  static const size_t size[] = {0, 1, 63, 4096, 100003};
  (void)state;
  for (int reader = 0; reader < nrank; ++reader)
    for (size_t k = 0; k < sizeof size / sizeof *size; ++k) {
      sq_shared *s = NULL;
      size_t n = 12345;
      unsigned char *data = rank == reader ? make(size[k]) : NULL;
      assert_int_equal(sq_shared_create(node, reader, data, rank == reader ? size[k] : 777, &s), SQ_OK);
      free(data);
      assert_non_null(s);
      const unsigned char *x = sq_shared_data(s, &n);
      assert_int_equal(n, size[k]);
      assert_int_equal((uintptr_t)x % 64, 0);
      for (size_t i = 0; i < n; ++i)
        if (x[i] != byte_of(i)) fail_msg("byte %zu of %zu", i, n);
      sq_shared_destroy(&s);
      assert_null(s);
    }
}

/* The ranks' shares of all memory grow by one copy together, not by one each: with a fifth for page tables and buffers. */
static void the_machine_holds_one_copy(void **state)
{
  sq_shared *s = NULL;
  size_t n;
  unsigned sum = 0;
  (void)state;
  unsigned char *data = rank == 0 ? make(BYTES) : NULL;
  long before = pss_kb(), after, grown, all = 0;
  if (before < 0) {
    printf("skipped: no /proc/self/smaps_rollup\n");
    free(data);
    skip();
  }
  MPI_Barrier(node);
  assert_int_equal(sq_shared_create(node, 0, data, BYTES, &s), SQ_OK);
  if (s == NULL) fail_msg("no room for a shared window");
  const unsigned char *x = sq_shared_data(s, &n);
  for (size_t i = 0; i < n; i += 1024) sum += x[i]; /* every page is looked at */
  MPI_Barrier(node);
  after = pss_kb();
  MPI_Barrier(node);
  grown = after - before;
  MPI_Allreduce(&grown, &all, 1, MPI_LONG, MPI_SUM, node);
  if (rank == 0) printf("%d ranks: %ld kB for %d kB (checksum %u)\n", nrank, all, BYTES >> 10, sum);
  /* AddressSanitizer looks at its shadow of each page, an eighth, which every rank has for itself. */
  const int shadow = SHADOW ? nrank * (BYTES >> 13) : 0;
  assert_in_range(all, (BYTES >> 10) * 4 / 5, (BYTES >> 10) * 6 / 5 + shadow);
  free(data);
  sq_shared_destroy(&s);
}

int main(int argc, char **argv)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(all_ranks_see_what_any_reader_gives),
      cmocka_unit_test(the_machine_holds_one_copy),
  };
  MPI_Init(&argc, &argv);
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &rank);
  MPI_Comm_size(node, &nrank);
  const int failed = cmocka_run_group_tests(test, NULL, NULL);
  MPI_Comm_free(&node);
  MPI_Finalize();
  return failed;
}
