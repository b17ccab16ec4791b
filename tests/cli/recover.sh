#!/usr/bin/env bash
# What machines do to a run: clocks, file systems, locks of other hosts, damaged checkpoints, a second signal.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 60
"$s" run tiny.json --out whole.h5 --quiet || fail "the uninterrupted run"

# Locks of another host: one that shows signs of life is respected, one that shows none is taken over after a while.
stranger() { printf 'host elsewhere\npid %s\nstarted 2020-01-01T00:00:00Z\njob 77_3\nbeat %010d\n' "$1" "$2" >"$3.lock"; }
cp whole.h5 dead.h5
stranger 4711 5 dead.h5
"$s" run tiny.json --out dead.h5 --resume >dead.txt 2>&1 &
waiting=$!
# A start that comes while the first waits does not take that for the dead run.
{ sleep 3; "$s" run tiny.json --out dead.h5 --resume >second.txt 2>&1; } &
second=$!
cp whole.h5 alive.h5
stranger 4711 0 alive.h5
(for k in $(seq 40); do sleep 0.5; stranger 4711 "$k" alive.h5; done) &
beats=$!
expect 2 'alive.h5 is being written by process 4711 on host elsewhere \(job 77_3, started 2020-01-01T00:00:00Z\); if that run is dead, remove alive.h5.lock' -- \
  "$s" run tiny.json --out alive.h5 --resume
kill $beats
wait $beats 2>/dev/null

# The time that a batch system gives; a clock that is wrong must not stop a job before it has begun.
SLURM_JOB_END_TIME=$(($(date +%s) - 1000)) "$s" run tiny.json --out past.h5 --quiet 2>err.txt || fail "an end time in the past: $? $(cat err.txt)"
grep -q '^warning: SLURM_JOB_END_TIME=.* ago: is this host' err.txt || fail "an end time in the past: $(cat err.txt)"
same_numbers whole.h5 past.h5
SLURM_JOB_END_TIME=$(($(date +%s) + 10)) "$s" run tiny.json --out end.h5 --quiet --set train.total_steps=1000000 2>err.txt
[ $? = 75 ] || fail "SLURM_JOB_END_TIME: expected 75: $(cat err.txt)"
grep -q '^seqspectra: stopped (time limit): 0 of 6 cells done, 6 left' err.txt || fail "SLURM_JOB_END_TIME: $(cat err.txt)"
LD_PRELOAD=$preload SQ_PRELOAD_CLOCK=86400 "$s" run tiny.json --out clock.h5 --quiet --time-limit 600 2>err.txt || fail "a clock that jumps: $? $(cat err.txt)"
same_numbers whole.h5 clock.h5

