/* src/app/plan_job.c: the job of a plan, as a line for sbatch that a shell takes as it is. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan.h"
#include "sq/base.h"

/* ---- words of a shell -------------------------------------------------------------------------------- */

void sq_plan_word(FILE *f, const char *word)
{
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-";
  if (*word != '\0' && word[strspn(word, plain)] == '\0') {
    fputs(word, f);
    return;
  }
  fputc('\'', f);
  for (; *word != '\0'; ++word)
    if (*word == '\'')
      fputs("'\\''", f);
    else
      fputc(*word, f);
  fputc('\'', f);
}

/* ---- where things are -------------------------------------------------------------------------------- */

/* Takes the last n names of a path away; 0: it has no more than these. */
static int go_up(char *path, int n)
{
  for (; n > 0; --n) {
    char *slash = strrchr(path, '/');
    if (slash == NULL) return 0;
    *slash = '\0';
  }
  return *path != '\0';
}

static int exists(const char *folder, const char *name)
{
  char path[2 * PATH_MAX];
  const int n = snprintf(path, sizeof path, "%s/%s", folder, name);
  return n < (int)sizeof path && access(path, F_OK) == 0;
}

/* The sources that a program in their build folder belongs to; 0: it is not in one. */
static int sources_of_program(char root[PATH_MAX])
{
  return realpath("/proc/self/exe", root) != NULL && go_up(root, 2) && exists(root, "jobs/slurm-run.sh");
}

/* jobs/NAME.sbatch of the tree whose configs/grids/NAME.json or configs/NAME.json is planned, if it runs that file. */
typedef struct {
  char root[PATH_MAX], config[PATH_MAX], script[PATH_MAX]; /* config, script: below root */
  int elsewhere;                                           /* root is not the folder that we are in */
} job_script;

static int script_runs(const job_script *s)
{
  char path[2 * PATH_MAX], command[PATH_MAX + 32];
  size_t bytes;
  sq_status st;
  sq_format(path, sizeof path, "%s/%s", s->root, s->script);
  if (access(path, R_OK) != 0) return 0;
  char *text = sq_read_file(path, &bytes, &st);
  sq_format(command, sizeof command, "exec \"$run\" %s ", s->config);
  const int runs = text != NULL && strstr(text, command) != NULL;
  free(text);
  sq_error_clear();
  return runs;
}

/* From elsewhere a script prefers a file of the same name there. */
static int script_finds(job_script *s)
{
  char here[PATH_MAX];
  s->elsewhere = getcwd(here, sizeof here) == NULL || strcmp(here, s->root) != 0;
  return !s->elsewhere || access(s->config, F_OK) != 0;
}

static int find_script(const char *real, job_script *s)
{
  const char *name = strrchr(real, '/') + 1;
  const int length = (int)strlen(name) - (int)strlen(".json");
  if (length < 1 || strcmp(name + length, ".json") != 0) return 0;
  for (int up = 2; up <= 3; ++up) {
    sq_format(s->root, sizeof s->root, "%s", real);
    if (!go_up(s->root, up)) continue;
    sq_format(s->config, sizeof s->config, "configs/%s%s", up == 3 ? "grids/" : "", name);
    if (strcmp(real + strlen(s->root) + 1, s->config) != 0) continue;
    sq_format(s->script, sizeof s->script, "jobs/%.*s.sbatch", length, name);
    return script_runs(s) && script_finds(s);
  }
  return 0;
}

/* ---- the line ---------------------------------------------------------------------------------------- */

/* Slurm's hours:minutes:seconds, rounded up to minutes. */
static void write_limit(FILE *f, double s)
{
  const long minutes = (long)ceil(s / 60);
  fprintf(f, "%02ld:%02ld:00", minutes / 60, minutes % 60);
}

/* The time that is asked for: what is planned and a quarter more, at most what a start may take. */
static double time_asked(const sq_plan *p)
{
  return fmin(fmax(600, 1.25 * p->forecast[0].wall_s), p->model.time_limit_s);
}

static void write_needs(FILE *f, const sq_plan *p, const sq_plan_totals *t)
{
  const int threads = p->cells->threads;
  fprintf(f,
          "sbatch --nodes=%d --ntasks=%d --ntasks-per-node=%d --cpus-per-task=%d --mem-per-cpu=%.0fM --time=",
          t->nodes, p->forecast[0].nrank, t->ranks_node, threads, ceil(t->rank_bytes / threads / 1048576));
  write_limit(f, time_asked(p));
}

/* What a job script does, see jobs/. */
static void write_body(FILE *f, const sq_plan *p, const char *config)
{
  char root[PATH_MAX], name[2 * PATH_MAX];
  fputs("export OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE-Haswell}; exec ", f);
  if (getenv("SEQSPECTRA_HOME") == NULL && sources_of_program(root)) {
    sq_format(name, sizeof name, "%s/jobs/slurm-run.sh", root);
    sq_plan_word(f, name);
  } else {
    fputs("\"${SEQSPECTRA_HOME:-.}/jobs/slurm-run.sh\"", f);
  }
  fputc(' ', f);
  sq_plan_word(f, config);
  fputc(' ', f);
  sq_plan_word(f, sq_experiment_name(p->experiment));
  fprintf(f, ".h5%s", p->options);
}

static sq_status write_wrapped(FILE *f, const sq_plan *p, const char *config)
{
  char *body = NULL;
  size_t size = 0;
  FILE *b = open_memstream(&body, &size);
  if (b == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
  write_body(b, p, config);
  if (fclose(b) == 0) {
    fputs(" --job-name=", f);
    sq_plan_word(f, sq_experiment_name(p->experiment));
    fprintf(f, " --requeue --signal=B:USR1@%d --open-mode=append --wrap=", SQ_PLAN_WARNING_S);
    sq_plan_word(f, body);
  }
  free(body);
  return SQ_OK;
}

static void write_script(FILE *f, const job_script *s)
{
  char path[2 * PATH_MAX];
  sq_format(path, sizeof path, "%s/%s", s->root, s->script);
  fputc(' ', f);
  sq_plan_word(f, s->elsewhere ? path : s->script);
}

sq_status sq_plan_write_job(const sq_plan *p, sq_plan_totals *t)
{
  char config[PATH_MAX];
  job_script s = {.elsewhere = 0};
  size_t size = 0;
  sq_status st = SQ_OK;
  if (t->ranks_node == 0 || p->model.warning_s <= 0) return SQ_OK;
  if (realpath(p->config, config) == NULL)
    return sq_fail(SQ_ERR_USAGE, "plan: %s: %s", p->config, strerror(errno));
  FILE *f = open_memstream(&t->sbatch, &size);
  if (f == NULL) return sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
  const int have = p->options[0] == '\0' && find_script(config, &s);
  if (have && s.elsewhere) {
    fputs("SEQSPECTRA_HOME=", f);
    sq_plan_word(f, s.root);
    fputc(' ', f);
  }
  write_needs(f, p, t);
  if (have)
    write_script(f, &s);
  else
    st = write_wrapped(f, p, config);
  if (fclose(f) != 0 && st == SQ_OK) st = sq_fail(SQ_ERR_MEMORY, "no memory for the plan");
  return st;
}
