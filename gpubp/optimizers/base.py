"""What an optimizer is, and what survives one of its steps.

An optimizer sees a vector Θ and a function J with its gradient, never a layer. It has two parts:

- the `Optimizer`, a frozen record: its fields are the hyperparameters, nothing in it changes during a run;
- the `State`, a visible record: everything that evolves. Saving a run is saving this record, and a run restored from
  it goes on bit for bit.

A step evaluates J as often as it needs and commits last, so an exception out of an evaluation (a request to stop, a
lost device) leaves the state as it was before the step. What fails within the commit (the memory for a new
inverse) leaves a state that is `whole` no more, and is not to be saved. The endings that numerics make normal are
values, an `Ending` with a sentence and its numbers; mistakes raise.

An evaluation may be done in float32, which leaves relative errors of about 1e-7 in J and 1e-6 in ∇J. Everything an
optimizer makes of them is float64.

Vectors live where the function wants them, in NumPy's memory or a GPU's; what is done with them is in `vectors`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from ast import literal_eval
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from ..errors import MismatchError, UsageError
from .vectors import HOST, Vectors, vectors_of


class Function(Protocol):
    """J(Θ) with its gradient; one call is one evaluation.

    It may have numbers `threads`, how many it works with, which are free between two calls, and `noise`, the relative
    rounding of a difference of its J; `vectors`, where its vectors are to live; and `curvature`, see there.
    """

    def value_and_gradient(self, Theta: Any, out: Any) -> Any:
        """J(Θ), and ∇J(Θ) written to `out`. Both are (P,) float64; equal Θ must give equal bits.

        J may be a number that `vectors.read` gives.
        """
        ...


@dataclass(frozen=True)
class Ending:
    """Why a run ended.

    Attributes:
        kind: "converged", the gradient is small enough, or J no longer falls; "target", J is; "early", the validation
            cost no longer falls; "limit", a budget is used up; "stalled", nothing better can be found at this
            precision; "failed", J or ∇J is not finite; "stopped", someone asked.
        reason: a sentence with its numbers.
    """

    kind: Literal["converged", "target", "early", "limit", "stalled", "failed", "stopped"]
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
        Theta, gradient: Θ and ∇J(Θ), (P,) float64, where `vectors` are. A step may put other arrays here: read them
            anew after each one.
        J: the cost at Θ, as the function returned it.
        iteration, evaluations: steps finished and evaluations of J that went into them, in the whole run.
        extra: what else they cost, products with the curvature and the like, in passes for J and ∇J.
        vectors: where Θ and all other vectors live, scratch.
        measured: max|∇J| and the evaluations it was read after, scratch; see `steepest`.
        whole: whether this is a state between two steps, scratch; see `commit`.
        settle: scratch: called before anything of what is saved changes, so that whoever is writing it can finish.
    """

    Theta: Any
    gradient: Any
    J: float = math.nan
    iteration: int = 0
    evaluations: int = 0
    extra: float = 0.0
    vectors: Vectors = field(default=HOST, metadata=SCRATCH)
    measured: tuple[float, int] = field(default=(math.nan, -1), metadata=SCRATCH)
    whole: bool = field(default=True, metadata=SCRATCH)
    settle: Callable[[], None] = field(default=lambda: None, metadata=SCRATCH)

    @property
    def passes(self) -> float:
        """All that the run has cost, in passes over the rows for J and ∇J."""
        return self.evaluations + self.extra

    @property
    def best(self) -> tuple[Any, float]:
        """The Θ that the run is to return, and its J: the last one where J cannot rise."""
        return self.Theta, self.J

    @property
    def Theta_on_host(self) -> np.ndarray:
        """The best Θ as an array of NumPy's; it may be the state's own."""
        return self.vectors.to_host(self.best[0])

    @property
    def steepest(self) -> float:
        """max|∇J|. A step that has read it already notes it in `measured`."""
        if self.measured[1] != self.evaluations:
            self.measured = self.vectors.read(self.vectors.max_abs(self.gradient))[0], self.evaluations
        return self.measured[0]

    @contextmanager
    def commit(self) -> Iterator[None]:
        """Around all changes of what is saved. After an exception inside, the state is whole no more: neither that
        before the step nor that after it."""
        self.settle()
        self.whole = False
        yield
        self.whole = True

    def saved(self) -> dict[str, np.ndarray | int | float | bool]:
        """Every field that is not scratch, in NumPy's memory. Arrays may be the state's own: write them at once. Of a
        matrix that several processes share there is this one's part, see `parted`."""
        kept = {one.name: getattr(self, one.name) for one in fields(self) if not one.metadata.get("scratch")}
        for one in fields(self):
            if FILLED in one.metadata:
                kept[one.name] = getattr(self, one.name)[: getattr(self, one.metadata[FILLED])]
        return {name: self.vectors.to_host(v) if hasattr(v, "shape") else v for name, v in kept.items()}

    def versions(self) -> dict[str, Sequence[Hashable]]:
        """Of long fields that change a row at a time: what tells a row from what it was before. So whoever writes the
        state need not look at rows that are as they were."""
        return {}


