"""iRprop⁺: a step size for each parameter, which follows the sign of its slope; the best Θ is kept.

C. Igel and M. Hüsken, Improving the Rprop learning algorithm, NC 2000, 115–121, Algorithm 2, and Empirical evaluation
of the improved Rprop learning algorithms, Neurocomputing 50 (2003) 105–123. For each parameter, g being its ∂J/∂θ and
g⁻ the one before:

    g⁻ g > 0:  Δ ← min(η⁺ Δ, Δ_max),   θ ← θ − sign(g) Δ
    g⁻ g < 0:  the step jumped over a minimum: Δ ← max(η⁻ Δ, Δ_min), the step is taken back if J has risen, and g
               counts as 0
    g⁻ g = 0:  θ ← θ − sign(g) Δ

Only signs of slopes count, so it does not matter how parameters are scaled. In the second case the step before was
−sign(g⁻) Δ of before, for g⁻ is not 0 there: it need not be kept. One step is one evaluation.

The defaults are the paper's. On sigmoid units (784-25-10, the demo's digits) 234 evaluations do what L-BFGS-B does in
100, without anything to be tuned; on tanh units it was worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .base import SCRATCH
from .elementwise import elementwise
from .vectors import HOST, Vectors
from .wandering import Wandering, WanderingState


@elementwise(
    "Theta, g, sign, size",
    "grow, shrink, least, most, back",
    "next_Theta, next_sign, next_size",
    """const double s = g > 0.0 ? 1.0 : g < 0.0 ? -1.0 : 0.0;
    const bool jumped = sign * s < 0.0;
    next_size = jumped ? fmax(size * shrink, least) : sign * s > 0.0 ? fmin(size * grow, most) : size;
    next_sign = jumped ? 0.0 : s;
    next_Theta = jumped ? Theta + back * (sign * size) : Theta - s * next_size;""",
)
def irprop(
    Theta: Any, g: Any, sign: Any, size: Any, grow: float, shrink: float, least: float, most: float, back: float
) -> tuple[Any, ...]:
    """One step; `sign` is that of g⁻, `back` is 1 if J has risen and 0 if not."""
    s = np.sign(g)
    same = sign * s
    jumped = same < 0
    longer = np.where(same > 0, np.minimum(size * grow, most), size)
    next_size = np.where(jumped, np.maximum(size * shrink, least), longer)
    Theta = Theta + np.where(jumped, back * (sign * size), -s * next_size)
    return Theta, np.where(jumped, 0.0, s), next_size


@dataclass(kw_only=True)
class IRpropState(WanderingState):
    """Θ and the size of each parameter's step.

    Attributes:
        sign: of g⁻, the slope that the last step went against, or 0, (P,).
        size: Δ, (P,).
        before: J at the Θ before.
        next_sign, next_size: the same for the next step, (P,) scratch.
    """

    sign: Any
    size: Any
    before: float = math.inf
    next_sign: Any = field(metadata=SCRATCH)
    next_size: Any = field(metadata=SCRATCH)


@dataclass(frozen=True, kw_only=True)
class IRprop(Wandering[IRpropState]):
    """iRprop⁺.

    Attributes:
        first: Δ₀, the size of the first steps.
        grow, shrink: η⁺ above 1, η⁻ between 0 and 1.
        least, most: Δ_min from 0 on, Δ_max.
    """

    first: float = 0.0125
    grow: float = 1.2
    shrink: float = 0.5
    least: float = 0.0
    most: float = 50.0

    def check(self) -> None:
        self.require(self.first > 0, "first", "above 0")
        self.require(self.grow > 1, "grow", "above 1")
        self.require(0 < self.shrink < 1, "shrink", "a number between 0 and 1")
        self.require(0 <= self.least <= self.first, "least", f"from 0 to first = {self.first:g}")
        self.require(self.most >= self.first, "most", f"first = {self.first:g} or more")

    @property
    def advice(self) -> str:
        return f"try steps that begin smaller than first = {self.first:g} or end below most = {self.most:g}"

    def blank(self, P: int, vectors: Vectors = HOST) -> IRpropState:
        sign, size, next_sign, next_size = (vectors.zeros(P) for _ in range(4))
        vectors.put(np.full(P, self.first), size)
        return IRpropState(**self.rooms(P, vectors), sign=sign, size=size, next_sign=next_sign, next_size=next_size)

    def propose(self, state: IRpropState) -> None:
        state.vectors.apply(
            irprop,
            (state.Theta, state.gradient, state.sign, state.size),
            (self.grow, self.shrink, self.least, self.most, float(state.J > state.before)),
            (state.next_Theta, state.next_sign, state.next_size),
        )

    def learn(self, state: IRpropState, J: float, asked: Any) -> None:
        state.sign, state.next_sign = state.next_sign, state.sign
        state.size, state.next_size = state.next_size, state.size
        state.before = state.J

    def forget(self, state: IRpropState) -> None:
        state.sign, state.before = state.vectors.zeros(len(state.Theta)), math.inf
