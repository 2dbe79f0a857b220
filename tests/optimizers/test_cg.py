"""Conjugate gradients against their formulas, and against linear CG where the search is exact."""

from __future__ import annotations

import numpy as np
import pytest
from test_lbfgs import SCIPY
from zoo import ZOO, Problem, quadratic

from gpubp import optimizers
from gpubp.optimizers.cg import CG
from gpubp.optimizers.line_search import Search

each = pytest.mark.parametrize("variant", ["hz", "pr+"])
CURVED = pytest.mark.parametrize("problem", ZOO[1:], ids=lambda p: p.name)


def run(optimizer, f, state, evaluations=2000):
    while state.evaluations < evaluations:
        if (ending := optimizer.step(f, state)) is not None:
            return ending
    return optimizers.Ending("limit", "")


def linear_cg(gradient, Theta: np.ndarray, steps: int) -> list[np.ndarray]:
    """N&W Algorithm 5.2 for ½ΘᵀAΘ − bᵀΘ, with A only as differences of its gradient."""
    r, path = gradient(Theta), []
    p = -r
    for _ in range(steps):
        Ap = gradient(Theta + p) - gradient(Theta)
        alpha = r @ r / (p @ Ap)
        Theta, new = Theta + alpha * p, r + alpha * Ap
        path.append(Theta)
        p, r = -new + (new @ new / (r @ r)) * p, new
    return path


@each
def test_with_exact_searches_a_quadratic_takes_the_steps_of_linear_cg_and_ends_in_nine(variant):
    """The cubic through a parabola's points has its minimum, so the second trial is exact."""
    problem = Problem("quadratic", quadratic, (), 3.0)
    optimizer = optimizers.make("cg", variant=variant, c1=1e-10, c2=1e-7, noise=0, tolerance=1e-8)
    start = np.cos(np.arange(9.0))
    state = optimizer.init(problem, start)
    for Theta in linear_cg(lambda T: quadratic(T)[1], start, 7):
        assert optimizer.step(problem, state) is None
        assert state.Theta == pytest.approx(Theta, abs=1e-5)
        assert variant == "pr+" or state.beta != 0
    assert run(optimizer, problem, state).kind == "converged"
    assert state.iteration <= 11


@CURVED
def test_hager_and_zhang_s_direction_is_their_formula(problem):
    """H&Z eq. 1.3 to 1.6, written with vectors; and it points down as their theorem 1.1 says."""
    optimizer, eta = optimizers.make("cg", variant="hz", eta=0.4), 0.4
    state = optimizer.init(problem, np.array(problem.start))
    d = -state.gradient
    truncated = 0
    for _ in range(25):
        before, at = state.gradient.copy(), state.Theta.copy()
        if optimizer.step(problem, state):
            break
        s, g = state.Theta - at, state.gradient
        assert abs(s @ d) == pytest.approx(np.linalg.norm(s) * np.linalg.norm(d), rel=1e-9)
        y = g - before
        beta = (y - 2 * d * (y @ y) / (d @ y)) @ g / (d @ y)
        least = -1 / (np.linalg.norm(d) * min(eta, np.linalg.norm(before)))
        truncated += beta < least
        d = -g + max(beta, least) * d
        assert d @ g <= -7 / 8 * (g @ g) * (1 - 1e-9) or beta < least
        assert state.beta == pytest.approx(max(beta, least), rel=1e-6, abs=1e-9)
        assert state.slope == pytest.approx(g @ d, rel=1e-6)


def test_a_beta_far_below_0_is_cut_off():
    optimizer = CG(variant="hz", eta=0.01)
    # g = (1, 0), d = −g and g₊ = (0.9, 0), so y = (−0.1, 0), dᵀy = 0.1 and dᵀg₊ = −0.9
    beta = optimizer._beta(0.81, 0.9, 1.0, 1.0, 0.1, -0.9)
    assert beta == pytest.approx((0.81 - 0.9 + 2 * 0.9 * 0.01 / 0.1) / 0.1)
    far = optimizer._beta(100.0, 0.0, 1.0, 4.0, 2.0, 9.0)
    assert (100 - 2 * 9 * 101 / 2) / 2 < far == -1 / (2 * 0.01)
    assert CG(variant="hz", eta=5)._beta(100.0, 0.0, 4.0, 4.0, 2.0, 9.0) == -1 / (2 * 2)
    assert optimizer._beta(1.0, 0.5, 1.0, 1.0, 0.0, -0.5) == 0.0  # no curvature was seen


@CURVED
def test_polak_and_ribiere_s_direction_is_theirs_and_begins_anew_as_powell_says(problem):
    optimizer = optimizers.make("cg", variant="pr+", restart=0.3)
    state = optimizer.init(problem, np.array(problem.start))
    d, restarts, kept = -state.gradient, 0, 0
    for _ in range(60):
        before, at = state.gradient.copy(), state.Theta.copy()
        if optimizer.step(problem, state):
            break
        s, g = state.Theta - at, state.gradient
        assert abs(s @ d) == pytest.approx(np.linalg.norm(s) * np.linalg.norm(d), rel=1e-9)
        beta = max(0.0, g @ (g - before) / (before @ before))
        far = abs(g @ before) >= 0.3 * (g @ g)
        restarts, kept = restarts + far, kept + (beta > 0 and not far)
        d = -g + (0.0 if far else beta) * d
        assert state.beta == pytest.approx(0.0 if far else beta, rel=1e-9)
    assert kept and restarts


