#!/usr/bin/env bash
# tests/run.sh [--preset NAME] [--sudo] [CTEST ARGUMENTS]
#
# Installs what the tests need, builds, and runs them with ctest.  Presets: release (default), debug, asan, gcc, clang, mpich,
# reference, portable, other (the last three at once).
set -eu
cd "$(dirname "$0")/.."
. jobs/lib.sh

preset=release sudo=
while [ $# -gt 0 ]; do
  case $1 in
  --preset) [ $# -ge 2 ] || die "--preset needs a name" 2; preset=$2; shift ;;
  --sudo) sudo=--sudo ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) break ;;
  esac
  shift
done
legs=--tests
case $preset in asan | clang | mpich | reference | other) legs=--all-legs ;; esac
jobs/install-deps.sh $legs $sudo
jobs/build.sh "$preset" -DSQ_TESTS=ON
mpi_environment
dir=build
[ "$preset" = release ] || dir=build-$preset
say "testing $dir"
exec ctest --test-dir "$dir" --output-on-failure -j "$(usable_cores)" "$@"
