"""The loop by itself, with an objective and an optimizer made for the purpose."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from gpubp.communicator import Solo
from gpubp.errors import OutOfMemory
from gpubp.job import Job
from gpubp.objective import Objective
from gpubp.optimizers import Ending, Function, Optimizer, State, names
from gpubp.optimizers.vectors import HOST, Vectors
from gpubp.prepare import array_dataset
from gpubp.run import resume, start
from gpubp.training import StopRequest, fit


class Bowl:
    """J = Σ Θ²/2 with a validation cost that tells which Θ it was taken at."""

    validation_cost: float | None = None
    precision, threads, vectors = "fp64", 1, None
    guard = nullcontext
    communicator = Solo()

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        out[:] = Theta
        self.validation_number = 100 + float(Theta[0])
        return float(Theta @ Theta) / 2


BOWL = cast(Objective, Bowl())


@dataclass(frozen=True, kw_only=True)
class TriesTwo(Optimizer[State]):
    """Halves Θ, then looks at a worse point, and commits to the first."""

    def blank(self, P: int, vectors: Vectors = HOST) -> State:
        return State(Theta=np.zeros(P), gradient=np.zeros(P))

    def advance(self, f: Function, state: State) -> Ending | None:
        Theta, gradient = state.Theta / 2, np.zeros_like(state.Theta)
        J = f.value_and_gradient(Theta, gradient)
        f.value_and_gradient(state.Theta * 3, np.zeros_like(gradient))
        state.Theta, state.gradient, state.J = Theta, gradient, J
        state.evaluations += 2
        state.iteration += 1
        return None


def test_the_validation_cost_belongs_to_the_accepted_point():
    seen: list[Any] = []
    fit(BOWL, TriesTwo(), np.array([4.0]), iterations=2, callbacks=[lambda p, s: seen.append(p.validation)])
    assert seen == [102.0, 101.0]


def test_a_request_to_stop_gives_up_the_step_in_flight_and_nothing_else():
    stop = StopRequest()

    def ask(progress, state) -> None:
        stop.by = "SIGTERM" if progress.iteration == 3 else None

    ending, state = fit(BOWL, TriesTwo(), np.array([64.0]), iterations=10, callbacks=[ask], stop=stop)
    assert ending.kind == "stopped" and "SIGTERM after 3 iterations" in ending.reason
    assert state is not None and state.Theta.tolist() == [8.0] and state.iteration == 3


def test_a_stop_before_the_first_evaluation_leaves_no_state():
    stop = StopRequest()
    stop.by = "SIGINT"
    ending, state = fit(BOWL, TriesTwo(), np.array([1.0]), iterations=10, stop=stop)
    assert ending.kind == "stopped" and state is None


@pytest.mark.parametrize(("start", "kind"), [([1.0], "limit"), ([4e-5], "converged")])
def test_the_limit_says_whether_it_has_converged(start, kind):
    ending, state = fit(BOWL, TriesTwo(), np.array(start), iterations=2)
    assert ending.kind == kind and "max|∇J| =" in ending.reason
    assert state is not None and state.iteration == 2


def test_a_second_ctrl_c_interrupts_at_once():
    import os
    import signal

    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.by == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@dataclass(frozen=True, kw_only=True)
class WritesInPlace(TriesTwo):
    """The same Θ's, written over those before."""

    def advance(self, f: Function, state: State) -> Ending | None:
        Theta = state.Theta
        super().advance(f, state)
        Theta[:] = state.Theta
        state.Theta = Theta
        return None


@pytest.mark.parametrize("optimizer", [TriesTwo(), WritesInPlace()])
def test_the_step_is_how_far_theta_went(optimizer):
    seen: list[Any] = []
    fit(BOWL, optimizer, np.array([6.0, 8.0]), iterations=3, callbacks=[lambda p, s: seen.append(p.step)])
    assert seen == [5.0, 2.5, 1.25]  # from (6, 8) to (3, 4), …


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("call", ["copy", "subtract", "dot"])
def test_a_device_that_is_full_over_the_step_costs_no_iteration(monkeypatch, room, call):
    """Where rows can make room it is the same number; where not, the iteration has its line before the run ends."""
    full, before = [3], getattr(HOST, call)

    def sometimes(*arguments: Any, **more: Any) -> Any:
        if full:
            full[0] -= 1
            if full[0] <= 0:
                raise OutOfMemory("full")
        return before(*arguments, **more)

    class Full(Bowl):
        can_make_room = room

        def make_room(self, why: str) -> None:
            full.clear()

    seen: list[Any] = []
    state = State(Theta=np.zeros(2), gradient=np.zeros(2))
    monkeypatch.setattr(type(state.vectors), call, lambda self, *a, **m: sometimes(*a, **m))
    with nullcontext() if room else pytest.raises(OutOfMemory):
        fit(cast(Objective, Full()), TriesTwo(), np.array([6.0, 8.0]), iterations=3,
            callbacks=[lambda p, s: seen.append((p.iteration, p.step))])  # fmt: skip
    if room:
        assert seen == [(1, 5.0), (2, 2.5), (3, 1.25)] and not full
    else:  # the third step has not begun, or has no length
        assert seen == [(1, 5.0), (2, 2.5)] + ([] if call == "copy" else [(3, None)])


@pytest.mark.parametrize("optimizer", names())
def test_the_step_of_every_optimizer_and_of_a_run_that_goes_on(optimizer, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    rows = array_dataset(X, (X[:, 0] * X[:, 1] > 0).astype(int))
    seen: list[np.ndarray] = []
    job = Job(hidden=(4,), iterations=6, optimizer=optimizer, backend="cpu", kernel="numpy", checkpoint_every="1it")

    def note(progress: Any, state: State) -> None:
        seen.append(np.array(state.Theta))

    whole = start(job, tmp_path / "whole", dataset=rows, callbacks=[note])
    for row, before, after in zip(whole.history[1:], seen, seen[1:], strict=False):
        assert row["step"] == pytest.approx(np.linalg.norm(after - before), rel=1e-12)
    start(job, tmp_path / "cut", dataset=rows, callbacks=[lambda progress, state: progress.iteration == 3])
    resumed = resume(tmp_path / "cut", dataset=rows)
    assert [row["step"] for row in resumed.history] == [row["step"] for row in whole.history]
    assert whole.history[0]["step"] == np.linalg.norm(seen[0] - whole.network.initial_Theta(0))
