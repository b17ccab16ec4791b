/* tests/test_model_pairs.c: `dual: true`: the gradient of a batch of pairs, shards that keep pairs together, and what a
 * pair's output depends on. */
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

enum { NPAIR = 3, NSEQ = 2 * NPAIR, SEQ_LEN = 9, NVOCAB = 7, NCLASS = 2, NROW = 31, KEYSETS = 32 };

#define COMMON "\"num_layers\":2,\"hidden_dim\":6,\"output_dim\":2,\"dual\":true,\"dropout\":0.2"
static const struct {
  const char *name, *json;
} model[] = {
    {"transformer",
     "{\"model\":{\"layer\":\"transformer\",\"attention_fn\":\"sm-attention\",\"state_dim\":4,\"num_heads\":"
     "2,"
     "\"vocab_size\":7,\"mixer\":\"glu\",\"mixer_dim\":5,\"classifier\":true,\"pooling\":\"mean\"," COMMON
     "}}"},
    {"transformer without mixer_dim",
     "{\"model\":{\"layer\":\"transformer\",\"attention_fn\":\"lin-attention\",\"state_dim\":4,\"num_heads\":"
     "1,"
     "\"vocab_size\":7,\"mixer\":\"glu\",\"classifier\":true,\"pooling\":\"max\"," COMMON "}}"},
    {"mamba", "{\"model\":{\"layer\":\"mamba\",\"state_dim\":4,\"num_heads\":2,\"conv_dim\":3,\"expansion\":"
              "1,\"glu\":true,"
              "\"prenorm\":true,\"vocab_size\":7,\"pooling\":\"mean\"," COMMON "}}"},
    {"lru, BatchNorm", "{\"model\":{\"layer\":\"lru\",\"input_dim\":7,\"state_dim\":4,\"pooling\":\"mean\","
                       "\"norm\":\"batch\"," COMMON "}}"},
    {"lru, LayerNorm", "{\"model\":{\"layer\":\"lru\",\"input_dim\":7,\"state_dim\":4,\"pooling\":\"last\","
                       "\"norm\":\"layer\"," COMMON "}}"},
};

typedef struct {
  sq_experiment *e;
  sq_model *m;
  size_t n;
  sq_real *theta, *grad;
  void *work;
  int off[NSEQ + 1], id[NSEQ];
  int32_t token[NROW], label[NPAIR];
  sq_batch b;
} fixture;

static sq_status create(fixture *f, const char *json, int dual)
{
  static const sq_keyset *sets[KEYSETS];
  const sq_schema schema = {sets, sq_model_keysets(sets, KEYSETS)};
  const sq_model_dims d = {.seq_len = SEQ_LEN,
                           .max_rows = NROW,
                           .max_seqs = NSEQ,
                           .max_labels = NSEQ,
                           .dual = dual,
                           .all_logits = 1};
  sq_error_clear();
  if (sq_experiment_parse(&schema, json, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
  return sq_model_create(sq_experiment_cell(f->e, 0), d, &f->m);
}

static void fixture_open(fixture *f, const char *json)
{
  static const int length[NSEQ] = {SEQ_LEN, 4, 7, 1, 5, 5};
  sq_rng r;
  memset(f, 0, sizeof *f);
  if (create(f, json, 1) != SQ_OK) fail_msg("%s", sq_error_text());
  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int q = 0; q < NSEQ; ++q) {
    f->off[q + 1] = f->off[q] + length[q];
    f->id[q] = q;
  }
  assert_int_equal(f->off[NSEQ], NROW);
  for (int i = 0; i < NROW; ++i) f->token[i] = (int32_t)sq_rng_below(&r, NVOCAB);
  for (int k = 0; k < NPAIR; ++k) f->label[k] = k % NCLASS;
  f->b =
      (sq_batch){.rows = {NSEQ, NROW, f->off, f->id, NULL}, .token = f->token, .dual = 1, .label = f->label};
  f->n = sq_model_params(f->m)->total;
  f->theta = calloc(f->n, sizeof *f->theta);
  f->grad = calloc(sq_model_ngradient(f->m), sizeof *f->grad);
  f->work = aligned_alloc(64, sq_model_work_bytes(f->m) / 64 * 64 + 128);
  assert_true(f->theta != NULL && f->grad != NULL && f->work != NULL);
  sq_model_init(f->m, 11, f->theta);
  /* away from zero biases */
  for (int k = 0; k < sq_model_params(f->m)->n; ++k) {
    const sq_param *p = &sq_model_params(f->m)->v[k];
    for (size_t i = 0; i < p->count && !(p->flags & SQ_PARAM_BUFFER); ++i)
      f->theta[p->offset + i] += (sq_real)(0.1 * sq_rng_normal(&r));
  }
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->grad);
  free(f->work);
  sq_model_destroy(&f->m);
  sq_experiment_destroy(&f->e);
}

