#!/usr/bin/env bash
# Missing data, unwritable output, cells that diverge or fail.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 40

cat >listops.json <<'J'
{"dataset":{"_name_":"listops","data_dir":"nowhere"},
 "train":{"total_steps":2,"batch_size":4,"lr":0.001},
 "model":{"layer":"transformer","attention_fn":"sm-attention","num_layers":1,"hidden_dim":16,"state_dim":16,"num_heads":1,
          "vocab_size":18,"output_dim":10,"mixer":"none","mixer_dim":16,"max_pos_embed":2048,"classifier":true,"pooling":"mean"}}
J
expect 3 'nowhere' -- "$s" run listops.json
expect 3 'nowhere' -- ranks 2 "$s" run listops.json
[ -e listops.h5 ] && fail "missing data, but a file was made"
expect 0 -- "$s" plan listops.json # needs no data

expect 4 -- "$s" run tiny.json --out nowhere/x.h5
expect 4 -- ranks 2 "$s" run tiny.json --out nowhere/x.h5

# A rate that overflows float32 in one of two cells: diverged is a result.
cat >rates.json <<'J'
{"name":"rates","base":["softmax.json"],"sweep":{"train.lr":[0.003,1e30]},
 "analysis":{"batch_size":4,"hankel_samples":0,"memory_samples":2}}
J
for n in 1 2; do
  expect 0 -- ranks $n "$s" run rates.json --out rates$n.h5
  grep -q 'warning: 1 diverged: .*lr=1e+*30' err.txt || fail "no line that names the diverged cell: $(cat err.txt)"
  [ "$(status_count rates$n.h5 done)" = 1 ] || fail "the other cell is not done"
  [ "$(status_count rates$n.h5 diverged)" = 1 ] || fail "the cell is not marked diverged"
done
same_numbers rates1.h5 rates2.h5

# The second cell's workspace does not fit the address space that is allowed: failed, and the others go on.  Address sanitizer
# takes more than that by itself.
cat >sizes.json <<'J'
{"name":"sizes","base":["softmax.json"],"sweep":{"train.batch_size":[16,65536]},"dataset":{"input_seq_length":128},
 "model":{"max_pos_embed":128},"analysis":{"batch_size":4,"hankel_samples":0,"memory_samples":2}}
J
# `plan` times what it plans: a 16th of the batch is asked for; the memory is linear in it, but for what is less than the program
# itself takes.
sed 's/65536/4096/' sizes.json >sizes16.json
need_kb=$("$s" plan sizes16.json --json 2>/dev/null | python3 -c 'import json, sys; print(int(json.load(sys.stdin)["memory_bytes_rank"] / 64))')
# As the program sees it: a limit on a group of processes counts.
"$s" plan softmax.json --rate 1 --set train.batch_size=65536 --set dataset.input_seq_length=32768 --set model.max_pos_embed=32768 \
  --set model.hidden_dim=256 --set model.state_dim=256 --set model.num_layers=16 >out.txt 2>err.txt
memory_kb=$(($(sed -n 's/.*this machine has [^(]*(\([0-9]*\) bytes).*/\1/p' err.txt) / 1024))
[ "$memory_kb" -gt 0 ] || fail "the memory of this machine: $(cat err.txt)"
if [ "$need_kb" -lt "$memory_kb" ] && ! ldd "$s" | grep -q asan; then
  # Each thread of the BLAS takes address space.
  (ulimit -v "$need_kb"; OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1} "$s" run sizes.json >out.txt 2>err.txt)
  got=$?
  [ "$got" = 1 ] || fail "a failed cell: exit status $got, expected 1: $(cat err.txt)"
  grep -q '^seqspectra: 1 cell failed: .*65536' err.txt || fail "no line that names the failed cell: $(cat err.txt)"
  [ "$(status_count sizes.h5 done)" = 1 ] && [ "$(status_count sizes.h5 failed)" = 1 ] || fail "statuses after a failure"
else
  echo "not tested here: a cell without memory (it needs $need_kb kB of $memory_kb)"
fi
# 64 times that is refused before anything starts.
if [ $((64 * need_kb)) -gt "$memory_kb" ]; then
  long="--set dataset.input_seq_length=8192 --set model.max_pos_embed=8192"
  for command in "run sizes.json --out x.h5 $long" "plan sizes.json $long"; do
    expect 2 'cell softmax.*65536.* needs .* bytes\), this machine has .* bytes\): a smaller train.batch_size' -- "$s" $command
    [ -s out.txt ] && fail "$command: refused, but printed: $(head -3 out.txt)"
  done
  [ -e x.h5 ] && fail "too little memory, but a file was made"
fi

# Cells that fit one at a time, not two at once: two thirds of the memory each, of which nothing is touched.
batch=$((1024 * (memory_kb * 2 / 3) / need_kb)) # of sequences 64 times as long
if [ "$batch" -ge 64 ] && [ "$batch" -le 65536 ]; then
  cat >pair.json <<J
{"name":"pair","base":["softmax.json"],"sweep":{"seed":[1,2]},"dataset":{"input_seq_length":8192},"train":{"batch_size":$batch},
 "model":{"max_pos_embed":8192},"analysis":{"batch_size":4,"hankel_samples":0,"memory_samples":2}}
J
  expect 2 '2 ranks at once need .*the largest cell, softmax seed=1, .*use at most 1 of its ranks' -- ranks 2 "$s" run pair.json --out y.h5
  [ -e y.h5 ] && fail "too many ranks for the memory, but a file was made"
else
  echo "not tested here: two cells of which one fits (a batch of $batch)"
fi
finish
