#!/usr/bin/env bash
# operator transition: the same numbers on 1, 2 and 4 ranks and by every method; what it refuses, it refuses in one line.
. "$(dirname "$0")/lib.sh"
config=$SQ_SOURCE/configs/operators/s4-transition.json
small="--set model.state_dim=40 --set model.hidden_dim=3 --set model.num_layers=2"

# ---- usage: nothing is computed, no file appears
for n in 1 2; do
  expect 2 'KIND CONFIG is missing' -- ranks $n "$program" operator
  expect 2 'CONFIG is missing' -- ranks $n "$program" operator transition
  expect 2 'unknown kind "transitoin".*did you mean transition' -- ranks $n "$program" operator transitoin "$config"
  expect 2 'hankel is reserved' -- ranks $n "$program" operator hankel "$config"
  expect 2 'unknown method "scalapack"' -- ranks $n "$program" operator transition "$config" --method scalapack
  expect 2 'cell 5.*has 1 cell' -- ranks $n "$program" operator transition "$config" --cell 5
  expect 2 'layer 2.*has 2, counted from 0' -- ranks $n "$program" operator transition "$config" $small --layer 2
  expect 2 'channel 3.*has 3, counted from 0' -- ranks $n "$program" operator transition "$config" $small --channel 3
  expect 2 'missing.json' -- ranks $n "$program" operator transition missing.json
  expect 3 'missing.h5' -- ranks $n "$program" operator transition "$config" $small --weights missing.h5
  expect 4 'no/such' -- ranks $n "$program" operator transition "$config" $small --out no/such/file.h5
  expect 2 'layer 0 \(sm-attention\).*another transition at every step' -- \
    ranks $n "$program" operator transition "$SQ_SOURCE/configs/quickstart/mqar-softmax.json"
done
[ -z "$(ls ./*.h5* 2>/dev/null)" ] || fail "a refused command left $(ls ./*.h5*)"

# ---- the same bits on any number of ranks, but for the distributed QR iteration
for m in dense secular auto; do
  for n in 1 2 4; do
    expect 0 -- ranks $n "$program" operator transition "$config" $small --method $m --out $m-$n.h5
    grep -q 'layer 1: 3 matrices of order 40' out.txt || fail "$m on $n ranks: $(cat out.txt)"
    h5diff $m-1.h5 $m-$n.h5 >diff.txt 2>&1 || fail "$m on $n ranks is another result: $(head -3 diff.txt)"
  done
done
expect 0 -- "$program" operator transition "$config" $small --method secular --out again.h5
grep -q 'certified 120 of 120, as eigenvalues of the stored (rounded) parameters' out.txt || fail "not all certified: $(cat out.txt)"
grep -q 'LAPACK' out.txt && fail "--method secular ran another method: $(cat out.txt)"

# auto is the certified method from 32 states on, with LAPACK beside it; a share that one rounding changes is marked.
expect 0 -- "$program" operator transition "$config" $small --method auto --out auto.h5
grep -q 'certified 120 of 120' out.txt && grep -q 'LAPACK .*on the first matrix: largest backward error [0-9.]*e-1[4-7]' out.txt ||
  fail "auto: $(cat out.txt)"
grep -q '%\*' out.txt && grep -q '\* one rounding' out.txt && grep -q 'smallest .*median' out.txt || fail "no share is marked: $(cat out.txt)"
for d in condition sensitivity; do h5ls auto.h5/operators/transition/mqar-s4/layer0 | grep -q "^$d .*{3, 40}" || fail "no $d"; done
h5dump -a /operators/transition/mqar-s4/layer0/certified/long_name auto.h5 | grep -q 'as stored' || fail "what certified is about"
expect 0 -- "$program" operator transition "$config" $small --set model.state_dim=16 --out little.h5
grep -q 'method dense' out.txt || fail "16 states: $(cat out.txt)"
grep -q '\* one rounding' out.txt || [ "$(grep -c '%\*' out.txt)" = 0 ] || fail "marks without their meaning"

# ---- every method finds the same values, to their condition: each value of one has a partner in the other.  The
# matrices of this size have eigenvalues of condition up to 1e7: backward errors of 1e-15 allow 1e-8.
compare() {
  "$(command -v python3)" - "$1" "$2" <<'P' || fail "$1 and $2 differ"
import sys
try:
    import h5py, numpy as np
except ImportError:
    sys.exit(0)
a, b = (h5py.File(f)["/operators/transition/mqar-s4"] for f in sys.argv[1:])
for layer in ("layer0", "layer1"):
    x, y = a[layer]["lambda"][:], b[layer]["lambda"][:]
    assert x.shape == y.shape == (3, 40) and x.dtype == np.complex128
    for p, q in zip(x, y):
        q = list(q)
        for z in p:
            k = int(np.argmin(np.abs(np.array(q) - z)))
            assert abs(q.pop(k) - z) < 1e-8, (layer, z)
    assert np.nanmax(a[layer]["backward_error"][:]) < 1e-13
P
}
compare dense-1.h5 secular-1.h5
if ! "$program" version | grep -qE 'ScaLAPACK +(off|not found)'; then
  for n in 1 2 4; do
    expect 0 -- ranks $n "$program" operator transition "$config" $small --method distributed --out distributed-$n.h5
    compare distributed-$n.h5 secular-1.h5
  done
