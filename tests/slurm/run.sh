#!/usr/bin/env bash
# tests/slurm/run.sh: a real Slurm on the loopback interface.  A job runs into its time limit, is put back, resumes and
# finishes; an array (srun, mpirun), of which one task is stopped by hand; a run on two nodes; a cancelled job; every script of
# jobs/ as sbatch sees it.  Results equal those without Slurm, bit for bit.  SQ_BIN, SQ_SOURCE as for the other tests.
# Skipped (77) where there is no Slurm, or no root to start one.
set -u
SQ_BIN=${SQ_BIN:-$PWD/build}
cd "${SQ_SOURCE:-$(dirname "$0")/../..}" || exit 1
. jobs/lib.sh
export PATH=$PATH:/usr/sbin
for tool in munged slurmctld slurmd sbatch srun scontrol h5diff python3; do
  command -v $tool >/dev/null || { echo "skipped: no $tool here (Debian: slurm-wlm, munge, hdf5-tools)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: starting a Slurm of its own needs root"; exit 77; }
program=$SQ_BIN/${SQ_PROGRAM:-seqspectra}
dir=$(mktemp -d /tmp/sqs.XXXX)
trap 'tests/slurm/cluster.sh down "$dir"; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

mpi_environment
# Ranks of two nodes on one host would map each other's shared memory; srun does not tell them of oversubscription.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
export SLURM_CONF=$dir/slurm.conf SEQSPECTRA=$program OPENBLAS_NUM_THREADS=1
if ! tests/slurm/cluster.sh up "$dir" 2; then
  tail -n 20 "$dir"/log/*.log
  # The host's own name has to be a loopback address, and some containers forbid what munge or slurmd need.
  echo "skipped: this machine does not let a Slurm start (see above)"
  exit 77
fi

bad=0
check() { # WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$dir/check.txt" 2>&1; then echo "ok    $what"; else echo "FAIL  $what: $(head -3 "$dir/check.txt")"; bad=1; fi
}
wait_for() { # JOB SECONDS: until it has left the queue
  local end=$((SECONDS + $2))
  while [ -n "$(squeue -h -j "$1" 2>/dev/null)" ]; do
    [ $SECONDS -lt $end ] || { echo "job $1 is still there: $(squeue -h -j "$1")"; return 1; }
    sleep 0.5
  done
}
count_of() { "$program" status "$1" 2>/dev/null | sed -n "1s/.* \([0-9]*\) $2.*/\1/p"; }
same() {
  h5diff --exclude-path /cell --exclude-path /segments --exclude-path /cells/run_wall_s --exclude-path /cells/run_peak_bytes \
    --exclude-path /cells/run_rank --exclude-path /cells/run_host --exclude-path /cells/run_segment "$1" "$2"
}
show() { sed -n 's/^seqspectra: job/      &/p' "$@"; }

