/* include/sq/base.h: logging, memory, clock, checksums, small text helpers. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sq/real.h"
#include "sq/status.h"

/* ---- log: only the rank that called sq_log_enable(1) prints (rank 0) ------------------------------------
 */
void sq_log_enable(int on);   /* default on */
void sq_log_quiet(int quiet); /* notes are dropped, warnings stay */
void sq_note(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "note: ...\n" on stderr */
void sq_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "warning: ...\n" on stderr */

/* ---- memory ------------------------------------------------------------------------------------------ */
/* Zeroed; NULL and a recorded SQ_ERR_MEMORY text (`what`) if it cannot be had.  Free with free(). */
void *sq_calloc(size_t count, size_t size, const char *what);

/* An arena is one allocation cut into 64-byte aligned pieces.  With base == NULL it only counts, so that the
   code that takes the pieces is also the code that plans them. */
typedef struct {
  unsigned char *base; /* NULL: counting */
  size_t used, cap;    /* bytes */
} sq_arena;
sq_status sq_arena_create(sq_arena *a, size_t cap, const char *what); /* SQ_ERR_MEMORY; pages not touched */
void sq_arena_destroy(sq_arena *a);
/* count*size bytes, aligned to 64; NULL while counting.  Exceeding cap is a bug. */
void *sq_arena_take(sq_arena *a, size_t count, size_t size);
#define SQ_TAKE(a, count, type) ((type *)sq_arena_take((a), (count), sizeof(type)))

/* ---- numbers ----------------------------------------------------------------------------------------- */
static inline int sq_min(int a, int b)
{
  return a < b ? a : b;
}
static inline int sq_max(int a, int b)
{
  return a > b ? a : b;
}

/* ---- stopping ---------------------------------------------------------------------------------------- */
/* Asked by long work; once poll() has said nonzero it has to keep saying so. */
typedef struct {
  int (*poll)(void *user); /* NULL: never */
  void *user;
} sq_stop;
static inline int sq_stop_asked(const sq_stop *s)
{
  return s != NULL && s->poll != NULL && s->poll(s->user);
}

/* ---- clock and process ------------------------------------------------------------------------------- */
double sq_wall_s(void); /* monotonic seconds */
/* "2025-01-31T12:34:56Z", when this process asked first: one time for all that says when a run began. */
void sq_start_iso(char out[32]);
size_t sq_peak_bytes(void);   /* VmHWM */
int sq_cpu_count(void);       /* cores that this process may use: affinity and cgroup quota */
size_t sq_memory_bytes(void); /* memory that this process may use: cgroup limit or MemTotal */

/* ---- checksum: 64-bit, for damage detection, not security -------------------------------------------- */
#define SQ_HASH_START UINT64_C(0xcbf29ce484222325)
/* FNV-1a over the bytes, continued from h (start with SQ_HASH_START). */
uint64_t sq_hash(uint64_t h, const void *data, size_t bytes);

/* ---- text -------------------------------------------------------------------------------------------- */
/* Levenshtein distance, for "did you mean". */
int sq_edit_distance(const char *a, const char *b);
/* Whole file, NUL-terminated, *owned*; NULL with a recorded text (status in *st) if it cannot be read. */
char *sq_read_file(const char *path, size_t *bytes, sq_status *st);
/* snprintf that asserts on truncation. */
void sq_format(char *out, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
