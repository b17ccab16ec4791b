/* tests/test_model_labelled.c: a last layer that makes labelled rows only gives the loss and the gradient of one that
 * makes all rows, for every mixer and backbone. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/model.h"

/* Sequences of several chunks and strips, of one step, and without a label. */
enum { NSEQ = 5, SEQ_LEN = 200, NVOCAB = 11, NCLASS = 7, WIDTH = 8, KEYSETS = 64 };
static const int length[NSEQ] = {200, 1, 131, 40, 77};
enum { NROW = 200 + 1 + 131 + 40 + 77 };

typedef enum { SPARSE, BUNCHED, FIRST_AND_LAST, NO_LABEL } pattern;

typedef struct {
  sq_experiment *e;
  sq_model *m;
  size_t n;
  sq_real *theta;
  void *work;
  int off[NSEQ + 1], id[NSEQ];
  int32_t token[NROW], label[NROW];
  sq_batch b;
  const char *name;
} fixture;

static int labelled(pattern p, int b, int t, sq_rng *r)
{
  if (b == 3) return 0; /* a sequence without labels */
  switch (p) {
  case SPARSE: return sq_rng_below(r, 8) == 0;
  case BUNCHED: return t % 100 >= 60 && t % 100 < 90; /* some chunks have none, none has all */
  case FIRST_AND_LAST: return t == 0 || t + 1 == length[b];
  case NO_LABEL: break;
  }
  return 0;
}

static int fixture_inputs(fixture *f, pattern p)
{
  int n = 0;
  sq_rng r;

  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int b = 0; b < NSEQ; ++b) {
    f->off[b + 1] = f->off[b] + length[b];
    f->id[b] = 2 * b + 1;
    for (int t = 0; t < length[b]; ++t) {
      const int i = f->off[b] + t;
      f->token[i] = (int32_t)sq_rng_below(&r, NVOCAB);
      f->label[i] = labelled(p, b, t, &r) ? (int32_t)sq_rng_below(&r, NCLASS) : SQ_IGNORE;
      n += f->label[i] != SQ_IGNORE;
    }
  }
  f->b = (sq_batch){.rows = {.nseq = NSEQ, .nrow = NROW, .off = f->off, .id = f->id},
                    .input_dim = NVOCAB,
                    .token = f->token,
                    .label_per_row = 1,
                    .label = f->label};
  return n;
}

static sq_status parse(const char *model, sq_experiment **e)
{
  static const sq_key recipe[] = {{"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, NULL, "recipe"}};
  static const sq_keyset own = {"", recipe, 1, NULL};
  static const sq_keyset *sets[KEYSETS];
  const int n = sq_model_keysets(sets, KEYSETS - 1);
  const sq_schema schema = {sets, n + 1};
  char json[1024];

  assert_true(n < KEYSETS);
  sets[n] = &own;
  sq_format(
      json, sizeof json,
      "{\"model\": {\"num_layers\": 2, \"hidden_dim\": %d, \"output_dim\": %d, \"pooling\": \"none\", %s}}",
      WIDTH, NCLASS, model);
  return sq_experiment_parse(&schema, json, "test", e);
}

/* Away from the special values of the initialisation. */
static void shake(fixture *f)
{
  const sq_param_list *l = sq_model_params(f->m);
  sq_rng r;

  sq_rng_init(&r, 8, SQ_STREAM_TEST, 1);
  for (int k = 0; k < l->n; ++k)
    for (size_t i = 0; i < l->v[k].count; ++i) {
      const double z = 0.1 * sq_rng_normal(&r);
      f->theta[l->v[k].offset + i] += (sq_real)(l->v[k].flags & SQ_PARAM_BUFFER ? fabs(z) : z);
    }
}

static void fixture_open(fixture *f, const char *model, pattern p)
{
  memset(f, 0, sizeof *f);
  f->name = model;
  const int n = fixture_inputs(f, p);
  const sq_model_dims d = {
      .seq_len = SEQ_LEN, .max_rows = NROW, .max_seqs = NSEQ, .max_labels = n, .label_per_row = 1};
  if (parse(model, &f->e) != SQ_OK || sq_model_create(sq_experiment_cell(f->e, 0), d, &f->m) != SQ_OK)
    fail_msg("%s: %s", model, sq_error_text());
  f->n = sq_model_params(f->m)->total;
  f->theta = calloc(f->n, sizeof *f->theta);
  f->work = aligned_alloc(64, sq_model_work_bytes(f->m) / 64 * 64 + 128);
  assert_true(f->theta != NULL && f->work != NULL);
  sq_model_init(f->m, 11, f->theta);
  shake(f);
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->work);
  sq_model_destroy(&f->m);
  sq_experiment_destroy(&f->e);
}

static sq_pass pass_of(const fixture *f, int all_rows)
{
  return (sq_pass){
      .rows = &f->b.rows, .train = 1, .seed = 3, .step = 17, .seq_len = SEQ_LEN, .all_rows = all_rows};
}

/* The memory of a pass starts as NaN: nothing that it has not made may reach the gradient. */
static sq_tally gradient(fixture *f, const sq_real *theta, int all_rows, sq_real *grad)
{
  const sq_pass p = pass_of(f, all_rows);
  const long n = sq_batch_labels(&f->b);
  sq_tally t = {0};

  memset(f->work, 0xff, sq_model_work_bytes(f->m));
  memset(grad, 0, f->n * sizeof *grad);
  sq_model_gradient(f->m, theta, &f->b, &p, n > 0 ? 1.0 / (double)n : 1, f->work, grad, &t);
  assert_true(t.nlabel == n);
  return t;
}

static double norm_of(size_t n, const sq_real *a, const sq_real *b)
{
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = (double)a[i] - (b != NULL ? (double)b[i] : 0);
    sum += d * d;
  }
  return sqrt(sum);
}

