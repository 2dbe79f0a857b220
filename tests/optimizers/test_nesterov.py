"""Nesterov's gradient in its two writings, and what restarts are worth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from zoo import ZOO, Problem, quadratic

from gpubp import optimizers
from gpubp.optimizers.nesterov import Nesterov

PROBLEMS = {problem.name: problem for problem in ZOO}
STRAIGHT = Problem("quadratic", quadratic, (), 3.0)

# Θ after 1, 10 and 100 steps from the zoo's starts by scikit-learn 1.9.1's SGDOptimizer on the exact gradient,
# learning_rate_init = 0.001, momentum = 0.9 and nesterov = True.
SKLEARN = {
    "beale": {
        1: (1.0, 0.947275),
        10: (1.17419433220414, 0.222776327441971),
        100: (2.4772384754115255, 0.3375483093740001),
    },
    "rosenbrock": {
        1: (-0.79036, 1.1672),
        10: (-0.8799183284394607, 0.7819461813465749),
        100: (0.45708693028110053, 0.20592697065626037),
    },
}


class Constant(Nesterov):
    """One μ for all steps, so that a restart changes nothing either."""

    def mu(self, k: int) -> float:
        return self.momentum


class Never(Nesterov):
    """Without restarts."""

    def learn(self, state, J, asked):
        since = state.since
        super().learn(state, J, asked)
        state.since = since + 1


@pytest.mark.parametrize("name", SKLEARN)
def test_with_one_momentum_it_goes_where_scikit_learn_s_goes(name):
    problem, optimizer = PROBLEMS[name], Constant(learning_rate=0.001, momentum=0.9)
    state = optimizer.init(problem, np.array(problem.start))
    for k in range(1, 101):
        assert optimizer.step(problem, state) is None
        if k in SKLEARN[name]:
            assert state.Theta == pytest.approx(SKLEARN[name][k], rel=1e-9)


def test_it_is_the_paper_s_step_seen_from_where_the_gradient_is_taken():
    """Sutskever et al. eq. 3 and 4: v ← μ v − α ∇J(θ + μ v), θ ← θ + v. Our Θ is θ + μ v."""
    optimizer = Never(learning_rate=0.004, momentum=0.93)
    state = optimizer.init(STRAIGHT, np.zeros(9))
    theta, v = np.zeros(9), np.zeros(9)
    mus = [0.0, *(min(1 - 3 / (k + 5), 0.93) for k in range(1, 80))]
    assert mus[1] == 0.5 and mus[38] == 0.93 > mus[37]
    for mu, next_mu in pairwise(mus):
        v = mu * v - 0.004 * quadratic(theta + mu * v)[1]
        theta = theta + v
        optimizer.step(STRAIGHT, state)
        assert state.Theta == pytest.approx(theta + next_mu * v, rel=1e-9)


def steps(optimizer: Nesterov) -> int:
    state = optimizer.init(STRAIGHT, np.zeros(9))
    while optimizer.step(STRAIGHT, state) is None:
        assert state.iteration < 5000
    return state.iteration


def test_restarts_spare_steps_and_momentum_spares_more():
    """Condition number 100: ln(1e6)·κ/2 steps without momentum, a few times √κ with it."""
    restarted, never, plain = (
        steps(kind(learning_rate=0.01, momentum=mu)) for kind, mu in ((Nesterov, 0.999), (Never, 0.999), (Nesterov, 0))
    )
    assert restarted < 200 and never > 2 * restarted and plain > 3 * restarted


@pytest.mark.parametrize(
    ("J", "gradient", "again"),
    [([1, 2], [-1, -1], True), ([2, 1], [-1, 1], True), ([2, 1], [-1, -1], False), ([1, 1], [-1, -1], False)],
)
def test_it_begins_anew_where_j_rises_or_the_slope_points_along_the_step(J, gradient, again):
    """One parameter that moves to the right: a slope above 0 points along the step."""
    calls = iter(zip(J, gradient, strict=True))

    def told(Theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = next(calls)
        return value, np.array([float(slope)])

    optimizer = optimizers.make("nesterov", learning_rate=0.1)
    f = Problem("told", told, (), 0.0)
    state = optimizer.init(f, np.zeros(1))
    optimizer.step(f, state)
    assert state.velocity[0] > 0 and state.since == (0 if again else 1)
