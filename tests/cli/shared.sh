#!/usr/bin/env bash
# Data sets in shared memory: the numbers are those of ranks that read for themselves; a reader's error reaches all, and the
# death of one ends the others.
. "$(dirname "$0")/lib.sh"
s=$program
command -v python3 >/dev/null || skip "no python3"
python3 - <<'END' || exit 1
import os, random
random.seed(2)
os.makedirs("data/cifar-10-batches-bin")
for k in range(6):
    with open("data/cifar-10-batches-bin/" + ("data_batch_%d.bin" % (k + 1) if k < 5 else "test_batch.bin"), "wb") as f:
        for i in range(10):
            f.write(bytes([i]) + random.randbytes(3072))
words = ["the", "sea", "is", "a", "b", "1", "2.5", "it's"]
os.makedirs("data/gpt2")
symbol = [chr(c) if c > 32 and c < 127 or 161 <= c <= 255 and c != 173 else chr(256 + n) for c, n in
          zip(range(256), [sum(not (32 < d < 127 or 161 <= d <= 255 and d != 173) for d in range(c)) for c in range(256)])]
import json
json.dump({s: i for i, s in enumerate(symbol + ["th", "<|endoftext|>"])}, open("data/gpt2/vocab.json", "w"))
open("data/gpt2/merges.txt", "w").write("#version: 0.2\nt h\n")
os.makedirs("data/wikitext")
for part, lines in [("train", 60), ("valid", 20), ("test", 20)]:
    with open("data/wikitext/wiki.%s.raw" % part, "w") as f:
        for i in range(lines):
            f.write(" " + "".join(random.choice(words) + " " for _ in range(random.choice([0, 20]))) + "\n")
