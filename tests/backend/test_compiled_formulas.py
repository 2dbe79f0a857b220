"""A formula is told once: what is added to `gpubp.activation` or `gpubp.cost` has compiled loops as well."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from passes import assert_close, evaluate, labels, numbers, rows_of

import gpubp
from gpubp import activation, cost
from gpubp.errors import BackendError
from gpubp.formula import Formula, elementwise, rowwise, total

pytest.importorskip("numba")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], str]]:
    """Adds an activation or a cost as the package itself does, for one test; gives its name."""
    monkeypatch.setattr(activation, "_ACTIVATIONS", dict(activation._ACTIVATIONS))
    monkeypatch.setattr(cost, "_COSTS", dict(cost._COSTS))
    before = list(Formula.all)

    def add(described: Any) -> str:
        (cost if hasattr(described, "cell") else activation)._entry(described)
        return described.__name__

    yield add
    Formula.all[:] = before


def compare(network: gpubp.Network, y: np.ndarray, tolerance: float = 1e-12, m: int = 300) -> None:
    X, w = numbers((m, network.sizes[0])), np.arange(m) % 3.0
    for more in ({}, {"weights": w, "validation": np.where(w == 0, 1.0, 0)}):
        for precision, wanted in (("fp64", tolerance), ("fp32", 1e-5)):
            rows, options = rows_of(X, y, **more), {"precision": precision, "leaves": 4, "block_rows": 40}
            assert_close(evaluate(network, rows, **options), evaluate(network, rows, kernel="numpy", **options), wanted)


# What they list is what the package has: these are for the tests below alone.
_OF_THE_PACKAGE = list(Formula.all)


class bent:
    """Arithmetic, comparisons, ufuncs and a choice, none of which the package's own formulas have together."""

    @elementwise("T z, T b", "T a", "")
    def g(xp: Any, z: Any, b: Any) -> Any:
        v = z + b
        return xp.where((v > 0) & (v <= 2), xp.sqrt(v * v + 1) - 1, 0.25 * xp.arctan(2.0 * v) + xp.minimum(v, 0.5) / 8)

    @elementwise("T e, T z, T b", "T d", "")
    def slope(xp: Any, e: Any, z: Any, b: Any) -> Any:
        v = z + b
        other = 0.5 / (1 + 4.0 * v**2) + xp.where(v < 0.5, 0.125, 0)
        return e * xp.where(~((v <= 0) | (v > 2)), v / xp.sqrt(v * v + 1), other)


class counts:
    """e^s − y·s,  h = e^s: counts after Poisson"""

    takes = "numbers"
    score = cost.weighted_input
    delta = cost.difference

    @elementwise("T s", "T h", "")
    def h(xp: Any, s: Any) -> Any:
        return xp.exp(s)

    @total("T s, T y, T w", "")
    def cell(xp: Any, s: Any, y: Any, w: Any) -> Any:
        v = s.astype("float64")
        return xp.where(w == 0, 0.0, w * (xp.exp(v) - y * v))


class often:
    """−Σ_k y_k log h_k,  h = softmax(z), normed again and again: five reductions along a row"""

    takes = "distribution"
    delta = cost.difference
    h = cost._COSTS["softmax"].h
    cell = cost._COSTS["softmax"].cell

    @rowwise("T z, T b", "T s", "")
    def score(xp: Any, z: Any, b: Any) -> Any:
        s = z.astype("float64") + b
        s = s - s.max(axis=1, keepdims=True)
        for _ in range(4):
            s = s - xp.log(xp.exp(s).sum(axis=1, keepdims=True))
        return s


Formula.all[:] = _OF_THE_PACKAGE


def test_a_new_activation_works_compiled(added):
    network = gpubp.Network((6, 9, 16, 3), added(bent))
    compare(network, labels(network, 300))


def test_a_new_cost_works_compiled(added):
    for K in (1, 4):
        network = gpubp.Network((6, 9, K), "bent" if K == 1 and added(bent) else "tanh", added(counts))
        compare(network, abs(labels(network, 300)).round())


def test_a_new_cost_of_whole_rows_works_compiled(added):
    network = gpubp.Network((6, 9, 5), "tanh", added(often))
    compare(network, labels(network, 300))


