"""One look at every row: the columns' statistics, a fingerprint, and the first rows kept in memory.

`scan` reads X once, in blocks. It must be exact where it is easy to be wrong: a column with mean 10⁹ and deviation
1, a constant column (σ is 0, not 10⁻⁶), sums over 10⁹ rows. All is float64 and relative to the first training row,
which takes a large mean out of every sum and leaves exact zeros of a constant column; a block's deviations are taken
from its own mean, and blocks are merged by

    M₂ = M₂ᵃ + M₂ᵇ + (x̄ᵇ − x̄ᵃ)² · nᵃnᵇ / (nᵃ + nᵇ)

(Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1), as a binary tree over block
numbers. Blocks depend on the number of columns alone and every operation is one IEEE addition or multiplication in
a fixed order, so the figures are the same bits on every machine, whatever the memory budget.

`Scaling` is what is then done to the features: (x − μ) / σ, x / 255, or nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from .source import ArrayRows, RowSource

Array = NDArray[np.float64]

KINDS = ("auto", "none", "standard", "255")
_PIECE = 4 << 20  # bytes read at a time
_BLOCK = 1 << 15  # numbers of a block of moments: what stays in a core's second-level cache as float64


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known about the columns of the training rows.

    Attributes:
        count: training rows (those of weight 0 left out).
        mean, std, minimum, maximum: (features,) float64; std is that of the population, √(Σw(x − x̄)²/Σw), exactly 0
            for a constant column.
        fingerprint: hexadecimal; differs if X, the choice of training rows or their weights differ (a checksum of every
            byte is in it: against accidents, not against a forger).
    """

    count: int
    mean: Array
    std: Array
    minimum: Array
    maximum: Array
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is done to each feature before the first layer: (x − mean) / scale.

    Attributes:
        kind: "none", "standard" or "255".
        mean, scale: (features,) float64; None where nothing is subtracted or divided by.
    """

    kind: str
    mean: Array | None
    scale: Array | None

    def apply(self, X: NDArray[Any]) -> Array:
        """The scaled rows in float64: the definition that faster ways must agree with."""
        rows = X.astype(np.float64)
        if self.mean is not None:
            rows -= self.mean
        if self.scale is not None:
            rows /= self.scale
        return rows

    def describe(self) -> str:
        """One sentence for the user."""
        return {
            "none": "Features are used as they are.",
            "standard": "Features are standardised with the mean and deviation of the training rows.",
            "255": "Features are divided by 255.",
        }[self.kind]


def choose_scaling(kind: str, statistics: Statistics, dtype: np.dtype[Any]) -> Scaling:
    """The scaling of that kind for columns with these statistics.

    Args:
        kind: "auto" divides bytes (uint8 beyond 0 and 1) by 255 and standardises everything else.
        statistics: of the training rows.
        dtype: of the rows as stored.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in KINDS:
        raise UsageError(f"scaling '{kind}'", wanted=f"one of {', '.join(KINDS)}")
    if kind == "auto":
        kind = "255" if dtype == np.uint8 and statistics.maximum.max() > 1 else "standard"
    if kind == "none":
        return Scaling(kind, None, None)
    if kind == "255":
        return Scaling(kind, None, np.full_like(statistics.mean, 255.0))
    return Scaling(kind, statistics.mean, np.where(statistics.std > 0, statistics.std, 1.0))


