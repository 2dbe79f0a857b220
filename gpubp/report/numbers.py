"""What a regression's predictions are worth: RMSE and R² of each output, residuals, prediction against truth.

Errors are summed over all rows. For the pictures there are the residuals of every row, or where these would be more
than `KEPT` numbers, of every s-th row: a fixed rule, so that the same data give the same picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT = 2_000_000  # residuals
QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Numbers:
    """What a regression's predictions are worth.

    Attributes:
        rmse, r2: over all outputs, as `gpubp evaluate` has them; R² is None where y does not vary.
        rmse_each, r2_each: (K,); NaN where y does not vary.
        bias: (K,) the mean of prediction − truth.
        every: every how many rows there is one in the sample.
        truth, predicted: (n, K) the sample; rows of weight 0 are left out.
        weight: (n,) of its rows.
        within: (3,) what |prediction − truth| does not exceed in 50, 90 and 99 % of the sample, all outputs together.
    """

    rmse: float
    r2: float | None
    rmse_each: np.ndarray
    r2_each: np.ndarray
    bias: np.ndarray
    every: int
    truth: np.ndarray
    predicted: np.ndarray
    weight: np.ndarray
    within: np.ndarray


class NumberCollector:
    """Collects outputs, chunk by chunk.

    Args:
        labels: all targets, (m, K) or (m,).
        w: (m,) weights.
        most: residuals to keep.
    """

    def __init__(self, labels: np.ndarray, w: np.ndarray, *, most: int = KEPT) -> None:
        m = len(labels)
        self._y, self._w = labels.reshape(m, -1), w
        K = self._y.shape[1]
        self._every = max(1, -(-m // max(1, most // K)))
        self._predicted = np.empty((-(-m // self._every), K))
        self._squared, self._sum = np.zeros(K), np.zeros(K)

    def add(self, start: int, h: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
        """Rows from `start`: outputs and targets (rows, K), weights (rows,)."""
        error = h - y.reshape(h.shape)
        self._squared += w @ error**2
        self._sum += w @ error
        first = -(-start // self._every)
        chosen = h[first * self._every - start :: self._every]
        self._predicted[first : first + len(chosen)] = chosen

    def result(self) -> Numbers:
        """What was found."""
        y, w = self._y, self._w
        total = float(w.sum())
        mean = (w @ y.astype(np.float64)) / total
        spread = w @ (y - mean) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = np.where(spread > 0, 1 - self._squared / spread, np.nan)
        counted = w[:: self._every] > 0
        truth, predicted = y[:: self._every][counted].astype(np.float64), self._predicted[counted]
        return Numbers(
            float(np.sqrt(self._squared.mean() / total)), float(np.mean(r2)) if (spread > 0).all() else None,
            np.sqrt(self._squared / total), r2, self._sum / total, self._every,
            truth, predicted, w[:: self._every][counted],
            _quantiles(np.abs(predicted - truth).ravel(), np.repeat(w[:: self._every][counted], y.shape[1])),
        )  # fmt: skip


def _quantiles(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The smallest values at or below which these shares of the weight lie."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(w[order])
    at = np.searchsorted(share, np.array(QUANTILES) * share[-1] * (1 - 1e-12))
    return values[order][np.minimum(at, len(order) - 1)]
