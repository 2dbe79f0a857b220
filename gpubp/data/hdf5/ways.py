"""How the bytes of a dataset's rows get into memory: by `pread` where they lie in one piece, or by way of HDF5."""

from __future__ import annotations

import os
from typing import Protocol

from ...errors import DataError
from .file import HdfFile
from .stored import Stored


class Way(Protocol):
    """One way of reading.

    Attributes:
        name: what a person is told.
        slow: what it costs and what to do about it, for a warning; empty for a way that is fast.
    """

    @property
    def name(self) -> str: ...
    @property
    def slow(self) -> str: ...

    def read(self, start: int, stop: int, out: memoryview) -> None:
        """Fill `out` with the bytes of rows start … stop − 1 as they are stored. From any thread.

        Raises:
            OSError, EOFError: they cannot be read, or there are fewer.
            DataError: HDF5 says no.
        """
        ...


class Contiguous:
    """Rows in one piece of the file."""

    name, slow = "contiguous", ""

    def __init__(self, fd: int, offset: int, row_bytes: int) -> None:
        self._fd, self._offset, self._row_bytes = fd, offset, row_bytes

    def read(self, start: int, stop: int, out: memoryview) -> None:
        at, rest = self._offset + start * self._row_bytes, out
        while len(rest):
            got = os.preadv(self._fd, [rest], at)
            if got == 0:
                raise EOFError("the file became shorter while it was read")
            rest, at = rest[got:], at + got


class ThroughHdf5:
    """Rows as HDF5 gives them, in the process that is made for it."""

    name = "through HDF5"

    def __init__(self, file: HdfFile, stored: Stored, slow: str) -> None:
        self._file, self._stored, self.slow = file, stored, slow

    def read(self, start: int, stop: int, out: memoryview) -> None:
        self._file.read(self._stored, start, stop, out)


def choose(file: HdfFile, stored: Stored, name: str) -> Way:
    """The fastest way for a dataset.

    Args:
        stored: from `HdfFile.dataset`.
        name: the dataset, for messages.

    Raises:
        DataError: the chosen way does not read what HDF5 reads.
    """
    if stored.layout == "contiguous" and stored.exact and stored.offset is not None:
        way = Contiguous(file.fd, stored.offset, stored.row_bytes)
        _compare(way, stored, name)
        return way
    return ThroughHdf5(file, stored, "it is not contiguous")


def _compare(way: Way, stored: Stored, name: str) -> None:
    for row, sample in zip((0, stored.shape[0] - 1), stored.samples, strict=False):
        found = bytearray(len(sample))
        way.read(row, row + 1, memoryview(found))
        if found != sample:
            raise DataError(
                f"{name}: row {row} read directly is not what the HDF5 library reads",
                wanted="the same bytes",
                do="please report this file's layout",
            )