# A second signal stops at once: with one rank stopped, the first alone would wait for it.
ranks 2 "$s" run tiny.json --out twice.h5 --quiet --set train.total_steps=1000000 2>twice.txt &
pid=$!
for _ in $(seq 300); do [ -e twice.h5.ckpt ] && break; sleep 0.1; done
sleep 1
# shellcheck disable=SC2046
set -- $(rank_pids tiny.json twice.h5)
if [ $# = 2 ]; then
  kill -STOP "$2"
  kill -TERM "$1"
  sleep 4
  kill -0 "$1" 2>/dev/null || fail "a rank did not wait for the other"
  kill -TERM "$1"
  ends_within 5 "$1" || fail "a second signal does not stop at once"
  kill -CONT "$2" 2>/dev/null
  kill -KILL "$2" 2>/dev/null
else
  fail "expected two ranks, found $#"
fi
wait $pid
expect 0 -- "$s" status twice.h5

# A damaged newest checkpoint: one line says so, the one before is taken, and the numbers are those of an uninterrupted run.  How
# often they are written may change from start to start.
"$s" run tiny.json --out long.h5 --quiet --set train.total_steps=600 --set run.checkpoint_minutes=0.001 || fail "the long run"
newest=
for _ in 1 2 3 4 5; do # a kill between two renames leaves one checkpoint
  rm -rf ckpt.h5*
  LD_PRELOAD=$preload SQ_PRELOAD_SLOW=100 "$s" run tiny.json --out ckpt.h5 --quiet --set train.total_steps=600 --set run.checkpoint_minutes=0.001 2>err.txt &
  pid=$!
  until_or_end $pid test -e ckpt.h5.ckpt/cell-0.old
  kill -KILL $pid
  wait $pid 2>/dev/null
  [ -e ckpt.h5.ckpt/cell-0 ] && [ -e ckpt.h5.ckpt/cell-0.old ] && newest=ckpt.h5.ckpt/cell-0 && break
done
if [ -n "$newest" ]; then truncate -s 1000 "$newest"; else fail "no two checkpoints: $(ls ckpt.h5.ckpt)"; fi
"$s" run tiny.json --out ckpt.h5 --quiet --resume --set train.total_steps=600 --set run.checkpoint_minutes=5 2>err.txt || fail "a truncated checkpoint: $(cat err.txt)"
grep -Eq "^seqspectra: rank 0: cell [0-5] .*: ckpt.h5.ckpt/cell-[0-5]: it is truncated; the one before is taken \(step [0-9]+\)$" err.txt ||
  fail "a truncated checkpoint: $(cat err.txt)"
same_numbers long.h5 ckpt.h5

# A file where the checkpoints go: nothing is made.
touch way.h5.ckpt
expect 4 'way.h5.ckpt is in the way' -- "$s" run tiny.json --out way.h5
[ -e way.h5 ] && fail "no place for checkpoints, but a file was made"

# A start that was killed between giving the file its name and taking the temporary one away; its number may be in use again.
(exit 0) &
gone=$!
wait $gone
ln whole.h5 whole.h5.tmp.$gone
ln whole.h5 whole.h5.tmp.$$
expect 0 -- "$s" run tiny.json --out whole.h5 --resume
[ -e whole.h5.tmp.$gone ] || [ -e whole.h5.tmp.$$ ] && fail "--resume leaves a dead start's temporary name"

# A start right behind a killed one, whose files the system has not closed yet: it waits for that.
if command -v flock >/dev/null; then
  dead_lock whole.h5
  flock whole.h5.lock sh -c 'touch held; sleep 0.6' &
  for _ in $(seq 600); do [ -e held ] && break; sleep 0.02; done
  expect 0 -- "$s" run tiny.json --out whole.h5 --resume
  wait $!
else
  echo "not tested here: a start right behind a killed one (no flock)"
fi

# Another grid is refused with what differs; a folder that takes no files is named.
expect 2 'whole.h5.*train.total_steps.*60.*70' -- "$s" run tiny.json --out whole.h5 --resume --set train.total_steps=70
expect 4 'nowhere/x.h5' -- "$s" run tiny.json --out nowhere/x.h5

# A disk that is full at the start, and one that gets full: one line, status 4, no hang, and the rest can be made up for.
mkdir disk
touch full
export SQ_PRELOAD_FULL=$PWD/full SQ_PRELOAD_DIR=$PWD/disk
expect 4 'No space left' -- env LD_PRELOAD="$preload" "$s" run tiny.json --out disk/x.h5 --quiet
dead_lock disk/x.h5 # some file systems do not even write again what is there
expect 4 'x.h5.lock: cannot be written: No space left' -- env LD_PRELOAD="$preload" "$s" run tiny.json --out disk/x.h5 --quiet
rm full
expect 0 -- "$s" run tiny.json --out disk/x.h5 --quiet
met=0
for n in 1 2 3; do
  preloaded_ranks $n "$s" run tiny.json --out disk/$n.h5 --quiet 2>err.txt &
  pid=$!
  until_or_end $pid test -e disk/$n.h5.ckpt
  touch full
  ends_within 60 $pid || fail "a full disk on $n ranks: still running after 60 s"
  wait $pid
  got=$?
  [ $got = 4 ] || [ $got = 0 ] || fail "a full disk on $n ranks: status $got: $(cat err.txt)"
  [ $got = 0 ] || met=$((met + 1))
  [ $got = 0 ] || [ "$(grep -Ec '^seqspectra: .*(No space left|cannot be written)' err.txt)" -ge 1 ] || fail "a full disk on $n ranks: $(cat err.txt)"
  rm full
  expect 0 -- "$s" status disk/$n.h5
  expect 0 -- "$s" run tiny.json --out disk/$n.h5 --quiet --resume
  same_numbers whole.h5 disk/$n.h5
done
[ $met -gt 0 ] || echo "not tested here: a disk that gets full (all runs were over before)"

# A disk that is full only while checkpoints are written: a line for each, and the run ends as if nothing had been.
long="--set train.total_steps=2000 --set train.eval_every=2000 --set run.checkpoint_minutes=0.001"
expect 0 -- "$s" run linear.json --out while.h5 --quiet $long
for n in 1 2; do
  for _ in 1 2 3 4 5; do # its one row may come while the disk is full: then again
    rm -rf disk/while.h5*
    preloaded_ranks $n "$s" run linear.json --out disk/while.h5 --quiet --team $n $long 2>err.txt &
    pid=$!
    until_or_end $pid test -e disk/while.h5.ckpt/cell-0
    touch full
    until_or_end $pid grep -q 'cannot be written' err.txt
    rm full
    wait $pid
    got=$?
    [ $got = 0 ] && grep -q 'cannot be written' err.txt && break # else it was over before the disk was full
  done
  [ $got = 0 ] || fail "$n ranks, no room for some checkpoints: status $got: $(cat err.txt)"
  grep -q '^seqspectra: rank 0: cell 0 .* cannot be written: ' err.txt || fail "$n ranks, no room for some checkpoints: $(cat err.txt)"
  same_numbers while.h5 disk/while.h5
done

# A server that does not answer for a while has not lost the file.
SQ_PRELOAD_SILENT=$PWD/silent preloaded_ranks 1 "$s" run tiny.json --out silent.h5 --quiet --set train.total_steps=1000000 2>err.txt &
pid=$!
for _ in $(seq 600); do "$s" status silent.h5 2>&1 | grep -q '^  running .*: step [1-9]' && break; sleep 0.1; done
touch silent
sleep 6 # it looks every 5 s
rm silent
kill -TERM $(rank_pids tiny.json silent.h5)
wait $pid
got=$?
[ $got = 75 ] || fail "a server that does not answer: status $got: $(cat err.txt)"

# No room for the last checkpoint at a stop: the one before counts.
export SQ_PRELOAD_DIR=$PWD/disk/last.h5.ckpt
env LD_PRELOAD="$preload" "$s" run linear.json --out disk/last.h5 --quiet $long 2>err.txt &
pid=$!
until_or_end $pid test -e disk/last.h5.ckpt/cell-0.old
touch full
until_or_end $pid grep -q 'cannot be written' err.txt
kill -TERM $pid
wait $pid
got=$?
rm full
if [ $got != 0 ]; then # else it was done before the signal
  [ $got = 75 ] || fail "a stop without room for a checkpoint: status $got: $(cat err.txt)"
  expect 0 -- "$s" run linear.json --out disk/last.h5 $long --resume
  grep -q '^resumed: 0 done before, 1 goes on from a checkpoint, 0 begin at step 0$' out.txt || fail "a stop without room for a checkpoint: $(head -3 out.txt)"
fi
same_numbers while.h5 disk/last.h5
unset SQ_PRELOAD_FULL SQ_PRELOAD_DIR

# Ranks with different kernels would not give the same bits.
kernel() { OPENBLAS_CORETYPE=$1 "$s" version | sed -n 's/^BLAS.*kernel \([^,]*\).*/\1/p'; }
if [ -n "$(kernel Haswell)" ] && [ "$(kernel Haswell)" != "$(kernel Nehalem)" ]; then
  # shellcheck disable=SC2016
  mixed='case ${OMPI_COMM_WORLD_RANK-}${PMI_RANK-} in 0) export OPENBLAS_CORETYPE=Haswell ;; *) export OPENBLAS_CORETYPE=Nehalem ;; esac; exec "$@"'
  expect 2 'rank 0 runs on .*, rank 1 on .*: their bits would differ' -- ranks 2 sh -c "$mixed" sh "$s" run tiny.json --out mixed.h5 --quiet
  [ ! -e mixed.h5 ] || fail "mixed kernels: a file was made"
  expect 0 -- ranks 2 sh -c "$mixed" sh "$s" run tiny.json --out mixed.h5 --quiet --allow-different-cpu
  # Nor would other kernels at the next start; where nothing is left to compute they are of no matter.
  expect 0 -- env OPENBLAS_CORETYPE=Nehalem "$s" run tiny.json --out mixed.h5 --resume
  long="--set train.total_steps=1000000 --set run.checkpoint_minutes=0.001"
  OPENBLAS_CORETYPE=Haswell "$s" run linear.json --out begun.h5 --quiet $long 2>err.txt &
  pid=$!
  until_or_end $pid test -e begun.h5.ckpt/cell-0
  kill -KILL $pid
  wait $pid 2>/dev/null
  expect 2 'begun.h5 was computed on .* with Haswell kernels, here are .* and Nehalem' -- env OPENBLAS_CORETYPE=Nehalem "$s" run linear.json --out begun.h5 $long --resume
else
  echo "not tested here: other BLAS kernels (there is one)"
fi

# A limit on the size of files, which MPI meets before the results file does: one line, and no signal's end.
for n in 1 2; do
  # shellcheck disable=SC2016
  expect 4 "limit$n.h5: no room for its .*: File too large" -- ranks $n sh -c 'ulimit -f 100; exec "$@"' sh "$s" run tiny.json --out limit$n.h5 --quiet
done

# File systems that are known for trouble.
trouble() { env LD_PRELOAD="$preload" SQ_PRELOAD_STATFS="$1" "$s" doctor --dir . >out.txt 2>&1; }
trouble 0x6969
grep -q 'file system of .: nfs' out.txt || fail "doctor on NFS: $(cat out.txt)"
trouble 0x0BD00BD0
grep -q 'file system of .: lustre' out.txt || fail "doctor on Lustre: $(cat out.txt)"
if "$s" version | grep -q 'Open MPI v*4\.1'; then
  grep -q '^warning  MPI-IO of Open MPI 4.1.* on Lustre: OMPIO' out.txt || fail "doctor on Lustre: $(cat out.txt)"
  grep -q '^ *export OMPI_MCA_io=romio321' out.txt || fail "doctor on Lustre, remedy: $(cat out.txt)"
  OMPI_MCA_io=romio321 trouble 0x0BD00BD0
  grep -q 'OMPIO, which' out.txt && fail "doctor on Lustre with ROMIO: $(cat out.txt)"
  env LD_PRELOAD="$preload" SQ_PRELOAD_STATFS=0x0BD00BD0 "$s" run linear.json --out lustre.h5 --quiet 2>err.txt
  grep -q '^warning: MPI-IO of Open MPI 4.1.*; remedy: export OMPI_MCA_io=romio321' err.txt || fail "run on Lustre: $(cat err.txt)"
fi

wait $waiting || fail "the lock of a dead run on another host: $? $(cat dead.txt)"
grep -q 'waiting up to 30 s for a sign of life of process 4711 on host elsewhere (job 77_3' dead.txt || fail "a dead lock: $(cat dead.txt)"
grep -q 'there was none: taking it over' dead.txt || fail "a dead lock: $(cat dead.txt)"
wait $second
case $? in
  0) ;; # the first had ended
  2) grep -q 'dead.h5 is being written by process [0-9]* on host '"$(uname -n) " second.txt || fail "a second start: $(cat second.txt)" ;;
  *) fail "a second start beside one that waits: $(cat second.txt)" ;;
esac
[ -e dead.h5.lock ] && fail "the lock that was taken over is still there"
finish
