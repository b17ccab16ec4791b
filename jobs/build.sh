#!/usr/bin/env bash
# jobs/build.sh [PRESET [CMAKE ARGUMENTS]]: configures and builds a preset (default: release) into its folder, e.g.
# jobs/build.sh release -DSQ_TESTS=OFF.
set -eu
cd "$(dirname "$0")/.."
. jobs/lib.sh
case ${1:-} in -h | --help) sed -n '2,3s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
preset=${1:-release}
[ $# -eq 0 ] || shift
dir=build
[ "$preset" = release ] || dir=build-$preset
log=$dir.log
generator=
command -v ninja >/dev/null && [ ! -e "$dir/CMakeCache.txt" ] && generator="-G Ninja"
command -v cmake >/dev/null || die "cmake is missing: run jobs/install-deps.sh"
cmake --list-presets 2>/dev/null | grep -q "\"$preset\"" || die "no preset '$preset' (see: cmake --list-presets)" 2
say "building preset '$preset' into $dir (log: $log)"
# shellcheck disable=SC2086
if ! { cmake --preset "$preset" $generator "$@" && cmake --build "$dir" -j "$(usable_cores)"; } >"$log" 2>&1; then
  grep -E -A8 'error|Error|FAILED' "$log" | head -40 >&2 || true
  die "the build failed: see $log"
fi
