/* src/app/progress.c: see progress.h. */
#include "progress.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sq/base.h"

static const double log_every_s = 30;

/* Open MPI gives its ranks a pseudo-terminal whatever its own output is: under a launcher, the launcher's
 * output decides. */
int sq_on_terminal(void)
{
  if (!isatty(STDOUT_FILENO)) return 0;
  const char *term = getenv("TERM");
  if (term && strcmp(term, "dumb") == 0) return 0;
  if (!sq_app_launcher()) return 1;
  char link[64], target[256];
  sq_format(link, sizeof link, "/proc/%ld/fd/1", (long)getppid());
  const ssize_t n = readlink(link, target, sizeof target - 1);
  if (n < 0) return 0;
  target[n] = 0;
  return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

void sq_format_duration(char out[32], double s)
{
  if (!(s < 1e9))
    sq_format(out, 32, "?");
  else if (s < 120)
    sq_format(out, 32, "%.0f s", s);
  else if (s < 7200)
    sq_format(out, 32, "%.0f min", s / 60);
  else if (s < 48 * 3600)
    sq_format(out, 32, "%.1f h", s / 3600);
  else
    sq_format(out, 32, "%.1f days", s / 86400);
}

sq_status sq_progress_init(sq_progress *p, const sq_cells *cells, const int *skip)
{
  *p = (sq_progress){.cells = cells, .skip = skip, .live = sq_on_terminal(), .start = sq_wall_s()};
  p->last = p->start;
  p->told = sq_calloc((size_t)cells->ncell, 1, "progress");
  return p->told ? SQ_OK : SQ_ERR_MEMORY;
}

static void line_remove(sq_progress *p)
{
  if (p->drawn) printf("\r%*s\r", p->drawn, "");
  p->drawn = 0;
}

static void line_draw(sq_progress *p, const char *line)
{
  line_remove(p);
  p->drawn = printf("%s", line);
  fflush(stdout);
}

/* Job results: the metric, -inf: diverged, +inf: failed. */
static void tell_finished(sq_progress *p, const sq_grid *g)
{
  for (int i = 0; i < p->cells->ncell; ++i) {
    if (p->told[i] || (p->skip && p->skip[i]) || sq_grid_fraction(g, i) < 1) continue;
    const double r = sq_grid_result(g, i);
    p->told[i] = 1;
    line_remove(p);
    printf("  %-9s %s",
           r == -INFINITY  ? "diverged"
           : r == INFINITY ? "failed"
                           : "done",
           sq_cells_label(p->cells, i));
    if (isfinite(r)) printf("  %s %.4g", p->cells->metric[i], r);
    putchar('\n');
  }
}

void sq_progress_show(sq_progress *p, const sq_grid *g)
{
  const double now = sq_wall_s(), wall = now - p->start;
  if (p->live) tell_finished(p, g);
  if (!p->live && now - p->last < log_every_s) return;
  p->last = now;
  double steps = 0;
  int spectra = 0; /* cells that are trained and not done */
  for (int i = 0; i < p->cells->ncell; ++i)
    if (!(p->skip && p->skip[i])) {
      const double f = sq_grid_fraction(g, i);
      steps += f * (double)p->cells->plan[i].total_steps;
      spectra += f < 1 && f >= 1 - DBL_EPSILON;
    }
  const sq_grid_state s = sq_grid_get_state(g);
  char eta[32], line[200], after[32] = "";
  sq_format_duration(eta, s.cost_done > 0 ? wall * (s.cost_total - s.cost_done) / s.cost_done : INFINITY);
  if (spectra > 0) sq_format(after, sizeof after, " (%d at its spectra)", spectra);
  if (spectra > 0 && spectra == s.running && s.waiting == 0) sq_format(eta, sizeof eta, "end of the spectra");
  snprintf(line, sizeof line,
           "%d of %d cells done, %d running%s, %d waiting; %.3g steps/s; %.0f %% of the training; ETA %s",
           s.done, s.total, s.running, after, s.waiting, wall > 0 ? steps / wall : 0,
           s.cost_total > 0 ? 100 * s.cost_done / s.cost_total : 100, eta);
  if (p->live)
    line_draw(p, line);
  else {
    printf("%s\n", line);
    fflush(stdout);
  }
}

void sq_progress_clear(sq_progress *p)
{
  line_remove(p);
  fflush(stdout);
  free(p->told);
  p->told = NULL;
}
