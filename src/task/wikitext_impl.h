/* src/task/wikitext_impl.h: WikiText from files to tokens; shared by the task, its check and the reader.
 *
 * map_block: 0: a text is one string; else (recipe published) line by line, an empty line to nothing, and of every 1000 lines
 * the tokens that do not fill a block of this size are dropped. */
#pragma once

#include "bpe.h"
#include "files.h"
#include "task_impl.h"

/* A text with LF line ends, *owned*.  SQ_ERR_DATA. */
sq_status sq_wikitext_read(const char *path, char **text, size_t *n);
sq_status sq_wikitext_encode(const sq_bpe *b, const char *path, const char *text, size_t n, int map_block,
                             sq_ids *ids);

typedef struct {
  const sq_readers *r;    /* borrowed */
  int map_block, no_room; /* no_room: no memory that the readers share; the same on all */
  sq_bpe *bpe;            /* owned */
  struct wikitext_table *table;
  sq_ids ids[SQ_NSPLIT]; /* what this reader has made, or rank 0 has found on disk */
} wikitext_reading;

/* Collective among the readers, as all that follows: the tokens of the three files, each reader a part.  SQ_ERR_DATA. */
sq_status sq_wikitext_tokenise(wikitext_reading *w, char path[SQ_NSPLIT][SQ_PATH_MAX]);
size_t sq_wikitext_tokens(const wikitext_reading *w, int split); /* of all readers; not collective */
/* One section a split; keeps on disk what was not there.  Without room the block stays empty. */
sq_status sq_wikitext_gather(wikitext_reading *w, sq_task_block *b);
void sq_wikitext_clear(wikitext_reading *w);
