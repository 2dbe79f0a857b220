"""An optimizer's vectors on a device, run on the CPU by the kernels' own text; and whole optimizers on them."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
import pytest
import suits
from gpu_on_host import GpuOnHost
from host_program import COMPILER
from suits import on

from gpubp import optimizers
from gpubp.backend import kernels
from gpubp.backend.cuda import vectors as room
from gpubp.backend.cuda.vector_kernels import ALL
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.optimizers.vectors import HOST
from gpubp.stopping import Stopping, Watch

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")

SIZES = [1, 2, 31, 4096, 4097, 100_003]


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
    ((found,),) = device.read(device.products([matrix], rows, vectors))
    (wanted,) = HOST.products([M], rows, vs)
    assert found.shape == wanted.shape == (count, len(rows))
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)
    # the same bits alone and among others
    for i, v in enumerate(vectors):
        ((alone,),) = device.read(device.products([matrix], rows, [v]))
        assert alone[0].tobytes() == found[i].tobytes()
    for j, row in enumerate(rows):
        assert device.read(device.dot(matrix[row], vectors[0])) == [found[0, j]]


def test_rows_that_do_not_follow_each_other_are_refused(device):
    (M,) = there(device, random(5, 10))
    with pytest.raises(ValueError, match="ring"):
        device.products([M], [0, 2], [M[0]])


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
    M = random(4, 600)
    M[2, 599] = math.nan
    M[1, 5] = math.inf
    matrix, w = there(device, M, np.ones(600))
    (((found,),),) = device.read(device.products([matrix], range(4), [w]))
    assert math.isinf(found[1]) and math.isnan(found[2]) and np.isfinite(found[[0, 3]]).all()
    device.put(np.full(3, 1e200), v)  # and overflow is no warning
    assert device.read(device.dot(v, v)) == [math.inf]
    device.move(v, 1e308, v, v)
    assert np.isinf(device.to_host(v)).all()


def test_more_numbers_than_there_is_room_for(device, monkeypatch):
    monkeypatch.setattr(room, "RESULTS", room.KEPT + 100)
    x, y = there(device, random(10), random(10, seed=1))
    asked = [device.dot(x, y) for _ in range(205)]
    assert len(set(device.read(*asked))) == 1 and device.waits == 3


def test_more_rows_than_a_launch_takes(device):
    M = random(300, 50)
    matrix, v = there(device, M, random(50, seed=1))
    ((found,),) = device.read(device.products([matrix], range(len(M)), [v, v]))
    np.testing.assert_allclose(found[1], M @ random(50, seed=1), rtol=1e-12, atol=1e-13)


def test_the_same_bits_on_any_grid(folder, monkeypatch):
    """However many blocks there are and however rows are shared among them; alone and among others."""
    M, v = random(5, 4097), random(4097, seed=1)
    found = set()
    for most, warps in itertools.product((1, 3, 1 << 16), (1, 13, 1 << 20)):
        monkeypatch.setattr(room, "MOST_BLOCKS", most)
        monkeypatch.setattr(room, "ENOUGH_WARPS", warps)
        vectors = GpuOnHost(folder).vectors()  # its memory is NaN: what is left out is noticed
        matrix, x, y, out = there(vectors, M, v, v[::-1].copy(), v)
        asked = vectors.products([matrix, matrix], [4, 0, 1], [x, y]), *vectors.dots((x, y), (x, x)), vectors.max_abs(x)
        vectors.combine(-1.0, 0.5, x, [(v[:5], matrix)], out)
        vectors.subtract(out, y, out)
        vectors.move(x, 0.3, out, out)
        found.add(b"".join(np.asarray(n).tobytes() for n in (*vectors.read(*asked), vectors.to_host(out))))
    assert len(found) == 1 and not any(np.isnan(np.frombuffer(found.pop())))


def test_numbers_of_vectors_of_any_length_and_of_others_in_any_order(device):
    a, b = random(600), random(5, seed=1)
    x, y = there(device, a, b)
    first = device.dot(x, x)
    foreign = device.numbers(2)
    device._device._work.add(lambda: foreign.array.__setitem__(slice(None), [7.0, 8.0]))
    third, second = device.sum_abs(x), device.dot(y, y)
    device.move(x, 1.0, x, x)  # what was asked for is of the vectors as they were
    fourth = device.max_abs(x)
    found = device.read(first, foreign[1], second, third, fourth, foreign[0])
    assert found == pytest.approx([a @ a, 8, b @ b, np.abs(a).sum(), 2 * np.abs(a).max(), 7], rel=1e-13)
    assert device.waits == 1


def test_more_partial_sums_than_there_is_room_for(device):
    x, y = there(device, random(1100), random(1100, seed=1))
    pairs = [(x, y), (x, x)] * (room.PARTIALS // 2 + 20)
    found = device.read(*device.dots(*pairs))
    assert found == [found[0], found[1]] * (len(pairs) // 2) and device.waits == 1
    assert found[1] == pytest.approx(random(1100) @ random(1100), rel=1e-13)


def test_what_is_saved_after_a_run_waits_for_the_device_s_own_stream(device, monkeypatch):
    """Rows are stored after the last number was read: to wait for another stream would be too early."""
    entered = []
    guard = type(device._device).guard

    @contextmanager
    def noted(backend):
        entered.append(True)
        with guard(backend):
            yield
        entered.pop()

    to_host = device._device.to_host
    monkeypatch.setattr(type(device._device), "guard", noted)
    monkeypatch.setattr(device._device, "to_host", lambda array: [entered.copy(), to_host(array)])
    (x,) = there(device, random(3))
    assert device.to_host(x)[0] == [True]


# Optimizers.


class Task:
    """A function that is told where its vectors live; on a device J comes later."""

    def __init__(self, vectors: Any, name: str = "logistic") -> None:
        self.vectors, self.J_and_gradient = vectors, {
            "logistic": self.logistic, "quadratic": self.quadratic, "rosenbrock": self.rosenbrock
        }[name]  # fmt: skip
        self.fail_at = 0
        rng = np.random.default_rng(4)
        self.X, self.t = rng.normal(size=(200, 40)), rng.integers(0, 2, 200) * 1.0

    def evaluated(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):  # of one that diverges the optimizer is to speak
            return self.J_and_gradient(Theta)

    def logistic(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = self.X @ Theta
        J = np.mean(np.logaddexp(0, z) - self.t * z) + 0.05 * Theta @ Theta
        return float(J), self.X.T @ (1 / (1 + np.exp(-z)) - self.t) / 200 + 0.1 * Theta

    def quadratic(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        A = np.logspace(0, 2, len(Theta))
        return float(A @ (Theta - 1) ** 2) / 2, A * (Theta - 1)

    def rosenbrock(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = Theta.reshape(2, -1)
        gradient = np.concatenate([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
        return float(np.sum(100 * (y - x * x) ** 2 + (1 - x) ** 2)), gradient

    def value_and_gradient(self, Theta: Any, out: Any) -> Any:
        self.fail_at -= 1
        if not self.fail_at:
            raise Broken
        if self.vectors is None:
            J, out[:] = self.evaluated(Theta)
            return J
        numbers, device = self.vectors.numbers(1), self.vectors._device

        def queued() -> None:
            numbers.array[0], out[:] = self.evaluated(Theta)

        device._work.add(queued)
        return numbers[0]


class Broken(Exception):
    """What an interrupted evaluation raises."""


START = {"logistic": np.zeros(40), "quadratic": np.cos(np.arange(9.0)), "rosenbrock": np.array([-1.2, 0.6, 1.0, 2.0])}
OPTIONS = {name: on(name, "quadratic") for name in suits.NAMES} | {"lbfgs": {"history": 4}}  # its ring is soon full
ARRIVES = dict.fromkeys(suits.WANDERING, 1e-3)  # slow ones; 1e-9 for the others
# those that need to know how J curves, which these functions do not tell: `test_curvature_gpu` has them
NAMES = [name for name in suits.NAMES if not suits.SUITS[name].needs_curvature]
each = pytest.mark.parametrize("name", NAMES)
# those of first order crawl along Rosenbrock's valley, and with a large α jump out of it
both = pytest.mark.parametrize(
    ("name", "task"), [(n, t) for n in NAMES for t in START if n not in ARRIVES or t != "rosenbrock"]
)


def bits(saved: dict[str, Any]) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in saved.items()}


def kept(state: Any) -> dict[str, Any]:
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.saved().items()}


@both
def test_an_optimizer_on_the_device_arrives_where_it_arrives_on_the_host(device, name, task):
    optimizer = optimizers.make(name, tolerance=ARRIVES.get(name, 1e-9), **OPTIONS[name])
    found = []
    for vectors in (None, device):
        f, ending = Task(vectors, task), None
        state = optimizer.init(f, START[task])
        early = (optimizer.step(f, state), state.J, state.steepest)
        while ending is None and state.iteration < 3000:
            ending = optimizer.step(f, state)
        arrived = ending is not None and ending.kind == "converged" and state.steepest <= optimizer.tolerance
        assert arrived, f"{ending}; {suits.advice(name, 'quadratic')}"
        assert f"{state.steepest:.3g}" in ending.reason
        found.append((early, state.J, state.Theta_on_host.copy()))
    (early, J, Theta), there = found
    assert early[0] is there[0][0] is None
    assert there[0][1:] == pytest.approx(early[1:], rel=1e-9)
    assert there[1] == pytest.approx(J, rel=1e-9, abs=1e-15)
    np.testing.assert_allclose(there[2], Theta, rtol=1e-7, atol=1e-7)


@each
def test_an_optimizer_goes_the_same_way_on_both(device, name):
    optimizer = optimizers.make(name, tolerance=1e-10)
    found = []
    for vectors in (None, device):
        f = Task(vectors)
        state = optimizer.init(f, START["logistic"])
        for _ in range(12):
            assert optimizer.step(f, state) is None
        found.append((state.J, state.steepest, state.evaluations, state.Theta_on_host.copy()))
    (J, steepest, evaluations, Theta), there = found
    assert there[0] == pytest.approx(J, rel=1e-9) and there[1] == pytest.approx(steepest, rel=1e-4)
    assert there[2] == evaluations
    np.testing.assert_allclose(there[3], Theta, rtol=1e-5, atol=1e-7)


@each
def test_one_wait_and_few_launches_for_an_evaluation(device, name):
    f, optimizer = Task(device, "quadratic"), optimizers.make(name, tolerance=0, **OPTIONS[name])
    Theta = np.cos(np.arange(300.0))
    state = optimizer.init(f, Theta)
    assert device.waits == 1
    optimizer.step(f, state)  # the first step is measured by the gradient's length
    waits, evaluations, launches = device.waits, state.evaluations, len(device._device.launches)
    for _ in range(50):  # far from rounding, where trials are accepted at once
        assert optimizer.step(f, state) is None
        assert state.steepest > 0 and state.J > 0
    evaluations = state.evaluations - evaluations
    assert device.waits - waits == evaluations
    assert len(device._device.launches) - launches <= 9 * evaluations


@both
def test_waits_are_hardly_more_than_evaluations_whatever_happens(device, name, task):
    optimizer = optimizers.make(name, tolerance=ARRIVES.get(name, 1e-5), **OPTIONS[name])
    f = Task(device, task)
    state, ending = optimizer.init(f, START[task]), None
    while ending is None and state.iteration < 3000:
        ending = optimizer.step(f, state)
    assert ending is not None and ending.kind == "converged", f"{ending}; {suits.advice(name, 'quadratic')}"
    assert device.waits <= state.evaluations + 2


@both
def test_a_run_restored_on_the_device_goes_on_bit_for_bit(device, folder, name, task):
    """Also where the first trial is not accepted, so that α depends on all bits of the slopes."""
    optimizer = optimizers.make(name, tolerance=1e-12, **OPTIONS[name])
    f = Task(device, task)
    state = optimizer.init(f, START[task])
    saved = [kept(state)]
    for _ in range(25):
        optimizer.step(f, state)
        saved.append(kept(state))
    if (name, task) == ("lbfgs", "rosenbrock"):
        assert state.evaluations > state.iteration + 3, "not all first trials were accepted"
    assert all(isinstance(v, np.ndarray | int | float | bool) for v in saved[0].values())
    other = Task(GpuOnHost(folder).vectors(), task)
    for here, there in itertools.pairwise(saved):
        again = optimizer.restore(other, here)
        assert bits(again.saved()) == bits(here)
        optimizer.step(other, again)
        assert bits(again.saved()) == bits(there)
    host = optimizer.restore(Task(None, task), saved[5])  # and the host can take it from there
    assert optimizer.step(Task(None, task), host) is None and host.iteration == 6


@both
def test_an_exception_leaves_the_state_on_the_device_as_it_was(device, name, task):
    optimizer = optimizers.make(name, tolerance=1e-12, **OPTIONS[name])
    f = Task(device, task)
    state = optimizer.init(f, START[task])
    expected = optimizer.init(Task(device, task), START[task])
    for step in range(12):
        before = kept(state)
        for at in (1, 2):  # the second evaluation of a step, if there is one
            f.fail_at = at
            try:
                optimizer.step(f, state)
                break
            except Broken:
                assert bits(state.saved()) == bits(before), (step, at)
        else:
            f.fail_at = 0
            optimizer.step(f, state)
        optimizer.step(Task(device, task), expected)
        assert bits(state.saved()) == bits(expected.saved())


def test_pairs_that_mislead_are_dropped_on_the_device_too(device):
    optimizer, f = optimizers.make("lbfgs", history=4), Task(device, "quadratic")
    state = optimizer.init(f, START["quadratic"])
    for _ in range(6):
        optimizer.step(f, state)
    state.rho[:] *= -1
    state.gamma *= -1  # H is now negative: −H∇J points up
    state.fresh, state.known = False, 0
    J = state.J
    assert optimizer.step(f, state) is None and state.J < J and state.pairs == 1
    while (ending := optimizer.step(f, state)) is None:
        pass
    assert ending.kind == "converged"


@pytest.mark.parametrize("name", ["lbfgs", "gd"])
def test_early_stopping_keeps_its_theta_on_the_device_and_goes_on_from_a_checkpoint(device, name):
    optimizer, f = optimizers.make(name, **OPTIONS[name]), Task(device, "quadratic")
    state = optimizer.init(f, START["quadratic"])
    watch, seen = Watch(Stopping(patience=9)), []
    watch.begin(state, "fp32", 4.0)
    for validation in (3.0, 1.0, 2.0, None):
        optimizer.step(f, state)
        watch.note(state, validation)
        seen.append(np.array(state.vectors.to_host(state.Theta)))
    assert watch.Theta_on_host(state).tobytes() == seen[1].tobytes() != seen[3].tobytes()
    again = Watch(Stopping(patience=9), (), {**watch.saved(), "Theta": seen[1]})
    again.begin(state, "fp32", None)
    assert again.saved() == watch.saved() and again.idle == 2
    assert again.Theta_on_host(state).tobytes() == seen[1].tobytes()


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC (pip install nvidia-cuda-nvrtc)")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_the_kernels_compile_and_keep_to_registers(arch):
    options = ("-ftz=true", "--device-as-default-execution-space", "--ptxas-options=-v")
    _, log = nvrtc.compile(kernels.program(*ALL), f"-arch={arch}", *kernels.OPTIONS, *options)
    used = nvrtc.memory(log)
    assert set(used) == {kernel.name for kernel in ALL} and not any(map(any, used.values()))


def test_a_place_that_is_written_in_every_replay(device):
    start = device.keep()
    place = device.results[start : start + 2]

    def write(*values: float) -> None:
        device._device._work.add(lambda: np.copyto(place, values))

    write(1, 2)
    first, waits = device.latest(start), device.waits
    other = device.numbers(1)
    device._device._work.add(lambda: other.array.fill(7))
    assert device.read(first[0], first[1], other[0]) == [1, 2, 7] and device.waits == waits + 1
    write(3, 4)
    lost = device.latest(start)
    write(5, 6)
    assert device.read(device.latest(start)[1], first[0]) == [6, 1]
    with pytest.raises(RuntimeError, match="an earlier evaluation"):
        float(lost[0])
    device.give_back(start)
    assert len({device.keep() for _ in range(room.KEPT // 2)}) == room.KEPT // 2
    with pytest.raises(RuntimeError, match="more than"):
        device.keep()
