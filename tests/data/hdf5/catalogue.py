"""Bad files: each function writes one, and its line is what `gpubp train FILE --out RUN` must answer.

In a line, {path} is the file, {folder} where it lies, and … stands for anything (the HDF5 library's own words, which
change). Beside the files lie others that must never be opened: see `plant`.

    python tests/data/hdf5/catalogue.py     runs each in a process of its own, with its time and its memory
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[3]
X = np.random.default_rng(3).normal(size=(60, 4)).astype("f4")
Y = (np.arange(60) % 3).astype("i4")
SECRET = b"secret of the user, not of the file. " * 200


@dataclass(frozen=True)
class Bad:
    """One bad file: how it is made, what is said, what the command is called with, why it cannot be made here."""

    name: str
    make: Callable[[Path], object]
    line: str
    code: int
    options: tuple[str, ...]
    skip: str

    def arguments(self, path: Path, run: Path) -> list[str]:
        return ["train", str(path), "--out", str(run), "--iterations", "2", "--hidden", "3", *self.options]

    def agrees(self, said: str, path: Path) -> bool:
        line = self.line.replace("{path}", str(path)).replace("{folder}", str(path.parent))
        return re.fullmatch(".*".join(map(re.escape, line.split("…"))), said) is not None


CATALOGUE: dict[str, Bad] = {}


def bad(line: str, *options: str, code: int = 3, skip: str = "") -> Callable[[Callable[[Path], object]], object]:
    def enter(make: Callable[[Path], object]) -> object:
        CATALOGUE[make.__name__] = Bad(make.__name__, make, line, code, options, skip)
        return make

    return enter


def plant(folder: Path) -> None:
    """What lies beside the bad files and is none of theirs."""
    (folder / "secret.txt").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as other:
        other["X"], other["y"] = X, Y
    os.mkfifo(folder / "pipe-that-waits.h5")


@contextlib.contextmanager
def h5(path: Path, x: bool = False, y: bool = True, **options: object) -> Iterator[h5py.File]:
    """An HDF5 file with a sound y, and a sound X if asked for."""
    with h5py.File(path, "w", **options) as file:
        if x:
            file["X"] = X
        if y:
            file["y"] = Y
        yield file


def patched(path: Path, place: int, new: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[place : place + len(new)] = new
    path.write_bytes(raw)


# ------------------------------------------------------------------------------------------------ no file, or no HDF5


@bad("?")
def missing(path: Path) -> None: ...


@bad("?")
def empty(path: Path) -> None:
    path.touch()


@bad("?")
def folder(path: Path) -> None:
    path.mkdir()


@bad("?")
def fifo(path: Path) -> None:
    os.mkfifo(path)


@bad("?")
def link_to_a_fifo(path: Path) -> None:
    path.symlink_to(path.parent / "pipe-that-waits.h5")


@bad("?")
def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@bad("?")
def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


@bad("?", skip="root may read everything" if os.geteuid() == 0 else "")
def not_permitted(path: Path) -> None:
    with h5(path, x=True):
        pass
    path.chmod(0)


@bad("?")
def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)


@bad("?")
def proc_file(path: Path) -> None:
    path.symlink_to("/proc/self/environ")


@bad("?")
def zeros_without_end(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 42)


@bad("?")
def picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3)


@bad("?")
def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.txt", "1,2,3")


@bad("?")
def npz(path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, X=X, y=Y)
    path.write_bytes(held.getvalue())


@bad("?")
def text(path: Path) -> None:
    path.write_text("a,b,label\n1,2,0\n3,4,1\n")


@bad("?")
def gzipped(path: Path) -> None:
    with h5(path, x=True):
        pass
    path.write_bytes(gzip.compress(path.read_bytes()))


@bad("?")
def signature_alone(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))


@bad("?")
def signature_further_on(path: Path) -> None:
    path.write_bytes(bytes(1024) + b"\x89HDF\r\n\x1a\n" + b"\xff" * 500)


@bad("?")
def cut_in_the_superblock(path: Path) -> None:
    whole(path)
    os.truncate(path, 60)


@bad("?")
def cut_in_half(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size // 2)


@bad("?")
def cut_at_the_end(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size - 50)


@bad("?")
def cut_in_the_chunks(path: Path) -> None:
    with h5(path, libver="latest") as file:
        file.create_dataset("X", data=X, chunks=(10, 4), compression="gzip")
    os.truncate(path, path.stat().st_size - 300)


def whole(path: Path) -> None:
    with h5(path, x=True):
        pass


# ------------------------------------------------------------------------------------------- what leads out of the file


@bad("?")
def external_link(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("other.h5", "/X")


@bad("?")
def external_link_to_a_fifo(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("pipe-that-waits.h5", "/X")


@bad("?")
def external_link_to_nothing(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.ExternalLink("/nowhere/gone.h5", "/X")


@bad("?", "--x", "train/X", "--y", "y")
def external_link_on_the_way(path: Path) -> None:
    with h5(path) as file:
        file["train"] = h5py.ExternalLink("other.h5", "/")


@bad("?")
def external_labels(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file["y"] = h5py.ExternalLink("other.h5", "/y")


@bad("?")
def external_storage(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[(str(path.parent / "secret.txt"), 0, 240)])


@bad("?")
def external_storage_relative(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("../" * 9 + "etc/passwd", 0, 240)])


@bad("?")
def external_storage_missing(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("gone.bin", 0, 240)])


@bad("?")
def external_storage_unlimited(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "u1", external=[("secret.txt", 0, h5py.h5f.UNLIMITED)])


@bad("?")
def external_labels_storage(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", (60,), "u1", external=[("secret.txt", 0, 60)])


@bad("?")
def soft_link_to_nothing(path: Path) -> None:
    with h5(path) as file:
        file["X"] = h5py.SoftLink("/not/here")


@bad("?")
def soft_link_in_a_circle(path: Path) -> None:
    with h5(path) as file:
        file["X"], file["Z"] = h5py.SoftLink("/Z"), h5py.SoftLink("/X")


@bad("?")
def soft_link_by_an_external_one(path: Path) -> None:
    with h5(path) as file:
        file["far"] = h5py.ExternalLink("other.h5", "/")
        file["X"] = h5py.SoftLink("/far/X")


@bad("?")
def soft_link_to_a_group(path: Path) -> None:
    with h5(path) as file:
        file.create_group("tables")
        file["X"] = h5py.SoftLink("/tables")


@bad("?")
def virtual(path: Path) -> None:
    _virtual(path, "other.h5")


@bad("?")
def virtual_absolute(path: Path) -> None:
    _virtual(path, str(path.parent / "other.h5"))


@bad("?")
def virtual_missing(path: Path) -> None:
    _virtual(path, "/nowhere/gone.h5")


@bad("?")
def virtual_fifo(path: Path) -> None:
    _virtual(path, "pipe-that-waits.h5")


@bad("?")
def virtual_pattern(path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.VIRTUAL)
    space = h5py.h5s.create_simple((60, 4), (h5py.h5s.UNLIMITED, 4))
    space.select_hyperslab((0, 0), (h5py.h5s.UNLIMITED, 1), (10, 4), (10, 4))
    plist.set_virtual(space, b"other-%b.h5", b"X", h5py.h5s.create_simple((10, 4)))
    with h5(path) as file:
        whole = h5py.h5s.create_simple((60, 4), (h5py.h5s.UNLIMITED, 4))
        h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, whole, plist)


def _virtual(path: Path, source: str) -> None:
    layout = h5py.VirtualLayout((60, 4), "f4")
    layout[:] = h5py.VirtualSource(source, "X", (60, 4))
    with h5(path) as file:
        file.create_virtual_dataset("X", layout, fillvalue=0)


# --------------------------------------------------------------------------------- what was never written, and too much


@bad("?")
def never_written(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4")


@bad("?")
def never_written_chunks(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4", chunks=(10, 4))


@bad("?")
def partly_written(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), "f4", chunks=(10, 4), fillvalue=7)[:20] = X[:20]


@bad("?")
def labels_never_written(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", (60,), "i4")


@bad("?")
def rows_without_end(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (1 << 40, 1 << 20), "f8", chunks=(1, 64))


@bad("?")
def columns_without_end(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 1 << 50), "u1", chunks=(1, 64))


@bad("?")
def more_than_the_file_has(path: Path) -> None:
    with h5(path) as file:
        file["X"] = X
    with h5py.File(path) as file:
        offset = file["X"].id.get_offset()
    raw = path.read_bytes()
    layout = raw.index(offset.to_bytes(8, "little") + X.nbytes.to_bytes(8, "little"))
    space = raw.index(b"".join(n.to_bytes(8, "little") for n in X.shape))
    rows = 1 << 32
    patched(path, space, rows.to_bytes(8, "little"))
    if raw.count(X.shape[0].to_bytes(8, "little") + X.shape[1].to_bytes(8, "little")) > 1:
        patched(path, space + 16, rows.to_bytes(8, "little"))
    patched(path, layout + 8, (rows * 16).to_bytes(8, "little"))


@bad("?")
def holes(path: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5(path) as file:
        h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((60, 1 << 32)), plist)


@bad("?")
def gzip_bomb(path: Path) -> None:
    """A chunk of zeros, repeated: deflate's best is 1/1032, twice makes one in a million."""
    chunk = np.zeros((1 << 16, 64), "f4")
    raw = zlib_twice(chunk.tobytes())
    with h5(path) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(chunk.shape)
        plist.set_deflate(9)
        plist.set_deflate(9)
        space = h5py.h5s.create_simple((1 << 22, 64))
        values = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, plist)
        for row in range(0, 1 << 22, 1 << 16):
            values.write_direct_chunk((row, 0), raw)


