/* tests/bench/bench_tokenize.c: rate of the tokenizer on one core.
 *
 *   bench-tokenize DATA_DIR FILE [REPEATS]
 *
 * Every repeat is a new coder, whose table of words is empty; CPU time of this process. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../src/task/bpe.h"
#include "sq/base.h"

static double cpu_s(void)
{
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
  sq_bpe *b = NULL;
  sq_ids ids = {0};
  size_t n = 0;
  sq_status st = SQ_OK;
  if (argc < 3) return 2;
  const double start = cpu_s();
  if (sq_bpe_open(argv[1], &b) != SQ_OK) goto failed;
  printf("load_s %.3f\n", cpu_s() - start);
  char *text = sq_read_file(argv[2], &n, &st);
  if (text == NULL) goto failed;
  for (int k = 0, m = argc > 3 ? atoi(argv[3]) : 5; k < m; ++k) {
    sq_bpe_coder *c = NULL;
    const double t = cpu_s();
    ids.n = 0;
    if (sq_bpe_coder_create(b, &c) != SQ_OK || sq_bpe_encode(c, argv[2], text, n, &ids) != SQ_OK) goto failed;
    const double s = cpu_s() - t;
    printf("tokens %zu  cpu_s %.6f  MB_per_s %.1f\n", ids.n, s, 1e-6 * (double)n / s);
    sq_bpe_coder_destroy(&c);
  }
  return 0;
failed:
  fprintf(stderr, "%s\n", sq_error_text());
  return 1;
}
