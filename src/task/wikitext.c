/* src/task/wikitext.c: WikiText as GPT-2 tokens.  Merity et al. 2016, arXiv:1609.07843.
 *
 * A split is cut into blocks of block_size tokens; the label of a position is the next token.
 *   recipe corrected: the split is one string; behind the last position comes the next block's first token.
 *   recipe published: every line is tokenised by itself, an empty one to nothing; of every 1000 lines the
 *   tokens that do not fill a block are dropped; the last position of a block has no label. */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "sha256.h"
#include "sq/base.h"
#include "wikitext_impl.h"

extern const sq_task_ops sq_task_wikitext;

enum { GPT2_VOCAB = 50257, DEFAULT_BLOCK = 1024 };

typedef struct {
  struct sq_task base;
  sq_task_info info;
  sq_task_block block;
  struct {
    const uint16_t *v;
    size_t n;
  } ids[SQ_NSPLIT]; /* in the block */
  int published;
} wikitext;

static const sq_key wikitext_key[] = {
    {"dataset.block_size", SQ_KEY_INT, "1024", 2, 1 << 20, NULL, "tokens of an example"},
    {"dataset.form", SQ_KEY_STRING, "\"raw\"", 0, 0, "raw|tokens",
     "read wiki.*.raw, or wiki.*.tokens, whose rare words are <unk>"},
    {"dataset.vocab_size", SQ_KEY_INT, "50257", 257, BPE_MAX_VOCAB, NULL, "tokens of the tokenizer"},
    {"dataset.num_train", SQ_KEY_INT, "null", 1, 1e9, NULL, "training blocks at most; else all"},
    {"dataset.num_valid", SQ_KEY_INT, "null", 1, 1e9, NULL, "validation blocks at most; else all"},
    {"dataset.num_test", SQ_KEY_INT, "null", 1, 1e9, NULL, "test blocks at most; else all"},
    {"analysis.batch_size", SQ_KEY_INT, "8", 1, 1 << 20, NULL, "sequences of the test set that are analysed"},
};
static const char *const size_key[SQ_NSPLIT] = {"dataset.num_train", "dataset.num_valid", "dataset.num_test"};
static const sq_keyset wikitext_keys = {"dataset._name_=wikitext", wikitext_key,
                                        sizeof wikitext_key / sizeof *wikitext_key, NULL};

static const char about[] =
    "WikiText-103 as GPT-2 tokens: predict the next token; perplexity.\n"
    "files    wikitext/wiki.{train,valid,test}.raw (or .tokens), UTF-8, one paragraph a line;\n"
    "         gpt2/vocab.json and gpt2/merges.txt (or encoder.json and vocab.bpe)\n"
    "source   jobs/fetch-data.sh wikitext gpt2\n";
static const char layout[] =
    "wiki.{train,valid,test}.raw as in WikiText-103-raw (UTF-8, one paragraph a line); get them with: "
    "jobs/fetch-data.sh wikitext";
static const char *const folder[] = {"wikitext", "wikitext-103-raw", "wikitext-103", "", NULL};

static const char *file_name(const char *form, int split, char out[32])
{
  sq_format(out, 32, "wiki.%s.%s", (const char *const[]){"train", "valid", "test"}[split], form);
  return out;
}

/* ---- the task ---------------------------------------------------------------------------------------- */

static int wikitext_length(const sq_task *t, sq_split split, size_t i)
{
  (void)split;
  (void)i;
  return ((const wikitext *)t)->info.seq_len;
}

static void wikitext_example(const sq_task *task, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const wikitext *t = (const wikitext *)task;
  const size_t L = (size_t)t->info.seq_len, first = i * L;
  const uint16_t *id = t->ids[split].v + first;
  for (size_t k = 0; k < L; ++k) token[k] = id[k];
  for (size_t k = 0; k + 1 < L; ++k) label[k] = id[k + 1];
  label[L - 1] = t->published || first + L >= t->ids[split].n ? SQ_IGNORE : id[L];
}

static const sq_task_info *wikitext_info(const sq_task *t)
{
  return &((const wikitext *)t)->info;
}

static void wikitext_close(sq_task *t)
{
  if (t != NULL) sq_task_block_free(&((wikitext *)t)->block);
  free(t);
}

static int is_published(const sq_config *c)
{
  return sq_config_has(c, "train.recipe") && strcmp(sq_config_string(c, "train.recipe"), "published") == 0;
}

