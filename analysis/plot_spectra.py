#!/usr/bin/env python3
"""Eigenvalues from a results file: their share by modulus, and where those of time-invariant layers lie.

spectra.png: one panel a task; a stacked bar for each model, set of swept values and layer, at initialisation and after training,
averaged over heads, sequences and seeds.  Blue: moduli up to 1, orange and red: above.  The bar on top of a panel is the null model of
attention: uniform attention at the same lengths.  Hatched and starred: one rounding of the stored parameters moves this share by more
than one eigenvalue and more than one percentage point, in at least one seed.

eigenvalues.png, if a model has time-invariant layers (S4, S5, LRU): the complex plane with the unit circle, a row for each model and
set of swept values, a column for each layer; every channel and seed, at initialisation and after training.  Faded: a stage with a
marked share, whose eigenvalues rounding moves.  Protocol published shows what its analysis looks at (S4: channel 1 only)."""

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

BINS = ["[0, 0.1]", "(0.1, 0.5]", "(0.5, 0.9]", "(0.9, 1]", "(1, 10]", "(10, 100]", "(100, \u221e]"]
CLOSED = ["[0, 0.1]", "[0.1, 0.5]", "[0.5, 0.9]", "[0.9, 1]", "[1, 10]", "[10, 100]", "(100, \u221e]"]
# Blue up to 1, orange to red above, lightness falling away from 1 on both sides: told apart with any colour vision, and in grey within a side.
COLOURS = ["#08306B", "#2171B5", "#6BAED6", "#C6DBEF", "#FDD0A2", "#F16913", "#8C2D04"]
MARKED = "percent_radius_marked"
HATCH = "////"
FADE = 0.35  # of the opacity, where a share of the stage is marked
CAPTION = "one rounding of the stored parameters moves"
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
        self.marked = []  # (bin) for each bar: rounding moves this share
        self.null = None


def marks_of(g, rows, stage, layer):
    """(bin): in at least one of these rows, rounding moves the share; none in layers that change with time."""
    if MARKED not in g:
        return np.zeros(len(BINS), dtype=bool)
    return np.any([np.any(g[MARKED][r, stage, layer] > 0, axis=0) for r in rows], axis=0)


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
                    b.marked.append(marks_of(g, [r for _, r in members], stage, layer))
        if NULL in g and MARKED not in g:  # no null model of time-invariant layers
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
    """Complex eigenvalues of one model and one set of swept values: (points at init, points trained) of each layer; faded: the same
    pairs, whether a share of this stage is marked."""

    def __init__(self, first, task, name, layers, faded):
        self.first, self.task, self.name, self.layers, self.faded = first, task, name, layers, faded


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
                faded = [tuple(marks_of(g, of, stage, k).any() for stage in (0, lam.shape[1] - 1)) for k in range(lam.shape[2])]
                if any(len(v) for pair in layers for v in pair):
                    out.append(Plane(min(c for c, _ in members), task, name, layers, faded))
    return sorted(out, key=lambda p: p.first)


def nulls_of(blocks):
    """[(name, shares)]: one, unless the lengths differ from block to block."""
    out = []
    for b in blocks:
        if b.null is not None and not any(np.allclose(b.null, v, atol=0.05, equal_nan=True) for _, v in out):
            out.append((b.name, b.null))
    return [("" if len(out) == 1 else name, v) for name, v in out]


def lines_of(blocks):
    """[(y, kind, label, shares, marked)] from the top; kind: name | null | bar, a name has no bar."""
    out, y = [], 0.0
    for name, v in nulls_of(blocks):
        out.append((y, "null", "uniform attention" + (f", {name}" if name else ""), v, None))
        y += 1.0
    for b in blocks:
        y += 0.35 if out else 0
        out.append((y, "name", b.name, None, None))
        y += 1.0
        for (label, v), marked in zip(b.bars, b.marked):
            out.append((y, "bar", label, v, marked))
            y += 1.0
    return out, y


def draw_bar(ax, y, shares, marked, reference):
    left = 0.0
    for part, colour, mark in zip(shares, COLOURS, np.zeros(len(BINS), dtype=bool) if marked is None else marked):
        if not np.isfinite(part):
            continue
        ax.barh(y, part, left=left, height=0.84, color=colour, edgecolor="black" if reference else "white",
                linewidth=0.9 if reference and part > 0 else 0.4)
        if mark:
            ax.barh(y, part, left=left, height=0.84, color="none", edgecolor="0.45", hatch=HATCH, linewidth=0)
        if part >= NARROWEST + mark:
            red, green, blue = matplotlib.colors.to_rgb(colour)
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ax.text(left + part / 2, y, f"{part:.0f}" + ("*" if mark else ""), ha="center", va="center_baseline", fontsize=7.5,
                    color="white" if dark else "black",
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2} if mark else None)
        left += part