def scan(
    source: RowSource,
    *,
    training: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
    budget: int,
    feature_names: tuple[str, ...] | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Statistics, NDArray[Any]]:
    """Read every row once.

    Args:
        source: the rows.
        training: (m,) bool, the rows that count; None for all. The others are only checked.
        weights: (m,) row weights; a row of weight 2 counts like the row twice.
        budget: bytes of rows to keep in memory.
        feature_names: for messages.
        progress: called with the number of rows done so far.

    Returns:
        The statistics, and the first rows that fit the budget: (kept, features) of the stored type, C-contiguous,
        64-byte aligned. An array that already lies in memory as one block is returned itself, whatever the budget.

    Raises:
        DataError: a value is NaN or infinite (file, row and column are named), or so large that its square is infinite;
            no training row is left.
    """
    m, d, dtype = source.m, source.features, source.dtype
    fold, block_rows = _block_shape(d)
    step = block_rows * max(1, _PIECE // (block_rows * d * dtype.itemsize))
    kept, resident = _room(source, budget)
    buffer = _aligned(0 if kept.shape[0] == m else min(step, m), d, dtype)
    digest = hashlib.blake2b(repr((m, d, dtype.str)).encode(), digest_size=16)
    tree, shift = _Tree(), None
    for start in range(0, m, step):
        stop = min(start + step, m)
        piece = _read(source, start, stop, kept, buffer, resident)
        digest.update(zlib.crc32(piece.data).to_bytes(4, "little"))
        for low in range(start, stop, block_rows):
            high = min(low + block_rows, stop)
            block = piece[low - start : high - start]
            if dtype == np.float16:
                block = block.astype(np.float32)  # exact, and NumPy works through float16 one number at a time
            _refuse_non_finite(block, low, source, feature_names)
            w = None if weights is None else weights[low:high]
            counts = np.ones(high - low, np.bool_) if training is None else training[low:high]
            if w is not None:
                counts = counts & (w > 0)
            if not counts.all():
                block, w = block[counts], None if w is None else w[counts]
            if block.shape[0]:
                if shift is None:
                    shift = block[0].astype(np.float64)
                with np.errstate(over="ignore", invalid="ignore"):  # `_statistics` refuses what came of it
                    tree.add(_moments(block, shift, w, fold))
        if progress is not None:
            progress(stop)
    return _statistics(tree.root(), shift, source, digest, feature_names), kept


@dataclass(frozen=True, eq=False)
class _Moments:
    """Of some rows: their number, Σw, and per column x̄ − shift, Σw(x − x̄)², the least and the greatest value."""

    count: int
    weight: float
    mean: Array
    M2: Array
    minimum: Array
    maximum: Array

    def merged(self, other: _Moments) -> _Moments:
        """The moments of both sets of rows (Chan, Golub and LeVeque)."""
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        return _Moments(
            self.count + other.count,
            weight,
            self.mean + apart * (other.weight / weight),
            self.M2 + other.M2 + apart * apart * (self.weight * other.weight / weight),
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )


class _Tree:
    """Moments merged two by two: like a binary counter, it holds one node for each level that waits for a sibling."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, _Moments]] = []

    def add(self, node: _Moments) -> None:
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            node = self._waiting.pop()[1].merged(node)
            level += 1
        self._waiting.append((level, node))

    def root(self) -> _Moments | None:
        node: _Moments | None = None
        for _, left in reversed(self._waiting):
            with np.errstate(over="ignore", invalid="ignore"):
                node = left if node is None else left.merged(node)
        return node


def _block_shape(d: int) -> tuple[int, int]:
    """(fold, rows): a block's rows, and how many of them are laid side by side so that NumPy's inner loops are long."""
    fold = max(1, 512 // d)
    return fold, fold * max(16, _BLOCK // (d * fold))


def _moments(block: NDArray[Any], shift: Array, weights: Array | None, fold: int) -> _Moments:
    """The moments of one block, `fold` rows side by side; what does not fill such a line is a block of its own."""
    n, d = block.shape
    if n % fold:
        if n < fold:
            return _moments(block, shift, weights, 1)
        whole = n - n % fold
        body, tail = (None, None) if weights is None else (weights[:whole], weights[whole:])
        return _moments(block[:whole], shift, body, fold).merged(_moments(block[whole:], shift, tail, 1))
    wide = block.reshape(n // fold, fold * d)

    def over_rows(ufunc: np.ufunc, values: NDArray[Any]) -> Array:
        return ufunc.reduce(ufunc.reduce(values, axis=0).reshape(fold, d), axis=0).astype(np.float64)

    minimum, maximum = over_rows(np.minimum, wide), over_rows(np.maximum, wide)
    x = wide.astype(np.float64)
    x -= np.tile(shift, fold)
    if weights is None:
        total = float(n)
        offset = over_rows(np.add, x) / total
    else:
        total = float(np.add.reduce(weights))
        offset = over_rows(np.add, _weighted(x, weights)) / total
    x -= np.tile(offset, fold)
    x *= x
    M2 = over_rows(np.add, x if weights is None else _weighted(x, weights))
    return _Moments(n, total, offset, M2, minimum, maximum)


def _weighted(wide: Array, weights: Array) -> Array:
    """Each row, of which several lie side by side, times its weight."""
    return (wide.reshape(weights.size, -1) * weights[:, np.newaxis]).reshape(wide.shape)


def _statistics(
    found: _Moments | None, shift: Array | None, source: RowSource, digest: Any, feature_names: tuple[str, ...] | None
) -> Statistics:
    if found is None or shift is None:
        raise DataError(f"{source.describe()}: no row is left to train on", wanted="a row with a positive weight")
    mean, std = shift + found.mean, np.sqrt(found.M2 / found.weight)
    wide = ~(np.isfinite(std) & np.isfinite(mean))
    if wide.any():
        column = int(np.argmax(wide))
        raise DataError(
            f"{source.describe()}: {_column(column, feature_names)} goes from {found.minimum[column]:g} to"
            f" {found.maximum[column]:g}",
            wanted="numbers whose squares are finite",
            do="scale the column down in the file",
        )
    for values in (mean, std, found.minimum, found.maximum, np.array([found.count, found.weight])):
        digest.update(values.astype("<f8").tobytes())
    return Statistics(found.count, mean, std, found.minimum, found.maximum, digest.hexdigest())


def _room(source: RowSource, budget: int) -> tuple[NDArray[Any], bool]:
    """The array for the kept rows, and whether they already lie in it."""
    if isinstance(source, ArrayRows) and source.array.flags.c_contiguous:
        return source.array, True
    rows = min(source.m, budget // (source.features * source.dtype.itemsize))
    try:
        return _aligned(rows, source.features, source.dtype), False
    except MemoryError:
        raise UsageError(
            f"there is no room for {rows:,} rows in memory", wanted="a smaller budget", do="say --memory 1GB, or less"
        ) from None


def _read(
    source: RowSource, start: int, stop: int, kept: NDArray[Any], buffer: NDArray[Any], resident: bool
) -> NDArray[Any]:
    """Rows start … stop − 1, in their place in `kept` as far as that goes."""
    if resident:
        return kept[start:stop]
    if stop <= kept.shape[0]:
        piece = kept[start:stop]
        source.read(start, stop, piece)
        return piece
    piece = buffer[: stop - start]
    source.read(start, stop, piece)
    if start < kept.shape[0]:
        kept[start:] = piece[: kept.shape[0] - start]
    return piece


def _refuse_non_finite(
    block: NDArray[Any], first: int, source: RowSource, feature_names: tuple[str, ...] | None
) -> None:
    if block.dtype.kind != "f":
        return
    finite = np.isfinite(block)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"{source.where(first + row)}, {_column(column, feature_names)} is {block[row, column]}",
            wanted="finite numbers (rows and columns are counted from 0)",
            do="remove or fill in the row",
        )


def _column(column: int, feature_names: tuple[str, ...] | None) -> str:
    return f"column {column}" + (f" ({feature_names[column]!r})" if feature_names else "")


def _aligned(rows: int, d: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised (rows, d) array that starts at a multiple of 64 bytes."""
    size = rows * d * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(rows, d)
