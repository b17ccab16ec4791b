/* src/task/block.h: all that a task has read, in one piece of memory without pointers: sections one after the other, each
 * on a 64-byte boundary.  Such a piece can be looked at by several processes at other addresses. */
#pragma once

#include "sq/task.h"

typedef struct {
  const void *data;
  size_t bytes;
} block_section;

enum { BLOCK_MAX_SECTIONS = 16 };
/* A block that is filled in place: its bytes, and what stands in front of the sections. */
size_t sq_block_bytes(const size_t *bytes, int n);
void sq_block_begin(void *data, const size_t *bytes, int n);
/* Copies the sections.  *owned* by the caller; SQ_ERR_MEMORY. */
sq_status sq_block_pack(const block_section *s, int n, sq_task_block *b);
/* Section k, and its bytes if these are wanted; a section that a reader did not pack is a bug. */
const void *sq_block_section(const sq_task_block *b, int k, size_t *bytes);
