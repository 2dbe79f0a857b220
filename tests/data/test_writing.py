"""What convert writes is what was read, in every layout; and no accident leaves half a file."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
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
from gpubp.data.verify import verify
from gpubp.data.writing import checksums, tables
from gpubp.data.writing.layouts import fletcher32
from gpubp.data.writing.narrow import smallest_exact
from gpubp.data.writing.unfinished import sweep
from gpubp.errors import DataError, UsageError

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(8)
LAYOUTS = ["contiguous", "compress", "archive"]


def needs(layout: str) -> None:
    if layout == "compress":
        pytest.importorskip("numcodecs", reason="the extra 'codecs' is not installed")
        pytest.importorskip("hdf5plugin", reason="the extra 'codecs' is not installed")


def values(dtype: str, shape: tuple[int, ...]) -> Any:
    if dtype == "?":
        return RNG.random(shape) < 0.5
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    native = np.dtype(dtype).newbyteorder("=")
    return RNG.integers(limits.min, limits.max, shape, dtype=native, endpoint=True).astype(dtype)


def rows_of(path: Path, **options: Any) -> Any:
    with open_dataset(path, y_required=False, **options) as data:
        X = np.empty((data.source.m, data.source.features), data.source.dtype)
        data.source.read(0, data.source.m, X)
        return X


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", ">i2", "u2", "i4", "u4", "i8", ">u8", "f2", "f4", ">f4", "f8", ">f8"]
)
def test_every_type_in_every_layout_bit_for_bit(dtype, layout, tmp_path, monkeypatch):
    needs(layout)
    monkeypatch.setattr(checksums, "BLOCK", 700)
    monkeypatch.setattr(tables, "_PIECE", 2000)
    X, y = values(dtype, (203, 7)), values(dtype, (203, 2))
    if np.dtype(dtype).kind == "f":
        X[5, 3], X[6, 0], X[7, 1] = np.nan, np.inf, -0.0
    np.savez(tmp_path / "d.npz", X=X, y=y, sample_weight=np.arange(203))
    convert(tmp_path / "d.npz", tmp_path / "d.h5", layout=layout, version="1")
    found = rows_of(tmp_path / "d.h5")
    assert np.array_equal(found, X, equal_nan=X.dtype.kind == "f")
    assert np.array_equal(np.signbit(found), np.signbit(X)) if X.dtype.kind == "f" else True
    assert verify(tmp_path / "d.h5")["sound"]
    with open_dataset(tmp_path / "d.h5") as data:
        assert data.target is not None and np.array_equal(data.target, y)
        assert data.weights is not None and data.weights.tolist() == list(range(203))
    script = "import sys, h5py, numpy as np\n"
    script += "import hdf5plugin\n" * (layout == "compress")
    if dtype in ("?", ">f8", "u1"):  # by stock h5py, in a process that has none of ours
        script += "f = h5py.File(sys.argv[1]); d = np.load(sys.argv[2])\n"
        script += "assert np.array_equal(f['X'][:].astype(d['X'].dtype).view('u1'), d['X'].view('u1'))\n"
        script += "print(f['X'].chunks, f['X'].fletcher32)"
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "d.h5"), str(tmp_path / "d.npz")],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = max(1, 700 // (7 * smallest_exact(X).itemsize))
        expected = None if layout == "contiguous" else (rows, 7)
        assert done.stdout.split("\n")[0] == f"{expected} {layout == 'archive'}"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_value_that_the_guess_did_not_see(layout, tmp_path, monkeypatch):
    """Rows between those that a guess looks at: the type is widened, the file begun again."""
    needs(layout)
    monkeypatch.setattr("gpubp.data.writing.narrow._SAMPLE", 100)
    monkeypatch.setattr(tables, "_PIECE", 2000)
    for wide, stored in ((0.1, "f8"), (300, "i2"), (-1, "i1"), (2**40, "i8")):
        X = np.ones((5000, 5), "f8" if stored == "f8" else "i8")
        X[1777, 2] = wide
        np.save(tmp_path / "X.npy", X)
        found = convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", layout=layout, overwrite=True, version="1")
        assert found["parts"][0]["x_dtype"] == np.dtype(stored).name
        assert np.array_equal(rows_of(tmp_path / "d.h5"), X) and verify(tmp_path / "d.h5")["sound"]


def test_the_layout_on_disk(tmp_path):
    X = RNG.integers(0, 9, (5000, 300)).astype("f8")
    np.save(tmp_path / "X.npy", X)
    sizes = {}
    for layout in ("contiguous", "archive"):
        convert(tmp_path / "X.npy", tmp_path / f"{layout}.h5", y="none", layout=layout, version="1")
        sizes[layout] = (tmp_path / f"{layout}.h5").stat().st_size
    with h5py.File(tmp_path / "contiguous.h5") as file:
        stored = file["X"]
        assert isinstance(stored, h5py.Dataset)
        assert stored.chunks is None and stored.id.get_offset() % 4096 == 0
    with h5py.File(tmp_path / "archive.h5") as file:
        stored = file["X"]
        assert isinstance(stored, h5py.Dataset)
        assert stored.chunks == ((1 << 20) // 1200, 300)
        assert (stored.compression, stored.compression_opts) == ("gzip", 9) and stored.shuffle and stored.fletcher32
    assert sizes["archive"] < 0.2 * sizes["contiguous"] and sizes["contiguous"] < 1.01 * X.nbytes / 2 + 20000


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000, 721, 65537, 400_001])
@pytest.mark.parametrize("kind", ["random", "zero", "full"])
def test_fletcher32_is_that_of_hdf5(size, kind, tmp_path):
    data = {"random": RNG.bytes(size), "zero": bytes(size), "full": b"\xff" * size}[kind]
    if not size:
        assert fletcher32(data) == 0
        return
    with h5py.File(tmp_path / "f.h5", "w") as file:
        stored = file.create_dataset("x", data=np.frombuffer(data, "u1"), chunks=(size,), fletcher32=True)
        raw = stored.id.read_direct_chunk((0,))[1]
    assert int.from_bytes(raw[-4:], "little") == fletcher32(data)


def test_provenance(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    np.savez(tmp_path / "d.npz", x_train=np.ones((5, 2), ">f8"), y_train=np.arange(5, dtype="i8"))
    found = convert(tmp_path / "d.npz", tmp_path / "d.h5", version="7", command="gpubp convert d.npz d.h5")
    import hashlib

    source = (tmp_path / "d.npz").read_bytes()
    with h5py.File(tmp_path / "d.h5") as file:
        noted = {name: value for name, value in file.attrs.items() if name != "digest"}
        assert noted == {
            "converted_by": "gpubp 7", "created": "2023-11-14T22:13:20Z", "command": "gpubp convert d.npz d.h5",
            "source": "d.npz", "source_format": "an NPZ file", "source_bytes": len(source), "layout": "contiguous",
            "source_sha256": hashlib.sha256(source).hexdigest(), "content": found["content"],
        }  # fmt: skip
        assert dict(file["train/X"].attrs) == {"source_dtype": ">f8"}
        assert dict(file["train/y"].attrs) == {"source_dtype": "<i8"}
    convert(tmp_path / "d.npz", tmp_path / "e.h5", version="7", hash_source=False)
    with h5py.File(tmp_path / "e.h5") as file:
        assert "source_sha256" not in file.attrs and "command" not in file.attrs
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    convert(tmp_path / "e.h5", tmp_path / "f.h5", layout="archive", version="8")
    with h5py.File(tmp_path / "f.h5") as file:
        assert abs(time.time() - time.mktime(time.strptime(str(file.attrs["created"]), "%Y-%m-%dT%H:%M:%SZ"))) < 90_000
        assert '"source": "d.npz"' in str(file.attrs["history"]) and file.attrs["source"] == "e.h5"
        assert dict(file["train/X"].attrs) == {"source_name": "train/X", "source_dtype": "<f4"}
    assert verify(tmp_path / "f.h5")["sound"]


def test_a_source_that_changes_meanwhile(tmp_path, refuses):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))

    def somebody_else(*_):
        with open(tmp_path / "X.npy", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\0")

    with refuses(DataError, "X.npy was written to while it was converted"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", version="1", progress=somebody_else)
    assert [one.name for one in tmp_path.iterdir()] == ["X.npy"]


def test_missing_and_compress_that_cannot_be_had(tmp_path, refuses, monkeypatch):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", None)
    with refuses(DataError, "--compress needs numcodecs", "pip install 'gpubp[codecs]'"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", layout="compress", version="1")
    assert [one.name for one in tmp_path.iterdir()] == ["X.npy"]


CONVERT = """
import sys
from gpubp.data.convert import convert
print("ready", flush=True)
sys.stdin.readline()
print("go", flush=True)
convert(sys.argv[1], sys.argv[2], y="none", layout=sys.argv[3], overwrite=True, version="1")
print("done", flush=True)
"""


# One process that has everything loaded forks others and kills each after a while; its answer is how that one ended.
FORKS = """
import os, sys, time
from gpubp.data.convert import convert
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        convert(sys.argv[1], sys.argv[2], y="none", overwrite=True, version="1")
        os._exit(0)
    time.sleep(float(line))
    os.kill(pid, 9)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def converting(source: Path, target: Path, layout: str = "contiguous", **options: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(source), str(target), layout],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    assert process.stdout and process.stdin
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "go\n"
    return process


