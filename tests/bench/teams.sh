#!/usr/bin/env bash
# tests/bench/teams.sh CONFIG [STEPS] [--set KEY=VALUE ...]: time of a training step of one cell on 1 .. 16 workers, ranks and threads
# mixed, the efficiency, and with several ranks the step when gradients are added after the backward pass instead of during
# it (run.overlap false); on idle cores.  WORKERS: numbers of workers ("1 2 4 8 16").
#
#   for c in mqar/mqar-sm-attention mqar/mqar-mamba2; do tests/bench/teams.sh configs/$c.json 20; done
#
# Two runs of STEPS and 3 STEPS steps each; the difference leaves out what a run does once.
set -eu
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
config=$1
shift
steps=10
[ $# -gt 0 ] && [ "${1#--}" = "$1" ] && { steps=$1; shift; }
build=${SQ_BENCH_DIR:-$here/../../build}
program=$build/seqspectra
[ -x "$program" ] || { echo "teams.sh: no seqspectra in $build; set SQ_BENCH_DIR" >&2; exit 2; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
ends=(--set dataset.num_valid=16 --set dataset.num_test=16 --set "analysis.protocols=[]" --set train.warmup=null --set train.num_epochs=null)

wall() { # RANKS THREADS OVERLAP STEPS
  local start=${EPOCHREALTIME/,/.}
  rm -rf "$out"/run.h5*
  "${SQ_MPIEXEC:-mpirun}" -q --bind-to none -n "$1" "$program" run "$config" --out "$out/run.h5" --quiet --threads "$2" --team "$1" \
    "${ends[@]}" --set run.overlap="$3" --set train.total_steps="$4" --set train.eval_every="$4" "${set[@]}" >"$out/log" 2>&1 ||
    { cat "$out/log" >&2; return 1; }
  awk -v a="$start" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.4f", b - a }'
}

step_of() { # RANKS THREADS OVERLAP: seconds of a step
  local short long
  short=$(wall "$@" "$steps")
  long=$(wall "$@" $((3 * steps)))
  awk -v l="$long" -v s="$short" -v n="$steps" 'BEGIN { printf "%.5f", (l - s) / (2 * n) }'
}

set=("$@")
one=
printf '%8s %6s %8s %12s %11s %16s\n' workers ranks threads s/step efficiency 's/step, no overlap'
for workers in ${WORKERS:-1 2 4 8 16}; do
  for ((ranks = workers; ranks >= 1; ranks /= 4)); do
    threads=$((workers / ranks))
    step=$(step_of $ranks $threads true)
    one=${one:-$step}
    apart=-
    [ $ranks = 1 ] || apart=$(step_of $ranks $threads false)
    awk -v w=$workers -v r=$ranks -v t=$threads -v s="$step" -v o="$one" -v a="$apart" \
      'BEGIN { printf "%8d %6d %8d %12s %10.0f%% %16s\n", w, r, t, s, 100 * o / (w * s), a }'
  done
done
