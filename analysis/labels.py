"""What the figures call a cell: its text columns, and the values in which it differs from others but the seed."""

import json


def text(x):
    return x.decode() if isinstance(x, bytes) else str(x)


def varied(f, c):
    """["lr = 0.01", ...] of row c of /cells: the swept values without the seed, and the recipe where it is the published one."""
    try:
        swept = json.loads(text(f["cells/swept"][c]))
    except ValueError:
        swept = {}
    parts = [f"{k.split('.')[-1]} = {v}" for k, v in swept.items() if k != "seed"]
    if text(f["cells/recipe"][c]) == "published":
        parts.append("published")
    return parts
