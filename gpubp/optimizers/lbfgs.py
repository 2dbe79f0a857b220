"""L-BFGS: a quasi-Newton method that remembers the last few steps instead of a matrix.

Nocedal and Wright, Numerical Optimization, 2nd ed. 2006 (N&W), Algorithms 7.4 (the direction) and 7.5 (the step):

    Θ_{k+1} = Θ_k + α d,   d = −H ∇J(Θ_k)

where H is the BFGS update (N&W eq. 6.17, 7.16) of γI by the last `history` pairs

    s = Θ_{k+1} − Θ_k,   y = ∇J(Θ_{k+1}) − ∇J(Θ_k),   ρ = 1/sᵀy,   γ = sᵀy/yᵀy of the newest pair (eq. 7.20)

and α meets the strong Wolfe conditions (`line_search`). After the first step α = 1 is nearly always accepted, so an
iteration costs one evaluation.

The pairs live in two rings, S and Y: pair number i is row i mod history.

H∇J is made of ∇J and the pairs, so the two-loop recursion can run on their coefficients alone, once the products of all
with all are known (W. Chen, Z. Wang, J. Zhou, Large-scale L-BFGS using MapReduce, NIPS 2014, with Sᵀg, Yᵀg and the
matrices SᵀY, YᵀY). Those with older pairs are kept, so a step goes over S and Y twice: once for their products with the
newest y and ∇J, and once for the sum. Each product is one sum and each element of the sum another, so threads may
share them without changing a bit, and a GPU gives all products of a step in one answer. Written on vectors, the
recursion has an order that allows neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .base import FILLED, SCRATCH, Function
from .descent import Descent, DescentState
from .line_search import Search
from .vectors import HOST, Vectors

# A pair whose s and y are closer to a right angle than this carries rounding, not curvature: with condition number κ
# the cosine of a quadratic is 2√κ/(κ + 1) at least.
SMALLEST_COSINE = 1e-10


@dataclass(kw_only=True)
class LBFGSState(DescentState):
    """Θ and the rings of pairs.

    Attributes:
        S, Y: the pairs, (history, P) float64.
        rho: ρ of each pair, (history,) float64.
        gamma: γ of the newest pair.
        pairs: pairs stored since the last restart; the last `history` of them are in the rings.
        SY, YY: SᵀY and YᵀY, (history, history) scratch: of pairs i and j at [i mod history, j mod history]; SᵀY where i
            is not newer than j. They follow from S and Y, bit for bit.
        known: scratch: the pairs whose products are in them.
        Sg, Yg: Sᵀ∇J and Yᵀ∇J, (history,) scratch, and gg, ∇Jᵀ∇J, where it was asked for; of Θ's ∇J if `fresh`.
        step, change: s and y of the last point tried, (P,) scratch.
    """

    S: Any = field(metadata={FILLED: "pairs"})
    Y: Any = field(metadata={FILLED: "pairs"})
    rho: np.ndarray
    gamma: float = 1.0
    pairs: int = 0
    SY: np.ndarray = field(metadata=SCRATCH)
    YY: np.ndarray = field(metadata=SCRATCH)
    known: int = field(default=0, metadata=SCRATCH)
    Sg: np.ndarray = field(metadata=SCRATCH)
    Yg: np.ndarray = field(metadata=SCRATCH)
    gg: float = field(default=math.nan, metadata=SCRATCH)
    fresh: bool = field(default=False, metadata=SCRATCH)
    step: Any = field(metadata=SCRATCH)
    change: Any = field(metadata=SCRATCH)

    def rows(self, pairs: int) -> list[int]:
        """Where the last of so many pairs are, the oldest first."""
        history = len(self.rho)
        return [pair % history for pair in range(max(0, pairs - history), pairs)]

    def times_H(self, g: Any, out: Any, sign: float = 1.0) -> float:
        """out = sign · H g: the two-loop recursion, N&W Algorithm 7.4, on coefficients. (P,); there is a pair.

        Returns:
            sign · gᵀH g where reading is dear; else NaN.
        """
        rows = self.rows(self.pairs)
        fresh = self.fresh and g is self.gradient
        Sg, Yg, gg = (self.Sg[rows], self.Yg[rows], self.gg) if fresh else self._measured(g, rows)
        p, q = np.zeros_like(self.rho), np.zeros_like(self.rho)
        with np.errstate(over="ignore", invalid="ignore"):
            p[rows], q[rows] = self._coefficients(rows, Sg, Yg)
            product = self.gamma * gg + np.dot(p[rows], Sg) + np.dot(q[rows], Yg)
        self.vectors.combine(sign, self.gamma, g, ((p, self.S), (q, self.Y)), out)
        return sign * float(product)

    def _measured(self, g: Any, rows: list[int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Sᵀg, Yᵀg and gᵀg, in the bits of `foresee`; and SY and YY of pairs not known, as a restored state's."""
        unknown = self.rows(self.pairs)[max(0, self.known - self.pairs + len(rows)) :]
        vectors = [g, *(self.Y[j] for j in unknown)]
        gg = self.vectors.dot(g, g) if self.vectors.early else math.nan
        gg, (of_S, of_Y) = self.vectors.read(gg, self.vectors.products((self.S, self.Y), rows, vectors))
        for j, Sy, Yy in zip(unknown, of_S[1:], of_Y[1:], strict=True):
            older = rows[: (n := rows.index(j) + 1)]
            self.SY[older, j] = Sy[:n]
            self.YY[j, older] = self.YY[older, j] = Yy[:n]
        self.known = self.pairs
        return of_S[0], of_Y[0], gg

    def _coefficients(self, rows: list[int], Sg: np.ndarray, Yg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p and q of H g = γ g + Σ p_k s_k + Σ q_k y_k, the oldest pair first."""
        SY, YY, rho = self.SY[np.ix_(rows, rows)], self.YY[np.ix_(rows, rows)], self.rho[rows]
        a, p = np.zeros(len(rows)), np.zeros(len(rows))
        for k in range(len(rows) - 1, -1, -1):  # r = g − Σ a y of the newer pairs;  a = ρ sᵀr
            a[k] = rho[k] * (Sg[k] - np.dot(SY[k, k + 1 :], a[k + 1 :]))
        q = -self.gamma * a
        Yr = self.gamma * Yg + YY @ q
        for k in range(len(rows)):  # r = γ(g − Σ a y) + Σ (a − b) s of the older pairs;  b = ρ yᵀr
            p[k] = a[k] - rho[k] * (Yr[k] + np.dot(SY[:k, k], p[:k]))
        return p, q

    def foresee(self) -> Sequence[Any]:
        g, s, y, vectors = self.trial_gradient, self.step, self.change, self.vectors
        vectors.subtract(self.trial, self.Theta, out=s)
        vectors.subtract(g, self.gradient, out=y)
        pairs = (s, y), (s, s), (y, y), (s, g), (y, g)
        # only where reading is dear the slope is made of gᵀg
        dots = vectors.dots(*pairs, (g, g)) if vectors.early else [*vectors.dots(*pairs), math.nan]
        return (*dots, vectors.products((self.S, self.Y), self.rows(self.pairs if self.aimed else 0), (g, y)))

    def remember(self, foreseen: Sequence[Any]) -> None:
        """Store the pair of the step from Θ to the trial in place of the oldest, if it carries curvature.

        `foreseen` is what was asked for by `foresee`: the products of the step and of the trial's ∇J.
        """
        sy, ss, yy, sg, yg, self.gg, (of_S, of_Y) = foreseen
        if not self.aimed:
            self.pairs = self.known = 0  # they misled
        rows = self.rows(self.pairs)
        self.Sg[rows], self.Yg[rows] = of_S[0], of_Y[0]
        if yy > 0 and sy > SMALLEST_COSINE * math.sqrt(ss) * math.sqrt(yy):
            j = self.pairs % len(self.rho)
            self.vectors.copy(self.step, self.S[j])
            self.vectors.copy(self.change, self.Y[j])
            self.rho[j], self.gamma = 1 / sy, sy / yy
            self.SY[rows, j], self.SY[j, j] = of_S[1], sy
            self.YY[rows, j], self.YY[j, rows], self.YY[j, j] = of_Y[1], of_Y[1], yy
            self.Sg[j], self.Yg[j] = sg, yg
            self.pairs += 1
            self.known = self.pairs
        self.fresh = True


@dataclass(frozen=True, kw_only=True)
class LBFGS(Descent[LBFGSState]):
    """L-BFGS with a strong-Wolfe line search.

    Attributes:
        history: pairs remembered. A pair costs 16 bytes for each parameter.
    """

    history: int = 30

    def check(self) -> None:
        self.require(self.history >= 1, "history", "1 or more")
        super().check()

    def within(self, P: int, memory: int) -> tuple[LBFGS, str]:
        most = max(1, memory // (16 * P))
        if self.history <= most:
            return self, ""
        return replace(self, history=most), (
            f"history shortened from {self.history} to {most} pairs of {16 * P / 1e6:,.0f} MB each"
        )

    def blank(self, P: int, vectors: Vectors = HOST) -> LBFGSState:
        n = self.history
        return LBFGSState(
            Theta=vectors.zeros(P),
            gradient=vectors.zeros(P),
            S=vectors.zeros(n, P),
            Y=vectors.zeros(n, P),
            rho=np.zeros(n),
            SY=np.zeros((n, n)),
            YY=np.zeros((n, n)),
            Sg=np.zeros(n),
            Yg=np.zeros(n),
            step=vectors.zeros(P),
            change=vectors.zeros(P),
            direction=vectors.zeros(P),
            trial=vectors.zeros(P),
            trial_gradient=vectors.zeros(P),
        )

    def renew(self, f: Function, state: LBFGSState) -> None:
        super().renew(f, state)
        state.fresh = False

    def aim(self, f: Function, state: LBFGSState) -> tuple[float, float] | None:
        if not state.pairs:
            return None
        vectors, g = state.vectors, state.gradient
        slope = state.times_H(g, state.direction, sign=-1.0)
        if not vectors.early:  # as a product of vectors it would be one more wait
            (slope,) = vectors.read(vectors.dot(g, state.direction))
        return slope, 1.0

    def learn(self, state: LBFGSState, search: Search, foreseen: Sequence[Any], considered: Any) -> None:
        state.remember(foreseen)
