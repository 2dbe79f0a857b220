"""The sum over rows: a fixed binary tree over fixed leaves.

Floating-point sums depend on their order. Here the order is part of the problem and not of the machine: leaf i of n
holds rows ⌊i·m/n⌋ … ⌊(i+1)·m/n⌋, n is a power of two that follows from the data and the network alone, and siblings are
added pairwise up to the root. Who computes a leaf (which thread, which process, which device) never changes a bit.

Owners (threads) take the leaves of a contiguous range in order and then steal from the tail of the longest range left.
Whoever finishes the second of two siblings adds them and climbs. So at most about log2(n) + 1 nodes per owner are
alive, and they are used again: memory does not grow with the number of leaves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Generic, TypeVar

Node = TypeVar("Node")


def leaf_count(m: int, least_rows: int, most: int) -> int:
    """The largest power of two that leaves `least_rows` rows or more to each leaf, and is `most` or less."""
    return 1 << max(0, min(most, m // least_rows).bit_length() - 1)


def leaf_rows(leaf: int, leaves: int, m: int) -> tuple[int, int]:
    """The rows [start, stop) of a leaf."""
    return leaf * m // leaves, (leaf + 1) * m // leaves


def blocks(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    """[start, stop) cut into the fewest equal pieces (to one row) of at most `most` rows."""
    count = max(1, -(-(stop - start) // most))
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return list(pairwise(edges))


def cover(first: int, stop: int, leaves: int) -> list[int]:
    """The heap indices of the topmost nodes over leaves first … stop − 1, from left to right."""
    left: list[int] = []
    right: list[int] = []
    low, high = first + leaves, stop + leaves
    while low < high:
        if low & 1:
            left.append(low)
            low += 1
        if high & 1:
            high -= 1
            right.append(high)
        low, high = low >> 1, high >> 1
    return left + right[::-1]


def leaves_below(index: int, leaves: int) -> tuple[int, int]:
    """First and stop of the leaves under a node, by its heap index."""
    levels = leaves.bit_length() - index.bit_length()
    return (index << levels) - leaves, (index + 1 << levels) - leaves


def depth_first(first: int, stop: int, leaves: int) -> Iterator[tuple[int, list[int]]]:
    """Leaves first … stop − 1 in order: of each the place for its sums, and the places k to which those in k + 1 are
    added after it.

    In the end the first places hold the topmost nodes, as in `cover`. Of a whole tree log2(leaves) + 1 are used.
    """
    waiting: list[int] = []
    for leaf in range(first, stop):
        waiting.append(leaf + leaves)
        place, added = len(waiting) - 1, []
        while len(waiting) > 1 and waiting[-1] & 1 and waiting[-2] == waiting[-1] - 1:
            waiting.pop()
            waiting[-1] >>= 1
            added.append(len(waiting) - 1)
        yield place, added


class SumTree(Generic[Node]):
    """Computes the root of the tree with several owners, or the topmost nodes over a contiguous part of its leaves.

    Args:
        leaves: the number of leaves, a power of two.
        own: first and stop of those to be computed here; by default all.
        owners: how many threads work on it; the result does not depend on it.
        make: makes a node's buffers.
        merge: ``merge(a, b)`` adds b's sums to a's, in place.
    """

    def __init__(
        self,
        leaves: int,
        owners: int,
        make: Callable[[], Node],
        merge: Callable[[Node, Node], None],
        own: tuple[int, int] | None = None,
    ) -> None:
        if leaves < 1 or leaves & (leaves - 1):
            raise ValueError(f"{leaves} leaves are not a power of two")
        self.leaves = leaves
        self.own = own or (0, leaves)
        self.owners = max(1, min(owners, self.own[1] - self.own[0]))
        self._make, self._merge = make, merge
        self._lock = threading.Lock()
        self._free: list[Node] = []
        self._pool = ThreadPoolExecutor(self.owners - 1, "gpubp") if self.owners > 1 else None

    def root(self, fill: Callable[[int, int, Node], None]) -> dict[int, Node]:
        """One sum: ``fill(owner, leaf, node)`` sets the node to the leaf's sums. Returns the topmost nodes
        by heap index: root 1, children 2i and 2i + 1.

        Give them back with `release` when they have been read. An exception in any owner stops all and is raised here.
        """
        first, count = self.own[0], self.own[1] - self.own[0]
        self._ranges = [
            [first + i * count // self.owners, first + (i + 1) * count // self.owners] for i in range(self.owners)
        ]
        self._waiting: dict[int, Node] = {}
        self._failed = False
        helpers = [self._pool.submit(self._own, i, fill) for i in range(1, self.owners)] if self._pool else []
        try:
            self._own(0, fill)
        finally:
            errors = [helper.exception() for helper in helpers]
        for error in errors:
            if error:
                raise error
        return self._waiting

    def release(self, nodes: Sequence[Node]) -> None:
        """Give nodes back for the next sum."""
        self._free.extend(nodes)

    def close(self) -> None:
        """End the owners' threads."""
        if self._pool:
            self._pool.shutdown()

    def _own(self, owner: int, fill: Callable[[int, int, Node], None]) -> None:
        try:
            while (leaf := self._take(owner)) is not None:
                with self._lock:
                    node = self._free.pop() if self._free else None
                if node is None:
                    node = self._make()
                fill(owner, leaf, node)
                self._climb(self.leaves + leaf, node)
        except BaseException:
            self._failed = True
            raise

    def _take(self, owner: int) -> int | None:
        with self._lock:
            if self._failed:
                return None
            mine = self._ranges[owner]
            if mine[0] < mine[1]:
                mine[0] += 1
                return mine[0] - 1
            longest = max(self._ranges, key=lambda r: r[1] - r[0])
            if longest[0] == longest[1]:
                return None
            longest[1] -= 1
            return longest[1]

    def _climb(self, index: int, node: Node) -> None:
        while index > 1:
            with self._lock:
                sibling = self._waiting.pop(index ^ 1, None)
                if sibling is None:
                    self._waiting[index] = node
                    return
            # a + b = b + a to the bit, so it does not matter which of the two climbs
            self._merge(node, sibling)
            with self._lock:
                self._free.append(sibling)
            index >>= 1
        self._waiting[index] = node
