"""What `convert` notes in a file, what it does not replace, and that an accident leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gpubp.data.convert import convert
from gpubp.data.dataset import open_dataset
from gpubp.data.writing import unfinished
from gpubp.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(6)


def read(path, **options) -> tuple[Any, Any]:
    with open_dataset(path, y_required=False, **options) as data:
        X = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, X)
        return X, data.target


def only(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    X, y = RNG.random((50, 3)), np.array(["é", "long label"])[RNG.integers(0, 2, 50)]
    np.savez(tmp_path / "d.npz", X=X, y=y)
    convert(tmp_path / "d.npz", tmp_path / "d.h5", version="9.9")
    first = (tmp_path / "d.h5").read_bytes()
    with h5py.File(tmp_path / "d.h5") as file:
        noted = dict(file.attrs)
        assert noted["source"] == "d.npz" and noted["converted_by"] == "gpubp 9.9" and noted["layout"] == "contiguous"
        stored: Any = file["X"]
        labels: Any = file["y"]
        assert stored.chunks is None and stored.compression is None and stored.dtype == "<f8"
        assert labels.asstr()[:].tolist() == y.tolist()
    convert(tmp_path / "d.npz", tmp_path / "d.h5", version="9.9", overwrite=True)
    assert (tmp_path / "d.h5").read_bytes() == first


def test_the_running_version_is_noted(tmp_path):
    import gpubp

    csv_path = tmp_path / "t.csv"
    csv_path.write_text("1,2\n3,4\n")
    convert(csv_path, tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5") as file:
        assert file.attrs["converted_by"] == f"gpubp {gpubp.__version__}"


def test_nothing_is_overwritten(tmp_path, refuses):
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    (tmp_path / "t.h5").write_text("precious")
    with refuses(DataError, "t.h5 exists", "--overwrite"):
        convert(tmp_path / "t.csv", tmp_path / "t.h5", version="1")
    with refuses(UsageError, "converted to itself"):
        convert(tmp_path / "t.csv", tmp_path / "t.csv", overwrite=True, version="1")
    with refuses(UsageError, "there is no folder"):
        convert(tmp_path / "t.csv", tmp_path / "no" / "t.h5", version="1")
    (tmp_path / "folder").mkdir()
    with refuses(UsageError, "folder is no ordinary file"):
        convert(tmp_path / "t.csv", tmp_path / "folder", overwrite=True, version="1")
    (tmp_path / "folder").rmdir()
    with refuses(DataError, "No such file"):
        convert(tmp_path / "no.csv", tmp_path / "t.h5", version="1", overwrite=True)
    (tmp_path / "bad.csv").write_text("1,2\n3\n")
    with refuses(DataError, "line 2 has 1 columns"):
        convert(tmp_path / "bad.csv", tmp_path / "t.h5", overwrite=True, version="1")
    assert (tmp_path / "t.h5").read_text() == "precious"
    (tmp_path / "junk").write_bytes(bytes(range(1, 99)))
    with refuses(DataError, "junk is in no format that is known", "a CSV file", "an NPZ file"):
        convert(tmp_path / "junk", tmp_path / "u.h5", version="1")
    convert(tmp_path / "t.csv", tmp_path / "u.h5", version="1")
    with refuses(UsageError, "u.h5 is laid out so already"):
        convert(tmp_path / "u.h5", tmp_path / "v.h5", version="1")
    only(tmp_path, "t.csv", "t.h5", "bad.csv", "junk", "u.h5")


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, refuses):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))

    def somebody_else(*_):
        (tmp_path / "d.h5").write_text("theirs")

    with refuses(DataError, "d.h5 exists"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", version="1", progress=somebody_else)
    assert (tmp_path / "d.h5").read_text() == "theirs"
    only(tmp_path, "X.npy", "d.h5")


@pytest.mark.parametrize("moment", ["create_dataset", "pwrite", "fsync", "replace"])
def test_a_disk_that_is_full_leaves_nothing(moment, tmp_path, refuses, monkeypatch):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))
    (tmp_path / "d.h5").write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Group if moment == "create_dataset" else unfinished.os, moment, full)
    with refuses(DataError, "d.h5 cannot be written", "No space left"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", version="1", overwrite=True)
    assert (tmp_path / "d.h5").read_text() == "old"
    only(tmp_path, "X.npy", "d.h5")


def test_no_room_for_scratch_is_a_line(tmp_path, refuses, monkeypatch):
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with refuses(DataError, "t.csv cannot be converted", "No space left", str(tmp_path)):
        convert(tmp_path / "t.csv", tmp_path / "d.h5", version="1")
    only(tmp_path, "t.csv")


@pytest.mark.parametrize("name", ["X.npy", "t.csv"])
def test_killed_at_any_moment_there_is_no_file_under_the_final_name(name, tmp_path):
    """Kill −9 in the middle: what is left has another name, and the next conversion is not disturbed by it."""
    np.save(tmp_path / "X.npy", np.ones((400_000, 20)))
    (tmp_path / "t.csv").write_text("1,2,3\n" * 300_000)
    code = "import sys\nfrom gpubp.data.convert import convert\nprint(flush=True)\n"
    code += "convert(sys.argv[1], sys.argv[2], y='none', version='1')\nprint('done')"
    for delay in (0.0, 0.03, 0.1):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / "d.h5")],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
            finished = "done" in process.stdout.read()
        target = tmp_path / "d.h5"
        assert target.exists() or not finished
        if target.exists():
            assert read(target)[0].shape[0] in (300_000, 400_000)
            target.unlink()
    convert(tmp_path / name, tmp_path / "d.h5", y="none", version="1")
    assert read(tmp_path / "d.h5")[0].any()


def test_a_table_larger_than_the_memory_it_takes(tmp_path):
    """41 MB of text become 36 MB of rows; what the process has of its own grows by far less."""
    line = ",".join(["0.123456"] * 100) + ",7\n"
    (tmp_path / "t.csv").write_text(line * 45_000)
    code = """
import sys, threading
from gpubp.data.convert import convert
def own():
    return sum(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('RssAnon'))
start, seen, stop = own(), [], threading.Event()
thread = threading.Thread(target=lambda: [seen.append(own()) for _ in iter(lambda: stop.wait(0.01), True)])
thread.start()
convert(sys.argv[1], sys.argv[2], version='1')
stop.set()
thread.join()
print(max(seen) - start)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t.csv"), str(tmp_path / "d.h5")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 40_000_000
