#!/usr/bin/env bash
# jobs/quickstart.sh [--fresh] [--sudo] [--ranks N]
#
# From a clean clone to results: installs what is missing, builds, trains the grid of configs/quickstart.json on all cores,
# prints the tables, draws the figures.  Run again, it continues quickstart.h5 (finished cells stay); --fresh starts over.
set -eu
cd "$(dirname "$0")/.."
. jobs/lib.sh

fresh= sudo= ranks=$(usable_cores)
while [ $# -gt 0 ]; do
  case $1 in
  --fresh) fresh=1 ;;
  --sudo) sudo=--sudo ;;
  --ranks) [ $# -ge 2 ] || die "--ranks needs a number" 2; ranks=$2; shift ;;
  -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) die "unknown option $1 (see --help)" 2 ;;
  esac
  shift
done
case $ranks in '' | *[!0-9]* | 0) die "--ranks: expected a number from 1, got '$ranks'" 2 ;; esac

jobs/install-deps.sh $sudo
jobs/build.sh release -DSQ_TESTS=OFF # the tests need more packages
mpi_environment
export OPENBLAS_NUM_THREADS=1

out=quickstart.h5
[ -z "$fresh" ] || rm -f "$out"
resume=
[ ! -e "$out" ] || { resume=--resume; say "$out is there: continuing it (--fresh starts over)"; }
say "training configs/quickstart.json on $ranks ranks"
# shellcheck disable=SC2046
$(launcher) -n "$ranks" build/seqspectra run configs/quickstart.json --out "$out" $resume

if python=$(find_python h5py matplotlib); then
  say "figures"
  "$python" analysis/plot_spectra.py "$out" --out figures
  "$python" analysis/plot_training.py "$out" --out figures
else
  echo "no figures: no python3 here can import h5py and matplotlib (Debian: python3-h5py, python3-matplotlib)"
fi
say "done: $out holds everything; more tables: build/seqspectra report $out --table memory"
