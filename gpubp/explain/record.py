"""The record of one example: every z, a, s, g′(z) and δ, and the sums they come from.

Notation is Ng's, and lists are indexed by his l (slot 0 is None); the units of a layer count from 1, and 0 is the bias
unit, a_0 = 1:

    z_j^(l)  = Σ_i Θ_ji^(l−1) a_i^(l−1)          i from 0: the bias is the first term
    a_j^(l)  = g(z_j^(l))
    s_j^(l)  = Σ_i Θ_ij^(l) δ_i^(l+1)             what the course's note calls δ: it is ∂C/∂a_j^(l)
    δ_j^(l)  = s_j^(l) · g′(z_j^(l)) = ∂C/∂z_j^(l)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import backprop
from ..backend.numpy import NumpyBackend
from ..backprop import Block
from ..cost import difference
from ..errors import DataError, UsageError
from ..formula import plus
from ..network import Network
from ..pictures import Picture

Sign = Literal["loss", "loglik"]


class Edge(NamedTuple):
    """Θ_to,from^(layer): from unit `from_` of `layer` (0: its bias unit) to unit `to` of the next one."""

    layer: int
    to: int
    from_: int


class Term(NamedTuple):
    """One product of a sum: Θ of an edge times what comes along it (a from the left, δ from the right)."""

    edge: Edge
    weight: float
    factor: float

    @property
    def product(self) -> float:
        """Θ times the factor."""
        return self.weight * self.factor


@dataclass(frozen=True)
class Sum:
    """z or s of one unit, term by term; `total` is the record's own number, not another addition of the terms."""

    layer: int
    unit: int
    kind: Literal["z", "s"]
    terms: tuple[Term, ...]
    total: float


@dataclass(frozen=True)
class Names:
    """What things are called, for people.

    Attributes:
        features: one for each input, or None.
        outputs: one for each output (classes as the user wrote them), or None.
        example: where the example comes from, such as "row 7 of digits.h5".
        network: where Θ comes from, such as "run gpubp-demo, iteration 100".
        truth, answer: y and the model's answer as the user writes them; "" if unknown.
        picture: where the inputs are the pixels of one.
    """

    features: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    example: str = ""
    network: str = ""
    truth: str = ""
    answer: str = ""
    picture: Picture | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """All numbers of one example; float64 throughout.

    Attributes:
        network: what it went through.
        Theta: Ng's Θ^(l), (s_{l+1}, s_l + 1), the bias in column 0; slots 1 … L−1.
        x: (s_1,) the features as the user has them; a[1] is what scaling makes of them.
        y: (K,) what is wanted of the outputs.
        a: (s_l,) activations; slots 1 … L.
        z: (s_l,) weighted inputs, the bias in them; slots 2 … L.
        s: (s_l,) the plain weighted sums of δ; slots 2 … L−1.
        slope: (s_l,) g′(z); slots 2 … L−1.
        delta: (s_l,) δ^(l); slots 2 … L.
        gradient: like Theta: ∂C/∂Θ^(l) = δ^(l+1) (a^(l))ᵀ, of this example and without λ.
        C: the cost of this example, without λ; with `sign` "loglik" its negative, the course's cost(t).
        sign: what δ, s and the gradient are slopes of: "loss", of C = −cost(t), which descent goes down; "loglik", of
            the course's cost(t), a log-likelihood: everything has the other sign.
        names: for people.
    """

    network: Network
    Theta: list[Any]
    x: np.ndarray
    y: np.ndarray
    a: list[Any]
    z: list[Any]
    s: list[Any]
    slope: list[Any]
    delta: list[Any]
    gradient: list[Any]
    C: float
    sign: Sign = "loss"
    names: Names = field(default_factory=Names)

    @property
    def L(self) -> int:
        """The number of layers."""
        return self.network.L

    @property
    def difference(self) -> bool:
        """Whether δ^(L) = a^(L) − y: a property of the cost and its output function, see `gpubp.cost`."""
        return self.network.J.delta is difference

    def literal(self) -> list[Any]:
        """The recursion of the course's note as it is written, without g′: δ^(L), then only weighted sums; slots 2 … L.

        The same as δ for identity units.
        """
        found: list[Any] = [None] * self.L + [self.delta[self.L]]
        for l in range(self.L - 1, 1, -1):
            found[l] = found[l + 1] @ self.Theta[l][:, 1:]
        return found

    def forward_sum(self, layer: int, unit: int) -> Sum:
        """z_unit^(layer), the bias first.

        Raises:
            UsageError: there is no such unit, or nothing leads to it.
        """
        self._refuse(layer, unit, 2, self.L)
        l, weights = layer - 1, self.Theta[layer - 1][unit - 1]
        factors = np.concatenate([[1.0], self.a[l]])
        pairs = enumerate(zip(weights, factors, strict=True))
        terms = (Term(Edge(l, unit, i), float(w), float(f)) for i, (w, f) in pairs)
        return Sum(layer, unit, "z", tuple(terms), float(self.z[layer][unit - 1]))

    def backward_sum(self, layer: int, unit: int) -> Sum:
        """s_unit^(layer), of a hidden layer.

        Raises:
            UsageError: there is no such unit, or it is none of a hidden layer.
        """
        self._refuse(layer, unit, 2, self.L - 1)
        weights, factors = self.Theta[layer][:, unit], self.delta[layer + 1]
        terms = (
            Term(Edge(layer, i, unit), float(w), float(f))
            for i, (w, f) in enumerate(zip(weights, factors, strict=True), start=1)
        )
        return Sum(layer, unit, "s", tuple(terms), float(self.s[layer][unit - 1]))

    def _refuse(self, layer: int, unit: int, first: int, last: int) -> None:
        if not first <= layer <= last:
            there = f"{first} … {last}" if last > first else f"{first}"
            raise UsageError(f"layer {layer}", wanted=there if last >= first else "a network with a hidden layer")
        if not 1 <= unit <= self.network.sizes[layer - 1]:
            raise UsageError(f"unit {unit} of layer {layer}", wanted=f"1 … {self.network.sizes[layer - 1]}")


