#!/usr/bin/env python3
"""The results file as other programs see it: h5dump, h5diff, h5py, xarray; after a kill; on a full disk; hostile files.

Finds the programs in $SQ_BIN/tests and mpiexec in $SQ_MPIEXEC.  Exit 77: skipped."""

import os
import shutil
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
except ImportError:
    for other in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if not os.environ.get("SQ_PYTHON_TRIED") and os.path.exists(other) and \
                subprocess.run([other, "-c", "import h5py, numpy"], stderr=subprocess.DEVNULL).returncode == 0:
            os.environ["SQ_PYTHON_TRIED"] = "1"
            os.execv(other, [other] + sys.argv)
    print("skipped: no python3 with h5py and numpy")
    sys.exit(77)

BIN = os.path.join(os.environ["SQ_BIN"], "tests")
MPIEXEC = os.environ.get("SQ_MPIEXEC", "mpiexec")
CELLS, SEEDS, EVALS, STAGES = 6, 3, 4, 3
RUN_ONLY = ["cells/run_wall_s", "cells/run_peak_bytes", "cells/run_rank", "cells/run_host", "cells/run_segment"]


def writer(mode, path, folder, ranks):
    """(exit status, stderr); raises if it hangs."""
    program = os.path.join(BIN, "store_writer_f64")
    p = subprocess.run([MPIEXEC, "-n", str(ranks), program, mode, path, folder], timeout=60, capture_output=True, text=True)
    return p.returncode, p.stderr


def value(cell, stage, field, n):
    i = np.arange(n)
    v = np.sin(1.0 + cell + 10.0 * stage + 100.0 * field + 1000.0 * i)
    if field == 0:
        v[i % 17 == 0] = np.nan
    return v


def check_cell(f, c, tolerance=1e-12):
    g = f[f"spectra/mqar/tiny-{2 - c % 2}/dsf"]
    row = list(g["cell"][:]).index(c)
    for k, name in enumerate(["log_lambda", "percent_radius_mean", "effective_state_size_entropy", "length", "lambda"]):
        for stage in range(STAGES):
            got = g[name][row, stage].ravel()
            if name == "lambda":
                assert got.dtype == np.complex128, got.dtype
                got = got.view(np.float64)
            want = value(c, stage, k, got.size) if stage != 1 else np.full(got.size, np.nan)
            # numpy's sine and the C library's may differ in the last bit
            assert np.allclose(got, want, rtol=0, atol=tolerance, equal_nan=True), (c, name, stage)
    assert list(g["stage_step"][row]) == [0, -1, 400]
    assert list(f["history/step"][c]) == [100 + c, 200 + c, 300 + c, -1]
    assert np.isnan(f["history/lr"][c, 3])


def check_h5py(path):
    with h5py.File(path, "r") as f:
        assert f.attrs["schema_version"] == 1
        assert f.attrs["precision"] in (b"float64", "float64")
        assert "grid" not in f.attrs
        assert "cells" in f["grid"][()].decode() and f["grid"].id.get_type().is_variable_str() is False
        for c in range(CELLS - 1):
            check_cell(f, c)
        assert list(f["cells/status"][:]) == [2] * (CELLS - 1) + [0]
        assert h5py.check_enum_dtype(f["cells/status"].dtype)["diverged"] == 3
        assert f["cells/task"][0].decode() == "mqar"
        assert f["cells/run_host"][0].decode() == "node-\u00e4"
        d = f["spectra/mqar/tiny-1/dsf/percent_radius_mean"]
        assert [x.keys()[0] for x in d.dims] == ["cell", "stage", "layer", "head", "radius_bin"]
        assert [x[0].name.split("/")[-1] for x in d.dims] == ["cell", "stage", "layer", "head", "radius_bin"]
        assert d.dims[4][0][2].decode() == "(1, \u221e)"
        assert [s.decode() for s in d.dims[1][0][:]] == ["init", "snapshot 1", "trained"]
        assert f["history/lr"].dims[0][0] == f["cell"]
        assert d.attrs["units"] == b"percent" and d.attrs["invariant"] == b"no" and d.attrs["long_name"]
        assert f["spectra/mqar/tiny-1/dsf/effective_state_size_entropy"].attrs["invariant"] == b"yes"
        assert f["weights/0/layers.0.weight"].shape == (3, 5) and f["weights/0/layers.0.weight"][0, 1] == 1
        assert "1" not in f["weights"]

        def every(name, o):
            if isinstance(o, h5py.Dataset) and not name.startswith("weights/"):
                assert "units" in o.attrs and "long_name" in o.attrs, name
                assert o.chunks is None and o.id.get_offset() is not None, name
        f.visititems(every)