def zlib_twice(raw: bytes) -> bytes:
    import zlib

    return zlib.compress(zlib.compress(raw, 9), 9)


@bad("?", skip="" if importlib.util.find_spec("hdf5plugin") else "hdf5plugin is not installed")
def blosc_bomb(path: Path) -> None:
    import hdf5plugin

    with h5(path) as file:
        values = file.create_dataset("X", (1 << 24, 64), "u1", chunks=(1 << 20, 64), **hdf5plugin.Blosc2("zstd", 9))
        values[: 1 << 20] = 0
        _, raw = values.id.read_direct_chunk((0, 0))
        for row in range(1 << 20, 1 << 24, 1 << 20):
            values.id.write_direct_chunk((row, 0), raw)


@bad("?")
def huge_chunk(path: Path) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", (1 << 15, 1 << 15), "u1", chunks=(1 << 15, 1 << 15), compression="gzip")
        values.id.write_direct_chunk((0, 0), zlib_twice(bytes(100)))


@bad("?")
def chunk_that_grows(path: Path) -> None:
    """One chunk says 60 rows of 4 numbers; it unpacks to 1 GB."""
    with h5(path) as file:
        values = file.create_dataset("X", (60, 4), "f4", chunks=(60, 4), compression="gzip")
        import zlib

        packer = zlib.compressobj(9)
        raw = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
        values.id.write_direct_chunk((0, 0), raw)