def explain(
    network: Network,
    Theta: np.ndarray,
    a1: np.ndarray,
    y: np.ndarray,
    *,
    x: np.ndarray | None = None,
    sign: Sign = "loss",
    names: Names | None = None,
) -> Explanation:
    """Forward and backward for one example, by the functions of `gpubp.backprop` in float64.

    Args:
        Theta: flat, (P,).
        a1: (s_1,) what enters the network: scaled features.
        y: (K,) 0/1, probabilities or targets.
        x: (s_1,) the features before scaling; a1 where absent.
        sign: see `Explanation`.
        names: for people.

    Raises:
        DataError: a1 or y of another shape, or a number is not finite.
        UsageError: a sign that there is not.

    Examples:
        The network of the course's "Backpropagation Intuition", and the δ of unit 2 in its layer 2.

        >>> import numpy as np, gpubp
        >>> from gpubp.explain import explain
        >>> net = gpubp.Network((2, 2, 2, 1), activation="sigmoid", cost="logistic")
        >>> T1, T2 = [[0.1, 0.8, -0.4], [-0.3, 0.5, 0.9]], [[0.2, -0.7, 0.6], [-0.1, 0.4, 1.2]]
        >>> Theta = net.pack([T1, T2, [[0.3, 1.1, -0.9]]])
        >>> seen = explain(net, Theta, np.array([1, 0.5]), np.array([1.0]))
        >>> round(seen.delta[2][1], 8)
        np.float64(0.00520524)
        >>> for term in seen.backward_sum(2, 2).terms:
        ...     print(term.weight, round(term.factor, 6))  # Θ_12^(2), δ_1^(3) and Θ_22^(2), δ_2^(3)
        0.6 -0.120954
        1.2 0.079726
    """
    if sign not in ("loss", "loglik"):
        raise UsageError(f"sign '{sign}'", wanted="loss or loglik")
    sizes, L = network.sizes, network.L
    for what, value, size in (("x", a1, sizes[0]), ("y", y, network.K)):
        if value.shape != (size,):
            raise DataError(f"{what} of {value.size} values for layers {sizes}", wanted=f"{size}")
        if not np.isfinite(value).all():
            raise DataError(f"{what} has a value that is not finite", wanted="finite numbers")
    backend = NumpyBackend(1)
    flat = np.zeros(network.P)  # of the gradient
    layers, Delta = network.views(Theta), network.views(flat)

    def buffers(first: int) -> list[Any]:
        return [None] * first + [np.empty((1, s)) for s in sizes[first - 1 :]]

    one = np.ones((1, 1))
    block = Block(a1[None].astype(np.float64), y[None].astype(np.float64), one, one, buffers(2), buffers(2), buffers(2))
    cost = np.zeros(1)
    with backend.guard():
        backprop.forward(backend, network, layers, block)
        backprop.add_cost(backend, network, block, one, cost)
        backprop.output(backend, network, block)
        backprop.backward(backend, network, layers, block, Delta, beta=0)
        z: list[Any] = [None, None] + [np.empty((1, s)) for s in sizes[1:]]
        s, slope = buffers(2), buffers(2)
        s[L] = slope[L] = None
        for l in range(2, L + 1):
            backend.gemm(block.a[l - 1], layers.W[l - 1], out=z[l], transpose="nt")
            backend.apply(plus, z[l], layers.b[l - 1], out=z[l])
        for l in range(2, L):
            backend.gemm(block.delta[l + 1], layers.W[l], out=s[l])
            at = backprop.slope_at(network, layers, block, l)
            backend.apply(network.g.slope, np.ones((1, sizes[l - 1])), *at, out=slope[l])
    if not np.isfinite(cost[0]):
        raise DataError(f"the cost of this example is {cost[0]:g}", wanted="features like those of the training")
    by = -1.0 if sign == "loglik" else 1.0
    return Explanation(
        network,
        Theta=[None, *network.unpack(Theta)],
        x=np.asarray(a1 if x is None else x, np.float64),
        y=np.asarray(y, np.float64),
        a=_row(block.a),
        z=_row(z),
        s=_row(s, by),
        slope=_row(slope),
        delta=_row(block.delta, by),
        gradient=[None, *(by * D for D in network.unpack(flat))],
        C=by * float(cost[0]),
        sign=sign,
        names=names or Names(),
    )


def _row(layers: list[Any], by: float = 1.0) -> list[Any]:
    return [part if part is None else by * part[0] for part in layers]
