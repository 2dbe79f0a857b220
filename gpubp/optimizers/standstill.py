"""When an optimizer that never rises has stopped getting anywhere: rounding is all that is left of its differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .base import Ending
from .line import LineState


@dataclass(kw_only=True)
class StandingState(LineState):
    """A state that notices a standstill.

    Attributes:
        lowest: the lowest J of the run.
        flattest: the smallest max|∇J| of the run.
        idle: iterations since either of them fell.
    """

    lowest: float = math.inf
    flattest: float = math.inf
    idle: int = 0

    def begin_anew(self) -> None:
        """J and ∇J are another function's from now on, which rounds less."""
        self.lowest, self.flattest, self.idle = math.inf, math.inf, 0

    def arrived(self, lowest: float) -> None:
        """An iteration is done, before which this was the lowest J."""
        steepest = self.steepest
        falls = self.J < lowest or steepest < self.flattest
        self.idle = 0 if falls else self.idle + 1
        self.lowest, self.flattest = min(lowest, self.J), min(self.flattest, steepest)

    def standstill(self, patience: int, tolerance: float) -> Ending | None:
        """Why the run ends here, if it has been idle for so many iterations."""
        if self.idle < patience:
            return None
        return Ending(
            "stalled",
            f"stalled: for {self.idle} iterations neither J = {self.J:.9g} (lowest {self.lowest:.9g}) nor "
            f"max|∇J| = {self.steepest:.3g} (smallest {self.flattest:.3g}) has fallen, so rounding is all that is left "
            f"of their differences; wanted max|∇J| = {tolerance:g} or less",
        )
