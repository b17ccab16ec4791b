#!/usr/bin/env bash
# `plan` accepts every file under configs/ and every published entry, and counts their parameters and cells right.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
exec python3 "$SQ_SOURCE/tests/check_configs.py" "$program" "$SQ_SOURCE"
