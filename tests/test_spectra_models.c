/* Analyses of small models: known eigenvalues, padding, null models, both protocols. */
#include "spectra_model.h"

static const int lengths[5] = {20, 32, 2, 9, 1}; /* the last one has no eigenvalue in attention */

static int same_bits(double a, double b)
{
  return memcmp(&a, &b, sizeof a) == 0;
}

/* ---- shapes ------------------------------------------------------------------------------------------ */
static void every_entry_is_written_and_nothing_beyond(void **state)
{
  (void)state;
  const char *const protocols[] = {"dsf", "published"};
  const char *const more[] = {"", "\"store\":\"bins\",\"hankel_samples\":0,\"memory_samples\":0",
                              "\"hankel_cuts\":[0.1,0.5,0.9],\"memory_samples\":2"};
  sample_fixture s;
  sample_make(&s, 5, lengths);
  for (int v = 0; v < NVARIANT; v += 2)
    for (int p = 0; p < 2; ++p)
      for (int k = 0; k < 3; ++k) {
        model_fixture x = model_make(model_variant[v], more[k], 32);
        analysis_fixture a = analysis_make(&x, protocols[p], 6, 32); /* one more than there are */
        int naxis;
        const sq_axis *axis = sq_spectra_axes(a.s, &naxis);
        analysis_run(&a, &x, &s.batch);
        for (int i = 0; i < a.n; ++i) {
          const sq_field *f = &a.field[i];
          const size_t n = field_elements(f);
          assert_true(n > 0);
          for (size_t e = 0; e < n; ++e) assert_true(a.out[i][e] != POISON);
          assert_true(a.out[i][n] == POISON);
          for (int d = 0; d < f->naxis; ++d) { /* its axes are declared, with the same length */
            int found = 0;
            for (int b = 0; b < naxis; ++b)
              found += strcmp(axis[b].axis, f->axis[d]) == 0 && axis[b].n == f->dim[d];
            assert_int_equal(found, 1);
          }
        }
        analysis_release(&a);
        model_release(&x);
      }
}

static void statistics_agree_with_the_stored_eigenvalues(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 5, lengths);
  for (int v = 0; v < NVARIANT; ++v) {
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 5, 32);
    const sq_field *f = NULL;
    analysis_run(&a, &x, &s.batch);
    const double *lambda = analysis_field(&a, "log_lambda", &f),
                 *mean = analysis_field(&a, "percent_radius_mean", NULL);
    const double *above = analysis_field(&a, "share_above_one", NULL),
                 *q = analysis_field(&a, "log_lambda_quantile", NULL);
    const double *entropy = analysis_field(&a, "spectral_entropy", NULL);
    const int heads = f->dim[0] * f->dim[1];
    for (int h = 0; h < heads; ++h) {
      double sum = 0, expected = 0, minus_p_log_p = 0, top = -INFINITY;
      int n = 0, n_above = 0;
      for (int k = 0; k < 5; ++k)
        for (int t = 0; t < 32; ++t) {
          const double value = lambda[(h * 5 + k) * 32 + t];
          assert_int_equal(isnan(value) != 0, t == 0 || t >= lengths[k]);
          if (isnan(value)) continue;
          ++n;
          n_above += value > 4e-16; /* 1 within two roundings is not above 1 */
          top = fmax(top, value);
        }
      assert_true(fabs(above[h] - (double)n_above / n) < 1e-12);
      int below = 0, not_above = 0; /* the median of 59 values is one of them */
      for (int i = 0; i < 5 * 32; ++i) {
        below += lambda[h * 5 * 32 + i] < q[h * 7 + 3];
        not_above += lambda[h * 5 * 32 + i] <= q[h * 7 + 3];
      }
      assert_int_equal(n, 59);
      assert_true(below <= 29 && not_above >= 30);
      for (int level = 1; level < 7; ++level) assert_true(q[h * 7 + level - 1] <= q[h * 7 + level]);
      assert_true(q[h * 7 + 6] <= top);
      for (int b = 0; b < SQ_NRADIUS; ++b) {
        const double p = mean[h * SQ_NRADIUS + b] / 100;
        sum += p;
        if (p > 0) minus_p_log_p -= p * log(p);
      }
      assert_true(fabs(sum - 1) < 1e-12);
      assert_true(fabs(entropy[h] - minus_p_log_p) < 1e-12);
      for (int k = 0; k < 4; ++k) {
        double percent[SQ_NRADIUS];
        sq_bin_radius((size_t)lengths[k] - 1, lambda + (h * 5 + k) * 32 + 1, 0, percent);
        expected += percent[3] / 4;
      }
      assert_true(fabs(mean[h * SQ_NRADIUS + 3] - expected) < 1e-11);
    }
    analysis_release(&a);
    model_release(&x);
  }
}