/* What rounding alone does to a gradient: that of parameters that are rounded otherwise, by one eps each. */
static void round_otherwise(const fixture *f, sq_real *theta)
{
  const double eps = sizeof(sq_real) == sizeof(double) ? DBL_EPSILON : (double)FLT_EPSILON;
  sq_rng r;

  sq_rng_init(&r, 9, SQ_STREAM_TEST, 2);
  for (size_t i = 0; i < f->n; ++i)
    theta[i] = (sq_real)((double)f->theta[i] * (1 + (sq_rng_below(&r, 2) ? eps : -eps)));
}

/* The two passes round otherwise where products have other shapes and where sums over rows have other terms in other
   order: as many roundings as the deepest chain of operations, some tens, each of which acts as one in a parameter,
   so 32 times the effect of the latter, and of sums over n rows sqrt(n) < 22 eps of their terms' size, which for a
   whole model's gradient is that of the largest tensor. */
static double compare(const fixture *f, const sq_real *few, const sq_real *all, const sq_real *rounded)
{
  const double eps = sizeof(sq_real) == sizeof(double) ? DBL_EPSILON : (double)FLT_EPSILON;
  const sq_param_list *l = sq_model_params(f->m);
  double size = 0, worst = 0;

  for (int k = 0; k < l->n; ++k) size = fmax(size, norm_of(l->v[k].count, all + l->v[k].offset, NULL));
  for (int k = 0; k < l->n; ++k) {
    const size_t at = l->v[k].offset, n = l->v[k].count;
    const double error = norm_of(n, few + at, all + at);
    const double allowed = 32 * norm_of(n, rounded + at, all + at) + 22 * eps * size;
    if (!(error <= allowed))
      fail_msg("%s: %s: off by %.3g, allowed %.3g, norm %.3g", f->name, l->v[k].name, error, allowed,
               norm_of(n, all + at, NULL));
    if (allowed > 0) worst = fmax(worst, error / allowed);
  }
  return worst;
}

static double check(const char *model, pattern p)
{
  fixture f;
  fixture_open(&f, model, p);
  sq_real *few = calloc(4 * f.n, sizeof *few), *all = few + f.n, *rounded = all + f.n, *theta = rounded + f.n;
  sq_tally loss = {0};
  const sq_pass p_loss = pass_of(&f, 0); /* sq_model_loss makes all rows by itself */
  assert_non_null(few);

  round_otherwise(&f, theta);
  const sq_tally a = gradient(&f, f.theta, 0, few), b = gradient(&f, f.theta, 1, all),
                 c = gradient(&f, theta, 1, rounded);
  const double worst = compare(&f, few, all, rounded);
  /* A sum of n losses of order 1. */
  const double eps = sizeof(sq_real) == sizeof(double) ? DBL_EPSILON : (double)FLT_EPSILON;
  const double allowed = 32 * fabs(c.loss_sum - b.loss_sum) + 22 * eps * fabs(b.loss_sum);
  if (!(fabs(a.loss_sum - b.loss_sum) <= allowed))
    fail_msg("%s: loss %.17g, with all rows %.17g", model, a.loss_sum, b.loss_sum);
  sq_model_loss(f.m, f.theta, &f.b, &p_loss, f.work, &loss);
  assert_true(loss.loss_sum == b.loss_sum && loss.ncorrect == b.ncorrect);
  free(few);
  fixture_close(&f);
  return worst;
}

static void check_patterns(const char *model)
{
  double worst = 0;
  for (pattern p = SPARSE; p <= NO_LABEL; ++p) worst = fmax(worst, check(model, p));
  printf("%.2f of what is allowed: %s\n", worst, model);
}

/* ---- transformer ------------------------------------------------------------------------------------- */

static void check_attention(const char *attention)
{
  static const char *const channel[] = {"none", "mlp", "glu", "hybrid"};
  static const char *const conv[] = {"", ", \"dim_conv\": 3",
                                     ", \"dim_conv\": 4, \"conv_type\": \"partial\""};
  char model[640];

  for (int k = 0; k < 6; ++k) {
    sq_format(
        model, sizeof model,
        "\"layer\": \"transformer\", %s, \"state_dim\": 4, \"num_heads\": %d, \"vocab_size\": %d, "
        "\"max_pos_embed\": %d, \"mixer\": \"%s\", \"mixer_dim\": 6, \"use_gate\": %s, \"dropout\": %g, "
        "\"att_dropout\": %g%s",
        attention, 1 + k % 2, NVOCAB, k % 2 ? 0 : SEQ_LEN, channel[k % 4], k % 4 >= 2 ? "true" : "false",
        k % 2 ? 0.3 : 0, k == 1 || k == 4 ? 0.2 : 0, conv[k % 3]);
    check_patterns(model);
  }
}

