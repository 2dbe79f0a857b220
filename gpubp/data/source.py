"""Where rows come from: one small protocol, and the sources that know no file (`hdf5.rows` has the one that does).

A source gives rows in the type they are stored in, in native byte order; what becomes of them (÷ 255, standardised,
float32) is decided in the block that uses them, so that a byte stays a byte on the way. `read` fills a buffer of the
caller, any rows in any order, from any thread. Nothing here knows labels, splits or scaling.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

_PIECE = 1 << 20  # bytes of the buffer through which rows of another type pass
_DESCRIBED = 3  # of many sources, so many are named


@dataclass(frozen=True)
class Extent:
    """Where rows lie as one piece of a file, one after the other, in the very type and order that `read` gives.

    Attributes:
        fd: of the open file, the source's own; good until the source is closed.
        offset: the byte at which row 0 begins.
    """

    fd: int
    offset: int


class RowSource(Protocol):
    """m rows × n features.

    Attributes:
        m: rows.
        features: columns.
        dtype: what `read` fills: a native uint8, int, or float type of at most 8 bytes.
    """

    @property
    def m(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out`, C-contiguous (stop − start, features) of `dtype`, with rows start … stop − 1. Thread-safe.

        Raises:
            DataError: the rows cannot be read; the message names the file, the dataset and the rows.
        """
        ...

    @property
    def slow(self) -> str:
        """What reading costs and what helps, where it is far slower than it could be; measured when asked."""
        ...

    def extent(self) -> Extent | None:
        """Where the rows lie as one piece of a file, in the very type and order that `read` gives; None otherwise."""
        ...

    def check(self) -> None:
        """Raise DataError if the file changed (size, time, inode) since it was opened; nothing for an array."""
        ...

    def where(self, row: int) -> str:
        """The place of one row as a person finds it again, for messages."""
        ...

    def describe(self) -> str:
        """One phrase: which file, which dataset, how many rows and columns of what."""
        ...

    def close(self) -> None:
        """Let go of the file. Reading afterwards is an error; closing twice is not."""
        ...


def row_dtype(stored: np.dtype[Any], what: str) -> np.dtype[Any]:
    """The type in which rows stored as `stored` are read: the same in native byte order, and uint8 for bool.

    Raises:
        DataError: these are no real numbers of at most 8 bytes.
    """
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind in "uif" and stored.itemsize <= 8:
        return np.dtype(f"{stored.kind}{stored.itemsize}")
    kinds = {"c": "complex numbers", "S": "text", "U": "text", "V": "raw bytes", "M": "dates", "m": "time spans"}
    kind = kinds.get(stored.kind, f"the type {stored}")
    if stored.names:
        kind = "a compound type with the fields " + ", ".join(map(repr, stored.names[:8]))
    elif "ref" in (stored.metadata or {}):
        kind = "references to other datasets"
    elif stored.kind == "O":
        text = (stored.metadata or {}).get("vlen") is str
        kind = "text" if text else "Python objects or rows of different lengths"
    raise DataError(f"{what} holds {kind}", wanted="real numbers (bool, integers, or floats of at most 8 bytes)")


def shape_text(shape: Sequence[int], dtype: np.dtype[Any]) -> str:
    """Such as ``60000 × 784 uint8``."""
    return f"{' × '.join(map(str, shape)) or 'one value'} {dtype}"


def columns_of(shape: Sequence[int], what: str) -> int:
    """Columns of a table of this shape; rows that are images (n, 28, 28) are laid out flat.

    Raises:
        DataError: it has no rows or no columns.
    """
    if len(shape) < 2:
        hint = f"store one column as ({shape[0]}, 1)" if len(shape) == 1 else ""
        raise DataError(f"{what} has the shape {tuple(shape)}", wanted="a table, rows × features", do=hint)
    if 0 in shape:
        raise DataError(f"{what} is empty, its shape is {tuple(shape)}", wanted="at least one row and one column")
    return math.prod(shape[1:])


