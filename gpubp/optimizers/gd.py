"""Gradient descent as the course has it: Θ ← Θ − α ∇J(Θ) with a fixed α.

The teaching optimizer. One step is one evaluation. Nothing guards the descent: where α is larger than 2 over the
curvature J rises from step to step, the run goes on, and it ends when J is no longer finite. Sums over all examples are
divided by m, so α does not depend on their number; α = 1 suits sigmoid units on inputs between 0 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .base import SCRATCH, Ending, Function, Optimizer, State
from .vectors import HOST, Vectors


@dataclass(kw_only=True)
class GradientDescentState(State):
    """Θ and nothing else; the scratch holds the next Θ and its gradient while they are computed."""

    next_Theta: Any = field(metadata=SCRATCH)
    next_gradient: Any = field(metadata=SCRATCH)


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Optimizer[GradientDescentState]):
    """Θ ← Θ − α ∇J(Θ).

    Attributes:
        learning_rate: α, above 0.
    """

    learning_rate: float = 1.0

    def check(self) -> None:
        self.require(self.learning_rate > 0, "learning_rate", "above 0")

    def blank(self, P: int, vectors: Vectors = HOST) -> GradientDescentState:
        Theta, gradient, next_Theta, next_gradient = (vectors.zeros(P) for _ in range(4))
        return GradientDescentState(Theta=Theta, gradient=gradient, next_Theta=next_Theta, next_gradient=next_gradient)

    def advance(self, f: Function, state: GradientDescentState) -> Ending | None:
        vectors = state.vectors
        vectors.move(state.Theta, -self.learning_rate, state.gradient, out=state.next_Theta)
        J = f.value_and_gradient(state.next_Theta, state.next_gradient)
        J, steepest = vectors.read(J, vectors.max_abs(state.next_gradient))
        state.evaluations += 1
        if not (math.isfinite(J) and math.isfinite(steepest)):
            return Ending(
                "failed",
                f"failed: J = {J:g} and max|∇J| = {steepest:g} after iteration {state.iteration + 1}; Θ is that of "
                f"iteration {state.iteration} with J = {state.J:.6g}; "
                f"try a learning_rate smaller than {self.learning_rate:g}",
            )
        state.Theta, state.next_Theta = state.next_Theta, state.Theta
        state.gradient, state.next_gradient = state.next_gradient, state.gradient
        state.J = J
        state.iteration += 1
        state.measured = steepest, state.evaluations
        return None
