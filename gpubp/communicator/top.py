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


class RanksTop:
    """`Top` over several ranks.

    Args:
        exchange: how bytes travel.
        header: gives the (8,) int64 numbers that this rank says beside its nodes, given the error of computing them.
        heard: is told what all of them said, (ranks, 8), before the root is used; it raises what is to be raised.
        small: bytes up to which nodes travel whole; by default `SMALL`, and any number on two ranks.
    """

    def __init__(
        self, exchange: Exchange, rank: int, size: int, leaves: int, node: Sequence[Part], *,
        header: Callable[[BaseException | None], np.ndarray],
        heard: Callable[[np.ndarray, BaseException | None], None],
        small: int | None = None,
    ) -> None:  # fmt: skip
        self._exchange, self._rank, self._size, self._header, self._heard = exchange, rank, size, header, heard
        self.own = own_leaves(rank, size, leaves)
        self._shapes = [shape for shape, _ in node]
        lengths = [(int(np.prod(shape)), np.dtype(dtype)) for shape, dtype in node]
        nodes = [cover(*own_leaves(r, size, leaves), leaves) for r in range(size)]
        self._mine = nodes[rank]
        self._counts = [len(one) for one in nodes]
        every = [index for one in nodes for index in one]
        self._additions = additions(every)
        self._whole = Layout(lengths)
        self._headers = np.empty((size, HEADER), np.uint8)
        limit = SMALL if small is None else small
        self._sliced = self._whole.bytes * len(every) > limit and (size > 2 or small is not None)
        if not self._sliced:
            self._plan_whole()
        else:
            self._plan_slices(lengths)

    def _plan_whole(self) -> None:
        whole = self._whole.bytes
        self._bytes = [HEADER + count * whole for count in self._counts]
        self._send, self._received = _aligned(self._bytes[self._rank]), _aligned(sum(self._bytes))
        self._filled = [self._whole.views(self._send[HEADER + i * whole :]) for i in range(len(self._mine))]
        self._places: list[list[np.ndarray]] = []
        self._said: list[np.ndarray] = []
        at = 0
        for count in self._counts:
            self._said.append(self._received[at : at + HEADER])
            at += HEADER
            for _ in range(count):
                self._places.append(self._whole.views(self._received[at:]))
                at += whole

    def _plan_slices(self, lengths: Sequence[tuple[int, np.dtype]]) -> None:
        size, rank, mine = self._size, self._rank, len(self._mine)
        cuts = [[slice(n * r // size, n * (r + 1) // size) for n, _ in lengths] for r in range(size)]
        parts = [
            Layout([(one.stop - one.start, dtype) for one, (_, dtype) in zip(rows, lengths, strict=True)])
            for rows in cuts
        ]
        own = self._own_part = parts[rank]
        self._back = [part.bytes for part in parts]
        self._to, self._from = [n * mine for n in self._back], [own.bytes * count for count in self._counts]
        self._send, self._received = _aligned(sum(self._to)), _aligned(sum(self._from))
        self._gathered, whole = _aligned(sum(self._back)), _aligned(self._whole.bytes)
        self._root = self._whole.views(whole)
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
        self._places = [own.views(self._received[i * own.bytes :]) for i in range(sum(self._counts))]

    def root(self, nodes: Callable[[], Mapping[int, Sequence[Array]]]) -> Sequence[Array]:
        found: Mapping[int, Sequence[Array]] = {}
        error: BaseException | None = None
        if self._mine:
            try:
                found = nodes()
            except Exception as failed:  # it is said to all, and raised after that
                error = failed
        mine = [found[index] for index in self._mine] if error is None else []
        header = self._header(error)
        root = self._by_slices(mine, header, error) if self._sliced else self._at_once(mine, header, error)
        return [flat.reshape(shape) for flat, shape in zip(root, self._shapes, strict=True)]

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
        self._exchange.all_gather(header.view(np.uint8), self._headers.reshape(-1), [HEADER] * self._size)
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
            for a, b in self._additions:
                for one, other in zip(places[a], places[b], strict=True):
                    np.add(one, other, out=one)
        return places[0]


def _aligned(size: int) -> np.ndarray:
    """Bytes from a multiple of `ALIGN` on."""
    raw = np.zeros(size + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + size]
