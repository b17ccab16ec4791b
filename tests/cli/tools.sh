#!/usr/bin/env bash
# help, plan, verify, analyze, parity and data: what they say, and what they say about the wrong kind of file.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 20

# ---- help
expect 2 'no command' -- "$s"
grep -q '^  analyze ' out.txt || fail "without words the commands are not listed"
for c in "" run plan analyze parity verify operator report data status doctor version help config; do
  expect 0 -- "$s" help $c
  grep -nE ' $' out.txt && fail "help $c has trailing blanks"
  grep -qF '[options]' out.txt && fail "help $c does not name its options"
done
for t in accuracy spectra memory cells training; do
  expect 0 -- "$s" help report
  grep -qE "^ +$t " out.txt || fail "help report does not list the table $t"
done
for o in out seed num-train num-valid num-test min-length max-length max-depth max-args force; do
  expect 0 -- "$s" help data
  grep -qE "^ +--$o " out.txt || fail "help data does not list --$o"
done
expect 0 -- "$s" help config
cp out.txt all.txt
for k in seed train.lr dataset._name_ dataset.num_kv_pairs model.layer model.attention_fn analysis.protocols run.save_weights; do
  grep -qE "^  $k " all.txt || fail "help config does not list $k"
done
grep -qE '^  train.recipe .*"corrected".*corrected\|published' all.txt || fail "help config: train.recipe has no default or choices"
grep -qE '^  dataset.num_kv_pairs .*dataset._name_=mqar' all.txt || fail "help config does not say when num_kv_pairs applies"
grep -qE '^  model.layer .*\[.*transformer' all.txt || fail "help config does not list the layers"
expect 0 -- "$s" help config train
grep -qE '^  train\.' out.txt || fail "help config train lists nothing"
grep -qE '^  (seed|run\.|model\.)' out.txt && fail "help config train lists other sections"
expect 2 'no key begins with "trian"' -- "$s" help config trian
expect 2 'help: unexpected "now"' -- "$s" help run now

# ---- plan
sed 's/"seed":\[1,2,3\]/"seed":[1,2,3],"train.lr":[0.01,0.02]/' tiny.json >swept.json
expect 0 -- "$s" plan swept.json --ranks 2
for lr in 0.01 0.02; do
  [ "$(grep -cE "^mqar .* train.lr = $lr +3 " out.txt)" = 2 ] || fail "plan: not two rows of three cells with train.lr = $lr"
done
grep -q 'warning: train' err.txt && fail "plan warns without cause"
cat >one.json <<END
$(cat softmax.json)
END
expect 0 -- "$s" plan one.json --rate 0.001 --ranks 1
grep -q 'more than 16 ranks are of no use' out.txt || fail "plan of one cell of 16 sequences does not speak of ranks"
expect 0 -- "$s" plan one.json --rate 0.001 --ranks 1 --set train.batch_size=1
grep -q 'a second rank is of no use' out.txt || fail "plan of one cell of one sequence does not speak of a second rank"
expect 0 -- "$s" plan swept.json --set train.warmup=4000
[ "$(grep -c 'warning: train.warmup 4000 is longer than the run (20 steps): the rate never reaches train.lr' err.txt)" = 1 ] ||
  fail "plan does not warn once of a long warm-up: $(cat err.txt)"
expect 0 -- "$s" run tiny.json --set train.warmup=4000 --set seed=1 --out warm.h5 --quiet
[ "$(grep -c 'train.warmup 4000 is longer' err.txt)" = 1 ] || fail "run does not warn once of a long warm-up: $(cat err.txt)"

