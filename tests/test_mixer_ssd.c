/* tests/test_mixer_ssd.c: the chunked recurrence and the Mamba-2 mixers against their definitions. */
#include "../src/mixer/ssd.h"
#include "mixer_fixture.h"

/* ---- the recurrence, step by step in float64 --------------------------------------------------------- */

enum { MAX_T = 150, MAX_H = 4, MAX_E = 24, MAX_N = 20 };

typedef struct {
  int T, H, hd, N, gained;
} shape;

typedef struct { /* inputs as numbers of float64, gradients, and the output */
  double x[MAX_T][MAX_E], B[MAX_T][MAX_N], C[MAX_T][MAX_N], lambda[MAX_T][MAX_H], gain[MAX_T][MAX_H],
      skip[MAX_H], dy[MAX_T][MAX_E];
  double y[MAX_T][MAX_E], dx[MAX_T][MAX_E], dB[MAX_T][MAX_N], dC[MAX_T][MAX_N], dlog[MAX_T][MAX_H],
      dgain[MAX_T][MAX_H], dskip[MAX_H];
} numbers;

static double state[MAX_T + 1][MAX_N][MAX_E]; /* state[t+1] = S_t */

static void step_by_step(const shape *s, numbers *z)
{
  const int E = s->H * s->hd;
  memset(z->y, 0, offsetof(numbers, dskip) + sizeof z->dskip - offsetof(numbers, y));
  memset(state[0], 0, sizeof state[0]);
  for (int t = 0; t < s->T; ++t)
    for (int e = 0; e < E; ++e) {
      const int h = e / s->hd;
      z->y[t][e] = z->skip[h] * z->x[t][e];
      for (int n = 0; n < s->N; ++n) {
        state[t + 1][n][e] = z->lambda[t][h] * state[t][n][e] + z->gain[t][h] * z->B[t][n] * z->x[t][e];
        z->y[t][e] += z->C[t][n] * state[t + 1][n][e];
      }
    }
  for (int e = 0; e < E; ++e)
    for (int n = 0; n < s->N; ++n) {
      const int h = e / s->hd;
      double dS = 0;
      for (int t = s->T - 1; t >= 0; --t) {
        dS = (t + 1 < s->T ? z->lambda[t + 1][h] * dS : 0) + z->C[t][n] * z->dy[t][e];
        z->dC[t][n] += state[t + 1][n][e] * z->dy[t][e];
        z->dB[t][n] += dS * z->gain[t][h] * z->x[t][e];
        z->dx[t][e] += dS * z->gain[t][h] * z->B[t][n];
        z->dgain[t][h] += dS * z->x[t][e] * z->B[t][n];
        z->dlog[t][h] += dS * z->lambda[t][h] * state[t][n][e];
      }
    }
  for (int t = 0; t < s->T; ++t)
    for (int e = 0; e < E; ++e) {
      z->dx[t][e] += z->skip[e / s->hd] * z->dy[t][e];
      z->dskip[e / s->hd] += z->dy[t][e] * z->x[t][e];
    }
}

/* Decays of all sizes: 0, 1, near 1, and so small that their products underflow. */
static double some_lambda(sq_rng *r)
{
  const double u = sq_rng_uniform(r), v = sq_rng_uniform(r);
  return u < 0.05 ? 0 : u < 0.1 ? 1 : u < 0.2 ? exp(-80 * v) : u < 0.5 ? v : exp(-0.1 * v);
}

static double working(double x)
{
  return (double)(sq_real)x;
}

static void draw_numbers(const shape *s, numbers *z)
{
  const int E = s->H * s->hd;
  sq_rng r;
  sq_rng_init(&r, 3, SQ_STREAM_TEST, (uint64_t)(s->T + 1000 * s->N));
  for (int t = 0; t < s->T; ++t) {
    for (int e = 0; e < E; ++e) z->x[t][e] = working(sq_rng_normal(&r));
    for (int e = 0; e < E; ++e) z->dy[t][e] = working(sq_rng_normal(&r));
    for (int n = 0; n < s->N; ++n) z->B[t][n] = working(sq_rng_normal(&r));
    for (int n = 0; n < s->N; ++n) z->C[t][n] = working(sq_rng_normal(&r));
    for (int h = 0; h < s->H; ++h) z->lambda[t][h] = working(some_lambda(&r));
    for (int h = 0; h < s->H; ++h) z->gain[t][h] = s->gained ? working(sq_rng_uniform(&r)) : 1;
  }
  for (int h = 0; h < s->H; ++h) z->skip[h] = working(sq_rng_normal(&r));
}

/* All formulas are sums of products: the same ones of the absolute values bound what rounding can do. */
static void take_sizes(const numbers *z, numbers *size)
{
  const double *from = &z->x[0][0];
  double *to = &size->x[0][0];
  for (size_t i = 0; i < offsetof(numbers, y) / sizeof(double); ++i) to[i] = fabs(from[i]);
}

typedef struct { /* rows wider than needed: strides must be used */
  sq_real x[MAX_T][MAX_E + 3], B[MAX_T][MAX_N + 2], C[MAX_T][MAX_N + 1], dy[MAX_T][MAX_E + 5],
      lambda[MAX_T * MAX_H], gain[MAX_T * MAX_H], skip[MAX_H];
  sq_real y[MAX_T][MAX_E + 5], dx[MAX_T][MAX_E + 3], dB[MAX_T][MAX_N + 2], dC[MAX_T][MAX_N + 1],
      dlog[MAX_T * MAX_H], dgain[MAX_T * MAX_H];
  double dskip[MAX_H];
} arrays;

