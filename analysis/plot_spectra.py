#!/usr/bin/env python3
"""Share of eigenvalues by modulus, from a results file.

One panel a task; a stacked bar for each model and layer, at initialisation and after training, averaged over heads, sequences and
seeds.  Black ticks: where the boundaries of the bar would be for uniform attention at the same lengths (null model)."""

import argparse
import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from find_python import need

need("h5py", "numpy", "matplotlib")

import h5py  # noqa: E402
import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

BINS = ["[0, 0.1]", "(0.1, 0.5]", "(0.5, 0.9]", "(0.9, 1]", "(1, 10]", "(10, 100]", "(100, \u221e)"]
NULL = "null_uniform_percent_radius_mean"


def text(x):
    return x.decode() if isinstance(x, bytes) else str(x)


def group_bars(f, path, done):
    """[(label, stage, shares)] of one group, per recipe, and the null model's shares (or None)."""
    g = f[path]
    model = path.split("/")[-2]
    rows = np.array([c in done for c in g["cell"][:]])
    if not rows.any():
        return [], None
    recipe = np.array([text(f["cells/recipe"][c]) for c in g["cell"][:]])
    share = g["percent_radius_mean"]  # (row, stage, layer, head, bin)
    bars = []
    for kind in sorted(set(recipe[rows])):
        pick = np.flatnonzero(rows & (recipe == kind))
        for layer in range(share.shape[2]):
            for stage, name in ((0, "init"), (share.shape[1] - 1, "trained")):
                with np.errstate(all="ignore"):
                    v = np.nanmean(np.stack([share[r, stage, layer] for r in pick]), axis=(0, 1))
                tail = f", {kind}" if len(set(recipe[rows])) > 1 else ""
                bars.append((f"{model}{tail}, layer {layer}", name, v))
    null = None
    if NULL in g:
        null = np.nanmean(g[NULL][rows, -1], axis=0)
    return bars, null


def tasks_of(f, protocol):
    status = f["cells/status"][:]
    done = set(np.flatnonzero(status == 2))
    out = {}
    for task in f.get("spectra", {}):
        bars, null = [], None
        for model in f["spectra"][task]:
            path = f"spectra/{task}/{model}/{protocol}"
            if path not in f or "percent_radius_mean" not in f[path]:
                continue
            b, n = group_bars(f, path, done)
            bars += b
            null = n if null is None else null
        if bars:
            out[task] = (bars, null)
    return out


def draw_panel(ax, task, bars, null, colours):
    y, ticks, labels = 0.0, [], []
    for i, (label, stage, share) in enumerate(bars):
        left = 0.0
        for b, part in enumerate(share):
            if not np.isfinite(part):
                continue
            ax.barh(y, part, left=left, height=0.82, color=colours[b], edgecolor="white", linewidth=0.4)
            if part >= 9:
                red, green, blue, _ = colours[b]
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                ax.text(left + part / 2, y, f"{part:.0f}", zorder=5, ha="center", va="center", fontsize=7,
                        color="white" if dark else "black")
            left += part
        if null is not None:
            for edge in np.cumsum(null)[:-1]:
                if 0.5 < edge < 99.5:
                    ax.plot([edge, edge], [y - 0.47, y + 0.47], color="black", linewidth=1.2)
        ticks.append(y)
        labels.append(f"{label}   {stage}")
        y += 1.0 if stage == "init" else 1.6
    ax.set_yticks(ticks, labels, fontsize=8)
    ax.set_ylim(y - 0.9, -0.9)
    ax.set_xlim(0, 100)
    ax.set_xlabel("eigenvalues in percent")
    ax.set_title(task, loc="left", fontsize=11, fontweight="bold")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("results")
    p.add_argument("--out", default=".", help="folder (default: here)")
    p.add_argument("--protocol", default="dsf", choices=["dsf", "published"])
    p.add_argument("--format", default="png", choices=["png", "pdf", "svg"])
    a = p.parse_args()
    try:
        with h5py.File(a.results, "r") as f:
            tasks = tasks_of(f, a.protocol)
    except (OSError, KeyError) as e:
        sys.exit(f"error: {a.results}: not a readable results file ({e})")
    if not tasks:
        sys.exit(f"error: {a.results}: no finished cell has spectra of protocol {a.protocol}")
    colours = matplotlib.colormaps["viridis"](np.linspace(0.02, 1, len(BINS)))
    heights = [0.24 * 1.3 * len(bars) + 0.9 for bars, _ in tasks.values()]
    fig, axes = plt.subplots(len(tasks), 1, figsize=(9.5, sum(heights) + 1.0), squeeze=False, gridspec_kw={"height_ratios": heights})
    for ax, (task, (bars, null)) in zip(axes[:, 0], tasks.items()):
        draw_panel(ax, task, bars, null, colours)
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in colours]
    names = list(BINS)
    if any(null is not None for _, null in tasks.values()):
        handles.append(plt.Line2D([], [], color="black", linewidth=1.2, marker="|", markersize=9, linestyle="none"))
        names.append("boundaries for uniform attention")
    fig.legend(handles, names, title=r"$|\lambda|$" + f", protocol {a.protocol}", loc="lower center", ncol=4, fontsize=8, frameon=False)
    fig.tight_layout(rect=(0, 0.85 / fig.get_figheight(), 1, 1))
    os.makedirs(a.out, exist_ok=True)
    path = os.path.join(a.out, f"spectra.{a.format}" if a.protocol == "dsf" else f"spectra-{a.protocol}.{a.format}")
    fig.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
