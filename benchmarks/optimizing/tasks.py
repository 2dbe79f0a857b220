"""The tasks: rows to train on, rows held out, a network, λ.

Nothing is downloaded. The digits are the 10,000 MNIST test images that come with gpubp, 5,000 of them to train on and
5,000 held out; `small` are the 8 × 8 digits that come with scikit-learn. The others are drawn from the seed, rows and
all, so another seed is another data set of the same kind; of the digits it is another initial Θ.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from problems import ACTIVATIONS, Absent

Array = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """What is to be minimised.

    Attributes:
        about: the task in a line.
        layers, activation, cost, lambda_: of the network, as gpubp names them.
        rows: of a seed: X (m, s_1) and y to train on, and X and y held out. y is (m,) class numbers, or (m, 1).
    """

    about: str
    layers: tuple[int, ...]
    activation: str
    cost: str
    lambda_: float
    rows: Callable[[int], tuple[Array, Array, Array, Array]]


def _shared(X: Array, y: Array, held: int) -> tuple[Array, Array, Array, Array]:
    return X[held:], y[held:], X[:held], y[:held]


@cache
def digits(seed: int) -> tuple[Array, Array, Array, Array]:
    """(5,000, 784) of 0 to 1 and their classes, twice."""
    import h5py

    from gpubp.data.demo import demo_file

    file: Any
    with h5py.File(demo_file()) as file:
        X, y, X_held, y_held = (file[name][:] for name in ("train/X", "train/y", "test/X", "test/y"))
    return X / 255.0, y, X_held / 255.0, y_held


def small_digits(seed: int) -> tuple[Array, Array, Array, Array]:
    """scikit-learn's: (1,297, 64) of 0 to 1 and their classes, and 500 held out."""
    try:
        bunch: Any = importlib.import_module("sklearn.datasets").load_digits()
    except ModuleNotFoundError as error:
        raise Absent("scikit-learn, whose digits these are, is not installed") from error
    order = np.random.default_rng(0).permutation(len(bunch.data))
    return _shared(bunch.data[order] / 16.0, bunch.target[order], 500)


