#!/usr/bin/env bash
# tests/fuzz/run.sh [SECONDS [TARGET...]]
#
# Runs the fuzz targets one after the other, SECONDS (default 60) each, and prints a table: executions, edges covered, inputs
# kept, crashes.  They are built with clang in $SQ_FUZZ_BUILD (default build-fuzz): cmake -S . -B build-fuzz
# -DCMAKE_C_COMPILER=clang -DSQ_FUZZ=ON, which this script does where it has not been done.  What is found stays in
# <build>/fuzz/<target>: corpus, and crash-* files, each of which the target run with that file as its argument shows again.
# Exit status 1 if there is a crash.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
build=${SQ_FUZZ_BUILD:-build-fuzz}
[ -d "$build/tests" ] || cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSQ_FUZZ=ON >/dev/null
[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
[ "${SQ_FUZZ_JOBS:-2}" = 0 ] || cmake --build "$build" --target "$@" -j "${SQ_FUZZ_JOBS:-2}" >/dev/null # 0: as they are
python3 tests/fuzz/make_corpus.py "$build/fuzz/seed"
export TMPDIR
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")") # many small files
trap 'rm -rf "$TMPDIR"' EXIT
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:quarantine_size_mb=8:allocator_release_to_os_interval_ms=-1} UBSAN_OPTIONS=print_stacktrace=1
failed=0
printf '%-18s %12s %8s %8s %8s %8s\n' target executions seconds edges inputs crashes
for t in "$@"; do
  work=$build/fuzz/$t
  mkdir -p "$work/corpus"
  # -max_len: two records of CIFAR-10; a slow input or one that wants much memory is a finding too.
  nice -n 10 "$build/tests/$t" -max_total_time="$seconds" -max_len=8192 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/corpus" "$build/fuzz/seed/$t" >"$work/log.txt" 2>&1 || failed=1
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log.txt")
  took=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$work/log.txt")
  edges=$(grep -o 'cov: [0-9]*' "$work/log.txt" | tail -1 | cut -d' ' -f2)
  printf '%-18s %12s %8s %8s %8s %8s\n' "$t" "${executions:--}" "${took:--}" "${edges:--}" "$(ls "$work/corpus" | wc -l)" \
    "$(find "$work" -maxdepth 1 \( -name 'crash-*' -o -name 'leak-*' -o -name 'timeout-*' -o -name 'oom-*' \) | wc -l)"
done
exit $failed
