/* src/task/tokenize.c: the tokenizer of a data folder, and the ids of a text file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpe.h"
#include "files.h"

static const char expected[] =
    "GPT-2's vocab.json and merges.txt (or encoder.json and vocab.bpe, the same files); get them with: "
    "jobs/fetch-data.sh gpt2";

sq_status sq_bpe_open(const char *dir, sq_bpe **b)
{
  static const char *const sub[] = {"gpt2", "", NULL};
  static const char *const name[2][2] = {{"vocab.json", "encoder.json"}, {"merges.txt", "vocab.bpe"}};
  char found[SQ_PATH_MAX], path[2][SQ_PATH_MAX];
  sq_status st;

  *b = NULL;
  for (int k = 0; k < 2; ++k) {
    int have = 0;
    for (int i = 0; sub[i] != NULL && !have; ++i) {
      SQ_TRY(sq_path_join(found, dir, sub[i]));
      for (int j = 0; j < 2 && !have; ++j) {
        SQ_TRY(sq_path_join(path[k], found, name[k][j]));
        have = access(path[k], F_OK) == 0;
      }
    }
    if (!have)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "tokenizer: neither %s nor %s in %s/gpt2 or %s; expected %s", name[k][0],
                     name[k][1], dir, dir, expected));
  }
  SQ_TRY(sq_bpe_load(path[0], path[1], b));
done:
  return st;
}

sq_status sq_tokenize_file(const char *dir, const char *path, FILE *out)
{
  sq_bpe *b = NULL;
  sq_bpe_coder *c = NULL;
  sq_ids ids = {0};
  char *text = NULL;
  size_t n = 0;
  sq_status st;

  SQ_TRY(sq_bpe_open(dir, &b));
  text = sq_data_read(path, "UTF-8 text", &n, &st);
  SQ_TRY(st);
  SQ_TRY(sq_bpe_coder_create(b, &c));
  SQ_TRY(sq_bpe_encode(c, path, text, n, &ids));
  for (size_t i = 0; i < ids.n; ++i)
    if (fprintf(out, "%d\n", ids.v[i]) < 0) break;
  if (fflush(out) != 0 || ferror(out))
    st = sq_fail(SQ_ERR_IO, "%s: token ids cannot be written: %s", path, strerror(errno));
done:
  free(text);
  sq_ids_clear(&ids);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
  return st;
}
