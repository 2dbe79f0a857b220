"""Missing values: NaNs in X, and what is done about them (``--missing``).

    error   a NaN is refused: the default
    mean    it is replaced by the mean of the values that are there in its column, over the training rows (row weights
            count, as they do in the scaling): with weights of 1 what scikit-learn's SimpleImputer(strategy="mean") does
    drop    its row gets the weight 0, as if it were not there

The means are stored with the model. A row of weight 0 still passes through the network, so its NaNs are replaced too:
numbers that count for nothing. Infinity is no missing value and stays an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
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
) -> Gaps:
    """Read every row once and see what is missing.

    Deviations from the first value of a column are summed, so the mean of equal numbers is that very number.

    Args:
        training: (m,) bool, the rows whose mean counts; None for all.
        weights: (m,) row weights.
        column_names: for messages.
        progress: called with the number of rows done so far.

    Raises:
        DataError: a value is infinite; a column has no value at all in the training rows.
    """
    d = source.features
    first, total, weight = np.full(d, np.nan), np.zeros(d), np.zeros(d)
    mask, any_gap = np.zeros(source.m, np.bool_), False
    for start, rows in _pieces(source):
        stop = start + len(rows)
        gaps = np.isnan(rows) if may_have_gaps(rows) else None
        _refuse_infinite(rows, start, source, column_names)
        if gaps is not None and gaps.any():
            mask[start:stop], any_gap = gaps.any(axis=1), True
        w = np.ones(stop - start) if weights is None else weights[start:stop]
        if training is not None:
            w = np.where(training[start:stop], w, 0.0)
        counts = w > 0
        if counts.any():
            x, w = rows[counts].astype(np.float64), w[counts]
            there = np.ones(x.shape, np.bool_) if gaps is None else ~gaps[counts]
            fresh = np.isnan(first) & there.any(axis=0)
            first[fresh] = x[there.argmax(axis=0), np.arange(d)][fresh]
            with np.errstate(over="ignore", invalid="ignore"):  # looked at below
                x -= first
                x[~there] = 0.0
                # sums row by row in order: not by BLAS, whose bits depend on the machine
                total += x.sum(axis=0) if weights is None else (w[:, None] * x).sum(axis=0)
            weight += there.sum(axis=0) if weights is None else (w[:, None] * there).sum(axis=0)
        if progress is not None:
            progress(stop)
    if (weight == 0).any():
        column = int(np.argmax(weight == 0))
        raise DataError(
            f"{source.describe()}: {column_text(column, column_names)} has no value in any training row",
            wanted="a column with one value at least",
            do="leave it out with --select columns=…",
        )
    means = first + total / weight
    if not np.isfinite(means).all():
        column = int(np.argmin(np.isfinite(means)))
        raise DataError(
            f"{source.describe()}: the sum of {column_text(column, column_names)} is beyond float64",
            wanted="smaller numbers",
            do="scale the column down in the file",
        )
    return Gaps(mask if any_gap else None, means.astype(source.dtype).astype(np.float64))


def rows_with_gaps(source: RowSource) -> NDArray[np.bool_] | None:
    """(m,) bool, True for a row with a NaN; None if there is none. Reads every row once."""
    if source.dtype.kind != "f":
        return None
    mask = np.zeros(source.m, np.bool_)
    for start, rows in _pieces(source):
        if may_have_gaps(rows):
            mask[start : start + len(rows)] = np.isnan(rows).any(axis=1)
    return mask if mask.any() else None


def column_text(column: int, column_names: tuple[str, ...] | None) -> str:
    """A column as messages call it."""
    return f"column {column}" + (f" ({column_names[column]!r})" if column_names else "")


def _pieces(source: RowSource) -> Iterator[tuple[int, NDArray[Any]]]:
    step = max(1, _PIECE // (source.features * source.dtype.itemsize))
    buffer = np.empty((min(step, source.m), source.features), source.dtype)
    for start in range(0, source.m, step):
        rows = buffer[: min(step, source.m - start)]
        source.read(start, start + len(rows), rows)
        yield start, rows


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
