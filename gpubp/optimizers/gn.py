"""Damped Gauss–Newton without a matrix ("Hessian-free"): the step by conjugate gradients on exact products B v.

    Θ_{k+1} = Θ_k + α d,   (B + μ I) d ≈ −∇J(Θ_k)

J. Martens, Deep learning via Hessian-free optimization, ICML 2010, and J. Martens and I. Sutskever, Training deep and
recurrent networks with Hessian-free optimization, 2012; truncated Newton is Nocedal and Wright (N&W), Algorithm 7.1.

CG minimises q(d) = ∇J·d + dᵀ(B + μ I)d/2 from the last direction times `decay`, which mostly points the right way;
where that leads nowhere, q ≥ 0, it begins again at 0. It stops where an iteration no longer pays: after i of them, when
the last k = max(K, i/10) made less than k·`progress` of what all made (Martens 2010, section 4.4, with K = 10 and 5e-4,
for data of which a product took a small part; here it costs a pass and a half, and 3 and 0.1 took the fewest passes).

α meets the strong Wolfe conditions (`line_search`), so J never rises. μ is Levenberg's: with the reduction ratio
r = (J(Θ + αd) − J(Θ)) / (∇J·αd + α²dᵀBd/2), μ ← 3/2 μ where r < 1/4 or α < 1/2, and else ← 2/3 μ where r > 3/4.

If the function has Kronecker factors of B, CG is preconditioned by their inverse, damped by μ + λ/Σw (`kronecker`),
taken anew in each iteration; else not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from .base import SCRATCH, Ending, Function
from .descent import Descent, DescentState
from .kronecker import Kronecker
from .line_search import Search
from .vectors import HOST, Vectors

SHORTEST = 3  # iterations of CG over which progress is judged, at least
LEAST = 1e-12  # of μ
SHORT = 0.5  # α: a step so much shorter than d says that B is too small, whatever it then promised
SOLVED = 1e-24  # of ‖r‖² against ‖∇J‖²: nothing is left to be gained


@dataclass(kw_only=True)
class GNState(DescentState):
    """Θ, the damping and the last direction.

    Attributes:
        damping: μ.
        last: the last direction, (P,) float64; zeros at the beginning.
        spent: scratch: what the present step has cost besides evaluations, in passes.
        slope, curve: scratch: ∇J·d and dᵀBd of the direction.
        residual, along, product, spare, scaled: what CG computes with, (P,) scratch.
        kronecker: scratch: its preconditioner, if there are factors.
    """

    damping: float
    last: Any
    spent: float = field(default=0.0, metadata=SCRATCH)
    slope: float = field(default=0.0, metadata=SCRATCH)
    curve: float = field(default=0.0, metadata=SCRATCH)
    residual: Any = field(metadata=SCRATCH)
    along: Any = field(metadata=SCRATCH)
    product: Any = field(metadata=SCRATCH)
    spare: Any = field(metadata=SCRATCH)
    scaled: Any = field(metadata=SCRATCH)
    kronecker: Kronecker | None = field(default=None, metadata=SCRATCH)


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Descent[GNState]):
    """Damped Gauss–Newton with inner conjugate gradients.

    Attributes:
        damping: μ of the first step.
        most_products: products with B of one iteration; as many again where the last direction misleads CG.
        decay: what of the last direction CG begins with, from 0 to 1.
        progress: how little progress of an iteration, relative to all, ends CG.
    """

    damping: float = 1e-2
    most_products: int = 30
    decay: float = 0.5
    progress: float = 0.1

    def check(self) -> None:
        self.require(self.damping > 0, "damping", "above 0")
        self.require(self.most_products >= 1, "most_products", "1 or more")
        self.require(0 <= self.decay <= 1, "decay", "a number from 0 to 1")
        self.require(0 < self.progress < 1, "progress", "a number between 0 and 1")
        super().check()

    def blank(self, P: int, vectors: Vectors = HOST) -> GNState:
        names = ("Theta", "gradient", "last", "direction", "trial", "trial_gradient")
        names += ("residual", "along", "product", "spare", "scaled")
        return GNState(damping=self.damping, **{name: vectors.zeros(P) for name in names})

    def equip(self, f: Function, state: GNState) -> None:
        curvature = getattr(f, "curvature", None)
        if curvature is None:
            raise UsageError(
                "a function that does not tell how it curves", wanted="one with `curvature` for gn",
                do="take lbfgs, which needs J and ∇J alone",
            )  # fmt: skip
        if getattr(curvature, "factored", False):
            state.kronecker = Kronecker(curvature.layers, state.vectors)

    def advance(self, f: Function, state: GNState) -> Ending | None:
        state.spent = 0.0
        ending = super().advance(f, state)
        state.extra += state.spent
        return ending

    def aim(self, f: Function, state: GNState) -> tuple[float, float] | None:
        warm = self.decay > 0 and state.iteration > 0 and self.most_products > 1
        self._precondition(f, state)
        q = self._conjugate_gradients(f, state, warm)
        if warm and not q < 0:
            q = self._conjugate_gradients(f, state, False)
        return (state.slope, 1.0) if q < 0 and state.slope < 0 else None

    def learn(self, state: GNState, search: Search, foreseen: Sequence[Any], considered: Any) -> None:
        if not state.aimed:
            state.damping *= 4  # what CG found misled
            state.vectors.combine(1.0, 0.0, state.gradient, (), state.last)
            return
        state.vectors.copy(state.direction, state.last)
        promised = search.alpha * state.slope + search.alpha**2 * state.curve / 2
        ratio = (search.J - state.J) / promised if promised < 0 else 0.0
        if ratio < 0.25 or search.alpha < SHORT:
            state.damping *= 1.5
        elif ratio > 0.75:
            state.damping = max(state.damping * 2 / 3, LEAST)

    def _conjugate_gradients(self, f: Any, state: GNState, warm: bool) -> float:
        """Leave d in `state.direction`, ∇J·d and dᵀBd in `slope` and `curve`; q(d), NaN where something overflows.

        N&W Algorithm 5.3, with r = −∇J − (B + μI) d, so that r is the direction to begin with.
        """
        curvature, vectors, g, mu = f.curvature, state.vectors, state.gradient, state.damping
        d, r, p, Bp, s = state.direction, state.residual, state.along, state.product, state.spare

        def multiply(v: Any, out: Any, spare: Any) -> None:
            curvature.product(state.Theta, v, spare)
            state.spent += curvature.product_passes
            vectors.move(spare, mu, v, out=out)

        vectors.combine(1.0, self.decay if warm else 0.0, state.last if warm else g, (), d)
        vectors.combine(-1.0, 1.0, g, (), r)
        products = 0
        if warm:
            multiply(d, Bp, s)
            vectors.subtract(r, Bp, out=s)
            r, s, products = s, r, 1
        z = self._times_P(f, state, r)
        vectors.copy(z, p)
        rz, gg, gd, dr, dd = vectors.read(*vectors.dots((r, z), (g, g), (g, d), (d, r), (d, d)))
        trace = [(gd - dr) / 2]
        while products < self.most_products:
            multiply(p, s, Bp)
            products += 1
            (curve,) = vectors.read(vectors.dot(p, s))
            if not 0 < curve < math.inf:
                break
            alpha = rz / curve
            vectors.move(d, alpha, p, out=Bp)
            d, Bp = Bp, d
            vectors.move(r, -alpha, s, out=s)
            r, s = s, r
            z = self._times_P(f, state, r)
            before = rz
            rz, rr, gd, dr, dd = vectors.read(*vectors.dots((r, z), (r, r), (g, d), (d, r), (d, d)))
            trace.append((gd - dr) / 2)
            if not math.isfinite(trace[-1]) or rr <= SOLVED * gg or self._pays_no_more(trace):
                break
            vectors.move(z, rz / before, p, out=p)
        state.direction, state.residual, state.along, state.product, state.spare = d, r, p, Bp, s
        state.slope, state.curve = gd, -dr - gd - mu * dd
        return trace[-1]

    def _pays_no_more(self, trace: list[float]) -> bool:
        i = len(trace) - 1
        k = max(SHORTEST, i // 10)
        return i > k and trace[i] < 0 and trace[i - k] - trace[i] < k * self.progress * -trace[i]

    @staticmethod
    def _precondition(f: Any, state: GNState) -> None:
        """Have P, the Kronecker inverse at Θ and the present damping, where the function has factors."""
        if state.kronecker is None:
            return
        curvature = f.curvature
        factors = curvature.factors(state.Theta, state.iteration)
        mu = state.damping + curvature.decay
        none = np.zeros(len(factors.A))
        shares = state.kronecker.shares(factors.A, factors.G, mu, none, same=False)
        operations = state.kronecker.set(factors.A, factors.G, mu, shares)
        state.spent += factors.passes + operations / curvature.operations

    @staticmethod
    def _times_P(f: Any, state: GNState, r: Any) -> Any:
        if state.kronecker is None:
            return r
        state.kronecker.apply(r, state.scaled)
        state.spent += state.kronecker.operations / f.curvature.operations
        return state.scaled
