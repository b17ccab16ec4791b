#!/usr/bin/env bash
# operator transition: the same numbers on 1, 2 and 4 ranks and by every method; what it refuses, it refuses in one line.
. "$(dirname "$0")/lib.sh"
config=$SQ_SOURCE/configs/operators/s4-transition.json
python=python3 # one that can read the files, if there is one
"$python" -c 'import h5py, numpy' 2>/dev/null || [ ! -x /usr/bin/python3 ] || python=/usr/bin/python3
"$python" -c 'import h5py, numpy' 2>/dev/null || echo "not tested here: what needs h5py and numpy"
small="--set model.state_dim=40 --set model.hidden_dim=3 --set model.num_layers=2"

# ---- usage: nothing is computed, no file appears
expect 2 'KIND CONFIG is missing' -- "$program" operator
expect 2 'CONFIG is missing' -- ranks 2 "$program" operator transition
expect 2 'unknown kind "transitoin".*did you mean transition' -- "$program" operator transitoin "$config"
expect 2 'hankel is reserved' -- "$program" operator hankel "$config"
expect 2 'unknown method "scalapack"' -- "$program" operator transition "$config" --method scalapack
expect 2 'cell 5.*has 1 cell' -- "$program" operator transition "$config" --cell 5
expect 2 'layer 2.*has 2, counted from 0' -- "$program" operator transition "$config" $small --layer 2
expect 2 'channel 3.*has 3, counted from 0' -- ranks 2 "$program" operator transition "$config" $small --channel 3
expect 2 'missing.json' -- "$program" operator transition missing.json
ln -s nowhere link.h5
for run in "" "ranks 2"; do
  expect 3 'missing.h5' -- $run "$program" operator transition "$config" $small --weights missing.h5
  expect 4 'no/such' -- $run "$program" operator transition "$config" $small --out no/such/file.h5
  expect 4 'link.h5 is a symbolic link' -- $run "$program" operator transition "$config" $small --out link.h5
  expect 2 'layer 0 \(sm-attention\).*another transition at every step' -- \
    $run "$program" operator transition "$SQ_SOURCE/configs/quickstart/mqar-softmax.json"
done
rm link.h5
[ -z "$(ls ./*.h5* 2>/dev/null)" ] || fail "a refused command left $(ls ./*.h5*)"

# ---- more than the memory: refused before anything of that size is taken, as by run
huge="$SQ_SOURCE/configs/quickstart/mqar-lru.json --set model.state_dim=65536 --set model.hidden_dim=32768 --set model.num_layers=64"
needs='needs .* of memory \([0-9]* bytes\).*this machine has'
expect 2 "$needs" -- ranks 2 "$program" operator transition $huge
expect 2 "$needs" -- "$program" operator transition "$config" --set model.hidden_dim=65536 --set model.num_layers=64
expect 2 "$needs" -- "$program" verify $huge
expect 2 "$needs" -- "$program" analyze $huge --weights missing.h5

# ---- the same bits on any number of ranks, but for the distributed QR iteration.  Three matrices: dealt out to up to three
# ranks, shared by four.
run_parts="--exclude-path /operators/transition/mqar-s4/layer0/run --exclude-path /operators/transition/mqar-s4/layer1/run"
for m in dense secular auto; do
  for n in 1 2 4; do
    expect 0 -- ranks $n "$program" operator transition "$config" $small --method $m --out $m-$n.h5
    cp out.txt $m-$n.txt
    grep -q 'layer 1: 3 matrices of order 40' out.txt || fail "$m on $n ranks: $(cat out.txt)"
    h5diff $run_parts $m-1.h5 $m-$n.h5 >diff.txt 2>&1 || fail "$m on $n ranks is another result: $(head -3 diff.txt)"
  done
done
grep -q 'certified  *120 of 120, as eigenvalues of the stored (rounded) parameters' secular-1.txt || fail "not all certified: $(cat secular-1.txt)"
grep -q 'LAPACK' secular-1.txt && fail "--method secular ran another method: $(cat secular-1.txt)"

# auto is the certified method from 32 states on, with LAPACK beside it; a share that one rounding changes is marked.
grep -q 'certified  *120 of 120' auto-1.txt && grep -q 'LAPACK .*on the first matrix: largest backward error [0-9.]*e-1[4-7]' auto-1.txt ||
  fail "auto: $(cat auto-1.txt)"
