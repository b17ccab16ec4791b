#!/usr/bin/python3
"""transition.py PROGRAM [--ranks 1,2,4] [--orders 64,512,2048]

Eigenvalues of S4's transition matrices by `operator transition`: the secular solver on several numbers of ranks against LAPACK's
dense solver (zgeev, one rank), value by value.  Needs numpy, h5py, mpirun.

For two solvers without error beyond rounding, |difference| <= (backward errors) |A| / condition to first order, where the condition
is |y^* x|.  The table gives the largest difference, how many values differ by more than 1e-8, and the largest
difference in units of n eps / condition (|A| <= 1.5 here: the bilinear map of a dissipative matrix)."""
import os
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np


def argument(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def solve(program, config, method, ranks, order, width, out):
    command = ["mpirun", "-q", "-n", str(ranks), program, "operator", "transition", config, "--method", method, "--out", out,
               "--set", f"model.state_dim={order}", "--set", f"model.hidden_dim={width}"]
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    seconds = [line.split(None, 1)[1] for line in done.stdout.splitlines() if line.split()[:1] == ["seconds"]]
    with h5py.File(out) as f:
        group = f["operators/transition/mqar-s4/layer0"]
        values = group["lambda"][:]
        return {"lambda": values, "condition": group["condition"][:],
                "backward": group["backward_error"][:], "certified": group["certified"][:],
                "seconds": "; ".join(seconds), "wall": time.time() - start}


def pairs(a, b):
    """For each of a the index of its partner in b: one to one, closest pairs first."""
    distance = np.abs(a[:, None] - b[None, :])
    partner = np.full(len(a), -1)
    free = np.ones(len(b), bool)
    for flat in np.argsort(distance, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(b))
        if partner[i] < 0 and free[j]:
            partner[i], free[j] = j, False
    return partner


def main():
    program = sys.argv[1]
    config = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../configs/operators/s4-transition.json")
    ranks = [int(r) for r in argument("--ranks", "1,2,4").split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for order in [int(n) for n in argument("--orders", "64,512,2048").split(",")]:
            width = {64: 64, 512: 2}.get(order, 1)
            dense = solve(program, config, "dense", 1, order, width, f"{folder}/dense{order}.h5")
            print(f"N {order}, {width} channel(s): LAPACK backward error {np.nanmax(dense['backward']):.1e}; {dense['seconds']}")
            first = None
            for r in ranks:
                s = solve(program, config, "secular", r, order, width, f"{folder}/secular{order}-{r}.h5")
                worst, units, apart, count = 0.0, 0.0, 0, 0
                for channel in range(width):
                    a, b = dense["lambda"][channel], s["lambda"][channel]
                    difference = np.abs(a[pairs(b, a)] - b)
                    worst = max(worst, difference.max())
                    units = max(units, (difference * s["condition"][channel]).max() / (order * np.finfo(float).eps))
                    apart += int((difference > 1e-8).sum())
                    count += order
                first = s["lambda"] if first is None else first
                same = "same bits as on the first" if np.array_equal(first, s["lambda"]) else "OTHER BITS"
                print(f"  secular, {r} rank(s): certified {int(s['certified'].sum())} of {count}, backward error {s['backward'].max():.1e}, "
                      f"largest difference to LAPACK {worst:.1e}, {apart} of {count} beyond 1e-8, "
                      f"{units:.2f} n eps / condition; {same}; {s['seconds']}", flush=True)


main()
