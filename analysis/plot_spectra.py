#!/usr/bin/env python3
"""Eigenvalues from a results file: their share by modulus, and where those of time-invariant layers lie.

spectra.png: one panel a task; a stacked bar for each model, set of swept values and layer, at initialisation and after training,
averaged over heads, sequences and seeds.  The bar on top of a panel is the null model: uniform attention at the same lengths.

eigenvalues.png, if a model has time-invariant layers (S4, S5, LRU): the complex plane with the unit circle, a row for each model and
set of swept values, a column for each layer; every channel and seed, at initialisation and after training."""

import argparse
import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from find_python import need
from labels import text, varied

need("h5py", "numpy", "matplotlib")

import h5py  # noqa: E402
import matplotlib  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

BINS = ["[0, 0.1]", "(0.1, 0.5]", "(0.5, 0.9]", "(0.9, 1]", "(1, 10]", "(10, 100]", "(100, \u221e)"]
NULL = "null_uniform_percent_radius_mean"
DONE = 2
BAR = 0.26  # inches from bar to bar
NARROWEST = 4.5  # percent: a number fits into the part
MOST_LAYERS = 6  # columns of the complex plane
INIT, TRAINED = "#E69F00", "#0072B2"


def mean(v):
    """Mean over all axes but the last of what is there, or None where nothing is."""
    v = np.asarray(v, dtype=float).reshape(-1, np.shape(v)[-1])
    there = np.isfinite(v)
    if not there.any():
        return None
    count = there.sum(axis=0)
    return np.divide(np.where(there, v, 0).sum(axis=0), count, out=np.full(v.shape[1], np.nan), where=count > 0)


class Block:
    """The bars of one model and one set of swept values: they belong together and have one name."""

    def __init__(self, first, name):
        self.first, self.name = first, name
        self.bars = []  # (label, shares)
        self.null = None


def blocks_of(f, path):
    """Blocks of one group of /spectra; rows of one block differ by the seed only."""
    g = f[path]
    model = path.split("/")[-2]
    share, rows = g["percent_radius_mean"], {}  # share: (row, stage, layer, head, bin)
    for r, c in enumerate(g["cell"][:]):
        if f["cells/status"][c] == DONE:
            rows.setdefault(", ".join([model] + varied(f, c)), []).append((c, r))
    out = []
    for name, members in rows.items():
        b = Block(min(c for c, _ in members), name)
        for layer in range(share.shape[2]):
            for stage, label in ((0, "init"), (share.shape[1] - 1, "trained")):
                v = mean(np.stack([share[r, stage, layer] for _, r in members]))
                if v is not None:
                    b.bars.append((f"layer {layer}   {label}", v))
        if NULL in g:
            b.null = mean(np.stack([g[NULL][r, -1] for _, r in members]))
        if b.bars:
            out.append(b)
    return out


def tasks_of(f, protocol):
    """{task: blocks}, tasks and blocks in the order of /cells."""
    out = {}
    for task in f.get("spectra", {}):
        blocks = []
        for model in f["spectra"][task]:
            path = f"spectra/{task}/{model}/{protocol}"
            if path in f and "percent_radius_mean" in f[path]:
                blocks += blocks_of(f, path)
        if blocks:
            out[task] = sorted(blocks, key=lambda b: b.first)
    return dict(sorted(out.items(), key=lambda item: item[1][0].first))


class Plane:
    """Complex eigenvalues of one model and one set of swept values: (points at init, points trained) of each layer."""

    def __init__(self, first, task, name, layers):
        self.first, self.task, self.name, self.layers = first, task, name, layers


def points_of(lam, rows, stage, layer):
    """Finite values of all channels, states and seeds: lam is (row, stage, layer, channel, state)."""
    v = np.concatenate([np.ravel(lam[r, stage, layer]) for r in rows])
    return v[np.isfinite(v)]


def planes_of(f, protocol):
    """Planes of all models that have complex eigenvalues, in the order of /cells."""
    out = []
    for task in f.get("spectra", {}):
        for model in f["spectra"][task]:
            g = f["spectra"][task][model].get(protocol)
            if g is None or "lambda" not in g or not np.issubdtype(g["lambda"].dtype, np.complexfloating):
                continue
            lam, rows = g["lambda"], {}
            for r, c in enumerate(g["cell"][:]):
                if f["cells/status"][c] == DONE:
                    rows.setdefault(", ".join([model] + varied(f, c)), []).append((c, r))
            for name, members in rows.items():
                of = [r for _, r in members]
                layers = [(points_of(lam, of, 0, k), points_of(lam, of, lam.shape[1] - 1, k)) for k in range(lam.shape[2])]
                if any(len(v) for pair in layers for v in pair):
                    out.append(Plane(min(c for c, _ in members), task, name, layers))
    return sorted(out, key=lambda p: p.first)


def nulls_of(blocks):
    """[(name, shares)]: one, unless the lengths differ from block to block."""
    out = []
    for b in blocks:
        if b.null is not None and not any(np.allclose(b.null, v, atol=0.05, equal_nan=True) for _, v in out):
            out.append((b.name, b.null))
    return [("" if len(out) == 1 else name, v) for name, v in out]


def lines_of(blocks):
    """[(y, kind, label, shares)] from the top; kind: name | null | bar, a name has no bar."""
    out, y = [], 0.0
    for name, v in nulls_of(blocks):
        out.append((y, "null", "uniform attention" + (f", {name}" if name else ""), v))
        y += 1.0
    for b in blocks:
        y += 0.35
        out.append((y, "name", b.name, None))
        y += 1.0
        for label, v in b.bars:
            out.append((y, "bar", label, v))
            y += 1.0
    return out, y


