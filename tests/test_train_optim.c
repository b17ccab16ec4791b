/* tests/test_train_optim.c: the optimiser, the learning rates and the order of sums, without any model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../src/train/train_impl.h"
#include "sq/rng.h"

static void expect_near(double got, double expected, double allowed, const char *what)
{
  if (!(fabs(got - expected) <= allowed)) {
    fail_msg("%s: got %.17g, expected %.17g, allowed %.3g", what, got, expected, allowed);
  }
}

/* Two matrices that decay, a bias that does not; sizes that leave a tail after the vector loop and gaps
 * between tensors. */
static sq_param_list three_tensors(void)
{
  sq_param_list l = {0};
  (void)sq_param_add(&l, 0, 2, (const int[]){7, 5}, "a");
  (void)sq_param_add(&l, SQ_PARAM_NO_DECAY, 1, (const int[]){3}, "b");
  (void)sq_param_add(&l, 0, 2, (const int[]){64, 33}, "c");
  return l;
}

static void draw(const sq_param_list *l, uint64_t index, double scale, sq_real *x)
{
  sq_rng rng;
  sq_rng_init(&rng, 7, SQ_STREAM_TEST, index);
  for (int p = 0; p < l->n; ++p) {
    for (size_t i = 0; i < l->v[p].count; ++i) x[l->v[p].offset + i] = (sq_real)(scale * sq_rng_normal(&rng));
  }
}

typedef struct {
  sq_real *g, *m, *v, *theta;
} vectors;

static vectors vectors_create(size_t n)
{
  return (vectors){sq_calloc(n, sizeof(sq_real), "g"), sq_calloc(n, sizeof(sq_real), "m"),
                   sq_calloc(n, sizeof(sq_real), "v"), sq_calloc(n, sizeof(sq_real), "theta")};
}

static void vectors_destroy(vectors *x)
{
  free(x->g);
  free(x->m);
  free(x->v);
  free(x->theta);
}

/* Values of the formula in the header of optim.c, worked out with 40 decimal digits. */
static void adamw_gives_the_values_of_the_formula(void **state)
{
  (void)state;
  const double lr = 0.1, wd = 0.01;
  sq_param_list l = {0};
  (void)sq_param_add(&l, 0, 2, (const int[]){1, 2}, "w");
  sq_real m[2] = {0, 0}, v[2] = {0, 0}, one[2] = {1, 0};
  sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = wd, .clip = 0};
  const double tol = 32 * (double)SQ_REAL_EPS; /* about 10 roundings a step, values up to 2 */

  double norm = sq_adamw_step(&o, &l, lr, lr, 1, (const sq_real[]){(sq_real)0.5, 0}, m, v, one);
  expect_near(norm, 0.5, 1e-15, "norm");
  (void)sq_adamw_step(&o, &l, lr, lr, 2, (const sq_real[]){(sq_real)-0.25, 0}, m, v, one);
  expect_near((double)one[0], 0.87146729870584616259, tol, "two steps");

  sq_real cm[2] = {0, 0}, cv[2] = {0, 0}, two[2] = {1, -2};
  o.clip = 1;
  norm = sq_adamw_step(&o, &l, lr, lr, 1, (const sq_real[]){3, 4}, cm, cv, two);
  expect_near(norm, 5, 1e-15, "norm before clipping");
  (void)sq_adamw_step(&o, &l, lr, lr, 2, (const sq_real[]){(sq_real)-0.25, (sq_real)0.5}, cm, cv, two);
  expect_near((double)two[0], 0.86488690510486424847, tol, "clipped, first");
  expect_near((double)two[1], -2.1921682001384192115, tol, "clipped, second");
  sq_param_clear(&l);
}