def draw_panel(ax, task, lines, height):
    for y, kind, label, shares, marked in lines:
        if kind == "name":
            ax.text(0, y + 0.1, label, fontsize=8.5, fontweight="bold", va="center")
        else:
            draw_bar(ax, y, shares, marked, kind == "null")
    bars = [(y, label) for y, kind, label, _, _ in lines if kind != "name"]
    ax.set_yticks([y for y, _ in bars], [label for _, label in bars], fontsize=8)
    ax.set_ylim(height - 0.4, -0.6)
    ax.set_xlim(0, 100)
    ax.set_xlabel("eigenvalues in percent", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(task, loc="left", fontsize=11, fontweight="bold")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)


def legend_of(fig, handles, labels, title, columns):
    """At the lower edge, title first; returns its height in inches."""
    legend = fig.legend(handles, labels, title=title, loc="lower center", ncol=columns, fontsize=8, title_fontsize=8, frameon=False,
                        columnspacing=1.2, handlelength=1.4, borderaxespad=0.2)
    legend.get_title().set_multialignment("center")
    return legend.get_window_extent(fig.canvas.get_renderer()).height / fig.dpi


def fit(fig, height, below):
    """`height` inches for the axes, and below them `below` for the legend."""
    fig.set_figheight(height + below)
    fig.tight_layout(rect=(0, below / (height + below), 1, 1))


def draw(tasks, protocol):
    panels = {task: lines_of(blocks) for task, blocks in tasks.items()}
    heights = [BAR * height for _, height in panels.values()]
    total = sum(heights) + 0.85 * len(heights)  # inches: title and axis of each panel
    fig, axes = plt.subplots(len(tasks), 1, figsize=(9.5, total), squeeze=False, gridspec_kw={"height_ratios": heights})
    for ax, (task, (lines, height)) in zip(axes[:, 0], panels.items()):
        draw_panel(ax, task, lines, height)
    title = r"$|\lambda|$" + f", protocol {protocol}"
    if any(marked is not None and marked.any() for lines, _ in panels.values() for *_, marked in lines):
        title += f"\nhatched, *: {CAPTION} this share by more than one eigenvalue and more than one\npercentage point: its change from init to trained says nothing about learning"
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in COLOURS]
    fit(fig, total, legend_of(fig, handles, CLOSED if protocol == "published" else BINS, title, len(BINS)))
    return fig


def columns_of(planes):
    """Layers that are drawn: all, or the first, the last and some between."""
    n = max(len(p.layers) for p in planes)
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_LAYERS))})


def limits_of(planes):
    """Half the side of the square: the unit circle, and what lies outside."""
    largest = max((np.abs(v).max() for p in planes for pair in p.layers for v in pair if len(v)), default=1.0)
    return 1.08 * max(1.0, largest)


def draw_plane(ax, init, trained, half, faded):
    """Filled circles, and on top of them open diamonds that leave them to be seen."""
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(turn), np.sin(turn), color="0.55", linewidth=0.8)
    ax.axhline(0, color="0.85", linewidth=0.6, zorder=0)
    ax.axvline(0, color="0.85", linewidth=0.6, zorder=0)
    most = max(len(init), len(trained), 1)
    size, alpha, line = (16, 0.9, 0.7) if most <= 200 else (7, 0.6, 0.5) if most <= 2000 else (2.5, 0.4, 0.3)
    weak = [FADE if f else 1 for f in faded]
    ax.scatter(init.real, init.imag, s=size, color=INIT, alpha=alpha * weak[0], linewidths=0, rasterized=most > 2000)
    ax.scatter(trained.real, trained.imag, s=0.8 * size, facecolors="none", edgecolors=TRAINED, alpha=alpha * weak[1], linewidths=line,
               marker="D", rasterized=most > 2000)
    ax.set_aspect("equal")
    ax.set_xlim(-half, half)
    ax.set_ylim(-half, half)
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks([-1, 0, 1])
    ax.tick_params(labelsize=7)


def draw_planes(planes, protocol):
    columns, side = columns_of(planes), 2.3
    height = (side + 0.55) * len(planes) + 0.1
    fig, axes = plt.subplots(len(planes), len(columns), figsize=(max(side * len(columns) + 0.9, 5.2), height), squeeze=False)
    half = limits_of(planes)
    for row, p in zip(axes, planes):
        row[0].set_ylabel(f"{p.task}\n{p.name}", fontsize=8, fontweight="bold")
        for ax, k in zip(row, columns):
            if k >= len(p.layers):
                ax.set_visible(False)
                continue
            draw_plane(ax, *p.layers[k], half, p.faded[k])
            stages = [name for name, f in zip(("init", "trained"), p.faded[k]) if f]
            ax.set_title(f"layer {k}" + (f"\n({' and '.join(stages)} faded)" if stages else ""), fontsize=8, pad=8)
    marks = [plt.Line2D([], [], linestyle="", marker="o", color=INIT, markersize=5),
             plt.Line2D([], [], linestyle="", marker="D", color=TRAINED, markerfacecolor="none", markersize=5)]
    title = r"$\lambda$ of time-invariant layers as stored, protocol " + protocol
    if any(any(p.faded[k]) for p in planes for k in columns if k < len(p.layers)):
        title += f"\nfaded: {CAPTION}\nthese, so that where they lie is no property of the model"
    fit(fig, height, legend_of(fig, marks, ["init", "trained"], title, 2))
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
