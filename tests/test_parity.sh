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

def store(name, m, p, before=(), scalar=False, lengths=False, rates=train):
    lm = m.get("pooling") == "none"
    with h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as f:
        task = dict(kind="lm" if lm else "cls", T=T, batch=B, pad=lengths)
        if not lm:
            task["input"] = "scalar" if scalar else "tokens"
        f.attrs["config"] = np.bytes_(json.dumps(dict(model=m, train=rates, task=task)))
        f["inputs"] = rng.normal(size=(B, T, 1)) if scalar else rng.integers(0, V, (B, T))
        labels = rng.integers(0, C, (B, T))
        labels[:, ::3] = -100
        f["labels"] = labels if lm else rng.integers(0, C, B)
        if lengths:
            f["lengths"] = np.array([T, T - 5, T - 2])
            f["lengths"].attrs["used_by_model"] = 1
        for k, v in p.items():
            f["params/" + k] = v
        for k, v in before:
            f["batch_stats_before/" + k] = v

def mamba(name, lti, conv, prenorm, scalar, pooling):
    H, E = 2, D
    m = dict(layer="mamba", version="mamba2", num_layers=2, num_heads=H, input_dim=1, output_dim=C, hidden_dim=D, state_dim=S,
             conv_dim=conv, expansion=1, dropout=0.0, glu=True, norm="layer", dual=False, prenorm=prenorm, pooling=pooling,
             embedding=True, token_embedding=not scalar, vocab_size=V, pseudoLTI=lti, seq_len=T)
    p = {}
    if scalar:
        linear(p, "encoder", 1, D)
    else:
        p["encoder.word_embeddings.weight"] = rng.normal(size=(V, D))
    for i in range(2):
        a = f"blocks.{i}.mamba."
        p[a + "dt_bias"] = rng.uniform(-3, 0, H)
        p[a + ("A" if lti else "A_log")] = rng.uniform(-3, 1, H)
        p[a + "D"] = rng.normal(size=H)
        linear(p, a + "in_proj", D, E + 2 * S + (1 if lti else H), False)
        linear(p, a + "out_proj", E, D, False)
        if conv:
            p[a + "conv1d.weight"] = rng.uniform(-0.5, 0.5, (E + 2 * S, 1, conv))
            p[a + "conv1d.bias"] = rng.uniform(-0.5, 0.5, E + 2 * S)
        linear(p, f"blocks.{i}.glu.linear", D, 2 * D)
        p[f"blocks.{i}.norm.weight"], p[f"blocks.{i}.norm.bias"] = 1 + 0.1 * rng.normal(size=D), 0.1 * rng.normal(size=D)
    linear(p, "decoder", D, C)
    store(name, m, p, scalar=scalar)

def flax_dense(p, name, i, o):
    p[name + ".kernel"], p[name + ".bias"] = rng.normal(size=(i, o)) / np.sqrt(i), 0.1 * rng.normal(size=o)

def lru(p, a):
    p[a + "nu_log"], p[a + "theta_log"] = rng.uniform(-4, 0, S), rng.uniform(-3, 1, S)
    p[a + "gamma_log"], p[a + "D"] = rng.uniform(-1, 0, S), rng.normal(size=D)
    for k, shape in (("B_re", (S, D)), ("B_im", (S, D)), ("C_re", (D, S)), ("C_im", (D, S))):
        p[a + k] = rng.normal(size=shape) / 2

def s5(p, a):
    P = S // 2
    p[a + "Lambda_re"], p[a + "Lambda_im"] = -rng.uniform(0.1, 1, P), -rng.uniform(0, 20, P)
    p[a + "B"], p[a + "C"] = rng.normal(size=(P, D, 2)) / 2, rng.normal(size=(D, P, 2)) / 2
    p[a + "D"], p[a + "log_step"] = rng.normal(size=D), rng.uniform(-5, -2, (P, 1))

