"""The problems that are timed, and the float64 answer that everyone must agree with.

A problem is rows, labels and matrices drawn from a seed, so that every process makes the same ones for itself. Nothing
of it comes out of a matrix product: with another number of BLAS threads a near tie could become another label.

The oracle is backpropagation as the course writes it, in float64 and plain NumPy, a block of rows after the other. It
shares no line with gpubp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Answer = tuple[float, list[Array]]  # J, and ∇J as Ng's matrices D^(1) … D^(L−1)

ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    # g(z), and g′(z) written with a = g(z)
    "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a * a),
    "relu": (lambda z: np.maximum(z, 0), lambda a: a > 0),
}
COSTS = ("logistic", "softmax")


class Absent(Exception):
    """A contender that cannot take part on this machine, and why."""


@dataclass(frozen=True)
class Shape:
    """What a problem looks like.

    Attributes:
        layers: s_1 … s_L, without the bias units.
        activation: of the hidden layers, one of `ACTIVATIONS`.
        cost: "logistic" (K outputs one against all) or "softmax".
        m: rows.
        name: for tables.
    """

    layers: tuple[int, ...]
    activation: str
    cost: str
    m: int
    name: str = ""
    lambda_: float = 1.0

    def __str__(self) -> str:
        title = f"{self.name}: " if self.name else ""
        layers = ", ".join(map(str, self.layers))
        return f"{title}{self.m:,} × [{layers}] {self.activation} + {self.cost}, λ = {self.lambda_:g}"

    def with_rows(self, m: int | None) -> Shape:
        """The same with another number of rows; None changes nothing."""
        return self if m is None else replace(self, m=m)


# m is what two cores do in a second or less; at full size B and C have 60,000 rows, D has 2,000,000.
SHAPES = {
    "A": Shape((400, 25, 10), "sigmoid", "logistic", 5_000, "A"),
    "B": Shape((784, 256, 128, 10), "sigmoid", "logistic", 30_000, "B"),
    "C": Shape((784, 1024, 1024, 10), "relu", "softmax", 8_000, "C"),
    "D": Shape((28, 64, 64, 1), "tanh", "logistic", 200_000, "D"),
}


class Problem(NamedTuple):
    """A shape with its numbers.

    Attributes:
        X: (m, s_1) float32.
        codes: (m,) uint32 class numbers; for one output 0 or 1.
        Y: (m, K) float32, the same as 0/1 outputs, for those who need them.
        Theta: Θ^(1) … Θ^(L−1), float32, each (s_{l+1}, 1 + s_l) with the bias in column 0.
    """

    shape: Shape
    X: Array
    codes: Array
    Y: Array
    Theta: list[Array]

    @property
    def m(self) -> int:
        return self.shape.m


class Built(NamedTuple):
    """A contender that is ready.

    Attributes:
        evaluate: one cost and gradient over all rows: what is timed.
        answer: J and ∇J out of what `evaluate` returned; None for one that only multiplies matrices.
        notes: what else belongs into the record.
    """

    evaluate: Callable[[], Any]
    answer: Callable[[Any], Answer] | None = None
    notes: dict[str, Any] | None = None


def make(shape: Shape, seed: int = 0) -> Problem:
    """The problem of this shape and seed: normal features, one of which leans towards the row's class."""
    rng = np.random.default_rng(seed)
    features, K = shape.layers[0], shape.layers[-1]
    X = rng.standard_normal((shape.m, features), dtype=np.float32)
    codes = rng.integers(0, max(K, 2), shape.m, dtype=np.uint32)
    rows = np.arange(shape.m)
    X[rows, codes % features] += 1
    if K == 1:
        Y = codes[:, None].astype(np.float32)
    else:
        Y = np.zeros((shape.m, K), np.float32)
        Y[rows, codes] = 1
    return Problem(shape, X, codes, Y, matrices(shape, rng))