def draw_bar(ax, y, shares, colours, reference):
    left = 0.0
    for part, colour in zip(shares, colours):
        if not np.isfinite(part):
            continue
        ax.barh(y, part, left=left, height=0.84, color=colour, edgecolor="black" if reference else "white",
                linewidth=0.9 if reference and part > 0 else 0.4)
        if part >= NARROWEST:
            red, green, blue, _ = colour
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ax.text(left + part / 2, y, f"{part:.0f}", ha="center", va="center_baseline", fontsize=7.5, color="white" if dark else "black")
        left += part


def draw_panel(ax, task, lines, height, colours):
    for y, kind, label, shares in lines:
        if kind == "name":
            ax.text(0, y + 0.1, label, fontsize=8.5, fontweight="bold", va="center")
        else:
            draw_bar(ax, y, shares, colours, kind == "null")
    bars = [(y, label) for y, kind, label, _ in lines if kind != "name"]
    ax.set_yticks([y for y, _ in bars], [label for _, label in bars], fontsize=8)
    ax.set_ylim(height - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.set_xlabel("eigenvalues in percent", fontsize=9)
    ax.set_title(task, loc="left", fontsize=11, fontweight="bold")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)


def draw(tasks, protocol):
    colours = matplotlib.colormaps["viridis"](np.linspace(0.02, 1, len(BINS)))
    panels = {task: lines_of(blocks) for task, blocks in tasks.items()}
    heights = [BAR * height for _, height in panels.values()]
    around, legend = 0.85, 0.62  # inches: title and axis of a panel; the legend
    total = sum(heights) + around * len(heights) + legend
    fig, axes = plt.subplots(len(tasks), 1, figsize=(9.5, total), squeeze=False, gridspec_kw={"height_ratios": heights})
    for ax, (task, (lines, height)) in zip(axes[:, 0], panels.items()):
        draw_panel(ax, task, lines, height, colours)
    fig.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in colours], BINS, title=r"$|\lambda|$" + f", protocol {protocol}",
               loc="lower center", ncol=len(BINS), fontsize=8, title_fontsize=9, frameon=False, columnspacing=1.2, handlelength=1.4)
    fig.tight_layout(rect=(0, legend / total, 1, 1))
    return fig


def columns_of(planes):
    """Layers that are drawn: all, or the first, the last and some between."""
    n = max(len(p.layers) for p in planes)
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_LAYERS))})


def limits_of(planes):
    """Half the side of the square: the unit circle, and what lies outside."""
    largest = max((np.abs(v).max() for p in planes for pair in p.layers for v in pair if len(v)), default=1.0)
    return 1.08 * max(1.0, largest)


def draw_plane(ax, init, trained, half):
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color="0.55", linewidth=0.8)
    ax.axhline(0, color="0.85", linewidth=0.6, zorder=0)
    ax.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    most = max(len(init), len(trained), 1)
    size, alpha = (14, 0.9) if most <= 200 else (6, 0.6) if most <= 2000 else (2, 0.35)
    ax.scatter(init.real, init.imag, s=size, color=INIT, alpha=alpha, linewidths=0, rasterized=most > 2000)
    ax.scatter(trained.real, trained.imag, s=size, color=TRAINED, alpha=alpha, linewidths=0, marker="D", rasterized=most > 2000)
    ax.set_aspect("equal")
    ax.set_xlim(-half, half)
    ax.set_ylim(-half, half)
    ax.tick_params(labelsize=7)


def draw_planes(planes, protocol):
    columns, side = columns_of(planes), 2.3
    top, bottom = 0.35, 0.75  # inches: the first row's titles; the legend
    height = side * len(planes) + top + bottom
    fig, axes = plt.subplots(len(planes), len(columns), figsize=(side * len(columns) + 1.4, height), squeeze=False)
    half = limits_of(planes)
    for row, p in zip(axes, planes):
        row[0].set_ylabel(f"{p.task}\n{p.name}", fontsize=8, fontweight="bold")
        for ax, k in zip(row, columns):
            if k >= len(p.layers):
                ax.set_visible(False)
                continue
            draw_plane(ax, *p.layers[k], half)
            ax.set_title(f"layer {k}", fontsize=8)
    marks = [plt.Line2D([], [], linestyle="", marker=m, color=c, markersize=5) for m, c in (("o", INIT), ("D", TRAINED))]
    fig.legend(marks, ["init", "trained"], title=r"$\lambda$ of time-invariant layers as stored, protocol " + protocol, loc="lower center",
               ncol=2, fontsize=8, title_fontsize=9, frameon=False)
    fig.tight_layout(rect=(0, bottom / height, 1, 1))
    return fig


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("results")
    p.add_argument("--out", default=".", help="folder (default: here)")
    p.add_argument("--protocol", default="dsf", choices=["dsf", "published"])
    p.add_argument("--format", default="png", choices=["png", "pdf", "svg"])
    a = p.parse_args()
    try:
        with h5py.File(a.results, "r") as f:
            tasks, planes = tasks_of(f, a.protocol), planes_of(f, a.protocol)
    except (OSError, KeyError) as e:
        sys.exit(f"error: {a.results}: not a readable results file ({e})")
    if not tasks:
        sys.exit(f"error: {a.results}: no finished cell has spectra of protocol {a.protocol}")
    os.makedirs(a.out, exist_ok=True)
    suffix = "" if a.protocol == "dsf" else f"-{a.protocol}"
    figures = [("spectra", draw(tasks, a.protocol))]
    if planes:
        figures.append(("eigenvalues", draw_planes(planes, a.protocol)))
    for name, figure in figures:
        path = os.path.join(a.out, f"{name}{suffix}.{a.format}")
        figure.savefig(path, dpi=150)
        print(path)


if __name__ == "__main__":
    main()
