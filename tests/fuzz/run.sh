#!/usr/bin/env bash
# tests/fuzz/run.sh [-p N] [SECONDS [TARGET...]]
#
# Runs the fuzz targets, N (default 1) at a time, SECONDS (default 60) each, and prints a table: executions, edges covered, inputs
# kept, crashes.  They are built with clang in $SQ_FUZZ_BUILD (default build-fuzz): cmake -S . -B build-fuzz
# -DCMAKE_C_COMPILER=clang -DSQ_FUZZ=ON, which this script does where it has not been done.  What is found stays in
# <build>/fuzz/<target>: corpus, and crash-* files, each of which the target run with that file as its argument shows again.
# Exit status 1 if there is a crash.
set -eu
cd "$(dirname "$0")/../.."
at_once=1
[ "${1:-}" != -p ] || { at_once=$2; shift 2; }
seconds=${1:-60}
[ $# -eq 0 ] || shift
build=${SQ_FUZZ_BUILD:-build-fuzz}
[ -d "$build/tests" ] || cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSQ_FUZZ=ON >/dev/null
[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
[ "${SQ_FUZZ_JOBS:-2}" = 0 ] || cmake --build "$build" --target "$@" -j "${SQ_FUZZ_JOBS:-2}" >/dev/null # 0: as they are
python3 tests/fuzz/make_corpus.py "$build/fuzz/seed"
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")") # many small files
trap 'rm -rf "$TMPDIR"' EXIT
export TMPDIR seconds build
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1:quarantine_size_mb=8:allocator_release_to_os_interval_ms=-1} UBSAN_OPTIONS=print_stacktrace=1

fuzz() { # TARGET: its line of the table
  local work=$build/fuzz/$1 failed=0 executions took edges
  mkdir -p "$work/corpus"
  # -max_len: two records of CIFAR-10; a slow input or one that wants much memory is a finding too.
  nice -n 10 "$build/tests/$1" -max_total_time="$seconds" -max_len=8192 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/" "$work/corpus" "$build/fuzz/seed/$1" >"$work/log.txt" 2>&1 || failed=1
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log.txt")
  took=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$work/log.txt")
  edges=$(grep -o 'cov: [0-9]*' "$work/log.txt" | tail -1 | cut -d' ' -f2)
  printf '%-18s %12s %8s %8s %8s %8s\n' "$1" "${executions:--}" "${took:--}" "${edges:--}" "$(ls "$work/corpus" | wc -l)" \
    "$(find "$work" -maxdepth 1 \( -name 'crash-*' -o -name 'leak-*' -o -name 'timeout-*' -o -name 'oom-*' \) | wc -l)"
  return $failed
}
export -f fuzz

printf '%-18s %12s %8s %8s %8s %8s\n' target executions seconds edges inputs crashes
printf '%s\n' "$@" | xargs -P "$at_once" -I{} bash -c 'fuzz {}' || exit 1
