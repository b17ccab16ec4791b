#!/usr/bin/env bash
# Stopping and going on: SIGTERM and the time limit give 75, kill -9 a file that opens; --resume then gives the same numbers as
# a run without interruption.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny ${SQ_STOP_STEPS:-2000}
"$s" run tiny.json --out whole.h5 --quiet || fail "the uninterrupted run"

# wait_for FILE: until the first cell is done
wait_for() {
  for _ in $(seq 600); do
    [ -e "$1" ] && [ "$(status_count "$1" done 2>/dev/null)" -ge 1 ] && return
    sleep 0.1
  done
  fail "no cell of $1 was done after 60 s"
}
left() { echo $((6 - $(status_count "$1" done))); }

# By a signal to a program that is alone.
"$s" run tiny.json --out term.h5 --quiet 2>term.txt &
pid=$!
wait_for term.h5
# Nobody else may write the file meanwhile; readers may read it.
expect 2 'term.h5 is being written by process [0-9]+ on host .*; if that run is dead, remove term.h5.lock' -- "$s" run tiny.json --out term.h5 --resume
"$s" status term.h5 | grep -q "being written by process $pid on host" || fail "status does not say who writes"
kill -TERM $pid
wait $pid
got=$?
[ $got = 75 ] || fail "SIGTERM: exit status $got, expected 75: $(cat term.txt)"
grep -q '^seqspectra: stopped (SIGTERM): [1-5] of 6 cells done, [1-5] left, [0-5] of them with a checkpoint; go on with the same command and --resume$' term.txt ||
  fail "SIGTERM: $(cat term.txt)"
[ -e term.h5.lock ] && fail "a stopped run has left its lock"
[ "$(status_count term.h5 running)" = 0 ] || fail "a stopped cell is still marked as running"
expect 0 -- ranks 2 "$s" run tiny.json --out term.h5 --resume
counts=$(sed -n 's/.*: \([1-5]\) of 6 cells done, \([1-5]\) left, \([0-5]\) of them.*/\1 \3 \2/p' term.txt)
resumed=$(sed -n 's/^resumed: \([0-9]*\) done before, \([0-9]*\) goe*s* on from a checkpoint, \([0-9]*\) begins* at step 0$/\1 \2 \3/p' out.txt | awk '{print $1, $2, $2 + $3}')
[ -n "$resumed" ] && [ "$resumed" = "$counts" ] || fail "resumed: \"$resumed\" (done, from a checkpoint, left), stopped with \"$counts\": $(head -3 out.txt)"
same_numbers whole.h5 term.h5

# status names the step that a stopped cell goes on from.
"$s" run linear.json --out step.h5 --quiet --set train.total_steps=1000000 --set run.checkpoint_minutes=0.001 2>step.txt &
pid=$!
for _ in $(seq 300); do [ -e step.h5.ckpt/cell-0.old ] && break; sleep 0.1; done
kill -TERM $pid
wait $pid
"$s" status step.h5 >out.txt
grep -Eq '^  waiting     cell 0 .*: checkpoint of step [1-9][0-9]*$' out.txt || fail "status of a stopped cell: $(cat out.txt) $(cat step.txt)"

# By a signal to one rank of three: all stop.
ranks 3 "$s" run tiny.json --out usr.h5 --quiet 2>err.txt &
pid=$!
wait_for usr.h5
kill -USR1 $(rank_pids tiny.json usr.h5 | tail -1)
wait $pid
got=$?
[ $got = 75 ] || fail "SIGUSR1 to one rank: exit status $got, expected 75: $(cat err.txt)"
[ "$(grep -c '^seqspectra: stopped' err.txt)" = 1 ] || fail "SIGUSR1: not one line: $(cat err.txt)"
expect 0 -- "$s" run tiny.json --out usr.h5 --quiet --resume
same_numbers whole.h5 usr.h5

