"""What an optimizer is, and what survives one of its steps.

An optimizer sees a vector Θ and a function J with its gradient, never a layer. It has two parts:

- the `Optimizer`, a frozen record: its fields are the hyperparameters, nothing in it changes during a run;
- the `State`, a visible record: everything that evolves. Saving a run is saving this record, and a run restored from
  it goes on bit for bit.

A step evaluates J as often as it needs and commits last, so an exception out of an evaluation (a request to stop, a
lost device) leaves the state as it was before the step. The endings that numerics make normal are values, an `Ending`
with a sentence and its numbers; mistakes raise.

An evaluation may be done in float32, which leaves relative errors of about 1e-7 in J and 1e-6 in ∇J. Everything an
optimizer makes of them is float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from ..errors import MismatchError, UsageError


class Function(Protocol):
    """J(Θ) with its gradient; one call is one evaluation.

    It may have numbers `threads`, how many it works with, which are free between two calls, and `noise`, the relative
    rounding of a difference of its J.
    """

    def value_and_gradient(self, Theta: np.ndarray, out: np.ndarray) -> float:
        """J(Θ), and ∇J(Θ) written to `out`. Both are (P,) float64; equal Θ must give equal bits."""
        ...


@dataclass(frozen=True)
class Ending:
    """Why a run ended.

    Attributes:
        kind: "converged", the gradient is small enough; "limit", the iterations asked for are done; "stalled",
            nothing better can be found at this precision; "failed", J or ∇J is not finite; "stopped", someone asked.
        reason: a sentence with its numbers.
    """

    kind: Literal["converged", "limit", "stalled", "failed", "stopped"]
    reason: str


# The metadata of a state's field that holds nothing between steps: it is neither saved nor restored.
SCRATCH = {"scratch": True}
# The metadata of an array whose rows are filled one after the other, `rows` naming the field that counts them: of a
# ring of n rows the first min(count, n) are saved.
FILLED = "rows"


@dataclass(kw_only=True)
class State:
    """What a run has reached. A subclass adds what its algorithm remembers.

    Attributes:
        Theta, gradient: Θ and ∇J(Θ), (P,) float64. A step may put other arrays here: read them anew after each one.
        J: the cost at Θ, as the function returned it.
        iteration, evaluations: steps finished and evaluations of J that went into them, in the whole run.
    """

    Theta: np.ndarray
    gradient: np.ndarray
    J: float = math.nan
    iteration: int = 0
    evaluations: int = 0

    def saved(self) -> dict[str, np.ndarray | int | float | bool]:
        """Every field that is not scratch. The arrays are the state's own: write or copy them before the next step."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if not one.metadata.get("scratch")}
        for one in fields(self):
            if FILLED in one.metadata:
                kept[one.name] = getattr(self, one.name)[: getattr(self, one.metadata[FILLED])]
        return kept