/* ---- known eigenvalues ------------------------------------------------------------------------------- */
/* Queries and keys (or n) no longer depend on the input. */
static void make_constant(const model_fixture *x)
{
  const sq_param_list *l = sq_model_params(x->m);
  for (int i = 0; i < l->n; ++i) {
    const int softmax_or_linear = strstr(l->v[i].name, "attention.Wqkv.") != NULL;
    if (!softmax_or_linear && strstr(l->v[i].name, "attention.Wvqkn.") == NULL) continue;
    /* rows q, k, v, or v, q, k, n: everything is zeroed */
    memset(x->theta + l->v[i].offset, 0, l->v[i].count * sizeof *x->theta);
  }
}

static void constant_scores_give_uniform_eigenvalues(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 5, lengths);
  for (int v = 0; v < NVARIANT; ++v) {
    const int norm = strstr(model_variant[v], "norm-attention") != NULL;
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 5, 32);
    const sq_field *f = NULL;
    double worst = 0;
    if (strstr(model_variant[v], "dim_conv") == NULL ||
        norm) { /* a convolution's bias and edge make scores differ */
      make_constant(&x);
      analysis_run(&a, &x, &s.batch);
      const double *lambda = analysis_field(&a, "log_lambda", &f),
                   *mean = analysis_field(&a, "percent_radius_mean", NULL);
      const double *uniform = analysis_field(&a, "null_uniform_percent_radius_mean", NULL);
      const double *shuffled = analysis_field(&a, "null_shuffled_percent_radius_mean", NULL);
      for (int h = 0; h < f->dim[0] * f->dim[1]; ++h) {
        for (int k = 0; k < 5; ++k)
          for (int t = 1; t < lengths[k]; ++t) {
            const double expected = norm ? 0 : log((double)t / (t + 1));
            worst = fmax(worst, fabs(lambda[(h * 5 + k) * 32 + t] - expected));
          }
        for (int b = 0; b < SQ_NRADIUS; ++b) {
          assert_true(fabs(mean[h * SQ_NRADIUS + b] - shuffled[h * SQ_NRADIUS + b]) < 1e-12);
          if (!norm) assert_true(fabs(mean[h * SQ_NRADIUS + b] - uniform[b]) < 1e-12);
        }
      }
      /* differences of logs of up to log(32 dh): two roundings of 6 */
      expect_below(norm ? "constant norms: log lambda = 0" : "constant scores: lambda = i/(i+1)", worst,
                   4e-15);
    }
    analysis_release(&a);
    model_release(&x);
  }
}

static void the_uniform_null_model_is_that_of_the_sample_lengths(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 5, lengths);
  model_fixture x = model_make(model_variant[3], "", 32);
  analysis_fixture a = analysis_make(&x, "dsf", 5, 32);
  analysis_run(&a, &x, &s.batch);
  const double *uniform = analysis_field(&a, "null_uniform_percent_radius_mean", NULL);
  /* T = 20, 32, 2, 9: i = 10 .. T-1 are above .9; i = 1 is .5 */
  const double above = (10. / 19 + 22. / 31 + 0 + 0) / 4, half = (1. / 19 + 1. / 31 + 1 + 1. / 8) / 4;
  assert_true(fabs(uniform[3] - 100 * above) < 1e-12);
  assert_true(fabs(uniform[1] - 100 * half) < 1e-12);
  assert_true(fabs(uniform[2] - 100 * (1 - above - half)) < 1e-12);
  analysis_release(&a);
  model_release(&x);
}

