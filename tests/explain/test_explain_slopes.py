"""δ is a slope: on every activation and cost, near saturation, at kinks; and a wrong δ is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_networks import KINDS, random_example

from gpubp.explain import Explanation, explain
from gpubp.explain.seed import seed_example
from gpubp.explain.slopes import TOLERANCE, check
from gpubp.network import Network


def with_delta(e: Explanation, l: int, delta: np.ndarray) -> Explanation:
    changed = list(e.delta)
    changed[l] = delta
    return replace(e, delta=changed)


@pytest.mark.parametrize(("g", "J"), KINDS)
def test_every_delta_of_random_networks_is_the_slope_and_rounding_is_no_excuse(g, J):
    rng = np.random.default_rng(100 * len(g) + len(J))
    for i in range(4):  # × 32 pairs: 128 networks
        e = random_example(rng, g, J, sign="loglik" if i == 3 else "loss")
        found = check(e)
        assert found.passed and found.count == sum(e.network.sizes[1:])
        for unit in found.units.values():
            assert unit.error <= TOLERANCE and not unit.rounding and unit.verdict == "PASS"
            assert abs(unit.slope - unit.delta) <= max(unit.uncertainty, TOLERANCE * abs(unit.delta))
        assert all(layer.distance <= 1e-8 for layer in found.layers[2:])


@pytest.mark.parametrize("size", [6, 30, 200])
def test_saturated_units_pass_as_near_as_float64_can_tell(size):
    rng = np.random.default_rng(size)
    excused = units = 0
    for g, J in KINDS:
        found = check(random_example(rng, g, J, size=size))
        assert found.passed
        excused += sum(int(layer.rounding.sum()) for layer in found.layers[2:])
        units += found.count
    assert 0 < excused < 0.4 * units


@pytest.mark.parametrize(("g", "J"), KINDS)
def test_a_wrong_factor_is_noticed_in_every_unit(g, J):
    rng = np.random.default_rng(len(g) + 7 * len(J))
    e = random_example(rng, g, J)
    for l in range(2, e.L + 1):
        failed = ~check(with_delta(e, l, e.delta[l] * (1 + 1e-6))).layers[l].passed
        assert (failed | (e.delta[l] == 0)).all()
        if l < e.L:
            dropped = ~check(with_delta(e, l, e.s[l])).layers[l].passed
            assert (dropped == (np.abs(e.slope[l] - 1) * np.abs(e.s[l]) > 0)).all()


def test_a_wrong_factor_is_noticed_where_rounding_is_large():
    e = random_example(np.random.default_rng(4), "tanh", "squares", size=6, sizes=(5, 8, 8, 1))
    right = check(e)
    for l in (2, 3, 4):
        large = np.abs(e.delta[l]) > 1e-6 * np.abs(e.delta[4]).max()
        assert large.any() and not right.layers[l].rounding[large].any()
        assert not check(with_delta(e, l, e.delta[l] * (1 - 1e-6))).layers[l].passed[large].any()


def test_a_small_change_beside_a_large_cost_is_seen():
    network = Network((1, 2, 2), "tanh", "squares")
    Theta = [np.array([[0.1, 0.7], [0.2, -0.4]]), np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1e-6]])]
    e = explain(network, network.pack(Theta), np.array([0.5]), np.array([1e7, 0.3]))
    assert e.C > 1e13 and abs(e.delta[2][1]) < 1e-6
    unit = check(e).units[2, 2]
    assert unit.verdict == "PASS" and unit.error < 1e-8 and not unit.rounding


def test_at_a_kink_delta_is_one_of_two_slopes():
    network = Network((2, 3, 1), "relu", "squares")
    Theta = [np.array([[0.0, 1.0, -1.0], [0.5, 1.0, 1.0], [0.0, -1.0, 1.0]]), np.array([[0.2, 1.5, -2.0, 0.0]])]
    e = explain(network, network.pack(Theta), np.array([0.3, 0.3]), np.array([1.0]))
    assert e.z[2].tolist() == [0.0, 1.1, 0.0]
    found = check(e)
    unit = found.units[2, 1]
    assert unit.verdict == "KINK" and unit.sides is not None and found.passed
    assert unit.sides == pytest.approx((0.0, float(1.5 * e.delta[3][0])), rel=1e-7, abs=1e-12)
    assert found.units[2, 2].verdict == found.units[2, 3].verdict == "PASS"  # nothing goes on from the third
    wrong = check(with_delta(e, 2, e.delta[2] + [0.1, 0, 0]))
    assert wrong.units[2, 1].verdict == "FAIL" and not wrong.passed
    assert check(with_delta(e, 2, e.delta[2] + [unit.sides[1], 0, 0])).units[2, 1].verdict == "KINK"


def test_a_kink_nearer_than_every_step_is_a_kink():
    network = Network((1, 1, 1), "leaky_relu", "squares")
    for z in (1e-9, -1e-9):
        e = explain(network, network.pack([np.array([[z, 0.0]]), np.array([[0.2, 1.5]])]), np.zeros(1), np.ones(1))
        assert check(e).units[2, 1].verdict == "KINK"
    far = explain(network, network.pack([np.array([[1e-4, 0.0]]), np.array([[0.2, 1.5]])]), np.zeros(1), np.ones(1))
    assert check(far).units[2, 1].verdict == "PASS"


def test_wide_layers_come_in_parts_with_the_same_slopes(monkeypatch):
    e = random_example(np.random.default_rng(5), "silu", "softmax", sizes=(6, 40, 30, 5))
    whole = check(e)
    monkeypatch.setattr("gpubp.explain.slopes._MEMORY", 3000)
    parts = check(e)
    for one, other in zip(whole.layers[2:], parts.layers[2:], strict=True):
        np.testing.assert_allclose(one.slope, other.slope, rtol=1e-9)
        assert other.passed.all()


def test_what_is_not_finite_fails():
    e = seed_example()
    found = check(replace(e, z=[None, None, np.array([np.inf, 0.65]), *e.z[3:]]))
    assert not found.passed and found.units[2, 1].verdict == "FAIL" == found.units[2, 2].verdict


def test_the_plain_form_has_every_unit():
    found = check(seed_example()).plain()
    assert found["passed"] and [len(layer["units"]) for layer in found["layers"]] == [2, 2, 1]
    assert found["layers"][0]["units"][1]["delta"] == seed_example().delta[2][1]