grep -q '%\*' auto-1.txt && grep -q 'smallest .*median' auto-1.txt || fail "no share is marked: $(cat auto-1.txt)"
[ "$(grep -c '\* one rounding' auto-1.txt)" = 1 ] || fail "the marks are not explained once: $(cat auto-1.txt)"
for d in condition sensitivity lambda_radius; do h5ls auto-1.h5/operators/transition/mqar-s4/layer0 | grep -q "^$d .*{3, 40}" || fail "no $d"; done
h5dump -a /operators/transition/mqar-s4/layer0/certified/long_name auto-1.h5 | grep -q 'as stored' || fail "what certified is about"
expect 0 -- "$program" operator transition "$config" $small --set model.state_dim=16 --out little.h5
grep -q 'method dense' out.txt || fail "16 states: $(cat out.txt)"
grep -q '\* one rounding' out.txt || [ "$(grep -c '%\*' out.txt)" = 0 ] || fail "marks without their meaning"

# ---- every method finds the same values, to their condition: the values of one can be paired with those of the other so
# that all pairs are close.  The matrices of this size have reciprocal conditions down to 1.5e-8: backward errors of 1e-15
# of their norm allow some 1e-7.
compare() {
  "$python" - "$1" "$2" <<'P' || fail "$1 and $2 differ"
import sys
try:
    import h5py, numpy as np
except ImportError:
    sys.exit(0)

def paired(near):  # by augmenting paths
    partner = [-1] * len(near)
    def take(i, seen):
        for k in np.flatnonzero(near[i]):
            if k not in seen:
                seen.add(k)
                if partner[k] < 0 or take(partner[k], seen):
                    partner[k] = i
                    return True
        return False
    return sum(take(i, set()) for i in range(len(near)))

assert paired(np.array([[1, 1], [1, 0]])) == 2 and paired(np.array([[1, 0], [1, 0]])) == 1
a, b = (h5py.File(f, "r")["/operators/transition/mqar-s4"] for f in sys.argv[1:])
for layer in ("layer0", "layer1"):
    x, y = a[layer]["lambda"], b[layer]["lambda"]
    assert x.shape == y.shape == (3, 40) and x.dtype == np.complex128
    for p, q in zip(x[:], y[:]):
        assert paired(np.abs(p[:, None] - q) < 1e-6) == 40, layer
    assert np.nanmax(a[layer]["backward_error"][:]) < 1e-13
    assert [list(d.keys()) for d in x.dims] == [["channel"], ["state"]] and list(a[layer]["channel"]) == [0, 1, 2]
    r = b[layer]["lambda_radius"][:]  # of the certified ones
    assert np.all(r > 0) and np.max(r) < 1e-10 and np.all(b[layer]["certified"][:] == 1)
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

# ---- what a file of its own says about itself
h5dump -a /operators/transition/mqar-s4/layer0/config dense-1.h5 | grep -q '"state_dim":40' || fail "no configuration"
for a in time cpu blas_kernel ranks; do
  h5dump -a /operators/transition/mqar-s4/layer0/run/$a dense-1.h5 >/dev/null || fail "no $a"
done
expect 0 -- "$program" status dense-1.h5
grep -qx 'dense-1.h5: a file of `operator transition`: eigenvalues of 2 layers of 1 model: mqar-s4' out.txt || fail "status: $(cat out.txt)"
expect 3 'dense-1.h5: a file of `seqspectra operator`' -- "$program" report dense-1.h5

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
expect 2 'dense-1.h5 exists already and is a file of this command' -- ranks 2 "$program" operator transition "$config" $small --out dense-1.h5
echo text >text.h5
expect 2 'text.h5 exists already and is no results file' -- "$program" operator transition "$config" $small --out text.h5
[ "$(cat text.h5)" = text ] || fail "a file that is not ours was changed"

# The default name says transition once; what killed processes have left under it goes, also if their number is in use again.
touch s4-transition.h5.tmp.$$
expect 0 -- "$program" operator transition "$config" --set model.state_dim=8
[ -e s4-transition.h5 ] && [ ! -e s4-transition.h5.tmp.$$ ] || fail "default name and leftovers: $(ls s4-transition*)"

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
ln -s trained.h5 link.h5
expect 0 -- ranks 2 "$program" operator transition "$config" $run --weights trained.h5 --out link.h5
[ -L link.h5 ] || fail "a link to the results file was replaced"
h5ls -r trained.h5 | grep -q '/operators/transition/mqar-s4/layer0/lambda' || fail "the group was not added"
h5diff trained.h5 before.h5 /cells /cells >/dev/null || fail "/cells changed"
"$program" status trained.h5 >out.txt || fail "the file is no results file any more"
grep -qx 'trained.h5: `operator transition`: eigenvalues of 1 layer of 1 model: mqar-s4' out.txt || fail "status hides what was added: $(cat out.txt)"
"$program" status before.h5 | grep -q operator && fail "status finds an operator where none is"

# values that are not finite: never certified, stored, exit status 1
cp before.h5 wild.h5
if "$python" - <<'P'
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
    ranks 2 "$program" operator transition "$config" $run --method secular --weights wild.h5 --out wild-values.h5
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