# ---- verify
expect 0 -- "$s" verify tiny.json
[ "$(grep -cE '^(softmax|linear) .* ok$' out.txt)" = 2 ] || fail "verify: not one line a model: $(cat out.txt)"
[ "$(grep -c 'seqspectra-f64' out.txt)" = 1 ] || fail "verify does not say once that gradients are for seqspectra-f64"
tail -1 out.txt | grep -q '2 models in float32: all checks passed (2 gradient checks skipped' || fail "verify: last line: $(tail -1 out.txt)"
expect 0 -- "$s" verify tiny.json --verbose
[ "$(grep -cE 'regauge: outputs equal .*allowed' out.txt)" = 2 ] || fail "verify --verbose lacks its lines"
expect 0 -- "$s-f64" verify tiny.json
tail -1 out.txt | grep -q 'all checks passed$' || fail "verify in float64: $(tail -1 out.txt)"

# ---- analyze
expect 3 'this results file holds no weights: train with --set run.save_weights=true' -- "$s" analyze tiny.json --weights warm.h5
expect 0 -- "$s" run tiny.json --out kept.h5 --quiet --set run.save_weights=true
expect 0 -- "$s" analyze tiny.json --weights kept.h5 --cell 1 --out a.h5
grep -q '| init ' out.txt && fail "analyze prints a stage that it has not taken"
grep -q '| trained ' out.txt || fail "analyze does not print its spectra"
grep -q '^note:.*weights' err.txt && fail "analyze notes a difference where there is none: $(cat err.txt)"
expect 2 'a.h5 exists; choose another --out' -- "$s" analyze tiny.json --weights kept.h5 --cell 1 --out a.h5
grep -q resume err.txt && fail "analyze speaks of --resume"
expect 2 'is of cell "softmax seed=1".*model\.' -- "$s" analyze linear.json --weights kept.h5 --cell 0 --out b.h5
expect 0 -- "$s" analyze softmax.json --weights kept.h5 --cell 0 --out c.h5
grep -q 'note: .*of cell "softmax seed=1"' err.txt || fail "analyze does not note that the labels differ: $(cat err.txt)"

# ---- the wrong kind of file
for c in run plan verify "analyze --weights kept.h5"; do
  expect 2 'kept.h5: an HDF5 file; a configuration \(JSON\) was expected' -- "$s" $c kept.h5
done
expect 3 'kept.h5: a results file; a parity case was expected' -- "$s" parity kept.h5
expect 3 'tiny.json: a JSON file; a parity case \(HDF5\) was expected' -- "$s" parity tiny.json

# ---- data
expect 2 'data make listops' -- "$s" data make listops --out made --min-length 50 --max-length 40
grep -q 'making' err.txt && fail "data make says that it makes before it has looked at its options"
[ -e made ] && fail "a refused data make has left a folder"
expect 0 -- "$s" data make listops --out made --num-train 4 --num-valid 2 --num-test 2 --min-length 5 --max-length 60
expect 2 'exists; choose another --out' -- "$s" data make listops --out made
printf 'abc\377' >bad.txt
mkdir nothing
expect 3 'tokenizer: neither vocab.json nor encoder.json in nothing/gpt2 or nothing' -- "$s" data tokenize bad.txt --data nothing
if [ -r "$SQ_SOURCE/../shared/data/gpt2/vocab.bpe" ]; then
  expect 3 'bad.txt: byte 3: 0xff is not UTF-8 here' -- "$s" data tokenize bad.txt --data "$SQ_SOURCE/../shared/data"
  [ -s out.txt ] && fail "ids were printed of a text that is not UTF-8"
  printf 'Hello, world' >good.txt
  expect 0 -- "$s" data tokenize good.txt --data "$SQ_SOURCE/../shared/data"
  [ "$(tr '\n' ' ' <out.txt)" = "15496 11 995 " ] || fail "data tokenize: $(cat out.txt)"
fi
for t in cifar imdb wikitext mnist; do
  expect 3 'fetch-data.sh' -- "$s" data check $t nothing
  expect 0 -- "$s" data info $t
  grep -q 'fetch-data.sh' out.txt || fail "data info $t does not say where the files come from"
done
expect 2 'mqar is made while training and has no files' -- "$s" data check mqar
finish
