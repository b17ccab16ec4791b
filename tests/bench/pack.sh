#!/usr/bin/env bash
# tests/bench/pack.sh [BUILD_DIR [ARCHIVE]]: the timing programs with all that they need, for a machine of the same
# architecture without MPI or BLAS packages and with an older C library.
#
#   tar xf seqspectra-bench.tar.xz && seqspectra-bench/run                   all.sh, with its options behind
#   seqspectra-bench/run bench-step bench/mqar.json --model s4               or one program; names of files are as seen from here
#   seqspectra-bench/run mpiexec -n 16 seqspectra-bench/bin/bench-team seqspectra-bench/bench/mqar.json   one cell on 1 .. 16 workers
#   seqspectra-bench/run mpiexec -n 16 seqspectra-bench/bin/bench-scaling seqspectra-bench/bench/mqar.json
#
# Inside: exe/ programs, bin/ a starter for each, which uses the packed loader and libraries (L/) whatever the machine
# has; plugins of Open MPI for one host and of PMIx; bench/ the scripts.  Open MPI only.  Needs ldd, tar and xz here;
# bash, awk and, for comparisons, python3 with PyTorch there.  ARCHIVE: BUILD_DIR/seqspectra-bench.tar.xz
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-$here/../../build}" && pwd)
archive=${2:-$build/seqspectra-bench.tar.xz}
name=seqspectra-bench
die() { echo "pack.sh: $*" >&2; exit 1; }

orterun=$(readlink -f "$(command -v orterun || command -v mpirun)") || die "no Open MPI here"
orted=$(readlink -f "$(command -v orted)") || die "no orted here"
"$orterun" --version | grep -q 'Open[A-Za-z ]*) 4' || die "expected Open MPI 4"
ompi_plugins=$(ompi_info --parsable --path pkglibdir | sed -n 's/^path:pkglibdir://p')
[ -d "$ompi_plugins" ] || die "no folder of Open MPI's plugins: $ompi_plugins"
ompi_share=$(ompi_info --parsable --path pkgdatadir | sed -n 's/^path:pkgdatadir://p')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
top=$work/$name
mkdir -p "$top"/{bin,exe,L,plugins/ompi,plugins/pmix,share/openmpi,bench}

for program in bench-step bench-length bench-scaling bench-team seqspectra; do
  found=$(find "$build" -name $program -type f -perm -u+x | head -n 1)
  [ -n "$found" ] || die "no $program under $build; build the tests first"
  install -s "$found" "$top/exe/$program"
done
install -s "$orterun" "$top/exe/orterun"
install -s "$orted" "$top/exe/orted"

# Plugins for one host: no networks, no batch systems, no accelerators.
for plugin in "$ompi_plugins"/mca_*.so; do
  case $(basename "$plugin") in
    *ucx* | *ofi* | *psm* | *openib* | *cuda* | *usnic* | *knem* | *portals* | *slurm* | *flux* | *gridengine* | *jsm* | *monitoring* | mca_io_romio* | mca_fs_lustre* | \
      mca_fs_gpfs* | mca_fs_pvfs* | mca_memheap_* | mca_scoll_* | mca_spml_* | mca_sshmem_* | mca_atomic_* | mca_crs_*) ;;
    *) install -m 755 "$plugin" "$top/plugins/ompi/" ;;
  esac
done
libraries() { ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u; }
pmix=$(libraries "$top"/plugins/ompi/mca_pmix_ext*.so | grep '/libpmix\.so' || true)
if [ -n "$pmix" ]; then # PMIx's own plugins lie beside the library's real file
  for plugin in "$(dirname "$(readlink -f "$pmix")")"/pmix/pmix_mca_*.so; do
    # Compression is of no use on one host, and its plugin does not find its library there.
    case $plugin in *slurm* | *pcompress*) ;; *) [ ! -e "$plugin" ] || install -m 755 "$plugin" "$top/plugins/pmix/" ;; esac
  done
