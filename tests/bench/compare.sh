#!/usr/bin/env bash
# tests/bench/compare.sh: training steps of this program and of PyTorch, in turn on the same machine.
#
#   compare.sh [OPTIONS] [small] [mqar] [cifar]       one thread each, every model: a table of ratios
#   compare.sh [OPTIONS] -r RANKS [small|mqar|cifar]  RANKS ranks of this (bench-scaling) and PyTorch with RANKS threads
#   compare.sh [OPTIONS] -g [small] [mqar] [cifar]    PyTorch on the GPU, float32 and bf16
#
#   -b DIR       folder below which bench-step and bench-scaling lie     -p PYTHON   must import torch
#   -m "s4 lru"  models                                                  -n STEPS    timed steps (small 20, mqar 3, cifar 2)
#   -j LANES     cases at a time, each on one core (1)                   -t SECONDS  start no case after that, end all (none)
#   -s SECONDS   of steps for each number of ranks (5)                   -c          CPU times, for a busy machine
#   -a           PyTorch with logits at all positions too, as published  -k          PyTorch tries torch.compile too
#   -C PRICE -W WATTS   of this machine, an hour: with -r, cost of a million steps, joules a step    -G PRICE -V WATTS   with -g
#
# The first of python3 and /usr/bin/python3 that imports torch is taken.  Ratios are times of PyTorch over times of this.
# The cifar shape has CIFAR-10's sizes with made tokens, four heads of 16 keys, and an MLP of 512 in attention blocks.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=${SQ_BENCH_DIR:-$here/../../build} python='' steps='' clock=wall models='' lanes=1 budget='' seconds=5 all='' ranks='' gpu=''
torch_options='' price='' watts='' gpu_price='' gpu_watts=''
usage() { sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while getopts hb:p:m:n:j:t:s:cakr:gC:W:G:V: option; do
  case $option in
    h) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 0 ;;
    b) build=$OPTARG ;;
    p) python=$OPTARG ;;
    m) models=$OPTARG ;;
    n) steps=$OPTARG ;;
    j) lanes=$OPTARG ;;
    t) budget=$OPTARG ;;
    s) seconds=$OPTARG ;;
    c) clock=cpu ;;
    a) all=1 ;;
    k) torch_options='--compile' ;;
    r) ranks=$OPTARG ;;
    g) gpu=1 ;;
    C) price=$OPTARG ;;
    W) watts=$OPTARG ;;
    G) gpu_price=$OPTARG ;;
    V) gpu_watts=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
for shape in "$@"; do case $shape in small | mqar | cifar) ;; *) usage ;; esac; done

if [ -z "$python" ]; then
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import torch' 2>/dev/null; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ]; then
  echo "compare.sh: no python3 with torch; on Debian: apt-get install python3-torch" >&2
  exit 77
fi
program() {
  local found
  found=$(find "$build" -name "$1" -type f 2>/dev/null | head -n 1)
  [ -n "$found" ] || { echo "compare.sh: no $1 under $build; build the tests first, or give -b DIR" >&2; exit 2; }
  echo "$found"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
left() { if [ -n "$budget" ]; then echo $((budget - SECONDS)); else echo 86400; fi; }
within() { # COMMAND...: not longer than what is left
  local t
  t=$(left)
  [ "$t" -gt 0 ] || return 124
  timeout "$t" "$@"
}
value() { sed -n "s/^$1 //p" "$2"; }
torch_step() { within "$python" "$here/torch_step.py" $torch_options "$@"; }
timed_steps() { # SHAPE
  if [ -n "$steps" ]; then echo "$steps"; else case $1 in small) echo 20 ;; mqar) echo 3 ;; *) echo 2 ;; esac; fi
}
models_of() { # SHAPE
  if [ -n "$models" ]; then echo "$models"; else echo 's4 mamba2 lru s5 norm linear softmax'; fi
}
describe_torch() { # FILE
  echo "torch: $(value torch "$1"), SGEMM 1024^3 $(value sgemm_1024_gflops "$1") GFLOP/s"
  case $(value torch "$1") in
    1.*) echo "note:  PyTorch 1.x (a distribution build) has no fused attention and an older BLAS path: these ratios support" \
              "no claim about PyTorch 2." ;;
  esac
}
incomplete() { printf '%-6s %-8s %s\n' "$1" "$2" "PyTorch: no time left, or it failed" | tee -a "$work/missing"; }
nothing() { printf '%-6s %-8s %s\n' "$1" "$2" "no time left, or it failed" | tee -a "$work/missing"; }

# ---- one thread ---------------------------------------------------------------------------------------------

