"""J(Θ) and ∇J(Θ) over all rows, in one pass.

    J(Θ)  = 1/Σw · Σ_t w_t · cost(t) + λ/(2Σw) · Σ_l Σ (Θ^(l) without its bias)²
    ∇J(Θ) = 1/Σw · Δ + λ/Σw · (Θ without its biases)

with w_t = 1 and Σw = m where rows have no weights. The sum over rows is a fixed binary tree (`gpubp.tree`); inside a
leaf, blocks accumulate in order. Θ, J and ∇J are float64; the pass works in the precision that was asked for, from
one cast of Θ.

Scaling x̃ = (x − μ)/σ is folded into the first layer where that loses nothing: W̃ = W/σ and b̃ = b − W·(μ/σ) act on
rows as they are stored, and Δ_W = (Δ_W̃ − Δ_b̃ μᵀ)/σ takes the gradient back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import backprop
from .backend import Backend
from .backprop import Workspace
from .communicator import Communicator, Solo
from .data.rows import Rows
from .errors import DataError, UsageError
from .feed import Feed, fold, unfold
from .formula import plus
from .network import Layers, Network
from .tree import SumTree, blocks, leaf_rows

PRECISIONS = {"fp64": np.dtype(np.float64), "fp32": np.dtype(np.float32)}


def pass_dtype(precision: str) -> np.dtype:
    """The type that a pass of this precision works in.

    Raises:
        UsageError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}'", wanted=f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


class _Node:
    """The sums of a leaf or of a whole subtree: Δ, and [Σ w·cost, Σ validation w·cost] in float64."""

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype) -> None:
        self.flat = backend.empty((network.P,), dtype)
        backend.zero(self.flat)  # the gaps between layers stay zero from here on
        self.cost = backend.empty((2,), np.dtype(np.float64))
        self.Delta = network.views(self.flat)
        self.has_gradient = False  # a pass for J alone leaves Δ as it was


class _Owner:
    """One thread's buffers."""

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype, stored: np.dtype, rows: int) -> None:
        self.work = Workspace(backend, network, dtype, rows)
        self.staging = np.empty((rows, network.sizes[0]), stored)


