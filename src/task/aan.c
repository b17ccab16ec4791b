/* src/task/aan.c: pairs of papers of the ACL Anthology Network, byte by byte: does one cite the other?  Radev et al.
 * 2013; Tay et al. 2021, arXiv:2011.04006 (document retrieval).
 *
 * A row is label, two ids and two texts, with tabs between.  A sequence is the first max_tokens bytes of a text, byte c
 * as token c + 1; a text without bytes is one <pad> (0). */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "files.h"
#include "sha256.h"
#include "sq/base.h"
#include "task_impl.h"

extern const sq_task_ops sq_task_aan;

enum { NCOLUMN = 5, VOCAB = 257, MAX_BYTES = 4000 };

/* One file.  Texts 2i and 2i+1 are those of pair i. */
typedef struct {
  uint8_t *text; /* (off[2n]) cut */
  uint64_t *off; /* (2n+1) */
  uint8_t *label;
  size_t n, cap;
  /* before the cut */
  size_t ncut, nempty, longest, total;
} pairs;

typedef struct {
  struct sq_task base;
  sq_task_info info;
  sq_task_block block;
  struct {
    const uint8_t *text, *label;
    const uint64_t *off;
  } split[SQ_NSPLIT];
} aan;

static const sq_key aan_key[] = {
    {"dataset.max_tokens", SQ_KEY_INT, "4000", 1, 1 << 20, NULL, "longer texts are cut"},
    {"dataset.num_train", SQ_KEY_INT, "147086", 1, 1e9, NULL, "training pairs at most"},
    {"dataset.num_valid", SQ_KEY_INT, "18090", 1, 1e9, NULL, "validation pairs at most"},
    {"dataset.num_test", SQ_KEY_INT, "17437", 1, 1e9, NULL, "test pairs at most"},
};
static const char *const size_key[SQ_NSPLIT] = {"dataset.num_train", "dataset.num_valid", "dataset.num_test"};
static const sq_keyset aan_keys = {"dataset._name_=aan", aan_key, sizeof aan_key / sizeof *aan_key, NULL};

static const char about[] =
    "Long Range Arena retrieval (ACL Anthology Network), by byte: is one paper of a pair cited by the other; "
    "accuracy.\n"
    "files    aan/new_aan_pairs.{train,eval,test}.tsv: label, id, id, text, text; no header, no quoting\n"
    "model    dual: true\n"
    "source   jobs/fetch-data.sh aan (part of the Long Range Arena archive)\n";
static const char layout[] =
    "new_aan_pairs.{train,eval,test}.tsv of Long Range Arena (its folder tsv_data); get them with: "
    "jobs/fetch-data.sh aan";
static const char row_layout[] = "rows label<TAB>id1<TAB>id2<TAB>text1<TAB>text2";
static const char *const folder[] = {
    "aan", "tsv_data", "lra_release/tsv_data", "lra_release/lra_release/tsv_data", "", NULL};
static const char *const file[SQ_NSPLIT] = {"new_aan_pairs.train.tsv", "new_aan_pairs.eval.tsv",
                                            "new_aan_pairs.test.tsv"};

/* ---- rows -------------------------------------------------------------------------------------------- */

typedef struct {
  const char *path;
  size_t line, most; /* bytes kept of a text */
  int crlf;          /* lines end in CR LF; -1: not known yet */
} place;

