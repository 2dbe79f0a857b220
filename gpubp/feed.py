"""Rows on their way into a pass: from memory, the device or the file, scaled, with labels and weights.

Scaling x̃ = (x − μ)/σ is folded into the first layer where that loses nothing (`fold`), and rows are then used as they
are stored; else they are standardised in float64 while they are loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Backend
from .backprop import Block
from .data.rows import Rows
from .data.scaling import Scaling
from .data.source import RowSource
from .errors import DataError
from .formula import Formula, cast, one_hot, standardise
from .network import Network


class Feed:
    """Brings a block's rows, labels and weights to the device in the precision of the pass.

    Args:
        rows: the data; labels and weights may be absent for prediction.
        K: the number of outputs.
        dtype: the precision of the pass.
        products: how the pass multiplies, see `gpubp.precision`.
        check: look at every row on its way in and refuse one that is not finite (for rows that no earlier pass saw).

    Attributes:
        stored: the type rows are stored in.
        conversion: the formula from there to the pass, None where rows are used as they are; `moments`: its μ and σ.
        labels, targets: labels or targets as stored, (m, 1) or (m, K), and the formula that makes y of them.
        numbers: (1, K), what label each output stands for; None where the labels are y itself.
        weights, validation: (m, 1) of the pass, or None.
    """

    def __init__(
        self, backend: Backend, rows: Rows, K: int, dtype: np.dtype, *, check: bool = False, products: str = "exact"
    ) -> None:
        self.backend, self.rows, self._check = backend, rows, check
        scaling = rows.scaling
        self.folds = rows.folds(products)
        self.stored = rows.source.dtype
        self.conversion: Formula | None = None if self.stored == dtype else cast
        self.moments: tuple[Any, ...] = (None, None)
        if scaling.scale is not None and not self.folds:
            mean = np.zeros(rows.features) if scaling.mean is None else scaling.mean
            self.conversion = standardise
            self.moments = (backend.upload(mean[None]), backend.upload(scaling.scale[None]))
        self.targets = cast
        self.labels: Any = None
        self.numbers: Any = None
        self.weights: Any = None
        self.validation: Any = None
        if rows.labels is not None:
            labels = rows.labels.reshape(len(rows.labels), -1)
            if isinstance(labels, np.ndarray):
                labels = np.ascontiguousarray(labels)
            if labels.dtype == np.uint32:
                labels = labels.view(np.int32)  # class numbers are small, and compared with int32 ones
            # a caller may have made them on the device
            self.labels = backend.upload(labels) if isinstance(labels, np.ndarray) else labels
            if rows.labels.ndim == 1:
                # one output: y is the code itself, 0 or 1
                self.targets = one_hot
                numbers = np.arange(K, dtype=np.int32)[None] if K > 1 else np.ones((1, 1), np.int32)
                self.numbers = backend.upload(numbers)
        if rows.weights is not None:
            self.weights = backend.upload((rows.weights / rows.unit).astype(dtype)[:, None])
        if rows.validation is not None:
            self.validation = backend.upload((rows.validation / rows.unit).astype(dtype)[:, None])
        self._slices: dict[tuple[int, int], tuple[Any, Any, Any]] = {}
        # last, for it takes what is left of the device's memory
        self._resident = rows.kept[:0] if check else backend.resident(rows.kept, rows.first)

    @property
    def resident_rows(self) -> int:
        """How many rows, the first ones of this process, the device keeps."""
        return len(self._resident)

    @property
    def can_halve(self) -> bool:
        """Whether there are rows to give up: those that a caller made on the device are not ours."""
        return len(self._resident) > 0 and self._resident is not self.rows.kept

    def halve(self) -> None:
        """Give up half of the rows that the device keeps."""
        count = len(self._resident) // 2
        self._resident = self.rows.kept[:0]  # first: there may be no room for both
        self.backend.trim()
        self._resident = self.backend.resident(self.rows.kept[:count], self.rows.first)

    def resident(self, start: int, stop: int) -> Any:
        """Rows [start, stop) as stored, where the device keeps them; else None."""
        first = self.rows.first
        there = first <= start and stop <= first + len(self._resident)
        return self._resident[start - first : stop - first] if there else None

    def raw(self, start: int, stop: int, staging: np.ndarray) -> Any:
        """Rows [start, stop) as stored, on the device."""
        x = self.resident(start, stop)
        if x is not None:
            return x
        x = self.rows.read(start, stop, staging)
        if self._check:
            refuse_non_finite(x, start, self.rows.source)
        return self.backend.upload(x)

    def load(self, start: int, stop: int, staging: np.ndarray, block: Block, *, labelled: bool) -> Any:
        """Fill ``block.x``, ``block.y`` and ``block.w``; returns the rows' validation weights or None."""
        backend = self.backend
        x = self.raw(start, stop, staging)
        if self.conversion is None:
            block.x = x
        else:
            more = self.moments if self.conversion is standardise else ()
            backend.apply(self.conversion, x, *more, out=block.x)
        if not labelled:
            return None
        more = () if self.numbers is None else (self.numbers,)
        labels, weights, validation = self._columns(start, stop)
        backend.apply(self.targets, labels, *more, out=block.y)
        if weights is not None:
            block.w = weights
        return validation

    def _columns(self, start: int, stop: int) -> tuple[Any, Any, Any]:
        """Labels, weights and validation weights of a block: the same arrays in each pass."""
        if (start, stop) not in self._slices:
            arrays = (self.labels, self.weights, self.validation)
            labels, weights, validation = (None if a is None else a[start:stop] for a in arrays)
            self._slices[start, stop] = labels, weights, validation
        return self._slices[start, stop]


def fold(network: Network, scaling: Scaling, Theta: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Θ for rows as they are stored: W^(1)/σ and b^(1) − W^(1)·(μ/σ), the rest unchanged; written to `out`."""
    np.copyto(out, Theta)
    W, b = network.views(out)
    if scaling.scale is not None:
        W[1] /= scaling.scale
    if scaling.mean is not None:
        b[1] -= W[1] @ scaling.mean
    return out


def unfold(network: Network, scaling: Scaling, gradient: np.ndarray) -> None:
    """The gradient of `fold`'s result taken back to Θ itself, in place: Δ_W = (Δ_W̃ − Δ_b̃ μᵀ)/σ."""
    W, b = network.views(gradient)
    if scaling.mean is not None:
        W[1] -= b[1].T * scaling.mean
    if scaling.scale is not None:
        W[1] /= scaling.scale


def refuse_non_finite(x: np.ndarray, first_row: int, source: RowSource) -> None:
    """Raise DataError if a value of these rows of a source is NaN or infinite; file, row and column are named."""
    # the sum is finite unless a value is not (or the values are near the end of the range): one cheap look, then a
    # close one
    with np.errstate(all="ignore"):
        suspect = x.dtype.kind == "f" and not np.isfinite(x.sum(dtype=np.float64))
    if suspect and not (finite := np.isfinite(x)).all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"{source.where(first_row + row)}, column {column} is {x[row, column]}",
            wanted="finite numbers",
            do="fill it in, or train with --missing mean" if np.isnan(x[row, column]) else "",
        )
