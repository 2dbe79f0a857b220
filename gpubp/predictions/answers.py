"""What is written of each row: the answer, and of a classifier the probabilities, under the names of their columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.targets import TargetSpec
from ..inference import decide


class Part(NamedTuple):
    """Some rows: the answers (rows,) or (rows, K), and probabilities (rows, columns) float32 or None."""

    prediction: NDArray[np.generic]
    probability: NDArray[np.float32] | None


@dataclass(frozen=True)
class Answers:
    """The table of a model's answers.

    Args:
        targets: what the outputs stand for.
        rows: how many there are.
        probability: whether the probabilities of a classifier are wanted.
    """

    targets: TargetSpec
    rows: int
    probability: bool = True

    def part(self, h: NDArray[np.float64]) -> Part:
        """What is written for outputs h (rows, K)."""
        prediction = decide(self.targets, h)
        if not self.p_names:
            return Part(prediction, None)
        both = np.concatenate([1 - h, h], axis=1) if self.targets.kind == "binary" else h
        return Part(prediction, both.astype(np.float32))

    @cached_property
    def _one(self) -> NDArray[np.generic]:
        return decide(self.targets, np.zeros((1, self.targets.outputs)))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the answers: the classes' bool, int64 or NumPy text; uint8 for several labels; float64."""
        return self._one.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answers: (m,) or (m, K)."""
        return (self.rows, *self._one.shape[1:])

    @cached_property
    def names(self) -> list[str]:
        """The columns of the answers: `prediction`, or `prediction_0`, … where a row has several."""
        return ["prediction"] if len(self.shape) == 1 else [f"prediction_{k}" for k in range(self.shape[1])]

    @cached_property
    def p_names(self) -> list[str]:
        """The columns of the probabilities, by the names of the classes (of several labels by their numbers)."""
        if self.targets.kind == "real" or not self.probability:
            return []
        classes = self.targets.classes
        return [f"p_{one}" for one in (range(self.targets.outputs) if classes is None else classes)]

    @property
    def arrays(self) -> list[str]:
        """The arrays of a file that has such: the answers and the probabilities."""
        return ["prediction", *(["probability"] if self.p_names else [])]

    @property
    def columns(self) -> list[str]:
        """All columns of a table, in their order."""
        return [*self.names, *self.p_names]

    @property
    def row_bytes(self) -> int:
        """What a row takes, about."""
        return self.dtype.itemsize * len(self.names) + 4 * len(self.p_names)
