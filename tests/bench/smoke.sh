#!/usr/bin/env bash
# The timing programs run on tiny shapes and print what they promise.  No time is looked at.
set -eu
here=${SQ_SOURCE:?}/tests/bench
export OPENBLAS_NUM_THREADS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() { echo "$*" >&2; bad=1; }
program() { find "${SQ_BIN:?}" -name "$1" -type f | head -n 1; }
tiny=(--set train.batch_size=8)

# Each phase is seen in a model that has it, and the shares are a whole.
seen() { # MODEL PHASE...
  local model=$1 phase
  shift
  "$(program bench-step)" "$here/small.json" --model "$model" --steps 1 --split 2 "${tiny[@]}" >"$work/out" || { complain "bench-step $model failed"; return; }
  for phase in rest input embedding projections mixer norms elementwise output optimiser "$@"; do
    awk -v name="phase_${phase}_ms" '$1 == name && $2 > 0 { found = 1 } END { exit !found }' "$work/out" || case $model.$phase in
      softmax.elementwise | norm.elementwise) ;; # attention without dropout has none
      *) complain "bench-step $model: no time in phase $phase" ;;
    esac
  done
  awk '/^phase_.*_share/ { sum += $2 } END { exit !(sum > 0.999 && sum < 1.001) }' "$work/out" || complain "bench-step $model: shares do not add up to 1"
  for word in products_share products_gflops products_over_useful step_ms_median flops_per_step sgemm_1024_gflops share_of_sgemm peak_growth_bytes plan_bytes input_share; do
    grep -q "^$word [0-9]" "$work/out" || complain "bench-step $model: no $word"
  done
}
seen softmax
seen norm convolution
seen mamba2 convolution elementwise
seen s4 kernels elementwise

# Whatever nn.h offers has a phase, or is known to be part of its caller: a function that is new must be sorted in.
known=' column_sums_add exp dropout_row pool pool_back list_labelled gather_rows scatter_rows add_rows log_softmax xent_head_scratch init_uniform init_normal init_constant init_lecun_normal truncated_normal '
names=$(grep -oE '\bsq_nn_[a-z_]+\(' "$SQ_SOURCE/include/sq/nn.h" | tr -d '(' | sort -u)
[ -n "$names" ] || complain "nn.h offers nothing"
for name in $names; do
  case $known in *" ${name#sq_nn_} "*) continue ;; esac
  grep -q "^TIMED(PHASE_[A-Z]*, $name," "$here/phases.c" || complain "phases.c has no phase for $name of nn.h"
done

"$(program bench-length)" "$here/length.json" --from 64 --to 256 --seconds 0.01 --model softmax --model s5 >"$work/out" || complain "bench-length failed"
[ "$(grep -c exponent "$work/out")" = 2 ] || complain "bench-length: expected two exponents"
[ "$(awk '$2 ~ /^[0-9]+$/ && $3 > 0 && $5 > 0' "$work/out" | wc -l)" = 6 ] || complain "bench-length: expected six points"

"${SQ_MPIEXEC:-mpiexec}" -n 2 "$(program bench-scaling)" "$here/small.json" --model mamba2 --seconds 0.05 --price 1 --watts 100 "${tiny[@]}" >"$work/out" ||
  complain "bench-scaling failed"
[ "$(awk '$1 ~ /^[12]$/ && $6 > 0 && $7 > 0' "$work/out" | wc -l)" = 2 ] || complain "bench-scaling: expected a row for 1 rank and one for 2"
for word in steps_per_second input_share share_of_sgemm cost_per_million_steps joules_per_step; do
  grep -q "^$word [0-9]" "$work/out" || complain "bench-scaling: no $word"
done

# Two ranks, then one with two threads: both ways to have two workers, and what overlapping the sums gains.
"${SQ_MPIEXEC:-mpiexec}" -n 2 "$(program bench-team)" "$here/small.json" --model s5 --steps 2 --seconds 0.05 "${tiny[@]}" >"$work/out" || complain "bench-team failed"
[ "$(awk '$1 ~ /^[12]$/ && $4 > 0 && $8 ~ /%$/' "$work/out" | wc -l)" = 3 ] || complain "bench-team: expected a row for 1 worker and two for 2"

for args in "" "$here/small.json --model none" "$here/small.json --steps"; do
  status=0
  # shellcheck disable=SC2086
  "$(program bench-step)" $args >/dev/null 2>&1 || status=$?
  [ "$status" = 2 ] || complain "bench-step $args: status $status, expected 2"
done
[ "$bad" = 0 ] && echo "the timing programs work"
exit "$bad"