static sq_ssd load(const shape *s, int chunk, const numbers *z, arrays *a)
{
  const int H = s->H;
  memset(a, 0xff, sizeof *a);
  for (int t = 0; t < s->T; ++t) {
    for (int e = 0; e < H * s->hd; ++e) a->x[t][e] = (sq_real)z->x[t][e];
    for (int e = 0; e < H * s->hd; ++e) a->dy[t][e] = (sq_real)z->dy[t][e];
    for (int n = 0; n < s->N; ++n) a->B[t][n] = (sq_real)z->B[t][n];
    for (int n = 0; n < s->N; ++n) a->C[t][n] = (sq_real)z->C[t][n];
    for (int h = 0; h < H; ++h) a->lambda[t * H + h] = (sq_real)z->lambda[t][h];
    for (int h = 0; h < H; ++h) a->gain[t * H + h] = (sq_real)z->gain[t][h];
  }
  for (int h = 0; h < H; ++h) a->skip[h] = (sq_real)z->skip[h];
  for (int h = 0; h < H; ++h) a->dskip[h] = 0;
  return (sq_ssd){.T = s->T,
                  .n = s->T,
                  .H = H,
                  .hd = s->hd,
                  .N = s->N,
                  .chunk = chunk,
                  .ldx = MAX_E + 3,
                  .ldb = MAX_N + 2,
                  .ldc = MAX_N + 1,
                  .x = a->x[0],
                  .B = a->B[0],
                  .C = a->C[0],
                  .lambda = a->lambda,
                  .gain = s->gained ? a->gain : NULL,
                  .skip = a->skip};
}

static void run_chunked(const shape *s, int chunk, const numbers *z, arrays *a)
{
  const sq_ssd in = load(s, chunk, z, a);
  const sq_ssd_grad g = {.dy = a->dy[0],
                         .ldy = MAX_E + 5,
                         .dx = a->dx[0],
                         .dB = a->dB[0],
                         .dC = a->dC[0],
                         .dlog_lambda = a->dlog,
                         .dgain = a->dgain,
                         .dskip = a->dskip};
  sq_arena count = {0};
  (void)sq_ssd_take(&count, chunk, s->T, s->H, s->hd, s->N);
  unsigned char *memory = guarded(count.used);
  sq_arena arena = {.base = memory, .cap = count.used};
  const sq_ssd_work w = sq_ssd_take(&arena, chunk, s->T, s->H, s->hd, s->N);
  sq_ssd_forward(&in, a->y[0], MAX_E + 5, &w);
  sq_ssd_backward(&in, &g, &w);
  expect_guard("recurrence", memory, count.used);
  free(memory);
}

/* A term passes through at most T products of decays, sums over T, N and E = H hd, and a few factors more. */
static void expect_equal(const shape *s, int chunk, const numbers *z, const numbers *size, const arrays *a)
{
  const double k = SQ_REAL_EPS * (2.0 * s->T + s->N + s->H * s->hd + 8);
  char label[96];
#define EXPECT(name, got, want, bound)                                                                       \
  do {                                                                                                       \
    sq_format(label, sizeof label, "%s, T=%d H=%d hd=%d N=%d gain=%d chunk=%d step %d", name, s->T, s->H,    \
              s->hd, s->N, s->gained, chunk, t);                                                             \
    EXPECT_NEAR(label, got, want, k *(bound) + FLT_MIN);                                                     \
  } while (0)
  for (int t = 0; t < s->T; ++t) {
    for (int e = 0; e < s->H * s->hd; ++e) {
      EXPECT("y", a->y[t][e], z->y[t][e], size->y[t][e]);
      EXPECT("dx", a->dx[t][e], z->dx[t][e], size->dx[t][e]);
    }
    for (int n = 0; n < s->N; ++n) {
      EXPECT("dB", a->dB[t][n], z->dB[t][n], size->dB[t][n]);
      EXPECT("dC", a->dC[t][n], z->dC[t][n], size->dC[t][n]);
    }
    for (int h = 0; h < s->H; ++h) {
      EXPECT("dlog lambda", a->dlog[t * s->H + h], z->dlog[t][h], size->dlog[t][h]);
      if (s->gained) EXPECT("dgain", a->dgain[t * s->H + h], z->dgain[t][h], size->dgain[t][h]);
    }
  }
  for (int h = 0, t = -1; h < s->H; ++h) EXPECT("dskip", a->dskip[h], z->dskip[h], size->dskip[h]);
#undef EXPECT
}

static void every_chunk_length_gives_the_recurrence_and_its_gradient(void **unused)
{
  static const shape shapes[] = {{1, 1, 3, 2, 1},  {37, 1, 5, 20, 1},   {37, 4, 6, 4, 0},
                                 {64, 2, 1, 1, 1}, {150, 2, 12, 16, 1}, {150, 3, 4, 7, 0}};
  static const int chunks[] = {1, 2, 5, 16, 37, 64, 149, 150, 200};
  numbers *z = sq_calloc(1, sizeof *z, "z"), *size = sq_calloc(1, sizeof *size, "size");
  arrays *a = sq_calloc(1, sizeof *a, "a");
  (void)unused;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; ++i) {
    draw_numbers(&shapes[i], z);
    take_sizes(z, size);
    step_by_step(&shapes[i], z);
    step_by_step(&shapes[i], size);
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; ++c) {
      run_chunked(&shapes[i], chunks[c], z, a);
      expect_equal(&shapes[i], chunks[c], z, size, a);
    }
  }
  free(a), free(size), free(z);
}

