/* tests/test_task_wikitext.c: blocks and labels, both recipes, the token cache, wrong files. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "task_fixture.h"

#include "../src/task/bpe.h"

static char cache[80];

static sq_task *open_wikitext(const char *more)
{
  char json[512];
  snprintf(json, sizeof json, "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\"}%s}", dir, more);
  return open_task(json);
}

static void refused(const char *message)
{
  char json[512];
  snprintf(json, sizeof json, "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\"}}", dir);
  assert_data_refused(json, message);
}

static void ids_of(const char *text, size_t n, sq_ids *ids)
{
  sq_bpe *b = NULL;
  sq_bpe_coder *c = NULL;
  assert_int_equal(sq_bpe_open(dir, &b), SQ_OK);
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  assert_int_equal(sq_bpe_encode(c, "text", text, n, ids), SQ_OK);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

static void assert_blocks(const sq_task *t, sq_split s, const sq_ids *ids, int published)
{
  const sq_task_ops *ops = sq_task_find("wikitext");
  const size_t L = 16, n = ids->n / L;
  int32_t token[16], label[16];
  assert_int_equal(sq_task_describe(t)->size[s], n);
  for (size_t i = 0; i < n; ++i) {
    assert_int_equal(ops->length(t, s, i), L);
    ops->example(t, s, i, token, label);
    for (size_t k = 0; k < L; ++k) {
      const size_t at = i * L + k;
      assert_int_equal(token[k], ids->v[at]);
      const int none = k + 1 == L && (published || at + 1 == ids->n);
      assert_int_equal(label[k], none ? SQ_IGNORE : ids->v[at + 1]);
    }
  }
}

static void a_split_is_one_string_cut_into_blocks(void **state)
{
  static const char *const name[] = {"wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"};
  sq_task *t = open_wikitext("");
  (void)state;
  assert_int_equal(sq_task_describe(t)->max_labels, 16);
  assert_string_equal(sq_task_describe(t)->metric, "perplexity");
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    sq_ids ids = {0};
    sq_status st;
    size_t n;
    char *text = sq_read_file(path_in(dir, name[s]), &n, &st);
    ids_of(text, n, &ids);
    assert_blocks(t, (sq_split)s, &ids, 0);
    sq_ids_clear(&ids);
    free(text);
  }
  assert_int_equal(sq_task_check_disjoint(t), SQ_OK);
  sq_task_close(&t);
}

static void published_tokens_come_line_by_line_and_lose_remainders(void **state)
{
  sq_task *t = open_wikitext(",\"train\":{\"recipe\":\"published\"}");
  sq_ids all = {0};
  sq_status st;
  size_t n, line = 0, first = 0, lost = 0;
  (void)state;
  char *text = sq_read_file(path_in(dir, "wiki.train.raw"), &n, &st), *p = text;
  while (p < text + n) {
    char *end = strchr(p, '\n') + 1;
    if (strspn(p, " \n") < (size_t)(end - p)) ids_of(p, (size_t)(end - p), &all);
    p = end;
    if (++line % 1000 == 0 || line == 2500) {
      lost += (all.n - first) % 16;
      all.n -= (all.n - first) % 16;
      first = all.n;
    }
  }
  assert_int_equal(line, 2500);
  assert_true(lost > 0);
  assert_int_equal(sq_task_describe(t)->max_labels, 15);
  assert_blocks(t, SQ_TRAIN, &all, 1);
  sq_ids_clear(&all);
  free(text);
  sq_task_close(&t);
}

/* ---- cache ------------------------------------------------------------------------------------------- */

static int cached(char name[512])
{
  FILE *f;
  char line[256];
  int n = 0;
  snprintf(line, sizeof line, "ls -A %s 2>/dev/null", cache);
  f = popen(line, "r");
  while (fgets(line, sizeof line, f) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (strstr(line, "XXXX") != NULL || line[0] == '.') fail_msg("%s was left", line);
    snprintf(name, 512, "%s/%s", cache, line);
    ++n;
  }
  pclose(f);
  return n;
}

static uint64_t hash_of_all(const sq_task *t)
{
  const sq_task_ops *ops = sq_task_find("wikitext");
  uint64_t h = SQ_HASH_START;
  int32_t token[16], label[16];
  for (int s = 0; s < SQ_NSPLIT; ++s)
    for (size_t i = 0; i < sq_task_describe(t)->size[s]; ++i) {
      ops->example(t, (sq_split)s, i, token, label);
      h = sq_hash(sq_hash(h, token, sizeof token), label, sizeof label);
    }
  return h;
}

