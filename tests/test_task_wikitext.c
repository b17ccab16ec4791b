/* tests/test_task_wikitext.c: blocks and labels, both recipes, the token cache, wrong files. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "task_fixture.h"

#include "../src/task/block.h"
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

/* ---- several readers --------------------------------------------------------------------------------- */

/* Threads in place of a machine's processes. */
enum { MOST_READERS = 17 };

typedef struct {
  pthread_barrier_t all;
  void *memory;
  sq_status st[MOST_READERS];
  const sq_config *config;
  sq_task_block block[MOST_READERS];
  int size, room; /* allocations that succeed */
} crew;

typedef struct {
  crew *c;
  sq_readers r;
  pthread_t thread;
} reader;

static void *crew_allocate(void *user, size_t bytes)
{
  reader *me = user;
  pthread_barrier_wait(&me->c->all);
  if (me->r.rank == 0) me->c->memory = me->c->room-- > 0 ? aligned_alloc(64, (bytes + 64) / 64 * 64) : NULL;
  pthread_barrier_wait(&me->c->all);
  return me->c->memory;
}

static void crew_release(void *user, void *memory)
{
  reader *me = user;
  pthread_barrier_wait(&me->c->all);
  if (me->r.rank == 0) free(memory);
}

static sq_status crew_agree(void *user, sq_status st)
{
  reader *me = user;
  sq_status worst = SQ_OK;
  me->c->st[me->r.rank] = st;
  pthread_barrier_wait(&me->c->all);
  for (int k = me->c->size - 1; k >= 0; --k)
    if (me->c->st[k] != SQ_OK) worst = me->c->st[k];
  pthread_barrier_wait(&me->c->all);
  return worst;
}

static void *read_part(void *user)
{
  reader *me = user;
  me->c->st[me->r.rank] = SQ_OK;
  const sq_status st = sq_task_load_together(me->c->config, &me->r, &me->c->block[me->r.rank]);
  pthread_barrier_wait(&me->c->all);
  me->c->st[me->r.rank] = st;
  return NULL;
}

/* All readers' status, and the block that all have got; the caller frees its data. */
static sq_status load_by(int size, const char *recipe, int room, sq_task_block *block)
{
  static crew c;
  static reader reader_of[MOST_READERS];
  char json[512];
  snprintf(json, sizeof json,
           "{\"dataset\":{" WIKITEXT_KEYS ",\"data_dir\":\"%s\"},\"train\":{\"recipe\":\"%s\"}}", dir,
           recipe);
  sq_experiment *e = NULL;
  assert_int_equal(load_cell(json, &e), SQ_OK);
  c = (crew){.config = sq_experiment_cell(e, 0), .size = size, .room = room};
  assert_int_equal(pthread_barrier_init(&c.all, NULL, (unsigned)size), 0);
  for (int k = 0; k < size; ++k) {
    reader *me = &reader_of[k];
    *me = (reader){.c = &c, .r = {k, size, me, crew_allocate, crew_release, crew_agree}};
    assert_int_equal(pthread_create(&me->thread, NULL, read_part, me), 0);
  }
  for (int k = 0; k < size; ++k) assert_int_equal(pthread_join(reader_of[k].thread, NULL), 0);
  pthread_barrier_destroy(&c.all);
  for (int k = 1; k < size; ++k) {
    assert_int_equal(c.st[k], c.st[0]);
    assert_ptr_equal(c.block[k].data, c.block[0].data);
    assert_int_equal(c.block[k].bytes, c.block[0].bytes);
  }
  *block = c.block[0];
  sq_experiment_destroy(&e);
  return c.st[0];
}

static void assert_same_task(const sq_task_block *a, const sq_task_block *b)
{
  assert_int_equal(a->bytes, b->bytes);
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    size_t n[2];
    const void *x = sq_block_section(a, s, &n[0]), *y = sq_block_section(b, s, &n[1]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(x, y, n[0]);
  }
}

static void any_number_of_readers_makes_the_same_tokens(void **state)
{
  static const char *const recipe[] = {"corrected", "published"};
  (void)state;
  remove_tree(cache);
  for (int k = 0; k < 2; ++k) {
    sq_task_block one, many;
    setenv("SEQSPECTRA_CACHE", "", 1);
    assert_int_equal(load_by(1, recipe[k], 99, &one), SQ_OK);
    for (int size = 2; size <= MOST_READERS; size += size < 5 ? 1 : 6) {
      assert_int_equal(load_by(size, recipe[k], 99, &many), SQ_OK);
      assert_same_task(&one, &many);
      free((void *)(uintptr_t)many.data);
    }
    setenv("SEQSPECTRA_CACHE", cache, 1); /* filled by three readers, then read by five */
    for (int i = 0; i < 2; ++i) {
      char name[512];
      assert_int_equal(load_by(3 + 2 * i, recipe[k], 99, &many), SQ_OK);
      assert_int_equal(cached(name), 3 * (k + 1));
      assert_same_task(&one, &many);
      free((void *)(uintptr_t)many.data);
    }
    free((void *)(uintptr_t)one.data);
  }
  setenv("SEQSPECTRA_CACHE", "", 1);
}

