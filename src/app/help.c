/* src/app/help.c: the table of commands, which is also their documentation, and `help`. */
#include <string.h>

#include "app.h"

static const sq_command command[] = {
    {"run", "train a grid and write its results file",
     "CONFIG [--out FILE.h5] [--resume] [--set KEY=VALUE ...] [--team K] [--threads N]\n"
     "       [--time-limit TIME] [--allow-different-cpu] [--private-data] [--quiet]",
     "Trains every cell of CONFIG (a cell or a grid, JSON) on all ranks, takes the spectra and\n"
     "writes one HDF5 file.  Start it alone, or with mpirun -q -n RANKS, or with srun.\n"
     "`seqspectra help config` lists the keys of CONFIG and of --set.\n"
     "\n"
     "  --out FILE.h5         the results file (default: <name of the grid>.h5)\n"
     "  --resume              go on with an existing file: runs what is not done; keys that change the\n"
     "                        file or its numbers stay as they were (run.save_weights too)\n"
     "  --set KEY=VALUE       override a key in all cells; may be repeated\n"
     "  --team K              ranks that train a cell together: 1, 2, 4, 8 or 16 (default: run.team, which\n"
     "                        is as many as there are for each cell); the numbers do not depend on it\n"
     "  --threads N           OpenMP threads of a rank (default: run.threads, 1); nor on these\n"
     "  --time-limit TIME     stop, resumable, before this time (seconds, or [days-]hours:minutes:seconds) "
     "has\n"
     "                        passed since the start; not promised is a limit shorter than a start, one "
     "step\n"
     "                        or piece of the spectra and a checkpoint\n"
     "  --allow-different-cpu ranks, or the start that is resumed, may have another CPU or BLAS kernel\n"
     "  --private-data        every rank reads the data files for itself; else one of a machine does for "
     "all\n"
     "  --quiet               no progress, no table\n"
     "\n"
     "SIGTERM, SIGUSR1 and SIGINT stop it so that --resume can go on (a second one stops at once).\n"
     "Exit status: 0 done (diverged cells included), 1 a cell failed, 2 usage, 3 data missing,\n"
     "4 output cannot be written, 75 stopped and resumable.\n",
     sq_app_run, SQ_PARALLEL},
    {"plan", "cells, parameters, FLOPs, memory and time of a grid",
     "CONFIG [--ranks N[,N...]] [--time-limit TIME] [--node CORES:GB] [--team K] [--threads N] [--rate "
     "GFLOPS]\n"
     "       [--measure TIME] [--set KEY=VALUE ...] [--json]",
     "Prints what `run` would do and need, without data and without training: for each kind of cell "
     "parameters,\n"
     "FLOPs, memory and time; bytes of results and checkpoints, files, core-hours of work and those charged "
     "(ranks x\n"
     "threads x wall), the critical path (longest cell), the number of ranks from which on more are of no "
     "use, ranks\n"
     "a node, a line for sbatch.  Times come from a short measurement on this machine: kinds of cells one "
     "after the\n"
     "other, the longest first, as long as --measure says; kinds that are left, marked *, are taken at their "
     "speed.\n"
     "Wall times are from a simulation of `run`'s own scheduler, teams, checkpoints and restarts included, "
     "the\n"
     "waiting for a restart left out.\n"
     "\n"
     "  --ranks N[,N...]   wall time on N ranks (default: those of mpirun, else the cores of this machine); "
     "for\n"
     "                     several numbers a table: limited by the work (more ranks help), the longest cell "
     "(they\n"
     "                     do not), or whole cells that do not fill the ranks evenly\n"
     "  --time-limit TIME  of a start, after which another goes on: seconds, or "
     "[days-]hours:minutes:seconds\n"
     "                     (default 24:00:00); above 240 s as a job has it, which is told to stop 120 s "
     "before\n"
     "  --node CORES:GB    cores and memory of a node (default: this machine's)\n"
     "  --measure TIME     no kind of cell is timed any more when so much has passed (default 60 s)\n"
     "  --rate GFLOPS      speed of a core in training steps, for a machine that is not at hand (no "
     "measurement);\n"
     "                     the threads of a rank are as much faster as they share the shards of a batch\n"
     "  --team K           ranks that train a cell together, as for run\n"
     "  --threads N        threads of a rank, as for run\n"
     "  --set KEY=VALUE    override a key in all cells; may be repeated\n"
     "  --json             for scripts\n",
     sq_app_plan, SQ_SERIAL},
    {"analyze", "spectra and metrics of given weights, no training",
     "CONFIG --weights FILE.h5 [--cell N] [--out FILE.h5] [--set KEY=VALUE ...]",
     "Loads the parameters of one cell, evaluates the test metric, takes the spectra and writes a\n"
     "results file whose stage `trained` holds them.\n"
     "\n"
     "  --weights FILE.h5  data sets with the published parameter names in /params, or in\n"
     "                     /weights/<N> of a results file (run.save_weights), or at the root\n"
     "  --cell N           cell of CONFIG and of /weights (default 0)\n"
     "  --out FILE.h5      default: <name>-analysis.h5\n"
     "  --set KEY=VALUE    override a key; may be repeated\n",
     sq_app_analyze, SQ_SERIAL_FILE},
    {"parity", "compare with a reference implementation's numbers", "CASE.h5 [...] [--dump OUT.h5]",
     "Runs forward, backward and one optimiser step from the case's parameters and prints the largest\n"
     "error of each tensor; exit status 1 when one is above the tolerance of this precision.  Several\n"
     "cases end with a table of their worst relative errors; files that are no case are skipped.\n"
     "\n"
     "  --dump OUT.h5  write this program's own numbers in the layout of the case\n",
     sq_app_parity, SQ_SERIAL},
    {"verify", "recurrence, causality, gradients, regauging for these models",
     "CONFIG [--set KEY=VALUE ...] [--verbose]",
     "Checks each distinct model of CONFIG at its own shapes: the largest error of each check over its\n"
     "tolerance, at most 1; exit status 1 when a check fails.  seqspectra-f64 checks gradients too.\n"
     "\n"
     "  recurrence       running lambda, B and C step by step gives what the layer gives\n"
     "  causality        a later input changes no earlier output\n"
     "  padding          steps appended to a sequence change nothing before them but rounding\n"
     "  gradient         the derivative of the loss agrees with differences (seqspectra-f64)\n"
     "  regauge          other coordinates of the state leave outputs, memory and Hankel values as they are\n"
     "  eigenvalues      those of the analysis belong to the matrix that runs, and LAPACK's lie in their "
     "discs\n"
     "\n"
     "  --set KEY=VALUE  override a key in all cells; may be repeated\n"
     "  --verbose        each error with its tolerance and where it was found\n",
     sq_app_verify, SQ_SERIAL},
    {"operator", "all eigenvalues of large transition matrices, over all ranks",
     "transition CONFIG [--weights FILE.h5 --cell K] [--layer I] [--channel C]\n"
     "       [--method auto|dense|distributed|secular] [--out FILE.h5] [--set KEY=VALUE ...]",
     "Transition matrices of time-invariant layers (S4; of LRU and S5 they are diagonal) with the weights "
     "of\n"
     "a file, or as initialised: radii, their shares, errors and times on stdout, the eigenvalues in\n"
     "/operators/transition of a file.  hankel, koopman and covariance are reserved.\n"
     "`certified` is about the parameters as stored, that is rounded; `sensitivity` says how far one more\n"
     "rounding moves a value, and a share that it can change is marked *.  Models that change with time are\n"
     "skipped; a configuration of nothing else is refused (exit status 2).  Exit status 1: a value is not\n"
     "finite or has a backward error above 1e-10.\n"
     "\n"
     "  --weights FILE.h5  as for analyze; without it the initial weights of every distinct cell\n"
     "  --cell K           only this cell of CONFIG (and of /weights; then 0 by default)\n"
     "  --layer I          only this layer\n"
     "  --channel C        only this channel\n"
     "  --method M         dense: LAPACK, the matrices dealt out over the ranks; distributed: ScaLAPACK, "
     "each\n"
     "                     matrix over all ranks; secular: the equation of diagonal plus rank one, in\n"
     "                     quadruple precision, with proofs, matrices below 512 states dealt out and larger\n"
     "                     ones over all ranks; auto: dense below 32 states, else secular (and below 512,\n"
     "                     LAPACK on one matrix for comparison)\n"
     "  --out FILE.h5      new, or the results file of a run that has ended, to which the group is added\n"
     "                     (default: <name>-transition.h5, or <name>.h5 if the name ends so)\n"
     "  --set KEY=VALUE    override a key in all cells; may be repeated\n",
     sq_app_operator, SQ_PARALLEL},
    {"report", "tables from a results file", "RESULTS.h5 [--table NAME] [--format md|latex|csv] [--out DIR]",
     "Prints tables; means are over cells that differ by the seed only.\n"
     "\n"
     "  --table NAME     one of:\n"
     "                   accuracy  test metric and its spread over seeds\n"
     "                   spectra   eigenvalues by modulus, initial, trained and of null models\n"
     "                   memory    effective state sizes and distances of memory\n"
     "                   cells     one row for each cell\n"
     "                   training  evaluations while training\n"
     "                   (default: accuracy, spectra and memory)\n"
     "  --format FORMAT  md (default), latex or csv\n"
     "  --out DIR        each table, all of them by default, to its own file in DIR\n",
     sq_app_report, SQ_SERIAL},
    {"data", "make or check data sets, tokenize text",
     "make listops [--KEY VALUE ...] | check TASK [DIR] | info TASK | tokenize FILE [--data DIR]",
     "make listops writes basic_{train,val,test}.tsv:\n"
     "  --out DIR       folder, made if it does not exist (default: ./data/listops)\n"
     "  --seed N        same seed, same files (default: 1919)\n"
     "  --num-train N   expressions for training (default: 96000)\n"
     "  --num-valid N   for validation (default: 2000)\n"
     "  --num-test N    for the test (default: 2000)\n"
     "  --min-length N  tokens without parentheses, more than this (default: 500)\n"
     "  --max-length N  and less than this (default: 2000)\n"
     "  --max-depth N   depth of a tree, its root having 1 (default: 10)\n"
     "  --max-args N    arguments of an operator, 2..N (default: 10)\n"
     "  --force         replace files that are there\n"
     "\n"
     "check reads every file of a task in DIR (default: $SEQSPECTRA_DATA, else ./data) and prints counts,\n"
     "checksums, classes, vocabulary and lengths; of listops it evaluates every row.\n"
     "\n"
     "info says what a task is, which files it reads, where they come from, and its keys.\n"
     "\n"
     "tokenize prints the GPT-2 token ids of FILE (UTF-8), one a line:\n"
     "  --data DIR  where gpt2/vocab.json and gpt2/merges.txt are (default: as above); encoder.json and\n"
     "              vocab.bpe are the same files under other names\n",
     sq_app_data, SQ_SERIAL},
    {"status", "what is done, running and left in a results file", "RESULTS.h5",
     "Prints counts of cells by state, starts, checkpoints and what failed; can be used while a run writes "
     "the\n"
     "file.  Exit status 1 if the checksum of a finished cell is wrong, 3 if the file cannot be read.\n",
     sq_app_status, SQ_SERIAL},
    {"doctor", "what is wrong on this machine, and the remedy", "[--dir DIR]",
     "Checks MPI and launcher, BLAS kernel, MPI-IO, parallel HDF5, file system, locks, space, memory and\n"
     "cores.  Run it as you would run `run`: same launcher, same number of ranks.  Exit status 1 if\n"
     "something is broken.\n"
     "\n"
     "  --dir DIR  where the results file will be (default: here)\n",
     sq_app_doctor, SQ_PARALLEL},
    {"version", "version, precision, libraries", "", "", sq_app_version, SQ_SERIAL},
    {"help", "this list, one command, or the keys of a configuration", "[COMMAND | config [PREFIX]]",
     "help config        every key of a configuration: type, default, meaning, values\n"
     "help config train  those that begin with train\n",
     sq_app_help, SQ_SERIAL},
};
enum { NCOMMAND = sizeof command / sizeof *command };