static uint64_t hash_once(void)
{
  sq_task *t = open_wikitext("");
  const uint64_t h = hash_of_all(t);
  sq_task_close(&t);
  return h;
}

static void tokens_are_kept_and_a_damaged_cache_is_made_again(void **state)
{
  char name[512];
  size_t n;
  sq_status st;
  (void)state;
  setenv("SEQSPECTRA_CACHE", "", 1);
  const uint64_t want = hash_once();
  setenv("SEQSPECTRA_CACHE", cache, 1);
  assert_int_equal(cached(name), 0);
  assert_true(hash_once() == want);
  assert_int_equal(cached(name), 3);
  assert_true(hash_once() == want);
  assert_int_equal(cached(name), 3);
  char *good = sq_read_file(name, &n, &st);
  for (int how = 0; how < 5; ++how) {
    size_t size;
    char *bad = malloc(n + 2);
    memcpy(bad, good, n);
    if (how == 0) bad[n / 2] ^= 1; /* a token */
    if (how == 1) bad[0] ^= 1;     /* the magic */
    if (how == 2) bad[9] ^= 1;     /* the key */
    if (how == 3) bad[22] ^= 0x40; /* the count */
    memcpy(bad + n, "xy", 2);
    write_text(name, bad, how == 4 ? n - 3 : how == 1 ? n + 2 : n);
    assert_true(hash_once() == want);
    char *again = sq_read_file(name, &size, &st);
    assert_int_equal(size, n);
    assert_memory_equal(again, good, n);
    free(again);
    free(bad);
  }
  free(good);
}

static void another_text_has_another_cache(void **state)
{
  char name[512];
  (void)state;
  setenv("SEQSPECTRA_CACHE", cache, 1);
  const uint64_t before = hash_once();
  assert_int_equal(cached(name), 3);
  write_wiki(path_in(dir, "wiki.test.raw"), 50, 99);
  assert_true(hash_once() != before);
  assert_int_equal(cached(name), 4);
  sq_task *t = open_wikitext(",\"train\":{\"recipe\":\"published\"}");
  sq_task_close(&t);
  assert_int_equal(cached(name), 7);
  write_wiki(path_in(dir, "wiki.test.raw"), 50, 3);
  assert_true(hash_once() == before);
}