/* ---- the whole mixer, from its description ----------------------------------------------------------- */

typedef struct {
  int lti, heads, N, conv, expansion, D;
} kind;

static const int ragged[] = {70, 5, 1};

static void make_with(fixture *f, const kind *k, const char *more, int seq_len, int nseq, const int *len)
{
  memset(f, 0, sizeof *f);
  for (int b = 0; b < nseq; ++b) {
    f->off[b + 1] = f->off[b] + len[b];
    f->id[b] = 3 * b + 1;
  }
  f->rows = (sq_rows){.nseq = nseq, .nrow = f->off[nseq], .off = f->off, .id = f->id};
  f->dims = (sq_mixer_dims){.D = k->D, .seq_len = seq_len, .max_rows = f->rows.nrow + 3, .site = 5};
  sq_format(
      f->text, sizeof f->text,
      "{\"model\":{\"layer\":\"mamba\",\"hidden_dim\":%d,\"num_heads\":%d,\"state_dim\":%d,\"conv_dim\":"
      "%d,\"expansion\":%d,\"pseudoLTI\":%s%s}}",
      k->D, k->heads, k->N, k->conv, k->expansion, k->lti ? "true" : "false", more);
  if (sq_experiment_parse(fixture_schema(), f->text, "test", &f->e) != SQ_OK) fail_msg("%s", sq_error_text());
  f->ops = sq_mixer_find(k->lti ? "mamba2-lti" : "mamba2");
  assert_non_null(f->ops);
  assert_string_equal(f->ops->backbone, "mamba");
  if (f->ops->create(sq_experiment_cell(f->e, 0), f->dims, &f->m) != SQ_OK) fail_msg("%s", sq_error_text());
  fixture_params(f);
  f->pass = (sq_pass){.rows = &f->rows, .train = 0, .seed = 11, .step = 3, .seq_len = seq_len};
  const size_t n = (size_t)(f->rows.nrow + 1) * (size_t)k->D;
  f->u = sq_calloc(n, sizeof *f->u, "u");
  f->y = sq_calloc(n, sizeof *f->y, "y");
  draw(1, n, 1, f->u);
  f->tape = guarded(f->ops->tape_bytes(f->m));
  f->scratch = guarded(f->ops->scratch_bytes(f->m));
}

static void make(fixture *f, const kind *k, int seq_len, int nseq, const int *len)
{
  make_with(f, k, "", seq_len, nseq, len);
}

/* Steps and decays of order one, so that everything matters in 70 steps. */
static void spread_parameters(fixture *f, const kind *k)
{
  const int H = k->heads * k->expansion;
  draw(21, (size_t)H, 1, tensor(f, f->theta, "dt_bias"));
  draw(22, (size_t)H, 1, tensor(f, f->theta, "D"));
  sq_real *A = tensor(f, f->theta, k->lti ? "A" : "A_log");
  draw(23, (size_t)H, 0.5, A);
  for (int h = 0; h < H; ++h) A[h] -= 2;
}

static const kind kinds[] = {{0, 1, 6, 0, 1, 8}, {0, 2, 5, 4, 1, 8}, {0, 2, 3, 3, 2, 8}, {0, 4, 6, 0, 2, 8},
                             {1, 1, 6, 0, 1, 8}, {1, 2, 4, 4, 1, 8}, {1, 2, 8, 3, 2, 8}, {1, 4, 8, 0, 1, 8}};
enum { NKIND = sizeof kinds / sizeof *kinds };

typedef struct { /* offsets in theta of one mixer's tensors */
  const double *dt_bias, *decay, *skip, *in_proj, *conv, *conv_bias, *out_proj;
} places;

static const double *place(const fixture *f, const double *theta, const char *name)
{
  char full[128];
  sq_format(full, sizeof full, "layers.0.attention.%s", name);
  const sq_param *p = sq_param_find(&f->params, full);
  return p ? theta + p->offset : NULL;
}

static double plain_softplus(double x)
{
  return x > 20 ? x : log(1 + exp(x));
}

/* Projected channels after the convolution, p (T,C), of one sequence u (T,D) */
static void described_channels(const fixture *f, const kind *k, const double *theta, int T, const double *u,
                               double *p)
{
  const int E = k->expansion * k->D, nc = E + 2 * k->N, C = nc + (k->lti ? 1 : k->heads * k->expansion);
  const double *W = place(f, theta, "in_proj.weight"), *w = place(f, theta, "conv1d.weight"),
               *bias = place(f, theta, "conv1d.bias");
  double *raw = sq_calloc((size_t)(T * C), sizeof *raw, "raw");
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c)
      for (int d = 0; d < k->D; ++d) raw[t * C + c] += W[c * k->D + d] * u[t * k->D + d];
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c) {
      p[t * C + c] = raw[t * C + c];
      if (k->conv == 0 || c >= nc) continue;
      double sum = bias[c];
      for (int j = 0; j < k->conv; ++j) {
        const int from = t - (k->conv - 1) + j;
        if (from >= 0) sum += w[c * k->conv + j] * raw[from * C + c];
      }
      p[t * C + c] = sum / (1 + exp(-sum));
    }
  free(raw);
}

