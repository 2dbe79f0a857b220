"""Vectors that are long are looked at in parts, and the products of the parts are summed by a tree.

A sum over the elements of a vector is to have one order, whoever adds. So it is the house's sum over rows once more
(`gpubp.tree`): vectors of `PARTED` elements or more have a power of two of parts, part i of n being elements ⌊i·P/n⌋ …
⌊(i+1)·P/n⌋, and products of the parts are added pairwise. How many there are follows from P alone: one process does the
same sums as many.

Where there are several, what takes the memory is the matrices whose rows are vectors, and each process keeps of them
the columns of its own contiguous parts (`Parted`). Single vectors are whole everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..tree import cover, leaf_count, leaf_rows, leaves_below

PARTED = 1 << 20  # elements from which vectors have parts
PART, MOST = 1 << 16, 1 << 20  # elements of a part at least (shorter ones cost more calls), and parts at most


def parts(P: int) -> int:
    """How many parts a vector of P elements has: 1, or a power of two."""
    return leaf_count(P, PART, MOST) if P >= PARTED else 1


def cut(P: int, first: int, stop: int) -> list[slice]:
    """The elements of parts first … stop − 1 of a vector of P elements."""
    count = parts(P)
    return [slice(*leaf_rows(part, count, P)) for part in range(first, stop)]


def span(P: int, first: int, stop: int) -> slice:
    """All of these elements."""
    count = parts(P)
    return slice(leaf_rows(first, count, P)[0], leaf_rows(stop, count, P)[0])


def added(first: int, sums: np.ndarray, count: int) -> dict[int, tuple[np.ndarray]]:
    """The topmost nodes over some of `count` parts.

    Args:
        first: the first of these parts.
        sums: of each, (parts, numbers).

    Returns:
        By heap index (root 1, children 2i and 2i + 1), as one array of (numbers,).
    """
    found: dict[int, tuple[np.ndarray]] = {}
    for index in cover(first, first + len(sums), count):
        start, stop = leaves_below(index, count)
        node = sums[start - first : stop - first]
        while len(node) > 1:
            node = node[::2] + node[1::2]
        found[index] = (node[0],)
    return found


@dataclass(frozen=True)
class Parted:
    """A matrix whose rows are vectors, of which this process has some columns.

    Attributes:
        own: those, (n, columns) float64.
        columns: which they are.
        P: how many there are in all.
    """

    own: np.ndarray
    columns: slice
    P: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.own), self.P

    @property
    def dtype(self) -> np.dtype:
        return self.own.dtype

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, rows: int | slice) -> Parted | Row:
        if isinstance(rows, slice):
            return Parted(self.own[rows], self.columns, self.P)
        return Row(self.own[rows], self.columns, self.P)


@dataclass(frozen=True)
class Row:
    """A row of a `Parted` matrix: a vector to copy from and to, and to have products with."""

    own: np.ndarray
    columns: slice
    P: int

    @property
    def shape(self) -> tuple[int]:
        return (self.P,)

    def __len__(self) -> int:
        return self.P