@bad("?")
def group_in_itself(path: Path) -> None:
    with h5(path, y=False) as file:
        file.create_group("g")["up"] = file["/"]
        file["g/again"] = file["g"]


@bad("?")
def many_groups(path: Path) -> None:
    with h5(path, libver="latest") as file:
        for number in range(20_000):
            file.create_group(f"g{number}")


@bad("?")
def many_names(path: Path) -> None:
    with h5(path, libver="latest") as file:
        for number in range(26_000):
            file[f"s{number}"] = h5py.SoftLink("/y")


@bad("?")
def many_attributes(path: Path) -> None:
    with h5(path, libver="latest") as file:
        file.create_dataset("X", (60, 4), "f4")
        for number in range(100_000):
            file["X"].attrs[f"a{number}"] = number


@bad("?")
def very_deep(path: Path) -> None:
    with h5(path, y=False) as file:
        file["/".join(["g"] * 500) + "/X"] = X


@bad("?")
def long_name(path: Path) -> None:
    with h5(path, y=False, libver="latest") as file:
        file["X" * 60_000] = X


@bad("?")
def names_that_a_terminal_obeys(path: Path) -> None:
    with h5(path, y=False) as file:
        file["\x1b]0;owned\x07\x1b[2J\ngpubp: all is well\u202e"] = X