/* y (T,D) of one sequence */
static void described(const fixture *f, const kind *k, const double *theta, int T, const double *u, double *y)
{
  const int E = k->expansion * k->D, H = k->heads * k->expansion, hd = k->D / k->heads, N = k->N;
  const int C = E + 2 * N + (k->lti ? 1 : H);
  const double *A = place(f, theta, k->lti ? "A" : "A_log"), *dt_bias = place(f, theta, "dt_bias"),
               *skip = place(f, theta, "D"), *W = place(f, theta, "out_proj.weight");
  double *p = sq_calloc((size_t)(T * C), sizeof *p, "p"), *S = sq_calloc((size_t)(E * N), sizeof *S, "S");
  memset(y, 0, (size_t)(T * k->D) * sizeof *y);
  described_channels(f, k, theta, T, u, p);
  for (int t = 0; t < T; ++t) {
    const double *x = p + t * C, *B = x + E, *Ct = B + N, *dt_raw = Ct + N;
    for (int e = 0; e < E; ++e) {
      const int h = e / hd;
      double o = skip[h] * x[e];
      for (int n = 0; n < N; ++n) {
        const int g = k->lti ? n / (N / H) : h; /* head whose dt weighs the input */
        const double dt = plain_softplus(dt_raw[k->lti ? 0 : g] + dt_bias[g]);
        const double lambda = k->lti ? exp(-plain_softplus(A[h])) : exp(-dt * exp(A[h]));
        S[e * N + n] = lambda * S[e * N + n] + dt * x[e] * B[n];
        o += S[e * N + n] * Ct[n];
      }
      for (int d = 0; d < k->D; ++d) y[t * k->D + d] += W[d * E + e] * o;
    }
  }
  free(S), free(p);
}

static double *doubles_of(size_t n, const sq_real *x)
{
  double *d = sq_calloc(n, sizeof *d, "doubles");
  for (size_t i = 0; i < n; ++i) d[i] = (double)x[i];
  return d;
}

static void described_batch(const fixture *f, const kind *k, const double *theta, const double *u, double *y)
{
  for (int b = 0; b < f->rows.nseq; ++b)
    described(f, k, theta, f->off[b + 1] - f->off[b], u + f->off[b] * k->D, y + f->off[b] * k->D);
}

/* Sums of D, conv, N, T and E terms, at most 110 in all, and elementary functions of a few ulp, one after the
   other: 1e3 eps of the largest output covers them. */
static void outputs_follow_the_description(void **unused)
{
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    fixture f;
    make(&f, &kinds[i], 70, 3, ragged);
    spread_parameters(&f, &kinds[i]);
    fixture_forward(&f);
    const size_t n = (size_t)(f.rows.nrow * 8);
    double *theta = doubles_of(f.params.total, f.theta), *u = doubles_of(n, f.u),
           *y = sq_calloc(n, sizeof *y, "y"), largest = 0;
    described_batch(&f, &kinds[i], theta, u, y);
    for (size_t j = 0; j < n; ++j) largest = fmax(largest, fabs(y[j]));
    for (size_t j = 0; j < n; ++j) EXPECT_NEAR(f.text, f.y[j], y[j], 1e3 * SQ_REAL_EPS * largest);
    free(y), free(u), free(theta);
    fixture_free(&f);
  }
}

typedef struct { /* L = sum w y as a function of theta and u, in float64 */
  fixture *f;
  const kind *k;
  double *theta, *u, *w, *y;
} functional;

static double evaluate(const functional *q)
{
  double sum = 0;
  described_batch(q->f, q->k, q->theta, q->u, q->y);
  for (int i = 0; i < q->f->rows.nrow * q->k->D; ++i) sum += q->w[i] * q->y[i];
  return sum;
}

/* Central differences of the description: truncation about h^2, rounding about 1e-15/h of L. */
static double slope_at(const functional *q, double *x)
{
  const double h = 1e-5, x0 = *x;
  *x = x0 + h;
  const double up = evaluate(q);
  *x = x0 - h;
  const double down = evaluate(q);
  *x = x0;
  return (up - down) / (2 * h);
}

/* Relative to the largest gradient of the tensor: 1e-7 for the differences, 1e3 eps for the working precision (see
   above). */
static void expect_slopes(const functional *q, const char *name, size_t n, double *x, const sq_real *gradient)
{
  double largest = 1;
  char label[800];
  for (size_t i = 0; i < n; ++i) largest = fmax(largest, fabs((double)gradient[i]));
  for (size_t i = 0; i < n; ++i) {
    sq_format(label, sizeof label, "%s %s[%zu]", q->f->text, name, i);
    EXPECT_NEAR(label, gradient[i], slope_at(q, x + i), (1e-7 + 1e3 * SQ_REAL_EPS) * largest);
  }
}

static void gradients_of_all_parameters_and_inputs_match_differences(void **unused)
{
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    fixture f;
    make(&f, &kinds[i], 70, 3, ragged);
    spread_parameters(&f, &kinds[i]);
    const size_t n = (size_t)(f.rows.nrow * 8);
    sq_real *w = sq_calloc(n, sizeof *w, "w"), *du = sq_calloc(n, sizeof *du, "du"),
            *dtheta = sq_calloc(f.params.total, sizeof *dtheta, "dtheta");
    draw(4, n, 1, w);
    fixture_forward(&f);
    fixture_backward(&f, w, du, dtheta);
    functional q = {&f,
                    &kinds[i],
                    doubles_of(f.params.total, f.theta),
                    doubles_of(n, f.u),
                    doubles_of(n, w),
                    sq_calloc(n, sizeof(double), "y")};
    for (int k = 0; k < f.params.n; ++k) {
      const sq_param *p = &f.params.v[k];
      expect_slopes(&q, p->name, p->count, q.theta + p->offset, dtheta + p->offset);
    }
    expect_slopes(&q, "u", n, q.u, du);
    free(q.y), free(q.w), free(q.u), free(q.theta);
    free(dtheta), free(du), free(w);
    fixture_free(&f);
  }
}