def s4(p, a):
    p[a + "Lambda_re"], p[a + "Lambda_im"] = -rng.uniform(0.1, 1, (S, D)), rng.uniform(-20, 20, (S, D))
    for k in ("P", "B", "C"):
        p[a + k] = rng.normal(size=(S, D, 2))
    p[a + "D"], p[a + "log_step"] = rng.normal(size=(1, D)), rng.uniform(-5, -2, (1, D))

def ssm(name, layer, make, norm, prenorm, pooling, lengths=False, scalar=False, **more):
    m = dict(layer=layer, num_layers=2, activation="full_glu", input_dim=1 if scalar else V, output_dim=C, hidden_dim=D, state_dim=S,
             dropout=0.2, norm=norm, pooling=pooling, prenorm=prenorm, dual=False, seq_len=T,
             ssm_lr_vars=["Lambda_re", "Lambda_im", "P", "B", "log_step"], **more)
    p, before = {}, []
    flax_dense(p, "encoder.encoder", 1 if scalar else V, D)
    for i in range(2):
        a = f"encoder.layers_{i}."
        make(p, a + "seq.")
        flax_dense(p, a + "out1", D, D)
        flax_dense(p, a + "out2", D, D)
        p[a + "normalize.scale"], p[a + "normalize.bias"] = 1 + 0.1 * rng.normal(size=D), 0.1 * rng.normal(size=D)
        if norm == "batch":
            before += [(f"encoder.layers_{i}.normalize.mean", rng.normal(size=D)),
                       (f"encoder.layers_{i}.normalize.var", rng.uniform(0.5, 2, D))]
    flax_dense(p, "decoder", D, C)
    store(name, m, p, before, scalar, lengths, dict(train, ssm_lr=0.001, padded=lengths))

mamba("mamba2", lti=False, conv=3, prenorm=True, scalar=False, pooling="none")
mamba("pseudo", lti=True, conv=0, prenorm=False, scalar=True, pooling="mean")
ssm("lru", "lru", lru, "layer", True, "mean", lengths=True)
ssm("s5", "s5", s5, "batch", False, "none", num_blocks=1, conj_sym=True)
ssm("s4", "s4", s4, "batch", True, "mean", lengths=True)
ssm("numbers", "lru", lru, "batch", True, "mean", scalar=True)
write("softmax", attention_fn="sm-attention", dim_conv=3)
write("linear", attention_fn="lin-attention", use_gate=True, mixer="glu")
write("norm", attention_fn="norm-attention", max_pos_embed=0, classifier=False, mixer="none", dim_conv=2, **norm)
EOF

least() { # quantities that a dump of this case has
  case $1 in
  softmax | linear | norm | mamba2 | pseudo) echo 13 ;;
  lru) echo 13 ;;
  s5) echo 16 ;;
  s4) echo 16 ;;
  numbers) echo 15 ;;
  esac
}
for case in softmax linear norm mamba2 pseudo lru s5 s4 numbers; do
  expect 3 'no data set to compare' "$SQ_BIN/seqspectra-f64" parity "$dir/$case.h5"
  expect 0 'not in the case' "$SQ_BIN/seqspectra-f64" parity "$dir/$case.h5" --dump "$dir/$case-full.h5"
  # Its own numbers: no error at all.  The other precision: within its tolerances.
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra-f64" parity "$dir/$case-full.h5"
  compared=$(grep -cE ' (ok|BAD) ' "$dir/out")
  grep -q "  compared $compared of 18 quantities" "$dir/out" || { echo "FAILED: $case: not \"compared $compared of 18\""; failed=1; }
  if grep -q 'BAD' "$dir/out" || [ "$(grep -c '0.00e+00   0.00e+00' "$dir/out")" -ne "$compared" ] || [ "$compared" -lt "$(least $case)" ]; then
    echo "FAILED: $case: a dump differs from what made it, or lacks something"
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
def copy(name, change, of="softmax"):
    shutil.copy(f"{d}/{of}-full.h5", f"{d}/{name}.h5")
    with h5py.File(f"{d}/{name}.h5", "r+") as f:
        change(f)