one_case() { # SHAPE MODEL: a line of the table, and its numbers in $work/SHAPE.MODEL.*
  local at=$work/$1.$2 n torch=- plain=-
  n=$(timed_steps "$1")
  within "$step" "$here/$1.json" --model "$2" --clock "$clock" --steps "$n" >"$at.part" || { nothing "$1" "$2"; return 0; }
  mv "$at.part" "$at.this"
  if torch_step --shape "$1" --model "$2" --clock "$clock" --steps "$n" >"$at.part"; then
    mv "$at.part" "$at.torch"
    torch=$(value step_ms_median "$at.torch")
    if [ "$(value parameters "$at.this")" != "$(value parameters "$at.torch")" ]; then
      echo "compare.sh: $1 $2: the two models have different numbers of parameters" >&2
      return 1
    fi
  fi
  if [ -n "$all" ] && torch_step --shape "$1" --model "$2" --clock "$clock" --steps "$n" --all-positions >"$at.plain"; then
    plain=$(value step_ms_median "$at.plain")
  fi
  awk -v shape="$1" -v model="$2" -v torch="$torch" -v plain="$plain" -v out="$at.ratio" '
    function over(x) { return x == "-" ? "-" : sprintf("%.2f", x / t) }
    { v[$1] = $2 }
    END { t = v["step_ms_median"]
          printf "%-6s %-8s %10.1f %10s %7s %10s %7s %8.1f %8.1f %6.0f%% %7.2f%% %9.1f %8.1f\n", shape, model, t, torch, over(torch), plain,
            over(plain), v["gflops"], v["sgemm_1024_gflops"], 100 * v["share_of_sgemm"], 100 * v["input_share"],
            v["peak_growth_bytes"] / 1e6, v["plan_bytes"] / 1e6
          if (torch != "-") print "labelled", shape, model, torch / t > out
          if (plain != "-") print "all", shape, model, plain / t > out }' "$at.this"
  [ "$torch" != - ] || incomplete "$1" "$2"
}

