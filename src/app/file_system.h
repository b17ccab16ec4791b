/* src/app/file_system.h: what a folder's file system is, and what may go wrong with parallel files there. */
#pragma once

#include <stddef.h>

enum { SQ_FS_TROUBLES = 4 };
typedef struct {
  char what[240], remedy[240];
} sq_fs_trouble;

/* "ext4", "lustre", ...; "type 0x..." for others.  Valid until the next call. */
const char *sq_fs_name(const char *dir);
/* Known trouble with a file in dir written from nhost hosts; the number of entries.  Not collective. */
int sq_fs_troubles(const char *dir, int nhost, sq_fs_trouble t[SQ_FS_TROUBLES]);
/* The MPI-IO component that will write there, as far as one can tell: "ompio", "romio"; others have ROMIO. */
const char *sq_mpi_io_name(const char *dir);
