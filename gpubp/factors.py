"""Kronecker factors of how J curves: second moments of a layer's inputs and of random δ, from a sample of the rows.

Of layer l the Gauss–Newton matrix is about A^(l) ⊗ G^(l) (Martens and Grosse, Optimizing neural networks with
Kronecker-factored approximate curvature, ICML 2015, section 3), with

    A^(l) = 1/Σw Σ_t w_t (1, a^(l)) (1, a^(l))ᵀ        G^(l) = 1/Σw Σ_t w_t δ^(l+1) (δ^(l+1))ᵀ

where δ^(L) = B ε with B Bᵀ = H, the curvature of the row's cost (`Cost.root`), and random signs ε: its mean product
with itself is H (curvature propagation: Martens, Sutskever and Swersky, ICML 2012). The paper draws labels from the
network's own prediction, which has the same mean and much more noise: for one output signs give G^(L) exactly, and for
softmax each row tells of all its classes and not of the one that was drawn. The sign of (row, output) at draw n is a
hash of (seed, n, row, output).

A tenth of the rows tells enough. They are spread over the rows evenly, one from each of as many stretches, its place in
the stretch a hash of (seed, stretch); they are read once, standardised in float64, and stay in memory. Sums run over
the top of the same tree as J's: the leaves of the sample are those of fewer, longer leaves. A^(1) does not change, so
it is found once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from . import backprop
from .backend import Backend
from .backprop import Block, Workspace
from .communicator import Communicator, Part, Solo
from .counter_hash import hash_bits, hash_uniform
from .data.rows import Rows
from .data.scaling import Scaling
from .data.source import ArrayRows
from .feed import Feed
from .formula import times, weigh_square
from .network import Network
from .tree import SumTree, leaf_rows

SHARE = 0.1  # of the rows; 5 % and 25 % make no difference worth its price
LEAST, MOST = 512, 16384  # rows of a sample, where there are as many
MOST_BYTES = 256 << 20  # of a sample in the type of the pass
LEAF_ROWS = 512  # of the sample, at least: below, products of blocks are not worth a thread
WIDE = 4096  # units from which of a factor only the diagonal is taken, whatever a pass costs
NARROW = 64  # units up to which a factor is full, whatever a pass costs
DEAR = 8  # passes that the inverse of a full factor may take
_STRETCH = 1 << 20  # bytes of neighbouring rows that are read in one go


def full(units: int, operations: float) -> bool:
    """Whether a factor of so many units is a full matrix or its diagonal, if a pass takes so many operations.

    An inverse takes about units³. Where that is many passes, rows are few beside the units, and a sample of them could
    not tell that many numbers anyhow.
    """
    return units <= NARROW or (units < WIDE and units**3 <= DEAR * operations)


class FactorSample:
    """The sample of an objective's rows, and the factors there.

    Args:
        network, rows, backend: see `gpubp.objective.Objective`; its cost has a `root`.
        dtype: the type in which it is computed.
        whole: of each layer whether A and G are full matrices, or their diagonals.
        communicator: the other processes. Each reads the rows of its own leaves of the sample.
        seed: of the sample and the signs.
        leaves: of the objective.
        threads: the most that share the work; they change no bit.
    """

    def __init__(
        self, network: Network, rows: Rows, backend: Backend, dtype: np.dtype, whole: Sequence[tuple[bool, bool]], *,
        communicator: Communicator | None = None, seed: int = 0, leaves: int = 1, threads: int = 1,
    ) -> None:  # fmt: skip
        self._network, self._backend, self._dtype, self._seed = network, backend, dtype, seed
        self._whole = whole
        chosen = _chosen(rows, dtype, seed)
        self.rows = len(chosen)
        w = None if rows.weights is None else rows.weights[chosen] / rows.unit
        self._weight_sum = float(self.rows) if w is None else float(w.sum())
        while leaves > 1 and self.rows // leaves < LEAF_ROWS:
            leaves //= 2
        self._leaves = leaves
        communicator = communicator or Solo()
        arrays = _arrays(network, dtype, whole)
        # by whether A^(1) is asked for
        self._top = {True: communicator.top(leaves, arrays), False: communicator.top(leaves, arrays[2:])}
        first, stop = self._top[True].own
        own = self._own = slice(leaf_rows(first, leaves, self.rows)[0], leaf_rows(stop, leaves, self.rows)[0])
        with communicator.together():
            x = rows.scaling.apply(_read(rows, chosen[own])).astype(dtype)
        with backend.guard():
            self._w = None if w is None else backend.upload(w[own].astype(dtype)[:, None])
            longest = -(-self.rows // leaves)
            owners = max(1, min(stop - first, threads))
            if first < stop:
                sample = Rows(ArrayRows(x), x, Scaling("none", None, None))
                self._feed = Feed(backend, sample, network.K, dtype)
            self._owners = [_Owner(backend, network, dtype, longest) for _ in range(owners)]
            self._tree = SumTree(leaves, owners, lambda: _Node(backend, arrays), self._merge, (first, stop))
            self._Theta = backend.empty((network.P,), dtype)
        self._first: np.ndarray | None = None  # A^(1)

    def factors(self, Theta: np.ndarray, draw: int) -> tuple[list[np.ndarray], list[np.ndarray], int]:
        """A^(1) … A^(L−1) and G^(1) … G^(L−1) at Θ in float64, and the arithmetic operations they took.

        Args:
            Theta: flat, on the host.
            draw: whose signs.
        """
        backend, network = self._backend, self._network
        signs = self._signs(draw)
        with backend.guard():
            self._Theta = backend.upload(Theta.astype(self._dtype))
            e = backend.upload(signs)
            first = self._first is None
            skipped = 0 if first else 2  # of A^(1) there is nothing new
            found: dict[int, _Node] = {}

            def nodes() -> dict[int, list[Any]]:
                found.update(
                    self._tree.root(lambda owner, leaf, node: self._leaf(self._owners[owner], leaf, node, e, first))
                )
                with backend.guard():
                    return {
                        index: [backend.to_host(array) for array in node.arrays[skipped:]]
                        for index, node in found.items()
                    }

            root = [*[None] * skipped, *self._top[first].root(nodes)]
            A = [self._moments(*root[3 * l : 3 * l + 2]) if l or first else self._first for l in range(network.L - 1)]
            G = [np.array(array, np.float64) / self._weight_sum for array in root[2::3]]
            self._tree.release(list(found.values()))
        self._first = A[0]
        return (
            [a for a in A if a is not None],
            [g[0] if len(g) == 1 < g.size else g for g in G],
            # A^(1) is charged to the first draw alone: a run that was resumed has the count of an undisturbed one
            self._operations(draw == 0),
        )

    def close(self) -> None:
        """End its threads."""
        self._tree.close()

    def _signs(self, draw: int) -> np.ndarray:
        own, K = self._own, self._network.K
        bits = hash_bits(self._seed, f"signs {draw}", np.arange(own.start * K, own.stop * K, dtype=np.uint64))
        return ((bits >> np.uint64(63)).astype(self._dtype) * 2 - 1).reshape(-1, K)

    def _leaf(self, owner: _Owner, leaf: int, node: _Node, e: Any, first: bool) -> None:
        backend, network = self._backend, self._network
        with backend.guard():
            start, stop = (row - self._own.start for row in leaf_rows(leaf, self._leaves, self.rows))
            block, L = owner.work.block(stop - start), network.L
            self._feed.load(start, stop, owner.staging, block, labelled=False)
            layers = network.views(self._Theta)
            backprop.forward(backend, network, layers, block)
            backprop.output(backend, network, block)
            w = block.w if self._w is None else self._w[start:stop]
            assert network.J.root is not None
            backend.apply(network.J.root, block.a[L], e[start:stop], w, out=block.delta[L])

            def add(l: int) -> None:
                self._add_G(owner, block, node.G[l], l + 1)
                if l > 1 or first:
                    self._add_A(owner, block, node, l, w)

            backprop.errors(backend, network, layers, block, add)

    def _add_G(self, owner: _Owner, block: Block, out: Any, l: int) -> None:
        delta = block.delta[l]
        if len(out) < delta.shape[1]:  # its diagonal
            squares = owner.scaled(block, delta)
            self._backend.apply(weigh_square, delta, block.ones, out=squares)
            self._backend.gemm(block.ones, squares, out=out, transpose="tn")
        else:
            self._backend.gemm(delta, delta, out=out, transpose="tn")

    def _add_A(self, owner: _Owner, block: Block, node: _Node, l: int, w: Any) -> None:
        """Σ w a aᵀ or its diagonal, and Σ w a."""
        a, backend = block.a[l], self._backend
        weighed = owner.scaled(block, a)
        backend.apply(times, w, a, out=weighed)
        backend.gemm(block.ones, weighed, out=node.sums[l], transpose="tn")
        if len(node.A[l]) < a.shape[1]:
            backend.apply(weigh_square, a, w, out=weighed)
            backend.gemm(block.ones, weighed, out=node.A[l], transpose="tn")
        else:
            backend.gemm(a, weighed, out=node.A[l], transpose="tn")

    def _moments(self, A: Any, a: Any) -> np.ndarray:
        """A^(l), with the bias's 1 in front, of what the root holds for it."""
        found = np.array(A, np.float64) / self._weight_sum
        sums = np.array(a, np.float64)[0] / self._weight_sum
        if len(found) < len(sums):
            return np.concatenate([[1.0], found[0]])
        whole = np.empty((len(sums) + 1, len(sums) + 1))
        whole[0, 0], whole[0, 1:], whole[1:, 0], whole[1:, 1:] = 1.0, sums, sums, (found + found.T) / 2
        return whole

    def _merge(self, a: _Node, b: _Node) -> None:
        skipped = 0 if self._first is None else 2  # of A^(1) there is nothing new
        for x, y in zip(a.arrays[skipped:], b.arrays[skipped:], strict=True):
            self._backend.add(x, y)

    def _operations(self, first: bool) -> int:
        """Forward and backward through the weights, and the products, of which a symmetric one counts half."""
        sizes = self._network.sizes
        weights = [a * b for a, b in pairwise(sizes)]
        of_A = [n * n if full_A else n for n, (full_A, _) in zip(sizes, self._whole, strict=False)]
        of_G = [n * n if full_G else n for n, (_, full_G) in zip(sizes[1:], self._whole, strict=True)]
        products = sum(of_G) + sum(of_A[0 if first else 1 :])
        return self.rows * (2 * sum(weights) + 2 * sum(weights[1:]) + products)