static double loss(fixture *f, const sq_real *theta)
{
  const sq_pass p = {.rows = &f->b.rows, .train = 1, .seed = 3, .step = 17, .seq_len = SEQ_LEN};
  sq_tally t = {0};
  memset(f->grad, 0, sq_model_ngradient(f->m) * sizeof *f->grad);
  sq_model_gradient(f->m, theta, &f->b, &p, 1.0 / NPAIR, f->work, f->grad, &t);
  assert_int_equal(t.nlabel, NPAIR);
  return t.loss_sum / NPAIR;
}

/* Along a unit direction within one tensor.  h = 2e-5: truncation h^2 and rounding eps/h are below 1e-9; 1e-7 leaves 100
   for the curvature of the normalisations.  (A ReLU's kink within h of its argument would show as an error of order 1.) */
static void check_tensor(fixture *f, const sq_param *p, const sq_real *grad, const char *name)
{
  const double h = 2e-5;
  double *dir = malloc(p->count * sizeof *dir), norm = 0, slope = 0, value[2];
  sq_real *theta = malloc(f->n * sizeof *theta);
  sq_rng r;
  sq_rng_init(&r, 1, SQ_STREAM_TEST, p->offset);
  for (size_t k = 0; k < p->count; ++k) {
    dir[k] = sq_rng_normal(&r);
    norm += dir[k] * dir[k];
  }
  for (size_t k = 0; k < p->count; ++k) slope += (dir[k] /= sqrt(norm)) * (double)grad[p->offset + k];
  for (int s = 0; s < 2; ++s) {
    memcpy(theta, f->theta, f->n * sizeof *theta);
    for (size_t k = 0; k < p->count; ++k) theta[p->offset + k] += (sq_real)((s == 0 ? h : -h) * dir[k]);
    value[s] = loss(f, theta);
  }
  const double quotient = (value[0] - value[1]) / (2 * h);
  if (!(fabs(slope - quotient) < 1e-7 * fmax(1, fabs(quotient))))
    fail_msg("%s: %s: gradient %.12g, quotient %.12g", name, p->name, slope, quotient);
  free(dir);
  free(theta);
}

static void gradient_of_pairs_matches_differences(void **state)
{
  (void)state;
  for (size_t v = 0; v < sizeof model / sizeof *model; ++v) {
    fixture f;
    int nmatch = 0;
    fixture_open(&f, model[v].json);
    const sq_param_list *l = sq_model_params(f.m);
    loss(&f, f.theta);
    sq_real *grad = malloc(f.n * sizeof *grad);
    memcpy(grad, f.grad, f.n * sizeof *grad);
    for (int k = 0; k < l->n; ++k) {
      nmatch += strncmp(l->v[k].name, "match.", 6) == 0;
      if (!(l->v[k].flags & SQ_PARAM_BUFFER)) check_tensor(&f, &l->v[k], grad, model[v].name);
    }
    assert_int_equal(nmatch, 6);
    free(grad);
    fixture_close(&f);
  }
}

