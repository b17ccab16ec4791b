/* tests/test_mixer_diagonal.c: LRU and S5 against their recurrences written out, one state at a time. */
#include <complex.h>

#include "../src/mixer/diagonal.h"
#include "../src/mixer/hippo.h"
#include "mixer_fixture.h"

typedef struct {
  fixture f;
  sq_real *derived, *dderived;
} layer;

static const int ragged[] = {37, 1, 50, 16, 17};
enum { NSEQ = sizeof ragged / sizeof *ragged, WIDTH = 6, AT = 32 /* place in the model's derived numbers */ };

static const char *const variant_of[] = {
    "\"layer\":\"lru\",\"state_dim\":5,\"r_max\":0.9",
    "\"layer\":\"lru\",\"state_dim\":19,\"r_min\":0.5,\"r_max\":0.9,\"max_phase\":3",
    "\"layer\":\"s5\",\"state_dim\":16,\"num_blocks\":2,\"dt_min\":0.05,\"dt_max\":0.5",
    "\"layer\":\"s5\",\"state_dim\":6,\"num_blocks\":1,\"dt_min\":0.05,\"dt_max\":0.5,\"conj_sym\":false",
    "\"layer\":\"s5\",\"state_dim\":8,\"num_blocks\":1,\"dt_min\":0.05,\"dt_max\":0.5,\"clip_eigs\":true",
    "\"layer\":\"s5\",\"state_dim\":8,\"num_blocks\":2,\"dt_min\":0.05,\"dt_max\":0.5,\"clip_eigs\":true,"
    "\"discretization\":\"bilinear\",\"C_init\":\"complex_normal\"",
    "\"layer\":\"s5\",\"state_dim\":4,\"num_blocks\":1,\"dt_min\":0.05,\"dt_max\":0.5,\"conj_sym\":false,"
    "\"discretization\":\"bilinear\",\"C_init\":\"trunc_standard_normal\"",
    "\"layer\":\"s5\",\"state_dim\":8,\"num_blocks\":1,\"dt_min\":0.05,\"dt_max\":0.5,"
    "\"bidirectional\":true",
    "\"layer\":\"s5\",\"state_dim\":6,\"num_blocks\":2,\"dt_min\":0.05,\"dt_max\":0.5,"
    "\"bidirectional\":true,\"conj_sym\":false,\"discretization\":\"bilinear\"",
};
enum { NVARIANT_OF = sizeof variant_of / sizeof *variant_of };

