"""What optimizers with a line search share: how they search, how they see a standstill, what they say of it.

Such an optimizer finds a direction d, searches along it (`line_search.wolfe`), and where that fails once more along
−∇J, for what it remembers may be what misleads. A run at the floor of rounding ends as "stalled", in words.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .base import SCRATCH, Ending, Function, Optimizer
from .line import Line
from .line_search import Search, wolfe
from .standstill import StandingState


@dataclass(kw_only=True)
class DescentState(StandingState):
    """A state that goes down along lines.

    Attributes:
        aimed: scratch: whether the present search goes along the optimizer's own direction and not along −∇J.
    """

    aimed: bool = field(default=False, metadata=SCRATCH)


AnyDescent = TypeVar("AnyDescent", bound=DescentState)


@dataclass(frozen=True, kw_only=True)
class Descent(Optimizer[AnyDescent]):
    """The parent of optimizers with a strong-Wolfe line search. A subclass writes `blank`, `aim` and `learn`.

    Attributes:
        c1, c2: the constants of the line search, 0 < c₁ < c₂ < 1.
        max_trials: evaluations of one line search.
        noise: ν, the relative rounding of a difference of J. J never rises by more than ν|J| above its lowest; with 0
            it never rises at all. None: what the function says of itself, or 1e-7, which suits float32 passes.
        patience: iterations without a lower J or a smaller max|∇J| after which the run has stalled. It can only count
            where J no longer tells points apart.
    """

    c1: float = 1e-4
    c2: float = 0.9
    max_trials: int = 20
    noise: float | None = None
    patience: int = 20

    def check(self) -> None:
        self.require(0 < self.c1 < 1, "c1", "a number between 0 and 1")
        self.require(self.c1 < self.c2 < 1, "c2", f"a number between c1 = {self.c1:g} and 1")
        self.require(self.max_trials >= 1, "max_trials", "1 or more")
        self.require(self.noise is None or 0 <= self.noise < 1, "noise", "0 or more, below 1")
        self.require(self.patience >= 1, "patience", "1 or more")

    def renew(self, f: Function, state: AnyDescent) -> None:
        super().renew(f, state)
        state.begin_anew()

    @abstractmethod
    def aim(self, f: Function, state: AnyDescent) -> tuple[float, float] | None:
        """Leave a direction in `state.direction`; its slope ∇J·d and the first α to try. None: take −∇J.

        Nothing that is saved may change here: the evaluations of the search may raise.
        """

    def consider(self, f: Function, state: AnyDescent, search: Search) -> Any:
        """What else is wanted of the function at the accepted point, which is in `state.trial`; may raise."""
        return None

    @abstractmethod
    def learn(self, state: AnyDescent, search: Search, foreseen: Sequence[Any], considered: Any) -> None:
        """Remember the step from Θ to the accepted trial: the beginning of the commit, see `State.commit`.

        Args:
            foreseen: what `state.foresee` asked for.
            considered: what `consider` gave.
        """

    def advance(self, f: Function, state: AnyDescent) -> Ending | None:
        if ending := state.standstill(self.patience, self.tolerance):
            return ending  # so it was saved
        line = Line(f, state)
        lowest = min(state.lowest, state.J)
        state.aimed = True
        aim = self.aim(f, state)
        search = self._search(line, state, lowest, *aim) if aim else None
        if search is None or (search.problem and state.aimed):
            state.aimed = False  # what it remembers may be what misleads: once more without it
            search = self._search(line, state, lowest, *self._straight(state))
        if search.problem:
            state.measured = state.steepest, state.evaluations + line.evaluations
            state.evaluations += line.evaluations
            return self._stuck(state, search)
        steepest, *foreseen = line.settle(search.alpha)
        if not math.isfinite(steepest):  # the point was evaluated once more, and is not what it was
            state.measured = state.steepest, state.evaluations + line.evaluations
            state.evaluations += line.evaluations
            return Ending(
                "failed",
                f"failed: max|∇J| = {steepest:g} where it was finite before, J = {search.J:.9g}; kept is the Θ "
                f"of iteration {state.iteration}, with J = {state.J:.9g}",
            )
        considered = self.consider(f, state, search)
        with state.commit():
            self.learn(state, search, foreseen, considered)
            state.accept(search.J, steepest, line.evaluations)
            state.arrived(lowest)
        return state.standstill(self.patience, self.tolerance)

    def _search(self, line: Line, state: AnyDescent, lowest: float, slope: float, alpha: float) -> Search:
        noise = float(getattr(line.f, "noise", 1e-7)) if self.noise is None else self.noise
        return wolfe(
            line, state.J, slope, alpha,
            c1=self.c1, c2=self.c2, max_trials=self.max_trials, noise=noise, lowest=lowest,
        )  # fmt: skip

    def _straight(self, state: AnyDescent) -> tuple[float, float]:
        """d = −∇J; its slope, and a first α by which no parameter moves by more than 1."""
        vectors, g = state.vectors, state.gradient
        vectors.combine(-1.0, 1.0, g, (), state.direction)
        slope, steep = vectors.read(vectors.dot(g, state.direction), vectors.sum_abs(g))
        return slope, min(1.0, 1 / steep)

    def _stuck(self, state: AnyDescent, search: Search) -> Ending:
        steepest = state.steepest
        numbers = f"max|∇J| = {steepest:.3g}, wanted {self.tolerance:g} or less"
        (square,) = state.vectors.read(state.vectors.dot(state.gradient, state.gradient))
        overflown = not math.isfinite(square)
        if overflown or 0 < search.trials == search.nonfinite:
            return Ending("failed", f"failed: {search.problem}; {numbers}")
        return Ending("stalled", f"stalled: straight against the gradient, {search.problem}; {numbers}")
