#!/bin/sh
# tests/bench/compare.sh: training steps of this program and of PyTorch, one thread each, in turn on the same machine.
#
#   tests/bench/compare.sh [-b BUILD_DIR] [-p PYTHON] [-n STEPS] [-c] [-m "softmax s4 ..."] [small] [mqar]
#
# PYTHON must import torch; the first of python3 and /usr/bin/python3 that does is taken.  Run it on an
# idle machine, or with -c, which compares CPU times instead of wall times.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$here/../../build
python=
steps=
clock=wall
models='softmax linear norm mamba2 s4 s5 lru'
while getopts b:p:n:cm: option; do
  case $option in
    b) build=$OPTARG ;;
    p) python=$OPTARG ;;
    n) steps=$OPTARG ;;
    c) clock=cpu ;;
    m) models=$OPTARG ;;
    *) sed -n 2,8p "$0" >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- small mqar

if [ -z "$python" ]; then
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import torch' 2>/dev/null; then python=$candidate; break; fi
  done
fi
if [ -z "$python" ]; then
  echo "compare.sh: no python3 with torch; on Debian: apt-get install python3-torch" >&2
  exit 77
fi
bench=$(find "$build" -name bench-step -type f | head -n 1)
if [ -z "$bench" ]; then
  echo "compare.sh: no bench-step under $build; build the tests first, or give -b BUILD_DIR" >&2
  exit 2
fi

export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
value() { sed -n "s/^$1 //p"; }

# The same models for bench-step; torch_step.py has them built in.
overrides() {
  case $1 in
    mamba2) echo '--set model.layer=mamba --set model.conv_dim=4 --set model.expansion=1 --set model.glu=true' \
                 '--set model.prenorm=true --set model.token_embedding=true' ;;
    s4 | s5 | lru) echo "--set model.layer=$1 --set model.activation=full_glu --set model.norm=batch --set model.prenorm=false" \
                        "--set model.input_dim=$2"
                   if [ "$1" = s5 ]; then echo '--set model.num_blocks=1'; fi ;;
    softmax) ;;
    linear) echo '--set model.attention_fn=lin-attention' ;;
    norm) echo '--set model.attention_fn=norm-attention --set model.norm_fn=softplus --set model.approx_fn=elu' \
               '--set model.scale_B=true --set model.offset=true --set model.offset_init=exp' \
               '--set model.dim_conv=4 --set model.max_pos_embed=0' ;;
  esac
}

printf '%-6s %-9s %12s %12s %14s %7s %9s %8s\n' shape attention 'this [ms]' 'torch [ms]' 'all pos. [ms]' ratio GFLOP/s 'of SGEMM'
for shape in "$@"; do
  n=$steps
  [ -n "$n" ] || case $shape in small) n=20 ;; *) n=3 ;; esac
  case $shape in small) vocabulary=256 ;; *) vocabulary=8192 ;; esac
  for attention in $models; do
    # shellcheck disable=SC2046 # the words of overrides are arguments
    ours=$("$bench" "$here/$shape.json" --clock "$clock" --steps "$n" $(overrides "$attention" $vocabulary))
    torch=$("$python" "$here/torch_step.py" --shape "$shape" --model "$attention" --clock "$clock" --steps "$n")
    plain=$("$python" "$here/torch_step.py" --shape "$shape" --model "$attention" --clock "$clock" --steps "$n" --all-positions)
    if [ "$(echo "$ours" | value parameters)" != "$(echo "$torch" | value parameters)" ]; then
      echo "compare.sh: $shape $attention: the two models have different numbers of parameters" >&2
      exit 1
    fi
    echo "$ours" | awk -v shape="$shape" -v attention="$attention" \
      -v torch="$(echo "$torch" | value step_ms_median)" -v plain="$(echo "$plain" | value step_ms_median)" '
      { v[$1] = $2 }
      END { printf "%-6s %-9s %12.1f %12.1f %14.1f %7.2f %9.1f %7.0f%%\n", shape, attention, v["step_ms_median"], torch,
            plain, torch / v["step_ms_median"], v["gflops"], 100 * v["share_of_sgemm"] }'
    last_ours=$ours last_torch=$torch
  done
done
echo
echo "one thread each; $clock time, medians; ratio: torch (labelled positions) / this; dropout off; one step = forward, backward, clipping, AdamW"
echo "this:  $(echo "$last_ours" | value precision), $(echo "$last_ours" | value blas), SGEMM 1024^3 $(echo "$last_ours" | value sgemm_1024_gflops) GFLOP/s"
echo "torch: $(echo "$last_torch" | value torch), SGEMM 1024^3 $(echo "$last_torch" | value sgemm_1024_gflops) GFLOP/s"
echo "cpu:   $(echo "$last_ours" | value cpu)"
case $(echo "$last_torch" | value torch) in
  1.*) echo "note:  PyTorch 1.x (a distribution build) has no fused attention and an older BLAS path: these ratios support no claim" \
            "about PyTorch 2." ;;
esac
