/* tests/test_base.c: random numbers, arenas, checksums, errors, and the linear algebra below everything. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../src/base/process_impl.h"
#include "sq/base.h"
#include "sq/linalg.h"
#include "sq/rng.h"

static void philox_gives_the_published_known_answers(void **state)
{
  (void)state;
  /* Known-answer vectors of the Random123 distribution (kat_vectors, philox4x32 with 10 rounds). */
  static const struct {
    uint32_t ctr[4], key[2], out[4];
  } kat[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
      {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
       {0xa4093822u, 0x299f31d0u},
       {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}},
  };
  for (size_t i = 0; i < sizeof kat / sizeof *kat; ++i) {
    uint32_t out[4];
    sq_philox(kat[i].key, kat[i].ctr, out);
    assert_memory_equal(out, kat[i].out, sizeof out);
  }
}

static void draws_have_the_moments_of_their_distribution(void **state)
{
  (void)state;
  enum { N = 200000 };
  sq_rng r;
  double mean = 0, square = 0, umean = 0;
  int count[7] = {0};
  sq_rng_init(&r, 1919, SQ_STREAM_TEST, 3);
  for (int i = 0; i < N; ++i) {
    const double z = sq_rng_normal(&r), u = sq_rng_uniform(&r);
    assert_true(u >= 0 && u < 1);
    mean += z / N;
    square += z * z / N;
    umean += u / N;
    ++count[sq_rng_below(&r, 7)];
  }
  /* five standard errors: 1/sqrt(N), sqrt(2/N), 1/sqrt(12 N); counts: sqrt(N 6/49) */
  assert_true(fabs(mean) < 5 / sqrt(N));
  assert_true(fabs(square - 1) < 5 * sqrt(2.0 / N));
  assert_true(fabs(umean - 0.5) < 5 / sqrt(12.0 * N));
  for (int i = 0; i < 7; ++i) assert_true(fabs(count[i] - N / 7.0) < 5 * sqrt(N * 6.0 / 49));
}

static void streams_and_indices_give_different_numbers(void **state)
{
  (void)state;
  sq_rng a, b, c, d;
  sq_rng_init(&a, 1, SQ_STREAM_TEST, 0);
  sq_rng_init(&b, 1, SQ_STREAM_TEST + 1, 0);
  sq_rng_init(&c, 1, SQ_STREAM_TEST, UINT64_C(1) << 32);
  sq_rng_init(&d, 2, SQ_STREAM_TEST, 0);
  const uint32_t x = sq_rng_u32(&a);
  assert_int_not_equal(x, sq_rng_u32(&b));
  assert_int_not_equal(x, sq_rng_u32(&c));
  assert_int_not_equal(x, sq_rng_u32(&d));
}

static void an_arena_gives_what_it_counted(void **state)
{
  (void)state;
  sq_arena a = {0};
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      const size_t cap = a.used;
      assert_int_equal(sq_arena_create(&a, cap, "test"), SQ_OK);
    }
    char *p = SQ_TAKE(&a, 3, char);
    double *q = SQ_TAKE(&a, 100, double);
    if (pass == 0) {
      assert_null(p);
      assert_null(q);
      continue;
    }
    assert_int_equal((uintptr_t)q % 64, 0);
    assert_true((char *)q >= p + 3);
    memset(q, 1, 100 * sizeof *q);
    assert_int_equal(a.used, a.cap);
  }
  sq_arena_destroy(&a);
}

static void memory_that_cannot_be_had_is_an_error_with_its_size(void **state)
{
  (void)state;
  sq_arena a = {0};
  sq_error_clear();
  assert_int_equal(sq_arena_create(&a, (size_t)1 << 60, "huge"), SQ_ERR_MEMORY);
  assert_string_equal(sq_error_text(), "huge: no memory for 1152921504606846976 bytes");
  sq_error_clear();
}

static void the_first_error_stays_on_one_line_and_takes_prefixes(void **state)
{
  (void)state;
  sq_error_clear();
  assert_int_equal(sq_fail(SQ_ERR_DATA, "line\nbreak"), SQ_ERR_DATA);
  sq_fail(SQ_ERR_IO, "later");
  assert_string_equal(sq_error_text(), "line break");
  sq_fail_in(SQ_ERR_DATA, "file.json");
  assert_string_equal(sq_error_text(), "file.json: line break");
  sq_error_clear();
  assert_int_equal(sq_exit_code(SQ_OK), 0);
  assert_int_equal(sq_exit_code(SQ_ERR_CHECK), 1);
  assert_int_equal(sq_exit_code(SQ_ERR_USAGE), 2);
  assert_int_equal(sq_exit_code(SQ_ERR_DATA), 3);
  assert_int_equal(sq_exit_code(SQ_ERR_IO), 4);
  assert_int_equal(sq_exit_code(SQ_STOPPED), 75);
}