static void layer_config(fixture *f, const char *model, int D)
{
  sq_format(f->text, sizeof f->text, "{\"model\":{\"hidden_dim\":%d,%s}}", D, model);
  if (sq_experiment_parse(fixture_schema(), f->text, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
}

static const sq_config *layer_cell(const layer *l)
{
  return sq_experiment_cell(l->f.e, 0);
}

/* Some real parts on either side of the clamp at -1e-4, none near it. */
static void move_across_the_clamp(layer *l)
{
  sq_real *re = tensor(&l->f, l->f.theta, "Lambda_re");
  if (re == NULL || !sq_config_bool(layer_cell(l), "model.clip_eigs")) return;
  for (int p = 0; p < l->f.m->P; p += 2) re[p] = (sq_real)0.02;
}

static void layer_derive(layer *l)
{
  fixture *f = &l->f;
  const size_t n = f->ops->derived_count(f->m);
  f->ops->derive(f->m, f->theta, 0, 1, l->derived + AT, f->scratch);
  for (size_t i = 0; i < GUARD; ++i)
    if (l->derived[AT + n + i] != -7) fail_msg("%s: behind the derived numbers", f->text);
}

/* block 0: the mixer's own */
static void layer_make(layer *l, const char *model, int D, int block, int nseq, const int *len)
{
  fixture *f = &l->f;
  memset(l, 0, sizeof *l);
  for (int b = 0; b < nseq; ++b) {
    f->off[b + 1] = f->off[b] + len[b];
    f->id[b] = b;
  }
  f->rows = (sq_rows){.nseq = nseq, .nrow = f->off[nseq], .off = f->off, .id = f->id};
  f->dims = (sq_mixer_dims){.D = D, .seq_len = 64, .max_rows = f->rows.nrow + 3};
  layer_config(f, model, D);
  f->ops = sq_mixer_find(sq_config_string(layer_cell(l), "model.layer"));
  assert_non_null(f->ops);
  if (f->ops->create(layer_cell(l), f->dims, &f->m) != SQ_OK) fail_msg("%s", sq_error_text());
  if (block > 0) f->m->block = block;
  ((struct sq_mixer_head *)f->m)->derived_at = AT;
  fixture_params(f);
  move_across_the_clamp(l);
  const size_t n = (size_t)f->rows.nrow * (size_t)D, nd = AT + f->ops->derived_count(f->m);
  f->u = sq_calloc(n, sizeof *f->u, "u");
  f->y = sq_calloc(n, sizeof *f->y, "y");
  draw(1, n, 1, f->u);
  f->tape = guarded(f->ops->tape_bytes(f->m));
  f->scratch = guarded(f->ops->scratch_bytes(f->m));
  l->derived = sq_calloc(nd + GUARD, sizeof(sq_real), "derived");
  l->dderived = sq_calloc(nd, sizeof(sq_real), "dderived");
  for (size_t i = 0; i < GUARD; ++i) l->derived[nd + i] = -7;
  f->pass = (sq_pass){.rows = &f->rows, .seq_len = 64, .derived = l->derived, .dderived = l->dderived};
}

static void layer_free(layer *l)
{
  free(l->derived);
  free(l->dderived);
  fixture_free(&l->f);
}

static void layer_forward(layer *l)
{
  layer_derive(l);
  fixture_forward(&l->f);
}

/* After layer_forward.  g (params.total) is added to. */
static void layer_backward(layer *l, const sq_real *dy, sq_real *du, sq_real *g)
{
  fixture *f = &l->f;
  memset(l->dderived, 0, (AT + f->ops->derived_count(f->m)) * sizeof(sq_real));
  fixture_backward(f, dy, du, g);
  f->ops->derive_back(f->m, f->theta, 0, 1, l->derived + AT, l->dderived + AT, g, f->scratch);
}

/* ---- the definitions --------------------------------------------------------------------------------- */

static double number(const layer *l, const char *name, int i)
{
  const sq_real *x = tensor(&l->f, l->f.theta, name);
  assert_non_null(x);
  return (double)x[i];
}

static sq_complex pair(const layer *l, const char *name, int i)
{
  return CMPLX(number(l, name, 2 * i), number(l, name, 2 * i + 1));
}

static int is_lru(const layer *l)
{
  return strcmp(l->f.ops->name, "lru") == 0;
}

static int is_bidirectional(const layer *l)
{
  return !is_lru(l) && sq_config_bool(layer_cell(l), "model.bidirectional");
}

/* Eigenvalue of state p and the factor of B u. */
static sq_complex dense_state(const layer *l, int p, sq_complex *scale)
{
  if (is_lru(l)) {
    *scale = exp(number(l, "gamma_log", p));
    return cexp(CMPLX(-exp(number(l, "nu_log", p)), exp(number(l, "theta_log", p))));
  }
  double re = number(l, "Lambda_re", p);
  if (sq_config_bool(layer_cell(l), "model.clip_eigs")) re = fmin(re, -1e-4);
  const sq_complex lambda = CMPLX(re, number(l, "Lambda_im", p));
  const double step = exp(number(l, "log_step", p));
  if (strcmp(sq_config_string(layer_cell(l), "model.discretization"), "zoh") == 0) {
    const sq_complex bar = cexp(lambda * step);
    *scale = (bar - 1) / lambda;
    return bar;
  }
  const sq_complex g = 1 / (1 - step / 2 * lambda);
  *scale = g * step;
  return g * (1 + step / 2 * lambda);
}

static sq_complex dense_B(const layer *l, int k)
{
  return is_lru(l) ? CMPLX(number(l, "B_re", k), number(l, "B_im", k)) : pair(l, "B", k);
}

/* With the factor of conjugate pairs. */
static sq_complex dense_C(const layer *l, int k)
{
  if (is_lru(l)) return CMPLX(number(l, "C_re", k), number(l, "C_im", k));
  return (sq_config_bool(layer_cell(l), "model.conj_sym") ? 2 : 1) * pair(l, "C", k);
}

/* One direction of sequence b is added to y (T,D); column: of C's first state. */
static void dense_direction(const layer *l, int b, int reverse, double *y, double *size)
{
  const int D = l->f.dims.D, P = l->f.m->P, ncol = is_bidirectional(l) ? 2 * P : P;
  const int r0 = l->f.off[b], T = l->f.off[b + 1] - r0;
  for (int p = 0; p < P; ++p) {
    sq_complex scale, h = 0;
    const sq_complex lambda = dense_state(l, p, &scale);
    for (int i = 0; i < T; ++i) {
      const int t = reverse ? T - 1 - i : i;
      sq_complex in = 0;
      for (int d = 0; d < D; ++d) in += dense_B(l, p * D + d) * (double)l->f.u[(r0 + t) * D + d];
      h = lambda * h + scale * in;
      for (int d = 0; d < D; ++d) {
        const double term = creal(dense_C(l, d * ncol + (reverse ? P : 0) + p) * h);
        y[t * D + d] += term;
        size[t * D + d] += fabs(term);
      }
    }
  }
}

/* size: sums of |terms|.  Each term is a state, that is a sum of inputs that shrink as |lambda|^k with
   1/(1 - |lambda|) <= 50 here, each of them a sum of 6 products: rounding of lambda (1/2 eps a step) counts
   50-fold, everything else less. */
static void expect_dense(layer *l)
{
  const int D = l->f.dims.D;
  layer_forward(l);
  for (int b = 0; b < l->f.rows.nseq; ++b) {
    const int n = (l->f.off[b + 1] - l->f.off[b]) * D;
    double *y = sq_calloc((size_t)n, sizeof *y, "y"), *size = sq_calloc((size_t)n, sizeof *y, "size"),
           top = 0;
    for (int i = 0; i < n; ++i) {
      y[i] = number(l, "D", i % D) * (double)l->f.u[l->f.off[b] * D + i];
      size[i] = fabs(y[i]);
    }
    dense_direction(l, b, 0, y, size);
    if (is_bidirectional(l)) dense_direction(l, b, 1, y, size);
    for (int i = 0; i < n; ++i) top = fmax(top, size[i]);
    for (int i = 0; i < n; ++i)
      EXPECT_NEAR(l->f.text, l->f.y[l->f.off[b] * D + i], y[i], 100 * SQ_REAL_EPS * top);
    free(size);
    free(y);
  }
}

static void forward_equals_the_recurrence_written_out(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v)
    for (int block = 0; block < 40; block += 16) {
      layer l;
      layer_make(&l, variant_of[v], WIDTH, block, NSEQ, ragged);
      expect_dense(&l);
      layer_free(&l);
    }
}

/* ---- gradients --------------------------------------------------------------------------------------- */

#ifdef SQ_DOUBLE
static double weighted_output(layer *l, const sq_real *w, double *size)
{
  double sum = 0;
  *size = 0;
  layer_forward(l);
  for (int i = 0; i < l->f.rows.nrow * l->f.dims.D; ++i) {
    sum += w[i] * l->f.y[i];
    *size += fabs(w[i] * l->f.y[i]);
  }
  return sum;
}

/* The gradient g of L = w.y in x along a random direction v.  Central differences have the errors h^2 L'''/6 and
   eps sum|w y|/h times the 100 of expect_dense.  A state remembers at most 50 steps and turns by at most 6 a
   step, so a third derivative is at most (50 6)^2 of a first one: 300^2 h^2/6. */
static void expect_gradient(layer *l, const char *label, const sq_real *w, sq_real *x, const sq_real *g,
                            size_t n)
{
  const double h = cbrt(DBL_EPSILON) / 4, allowed = 300.0 * 300 * h * h / 6;
  sq_real *v = sq_calloc(n, sizeof *v, "v"), *x0 = sq_calloc(n, sizeof *x0, "x0");
  double along = 0, size = 0, terms = 0;
  draw(33, n, 1, v);
  memcpy(x0, x, n * sizeof *x);
  for (size_t i = 0; i < n; ++i) {
    along += g[i] * v[i];
    size += g[i] * v[i] * g[i] * v[i];
  }
  for (size_t i = 0; i < n; ++i) x[i] = x0[i] + h * v[i];
  const double up = weighted_output(l, w, &terms);
  for (size_t i = 0; i < n; ++i) x[i] = x0[i] - h * v[i];
  const double down = weighted_output(l, w, &terms);
  memcpy(x, x0, n * sizeof *x);
  EXPECT_NEAR(label, along, (up - down) / (2 * h), allowed * sqrt(size) + 100 * DBL_EPSILON * terms / h);
  if (!(size > 0)) fail_msg("%s: the gradient is zero", label);
  free(x0);
  free(v);
}

static void expect_all_gradients(layer *l)
{
  const fixture *f = &l->f;
  const size_t n = (size_t)(f->rows.nrow * f->dims.D);
  sq_real *w = sq_calloc(n, sizeof *w, "w"), *du = sq_calloc(n, sizeof *du, "du");
  sq_real *g = sq_calloc(f->params.total, sizeof *g, "dtheta");
  char label[800];
  draw(2, n, 1, w);
  for (size_t i = 0; i < f->params.total; ++i) g[i] = 0.25; /* added to, not overwritten */
  layer_forward(l);
  layer_backward(l, w, du, g);
  for (size_t i = 0; i < f->params.total; ++i) g[i] -= 0.25;
  for (int i = 0; i < f->params.n; ++i) {
    const sq_param *p = &f->params.v[i];
    sq_format(label, sizeof label, "%s in %s", p->name, f->text);
    expect_gradient(l, label, w, f->theta + p->offset, g + p->offset, p->count);
  }
  sq_format(label, sizeof label, "u in %s", f->text);
  expect_gradient(l, label, w, f->u, du, n);
  free(g);
  free(du);
  free(w);
}

static void gradients_match_central_differences(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v)
    for (int block = 0; block < 40; block += 16) {
      layer l;
      layer_make(&l, variant_of[v], WIDTH, block, NSEQ, ragged);
      expect_all_gradients(&l);
      layer_free(&l);
    }
}
#endif