class _Node:
    """Sums of a part of the sample: of layer l (slot 0 is empty) A without the bias, Σ w a, and G; `arrays`: all."""

    def __init__(self, backend: Backend, arrays: Sequence[Part]) -> None:
        self.arrays = [backend.empty(*one) for one in arrays]
        for array in self.arrays:
            backend.zero(array)
        self.A, self.sums, self.G = ([None, *self.arrays[i::3]] for i in range(3))


def _arrays(network: Network, dtype: np.dtype, whole: Sequence[tuple[bool, bool]]) -> list[Part]:
    """Shape and type of A, Σ w a and G of each layer."""
    found: list[Part] = []
    for inputs, outputs, (full_A, full_G) in zip(network.sizes[:-1], network.sizes[1:], whole, strict=True):
        shapes = (inputs if full_A else 1, inputs), (1, inputs), (outputs if full_G else 1, outputs)
        found += [(shape, dtype) for shape in shapes]
    return found


class _Owner:
    """One thread's buffers."""

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype, rows: int) -> None:
        self.work = Workspace(backend, network, dtype, rows)
        self.staging = np.empty((rows, network.sizes[0]), dtype)
        self._scaled = backend.empty((rows * max(network.sizes),), dtype)

    def scaled(self, block: Block, like: Any) -> Any:
        """A buffer of that shape."""
        return self._scaled[: like.shape[0] * like.shape[1]].reshape(like.shape)


