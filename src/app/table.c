/* src/app/table.c */
#include "table.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "sq/base.h"

/* Moves text to the end of a list that grows by doubling. */
static int append(char ***list, int *n, char *text)
{
  if (text == NULL) return 0;
  if ((*n & (*n - 1)) == 0) { /* 0 or a power of two: full */
    char **more = realloc(*list, (size_t)(*n > 0 ? 2 * *n : 1) * sizeof *more);
    if (more == NULL) {
      free(text);
      return 0;
    }
    *list = more;
  }
  (*list)[(*n)++] = text;
  return 1;
}

static char *format_text(const char *fmt, va_list args)
{
  char *text;
  return vasprintf(&text, fmt, args) >= 0 ? text : NULL;
}

void sq_table_init(sq_table *t, const char *head)
{
  *t = (sq_table){.csv = t->csv};
  for (const char *p = head; p != NULL;) {
    const char *end = strchr(p, '|');
    const int right = p[0] == '>';
    const size_t n = (end != NULL ? (size_t)(end - p) : strlen(p)) - (size_t)right;
    if (right) t->right |= 1u << t->ncell;
    if (!append(&t->cell, &t->ncell, strndup(p + right, n))) t->no_memory = 1;
    p = end != NULL ? end + 1 : NULL;
  }
  t->ncolumn = t->ncell;
}

void sq_table_clear(sq_table *t)
{
  for (int i = 0; i < t->ncell; ++i) free(t->cell[i]);
  for (int i = 0; i < t->nnote; ++i) free(t->note[i]);
  for (int i = 0; i < t->nwarning; ++i) free(t->warning[i]);
  free(t->cell);
  free(t->note);
  free(t->warning);
  free(t->empty);
  memset(t, 0, sizeof *t);
}

void sq_table_add(sq_table *t, const char *fmt, ...)
{
  va_list args;
  va_start(args, fmt);
  if (!append(&t->cell, &t->ncell, format_text(fmt, args))) t->no_memory = 1;
  va_end(args);
}

static void shortest(char text[64], double v)
{
  for (int digits = 15; digits <= 17; ++digits) {
    snprintf(text, 64, "%.*g", digits, v);
    if (strtod(text, NULL) == v) return;
  }
}

