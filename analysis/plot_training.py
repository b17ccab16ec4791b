#!/usr/bin/env python3
"""Validation loss and metric over training steps, from a results file.

One row of panels a task, one colour and dash, the same in all rows, for each model and set of swept values; thin lines: seeds; thick lines: their mean, as far as all
seeds go."""

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
import matplotlib.ticker  # noqa: E402
import numpy as np  # noqa: E402

# Okabe and Ito's colours, told apart with any colour vision; then the same with another dash.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DASHES = ["-", "--", ":", "-."]


def label_of(f, c):
    return ", ".join([text(f["cells/model"][c])] + varied(f, c))


def curves(f):
    """{task: {label: [(steps, loss, metric)]}} and {task: metric's name}."""
    out, metric = {}, {}
    for c in range(f["cells/status"].shape[0]):
        step = f["history/step"][c]
        n = int((step >= 0).sum())
        if n == 0:
            continue
        task = text(f["cells/task"][c])
        metric.setdefault(task, text(f["cells/metric"][c]))
        line = (step[:n], f["history/valid_loss"][c, :n], f["history/valid_metric"][c, :n])
        out.setdefault(task, {}).setdefault(label_of(f, c), []).append(line)
    return out, metric


def draw(ax, lines, which, colour, dash, label):
    for line in lines:
        ax.plot(line[0], line[which], color=colour, linestyle=dash, linewidth=0.7, alpha=0.45)
    n = min(len(line[0]) for line in lines)
    same = all(np.array_equal(line[0][:n], lines[0][0][:n]) for line in lines)
    if same:
        mean = np.mean([line[which][:n] for line in lines], axis=0)
        ax.plot(lines[0][0][:n], mean, color=colour, linestyle=dash, linewidth=2, label=label,
                marker="o" if n == 1 else None, markersize=4)
    else:
        ax.plot([], [], color=colour, linestyle=dash, linewidth=2, label=label)


def mixer_of(task, label):
    """The label without the task in front: mqar-linear and listops-linear are one mixer."""
    return label[len(task) + 1:] if label.startswith(task + "-") else label


def styles_of(tasks):
    """{mixer: (colour, dash)}, whatever the task."""
    mixers = sorted({mixer_of(task, label) for task, models in tasks.items() for label in models})
    return {m: (COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, m in enumerate(mixers)}


def step_axis(ax, models):
    """Steps are whole numbers; those of a single evaluation are in the middle of a range of their size."""
    steps = np.concatenate([line[0] for lines in models.values() for line in lines])
    if steps.min() == steps.max():
        ax.set_xlim(0, 2 * max(1, int(steps[0])))
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("results")
    p.add_argument("--out", default=".", help="folder (default: here)")
    p.add_argument("--format", default="png", choices=["png", "pdf", "svg"])
    a = p.parse_args()
    try:
        with h5py.File(a.results, "r") as f:
            tasks, metric = curves(f)
    except (OSError, KeyError) as e:
        sys.exit(f"error: {a.results}: not a readable results file ({e})")
    if not tasks:
        sys.exit(f"error: {a.results}: no evaluation yet")
    longest = max(len(models) for models in tasks.values())
    styles = styles_of(tasks)
    height = max(3.2, 0.6 + 0.19 * longest)
    fig, axes = plt.subplots(len(tasks), 2, figsize=(12.5, height * len(tasks)), squeeze=False)
    for row, (task, models) in zip(axes, tasks.items()):
        for label, lines in sorted(models.items()):
            draw(row[0], lines, 1, *styles[mixer_of(task, label)], label)
            draw(row[1], lines, 2, *styles[mixer_of(task, label)], label)
        row[0].set_ylabel("validation loss (nats per label)")
        row[1].set_ylabel(f"validation {metric[task]}")
        if metric[task] == "accuracy":
            row[1].set_ylim(-0.02, 1.02)
        for ax in row:
            step_axis(ax, models)
            ax.set_xlabel("training step")
            ax.set_title(task, loc="left", fontsize=11, fontweight="bold")
            ax.grid(alpha=0.25)
            for side in ("top", "right"):
                ax.spines[side].set_visible(False)
        row[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False)
    fig.tight_layout()
    os.makedirs(a.out, exist_ok=True)
    path = os.path.join(a.out, f"training.{a.format}")
    fig.savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    main()