def _chosen(rows: Rows, dtype: np.dtype, seed: int) -> np.ndarray:
    """The numbers of the rows of the sample, ascending: one with a weight from each stretch that has one."""
    most = max(LEAST, min(MOST, MOST_BYTES // (rows.features * dtype.itemsize)))
    count = min(rows.m, most, max(LEAST, int(SHARE * rows.m)))
    edges = np.arange(count + 1) * rows.m // count
    u = hash_uniform(seed, "sample", np.arange(count, dtype=np.uint64))
    if rows.weights is None:
        return edges[:-1] + (u * np.diff(edges)).astype(np.int64)
    found = []
    for i, (start, stop) in enumerate(pairwise(edges.tolist())):
        counted = np.flatnonzero(rows.weights[start:stop])
        if len(counted):
            found.append(start + int(counted[int(u[i] * len(counted))]))
    return np.array(found)


def _read(rows: Rows, chosen: Sequence[int] | np.ndarray) -> np.ndarray:
    """Those rows as stored; neighbours in one go, so that what is compressed together is decoded once."""
    dtype = rows.source.dtype
    found = np.empty((len(chosen), rows.features), dtype)
    together = max(1, _STRETCH // (rows.features * dtype.itemsize))
    buffer = np.empty((together, rows.features), dtype)
    i = 0
    while i < len(chosen):
        start = int(chosen[i])
        j = int(np.searchsorted(chosen, start + together))
        stop = int(chosen[j - 1]) + 1
        found[i:j] = rows.read(start, stop, buffer)[np.asarray(chosen[i:j]) - start]
        i = j
    return found
