/* tests/fuzz/fuzz_mnist.c: IDX files; the first byte of the input says which of the two training files the rest is. */
#include "fuzz.h"

enum { PIXELS = 784 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const char *const name[2] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"};
  static uint8_t images[16 + 2 * PIXELS] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28};
  static const uint8_t labels[10] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 7};
  static sq_experiment *e;
  if (e == NULL) {
    fuzz_write("t10k-images-idx3-ubyte", images, sizeof images);
    fuzz_write("t10k-labels-idx1-ubyte", labels, sizeof labels);
    e = fuzz_cell("mnist", ",\"tokenize\":true,\"permute\":true");
  }
  if (n == 0) return 0;
  fuzz_write(name[0], images, sizeof images);
  fuzz_write(name[1], labels, sizeof labels);
  fuzz_write(name[data[0] % 2], data + 1, n - 1);
  fuzz_task(e, n % 4 == 0);
  return 0;
}
