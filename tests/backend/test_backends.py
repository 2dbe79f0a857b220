"""What a backend promises, by one body on each: NumPy, the GPU's kernels on the CPU, the GPU.

The GPU is compared with NumPy; NumPy with plain arithmetic. The last part runs whole passes.
"""

from __future__ import annotations

import importlib
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from devices import gpu

import gpubp
from gpubp import activation, cost
from gpubp.backend import Backend, choose
from gpubp.backend.numpy import NumpyBackend
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.errors import BackendError, UsageError
from gpubp.formula import cast, one_hot, plus, standardise
from gpubp.objective import Objective

PRECISIONS = [np.float32, np.float64]


def random(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def device_array(backend, host):
    """An array made by `empty` and filled through `upload`, so that both are used."""
    out = backend.empty(host.shape, host.dtype)
    backend.apply(plus, backend.upload(host), backend.upload(np.zeros_like(host)), out=out)
    return out


def test_empty_and_zero(backend):
    for shape, dtype in product([(3, 5), (7,), (1, 1), (0, 4)], [np.float32, np.float64, np.uint8]):
        array = backend.empty(shape, np.dtype(dtype))
        assert array.shape == shape and array.dtype == dtype
        backend.zero(array)
        np.testing.assert_array_equal(backend.to_host(array), np.zeros(shape))


def test_arrays_begin_at_a_multiple_of_64_bytes(backend):
    for size in (1, 3, 1000):
        array = backend.empty((size,), np.dtype(np.float32))
        pointer = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
        assert pointer % 64 == 0


def test_zero_of_a_part_leaves_the_rest(backend):
    array = backend.upload(np.arange(1.0, 7))
    backend.zero(array[2:4])
    np.testing.assert_array_equal(backend.to_host(array), [1, 2, 0, 0, 5, 6])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64])
def test_upload_and_back(backend, dtype):
    host = (random((50, 3)) * 50).astype(dtype)
    for array in (host, host[:, 1:], host[7:9], host[:0], host.T):
        np.testing.assert_array_equal(backend.to_host(backend.upload(array)), array)


def test_an_uploaded_buffer_may_be_reused(backend):
    if backend.kind == "cpu" and type(backend) is NumpyBackend:
        pytest.skip("on the CPU the array is used where it is")
    # larger than what is in flight on the way to a GPU, and used again at once
    buffer = np.empty(5 << 20)
    uploaded = []
    for i in range(2):
        buffer[...] = i
        uploaded.append(backend.upload(buffer))
    buffer[...] = -1
    for i, array in enumerate(uploaded):
        assert (backend.to_host(array) == i).all()


def test_resident_keeps_first_rows(backend):
    host = random((100, 4), np.float32)
    kept = backend.resident(host)
    assert 0 < len(kept) <= 100
    np.testing.assert_array_equal(backend.to_host(kept), host[: len(kept)])
    assert len(backend.resident(host[:0])) == 0


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("transpose", ["nn", "nt", "tn", "tt"])
def test_gemm(backend, transpose, dtype):
    for rows, inner, columns in [(4, 3, 5), (1, 7, 2), (6, 1, 4), (3, 8, 1), (1, 1, 1), (65, 300, 33)]:
        a = random((rows, inner) if transpose[0] == "n" else (inner, rows), dtype, 1)
        b = random((inner, columns) if transpose[1] == "n" else (columns, inner), dtype, 2)
        before = random((rows, columns), dtype, 3)
        with np.errstate(all="ignore"):
            exact = (a.T if transpose[0] == "t" else a).astype(float) @ (b.T if transpose[1] == "t" else b)
        for beta in (0, 1):
            out = backend.upload(before.copy())
            if beta == 0:  # what was there must not matter
                out = backend.upload(np.full((rows, columns), np.nan, dtype))
            backend.gemm(backend.upload(a), backend.upload(b), out, transpose=transpose, beta=beta)
            wanted = exact + beta * before.astype(float)
            # true float32: TF32 would be wrong by 1e-3
            tolerance = 4 * np.finfo(dtype).eps * math.sqrt(inner + 1)
            np.testing.assert_allclose(backend.to_host(out), wanted, rtol=tolerance, atol=tolerance * 8)


