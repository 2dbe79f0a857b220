"""The upper part of the sum tree across ranks.

Leaves are numbered, and each rank owns a contiguous part of them. Its own tree ends at the topmost nodes of that part,
one where the ranks are a power of two and a few otherwise. Everybody knows everybody's nodes by number, so no message
says what it holds, and siblings are added pairwise up to the root as they would be by one process.

Small nodes travel whole, each to everybody, in one exchange; all ranks then do the same few additions. Of large ones
rank r gets the r-th slice of all, adds these, and the slices of the root go to everybody: each byte of a node is sent
once and not once to each rank, and additions are shared too. (Of two ranks each gets the other's bytes either way.)
Elements do not know which of the two it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..tree import cover
from . import Array, Part

SMALL = 1 << 20  # bytes of all nodes together up to which they travel whole
ALIGN = 64  # bytes
HEADER = 64  # bytes: of what a rank says beside its nodes


def own_leaves(rank: int, size: int, leaves: int) -> tuple[int, int]:
    """First and stop of a rank's leaves."""
    return rank * leaves // size, (rank + 1) * leaves // size


def additions(indices: Sequence[int]) -> list[tuple[int, int]]:
    """(a, b) of places among these nodes: the sum of both goes to a's place; the root comes to be in place 0."""
    found: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []  # a node's index and its place
    for place, index in enumerate(indices):
        while waiting and waiting[-1][0] ^ 1 == index and index & 1:
            left = waiting.pop()[1]
            found.append((left, place))
            index, place = index >> 1, left
        waiting.append((index, place))
    if [node[0] for node in waiting] != [1]:
        raise ValueError(f"nodes {list(indices)} make no tree")
    return found


class Exchange(Protocol):
    """How bytes travel between ranks. What is received is in the order of the ranks."""

    def all_gather(self, send: np.ndarray, out: np.ndarray, counts: Sequence[int]) -> None:
        """Everybody's bytes to everybody; `counts` of each rank."""
        ...

    def all_to_all(self, send: np.ndarray, counts: Sequence[int], out: np.ndarray, out_counts: Sequence[int]) -> None:
        """To each rank its own piece: so many bytes are sent to each, and received from each."""
        ...


