/* src/task/files.c: data files: where they are, and reading them whole. */
#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sq/base.h"

const char *sq_data_default_dir(void)
{
  const char *dir = getenv("SEQSPECTRA_DATA");
  return dir != NULL && *dir != '\0' ? dir : "./data";
}

const char *sq_data_dir(const sq_config *c)
{
  return sq_config_has(c, "dataset.data_dir") ? sq_config_string(c, "dataset.data_dir")
                                              : sq_data_default_dir();
}

sq_status sq_path_join(char out[SQ_PATH_MAX], const char *dir, const char *name)
{
  const int n = snprintf(out, SQ_PATH_MAX, "%s%s%s", dir, *name != '\0' ? "/" : "", name);
  if (n < 0 || n >= SQ_PATH_MAX) return sq_fail(SQ_ERR_DATA, "%.64s...: path too long", dir);
  return SQ_OK;
}

int sq_file_exists(const char *path)
{
  return access(path, F_OK) == 0;
}

sq_status sq_data_find(const char *task, const char *dir, const char *const *sub, const char *probe,
                       const char *expected, char out[SQ_PATH_MAX])
{
  char path[SQ_PATH_MAX], places[512] = "";
  sq_status st = SQ_OK;

  for (int i = 0; sub[i] != NULL; ++i) {
    SQ_TRY(sq_path_join(out, dir, sub[i]));
    SQ_TRY(sq_path_join(path, out, probe));
    if (access(path, F_OK) == 0) return SQ_OK;
    const size_t used = strlen(places);
    (void)snprintf(places + used, sizeof places - used, "%s%.200s%s%s", used > 0 ? ", " : "", dir,
                   *sub[i] != '\0' ? "/" : "", sub[i]);
  }
  st = sq_fail(SQ_ERR_DATA, "task %s: no %s in %s; expected %s", task, probe, places, expected);
done:
  return st;
}

static sq_status check_regular(FILE *f, const char *path, const char *expected, size_t *bytes)
{
  struct stat info;
  if (fstat(fileno(f), &info) != 0)
    return sq_fail(SQ_ERR_DATA, "%s: cannot be read: %s; expected %s", path, strerror(errno), expected);
  if (!S_ISREG(info.st_mode))
    return sq_fail(SQ_ERR_DATA, "%s: %s; expected %s", path,
                   S_ISDIR(info.st_mode) ? "a folder" : "not a regular file", expected);
  if (info.st_size == 0) return sq_fail(SQ_ERR_DATA, "%s: empty file; expected %s", path, expected);
  *bytes = (size_t)info.st_size;
  return SQ_OK;
}

sq_status sq_data_open(const char *path, const char *expected, FILE **f, size_t *bytes)
{
  *f = fopen(path, "rb");
  if (*f == NULL)
    return sq_fail(SQ_ERR_DATA, "%s: cannot be opened: %s; expected %s", path, strerror(errno), expected);
  const sq_status st = check_regular(*f, path, expected, bytes);
  if (st == SQ_OK) return st;
  fclose(*f);
  *f = NULL;
  return st;
}

sq_status sq_data_read_part(FILE *f, const char *path, size_t at, size_t end, size_t bytes, char *out)
{
  if (fseeko(f, (off_t)at, SEEK_SET) == 0 && fread(out, 1, end - at, f) == end - at &&
      (end < bytes || fgetc(f) == EOF))
    return SQ_OK;
  return sq_fail(SQ_ERR_DATA, "%s: %s", path,
                 ferror(f) ? strerror(errno) : "its size changed while it was read");
}

char *sq_data_read(const char *path, const char *expected, size_t *bytes, sq_status *st)
{
  FILE *f = NULL;
  char *data = NULL;
  *st = sq_data_open(path, expected, &f, bytes);
  if (*st != SQ_OK) return NULL;
  data = malloc(*bytes + 1);
  *st = data != NULL ? sq_data_read_part(f, path, 0, *bytes, *bytes, data)
                     : sq_fail(SQ_ERR_MEMORY, "%s: no memory for its %zu bytes", path, *bytes);
  fclose(f);
  if (*st != SQ_OK) {
    free(data);
    return NULL;
  }
  data[*bytes] = '\0';
  return data;
}

const char *sq_text_shown(const char *s, size_t n, char out[SQ_SHOWN])
{
  const size_t m = n < 24 ? n : 24;
  for (size_t i = 0; i < m; ++i) out[i] = s[i] >= ' ' && s[i] < 127 ? s[i] : '?';
  sq_format(out + m, SQ_SHOWN - m, "%s", n > m ? "..." : "");
  return out;
}

sq_status sq_line_end_check(const char *path, size_t line, int cr, int *crlf)
{
  if (*crlf >= 0 && cr != *crlf)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: line ends in %s, the line above in %s; expected one kind", path,
                   line, cr ? "CR LF" : "LF", cr ? "LF" : "CR LF");
  *crlf = cr;
  return SQ_OK;
}
