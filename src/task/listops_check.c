/* src/task/listops_check.c: what is in the files of a ListOps folder, for people. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "listops_impl.h"
#include "sha256.h"
#include "sq/base.h"

enum { CHECK_TOKENS = 2048 }; /* dataset.max_tokens */

static sq_status checksum(const char *dir, const char *name, char hex[65])
{
  char path[SQ_PATH_MAX], *text = NULL;
  size_t n;
  sq_status st;
  SQ_TRY(sq_path_join(path, dir, name));
  text = sq_data_read(path, "rows of an expression and its value", &n, &st);
  if (st == SQ_OK) sq_sha256_of(text, n, hex);
done:
  free(text);
  return st;
}

static sq_status print_rows(const char *dir, const listops_set *s, FILE *out)
{
  sq_status st = SQ_OK;
  fprintf(out, "%-16s %8s %8s %8s %8s %8s %8s  %s\n", "file", "rows", "shortest", "mean", "longest", "cut",
          "nesting", "SHA-256");
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    size_t lo = SIZE_MAX, hi = 0, cut = 0;
    char hex[65];
    int nest = 0;
    SQ_TRY(checksum(dir, sq_listops_file[k], hex));
    for (size_t i = s->first[k]; i < s->first[k + 1]; ++i) {
      const size_t n = s->off[i + 1] - s->off[i];
      const int d = sq_listops_nesting(s->code + s->off[i], n);
      lo = n < lo ? n : lo;
      hi = n > hi ? n : hi;
      cut += n > CHECK_TOKENS - 1;
      nest = d > nest ? d : nest;
    }
    const size_t rows = s->first[k + 1] - s->first[k];
    fprintf(out, "%-16s %8zu %8zu %8.1f %8zu %8zu %8d  %s\n", sq_listops_file[k], rows, lo,
            (double)(s->off[s->first[k + 1]] - s->off[s->first[k]]) / (double)rows, hi, cut, nest, hex);
  }
  fprintf(out, "lengths are tokens without parentheses; cut: longer than %d tokens\n\n", CHECK_TOKENS - 1);
done:
  return st;
}

static void print_targets(const listops_set *s, FILE *out)
{
  fprintf(out, "%-16s", "target");
  for (int v = 0; v < 10; ++v) fprintf(out, " %7d", v);
  fprintf(out, "  commonest\n");
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    size_t count[10] = {0}, most = 0;
    for (size_t i = s->first[k]; i < s->first[k + 1]; ++i) count[s->value[i]]++;
    fprintf(out, "%-16s", sq_listops_file[k]);
    for (int v = 0; v < 10; ++v) {
      fprintf(out, " %7zu", count[v]);
      most = count[v] > most ? count[v] : most;
    }
    fprintf(out, "  %8.1f%%\n", 100 * (double)most / (double)(s->first[k + 1] - s->first[k]));
  }
  fprintf(out, "every target equals its expression's value\n\n");
}

static void print_vocabulary(const listops_set *s, FILE *out)
{
  static const char *const special[LISTOPS_NSPECIAL] = {"<pad>", "<unk>", "<eos>"};
  uint8_t id[LISTOPS_NCODE];
  size_t count[LISTOPS_NCODE];

  sq_listops_vocabulary(s, CHECK_TOKENS, id, count);
  fprintf(out, "%4s  %-6s %12s\n", "id", "token", "in training");
  for (int k = 0; k < LISTOPS_NSPECIAL; ++k) fprintf(out, "%4d  %-6s\n", k, special[k]);
  for (int k = LISTOPS_NSPECIAL; k < LISTOPS_NSPECIAL + LISTOPS_NCODE; ++k)
    for (int c = 0; c < LISTOPS_NCODE; ++c)
      if (id[c] == k) fprintf(out, "%4d  %-6s %12zu\n", k, sq_listops_token[c], count[c]);
  fprintf(out, "\n");
}

sq_status sq_listops_check(const char *dir, FILE *out)
{
  static const size_t all[SQ_NSPLIT] = {SIZE_MAX, SIZE_MAX, SIZE_MAX};
  char found[4096];
  listops_set s = {0};
  sq_task *t = NULL;
  sq_status st;

  SQ_TRY(sq_listops_find_dir(dir, found, sizeof found));
  SQ_TRY(sq_listops_read(found, all, &s));
  fprintf(out, "%s\n\n", found);
  SQ_TRY(print_rows(found, &s, out));
  print_targets(&s, out);
  print_vocabulary(&s, out);
  SQ_TRY(sq_listops_create(&s, CHECK_TOKENS, CHECK_TOKENS, &t));
  SQ_TRY(sq_task_check_disjoint(t));
  fprintf(out, "no expression occurs twice\n");
done:
  sq_task_close(&t);
  sq_listops_clear(&s);
  return st;
}
