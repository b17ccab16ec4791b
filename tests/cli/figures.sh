#!/usr/bin/env bash
# The figures of a small run: bars per model and swept values, in the order of the cells; no warnings where a stage is empty.
. "$(dirname "$0")/lib.sh"
s=$program
for p in python3 /usr/bin/python3 /usr/local/bin/python3; do
  "$p" -c 'import h5py, matplotlib' 2>/dev/null && python=$p && break
done
[ -n "${python:-}" ] || skip "no python3 with h5py and matplotlib"
write_grid tiny 20
sed 's/"seed":\[1,2,3\]/"seed":[1,2],"train.lr":[0.02,0.01]/' tiny.json >swept.json
expect 0 -- "$s" run swept.json --out swept.h5 --quiet --set run.save_weights=true
expect 0 -- "$s" analyze swept.json --weights swept.h5 --cell 0 --out alone.h5

figure() { # SCRIPT FILE PICTURE
  rm -rf figures
  expect 0 -- "$python" -W error::RuntimeWarning "$SQ_SOURCE/analysis/$1" "$2" --out figures
  [ -s "figures/$3" ] || fail "$1 $2 has not made $3"
  [ -s err.txt ] && fail "$1 $2 complains: $(head -3 err.txt)"
}
figure plot_spectra.py swept.h5 spectra.png
figure plot_training.py swept.h5 training.png
"$python" - "$SQ_SOURCE/analysis" <<'END' || fail "the training's styles"
import sys
sys.path.insert(0, sys.argv[1])
import plot_training
styles = plot_training.styles_of({"a": {"x": [], "z": []}, "b": {"y": [], "z": []}})
assert len(set(styles.values())) == 3 and sorted(styles) == ["x", "y", "z"], styles
for steps, low in (([20], 0), ([1], 0), ([100, 200, 900], None)):
    ax = plot_training.plt.subplots()[1]
    ax.plot(steps, [1.0] * len(steps), marker="o")
    plot_training.step_axis(ax, {"x": [(plot_training.np.array(steps), None, None)]})
    ticks = ax.get_xticks()
    assert all(float(t).is_integer() for t in ticks), (steps, ticks)
    assert low is None or ax.get_xlim()[0] == low, ax.get_xlim()
END
figure plot_spectra.py alone.h5 spectra.png
expect 1 -- "$python" "$SQ_SOURCE/analysis/plot_training.py" alone.h5
grep -q 'no evaluation yet' err.txt || fail "plot_training of a file without evaluations: $(cat err.txt)"
expect 1 -- "$python" "$SQ_SOURCE/analysis/plot_spectra.py" swept.json
grep -q '^error: swept.json: not a readable results file' err.txt || fail "plot_spectra of JSON: $(cat err.txt)"

# The complex plane of time-invariant layers, where there are some: every channel, state and seed, at both ends of the training.
[ -e figures/eigenvalues.png ] && fail "eigenvalues.png without a time-invariant layer"
ssm='"num_layers":2,"hidden_dim":16,"state_dim":8,"input_dim":64,"output_dim":64,"pooling":"none","dropout":0.0'
sed "s/\"model\":{.*}}/\"model\":{\"layer\":\"lru\",$ssm}}/" softmax.json >lru.json
cat >lti.json <<END
{"name":"lti","base":["softmax.json","lru.json"],"sweep":{"seed":[1,2]},
 "analysis":{"batch_size":4,"snapshots":1,"hankel_samples":2,"memory_samples":2}}
END
expect 0 -- "$s" run lti.json --out lti.h5 --quiet
figure plot_spectra.py lti.h5 spectra.png
[ -s figures/eigenvalues.png ] || fail "no eigenvalues.png for a time-invariant layer"
"$python" - "$SQ_SOURCE/analysis" <<'END' || fail "the complex plane"
import sys
sys.path.insert(0, sys.argv[1])
import h5py
import numpy as np
import plot_spectra
with h5py.File("lti.h5") as f:
    planes = plot_spectra.planes_of(f, "dsf")
    assert [p.name for p in planes] == ["lru"], [p.name for p in planes]
    lam = f["spectra/mqar/lru/dsf/lambda"]
    assert len(planes[0].layers) == 2
    for k, (init, trained) in enumerate(planes[0].layers):
        for points, stage in ((init, 0), (trained, -1)):
            assert np.array_equal(points, np.ravel(lam[:, stage][:, k])), (k, stage)
            assert len(points) == 16 and np.all(np.abs(points) < 1), points
    assert not np.array_equal(*planes[0].layers[0]), "training has not moved them"
    assert plot_spectra.limits_of(planes) == 1.08
    # marks: of the stage and layer in any seed, for the bars and, together, for the plane
    block = next(b for b in plot_spectra.tasks_of(f, "dsf")["mqar"] if b.name == "lru")
    assert block.null is None, "uniform attention beside a time-invariant layer"
    assert len(block.marked) == len(block.bars) == 4
    marked = f["spectra/mqar/lru/dsf/percent_radius_marked"]
    some = marked[:]
    some[:] = 0
    some[1, -1, 1, 0, 3] = 1
    group = {plot_spectra.MARKED: some}
    for stage in (0, -1):
        for layer in (0, 1):
            got = plot_spectra.marks_of(group, [0, 1], stage, layer)
            assert list(got) == [stage == -1 and layer == 1 and b == 3 for b in range(7)], (stage, layer, got)
    assert not plot_spectra.marks_of({}, [0, 1], 0, 0).any(), "marks of a layer that changes with time"
    hatched = plot_spectra.plt.subplots()[1]
    plot_spectra.draw_bar(hatched, 0, [10, 20, 30, 40, 0, 0, 0], np.arange(7) == 3, False)
    assert [p.get_width() for p in hatched.patches if p.get_hatch()] == [40], "hatched parts"
    assert [t.get_text() for t in hatched.texts] == ["10", "20", "30", "40*"], hatched.texts
END

"$python" - "$SQ_SOURCE/analysis" <<'END' || fail "the bars"
import sys
sys.path.insert(0, sys.argv[1])
import h5py
import numpy as np
import plot_spectra
with h5py.File("swept.h5") as f:
    blocks = plot_spectra.tasks_of(f, "dsf")["mqar"]
    names = [b.name for b in blocks]
    assert names == ["softmax, lr = 0.02", "softmax, lr = 0.01", "linear, lr = 0.02", "linear, lr = 0.01"], names
    assert len(plot_spectra.nulls_of(blocks)) == 1, "null models"
    cells, share = f["spectra/mqar/softmax/dsf/cell"][:], f["spectra/mqar/softmax/dsf/percent_radius_mean"]
    for b, lr in zip(blocks, ("0.02", "0.01")):
        rows = [r for r, c in enumerate(cells) if lr in plot_spectra.text(f["cells/swept"][c])]
        assert len(rows) == 2, rows
        want = np.mean([share[r, -1, 1] for r in rows], axis=(0, 1))
        label, got = b.bars[-1]
        assert label == "layer 1   trained" and np.allclose(got, want, atol=1e-9), (label, got, want)
        assert abs(got.sum() - 100) < 1e-6, got.sum()
    assert not np.allclose(blocks[0].bars[-1][1], blocks[1].bars[-1][1], atol=1e-6), "learning rates are averaged"
with h5py.File("alone.h5") as f:
    blocks = plot_spectra.tasks_of(f, "dsf")["mqar"]
    assert [label for label, _ in blocks[0].bars] == ["layer 0   trained", "layer 1   trained"], blocks[0].bars
END
finish