class Objective:
    """The cost of a network on rows, as a function of the flat Θ.

    Args:
        network: the layers, the activation, the cost.
        rows: the data.
        lambda_: λ, the weight of the regularisation; not negative.
        backend: where to compute.
        precision: "fp64" or "fp32", the precision of the pass.
        leaves, block_rows: override the backend's choice (for tests; the bits depend on them).
        communicator: the other processes, if any.

    Raises:
        UsageError: a λ that is negative or not finite, an unknown precision.
        DataError: rows that do not fit the network's first layer, or no labels.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        lambda_: float = 0.0,
        *,
        backend: Backend,
        precision: str = "fp32",
        leaves: int | None = None,
        block_rows: int | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        if not (np.isfinite(lambda_) and lambda_ >= 0):
            raise UsageError(f"lambda {lambda_}", wanted="a finite number, 0 or more")
        dtype = pass_dtype(precision)
        if leaves is not None and (leaves < 1 or leaves & (leaves - 1)):
            raise UsageError(f"{leaves} leaves", wanted="a power of two")
        if block_rows is not None and block_rows < 1:
            raise UsageError(f"blocks of {block_rows} rows", wanted="1 or more")
        if rows.features != network.sizes[0]:
            raise DataError(
                f"rows of {rows.features} features", wanted=f"{network.sizes[0]}, the network's first layer"
            )
        if rows.labels is None:
            raise DataError("rows without labels", wanted="y", do="name it with --y")
        self.network, self.rows, self.lambda_ = network, rows, float(lambda_)
        self.backend, self.precision = backend, precision
        self.validation_cost: float | None = None  # J without λ on the validation rows, of the last pass

        suggested = backend.leaves_and_block(rows.m, network.sizes)
        self.leaves, self.block_rows = leaves or suggested[0], block_rows or suggested[1]
        longest = -(-rows.m // self.leaves)
        buffer_rows = min(self.block_rows, longest)
        self._communicator = communicator or Solo()
        with backend.guard():
            self._tree: SumTree[_Node] = SumTree(
                self.leaves, backend.owners, lambda: _Node(backend, network, dtype), self._merge
            )
            self._owners = [
                _Owner(backend, network, dtype, rows.source.dtype, buffer_rows) for _ in range(self._tree.owners)
            ]
            self._Theta_host = np.zeros(network.P, dtype)
            self._feed = Feed(backend, rows, network.K, dtype)
        self._folded = np.zeros(network.P)

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        """J(Θ), and ∇J(Θ) written to `out`; both (P,) float64. One pass over the rows."""
        return self._pass(Theta, out)

    def value(self, Theta: np.ndarray) -> float:
        """J(Θ) alone: one forward pass."""
        return self._pass(Theta, None)

    def conditions(self) -> dict[str, Any]:
        """What the bits of J and ∇J depend on besides Θ and the rows."""
        return {
            "backend": self.backend.kind,
            **self.backend.conditions(),
            "precision": self.precision,
            "leaves": self.leaves,
            "block_rows": self.block_rows,
        }

    def close(self) -> None:
        """End the worker threads."""
        self._tree.close()

    def _pass(self, Theta: np.ndarray, gradient: np.ndarray | None) -> float:
        backend, network = self.backend, self.network
        with backend.guard():
            folded = fold(network, self.rows.scaling, Theta, self._folded) if self._feed.folds else Theta
            with np.errstate(over="ignore"):  # an infinite Θ is found in the cost
                np.copyto(self._Theta_host, folded, casting="same_kind")
            layers = network.views(backend.upload(self._Theta_host))
            nodes = self._tree.root(
                lambda owner, leaf, node: self._leaf(layers, self._owners[owner], leaf, node, gradient is not None)
            )
            root = self._communicator.combine(nodes)
            cost, validation = backend.to_host(root.cost).tolist()
            weight_sum = self.rows.weight_sum / self.rows.unit
            if gradient is not None:
                np.copyto(gradient, backend.to_host(root.flat))
                if self._feed.folds:
                    unfold(network, self.rows.scaling, gradient)
                gradient /= weight_sum
            self._tree.release(list(nodes.values()))
            J = cost / weight_sum + self._regularise(Theta, gradient)
        if self.rows.validation is not None:
            self.validation_cost = validation / (self.rows.validation_sum / self.rows.unit)
        return J

    def _leaf(self, Theta: Layers, owner: _Owner, leaf: int, node: _Node, with_gradient: bool) -> None:
        backend, network = self.backend, self.network
        backend.zero(node.cost)
        node.has_gradient = with_gradient
        start, stop = leaf_rows(leaf, self.leaves, self.rows.m)
        for i, (u, v) in enumerate(blocks(start, stop, self.block_rows)):
            block = owner.work.block(v - u)
            validation = self._feed.load(u, v, owner.staging, block, labelled=True)
            backprop.forward(backend, network, Theta, block)
            backprop.add_cost(backend, network, block, block.w, node.cost[:1])
            if validation is not None:
                backprop.add_cost(backend, network, block, validation, node.cost[1:])
            if with_gradient:
                backprop.output(backend, network, block)
                backprop.backward(backend, network, Theta, block, node.Delta, beta=int(i > 0))

    def _merge(self, a: _Node, b: _Node) -> None:
        if a.has_gradient:
            self.backend.apply(plus, a.flat, b.flat, out=a.flat)
        self.backend.apply(plus, a.cost, b.cost, out=a.cost)

    def _regularise(self, Theta: np.ndarray, gradient: np.ndarray | None) -> float:
        """λ/(2Σw)·ΣΘ² without the biases; its slope λ/Σw·Θ is added to the gradient."""
        if self.lambda_ == 0:
            return 0.0
        factor = self.lambda_ / self.rows.weight_sum
        W = self.network.views(Theta).W
        squares = 0.0
        for l in range(1, self.network.L):
            squares += float(np.dot(W[l].ravel(), W[l].ravel()))
        if gradient is not None:
            D = self.network.views(gradient).W
            for l in range(1, self.network.L):
                D[l] += factor * W[l]
        return factor / 2 * squares