print_phases() {
  local f
  echo
  echo "where a step of this goes, per cent (phases.h)"
  for f in "$work"/*.this; do
    [ -e "$f" ] || continue
    awk -v name="$(basename "${f%.this}")" '
      /^phase_.*_share/ { sub(/^phase_/, "", $1); sub(/_share$/, "", $1); head = head sprintf(" %11s", $1); row = row sprintf(" %11.1f", 100 * $2) }
      END { print sprintf("%-15s", "") head; print sprintf("%-15s", name) row }' "$f"
  done | awk 'NR == 1 || NR % 2 == 0'
  echo
  echo "matrix products in a step of this: share of the time, their rate, that over SGEMM's of 1024^3, FLOPs made over useful ones, bytes"
  echo "(operands once), and how often the step would be faster if there were nothing else and all ran at SGEMM's rate"
  printf '%-15s %7s %9s %9s %12s %8s %8s\n' '' share GFLOP/s 'of SGEMM' 'over useful' GB bound
  for f in "$work"/*.this; do
    [ -e "$f" ] || continue
    awk -v name="$(basename "${f%.this}")" '{ v[$1] = $2 }
      END { made = v["products_over_useful"] * v["flops_per_step"]
            printf "%-15s %6.1f%% %9.1f %8.0f%% %12.2f %8.2f %8.2f\n", name, 100 * v["products_share"], v["products_gflops"],
              100 * v["products_gflops"] / v["sgemm_1024_gflops"], v["products_over_useful"], v["products_bytes"] / 1e9,
              v["step_ms_median"] / 1e3 / (made / v["sgemm_1024_gflops"] / 1e9) }' "$f"
  done
}

print_means() {
  echo
  { cat "$work"/*.ratio 2>/dev/null || true; } | awk '
    function add(k, r, name) { s[k] += log(r); n[k]++; if (!(k in low) || r < low[k]) { low[k] = r; who[k] = name } }
    { add($2 " " $1, $4, $3); add("shapes " $1, $4, $2 " " $3) }
    END { for (k in n) printf "ratio %-15s geometric mean %.2f of %d, smallest %.2f (%s)\n", k, exp(s[k] / n[k]), n[k], low[k], who[k] }' | sort
}

one_thread() {
  local shape model running=0 failed=0 any
  export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
  step=$(program bench-step)
  printf '%-6s %-8s %10s %10s %7s %10s %7s %8s %8s %7s %8s %9s %8s\n' shape model 'this [ms]' 'torch [ms]' ratio 'all [ms]' ratio GFLOP/s \
    SGEMM share input 'peak [MB]' plan
  for shape in "$@"; do
    for model in $(models_of "$shape"); do
      if [ "$running" -ge "$lanes" ]; then wait -n || failed=1; running=$((running - 1)); fi
      one_case "$shape" "$model" &
      running=$((running + 1))
    done
  done
  while [ "$running" -gt 0 ]; do wait -n || failed=1; running=$((running - 1)); done
  any=$(find "$work" -name '*.this' | head -n 1)
  [ -n "$any" ] || { echo "compare.sh: no case was finished" >&2; exit 1; }
  print_phases
  print_means
  echo
  echo "one thread each, $lanes at a time; $clock time, medians; dropout off; a step: forward, backward, clipping, AdamW; output layer at"
  echo "labelled positions only (all: at all positions); SGEMM: 1024^3 in the same run; peak: growth over the step's start"
  echo "this:  $(value precision "$any"), $(value blas "$any")"
  echo "cpu:   $(value cpu "$any")"
  if grep -q '^blas_advice' "$any"; then echo "note:  $(value blas_advice "$any")"; fi
  any=$(find "$work" -name '*.torch' | head -n 1)
  [ -z "$any" ] || describe_torch "$any"
  echo "ways that PyTorch was fastest with:"
  for f in "$work"/*.torch; do [ ! -e "$f" ] || printf '  %-15s %s\n' "$(basename "${f%.torch}")" "$(value way "$f")"; done
  [ ! -e "$work/missing" ] || failed=1
  return "$failed"
}

# ---- ranks against threads ----------------------------------------------------------------------------------

cost_options() { # PRICE WATTS
  [ -z "$1" ] || echo "--price $1"
  [ -z "$2" ] || echo "--watts $2"
}

whole_machine() {
  local shape=${1:-mqar} model scaling at costs positions
  scaling=$(program bench-scaling)
  costs=$(cost_options "$price" "$watts")
  [ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none PMIX_MCA_gds=hash
  export OMPI_MCA_btl_vader_single_copy_mechanism=none
  for model in ${models:-softmax mamba2}; do
    at=$work/$shape.$model
    # shellcheck disable=SC2086 # the words of costs are arguments
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 within "${SQ_MPIEXEC:-mpiexec}" -n "$ranks" "$scaling" "$here/$shape.json" --model "$model" \
      --seconds "$seconds" $costs | tee "$at.this" || { nothing "$shape" "$model"; continue; }
    # shellcheck disable=SC2086
    for positions in '' ${all:+--all-positions}; do
      # shellcheck disable=SC2086
      torch_step --shape "$shape" --model "$model" --threads "$ranks" --steps "$(($(timed_steps "$shape") + 2))" $positions $costs >"$at.torch" ||
        { nothing "$shape" "$model"; continue; }
      awk -v shape="$shape" -v model="$model" -v ranks="$ranks" -v torch="$(value steps_per_second "$at.torch")" -v where="$positions" '
        /^steps_per_second / { printf "%s %s: %d ranks %.3f steps/s, PyTorch with %d threads%s %.3f steps/s, ratio %.2f\n", shape, model, ranks,
                                 $2, ranks, where == "" ? "" : " and logits at all positions", torch, $2 / torch }' "$at.this"
      sed -n 's/^\(cost_\|joules_\)/PyTorch: \1/p' "$at.torch"
      describe_torch "$at.torch"
    done
    echo
  done
}

# ---- the GPU ------------------------------------------------------------------------------------------------

on_gpu() {
  local shape model kind at costs options
  costs=$(cost_options "$gpu_price" "$gpu_watts")
  "$python" -c 'import sys, torch; print("gpu:  ", torch.cuda.get_device_name(0)) if torch.cuda.is_available() else sys.exit(77)' ||
    { echo "compare.sh: PyTorch sees no GPU" >&2; exit 77; }
  printf '%-6s %-8s %-8s %10s %16s %12s\n' shape model numbers 'step [ms]' 'cost/1e6 steps' 'J/step'
  for shape in "$@"; do
    for model in $(models_of "$shape"); do
      for kind in float32 bf16; do
        at=$work/$shape.$model.$kind options=
        [ $kind = float32 ] || options=--bf16
        # shellcheck disable=SC2086
        torch_step --device cuda $options --shape "$shape" --model "$model" --steps 20 $costs >"$at" || { nothing "$shape" "$model"; continue; }
        awk -v shape="$shape" -v model="$model" -v kind=$kind '{ v[$1] = $2 }
          END { printf "%-6s %-8s %-8s %10.2f %16s %12s\n", shape, model, kind, v["step_ms_median"],
                  v["cost_per_million_steps"] == "" ? "-" : v["cost_per_million_steps"], v["joules_per_step"] == "" ? "-" : v["joules_per_step"] }' "$at"
      done
    done
  done
}

[ $# -gt 0 ] || [ -n "$ranks" ] || set -- small mqar
if [ -n "$ranks" ]; then whole_machine "$@"; elif [ -n "$gpu" ]; then on_gpu "$@"; else one_thread "$@"; fi
[ ! -e "$work/missing" ] # status 1 if a case is missing
