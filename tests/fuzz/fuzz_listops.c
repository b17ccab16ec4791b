/* tests/fuzz/fuzz_listops.c: rows of ListOps; the input is basic_train.tsv. */
#include "fuzz.h"

static const char rows[] = "Source\tTarget\r\n( ( ( [MAX 2 ) 9 ) ] )\t9\r\n( ( ( [MIN 2 ) 9 ) ] )\t2\r\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static sq_experiment *e;
  if (e == NULL) {
    fuzz_write("basic_val.tsv", rows, strlen(rows));
    fuzz_write("basic_test.tsv", rows, strlen(rows));
    e = fuzz_cell("listops", ",\"max_tokens\":64");
  }
  fuzz_write("basic_train.tsv", data, n);
  fuzz_task(e, n % 4 == 0);
  return 0;
}
