# tests/cli/lib.sh: what the command line tests share.  SQ_BIN: folder of the programs, SQ_SOURCE: the sources, SQ_MPIEXEC.
set -u
program=$SQ_BIN/${SQ_PROGRAM:-seqspectra}
mpiexec=${SQ_MPIEXEC:-mpiexec}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export OMP_WAIT_POLICY=passive # the tests have more threads than cores
dir=$(cd "$(mktemp -d)" && pwd -P) # as the kernel names it, for tests/preload.c
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
failures=0

fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
skip() { echo "skipped: $*"; exit 77; }
finish() {
  [ "$failures" = 0 ] && echo "passed" && exit 0
  echo "$failures failed"
  exit 1
}

# expect STATUS [PATTERN] -- COMMAND...: exit status, and one line on stderr that contains PATTERN (extended regex)
expect() {
  local status=$1 pattern=
  shift
  [ "$1" = -- ] || { pattern=$1; shift; }
  shift
  "$@" >out.txt 2>err.txt
  local got=$?
  [ "$got" = "$status" ] || fail "$* : exit status $got, expected $status; stderr: $(head -3 err.txt)"
  if [ -n "$pattern" ]; then
    grep -Eq -- "$pattern" err.txt || fail "$* : stderr lacks \"$pattern\": $(head -3 err.txt)"
    [ "$(grep -c '^seqspectra: ' err.txt)" = 1 ] || fail "$* : not one error line: $(cat err.txt)"
  fi
}

ranks() { # ranks N COMMAND...: under the launcher, quiet where it is Open MPI's
  local n=$1 quiet=
  shift
  "$mpiexec" --version 2>/dev/null | grep -qi 'open' && quiet=-q
  "$mpiexec" $quiet -n "$n" "$@"
}

preload=$SQ_BIN/tests/libsq_preload.so # see tests/preload.c
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0
# shellcheck disable=SC2016
preloaded_ranks() { ranks "$1" sh -c 'LD_PRELOAD=$0 exec "$@"' "$preload" "${@:2}"; } # the ranks, not their launcher

# The numbers of two results files are the same, bit for bit; what depends on the run is left out, and /cell, whose list of
# references h5diff compares with the undefined bytes between its members.
same_numbers() {
  h5diff --exclude-path /cell --exclude-path /segments $(for c in wall_s peak_bytes rank host segment; do echo --exclude-path /cells/run_$c; done) \
    "$1" "$2" >diff.txt 2>&1 || fail "$1 and $2 differ: $(head -5 diff.txt)"
}

# A process that runs the program, not a launcher or a shell with the same words.
is_program() { [ "$(readlink "/proc/$1/exe")" = "$(readlink -f "$program")" ]; }
rank_pids() { for p in $(pgrep -f "$program run $1 --out $2"); do is_program "$p" && echo "$p"; done; } # CONFIG RESULTS

# For at most a minute: until the command is true or the process has gone.
until_or_end() { # PID COMMAND...
  for _ in $(seq 3000); do
    "${@:2}" || ! kill -0 "$1" 2>/dev/null || { sleep 0.02; continue; }
    return
  done
}
ends_within() { # SECONDS PID: whether it does; else it is ended
  for _ in $(seq $((10 * $1))); do kill -0 "$2" 2>/dev/null || return 0; sleep 0.1; done
  kill "$2"
  sleep 1
  kill -KILL "$2" 2>/dev/null
  return 1
}

# FILE.lock of a process of this host that has ended.
dead_lock() {
  local gone
  (exit 0) &
  gone=$!
  wait $gone
  printf 'host %s\npid %d\nstarted 2026-01-01T00:00:00Z\njob -\nbeat 0000000001\n' "$(uname -n)" "$gone" >"$1.lock"
}

status_count() { # FILE NAME: cells with this status
  h5dump -d /cells/status -y -w 1 "$1" | sed -n '/DATA {/,/}/p' | tr ',' '\n' | grep -ciE "^ *$2 *\$"
}

# Six small cells: two models, three seeds.  write_grid NAME STEPS
write_grid() {
  local common='"dataset":{"_name_":"mqar","input_seq_length":32,"num_kv_pairs":4,"vocab_size":64,"num_train":512,"num_valid":64,"num_test":64}'
  common="$common,\"train\":{\"total_steps\":$2,\"batch_size\":16,\"lr\":0.003,\"wd\":0.1,\"warmup\":10,\"eval_every\":20}"
  local model='"layer":"transformer","num_layers":2,"hidden_dim":32,"state_dim":32,"num_heads":2,"vocab_size":64,"output_dim":64,"mixer":"none","max_pos_embed":32'
  echo "{$common,\"model\":{$model,\"attention_fn\":\"sm-attention\",\"dim_conv\":4}}" >softmax.json
  echo "{$common,\"model\":{$model,\"attention_fn\":\"lin-attention\"}}" >linear.json
  echo "{\"name\":\"$1\",\"base\":[\"softmax.json\",\"linear.json\"],\"sweep\":{\"seed\":[1,2,3]},
    \"analysis\":{\"batch_size\":4,\"snapshots\":1,\"hankel_samples\":2,\"memory_samples\":2}}" >"$1.json"
}
