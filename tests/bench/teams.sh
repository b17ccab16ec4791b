#!/usr/bin/env bash
# Time of a training step of one cell on 1 .. 16 workers, ranks and threads mixed, and the efficiency: run by hand on idle cores.
#
#   tests/bench/teams.sh CONFIG [STEPS] [--set KEY=VALUE ...]      BIN: folder of the program (default build), WORKERS: "1 2 4 8 16"
#
# Two runs of STEPS and 3 STEPS steps each; the difference leaves out what a run does once.  e.g. on 16 cores
#
#   for c in mqar/mqar-sm-attention mqar/mqar-mamba2; do tests/bench/teams.sh configs/$c.json 20; done
#   tests/bench/teams.sh tests/bench/cifar.json 2 --set model.layer=s4
set -eu
config=$1
shift
steps=10
[ $# -gt 0 ] && [ "${1#--}" = "$1" ] && { steps=$1; shift; }
program=$(readlink -f "${BIN:-build}/seqspectra")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
ends="--set dataset.num_valid=16 --set dataset.num_test=16 --set analysis.protocols=[] --set train.warmup=null"

wall() { # RANKS THREADS STEPS
  rm -f "$out/run.h5"
  local start=$(date +%s.%N)
  mpirun -q --bind-to none -n "$1" "$program" run "$config" --out "$out/run.h5" --quiet --threads "$2" --team "$1" $ends \
    --set train.total_steps="$3" --set train.num_epochs=null --set train.eval_every="$3" "${set[@]}" >/dev/null
  echo "$(date +%s.%N) - $start" | bc
}

set=("$@")
one=
printf '%8s %6s %8s %12s %11s\n' workers ranks threads s/step efficiency
for workers in ${WORKERS:-1 2 4 8 16}; do
  for ((ranks = workers; ranks >= 1; ranks /= 4)); do
    threads=$((workers / ranks))
    short=$(wall $ranks $threads $steps)
    long=$(wall $ranks $threads $((3 * steps)))
    step=$(echo "scale=5; ($long - $short) / (2 * $steps)" | bc)
    one=${one:-$step}
    printf '%8d %6d %8d %12s %10.0f%%\n' $workers $ranks $threads $step "$(echo "scale=4; 100 * $one / ($workers * $step)" | bc)"
  done
done