def check_tools(path, again):
    h5dump = shutil.which("h5dump")
    if h5dump:
        p = subprocess.run([h5dump, path], capture_output=True, text=True)
        assert p.returncode == 0 and "DIMENSION_SCALE" in p.stdout and "error" not in p.stderr.lower(), p.stderr
    else:
        print("note: no h5dump here")
    h5diff = shutil.which("h5diff")
    if h5diff:
        # Not from the root: h5diff follows /cell's back references into the columns that it was told to leave out.
        with h5py.File(path, "r") as f:
            cells = [f"/cells/{n}" for n in f["cells"] if f"cells/{n}" not in RUN_ONLY]
        for part in ["/spectra", "/history", "/weights", *cells]:
            p = subprocess.run([h5diff, path, again, part], capture_output=True, text=True)
            assert p.returncode == 0, part + p.stdout + p.stderr
    else:
        print("note: no h5diff here")


def numbers_only(path):
    """The file's bytes with all that depends on the run set to zero."""
    data = bytearray(open(path, "rb").read())
    with h5py.File(path, "r") as f:
        names = RUN_ONLY + [f"segments/{n}" for n in f["segments"]]
        for n in names:
            d = f[n]
            start, size = d.id.get_offset(), d.id.get_storage_size()
            data[start:start + size] = bytes(size)
    return bytes(data)


def check_xarray(path):
    try:
        import xarray
        import h5netcdf  # noqa: F401
    except ImportError:
        print("note: no xarray with h5netcdf here")
        return
    with xarray.open_dataset(path, group="spectra/mqar/tiny-2/dsf", engine="h5netcdf") as x:
        assert x["log_lambda"].dims == ("cell", "stage", "layer", "head", "sample", "position")
        assert list(x["cell"].values) == [0, 2, 4] and list(x["cut"].values) == [0.25, 0.5]
        assert np.isnan(x["log_lambda"].sel(cell=2).values[1]).all()
        assert x["log_lambda"].attrs["units"] in ("1", b"1")
    with xarray.open_dataset(path, group="history", engine="h5netcdf") as x:
        assert x["valid_loss"].dims == ("cell", "evaluation") and x["step"].values[1, 0] == 101
    with xarray.open_dataset(path, group="cells", engine="h5netcdf") as x:
        assert x["test_metric"].dims == ("cell",) and x["status"].values[0] == 2


def check_kill(folder):
    path = os.path.join(folder, "killed.h5")
    status, _ = writer("kill", path, folder, 3)
    assert status != 0
    with h5py.File(path, "r") as f:
        state = list(f["cells/status"][:])
        assert state[5] == 1, state  # rank 2 died in its second cell
        assert state[2] == 2, state
        finished = [c for c in range(CELLS) if state[c] == 2]
        for c in finished:
            check_cell(f, c)
            assert f["cells/checksum"][c] != 0
    status, text = writer("resume", path, folder, 2)
    assert status == 0, text
    with h5py.File(path, "r") as f:
        assert list(f["cells/status"][:]) == [2] * CELLS
        for c in range(CELLS):
            check_cell(f, c)
        assert f["segments/time"][1] != b"" and f["segments/time"][2] == b""
    return path


def check_damaged(folder, whole):
    """Continuing a damaged file ends before any training; 256 segments are told."""
    path = os.path.join(folder, "damaged.h5")
    longer = "continue"

    def resume(change):
        shutil.copy(whole, path)
        with h5py.File(path, "r+") as f:
            change(f)
        return writer("resume", path, folder, 2)

    def delete(name):
        def change(f):
            del f[name]
        return change

    def long_grid(f):
        del f["grid"]
        f["grid"] = longer

    def long_attribute(f):
        f.attrs["precision"] = longer

    def full(f):
        f["segments/time"][:] = b"2026-01-01T00:00:00Z"

    for change, text in ((delete("segments"), "is damaged: /segments/time is missing"),
                         (delete("segments/ranks"), "is damaged: /segments/ranks is missing"),
                         (delete("grid"), "is not a results file of this version"),
                         (long_grid, "is not a results file of this version"),
                         (long_attribute, "is not a results file of this version")):
        status, said = resume(change)
        assert status == 4 and text in said, (text, status, said)
    status, said = resume(full)
    assert status == 0 and "all 256 rows of /segments are used" in said, (status, said)
    with h5py.File(path, "r") as f:
        assert f["segments/time"][254] == b"2026-01-01T00:00:00Z" and f["segments/time"][255] != b"2026-01-01T00:00:00Z"
    os.remove(path)


