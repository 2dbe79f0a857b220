"""Scaled conjugate gradients against the algorithm of the paper, written once more with all its variables."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from zoo import ZOO, In32Bits, Problem, logistic, quadratic, tanh_net

from gpubp import optimizers
from gpubp.optimizers.scg import SCG, Trial

STRAIGHT = Problem("quadratic", quadratic, (), 3.0)


class Counted:
    """A function that notes where it was asked, and may say how it rounds."""

    def __init__(self, f, noise: float | None = None) -> None:
        self.f, self.asked = f, []
        if noise is not None:
            self.noise = noise

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        self.asked.append(Theta.copy())
        return self.f.value_and_gradient(Theta, out)


def moeller(problem: Problem, w: np.ndarray, iterations: int, sigma: float, seen: set[str]) -> list[np.ndarray]:
    """Section 4 of the paper, step by step; w after each success."""

    def E(w: np.ndarray) -> float:
        return problem.J_and_gradient(w)[0]

    def slope(w: np.ndarray) -> np.ndarray:
        return problem.J_and_gradient(w)[1]

    lambda_, lambda_bar, path = 1e-6, 0.0, []  # 1.
    p = r = -slope(w)
    k, success, delta = 1, True, 0.0
    while len(path) < iterations and np.abs(r).max() > 1e-5:
        square = p @ p
        if success:  # 2.
            sigma_k = sigma / np.sqrt(square)
            delta = p @ (slope(w + sigma_k * p) - slope(w)) / sigma_k
        delta += (lambda_ - lambda_bar) * square  # 3.
        if delta <= 0:  # 4.
            seen.add("curved down")
            lambda_bar = 2 * (lambda_ - delta / square)
            delta = -delta + lambda_ * square
            lambda_ = lambda_bar
        mu = p @ r  # 5.
        alpha = mu / delta
        Delta = 2 * delta * (E(w) - E(w + alpha * p)) / mu**2  # 6.
        if Delta >= 0:  # 7.
            w = w + alpha * p
            path.append(w)
            before, r = r, -slope(w)
            lambda_bar, success = 0.0, True
            seen |= {"restart"} if k % len(w) == 0 else {"conjugate"}
            p = r if k % len(w) == 0 else r + (r @ r - r @ before) / mu * p
            k += 1
            if Delta >= 0.75:
                seen.add("less")
                lambda_ /= 4
        else:
            seen.add("failure")
            lambda_bar, success = lambda_, False
        if Delta < 0.25:  # 8.
            seen.add("more")
            lambda_ += delta * (1 - Delta) / square
    return path


CASES: set[str] = set()


@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_every_step_is_the_paper_s(problem):
    optimizer = optimizers.make("scg")
    start = np.array(problem.start)
    state = optimizer.init(problem, start)
    path = moeller(problem, start, 25, 1e-4, CASES)
    assert len(path) > 8
    for at in path:
        assert state.iteration < len(path) and optimizer.step(problem, state) in (None, optimizer._ending(state))
        assert state.Theta == pytest.approx(at, rel=1e-4, abs=1e-6)


def test_the_paper_s_steps_were_all_taken():
    for problem in ZOO:
        moeller(problem, np.array(problem.start), 25, 1e-4, CASES)
    assert {"curved down", "restart", "conjugate", "less", "failure", "more"} == CASES


def test_a_quadratic_ends_in_nine_steps_of_two_evaluations():
    """With λ gone it is linear CG; nine eigenvalues, nine steps."""
    optimizer = optimizers.make("scg", tolerance=1e-3)
    state = optimizer.init(STRAIGHT, np.zeros(9))
    state.damping = 1e-15
    for _ in range(9):
        assert state.steepest > 1e-3
        optimizer.step(STRAIGHT, state)
    assert state.steepest <= 1e-3 and state.evaluations == 1 + 2 * 9


def test_the_distance_of_the_difference_is_what_was_asked_for_or_suits_the_rounding():
    for noise, sigma, wanted in ((None, None, 1e-4), (1e-6, None, 1e-2), (0.0, None, 1e-4), (1e-6, 0.5, 0.5)):
        f = Counted(STRAIGHT, noise)
        optimizer = optimizers.make("scg", sigma=sigma)
        state = optimizer.init(f, np.zeros(9))
        for _ in range(4):
            at, asked = state.Theta.copy(), len(f.asked)
            optimizer.step(f, state)
            assert np.linalg.norm(f.asked[asked] - at) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("noise", [None, 1e-7])
@pytest.mark.parametrize(("make", "arguments"), [(tanh_net, ((8, 20, 1), 300, 0.01)), (logistic, (300, 25, 1.0))])
def test_a_float32_function_is_followed_nearly_as_far_as_a_float64_one(make, arguments, noise):
    problem, start = make(*arguments, 3)
    reached, J = [], []
    for f in (problem, Counted(In32Bits(problem), noise)):
        optimizer = optimizers.make("scg", tolerance=1e-3)
        state, ending = optimizer.init(f, start), None
        while ending is None and state.evaluations < 3000:
            ending = optimizer.step(f, state)
        assert ending is not None and ending.kind == "converged", ending
        reached.append(state.evaluations)
        J.append(problem.J_and_gradient(state.Theta)[0])
    assert reached[1] <= 1.3 * reached[0] and J[1] == pytest.approx(J[0], rel=5e-2)


def test_a_distance_too_small_for_float32_would_be_noticed_there():
    problem, start = tanh_net((8, 20, 1), 300, 0.01, 3)
    f, optimizer = In32Bits(problem), optimizers.make("scg", tolerance=1e-3, sigma=1e-9)
    state, ending = optimizer.init(f, start), None
    while ending is None and state.evaluations < 1.3 * 604:  # what float64 needs
        ending = optimizer.step(f, state)
    assert ending is None or ending.kind != "converged"


@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_j_never_rises_though_it_is_rounded_and_a_standstill_is_told(problem):
    f = In32Bits(problem)
    optimizer = optimizers.make("scg", tolerance=0)
    state, ending = optimizer.init(f, np.array(problem.start)), None
    while ending is None:
        J = state.J
        ending = optimizer.step(f, state)
        assert state.J <= J and state.evaluations < 2000
    assert ending.kind in ("stalled", "converged")
    assert state.J == pytest.approx(problem.minimum, abs=2e-5)
    if ending.kind == "stalled":
        assert f"J = {state.J:.9g}" in ending.reason and "wanted 0 or less" in ending.reason
    again = optimizer.restore(f, {k: np.copy(v) if np.ndim(v) else v for k, v in state.saved().items()})
    assert optimizer.step(f, again) == optimizer.step(f, state) == ending  # what has stalled stays so


def test_a_direction_that_misleads_is_given_up_once():
    optimizer = optimizers.make("scg")
    state = optimizer.init(STRAIGHT, np.zeros(9))
    for _ in range(3):
        optimizer.step(STRAIGHT, state)
    state.p = state.gradient.copy()  # up
    iteration, evaluations, Theta = state.iteration, state.evaluations, state.Theta.copy()
    assert optimizer.step(STRAIGHT, state) is None
    assert (state.iteration, state.evaluations, state.since) == (iteration, evaluations + 1, 0)
    assert np.array_equal(state.Theta, Theta) and np.array_equal(state.p, -state.gradient)
    while (ending := optimizer.step(STRAIGHT, state)) is None:
        pass
    assert ending.kind == "converged"


def test_a_gradient_of_the_wrong_sign_stalls_in_words():
    wrong = Problem("wrong", lambda T: (1 + T @ T / 2, -T), (), 1.0)
    optimizer = optimizers.make("scg")
    state = optimizer.init(wrong, np.array([3.0, 4.0]))
    ending = optimizer.step(wrong, state)
    assert ending is not None and ending.kind == "stalled"
    assert "straight against the gradient" in ending.reason and "J = 13.5" in ending.reason
    assert state.Theta.tolist() == [3.0, 4.0] and state.J == 13.5 and state.iteration == 0


def test_a_step_into_what_is_not_finite_is_shortened_and_goes_on():
    def barrier(Theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Σ Θ − log Θ, not a number outside Θ > 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.sum(Theta - np.log(Theta))), 1 - 1 / Theta

    f = Problem("barrier", barrier, (), 3.0)
    optimizer = optimizers.make("scg")
    state, ending = optimizer.init(f, np.array([1e-2, 0.5, 8.0])), None
    while ending is None:
        ending = optimizer.step(f, state)
        assert math.isfinite(state.J) and state.evaluations < 1000
    assert ending.kind == "converged" and state.Theta == pytest.approx(np.ones(3), abs=1e-4)


def test_where_j_is_flat_the_slopes_judge_the_model_but_a_higher_j_is_refused():
    """α = 1e-4 to where the slope is 0, so a fall of 5e-9, of which a J of 1 in float32 shows nothing."""
    alpha = mu = 1e-4
    compared = partial(SCG._compared, alpha=alpha, mu=mu)
    there = Trial(J=1.0, steepest=1.0, new=1.0, across=0.0, along=0.0)
    assert compared(1.0, there, noise=1e-7) == pytest.approx(1)
    assert compared(1.0, there, noise=0.0) == 0
    assert compared(1.0, there._replace(along=2 * mu), noise=1e-7) == 0  # the slopes promise a rise
    assert compared(1.0, there._replace(J=1 + 1e-9), noise=1e-7) < 0
    assert compared(1.0, there._replace(J=math.nan), noise=1e-7) < -1


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e-100, 1.0, 1e100, 1e150, 1e200])
def test_gradients_whose_squares_are_no_numbers_end_the_run_in_words(scale):
    """Until then it goes down: to the very minimum where J is 0 there."""

    class Bowl:
        def value_and_gradient(self, Theta, out):
            out[...] = scale * np.array([1.0, 3.0, 7.0]) * Theta
            return float(out @ Theta) / 2

    scg = optimizers.make("scg", tolerance=0.0)
    state = scg.init(Bowl(), np.array([1.0, -2.0, 0.5]))
    first, ending = state.J, None
    while ending is None and state.iteration < 1000:
        ending = scg.step(Bowl(), state)
    assert ending is not None and state.J <= first
    assert ending.kind == ("failed" if scale >= 1e160 else "stalled") or state.steepest == 0
    if scale in (1.0, 1e100):
        assert state.J < 1e-30 * first


def test_where_j_does_not_curve_at_all_its_damping_stays_above_0():
    class Slope:
        def value_and_gradient(self, Theta, out):
            out[...] = np.exp(np.minimum(Theta, 0))
            return float(out.sum())

    scg = optimizers.make("scg", tolerance=0.0)
    state = scg.init(Slope(), np.array([1.0, 2.0]))
    for _ in range(700):
        if scg.step(Slope(), state):
            break
    assert state.damping > 0 and state.J < 1e-100
