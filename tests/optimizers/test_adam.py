"""Adam against Algorithm 1 of its paper, written once more number by number, and against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from zoo import ZOO, Problem

from gpubp import optimizers

PROBLEMS = {problem.name: problem for problem in ZOO}

# Θ after 1, 10 and 100 steps from the zoo's starts by scikit-learn 1.9.1's AdamOptimizer, learning_rate_init = 0.01,
# β₁ = 0.9, β₂ = 0.999 and ε = 1e-300: its ε is added to the root before the correction, so only one that does not
# count can be compared.
SKLEARN = {
    "beale": {
        1: (1.0, 0.99),
        10: (1.0820351019618735, 0.9006167050578772),
        100: (2.0435638831916316, 0.32588815522680037),
    },
    "rosenbrock": {
        1: (-1.19, 1.01),
        10: (-1.104955542059695, 1.095334617215433),
        100: (-1.0435756023954217, 1.0938826629544864),
    },
}


@pytest.mark.parametrize("name", SKLEARN)
def test_it_goes_where_scikit_learn_s_goes(name):
    problem, optimizer = PROBLEMS[name], optimizers.make("adam", epsilon=1e-300)
    state = optimizer.init(problem, np.array(problem.start))
    for k in range(1, 101):
        assert optimizer.step(problem, state) is None
        if k in SKLEARN[name]:
            assert state.Theta == pytest.approx(SKLEARN[name][k], rel=1e-9)


def test_every_number_is_that_of_the_paper():
    problem, alpha, beta1, beta2, epsilon = PROBLEMS["himmelblau"], 0.1, 0.7, 0.9, 0.5
    optimizer = optimizers.make("adam", learning_rate=alpha, beta1=beta1, beta2=beta2, epsilon=epsilon)
    state = optimizer.init(problem, np.array(problem.start))
    theta, m, v = list(problem.start), [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 30):
        gradient = problem.J_and_gradient(np.array(theta))[1].tolist()
        for i, g in enumerate(gradient):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            corrected_m, corrected_v = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            theta[i] -= alpha * corrected_m / (math.sqrt(corrected_v) + epsilon)
        optimizer.step(problem, state)
        assert state.Theta == pytest.approx(theta, rel=1e-9)
        assert state.m == pytest.approx(m, rel=1e-9, abs=1e-12) and state.v == pytest.approx(v, rel=1e-9)


def test_on_a_slope_that_is_everywhere_the_same_every_step_is_alpha():
    """The corrected moments are g and g² from the first step on, whatever the β."""
    g = np.array([3.0, -1e-3, 5e4])
    plane = Problem("plane", lambda Theta: (g @ Theta, g), (), -math.inf)
    optimizer = optimizers.make("adam", learning_rate=0.25, epsilon=1e-12)
    state = optimizer.init(plane, np.zeros(3))
    for k in range(1, 20):
        optimizer.step(plane, state)
        assert state.Theta == pytest.approx(-0.25 * k * np.sign(g), rel=1e-8)


def test_a_finer_function_after_a_detour_begins_anew():
    problem = PROBLEMS["beale"]
    optimizer = optimizers.make("adam", learning_rate=1)
    state = optimizer.init(problem, np.array(problem.start))
    while not state.earlier_J < state.J:
        optimizer.step(problem, state)
    Theta = state.best[0].copy()
    optimizer.renew(problem, state)
    assert (state.age, state.m.any(), state.v.any()) == (0, False, False)
    fresh = optimizer.init(problem, Theta)
    optimizer.step(problem, state)
    optimizer.step(problem, fresh)
    assert np.array_equal(state.Theta, fresh.Theta)
