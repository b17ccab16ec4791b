/* include/sq/status.h: what a function says when the world does not cooperate.
 *
 * A bug (broken precondition) is SQ_ASSERT.  The world (memory, files, configurations, libraries) is an
 * sq_status that goes up to main, which prints the recorded text once.  The mathematics (a loss diverged) is
 * a result, kept in the results file. */
#pragma once

typedef enum {
  SQ_OK = 0,
  SQ_ERR_CHECK,    /* a check failed (parity, verify, data check)            exit 1  */
  SQ_ERR_USAGE,    /* bad command line or configuration; nothing was changed exit 2  */
  SQ_ERR_DATA,     /* input data missing or invalid                          exit 3  */
  SQ_ERR_IO,       /* output cannot be written                               exit 4  */
  SQ_ERR_MEMORY,   /* memory cannot be had                                   exit 1  */
  SQ_ERR_INTERNAL, /* a library refused what should have worked              exit 1  */
  SQ_STOPPED,      /* stopped early on request, resumable                    exit 75 */
} sq_status;

/* Exit status of the program, as in the list above. */
int sq_exit_code(sq_status st);

/* Records the text of an error (one line: what, where, what was expected, a hint) and returns st, so that
   `return sq_fail(SQ_ERR_DATA, ...)` reads well.  The first text stays until sq_error_clear(): what failed
   first is nearest to the cause.  One record per process. */
sq_status sq_fail(sq_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "<prefix>: " in front of the recorded text, to say where; returns st. */
sq_status sq_fail_in(sq_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *sq_error_text(void); /* "" if none */
void sq_error_clear(void);

/* For functions with a local `sq_status st` and one exit label `done`. */
#define SQ_TRY(call)                                                                                         \
  do {                                                                                                       \
    st = (call);                                                                                             \
    if (st != SQ_OK) goto done;                                                                              \
  } while (0)

/* A broken precondition is a bug: it stops everything, in every build. */
#define SQ_ASSERT(cond) ((cond) ? (void)0 : sq_bug(#cond, __FILE__, __LINE__))
_Noreturn void sq_bug(const char *what, const char *file, int line);
