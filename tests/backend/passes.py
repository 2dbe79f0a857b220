"""What tests of whole passes share: a problem, an objective on some kernel with so many threads, what a pass gives."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

import gpubp
from gpubp.backend import blas, choose
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.objective import Objective

NONE = Scaling("none", None, None)


class Pass(NamedTuple):
    """What passes at one Θ gave: J and ∇J together, J alone, the cost of the validation rows."""

    J: float
    gradient: np.ndarray
    value: float
    validation: float | None

    @property
    def bits(self) -> tuple[Any, ...]:
        return (self.J, self.gradient.tobytes(), self.value, self.validation)


def numbers(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def labels(network: gpubp.Network, m: int) -> np.ndarray:
    """Class numbers; real targets for a cost that takes any number."""
    if network.J.takes == "numbers":
        return numbers((m, network.K), seed=9)
    return np.random.default_rng(9).integers(0, max(network.K, 2), m).astype(np.uint32)


def rows_of(X: np.ndarray, y: np.ndarray, *, kept: int | None = None, scaling: Scaling = NONE, **weights: Any) -> Rows:
    """Rows of an array, the first `kept` of them in memory and the others read in each pass."""
    source = ArrayRows(X)
    return Rows(source, source.array[:kept], scaling, y, **weights)


@contextmanager
def objective(
    network: gpubp.Network,
    rows: Rows,
    *,
    kernel: str = "compiled",
    library: str = "numpy",
    threads: int = 2,
    **options: Any,
) -> Iterator[Objective]:
    """An objective with exactly so many threads (no more than leaves), however small the problem is."""
    backend, _ = choose("cpu", threads=threads, kernel=kernel, blas=library if kernel == "compiled" else "auto")
    backend.owners_for = lambda m, sizes: threads  # type: ignore[method-assign]
    made = Objective(network, rows, 0.3, backend=backend, **options)
    try:
        yield made
    finally:
        made.close()


def at(it: Objective, Theta: np.ndarray | None = None) -> Pass:
    """The passes at Θ, by default a random one."""
    Theta = it.network.initial_Theta(1) if Theta is None else Theta
    gradient = np.full(it.network.P, np.nan)
    J = it.value_and_gradient(Theta, gradient)
    return Pass(J, gradient, it.value(Theta), it.validation_cost)


def evaluate(network: gpubp.Network, rows: Rows, **options: Any) -> Pass:
    """An objective's passes at a random Θ."""
    with objective(network, rows, **options) as it:
        return at(it)


def assert_close(found: Pass, wanted: Pass, tolerance: float) -> None:
    """The same to rounding: costs relative to themselves, ∇J to its largest element."""
    assert found.J == found.value
    assert found.J == pytest.approx(wanted.J, rel=tolerance, abs=0)
    assert np.abs(found.gradient - wanted.gradient).max() <= tolerance * np.abs(wanted.gradient).max()
    assert (found.validation is None) == (wanted.validation is None)
    if wanted.validation is not None:
        assert found.validation == pytest.approx(wanted.validation, rel=tolerance, abs=0)


def blas_libraries() -> list[Any]:
    """Parameters: NumPy's BLAS, and MKL where it is installed."""
    there = bool(blas._mkl_path()) and importlib.util.find_spec("numba") is not None
    absent = pytest.mark.skipif(not there, reason="MKL is not installed (pip install mkl)")
    return ["numpy", pytest.param("mkl", marks=absent)]
