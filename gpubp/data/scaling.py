"""What is known of the columns, and what is then done to the features: (x − μ) / σ, x / 255, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Array = NDArray[np.float64]

KINDS = ("auto", "none", "standard", "255")


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
