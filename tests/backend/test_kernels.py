"""The CUDA text of every formula: compiled for real devices without one, and run on the CPU against its reference."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import nvrtc
import on_host
import pytest

from gpubp import activation, cost
from gpubp.backend import kernels
from gpubp.errors import BackendError
from gpubp.formula import Formula, cast, one_hot, plus, standardise

FORMULAS = [f for f in Formula.all if f.reference.__module__.startswith("gpubp.")]
TOTALS = [f for f in FORMULAS if f.shape == "total"]
SHAPES = [(1, 1), (5, 1), (37, 10), (3, 70), (900, 10)]
EXTREMES = [0.0, -0.0, 1.0, -1.0, 100.0, -100.0, 1e4, -1e4]


def test_all_formulas_are_here():
    """Activations and costs are found by listing, not by naming them in the tests."""
    assert {activation.activation(n).g for n in activation.names()} <= set(FORMULAS)
    assert {cost.cost(n).cell for n in cost.names()} <= set(TOTALS)
    assert len({f.name for f in FORMULAS}) == len(FORMULAS) >= 30


def draw(formula: Formula, dtype: np.dtype, shape: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Arguments of a formula: random numbers with extreme ones among them, z a slice of a wider matrix, b, w, μ, σ, k
    and label broadcast."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    wide = rng.normal(0, 2, (rows, columns + 5)).astype(dtype)
    wide.flat[rng.permutation(wide.size)[: 2 * len(EXTREMES)]] = (EXTREMES * 2)[: wide.size]
    arguments: dict[str, np.ndarray] = {
        "z": wide[:, 2 : 2 + columns],
        "b": rng.normal(size=(1, columns)).astype(dtype),
        "w": rng.integers(0, 3, (rows, 1)).astype(dtype),
        "mu": rng.normal(size=(1, columns)),
        "sigma": rng.random((1, columns)) + 0.1,
        "k": np.arange(columns, dtype=np.int32)[None],
        "label": rng.integers(0, columns, (rows, 1)),
    }
    return [arguments.get(a.name, np.roll(wide, i, 0)[:, 2 : 2 + columns]) for i, a in enumerate(formula.inputs)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", [f for f in FORMULAS if f not in TOTALS], ids=lambda f: f.name)
def test_kernel_equals_reference(formula, dtype, host_kernels):
    tolerance = 3e-6 if dtype == np.float32 else 1e-13
    for shape in SHAPES:
        inputs = draw(formula, np.dtype(dtype), shape)
        with np.errstate(all="ignore"):
            wanted = np.broadcast_to(formula(np, *inputs), shape).astype(dtype)
        out = np.full(shape, np.nan, dtype)
        host_kernels.apply(formula, *inputs, out=out)
        scale = tolerance * np.abs(wanted[np.isfinite(wanted)]).max(initial=1)
        np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=min(scale, 1e-4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("formula", TOTALS, ids=lambda f: f.name)
def test_total_equals_reference(formula, dtype, host_kernels):
    for shape in SHAPES:
        inputs = draw(formula, np.dtype(dtype), shape)
        with np.errstate(all="ignore"):
            cells = np.broadcast_to(formula(np, *inputs), shape)
        out = np.array([0.5])
        host_kernels.total(formula, *inputs, out=out)
        wanted = math.fsum(cells.ravel().tolist()) + 0.5
        # the logistic cost takes its logarithm in the type of the pass, where the two writings may round apart
        loose = 1e-7 if formula.name == "logistic_cell" and dtype == np.float32 else 1e-14
        assert abs(out[0] - wanted) <= loose * (math.fsum(np.abs(cells).ravel().tolist()) + 0.5)


@pytest.mark.parametrize("formula", [f for f in FORMULAS if f not in TOTALS], ids=lambda f: f.name)
def test_output_may_replace_an_input(formula, host_kernels):
    for shape in [(37, 10), (3, 70), (300, 10)]:
        inputs = [np.array(a) for a in draw(formula, np.dtype(np.float64), shape)]
        apart = np.empty(shape)
        host_kernels.apply(formula, *inputs, out=apart)
        for i, array in enumerate(inputs):
            if array.shape == shape and array.dtype == apart.dtype:
                places = [a.copy() for a in inputs]
                host_kernels.apply(formula, *places, out=places[i])
                np.testing.assert_array_equal(places[i], apart)


def test_output_may_be_a_slice(host_kernels):
    rng = np.random.default_rng(0)
    around = np.full((40, 30), 7.0)
    z, b = rng.normal(size=(20, 11)), rng.normal(size=(1, 11))
    host_kernels.apply(activation.activation("identity").g, z, b, out=around[5:25, 3:14])
    np.testing.assert_array_equal(around[5:25, 3:14], z + b)
    around[5:25, 3:14] = 7
    assert (around == 7).all()


@pytest.mark.parametrize("stored", on_host.STORED)
def test_rows_are_cast_from_every_stored_type(stored, host_kernels):
    dtype = np.dtype(stored)
    rng = np.random.default_rng(1)
    if stored == "e":
        x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)  # every float16 there is
    elif dtype.kind == "f":
        x = (rng.normal(size=(50, 7)) * 1e3).astype(dtype)
    else:
        limits = (0, 1) if stored == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        x = rng.integers(*limits, (50, 7), dtype=dtype.type, endpoint=True)
    for T in (np.float32, np.float64):
        out = np.empty(x.shape, T)
        host_kernels.apply(cast, x, out=out)
        np.testing.assert_array_equal(out, x.astype(T))


def test_standardise_subtracts_in_float64(host_kernels):
    """In float32, 1e8 + 1 is 1e8: the difference must be taken before the rows are float32."""
    x = 1e8 + np.arange(12.0).reshape(4, 3)
    out = np.empty((4, 3), np.float32)
    host_kernels.apply(standardise, x, np.full((1, 3), 1e8), np.full((1, 3), 2.0), out=out)
    np.testing.assert_array_equal(out, np.arange(12).reshape(4, 3) / 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_one_hot(dtype, host_kernels):
    label = np.array([[2], [0], [3], [1]], dtype)
    out = np.empty((4, 4), np.float32)
    host_kernels.apply(one_hot, label, np.arange(4, dtype=np.int32)[None], out=out)
    np.testing.assert_array_equal(out, np.eye(4)[label[:, 0].astype(int)])


def test_wide_indices_give_the_same_bits(host_kernels):
    for name in on_host.WIDE:
        formula = next(f for f in FORMULAS if f.name == name)
        inputs = draw(formula, np.dtype(np.float32), (900, 10))
        apply = host_kernels.total if formula in TOTALS else host_kernels.apply
        results = []
        for wide in (False, True):
            out = np.zeros(1) if formula in TOTALS else np.empty((900, 10), np.float32)
            apply(formula, *inputs, out=out, wide=wide)
            results.append(out)
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["tanh_g", "softmax_score"])
def test_few_blocks_do_the_work_of_many(name, host_kernels):
    """As on a matrix so large that each block takes several turns."""
    formula = next(f for f in FORMULAS if f.name == name)
    inputs = draw(formula, np.dtype(np.float32), (900, 10))
    results = []
    for blocks in (None, 1, 2, 3):
        results.append(np.full((900, 10), np.nan, np.float32))
        host_kernels.apply(formula, *inputs, out=results[-1], blocks=blocks)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_partial_sums_of_a_large_matrix_are_all_added(host_kernels):
    for count in (0, 1, 255, 256, 257, 1000):
        partials, out = np.random.default_rng(count).normal(size=count), np.array([0.5])
        host_kernels.sum(partials, out)
        assert out[0] == pytest.approx(math.fsum(partials.tolist()) + 0.5, abs=1e-13)


def test_softmax_of_a_row_longer_than_a_warp_sums_to_one(host_kernels):
    z = np.random.default_rng(2).normal(size=(9, 1000)) * 30
    s = np.empty_like(z)
    host_kernels.apply(cost.cost("softmax").score, z, np.zeros((1, 1000)), out=s)
    np.testing.assert_allclose(np.exp(s).sum(axis=1), 1, rtol=1e-13)


# What is launched: arithmetic on shapes alone.


def array(shape, dtype="f4", strides=None):
    dtype = np.dtype(dtype)
    dense = tuple(dtype.itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return SimpleNamespace(shape=shape, dtype=dtype, strides=strides or dense)


def test_plan_addresses_by_strides_and_leaves_nothing_out():
    z, b, out = array((1000, 7), strides=(80, 4)), array((1, 7)), array((1000, 7))
    launch = kernels.plan(activation.activation("tanh").g, [z, b, out])
    assert launch.numbers == (1000, 7, 20, 1, 0, 1, 7, 1)
    assert launch.blocks * kernels.THREADS * kernels.UNROLL >= 7000
    assert launch.types == (np.dtype("f4"),) * 3 and not launch.wide
    flat = array((123,), "f8")
    assert kernels.plan(plus, [flat] * 3).numbers == (1, 123, 0, 1, 0, 1, 0, 1)
    cell = cost.cost("logistic").cell
    s, w = array((10_000, 3)), array((10_000, 1))
    assert kernels.plan(cell, [s, s, w]).blocks == math.ceil(30_000 / kernels.CHUNK)


def test_plan_widens_indices_only_where_it_must():
    def wide(*shape):
        return kernels.plan(plus, [array(shape)] * 3).wide

    assert not wide(65_536, 32_767) and wide(65_536, 32_768)
    assert wide(1 << 31) and not wide((1 << 31) - 1)


def test_nothing_is_launched_for_an_empty_array():
    for shape in ((0, 5), (5, 0), (0,)):
        assert kernels.plan(plus, [array(shape)] * 3).blocks == 0
    empty = array((0, 5))
    assert kernels.plan(cost.cost("softmax").cell, [empty, empty, array((0, 1))]).blocks == 0
    assert kernels.plan(cost.cost("softmax").score, [empty, array((1, 5)), empty]).blocks == 0


def test_a_shape_that_does_not_fit_is_refused():
    for wrong in ((3, 5), (4, 1, 5), (5,)):
        with pytest.raises(ValueError, match="tanh_g"):
            kernels.plan(activation.activation("tanh").g, [array((4, 5)), array(wrong), array((4, 5))])


def test_a_dtype_that_does_not_fit_is_refused():
    f4, f8 = np.dtype("f4"), np.dtype("f8")
    for formula, types in [
        (plus, [f4, f8, f4]),
        (plus, [np.dtype("i4")] * 3),
        (cast, [np.dtype(">f4"), f4]),
        (cast, [np.dtype("c8"), f4]),
        (standardise, [f4, f4, f8, f4]),
        (one_hot, [np.dtype("i8"), np.dtype("i8"), f4]),
    ]:
        with pytest.raises(BackendError, match=formula.name):
            kernels.source(formula, types)


# The compiler itself.


def programs() -> dict[str, kernels.Kernel]:
    built = [kernels.sum_source()]
    for formula in FORMULAS:
        stored = on_host.STORED if formula is cast else on_host.FEW_STORED
        built += [kernels.source(formula, types) for types in on_host.variants(formula, stored=stored)]
    for name in on_host.WIDE:
        formula = next(f for f in FORMULAS if f.name == name)
        built += [kernels.source(formula, types, wide=True) for types in on_host.variants(formula)]
    found = {kernel.name: kernel for kernel in built}
    assert len(found) == len(built)
    return found


def test_text_includes_nothing():
    text = kernels.program(*programs().values())
    assert not re.search(r"^\s*#\s*include", text, re.MULTILINE)


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_kernel_compiles_and_keeps_to_registers(arch):
    built = programs()
    # the options CuPy 14 adds of its own
    options = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")
    cubin, log = nvrtc.compile(kernels.program(*built.values()), f"-arch={arch}", *kernels.OPTIONS, *options)
    assert cubin.startswith(b"\x7fELF")
    used = nvrtc.memory(log)
    assert set(used) == set(built)
    assert {name: bytes for name, bytes in used.items() if any(bytes)} == {}, "stack frame, spill stores, spill loads"


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
def test_a_text_that_is_wrong_does_not_compile():
    """Or the test above would prove nothing."""
    kernel = kernels.source(plus, [np.dtype("f4")] * 3)
    with pytest.raises(ValueError, match="undefined"):
        nvrtc.compile(kernel.text.replace("a + b", "a + nothing"), "-arch=sm_90", *kernels.OPTIONS)
