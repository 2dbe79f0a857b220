"""Every optimizer in the folder on every problem it suits: it arrives, resumes bit for bit, survives exceptions."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError, asdict, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from suits import NAMES, SUITS, WANDERING, advice, on
from zoo import ZOO, Broken, In32Bits, Interrupted, Problem

from gpubp import optimizers
from gpubp.errors import MismatchError, UsageError
from gpubp.optimizers.vectors import HOST

CASES = [
    pytest.param(name, options, problem, id=f"{name} {problem.name}")
    for name in NAMES
    for problem in ZOO
    for options in [on(name, problem.name)]
] + [pytest.param("cg", {"variant": "pr+"}, problem, id=f"cg pr+ {problem.name}") for problem in ZOO]
CASES += [
    pytest.param(name, {}, replace(problem, factored=True), id=f"{name} {problem.name} in factors")
    for name in ("klbfgs", "gn")
    for problem in ZOO
]
on_the_zoo = pytest.mark.parametrize(("name", "options", "problem"), CASES)
each = pytest.mark.parametrize("name", NAMES)


def run(optimizer, f, state, iterations=30000):
    """Step until the end; the ending, and the state in front of each step, copied."""
    states = []
    for _ in range(iterations):
        states.append(frozen(state))
        ending = optimizer.step(f, state)
        if ending is not None:
            return ending, states
    return optimizers.Ending("limit", ""), states


def frozen(state) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in state.saved().items()}


def bits(saved) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in saved.items()}


def numbers(sentence: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[-+]?\d+)?", sentence)]


@on_the_zoo
def test_it_arrives_and_says_so_with_its_number(name, options, problem):
    optimizer = optimizers.make(name, **options)
    state = optimizer.init(problem, np.array(problem.start))
    assert (state.iteration, state.evaluations) == (0, 1)
    ending, states = run(optimizer, problem, state)
    assert ending.kind == "converged", f"{ending.reason or ending.kind}; {advice(name, problem.name)}"
    steepest = np.abs(state.gradient).max()
    assert steepest <= optimizer.tolerance
    assert float(f"{steepest:.3g}") in numbers(ending.reason) and optimizer.tolerance in numbers(ending.reason)
    assert state.J == pytest.approx(problem.minimum, abs=1e-9)
    assert state.iteration == len(states)

    gradient = np.empty_like(state.Theta)
    assert problem.value_and_gradient(state.Theta, gradient) == state.J  # J and ∇J belong to Θ
    assert np.array_equal(gradient, state.gradient)

    before = frozen(state)
    assert optimizer.step(problem, state) == ending  # what has converged stays so, at no cost
    assert bits(before) == bits(frozen(state))


@on_the_zoo
def test_a_run_restored_before_any_step_goes_on_bit_for_bit(name, options, problem):
    optimizer = optimizers.make(name, **options)
    straight = optimizer.init(problem, np.array(problem.start))
    ending, states = run(optimizer, problem, straight, 120)
    last = None
    for i, (here, there) in enumerate(zip(states, [*states[1:], frozen(straight)], strict=True)):
        state = optimizer.restore(problem, here)
        assert bits(here) == bits(state.saved())
        last = optimizer.step(problem, state)
        assert bits(there) == bits(state.saved()), f"after step {i}"
    assert last == (ending if ending.kind != "limit" else None)


@on_the_zoo
def test_an_exception_at_any_evaluation_leaves_the_state_and_the_run_as_they_were(name, options, problem):
    optimizer = optimizers.make(name, **options)
    straight = Interrupted(problem)
    state = optimizer.init(straight, np.array(problem.start))
    _, states = run(optimizer, straight, state, 40)
    for at in range(2, straight.calls + 1):
        f = Interrupted(problem, at)
        try:
            state = optimizer.init(f, np.array(problem.start))
        except Broken:
            continue  # what else it wanted to know at the start: there is no state yet
        for i, expected in enumerate([*states, None]):
            before = frozen(state)
            if expected is not None:
                assert bits(before) == bits(expected)
            try:
                optimizer.step(f, state)
            except Broken:
                assert bits(before) == bits(state.saved())
                optimizer.step(f, state)  # once more, in the scratch that the exception left
                if i + 1 < len(states):
                    assert bits(states[i + 1]) == bits(state.saved())
                break
        assert f.calls >= at


@pytest.mark.parametrize(("name", "options", "problem"), [c for c in CASES if c.values[0] not in WANDERING])
def test_j_does_not_rise(name, options, problem):
    optimizer = optimizers.make(name, **options)
    _, states = run(optimizer, problem, optimizer.init(problem, np.array(problem.start)))
    for here, there in pairwise(states):
        assert there["J"] <= here["J"] * (1 + 1e-7)


class Watched:
    """Remembers every J and Θ; J is NaN from evaluation number `broken` on."""

    def __init__(self, problem: Problem, broken: int = 0) -> None:
        self.problem, self.broken = problem, broken
        self.curvature = problem.curvature
        self.seen: list[tuple[float, np.ndarray]] = []

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            J = self.problem.value_and_gradient(Theta, out)
        if self.broken and len(self.seen) + 1 >= self.broken:
            J = math.nan
        self.seen.append((J, Theta.copy()))
        return J


@pytest.mark.parametrize(
    ("name", "wild"),
    [(name, wild) for name in NAMES for wild in (False, True) if not wild or SUITS[name].wild],
)
@pytest.mark.parametrize("problem", ZOO, ids=lambda p: p.name)
def test_a_run_never_returns_a_worse_theta_than_it_was_given_or_has_had(name, wild, problem):
    optimizer = optimizers.make(name, **(SUITS[name].wild if wild else on(name, problem.name)))
    f = Watched(problem)
    state = optimizer.init(f, np.array(problem.start))
    first, ending, had, rose = state.J, None, {state.J}, False
    for _ in range(200):
        before = state.J
        ending = optimizer.step(f, state)
        rose |= state.J > before
        had.add(state.J)
        Theta, J = state.best
        slack = 0 if name in WANDERING else 1e-7 * abs(first)
        assert J <= min(had) + slack <= first + slack
        assert any(seen == J and np.array_equal(Theta, at) for seen, at in f.seen)  # J belongs to Θ
        assert np.array_equal(state.Theta_on_host, Theta)
        if ending:
            break
    assert rose or not wild, f"J does not rise on {problem.name}: other options for wild of {name} in tests/suits.py"
    again = optimizer.restore(f, frozen(state))
    assert again.best[1] == state.best[1] and np.array_equal(again.best[0], state.best[0])


@each
@pytest.mark.parametrize("k", [2, 3, 8, 15])
def test_a_cost_that_is_not_finite_after_some_steps_ends_with_the_best_theta_and_a_sentence(name, k):
    problem = ZOO[1]
    optimizer = optimizers.make(name, **on(name, problem.name))
    f = Watched(problem, broken=k)
    state, ending = optimizer.init(f, np.array(problem.start)), None
    for _ in range(k + 2):
        if ending := optimizer.step(f, state):
            break
    assert ending is not None
    assert "not finite in" in ending.reason or "J = nan" in ending.reason, (
        f"{ending.reason}; wanted words about the NaN of evaluation {k}; {advice(name, problem.name)}"
    )
    # a line search whose first trial was finite cannot tell that from one that finds nothing better
    assert ending.kind == "failed" or ("not finite in 1" in ending.reason and k == 3)
    Theta, J = state.best
    assert f"J = {J:.6g}" in ending.reason or f"J = {J:.9g}" in ending.reason
    assert J <= f.seen[0][0] and problem.value_and_gradient(Theta, np.empty_like(Theta)) == J
    assert name not in WANDERING or J == min(seen for seen, _ in f.seen[: k - 1])
    assert np.isfinite(state.gradient).all()


@each
@pytest.mark.parametrize("wild", [False, True])
def test_a_finer_function_is_met_at_the_best_theta(name, wild):
    """What a run does that climbs: J and ∇J of the same Θ by another function, and all that was coarse forgotten."""
    coarse = In32Bits(ZOO[1])
    optimizer = optimizers.make(name, tolerance=0, **(SUITS[name].wild if wild else {}))
    state = optimizer.init(coarse, np.array(ZOO[1].start))
    for _ in range(7):
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.step(coarse, state)
    before, evaluations, Theta = frozen(state), state.evaluations, np.array(state.best[0])
    with pytest.raises(Broken):
        optimizer.renew(Interrupted(ZOO[1], 1), state)
    assert bits(state.saved()) == bits(before)
    optimizer.renew(ZOO[1], state)
    assert np.array_equal(state.Theta, Theta) and np.array_equal(state.best[0], Theta)
    gradient = np.empty_like(Theta)
    assert state.J == state.best[1] == ZOO[1].value_and_gradient(Theta, gradient)
    assert np.array_equal(state.gradient, gradient) and state.steepest == np.abs(gradient).max()
    assert state.evaluations == evaluations + 1
    again = optimizer.restore(ZOO[1], frozen(state))
    for _ in range(3):
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.step(ZOO[1], state)
            optimizer.step(ZOO[1], again)
        assert bits(state.saved()) == bits(again.saved())


@on_the_zoo
def test_float32_passes_reach_the_same_minimum(name, options, problem):
    optimizer = optimizers.make(name, tolerance=2e-3, **options)
    state = optimizer.init(In32Bits(problem), np.array(problem.start))
    ending, _ = run(optimizer, In32Bits(problem), state)
    assert ending.kind == "converged", f"{ending.reason or ending.kind}; {advice(name, problem.name)}"
    assert state.J == pytest.approx(problem.minimum, abs=2e-5)


@each
def test_theta_is_copied_and_converted(name):
    start = np.array(ZOO[0].start, np.float32)
    optimizer = optimizers.make(name)
    state = optimizer.init(ZOO[0], start)
    optimizer.step(ZOO[0], state)
    optimizer.step(ZOO[0], state)
    assert np.array_equal(start, np.array(ZOO[0].start, np.float32))
    assert state.Theta.dtype == state.gradient.dtype == np.float64


@each
@pytest.mark.parametrize(
    ("Theta", "words"),
    [
        (np.zeros((2, 2)), r"Theta of shape \(2, 2\), float64; wanted a vector"),
        (np.zeros(0), r"shape \(0,\)"),
        (np.array(["1"]), "<U1"),
        (np.array([1, np.nan, np.inf]), "2 of 3 numbers in Theta not finite"),
    ],
)
def test_a_start_that_cannot_be_meant(name, Theta, words):
    with pytest.raises(UsageError, match=words):
        optimizers.make(name).init(ZOO[0], Theta)


@each
@pytest.mark.parametrize("J", [math.nan, math.inf])
def test_a_cost_that_is_not_finite_at_the_start_fails_in_words(name, J):
    undefined = Problem("undefined", lambda Theta: (J, Theta), (1.0,), math.nan)
    optimizer = optimizers.make(name)
    state = optimizer.init(undefined, np.ones(3))
    ending = optimizer.step(undefined, state)
    assert ending is not None and ending.kind == "failed"
    assert f"J = {J:g}" in ending.reason
    assert np.array_equal(state.Theta, np.ones(3)) and state.evaluations == 1


@each
def test_a_gradient_that_is_not_finite_at_the_start_fails_in_words(name):
    undefined = Problem("undefined", lambda Theta: (1.0, np.array([0, math.nan])), (1.0, 1.0), math.nan)
    optimizer = optimizers.make(name)
    ending = optimizer.step(undefined, optimizer.init(undefined, np.ones(2)))
    assert ending is not None and ending.kind == "failed" and "max|∇J| = nan" in ending.reason


@each
def test_saved_is_every_field_but_scratch_as_plain_values(name):
    state = optimizers.make(name).init(ZOO[0], np.array(ZOO[0].start))
    saved = state.saved()
    assert {"Theta", "gradient", "J", "iteration", "evaluations"} <= saved.keys()
    scratch = {f.name for f in fields(state) if f.metadata.get("scratch")}
    assert scratch and saved.keys() == {f.name for f in fields(state)} - scratch
    for value in saved.values():
        assert type(value) in (int, float, bool) or (isinstance(value, np.ndarray) and value.dtype == np.float64)


@each
def test_scalars_may_come_back_as_a_file_gives_them(name):
    optimizer = optimizers.make(name)
    saved = optimizer.init(ZOO[0], np.array(ZOO[0].start)).saved()
    for form in (np.float64, np.asarray):
        assert bits(optimizer.restore(ZOO[0], saved | {"J": form(saved["J"])}).saved()) == bits(saved)
    iteration = optimizer.restore(ZOO[0], saved | {"iteration": np.int64(7)}).iteration
    assert iteration == 7 and type(iteration) is int


@each
def test_a_restored_state_has_arrays_of_its_own(name):
    optimizer = optimizers.make(name)
    saved = frozen(optimizer.init(ZOO[0], np.array(ZOO[0].start)))
    before = bits(saved)
    state = optimizer.restore(ZOO[0], saved)
    optimizer.step(ZOO[0], state)
    optimizer.step(ZOO[0], state)
    assert bits(saved) == before


@each
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("J"), "without J; wanted one with J"),
        (lambda s: s.update(momentum=1.0), "with momentum; wanted one without momentum"),
        (
            lambda s: s.update(gradient=np.zeros(4)),
            r"gradient is float64 of shape \(4,\); wanted float64 of shape \(9,",
        ),
        (lambda s: s.update(gradient=np.zeros(9, "f4")), r"gradient is float32 of shape \(9,\)"),
        (lambda s: s.update(Theta=np.zeros((3, 3))), r"Theta is float64 of shape \(3, 3\); wanted a vector"),
        (lambda s: s.pop("Theta"), "without Theta"),
        (lambda s: s.update(iteration=1.5), "iteration is float; wanted int"),
        (lambda s: s.update(iteration=True), "iteration is bool; wanted int"),
        (lambda s: s.update(J=np.float32(1)), "J is float32; wanted float"),
        (lambda s: s.update(J="1"), "J is str; wanted float"),
    ],
)
def test_a_saved_state_that_does_not_fit_is_refused_by_name(name, change, words):
    optimizer = optimizers.make(name)
    saved = optimizer.init(ZOO[0], np.array(ZOO[0].start)).saved()
    change(saved)
    with pytest.raises(MismatchError, match=words):
        optimizer.restore(ZOO[0], saved)


def test_every_optimizer_has_its_entry_in_the_table():
    lacking = set(optimizers.names()) - set(SUITS)
    assert not lacking, f"tests/suits.py: SUITS needs an entry for {', '.join(lacking)}; Suit() where defaults do"
    for name in WANDERING:
        for what in ("wild", "restless"):
            assert getattr(SUITS[name], what), f"tests/suits.py: {what} in SUITS['{name}'] needs options: J may rise"
    unknown = set(SUITS) - set(optimizers.names())
    unknown |= {at for suit in SUITS.values() for at in suit.zoo} - {problem.name for problem in ZOO}
    assert not unknown, f"tests/suits.py: there is no {', '.join(unknown)}"


def test_the_folder_is_the_list():
    assert {"adam", "cg", "gd", "irprop", "lbfgs", "nesterov", "scg"} <= set(optimizers.names())
    assert not {"base", "descent", "wandering", "elementwise"} & set(optimizers.names())
    assert type(optimizers.make("lbfgs")).__name__ == "LBFGS"


@each
def test_hyperparameters_are_frozen_and_normal(name):
    optimizer = optimizers.make(name, tolerance=1)
    assert optimizer.tolerance == 1.0 and type(optimizer.tolerance) is float
    assert optimizer == optimizers.make(name, tolerance=1.0) != optimizers.make(name)
    assert optimizer == optimizers.make(name, **asdict(optimizer))
    with pytest.raises(FrozenInstanceError):
        optimizer.tolerance = 2.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("hebb", {}, f"^optimizer 'hebb'; wanted one of {', '.join(optimizers.names())}$"),
        ("base", {}, f"^optimizer 'base'; wanted one of {', '.join(optimizers.names())}$"),
        ("gd", {"rate": 1}, "^option 'rate' of optimizer gd; wanted one of tolerance, learning_rate$"),
        ("gd", {"learning_rate": 0}, "^learning_rate = 0.0; wanted above 0$"),
        ("gd", {"learning_rate": math.nan}, "^learning_rate = nan; wanted a finite float$"),
        ("gd", {"learning_rate": True}, "^learning_rate = True; wanted a finite float$"),
        ("gd", {"tolerance": -1e-3}, "^tolerance = -0.001; wanted 0 or more$"),
        ("gd", {"learning_rate": "fast"}, "^learning_rate = 'fast'; wanted a finite float$"),
        ("cg", {"variant": "fr"}, "^variant = 'fr'; wanted one of hz, pr\\+$"),
        ("cg", {"variant": 1}, "^variant = 1; wanted one of hz, pr\\+$"),
        ("cg", {"restart": 0}, "^restart = 0.0; wanted above 0$"),
        ("cg", {"eta": -1}, "^eta = -1.0; wanted above 0$"),
        ("scg", {"sigma": 0}, "^sigma = 0.0; wanted above 0$"),
        ("scg", {"max_trials": 0}, "^max_trials = 0; wanted 1 or more$"),
        ("scg", {"patience": 0}, "^patience = 0; wanted 1 or more$"),
        ("adam", {"learning_rate": 0}, "^learning_rate = 0.0; wanted above 0$"),
        ("adam", {"beta1": 1}, "^beta1 = 1.0; wanted 0 or more, below 1$"),
        ("adam", {"beta2": -0.1}, "^beta2 = -0.1; wanted 0 or more, below 1$"),
        ("adam", {"epsilon": 0}, "^epsilon = 0.0; wanted above 0$"),
        ("irprop", {"first": 0}, "^first = 0.0; wanted above 0$"),
        ("irprop", {"grow": 1}, "^grow = 1.0; wanted above 1$"),
        ("irprop", {"shrink": 1}, "^shrink = 1.0; wanted a number between 0 and 1$"),
        ("irprop", {"least": 1}, "^least = 1.0; wanted from 0 to first = 0.0125$"),
        ("irprop", {"most": 0.01}, "^most = 0.01; wanted first = 0.0125 or more$"),
        ("nesterov", {"learning_rate": 0}, "^learning_rate = 0.0; wanted above 0$"),
        ("nesterov", {"momentum": 1}, "^momentum = 1.0; wanted 0 or more, below 1$"),
        ("lbfgs", {"history": 0}, "^history = 0; wanted 1 or more$"),
        ("lbfgs", {"history": 10.0}, "^history = 10.0; wanted a finite int$"),
        ("lbfgs", {"history": "10"}, "^history = '10'; wanted a finite int$"),
        ("lbfgs", {"c1": 0}, "^c1 = 0.0; wanted a number between 0 and 1$"),
        ("lbfgs", {"c1": 0.5, "c2": 0.4}, "^c2 = 0.4; wanted a number between c1 = 0.5 and 1$"),
        ("lbfgs", {"max_trials": 0}, "^max_trials = 0; wanted 1 or more$"),
        ("lbfgs", {"noise": 1}, "^noise = 1.0; wanted 0 or more, below 1$"),
        ("lbfgs", {"patience": 0}, "^patience = 0; wanted 1 or more$"),
    ],
)
def test_a_name_or_an_option_that_cannot_be_meant_names_the_choices(name, options, words):
    with pytest.raises(UsageError, match=words):
        optimizers.make(name, **options)


def test_the_vector_helpers():
    a, b = np.array([3.0, -4.0]), np.array([1.0, 2.0])
    assert HOST.dot(a, b) == -5.0 and type(HOST.dot(a, b)) is float
    assert HOST.max_abs(a) == 4.0 and HOST.sum_abs(a) == 7.0
    assert math.isnan(HOST.max_abs(np.array([1.0, math.nan]))) and HOST.max_abs(np.array([-math.inf, 1.0])) == math.inf
    out = np.empty(2)
    HOST.move(a, 0.5, b, out)
    assert out.tolist() == [3.5, -3.0]
    HOST.move(a, 1e308, 10 * b, out)  # warns of nothing: J judges
    assert out.tolist() == [math.inf, math.inf]
