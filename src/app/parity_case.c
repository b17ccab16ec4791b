/* src/app/parity_case.c: reads a case.  The file is untrusted: every shape and range is checked before use.
 */
#include <cjson/cJSON.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"

enum { KEYSETS = 64 };

/* ---- configuration ---------------------------------------------------------------------------------------
 */
static const char *known_layers(const sq_schema *s)
{
  for (int i = 0; i < s->nset; ++i)
    for (int k = 0; k < s->set[i]->nkey; ++k)
      if (strcmp(s->set[i]->key[k].path, "model.layer") == 0) return s->set[i]->key[k].choices;
  return "";
}

static int among(const char *word, const char *choices)
{
  const size_t n = strlen(word);
  for (const char *c = choices; c != NULL; c = strchr(c, '|'), c = c != NULL ? c + 1 : NULL)
    if (strncmp(c, word, n) == 0 && (c[n] == '|' || c[n] == '\0')) return 1;
  return 0;
}

/* The numbers of a case are those of training without dropout, whatever rate its configuration has. */
static void set_rate_to_zero(cJSON *model, const char *key)
{
  cJSON_DeleteItemFromObjectCaseSensitive(model, key);
  cJSON_AddNumberToObject(model, key, 0);
}

/* {"model": ...} as text, *owned*; NULL without memory. */
static char *model_text(const cJSON *model)
{
  cJSON *cell = cJSON_CreateObject(), *copy = cJSON_Duplicate(model, 1);
  char *text = NULL;

  if (cell != NULL && copy != NULL) {
    set_rate_to_zero(copy, "dropout");
    if (cJSON_HasObjectItem(copy, "att_dropout")) set_rate_to_zero(copy, "att_dropout");
    cJSON_AddItemToObject(cell, "model", copy);
    copy = NULL;
    text = cJSON_PrintUnformatted(cell);
  }
  cJSON_Delete(copy);
  cJSON_Delete(cell);
  return text;
}

/* Only the model's part goes through the program's schema: a case has no data set, no schedule. */
static sq_status read_model(parity_case *p, const cJSON *root)
{
  static const sq_keyset *sets[KEYSETS];
  const int n = sq_model_keysets(sets, KEYSETS);
  const sq_schema schema = {sets, n};
  const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model");
  const char *layer = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "layer"));

  SQ_ASSERT(n <= KEYSETS);
  if (layer == NULL) return sq_fail(SQ_ERR_DATA, "%s: attribute config: no text model.layer", p->path);
  if (!among(layer, known_layers(&schema)))
    return sq_fail(SQ_ERR_USAGE,
                   "%s: model.layer \"%s\": this version does not have that family; expected one of %s",
                   p->path, layer, known_layers(&schema));
  char *text = model_text(model);
  if (text == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the configuration", p->path);
  const sq_status st = sq_experiment_parse(&schema, text, p->path, &p->experiment);
  free(text);
  const sq_mixer_ops *mixer = sq_mixer_find(layer);
  p->jax = mixer != NULL && strcmp(mixer->backbone, "ssm") == 0;
  return st;
}

static sq_status number_of(const parity_case *p, const cJSON *item, const char *what, double *x)
{
  if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
    return sq_fail(SQ_ERR_DATA, "%s: attribute config: %s: expected a number", p->path, what);
  *x = item->valuedouble;
  return SQ_OK;
}

static sq_status read_train(parity_case *p, const cJSON *root)
{
  const cJSON *train = cJSON_GetObjectItemCaseSensitive(root, "train");
  const cJSON *betas = cJSON_GetObjectItemCaseSensitive(train, "betas");
  sq_status st;

  p->optimiser = (sq_adamw){.beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .clip = 1,
                            .rule = SQ_RULE_TORCH,
                            .complex_rule = SQ_COMPLEX_SPLIT};
  SQ_TRY(number_of(p, cJSON_GetObjectItemCaseSensitive(train, "lr"), "train.lr", &p->lr));
  SQ_TRY(number_of(p, cJSON_GetObjectItemCaseSensitive(train, "wd"), "train.wd", &p->optimiser.weight_decay));
  if (betas != NULL) {
    SQ_TRY(number_of(p, cJSON_GetArrayItem(betas, 0), "train.betas", &p->optimiser.beta1));
    SQ_TRY(number_of(p, cJSON_GetArrayItem(betas, 1), "train.betas", &p->optimiser.beta2));
  }
  if (cJSON_HasObjectItem(train, "eps"))
    SQ_TRY(number_of(p, cJSON_GetObjectItemCaseSensitive(train, "eps"), "train.eps", &p->optimiser.eps));
  if (cJSON_HasObjectItem(train, "grad_clip"))
    SQ_TRY(number_of(p, cJSON_GetObjectItemCaseSensitive(train, "grad_clip"), "train.grad_clip",
                     &p->optimiser.clip));
  p->ssm_lr = p->lr;
  if (cJSON_HasObjectItem(train, "ssm_lr"))
    SQ_TRY(number_of(p, cJSON_GetObjectItemCaseSensitive(train, "ssm_lr"), "train.ssm_lr", &p->ssm_lr));
done:
  return st;
}

