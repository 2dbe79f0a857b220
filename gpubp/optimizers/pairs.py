"""The pairs of a quasi-Newton method with limited memory, and H ∇J made of them.

H is the BFGS update (Nocedal and Wright 2006, N&W, eq. 6.17 and 7.16) of γP by the last `history` pairs

    s = Θ_{k+1} − Θ_k,   y = ∇J(Θ_{k+1}) − ∇J(Θ_k),   ρ = 1/sᵀy,   γ = sᵀy/yᵀPy of the newest pair

where P is the identity (then γ is N&W's eq. 7.20) or what a subclass knows of the curvature. The pairs live in two
rings, S and Y: pair number i is row i mod history. Z is PY.

H∇J is made of P∇J and the pairs, so the two-loop recursion can run on their coefficients alone, once the products of
all with all are known (W. Chen, Z. Wang, J. Zhou, Large-scale L-BFGS using MapReduce, NIPS 2014, with Sᵀg, Zᵀg and the
matrices SᵀY, ZᵀY). Those with older pairs are kept, so a step goes over S and Z twice: once for their products with the
newest y and ∇J, and once for the sum. Each product is one sum and each element of the sum another, so threads may
share them without changing a bit, and a GPU gives all products of a step in one answer. Written on vectors, the
recursion has an order that allows neither.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np

from .base import FILLED, SCRATCH, Function
from .descent import Descent, DescentState
from .line_search import Search
from .vectors import Vectors

# A pair whose s and y are closer to a right angle than this carries rounding, not curvature: with condition number κ
# the cosine of a quadratic is 2√κ/(κ + 1) at least.
SMALLEST_COSINE = 1e-10


@dataclass(kw_only=True)
class PairsState(DescentState):
    """Θ and the rings of pairs.

    Attributes:
        S, Y: the pairs, (history, P) float64.
        rho: ρ of each pair, (history,) float64.
        gamma: γ of the newest pair.
        pairs: pairs stored since the last restart; the last `history` of them are in the rings.
        SY, ZY: SᵀY and ZᵀY, (history, history) scratch: of pairs i and j at [i mod history, j mod history]; SᵀY where i
            is not newer than j. They follow from the rings, bit for bit.
        known: scratch: the pairs whose products are in them.
        Sg, Zg: Sᵀ∇J and Zᵀ∇J, (history,) scratch, and gPg, ∇JᵀP∇J, where it was asked for; of Θ's ∇J if `fresh`.
        step, change: s and y of the last point tried, (P,) scratch.
        stored, stores: scratch: how often a pair was stored, and of each row, (history,), at which of these times.
    """

    S: Any = field(metadata={FILLED: "pairs"})
    Y: Any = field(metadata={FILLED: "pairs"})
    rho: np.ndarray
    gamma: float = 1.0
    pairs: int = 0
    SY: np.ndarray = field(metadata=SCRATCH)
    ZY: np.ndarray = field(metadata=SCRATCH)
    known: int = field(default=0, metadata=SCRATCH)
    Sg: np.ndarray = field(metadata=SCRATCH)
    Zg: np.ndarray = field(metadata=SCRATCH)
    gPg: float = field(default=math.nan, metadata=SCRATCH)
    fresh: bool = field(default=False, metadata=SCRATCH)
    step: Any = field(metadata=SCRATCH)
    change: Any = field(metadata=SCRATCH)
    stored: int = field(default=0, metadata=SCRATCH)
    stores: np.ndarray = field(metadata=SCRATCH)

    # What H begins with is γP, and P is here the identity. A subclass with another P overrides these three.

    @property
    def Z(self) -> Any:
        """P y of each pair, (history, P)."""
        return self.Y

    def times_P(self, g: Any) -> Any:
        """P g, to be read at once; where g is the state's gradient it is known."""
        return g

    def foresee_P(self) -> tuple[Any, Any]:
        """P of `change` and of the trial's ∇J."""
        return self.change, self.trial_gradient

    def rows(self, pairs: int) -> list[int]:
        """Where the last of so many pairs are, the oldest first."""
        history = len(self.rho)
        return [pair % history for pair in range(max(0, pairs - history), pairs)]

    def times_H(self, g: Any, out: Any, sign: float = 1.0) -> float:
        """out = sign · H g: the two-loop recursion, N&W Algorithm 7.4, on coefficients. (P,).

        Returns:
            sign · gᵀH g where reading is dear; else NaN.
        """
        rows = self.rows(self.pairs)
        fresh, Pg = self.fresh and g is self.gradient, self.times_P(g)
        Sg, Zg, gPg = (self.Sg[rows], self.Zg[rows], self.gPg) if fresh else self._measured(g, Pg, rows)
        p, q = np.zeros_like(self.rho), np.zeros_like(self.rho)
        with np.errstate(over="ignore", invalid="ignore"):
            p[rows], q[rows] = self._coefficients(rows, Sg, Zg)
            product = self.gamma * gPg + np.dot(p[rows], Sg) + np.dot(q[rows], Zg)
        self.vectors.combine(sign, self.gamma, Pg, ((p, self.S), (q, self.Z)), out)
        return sign * float(product)

    def _measured(self, g: Any, Pg: Any, rows: list[int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Sᵀg, Zᵀg and gᵀPg, in the bits of `foresee`; and SY and ZY of pairs not known, as a restored state's."""
        unknown = self.rows(self.pairs)[max(0, self.known - self.pairs + len(rows)) :]
        vectors = [g, *(self.Y[j] for j in unknown)]
        gPg = self.vectors.dot(g, Pg) if self.vectors.early else math.nan
        if not rows:
            return np.zeros(0), np.zeros(0), *self.vectors.read(gPg)
        gPg, (of_S, of_Z) = self.vectors.read(gPg, self.vectors.products((self.S, self.Z), rows, vectors))
        for j, Sy, Zy in zip(unknown, of_S[1:], of_Z[1:], strict=True):
            older = rows[: (n := rows.index(j) + 1)]
            self.SY[older, j] = Sy[:n]
            self.ZY[j, older] = self.ZY[older, j] = Zy[:n]
        self.known = self.pairs
        return of_S[0], of_Z[0], gPg

    def _coefficients(self, rows: list[int], Sg: np.ndarray, Zg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p and q of H g = γ P g + Σ p_k s_k + Σ q_k z_k, the oldest pair first."""
        SY, ZY, rho = self.SY[np.ix_(rows, rows)], self.ZY[np.ix_(rows, rows)], self.rho[rows]
        a, p = np.zeros(len(rows)), np.zeros(len(rows))
        for k in range(len(rows) - 1, -1, -1):  # r = g − Σ a y of the newer pairs;  a = ρ sᵀr
            a[k] = rho[k] * (Sg[k] - np.dot(SY[k, k + 1 :], a[k + 1 :]))
        q = -self.gamma * a
        Yr = self.gamma * Zg + ZY @ q
        for k in range(len(rows)):  # r = γP(g − Σ a y) + Σ (a − b) s of the older pairs;  b = ρ yᵀr
            p[k] = a[k] - rho[k] * (Yr[k] + np.dot(SY[:k, k], p[:k]))
        return p, q

    def foresee(self) -> Sequence[Any]:
        g, s, y, vectors = self.trial_gradient, self.step, self.change, self.vectors
        vectors.subtract(self.trial, self.Theta, out=s)
        vectors.subtract(g, self.gradient, out=y)
        z, Pg = self.foresee_P()
        pairs = [(s, y), (s, s), (y, y), (s, g), (z, g)]
        pairs += [(z, y)] if z is not y else []
        # only where reading is dear the slope is made of gᵀPg
        dots = vectors.dots(*pairs, (g, Pg)) if vectors.early else [*vectors.dots(*pairs), math.nan]
        rows = self.rows(self.pairs if self.aimed else 0)
        return (*dots, vectors.products((self.S, self.Z), rows, (g, y)) if rows else None)

    def remember(self, foreseen: Sequence[Any]) -> None:
        """Store the pair of the step from Θ to the trial in place of the oldest, if it carries curvature.

        `foreseen` is what was asked for by `foresee`: the products of the step and of the trial's ∇J.
        """
        sy, ss, yy, sg, zg, *zy, self.gPg, products = foreseen
        zy = zy[0] if zy else yy
        if not self.aimed:
            self.pairs = self.known = 0  # they misled
        rows = self.rows(self.pairs)
        of_S, of_Z = np.zeros((2, 2, 0)) if products is None else products
        self.Sg[rows], self.Zg[rows] = of_S[0], of_Z[0]
        if zy > 0 and yy > 0 and sy > SMALLEST_COSINE * math.sqrt(ss) * math.sqrt(yy):
            j = self.pairs % len(self.rho)
            self.store(j)
            self.rho[j], self.gamma = 1 / sy, sy / zy
            self.SY[rows, j], self.SY[j, j] = of_S[1], sy
            self.ZY[rows, j], self.ZY[j, rows], self.ZY[j, j] = of_Z[1], of_Z[1], zy
            self.Sg[j], self.Zg[j] = sg, zg
            self.pairs += 1
            self.known = self.pairs
        self.fresh = True

    def store(self, j: int) -> None:
        """The pair of the last point tried goes to row j of the rings."""
        self.vectors.copy(self.step, self.S[j])
        self.vectors.copy(self.change, self.Y[j])
        self.stored += 1
        self.stores[j] = self.stored

    def versions(self) -> dict[str, Sequence[Hashable]]:
        stores = self.stores.tolist()
        return {"S": stores, "Y": stores}


AnyPairs = TypeVar("AnyPairs", bound=PairsState)


@dataclass(frozen=True, kw_only=True)
class QuasiNewton(Descent[AnyPairs]):
    """The parent of methods that go along −H∇J. A subclass writes `blank` and its defaults.

    Attributes:
        history: pairs remembered.
    """

    history: int = 30

    def check(self) -> None:
        self.require(self.history >= 1, "history", "1 or more")
        super().check()

    def renew(self, f: Function, state: AnyPairs) -> None:
        super().renew(f, state)
        state.fresh = False

    def aim(self, f: Function, state: AnyPairs) -> tuple[float, float] | None:
        if not state.pairs:
            return None
        vectors, g = state.vectors, state.gradient
        slope = state.times_H(g, state.direction, sign=-1.0)
        if not vectors.early:  # as a product of vectors it would be one more wait
            (slope,) = vectors.read(vectors.dot(g, state.direction))
        return slope, 1.0

    def learn(self, state: AnyPairs, search: Search, foreseen: Sequence[Any], considered: Any) -> None:
        state.remember(foreseen)

    def _shortened(self, P: int, memory: int, each: int) -> tuple[Self, str]:
        """With no more pairs than fit, of so many bytes for each parameter."""
        most = max(1, memory // (each * P))
        if self.history <= most:
            return self, ""
        size = f"{each * P / 1e6:,.0f} MB"
        return replace(self, history=most), f"history shortened from {self.history} to {most} pairs of {size} each"

    def _buffers(self, P: int, vectors: Vectors) -> dict[str, Any]:
        """The fields of a `PairsState` that have no default."""
        n = self.history
        names = "Theta", "gradient", "step", "change", "direction", "trial", "trial_gradient"
        small = {"rho": np.zeros(n), "Sg": np.zeros(n), "Zg": np.zeros(n)}
        small |= {"stores": np.zeros(n, np.int64), "SY": np.zeros((n, n)), "ZY": np.zeros((n, n))}
        rings = {"S": vectors.matrix(n, P), "Y": vectors.matrix(n, P)}
        return {name: vectors.zeros(P) for name in names} | rings | small
