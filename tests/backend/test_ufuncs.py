"""NumPy's in-place steps of a formula have the reference's very bits, and make no arrays of their own."""

from __future__ import annotations

import threading
import tracemalloc
from itertools import product
from typing import Any

import numpy as np
import pytest

from gpubp import activation, cost
from gpubp.backend import ufuncs
from gpubp.backend.numpy import NumpyBackend
from gpubp.formula import Formula, cast, one_hot, plus, standardise

assert activation.names() and cost.names()  # imported, so that their formulas are listed


def over(formulas: list[Formula]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("formula", formulas, ids=lambda f: f.name)


FIXED = {"double": np.dtype("f8"), "int": np.dtype("i4")}
SHAPES = [(5, 7), (1, 7), (5, 1), (1, 1), (300, 64)]


def arrays_for(formula: Formula, T: str, S: str, rows: int, columns: int) -> list[np.ndarray]:
    """Inputs as a pass has them: labels and weights are columns, biases and moments rows."""
    rng, made = np.random.default_rng(0), []
    for argument in formula.inputs:
        shape = {"b": (1, columns), "mu": (1, columns), "sigma": (1, columns), "k": (1, columns), "label": (rows, 1),
                 "w": (rows, 1)}.get(argument.name, (rows, columns))  # fmt: skip
        values = rng.normal(size=shape) * 3
        if argument.name in ("y", "h", "label", "w", "k") or S in "?BH":
            values = abs(values) % 2
        dtype = FIXED.get(argument.type, np.dtype(T if argument.type == "T" else S))
        made.append(values.astype(dtype))
    return made


def reference(formula: Formula, inputs: list[np.ndarray], T: str, shape: tuple[int, int]) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = np.broadcast_to(formula(np, *(i.copy() for i in inputs)), shape)
        # a sum's cells are float64 whatever comes in
        return np.ascontiguousarray(values if formula.shape == "total" else values.astype(T))


@over(Formula.all)
@pytest.mark.parametrize("T", ["f4", "f8"])
def test_the_bits_are_the_references(formula, T):
    backend = NumpyBackend(1)
    stored = "?BiqefdH" if any(a.type == "S" for a in formula.inputs) else "f"
    for S, (rows, columns) in product(stored, SHAPES):
        inputs = arrays_for(formula, T, S, rows, columns)
        wanted = reference(formula, inputs, T, (rows, columns))
        before = [i.copy() for i in inputs]
        with backend.guard():
            for _ in range(2):  # the second call finds what the first one made
                if formula.shape == "total":
                    out = np.full(1, 0.25)
                    backend.total(formula, *inputs, out=out)
                    assert out[0] == 0.25 + wanted.sum()
                else:
                    out = np.full((rows, columns), np.nan, T)
                    backend.apply(formula, *inputs, out=out)
                    assert out.tobytes() == wanted.tobytes()
        for array, copy in zip(inputs, before, strict=True):
            assert array.tobytes() == copy.tobytes(), "an input was changed"


@over([f for f in Formula.all if f.shape != "total"])  # a sum has no array of its own
@pytest.mark.parametrize("T", ["f4", "f8"])
def test_the_result_may_take_the_place_of_any_input_of_its_look(formula, T):
    backend = NumpyBackend(1)
    for S, (rows, columns) in product((T, "B"), SHAPES):
        inputs = arrays_for(formula, T, S, rows, columns)
        wanted = reference(formula, inputs, T, (rows, columns))
        for k, given in enumerate(inputs):
            if (given.shape, given.dtype) != ((rows, columns), np.dtype(T)):
                continue
            mine = [i.copy() for i in inputs]
            with backend.guard():
                backend.apply(formula, *mine, out=mine[k])
            assert mine[k].tobytes() == wanted.tobytes()
            for i, (array, before) in enumerate(zip(mine, inputs, strict=True)):
                assert i == k or array.tobytes() == before.tobytes(), f"{formula.inputs[i].name} was changed"


@over([f for f in Formula.all if f.takes("w")])
def test_rows_without_weights_have_the_bits_of_weights_of_one(formula):
    backend = NumpyBackend(1)
    for T, (rows, columns) in product(("f4", "f8"), SHAPES):
        inputs = arrays_for(formula, T, "f", rows, columns)
        at = [a.name for a in formula.inputs].index("w")
        results = []
        for w in (np.ones((rows, 1), T), backend.constant(1.0, rows, np.dtype(T))):
            inputs[at] = w
            out = np.zeros(
                1 if formula.shape == "total" else (rows, columns), np.float64 if formula.shape == "total" else T
            )
            with backend.guard():
                (backend.total if formula.shape == "total" else backend.apply)(formula, *inputs, out=out)
            results.append(out.tobytes())
        assert results[0] == results[1]


@over(Formula.all)
def test_a_block_makes_no_arrays(formula):
    """After the first block of its size, another one allocates next to nothing."""
    backend, (rows, columns) = NumpyBackend(1), (2000, 250)
    for T in ("f4", "f8"):
        inputs = arrays_for(formula, T, T, rows, columns)
        out: Any = np.zeros(1) if formula.shape == "total" else np.empty((rows, columns), T)
        call = backend.total if formula.shape == "total" else backend.apply
        with backend.guard():
            call(formula, *inputs, out=out)
            tracemalloc.start()
            try:
                call(formula, *inputs, out=out)
                peak = tracemalloc.get_traced_memory()[1]
                np.empty((rows, columns), T)
                assert tracemalloc.get_traced_memory()[1] > rows * columns, "what NumPy allocates is not traced"
            finally:
                tracemalloc.stop()
        # NumPy converts between types in pieces of 8,192 elements
        assert peak < rows * columns * np.dtype(T).itemsize / 5, f"{peak} bytes"


def test_blocks_of_every_length_share_the_memory_of_the_longest():
    backend, g = NumpyBackend(1), activation.activation("gelu").g
    with backend.guard():
        for rows in (100, 7, 1, 99, 100):
            z, b = arrays_for(g, "f4", "f", rows, 30)
            out = np.empty_like(z)
            backend.apply(g, z, b, out=out)
            assert out.tobytes() == reference(g, [z, b], "f4", z.shape).tobytes()


def test_arrays_of_many_blocks_share_the_memory_of_one():
    backend, g = NumpyBackend(1), activation.activation("gelu").g
    z, b = arrays_for(g, "f8", "f", 2000, 50)
    blocks = [np.empty_like(z) for _ in range(20)]
    with backend.guard():
        backend.apply(g, z, b, out=np.empty_like(z))
        tracemalloc.start()
        try:
            for out in blocks:
                backend.apply(g, z, b, out=out)
            assert tracemalloc.get_traced_memory()[0] < z.nbytes
        finally:
            tracemalloc.stop()


def test_what_was_made_for_arrays_that_are_gone_is_not_taken_for_new_ones():
    """New arrays may lie where old ones lay, and be told apart by nothing but their content."""
    backend, difference = NumpyBackend(1), cost.cost("logistic").delta
    h, y, d = np.full((2, 3), 5.0), np.full((2, 3), 3.0), np.empty((2, 3))
    with backend.guard():
        for i in range(5000):
            a, b = np.full((1, 3 + i % 2), float(i)), np.full((1, 3 + i % 2), 0.5)
            backend.apply(plus, a, b, out=a)
            assert (a == i + 0.5).all()
            backend.apply(difference, h, y, backend.constant(float(i), 2, d.dtype), out=d)
            assert (d == 2 * i).all()
        assert len(backend._memory.bound) <= ufuncs.MOST_BOUND


def test_flat_vectors_and_arrays_with_gaps():
    backend = NumpyBackend(1)
    a, b = np.arange(12.0), np.arange(24.0)[::2]
    with backend.guard():
        backend.apply(plus, a, b, out=a)
        assert a.tolist() == [3.0 * i for i in range(12)]
        wide = np.zeros((4, 6), np.float32)
        backend.apply(cast, np.arange(12, dtype=np.uint8).reshape(4, 3), out=wide[:, ::2])
        assert wide[:, ::2].ravel().tolist() == list(range(12)) and not wide[:, 1::2].any()


def test_a_block_without_rows_is_no_special_case():
    """A leaf has none where there are more leaves than rows."""
    backend = NumpyBackend(1)
    with backend.guard():
        for formula in Formula.all:
            inputs = arrays_for(formula, "f4", "f", 3, 4)
            inputs = [i[:0] if len(i) == 3 else i for i in inputs]
            if formula.shape == "total":
                out = np.array([7.0])
                backend.total(formula, *inputs, out=out)
                assert out[0] == 7
            else:
                backend.apply(formula, *inputs, out=np.empty((0, 4), "f4"))


def test_several_threads_do_not_share_memory():
    backend, g = NumpyBackend(4), activation.activation("silu").g
    right: list[bool] = []

    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with backend.guard():
            for _ in range(40):
                z, b = rng.normal(size=(50, 40)), rng.normal(size=(1, 40))
                wanted = reference(g, [z, b], "f8", z.shape)
                backend.apply(g, z, b, out=z)
                right.append(z.tobytes() == wanted.tobytes())

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 160 and all(right)


def test_one_hot_and_standardise_are_what_they_say():
    """By numbers of one's own, for the reference may be wrong as well."""
    backend = NumpyBackend(1)
    y, x = np.empty((3, 4), "f4"), np.empty((2, 2), "f4")
    with backend.guard():
        backend.apply(one_hot, np.array([[3], [0], [9]], "i4"), np.arange(4, dtype="i4")[None], out=y)
        backend.apply(
            standardise, np.array([[1, 2], [3, 4]], "u1"), np.array([[1.0, 0.0]]), np.array([[2.0, 0.5]]), out=x
        )
    assert y.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert x.tolist() == [[0, 4], [1, 8]]