def test_without_beta_below_0_and_without_restarts_the_directions_are_others():
    optimizer = CG(variant="pr+", restart=0.1)
    assert optimizer._beta(1.0, 0.05, 2.0, 1.0, 1.0, 0.0) == pytest.approx(0.95 / 2)
    assert optimizer._beta(1.0, 0.1, 2.0, 1.0, 1.0, 0.0) == 0.0  # Powell's restart
    assert CG(variant="pr+", restart=9)._beta(1.0, 4.0, 2.0, 1.0, 1.0, 0.0) == 0.0  # below 0


def test_the_first_alpha_is_the_last_one_times_the_ratio_of_slopes():
    """N&W eq. 3.60, and not more than ten times the last one."""
    problem, asked = ZOO[2], []
    optimizer = CG()
    state = optimizer.init(problem, np.array(problem.start))
    for _ in range(20):
        at, slope = state.Theta.copy(), state.slope
        optimizer.step(problem, state)
        asked.append((state.alpha, state.reach))
        assert np.linalg.norm(state.Theta - at) == pytest.approx(state.alpha * np.linalg.norm(state.last), rel=1e-9)
        assert not slope or state.reach == pytest.approx(state.alpha * slope)
        aim = optimizer.aim(problem, state)
        assert aim is not None and aim[0] == state.slope == pytest.approx(state.gradient @ state.direction)
        assert aim[1] == min(state.reach / state.slope, 10 * state.alpha)


@each
def test_where_a_direction_misleads_it_goes_on_against_the_gradient(variant):
    problem = ZOO[2]
    optimizer = optimizers.make("cg", variant=variant)
    state = optimizer.init(problem, np.array(problem.start))
    for _ in range(4):
        optimizer.step(problem, state)
    state.last, state.beta = state.gradient.copy(), 2.0  # it points up; the slope that is noted says down
    Theta, gradient, J = state.Theta.copy(), state.gradient.copy(), state.J
    assert optimizer.step(problem, state) is None
    s = state.Theta - Theta
    assert s @ gradient == pytest.approx(-np.linalg.norm(s) * np.linalg.norm(gradient)) and state.J < J
    assert run(optimizer, problem, state).kind == "converged"


def test_what_points_up_is_not_kept():
    state = CG().blank(2)
    optimizer = CG(variant="pr+", restart=9)
    state.slope, state.aimed = -1.0, True
    optimizer.learn(state, Search(1.0, 0.0, 0.9, 1, 0), (1.0, -1.0, 1.0, 1.0), None)  # β = 2, dᵀg₊ = 0.9: −1 + 1.8
    assert (state.beta, state.slope) == (0.0, -1.0)


def test_a_finer_function_is_met_with_its_own_slope():
    problem = ZOO[2]
    optimizer = CG()
    state = optimizer.init(problem, np.array(problem.start))
    for _ in range(5):
        optimizer.step(problem, state)
    alpha = state.alpha
    doubled = Problem(
        "doubled", lambda T: (2 * problem.J_and_gradient(T)[0], 2 * problem.J_and_gradient(T)[1]), (), 0.0
    )
    optimizer.renew(doubled, state)
    assert state.beta == 0 and state.slope == -(state.gradient @ state.gradient) and state.alpha == alpha
    assert run(optimizer, doubled, state).kind == "converged"


@each
def test_what_small_networks_cost(variant):
    """Evaluations to the J that SciPy's L-BFGS-B has after 50; measured 2.1 and 2.2 times as many in the median."""
    ratios = []
    for seed, (make, arguments, J, _) in enumerate(SCIPY):
        problem, Theta = make(*arguments, seed)
        optimizer = optimizers.make("cg", variant=variant, tolerance=0)
        state = optimizer.init(problem, Theta)
        while state.J > J:
            assert optimizer.step(problem, state) is None
        ratios.append(state.evaluations / 50)
    assert np.median(ratios) <= 2.4 and max(ratios) <= 3


@pytest.mark.parametrize("variant", ["hz", "pr+"])
def test_gradients_too_small_for_their_squares_do_no_harm(variant):
    class Slope:
        def value_and_gradient(self, Theta, out):
            np.exp(Theta, out=out)
            return float(out.sum())

    cg = optimizers.make("cg", tolerance=0.0, variant=variant)
    state = cg.init(Slope(), np.array([1.0, -2.0, 0.5]))
    ending = None
    while ending is None and state.iteration < 500:
        ending = cg.step(Slope(), state)
    assert ending is not None and state.J < 1e-150
