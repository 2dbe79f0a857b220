"""An evaluation whose Θ lives on the host: fold and cast Θ, sum over the rows, divide, add λ's terms.

The sums are the backend's: whole (`WholeSum`), leaf by leaf (`LeafLoop`), or as here the plain composition that defines
them all. The host's own vectors are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from . import backprop
from .backend import Backend
from .backend.numpy import aligned
from .backprop import Workspace
from .communicator import Communicator
from .data.rows import Rows
from .feed import Feed, fold, unfold
from .network import Network
from .precision import Precision
from .tree import SumTree, blocks, leaf_rows


class _Node:
    """The sums of a leaf or of a whole subtree: Δ, and [Σ w·cost, Σ validation w·cost] in float64."""

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype) -> None:
        self.flat = backend.empty((network.P,), dtype)
        backend.zero(self.flat)  # the gaps between layers stay zero from here on
        self.cost = backend.empty((2,), np.dtype(np.float64))
        self.has_gradient = False  # a pass for J alone leaves Δ as it was


class _PlainLeaf:
    """One owner's buffers, and the definition of a leaf: backpropagation block by block. See `LeafLoop`."""

    def __init__(
        self, backend: Backend, network: Network, feed: Feed, dtype: np.dtype, rows: int, block_rows: int
    ) -> None:
        self._backend, self._network, self._feed, self._block_rows = backend, network, feed, block_rows
        self._work = Workspace(backend, network, dtype, rows)
        self._staging = np.empty((rows, network.sizes[0]), feed.stored)

    def run(self, Theta: Any, start: int, stop: int, Delta: Any, cost: Any, with_gradient: bool) -> None:
        with self._backend.guard():
            self._blocks(Theta, start, stop, Delta, cost, with_gradient)

    def _blocks(self, Theta: Any, start: int, stop: int, Delta: Any, cost: Any, with_gradient: bool) -> None:
        backend, network = self._backend, self._network
        layers, sums = network.views(Theta), network.views(Delta)
        for i, (u, v) in enumerate(blocks(start, stop, self._block_rows)):
            block = self._work.block(v - u)
            validation = self._feed.load(u, v, self._staging, block, labelled=True)
            backprop.forward(backend, network, layers, block)
            backprop.add_cost(backend, network, block, block.w, cost[:1])
            if validation is not None:
                backprop.add_cost(backend, network, block, validation, cost[1:])
            if with_gradient:
                backprop.output(backend, network, block)
                backprop.backward(backend, network, layers, block, sums, beta=int(i > 0))


