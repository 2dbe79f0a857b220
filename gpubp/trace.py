"""What a formula does, step by step: its reference called with symbols instead of arrays.

A reference is plain mathematics in the operations of a library `xp`. Handed a `Recorder` as that library, and symbols
as its arguments, it leaves a list of `Step`s: the sum, then the exponential, then the quotient. An engine turns steps
into what its device likes: NumPy's in-place ufuncs without temporaries (`backend.ufuncs`), one compiled loop
(`backend.compiled`). So a formula stays written once, and a new one needs nothing else.

Types are NumPy's own: a Python number takes the type of what it meets, float32 with float64 gives float64. Equal steps
are recorded once. A reference may use arithmetic, comparisons, every ufunc of NumPy, `xp.where`, `.astype`, and along
a row `.max` and `.sum` with ``axis=1, keepdims=True``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BackendError

Number = bool | int | float
Shape = tuple[bool, bool]  # whether it has many rows, and many columns; where not, it is broadcast

_BOOL = np.dtype(bool)


@dataclass(frozen=True, eq=False)
class Step:
    """One value: an input, or what an operation makes of others.

    Attributes:
        operation: "input", "astype", "where", "row_max", "row_sum", or the name of a NumPy ufunc.
        operands: steps, or Python numbers.
        loop: the types in which the operands are taken (NumPy's loop for them).
        dtype: the type of the result.
        shape: see `Shape`.
        name: of an input.
    """

    operation: str
    operands: tuple[Step | Number, ...]
    loop: tuple[np.dtype, ...]
    dtype: np.dtype
    shape: Shape
    name: str = ""


class Symbol:
    """A step as a reference sees it: it computes with it as with an array."""

    __array_ufunc__ = None  # NumPy's own scalars leave the operation to us

    def __init__(self, recorder: Recorder, step: Step) -> None:
        self.recorder, self.step = recorder, step

    @property
    def dtype(self) -> np.dtype:
        """The type of the number."""
        return self.step.dtype

    def astype(self, dtype: Any) -> Symbol:
        """The same number in another type."""
        wanted = np.dtype(dtype)
        return self if wanted == self.step.dtype else self.recorder.note("astype", (self,), (self.step.dtype,), wanted)

    def max(self, axis: int | None = None, keepdims: bool = False) -> Symbol:
        """The largest of each row."""
        return self._along_rows("row_max", axis, keepdims)

    def sum(self, axis: int | None = None, keepdims: bool = False) -> Symbol:
        """The sum of each row."""
        return self._along_rows("row_sum", axis, keepdims)

    def _along_rows(self, operation: str, axis: int | None, keepdims: bool) -> Symbol:
        if axis != 1 or not keepdims:
            raise BackendError(f"{operation} over axis {axis}", wanted="axis=1, keepdims=True")
        return self.recorder.note(operation, (self,), (self.step.dtype,), self.step.dtype, (self.step.shape[0], False))

    def __bool__(self) -> bool:
        raise BackendError("an `if` on a value in a formula", wanted="xp.where(condition, this, that)")

    def __neg__(self) -> Any:
        return self.recorder.call("negative", self)

    def __abs__(self) -> Any:
        return self.recorder.call("absolute", self)

    def __invert__(self) -> Any:
        return self.recorder.call("invert", self)


def _binary(ufunc: str) -> tuple[Callable[[Symbol, Any], Any], Callable[[Symbol, Any], Any]]:
    def forward(self: Symbol, other: Any) -> Any:
        return self.recorder.call(ufunc, self, other)

    def reflected(self: Symbol, other: Any) -> Any:
        return self.recorder.call(ufunc, other, self)

    return forward, reflected


for _name, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
    "and": "bitwise_and", "or": "bitwise_or", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
    "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    _forward, _reflected = _binary(_ufunc)
    setattr(Symbol, f"__{_name}__", _forward)
    setattr(Symbol, f"__r{_name}__", _reflected)


class Recorder:
    """The library `xp` that writes down what is asked of it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._known: dict[Any, Step] = {}

    def input(self, name: str, dtype: Any, shape: Shape = (True, True)) -> Symbol:
        """A new argument for a reference."""
        step = Step("input", (), (), np.dtype(dtype), shape, name)
        self.steps.append(step)
        return Symbol(self, step)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """a where the condition holds, else b."""
        if isinstance(condition, bool):
            return a if condition else b
        dtype = np.result_type(*(v.step.dtype if isinstance(v, Symbol) else v for v in (a, b)))
        return self.note("where", (condition, a, b), (_BOOL, dtype, dtype), dtype)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        name = {"abs": "absolute"}.get(name, name)
        if not isinstance(getattr(np, name, None), np.ufunc):
            raise BackendError(f"xp.{name} in a formula", wanted="a ufunc of NumPy, or xp.where")
        return lambda *operands: self.call(name, *operands)

    def call(self, ufunc: str, *operands: Any) -> Any:
        """One ufunc of NumPy on symbols and numbers."""
        if not any(isinstance(o, Symbol) for o in operands):
            return getattr(np, ufunc)(*operands).item()
        for value, other in (operands, operands[::-1]) if len(operands) == 2 else ():
            # what is true or false whatever the rows are: `w == 0` for rows without weights
            if isinstance(value, bool) and ufunc in ("bitwise_or", "bitwise_and"):
                return other if value == (ufunc == "bitwise_and") else value
            one = type(value) in (int, float) and value == 1
            if ufunc == "multiply" and one and isinstance(other, Symbol) and other.dtype.kind == "f":
                return other
        kinds = tuple(
            o.step.dtype if isinstance(o, Symbol)
            else o.dtype if isinstance(o, np.generic)
            else _BOOL if isinstance(o, bool)
            else type(o)
            for o in operands
        )  # fmt: skip
        operands = tuple(o.item() if isinstance(o, np.generic) else o for o in operands)
        *loop, dtype = getattr(np, ufunc).resolve_dtypes((*kinds, None))
        return self.note(ufunc, operands, tuple(loop), dtype)

    def note(
        self,
        operation: str,
        operands: Sequence[Any],
        loop: tuple[np.dtype, ...],
        dtype: np.dtype,
        shape: Shape | None = None,
    ) -> Symbol:
        """Record a step, unless the same one is there."""
        steps = tuple(o.step if isinstance(o, Symbol) else o for o in operands)
        shapes = [s.shape for s in steps if isinstance(s, Step)]
        shape = shape or (any(s[0] for s in shapes), any(s[1] for s in shapes))
        key = (operation, tuple(id(s) if isinstance(s, Step) else (type(s), repr(s)) for s in steps), dtype)
        if key not in self._known:
            self._known[key] = Step(operation, steps, loop, dtype, shape)
            self.steps.append(self._known[key])
        return Symbol(self, self._known[key])


def needed(recorder: Recorder, results: Sequence[Step]) -> list[Step]:
    """The steps that lead to these results, inputs included, in the order in which they were recorded."""
    wanted: set[int] = set()
    stack = list(results)
    while stack:
        step = stack.pop()
        if id(step) not in wanted:
            wanted.add(id(step))
            stack.extend(o for o in step.operands if isinstance(o, Step))
    return [step for step in recorder.steps if id(step) in wanted]
