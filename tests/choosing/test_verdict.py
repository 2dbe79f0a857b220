"""What the numbers mean: known problems get the verdict that the course gives them."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp
from gpubp.choosing.verdict import kind_of

OPTIONS = {"hidden": (), "precision": "fp64", "backend": "cpu", "kernel": "numpy"}


def polynomial(m: int, degree: int, seed: int = 0):
    """y = sin 3x + noise, given x, x², …: with a high degree and few rows the course's example of overfitting."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, m)
    return np.stack([x**k for k in range(1, degree + 1)], axis=1), np.sin(3 * x) + 0.1 * rng.normal(size=m)


def test_many_powers_of_x_on_few_rows_without_lambda_have_high_variance():
    X, y = polynomial(120, 14)
    found = gpubp.sweep(X, y, lambdas=[0, 1e-9], validation=0.85, decrease=1e-7, iterations=3000, **OPTIONS)
    assert found.verdict.kind == "high variance"
    assert found.best.cost < 0.3 * found.best.validation
    assert "more rows" in found.verdict.text and "larger λ" in found.verdict.text


def test_lambda_mends_it_and_the_valley_is_inside_of_the_grid():
    X, y = polynomial(30, 14)
    found = gpubp.sweep(X, y, lambdas=[0, 1e-3, 1e-2, 0.1, 1, 10, 100], cv=5, decrease=1e-7, iterations=3000, **OPTIONS)
    costs = [one.validation for one in found.candidates]
    assert 0 < found.chosen < 6
    assert costs[found.chosen] < 0.5 * costs[0] and costs[found.chosen] < 0.5 * costs[-1]
    training = [one.cost for one in found.candidates]
    assert training == sorted(training)  # without the λ term it can only grow with λ


def test_a_line_through_a_parabola_has_high_bias_and_more_rows_do_not_help():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (500, 1))
    y = x[:, 0] ** 2 + 0.01 * rng.normal(size=500)
    found = gpubp.sweep(x, y, lambdas=[0, 0.1, 1], **OPTIONS)
    assert found.verdict.kind == "high bias" and found.best.cost > 0.9 * found.best.constant
    assert "noise" in found.verdict.text
    curve = gpubp.learning_curve(x, y, points=5, lambda_=0.0, **OPTIONS)
    assert curve.verdict.kind == "high bias" and "will help little" in curve.verdict.text


def test_a_line_through_a_line_is_neither():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    found = gpubp.sweep(x, x @ [1.0, 2.0, 3.0] + 0.1 * rng.normal(size=500), lambdas=[0, 0.01, 0.1, 1, 1000], **OPTIONS)
    assert found.verdict.kind == "neither" and found.best.score == pytest.approx(1, abs=0.01)


def test_a_learning_curve_of_an_overfitting_model_says_that_more_rows_would_help():
    X, y = polynomial(60, 14)
    curve = gpubp.learning_curve(
        X, y, points=4, least=12, lambda_=1e-6, validation=0.4, repeats=3, decrease=1e-7, iterations=3000, **OPTIONS
    )
    costs = [part.validation for part in curve.parts]
    assert costs[0] > 3 * costs[-1] and curve.parts[0].cost < curve.parts[-1].cost
    assert len(curve.parts[0].points) == 3 and curve.parts[0].cost_se > 0


@pytest.mark.parametrize(("lambdas", "words"), [([0, 0.001], "largest of those tried"), ([3, 100], "smallest")])
def test_a_lambda_at_the_edge_of_the_grid_is_said_with_what_to_add(lambdas, words):
    X, y = polynomial(30, 14)
    found = gpubp.sweep(X, y, lambdas=lambdas, cv=4, decrease=1e-6, iterations=2000, **OPTIONS)
    assert words in found.verdict.text and "to --lambda" in found.verdict.text


@pytest.mark.parametrize(
    ("cost", "validation", "se", "kind"),
    [
        (0.5, 0.55, 0.01, "high bias"),
        (0.05, 0.5, 0.01, "high variance"),
        (0.5, 0.9, 0.01, "high bias and high variance"),
        (0.05, 0.055, 0.001, "neither"),
        (0.05, 0.5, 0.3, "neither"),  # two standard errors are more than the gap
        (1e-6, 1e-3, 1e-5, "neither"),  # a thousand times, and nothing
        (float("nan"), 0.5, 0.1, "unknown"),
    ],
)
def test_the_rules_of_thumb(cost, validation, se, kind):
    assert kind_of(cost, validation, se, 1.0) == kind


def test_the_rule_of_one_standard_error_takes_the_largest_lambda_within_it():
    X, y = polynomial(60, 14)
    found = gpubp.sweep(X, y, lambdas=[0, 1e-4, 1e-3, 1e-2, 0.1, 1], cv=5, decrease=1e-7, iterations=2000, **OPTIONS)
    best = found.best
    within = [o for o in found.candidates if o.validation <= best.validation + best.validation_se]
    assert found.candidates[found.simplest].lambda_ == max(o.lambda_ for o in within) >= best.lambda_
    each = [p.validation for p in best.points]
    assert len(each) == 5 and best.validation_se == pytest.approx(np.std(each, ddof=1) / 5**0.5)
