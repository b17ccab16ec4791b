#!/usr/bin/env bash
# Bad usage: exit status 2 and one line; help, version and plan: exit status 0.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 20

expect 2 'no command' -- "$s"
expect 2 'unknown command "rnu" \(did you mean run\?\)' -- "$s" rnu
expect 2 'unknown command "frobnicate"; see' -- "$s" frobnicate
expect 2 'run: CONFIG is missing' -- "$s" run
expect 2 'run: unexpected "b.json"' -- "$s" run a.json b.json
expect 2 'run: unknown option --rezume \(did you mean --resume\?\)' -- "$s" run tiny.json --rezume
expect 2 'run: unknown option --frobnicate; see' -- "$s" run tiny.json --frobnicate
expect 2 'run: --out needs a value' -- "$s" run tiny.json --out
expect 2 'run: --out needs a value' -- "$s" run tiny.json --out --quiet
expect 2 'run: --out needs a value' -- "$s" run tiny.json --out=
expect 2 'run: --quiet takes no value' -- "$s" run tiny.json --quiet=1
expect 2 'run: --time-limit=soon: expected seconds, or \[days-\]hours:minutes:seconds as in Slurm, from 1 to' -- "$s" run tiny.json --time-limit soon
for limit in 10: :10 1:60:00 1:60 1:2:3: 1:2:3:4 1:00:00x -1:00:00 1-:00:00 1--0:00:01 -0-1:00:00 1-2-3; do
  expect 2 "run: --time-limit=$limit: expected seconds" -- "$s" run tiny.json --time-limit=$limit
done
expect 2 'run: --time-limit=0: expected seconds' -- "$s" run tiny.json --time-limit=0
expect 2 'run: unknown option -q' -- "$s" run tiny.json -q
expect 2 'nowhere.json' -- "$s" run nowhere.json
expect 2 'trian.lr.*train.lr' -- "$s" run tiny.json --set trian.lr=1
expect 2 'train.lr' -- "$s" run tiny.json --set train.lr=-1
expect 2 'model.vocab_size: 32 is less than the 64 tokens' -- "$s" run tiny.json --set model.vocab_size=32
expect 2 'plan: --ranks=2.5: expected an integer' -- "$s" plan tiny.json --ranks 2.5
expect 2 'plan: --ranks=0' -- "$s" plan tiny.json --ranks=0
expect 2 'analyze: --weights FILE.h5 is missing' -- "$s" analyze tiny.json
expect 2 'analyze --factors is reserved' -- "$s" analyze --factors dump.h5
expect 2 'analyze: --cell 99' -- "$s" analyze tiny.json --weights w.h5 --cell 99
expect 2 'operator hankel is reserved' -- "$s" operator hankel tiny.json
expect 2 'version: unexpected "now"' -- "$s" version now
expect 2 'train.total_steps: given with train.num_epochs; .*--set train.num_epochs=null counts in steps' -- "$s" plan tiny.json --set train.num_epochs=2
expect 0 -- "$s" plan tiny.json --rate 1 --set train.num_epochs=2 --set train.total_steps=null
expect 2 'model.layer: is "mamba-lti".*did you mean "mamba"' -- "$s" plan softmax.json --set model.layer=mamba-lti
expect 2 'help: unknown command "rum".*did you mean run' -- "$s" help rum
expect 2 'doctor: unknown option --dri \(did you mean --dir\?\)' -- "$s" doctor --dri .
expect 2 'run: unknown option --rezume' -- ranks 2 "$s" run tiny.json --rezume
[ -e tiny.h5 ] && fail "a refused run has left tiny.h5"

expect 0 -- "$s" help
grep -q 'analyze' out.txt || fail "help does not list analyze"
[ "$(wc -l <out.txt)" -le 24 ] || fail "help does not fit a screen"
for c in run plan analyze parity verify operator report data status doctor version help; do
  expect 0 -- "$s" help $c
  grep -q "^usage: seqspectra $c" out.txt || fail "help $c has no usage line"
  [ "$(wc -l <out.txt)" -le 24 ] || fail "help $c does not fit a screen"
  cp out.txt long.txt
  expect 0 -- "$s" $c --help
  cmp -s out.txt long.txt || fail "$c --help is not help $c"
done
expect 0 -- "$s" --help
expect 0 -- "$s" --version
expect 0 -- ranks 3 "$s" version
[ "$(grep -c '^precision' out.txt)" = 1 ] || fail "version is printed by more than one rank"
expect 2 'unknown command' -- ranks 2 "$s" frobnicate

expect 0 -- "$s" plan tiny.json --ranks 4
grep -q '6 cells' out.txt || fail "plan does not count 6 cells"
grep -q 'on 4 ranks' out.txt || fail "plan does not use --ranks"
expect 0 -- "$s" plan tiny.json --json --set seed=7
python3 -c '
import json
p = json.load(open("out.txt"))
rows = p["rows"]
assert p["cells"] == sum(r["cells"] for r in rows), "cells"
assert abs(p["flops"] - sum(r["cells"] * r["flops_cell"] for r in rows)) < 1e-9 * p["flops"], "flops"
assert all(r["parameters"] > 0 and r["memory_bytes"] > 0 and r["cell_s"] > 0 and r["timed"] for r in rows), "rows"
assert p["file_bytes"] > 0 and p["useful_ranks"] == 16 * p["cells"] and p["team"] * p["cells"] <= max(p["ranks"], p["cells"]), "totals"
' || fail "plan --json"
expect 0 -- "$s" plan "$SQ_SOURCE/configs/quickstart.json" --ranks 2
expect 4 'standard output' -- bash -c "'$s' help >/dev/full"

expect 0 -- "$s" doctor --dir .
expect 1 -- "$s" doctor --dir nowhere
grep -q '^BROKEN' out.txt || fail "doctor does not say what is broken"
expect 0 -- ranks 2 "$s" doctor
grep -q 'written by 2 ranks' out.txt || fail "doctor does not write with 2 ranks"
finish
