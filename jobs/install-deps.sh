#!/usr/bin/env bash
# jobs/install-deps.sh [--tests] [--all-legs] [--sudo] [--dry-run]
#
# Installs what the build needs (with --tests also what the tests need, with --all-legs also clang, MPICH and the
# reference BLAS) from the distribution's packages.  It installs only what is missing, as root; an ordinary user gets
# the command to type, or gives --sudo.  Without apt it prints what dnf and Spack users need.
set -eu
cd "$(dirname "$0")/.."
. jobs/lib.sh

packages="gcc libc6-dev cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libopenblas-pthread-dev
  libscalapack-openmpi-dev libfftw3-dev libcjson-dev libpng-dev python3-h5py python3-matplotlib"
test_packages="libcmocka-dev hdf5-tools python3-xarray python3-h5netcdf git slurm-wlm munge"
leg_packages="clang libclang-rt-dev clang-format mpich libmpich-dev libhdf5-mpich-dev libscalapack-mpich-dev liblapack-dev libblas-dev"

sudo= dry=
for a in "$@"; do
  case $a in
  --tests) packages="$packages $test_packages" ;;
  --all-legs) packages="$packages $test_packages $leg_packages" ;;
  --sudo) sudo=sudo ;;
  --dry-run) dry=1 ;;
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) die "unknown option $a (see --help)" 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  # Another distribution, or a cluster: what is loaded there counts, and only the user can add to it.
  missing=
  for tool in cmake pkg-config mpicc mpirun; do command -v $tool >/dev/null || missing="$missing $tool"; done
  [ -z "$missing" ] || echo "not found:$missing"
  cat <<'X'
This system has no apt.  Needed: a C17 compiler, CMake 3.25 or newer, pkg-config, MPI, HDF5 built with that MPI, OpenBLAS
(or MKL, LibSci, AOCL: -DSQ_BLAS=...), ScaLAPACK, FFTW 3 (double and single), cJSON; libpng for task pathfinder; for the tests cmocka and the HDF5 tools; for figures Python 3 with h5py and
matplotlib.
  dnf:   dnf install gcc cmake ninja-build pkgconf-pkg-config openmpi-devel hdf5-openmpi-devel openblas-devel scalapack-openmpi-devel
             fftw-devel cjson-devel libpng-devel libcmocka-devel hdf5 python3-h5py python3-matplotlib ; module load mpi
  Spack: spack install cmake ninja openmpi hdf5+mpi+hl openblas netlib-scalapack fftw precision=float,double cjson libpng cmocka py-h5py py-matplotlib
X
  [ -z "$missing" ]
  exit
fi

missing=
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -z "$missing" ]; then
  say "packages: all there"
elif [ -n "$dry" ]; then
  echo "would install:$missing"
elif [ "$(id -u)" = 0 ] || [ -n "$sudo" ]; then
  say "packages: installing$missing"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  $sudo apt-get update -qq || die "apt-get update failed (no network?)"
  # shellcheck disable=SC2086
  $sudo apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1 ||
    { tail -5 "$log" >&2; rm -f "$log"; die "apt-get install failed"; }
  rm -f "$log"
else
  # An ordinary user may have all of it outside the package manager (modules, Spack).
  if command -v cmake >/dev/null && command -v pkg-config >/dev/null && command -v mpicc >/dev/null &&
    pkg-config --exists libcjson fftw3 fftw3f; then
    say "packages: not all from apt, using what is on PATH (missing from apt:$missing)"
  else
    echo "missing packages:$missing" >&2
    die "as root, or with --sudo: apt-get install$missing"
  fi
fi
