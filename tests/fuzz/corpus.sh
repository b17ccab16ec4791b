#!/usr/bin/env bash
# tests/fuzz/corpus.sh: every fuzz target over its first inputs, with the plain driver.  $SQ_BIN: the build folder.
set -u
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export TMPDIR=$dir
python3 "$SQ_SOURCE/tests/fuzz/make_corpus.py" "$dir/seed" || exit 1
failed=0
for f in "$SQ_SOURCE"/tests/fuzz/fuzz_*.c; do
  t=$(basename "$f" .c)
  if "$SQ_BIN/tests/$t" "$dir/seed/$t" >"$dir/log" 2>&1; then
    echo "$t: $(tail -1 "$dir/log")"
  else
    echo "FAILED: $t: $(tail -20 "$dir/log")"
    failed=1
  fi
done
exit $failed
