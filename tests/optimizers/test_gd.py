"""Gradient descent is one line of the course."""

from __future__ import annotations

import math

import numpy as np
from zoo import Problem, quadratic

from gpubp import optimizers

BOWL = Problem("bowl", lambda Theta: (Theta @ Theta / 2, Theta.copy()), (1.0, -2.0), 0.0)


def test_a_step_is_the_rule():
    optimizer = optimizers.make("gd", learning_rate=0.25)
    state = optimizer.init(BOWL, np.array(BOWL.start))
    for k in range(1, 5):
        assert optimizer.step(BOWL, state) is None
        assert state.Theta.tolist() == [0.75**k, -2 * 0.75**k]  # exact: powers of ¾ in binary
        assert (state.iteration, state.evaluations) == (k, k + 1)


def test_it_goes_on_when_j_rises_and_fails_with_the_best_theta():
    overflowing = Problem(
        "overflowing",
        lambda Theta: (
            (float(Theta @ Theta) / 2, Theta.copy()) if np.abs(Theta).max() < 1e6 else (math.inf, np.full(2, math.nan))
        ),
        (1.0, -2.0),
        0.0,
    )
    optimizer = optimizers.make("gd", learning_rate=3)  # Θ ← −2Θ: J rises fourfold a step
    state = optimizer.init(overflowing, np.array(overflowing.start))
    ending = None
    while ending is None:
        J = state.J
        ending = optimizer.step(overflowing, state)
        assert state.J == 4 * J or ending
    assert ending.kind == "failed"
    assert state.iteration == 18 and state.J == 2.5 * 4.0**18  # |−2|·2^19 is the first above 1e6
    assert state.Theta.tolist() == [2.0**18, -(2.0**19)]
    assert state.evaluations == 20
    assert state.best[0].tolist() == [1.0, -2.0] and state.best[1] == 2.5
    for words in ("J = inf", "max|∇J| = nan", "after iteration 19", "best Θ", "J = 2.5;", "smaller than 3"):
        assert words in ending.reason
    again = optimizer.step(overflowing, state)
    assert again == ending and state.iteration == 18


def test_the_fixed_step_of_a_quadratic_contracts_as_its_spectrum_says():
    # |1 − α λ| ≤ 1 − 2/101 for α = 2/(1 + 100) and eigenvalues in [1, 100] (N&W 2006, eq. 3.29 and its neighbourhood)
    problem = Problem("quadratic", quadratic, tuple(np.zeros(9)), 3.0)
    optimizer = optimizers.make("gd", learning_rate=2 / 101)
    state = optimizer.init(problem, np.zeros(9))
    for _ in range(200):
        before = np.linalg.norm(state.Theta - 1)
        optimizer.step(problem, state)
        assert np.linalg.norm(state.Theta - 1) <= (99 / 101) * before * (1 + 1e-12)
