#!/usr/bin/env bash
# jobs/slurm-run.sh CONFIG RESULTS.h5 [option of `seqspectra run`]...   |   jobs/slurm-run.sh --doctor FOLDER
#
# The body of every job in this folder: starts `seqspectra run` on all tasks of the job, continues RESULTS.h5 if it is there,
# stops in time (the batch system's signal, or the time that is left), puts the job back into the queue when something is
# left to do, and ends with one line that says what was done.  jobs/README.md explains it.
#
#   SEQSPECTRA           the program (default: build/seqspectra here or in SEQSPECTRA_HOME, else the one on PATH)
#   SEQSPECTRA_HOME      the sources, where CONFIG is looked for if it is not below this folder (default: this script's)
#   SEQSPECTRA_LAUNCHER  what starts the ranks, e.g. "srun --mpi=pmi2" or "mpirun" (default: srun --mpi=pmix where Slurm has
#                        that, else mpirun)
#   SEQSPECTRA_RESTARTS  how often a job may be put back (default 200)
set -u
usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
config=$1 out=$2
shift 2

home=${SEQSPECTRA_HOME:-$(cd "$(dirname "$0")/.." && pwd)}
[ -e "$config" ] || [ ! -e "$home/$config" ] || config=$home/$config
program=${SEQSPECTRA:-}
for p in build/seqspectra "$home/build/seqspectra" "$(command -v seqspectra)"; do
  [ -z "$program" ] && [ -x "$p" ] && program=$p
done
[ -x "$program" ] || {
  echo "seqspectra: no program: neither build/seqspectra here ($PWD) or in $home, nor seqspectra on PATH; set SEQSPECTRA" >&2
  exit 2
}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

# bash runs a trap only while it waits: the launcher is in the background, and is waited for until it is gone.  Both launchers
# pass USR1 on to the ranks, and then give their status; TERM (a cancelled or preempted job) and Ctrl-C become the same request.
asked= pid=
stop() { asked=1; [ -z "$pid" ] || kill -USR1 "$pid" 2>/dev/null; }
trap stop USR1 TERM INT

