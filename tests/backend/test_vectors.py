"""An optimizer's vectors on a device, run on the CPU by the kernels' own text; and whole optimizers on them."""

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
from gpubp.backend.cuda import vectors as room
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.optimizers.vectors import HOST

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")

SIZES = [1, 2, 31, 4096, 4097, 100_003]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def device(folder: Path) -> DeviceVectors:
    return GpuOnHost(folder).vectors()


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def there(vectors: DeviceVectors, *hosts: np.ndarray) -> list[Any]:
    arrays = []
    for host in hosts:
        arrays.append(vectors.zeros(*host.shape))
        vectors.put(host, arrays[-1])
    return arrays


@pytest.mark.parametrize("P", SIZES)
def test_sums_and_differences(device, P):
    a, b = random(P), random(P, seed=1)
    x, y, out = there(device, a, b, np.zeros(P))
    device.move(x, 0.3, y, out)
    np.testing.assert_allclose(device.to_host(out), a + 0.3 * b, rtol=1e-15, atol=1e-16)
    device.subtract(x, y, out)
    assert np.array_equal(device.to_host(out), a - b)
    device.copy(x, out)
    assert np.array_equal(device.to_host(out), a)


@pytest.mark.parametrize("P", SIZES)
def test_numbers(device, P):
    a, b = random(P), random(P, seed=1)
    x, y = there(device, a, b)
    before = device.waits
    found = device.read(device.dot(x, y), device.max_abs(x), device.sum_abs(y), 7.0, device.dot(x, x))
    assert device.waits == before + 1, "one wait for all of them"
    assert found[0] == pytest.approx(math.fsum(a * b), rel=1e-12, abs=1e-12)
    assert found[1] == np.abs(a).max() and found[3] == 7.0
    assert found[2] == pytest.approx(math.fsum(np.abs(b)), rel=1e-13)
    assert device.read(found[4]) == [pytest.approx(math.fsum(a * a), rel=1e-13)]
    assert device.waits == before + 1, "what is there costs nothing"


@pytest.mark.parametrize("P", SIZES)
@pytest.mark.parametrize("rows", [[], [0], [2, 3], [3, 4, 0, 1, 2]])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_products_of_rows_in_a_ring_with_a_few_vectors(device, P, rows, count):
    M, vs = random(5, P), [random(P, seed=2 + i) for i in range(count)]
    matrix, *vectors = there(device, M, *vs)
    (found,) = device.read(device.products(matrix, rows, vectors))
    wanted = HOST.products(M, rows, vs)
    assert found.shape == wanted.shape == (count, len(rows))
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)
    # the same bits alone and among others
    for i, v in enumerate(vectors):
        (alone,) = device.read(device.products(matrix, rows, [v]))
        assert alone[0].tobytes() == found[i].tobytes()
    for j, row in enumerate(rows):
        assert device.read(device.dot(matrix[row], vectors[0])) == [found[0, j]]


def test_rows_that_do_not_follow_each_other_are_refused(device):
    (M,) = there(device, random(5, 10))
    with pytest.raises(ValueError, match="ring"):
        device.products(M, [0, 2], [M[0]])


@pytest.mark.parametrize("P", SIZES)
def test_a_sum_of_rows(device, P):
    a, M, N = random(P), random(4, P, seed=1), random(3, P, seed=2)
    p, q = np.array([0.5, 0.0, -2.0, 1e-3]), np.array([0.0, 3.0, 1.0])
    N[0] = np.nan  # a row that is not used yet may hold anything
    x, S, Y, out = there(device, a, M, N, np.zeros(P))
    device.combine(-1.0, 0.7, x, ((p, S), (q, Y)), out)
    np.testing.assert_allclose(device.to_host(out), -(0.7 * a + p @ M + q[1:] @ N[1:]), rtol=1e-12, atol=1e-14)
    device.combine(1.0, 2.0, x, (), out)
    assert np.array_equal(device.to_host(out), 2 * a)


def test_what_is_not_finite_stays_so(device):
    (v,) = there(device, np.array([1.0, -math.inf, 2.0]))
    assert device.read(device.max_abs(v), device.sum_abs(v)) == [math.inf, math.inf]
    for at in range(3):
        host = np.array([1.0, -5.0, 2.0])
        host[at] = math.nan
        device.put(host, v)
        assert all(math.isnan(n) for n in device.read(device.max_abs(v), device.dot(v, v)))
    device.put(np.full(3, 1e200), v)
    assert device.read(device.dot(v, v)) == [math.inf]