class OnHost:
    """J and ∇J of float64 vectors in NumPy's memory.

    Args:
        network, rows, lambda_, backend, communicator: see `gpubp.objective.Objective`.
        precision: of the pass.
        leaves, block_rows: override the backend's choice.

    Attributes:
        threads: how many a pass uses.
        leaves, block_rows: what was taken.
    """

    def __init__(
        self, network: Network, rows: Rows, lambda_: float, backend: Backend, precision: Precision,
        communicator: Communicator, leaves: int | None, block_rows: int | None,
    ) -> None:  # fmt: skip
        self.network, self.rows, self.lambda_, self.backend = network, rows, lambda_, backend
        dtype = precision.dtype
        suggested = backend.leaves_and_block(rows.m, network.sizes)
        self.leaves, self.block_rows = leaves or suggested[0], block_rows or suggested[1]
        longest = -(-rows.m // self.leaves)
        buffer_rows = min(self.block_rows, longest)
        part = (network.P,), dtype
        costs = (2,), np.dtype(np.float64)
        # by whether a pass is to give the gradient
        self._top = {True: communicator.top(self.leaves, [part, costs]), False: communicator.top(self.leaves, [costs])}
        own = self._top[True].own
        with backend.guard():
            share = rows.m * (own[1] - own[0]) // self.leaves
            owners = self.threads = max(1, min(backend.owners_for(share, network.sizes), own[1] - own[0]))
            self._feed = Feed(backend, rows, network.K, dtype)
            self._Theta_host = aligned((network.P,), dtype)
            self._Theta_host[...] = 0
            self._whole = backend.whole_sum(
                network, self._feed, self._Theta_host, self.leaves, owners, self.block_rows, own
            )
            self._tree: SumTree[_Node] | None = None
            if self._whole is None:
                self._tree = SumTree(self.leaves, owners, lambda: _Node(backend, network, dtype), self._merge, own)
                self._owners = [
                    backend.leaf_loop(network, self._feed, dtype, buffer_rows, self.block_rows)
                    or _PlainLeaf(backend, network, self._feed, dtype, buffer_rows, self.block_rows)
                    for _ in range(owners)
                ]
        self._used: list[_Node] = []  # nodes of the last sum, which may be read until the next one
        self._folded = np.zeros(network.P)
        pieces = _pieces(network)
        # the host's own vectors are worth several threads where they are long: each takes its part of the pieces
        n = self.threads if len(pieces) >= 16 else 1
        self._parts = [pieces[i * len(pieces) // n : (i + 1) * len(pieces) // n] for i in range(n)]
        self._pool = ThreadPoolExecutor(n - 1, "gpubp") if n > 1 else None

    @property
    def feed(self) -> Feed:
        """What brings the rows."""
        return self._feed

    @property
    def resident_rows(self) -> int:
        """How many rows are in memory."""
        return self._feed.resident_rows

    can_make_room = False  # the host's memory is one

    def close(self) -> None:
        """End the worker threads, let go of the rows and buffers."""
        held = [vars(self).pop(name, None) for name in ("_whole", "_tree", "_owners", "_feed")]
        for threads in held[:2]:
            if threads is not None:
                threads.close()
        if self._pool is not None:
            self._pool.shutdown()

    def evaluate(self, Theta: np.ndarray, gradient: np.ndarray | None) -> tuple[float, float]:
        """One pass: J, and the cost of the validation rows; ∇J written to `gradient` unless that is None."""
        backend, network = self.backend, self.network
        with backend.guard():
            folded = fold(network, self.rows.scaling, Theta, self._folded) if self._feed.folds else Theta
            self._in_parts(lambda piece, _: np.copyto(self._Theta_host[piece], folded[piece], casting="same_kind"))
            flat, costs = self._sum(gradient is not None)
            cost, validation = backend.to_host(costs).tolist()
            weight_sum = self.rows.weight_sum / self.rows.unit
            sums = gradient
            if gradient is not None:
                sums = backend.to_host(flat)
                if self._feed.folds:
                    np.copyto(gradient, sums)
                    unfold(network, self.rows.scaling, gradient)
                    sums = gradient
            J = cost / weight_sum + self._finish(Theta, sums, weight_sum, gradient)
        held = 0.0 if self.rows.validation is None else validation / (self.rows.validation_sum / self.rows.unit)
        return J, held

    def conditions(self) -> dict[str, str]:
        """What the bits depend on besides the backend's own conditions."""
        return {}

    def _sum(self, with_gradient: bool) -> tuple[Any, Any]:
        """The root of the sum at `_Theta_host`, Δ (None without a gradient) and the costs; good until the next one."""
        tree, whole = self._tree, self._whole
        if tree is not None:
            tree.release(self._used)
            self._used = []

        def nodes() -> dict[int, tuple[Any, ...]]:
            with self.rows.unchanged():
                if whole is not None:
                    found = whole.nodes(with_gradient)
                else:
                    assert tree is not None
                    flat = self.backend.upload(self._Theta_host)
                    found = tree.root(partial(self._leaf, flat, with_gradient))
                    self._used = list(found.values())
            return {i: (node.flat, node.cost) if with_gradient else (node.cost,) for i, node in found.items()}

        root = self._top[with_gradient].root(nodes)
        return (root[0], root[1]) if with_gradient else (None, root[0])

    def _leaf(self, Theta: Any, with_gradient: bool, owner: int, leaf: int, node: _Node) -> None:
        self.backend.zero(node.cost)
        node.has_gradient = with_gradient
        start, stop = leaf_rows(leaf, self.leaves, self.rows.m)
        self._owners[owner].run(Theta, start, stop, node.flat, node.cost, with_gradient)

    def _merge(self, a: _Node, b: _Node) -> None:
        if a.has_gradient:
            self.backend.add(a.flat, b.flat)
        self.backend.add(a.cost, b.cost)

    def _finish(
        self, Theta: np.ndarray, sums: np.ndarray | None, weight_sum: float, gradient: np.ndarray | None
    ) -> float:
        """gradient ← Δ/Σw + λ/Σw·Θ without the biases; returns λ/(2Σw)·ΣΘ² without them.

        Piece by piece, so that what one step leaves is in the cache for the next: these are the host's vectors in
        float64, and of a wide network they are long.
        """
        factor = self.lambda_ / self.rows.weight_sum

        def finish(piece: slice, weights: bool) -> float:
            if gradient is not None and sums is not None:
                np.divide(sums[piece], weight_sum, out=gradient[piece])
            if not weights or not factor:
                return 0.0
            pull = factor * Theta[piece]
            if gradient is not None:
                gradient[piece] += pull
            return float(np.dot(pull, Theta[piece]))

        return sum(self._in_parts(finish)) / 2

    def _in_parts(self, work: Callable[[slice, bool], Any]) -> list[Any]:
        """``work`` on each piece of the flat vector, in order; long vectors by several threads."""

        def part(pieces: list[tuple[slice, bool]]) -> list[Any]:
            with np.errstate(all="ignore"):  # an infinite Θ is found in the cost
                return [work(piece, weights) for piece, weights in pieces]

        others = [self._pool.submit(part, pieces) for pieces in self._parts[1:]] if self._pool else []
        done = part(self._parts[0])
        for other in others:
            done += other.result()
        return done


PIECE = 1 << 15  # elements


def _pieces(network: Network) -> list[tuple[slice, bool]]:
    """The flat vector in pieces of weights (True) and of what lies between them."""
    flat = np.zeros(network.P, np.uint8)
    for W in network.views(flat).W[1:]:
        W[...] = 1
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), network.P]
    cuts = [(at, min(at + PIECE, v)) for u, v in pairwise(edges) for at in range(u, v, PIECE)]
    return [(slice(u, v), bool(flat[u])) for u, v in cuts]
