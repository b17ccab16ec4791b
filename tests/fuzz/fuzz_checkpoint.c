/* tests/fuzz/fuzz_checkpoint.c: a checkpoint.  The first byte of the input says whether the checksum at the end of the
 * file is made right (a damaged file's would not be). */
#include "fuzz.h"
#include "sq/train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const size_t bytes[SQ_STATE_PARTS] = {24, 16, 8, 0, 8};
  uint8_t part[SQ_STATE_PARTS][24], *file;
  sq_train_state s = {.step = -1};
  char note[64 + 512];
  if (n == 0) return 0;
  for (int i = 0; i < SQ_STATE_PARTS; ++i) {
    s.part[i].data = part[i];
    s.part[i].bytes = bytes[i];
  }
  file = malloc(n + sizeof(uint64_t));
  FUZZ_ASSERT(file != NULL);
  size_t size = n - 1;
  memcpy(file, data + 1, size);
  if (data[0] % 2) {
    const uint64_t sum = sq_hash(SQ_HASH_START, file, size);
    memcpy(file + size, &sum, sizeof sum);
    size += sizeof sum;
  }
  fuzz_write(data[0] / 2 % 2 ? "cell.old" : "cell", file, size);
  if (sq_checkpoint_read(fuzz_path("cell"), "owner", &s, note, sizeof note)) {
    FUZZ_ASSERT(s.step != -1 || size > 0);
    FUZZ_ASSERT(size == sq_checkpoint_bytes("owner", &s));
  }
  FUZZ_ASSERT(strlen(note) < sizeof note && strchr(note, '\n') == NULL);
  unlink(fuzz_path("cell"));
  unlink(fuzz_path("cell.old"));
  sq_error_clear();
  free(file);
  return 0;
}