def test_more_numbers_than_there_is_room_for(device):
    x, y = there(device, random(10), random(10, seed=1))
    asked = [device.dot(x, y) for _ in range(room.RESULTS + 5)]
    assert len(set(device.read(*asked))) == 1


def test_more_rows_than_a_launch_takes(device):
    M = random(room.MOST_ROWS + 40, 50)
    matrix, v = there(device, M, random(50, seed=1))
    (found,) = device.read(device.products(matrix, range(len(M)), [v, v]))
    np.testing.assert_allclose(found[1], M @ random(50, seed=1), rtol=1e-12, atol=1e-13)


# Optimizers.


class Task:
    """A smooth function of 40 variables that is told where its vectors live; on a device J comes later."""

    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors
        rng = np.random.default_rng(4)
        self.X, self.t = rng.normal(size=(200, 40)), rng.integers(0, 2, 200) * 1.0

    def J_and_gradient(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = self.X @ Theta
        J = np.mean(np.logaddexp(0, z) - self.t * z) + 0.05 * Theta @ Theta
        return float(J), self.X.T @ (1 / (1 + np.exp(-z)) - self.t) / 200 + 0.1 * Theta

    def value_and_gradient(self, Theta: Any, out: Any) -> Any:
        if self.vectors is None:
            J, out[:] = self.J_and_gradient(Theta)
            return J
        numbers, device = self.vectors.numbers(1), self.vectors._device

        def queued() -> None:
            numbers.array[0], out[:] = self.J_and_gradient(Theta)

        device._work.add(queued)
        return numbers[0]


@pytest.mark.parametrize("name", optimizers.names())
def test_an_optimizer_on_the_device_goes_the_way_it_goes_on_the_host(device, name):
    optimizer = optimizers.make(name, tolerance=1e-10)
    found = []
    for vectors in (None, device):
        f = Task(vectors)
        state = optimizer.init(f, np.zeros(40))
        for _ in range(12):
            assert optimizer.step(f, state) is None
        found.append((state.J, state.steepest, state.evaluations, state.Theta_on_host.copy()))
    (J, steepest, evaluations, Theta), there = found
    assert there[0] == pytest.approx(J, rel=1e-9) and there[1] == pytest.approx(steepest, rel=1e-4)
    assert there[2] == evaluations
    np.testing.assert_allclose(there[3], Theta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", optimizers.names())
def test_one_wait_for_an_evaluation(device, name):
    f, optimizer = Task(device), optimizers.make(name, tolerance=0)
    before = device.waits
    state = optimizer.init(f, np.zeros(40))
    assert device.waits == before + 1
    optimizer.step(f, state)  # the first step is measured by the gradient's length
    before, evaluations = device.waits, state.evaluations
    for _ in range(12):  # far from rounding, where trials are accepted at once
        assert optimizer.step(f, state) is None
        assert state.steepest > 0 and state.J > 0
    assert device.waits - before == state.evaluations - evaluations


@pytest.mark.parametrize("name", optimizers.names())
def test_a_run_restored_on_the_device_goes_on_bit_for_bit(device, folder, name):
    optimizer = optimizers.make(name, tolerance=1e-12, **({"history": 4} if name == "lbfgs" else {}))
    f = Task(device)
    state = optimizer.init(f, np.zeros(40))
    saved = []
    for _ in range(10):
        saved.append({k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.saved().items()})
        optimizer.step(f, state)
    assert all(isinstance(v, np.ndarray | int | float | bool) for v in saved[0].values())
    for i, here in enumerate(saved[:-1]):
        other = Task(GpuOnHost(folder).vectors())
        again = optimizer.restore(other, here)
        optimizer.step(other, again)
        for key, value in again.saved().items():
            assert np.asarray(value).tobytes() == np.asarray(saved[i + 1][key]).tobytes(), key
    host = optimizer.restore(Task(None), saved[5])  # and the host can take it from there
    assert optimizer.step(Task(None), host) is None and host.iteration == 6


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_kernels_compile_and_keep_to_registers(arch):
    options = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")
    _, log = nvrtc.compile(kernels.program(*room.ALL), f"-arch={arch}", *kernels.OPTIONS, *options)
    used = nvrtc.memory(log)
    assert set(used) == {kernel.name for kernel in room.ALL} and not any(map(any, used.values()))
