"""The record: its sums, its identities, and that it is backpropagation's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_networks import KINDS, random_example

import gpubp
from gpubp.errors import DataError, UsageError
from gpubp.explain import explain
from gpubp.explain.fold import added, fold
from gpubp.explain.plain import plain
from gpubp.explain.seed import THETA, seed_example
from gpubp.network import Network


def test_the_example_of_the_course_by_hand():
    e = seed_example()
    g = [None, np.array([1.0, 0.5])]
    for Theta in THETA:
        g.append(1 / (1 + np.exp(-(Theta @ [1.0, *g[-1]]))))
    np.testing.assert_allclose(e.a[4], g[4], rtol=1e-15)
    delta = g[4] - 1
    for l in (3, 2):
        np.testing.assert_allclose(e.s[l], THETA[l - 1][:, 1:].T @ delta, rtol=1e-13)
        delta = (THETA[l - 1][:, 1:].T @ delta) * g[l] * (1 - g[l])
        np.testing.assert_allclose(e.delta[l], delta, rtol=1e-13)
    assert pytest.approx(-np.log(g[4][0]), rel=1e-14) == e.C


@pytest.mark.parametrize(("g", "J"), KINDS)
def test_every_sum_adds_up_and_every_identity_holds(g, J):
    rng = np.random.default_rng(len(g) * 31 + len(J))
    for _ in range(5):
        e = random_example(rng, g, J)
        for l in range(2, e.L + 1):
            for j in range(1, e.network.sizes[l - 1] + 1):
                for total in [e.forward_sum(l, j), *([e.backward_sum(l, j)] if l < e.L else [])]:
                    size = sum(abs(term.product) for term in total.terms) or 1.0
                    assert abs(added(total.terms) - total.total) <= 1e-14 * size
            if l < e.L:
                np.testing.assert_allclose(e.delta[l], e.s[l] * e.slope[l], rtol=1e-14, atol=1e-300)
            outer = np.outer(e.delta[l], [1.0, *e.a[l - 1]])
            np.testing.assert_allclose(e.gradient[l - 1], outer, rtol=1e-14, atol=1e-300)
        if g == "identity":
            for exact, literal in zip(e.delta[2:], e.literal()[2:], strict=True):
                np.testing.assert_allclose(literal, exact, rtol=1e-14)


@pytest.mark.parametrize(("g", "J"), [("tanh", "softmax"), ("gelu", "logistic"), ("sigmoid", "sigmoid_squares")])
def test_the_mean_of_the_gradients_over_all_rows_is_the_gradient(g, J):
    rng = np.random.default_rng(3)
    network = Network((4, 6, 5, 3), g, J)
    Theta = network.initial_Theta(2) * 2
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    found = [explain(network, Theta, x, np.eye(3)[k]) for x, k in zip(X, y, strict=True)]
    J_, gradient = gpubp.cost_and_gradient(network, Theta, X, y, lambda_=0.7, kernel="numpy")
    squares = sum((matrix[:, 1:] ** 2).sum() for matrix in network.unpack(Theta))
    assert np.mean([e.C for e in found]) + 0.7 / 80 * squares == pytest.approx(J_, rel=1e-12)
    for l, D in enumerate(network.unpack(gradient), start=1):
        mean = np.mean([e.gradient[l] for e in found], axis=0)
        mean[:, 1:] += 0.7 / 40 * found[0].Theta[l][:, 1:]
        np.testing.assert_allclose(mean, D, rtol=0, atol=1e-12 * np.abs(D).max())


@pytest.mark.parametrize("J", ["logistic", "sigmoid_squares"])
def test_the_log_likelihood_has_every_sign_turned(J):
    one, other = (random_example(np.random.default_rng(8), "tanh", J, sign=sign) for sign in ("loss", "loglik"))
    assert one.C == -other.C > 0
    for l in range(2, one.L + 1):
        np.testing.assert_array_equal(one.delta[l], -other.delta[l])
        np.testing.assert_array_equal(one.gradient[l - 1], -other.gradient[l - 1])
        np.testing.assert_array_equal(one.z[l], other.z[l])
        np.testing.assert_array_equal(one.literal()[l], -other.literal()[l])
        if l < one.L:
            np.testing.assert_array_equal(one.s[l], -other.s[l])
            np.testing.assert_array_equal(one.slope[l], other.slope[l])


def test_what_cannot_be_is_refused():
    e = seed_example()
    for ask, layer, unit, words in [
        (e.forward_sum, 1, 1, r"layer 1; wanted 2 … 4"),
        (e.backward_sum, 4, 1, r"layer 4; wanted 2 … 3"),
        (e.backward_sum, 3, 3, r"unit 3 of layer 3; wanted 1 … 2"),
        (e.forward_sum, 2, 0, r"unit 0 of layer 2"),
    ]:
        with pytest.raises(UsageError, match=words):
            ask(layer, unit)
    flat = e.network.pack(e.Theta[1:])
    with pytest.raises(DataError, match="x of 3 values"):
        explain(e.network, flat, np.zeros(3), np.ones(1))
    with pytest.raises(DataError, match="wanted finite numbers"):
        explain(e.network, flat, np.array([0.0, np.nan]), np.ones(1))
    with pytest.raises(UsageError, match="loss or loglik"):
        explain(e.network, flat, np.zeros(2), np.ones(1), sign="gain")  # type: ignore[arg-type]


def test_folded_layers_keep_the_largest_the_wanted_and_the_asked_for():
    e = random_example(np.random.default_rng(1), "tanh", "softmax", sizes=(30, 20, 15, 12))
    kept = fold(e, 4, keep=[(2, 7)])
    assert all(len(kept.shown[l]) == 4 for l in range(1, 5)) and 7 in kept.shown[2]
    assert {int(e.y.argmax()) + 1, int(e.a[4].argmax()) + 1} <= set(kept.shown[4])
    largest = np.argsort(-np.abs(e.delta[3]))[:4] + 1
    assert set(kept.shown[3]) == set(largest.tolist()) and kept.hidden(3) == 11
    total = e.backward_sum(2, 7)
    ours, rest = kept.split(total)
    assert len(ours) == 4 and len(rest) == 11
    assert added(ours) + added(rest) == pytest.approx(total.total, rel=1e-12)
    assert all(len(fold(e, 0).shown[l]) == e.network.sizes[l - 1] for l in range(1, 5))


def test_the_answer_is_shown_though_its_delta_is_nothing():
    """Behind a sigmoid with squares what is certain has no δ, wrong as it may be."""
    network = Network((1, 12), "sigmoid", "sigmoid_squares")
    Theta = np.zeros((12, 2))
    Theta[2, 0] = 30.0  # output 3 is sure, and output 5 is wanted
    e = explain(network, network.pack([Theta]), np.ones(1), np.eye(12)[4])
    assert abs(e.delta[2][2]) < 1e-12 and {3, 5} <= set(fold(e, 4).shown[2])


def test_plain_values_are_the_records_own():
    e = random_example(np.random.default_rng(2), "relu", "logistic", sizes=(12, 11, 10, 2))
    found = plain(replace(e, names=replace(e.names, outputs=("no", "yes"))), fold(e, 3))
    units = {(unit["layer"], unit["unit"]): unit for unit in found["units"]}
    assert len(units) == 35 and units[4, 2]["name"] == "yes"
    assert [units[3, j]["delta"] for j in range(1, 11)] == e.delta[3].tolist()
    for edge in found["edges"]:
        assert edge["Theta"] == e.Theta[edge["layer"]][edge["to"] - 1, edge["from"]]
        assert ("backward" in edge) == (edge["from"] > 0 and edge["layer"] > 1)
    for total in found["sums"]:
        kept = sum(term["product"] for term in total["terms"]) + total["rest"]["total"]
        assert kept == pytest.approx(total["total"], rel=1e-9, abs=1e-14)