static void the_shuffled_null_model_permutes_steps_by_its_own_stream(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 1, (const int[]){32});
  for (int v = 0; v < NVARIANT; ++v) {
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 1, 32);
    int perm[32], differs = 0;
    double lambda[32], percent[SQ_NRADIUS];
    sq_tally tally = {0};
    sq_rng r;
    analysis_run(&a, &x, &s.batch);
    const double *null = analysis_field(&a, "null_shuffled_percent_radius_mean", NULL);
    sq_rng_init(&r, 7, SQ_STREAM_SHUFFLE, 0);
    for (int i = 0; i < 32; ++i) perm[i] = i;
    for (int i = 31; i > 0; --i) {
      const int j = (int)sq_rng_below(&r, (uint32_t)i + 1), old = perm[i];
      perm[i] = perm[j];
      perm[j] = old;
    }
    for (int i = 0; i < 32; ++i) differs += perm[i] != i;
    assert_true(differs > 20);
    sq_model_evaluate(x.m, x.theta, &s.batch, x.work, &tally);
    const sq_layer_view view = sq_model_layer(x.m, x.work, 1);
    sq_factors f = {.T = 32, .log_lambda = lambda};
    const int last = sq_mixer_get(view.mixer)->heads(view.mixer) - 1;
    sq_mixer_get(view.mixer)->factors(view.mixer, x.theta, &s.batch.rows, view.tape, 0, last, perm, &f);
    sq_bin_radius(31, lambda + 1, 0, percent);
    for (int b = 0; b < SQ_NRADIUS; ++b)
      assert_true(same_bits(percent[b], null[(2 * (last + 1) - 1) * SQ_NRADIUS + b]));
    analysis_release(&a);
    model_release(&x);
  }
}

/* ---- padding and repetition -------------------------------------------------------------------------- */
/* Entries of the smaller analysis are those of the larger, bit for bit; what the larger has in addition is
 * NaN. */
static void expect_embedded(const char *variant, const sq_field *f, const double *x, const sq_field *g,
                            const double *y)
{
  const size_t n = field_elements(g);
  assert_string_equal(f->name, g->name);
  for (size_t e = 0; e < n; ++e) {
    size_t rest = e, at = 0, stride = 1;
    int inside = 1;
    for (int d = g->naxis - 1; d >= 0; --d) {
      const size_t i = rest % (size_t)g->dim[d];
      rest /= (size_t)g->dim[d];
      inside &= i < (size_t)f->dim[d];
      at += i * stride;
      stride *= (size_t)f->dim[d];
    }
    if (inside ? !same_bits(x[at], y[e]) && !(isnan(x[at]) && isnan(y[e])) : !isnan(y[e]))
      fail_msg("%s: %s[%zu] is %.17g, with more room %.17g", variant, f->name, e, inside ? x[at] : NAN, y[e]);
  }
}

static void room_for_longer_sequences_changes_no_dsf_statistic(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 5, lengths);
  for (int v = 0; v < NVARIANT; ++v) {
    model_fixture x = model_make(model_variant[v], "", 32), y = model_make(model_variant[v], "", 48);
    analysis_fixture a = analysis_make(&x, "dsf", 5, 32), b = analysis_make(&y, "dsf", 5, 48);
    analysis_run(&a, &x, &s.batch);
    analysis_run(&b, &y, &s.batch);
    assert_int_equal(a.n, b.n);
    for (int i = 0; i < a.n; ++i)
      expect_embedded(model_variant[v], &a.field[i], a.out[i], &b.field[i], b.out[i]);
    analysis_release(&a);
    analysis_release(&b);
    model_release(&x);
    model_release(&y);
  }
}

static void padding_appended_to_a_sequence_changes_no_eigenvalue(void **state)
{
  (void)state;
  double worst = 0;
  for (int v = 0; v < NVARIANT; ++v) {
    sample_fixture s, padded;
    sample_make(&s, 1, (const int[]){19});
    sample_make(&padded, 1, (const int[]){32});
    memcpy(padded.token, s.token, 19 * sizeof *s.token);
    for (int t = 19; t < 32; ++t) padded.token[t] = 0;
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 1, 32), b = analysis_make(&x, "dsf", 1, 32);
    const sq_field *f = NULL;
    analysis_run(&a, &x, &s.batch);
    analysis_run(&b, &x, &padded.batch);
    const double *p = analysis_field(&a, "log_lambda", &f), *q = analysis_field(&b, "log_lambda", NULL);
    for (int h = 0; h < f->dim[0] * f->dim[1]; ++h)
      for (int t = 1; t < 19; ++t) {
        const double error = fabs(p[h * 32 + t] - q[h * 32 + t]) / fmax(1, fabs(p[h * 32 + t]));
        if (!(error <= worst)) worst = error;
      }
    analysis_release(&a);
    analysis_release(&b);
    model_release(&x);
  }
  /* Other shapes, other order of the same sums in the BLAS: rounding, passed on by one layer.  Measured
   * 2e-16. */
  expect_below("padding appended: log lambda", worst, 256 * DBL_EPSILON);
}