/* ---- cuts -------------------------------------------------------------------------------------------- */

typedef struct {
  sq_real *y, *du, *g;
} result;

static result layer_result(layer *l)
{
  const size_t n = (size_t)(l->f.rows.nrow * l->f.dims.D);
  result r = {sq_calloc(n, sizeof(sq_real), "y"), sq_calloc(n, sizeof(sq_real), "du"),
              sq_calloc(l->f.params.total, sizeof(sq_real), "g")};
  sq_real *dy = sq_calloc(n, sizeof *dy, "dy");
  draw(2, n, 1, dy);
  layer_forward(l);
  memcpy(r.y, l->f.y, n * sizeof *r.y);
  layer_backward(l, dy, r.du, r.g);
  free(dy);
  return r;
}

static void result_free(result *r)
{
  free(r->y);
  free(r->du);
  free(r->g);
}

static double largest(size_t n, const sq_real *x)
{
  double top = 0;
  for (size_t i = 0; i < n; ++i) top = fmax(top, fabs((double)x[i]));
  return top;
}

/* The same sums in another order: as in expect_dense, of the largest. */
static void expect_same(const char *label, size_t n, const sq_real *x, const sq_real *y)
{
  const double allowed = 100 * SQ_REAL_EPS * largest(n, y);
  for (size_t i = 0; i < n; ++i) EXPECT_NEAR(label, x[i], y[i], allowed);
}

static void blocks_of_any_size_give_one_answer(void **state)
{
  static const int block[] = {1, 2, 7, 16, 37, 64, 120, 121, 200};
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 0, NSEQ, ragged);
    const size_t n = (size_t)(l.f.rows.nrow * WIDTH);
    result all = layer_result(&l);
    for (size_t k = 0; k < sizeof block / sizeof *block; ++k) {
      layer c;
      layer_make(&c, variant_of[v], WIDTH, block[k], NSEQ, ragged);
      result part = layer_result(&c);
      expect_same(l.f.text, n, part.y, all.y);
      expect_same(l.f.text, n, part.du, all.du);
      for (int i = 0; i < l.f.params.n; ++i) {
        const sq_param *p = &l.f.params.v[i];
        expect_same(p->name, p->count, part.g + p->offset, all.g + p->offset);
      }
      result_free(&part);
      layer_free(&c);
    }
    result_free(&all);
    layer_free(&l);
  }
}

static void the_mixers_own_blocks_are_many_for_a_long_shard(void **state)
{
  static const int len[] = {1500, 700};
  layer l;
  (void)state;
  layer_make(&l, variant_of[1], WIDTH, 0, 2, len);
  assert_true(l.f.m->block < l.f.rows.nrow);
  expect_dense(&l);
  layer_free(&l);
}