static sq_status reserve(pairs *p, const place *at)
{
  if (p->n + 1 <= p->cap) return SQ_OK;
  const size_t cap = p->cap == 0 ? 4096 : 2 * p->cap;
  uint64_t *off = realloc(p->off, (2 * cap + 1) * sizeof *off);
  if (off != NULL) p->off = off;
  uint8_t *label = off != NULL ? realloc(p->label, cap) : NULL;
  if (label == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for %zu pairs", at->path, cap);
  p->label = label;
  p->cap = cap;
  return SQ_OK;
}

/* "0", "1", "0.0", "1.0": the published code reads a real number. */
static int label_of(const char *s, size_t n)
{
  if ((n != 1 && n != 3) || (*s != '0' && *s != '1')) return -1;
  return n == 1 || memcmp(s + 1, ".0", 2) == 0 ? *s - '0' : -1;
}

/* p->text has room: the texts are parts of the file's bytes, in whose place they are put. */
static void add_text(pairs *p, const place *at, size_t k, const char *s, size_t n)
{
  const size_t kept = n < at->most ? n : at->most;
  if (kept > 0) memmove(p->text + p->off[k], s, kept);
  p->off[k + 1] = p->off[k] + kept;
  p->ncut += kept < n;
  p->nempty += n == 0;
  p->longest = n > p->longest ? n : p->longest;
  p->total += n;
}

static sq_status add_row(pairs *p, const place *at, const char *s, size_t n, int ended)
{
  const char *column[NCOLUMN + 1] = {s}, *end = s + n, *t = s;
  char word[SQ_SHOWN];
  size_t ncolumn = 1;
  for (; (t = memchr(t, '\t', (size_t)(end - t))) != NULL; ++ncolumn)
    if (++t, ncolumn < NCOLUMN) column[ncolumn] = t;
  if (ncolumn != NCOLUMN)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: %zu column%s; expected 5, %s%s", at->path, at->line, ncolumn,
                   ncolumn == 1 ? "" : "s", row_layout,
                   ended ? "" : " (last line without a line end: file cut short?)");
  column[NCOLUMN] = end + 1;
  const size_t nlabel = (size_t)(column[1] - 1 - s);
  const int label = label_of(s, nlabel);
  if (label < 0)
    return sq_fail(SQ_ERR_DATA, "%s:%zu: label \"%s\"; expected 0 or 1", at->path, at->line,
                   sq_text_shown(s, nlabel, word));
  const sq_status st = reserve(p, at);
  if (st != SQ_OK) return st;
  if (p->n == 0) p->off[0] = 0;
  for (int k = 0; k < 2; ++k)
    add_text(p, at, 2 * p->n + (size_t)k, column[3 + k], (size_t)(column[4 + k] - 1 - column[3 + k]));
  p->label[p->n++] = (uint8_t)label;
  return SQ_OK;
}

static void pairs_clear(pairs *p)
{
  free(p->text);
  free(p->off);
  free(p->label);
  *p = (pairs){0};
}

/* The first `most` rows.  sum: SHA-256 of the file, or NULL. */
static sq_status read_pairs(const char *path, size_t most, size_t bytes, pairs *p, char *sum)
{
  place at = {.path = path, .line = 1, .most = bytes, .crlf = -1};
  size_t n = 0;
  sq_status st;
  p->text = (uint8_t *)sq_data_read(path, row_layout, &n, &st);
  SQ_TRY(st);
  if (sum != NULL) sq_sha256_of(p->text, n, sum);
  const char *s = (const char *)p->text, *end = s + n;
  for (; s < end && p->n < most; ++at.line) {
    const char *nl = memchr(s, '\n', (size_t)(end - s)), *next = nl != NULL ? nl + 1 : end;
    size_t len = (size_t)((nl != NULL ? nl : end) - s);
    const int cr = len > 0 && s[len - 1] == '\r';
    if (nl != NULL) SQ_TRY(sq_line_end_check(path, at.line, cr, &at.crlf));
    SQ_TRY(add_row(p, &at, s, len - (size_t)cr, nl != NULL));
    s = next;
  }
done:
  return st;
}

/* ---- the task ---------------------------------------------------------------------------------------- */

static size_t text_of(const aan *t, sq_split split, size_t k, const uint8_t **text)
{
  const uint64_t *off = t->split[split].off + k;
  *text = t->split[split].text + off[0];
  return (size_t)(off[1] - off[0]);
}

static int steps(size_t bytes)
{
  return bytes > 0 ? (int)bytes : 1;
}

static int aan_first_length(const sq_task *task, sq_split split, size_t i)
{
  const uint8_t *text;
  return steps(text_of((const aan *)task, split, 2 * i, &text));
}

static int aan_length(const sq_task *task, sq_split split, size_t i)
{
  const uint8_t *text;
  return aan_first_length(task, split, i) + steps(text_of((const aan *)task, split, 2 * i + 1, &text));
}

static void aan_example(const sq_task *task, sq_split split, size_t i, int32_t *token, int32_t *label)
{
  const aan *t = (const aan *)task;
  for (size_t k = 0; k < 2; ++k) {
    const uint8_t *text;
    const size_t n = text_of(t, split, 2 * i + k, &text);
    for (size_t j = 0; j < n; ++j) token[j] = text[j] + 1;
    if (n == 0) token[0] = 0;
    token += steps(n);
  }
  *label = t->split[split].label[i];
}

static const sq_task_info *aan_info(const sq_task *t)
{
  return &((const aan *)t)->info;
}

static void aan_close(sq_task *task)
{
  aan *t = (aan *)task;
  if (t == NULL) return;
  sq_task_block_free(&t->block);
  free(t);
}

