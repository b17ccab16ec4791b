/* src/app/table.h: a table of text, printed as Markdown, LaTeX or CSV. */
#pragma once

#include <stdio.h>

#include "sq/status.h"

typedef struct {
  char **cell; /* (ncell) row by row, the head first; owned */
  char **note; /* (nnote) lines below; owned */
  int ncolumn, ncell, nnote;
  unsigned right; /* bit j: column j holds numbers */
  int no_memory;
} sq_table;

/* head: "task|model|n"; a '>' in front of a name aligns right. */
void sq_table_init(sq_table *t, const char *head);
void sq_table_clear(sq_table *t);
/* Appends the next cell, row by row. */
void sq_table_add(sq_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The number, or "-" if it is not there. */
void sq_table_add_real(sq_table *t, const char *fmt, double v);
void sq_table_note(sq_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* format: md | latex | csv.  SQ_ERR_IO, SQ_ERR_MEMORY. */
sq_status sq_table_print(const sq_table *t, const char *title, const char *format, FILE *out);
