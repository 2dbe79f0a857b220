"""L-BFGS on a Kronecker inverse: fewer evaluations, the schedule, what is charged, and what is saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from zoo import ZOO, Broken, Curved, Pair, Problem, rotated

from gpubp import optimizers
from gpubp.optimizers.curvature import Factors, Layer
from gpubp.optimizers.klbfgs import KLBFGS
from gpubp.optimizers.kronecker import level
from gpubp.optimizers.lbfgs import LBFGS

OUTPUTS, INPUTS = 6, 9
P = OUTPUTS * (INPUTS + 1)


def spread(n: int, seed: int, most: float) -> np.ndarray:
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return Q @ np.diag(np.logspace(0, np.log10(most), n)) @ Q.T


A, G = spread(INPUTS + 1, 0, 300.0), spread(OUTPUTS, 1, 300.0)
# Θ is W row after row, then b; the product acts on (b | W)
COLUMNS = np.column_stack([OUTPUTS * INPUTS + np.arange(OUTPUTS), np.arange(OUTPUTS * INPUTS).reshape(OUTPUTS, INPUTS)])
B = np.zeros((P, P))
B[np.ix_(COLUMNS.ravel(), COLUMNS.ravel())] = np.kron(G, A)


class Layered(Curved):
    """One layer whose curvature is A ⊗ G; counts how often it is asked."""

    layers = (Layer(slice(0, OUTPUTS * INPUTS), slice(OUTPUTS * INPUTS, P), OUTPUTS, INPUTS),)
    factored = True
    operations = 1e5

    def __init__(self, task: Task) -> None:
        self.task = task

    def factors(self, Theta: Any, draw: int) -> Factors:
        self.task.draws.append(draw)
        self.task.at.append(np.array(Theta))
        if len(self.task.draws) == self.task.broken:
            raise Broken
        scale = self.task.scale(draw)
        return Factors([A * scale], [G.copy()], self.task.passes)


class Task:
    """1 + Σ log cosh of the coordinates in which its curvature at 0 is A ⊗ G: a quadratic near 0 and flat far away."""

    noise = 1e-15

    def __init__(self, passes: float = 0.1, broken: int = 0, scale: Any = lambda draw: 1.0) -> None:
        self.draws: list[int] = []
        self.at: list[np.ndarray] = []
        self.passes, self.broken, self.scale = passes, broken, scale
        self.root = np.linalg.cholesky(B).T
        self.curvature = Layered(self)

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        z = self.root @ Theta
        out[:] = self.root.T @ np.tanh(z)
        return 1 + float(np.sum(np.logaddexp(z, -z) - np.log(2)))


START = np.cos(np.arange(1.0, P + 1)) / 40


def run(optimizer: Any, f: Any, start: np.ndarray, steps: int = 10**6) -> Any:
    state, ending = optimizer.init(f, start), None
    while ending is None and state.iteration < steps:
        ending = optimizer.step(f, state)
    return state, ending


def bits(state: Any) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in state.saved().items()}


def test_what_p_tells_need_not_be_learned():
    plain, ending = run(LBFGS(tolerance=1e-6), Task(), START)
    assert ending.kind == "converged" and plain.evaluations > 60
    state, ending = run(KLBFGS(tolerance=1e-6, damping=1e-4), Task(), START)
    assert ending.kind == "converged" and state.passes < plain.passes / 4
    np.testing.assert_allclose(state.Theta, 0, atol=1e-5)
    # the pairs still correct what P has wrong
    off, ending = run(KLBFGS(tolerance=1e-6, damping=1e-4), Task(scale=lambda draw: 50.0), START)
    assert ending.kind == "converged" and off.evaluations < plain.evaluations / 2


@pytest.mark.parametrize("steps", [4, 5, 6, 10])
def test_the_direction_is_the_dense_formula(steps):
    """H = V₁ᵀ…(γP)…V + ρ s sᵀ by Nocedal and Wright's eq. 7.16, P dense; after 5 and 10 steps P is another."""
    optimizer, f = KLBFGS(history=3), Task(scale=lambda draw: 1 + 0.6 * np.sin(2 * draw))
    state, _ = run(optimizer, f, START, steps)
    assert state.draws == len(f.draws) == 2 + (steps >= 5) + (steps >= 10)
    assert np.array_equal(f.at[-1], state.Theta) == (steps in (5, 10))  # of the Θ that the step has reached
    rows = state.rows(state.pairs)
    assert len(rows) == 3
    (of_A,), (of_G,) = state._split()
    mu = 0.3 * np.trace(of_A) / 10 * np.trace(of_G) / 6
    dense = np.zeros((P, P))
    damped = np.kron(of_G + mu / state.shares[0] * np.eye(6), of_A + state.shares[0] * np.eye(10))
    dense[np.ix_(COLUMNS.ravel(), COLUMNS.ravel())] = np.linalg.inv(damped)
    s, y = state.S[rows[-1]], state.Y[rows[-1]]
    H = (s @ y) / (y @ dense @ y) * dense
    for j in rows:
        s, y = state.S[j], state.Y[j]
        V = np.eye(P) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    assert optimizer.aim(f, state) == (pytest.approx(-state.gradient @ H @ state.gradient), 1.0)
    np.testing.assert_allclose(state.direction, -H @ state.gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.Pg, dense @ state.gradient, rtol=1e-9)


