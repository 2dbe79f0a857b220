"""What optimizers share that go on where J rises: one evaluation a step, and the best Θ kept.

Such an optimizer proposes the next Θ and takes it, whatever J is there. The run must not return a worse Θ than it was
given, nor a worse one than it has seen: `State.best` is the best of all. It costs no copy: of the Θ that a step leaves
behind and the best of those left earlier one is kept, and the other's memory is the next step's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .base import SCRATCH, Ending, Function, Optimizer, State
from .vectors import HOST, Vectors, vectors_of


@dataclass(kw_only=True)
class WanderingState(State):
    """A state whose J may rise.

    Attributes:
        earlier_Theta, earlier_J: the best of the Θ that the run has left, (P,), and its J; ∞ before it has left one.
        next_Theta, next_gradient: the proposed Θ and its ∇J, (P,) scratch.
    """

    earlier_Theta: Any
    earlier_J: float = math.inf
    next_Theta: Any = field(metadata=SCRATCH)
    next_gradient: Any = field(metadata=SCRATCH)

    @property
    def best(self) -> tuple[Any, float]:
        """The Θ of the lowest J of the run, and that J."""
        return (self.earlier_Theta, self.earlier_J) if self.earlier_J < self.J else (self.Theta, self.J)

    def accept(self, J: float, steepest: float) -> None:
        """The proposed Θ, with its J and max|∇J|, becomes Θ: the end of an iteration of one evaluation."""
        if self.J < self.earlier_J:
            self.earlier_Theta, self.Theta = self.Theta, self.earlier_Theta
            self.earlier_J = self.J
        self.Theta, self.next_Theta = self.next_Theta, self.Theta
        self.gradient, self.next_gradient = self.next_gradient, self.gradient
        self.J = J
        self.iteration += 1
        self.evaluations += 1
        self.measured = steepest, self.evaluations


AnyWandering = TypeVar("AnyWandering", bound=WanderingState)


@dataclass(frozen=True, kw_only=True)
class Wandering(Optimizer[AnyWandering]):
    """The parent of optimizers whose J may rise. A subclass writes `blank` and `propose`, `learn` and `forget` if it
    remembers more than Θ, and `advice`."""

    @abstractmethod
    def propose(self, state: AnyWandering) -> None:
        """Leave the next Θ in `state.next_Theta`. Nothing that is saved may change: the evaluation may raise."""

    def ask(self, state: AnyWandering) -> Sequence[Any]:
        """Ask for numbers of the proposed point that `learn` needs; they are read together with its J."""
        return ()

    def learn(self, state: AnyWandering, J: float, asked: Sequence[Any]) -> None:
        """Remember the step from Θ to the proposed one, whose J that is: in the commit, see `State.commit`."""

    def forget(self, state: AnyWandering) -> None:
        """Begin anew at Θ, as if nothing was learned on the way there."""

    @property
    def advice(self) -> str:
        """What to try where J is not finite any more, with its numbers."""
        return "try smaller steps"

    def advance(self, f: Function, state: AnyWandering) -> Ending | None:
        vectors = state.vectors
        self.propose(state)
        J = f.value_and_gradient(state.next_Theta, state.next_gradient)
        J, steepest, *asked = vectors.read(J, vectors.max_abs(state.next_gradient), *self.ask(state))
        if not (math.isfinite(J) and math.isfinite(steepest)):
            state.measured = state.steepest, state.evaluations + 1
            state.evaluations += 1
            return Ending(
                "failed",
                f"failed: J = {J:g} and max|∇J| = {steepest:g} after iteration {state.iteration + 1}; kept is the "
                f"best Θ of the run, with J = {state.best[1]:.6g}; {self.advice}",
            )
        with state.commit():
            self.learn(state, J, asked)
            state.accept(J, steepest)
        return None

    def renew(self, f: Function, state: AnyWandering) -> None:
        """As for every optimizer, but from the best Θ: the J of others by the coarser function count no more."""
        state.vectors = vectors = vectors_of(f)
        Theta, gradient = vectors.zeros(*state.Theta.shape), vectors.zeros(*state.Theta.shape)
        vectors.copy(state.best[0], Theta)
        J = f.value_and_gradient(Theta, gradient)
        J, steepest = vectors.read(J, vectors.max_abs(gradient))
        if state.earlier_J < state.J:
            self.forget(state)
        state.Theta, state.gradient, state.J, state.earlier_J = Theta, gradient, J, math.inf
        state.evaluations += 1
        state.measured = steepest, state.evaluations

    @staticmethod
    def rooms(P: int, vectors: Vectors = HOST) -> dict[str, Any]:
        """The vectors of a `WanderingState`."""
        names = "Theta", "gradient", "earlier_Theta", "next_Theta", "next_gradient"
        return {name: vectors.zeros(P) for name in names}
