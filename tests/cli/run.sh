#!/usr/bin/env bash
# The same grid on 1, 2 and 4 ranks gives the same numbers bit for bit; files are never overwritten.
. "$(dirname "$0")/lib.sh"
s=$program
write_grid tiny 60

expect 0 -- "$s" run tiny.json
[ -e tiny.h5 ] || fail "no tiny.h5"
grep -q 'results: tiny.h5' out.txt || fail "the end does not say where the file is"
grep -Eq '^first step after [0-9]+[.][0-9] s \(data [0-9]+[.][0-9] s\)$' out.txt || fail "when the first step ended: $(cat out.txt)"
"$s" status tiny.h5 | grep -q '^  first step after ' || fail "status does not say when the first step ended"
grep -q 'softmax' out.txt || fail "no accuracy table"
[ "$(status_count tiny.h5 done)" = 6 ] || fail "not all of the 6 cells are done"
for n in 2 4 7; do
  expect 0 -- ranks $n "$s" run tiny.json --out on$n.h5 --quiet
  [ -s out.txt ] && fail "--quiet prints: $(head -2 out.txt)"
  same_numbers tiny.h5 on$n.h5
done

cp tiny.h5 before.h5
expect 2 'exists already: --resume' -- "$s" run tiny.json
expect 2 'exists already: --resume' -- ranks 2 "$s" run tiny.json
cmp -s tiny.h5 before.h5 || fail "a refused run has changed the file"
expect 0 -- "$s" run tiny.json --resume # nothing left to do
grep -q '^tiny: all 6 cells are done, in tiny.h5$' out.txt || fail "a finished file: $(head -1 out.txt)"
[ -e tiny.h5.lock ] && fail "a run has left its lock"
same_numbers tiny.h5 before.h5
expect 2 'seed|cells|grid' -- "$s" run tiny.json --resume --set seed=5
expect 2 -- "$s" run tiny.json --resume --set train.lr=0.5
same_numbers tiny.h5 before.h5

expect 0 -- "$s" run tiny.json --out new.h5 --resume # nothing to resume yet
grep -q 'nothing to resume' err.txt || fail "no note that there is nothing to resume"
same_numbers tiny.h5 new.h5

expect 0 -- "$s" run tiny.json --set run.save_weights=true --out weights.h5 --quiet
expect 0 -- "$s" analyze tiny.json --cell 1 --weights weights.h5 --out again.h5
python=$(for p in /usr/bin/python3 python3; do $p -c 'import h5py' 2>/dev/null && echo $p && break; done)
[ -n "$python" ] || echo "not tested here: what needs h5py"
if [ -n "$python" ]; then
  "$python" - <<'PY' || fail "analyze of saved weights does not give the run's numbers"
import h5py, numpy as np
a, b = h5py.File("weights.h5"), h5py.File("again.h5")
assert a["/cells/test_metric"][1] == b["/cells/test_metric"][0]
assert abs(a["/cells/test_loss"][1] - b["/cells/test_loss"][0]) == 0
for name in ("steps", "best_step"):
    assert a["/cells/" + name][1] == b["/cells/" + name][0] > 0, name
g = "/spectra/mqar/softmax/dsf"
rows = list(a[g + "/cell"][:])
for name in a[g]:
    x, y = a[g][name], b[g][name] if name in b[g] else None
    if y is None or x.ndim < 3 or x.dtype.kind != "f":
        continue
    assert np.array_equal(x[rows.index(1), -1], y[0, -1], equal_nan=True), name
    assert np.all(np.isnan(y[0, 0])), name  # init: nothing
PY
fi
# Tables: CSV is rows only, with all digits; models in the order of the grid in each.
expect 0 -- "$s" report tiny.h5 --table accuracy --format csv
[ "$(wc -l <out.txt)" = 3 ] && head -1 out.txt | grep -q 'spread,seeds,seeds planned,' || fail "csv: $(cat out.txt)"
[ -s err.txt ] && fail "csv of a finished file: $(cat err.txt)"
grep -Eq '^mqar,softmax,.*,0\.[0-9]{10,},.*,3,3,' out.txt || fail "csv lacks digits or seeds: $(cat out.txt)"
for t in accuracy spectra memory; do
  expect 0 -- "$s" report tiny.h5 --table $t
  [ "$(grep -o '^| mqar *| [a-z]*' out.txt | uniq | sed 's/.* //' | tr '\n' ' ')" = "softmax linear " ] || fail "order of models in $t: $(cat out.txt)"
