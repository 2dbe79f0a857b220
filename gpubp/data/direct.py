"""Rows read from where they lie in a file, straight into the buffer that uses them, from any number of threads.

A source whose rows are one piece of its file says so (`source.Extent`). Then nobody needs to be asked any more, neither
HDF5 nor Python's lock: the system's `pread` brings a block in. A compiled pass calls it from its own loop (it is given
`Direct.table`); `Direct.read` is the same for everyone else.

Storage is slow to answer and quick to deliver, so it is told ahead of time what will be wanted: whoever reads past a
multiple of `STEP` bytes has the system fetch the `STEP` bytes that begin `DEPTH` steps later. That needs no thread of
ours and no memory; for rows that the system has in memory anyhow it costs a look at each page.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .source import RowSource, extents

STEP, DEPTH = 1 << 20, 8  # 8 MB for each reader are on their way


class Direct:
    """The rows of a source, past it where they lie in a file as they are used.

    Attributes:
        ahead: (`STEP`, `DEPTH`).
        table: (parts, 4) int64, in order and without gaps: the part's first row, the row after its last one, the file
            descriptor (−1 where the source must be asked), and the byte at which its first row begins.
    """

    ahead: tuple[int, int] = (STEP, DEPTH)

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._row = source.features * source.dtype.itemsize
        parts = [(*rows, -1, 0) if at is None else (*rows, at.fd, at.offset) for *rows, at in extents(source)]
        self.table = np.array(parts, np.int64).reshape(-1, 4)

    def covers(self, start: int) -> bool:
        """Whether all rows from this one on can be read without the source."""
        return not (self.table[self.table[:, 1] > start, 2] < 0).any()

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out`, C-contiguous (stop − start, features) as stored, with rows start … stop − 1. Thread-safe.

        Raises:
            DataError: the rows cannot be read.
        """
        for first, end, fd, offset in self.table.tolist():
            low, high = max(start, first), min(stop, end)
            if low >= high:
                continue
            piece = out[low - start : high - start]
            at = offset + (low - first) * self._row
            if fd < 0 or not self._fill(fd, piece, at, offset + (end - first) * self._row):
                self._source.read(low, high, piece)  # it says what is wrong, in its own words

    def _fill(self, fd: int, piece: NDArray[Any], at: int, end: int) -> bool:
        """Whether the bytes from `at` on could be read; those ahead, before `end`, are asked for."""
        left = piece.data.cast("B")
        step, depth = self.ahead
        low, high = ((place // step + depth) * step for place in (at, at + len(left)))
        try:
            if low < min(high, end) and hasattr(os, "posix_fadvise"):  # macOS has none
                os.posix_fadvise(fd, low, min(high, end) - low, os.POSIX_FADV_WILLNEED)
            while left:
                count = os.preadv(fd, [left], at)
                if count <= 0:
                    return False  # the file ends here
                left, at = left[count:], at + count
        except OSError:
            return False
        return True