else
  expect 2 'built without ScaLAPACK' -- "$program" operator transition "$config" $small --method distributed
fi

# ---- diagonal layers
expect 0 -- ranks 2 "$program" operator transition "$SQ_SOURCE/configs/quickstart/mqar-lru.json" --out lru.h5
grep -q 'the matrix is diagonal' out.txt || fail "a diagonal layer: $(cat out.txt)"

# ---- a grid with models that change with time: these are skipped, each with one note, before anything is computed
cat >mixed.json <<J
{"name":"mixed","base":["$SQ_SOURCE/configs/quickstart/mqar-softmax.json","$SQ_SOURCE/configs/quickstart/mqar-lru.json"],"sweep":{"seed":[1,2]}}
J
expect 0 -- ranks 2 "$program" operator transition mixed.json --out mixed.h5
[ "$(grep -c 'skipped: .*sm-attention.*another transition at every step' err.txt)" = 1 ] || fail "not one note: $(cat err.txt)"
[ "$(grep -c 'the matrix is diagonal' out.txt)" -ge 2 ] || fail "the others were not done: $(cat out.txt)"

# ---- a signal leaves nothing behind
"$program" operator transition "$config" --set model.state_dim=2048 --set model.hidden_dim=4 --out term.h5 >out.txt 2>err.txt &
pid=$!
for _ in $(seq 100); do [ -e term.h5.tmp.$pid ] && break; sleep 0.1; done
[ -e term.h5.tmp.$pid ] || fail "no file while it works"
kill -TERM $pid
wait $pid
[ $? = 143 ] || fail "SIGTERM was not what ended it"
[ -z "$(ls ./term.h5* 2>/dev/null)" ] || fail "SIGTERM left $(ls ./term.h5*)"

# ---- files
expect 2 'dense-1.h5 exists' -- ranks 2 "$program" operator transition "$config" $small --out dense-1.h5
echo text >text.h5
expect 2 'text.h5 exists' -- "$program" operator transition "$config" $small --out text.h5
[ "$(cat text.h5)" = text ] || fail "a file that is not ours was changed"

# A disk that gets full: HDF5 keeps rows until it closes their data set, which is then what fails and is named.
for blocks in 4 32 64; do
  # shellcheck disable=SC2016
  expect 4 'full.h5: /operators/.* cannot be written' -- bash -c 'ulimit -f $0; exec "$@"' $blocks "$program" operator transition "$config" \
    --set model.state_dim=24 --set model.hidden_dim=64 --out full.h5
  [ -z "$(ls ./full.h5* 2>/dev/null)" ] || fail "a full disk left $(ls ./full.h5*)"
done

# weights of a results file, and the group added to it; the run's own numbers stay
run="--set model.hidden_dim=4 --set model.state_dim=8 --set train.total_steps=2 --set dataset.num_train=16 --set dataset.num_valid=8 --set dataset.num_test=8 --set dataset.vocab_size=64 --set model.input_dim=64 --set model.output_dim=64 --set train.batch_size=4 --set analysis.batch_size=2"
expect 0 -- "$program" run "$config" $run --set run.save_weights=true --out trained.h5 --quiet
cp trained.h5 before.h5
expect 0 -- ranks 2 "$program" operator transition "$config" $run --weights trained.h5 --out trained.h5
h5ls -r trained.h5 | grep -q '/operators/transition/mqar-s4/layer0/lambda' || fail "the group was not added"
h5diff trained.h5 before.h5 /cells /cells >/dev/null || fail "/cells changed"
"$program" status trained.h5 >/dev/null || fail "the file is no results file any more"

# values that are not finite: never certified, stored, exit status 1
cp before.h5 wild.h5
if "$(command -v python3)" - <<'P'
import sys
try:
    import h5py
except ImportError:
    sys.exit(1)
found = []
with h5py.File("wild.h5", "r+") as f:
    f["weights"].visititems(lambda name, x: found.append(x) if name.endswith("log_step") else None)
    found[0][0, 0] = 1000
P
then
  expect 1 'eigenvalues are not finite, or have a backward error above 1e-10' -- \
    ranks 2 "$program" operator transition "$config" $run --weights wild.h5 --out wild-values.h5
  [ -e wild-values.h5 ] || fail "the values were not written"
fi
expect 2 'already has /operators/transition' -- ranks 2 "$program" operator transition "$config" $run --weights trained.h5 --out trained.h5
# A run on another machine that gives signs of life (tests/cli/recover.sh has one that gives none).
(for beat in $(seq 100); do printf 'host elsewhere\npid 1\nstarted now\nbeat %010d\n' "$beat" >trained.h5.lock; sleep 0.5; done) &
alive=$!
sleep 1
expect 2 'being written by' -- "$program" operator transition "$config" $run --out trained.h5
kill $alive
wait $alive 2>/dev/null
rm -f trained.h5.lock
[ -z "$(ls ./*.tmp.* 2>/dev/null)" ] || fail "temporary files are left: $(ls ./*.tmp.*)"
finish