/* Sizes: the official files at 1024 tokens a block.  As one string they have 119,192,782, 249,887 and 286,221
   tokens; by line 117,920,140, 247,289 and 283,287, of which half a block in 1000 lines is dropped. */
static sq_status wikitext_shape(const sq_config *c, sq_task_info *info)
{
  static const size_t one_string[SQ_NSPLIT] = {119192782, 249887, 286221};
  static const size_t by_line[SQ_NSPLIT] = {117920140, 247289, 283287}, batches[SQ_NSPLIT] = {1802, 4, 5};
  const int published = is_published(c), L = sq_config_int(c, "dataset.block_size");
  const int V = sq_config_int(c, "dataset.vocab_size");
  *info = (sq_task_info){.seq_len = L,
                         .vocab_size = V,
                         .nclass = V,
                         .label_per_row = 1,
                         .max_labels = published ? L - 1 : L,
                         .open_size = 1,
                         .metric = "perplexity"};
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    const size_t have = published ? by_line[s] / (size_t)L : one_string[s] / (size_t)L;
    const size_t lost = published ? batches[s] / 2 : 0;
    const size_t all = have > lost + 1 ? have - lost : 1;
    const size_t most = sq_config_has(c, size_key[s]) ? (size_t)sq_config_int(c, size_key[s]) : all;
    info->size[s] = most;
    info->shared_bytes += (published ? by_line : one_string)[s] * sizeof(uint16_t);
  }
  return SQ_OK;
}

/* Blocks of a split that are used, at most those there are. */
static size_t used_of(const sq_config *c, int s, size_t have)
{
  const size_t most = sq_config_has(c, size_key[s]) ? (size_t)sq_config_int(c, size_key[s]) : have;
  return most < have ? most : have;
}

static sq_status check_size(const sq_config *c, int s, size_t tokens, const char *path)
{
  const int L = sq_config_int(c, "dataset.block_size");
  const size_t have = tokens / (size_t)L;
  if (have == 0)
    return sq_fail(SQ_ERR_DATA, "%s: %zu tokens; expected at least one block of %d (dataset.block_size)",
                   path, tokens, L);
  if (sq_config_has(c, size_key[s]) && (size_t)sq_config_int(c, size_key[s]) > have)
    sq_note("%s has %zu blocks (%s is %d)", path, have, size_key[s], sq_config_int(c, size_key[s]));
  return SQ_OK;
}

static sq_status find_files(const sq_config *c, char path[SQ_NSPLIT][SQ_PATH_MAX], sq_bpe **b)
{
  const char *dir = sq_data_dir(c), *form = sq_config_string(c, "dataset.form");
  const int vocab = sq_config_int(c, "dataset.vocab_size");
  char found[SQ_PATH_MAX], name[32];
  sq_status st;
  SQ_TRY(sq_data_find("wikitext", dir, folder, file_name(form, SQ_TRAIN, name), layout, found));
  SQ_TRY(sq_bpe_open(dir, b));
  if (sq_bpe_vocab_size(*b) != vocab)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: the tokenizer there has %d tokens; expected %d (dataset.vocab_size)",
                   dir, sq_bpe_vocab_size(*b), vocab));
  for (int s = 0; s < SQ_NSPLIT; ++s) SQ_TRY(sq_path_join(path[s], found, file_name(form, s, name)));
done:
  return st;
}

/* A section of the block: the tokens of a split. */
static sq_status wikitext_load(const sq_config *c, const sq_readers *r, sq_task_block *block)
{
  char path[SQ_NSPLIT][SQ_PATH_MAX];
  wikitext_reading w = {.r = r, .map_block = is_published(c) ? sq_config_int(c, "dataset.block_size") : 0};
  sq_status st;
  SQ_TRY(r->agree(r->user, find_files(c, path, &w.bpe)));
  SQ_TRY(sq_wikitext_tokenise(&w, path));
  if (w.no_room) goto done;
  for (int s = 0; s < SQ_NSPLIT; ++s) SQ_TRY(check_size(c, s, sq_wikitext_tokens(&w, s), path[s]));
  SQ_TRY(sq_wikitext_gather(&w, block));
done:
  sq_wikitext_clear(&w);
  return st;
}

