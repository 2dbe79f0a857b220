"""The line Θ + α d as every optimizer with a line search needs it: φ(α), φ′(α), and the step to an accepted α."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .base import SCRATCH, Function, State


@dataclass(kw_only=True)
class LineState(State):
    """A state that moves along lines.

    Attributes:
        direction: d, (P,) scratch.
        trial, trial_gradient: Θ and ∇J of the last point tried, (P,) scratch.
    """

    direction: Any = field(metadata=SCRATCH)
    trial: Any = field(metadata=SCRATCH)
    trial_gradient: Any = field(metadata=SCRATCH)

    def foresee(self) -> Sequence[Any]:
        """Ask for the numbers that will be needed if the last point tried is accepted."""
        return ()

    def accept(self, J: float, steepest: float, evaluations: int) -> None:
        """The last point tried, with its J and max|∇J|, becomes Θ: the end of an iteration of so many evaluations."""
        self.Theta, self.trial = self.trial, self.Theta
        self.gradient, self.trial_gradient = self.trial_gradient, self.gradient
        self.J = J
        self.iteration += 1
        self.evaluations += evaluations
        self.measured = steepest, self.evaluations


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
        self._foreseen: list[Any] | None = None

    def __call__(self, alpha: float) -> tuple[float, float]:
        state, vectors = self.state, self.state.vectors
        vectors.move(state.Theta, alpha, state.direction, out=state.trial)
        J = self.f.value_and_gradient(state.trial, state.trial_gradient)
        self.evaluations += 1
        self.alpha = alpha
        slope = vectors.dot(state.trial_gradient, state.direction)
        more = (vectors.max_abs(state.trial_gradient), *state.foresee()) if vectors.early else ()
        J, slope, *foreseen = vectors.read(J, slope, *more)
        self._foreseen = foreseen or None
        return J, slope

    def settle(self, alpha: float) -> list[Any]:
        """Have the point of this α in the scratch: the accepted one need not be the last one tried.

        Returns:
            Its max|∇J|, and what the state foresaw.
        """
        if self.alpha != alpha:
            self(alpha)
        if self._foreseen is None:
            vectors, state = self.state.vectors, self.state
            self._foreseen = vectors.read(vectors.max_abs(state.trial_gradient), *state.foresee())
        return self._foreseen
