/* src/spectra/keys.c: analysis.* */
#include <string.h>

#include "sq/spectra.h"

static const sq_key keys[] = {
    {"analysis.batch_size", SQ_KEY_INT, "64", 1, 1 << 20, NULL,
     "sequences of the test set that are analysed"},
    {"analysis.protocols", SQ_KEY_STRINGS, "[\"dsf\", \"published\"]", 0, 0, "dsf|published",
     "eigenvalues of the layer as it runs, and as the published analysis computes them"},
    {"analysis.snapshots", SQ_KEY_INT, "0", 0, 1000, NULL,
     "stages between init and trained, evenly spaced in steps"},
    {"analysis.store", SQ_KEY_STRING, "\"all\"", 0, 0, "all|bins",
     "all: every log eigenvalue; bins: statistics only"},
    {"analysis.hankel_cuts", SQ_KEY_REALS, "[0.5]", 0, 1, NULL,
     "cuts between past and future, fractions of a sequence"},
    {"analysis.hankel_samples", SQ_KEY_INT, "8", 0, 1 << 20, NULL,
     "sequences (S4: channels, evenly spread) whose Hankel singular values are computed; 0: none"},
    {"analysis.memory_samples", SQ_KEY_INT, "8", 0, 1 << 20, NULL,
     "sequences whose memory distance is computed; 0: none"},
};

static sq_status check(const sq_config *c)
{
  const int np = sq_config_count(c, "analysis.protocols"), nc = sq_config_count(c, "analysis.hankel_cuts");
  for (int i = 0; i < np; ++i)
    for (int k = 0; k < i; ++k) {
      const char *p = sq_config_string_at(c, "analysis.protocols", i);
      if (strcmp(p, sq_config_string_at(c, "analysis.protocols", k)) == 0)
        return sq_fail(SQ_ERR_USAGE, "analysis.protocols: \"%s\" is listed twice", p);
    }
  if (nc == 0 && sq_config_int(c, "analysis.hankel_samples") > 0)
    return sq_fail(SQ_ERR_USAGE,
                   "analysis.hankel_cuts: empty; expected fractions between 0 and 1, such as [0.5]");
  for (int i = 0; i < nc; ++i) {
    const double x = sq_config_real_at(c, "analysis.hankel_cuts", i);
    if (!(x > 0 && x < 1))
      return sq_fail(SQ_ERR_USAGE,
                     "analysis.hankel_cuts: %g leaves no past or no future; expected 0 < cut < 1", x);
  }
  return SQ_OK;
}

int sq_spectra_keysets(const sq_keyset **set, int cap)
{
  static const sq_keyset analysis = {"", keys, (int)(sizeof keys / sizeof keys[0]), check};
  if (cap > 0) set[0] = &analysis;
  return 1;
}
