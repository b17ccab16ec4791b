#!/usr/bin/env python3
"""Every grid that is not mini-* has a batch script; its header asks for what `plan` says, and says what it costs.

Finds the program in $SQ_BIN, the sources in $SQ_SOURCE."""

import glob
import json
import os
import re
import subprocess
import sys

SOURCE = os.environ.get("SQ_SOURCE") or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(os.environ.get("SQ_BIN") or os.path.join(SOURCE, "build"), os.environ.get("SQ_PROGRAM", "seqspectra"))
RATE = 20  # GFLOP/s of a core in the cost lines
CORES, NODE_GB = 48, 192  # the node of jobs/README.md
NEEDED = ["--signal=B:USR1@120", "--requeue", "--open-mode=append", "--output=", "--time=", "--job-name="]
NUMBER = r"\d[\d,.]*(?:e[+-]\d+)?"
bad = []


def size(b):
    return f"{b / 1e9:.1f} GB" if b >= 1e9 else f"{b / 1e6:.0f} MB"


def cost_line(d):
    h = d["one_rank_s"] / 3600
    return (f"# Cost: {d['cells']} cells, {d['flops']:.2e} FLOP, {size(d['memory_bytes_rank'])} a rank, results {size(d['file_bytes'])}; "
            f"{h:,.{0 if h >= 10 else 1}f} core-hours at {RATE} GFLOP/s a core; up to {d['useful_ranks']} ranks")


def plan(config, *options):
    p = subprocess.run([PROGRAM, "plan", config, "--rate", str(RATE), "--json", *options], capture_output=True, text=True, cwd=SOURCE, timeout=60)
    if p.returncode != 0:
        raise SystemExit(f"plan {config}: {p.stderr}")
    return json.loads(p.stdout)


def number(text, pattern):
    m = re.search(pattern, text, re.M)
    return m and m.group(1)


def same_cost(have, want):
    """Counts and FLOP as they are; bytes within 5 %: a few buffers more in the next version do not make the page wrong."""
    a, b = ([float(x.replace(",", "")) for x in re.findall(NUMBER, line)] for line in (have, want))
    if len(a) != len(b) or re.sub(NUMBER, "", have) != re.sub(NUMBER, "", want):
        return False
    return a[:2] == b[:2] and a[4:] == b[4:] and all(abs(x - y) <= max(0.05 * y, 1) for x, y in zip(a[2:4], b[2:4]))


def check_node(name, text, want):
    """The script asks for the nodes that plan says, at least for its memory, and not for more than such a node has."""
    asked, needed = re.search(r"^#SBATCH --mem-per-cpu=(\d+)([GM])$", text, re.M), re.search(r" --mem-per-cpu=(\d+)M ", want["sbatch"])
    mib = int(asked[1]) * (1024 if asked[2] == "G" else 1) if asked else 0
    if not needed or mib < int(needed[1]) or mib * 2**20 * want["ranks_node"] > NODE_GB * 1e9:
        bad.append(f"jobs/{name}.sbatch: {mib} MiB for each of {want['ranks_node']} ranks of a node of {NODE_GB} GB, plan: {want['sbatch']}")
    nodes = number(text, r"^#SBATCH --nodes=(\d+)$")
    if nodes != str(want["nodes"]):
        bad.append(f"jobs/{name}.sbatch: --nodes={nodes}, plan says {want['nodes']} of {CORES} cores and {NODE_GB} GB")


def check(name, config):
    path = os.path.join(SOURCE, "jobs", name + ".sbatch")
    want = plan(config)
    line = cost_line(want)
    if not os.path.exists(path):
        bad.append(f"jobs/{name}.sbatch is missing: copy another, with\n{line}")
        return
    text = open(path).read()
    have = number(text, r"^(# Cost: .*)$") or ""
    if not same_cost(have, line):
        bad.append(f"jobs/{name}.sbatch: its cost line should be\n{line}")
    ranks = number(text, r"^#SBATCH --ntasks=(\d+)$")
    if not ranks or int(ranks) > want["useful_ranks"]:
        bad.append(f"jobs/{name}.sbatch: --ntasks={ranks}, {want['useful_ranks']} ranks are of use")
    check_node(name, text, plan(config, "--ranks", ranks or "1", "--node", f"{CORES}:{NODE_GB}"))
    if f"exec \"$run\" {config} " not in text:
        bad.append(f"jobs/{name}.sbatch does not run {config}")


grids = [g for g in sorted(glob.glob(os.path.join(SOURCE, "configs/grids/*.json"))) if not os.path.basename(g).startswith("mini-")]
assert grids
for g in grids:
    check(os.path.basename(g)[:-5], os.path.relpath(g, SOURCE))
check("quickstart", "configs/quickstart.json")
for path in sorted(glob.glob(os.path.join(SOURCE, "jobs/*.sbatch"))):
    name, text = os.path.basename(path), open(path).read()
    head = re.findall(r"^#SBATCH (.*)$", text, re.M)
    for option in NEEDED:
        if not any(h.startswith(option) for h in head):
            bad.append(f"jobs/{name} lacks #SBATCH {option}")
    if "run=${SEQSPECTRA_HOME:-.}/jobs/slurm-run.sh\n[ -x \"$run\" ] || " not in text:
        bad.append(f"jobs/{name} does not say where it has to be submitted from")
    if "export OPENBLAS_CORETYPE=" not in text:
        bad.append(f"jobs/{name} does not pin the BLAS kernels")
    if subprocess.run(["bash", "-n", path]).returncode != 0:
        bad.append(f"jobs/{name} is no shell script")
    for config in re.findall(r"configs/[\w/-]+\.json", text):
        if not os.path.exists(os.path.join(SOURCE, config)):
            bad.append(f"jobs/{name} names {config}, which is not there")
print("\n".join(bad) or f"{len(grids)} grids, passed")
sys.exit(1 if bad else 0)
