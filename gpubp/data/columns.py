"""A full look at the columns of X: what there is in each, gaps included. `gpubp info` shows it.

`scan.scan` is what training reads with, and it refuses the first value that is not finite; this counts them. Rows
pass once, in pieces, by several threads; each piece is cut into blocks that stay in a core's cache. Sums are float64
and relative to the mean of the piece's first block; pieces are merged in their order with the formula of Chan, Golub
and LeVeque (see `scaling`), so the figures do not depend on the number of threads. Bytes are summed as float32: the
sums of a block and of its squares are whole numbers below 2²⁴ (255² × 256 lines), which float32 holds exactly.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backend.cores import available_cores
from .in_order import in_order
from .source import RowSource

Array = NDArray[np.float64]

_PIECE = 8 << 20  # bytes read at a time
_BLOCK = 1 << 17  # numbers of a block: few enough for a cache, enough that threads seldom wait for each other's Python
_WIDE = 1024  # numbers that lie side by side in NumPy's inner loops
_THREADS = 4  # more wait for memory


@dataclass(frozen=True, eq=False)
class Columns:
    """What is in each column of some rows.

    Attributes:
        rows: all of them.
        rows_missing: those with at least one NaN.
        minimum, maximum: (features,) of the type that `read` gives; of the finite values. Where there is none, the
            minimum is above the maximum.
        mean, std: (features,) float64, of the finite values; std is √(Σ(x − x̄)²/n), exactly 0 where all are equal;
            NaN where there is none; not finite where squares are not.
        missing, infinite: (features,) int64, how many values are NaN, and how many ±∞.
        whole: (features,) bool, whether all finite values are whole numbers.
        narrow: whether float32 holds every value exactly (of float64 columns; False for other types).
    """

    rows: int
    rows_missing: int
    minimum: NDArray[Any]
    maximum: NDArray[Any]
    mean: Array
    std: Array
    missing: NDArray[np.int64]
    infinite: NDArray[np.int64]
    whole: NDArray[np.bool_]
    narrow: bool

    @property
    def finite(self) -> NDArray[np.int64]:
        """(features,) how many values are finite."""
        return self.rows - self.missing - self.infinite

    @property
    def constant(self) -> NDArray[np.bool_]:
        """(features,) whether all finite values are equal (and there is one)."""
        return self.minimum == self.maximum

    def equals(self) -> list[list[int]]:
        """Groups of columns that may be equal: every figure is. Constant ones are left out."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        figures = (self.minimum, self.maximum, self.mean, self.std, self.missing, self.infinite)
        told = ~self.constant & (self.finite > 0)
        for column, key in enumerate(zip(*(one.tolist() for one in figures), strict=True)):
            if told[column]:
                groups.setdefault(key, []).append(column)
        return [group for group in groups.values() if len(group) > 1]


