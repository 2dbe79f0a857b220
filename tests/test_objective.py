"""J and ∇J: against finite differences, against a plain writing of the course, and to the same bits however shared
out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import gpubp
from gpubp import activation, cost
from gpubp.errors import DataError, UsageError

LOOSE_KINK = {"relu", "leaky_relu"}


def problem(g: str, J: str, m: int = 23, sizes: tuple[int, ...] = (4, 6, 5, 3), seed: int = 0):
    """A small random network and rows; for relu no z of a hidden unit is near its kink."""
    rng = np.random.default_rng(seed)
    network = gpubp.Network(sizes, activation=g, cost=J)
    X = rng.normal(size=(m, sizes[0]))
    if J == "squares":
        y = rng.normal(size=(m, sizes[-1]))
    elif J == "softmax":
        y = rng.integers(0, sizes[-1], m)
    else:
        y = (rng.random((m, sizes[-1])) < 0.4).astype(float)
    Theta = network.pack([rng.normal(size=(o, i + 1)) * 0.7 for i, o in pairwise(sizes)])
    return network, Theta, X, y


@pytest.mark.parametrize("J", cost.names())
@pytest.mark.parametrize("g", activation.names())
def test_gradient_equals_central_differences(g, J):
    for seed in range(20):  # a draw whose z are away from the kink, for the activations that have one
        network, Theta, X, y = problem(g, J, seed=seed)
        if g not in LOOSE_KINK or distance_from_kink(network, Theta, X) > 1e-3:
            break
    else:
        pytest.fail("no draw away from the kink")
    weights = np.linspace(0.5, 2, len(X))
    _, gradient = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=0.7, weights=weights)
    numerical = np.zeros_like(gradient)
    step = 1e-5
    for i in range(network.P):
        up, down = Theta.copy(), Theta.copy()
        up[i] += step
        down[i] -= step
        upper, _ = gpubp.cost_and_gradient(network, up, X, y, lambda_=0.7, weights=weights)
        lower, _ = gpubp.cost_and_gradient(network, down, X, y, lambda_=0.7, weights=weights)
        numerical[i] = (upper - lower) / (2 * step)
    # the gaps between layers are no parameters: a step there changes nothing
    assert np.linalg.norm(numerical - gradient) / (np.linalg.norm(numerical) + np.linalg.norm(gradient)) < 1e-7
    assert np.count_nonzero(gradient) <= network.parameters


def distance_from_kink(network, Theta, X) -> float:
    g = {"relu": lambda z: np.maximum(z, 0), "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z)}[network.activation]
    a, nearest = X, np.inf
    for T in network.unpack(Theta)[:-1]:
        z = a @ T[:, 1:].T + T[:, 0]
        nearest = min(nearest, np.abs(z).min())
        a = g(z)
    return nearest


def test_the_course_written_plainly_gives_the_same_numbers():
    """A second, naive writing: one example at a time, column vectors, a column of ones, Ng's Δ."""
    network, Theta, X, _ = problem("sigmoid", "logistic", m=17, sizes=(3, 4, 5, 2), seed=3)
    Y = np.eye(2)[np.arange(17) % 2]
    lambda_, T = 0.3, [None, *network.unpack(Theta)]
    m, L = 17, 4
    J, Delta = 0.0, [None, *(np.zeros_like(t) for t in T[1:])]
    for x, y in zip(X, Y, strict=True):
        a = [None, np.append(1.0, x)]
        for l in range(1, L):
            z = T[l] @ a[l]
            h = 1 / (1 + np.exp(-z))
            a.append(np.append(1.0, h) if l + 1 < L else h)
        J -= np.sum(y * np.log(a[L]) + (1 - y) * np.log(1 - a[L])) / m
        delta = a[L] - y
        for l in range(L - 1, 0, -1):
            Delta[l] += np.outer(delta, a[l])
            if l > 1:
                delta = (T[l].T @ delta * a[l] * (1 - a[l]))[1:]
    J += lambda_ / (2 * m) * sum(np.sum(t[:, 1:] ** 2) for t in T[1:])
    D = [
        d / m + lambda_ / m * np.hstack([np.zeros((len(t), 1)), t[:, 1:]])
        for d, t in zip(Delta[1:], T[1:], strict=True)
    ]
    cost_, gradient = gpubp.cost_and_gradient(network, Theta, X, Y, lambda_=lambda_)
    assert cost_ == pytest.approx(J, rel=1e-13)
    for ours, theirs in zip(network.unpack(gradient), D, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("g", ["tanh", "silu"])
def test_the_same_bits_for_any_number_of_threads(precision, g):
    network, Theta, X, y = problem(g, "softmax", m=40_003, sizes=(7, 16, 9, 3))
    results = [
        gpubp.cost_and_gradient(network, Theta, X, y, lambda_=1, precision=precision, threads=threads, leaves=16,
        block_rows=100) for threads in (1, 2, 3, 4, 7) for _ in range(2)
    ]  # fmt: skip
    for J, gradient in results[1:]:
        assert J == results[0][0]
        assert gradient.tobytes() == results[0][1].tobytes()


def test_leaves_and_blocks_change_nothing_beyond_rounding():
    network, Theta, X, y = problem("tanh", "logistic", m=1000, sizes=(5, 8, 3))
    J, gradient = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=2)
    for leaves in (1, 2, 8, 64):
        for block_rows in (1, 7, 100, 5000):
            J2, other = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=2, leaves=leaves, block_rows=block_rows)
            assert abs(J2 - J) <= 1e-13 * abs(J)
            assert np.abs(other - gradient).max() <= 1e-13 * np.abs(gradient).max()


