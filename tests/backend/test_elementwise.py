"""Formulas of elements in their two writings: NumPy's, by any number of threads, and the kernel's text on the CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER

from gpubp import optimizers
from gpubp.backend import kernels
from gpubp.backend.cuda.vector_kernels import applied
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.optimizers.elementwise import Elementwise, elementwise
from gpubp.optimizers.vectors import HOST, LONG, PIECE, HostVectors

optimizers.names()  # imports all modules of the folder, and so finds all formulas
ALL = tuple(Elementwise.all)
each = pytest.mark.parametrize("formula", ALL, ids=lambda formula: formula.name)
compiled = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")


@pytest.fixture
def device(folder: Path) -> DeviceVectors:
    return GpuOnHost(folder).vectors()


def example(formula: Elementwise, P: int) -> tuple[list[np.ndarray], list[float]]:
    """Vectors with some zeros, those named v not negative, and numbers."""
    random = np.random.default_rng(P)
    vectors = [random.normal(size=P) for _ in formula.reads]
    for name, vector in zip(formula.reads, vectors, strict=True):
        vector[::7] = 0.0
        if name == "v":
            np.abs(vector, out=vector)
    return vectors, [0.3 + 0.1 * i for i in range(len(formula.numbers))]


def there(vectors: Any, hosts: list[np.ndarray]) -> list[Any]:
    arrays = [vectors.zeros(len(host)) for host in hosts]
    for host, array in zip(hosts, arrays, strict=True):
        vectors.put(host, array)
    return arrays


@compiled
@each
@pytest.mark.parametrize("P", [1, 31, 4097, 70_001])
def test_the_two_writings_agree(device, formula, P):
    reads, numbers = example(formula, P)
    wanted = formula.reference(*reads, *numbers)
    arrays, made = there(device, reads), there(device, [np.full(P, math.nan) for _ in formula.writes])
    device.apply(formula, arrays, numbers, made)
    assert len(wanted) == len(made)
    for array, values in zip(made, wanted, strict=True):
        np.testing.assert_allclose(device.to_host(array), values, rtol=1e-14, atol=1e-15)


@compiled
@each
def test_a_vector_may_be_read_and_written(device, formula):
    reads, numbers = example(formula, 3000)
    for vectors in (HOST, device):
        apart = there(vectors, [np.zeros(3000) for _ in formula.writes])
        vectors.apply(formula, there(vectors, reads), numbers, apart)
        for turn in range(len(reads)):  # each output in the place of each input once
            arrays = there(vectors, reads)
            places = (arrays[turn:] + arrays[:turn] + there(vectors, [np.zeros(3000)] * 3))[: len(apart)]
            vectors.apply(formula, arrays, numbers, places)
            for found, wanted in zip(places, apart, strict=True):
                assert np.array_equal(vectors.to_host(found), vectors.to_host(wanted))


@each
@pytest.mark.parametrize("P", [PIECE - 1, PIECE + 1, LONG + 5 * PIECE + 3])
def test_pieces_and_threads_change_no_bit(formula, P):
    reads, numbers = example(formula, P)
    wanted = formula.reference(*reads, *numbers)
    for threads in (1, 3):
        made = [np.full(P, math.nan) for _ in formula.writes]
        HostVectors(threads).apply(formula, reads, numbers, made)
        for array, values in zip(made, wanted, strict=True):
            assert np.array_equal(array, values)


def test_what_overflows_is_infinite_without_a_warning():
    conjugate = next(formula for formula in ALL if formula.name == "conjugate")
    out = np.zeros(2)
    HOST.apply(conjugate, [np.array([1e308, 0.0]), np.array([-1e308, 1.0])], [10.0], [out])
    assert out.tolist() == [-math.inf, 10.0]


@compiled
def test_a_text_that_says_something_else_is_noticed(device):
    """The check of this file itself."""

    def wrong(a: Any, b: Any, c: float) -> tuple[Any, ...]:
        return a + c * b, b - a

    formula = elementwise("a, b", "c", "x, y", "x = a + c * b; y = a - b;")(wrong)
    Elementwise.all.remove(formula)
    with pytest.raises(AssertionError):
        test_the_two_writings_agree(device, formula, 31)


def test_names_are_unique_and_every_optimizer_s_formula_is_known():
    names = [formula.name for formula in ALL]
    assert {"adam", "conjugate", "irprop", "nesterov"} <= set(names) and len(set(names)) == len(names)
    for formula in ALL:
        arguments = [*formula.reads, *formula.numbers, *formula.writes]
        assert len(set(arguments)) == len(arguments)


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_kernels_compile_and_keep_to_registers(arch):
    built = [applied(f.name, f.reads, f.numbers, f.writes, f.cuda) for f in ALL]
    options = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")
    _, log = nvrtc.compile(kernels.program(*built), f"-arch={arch}", *kernels.OPTIONS, *options)
    used = nvrtc.memory(log)
    assert set(used) == {kernel.name for kernel in built} and not any(map(any, used.values()))
