/* src/app/share.c: how many ranks train a cell together. */
#include <stdlib.h>
#include <string.h>

#include "cells.h"

/* The largest power of two that is at most n >= 1. */
static int power_below(int n)
{
  int p = 1;
  while (2 * p <= n) p *= 2;
  return p;
}

/* The shards of a batch are the nodes of a tree: 6 of them keep 8 ranks busier than 4. */
int sq_cells_useful_team(const sq_cells *c, int i)
{
  int p = 1;
  while (p < c->plan[i].nshard) p *= 2;
  return p;
}

sq_status sq_cells_check_team(const char *command, int team)
{
  return (team & (team - 1)) == 0
             ? SQ_OK
             : sq_fail(SQ_ERR_USAGE, "%s: --team=%d: expected 1, 2, 4, 8 or 16", command, team);
}

int sq_cells_said_team(const sq_cells *c)
{
  const char *team = sq_config_string(sq_experiment_cell(c->experiment, 0), "run.team");
  return strcmp(team, "auto") == 0 ? 0 : atoi(team);
}

sq_status sq_cells_team(const sq_cells *c, const int *skip, int nrank, int forced, int *team)
{
  const int wanted = forced > 0 ? forced : sq_cells_said_team(c);
  int left = 0, useful = 1;

  *team = wanted;
  if (wanted > nrank)
    return sq_fail(SQ_ERR_USAGE, "teams of %d ranks: there %s only %d", wanted, nrank == 1 ? "is" : "are",
                   nrank);
  if (wanted > 0) return SQ_OK;
  for (int i = 0; i < c->ncell; ++i) {
    if (skip != NULL && skip[i]) continue;
    const int u = sq_cells_useful_team(c, i);
    ++left;
    if (u > useful) useful = u;
  }
  *team = left > 0 && nrank > left ? power_below(nrank / left) : 1;
  if (*team > useful) *team = useful;
  return SQ_OK;
}