AnyState = TypeVar("AnyState", bound=State)


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC, Generic[AnyState]):
    """The parent of every optimizer. A field is a float, an int, one of them or None, or one of the words of a Literal.

    A subclass writes `blank` and `advance`, and `check` for its own fields; `equip`, `begin` and `within` if it asks
    how J curves, or remembers more than it must.

    Attributes:
        tolerance: a run has converged when max|∇J| ≤ tolerance.
    """

    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        for one in fields(self):
            declared = str(one.type)
            if declared.startswith("Literal["):
                words = literal_eval(f"({declared[len('Literal[') : -1]},)")  # a type is a text here
                self.require(getattr(self, one.name) in words, one.name, f"one of {', '.join(words)}")
                continue
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
    def blank(self, P: int, vectors: Vectors = HOST) -> AnyState:
        """A state for P parameters with all its buffers, made by `vectors`, before anything is known."""

    def equip(self, f: Function, state: AnyState) -> None:
        """Give a blank state what depends on the function.

        Raises:
            UsageError: the function lacks what this optimizer needs.
        """

    def begin(self, f: Function, state: AnyState) -> None:
        """What else a new state is to know of the function at the initial Θ, where J and ∇J are finite."""

    def refuse(self, parameters: int) -> None:
        """Raise a UsageError for a network of so many parameters, before its data are read, if that is too many."""

    def remark(self, f: Any) -> str:
        """What a user should know of this optimizer with this function, in words; "" if nothing."""
        return ""

    def within(self, P: int, memory: int) -> tuple[Optimizer[AnyState], str]:
        """This optimizer for P parameters with its memory shortened to so many bytes, and a sentence that says so; ""
        if that was not necessary."""
        return self, ""

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
        state = self._blank(f, len(Theta))
        state.vectors.put(Theta, state.Theta)
        self._evaluate(f, state, state.gradient)
        if math.isfinite(state.J) and math.isfinite(state.steepest):
            self.begin(f, state)
        return state

    def _blank(self, f: Function, P: int) -> AnyState:
        vectors = vectors_of(f)
        state = self.blank(P, vectors)
        state.vectors = vectors
        self.equip(f, state)
        return state

    @staticmethod
    def _evaluate(f: Function, state: AnyState, gradient: Any) -> None:
        """J and ∇J at the state's Θ, by one evaluation."""
        J = f.value_and_gradient(state.Theta, gradient)
        J, steepest = state.vectors.read(J, state.vectors.max_abs(gradient))
        state.J, state.evaluations = J, state.evaluations + 1
        state.measured = steepest, state.evaluations

    def restore(self, f: Function, saved: Mapping[str, Any]) -> AnyState:
        """The state that `saved()` gave; f is not evaluated, since J and ∇J are in it.

        Raises:
            MismatchError: a field is missing, unknown, or of another type, dtype or shape than this optimizer's.
        """
        Theta = saved.get("Theta")
        P = len(Theta) if isinstance(Theta, np.ndarray) and Theta.ndim == 1 else 0
        state = self._blank(f, P)
        filled = {one.name: one.metadata[FILLED] for one in fields(state) if FILLED in one.metadata}
        own = {one.name: getattr(state, one.name) for one in fields(state) if not one.metadata.get("scratch")}
        for name in sorted(own.keys() ^ saved.keys()):
            found, wanted = ("without", "with") if name in own else ("with", "without")
            raise MismatchError(f"a saved state {found} {name}", wanted=f"one {wanted} {name}", do=_DO)
        if not P:
            raise MismatchError(f"a saved state whose Theta is {_kind(Theta)}", wanted="a vector", do=_DO)
        for name, blank in own.items():
            value = saved[name]
            if name in filled:
                count = saved[filled[name]]
                blank = blank[: count if _kind(count) == "int" else 0]
            if _kind(value) != _kind(blank):
                raise MismatchError(f"a saved state whose {name} is {_kind(value)}", wanted=_kind(blank), do=_DO)
            if type(blank) is np.ndarray:
                blank[...] = value
            elif hasattr(blank, "shape"):
                state.vectors.put(value, blank)
            else:
                setattr(state, name, type(blank)(value))
        return state

    def renew(self, f: Function, state: AnyState) -> None:
        """Have J and ∇J of the same Θ by another function that rounds less: one evaluation.

        What was learned of the slopes is kept, what showed a standstill begins anew: a subclass that counts towards
        one sets its counts back. An exception raised by f leaves the state as it was.
        """
        state.vectors = vectors_of(f)
        gradient = state.vectors.zeros(*state.gradient.shape)
        self._evaluate(f, state, gradient)
        state.gradient = gradient

    def step(self, f: Function, state: AnyState) -> Ending | None:
        """One iteration, or the reason why there is none; both when the iteration was the last one needed.

        An exception raised by f leaves the state as it was, bit for bit; one of the commit a state that is not `whole`.
        """
        return self._ending(state) or self.advance(f, state) or self._ending(state)

    def _ending(self, state: AnyState) -> Ending | None:
        steepest = state.steepest
        if not (math.isfinite(state.J) and math.isfinite(steepest)):
            return Ending("failed", f"failed: J = {state.J:g} and max|∇J| = {steepest:g} at the initial Θ")
        if steepest <= self.tolerance:
            return Ending("converged", f"converged: max|∇J| = {steepest:.3g} is within {self.tolerance:g}")
        return None


_DO = "resume with the optimizer and the options that the state was saved under"


def _kind(value: Any) -> str:
    """What a field holds, in words. A NumPy scalar, as a file gives it back, is the plain number it stands for."""
    if not hasattr(value, "shape"):
        return type(value).__name__
    if value.shape == ():
        return {"float64": "float", "int64": "int"}.get(str(value.dtype), str(value.dtype))
    return f"{value.dtype} of shape {value.shape}"