static void a_second_run_gives_the_same_bits_whatever_ran_before(void **state)
{
  (void)state;
  const char *const protocols[] = {"dsf", "published"};
  sample_fixture s, other;
  sample_make(&s, 5, lengths);
  sample_make(&other, 3, (const int[]){32, 31, 30});
  for (int v = 0; v < NVARIANT; v += 3)
    for (int p = 0; p < 2; ++p) {
      model_fixture x = model_make(model_variant[v], "\"store\":\"bins\"", 32);
      analysis_fixture a = analysis_make(&x, protocols[p], 5, 32), b = analysis_make(&x, protocols[p], 5, 32);
      analysis_run(&a, &x, &s.batch);
      analysis_run(&b, &x, &other.batch);
      memset(x.work, 0x7f, sq_model_work_bytes(x.m));
      analysis_run(&b, &x, &s.batch);
      for (int i = 0; i < a.n; ++i)
        expect_embedded(model_variant[v], &a.field[i], a.out[i], &b.field[i], b.out[i]);
      analysis_release(&a);
      analysis_release(&b);
      model_release(&x);
    }
}

/* ---- invariant statistics ---------------------------------------------------------------------------- */
static void invariant_fields_are_those_of_the_factors(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 2, (const int[]){32, 20});
  for (int v = 0; v < NVARIANT; ++v) {
    model_fixture x = model_make(model_variant[v], "\"hankel_cuts\":[0.25,0.5]", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 2, 32);
    const sq_field *f = NULL;
    analysis_run(&a, &x, &s.batch);
    const double *sigma = analysis_field(&a, "hankel_sigma", &f),
                 *top = analysis_field(&a, "hankel_log_sigma1", NULL);
    const double *rank = analysis_field(&a, "effective_state_size_tolerance", NULL);
    const double *limit = analysis_field(&a, "effective_state_size_limit", NULL);
    const double *distance = analysis_field(&a, "memory_distance_quantile", NULL);
    const int H = f->dim[1], nindex = f->dim[4];
    const sq_mixer *mixer = sq_model_mixer(x.m, 0);
    sq_factors dims = {0};
    sq_mixer_get(mixer)->factor_dims(mixer, &dims);
    for (int h = 0; h < H; ++h) { /* layer 0 */
      double energy[32] = {0}, mean_rank = 0, mean_limit = 0;
      for (int k = 0; k < 2; ++k) {
        const int T = k ? 20 : 32;
        factors_fixture g = factors_alloc(T, dims.n, dims.dv, dims.exponential);
        sq_batch one = s.batch;
        const int off[2] = {0, T};
        double expected[32], log_sigma1, size[3], e[32] = {0}, total = 0;
        sq_tally tally = {0};
        int n;
        one.rows = (sq_rows){1, T, off, s.id, NULL};
        one.token = s.token + s.off[k];
        sq_model_evaluate(x.m, x.theta, &one, x.work, &tally);
        const sq_layer_view view = sq_model_layer(x.m, x.work, 0);
        sq_mixer_get(mixer)->factors(mixer, x.theta, &one.rows, view.tape, 0, h, NULL, &g.f);
        assert_int_equal(sq_factors_hankel(&g.f, T / 2, expected, &n, &log_sigma1), SQ_OK);
        for (int i = 0; i < nindex; ++i) {
          const double got = sigma[((h * 2 + 1) * 2 + k) * nindex + i];
          assert_true(i < n ? same_bits(got, expected[i]) : isnan(got));
        }
        assert_true(same_bits(top[(h * 2 + 1) * 2 + k], log_sigma1));
        sq_effective_state_size(n, expected, size);
        mean_rank += size[0] / 2;
        mean_limit += (dims.exponential || dims.n > T / 2 ? T / 2 : dims.n) / 2.0;
        assert_int_equal(sq_factors_energy(&g.f, e), SQ_OK);
        for (int d = 0; d < T; ++d) total += e[d];
        for (int d = 0; d < T; ++d) energy[d] += e[d] / total;
        factors_release(&g);
      }
      assert_true(rank[h * 2 + 1] == mean_rank);
      assert_true(limit[h * 2 + 1] == mean_limit);
      assert_true(distance[h * 5 + 2] == sq_distance_quantile(32, energy, 0.5));
    }
    analysis_release(&a);
    model_release(&x);
  }
}

