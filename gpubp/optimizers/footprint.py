"""How much memory an optimizer takes, before it takes any."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .base import Optimizer
from .parted import parts, span
from .vectors import HostVectors


class _Counting(HostVectors):
    """Vectors that are counted and not made."""

    def __init__(self, ranks: Any) -> None:
        super().__init__(ranks=ranks)
        self.bytes = 0

    def zeros(self, *shape: int) -> np.ndarray:
        self.bytes += 8 * math.prod(shape)
        return np.broadcast_to(0.0, shape)

    def matrix(self, n: int, P: int) -> np.ndarray:
        own = span(P, *self._own(P))
        return self.zeros(n, own.stop - own.start)

    def put(self, host: np.ndarray, out: Any) -> None:
        pass

    def copy(self, source: Any, out: Any) -> None:
        pass


def footprint(optimizer: Optimizer[Any], P: int, ranks: Any = None) -> int:
    """Bytes of the vectors that `optimizer.blank` asks for with P parameters.

    Args:
        ranks: the processes that share them, a `gpubp.communicator.Communicator`; what is counted is this one's.
    """
    vectors = _Counting(ranks)
    optimizer.blank(P, vectors)
    return vectors.bytes


def shares(P: int, ranks: Any) -> float:
    """How many times the memory of one of these processes there is for matrices of rows of P elements."""
    count = parts(P)
    return count / -(-count // ranks.size)