/* The same formula, one number at a time in float64. */
static void adamw_equals_a_plain_loop_in_double(void **state)
{
  (void)state;
  enum { STEPS = 20 };
  sq_param_list l = three_tensors();
  vectors x = vectors_create(l.total);
  double *m = sq_calloc(l.total, sizeof *m, "m"), *v = sq_calloc(l.total, sizeof *v, "v");
  double *theta = sq_calloc(l.total, sizeof *theta, "theta");
  const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};

  draw(&l, 0, 1, x.theta);
  for (size_t i = 0; i < l.total; ++i) theta[i] = (double)x.theta[i];
  for (int t = 1; t <= STEPS; ++t) {
    const double lr = 1e-2 / t;
    draw(&l, (uint64_t)t, t % 2 == 0 ? 1 : 1e-3, x.g); /* clipped, not clipped */
    double squares = 0;
    for (size_t i = 0; i < l.total; ++i) squares += (double)x.g[i] * (double)x.g[i];
    const double clip = fmin(1, o.clip / (sqrt(squares) + 1e-6));
    for (int p = 0; p < l.n; ++p) {
      for (size_t i = l.v[p].offset; i < l.v[p].offset + l.v[p].count; ++i) {
        const double g = (double)x.g[i] * clip, wd = l.v[p].flags & SQ_PARAM_NO_DECAY ? 0 : o.weight_decay;
        m[i] = o.beta1 * m[i] + (1 - o.beta1) * g;
        v[i] = o.beta2 * v[i] + (1 - o.beta2) * g * g;
        theta[i] = theta[i] * (1 - lr * wd) -
                   lr * (m[i] / (1 - pow(o.beta1, t))) / (sqrt(v[i] / (1 - pow(o.beta2, t))) + o.eps);
      }
    }
    const double norm = sq_adamw_step(&o, &l, lr, lr, t, x.g, x.m, x.v, x.theta);
    expect_near(norm, sqrt(squares), 1e-13 * norm, "norm"); /* n eps/2 of a sum of squares: 2150 x 1e-16 */
  }
  /* A step rounds theta (up to 4 here) once or twice. */
  for (size_t i = 0; i < l.total; ++i)
    expect_near((double)x.theta[i], theta[i], STEPS * 8 * (double)SQ_REAL_EPS, "theta");
  free(m);
  free(v);
  free(theta);
  vectors_destroy(&x);
  sq_param_clear(&l);
}

static void only_recipe_published_decays_tensors_that_ask_not_to(void **state)
{
  (void)state;
  for (int decay_all = 0; decay_all < 2; ++decay_all) {
    const sq_adamw o = {.beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 1e-8,
                        .weight_decay = 0.5,
                        .clip = 1,
                        .rule = decay_all ? SQ_RULE_TORCH : SQ_RULE_CORRECTED};
    sq_param_list l = three_tensors();
    vectors x = vectors_create(l.total);
    for (size_t i = 0; i < l.total; ++i) x.theta[i] = 1; /* the gaps too: they must stay */
    (void)sq_adamw_step(&o, &l, 0.5, 0.5, 1, x.g, x.m, x.v, x.theta);
    const sq_param *w = sq_param_find(&l, "a"), *bias = sq_param_find(&l, "b");
    assert_true(x.theta[w->offset] == (sq_real)0.75);
    assert_true(x.theta[bias->offset] == (decay_all ? (sq_real)0.75 : 1));
    assert_true(bias->offset > w->offset + w->count);
    assert_true(x.theta[w->offset + w->count] == 1);
    vectors_destroy(&x);
    sq_param_clear(&l);
  }
}

/* A matrix, a complex state-space tensor of both groups, a real one of the corrected group only, running
 * statistics. */
static sq_param_list state_space_tensors(void)
{
  sq_param_list l = {0};
  (void)sq_param_add(&l, 0, 2, (const int[]){3, 4}, "w");
  (void)sq_param_add(&l, SQ_PARAM_RE_IM | SQ_PARAM_COMPLEX | SQ_PARAM_SSM | SQ_PARAM_SSM_PUBLISHED, 3,
                     (const int[]){5, 3, 2}, "p");
  (void)sq_param_add(&l, SQ_PARAM_SSM, 2, (const int[]){2, 9}, "nu");
  (void)sq_param_add(&l, SQ_PARAM_BUFFER, 1, (const int[]){6}, "mean");
  return l;
}

