/* tests/spectra_model.h: small attention models of every kind on MQAR, with a schema of their own. */
#pragma once

#include "spectra_fixture.h"
#include "sq/model.h"
#include "sq/task.h"
#include "sq/train.h"

#define SM(rest)   "\"attention_fn\":\"sm-attention\"," rest
#define LIN(rest)  "\"attention_fn\":\"lin-attention\"," rest
#define NORM(rest) "\"attention_fn\":\"norm-attention\"," rest
#define MLP        "\"mixer\":\"mlp\",\"mixer_dim\":12"
static const char *const model_variant[] = {
    SM("\"num_heads\":2," MLP),
    SM("\"num_heads\":1,\"dim_conv\":4," MLP),
    SM("\"num_heads\":4,\"dim_conv\":4,\"conv_type\":\"partial\",\"mixer\":\"none\""),
    LIN("\"num_heads\":2," MLP),
    LIN("\"num_heads\":1,\"dim_conv\":3,\"conv_type\":\"partial\",\"mixer\":\"glu\""),
    NORM("\"num_heads\":2,\"norm_fn\":\"exp\",\"approx_fn\":\"none\",\"scale_B\":true,\"offset\":false," MLP),
    NORM("\"num_heads\":2,\"norm_fn\":\"softplus\",\"approx_fn\":\"elu\",\"scale_B\":false,\"offset\":true,"
         "\"offset_init\":\"uniform\",\"dim_conv\":4," MLP),
    NORM("\"num_heads\":1,\"norm_fn\":\"elu\",\"approx_fn\":\"elu\",\"scale_B\":true,\"offset\":true,"
         "\"offset_init\":\"exp\",\"use_gate\":true," MLP),
    NORM("\"num_heads\":4,\"norm_fn\":\"sigmoid\",\"approx_fn\":\"none\",\"scale_B\":true,\"offset\":false,"
         "\"dim_conv\":4,\"conv_type\":\"partial\",\"mixer\":\"hybrid\""),
};
enum { NVARIANT = sizeof model_variant / sizeof *model_variant };

static inline const sq_schema *test_schema(void)
{
  static const sq_keyset *set[128];
  static sq_schema schema;
  if (schema.nset == 0) {
    int n = sq_train_keysets(set, 128);
    n += sq_task_keysets(set + n, 128 - n);
    n += sq_model_keysets(set + n, 128 - n);
    n += sq_spectra_keysets(set + n, 128 - n);
    assert_true(n <= 128);
    schema = (sq_schema){set, n};
  }
  return &schema;
}

/* JSON of one cell; `more` is put into "analysis". */
static inline void cell_json(char *out, size_t cap, const char *variant, const char *more)
{
  sq_format(out, cap,
            "{\"seed\":7,\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":32,\"input_seq_length\":48,\"num_kv_"
            "pairs\":4,"
            "\"num_train\":64,\"num_valid\":16,\"num_test\":16},"
            "\"train\":{\"total_steps\":10,\"batch_size\":8,\"lr\":0.001},"
            "\"model\":{\"layer\":\"transformer\",\"num_layers\":2,\"hidden_dim\":16,\"state_dim\":8,\"input_"
            "dim\":1,"
            "\"output_dim\":32,\"embedding\":true,\"vocab_size\":32,\"max_pos_embed\":48,%s},"
            "\"analysis\":{%s}}",
            variant, more);
}

typedef struct {
  sq_experiment *e;
  const sq_config *c;
  sq_model *m;
  sq_real *theta;
  void *work;
} model_fixture;

static inline model_fixture model_of_json(const char *json, int seq_len)
{
  model_fixture x = {0};
  if (sq_experiment_parse(test_schema(), json, "test", &x.e) != SQ_OK) fail_msg("%s", sq_error_text());
  x.c = sq_experiment_cell(x.e, 0);
  const sq_model_dims d = {
      .seq_len = seq_len, .max_rows = seq_len, .max_seqs = 1, .max_labels = seq_len, .label_per_row = 1};
  if (sq_model_create(x.c, d, &x.m) != SQ_OK) fail_msg("%s", sq_error_text());
  x.theta = calloc(sq_model_params(x.m)->total, sizeof *x.theta);
  x.work = aligned_alloc(64, (sq_model_work_bytes(x.m) + 63) / 64 * 64);
  assert_non_null(x.theta);
  assert_non_null(x.work);
  memset(x.work, 0xff, sq_model_work_bytes(x.m)); /* NaN */
  sq_model_init(x.m, 7, x.theta);
  return x;
}

static inline model_fixture model_make(const char *variant, const char *more, int seq_len)
{
  char json[2048];
  cell_json(json, sizeof json, variant, more);
  return model_of_json(json, seq_len);
}

static inline void model_release(model_fixture *x)
{
  sq_model_destroy(&x->m);
  sq_experiment_destroy(&x->e);
  free(x->theta);
  free(x->work);
}

/* Random tokens; lengths of the sequences. */
typedef struct {
  int off[9], id[8];
  int32_t token[8 * 64], label[8 * 64];
  sq_batch batch;
} sample_fixture;

static inline void sample_make(sample_fixture *s, int n, const int *length)
{
  sq_rng r;
  sq_rng_init(&r, 3, SQ_STREAM_TEST, 77);
  s->off[0] = 0;
  for (int b = 0; b < n; ++b) {
    s->off[b + 1] = s->off[b] + length[b];
    s->id[b] = b;
  }
  for (int i = 0; i < s->off[n]; ++i) {
    s->token[i] = (int32_t)sq_rng_below(&r, 32);
    s->label[i] = SQ_IGNORE;
  }
  s->batch = (sq_batch){.rows = {.nseq = n, .nrow = s->off[n], .off = s->off, .id = s->id},
                        .token = s->token,
                        .label_per_row = 1,
                        .label = s->label};
}

/* All fields of an analysis, filled with a value that no field holds. */
#define POISON 12345.678
typedef struct {
  sq_spectra *s;
  const sq_field *field;
  int n;
  double *out[32];
} analysis_fixture;

static inline size_t field_elements(const sq_field *f)
{
  return sq_field_doubles(f);
}

static inline analysis_fixture analysis_make(const model_fixture *x, const char *protocol, int nsample,
                                             int seq_len)
{
  analysis_fixture a = {0};
  if (sq_spectra_create(x->c, x->m, protocol, nsample, seq_len, &a.s) != SQ_OK)
    fail_msg("%s", sq_error_text());
  a.field = sq_spectra_fields(a.s, &a.n);
  assert_true(a.n <= 32);
  for (int i = 0; i < a.n; ++i) {
    const size_t n = field_elements(&a.field[i]);
    a.out[i] = malloc((n + 1) * sizeof(double));
    assert_non_null(a.out[i]);
    for (size_t k = 0; k <= n; ++k) a.out[i][k] = POISON;
  }
  return a;
}

static inline void analysis_run(analysis_fixture *a, const model_fixture *x, const sq_batch *sample)
{
  assert_int_equal(sq_spectra_run(a->s, x->theta, sample, x->work, a->out), SQ_OK);
}

static inline const double *analysis_field(const analysis_fixture *a, const char *name, const sq_field **f)
{
  for (int i = 0; i < a->n; ++i)
    if (strcmp(a->field[i].name, name) == 0) {
      if (f != NULL) *f = &a->field[i];
      return a->out[i];
    }
  fail_msg("no field %s", name);
  return NULL;
}

static inline void analysis_release(analysis_fixture *a)
{
  for (int i = 0; i < a->n; ++i) free(a->out[i]);
  sq_spectra_destroy(&a->s);
}
