"""The line Θ + α d as every optimizer with a line search needs it: φ(α), φ′(α), and the step to an accepted α."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .base import SCRATCH, Function, State, dot, move


@dataclass(kw_only=True)
class LineState(State):
    """A state that moves along lines.

    Attributes:
        direction: d, (P,) scratch.
        trial, trial_gradient: Θ and ∇J of the last point tried, (P,) scratch.
    """

    direction: np.ndarray = field(metadata=SCRATCH)
    trial: np.ndarray = field(metadata=SCRATCH)
    trial_gradient: np.ndarray = field(metadata=SCRATCH)

    def accept(self, J: float) -> None:
        """The last point tried becomes Θ: the end of an iteration."""
        self.Theta, self.trial = self.trial, self.Theta
        self.gradient, self.trial_gradient = self.trial_gradient, self.gradient
        self.J = J
        self.iteration += 1


class Line:
    """φ(α) = J(Θ + α d) with its slope φ′(α) = ∇J·d, along the state's direction at the time of the call.

    Attributes:
        evaluations: calls so far.
        alpha: the α of the last one, whose point is in the state's scratch.
    """

    def __init__(self, f: Function, state: LineState) -> None:
        self.f, self.state = f, state
        self.evaluations = 0
        self.alpha = 0.0

    def __call__(self, alpha: float) -> tuple[float, float]:
        state = self.state
        move(state.Theta, alpha, state.direction, out=state.trial)
        J = self.f.value_and_gradient(state.trial, state.trial_gradient)
        self.evaluations += 1
        self.alpha = alpha
        return J, dot(state.trial_gradient, state.direction)

    def settle(self, alpha: float) -> None:
        """Have the point of this α in the scratch: the accepted one need not be the last one tried."""
        if self.alpha != alpha:
            self(alpha)
