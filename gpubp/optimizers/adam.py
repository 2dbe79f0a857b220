"""Adam on the exact gradient, with the best Θ kept.

D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015, Algorithm 1:

    m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²,   g = ∇J(Θ)
    m̂ = m / (1 − β₁^t),      v̂ = v / (1 − β₂^t)
    Θ ← Θ − α m̂ / (√v̂ + ε)

The gradient is that of all examples, so there is no noise to average: what is left is a step of about α in every
parameter, whatever its scale. Near a minimum the steps do not become shorter by themselves, and J goes up and down; a
run that is to arrive wants a smaller α. One step is one evaluation.

α = 0.01 suits tanh units on standardised inputs: 28-64-64-1 was after 269 evaluations where L-BFGS-B is after 200.
Sigmoid units want 0.1 or more, and L-BFGS then is far better still.
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
    "Theta, g, m, v",
    "beta1, beta2, rate, root, epsilon",
    "next_Theta, next_m, next_v",
    "next_m = fma(beta1, m, (1.0 - beta1) * g); next_v = fma(beta2, v, (1.0 - beta2) * (g * g));"
    " next_Theta = Theta - rate * next_m / (sqrt(next_v) / root + epsilon);",
)
def adam(
    Theta: Any, g: Any, m: Any, v: Any, beta1: float, beta2: float, rate: float, root: float, epsilon: float
) -> tuple[Any, ...]:
    """One step; rate = α / (1 − β₁^t), root = √(1 − β₂^t)."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    return Theta - rate * m / (np.sqrt(v) / root + epsilon), m, v


@dataclass(kw_only=True)
class AdamState(WanderingState):
    """Θ and the two moments.

    Attributes:
        m, v: the running means of ∇J and of its squares, (P,), as they were before the ∇J of Θ.
        age: t − 1, the steps in them.
        next_m, next_v: the same with the ∇J of Θ, (P,) scratch.
    """

    m: Any
    v: Any
    age: int = 0
    next_m: Any = field(metadata=SCRATCH)
    next_v: Any = field(metadata=SCRATCH)


@dataclass(frozen=True, kw_only=True)
class Adam(Wandering[AdamState]):
    """Adam.

    Attributes:
        learning_rate: α, above 0: about how far each parameter goes in a step.
        beta1, beta2: how much of the moments is kept, from 0 to below 1.
        epsilon: ε, above 0.
    """

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def check(self) -> None:
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        self.require(0 <= self.beta1 < 1, "beta1", "0 or more, below 1")
        self.require(0 <= self.beta2 < 1, "beta2", "0 or more, below 1")
        self.require(self.epsilon > 0, "epsilon", "above 0")

    @property
    def advice(self) -> str:
        return f"try a learning_rate smaller than {self.learning_rate:g}"

    def blank(self, P: int, vectors: Vectors = HOST) -> AdamState:
        m, v, next_m, next_v = (vectors.zeros(P) for _ in range(4))
        return AdamState(**self.rooms(P, vectors), m=m, v=v, next_m=next_m, next_v=next_v)

    def propose(self, state: AdamState) -> None:
        t = state.age + 1
        rate, root = self.learning_rate / (1 - self.beta1**t), math.sqrt(1 - self.beta2**t)
        state.vectors.apply(
            adam,
            (state.Theta, state.gradient, state.m, state.v),
            (self.beta1, self.beta2, rate, root, self.epsilon),
            (state.next_Theta, state.next_m, state.next_v),
        )

    def learn(self, state: AdamState, J: float, asked: Any) -> None:
        state.m, state.next_m = state.next_m, state.m
        state.v, state.next_v = state.next_v, state.v
        state.age += 1

    def forget(self, state: AdamState) -> None:
        P = len(state.Theta)
        state.m, state.v, state.age = state.vectors.zeros(P), state.vectors.zeros(P), 0
