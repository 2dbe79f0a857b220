"""A damped Kronecker-factored inverse of the Gauss–Newton matrix, to be applied to vectors.

Of a layer whose curvature is about A ⊗ G, the inverse of (A + π√μ I) ⊗ (G + √μ/π I) takes the gradient (b | W) of its
biases and weights to

    (G + √μ/π I)⁻¹ (b | W) (A + π√μ I)⁻¹            π² = (tr A / dim A) / (tr G / dim G)

(Martens and Grosse 2015, section 6.3: factored damping, with their π of eq. 31). μ is `damping` times the mean over all
layers of the mean eigenvalue of A ⊗ G, and λ's share: one μ for all layers, so that those which hardly matter are not
taken too seriously.

Inverses are found on the host, by LAPACK in float64, and applied where the vectors live. The inputs' A does not change
during a run, and its inverse, the largest, is kept as long as its share of the damping stays within `KEEP` of what it
was found for; G's share takes up the rest, so the product of the two is μ always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .curvature import Layer
from .elementwise import elementwise
from .vectors import Vectors

Factor = Sequence[np.ndarray]  # of each layer


@elementwise("a, b", "", "c", "c = a * b;")
def product(a: Any, b: Any) -> tuple[Any, ...]:
    """a·b."""
    return (a * b,)


KEEP = 2.0  # a share of the damping that is off by less keeps the inverse
TINY = 1e-30  # where factors are zero something must be added all the same


class Kronecker:
    """The inverse for the factors that were set last.

    Args:
        layers: where the layers' parameters lie; beyond them results are 0.
        vectors: where vectors live.
    """

    def __init__(self, layers: Sequence[Layer], vectors: Vectors) -> None:
        self._layers = layers
        self._work = vectors.zeros(max(layer.outputs * layer.inputs for layer in layers))
        self._short = vectors.zeros(max(layer.outputs for layer in layers))
        self._parts = [_Inverse(layer, vectors) for layer in layers]

    @staticmethod
    def shares(A: Factor, G: Factor, mu: float, known: np.ndarray, same: bool) -> np.ndarray:
        """What is to be added to the diagonal of each layer's A, (layers,).

        Args:
            known: what was added last.
            same: whether the first layer's A is still the same, so that its share may stay.
        """
        means = [(max(_mean(a), TINY), max(_mean(g), TINY)) for a, g in zip(A, G, strict=True)]
        found = np.array([math.sqrt(a / g) * math.sqrt(mu) for a, g in means])
        if same and found[0] / KEEP < known[0] < found[0] * KEEP:
            found[0] = known[0]
        return found

    def set(self, A: Factor, G: Factor, mu: float, shares: np.ndarray, *, kept: bool = False) -> int:
        """Have the inverse of these factors damped by μ; the arithmetic operations it takes.

        Args:
            kept: whether the first layer's A and its share are those of the last time, so that its inverse stays.
        """
        for number, part in enumerate(self._parts):
            share = float(shares[number])
            part.set(A[number], G[number], share, mu / share, keep=kept and number == 0)
        return sum(_work(factor) for factor in (*A[kept:], *G))

    def apply(self, v: Any, out: Any) -> None:
        """out ← the inverse times v, both (P,) where vectors live; beyond the layers `out` stays as it is."""
        for part in self._parts:
            part.apply(v, out, self._work, self._short)

    @property
    def operations(self) -> int:
        """Arithmetic operations of `apply`."""
        each = ((l.inputs, l.outputs, *l.full) for l in self._layers)
        return sum(2 * n * k * ((n if full_A else 1) + (k if full_G else 1)) for n, k, full_A, full_G in each)


def level(A: Factor, G: Factor, damping: float, decay: float) -> float:
    """μ: `damping` times the mean over layers of the mean eigenvalue of A ⊗ G, and λ/Σw, `decay`."""
    means = [_mean(a) * _mean(g) for a, g in zip(A, G, strict=True)]
    return min(max(damping * math.fsum(means) / len(means) + decay, TINY), 1 / TINY**10)


class _Inverse:
    """Of one layer. Of A's inverse the bias's corner, its row and the rest R lie apart, as b and W do."""

    def __init__(self, layer: Layer, vectors: Vectors) -> None:
        self._layer, self._vectors = layer, vectors
        n, k = layer.inputs, layer.outputs
        full_A, full_G = layer.full
        self._corner, self._row, self._R = (
            (vectors.zeros(*s) for s in ((1, 1), (1, n), (n, n))) if full_A else (None,) * 3
        )
        self._G = vectors.zeros(k, k) if full_G else None
        # diagonals are spread over all of W and b
        self._D, self._d = (None, None) if full_A and full_G else (vectors.zeros(k * n), vectors.zeros(k))
        self._of_A: np.ndarray | None = None  # its inverse, if it is a diagonal
        self._known = False

    def set(self, A: np.ndarray, G: np.ndarray, to_A: float, to_G: float, *, keep: bool) -> None:
        put = self._vectors.put
        if not (keep and self._known):
            inverse = _inverted(A, to_A)
            if self._R is None:
                self._of_A = inverse
            else:
                put(inverse[:1, :1], self._corner)
                put(inverse[:1, 1:], self._row)
                put(inverse[1:, 1:], self._R)
            self._known = True
        of_G = _inverted(G, to_G)
        if self._G is not None:
            put(of_G, self._G)
        if self._D is not None:
            a = np.ones(len(A)) if self._of_A is None else self._of_A
            g = np.ones(len(G)) if self._G is not None else of_G
            put(np.outer(g, a[1:]).ravel(), self._D)
            put(g * a[0], self._d)

    def apply(self, v: Any, out: Any, work: Any, short: Any) -> None:
        layer, vectors = self._layer, self._vectors
        n, k = layer.inputs, layer.outputs
        W, b, T, t = v[layer.weights], v[layer.biases], out[layer.weights], out[layer.biases]
        if self._G is not None:
            T, t = work[: k * n], short[:k]
        if self._R is None:
            vectors.apply(product, (W, self._D), (), (T,))
            vectors.apply(product, (b, self._d), (), (t,))
        else:
            W, b, T, t = W.reshape(k, n), b.reshape(1, k), T.reshape(k, n), t.reshape(1, k)
            vectors.gemm(W, self._R, T)
            vectors.gemm(b, self._row, T, transpose="tn", beta=1)
            vectors.gemm(self._row, W, t, transpose="nt")
            vectors.gemm(self._corner, b, t, beta=1)
        if self._G is not None:
            vectors.gemm(self._G, T.reshape(k, n), out[layer.weights].reshape(k, n))
            vectors.gemm(t.reshape(1, k), self._G, out[layer.biases].reshape(1, k))
        elif self._R is not None:
            vectors.apply(product, (T.reshape(k * n), self._D), (), (T.reshape(k * n),))
            vectors.apply(product, (t.reshape(k), self._d), (), (t.reshape(k),))


def _mean(factor: np.ndarray) -> float:
    """The mean eigenvalue."""
    return float(np.trace(factor) if factor.ndim == 2 else factor.sum()) / len(factor)


def _work(factor: np.ndarray) -> int:
    return len(factor) ** 3 if factor.ndim == 2 else len(factor)


def _inverted(factor: np.ndarray, added: float) -> np.ndarray:
    """(factor + added·I)⁻¹, contiguous; with ten times more added, and again, where rounding has left no inverse."""
    if factor.ndim == 1:
        return 1 / (np.maximum(factor, 0) + added)
    of_diagonal = np.diagonal(factor)
    alive = np.flatnonzero(of_diagonal > 0)  # inputs that are always 0 need no inverse: of images, a fifth
    part = factor if len(alive) == len(factor) else factor[np.ix_(alive, alive)]
    while added < math.inf:
        damped = part.copy()
        damped.flat[:: len(part) + 1] += added
        with np.errstate(all="ignore"):
            inverse = _of_positive(damped)
        if np.isfinite(inverse).all() and (np.diagonal(inverse) > 0).all():
            break
        added *= 10
    else:
        return np.zeros_like(factor)  # λ beyond all measure: what is left is 0
    if part is factor:
        return inverse
    whole = np.zeros_like(factor)
    whole.flat[:: len(factor) + 1] = 1 / added
    whole[np.ix_(alive, alive)] = inverse
    return whole


_SMALL = 96  # rows below which LAPACK's own inverse is as quick


def _of_positive(M: np.ndarray) -> np.ndarray:
    """M⁻¹ of a symmetric positive definite M, exactly symmetric, by Schur complements.

    All of it is matrix products: two to three times as quick as an LU decomposition with its n right sides, which is
    all that NumPy has for this. Where M is not positive definite, the diagonal of the result is not positive or not
    finite.
    """
    n = len(M)
    if n <= _SMALL:
        try:
            inverse = np.linalg.inv(M)
        except np.linalg.LinAlgError:
            return np.full_like(M, np.nan)
        return (inverse + inverse.T) / 2
    h = n // 2
    B = M[:h, h:]
    inverse = np.empty_like(M)
    first = _of_positive(np.ascontiguousarray(M[:h, :h]))
    AB = first @ B
    rest = _of_positive(M[h:, h:] - B.T @ AB)
    W = AB @ rest
    inverse[h:, h:] = rest
    inverse[:h, h:], inverse[h:, :h] = -W, -W.T
    first += W @ AB.T
    inverse[:h, :h] = (first + first.T) / 2
    return inverse
