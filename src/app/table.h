/* src/app/table.h: a table of text, printed as Markdown, LaTeX or CSV. */
#pragma once

#include <stdio.h>

#include "sq/status.h"

typedef struct {
  char **cell;    /* (ncell) row by row, the head first; owned */
  char **note;    /* (nnote) lines below, not in CSV; owned */
  char **warning; /* (nwarning) lines below those; with CSV they go to stderr; owned */
  char *empty;    /* printed in place of the rows, or NULL; owned */
  int ncolumn, ncell, nnote, nwarning;
  int csv;        /* set before sq_table_init: all digits */
  unsigned right; /* bit j: column j holds numbers */
  int no_memory;
} sq_table;

/* head: "task|model|n"; a '>' in front of a name aligns right. */
void sq_table_init(sq_table *t, const char *head);
void sq_table_clear(sq_table *t);
/* Appends the next cell, row by row. */
void sq_table_add(sq_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The number, or "-" if it is not there.  For CSV with as many digits as give the same number back. */
void sq_table_add_real(sq_table *t, const char *fmt, double v);
void sq_table_note(sq_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sq_table_warn(sq_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops rows and notes: `text` is all there is. */
void sq_table_empty(sq_table *t, const char *text);
int sq_table_nrow(const sq_table *t);
/* format: md | latex | csv.  SQ_ERR_IO, SQ_ERR_MEMORY. */
sq_status sq_table_print(const sq_table *t, const char *title, const char *format, FILE *out);
