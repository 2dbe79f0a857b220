"""The loop by itself, with an objective and an optimizer made for the purpose."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from gpubp.objective import Objective
from gpubp.optimizers import Ending, Function, Optimizer, State
from gpubp.optimizers.vectors import HOST, Vectors
from gpubp.training import StopRequest, fit


class Bowl:
    """J = Σ Θ²/2 with a validation cost that tells which Θ it was taken at."""

    validation_cost: float | None = None
    precision, threads, vectors = "fp64", 1, None
    guard = nullcontext

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
