/* tests/mixer_fixture.h: a mixer with parameters, a ragged batch and guarded memory, made from the JSON text
 * of model keys. */
#pragma once

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sq/base.h"
#include "sq/mixer.h"

enum { GUARD = 64, MAX_SEQ = 8 };

typedef struct {
  char text[640]; /* the configuration, for messages */
  sq_experiment *e;
  const sq_mixer_ops *ops;
  sq_mixer *m;
  sq_param_list params;
  sq_mixer_dims dims;
  int off[MAX_SEQ + 1], id[MAX_SEQ];
  sq_rows rows;
  sq_pass pass;
  sq_real *theta, *u, *y;        /* (params.total), (nrow,D) x 2 */
  unsigned char *tape, *scratch; /* each with GUARD bytes behind it */
} fixture;

#define EXPECT_NEAR(label, got, expected, allowed)                                                           \
  do {                                                                                                       \
    const double got_ = (double)(got), expected_ = (double)(expected), allowed_ = (double)(allowed);         \
    if (!(fabs(got_ - expected_) <= allowed_))                                                               \
      fail_msg("%s: got %.17g, expected %.17g, off by %.3g, allowed %.3g", (label), got_, expected_,         \
               fabs(got_ - expected_), allowed_);                                                            \
  } while (0)

static inline const sq_schema *fixture_schema(void)
{
  static const sq_key own[] = {
      {"model.layer", SQ_KEY_STRING, NULL, 0, 0, NULL, "backbone"},
      {"model.hidden_dim", SQ_KEY_INT, NULL, 1, 4096, NULL, "width"},
  };
  static const sq_keyset base = {"", own, 2, NULL};
  static const sq_keyset *set[64];
  static sq_schema schema;
  if (schema.nset == 0) {
    set[schema.nset++] = &base;
    for (int i = 0; sq_mixer_at(i) != NULL; ++i)
      if (sq_mixer_at(i)->keys != NULL) set[schema.nset++] = sq_mixer_at(i)->keys;
    schema.set = set;
  }
  return &schema;
}

static inline void *guarded(size_t bytes)
{
  unsigned char *p = aligned_alloc(64, (bytes + GUARD + 63) / 64 * 64);
  assert_non_null(p);
  memset(p, 0xff, bytes); /* NaN: nothing may be read before it is written */
  memset(p + bytes, 0xa5, GUARD);
  return p;
}

static inline void expect_guard(const char *label, const unsigned char *p, size_t bytes)
{
  for (size_t i = 0; i < GUARD; ++i)
    if (p[bytes + i] != 0xa5) fail_msg("%s: byte %zu behind the end was written", label, i);
}

static inline void draw(int index, size_t n, double scale, sq_real *x)
{
  sq_rng r;
  sq_rng_init(&r, 20250131, SQ_STREAM_TEST, (uint64_t)index);
  for (size_t i = 0; i < n; ++i) x[i] = (sq_real)(scale * sq_rng_normal(&r));
}

static inline sq_real *tensor(const fixture *f, sq_real *theta, const char *name)
{
  char full[128];
  sq_format(full, sizeof full, "layers.0.attention.%s", name);
  const sq_param *p = sq_param_find(&f->params, full);
  return p ? theta + p->offset : NULL;
}

static inline void fixture_params(fixture *f)
{
  f->ops->params(f->m, "layers.0.attention", &f->params);
  f->theta = sq_calloc(f->params.total, sizeof *f->theta, "theta");
  for (int i = 0; i < f->params.n; ++i) {
    sq_rng r;
    sq_rng_init(&r, 7, SQ_STREAM_INIT, (uint64_t)i);
    f->ops->init(f->m, &f->params.v[i], &r, f->theta);
  }
}