static void many_processes_may_make_the_cache_at_once(void **state)
{
  enum { N = 8 };
  char name[512];
  pid_t pid[N];
  (void)state;
  remove_tree(cache);
  setenv("SEQSPECTRA_CACHE", "", 1);
  const uint64_t want = hash_once();
  setenv("SEQSPECTRA_CACHE", cache, 1);
  for (int i = 0; i < N; ++i)
    if ((pid[i] = fork()) == 0) {
      int ok = 1;
      for (int k = 0; k < 5; ++k) ok = ok && hash_once() == want;
      _exit(ok ? 0 : 1);
    }
  for (int i = 0; i < N; ++i) {
    int status;
    assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  assert_int_equal(cached(name), 3);
}

/* A limit on the size of files stands for the full disk: write() fails half way. */
static void a_full_disk_only_costs_the_cache(void **state)
{
  char name[512];
  struct rlimit kept, small;
  (void)state;
  remove_tree(cache);
  setenv("SEQSPECTRA_CACHE", cache, 1);
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &kept);
    small = kept;
    small.rlim_cur = 1000;
    setrlimit(RLIMIT_FSIZE, &small);
    sq_task *t = open_wikitext("");
    _exit(t != NULL && sq_task_describe(t)->size[SQ_TRAIN] > 1000 ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(cached(name), 0);
  setenv("SEQSPECTRA_CACHE", "/proc/nowhere/cache", 1); /* cannot be made, not even by root */
  assert_true(hash_once() != 0);
  setenv("SEQSPECTRA_CACHE", "", 1);
}

/* ---- wrong files ------------------------------------------------------------------------------------- */

static void wrong_files_are_named(void **state)
{
  const char *test = path_in(dir, "wiki.test.raw");
  char json[512], kept[512];
  (void)state;
  snprintf(kept, sizeof kept, "%s", test);
  write_text(kept, " a b \n \n c\r\n", 11);
  refused("wiki.test.raw:3: line ends in CR LF; expected LF");
  write_text(kept, " a b \n \xff", 8);
  refused("wiki.test.raw: byte 7: 0xff is not UTF-8 here; expected UTF-8 text");
  snprintf(json, sizeof json,
           "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\"},\"train\":{\"recipe\":\"published\"}}", dir);
  assert_data_refused(json, "wiki.test.raw:2: byte 1: 0xff is not UTF-8 here");
  write_text(kept, " a b \n", 6);
  refused("wiki.test.raw: 6 tokens; expected at least one block of 16");
  write_text(kept, "", 0);
  refused("wiki.test.raw: empty file; expected UTF-8 text");
  unlink(kept);
  refused("wiki.test.raw: cannot be opened: No such file");
  assert_int_equal(mkdir(kept, 0700), 0);
  refused("wiki.test.raw: a folder; expected UTF-8 text");
  assert_int_equal(rmdir(kept), 0);
  write_wiki(kept, 50, 3);
  snprintf(json, sizeof json, "{\"dataset\":{\"_name_\":\"wikitext\",\"block_size\":16,\"data_dir\":\"%s\"}}",
           dir);
  assert_data_refused(json, "the tokenizer there has 258 tokens; expected 50257 (dataset.vocab_size)");
  assert_data_refused("{\"dataset\":{\"_name_\":\"wikitext\",\"data_dir\":\"/nowhere\"}}",
                      "task wikitext: no wiki.train.raw in /nowhere/wikitext, /nowhere/wikitext-103-raw, "
                      "/nowhere/wikitext-103, /nowhere; expected");
}

/* ---- the official files ------------------------------------------------------------------------------ */

static void known_figures_of_the_real_files_come_out(void **state)
{
  (void)state;
  need_shared("wikitext/wiki.valid.raw");
  char *text = check_text("wikitext", SHARED);
  /* bytes, lines, words, words + lines, <unk>, tokens */
  assert_line(text, "wiki.valid.raw", "1146846 3760 213886 217646 0 249887");
  assert_line(text, "wiki.test.raw", "1290590 4358 241211 245569 0 286221");
  assert_line(text, "wiki.train.raw", "1002133 3279 186803 190082 0 219847");
  assert_line(text, "wiki.train.tokens", "2882983 9742 541783 551525 2754 635342");
  assert_non_null(strstr(text, "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"));
  free(text);
}

/* By line, empty lines dropped, the validation split has 247,289 tokens and the test split 283,287: the sizes
   that GPT-2 tokens of WikiText are known by.  Blocks of 2 lose at most one token in 1000 lines. */
static void tokens_by_line_are_those_of_the_published_data(void **state)
{
  (void)state;
  need_shared("wikitext/wiki.valid.raw");
  sq_task *t = open_task("{\"dataset\":{\"_name_\":\"wikitext\",\"block_size\":2,\"data_dir\":\"" SHARED
                         "\"},\"train\":{\"recipe\":\"published\"}}");
  const size_t *size = sq_task_describe(t)->size;
  assert_in_range(247289 - 2 * size[SQ_VALID], 0, 4);
  assert_in_range(283287 - 2 * size[SQ_TEST], 0, 5);
  sq_task_close(&t);
}

static int set_up(void **state)
{
  (void)state;
  make_folder(dir);
  snprintf(cache, sizeof cache, "%s/sub/cache", dir);
  setenv("SEQSPECTRA_CACHE", "", 1);
  make_wikitext(dir);
  return 0;
}

int main(void)
{
  const struct CMUnitTest test[] = {
      cmocka_unit_test(a_split_is_one_string_cut_into_blocks),
      cmocka_unit_test(published_tokens_come_line_by_line_and_lose_remainders),
      cmocka_unit_test(tokens_are_kept_and_a_damaged_cache_is_made_again),
      cmocka_unit_test(another_text_has_another_cache),
      cmocka_unit_test(many_processes_may_make_the_cache_at_once),
      cmocka_unit_test(a_full_disk_only_costs_the_cache),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(known_figures_of_the_real_files_come_out),
      cmocka_unit_test(tokens_by_line_are_those_of_the_published_data),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