/* One of two words; -1 if the key is absent. */
static sq_status word_of(const parity_case *p, const cJSON *task, const char *key, const char *no,
                         const char *yes, int *is)
{
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(task, key);
  const char *text = cJSON_GetStringValue(item);

  *is = -1;
  if (item == NULL) return SQ_OK;
  if (text == NULL || (strcmp(text, no) != 0 && strcmp(text, yes) != 0))
    return sq_fail(SQ_ERR_DATA, "%s: attribute config: task.%s: expected \"%s\" or \"%s\"", p->path, key, no,
                   yes);
  *is = strcmp(text, yes) == 0;
  return SQ_OK;
}

static sq_status count_of(const parity_case *p, const cJSON *task, const char *key, int *count)
{
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(task, key);

  *count = -1;
  if (item == NULL) return SQ_OK;
  if (!cJSON_IsNumber(item) || !(item->valuedouble >= 1 && item->valuedouble <= INT_MAX))
    return sq_fail(SQ_ERR_DATA, "%s: attribute config: task.%s: expected a number above 0", p->path, key);
  *count = (int)item->valuedouble;
  return SQ_OK;
}

static sq_status read_task(parity_case *p, const cJSON *root)
{
  const cJSON *task = cJSON_GetObjectItemCaseSensitive(root, "task"),
              *pad = cJSON_GetObjectItemCaseSensitive(task, "pad");
  sq_status st;

  SQ_TRY(word_of(p, task, "kind", "cls", "lm", &p->task.lm));
  SQ_TRY(word_of(p, task, "input", "tokens", "scalar", &p->task.scalar));
  SQ_TRY(count_of(p, task, "T", &p->task.T));
  SQ_TRY(count_of(p, task, "batch", &p->task.batch));
  /* Absent: a case may have lengths all the same. */
  p->task.pad = pad == NULL ? -1 : cJSON_IsTrue(pad);
done:
  return st;
}

static sq_status read_config(parity_case *p)
{
  sq_status st;
  cJSON *root = NULL;

  SQ_TRY(sq_h5_read_text_attribute(p->file, "/", "config", &p->config));
  root = cJSON_Parse(p->config);
  if (!cJSON_IsObject(root)) SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: attribute config: not a JSON object", p->path));
  SQ_TRY(read_model(p, root));
  SQ_TRY(read_train(p, root));
  SQ_TRY(read_task(p, root));
done:
  cJSON_Delete(root);
  return st;
}

/* ---- inputs ----------------------------------------------------------------------------------------------
 */
static sq_status set_shape(parity_case *p, int ndim, const size_t *dim, int want_ndim)
{
  if (ndim != want_ndim || dim[0] < 1 || dim[1] < 1 || dim[0] > INT_MAX / 4 / dim[1] ||
      (ndim == 3 && dim[2] < 1))
    return sq_fail(SQ_ERR_DATA,
                   "%s: /inputs: expected (batch, steps) of tokens or (batch, steps, input_dim) of numbers",
                   p->path);
  p->B = (int)dim[0];
  p->T = (int)dim[1];
  return SQ_OK;
}