/* model: JSON members such as "\"attention_fn\":\"sm-attention\",\"state_dim\":8". */
static inline void fixture_make(fixture *f, const char *model, int D, int seq_len, int nseq, const int *len)
{
  memset(f, 0, sizeof *f);
  for (int b = 0; b < nseq; ++b) {
    f->off[b + 1] = f->off[b] + len[b];
    f->id[b] = 3 * b + 1;
  }
  f->rows = (sq_rows){.nseq = nseq, .nrow = f->off[nseq], .off = f->off, .id = f->id};
  f->dims = (sq_mixer_dims){.D = D, .seq_len = seq_len, .max_rows = f->rows.nrow + 3, .site = 5};
  sq_format(f->text, sizeof f->text, "{\"model\":{\"layer\":\"transformer\",\"hidden_dim\":%d,%s}}", D,
            model);
  if (sq_experiment_parse(fixture_schema(), f->text, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
  const sq_config *c = sq_experiment_cell(f->e, 0);
  f->ops = sq_mixer_find(sq_config_string(c, "model.attention_fn"));
  assert_non_null(f->ops);
  if (f->ops->create(c, f->dims, &f->m) != SQ_OK) fail_msg("%s", sq_error_text());
  fixture_params(f);
  f->pass = (sq_pass){.rows = &f->rows, .train = 0, .seed = 11, .step = 3, .seq_len = seq_len};
  const size_t n = (size_t)(f->rows.nrow + 1) * (size_t)D;
  f->u = sq_calloc(n, sizeof *f->u, "u");
  f->y = sq_calloc(n, sizeof *f->y, "y");
  draw(1, n, 1, f->u);
  f->tape = guarded(f->ops->tape_bytes(f->m));
  f->scratch = guarded(f->ops->scratch_bytes(f->m));
}

static inline void fixture_forward(fixture *f)
{
  f->ops->forward(f->m, f->theta, &f->pass, f->u, f->y, f->tape, f->scratch);
  expect_guard("tape", f->tape, f->ops->tape_bytes(f->m));
  expect_guard("scratch", f->scratch, f->ops->scratch_bytes(f->m));
}

static inline void fixture_backward(fixture *f, const sq_real *dy, sq_real *du, sq_real *dtheta)
{
  f->ops->backward(f->m, f->theta, &f->pass, f->u, f->tape, dy, du, dtheta, f->scratch);
  expect_guard("tape", f->tape, f->ops->tape_bytes(f->m));
  expect_guard("scratch", f->scratch, f->ops->scratch_bytes(f->m));
}

static inline void fixture_free(fixture *f)
{
  free(f->scratch);
  free(f->tape);
  free(f->y);
  free(f->u);
  free(f->theta);
  sq_param_clear(&f->params);
  f->ops->destroy(f->m);
  sq_experiment_destroy(&f->e);
}

/* All options of all attention mixers, one after another; 0 past the end. */
static inline int variant(int i, int state_dim, int heads, char *out, size_t cap)
{
  static const char *const conv[] = {"", ",\"dim_conv\":3", ",\"dim_conv\":4,\"conv_type\":\"partial\""};
  static const char *const plain[] = {"sm-attention", "lin-attention"};
  static const char *const dropout[] = {"", ",\"att_dropout\":0.3"};
  static const char *const norm_fn[] = {"exp", "elu", "softplus", "sigmoid"}, *const approx[] = {"none",
                                                                                                 "elu"};
  static const char *const offset[] = {"false", "true,\"offset_init\":\"exp\"",
                                       "true,\"offset_init\":\"uniform\""};
  char common[96];
  sq_format(common, sizeof common, "\"state_dim\":%d,\"num_heads\":%d", state_dim, heads);
  if (i < 12) {
    sq_format(out, cap, "%s,\"attention_fn\":\"%s\"%s%s", common, plain[i % 2], conv[i / 2 % 3],
              dropout[i / 6]);
    return 1;
  }
  i -= 12;
  if (i >= 4 * 2 * 3 * 2 * 3) return 0;
  sq_format(out, cap,
            "%s,\"attention_fn\":\"norm-attention\",\"norm_fn\":\"%s\",\"approx_fn\":\"%s\",\"offset\":%s,"
            "\"scale_B\":%s%s%s",
            common, norm_fn[i % 4], approx[i / 4 % 2], offset[i / 8 % 3], i / 24 % 2 ? "true" : "false",
            conv[i / 48], dropout[i % 5 == 0]);
  return 1;
}
enum { NVARIANT = 12 + 144 };