def higgs(m: int) -> Callable[[int], tuple[Array, Array, Array, Array]]:
    """m rows like HIGGS's and half as many held out: 28 features, seven of them skewed; noisy classes of two kinds of
    structure, a random network's and products of features."""

    def rows(seed: int) -> tuple[Array, Array, Array, Array]:
        rng, held = np.random.default_rng(7 + seed), min(m // 2, 20_000)
        X = rng.standard_normal((m + held, 28))
        X[:, 5:12] = np.exp(0.5 * X[:, 5:12])
        X = (X - X[held:].mean(axis=0)) / X[held:].std(axis=0)
        draw = np.random.default_rng(1_000 + seed).standard_normal
        W = draw((28, 40)) / 28**0.5 * 1.5, draw((40, 20)) / 40**0.5 * 2, draw(20) / 20**0.5 * 3
        products = X[:, 0] * X[:, 1] - 0.7 * X[:, 2] ** 2 + 0.7 + np.abs(X[:, 3] + X[:, 4]) - 1.1
        z = np.tanh(np.tanh(X @ W[0]) @ W[1]) @ W[2] + 0.7 * products
        z -= np.median(z)
        y = rng.random(len(z)) < 1 / (1 + np.exp(-1.2 * z))
        return _shared(X, y.astype(np.float64)[:, None], held)

    return rows


def friedman(m: int) -> Callable[[int], tuple[Array, Array, Array, Array]]:
    """Friedman's first function of 10 uniform features, five of them idle, with noise 1 (Multivariate adaptive
    regression splines, Annals of Statistics 19 (1991), eq. 61); everything standardised."""

    def rows(seed: int) -> tuple[Array, Array, Array, Array]:
        rng, held = np.random.default_rng(100 + seed), m // 2
        X = rng.random((m + held, 10))
        y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
        y += rng.standard_normal(len(y))
        X, y = (X - X[held:].mean(axis=0)) / X[held:].std(axis=0), (y - y[held:].mean()) / y[held:].std()
        return _shared(X, y[:, None], held)

    return rows


def ill_scaled(m: int) -> Callable[[int], tuple[Array, Array, Array, Array]]:
    """20 features, not standardised, whose deviations go from 10⁻² to 10² by equal factors; noisy classes that depend
    on all of them alike."""

    def rows(seed: int) -> tuple[Array, Array, Array, Array]:
        rng, held = np.random.default_rng(200 + seed), m // 2
        X = rng.standard_normal((m + held, 20))
        draw = np.random.default_rng(2_000 + seed).standard_normal
        W = draw((20, 15)) / 20**0.5 * 1.5, draw(15) / 15**0.5 * 4
        z = np.tanh(X @ W[0]) @ W[1] + 0.5 * X[:, 0] * X[:, 19]
        y = rng.random(len(z)) < 1 / (1 + np.exp(-2 * (z - np.median(z))))
        scales = np.random.default_rng(3_000 + seed).permutation(np.logspace(-2, 2, 20))
        return _shared(X * scales, y.astype(np.float64)[:, None], held)

    return rows


TASKS = {
    "digits": Task("gpubp's digits, 5,000 × 784", (784, 25, 10), "sigmoid", "logistic", 1.0, digits),
    "mnist100": Task("gpubp's digits, 5,000 × 784", (784, 100, 10), "tanh", "softmax", 0.1, digits),
    "higgs": Task("HIGGS-like, 20,000 × 28", (28, 64, 64, 1), "tanh", "logistic", 1.0, higgs(20_000)),
    "friedman": Task("Friedman's first, 10,000 × 10", (10, 50, 50, 1), "tanh", "squares", 0.1, friedman(10_000)),
    "deep": Task("HIGGS-like, 10,000 × 28", (28, *[32] * 5, 1), "tanh", "logistic", 1.0, higgs(10_000)),
    "relu": Task("gpubp's digits, 5,000 × 784", (784, 64, 32, 10), "relu", "softmax", 0.1, digits),
    "illscaled": Task("scales 10⁻² … 10², 10,000 × 20", (20, 50, 1), "tanh", "logistic", 1e-3, ill_scaled(10_000)),
    # not among the seven of the targets
    "higgs200": Task("HIGGS-like, 200,000 × 28", (28, 64, 64, 1), "tanh", "logistic", 1.0, higgs(200_000)),
    "small": Task("scikit-learn's digits, 1,297 × 64", (64, 32, 10), "sigmoid", "softmax", 0.1, small_digits),
    "tiny": Task("Friedman's first, 600 × 10", (10, 12, 1), "tanh", "squares", 0.1, friedman(600)),
    "tinydeep": Task("HIGGS-like, 600 × 28", (28, 8, 8, 1), "tanh", "logistic", 0.1, higgs(600)),
}
STANDARD = ("digits", "mnist100", "higgs", "friedman", "deep", "relu", "illscaled")
QUICK = ("tiny", "tinydeep")


class Ready:
    """A task of one seed: gpubp's objective on the CPU, the initial Θ, and the held-out rows.

    Args:
        precision: "fp64" or "fp32"; X is stored in it as well.
        threads: that work on an evaluation.

    Raises:
        Absent: a package is missing that the data come from.
    """

    def __init__(self, task: Task, seed: int, precision: str = "fp64", threads: int = 2) -> None:
        from gpubp import Network
        from gpubp.backend import choose
        from gpubp.data.rows import Rows
        from gpubp.data.scaling import Scaling
        from gpubp.data.source import ArrayRows
        from gpubp.objective import Objective

        X, y, X_held, y_held = task.rows(seed)
        self.task, self.X, self.y = task, np.ascontiguousarray(X, {"fp64": "f8", "fp32": "f4"}[precision]), y
        self._held = X_held, y_held
        self.network = Network(task.layers, task.activation, task.cost)
        labels = y if y.ndim == 2 else y.astype(np.uint32)
        rows = Rows(ArrayRows(self.X), self.X, Scaling("none", None, None), labels)
        backend, self.how = choose("cpu", threads=threads)
        self.objective = Objective(self.network, rows, task.lambda_, backend=backend, precision=precision)
        if getattr(self.objective, "curvature", None) is None:
            self.how += "; J does not tell how it curves: optimizers that use it do without, or are absent"
        self.Theta = self.network.initial_Theta(seed)

    def score(self, Theta: Array) -> float:
        """On the held-out rows, in float64: the part that is classified right; of a regression the mean squared
        error."""
        X, y = self._held
        g, _ = ACTIVATIONS[self.task.activation]
        *hidden, last = self.network.unpack(Theta)
        a = X.astype(np.float64)
        with np.errstate(over="ignore"):  # of exp, in units that are far from 0
            for matrix in hidden:
                a = g(a @ matrix[:, 1:].T + matrix[:, 0])
        z = a @ last[:, 1:].T + last[:, 0]
        if self.task.cost == "squares":
            return float(((z - y) ** 2).mean())
        found = z.argmax(axis=1) if y.ndim == 1 else (z > 0)
        return float((found == y).mean())
