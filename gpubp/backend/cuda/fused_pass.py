"""A pass in one kernel for narrow networks: rows are read once, and nothing else leaves the chip.

A thread block owns whole leaves and leaves their sums; `combine` adds them in the order of the tree. Leaves are many
and short (`LEAF_ROWS`), whatever the device: the bits do not follow its number of processors. Leaves are taken in
groups of `GROUP`, whole subtrees one after the other, so memory does not grow with the rows. Where other processes have
leaves too, the first and the last group are parts of such a subtree, with several topmost nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...errors import BackendError
from ...formula import standardise
from ...tree import cover, leaf_count, leaf_rows, leaves_below
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
        leaves: how many there are.
        own: first and stop of those to sum.
    """

    def __init__(
        self, device: Device, network: Any, feed: Any, Theta: Any, fused: Fused, leaves: int, own: tuple[int, int]
    ) -> None:
        self._device, self._feed, self._fused, self._Theta = device, feed, fused, Theta
        m, P = feed.rows.m, network.P
        self._m, self._P, self._leaves = m, P, leaves
        most = max(1, GROUP_BYTES // (4 * P))
        group = min(leaves, GROUP, 1 << (most.bit_length() - 1))
        self._groups = [
            (max(own[0], at), min(own[1], at + group)) for at in range(own[0] // group * group, own[1], group)
        ]
        longest = max((last - first for first, last in self._groups), default=0)

        def nodes(count: int) -> tuple[Any, Any]:
            return device.empty((count, P), Theta.dtype), device.empty((count, 2), np.dtype(np.float64))

        self._sums, self._costs = nodes(longest)
        self.nodes: dict[int, tuple[Any, Any]] = {}
        # what follows after a group, by its first leaf: the sums of subtrees in it; and in the end those of larger ones
        self._trees: dict[int, list[Tree]] = {first: [] for first, _ in self._groups}
        self._tops: list[Tree] = []
        for index in cover(*own, leaves):
            flat, cost = (array[0] for array in nodes(1))
            self.nodes[index] = flat, cost
            first, last = leaves_below(index, leaves)
            roots = {first: (flat, cost)}
            if last - first > group:
                flats, costs = nodes((last - first) // group)
                self._tops.append(Tree(device, flats, costs, flat, cost))
                roots = {at: (flats[i], costs[i]) for i, at in enumerate(range(first, last, group))}
            for at, root in roots.items():
                base = max(own[0], at // group * group)
                part = slice(at - base, min(last, at + group) - base)
                self._trees[base].append(Tree(device, self._sums[part], self._costs[part], *root))
        # leaves whose rows lie on the device; the others are sent
        rows = feed.rows.first, feed.rows.first + feed.resident_rows
        kept = -(-rows[0] * leaves // m), ((rows[1] + 1) * leaves - 1) // m
        self._launches = [self._plan(first, last, *kept) for first, last in self._groups]
        sent = [
            (leaf_rows(first, leaves, m)[0], leaf_rows(last - 1, leaves, m)[1])
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
        sent, there = 0, self._feed.rows.first
        for (base, _), launches in zip(self._groups, self._launches, strict=True):
            for first, last, is_sent in launches:
                x, start, piece = self._feed.resident(there, there + self._feed.resident_rows), there, None
                if is_sent:
                    assert self.conveyor
                    piece, sent = sent, sent + 1
                    x, start = self.conveyor.rows(piece), leaf_rows(first, self._leaves, self._m)[0]
                yield Step(partial(self._launch, x, start, base, first, last, with_gradient), piece)
            for tree in self._trees[base]:
                yield Step(partial(tree.add, P))
        for tree in self._tops:
            yield Step(partial(tree.add, P))

    @property
    def launches(self) -> int:
        """How many there are in a pass, roughly."""
        return sum(map(len, self._launches)) + 3 * sum(map(len, self._trees.values()))

    def close(self) -> None:
        """End the thread that reads rows."""
        if self.conveyor:
            self.conveyor.close()

    def _plan(self, first: int, last: int, kept: int, until: int) -> list[tuple[int, int, bool]]:
        """Launches for a group's leaves: (first leaf, last leaf, whether its rows are sent). Leaves `kept` … until − 1
        lie on the device."""
        kept, until = max(first, kept), min(last, until)
        if kept >= until:
            return self._sent(first, last)
        return [*self._sent(first, kept), (kept, until, False), *self._sent(until, last)]

    def _sent(self, first: int, last: int) -> list[tuple[int, int, bool]]:
        """Launches for leaves whose rows are sent, as much together as a piece may have."""
        row, launches = self._feed.stored.itemsize * self._feed.rows.features, []
        while first < last:
            start, end = leaf_rows(first, self._leaves, self._m)[0], first + 1
            while end < last and (leaf_rows(end, self._leaves, self._m)[1] - start) * row <= PIECE_BYTES:
                end += 1
            launches.append((first, end, True))
            first = end
        return launches

    def _launch(self, x: Any, x_row: int, base: int, first: int, last: int, with_gradient: bool) -> None:
        feed = self._feed
        arguments = (
            *(x, feed.labels, feed.numbers, *feed.moments, feed.weights, feed.validation),
            *(self._Theta, self._sums, self._costs, self._m, self._leaves, first, last, base),
            *(x_row, 0, _ALL, 0, with_gradient),
        )
        self._device.launch(self._fused.kernel, min(last - first, self._most_blocks), arguments)
