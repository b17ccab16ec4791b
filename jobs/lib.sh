# jobs/lib.sh: what the set-up scripts share.  Sourced, not run.

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$1" >&2; exit "${2:-1}"; } # MESSAGE [STATUS]

# Cores that this process may use: affinity (nproc) and the control group's quota, not the machine's.
usable_cores() {
  local cores quota period
  cores=$(nproc)
  if [ -r /sys/fs/cgroup/cpu.max ]; then
    read -r quota period </sys/fs/cgroup/cpu.max
  elif [ -r /sys/fs/cgroup/cpu/cpu.cfs_quota_us ]; then
    quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us)
    period=$(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us)
  fi
  case ${quota:-max} in
  max | -1 | 0) ;;
  *) [ $((quota / period)) -lt "$cores" ] && cores=$((quota / period)) ;;
  esac
  [ "$cores" -ge 1 ] || cores=1
  echo "$cores"
}

# What Open MPI needs to be told as root in a container, and on fewer cores than ranks.  Harmless elsewhere; MPICH ignores it.
mpi_environment() {
  if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
  export OMPI_MCA_btl_vader_single_copy_mechanism=none PMIX_MCA_gds=hash
}

# A launcher line without the launcher's own comments (Open MPI: -q).
launcher() {
  if mpirun --version 2>/dev/null | grep -qi 'open mpi'; then echo "mpirun -q"; else echo "mpirun"; fi
}

# A python3 that can import the given modules; another python3 may come first on PATH.
find_python() {
  local p modules
  modules=$(echo "$*" | tr ' ' ',')
  for p in "${SQ_PYTHON:-}" python3 /usr/bin/python3; do
    [ -n "$p" ] && command -v "$p" >/dev/null && "$p" -c "import $modules" 2>/dev/null && { command -v "$p"; return 0; }
  done
  return 1
}
