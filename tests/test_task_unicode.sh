#!/bin/sh
# The table of code points is what its script writes, where Python has the same version of Unicode.
table=$SQ_SOURCE/src/task/unicode_table.h
have=$(sed -n 's/^#define UNICODE_VERSION "\(.*\)"$/\1/p' "$table")
[ -n "$have" ] || { echo "FAILED: no version in $table"; exit 1; }
for python in python3 /usr/bin/python3; do
  [ "$("$python" -c 'import unicodedata; print(unicodedata.unidata_version)' 2>/dev/null)" = "$have" ] || continue
  "$python" "$SQ_SOURCE/src/task/unicode_table.py" | cmp - "$table" || exit 1
  echo passed
  exit 0
done
echo "skipped: no python3 with Unicode $have"
exit 77