static int countdown(void *user)
{
  int *left = user;
  return --*left < 0;
}

static void an_analysis_stops_between_sequences_and_heads(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 3, (const int[]){32, 20, 7});
  for (int p = 0; p < 2; ++p) {
    model_fixture x = model_make(model_variant[0], "", 32);
    analysis_fixture a = analysis_make(&x, p ? "published" : "dsf", 3, 32);
    int left = 1000;
    sq_spectra_poll(a.s, countdown, &left);
    analysis_run(&a, &x, &s.batch);
    const int polls = 1000 - left;
    assert_true(p ? polls == 3 : polls > 3 && polls % 3 == 0);
    for (int stop = 0; stop < polls; ++stop) {
      left = stop;
      assert_int_equal(sq_spectra_run(a.s, x.theta, &s.batch, x.work, a.out), SQ_STOPPED);
    }
    left = polls;
    analysis_run(&a, &x, &s.batch);
    assert_int_equal(left, 0);
    analysis_release(&a);
    model_release(&x);
  }
}

/* Under h'_i = c_i h_i the exponent moves by log(c_T/c_0)/T. */
static void the_finite_time_exponent_of_mamba2_is_not_called_invariant(void **state)
{
  (void)state;
  model_fixture x = model_of_json("{\"seed\":7,\"dataset\":{\"_name_\":\"mqar\",\"vocab_size\":32,\"input_"
                                  "seq_length\":48,\"num_kv_pairs\":4,"
                                  "\"num_train\":64,\"num_valid\":16,\"num_test\":16},"
                                  "\"train\":{\"total_steps\":10,\"batch_size\":8,\"lr\":0.001},"
                                  "\"model\":{\"layer\":\"mamba\",\"conv_dim\":0,\"num_layers\":2,\"hidden_"
                                  "dim\":16,\"state_dim\":8,\"num_heads\":2,"
                                  "\"expansion\":1,\"glu\":true,\"prenorm\":true,\"pooling\":\"none\","
                                  "\"token_embedding\":true,\"vocab_size\":32,"
                                  "\"output_dim\":32,\"dropout\":0.0}}",
                                  32);
  analysis_fixture a = analysis_make(&x, "dsf", 1, 32);
  const sq_field *f = NULL;
  analysis_field(&a, "lyapunov_exponent", &f);
  assert_int_equal(f->invariant, 0);
  analysis_field(&a, "lyapunov_horizon", &f);
  assert_int_equal(f->invariant, 0);
  analysis_release(&a);
  model_release(&x);
}

/* ---- published --------------------------------------------------------------------------------------- */
static void the_published_protocol_counts_padding_as_steps(void **state)
{
  (void)state;
  sample_fixture s, padded;
  sample_make(&s, 3, (const int[]){32, 11, 20});
  sample_make(&padded, 3, (const int[]){32, 32, 32});
  memset(padded.token, 0, 96 * sizeof *padded.token);
  for (int k = 0; k < 3; ++k)
    memcpy(padded.token + 32 * k, s.token + s.off[k], (size_t)(s.off[k + 1] - s.off[k]) * sizeof *s.token);
  for (int v = 0; v < NVARIANT; ++v) {
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "published", 3, 32), b = analysis_make(&x, "published", 3, 32);
    const sq_field *f = NULL;
    analysis_run(&a, &x, &s.batch);
    analysis_run(&b, &x, &padded.batch);
    for (int i = 0; i < a.n; ++i)
      expect_embedded(model_variant[v], &a.field[i], a.out[i], &b.field[i], b.out[i]);
    const double *length = analysis_field(&a, "length", NULL), *lambda = analysis_field(&a, "log_lambda", &f);
    const double *phase = analysis_field(&a, "percent_phase_mean", NULL);
    for (int k = 0; k < 3; ++k) assert_true(length[k] == 32);
    for (int h = 0; h < f->dim[0] * f->dim[1]; ++h) {
      int finite = 1;
      for (int i = 0; i < 3 * 32; ++i) {
        assert_int_equal(isnan(lambda[h * 96 + i]) != 0, i % 32 == 0);
        finite &= i % 32 == 0 || lambda[h * 96 + i] < 700;
      }
      if (finite) assert_true(phase[h * SQ_NPHASE] == 100 && phase[h * SQ_NPHASE + 1] == 0);
    }
    analysis_release(&a);
    analysis_release(&b);
    model_release(&x);
  }
}