/* vocab 0: any number is a token, and one outside the JAX families' one-hot range is a zero row. */
static sq_status read_tokens(parity_case *p, int vocab)
{
  int64_t *token = NULL;
  int ndim;
  size_t dim[8];
  sq_status st;

  SQ_TRY(sq_h5_read_int(p->file, "/inputs", &token, &ndim, dim));
  SQ_TRY(set_shape(p, ndim, dim, 2));
  const size_t n = (size_t)p->B * (size_t)p->T;
  p->token = sq_calloc(n, sizeof *p->token, "inputs");
  SQ_TRY(p->token == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (size_t i = 0; i < n; ++i) {
    if (vocab > 0 && (token[i] < 0 || token[i] >= vocab))
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /inputs: token %lld, expected 0..%d (model.vocab_size)", p->path,
                     (long long)token[i], vocab - 1));
    if (token[i] < INT32_MIN || token[i] > INT32_MAX)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /inputs: token %lld, expected 32 bits", p->path, (long long)token[i]));
    p->token[i] = (int32_t)token[i];
  }
done:
  free(token);
  return st;
}

static sq_status read_values(parity_case *p, int input_dim)
{
  double *value = NULL;
  int ndim;
  size_t dim[8];
  sq_status st;

  SQ_TRY(sq_h5_read(p->file, "/inputs", &value, &ndim, dim));
  SQ_TRY(set_shape(p, ndim, dim, 3));
  if (dim[2] != (size_t)input_dim)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /inputs: %zu numbers a step, expected %d (model.input_dim)", p->path,
                   dim[2], input_dim));
  const size_t n = (size_t)p->B * (size_t)p->T * dim[2];
  p->value = sq_calloc(n, sizeof *p->value, "inputs");
  SQ_TRY(p->value == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (size_t i = 0; i < n; ++i) p->value[i] = (sq_real)value[i];
  p->input_dim = input_dim;
done:
  free(value);
  return st;
}

static sq_status read_labels(parity_case *p)
{
  int64_t *label = NULL;
  int ndim;
  size_t dim[8];
  const int nclass = sq_config_int(sq_experiment_cell(p->experiment, 0), "model.output_dim");
  sq_status st;

  SQ_TRY(sq_h5_read_int(p->file, "/labels", &label, &ndim, dim));
  p->per_row = ndim == 2;
  if (ndim < 1 || ndim > 2 || dim[0] != (size_t)p->B || (ndim == 2 && dim[1] != (size_t)p->T))
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /labels: expected (%d) or (%d, %d)", p->path, p->B, p->B, p->T));
  const size_t n = (size_t)p->B * (p->per_row ? (size_t)p->T : 1);
  p->label = sq_calloc(n, sizeof *p->label, "labels");
  SQ_TRY(p->label == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (size_t i = 0; i < n; ++i) {
    if (label[i] != SQ_IGNORE && (label[i] < 0 || label[i] >= nclass))
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /labels: %lld, expected 0..%d or %d", p->path, (long long)label[i],
                     nclass - 1, SQ_IGNORE));
    p->label[i] = (int32_t)label[i];
  }
done:
  free(label);
  return st;
}

/* Whether the inputs are tokens: what the model takes, and the JAX families either. */
static int takes_tokens(const parity_case *p, const sq_config *c)
{
  if (p->jax) return p->task.scalar != 1;
  return sq_config_bool(c, sq_config_has(c, "model.token_embedding") ? "model.token_embedding"
                                                                     : "model.embedding");
}

static sq_status read_steps(parity_case *p)
{
  const sq_config *c = sq_experiment_cell(p->experiment, 0);

  if (!takes_tokens(p, c)) return read_values(p, sq_config_int(c, "model.input_dim"));
  return read_tokens(p, p->jax ? 0 : sq_config_int(c, "model.vocab_size"));
}

