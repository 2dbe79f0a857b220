"""What a run costs and reaches: every evaluation of J and ∇J is counted, timed, and noted with the best J so far.

One pass is one evaluation. gpubp's optimizers may also ask how J curves: they say themselves what that costs
(`State.extra`, in passes), and here it is counted once more, by what was asked of `curvature`. The larger of the two
is charged, to all evaluations of the step in which it was asked for, so that a cost never counts as reached before it
was paid for.

Time is that of everything a contender does between its evaluations, too; what is done here to count it is taken off.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np


class Enough(Exception):
    """Raised out of an evaluation: the goal is reached, or the budget is used up."""


class Counted:
    """A function of Θ with its gradient, counted.

    Args:
        objective: has `value_and_gradient(Theta, out)`.
        budget: passes after which it is enough.
        goal: the J at which it is.
        obedient: whether to leave it to the caller to ask `enough`, between two steps; else `Enough` is raised.

    Attributes:
        passes, seconds, best: one entry for each evaluation: passes charged until it was done, seconds, the lowest J.
        J, Theta: the lowest J and where it was.
        asked: passes that questions about curvature took.
    """

    def __init__(self, objective: Any, budget: float, goal: float = -math.inf, obedient: bool = False) -> None:
        self._objective, self._budget, self.goal, self._obedient = objective, budget, goal, obedient
        self.precision = getattr(objective, "precision", "fp64")
        self.threads, self.vectors = getattr(objective, "threads", 1), getattr(objective, "vectors", None)
        self.noise = _noise(self.precision)
        self.passes: list[float] = []
        self.seconds: list[float] = []
        self.best: list[float] = []
        self.J, self.Theta = math.inf, np.empty(0)
        self.asked, self.extra = 0.0, 0.0
        self._curvature: _CountedCurvature | None = None
        self._settled = 0  # evaluations whose passes are final
        self._began, self._off = time.perf_counter(), 0.0

    @property
    def curvature(self) -> Any:
        """How J curves, counted too; None where the objective cannot tell."""
        if self._curvature is None and (found := getattr(self._objective, "curvature", None)) is not None:
            self._curvature = _CountedCurvature(found, self)
        return self._curvature

    @property
    def evaluations(self) -> int:
        """How many there were."""
        return len(self.best)

    @property
    def enough(self) -> bool:
        """Whether the goal is reached or the budget used up."""
        return self.J <= self.goal or self.evaluations + max(self.asked, self.extra) >= self._budget

    def value_and_gradient(self, Theta: Any, out: Any) -> float:
        """J(Θ), and ∇J(Θ) written to `out`."""
        J = float(self._objective.value_and_gradient(Theta, out))
        self.note(J, Theta)
        return J

    def __call__(self, Theta: np.ndarray) -> tuple[float, np.ndarray]:
        """J(Θ) and ∇J(Θ), as peers want them."""
        gradient = np.empty(len(Theta))
        return self.value_and_gradient(np.ascontiguousarray(Theta, np.float64), gradient), gradient

    def note(self, J: float, Theta: Any) -> None:
        """That an evaluation has just been done, here or by a contender that evaluates J itself.

        Args:
            Theta: where, or a function that gives it; no time is charged for that.

        Raises:
            Enough: it is, and the contender does not ask.
        """
        now = time.perf_counter()
        self.seconds.append(now - self._began - self._off)
        if J < self.J:
            self.J, self.Theta = J, np.array(Theta() if callable(Theta) else Theta, np.float64)
        self.best.append(self.J)
        self.passes.append(len(self.best) + max(self.asked, self.extra))
        enough = not self._obedient and self.enough
        self._off += time.perf_counter() - now
        if enough:
            raise Enough

    def settle(self, extra: float) -> None:
        """A step is done: what it asked for besides evaluations, `extra` in all so far by its own account, is charged
        to each of its evaluations."""
        now = time.perf_counter()
        self.extra = extra
        charged = max(self.asked, extra)
        for k in range(self._settled, len(self.passes)):
            self.passes[k] = k + 1 + charged
        self._settled = len(self.passes)
        self._off += time.perf_counter() - now

    def reached(self, J: float) -> tuple[float, float] | None:
        """Passes and seconds until the cost was J or lower; None if it never was."""
        k = next((k for k, best in enumerate(self.best) if best <= J), None)
        return None if k is None else (self.passes[k], self.seconds[k])


class _CountedCurvature:
    """The protocol of `gpubp.optimizers.curvature`, as far as the objective has it, each question charged."""

    def __init__(self, curvature: Any, counted: Counted) -> None:
        self._curvature, self._counted = curvature, counted

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._curvature, name)
        if name not in ("product", "matrix", "sampled_matrix", "factors"):
            return value

        def charged(*arguments: Any, **named: Any) -> Any:
            found = value(*arguments, **named)
            if name == "factors":
                self._counted.asked += found.passes
            else:
                self._counted.asked += (
                    found[1] if name == "sampled_matrix" else getattr(self._curvature, f"{name}_passes")
                )
            return found

        return charged


def _noise(name: str) -> float:
    from gpubp.precision import precision

    return precision(name).noise