class Layout:
    """Where a node's arrays lie in bytes, each from a multiple of `ALIGN` on; whole, or one rank's slice of each."""

    def __init__(self, parts: Sequence[tuple[int, np.dtype]]) -> None:
        self.places: list[tuple[int, int, np.dtype]] = []
        at = 0
        for elements, dtype in parts:
            self.places.append((at, elements, dtype))
            at += -(-elements * dtype.itemsize // ALIGN) * ALIGN
        self.bytes = at

    def views(self, buffer: np.ndarray) -> list[np.ndarray]:
        """The flat arrays at the beginning of these bytes."""
        return [buffer[at : at + n * dtype.itemsize].view(dtype) for at, n, dtype in self.places]


class Plan:
    """Who has which nodes of a tree, and how they are cut where they travel in slices.

    Args:
        leaves, node: of the tree, see `Communicator.top`.
        small: bytes up to which nodes travel whole; by default `SMALL`, and any number on two ranks.

    Attributes:
        own: first and stop of this rank's leaves.
        mine: the heap indices of its topmost nodes, from left to right.
        counts: how many nodes each rank has; `additions` numbers them all, rank after rank.
        shapes, lengths: of a node's arrays; their elements and types.
        whole: where they lie in a node that travels whole.
        sliced: whether nodes travel in slices.
        each: of each array, how many elements a slice has but for the last ones: whole units of `ALIGN` bytes.
        cuts: by rank, its slice of each array.
    """

    def __init__(self, rank: int, size: int, leaves: int, node: Sequence[Part], small: int | None = None) -> None:
        self.rank, self.size = rank, size
        self.own = own_leaves(rank, size, leaves)
        nodes = [cover(*own_leaves(r, size, leaves), leaves) for r in range(size)]
        self.mine = nodes[rank]
        self.counts = [len(one) for one in nodes]
        self.additions = additions([index for one in nodes for index in one])
        self.shapes = [shape for shape, _ in node]
        self.lengths = [(int(np.prod(shape)), np.dtype(dtype)) for shape, dtype in node]
        self.whole = Layout(self.lengths)
        limit = SMALL if small is None else small
        self.sliced = self.whole.bytes * sum(self.counts) > limit and (size > 2 or small is not None)
        self.each: list[int] = []
        for n, dtype in self.lengths:
            unit = ALIGN // dtype.itemsize
            self.each.append(-(-n // (size * unit)) * unit)
        cuts = list(zip(self.lengths, self.each, strict=True))
        self.cuts = [[slice(min(n, r * each), min(n, (r + 1) * each)) for (n, _), each in cuts] for r in range(size)]


class RanksTop:
    """`Top` over several ranks.

    Args:
        exchange: how bytes travel.
        header: gives the (8,) int64 numbers that this rank says beside its nodes, given the error of computing them.
        heard: is told what all of them said, (ranks, 8), before the root is used; it raises what is to be raised.
        small: see `Plan`.
    """

    def __init__(
        self, exchange: Exchange, rank: int, size: int, leaves: int, node: Sequence[Part], *,
        header: Callable[[BaseException | None], np.ndarray],
        heard: Callable[[np.ndarray, BaseException | None], None],
        small: int | None = None,
    ) -> None:  # fmt: skip
        self._exchange, self._header, self._heard = exchange, header, heard
        self._plan = Plan(rank, size, leaves, node, small)
        self.own = self._plan.own
        self._headers = np.empty((size, HEADER), np.uint8)
        if not self._plan.sliced:
            self._plan_whole()
        else:
            self._plan_slices()

    def _plan_whole(self) -> None:
        plan, layout = self._plan, self._plan.whole
        whole = layout.bytes
        self._bytes = [HEADER + count * whole for count in plan.counts]
        self._send, self._received = _aligned(self._bytes[plan.rank]), _aligned(sum(self._bytes))
        self._filled = [layout.views(self._send[HEADER + i * whole :]) for i in range(len(plan.mine))]
        self._places: list[list[np.ndarray]] = []
        self._said: list[np.ndarray] = []
        at = 0
        for count in plan.counts:
            self._said.append(self._received[at : at + HEADER])
            at += HEADER
            for _ in range(count):
                self._places.append(layout.views(self._received[at:]))
                at += whole

    def _plan_slices(self) -> None:
        plan, mine, cuts = self._plan, len(self._plan.mine), self._plan.cuts
        parts = [
            Layout([(one.stop - one.start, dtype) for one, (_, dtype) in zip(cut, plan.lengths, strict=True)])
            for cut in cuts
        ]
        own = self._own_part = parts[plan.rank]
        self._back = [part.bytes for part in parts]
        self._to, self._from = [n * mine for n in self._back], [own.bytes * count for count in plan.counts]
        self._send, self._received = _aligned(sum(self._to)), _aligned(sum(self._from))
        self._gathered, whole = _aligned(sum(self._back)), _aligned(plan.whole.bytes)
        self._root = plan.whole.views(whole)
        self._filled: list[list[np.ndarray]] = []
        self._returned: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
        self._cuts = [cut for cut in cuts for _ in range(mine)]
        at = back = 0
        for cut, part in zip(cuts, parts, strict=True):
            for _ in range(mine):
                self._filled.append(part.views(self._send[at:]))
                at += part.bytes
            slices = [array[one] for array, one in zip(self._root, cut, strict=True)]
            self._returned.append((part.views(self._gathered[back:]), slices))
            back += part.bytes
        self._places = [own.views(self._received[i * own.bytes :]) for i in range(sum(plan.counts))]

    def root(self, nodes: Callable[[], Mapping[int, Sequence[Array]]]) -> Sequence[Array]:
        found: Mapping[int, Sequence[Array]] = {}
        error: BaseException | None = None
        if self._plan.mine:
            try:
                found = nodes()
            except Exception as failed:  # it is said to all, and raised after that
                error = failed
        mine = [found[index] for index in self._plan.mine] if error is None else []
        header = self._header(error)
        root = self._by_slices(mine, header, error) if self._plan.sliced else self._at_once(mine, header, error)
        return [flat.reshape(shape) for flat, shape in zip(root, self._plan.shapes, strict=True)]

    def _at_once(
        self, mine: list[Sequence[Array]], header: np.ndarray, error: BaseException | None
    ) -> list[np.ndarray]:
        self._send[:HEADER] = header.view(np.uint8)
        for there, arrays in zip(self._filled, mine, strict=False):  # none of them after an error
            for view, array in zip(there, arrays, strict=True):
                view[...] = array.reshape(-1)
        self._exchange.all_gather(self._send, self._received, self._bytes)
        for r, said in enumerate(self._said):
            self._headers[r] = said
        self._heard(self._headers.view(np.int64), error)
        return self._added()

    def _by_slices(
        self, mine: list[Sequence[Array]], header: np.ndarray, error: BaseException | None
    ) -> list[np.ndarray]:
        self._exchange.all_gather(header.view(np.uint8), self._headers.reshape(-1), [HEADER] * self._plan.size)
        self._heard(self._headers.view(np.int64), error)
        for i, (views, cut) in enumerate(zip(self._filled, self._cuts, strict=True)):
            for view, array, one in zip(views, mine[i % len(mine)], cut, strict=True):
                view[...] = array.reshape(-1)[one]
        self._exchange.all_to_all(self._send, self._to, self._received, self._from)
        self._added()
        self._exchange.all_gather(self._received[: self._own_part.bytes], self._gathered, self._back)
        for views, slices in self._returned:
            for view, there in zip(views, slices, strict=True):
                there[...] = view
        return self._root

    def _added(self) -> list[np.ndarray]:
        """The root, in the place of the first node."""
        places = self._places
        with np.errstate(all="ignore"):  # a NaN is found in the cost and the gradient
            for a, b in self._plan.additions:
                for one, other in zip(places[a], places[b], strict=True):
                    np.add(one, other, out=one)
        return places[0]


def _aligned(size: int) -> np.ndarray:
    """Bytes from a multiple of `ALIGN` on."""
    raw = np.zeros(size + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + size]
