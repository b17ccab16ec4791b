/* src/task/png_grey.c: PNG images through libpng. */
#include "png_grey.h"

#ifdef SQ_HAVE_PNG

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

typedef struct {
  const unsigned char *data;
  size_t n, at;
  char why[160];
  jmp_buf back;
} source;

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
  source *s = png_get_io_ptr(png);
  if (s->n - s->at < n) png_error(png, "file cut short");
  memcpy(out, s->data + s->at, n);
  s->at += n;
}

static void failed(png_structp png, png_const_charp why)
{
  source *s = png_get_error_ptr(png);
  snprintf(s->why, sizeof s->why, "%s", why);
  longjmp(s->back, 1);
}

static void warned(png_structp png, png_const_charp why)
{
  (void)png;
  (void)why;
}

/* The file as `channels` (1 or 3) bytes a pixel, (side, side, channels), *owned*; NULL and a text in s->why.  Of the
   locals only those that are not changed after setjmp() are read behind it. */
static unsigned char *decode(source *s, png_structp png, png_infop info, unsigned side, unsigned char *pixel)
{
  if (setjmp(s->back)) return NULL;
  png_set_user_limits(png, 1u << 14, 1u << 14);
  png_set_read_fn(png, s, read_bytes);
  png_read_info(png, info);
  if (png_get_image_width(png, info) != side || png_get_image_height(png, info) != side) {
    snprintf(s->why, sizeof s->why, "image of %u x %u", (unsigned)png_get_image_width(png, info),
             (unsigned)png_get_image_height(png, info));
    return NULL;
  }
  png_set_strip_16(png);
  png_set_expand(png); /* palettes, fewer bits, transparency */
  png_set_strip_alpha(png);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const size_t row = png_get_rowbytes(png, info);
  if (row != side && row != (size_t)3 * side) png_error(png, "an unknown kind of pixels");
  for (int p = 0; p < passes; ++p)
    for (unsigned y = 0; y < side; ++y) png_read_row(png, pixel + y * row, NULL);
  png_read_end(png, NULL);
  return pixel;
}

static void to_grey(const unsigned char *pixel, int channels, size_t n, uint8_t *grey)
{
  if (channels == 1) memcpy(grey, pixel, n);
  for (size_t i = 0; channels == 3 && i < n; ++i)
    grey[i] =
        (uint8_t)((19595 * pixel[3 * i] + 38470 * pixel[3 * i + 1] + 7471 * pixel[3 * i + 2] + 0x8000) >> 16);
}

int sq_png_available(void)
{
  return 1;
}

sq_status sq_png_grey(const char *path, const void *data, size_t n, int side, uint8_t *grey)
{
  const size_t count = (size_t)side * (size_t)side;
  source *s = sq_calloc(1, sizeof *s, "PNG image");
  unsigned char *pixel = sq_calloc(count, 3, "PNG image");
  sq_status st = SQ_OK;
  if (s == NULL || pixel == NULL) {
    free(s);
    free(pixel);
    return SQ_ERR_MEMORY;
  }
  s->data = data;
  s->n = n;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, s, failed, warned);
  png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
  if (info == NULL)
    st = sq_fail(SQ_ERR_MEMORY, "%s: no memory for libpng", path);
  else if (decode(s, png, info, (unsigned)side, pixel) == NULL)
    st = sq_fail(SQ_ERR_DATA, "%s: %s; expected a PNG image of %d x %d", path, s->why, side, side);
  else
    to_grey(pixel, png_get_channels(png, info), count, grey);
  png_destroy_read_struct(&png, &info, NULL);
  free(pixel);
  free(s);
  return st;
}

#else

int sq_png_available(void)
{
  return 0;
}

sq_status sq_png_grey(const char *path, const void *data, size_t n, int side, uint8_t *grey)
{
  (void)data;
  (void)n;
  (void)side;
  (void)grey;
  return sq_fail(SQ_ERR_USAGE,
                 "%s: this program was built without libpng; install it (Debian: libpng-dev) and build again",
                 path);
}

#endif
