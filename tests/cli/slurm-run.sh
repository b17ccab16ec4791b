#!/usr/bin/env bash
# jobs/slurm-run.sh without a batch system: commands of its names stand for it.  A chain that gets on is put back until all is
# done; one whose starts finish nothing ends.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 60
"$s" run tiny.json --out whole.h5 --quiet || fail "the uninterrupted run"

# What is left of the limit is in the file `left`; scontrol notes what it is asked; the script's sleep until it is ended is skipped.
mkdir bin
# shellcheck disable=SC2016
printf '#!/bin/sh\ncat "%s/left"\n' "$dir" >bin/squeue
# shellcheck disable=SC2016
printf '#!/bin/sh\necho "$*" >>"%s/scontrol.txt"\n' "$dir" >bin/scontrol
printf '#!/bin/sh\n' >bin/sleep
# A rank that is told to stop as soon as a cell runs, and is slow enough to be in its first stage of spectra then.
cat >at-once <<'END'
#!/bin/sh
LD_PRELOAD=$PRELOAD SQ_PRELOAD_SLOW=200 "$@" & pid=$!
until "$SEQSPECTRA" status "$OUT" 2>/dev/null | grep -q ' 1 running' || ! kill -0 $pid 2>/dev/null; do /bin/sleep 0.01; done
kill -USR1 $pid
wait $pid
END
chmod +x bin/* at-once
start() { # N OUT LAUNCHER...: start N of the chain; more run options in EXTRA
  # shellcheck disable=SC2086
  PATH=$PWD/bin:$PATH PRELOAD=$preload SLURM_JOB_ID=7 SLURM_RESTART_COUNT=$(($1 - 1)) SEQSPECTRA=$s OUT=$2 SEQSPECTRA_LAUNCHER=${*:3} \
    "$SQ_SOURCE/jobs/slurm-run.sh" tiny.json "$2" --quiet ${EXTRA:-} >out.txt 2>&1
}

# Starts that are stopped within the first stage of spectra: no checkpoint, and the third is the last.
echo 1:00:00 >left
EXTRA="--set dataset.input_seq_length=512 --set model.max_pos_embed=512 --set analysis.batch_size=64"
for n in 1 2; do
  start $n stage.h5 ./at-once
  got=$?
  [ $got = 75 ] || fail "start $n: status $got, expected 75: $(cat out.txt)"
  grep -q "^seqspectra: job 7, start $n: status 75; stage.h5: 6 cells: 0 done, .*; put back into the queue$" out.txt || fail "start $n: $(cat out.txt)"
  [ -e stage.h5.ckpt/cell-0 ] && fail "start $n: a checkpoint of a stage that starts over"
done
start 3 stage.h5 ./at-once
[ $? = 75 ] || fail "start 3: not 75: $(cat out.txt)"
grep -q '; not put back: 3 starts in a row finished no step, no stage and no cell$' out.txt || fail "start 3: $(cat out.txt)"
grep -q '^seqspectra: the time limit is shorter than .* longer --time, .*analysis.batch_size' out.txt || fail "start 3: no advice: $(cat out.txt)"
[ "$(grep -c '^requeue 7$' scontrol.txt)" = 2 ] || fail "requeued: $(cat scontrol.txt)"
[ -e stage.h5.ckpt ] && fail "left over: $(ls stage.h5.ckpt)"

# The same file with more time: it goes on, and what was counted is forgotten.
start 1 stage.h5 env
got=$?
[ $got = 0 ] || fail "with more time: status $got: $(cat out.txt)"

# Starts too short for anything but one cell and a bit: each gets on, the numbers are those of an uninterrupted run.
EXTRA=
rm -f scontrol.txt
got=75
n=0
while [ $got = 75 ] && [ $n -lt 100 ]; do
  n=$((n + 1))
  echo $((1 + n / 2)) >left
  start $n chain.h5 env
  got=$?
  grep -q 'not put back' out.txt && rm -rf chain.h5.ckpt/fruitless # a machine so slow that a second is nothing
done
[ $got = 0 ] || fail "a chain of short starts: status $got after $n: $(cat out.txt)"
same_numbers whole.h5 chain.h5
[ -e chain.h5.ckpt ] && fail "left over: $(ls chain.h5.ckpt)"

# An mpirun that is ended itself, as by Ctrl-C, has a status of its own for ranks that stop in order: the job goes on all the same.
cat >own-status <<'END'
#!/bin/sh
"$@" & pid=$!
trap 'kill -USR1 $pid' USR1
until [ -e "$OUT.ckpt/cell-0" ] || ! kill -0 $pid; do /bin/sleep 0.01; done
kill -TERM $PPID # a shell that was started in the background ignores INT for ever
wait $pid
wait $pid
exit 1
END
chmod +x own-status
EXTRA="--set train.total_steps=100000 --set run.checkpoint_minutes=0.001"
rm -f scontrol.txt
echo 1:00:00 >left
start 1 own.h5 ./own-status
got=$?
[ $got = 75 ] || fail "a launcher with a status of its own: $got: $(cat out.txt)"
grep -q '^seqspectra: job 7, start 1: status 75; own.h5: .* 6 waiting (1 with a checkpoint), .*; put back into the queue$' out.txt || fail "own status: $(cat out.txt)"

# From a folder that is not the sources': the scripts say so.
for script in mqar-ssm debug; do
  expect 2 "no ./jobs/slurm-run.sh: submit from the folder of the sources, or set SEQSPECTRA_HOME" -- env -u SEQSPECTRA_HOME bash "$SQ_SOURCE/jobs/$script.sbatch"
done
expect 2 'an array job' -- bash "$SQ_SOURCE/jobs/array-seeds.sbatch"
finish
