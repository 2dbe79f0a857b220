"""How much memory an optimizer takes, before it takes any."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .base import Optimizer
from .vectors import HostVectors


class _Counting(HostVectors):
    """Vectors that are counted and not made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def zeros(self, *shape: int) -> np.ndarray:
        self.bytes += 8 * math.prod(shape)
        return np.broadcast_to(0.0, shape)

    def put(self, host: np.ndarray, out: Any) -> None:
        pass

    def copy(self, source: Any, out: Any) -> None:
        pass


def footprint(optimizer: Optimizer[Any], P: int) -> int:
    """Bytes of the vectors that `optimizer.blank` asks for with P parameters."""
    vectors = _Counting()
    optimizer.blank(P, vectors)
    return vectors.bytes
