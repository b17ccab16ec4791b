/* tests/fuzz/fuzz_pathfinder.c: metadata, or one of its images (first byte of the input odd). */
#include "../../src/task/png_grey.h"

#include "fuzz.h"

#define FOLDER "pathfinder32/curv_contour_length_14/"

static const char metadata[] = "imgs/0 a.png 0 1\nimgs/0 a.png 1 0\nimgs/0 a.png 2 1\nimgs/0 a.png 3 0 0 0\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static const char *const folder[] = {"pathfinder32", FOLDER, FOLDER "imgs", FOLDER "imgs/0",
                                       FOLDER "metadata"};
  static sq_experiment *e;
  if (n == 0 || !sq_png_available()) return 0;
  if (e == NULL) {
    for (size_t k = 0; k < sizeof folder / sizeof *folder; ++k) fuzz_make_folder(fuzz_path(folder[k]));
    e = fuzz_cell("pathfinder", "");
  }
  if (data[0] % 2) {
    uint8_t grey[32 * 32];
    sq_error_clear();
    const sq_status st = sq_png_grey("image", data + 1, n - 1, 32, grey);
    if (st != SQ_OK) fuzz_refused(st);
    if (st != SQ_OK || data[0] < 128) return 0;
    fuzz_write(FOLDER "imgs/0/a.png", data + 1, n - 1);
    fuzz_write(FOLDER "metadata/0.npy", metadata, strlen(metadata));
  } else {
    fuzz_write(FOLDER "metadata/0.npy", data + 1, n - 1);
  }
  fuzz_task(e, 0);
  return 0;
}