def test_more_leaves_than_rows_is_no_special_case():
    network, Theta, X, y = problem("tanh", "logistic", m=3, sizes=(5, 8, 3))
    J, gradient = gpubp.cost_and_gradient(network, Theta, X, y)
    J2, other = gpubp.cost_and_gradient(network, Theta, X, y, leaves=8)
    assert pytest.approx(J, rel=1e-14) == J2
    np.testing.assert_allclose(other, gradient, rtol=1e-12, atol=1e-16)


def test_float32_is_near_float64():
    network, Theta, X, y = problem("sigmoid", "logistic", m=2000, sizes=(20, 30, 10))
    J, gradient = gpubp.cost_and_gradient(network, Theta, X, y)
    J32, g32 = gpubp.cost_and_gradient(network, Theta, X, y, precision="fp32")
    assert abs(J32 - J) / J < 1e-6
    assert np.linalg.norm(g32 - gradient) / np.linalg.norm(gradient) < 4e-6


@pytest.mark.parametrize("J", cost.names())
def test_weight_2_equals_the_row_twice(J):
    network, Theta, X, y = problem("tanh", J)
    weights = np.ones(len(X))
    weights[[1, 4]] = 2
    weights[7] = 0
    keep = np.r_[0:7, 8 : len(X)]
    twice = np.r_[keep, 1, 4]
    a = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=0.5, weights=weights)
    b = gpubp.cost_and_gradient(network, Theta, X[twice], np.asarray(y)[twice], lambda_=0.5)
    assert a[0] == pytest.approx(b[0], rel=1e-13)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("weights", [[-1.0], [float("nan")], [float("inf")], [0.0]])
def test_weights_that_are_no_weights_are_refused(weights):
    network, Theta, X, y = problem("tanh", "softmax", m=1)
    with pytest.raises(DataError, match="weight"):
        gpubp.cost_and_gradient(network, Theta, X, y, weights=weights)


def test_lambda_leaves_the_bias_out():
    network, Theta, X, y = problem("tanh", "logistic")
    without = gpubp.cost_and_gradient(network, Theta, X, y)
    with_ = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=3)
    matrices = network.unpack(Theta)
    for D0, D1, T in zip(network.unpack(without[1]), network.unpack(with_[1]), matrices, strict=True):
        np.testing.assert_array_equal(D0[:, 0], D1[:, 0])
        np.testing.assert_allclose(D1[:, 1:] - D0[:, 1:], 3 / len(X) * T[:, 1:], rtol=1e-9, atol=1e-14)
    assert with_[0] - without[0] == pytest.approx(
        3 / (2 * len(X)) * sum(np.sum(T[:, 1:] ** 2) for T in matrices), rel=1e-12
    )


@pytest.mark.parametrize("J", cost.names())
def test_extreme_scores_keep_the_cost_finite_and_right(J):
    network = gpubp.Network((1, 3), cost=J)
    Theta = network.pack([np.array([[0, 900.0], [0, -900.0], [0, 0.0]])])
    y = np.array([[1.0, 0.0, 0.0]])
    for precision in ("fp64", "fp32"):
        J1, gradient = gpubp.cost_and_gradient(network, Theta, [[1.0]], y, precision=precision)
        J0, _ = gpubp.cost_and_gradient(network, Theta, [[-1.0]], y, precision=precision)
        assert np.isfinite([J1, J0]).all() and np.isfinite(gradient).all()
    if J == "logistic":  # softplus(−900) + softplus(−900) + log 2; −900 the other way: 900 + 900 + log 2
        assert J1 == pytest.approx(np.log(2)) and J0 == pytest.approx(1800 + np.log(2), rel=1e-6)
    if J == "softmax":
        assert J1 == 0 and J0 == pytest.approx(1800)


@pytest.mark.parametrize(
    ("y", "words"),
    [([0, 3], "class number 3 in row 1; wanted 0…2"), ([0, -1], "class number -1"), ([0.5, 1], "no class numbers"),
     ([0], "one entry per row"), ([[0, 1], [1, 0]], "y with 2 columns; wanted 3"), (["a", "b"], "no class numbers")],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(y, words):
    network = gpubp.Network((2, 3), cost="softmax")
    with pytest.raises(DataError, match=words):
        gpubp.cost_and_gradient(network, np.zeros(network.P), np.zeros((2, 2)), y)


def test_settings_that_cannot_be_meant_are_refused():
    network, Theta, X, y = problem("tanh", "softmax")
    with pytest.raises(UsageError, match="lambda -1"):
        gpubp.cost_and_gradient(network, Theta, X, y, lambda_=-1)
    with pytest.raises(UsageError, match="precision 'fp8'; wanted one of"):
        gpubp.cost_and_gradient(network, Theta, X, y, precision="fp8")
    with pytest.raises(UsageError, match="backend 'tpu'"):
        gpubp.cost_and_gradient(network, Theta, X, y, backend="tpu")
    with pytest.raises(DataError, match="rows of 3 features; wanted 4"):
        gpubp.cost_and_gradient(network, Theta, X[:, :3], y)
    with pytest.raises(UsageError, match="Theta of shape"):
        gpubp.cost_and_gradient(network, Theta[:-1], X, y)
