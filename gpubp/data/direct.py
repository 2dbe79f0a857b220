"""Rows read from where they lie in a file, straight into the buffer that uses them, from any number of threads.

A source whose rows are one piece of its file says so (`source.Extent`). Then nobody needs to be asked any more, neither
HDF5 nor Python's lock: the system's `pread` brings a block in. A compiled pass calls it from its own loop (it is given
`Direct.table`); `Direct.read` is the same for everyone else.

Storage is slow to answer and quick to deliver, so it must know ahead of time what will be wanted. The system sees when
a file is read in order, for each time that it was opened: so each thread of a compiled pass opens it for itself. How
far the system then reads ahead is a setting, often of 128 KB. Where it is less than `ENOUGH`, whoever reads past a
multiple of `STEP` bytes has the system fetch the `STEP` bytes that begin `DEPTH` steps later, which takes no thread and
no memory of ours. (Where the setting is enough, that was seen to cost a tenth of the storage's rate and more.)
"""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import RowSource, extents

ENOUGH = 4 << 20
STEP, DEPTH = 4 << 20, 4  # 16 MB for each reader are on their way


class Direct:
    """The rows of a source, past it where they lie in a file as they are used.

    Attributes:
        ahead: (`STEP`, `DEPTH`), or (0, 0) where the system reads ahead by itself.
        table: (parts, 4) int64, in order and without gaps: the part's first row, the row after its last one, the file
            descriptor (−1 where the source must be asked), and the byte at which its first row begins.
    """

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._row = source.features * source.dtype.itemsize
        parts = [(*rows, -1, 0) if at is None else (*rows, at.fd, at.offset) for *rows, at in extents(source)]
        self.table = np.array(parts, np.int64).reshape(-1, 4)
        self._parts: list[list[int]] = self.table.tolist()
        self._ends = [end for _, end, _, _ in self._parts]
        self._files = sorted({fd for *_, fd, _ in parts if fd >= 0})
        self.ahead = (0, 0) if all(_read_ahead(fd) >= ENOUGH for fd in self._files) else (STEP, DEPTH)

    def covers(self, start: int) -> bool:
        """Whether all rows from this one on can be read without the source."""
        return not (self.table[self.table[:, 1] > start, 2] < 0).any()

    def opened_again(self) -> Opened:
        """A `table` for one thread."""
        return Opened(self.table, self._files)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out`, C-contiguous (stop − start, features) as stored, with rows start … stop − 1. Thread-safe.

        Raises:
            DataError: the rows cannot be read.
        """
        for part in range(bisect_right(self._ends, start), len(self._parts)):
            first, end, fd, offset = self._parts[part]
            low, high = max(start, first), min(stop, end)
            if low >= high:
                break
            piece = out[low - start : high - start]
            at = offset + (low - first) * self._row
            if fd < 0 or not self._fill(fd, piece, at, offset + (end - first) * self._row, low == first):
                self._source.read(low, high, piece)  # it says what is wrong, in its own words

    def _fill(self, fd: int, piece: NDArray[Any], at: int, end: int, begins: bool) -> bool:
        """Whether the bytes from `at` on could be read; those ahead, before `end`, are asked for."""
        left = piece.data.cast("B")
        step, depth = self.ahead
        try:
            if step and hasattr(os, "posix_fadvise"):  # macOS has none
                low, high = ((place // step + depth) * step for place in (at, at + len(left)))
                low, high = at if begins else low, min(high, end)
                if low < high:
                    os.posix_fadvise(fd, low, high - low, os.POSIX_FADV_WILLNEED)
            while left:
                count = os.preadv(fd, [left], at)
                if count <= 0:
                    return False  # the file ends here
                left, at = left[count:], at + count
        except OSError:
            return False
        return True


class Opened:
    """`Direct.table` whose files were opened once more, so that what one thread reads is in order for the system.

    They are closed with this object. The source's own are used where there are very many, and of one that cannot be
    opened again.

    Attributes:
        table: see `Direct`.
    """

    _MOST = 8

    def __init__(self, table: NDArray[np.int64], files: list[int]) -> None:
        self.table = table.copy()
        mine: list[int] = []
        weakref.finalize(self, _close, mine)
        for fd in files if len(files) <= self._MOST else []:
            with suppress(OSError):
                again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # this very file, whatever its name
                mine.append(again)
                self.table[self.table[:, 2] == fd, 2] = again


def _close(files: list[int]) -> None:
    for fd in files:
        os.close(fd)


def _read_ahead(fd: int) -> int:
    """By how many bytes the system reads ahead in this file; 0 where it does not say."""
    try:
        device = os.fstat(fd).st_dev
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb") as setting:
            return 1024 * int(setting.read())
    except (OSError, ValueError):
        return 0