static void edit_distance_and_hash_have_known_values(void **state)
{
  (void)state;
  assert_int_equal(sq_edit_distance("kitten", "sitting"), 3);
  assert_int_equal(sq_edit_distance("", "abc"), 3);
  assert_true(sq_hash(SQ_HASH_START, "foobar", 6) == UINT64_C(0x85944171f73967e8)); /* FNV-1a test vector */
}

/* A folder of control groups; files are made with the folders above them and removed again with them. */
static char groups[64];

static void group_file(const char *name, const char *text)
{
  char path[256];
  sq_format(path, sizeof path, "%s/%s", groups, name);
  for (char *slash = path + strlen(groups); (slash = strchr(slash + 1, '/')) != NULL;) {
    *slash = '\0';
    mkdir(path, 0777);
    *slash = '/';
  }
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_true(fputs(text, f) >= 0);
  assert_int_equal(fclose(f), 0);
}

static void group_remove(const char *name)
{
  char path[256];
  sq_format(path, sizeof path, "%s/%s", groups, name);
  unlink(path);
  for (char *slash; (slash = strrchr(path, '/')) != NULL && strlen(path) > strlen(groups);) {
    *slash = '\0';
    rmdir(path);
  }
}

static void the_least_limit_of_nested_control_groups_counts(void **state)
{
  (void)state;
  static const char *const file[][2] = {{"memory.max", "9000\n"},
                                        {"job/memory.max", "2000\n"},
                                        {"job/step/memory.max", "max\n"},
                                        {"job/step/task/memory.max", "3000\n"},
                                        {"cpu.max", "max 100000\n"},
                                        {"job/cpu.max", "400000 100000\n"},
                                        {"job/step/cpu.max", "250000 100000\n"}};
  enum { N = sizeof file / sizeof *file };
  sq_format(groups, sizeof groups, "/tmp/sq_groups_XXXXXX");
  assert_non_null(mkdtemp(groups));
  for (int i = 0; i < N; ++i) group_file(file[i][0], file[i][1]);
  assert_true(sq_cgroup_bytes(groups, "0::/job/step/task\n") == 2000);
  assert_true(sq_cgroup_bytes(groups, "0::/\n") == 9000);
  assert_true(sq_cgroup_bytes(groups, "0::/job\n") == 2000);
  assert_true(sq_cgroup_bytes(groups, "0::/of/the/host\n") == 9000); /* as a container sees it */
  assert_true(sq_cgroup_bytes(groups, "") == 9000);
  assert_true(sq_cgroup_cores(groups, "0::/job/step/task\n") == 2.5);
  assert_true(sq_cgroup_cores(groups, "0::/job\n") == 4);
  assert_true(sq_cgroup_cores(groups, "0::/\n") == 0);
  for (int i = 0; i < N; ++i) group_remove(file[i][0]);
  rmdir(groups);
}

static void control_groups_of_version_1_have_a_folder_each(void **state)
{
  (void)state;
  static const char text[] =
      "5:cpuset:/\n4:memory:/slurm/job\n3:cpuacct,cpu:/slurm/job\n1:name=systemd:/\n0::/\n";
  static const char *const file[][2] = {{"memory/memory.limit_in_bytes", "9223372036854771712\n"},
                                        {"memory/slurm/memory.limit_in_bytes", "5000\n"},
                                        {"memory/slurm/job/memory.limit_in_bytes", "7000\n"},
                                        {"cpuacct,cpu/slurm/job/cpu.cfs_quota_us", "150000\n"},
                                        {"cpuacct,cpu/slurm/job/cpu.cfs_period_us", "100000\n"},
                                        {"cpuacct,cpu/slurm/cpu.cfs_quota_us", "-1\n"},
                                        {"cpuacct,cpu/slurm/cpu.cfs_period_us", "100000\n"}};
  enum { N = sizeof file / sizeof *file };
  sq_format(groups, sizeof groups, "/tmp/sq_groups_XXXXXX");
  assert_non_null(mkdtemp(groups));
  for (int i = 0; i < N; ++i) group_file(file[i][0], file[i][1]);
  assert_true(sq_cgroup_bytes(groups, text) == 5000);
  assert_true(sq_cgroup_cores(groups, text) == 1.5);
  assert_true(sq_cgroup_bytes(groups, "2:cpuset,memory_other:/slurm\n") == 0);
  for (int i = 0; i < N; ++i) group_remove(file[i][0]);
  rmdir(groups);
}

static void fill(sq_rng *r, size_t n, double *x)
{
  for (size_t i = 0; i < n; ++i) x[i] = sq_rng_normal(r);
}