@bad("?", "--x", "X\x1b[31m")
def trouble_in_a_name_that_a_terminal_obeys(path: Path) -> None:
    with h5(path) as file:
        file["X\x1b[31m"] = h5py.ExternalLink("other\x1b[2J.h5", "/X")


# --------------------------------------------------------------------------------------------------- filters and chunks


@bad("?")
def unknown_filter(path: Path) -> None:
    _filtered(path, optional=False)


@bad("?")
def unknown_optional_filter(path: Path) -> None:
    _filtered(path, optional=True)


def _filtered(path: Path, *, optional: bool) -> None:
    with h5(path) as file:
        file.create_dataset("X", data=X, chunks=(60, 4), compression="lzf")
    raw = path.read_bytes()
    place = raw.index((32000).to_bytes(2, "little") + b"\x08\x00")
    patched(path, place, (32199).to_bytes(2, "little"))
    if not optional:
        patched(path, place + 4, b"\x00\x00")


@bad("?")
def damaged_gzip(path: Path) -> None:
    _damaged(path, compression="gzip")


@bad("?")
def damaged_lzf(path: Path) -> None:
    _damaged(path, compression="lzf")


@bad("?")
def damaged_checksum(path: Path) -> None:
    _damaged(path, fletcher32=True)


@bad("?")
def damaged_offsets(path: Path) -> None:
    _damaged(path, scaleoffset=3)