def test_gemm_of_slices_as_a_pass_takes_them(backend):
    """First rows of a buffer, matrices inside the flat Θ."""
    flat, buffer = backend.upload(random((200,))), backend.upload(random((20, 6), seed=1))
    W = flat[16 : 16 + 30].reshape(5, 6)
    out = backend.empty((20, 5), np.dtype(float))[:7]
    backend.gemm(buffer[:7], W, out, transpose="nt")
    wanted = backend.to_host(buffer)[:7] @ backend.to_host(flat)[16:46].reshape(5, 6).T
    np.testing.assert_allclose(backend.to_host(out), wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("columns", [4, 6, 7])
def test_gemm_gives_the_same_bits_wherever_rows_lie(backend, columns):
    """Rows kept on the device and rows that stream through it begin at other addresses."""
    host, W = random((5000, columns), np.float32), backend.upload(random((33, columns), np.float32, 1))
    whole = backend.upload(host)
    for start in (0, 1, 2, 3, 1001):
        results = []
        for x in (whole[start : start + 3000], backend.upload(host[start : start + 3000])):
            out = backend.empty((3000, 33), np.dtype(np.float32))
            backend.gemm(x, W, out, transpose="nt")
            gradient = backend.empty((33, columns), np.dtype(np.float32))
            backend.gemm(out, x, gradient, transpose="tn")
            results.append((backend.to_host(out).tobytes(), backend.to_host(gradient).tobytes()))
        assert results[0] == results[1]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_apply_broadcasts_and_works_in_place(backend, dtype):
    sigmoid = activation.activation("sigmoid")
    z, b, e = random((40, 9), dtype), random((1, 9), dtype, 1), random((40, 9), dtype, 2)
    a = 1 / (1 + np.exp(-(z.astype(float) + b)))
    array, error = device_array(backend, z), device_array(backend, e)
    backend.apply(sigmoid.g, array, backend.upload(b), out=array)
    backend.apply(sigmoid.slope, error, array, out=error)
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(backend.to_host(array), a, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(backend.to_host(error), e * (a * (1 - a)), rtol=8 * tolerance, atol=tolerance)


def test_apply_on_flat_vectors(backend):
    a, b = random((1000,)), random((1000,), seed=1)
    left = backend.upload(a.copy())
    backend.apply(plus, left, backend.upload(b), out=left)
    np.testing.assert_array_equal(backend.to_host(left), a + b)


@pytest.mark.parametrize("K", [2, 10, 33, 100])
def test_rowwise_in_place(backend, K):
    softmax = cost.cost("softmax")
    z, b = random((50, K), np.float32) * 20, random((1, K), np.float32, 1)
    s = backend.upload(z.copy())
    backend.apply(softmax.score, s, backend.upload(b), out=s)
    t = z.astype(float) + b
    t -= t.max(axis=1, keepdims=True)
    wanted = t - np.log(np.exp(t).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(backend.to_host(s), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stored", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_rows_as_they_are_stored(backend, stored):
    x = np.arange(200).reshape(20, 10).astype(stored)
    mu, sigma = random((1, 10)), np.linspace(1, 3, 10)[None]
    out = backend.empty((20, 10), np.dtype(np.float32))
    array = backend.upload(x)
    backend.apply(cast, array, out=out)
    np.testing.assert_array_equal(backend.to_host(out), x.astype(np.float32))
    backend.apply(standardise, array[5:15], backend.upload(mu), backend.upload(sigma), out=out[:10])
    wanted = ((x[5:15].astype(float) - mu) / sigma).astype(np.float32)
    np.testing.assert_array_equal(backend.to_host(out)[:10], wanted)


def test_every_float16_is_read_exactly(backend):
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    out = backend.empty((256, 256), np.dtype(np.float64))
    backend.apply(cast, backend.upload(x), out=out)
    np.testing.assert_array_equal(backend.to_host(out), x.astype(float))


def test_one_hot_of_labels(backend):
    codes = np.array([0, 3, 1, 2, 3], np.int32)
    labels, k = backend.upload(codes.reshape(5, 1)), backend.upload(np.arange(4, dtype=np.int32)[None])
    y = backend.empty((3, 4), np.dtype(np.float32))
    backend.apply(one_hot, labels[2:5], k, out=y)
    np.testing.assert_array_equal(backend.to_host(y), np.eye(4)[codes[2:5]])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (4096, 1), (4097, 3), (30_001, 10)])
def test_total_adds_to_what_is_there(backend, shape, dtype):
    s, y, w = random(shape, dtype), random(shape, dtype, 1), random((shape[0], 1), dtype, 2) ** 2
    cells = 0.5 * w.astype(float) * (s.astype(float) - y) ** 2
    out = backend.upload(np.array([0.25, 7.0]))
    arrays = [backend.upload(a) for a in (s, y, w)]
    backend.total(cost.cost("squares").cell, *arrays, out=out[:1])
    backend.total(cost.cost("squares").cell, *arrays, out=out[:1])
    wanted = 0.25 + 2 * math.fsum(cells.ravel().tolist())
    found = backend.to_host(out)
    assert abs(found[0] - wanted) <= 1e-13 * wanted if dtype == np.float64 else 1e-6 * wanted
    assert found[1] == 7


def test_a_pass_of_operations_gives_the_same_bits_again(backend):
    s, y, w = (
        backend.upload(random(shape, np.float32, i)) for i, shape in enumerate([(9999, 7), (9999, 7), (9999, 1)])
    )
    W = backend.upload(random((5, 7), np.float32, 4))

    def run() -> bytes:
        out, total = backend.empty((9999, 5), np.dtype(np.float32)), backend.upload(np.zeros(1))
        backend.total(cost.cost("logistic").cell, s, y, w, out=total)
        backend.gemm(s, W, out, transpose="nt")
        gradient = backend.empty((5, 7), np.dtype(np.float32))
        for beta in (0, 1):
            backend.gemm(out, s, gradient, transpose="tn", beta=beta)
        return backend.to_host(total).tobytes() + backend.to_host(gradient).tobytes()

    assert len({run() for _ in range(3)}) == 1


def test_leaves_and_block(backend):
    for m, sizes in [(1, (2, 1)), (5000, (400, 25, 10)), (10**6, (784, 2048, 2048, 10)), (2 * 10**7, (28, 64, 64, 1))]:
        leaves, block_rows = backend.leaves_and_block(m, sizes)
        assert leaves >= 1 and leaves & (leaves - 1) == 0 and block_rows >= 1
        assert (leaves, block_rows) == backend.leaves_and_block(m, sizes)


def test_conditions_name_the_device_and_libraries(backend):
    conditions = backend.conditions()
    assert conditions["device"] and conditions["blas"] and conditions["numpy"] == np.__version__
    assert all(isinstance(value, str) for value in conditions.values())


def test_an_unknown_backend_is_refused():
    with pytest.raises(UsageError, match="auto, cpu or gpu"):
        choose("tpu")
    assert choose("cpu")[0].kind == "cpu"


# A whole pass.


def evaluate(backend: Backend, network, X, y, *, precision="fp64", scaling=None, kept=None, weights=None, **options):
    source = ArrayRows(X)
    kept = source.array if kept is None else source.array[:kept]
    rows = Rows(source, kept, scaling or Scaling("none", None, None), y, weights)
    objective = Objective(network, rows, 0.3, backend=backend, precision=precision, **options)
    gradient = np.zeros(network.P)
    J = objective.value_and_gradient(network.initial_Theta(1), gradient)
    objective.close()
    return J, gradient


def labels(network, m):
    rng = np.random.default_rng(9)
    if network.cost == "softmax":
        return rng.integers(0, network.K, m)
    return rng.normal(size=(m, network.K)) if network.cost == "squares" else rng.integers(0, 2, (m, network.K)) * 1.0


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_cost_and_gradient_equal_the_cpus(accelerator, g, J):
    network = gpubp.Network((5, 7, 6, 3), activation=g, cost=J)
    X, y, w = random((61, 5)), labels(network, 61), np.arange(61) % 3.0
    for precision, tolerance in (("fp64", 1e-12), ("fp32", 2e-5)):
        found, gradient = evaluate(accelerator, network, X, y, precision=precision, weights=w, block_rows=17)
        wanted, exact = evaluate(NumpyBackend(1), network, X, y, weights=w, block_rows=17)
        assert found == pytest.approx(wanted, rel=tolerance)
        assert np.abs(gradient - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize("stored", [np.uint8, np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("center", [3.0, 3000.0], ids=["folded", "standardised on the way"])
def test_scaled_rows_of_every_type_equal_the_cpus(accelerator, stored, center):
    X = (random((50, 4)) * 2 + center).clip(0, 255 if stored == np.uint8 else None).astype(stored)
    mean, scale = np.full(4, center), np.full(4, 2.0)
    network = gpubp.Network((4, 6, 3))
    options = {"scaling": Scaling("standard", mean, scale), "leaves": 4}
    y = labels(network, 50)
    found, gradient = evaluate(accelerator, network, X, y, **options)
    wanted, exact = evaluate(NumpyBackend(1), network, X, y, **options)
    assert found == pytest.approx(wanted, rel=1e-11)
    assert np.abs(gradient - exact).max() <= 1e-11 * np.abs(exact).max()


def test_rows_that_stream_give_the_bits_of_rows_that_stay(accelerator):
    network = gpubp.Network((7, 9, 3), activation="tanh")
    X, y = random((500, 7), np.float32), labels(network, 500)
    results = set()
    for kept in (0, 130, 500):
        J, gradient = evaluate(accelerator, network, X, y, precision="fp32", kept=kept, leaves=2, block_rows=64)
        results.add((J, gradient.tobytes()))
    assert len(results) == 1


@pytest.mark.gpu
def test_a_full_gpu_is_one_clear_line():
    accelerator = gpu()
    with pytest.raises(BackendError, match="--memory") as caught, accelerator.guard():
        accelerator.empty((1 << 50,), np.dtype(np.uint8))
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
def test_rows_that_do_not_fit_stay_on_the_host():
    accelerator = gpu()
    pool = importlib.import_module("cupy").get_default_memory_pool()
    host = random((1 << 16, 64), np.float32)  # 16 MiB
    with accelerator.guard():
        pool.free_all_blocks()
        pool.set_limit(size=(pool.used_bytes() + (8 << 20)) * 8 // 7)  # one part in eight stays free: 8 MiB are left
        try:
            kept = accelerator.resident(host)
        finally:
            pool.set_limit(size=0)
        assert 0 < len(kept) < len(host)
        np.testing.assert_array_equal(accelerator.to_host(kept), host[: len(kept)])


@pytest.mark.gpu
def test_a_kernel_that_does_not_build_says_what_the_compiler_said():
    from dataclasses import replace

    from gpubp.formula import Formula

    accelerator = gpu()
    broken = replace(plus, cuda="c = a + nothing")
    Formula.all.remove(broken)
    with accelerator.guard():
        array = accelerator.empty((4,), np.dtype(float))
        with pytest.raises(BackendError, match='"nothing" is undefined'):
            accelerator.apply(broken, array, array, out=array)
