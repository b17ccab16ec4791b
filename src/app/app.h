/* src/app/app.h: the commands, and what they share.
 *
 * A command is a function of the words after its name.  It prints its result on stdout, notes on stderr, and
 * returns a status whose text (sq_fail) main prints as one line.  SQ_ERR_CHECK without a text: the command
 * has already said what failed. */
#pragma once

#include <mpi.h>
#include <stdio.h>

#include "sq/config.h"
#include "sq/status.h"

/* ---- commands ---------------------------------------------------------------------------------------- */
sq_status sq_app_run(int argc, char **argv);
sq_status sq_app_plan(int argc, char **argv);
sq_status sq_app_analyze(int argc, char **argv);
sq_status sq_app_parity(int argc, char **argv);
sq_status sq_app_verify(int argc, char **argv);
sq_status sq_app_operator(int argc, char **argv);
sq_status sq_app_report(int argc, char **argv);
sq_status sq_app_data(int argc, char **argv);
sq_status sq_app_status(int argc, char **argv);
sq_status sq_app_doctor(int argc, char **argv);
sq_status sq_app_version(int argc, char **argv);
sq_status sq_app_help(int argc, char **argv);

/* Who runs it under mpirun, and whether MPI is there when it is started alone. */
typedef enum {
  SQ_SERIAL,      /* rank 0; MPI only under a launcher */
  SQ_SERIAL_FILE, /* rank 0; MPI always, because it writes a results file */
  SQ_PARALLEL,    /* all ranks, which return the same status; MPI always */
} sq_command_place;
typedef struct {
  const char *name, *summary; /* summary: for the list of commands */
  const char *usage;          /* words after "seqspectra <name>" */
  const char *help;           /* lines below the usage: options, what comes out */
  sq_status (*run)(int argc, char **argv);
  sq_command_place place;
} sq_command;
const sq_command *sq_command_find(const char *name); /* NULL if unknown */
const sq_command *sq_command_at(int i);              /* NULL past the end */
/* Screen of one command, or the list of commands (NULL). */
void sq_help_print(const sq_command *c, FILE *out);
/* help_config.c: the configuration keys that begin with prefix ("": all), one line each. */
sq_status sq_help_config(const char *prefix, FILE *out);

/* ---- args.c: options --key VALUE, --key=VALUE, --flag; the other words in order ---------------------------
 */
#define SQ_MAX_WORDS 256
typedef struct {
  const char *v[SQ_MAX_WORDS]; /* borrowed from argv */
  int n;
} sq_words;

typedef enum { SQ_OPT_FLAG, SQ_OPT_TEXT, SQ_OPT_INT, SQ_OPT_REAL, SQ_OPT_TIME, SQ_OPT_LIST } sq_option_type;
typedef struct {
  const char *name; /* without the dashes */
  sq_option_type type;
  /* int * (flag: set to 1; int), const char ** (text), double * (real; time: seconds), sq_words * (list: may be
     repeated) */
  void *to;
  double min, max; /* inclusive bounds of numbers; both 0: none */
} sq_option;

/* SQ_ERR_USAGE: unknown option (with the closest one), missing or bad value, number of other words not in
   min..max. `what` names the words in messages: "CONFIG".  words may be NULL if max == 0. */
sq_status sq_args_parse(const char *command, int argc, char **argv, const sq_option *opt, int nopt,
                        const char *what, int min, int max, sq_words *words);
/* One of choices ("a|b|c"): SQ_ERR_USAGE with the list and the closest one. */
sq_status sq_args_choice(const char *command, const char *what, const char *value, const char *choices);

/* ---- schema.c ---------------------------------------------------------------------------------------- */
const sq_schema *sq_app_schema(void); /* every key set of the program */
/* What the first bytes of a file say that it is: "an HDF5 file", "a JSON file"; NULL: neither, or unreadable. */
const char *sq_app_file_kind(const char *path);
sq_status sq_app_load(const char *path, const sq_words *set /* NULL */, sq_experiment **e);

/* ---- main.c ------------------------------------------------------------------------------------------ */
int sq_app_rank(void);             /* in MPI_COMM_WORLD; 0 without MPI */
int sq_app_nrank(void);            /* 1 without MPI */
double sq_app_running_s(void);     /* wall seconds since main began */
const char *sq_app_launcher(void); /* "mpirun", "srun" ...; NULL: started alone */
/* Collective on MPI_COMM_WORLD, st differing from rank to rank.  The status of the lowest rank that has an
   error, and its text, on all ranks: they leave together with one message. */
sq_status sq_app_agree(sq_status st);
sq_status sq_app_agree_on(MPI_Comm comm, sq_status st); /* collective on comm */

/* "train.lr = 0.01, model.num_layers = 2" from {"train.lr":0.01,...}, the seed left out; "" if nothing else
   was swept.  *owned*, NULL without memory. */
char *sq_swept_text(const char *swept);

/* ---- report.c ---------------------------------------------------------------------------------------- */
/* table: "accuracy", "spectra", ...; format: "md" | "latex" | "csv". */
sq_status sq_report_print(const char *results, const char *table, const char *format, FILE *out);