static void a_ragged_batch_equals_its_sequences_alone(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 16, NSEQ, ragged);
    result all = layer_result(&l);
    sq_real *dy = sq_calloc((size_t)(l.f.rows.nrow * WIDTH), sizeof *dy, "dy");
    sq_real *g = sq_calloc(l.f.params.total, sizeof *g, "g"), *du = sq_calloc(64 * WIDTH, sizeof *du, "du");
    draw(2, (size_t)(l.f.rows.nrow * WIDTH), 1, dy);
    for (int b = 0; b < NSEQ; ++b) {
      layer one;
      const int at = l.f.off[b] * WIDTH;
      layer_make(&one, variant_of[v], WIDTH, 16, 1, &ragged[b]);
      memcpy(one.f.u, l.f.u + at, (size_t)(ragged[b] * WIDTH) * sizeof *dy);
      layer_forward(&one);
      layer_backward(&one, dy + at, du, g);
      expect_same(l.f.text, (size_t)(ragged[b] * WIDTH), one.f.y, all.y + at);
      expect_same(l.f.text, (size_t)(ragged[b] * WIDTH), du, all.du + at);
      layer_free(&one);
    }
    for (int i = 0; i < l.f.params.n; ++i) {
      const sq_param *p = &l.f.params.v[i];
      expect_same(p->name, p->count, g + p->offset, all.g + p->offset);
    }
    free(du);
    free(g);
    free(dy);
    result_free(&all);
    layer_free(&l);
  }
}

static void output_ignores_the_future_exactly_unless_bidirectional(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v)
    for (int t = 1; t < 37; t += 9) {
      layer l;
      layer_make(&l, variant_of[v], WIDTH, 16, NSEQ, ragged);
      const size_t all = (size_t)(l.f.rows.nrow * WIDTH), past = (size_t)(t * WIDTH), own = 37 * WIDTH;
      sq_real *before = sq_calloc(all, sizeof *before, "y");
      layer_forward(&l);
      memcpy(before, l.f.y, all * sizeof *before);
      draw(4, own - past, 1, l.f.u + past);
      layer_forward(&l);
      if (is_bidirectional(&l))
        assert_memory_not_equal(before, l.f.y, past * sizeof *before);
      else
        assert_memory_equal(before, l.f.y, past * sizeof *before);
      assert_memory_not_equal(before + past, l.f.y + past, (own - past) * sizeof *before);
      assert_memory_equal(before + own, l.f.y + own, (all - own) * sizeof *before); /* other sequences */
      free(before);
      layer_free(&l);
    }
}

/* ---- analysis ---------------------------------------------------------------------------------------- */

static sq_lti lti_make(const layer *l)
{
  sq_lti f = {0};
  l->f.ops->lti_dims(l->f.m, &f);
  assert_int_equal(f.nsystem, 1);
  assert_int_equal(f.dense, 0);
  assert_int_equal(f.nin, l->f.dims.D);
  assert_int_equal(f.nout, l->f.dims.D);
  f.a = sq_calloc((size_t)f.n, sizeof *f.a, "a");
  f.B = sq_calloc((size_t)(f.n * f.nin), sizeof *f.B, "B");
  f.C = sq_calloc((size_t)(f.n * f.nout), sizeof *f.C, "C");
  f.D = sq_calloc((size_t)f.nout, sizeof *f.D, "D");
  assert_int_equal(l->f.ops->lti(l->f.m, l->f.theta, 0, &f), SQ_OK);
  return f;
}

static void lti_free(sq_lti *f)
{
  free(f->a);
  free(f->B);
  free(f->C);
  free(f->D);
}

static void lti_run(const sq_lti *f, int T, const sq_real *u, double *y)
{
  sq_complex *h = sq_calloc((size_t)f->n, sizeof *h, "h");
  for (int t = 0; t < T; ++t) {
    for (int p = 0; p < f->n; ++p) {
      h[p] *= f->a[p];
      for (int d = 0; d < f->nin; ++d) h[p] += f->B[p * f->nin + d] * (double)u[t * f->nin + d];
    }
    for (int d = 0; d < f->nout; ++d) {
      sq_complex sum = 0;
      for (int p = 0; p < f->n; ++p) sum += f->C[d * f->n + p] * h[p];
      y[t * f->nout + d] = creal(sum) + f->D[d] * (double)u[t * f->nin + d];
    }
  }
  free(h);
}

static void the_lti_system_reproduces_the_output(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 0, NSEQ, ragged);
    if (!is_bidirectional(&l)) {
      sq_lti f = lti_make(&l);
      double y[64 * WIDTH];
      layer_forward(&l);
      for (int b = 0; b < NSEQ; ++b) {
        const sq_real *got = l.f.y + l.f.off[b] * WIDTH;
        const int n = ragged[b] * WIDTH;
        lti_run(&f, ragged[b], l.f.u + l.f.off[b] * WIDTH, y);
        for (int i = 0; i < n; ++i)
          EXPECT_NEAR(l.f.text, got[i], y[i], 100 * SQ_REAL_EPS * largest((size_t)n, got));
      }
      lti_free(&f);
    }
    layer_free(&l);
  }
}

/* The causal half of a layer with two directions is what is left when C's other half is 0. */
static void the_lti_system_of_a_bidirectional_layer_is_its_causal_half(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 0, NSEQ, ragged);
    if (is_bidirectional(&l)) {
      const int P = l.f.m->P;
      sq_real *C = tensor(&l.f, l.f.theta, "C");
      double y[64 * WIDTH];
      sq_lti f = lti_make(&l);
      for (int d = 0; d < WIDTH; ++d) memset(C + (2 * d + 1) * 2 * P, 0, (size_t)(2 * P) * sizeof *C);
      layer_forward(&l);
      lti_run(&f, ragged[0], l.f.u, y);
      for (int i = 0; i < ragged[0] * WIDTH; ++i)
        EXPECT_NEAR(l.f.text, l.f.y[i], y[i],
                    100 * SQ_REAL_EPS * largest((size_t)(ragged[0] * WIDTH), l.f.y));
      lti_free(&f);
    }
    layer_free(&l);
  }
}

