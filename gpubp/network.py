"""The network and the layout of Θ.

Notation (Andrew Ng's): a network has L layers of s_1 … s_L units; the bias unit is not counted. Θ^(l) carries layer l
to layer l+1 and has shape (s_{l+1}, s_l + 1): **its column 0 is the bias**. That is what a person or a file sees.

Inside, Θ is one flat float64 vector in which the weights W^(l) = Θ^(l)[:, 1:] and the bias b^(l) = Θ^(l)[:, 0] lie
apart, each starting at a multiple of 16 elements (64 bytes in float32). So X is used as it is stored, without a column
of ones, and every matrix product gets contiguous, aligned operands. The gaps are zero and stay zero: a gradient is zero
there. This file alone knows the layout.

One liberty is taken everywhere inside: **lists are indexed by Ng's l** and slot 0 holds None, so that `W[1]` is the
weight matrix of Θ^(1) and the code reads like the course.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from . import activation, cost
from .counter_hash import hash_uniform
from .errors import UsageError

_MOST_UNITS = 1 << 24  # of a layer: beyond it somebody mistyped
_ALIGN = 16  # elements: 64 bytes in float32, 128 in float64


class Layers(NamedTuple):
    """Views of a flat vector, indexed by Ng's l from 1 to L−1; slot 0 is None.

    `W[l]` has shape (s_{l+1}, s_l), `b[l]` shape (1, s_{l+1}).
    """

    W: list[Any]
    b: list[Any]


class Place(NamedTuple):
    """Where the parameters of one layer lie in a flat vector: W^(l) row after row and b^(l), and W's shape."""

    weights: slice
    biases: slice
    outputs: int
    inputs: int


