"""Who reads rows, from which layouts: gpubp, the limit (`preadv` alone), and the peers.

A reader is made from a file, the file's contiguous twin, and the rows that are in it; each call reads all of them (or
the first ones, where a peer is so slow that all would take minutes) block after block into memory that is used again.
To add one, write such a function and add a line to `READERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from problems import Absent

Array = np.ndarray
BLOCK = 4 << 20  # bytes that are read at a time, unless the name says otherwise
CHUNK = 1 << 20
BATCH = 1024  # rows of a DataLoader's batch
ROWS = 20_000  # that a DataLoader reads one by one in a turn


def make(kind: str, megabytes: float) -> Array:
    """Rows that compress about as measurements (float32, 1024 columns) and as images (uint8, 784) do."""
    rng = np.random.default_rng(0)
    dtype, d = {"float32": (np.float32, 1024), "uint8": (np.uint8, 784)}[kind]
    n = max(8, int(megabytes * 1e6) // (d * np.dtype(dtype).itemsize))
    if kind == "uint8":
        return rng.integers(0, 256, (n, d), np.uint8) * (rng.random((n, d), np.float32) < 0.2).astype(np.uint8)
    return np.round(rng.standard_normal((n, d), np.float32) * 8) / np.float32(8)


def _plugin(name: str, **options: Any) -> dict[str, Any]:
    try:
        import hdf5plugin
    except ImportError:
        raise Absent("hdf5plugin, which writes such files, is not installed") from None
    return dict(getattr(hdf5plugin, name)(**options))


# How the dataset is created, given the rows of a chunk of 1 MiB and the columns.
LAYOUTS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "contiguous": lambda c, d: {},
    "chunks of 1 MiB": lambda c, d: {"chunks": (c, d)},
    "blosc-lz4": lambda c, d: {"chunks": (c, d), **_plugin("Blosc", cname="lz4", shuffle=1)},
    "zstd": lambda c, d: {"chunks": (c, d), "shuffle": True, **_plugin("Zstd")},
    "gzip": lambda c, d: {"chunks": (c, d), "shuffle": True, "compression": "gzip"},
    "h5py's own chunks": lambda c, d: {"chunks": True},
}


def write(path: Path, X: Array, layout: str) -> None:
    """The rows as the dataset "X" of a file.

    Raises:
        Absent: the filter is not installed.
    """
    rows, d = min(len(X), max(1, CHUNK // (X.shape[1] * X.itemsize))), X.shape[1]
    options = LAYOUTS[layout](rows, d)
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=X, **options)


@dataclass
class Reading:
    """One reader, ready.

    Attributes:
        run: read the rows once.
        rows: how many that is.
        blocks: the same, giving each block, for a look at its values.
        close: let go of files and workers.
    """

    run: Callable[[], object]
    rows: int
    blocks: Callable[[], Iterator[Array]] | None
    close: Callable[[], object] = lambda: None


def _in_blocks(X: Array, size: int, read: Callable[[int, int, Array], object], close: Callable[[], object]) -> Reading:
    step = max(1, size // (X.shape[1] * X.itemsize))
    out = np.zeros((min(step, len(X)), X.shape[1]), X.dtype)

    def blocks() -> Iterator[Array]:
        for start in range(0, len(X), step):
            part = out[: min(step, len(X) - start)]
            read(start, start + len(part), part)
            yield part

    def run() -> None:
        for _ in blocks():
            pass

    return Reading(run, len(X), blocks, close)


def _offset(twin: Path) -> int:
    with h5py.File(twin, locking=False) as file:
        values: Any = file["X"]
        found = values.id.get_offset()
    assert found is not None
    return found


def _preadv(path: Path, twin: Path, X: Array) -> Reading:
    """One thread, from the contiguous twin."""
    fd, offset = os.open(twin, os.O_RDONLY), _offset(twin)
    row = X.shape[1] * X.itemsize
    return _in_blocks(
        X, BLOCK, lambda a, b, out: os.preadv(fd, [out.data.cast("B")], offset + a * row), lambda: os.close(fd)
    )


def _preadv_by_two(path: Path, twin: Path, X: Array) -> Reading:
    """Two threads on alternate blocks, each into a buffer of its own, from the contiguous twin."""
    fd, offset = os.open(twin, os.O_RDONLY), _offset(twin)
    pool = ThreadPoolExecutor(2)
    buffers = [memoryview(bytearray(BLOCK)) for _ in range(2)]

    def some(k: int) -> None:
        for start in range(k * BLOCK, X.nbytes, 2 * BLOCK):
            os.preadv(fd, [buffers[k][: min(BLOCK, X.nbytes - start)]], offset + start)

    def run() -> None:
        list(pool.map(some, range(2)))

    def close() -> None:
        pool.shutdown()
        os.close(fd)

    return Reading(run, len(X), None, close)


def _gpubp(size: int) -> Callable[[Path, Path, Array], Reading]:
    def build(path: Path, twin: Path, X: Array) -> Reading:
        from gpubp.data.guard import open_file
        from gpubp.data.hdf5.rows import HdfRows

        file = open_file(path)
        rows = HdfRows(file, file.dataset("X"))
        return _in_blocks(X, size, rows.read, file.close)

    return build


def _gpubp_by_two(path: Path, twin: Path, X: Array) -> Reading:
    """Two threads on alternate blocks, each into a buffer of its own: how the first look and the passes read."""
    from gpubp.data.guard import open_file
    from gpubp.data.hdf5.rows import HdfRows

    file = open_file(path)
    rows = HdfRows(file, file.dataset("X"))
    pool, step = ThreadPoolExecutor(2), max(1, BLOCK // (X.shape[1] * X.itemsize))
    buffers = [np.zeros((step, X.shape[1]), X.dtype) for _ in range(2)]

    def some(k: int) -> None:
        for start in range(k * step, len(X), 2 * step):
            stop = min(start + step, len(X))
            rows.read(start, stop, buffers[k][: stop - start])

    def run() -> None:
        list(pool.map(some, range(2)))

    def close() -> None:
        pool.shutdown()
        file.close()

    return Reading(run, len(X), None, close)


def _h5py(path: Path, twin: Path, X: Array) -> Reading:
    file = h5py.File(path, locking=False)
    values: Any = file["X"]
    return _in_blocks(X, BLOCK, lambda a, b, out: values.read_direct(out, np.s_[a:b], np.s_[0 : b - a]), file.close)


def _memmap(path: Path, twin: Path, X: Array) -> Reading:
    if path != twin:
        raise Absent("only a contiguous file can be mapped")
    mapped = np.memmap(twin, X.dtype, "r", _offset(twin), X.shape)
    return _in_blocks(X, BLOCK, lambda a, b, out: np.copyto(out, mapped[a:b]), lambda: None)


def _loader(workers: int, slices: bool) -> Callable[[Path, Path, Array], Reading]:
    """A PyTorch DataLoader over h5py: row by row, or a batch in one slice."""

    def build(path: Path, twin: Path, X: Array) -> Reading:
        import torch  # type: ignore[import-not-found]
        from torch.utils.data import DataLoader  # type: ignore[import-not-found]

        rows = len(X) if slices else min(len(X), ROWS)
        loader: Any = DataLoader(
            (Slices if slices else Rows)(path, rows), batch_size=BATCH, num_workers=workers,
            collate_fn=torch.from_numpy if slices else None, persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip

        def blocks() -> Iterator[Array]:
            for batch in loader:
                yield batch.numpy()

        def run() -> None:
            for _ in loader:
                pass

        return Reading(run, rows, blocks)

    return build


class Rows:
    """A map-style data set as tutorials write it: the file is opened in the worker, a row is a slice."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path, self._rows, self._values = path, rows, None

    def __len__(self) -> int:
        return self._rows

    def values(self) -> Any:
        if self._values is None:
            self._values = h5py.File(self._path, locking=False)["X"]
        return self._values

    def __getitem__(self, row: int) -> Array:
        return self.values()[row]


class Slices(Rows):
    """The same, with a whole batch in one slice."""

    def __getitems__(self, rows: list[int]) -> Array:
        return self.values()[rows[0] : rows[-1] + 1]


@dataclass(frozen=True)
class Reader:
    """One line of the table: who, and whether it is "gpubp", the "limit" or a "peer"."""

    build: Callable[[Path, Path, Array], Reading]
    kind: str = "peer"


READERS = {
    "preadv, 2 threads": Reader(_preadv_by_two, "limit"),
    "preadv, 1 thread": Reader(_preadv, "limit"),
    "gpubp, 4 MB by 2 threads": Reader(_gpubp_by_two, "gpubp"),
    "gpubp, 4 MB": Reader(_gpubp(4 << 20), "gpubp"),
    "gpubp, 16 MB": Reader(_gpubp(16 << 20), "gpubp"),
    "h5py read_direct": Reader(_h5py),
    "NumPy memmap": Reader(_memmap),
    "DataLoader, slices": Reader(_loader(0, True)),
    "DataLoader, slices, 2 workers": Reader(_loader(2, True)),
    "DataLoader, rows": Reader(_loader(0, False)),
    "DataLoader, rows, 2 workers": Reader(_loader(2, False)),
}