def matrices(shape: Shape, rng: np.random.Generator) -> list[Array]:
    """Θ^(1) … Θ^(L−1) of normal numbers, float32."""
    gain = 2 if shape.activation == "relu" else 1  # He's for relu: activations keep their size through the layers
    Theta = []
    for inputs, outputs in pairwise(shape.layers):
        matrix = rng.standard_normal((outputs, 1 + inputs)) * np.sqrt(gain / inputs)
        matrix[:, 0] = 0.1 * rng.standard_normal(outputs)
        Theta.append(matrix.astype(np.float32))
    return Theta


def textbook(shape: Shape, X: Array, Y: Array, Theta: list[Array], xp: Any = np) -> Answer:
    """Σ cost and Δ^(1) … Δ^(L−1) over these rows, as the course writes it, in the precision of what is given.

    The arrays are those of `xp`, NumPy or CuPy; the activations' ufuncs work on both.
    """
    g, slope = ACTIVATIONS[shape.activation]
    one = xp.ones((len(X), 1), X.dtype)
    a = [xp.hstack([one, X])]
    for matrix in Theta[:-1]:
        a.append(xp.hstack([one, g(a[-1] @ matrix.T)]))
    z = a[-1] @ Theta[-1].T
    if shape.cost == "softmax":
        z = z - z.max(axis=1, keepdims=True)
        log_h = z - xp.log(xp.exp(z).sum(axis=1, keepdims=True))
        h, cost = xp.exp(log_h), -(Y * log_h).sum()
    else:
        h, cost = 1 / (1 + xp.exp(-z)), (xp.logaddexp(0, z) - Y * z).sum()
    delta, Delta = h - Y, []
    for l in range(len(Theta) - 1, -1, -1):
        Delta.insert(0, delta.T @ a[l])
        if l:
            delta = (delta @ Theta[l])[:, 1:] * slope(a[l][:, 1:])
    return float(cost), Delta


def regularised(shape: Shape, cost: float, Delta: list[Array], Theta: list[Array]) -> Answer:
    """J and ∇J out of the sums over the rows; `Delta` is changed. The bias is left out of λ's terms."""
    for D, matrix in zip(Delta, Theta, strict=True):
        D /= shape.m
        D[:, 1:] += shape.lambda_ / shape.m * matrix[:, 1:]
    squares = sum(float((matrix[:, 1:] ** 2).sum()) for matrix in Theta)
    return cost / shape.m + shape.lambda_ / (2 * shape.m) * squares, Delta


def reference(problem: Problem, rows: int = 8192) -> tuple[float, Array]:
    """J, and ∇J as one vector (D^(1), D^(2), … row by row), in float64."""
    shape = problem.shape
    Theta = [matrix.astype(np.float64) for matrix in problem.Theta]
    cost, Delta = 0.0, [np.zeros_like(matrix) for matrix in Theta]
    for start in range(0, shape.m, rows):
        X, Y = (array[start : start + rows].astype(np.float64) for array in (problem.X, problem.Y))
        part, parts = textbook(shape, X, Y, Theta)
        cost += part
        for D, new in zip(Delta, parts, strict=True):
            D += new
    J, gradient = regularised(shape, cost, Delta, Theta)
    return J, flat(gradient)


def flat(matrices: list[Array]) -> Array:
    """Ng's matrices as one float64 vector."""
    return np.concatenate([np.asarray(matrix, np.float64).ravel() for matrix in matrices])


def chunk_sizes(m: int) -> list[int]:
    """The rows at a time that a peer is tried with: 2,048 to 16,384, a quarter and a half of all.

    Sizes within a tenth of an earlier one are left out, halves and quarters before the others: they leave no shorter
    last chunk, for which a compiler would have to compile again.
    """
    kept: list[int] = []
    for rows in (-(-m // 2), -(-m // 4), 2048, 4096, 8192, 16384):
        if rows < m and all(abs(rows - other) > other / 10 for other in kept):
            kept.append(rows)
    return sorted(kept)
