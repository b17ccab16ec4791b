/* src/train/team.c: what the members of a team do together, from one operation, an exchange between two.
 *
 * Sums over the members are those of the tree of sq/batch.h, because the members' shards are its nodes and
 * neighbours are added first: at stage i member k exchanges with k xor 2^i.  Both compute the sum of the same two
 * numbers, and IEEE addition commutes, so all have the same bits.
 *
 * Long vectors: recursive halving in the background, each partner keeping one half, and a gather the same way back: 2 n
 * numbers sent by each member, whatever their number.  Short ones: the whole vector at each stage, half as many
 * messages. */
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

/* Adds the partner's numbers of this stage to x, a piece at a time. */
static void stage(const sq_team_tree *t, int i, size_t n, sq_real *x)
{
  const sq_team *team = t->team;
  const int partner = team->rank ^ 1 << i, mine = has_shard(t, team->rank, i),
            theirs = has_shard(t, partner, i);

  if (!mine && !theirs) return;
  for (size_t at = 0; at < n; at += SQ_PIECE) {
    const size_t count = n - at < SQ_PIECE ? n - at : SQ_PIECE, bytes = count * sizeof *x;
    team->exchange(team->user, partner, x + at, mine ? bytes : 0, t->piece, theirs ? bytes : 0);
    if (mine && theirs)
      add(count, t->piece, x + at);
    else if (theirs)
      memcpy(x + at, t->piece, bytes);
  }
}

void sq_team_sum(const sq_team_tree *t, size_t n, sq_real *x)
{
  for (int i = 0; 1 << i < size_of(t->team); ++i) stage(t, i, n, x);
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

/* Stage s->stage: the half that this member gives away, and its own that it will add. */
static void start_stage(sq_team_scatter *s)
{
  const sq_team *team = s->tree.team;
  const int partner = team->rank ^ 1 << s->stage, half = s->nmember / 2, upper = team->rank >> s->stage & 1;
  const int give = s->first + (1 - upper) * half;
  const int mine = has_shard(&s->tree, team->rank, s->stage), theirs = has_shard(&s->tree, partner, s->stage);

  s->first += upper * half;
  s->nmember = half;
  s->nin = theirs ? s->bound[s->first + half] - s->bound[s->first] : 0;
  s->adds = mine;
  team->start(team->user, partner, s->x + s->bound[give],
              mine ? (s->bound[give + half] - s->bound[give]) * sizeof *s->x : 0, s->in,
              s->nin * sizeof *s->x);
}

static void end_stage(sq_team_scatter *s)
{
  sq_real *own = s->x + s->bound[s->first];
  if (s->adds)
    add(s->nin, s->in, own);
  else if (s->nin > 0)
    memcpy(own, s->in, s->nin * sizeof *own);
  ++s->stage;
}

void sq_team_scatter_begin(sq_team_scatter *s, const sq_team_tree *t, const size_t *bound, sq_real *x,
                           sq_real *in)
{
  *s = (sq_team_scatter){.tree = *t, .bound = bound, .x = x, .in = in, .nmember = size_of(t->team)};
  if (s->nmember > 1) start_stage(s);
}

int sq_team_scatter_go_on(sq_team_scatter *s, int wait)
{
  const sq_team *team = s->tree.team;
  while (1 << s->stage < size_of(team)) {
    if (!team->finished(team->user, wait)) return 0;
    end_stage(s);
    if (s->nmember > 1) start_stage(s);
  }
  return 1;
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