/* The torch families run on the padding as on anything else; attribute used_by_model says so. */
static sq_status read_lengths(parity_case *p)
{
  int64_t *len = NULL;
  int ndim, used;
  size_t dim[8];
  sq_status st;

  SQ_TRY(sq_h5_read_int(p->file, "/lengths", &len, &ndim, dim));
  SQ_TRY(sq_h5_read_int_attribute(p->file, "/lengths", "used_by_model", &used));
  if (ndim != 1 || dim[0] != (size_t)p->B)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /lengths: expected (%d)", p->path, p->B));
  for (int b = 0; b < p->B; ++b)
    if (len[b] < 1 || len[b] > p->T)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /lengths: %lld, expected 1..%d", p->path, (long long)len[b], p->T));
  if (used == 0) goto done;
  p->len = sq_calloc((size_t)p->B, sizeof *p->len, "lengths");
  SQ_TRY(p->len == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (int b = 0; b < p->B; ++b) p->len[b] = (int)len[b];
done:
  free(len);
  return st;
}

/* The configuration's `task` says what the data sets hold. */
static sq_status check_task(const parity_case *p)
{
  const struct parity_task *t = &p->task;
  const int padded = sq_h5_exists(p->file, "/lengths");

  if (t->T > 0 && t->T != p->T)
    return sq_fail(SQ_ERR_DATA, "%s: /inputs: %d steps; task.T of the configuration is %d", p->path, p->T,
                   t->T);
  if (t->batch > 0 && t->batch != p->B)
    return sq_fail(SQ_ERR_DATA, "%s: /inputs: %d sequences; task.batch of the configuration is %d", p->path,
                   p->B, t->batch);
  if (t->lm >= 0 && t->lm != p->per_row)
    return sq_fail(SQ_ERR_DATA, "%s: /labels: one a %s; task.kind of the configuration is \"%s\"", p->path,
                   p->per_row ? "step" : "sequence", t->lm ? "lm" : "cls");
  if (t->scalar >= 0 && t->scalar != (p->token == NULL))
    return sq_fail(SQ_ERR_DATA, "%s: the model takes %s; task.input of the configuration is \"%s\"", p->path,
                   p->token != NULL ? "tokens" : "numbers", t->scalar ? "scalar" : "tokens");
  if (t->pad == 1 && !padded)
    return sq_fail(SQ_ERR_DATA, "%s: no /lengths; task.pad of the configuration is true", p->path);
  return SQ_OK;
}

static sq_status place_sequences(parity_case *p)
{
  p->off = sq_calloc((size_t)p->B + 1, sizeof *p->off, "sequences");
  p->id = sq_calloc((size_t)p->B, sizeof *p->id, "sequences");
  if (p->off == NULL || p->id == NULL) return SQ_ERR_MEMORY;
  for (int b = 0; b < p->B; ++b) {
    p->id[b] = b;
    p->off[b + 1] = (b + 1) * p->T;
  }
  return SQ_OK;
}

/* All sequences have T steps, padding included: batch statistics see it. */
static sq_status read_inputs(parity_case *p)
{
  const sq_config *c = sq_experiment_cell(p->experiment, 0);
  sq_status st;

  SQ_TRY(read_steps(p));
  SQ_TRY(read_labels(p));
  if (sq_h5_exists(p->file, "/lengths")) SQ_TRY(read_lengths(p));
  SQ_TRY(check_task(p));
  SQ_TRY(place_sequences(p));
  p->L = sq_config_has(c, "model.seq_len") ? sq_config_int(c, "model.seq_len") : p->T;
  if (p->L < p->T)
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /inputs: %d steps; model.seq_len of the configuration is %d", p->path,
                   p->T, p->L));
  p->batch =
      (sq_batch){.rows = {.nseq = p->B, .nrow = p->B * p->T, .off = p->off, .id = p->id, .len = p->len},
                 .input_dim = p->input_dim,
                 .token = p->token,
                 .value = p->value,
                 .label_per_row = p->per_row,
                 .label = p->label,
                 .loss_over_rows = p->jax};
  if (sq_batch_labels(&p->batch) == 0) SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /labels: all ignored", p->path));
done:
  return st;
}

/* ---- parameters ------------------------------------------------------------------------------------------
 */
static void shape_text(int ndim, const size_t *dim, char *out, size_t cap)
{
  out[0] = '\0';
  for (int i = 0; i < ndim; ++i) {
    const size_t used = strlen(out);
    sq_format(out + used, cap - used, "%s%zu", i > 0 ? "," : "", dim[i]);
  }
}

/* Running statistics are no parameters: a case holds what they were before the step. */
static const char *group_of(const sq_param *q)
{
  return q->flags & SQ_PARAM_BUFFER ? "batch_stats_before" : "params";
}