@dataclass(frozen=True)
class Network:
    """A feed-forward network: what it looks like, not what it has learned.

    Args:
        sizes: s_1 … s_L, without the bias units: ``(400, 25, 10)``.
        activation: g of the hidden layers, see `gpubp.activation`.
        cost: the cost and with it the output function, see `gpubp.cost`.

    Raises:
        UsageError: fewer than two layers, a layer without units, an unknown activation or cost, or a softmax with one
            output.

    Examples:
        >>> import gpubp
        >>> net = gpubp.Network((400, 25, 10), activation="sigmoid", cost="logistic")
        >>> net.L, net.K, net.parameters
        (3, 10, 10285)
        >>> [Theta.shape for Theta in net.unpack(net.initial_Theta(seed=0))]
        [(25, 401), (10, 26)]
    """

    sizes: tuple[int, ...]
    activation: str = "sigmoid"
    cost: str = "softmax"

    def __post_init__(self) -> None:
        sizes = self.sizes if isinstance(self.sizes, Sequence) and not isinstance(self.sizes, str) else ()
        whole = all(isinstance(s, Integral) and 1 <= s <= _MOST_UNITS for s in sizes)
        sizes = tuple(map(int, sizes)) if whole else ()
        if len(sizes) < 2:
            raise UsageError(
                f"layer sizes {self.sizes!r}", wanted="at least an input and an output layer, each of 1 or more units"
            )
        object.__setattr__(self, "sizes", sizes)
        activation.activation(self.activation)  # unknown names are refused here
        cost.cost(self.cost)
        if self.cost == "softmax" and self.K == 1:
            raise UsageError(
                "softmax with 1 output", wanted="2 or more outputs", do="take --cost logistic for one 0/1 output"
            )

    @property
    def L(self) -> int:
        """The number of layers, input and output counted."""
        return len(self.sizes)

    @property
    def K(self) -> int:
        """The number of outputs, s_L."""
        return self.sizes[-1]

    @property
    def g(self) -> activation.Activation:
        """The activation of the hidden layers."""
        return activation.activation(self.activation)

    @property
    def J(self) -> cost.Cost:
        """The cost with its output function."""
        return cost.cost(self.cost)

    @property
    def parameters(self) -> int:
        """The number of weights and biases: the elements of Θ^(1) … Θ^(L−1)."""
        return sum(outputs * (inputs + 1) for inputs, outputs in self._layers)

    @property
    def P(self) -> int:
        """The length of the flat vector, gaps included."""
        return self._offsets[-1]

    @property
    def places(self) -> list[Place]:
        """Where Θ^(1) … Θ^(L−1) lie in the flat vector; what lies between them is a gap."""
        starts = iter(self._offsets)
        return [
            Place(slice(at := next(starts), at + n * k), slice(at := next(starts), at + n), n, k)
            for k, n in self._layers
        ]

    def views(self, flat: Any) -> Layers:
        """The W^(l) and b^(l) of a flat vector of any array library and dtype, shape (P,): views, not copies."""
        W: list[Any] = [None]
        b: list[Any] = [None]
        starts = iter(self._offsets)
        for inputs, outputs in self._layers:
            at = next(starts)
            W.append(flat[at : at + outputs * inputs].reshape(outputs, inputs))
            at = next(starts)
            b.append(flat[at : at + outputs].reshape(1, outputs))
        return Layers(W, b)

    def pack(self, matrices: Sequence[Any]) -> np.ndarray:
        """Ng's matrices Θ^(1) … Θ^(L−1), bias in column 0, as one flat float64 vector of length `P`.

        Raises:
            UsageError: a wrong number of matrices or a wrong shape; the message names the layer.

        Examples:
            >>> import gpubp
            >>> net = gpubp.Network((2, 1), cost="logistic")
            >>> Theta = net.pack([[[0.5, 1, -1]]])  # one Θ, its bias 0.5
            >>> Theta.shape == (net.P,)  # longer than 3: each part begins at a multiple of 64 bytes
            True
        """
        if len(matrices) != self.L - 1:
            raise UsageError(f"{len(matrices)} matrices for layers {self.sizes}", wanted=f"{self.L - 1}")
        flat = np.zeros(self.P)
        W, b = self.views(flat)
        for l, (matrix, (inputs, outputs)) in enumerate(zip(matrices, self._layers, strict=True), start=1):
            Theta = np.asarray(matrix, dtype=np.float64)
            if Theta.shape != (outputs, inputs + 1):
                raise UsageError(
                    f"Theta^({l}) of shape {Theta.shape}", wanted=f"({outputs}, {inputs + 1}), the bias in column 0"
                )
            b[l][0] = Theta[:, 0]
            W[l][...] = Theta[:, 1:]
        return flat

    def unpack(self, flat: np.ndarray) -> list[np.ndarray]:
        """The flat vector (Θ or a gradient) as Ng's matrices, float64 copies of shape (s_{l+1}, s_l + 1).

        Raises:
            UsageError: the vector has another length than `P`.

        Examples:
            >>> import gpubp
            >>> net = gpubp.Network((2, 1), cost="logistic")
            >>> net.unpack(net.pack([[[0.5, 1, -1]]]))
            [array([[ 0.5,  1. , -1. ]])]
        """
        flat = np.asarray(flat, dtype=np.float64)
        if flat.shape != (self.P,):
            raise UsageError(f"a vector of shape {flat.shape}", wanted=f"({self.P},) for layers {self.sizes}")
        W, b = self.views(flat)
        return [np.concatenate([b[l].T, W[l]], axis=1) for l in range(1, self.L)]

    def initial_Theta(self, seed: int = 0) -> np.ndarray:
        """Random weights in (−ε, ε), ε = gain·√(6 / (s_l + s_{l+1})) (Glorot and Bengio 2010, eq. 16), biases zero.

        The gain is the activation's for hidden layers and 1 for the output layer. The draws come from a counter hash
        of (seed, layer, element): they do not depend on anything else.
        """
        flat = np.zeros(self.P)
        W, _ = self.views(flat)
        for l in range(1, self.L):
            gain = self.g.gain if l < self.L - 1 else 1.0
            epsilon = gain * math.sqrt(6 / (self.sizes[l - 1] + self.sizes[l]))
            u = hash_uniform(seed, f"Theta {l}", np.arange(W[l].size, dtype=np.uint64))
            W[l][...] = (epsilon * (2 * u - 1)).reshape(W[l].shape)
        return flat

    @property
    def _layers(self) -> list[tuple[int, int]]:
        return list(pairwise(self.sizes))

    @cached_property
    def _offsets(self) -> tuple[int, ...]:
        """Where W^(1), b^(1), W^(2), … start, and last the length of the whole."""
        offsets = [0]
        for inputs, outputs in self._layers:
            for size in (outputs * inputs, outputs):
                offsets.append(offsets[-1] + -(-size // _ALIGN) * _ALIGN)
        return tuple(offsets)
