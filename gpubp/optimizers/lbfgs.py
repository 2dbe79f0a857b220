"""L-BFGS: a quasi-Newton method that remembers the last few steps instead of a matrix.

Nocedal and Wright, Numerical Optimization, 2nd ed. 2006, Algorithms 7.4 (the direction) and 7.5 (the step):

    Θ_{k+1} = Θ_k + α d,   d = −H ∇J(Θ_k)

where H is the BFGS update of γI by the last `history` pairs (`pairs`), and α meets the strong Wolfe conditions
(`line_search`). After the first step α = 1 is nearly always accepted, so an iteration costs one evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass

from .pairs import PairsState, QuasiNewton
from .vectors import HOST, Vectors


@dataclass(frozen=True, kw_only=True)
class LBFGS(QuasiNewton[PairsState]):
    """L-BFGS with a strong-Wolfe line search.

    Attributes:
        history: pairs remembered. A pair costs 16 bytes for each parameter.
    """

    def blank(self, P: int, vectors: Vectors = HOST) -> PairsState:
        return PairsState(**self._buffers(P, vectors))

    def within(self, P: int, memory: int) -> tuple[LBFGS, str]:
        return self._shortened(P, memory, 16)
