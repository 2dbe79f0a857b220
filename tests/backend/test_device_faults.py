"""What happens where a device is full or fails: nothing is lost, left running, or taken for something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gpu_on_host import GpuOnHost
from host_program import COMPILER
from test_engine import UNSCALED, rows_of, theta

import gpubp
from gpubp import optimizers
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.data.rows import Rows
from gpubp.data.source import ArrayRows
from gpubp.errors import BackendError, OutOfMemory
from gpubp.objective import Objective
from gpubp.optimizers.base import Optimizer
from gpubp.training import fit

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (g++ or clang++)")

NETWORK = gpubp.Network((5, 6, 3))


def objective(backend: GpuOnHost, m: int = 60, **options: Any) -> Objective:
    return Objective(NETWORK, rows_of(NETWORK, m), 0.3, backend=backend, **{"precision": "fp32", **options})


def on_the_device(backend: GpuOnHost) -> tuple[DeviceVectors, Any, Any]:
    """The space of vectors, Θ and a place for ∇J there."""
    vectors = backend.vectors()
    Theta, gradient = vectors.zeros(NETWORK.P), vectors.zeros(NETWORK.P)
    vectors.put(theta(NETWORK), Theta)
    return vectors, Theta, gradient


def test_places_among_the_results_are_given_back(folder):
    backend = GpuOnHost(folder, "layered")
    free = len(backend.vectors()._free)
    made = objective(backend)
    made.make_room("full")
    assert len(backend.vectors()._free) == free - 1
    for _ in range(2):
        made.close()
        assert len(backend.vectors()._free) == free
    refused = GpuOnHost(folder, "fused")
    with pytest.raises(BackendError, match="fused kernel"):
        objective(refused)
    assert len(refused.vectors()._free) == free


def test_a_number_that_nobody_read_is_not_taken_for_the_next_objectives(folder):
    backend = GpuOnHost(folder, "layered")
    vectors, Theta, gradient = on_the_device(backend)
    first = objective(backend)
    unread = first.value_and_gradient(Theta, gradient)
    first.close()
    for _ in range(len(vectors._free) - 1):
        vectors.keep()  # so that the next objective gets the first one's place
    second = objective(backend, 30)
    assert np.isfinite(float(second.value_and_gradient(Theta, gradient)))
    with pytest.raises(RuntimeError, match="an earlier evaluation"):
        float(unread)
    second.close()


def test_a_number_is_read_where_the_work_is_in_order(folder, monkeypatch):
    """Outside of the guard another stream is the current one, and that does not wait for ours."""
    backend = GpuOnHost(folder, "layered")
    vectors, Theta, gradient = on_the_device(backend)
    made = objective(backend)
    J = made.value_and_gradient(Theta, gradient)
    inside, seen = [], []
    guard, to_host = GpuOnHost.guard, backend.to_host

    @contextmanager
    def noted(self: GpuOnHost) -> Iterator[None]:
        inside.append(1)
        with guard(self):
            yield
        inside.pop()

    monkeypatch.setattr(GpuOnHost, "guard", noted)
    monkeypatch.setattr(backend, "to_host", lambda array: (seen.append(bool(inside)), to_host(array))[1])
    float(J)
    vectors.to_host(gradient)
    assert seen == [True, True]
    made.close()


@pytest.mark.parametrize("operation", ["products", "dot", "combine"])
def test_a_step_that_finds_the_device_full_is_taken_again(folder, monkeypatch, operation):
    optimizer = optimizers.make("lbfgs", tolerance=0.0, history=4)
    _, wanted = fit(objective(GpuOnHost(folder, "layered")), optimizer, theta(NETWORK), iterations=6)
    made, real, calls = objective(GpuOnHost(folder, "layered")), getattr(DeviceVectors, operation), []

    def full_once(self: DeviceVectors, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise OutOfMemory("the GPU of the test is full", do="nothing")
        return real(self, *arguments, **more)

    monkeypatch.setattr(DeviceVectors, operation, full_once)
    _, found = fit(made, optimizer, theta(NETWORK), iterations=6)
    assert wanted is not None and found is not None and len(calls) > 4
    assert found.Theta_on_host.tobytes() == wanted.Theta_on_host.tobytes()
    assert made.resident_rows == 30
    made.close()


def test_a_climb_that_finds_the_device_full_is_made_again(folder, monkeypatch):
    backend, objectives = GpuOnHost(folder, "layered"), []
    renew, full = Optimizer.renew, [True]

    def climb(precision: str) -> Objective:
        objectives[-1].close()
        objectives.append(objective(backend, precision=precision))
        return objectives[-1]

    def once(self: Any, f: Any, state: Any) -> None:
        if full and full.pop():
            raise OutOfMemory("the GPU of the test is full", do="nothing")
        renew(self, f, state)

    monkeypatch.setattr(Optimizer, "renew", once)
    objectives.append(objective(backend))
    optimizer = optimizers.make("lbfgs", tolerance=0.0, patience=1)
    _, state = fit(objectives[0], optimizer, theta(NETWORK), iterations=300, climb=climb)
    assert state is not None and not full and len(objectives) == 2 and objectives[1].resident_rows == 30
    objectives[1].close()


def test_rows_that_a_caller_made_on_the_device_are_not_given_up(folder):
    backend = GpuOnHost(folder, "layered")
    rows = rows_of(NETWORK, 60)
    there = Rows(ArrayRows(np.asarray(rows.kept)), backend.upload(rows.kept), UNSCALED, rows.labels)
    made = Objective(NETWORK, there, 0.3, backend=backend, precision="fp32")
    assert not made.can_make_room
    backend.fail_at = 1
    with pytest.raises(OutOfMemory):
        made._pass._with_room(lambda: backend.empty((1,), np.dtype(float)))
    made.close()


def test_a_device_that_fails_leaves_no_thread(folder, monkeypatch):
    backend = GpuOnHost(folder, "layered")
    backend.room = 0
    made = objective(backend, leaves=4, block_rows=5)
    made.value_and_gradient(theta(NETWORK), np.zeros(NETWORK.P))
    thread, free = made._pass._engine._pass.conveyor._thread, len(backend.vectors()._free)
    assert thread.is_alive()

    def broken() -> Any:
        raise BackendError("the GPU of the test is broken")

    monkeypatch.setattr(backend, "mark", broken)
    with pytest.raises(BackendError, match="broken"):
        made.close()
    assert not thread.is_alive() and len(backend.vectors()._free) == free + 1