# By the time limit, as often as it takes.
tries=0
"$s" run tiny.json --out limit.h5 --quiet --time-limit 1 2>/dev/null
got=$?
while [ $got = 75 ] && [ $tries -lt 200 ]; do
  tries=$((tries + 1))
  "$s" run tiny.json --out limit.h5 --quiet --resume --time-limit $((1 + tries)) 2>/dev/null
  got=$?
done
[ $got = 0 ] && [ $tries -ge 1 ] || fail "time limit: status $got after $tries restarts"
same_numbers whole.h5 limit.h5

# kill -9 of one rank: nothing hangs, the file opens, what is done is whole, and the rest can be made up for.
ranks 2 "$s" run tiny.json --out killed.h5 --quiet >/dev/null 2>&1 &
pid=$!
wait_for killed.h5
kill -9 $(rank_pids tiny.json killed.h5 | tail -1)
ends_within 30 $pid || fail "the other rank hangs 30 s after one was killed"
wait $pid && fail "a killed run exits with 0"
[ "$(left killed.h5)" -ge 1 ] || fail "nothing was left to do: the test kills too late"
done_before=$(status_count killed.h5 done)
[ "$done_before" -ge 1 ] || fail "no finished cell in the file of a killed run"
expect 0 -- "$s" status killed.h5
grep -Eq '^killed.h5: 6 cells: [1-6] done, [12] interrupted( \([12] with a checkpoint\))?, ' out.txt || fail "status of a killed run: $(cat out.txt)"
grep -Eq '^  interrupted cell [0-5] ' out.txt || fail "status does not show an interrupted cell: $(cat out.txt)"
[ -e killed.h5.lock ] || fail "rank 0 was killed, but its lock has gone"
expect 0 -- ranks 2 "$s" run tiny.json --out killed.h5 --quiet --resume
same_numbers whole.h5 killed.h5
[ -e killed.h5.lock ] && fail "the lock of a killed run is still there after the next"

# A file that somebody removes is noticed while the run goes on, not at its end.
"$s" run tiny.json --out gone.h5 --quiet --set train.total_steps=1000000 2>gone.txt &
pid=$!
for _ in $(seq 300); do [ -e gone.h5 ] && [ "$(status_count gone.h5 running 2>/dev/null)" = 1 ] && break; sleep 0.1; done
[ "$(status_count gone.h5 running)" = 1 ] || fail "no cell of gone.h5 runs after 30 s"
rm gone.h5
wait $pid
got=$?
[ $got = 4 ] || fail "a removed file: exit status $got, expected 4: $(cat gone.txt)"
grep -q '^seqspectra: gone.h5 was removed or replaced' gone.txt || fail "a removed file: $(cat gone.txt)"

# Nor is one that was replaced shortly before the end: what the run has to say is in the file that is no longer there.
"$s" run tiny.json --out other.h5 --quiet 2>other.txt &
pid=$!
for _ in $(seq 600); do [ -e other.h5 ] && [ "$(status_count other.h5 running 2>/dev/null)" = 1 ] && break; sleep 0.02; done
cp other.h5 copy.h5
mv copy.h5 other.h5
wait $pid
got=$?
[ $got = 4 ] || fail "a replaced file: exit status $got, expected 4: $(cat other.txt)"
grep -q '^seqspectra: .*other.h5 was removed or replaced' other.txt || fail "a replaced file: $(cat other.txt)"

# A signal before any cell runs (here while the data are checked) stops too.
"$s" run tiny.json --out early.h5 --quiet --set dataset.num_train=3000000 2>early.txt &
pid=$!
# From the moment on in which it catches the signal (bit 14 of the mask), and not the shell that it is at first.
catches_term() { is_program $1 && [ $((0x$(sed -n 's/^SigCgt:[^0-9a-f]*//p' /proc/$1/status) >> 14 & 1)) = 1 ]; }
for _ in $(seq 600); do catches_term $pid && break; sleep 0.1; done
kill -TERM $pid
wait $pid
got=$?
[ $got = 75 ] || fail "an early SIGTERM: exit status $got, expected 75: $(cat early.txt)"
[ -e early.h5 ] && fail "an early SIGTERM has left a file"
finish
