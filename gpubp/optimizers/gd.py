"""Gradient descent as the course has it: Θ ← Θ − α ∇J(Θ) with a fixed α.

The teaching optimizer. One step is one evaluation. Nothing guards the descent: where α is larger than 2 over the
curvature J rises from step to step, the run goes on, and it ends when J is no longer finite; the best Θ is kept. Sums
over all examples are divided by m, so α does not depend on their number; α = 1 suits sigmoid units on inputs between 0
and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from .vectors import HOST, Vectors
from .wandering import Wandering, WanderingState


@dataclass(kw_only=True)
class GradientDescentState(WanderingState):
    """Θ and the best one so far."""


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Wandering[GradientDescentState]):
    """Θ ← Θ − α ∇J(Θ).

    Attributes:
        learning_rate: α, above 0.
    """

    learning_rate: float = 1.0

    def check(self) -> None:
        self.require(self.learning_rate > 0, "learning_rate", "above 0")

    @property
    def advice(self) -> str:
        return f"try a learning_rate smaller than {self.learning_rate:g}"

    def blank(self, P: int, vectors: Vectors = HOST) -> GradientDescentState:
        return GradientDescentState(**self.rooms(P, vectors))

    def propose(self, state: GradientDescentState) -> None:
        state.vectors.move(state.Theta, -self.learning_rate, state.gradient, out=state.next_Theta)
