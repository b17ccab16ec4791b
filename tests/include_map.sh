#!/usr/bin/env bash
# A module includes only itself and what CMakeLists.txt says it stands on; only src/linalg names BLAS and FFTW, only
# src/eigen BLACS and ScaLAPACK, only src/store HDF5.
set -eu
cd "${SQ_SOURCE:-$(dirname "$0")/..}"
bad=0
complain() { echo "$*"; bad=1; }

declare -A headers=( # the public headers of each module
  [base]="base parallel real rng simd status" [config]="config" [linalg]="linalg" [eigen]="eigen" [nn]="nn batch param" [mixer]="mixer" [model]="model"
  [task]="task" [train]="train" [spectra]="spectra" [store]="store" [grid]="grid")
declare -A below=( # lowest first
  [base]="base" [config]="base config" [linalg]="base linalg" [eigen]="base linalg eigen" [nn]="base linalg nn" [mixer]="base linalg nn config mixer"
  [model]="base linalg nn config mixer model" [task]="base config nn task" [train]="base linalg nn config mixer model task train"
  [spectra]="base linalg nn config mixer model spectra" [store]="base linalg nn config mixer model task train spectra store" [grid]="base grid")

for module in "${!below[@]}"; do
  allowed=" "
  for m in ${below[$module]}; do allowed="$allowed${headers[$m]} "; done
  for f in src/"$module"/*.[ch] $(for h in ${headers[$module]}; do echo include/sq/"$h".h; done); do
    while read -r h; do
      case $allowed in *" $h "*) ;; *) complain "$f includes sq/$h.h, which is not below $module" ;; esac
    done < <(sed -n 's/^ *# *include "sq\/\([a-z0-9_]*\)\.h".*/\1/p' "$f")
  done
done
for word in 'cblas\.h:src/linalg/' 'fftw3\.h:src/linalg/' 'hdf5\.h:src/store/' 'mpi\.h:(src/(grid|store|app|eigen)/|src/cmake/check_|include/sq/(grid|store|eigen)\.h)' 'cJSON\.h:src/(config|app|store)/' 'png\.h:src/task/png'; do
  while read -r f; do
    [[ $f =~ ^${word#*:} ]] || complain "$f includes ${word%%:*}"
  done < <(grep -lE "^ *# *include [<\"].*${word%%:*}" -r src include || true)
done
while read -r f; do
  [[ $f =~ ^src/(eigen/|cmake/check_scalapack\.c) ]] || complain "$f names BLACS or ScaLAPACK"
done < <(grep -lE '\b(C(sys2)?blacs_[a-z0-9]+|p[dz](gehrd|hseqr|lahqr|gemr2d|getr[fs]|syevd|potr[fs]|gemm|gemv)_|descinit_|numroc_)' -r src include || true)
[ "$bad" = 0 ] && echo "the include map holds"
exit "$bad"
