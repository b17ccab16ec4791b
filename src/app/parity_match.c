/* src/app/parity_match.c: pairing of two sets so that the worst pair is as near as possible.
 *
 * Bisection over the sorted entries; whether a bound admits a perfect pairing is decided by augmenting paths
 * (Kuhn's algorithm). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parity.h"
#include "sq/base.h"

typedef struct {
  int n;
  const double *cost;
  double bound;
  int *row_of; /* (n) row paired with a column, or -1 */
  int *seen;   /* (n) mark of the last search that met the column */
  int mark;
} pairing;

/* Finds a column for the row, moving others if need be. */
static int place_row(pairing *p, int row)
{
  for (int column = 0; column < p->n; ++column) {
    if (p->seen[column] == p->mark || !(p->cost[(size_t)row * (size_t)p->n + (size_t)column] <= p->bound))
      continue;
    p->seen[column] = p->mark;
    if (p->row_of[column] >= 0 && !place_row(p, p->row_of[column])) continue;
    p->row_of[column] = row;
    return 1;
  }
  return 0;
}

static int can_pair(pairing *p, double bound)
{
  p->bound = bound;
  for (int c = 0; c < p->n; ++c) p->row_of[c] = -1;
  for (int row = 0; row < p->n; ++row) {
    ++p->mark;
    if (!place_row(p, row)) return 0;
  }
  return 1;
}

static int ascending(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

sq_status sq_parity_bottleneck(int n, const double *cost, double *worst)
{
  const size_t m = (size_t)n, all = m * m;
  double *sorted = sq_calloc(all, sizeof *sorted, "pairing of eigenvalues");
  pairing p = {.n = n,
               .cost = cost,
               .row_of = sq_calloc(m, sizeof(int), "pairing of eigenvalues"),
               .seen = sq_calloc(m, sizeof(int), "pairing of eigenvalues")};
  size_t count = 0;
  sq_status st = sorted && p.row_of && p.seen ? SQ_OK : SQ_ERR_MEMORY;

  *worst = n == 0 ? 0 : INFINITY;
  if (st == SQ_OK && n > 0) {
    for (size_t i = 0; i < all; ++i)
      if (!isnan(cost[i])) sorted[count++] = cost[i];
    qsort(sorted, count, sizeof *sorted, ascending);
    if (count > 0 && can_pair(&p, sorted[count - 1])) {
      size_t lo = 0, hi = count - 1;
      while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        if (can_pair(&p, sorted[mid]))
          hi = mid;
        else
          lo = mid + 1;
      }
      *worst = sorted[hi];
    }
  }
  free(sorted);
  free(p.row_of);
  free(p.seen);
  return st;
}
