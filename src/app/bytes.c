#include "bytes.h"

#include <stdio.h>

#include "sq/base.h"

void sq_format_bytes(char out[32], double bytes)
{
  static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  int u = 0;
  while (bytes >= 999.5 && u < 5) {
    bytes /= 1000;
    ++u;
  }
  sq_format(out, 32, u == 0 || bytes >= 99.5 ? "%.0f %s" : "%.1f %s", bytes, unit[u]);
}

sq_status sq_cells_check_bytes(const sq_config *c, double bytes, int nlocal)
{
  const double have = (double)sq_memory_bytes(), need = bytes * nlocal;
  char all[32], there[32];
  if (need <= have) return SQ_OK;
  sq_format_bytes(all, need);
  sq_format_bytes(there, have);
  return sq_fail(
      SQ_ERR_USAGE,
      "cell %s needs %s of memory (%.0f bytes) on %d rank%s, this machine has %s (%.0f bytes): %sa "
      "smaller model.hidden_dim, model.state_dim or vocabulary needs less",
      sq_config_label(c), all, need, nlocal, nlocal == 1 ? "" : "s", there, have,
      bytes <= have ? "use fewer of its ranks, or " : "");
}