class ArrayRows:
    """The rows of an array in memory (or mapped into it): 2-D, or rows × any shape.

    Attributes:
        array: (m, features) of `dtype`; no copy where the given array already was one.

    Raises:
        DataError: the array is no table of real numbers.
    """

    slow = ""

    def __init__(self, array: NDArray[Any], name: str = "X") -> None:
        self._name = name
        self.features = columns_of(array.shape, name)
        self.m = int(array.shape[0])
        self.dtype = row_dtype(array.dtype, name)
        flat = array.reshape(self.m, self.features)
        self.array = flat.view(np.uint8) if flat.dtype == np.bool_ else flat.astype(self.dtype, copy=False)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        np.copyto(out, self.array[start:stop])

    def extent(self) -> Extent | None:
        return None

    def check(self) -> None:
        pass

    def where(self, row: int) -> str:
        return f"{self._name} row {row}"

    def describe(self) -> str:
        return f"{self._name} {shape_text((self.m, self.features), self.dtype)}"

    def close(self) -> None:
        pass


class StackedRows:
    """The rows of several sources, one source after the other (training rows, then validation rows).

    Args:
        sources: at least one; it closes them. Their common type is NumPy's (uint8 and float32 give float32).
        dtype: another type that holds all their values.

    Raises:
        DataError: the sources have different numbers of columns.
    """

    def __init__(self, sources: Sequence[RowSource], dtype: np.dtype[Any] | None = None) -> None:
        first = sources[0]
        for other in sources[1:]:
            if other.features != first.features:
                raise DataError(
                    f"{first.describe()} and {other.describe()}", wanted="the same number of columns in both"
                )
        self._sources = tuple(sources)
        self._starts = [0]
        for source in sources:
            self._starts.append(self._starts[-1] + source.m)
        self.m = self._starts[-1]
        self.features = first.features
        self.dtype = np.result_type(*{source.dtype for source in sources}) if dtype is None else dtype

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        for at in range(self._at(start), len(self._sources)):
            first, last = self._starts[at], self._starts[at + 1]
            if first >= stop:
                break
            low, high = max(start, first), min(stop, last)
            if low < high:
                self._read_part(self._sources[at], low - first, high - first, out[low - start : high - start])

    def _at(self, row: int) -> int:
        """Which source has the row."""
        return bisect_right(self._starts, row, 1, len(self._sources)) - 1

    def extent(self) -> Extent | None:
        return None  # of each part one: see `extents`

    def extents(self) -> list[tuple[int, int, Extent | None]]:
        """`extents` of the parts."""
        found = []
        for source, first in zip(self._sources, self._starts, strict=False):
            same = source.dtype == self.dtype
            parts = extents(source) if same else [(0, source.m, None)]
            found += [(first + start, first + stop, extent) for start, stop, extent in parts]
        return found

    def check(self) -> None:
        for source in self._sources:
            source.check()

    def _read_part(self, source: RowSource, start: int, stop: int, out: NDArray[Any]) -> None:
        if source.dtype == self.dtype:
            source.read(start, stop, out)
            return
        rows = max(1, _PIECE // (self.features * source.dtype.itemsize))
        piece = np.empty((min(rows, stop - start), self.features), source.dtype)
        for low in range(start, stop, rows):
            high = min(low + rows, stop)
            source.read(low, high, piece[: high - low])
            out[low - start : high - start] = piece[: high - low]

    @property
    def slow(self) -> str:
        return next(filter(None, (source.slow for source in self._sources)), "")

    def where(self, row: int) -> str:
        at = self._at(row)
        return self._sources[at].where(row - self._starts[at])

    def describe(self) -> str:
        shown = ", then ".join(source.describe() for source in self._sources[:_DESCRIBED])
        more = len(self._sources) - _DESCRIBED
        return shown if more <= 0 else f"{shown}, then {more} more: {self.m} rows in all"

    def close(self) -> None:
        for source in self._sources:
            source.close()


def extents(source: RowSource) -> list[tuple[int, int, Extent | None]]:
    """The rows of a source in parts (first, stop, where they lie as one piece of a file or None), in order."""
    return source.extents() if isinstance(source, StackedRows) else [(0, source.m, source.extent())]