def test_p_is_found_anew_early_and_then_at_a_rate():
    f = Task()
    state, _ = run(KLBFGS(tolerance=0, refresh=10), f, START, 1)
    due = [state.due]
    for _ in range(60):
        if KLBFGS(tolerance=0, refresh=10).step(f, state):
            break
        due += [state.due] if state.due != due[-1] else []
    assert due[:5] == [2, 5, 10, 20, 30] and f.draws == list(range(len(f.draws)))
    assert state.draws == len(f.draws) and len(f.draws) >= 4


def test_p_is_found_more_seldom_where_that_is_dear():
    f = Task(passes=6.0)  # wanted is a fourth of all work at most
    state, _ = run(KLBFGS(tolerance=0), f, START, 2)
    assert state.due - 2 == int((6.0 + sum_of_operations(f, len(state.rows(state.pairs)) + 1)) / 0.25) > 20


def sum_of_operations(f: Task, applied: int) -> float:
    """What a refresh costs besides its factors: an inverse of G (A's stays), and P of so many vectors."""
    apply = 2 * OUTPUTS * INPUTS * (OUTPUTS + INPUTS)
    return (OUTPUTS**3 + applied * apply) / f.curvature.operations


def test_all_is_charged():
    f = Task(passes=0.25)
    state = KLBFGS().init(f, START)
    assert state.extra == pytest.approx(0.25 + sum_of_operations(f, 1) + (INPUTS + 1) ** 3 / 1e5)
    before = state.extra
    KLBFGS().step(f, state)
    assert state.extra - before == pytest.approx(2 * OUTPUTS * INPUTS * (OUTPUTS + INPUTS) / 1e5)
    assert state.passes == state.evaluations + state.extra


@pytest.mark.parametrize("precision", [np.float64, np.float32])
def test_it_goes_on_bit_for_bit_from_any_step(precision):
    def scale(draw):
        return 1 + 0.4 * np.sin(draw)

    def rounded(f):
        real = f.value_and_gradient

        def value_and_gradient(Theta, out):
            J = real(Theta.astype(precision).astype(np.float64), out)
            out[:] = out.astype(precision)
            return float(precision(J))

        f.value_and_gradient = value_and_gradient
        return f

    optimizer, f = KLBFGS(tolerance=0, refresh=4, history=4), rounded(Task(scale=scale))
    state = optimizer.init(f, START)
    shares = set()
    for _ in range(25):
        saved = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.saved().items()}
        if optimizer.step(f, state):
            break
        shares.add(float(state.shares[0]))
        other = rounded(Task(scale=scale))
        again = optimizer.restore(other, saved)
        optimizer.step(other, again)
        assert bits(again) == bits(state), f"iteration {state.iteration}"
    assert state.draws > 4 and len(shares) > 1


@pytest.mark.parametrize("broken", [2, 3])
def test_an_exception_out_of_the_factors_gives_the_whole_step_up(broken):
    optimizer = KLBFGS(tolerance=0)
    straight, _ = run(optimizer, Task(), START, 12)
    f = Task(broken=broken)
    state = optimizer.init(f, START)
    raised = 0
    while state.iteration < 12:
        before = bits(state)
        try:
            optimizer.step(f, state)
        except Broken:
            raised += 1
            assert bits(state) == before
    assert raised == 1 and bits(state) == bits(straight)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf, 0.0])
