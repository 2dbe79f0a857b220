"""What is to be written: columns of values that are read in blocks of rows, wherever they lie.

A column gives rows from any thread. Mapped files are let go of behind the reader, so that the pages of a file larger
than memory do not count as ours.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..formats import Part
from ..source import RowSource, columns_of, row_dtype
from .checksums import Sealed
from .narrow import guess, smallest_of

_PIECE = 8 << 20  # bytes that are read at a time
_ACROSS = 16 << 20  # of a table whose rows do not lie together
DROPPED = 32 << 20  # bytes of such a table after which its pages are let go of


class Column(Protocol):
    """Values of m rows.

    Attributes:
        shape: (m, …) as it is to be written.
        dtype: as `read` gives it.
        step: rows that are best read at a time.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def step(self) -> int: ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows [start, stop): (stop − start, …) of any strides."""
        ...

    def passed(self, start: int, stop: int) -> None:
        """Rows [start, stop) are no longer needed."""
        ...


def map_of(values: NDArray[Any]) -> mmap.mmap | None:
    """The file's map that an array is a view of; None for one in memory."""
    found: Any = values
    while isinstance(found, np.ndarray):
        found = found.base
    return found if isinstance(found, mmap.mmap) else None


class ArrayColumn:
    """Rows of an array, in memory or mapped; `shape` may lay out what belongs to a row as one axis."""

    def __init__(self, values: NDArray[Any], shape: tuple[int, ...]) -> None:
        self._values, self.shape, self.dtype = values, shape, values.dtype
        self._together = bool(values[:1].flags.c_contiguous or values.ndim == 1)
        row = max(1, math.prod(shape[1:]) * values.dtype.itemsize)
        self.step = max(1, (_PIECE if self._together else _ACROSS) // row)
        self._row, self._seen = row, 0
        self._map = map_of(values)
        if self._map is not None and self._together:
            self._origin = values.ctypes.data - np.frombuffer(self._map, np.uint8).ctypes.data

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._values[start:stop].reshape(stop - start, *self.shape[1:])

    def passed(self, start: int, stop: int) -> None:
        if self._map is None:
            return
        if self._together and self._values.strides[0] > 0:
            page = mmap.PAGESIZE
            low = (self._origin + start * self._values.strides[0]) // page * page
            high = (self._origin + stop * self._values.strides[0]) // page * page
            if low < high:
                self._map.madvise(mmap.MADV_DONTNEED, low, high - low)
            return
        self._seen += (stop - start) * self._row
        if self._seen > DROPPED:
            self._seen = 0
            self._map.madvise(mmap.MADV_DONTNEED)


class SourceColumn:
    """Rows of a `RowSource`.

    Args:
        chunk_rows: rows of one of its chunks: several chunks are read at a time, since those at the edges are decoded
            twice. 1 where there are none.
    """

    def __init__(self, source: RowSource, chunk_rows: int) -> None:
        self._source = source
        self.shape, self.dtype = (source.m, source.features), source.dtype
        row = max(1, source.features * source.dtype.itemsize)
        self.step = max(1, _PIECE // row, min(4 * chunk_rows, _ACROSS // row))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        out = np.empty((stop - start, self.shape[1]), self.dtype)
        self._source.read(start, stop, out)
        return out

    def passed(self, start: int, stop: int) -> None:
        pass


class AcrossColumn:
    """Rows that lie across a file which holds one feature after the other.

    They are read piece by piece: where a map of the file is touched everywhere, all of it would count as ours.

    Args:
        file: what it holds is (…, m) of `dtype`; it is closed with the table.
        shape: (m, …), the other way round. What belongs to a row is laid out in this order, the last axis fastest.
    """

    def __init__(self, file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._file = file
        features = math.prod(shape[1:])
        self._places = np.arange(features).reshape(shape[:0:-1]).transpose().reshape(-1).tolist()
        self.shape, self.dtype = (shape[0], features), dtype
        self.step = max(1, _ACROSS // max(1, features * dtype.itemsize))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        (m, features), size = self.shape, self.dtype.itemsize
        out = np.empty((features, stop - start), self.dtype)
        for place, piece in zip(self._places, out.view(np.uint8), strict=True):
            if os.preadv(self._file.fileno(), [piece.data], (place * m + start) * size) != len(piece):
                raise OSError("the scratch file became shorter")
        return out.T

    def passed(self, start: int, stop: int) -> None:
        pass


class TextColumn:
    """Texts as UTF-8 bytes of one length."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values, self.shape = values, values.shape
        self.step = max(1, _PIECE // max(1, math.prod(values.shape[1:]) * values.dtype.itemsize))
        longest = values.dtype.itemsize
        if values.dtype.kind == "U":
            starts = range(0, len(values), self.step)
            longest = max((self._encoded(at, at + self.step).dtype.itemsize for at in starts), default=1)
        self.dtype = np.dtype(f"S{max(1, longest)}")

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._encoded(start, stop).astype(self.dtype)

    def passed(self, start: int, stop: int) -> None:
        pass

    def _encoded(self, start: int, stop: int) -> NDArray[Any]:
        values = self._values[start:stop]
        return np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values


@dataclass
class NamedColumn:
    """A column under a name.

    Attributes:
        noted: where it came from.
        sealed: the checksums that its source has of it, if it has.
    """

    name: str
    column: Column
    noted: dict[str, str] = field(default_factory=dict)
    sealed: Sealed | None = None


@dataclass
class Table:
    """The rows of one split: X first, then what belongs to it.

    Attributes:
        split: None where all rows are one set.
        columns: "X", and of "y", "weights", "feature_names", "class_names" those there are.
        check: raises DataError if the source changed meanwhile.
        close: lets go of the source.
    """

    split: str | None
    columns: list[NamedColumn]
    check: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None

    @property
    def rows(self) -> int:
        """Rows of X."""
        return self.columns[0].column.shape[0]


def column_of(values: NDArray[Any], shape: tuple[int, ...] | None = None) -> Column:
    """An array as a column: numbers or text."""
    if values.dtype.kind in "SU":
        return TextColumn(values)
    return ArrayColumn(values, shape or values.shape)


def texts(name: str, values: tuple[str, ...] | None) -> list[NamedColumn]:
    """A list of names as a column; none of it without them."""
    return [] if not values else [NamedColumn(name, TextColumn(np.array(values, dtype=np.str_)))]


def table_of(part: Part, source: str) -> Table:
    """What a format's reader found, if X is a table of numbers and what belongs to it has as many rows.

    Raises:
        DataError: it is not.
    """
    what = source if part.split is None else f"{source} ({part.split})"
    features = columns_of(part.X.shape, f"{what}: X")
    row_dtype(part.X.dtype, f"{what}: X")
    m = part.X.shape[0]
    columns = [NamedColumn("X", ArrayColumn(part.X, (m, features)), {"source_dtype": part.X.dtype.str})]
    for name, values in (("y", part.y), ("weights", part.weights)):
        if values is None:
            continue
        if values.ndim not in (1, 2) or values.shape[0] != m:
            shape = values.shape
            raise DataError(f"{what}: X has {m} rows and {name} has the shape {shape}", wanted=f"one {name} a row")
        if values.dtype.kind not in "SU":
            row_dtype(values.dtype, f"{what}: {name}")
        columns.append(NamedColumn(name, column_of(values), {"source_dtype": values.dtype.str}))
    columns += texts("feature_names", part.feature_names)
    return Table(part.split, columns)


def guessed(column: Column) -> np.dtype[Any]:
    """`narrow.guess` of a column."""
    row = max(1, math.prod(column.shape[1:]) * column.dtype.itemsize)
    return guess(column.dtype, column.shape[0], row, column.read)


def scanned(column: Column) -> np.dtype[Any]:
    """The smallest type that holds every value of a column: it is read from its beginning to its end."""

    def blocks() -> Iterator[NDArray[Any]]:
        for start in range(0, column.shape[0], column.step):
            stop = min(start + column.step, column.shape[0])
            yield column.read(start, stop)
            column.passed(start, stop)

    return smallest_of(column.dtype, blocks())
