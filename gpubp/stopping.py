"""What ends a run besides its optimizer: budgets, a cost that is low enough, a standstill, early stopping.

`Stopping` is what was asked for, `Watch` what a run has to remember for it. Whether a run ends follows from its state,
the watch and the history alone, and is asked before each step. So a run that is interrupted and resumed ends where an
undisturbed one does, and one that has ended goes on where a limit was raised.

**Early stopping** is a regulariser, not a criterion of convergence: while J falls, the cost of rows that were held out
falls and then rises again (L. Prechelt, Early Stopping – But When?, 1998; the patience is its criterion UP). The
optimizer's own state goes on untouched; the Θ of the lowest validation cost is kept beside it, and is what the run
returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .errors import UsageError
from .optimizers import Ending, Optimizer, State

WINDOW = 5  # iterations over which a relative decrease is taken


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """What ends a run, each off where it is None. A small gradient is the optimizer's own ending, its `tolerance`.

    Attributes:
        decrease: the run has converged when the highest and the lowest J of an iteration and the 5 before it differ by
            no more than this part of |J|. Where J only falls that is |J_{k−5} − J_k| ≤ decrease·|J_k|. One lucky small
            step does not end a run, nor does a J that swings back to where it was.
        evaluations, passes: budgets of the whole run: evaluations of J, and everything charged in passes over the rows.
        seconds: of training in the whole run, earlier sessions counted. Budgets are asked after between iterations.
        target: a cost J, λ term included, that is low enough.
        patience: early stopping: iterations without a lower validation cost.
        min_delta: by how much it must be lower for the patience to begin anew. The Θ kept is that of the lowest cost.

    Raises:
        UsageError: a value that cannot be meant.
    """

    decrease: float | None = None
    evaluations: int | None = None
    passes: float | None = None
    seconds: float | None = None
    target: float | None = None
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        for name in ("decrease", "passes", "seconds"):
            value = getattr(self, name)
            self._require(value is None or 0 < value < math.inf, name, "a finite number above 0")
        for name in ("evaluations", "patience"):
            value = getattr(self, name)
            self._require(value is None or value >= 1, name, "1 or more")
        self._require(self.target is None or math.isfinite(self.target), "target", "a finite number")
        self._require(0 <= self.min_delta < math.inf, "min_delta", "a finite number, 0 or more")
        if self.min_delta and self.patience is None:
            raise UsageError(f"min_delta = {self.min_delta:g} without a patience", wanted="both, or neither")

    def _require(self, good: bool, name: str, wanted: str) -> None:
        if not good:
            raise UsageError(f"{name} = {getattr(self, name)}", wanted=wanted)

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Stopping:
        """As a checkpoint's job has it; one that is older knows nothing of it."""
        return cls(**{name: job[name] for name in NAMES if name in job})

    def describe(self) -> str:
        """In words; "" where nothing is asked for."""
        words = {
            "decrease": f"relative decrease ≤ {{:g}} over {WINDOW} iterations",
            "evaluations": "{:,} evaluations",
            "passes": "{:g} passes",
            "seconds": "{:g} s",
            "target": "J ≤ {:g}",
            "patience": "{:,} iterations without a lower validation cost",
        }
        found = [text.format(getattr(self, name)) for name, text in words.items() if getattr(self, name) is not None]
        return "; ".join(found) + (f" by more than {self.min_delta:g}" if self.min_delta else "")


NAMES = tuple(one.name for one in fields(Stopping))


def spent(iterations: int, stopping: Stopping, reached: Mapping[str, Any]) -> list[str]:
    """Which budgets of a run are used up: the names of iterations, evaluations, passes, seconds.

    Args:
        reached: what of each was used so far.
    """
    limits = {"iterations": iterations, **{name: getattr(stopping, name) for name in ("evaluations", "passes")}}
    limits["seconds"] = stopping.seconds
    return [name for name, limit in limits.items() if limit is not None and reached[name] >= limit]


