"""Moments of the columns of some rows: exact where it is easy to be wrong, and the same bits on every machine.

A column with mean 10⁹ and deviation 1, a constant column (σ is 0, not 10⁻⁶), sums over 10⁹ rows: all is float64 and
relative to the first training row, which takes a large mean out of every sum and leaves exact zeros of a constant
column; a block's deviations are taken from its own mean, and blocks are merged by

    M₂ = M₂ᵃ + M₂ᵇ + (x̄ᵇ − x̄ᵃ)² · nᵃnᵇ / (nᵃ + nᵇ)

(Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1), as a binary tree over block
numbers. Blocks depend on the number of columns alone and every operation is one IEEE addition or multiplication in
a fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from .scaling import Array

_BLOCK = 1 << 15  # numbers of a block: what stays in a core's second-level cache as float64


@dataclass(frozen=True, eq=False)
class Moments:
    """Of some rows: their number, Σw, and per column x̄ − shift, Σw(x − x̄)², the least and the greatest value."""

    count: int
    weight: float
    mean: Array
    M2: Array
    minimum: Array
    maximum: Array

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows (Chan, Golub and LeVeque)."""
        weight = self.weight + other.weight
        apart = other.mean - self.mean
        return Moments(
            self.count + other.count,
            weight,
            self.mean + apart * (other.weight / weight),
            self.M2 + other.M2 + apart * apart * (self.weight * other.weight / weight),
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )


class Mergeable(Protocol):
    """What is known of some rows, and can be put together with what is known of others."""

    def merged(self, other: Self, /) -> Self:
        """What is known of both."""
        ...


Known = TypeVar("Known", bound=Mergeable)
Node = tuple[int, int, Known]  # its level, its number at that level, from left to right, and what it holds


class Tree(Generic[Known]):
    """What is known of blocks merged two by two: like a binary counter, it holds one node for each level that waits
    for a sibling.

    Args:
        first: the number of the first block: where several processes take their part of the blocks, the nodes of each
            are put together by `put`, and the root has the same bits.
    """

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self.waiting: list[Node[Known]] = []

    def add(self, node: Known) -> None:
        """What is known of the next block."""
        self.put(0, self._next, node)
        self._next += 1

    def put(self, level: int, number: int, node: Known) -> None:
        """The next node, which another tree has made of whole blocks."""
        while number & 1 and self.waiting and self.waiting[-1][:2] == (level, number - 1):
            node = self.waiting.pop()[2].merged(node)
            level, number = level + 1, number >> 1
        self.waiting.append((level, number, node))

    def root(self) -> Known | None:
        """What is known of all."""
        node: Known | None = None
        for *_, left in reversed(self.waiting):
            with np.errstate(over="ignore", invalid="ignore"):
                node = left if node is None else left.merged(node)
        return node


def block_shape(d: int) -> tuple[int, int]:
    """(fold, rows): a block's rows, and how many of them are laid side by side so that NumPy's inner loops are long."""
    fold = max(1, 512 // d)
    return fold, fold * max(16, _BLOCK // (d * fold))


def moments(block: NDArray[Any], shift: Array, weights: Array | None, fold: int) -> Moments:
    """The moments of one block, `fold` rows side by side; what does not fill such a line is a block of its own."""
    n = block.shape[0]
    if n % fold:
        if n < fold:
            return moments(block, shift, weights, 1)
        whole = n - n % fold
        body, tail = (None, None) if weights is None else (weights[:whole], weights[whole:])
        return moments(block[:whole], shift, body, fold).merged(moments(block[whole:], shift, tail, 1))
    w = None if weights is None else weights[np.newaxis]
    return moments_of_each(block[np.newaxis], shift, w, fold, np.empty(block.size))[0]


def moments_of_each(
    blocks: NDArray[Any], shift: Array, weights: Array | None, fold: int, room: Array, compiled: Any = None
) -> list[Moments]:
    """Likewise of several blocks of one length, a multiple of `fold`: the same bits, in fewer and longer operations.

    Args:
        blocks: (blocks, rows, columns), C-contiguous.
        weights: (blocks, rows), or None.
        room: scratch memory, at least as many numbers as the blocks have.
        compiled: `backend.compiled.columns`, where it can be had: it sums rows without weights three times as fast.
    """
    count, n, d = blocks.shape
    wide = blocks.reshape(count, n // fold, fold * d)
    minimum, maximum = _over_rows(np.minimum, wide, fold), _over_rows(np.maximum, wide, fold)
    totals = np.full((count, 1), float(n)) if weights is None else np.add.reduce(weights, axis=1)[:, np.newaxis]
    if compiled and weights is None and d > 1:
        offsets, M2 = np.empty((count, d)), np.empty((count, d))
        compiled.deviations(wide, shift, fold, offsets, M2, room[: fold * d], room[fold * d : 2 * fold * d])
    else:
        x = room[: blocks.size].reshape(wide.shape)
        np.copyto(x, wide)
        x -= np.tile(shift, fold)
        offsets = _over_rows(np.add, _weighted(x, weights), fold) / totals
        x -= np.tile(offsets, fold)[:, np.newaxis]
        np.multiply(x, x, out=x)
        M2 = _over_rows(np.add, _weighted(x, weights), fold)
    return [Moments(n, float(totals[i, 0]), offsets[i], M2[i], minimum[i], maximum[i]) for i in range(count)]


def _over_rows(ufunc: np.ufunc, wide: NDArray[Any], fold: int) -> Array:
    """Down the lines of each block, then over the rows that lie side by side in one."""
    count, _, width = wide.shape
    return ufunc.reduce(ufunc.reduce(wide, axis=1).reshape(count, fold, width // fold), axis=1).astype(np.float64)


def _weighted(wide: Array, weights: Array | None) -> Array:
    """Each row, of which several lie side by side in a line, times its weight."""
    if weights is None:
        return wide
    return (wide.reshape(*weights.shape, -1) * weights[..., np.newaxis]).reshape(wide.shape)
