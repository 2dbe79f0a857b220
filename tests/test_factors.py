"""Kronecker factors against their definition, row by row; and that no bit of them depends on how they were found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from raw_rows import RawRows

import gpubp
from gpubp import activation, cost, factors
from gpubp.backend import choose
from gpubp.data.rows import Rows
from gpubp.data.scaling import Scaling
from gpubp.data.source import ArrayRows
from gpubp.factors import FactorSample
from gpubp.objective import Objective

NONE = Scaling("none", None, None)
m = 700


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def sample_of(
    network, rows: Rows, *, threads=1, leaves=1, precision: Any = np.float64, seed=0, kernel="numpy", whole=None
):
    backend, _ = choose("cpu", threads=threads, kernel=kernel)
    whole = whole or [(True, True)] * (network.L - 1)
    more = {"seed": seed, "leaves": leaves, "threads": threads}
    return FactorSample(network, rows, backend, np.dtype(precision), whole, **more)


def by_definition(network, Theta, X, w, signs):
    """A and G of each layer as the sums over rows that they are, for elementwise g and H by finite differences."""
    g, W = network.g, network.unpack(Theta)
    assert g.name
    A, G = ([0.0] * (network.L - 1) for _ in range(2))
    for x, weight, e in zip(X, w, signs, strict=True):
        a, zs = [x], []
        for l, T in enumerate(W):
            z = T @ np.concatenate([[1], a[-1]])
            zs.append(z)
            a.append(g.g(np, z[None], np.zeros((1, 1)))[0] if l < len(W) - 1 else z)
        H = curvature_of(network, zs[-1])
        assert np.linalg.eigvalsh(H).min() > -1e-12
        delta = root_of(network, zs[-1]) @ e
        for l in range(len(W) - 1, -1, -1):
            one = np.concatenate([[1], a[l]])
            A[l] = A[l] + weight * np.outer(one, one)
            G[l] = G[l] + weight * np.outer(delta, delta)
            if l:
                at = (a[l][None],) if g.slope_from_a else (zs[l - 1][None], np.zeros((1, 1)))
                delta = g.slope(np, (W[l][:, 1:].T @ delta)[None], *at)[0]
    return [x / w.sum() for x in A], [x / w.sum() for x in G]


def outputs(network, z):
    if network.cost == "softmax":
        e = np.exp(z - z.max())
        return e / e.sum()
    return z if network.cost == "squares" else 1 / (1 + np.exp(-z))


def curvature_of(network, z):
    h = outputs(network, z)
    if network.cost == "softmax":
        return np.diag(h) - np.outer(h, h)
    return np.diag({"squares": np.ones_like(h), "logistic": h * (1 - h)}.get(network.cost, (h * (1 - h)) ** 2))


def root_of(network, z):
    h = outputs(network, z)
    if network.cost == "softmax":
        return np.diag(np.sqrt(h)) - np.outer(h, np.sqrt(h))
    return np.sqrt(curvature_of(network, z))


@pytest.mark.parametrize("name", [name for name in cost.names() if cost.cost(name).root])
@pytest.mark.parametrize("g", activation.names())
def test_factors_are_their_definition(g, name):
    network = gpubp.Network((5, 7, 4, 3), g, name)
    X, w = numbers(m, 5), np.arange(m) % 5.0
    Theta = network.initial_Theta(3)
    Theta[Theta != 0] += 0.1
    rows = Rows(ArrayRows(X), X, NONE, None, w)
    sample = sample_of(network, rows)
    chosen = factors._chosen(rows, np.dtype(np.float64), 0)
    assert sample.rows == len(chosen) and factors.LEAST * 0.75 < len(chosen) <= factors.LEAST
    A, G, _ = sample.factors(Theta, 2)
    wanted = by_definition(network, Theta, X[chosen], w[chosen], sample._signs(2))
    for found, sums in zip((A, G), wanted, strict=True):
        for one, other in zip(found, sums, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_mean_over_draws_is_the_curvature():
    """B ε ε' B' has the mean H: of the last layer G is the mean of H over rows."""
    network = gpubp.Network((4, 3), "tanh", "softmax")
    X = numbers(600, 4)
    sample = sample_of(network, Rows(ArrayRows(X), X, NONE))
    Theta = network.initial_Theta(1)
    chosen = factors._chosen(Rows(ArrayRows(X), X, NONE), np.dtype(np.float64), 0)
    mean = np.mean([sample.factors(Theta, draw)[1][0] for draw in range(60)], axis=0)
    T = network.unpack(Theta)[0]
    H = np.mean([curvature_of(network, T @ np.concatenate([[1], x])) for x in X[chosen]], axis=0)
    np.testing.assert_allclose(mean, H, atol=0.004)
    assert abs(mean - np.diag(np.diag(H))).max() > 0.05  # or the tolerance would say nothing


def test_one_output_needs_no_chance():
    network = gpubp.Network((4, 6, 1), "tanh", "logistic")
    X = numbers(600, 4)
    sample = sample_of(network, Rows(ArrayRows(X), X, NONE))
    Theta = network.initial_Theta(1)
    for one, other in zip(sample.factors(Theta, 0)[1], sample.factors(Theta, 7)[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_bit_depends_on_threads_or_on_what_is_kept(tmp_path):
    network = gpubp.Network((30, 20, 8, 4), "sigmoid", "softmax")
    X, w = numbers(9000, 30).astype(np.float32), 1 + np.arange(9000) % 3.0
    X = 2 + 3 * X
    scaling = Scaling("standard", X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64))
    raw: Any = RawRows(tmp_path / "rows", X)
    found = []
    for threads, source, kept in ((1, ArrayRows(X), X), (2, ArrayRows(X), X[:4000]), (3, raw, X[:0])):
        sample = sample_of(network, Rows(source, kept, scaling, None, w), threads=threads, leaves=16, precision="f4")
        assert sample._leaves == 1 and sample.rows == 900
        found.append(sample.factors(network.initial_Theta(2), 1))
        sample.close()
    for other in found[1:]:
        for A, B in zip((*found[0][0], *found[0][1]), (*other[0], *other[1]), strict=True):
            assert A.tobytes() == B.tobytes()


def test_leaves_change_rounding_and_nothing_else():
    network = gpubp.Network((10, 6, 3), "tanh", "softmax")
    X = numbers(30_000, 10)
    rows = Rows(ArrayRows(X), X, NONE)
    one = sample_of(network, rows, leaves=1).factors(network.initial_Theta(), 0)
    samples = [sample_of(network, rows, leaves=64, threads=n) for n in (1, 2, 3)]
    assert samples[0]._leaves == 4 and samples[0].rows == 3000
    many = [sample.factors(network.initial_Theta(), 0) for sample in samples]
    for a, b, c, d in zip(*([*A, *G] for A, G, _ in (one, *many)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
        assert b.tobytes() == c.tobytes() == d.tobytes()
    assert one[2] == many[0][2]


def test_scaled_rows_give_scaled_moments():
    network = gpubp.Network((6, 4, 2), "sigmoid", "softmax")
    X = 50 + 3 * numbers(2000, 6)
    scaling = Scaling("standard", X.mean(0), X.std(0))
    there = sample_of(network, Rows(ArrayRows(X), X, scaling)).factors(network.initial_Theta(), 0)
    Z = scaling.apply(X)
    here = sample_of(network, Rows(ArrayRows(Z), Z, NONE)).factors(network.initial_Theta(), 0)
    for a, b in zip((*there[0], *there[1]), (*here[0], *here[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_where_a_full_factor_is_dear_its_diagonal_is_taken():
    network = gpubp.Network((9, 7, 3), "tanh", "softmax")
    X = numbers(600, 9)
    rows = Rows(ArrayRows(X), X, NONE, None, 1 + np.arange(600) % 2.0)
    full = sample_of(network, rows).factors(network.initial_Theta(), 0)
    sample = sample_of(network, rows, whole=[(False, False), (False, True)])
    for draw in (0, 0):  # the inputs' factor is kept in between
        A, G, operations = sample.factors(network.initial_Theta(), draw)
        assert [a.shape for a in A] == [(10,), (8,)] and [g.shape for g in G] == [(7,), (3, 3)]
        for a, b in zip((*A, *G), (*full[0], *full[1]), strict=True):
            np.testing.assert_allclose(a, b if a.ndim == 2 else np.diag(b), rtol=1e-12)
        assert operations < full[2]


def test_a_factor_is_full_where_its_inverse_is_worth_a_few_passes():
    assert factors.full(64, 1.0) and not factors.full(65, 1.0)
    assert factors.full(784, 4e8) and not factors.full(3500, 3e8)
    assert not factors.full(4096, 1e30) and factors.full(4095, 1e30)
    # 3,500 inputs, 1,000 rows: the inverse of the inputs' factor would take 150 passes
    network = gpubp.Network((3500, 16, 1), "tanh", "logistic")
    X = np.zeros((1000, 3500), np.float32)
    it = Objective(network, Rows(ArrayRows(X), X, NONE, np.zeros(1000, np.uint32)), backend=choose("cpu")[0])
    assert [layer.full for layer in it.curvature.layers] == [(False, True), (True, True)]
    it.close()


def test_the_sample_is_spread_over_the_rows_and_takes_none_without_weight():
    X = np.zeros((10_000, 2), np.float32)
    w = np.zeros(10_000)
    w[7000:] = 2.0
    everywhere = factors._chosen(Rows(ArrayRows(X), X, NONE), np.dtype(np.float32), 1)
    assert len(everywhere) == 1000 and (np.diff(everywhere) > 0).all()
    assert (everywhere // 10 == np.arange(1000)).all() and len(set(everywhere % 10)) == 10
    some = factors._chosen(Rows(ArrayRows(X), X, NONE, None, w), np.dtype(np.float32), 1)
    assert len(some) == 300 and some.min() >= 7000
    other = factors._chosen(Rows(ArrayRows(X), X, NONE), np.dtype(np.float32), 2)
    assert (other != everywhere).any()


def test_draws_and_seeds_are_told_apart_and_operations_counted():
    network = gpubp.Network((6, 4, 3), "tanh", "softmax")
    X = numbers(600, 6)
    rows = Rows(ArrayRows(X), X, NONE)
    sample = sample_of(network, rows)
    Theta = network.initial_Theta()
    first, again, other = (sample.factors(Theta, draw) for draw in (0, 0, 1))
    assert first[1][0].tobytes() == again[1][0].tobytes() != other[1][0].tobytes()
    assert first[0][0] is not None and first[0][0].tobytes() == other[0][0].tobytes()
    n = sample.rows
    assert other[2] == n * (2 * (24 + 12) + 2 * 12 + (16 + 9) + 16)
    assert first[2] == again[2] == other[2] + n * 36
    # the same in a process that goes on with a run
    assert sample_of(network, rows).factors(Theta, 1)[2] == other[2]
    assert sample_of(network, rows, seed=1).factors(Theta, 0)[1][0].tobytes() != first[1][0].tobytes()
