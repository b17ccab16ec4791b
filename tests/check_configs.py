#!/usr/bin/env python3
"""tests/check_configs.py PROGRAM SOURCE: what `plan` says of every file under configs/.

Parameters are counted again from the published shapes.  Where ../shared has the published list, each of its entries, turned
into JSON with the keys of the published launcher around it, is planned as it is and must give the same cells as our file.
"""
import glob, json, os, subprocess, sys, tempfile

program, source = sys.argv[1], sys.argv[2]
published = os.path.join(source, "..", "shared", "design", "published-hyperparameters.json")
failures = 0


def fail(text):
    global failures
    print("FAILED:", text)
    failures += 1


def plan(path):
    """The rows of `plan`, or None."""
    p = subprocess.run([program, "plan", path, "--rate", "10", "--json", "--ranks", "1"], capture_output=True, text=True)
    if p.returncode != 0:
        fail("plan %s: exit status %d: %s" % (path, p.returncode, p.stderr.strip().split("\n")[-1]))
        return None
    return json.loads(p.stdout)


# ---- parameters, from the shapes of the published models ----------------------------------------------------
def dense(i, o):
    return i * o + o


def transformer(m):
    D, q, H, K = m["hidden_dim"], m["state_dim"], m["num_heads"], m.get("dim_conv", 0)
    norm = m["attention_fn"] == "norm-attention"
    inputs = m["vocab_size"] * D if m["embedding"] else dense(m["input_dim"], D)
    inputs += m.get("max_pos_embed", 0) * D if m["embedding"] else 0
    conv = 2 * q + (D if m.get("conv_type", "full") == "full" else 0)
    layer = dense(D, 2 * q + D + (H if norm else 0)) + dense(D, D) + 2 * D
    layer += conv * (K + 1) if K else 0
    layer += H if norm and m.get("offset") else 0
    layer += dense(D, D) if m.get("use_gate") else 0
    layer += {"mlp": dense(D, m.get("mixer_dim", 0)) + dense(m.get("mixer_dim", 0), D), "glu": dense(D, 2 * D), "none": 0}[m["mixer"]]
    head = dense(D, m["mixer_dim"]) + dense(m["mixer_dim"], m["output_dim"]) if m["classifier"] else D * m["output_dim"]
    return inputs + m["num_layers"] * layer + 2 * D + head


def mamba(m):
    D, N, K = m["hidden_dim"], m["state_dim"], m["conv_dim"]
    E, H = m["expansion"] * D, m["expansion"] * m["num_heads"]
    inputs = m["vocab_size"] * D if m["token_embedding"] else dense(m["input_dim"], D)
    layer = D * (E + 2 * N + (1 if m.get("pseudoLTI") else H)) + 3 * H + E * D + 2 * D
    layer += (E + 2 * N) * (K + 1) if K else 0
    layer += dense(D, 2 * D) if m["glu"] else 0
    return inputs + m["num_layers"] * layer + dense(D, m["output_dim"])


def state_space(m):
    D, N = m["hidden_dim"], m["state_dim"]
    mixer = {"s4": 2 * N * D + 4 * N * D + 2 * N * D + 2 * D, "lru": 3 * N + 4 * N * D + D}[m["layer"]]
    gate = {"full_glu": 2, "half_glu1": 1, "half_glu2": 1, "gelu": 0}[m["activation"]] * dense(D, D)
    return dense(m["input_dim"], D) + m["num_layers"] * (mixer + gate + 2 * D) + dense(D, m["output_dim"])


def parameters(m):
    return {"transformer": transformer, "mamba": mamba}.get(m["layer"], state_space)(m)


# ---- every cell file ---------------------------------------------------------------------------------------
rows = {}
for task in ["cifar", "imdb", "listops", "mqar", "wikitext", "mini"]:
    for path in sorted(glob.glob(os.path.join(source, "configs", task, "*.json"))):
        p = plan(path)
        if p is None:
            continue
        r = rows[task, os.path.basename(path)[:-5]] = p["rows"][0]
        want = parameters(json.load(open(path))["model"])
        if p["cells"] != 1 or r["parameters"] != want:
            fail("%s: %d parameters, expected %d" % (path, r["parameters"], want))
