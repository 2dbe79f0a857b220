"""Whether probabilities are what they say: of the answers given with 80 %, are 80 % right?

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", equations 2 and 3: answers are put
into bins by confidence, each bin's mean confidence is compared with its share of right answers, and the expected
calibration error is ECE = Σ_b (n_b / n) · |acc(b) − conf(b)|. With row weights n is a sum of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # as in the paper


@dataclass(frozen=True)
class Calibration:
    """The bins of equal width from 0 to 1.

    Attributes:
        of: what is compared with what, for a person.
        weight: (BINS,) of the answers in each.
        confidence, share: (BINS,) the mean confidence and the share of right answers; NaN where there is no answer.
        ece: the expected calibration error; None without an answer.
    """

    of: str
    weight: np.ndarray
    confidence: np.ndarray
    share: np.ndarray
    ece: float | None


class Bins:
    """Collects answers.

    Args:
        of: what is compared with what.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._sums = np.zeros((3, BINS))

    def add(self, confidence: np.ndarray, right: np.ndarray, w: np.ndarray) -> None:
        """Answers with their confidence in 0 … 1, whether they are right, and their weight, all (n,)."""
        # bin b holds (b/BINS, (b+1)/BINS], and the first one 0 as well
        at = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
        for sums, what in zip(self._sums, (w, w * confidence, w * right), strict=True):
            sums += np.bincount(at, weights=what, minlength=BINS)

    def result(self) -> Calibration:
        """What was found."""
        weight, confidence, right = self._sums
        whole = float(weight.sum())
        with np.errstate(invalid="ignore"):
            means = confidence / weight, right / weight
        ece = float(np.abs(right - confidence).sum()) / whole if whole else None
        return Calibration(self._of, weight, *means, ece)