static sq_status wikitext_open_block(const sq_config *c, sq_task_block *b, sq_task **out)
{
  wikitext *t = sq_calloc(1, sizeof *t, "task wikitext");
  if (t == NULL) return SQ_ERR_MEMORY;
  t->base.ops = &sq_task_wikitext;
  t->published = is_published(c);
  (void)wikitext_shape(c, &t->info);
  t->block = *b;
  *b = (sq_task_block){0};
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    size_t bytes;
    t->ids[s].v = sq_block_section(&t->block, s, &bytes);
    t->ids[s].n = bytes / sizeof *t->ids[s].v;
    t->info.size[s] = used_of(c, s, t->ids[s].n / (size_t)t->info.seq_len);
  }
  *out = &t->base;
  return SQ_OK;
}

/* ---- check ------------------------------------------------------------------------------------------- */

static size_t count_words(const char *text, size_t n, const char *only)
{
  size_t words = 0, len = only != NULL ? strlen(only) : 0;
  for (size_t i = 0; i < n;) {
    size_t k = i;
    while (k < n && text[k] != ' ' && text[k] != '\n') ++k;
    words += k > i && (only == NULL || (k - i == len && memcmp(text + i, only, len) == 0));
    i = k + 1;
  }
  return words;
}

static size_t count_distinct(const sq_ids *ids)
{
  unsigned char seen[BPE_MAX_VOCAB] = {0};
  size_t n = 0;
  for (size_t i = 0; i < ids->n; ++i) {
    n += !seen[ids->v[i]];
    seen[ids->v[i]] = 1;
  }
  return n;
}

static sq_status check_file(const sq_bpe *b, const char *dir, const char *name, FILE *out)
{
  char path[SQ_PATH_MAX], hex[65];
  char *text = NULL;
  size_t n = 0, lines = 0;
  sq_ids whole = {0}, by_line = {0};
  sq_status st;
  SQ_TRY(sq_path_join(path, dir, name));
  SQ_TRY(sq_wikitext_read(path, &text, &n));
  SQ_TRY(sq_wikitext_encode(b, path, text, n, 0, &whole));
  SQ_TRY(sq_wikitext_encode(b, path, text, n, DEFAULT_BLOCK, &by_line));
  for (size_t i = 0; i < n; ++i) lines += text[i] == '\n';
  const size_t words = count_words(text, n, NULL);
  sq_sha256_of(text, n, hex);
  fprintf(out, "%-17s %10zu %8zu %10zu %10zu %7zu %10zu %8zu %7zu %7zu  %s\n", name, n, lines, words,
          words + lines, count_words(text, n, "<unk>"), whole.n, count_distinct(&whole),
          whole.n / DEFAULT_BLOCK, by_line.n / DEFAULT_BLOCK, hex);
done:
  free(text);
  sq_ids_clear(&whole);
  sq_ids_clear(&by_line);
  return st;
}

static sq_status wikitext_check(const char *dir, FILE *out)
{
  char found[SQ_PATH_MAX], path[SQ_PATH_MAX], name[32];
  sq_bpe *b = NULL;
  sq_status st;
  SQ_TRY(sq_bpe_open(dir, &b));
  SQ_TRY(sq_data_find("wikitext", dir, folder, "wiki.valid.raw", layout, found));
  fprintf(out, "%s, tokenizer with %d tokens\n\n%-17s %10s %8s %10s %10s %7s %10s %8s %7s %7s  %s\n", found,
          sq_bpe_vocab_size(b), "file", "bytes", "lines", "words", "+ lines", "<unk>", "tokens", "distinct",
          "blocks", "by line", "SHA-256");
  for (int s = 0; s < SQ_NSPLIT; ++s) SQ_TRY(check_file(b, found, file_name("raw", s, name), out));
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    SQ_TRY(sq_path_join(path, found, file_name("tokens", s, name)));
    if (sq_file_exists(path)) SQ_TRY(check_file(b, found, name, out));
  }
  fprintf(out, "tokens: the file as one string; blocks of %d: of one string, and by line as published\n",
          DEFAULT_BLOCK);
done:
  sq_bpe_destroy(&b);
  return st;
}

const sq_task_ops sq_task_wikitext = {.name = "wikitext",
                                      .keys = &wikitext_keys,
                                      .load_together = wikitext_load,
                                      .open_block = wikitext_open_block,
                                      .close = wikitext_close,
                                      .info = wikitext_info,
                                      .shape = wikitext_shape,
                                      .length = wikitext_length,
                                      .example = wikitext_example,
                                      .may_repeat = 1,
                                      .about = about,
                                      .check = wikitext_check};