void sq_table_add_real(sq_table *t, const char *fmt, double v)
{
  char text[64];
  if (t->csv && !isnan(v)) {
    shortest(text, v);
    sq_table_add(t, "%s", text);
    return;
  }
  /* The formats are those of this program's tables. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf(text, sizeof text, fmt, v);
#pragma GCC diagnostic pop
  sq_table_add(t, "%s", isnan(v) ? "-" : text);
}

void sq_table_note(sq_table *t, const char *fmt, ...)
{
  va_list args;
  va_start(args, fmt);
  if (!append(&t->note, &t->nnote, format_text(fmt, args))) t->no_memory = 1;
  va_end(args);
}

void sq_table_warn(sq_table *t, const char *fmt, ...)
{
  va_list args;
  va_start(args, fmt);
  if (!append(&t->warning, &t->nwarning, format_text(fmt, args))) t->no_memory = 1;
  va_end(args);
}

int sq_table_nrow(const sq_table *t)
{
  return t->ncolumn > 0 && t->empty == NULL ? t->ncell / t->ncolumn - 1 : 0;
}

void sq_table_empty(sq_table *t, const char *text)
{
  while (t->ncell > t->ncolumn) free(t->cell[--t->ncell]);
  while (t->nnote > 0) free(t->note[--t->nnote]);
  free(t->empty);
  if ((t->empty = strdup(text)) == NULL) t->no_memory = 1;
}

/* Characters, not bytes, of UTF-8. */
static int width_of(const char *s)
{
  int n = 0;
  for (; *s != '\0'; ++s) n += ((unsigned char)*s & 0xc0) != 0x80;
  return n;
}

static void repeat(FILE *out, char c, int n)
{
  while (n-- > 0) fputc(c, out);
}

static void print_md(const sq_table *t, const char *title, FILE *out)
{
  int width[32] = {0};
  for (int i = 0; i < t->ncell; ++i) {
    int w = width_of(t->cell[i]);
    for (const char *p = t->cell[i]; *p != '\0'; ++p) w += *p == '|';
    if (w > width[i % t->ncolumn]) width[i % t->ncolumn] = w;
  }
  for (int j = 0; j < t->ncolumn; ++j)
    if (width[j] < 3) width[j] = 3;
  fprintf(out, "## %s\n\n", title);
  if (t->empty != NULL) fprintf(out, "%s\n", t->empty);
  for (int i = 0; i < t->ncell && t->empty == NULL; ++i) {
    const int j = i % t->ncolumn, right = (t->right >> j & 1) != 0;
    int w = width_of(t->cell[i]);
    for (const char *p = t->cell[i]; *p != '\0'; ++p) w += *p == '|';
    fputs(j == 0 ? "| " : " ", out);
    if (right) repeat(out, ' ', width[j] - w);
    for (const char *p = t->cell[i]; *p != '\0'; ++p) {
      if (*p == '|') fputc('\\', out);
      fputc(*p, out);
    }
    if (!right) repeat(out, ' ', width[j] - w);
    fputs(" |", out);
    if (j < t->ncolumn - 1) continue;
    fputc('\n', out);
    for (int k = 0; i == t->ncolumn - 1 && k < t->ncolumn; ++k) {
      fputs(k == 0 ? "| " : " ", out);
      repeat(out, '-', width[k] - 1);
      fputs((t->right >> k & 1) != 0 ? ": |" : "- |", out);
      if (k == t->ncolumn - 1) fputc('\n', out);
    }
  }
  if (t->nnote + t->nwarning > 0) fputc('\n', out);
  for (int i = 0; i < t->nnote; ++i) fprintf(out, "%s\n", t->note[i]);
  for (int i = 0; i < t->nwarning; ++i) fprintf(out, "%s\n", t->warning[i]);
}

static void put_latex(const char *s, FILE *out)
{
  for (; *s != '\0'; ++s) {
    switch (*s) {
    case '&':
    case '%':
    case '$':
    case '#':
    case '_':
    case '{':
    case '}': fprintf(out, "\\%c", *s); break;
    case '~': fputs("\\textasciitilde{}", out); break;
    case '^': fputs("\\textasciicircum{}", out); break;
    case '\\': fputs("\\textbackslash{}", out); break;
    case '<': fputs("\\textless{}", out); break;
    case '>': fputs("\\textgreater{}", out); break;
    case '|': fputs("\\textbar{}", out); break;
    default: fputc(*s, out);
    }
  }
}

static void latex_lines(char *const *line, int n, FILE *out)
{
  for (int i = 0; i < n; ++i) {
    fputs("\n\\par\\noindent\\footnotesize ", out);
    put_latex(line[i], out);
  }
}

static void print_latex(const sq_table *t, const char *title, FILE *out)
{
  if (t->empty != NULL) {
    fprintf(out, "%% %s: %s\n", title, t->empty);
    for (int i = 0; i < t->nwarning; ++i) fprintf(out, "%% %s\n", t->warning[i]);
    return;
  }
  fputs("% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n\\caption{", out);
  put_latex(title, out);
  fputs("}\n\\begin{tabular}{", out);
  for (int j = 0; j < t->ncolumn; ++j) fputc((t->right >> j & 1) != 0 ? 'r' : 'l', out);
  fputs("}\n\\toprule\n", out);
  for (int i = 0; i < t->ncell; ++i) {
    if (i % t->ncolumn == 0 && t->cell[i][0] == '[')
      fputs("{}", out); /* not an argument of the line break before */
    put_latex(t->cell[i], out);
    fputs(i % t->ncolumn < t->ncolumn - 1 ? " & " : " \\\\\n", out);
    if (i == t->ncolumn - 1) fputs("\\midrule\n", out);
  }
  fputs("\\bottomrule\n\\end{tabular}\n", out);
  latex_lines(t->note, t->nnote, out);
  latex_lines(t->warning, t->nwarning, out);
  fputs("\n\\end{table}\n", out);
}

/* RFC 4180 with plain newlines; nothing but the rows. */
static void print_csv(const sq_table *t, FILE *out)
{
  for (int i = 0; i < t->ncell; ++i) {
    const char *s = t->cell[i];
    if (strcmp(s, "-") == 0) s = "";
    if (strpbrk(s, ",\"\r\n") != NULL) {
      fputc('"', out);
      for (; *s != '\0'; ++s) {
        if (*s == '"') fputc('"', out);
        fputc(*s, out);
      }
      fputc('"', out);
    } else {
      fputs(s, out);
    }
    fputc(i % t->ncolumn < t->ncolumn - 1 ? ',' : '\n', out);
  }
  if (t->empty != NULL) sq_note("%s", t->empty);
  for (int i = 0; i < t->nwarning; ++i) sq_note("%s", t->warning[i]);
}

sq_status sq_table_print(const sq_table *t, const char *title, const char *format, FILE *out)
{
  if (t->no_memory) return sq_fail(SQ_ERR_MEMORY, "no memory for a table");
  SQ_ASSERT(t->ncolumn > 0 && t->ncolumn <= 32 && t->ncell % t->ncolumn == 0);
  if (strcmp(format, "latex") == 0)
    print_latex(t, title, out);
  else if (strcmp(format, "csv") == 0)
    print_csv(t, out);
  else
    print_md(t, title, out);
  return ferror(out) ? sq_fail(SQ_ERR_IO, "the table cannot be written") : SQ_OK;
}
