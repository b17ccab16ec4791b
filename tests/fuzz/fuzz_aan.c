/* tests/fuzz/fuzz_aan.c: pairs of texts; the input is the training file. */
#include "fuzz.h"

static const char rows[] = "0\tA\tB\tone text\tanother\n1.0\tC\tD\tx\t\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static sq_experiment *e;
  if (e == NULL) {
    fuzz_write("new_aan_pairs.eval.tsv", rows, strlen(rows));
    fuzz_write("new_aan_pairs.test.tsv", rows, strlen(rows));
    e = fuzz_cell("aan", ",\"max_tokens\":40");
  }
  fuzz_write("new_aan_pairs.train.tsv", data, n);
  fuzz_task(e, n % 4 == 0);
  return 0;
}
