/* src/task/imdb_impl.h: reviews as characters; shared by the task and its check. */
#pragma once

#include "files.h"
#include "sha256.h"
#include "task_impl.h"
#include "unicode.h"

enum { IMDB_PAD = 0, IMDB_UNK = 1, IMDB_EOS = 2, IMDB_NSPECIAL = 3 }; /* token ids */
enum { IMDB_TRAIN, IMDB_TEST, IMDB_NPART };
enum { IMDB_MAX_CODES = 65536 };

/* The reviews of one part, negative ones first, each class in order of the files' names. */
typedef struct {
  uint16_t *code; /* (off[n]) characters, cut; numbered as they are met, 0: any beyond IMDB_MAX_CODES */
  size_t *off;    /* (n+1) */
  size_t n, nneg, cap, code_cap;
  /* before the cut */
  size_t longest, shortest, total, bytes, least_bytes, most_bytes, ncut, nwide; /* nwide: not only ASCII */
} imdb_part;

typedef struct {
  imdb_part part[IMDB_NPART];
  size_t most;         /* characters kept of a review */
  uint16_t *code_of;   /* (UNICODE_LIMIT) 0: not met */
  int32_t *point;      /* (IMDB_MAX_CODES) code point of a code */
  size_t *count;       /* (IMDB_MAX_CODES) in the training texts, after the cut */
  int ncode;           /* codes 1..ncode-1 are used */
  sq_sha256 *checksum; /* if not NULL: of "<SHA-256>  aclImdb/<path>" lines, sorted by path */
} imdb_data;

/* <dir>/aclImdb or <dir>, whichever has train/pos. */
sq_status sq_imdb_find(const char *dir, char out[SQ_PATH_MAX]);
/* Reads {test,train}/{neg,pos}/(names ending in .txt).  SQ_ERR_DATA with file and byte. */
sq_status sq_imdb_read(const char *dir, size_t most, sq_sha256 *checksum, imdb_data *d);
void sq_imdb_clear(imdb_data *d);
/* id[code] (IMDB_MAX_CODES): after the specials, characters seen at least min_count times in training, by
   falling count, ties by code point; the others IMDB_UNK.  Returns the vocabulary's size. */
int sq_imdb_vocabulary(const imdb_data *d, size_t min_count, uint16_t *id);
sq_status sq_imdb_check(const char *dir, FILE *out);
