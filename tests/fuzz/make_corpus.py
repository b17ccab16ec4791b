#!/usr/bin/env python3
"""tests/fuzz/make_corpus.py OUT: first inputs of the fuzz targets, OUT/<target>/*, from the fixtures and from data made here.

Good files and the damages that people have met: cut short, other line ends, wrong labels, bytes that are no UTF-8."""
import glob
import json
import os
import struct
import sys
import zlib

out = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.join(here, "..", "..")


def put(target, name, data):
    folder = os.path.join(out, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def damaged(target, name, data, first=b""):
    """The data, and damages that know nothing of the format; `first` says what kind of file it is."""
    put(target, name, first + data)
    put(target, name + "-half", first + data[: len(data) // 2])
    put(target, name + "-cut", first + data[:-1])
    put(target, name + "-twice", first + data + data)
    put(target, name + "-crlf", first + data.replace(b"\n", b"\r\n"))
    put(target, name + "-utf8", first + data[: len(data) // 2] + b"\xc3\x28\xed\xa0\x80\xff" + data[len(data) // 2 :])
    put(target, name + "-nul", first + data[: len(data) // 3] + b"\0" + data[len(data) // 3 :])


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 % (1 << 64)
    return h


# ---- listops: the fixture's first rows
for path in sorted(glob.glob(os.path.join(root, "tests", "fixtures", "listops", "*.tsv"))):
    with open(path, "rb") as f:
        lines = f.read().splitlines(keepends=True)
    short = [lines[0]] + sorted(lines[1:], key=len)[:3]
    damaged("fuzz_listops", os.path.basename(path), b"".join(short))
damaged("fuzz_listops", "small", b"Source\tTarget\n( ( ( [SM 1 ) ( ( ( [MED 4 ) 6 ) ] ) ) ] )\t6\n")

# ---- imdb
for k, text in enumerate(["I liked it.<br /><br />", "caf\u00e9 \u20ac \U0001F600 \u0085 \ufeff", "x" * 400, "ab" * 40]):
    damaged("fuzz_imdb", "review%d" % k, text.encode())

# ---- cifar: one and two records
record = bytes([7]) + bytes(range(256)) * 12
damaged("fuzz_cifar", "one", record)
put("fuzz_cifar", "two", record + bytes([0]) + record[1:])
put("fuzz_cifar", "label10", bytes([10]) + record[1:])
put("fuzz_cifar", "empty", b"")

# ---- mnist: images and labels
images = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(range(196)) * 8
labels = struct.pack(">2I", 0x801, 2) + bytes([3, 9])
damaged("fuzz_mnist", "images", images, b"\0")
damaged("fuzz_mnist", "labels", labels, b"\1")
put("fuzz_mnist", "many", b"\1" + struct.pack(">2I", 0x801, 0xFFFFFFFF) + bytes([3, 9]))
put("fuzz_mnist", "label10", b"\1" + struct.pack(">2I", 0x801, 2) + bytes([3, 10]))

# ---- wikitext: the same vocabulary as the target's own
own = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
spelled, n = {}, 256
for c in range(256):
    if c in own:
        spelled[chr(c)] = c
    else:
        spelled[chr(n)] = c
        n += 1
spelled.update({"ab": 256, "abc": 257, "<|endoftext|>": 258})
for mode in range(2):
    for escape in (True, False):
        damaged("fuzz_wikitext", "vocab%d%d" % (mode, escape), json.dumps(spelled, ensure_ascii=escape).encode(), bytes([3 * mode]))
    damaged("fuzz_wikitext", "merges%d" % mode, b"#version: 0.2\na b\nab c\n", bytes([3 * mode + 1]))
    damaged("fuzz_wikitext", "order%d" % mode, b"#version: 0.2\nab c\na b\n", bytes([3 * mode + 1]))
    text = " = Title = \n \n It 's a caf\u00e9 , abc 12 \u00bd \u3000 don't we'll \n".encode()
    damaged("fuzz_wikitext", "text%d" % mode, text, bytes([2]))
    damaged("fuzz_wikitext", "texttask%d" % mode, text, bytes([128 + 3 * mode]))

# ---- aan
damaged("fuzz_aan", "pairs", b"0\tP1\tP2\tfirst text\tsecond\n1.0\tP3\tP4\t\tcaf\xc3\xa9\n")
damaged("fuzz_aan", "long", b"1\tP1\tP2\t" + b"x" * 100 + b"\t" + b"y" * 30 + b"\n")
put("fuzz_aan", "label2", b"2\tP1\tP2\ta\tb\n")


# ---- pathfinder: images of all kinds, and metadata
def png(side, kind, depth, channels, extra=b"", interlaced=0):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = bytes([0]) + bytes((side * channels * depth + 7) // 8)
    head = struct.pack(">2I5B", side, side, depth, kind, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(row * side)) + chunk(b"IEND", b"")


palette = struct.pack(">I", 6) + b"PLTE" + bytes(range(6)) + struct.pack(">I", zlib.crc32(b"PLTE" + bytes(range(6))))
kinds = [("grey", 0, 8, 1), ("bits", 0, 1, 1), ("deep", 0, 16, 1), ("rgb", 2, 8, 3), ("palette", 3, 8, 1), ("greya", 4, 8, 2), ("rgba", 6, 8, 4)]
for name, kind, depth, channels in kinds:
    image = png(32, kind, depth, channels, palette if kind == 3 else b"")
    damaged("fuzz_pathfinder", name, image, b"\1")
    put("fuzz_pathfinder", name + "-task", b"\x81" + image)
put("fuzz_pathfinder", "size", b"\1" + png(64, 0, 8, 1))
put("fuzz_pathfinder", "interlaced", b"\1" + png(32, 0, 8, 1, b"", 1))
meta = b"imgs/0 a.png 0 1 1.0 2 3\nimgs/0 a.png 1 0 1.0 2 3\nimgs/0 a.png 2 1\nimgs/0 a.png 3 0\n"
damaged("fuzz_pathfinder", "metadata", meta, b"\0")

# ---- kept tokens
ids = struct.pack("<5H", 1, 2, 3, 256, 258)
damaged("fuzz_tokens", "good", b"SQTOKEN1" + struct.pack("<3Q", 42, 5, fnv(ids)) + ids, b"\0\1")
damaged("fuzz_tokens", "mended", b"SQTOKEN1" + struct.pack("<3Q", 42, 5, 0) + ids, b"\1\1")
put("fuzz_tokens", "huge", b"\1\1SQTOKEN1" + struct.pack("<3Q", 42, 1 << 62, 0) + ids)

# ---- checkpoints: the parts' sizes are those of the target
head = struct.pack("<10Q", 0x747063345F717321, 1, 12, 5, 5, 24, 16, 8, 0, 8)
body = head + b"owner" + bytes(56)
damaged("fuzz_checkpoint", "good", body + struct.pack("<Q", fnv(body)), b"\0")
damaged("fuzz_checkpoint", "mended", body, b"\1")
damaged("fuzz_checkpoint", "before", body, b"\3")

# ---- configurations: those of the tree, as cells and as grids
for path in sorted(glob.glob(os.path.join(root, "configs", "**", "*.json"), recursive=True)):
    with open(path, "rb") as f:
        text = f.read()
    name = os.path.relpath(path, os.path.join(root, "configs")).replace(os.sep, "-")
    put("fuzz_config", name, b"\1" + text)
    put("fuzz_config", "grid-" + name, b"\0" + text)
grid = {"name": "g", "base": "base.json", "sweep": {"train.lr": [0.1, 1e-3], "seed": [1, 2, 3]}, "train": {"wd": 0.1}}
damaged("fuzz_config", "sweep", json.dumps(grid).encode(), b"\0")
damaged("fuzz_config", "set", json.dumps(grid).encode(), b"\2")
damaged("fuzz_config", "many", json.dumps({"base": ["base.json", "*.json"], "sweep": {"model": {"num_layers": [1, 2]}}}).encode(), b"\0")

# ---- results files: a reader, what it is asked for, then changes (tests/fuzz/fuzz_results.c: change) of each member of the file
def change(reader, name, more, *what):
    for member in range(100):
        put("fuzz_results", "%s%d-%d" % (name, reader, member), bytes([reader, more, what[0], member]) + bytes(what[1:]))


for reader in range(6):
    for table in range(10 if reader == 2 else 1):
        put("fuzz_results", "good%d-%d" % (reader, table), bytes([reader, table]))
    for member in range(100):
        put("fuzz_results", "any%d-%d" % (reader, member), bytes([reader, member % 10, member % 9, member, member % 8, 1, 2, 0, 1, 2, 3, 4]))
change(0, "empty", 0, 3, 2, 2, 0)  # of shape (2, 0)
change(2, "list", 0, 0, 63, *b"[1]".ljust(64, b"\0"))  # JSON of another kind than expected
change(5, "list", 0, 0, 63, *b"[[1]]".ljust(64, b"\0"))
put("fuzz_results", "noheads", b"\2\1\3>k\2\2\0\376\377\377\377\0W")  # an axis of none beside a long one
for reader in (0, 2, 3):
    change(reader, "large", 1, 3, 5, 2, 2, 132, 133, 134, 2)  # more elements than 64 bits count
