#!/usr/bin/env bash
# shellcheck disable=SC2317 # length is called by part
# tests/bench/all.sh [-T SECONDS] [-b DIR] [-g] [COMPARE OPTIONS]: what the section "Speed" compares with PyTorch, and length, one after
# the other, each within its part of SECONDS (450, meant for 16 cores), results as they come, plain text.
#
#   1  one thread against PyTorch with one thread: every model; small, MQAR and CIFAR shapes; share of the SGEMM rate; phases
#   2  as many ranks as cores against one rank, and against PyTorch with as many threads: MQAR softmax and Mamba-2
#   3  time and memory of a step against the length of the sequence
#   4  with -g: PyTorch on the GPU, 60 seconds more
#
# COMPARE OPTIONS go to compare.sh in parts 1, 2 and 4 (-p PYTHON, -a, -k, -c, -C, -W, -G, -V).  A part that runs out of time
# says so, and the next one begins; the status is then 1.
set -u
here=$(cd "$(dirname "$0")" && pwd)
total=450 build=${SQ_BENCH_DIR:-$here/../../build} gpu='' failed=0
options=()
while getopts hT:b:gp:akcC:W:G:V: option; do
  case $option in
    h) sed -n '3,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    T) total=$OPTARG ;;
    b) build=$OPTARG ;;
    g) gpu=1 ;;
    a | k | c) options+=("-$option") ;;
    p | C | W | G | V) options+=("-$option" "$OPTARG") ;;
    *) sed -n '3,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done

# Affinity and the control group's quota, as the program counts.
usable_cores() {
  local n quota period
  n=$(nproc)
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ] && [ $((quota / period)) -lt "$n" ]; then
    n=$((quota / period))
  fi
  [ "$n" -ge 1 ] || n=1
  echo "$n"
}
cores=$(usable_cores)
part() { # TITLE COMMAND...
  local start=$SECONDS status=0
  printf '\n==== %s\n\n' "$1"
  shift
  "$@" || status=$?
  printf '\n(%d s%s)\n' $((SECONDS - start)) "$([ "$status" = 0 ] || echo ", status $status")"
  [ "$status" = 0 ] || [ "$status" = 77 ] || failed=1
}

# A process for each model, as many at a time as there are cores to spare.
length() { # SECONDS
  local program lanes=$((cores / 2)) deadline=$((SECONDS + $1)) work model bad=0 running=0
  program=$(find "$build" -name bench-length -type f 2>/dev/null | head -n 1)
  [ -n "$program" ] || { echo "all.sh: no bench-length under $build; build the tests first, or give -b DIR" >&2; return 2; }
  [ "$lanes" -ge 1 ] || lanes=1
  work=$(mktemp -d)
  for model in softmax s4 norm linear mamba2 s5 lru; do
    if [ "$running" -ge "$lanes" ]; then wait -n || bad=1; running=$((running - 1)); fi
    {
      [ "$deadline" -gt "$SECONDS" ] && OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 timeout $((deadline - SECONDS)) \
        "$program" "$here/length.json" --model "$model" >"$work/$model"
      status=$?
      cat "$work/$model" 2>/dev/null
      [ "$status" = 0 ] || echo "$model: no time left"
      exit "$status"
    } &
    running=$((running + 1))
  done
  while [ "$running" -gt 0 ]; do wait -n || bad=1; running=$((running - 1)); done
  rm -rf "$work"
  return "$bad"
}

lanes=$((cores / 3))
[ "$lanes" -ge 1 ] || lanes=1
echo "$(date -u +%FT%TZ)  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $cores cores, $(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)"
part "1. one thread against PyTorch with one thread ($lanes cases at a time)" \
  "$here/compare.sh" -b "$build" "${options[@]}" -j "$lanes" -t $((total * 53 / 100)) small cifar mqar
part "2. $cores ranks against one, and against PyTorch with $cores threads" \
  "$here/compare.sh" -b "$build" "${options[@]}" -r "$cores" -s 4 -t $((total * 33 / 100)) mqar
part "3. time and memory against the length (1 sequence, width 128, 2 layers)" length $((total * 14 / 100))
[ -z "$gpu" ] || part "4. PyTorch on the GPU" "$here/compare.sh" "${options[@]}" -g -t 60 -m "softmax mamba2" mqar cifar
printf '\n%d s in all\n' "$SECONDS"
exit "$failed"