/* Elementary functions in float64 of the stored parameters: a few roundings, of numbers of at most 1 in modulus
   and exponents of at most 10. */
static void eigenvalues_follow_from_the_stored_parameters(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 0, NSEQ, ragged);
    sq_lti f = lti_make(&l);
    sq_complex *published = sq_calloc((size_t)f.n, sizeof *published, "lambda"), scale;
    int system = -1;
    assert_int_equal(l.f.ops->lti_published(l.f.m, l.f.theta, published, &system), 0);
    for (int p = 0; p < f.n; ++p) {
      sq_complex other = dense_state(&l, p, &scale);
      EXPECT_NEAR(l.f.text, cabs(f.a[p] - other), 0, 40 * DBL_EPSILON);
      if (!is_lru(&l))
        other = cexp(CMPLX(number(&l, "Lambda_re", p), number(&l, "Lambda_im", p)) *
                     exp(number(&l, "log_step", p)));
      EXPECT_NEAR(l.f.text, cabs(published[p] - other), 0, 40 * DBL_EPSILON);
    }
    free(published);
    lti_free(&f);
    layer_free(&l);
  }
}

/* ---- cost -------------------------------------------------------------------------------------------- */

static void bytes_and_operations_grow_linearly_with_the_rows(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    size_t tape[3], scratch[3];
    double flops[3];
    for (int k = 0; k < 3; ++k) {
      const int T = 4096 * (k + 1); /* four blocks or more */
      layer l;
      layer_make(&l, variant_of[v], WIDTH, 0, 1, &T);
      tape[k] = l.f.ops->tape_bytes(l.f.m);
      scratch[k] = l.f.ops->scratch_bytes(l.f.m);
      flops[k] = l.f.ops->flops(l.f.m, 1, &T);
      layer_free(&l);
    }
    /* arrays end at multiples of 64 bytes */
    assert_true(tape[2] - tape[1] <= tape[1] - tape[0] + 128 && tape[1] - tape[0] <= tape[2] - tape[1] + 128);
    assert_true(tape[1] > tape[0]);
    assert_true(scratch[0] == scratch[1] && scratch[1] == scratch[2]);
    EXPECT_NEAR("flops", flops[1], 2 * flops[0], 0);
    EXPECT_NEAR("flops", flops[2], 3 * flops[0], 0);
  }
}

static void a_short_shard_has_no_room_for_blocks_that_it_never_fills(void **state)
{
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    size_t tape[2], scratch[2];
    for (int k = 0; k < 2; ++k) {
      const int T = 16 << k;
      layer l;
      layer_make(&l, variant_of[v], WIDTH, 0, 1, &T);
      tape[k] = l.f.ops->tape_bytes(l.f.m) / (size_t)l.f.m->ndir;
      scratch[k] = l.f.ops->scratch_bytes(l.f.m);
      layer_free(&l);
    }
    assert_true(scratch[1] > scratch[0] && scratch[1] - scratch[0] <= tape[1] - tape[0] + 128);
  }
}

/* ---- start ------------------------------------------------------------------------------------------- */

static void the_lru_starts_on_its_ring_with_normalised_inputs(void **state)
{
  static const int len[] = {3};
  layer l;
  double mean = 0;
  (void)state;
  layer_make(&l, "\"layer\":\"lru\",\"state_dim\":400,\"r_min\":0.6,\"r_max\":0.9,\"max_phase\":2", 4, 0, 1,
             len);
  for (int p = 0; p < 400; ++p) {
    sq_complex scale;
    const sq_complex lambda = dense_state(&l, p, &scale);
    const double area = (cabs(lambda) * cabs(lambda) - 0.36) / (0.81 - 0.36);
    assert_true(area > -100 * SQ_REAL_EPS && area < 1 + 100 * SQ_REAL_EPS);
    assert_true(carg(lambda) > 0 && carg(lambda) < 2 + 100 * SQ_REAL_EPS);
    EXPECT_NEAR("gamma", creal(scale), sqrt(1 - cabs(lambda) * cabs(lambda)), 100 * SQ_REAL_EPS);
    mean += area / 400;
  }
  double square =
      0; /* of B: 1/(2 D) in each part; 5 deviations of a mean of 3200 squares of normal numbers */
  for (int i = 0; i < 400 * 4; ++i) square += pow(number(&l, "B_re", i), 2) + pow(number(&l, "B_im", i), 2);
  EXPECT_NEAR("variance of B", square / 3200 * 2 * 4, 1, 5 * sqrt(2.0 / 3200));
  EXPECT_NEAR("mean area", mean, 0.5,
              5 / sqrt(12.0 * 400)); /* five standard deviations of a mean of uniforms */
  layer_free(&l);
}

/* S = A + p p^T of one block, by its definition. */
static double hippo_normal(int i, int j)
{
  const double A = i > j ? -sqrt((2.0 * i + 1) * (2.0 * j + 1)) : i == j ? -(i + 1.0) : 0;
  return A + sqrt((i + 0.5) * (j + 0.5));
}

typedef struct {
  double mu, P;
} hippo_point;

static void put_point(void *ctx, int j, double mu, double P)
{
  ((hippo_point *)ctx)[j] = (hippo_point){mu, P};
}