static sq_status read_tensor(parity_case *p, const sq_param *q)
{
  char path[SQ_PARAM_NAME + 32], want[80], got[200];
  double *x = NULL;
  int ndim, same;
  size_t dim[8], shape[3] = {(size_t)q->dim[0], (size_t)q->dim[1], (size_t)q->dim[2]};
  sq_status st;

  sq_format(path, sizeof path, "/%s/%s", group_of(q), q->name);
  SQ_TRY(sq_h5_read(p->file, path, &x, &ndim, dim));
  same = ndim == q->ndim;
  for (int i = 0; same && i < ndim; ++i) same = dim[i] == shape[i];
  if (!same) {
    shape_text(q->ndim, shape, want, sizeof want);
    shape_text(ndim, dim, got, sizeof got);
    SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %s: shape (%s), expected (%s)", p->path, path, got, want));
  }
  for (size_t i = 0; i < q->count; ++i) p->theta[q->offset + i] = (sq_real)x[i];
done:
  free(x);
  return st;
}

/* Every data set of the group is a tensor of the model. */
static sq_status check_names(const parity_case *p, const char *group)
{
  char path[64], **name = NULL;
  int n = 0;
  sq_status st;

  sq_format(path, sizeof path, "/%s", group);
  if (!sq_h5_exists(p->file, path)) return SQ_OK;
  SQ_TRY(sq_h5_list(p->file, path, &name, &n));
  for (int i = 0; i < n; ++i) {
    const sq_param *q = sq_param_find(sq_model_params(p->model), name[i]);
    if (q == NULL || strcmp(group_of(q), group) != 0)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: %s/%s: the configured model has no such %s", p->path, path, name[i],
                     strcmp(group, "params") == 0 ? "parameter" : "statistics"));
  }
done:
  for (int i = 0; i < n; ++i) free(name[i]);
  free(name);
  return st;
}

static sq_status read_params(parity_case *p)
{
  const sq_param_list *l = sq_model_params(p->model);
  sq_status st;

  p->theta = sq_calloc(l->total, sizeof *p->theta, "parameters");
  SQ_TRY(p->theta == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (int k = 0; k < l->n; ++k) SQ_TRY(read_tensor(p, &l->v[k]));
  SQ_TRY(check_names(p, "params"));
  SQ_TRY(check_names(p, "batch_stats_before"));
done:
  return st;
}

/* ---- the case --------------------------------------------------------------------------------------------
 */
int sq_parity_is_other(const char *path)
{
  sq_h5 *f = NULL;
  char *config = NULL;
  int other = 0;

  if (sq_h5_open(path, &f) == SQ_OK)
    other = sq_h5_read_text_attribute(f, "/", "config", &config) != SQ_OK && !sq_h5_exists(f, "/inputs") &&
            !sq_h5_exists(f, "/params");
  sq_error_clear(); /* opening the case says what is wrong */
  if (f != NULL) sq_h5_close(&f);
  free(config);
  return other;
}

sq_status sq_parity_open(const char *path, parity_case *p)
{
  sq_status st;

  *p = (parity_case){.path = path};
  SQ_TRY(sq_h5_open(path, &p->file));
  SQ_TRY(read_config(p));
  if (sq_h5_read_text_attribute(p->file, "/", "case", &p->name) != SQ_OK) {
    sq_error_clear(); /* a name is nice to have */
    p->name = NULL;
  }
  SQ_TRY(read_inputs(p));
  const sq_model_dims d = {.seq_len = p->L,
                           .max_rows = p->B * p->T,
                           .max_seqs = p->B,
                           .max_labels = p->B * p->T,
                           .label_per_row = p->per_row,
                           .all_logits = 1};
  SQ_TRY(sq_model_create(sq_experiment_cell(p->experiment, 0), d, &p->model));
  SQ_TRY(read_params(p));
done:
  if (st != SQ_OK) sq_parity_close(p);
  return st;
}

void sq_parity_close(parity_case *p)
{
  for (int i = 0; i < p->nnumber; ++i) {
    free(p->number[i].data);
    free(p->number[i].slack);
    free(p->number[i].imaginary);
    free(p->number[i].spread);
  }
  free(p->number);
  free(p->name);
  free(p->config);
  free(p->off);
  free(p->id);
  free(p->len);
  free(p->token);
  free(p->label);
  free(p->value);
  free(p->theta);
  sq_model_destroy(&p->model);
  sq_experiment_destroy(&p->experiment);
  if (p->file != NULL) sq_h5_close(&p->file);
  *p = (parity_case){0};
}