static void parameter_gradients_are_added_to(void **unused)
{
  (void)unused;
  for (int i = 1; i < NKIND; i += 4) {
    fixture f;
    make(&f, &kinds[i], 70, 3, ragged);
    const size_t n = (size_t)(f.rows.nrow * 8);
    sq_real *du = sq_calloc(n, sizeof *du, "du"), *once = sq_calloc(f.params.total, sizeof *once, "once"),
            *twice = sq_calloc(f.params.total, sizeof *twice, "twice");
    fixture_forward(&f);
    fixture_backward(&f, f.u, du, once);
    fixture_backward(&f, f.u, du, twice);
    fixture_backward(&f, f.u, du, twice);
    for (size_t j = 0; j < f.params.total; ++j) /* a product that adds may round once more */
      EXPECT_NEAR("dtheta", twice[j], 2 * (double)once[j], 100 * SQ_REAL_EPS * (1 + fabs((double)once[j])));
    free(twice), free(once), free(du);
    fixture_free(&f);
  }
}

/* ---- what holds for every input ---------------------------------------------------------------------- */

static void outputs_ignore_the_future_exactly(void **unused)
{
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    fixture f;
    make(&f, &kinds[i], 70, 3, ragged);
    const size_t n = (size_t)(f.rows.nrow * 8);
    sq_real *before = sq_calloc(n, sizeof *before, "before");
    fixture_forward(&f);
    memcpy(before, f.y, n * sizeof *before);
    f.u[66 * 8 + 3] += 1; /* in the second chunk */
    fixture_forward(&f);
    assert_memory_equal(before, f.y, 66 * 8 * sizeof *before);
    assert_memory_equal(before + 70 * 8, f.y + 70 * 8, 6 * 8 * sizeof *before);
    assert_true(memcmp(before + 66 * 8, f.y + 66 * 8, 8 * sizeof *before) != 0);
    free(before);
    fixture_free(&f);
  }
}

/* Not bit for bit: a projection of other height may be summed in another order. */
static void a_sequence_alone_gives_the_same_outputs_and_gradients(void **unused)
{
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    fixture all;
    make(&all, &kinds[i], 70, 3, ragged);
    const size_t n = (size_t)(all.rows.nrow * 8), total = all.params.total;
    sq_real *du = sq_calloc(n, sizeof *du, "du"), *du1 = sq_calloc(n, sizeof *du, "du"),
            *sum = sq_calloc(total, sizeof *sum, "sum"), *batch = sq_calloc(total, sizeof *sum, "batch");
    fixture_forward(&all);
    fixture_backward(&all, all.u, du, batch);
    for (int b = 0; b < 3; ++b) {
      fixture one;
      const size_t at = (size_t)(all.off[b] * 8), len = (size_t)(ragged[b] * 8);
      make(&one, &kinds[i], 70, 1, &ragged[b]);
      memcpy(one.u, all.u + at, len * sizeof *one.u);
      fixture_forward(&one);
      fixture_backward(&one, one.u, du1, sum);
      for (size_t j = 0; j < len; ++j) {
        EXPECT_NEAR(all.text, one.y[j], all.y[at + j], 100 * SQ_REAL_EPS);
        EXPECT_NEAR(all.text, du1[j], du[at + j], 1e3 * SQ_REAL_EPS * (1 + fabs((double)du[at + j])));
      }
      fixture_free(&one);
    }
    for (size_t j = 0; j < total; ++j)
      EXPECT_NEAR(all.text, sum[j], batch[j], 1e3 * SQ_REAL_EPS * (1 + fabs((double)batch[j])));
    free(batch), free(sum), free(du1), free(du);
    fixture_free(&all);
  }
}

/* softplus(-200) is 0 in float32 and 1e-87 in float64; softplus(1000) = 1000 makes the decay exp(-16000). */
static void extreme_steps_stay_finite(void **unused)
{
  static const double bias[] = {-200, 1000};
  (void)unused;
  for (int i = 0; i < NKIND; ++i)
    for (int e = 0; e < 2; ++e) {
      fixture f;
      make(&f, &kinds[i], 70, 3, ragged);
      const size_t n = (size_t)(f.rows.nrow * 8);
      sq_real *du = sq_calloc(n, sizeof *du, "du"), *g = sq_calloc(f.params.total, sizeof *g, "g");
      for (int h = 0; h < kinds[i].heads * kinds[i].expansion; ++h)
        tensor(&f, f.theta, "dt_bias")[h] = (sq_real)bias[e];
      fixture_forward(&f);
      fixture_backward(&f, f.u, du, g);
      for (size_t j = 0; j < n; ++j) assert_true(isfinite(f.y[j]) && isfinite(du[j]));
      for (size_t j = 0; j < f.params.total; ++j) assert_true(isfinite(g[j]));
      double log_lambda[70], log_b[70];
      sq_factors q = {.log_lambda = log_lambda, .log_b = log_b};
      f.ops->factors(f.m, f.theta, &f.rows, f.tape, 0, 0, NULL, &q);
      for (int t = 0; t < 70; ++t) assert_true(isfinite(log_lambda[t]) && isfinite(log_b[t]));
      free(g), free(du);
      fixture_free(&f);
    }
}

/* ---- cost -------------------------------------------------------------------------------------------- */

