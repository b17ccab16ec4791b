/* tests/fuzz/fuzz_imdb.c: reviews; the input is one of the training set. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const char *const folder[] = {"train", "test", "train/neg", "train/pos", "test/neg", "test/pos"};
  static sq_experiment *e;
  if (e == NULL) {
    for (int k = 0; k < 6; ++k) {
      char name[64];
      fuzz_make_folder(fuzz_path(folder[k]));
      sq_format(name, sizeof name, "%s/2_1.txt", folder[k]);
      if (k >= 2) fuzz_write(name, "a review", 8);
    }
    e = fuzz_cell("imdb", ",\"max_tokens\":256,\"min_count\":2,\"vocab_size\":65536");
  }
  fuzz_write("train/pos/1_9.txt", data, n);
  fuzz_task(e, n % 8 == 0);
  return 0;
}
