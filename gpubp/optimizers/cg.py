"""Nonlinear conjugate gradients.

    Θ_{k+1} = Θ_k + α d_k,   d_{k+1} = −g_{k+1} + β d_k,   g = ∇J,   y = g_{k+1} − g_k

α meets the strong Wolfe conditions (`line_search`) with a small c₂, for a direction is only as good as the search along
the one before. β is one of

"pr+": Polak and Ribière's, β = max(0, g_{k+1}ᵀy / g_kᵀg_k), with β = 0 where neighbouring gradients are far from
    orthogonal, |g_{k+1}ᵀg_k| ≥ ν g_{k+1}ᵀg_{k+1}: Nocedal and Wright, Numerical Optimization, 2nd ed. 2006 (N&W),
    Algorithm 5.4 with eq. 5.44, 5.45 and the restart of Powell, eq. 5.52.
"hz": Hager and Zhang's, A new conjugate gradient method with guaranteed descent and an efficient line search, SIAM J.
    Optim. 16 (2005) 170–192, eq. 1.3 and 1.6, which points down whatever the search did:
    β = max((y − 2 d yᵀy / dᵀy)ᵀ g_{k+1} / dᵀy, −1 / (|d| min(η, |g_k|))).

The first α is that of the last step times the ratio of the slopes (N&W eq. 3.60). It is rarely accepted as it is: an
iteration costs about two evaluations. Memory is that of Θ, ∇J and a direction, twice.
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


@dataclass(kw_only=True)
class CGState(DescentState):
    """Θ and the direction that led there.

    Attributes:
        last: d of the last step, (P,).
        beta: β, the part of it in the next direction.
        slope: ∇Jᵀd of that next direction; 0 where there is none yet.
        reach: α ∇Jᵀd of the last step.
        square: ∇Jᵀ∇J, or NaN where it has not been asked for.
    """

    last: Any
    beta: float = 0.0
    slope: float = 0.0
    reach: float = 0.0
    square: float = math.nan

    def foresee(self) -> Sequence[Any]:
        g, d = self.trial_gradient, self.direction
        return self.vectors.dots((g, g), (g, self.gradient), (self.gradient, self.gradient), (g, d), (d, d), (self.gradient, d))


@dataclass(frozen=True, kw_only=True)
class CG(Descent[CGState]):
    """Conjugate gradients.

    Attributes:
        variant: "hz" or "pr+".
        restart: ν of "pr+", above 0: the smaller, the more often it begins anew.
        eta: η of "hz", above 0.
    """

    c2: float = 0.1
    variant: Literal["hz", "pr+"] = "hz"
    restart: float = 0.1
    eta: float = 0.01

    def check(self) -> None:
        self.require(self.restart > 0, "restart", "above 0")
        self.require(self.eta > 0, "eta", "above 0")
        super().check()

    def blank(self, P: int, vectors: Vectors = HOST) -> CGState:
        names = "Theta", "gradient", "last", "direction", "trial", "trial_gradient"
        return CGState(**{name: vectors.zeros(P) for name in names})
