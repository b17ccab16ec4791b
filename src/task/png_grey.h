/* src/task/png_grey.h: a square PNG image as grey bytes. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "sq/status.h"

int sq_png_available(void); /* this build has libpng */
/* data[0..n-1] is the file; grey (side, side), row by row, 8 bits.  Colours become grey as in CIFAR-10, an alpha channel
   is dropped.  SQ_ERR_DATA "<path>: ...": no PNG file, damaged, of another size. */
sq_status sq_png_grey(const char *path, const void *data, size_t n, int side, uint8_t *grey);
