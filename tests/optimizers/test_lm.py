"""Levenberg–Marquardt: its step, what it asks and what it is charged, and where things go wrong."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from zoo import ZOO, Curved, Noisy, Problem, rotated

from gpubp import optimizers
from gpubp.errors import UsageError
from gpubp.optimizers.lm import LevenbergMarquardt, damped, solve


class Counted:
    """A problem that counts what is asked of it."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.evaluations, self.matrices = problem, 0, 0

    @property
    def curvature(self) -> Curved:
        def matrix(Theta):
            self.matrices += 1
            return self.problem.gauss_newton(Theta)

        return Curved(matrix)

    def value_and_gradient(self, Theta, out):
        self.evaluations += 1
        return self.problem.value_and_gradient(Theta, out)


def test_the_first_step_solves_the_damped_equations():
    problem = ZOO[0]
    optimizer = LevenbergMarquardt(damping=0.1)
    state = optimizer.init(problem, np.array(problem.start))
    Theta, g = state.Theta.copy(), state.gradient.copy()
    optimizer.step(problem, state)
    B = rotated(Theta)
    mu = 0.1 * B.diagonal().max()
    np.testing.assert_allclose(state.Theta - Theta, np.linalg.solve(B + mu * np.eye(9), -g), rtol=1e-10)
    d = state.Theta - Theta
    ratio = -(g @ d + d @ B @ d / 2) / (d @ (mu * d - g) / 2)
    assert state.damping == pytest.approx(mu * max(1 / 3, 1 - (2 * min(ratio, 1) - 1) ** 3), rel=1e-10)


@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_a_matrix_serves_all_trials_of_an_iteration_and_all_is_charged(problem):
    f = Counted(problem)
    optimizer = optimizers.make("lm", damping=1e-6)
    state = optimizer.init(f, np.array(problem.start))
    while optimizer.step(f, state) is None:
        pass
    assert f.matrices == state.iteration
    assert state.evaluations == f.evaluations and state.extra == 2.0 * f.matrices
    assert state.passes == state.evaluations + state.extra
    if problem.name == "rosenbrock":
        assert f.evaluations > f.matrices + 1, "no trial failed: this test sees nothing"


@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_without_noise_j_never_rises_and_the_floor_of_rounding_is_said(problem):
    f = Noisy(problem)
    optimizer = optimizers.make("lm", noise=0.0, tolerance=0.0)
    state = optimizer.init(f, np.array(problem.start))
    costs, ending = [state.J], None
    for _ in range(3000):
        ending = optimizer.step(f, state)
        costs.append(state.J)
        if ending:
            break
    assert ending is not None and ending.kind == "stalled", ending
    assert all(there <= here for here, there in pairwise(costs))
    again = optimizer.step(f, optimizer.restore(f, state.saved()))
    assert again is not None and again.kind == "stalled"


def test_a_step_that_is_not_finite_is_shortened_or_ends_in_words():
    def wall(Theta):
        x = float(Theta[0])
        return (x - math.log(x), np.array([1 - 1 / x])) if x > 0 else (math.nan, np.array([math.nan]))

    problem = Problem("wall", wall, (3.0,), 1.0, lambda Theta: np.array([[1e-3]]))
    optimizer = optimizers.make("lm", damping=1e-3)
    state, ending = optimizer.init(problem, np.array([3.0])), None
    for _ in range(100):
        if ending := optimizer.step(problem, state):
            break
    assert ending is not None and ending.kind == "converged" and state.J == pytest.approx(1)

    def cliff(Theta):
        return (1.0, np.ones(1)) if Theta[0] == 3 else (math.inf, np.ones(1))

    problem = Problem("cliff", cliff, (3.0,), 1.0)
    state = optimizer.init(problem, np.array([3.0]))
    ending = optimizers.make("lm", max_trials=3).step(problem, state)
    assert ending is not None and ending.kind == "failed" and "3 trials" in ending.reason and "in 3 of" in ending.reason
    assert state.Theta[0] == 3 and state.evaluations == 4 and state.extra == 2


def test_a_matrix_that_is_not_finite_ends_the_run_in_words():
    problem = Problem("bad", ZOO[0].J_and_gradient, ZOO[0].start, 3.0, lambda Theta: np.full((9, 9), math.nan))
    optimizer = optimizers.make("lm")
    state = optimizer.init(problem, np.array(problem.start))
    ending = optimizer.step(problem, state)
    assert ending is not None and ending.kind == "failed" and "matrix is not finite" in ending.reason


@pytest.mark.parametrize("name", ["lm", "gn"])
def test_a_function_that_does_not_tell_how_it_curves_is_refused(name):
    class Plain:
        def value_and_gradient(self, Theta, out):
            return ZOO[0].value_and_gradient(Theta, out)

    with pytest.raises(
        UsageError, match=f"does not tell how it curves; wanted one with `curvature` for {name}; .*lbfgs"
    ):
        optimizers.make(name).init(Plain(), np.zeros(9))


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 200])
def test_the_triangular_solve(n):
    A = np.random.default_rng(n).normal(size=(n, n + 3))
    B = A @ A.T
    b = np.arange(1.0, n + 1)
    np.testing.assert_allclose(B @ solve(np.linalg.cholesky(B), b), b, rtol=1e-6)


def test_a_matrix_that_rounding_made_indefinite_is_damped_until_it_is_not():
    B = np.diag([1.0, -1e-9])
    d, mu = damped(B, np.array([1.0, 1.0]), 1e-12)
    assert 1e-9 < mu <= 1e-7 and np.all(d < 0)
    assert damped(B, np.ones(2), 1e-3)[1] == 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"damping": 0}, "^damping = 0.0; wanted above 0$"),
        ({"rows_per_parameter": -1}, "^rows_per_parameter = -1; wanted 0 or more$"),
        ({"max_trials": 0}, "^max_trials = 0; wanted 1 or more$"),
        ({"noise": -0.5}, "^noise = -0.5; wanted 0 or more, below 1$"),
        ({"patience": 0}, "^patience = 0; wanted 1 or more$"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UsageError, match=words):
        optimizers.make("lm", **options)
