"""The line search on functions of one α."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpubp.optimizers.line_search import wolfe

# The six functions of Moré and Thuente, Line search algorithms with guaranteed sufficient decrease, ACM TOMS 20 (1994)
# 286–307, section 5, with the constants (μ, η) = (c₁, c₂) of their tables I to VI.


def mt1(a, beta=2.0):
    return -a / (a * a + beta), (a * a - beta) / (a * a + beta) ** 2


def mt2(a, beta=0.004):
    return (a + beta) ** 5 - 2 * (a + beta) ** 4, 5 * (a + beta) ** 4 - 8 * (a + beta) ** 3


def mt3(a, beta=0.01, l=39):
    if a <= 1 - beta:
        base, slope = 1 - a, -1.0
    elif a >= 1 + beta:
        base, slope = a - 1, 1.0
    else:
        base, slope = (a - 1) ** 2 / (2 * beta) + beta / 2, (a - 1) / beta
    wave = l * math.pi / 2
    return base + 2 * (1 - beta) / (l * math.pi) * math.sin(wave * a), slope + (1 - beta) * math.cos(wave * a)


def yanai(beta1, beta2):
    g1, g2 = (math.sqrt(1 + b * b) - b for b in (beta1, beta2))

    def phi(a):
        u, v = math.hypot(1 - a, beta2), math.hypot(a, beta1)
        return g1 * u + g2 * v, g1 * (a - 1) / u + g2 * a / v

    return phi


MORE_THUENTE = {
    "1": (mt1, 1e-3, 0.1),
    "2": (mt2, 0.1, 0.1 + 1e-12),
    "3": (mt3, 0.1, 0.1 + 1e-12),
    "4": (yanai(0.001, 0.001), 1e-3, 1e-3 + 1e-12),
    "5": (yanai(0.01, 0.001), 1e-3, 1e-3 + 1e-12),
    "6": (yanai(0.001, 0.01), 1e-3, 1e-3 + 1e-12),
}


@pytest.mark.parametrize("start", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("number", MORE_THUENTE)
def test_the_functions_of_more_and_thuente(number, start):
    phi, c1, c2 = MORE_THUENTE[number]
    J, slope = phi(0.0)
    seen = []
    search = wolfe(lambda a: seen.append(a) or phi(a), J, slope, start, c1=c1, c2=c2)
    assert not search.problem
    assert (search.J, search.slope) == phi(search.alpha)
    assert search.J <= J + c1 * search.alpha * slope
    assert abs(search.slope) <= c2 * abs(slope)
    assert seen[-1] == search.alpha and len(seen) == search.trials


def test_a_good_first_trial_is_taken():
    search = wolfe(lambda a: ((a - 1) ** 2, 2 * (a - 1)), 1.0, -2.0, 1.0)
    assert (search.alpha, search.J, search.slope, search.trials) == (1.0, 0.0, 0.0, 1)


def test_a_parabola_needs_one_more_trial_from_above_and_from_below():
    for start in (3.0, 0.01, 0.3):
        search = wolfe(lambda a: ((a - 1) ** 2, 2 * (a - 1)), 1.0, -2.0, start, c2=0.1)
        assert search.alpha == pytest.approx(1.0) and search.trials <= (2 if start > 0.2 else 6)


@pytest.mark.parametrize("outside", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("edge", [0.9, 1e-3, 1e-9])
def test_it_backs_off_from_where_j_is_not_finite(outside, edge):
    # −log(1 − a/edge) + …: a barrier at the edge, with its minimum at half of it
    def phi(a):
        t = a / edge
        return (-math.log(1 - t) - 2 * t, (1 / (1 - t) - 2) / edge) if t < 1 else (outside, 1.0)

    search = wolfe(phi, 0.0, -1 / edge, 1.0)
    assert not search.problem and 0 < search.alpha < edge and search.nonfinite >= 1
    assert abs(search.slope) <= 0.9 / edge


def test_a_slope_that_is_not_finite_is_no_point_to_accept():
    search = wolfe(lambda a: (-a, math.nan) if a > 0.5 else (-a + a * a, -1 + 2 * a), 0.0, -1.0, 1.0)
    assert not search.problem and search.alpha <= 0.5 and search.nonfinite == 1


@pytest.mark.parametrize(("slope", "word"), [(0.0, "0"), (2.5, "2.5"), (math.nan, "nan"), (-math.inf, "-inf")])
def test_no_descent_direction_is_said_without_a_trial(slope, word):
    search = wolfe(lambda a: pytest.fail("evaluated"), 1.0, slope, 1.0)
    assert search.trials == 0 and search.alpha == 0.0
    assert search.problem == f"not a descent direction: the slope along it is {word}"


def test_a_slope_that_lies_ends_below_the_precision_of_j():
    search = wolfe(lambda a: (1.0 + a, -1.0), 1.0, -1.0, 1.0, max_trials=100)
    assert (search.alpha, search.J, search.slope) == (0.0, 1.0, -1.0)
    assert "below its precision" in search.problem and "J = 1 " in search.problem
    assert search.trials < 60


def test_trials_run_out_in_words():
    search = wolfe(lambda a: (1.0 + a, -1.0), 1.0, -1.0, 1.0, max_trials=5)
    assert search.alpha == 0.0 and search.trials == 5 and "5 trials" in search.problem and "J = 1" in search.problem
    search = wolfe(lambda a: (math.nan, math.nan), 1.0, -1.0, 1.0, max_trials=7)
    assert search.nonfinite == search.trials == 7 and "not finite in 7 of them" in search.problem


def test_a_function_without_a_minimum_gives_the_best_decrease_when_trials_run_out():
    search = wolfe(lambda a: (-a, -1.0), 0.0, -1.0, 1.0, max_trials=6)
    assert not search.problem and search.trials == 6
    assert search.alpha == 1 + 4 + 16 + 64 + 256 + 1024 and search.J == -search.alpha


def test_when_trials_run_out_the_best_decrease_may_not_be_the_last_trial():
    # first trial: decreases but stays steep; second: beyond the wall
    seen = []

    def phi(a):
        seen.append(a)
        return (-a, -1.0) if a <= 1 else (5.0, 100.0)

    search = wolfe(phi, 0.0, -1.0, 1.0, max_trials=2)
    assert not search.problem and search.alpha == 1.0 and seen == [1.0, 5.0]


def flat(a):
    """(a − 1)² · 1e-9 + 1 with J in float32: it cannot tell any a in [0, 2] from another; the slope can."""
    return float(np.float32(1 + 1e-9 * (a - 1) ** 2)), 2e-9 * (a - 1)


@pytest.mark.parametrize("start", [1e-2, 1.7, 10.0])
def test_where_j_is_only_rounding_the_slopes_decide(start):
    assert flat(0.0)[0] == flat(1.0)[0] == 1.0
    search = wolfe(flat, *flat(0.0), start, c2=0.1, noise=1e-7)
    assert not search.problem and abs(search.alpha - 1) <= 0.1


def test_noise_lets_j_rise_by_no_more_than_itself_above_the_lowest_of_the_run():
    def phi(a):
        return 1.0 + 5e-8 * a, -1e-9 * (1 - a)

    assert wolfe(phi, 1.0, -1e-9, 1.0, noise=1e-7).alpha == 1.0
    assert wolfe(phi, 1.0, -1e-9, 1.0, noise=1e-8).J <= 1.0 + 1e-8
    assert wolfe(phi, 1.0, -1e-9, 1.0, noise=0.0).problem
    refused = wolfe(phi, 1.0, -1e-9, 1.0, noise=1e-7, lowest=1.0 - 1e-7)  # an earlier J has used the allowance up
    assert refused.J <= 1.0


def test_without_noise_an_accepted_j_is_never_above_the_first():
    rng = np.random.default_rng(3)
    for _ in range(300):
        w, phase, size = rng.random(8) * 20, rng.random(8) * 6, rng.normal(size=8)

        def phi(a, w=w, phase=phase, size=size):
            return float(size @ np.sin(w * a + phase)), float((size * w) @ np.cos(w * a + phase))

        J, slope = phi(0.0)
        search = wolfe(phi, J, slope, 10 ** rng.uniform(-3, 2))
        if slope < 0:
            assert not search.problem and search.J < J and abs(search.slope) <= 0.9 * abs(slope)
        else:
            assert search.problem


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150])
def test_the_scale_of_j_and_of_alpha_do_not_matter(scale):
    for J_scale, alpha_scale in ((scale, 1.0), (1.0, scale)):
        search = wolfe(
            lambda a, s=J_scale, t=alpha_scale: (s * (a / t - 1) ** 2, s * 2 * (a / t - 1) / t),
            J_scale, -2 * J_scale / alpha_scale, 1.7 * alpha_scale, c2=0.1,
        )  # fmt: skip
        assert not search.problem and search.alpha == pytest.approx(alpha_scale, rel=0.1)


def trials(phi, alpha, count, **options):
    seen = []
    J, slope = phi(0.0)
    search = wolfe(lambda a: seen.append(a) or phi(a), J, slope, alpha, max_trials=count, **options)
    return seen, search


def test_where_j_is_flat_the_next_trial_is_the_secants():
    seen, search = trials(flat, 5.0, 20, c2=0.1, noise=1e-7)
    assert seen[1] == pytest.approx(1.0) and search.trials == 2


def test_a_trial_keeps_away_from_the_ends_of_its_bracket():
    def wall(a):  # the cubic through the wall has its minimum next to 0
        return (-a, -1.0) if a < 0.5 else (1e12, 2e12)

    seen, _ = trials(wall, 1.0, 2)
    assert seen == [1.0, 0.1]

    def gentle(a):  # the better end is 1, and the minimum of the cubic is nearer to 0
        return (-2e-4, 0.2) if a > 0.9 else (-a, -1.0)

    seen, _ = trials(gentle, 1.0, 2, c2=0.1)
    assert seen == [1.0, 0.5]


def test_a_point_that_decreases_j_enough_but_less_than_another_ends_the_bracket():
    def phi(a):  # N&W 2006, Algorithm 3.5: φ(α_i) ≥ φ(α_{i−1}) brackets a minimum, whatever the slope at α_i
        return -10.0 * a if a <= 1 else -1.0 - 1e-3 * a, -10.0

    seen, _ = trials(phi, 1.0, 3)
    assert seen[:2] == [1.0, 5.0] and 1 < seen[2] < 5


def test_slopes_that_promise_a_rise_do_not_pass_for_a_decrease():
    def phi(a):
        return 1.0 - 5e-13 * a, -1e-8 + 6e-8 * a

    _, search = trials(phi, 1.0, 1, noise=1e-7)
    assert search.alpha == 0.0 and search.problem


def test_a_plateau_far_away_is_no_minimum():
    """J within the rounding of φ(0) and a slope of nearly 0, but far too little for the way: not to be accepted."""

    def phi(a):
        return 1 - a / (a * a + 2) * 1e-3, (a * a - 2) / (a * a + 2) ** 2 * 1e-3

    _, search = trials(phi, 1e6, 20, noise=1e-7)
    assert not search.problem and search.alpha < 100 and search.J < 1 - 1e-5


def test_a_kink_ends_when_no_number_is_left_in_the_bracket():
    _, search = trials(lambda a: (abs(a - 0.7), -1.0 if a < 0.7 else 1.0), 1.0, 2000, c2=0.5)
    assert search.trials < 1000 and search.alpha == pytest.approx(0.7, abs=1e-15)
