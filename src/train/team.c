/* src/train/team.c: what the members of a team do together, from one operation, an exchange between two.
 *
 * Sums over the members are those of the tree of sq/batch.h, because the members' shards are its nodes and
 * neighbours are added first: at stage i member k exchanges with k xor 2^i.  Both compute the sum of the same two
 * numbers, and IEEE addition commutes, so all have the same bits.
 *
 * Long vectors: recursive halving, each partner keeping one half, and a gather the same way back: 2 n numbers sent by
 * each member, whatever their number.  Short ones: the whole vector at each stage, half as many messages. */
#include <string.h>

#include "sq/simd.h"
#include "train_impl.h"

static int size_of(const sq_team *t)
{
  return t != NULL ? t->size : 1;
}

/* ---- decisions --------------------------------------------------------------------------------------- */

int sq_team_any(const sq_team *t, int mask)
{
  for (int d = 1; d < size_of(t); d *= 2) {
    int theirs = 0;
    t->exchange(t->user, t->rank ^ d, &mask, sizeof mask, &theirs, sizeof theirs);
    mask |= theirs;
  }
  return mask;
}

/* Binomial tree: at each stage those who have it give it to as many others. */
void sq_team_share(const sq_team *t, int root, void *data, size_t bytes)
{
  for (int d = 1; d < size_of(t); d *= 2) {
    const int place = t->rank ^ root;
    if (place < d)
      t->exchange(t->user, t->rank ^ d, data, bytes, NULL, 0);
    else if (place < 2 * d)
      t->exchange(t->user, t->rank ^ d, NULL, 0, data, bytes);
  }
}

sq_status sq_team_agree(const sq_team *t, sq_status st)
{
  struct {
    int status, member;
    char text[1024];
  } mine = {.status = (int)st, .member = t != NULL ? t->rank : 0}, theirs;

  if (size_of(t) == 1) return st;
  if (st != SQ_OK) sq_format(mine.text, sizeof mine.text, "%.*s", (int)sizeof mine.text - 1, sq_error_text());
  for (int d = 1; d < t->size; d *= 2) {
    memset(&theirs, 0, sizeof theirs);
    t->exchange(t->user, t->rank ^ d, &mine, sizeof mine, &theirs, sizeof theirs);
    if (theirs.status != SQ_OK && (mine.status == SQ_OK || theirs.member < mine.member)) mine = theirs;
  }
  if (mine.status == SQ_OK) return SQ_OK;
  sq_error_clear();
  return sq_fail((sq_status)mine.status, "%s", mine.text);
}

/* ---- sums -------------------------------------------------------------------------------------------- */

SQ_CLONES static void add(size_t n, const sq_real *restrict x, sq_real *restrict sum)
{
  for (size_t i = 0; i < n; ++i) sum[i] += x[i];
}

/* Whether the node of `member` at this stage has a shard. */
static int has_shard(const sq_team_tree *t, int member, int stage)
{
  return (member >> stage << stage << t->level) < t->nshard;
}

static size_t piece_at(size_t n, size_t at)
{
  return at >= n ? 0 : n - at < SQ_PIECE ? n - at : SQ_PIECE;
}

/* Gives out (nout) to the partner of this stage and adds its numbers to sum (nsum), a piece at a time; out may be
   sum. */
static void stage(const sq_team_tree *t, int i, const sq_real *out, size_t nout, sq_real *sum, size_t nsum)
{
  const sq_team *team = t->team;
  const int partner = team->rank ^ 1 << i, mine = has_shard(t, team->rank, i),
            theirs = has_shard(t, partner, i);

  for (size_t at = 0; at < nout || at < nsum; at += SQ_PIECE) {
    const size_t o = mine ? piece_at(nout, at) : 0, n = theirs ? piece_at(nsum, at) : 0;
    if (o == 0 && n == 0) continue;
    team->exchange(team->user, partner, out + at, o * sizeof *out, t->piece, n * sizeof *out);
    if (mine)
      add(n, t->piece, sum + at);
    else if (n > 0)
      memcpy(sum + at, t->piece, n * sizeof *sum);
  }
}

void sq_team_sum(const sq_team_tree *t, size_t n, sq_real *x)
{
  for (int i = 0; 1 << i < size_of(t->team); ++i) stage(t, i, x, n, x, n);
}

void sq_team_sum_double(const sq_team_tree *t, size_t n, double *x)
{
  const sq_team *team = t->team;
  double *in = t->piece;

  SQ_ASSERT(n <= SQ_PIECE);
  for (int i = 0; 1 << i < size_of(team); ++i) {
    const int partner = team->rank ^ 1 << i, mine = has_shard(t, team->rank, i),
              theirs = has_shard(t, partner, i);
    if (!mine && !theirs) continue;
    team->exchange(team->user, partner, x, mine ? n * sizeof *x : 0, in, theirs ? n * sizeof *x : 0);
    if (!theirs) continue;
    for (size_t k = 0; k < n; ++k) x[k] = mine ? x[k] + in[k] : in[k];
  }
}

/* The bits of the rank the other way round: the first exchange decides which half. */
int sq_team_part(const sq_team *t)
{
  int part = 0;
  for (int d = 1; d < size_of(t); d *= 2) part = 2 * part + (t->rank & d ? 1 : 0);
  return part;
}

void sq_team_scatter(const sq_team_tree *t, const size_t *bound, sq_real *x)
{
  int first = 0;
  for (int i = 0, n = size_of(t->team); n > 1; ++i, n /= 2) {
    const int upper = t->team->rank >> i & 1, half = n / 2;
    const int keep = first + upper * half, give = first + (1 - upper) * half;
    stage(t, i, x + bound[give], bound[give + half] - bound[give], x + bound[keep],
          bound[keep + half] - bound[keep]);
    first = keep;
  }
}

void sq_team_gather(const sq_team *t, const size_t *bound, size_t size, void *x)
{
  char *data = x;
  int first = sq_team_part(t);
  for (int d = size_of(t) / 2, n = 1; d > 0; d /= 2, n *= 2) {
    const int other = first ^ n;
    t->exchange(t->user, t->rank ^ d, data + bound[first] * size, (bound[first + n] - bound[first]) * size,
                data + bound[other] * size, (bound[other + n] - bound[other]) * size);
    first = first < other ? first : other;
  }
}