@pytest.fixture
def fences(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Memory of compiled passes lies between fences; the function sees whether somebody went through one."""
    from gpubp.backend import compiled

    made: list[tuple[np.ndarray, int, int]] = []

    def aligned(shape: Any, dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + (128 << 10), 0xA5, np.uint8)
        start = (64 << 10) - raw.ctypes.data % 64
        made.append((raw, start, start + size))
        return raw[start : start + size].view(dtype).reshape(shape)

    def look() -> None:
        assert made
        for raw, start, stop in made:
            assert (raw[:start] == 0xA5).all() and (raw[stop:] == 0xA5).all(), "written beyond its end"

    monkeypatch.setattr(compiled, "aligned", aligned)
    return look


@pytest.mark.parametrize("J", [*cost.names(), "often"])
@pytest.mark.parametrize("K", [2, 16, 300])
def test_no_loop_writes_beyond_its_memory(added, fences, J, K):
    if J == "often":
        added(often)
    X, w = numbers((50, 4)), np.arange(50) % 3.0
    for g in activation.names():
        network = gpubp.Network((4, 3, 5, K), g, J)
        rows = rows_of(X, labels(network, 50), weights=w, validation=np.where(w == 0, 1.0, 0))
        found = evaluate(network, rows, precision="fp32", leaves=2, block_rows=9)
        assert np.isfinite(found.J)
        fences()


def test_a_formula_that_numba_cannot_compile_is_one_line_that_names_the_way_out(added):
    class unknown:
        @elementwise("T z, T b", "T a", "")
        def g(xp: Any, z: Any, b: Any) -> Any:
            return xp.heaviside(z + b, 0.5)  # numba does not have it

        @elementwise("T e, T a", "T d", "")
        def slope(xp: Any, e: Any, a: Any) -> Any:
            return 0 * e

    network = gpubp.Network((4, 3, 2), added(unknown))
    rows = rows_of(numbers((20, 4)), labels(network, 20))
    for _ in range(2):  # it is no better at the second time
        with pytest.raises(BackendError, match=r"numba cannot compile .*heaviside.*--kernel numpy") as caught:
            evaluate(network, rows)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert np.isfinite(evaluate(network, rows, kernel="numpy").J)


# What one operation means.

OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "difference and quotient": lambda xp, z, b: (z - b) / (2 - z),
    "powers": lambda xp, z, b: z**2 + abs(z) ** 0.5 + 2**b,
    "numbers at the ends": lambda xp, z, b: xp.where(z > 0, float("-inf"), xp.minimum(b, float("inf"))),
    "comparisons": lambda xp, z, b: xp.where(
        ((z > b) | (z == 0)) & (z != 3) & (b <= 1), z, xp.where(z >= b, 2.0 * b, 1)
    ),
    "not": lambda xp, z, b: xp.where(~(z < b), z, b),
    "largest and smallest": lambda xp, z, b: xp.maximum(z, b) * 3 + xp.minimum(b, z),
    "functions": lambda xp, z, b: xp.exp(z) + xp.expm1(b) + xp.log(abs(z)) + xp.log1p(abs(b)) + xp.tanh(z),
    "functions of the library": lambda xp, z, b: xp.sin(z) + xp.arctan(b) + xp.sqrt(abs(z)) + xp.floor(b) + xp.sign(z),
    "logistic function, in two writings": lambda xp, z, b: 1 / (1 + xp.exp(-z)) + 1 / (xp.exp(-b) + 1),
    "not quite the logistic function": lambda xp, z, b: (
        1 / (1 + xp.exp(z)) + 1 / (2 + xp.exp(-b)) + 2 / (1 + xp.exp(-b))
    ),
    "truth as a number": lambda xp, z, b: (z > 0) * b + 2 * (b > 0),
    "there and back": lambda xp, z, b: (z.astype("float64") * b).astype("float32") + z,
    "to a whole number": lambda xp, z, b: (4 * xp.minimum(xp.maximum(z, -9), 9)).astype("int32") * b,
    # sums and products of small types stay of that type in NumPy; numba widens them
    "truth and truth": lambda xp, z, b: ((z > 0) + (b > 0)) * z,
    "bytes wrap": lambda xp, z, b: (xp.minimum(abs(z), 9).astype("uint8") + 254) * b,
}


def assert_numpys(operation: Callable[[Any, Any, Any], Any], dtype: str, special: list[float]) -> None:
    """A compiled loop of the operation gives what NumPy gives, on random numbers and on these."""
    from gpubp.backend.compiled import build, source

    z, b = numbers((9, 16), dtype), numbers((1, 16), dtype, 1)
    z[0, : len(special)], b[0, len(special) : 2 * len(special)] = special, special
    formula = Formula("operation", "elementwise", (), (), "", operation)  # type: ignore[arg-type]
    Formula.all.remove(formula)
    address = build.address(source.activate(formula, z.dtype, inplace=False))
    out = np.full_like(z, -77)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(address)(9, 16, 1, z.ctypes.data, b.ctypes.data, out.ctypes.data)
    with np.errstate(all="ignore"):
        wanted = np.asarray(operation(np, z, b)).astype(dtype)
    tolerance = 50 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_operation_means_what_it_means_in_numpy(operation, dtype):
    assert_numpys(operation, dtype, [0, -0.0, 1, 80])


@pytest.mark.parametrize("name", ["numbers at the ends", "comparisons", "largest and smallest", "functions", "not"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_operation_treats_what_is_no_number_as_numpy_does(name, dtype):
    assert_numpys(OPERATIONS[name], dtype, [np.nan, np.inf, -np.inf])


def test_half_precision_is_rounded_to_or_refused():
    try:
        assert_numpys(lambda xp, z, b: z.astype("float16").astype("float32") * b, "f4", [])
    except BackendError as error:
        assert "float16" in str(error)