/* Entry of the definition: A = V (diag(-1/2 + i omega) - P P^*) V^* with unitary V.  Sums of n products whose
   moduli add up to at most the largest |eigenvalue| or |P|^2.  A root is found to the n roundings of a sum of arctangents,
   and gaps between roots are above 1/2; 10 for the few operations of each term. */
static void hippo_is_diagonal_plus_rank_one_in_the_coordinates_of_its_eigenvectors(void **state)
{
  static const int size[] = {1, 2, 7, 64};
  (void)state;
  for (size_t s = 0; s < sizeof size / sizeof *size; ++s) {
    const int n = size[s];
    double norm = 0;
    sq_complex *V = sq_calloc((size_t)(n * n), sizeof *V, "V");
    hippo_point *h = sq_calloc((size_t)n, sizeof *h, "HiPPO");
    sq_hippo_states(n, put_point, h);
    for (int k = 0; k < n; ++k) {
      sq_complex edge = h[k].P / sqrt(2);
      for (int i = 0; i < n; ++i) V[k * n + i] = conj(sq_hippo_entry(i, h[k].mu, &edge));
      norm += k + 0.5;
      assert_true(h[k].P > 0 && (k == 0 || h[k - 1].mu < h[k].mu));
    }
    norm = fmax(norm, fabs(h[0].mu));
    for (int k = 0; k < n; ++k)
      for (int q = 0; q <= k; ++q) {
        sq_complex product = 0;
        for (int i = 0; i < n; ++i) product += V[k * n + i] * conj(V[q * n + i]);
        EXPECT_NEAR("V^* V", cabs(product - (k == q)), 0, 10 * n * DBL_EPSILON * (1 + norm));
      }
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) {
        sq_complex A = 0, left = 0, right = 0;
        for (int k = 0; k < n; ++k) {
          A += conj(V[k * n + i]) * CMPLX(-0.5, h[k].mu) * V[k * n + j];
          left += conj(V[k * n + i]) * h[k].P;
          right += h[k].P * V[k * n + j];
        }
        const double other = hippo_normal(i, j) - sqrt((i + 0.5) * (j + 0.5));
        EXPECT_NEAR("A", cabs(A - left * right - other), 0, 10 * n * DBL_EPSILON * (1 + norm));
      }
    free(h);
    free(V);
  }
}

/* The numbers behind a tensor: those that init draws before it changes coordinates. */
static void draw_again(const layer *l, const char *name, double fan_in, size_t n, sq_real *x)
{
  sq_rng r;
  char full[128];
  sq_format(full, sizeof full, "layers.0.attention.%s", name);
  sq_rng_init(&r, 7, SQ_STREAM_INIT, (uint64_t)(sq_param_find(&l->f.params, full) - l->f.params.v));
  sq_nn_init_lecun_normal(&r, fan_in, n, x);
}

enum { START_N = 24, START_J = 2, START_BS = START_N / START_J };

/* Row i of S^power B', block diagonal, for column d. */
static double hippo_power(int power, int i, int d, const sq_real *B)
{
  const int from = i / START_BS * START_BS;
  double sum = 0;
  if (power == 0) return (double)B[i * WIDTH + d];
  for (int j = 0; j < START_BS; ++j)
    sum += hippo_normal(i - from, j) * hippo_power(power - 1, from + j, d, B);
  return sum;
}

/* All that the coordinates leave alone: C diag(Lambda)^k B = C' S^k B', with B' and C' as they were drawn.  The
   stored numbers are sums of 12 products, rounded to the working precision, and so are the eigenvalues. */
static void s5_starts_as_the_system_that_it_diagonalises(void **state)
{
  static const int len[] = {3};
  sq_real B[START_N * WIDTH], C[2 * START_N * WIDTH];
  layer l;
  (void)state;
  layer_make(&l, "\"layer\":\"s5\",\"state_dim\":24,\"num_blocks\":2,\"conj_sym\":false", WIDTH, 0, 1, len);
  draw_again(&l, "B", START_N, START_N * WIDTH, B);
  draw_again(&l, "C", START_N * WIDTH, 2 * START_N * WIDTH, C);
  for (int power = 0; power < 3; ++power)
    for (int c = 0; c < WIDTH; ++c)
      for (int d = 0; d < WIDTH; ++d) {
        sq_complex sum = 0, other = 0;
        double size = 0;
        for (int p = 0; p < START_N; ++p) {
          const sq_complex lambda = CMPLX(number(&l, "Lambda_re", p), number(&l, "Lambda_im", p));
          const sq_complex term = dense_C(&l, c * START_N + p) * dense_B(&l, p * WIDTH + d) *
                                  (power == 0   ? 1
                                   : power == 1 ? lambda
                                                : lambda * lambda);
          sum += term;
          size += cabs(term);
          other += CMPLX(C[2 * (p * WIDTH + c)], C[2 * (p * WIDTH + c) + 1]) * hippo_power(power, p, d, B);
        }
        EXPECT_NEAR("C Lambda^k B", cabs(sum - other), 0, 100 * SQ_REAL_EPS * size);
      }
  layer_free(&l);
}

/* Half of each block, and exactly that. */
static void s5_keeps_the_first_half_of_each_block(void **state)
{
  static const int len[] = {3};
  layer all, half;
  (void)state;
  layer_make(&all, "\"layer\":\"s5\",\"state_dim\":24,\"num_blocks\":2,\"conj_sym\":false", WIDTH, 0, 1, len);
  layer_make(&half, "\"layer\":\"s5\",\"state_dim\":24,\"num_blocks\":2", WIDTH, 0, 1, len);
  assert_int_equal(half.f.m->P, START_N / 2);
  for (int p = 0; p < START_N / 2; ++p) {
    const int q = p / (START_BS / 2) * START_BS + p % (START_BS / 2);
    EXPECT_NEAR("Lambda_im", number(&half, "Lambda_im", p), number(&all, "Lambda_im", q), 0);
    assert_true(number(&half, "Lambda_im", p) < 0);
    for (int d = 0; d < WIDTH; ++d) {
      EXPECT_NEAR("B", cabs(dense_B(&half, p * WIDTH + d) - dense_B(&all, q * WIDTH + d)), 0, 0);
      EXPECT_NEAR("C", cabs(dense_C(&half, d * START_N / 2 + p) - 2 * dense_C(&all, d * START_N + q)), 0, 0);
    }
  }
  layer_free(&half);
  layer_free(&all);
}