static void bytes_and_operations_grow_linearly_with_length(void **unused)
{
  (void)unused;
  for (int lti = 0; lti < 2; ++lti) {
    const kind k = {lti, 2, 8, 4, 1, 8};
    double bytes[3], flops[3];
    for (int i = 0; i < 3; ++i) {
      const int T = 1024 << i;
      fixture f;
      make(&f, &k, T, 1, &T);
      bytes[i] = (double)(f.ops->tape_bytes(f.m) + f.ops->scratch_bytes(f.m));
      flops[i] = f.ops->flops(f.m, 1, &T);
      fixture_free(&f);
    }
    /* every array is a constant, or proportional to the rows (3 more than T), or to the chunks less one */
    assert_true(bytes[2] - bytes[1] == 2 * (bytes[1] - bytes[0]));
    assert_true(flops[2] - flops[1] == 2 * (flops[1] - flops[0]));
  }
}

static void floating_point_operations_are_counted(void **unused)
{
  const kind k = {0, 2, 5, 3, 2, 12};
  static const int len[] = {150, 1};
  fixture f;
  (void)unused;
  make(&f, &k, 150, 2, len);
  const double E = 24, N = 5, C = 24 + 10 + 4;
  const double projections = 151.0 * 2 * 12 * (C + E), conv = 151.0 * 2 * (E + 2 * N) * 3;
  /* chunks of 64, 64, 22 and 1 steps: triangles of C B^T and of its product with x; states in and out */
  const double pairs = 64 * 65 + 64 * 65 + 22 * 23 + 1 * 2, states = 2 * N * E * (64 + 22 + 64 + 64);
  EXPECT_NEAR("flops", f.ops->flops(f.m, 2, len), projections + conv + pairs * (N + E) + states, 1e-6);
  fixture_free(&f);
}

/* ---- the layer as a linear dynamical system ---------------------------------------------------------- */

typedef struct {
  sq_factors f;
  double log_lambda[70], b[70 * 8], log_b[70], c[70 * 8], log_c[70], v[70 * 8], y[70 * 8];
} factors;

static void factors_take(const fixture *x, int b, int h, const int *perm, factors *a)
{
  memset(a, 0xff, sizeof *a);
  a->f = (sq_factors){.log_lambda = a->log_lambda,
                      .b = a->b,
                      .log_b = a->log_b,
                      .c = a->c,
                      .log_c = a->log_c,
                      .v = a->v,
                      .y = a->y,
                      .skip = NAN};
  x->ops->factors(x->m, x->theta, &x->rows, x->tape, b, h, perm, &a->f);
}

/* y_i = sum_j M_ij v_j + skip v_i, from the map as the header of the mixers states it */
static double mapped(const sq_factors *f, int i, int e)
{
  double sum = f->skip * f->v[i * f->dv + e], log_decay = 0;
  for (int j = i; j >= 0; --j) {
    double kappa = 0;
    for (int n = 0; n < f->n; ++n) kappa += f->c[i * f->n + n] * f->b[j * f->n + n];
    sum += exp(f->log_c[i] + log_decay + f->log_b[j]) * kappa * f->v[j * f->dv + e];
    log_decay += f->log_lambda[j];
  }
  return sum;
}

static void factors_reproduce_the_outputs(void **unused)
{
  factors *a = sq_calloc(1, sizeof *a, "a");
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    const kind *k = &kinds[i];
    const int H = k->heads * k->expansion, E = k->expansion * 8;
    fixture x;
    make(&x, k, 70, 3, ragged);
    spread_parameters(&x, k);
    fixture_forward(&x);
    assert_int_equal(x.ops->heads(x.m), H);
    for (int b = 0; b < 3; ++b) {
      const int T = ragged[b];
      double *heads = sq_calloc((size_t)(T * E), sizeof *heads, "heads"),
             *y = sq_calloc((size_t)(T * 8), sizeof *y, "y");
      for (int h = 0; h < H; ++h) {
        factors_take(&x, b, h, NULL, a);
        assert_true(a->f.T == T && a->f.n == k->N && a->f.dv == 8 / k->heads && a->f.first == 0 &&
                    a->f.exponential == 0);
        assert_true(a->f.skip == (double)tensor(&x, x.theta, "D")[h]);
        for (int t = 0; t < T; ++t)
          for (int e = 0; e < a->f.dv; ++e) {
            const double want = mapped(&a->f, t, e);
            EXPECT_NEAR(x.text, a->y[t * a->f.dv + e], want, 1e3 * SQ_REAL_EPS * (1 + fabs(want)));
            heads[t * E + h * a->f.dv + e] = want;
          }
      }
      x.ops->output(x.m, x.theta, T, heads, y);
      for (int j = 0; j < T * 8; ++j)
        EXPECT_NEAR(x.text, x.y[x.off[b] * 8 + j], y[j], 1e3 * SQ_REAL_EPS * (1 + fabs(y[j])));
      free(y), free(heads);
    }
    fixture_free(&x);
  }
  free(a);
}

static void eigenvalues_are_those_of_the_description(void **unused)
{
  factors *a = sq_calloc(1, sizeof *a, "a");
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    const kind *k = &kinds[i];
    const int E = k->expansion * 8, H = k->heads * k->expansion, C = E + 2 * k->N + (k->lti ? 1 : H);
    fixture x;
    make(&x, k, 70, 3, ragged);
    spread_parameters(&x, k);
    fixture_forward(&x);
    double *theta = doubles_of(x.params.total, x.theta), *u = doubles_of(70 * 8, x.u),
           *p = sq_calloc((size_t)(70 * C), sizeof *p, "p");
    described_channels(&x, k, theta, 70, u, p);
    const double *A = place(&x, theta, k->lti ? "A" : "A_log"), *dt_bias = place(&x, theta, "dt_bias");
    for (int h = 0; h < H; ++h) {
      factors_take(&x, 0, h, NULL, a);
      for (int t = 0; t < 70; ++t) {
        const double dt = plain_softplus(p[t * C + E + 2 * k->N + (k->lti ? 0 : h)] + dt_bias[h]);
        const double want = k->lti ? -plain_softplus(A[h]) : -dt * exp(A[h]);
        EXPECT_NEAR(x.text, a->log_lambda[t], want, 100 * SQ_REAL_EPS * (1 + fabs(want)));
      }
    }
    free(p), free(u), free(theta);
    fixture_free(&x);
  }
  free(a);
}

