/* src/model/match.c: the head of pairs. */
#include "match.h"

sq_status sq_match_add(sq_model *m, sq_match *h, int hidden)
{
  const int half = hidden / 2 > 0 ? hidden / 2 : 1;
  sq_status st;

  h->D = m->width;
  SQ_TRY(sq_model_add_linear(m, &h->encoder, "match.encoder", 4 * m->width, hidden, 1));
  SQ_TRY(sq_model_add_linear(m, &h->middle, "match.middle", hidden, half, 1));
  SQ_TRY(sq_model_add_linear(m, &h->decoder, "match.decoder", half, m->output_dim, 1));
done:
  return st;
}

void sq_match_take(const sq_match *h, int n, sq_arena *a, sq_match_work *w)
{
  const size_t N = (size_t)(n > 0 ? n : 1), F = 4 * (size_t)h->D, M = (size_t)h->encoder.out,
               half = (size_t)h->middle.out;

  w->f = SQ_TAKE(a, N * F, sq_real);
  w->df = SQ_TAKE(a, N * F, sq_real);
  w->h1 = SQ_TAKE(a, N * M, sq_real);
  w->r1 = SQ_TAKE(a, N * M, sq_real);
  w->d1 = SQ_TAKE(a, N * M, sq_real);
  w->h2 = SQ_TAKE(a, N * half, sq_real);
  w->r2 = SQ_TAKE(a, N * half, sq_real);
  w->d2 = SQ_TAKE(a, N * half, sq_real);
  w->xent = SQ_TAKE(a, sq_nn_xent_head_scratch((int)N, h->decoder.out), sq_real);
}

double sq_match_flops(const sq_match *h)
{
  const double M = h->encoder.out, half = h->middle.out;
  return 2 * (4 * (double)h->D * M + M * half + half * h->decoder.out);
}

static void linear(const sq_linear_place *l, const sq_real *theta, int n, const sq_real *x, sq_real *y)
{
  sq_nn_linear(n, l->in, l->out, x, l->in, theta + l->weight, theta + l->bias, y, l->out);
}

static void linear_back(const sq_linear_place *l, const sq_real *theta, sq_real *dtheta, int n,
                        const sq_real *x, const sq_real *dy, sq_real *dx)
{
  sq_nn_linear_back(n, l->in, l->out, x, l->in, theta + l->weight, dy, l->out, dx, l->in, 0,
                    dtheta + l->weight, dtheta + l->bias);
}

static void features(int n, size_t D, const sq_real *x, sq_real *f)
{
  for (size_t k = 0; k < (size_t)n; ++k) {
    const sq_real *a = x + 2 * k * D, *b = a + D;
    sq_real *to = f + 4 * k * D;
    for (size_t c = 0; c < D; ++c) {
      to[c] = a[c];
      to[D + c] = b[c];
      to[2 * D + c] = a[c] * b[c];
      to[3 * D + c] = a[c] - b[c];
    }
  }
}

static void features_back(int n, size_t D, const sq_real *x, const sq_real *df, sq_real *dx)
{
  for (size_t k = 0; k < (size_t)n; ++k) {
    const sq_real *a = x + 2 * k * D, *b = a + D, *g = df + 4 * k * D;
    sq_real *da = dx + 2 * k * D, *db = da + D;
    for (size_t c = 0; c < D; ++c) {
      da[c] = g[c] + b[c] * g[2 * D + c] + g[3 * D + c];
      db[c] = g[D + c] + a[c] * g[2 * D + c] - g[3 * D + c];
    }
  }
}

static void hidden(const sq_match *h, const sq_real *theta, int n, const sq_real *x, const sq_match_work *w)
{
  features(n, (size_t)h->D, x, w->f);
  linear(&h->encoder, theta, n, w->f, w->h1);
  sq_nn_relu((size_t)n * (size_t)h->encoder.out, w->h1, w->r1);
  linear(&h->middle, theta, n, w->r1, w->h2);
  sq_nn_relu((size_t)n * (size_t)h->middle.out, w->h2, w->r2);
}

void sq_match_logits(const sq_match *h, const sq_real *theta, int n, const sq_real *x, const sq_match_work *w,
                     sq_real *logits)
{
  if (n == 0) return;
  hidden(h, theta, n, x, w);
  linear(&h->decoder, theta, n, w->r2, logits);
}

void sq_match_loss(const sq_match *h, const sq_real *theta, sq_real *dtheta, int n, const sq_real *x,
                   const int32_t *label, double scale, const sq_match_work *w, sq_real *dx, sq_tally *tally)
{
  const sq_linear_place *l = &h->decoder;
  const int grad = dtheta != NULL;

  if (n == 0) return; /* a sequence alone, whose layers are looked at */
  hidden(h, theta, n, x, w);
  sq_nn_xent_head(n, l->in, l->out, w->r2, theta + l->weight, theta + l->bias, label, scale,
                  grad ? w->d2 : NULL, grad ? dtheta + l->weight : NULL, grad ? dtheta + l->bias : NULL,
                  w->xent, tally);
  if (!grad) return;
  sq_nn_relu_back((size_t)n * (size_t)h->middle.out, w->h2, w->d2, w->d2);
  linear_back(&h->middle, theta, dtheta, n, w->r1, w->d2, w->d1);
  sq_nn_relu_back((size_t)n * (size_t)h->encoder.out, w->h1, w->d1, w->d1);
  linear_back(&h->encoder, theta, dtheta, n, w->f, w->d1, w->df);
  features_back(n, (size_t)h->D, x, w->df, dx);
}