static void products_equal_the_triple_loop(void **state)
{
  (void)state;
  enum { M = 5, N = 7, K = 3, LD = 9 };
  double A[LD * LD], B[LD * LD], C[LD * LD], C0[LD * LD];
  sq_rng r;
  sq_rng_init(&r, 5, SQ_STREAM_TEST, 0);
  for (int variant = 0; variant < 4; ++variant) {
    const sq_trans ta = variant & 1 ? SQ_T : SQ_N, tb = variant & 2 ? SQ_T : SQ_N;
    fill(&r, LD * LD, A);
    fill(&r, LD * LD, B);
    fill(&r, LD * LD, C);
    memcpy(C0, C, sizeof C);
    sq_dgemm(ta, tb, M, N, K, 2.0, A, LD, B, LD, -1.0, C, LD);
    for (int i = 0; i < LD; ++i)
      for (int j = 0; j < LD; ++j) {
        double want = C0[i * LD + j];
        if (i < M && j < N) {
          want = -want;
          for (int k = 0; k < K; ++k)
            want += 2 * (ta == SQ_N ? A[i * LD + k] : A[k * LD + i]) *
                    (tb == SQ_N ? B[k * LD + j] : B[j * LD + k]);
        }
        assert_true(fabs(C[i * LD + j] - want) <= 1e-14 * 20);
      }
  }
  sq_dgemm(SQ_N, SQ_N, 2, 2, 0, 1.0, NULL, 1, NULL, 1, 0.0, C, 2); /* k = 0: zero */
  for (int i = 0; i < 4; ++i) assert_true(C[i] == 0);
}

static void qr_keeps_the_gram_matrix_and_svd_its_values(void **state)
{
  (void)state;
  static const int shape[][2] = {{1, 1}, {3, 5}, {40, 7}, {200, 33}, {2, 90}};
  sq_rng r;
  sq_rng_init(&r, 6, SQ_STREAM_TEST, 0);
  for (size_t k = 0; k < sizeof shape / sizeof *shape; ++k) {
    const int m = shape[k][0], n = shape[k][1], p = m < n ? m : n;
    const size_t mn = (size_t)m * (size_t)n, nn = (size_t)n * (size_t)n;
    double *A = malloc(mn * sizeof *A), *Q = malloc(mn * sizeof *Q), *R = malloc(nn * sizeof *R),
           *G = malloc(nn * sizeof *G), *s = malloc((size_t)p * sizeof *s),
           *t = malloc((size_t)n * sizeof *t);
    double *work = malloc((sq_qr_work(m, n) + sq_svd_work(m, n) + sq_svd_work(n, n)) * sizeof *work);
    fill(&r, mn, A);
    memcpy(Q, A, mn * sizeof *A);
    assert_int_equal(sq_qr_r(m, n, Q, R, work), SQ_OK);
    sq_dgemm(SQ_T, SQ_N, n, n, m, 1, A, n, A, n, 0, G, n);
    sq_dgemm(SQ_T, SQ_N, n, n, n, -1, R, n, R, n, 1, G, n);
    for (size_t i = 0; i < nn; ++i)
      assert_true(fabs(G[i]) <= 1e-12 * m); /* entries are O(m); 1e-12 leaves 4 digits */
    double frobenius = 0, sum = 0;
    for (size_t i = 0; i < mn; ++i) frobenius += A[i] * A[i];
    assert_int_equal(sq_svd_values(m, n, A, s, work), SQ_OK);
    assert_int_equal(sq_svd_values(n, n, R, t, work), SQ_OK); /* R has the singular values of A */
    for (int i = 0; i < p; ++i) {
      sum += s[i] * s[i];
      assert_true(i == 0 || s[i] <= s[i - 1]);
      assert_true(fabs(s[i] - t[i]) <= 1e-12 * s[0]);
    }
    assert_true(fabs(sum - frobenius) <= 1e-12 * frobenius);
    free(A), free(Q), free(R), free(G), free(s), free(t), free(work);
  }
  double bad[4] = {1, NAN, 0, 1}, s[2], work[4096];
  sq_error_clear();
  assert_int_equal(sq_svd_values(2, 2, bad, s, work), SQ_ERR_INTERNAL);
  sq_error_clear();
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_gives_the_published_known_answers),
      cmocka_unit_test(draws_have_the_moments_of_their_distribution),
      cmocka_unit_test(streams_and_indices_give_different_numbers),
      cmocka_unit_test(an_arena_gives_what_it_counted),
      cmocka_unit_test(memory_that_cannot_be_had_is_an_error_with_its_size),
      cmocka_unit_test(the_first_error_stays_on_one_line_and_takes_prefixes),
      cmocka_unit_test(edit_distance_and_hash_have_known_values),
      cmocka_unit_test(the_least_limit_of_nested_control_groups_counts),
      cmocka_unit_test(control_groups_of_version_1_have_a_folder_each),
      cmocka_unit_test(products_equal_the_triple_loop),
      cmocka_unit_test(qr_keeps_the_gram_matrix_and_svd_its_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
