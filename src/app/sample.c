/* src/app/sample.c: the sequences that are analysed, and their spectra. */
#include <stdlib.h>

#include "cells.h"
#include "sq/base.h"

struct sq_sample {
  int nprotocol;
  sq_spectra *s[SQ_MAX_PROTOCOLS];
  double **field[SQ_MAX_PROTOCOLS]; /* (nfield) pieces of data */
  double *data;
  sq_batch batch;
  void *batch_store;
};

/* One array for all protocols: they run one after the other. */
static sq_status fields_create(sq_sample *s)
{
  size_t largest = 0;
  for (int p = 0; p < s->nprotocol; ++p) {
    int n;
    const sq_field *f = sq_spectra_fields(s->s[p], &n);
    const size_t bytes = sq_fields_bytes(f, n);
    largest = bytes > largest ? bytes : largest;
  }
  s->data = sq_calloc(largest / sizeof(double) + 1, sizeof(double), "spectra of a cell");
  if (!s->data) return SQ_ERR_MEMORY;
  for (int p = 0; p < s->nprotocol; ++p) {
    int n;
    const sq_field *f = sq_spectra_fields(s->s[p], &n);
    s->field[p] = sq_calloc((size_t)n + 1, sizeof *s->field[p], "spectra of a cell");
    if (!s->field[p]) return SQ_ERR_MEMORY;
    double *next = s->data;
    for (int i = 0; i < n; ++i) {
      s->field[p][i] = next;
      next += sq_field_doubles(&f[i]);
    }
  }
  return SQ_OK;
}

static sq_status batch_create(sq_sample *s, const sq_task *t, int nsample)
{
  size_t *index = sq_calloc((size_t)nsample, sizeof *index, "analysed sequences");
  s->batch_store = sq_calloc(1, sq_task_batch_bytes(sq_task_describe(t), nsample), "analysed sequences");
  const int have = index && s->batch_store;
  if (have) {
    for (int i = 0; i < nsample; ++i) index[i] = (size_t)i;
    sq_task_batch(t, SQ_TEST, nsample, index, SQ_PAD_NONE, s->batch_store, &s->batch);
    if (s->batch.dual) { /* each is analysed alone: the sequences of the first pairs */
      s->batch.rows.nseq = nsample;
      s->batch.rows.nrow = s->batch.rows.off[nsample];
    }
  }
  free(index);
  return have ? SQ_OK : SQ_ERR_MEMORY;
}

sq_status sq_sample_create(const sq_config *c, const sq_model *m, const sq_task *t, sq_sample **out)
{
  const sq_task_info *info = sq_task_describe(t);
  const int nsample = sq_cells_nsample(c, info);
  sq_sample *s = sq_calloc(1, sizeof *s, "analysed sequences");
  sq_status st = SQ_OK;
  *out = s;
  if (!s) return SQ_ERR_MEMORY;
  const int n = sq_config_count(c, "analysis.protocols");
  SQ_ASSERT(n <= SQ_MAX_PROTOCOLS);
  for (; s->nprotocol < n; ++s->nprotocol)
    SQ_TRY(sq_spectra_create(c, m, sq_config_string_at(c, "analysis.protocols", s->nprotocol), nsample,
                             info->seq_len, &s->s[s->nprotocol]));
  SQ_TRY(fields_create(s));
  SQ_TRY(batch_create(s, t, nsample));
done:
  if (st != SQ_OK) sq_sample_destroy(out);
  return st;
}

void sq_sample_destroy(sq_sample **ps)
{
  sq_sample *s = *ps;
  if (!s) return;
  for (int p = 0; p < SQ_MAX_PROTOCOLS; ++p) {
    sq_spectra_destroy(&s->s[p]);
    free(s->field[p]);
  }
  free(s->data);
  free(s->batch_store);
  free(s);
  *ps = NULL;
}

void sq_sample_poll(sq_sample *s, int (*poll)(void *user), void *user)
{
  for (int p = 0; p < s->nprotocol; ++p) sq_spectra_poll(s->s[p], poll, user);
}

int sq_sample_nprotocol(const sq_sample *s)
{
  return s->nprotocol;
}

sq_status sq_sample_run(sq_sample *s, int p, const sq_real *theta, void *work, sq_store *store, int group,
                        int cell, int stage, long step)
{
  sq_status st;
  SQ_TRY(sq_spectra_run(s->s[p], theta, &s->batch, work, s->field[p]));
  SQ_TRY(sq_store_spectra(store, group, cell, stage, step, s->field[p]));
done:
  return st;
}