static sq_status aan_shape(const sq_config *c, sq_task_info *info)
{
  *info = (sq_task_info){.seq_len = sq_config_int(c, "dataset.max_tokens"),
                         .vocab_size = VOCAB,
                         .nclass = 2,
                         .dual = 1,
                         .max_labels = 1,
                         .metric = "accuracy"};
  for (int s = 0; s < SQ_NSPLIT; ++s) {
    info->size[s] = (size_t)sq_config_int(c, size_key[s]);
    info->shared_bytes += 2 * info->size[s] * (size_t)info->seq_len;
  }
  return SQ_OK;
}

/* Sections of a block: text, offsets and labels of the three files. */
static sq_status aan_load(const sq_config *c, sq_task_block *b)
{
  char dir[SQ_PATH_MAX], path[SQ_PATH_MAX];
  pairs p[SQ_NSPLIT] = {{0}};
  block_section s[3 * SQ_NSPLIT];
  sq_status st;
  SQ_TRY(sq_data_find("aan", sq_data_dir(c), folder, file[SQ_TRAIN], layout, dir));
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    const size_t most = (size_t)sq_config_int(c, size_key[k]);
    SQ_TRY(sq_path_join(path, dir, file[k]));
    SQ_TRY(read_pairs(path, most, (size_t)sq_config_int(c, "dataset.max_tokens"), &p[k], NULL));
    if (p[k].n < most) sq_note("%s has %zu pairs (%s is %zu)", path, p[k].n, size_key[k], most);
    s[3 * k] = (block_section){p[k].text, p[k].off[2 * p[k].n]};
    s[3 * k + 1] = (block_section){p[k].off, (2 * p[k].n + 1) * sizeof *p[k].off};
    s[3 * k + 2] = (block_section){p[k].label, p[k].n};
  }
  SQ_TRY(sq_block_pack(s, 3 * SQ_NSPLIT, b));
done:
  for (int k = 0; k < SQ_NSPLIT; ++k) pairs_clear(&p[k]);
  return st;
}

static sq_status aan_open_block(const sq_config *c, sq_task_block *b, sq_task **out)
{
  aan *t = sq_calloc(1, sizeof *t, "task aan");
  if (t == NULL) return SQ_ERR_MEMORY;
  t->base.ops = &sq_task_aan;
  t->block = *b;
  *b = (sq_task_block){0};
  (void)aan_shape(c, &t->info);
  for (int k = 0; k < SQ_NSPLIT; ++k) {
    t->split[k].text = sq_block_section(&t->block, 3 * k, NULL);
    t->split[k].off = sq_block_section(&t->block, 3 * k + 1, NULL);
    t->split[k].label = sq_block_section(&t->block, 3 * k + 2, &t->info.size[k]);
  }
  *out = &t->base;
  return SQ_OK;
}

/* ---- check ------------------------------------------------------------------------------------------- */

static sq_status check_file(const char *dir, int k, FILE *out)
{
  char path[SQ_PATH_MAX], sum[65];
  pairs p = {0};
  size_t positive = 0;
  sq_status st;
  SQ_TRY(sq_path_join(path, dir, file[k]));
  SQ_TRY(read_pairs(path, SIZE_MAX, MAX_BYTES, &p, sum));
  for (size_t i = 0; i < p.n; ++i) positive += p.label[i];
  fprintf(out, "%-24s %8zu %8zu %8zu %10.1f %8zu %8zu %8zu  %s\n", file[k], p.n, p.n - positive, positive,
          (double)p.total / (2 * (double)p.n), p.longest, p.ncut, p.nempty, sum);
done:
  pairs_clear(&p);
  return st;
}

static sq_status aan_check(const char *where, FILE *out)
{
  char dir[SQ_PATH_MAX];
  sq_status st;
  SQ_TRY(sq_data_find("aan", where, folder, file[SQ_TRAIN], layout, dir));
  fprintf(out, "%s\n\n%-24s %8s %8s %8s %10s %8s %8s %8s  %s\n", dir, "file", "pairs", "0", "1", "mean bytes",
          "longest", "cut", "empty", "SHA-256");
  for (int k = 0; k < SQ_NSPLIT; ++k) SQ_TRY(check_file(dir, k, out));
  fprintf(out, "cut: texts of more than %d bytes\n", MAX_BYTES);
done:
  return st;
}

const sq_task_ops sq_task_aan = {.name = "aan",
                                 .keys = &aan_keys,
                                 .load = aan_load,
                                 .open_block = aan_open_block,
                                 .close = aan_close,
                                 .info = aan_info,
                                 .shape = aan_shape,
                                 .length = aan_length,
                                 .first_length = aan_first_length,
                                 .example = aan_example,
                                 .may_repeat = 1,
                                 .about = about,
                                 .check = aan_check};
