"""Sums over the rows that are no pass for J: block by block on a tree of leaves, the caller's work on each block.

A walk goes over all rows, or over a sample of them: short stretches, spread evenly, that are put together to blocks as
they are loaded, so that a small sample costs few operations wherever its rows lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import backprop
from .backend import Backend
from .backprop import Block, Workspace
from .communicator import Communicator
from .counter_hash import hash_uniform
from .data.rows import Rows
from .feed import Feed
from .network import Layers, Network
from .tree import SumTree, blocks, leaf_rows

Stretch = tuple[int, int]  # rows [start, stop)
OFFSETS = 16  # places of a stretch among which a draw chooses: few, since labels of each are kept


class Owner:
    """One thread's buffers for blocks of up to `rows` rows; `own` holds what its user keeps there."""

    def __init__(self, backend: Backend, network: Network, feed: Feed, dtype: np.dtype, rows: int) -> None:
        self._backend, self._feed = backend, feed
        self.work = Workspace(backend, network, dtype, rows)
        self.own: dict[str, Any] = {}
        self._staging = np.empty((rows, network.sizes[0]), feed.stored)
        self._w = self.work.w if feed.weights is None else backend.empty((rows, 1), dtype)
        self._parts: dict[Stretch, Block] = {}

    def load(self, stretches: list[Stretch]) -> Block:
        """The block of these rows."""
        block = self.work.block(sum(v - u for u, v in stretches))
        if len(stretches) == 1:
            self._feed.load(*stretches[0], self._staging, block, labelled=True)
            return block
        rows = block.ones.shape[0]
        block.x, block.w, at = self.work.x[:rows], self._w[:rows], 0
        for u, v in stretches:
            part = self._part(at, at := at + v - u)
            x, w = part.x, part.w
            self._feed.load(u, v, self._staging, part, labelled=True)
            for loaded, place in ((part.x, x), (part.w, w)):
                if loaded is not place:  # as it lies among the rows
                    self._backend.copy(loaded, place)
            part.x, part.w = x, w
        return block

    def _part(self, start: int, stop: int) -> Block:
        """Rows of the buffers, by the same arrays each time."""
        if (start, stop) not in self._parts:
            work, own = self.work, slice(start, stop)
            self._parts[start, stop] = Block(work.x[own], work.y[own], self._w[own], work.ones[own], [], [], [])
        return self._parts[start, stop]


class Walk:
    """Sums over the rows of an objective.

    Args:
        shape, node: of a node's array, and its type; siblings are added elementwise.
        leaves, owners: how many, see `gpubp.tree`.
        block_rows: the most rows of a block.
    """

    def __init__(
        self, backend: Backend, network: Network, rows: Rows, feed: Feed, dtype: np.dtype, communicator: Communicator,
        shape: tuple[int, ...], node: np.dtype, leaves: int, owners: int, block_rows: int,
    ) -> None:  # fmt: skip
        self._backend, self._network, self._rows = backend, network, rows
        self._leaves, self._block_rows = leaves, block_rows
        self._top = communicator.top(leaves, [(shape, node)])
        first, stop = self._top.own
        longest = min(block_rows, -(-rows.m // leaves))
        with backend.guard():
            self._owners = [Owner(backend, network, feed, dtype, longest) for _ in range(min(owners, stop - first))]
            self._tree = SumTree(leaves, owners, lambda: backend.empty(shape, node), backend.add, self._top.own)

    def sum(
        self,
        Theta: Layers,
        add: Callable[[Owner, Block, Any], None],
        sample: Callable[[int], list[Stretch]] | None = None,
    ) -> np.ndarray:
        """The root, in NumPy's memory: ``add(owner, block, node)`` adds a block's part, whose a and z are there.

        Args:
            sample: the rows of a leaf that make its only block; without it all, block by block.
        """
        backend, network = self._backend, self._network

        def stretches(leaf: int) -> list[list[Stretch]]:
            if sample is not None:
                return [sample(leaf)]
            return [[part] for part in blocks(*leaf_rows(leaf, self._leaves, self._rows.m), self._block_rows)]

        def fill(owner: int, leaf: int, node: Any) -> None:
            it = self._owners[owner]
            with backend.guard():
                backend.zero(node)
                for one in stretches(leaf):
                    block = it.load(one)
                    backprop.forward(backend, network, Theta, block)
                    backprop.output(backend, network, block)
                    add(it, block, node)

        found: dict[int, Any] = {}

        def nodes() -> dict[int, tuple[Any, ...]]:
            with self._rows.unchanged():
                found.update(self._tree.root(fill))
            with backend.guard():
                return {index: (backend.to_host(node),) for index, node in found.items()}

        root = np.array(self._top.root(nodes)[0], np.float64)
        self._tree.release(list(found.values()))
        return root

    def close(self) -> None:
        """End its threads."""
        self._tree.close()


def spread(m: int, count: int, rows: int, seed: int, draw: int) -> list[Stretch]:
    """`count` stretches of so many rows each, one in each of as many equal parts of the m rows, where a draw says."""
    u = hash_uniform(seed, f"stretches {draw}", np.arange(count, dtype=np.uint64))
    found = []
    for i, offset in enumerate((u * OFFSETS).astype(int).tolist()):
        start, stop = leaf_rows(i, count, m)
        at = start + (stop - start - rows) * offset // (OFFSETS - 1)
        found.append((at, at + rows))
    return found