os.makedirs("data/listops")
for at, part in [(0, "train"), (40, "val"), (60, "test")]:
    with open("data/listops/basic_%s.tsv" % part, "w", newline="") as f:
        f.write("Source\tTarget\r\n")
        for i in range(at, at + (40 if at == 0 else 20)):
            f.write("( ( ( [MAX %d ) %d ) ] )\t%d\r\n" % (i // 10, i % 10, max(i // 10, i % 10)))
os.makedirs("data/aan")
for part in ["train", "eval", "test"]:
    with open("data/aan/new_aan_pairs.%s.tsv" % part, "w") as f:
        for i in range(12):
            f.write("%d\tA\tB\t%s\t%s\n" % (i % 2, "abcd" * random.randint(1, 9), "efg" * random.randint(1, 9)))
END
train='"train":{"total_steps":4,"batch_size":4,"lr":0.003,"eval_every":2}'
tail='"layer":"mamba","num_layers":1,"hidden_dim":8,"state_dim":4,"num_heads":2,"conv_dim":3,"expansion":1,"glu":true,"prenorm":true,"pooling":"mean"'
echo "{\"dataset\":{\"_name_\":\"cifar\",\"tokenize\":true,\"data_dir\":\"$dir/data\",\"num_train\":45,\"num_valid\":5,\"num_test\":10},$train,\"model\":{$tail,\"vocab_size\":256,\"output_dim\":10}}" >cifar.json
echo "{\"dataset\":{\"_name_\":\"aan\",\"max_tokens\":30,\"data_dir\":\"$dir/data\",\"num_train\":12,\"num_valid\":12,\"num_test\":12},$train,\"model\":{$tail,\"vocab_size\":257,\"output_dim\":2,\"dual\":true}}" >aan.json
echo "{\"dataset\":{\"_name_\":\"wikitext\",\"block_size\":16,\"vocab_size\":258,\"data_dir\":\"$dir/data\"},$train,\"model\":{${tail%\"mean\"}\"none\",\"vocab_size\":258,\"output_dim\":258}}" >wikitext.json
echo "{\"dataset\":{\"_name_\":\"listops\",\"data_dir\":\"$dir/data\",\"num_train\":40,\"num_valid\":20,\"num_test\":20},$train,\"model\":{$tail,\"vocab_size\":18,\"output_dim\":10}}" >listops.json
export SEQSPECTRA_CACHE=
echo '{"name":"shared","base":["cifar.json","wikitext.json","listops.json","aan.json"],"sweep":{"seed":[1,2]},"analysis":{"batch_size":2,"hankel_samples":1,"memory_samples":1}}' >grid.json

expect 0 -- "$s" run grid.json --out alone.h5 --quiet --private-data
for n in 1 2 4; do
  expect 0 -- ranks $n "$s" run grid.json --out shared$n.h5 --quiet
  same_numbers alone.h5 shared$n.h5
done
expect 0 -- ranks 2 "$s" run grid.json --out private2.h5 --quiet --private-data
same_numbers alone.h5 private2.h5

# ---- a rank dies while all make tokens of a text, long enough to be met: the others end, and what they leave can be gone on with
mkdir long
ln -s ../data/gpt2 long/gpt2
mkdir long/wikitext
for part in train valid test; do
  for _ in $(seq 40); do cat data/wikitext/wiki.train.raw; done >line.txt
  for _ in $(seq 40); do cat line.txt; done >long/wikitext/wiki.$part.raw
done
sed "s|$dir/data|$dir/long|; s|\"block_size\"|\"num_train\":64,\"num_valid\":8,\"num_test\":8,&|" wikitext.json >long.json
expect 0 -- "$s" run long.json --out long.h5 --quiet
# Process id of rank 1 once it holds wiki.train.raw open.
reader() {
  local p
  for p in $(pgrep -f "$s run long.json --out $1"); do
    tr '\0' '\n' 2>/dev/null <"/proc/$p/environ" | grep -Eq '^(OMPI_COMM_WORLD_RANK|PMI_RANK)=1$' || continue
    find "/proc/$p/fd" -lname '*/wiki.*.raw' 2>/dev/null | grep -q . && echo "$p"
  done
}
for n in 2 4; do
  rm -f read
  SQ_PRELOAD_READ=$PWD/read preloaded_ranks $n "$s" run long.json --out dead$n.h5 --quiet >/dev/null 2>&1 & # they wait with the text open
  pid=$!
  victim=
  while [ -z "$victim" ] && kill -0 $pid 2>/dev/null; do victim=$(reader dead$n.h5); done
  [ -n "$victim" ] && kill -KILL "$victim" || fail "no rank of $n was met while it read"
  touch read
  ends_within 60 $pid || fail "the readers of a text hang 60 s after one of $n was killed"
  wait $pid && fail "a rank of $n was killed while it read, and the status is 0"
  [ ! -e dead$n.h5 ] || fail "a results file from before the data were read"
  expect 0 -- ranks $n "$s" run long.json --out dead$n.h5 --quiet --resume
  same_numbers long.h5 dead$n.h5
done

# ---- each of two ranks reads one of the two: whichever finds the error, both leave with it
printf '\012' | dd of=data/cifar-10-batches-bin/data_batch_3.bin bs=1 count=1 conv=notrunc 2>dd.txt
expect 3 'cell cifar .*data_batch_3.bin: record 0 \(byte 0\): label 10; expected 0..9' -- ranks 2 "$s" run grid.json --out bad.h5 --quiet
printf '\000' | dd of=data/cifar-10-batches-bin/data_batch_3.bin bs=1 count=1 conv=notrunc 2>dd.txt
echo 'no row' >data/aan/new_aan_pairs.eval.tsv
expect 3 'cell aan .*new_aan_pairs.eval.tsv:1: 1 column; expected 5' -- ranks 2 "$s" run grid.json --out bad.h5 --quiet
[ ! -e bad.h5 ] || fail "a results file was left"
printf 'a b \377' >data/wikitext/wiki.valid.raw
for n in 1 2 4; do
  expect 3 'cell wikitext.*wiki.valid.raw: byte 4: 0xff is not UTF-8 here' -- ranks $n "$s" run wikitext.json --out bad.h5 --quiet
done
# ---- a model that is not of pairs
expect 2 'model.dual: false, but the task gives pairs' -- "$s" run aan.json --set model.dual=false --out bad.h5
expect 2 'model.dual: true, but the task gives single' -- "$s" run cifar.json --set model.dual=true --out bad.h5
finish