echo "== job scripts"
for script in jobs/*.sbatch; do check "$script" sbatch --test-only "$script"; done

echo "== a warning that comes while the launcher starts"
SEQSPECTRA_LAUNCHER=tests/slurm/slow-launcher.sh jobs/slurm-run.sh "$dir/none.json" "$dir/none.h5" >"$dir/early.txt" 2>&1 &
early=$!
for _ in $(seq 100); do grep -q '^slow launcher' "$dir/early.txt" && break; sleep 0.1; done
kill -USR1 $early
wait $early
check "it is a stop" test $? = 75
check "it says so" grep -q 'start 1: status 75; no results file' "$dir/early.txt"

# Ranks on a machine so slow that the three cells of each outlast the limit of a minute, however fast this one is: steps take
# what their matrix products are made to wait.
cell='"dataset": { "_name_": "mqar", "input_seq_length": 32, "num_kv_pairs": 4, "vocab_size": 64, "num_train": 4000, "num_valid": 200, "num_test": 200 },
  "model": { "layer": "transformer", "attention_fn": "lin-attention", "num_layers": 2, "hidden_dim": 32, "state_dim": 32, "num_heads": 1,
             "vocab_size": 64, "output_dim": 64, "max_pos_embed": 32, "mixer": "none", "classifier": false, "pooling": "none" },
  "analysis": { "batch_size": 4, "snapshots": 1, "hankel_samples": 2, "memory_samples": 2 }'
write_cell() { # FILE STEPS
  echo "{ $cell, \"train\": { \"total_steps\": $2, \"batch_size\": 32, \"lr\": 0.003, \"warmup\": 5, \"eval_every\": $(($2 / 5)) } }" >"$1"
}
write_cell "$dir/short.json" 10
write_cell "$dir/cell.json" 50
echo '{ "name": "slurm", "base": "cell.json", "sweep": { "seed": [1, 2, 3, 4, 5, 6] } }' >"$dir/grid.json"
cat >"$dir/slow" <<S
#!/bin/sh
export ASAN_OPTIONS=\${ASAN_OPTIONS:+\$ASAN_OPTIONS:}verify_asan_link_order=0
LD_PRELOAD=$SQ_BIN/tests/libsq_preload.so SQ_PRELOAD_SLOW=400 exec "$program" "\$@"
S
chmod +x "$dir/slow"
export SEQSPECTRA=$dir/slow

echo "== submitted together: a job with a limit of one minute, an array"
one=$(CONFIG=$dir/grid.json RESULTS=$dir/one.h5 sbatch --parsable -o "$dir/one.txt" tests/slurm/job.sbatch)
cat >"$dir/array.sbatch" <<'J'
#!/bin/bash
#SBATCH --nodes=1 --ntasks-per-node=1 --time=5 --signal=B:USR1@30 --requeue --open-mode=append --array=0-1
[ "$SLURM_ARRAY_TASK_ID" = 0 ] || export SEQSPECTRA_LAUNCHER=mpirun
exec jobs/slurm-run.sh "${CONFIG%/*}/cell.json" "$RESULTS-$SLURM_ARRAY_TASK_ID.h5" --set "seed=$((SLURM_ARRAY_TASK_ID + 1))"
J
array=$(CONFIG=$dir/grid.json RESULTS=$dir/array sbatch --parsable -o "$dir/array-%a.txt" "$dir/array.sbatch")
# The first task is stopped by hand: only this task may be put back.
for _ in $(seq 120); do [ "$(count_of "$dir/array-0.h5" running)" = 1 ] && break; sleep 0.5; done
scancel --batch --signal=USR1 "${array}_0"
check "the array ends" wait_for "$array" 120

echo "== on two nodes; cancelled"
two=$(CONFIG=$dir/short.json RESULTS=$dir/two.h5 sbatch --parsable -t 10 -N 2 --ntasks-per-node=1 -o "$dir/two.txt" tests/slurm/job.sbatch)
cancelled=$(CONFIG=$dir/cell.json RESULTS=$dir/cancelled.h5 sbatch --parsable -t 10 -o "$dir/cancelled.txt" tests/slurm/job.sbatch)
for _ in $(seq 120); do [ "$(count_of "$dir/cancelled.h5" running)" = 1 ] && break; sleep 0.5; done
scancel "$cancelled"
check "the job on two nodes ends" wait_for "$two" 60
check "the cancelled job ends" wait_for "$cancelled" 60
check "the job with a limit ends" wait_for "$one" 400

show "$dir/one.txt"
starts=$(grep -c '^seqspectra: job' "$dir/one.txt")
check "job: started more than once" test "$starts" -gt 1
check "job: each start but the last was put back" test "$(grep -c 'put back into the queue' "$dir/one.txt")" = $((starts - 1))
check "job: the last start has status 0" grep -q "start $starts: status 0" "$dir/one.txt"
check "job: all cells are done" test "$(count_of "$dir/one.h5" done)" = 6
show "$dir"/array-?.txt
for k in 0 1; do check "array: task $k is done" test "$(count_of "$dir/array-$k.h5" done)" = 1; done
check "array: task 0 was put back under its own name" grep -q "job ${array}_0, start 1: status 75.*put back" "$dir/array-0.txt"
check "array: task 1 was not" test "$(grep -c '^seqspectra: job' "$dir/array-1.txt")" = 1
show "$dir/two.txt"
check "two nodes: done" grep -q 'start 1: status 0' "$dir/two.txt"
OMPI_MCA_btl=self "$program" run "$dir/short.json" --out "$dir/short.h5" --quiet 2>/dev/null
check "two nodes: the same results" same "$dir/short.h5" "$dir/two.h5"
show "$dir/cancelled.txt"
check "cancelled: not put back" test "$(grep -c 'put back into' "$dir/cancelled.txt")" = 0
check "cancelled: the cell is kept for another job" test "$(count_of "$dir/cancelled.h5" waiting)" = 1

echo "== the same without Slurm"
OMPI_MCA_btl=self,vader $(launcher) -n 2 "$program" run "$dir/grid.json" --out "$dir/plain.h5" --quiet >/dev/null 2>&1
check "the results are the same, bit for bit" same "$dir/one.h5" "$dir/plain.h5"
check "nothing is left beside them" test "$(ls -d "$dir"/one.h5.* "$dir"/array-?.h5.* 2>/dev/null | wc -l)" = 0

[ "$bad" = 0 ] || tail -n 5 "$dir"/log/*.log "$dir"/*.txt
exit "$bad"