def test_factors_that_are_no_numbers_or_nothing_do_no_harm(spoiled):
    f = Task(scale=lambda draw: spoiled if draw in (0, 2) else 1.0)
    state, ending = run(KLBFGS(tolerance=1e-6), f, START)
    assert ending.kind == "converged" and state.draws > 2
    assert all(np.isfinite(value).all() for value in state.saved().values())


def test_after_a_climb_factors_are_asked_of_the_function_of_each_step():
    """The objective itself, with which it climbs, looks after no request to stop."""
    climbed, watched, klbfgs = Task(), Task(), KLBFGS(tolerance=0)
    state = klbfgs.init(Task(), START)
    klbfgs.renew(climbed, state)
    while state.iteration < 3:
        assert klbfgs.step(watched, state) is None
    assert watched.draws == [1] and not climbed.draws


def test_of_factors_that_are_no_numbers_nothing_stays():
    """Although the first of them is the same as before, and so its inverse could have been kept."""
    f = Task()
    state, _ = run(KLBFGS(tolerance=0), f, START, 1)
    told = f.curvature.factors(state.Theta, 1)
    assert np.array_equal(told.A[0], state._split()[0][0])
    spoiled = Factors(told.A, [np.full_like(G, np.nan)], 0.1)
    state.shares[0] = 0.55  # near what it will be
    state.take(spoiled, state.gradient, state.Pg)
    assert np.array_equal(state.factors, np.concatenate([np.eye(10).ravel(), np.eye(6).ravel()]))
    mu = level([np.eye(10)], [np.eye(6)], 0.3, 0.0)
    share = float(state.shares[0])
    np.testing.assert_allclose(state.Pg * (1 + share) * (1 + mu / share), state.gradient, rtol=1e-12, atol=1e-15)


def test_without_factors_it_is_lbfgs():
    problem = replace(ZOO[1], name="plain")
    assert not problem.curvature.factored
    one, _ = run(KLBFGS(history=7), problem, np.array(problem.start))
    other, _ = run(LBFGS(history=7), problem, np.array(problem.start))
    assert (one.evaluations, one.extra) == (other.evaluations, 0) and np.array_equal(one.Theta, other.Theta)


def test_a_problem_whose_matrix_is_known_takes_hardly_more_than_newtons_steps():
    def J_and_gradient(Theta: np.ndarray) -> Pair:
        r = Theta - 1
        return r @ rotated(Theta) @ r / 2, rotated(Theta) @ r

    problem = Problem("quadratic", J_and_gradient, tuple(np.cos(np.arange(30.0))), 0.0, rotated, factored=True)
    plain, _ = run(LBFGS(), problem, np.array(problem.start))
    state, ending = run(KLBFGS(damping=1e-6), problem, np.array(problem.start))
    assert ending.kind == "converged" and state.evaluations <= 6 < plain.evaluations / 4


def test_history_is_shortened_to_a_budget_and_says_so():
    optimizer, words = optimizers.make("klbfgs").within(1_000_000, 100_000_000)
    assert optimizer == KLBFGS(history=4) and words == "history shortened from 8 to 4 pairs of 24 MB each"
    optimizer, words = optimizers.make("lbfgs").within(1_000_000, 100_000_000)
    assert optimizer == LBFGS(history=6) and words == "history shortened from 30 to 6 pairs of 16 MB each"
    assert optimizers.make("klbfgs").within(1000, 10**9) == (KLBFGS(), "")


def test_it_says_where_it_is_less_than_it_could_be():
    f: Any = Task()
    optimizer = KLBFGS()
    assert optimizer.remark(f) == ""
    first = Layer(slice(0, 4096 * 2), slice(4096 * 2, 4096 * 2 + 2), 2, 4096, (False, True))
    second = Layer(slice(9000, 19_000), slice(19_000, 24_000), 5000, 2, (True, False))
    f.curvature.layers = (first, second)
    words = "of the 4,096 inputs of layer 1, the 5,000 outputs of layer 2 only the diagonal of the curvature's factor"
    assert optimizer.remark(f) == words
    assert "plain L-BFGS" in optimizer.remark(ZOO[0])
