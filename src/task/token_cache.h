/* src/task/token_cache.h: tokens of a text on disk, so that it is tokenised once.
 *
 * Folder: $SEQSPECTRA_CACHE (empty: no cache), else $XDG_CACHE_HOME/seqspectra, else ~/.cache/seqspectra.  A
 * file is named by its key, a checksum of all that decides the tokens; it is written under another name and
 * renamed when complete, so any number of processes may read and write at once. */
#pragma once

#include "bpe.h"

/* 1: ids are filled; 0: there is no such file, or it is damaged (a note says so). */
int sq_token_cache_load(uint64_t key, sq_ids *ids);
/* What goes wrong is a note: everything works without a cache. */
void sq_token_cache_store(uint64_t key, const uint16_t *id, size_t n);
