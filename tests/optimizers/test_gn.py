"""Gauss–Newton by conjugate gradients: its direction against the dense solution, its preconditioner, its charges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from zoo import ZOO, Curved, Problem, rotated

from gpubp import optimizers
from gpubp.errors import UsageError
from gpubp.optimizers.curvature import Factors, Layer
from gpubp.optimizers.gn import GaussNewton

SCALES = np.logspace(0, 5, 12)


def stretched(Theta):
    """½ Θᵀ S Θ + Θ₀⁴/100, nearly diagonal, with S over five decades."""
    B = of_stretched(Theta)
    return Theta @ B @ Theta / 2, B @ Theta


def of_stretched(Theta):
    root = np.sqrt(SCALES)
    return np.outer(root, root) * (np.eye(12) + 0.05)


class Factored:
    """`stretched` as one layer of 3 units with 3 inputs and a bias, whose factors have the right diagonal."""

    curvature: Curved

    def __init__(self) -> None:
        self.problem = Problem("stretched", stretched, tuple(np.ones(12)), 0.0, of_stretched)
        A, G = SCALES[[0, 1, 2, 3]], SCALES[[0, 4, 8]] / SCALES[0]

        class Known(Curved):
            layers = (Layer(slice(0, 9), slice(9, 12), 3, 3, (False, True)),)
            factored = True
            operations = math.inf  # the arithmetic on vectors is free

            def factors(self, Theta, draw):
                return Factors([A], [np.diag(G)], 0.5)

        self.places = np.concatenate([np.outer(G, A[1:]).ravel(), G * A[0]])
        self.order = np.argsort(np.argsort(self.places))
        self.curvature = Known(lambda Theta: of_stretched(Theta)[np.ix_(self.order, self.order)])

    def value_and_gradient(self, Theta, out):
        B = self.curvature.matrix(Theta)
        out[:] = B @ Theta
        return float(Theta @ B @ Theta / 2)


@pytest.mark.parametrize("warm", [False, True])
def test_the_direction_is_the_dense_one_if_cg_may_go_on(warm):
    problem = ZOO[0]
    optimizer = GaussNewton(damping=0.5, progress=1e-12, most_products=40)
    state = optimizer.init(problem, np.array(problem.start))
    if warm:
        state.iteration, state.last = 1, np.sin(np.arange(9.0))
    aim = optimizer.aim(problem, state)
    B = rotated(state.Theta)
    wanted = np.linalg.solve(B + 0.5 * np.eye(9), -state.gradient)
    np.testing.assert_allclose(state.direction, wanted, rtol=1e-8)
    assert aim is not None and aim == (pytest.approx(state.gradient @ wanted), 1.0)
    assert state.curve == pytest.approx(wanted @ B @ wanted)
    assert state.spent >= 9 + warm


def test_products_are_limited_and_charged():
    problem = ZOO[0]
    for most in (1, 3):
        optimizer = GaussNewton(most_products=most, progress=1e-12)
        state = optimizer.init(problem, np.array(problem.start))
        for n in range(1, 4):
            assert optimizer.step(problem, state) is None
            assert state.extra == most * n and state.passes == state.evaluations + state.extra


def test_the_factors_shorten_cg_and_is_charged():
    f = Factored()
    np.testing.assert_allclose(np.sort(f.places), SCALES)
    plain = Problem("plain", lambda T: (f.value_and_gradient(T, o := np.empty(12)), o), (), 0, f.curvature.matrix)
    spent = {}
    for kind, it in (("plain", plain), ("factored", f)):
        optimizer = GaussNewton(damping=1e-6, progress=1e-3, most_products=100)
        state = optimizer.init(it, np.ones(12))
        optimizer.aim(it, state)
        wanted = np.linalg.solve(f.curvature.matrix(state.Theta) + 1e-6 * np.eye(12), -state.gradient)
        spent[kind] = state.spent
        assert state.gradient @ state.direction <= 0.9 * (state.gradient @ wanted)
    assert spent["factored"] % 1 == 0.5
    assert spent["factored"] < 0.8 * spent["plain"]


def test_the_damping_follows_what_was_promised():
    def steeper(Theta):  # than its matrix says
        return float(50 * Theta @ Theta), 100 * Theta

    optimizer = GaussNewton(damping=1.0)
    for matrix, up in ((np.eye(3), True), (100 * np.eye(3), False)):
        problem = Problem("steeper", steeper, (1.0, 1.0, 1.0), 0.0, lambda Theta, matrix=matrix: matrix)
        state = optimizer.init(problem, np.ones(3))
        optimizer.step(problem, state)
        assert state.damping == pytest.approx(1.5 if up else 2 / 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"damping": 0}, "^damping = 0.0; wanted above 0$"),
        ({"most_products": 0}, "^most_products = 0; wanted 1 or more$"),
        ({"decay": 1.5}, "^decay = 1.5; wanted a number from 0 to 1$"),
        ({"progress": 0}, "^progress = 0.0; wanted a number between 0 and 1$"),
        ({"c1": 0}, "^c1 = 0.0; wanted a number between 0 and 1$"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(UsageError, match=words):
        optimizers.make("gn", **options)
