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
  cJSON *cell = cJSON_CreateObject();
  cJSON_AddItemReferenceToObject(cell, "model", (cJSON *)(uintptr_t)model);
  char *text = cJSON_PrintUnformatted(cell);
  cJSON_Delete(cell);
  if (text == NULL) return sq_fail(SQ_ERR_MEMORY, "%s: no memory for the configuration", p->path);
  const sq_status st = sq_experiment_parse(&schema, text, p->path, &p->experiment);
  free(text);
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

  p->optimiser = (sq_adamw){.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1};
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
    if (token[i] < 0 || token[i] >= vocab)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /inputs: token %lld, expected 0..%d (model.vocab_size)", p->path,
                     (long long)token[i], vocab - 1));
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

/* All sequences have T steps: the torch families run on the padding too. */
static sq_status read_inputs(parity_case *p)
{
  const sq_config *c = sq_experiment_cell(p->experiment, 0);
  sq_status st;

  SQ_TRY(sq_config_bool(c, "model.embedding") ? read_tokens(p, sq_config_int(c, "model.vocab_size"))
                                              : read_values(p, sq_config_int(c, "model.input_dim")));
  SQ_TRY(read_labels(p));
  p->off = sq_calloc((size_t)p->B + 1, sizeof *p->off, "sequences");
  p->id = sq_calloc((size_t)p->B, sizeof *p->id, "sequences");
  SQ_TRY(p->off == NULL || p->id == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (int b = 0; b < p->B; ++b) {
    p->id[b] = b;
    p->off[b + 1] = (b + 1) * p->T;
  }
  p->batch = (sq_batch){.rows = {p->B, p->B * p->T, p->off, p->id},
                        .input_dim = p->input_dim,
                        .token = p->token,
                        .value = p->value,
                        .label_per_row = p->per_row,
                        .label = p->label};
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

static sq_status read_tensor(parity_case *p, const sq_param *q)
{
  char path[SQ_PARAM_NAME + 16], want[80], got[200];
  double *x = NULL;
  int ndim, same;
  size_t dim[8], shape[3] = {(size_t)q->dim[0], (size_t)q->dim[1], (size_t)q->dim[2]};
  sq_status st;

  sq_format(path, sizeof path, "/params/%s", q->name);
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

static sq_status read_params(parity_case *p)
{
  const sq_param_list *l = sq_model_params(p->model);
  char **name = NULL;
  int n = 0;
  sq_status st;

  p->theta = sq_calloc(l->total, sizeof *p->theta, "parameters");
  SQ_TRY(p->theta == NULL ? SQ_ERR_MEMORY : SQ_OK);
  for (int k = 0; k < l->n; ++k) SQ_TRY(read_tensor(p, &l->v[k]));
  SQ_TRY(sq_h5_list(p->file, "/params", &name, &n));
  for (int i = 0; i < n; ++i)
    if (sq_param_find(l, name[i]) == NULL)
      SQ_TRY(sq_fail(SQ_ERR_DATA, "%s: /params/%s: the configured model has no such parameter", p->path,
                     name[i]));
done:
  for (int i = 0; i < n; ++i) free(name[i]);
  free(name);
  return st;
}

/* ---- the case --------------------------------------------------------------------------------------------
 */
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
  const sq_model_dims d = {.seq_len = p->T,
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
  }
  free(p->number);
  free(p->name);
  free(p->config);
  free(p->off);
  free(p->id);
  free(p->token);
  free(p->label);
  free(p->value);
  free(p->theta);
  sq_model_destroy(&p->model);
  sq_experiment_destroy(&p->experiment);
  if (p->file != NULL) sq_h5_close(&p->file);
  *p = (parity_case){0};
}
