"""The damped Kronecker inverse against the dense matrix that it is the inverse of."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.optimizers import kronecker
from gpubp.optimizers.curvature import Layer
from gpubp.optimizers.kronecker import Kronecker, level
from gpubp.optimizers.vectors import HOST, HostVectors

P = 64


def layers(full_first=(True, True), full_second=(True, True)):
    """3 → 5 → 2 in a vector of 64 with gaps."""
    return (
        Layer(slice(0, 15), slice(16, 21), 5, 3, full_first),
        Layer(slice(32, 42), slice(48, 50), 2, 5, full_second),
    )


def moments(n, seed):
    M = np.random.default_rng(seed).normal(size=(3 * n, n))
    return M.T @ M / (3 * n)


FACTORS = [moments(4, 0), moments(6, 1)], [moments(5, 2), moments(2, 3) * 7]


def dense(layer, A, G, share, mu):
    """The damped A ⊗ G on (b | W), row after row of W, as a matrix on the layer's places in the vector."""
    A, G = (np.diag(x) if x.ndim == 1 else x for x in (A, G))
    whole = np.kron(G + mu / share * np.eye(len(G)), A + share * np.eye(len(A)))
    k, n = layer.outputs, layer.inputs
    W = np.arange(layer.weights.start, layer.weights.stop).reshape(k, n)
    b = np.arange(layer.biases.start, layer.biases.stop)
    return np.column_stack([b, W]).ravel(), whole


@pytest.mark.parametrize("first", [(True, True), (False, True), (True, False), (False, False)])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_the_inverse_of_the_damped_product(first, threads):
    parts = layers(first, (False, True))
    A, G = ([x.copy() for x in side] for side in FACTORS)
    A, G = (
        [x if layer.full[i] else np.diag(x).copy() for x, layer in zip(side, parts, strict=True)]
        for i, side in enumerate((A, G))
    )
    mean = [np.trace(a if a.ndim == 2 else np.diag(a)) / len(a) for a in A]
    mean_G = [np.trace(g if g.ndim == 2 else np.diag(g)) / len(g) for g in G]
    mu = float(0.3 * np.mean(np.multiply(mean, mean_G)) + 0.01)
    it = Kronecker(parts, HostVectors(threads))
    assert level(A, G, 0.3, 0.01) == pytest.approx(mu)
    shares = it.shares(A, G, mu, np.zeros(2), same=False)
    # π² = (tr A/dim A)/(tr G/dim G); π√μ is added to A and √μ/π to G
    np.testing.assert_allclose(shares, np.sqrt(np.divide(mean, mean_G) * mu))
    it.set(A, G, mu, shares)
    v, out = np.random.default_rng(5).normal(size=P), np.zeros(P)
    it.apply(v, out)
    touched = np.zeros(P, bool)
    for layer, a, g, share in zip(parts, A, G, shares, strict=True):
        places, whole = dense(layer, a, g, share, mu)
        touched[places] = True
        np.testing.assert_allclose(whole @ out[places], v[places], rtol=1e-10, atol=1e-12)
    assert not out[~touched].any()


def test_the_first_inverse_is_kept_while_its_share_is_near_enough(monkeypatch):
    it = Kronecker(layers(), HOST)
    asked: list[int] = []
    real = kronecker._inverted
    monkeypatch.setattr(kronecker, "_inverted", lambda f, added: asked.append(len(f)) or real(f, added))
    A, G = FACTORS
    shares = it.shares(A, G, 0.3, np.zeros(2), same=False)
    work = it.set(A, G, 0.3, shares)
    assert sorted(asked) == [2, 4, 5, 6] and work == 2**3 + 4**3 + 5**3 + 6**3
    G = [1.5 * g for g in G]  # another draw
    near = it.shares(A, G, 0.3, shares, same=True)
    assert near[0] == shares[0] and near[1] != shares[1] * 1.5
    asked.clear()
    work = it.set([A[0], A[1] * 1.1], G, 0.3, near, kept=True)
    assert sorted(asked) == [2, 5, 6] and work == 2**3 + 5**3 + 6**3
    far = it.shares(A, [100 * G[0], G[1]], 0.3, near, same=True)
    assert far[0] != near[0]
    assert it.shares(A, G, 0.3, near, same=False)[0] != near[0]


def test_factors_without_an_inverse():
    zero, rank = np.zeros((3, 3)), np.outer(np.arange(4.0), np.arange(4.0))
    np.testing.assert_array_equal(kronecker._inverted(zero, 0.5), 2 * np.eye(3))
    np.testing.assert_allclose(kronecker._inverted(rank, 1e-3) @ (rank + 1e-3 * np.eye(4)), np.eye(4), atol=1e-9)
    # by rounding not even positive: more is added until it is
    bent = np.diag([1.0, 1.0, 1.0]) + 1e-3
    bent[0, 1] = bent[1, 0] = 1.1
    found = kronecker._inverted(bent, 1e-6)
    assert np.isfinite(found).all() and (np.linalg.eigvalsh(found) > 0).all()
    it = Kronecker(layers(), HOST)
    nothing = [np.zeros_like(a) for a in FACTORS[0]], [np.zeros_like(g) for g in FACTORS[1]]
    it.set(*nothing, 0.3, it.shares(*nothing, 0.3, np.zeros(2), same=False))
    out = np.zeros(P)
    it.apply(np.ones(P), out)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("n", [1, 7, 96, 97, 200, 333])
def test_the_inverse_by_schur_complements_is_one_and_symmetric(n):
    M = moments(n, n) + 0.01 * np.eye(n)
    found = kronecker._of_positive(M)
    assert (found == found.T).all()
    np.testing.assert_allclose(found @ M, np.eye(n), atol=1e-10)