def test_killed_at_random_instants(tmp_path):
    """Kill −9: under the final name is nothing or the whole file; after one more conversion nothing else is left."""
    source, target = tmp_path / "X.npy", tmp_path / "d.h5"
    np.save(source, RNG.normal(size=(200_000, 20)))
    server = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(source), str(target)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    with server:
        assert server.stdin and server.stdout
        finished = left = 0
        for kill in range(24):
            server.stdin.write(f"{0.01 * kill}\n")
            server.stdout.readline()
            if target.exists():
                finished += 1
                assert verify(target)["sound"] and rows_of(target).shape == (200_000, 20)
                target.unlink()
            left = max(left, len(list(tmp_path.glob(".d.h5.*.unfinished"))))
        server.stdin.close()
    assert left == 1 and finished < 24  # each sweeps what the one before left
    convert(source, target, y="none", version="1")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["X.npy", "d.h5"] and verify(target)["sound"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted(name, tmp_path):
    """Ctrl-C leaves nothing; what SIGTERM leaves, the next one sweeps."""
    source, target = tmp_path / "X.npy", tmp_path / "d.h5"
    np.save(source, RNG.integers(0, 9, (400_000, 50)).astype("f4"))
    target.write_text("old")
    with converting(source, target, "archive") as process:
        while not list(tmp_path.glob(".d.h5.*.unfinished")):
            time.sleep(0.005)
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
        began = time.monotonic()
        process.wait()
        assert time.monotonic() - began < 5
    if name == "SIGTERM":
        assert len(list(tmp_path.glob(".d.h5.*.unfinished"))) == 1
        sweep(target)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["X.npy", "d.h5"] and target.read_text() == "old"


def test_what_another_still_makes_is_not_swept(tmp_path):
    for name in (".d.h5.1.unfinished", ".d.h5.2.unfinished", ".other.h5.3.unfinished"):
        (tmp_path / name).touch()
    with open(tmp_path / ".d.h5.1.unfinished") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(tmp_path / "d.h5")
        assert sorted(one.name for one in tmp_path.iterdir()) == [".d.h5.1.unfinished", ".other.h5.3.unfinished"]
    sweep(tmp_path / "d.h5")
    assert [one.name for one in tmp_path.iterdir()] == [".other.h5.3.unfinished"]


@pytest.mark.parametrize("layout", ["contiguous", "archive"])
def test_no_room(layout, tmp_path, refuses, monkeypatch):
    """Nothing is begun that has no room, and a compressed file ends before HDF5 meets a full disk."""
    np.save(tmp_path / "X.npy", RNG.random((30_000, 10)))
    free = 5_000_000

    def usage(_: Any) -> Any:
        return type("Usage", (), {"free": free})

    monkeypatch.setattr("gpubp.data.writing.unfinished.shutil.disk_usage", usage)
    with refuses(DataError, "d.h5 takes", "which has 5,000,000"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", layout=layout, version="1")
    assert [one.name for one in tmp_path.iterdir()] == ["X.npy"]


@pytest.mark.parametrize("layout", ["contiguous", "archive"])
def test_a_file_size_limit(layout, tmp_path):
    np.save(tmp_path / "X.npy", RNG.random((300_000, 10)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20, 9 << 20))

    with converting(tmp_path / "X.npy", tmp_path / "d.h5", layout, preexec_fn=limit) as process:
        _, error = process.communicate()
    assert process.returncode == 1 and "ulimit -f" in error.strip().splitlines()[-1], error
    assert [one.name for one in tmp_path.iterdir()] == ["X.npy"]


def test_a_small_disk(tmp_path):
    """A file system of 12 MB, where this process may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    np.save(tmp_path / "X.npy", RNG.random((300_000, 10)))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no permission to mount a file system")
    try:
        for layout in ("contiguous", "archive"):
            with pytest.raises(DataError, match="room for them"):
                convert(tmp_path / "X.npy", disk / "d.h5", y="none", layout=layout, version="1")
            assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_where_it_is_written(tmp_path, refuses):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real.h5").write_text("old")
    (tmp_path / "d.h5").symlink_to(tmp_path / "elsewhere" / "real.h5")
    with refuses(DataError, "d.h5 exists"):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", version="1")
    convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", overwrite=True, version="1")
    assert (tmp_path / "d.h5").is_symlink() and rows_of(tmp_path / "elsewhere" / "real.h5").shape == (5, 2)
    assert (tmp_path / "d.h5").stat().st_mode & 0o777 == 0o666 & ~_umask()
    if os.geteuid():
        (tmp_path / "elsewhere").chmod(0o500)
        with refuses(DataError, "cannot be written", "Permission denied"):
            convert(tmp_path / "X.npy", tmp_path / "elsewhere" / "new.h5", y="none", version="1")
        (tmp_path / "elsewhere").chmod(0o700)
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        with refuses(UsageError, "pipe is no ordinary file"):
            convert(tmp_path / "X.npy", tmp_path / "pipe", y="none", overwrite=overwrite, version="1")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_command_line(gpubp_process, tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,0\n3,4.5,1\n")
    found = gpubp_process("convert", tmp_path / "t.csv", tmp_path / "t.h5", "--archive", "--json").json
    assert found["layout"] == "archive"
    with h5py.File(tmp_path / "t.h5") as file:
        assert str(file.attrs["command"]).startswith("gpubp convert") and "--archive" in str(file.attrs["command"])
    assert "all 3 blocks have their checksums" in gpubp_process("verify", tmp_path / "t.h5").stdout
    both = gpubp_process("convert", tmp_path / "t.csv", tmp_path / "u.h5", "--archive", "--compress", check=2)
    assert "--compress and --archive" in both.error
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        X = file["X"]
        assert isinstance(X, h5py.Dataset)
        X[1, 1] = 5
    done = gpubp_process("verify", tmp_path / "t.h5", "--json", check=3)
    assert done.json["datasets"][0]["damaged_rows"] == [[0, 1]] and "X rows 0 to 1 are damaged" in done.error


def test_usage(tmp_path):
    np.save(tmp_path / "X.npy", np.ones((5, 2)))
    with pytest.raises(UsageError, match="no folder"):
        convert(tmp_path / "X.npy", tmp_path / "no" / "d.h5", y="none", version="1")


def test_an_interruption_does_not_wait_for_what_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 1000)
    monkeypatch.setattr(tables, "_PIECE", 400_000)
    np.save(tmp_path / "X.npy", RNG.random((100_000, 10)).astype("f4"))
    encoded = []

    def slow(_: Any, chunk: np.ndarray) -> bytes:
        encoded.append(len(chunk))
        time.sleep(0.0005)
        return b"0"

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpubp.data.writing.layouts.Archive.encode", slow)
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "X.npy", tmp_path / "d.h5", y="none", layout="archive", version="1", progress=interrupt)
    assert len(encoded) < 1100  # each thread has 400 chunks before it
    assert [one.name for one in tmp_path.iterdir()] == ["X.npy"]