AnyState = TypeVar("AnyState", bound=State)


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC, Generic[AnyState]):
    """The parent of every optimizer. A subclass writes `blank` and `advance`, and `check` for its own fields.

    Attributes:
        tolerance: a run has converged when max|∇J| ≤ tolerance.
    """

    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        for one in fields(self):
            declared = str(one.type)
            if declared.endswith(" | None") and getattr(self, one.name) is None:
                continue
            kind = {"float": float, "int": int}[declared.removesuffix(" | None")]
            value = getattr(self, one.name)
            if isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value):
                continue
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, one.name, float(value))  # 1 is a good way to write 1.0
                continue
            raise UsageError(f"{one.name} = {value!r}", wanted=f"a finite {kind.__name__}")
        self.require(self.tolerance >= 0, "tolerance", "0 or more")
        self.check()

    def check(self) -> None:
        """Refuse hyperparameters that cannot be meant, with `require`."""

    def require(self, good: bool, name: str, wanted: str) -> None:
        """Raise a UsageError about the field `name` unless it is good."""
        if not good:
            raise UsageError(f"{name} = {getattr(self, name)!r}", wanted=wanted)

    @abstractmethod
    def blank(self, P: int) -> AnyState:
        """A state for P parameters with all its buffers, before anything is known."""

    @abstractmethod
    def advance(self, f: Function, state: AnyState) -> Ending | None:
        """One iteration from a state where J and ∇J are finite and max|∇J| is above the tolerance. Commits last."""

    def init(self, f: Function, Theta: np.ndarray) -> AnyState:
        """The state at the start: one evaluation.

        Args:
            Theta: (P,), copied. A J or ∇J that is not finite there is not an error: the first step ends the run as
                "failed".

        Raises:
            UsageError: Θ is not a vector of at least one finite number.
        """
        Theta = np.asarray(Theta)
        if Theta.ndim != 1 or not len(Theta) or Theta.dtype.kind not in "fiu":
            raise UsageError(f"Theta of shape {Theta.shape}, {Theta.dtype}", wanted="a vector of numbers")
        if bad := int(np.count_nonzero(~np.isfinite(Theta))):
            raise UsageError(f"{bad} of {len(Theta)} numbers in Theta not finite", wanted="finite numbers")
        state = self.blank(len(Theta))
        state.Theta[:] = Theta
        state.J = f.value_and_gradient(state.Theta, state.gradient)
        state.evaluations = 1
        return state

    def restore(self, f: Function, saved: Mapping[str, Any]) -> AnyState:
        """The state that `saved()` gave; f is not evaluated, since J and ∇J are in it.

        Raises:
            MismatchError: a field is missing, unknown, or of another type, dtype or shape than this optimizer's.
        """
        Theta = saved.get("Theta")
        P = len(Theta) if isinstance(Theta, np.ndarray) and Theta.ndim == 1 else 0
        state = self.blank(P)
        filled = {one.name: one.metadata[FILLED] for one in fields(state) if FILLED in one.metadata}
        own = state.saved() | {name: getattr(state, name) for name in filled}
        for name in sorted(own.keys() ^ saved.keys()):
            found, wanted = ("without", "with") if name in own else ("with", "without")
            raise MismatchError(f"a saved state {found} {name}", wanted=f"one {wanted} {name}", do=_DO)
        if not P:
            raise MismatchError(f"a saved state whose Theta is {_kind(Theta)}", wanted="a vector", do=_DO)
        for name, blank in own.items():
            value = saved[name]
            if name in filled and isinstance(blank, np.ndarray):
                count = saved[filled[name]]
                blank = blank[: count if _kind(count) == "int" else 0]
            if _kind(value) != _kind(blank):
                raise MismatchError(f"a saved state whose {name} is {_kind(value)}", wanted=_kind(blank), do=_DO)
            if isinstance(blank, np.ndarray):
                blank[...] = value
            else:
                setattr(state, name, type(blank)(value))
        return state

    def renew(self, f: Function, state: AnyState) -> None:
        """Have J and ∇J of the same Θ by another function that rounds less: one evaluation.

        What was learned of the slopes is kept, what showed a standstill begins anew: a subclass that counts towards
        one sets its counts back. An exception raised by f leaves the state as it was.
        """
        gradient = np.zeros_like(state.gradient)
        state.J = f.value_and_gradient(state.Theta, gradient)
        state.gradient[:] = gradient
        state.evaluations += 1

    def step(self, f: Function, state: AnyState) -> Ending | None:
        """One iteration, or the reason why there is none; both when the iteration was the last one needed.

        An exception raised by f leaves the state as it was, bit for bit.
        """
        return self._ending(state) or self.advance(f, state) or self._ending(state)

    def _ending(self, state: AnyState) -> Ending | None:
        steepest = max_abs(state.gradient)
        if not (math.isfinite(state.J) and math.isfinite(steepest)):
            return Ending("failed", f"failed: J = {state.J:g} and max|∇J| = {steepest:g} at the initial Θ")
        if steepest <= self.tolerance:
            return Ending("converged", f"converged: max|∇J| = {steepest:.3g} is within {self.tolerance:g}")
        return None


_DO = "resume with the optimizer and the options that the state was saved under"


def _kind(value: object) -> str:
    """What a field holds, in words. A NumPy scalar, as a file gives it back, is the plain number it stands for."""
    if not isinstance(value, np.ndarray | np.generic):
        return type(value).__name__
    if value.ndim == 0:
        return {"float64": "float", "int64": "int"}.get(value.dtype.name, value.dtype.name)
    return f"{value.dtype} of shape {value.shape}"


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """aᵀb of (P,) float64. Every dot product of an optimizer goes through here. Its bits are the same from run to run
    when the BLAS works with one thread, which the caller of an optimizer sees to: with two, they change. May overflow
    to infinity, without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(a, b))


def max_abs(v: np.ndarray) -> float:
    """max|v|, without a temporary; nan if any is nan."""
    return max(float(v.max()), -float(v.min()))


def move(Theta: np.ndarray, alpha: float, direction: np.ndarray, out: np.ndarray) -> None:
    """out = Θ + α·d, all (P,) float64. A step far too long gives infinities and no warning: J judges it."""
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(direction, alpha, out=out)
        np.add(Theta, out, out=out)