/* Variances of B: 1/N in modulus.  C in modulus: 2/(N D), 2/N, 1.  Means of n squares of normal numbers have the
   deviation sqrt(2/n), or less for truncated ones; the products with V mix at most n numbers for n results. */
static void s5_starts_with_the_published_variances(void **state)
{
  static const char *const how[] = {"lecun_normal", "trunc_standard_normal", "complex_normal"};
  static const int len[] = {3};
  enum { D = 40, N = 64 };
  const double expected[] = {2.0 / (N * D), 2.0 / N, 1};
  (void)state;
  for (int k = 0; k < 3; ++k)
    for (int pairs = 0; pairs < 2; ++pairs) {
      layer l;
      char text[200];
      double b = 0, c = 0;
      sq_format(text, sizeof text, "\"layer\":\"s5\",\"state_dim\":%d,\"C_init\":\"%s\",\"conj_sym\":%s", N,
                how[k], pairs ? "true" : "false");
      layer_make(&l, text, D, 0, 1, len);
      const int P = l.f.m->P, n = P * D;
      assert_int_equal(P, pairs ? N / 2 : N);
      for (int i = 0; i < n; ++i) {
        b += pow(cabs(pair(&l, "B", i)), 2) / n;
        c += pow(cabs(pair(&l, "C", i)), 2) / n;
      }
      EXPECT_NEAR(l.f.text, b * N, 1, 5 * sqrt(2.0 / n));
      EXPECT_NEAR(l.f.text, c / expected[k], 1, 5 * sqrt(2.0 / n));
      for (int p = 0; p < P; ++p) {
        const double step = number(&l, "log_step", p), half = number(&l, "Lambda_re", p);
        assert_true(step >= log(0.001) - 1e-6 && step <= log(0.1) + 1e-6 && half == -0.5);
        if (pairs) assert_true(number(&l, "Lambda_im", p) < 0);
      }
      layer_free(&l);
    }
}

#ifdef SQ_DOUBLE
/* Where |z| is small, (exp(z) - 1)/Lambda loses all digits when it is evaluated as it stands, and is step in the
   limit.  On either side of the switch to the series at |z| = 1 both forms are good. */
static void zoh_keeps_its_digits_at_small_rates(void **state)
{
  static const double size[] = {0, 1e-12, 1e-6, 0.01, 0.999, 1.001, 3};
  static const int len[] = {3};
  layer l;
  (void)state;
  layer_make(&l, "\"layer\":\"s5\",\"state_dim\":2,\"num_blocks\":1", 1, 0, 1, len);
  for (size_t k = 0; k < sizeof size / sizeof *size; ++k) {
    const double step = 0.5, x = -0.6 * size[k], y = 0.8 * size[k];
    sq_complex B;
    sq_lti f = {.B = &B};
    *tensor(&l.f, l.f.theta, "Lambda_re") = x / step;
    *tensor(&l.f, l.f.theta, "Lambda_im") = y / step;
    *tensor(&l.f, l.f.theta, "log_step") = log(step);
    tensor(&l.f, l.f.theta, "B")[0] = 1;
    tensor(&l.f, l.f.theta, "B")[1] = 0;
    assert_int_equal(l.f.ops->lti(l.f.m, l.f.theta, 0, &f), SQ_OK);
    /* exp(z) - 1 = (expm1 x cos y - 2 sin^2(y/2)) + i e^x sin y */
    const sq_complex top = CMPLX(expm1(x) * cos(y) - 2 * pow(sin(y / 2), 2), exp(x) * sin(y));
    const sq_complex scale = size[k] == 0 ? step : top / CMPLX(x, y) * step;
    EXPECT_NEAR("scale", cabs(B - scale), 0, 20 * DBL_EPSILON * cabs(scale));
  }
  layer_free(&l);
}

static void real_parts_beyond_the_clamp_have_no_gradient(void **state)
{
  layer l;
  int clamped = 0;
  (void)state;
  layer_make(&l, variant_of[4], WIDTH, 0, NSEQ, ragged);
  result r = layer_result(&l);
  const sq_real *re = tensor(&l.f, l.f.theta, "Lambda_re"), *g = tensor(&l.f, r.g, "Lambda_re");
  for (int p = 0; p < l.f.m->P; ++p) {
    assert_true((g[p] == 0) == (re[p] > -1e-4));
    clamped += re[p] > -1e-4;
  }
  assert_true(0 < clamped && clamped < l.f.m->P);
  result_free(&r);
  layer_free(&l);
}
#endif

