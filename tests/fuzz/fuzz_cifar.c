/* tests/fuzz/fuzz_cifar.c: records of CIFAR-10; the input is data_batch_1.bin, in colours or grey. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const uint8_t record[3073] = {3, 200, 100, 50};
  static sq_experiment *e[2];
  if (e[0] == NULL) {
    for (int k = 2; k <= 5; ++k) {
      char name[32];
      sq_format(name, sizeof name, "data_batch_%d.bin", k);
      fuzz_write(name, record, sizeof record);
    }
    fuzz_write("test_batch.bin", record, sizeof record);
    e[0] = fuzz_cell("cifar", ",\"tokenize\":true");
    e[1] = fuzz_cell("cifar", ",\"grayscale\":false");
  }
  fuzz_write("data_batch_1.bin", data, n);
  fuzz_task(e[n > 0 && data[0] % 2], n % 4 == 0);
  return 0;
}
