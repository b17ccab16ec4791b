/* tests/model_fixture.h: a small model with a batch of sequences of unequal length, for the tests of
 * src/model. */
#pragma once

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

enum { NSEQ = 3, NROW = 20, SEQ_LEN = 9, NVOCAB = 7, NCLASS = 5, INPUT_DIM = 2, KEYSETS = 32 };

typedef struct {
  const char *attention, *channel, *pooling; /* pooling NULL: language model */
  int gate, conv, tokens, heads, mixer_dim, hidden, layers, max_pos;
  double dropout, att_dropout;
  const char *conv_type, *more; /* more JSON members, each with a comma in front */
} variant;

typedef struct {
  sq_experiment *e;
  sq_model *m;
  size_t n; /* length of theta */
  sq_real *theta, *grad;
  void *work;
  int off[NSEQ + 1], id[NSEQ];
  int32_t token[NROW], label[NROW];
  sq_real value[NROW * INPUT_DIM];
  sq_batch b;
} fixture;

static variant variant_default(void)
{
  return (variant){.attention = "sm-attention",
                   .channel = "mlp",
                   .pooling = "mean",
                   .tokens = 1,
                   .heads = 2,
                   .mixer_dim = 6,
                   .hidden = 8,
                   .layers = 2,
                   .max_pos = SEQ_LEN,
                   .conv_type = "full",
                   .more = ""};
}

static sq_status parse_variant(const variant *v, sq_experiment **e)
{
  static const sq_keyset *sets[KEYSETS];
  const int n = sq_model_keysets(sets, KEYSETS);
  const sq_schema schema = {sets, n};
  char json[2048];

  assert_true(n <= KEYSETS);
  sq_format(
      json, sizeof json,
      "{\"model\": {\"layer\": \"transformer\", \"attention_fn\": \"%s\", \"input_dim\": %d, \"output_dim\": "
      "%d, "
      "\"num_layers\": %d, \"hidden_dim\": %d, \"state_dim\": 4, \"num_heads\": %d, \"embedding\": %s, "
      "\"vocab_size\": %d, "
      "\"max_pos_embed\": %d, \"mixer\": \"%s\", \"mixer_dim\": %d, \"classifier\": %s, \"pooling\": \"%s\", "
      "\"dropout\": %g, \"att_dropout\": %g, \"use_gate\": %s, \"dim_conv\": %d, \"conv_type\": \"%s\"%s}}",
      v->attention, INPUT_DIM, v->mixer_dim > 0 || v->pooling == NULL ? NCLASS : v->hidden, v->layers,
      v->hidden, v->heads, v->tokens ? "true" : "false", NVOCAB, v->max_pos, v->channel, v->mixer_dim,
      v->pooling != NULL ? "true" : "false", v->pooling != NULL ? v->pooling : "none", v->dropout,
      v->att_dropout, v->gate ? "true" : "false", v->conv, v->conv_type, v->more);
  return sq_experiment_parse(&schema, json, "test", e);
}

/* label_per_row: a label at each step, some of them ignored; else one for each sequence. */
static sq_model_dims fixture_dims(int label_per_row)
{
  return (sq_model_dims){.seq_len = SEQ_LEN,
                         .max_rows = NROW,
                         .max_seqs = NSEQ,
                         .max_labels = NROW,
                         .label_per_row = label_per_row,
                         .all_logits = 1};
}

static void fixture_inputs(fixture *f, const variant *v, int label_per_row)
{
  static const int length[NSEQ] = {SEQ_LEN, 4, 7};
  sq_rng r;

  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int b = 0; b < NSEQ; ++b) {
    f->off[b + 1] = f->off[b] + length[b];
    f->id[b] = b;
  }
  for (int i = 0; i < NROW; ++i) {
    f->token[i] = (int32_t)sq_rng_below(&r, NVOCAB);
    f->label[i] = i % 3 == 1 && label_per_row ? SQ_IGNORE : (int32_t)sq_rng_below(&r, NCLASS);
  }
  sq_nn_init_normal(&r, 1, NROW * INPUT_DIM, f->value);
  f->b = (sq_batch){.rows = {NSEQ, NROW, f->off, f->id, NULL},
                    .input_dim = INPUT_DIM,
                    .label_per_row = label_per_row,
                    .label = f->label};
  f->b.token = v->tokens ? f->token : NULL;
  f->b.value = v->tokens ? NULL : f->value;
}

static void fixture_open(fixture *f, const variant *v)
{
  const int label_per_row = v->pooling == NULL || strcmp(v->pooling, "none") == 0;

  memset(f, 0, sizeof *f);
  fixture_inputs(f, v, label_per_row);
  if (parse_variant(v, &f->e) != SQ_OK ||
      sq_model_create(sq_experiment_cell(f->e, 0), fixture_dims(label_per_row), &f->m) != SQ_OK)
    fail_msg("%s", sq_error_text());
  f->n = sq_model_params(f->m)->total;
  f->theta = calloc(f->n, sizeof *f->theta);
  f->grad = calloc(f->n, sizeof *f->grad);
  f->work = aligned_alloc(64, sq_model_work_bytes(f->m) / 64 * 64 + 128);
  assert_true(f->theta != NULL && f->grad != NULL && f->work != NULL);
  sq_model_init(f->m, 11, f->theta);
}

static void fixture_close(fixture *f)
{
  free(f->theta);
  free(f->grad);
  free(f->work);
  sq_model_destroy(&f->m);
  sq_experiment_destroy(&f->e);
}

static sq_pass fixture_pass(const fixture *f)
{
  return (sq_pass){.rows = &f->b.rows, .train = 1, .seed = 3, .step = 17, .seq_len = SEQ_LEN};
}

/* Mean loss in training mode (dropout as in the gradient); the gradient is added to f->grad. */
static double fixture_loss(fixture *f, const sq_real *theta)
{
  const sq_pass p = fixture_pass(f);
  const double count = (double)sq_batch_labels(&f->b);
  sq_tally t = {0};

  sq_model_gradient(f->m, theta, &f->b, &p, 1 / count, f->work, f->grad, &t);
  assert_int_equal(t.nlabel, (long)count);
  return t.loss_sum / count;
}