static void parameters_carry_the_flags_of_both_recipes(void **state)
{
  static const char *const slow[] = {"nu_log",    "theta_log", "gamma_log", "B_re",    "B_im",
                                     "Lambda_re", "Lambda_im", "B",         "log_step"};
  static const char *const published[] = {"Lambda_re", "Lambda_im", "log_step"};
  (void)state;
  for (int v = 0; v < NVARIANT_OF; ++v) {
    layer l;
    layer_make(&l, variant_of[v], WIDTH, 0, NSEQ, ragged);
    for (int i = 0; i < l.f.params.n; ++i) {
      const sq_param *p = &l.f.params.v[i];
      const char *leaf = strrchr(p->name, '.') + 1;
      int is_slow = 0, is_published = 0;
      for (size_t k = 0; k < sizeof slow / sizeof *slow; ++k) is_slow |= strcmp(slow[k], leaf) == 0;
      for (size_t k = 0; k < 3; ++k) is_published |= strcmp(published[k], leaf) == 0;
      assert_int_equal((p->flags & SQ_PARAM_SSM) != 0, is_slow);
      assert_int_equal((p->flags & SQ_PARAM_SSM_PUBLISHED) != 0, is_published);
      assert_int_equal((p->flags & SQ_PARAM_RE_IM) != 0,
                       !is_lru(&l) && (strcmp(leaf, "B") == 0 || strcmp(leaf, "C") == 0));
      assert_int_equal(p->flags & SQ_PARAM_COMPLEX, 0);
    }
    layer_free(&l);
  }
}

static void expect_refused(const char *model, const char *word)
{
  fixture f = {0};
  sq_error_clear();
  sq_format(f.text, sizeof f.text, "{\"model\":{\"hidden_dim\":4,%s}}", model);
  assert_int_equal(sq_experiment_parse(fixture_schema(), f.text, "test", &f.e), SQ_ERR_USAGE);
  if (strstr(sq_error_text(), word) == NULL) fail_msg("\"%s\" does not name %s", sq_error_text(), word);
}

/* Sizes are asked of cells that this process may never train. */
static void s5_is_created_and_sized_before_its_eigenproblem_is_solved(void **state)
{
  fixture f = {.dims = {.D = 4, .seq_len = 8, .max_rows = 8}};
  (void)state;
  sq_format(f.text, sizeof f.text,
            "{\"model\":{\"hidden_dim\":4,\"layer\":\"s5\",\"state_dim\":8192,\"num_blocks\":1}}");
  assert_int_equal(sq_experiment_parse(fixture_schema(), f.text, "test", &f.e), SQ_OK);
  assert_int_equal(sq_mixer_s5.create(sq_experiment_cell(f.e, 0), f.dims, &f.m), SQ_OK);
  assert_true(sq_mixer_s5.scratch_bytes(f.m) > 0);
  for (int k = 0; k < 8192; ++k) assert_true(f.m->hippo[k].mu == 0 && f.m->hippo[k].start == 0);
  sq_mixer_s5.destroy(f.m);
  sq_experiment_destroy(&f.e);
}

static void shapes_that_do_not_exist_are_refused(void **state)
{
  (void)state;
  expect_refused("\"layer\":\"lru\",\"state_dim\":4,\"r_min\":0.9,\"r_max\":0.5", "model.r_max");
  expect_refused("\"layer\":\"lru\",\"state_dim\":4,\"r_max\":1e-200", "model.r_max"); /* log of its square */
  expect_refused("\"layer\":\"lru\",\"state_dim\":4,\"dt_min\":-1", "model.dt_min");
  expect_refused("\"layer\":\"lru\",\"state_dim\":4,\"dt_min\":1,\"dt_max\":0.5", "model.dt_max");
  expect_refused("\"layer\":\"lru\",\"state_dim\":0", "model.state_dim");
  expect_refused("\"layer\":\"s5\",\"state_dim\":12", "model.num_blocks"); /* 8 do not divide 12 */
  expect_refused("\"layer\":\"s5\",\"state_dim\":8", "model.conj_sym");    /* no pairs in blocks of 1 */
  expect_refused("\"layer\":\"s5\",\"state_dim\":65536,\"num_blocks\":2", "model.num_blocks");
  expect_refused("\"layer\":\"s5\",\"state_dim\":16,\"dt_min\":0.2", "model.dt_max");
  expect_refused("\"layer\":\"s5\",\"state_dim\":16,\"discretization\":\"euler\"", "model.discretization");
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forward_equals_the_recurrence_written_out),
#ifdef SQ_DOUBLE
      cmocka_unit_test(gradients_match_central_differences),
#endif
      cmocka_unit_test(blocks_of_any_size_give_one_answer),
      cmocka_unit_test(the_mixers_own_blocks_are_many_for_a_long_shard),
      cmocka_unit_test(a_ragged_batch_equals_its_sequences_alone),
      cmocka_unit_test(output_ignores_the_future_exactly_unless_bidirectional),
      cmocka_unit_test(the_lti_system_reproduces_the_output),
      cmocka_unit_test(the_lti_system_of_a_bidirectional_layer_is_its_causal_half),
      cmocka_unit_test(eigenvalues_follow_from_the_stored_parameters),
      cmocka_unit_test(bytes_and_operations_grow_linearly_with_the_rows),
      cmocka_unit_test(a_short_shard_has_no_room_for_blocks_that_it_never_fills),
      cmocka_unit_test(the_lru_starts_on_its_ring_with_normalised_inputs),
      cmocka_unit_test(hippo_is_diagonal_plus_rank_one_in_the_coordinates_of_its_eigenvectors),
      cmocka_unit_test(s5_starts_as_the_system_that_it_diagonalises),
      cmocka_unit_test(s5_keeps_the_first_half_of_each_block),
      cmocka_unit_test(s5_starts_with_the_published_variances),
#ifdef SQ_DOUBLE
      cmocka_unit_test(zoh_keeps_its_digits_at_small_rates),
      cmocka_unit_test(real_parts_beyond_the_clamp_have_no_gradient),
#endif
      cmocka_unit_test(parameters_carry_the_flags_of_both_recipes),
      cmocka_unit_test(s5_is_created_and_sized_before_its_eigenproblem_is_solved),
      cmocka_unit_test(shapes_that_do_not_exist_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
