"""Rows of a source seen otherwise: some of them, some of their columns, gaps filled or refused.

A view is a source itself. It reads through the source below it, into a buffer of its own where the shape is another, so
it may be read from any thread, and what it gives does not depend on how the rows are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .source import Extent, RowSource, shape_text

_PIECE = 1 << 20  # bytes of a buffer of whole rows


class _View:
    """What all views pass on."""

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self.m, self.features, self.dtype = source.m, source.features, source.dtype

    @property
    def slow(self) -> str:
        return self.source.slow

    def where(self, row: int) -> str:
        return self.source.where(row)

    def describe(self) -> str:
        return self.source.describe()

    def extent(self) -> Extent | None:
        """Nowhere do these rows lie as they are read."""
        return None

    def check(self) -> None:
        self.source.check()

    def close(self) -> None:
        self.source.close()


class RowRange(_View):
    """Some rows of a source, at equal distances.

    Args:
        rows: their numbers in the source, ascending; not empty.
    """

    def __init__(self, source: RowSource, rows: range) -> None:
        super().__init__(source)
        assert rows.step > 0 and 0 <= rows.start <= rows[-1] < source.m
        self._rows = rows
        self.m = len(rows)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        first, step = self._rows.start + start * self._rows.step, self._rows.step
        if step == 1:
            self.source.read(first, first + stop - start, out)
            return
        # rows between two that are wanted are read along, unless they are many
        room = max(1, _PIECE // (self.features * self.dtype.itemsize * step))
        if step > 64 or room == 1:
            for i in range(stop - start):
                self.source.read(first + i * step, first + i * step + 1, out[i : i + 1])
            return
        buffer = np.empty(((min(room, stop - start) - 1) * step + 1, self.features), self.dtype)
        for low in range(0, stop - start, room):
            high = min(low + room, stop - start)
            piece = buffer[: (high - low - 1) * step + 1]
            self.source.read(first + low * step, first + low * step + len(piece), piece)
            out[low:high] = piece[::step]

    def extent(self) -> Extent | None:
        found = self.source.extent()
        if found is None or self._rows.step > 1:
            return None
        return Extent(found.fd, found.offset + self._rows.start * self.features * self.dtype.itemsize)

    def where(self, row: int) -> str:
        return self.source.where(self._rows[row])

    def describe(self) -> str:
        every = f", every {self._rows.step}th" if self._rows.step > 1 else ""
        return f"rows {self._rows.start} to {self._rows[-1]}{every} of {self.source.describe()}"


class Picked(_View):
    """Some rows of a source, at any distances.

    Args:
        rows: their numbers in the source, ascending; not empty.
    """

    def __init__(self, source: RowSource, rows: NDArray[np.intp]) -> None:
        super().__init__(source)
        assert len(rows) and rows[0] >= 0 and rows[-1] < source.m and (np.diff(rows) > 0).all()
        self._rows = rows
        self.m = len(rows)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        # rows between two that are wanted are read along where they are few
        room = max(1, _PIECE // (self.features * self.dtype.itemsize))
        buffer = np.empty((0, self.features), self.dtype)
        while start < stop:
            first = int(self._rows[start])
            end = min(stop, start + int(np.searchsorted(self._rows[start:stop], first + room)))
            span = int(self._rows[end - 1]) + 1 - first
            if span > 64 * (end - start):
                end, span = start + 1, 1
            if len(buffer) < span:
                buffer = np.empty((span, self.features), self.dtype)
            self.source.read(first, first + span, buffer[:span])
            np.take(buffer, self._rows[start:end] - first, axis=0, out=out[: end - start], mode="clip")
            out, start = out[end - start :], end

    def where(self, row: int) -> str:
        return self.source.where(int(self._rows[row]))

    def describe(self) -> str:
        return f"{self.m} rows of {self.source.describe()}"


class Columns(_View):
    """Some columns of a source, in any order. Whole rows are read, and columns gathered from them.

    Args:
        columns: their numbers in the source.
    """

    def __init__(self, source: RowSource, columns: Sequence[int]) -> None:
        super().__init__(source)
        self.columns = np.array(columns, np.intp)
        self.features = len(self.columns)
        assert self.features and 0 <= self.columns.min() and self.columns.max() < source.features
        first = int(self.columns[0])
        together = np.array_equal(self.columns, np.arange(first, first + self.features))
        self._slice = slice(first, first + self.features) if together else None

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        room = max(1, _PIECE // (self.source.features * self.dtype.itemsize))
        buffer = np.empty((min(room, stop - start), self.source.features), self.dtype)
        for low in range(start, stop, room):
            high = min(low + room, stop)
            piece, to = buffer[: high - low], out[low - start : high - start]
            self.source.read(low, high, piece)
            if self._slice is not None:
                np.copyto(to, piece[:, self._slice])
            else:
                np.take(piece, self.columns, axis=1, out=to, mode="clip")  # "raise" would buffer

    def describe(self) -> str:
        shape = shape_text((self.m, self.features), self.dtype)
        return f"{self.source.describe()}, of which {self.features} columns: {shape}"


class Filled(_View):
    """A source whose NaNs are replaced, column by column.

    Args:
        fill: (features,) finite numbers; rounded to the type of the rows.
    """

    def __init__(self, source: RowSource, fill: NDArray[np.float64]) -> None:
        super().__init__(source)
        self._fill = fill.astype(self.dtype)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self.source.read(start, stop, out)
        fill_gaps(out, self._fill)


class Gapless(_View):
    """A source in which a NaN is an error, for a model that was trained without such rows."""

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        self.source.read(start, stop, out)
        if may_have_gaps(out) and (gaps := np.isnan(out)).any():
            row, column = (int(i) for i in np.argwhere(gaps)[0])
            raise DataError(
                f"{self.where(start + row)}, column {column} is missing (NaN)",
                wanted="whole rows: the model was trained with --missing drop",
                do="leave the row out, or train with --missing mean",
            )


def may_have_gaps(rows: NDArray[Any]) -> bool:
    """Whether there can be a NaN among these numbers: a quick look that is wrong only where there is none."""
    if rows.dtype.kind != "f":
        return False
    with np.errstate(all="ignore"):
        return bool(np.isnan(rows.sum()))  # NaN stays NaN in a sum; of infinities it can come as well


def fill_gaps(rows: NDArray[Any], fill: NDArray[Any]) -> None:
    """Replace NaNs by the numbers of their columns, in place."""
    if may_have_gaps(rows):
        np.copyto(rows, fill.astype(rows.dtype, copy=False), where=np.isnan(rows))