/* A pair alone has the output that it has in a batch; exchanged sequences have another one: a - b changes sign. */
static void output_of_a_pair_depends_on_its_two_sequences_alone(void **state)
{
  (void)state;
  for (size_t v = 0; v < sizeof model / sizeof *model; ++v) {
    fixture f;
    sq_real all[NPAIR * NCLASS], one[NCLASS], swapped[NCLASS];
    fixture_open(&f, model[v].json);
    sq_model_logits(f.m, f.theta, &f.b, NULL, f.work, all);
    for (int k = 0; k < NPAIR; ++k) {
      const int first = f.off[2 * k], n0 = f.off[2 * k + 1] - first, n1 = f.off[2 * k + 2] - f.off[2 * k + 1];
      int off[3] = {0, n0, n0 + n1}, id[2] = {0, 1};
      int32_t token[2 * SEQ_LEN];
      sq_batch b = {
          .rows = {2, n0 + n1, off, id, NULL}, .token = f.token + first, .dual = 1, .label = f.label + k};
      sq_model_logits(f.m, f.theta, &b, NULL, f.work, one);
      /* other shapes, other order of the same sums in the BLAS */
      for (int c = 0; c < NCLASS; ++c) assert_true(fabs((double)(one[c] - all[NCLASS * k + c])) < 1e-10);
      memcpy(token, f.token + first + n0, (size_t)n1 * sizeof *token);
      memcpy(token + n1, f.token + first, (size_t)n0 * sizeof *token);
      off[1] = n1;
      b.token = token;
      sq_model_logits(f.m, f.theta, &b, NULL, f.work, swapped);
      assert_true(fabs((double)(one[0] - swapped[0])) > 1e-9);
    }
    fixture_close(&f);
  }
}

static void shards_keep_pairs_together(void **state)
{
  int off[41], id[40], store[41];
  int32_t label[20], token[200];
  (void)state;
  for (int n = 1; n <= 20; ++n) {
    int pair = 0;
    off[0] = 0;
    for (int q = 0; q < 2 * n; ++q) {
      off[q + 1] = off[q] + 1 + q % 5;
      id[q] = q;
    }
    for (int k = 0; k < n; ++k) label[k] = 100 + k;
    const sq_batch b = {
        .rows = {2 * n, off[2 * n], off, id, NULL}, .token = token, .dual = 1, .label = label};
    assert_int_equal(sq_batch_labels(&b), n);
    const int S = sq_shard_count(sq_batch_examples(&b));
    for (int s = 0; s < S; ++s) {
      const sq_batch shard = sq_batch_shard(&b, s, store);
      assert_int_equal(shard.rows.nseq % 2, 0);
      assert_true(shard.rows.nseq > 0);
      for (int q = 0; q < shard.rows.nseq; ++q) {
        assert_int_equal(shard.rows.id[q], 2 * pair + q);
        assert_ptr_equal(shard.token + shard.rows.off[q], token + off[2 * pair + q]);
      }
      for (int k = 0; k < shard.rows.nseq / 2; ++k) assert_int_equal(shard.label[k], 100 + pair + k);
      pair += shard.rows.nseq / 2;
    }
    assert_int_equal(pair, n);
  }
}

static void a_model_of_pairs_needs_a_task_of_pairs(void **state)
{
  fixture f = {0};
  (void)state;
  assert_int_equal(create(&f, model[2].json, 0), SQ_ERR_USAGE);
  assert_string_equal(sq_error_text(),
                      "model.dual: true, but the task gives single sequences; expected false");
  sq_experiment_destroy(&f.e);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradient_of_pairs_matches_differences),
      cmocka_unit_test(output_of_a_pair_depends_on_its_two_sequences_alone),
      cmocka_unit_test(shards_keep_pairs_together),
      cmocka_unit_test(a_model_of_pairs_needs_a_task_of_pairs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
