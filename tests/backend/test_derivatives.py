"""g′ against a numerical derivative of g, and δ^(L) against a numerical derivative of the cost."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp import activation, cost


def derivative(f, x, step):
    """f′(x) to O(step⁴): the five-point central difference."""
    return (8 * (f(x + step) - f(x - step)) - (f(x + 2 * step) - f(x - 2 * step))) / (12 * step)


@pytest.mark.parametrize("name", activation.names())
def test_slope_is_the_derivative_of_g(name):
    g = activation.activation(name)
    z = np.linspace(-9.05, 9.05, 182).astype(np.longdouble)[None]  # in steps of 0.1, never at 0, the kink of relu
    b = np.full_like(z, 0.02)
    e = np.random.default_rng(0).normal(size=z.shape).astype(np.longdouble)
    numerical = e * derivative(lambda z: g.g(np, z, b), z, np.longdouble(1e-3))
    arguments = (g.g(np, z, b),) if g.slope_from_a else (z, b)
    np.testing.assert_allclose(g.slope(np, e, *arguments), numerical, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", activation.names())
def test_far_out_g_and_slope_are_finite(name):
    g = activation.activation(name)
    with np.errstate(over="ignore"):
        for dtype in (np.float32, np.float64):
            z = np.array([[-1e4, -100, 100, 1e4]], dtype)
            b = np.zeros_like(z)
            a = g.g(np, z, b)
            assert np.isfinite(a).all() and a.dtype == dtype
            assert np.isfinite(g.slope(np, np.ones_like(z), *((a,) if g.slope_from_a else (z, b)))).all()


def rows_of(J, m=40, K=5):
    rng = np.random.default_rng(1)
    z, b = rng.normal(0, 3, (m, K)), rng.normal(size=(1, K))
    y = np.eye(K)[rng.integers(0, K, m)] if J.name != "squares" else rng.normal(size=(m, K))
    return z, b, y, rng.integers(0, 4, (m, 1)) / 2


@pytest.mark.parametrize("name", cost.names())
def test_delta_is_the_derivative_of_the_cost(name):
    J = cost.cost(name)
    z, b, y, w = rows_of(J)

    def rows(z):
        return np.broadcast_to(J.cell(np, J.score(np, z, b), y, w), z.shape).sum(axis=1, keepdims=True)

    delta = J.delta(np, J.h(np, J.score(np, z, b)), y, w)
    for k in range(z.shape[1]):
        direction = np.eye(z.shape[1])[k]
        numerical = derivative(lambda t, d=direction: rows(z + t * d), 0.0, 1e-3)
        np.testing.assert_allclose(delta[:, k : k + 1], numerical, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", cost.names())
def test_cost_is_the_formula_the_user_reads(name):
    """Each `formula`, written once more by hand from h."""
    J = cost.cost(name)
    z, b, y, w = rows_of(J)
    h = J.h(np, J.score(np, z, b))
    plain = {
        "logistic": lambda: -(y * np.log(h) + (1 - y) * np.log(1 - h)),
        "softmax": lambda: -y * np.log(h),
        "squares": lambda: (h - y) ** 2 / 2,
        "sigmoid_squares": lambda: (h - y) ** 2 / 2,
    }[name]()
    np.testing.assert_allclose(J.cell(np, J.score(np, z, b), y, w).sum(), (w * plain).sum(), rtol=1e-12)


@pytest.mark.parametrize("name", cost.names())
def test_a_row_of_weight_0_costs_nothing_even_where_its_cost_is_infinite(name):
    J = cost.cost(name)
    s, y, w = np.array([[np.inf, -np.inf]]), np.array([[0.0, 1.0]]), np.zeros((1, 1))
    with np.errstate(all="ignore"):
        assert (J.cell(np, s, y, w) == 0).all()


@pytest.mark.parametrize("name", [n for n in cost.names() if cost.cost(n).takes != "numbers"])
def test_cost_stays_right_where_h_is_0_or_1(name):
    """J comes from the score, so log(0) is never taken."""
    J = cost.cost(name)
    z = np.array([[800.0, -800.0]])
    s = J.score(np, z, np.zeros((1, 2)))
    right, wrong = (np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    one = np.ones((1, 1))
    with np.errstate(all="ignore"):
        assert J.cell(np, s, right, one).sum() == pytest.approx(0, abs=1e-300)
        wanted = {"logistic": 1600, "softmax": 1600, "sigmoid_squares": 1}[name]
        assert J.cell(np, s, wrong, one).sum() == pytest.approx(wanted)


@pytest.mark.parametrize("name", cost.names())
def test_the_inverse_gives_back_outputs_and_costs(name):
    """And is finite where an output has rounded to 0 or 1."""
    J = cost.cost(name)
    assert J.inverse is not None
    z, b, y, _ = rows_of(J)
    s = J.score(np, z, b)
    h = J.h(np, s)
    back = J.inverse(np, h)
    np.testing.assert_allclose(J.h(np, back), h, rtol=1e-9)
    np.testing.assert_allclose(J.cell(np, back, y, 1.0), J.cell(np, s, y, 1.0), rtol=1e-9, atol=1e-11)
    edges = np.array([[0.0, 1.0]])
    assert np.isfinite(J.cell(np, J.inverse(np, edges), edges[:, ::-1], 1.0)).all()