/* Three steps of the published definitions with C's complex numbers, for one complex entry of index i. */
static double _Complex complex_entry(sq_complex_rule rule, double lr, double _Complex theta,
                                     const double _Complex g[3])
{
  double _Complex m = 0;
  double v = 0;
  for (int t = 1; t <= 3; ++t) {
    const double _Complex used = rule == SQ_COMPLEX_LITERAL ? conj(g[t - 1]) : g[t - 1];
    m = 0.9 * m + (1 - 0.9) * used;
    v = 0.999 * v + (1 - 0.999) * creal(used * conj(used));
    theta -= lr * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
  }
  return theta;
}

static void complex_tensors_follow_the_chosen_rule(void **state)
{
  (void)state;
  const double ssm_lr = 0.02;
  for (int rule = SQ_COMPLEX_CONJ; rule <= SQ_COMPLEX_SPLIT; ++rule) {
    sq_param_list l = state_space_tensors();
    vectors x = vectors_create(l.total);
    const sq_param *p = sq_param_find(&l, "p");
    double _Complex g[15][3], theta[15];
    const sq_adamw o = {.beta1 = 0.9,
                        .beta2 = 0.999,
                        .eps = 1e-8,
                        .weight_decay = 0.3,
                        .rule = SQ_RULE_JAX,
                        .complex_rule = (sq_complex_rule)rule};
    draw(&l, 100, 1, x.theta);
    for (size_t i = 0; i < 15; ++i)
      theta[i] = CMPLX((double)x.theta[p->offset + 2 * i], (double)x.theta[p->offset + 2 * i + 1]);
    for (int t = 1; t <= 3; ++t) {
      draw(&l, 100 + (uint64_t)t, 1, x.g);
      for (size_t i = 0; i < 15; ++i)
        g[i][t - 1] = CMPLX((double)x.g[p->offset + 2 * i], (double)x.g[p->offset + 2 * i + 1]);
      (void)sq_adamw_step(&o, &l, 0.1, ssm_lr, t, x.g, x.m, x.v, x.theta);
    }
    for (size_t i = 0; i < 15; ++i) {
      double _Complex want;
      if (rule == SQ_COMPLEX_SPLIT) { /* two real numbers */
        const double _Complex re[3] = {creal(g[i][0]), creal(g[i][1]), creal(g[i][2])};
        const double _Complex im[3] = {cimag(g[i][0]), cimag(g[i][1]), cimag(g[i][2])};
        want = CMPLX(creal(complex_entry(SQ_COMPLEX_CONJ, ssm_lr, creal(theta[i]), re)),
                     creal(complex_entry(SQ_COMPLEX_CONJ, ssm_lr, cimag(theta[i]), im)));
      } else {
        want = complex_entry((sq_complex_rule)rule, ssm_lr, theta[i], g[i]);
      }
      /* three steps, each with some ten roundings of numbers up to 4 */
      expect_near((double)x.theta[p->offset + 2 * i], creal(want), 128 * (double)SQ_REAL_EPS, "re");
      expect_near((double)x.theta[p->offset + 2 * i + 1], cimag(want), 128 * (double)SQ_REAL_EPS, "im");
    }
    vectors_destroy(&x);
    sq_param_clear(&l);
  }
}

