"""How the bytes of a dataset's rows get into memory: the choice among the ways there are.

Where the bytes in the file are the values: by `pread` alone (`contiguous`, and `chunked` where chunks split columns).
Where filters changed them and `codecs` can undo those: by `pread` and decoding (`chunked`). Everything else by way of
HDF5, in the process that is made for it, with a word on what that costs.

A way is believed only if it reads the first and the last row as HDF5 does.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import DataError
from .chunked import Compressed, Scattered, extents
from .codecs import Decoder, Unavailable
from .contiguous import Extents, read_here
from .file import HdfFile
from .stored import Stored

Read = Callable[[int, int, memoryview], None]

WARNED = 16 << 20  # bytes: smaller datasets are read at once, however slowly
_TIMED, _SECONDS = 64 << 20, 0.25  # bytes and seconds that a measurement of a way may take
_WASTE = 1.5  # how much slower than `pread` a way may be without a word


class Way(Protocol):
    """One way of reading.

    Attributes:
        name: what a person is told.
        slow: what it costs and what to do about it, for a warning; empty for a way that is fast. Measured when asked.
    """

    @property
    def name(self) -> str: ...
    @property
    def slow(self) -> str: ...

    def read(self, start: int, stop: int, out: memoryview) -> None:
        """Fill `out` with the bytes of rows start … stop − 1 as they are stored. From any thread.

        Raises:
            OSError, EOFError: they cannot be read, or there are fewer.
            DataError: a chunk is damaged, or HDF5 says no.
        """
        ...


class Reader(Protocol):
    """What does the reading for a way."""

    @property
    def name(self) -> str: ...
    def read(self, start: int, stop: int, out: memoryview) -> None: ...


class Direct:
    """Rows read and decoded here.

    Args:
        doubt: how they are read, if that may be slow.

    Attributes:
        offset: where the rows lie as one piece of the file; else None.
    """

    def __init__(self, reader: Reader, file: HdfFile, stored: Stored, name: str, doubt: str = "") -> None:
        self._reader, self._file, self._stored, self._name, self._doubt = reader, file, stored, name, doubt
        self._slow: str | None = None
        self.name, self.read = reader.name, reader.read
        self.offset = reader.offset if isinstance(reader, Extents) else None

    @property
    def slow(self) -> str:
        if self._doubt and self._slow is None:
            self._slow = _measured(self.read, self._file, self._stored, self._name, self._doubt, _WASTE)
        return self._slow or ""


class ThroughHdf5:
    """Rows as HDF5 gives them, in the process that is made for it.

    Args:
        reason: why no other way was taken.
    """

    name = "through HDF5"

    def __init__(self, file: HdfFile, stored: Stored, name: str, reason: str) -> None:
        self._file, self._stored, self._name, self.reason = file, stored, name, reason
        self._slow: str | None = None

    @property
    def slow(self) -> str:
        if self._slow is None:
            how = f"through HDF5 because {self.reason}"
            self._slow = _measured(self.read, self._file, self._stored, self._name, how, 0)
        return self._slow

    def read(self, start: int, stop: int, out: memoryview) -> None:
        self._file.read(self._stored, int(start), int(stop), out)


def choose(file: HdfFile, stored: Stored, name: str) -> Way:
    """The fastest way for a dataset that reads what HDF5 reads.

    Args:
        stored: from `HdfFile.dataset`, or what its `as_table` gives.
        name: the dataset, for messages.

    Raises:
        DataError: HDF5 cannot read it, where there is no other way.
    """
    try:
        way = _direct(file, stored, name)
        reason = _difference(way, stored)
        if not reason:
            return way
    except Unavailable as why:
        reason = str(why)
    except (DataError, OSError, EOFError):
        if stored.unknown:
            raise  # HDF5 lacks the filter: it cannot do better
        reason = "its first or last row cannot be read here"
    return ThroughHdf5(file, stored, name, reason)


def _direct(file: HdfFile, stored: Stored, name: str) -> Direct:
    """The way without HDF5.

    Raises:
        Unavailable: why there is none.
    """
    if not stored.exact:
        raise Unavailable("its type is none that NumPy has" if stored.layout != "virtual" else "it is virtual")
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    if stored.layout == "contiguous" and stored.offset is not None:
        zero = np.zeros(1, np.int64)
        rows = Extents(file.fd, zero, zero + stored.offset, stored.shape[0], stored.row_bytes)
        return Direct(rows, file, stored, name)
    if stored.layout != "chunked" or stored.chunks is None or stored.chunk_shape is None:
        raise Unavailable(f"its layout is {stored.layout}")
    size = math.prod(stored.chunk_shape) * stored.dtype.itemsize
    if stored.filters:
        reader = Compressed(file.fd, stored, name, Decoder(stored.filters, size))
        doubt = "from compressed chunks that split columns" if reader.wasteful else ""
        return Direct(reader, file, stored, name, doubt)
    if (stored.chunks[:, 1] != size).any():
        raise Unavailable("its chunks have several sizes")
    if stored.chunk_shape[1:] == stored.shape[1:]:
        rows = extents(file.fd, stored)
        return Direct(rows, file, stored, name, "" if rows.long else "from chunks of few rows")
    return Direct(Scattered(file.fd, stored), file, stored, name, "from chunks that split columns")


def _difference(way: Way, stored: Stored) -> str:
    """What is wrong with a way, seen in the first and the last row; empty if nothing is."""
    for row, sample in zip((0, stored.shape[0] - 1), stored.samples, strict=False):
        found = bytearray(len(sample))
        way.read(row, row + 1, memoryview(found))
        if found != sample:
            return f"row {row} read directly is not what HDF5 reads (please report this file's layout)"
    return ""


def _measured(read: Read, file: HdfFile, stored: Stored, name: str, how: str, bearable: float) -> str:
    """A line about the rate of a way beside that of `pread`; empty for small datasets and bearable rates."""
    if stored.declared < WARNED:
        return ""
    step = min(stored.shape[0], max(1, (1 << 20) // max(1, stored.row_bytes)))
    out = memoryview(bytearray(step * stored.row_bytes))
    done, began, now = 0, time.perf_counter(), 0.0
    for start in range(0, stored.shape[0] - step + 1, step):
        read(start, start + step, out)
        done, now = done + len(out), time.perf_counter() - began
        if done >= _TIMED or now > _SECONDS:
            break
    rate, plain = done / now, _plain_rate(file.fd)
    times = plain / rate
    if times < bearable:
        return ""
    much = f"{times:.0f} times slower than the file's bytes can be read; " if times >= 2 else ""
    source = Path(file.shown)
    line = shlex.join(["gpubp", "convert", str(source), str(source.with_name(f"{source.stem}-fast.h5"))])
    return f"{name} is read {how}: about {rate / 1e6:.0f} MB/s, {much}{line} makes a file that is read at full speed"


def _plain_rate(fd: int) -> float:
    """Bytes per second of `pread` from the beginning of a file, the second time, so that it lies in memory."""
    out = memoryview(bytearray(min(os.fstat(fd).st_size, 8 << 20)))
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        read_here(fd, 0, out)
        seconds = time.perf_counter() - began
    return len(out) / max(seconds, 1e-9)
