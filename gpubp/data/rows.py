"""Rows ready to be trained on: X as it is stored, codes or targets, weights, scaling.

What fits the memory budget is kept in the stored type after the first pass; the rest is read again in every pass. The
numbers that come out do not depend on how much was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import numpy as np

from ..errors import DataError
from .dataset import check_weights
from .direct import Direct
from .scaling import Scaling
from .source import RowSource

# Beyond this |μ|/σ folding (x − μ)/σ into Θ^(1) loses digits, and the block is standardised while it is loaded.
# By how a pass multiplies: where factors are rounded to 11 or 8 bits, what x and b^(1) have in common must be small.
FOLD_LIMIT = {"exact": 100.0, "tf32x3": 100.0, "tf32": 1.0, "bf16": 1.0}
FOLD_RANGE = (1e-15, 1e15)  # σ outside of it would take W/σ or x out of float32's range


@dataclass
class Rows:
    """m rows of a data set, for an objective or for prediction.

    Args:
        source: where rows come from.
        kept: rows in memory, of the stored dtype, from `first` on; may be empty or all.
        scaling: how x is scaled before it reaches the network.
        labels: (m,) codes 0…K−1, or an (m, K) matrix; None to predict only.
        weights: (m,) float64 weights of the rows in J and ∇J, or None for 1.
        validation: (m,) float64 weights of the rows in the validation cost, or None. A validation row has weight 0.
        dropped: how many rows have weight 0 because a value of x is missing in them.
        first: the number of the first row kept.
        until: the rows that this process goes through are those from `first` up to this one; None for all. Where others
            train with it they have the other rows, whose labels and weights are here all the same.

    Raises:
        DataError: a negative or non-finite weight, or weights that are all zero.
    """

    source: RowSource
    kept: np.ndarray
    scaling: Scaling
    labels: np.ndarray | None = None
    weights: np.ndarray | None = None
    validation: np.ndarray | None = None
    dropped: int = 0
    first: int = 0
    until: int | None = None

    def __post_init__(self) -> None:
        for what, w in (("row weights", self.weights), ("weights of the validation rows", self.validation)):
            if w is not None:
                check_weights(w, what)

    @property
    def m(self) -> int:
        """The number of rows, validation rows counted."""
        return self.source.m

    @property
    def features(self) -> int:
        """The number of columns of X."""
        return self.source.features

    @property
    def kept_to(self) -> int:
        """The number of the row after the last one kept."""
        return self.first + len(self.kept)

    def keeps(self, start: int, stop: int) -> bool:
        """Whether rows [start, stop) are in memory."""
        return self.first <= start and stop <= self.kept_to

    @property
    def keeps_all(self) -> bool:
        """Whether all rows are in memory that this process goes through."""
        return self.kept_to >= (self.m if self.until is None else self.until)

    @cached_property
    def unit(self) -> float:
        """What the weights are divided by on their way into a pass: a power of two that takes the largest near 1.

        So float32 holds weights of any size, exactly. Sums that a pass gives are multiplied by it.
        """
        largest = max((float(w.max()) for w in (self.weights, self.validation) if w is not None), default=1.0)
        return float(np.exp2(np.floor(np.log2(largest))))

    @cached_property
    def weight_sum(self) -> float:
        """Σw over the training rows: what J is divided by."""
        return float(self.m) if self.weights is None else float(self.weights.sum())

    @cached_property
    def validation_sum(self) -> float:
        """Σw over the validation rows; 0 without any."""
        return 0.0 if self.validation is None else float(self.validation.sum())

    @cached_property
    def direct(self) -> Direct:
        """The rows as they lie in the file."""
        return Direct(self.source)

    def check(self) -> None:
        """Raise DataError if the file has changed that rows are still read from."""
        if not self.keeps_all:
            self.source.check()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Around reading rows. Of a file that has changed that is to be said, and not what was found in it.

        Raises:
            DataError: see `check`.
        """
        self.check()
        try:
            yield
        except DataError:
            self.check()
            raise
        self.check()

    def refuse(self, start: int, stop: int) -> NoReturn:
        """Say why rows [start, stop), which a pass failed to read, cannot be read.

        Raises:
            DataError: always.
        """
        self.source.read(start, stop, np.empty((stop - start, self.features), self.source.dtype))
        self.check()
        raise DataError(
            f"{self.source.describe()}: rows {start} to {stop - 1} could not be read at first and can be now",
            wanted="a disk that can be relied on",
            do="go on with gpubp resume",
        )

    def folds(self, products: str = "exact") -> bool:
        """Whether scaling goes into Θ^(1) and b^(1), so that x is used as it is stored."""
        mean, scale = self.scaling.mean, self.scaling.scale
        if scale is None or not np.all((scale > FOLD_RANGE[0]) & (scale < FOLD_RANGE[1])):
            return False
        return mean is None or bool(np.all(np.abs(mean) <= FOLD_LIMIT[products] * scale))

    def read(self, start: int, stop: int, buffer: np.ndarray) -> np.ndarray:
        """Rows [start, stop) in the stored dtype: a view of those kept, or read into `buffer`."""
        if self.keeps(start, stop):
            return self.kept[start - self.first : stop - self.first]
        out = buffer[: stop - start]
        self.direct.read(start, stop, out)
        return out