def nudge(path, by):
    def change(f):
        x = f[path][()]
        f[path][...] = x + by * (np.arange(np.size(x)).reshape(np.shape(x)) == np.size(x) - 1)
    return change
with h5py.File(f"{d}/other.h5", "w") as f:  # HDF5, but no case
    f["numbers"] = np.arange(3.0)
copy("unconfigured", lambda f: f.attrs.__delitem__("config"))
for i, path in enumerate(["logits", "loss", "grads/norm.bias", "acts/layer1/mixer_out", "eig_dsf_log/layer1", "eig_dsf/layer0",
                          "percent_dsf_radius", "params_after_adamw_step/norm.weight", "grad_norm_before_clip",
                          "losses_3steps"]):
    copy(f"bad{i}", nudge(path, 1e-3))
for i, (of, path) in enumerate([("s4", "logits_eval"), ("s4", "s4_kernel/layer1"), ("s4", "batch_stats_after/encoder.layers_0.normalize.mean"),
                                ("s4", "eig_dsf/layer1_im"), ("s4", "eig_published/layer0_re"),
                                ("s4", "params_after_optax_step_literal/encoder.layers_0.seq.P"),
                                ("s4", "params_after_optax_step_conj/encoder.layers_0.seq.B"),
                                ("s5", "loss_mean_over_valid"), ("lru", "percent_dsf_phase"), ("lru", "eig_dsf/layer0_re"),
                                ("mamba2", "eig_dsf_log/layer0"), ("pseudo", "grads/blocks.0.mamba.A")]):
    copy(f"worse{i}", nudge(path, 1e-3 if "percent" not in path else 30), of)
def reverse(f):
    for part in ("re", "im"):
        x = f[f"eig_dsf/layer0_{part}"][()]
        f[f"eig_dsf/layer0_{part}"][...] = x[..., ::-1]
copy("s4order", reverse, "s4")
copy("lruorder", reverse, "lru")
def lengths(f): f["lengths"][1] = 0
copy("lengths", lengths, "lru")
def unpadded(f): del f["lengths"]
copy("unpadded", unpadded, "lru")
def statistics(f): del f["batch_stats_before"]
copy("statistics", statistics, "s4")
def task(key, value):
    def change(f):
        c = json.loads(f.attrs["config"])
        c["task"][key] = value
        f.attrs["config"] = np.bytes_(json.dumps(c))
    return change
for key, value in (("T", 11), ("batch", 4), ("kind", "lm"), ("input", "scalar"), ("pad", True)):
    copy("task-" + key, task(key, value), "pseudo" if key != "input" else "s4")
copy("task-word", task("kind", "regression"), "s4")
def nan(f): f["logits"][0, 0] = np.nan
copy("nan", nan)
for name in ("logits", "loss", "grads"):
    def without(f):
        del f[name]
    copy("without-" + name, without)
def optional(f): del f["losses_3steps"]
copy("optional", optional)
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
    c["model"]["layer"] = "rnn"
    f.attrs["config"] = np.bytes_(json.dumps(c))