static void softmax_attention_needs_labelled_rows_only(void **state)
{
  (void)state;
  check_attention("\"attention_fn\": \"sm-attention\"");
}

static void linear_attention_needs_labelled_rows_only(void **state)
{
  (void)state;
  check_attention("\"attention_fn\": \"lin-attention\"");
}

static void norm_attention_needs_labelled_rows_only(void **state)
{
  (void)state;
  check_attention("\"attention_fn\": \"norm-attention\", \"norm_fn\": \"softplus\", \"approx_fn\": \"elu\", "
                  "\"scale_B\": true, \"offset\": true");
  check_attention("\"attention_fn\": \"norm-attention\", \"norm_fn\": \"sigmoid\", \"scale_B\": false, "
                  "\"offset\": false");
}

/* ---- mamba ------------------------------------------------------------------------------------------- */

static void mamba_needs_labelled_rows_only(void **state)
{
  char model[512];
  (void)state;

  for (int k = 0; k < 8; ++k) {
    sq_format(
        model, sizeof model,
        "\"layer\": \"mamba\", \"state_dim\": 4, \"num_heads\": %d, \"vocab_size\": %d, \"conv_dim\": %d, "
        "\"expansion\": %d, \"glu\": %s, \"prenorm\": %s, \"pseudoLTI\": %s, \"dropout\": %g",
        1 + k % 2, NVOCAB, k % 3 ? 4 : 0, k == 5 ? 2 : 1, k / 2 % 2 ? "true" : "false",
        k / 4 ? "true" : "false", k % 3 == 1 ? "true" : "false", k % 4 == 3 ? 0.3 : 0);
    check_patterns(model);
  }
}

/* ---- state-space layers, which make all rows themselves ---------------------------------------------- */

static void state_space_layers_need_labelled_rows_only(void **state)
{
  static const char *const layer[] = {"lru", "s5", "s4"}, *const norm[] = {"layer", "batch"};
  static const char *const activation[] = {"full_glu", "half_glu1", "half_glu2", "gelu"};
  char model[512];
  (void)state;

  for (int k = 0; k < 12; ++k) {
    sq_format(
        model, sizeof model,
        "\"layer\": \"%s\", \"input_dim\": %d, \"state_dim\": 4, \"activation\": \"%s\", \"norm\": \"%s\", "
        "\"prenorm\": %s, \"dropout\": %g%s",
        layer[k % 3], NVOCAB, activation[k % 4], norm[k / 2 % 2], k % 2 ? "true" : "false",
        k % 5 == 4 ? 0.3 : 0, k % 3 == 1 ? ", \"num_blocks\": 1" : "");
    check_patterns(model);
  }
}

/* ---- what is counted --------------------------------------------------------------------------------- */

static void flops_behind_the_last_mixer_count_labelled_rows(void **state)
{
  fixture f;
  const int len[2] = {100, 60};
  (void)state;

  fixture_open(
      &f,
      "\"layer\": \"transformer\", \"attention_fn\": \"sm-attention\", \"state_dim\": 4, \"num_heads\": 2, "
      "\"vocab_size\": 11, \"mixer\": \"glu\"",
      SPARSE);
  const sq_mixer *mixer = sq_model_mixer(f.m, 0);
  const double D = WIDTH, rows = 160, glu = 2 * D * 2 * D, head = 2 * D * NCLASS;
  const double scores = (100.0 * 101 + 60.0 * 61) * (4 + WIDTH); /* (dh + dv) H */
  const double keys = rows * 2 * D * (4 + D), one_query = 2 * D * (4 + D);
  const double want = sq_mixer_get(mixer)->flops(mixer, 2, len) + rows * glu + keys + scores * 20 / rows +
                      20 * (one_query + glu + head);
  assert_true(fabs(sq_model_flops(f.m, 2, len, 20) - want) < 1e-9 * want);
  /* All rows labelled: nothing is left out. */
  const double all = 2 * sq_mixer_get(mixer)->flops(mixer, 2, len) + 2 * rows * glu + rows * head;
  assert_true(fabs(sq_model_flops(f.m, 2, len, 160) - all) < 1e-9 * all);
  fixture_close(&f);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(softmax_attention_needs_labelled_rows_only),
      cmocka_unit_test(linear_attention_needs_labelled_rows_only),
      cmocka_unit_test(norm_attention_needs_labelled_rows_only),
      cmocka_unit_test(mamba_needs_labelled_rows_only),
      cmocka_unit_test(state_space_layers_need_labelled_rows_only),
      cmocka_unit_test(flops_behind_the_last_mixer_count_labelled_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