def look(
    source: RowSource, *, threads: int | None = None, progress: Callable[[int, int], object] | None = None
) -> Columns:
    """Read every row once.

    Args:
        source: the rows.
        threads: None takes the cores there are. The result does not depend on it.
        progress: called with (rows done, rows in all).

    Raises:
        DataError: the rows cannot be read.
    """
    m, d, dtype = source.m, source.features, source.dtype
    fold, block_rows = _block_shape(d)
    step = block_rows * max(1, _PIECE // (block_rows * d * dtype.itemsize))
    threads = min(threads or available_cores(), _THREADS)
    buffers: queue.SimpleQueue[NDArray[Any]] = queue.SimpleQueue()
    for _ in range(threads):
        buffers.put(np.empty((min(step, m), d), dtype))
    open_questions = _Open(np.ones(d, np.bool_), dtype == np.float64)

    def one(start: int) -> _Sums:
        buffer = buffers.get()
        try:
            piece = buffer[: min(start + step, m) - start]
            source.read(start, start + len(piece), piece)
            sums = _Sums(d, fold, dtype, open_questions)
            with np.errstate(over="ignore", invalid="ignore"):
                for low in range(0, len(piece), block_rows):
                    sums.add(piece[low : low + block_rows])
                sums.finish()
            return sums
        finally:
            buffers.put(buffer)

    total: _Sums | None = None
    with in_order(one, range(0, m, step), threads=threads) as results:
        for _, found in results:
            total = found if total is None else total.merged(found)
            if progress is not None:
                progress(total.rows, m)
    assert total is not None and total.rows == m
    return total.columns()


class _Open:
    """What may still hold for all rows: checked by every thread as long as none has found the contrary."""

    def __init__(self, whole: NDArray[np.bool_], narrow: bool) -> None:
        self.whole, self.narrow = whole, narrow


class _Sums:
    """The figures of some rows of d columns: of one piece while it is added to, then of several merged."""

    def __init__(self, d: int, fold: int, dtype: np.dtype[Any], questions: _Open) -> None:
        self._d, self._fold, self._open = d, fold, questions
        self._floats = dtype.kind == "f"
        self._work = np.float32 if dtype.itemsize == 1 else np.float64
        self._shift = np.full(d, 0.0 if self._work is np.float32 else np.nan)  # NaN: no value was there yet
        highest, lowest = (np.inf, -np.inf) if self._floats else (np.iinfo(dtype).max, np.iinfo(dtype).min)
        self.minimum, self.maximum = np.full(d, highest, dtype), np.full(d, lowest, dtype)
        self.rows = self.rows_missing = 0
        self.missing, self.infinite = np.zeros(d, np.int64), np.zeros(d, np.int64)
        self.mean, self.M2 = np.zeros(d), np.zeros(d)  # Σ(x − shift) and Σ(x − shift)² until `finish`

    def add(self, block: NDArray[Any]) -> None:
        """Rows of the piece, few enough to stay in the cache."""
        n, fold = len(block), self._fold
        if n % fold:  # what does not fill a line of `fold` rows is a block of its own
            whole = n - n % fold
            if whole:
                self.add(block[:whole])
            self._fold = 1
            self.add(block[whole:])
            self._fold = fold
            return
        self.rows += n
        stored = block.reshape(n // fold, fold * self._d)
        wide = stored.astype(np.float32) if stored.dtype == np.float16 else stored  # NumPy is slow at float16; exact
        low, high = self._over(np.minimum, wide), self._over(np.maximum, wide)
        gaps: NDArray[np.intp] | None = None  # where in the block, counted in flat order: as a rule few
        if self._floats and not (np.isfinite(low).all() and np.isfinite(high).all()):  # NaN comes through both
            gaps = np.flatnonzero(~np.isfinite(wide))
            low, high = self._count_gaps(wide, gaps)
        self.minimum = np.minimum(self.minimum, low.astype(self.minimum.dtype))
        self.maximum = np.maximum(self.maximum, high.astype(self.maximum.dtype))
        if self._floats:
            self._ask_whole(wide, gaps)
            if self._open.narrow and not _filled(wide == wide.astype(np.float32), gaps, True).all():
                self._open.narrow = False
        x = _filled(wide.astype(self._work), gaps, 0)
        new = np.isnan(self._shift) & (self.finite > 0)
        if new.any():
            mean = self._over(np.add, x) / np.maximum(self.finite, 1)
            self._shift[new] = np.where(np.isfinite(mean), mean, 0.0)[new]
        if self._work is np.float64:
            x -= np.tile(self._shift, fold)
            _filled(x, gaps, 0)
        self.mean += self._over(np.add, x)
        self.M2 += np.einsum("ij,ij->j", x, x).reshape(fold, self._d).sum(axis=0, dtype=np.float64)

    def finish(self) -> None:
        """Make means and sums of squared deviations of what was summed.

        The shift is the mean of the first block with values. Where that is one of 64 full ones in the piece,
        Σ(x − shift)² is at most 65 times Σ(x − x̄)²: that is all the subtraction can lose.
        """
        count = np.maximum(self.finite, 1)
        offset = self.mean / count
        if self._work is np.float32:  # bytes: n Σx² − (Σx)² is a whole number below 2⁶³, for 2²³ rows
            sums = self.mean.astype(np.int64)
            self.M2 = (count * self.M2.astype(np.int64) - sums * sums) / count
        else:
            self.M2 = np.maximum(self.M2 - offset * self.mean, 0.0)
        self.mean = offset + np.where(np.isnan(self._shift), 0.0, self._shift)

    def merged(self, other: _Sums) -> _Sums:
        """These rows and those of `other`, both finished. It becomes this object."""
        n, more = self.finite.astype(np.float64), other.finite.astype(np.float64)
        both = np.maximum(n + more, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            apart = other.mean - self.mean
            self.M2 = self.M2 + other.M2 + np.where(n * more > 0, apart * apart * (n * more / both), 0.0)
            self.mean = np.where(n == 0, other.mean, np.where(more == 0, self.mean, self.mean + apart * (more / both)))
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        self.missing, self.infinite = self.missing + other.missing, self.infinite + other.infinite
        self.rows, self.rows_missing = self.rows + other.rows, self.rows_missing + other.rows_missing
        return self

    @property
    def finite(self) -> NDArray[np.int64]:
        return self.rows - self.missing - self.infinite

    def columns(self) -> Columns:
        """The record of all rows."""
        count = self.finite
        constant = self.minimum == self.maximum
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            std = np.where(constant, 0.0, np.sqrt(self.M2 / count))
        mean = np.where(constant, self.minimum.astype(np.float64), np.where(count > 0, self.mean, np.nan))
        return Columns(
            self.rows,
            self.rows_missing,
            self.minimum,
            self.maximum,
            mean,
            std,
            self.missing,
            self.infinite,
            self._open.whole & (count > 0),
            self._open.narrow,
        )

    def _over(self, ufunc: np.ufunc, wide: NDArray[Any]) -> NDArray[Any]:
        """Over rows, of which `fold` lie side by side."""
        return ufunc.reduce(ufunc.reduce(wide, axis=0).reshape(self._fold, self._d), axis=0)

    def _count_gaps(self, wide: NDArray[Any], gaps: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Take note of the gaps; gives the least and the greatest values beside them."""
        nan = np.isnan(wide.reshape(-1)[gaps])
        self.missing += np.bincount(gaps[nan] % self._d, minlength=self._d)
        self.infinite += np.bincount(gaps[~nan] % self._d, minlength=self._d)
        self.rows_missing += int(np.count_nonzero(np.diff(gaps[nan] // self._d, prepend=-1)))
        filled = wide.copy()
        low = self._over(np.minimum, _filled(filled, gaps, np.inf))
        return low, self._over(np.maximum, _filled(filled, gaps, -np.inf))

    def _ask_whole(self, wide: NDArray[Any], gaps: NDArray[np.intp] | None) -> None:
        asked = self._open.whole
        if asked.all():
            still = ~self._over(np.logical_or, _filled(np.rint(wide) != wide, gaps, False))
        elif asked.any():
            some = np.flatnonzero(asked)
            values = wide.reshape(-1, self._d)[:, some]
            still = np.ones(self._d, np.bool_)
            still[some] = ~((np.rint(values) != values) & np.isfinite(values)).any(axis=0)
        else:
            return
        if not still.all():
            asked[~still] = False  # nothing but this is ever written: no thread undoes what another has found


def _filled(block: NDArray[Any], gaps: NDArray[np.intp] | None, value: float) -> NDArray[Any]:
    """The block, with this value in the gaps."""
    if gaps is not None:
        block.reshape(-1)[gaps] = value
    return block


def _block_shape(d: int) -> tuple[int, int]:
    """(fold, rows) of a block: as many rows side by side as make NumPy's inner loops long."""
    fold = max(1, _WIDE // d)
    return fold, fold * max(16, _BLOCK // (d * fold))
