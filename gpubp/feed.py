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
from .errors import DataError
from .formula import cast, one_hot, standardise
from .network import Network


class Feed:
    """Brings a block's rows, labels and weights to the device in the precision of the pass.

    Args:
        rows: the data; labels and weights may be absent for prediction.
        K: the number of outputs.
        dtype: the precision of the pass.
        check: look at every row on its way in and refuse one that is not finite (for rows that no earlier pass saw).
    """

    def __init__(self, backend: Backend, rows: Rows, K: int, dtype: np.dtype, *, check: bool = False) -> None:
        self.backend, self.rows, self._check = backend, rows, check
        scaling = rows.scaling
        self.folds = rows.folds
        self._standardise = None
        if scaling.scale is not None and not self.folds:
            mean = np.zeros(rows.features) if scaling.mean is None else scaling.mean
            self._standardise = (backend.upload(mean[None]), backend.upload(scaling.scale[None]))
        self._as_stored = self._standardise is None and rows.source.dtype == dtype
        self._k = None
        self._labels: Any = None
        self._weights: Any = None
        self._validation: Any = None
        if rows.labels is not None:
            self._labels = backend.upload(rows.labels.reshape(len(rows.labels), -1))
            if rows.labels.ndim == 1:
                # one output: y is the code itself, 0 or 1
                self._k = backend.upload(np.arange(K, dtype=np.int32)[None] if K > 1 else np.ones((1, 1), np.int32))
        if rows.weights is not None:
            self._weights = backend.upload((rows.weights / rows.unit).astype(dtype)[:, None])
        if rows.validation is not None:
            self._validation = backend.upload((rows.validation / rows.unit).astype(dtype)[:, None])
        # last, for it takes what is left of the device's memory
        self._resident = rows.kept[:0] if check else backend.resident(rows.kept)

    def load(self, start: int, stop: int, staging: np.ndarray, block: Block, *, labelled: bool) -> Any:
        """Fill ``block.x``, ``block.y`` and ``block.w``; returns the rows' validation weights or None."""
        backend = self.backend
        if stop <= len(self._resident):
            x = self._resident[start:stop]
        else:
            x = self.rows.read(start, stop, staging)
            if self._check:
                refuse_non_finite(x, start)
            x = backend.upload(x)
        if self._as_stored:
            block.x = x
        elif self._standardise is None:
            backend.apply(cast, x, out=block.x)
        else:
            backend.apply(standardise, x, *self._standardise, out=block.x)
        if not labelled:
            return None
        if self._k is None:
            backend.apply(cast, self._labels[start:stop], out=block.y)
        else:
            backend.apply(one_hot, self._labels[start:stop], self._k, out=block.y)
        if self._weights is not None:
            block.w = self._weights[start:stop]
        return None if self._validation is None else self._validation[start:stop]


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


def refuse_non_finite(x: np.ndarray, first_row: int) -> None:
    """Raise DataError if a value of these rows is NaN or infinite; row and column are named."""
    # the sum is finite unless a value is not (or the values are near the end of the range): one cheap look, then a
    # close one
    with np.errstate(all="ignore"):
        suspect = x.dtype.kind == "f" and not np.isfinite(x.sum(dtype=np.float64))
    if suspect and not (finite := np.isfinite(x)).all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise DataError(f"{x[row, column]} in row {first_row + row}, column {column} of X", wanted="finite numbers")