/* Texts of few characters, where every kind of neighbours occurs. */
static void parts_may_be_cut_where_no_word_goes_across(void **state)
{
  static const char *const piece[] = {" ", " ", "\n", "\t",     "a",      "b",     "'s",
                                      "'", "1", ".",  "\u00e9", "\u00a0", "\u2003"};
  unsigned x = 1;
  size_t ncut = 0;
  sq_bpe *b = NULL;
  sq_bpe_coder *c = NULL;
  sq_ids whole = {0}, parts = {0};
  (void)state;
  assert_int_equal(sq_bpe_open(dir, &b), SQ_OK);
  assert_int_equal(sq_bpe_coder_create(b, &c), SQ_OK);
  for (int trial = 0; trial < 3000; ++trial) {
    char text[128] = "";
    size_t n = 0, from = 0;
    for (int i = 0; i < 20; ++i) {
      x = x * 1664525u + 1013904223u;
      n += (size_t)snprintf(text + n, sizeof text - n, "%s",
                            piece[(x >> 16) % (sizeof piece / sizeof *piece)]);
    }
    whole.n = parts.n = 0;
    assert_int_equal(sq_bpe_encode(c, "whole", text, n, &whole), SQ_OK);
    for (size_t at = 1; at <= n; ++at) {
      if (!sq_bpe_may_cut(text, n, at)) continue;
      assert_int_equal(sq_bpe_encode_part(c, "part", text, n, from, at, &parts), SQ_OK);
      from = at;
      ++ncut;
    }
    assert_int_equal(parts.n, whole.n);
    assert_memory_equal(parts.v, whole.v, whole.n * sizeof *whole.v);
  }
  assert_true(ncut > 9000);
  sq_ids_clear(&whole);
  sq_ids_clear(&parts);
  sq_bpe_coder_destroy(&c);
  sq_bpe_destroy(&b);
}

/* Whoever meets it, the place is counted from the beginning of the file, and no reader waits for one that has left. */
static void an_error_has_one_text_whoever_finds_it(void **state)
{
  char kept[512], text[4096];
  sq_task_block b;
  (void)state;
  snprintf(kept, sizeof kept, "%s", path_in(dir, "wiki.test.raw"));
  for (int size = 1; size <= 5; ++size) {
    for (int i = 0; i < 400; ++i) memcpy(text + 5 * i, " ab \n", 5);
    text[1501] = '\xff';
    write_text(kept, text, 2000);
    assert_int_equal(load_by(size, "corrected", 99, &b), SQ_ERR_DATA);
    assert_non_null(strstr(sq_error_text(), "wiki.test.raw: byte 1501: 0xff is not UTF-8 here"));
    sq_error_clear();
    assert_int_equal(load_by(size, "published", 99, &b), SQ_ERR_DATA);
    assert_non_null(strstr(sq_error_text(), "wiki.test.raw:301: byte 1: 0xff is not UTF-8 here"));
    sq_error_clear();
    text[1501] = '\r';
    text[1502] = '\n';
    write_text(kept, text, 2000);
    assert_int_equal(load_by(size, "corrected", 99, &b), SQ_ERR_DATA);
    assert_non_null(strstr(sq_error_text(), "wiki.test.raw:301: line ends in CR LF"));
    sq_error_clear();
    unlink(kept);
    assert_int_equal(load_by(size, "corrected", 99, &b), SQ_ERR_DATA);
    assert_non_null(strstr(sq_error_text(), "wiki.test.raw: cannot be opened"));
    sq_error_clear();
  }
  write_wiki(kept, 50, 3);
}

/* The table, three texts, the block: whichever fails, all are left with nothing, and nothing is lost. */
static void without_shared_memory_the_block_stays_empty(void **state)
{
  sq_task_block b;
  (void)state;
  for (int room = 0; room < 5; ++room) {
    assert_int_equal(load_by(3, "corrected", room, &b), SQ_OK);
    assert_null(b.data);
  }
  assert_int_equal(load_by(3, "corrected", 5, &b), SQ_OK);
  assert_non_null(b.data);
  free((void *)(uintptr_t)b.data);
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
      cmocka_unit_test(any_number_of_readers_makes_the_same_tokens),
      cmocka_unit_test(parts_may_be_cut_where_no_word_goes_across),
      cmocka_unit_test(an_error_has_one_text_whoever_finds_it),
      cmocka_unit_test(without_shared_memory_the_block_stays_empty),
      cmocka_unit_test(wrong_files_are_named),
      cmocka_unit_test(known_figures_of_the_real_files_come_out),
      cmocka_unit_test(tokens_by_line_are_those_of_the_published_data),
  };
  return cmocka_run_group_tests(test, set_up, remove_dir);
}
