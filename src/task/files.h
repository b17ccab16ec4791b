/* src/task/files.h: data files, which come from elsewhere: where they are, and reading them whole. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sq/config.h"
#include "sq/status.h"
#include "sq/task.h"

enum { SQ_PATH_MAX = 4096 };

/* dataset.data_dir, else sq_data_default_dir(). */
const char *sq_data_dir(const sq_config *c);

/* SQ_ERR_DATA if it does not fit. */
sq_status sq_path_join(char out[SQ_PATH_MAX], const char *dir, const char *name);

int sq_file_exists(const char *path);

/* The first of <dir>/<sub[i]> (sub "" is dir itself; the list ends with NULL) that has `probe`, to out.
   SQ_ERR_DATA "task <name>: no <probe> in ...; <expected>". */
sq_status sq_data_find(const char *task, const char *dir, const char *const *sub, const char *probe,
                       const char *expected, char out[SQ_PATH_MAX]);

/* Whole file, NUL-terminated, *owned*; NULL with a recorded text and *st if it is missing, a folder,
   unreadable, empty or changes while it is read.  `expected` says what it should be. */
char *sq_data_read(const char *path, const char *expected, size_t *bytes, sq_status *st);

/* The same in parts: opens it, and bytes at..end-1 of its `bytes`. */
sq_status sq_data_open(const char *path, const char *expected, FILE **f, size_t *bytes);
sq_status sq_data_read_part(FILE *f, const char *path, size_t at, size_t end, size_t bytes, char *out);

/* n bytes of a file, fit to be shown in a message: printable, at most 24 of them; returns out. */
enum { SQ_SHOWN = 32 };
const char *sq_text_shown(const char *s, size_t n, char out[SQ_SHOWN]);

/* A line's end is CR LF (cr) as the one above, or LF as that.  *crlf: of the line above, -1 before the first; becomes cr.
   SQ_ERR_DATA with path and line. */
sq_status sq_line_end_check(const char *path, size_t line, int cr, int *crlf);
