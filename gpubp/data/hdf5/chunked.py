"""Rows in chunks: those of a block are read, decoded and put in place by several threads, without HDF5.

A chunk that lies whole in a block is decoded where it is wanted. Of others a part is wanted, and the rest soon after,
by this block's neighbour: the last ones are kept decoded (`_Kept`), so that many small blocks decode each chunk once.
Chunks that are not compressed are never read further than the rows that are wanted.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ...backend.cores import available_cores
from ...errors import DataError
from . import team
from .codecs import Bytes, Decoder, scratch
from .contiguous import SHARED, Extents, read_at, read_here
from .stored import Stored

KEEP, MOST_KEPT = 32 << 20, 256 << 20  # bytes of decoded chunks
_CACHED = 1 << 20  # bytes of rows put together at a time: more does not get faster


class Grid:
    """Where the bytes of chunks belong.

    Attributes:
        size: bytes of a chunk.
        rows, row_bytes: of a chunk: how many, and the bytes of one.
        across: chunks beside each other; 1 where a chunk has whole rows.
    """

    def __init__(self, stored: Stored) -> None:
        assert stored.chunk_shape is not None
        item = stored.dtype.itemsize
        shape, chunk = list(stored.shape[1:]), list(stored.chunk_shape[1:])
        self._grid = stored.grid()[1:]
        self._m, self.rows = stored.shape[0], stored.chunk_shape[0]
        self.across = math.prod(self._grid)
        self.row_bytes = math.prod(chunk) * item
        self.size = self.rows * self.row_bytes
        self.whole = shape == chunk
        if item in (1, 2, 4, 8):
            self._unit = np.dtype(f"u{item}")
        else:
            self._unit = np.dtype(np.uint8)
            shape, chunk = [*(shape or [1]), item], [*(chunk or [1]), item]
            self._grid = (*(self._grid or (1,)), 1)
        self._shape, self._chunk = shape, chunk
        self._even = all(long % short == 0 for long, short in zip(shape, chunk, strict=True))

    def rows_of(self, number: int) -> tuple[int, int]:
        """The rows of chunk `number`."""
        first = number // self.across * self.rows
        return first, min(first + self.rows, self._m)

    def join(self, parts: Bytes, low: int, high: int, out: memoryview) -> None:
        """Rows low … high − 1 of all chunks beside each other, one after the other in `parts`, into a buffer."""
        n = high - low
        values = parts.view(self._unit).reshape(*self._grid, n, *self._chunk)
        rows = np.frombuffer(out, self._unit)
        if self._even:
            # (rows, chunks across, their columns, chunks down, …) ← (chunks across, chunks down, …, rows, columns, …)
            axes = len(self._chunk)
            apart = [axis for pair in zip(range(axes), range(axes + 1, 2 * axes + 1), strict=True) for axis in pair]
            into = [side for pair in zip(self._grid, self._chunk, strict=True) for side in pair]
            rows.reshape(n, *into)[...] = values.transpose(axes, *apart)
        elif len(self._chunk) == 1:
            (wide,), (long,) = self._chunk, self._shape
            full = long // wide
            table = rows.reshape(n, long)
            table[:, : full * wide].reshape(n, full, wide)[...] = values[:full].transpose(1, 0, 2)
            table[:, full * wide :] = values[full, :, : long - full * wide]
        else:
            size, first = n * self.row_bytes, low // self.rows * self.across
            for i in range(self.across):
                self.place(parts[i * size : (i + 1) * size], first + i, low, high, out, low)

    def place(self, part: Bytes, number: int, low: int, high: int, out: memoryview, start: int) -> None:
        """Rows low … high − 1 of a chunk, `part`, into a buffer whose first row is `start`."""
        values = part.view(self._unit).reshape(high - low, *self._chunk)
        rows = np.frombuffer(out, self._unit).reshape(-1, *self._shape)
        at = np.unravel_index(number % self.across, self._grid) if self._grid else ()
        there, here = [slice(low - start, high - start)], [slice(None)]
        for position, long, short in zip(at, self._shape, self._chunk, strict=True):
            first = int(position) * short
            width = min(short, long - first)
            there.append(slice(first, first + width))
            here.append(slice(0, width))
        rows[tuple(there)] = values[tuple(here)]


class Scattered:
    """Uncompressed chunks that have not the whole width of a row.

    Some rows at a time are read from all chunks beside each other into memory that stays in a core's cache, and then
    put together in the order of the rows: writing column after column of a large block costs two to five times as much.

    Args:
        fd: the file.
        stored: located, its chunks all of the full size.
    """

    name = "in chunks that split columns"

    def __init__(self, fd: int, stored: Stored) -> None:
        assert stored.chunks is not None
        self._fd, self._grid, self._offsets = fd, Grid(stored), stored.chunks[:, 0]
        self._row_bytes, self._step = stored.row_bytes, max(1, _CACHED // max(1, stored.row_bytes))

    def read(self, start: int, stop: int, out: memoryview) -> None:
        cuts, at = [start], start
        while at < stop:
            at = min(at + self._step, (at // self._grid.rows + 1) * self._grid.rows, stop)
            cuts.append(at)
        size = self._row_bytes

        def some(i: int) -> None:
            low, high = cuts[i], cuts[i + 1]
            self._some(low, high, out[(low - start) * size : (high - start) * size])

        _spread(some, len(cuts) - 1, len(out) >= SHARED)

    def _some(self, low: int, high: int, out: memoryview) -> None:
        grid = self._grid
        part = (high - low) * grid.row_bytes
        parts = scratch("parts", grid.across * part)
        first = low // grid.rows * grid.across
        skipped, view = low % grid.rows * grid.row_bytes, parts.data
        for i, offset in enumerate(self._offsets[first : first + grid.across].tolist()):
            read_here(self._fd, offset + skipped, view[i * part : (i + 1) * part])
        grid.join(parts, low, high, out)


class Compressed:
    """Chunks that went through filters.

    Args:
        fd: the file.
        stored: located.
        name: the dataset, for messages.
        decoder: of its filters.

    Attributes:
        wasteful: whether chunks beside each other are more than can be kept decoded, so that a small block decodes
            much that is thrown away.
    """

    def __init__(self, fd: int, stored: Stored, name: str, decoder: Decoder) -> None:
        assert stored.chunks is not None
        self._fd, self._what, self._decoder, self._chunks = fd, name, decoder, stored.chunks
        self.name = "in chunks compressed by " + ", ".join(one.name or str(one.code) for one in stored.filters)
        self._grid = Grid(stored)
        band = self._grid.across * self._grid.size
        self.wasteful = band > MOST_KEPT // 2
        self._kept = _Kept(self._grid.size, max(KEEP, min((available_cores() + 1) * band, MOST_KEPT)))

    def read(self, start: int, stop: int, out: memoryview) -> None:
        grid = self._grid
        first = start // grid.rows * grid.across
        count = ((stop - 1) // grid.rows + 1) * grid.across - first

        def one(i: int) -> None:
            number = first + i
            low, high = grid.rows_of(number)
            a, b = max(low, start), min(high, stop)
            if grid.whole and b - a == grid.rows and number not in self._kept:
                place = out[(a - start) * grid.row_bytes : (b - start) * grid.row_bytes]
                self._decode(number, np.frombuffer(place, np.uint8))
                return
            with self._kept.chunk(number, self._decode) as values:
                part = values[(a - low) * grid.row_bytes : (b - low) * grid.row_bytes]
                grid.place(part, number, a, b, out, start)

        _spread(one, count, count > 1)

    def _decode(self, number: int, out: Bytes) -> None:
        offset, size, mask = self._chunks[number].tolist()
        try:
            if size > 2 * self._grid.size + (1 << 16):  # no filter makes a chunk that much longer
                raise ValueError(f"it takes {size:,} bytes, and holds {self._grid.size:,}")
            data = scratch("chunk", size)
            read_at(self._fd, offset, data.data)
            self._decoder.decode(data, mask, out)
        except ValueError as reason:
            low, high = self._grid.rows_of(number)
            raise DataError(
                f"{self._what}: rows {low} to {high - 1} cannot be read: the chunk at byte {offset:,} of the file is"
                f" damaged ({reason})",
                wanted="a sound file",
                do="check the disk, or make or copy the file again",
            ) from None


class _Entry:
    """A decoded chunk, or one that is being decoded by whoever holds `lock`."""

    __slots__ = ("lock", "ready", "users", "values")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: Bytes | None = None
        self.ready, self.users = False, 0


class _Kept:
    """The chunks decoded last, at most so many bytes of them; from any thread."""

    def __init__(self, size: int, most: int) -> None:
        self._size, self._most = size, max(1, most // max(1, size))
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    @contextmanager
    def chunk(self, number: int, decode: Callable[[int, Bytes], None]) -> Iterator[Bytes]:
        """A chunk's bytes, which are its own as long as this lasts."""
        with self._lock:
            entry = self._entries.get(number)
            spare = None
            if entry is None:
                spare = self._drop() if len(self._entries) >= self._most else None
                entry = self._entries[number] = _Entry()
                entry.values = spare
            self._entries.move_to_end(number)
            entry.users += 1
        try:
            with entry.lock:
                if not entry.ready:
                    if entry.values is None:
                        entry.values = np.empty(self._size, np.uint8)
                    decode(number, entry.values)
                    entry.ready = True
            assert entry.values is not None
            yield entry.values
        finally:
            with self._lock:
                entry.users -= 1
                if not entry.ready and not entry.users and self._entries.get(number) is entry:
                    del self._entries[number]

    def _drop(self) -> Bytes | None:
        """Forget the chunk that nobody has asked for longest; its memory. None if all are in use."""
        for number, entry in self._entries.items():
            if not entry.users:
                del self._entries[number]
                return entry.values
        return None


def extents(fd: int, stored: Stored) -> Extents:
    """Uncompressed chunks of whole rows, as pieces of the file."""
    assert stored.chunks is not None and stored.chunk_shape is not None
    starts: NDArray[np.int64] = np.arange(len(stored.chunks), dtype=np.int64) * stored.chunk_shape[0]
    return Extents(fd, starts, stored.chunks[:, 0], stored.shape[0], stored.row_bytes)


def _spread(work: Callable[[int], None], count: int, shared: bool) -> None:
    if shared:
        team.each(work, count)
    else:
        for i in range(count):
            work(i)