/* With a zero gradient a step is the decay alone; with a large one it is the rate alone. */
static void the_state_space_group_has_its_own_rate_and_no_decay(void **state)
{
  (void)state;
  static const struct {
    sq_decay_rule rule;
    int p, nu; /* in the group */
  } expected[] = {{SQ_RULE_CORRECTED, 1, 1}, {SQ_RULE_JAX, 1, 0}, {SQ_RULE_TORCH, 0, 0}};
  for (size_t k = 0; k < sizeof expected / sizeof *expected; ++k) {
    sq_param_list l = state_space_tensors();
    vectors x = vectors_create(l.total);
    const sq_adamw o = {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.5, .rule = expected[k].rule};
    const size_t w = sq_param_find(&l, "w")->offset, p = sq_param_find(&l, "p")->offset,
                 nu = sq_param_find(&l, "nu")->offset;
    x.theta[w] = x.theta[p] = x.theta[nu] = 1;
    (void)sq_adamw_step(&o, &l, 0.5, 0.25, 1, x.g, x.m, x.v, x.theta);
    assert_true(x.theta[w] == (sq_real)0.75);
    assert_true(x.theta[p] == (expected[k].p ? 1 : (sq_real)0.75));
    assert_true(x.theta[nu] == (expected[k].nu ? 1 : (sq_real)0.75));

    vectors_destroy(&x);
    x = vectors_create(l.total);
    x.g[w] = x.g[p] = x.g[nu] = 8;
    (void)sq_adamw_step(&o, &l, 0.5, 0.25, 1, x.g, x.m, x.v, x.theta);
    const double tol = 16 * (double)SQ_REAL_EPS; /* g/|g| after bias correction, and eps/|g| = 1e-9 */
    expect_near((double)x.theta[w], -0.5, tol + 1e-8, "w");
    expect_near((double)x.theta[p], expected[k].p ? -0.25 : -0.5, tol + 1e-8, "p");
    expect_near((double)x.theta[nu], expected[k].nu ? -0.25 : -0.5, tol + 1e-8, "nu");
    vectors_destroy(&x);
    sq_param_clear(&l);
  }
}

static void running_statistics_move_by_a_hundredth_and_are_in_no_norm(void **state)
{
  (void)state;
  sq_param_list l = state_space_tensors();
  vectors x = vectors_create(l.total);
  const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.5, .clip = 1};
  const size_t mean = sq_param_find(&l, "mean")->offset, w = sq_param_find(&l, "w")->offset;
  x.theta[mean] = 2;
  x.g[mean] = 1e6; /* a value, not a slope: neither clips nor is clipped */
  x.g[w] = (sq_real)0.5;
  const double norm = sq_adamw_step(&o, &l, 0.5, 0.5, 1, x.g, x.m, x.v, x.theta);
  assert_true(norm == 0.5);
  expect_near((double)x.theta[mean], 0.99 * 2 + 0.01 * 1e6, 4e4 * (double)SQ_REAL_EPS, "mean");
  assert_true(x.m[mean] == 0 && x.v[mean] == 0);
  vectors_destroy(&x);
  sq_param_clear(&l);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state)
{
  (void)state;
  const sq_adamw o = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
  const double bad[] = {NAN, INFINITY, -INFINITY};
  sq_param_list l = three_tensors();
  vectors x = vectors_create(l.total), before = vectors_create(l.total);
  const size_t bytes = l.total * sizeof(sq_real);
  for (int k = 0; k < 3; ++k) {
    for (int p = 0; p < l.n; ++p) {
      draw(&l, 1, 1, x.theta);
      draw(&l, 2, 1, x.m);
      draw(&l, 3, 1, x.g);
      x.g[l.v[p].offset + l.v[p].count - 1] = (sq_real)bad[k];
      memcpy(before.theta, x.theta, bytes);
      memcpy(before.m, x.m, bytes);
      memcpy(before.v, x.v, bytes);
      assert_false(isfinite(sq_adamw_step(&o, &l, 0.1, 0.1, 1, x.g, x.m, x.v, x.theta)));
      assert_memory_equal(before.theta, x.theta, bytes);
      assert_memory_equal(before.m, x.m, bytes);
      assert_memory_equal(before.v, x.v, bytes);
    }
  }
  vectors_destroy(&x);
  vectors_destroy(&before);
  sq_param_clear(&l);
}

/* ---- the tree ---------------------------------------------------------------------------------------- */