static void a_permuted_sequence_takes_the_quantities_of_other_steps(void **unused)
{
  factors *a = sq_calloc(1, sizeof *a, "a"), *b = sq_calloc(1, sizeof *b, "b");
  int perm[70];
  (void)unused;
  for (int t = 0; t < 70; ++t) perm[t] = (t * 3 + 1) % 70;
  for (int i = 0; i < NKIND; ++i) {
    fixture x;
    make(&x, &kinds[i], 70, 3, ragged);
    fixture_forward(&x);
    factors_take(&x, 0, 0, NULL, a);
    factors_take(&x, 0, 0, perm, b);
    for (int t = 0; t < 70; ++t) {
      assert_true(b->log_lambda[t] == a->log_lambda[perm[t]] && b->log_b[t] == a->log_b[perm[t]]);
      for (int n = 0; n < a->f.n; ++n)
        assert_true(b->b[t * a->f.n + n] == a->b[perm[t] * a->f.n + n] &&
                    b->c[t * a->f.n + n] == a->c[perm[t] * a->f.n + n]);
      for (int e = 0; e < a->f.dv; ++e) assert_true(b->v[t * a->f.dv + e] == a->v[perm[t] * a->f.dv + e]);
    }
    fixture_free(&x);
  }
  free(b), free(a);
}

static void published_protocol_follows_its_description(void **unused)
{
  (void)unused;
  for (int i = 0; i < NKIND; ++i) {
    const kind *k = &kinds[i];
    const int H = k->heads * k->expansion, nc = k->expansion * 8 + 2 * k->N;
    fixture x;
    double log_lambda[70 * 8];
    make(&x, k, 70, 3, ragged);
    spread_parameters(&x, k);
    const sq_real *A = tensor(&x, x.theta, k->lti ? "A" : "A_log"), *bias = tensor(&x, x.theta, "dt_bias"),
                  *W = tensor(&x, x.theta, "in_proj.weight");
    const size_t bytes = x.ops->published_scratch_bytes(x.m);
    unsigned char *scratch = guarded(bytes);
    for (int b = 0; b < 3; ++b) {
      x.ops->published(x.m, x.theta, &x.rows, x.u, b, log_lambda, scratch);
      expect_guard("published scratch", scratch, bytes);
      for (int t = 0; t < ragged[b]; ++t)
        for (int h = 0; h < H; ++h) {
          double raw = (double)bias[h];
          for (int d = 0; d < 8; ++d)
            raw += (double)W[(nc + (k->lti ? 0 : h)) * 8 + d] * (double)x.u[(x.off[b] + t) * 8 + d];
          const double want =
              k->lti ? -plain_softplus((double)A[h]) : -plain_softplus(raw) * exp((double)A[h]);
          EXPECT_NEAR(x.text, log_lambda[t * H + h], want, 100 * SQ_REAL_EPS * (1 + fabs(want)));
        }
    }
    free(scratch);
    fixture_free(&x);
  }
}

/* ---- keys, names, initial values --------------------------------------------------------------------- */

static void expect_refusal(const char *model, const char *needle)
{
  char text[400];
  sq_experiment *e = NULL;
  sq_format(text, sizeof text, "{\"model\":{\"layer\":\"mamba\",\"hidden_dim\":128,\"conv_dim\":4,%s}}",
            model);
  sq_error_clear();
  assert_int_equal(sq_experiment_parse(fixture_schema(), text, "test", &e), SQ_ERR_USAGE);
  if (strstr(sq_error_text(), needle) == NULL)
    fail_msg("'%s' does not contain '%s'", sq_error_text(), needle);
  sq_error_clear();
}

static void configurations_that_cannot_be_built_are_refused_with_the_reason(void **unused)
{
  (void)unused;
  expect_refusal("\"state_dim\":16,\"num_heads\":3",
                 "model.num_heads: 3 does not divide model.hidden_dim 128");
  expect_refusal("\"state_dim\":12,\"num_heads\":4,\"expansion\":2,\"pseudoLTI\":true",
                 "model.state_dim: 12");
  expect_refusal("\"state_dim\":16,\"num_heads\":2,\"dt_min\":0.2", "model.dt_min: 0.2");
  expect_refusal("\"state_dim\":16,\"num_heads\":2,\"expansion\":0", "model.expansion");
}

