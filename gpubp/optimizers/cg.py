"""Nonlinear conjugate gradients.

    Θ_{k+1} = Θ_k + α d_k,   d_{k+1} = −g_{k+1} + β d_k,   g = ∇J,   y = g_{k+1} − g_k

α meets the strong Wolfe conditions (`line_search`) with a small c₂, for a direction is only as good as the search along
the one before. β is one of

"pr+": Polak and Ribière's, β = max(0, g_{k+1}ᵀy / g_kᵀg_k), with β = 0 where neighbouring gradients are far from
    orthogonal, |g_{k+1}ᵀg_k| ≥ ν g_{k+1}ᵀg_{k+1}: Nocedal and Wright, Numerical Optimization, 2nd ed. 2006 (N&W),
    Algorithm 5.4 with eq. 5.44, 5.45 and the restart of Powell, eq. 5.52.
"hz": Hager and Zhang's, A new conjugate gradient method with guaranteed descent and an efficient line search, SIAM J.
    Optim. 16 (2005) 170–192, eq. 1.3 to 1.6, which points down whatever the search did:
    β = max((y − 2 d yᵀy / dᵀy)ᵀ g_{k+1} / dᵀy, −1 / (|d| min(η, |g_k|))).

N&W have ν = 0.1, which on networks begins anew too often: with 0.3 eight small ones needed 13 % fewer evaluations.

The first α is that of the last step times the ratio of the slopes (N&W eq. 3.60). It is rarely accepted as it is: an
iteration costs about two evaluations. Memory is that of Θ, ∇J and a direction, twice: where even a short history of
L-BFGS, which needs half as many evaluations, does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .base import Function
from .descent import Descent, DescentState
from .elementwise import conjugate
from .line_search import Search
from .vectors import HOST, Vectors

LONGER = 10.0  # the first α is at most so many times the last one: a slope may be small by chance


@dataclass(kw_only=True)
class CGState(DescentState):
    """Θ and the direction that led there.

    Attributes:
        last: d of the last step, (P,).
        beta: β, how much of it is in the next direction.
        slope: ∇Jᵀd of that next direction; 0 before the first step.
        alpha, reach: α and α ∇Jᵀd of the last step.
    """

    last: Any
    beta: float = 0.0
    slope: float = 0.0
    alpha: float = 0.0
    reach: float = 0.0

    def foresee(self) -> Sequence[Any]:
        g, before, d = self.trial_gradient, self.gradient, self.direction
        return self.vectors.dots((g, g), (g, before), (before, before), (d, d))


@dataclass(frozen=True, kw_only=True)
class CG(Descent[CGState]):
    """Conjugate gradients with a strong-Wolfe line search.

    Attributes:
        variant: which β, "hz" or "pr+".
        restart: ν of "pr+", above 0: the smaller, the more often it begins anew.
        eta: η of "hz", above 0.
    """

    c2: float = 0.1
    variant: Literal["hz", "pr+"] = "hz"
    restart: float = 0.3
    eta: float = 0.01

    def check(self) -> None:
        self.require(self.restart > 0, "restart", "above 0")
        self.require(self.eta > 0, "eta", "above 0")
        super().check()

    def blank(self, P: int, vectors: Vectors = HOST) -> CGState:
        names = "Theta", "gradient", "last", "direction", "trial", "trial_gradient"
        return CGState(**{name: vectors.zeros(P) for name in names})

    def renew(self, f: Function, state: CGState) -> None:
        super().renew(f, state)
        if state.slope:  # it was that of the other ∇J: go on along the new one
            (square,) = state.vectors.read(state.vectors.dot(state.gradient, state.gradient))
            state.beta, state.slope = 0.0, -square

    def aim(self, f: Function, state: CGState) -> tuple[float, float] | None:
        if not state.slope:
            return None
        state.vectors.apply(conjugate, (state.gradient, state.last), (state.beta,), (state.direction,))
        return state.slope, min(state.reach / state.slope, LONGER * state.alpha)

    def learn(self, state: CGState, search: Search, foreseen: Sequence[Any], considered: Any) -> None:
        new, across, old, square = foreseen  # g₊ᵀg₊, g₊ᵀg, gᵀg, dᵀd
        before = state.slope if state.aimed else -old  # gᵀd
        beta = self._beta(new, across, old, square, search.slope - before, search.slope)
        slope = beta * search.slope - new
        state.beta, state.slope = (beta, slope) if slope < 0 else (0.0, -new)
        state.alpha, state.reach = search.alpha, search.alpha * before
        state.last, state.direction = state.direction, state.last

    def _beta(self, new: float, across: float, old: float, square: float, dy: float, dg: float) -> float:
        """β of g₊ᵀg₊, g₊ᵀg, gᵀg, dᵀd, dᵀy and dᵀg₊."""
        if self.variant == "pr+":
            far = abs(across) >= self.restart * new
            return 0.0 if far or not old else max(0.0, (new - across) / old)
        if not dy > 0:
            return 0.0
        beta = (new - across - 2 * dg * (new - 2 * across + old) / dy) / dy
        least = math.sqrt(square) * min(self.eta, math.sqrt(old))  # 0 where they are too small for their squares
        return max(beta, -1 / least) if least else 0.0
