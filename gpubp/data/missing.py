"""Missing values: NaNs in X, and what is done about them (``--missing``).

    error   a NaN is refused: the default
    mean    it is replaced by the mean of the values that are there in its column, over the training rows (row weights
            count, as they do in the scaling): with weights of 1 what scikit-learn's SimpleImputer(strategy="mean") does
    drop    its row gets the weight 0, as if it were not there

The means are stored with the model. A row of weight 0 still passes through the network, so its NaNs are replaced too:
numbers that count for nothing. Infinity is no missing value and stays an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..backend.cores import available_cores
from ..communicator import Communicator, Solo
from ..errors import DataError
from .direct import Direct
from .in_order import THREADS, in_order
from .moments import Node, Tree
from .source import RowSource
from .views import may_have_gaps


@dataclass(frozen=True)
class Rule:
    """What a kind of ``--missing`` does: the field of `Gaps` that fills, and whether rows with gaps do not count."""

    fill: str
    drops: bool


RULES = {"mean": Rule("means", False), "drop": Rule("means", True)}
KINDS = ("error", *RULES)
_PIECE = 4 << 20  # bytes read at a time
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Gaps:
    """Where X has NaNs.

    Attributes:
        rows: (m,) bool, True for a row with a NaN; None if there is none.
        means: (features,) of the values that are there, rounded to the type of the rows.
    """

    rows: NDArray[np.bool_] | None
    means: NDArray[np.float64]


def look(
    source: RowSource,
    *,
    training: NDArray[np.bool_] | None = None,
    weights: NDArray[np.float64] | None = None,
    column_names: tuple[str, ...] | None = None,
    progress: Callable[[int], object] | None = None,
    threads: int | None = None,
    ranks: Communicator | None = None,
) -> Gaps:
    """Read every row once and see what is missing.

    Each piece of the rows has its own means, which are put together two by two as a binary tree over the numbers of
    pieces: the same bits for any number of threads and processes. In a piece deviations from the first value of a
    column are summed, so the mean of equal numbers is that very number.

    Args:
        training: (m,) bool, the rows whose mean counts; None for all.
        weights: (m,) row weights.
        column_names: for messages.
        progress: called with the number of rows done so far.
        threads: how many may share the work; by default as many as there are cores. A few are enough.
        ranks: other processes that look at the same source: each reads its part of the rows.

    Raises:
        DataError: a value is infinite; a column has no value at all in the training rows.
    """
    ranks = ranks or Solo()

    def piece(start: int, rows: NDArray[Any]) -> tuple[NDArray[np.bool_] | None, _Means]:
        gaps = _gaps_of(rows)
        _refuse_infinite(rows, start, source, column_names)
        stop = start + len(rows)
        w = np.ones(len(rows)) if weights is None else weights[start:stop]
        if training is not None:
            w = np.where(training[start:stop], w, 0.0)
        return gaps, _Means.of(rows, w, gaps, weighted=weights is not None)

    first, pieces = _pieces(source, ranks)
    mask, tree = _Mask(pieces), Tree[_Means](first)
    with ranks.together(), _each(source, pieces, piece, threads) as results:
        for (start, stop), (found, means) in results:
            mask.put(start, found)
            tree.add(means)
            if progress is not None:  # as if all went on like this one
                begin, end = pieces[0][0], pieces[-1][1]
                progress((stop - begin) * source.m // (end - begin))
    parts: list[tuple[_Packed, list[Node[_Means]]]] = ranks.gather((mask.packed(), tree.waiting))
    every = Tree[_Means]()
    for _, nodes in parts:
        for node in nodes:
            every.put(*node)
    with ranks.together():  # all see the same
        means = _sound(every.root(), source, column_names)
    return Gaps(_joined([packed for packed, _ in parts]), means)


def rows_with_gaps(source: RowSource, *, ranks: Communicator | None = None) -> NDArray[np.bool_] | None:
    """(m,) bool, True for a row with a NaN; None if there is none. Reads every row once.

    Args:
        ranks: other processes that look at the same source: each reads its part of the rows.
    """
    if source.dtype.kind != "f":
        return None
    ranks = ranks or Solo()
    _, pieces = _pieces(source, ranks)
    mask = _Mask(pieces)
    with ranks.together(), _each(source, pieces, lambda _, rows: _gaps_of(rows), None) as results:
        for (start, _), found in results:
            mask.put(start, found)
    return _joined(ranks.gather(mask.packed()))


def column_text(column: int, column_names: tuple[str, ...] | None) -> str:
    """A column as messages call it."""
    return f"column {column}" + (f" ({column_names[column]!r})" if column_names else "")


@dataclass(frozen=True, eq=False)
class _Means:
    """Of some rows, per column: Σw over the values that are there, and their mean, 0 where there is none."""

    weight: NDArray[np.float64]
    mean: NDArray[np.float64]

    @classmethod
    def of(
        cls, rows: NDArray[Any], w: NDArray[np.float64], gaps: NDArray[np.bool_] | None, *, weighted: bool
    ) -> _Means:
        """Of a piece, whose values are there but for those where `gaps` says not; rows with w = 0 do not count."""
        counts, d = w > 0, rows.shape[1]
        if not counts.any():
            return cls(np.zeros(d), np.zeros(d))
        x, w = rows[counts].astype(np.float64), w[counts]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # looked at when all are together
            if gaps is None:
                first = x[0].copy()
                x -= first
                weight = np.full(d, w.sum() if weighted else float(len(w)))
            else:
                there = ~gaps[counts]
                first = np.where(there.any(axis=0), x[there.argmax(axis=0), np.arange(d)], 0.0)
                x -= first
                x[~there] = 0.0
                weight = (w[:, None] * there).sum(axis=0) if weighted else there.sum(axis=0).astype(np.float64)
            # sums row by row in order: not by BLAS, whose bits depend on the machine
            total = (w[:, None] * x).sum(axis=0) if weighted else x.sum(axis=0)
            return cls(weight, np.where(weight > 0, first + total / weight, 0.0))

    def merged(self, other: _Means) -> _Means:
        """Of both sets of rows."""
        weight = self.weight + other.weight
        with np.errstate(over="ignore", invalid="ignore"):
            share = np.divide(other.weight, weight, out=np.zeros_like(weight), where=weight > 0)
            return _Means(weight, self.mean + (other.mean - self.mean) * share)


def _sound(found: _Means | None, source: RowSource, column_names: tuple[str, ...] | None) -> NDArray[np.float64]:
    """The means as `Gaps` has them, where they are numbers."""
    weight = np.zeros(source.features) if found is None else found.weight
    if found is None or (weight == 0).any():
        column = int(np.argmax(weight == 0))
        raise DataError(
            f"{source.describe()}: {column_text(column, column_names)} has no value in any training row",
            wanted="a column with one value at least",
            do="leave it out with --select columns=…",
        )
    if not np.isfinite(found.mean).all():
        column = int(np.argmin(np.isfinite(found.mean)))
        raise DataError(
            f"{source.describe()}: the sum of {column_text(column, column_names)} is beyond float64",
            wanted="smaller numbers",
            do="scale the column down in the file",
        )
    return found.mean.astype(source.dtype).astype(np.float64)


Pieces = list[tuple[int, int]]  # first row and stop of each


def _pieces(source: RowSource, ranks: Communicator) -> tuple[int, Pieces]:
    """This process's pieces of the rows, and the number of the first one."""
    step = max(1, _PIECE // (source.features * source.dtype.itemsize))
    every = [(start, min(start + step, source.m)) for start in range(0, source.m, step)]
    first, end = ranks.own(len(every))
    return first, every[first:end]


@contextmanager
def _each(
    source: RowSource, pieces: Pieces, work: Callable[[int, NDArray[Any]], Result], threads: int | None
) -> Iterator[Iterator[tuple[tuple[int, int], Result]]]:
    """What comes of each piece, in order.

    Args:
        work: is given the number of a piece's first row and its rows, which it must not keep.
    """
    most = max((stop - start for start, stop in pieces), default=0)
    direct, own = Direct(source), threading.local()

    def one(piece: tuple[int, int]) -> Result:
        start, stop = piece
        if not hasattr(own, "buffer"):
            own.buffer = np.empty((most, source.features), source.dtype)
        rows = own.buffer[: stop - start]
        direct.read(start, stop, rows)
        return work(start, rows)

    many = max(1, min(threads or available_cores(), THREADS, len(pieces)))
    with in_order(one, pieces, threads=many) as results:
        yield results


_Packed = tuple[int, "NDArray[np.uint8] | None"]  # how many rows, and a bit for each; None where none is set


class _Mask:
    """Which rows of some pieces have gaps."""

    def __init__(self, pieces: Pieces) -> None:
        self._first = pieces[0][0] if pieces else 0
        self._rows = np.zeros(pieces[-1][1] - self._first if pieces else 0, np.bool_)

    def put(self, start: int, gaps: NDArray[np.bool_] | None) -> None:
        """Where a piece has them that begins at this row."""
        if gaps is not None:
            at = start - self._first
            gaps.any(axis=1, out=self._rows[at : at + len(gaps)])

    def packed(self) -> _Packed:
        """On the way to other processes, whose masks `_joined` puts together."""
        return len(self._rows), np.packbits(self._rows) if self._rows.any() else None


def _joined(parts: list[_Packed]) -> NDArray[np.bool_] | None:
    if all(bits is None for _, bits in parts):
        return None
    masks = [
        np.zeros(n, np.bool_) if bits is None else np.unpackbits(bits, count=n).view(np.bool_) for n, bits in parts
    ]
    return np.concatenate(masks)


def _gaps_of(rows: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where NaNs are; None if there is none."""
    gaps = np.isnan(rows) if may_have_gaps(rows) else None
    return gaps if gaps is not None and gaps.any() else None


def _refuse_infinite(rows: NDArray[Any], start: int, source: RowSource, column_names: tuple[str, ...] | None) -> None:
    with np.errstate(all="ignore"):
        if rows.dtype.kind != "f" or np.isfinite(rows.sum()):
            return
    infinite = np.isinf(rows)
    if infinite.any():
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        raise DataError(
            f"{source.where(start + row)}, {column_text(column, column_names)} is {rows[row, column]}",
            wanted="finite numbers (rows and columns are counted from 0)",
            do="remove or fill in the row",
        )