cells = [k for k in rows if k[0] != "mini"]
if len(cells) != 39:
    fail("%d published cells, expected 39" % len(cells))
for task, name in cells:
    r = rows[task, name]
    print("%-9s %-34s %9d parameters %7d steps %10.4g FLOP" % (task, name, r["parameters"], r["steps"], r["flops_cell"]))

# ---- every grid --------------------------------------------------------------------------------------------
expected = {  # cells: models x values x seeds
    "main": 30 * 4, "normalisation": 4 * 4, "convolution": 6 * 4, "gating": 4 * 4, "depth": 3 * 4 * 4, "pseudo-lti": 2 * 4,
    "learning-rate": 6 * 4 * 4, "cifar-num-layers-sm-attention": 2, "mqar-num-layers-sm-attention": 8,
    "mqar-num-layers-mamba2": 8, "mqar-seeds-sm-attention": 4, "mini-main": 30}
grids = sorted(glob.glob(os.path.join(source, "configs", "grids", "*.json")))
names = [os.path.basename(g)[:-5] for g in grids]
for g, name in zip(grids, names):
    p = plan(g)
    if p is None:
        continue
    print("%-31s %4d cells %10.4g FLOP %8.1f MB a rank %9.1f MB of results" %
          (name, p["cells"], p["flops"], p["memory_bytes_rank"] / 1e6, p["file_bytes"] / 1e6))
    if p["cells"] != expected.get(name, p["cells"]) or sum(r["cells"] for r in p["rows"]) != p["cells"]:
        fail("%s: %d cells, expected %d" % (name, p["cells"], expected.get(name, -1)))
for name in expected:
    if name not in names:
        fail("no grid %s" % name)
for name in ["main", "normalisation", "convolution", "gating", "depth", "pseudo-lti", "learning-rate"]:
    if "mini-" + name not in names:
        fail("no small version of grid %s" % name)

# ---- the published list ------------------------------------------------------------------------------------
def through_yaml(entry):
    try:
        import yaml
    except ImportError:
        return entry
    return yaml.safe_load(yaml.safe_dump(entry))


if os.path.exists(published):
    entries = json.load(open(published))
    converted = 0
    with tempfile.TemporaryDirectory() as folder:
        def write(path, entry):
            path = os.path.join(folder, "configs", path + ".json")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            json.dump(through_yaml(entry), open(path, "w"))
            return path

        for task in ["cifar", "imdb", "listops", "mqar", "wikitext"]:
            for name, entry in entries[task].items():
                launcher = {"save": True, "GPU": 0, "wandb": {"project": "x", "entity": "y"}}
                p = plan(write(task + "/" + name, dict(entry, **launcher)))
                converted += p is not None
                for key in ["parameters", "steps", "flops_cell", "memory_bytes"]:
                    if p is not None and p["rows"][0][key] != rows[task, name][key]:
                        fail("%s: %s of the published entry is %g, of our file %g" % (name, key, p["rows"][0][key], rows[task, name][key]))
        for name, entry in entries["sweep"].items():
            p = plan(write("sweeps/" + name, entry))
            converted += p is not None
            values = [v for key in entry["sweep"].values() for v in (key.values() if isinstance(key, dict) else [key])]
            want = 1
            for v in values:
                want *= len(v)
            if p is not None and p["cells"] != want:
                fail("sweep %s: %d cells, expected %d" % (name, p["cells"], want))
    print("%d published entries are accepted as they are" % converted)
    if converted != 43:
        fail("expected 43")
    for name, size in entries["analysis"].items():
        text = subprocess.run([program, "help", "config", "analysis.batch_size"], capture_output=True, text=True).stdout
        own = [l.split()[2] for l in text.split("\n") if "analysis.batch_size" in l and "dataset._name_=" + name in l]
        default = [l.split()[2] for l in text.split("\n") if "analysis.batch_size" in l and "dataset._name_" not in l]
        if (own or default) != [str(size["batch_size"])]:
            fail("analysis.batch_size of %s: %s, published %d" % (name, own or default, size["batch_size"]))
else:
    print("skipped: no published list beside the sources")
print("%d failed" % failures if failures else "passed")
sys.exit(failures > 0)