static void weights_that_are_not_finite_give_missing_values_not_errors(void **state)
{
  (void)state;
  sample_fixture s;
  sample_make(&s, 2, lengths);
  for (int v = 0; v < NVARIANT; v += 3) {
    model_fixture x = model_make(model_variant[v], "", 32);
    analysis_fixture a = analysis_make(&x, "dsf", 2, 32);
    for (size_t i = 0; i < sq_model_params(x.m)->total; ++i) x.theta[i] = NAN;
    analysis_run(&a, &x, &s.batch);
    assert_true(isnan(*analysis_field(&a, "percent_radius_mean", NULL)));
    assert_true(isnan(*analysis_field(&a, "memory_distance_quantile", NULL)));
    assert_true(isnan(*analysis_field(&a, "hankel_sigma", NULL)));
    assert_true(isnan(*analysis_field(&a, "effective_state_size_entropy", NULL)));
    assert_true(isnan(*analysis_field(&a, "spectral_entropy", NULL)));
    assert_true(isnan(*analysis_field(&a, "share_above_one", NULL)));
    analysis_release(&a);
    model_release(&x);
  }
}

static void cuts_and_protocols_are_checked(void **state)
{
  (void)state;
  const struct {
    const char *analysis, *message;
  } bad[] = {
      {"\"hankel_cuts\":[0.5,1]", "analysis.hankel_cuts: 1 leaves no past or no future"},
      {"\"hankel_cuts\":[0]", "analysis.hankel_cuts: 0 leaves no past or no future"},
      {"\"hankel_cuts\":[]", "analysis.hankel_cuts"},
      {"\"protocols\":[\"dsf\",\"dsf\"]", "analysis.protocols: \"dsf\" is listed twice"},
      {"\"protocols\":[\"fds\"]", "analysis.protocols"},
      {"\"store\":\"some\"", "analysis.store"},
  };
  for (size_t k = 0; k < sizeof bad / sizeof *bad; ++k) {
    char json[2048];
    sq_experiment *e = NULL;
    cell_json(json, sizeof json, model_variant[0], bad[k].analysis);
    assert_int_equal(sq_experiment_parse(test_schema(), json, "test", &e), SQ_ERR_USAGE);
    if (strstr(sq_error_text(), bad[k].message) == NULL)
      fail_msg("\"%s\" lacks \"%s\"", sq_error_text(), bad[k].message);
    sq_error_clear();
    sq_experiment_destroy(&e);
  }
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_entry_is_written_and_nothing_beyond),
      cmocka_unit_test(statistics_agree_with_the_stored_eigenvalues),
      cmocka_unit_test(constant_scores_give_uniform_eigenvalues),
      cmocka_unit_test(the_uniform_null_model_is_that_of_the_sample_lengths),
      cmocka_unit_test(the_shuffled_null_model_permutes_steps_by_its_own_stream),
      cmocka_unit_test(room_for_longer_sequences_changes_no_dsf_statistic),
      cmocka_unit_test(padding_appended_to_a_sequence_changes_no_eigenvalue),
      cmocka_unit_test(a_second_run_gives_the_same_bits_whatever_ran_before),
      cmocka_unit_test(invariant_fields_are_those_of_the_factors),
      cmocka_unit_test(an_analysis_stops_between_sequences_and_heads),
      cmocka_unit_test(the_finite_time_exponent_of_mamba2_is_not_called_invariant),
      cmocka_unit_test(the_published_protocol_counts_padding_as_steps),
      cmocka_unit_test(weights_that_are_not_finite_give_missing_values_not_errors),
      cmocka_unit_test(cuts_and_protocols_are_checked),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