#define TREE_N 37
__attribute__((noinline)) static sq_real tree_value(int s, int i)
{
  /* Far apart in size, so that another order of the sum rounds to another value. */
  static const double size[SQ_MAX_SHARDS] = {1,    1e9,  -1e9, 3e-5, 7e4, -1e9, 1e9, 0.3,
                                             -2e8, 5e-3, 2e8,  1e9,  3,   -1e9, 11,  -7e4};
  return (sq_real)(size[s] * (1 + 0.37 * i));
}

static void tree_leaf(void *user, int s, sq_real *out)
{
  int *calls = user;
  for (int i = 0; i < TREE_N; ++i) {
    assert_true(out[i] == 0);
    out[i] += tree_value(s, i);
  }
  ++*calls;
}

static sq_real tree_expected(int S, int i)
{
  sq_real x[SQ_MAX_SHARDS] = {0};
  for (int s = 0; s < S; ++s) x[s] = tree_value(s, i);
  switch (S) {
  case 1: return x[0];
  case 2: return x[0] + x[1];
  case 3: return (x[0] + x[1]) + x[2];
  case 4: return (x[0] + x[1]) + (x[2] + x[3]);
  case 5: return ((x[0] + x[1]) + (x[2] + x[3])) + x[4];
  case 6: return ((x[0] + x[1]) + (x[2] + x[3])) + (x[4] + x[5]);
  case 7: return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + x[6]);
  }
  const sq_real eight = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
  switch (S) {
  case 8: return eight;
  case 9: return eight + x[8];
  case 10: return eight + (x[8] + x[9]);
  case 11: return eight + ((x[8] + x[9]) + x[10]);
  case 12: return eight + ((x[8] + x[9]) + (x[10] + x[11]));
  case 13: return eight + (((x[8] + x[9]) + (x[10] + x[11])) + x[12]);
  case 14: return eight + (((x[8] + x[9]) + (x[10] + x[11])) + (x[12] + x[13]));
  case 15: return eight + (((x[8] + x[9]) + (x[10] + x[11])) + ((x[12] + x[13]) + x[14]));
  default: return eight + (((x[8] + x[9]) + (x[10] + x[11])) + ((x[12] + x[13]) + (x[14] + x[15])));
  }
}

static void shards_are_summed_in_the_documented_tree(void **state)
{
  (void)state;
  sq_real buffer[SQ_TREE_BUFFERS][TREE_N] = {{0}}, out[TREE_N];
  int differs = 0;
  for (int S = 1; S <= SQ_MAX_SHARDS; ++S) {
    int calls = 0;
    double value[SQ_MAX_SHARDS];
    sq_tree t = {.nshard = S,
                 .nrange = 2,
                 .range = {{0, 1}, {1, TREE_N - 1}},
                 .leaf = tree_leaf,
                 .user = &calls,
                 .buffer = {buffer[0], buffer[1], buffer[2], buffer[3]}};
    for (int i = 0; i < TREE_N; ++i) out[i] = 0;
    sq_tree_add(&t, out);
    assert_int_equal(calls, S);
    for (int i = 0; i < TREE_N; ++i) {
      sq_real in_a_row = 0;
      for (int s = 0; s < S; ++s) in_a_row += tree_value(s, i);
      differs += in_a_row != tree_expected(S, i);
      assert_true(out[i] == tree_expected(S, i));
      for (int l = 0; l < SQ_TREE_BUFFERS; ++l) assert_true(buffer[l][i] == 0);
    }
#ifdef SQ_DOUBLE
    for (int s = 0; s < S; ++s) value[s] = tree_value(s, 3);
    assert_true(sq_tree_sum_double(S, value) == tree_expected(S, 3));
#else
    for (int s = 0; s < S; ++s) value[s] = 1 + s;
    assert_true(sq_tree_sum_double(S, value) == S * (S + 1) / 2);
#endif
  }
  assert_true(differs > 0); /* the values do tell orders apart */
}

/* The last shard has done with the numbers from CUT on, and others read their sum before the walk has ended. */
enum { CUT = 20 };
typedef struct {
  sq_tree tree;
  sq_real out[TREE_N];
  int calls, early;
} early_walk;

