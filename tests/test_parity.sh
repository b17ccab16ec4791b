#!/bin/sh
# The parity command: dumps, comparisons in both precisions, refusals, and the reference cases where they are at hand.
set -u
for python in /usr/bin/python3 python3; do
  "$python" -c 'import h5py, numpy' 2>/dev/null && break
  python=
done
[ -n "$python" ] || { echo "skipped: no python3 with h5py and numpy"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
expect() { # status text command...
  want=$1 text=$2
  shift 2
  "$@" >"$dir/out" 2>&1
  got=$?
  if [ $got -ne "$want" ] || ! grep -q -- "$text" "$dir/out"; then
    echo "FAILED: $* : status $got, expected $want and the text '$text'"
    cat "$dir/out"
    failed=1
  fi
}

# Cases with random parameters and nothing to compare; the program makes the numbers.
"$python" - "$dir" <<'EOF' || exit 1
import json, sys
import h5py, numpy as np
rng = np.random.default_rng(7)
D, M, V, C, T, B, S = 8, 6, 11, 5, 12, 3, 4
base = dict(layer="transformer", input_dim=1, output_dim=C, num_layers=2, hidden_dim=D, state_dim=S, num_heads=2, att_dropout=0.0,
            norm="layer", embedding=True, vocab_size=V, max_pos_embed=T, mixer="mlp", mixer_dim=M, dropout=0.0, classifier=True,
            pooling="mean", dual=False, use_flash=False, dim_conv=0, conv_type="full", use_gate=False, seq_len=T)
norm = dict(mode="attention", norm_fn="softplus", approx_fn="elu", scale_B=True, offset=True, offset_init="exp", learn_A=False)
train = dict(lr=0.002, wd=0.1, betas=[0.9, 0.999], grad_clip=1.0, eps=1e-8)

def linear(p, name, i, o, bias=True):
    p[name + ".weight"] = rng.uniform(-1, 1, (o, i)) / np.sqrt(i)
    if bias:
        p[name + ".bias"] = rng.uniform(-1, 1, o) / np.sqrt(i)

def write(name, **change):
    m = dict(base, **change)
    p = {"encoder.word_embeddings.weight": rng.normal(size=(V, D))}
    if m["max_pos_embed"]:
        p["encoder.position_embeddings.weight"] = rng.normal(size=(T, D))
    isnorm = m["attention_fn"] == "norm-attention"
    for i in range(2):
        a = f"layers.{i}.attention."
        linear(p, a + ("Wvqkn" if isnorm else "Wqkv"), D, D + 2 * S + (2 if isnorm else 0))
        linear(p, a + "out_proj", D, D)
        if m["dim_conv"]:
            p[a + "conv1d.weight"] = rng.uniform(-0.5, 0.5, (D + 2 * S, 1, m["dim_conv"]))
            p[a + "conv1d.bias"] = rng.uniform(-0.5, 0.5, D + 2 * S)
        if isnorm:
            p[a + "inner_attn.offset"] = np.array([1.0, 2.0])
        if m["use_gate"]:
            linear(p, f"layers.{i}.Wz", D, D)
        if m["mixer"] == "mlp":
            linear(p, f"layers.{i}.mixer.encoder", D, M)
            linear(p, f"layers.{i}.mixer.decoder", M, D)
        if m["mixer"] == "glu":
            linear(p, f"layers.{i}.mixer.linear", D, 2 * D)
        p[f"layers.{i}.norm.weight"] = 1 + 0.1 * rng.normal(size=D)
        p[f"layers.{i}.norm.bias"] = 0.1 * rng.normal(size=D)
    p["norm.weight"], p["norm.bias"] = 1 + 0.1 * rng.normal(size=D), 0.1 * rng.normal(size=D)
    if m["classifier"]:
        linear(p, "classifier.encoder", D, M)
        linear(p, "classifier.decoder", M, C)
    else:
        linear(p, "decoder", D, C, False)
    with h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as f:
        f.attrs["config"] = np.bytes_(json.dumps(dict(model=m, train=train, task=dict(kind="cls" if m["classifier"] else "lm"))))
        f["inputs"] = rng.integers(0, V, (B, T))
        labels = rng.integers(0, C, (B, T))
        labels[:, ::3] = -100
        f["labels"] = rng.integers(0, C, B) if m["classifier"] else labels
        for k, v in p.items():
            f["params/" + k] = v

write("softmax", attention_fn="sm-attention", dim_conv=3)
write("linear", attention_fn="lin-attention", use_gate=True, mixer="glu")
write("norm", attention_fn="norm-attention", max_pos_embed=0, classifier=False, mixer="none", dim_conv=2, **norm)
EOF

for case in softmax linear norm; do
  expect 3 'no data set to compare' "$SQ_BIN/seqspectra-f64" parity "$dir/$case.h5"
  expect 0 'not in the case' "$SQ_BIN/seqspectra-f64" parity "$dir/$case.h5" --dump "$dir/$case-full.h5"
  # Its own numbers: no error at all.  The other precision: within its tolerances.
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra-f64" parity "$dir/$case-full.h5"
  if grep -q 'BAD' "$dir/out" || [ "$(grep -c '0.00e+00   0.00e+00' "$dir/out")" -ne 13 ]; then
    echo "FAILED: $case: a dump differs from what made it"
    cat "$dir/out"
    failed=1
  fi
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra" parity "$dir/$case-full.h5"
done

# A wrong number anywhere is found; damaged or foreign cases are refused.
"$python" - "$dir" <<'EOF' || exit 1
import json, shutil, sys
import h5py, numpy as np
d = sys.argv[1]
def copy(name, change):
    shutil.copy(f"{d}/softmax-full.h5", f"{d}/{name}.h5")
    with h5py.File(f"{d}/{name}.h5", "r+") as f:
        change(f)
def nudge(path, by):
    def change(f):
        x = f[path][()]
        f[path][...] = x + by * (np.arange(np.size(x)).reshape(np.shape(x)) == np.size(x) - 1)
    return change
for i, path in enumerate(["logits", "loss", "grads/norm.bias", "acts/layer1/mixer_out", "eig_dsf_log/layer1", "eig_dsf/layer0",
                          "percent_dsf_radius", "params_after_adamw_step/norm.weight", "grad_norm_before_clip",
                          "losses_3steps"]):
    copy(f"bad{i}", nudge(path, 1e-3))
def nan(f): f["logits"][0, 0] = np.nan
copy("nan", nan)
def shape(f):
    del f["params/norm.weight"]
    f["params/norm.weight"] = np.ones(9)
copy("shape", shape)
def extra(f): f["params/other"] = np.ones(3)
copy("extra", extra)
def token(f): f["inputs"][0, 0] = 99
copy("token", token)
def family(f):
    c = json.loads(f.attrs["config"])
    c["model"]["layer"] = "mamba"
    f.attrs["config"] = np.bytes_(json.dumps(c))
copy("family", family)
EOF
for i in 0 1 2 3 4 5 6 7 8 9; do expect 1 'BAD' "$SQ_BIN/seqspectra-f64" parity "$dir/bad$i.h5"; done
expect 1 'BAD  /logits' "$SQ_BIN/seqspectra-f64" parity "$dir/nan.h5"
expect 3 'norm.weight: shape (9), expected (8)' "$SQ_BIN/seqspectra-f64" parity "$dir/shape.h5"
expect 3 'no such parameter' "$SQ_BIN/seqspectra-f64" parity "$dir/extra.h5"
expect 3 'token 99, expected 0..10' "$SQ_BIN/seqspectra-f64" parity "$dir/token.h5"
expect 2 'does not have that family' "$SQ_BIN/seqspectra-f64" parity "$dir/family.h5"
expect 3 'nowhere.h5' "$SQ_BIN/seqspectra-f64" parity "$dir/nowhere.h5"

# An independent implementation's numbers.
cases=0
for case in "$SQ_SOURCE"/../shared/parity/lin_*.h5 "$SQ_SOURCE"/../shared/parity/sm_*.h5 "$SQ_SOURCE"/../shared/parity/norm_*.h5; do
  [ -f "$case" ] || continue
  cases=$((cases + 1))
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra-f64" parity "$case"
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra" parity "$case"
done
echo "$cases reference cases"
[ $failed -eq 0 ] && echo passed
exit $failed
