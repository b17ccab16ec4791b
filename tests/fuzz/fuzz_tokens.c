/* tests/fuzz/fuzz_tokens.c: a file of kept tokens.  Two bytes in front of it: how its checksum is (left, or mended as
 * a damaged file's cannot be), and which key it is asked for. */
#include "../../src/task/token_cache.h"

#include "fuzz.h"

enum { HEADER = 32, CHECKSUM = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  const uint64_t key = 42;
  sq_ids ids = {0};
  fuzz_folder();
  setenv("SEQSPECTRA_CACHE", fuzz_folder(), 1);
  if (n < 2) return 0;
  const int mend = data[0] % 2;
  uint8_t *file = malloc(n);
  FUZZ_ASSERT(file != NULL);
  memcpy(file, data + 2, n - 2);
  if (mend && n - 2 >= HEADER) {
    const uint64_t sum = sq_hash(SQ_HASH_START, file + HEADER, n - 2 - HEADER);
    memcpy(file + CHECKSUM, &sum, sizeof sum);
  }
  fuzz_write("000000000000002a.tokens", file, n - 2);
  if (sq_token_cache_load(data[1] % 2 ? key : key + 1, &ids))
    FUZZ_ASSERT(ids.n * sizeof *ids.v == n - 2 - HEADER);
  sq_error_clear();
  sq_ids_clear(&ids);
  free(file);
  return 0;
}
