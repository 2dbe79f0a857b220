"""A pass in one kernel for narrow networks: rows are read once, and nothing else leaves the chip.

A thread block owns whole leaves and leaves their sums; `combine` adds them in the order of the tree. Leaves are many
and short (`LEAF_ROWS`), whatever the device: the bits do not follow its number of processors. Beyond `GROUP` leaves,
whole subtrees are taken one after the other, so memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...errors import BackendError
from ...formula import standardise
from ...tree import leaf_count, leaf_rows
from .combine import Tree
from .conveyor import Conveyor
from .device import Device
from .fused import Fused, Task, plan
from .recorded import Step

LEAF_ROWS = 8192  # long enough that its sums are a small part of the traffic
SHORT_LEAF, FEW_LEAVES = 32, 256  # few rows are cut shorter, so that all processors have some
GROUP = 2048  # leaves whose sums are in memory at a time
GROUP_BYTES = 256 << 20
PIECE_BYTES = 64 << 20  # of rows that are sent; a piece has a leaf at least
_ALL = 1 << 62


def fused_kernel(device: Device, network: Any, feed: Any, products: Any, kernel: str) -> Fused | None:
    """The fused kernel for this pass; None where the layered one is to be taken.

    Raises:
        BackendError: `kernel` is "fused", and it cannot be; the message says why.
    """
    if kernel == "layered":
        return None
    try:
        if products == "exact":
            raise BackendError(
                "the fused kernel in full float32 or float64", wanted="tf32x3, tf32 or bf16", do="add --precision tf32"
            )
        return plan(task(network, feed, products), device.shared_memory)
    except BackendError:
        if kernel == "fused":
            raise
        return None


def task(network: Any, feed: Any, products: Any) -> Task:
    """What the kernel's text depends on."""
    return Task.of(
        network, products, stored=feed.stored, conversion="standardise" if feed.conversion is standardise else "cast",
        labels=np.dtype(feed.labels.dtype), one_hot=feed.numbers is not None,
        weighted=feed.weights is not None, held=feed.validation is not None,
    )  # fmt: skip


def fused_leaves(m: int) -> int:
    """How many leaves m rows have."""
    return max(leaf_count(m, LEAF_ROWS, _ALL), leaf_count(m, SHORT_LEAF, FEW_LEAVES))


class FusedPass:
    """The sums of all rows in one kernel. Attributes as `LayeredPass`.

    Args:
        Theta: the flat Θ of the pass, (P,) float32: where each pass finds it.
        fused: the kernel.
        leaves: overrides the number of leaves.
    """

    def __init__(self, device: Device, network: Any, feed: Any, Theta: Any, fused: Fused, leaves: int | None) -> None:
        self._device, self._feed, self._fused, self._Theta = device, feed, fused, Theta
        m, P = feed.rows.m, network.P
        self._m, self._P = m, P
        self.leaves, self.block_rows = leaves or fused_leaves(m), fused.tile_rows
        most = max(1, GROUP_BYTES // (4 * P))
        group = min(self.leaves, GROUP, 1 << (most.bit_length() - 1))
        groups = self.leaves // group
        real = np.dtype(np.float64)
        self._sums, self._costs = device.empty((group, P), Theta.dtype), device.empty((group, 2), real)
        self.flat, self.cost = device.empty((P,), Theta.dtype), device.empty((2,), real)
        self._top: Tree | None = None
        roots = [(self.flat, self.cost)]
        if groups > 1:
            nodes, node_costs = device.empty((groups, P), Theta.dtype), device.empty((groups, 2), real)
            self._top = Tree(device, nodes, node_costs, self.flat, self.cost)
            roots = [(nodes[g], node_costs[g]) for g in range(groups)]
        self._groups = [(g * group, Tree(device, self._sums, self._costs, *root)) for g, root in enumerate(roots)]
        # the first leaves lie on the device, the others are sent
        kept = self._whole_leaves(feed.resident_rows)
        self._launches = [self._plan(first, first + group, kept) for first, _ in self._groups]
        sent = [
            (leaf_rows(first, self.leaves, m)[0], leaf_rows(last - 1, self.leaves, m)[1])
            for launches in self._launches
            for first, last, is_sent in launches
            if is_sent
        ]
        features = network.sizes[0]
        self.conveyor = Conveyor(device, feed.rows.read, sent, features, feed.stored) if sent else None
        self._most_blocks = device.processors * fused.blocks

    def steps(self, with_gradient: bool) -> Iterator[Step]:
        """One pass."""
        P = self._P if with_gradient else 0
        sent = 0
        for (base, tree), launches in zip(self._groups, self._launches, strict=True):
            for first, last, is_sent in launches:
                x, start, piece = self._feed.resident(0, self._feed.resident_rows), 0, None
                if is_sent:
                    assert self.conveyor
                    piece, sent = sent, sent + 1
                    x, start = self.conveyor.rows(piece), leaf_rows(first, self.leaves, self._m)[0]
                yield Step(partial(self._launch, x, start, base, first, last, with_gradient), piece)
            yield Step(partial(tree.add, P))
        if self._top:
            yield Step(partial(self._top.add, P))

    @property
    def launches(self) -> int:
        """How many there are in a pass, roughly."""
        return sum(map(len, self._launches)) + 3 * len(self._groups)

    def close(self) -> None:
        """End the thread that reads rows."""
        if self.conveyor:
            self.conveyor.close()

    def _whole_leaves(self, rows: int) -> int:
        """How many leaves lie within the first rows."""
        low, high = 0, self.leaves
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if leaf_rows(middle - 1, self.leaves, self._m)[1] <= rows else (low, middle - 1)
        return low

    def _plan(self, first: int, last: int, kept: int) -> list[tuple[int, int, bool]]:
        """Launches for a group's leaves: (first leaf, last leaf, whether its rows are sent)."""
        launches = [(first, min(last, kept), False)] if first < kept else []
        row = self._feed.stored.itemsize * self._feed.rows.features
        at = max(first, kept)
        while at < last:
            start, end = leaf_rows(at, self.leaves, self._m)[0], at + 1
            while end < last and (leaf_rows(end, self.leaves, self._m)[1] - start) * row <= PIECE_BYTES:
                end += 1
            launches.append((at, end, True))
            at = end
        return launches

    def _launch(self, x: Any, x_row: int, base: int, first: int, last: int, with_gradient: bool) -> None:
        feed = self._feed
        arguments = (
            *(x, feed.labels, feed.numbers, *feed.moments, feed.weights, feed.validation),
            *(self._Theta, self._sums, self._costs, self._m, self.leaves, first, last, base),
            *(x_row, 0, _ALL, 0, with_gradient),
        )
        self._device.launch(self._fused.kernel, min(last - first, self._most_blocks), arguments)