static void tensors_have_the_published_names_shapes_and_order(void **unused)
{
  typedef struct {
    const char *name;
    int ndim, dim[3];
    unsigned no_decay;
  } row;
  static const row plain[] = {{"dt_bias", 1, {4, 1, 1}, 1},
                              {"A_log", 1, {4, 1, 1}, 1},
                              {"D", 1, {4, 1, 1}, 1},
                              {"in_proj.weight", 2, {28, 8, 1}, 0},
                              {"conv1d.weight", 3, {24, 1, 3}, 0},
                              {"conv1d.bias", 1, {24, 1, 1}, 1},
                              {"out_proj.weight", 2, {8, 16, 1}, 0}};
  static const row lti[] = {{"dt_bias", 1, {4, 1, 1}, 1},
                            {"D", 1, {4, 1, 1}, 1},
                            {"A", 1, {4, 1, 1}, 1},
                            {"in_proj.weight", 2, {25, 8, 1}, 0},
                            {"out_proj.weight", 2, {8, 16, 1}, 0}};
  (void)unused;
  for (int k = 0; k < 2; ++k) {
    const kind each = {k, 2, 4, k ? 0 : 3, 2, 8};
    const row *expected = k ? lti : plain;
    const int n = k ? 5 : 7;
    fixture x;
    make(&x, &each, 70, 3, ragged);
    assert_int_equal(x.params.n, n);
    for (int i = 0; i < n; ++i) {
      char full[128];
      const sq_param *p = &x.params.v[i];
      sq_format(full, sizeof full, "layers.0.attention.%s", expected[i].name);
      assert_string_equal(p->name, full);
      assert_int_equal(p->ndim, expected[i].ndim);
      assert_memory_equal(p->dim, expected[i].dim, sizeof p->dim);
      assert_int_equal(p->flags & SQ_PARAM_NO_DECAY, expected[i].no_decay);
    }
    fixture_free(&x);
  }
}

/* Of n numbers spread evenly on low .. high: all within, and both ends reached to 10 % of the width (missed with
   probability 0.9^n, 1e-6 for n = 128). */
static void expect_spread(const char *name, size_t n, const double *x, double low, double high)
{
  double least = INFINITY, most = -INFINITY, mean = 0;
  const double slack = 1e-6 * (high - low);
  for (size_t i = 0; i < n; ++i) {
    least = fmin(least, x[i]);
    most = fmax(most, x[i]);
    mean += x[i] / (double)n;
  }
  /* even: five deviations of a mean of n uniforms */
  EXPECT_NEAR(name, mean, 0.5 * (low + high), 5 * (high - low) / sqrt(12.0 * (double)n));
  if (!(low - slack <= least && least < low + 0.1 * (high - low) && high - 0.1 * (high - low) < most &&
        most <= high + slack))
    fail_msg("%s: %g .. %g, expected %g .. %g", name, least, most, low, high);
}

static void a_step_starts_at_1e_4_or_above(void **unused)
{
  fixture x;
  static const int len[] = {2};
  (void)unused;
  make_with(&x, &(kind){0, 128, 128, 4, 1, 256}, ",\"dt_min\":1e-6,\"dt_max\":1e-5", 2, 1, len);
  for (int h = 0; h < 128; ++h)
    EXPECT_NEAR("dt", plain_softplus((double)tensor(&x, x.theta, "dt_bias")[h]), 1e-4,
                1e-15 + 1e-2 * SQ_REAL_EPS);
  fixture_free(&x);
}

static void initial_values_are_the_published_ones(void **unused)
{
  (void)unused;
  for (int lti = 0; lti < 2; ++lti) {
    const kind k = {lti, 128, 128, 4, 1, 256};
    static const int len[] = {2};
    fixture x;
    double v[128];
    make(&x, &k, 2, 1, len);
    for (int h = 0; h < 128; ++h) v[h] = log(plain_softplus((double)tensor(&x, x.theta, "dt_bias")[h]));
    expect_spread("log dt", 128, v, log(0.001), log(0.1));
    for (int h = 0; h < 128; ++h) {
      const double a = (double)tensor(&x, x.theta, lti ? "A" : "A_log")[h];
      v[h] = lti ? a : exp(a);
      assert_true(tensor(&x, x.theta, "D")[h] == 1);
    }
    if (lti)
      expect_spread("A", 128, v, -8, -2);
    else
      expect_spread("-A", 128, v, 1, 16);
    static const struct {
      const char *name;
      double bound;
    } uniform[] = {{"in_proj.weight", 1.0 / 16},
                   {"out_proj.weight", 1.0 / 16},
                   {"conv1d.weight", 0.5},
                   {"conv1d.bias", 0.5}};
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 128; ++j) v[j] = (double)tensor(&x, x.theta, uniform[i].name)[j];
      expect_spread(uniform[i].name, 128, v, -uniform[i].bound, uniform[i].bound);
    }
    fixture_free(&x);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_chunk_length_gives_the_recurrence_and_its_gradient),
      cmocka_unit_test(outputs_follow_the_description),
      cmocka_unit_test(gradients_of_all_parameters_and_inputs_match_differences),
      cmocka_unit_test(parameter_gradients_are_added_to),
      cmocka_unit_test(outputs_ignore_the_future_exactly),
      cmocka_unit_test(a_sequence_alone_gives_the_same_outputs_and_gradients),
      cmocka_unit_test(extreme_steps_stay_finite),
      cmocka_unit_test(bytes_and_operations_grow_linearly_with_length),
      cmocka_unit_test(floating_point_operations_are_counted),
      cmocka_unit_test(factors_reproduce_the_outputs),
      cmocka_unit_test(eigenvalues_are_those_of_the_description),
      cmocka_unit_test(a_permuted_sequence_takes_the_quantities_of_other_steps),
      cmocka_unit_test(published_protocol_follows_its_description),
      cmocka_unit_test(configurations_that_cannot_be_built_are_refused_with_the_reason),
      cmocka_unit_test(tensors_have_the_published_names_shapes_and_order),
      cmocka_unit_test(initial_values_are_the_published_ones),
      cmocka_unit_test(a_step_starts_at_1e_4_or_above),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