# squeue's time left, [days-][[hours:]minutes:]seconds, in seconds; nothing if there is no limit.
seconds_left() {
  local left days=0 h=0 m=0 s a b c
  left=$(squeue -h -j "$SLURM_JOB_ID" -o %L 2>/dev/null) || return 0
  case $left in *[!0-9:-]* | '') return 0 ;; esac
  case $left in *-*) days=${left%%-*} left=${left#*-} ;; esac
  IFS=: read -r a b c <<<"$left"
  if [ -n "${c:-}" ]; then h=$a m=$b s=$c; elif [ -n "${b:-}" ]; then m=$a s=$b; else s=$a; fi
  echo $((((10#$days * 24 + 10#$h) * 60 + 10#$m) * 60 + 10#$s))
}

if [ -n "${SEQSPECTRA_LAUNCHER:-}" ]; then
  read -ra launch <<<"$SEQSPECTRA_LAUNCHER"
elif [ -n "${SLURM_JOB_ID:-}" ] && srun --mpi=list 2>&1 | grep -q pmix; then
  launch=(srun --mpi=pmix)
else
  launch=(mpirun)
fi
case ${launch[0]##*/} in
srun)
  launch+=(--kill-on-bad-exit=1) # a rank that dies takes the others along, whatever the cluster's default is
  # Since Slurm 22.05 srun does not take this from the job by itself.
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}
  ;;
mpirun | mpiexec) ! "${launch[0]}" --version 2>/dev/null | grep -qi 'open mpi' || launch+=(-q) ;; # no comments on the status
esac

[ "$config" != --doctor ] || exec "${launch[@]}" "$program" doctor --dir "$out"

options=()
[ ! -e "$out" ] || options+=(--resume)
if [ -n "${SLURM_JOB_ID:-}" ]; then
  left=$(seconds_left)
  [ -z "$left" ] || [ "$left" -le 0 ] || options+=(--time-limit "$left")
fi

report() { [ ! -e "$out" ] || "$program" status "$out" 2>/dev/null | head -n 1; }
ended() { grep -oE '[1-9][0-9]* (done|diverged|failed)' <<<"$1"; } # cells, of a report
before=$(ended "$(report)")
fruitless=0 count=$out.ckpt/fruitless
[ ! -r "$count" ] || { fruitless=$(cat "$count"); rm -f "$count"; } # the program removes the folder when it is empty
mark=$(mktemp) # when this start began
rc=75 # asked to stop before there was anything to stop
if [ -z "$asked" ]; then
  "${launch[@]}" "$program" run "$config" --out "$out" ${options[@]+"${options[@]}"} "$@" &
  pid=$!
  [ -z "$asked" ] || stop # between the two lines
  wait "$pid"
  rc=$?
  while [ "$rc" -gt 128 ] && kill -0 "$pid" 2>/dev/null; do wait "$pid"; rc=$?; done
  # A launcher or a rank that did not catch USR1 yet has been ended by it: nothing had begun.
  [ -z "$asked" ] || [ "$rc" != $((128 + $(kill -l USR1))) ] || rc=75
fi
trap '' USR1 TERM INT

# Starts in a row that ended without a new checkpoint or result: a time limit that is too short would go on for ever.  The
# program writes a checkpoint at a stop only if a step, an evaluation or a stage of spectra was finished since the last one.
summary=$(report)
# mpirun that gets TERM or INT itself has a status of its own for ranks that have stopped in order, or not begun.
case "$asked $rc $summary" in "1 1 " | "1 1 "*" 0 failed"*) rc=75 ;; esac
if [ "$rc" = 75 ] && [ "$(ended "$summary")" = "$before" ] && [ -z "$(find "$out.ckpt" -newer "$mark" -type f 2>/dev/null)" ]; then
  fruitless=$((fruitless + 1))
  mkdir -p "$out.ckpt" && echo "$fruitless" >"$count"
fi
rm -f "$mark"

# A task of an array has to be named as such: its own number may be that of the whole array.
job=${SLURM_JOB_ID:-none} restarts=${SLURM_RESTART_COUNT:-0}
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
# A cancelled job is not wanted any more, and a preempted one comes back by itself; only the time limit may end a job that we put back.
ended_from_outside() {
  local state
  state=$(scontrol show job -o "$job" 2>/dev/null)
  case $state in *JobState=COMPLETING* | *JobState=CANCELLED* | *JobState=PREEMPTED*) ;; *) return 1 ;; esac
  case $state in *Reason=TimeLimit*) return 1 ;; esac
}

back= next= advice=
if [ "$rc" = 75 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
  if ended_from_outside; then
    next="; not put back: cancelled or preempted"
  elif [ "$restarts" -ge "${SEQSPECTRA_RESTARTS:-200}" ]; then
    next="; not put back: restarted $restarts times already (SEQSPECTRA_RESTARTS)"
  elif [ "$fruitless" -ge 3 ]; then
    next="; not put back: $fruitless starts in a row finished no step, no stage and no cell"
    rm -f "$count" # the next job begins to count anew
    rmdir "$out.ckpt" 2>/dev/null
  else
    back=1 next="; put back into the queue"
  fi
fi
[ "$fruitless" -lt 3 ] || advice="seqspectra: the time limit is shorter than a step or a stage of spectra takes: submit again with a longer --time, or with a new \
results file and stages that are shorter (analysis.batch_size) and fewer (analysis.snapshots)"
echo "seqspectra: job $job, start $((restarts + 1)): status $rc; ${summary:-no results file}$next"
[ -z "$advice" ] || echo "$advice"
if [ -n "$back" ]; then
  if scontrol requeue "$job"; then
    sleep 60 # the batch system ends this script
  else
    echo "seqspectra: job $job could not be put back: submit it again, it will go on where it stopped"
  fi
fi
exit "$rc"
