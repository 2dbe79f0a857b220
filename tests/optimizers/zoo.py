"""Problems with known minima, and the faults an evaluation can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpubp.optimizers.curvature import Factors, Layer

Pair = tuple[Any, np.ndarray]  # J, a number; ∇J, (P,)


class Curved:
    """How a function of `zoo` curves: one layer of all parameters, without decay; a product costs a pass."""

    layers = (Layer(weights=slice(0, None), biases=slice(0, 0), outputs=1, inputs=1),)
    decay = 0.0
    factored = False
    product_passes, matrix_passes = 1.0, 2.0

    def __init__(self, matrix: Callable[[np.ndarray], np.ndarray]) -> None:
        self.matrix = matrix

    def product(self, Theta: np.ndarray, v: np.ndarray, out: np.ndarray) -> None:
        out[...] = self.matrix(Theta) @ v


class CurvedInFactors(Curved):
    """Likewise, as one layer of one output: its factor A is the whole matrix, a little off from draw to draw."""

    factored = True
    operations = 1e6  # of a pass, beside which those on vectors are few

    def __init__(self, matrix: Callable[[np.ndarray], np.ndarray], P: int) -> None:
        super().__init__(matrix)
        self.layers = (Layer(weights=slice(1, P), biases=slice(0, 1), outputs=1, inputs=P - 1),)

    def factors(self, Theta: np.ndarray, draw: int) -> Factors:
        A = self.matrix(Theta)
        return Factors([A * (1 + 0.1 * np.cos(draw))], [np.array([[1 + 0.2 * np.sin(draw)]])], 0.25)


@dataclass(frozen=True)
class Problem:
    """J and ∇J as one function, a start, J at the minimum reached from there, and a matrix that tells how J curves: of
    sums of squares 2JᵀJ, of those that were given none 1; `factored`, whether that is told in factors as well."""

    name: str
    J_and_gradient: Callable[[np.ndarray], Pair]
    start: tuple[float, ...]
    minimum: float
    gauss_newton: Callable[[np.ndarray], np.ndarray] = lambda Theta: np.eye(len(Theta))
    factored: bool = False

    @property
    def curvature(self) -> Any:
        return self.curved(self.gauss_newton)

    def curved(self, matrix: Callable[[np.ndarray], np.ndarray]) -> Curved:
        return CurvedInFactors(matrix, len(self.start)) if self.factored else Curved(matrix)

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # of one that diverges the optimizer is to speak
            J, out[:] = self.J_and_gradient(Theta)
        return float(J)


def rotated(Theta: np.ndarray) -> np.ndarray:
    """A with eigenvalues from 1 to 100 in a rotated frame."""
    P = len(Theta)
    v = np.sin(np.arange(1.0, P + 1))
    Q = np.eye(P) - 2 * np.outer(v, v) / (v @ v)
    return Q @ np.diag(np.logspace(0, 2, P)) @ Q


def quadratic(Theta: np.ndarray) -> Pair:
    """½ (Θ − 1)ᵀ A (Θ − 1) + 3."""
    A, r = rotated(Theta), Theta - 1
    return r @ A @ r / 2 + 3, A @ r


def rosenbrock(Theta: np.ndarray) -> Pair:
    """Σ 100 (b − a²)² + (1 − a)² over neighbours (Moré, Garbow and Hillstrom 1981, problems 1 and 21's chain)."""
    a, b = Theta[:-1], Theta[1:]
    gradient = np.zeros_like(Theta)
    gradient[:-1] = -400 * a * (b - a * a) - 2 * (1 - a)
    gradient[1:] += 200 * (b - a * a)
    return np.sum(100 * (b - a * a) ** 2 + (1 - a) ** 2), gradient


def beale(Theta: np.ndarray) -> Pair:
    """Moré, Garbow and Hillstrom 1981, problem 5; the minimum is 0 at (3, ½)."""
    x, y = Theta
    i = np.array([1, 2, 3])
    r = np.array([1.5, 2.25, 2.625]) - x * (1 - y**i)
    return np.sum(r * r), np.array([np.sum(-2 * r * (1 - y**i)), np.sum(2 * r * x * i * y ** (i - 1))])


def himmelblau(Theta: np.ndarray) -> Pair:
    """(x² + y − 11)² + (x + y² − 7)², four minima of 0 (Himmelblau 1972)."""
    x, y = Theta
    r, s = x * x + y - 11, x + y * y - 7
    return r * r + s * s, np.array([4 * x * r + 2 * s, 2 * r + 4 * y * s])


def of_rosenbrock(Theta: np.ndarray) -> np.ndarray:
    """2JᵀJ of 10 (b − a²) and 1 − a."""
    a, i = Theta[:-1], np.arange(len(Theta) - 1)
    J = np.zeros((2 * len(a), len(Theta)))
    J[i, i], J[i, i + 1], J[i + len(a), i] = -20 * a, 10.0, -1.0
    return 2 * J.T @ J


def of_beale(Theta: np.ndarray) -> np.ndarray:
    """2JᵀJ of c − x (1 − yⁱ)."""
    (x, y), i = Theta, np.array([1, 2, 3])
    J = np.stack([y**i - 1, x * i * y ** (i - 1)], axis=1)
    return 2 * J.T @ J


def of_himmelblau(Theta: np.ndarray) -> np.ndarray:
    """2JᵀJ of x² + y − 11 and x + y² − 7."""
    x, y = Theta
    J = np.array([[2 * x, 1.0], [1.0, 2 * y]])
    return 2 * J.T @ J


ZOO = (
    Problem("quadratic", quadratic, tuple(np.cos(np.arange(9.0))), 3.0, rotated),
    Problem("rosenbrock", rosenbrock, (-1.2, 1.0), 0.0, of_rosenbrock),
    Problem("rosenbrock chain", rosenbrock, (0.4, 1.0, 0.5, -0.3, 1.4, 0.0, 0.8, 1.1), 0.0, of_rosenbrock),
    Problem("beale", beale, (1.0, 1.0), 0.0, of_beale),
    Problem("himmelblau", himmelblau, (0.0, 0.0), 0.0, of_himmelblau),
)


class In32Bits:
    """A function as a float32 pass gives it: Θ is cast on the way in, J and ∇J on the way out."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    def curvature(self) -> Curved:
        """With the rounding of a pass, as far as one can see."""
        return self.problem.curved(lambda Theta: self.problem.gauss_newton(Theta.astype(np.float32).astype(np.float64)))

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        J = self.problem.value_and_gradient(Theta.astype(np.float32).astype(np.float64), out)
        with np.errstate(over="ignore"):
            out[:] = out.astype(np.float32)
            return float(np.float32(J))


class Noisy:
    """A function whose J and ∇J carry errors that jump from one Θ to the next: 3e-8 of J, 1e-4 in each slope."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.curvature = problem, problem.curvature

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        J = self.problem.value_and_gradient(Theta, out)
        jump = np.modf(np.sum(Theta) * 2.0**32)[0]
        out += 1e-4 * np.sin(40 * jump + np.arange(len(Theta)))
        return J * (1 + 3e-8 * np.sin(100 * jump))


class Broken(Exception):
    """What an interrupted evaluation raises."""


class Interrupted:
    """Raises instead of evaluation number `at`, counted from 1, after it spoiled the output; 0 never raises."""

    def __init__(self, problem: Problem, at: int = 0) -> None:
        self.problem, self.at, self.calls = problem, at, 0

    @property
    def curvature(self) -> Curved:
        """Its products and matrices are counted and interrupted with the evaluations."""

        def matrix(Theta: np.ndarray) -> np.ndarray:
            self._count()
            return self.problem.gauss_newton(Theta)

        return self.problem.curved(matrix)

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Broken

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        try:
            self._count()
        except Broken:
            out[:] = np.nan
            raise
        return self.problem.value_and_gradient(Theta, out)


def tanh_net(sizes: tuple[int, ...], m: int, lambda_: float, seed: int) -> tuple[Problem, np.ndarray]:
    """A network of tanh units on random rows of a smooth task, ½Σ(h − y)²/m; and its initial Θ. Written for this test
    alone, since optimizers know no networks."""
    draw = np.random.default_rng(seed).random
    X = 2 * draw((m, sizes[0])) - 1
    y = np.sin(3 * X @ (2 * draw((sizes[0], sizes[-1])) - 1)) + X[:, :1] ** 2
    shapes = [(to, of + 1) for of, to in pairwise(sizes)]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    Theta = np.concatenate([((2 * draw(s) - 1) * np.sqrt(6 / sum(s))).ravel() for s in shapes])

    def J_and_gradient(Theta: np.ndarray) -> Pair:
        W = [t.reshape(s) for t, s in zip(np.split(Theta, ends[:-1]), shapes, strict=True)]
        a = [X]
        for l, w in enumerate(W):
            z = a[-1] @ w[:, 1:].T + w[:, 0]
            a.append(np.tanh(z) if l < len(W) - 1 else z)
        delta = a[-1] - y
        J, gradient = np.sum(delta**2) / 2 / m, []
        for w, inputs in zip(reversed(W), reversed(a[:-1]), strict=True):
            J += lambda_ / 2 / m * np.sum(w[:, 1:] ** 2)
            gradient[:0] = [np.column_stack([delta.sum(0), delta.T @ inputs + lambda_ * w[:, 1:]]).ravel() / m]
            delta = delta @ w[:, 1:] * (1 - inputs**2)
        return J, np.concatenate(gradient)

    return Problem(f"net {sizes}", J_and_gradient, tuple(Theta), np.nan), Theta


def logistic(m: int, n: int, lambda_: float, seed: int) -> tuple[Problem, np.ndarray]:
    """Logistic regression whose columns span a factor of 30 in scale; and its initial Θ, zeros."""
    draw = np.random.default_rng(seed).random
    scale = np.logspace(0, 1.5, n)
    X = (2 * draw((m, n)) - 1) * scale
    y = (X @ ((2 * draw(n) - 1) / scale) + draw(m) - 0.5 > 0).astype(float)

    def J_and_gradient(Theta: np.ndarray) -> Pair:
        z = X @ Theta
        h = 1 / (1 + np.exp(-z))
        J = (np.sum(np.logaddexp(0, z) - y * z) + lambda_ / 2 * (Theta @ Theta)) / m
        return J, (X.T @ (h - y) + lambda_ * Theta) / m

    return Problem(f"logistic {n}", J_and_gradient, tuple(np.zeros(n)), np.nan), np.zeros(n)