def _damaged(path: Path, **options: object) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", data=X, chunks=(20, 4), **options)
        info = values.id.get_chunk_info(1)
    patched(path, info.byte_offset + 2, b"\x5a\xa5" * ((info.size - 6) // 2))


@bad("?")
def chunks_outside_of_the_file(path: Path) -> None:
    with h5(path) as file:
        values = file.create_dataset("X", data=X, chunks=(20, 4))
        offset = values.id.get_chunk_info(2).byte_offset
    patched(path, path.read_bytes().index(offset.to_bytes(8, "little")), (1 << 33).to_bytes(8, "little"))


# ---------------------------------------------------------------------------------------------------- shapes and types


def _holding(values: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5(path) as file:
            file["X"] = values

    return make


for _name, _values in {
    "one_value": 3.0,
    "nothing": h5py.Empty("f4"),
    "one_axis": X[:, 0],
    "no_rows": X[:0],
    "no_columns": X[:, :0],
    "complex_numbers": X + 1j,
    "text_for_x": np.full((60, 4), b"1.5"),
    "opaque": np.zeros((60, 4), "V6"),
    "compound": np.zeros(60, [("a", "S3"), ("b", "S4")]),
    "not_a_number": np.where(X == X[7, 2], np.nan, X),
    "infinite": np.where(X == X[9, 1], -np.inf, X),
    "too_large_a_spread": np.where(X == X[5, 3], 1e300, X.astype("f8")),
}.items():
    _make = _holding(_values)
    _make.__name__ = _name
    bad("?")(_make)


@bad("?")
def rows_of_different_lengths(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60,), h5py.vlen_dtype("f4"))[0] = [1.0, 2.0]


@bad("?")
def texts_of_different_lengths(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", data=np.full((60, 4), "1.5", object), dtype=h5py.string_dtype())


@bad("?")
def references(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60, 4), h5py.ref_dtype)[:] = file["y"].ref


@bad("?")
def region_references(path: Path) -> None:
    with h5(path) as file:
        file.create_dataset("X", (60,), h5py.regionref_dtype)[:] = file["y"].regionref[2:9]


@bad("?")
def long_doubles(path: Path) -> None:
    with h5(path) as file:
        file["X"] = X.astype(np.longdouble)


@bad("?")
def a_group_for_x(path: Path) -> None:
    with h5(path) as file:
        file["X/a"], file["X/b"] = X, X


@bad("?")
def two_for_x(path: Path) -> None:
    with h5(path, x=True) as file:
        file["data"] = X


# ------------------------------------------------------------------------------------------------- labels and weights


def _labelled(options: tuple[str, ...], **datasets: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5(path, x="X" not in datasets, y="y" not in datasets) as file:
            for name, values in datasets.items():
                if values is not None:
                    file[name] = values

    return make


for _name, _options, _datasets in [
    ("no_labels", (), {"y": None}),
    ("fewer_labels", (), {"y": Y[:50]}),
    ("transposed", (), {"X": np.ascontiguousarray(X.T)}),
    ("labels_in_a_row", (), {"y": Y.reshape(1, 60)}),
    ("labels_with_three_axes", (), {"y": np.zeros((60, 2, 2))}),
    ("label_not_a_number", (), {"y": np.where(np.arange(60) == 4, np.nan, Y)}),
    ("label_between", ("--cost", "softmax"), {"y": np.where(np.arange(60) == 4, 1.7, Y)}),
    ("one_class", (), {"y": np.zeros(60, "i4")}),
    ("as_many_classes_as_rows", (), {"y": np.arange(200), "X": np.zeros((200, 2), "f4") + np.arange(2)}),
    ("label_beyond_integers", ("--cost", "softmax"), {"y": np.where(np.arange(60) == 4, 1e300, Y)}),
    ("complex_labels", (), {"y": Y + 1j}),
    ("labels_not_utf8", (), {"y": np.where(Y == 1, b"\xff\xfe", b"ok")}),
    ("labels_of_text_in_columns", (), {"y": np.full((60, 2), b"ok")}),
    ("weight_negative", (), {"w": np.where(np.arange(60) == 8, -1.0, 1)}),
    ("weight_not_a_number", (), {"w": np.where(np.arange(60) == 8, np.nan, 1)}),
    ("weight_infinite", (), {"w": np.where(np.arange(60) == 8, np.inf, 1)}),
    ("weights_zero", (), {"w": np.zeros(60)}),
    ("fewer_weights", (), {"w": np.ones(59)}),
    ("weights_of_text", (), {"w": np.full(60, b"1")}),
]:
    _make = _labelled(_options, **_datasets)
    _make.__name__ = _name
    bad("?", *_options)(_make)


@bad("?")
def a_label_without_end(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        labels = np.full(60, "a", object)
        labels[3] = "b" * (3 << 20)
        file.create_dataset("y", data=labels, dtype=h5py.string_dtype())


@bad("?")
def labels_not_utf8_of_any_length(path: Path) -> None:
    with h5(path, x=True, y=False) as file:
        file.create_dataset("y", data=np.full(60, b"\xff\xfe", object), dtype=h5py.string_dtype())


# ------------------------------------------------------------------------------------------------ each in a process


def run_alone(one: Bad, folder: Path) -> tuple[int, str, str, float, int]:
    """(exit code, stdout, stderr, seconds, bytes of the largest process) of the real command over a file."""
    path, run = folder / f"{one.name}.h5", folder / f"{one.name}.run"
    one.make(path)
    before = listing(folder)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GPUBP_")} | {"PYTHONPATH": str(ROOT)}
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "gpubp", *one.arguments(path, run)]
        process = subprocess.Popen(command, stdout=out, stderr=said, cwd=folder, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), said.seek(0)
        assert listing(folder) == before, f"{one.name}: something was written"
        texts = out.read().decode(), said.read().decode()
    return process.returncode, *texts, seconds, usage.ru_maxrss << 10


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder, with sizes and times."""
    return {
        one.name: (one.lstat().st_size, one.lstat().st_mtime_ns) for one in folder.iterdir() if one.suffix != ".trace"
    }


def remove(path: Path) -> None:
    """The file, whatever it is; so that many large ones do not lie there at once."""
    found = path.lstat() if path.is_symlink() or path.exists() else None
    if found is not None:
        path.rmdir() if stat.S_ISDIR(found.st_mode) else path.unlink()


def main() -> int:
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant(folder)
        for one in list(CATALOGUE.values())[int(os.environ.get("FROM","0")):]:
            if one.skip:
                print(f"{one.name:40} skipped: {one.skip}")
                continue
            code, out, said, seconds, memory = run_alone(one, folder)
            path = folder / f"{one.name}.h5"
            line = said.removeprefix("gpubp: error: ").removesuffix("\n")
            good = code == one.code and not out and one.agrees(line, path) and seconds < 2 and memory < 500e6
            wrong += not good
            print(f"{one.name:40} {'  ' if good else '!!'} {code} {seconds:5.2f} s {memory / 1e6:4.0f} MB  {line}")
            remove(path)
    print(f"{len(CATALOGUE)} files, {wrong} not as they should be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