const sq_command *sq_command_at(int i)
{
  return i >= 0 && i < NCOMMAND ? &command[i] : NULL;
}

const sq_command *sq_command_find(const char *name)
{
  for (int i = 0; i < NCOMMAND; ++i)
    if (strcmp(command[i].name, name) == 0) return &command[i];
  return NULL;
}

void sq_help_print(const sq_command *c, FILE *out)
{
  if (c) {
    fprintf(out, "usage: seqspectra %s%s%s\n%s%s", c->name, *c->usage ? " " : "", c->usage,
            *c->help ? "\n" : "", c->help);
    return;
  }
  fputs("seqspectra: trains grids of sequence models and measures their spectra\n\n", out);
  fputs("usage: seqspectra COMMAND ...   (alone, or under mpirun -q -n RANKS)\n\n", out);
  for (int i = 0; i < NCOMMAND; ++i) fprintf(out, "  %-9s %s\n", command[i].name, command[i].summary);
  fputs("\nseqspectra help COMMAND shows one command, seqspectra help config the keys of a configuration.\n"
        "First steps:\n"
        "  seqspectra plan configs/quickstart.json\n"
        "  mpirun -q -n 2 seqspectra run configs/quickstart.json\n",
        out);
}

sq_status sq_app_help(int argc, char **argv)
{
  sq_words w;
  const sq_status st = sq_args_parse("help", argc, argv, NULL, 0, "", 0, 2, &w);
  if (st != SQ_OK) return st;
  if (w.n > 0 && strcmp(w.v[0], "config") == 0) return sq_help_config(w.n == 2 ? w.v[1] : "", stdout);
  if (w.n == 2) return sq_fail(SQ_ERR_USAGE, "help: unexpected \"%s\"; usage: seqspectra help help", w.v[1]);
  if (w.n == 0) {
    sq_help_print(NULL, stdout);
    return SQ_OK;
  }
  char names[256] = "config|";
  for (int i = 0; i < NCOMMAND; ++i) {
    strcat(names, i ? "|" : "");
    strcat(names, command[i].name);
  }
  const sq_status known = sq_args_choice("help", "command", w.v[0], names);
  if (known == SQ_OK) sq_help_print(sq_command_find(w.v[0]), stdout);
  return known;
}
