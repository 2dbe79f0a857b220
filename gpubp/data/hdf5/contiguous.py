"""Rows that lie in the file as they are wanted, in one piece or in several: nothing but `preadv`.

Chunks that are neither compressed nor split between columns are such pieces too; HDF5 writes most of them one behind
the other, and those that are become one piece. A chunk at the end is stored in full, so that the rows beyond the last
are simply never read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from . import team

# Below SHARED one thread has read a block before another is awake; pieces of PIECE keep threads busy until the end.
SHARED, PIECE = 2 << 20, 1 << 18
LONG = 1 << 18  # bytes


class Extents:
    """Rows in pieces of the file.

    Args:
        fd: the file.
        starts: (n,) the first row of each piece, ascending from 0.
        offsets: (n,) where in the file that row lies.
        rows, row_bytes: of all.

    Attributes:
        offset: where in the file the first row lies, if all rows are one piece; else None.
        long: whether the pieces are long enough that their number costs little.
    """

    def __init__(
        self, fd: int, starts: NDArray[np.int64], offsets: NDArray[np.int64], rows: int, row_bytes: int
    ) -> None:
        joined = np.ones(len(starts), np.bool_)
        joined[1:] = offsets[1:] != offsets[:-1] + np.diff(starts) * row_bytes
        self._fd, self._row_bytes = fd, row_bytes
        self._starts, self._offsets = starts[joined], offsets[joined]
        self._stops = np.append(self._starts[1:], rows)
        self.offset = int(self._offsets[0]) if len(self._offsets) == 1 else None
        self.long = rows * row_bytes >= LONG * len(self._starts)

    @property
    def name(self) -> str:
        return "contiguous" if self.offset is not None else f"in {len(self._starts):,} contiguous pieces"

    def read(self, start: int, stop: int, out: memoryview) -> None:
        if self.offset is not None:
            read_at(self._fd, self.offset + start * self._row_bytes, out)
            return
        size = self._row_bytes
        first = int(np.searchsorted(self._starts, start, "right")) - 1
        last = int(np.searchsorted(self._starts, stop, "left"))
        parts: list[tuple[int, memoryview]] = []
        for low, high, offset in zip(
            self._starts[first:last].tolist(), self._stops[first:last].tolist(), self._offsets[first:last].tolist(),
            strict=True,
        ):  # fmt: skip
            a, b = max(low, start), min(high, stop)
            parts.append((offset + (a - low) * size, out[(a - start) * size : (b - start) * size]))
        if len(parts) == 1:
            read_at(self._fd, *parts[0])
        elif len(out) < SHARED or not team.idle():
            for offset, part in parts:
                read_here(self._fd, offset, part)
        else:
            _read_shared(self._fd, parts)


def _read_shared(fd: int, parts: Iterable[tuple[int, memoryview]]) -> None:
    """Several places of the file by several threads: long ones are cut, short ones taken together."""
    tasks: list[list[tuple[int, memoryview]]] = []
    size = PIECE
    for offset, part in parts:
        for at in range(0, len(part), PIECE):
            if size >= PIECE:
                tasks.append([])
                size = 0
            tasks[-1].append((offset + at, part[at : at + PIECE]))
            size += len(tasks[-1][-1][1])

    def task(i: int) -> None:
        for offset, part in tasks[i]:
            read_here(fd, offset, part)

    team.each(task, len(tasks), last=1)


def read_at(fd: int, offset: int, out: memoryview) -> None:
    """Fill `out` with the file's bytes from `offset`; large reads by several threads.

    Raises:
        OSError: they cannot be read.
        EOFError: there are fewer.
    """
    size = len(out)
    if size < SHARED or not team.idle():
        read_here(fd, offset, out)
        return

    def piece(i: int) -> None:
        read_here(fd, offset + i * PIECE, out[i * PIECE : (i + 1) * PIECE])

    team.each(piece, -(-size // PIECE), last=1)


def read_here(fd: int, offset: int, out: memoryview) -> None:
    """The same by this thread alone."""
    got = os.preadv(fd, (out,), offset)
    while got < len(out):
        if got == 0:
            raise EOFError("the file became shorter while it was read")
        out, offset = out[got:], offset + got
        got = os.preadv(fd, (out,), offset)
