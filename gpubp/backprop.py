"""Backpropagation on one block of rows: the course, line by line.

Lists are indexed by Ng's l (slot 0 is None). One example is one **row**, so the course's column vectors appear
transposed: its z^(l+1) = Θ^(l) a^(l) is here ``z[l + 1] = a[l] · W[l]ᵀ`` with the bias b^(l) added by the activation,
and its Δ^(l) += δ^(l+1) (a^(l))ᵀ is ``Delta.W[l] += delta[l + 1]ᵀ · a[l]`` for all rows of the block at once.

These functions say what is computed; the backend says where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Backend
from .network import Layers, Network


class Workspace:
    """One owner's buffers for blocks of up to `rows` rows, made once.

    `a[l]` replaces `z[l]` in memory unless g′ needs z. Two buffers take turns as δ^(l+1) and δ^(l).
    """

    def __init__(self, backend: Backend, network: Network, dtype: np.dtype, rows: int) -> None:
        sizes, L = network.sizes, network.L
        self.rows = rows
        self.x = backend.empty((rows, sizes[0]), dtype)
        self.y = backend.empty((rows, network.K), dtype)
        self.z: list[Any] = [None, None] + [backend.empty((rows, s), dtype) for s in sizes[1:]]
        self.a: list[Any] = list(self.z)
        if not network.g.slope_from_a:
            self.a[2:L] = [backend.empty((rows, s), dtype) for s in sizes[1:-1]]
        widest = max(sizes[1:])
        self._errors = [backend.empty((rows * widest,), dtype) for _ in range(2)]
        self.ones = backend.upload(np.ones((rows, 1), dtype))
        self.w = backend.constant(1.0, rows, dtype)
        self._sizes = sizes
        self._blocks: dict[int, Block] = {}

    def block(self, rows: int) -> Block:
        """The buffers' first rows, for a block of that many."""
        if rows not in self._blocks:
            errors = [self._errors[l % 2][: rows * s].reshape(rows, s) for l, s in enumerate(self._sizes[1:], start=2)]
            self._blocks[rows] = Block(
                self.x[:rows],
                self.y[:rows],
                self.w[:rows],
                self.ones[:rows],
                z=[None, None, *(z[:rows] for z in self.z[2:])],
                a=[None, None, *(a[:rows] for a in self.a[2:])],
                delta=[None, None, *errors],
            )
        return self._blocks[rows]


@dataclass
class Block:
    """The matrices of one block of B rows: x (B, s_1), y (B, K), row weights w (B, 1); z, a and δ by layer."""

    x: Any
    y: Any
    w: Any
    ones: Any
    z: list[Any]
    a: list[Any]
    delta: list[Any]


def forward(backend: Backend, network: Network, Theta: Layers, block: Block) -> None:
    """a^(1) = x;  z^(l+1) = Θ^(l) a^(l);  a^(l+1) = g(z^(l+1)); and for the last layer the cost's score.

    Leaves the score in ``block.z[L]``: see `gpubp.cost`.
    """
    W, b = Theta
    z, a, L = block.z, block.a, network.L
    a[1] = block.x
    for l in range(1, L):
        backend.gemm(a[l], W[l], out=z[l + 1], transpose="nt")
        if l + 1 < L:
            backend.apply(network.g.g, z[l + 1], b[l], out=a[l + 1])
        else:
            backend.apply(network.J.score, z[L], b[l], out=z[L])


def add_cost(backend: Backend, network: Network, block: Block, w: Any, out: Any) -> None:
    """out[0] += Σ_t w_t · cost(t) over the block, from the scores that `forward` left."""
    backend.total(network.J.cell, block.z[network.L], block.y, w, out=out)


def output(backend: Backend, network: Network, block: Block) -> None:
    """a^(L) = h_Θ(x), from the scores."""
    backend.apply(network.J.h, block.z[network.L], out=block.a[network.L])


def backward(backend: Backend, network: Network, Theta: Layers, block: Block, Delta: Layers, *, beta: int) -> None:
    """δ from right to left, and Δ^(l) = Δ^(l)·beta + δ^(l+1) (a^(l))ᵀ.

    δ^(L) = a^(L) − y (what the cost says);  δ^(l) = (Θ^(l))ᵀ δ^(l+1) ∘ g′(z^(l)), the bias left out.
    """
    backend.apply(network.J.delta, block.a[network.L], block.y, block.w, out=block.delta[network.L])
    backward_from(backend, network, Theta, block, Delta, beta=beta)


def backward_from(backend: Backend, network: Network, Theta: Layers, block: Block, Delta: Layers, *, beta: int) -> None:
    """Likewise from the δ^(L) that is there, whatever it stands for."""
    a, delta = block.a, block.delta

    def add(l: int) -> None:
        backend.gemm(delta[l + 1], a[l], out=Delta.W[l], transpose="tn", beta=beta)
        backend.gemm(block.ones, delta[l + 1], out=Delta.b[l], transpose="tn", beta=beta)

    errors(backend, network, Theta, block, add)


def errors(backend: Backend, network: Network, Theta: Layers, block: Block, use: Callable[[int], None]) -> None:
    """δ from right to left; ``use(l)`` while δ^(l+1) is there, for l = L−1 … 1. Two buffers are all that δ has."""
    W, delta = Theta.W, block.delta
    for l in range(network.L - 1, 0, -1):
        use(l)
        if l > 1:
            backend.gemm(delta[l + 1], W[l], out=delta[l])
            backend.apply(network.g.slope, delta[l], *slope_at(network, Theta, block, l), out=delta[l])


def slope_at(network: Network, Theta: Layers, block: Block, l: int) -> tuple[Any, ...]:
    """What g′ of layer l is a function of: a^(l), or z^(l) and its bias."""
    return (block.a[l],) if network.g.slope_from_a else (block.z[l], Theta.b[l - 1])