copy("family", family)
EOF
for i in 0 1 2 3 4 5 6 7 8 9; do expect 1 'BAD' "$SQ_BIN/seqspectra-f64" parity "$dir/bad$i.h5"; done
for i in 0 1 2 3 4 5 6 7 8 9 10 11; do expect 1 'BAD' "$SQ_BIN/seqspectra-f64" parity "$dir/worse$i.h5"; done
# S4's eigenvalues are sets; LRU's are in the order of its parameters.
expect 0 'eig_dsf ' "$SQ_BIN/seqspectra-f64" parity "$dir/s4order.h5"
expect 1 'BAD  /eig_dsf/layer0' "$SQ_BIN/seqspectra-f64" parity "$dir/lruorder.h5"
expect 3 '/lengths: 0, expected 1..12' "$SQ_BIN/seqspectra-f64" parity "$dir/lengths.h5"
expect 3 'no /lengths; task.pad' "$SQ_BIN/seqspectra-f64" parity "$dir/unpadded.h5"
expect 3 'batch_stats_before' "$SQ_BIN/seqspectra-f64" parity "$dir/statistics.h5"
expect 3 '12 steps; task.T of the configuration is 11' "$SQ_BIN/seqspectra-f64" parity "$dir/task-T.h5"
expect 3 '3 sequences; task.batch of the configuration is 4' "$SQ_BIN/seqspectra-f64" parity "$dir/task-batch.h5"
expect 3 'task.kind of the configuration is "lm"' "$SQ_BIN/seqspectra-f64" parity "$dir/task-kind.h5"
expect 3 '/inputs: expected' "$SQ_BIN/seqspectra-f64" parity "$dir/task-input.h5"
expect 3 'no /lengths; task.pad' "$SQ_BIN/seqspectra-f64" parity "$dir/task-pad.h5"
expect 3 'task.kind: expected "cls" or "lm"' "$SQ_BIN/seqspectra-f64" parity "$dir/task-word.h5"
expect 1 'BAD  /logits' "$SQ_BIN/seqspectra-f64" parity "$dir/nan.h5"
for name in logits loss grads; do expect 1 "MISSING: $name:" "$SQ_BIN/seqspectra-f64" parity "$dir/without-$name.h5"; done
full=$("$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" | sed -n 's/^  compared \([0-9]*\) of .*/\1/p')
expect 0 "compared $((full - 1)) of 18" "$SQ_BIN/seqspectra-f64" parity "$dir/optional.h5"
expect 3 'norm.weight: shape (9), expected (8)' "$SQ_BIN/seqspectra-f64" parity "$dir/shape.h5"
expect 3 'no such parameter' "$SQ_BIN/seqspectra-f64" parity "$dir/extra.h5"
expect 3 'token 99, expected 0..10' "$SQ_BIN/seqspectra-f64" parity "$dir/token.h5"
expect 2 'does not have that family' "$SQ_BIN/seqspectra-f64" parity "$dir/family.h5"
expect 3 'nowhere.h5' "$SQ_BIN/seqspectra-f64" parity "$dir/nowhere.h5"

# Several files: others are left out, and every case has a line of the summary.
expect 3 'no parity case' "$SQ_BIN/seqspectra-f64" parity "$dir/other.h5"
expect 0 'other.h5: no parity case, skipped' "$SQ_BIN/seqspectra-f64" parity "$dir/other.h5" "$dir/softmax-full.h5"
expect 0 '^softmax-full.h5  *sm-attention .* ok$' "$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" "$dir/other.h5" "$dir/s4order.h5"
expect 1 '^bad0.h5  *sm-attention .* BAD$' "$SQ_BIN/seqspectra-f64" parity "$dir/bad0.h5" "$dir/softmax-full.h5"
expect 3 "no attribute 'config'" "$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" "$dir/unconfigured.h5"
expect 3 '1 of 3 files missing or damaged' "$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" "$dir/unconfigured.h5" "$dir/s4order.h5"
expect 3 '^s4order.h5  *s4 .* ok$' "$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" "$dir/unconfigured.h5" "$dir/s4order.h5"

# Nothing that is there is replaced, least of all the case itself.
expect 2 'softmax-full.h5 exists; choose another --dump' "$SQ_BIN/seqspectra-f64" parity "$dir/softmax-full.h5" --dump "$dir/softmax-full.h5"

# An independent implementation's numbers.
cases=0
for case in "$SQ_SOURCE"/../shared/parity/*.h5; do
  case $case in */schedules.h5 | */inits.h5 | */\*.h5) continue ;; esac
  cases=$((cases + 1))
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra-f64" parity "$case"
  expect 0 'losses of 3 steps' "$SQ_BIN/seqspectra" parity "$case"
done
echo "$cases reference cases"
[ $failed -eq 0 ] && echo passed
exit $failed