done

# What is not a results file says what it should be.
for c in report status; do
  expect 3 'tiny.json: not an HDF5 file; expected a results file' -- "$s" $c tiny.json
done

# A changed bit in a finished cell: named, and computed again.
if [ -n "$python" ]; then
  cp tiny.h5 hurt.h5
  "$python" - <<'PY' || fail "cannot damage the file"
import h5py
d = h5py.File("hurt.h5", "r")["/cells/test_loss"]
at = d.id.get_offset() + 4 * 8
with open("hurt.h5", "r+b") as f:
    f.seek(at); b = f.read(1); f.seek(at); f.write(bytes([b[0] ^ 1]))
PY
  expect 1 'hurt.h5: 1 finished cell with a wrong checksum' -- "$s" status hurt.h5
  [ "$(grep -c 'damaged .*seed.*seed' out.txt)" = 0 ] && grep -q 'damaged .* seed=[123]: wrong checksum' out.txt || fail "the seed, once: $(cat out.txt)"
  grep -q '^  damaged *cell 4 linear' out.txt || fail "status does not name the damaged cell: $(cat out.txt)"
  expect 1 'hurt.h5: 1 damaged cell' -- "$s" report hurt.h5
  [ "$(grep -c '^Warning: damaged.*cell 4, linear' out.txt)" = 3 ] || fail "report does not name the damaged cell"
  # Not on other kernels: the others' bits are of these.
  if [ "$("$s" version)" != "$(OPENBLAS_CORETYPE=Nehalem "$s" version)" ]; then
    expect 2 'hurt.h5 was computed on .* its bits would differ' -- env OPENBLAS_CORETYPE=Nehalem "$s" run tiny.json --out hurt.h5 --resume
    expect 0 -- env OPENBLAS_CORETYPE=Nehalem "$s" run tiny.json --out tiny.h5 --resume
  fi
  "$s" run tiny.json --out hurt.h5 --resume >out.txt 2>err.txt || fail "a damaged file cannot be mended: $(cat err.txt)"
  grep -q 'hurt.h5: cell 4 is damaged' err.txt || fail "resume does not name the damaged cell: $(cat err.txt)"
  same_numbers tiny.h5 hurt.h5
  expect 0 -- "$s" status hurt.h5
fi

expect 2 'is of cell "softmax seed=1", and model.attention_fn is another' -- "$s" analyze linear.json --weights weights.h5 --cell 0 --set model.num_layers=3 --out x.h5
expect 2 'is of cell "softmax seed=1", and model.hidden_dim is another' -- "$s" analyze softmax.json --weights weights.h5 --out x.h5 --set model.hidden_dim=64
expect 2 'is of cell "softmax seed=1", and model.layer is another' -- "$s" analyze "$SQ_SOURCE/configs/quickstart/mqar-lru.json" --weights weights.h5 --out x.h5
expect 3 -- "$s" analyze softmax.json --weights nowhere.h5 --out x.h5
expect 3 -- "$s" analyze softmax.json --weights tiny.json --out x.h5
if [ -n "$python" ]; then
  cp weights.h5 nan.h5
  "$python" -c 'import h5py; g = h5py.File("nan.h5", "a")["weights/1"]; g[sorted(g)[0]][...] = float("nan")'
  expect 3 'is not a finite number in float' -- "$s" analyze tiny.json --cell 1 --weights nan.h5 --out x.h5
  cp weights.h5 list.h5 # a model that is a list is another model
  "$python" - <<'PY' || fail "cannot change the grid"
import h5py, json
with h5py.File("list.h5", "a") as f:
    grid = json.loads(f["grid"][()])
    for c in grid["cells"]:
        c["model"] = list(c["model"])
    text = json.dumps(grid)
    del f["grid"]
    f.create_dataset("grid", data=text.encode(), dtype=h5py.string_dtype("utf-8", len(text)))
PY
  expect 2 'is of cell "softmax seed=1", and model.\* is another' -- "$s" analyze softmax.json --weights list.h5 --out x.h5
fi
[ -e x.h5 ] && fail "a refused analysis has left a file"
finish
