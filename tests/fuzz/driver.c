/* tests/fuzz/driver.c: runs a fuzz target over files and folders of files, for compilers without libFuzzer. */
#include <dirent.h>

#include "fuzz.h"

static long run_file(const char *path)
{
  size_t n = 0;
  sq_status st;
  char *data = sq_read_file(path, &n, &st);
  if (data == NULL) {
    fprintf(stderr, "%s\n", sq_error_text());
    exit(1);
  }
  LLVMFuzzerTestOneInput((const uint8_t *)data, n);
  free(data);
  return 1;
}

static long run(const char *path)
{
  DIR *d = opendir(path);
  long n = 0;
  if (d == NULL) return run_file(path);
  for (const struct dirent *e; (e = readdir(d)) != NULL;) {
    char name[4096];
    if (e->d_name[0] == '.') continue;
    sq_format(name, sizeof name, "%s/%s", path, e->d_name);
    n += run_file(name);
  }
  closedir(d);
  return n;
}

int main(int argc, char **argv)
{
  long n = 0;
  for (int i = 1; i < argc; ++i) n += run(argv[i]);
  printf("%ld inputs\n", n);
  return n > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