class Watch:
    """What a run remembers to stop where it should.

    Args:
        stopping: what was asked for.
        history: the records of the iterations done, of a run that goes on.
        saved: what `saved` gave, and "Theta", the flat Θ that it is about; empty for a run that had no early stopping.

    Attributes:
        costs: J of the last iterations at the present precision, the oldest first.
        Theta: the Θ of the lowest validation cost, (P,) where the state's vectors live; None without early stopping.
        validation, J, iteration: its validation cost, J and iteration.
        mark: the validation cost below which the patience begins anew, but for `min_delta`.
        idle: iterations since it did.
        latest: the validation cost of the last iteration.
    """

    def __init__(
        self,
        stopping: Stopping | None = None,
        history: Sequence[Mapping[str, Any]] = (),
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self.stopping = stopping or Stopping()
        self._history = history[-WINDOW - 1 :]
        self._saved = dict(saved or {})
        self.costs: list[float] = []
        self.Theta: Any = None
        self.validation = self.J = self.mark = math.inf
        self.iteration, self.idle = -1, 0
        self.latest: float | None = None

    def begin(self, state: State, precision: str, validation: float | None) -> None:
        """Begin with this state, before the first step. Changes nothing if the device has no room for Θ.

        Args:
            precision: of the passes.
            validation: the validation cost of the state's Θ, if an evaluation just gave it.
        """
        kept = None
        if self.stopping.patience is not None:
            kept = state.vectors.zeros(*state.Theta.shape)
            if "mark" in self._saved:
                state.vectors.put(self._saved["Theta"], kept)
            else:
                state.vectors.copy(state.Theta, kept)
        self.costs = [float(row["J"]) for row in self._history if row["precision"] == precision]
        last = self._history[-1] if self._history else None
        self.latest = validation
        if last is not None and last["iteration"] == state.iteration and validation is None:
            self.latest = last["validation"]
        self.Theta = kept
        if kept is None:
            return
        if "mark" in self._saved:
            for name in ("validation", "J", "iteration", "mark", "idle"):
                setattr(self, name, self._saved[name])
        else:  # what is kept is the Θ it begins with: earlier ones, had they been better, are gone
            self.validation = self.mark = math.inf if self.latest is None else self.latest
            self.J, self.iteration, self.idle = state.J, state.iteration, 0

    def climbed(self) -> None:
        """The passes are of another precision from now on: differences between J before and after tell nothing."""
        self.costs = []

    def note(self, state: State, validation: float | None) -> None:
        """An iteration is done."""
        self.costs = [*self.costs[-WINDOW:], state.J]
        self.latest = validation
        if self.Theta is None:
            return
        found = math.inf if validation is None else validation
        if found < self.validation:
            state.vectors.copy(state.Theta, self.Theta)
            self.validation, self.J, self.iteration = found, state.J, state.iteration
        if found < self.mark - self.stopping.min_delta:
            self.mark, self.idle = found, 0
        else:
            self.idle += 1

    def saved(self) -> dict[str, float | int]:
        """What early stopping knows, but for Θ; empty without it."""
        if self.Theta is None:
            return {}
        return {name: getattr(self, name) for name in ("validation", "J", "iteration", "mark", "idle")}

    def Theta_on_host(self, state: State) -> np.ndarray:
        """The Θ that the run returns as it stands: of the lowest validation cost under early stopping, else the
        optimizer's best. It may be the watch's or the state's own."""
        return state.Theta_on_host if self.Theta is None else state.vectors.to_host(self.Theta)

    def ending(self, state: State, optimizer: Optimizer, iterations: int, seconds: float) -> Ending | None:
        """Why the run ends here, before its next step; None if it goes on.

        Args:
            iterations: the limit, counted from the beginning of the run.
            seconds: of training, up to the last iteration.
        """
        found = self._reached(state) or self._converged(state) or self._early()
        budgets = spent(iterations, self.stopping, _used(state, seconds))
        if found is None and not budgets:
            return None
        slope = state.steepest
        if slope <= optimizer.tolerance:
            return Ending("converged", f"converged: max|∇J| = {slope:.3g} is within {optimizer.tolerance:g}")
        if found is not None:
            return found
        return Ending(
            "limit",
            f"stopped at the limit of {self._limits(state, budgets, iterations, seconds)} and has not converged: "
            f"max|∇J| = {slope:.3g}, wanted {optimizer.tolerance:g} or less",
        )

    def _reached(self, state: State) -> Ending | None:
        target = self.stopping.target
        if target is None or not state.J <= target:
            return None
        return Ending(
            "target", f"reached the target: J = {state.J:.9g} after {count(state.iteration)}, wanted {target:g}"
        )

    def _converged(self, state: State) -> Ending | None:
        decrease = self.stopping.decrease
        if decrease is None or len(self.costs) <= WINDOW:
            return None
        lowest, highest = min(self.costs), max(self.costs)
        if not highest - lowest <= decrease * abs(state.J):
            return None
        return Ending(
            "converged",
            f"converged: over the last {WINDOW} iterations J stayed between {lowest:.9g} and {highest:.9g}, "
            f"{(highest - lowest) / abs(state.J) if state.J else 0.0:.3g} of itself; wanted {decrease:g} or less",
        )

    def _early(self) -> Ending | None:
        patience, by = self.stopping.patience, self.stopping.min_delta
        if patience is None or self.idle < patience:
            return None
        now = "unknown" if self.latest is None else f"{self.latest:.6g}"
        return Ending(
            "early",
            f"stopped early: for {count(self.idle)} the validation cost has not fallen "
            f"{f'by more than {by:g} ' if by else ''}below {self.mark:.6g} (now {now}, patience {patience}); "
            f"Θ is that of iteration {self.iteration}, validation cost {self.validation:.6g}",
        )

    def _limits(self, state: State, budgets: Sequence[str], iterations: int, seconds: float) -> str:
        """The budgets that are used up, with what was asked for."""
        used = _used(state, seconds)
        words = {
            "iterations": count(iterations),
            "evaluations": f"{self.stopping.evaluations} evaluations",
            "passes": f"{self.stopping.passes:g} passes" if self.stopping.passes else "",
            "seconds": f"{self.stopping.seconds:g} s" if self.stopping.seconds else "",
        }
        shown = {
            "evaluations": f"{used['evaluations']}",
            "passes": f"{used['passes']:.6g}",
            "seconds": f"{seconds:.3g} s",
        }
        said = [words[name] + (f" ({shown[name]} used)" if name in shown else "") for name in budgets]
        after = "" if "iterations" in budgets else f" after {count(state.iteration)}"
        return " and ".join(said) + after


def count(iterations: int) -> str:
    """``3 iterations``, ``1 iteration``."""
    return f"{iterations} iteration{'s' if iterations != 1 else ''}"


def _used(state: State, seconds: float) -> dict[str, float]:
    return {
        "iterations": state.iteration, "evaluations": state.evaluations, "passes": state.passes, "seconds": seconds,
    }  # fmt: skip
