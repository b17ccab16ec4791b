#!/usr/bin/env bash
# What may lie under the names of a results file, of its lock and of its checkpoints: links, pipes, files of the user, long names; and
# two that take a dead run's lock at once.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 60
"$s" run tiny.json --out whole.h5 --quiet || fail "the uninterrupted run"
long="--set train.total_steps=100000 --set run.checkpoint_minutes=0.001"
begin() { # FILE: a run that has a checkpoint; its pid in $pid
  # shellcheck disable=SC2086
  "$s" run tiny.json --out "$1" --quiet $long 2>"$1.txt" &
  pid=$!
  for _ in $(seq 600); do [ -e "$1.ckpt/cell-0" ] && return; sleep 0.05; done
  fail "$1: no checkpoint: $(cat "$1.txt")"
}

# One that is stopped where it has just made the lock's name: another run has it by then.  Beside the rest of this test, since a
# lock has to be older than 10 s to be taken over.
stopped_early() {
  LD_PRELOAD=$preload SQ_PRELOAD_FLOCK=$PWD/go-on "$s" run tiny.json --out late.h5 --quiet 2>late.txt &
  late=$!
  for _ in $(seq 600); do [ -e late.h5.lock ] && break; sleep 0.1; done
  sleep 11.5
  begin late.h5
  touch go-on
  ends_within 60 $late || echo "it hangs"
  wait $late
  [ $? = 2 ] && grep -q 'late.h5 is being written by' late.txt || echo "the one that was stopped: $(cat late.txt)"
  kill -TERM $pid
  wait $pid
  [ $? = 75 ] || echo "the one that takes the lock over: $(cat late.h5.txt)"
  echo ended
}
stopped_early >late.result 2>&1 &
late_test=$!

# ---- a link is the file that it leads to
ln -s real.h5 link.h5
begin real.h5
expect 2 'real.h5 is being written by process' -- "$s" run tiny.json --out link.h5 --resume $long
expect 0 -- "$s" status link.h5
grep -q ' 1 running' out.txt || fail "status of a link: $(cat out.txt)"
kill -TERM $pid
wait $pid
# shellcheck disable=SC2086
"$s" run tiny.json --out link.h5 --resume $long >through.txt 2>&1 &
pid=$!
for _ in $(seq 600); do "$s" status real.h5 2>&1 | grep -q ' 1 running' && break; sleep 0.1; done
kill -TERM $pid
wait $pid
[ $? = 75 ] && grep -qE '^resumed: 0 done before, [1-9] goes? on from a checkpoint' through.txt || fail "through a link: $(cat through.txt)"
expect 0 -- "$s" status link.h5
grep -q 'with a checkpoint' out.txt || fail "status of a link: $(cat out.txt)"
[ ! -e link.h5.lock ] && [ ! -e link.h5.ckpt ] || fail "beside the link: $(ls link*)"
ln -s nowhere dangling.h5
expect 4 'dangling.h5 is a symbolic link to a file that is not there' -- "$s" run tiny.json --out dangling.h5
expect 4 'dangling.h5 is a symbolic link to a file that is not there' -- "$s" run tiny.json --out dangling.h5 --resume
ln whole.h5 hard.h5
expect 2 'hard.h5 has 2 names \(hard links\)' -- "$s" run tiny.json --out hard.h5 --resume
[ ! -e hard.h5.lock ] || fail "a refused start leaves its lock"
rm hard.h5
ln -s nowhere ckpt.h5.ckpt
expect 4 'ckpt.h5.ckpt is in the way' -- "$s" run tiny.json --out ckpt.h5

# ---- somebody's file in the lock's place stays as it is
for kind in text link pipe folder; do
  rm -rf user.txt my.h5.lock
  echo precious >user.txt
  case $kind in
    text) cp user.txt my.h5.lock ;;
    link) ln -s user.txt my.h5.lock ;;
    pipe) mkfifo my.h5.lock ;;
    folder) mkdir my.h5.lock ;;
  esac
  touch -h -d '1 hour ago' my.h5.lock user.txt
  expect 4 'my.h5.lock is in the way: it is not the lock of a results file' -- timeout 60 "$s" run tiny.json --out my.h5
  [ "$(cat user.txt)" = precious ] || fail "a file of the user was written over"
done
rm -rf my.h5.lock
cp whole.h5 pipe.h5
mkfifo pipe.h5.lock
expect 0 -- timeout 60 "$s" status pipe.h5
# A machine that crashed leaves a lock that is empty, or zeros: an old one is taken over.
for bytes in 0 100; do
  head -c $bytes /dev/zero >pipe.h5.zero
  rm -f pipe.h5.lock
  cp pipe.h5.zero pipe.h5.lock
  touch -d '1 hour ago' pipe.h5.lock
  expect 0 -- "$s" run tiny.json --out pipe.h5 --resume
done

# ---- a pipe in the place of the results file, while it runs
begin fifo.h5
rm fifo.h5
mkfifo fifo.h5
kill -TERM $pid
ends_within 60 $pid || fail "a pipe in the results file's place: it hangs"
wait $pid
[ $? = 4 ] || fail "a pipe in the results file's place: $(cat fifo.h5.txt)"
grep -q 'fifo.h5 was removed or replaced during the run' fifo.h5.txt || fail "a pipe in the results file's place: $(cat fifo.h5.txt)"

# ---- long names: what the MPI takes, and a word on what it does not
folder=$(printf 'a%.0s' $(seq 100))/$(printf 'b%.0s' $(seq 134))
mkdir -p "${folder}b"
for out in "$folder/x.h5" "$(printf 'n%.0s' $(seq 222)).h5"; do # 240 characters; a name of 225
  mkdir -p "$folder"
  expect 0 -- ranks 2 "$s" run tiny.json --out "$out" --quiet
  same_numbers whole.h5 "$out"
done
if "$mpiexec" --version 2>/dev/null | grep -qi open; then
  for out in "${folder}b/x.h5" "$(printf 'n%.0s' $(seq 223)).h5"; do
    expect 2 'too long for Open MPI' -- "$s" run tiny.json --out "$out"
    [ ! -e "$out" ] && [ ! -e "$out.lock" ] || fail "a name that is too long: $(ls "$out"*)"
  done
  expect 1 -- "$s" doctor --dir "${folder}b"
  grep -q 'MPI-IO: .* too long for Open MPI' out.txt || fail "doctor, a name that is too long: $(cat out.txt err.txt)"
fi
expect 2 'the name of the results file is too long' -- "$s" run tiny.json --out "$(printf '/n%.0s' $(seq 2100)).h5"

# ---- no flock, and two starts that find the same holder dead: one after the other, however it comes
for n in 1 2 3 4; do
  dead_lock two$n.h5
  for k in a b; do
    LD_PRELOAD=$preload SQ_PRELOAD_FLOCK=off "$s" run tiny.json --out two$n.h5 --resume --quiet 2>two.$k.txt &
    [ $k = a ] && first=$!
  done
  second=$!
  wait $first
  got=$?
  wait $second
  got="$got $?"
  case $got in
    "0 0") ;; # the other waited until the first had ended
    "0 2" | "2 0") grep -qh "two$n.h5 is being written by" two.?.txt || fail "two starts without flock: $(cat two.?.txt)" ;;
    *) fail "two starts without flock: status $got: $(cat two.?.txt)" ;;
  esac
  same_numbers whole.h5 two$n.h5
  [ ! -e two$n.h5.lock ] || fail "a lock is left"
done

wait $late_test
[ "$(cat late.result)" = ended ] || fail "stopped where it makes the lock: $(cat late.result)"
finish
