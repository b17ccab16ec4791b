/* src/app/bytes.h: amounts of memory, in words and against what the machine has. */
#pragma once

#include "sq/config.h"
#include "sq/status.h"

/* "1.2 GB", powers of 1000 */
void sq_format_bytes(char out[32], double bytes);

/* Whether `bytes` on each of `nlocal` ranks, for a command that does not train, fit into this machine's memory:
   SQ_ERR_USAGE with what is needed and there. */
sq_status sq_cells_check_bytes(const sq_config *c, double bytes, int nlocal);