static void leaf_that_ends_early(void *user, int s, sq_real *out)
{
  early_walk *w = user;
  tree_leaf(&w->calls, s, out);
  if (s + 1 < w->tree.nshard) return;
  sq_tree_add_early(&w->tree, 0, sq_tree_levels(w->tree.nshard), CUT, TREE_N - CUT, w->out);
  w->tree.range[0][1] = CUT;
  for (int i = CUT; i < TREE_N; ++i) w->early += w->out[i] == tree_expected(w->tree.nshard, i);
}

static void what_the_last_shard_has_done_with_is_summed_early(void **state)
{
  (void)state;
  sq_real buffer[SQ_TREE_BUFFERS][TREE_N] = {{0}};
  for (int S = 1; S <= SQ_MAX_SHARDS; ++S) {
    early_walk w = {.tree = {.nshard = S,
                             .nrange = 1,
                             .range = {{0, TREE_N}},
                             .leaf = leaf_that_ends_early,
                             .buffer = {buffer[0], buffer[1], buffer[2], buffer[3]}}};
    w.tree.user = &w;
    sq_tree_add(&w.tree, w.out);
    assert_int_equal(w.early, TREE_N - CUT);
    for (int i = 0; i < TREE_N; ++i) assert_true(w.out[i] == tree_expected(S, i));
  }
}

/* ---- learning rates ---------------------------------------------------------------------------------- */

static void corrected_schedule_warms_up_from_step_0_and_ends_at_lr_min(void **state)
{
  (void)state;
  const double pi = acos(-1.0);
  const sq_schedule s = {
      .kind = SQ_SCHEDULE_CORRECTED, .lr = 1e-2, .lr_min = 1e-5, .warmup = 40, .total = 400, .cosine = 1};
  expect_near(sq_schedule_rate(&s, 0), 1e-2 / 40, 1e-18, "step 0");
  expect_near(sq_schedule_rate(&s, 39), 1e-2, 1e-17, "end of the warm-up");
  expect_near(sq_schedule_rate(&s, 40), 1e-2, 1e-17, "start of the cosine");
  expect_near(sq_schedule_rate(&s, 220), (1e-2 + 1e-5) / 2, 1e-17, "half way");
  expect_near(sq_schedule_rate(&s, 130), 1e-5 + (1e-2 - 1e-5) * (1 + cos(pi / 4)) / 2, 1e-16, "a quarter");
  expect_near(sq_schedule_rate(&s, 400), 1e-5, 0, "the end");
  for (long n = 1; n < 400; ++n) {
    const double d = sq_schedule_rate(&s, n) - sq_schedule_rate(&s, n - 1);
    assert_true(n < 40 ? d > 0 : n == 40 ? fabs(d) < 1e-17 : d < 0);
  }
  sq_schedule constant = s;
  constant.cosine = 0;
  expect_near(sq_schedule_rate(&constant, 20), 1e-2 * 21 / 40, 1e-17, "warm-up of the constant schedule");
  expect_near(sq_schedule_rate(&constant, 399), 1e-2, 0, "constant after the warm-up");
  const sq_schedule short_run = {
      .kind = SQ_SCHEDULE_CORRECTED, .lr = 1, .lr_min = 0, .warmup = 40, .total = 10, .cosine = 1};
  expect_near(sq_schedule_rate(&short_run, 9), 0.25, 0, "a run shorter than its warm-up");
}