fi
# ldd of all that was packed, libraries of libraries included.
# shellcheck disable=SC2086 # the words of files are arguments
{
files=$(find "$top/exe" "$top/plugins" -type f)
  missing=$(ldd $files 2>/dev/null | grep 'not found' | sort -u || true)
  [ -z "$missing" ] || die "a library is missing: $missing"
  needed=$(libraries $files)
}
for library in $needed; do install -m 755 "$library" "$top/L/$(basename "$library")"; done
loader=$(ldd "$top/exe/orterun" | awk '$1 ~ /^\/.*ld-linux/ { print $1 }')
[ -n "$loader" ] || die "no loader found"
install -m 755 "$(readlink -f "$loader")" "$top/L/ld.so"
cp -r "$ompi_share"/. "$top/share/openmpi/"
cp "$here"/*.sh "$here"/*.json "$here"/torch_step.py "$top/bench/"

for program in "$top"/exe/*; do
  cat >"$top/bin/$(basename "$program")" <<'STARTER'
#!/bin/sh
# Not through LD_LIBRARY_PATH, which the machine's own programs would see too.
top=$(cd "$(dirname "$0")/.." && pwd)
exec "$top/L/ld.so" --library-path "$top/L" "$top/exe/$(basename "$0")" "$@"
STARTER
  chmod 755 "$top/bin/$(basename "$program")"
done
cat >"$top/bin/mpiexec" <<'STARTER'
#!/bin/sh
exec "$(dirname "$0")/orterun" "$@"
STARTER
chmod 755 "$top/bin/mpiexec"

cat >"$top/run" <<'RUN'
#!/usr/bin/env bash
# run [all.sh's options] | run bench-step|bench-length|bench-scaling|seqspectra|mpiexec|compare.sh ARGUMENTS
set -eu
top=$(cd "$(dirname "$0")" && pwd)
export PATH=$top/bin:${PATH:-/usr/local/bin:/usr/bin:/bin} HOME=${HOME:-/tmp} SQ_BENCH_DIR=$top/bin SQ_MPIEXEC=$top/bin/mpiexec
# Where the libraries think they are: Open MPI's prefix, its plugins, PMIx's.
export OPAL_PREFIX=$top OMPI_MCA_mca_base_component_path=$top/plugins/ompi PMIX_MCA_mca_base_component_path=$top/plugins/pmix
# PMIx looks for plugins in its own folder too, where that machine may have those of another version.
export PMIX_PKGLIBDIR=$top/plugins/pmix
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader PMIX_MCA_gds=hash PMIX_MCA_pcompress_base_silence_warning=1
export OMPI_MCA_plm_rsh_agent=true OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# This OpenBLAS does not know the newest processors: name the kernels, unless the user has.
if [ -z "${OPENBLAS_CORETYPE:-}" ]; then
  if grep -qm1 -w avx512vl /proc/cpuinfo; then export OPENBLAS_CORETYPE=SkylakeX
  elif grep -qm1 -w avx2 /proc/cpuinfo; then export OPENBLAS_CORETYPE=Haswell; fi
fi
unset OPENBLAS_L2_SIZE LD_LIBRARY_PATH LD_PRELOAD
case ${1:-} in
  bench-* | seqspectra | mpiexec | orterun) exec "$top/bin/$1" "${@:2}" ;;
  compare.sh) exec "$top/bench/$1" "${@:2}" ;;
  '' | -*) exec "$top/bench/all.sh" "$@" ;;
  *) sed -n 2p "$0" >&2; exit 2 ;;
esac
RUN
chmod 755 "$top/run"
XZ_OPT=${XZ_OPT:--4 -T0} tar -C "$work" -cJf "$archive" --owner=0 --group=0 --numeric-owner $name
echo "$archive: $(du -h "$archive" | cut -f1), $(find "$top/L" -type f | wc -l) libraries, $(find "$top/plugins" -type f | wc -l) plugins"