def check_full_disk(folder):
    path = os.path.join(folder, "full.h5")
    status, text = writer("full", path, folder, 2)
    lines = [x for x in text.splitlines() if x.startswith("error:")]
    assert status == 4 and len(lines) == 1 and "File too large" in lines[0], (status, text)
    assert not os.path.exists(path) and not [n for n in os.listdir(folder) if ".tmp." in n]
    status, text = writer("late", path, folder, 2)  # one rank cannot write; nobody hangs, the others' cells are whole
    lines = [x for x in text.splitlines() if x.startswith("error:")]
    assert status == 4 and len(lines) == 1 and "cannot be written" in lines[0], (status, text)
    with h5py.File(path, "r") as f:
        assert list(f["cells/status"][:5]) == [2, 0, 2, 0, 2], f["cells/status"][:]
        for c in (0, 2, 4):
            check_cell(f, c)


def make_hostile(folder):
    with h5py.File(os.path.join(folder, "elsewhere.h5"), "w") as f:
        f["secret"] = [1.0]
    path = os.path.join(folder, "hostile.h5")
    with h5py.File(path, "w") as f:
        f["external_link"] = h5py.ExternalLink("elsewhere.h5", "/secret")
        f["through_soft_link"] = h5py.SoftLink("/external_link")
        f.create_dataset("external_storage", (2,), "f8", external=[("/etc/passwd", 0, 16)])
        layout = h5py.VirtualLayout((1,), "f8")
        layout[:] = h5py.VirtualSource("elsewhere.h5", "secret", (1,))
        f.create_virtual_dataset("virtual", layout)
        f.create_dataset("huge", (2**40, 2**40), "f8", chunks=(16, 16))
        f.create_dataset("hollow", (1000, 1000), "f8", chunks=(16, 16))
        f["text"] = np.array([b"a", b"b"])
        f["vlen_text"] = ["a", "b"]
        f["compound"] = np.zeros(2, [("r", "f8"), ("i", "f8")])
        f.create_dataset("references", data=[f.ref], dtype=h5py.ref_dtype)
        f.create_dataset("rows", (2,), h5py.vlen_dtype("f8"))
        f["rank9"] = np.zeros((1,) * 9)
        f["null"] = h5py.Empty("f8")
        f["large_unsigned"] = np.array([2**63], "u8")
        f.create_dataset("lzf", data=np.zeros(100), compression="lzf")
        for kind in ("f2", "f4", "f8", "i1", "u8"):
            f[kind] = np.array([0, 1], kind)
        f["bool"] = np.array([False, True])
        f["big_endian"] = np.array([0, 1], ">f8")
        f.create_dataset("gzip", data=[0.0, 1.0], compression="gzip", shuffle=True)
        f.attrs["vlen"] = "variable \u00e4"
        f.attrs["fixed"] = np.bytes_("fixed")
        f.attrs["two"] = ["a", "b"]
    with h5py.File(os.path.join(folder, "variable.h5"), "w") as f:
        f.attrs["schema_version"] = np.int32(1)
        f.attrs["program"] = "seqspectra"
    data = open(path, "rb").read()
    with open(os.path.join(folder, "truncated.h5"), "wb") as f:
        f.write(data[:len(data) // 2])


def main():
    folder = tempfile.mkdtemp(prefix="sq-readers-")
    try:
        path, again = os.path.join(folder, "one.h5"), os.path.join(folder, "two.h5")
        for name, ranks in ((path, 3), (again, 1)):
            status, text = writer("write", name, folder, ranks)
            assert status == 0, text
        status, text = writer("write", path, folder, 2)
        assert status == 2 and "exists; use --resume" in text, text
        check_h5py(path)
        check_tools(path, again)
        assert numbers_only(path) == numbers_only(again), "equal numbers, different bytes"
        check_xarray(path)
        killed = check_kill(folder)
        check_damaged(folder, again)
        check_full_disk(folder)
        for name in (again,):  # all cells done by another way: the same bytes
            status, text = writer("resume", name, folder, 2)
            assert status == 0, text
        assert numbers_only(killed) == numbers_only(again), "a killed and resumed run left a trace"
        make_hostile(folder)
        subprocess.run([os.path.join(BIN, "test_store_untrusted_f64"), folder], check=True)
    finally:
        shutil.rmtree(folder)
    print("ok")


if __name__ == "__main__":
    main()
