#!/usr/bin/env bash
# tests/slurm/cluster.sh up DIR [NODES] [CORES] | down DIR
#
# A Slurm of its own on the loopback interface: munged, slurmctld and one slurmd a virtual node, all from the
# distribution's packages, all files in DIR (a short name: sockets live there), nothing of the machine's own configuration read
# or changed.  Needs root.  Clients find it by SLURM_CONF=DIR/slurm.conf.
set -u
what=$1 dir=$2 nodes=${3:-2} cores=${4:-64}
export SLURM_CONF=$dir/slurm.conf
host=$(hostname -s)
python=$(command -v python3)

free_ports() {
  "$python" - "$1" <<'P'
import socket, sys
s = [socket.socket() for _ in range(int(sys.argv[1]))]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])
P
}

configuration() {
  local port
  read -ra port <<<"$(free_ports $((nodes + 1)))"
  cat <<C
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${port[0]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket=$dir/run/munge.sock,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
TmpFS=$dir/tmp/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
ReturnToService=2
KillWait=5
SchedulerParameters=bf_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MailProg=/bin/true
C
  for i in $(seq "$nodes"); do
    echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=${port[$i]} CPUs=$cores RealMemory=524288" # as of a real cluster, whatever is here
  done
  echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP"
}

idle_nodes() { sinfo -h -o '%D %T' 2>/dev/null | awk '$2 == "idle" { n += $1 } END { print n + 0 }'; }

up() {
  mkdir -p "$dir"/{log,state,run,munge} && chmod 711 "$dir" "$dir/run" && chmod 700 "$dir/munge" || return 1
  head -c 128 /dev/urandom >"$dir/munge/key" && chmod 400 "$dir/munge/key"
  munged --key-file="$dir/munge/key" --seed-file="$dir/munge/seed" --socket="$dir/run/munge.sock" \
    --pid-file="$dir/run/munged.pid" --log-file="$dir/log/munged.log" --num-threads=2 || return 1
  configuration >"$SLURM_CONF"
  slurmctld -c -f "$SLURM_CONF" || return 1
  for i in $(seq "$nodes"); do
    # PMIx makes its directories in TmpFS: nodes that share one collide.
    mkdir -p "$dir/spool/n$i" "$dir/tmp/n$i"
    slurmd -c -N "n$i" -f "$SLURM_CONF" || return 1
  done
  for _ in $(seq 100); do
    [ "$(idle_nodes)" = "$nodes" ] && return 0
    sleep 0.2
  done
  echo "the nodes did not come up; see $dir/log" >&2
  return 1
}

# Jobs first: steps and ranks do not end with slurmd.
down() {
  timeout 10 scancel --user=root 2>/dev/null
  for _ in $(seq 60); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
    sleep 0.25
  done
  # What is left and carries this cluster's name is ours.
  for environment in /proc/[0-9]*/environ; do
    pid=${environment#/proc/} pid=${pid%/environ}
    [ "$pid" != $$ ] && [ "$pid" != $PPID ] || continue
    case $({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null) in
    slurmstepd* | *slurm_script* | *orted*)
      grep -qszx "SLURM_CONF=$SLURM_CONF" "$environment" && kill -KILL "$pid" 2>/dev/null ;;
    esac
  done
  for file in "$dir"/run/n*.pid "$dir/run/slurmctld.pid" "$dir/run/munged.pid"; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -0 "$pid" 2>/dev/null && kill -KILL "$pid"
  done
  return 0
}

"$what"
