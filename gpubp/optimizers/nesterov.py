"""Nesterov's accelerated gradient with a fixed learning rate, restarted where it overshoots; the best Θ is kept.

I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of initialization and momentum in deep learning, ICML
2013, equations 3 and 4, written at the point where ∇J is taken, Θ = θ + μ v:

    v ← μ_k v − α ∇J(Θ)
    Θ ← Θ − α ∇J(Θ) + μ_{k+1} v

with Nesterov's schedule (the same paper, section 2) μ_k = min(1 − 3/(k + 5), μ), the k-th step having μ_0 v = 0.

A momentum too large for the curvature makes J go up and down. B. O'Donoghue and E. Candès, Adaptive restart for
accelerated gradient schemes, Found. Comput. Math. 15 (2015), section 3.2, begin anew with v = 0 and k = 0 where the
momentum leads astray: where J has risen, or ∇J points along the last step v. So μ needs no tuning; α does: below 1 over
the largest curvature J falls nearly always. One step is one evaluation.

As for `gd`, α = 1 suits sigmoid units on inputs between 0 and 1: 784-25-10 on the demo's digits then needs 397
evaluations for what L-BFGS-B does in 100, where `gd` is far away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .base import SCRATCH
from .elementwise import elementwise
from .vectors import HOST, Vectors
from .wandering import Wandering, WanderingState


@elementwise(
    "Theta, g, v",
    "alpha, mu, next_mu",
    "next_Theta, next_v",
    "next_v = fma(mu, v, -(alpha * g)); next_Theta = fma(next_mu, next_v, Theta - alpha * g);",
)
def nesterov(Theta: Any, g: Any, v: Any, alpha: float, mu: float, next_mu: float) -> tuple[Any, ...]:
    """One step from Θ, with the velocity v that led there."""
    step = alpha * g
    v = mu * v - step
    return (Theta - step) + next_mu * v, v


@dataclass(kw_only=True)
class NesterovState(WanderingState):
    """Θ and its velocity.

    Attributes:
        velocity: v of the last step, (P,).
        since: k, steps since the last restart; with 0 the velocity counts no more.
        next_velocity: v of the next step, (P,) scratch.
    """

    velocity: Any
    since: int = 0
    next_velocity: Any = field(metadata=SCRATCH)


@dataclass(frozen=True, kw_only=True)
class Nesterov(Wandering[NesterovState]):
    """Nesterov's accelerated gradient.

    Attributes:
        learning_rate: α, above 0.
        momentum: μ, the largest of the μ_k, from 0 to below 1.
    """

    learning_rate: float = 1.0
    momentum: float = 0.999

    def check(self) -> None:
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        self.require(0 <= self.momentum < 1, "momentum", "0 or more, below 1")

    @property
    def advice(self) -> str:
        return f"try a learning_rate smaller than {self.learning_rate:g}"

    def mu(self, k: int) -> float:
        """μ_k."""
        return min(1 - 3 / (k + 5), self.momentum) if k else 0.0

    def blank(self, P: int, vectors: Vectors = HOST) -> NesterovState:
        return NesterovState(**self.rooms(P, vectors), velocity=vectors.zeros(P), next_velocity=vectors.zeros(P))

    def propose(self, state: NesterovState) -> None:
        k = state.since
        state.vectors.apply(
            nesterov,
            (state.Theta, state.gradient, state.velocity),
            (self.learning_rate, self.mu(k), self.mu(k + 1)),
            (state.next_Theta, state.next_velocity),
        )

    def ask(self, state: NesterovState) -> list[Any]:
        return [state.vectors.dot(state.next_gradient, state.next_velocity)]

    def learn(self, state: NesterovState, J: float, asked: Any) -> None:
        state.velocity, state.next_velocity = state.next_velocity, state.velocity
        astray = state.J < J or asked[0] > 0
        state.since = 0 if astray else state.since + 1

    def forget(self, state: NesterovState) -> None:
        state.since = 0