static void published_schedules_keep_their_quirks(void **state)
{
  (void)state;
  const double pi = acos(-1.0);
  const sq_schedule torch = {
      .kind = SQ_SCHEDULE_TORCH, .lr = 1e-2, .lr_min = 5e-6, .warmup = 40, .total = 400};
  expect_near(sq_schedule_rate(&torch, 0), 1e-2 / 40, 1e-17, "torch: dampened");
  expect_near(sq_schedule_rate(&torch, 39), 5e-6 + (1e-2 - 5e-6) * (1 + cos(pi * 39 / 400)) / 2, 1e-17,
              "torch: the cosine runs during the warm-up");
  const sq_schedule bare = {.kind = SQ_SCHEDULE_TORCH, .lr = 1e-2, .lr_min = 5e-6, .warmup = 0, .total = 400};
  assert_true(sq_schedule_rate(&bare, 0) == 1e-2 && sq_schedule_rate(&bare, 399) == 1e-2);

  const sq_schedule jax = {.kind = SQ_SCHEDULE_JAX, .lr = 1e-2, .lr_min = 1e-7, .warmup = 40, .total = 400};
  assert_true(sq_schedule_rate(&jax, 0) == 1e-2); /* the first step runs at the full rate */
  expect_near(sq_schedule_rate(&jax, 1), 1e-2 / 40, 1e-17, "jax: after the first step");
  expect_near(sq_schedule_rate(&jax, 41), 1e-7 + (1e-2 - 1e-7) * (1 + cos(pi * 40 / 360)) / 2, 1e-17,
              "jax: the cosine starts part-way down");
  assert_true(sq_schedule_rate(&jax, 361) == 1e-7 && sq_schedule_rate(&jax, 399) == 1e-7);

  const sq_schedule constant = {.kind = SQ_SCHEDULE_CONSTANT, .lr = 3e-4};
  assert_true(sq_schedule_rate(&constant, 0) == 3e-4 && sq_schedule_rate(&constant, 12345) == 3e-4);
}

static void plateau_rule_counts_evaluations_without_improvement(void **state)
{
  (void)state;
  const double metric[] = {0.1, 0.2, 0.2, 0.1, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3};
  const double factor[] = {1, 1, 1, 1, 0.5, 1, 1, 1, 0.5, 1, 1, 0.5};
  sq_plateau p = {.factor = 0.5, .patience = 2};
  for (size_t i = 0; i < sizeof metric / sizeof *metric; ++i)
    assert_true(sq_plateau_update(&p, metric[i]) == factor[i]);

  sq_plateau low = {.factor = 0.5, .patience = 0}; /* the first value is an improvement, whatever it is */
  assert_true(sq_plateau_update(&low, -100) == 1);
  assert_true(sq_plateau_update(&low, -100) == 0.5);
}

static void snapshots_are_spread_over_the_run(void **state)
{
  (void)state;
  const long expected[8] = {111, 222, 333, 444, 556, 667, 778, 889};
  for (int k = 1; k <= 8; ++k) assert_int_equal(sq_train_snapshot_step(1000, 8, k), expected[k - 1]);
  assert_int_equal(sq_train_snapshot_step(5, 1, 1), 3); /* 2.5 is rounded up */
  for (int S = 1; S <= 16; ++S) {
    for (int k = 1; k <= S; ++k) {
      const long step = sq_train_snapshot_step(3, S, k);
      assert_true(0 <= step && step <= 3);
    }
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(adamw_gives_the_values_of_the_formula),
      cmocka_unit_test(adamw_equals_a_plain_loop_in_double),
      cmocka_unit_test(only_recipe_published_decays_tensors_that_ask_not_to),
      cmocka_unit_test(complex_tensors_follow_the_chosen_rule),
      cmocka_unit_test(the_state_space_group_has_its_own_rate_and_no_decay),
      cmocka_unit_test(running_statistics_move_by_a_hundredth_and_are_in_no_norm),
      cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
      cmocka_unit_test(shards_are_summed_in_the_documented_tree),
      cmocka_unit_test(what_the_last_shard_has_done_with_is_summed_early),
      cmocka_unit_test(corrected_schedule_warms_up_from_step_0_and_ends_at_lr_min),
      cmocka_unit_test(published_schedules_keep_their_quirks),
      cmocka_unit_test(plateau_rule_counts_evaluations_without_improvement),
      cmocka_unit_test(snapshots_are_spread_over_the_run),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
